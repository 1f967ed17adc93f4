#include "admin_internal.h"

#include "meowbridge/clock.h"

#include <inttypes.h>
#include <string.h>

/* --- ready or not --- */

/* A check's outcome: why->text empty if it passes. The broker counts only where it is all that stands behind a 200. */
static bool check_stopping(struct admin *admin, struct error *why)
{
    return !atomic_load(&admin->stopping) && admin->journal ? true : (error_set(why, ERR_CLOSED, "stopping"), false);
}

static bool check_journal(struct admin *admin, struct error *why)
{
    return !admin->journal || journal_ready(admin->journal, why) == ERR_NONE;
}

static bool check_broker(struct admin *admin, struct error *why)
{
    struct publisher_state state = {.connected = true};
    if (admin->publisher) {
        publisher_state(admin->publisher, &state);
    }
    if (!state.connected) {
        error_set(why, ERR_IO, "%s", state.trouble[0] ? state.trouble : "not connected yet");
    }
    return state.connected;
}

static const struct check {
    const char *name;
    bool (*passes)(struct admin *admin, struct error *why);
} checks[] = {{"running", check_stopping}, {"journal", check_journal}, {"broker", check_broker}};
enum { CHECKS = sizeof checks / sizeof checks[0] };

static bool counts(struct admin *admin, const struct check *check)
{
    return check->passes != check_broker || (admin->journal && !journal_keeps(admin->journal));
}

void status_append_reasons(struct admin *admin, struct buf *out)
{
    for (size_t i = 0; i < CHECKS; i++) {
        struct error why = {0};
        if (counts(admin, &checks[i]) && !checks[i].passes(admin, &why)) {
            buf_appendf(out, checks[i].passes == check_stopping ? "%.0s%s\n" : "%s: %s\n", checks[i].name, why.text);
        }
    }
}

void status_append_checks(struct admin *admin, struct buf *out)
{
    bool ready = true;
    for (size_t i = 0; i < CHECKS; i++) {
        struct error why = {0};
        bool passes = checks[i].passes(admin, &why), matters = counts(admin, &checks[i]);
        ready = ready && (passes || !matters);
        if (passes) {
            buf_appendf(out, "[+]%s ok\n", checks[i].name);
        } else {
            buf_appendf(out, "[-]%s failed: %s%s\n", checks[i].name, why.text, matters ? "" : " (events wait in the journal)");
        }
    }
    buf_append_text(out, ready ? "readyz check passed\n" : "readyz check failed\n");
}

/* --- gauges --- */

void status_set_gauges(struct admin *admin)
{
    metrics_read_process();
    if (!admin->journal) {
        return;
    }
    struct journal_state journal;
    struct publisher_state publisher;
    journal_state(admin->journal, &journal);
    publisher_state(admin->publisher, &publisher);
    metrics_set(METRIC_JOURNAL_PENDING, (int64_t)(journal.last_seq - journal.cursor));
    metrics_set(METRIC_JOURNAL_OLDEST_PENDING, journal.oldest_pending_ms);
    metrics_set(METRIC_JOURNAL_DEAD, (int64_t)journal.dead);
    metrics_set(METRIC_JOURNAL_BYTES, journal.bytes);
    metrics_set(METRIC_JOURNAL_MAX_BYTES, admin->journal_max_bytes);
    metrics_set(METRIC_MQTT_CONNECTED, publisher.connected);
    metrics_set(METRIC_MQTT_IN_FLIGHT, publisher.in_flight);
}

/* --- the JSON --- */

static void append_text(struct buf *out, const char *name, const char *text)
{
    buf_append_text(out, name);
    if (text && *text) {
        buf_append_json_string(out, slice_of(text));
    } else {
        buf_append_text(out, "null");
    }
}

static void append_time(struct buf *out, const char *name, int64_t wall_ms)
{
    char text[CLOCK_RFC3339_SIZE] = "";
    if (wall_ms > 0) {
        clock_rfc3339(wall_ms, text);
    }
    append_text(out, name, text);
}

static void append_reasons(struct admin *admin, struct buf *out)
{
    struct buf lines;
    buf_init(&lines, 8192);
    status_append_reasons(admin, &lines);
    buf_appendf(out, ",\"ready\":%s,\"reasons\":[", lines.size == 0 && !lines.failed ? "true" : "false");
    for (const char *line = lines.data; line && *line;) {
        size_t size = strcspn(line, "\n");
        buf_append_text(out, line == lines.data ? "" : ",");
        buf_append_json_string(out, (struct slice){line, size});
        line += size + (line[size] == '\n');
    }
    buf_append_char(out, ']');
    buf_free(&lines);
}

static void append_broker(struct admin *admin, struct buf *out)
{
    struct publisher_state state;
    publisher_state(admin->publisher, &state);
    append_text(out, ",\"broker\":{\"url\":", state.broker);
    buf_appendf(out, ",\"connected\":%s", state.connected ? "true" : "false");
    append_time(out, ",\"since\":", state.since_ms);
    append_text(out, ",\"clientId\":", admin->client_id);
    buf_appendf(out, ",\"inFlight\":%u", state.in_flight);
    append_text(out, ",\"trouble\":", state.trouble);
    append_text(out, ",\"lastError\":", state.last_error);
    append_time(out, ",\"lastErrorAt\":", state.last_error_ms);
    buf_append_char(out, '}');
}

static void append_journal(struct admin *admin, struct buf *out)
{
    struct journal_state state;
    journal_state(admin->journal, &state);
    const uint64_t pending = state.last_seq - state.cursor;
    const int64_t age_ms = state.oldest_pending_ms > 0 ? clock_wall_ms() - state.oldest_pending_ms : 0;
    append_text(out, ",\"journal\":{\"path\":", admin->journal_path);
    buf_appendf(out, ",\"bytes\":%" PRId64 ",\"maxBytes\":%" PRId64 ",\"pending\":%" PRIu64, state.bytes,
                admin->journal_max_bytes, pending);
    append_time(out, ",\"oldestPendingAt\":", state.oldest_pending_ms);
    buf_appendf(out, ",\"oldestPendingSeconds\":%.3f,\"dead\":%" PRIu64 ",\"lastSeq\":%" PRIu64 ",\"cursor\":%" PRIu64 "}",
                age_ms > 0 ? (double)age_ms / 1000 : 0.0, state.dead, state.last_seq, state.cursor);
}

static void append_counts(struct buf *out)
{
    static const struct {
        const char *name;
        enum metric metric;
    } outcomes[] = {{"malformed", METRIC_WEBHOOKS_MALFORMED},        {"badTimestamp", METRIC_WEBHOOKS_BAD_TIMESTAMP},
                    {"badSignature", METRIC_WEBHOOKS_BAD_SIGNATURE}, {"wrongApp", METRIC_WEBHOOKS_WRONG_APP},
                    {"unknownPath", METRIC_WEBHOOKS_NO_PATH},        {"wrongMethod", METRIC_WEBHOOKS_BAD_METHOD},
                    {"tooSlow", METRIC_WEBHOOKS_TOO_SLOW},           {"tooLarge", METRIC_WEBHOOKS_TOO_LARGE},
                    {"rateLimited", METRIC_WEBHOOKS_RATE_LIMITED},   {"unavailable", METRIC_WEBHOOKS_UNAVAILABLE}};
    const struct history_counts c = history_count();
    buf_appendf(out,
                ",\"counts\":{\"accepted\":%" PRIu64 ",\"duplicates\":%" PRIu64 ",\"refused\":%" PRIu64
                ",\"published\":%" PRIu64 ",\"dead\":%" PRIu64 ",\"replayed\":%" PRIu64 ",\"messages\":%" PRIu64
                ",\"unheard\":%" PRIu64 ",\"retried\":%" PRIu64 ",\"refusedBy\":{",
                c.accepted, c.duplicates, c.refused, c.published, c.dead, metrics_get(METRIC_EVENTS_REPLAYED),
                metrics_get(METRIC_MQTT_PUBLISHED), metrics_get(METRIC_MQTT_UNHEARD), metrics_get(METRIC_MQTT_RETRIED));
    for (size_t i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++) {
        buf_appendf(out, "%s\"%s\":%" PRIu64, i > 0 ? "," : "", outcomes[i].name, metrics_get(outcomes[i].metric));
    }
    buf_append_text(out, "}}");
}

void status_append_json(struct admin *admin, bool with_history, struct buf *out)
{
    buf_append_text(out, "{\"version\":\"" MEOWBRIDGE_VERSION "\"");
    append_time(out, ",\"time\":", clock_wall_ms());
    append_time(out, ",\"startedAt\":", admin->started_wall_ms);
    buf_appendf(out, ",\"uptimeSeconds\":%" PRId64, (clock_mono_ms() - admin->started_mono_ms) / 1000);
    append_reasons(admin, out);
    if (admin->journal) {
        append_broker(admin, out);
        append_journal(admin, out);
    }
    append_counts(out);
    buf_append_text(out, ",\"rates\":");
    history_append_rates(&admin->history, out);
    if (with_history) {
        buf_append_text(out, ",\"history\":");
        history_append_minutes(&admin->history, out);
    }
    buf_append_char(out, '}');
}
