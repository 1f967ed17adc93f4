#include "meowbridge/clock.h"
#include "meowbridge/command.h"
#include "meowbridge/event_list.h"
#include "meowbridge/journal_view.h"
#include "terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DEFAULT_LIMIT = 50,
    MAX_LIMIT = 100000,
    PAGE_VISITS = 20000,
    MAX_TEXT = 512 * 1024 * 1024,
    /* SEQ RECEIVED STATE EVENT ID: TERMINAL_COLUMNS in all. */
    SEQ_COLUMNS = 8,
    TIME_COLUMNS = 19,
    STATE_COLUMNS = 9,
    EVENT_COLUMNS = 22,
    ID_COLUMNS = 18,
};

/* As typed. */
struct arguments {
    const char *config, *state, *event, *app, *since, *until, *before, *limit, *json;
};

/* What was found, newest first, each entry's text behind the other in text. */
struct listing {
    struct buf text;
    size_t *starts; /* of count entries */
    size_t count, limit;
    bool json, has_colour;
};

/* --- one event --- */

static const char *colour_of(enum journal_event_state state)
{
    return state == JOURNAL_DEAD ? "\033[31m" : state == JOURNAL_PENDING ? "\033[33m" : "\033[32m";
}

static void append_state(struct buf *out, enum journal_event_state state, bool has_colour)
{
    buf_append_text(out, has_colour ? colour_of(state) : "");
    terminal_append_padded(out, slice_of(journal_state_name(state)), STATE_COLUMNS);
    buf_append_text(out, has_colour ? "\033[0m" : "");
}

static void append_line(struct buf *out, const struct listed_event *event, bool has_colour)
{
    char received[CLOCK_RFC3339_SIZE];
    clock_rfc3339(event->stored.accepted_ms, received);
    received[10] = ' ';
    buf_appendf(out, "%*" PRIu64 " %.*s ", SEQ_COLUMNS, event->stored.seq, TIME_COLUMNS, received);
    append_state(out, event->stored.state, has_colour);
    buf_append_char(out, ' ');
    terminal_append_padded(out, event->is_readable ? event->event.name : SLICE("(damaged)"), EVENT_COLUMNS);
    buf_append_char(out, ' ');
    terminal_append(out, event->event.id, ID_COLUMNS);
    buf_append_char(out, '\n');
    if (event->stored.replay_of != 0) {
        buf_appendf(out, "%*s replay of %" PRIu64 "\n", SEQ_COLUMNS, "", event->stored.replay_of);
    }
    if (event->stored.state == JOURNAL_DEAD) {
        terminal_append_wrapped(out, event->stored.reason, 0, SEQ_COLUMNS + 1);
        buf_append_char(out, '\n');
    }
}

static bool add_event(void *ctx, const struct listed_event *event)
{
    struct listing *listing = ctx;
    listing->starts[listing->count++] = listing->text.size;
    if (listing->json) {
        event_list_append_json(&listing->text, event);
        buf_append_char(&listing->text, '\n');
    } else {
        append_line(&listing->text, event, listing->has_colour);
    }
    return !listing->text.failed;
}

/* --- all of them --- */

static void print_header(bool has_colour)
{
    printf("%s%*s %-*s %-*s %-*s %s%s\n", has_colour ? "\033[1m" : "", SEQ_COLUMNS, "SEQ", TIME_COLUMNS, "RECEIVED (UTC)",
           STATE_COLUMNS, "STATE", EVENT_COLUMNS, "EVENT", "ID", has_colour ? "\033[0m" : "");
}

static void print_listing(const struct listing *listing, uint64_t next)
{
    if (!listing->json && listing->count > 0) {
        print_header(listing->has_colour);
    }
    for (size_t i = listing->count, end = listing->text.size; i-- > 0; end = listing->starts[i]) {
        fwrite(listing->text.data + listing->starts[i], 1, end - listing->starts[i], stdout);
    }
    if (!listing->json && listing->count == 0) {
        fputs("no events\n", stderr);
    }
    if (next != 0 && isatty(STDOUT_FILENO) && isatty(STDERR_FILENO)) {
        fprintf(stderr, "Older ones: --before %" PRIu64 "\n", next);
    }
}

/* A page at a time, so that no look at the journal is a long one, however rare what is asked for. */
static enum err collect(struct journal_view *view, struct event_filter *filter, struct listing *listing, uint64_t *next,
                        struct error *why)
{
    enum err err;
    do {
        err = event_list_page(view, filter, listing->limit - listing->count, PAGE_VISITS, add_event, listing, next, why);
        filter->journal.before = *next;
    } while (!err && *next != 0 && listing->count < listing->limit && !listing->text.failed);
    return !err && listing->text.failed ? error_set(why, ERR_MEMORY, "out of memory; take a smaller --limit") : err;
}

static int list(const struct config *config, struct event_filter *filter, struct listing *listing)
{
    struct error why;
    struct journal_view *view = NULL;
    uint64_t next = 0;
    buf_init(&listing->text, MAX_TEXT);
    listing->starts = calloc(listing->limit, sizeof *listing->starts);
    enum err err = listing->starts ? ERR_NONE : error_set(&why, ERR_MEMORY, "out of memory");
    err = err ? err : journal_view_open(&view, config->journal.path, &why);
    err = err ? err : collect(view, filter, listing, &next, &why);
    if (err) {
        command_complain("%s", why.text);
    } else {
        print_listing(listing, next);
    }
    journal_view_close(&view);
    buf_free(&listing->text);
    free(listing->starts);
    return err ? EXIT_FAILED : EXIT_DONE;
}

static bool read_arguments(const struct arguments *given, struct event_filter *filter, struct listing *listing)
{
    const int64_t now_ms = clock_wall_ms();
    int64_t limit = DEFAULT_LIMIT, before;
    *filter = (struct event_filter){JOURNAL_VIEW_ALL, slice_of(given->event), slice_of(given->app)};
    struct journal_view_filter *journal = &filter->journal;
    journal->has_state = given->state != NULL;
    if (given->state && !journal_state_of(slice_of(given->state), &journal->state)) {
        command_complain("--state is pending, published or dead, not \"%s\"", given->state);
        return false;
    }
    if ((given->since && !command_time("--since", given->since, now_ms, &journal->since_ms)) ||
        (given->until && !command_time("--until", given->until, now_ms, &journal->until_ms)) ||
        (given->limit && !command_number("--limit", given->limit, 1, MAX_LIMIT, &limit)) ||
        (given->before && !command_number("--before", given->before, 1, INT64_MAX, &before))) {
        return false;
    }
    if (given->before) {
        journal->before = (uint64_t)before;
    }
    listing->limit = (size_t)limit;
    listing->json = given->json != NULL;
    listing->has_colour = !given->json && terminal_has_colour();
    return true;
}

static int events(const struct arguments *given)
{
    struct event_filter filter;
    struct listing listing = {0};
    struct config *config;
    if (!read_arguments(given, &filter, &listing) || !command_config(given->config, &config)) {
        return EXIT_USAGE;
    }
    int status = EXIT_FAILED;
    if (config->journal.enabled) {
        status = list(config, &filter, &listing);
    } else {
        command_complain("there is no journal (\"journal\": false), so no events are kept");
    }
    config_free(&config);
    return status;
}

int command_events(int argc, char **argv)
{
    struct arguments given = {0};
    const struct command_option options[] = {
        {'c', "config", "FILE", "the bridge's configuration; without it, defaults and variables", &given.config},
        {'s', "state", "STATE", "only those that are pending, published or dead", &given.state},
        {'e', "event", "NAME", "only events of this name; * is any run of characters", &given.event},
        {'a', "app", "ID", "only events of this appId", &given.app},
        {0, "since", "TIME", "received since then: a span (90m, 2h, 7d) or an RFC 3339 time", &given.since},
        {0, "until", "TIME", "received before then", &given.until},
        {'n', "limit", "N", "the latest N, at most 100000 (default: 50)", &given.limit},
        {0, "before", "SEQ", "only those with a smaller number, to page back", &given.before},
        {'j', "json", NULL, "one JSON object a line", &given.json},
        {0},
    };
    const struct command_usage usage = {
        .name = "events",
        .arguments = "",
        .summary = "Lists the events in the journal, newest last, beside a running bridge or without one.",
        .details = "The journal is only read. What was published in the last second may still be listed as pending.\n"
                   "\n"
                   "Examples:\n"
                   "  meowbridge events --state dead --since 1d\n"
                   "  meowbridge events --event 'workflowTask.*' --json | jq -r .objectId\n",
        .options = options,
    };
    char **operands;
    int operand_count;
    int status = command_options(&usage, argc, argv, &operands, &operand_count);
    return status >= 0 ? status : events(&given);
}
