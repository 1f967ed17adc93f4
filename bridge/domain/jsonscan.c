/* One scanner does everything: jsonscan_members runs it over the text once and tells of the members as it goes, jsonscan_next runs
 * it over one member at a time. Walking what is validated already thus validates a second time, which costs less than a second set of
 * rules would: it cannot run past the end, whatever it is given.
 *
 * Nesting is a counter and a stack of bits (1: object), one a level, so depth is bounded by the 64 bits and no function calls
 * itself. A scanning function takes the place to begin at and returns the one behind what it scanned; NULL where it failed, with
 * `at` on the first byte with which no JSON document can go on, the offset that is reported.
 *
 * Most bytes are looked at eight at a time, as a word whose first byte is its lowest (a load and le64toh, so alignment and byte order
 * do not matter). The high bit of each byte of the word is made to say whether the byte ends the run. Carries and borrows between
 * bytes go upwards only, and only out of a byte that is flagged itself, so the lowest flag is always right. */
#include "meowbridge/jsonscan.h"

#include <endian.h>
#include <stdint.h>
#include <string.h>

struct scanner {
    const unsigned char *end;
    const unsigned char *words_end; /* before it a whole word can be loaded */
    const unsigned char *at;        /* where a function has failed ... */
    const char *wrong;              /* ... and what is wrong there */
    uint64_t objects;               /* the lowest bit is the innermost container */
    unsigned depth;
    bool too_deep;
    bool has_escapes; /* of the string scanned last */
    bool is_integer;  /* of the number scanned last */
};

_Static_assert(JSONSCAN_MAX_DEPTH <= 64, "scanner.objects has a bit for each level");

enum { WORD = sizeof(uint64_t) };
#define EACH(byte) (0x0101010101010101u * (uint64_t)(byte))

enum class {
    SPACE = 1,
    DIGIT = 2,
    HEX = 4,
    ESCAPED = 8, /* may stand behind a backslash */
    PLAIN = 16   /* means itself in a string, and is ASCII */
};

static const uint8_t classes[256] = {
    ['\t'] = SPACE,
    ['\n'] = SPACE,
    ['\r'] = SPACE,
    [' '] = PLAIN | SPACE,
    ['!'] = PLAIN,
    ['"'] = ESCAPED,
    ['#' ... '.'] = PLAIN,
    ['/'] = PLAIN | ESCAPED,
    ['0' ... '9'] = PLAIN | DIGIT | HEX,
    [':' ... '@'] = PLAIN,
    ['A' ... 'F'] = PLAIN | HEX,
    ['G' ... '['] = PLAIN,
    ['\\'] = ESCAPED,
    [']' ... '`'] = PLAIN,
    ['a'] = PLAIN | HEX,
    ['b'] = PLAIN | HEX | ESCAPED,
    ['c' ... 'e'] = PLAIN | HEX,
    ['f'] = PLAIN | HEX | ESCAPED,
    ['g' ... 'm'] = PLAIN,
    ['n'] = PLAIN | ESCAPED,
    ['o' ... 'q'] = PLAIN,
    ['r'] = PLAIN | ESCAPED,
    ['s'] = PLAIN,
    ['t' ... 'u'] = PLAIN | ESCAPED,
    ['v' ... 0x7f] = PLAIN,
};

static inline struct scanner scanner_of(const unsigned char *start, const unsigned char *end)
{
    return (struct scanner){.end = end, .words_end = end - start >= WORD ? end - (WORD - 1) : start};
}

static const unsigned char *fail(struct scanner *s, const unsigned char *at, const char *wrong)
{
    s->at = at;
    s->wrong = at == s->end ? "unexpected end" : wrong;
    return NULL;
}

static inline bool is_at(const struct scanner *s, const unsigned char *at, unsigned char c)
{
    return at < s->end && *at == c;
}

static inline bool has_class(const struct scanner *s, const unsigned char *at, enum class class)
{
    return at < s->end && classes[*at] & class;
}

static inline bool has_word(const struct scanner *s, const unsigned char *at)
{
    return at < s->words_end;
}

static inline uint64_t load_word(const unsigned char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return le64toh(word);
}

/* How many bytes of a word come before the first one that has a bit set. */
static inline unsigned bytes_before(uint64_t flags)
{
    return (unsigned)__builtin_ctzll(flags) / 8;
}

/* A line break is followed by many spaces where JSON is indented. */
static const unsigned char *skip_space_run(const struct scanner *s, const unsigned char *at)
{
    while (has_class(s, at, SPACE)) {
        at++;
        while (has_word(s, at) && load_word(at) == EACH(' ')) {
            at += WORD;
        }
    }
    return at;
}

static inline const unsigned char *skip_space(const struct scanner *s, const unsigned char *at)
{
    return at < s->end && *at <= ' ' ? skip_space_run(s, at) : at;
}

/* Flags what ends a run of plain bytes: controls and the quote (with one bit flipped that is all below '!', and nothing else is),
 * the backslash, and what is not ASCII. */
static inline uint64_t flag_special(uint64_t word)
{
    uint64_t low = (word ^ EACH(' ' ^ '"')) - EACH('!'), backslash = (word ^ EACH('\\')) - EACH(1);
    return (low | backslash | word) & EACH(0x80);
}

static inline const unsigned char *skip_plain(const struct scanner *s, const unsigned char *at)
{
    for (; has_word(s, at); at += WORD) {
        uint64_t special = flag_special(load_word(at));
        if (special) {
            return at + bytes_before(special);
        }
    }
    while (has_class(s, at, PLAIN)) {
        at++;
    }
    return at;
}

/* One sequence of two to four bytes, by the table of well-formed sequences (RFC 3629 section 4): only the second byte's
 * range depends on the first. */
static const unsigned char *scan_utf8(struct scanner *s, const unsigned char *at)
{
    static const char wrong[] = "invalid UTF-8";
    unsigned char lead = *at, low = 0x80, high = 0xbf;
    if (lead < 0xc2 || lead > 0xf4) {
        return fail(s, at, wrong);
    }
    low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : low;
    high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : high;
    for (int more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3; more > 0; more--) {
        at++;
        if (at == s->end || *at < low || *at > high) {
            return fail(s, at, wrong);
        }
        low = 0x80;
        high = 0xbf;
    }
    return at + 1;
}

/* True if a word begins with three bytes of U+0800 to U+FFFF but for the surrogates. The character's five top bits lie in the first
 * two bytes: all clear, it would fit two bytes; 11011, it is a surrogate. */
static inline bool begins_with_three(uint64_t word)
{
    uint64_t top = word & 0x200f;
    return (word & 0xc0c0f0) == 0x8080e0 && top != 0 && top != 0x200d;
}

/* Text in Chinese is all of such sequences: no need to look for plain bytes between them. */
static const unsigned char *scan_utf8_run(struct scanner *s, const unsigned char *at)
{
    do {
        at = has_word(s, at) && begins_with_three(load_word(at)) ? at + 3 : scan_utf8(s, at);
    } while (at && at < s->end && *at >= 0x80);
    return at;
}

static const unsigned char *scan_escape(struct scanner *s, const unsigned char *at)
{
    at++;
    if (!has_class(s, at, ESCAPED)) {
        return fail(s, at, "invalid escape");
    }
    int digits = *at++ == 'u' ? 4 : 0;
    for (; digits > 0; digits--, at++) {
        if (!has_class(s, at, HEX)) {
            return fail(s, at, "invalid \\u escape");
        }
    }
    return at;
}

static const unsigned char *scan_special(struct scanner *s, const unsigned char *at)
{
    if (*at < ' ') {
        return fail(s, at, "unescaped control character");
    }
    if (*at == '\\') {
        s->has_escapes = true;
        return scan_escape(s, at);
    }
    return scan_utf8_run(s, at);
}

static const unsigned char *scan_string(struct scanner *s, const unsigned char *at)
{
    s->has_escapes = false;
    at = skip_plain(s, at + 1);
    while (!is_at(s, at, '"')) {
        at = at < s->end ? scan_special(s, at) : fail(s, at, "");
        if (!at) {
            return NULL;
        }
        at = skip_plain(s, at);
    }
    return at + 1;
}

static const unsigned char *scan_digits(struct scanner *s, const unsigned char *at)
{
    if (!has_class(s, at, DIGIT)) {
        return fail(s, at, "a digit is expected");
    }
    for (at++; has_word(s, at); at += WORD) {
        uint64_t value = load_word(at) ^ EACH('0'); /* 0 to 9, or more */
        uint64_t others = (value | (value + EACH(0x80 - 10))) & EACH(0x80);
        if (others) {
            return at + bytes_before(others);
        }
    }
    while (has_class(s, at, DIGIT)) {
        at++;
    }
    return at;
}

static const unsigned char *scan_exponent(struct scanner *s, const unsigned char *at)
{
    s->is_integer = false;
    at++;
    return scan_digits(s, at + (is_at(s, at, '+') || is_at(s, at, '-')));
}

static const unsigned char *scan_number(struct scanner *s, const unsigned char *at)
{
    s->is_integer = true;
    at += *at == '-';
    if (!is_at(s, at, '0')) {
        at = scan_digits(s, at);
    } else if (has_class(s, ++at, DIGIT)) {
        return fail(s, at, "a number begins with 0");
    }
    if (at && is_at(s, at, '.')) {
        s->is_integer = false;
        at = scan_digits(s, at + 1);
    }
    return at && (is_at(s, at, 'e') || is_at(s, at, 'E')) ? scan_exponent(s, at) : at;
}

static const unsigned char *scan_literal(struct scanner *s, const unsigned char *at, const char *literal)
{
    for (; *literal; literal++, at++) {
        if (!is_at(s, at, (unsigned char)*literal)) {
            return fail(s, at, "a value is expected");
        }
    }
    return at;
}

static const unsigned char *scan_word(struct scanner *s, const unsigned char *at)
{
    switch (at < s->end ? *at : 0) {
    case 't':
        return scan_literal(s, at, "true");
    case 'f':
        return scan_literal(s, at, "false");
    case 'n':
        return scan_literal(s, at, "null");
    default:
        return fail(s, at, "a value is expected");
    }
}

static const unsigned char *scan_scalar(struct scanner *s, const unsigned char *at)
{
    if (is_at(s, at, '"')) {
        return scan_string(s, at);
    }
    return has_class(s, at, DIGIT) || is_at(s, at, '-') ? scan_number(s, at) : scan_word(s, at);
}

/* A member's name; behind_name then goes on to its value. */
static inline const unsigned char *scan_name(struct scanner *s, const unsigned char *at)
{
    return is_at(s, at, '"') ? scan_string(s, at) : fail(s, at, "a member name is expected");
}

static inline const unsigned char *behind_name(struct scanner *s, const unsigned char *at)
{
    at = is_at(s, at, ':') ? at : skip_space(s, at);
    return is_at(s, at, ':') ? skip_space(s, at + 1) : fail(s, at, "a colon is expected");
}

/* Up to the next value of the innermost container: behind the name, in an object. */
static inline const unsigned char *to_value(struct scanner *s, const unsigned char *at)
{
    if (s->objects & 1) {
        at = scan_name(s, at);
        at = at ? behind_name(s, at) : NULL;
    }
    return at;
}

/* The brackets of objects and those of arrays are one bit apart. */
static inline bool opens_container(const struct scanner *s, const unsigned char *at)
{
    return at < s->end && (*at | 0x20) == '{';
}

static inline bool closes_container(const struct scanner *s, const unsigned char *at)
{
    return is_at(s, at, s->objects & 1 ? '}' : ']');
}

static inline const unsigned char *open_container(struct scanner *s, const unsigned char *at)
{
    if (s->depth == JSONSCAN_MAX_DEPTH) {
        s->too_deep = true;
        return fail(s, at, "");
    }
    s->objects = s->objects << 1 | (*at == '{');
    s->depth++;
    return skip_space(s, at + 1);
}

static inline const unsigned char *close_container(struct scanner *s, const unsigned char *at)
{
    s->objects >>= 1;
    s->depth--;
    return at + 1;
}

/* Behind a value that goes on: the comma, and the space after it. */
static inline const unsigned char *scan_comma(struct scanner *s, const unsigned char *at)
{
    if (!is_at(s, at, ',')) {
        return fail(s, at, s->objects & 1 ? "a comma or } is expected" : "a comma or ] is expected");
    }
    return skip_space(s, at + 1);
}

/* Opens containers until one is empty or the first value inside is a scalar, and takes that. */
static inline const unsigned char *scan_first(struct scanner *s, const unsigned char *at)
{
    while (opens_container(s, at)) {
        at = open_container(s, at);
        if (!at || closes_container(s, at)) {
            return at ? close_container(s, at) : NULL;
        }
        at = to_value(s, at);
        if (!at) {
            return NULL;
        }
    }
    return scan_scalar(s, at);
}

/* Behind a value: closes the containers that end with it, and goes on to the next value in one that does not. */
static inline const unsigned char *to_next_value(struct scanner *s, const unsigned char *at, unsigned outside)
{
    while (s->depth > outside) {
        at = skip_space(s, at);
        if (!closes_container(s, at)) {
            at = scan_comma(s, at);
            return at ? to_value(s, at) : NULL;
        }
        at = close_container(s, at);
    }
    return at;
}

/* A value, with all that it contains. */
static const unsigned char *scan_value(struct scanner *s, const unsigned char *at)
{
    const unsigned outside = s->depth;
    do {
        at = scan_first(s, at);
        at = at ? to_next_value(s, at, outside) : NULL;
    } while (at && s->depth > outside);
    return at;
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

/* The value scanned last, from start to end. */
static inline struct json_value value_of(const struct scanner *s, const unsigned char *start, const unsigned char *end)
{
    enum json_type type = type_of((char)*start);
    return (struct json_value){.type = type,
                               .has_escapes = type == JSON_STRING && s->has_escapes,
                               .is_integer = type == JSON_NUMBER && s->is_integer,
                               .text = {(const char *)start, (size_t)(end - start)}};
}

static inline const unsigned char *scan_element(struct scanner *s, const unsigned char *start, struct json_value *value)
{
    const unsigned char *at = scan_value(s, start);
    if (at) {
        *value = value_of(s, start, at);
    }
    return at;
}

static const unsigned char *scan_member(struct scanner *s, const unsigned char *start, struct json_value *name,
                                        struct json_value *value)
{
    const unsigned char *at = scan_name(s, start);
    if (!at) {
        return NULL;
    }
    *name = (struct json_value){
        .type = JSON_STRING, .has_escapes = s->has_escapes, .text = {(const char *)start, (size_t)(at - start)}};
    at = behind_name(s, at);
    return at ? scan_element(s, at, value) : NULL;
}

/* As scan_value does, and tells of each member. */
static const unsigned char *scan_outer_object(struct scanner *s, const unsigned char *at, jsonscan_each *each, void *ctx)
{
    struct json_value name, value;
    at = open_container(s, at);
    if (closes_container(s, at)) {
        return close_container(s, at);
    }
    do {
        at = scan_member(s, at, &name, &value);
        if (at) {
            each(ctx, &name, &value);
            at = skip_space(s, at);
            if (closes_container(s, at)) {
                return close_container(s, at);
            }
            at = scan_comma(s, at);
        }
    } while (at);
    return NULL;
}

static const unsigned char *scan_document(struct scanner *s, const unsigned char *at, struct json_value *value,
                                          jsonscan_each *each, void *ctx)
{
    if (s->end - at >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0) {
        return fail(s, at, "a byte order mark");
    }
    const unsigned char *start = skip_space(s, at);
    at = each && is_at(s, start, '{') ? scan_outer_object(s, start, each, ctx) : scan_value(s, start);
    if (!at) {
        return NULL;
    }
    *value = value_of(s, start, at);
    at = skip_space(s, at);
    return at == s->end ? at : fail(s, at, "more bytes after the value");
}

enum err jsonscan_members(struct slice text, struct json_value *value, jsonscan_each *each, void *ctx, size_t *offset,
                          struct error *why)
{
    const unsigned char *start = (const unsigned char *)(text.size > 0 ? text.data : "");
    struct scanner s = scanner_of(start, start + text.size);
    struct json_value found;
    if (scan_document(&s, start, &found, each, ctx)) {
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

enum err jsonscan_document(struct slice text, struct json_value *value, size_t *offset, struct error *why)
{
    return jsonscan_members(text, value, NULL, NULL, offset, why);
}

bool jsonscan_scalar(struct slice text, struct json_value *value)
{
    const unsigned char *start = (const unsigned char *)(text.size > 0 ? text.data : "");
    struct scanner s = scanner_of(start, start + text.size);
    const unsigned char *at = scan_scalar(&s, start);
    if (!at || at != s.end) {
        return false;
    }
    *value = value_of(&s, start, at);
    return true;
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
    struct scanner s = scanner_of((const unsigned char *)it->at, (const unsigned char *)it->end);
    struct json_value unused;
    const unsigned char *at = skip_space(&s, (const unsigned char *)it->at);
    if (is_at(&s, at, ',')) {
        at = skip_space(&s, at + 1);
    }
    at = it->object ? scan_member(&s, at, key ? key : &unused, value) : scan_element(&s, at, value);
    it->at = at ? (const char *)at : it->end;
    return at;
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

/* Kept apart from the usual case, which needs nothing of this: no frame, no store. */
static __attribute__((noinline)) struct slice unescape(struct slice rest, struct buf *scratch)
{
    /* A reallocation would pull earlier slices of scratch from under the caller. */
    if (scratch->size + rest.size >= scratch->capacity || rest.size > scratch->limit - scratch->size) {
        scratch->failed = true;
    }
    if (scratch->failed) {
        return (struct slice){0};
    }
    char store[4];
    struct slice piece;
    size_t start = scratch->size;
    while (take_piece(&rest, store, &piece)) {
        buf_append(scratch, piece);
    }
    return (struct slice){scratch->data + start, scratch->size - start};
}

struct slice jsonscan_unescape(const struct json_value *string, struct buf *scratch)
{
    struct slice text = without_quotes(string);
    return string->has_escapes ? unescape(text, scratch) : text;
}

static __attribute__((noinline)) bool is_unescaped(struct slice rest, struct slice text)
{
    char store[4];
    struct slice piece;
    while (take_piece(&rest, store, &piece)) {
        if (!slice_starts(text, piece)) {
            return false;
        }
        text = (struct slice){text.data + piece.size, text.size - piece.size};
    }
    return text.size == 0 && rest.size == 0;
}

bool jsonscan_string_is(const struct json_value *string, struct slice text)
{
    struct slice literal = without_quotes(string);
    return string->has_escapes ? is_unescaped(literal, text) : slice_equal(literal, text);
}
