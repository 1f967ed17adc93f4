#include "test.h"

#include "meowbridge/err.h"
#include "meowbridge/jsonscan.h"

#include <stdio.h>
#include <stdlib.h>

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

static void count_member(void *ctx, const struct json_value *name, const struct json_value *value)
{
    (void)name;
    (void)value;
    ++*(size_t *)ctx;
}

/* Who is told of the members gets the same verdict. */
static void scan_with_members(struct slice text, enum err expected, size_t expected_offset, const char *expected_why)
{
    struct json_value value;
    size_t offset = expected_offset, count = 0;
    struct error why = {0};
    assert_int_equal(jsonscan_members(text, &value, count_member, &count, &offset, &why), expected);
    assert_int_equal(offset, expected_offset);
    assert_string_equal(why.text, expected_why);
}

/* Where eight bytes more follow, words are looked at instead of bytes. What is wrong with the text stays so, and so does what is
 * right with it, if all that follows is white space. */
static void scan_in_words(struct slice text, enum err expected, size_t expected_offset, const char *expected_why)
{
    enum { MORE = 16 };
    char *longer = malloc(text.size + MORE);
    assert_non_null(longer);
    memcpy(longer, text.size ? text.data : "", text.size);
    memset(longer + text.size, ' ', MORE);
    struct json_value value;
    size_t offset = expected_offset;
    struct error why = {0};
    enum err err = jsonscan_document((struct slice){longer, text.size + MORE}, &value, &offset, &why);
    if (expected_offset < text.size) {
        assert_int_equal(err, expected);
        assert_int_equal(offset, expected_offset);
        assert_string_equal(why.text, expected_why);
    } else {
        assert_true(offset >= expected_offset); /* the text was cut short */
    }
    free(longer);
}

/* A scalar is a document of one literal with nothing around it. document: NULL if the text is none. */
static void scan_as_scalar(struct slice text, const struct json_value *document)
{
    struct json_value value = {0};
    bool is_scalar =
        document && document->type != JSON_ARRAY && document->type != JSON_OBJECT && document->text.size == text.size;
    assert_int_equal(jsonscan_scalar(text, &value), is_scalar);
    if (is_scalar) {
        assert_int_equal(value.type, document->type);
        assert_int_equal(value.is_integer, document->is_integer);
        assert_int_equal(value.has_escapes, document->has_escapes);
        assert_ptr_equal(value.text.data, text.data);
        assert_int_equal(value.text.size, text.size);
    }
}

/* Scans a copy that ends where its memory ends, so that AddressSanitizer sees one byte read too many. */
static enum err scan(struct slice text, enum json_type *type, size_t *offset, struct error *why)
{
    char *copy = malloc(text.size ? text.size : 1);
    assert_non_null(copy);
    memcpy(copy, text.size ? text.data : "", text.size);
    struct json_value value;
    struct error found = {0};
    size_t at = 0;
    enum err err = jsonscan_document((struct slice){copy, text.size}, &value, &at, &found);
    scan_with_members((struct slice){copy, text.size}, err, at, found.text);
    scan_in_words((struct slice){copy, text.size}, err, at, found.text);
    scan_as_scalar((struct slice){copy, text.size}, err ? NULL : &value);
    if (err && offset) {
        *offset = at;
    }
    if (err && why) {
        *why = found;
    }
    if (!err) {
        *type = value.type;
        assert_true(value.text.data >= copy && value.text.data + value.text.size <= copy + text.size);
    }
    free(copy);
    return err;
}

static const struct {
    struct slice text;
    enum json_type type;
} accepted[] = {
    {{"null", 4}, JSON_NULL},
    {{"true", 4}, JSON_TRUE},
    {{"false", 5}, JSON_FALSE},
    {{" \t\r\nnull\n\r\t ", 12}, JSON_NULL},
    {{"0", 1}, JSON_NUMBER},
    {{"-0", 2}, JSON_NUMBER},
    {{"7", 1}, JSON_NUMBER},
    {{"-7", 2}, JSON_NUMBER},
    {{"10", 2}, JSON_NUMBER},
    {{"1234567890", 10}, JSON_NUMBER},
    {{"18446744073709551616000000000000000001", 38}, JSON_NUMBER},
    {{"0.0", 3}, JSON_NUMBER},
    {{"-0.10", 5}, JSON_NUMBER},
    {{"1.50", 4}, JSON_NUMBER},
    {{"0e0", 3}, JSON_NUMBER},
    {{"1e2", 3}, JSON_NUMBER},
    {{"1E2", 3}, JSON_NUMBER},
    {{"1e+2", 4}, JSON_NUMBER},
    {{"1e-2", 4}, JSON_NUMBER},
    {{"1e00", 4}, JSON_NUMBER},
    {{"1e-00", 5}, JSON_NUMBER},
    {{"-1.5E+0099", 10}, JSON_NUMBER},
    {{"1e999999", 8}, JSON_NUMBER},
    {{"\"\"", 2}, JSON_STRING},
    {{"\"a\"", 3}, JSON_STRING},
    {{"\"plain text that is longer than a word\"", 39}, JSON_STRING},
    {{"\"\x7f\"", 3}, JSON_STRING},
    {{"\"/\"", 3}, JSON_STRING},
    {{"\"'\"", 3}, JSON_STRING},
    {{"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", 18}, JSON_STRING},
    {{"\"\\u0000\"", 8}, JSON_STRING},
    {{"\"\\u00e9\\u00E9\"", 14}, JSON_STRING},
    {{"\"\\uabcd\\uEF01\"", 14}, JSON_STRING},
    {{"\"\\ud83d\\udc31\"", 14}, JSON_STRING},
    {{"\"\\ud800\"", 8}, JSON_STRING},
    {{"\"\\udfff\"", 8}, JSON_STRING},
    {{"\"\\udc00\\ud800\"", 14}, JSON_STRING},
    {{"\"\\ud800x\"", 9}, JSON_STRING},
    {{"\"\\ud800\\n\"", 10}, JSON_STRING},
    {{"\"\\ud800\\ud800\\udc00\"", 20}, JSON_STRING},
    {{"\"\\uffff\\ufdd0\"", 14}, JSON_STRING},
    {{"\"\\\\u12\"", 7}, JSON_STRING},
    {{"\"\xc2\x80\"", 4}, JSON_STRING},
    {{"\"\xdf\xbf\"", 4}, JSON_STRING},
    {{"\"\xe0\xa0\x80\"", 5}, JSON_STRING},
    {{"\"\xe5\x96\xb5\xe5\x96\xb5\"", 8}, JSON_STRING},
    {{"\"\xed\x9f\xbf\"", 5}, JSON_STRING},
    {{"\"\xee\x80\x80\"", 5}, JSON_STRING},
    {{"\"\xef\xbb\xbf\"", 5}, JSON_STRING},
    {{"\"\xef\xbf\xbf\"", 5}, JSON_STRING},
    {{"\"\xe2\x80\xa8\"", 5}, JSON_STRING},
    {{"\"\xf0\x90\x80\x80\"", 6}, JSON_STRING},
    {{"\"\xf0\x9f\x90\xb1\"", 6}, JSON_STRING},
    {{"\"\xf4\x8f\xbf\xbf\"", 6}, JSON_STRING},
    {{"[]", 2}, JSON_ARRAY},
    {{"[ \t\r\n]", 6}, JSON_ARRAY},
    {{"[1]", 3}, JSON_ARRAY},
    {{" [ 1 , 2 ] ", 11}, JSON_ARRAY},
    {{"[[],[[]],{}]", 12}, JSON_ARRAY},
    {{"[null,true,false,0,\"\",[],{}]", 28}, JSON_ARRAY},
    {{"[\"]\",\"[\",\"}\",\"{\",\",\"]", 21}, JSON_ARRAY},
    {{"[1e1,-0,0]", 10}, JSON_ARRAY},
    {{"{}", 2}, JSON_OBJECT},
    {{"{ \n }", 5}, JSON_OBJECT},
    {{"{\"a\":1}", 7}, JSON_OBJECT},
    {{" { \"a\" : 1 , \"b\" : [ ] } ", 25}, JSON_OBJECT},
    {{"{\"\":\"\"}", 7}, JSON_OBJECT},
    {{"{\"a\":1,\"a\":2}", 13}, JSON_OBJECT},
    {{"{\"\\u0000\":1}", 12}, JSON_OBJECT},
    {{"{\"a\":{\"b\":[{\"c\":null}]}}", 24}, JSON_OBJECT},
    {{"{\"a\":[],\"b\":{},\"c\":[{}]}", 24}, JSON_OBJECT},
};

static void every_form_of_the_grammar_is_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(accepted); i++) {
        struct error why = {0};
        enum json_type type = JSON_NULL;
        size_t offset = 0;
        if (scan(accepted[i].text, &type, &offset, &why) != ERR_NONE) {
            fail_msg("%.*s: %s at %zu", SLICE_ARGS(accepted[i].text), why.text, offset);
        }
        assert_int_equal(type, accepted[i].type);
    }
}

/* offset: of the first byte that no document could have there. */
static const struct {
    struct slice text;
    size_t offset;
    const char *why;
} rejected[] = {
    {{"", 0}, 0, "unexpected end"},
    {{" ", 1}, 1, "unexpected end"},
    {{"\0", 1}, 0, "a value is expected"},
    {{"null\0", 5}, 4, "more bytes after the value"},
    {{" \0 1", 4}, 1, "a value is expected"},
    {{"[1\0]", 4}, 2, "a comma or ] is expected"},
    {{"\xef\xbb\xbf{}", 5}, 0, "a byte order mark"},
    {{"\xff\xfe{\0}\0", 6}, 0, "a value is expected"},
    {{"\v1", 2}, 0, "a value is expected"},
    {{"1\f", 2}, 1, "more bytes after the value"},
    {{"\xc2\xa0"
      "1",
      3},
     0,
     "a value is expected"},
    {{"[1,\x0b"
      "2]",
      6},
     3,
     "a value is expected"},
    {{"// c\n1", 6}, 0, "a value is expected"},
    {{"1/**/", 5}, 1, "more bytes after the value"},
    {{"#", 1}, 0, "a value is expected"},
    {{"nul", 3}, 3, "unexpected end"},
    {{"nulL", 4}, 3, "a value is expected"},
    {{"nullx", 5}, 4, "more bytes after the value"},
    {{"Null", 4}, 0, "a value is expected"},
    {{"TRUE", 4}, 0, "a value is expected"},
    {{"tru]", 4}, 3, "a value is expected"},
    {{"fals", 4}, 4, "unexpected end"},
    {{"[falze]", 7}, 4, "a value is expected"},
    {{"undefined", 9}, 0, "a value is expected"},
    {{"NaN", 3}, 0, "a value is expected"},
    {{"Infinity", 8}, 0, "a value is expected"},
    {{"-Infinity", 9}, 1, "a digit is expected"},
    {{"-", 1}, 1, "unexpected end"},
    {{"--1", 3}, 1, "a digit is expected"},
    {{"+1", 2}, 0, "a value is expected"},
    {{"01", 2}, 1, "a number begins with 0"},
    {{"-01", 3}, 2, "a number begins with 0"},
    {{"00", 2}, 1, "a number begins with 0"},
    {{"[007]", 5}, 2, "a number begins with 0"},
    {{".5", 2}, 0, "a value is expected"},
    {{"-.5", 3}, 1, "a digit is expected"},
    {{"1.", 2}, 2, "unexpected end"},
    {{"[1.]", 4}, 3, "a digit is expected"},
    {{"1.e3", 4}, 2, "a digit is expected"},
    {{"1.5.2", 5}, 3, "more bytes after the value"},
    {{"1e", 2}, 2, "unexpected end"},
    {{"1e+", 3}, 3, "unexpected end"},
    {{"[1e]", 4}, 3, "a digit is expected"},
    {{"[1e+-2]", 7}, 4, "a digit is expected"},
    {{"1e2.5", 5}, 3, "more bytes after the value"},
    {{"1e2e3", 5}, 3, "more bytes after the value"},
    {{"0x10", 4}, 1, "more bytes after the value"},
    {{"1_000", 5}, 1, "more bytes after the value"},
    {{"1,5", 3}, 1, "more bytes after the value"},
    {{"- 1", 3}, 1, "a digit is expected"},
    {{"1 2", 3}, 2, "more bytes after the value"},
    {{"\xef\xbc\x91", 3}, 0, "a value is expected"},
    {{"\"", 1}, 1, "unexpected end"},
    {{"\"abcdefghijklmno", 16}, 16, "unexpected end"},
    {{"'a'", 3}, 0, "a value is expected"},
    {{"a", 1}, 0, "a value is expected"},
    {{"\"a\"\"b\"", 6}, 3, "more bytes after the value"},
    {{"\"\n\"", 3}, 1, "unescaped control character"},
    {{"\"\t\"", 3}, 1, "unescaped control character"},
    {{"\"a\0b\"", 5}, 2, "unescaped control character"},
    {{"\"\x1f\"", 3}, 1, "unescaped control character"},
    {{"\"12345678\x01 \"", 12}, 9, "unescaped control character"},
    {{"\"\\\"", 3}, 3, "unexpected end"},
    {{"\"\\", 2}, 2, "unexpected end"},
    {{"\"\\a\"", 4}, 2, "invalid escape"},
    {{"\"\\'\"", 4}, 2, "invalid escape"},
    {{"\"\\x41\"", 6}, 2, "invalid escape"},
    {{"\"\\U0041\"", 8}, 2, "invalid escape"},
    {{"\"\\0\"", 4}, 2, "invalid escape"},
    {{"\"\\\0\"", 4}, 2, "invalid escape"},
    {{"\"\\\n\"", 4}, 2, "invalid escape"},
    {{"\"\\\xe5\x96\xb5\"", 6}, 2, "invalid escape"},
    {{"\"\\u\"", 4}, 3, "invalid \\u escape"},
    {{"\"\\u12\"", 6}, 5, "invalid \\u escape"},
    {{"\"\\u123\"", 7}, 6, "invalid \\u escape"},
    {{"\"\\u12g4\"", 8}, 5, "invalid \\u escape"},
    {{"\"\\u+123\"", 8}, 3, "invalid \\u escape"},
    {{"\"\\u 123\"", 8}, 3, "invalid \\u escape"},
    {{"\"\\u123", 6}, 6, "unexpected end"},
    {{"\"\\ud800\\u\"", 10}, 9, "invalid \\u escape"},
    {{"\"\x80\"", 3}, 1, "invalid UTF-8"},
    {{"\"\xbf\"", 3}, 1, "invalid UTF-8"},
    {{"\"\xc0\xaf\"", 4}, 1, "invalid UTF-8"},
    {{"\"\xc1\xbf\"", 4}, 1, "invalid UTF-8"},
    {{"\"\xc2\"", 3}, 2, "invalid UTF-8"},
    {{"\"\xc2\x7f\"", 4}, 2, "invalid UTF-8"},
    {{"\"\xc2\xc0\"", 4}, 2, "invalid UTF-8"},
    {{"\"\xe0\x80\x80\"", 5}, 2, "invalid UTF-8"},
    {{"\"\xe0\x9f\xbf\"", 5}, 2, "invalid UTF-8"},
    {{"\"\xe5\x96\"", 4}, 3, "invalid UTF-8"},
    {{"\"\xed\xa0\x80\"", 5}, 2, "invalid UTF-8"},
    {{"\"\xed\xbf\xbf\"", 5}, 2, "invalid UTF-8"},
    {{"\"\xed\xa0\xbd\xed\xb0\xb1\"", 8}, 2, "invalid UTF-8"},
    {{"\"\xf0\x80\x80\x80\"", 6}, 2, "invalid UTF-8"},
    {{"\"\xf0\x8f\xbf\xbf\"", 6}, 2, "invalid UTF-8"},
    {{"\"\xf0\x9f\x90\"", 5}, 4, "invalid UTF-8"},
    {{"\"\xf4\x90\x80\x80\"", 6}, 2, "invalid UTF-8"},
    {{"\"\xf5\x80\x80\x80\"", 6}, 1, "invalid UTF-8"},
    {{"\"\xf8\x88\x80\x80\x80\"", 7}, 1, "invalid UTF-8"},
    {{"\"\xff\"", 3}, 1, "invalid UTF-8"},
    {{"\"\xfe\"", 3}, 1, "invalid UTF-8"},
    {{"\"\xe5", 2}, 2, "unexpected end"},
    {{"\"\xf0\x9f\x90", 4}, 4, "unexpected end"},
    {{"{\"\xff\":1}", 7}, 2, "invalid UTF-8"},
    {{"[", 1}, 1, "unexpected end"},
    {{"]", 1}, 0, "a value is expected"},
    {{"[1", 2}, 2, "unexpected end"},
    {{"[1,", 3}, 3, "unexpected end"},
    {{"[1,]", 4}, 3, "a value is expected"},
    {{"[,1]", 4}, 1, "a value is expected"},
    {{"[,]", 3}, 1, "a value is expected"},
    {{"[1,,2]", 6}, 3, "a value is expected"},
    {{"[1 2]", 5}, 3, "a comma or ] is expected"},
    {{"[1;2]", 5}, 2, "a comma or ] is expected"},
    {{"[1}", 3}, 2, "a comma or ] is expected"},
    {{"[1]]", 4}, 3, "more bytes after the value"},
    {{"[\"a\":1]", 7}, 4, "a comma or ] is expected"},
    {{"[...]", 5}, 1, "a value is expected"},
    {{"{", 1}, 1, "unexpected end"},
    {{"}", 1}, 0, "a value is expected"},
    {{"{]", 2}, 1, "a member name is expected"},
    {{"{,}", 3}, 1, "a member name is expected"},
    {{"{a:1}", 5}, 1, "a member name is expected"},
    {{"{'a':1}", 7}, 1, "a member name is expected"},
    {{"{1:1}", 5}, 1, "a member name is expected"},
    {{"{null:1}", 8}, 1, "a member name is expected"},
    {{"{\"a\"}", 5}, 4, "a colon is expected"},
    {{"{\"a\",1}", 7}, 4, "a colon is expected"},
    {{"{\"a\" 1}", 7}, 5, "a colon is expected"},
    {{"{\"a\":}", 6}, 5, "a value is expected"},
    {{"{\"a\"::1}", 8}, 5, "a value is expected"},
    {{"{:1}", 4}, 1, "a member name is expected"},
    {{"{\"a\":1,}", 8}, 7, "a member name is expected"},
    {{"{\"a\":1,,}", 9}, 7, "a member name is expected"},
    {{"{\"a\":1 \"b\":2}", 13}, 7, "a comma or } is expected"},
    {{"{\"a\":1]", 7}, 6, "a comma or } is expected"},
    {{"{\"a\":1}}", 8}, 7, "more bytes after the value"},
    {{"{\"a\":1}{", 8}, 7, "more bytes after the value"},
    {{"{}{}", 4}, 2, "more bytes after the value"},
    {{"{\"a\":[1}", 8}, 7, "a comma or ] is expected"},
    {{"{\"a\":{\"b\":1]}", 13}, 11, "a comma or } is expected"},
    {{"[{\"a\":1},", 9}, 9, "unexpected end"},
    {{"{\"a\"", 4}, 4, "unexpected end"},
    {{"{\"a\":", 5}, 5, "unexpected end"},
    {{"{\"a", 3}, 3, "unexpected end"},
};

static void all_else_is_rejected_at_the_exact_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(rejected); i++) {
        struct error why = {0};
        enum json_type type;
        size_t offset = 999;
        enum err err = scan(rejected[i].text, &type, &offset, &why);
        if (err != ERR_INVALID || why.code != err || offset != rejected[i].offset || strcmp(why.text, rejected[i].why)) {
            fail_msg("case %zu, %.*s: %d, %s at %zu", i, SLICE_ARGS(rejected[i].text), err, why.text, offset);
        }
    }
    struct json_value value;
    assert_int_equal(jsonscan_document((struct slice){NULL, 0}, &value, NULL, NULL), ERR_INVALID);
}

/* The promise of the offset without knowing the grammar: what stands before it can be the beginning of a document. */
static void what_stands_before_the_offset_could_go_on(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(rejected); i++) {
        enum json_type type;
        size_t offset = 999;
        struct slice start = {rejected[i].text.data, rejected[i].offset};
        if (scan(start, &type, &offset, NULL) != ERR_NONE) {
            assert_int_equal(offset, start.size);
        }
    }
}

static const char typical[] =
    "{\"id\":\"1\\n\\u55b5\",\"payload\":{\"n\":-12.50e+3,\"t\":[true,false,null,{}],\"s\":\"\xe5\x96\xb5"
    "\xf0\x9f\x90\xb1\\\"\"},\"pushTime\" : \"2024-08-31T12:00:00Z\"}";

static void every_truncation_ends_at_its_end(void **state)
{
    (void)state;
    enum json_type type;
    assert_int_equal(scan(SLICE(typical), &type, NULL, NULL), ERR_NONE);
    for (size_t size = 0; size < sizeof typical - 1; size++) {
        struct error why;
        size_t offset;
        assert_int_equal(scan((struct slice){typical, size}, &type, &offset, &why), ERR_INVALID);
        assert_int_equal(offset, size);
        assert_string_equal(why.text, "unexpected end");
    }
}

static void no_byte_put_anywhere_leads_out_of_bounds(void **state)
{
    (void)state;
    char text[sizeof typical];
    memcpy(text, typical, sizeof typical);
    for (size_t i = 0; i < sizeof typical - 1; i++) {
        for (int byte = 0; byte < 256; byte++) {
            enum json_type type;
            size_t offset = 0;
            text[i] = (char)byte;
            if (scan((struct slice){text, sizeof typical - 1}, &type, &offset, NULL) != ERR_NONE) {
                assert_in_range(offset, i > 4 ? i - 4 : 0, sizeof typical - 1);
            }
        }
        text[i] = typical[i];
    }
}

/* depth levels, an array where pattern holds '[' and an object where it holds '{', and the innermost one empty. */
static struct slice nested(char *out, size_t depth, const char *pattern)
{
    size_t size = 0;
    for (size_t i = 0; i < depth; i++) {
        const char *open = pattern[i % strlen(pattern)] == '[' ? "[" : i + 1 < depth ? "{\"a\":" : "{";
        memcpy(out + size, open, strlen(open));
        size += strlen(open);
    }
    for (size_t i = depth; i-- > 0;) {
        out[size++] = pattern[i % strlen(pattern)] == '[' ? ']' : '}';
    }
    return (struct slice){out, size};
}

static void sixty_four_levels_are_accepted_and_no_more(void **state)
{
    (void)state;
    static const char *const patterns[] = {"[", "{", "[{", "{[", "[[{", "{{["};
    char text[2048];
    for (size_t i = 0; i < LENGTH(patterns); i++) {
        enum json_type type;
        struct error why;
        size_t offset;
        assert_int_equal(scan(nested(text, 64, patterns[i]), &type, NULL, NULL), ERR_NONE);
        struct slice deep = nested(text, 65, patterns[i]);
        assert_int_equal(scan(deep, &type, &offset, &why), ERR_FULL);
        assert_string_equal(why.text, "nesting deeper than 64 levels");
        size_t opened = 0; /* the offset is the 65th bracket's */
        for (size_t at = 0; at < offset; at++) {
            opened += deep.data[at] == '[' || deep.data[at] == '{';
        }
        assert_int_equal(opened, 64);
        assert_true(deep.data[offset] == '[' || deep.data[offset] == '{');
    }
    enum json_type type;
    assert_int_equal(scan(SLICE("[[],[],[],[[[]]],[[]]]"), &type, NULL, NULL), ERR_NONE);
}

static void levels_that_were_closed_do_not_count(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100000);
    buf_append_char(&b, '[');
    for (int i = 0; i < 1000; i++) {
        buf_append_text(&b, "[[{\"a\":[]}],{}],");
    }
    buf_append_text(&b, "0]");
    enum json_type type;
    assert_int_equal(scan(buf_slice(&b), &type, NULL, NULL), ERR_NONE);
    buf_reset(&b);
    for (int i = 0; i < 50000; i++) {
        buf_append_char(&b, '[');
    }
    assert_int_equal(scan(buf_slice(&b), &type, NULL, NULL), ERR_FULL);
    buf_free(&b);
}

static void special_bytes_are_found_at_every_place_of_a_word(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        bool good;
    } cases[] = {{"\x1f", false},    {"\\x", false},
                 {"\x80", false},    {"\xff", false},
                 {"\x01", false},    {"\\n", true},
                 {"!", true},        {"#", true},
                 {"\x7f", true},     {"[", true},
                 {"]", true},        {" ", true},
                 {"\xc3\xa9", true}, {"\xf0\x9f\x90\xb1", true}};
    for (size_t i = 0; i < LENGTH(cases); i++) {
        for (size_t before = 0; before < 20; before++) {
            for (size_t after = 0; after < 20; after++) {
                char text[64];
                struct slice bytes = slice_of(cases[i].bytes);
                memset(text, 'x', sizeof text);
                memcpy(text + 1 + before, bytes.data, bytes.size);
                size_t size = 1 + before + bytes.size + after + 1;
                text[0] = text[size - 1] = '"';
                enum json_type type;
                size_t offset = 0;
                assert_int_equal(scan((struct slice){text, size}, &type, &offset, NULL),
                                 cases[i].good ? ERR_NONE : ERR_INVALID);
                assert_int_equal(offset, cases[i].good ? 0 : 1 + before + (bytes.data[0] == '\\'));
            }
        }
    }
}

static void numbers_and_strings_of_any_length_are_accepted(void **state)
{
    (void)state;
    const size_t size = 1 << 20;
    char *text = malloc(size);
    struct json_value value;
    memset(text, '9', size);
    assert_int_equal(jsonscan_document((struct slice){text, size}, &value, NULL, NULL), ERR_NONE);
    assert_true(value.is_integer);
    assert_int_equal(value.text.size, size);
    text[0] = text[size - 1] = '"';
    assert_int_equal(jsonscan_document((struct slice){text, size}, &value, NULL, NULL), ERR_NONE);
    assert_int_equal(value.type, JSON_STRING);
    text[size - 1] = '9';
    size_t offset;
    assert_int_equal(jsonscan_document((struct slice){text, size}, &value, &offset, NULL), ERR_INVALID);
    assert_int_equal(offset, size);
    free(text);
}

static struct json_value value_of(const char *text)
{
    struct json_value value;
    assert_int_equal(jsonscan_document(slice_of(text), &value, NULL, NULL), ERR_NONE);
    return value;
}

static void a_value_tells_its_literal_and_its_nature(void **state)
{
    (void)state;
    assert_slice(value_of(" [1, 2 ] ").text, "[1, 2 ]");
    assert_slice(value_of("\n\"a\" ").text, "\"a\"");
    assert_slice(value_of("-1.50e3 ").text, "-1.50e3");
    static const char *const integers[] = {"0", "-0", "7", "-12", "152066840347062275", "123456789012345678901234567890"};
    static const char *const others[] = {"0.0", "1e2", "1E2", "-0e0", "1.5e3", "\"1\"", "[1]", "true", "{\"a\":1}"};
    for (size_t i = 0; i < LENGTH(integers); i++) {
        assert_true(value_of(integers[i]).is_integer);
    }
    for (size_t i = 0; i < LENGTH(others); i++) {
        assert_false(value_of(others[i]).is_integer);
    }
    assert_true(value_of("\"a\\nb\"").has_escapes);
    assert_false(value_of("\"ab\"").has_escapes);
    assert_false(value_of("[\"a\\nb\"]").has_escapes);
}

static void a_walk_gives_each_member_in_order(void **state)
{
    (void)state;
    struct json_value object = value_of(" { \"a\" : 1 , \"\\u0062\":[1,{\"x\":\"],}\"}] ,\"c\":{}, \"a\":\"s\\\"\" } ");
    static const struct {
        const char *key, *value;
        enum json_type type;
        bool key_escapes, value_escapes, integer;
    } expected[] = {{"\"a\"", "1", JSON_NUMBER, false, false, true},
                    {"\"\\u0062\"", "[1,{\"x\":\"],}\"}]", JSON_ARRAY, true, false, false},
                    {"\"c\"", "{}", JSON_OBJECT, false, false, false},
                    {"\"a\"", "\"s\\\"\"", JSON_STRING, false, true, false}};
    struct json_iterator it;
    struct json_value key, value;
    jsonscan_enter(&it, &object);
    for (size_t i = 0; i < LENGTH(expected); i++) {
        assert_true(jsonscan_next(&it, &key, &value));
        assert_int_equal(key.type, JSON_STRING);
        assert_slice(key.text, expected[i].key);
        assert_slice(value.text, expected[i].value);
        assert_int_equal(value.type, expected[i].type);
        assert_int_equal(key.has_escapes, expected[i].key_escapes);
        assert_int_equal(value.has_escapes, expected[i].value_escapes);
        assert_int_equal(value.is_integer, expected[i].integer);
    }
    assert_false(jsonscan_next(&it, &key, &value));
    assert_false(jsonscan_next(&it, &key, &value));
}

struct told {
    size_t count;
    struct json_value name[4], value[4];
};

static void keep_member(void *ctx, const struct json_value *name, const struct json_value *value)
{
    struct told *told = ctx;
    assert_true(told->count < LENGTH(told->name));
    told->name[told->count] = *name;
    told->value[told->count++] = *value;
}

static struct told members_of(const char *text, enum err expected)
{
    struct told told = {0};
    struct json_value value;
    assert_int_equal(jsonscan_members(slice_of(text), &value, keep_member, &told, NULL, NULL), expected);
    return told;
}

static void each_outermost_member_is_told_of_once_and_as_a_walk_gives_it(void **state)
{
    (void)state;
    static const char text[] = " { \"a\" : 1 , \"\\u0062\":[1,{\"x\":\"],}\"}] ,\"c\":{\"a\":{}}, \"a\":\"s\\\"\" } ";
    struct json_value object = value_of(text), key, value;
    struct told told = members_of(text, ERR_NONE);
    struct json_iterator it;
    size_t i = 0;
    for (jsonscan_enter(&it, &object); jsonscan_next(&it, &key, &value); i++) {
        assert_true(i < told.count);
        assert_ptr_equal(told.name[i].text.data, key.text.data);
        assert_int_equal(told.name[i].text.size, key.text.size);
        assert_int_equal(told.name[i].has_escapes, key.has_escapes);
        assert_ptr_equal(told.value[i].text.data, value.text.data);
        assert_int_equal(told.value[i].text.size, value.text.size);
        assert_int_equal(told.value[i].type, value.type);
        assert_int_equal(told.value[i].has_escapes, value.has_escapes);
        assert_int_equal(told.value[i].is_integer, value.is_integer);
    }
    assert_int_equal(told.count, 4);
    assert_int_equal(i, 4);
    assert_int_equal(members_of("[{\"a\":1}]", ERR_NONE).count, 0);
    assert_int_equal(members_of("\"a\"", ERR_NONE).count, 0);
    assert_int_equal(members_of("{ }", ERR_NONE).count, 0);
    assert_int_equal(members_of("{\"a\":1,}", ERR_INVALID).count, 1); /* told before it was wrong */
}

static void every_byte_is_judged_alike_alone_and_in_a_word(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        static const char *const around[][2] = {
            {"", ""},        {"[", "]"},   {"[1", "]"},      {"[1.5", "]"},       {"\"", "\""},
            {"\"a\\", "\""}, {"{", ":1}"}, {"{\"a\"", "1}"}, {"[0", "12345678]"}, {"\"\\u00", "1\""}};
        enum json_type type;
        size_t offset = 0;
        for (size_t i = 0; i < LENGTH(around); i++) {
            char text[32];
            int size = snprintf(text, sizeof text, "%s%c%s", around[i][0], byte ? byte : 1, around[i][1]);
            text[strlen(around[i][0])] = (char)byte;
            (void)scan((struct slice){text, (size_t)size}, &type, &offset, NULL);
        }
        char first = (char)byte;
        enum err err = scan((struct slice){&first, 1}, &type, &offset, NULL);
        bool digit = byte >= '0' && byte <= '9', begins = byte && strchr(" \t\r\n{[\"-tfn", byte);
        assert_int_equal(err, digit ? ERR_NONE : ERR_INVALID);
        assert_int_equal(digit ? 1 : offset, digit || begins ? 1 : 0);
    }
}

static void white_space_of_any_length_is_skipped_and_nothing_else(void **state)
{
    (void)state;
    for (size_t length = 0; length < 40; length++) {
        for (size_t place = 0; place <= length; place++) {
            char text[64] = "[1";
            memset(text + 2, ' ', length);
            text[2 + place] = place < length ? '\t' : ']';
            text[2 + length] = ']';
            enum json_type type;
            assert_int_equal(scan((struct slice){text, length + 3}, &type, NULL, NULL), ERR_NONE);
            size_t offset;
            for (const char *wrong = "\v!/\f\b"; *wrong; wrong++) {
                text[2 + place] = *wrong;
                assert_int_equal(scan((struct slice){text, length + 3}, &type, &offset, NULL), ERR_INVALID);
                assert_int_equal(offset, 2 + place);
            }
        }
    }
}

static void a_walk_gives_each_element_in_order(void **state)
{
    (void)state;
    struct json_value array = value_of("[ null,\"a,b\" , [2,3] ,-1.5]"), value, unused;
    static const char *const expected[] = {"null", "\"a,b\"", "[2,3]", "-1.5"};
    struct json_iterator it;
    jsonscan_enter(&it, &array);
    for (size_t i = 0; i < LENGTH(expected); i++) {
        assert_true(jsonscan_next(&it, i % 2 ? &unused : NULL, &value));
        assert_slice(value.text, expected[i]);
    }
    assert_false(jsonscan_next(&it, NULL, &value));
    array = value_of("[ ]");
    jsonscan_enter(&it, &array);
    assert_false(jsonscan_next(&it, NULL, &value));
    struct json_value object = value_of("{\"a\":[[]]}");
    jsonscan_enter(&it, &object);
    assert_true(jsonscan_next(&it, NULL, &value));
    jsonscan_enter(&it, &value);
    assert_true(jsonscan_next(&it, NULL, &value));
    assert_slice(value.text, "[]");
}

static void a_walk_goes_as_deep_as_a_document(void **state)
{
    (void)state;
    char text[2048];
    struct json_value value;
    assert_int_equal(jsonscan_document(nested(text, 64, "[{"), &value, NULL, NULL), ERR_NONE);
    for (int depth = 1; depth < 64; depth++) {
        struct json_iterator it;
        jsonscan_enter(&it, &value);
        assert_true(jsonscan_next(&it, NULL, &value));
    }
    assert_slice(value.text, "{}");
}

/* Walks and unescapes everything on the first two levels of what need not be JSON. */
static void walk_anything(char *text, size_t size)
{
    struct json_value container = {.type = text[0] == '[' ? JSON_ARRAY : JSON_OBJECT, .text = {text, size}}, key, value;
    struct json_iterator it;
    struct buf scratch;
    buf_init(&scratch, size);
    jsonscan_enter(&it, &container);
    size_t steps = 0;
    while (jsonscan_next(&it, it.object ? &key : NULL, &value)) {
        assert_true(value.text.data > text && value.text.data + value.text.size < text + size);
        if (value.type == JSON_STRING) {
            buf_reset(&scratch);
            assert_non_null(buf_reserve(&scratch, value.text.size));
            jsonscan_unescape(&value, &scratch);
            assert_false(scratch.failed);
        }
        assert_true(++steps < size);
    }
    assert_false(jsonscan_next(&it, NULL, &value)); /* the end is the end */
    buf_free(&scratch);
}

static void a_walk_of_damaged_text_ends_within_it(void **state)
{
    (void)state;
    const size_t size = sizeof typical - 1;
    for (size_t i = 1; i < size; i++) {
        for (int byte = 0; byte < 256; byte += 3) {
            char *copy = malloc(size);
            memcpy(copy, typical, size);
            copy[i] = (char)byte;
            walk_anything(copy, size);
            free(copy);
        }
        char *copy = malloc(i + 1);
        memcpy(copy, typical, i + 1);
        walk_anything(copy, i + 1);
        free(copy);
    }
}

static const struct {
    const char *literal;
    struct slice text;
} escaped[] = {
    {"\"\"", {"", 0}},
    {"\"plain\"", {"plain", 5}},
    {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", {"\"\\/\b\f\n\r\t", 8}},
    {"\"\\u0000\"", {"\0", 1}},
    {"\"a\\u0000b\"", {"a\0b", 3}},
    {"\"\\u0041\\u007f\"", {"A\x7f", 2}},
    {"\"\\u0080\\u07FF\"", {"\xc2\x80\xdf\xbf", 4}},
    {"\"\\u0800\\uffff\"", {"\xe0\xa0\x80\xef\xbf\xbf", 6}},
    {"\"\\u55b5\xe5\x96\xb5\"", {"\xe5\x96\xb5\xe5\x96\xb5", 6}},
    {"\"\\ud83d\\udc31\"", {"\xf0\x9f\x90\xb1", 4}},
    {"\"\\uD800\\uDC00\"", {"\xf0\x90\x80\x80", 4}},
    {"\"\\udbff\\udfff\"", {"\xf4\x8f\xbf\xbf", 4}},
    {"\"\\ud800\"", {"\xed\xa0\x80", 3}},
    {"\"\\udfff\"", {"\xed\xbf\xbf", 3}},
    {"\"\\ud800x\"", {"\xed\xa0\x80x", 4}},
    {"\"\\ud800\\n\"", {"\xed\xa0\x80\n", 4}},
    {"\"\\ud800\\u0041\"",
     {"\xed\xa0\x80"
      "A",
      4}},
    {"\"\\udc31\\ud83d\"", {"\xed\xb0\xb1\xed\xa0\xbd", 6}},
    {"\"\\udc31\\udc31\"", {"\xed\xb0\xb1\xed\xb0\xb1", 6}},
    {"\"\\ud83d\\ud83d\\udc31\"", {"\xed\xa0\xbd\xf0\x9f\x90\xb1", 7}},
    {"\"\\\\u0041\"", {"\\u0041", 6}},
    {"\"\\\\\\\\\"", {"\\\\", 2}},
};

static void a_string_is_unescaped(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(escaped); i++) {
        struct json_value value = value_of(escaped[i].literal);
        struct buf scratch;
        buf_init(&scratch, value.text.size);
        assert_non_null(buf_reserve(&scratch, value.text.size));
        struct slice text = jsonscan_unescape(&value, &scratch);
        assert_false(scratch.failed);
        assert_true(slice_equal(text, escaped[i].text));
        assert_true((text.data >= value.text.data && text.data <= value.text.data + value.text.size) == !value.has_escapes);
        buf_free(&scratch);
    }
}

static void unescaping_never_moves_what_stands_in_scratch(void **state)
{
    (void)state;
    struct json_value value = value_of("\"\\n1234567890123456789012345678901234567890\"");
    struct buf scratch;
    buf_init(&scratch, 1000);
    assert_non_null(buf_reserve(&scratch, 64));
    const char *place = scratch.data;
    struct slice first = jsonscan_unescape(&value, &scratch);
    assert_int_equal(first.size, 41);
    struct slice second = jsonscan_unescape(&value, &scratch); /* the limit has room, the memory has not */
    assert_int_equal(second.size, 0);
    assert_true(scratch.failed);
    assert_ptr_equal(scratch.data, place);
    assert_int_equal(first.data[40], '0');
    buf_free(&scratch);
    buf_init(&scratch, 10);
    assert_non_null(buf_reserve(&scratch, 10)); /* the memory has room, the limit has not */
    assert_int_equal(jsonscan_unescape(&value, &scratch).size, 0);
    assert_true(scratch.failed);
    buf_free(&scratch);
}

static void a_string_is_compared_by_what_it_means(void **state)
{
    (void)state;
    struct json_value plain = value_of("\"id\""), written = value_of("\"\\u0069d\""), pair = value_of("\"\\ud83d\\udc31!\"");
    struct json_value nul = value_of("\"id\\u0000\""), empty = value_of("\"\""), line = value_of("\"a\\nb\"");
    assert_true(jsonscan_string_is(&plain, SLICE("id")));
    assert_true(jsonscan_string_is(&written, SLICE("id")));
    assert_true(jsonscan_string_is(&pair, SLICE("\xf0\x9f\x90\xb1!")));
    assert_true(jsonscan_string_is(&nul, ((struct slice){"id\0", 3})));
    assert_true(jsonscan_string_is(&empty, SLICE("")));
    assert_true(jsonscan_string_is(&empty, (struct slice){NULL, 0}));
    assert_true(jsonscan_string_is(&line, SLICE("a\nb")));
    assert_false(jsonscan_string_is(&plain, SLICE("i")));
    assert_false(jsonscan_string_is(&plain, SLICE("idd")));
    assert_false(jsonscan_string_is(&plain, SLICE("ID")));
    assert_false(jsonscan_string_is(&written, SLICE("i")));
    assert_false(jsonscan_string_is(&written, SLICE("idd")));
    assert_false(jsonscan_string_is(&written, SLICE("")));
    assert_false(jsonscan_string_is(&written, SLICE("\\u0069d")));
    assert_false(jsonscan_string_is(&nul, SLICE("id")));
    assert_false(jsonscan_string_is(&line, SLICE("a\nc")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_of_the_grammar_is_accepted),
        cmocka_unit_test(all_else_is_rejected_at_the_exact_byte),
        cmocka_unit_test(what_stands_before_the_offset_could_go_on),
        cmocka_unit_test(every_truncation_ends_at_its_end),
        cmocka_unit_test(no_byte_put_anywhere_leads_out_of_bounds),
        cmocka_unit_test(sixty_four_levels_are_accepted_and_no_more),
        cmocka_unit_test(levels_that_were_closed_do_not_count),
        cmocka_unit_test(special_bytes_are_found_at_every_place_of_a_word),
        cmocka_unit_test(numbers_and_strings_of_any_length_are_accepted),
        cmocka_unit_test(a_value_tells_its_literal_and_its_nature),
        cmocka_unit_test(a_walk_gives_each_member_in_order),
        cmocka_unit_test(each_outermost_member_is_told_of_once_and_as_a_walk_gives_it),
        cmocka_unit_test(every_byte_is_judged_alike_alone_and_in_a_word),
        cmocka_unit_test(white_space_of_any_length_is_skipped_and_nothing_else),
        cmocka_unit_test(a_walk_gives_each_element_in_order),
        cmocka_unit_test(a_walk_goes_as_deep_as_a_document),
        cmocka_unit_test(a_walk_of_damaged_text_ends_within_it),
        cmocka_unit_test(a_string_is_unescaped),
        cmocka_unit_test(unescaping_never_moves_what_stands_in_scratch),
        cmocka_unit_test(a_string_is_compared_by_what_it_means),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
