#include "test.h"

#include "meowbridge/route.h"
#include "meowbridge/topic.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define PAYLOAD "{\"n\": 152066840347062275, \"s\":\"\\u55b5\\/\" }"

/* A route holds text of its owner, which the table only reads. */
#define TEXT(literal) ((char *)(literal))

static const struct event guide = {
    .id = {"123456", 6},
    .webhook_id = {"1234567", 7},
    .app_id = {"12345", 5},
    .name = {"workflowTask.completed", 22},
    .object_id = {"task_123456", 11},
    .push_time = {"2024-08-31T12:00:00Z", 20},
    .payload = {PAYLOAD, sizeof PAYLOAD - 1},
    .body = {"the whole body", 14},
    .accepted_ms = 1725105600000,
};

static struct route_table *table_of(const struct route *routes, size_t count)
{
    struct route_table *table;
    struct error why;
    assert_int_equal(route_table_open(&table, routes, count, &why), ERR_NONE);
    return table;
}

static char *one_topic[] = {TEXT("t/{id}")};

static struct route_table *table_with(enum route_body body, int64_t expiry_ms)
{
    return table_of(&(struct route){TEXT("*"), one_topic, 1, 1, false, expiry_ms, body, ROUTE_DELIVER}, 1);
}

/* Topics, then properties as name=value, joined by a space. */
static const char *shown(const struct message_list *list)
{
    static char text[2000];
    size_t size = 0;
    for (size_t i = 0; i < list->count; i++) {
        size += (size_t)snprintf(text + size, sizeof text - size, "%.*s ", SLICE_ARGS(list->items[i].topic));
        assert_ptr_equal(list->items[i].properties, list->properties);
        assert_int_equal(list->items[i].property_count, list->property_count);
    }
    for (size_t i = 0; i < list->property_count; i++) {
        size += (size_t)snprintf(text + size, sizeof text - size, "%.*s=%.*s ", SLICE_ARGS(list->properties[i].name),
                                 SLICE_ARGS(list->properties[i].value));
    }
    text[size ? size - 1 : 0] = 0;
    return text;
}

static struct slice property(const struct message_list *list, const char *name)
{
    for (size_t i = 0; i < list->property_count; i++) {
        if (slice_equal(list->properties[i].name, slice_of(name))) {
            return list->properties[i].value;
        }
    }
    return (struct slice){0};
}

/* Tables */

static void without_routes_there_is_the_default_one(void **state)
{
    (void)state;
    struct route_table *table = table_of(NULL, 0);
    struct message_list list;
    message_list_init(&list);
    assert_int_equal(route_render(table, &guide, guide.accepted_ms, &list), ROUTE_OK);
    assert_string_equal(shown(&list), "meowflow/workflowTask/completed specversion=1.0 id=123456 "
                                      "source=https://meowflow.com.cn/apps/12345 "
                                      "type=cn.com.meowflow.workflowTask.completed subject=task_123456 "
                                      "time=2024-08-31T12:00:00Z appid=12345 webhookid=1234567");
    const struct message *message = &list.items[0];
    assert_int_equal(message->qos, 1);
    assert_false(message->retain);
    assert_int_equal(message->expiry_s, 0);
    assert_int_equal(message->unheard, ROUTE_DELIVER);
    assert_slice(message->content_type, "application/json");
    assert_slice(message->payload, PAYLOAD);
    message_list_free(&list);
    route_table_unref(&table);
}

static void a_table_keeps_nothing_of_what_it_was_made_from(void **state)
{
    (void)state;
    char event[] = "a.*", topic[] = "first", *topics[] = {topic};
    struct route route = {event, topics, 1, 2, true, 0, ROUTE_ENVELOPE, ROUTE_DEAD};
    struct route_table *table = table_of(&route, 1);
    memset(event, '*', 3);
    memset(topic, '#', 5);
    topics[0] = NULL;
    route.qos = 7;
    struct event changed = guide;
    changed.name = SLICE("a.b");
    struct message_list list;
    message_list_init(&list);
    assert_int_equal(route_render(table, &guide, 0, &list), ROUTE_NO_MATCH);
    assert_int_equal(route_render(table, &changed, 0, &list), ROUTE_OK);
    assert_slice(list.items[0].topic, "first");
    assert_slice(list.items[0].payload, "the whole body");
    assert_int_equal(list.items[0].qos, 2);
    assert_true(list.items[0].retain);
    assert_int_equal(list.items[0].unheard, ROUTE_DEAD);
    message_list_free(&list);
    route_table_unref(&table);
}

static void more_topics_than_a_list_holds_are_refused(void **state)
{
    (void)state;
    char *topics[ROUTE_MAX_MESSAGES];
    for (size_t i = 0; i < ROUTE_MAX_MESSAGES; i++) {
        topics[i] = TEXT("t");
    }
    struct route routes[] = {{.event = TEXT("*"), .topics = topics, .topic_count = ROUTE_MAX_MESSAGES - 1},
                             {.event = TEXT("*"), .topics = topics, .topic_count = 2}};
    struct route_table *table = (struct route_table *)&routes;
    struct error why;
    assert_int_equal(route_table_open(&table, routes, 2, &why), ERR_CONFIG);
    assert_string_equal(why.text, "the routes have 65 topics together, at most 64 are allowed");
    assert_null(table);
    routes[1].topic_count = 1;
    table = table_of(routes, 2);
    struct message_list list;
    message_list_init(&list);
    assert_int_equal(route_render(table, &guide, 0, &list), ROUTE_OK);
    assert_int_equal(list.count, ROUTE_MAX_MESSAGES);
    message_list_free(&list);
    route_table_unref(&table);
}

static void *use_and_drop(void *shared)
{
    struct route_table *table = shared;
    for (int i = 0; i < 5000; i++) {
        struct route_table *mine = route_table_ref(table);
        assert_true(route_table_matches(mine, SLICE("x")));
        route_table_unref(&mine);
    }
    route_table_unref(&table);
    return NULL;
}

/* A wrong count is a leak or a use after free, which the sanitizers see. */
static void a_table_lives_until_its_last_holder_drops_it(void **state)
{
    (void)state;
    struct route_table *table = table_of(NULL, 0);
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, use_and_drop, route_table_ref(table)), 0);
    }
    route_table_unref(&table);
    assert_null(table);
    route_table_unref(&table);
    route_table_unref(NULL);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* Patterns */

static bool matches(const char *pattern, struct slice name)
{
    struct route_table *table = table_of(&(struct route){.event = (char *)pattern, .topics = one_topic, .topic_count = 1}, 1);
    bool result = route_table_matches(table, name);
    route_table_unref(&table);
    return result;
}

static void a_star_is_any_run_of_characters_and_all_else_is_literal(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *name;
        bool matches;
    } cases[] = {
        {"*", "", true},
        {"*", "a.b.c", true},
        {"a.*", "a.b.c", true},
        {"a.*", "a.", true},
        {"a.*", "a", false},
        {"a.*", "ba.", false},
        {"*.done", "a.b.done", true},
        {"*.done", ".done", true},
        {"*.done", "done", false},
        {"*.done", "a.done2", false},
        {"a*c", "ac", true},
        {"a*c", "abcbc", true},
        {"a*c", "abcb", false},
        {"a*b*c", "a-b-b-c", true},
        {"a*b*c", "a-c-b", false},
        {"a.b", "a.b", true},
        {"a.b", "axb", false},
        {"a.b", "a.bc", false},
        {"a.b", "A.B", false},
        {"a**b", "ab", true},
        {"a?[b]", "a?[b]", true},
        {"a?[b]", "axb", false},
        {"", "", true},
        {"", "a", false},
        {"*ab*ab", "abab", true},
        {"*ab*ab", "aab", false},
        {"\xe5\x96\xb5*", "\xe5\x96\xb5.x", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(matches(cases[i].pattern, slice_of(cases[i].name)), cases[i].matches);
    }
    assert_true(matches("a*b", (struct slice){"a\0b", 3}));
    assert_false(matches("a", (struct slice){"a\0", 2})); /* a NUL in a name is not the pattern's end */
}

/* What says the same at exponential cost. */
static bool slow_match(const char *pattern, const char *name)
{
    if (*pattern == '*') {
        return slow_match(pattern + 1, name) || (*name && slow_match(pattern, name + 1));
    }
    return *pattern == *name && (*pattern == 0 || slow_match(pattern + 1, name + 1));
}

static void every_short_pattern_matches_as_the_plain_definition_says(void **state)
{
    (void)state;
    for (unsigned p = 0; p < 1024; p++) {
        char pattern[6] = {0};
        for (unsigned i = 0; i < 5; i++) {
            pattern[i] = "ab*\0"[p >> 2 * i & 3];
        }
        struct route_table *table = table_of(&(struct route){.event = pattern, .topics = one_topic, .topic_count = 1}, 1);
        for (unsigned n = 0; n < 729; n++) {
            char name[7] = {0};
            for (unsigned i = 0, rest = n; i < 6; i++, rest /= 3) {
                name[i] = "ab\0"[rest % 3];
            }
            assert_int_equal(route_table_matches(table, slice_of(name)), slow_match(pattern, name));
        }
        route_table_unref(&table);
    }
}

static void a_hostile_name_cannot_make_matching_explode(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20 };
    char *name = malloc(SIZE);
    memset(name, 'a', SIZE);
    assert_false(matches("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", (struct slice){name, SIZE}));
    assert_false(matches("*aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", (struct slice){name, SIZE}));
    free(name);
}

/* Messages */

static void messages_come_route_by_route_and_topic_by_topic(void **state)
{
    (void)state;
    char *two[] = {TEXT("a/{objectId}"), TEXT("b")}, *one[] = {TEXT("c/{appId}")}, *none[] = {TEXT("never")};
    struct route routes[] = {{TEXT("workflowTask.*"), two, 2, 0, false, 0, ROUTE_PAYLOAD, ROUTE_DELIVER},
                             {TEXT("other.*"), none, 1, 1, false, 0, ROUTE_PAYLOAD, ROUTE_DELIVER},
                             {TEXT("*.completed"), one, 1, 2, true, 0, ROUTE_ENVELOPE, ROUTE_DEAD}};
    struct route_table *table = table_of(routes, 3);
    struct message_list list;
    message_list_init(&list);
    assert_int_equal(route_render(table, &guide, 0, &list), ROUTE_OK);
    assert_int_equal(list.count, 3);
    assert_slice(list.items[0].topic, "a/task_123456");
    assert_slice(list.items[1].topic, "b");
    assert_slice(list.items[2].topic, "c/12345");
    assert_int_equal(list.items[1].qos, 0);
    assert_int_equal(list.items[2].qos, 2);
    assert_slice(list.items[1].payload, PAYLOAD);
    assert_ptr_equal(list.items[1].payload.data, guide.payload.data); /* borrowed, not copied */
    assert_slice(list.items[2].payload, "the whole body");
    assert_slice(list.items[2].content_type, "application/json");
    message_list_free(&list);
    route_table_unref(&table);
}

static void slices_stay_good_while_the_buffer_grows(void **state)
{
    (void)state;
    char templates[ROUTE_MAX_MESSAGES][24], *topics[ROUTE_MAX_MESSAGES];
    for (int i = 0; i < ROUTE_MAX_MESSAGES; i++) {
        snprintf(templates[i], sizeof templates[i], "%d/{id}", i);
        topics[i] = templates[i];
    }
    struct route route = {.event = TEXT("*"), .topics = topics, .topic_count = ROUTE_MAX_MESSAGES};
    struct route_table *table = table_of(&route, 1);
    enum { SIZE = TOPIC_MAX_BYTES - 3 };
    char *id = malloc(SIZE);
    memset(id, 'x', SIZE);
    struct event event = guide;
    event.id = (struct slice){id, SIZE};
    struct message_list list;
    message_list_init(&list);
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_OK);
    for (int i = 0; i < ROUTE_MAX_MESSAGES; i++) {
        size_t head = strcspn(templates[i], "{");
        assert_int_equal(list.items[i].topic.size, head + SIZE);
        assert_memory_equal(list.items[i].topic.data, templates[i], head);
        assert_memory_equal(list.items[i].topic.data + head, id, SIZE);
    }
    assert_true(slice_equal(property(&list, "id"), event.id));
    assert_slice(property(&list, "type"), "cn.com.meowflow.workflowTask.completed");
    message_list_free(&list);
    free(id);
    route_table_unref(&table);
}

static void properties_have_their_order_and_empty_ones_are_left_out(void **state)
{
    (void)state;
    struct route_table *table = table_with(ROUTE_PAYLOAD, 0);
    struct message_list list;
    message_list_init(&list);
    struct event event = guide;
    event.traceparent = SLICE("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    event.tracestate = SLICE("a=1,b=2");
    event.is_replay = true;
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_OK);
    assert_string_equal(shown(&list), "t/123456 specversion=1.0 id=123456 source=https://meowflow.com.cn/apps/12345 "
                                      "type=cn.com.meowflow.workflowTask.completed subject=task_123456 "
                                      "time=2024-08-31T12:00:00Z appid=12345 webhookid=1234567 "
                                      "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 "
                                      "tracestate=a=1,b=2 replay=1");
    event = guide;
    event.object_id = event.push_time = (struct slice){0};
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_OK);
    assert_string_equal(shown(&list), "t/123456 specversion=1.0 id=123456 source=https://meowflow.com.cn/apps/12345 "
                                      "type=cn.com.meowflow.workflowTask.completed appid=12345 webhookid=1234567");
    message_list_free(&list);
    route_table_unref(&table);
}

static void forbidden_characters_are_encoded_in_each_property(void **state)
{
    (void)state;
    struct route_table *table = table_with(ROUTE_PAYLOAD, 0);
    struct message_list list;
    message_list_init(&list);
    struct event event = guide;
    event.id = SLICE("1\n%\0");
    event.app_id = SLICE("my app/\xc2\x85");
    event.webhook_id = SLICE("\xed\xa0\x80");
    event.name = SLICE("a.\x7f/b");
    event.object_id = SLICE("\xef\xbf\xbf \xe5\x96\xb5");
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_OK);
    assert_string_equal(shown(&list), "t/1%0A%25%00 specversion=1.0 id=1%0A%%00 "
                                      "source=https://meowflow.com.cn/apps/my%20app%2F%C2%85 type=cn.com.meowflow.a.%7F/b "
                                      "subject=%EF%BF%BF \xe5\x96\xb5 time=2024-08-31T12:00:00Z appid=my app/%C2%85 "
                                      "webhookid=%ED%A0%80");
    message_list_free(&list);
    route_table_unref(&table);
}

static void a_push_time_goes_along_only_if_it_is_an_rfc_3339_time(void **state)
{
    (void)state;
    static const char *const good[] = {
        "2024-08-31T12:00:00Z",      "2024-08-31t12:00:00z",
        "2024-08-31T12:00:00.1Z",    "2024-08-31T12:00:00.123456789012+08:00",
        "2024-02-29T00:00:00Z",      "2000-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",      "9999-12-31T23:59:59-23:59",
        "2024-08-31T12:00:00-00:00", "2016-12-31T23:59:60Z",
        "2016-12-31T23:59:60.5Z",    "1990-12-31T15:59:60-08:00",
        "2017-01-01T07:59:60+08:00", "2015-06-30T23:59:60+00:00",
        "2016-02-29T23:59:60Z",      "2024-04-30T00:00:00Z",
    };
    static const char *const bad[] = {
        "",
        "2024-08-31",
        "2024-08-31T12:00:00",
        "2024-08-31 12:00:00Z",
        "2024-08-31T12:00:00Zx",
        "2024-08-31T12:00:00.Z",
        "2024-08-31T12:00:00,1Z",
        "2024-08-31T12:00Z",
        "2024-08-31T24:00:00Z",
        "2024-08-31T12:60:00Z",
        "2024-08-31T12:00:61Z",
        "2024-00-31T12:00:00Z",
        "2024-13-31T12:00:00Z",
        "2024-08-00T12:00:00Z",
        "2024-08-32T12:00:00Z",
        "2024-04-31T12:00:00Z",
        "2024-02-30T12:00:00Z",
        "2023-02-29T12:00:00Z",
        "1900-02-29T12:00:00Z",
        "2024-08-31T12:00:00+24:00",
        "2024-08-31T12:00:00+08:60",
        "2024-08-31T12:00:00+0800",
        "2024-08-31T12:00:00+08",
        "2024-08-31T12:00:00+08:00Z",
        "2024-08-31T12:00:00*08:00",
        "2024-8-31T12:00:00Z",
        "24-08-31T12:00:00Z",
        "2024-08-31T1a:00:00Z",
        "2024/08/31T12:00:00Z",
        "2024-08-31T12.00.00Z",
        " 2024-08-31T12:00:00Z",
        "1725105600",
        "2016-12-31T12:00:60Z",      /* a leap second ends the day */
        "2016-12-30T23:59:60Z",      /* and the month */
        "2016-12-31T23:59:60+08:00", /* in UTC */
        "2017-01-02T07:59:60+08:00",
    };
    struct route_table *table = table_with(ROUTE_PAYLOAD, 0);
    struct message_list list;
    message_list_init(&list);
    struct event event = guide;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        event.push_time = slice_of(good[i]);
        assert_int_equal(route_render(table, &event, 0, &list), ROUTE_OK);
        assert_slice(property(&list, "time"), good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        event.push_time = slice_of(bad[i]);
        assert_int_equal(route_render(table, &event, 0, &list), ROUTE_OK);
        assert_null(property(&list, "time").data);
    }
    for (size_t size = 0; size < 20; size++) { /* each beginning, without a byte behind it */
        char *text = malloc(size + !size);
        memcpy(text, "2024-08-31T12:00:00Z", size);
        event.push_time = (struct slice){text, size};
        assert_int_equal(route_render(table, &event, 0, &list), ROUTE_OK);
        assert_null(property(&list, "time").data);
        free(text);
    }
    message_list_free(&list);
    route_table_unref(&table);
}

/* Expiry */

static void expiry_is_what_is_left_since_the_acceptance_rounded_up(void **state)
{
    (void)state;
    static const struct {
        int64_t expiry_ms, gone_ms;
        uint32_t left_s; /* 0: expired */
    } cases[] = {
        {60000, 0, 60},
        {60000, 1, 60},
        {60000, 1000, 59},
        {60000, 59000, 1},
        {60000, 59999, 1},
        {60000, 60000, 0},
        {1, 0, 1},
        {1, 1, 0},
        {1001, 0, 2},
        {60000, -5000, 60}, /* the clock was set back */
        {INT64_MAX, 0, UINT32_MAX},
        {4294967295000, 0, UINT32_MAX},
        {4294967294000, 0, 4294967294u},
        {60000, INT64_MAX - 1725105600000, 0},
        {60000, INT64_MIN, 60},
    };
    struct message_list list;
    message_list_init(&list);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct route_table *table = table_with(ROUTE_PAYLOAD, cases[i].expiry_ms);
        enum route_verdict expected = cases[i].left_s ? ROUTE_OK : ROUTE_EXPIRED;
        assert_int_equal(route_render(table, &guide, guide.accepted_ms + cases[i].gone_ms, &list), expected);
        assert_int_equal(list.count, cases[i].left_s ? 1 : 0);
        if (list.count) {
            assert_int_equal(list.items[0].expiry_s, cases[i].left_s);
        }
        route_table_unref(&table);
    }
    message_list_free(&list);
}

static void the_messages_of_a_route_that_has_run_out_keep_their_places_and_say_so(void **state)
{
    (void)state;
    char *first[] = {TEXT("short")}, *second[] = {TEXT("long")}, *third[] = {TEXT("forever")};
    struct route routes[] = {{.event = TEXT("*"), .topics = first, .topic_count = 1, .expiry_ms = 1000},
                             {.event = TEXT("*"), .topics = second, .topic_count = 1, .expiry_ms = 5000},
                             {.event = TEXT("*"), .topics = third, .topic_count = 1}};
    struct route_table *table = table_of(routes, 3);
    struct message_list list;
    message_list_init(&list);
    assert_int_equal(route_render(table, &guide, guide.accepted_ms + 1000, &list), ROUTE_OK);
    static const struct {
        const char *topic;
        bool has_run_out;
        uint32_t expiry_s;
    } expected[] = {{"short", true, 0}, {"long", false, 4}, {"forever", false, 0}};
    assert_int_equal(list.count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_slice(list.items[i].topic, expected[i].topic);
        assert_int_equal(list.items[i].has_run_out, expected[i].has_run_out);
        assert_int_equal(list.items[i].expiry_s, expected[i].expiry_s);
    }
    route_table_unref(&table);
    table = table_of(routes, 2);
    assert_int_equal(route_render(table, &guide, guide.accepted_ms + 5000, &list), ROUTE_EXPIRED);
    message_list_free(&list);
    route_table_unref(&table);
}

/* Verdicts */

static void every_verdict_has_its_sentence(void **state)
{
    (void)state;
    assert_string_equal(route_verdict_text(ROUTE_NO_MATCH), "no route matches");
    assert_string_equal(route_verdict_text(ROUTE_EXPIRED), "expired before it was published");
    for (int verdict = ROUTE_OK; verdict <= ROUTE_NO_MEMORY; verdict++) {
        assert_non_null(route_verdict_text((enum route_verdict)verdict));
        assert_true(strlen(route_verdict_text((enum route_verdict)verdict)) > 5);
    }
}

static void a_topic_that_is_empty_or_too_long_is_the_events_end(void **state)
{
    (void)state;
    char *topics[] = {TEXT("fine"), TEXT("{objectId}")};
    struct route_table *table = table_of(&(struct route){.event = TEXT("*"), .topics = topics, .topic_count = 2}, 1);
    char *text = malloc(TOPIC_MAX_BYTES + 1);
    memset(text, 'x', TOPIC_MAX_BYTES + 1);
    struct message_list list;
    message_list_init(&list);
    struct event event = guide;
    event.object_id = (struct slice){0};
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_TOPIC_EMPTY);
    assert_int_equal(list.count, 0);
    event.object_id = (struct slice){text, TOPIC_MAX_BYTES};
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_OK);
    assert_int_equal(list.count, 2);
    event.object_id = (struct slice){text, TOPIC_MAX_BYTES + 1};
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_TOPIC_TOO_LONG);
    assert_int_equal(list.count, 0);
    assert_int_equal(list.property_count, 0);
    text[0] = '/'; /* too long only when it is encoded */
    event.object_id.size = TOPIC_MAX_BYTES;
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_TOPIC_TOO_LONG);
    message_list_free(&list);
    free(text);
    route_table_unref(&table);
}

static void a_property_that_is_too_long_is_the_events_end(void **state)
{
    (void)state;
    char *topics[] = {TEXT("constant")};
    struct route_table *table = table_of(&(struct route){.event = TEXT("*"), .topics = topics, .topic_count = 1}, 1);
    char *text = malloc(65537);
    memset(text, '0', 65537);
    struct message_list list;
    message_list_init(&list);
    struct slice fits = {text, 65535}, long_by_one = {text, 65536}, long_with_prefix = {text, 65530};
    struct event events[] = {guide, guide, guide, guide, guide, guide};
    events[0].id = events[1].webhook_id = events[2].object_id = long_by_one;
    events[3].app_id = events[4].name = long_with_prefix;
    char *time = malloc(65537);
    memcpy(time, text, 65537);
    memcpy(time, "2024-08-31T12:00:00.", 20);
    time[65535] = 'Z';
    events[5].push_time = (struct slice){time, 65536};
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        assert_int_equal(route_render(table, &events[i], 0, &list), ROUTE_TEXT_TOO_LONG);
        assert_int_equal(list.count, 0);
        assert_int_equal(list.property_count, 0);
    }
    events[0].id = fits;
    assert_int_equal(route_render(table, &events[0], 0, &list), ROUTE_OK);
    assert_int_equal(property(&list, "id").size, 65535);
    message_list_free(&list);
    free(text);
    free(time);
    route_table_unref(&table);
}

/* A limit stands for the memory that is not there. */
static void short_memory_is_told_apart_and_passes(void **state)
{
    (void)state;
    struct route_table *table = table_with(ROUTE_CLOUDEVENT, 0);
    struct message_list list, small;
    message_list_init(&list);
    assert_int_equal(route_render(table, &guide, 0, &list), ROUTE_OK);
    for (size_t limit = 0; limit < list.text.size; limit++) {
        message_list_init(&small);
        small.text.limit = limit;
        assert_int_equal(route_render(table, &guide, 0, &small), ROUTE_NO_MEMORY);
        assert_int_equal(small.count, 0);
        small.text.limit = list.text.size;
        assert_int_equal(route_render(table, &guide, 0, &small), ROUTE_OK);
        message_list_free(&small);
    }
    message_list_init(&small);
    small.cloudevent.limit = list.cloudevent.size;
    assert_int_equal(route_render(table, &guide, 0, &small), ROUTE_NO_MEMORY);
    assert_int_equal(small.count, 0);
    message_list_free(&small);
    message_list_free(&list);
    route_table_unref(&table);
}

/* All that can be too large at once still ends with a final verdict: the event would block the line if it did not. */
static void no_event_is_so_large_that_it_looks_like_short_memory(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20 };
    char *huge = malloc(SIZE), *topics[ROUTE_MAX_MESSAGES];
    memset(huge, 1, SIZE);
    struct buf template;
    buf_init(&template, TOPIC_MAX_BYTES);
    for (size_t i = 0; i < TOPIC_MAX_BYTES; i++) {
        buf_append_char(&template, 'x');
    }
    for (size_t i = 0; i < ROUTE_MAX_MESSAGES; i++) {
        topics[i] = template.data;
    }
    struct route route = {.event = TEXT("*"), .topics = topics, .topic_count = ROUTE_MAX_MESSAGES};
    struct route_table *table = table_of(&route, 1);
    struct event event = guide;
    event.id = event.webhook_id = event.app_id = event.name = event.object_id = (struct slice){huge, SIZE};
    struct message_list list;
    message_list_init(&list);
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_TEXT_TOO_LONG);
    route_table_unref(&table);
    memcpy(template.data + TOPIC_MAX_BYTES - 4, "{id}", 4);
    table = table_of(&route, 1);
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_TOPIC_TOO_LONG);
    message_list_free(&list);
    buf_free(&template);
    free(huge);
    route_table_unref(&table);
}

/* Envelopes */

static void a_cloudevent_holds_the_attributes_and_the_payload_unchanged(void **state)
{
    (void)state;
    char *topics[] = {TEXT("a"), TEXT("b")}, *other[] = {TEXT("c")};
    struct route routes[] = {{.event = TEXT("*"), .topics = topics, .topic_count = 2, .body = ROUTE_CLOUDEVENT},
                             {.event = TEXT("*"), .topics = other, .topic_count = 1},
                             {.event = TEXT("*"), .topics = other, .topic_count = 1, .body = ROUTE_CLOUDEVENT}};
    struct route_table *table = table_of(routes, 3);
    struct message_list list;
    message_list_init(&list);
    struct event event = guide;
    event.object_id = SLICE("a\"\\\x01\xe5\x96\xb5");
    event.traceparent = SLICE("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    event.is_replay = true;
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_OK);
    const char *expected = "{\"specversion\":\"1.0\",\"id\":\"123456\",\"source\":\"https://meowflow.com.cn/apps/12345\","
                           "\"type\":\"cn.com.meowflow.workflowTask.completed\",\"subject\":\"a\\\"\\\\%01\xe5\x96\xb5\","
                           "\"time\":\"2024-08-31T12:00:00Z\",\"datacontenttype\":\"application/json\",\"appid\":\"12345\","
                           "\"webhookid\":\"1234567\","
                           "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\","
                           "\"replay\":\"1\",\"data\":" PAYLOAD "}";
    assert_slice(list.items[0].payload, expected);
    assert_slice(list.items[0].content_type, "application/cloudevents+json");
    assert_ptr_equal(list.items[1].payload.data, list.items[0].payload.data); /* made once */
    assert_ptr_equal(list.items[3].payload.data, list.items[0].payload.data);
    assert_slice(list.items[2].payload, PAYLOAD);
    assert_slice(list.items[2].content_type, "application/json");
    assert_slice(property(&list, "replay"), "1");
    event = guide;
    event.object_id = event.push_time = (struct slice){0};
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_OK);
    assert_slice(list.items[0].payload,
                 "{\"specversion\":\"1.0\",\"id\":\"123456\",\"source\":\"https://meowflow.com.cn/apps/12345\","
                 "\"type\":\"cn.com.meowflow.workflowTask.completed\",\"datacontenttype\":\"application/json\","
                 "\"appid\":\"12345\",\"webhookid\":\"1234567\",\"data\":" PAYLOAD "}");
    message_list_free(&list);
    route_table_unref(&table);
}

/* Memory */

static void rendering_reuses_its_memory(void **state)
{
    (void)state;
    struct route_table *table = table_with(ROUTE_CLOUDEVENT, 0);
    struct message_list list;
    message_list_init(&list);
    assert_int_equal(route_render(table, &guide, 0, &list), ROUTE_OK);
    const struct message_list before = list;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(route_render(table, &guide, 0, &list), ROUTE_OK);
        assert_ptr_equal(list.text.data, before.text.data);
        assert_ptr_equal(list.cloudevent.data, before.cloudevent.data);
        assert_int_equal(list.text.capacity, before.text.capacity);
        assert_int_equal(list.cloudevent.capacity, before.cloudevent.capacity);
    }
    message_list_free(&list);
    route_table_unref(&table);
}

static void a_huge_events_memory_is_given_back_by_the_next(void **state)
{
    (void)state;
    enum { SIZE = 4 << 20 };
    char *payload = malloc(SIZE), *id = malloc(60000), *topics[8];
    memset(payload, '1', SIZE);
    memset(id, '"', 60000); /* each becomes two bytes in JSON */
    for (size_t i = 0; i < 8; i++) {
        topics[i] = TEXT("{id}");
    }
    struct route route = {.event = TEXT("*"), .topics = topics, .topic_count = 8, .body = ROUTE_CLOUDEVENT};
    struct route_table *table = table_of(&route, 1);
    struct event event = guide;
    event.payload = (struct slice){payload, SIZE};
    event.id = (struct slice){id, 60000};
    struct message_list list;
    message_list_init(&list);
    assert_int_equal(route_render(table, &event, 0, &list), ROUTE_OK);
    assert_true(list.cloudevent.capacity > SIZE && list.cloudevent.capacity < SIZE + (1 << 20)); /* not doubled */
    assert_true(list.text.capacity > 256 << 10);
    assert_int_equal(route_render(table, &guide, 0, &list), ROUTE_OK);
    assert_true(list.cloudevent.capacity < 4096);
    assert_true(list.text.capacity < 4096);
    assert_slice(list.items[0].topic, "123456");
    message_list_free(&list);
    free(payload);
    free(id);
    route_table_unref(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_routes_there_is_the_default_one),
        cmocka_unit_test(a_table_keeps_nothing_of_what_it_was_made_from),
        cmocka_unit_test(more_topics_than_a_list_holds_are_refused),
        cmocka_unit_test(a_table_lives_until_its_last_holder_drops_it),
        cmocka_unit_test(a_star_is_any_run_of_characters_and_all_else_is_literal),
        cmocka_unit_test(every_short_pattern_matches_as_the_plain_definition_says),
        cmocka_unit_test(a_hostile_name_cannot_make_matching_explode),
        cmocka_unit_test(messages_come_route_by_route_and_topic_by_topic),
        cmocka_unit_test(slices_stay_good_while_the_buffer_grows),
        cmocka_unit_test(properties_have_their_order_and_empty_ones_are_left_out),
        cmocka_unit_test(forbidden_characters_are_encoded_in_each_property),
        cmocka_unit_test(a_push_time_goes_along_only_if_it_is_an_rfc_3339_time),
        cmocka_unit_test(expiry_is_what_is_left_since_the_acceptance_rounded_up),
        cmocka_unit_test(the_messages_of_a_route_that_has_run_out_keep_their_places_and_say_so),
        cmocka_unit_test(every_verdict_has_its_sentence),
        cmocka_unit_test(a_topic_that_is_empty_or_too_long_is_the_events_end),
        cmocka_unit_test(a_property_that_is_too_long_is_the_events_end),
        cmocka_unit_test(short_memory_is_told_apart_and_passes),
        cmocka_unit_test(no_event_is_so_large_that_it_looks_like_short_memory),
        cmocka_unit_test(a_cloudevent_holds_the_attributes_and_the_payload_unchanged),
        cmocka_unit_test(rendering_reuses_its_memory),
        cmocka_unit_test(a_huge_events_memory_is_given_back_by_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
