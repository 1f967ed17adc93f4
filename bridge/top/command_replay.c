/* Only the process that holds the journal's lock may write it. So a replay is asked of the bridge that runs, or, when none does,
 * done here with the lock taken, as the bridge would do it; what is queued is then published when it starts. */
#include "meowbridge/clock.h"
#include "meowbridge/command.h"
#include "meowbridge/event.h"
#include "meowbridge/journal.h"
#include "meowbridge/journal_view.h"
#include "meowbridge/jsonscan.h"
#include "meowbridge/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQS_AT_ONCE = 1000, TIMEOUT_MS = 15 * 60 * 1000, MAX_REQUEST = 64 * 1024 };

/* As typed. */
struct arguments {
    const char *config, *state, *since, *until;
};

/* --- by the bridge --- */

static void append_request(struct buf *out, const struct journal_replay *what)
{
    if (what->dead_only) {
        buf_append_text(out, "{\"state\":\"dead\"}");
    } else if (what->seq_count == 0) {
        buf_appendf(out, "{\"since\":%" PRId64 ",\"until\":%" PRId64 "}", what->since_ms, what->until_ms);
    } else {
        buf_append_text(out, "{\"seqs\":[");
        for (size_t i = 0; i < what->seq_count; i++) {
            buf_appendf(out, "%s%" PRIu64, i > 0 ? "," : "", what->seqs[i]);
        }
        buf_append_text(out, "]}");
    }
}

/* The member of a JSON object; text.data is NULL if there is none. */
static struct json_value member_of(struct slice json, struct slice name)
{
    struct json_value object, key, value;
    struct json_iterator it;
    if (jsonscan_document(json, &object, NULL, NULL) == ERR_NONE && object.type == JSON_OBJECT) {
        for (jsonscan_enter(&it, &object); jsonscan_next(&it, &key, &value);) {
            if (jsonscan_string_is(&key, name)) {
                return value;
            }
        }
    }
    return (struct json_value){0};
}

static enum err read_answer(unsigned status, struct slice answer, uint64_t *replayed, struct error *why)
{
    struct json_value count = member_of(answer, SLICE("replayed")), detail = member_of(answer, SLICE("detail"));
    if (status == 200 && slice_to_u64(count.text, replayed)) {
        return ERR_NONE;
    }
    struct slice said = detail.text.data ? detail.text : answer;
    return error_set(why, ERR_LIBRARY, "the bridge answered %u: %.*s", status, (int)(said.size < 400 ? said.size : 400),
                     said.data ? said.data : "");
}

static enum err ask_bridge(const struct config *config, struct journal_replay *what, struct error *why)
{
    struct buf request, answer;
    unsigned status;
    uint64_t replayed = 0;
    buf_init(&request, MAX_REQUEST);
    append_request(&request, what);
    enum err err = request.failed ? error_set(why, ERR_MEMORY, "out of memory") : ERR_NONE;
    err = err ? err : command_ask(config, "POST", "/api/replay", buf_slice(&request), TIMEOUT_MS, &status, &answer, why);
    if (!request.failed) {
        err = err ? err : read_answer(status, buf_slice(&answer), &replayed, why);
        buf_free(&answer);
    }
    buf_free(&request);
    what->replayed += replayed;
    return err;
}

/* In requests of a size that the bridge takes. */
static enum err replay_by_bridge(const struct config *config, struct journal_replay *what, struct error *why)
{
    struct journal_replay part = *what;
    enum err err = ERR_NONE;
    do {
        size_t left = (size_t)(what->seqs + what->seq_count - part.seqs);
        part.seq_count = left < SEQS_AT_ONCE ? left : SEQS_AT_ONCE;
        err = ask_bridge(config, &part, why);
        part.seqs += part.seq_count;
    } while (!err && part.seqs < what->seqs + what->seq_count);
    what->replayed = part.replayed;
    return err;
}

/* --- without one --- */

static void ignore_appended(void *ctx, struct journal_append *batch)
{
    (void)ctx, (void)batch;
}

static void ignore_claimable(void *ctx)
{
    (void)ctx;
}

/* ERR_BUSY: a bridge runs. */
static enum err replay_here(const struct config *config, struct journal_replay *what, struct error *why)
{
    struct journal *journal;
    const struct journal_options options = {config->journal.path, config->journal.retention_ms, config->journal.max_size,
                                            event_label};
    const struct journal_hooks hooks = {ignore_appended, NULL, ignore_claimable, NULL};
    log_open(LOG_WARN, LOG_TEXT);
    enum err err = journal_open_sqlite(&journal, &options, why);
    if (err) {
        return err;
    }
    err = journal_start(journal, &hooks, why);
    err = err ? err : journal_replay(journal, what, why);
    if (err == ERR_BUSY) { /* of the disk, not of the lock */
        err = ERR_IO;
    }
    journal_close(&journal);
    return err;
}

/* --- the command --- */

static int report(const struct journal_replay *what, enum err err, bool by_bridge, const struct error *why)
{
    if (err) {
        command_complain("%s", why->text);
    }
    if (!err || what->replayed > 0) {
        printf("%" PRIu64 " event%s queued for publishing again%s\n", what->replayed, what->replayed == 1 ? " is" : "s are",
               by_bridge || what->replayed == 0 ? "" : "; the bridge is not running and publishes when it starts");
    }
    return err || what->replayed < what->seq_count ? EXIT_FAILED : EXIT_DONE;
}

static int replay(const struct config *config, struct journal_replay *what)
{
    struct error why, unanswered;
    enum err err = replay_here(config, what, &why);
    bool by_bridge = err == ERR_BUSY;
    if (by_bridge && (err = replay_by_bridge(config, what, &unanswered)) != ERR_NONE) {
        error_prefix(&unanswered, "%s; it has to do this", why.text);
        why = unanswered;
    }
    return report(what, err, by_bridge, &why);
}

/* Says what cannot be replayed, and leaves it out. */
static bool is_replayable(struct journal_view *view, uint64_t seq)
{
    struct journal_view_event event;
    struct error why;
    if (journal_view_get(view, seq, &event, &why)) {
        command_complain("%s", why.text);
        return false;
    }
    if (event.state == JOURNAL_PENDING) {
        command_complain("event %" PRIu64 " is pending: it is published without that", seq);
    } else if (event.state == JOURNAL_MOVED) {
        command_complain("event %" PRIu64 " was replayed already, as %" PRIu64, seq, event.moved_to);
    }
    return event.state == JOURNAL_PUBLISHED || event.state == JOURNAL_DEAD;
}

/* The view is opened also where no numbers are given: opening to write would create a journal that is not there. */
static int check_and_replay(const struct config *config, struct journal_replay *what, uint64_t *seqs)
{
    struct error why;
    struct journal_view *view;
    const size_t asked = what->seq_count;
    if (!config->journal.enabled) {
        command_complain("there is no journal (\"journal\": false), so no events are kept");
        return EXIT_FAILED;
    }
    if (journal_view_open(&view, config->journal.path, &why)) {
        command_complain("%s", why.text);
        return EXIT_FAILED;
    }
    what->seq_count = 0;
    for (size_t i = 0; i < asked; i++) {
        if (is_replayable(view, seqs[i])) {
            seqs[what->seq_count++] = seqs[i];
        }
    }
    journal_view_close(&view);
    if (asked > 0 && what->seq_count == 0) {
        return EXIT_FAILED;
    }
    int status = replay(config, what);
    return what->seq_count < asked ? EXIT_FAILED : status;
}

static int compare_seqs(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* In order, each once. */
static bool read_seqs(char **texts, size_t count, uint64_t *seqs, size_t *distinct)
{
    for (size_t i = 0; i < count; i++) {
        int64_t seq;
        if (!command_number("SEQ", texts[i], 1, INT64_MAX, &seq)) {
            return false;
        }
        seqs[i] = (uint64_t)seq;
    }
    qsort(seqs, count, sizeof *seqs, compare_seqs);
    *distinct = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || seqs[i] != seqs[i - 1]) {
            seqs[(*distinct)++] = seqs[i];
        }
    }
    return true;
}

static bool read_filter(const struct arguments *given, bool has_seqs, struct journal_replay *what)
{
    const int64_t now_ms = clock_wall_ms();
    *what = (struct journal_replay){.dead_only = given->state != NULL, .since_ms = INT64_MIN, .until_ms = INT64_MAX};
    if (has_seqs + (given->state != NULL) + (given->since != NULL) != 1) {
        command_complain("give either SEQ..., or --state dead, or --since TIME");
        return false;
    }
    if (given->state && strcmp(given->state, "dead") != 0) {
        command_complain("--state is dead here, not \"%s\"", given->state);
        return false;
    }
    if (given->until && !given->since) {
        command_complain("--until goes with --since");
        return false;
    }
    if (given->since) {
        what->until_ms = now_ms + 1;
        return command_time("--since", given->since, now_ms, &what->since_ms) &&
               (!given->until || command_time("--until", given->until, now_ms, &what->until_ms));
    }
    return true;
}

static int replay_given(const struct arguments *given, char **operands, size_t count)
{
    struct journal_replay what;
    struct config *config;
    if (!read_filter(given, count > 0, &what)) {
        return EXIT_USAGE;
    }
    uint64_t *seqs = calloc(count > 0 ? count : 1, sizeof *seqs);
    if (!seqs) {
        command_complain("out of memory");
        return EXIT_FAILED;
    }
    int status = EXIT_USAGE;
    if ((count == 0 || read_seqs(operands, count, seqs, &what.seq_count)) && command_config(given->config, &config)) {
        what.seqs = seqs;
        status = check_and_replay(config, &what, seqs);
        config_free(&config);
    }
    free(seqs);
    return status;
}

int command_replay(int argc, char **argv)
{
    struct arguments given = {0};
    const struct command_option options[] = {
        {'c', "config", "FILE", "the bridge's configuration; without it, defaults and variables", &given.config},
        {'s', "state", "dead", "all dead events", &given.state},
        {0, "since", "TIME", "all published and dead events received since then: a span (90m, 2h, 7d) or an RFC 3339 time",
         &given.since},
        {0, "until", "TIME", "with --since: received before then (default: now)", &given.until},
        {0},
    };
    const struct command_usage usage = {
        .name = "replay",
        .arguments = "SEQ...",
        .summary = "Queues events for publishing again: those with these numbers (see `events`), all dead ones,\n"
                   "or all of a span of time. The bridge that runs does it, or, when none does, the command itself.",
        .details = "A replayed event is published behind those that wait, under a new number, with the user property\n"
                   "replay = 1, and its expiry counts from now. If it fails again it is dead again.\n"
                   "\n"
                   "Exit status: 0 all are queued, 1 some are not.\n"
                   "\n"
                   "Examples:\n"
                   "  meowbridge replay 17 18\n"
                   "  meowbridge replay --state dead\n"
                   "  meowbridge replay --since 2h --until 30m\n",
        .options = options,
        .max_operands = -1,
    };
    char **operands;
    int operand_count;
    int status = command_options(&usage, argc, argv, &operands, &operand_count);
    return status >= 0 ? status : replay_given(&given, operands, (size_t)operand_count);
}
