#include "test.h"

#include "meowbridge/clock.h"
#include "meowbridge/err.h"
#include "meowbridge/log.h"
#include "meowbridge/rfc3339.h"

#include <stdlib.h>
#include <unistd.h>

static void a_buffer_grows_up_to_its_limit_and_then_fails_whole(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 8);
    buf_append_text(&b, "12345");
    buf_append_text(&b, "6789");
    assert_true(b.failed);
    assert_slice(buf_slice(&b), "12345");
    buf_append_text(&b, "6");
    assert_slice(buf_slice(&b), "12345"); /* failed stays failed */
    buf_reset(&b);
    buf_appendf(&b, "%d", 12345678);
    assert_false(b.failed);
    assert_slice(buf_slice(&b), "12345678");
    buf_free(&b);
}

static void a_taken_buffer_is_a_string_even_when_nothing_was_appended(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 8);
    char *text = buf_take(&b);
    assert_string_equal(text, "");
    free(text);
}

static void numbers_are_digits_without_overflow(void **state)
{
    (void)state;
    uint64_t value = 7;
    assert_true(slice_to_u64(SLICE("18446744073709551615"), &value));
    assert_true(value == UINT64_MAX);
    assert_false(slice_to_u64(SLICE("18446744073709551616"), &value));
    assert_false(slice_to_u64(SLICE(""), &value));
    assert_false(slice_to_u64(SLICE("1x"), &value));
    assert_false(slice_to_u64(SLICE("-1"), &value));
    assert_false(slice_to_u64(SLICE("000000000000000000001"), &value));
}

static void letters_are_compared_without_case_up_to_the_last_byte(void **state)
{
    (void)state;
    assert_true(slice_equal_nocase(SLICE("Content-Length"), SLICE("cONTENT-lENGTH")));
    assert_true(slice_equal_nocase((struct slice){0}, SLICE("")));
    assert_false(slice_equal_nocase(SLICE("a"), SLICE("ab")));
    assert_false(slice_equal_nocase(SLICE("a\0b"), SLICE("a\0c")));
    assert_false(slice_equal_nocase(SLICE("["), SLICE("{")));
    assert_false(slice_equal_nocase(SLICE("\xc3\x84"), SLICE("\xc3\xa4")));
}

static void a_prefix_is_plain_up_to_the_first_byte_that_is_not(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        const bool is_plain = byte >= 0x20 && byte <= 0x7e;
        for (size_t size = 0; size <= 20; size++) {
            for (size_t at = 0; at < size; at++) {
                char text[20];
                memset(text, at % 2 ? ' ' : '~', sizeof text);
                text[at] = (char)byte;
                assert_int_equal(slice_plain_prefix((struct slice){text, size}), is_plain ? size : at);
            }
        }
    }
    assert_int_equal(slice_plain_prefix((struct slice){NULL, 0}), 0);
}

static void the_distance_of_two_words_counts_slips_of_the_finger(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        size_t distance;
    } cases[] = {{"", "", 0},         {"", "abc", 3},          {"abc", "", 3},         {"send", "SEND", 0},
                 {"sedn", "send", 1}, {"srve", "serve", 1},    {"checkk", "check", 1}, {"sigh", "sign", 1},
                 {"ca", "abc", 3},    {"kitten", "sitting", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(slice_distance(slice_of(cases[i].a), slice_of(cases[i].b)), cases[i].distance);
    }
    char longest[SLICE_DISTANCE_MAX + 1];
    memset(longest, 'x', sizeof longest);
    assert_int_equal(slice_distance((struct slice){longest, SLICE_DISTANCE_MAX}, SLICE("x")), SLICE_DISTANCE_MAX - 1);
    assert_true(slice_distance((struct slice){longest, SLICE_DISTANCE_MAX + 1}, SLICE("x")) == SIZE_MAX);
}

static void hex_takes_either_case_and_the_exact_length_only(void **state)
{
    (void)state;
    uint8_t bytes[2];
    assert_true(hex_decode(SLICE("aB09"), bytes, 2));
    assert_int_equal(bytes[0], 0xab);
    assert_int_equal(bytes[1], 0x09);
    assert_false(hex_decode(SLICE("ab0"), bytes, 2));
    assert_false(hex_decode(SLICE("ab0g"), bytes, 2));
    assert_false(hex_decode(SLICE("ab090"), bytes, 2));
    char text[4];
    hex_encode(bytes, 2, text);
    assert_memory_equal(text, "ab09", 4);
}

static void utf8_is_decoded_strictly_but_for_surrogates(void **state)
{
    (void)state;
    uint32_t c;
    assert_int_equal(utf8_decode(SLICE("\xe5\x96\xb5"), &c), 3);
    assert_int_equal(c, 0x55b5);
    assert_int_equal(utf8_decode(SLICE("\xf4\x8f\xbf\xbf"), &c), 4);
    assert_int_equal(c, 0x10ffff);
    assert_int_equal(utf8_decode(SLICE("\xed\xa0\x80"), &c), 3);
    assert_int_equal(c, 0xd800);
    static const char *const bad[] = {
        "\x80",     "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
        "\xe5\x96", "\xff",     ""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(utf8_decode(slice_of(bad[i]), &c), 0);
    }
    for (uint32_t point = 0; point <= 0x10ffff; point += point < 0x11000 ? 1 : 97) {
        char text[4];
        size_t size = utf8_encode(point, text);
        assert_int_equal(utf8_decode((struct slice){text, size}, &c), size);
        assert_int_equal(c, point);
    }
}

static void mqtt_forbids_controls_surrogates_and_non_characters(void **state)
{
    (void)state;
    static const uint32_t forbidden[] = {0,      0x1f,   0x7f,   0x80,   0x9f,    0xd800,  0xdfff,
                                         0xfdd0, 0xfdef, 0xfffe, 0xffff, 0x1fffe, 0x10ffff};
    static const uint32_t allowed[] = {' ', '~', 0xa0, 0xd7ff, 0xe000, 0xfdcf, 0xfdf0, 0xfffd, 0xfeff, 0x10000, 0x10fffd};
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++) {
        assert_true(utf8_is_forbidden_in_mqtt(forbidden[i]));
    }
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++) {
        assert_false(utf8_is_forbidden_in_mqtt(allowed[i]));
    }
}

static void json_strings_escape_what_must_be_and_nothing_else(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    buf_append_json_string(&b, (struct slice){"a\"\\/\n\x01\0\xe5\x96\xb5\xed\xa0\x80\xff", 14});
    assert_slice(buf_slice(&b), "\"a\\\"\\\\/\\n\\u0001\\u0000\xe5\x96\xb5\\ud800\\ufffd\"");
    buf_reset(&b);
    buf_append_json_string(&b, SLICE("\x7e\x7f\xc2\x80\xc2\x9b\xc2\x9f\xc2\xa0")); /* DEL and C1, which terminals obey */
    assert_slice(buf_slice(&b), "\"~\\u007f\\u0080\\u009b\\u009f\xc2\xa0\"");
    buf_free(&b);
}

static void times_are_rfc_3339_with_milliseconds(void **state)
{
    (void)state;
    char text[CLOCK_RFC3339_SIZE];
    clock_rfc3339(1725105600007, text);
    assert_string_equal(text, "2024-08-31T12:00:00.007Z");
    clock_rfc3339(-1, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999Z");
    clock_rfc3339(INT64_MAX, text);
    assert_string_equal(text, "9999-12-31T23:59:59.999Z");
}

static void a_time_that_is_printed_is_read_back(void **state)
{
    (void)state;
    for (int64_t ms = -62167219200000; ms < 253402300800000; ms += 86399987654) {
        char text[CLOCK_RFC3339_SIZE];
        int64_t read_ms = 0;
        clock_rfc3339(ms, text);
        assert_true(rfc3339_parse(slice_of(text), &read_ms));
        assert_int_equal(read_ms, ms);
    }
}

static void a_time_is_read_in_every_form_of_rfc_3339_and_in_no_other(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01t00:00:00z", 0},
        {"1970-01-01T08:00:00.5+08:00", 500},
        {"1969-12-31T23:30:00.0019-00:30", 1},
        {"2000-02-29T00:00:00Z", 951782400000},
        {"2016-12-31T23:59:60Z", 1483228800000},
    };
    static const char *const bad[] = {"",
                                      "now",
                                      "1970-01-01",
                                      "1970-01-01T00:00:00",
                                      "1970-01-01 00:00:00Z",
                                      "1900-02-29T00:00:00Z",
                                      "1970-01-01T24:00:00Z",
                                      "1970-01-01T00:00:00.Z",
                                      "1970-01-01T00:00:00Z ",
                                      "1970-01-01T12:00:60Z"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t ms = -1;
        assert_true(rfc3339_parse(slice_of(good[i].text), &ms));
        assert_int_equal(ms, good[i].ms);
        assert_true(rfc3339_parse(slice_of(good[i].text), NULL));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t ms = -1;
        assert_false(rfc3339_parse(slice_of(bad[i]), &ms));
        assert_int_equal(ms, -1);
    }
}

static void an_error_is_one_line_and_takes_prefixes(void **state)
{
    (void)state;
    struct error why;
    assert_int_equal(error_set(&why, ERR_IO, "cannot open %s\nnow", "x"), ERR_IO);
    assert_string_equal(why.text, "cannot open x now");
    assert_int_equal(error_prefix(&why, "journal"), ERR_IO);
    assert_string_equal(why.text, "journal: cannot open x now");
    assert_int_equal(error_set(NULL, ERR_FULL, "nobody listens"), ERR_FULL);
}

/* Runs emit with standard error in a pipe and returns what was written. */
static size_t captured(char *out, size_t size, void (*emit)(void))
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int kept = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    emit();
    dup2(kept, STDERR_FILENO);
    close(kept);
    ssize_t n = read(ends[0], out, size - 1);
    close(ends[0]);
    assert_true(n >= 0);
    out[n] = 0;
    return (size_t)n;
}

static void emit_line(void)
{
    log_debug("not at this level");
    log_info("taken", LOG_STR("event", "a b"), LOG_STR("id", "7"), LOG_INT("seq", 12), LOG_SLICE("none", ((struct slice){0})));
}

static void emit_bare(void)
{
    log_warn("nothing to add");
}

static void a_log_line_is_text_or_json_on_one_line(void **state)
{
    (void)state;
    char text[1024];
    log_open(LOG_INFO, LOG_TEXT);
    captured(text, sizeof text, emit_line);
    assert_string_equal(text + 24, " INFO taken event=\"a b\" id=7 seq=12 none=\"\"\n");
    captured(text, sizeof text, emit_bare);
    assert_string_equal(text + 24, " WARN nothing to add\n");
    log_open(LOG_INFO, LOG_JSON);
    captured(text, sizeof text, emit_line);
    assert_non_null(
        strstr(text, ",\"level\":\"info\",\"message\":\"taken\",\"event\":\"a b\",\"id\":\"7\",\"seq\":12,\"none\":\"\"}\n"));
    log_set_level(LOG_ERROR);
    assert_int_equal(captured(text, sizeof text, emit_line), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_buffer_grows_up_to_its_limit_and_then_fails_whole),
        cmocka_unit_test(a_taken_buffer_is_a_string_even_when_nothing_was_appended),
        cmocka_unit_test(numbers_are_digits_without_overflow),
        cmocka_unit_test(letters_are_compared_without_case_up_to_the_last_byte),
        cmocka_unit_test(a_prefix_is_plain_up_to_the_first_byte_that_is_not),
        cmocka_unit_test(the_distance_of_two_words_counts_slips_of_the_finger),
        cmocka_unit_test(hex_takes_either_case_and_the_exact_length_only),
        cmocka_unit_test(utf8_is_decoded_strictly_but_for_surrogates),
        cmocka_unit_test(mqtt_forbids_controls_surrogates_and_non_characters),
        cmocka_unit_test(json_strings_escape_what_must_be_and_nothing_else),
        cmocka_unit_test(times_are_rfc_3339_with_milliseconds),
        cmocka_unit_test(a_time_that_is_printed_is_read_back),
        cmocka_unit_test(a_time_is_read_in_every_form_of_rfc_3339_and_in_no_other),
        cmocka_unit_test(an_error_is_one_line_and_takes_prefixes),
        cmocka_unit_test(a_log_line_is_text_or_json_on_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
