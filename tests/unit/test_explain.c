#include "test.h"

#include "meowbridge/explain.h"
#include "meowbridge/signature.h"

#include <stdio.h>
#include <stdlib.h>

#define NOW_MS 1724990400000
#define STAMP "1724990400000"
#define SECRET "meow-secret"
#define BODY "{\"id\":\"1\",\"payload\":{\"b\":1.50,\"a\":[152066840347062275,{}]}}"

/* What the sender really signed. */
struct sent {
    const char *secret, *method, *domain, *path, *body, *timestamp;
};
#define SENT ((struct sent){SECRET, "POST", "hooks.example.com", "/meow/webhook", BODY, STAMP})

static char hex[SIGNATURE_HEX_DIGITS + 1];

static struct slice sign(const struct sent *sent)
{
    struct signer *signer;
    struct error why;
    uint8_t mac[SIGNATURE_BYTES];
    const struct signed_request request = {slice_of(sent->method), slice_of(sent->domain), slice_of(sent->path),
                                           slice_of(sent->body), slice_of(sent->timestamp)};
    assert_int_equal(signer_open(&signer, slice_of(sent->secret), &why), ERR_NONE);
    assert_true(signer_sign(signer, &request, mac));
    signer_close(&signer);
    hex_encode(mac, sizeof mac, hex);
    return (struct slice){hex, SIGNATURE_HEX_DIGITS};
}

/* What was captured, but for the signature. */
static struct explain_request captured(void)
{
    return (struct explain_request){
        .secret = SLICE(SECRET),
        .method = SLICE("POST"),
        .host = SLICE("hooks.example.com"),
        .target = SLICE("/meow/webhook"),
        .body = SLICE(BODY),
        .timestamp = SLICE(STAMP),
        .now_ms = NOW_MS,
    };
}

static struct explain_result explain(struct explain_request request, struct sent sent)
{
    struct explain_result result;
    struct error why;
    request.signature = sign(&sent);
    assert_int_equal(explain_find(&request, &result, &why), ERR_NONE);
    return result;
}

#define assert_found(result, expected_part, expected_what, expected_value)     \
    do {                                                                       \
        assert_int_equal((result).verdict, EXPLAIN_FOUND);                     \
        assert_int_equal((result).deviation_count, 1);                         \
        assert_int_equal((result).deviations[0].part, expected_part);          \
        assert_string_equal((result).deviations[0].what, expected_what);       \
        assert_string_equal((result).deviations[0].signed_as, expected_value); \
        assert_true(strlen((result).deviations[0].advice) > 20);               \
    } while (0)

static void a_request_that_verifies_is_said_to(void **state)
{
    (void)state;
    struct explain_result result = explain(captured(), SENT);
    assert_int_equal(result.verdict, EXPLAIN_VERIFIES);
    assert_int_equal(result.clock, EXPLAIN_FRESH);
    assert_int_equal(result.deviation_count, 0);
    assert_int_equal(result.tried, 1);
}

static void every_part_that_was_signed_otherwise_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *host, *target; /* captured; NULL: as sent */
        enum explain_part part;
        const char *sent, *what;
    } cases[] = {
        {"hooks.example.com:8080", NULL, EXPLAIN_HOST, "hooks.example.com", "the host without its port"},
        {NULL, NULL, EXPLAIN_HOST, "hooks.example.com:8443", "the host with another port"},
        {NULL, NULL, EXPLAIN_HOST, "hooks.example.com:443", "the host with a default port, which MeowFlow leaves out"},
        {"Hooks.Example.com", NULL, EXPLAIN_HOST, "hooks.example.com", "the host in lower case"},
        {NULL, NULL, EXPLAIN_HOST, "www.hooks.example.com", "the host with www."},
        {"www.hooks.example.com", NULL, EXPLAIN_HOST, "hooks.example.com", "the host without www."},
        {NULL, NULL, EXPLAIN_HOST, "127.0.0.1:8080", "the host by which a proxy on this machine reaches the bridge"},
        {NULL, "/meow/webhook?a=1", EXPLAIN_PATH, "/meow/webhook?a=1", "the path with its query"},
        {NULL, NULL, EXPLAIN_PATH, "/meow/webhook/", "the path with a slash at its end"},
        {NULL, "/meow/webhook/", EXPLAIN_PATH, "/meow/webhook", "the path without the slash at its end"},
        {NULL, "/meow%2fwe%62hook", EXPLAIN_PATH, "/meow/webhook", "the path percent-decoded"},
        {NULL, "/a%2fb", EXPLAIN_PATH, "/a%2Fb", "the path with percent-encodings in upper case"},
        {NULL, "/meow//webhook", EXPLAIN_PATH, "/meow/webhook", "the path with single slashes"},
        {NULL, NULL, EXPLAIN_PATH, "/webhook", "the path without its first part"},
        {NULL, NULL, EXPLAIN_PATH, "/meow", "the path without its last part"},
        {NULL, NULL, EXPLAIN_PATH, "/api/meow/webhook", "the path behind a prefix that a proxy takes off"},
        {NULL, NULL, EXPLAIN_METHOD, "PUT", "another method"},
        {NULL, NULL, EXPLAIN_TIMESTAMP, "1724990400", "the timestamp in seconds"},
        {NULL, NULL, EXPLAIN_SECRET, SECRET "\n", "the secret with a newline at its end"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct explain_request request = captured();
        request.host = cases[i].host ? slice_of(cases[i].host) : request.host;
        request.target = cases[i].target ? slice_of(cases[i].target) : request.target;
        struct sent sent = SENT;
        const char **fields[EXPLAIN_PARTS] = {&sent.timestamp, &sent.domain, &sent.path,
                                              &sent.method,    &sent.secret, &sent.body};
        *fields[cases[i].part] = cases[i].sent;
        struct explain_result result = explain(request, sent);
        assert_found(result, cases[i].part, cases[i].what, cases[i].part == EXPLAIN_SECRET ? "" : cases[i].sent);
    }
}

static void every_usual_form_of_the_body_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *captured, *sent, *what;
    } cases[] = {
        {BODY "\n", BODY, "the body without the newline at its end"},
        {BODY "\r\n", BODY, "the body without the newline at its end"},
        {BODY, BODY "\n", "the body with a newline at its end"},
        {BODY, BODY "\r\n", "the body with CR LF at its end"},
        {" \n" BODY "  ", BODY, "the body without the white space around it"},
        {"{\r\n\"a\":1\r\n}", "{\n\"a\":1\n}", "the body with LF for CR LF"},
        {"{\n\"a\": 1\n}", "{\r\n\"a\": 1\r\n}", "the body with CR LF for LF"},
        {"\xef\xbb\xbf" BODY, BODY, "the body without the byte order mark"},
        {BODY, "\xef\xbb\xbf" BODY, "the body behind a byte order mark"},
        {"\"{\\\"a\\\":\\\"\\u732b\\\"}\"", "{\"a\":\"\xe7\x8c\xab\"}", "the text of the JSON string that the body is"},
        {"", "", NULL},
        {"{ \"b\" : [ 1.50 , { } ] }", "{\"b\":[1.50,{}]}", "the body as compact JSON"},
        {"{\"b\":[1,{}],\"a\":[]}", "{\"b\": [1, {}], \"a\": []}", "the body as JSON spaced as Python's json.dumps does"},
        {"{\"b\":[1,{}],\"a\":{\"c\":null}}", "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": {\n    \"c\": null\n  }\n}",
         "the body as JSON indented by 2 spaces"},
        {"{\"b\":[1,{}]}", "{\n    \"b\": [\n        1,\n        {}\n    ]\n}", "the body as JSON indented by 4 spaces"},
        {"{\"b\":[1,{}]}", "{\n\t\"b\": [\n\t\t1,\n\t\t{}\n\t]\n}", "the body as JSON indented by tabs"},
        {"{\"b\":1,\"a\":{\"d\":1,\"c\":2}, \"ab\":0}", "{\"a\":{\"c\":2,\"d\":1},\"ab\":0,\"b\":1}",
         "the body as compact JSON, members sorted by name"},
        {"{\"a\": \"\xe7\x8c\xab\xf0\x9f\x90\xb1\"}", "{\"a\":\"\\u732b\\ud83d\\udc31\"}",
         "the body as compact JSON, non-ASCII characters escaped"},
        {"{\"a\":\"\\u732b\\ud83d\\udc31\\/\"}", "{\"a\":\"\xe7\x8c\xab\xf0\x9f\x90\xb1/\"}",
         "the body as compact JSON, nothing escaped that need not be"},
        {"{\"a\":\"b/\xe7\x8c\xab\"}", "{\"a\":\"b\\/\\u732b\"}",
         "the body as compact JSON, non-ASCII characters and slashes escaped"},
        {"{\"a\":\"b/\xe7\x8c\xab\"}", "{\"a\":\"b\\/\xe7\x8c\xab\"}", "the body as compact JSON, slashes escaped"},
        {"{\"a\":\"<b>&\"}", "{\"a\":\"\\u003cb\\u003e\\u0026\"}", "the body as compact JSON, <, > and & escaped"},
        {"{\"a\":\"\\ud83d \\u0000 \\u000a\"}", "{\"a\": \"\\ud83d \\u0000 \\n\"}\n",
         "the body as JSON spaced as Python's json.dumps does, nothing escaped that need not be, with a newline at its end"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct explain_request request = captured();
        struct sent sent = SENT;
        request.body = slice_of(cases[i].captured);
        sent.body = cases[i].sent;
        struct explain_result result = explain(request, sent);
        if (cases[i].what) {
            assert_found(result, EXPLAIN_BODY, cases[i].what, "");
        } else {
            assert_int_equal(result.verdict, EXPLAIN_VERIFIES);
        }
    }
}

static void up_to_three_deviations_are_found_together(void **state)
{
    (void)state;
    struct explain_request request = captured();
    struct sent sent = SENT;
    request.host = SLICE("hooks.example.com:8080");
    request.target = SLICE("/meow/webhook/");
    request.body = SLICE(BODY "\n");
    struct explain_result result = explain(request, sent);
    assert_int_equal(result.verdict, EXPLAIN_FOUND);
    assert_int_equal(result.deviation_count, 3);
    assert_int_equal(result.deviations[0].part, EXPLAIN_HOST);
    assert_int_equal(result.deviations[1].part, EXPLAIN_PATH);
    assert_int_equal(result.deviations[2].part, EXPLAIN_BODY);
}

static void hosts_paths_and_urls_that_the_user_names_are_tried(void **state)
{
    (void)state;
    const struct slice others[] = {SLICE("proxy.internal:9000"), SLICE("/strange/place"),
                                   SLICE("https://other.example:443/far/away?x")};
    struct explain_request request = captured();
    request.others = others;
    request.other_count = 3;
    struct sent sent = SENT;
    sent.domain = "proxy.internal:9000";
    sent.path = "/strange/place";
    struct explain_result result = explain(request, sent);
    assert_int_equal(result.deviation_count, 2);
    sent.domain = "other.example";
    sent.path = "/far/away";
    result = explain(request, sent);
    assert_int_equal(result.deviation_count, 2);
    assert_string_equal(result.deviations[0].signed_as, "other.example");
    assert_string_equal(result.deviations[1].signed_as, "/far/away");
}

static void secrets_that_may_have_been_mixed_up_are_tried(void **state)
{
    (void)state;
    const struct explain_secret secrets[] = {{SLICE(""), "nothing", "x"},
                                             {SLICE("another"), "the secret of apps[1]", "Swap the secret files."}};
    struct explain_request request = captured();
    request.other_secrets = secrets;
    request.other_secret_count = 2;
    struct sent sent = SENT;
    sent.secret = "another";
    struct explain_result result = explain(request, sent);
    assert_found(result, EXPLAIN_SECRET, "the secret of apps[1]", "");
    assert_string_equal(result.deviations[0].advice, "Swap the secret files.");
    request.secret = SLICE(" \n");
    result = explain(request, sent);
    assert_found(result, EXPLAIN_SECRET, "the secret of apps[1]", "");
}

static void white_space_around_the_secret_is_told_by_its_end(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {SECRET " ", "the secret without the white space at its end"},
        {"\t" SECRET, "the secret without the white space at its beginning"},
        {" " SECRET "\r", "the secret without the white space at its beginning and its end"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct explain_request request = captured();
        request.secret = slice_of(cases[i][0]);
        struct explain_result result = explain(request, SENT);
        assert_found(result, EXPLAIN_SECRET, cases[i][1], "");
    }
}

static void another_secret_or_another_event_is_not_found(void **state)
{
    (void)state;
    struct sent sent = SENT;
    sent.secret = "somebody else's";
    struct explain_result result = explain(captured(), sent);
    assert_int_equal(result.verdict, EXPLAIN_NOT_FOUND);
    assert_int_equal(result.deviation_count, 0);
    assert_true(result.tried > 10000);
    assert_false(result.is_cut);
}

static void the_work_is_bounded_however_large_the_body(void **state)
{
    (void)state;
    const size_t size = 8 << 20;
    char *body = malloc(size + 1);
    memset(body, '\n', size);
    body[size] = 0;
    struct explain_request request = captured();
    request.body = slice_of(body);
    struct explain_result result = explain(request, SENT);
    assert_int_equal(result.verdict, EXPLAIN_NOT_FOUND);
    assert_true(result.is_cut);
    assert_true(result.tried < 200);
    free(body);
}

static void the_deepest_nesting_is_printed_again(void **state)
{
    (void)state;
    char body[200], sent_body[200];
    memset(body, '[', 64);
    memcpy(body + 64, " 1 ", 3);
    memset(body + 67, ']', 64);
    body[131] = 0;
    memset(sent_body, '[', 64);
    sent_body[64] = '1';
    memset(sent_body + 65, ']', 64);
    sent_body[129] = 0;
    struct explain_request request = captured();
    request.body = slice_of(body);
    struct sent sent = SENT;
    sent.body = sent_body;
    struct explain_result result = explain(request, sent);
    assert_found(result, EXPLAIN_BODY, "the body as compact JSON", "");
}

static void the_clock_is_judged_by_when_the_request_was_received(void **state)
{
    (void)state;
    static const struct {
        int64_t received_ms, now_ms; /* received 0: not known */
        enum explain_clock clock;
    } cases[] = {
        {0, NOW_MS + 300000, EXPLAIN_FRESH},          {0, NOW_MS + 300001, EXPLAIN_OLD},
        {0, NOW_MS - 300001, EXPLAIN_AHEAD},          {NOW_MS + 1000, NOW_MS + 86400000, EXPLAIN_FRESH},
        {NOW_MS + 300001, NOW_MS + 1, EXPLAIN_STALE}, {NOW_MS - 300001, NOW_MS + 86400000, EXPLAIN_AHEAD},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct explain_request request = captured();
        request.received_ms = cases[i].received_ms;
        request.is_received_known = cases[i].received_ms != 0;
        request.now_ms = cases[i].now_ms;
        struct explain_result result = explain(request, SENT);
        assert_int_equal(result.clock, cases[i].clock);
        assert_int_equal(result.verdict, EXPLAIN_VERIFIES);
    }
    struct explain_request request = captured();
    request.timestamp = SLICE("1724990400");
    struct explain_result result = explain(request, SENT);
    assert_int_equal(result.clock, EXPLAIN_NO_TIME);
    assert_found(result, EXPLAIN_TIMESTAMP, "the timestamp in milliseconds", STAMP);
}

static void what_is_no_signature_is_said_to_be_none(void **state)
{
    (void)state;
    struct explain_request request = captured();
    struct explain_result result;
    struct error why;
    request.signature = SLICE("da39a3ee5e6b4b0d3255bfef95601890afd80709");
    assert_int_equal(explain_find(&request, &result, &why), ERR_NONE);
    assert_int_equal(result.verdict, EXPLAIN_BAD_SIGNATURE);
    assert_non_null(strstr(result.complaint, "40 characters, expected 64 hex digits"));
    char decorated[100];
    struct sent sent = SENT;
    snprintf(decorated, sizeof decorated, "sha256=%.*s\n", SLICE_ARGS(sign(&sent)));
    request.signature = slice_of(decorated);
    assert_int_equal(explain_find(&request, &result, &why), ERR_NONE);
    assert_int_equal(result.verdict, EXPLAIN_VERIFIES);
    assert_non_null(result.clean_advice);
    request.secret = (struct slice){0};
    assert_int_equal(explain_find(&request, &result, &why), ERR_INVALID);
}

static void what_was_signed_is_printable(void **state)
{
    (void)state;
    struct explain_request request = captured();
    request.target = SLICE("/a%1b%0a");
    struct sent sent = SENT;
    sent.path = "/a\x1b\n";
    struct explain_result result = explain(request, sent);
    assert_found(result, EXPLAIN_PATH, "the path percent-decoded", "/a??");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_that_verifies_is_said_to),
        cmocka_unit_test(every_part_that_was_signed_otherwise_is_found),
        cmocka_unit_test(every_usual_form_of_the_body_is_found),
        cmocka_unit_test(up_to_three_deviations_are_found_together),
        cmocka_unit_test(hosts_paths_and_urls_that_the_user_names_are_tried),
        cmocka_unit_test(secrets_that_may_have_been_mixed_up_are_tried),
        cmocka_unit_test(white_space_around_the_secret_is_told_by_its_end),
        cmocka_unit_test(another_secret_or_another_event_is_not_found),
        cmocka_unit_test(the_work_is_bounded_however_large_the_body),
        cmocka_unit_test(the_deepest_nesting_is_printed_again),
        cmocka_unit_test(the_clock_is_judged_by_when_the_request_was_received),
        cmocka_unit_test(what_is_no_signature_is_said_to_be_none),
        cmocka_unit_test(what_was_signed_is_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
