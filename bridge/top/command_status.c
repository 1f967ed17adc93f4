/* What GET /api/status says, in a few lines for a terminal of 80 columns. */
#include "meowbridge/command.h"
#include "meowbridge/jsonscan.h"
#include "meowbridge/metrics.h"
#include "terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TIMEOUT_MS = 5000,
    MAX_LINES = 16 * 1024,
    MAX_TEXT = 4096,
    INDENT = 12,          /* "since start " */
    ID_COLUMNS = 12 + 24, /* ", client id ", and the id, cut */
};

/* The answer, and what is printed of it. */
struct report {
    const char *config; /* as given with -c; NULL: none was */
    struct json_value root;
    struct buf out, scratch;
    bool has_colour;
};

/* --- finding things in it --- */

static bool member(const struct json_value *object, struct slice name, struct json_value *out)
{
    struct json_iterator it;
    struct json_value key;
    if (object->type != JSON_OBJECT) {
        return false;
    }
    jsonscan_enter(&it, object);
    while (jsonscan_next(&it, &key, out)) {
        if (jsonscan_string_is(&key, name)) {
            return true;
        }
    }
    return false;
}

/* "broker.connected" is the member of a member; null counts as absent. */
static bool find(const struct report *report, const char *path, struct json_value *out)
{
    struct json_value at = report->root;
    *out = at;
    while (*path) {
        size_t size = strcspn(path, ".");
        if (!member(&at, (struct slice){path, size}, out)) {
            return false;
        }
        at = *out;
        path += size + (path[size] == '.');
    }
    return out->type != JSON_NULL;
}

static double number(const struct report *report, const char *path)
{
    struct json_value value;
    char text[64];
    if (!find(report, path, &value) || value.type != JSON_NUMBER || value.text.size >= sizeof text) {
        return 0;
    }
    memcpy(text, value.text.data, value.text.size);
    text[value.text.size] = 0;
    return strtod(text, NULL);
}

static bool is_true(const struct report *report, const char *path)
{
    struct json_value value;
    return find(report, path, &value) && value.type == JSON_TRUE;
}

/* Until the next call. Empty if it is not there. */
static struct slice text(struct report *report, const char *path)
{
    struct json_value value;
    buf_reset(&report->scratch);
    if (!find(report, path, &value) || value.type != JSON_STRING || value.text.size > MAX_TEXT) {
        return SLICE("");
    }
    return jsonscan_unescape(&value, &report->scratch);
}

/* --- printing --- */

static void append_count(struct buf *out, double count)
{
    char digits[32];
    int size = snprintf(digits, sizeof digits, "%.0f", count);
    for (int i = 0; i < size; i++) {
        buf_append_text(out, i > 0 && (size - i) % 3 == 0 ? "," : "");
        buf_append_char(out, digits[i]);
    }
}

static void append_bytes(struct buf *out, double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    for (; bytes >= 1024 && unit < 4; unit++) {
        bytes /= 1024;
    }
    buf_appendf(out, unit == 0 || bytes == (double)(int64_t)bytes ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

static void append_span(struct buf *out, double seconds)
{
    const int64_t s = (int64_t)seconds;
    if (s < 120) {
        buf_appendf(out, "%" PRId64 " s", s);
    } else if (s < 7200) {
        buf_appendf(out, "%" PRId64 " min", s / 60);
    } else if (s < 48 * 3600) {
        buf_appendf(out, "%" PRId64 " h %" PRId64 " min", s / 3600, s / 60 % 60);
    } else {
        buf_appendf(out, "%" PRId64 " d %" PRId64 " h", s / 86400, s / 3600 % 24);
    }
}

static void append_rate(struct buf *out, double rate)
{
    buf_appendf(out, rate == 0 ? "%.0f/s" : rate < 10 ? "%.2f/s" : rate < 100 ? "%.1f/s" : "%.0f/s", rate);
}

/* 0.5 s, 2.5 min: bounds of a histogram are round numbers. */
static void append_bound(struct buf *out, double seconds)
{
    if (seconds < 1) {
        buf_appendf(out, "%.4g ms", seconds * 1000);
    } else if (seconds < 60) {
        buf_appendf(out, "%.4g s", seconds);
    } else {
        buf_appendf(out, "%.4g min", seconds / 60);
    }
}

/* The bridge counts in a histogram, so only bounds are known: what it gives lies somewhere in the right bucket. */
static void append_latency(struct buf *out, double seconds)
{
    const int64_t us = (int64_t)(seconds * 1e6 + 0.5), bound = metrics_bucket_bound(HISTOGRAM_EVENT_DELAY, us);
    buf_append_text(out, bound < 0 ? "over " : "under ");
    append_bound(out, bound < 0 ? seconds : (double)bound / 1e6);
}

static void colour(struct report *report, const char *code)
{
    if (report->has_colour) {
        buf_appendf(&report->out, "\033[%sm", code);
    }
}

/* In green, red or yellow. */
static void append_word(struct report *report, const char *code, const char *word)
{
    colour(report, code);
    buf_append_text(&report->out, word);
    colour(report, "0");
}

static void begin_line(struct report *report, const char *name)
{
    buf_appendf(&report->out, "%-*s", INDENT, name);
}

static void next_line(struct report *report)
{
    buf_appendf(&report->out, "\n%*s", INDENT, "");
}

/* Text from outside on lines of its own: what is wrong stands at its end, so nothing of it is cut. */
static void append_reason(struct report *report, struct slice reason)
{
    if (reason.size > 0) {
        buf_append_char(&report->out, '\n');
        terminal_append_wrapped(&report->out, reason, 0, INDENT);
    }
}

/* What could be typed next, whole, so that it can be copied: about the same bridge as this command. */
static void append_command(struct report *report, const char *command)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-+:@%";
    struct buf *out = &report->out;
    buf_appendf(out, "meowbridge %s", command);
    if (!report->config) {
        return;
    }
    buf_append_text(out, " -c ");
    if (report->config[0] && !report->config[strspn(report->config, plain)]) {
        buf_append_text(out, report->config);
        return;
    }
    buf_append_char(out, '\'');
    for (const char *c = report->config; *c; c += strcspn(c, "'") + (c[strcspn(c, "'")] == '\'')) {
        const size_t size = strcspn(c, "'");
        terminal_append(out, (struct slice){c, size}, SIZE_MAX);
        buf_append_text(out, c[size] == '\'' ? "'\\''" : "");
    }
    buf_append_char(out, '\'');
}

static void print_head(struct report *report)
{
    struct json_value reasons, reason;
    struct json_iterator it;
    bool ready = is_true(report, "ready");
    begin_line(report, "bridge");
    append_word(report, ready ? "32" : "31", ready ? "ready" : "NOT READY");
    buf_append_text(&report->out, ", meowbridge ");
    terminal_append(&report->out, text(report, "version"), 20);
    buf_append_text(&report->out, ", up ");
    append_span(&report->out, number(report, "uptimeSeconds"));
    if (find(report, "reasons", &reasons) && reasons.type == JSON_ARRAY) {
        jsonscan_enter(&it, &reasons);
        while (jsonscan_next(&it, NULL, &reason)) {
            buf_reset(&report->scratch);
            append_reason(report, reason.type == JSON_STRING && reason.text.size <= MAX_TEXT
                                      ? jsonscan_unescape(&reason, &report->scratch)
                                      : SLICE("?"));
        }
    }
    buf_append_char(&report->out, '\n');
}

static void print_broker(struct report *report)
{
    bool connected = is_true(report, "broker.connected");
    begin_line(report, "broker");
    append_word(report, connected ? "32" : "31", connected ? "connected" : "AWAY");
    buf_append_text(&report->out, " since ");
    terminal_append(&report->out, text(report, "broker.since"), 24);
    next_line(report);
    const size_t url = terminal_append(&report->out, text(report, "broker.url"), TERMINAL_COLUMNS - INDENT - 1);
    buf_append_char(&report->out, ',');
    if (url + ID_COLUMNS > TERMINAL_COLUMNS - INDENT) {
        next_line(report);
    } else {
        buf_append_char(&report->out, ' ');
    }
    buf_append_text(&report->out, "client id ");
    terminal_append(&report->out, text(report, "broker.clientId"), 24);
    if (!connected) {
        append_reason(report, text(report, "broker.trouble"));
    }
    buf_append_char(&report->out, '\n');
}

static void print_journal(struct report *report)
{
    struct buf *out = &report->out;
    double dead = number(report, "journal.dead"), pending = number(report, "journal.pending"),
           most = number(report, "journal.maxBytes");
    begin_line(report, "journal");
    append_count(out, pending);
    buf_append_text(out, " pending");
    if (pending > 0) {
        buf_append_text(out, " (the oldest for ");
        append_span(out, number(report, "journal.oldestPendingSeconds"));
        buf_append_char(out, ')');
    }
    buf_append_text(out, ", ");
    if (dead > 0) {
        colour(report, "33");
    }
    append_count(out, dead);
    buf_append_text(out, " dead");
    if (dead > 0) {
        colour(report, "0");
        next_line(report);
        buf_append_text(out, "why: ");
        append_command(report, "events --state dead");
    }
    if (text(report, "journal.path").size > 0) {
        next_line(report);
        append_bytes(out, number(report, "journal.bytes"));
        if (most > 0) {
            buf_append_text(out, " of ");
            append_bytes(out, most);
        }
        buf_append_text(out, " in ");
        terminal_append(out, text(report, "journal.path"), 40);
    }
    buf_append_char(out, '\n');
}

static void print_rates(struct report *report)
{
    static const char *const names[] = {"accepted", "published", "refused", "dead"};
    static const char *const spans[] = {"1m", "5m"};
    for (size_t span = 0; span < 2; span++) {
        begin_line(report, span == 0 ? "last 1 m" : "last 5 m");
        for (size_t i = 0; i < 4; i++) {
            char path[64];
            snprintf(path, sizeof path, "rates.%s.%s", spans[span], names[i]);
            buf_appendf(&report->out, "%s%s ", i > 0 ? ", " : "", names[i]);
            append_rate(&report->out, number(report, path));
        }
        buf_append_char(&report->out, '\n');
    }
}

static void print_counts(struct report *report)
{
    static const char *const names[] = {"accepted", "duplicates", "refused", "published", "dead"};
    begin_line(report, "since start");
    for (size_t i = 0; i < 5; i++) {
        char path[64];
        snprintf(path, sizeof path, "counts.%s", names[i]);
        buf_appendf(&report->out, "%s%s ", i > 0 ? ", " : "", names[i]);
        append_count(&report->out, number(report, path));
    }
    buf_append_char(&report->out, '\n');
}

/* For each reason for which webhooks were refused, how many were, and what helps; nothing where none was. */
static void print_refusals(struct report *report)
{
    static const struct {
        const char *name, *words, *command;
    } reasons[] = {
        {"malformed", "not a whole MeowFlow event (400): the log says what is missing", NULL},
        {"badTimestamp", "timestamp missing or over 5 minutes off (403): the clock?", NULL},
        {"badSignature", "wrong signature (403)", "explain"},
        {"wrongApp", "of another app (403): apps[].id is not its appId", NULL},
        {"unknownPath", "to a path that no app has (404): apps[].path", NULL},
        {"wrongMethod", "not a POST (405)", NULL},
        {"tooSlow", "not whole in time (408): http.timeout", NULL},
        {"tooLarge", "too large (413, 431): http.max_body", NULL},
        {"rateLimited", "above the app's rate_limit (429)", NULL},
        {"unavailable", "could not be kept (503): the log says why", NULL},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "counts.refusedBy.%s", reasons[i].name);
        const double count = number(report, path);
        if (count > 0) {
            begin_line(report, "refused");
            append_count(&report->out, count);
            buf_appendf(&report->out, " %s", reasons[i].words);
            if (reasons[i].command) {
                next_line(report);
                buf_append_text(&report->out, "why: ");
                append_command(report, reasons[i].command);
            }
            buf_append_char(&report->out, '\n');
        }
    }
}

/* Of the last minute in which anything was published. */
static void print_latency(struct report *report)
{
    struct json_value history, minute, delay, p50, last = {0};
    struct json_iterator it;
    if (!find(report, "history", &history) || history.type != JSON_ARRAY) {
        return;
    }
    jsonscan_enter(&it, &history);
    while (jsonscan_next(&it, NULL, &minute)) {
        if (member(&minute, SLICE("delay"), &delay) && member(&delay, SLICE("p50"), &p50) && p50.type == JSON_NUMBER) {
            last = delay;
        }
    }
    if (!last.text.data) {
        return;
    }
    struct report part = {.root = last};
    begin_line(report, "latency");
    buf_append_text(&report->out, "from 200 to PUBACK: median ");
    append_latency(&report->out, number(&part, "p50"));
    buf_append_text(&report->out, ", p99 ");
    append_latency(&report->out, number(&part, "p99"));
    buf_append_char(&report->out, '\n');
}

static int print_report(struct report *report)
{
    print_head(report);
    print_broker(report);
    print_journal(report);
    print_rates(report);
    print_latency(report);
    print_counts(report);
    print_refusals(report);
    if (report->out.failed) {
        command_complain("out of memory");
        return EXIT_FAILED;
    }
    fwrite(report->out.data, 1, report->out.size, stdout);
    return is_true(report, "ready") ? EXIT_DONE : EXIT_FAILED;
}

static int show(struct slice answer, bool as_json, const char *config)
{
    struct report report = {.config = config, .has_colour = terminal_has_colour()};
    struct error why;
    if (jsonscan_document(answer, &report.root, NULL, &why)) {
        command_complain("the bridge's answer is no JSON: %s", why.text);
        return EXIT_FAILED;
    }
    if (as_json) {
        printf("%.*s\n", SLICE_ARGS(answer));
        return is_true(&report, "ready") ? EXIT_DONE : EXIT_FAILED;
    }
    buf_init(&report.out, MAX_LINES);
    buf_init(&report.scratch, MAX_TEXT);
    if (!buf_reserve(&report.scratch, MAX_TEXT)) {
        report.out.failed = true;
    }
    int status = print_report(&report);
    buf_free(&report.out);
    buf_free(&report.scratch);
    return status;
}

/* path: of the configuration, or NULL. */
static int ask_status(const struct config *config, const char *path, bool as_json)
{
    unsigned status = 0;
    struct buf answer;
    struct error why;
    int exit_status = EXIT_FAILED;
    if (command_ask(config, "GET", "/api/status", (struct slice){0}, TIMEOUT_MS, &status, &answer, &why)) {
        command_complain("the bridge does not answer, perhaps it is not running%s: %s",
                         path ? "" : ", or admin.listen is another: -c FILE", why.text);
    } else if (status == 401) {
        command_complain("the bridge asks for the token of admin.token_file, and this is not it");
    } else if (status != 200) {
        command_complain("the bridge answers %u: %.*s", status, SLICE_ARGS(buf_slice(&answer)));
    } else {
        exit_status = show(buf_slice(&answer), as_json, path);
    }
    buf_free(&answer);
    return exit_status;
}

int command_status(int argc, char **argv)
{
    const char *path = NULL, *as_json = NULL;
    const struct command_option options[] = {
        {'c', "config", "FILE", "the bridge's configuration; without it, defaults and variables", &path},
        {0, "json", NULL, "print what the bridge answers, one JSON object", &as_json},
        {0},
    };
    const struct command_usage usage = {
        .name = "status",
        .arguments = "",
        .summary = "Asks the running bridge at its admin listener how it is: ready or not, the broker, what is\n"
                   "pending and dead, rates and latencies.",
        .details = "Exit status: 0 it is ready, 1 it is not, or does not answer.\n",
        .options = options,
    };
    char **operands;
    int operand_count;
    int status = command_options(&usage, argc, argv, &operands, &operand_count);
    if (status >= 0) {
        return status;
    }
    struct config *config;
    if (!command_config(path, &config)) {
        return EXIT_USAGE;
    }
    status = ask_status(config, path, as_json != NULL);
    config_free(&config);
    return status;
}
