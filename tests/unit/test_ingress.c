/* The ingress alone: a scripted request, a journal that only notes what it is given, and a clock that the test moves. */
#include "test.h"

#include "meowbridge/clock.h"
#include "meowbridge/ingress.h"
#include "meowbridge/metrics.h"
#include "meowbridge/signature.h"

#include <stdio.h>
#include <stdlib.h>

#define NOW_MS 1725105600000
#define BODY \
    "{\"id\":\"7\",\"webhookId\":\"w\",\"appId\":\"1\",\"event\":\"a.b\",\"objectId\":\"o\",\"pushTime\":\"\",\"payload\":{}}"

/* --- the clock --- */

static int64_t wall_ms, mono_us;

int64_t clock_wall_ms(void)
{
    return wall_ms;
}

int64_t clock_mono_ms(void)
{
    return mono_us / 1000;
}

int64_t clock_mono_us(void)
{
    return mono_us;
}

void clock_rfc3339(int64_t time_ms, char out[CLOCK_RFC3339_SIZE])
{
    (void)time_ms;
    strcpy(out, "2024-08-31T12:00:00.000Z");
}

/* --- a request --- */

struct http_request {
    const char *method, *path, *timestamp, *signature;
    const char *traceparents[2], *tracestates[2];
    char *body;
    void *user;
    unsigned answers, status, retry_after_s;
    bool parked, resumed;
    char text[512];
};

struct slice http_request_method(const struct http_request *request)
{
    return slice_of(request->method);
}

struct slice http_request_path(const struct http_request *request)
{
    return slice_of(request->path);
}

struct slice http_request_header(const struct http_request *request, const char *name)
{
    struct slice wanted = slice_of(name);
    const char *value = slice_equal_nocase(wanted, SLICE("host"))                       ? "hooks.example.com:443"
                        : slice_equal_nocase(wanted, SLICE(SIGNATURE_HEADER))           ? request->signature
                        : slice_equal_nocase(wanted, SLICE(SIGNATURE_TIMESTAMP_HEADER)) ? request->timestamp
                                                                                        : NULL;
    return slice_of(value);
}

size_t http_request_headers(const struct http_request *request, const char *name, struct slice *values, size_t max)
{
    const char *const *texts = strcmp(name, "traceparent") == 0 ? request->traceparents : request->tracestates;
    size_t count = 0;
    for (; count < 2 && texts[count]; count++) {
        if (count < max) {
            values[count] = slice_of(texts[count]);
        }
    }
    return count;
}

struct slice http_request_body(const struct http_request *request)
{
    return slice_of(request->body);
}

char *http_request_take_body(struct http_request *request, size_t *size)
{
    char *body = request->body;
    *size = strlen(body);
    request->body = NULL;
    return body;
}

unsigned http_request_loop(const struct http_request *request)
{
    (void)request;
    return 0;
}

struct slice http_request_peer(const struct http_request *request)
{
    (void)request;
    return SLICE("192.0.2.1");
}

void http_request_set_user(struct http_request *request, void *user)
{
    request->user = user;
}

void *http_request_user(const struct http_request *request)
{
    return request->user;
}

void http_request_answer(struct http_request *request, const struct http_answer *answer)
{
    request->answers++;
    request->status = answer->status;
    request->retry_after_s = answer->retry_after_s;
    snprintf(request->text, sizeof request->text, "%.*s", SLICE_ARGS(answer->body));
}

void http_request_park(struct http_request *request)
{
    request->parked = true;
}

void http_requests_resume(struct http_request **requests, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        requests[i]->resumed = true;
    }
}

/* --- a journal --- */

static struct journal_append *appended;
static unsigned append_calls;

struct journal_event *journal_event_new(const uint8_t key[JOURNAL_KEY_BYTES], int64_t accepted_ms, struct slice head,
                                        char *body, size_t body_size)
{
    struct journal_event *event = calloc(1, sizeof *event);
    memcpy(event->key, key, JOURNAL_KEY_BYTES);
    event->accepted_ms = accepted_ms;
    event->body = (struct slice){body, body_size};
    assert_true(head.size > 0);
    return event;
}

void journal_event_free(struct journal_event *event)
{
    free((char *)event->body.data);
    free(event);
}

void journal_append(struct journal *journal, struct journal_append *batch)
{
    (void)journal;
    append_calls++;
    appended = batch;
}

/* --- helpers --- */

static struct ingress *open_with(const struct ingress_app *apps, size_t count, struct route_table *routes)
{
    struct ingress *ingress;
    struct error why;
    const struct ingress_options options = {.loops = 1, .apps = apps, .app_count = count, .routes = routes};
    wall_ms = NOW_MS;
    mono_us = 1000000000;
    appended = NULL;
    append_calls = 0;
    assert_int_equal(ingress_open(&ingress, &options, &why), ERR_NONE);
    return ingress;
}

static const struct ingress_app plain_app = {.id = {"1", 1}, .path = {"/webhook", 8}, .secret = {"s", 1}};

/* Runs a request through the hooks up to its answer or to the journal. */
static struct http_request play(struct ingress *ingress, const char *secret, const char *path, const char *body)
{
    static char signature[SIGNATURE_HEX_DIGITS + 1];
    struct http_handler handler = ingress_handler(ingress);
    struct http_request request = {.method = "POST", .path = path, .timestamp = "1725105600000", .body = strdup(body)};
    if (secret) {
        struct signer *signer;
        uint8_t mac[SIGNATURE_BYTES];
        const struct signed_request signed_request = {SLICE("POST"), SLICE("hooks.example.com"), slice_of(path), slice_of(body),
                                                      slice_of(request.timestamp)};
        assert_int_equal(signer_open(&signer, slice_of(secret), NULL), ERR_NONE);
        assert_true(signer_sign(signer, &signed_request, mac));
        hex_encode(mac, sizeof mac, signature);
        signer_close(&signer);
        request.signature = signature;
    }
    handler.headers(handler.ctx, &request);
    if (request.answers == 0) {
        handler.whole(handler.ctx, &request);
    }
    return request;
}

static void finish(struct ingress *ingress, struct http_request *request)
{
    struct http_handler handler = ingress_handler(ingress);
    handler.finished(handler.ctx, request);
    free(request->body);
}

/* What follows comes in another turn. */
static void done(struct ingress *ingress, struct http_request *request)
{
    struct http_handler handler = ingress_handler(ingress);
    finish(ingress, request);
    handler.at_rest(handler.ctx, 0);
}

static void assert_refused(struct ingress *ingress, struct http_request request, unsigned status, const char *message)
{
    char expected[256];
    snprintf(expected, sizeof expected, "{\"code\":%u,\"message\":\"%s\",\"data\":null}", status, message);
    assert_int_equal(request.answers, 1);
    assert_int_equal(request.status, status);
    assert_string_equal(request.text, expected);
    assert_false(request.parked);
    done(ingress, &request);
}

static void free_event(struct journal_append *append)
{
    journal_event_free(append->event);
    append->event = NULL;
}

/* --- tests --- */

static void a_verified_event_waits_for_the_journal_and_is_then_answered(void **state)
{
    (void)state;
    struct ingress *ingress = open_with(&plain_app, 1, NULL);
    struct http_handler handler = ingress_handler(ingress);
    static const struct {
        enum journal_outcome outcome;
        const char *why;
        unsigned status;
        const char *text;
    } cases[] = {
        {JOURNAL_STORED, NULL, 200, "{\"code\":0,\"message\":\"OK\",\"data\":{\"id\":\"7\",\"duplicate\":false}}"},
        {JOURNAL_DUPLICATE, NULL, 200, "{\"code\":0,\"message\":\"OK\",\"data\":{\"id\":\"7\",\"duplicate\":true}}"},
        {JOURNAL_REFUSED, "the journal is full", 503, "{\"code\":503,\"message\":\"the journal is full\",\"data\":null}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_request request = play(ingress, "s", "/webhook", BODY);
        assert_true(request.parked);
        assert_int_equal(request.answers, 0);
        assert_int_equal(append_calls, i);
        ((struct journal_append *)request.user)->why = NULL;
        handler.at_rest(handler.ctx, 0);
        assert_int_equal(append_calls, i + 1);
        assert_slice(appended->event->body, BODY);
        assert_true(appended->event->accepted_ms == NOW_MS);
        free_event(appended);
        appended->outcome = cases[i].outcome;
        appended->why = cases[i].why;
        /* the ticket points at the request that play() made: it was copied on return */
        struct {
            struct journal_append append;
            struct http_request *request;
        } *ticket = (void *)appended;
        ticket->request = &request;
        ingress_appended(ingress, appended);
        assert_true(request.resumed);
        handler.resumed(handler.ctx, &request);
        assert_int_equal(request.status, cases[i].status);
        assert_string_equal(request.text, cases[i].text);
        assert_int_equal(request.retry_after_s > 0, cases[i].status == 503);
        done(ingress, &request);
    }
    ingress_close(&ingress);
}

/* As when a body becomes whole after the journal was closed. */
static void a_stopped_ingress_gives_the_journal_nothing(void **state)
{
    (void)state;
    struct ingress *ingress = open_with(&plain_app, 1, NULL);
    struct http_handler handler = ingress_handler(ingress);
    struct http_request request = play(ingress, "s", "/webhook", BODY);
    struct {
        struct journal_append append;
        struct http_request *request;
    } *ticket = (void *)request.user;
    assert_true(request.parked);
    ticket->request = &request; /* play() made it elsewhere */
    ingress_stop(ingress);
    handler.at_rest(handler.ctx, 0);
    assert_int_equal(append_calls, 0);
    assert_true(request.resumed);
    handler.resumed(handler.ctx, &request);
    assert_int_equal(request.status, 503);
    assert_string_equal(request.text, "{\"code\":503,\"message\":\"the bridge is stopping\",\"data\":null}");
    done(ingress, &request);
    ingress_close(&ingress);
}

static void what_one_turn_collects_is_one_batch_in_order(void **state)
{
    (void)state;
    struct ingress *ingress = open_with(&plain_app, 1, NULL);
    struct http_handler handler = ingress_handler(ingress);
    struct http_request requests[3];
    for (size_t i = 0; i < 3; i++) {
        requests[i] = play(ingress, "s", "/webhook", BODY);
    }
    handler.at_rest(handler.ctx, 0);
    handler.at_rest(handler.ctx, 0); /* nothing new: no call */
    assert_int_equal(append_calls, 1);
    struct journal_append *append = appended;
    for (size_t i = 0; i < 3; i++, append = append->next) {
        assert_ptr_equal(append, requests[i].user);
        free_event(append);
    }
    assert_null(append);
    for (size_t i = 0; i < 3; i++) {
        done(ingress, &requests[i]);
    }
    ingress_close(&ingress);
}

static void the_path_comes_before_the_method_and_the_signature_before_the_json(void **state)
{
    (void)state;
    struct ingress *ingress = open_with(&plain_app, 1, NULL);
    struct http_handler handler = ingress_handler(ingress);
    assert_refused(ingress, play(ingress, NULL, "/other", "x"), 404, "no app has this path");
    struct http_request get = {.method = "GET", .path = "/webhook"};
    handler.headers(handler.ctx, &get);
    assert_refused(ingress, get, 405, "only POST is served here");
    assert_refused(ingress, play(ingress, NULL, "/webhook", "x"), 403, "missing signature");
    assert_refused(ingress, play(ingress, "t", "/webhook", "x"), 403, "signature verification failed");
    struct http_request bad = play(ingress, "s", "/webhook", "x");
    assert_int_equal(bad.status, 400);
    done(ingress, &bad);
    ingress_close(&ingress);
}

static void what_the_server_refuses_is_counted_by_its_status(void **state)
{
    (void)state;
    struct ingress *ingress = open_with(&plain_app, 1, NULL);
    struct http_handler handler = ingress_handler(ingress);
    static const struct {
        unsigned status;
        enum metric metric;
    } cases[] = {{400, METRIC_WEBHOOKS_MALFORMED},   {408, METRIC_WEBHOOKS_TOO_SLOW},     {413, METRIC_WEBHOOKS_TOO_LARGE},
                 {414, METRIC_WEBHOOKS_LONG_TARGET}, {431, METRIC_WEBHOOKS_LONG_HEADERS}, {505, METRIC_WEBHOOKS_BAD_VERSION},
                 {503, METRIC_WEBHOOKS_UNAVAILABLE}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t before = metrics_get(cases[i].metric);
        handler.refused(handler.ctx, &(struct http_request){.path = ""}, cases[i].status, "why");
        assert_int_equal(metrics_get(cases[i].metric), before + 1);
    }
    ingress_close(&ingress);
}

/* Requests of a turn share what the clock said, but not for long. */
static void a_long_turn_looks_at_the_clock_again(void **state)
{
    (void)state;
    struct ingress *ingress = open_with(&plain_app, 1, NULL);
    unsigned status = 400, requests = 0;
    for (; status == 400 && requests < 100; requests++) {
        struct http_request request = play(ingress, "s", "/webhook", "x");
        status = request.status;
        finish(ingress, &request);
        wall_ms = NOW_MS + 300001; /* too late for the timestamp */
    }
    assert_int_equal(status, 403);
    assert_in_range(requests, 2, 20);
    ingress_close(&ingress);
}

static void a_timestamp_is_valid_for_five_minutes_either_way(void **state)
{
    (void)state;
    struct ingress *ingress = open_with(&plain_app, 1, NULL);
    static const struct {
        int64_t skew_ms;
        bool fresh;
    } cases[] = {{300000, true}, {300001, false}, {-300000, true}, {-300001, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        wall_ms = NOW_MS + cases[i].skew_ms;
        struct http_request request = play(ingress, "s", "/webhook", "x");
        assert_int_equal(request.status, cases[i].fresh ? 400 : 403);
        done(ingress, &request);
    }
    ingress_close(&ingress);
}

static void a_secret_speaks_for_its_own_app_only(void **state)
{
    (void)state;
    const struct ingress_app apps[] = {
        {.id = SLICE("2"), .path = SLICE("/webhook"), .secret = SLICE("two")},
        {.id = SLICE("1"), .path = SLICE("/webhook"), .secret = SLICE("one"), .previous_secret = SLICE("old")},
    };
    struct ingress *ingress = open_with(apps, 2, NULL);
    struct http_handler handler = ingress_handler(ingress);
    unsigned one = metrics_app(SLICE("1"));
    const uint64_t current = metrics_app_get(one, METRIC_APP_VERIFIED_CURRENT),
                   previous = metrics_app_get(one, METRIC_APP_VERIFIED_PREVIOUS);
    assert_refused(ingress, play(ingress, "two", "/webhook", BODY), 403, "app is not allowed");
    static const char *const right[] = {"one", "old"};
    for (size_t i = 0; i < 2; i++) {
        struct http_request request = play(ingress, right[i], "/webhook", BODY);
        assert_true(request.parked);
        handler.at_rest(handler.ctx, 0);
        free_event(appended);
        done(ingress, &request);
    }
    assert_int_equal(metrics_app_get(one, METRIC_APP_VERIFIED_CURRENT) - current, 1);
    assert_int_equal(metrics_app_get(one, METRIC_APP_VERIFIED_PREVIOUS) - previous, 1);
    assert_int_equal(metrics_app_get(one, METRIC_APP_PREVIOUS_USED), NOW_MS);
    ingress_close(&ingress);
}

static void the_rate_limit_is_a_bucket_of_one_second(void **state)
{
    (void)state;
    struct ingress_app app = plain_app;
    app.rate_limit = 4;
    struct ingress *ingress = open_with(&app, 1, NULL);
    struct http_handler handler = ingress_handler(ingress);
    static const unsigned allowed[] = {4, 0, 1, 4}; /* at once; at once again; after 0.3 s; after an hour */
    static const int64_t wait_us[] = {0, 0, 300000, 3600000000};
    for (size_t i = 0; i < 4; i++) {
        mono_us += wait_us[i];
        unsigned taken = 0;
        for (size_t k = 0; k < 6; k++) {
            struct http_request request = play(ingress, "s", "/webhook", BODY);
            taken += request.parked;
            assert_true(request.parked || (request.status == 429 && request.retry_after_s > 0));
            handler.at_rest(handler.ctx, 0);
            if (request.parked) {
                free_event(appended);
            }
            done(ingress, &request);
        }
        assert_int_equal(taken, allowed[i]);
    }
    ingress_close(&ingress);
}

static void without_storage_an_event_that_no_route_takes_is_503(void **state)
{
    (void)state;
    struct route_table *routes;
    char pattern[] = "other", topic[] = "x", *topics[] = {topic};
    const struct route route = {.event = pattern, .topics = topics, .topic_count = 1, .qos = 1};
    assert_int_equal(route_table_open(&routes, &route, 1, NULL), ERR_NONE);
    struct ingress *ingress = open_with(&plain_app, 1, routes);
    route_table_unref(&routes);
    assert_refused(ingress, play(ingress, "s", "/webhook", BODY), 503, "no route matches this event");
    ingress_close(&ingress);
}

static void a_reload_takes_effect_at_the_next_request(void **state)
{
    (void)state;
    struct ingress *ingress = open_with(&plain_app, 1, NULL);
    struct ingress_app changed = plain_app;
    changed.secret = SLICE("new");
    assert_refused(ingress, play(ingress, "new", "/webhook", "x"), 403, "signature verification failed");
    assert_int_equal(ingress_reload(ingress, &changed, 1, NULL, NULL), ERR_NONE);
    assert_refused(ingress, play(ingress, "s", "/webhook", "x"), 403, "signature verification failed");
    struct http_request request = play(ingress, "new", "/webhook", "x");
    assert_int_equal(request.status, 400);
    done(ingress, &request);
    changed.secret = (struct slice){0};
    assert_int_equal(ingress_reload(ingress, NULL, 0, NULL, NULL), ERR_INVALID);
    ingress_close(&ingress);
}

static void a_public_url_is_what_is_verified(void **state)
{
    (void)state;
    struct ingress_app app = plain_app;
    app.public_host = SLICE("hooks.example.com");
    app.public_path = SLICE("/outer");
    struct ingress *ingress = open_with(&app, 1, NULL);
    assert_refused(ingress, play(ingress, "s", "/webhook", "x"), 403, "signature verification failed");
    struct http_handler handler = ingress_handler(ingress);
    struct http_request request = play(ingress, "s", "/outer", "x"); /* signs /outer; 404, but its signature serves */
    assert_int_equal(request.status, 404);
    request.path = "/webhook";
    handler.whole(handler.ctx, &request);
    assert_int_equal(request.status, 400);
    done(ingress, &request);
    ingress_close(&ingress);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_verified_event_waits_for_the_journal_and_is_then_answered),
        cmocka_unit_test(a_stopped_ingress_gives_the_journal_nothing),
        cmocka_unit_test(what_one_turn_collects_is_one_batch_in_order),
        cmocka_unit_test(the_path_comes_before_the_method_and_the_signature_before_the_json),
        cmocka_unit_test(what_the_server_refuses_is_counted_by_its_status),
        cmocka_unit_test(a_long_turn_looks_at_the_clock_again),
        cmocka_unit_test(a_timestamp_is_valid_for_five_minutes_either_way),
        cmocka_unit_test(a_secret_speaks_for_its_own_app_only),
        cmocka_unit_test(the_rate_limit_is_a_bucket_of_one_second),
        cmocka_unit_test(without_storage_an_event_that_no_route_takes_is_503),
        cmocka_unit_test(a_reload_takes_effect_at_the_next_request),
        cmocka_unit_test(a_public_url_is_what_is_verified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
