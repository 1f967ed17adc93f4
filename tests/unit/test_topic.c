#include "test.h"

#include "meowbridge/topic.h"

#include <stdio.h>
#include <stdlib.h>

static const struct event plain = {.id = {"123456", 6},
                                   .webhook_id = {"1234567", 7},
                                   .app_id = {"12345", 5},
                                   .name = {"workflowTask.completed", 22},
                                   .object_id = {"task_123456", 11}};

/* The topic of "{id}" for this id. */
static void expand_id(struct buf *out, struct slice id)
{
    struct event event = {.id = id};
    buf_reset(out);
    topic_expand(out, SLICE("{id}"), &event);
    assert_false(out->failed);
}

static void expand_name(struct buf *out, struct slice name)
{
    struct event event = {.name = name};
    buf_reset(out);
    topic_expand(out, SLICE("{event}"), &event);
    assert_false(out->failed);
}

static void a_template_is_filled_in_with_every_field(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 1000);
    topic_expand(&out, SLICE("meowflow/{event}"), &plain);
    assert_slice(buf_slice(&out), "meowflow/workflowTask/completed");
    buf_reset(&out);
    topic_expand(&out, SLICE("{appId}/{webhookId}/x{objectId}y/{id}{id}/\xe5\x96\xb5"), &plain);
    assert_slice(buf_slice(&out), "12345/1234567/xtask_123456y/123456123456/\xe5\x96\xb5");
    buf_reset(&out);
    topic_expand(&out, SLICE("no/placeholder"), &plain);
    assert_slice(buf_slice(&out), "no/placeholder");
    buf_reset(&out);
    topic_expand_status(&out, SLICE("meowbridge/{client_id}/status"), SLICE("a.b/$c"));
    assert_slice(buf_slice(&out), "meowbridge/a.b%2F$c/status");
    buf_free(&out);
}

static void what_is_filled_in_stays_in_its_level(void **state)
{
    (void)state;
    static const struct {
        struct slice value;
        const char *topic;
    } cases[] = {
        {{"a/b", 3}, "a%2Fb"},
        {{"a+#%b", 5}, "a%2B%23%25b"},
        {{"$SYS", 4}, "%24SYS"},
        {{"a$b", 3}, "a$b"},
        {{"a.b", 3}, "a.b"},
        {{"a b~", 4}, "a b~"},
        {{"a\0b\x1f\x7f", 5}, "a%00b%1F%7F"},
        {{"\xc2\x80\xc2\x9f\xc2\xa0", 6}, "%C2%80%C2%9F\xc2\xa0"},                            /* C1 and what follows it */
        {{"\xef\xb7\x90\xef\xbf\xbf\xf0\x9f\xbf\xbe", 10}, "%EF%B7%90%EF%BF%BF%F0%9F%BF%BE"}, /* non-characters */
        {{"\xed\xa0\x80\xed\xbf\xbf", 6}, "%ED%A0%80%ED%BF%BF"},                              /* surrogates */
        {{"\xe5\x96\xb5\xf0\x9f\x90\xb1\xef\xbb\xbf", 10}, "\xe5\x96\xb5\xf0\x9f\x90\xb1\xef\xbb\xbf"},
        {{"\xff\xe5\x96|\x80", 5}, "%FF%E5%96|%80"}, /* no UTF-8 */
        {{"", 0}, ""},
    };
    struct buf out;
    buf_init(&out, 1000);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expand_id(&out, cases[i].value);
        assert_slice(buf_slice(&out), cases[i].topic);
    }
    buf_free(&out);
}

static void only_the_dots_of_the_event_name_become_levels(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 1000);
    expand_name(&out, SLICE("$a.b/c..d."));
    assert_slice(buf_slice(&out), "%24a/b%2Fc//d/");
    struct event event = {.name = SLICE("a.b"), .object_id = SLICE("c.d")};
    buf_reset(&out);
    topic_expand(&out, SLICE("e.f/{event}/{objectId}"), &event);
    assert_slice(buf_slice(&out), "e.f/a/b/c.d");
    buf_free(&out);
}

/* Reads a topic back: %XX, and '/' to '.' where it is an event's name. */
static void decode(struct buf *out, struct slice topic, bool is_name)
{
    buf_reset(out);
    for (size_t i = 0; i < topic.size; i++) {
        uint8_t byte = (uint8_t)topic.data[i];
        if (byte == '%') {
            assert_true(i + 2 < topic.size);
            assert_true(hex_decode((struct slice){topic.data + i + 1, 2}, &byte, 1));
            i += 2;
        } else if (is_name && byte == '/') {
            byte = '.';
        }
        buf_append_char(out, (char)byte);
    }
}

static void assert_legal_in_a_topic(struct slice topic, bool is_name)
{
    assert_false(slice_starts(topic, SLICE("$")));
    for (size_t at = 0; at < topic.size;) {
        uint32_t c;
        size_t length = utf8_decode((struct slice){topic.data + at, topic.size - at}, &c);
        assert_int_not_equal(length, 0);
        assert_false(utf8_is_forbidden_in_mqtt(c));
        assert_true(c != '+' && c != '#' && (is_name || c != '/'));
        at += length;
    }
}

static uint32_t random_state = 2463534242u;

static uint32_t random_below(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % n;
}

/* Pieces that could be confused with what the encoding makes of each other. */
static const struct slice pieces[] = {
    {"%", 1},
    {"2", 1},
    {"F", 1},
    {"/", 1},
    {".", 1},
    {"$", 1},
    {"+", 1},
    {"#", 1},
    {"\0", 1},
    {"%2F", 3},
    {"%25", 3},
    {"\x7f", 1},
    {"\xc2\x85", 2},
    {"\xed\xa0\x80", 3},
    {"\xed\xb0\x80", 3},
    {"\xef\xbf\xbf", 3},
    {"\xe5\x96\xb5", 3},
    {"\xf0\x9f\x90\xb1", 4},
    {"\xe5", 1},
    {"\x96", 1},
    {"a", 1},
    {" ", 1},
};
enum { PIECES = sizeof pieces / sizeof pieces[0] };

static void every_topic_is_legal_and_can_be_read_back_to_its_value(void **state)
{
    (void)state;
    struct buf value, topic, back;
    buf_init(&value, 1000);
    buf_init(&topic, 1000);
    buf_init(&back, 1000);
    for (int round = 0; round < 60000; round++) {
        buf_reset(&value);
        for (uint32_t n = random_below(9); n > 0; n--) {
            char any = (char)random_below(256);
            buf_append(&value, random_below(4) ? pieces[random_below(PIECES)] : (struct slice){&any, 1});
        }
        bool is_name = round % 2;
        (is_name ? expand_name : expand_id)(&topic, buf_slice(&value));
        assert_legal_in_a_topic(buf_slice(&topic), is_name);
        decode(&back, buf_slice(&topic), is_name);
        assert_true(slice_equal(buf_slice(&back), buf_slice(&value)));
    }
    buf_free(&value);
    buf_free(&topic);
    buf_free(&back);
}

struct pair {
    struct slice value, topic;
};

static int by_topic(const void *a, const void *b)
{
    struct slice x = ((const struct pair *)a)->topic, y = ((const struct pair *)b)->topic;
    int order = memcmp(x.data, y.data, x.size < y.size ? x.size : y.size);
    return order ? order : (x.size > y.size) - (x.size < y.size);
}

/* All strings of three pieces: neighbours in the order of topics have different topics or one value. */
static void different_values_never_share_a_topic(void **state)
{
    (void)state;
    enum { COUNT = PIECES * PIECES * PIECES };
    struct pair *pairs = calloc(COUNT, sizeof *pairs);
    struct buf value, topic;
    buf_init(&value, 1000);
    buf_init(&topic, 1000);
    for (int is_name = 0; is_name < 2; is_name++) {
        for (size_t i = 0; i < COUNT; i++) {
            buf_reset(&value);
            buf_append(&value, pieces[i % PIECES]);
            buf_append(&value, pieces[i / PIECES % PIECES]);
            buf_append(&value, pieces[i / PIECES / PIECES]);
            (is_name ? expand_name : expand_id)(&topic, buf_slice(&value));
            pairs[i] = (struct pair){{slice_dup(buf_slice(&value)), value.size}, {slice_dup(buf_slice(&topic)), topic.size}};
        }
        qsort(pairs, COUNT, sizeof *pairs, by_topic);
        for (size_t i = 1; i < COUNT; i++) {
            assert_true(slice_equal(pairs[i - 1].value, pairs[i].value) || !slice_equal(pairs[i - 1].topic, pairs[i].topic));
        }
        for (size_t i = 0; i < COUNT; i++) {
            free((char *)pairs[i].value.data);
            free((char *)pairs[i].topic.data);
        }
    }
    free(pairs);
    buf_free(&value);
    buf_free(&topic);
}

static void huge_values_are_seen_to_be_too_long_and_cost_no_more_than_promised(void **state)
{
    (void)state;
    enum { HUGE = 1 << 20 };
    char *text = malloc(HUGE);
    memset(text, '/', HUGE);
    struct event event = {.id = {text, HUGE}};
    struct buf template, out;
    buf_init(&template, TOPIC_MAX_BYTES);
    buf_init(&out, 320 << 10);
    for (int i = 0; i < 1000; i++) {
        buf_append_text(&template, "{id}");
    }
    topic_expand(&out, buf_slice(&template), &event);
    assert_false(out.failed);
    assert_true(out.size > TOPIC_MAX_BYTES);
    buf_reset(&out);
    topic_append_mqtt_text(&out, event.id);
    assert_int_equal(out.size, TOPIC_MAX_BYTES + 1);
    buf_reset(&out);
    topic_append_uri_segment(&out, event.id);
    assert_int_equal(out.size, 3 * (TOPIC_MAX_BYTES + 1));
    buf_free(&template);
    buf_free(&out);
    free(text);
}

static void a_topic_may_be_exactly_as_long_as_mqtt_allows(void **state)
{
    (void)state;
    char *text = malloc(TOPIC_MAX_BYTES + 1);
    memset(text, 'a', TOPIC_MAX_BYTES + 1);
    struct buf out;
    buf_init(&out, 1 << 20);
    expand_id(&out, (struct slice){text, TOPIC_MAX_BYTES});
    assert_int_equal(out.size, TOPIC_MAX_BYTES);
    expand_id(&out, (struct slice){text, TOPIC_MAX_BYTES + 1});
    assert_int_equal(out.size, TOPIC_MAX_BYTES + 1);
    struct error why;
    assert_int_equal(topic_check_template((struct slice){text, TOPIC_MAX_BYTES}, &why), ERR_NONE);
    assert_int_equal(topic_check_template((struct slice){text, TOPIC_MAX_BYTES + 1}, &why), ERR_INVALID);
    assert_string_equal(why.text, "a topic of 65536 bytes is too long, MQTT allows 65535");
    buf_free(&out);
    free(text);
}

static void a_full_buffer_fails_without_harm(void **state)
{
    (void)state;
    for (size_t limit = 0; limit < 22; limit++) {
        struct buf out;
        buf_init(&out, limit);
        topic_expand(&out, SLICE("{event}"), &plain);
        assert_int_equal(out.failed, limit < 22);
        buf_free(&out);
    }
}

static void only_what_mqtt_forbids_is_encoded_in_a_property(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 1000);
    topic_append_mqtt_text(&out, (struct slice){"$a/b+#%\0\n\x7f\xc2\x85\xed\xa0\x80\xef\xbf\xbe\xe5\x96\xb5\xff", 22});
    assert_slice(buf_slice(&out), "$a/b+#%%00%0A%7F%C2%85%ED%A0%80%EF%BF%BE\xe5\x96\xb5%FF");
    buf_free(&out);
}

static void only_unreserved_characters_stay_in_a_uri(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 1000);
    for (int c = 0; c < 256; c++) {
        char byte = (char)c, expected[4] = {byte, 0};
        bool stays = c && strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", c);
        if (!stays) {
            snprintf(expected, sizeof expected, "%%%02X", c);
        }
        buf_reset(&out);
        topic_append_uri_segment(&out, (struct slice){&byte, 1});
        assert_slice(buf_slice(&out), expected);
    }
    buf_reset(&out);
    topic_append_uri_segment(&out, SLICE("app \xe5\x96\xb5/1"));
    assert_slice(buf_slice(&out), "app%20%E5%96%B5%2F1");
    buf_free(&out);
}

static void assert_refused(enum err (*check)(struct slice, struct error *), struct slice template, const char *sentence)
{
    struct error why = {0};
    assert_int_equal(check(template, &why), ERR_INVALID);
    assert_int_equal(why.code, ERR_INVALID);
    assert_string_equal(why.text, sentence);
    assert_int_equal(check(template, NULL), ERR_INVALID);
}

static void a_wrong_template_is_refused_with_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        struct slice template;
        const char *sentence;
    } cases[] = {
        {{NULL, 0}, "a topic must not be empty"},
        {{"a/+/b", 5}, "'+' at byte 3 is a wildcard, and a topic to publish to may not hold one"},
        {{"a/#", 3}, "'#' at byte 3 is a wildcard, and a topic to publish to may not hold one"},
        {{"a\0b", 3}, "U+0000 at byte 2 is not allowed in a topic"},
        {{"a\nb", 3}, "U+000A at byte 2 is not allowed in a topic"},
        {{"\xc2\x85", 2}, "U+0085 at byte 1 is not allowed in a topic"},
        {{"\xed\xa0\x80", 3}, "U+D800 at byte 1 is not allowed in a topic"},
        {{"ab\xff", 3}, "byte 3 of the topic is not UTF-8"},
        {{"a/{event", 8}, "the '{' at byte 3 has no '}'"},
        {{"{ev{id}", 7}, "the '{' at byte 1 has no '}'"},
        {{"{", 1}, "the '{' at byte 1 has no '}'"},
        {{"a}", 2}, "the '}' at byte 2 ends no placeholder"},
        {{"{id}}", 5}, "the '}' at byte 5 ends no placeholder"},
        {{"{evnt}", 6}, "unknown placeholder {evnt}, did you mean {event}?"},
        {{"{id}/{EVENT}", 12}, "unknown placeholder {EVENT}, did you mean {event}?"},
        {{"{app_id}", 8}, "unknown placeholder {app_id}, did you mean {appId}?"},
        {{"{webhook}", 9}, "unknown placeholder {webhook}, did you mean {webhookId}?"},
        {{"{object}", 8}, "unknown placeholder {object}, did you mean {objectId}?"},
        {{"{}", 2}, "unknown placeholder {}, did you mean {id}?"},
        {{"{ id }", 6}, "unknown placeholder { id }, did you mean {id}?"},
        {{"{client_id}", 11}, "unknown placeholder {client_id}, did you mean {objectId}?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_refused(topic_check_template, cases[i].template, cases[i].sentence);
    }
    assert_refused(topic_check_status_template, SLICE("{clientId}"),
                   "unknown placeholder {clientId}, did you mean {client_id}?");
    assert_refused(topic_check_status_template, SLICE("{event}"), "unknown placeholder {event}, did you mean {client_id}?");
    assert_refused(topic_check_status_template, SLICE(""), "a topic must not be empty");
}

static void a_long_unknown_placeholder_is_quoted_in_part_and_in_whole_characters(void **state)
{
    (void)state;
    char template[302] = "{a";
    for (size_t i = 2; i < 299; i += 3) {
        memcpy(template + i, "\xe5\x96\xb5", 3);
    }
    template[299] = '}';
    struct error why;
    assert_int_equal(topic_check_template(slice_of(template), &why), ERR_INVALID);
    char expected[200];
    snprintf(expected, sizeof expected, "unknown placeholder {%.64s…}, did you mean {appId}?", template + 1);
    assert_string_equal(why.text, expected);
    memmove(template + 1, template + 2, 299); /* now the 64th byte is inside a character */
    assert_int_equal(topic_check_template(slice_of(template), &why), ERR_INVALID);
    snprintf(expected, sizeof expected, "unknown placeholder {%.63s…}, did you mean {event}?", template + 1);
    assert_string_equal(why.text, expected);
}

static void a_right_template_passes(void **state)
{
    (void)state;
    static const char *const good[] = {"meowflow/{event}", "{event}{appId}{webhookId}{objectId}{id}", "/",
                                       "a b/\xe5\x96\xb5/100%", "$aws/rules/meow/{event}"};
    struct error why;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(topic_check_template(slice_of(good[i]), &why), ERR_NONE);
    }
    assert_int_equal(topic_check_status_template(SLICE("meowbridge/{client_id}/status"), &why), ERR_NONE);
    assert_int_equal(topic_check_status_template(SLICE("meowbridge"), &why), ERR_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_template_is_filled_in_with_every_field),
        cmocka_unit_test(what_is_filled_in_stays_in_its_level),
        cmocka_unit_test(only_the_dots_of_the_event_name_become_levels),
        cmocka_unit_test(every_topic_is_legal_and_can_be_read_back_to_its_value),
        cmocka_unit_test(different_values_never_share_a_topic),
        cmocka_unit_test(huge_values_are_seen_to_be_too_long_and_cost_no_more_than_promised),
        cmocka_unit_test(a_topic_may_be_exactly_as_long_as_mqtt_allows),
        cmocka_unit_test(a_full_buffer_fails_without_harm),
        cmocka_unit_test(only_what_mqtt_forbids_is_encoded_in_a_property),
        cmocka_unit_test(only_unreserved_characters_stay_in_a_uri),
        cmocka_unit_test(a_wrong_template_is_refused_with_what_is_wrong),
        cmocka_unit_test(a_long_unknown_placeholder_is_quoted_in_part_and_in_whole_characters),
        cmocka_unit_test(a_right_template_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
