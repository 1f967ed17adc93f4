#include "meowbridge/command.h"
#include "meowbridge/jsonscan.h"
#include "send_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_COUNT = 1000000000, MAX_CONNECTIONS = 1024, MAX_RETRIES = 1000, LATE_WORTH_SAYING_US = 1000000 };

/* As typed. */
struct arguments {
    const char *url, *secret_file, *app, *event, *payload, *count, *rate, *connections, *retries, *timeout, *insecure, *json,
        *quiet;
};

/* ---- the summary ---- */

static double quantile_ms(const struct send_tally *tally, double share)
{
    return (double)histogram_quantile(&tally->latency, share) / 1000;
}

static double events_per_second(const struct send_tally *tally)
{
    return tally->elapsed_us > 0 ? (double)tally->accepted * 1e6 / (double)tally->elapsed_us : 0;
}

/* 503: 3, no connection: 1; in JSON: "503":3,"no connection":1 */
static void append_errors(struct buf *out, const struct send_tally *tally, bool json)
{
    const char *quote = json ? "\"" : "", *colon = json ? ":" : ": ", *comma = json ? "," : ", ", *separator = "";
    for (unsigned i = 0; i < SEND_STATUSES; i++) {
        if (tally->statuses[i] > 0) {
            buf_appendf(out, "%s%s%u%s%s%llu", separator, quote, i, quote, colon, (unsigned long long)tally->statuses[i]);
            separator = comma;
        }
    }
    for (unsigned i = 0; i < SEND_ERRORS; i++) {
        if (tally->errors[i] > 0) {
            buf_appendf(out, "%s%s%s%s%s%llu", separator, quote, send_error_name((enum err)i), quote, colon,
                        (unsigned long long)tally->errors[i]);
            separator = comma;
        }
    }
}

static void append_text(struct buf *out, const struct send_tally *t)
{
    buf_appendf(out, "sent        %llu\n", (unsigned long long)t->sent);
    buf_appendf(out, "accepted    %llu (%llu duplicates)\n", (unsigned long long)t->accepted,
                (unsigned long long)t->duplicates);
    buf_appendf(out, "failed      %llu\n", (unsigned long long)t->failed);
    if (t->unfinished > 0) {
        buf_appendf(out, "unfinished  %llu\n", (unsigned long long)t->unfinished);
    }
    buf_appendf(out, "retries     %llu\n", (unsigned long long)t->retries);
    struct buf errors;
    buf_init(&errors, 64 * 1024);
    append_errors(&errors, t, false);
    buf_appendf(out, "errors      %s\n", errors.size > 0 ? errors.data : "none");
    buf_free(&errors);
    buf_appendf(out, "elapsed     %.3f s, %.1f events/s\n", (double)t->elapsed_us / 1e6, events_per_second(t));
    if (t->accepted > 0) {
        buf_appendf(out, "latency ms  p50 %.3f, p90 %.3f, p99 %.3f, max %.3f\n", quantile_ms(t, 0.5), quantile_ms(t, 0.9),
                    quantile_ms(t, 0.99), (double)t->latency.max_us / 1000);
    }
    if (t->late_us > LATE_WORTH_SAYING_US) {
        buf_appendf(out, "behind      %.1f s behind the schedule at worst: take more --connections or a lower --rate\n",
                    (double)t->late_us / 1e6);
    }
}

static void append_json(struct buf *out, const struct send_tally *t)
{
    buf_appendf(out,
                "{\"sent\":%llu,\"accepted\":%llu,\"duplicates\":%llu,\"failed\":%llu,\"unfinished\":%llu,\"retries\":%llu",
                (unsigned long long)t->sent, (unsigned long long)t->accepted, (unsigned long long)t->duplicates,
                (unsigned long long)t->failed, (unsigned long long)t->unfinished, (unsigned long long)t->retries);
    buf_append_text(out, ",\"errors\":{");
    append_errors(out, t, true);
    buf_appendf(out, "},\"elapsedSeconds\":%.6f,\"eventsPerSecond\":%.1f", (double)t->elapsed_us / 1e6, events_per_second(t));
    buf_appendf(out, ",\"latencyMs\":{\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"max\":%.3f},\"behindSeconds\":%.3f}\n",
                quantile_ms(t, 0.5), quantile_ms(t, 0.9), quantile_ms(t, 0.99), (double)t->latency.max_us / 1000,
                (double)t->late_us / 1e6);
}

static void print_summary(const struct send_tally *tally, const struct arguments *arguments)
{
    struct buf out;
    buf_init(&out, 128 * 1024);
    if (arguments->json) {
        append_json(&out, tally);
    } else if (!arguments->quiet) {
        append_text(&out, tally);
    }
    fputs(out.data ? out.data : "", stdout);
    buf_free(&out);
}

/* ---- the options ---- */

/* NULL leaves *out as it is. */
static bool parse_number(const char *option, const char *text, int64_t min, int64_t max, unsigned *out)
{
    int64_t number = *out;
    bool good = !text || command_number(option, text, min, max, &number);
    *out = (unsigned)number;
    return good;
}

static bool parse_url(const char *text, struct http_url *out)
{
    struct error why;
    if (!text) {
        command_complain("--url URL is missing");
    } else if (http_url_parse(slice_of(text), out, &why)) {
        command_complain("--url: %s", why.text);
    } else {
        return true;
    }
    return false;
}

static bool parse_rate(const char *text, double *out)
{
    struct error why;
    if (text && send_parse_rate(slice_of(text), out, &why)) {
        command_complain("--rate %s", why.text);
        return false;
    }
    return true;
}

static bool parse_timeout(const char *text, int64_t *out)
{
    struct error why;
    if (text && (config_parse_span(slice_of(text), out, &why) || *out <= 0)) {
        command_complain("--timeout is a span such as 500ms or 10s, not \"%s\"", text);
        return false;
    }
    return true;
}

static bool parse_arguments(const struct arguments *a, struct send_options *out)
{
    unsigned count = 1;
    *out = (struct send_options){.app_id = slice_of(a->app ? a->app : "12345"),
                                 .event = slice_of(a->event ? a->event : "workflowTask.completed"),
                                 .insecure = a->insecure,
                                 .connections = 1,
                                 .retries = 10,
                                 .timeout_ms = 10000,
                                 .show_progress = !a->quiet && isatty(STDERR_FILENO),
                                 .tell_retries = !a->quiet && !isatty(STDERR_FILENO)};
    bool good = parse_url(a->url, &out->url) && parse_number("--count", a->count, 1, MAX_COUNT, &count) &&
                parse_number("--connections", a->connections, 1, MAX_CONNECTIONS, &out->connections) &&
                parse_number("--retries", a->retries, 0, MAX_RETRIES, &out->retries) && parse_rate(a->rate, &out->rate) &&
                parse_timeout(a->timeout, &out->timeout_ms);
    out->count = count;
    return good;
}

/* ---- the run ---- */

/* The exit status, or -1 if the payload can be sent. *file is the caller's to free. */
static int read_payload(const char *path, struct buf *file, struct slice *payload)
{
    struct json_value value;
    struct error why;
    size_t offset = 0;
    buf_init(file, 0);
    if (!path) {
        return -1;
    }
    if (!command_read_file(path, file)) {
        return EXIT_FAILED;
    }
    *payload = buf_slice(file);
    if (jsonscan_document(*payload, &value, &offset, &why)) {
        command_complain("%s is not JSON: %s (byte %zu)", path, why.text, offset);
        return EXIT_USAGE;
    }
    return -1;
}

static int send_events(const struct send_options *options, const struct arguments *arguments)
{
    struct send_tally tally;
    struct error why;
    if (send_load(options, &tally, &why)) {
        command_complain("%s", why.text);
        return EXIT_FAILED;
    }
    print_summary(&tally, arguments);
    return tally.accepted == options->count ? EXIT_DONE : EXIT_FAILED;
}

static int run(const struct arguments *arguments)
{
    struct send_options options;
    struct secret secret;
    struct buf file;
    if (!parse_arguments(arguments, &options) || !command_secret(arguments->secret_file, &secret)) {
        return EXIT_USAGE;
    }
    options.secret = (struct slice){secret.data, secret.size};
    int status = read_payload(arguments->payload, &file, &options.payload);
    if (status < 0) {
        status = send_events(&options, arguments);
    }
    buf_free(&file);
    secret_free(&secret);
    return status;
}

int command_send(int argc, char **argv)
{
    struct arguments a = {0};
    const struct command_option options[] = {
        {'u', "url", "URL", "where to push; https and http+unix://%2Fpath%2Fsocket/ too", &a.url},
        {'s', "secret-file", "FILE", "the App Secret; without it, MEOWBRIDGE_SECRET", &a.secret_file},
        {'a', "app", "ID", "appId (default: 12345)", &a.app},
        {'e', "event", "E", "event name (default: workflowTask.completed)", &a.event},
        {'p', "payload", "FILE", "JSON, sent byte for byte (default: a completed task)", &a.payload},
        {'n', "count", "N", "how many events (default: 1)", &a.count},
        {'r', "rate", "R", "events a second (default: as fast as they are answered)", &a.rate},
        {'c', "connections", "C", "pushes at a time, each over its own connection (default: 1)", &a.connections},
        {0, "retries", "N", "after a push that is not answered 2xx (default: 10)", &a.retries},
        {0, "timeout", "SPAN", "for one push (default: 10s)", &a.timeout},
        {'k', "insecure", NULL, "accept any TLS certificate", &a.insecure},
        {0, "json", NULL, "print the summary as one JSON object", &a.json},
        {'q', "quiet", NULL, "no progress and no summary; the exit status tells", &a.quiet},
        {0},
    };
    const struct command_usage usage = {
        .name = "send",
        .arguments = "--url URL",
        .summary = "Plays MeowFlow: signs and pushes test events, and pushes again what is not answered 2xx,\n"
                   "after 0.2 s, then twice as long each time, 5 s at most. Exit status 0 if all were accepted.",
        .details = "An event's latency runs from its first push to its 2xx. A connection pushes one event at a\n"
                   "time, retries included. Ctrl-C ends the run and prints the summary so far.\n"
                   "\n"
                   "Example, 60 seconds of load with 8 pushes at a time:\n"
                   "  meowbridge send -u http://127.0.0.1:8080/webhook -s secret \\\n"
                   "      -n 60000 -r 1000 -c 8\n",
        .options = options,
    };
    char **operands;
    int operand_count;
    int status = command_options(&usage, argc, argv, &operands, &operand_count);
    return status >= 0 ? status : run(&a);
}
