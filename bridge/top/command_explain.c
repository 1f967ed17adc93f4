#include "meowbridge/clock.h"
#include "meowbridge/command.h"
#include "meowbridge/explain.h"
#include "meowbridge/http_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OTHERS = 16 };

/* --- saying it --- */

static void print_advice(const char *advice)
{
    command_print_wrapped(advice, 0, 2);
}

/* "3 d 4 h" */
static void span_text(int64_t ms, char out[40])
{
    static const struct {
        int64_t ms;
        const char *name;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "min"}, {1000, "s"}};
    size_t i = 0;
    while (i < 3 && ms < units[i].ms) {
        i++;
    }
    int used = snprintf(out, 40, "%lld %s", (long long)(ms / units[i].ms), units[i].name);
    int64_t rest = i < 3 ? ms % units[i].ms / units[i + 1].ms : 0;
    if (rest > 0) {
        snprintf(out + used, 40 - (size_t)used, " %lld %s", (long long)rest, units[i + 1].name);
    }
}

static void print_clock(const struct explain_result *result)
{
    char span[40], text[400];
    span_text(result->age_ms < 0 ? -result->age_ms : result->age_ms, span);
    switch (result->clock) {
    case EXPLAIN_FRESH:
        return;
    case EXPLAIN_OLD:
        snprintf(text, sizeof text,
                 "The timestamp is %s old by now; it had to arrive within 5 minutes. If the bridge answered \"timestamp is "
                 "invalid\", compare both clocks, or give --received with the time at which the bridge got it.",
                 span);
        break;
    case EXPLAIN_STALE:
        snprintf(text, sizeof text,
                 "The clock: the timestamp was %s old when the request was received, and 5 minutes are allowed. The bridge's "
                 "clock is ahead (timedatectl: is it synchronised?), or the request was held up or sent again by a proxy.",
                 span);
        break;
    case EXPLAIN_AHEAD:
        snprintf(text, sizeof text,
                 "The clock: the timestamp is %s in the future, and 5 minutes are allowed. The clock here is behind, or the "
                 "sender's is ahead (timedatectl: is it synchronised?).",
                 span);
        break;
    case EXPLAIN_NO_TIME:
        snprintf(text, sizeof text,
                 "The timestamp is not 13 digits (Unix time in milliseconds), so the bridge answers \"timestamp is invalid\" "
                 "whatever the signature.");
        break;
    }
    command_print_wrapped(text, 0, 0);
}

static bool has_advice_before(const struct explain_result *result, size_t n)
{
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        found = found || strcmp(result->deviations[i].advice, result->deviations[n].advice) == 0;
    }
    return found;
}

static void print_found(const struct explain_result *result)
{
    puts("The signature does not verify. It would with:");
    for (size_t i = 0; i < result->deviation_count; i++) {
        const struct explain_deviation *deviation = &result->deviations[i];
        printf("  - %s%s%s\n", deviation->what, deviation->signed_as[0] ? ": " : "", deviation->signed_as);
    }
    puts("What to do:");
    for (size_t i = 0; i < result->deviation_count; i++) {
        if (!has_advice_before(result, i)) {
            print_advice(result->deviations[i].advice);
        }
    }
}

static void print_not_found(const struct explain_result *result)
{
    char text[160];
    snprintf(text, sizeof text,
             "The signature does not verify, nor with any of %llu variants of host, path, body, method and time%s.",
             (unsigned long long)result->tried, result->is_cut ? " (the body is too large to try all)" : "");
    command_print_wrapped(text, 0, 0);
    command_print_wrapped(
        "Most likely the secret: is it the App Secret of the app that sent this, and not one from before a reset? What is "
        "usually changed on the way was tried. If the secret is right, then:",
        0, 0);
    print_advice("The URL: --url must be the URL as it is registered with MeowFlow; --try names other hosts and paths.");
    print_advice("The body: it must be byte for byte what was received, not copied from a log or from a parsed object.");
}

/* The exit status: would the bridge have taken it? */
static int print_result(const struct explain_result *result)
{
    switch (result->verdict) {
    case EXPLAIN_VERIFIES:
        puts("The signature verifies.");
        command_print_wrapped(
            "If the bridge refuses it all the same, it knows another secret, or sees another host or path than this URL's: "
            "then set the app's public_url to it.",
            0, 0);
        break;
    case EXPLAIN_FOUND:
        print_found(result);
        break;
    case EXPLAIN_NOT_FOUND:
        print_not_found(result);
        break;
    case EXPLAIN_BAD_SIGNATURE:
        printf("The signature does not verify: %s.\n", result->complaint);
        break;
    }
    if (result->clean_advice && result->verdict != EXPLAIN_BAD_SIGNATURE) {
        command_print_wrapped(result->clean_advice, 0, 0);
    }
    print_clock(result);
    bool in_time = result->clock == EXPLAIN_FRESH || result->clock == EXPLAIN_OLD;
    return result->verdict == EXPLAIN_VERIFIES && in_time && !result->clean_advice ? EXIT_DONE : EXIT_FAILED;
}

/* --- doing it --- */

/* What the configuration adds: secrets that may have been mixed up, and URLs. */
struct known {
    struct config *config; /* NULL: none given */
    struct explain_secret secrets[EXPLAIN_MAX_SECRETS];
    char names[EXPLAIN_MAX_SECRETS][64];
    size_t secret_count;
    struct slice others[MAX_OTHERS];
    size_t other_count;
};

static void add_secret(struct known *known, const struct secret *secret, size_t app, bool is_previous)
{
    if (secret->size == 0 || known->secret_count == EXPLAIN_MAX_SECRETS) {
        return;
    }
    size_t n = known->secret_count++;
    snprintf(known->names[n], sizeof known->names[n], "the %ssecret of apps[%zu]", is_previous ? "previous " : "", app);
    known->secrets[n] = (struct explain_secret){
        .secret = {secret->data, secret->size},
        .name = known->names[n],
        .advice =
            is_previous
                ? "MeowFlow still signs with the secret from before a reset; keep it as previous_secret_file until it does not."
                : "The request is signed by that app: are the secrets mixed up, or does it push to another app's URL?",
    };
}

static bool load_known(const char *path, struct known *known)
{
    struct config_errors errors, warnings;
    enum err err = config_load(&known->config, path, &errors, &warnings);
    if (err) {
        fputs(err == ERR_CONFIG ? errors.text.data : "meowbridge explain: out of memory\n", stderr);
    }
    config_errors_free(&errors);
    config_errors_free(&warnings);
    for (size_t i = 0; !err && i < known->config->app_count; i++) {
        const struct app_config *app = &known->config->apps[i];
        add_secret(known, &app->secret, i, false);
        add_secret(known, &app->previous_secret, i, true);
        if (app->public_url[0] && known->other_count < MAX_OTHERS) {
            known->others[known->other_count++] = slice_of(app->public_url);
        }
    }
    return !err;
}

/* With a configuration and no other secret, the first app's is the one that is expected. */
static bool choose_secret(const char *secret_file, const struct known *known, struct secret *out)
{
    const char *variable = getenv("MEOWBRIDGE_SECRET");
    if (secret_file || !known->config || (variable && *variable)) {
        return command_secret(secret_file, out);
    }
    *out = (struct secret){slice_dup(known->secrets[0].secret), known->secrets[0].secret.size};
    if (!out->data) {
        command_complain("out of memory");
    }
    return out->data != NULL;
}

static int explain(struct explain_request *request, const struct known *known, const char *secret_file, const char *body_file)
{
    struct secret secret;
    struct buf body;
    if (!choose_secret(secret_file, known, &secret)) {
        return EXIT_USAGE;
    }
    int status = EXIT_FAILED;
    if (command_read_file(body_file, &body)) {
        struct explain_result result;
        struct error why;
        request->secret = (struct slice){secret.data, secret.size};
        request->body = buf_slice(&body);
        if (explain_find(request, &result, &why)) {
            command_complain("%s", why.text);
        } else {
            status = print_result(&result);
        }
    }
    buf_free(&body);
    secret_free(&secret);
    return status;
}

/* "a,/b,https://c/d" */
static bool split(const char *list, struct known *known)
{
    while (list && *list) {
        size_t size = strcspn(list, ",");
        if (size > 0 && known->other_count == MAX_OTHERS) {
            command_complain("--try takes at most %d hosts, paths and URLs", MAX_OTHERS);
            return false;
        }
        if (size > 0) {
            known->others[known->other_count++] = (struct slice){list, size};
        }
        list += size + (list[size] == ',');
    }
    return true;
}

/* As typed. */
struct arguments {
    const char *url, *secret_file, *timestamp, *signature, *received, *others, *method, *config;
};

static bool read_arguments(const struct arguments *given, struct http_url *url, struct known *known,
                           struct explain_request *request)
{
    struct error why;
    *request = (struct explain_request){.now_ms = clock_wall_ms(), .is_received_known = given->received != NULL};
    if (!given->url || http_url_parse(slice_of(given->url), url, &why)) {
        command_complain("--url%s%s", given->url ? ": " : " URL is missing", given->url ? why.text : "");
        return false;
    }
    if (!given->timestamp || !given->signature) {
        command_complain("--%s is missing", given->timestamp ? "signature HEX" : "timestamp MS");
        return false;
    }
    if (!split(given->others, known) ||
        (given->received && !command_time("--received", given->received, request->now_ms, &request->received_ms)) ||
        (given->config && !load_known(given->config, known))) {
        return false;
    }
    request->method = slice_of(given->method ? given->method : "POST");
    request->host = slice_of(url->authority);
    request->target = slice_of(url->target);
    request->timestamp = slice_of(given->timestamp);
    request->signature = slice_of(given->signature);
    request->others = known->others;
    request->other_count = known->other_count;
    request->other_secrets = known->secrets;
    request->other_secret_count = known->secret_count;
    return true;
}

int command_explain(int argc, char **argv)
{
    struct arguments given = {0};
    const struct command_option options[] = {
        {'u', "url", "URL", "the URL of the request, as it is registered with MeowFlow", &given.url},
        {'s', "secret-file", "FILE", "the App Secret; without it, MEOWBRIDGE_SECRET", &given.secret_file},
        {'t', "timestamp", "MS", "the request's X-Meowflow-Timestamp", &given.timestamp},
        {'g', "signature", "HEX", "the request's X-Meowflow-Signature", &given.signature},
        {'r', "received", "TIME", "when the bridge got it, in RFC 3339 or as a span (5m: ago)", &given.received},
        {'m', "method", "METHOD", "the request's method (default: POST)", &given.method},
        {0, "try", "LIST", "more hosts, /paths and URLs to try, separated by commas", &given.others},
        {'c', "config", "FILE", "try the secrets and public URLs of all apps in it, too", &given.config},
        {0},
    };
    const struct command_usage usage = {
        .name = "explain",
        .arguments = "--url URL --timestamp MS --signature HEX [BODY-FILE]",
        .summary = "Finds out why a captured request does not verify: the clock, the secret, or what was changed\n"
                   "on the way of host, path or body. The body is BODY-FILE, or standard input, as it is.",
        .details = "Tries what proxies and frameworks do to a request, says with which of it the signature would\n"
                   "have verified, and what to do about it. It never prints a signature.\n"
                   "\n"
                   "Exit status: 0 it verifies, 1 it does not.\n"
                   "\n"
                   "Example:\n"
                   "  meowbridge explain -u https://hooks.example.com/webhook -s secret \\\n"
                   "      -t 1724990400000 -g 5f0c… --try 10.0.0.7:8080,/hooks/webhook body.json\n",
        .options = options,
        .max_operands = 1,
    };
    char **operands;
    int operand_count;
    int status = command_options(&usage, argc, argv, &operands, &operand_count);
    if (status >= 0) {
        return status;
    }
    struct http_url url;
    struct known known = {0};
    struct explain_request request;
    status = EXIT_USAGE;
    if (read_arguments(&given, &url, &known, &request)) {
        status = explain(&request, &known, given.secret_file, operand_count > 0 ? operands[0] : NULL);
    }
    config_free(&known.config);
    return status;
}
