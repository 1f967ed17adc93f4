#include "meowbridge/clock.h"
#include "meowbridge/command.h"
#include "meowbridge/event_list.h"
#include "meowbridge/journal_view.h"
#include "meowbridge/route.h"
#include "terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TEXT = 256 * 1024 * 1024 };

static void append_field(struct buf *out, const char *name, struct slice text)
{
    if (text.size > 0) {
        buf_appendf(out, "%-12s ", name);
        terminal_append(out, text, SIZE_MAX);
        buf_append_char(out, '\n');
    }
}

static void append_time(struct buf *out, const char *name, int64_t wall_ms)
{
    char text[CLOCK_RFC3339_SIZE];
    clock_rfc3339(wall_ms, text);
    append_field(out, name, slice_of(text));
}

/* origin: when what was replayed was received; empty: not known. */
static void append_state(struct buf *out, const struct journal_view_event *stored, const char *origin)
{
    buf_appendf(out, "%-12s %" PRIu64 "\n", "seq", stored->seq);
    buf_appendf(out, "%-12s %s", "state", journal_state_name(stored->state));
    if (stored->state == JOURNAL_MOVED) {
        buf_appendf(out, ": it was dead, and replayed as %" PRIu64, stored->moved_to);
    }
    buf_append_char(out, '\n');
    append_field(out, "last error", stored->reason);
    if (stored->state == JOURNAL_DEAD) {
        append_time(out, "dead since", stored->died_ms);
    }
    buf_appendf(out, "%-12s %u", "attempts", event_list_attempts(stored));
    if (stored->replay_of != 0) {
        buf_appendf(out, "; this is a replay of %" PRIu64 "%s%s", stored->replay_of,
                    origin[0] ? "\noriginal     received " : "", origin);
    }
    buf_append_char(out, '\n');
}

static void append_fields(struct buf *out, const struct event *event)
{
    append_field(out, "event", event->name);
    append_field(out, "id", event->id);
    append_field(out, "appId", event->app_id);
    append_field(out, "webhookId", event->webhook_id);
    append_field(out, "objectId", event->object_id);
    append_field(out, "pushTime", event->push_time);
    append_time(out, "receivedAt", event->accepted_ms);
    append_field(out, "traceparent", event->traceparent);
    append_field(out, "tracestate", event->tracestate);
}

static void append_topics(struct buf *out, const struct config *config, const struct event *event)
{
    struct error why;
    struct route_table *table = NULL;
    struct message_list *list = malloc(sizeof *list);
    if (!list || route_table_open(&table, config->routes, config->route_count, &why)) {
        out->failed = true;
        free(list);
        return;
    }
    message_list_init(list);
    enum route_verdict verdict = route_render(table, event, event->accepted_ms, list);
    if (verdict != ROUTE_OK) {
        append_field(out, "topics", slice_of(route_verdict_text(verdict)));
    }
    for (size_t i = 0; i < list->count; i++) {
        buf_appendf(out, "%-12s ", i == 0 ? "topics" : "");
        terminal_append(out, list->items[i].topic, SIZE_MAX);
        buf_appendf(out, " (QoS %d%s, %zu bytes)\n", list->items[i].qos, list->items[i].retain ? ", retained" : "",
                    list->items[i].payload.size);
    }
    message_list_free(list);
    free(list);
    route_table_unref(&table);
}

/* Byte for byte where it goes to a file or a pipe; on a terminal, made harmless line by line. */
static void append_body(struct buf *out, struct slice body)
{
    if (!isatty(STDOUT_FILENO)) {
        buf_append(out, body);
        return;
    }
    while (body.size > 0) {
        const char *newline = memchr(body.data, '\n', body.size);
        size_t size = newline ? (size_t)(newline - body.data) : body.size;
        terminal_append(out, (struct slice){body.data, size}, SIZE_MAX);
        size += newline != NULL;
        body = (struct slice){body.data + size, body.size - size};
        buf_append_char(out, '\n');
    }
}

static void append_event(struct buf *out, const struct config *config, const struct listed_event *event, const char *origin)
{
    append_state(out, &event->stored, origin);
    if (event->is_readable) {
        append_fields(out, &event->event);
        append_topics(out, config, &event->event);
    } else {
        append_time(out, "receivedAt", event->stored.accepted_ms);
        append_field(out, "event", SLICE("the stored event is damaged"));
    }
    buf_appendf(out, "%-12s %zu bytes\n\n", "body", event->stored.body.size);
    append_body(out, event->stored.body);
    if (out->size > 0 && out->data[out->size - 1] != '\n') {
        buf_append_char(out, '\n');
    }
}

static void append_json(struct buf *out, const struct config *config, struct listed_event *event)
{
    struct error why;
    struct route_table *table = NULL;
    if (route_table_open(&table, config->routes, config->route_count, &why)) {
        out->failed = true;
        return;
    }
    event_list_append_whole_json(out, event, table, SIZE_MAX);
    buf_append_char(out, '\n');
    route_table_unref(&table);
}

enum form { FORM_TEXT, FORM_JSON, FORM_BODY };

static int print_event(const struct config *config, const struct journal_view_event *stored, const char *origin, enum form form)
{
    struct listed_event event;
    struct buf scratch, out;
    buf_init(&scratch, stored->body.size);
    buf_init(&out, MAX_TEXT);
    event_list_decode(&event, stored, &scratch);
    if (form == FORM_BODY) {
        buf_append(&out, stored->body);
    } else if (form == FORM_JSON) {
        append_json(&out, config, &event);
    } else {
        append_event(&out, config, &event, origin);
    }
    bool done = !out.failed;
    if (done) {
        fwrite(out.data ? out.data : "", 1, out.size, stdout);
    } else {
        command_complain("out of memory");
    }
    buf_free(&scratch);
    buf_free(&out);
    return done ? EXIT_DONE : EXIT_FAILED;
}

/* When the event was received that seq is a replay of, by way of replay_of; origin stays as it is if that one is gone. */
static void find_origin(struct journal_view *view, uint64_t seq, uint64_t replay_of, char origin[CLOCK_RFC3339_SIZE])
{
    while (replay_of != 0 && replay_of < seq) { /* it never grows, so this ends */
        struct error why;
        struct journal_view_event earlier;
        if (journal_view_get(view, replay_of, &earlier, &why)) {
            return;
        }
        seq = replay_of;
        replay_of = earlier.replay_of;
        if (replay_of == 0) {
            clock_rfc3339(earlier.accepted_ms, origin);
        }
    }
}

/* The event, and for the text what find_origin finds, else an empty origin. */
static enum err fetch(struct journal_view *view, uint64_t seq, enum form form, struct journal_view_event *stored,
                      char origin[CLOCK_RFC3339_SIZE], struct error *why)
{
    origin[0] = 0;
    enum err err = journal_view_get(view, seq, stored, why);
    if (!err && form == FORM_TEXT && stored->replay_of != 0) {
        find_origin(view, seq, stored->replay_of, origin);
        err = journal_view_get(view, seq, stored, why); /* the first look's slices are gone */
    }
    return err;
}

static int show(const struct config *config, uint64_t seq, enum form form)
{
    struct error why;
    struct journal_view *view = NULL;
    struct journal_view_event stored;
    char origin[CLOCK_RFC3339_SIZE];
    int status = EXIT_FAILED;
    if (!config->journal.enabled) {
        command_complain("there is no journal (\"journal\": false), so no events are kept");
    } else if (journal_view_open(&view, config->journal.path, &why) || fetch(view, seq, form, &stored, origin, &why)) {
        command_complain("%s", why.text);
    } else {
        status = print_event(config, &stored, origin, form);
    }
    journal_view_close(&view);
    return status;
}

int command_show(int argc, char **argv)
{
    const char *path = NULL, *body = NULL, *json = NULL;
    const struct command_option options[] = {
        {'c', "config", "FILE", "the bridge's configuration; without it, defaults and variables", &path},
        {'b', "body", NULL, "the request body alone, byte for byte", &body},
        {'j', "json", NULL, "one JSON object, payload and body in it as strings", &json},
        {0},
    };
    const struct command_usage usage = {
        .name = "show",
        .arguments = "SEQ",
        .summary = "Shows one event of the journal whole: its fields, the topics that the routes give it now,\n"
                   "attempts, its last error, and the body as it was received. SEQ is its number in `events`.",
        .details = "Examples:\n"
                   "  meowbridge show --body 17 | meowbridge route\n"
                   "  meowbridge show --json 17 | jq -r .messages[].topic\n",
        .options = options,
        .min_operands = 1,
        .max_operands = 1,
    };
    char **operands;
    int operand_count;
    int64_t seq;
    struct config *config;
    int status = command_options(&usage, argc, argv, &operands, &operand_count);
    if (status >= 0) {
        return status;
    }
    if (!command_number("SEQ", operands[0], 1, INT64_MAX, &seq) || !command_config(path, &config)) {
        return EXIT_USAGE;
    }
    status = show(config, (uint64_t)seq, body ? FORM_BODY : json ? FORM_JSON : FORM_TEXT);
    config_free(&config);
    return status;
}
