#include "test.h"

#include "meowbridge/err.h"
#include "meowbridge/event.h"

#include <stdlib.h>
#include <time.h>

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])
#define TRACEPARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static const char example[] = "{\n  \"id\": \"123456\",\n  \"webhookId\": \"1234567\",\n  \"appId\": \"12345\",\n"
                              "  \"event\": \"workflowTask.completed\",\n  \"objectId\": \"task_123456\",\n"
                              "  \"payload\": { \"task_id\": 152066840347062999, \"d\":1.50, \"u\":\"\\u55b5\" } ,\n"
                              "  \"pushTime\": \"2024-08-31T12:00:00Z\"\n}";

static const char escaped[] = "{\"\\u0069d\":\"a\\u0000b\",\"webhookId\":7,\"appId\":\"\\ud83d\\udc31\",\"event\":\"a\\/"
                              "b\",\"extra\":[\"\\n\"],\"\\n\":1,"
                              "\"objectId\":\"\\ud800\",\"payload\":\"\\n\\\"\",\"pushTime\":\"plain\"}";

/* Parses a copy that ends where its memory ends; body and scratch live until done(). */
static char *body_copy;
static struct buf scratch;

static enum err parse(struct slice body, struct event *event, struct error *why)
{
    body_copy = malloc(body.size ? body.size : 1);
    assert_non_null(body_copy);
    memcpy(body_copy, body.data, body.size);
    buf_init(&scratch, body.size);
    return event_parse(event, (struct slice){body_copy, body.size}, &scratch, why);
}

static void done(void)
{
    buf_free(&scratch);
    free(body_copy);
}

static void the_example_is_read_where_it_stands(void **state)
{
    (void)state;
    struct event event;
    assert_int_equal(parse(slice_of(example), &event, NULL), ERR_NONE);
    assert_slice(event.id, "123456");
    assert_slice(event.webhook_id, "1234567");
    assert_slice(event.app_id, "12345");
    assert_slice(event.name, "workflowTask.completed");
    assert_slice(event.object_id, "task_123456");
    assert_slice(event.payload, "{ \"task_id\": 152066840347062999, \"d\":1.50, \"u\":\"\\u55b5\" }");
    assert_slice(event.push_time, "2024-08-31T12:00:00Z");
    assert_slice(event.body, example);
    assert_ptr_equal(event.body.data, body_copy);
    assert_true(event.payload.data > body_copy && event.payload.data < body_copy + sizeof example);
    assert_int_equal(event.traceparent.size, 0);
    assert_int_equal(event.tracestate.size, 0);
    assert_true(event.seq == 0 && event.accepted_ms == 0 && !event.is_replay);
    done();
}

static void assert_escaped_event(const struct event *event)
{
    assert_true(slice_equal(event->id, (struct slice){"a\0b", 3}));
    assert_slice(event->webhook_id, "7");
    assert_slice(event->app_id, "\xf0\x9f\x90\xb1");
    assert_slice(event->name, "a/b");
    assert_slice(event->object_id, "\xed\xa0\x80");
    assert_slice(event->payload, "\"\\n\\\"\"");
    assert_slice(event->push_time, "plain");
}

static void escaped_names_and_fields_are_unescaped_and_the_payload_is_not(void **state)
{
    (void)state;
    struct event event;
    assert_int_equal(parse(slice_of(escaped), &event, NULL), ERR_NONE);
    assert_escaped_event(&event);
    done();
}

/* A body whose members are those of the table, one of them replaced; NULL leaves it out. */
static struct slice body_with(struct buf *out, const char *name, const char *literal)
{
    static const char *const members[][2] = {{"id", "\"1\""},      {"webhookId", "\"2\""}, {"appId", "\"3\""},
                                             {"event", "\"e.f\""}, {"objectId", "\"o\""},  {"payload", "{}"},
                                             {"pushTime", "\"t\""}};
    const char *between = "{";
    buf_reset(out);
    for (size_t i = 0; i < LENGTH(members); i++) {
        const char *value = strcmp(members[i][0], name) == 0 ? literal : members[i][1];
        if (value) {
            buf_appendf(out, "%s\"%s\":%s", between, members[i][0], value);
            between = ",";
        }
    }
    buf_append_char(out, '}');
    assert_false(out->failed);
    return buf_slice(out);
}

static const struct {
    const char *member, *literal, *why; /* why NULL: it is taken */
} rules[] = {
    {"id", NULL, "member id is missing"},
    {"id", "null", "member id must be a string or an integer"},
    {"id", "true", "member id must be a string or an integer"},
    {"id", "{}", "member id must be a string or an integer"},
    {"id", "[1]", "member id must be a string or an integer"},
    {"id", "1.0", "member id must be a string or an integer"},
    {"id", "1e2", "member id must be a string or an integer"},
    {"id", "\"\"", "member id must not be empty"},
    {"id", "152066840347062275", NULL},
    {"id", "\" \"", NULL},
    {"id", "\"\\u0000\"", NULL},
    {"webhookId", NULL, "member webhookId is missing"},
    {"webhookId", "false", "member webhookId must be a string or an integer"},
    {"webhookId", "\"\"", "member webhookId must not be empty"},
    {"webhookId", "-5", NULL},
    {"appId", NULL, "member appId is missing"},
    {"appId", "1.5", "member appId must be a string or an integer"},
    {"appId", "\"\"", "member appId must not be empty"},
    {"appId", "-0", NULL},
    {"event", NULL, "member event is missing"},
    {"event", "5", "member event must be a string"},
    {"event", "null", "member event must be a string"},
    {"event", "\"\"", "member event must not be empty"},
    {"objectId", NULL, "member objectId is missing"},
    {"objectId", "null", "member objectId must be a string or an integer"},
    {"objectId", "0.5", "member objectId must be a string or an integer"},
    {"objectId", "\"\"", NULL},
    {"objectId", "9", NULL},
    {"payload", NULL, "member payload is missing"},
    {"payload", "null", NULL},
    {"payload", "false", NULL},
    {"payload", "[]", NULL},
    {"payload", "\"\"", NULL},
    {"payload", "1.50", NULL},
    {"pushTime", NULL, "member pushTime is missing"},
    {"pushTime", "1725105600000", "member pushTime must be a string"},
    {"pushTime", "null", "member pushTime must be a string"},
    {"pushTime", "\"\"", NULL},
};

static void each_member_has_its_rule(void **state)
{
    (void)state;
    struct buf body;
    buf_init(&body, 4096);
    for (size_t i = 0; i < LENGTH(rules); i++) {
        struct event event = {.seq = 77};
        struct error why = {0};
        enum err err = parse(body_with(&body, rules[i].member, rules[i].literal), &event, &why);
        assert_int_equal(err, rules[i].why ? ERR_INVALID : ERR_NONE);
        assert_string_equal(why.text, rules[i].why ? rules[i].why : "");
        assert_int_equal(event.seq, rules[i].why ? 77 : 0); /* untouched on error */
        done();
    }
    buf_free(&body);
}

static void an_integer_stands_for_its_digits(void **state)
{
    (void)state;
    static const char *const integers[] = {"152066840347062275", "-5", "-0", "0", "123456789012345678901234567890"};
    struct buf body;
    buf_init(&body, 4096);
    for (size_t i = 0; i < LENGTH(integers); i++) {
        struct event event;
        assert_int_equal(parse(body_with(&body, "id", integers[i]), &event, NULL), ERR_NONE);
        assert_slice(event.id, integers[i]);
        done();
    }
    struct event event;
    struct error why;
    assert_int_equal(parse(body_with(&body, "id", "007"), &event, &why), ERR_INVALID);
    assert_string_equal(why.text, "the body is not JSON: a number begins with 0 at byte 7");
    done();
    buf_free(&body);
}

static void the_answer_says_why_a_body_is_no_event(void **state)
{
    (void)state;
    static const struct {
        struct slice body;
        const char *why;
    } cases[] = {
        {{"", 0}, "the body is not JSON: unexpected end at byte 0"},
        {{"{\"id\":1", 7}, "the body is not JSON: unexpected end at byte 7"},
        {{"{\"id\":\"\xff\"}", 9}, "the body is not JSON: invalid UTF-8 at byte 7"},
        {{"\xef\xbb\xbf{}", 5}, "the body is not JSON: a byte order mark at byte 0"},
        {{"{} {}", 5}, "the body is not JSON: more bytes after the value at byte 3"},
        {{"{\"secret\":x}", 12}, "the body is not JSON: a value is expected at byte 10"},
        {{"[]", 2}, "the body is not a JSON object"},
        {{"\"id\"", 4}, "the body is not a JSON object"},
        {{"null", 4}, "the body is not a JSON object"},
        {{"{}", 2}, "member id is missing"},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct event event;
        struct error why;
        assert_int_equal(parse(cases[i].body, &event, &why), ERR_INVALID);
        assert_int_equal(why.code, ERR_INVALID);
        assert_string_equal(why.text, cases[i].why);
        done();
    }
}

static void nesting_counts_from_the_outermost_object(void **state)
{
    (void)state;
    struct buf body;
    buf_init(&body, 4096);
    for (int depth = 63; depth <= 64; depth++) {
        char payload[129] = {0};
        memset(payload, '[', (size_t)depth);
        memset(payload + depth, ']', (size_t)depth);
        struct event event;
        struct error why = {0};
        enum err err = parse(body_with(&body, "payload", payload), &event, &why);
        assert_int_equal(err, depth == 63 ? ERR_NONE : ERR_INVALID);
        assert_string_equal(why.text, depth == 63 ? "" : "nesting deeper than 64 levels");
        done();
    }
    buf_free(&body);
}

static void no_top_level_member_stands_twice(void **state)
{
    (void)state;
    static const struct {
        const char *more, *why;
    } cases[] = {
        {"\"id\":\"1\"", "member id stands twice"},
        {"\"\\u0069d\":\"1\"", "member id stands twice"},
        {"\"\\u0069\\u0064\":null", "member id stands twice"},
        {"\"payload\":{}", "member payload stands twice"},
        {"\"pushTime\":\"t\"", "member pushTime stands twice"},
        {"\"x\":1,\"x\":1", "a top-level member stands twice"},
        {"\"x\":1,\"y\":2,\"x\":3", "a top-level member stands twice"},
        {"\"x\":1,\"y\":2,\"\\u0078\":3", "a top-level member stands twice"},
        {"\"\\u0078\":1,\"\\u0078\":3", "a top-level member stands twice"},
        {"\"\":1,\"\":2", "a top-level member stands twice"},
        {"\"\xe5\x96\xb5\":1,\"\\u55b5\":2", "a top-level member stands twice"},
        {"\"\xf0\x9f\x90\xb1\":1,\"\\ud83d\\udc31\":2", "a top-level member stands twice"},
        {"\"\\ud800\":1,\"\\uD800\":2", "a top-level member stands twice"},
        {"\"a\\u0000\":1,\"a\":2,\"a\\u0000\":3", "a top-level member stands twice"},
        {"\"x\":1", NULL},
        {"\"x\":1,\"X\":2", NULL},
        {"\"ID\":1,\"Id\":2", NULL},
        {"\"a\\u0000\":1,\"a\":2,\"a\\u0000b\":3", NULL},
        {"\"\\ud800\":1,\"\\ud801\":2,\"\\udc00\":3,\"\\ud800\\udc00\":4", NULL},
        {"\"\\\\u0069d\":1,\"\\\\u0069\":2", NULL},
        {"\"x\":{\"y\":1,\"y\":2,\"id\":3},\"z\":{\"y\":1}", NULL},
        {"\"\":1,\" \":2", NULL},
    };
    struct buf body;
    buf_init(&body, 4096);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        for (int first = 0; first < 2; first++) {
            struct slice base = body_with(&body, "", NULL);
            char *copy = slice_dup(base);
            buf_reset(&body);
            if (first) {
                buf_appendf(&body, "{%s,%s", cases[i].more, copy + 1);
            } else {
                buf_appendf(&body, "%.*s,%s}", (int)(base.size - 1), copy, cases[i].more);
            }
            free(copy);
            struct event event;
            struct error why = {0};
            assert_int_equal(parse(buf_slice(&body), &event, &why), cases[i].why ? ERR_INVALID : ERR_NONE);
            assert_string_equal(why.text, cases[i].why ? cases[i].why : "");
            done();
        }
    }
    buf_free(&body);
}

static void append_members(struct buf *body, int count, const char *form)
{
    for (int i = 0; i < count; i++) {
        buf_appendf(body, ",\"%s%d\":1", form, i);
    }
    buf_append_char(body, '}');
    assert_false(body->failed);
}

static void a_hundred_thousand_members_are_bounded_work(void **state)
{
    (void)state;
    static const char *const forms[] = {"", "\\u0061"};
    struct buf body;
    buf_init(&body, 4 << 20);
    for (size_t i = 0; i < LENGTH(forms); i++) {
        struct event event;
        struct error why;
        body_with(&body, "", NULL);
        body.size--;
        append_members(&body, 100000, forms[i]);
        clock_t start = clock();
        assert_int_equal(parse(buf_slice(&body), &event, &why), ERR_NONE);
        assert_true(clock() - start < 2 * CLOCKS_PER_SEC); /* comparing each with each takes minutes */
        done();
        body.size--;
        buf_append_text(&body, i ? ",\"a99999\":2}" : ",\"99999\":2}");
        assert_int_equal(parse(buf_slice(&body), &event, &why), ERR_INVALID);
        assert_string_equal(why.text, "a top-level member stands twice");
        done();
    }
    buf_free(&body);
}

static void a_scratch_without_room_is_no_memory(void **state)
{
    (void)state;
    struct event event;
    struct error why;
    struct buf small;
    buf_init(&small, 10);
    assert_int_equal(event_parse(&event, slice_of(escaped), &small, &why), ERR_MEMORY);
    assert_int_equal(why.code, ERR_MEMORY);
    assert_int_equal(event_parse(&event, slice_of(example), &small, &why),
                     ERR_NONE); /* needs none; a failed one is no hindrance */
    buf_free(&small);
}

static void a_scratch_serves_one_event_after_the_other(void **state)
{
    (void)state;
    struct event event;
    struct buf one;
    buf_init(&one, sizeof escaped);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(event_parse(&event, slice_of(escaped), &one, NULL), ERR_NONE);
    }
    assert_escaped_event(&event);
    buf_free(&one);
}

static void a_good_trace_is_taken_and_a_bad_one_is_not(void **state)
{
    (void)state;
    static const struct {
        const char *parent;
        bool good;
    } cases[] = {
        {TRACEPARENT, true},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", true},
        {"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true},
        {"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes.later", true},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", false},
        {"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x", false},
        {"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-a b", false},
        {"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-\xe5\x96\xb5", false},
        {"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false},
        {"00-00000000000000000000000000000000-00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false},
        {"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01", false},
        {"0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", false},
        {"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01", false},
        {" 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false},
        {"", false},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct event event = {.traceparent = SLICE("old"), .tracestate = SLICE("old=1")};
        event_set_trace(&event, slice_of(cases[i].parent), SLICE("a=1"));
        assert_slice(event.traceparent, cases[i].good ? cases[i].parent : "");
        assert_slice(event.tracestate, cases[i].good ? "a=1" : "");
    }
    char endless[300];
    memset(endless, 'x', sizeof endless);
    memcpy(endless, TRACEPARENT "-", sizeof TRACEPARENT);
    memcpy(endless, "cc", 2);
    struct event event;
    event_set_trace(&event, (struct slice){endless, 128}, SLICE(""));
    assert_int_equal(event.traceparent.size, 128);
    event_set_trace(&event, (struct slice){endless, 129}, SLICE(""));
    assert_int_equal(event.traceparent.size, 0);
}

static void a_trace_state_is_a_list_of_members(void **state)
{
    (void)state;
    static const struct {
        const char *tracestate;
        bool good;
    } cases[] = {
        {"congo=t61rcWkgMzE", true},
        {"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", true},
        {"rojo=1 , congo=2", true},
        {"a=1,,b=2", true},
        {"a=1,", true},
        {"fw529a3039@dt=FfAAAA;x:y/z ~!", true},
        {"0a_-*/z=x", true},
        {"", false},
        {"a", false},
        {"a=", false},
        {"=1", false},
        {"a=b=c", false},
        {"A=1", false},
        {"a b=1", false},
        {"@a=1", false},
        {"a=1;b=2,c", false},
        {"a=\t1", false},
        {"a=1\n", false},
        {"a=\xe5\x96\xb5", false},
        {"a=\x7f", false},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct event event;
        event_set_trace(&event, SLICE(TRACEPARENT), slice_of(cases[i].tracestate));
        assert_slice(event.traceparent, TRACEPARENT);
        assert_slice(event.tracestate, cases[i].good ? cases[i].tracestate : "");
    }
}

static void a_trace_state_has_512_bytes_and_32_members_at_most(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 4096);
    struct event event;
    for (int count = 1; count <= 33; count++) {
        buf_appendf(&b, "%sk%d=v", count > 1 ? "," : "", count);
        event_set_trace(&event, SLICE(TRACEPARENT), buf_slice(&b));
        assert_int_equal(event.tracestate.size, count <= 32 ? b.size : 0);
    }
    buf_reset(&b);
    buf_append_text(&b, "a=");
    for (int i = 0; i < 256; i++) {
        buf_append_char(&b, 'v');
    }
    event_set_trace(&event, SLICE(TRACEPARENT), buf_slice(&b));
    assert_int_equal(event.tracestate.size, b.size);
    buf_append_char(&b, 'v');
    event_set_trace(&event, SLICE(TRACEPARENT), buf_slice(&b));
    assert_int_equal(event.tracestate.size, 0); /* a value is at most 256 */
    b.size--;
    buf_append_text(&b, ",b=");
    while (b.size < 512) {
        buf_append_char(&b, 'w');
    }
    event_set_trace(&event, SLICE(TRACEPARENT), buf_slice(&b));
    assert_int_equal(event.tracestate.size, 512);
    buf_append_char(&b, 'w');
    event_set_trace(&event, SLICE(TRACEPARENT), buf_slice(&b));
    assert_int_equal(event.tracestate.size, 0);
    buf_free(&b);
}

static void key_of(const char *app, const char *id, uint8_t key[EVENT_KEY_BYTES])
{
    struct event event = {.app_id = slice_of(app), .id = slice_of(id)};
    assert_true(event_key(&event, key));
}

static void keys_of_numbers_grow_with_the_number(void **state)
{
    (void)state;
    static const char *const ids[] = {"0",
                                      "1",
                                      "7",
                                      "9",
                                      "10",
                                      "255",
                                      "256",
                                      "999",
                                      "65536",
                                      "4294967295",
                                      "4294967296",
                                      "152066840347062275",
                                      "152066840347062276",
                                      "999999999999999999"};
    uint8_t previous[EVENT_KEY_BYTES] = {0}, key[EVENT_KEY_BYTES], other[EVENT_KEY_BYTES];
    for (size_t i = 0; i < LENGTH(ids); i++) {
        key_of(i % 2 ? "app" : "12345", ids[i], key);
        assert_int_equal(key[0] & 0x80, 0);
        if (i > 0) {
            assert_true(memcmp(previous, key, 8) < 0);
        }
        memcpy(previous, key, sizeof key);
        key_of("another", ids[i], other);
        assert_memory_equal(key, other, 8);
        assert_memory_not_equal(key + 8, other + 8, 8);
    }
    key_of("a", "258", key);
    assert_memory_equal(key, ((uint8_t[8]){0, 0, 0, 0, 0, 0, 1, 2}), 8);
}

static void different_pairs_have_different_keys(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"1", "7"},
                                           {"1", "07"},
                                           {"1", "007"},
                                           {"1", "-7"},
                                           {"1", "-0"},
                                           {"1", "0"},
                                           {"1", "00"},
                                           {"1", "7.0"},
                                           {"1", " 7"},
                                           {"1", "7 "},
                                           {"1", "+7"},
                                           {"1", "0x7"},
                                           {"1", "7a"},
                                           {"1", ""},
                                           {"1", "task_1"},
                                           {"17", ""},
                                           {"a", "bc"},
                                           {"ab", "c"},
                                           {"abc", ""},
                                           {"", "abc"},
                                           {"2", "7"},
                                           {"", "7"},
                                           {"2", "task_1"},
                                           {"1", "task_2"},
                                           {"1", "1000000000000000000"},
                                           {"1", "999999999999999999"},
                                           {"1", "0999999999999999999"},
                                           {"1", "18446744073709551623"}};
    uint8_t keys[LENGTH(pairs)][EVENT_KEY_BYTES];
    for (size_t i = 0; i < LENGTH(pairs); i++) {
        key_of(pairs[i][0], pairs[i][1], keys[i]);
        bool number =
            strcmp(pairs[i][1], "7") == 0 || strcmp(pairs[i][1], "0") == 0 || strcmp(pairs[i][1], "999999999999999999") == 0;
        assert_int_equal(keys[i][0] & 0x80, number ? 0 : 0x80);
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(keys[i], keys[j], EVENT_KEY_BYTES);
        }
    }
}

static void the_form_of_an_id_does_not_change_its_key(void **state)
{
    (void)state;
    static const char *const forms[][2] = {
        {"7", "\"7\""}, {"7", "\"\\u0037\""}, {"-7", "\"-7\""}, {"\"\xe5\x96\xb5\"", "\"\\u55b5\""}};
    struct buf body;
    buf_init(&body, 4096);
    for (size_t i = 0; i < LENGTH(forms); i++) {
        uint8_t keys[2][EVENT_KEY_BYTES];
        for (int j = 0; j < 2; j++) {
            struct event event;
            assert_int_equal(parse(body_with(&body, "id", forms[i][j]), &event, NULL), ERR_NONE);
            assert_true(event_key(&event, keys[j]));
            done();
        }
        assert_memory_equal(keys[0], keys[1], EVENT_KEY_BYTES);
    }
    buf_free(&body);
}

/* Decodes a copy of head that ends where its memory ends. */
static enum err decode(struct slice head, struct slice body, struct event *event, struct buf *room, char **copy,
                       struct error *why)
{
    *copy = malloc(head.size ? head.size : 1);
    memcpy(*copy, head.data, head.size);
    return event_decode(event, (struct slice){*copy, head.size}, body, room, why);
}

static void assert_same_event(const struct event *a, const struct event *b)
{
    assert_true(slice_equal(a->id, b->id));
    assert_true(slice_equal(a->webhook_id, b->webhook_id));
    assert_true(slice_equal(a->app_id, b->app_id));
    assert_true(slice_equal(a->name, b->name));
    assert_true(slice_equal(a->object_id, b->object_id));
    assert_true(slice_equal(a->push_time, b->push_time));
    assert_true(slice_equal(a->traceparent, b->traceparent));
    assert_true(slice_equal(a->tracestate, b->tracestate));
    assert_ptr_equal(a->payload.data, b->payload.data);
    assert_int_equal(a->payload.size, b->payload.size);
    assert_true(slice_equal(a->body, b->body));
}

static void check_round_trip(struct slice body, const char *traceparent, const char *tracestate, size_t head_max)
{
    struct event event, again;
    struct buf head, second, room;
    char *copy;
    buf_init(&head, EVENT_HEAD_MAX);
    buf_init(&second, EVENT_HEAD_MAX);
    buf_init(&room, body.size);
    assert_int_equal(parse(body, &event, NULL), ERR_NONE);
    event_set_trace(&event, slice_of(traceparent), slice_of(tracestate));
    event_encode_head(&event, &head);
    assert_false(head.failed);
    assert_true(head.size <= head_max);
    assert_int_equal(head.data[0], 1);
    assert_int_equal(decode(buf_slice(&head), event.body, &again, &room, &copy, NULL), ERR_NONE);
    assert_same_event(&event, &again);
    event_encode_head(&again, &second);
    assert_true(slice_equal(buf_slice(&head), buf_slice(&second)));
    free(copy);
    buf_free(&head);
    buf_free(&second);
    buf_free(&room);
    done();
}

static void what_is_stored_is_read_back_the_same(void **state)
{
    (void)state;
    check_round_trip(slice_of(example), "", "", 30);
    check_round_trip(slice_of(example), TRACEPARENT, "", 30 + 55);
    check_round_trip(slice_of(example), TRACEPARENT, "congo=t61rcWkgMzE", 30 + 55 + 17);
    check_round_trip(slice_of(escaped), "", "", 30);
    check_round_trip(slice_of(escaped), TRACEPARENT, "congo=t61rcWkgMzE", 30 + 55 + 17);
    struct buf body;
    buf_init(&body, 4096);
    for (size_t i = 0; i < LENGTH(rules); i++) {
        if (!rules[i].why) {
            check_round_trip(body_with(&body, rules[i].member, rules[i].literal), TRACEPARENT, "a=1", 100);
        }
    }
    buf_free(&body);
}

static void assert_label(const char *body, struct slice app_id, struct slice name, struct slice label)
{
    struct event event;
    struct buf head, got, room;
    struct slice got_app_id, got_name;
    buf_init(&head, EVENT_HEAD_MAX);
    buf_init(&got, 1000);
    buf_init(&room, 1000);
    assert_int_equal(parse(slice_of(body), &event, NULL), ERR_NONE);
    event_encode_head(&event, &head);
    assert_true(event_label(buf_slice(&head), event.body, &got));
    assert_true(slice_equal(buf_slice(&got), label));
    assert_true(event_label_read(buf_slice(&got), &got_app_id, &got_name, &room));
    assert_true(slice_equal(got_app_id, app_id));
    assert_true(slice_equal(got_name, name));
    for (size_t size = 0; size < 9; size++) { /* an empty head, and one that ends too early */
        assert_false(event_label((struct slice){head.data, size}, event.body, &got));
    }
    assert_false(event_label(buf_slice(&head), (struct slice){event.body.data, 20}, &got));
    buf_free(&head);
    buf_free(&got);
    buf_free(&room);
    done();
}

static void a_label_tells_app_and_name(void **state)
{
    (void)state;
    struct buf room;
    struct slice app_id, name;
    assert_label(
        "{\"event\":\"a.b\",\"id\":1,\"webhookId\":2,\"appId\":12345,\"objectId\":\"\",\"payload\":1,\"pushTime\":\"\"}",
        SLICE("12345"), SLICE("a.b"), SLICE("12345\n\"a.b\""));
    assert_label("{\"id\":1,\"webhookId\":2,\"appId\":\"\\u0031\\n\",\"event\":\"\\u0000\",\"objectId\":\"\",\"payload\":1,"
                 "\"pushTime\":\"\"}",
                 SLICE("1\n"), SLICE("\0"), SLICE("\"\\u0031\\n\"\n\"\\u0000\""));
    static const char *const none[] = {"",        "\n",         "1",          "1\n",     "1\n2",
                                       "\n\"a\"", "1.5\n\"a\"", "1\n\"\"", "\"\"\n\"a\""};
    buf_init(&room, 1000);
    for (size_t i = 0; i < LENGTH(none); i++) {
        assert_false(event_label_read(slice_of(none[i]), &app_id, &name, &room));
    }
    buf_free(&room);
}

static void the_largest_head_keeps_its_bound(void **state)
{
    (void)state;
    const size_t size = 4 << 20;
    struct buf body;
    buf_init(&body, size + 1000);
    char *id = malloc(size);
    for (size_t i = 0; i + 6 < size; i += 6) {
        memcpy(id + i, "\\u0041", 7);
    }
    buf_appendf(&body,
                "{\"id\":\"%s\",\"webhookId\":1,\"appId\":1,\"event\":\"e\",\"objectId\":1,\"pushTime\":\"\",\"payload\":0}",
                id);
    free(id);
    assert_false(body.failed);
    char traceparent[129] = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-";
    memset(traceparent + 56, 'x', 72);
    char tracestate[513] = {0};
    memset(tracestate, 'v', 512);
    memcpy(tracestate, "a=", 2);
    memcpy(tracestate + 250, ",b=", 3);
    memcpy(tracestate + 500, ",c=", 3);
    check_round_trip(buf_slice(&body), traceparent, tracestate, EVENT_HEAD_MAX);
    buf_free(&body);
}

static void a_head_without_room_has_failed(void **state)
{
    (void)state;
    struct event event;
    struct buf head;
    assert_int_equal(parse(slice_of(example), &event, NULL), ERR_NONE);
    buf_init(&head, EVENT_HEAD_MAX);
    event_encode_head(&event, &head);
    size_t size = head.size;
    buf_free(&head);
    for (size_t limit = 0; limit < size; limit++) {
        buf_init(&head, limit);
        event_encode_head(&event, &head);
        assert_true(head.failed);
        buf_free(&head);
    }
    done();
}

/* What event.c does, so that a damaged head can be made to look whole. */
static void seal(struct buf *head, size_t body_size)
{
    uint32_t sum = 2166136261u ^ (uint32_t)body_size;
    for (size_t i = 0; i + 4 < head->size; i++) {
        sum = (sum ^ (unsigned char)head->data[i]) * 16777619u;
    }
    for (int i = 0; i < 4; i++) {
        head->data[head->size - 4 + (size_t)i] = (char)(sum >> (8 * i));
    }
}

static void encode_for_damage(const char *body, struct event *event, struct buf *head)
{
    assert_int_equal(parse(slice_of(body), event, NULL), ERR_NONE);
    event_set_trace(event, SLICE(TRACEPARENT), SLICE("congo=t61rcWkgMzE"));
    buf_init(head, EVENT_HEAD_MAX);
    event_encode_head(event, head);
}

static void assert_corrupt(struct slice head, struct slice body)
{
    struct event event = {.seq = 77};
    struct error why;
    struct buf room;
    char *copy;
    buf_init(&room, body.size);
    assert_int_equal(decode(head, body, &event, &room, &copy, &why), ERR_CORRUPT);
    assert_int_equal(why.code, ERR_CORRUPT);
    assert_string_equal(why.text, "the stored event is damaged: its head does not fit its body");
    assert_int_equal(event.seq, 77);
    free(copy);
    buf_free(&room);
}

static void any_changed_byte_of_a_head_is_noticed(void **state)
{
    (void)state;
    struct event event;
    struct buf head;
    encode_for_damage(example, &event, &head);
    for (size_t i = 0; i < head.size; i++) {
        for (int change = 1; change < 256; change++) {
            head.data[i] ^= (char)change;
            assert_corrupt(buf_slice(&head), event.body);
            head.data[i] ^= (char)change;
        }
    }
    for (size_t size = 0; size < head.size; size++) {
        assert_corrupt((struct slice){head.data, size}, event.body);
    }
    buf_append_char(&head, 0);
    assert_corrupt(buf_slice(&head), event.body);
    buf_free(&head);
    done();
}

static void a_head_does_not_fit_the_body_of_another_size(void **state)
{
    (void)state;
    struct event event;
    struct buf head;
    encode_for_damage(example, &event, &head);
    assert_corrupt(buf_slice(&head), (struct slice){event.body.data, event.body.size - 1});
    assert_corrupt(buf_slice(&head), (struct slice){NULL, 0});
    buf_free(&head);
    done();
}

static void a_sealed_head_of_a_later_version_is_refused(void **state)
{
    (void)state;
    struct event event;
    struct buf head;
    encode_for_damage(example, &event, &head);
    head.data[0] = 2;
    seal(&head, event.body.size);
    assert_corrupt(buf_slice(&head), event.body);
    buf_free(&head);
    done();
}

static void assert_inside(struct slice s, struct slice whole)
{
    assert_true(s.size == 0 || (s.data >= whole.data && s.data + s.size <= whole.data + whole.size));
}

/* Whatever a sealed head says, an event that comes of it lies within its memory and keeps the rules. */
static void decode_sealed(const struct buf *head, struct slice body)
{
    struct event event;
    struct buf room;
    char *copy;
    buf_init(&room, body.size);
    if (decode(buf_slice(head), body, &event, &room, &copy, NULL) == ERR_NONE) {
        assert_inside(event.payload, body);
        assert_true(event.payload.size > 0 && event.id.size > 0 && event.webhook_id.size > 0);
        assert_true(event.app_id.size > 0 && event.name.size > 0);
        assert_inside(event.traceparent, (struct slice){copy, head->size});
        assert_inside(event.tracestate, (struct slice){copy, head->size});
        uint8_t key[EVENT_KEY_BYTES];
        assert_true(event_key(&event, key)); /* reads all of id and appId */
    }
    free(copy);
    buf_free(&room);
}

static uint32_t random_number(void)
{
    static uint64_t seed = 20241124;
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

static void a_sealed_but_wrong_head_never_leads_out_of_bounds(void **state)
{
    (void)state;
    static const char *const bodies[] = {example, escaped};
    for (int round = 0; round < 40000; round++) {
        struct event event;
        struct buf head;
        encode_for_damage(bodies[round % 2], &event, &head);
        for (uint32_t changes = 1 + random_number() % 4; changes > 0; changes--) {
            head.data[random_number() % (changes % 2 ? 20 : head.size)] = (char)random_number();
        }
        head.size = random_number() % 8 ? head.size : 4 + random_number() % (head.size - 4);
        seal(&head, event.body.size);
        decode_sealed(&head, event.body);
        buf_free(&head);
        done();
    }
}

static void hand_made_heads_are_refused(void **state)
{
    (void)state;
    struct event event;
    struct buf good, head;
    encode_for_damage(example, &event, &good);
    static const struct {
        size_t at, cut;
        struct slice bytes;
    } cases[] = {
        {1, 1, {"\x8a\x00", 2}},                                          /* a number longer than it need be */
        {1, 1, {"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 9}},              /* an offset behind the body */
        {2, 1, {"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 9}},              /* a size beyond the body */
        {1, 1, {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}}, /* a number beyond 64 bits */
        {2, 1, {"\x00", 1}},                                              /* an empty literal */
        {1, 1, {"\x09", 1}},                                              /* a literal beside itself */
        {1, 2, {"\x09\x09", 2}},                                          /* a literal with the space before it */
        {2, 1, {"\x09", 1}},                                              /* a literal with the comma behind it */
        {1, 2, {"\x13\x02", 2}},                                          /* no literal, but white space */
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        buf_init(&head, EVENT_HEAD_MAX);
        buf_append(&head, (struct slice){good.data, cases[i].at});
        buf_append(&head, cases[i].bytes);
        size_t rest = cases[i].at + cases[i].cut;
        buf_append(&head, (struct slice){good.data + rest, good.size - rest});
        seal(&head, event.body.size);
        assert_corrupt(buf_slice(&head), event.body);
        buf_free(&head);
    }
    buf_free(&good);
    done();
}

static void stored_trace_headers_keep_their_form(void **state)
{
    (void)state;
    struct event event;
    struct buf head;
    encode_for_damage(example, &event, &head);
    char *end = head.data + head.size - 4, old = end[-1];
    end[-1] = 0x7f;
    seal(&head, event.body.size);
    assert_corrupt(buf_slice(&head), event.body);
    end[-1] = old;
    seal(&head, event.body.size);
    event_set_trace(&event, SLICE(TRACEPARENT), SLICE(""));
    buf_reset(&head);
    event_encode_head(&event, &head);
    char *parent = memmem(head.data, head.size, TRACEPARENT, strlen(TRACEPARENT));
    assert_non_null(parent);
    parent[0] = parent[1] = 'f';
    seal(&head, event.body.size);
    assert_corrupt(buf_slice(&head), event.body);
    parent[0] = parent[1] = '0';
    seal(&head, event.body.size);
    decode_sealed(&head, event.body);
    buf_append_char(&head, 0); /* a byte more, sealed with the rest */
    seal(&head, event.body.size);
    assert_corrupt(buf_slice(&head), event.body);
    buf_free(&head);
    done();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_is_read_where_it_stands),
        cmocka_unit_test(escaped_names_and_fields_are_unescaped_and_the_payload_is_not),
        cmocka_unit_test(each_member_has_its_rule),
        cmocka_unit_test(an_integer_stands_for_its_digits),
        cmocka_unit_test(the_answer_says_why_a_body_is_no_event),
        cmocka_unit_test(nesting_counts_from_the_outermost_object),
        cmocka_unit_test(no_top_level_member_stands_twice),
        cmocka_unit_test(a_hundred_thousand_members_are_bounded_work),
        cmocka_unit_test(a_scratch_without_room_is_no_memory),
        cmocka_unit_test(a_scratch_serves_one_event_after_the_other),
        cmocka_unit_test(a_good_trace_is_taken_and_a_bad_one_is_not),
        cmocka_unit_test(a_trace_state_is_a_list_of_members),
        cmocka_unit_test(a_trace_state_has_512_bytes_and_32_members_at_most),
        cmocka_unit_test(keys_of_numbers_grow_with_the_number),
        cmocka_unit_test(different_pairs_have_different_keys),
        cmocka_unit_test(the_form_of_an_id_does_not_change_its_key),
        cmocka_unit_test(what_is_stored_is_read_back_the_same),
        cmocka_unit_test(a_label_tells_app_and_name),
        cmocka_unit_test(the_largest_head_keeps_its_bound),
        cmocka_unit_test(a_head_without_room_has_failed),
        cmocka_unit_test(any_changed_byte_of_a_head_is_noticed),
        cmocka_unit_test(a_head_does_not_fit_the_body_of_another_size),
        cmocka_unit_test(a_sealed_head_of_a_later_version_is_refused),
        cmocka_unit_test(a_sealed_but_wrong_head_never_leads_out_of_bounds),
        cmocka_unit_test(hand_made_heads_are_refused),
        cmocka_unit_test(stored_trace_headers_keep_their_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
