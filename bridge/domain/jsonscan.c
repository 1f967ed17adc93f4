/* One scanner does everything: jsonscan_document runs it over the text, jsonscan_next over one member at a time. Walking
 * therefore validates a second time, which costs less than a second set of rules would: it cannot run past the end, whatever
 * it is given.
 *
 * Nesting is a counter and a stack of bits (1: object), one a level, so depth is bounded by the 64 bits and no function calls
 * itself. A failing function leaves `at` on the first byte with which no JSON document can go on; that is the offset reported. */
#include "meowbridge/jsonscan.h"

#include <endian.h>
#include <stdint.h>
#include <string.h>

struct scanner {
    const unsigned char *at, *end;
    const char *wrong; /* what is wrong at `at`, once a function has failed */
    uint64_t objects;  /* the lowest bit is the innermost container */
    unsigned depth;
    bool too_deep;
    bool has_escapes; /* of the string scanned last */
    bool is_integer;  /* of the number scanned last */
};

_Static_assert(JSONSCAN_MAX_DEPTH <= 64, "scanner.objects has a bit for each level");

enum step {
    STEP_WRONG,
    STEP_VALUE, /* a value must follow at `at` */
    STEP_ENDED  /* a value ends before `at` */
};

static bool fail(struct scanner *s, const char *wrong)
{
    s->wrong = s->at == s->end ? "unexpected end" : wrong;
    return false;
}

static inline bool next_is(const struct scanner *s, unsigned char c)
{
    return s->at < s->end && *s->at == c;
}

static inline bool next_is_digit(const struct scanner *s)
{
    return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

static inline void skip_space(struct scanner *s)
{
    while (s->at < s->end && *s->at <= ' ' && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t')) {
        s->at++;
    }
}

/* Skips string bytes that mean themselves: ASCII but for the quote, the backslash and controls. Eight at a time: the lowest
 * flagged byte is exact, since a borrow only ever comes out of a byte that is itself flagged. */
static const unsigned char *skip_plain(const unsigned char *at, const unsigned char *end)
{
    const uint64_t each = 0x0101010101010101u;
    for (; end - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        word = le64toh(word);
        uint64_t quote = (word ^ each * '"') - each, backslash = (word ^ each * '\\') - each, control = word - each * ' ';
        uint64_t special = (quote | backslash | control | word) & each * 0x80;
        if (special) {
            return at + __builtin_ctzll(special) / 8;
        }
    }
    while (at < end && *at >= ' ' && *at < 0x80 && *at != '"' && *at != '\\') {
        at++;
    }
    return at;
}

/* One sequence of two to four bytes, by the table of well-formed sequences (RFC 3629 section 4): only the second byte's
 * range depends on the first. */
static bool scan_utf8(struct scanner *s)
{
    static const char wrong[] = "invalid UTF-8";
    unsigned char lead = *s->at, low = 0x80, high = 0xbf;
    if (lead < 0xc2 || lead > 0xf4) {
        return fail(s, wrong);
    }
    low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : low;
    high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : high;
    for (int more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3; more > 0; more--) {
        s->at++;
        if (s->at == s->end || *s->at < low || *s->at > high) {
            return fail(s, wrong);
        }
        low = 0x80;
        high = 0xbf;
    }
    s->at++;
    return true;
}

/* Text in Chinese is all of such sequences: no need to look for plain bytes between them. */
static bool scan_utf8_run(struct scanner *s)
{
    do {
        if (!scan_utf8(s)) {
            return false;
        }
    } while (s->at < s->end && *s->at >= 0x80);
    return true;
}

static int hex_value(unsigned char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool scan_escape(struct scanner *s)
{
    s->at++;
    if (s->at == s->end || *s->at == 0 || !strchr("\"\\/bfnrtu", *s->at)) {
        return fail(s, "invalid escape");
    }
    int digits = *s->at++ == 'u' ? 4 : 0;
    for (; digits > 0; digits--, s->at++) {
        if (s->at == s->end || hex_value(*s->at) < 0) {
            return fail(s, "invalid \\u escape");
        }
    }
    return true;
}

static bool scan_string(struct scanner *s)
{
    s->has_escapes = false;
    s->at++;
    for (;;) {
        s->at = skip_plain(s->at, s->end);
        if (s->at == s->end) {
            return fail(s, "");
        }
        if (*s->at == '"') {
            s->at++;
            return true;
        }
        if (*s->at < ' ') {
            return fail(s, "unescaped control character");
        }
        bool escape = *s->at == '\\';
        s->has_escapes |= escape;
        if (!(escape ? scan_escape(s) : scan_utf8_run(s))) {
            return false;
        }
    }
}

static bool scan_digits(struct scanner *s)
{
    if (!next_is_digit(s)) {
        return fail(s, "a digit is expected");
    }
    while (next_is_digit(s)) {
        s->at++;
    }
    return true;
}

static bool scan_fraction_and_exponent(struct scanner *s)
{
    if (next_is(s, '.')) {
        s->is_integer = false;
        s->at++;
        if (!scan_digits(s)) {
            return false;
        }
    }
    if (!next_is(s, 'e') && !next_is(s, 'E')) {
        return true;
    }
    s->is_integer = false;
    s->at++;
    if (next_is(s, '+') || next_is(s, '-')) {
        s->at++;
    }
    return scan_digits(s);
}

static bool scan_number(struct scanner *s)
{
    s->is_integer = true;
    s->at += *s->at == '-';
    if (next_is(s, '0')) {
        s->at++;
        if (next_is_digit(s)) {
            return fail(s, "a number begins with 0");
        }
    } else if (!scan_digits(s)) {
        return false;
    }
    return scan_fraction_and_exponent(s);
}

static bool scan_literal(struct scanner *s, const char *literal)
{
    for (; *literal; literal++, s->at++) {
        if (!next_is(s, (unsigned char)*literal)) {
            return fail(s, "a value is expected");
        }
    }
    return true;
}

/* A member's name and colon, up to its value. name may be NULL. */
static bool scan_name(struct scanner *s, struct json_value *name)
{
    const unsigned char *start = s->at;
    if (!next_is(s, '"')) {
        return fail(s, "a member name is expected");
    }
    if (!scan_string(s)) {
        return false;
    }
    if (name) {
        struct slice text = {(const char *)start, (size_t)(s->at - start)};
        *name = (struct json_value){.type = JSON_STRING, .text = text, .has_escapes = s->has_escapes};
    }
    skip_space(s);
    if (!next_is(s, ':')) {
        return fail(s, "a colon is expected");
    }
    s->at++;
    skip_space(s);
    return true;
}

static void close_container(struct scanner *s)
{
    s->at++;
    s->objects >>= 1;
    s->depth--;
}

static enum step open_container(struct scanner *s, bool object)
{
    if (s->depth == JSONSCAN_MAX_DEPTH) {
        s->too_deep = true;
        return STEP_WRONG;
    }
    s->at++;
    s->objects = s->objects << 1 | object;
    s->depth++;
    skip_space(s);
    if (next_is(s, object ? '}' : ']')) {
        close_container(s);
        return STEP_ENDED;
    }
    return !object || scan_name(s, NULL) ? STEP_VALUE : STEP_WRONG;
}

static bool scan_scalar(struct scanner *s)
{
    switch (s->at < s->end ? *s->at : 0) {
    case '"':
        return scan_string(s);
    case 't':
        return scan_literal(s, "true");
    case 'f':
        return scan_literal(s, "false");
    case 'n':
        return scan_literal(s, "null");
    case '-':
    case '0' ... '9':
        return scan_number(s);
    default:
        return fail(s, "a value is expected");
    }
}

static enum step begin_value(struct scanner *s)
{
    if (next_is(s, '{') || next_is(s, '[')) {
        return open_container(s, *s->at == '{');
    }
    return scan_scalar(s) ? STEP_ENDED : STEP_WRONG;
}

/* Behind a value: closes the containers that end with it, up to one that goes on, or all. */
static enum step end_value(struct scanner *s)
{
    while (s->depth > 0) {
        bool object = s->objects & 1;
        skip_space(s);
        if (next_is(s, ',')) {
            s->at++;
            skip_space(s);
            return !object || scan_name(s, NULL) ? STEP_VALUE : STEP_WRONG;
        }
        if (!next_is(s, object ? '}' : ']')) {
            fail(s, object ? "a comma or } is expected" : "a comma or ] is expected");
            return STEP_WRONG;
        }
        close_container(s);
    }
    return STEP_ENDED;
}

static enum json_type type_of(char first)
{
    switch (first) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 't':
        return JSON_TRUE;
    case 'f':
        return JSON_FALSE;
    case 'n':
        return JSON_NULL;
    default:
        return JSON_NUMBER;
    }
}

static bool scan_value(struct scanner *s, struct json_value *value)
{
    const unsigned char *start = s->at;
    enum step step = STEP_VALUE;
    while (step == STEP_VALUE) {
        step = begin_value(s);
        step = step == STEP_ENDED ? end_value(s) : step;
    }
    if (step == STEP_WRONG) {
        return false;
    }
    enum json_type type = type_of((char)*start);
    *value = (struct json_value){.type = type,
                                 .text = {(const char *)start, (size_t)(s->at - start)},
                                 .has_escapes = type == JSON_STRING && s->has_escapes,
                                 .is_integer = type == JSON_NUMBER && s->is_integer};
    return true;
}

static bool scan_document(struct scanner *s, struct json_value *value)
{
    if (s->end - s->at >= 3 && memcmp(s->at, "\xef\xbb\xbf", 3) == 0) {
        return fail(s, "a byte order mark");
    }
    skip_space(s);
    if (!scan_value(s, value)) {
        return false;
    }
    skip_space(s);
    return s->at == s->end || fail(s, "more bytes after the value");
}

enum err jsonscan_document(struct slice text, struct json_value *value, size_t *offset, struct error *why)
{
    const unsigned char *start = (const unsigned char *)(text.size > 0 ? text.data : "");
    struct scanner s = {.at = start, .end = start + text.size};
    struct json_value found;
    if (scan_document(&s, &found)) {
        *value = found;
        return ERR_NONE;
    }
    if (offset) {
        *offset = (size_t)(s.at - start);
    }
    if (s.too_deep) {
        return error_set(why, ERR_FULL, "nesting deeper than %d levels", JSONSCAN_MAX_DEPTH);
    }
    return error_set(why, ERR_INVALID, "%s", s.wrong);
}

void jsonscan_enter(struct json_iterator *it, const struct json_value *container)
{
    ASSERT(container->type == JSON_ARRAY || container->type == JSON_OBJECT);
    ASSERT(container->text.size >= 2);
    *it = (struct json_iterator){.at = container->text.data + 1,
                                 .end = container->text.data + container->text.size - 1,
                                 .object = container->type == JSON_OBJECT};
}

bool jsonscan_next(struct json_iterator *it, struct json_value *key, struct json_value *value)
{
    struct scanner s = {.at = (const unsigned char *)it->at, .end = (const unsigned char *)it->end};
    skip_space(&s);
    if (next_is(&s, ',')) {
        s.at++;
        skip_space(&s);
    }
    bool found = s.at < s.end && (!it->object || scan_name(&s, key)) && scan_value(&s, value);
    it->at = found ? (const char *)s.at : it->end;
    return found;
}

static struct slice without_quotes(const struct json_value *string)
{
    ASSERT(string->type == JSON_STRING && string->text.size >= 2);
    return (struct slice){string->text.data + 1, string->text.size - 2};
}

/* The code unit of "\uXXXX" at the start of text; false if that is not what stands there. */
static bool read_code_unit(struct slice text, uint32_t *unit)
{
    uint8_t bytes[2];
    if (text.size < 6 || text.data[0] != '\\' || text.data[1] != 'u' ||
        !hex_decode((struct slice){text.data + 2, 4}, bytes, 2)) {
        return false;
    }
    *unit = (uint32_t)bytes[0] << 8 | bytes[1];
    return true;
}

/* The character of the escape at the start of text, and how many bytes the escape takes; 0 if it is none. */
static size_t read_escape(struct slice text, uint32_t *character)
{
    static const char named[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
    uint32_t low;
    if (read_code_unit(text, character)) {
        bool high = *character >= 0xd800 && *character <= 0xdbff;
        if (!high || !read_code_unit((struct slice){text.data + 6, text.size - 6}, &low) || low < 0xdc00 || low > 0xdfff) {
            return 6;
        }
        *character = 0x10000 + ((*character - 0xd800) << 10 | (low - 0xdc00));
        return 12;
    }
    const char *name = text.size >= 2 && text.data[1] ? strchr(named, text.data[1]) : NULL;
    *character = name ? (uint32_t)meaning[name - named] : 0;
    return name ? 2 : 0;
}

/* Takes the next piece off *rest: a run of bytes as they stand, or one unescaped character, which lands in store. False at the
 * end. */
static bool take_piece(struct slice *rest, char store[4], struct slice *piece)
{
    if (rest->size == 0) {
        return false;
    }
    const char *backslash = memchr(rest->data, '\\', rest->size);
    size_t taken = backslash ? (size_t)(backslash - rest->data) : rest->size;
    *piece = (struct slice){rest->data, taken};
    if (taken == 0) {
        uint32_t character;
        taken = read_escape(*rest, &character);
        if (taken == 0) {
            return false;
        }
        *piece = (struct slice){store, utf8_encode(character, store)};
    }
    *rest = (struct slice){rest->data + taken, rest->size - taken};
    return true;
}

struct slice jsonscan_unescape(const struct json_value *string, struct buf *scratch)
{
    struct slice rest = without_quotes(string), piece;
    if (!string->has_escapes) {
        return rest;
    }
    /* A reallocation would pull earlier slices of scratch from under the caller. */
    if (scratch->size + rest.size >= scratch->capacity || rest.size > scratch->limit - scratch->size) {
        scratch->failed = true;
    }
    if (scratch->failed) {
        return (struct slice){0};
    }
    char store[4];
    size_t start = scratch->size;
    while (take_piece(&rest, store, &piece)) {
        buf_append(scratch, piece);
    }
    return (struct slice){scratch->data + start, scratch->size - start};
}

bool jsonscan_string_is(const struct json_value *string, struct slice text)
{
    struct slice rest = without_quotes(string), piece;
    if (!string->has_escapes) {
        return slice_equal(rest, text);
    }
    char store[4];
    while (take_piece(&rest, store, &piece)) {
        if (!slice_starts(text, piece)) {
            return false;
        }
        text = (struct slice){text.data + piece.size, text.size - piece.size};
    }
    return text.size == 0 && rest.size == 0;
}
