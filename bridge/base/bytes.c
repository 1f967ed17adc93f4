#include "meowbridge/bytes.h"

#include "meowbridge/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct slice slice_of(const char *text)
{
    return (struct slice){text, text ? strlen(text) : 0};
}

bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static bool same_letter(struct slice a, size_t i, struct slice b, size_t j)
{
    unsigned char x = (unsigned char)a.data[i], y = (unsigned char)b.data[j];
    return x == y || ((x ^ y) == 0x20 && (x | 0x20) >= 'a' && (x | 0x20) <= 'z');
}

static bool has_same_letters(struct slice a, struct slice b)
{
    for (size_t i = 0; i < a.size; i++) {
        if (!same_letter(a, i, b, i)) {
            return false;
        }
    }
    return true;
}

/* Not strncasecmp, which ends at a NUL, and for which letters are the locale's. Mostly they are written alike. */
bool slice_equal_nocase(struct slice a, struct slice b)
{
    return a.size == b.size && (slice_equal(a, b) || has_same_letters(a, b));
}

bool slice_starts(struct slice s, struct slice prefix)
{
    return s.size >= prefix.size && slice_equal((struct slice){s.data, prefix.size}, prefix);
}

/* Eight at a time: a word of plain bytes alone has no high bit, nothing below ' ', and no DEL. A word that fails is looked at byte by
 * byte, so a borrow between its bytes does no harm. */
size_t slice_plain_prefix(struct slice s)
{
    const uint64_t each = 0x0101010101010101u, high = each * 0x80;
    size_t at = 0;
    for (; s.size - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, s.data + at, sizeof word);
        uint64_t without_del = word ^ each * 0x7f;
        if ((word | (word - each * ' ') | (without_del - each)) & high) {
            break;
        }
    }
    while (at < s.size && s.data[at] >= ' ' && s.data[at] < 0x7f) {
        at++;
    }
    return at;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t slice_distance(struct slice a, struct slice b)
{
    unsigned char rows[3][SLICE_DISTANCE_MAX + 1]; /* rows[i % 3][j]: from the first i letters of a to the first j of b */
    if (a.size > SLICE_DISTANCE_MAX || b.size > SLICE_DISTANCE_MAX) {
        return SIZE_MAX;
    }
    for (size_t i = 0; i <= a.size; i++) {
        unsigned char *row = rows[i % 3], *above = rows[(i + 2) % 3], *second = rows[(i + 1) % 3];
        row[0] = (unsigned char)i;
        for (size_t j = 1; j <= b.size; j++) {
            size_t least =
                i == 0 ? j : smaller(smaller(above[j], row[j - 1]) + 1u, above[j - 1] + !same_letter(a, i - 1, b, j - 1));
            if (i > 1 && j > 1 && same_letter(a, i - 1, b, j - 2) && same_letter(a, i - 2, b, j - 1)) {
                least = smaller(least, second[j - 2] + 1u);
            }
            row[j] = (unsigned char)least;
        }
    }
    return rows[a.size % 3][b.size];
}

char *slice_dup(struct slice s)
{
    char *copy = malloc(s.size + 1);
    if (copy) {
        if (s.size > 0) {
            memcpy(copy, s.data, s.size);
        }
        copy[s.size] = 0;
    }
    return copy;
}

bool slice_to_u64(struct slice s, uint64_t *value)
{
    if (s.size == 0 || s.size > 20) {
        return false;
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < s.size; i++) {
        unsigned digit = (unsigned)(unsigned char)s.data[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(sum, 10u, &sum) || __builtin_add_overflow(sum, digit, &sum)) {
            return false;
        }
    }
    *value = sum;
    return true;
}

void buf_init(struct buf *b, size_t limit)
{
    *b = (struct buf){.limit = limit};
}

void buf_free(struct buf *b)
{
    free(b->data);
    buf_init(b, b->limit);
}

void buf_reset(struct buf *b)
{
    b->size = 0;
    b->failed = false;
    if (b->data) {
        b->data[0] = 0;
    }
}

char *buf_take(struct buf *b)
{
    char *data = b->data ? b->data : calloc(1, 1);
    buf_init(b, b->limit);
    return data;
}

struct slice buf_slice(const struct buf *b)
{
    return (struct slice){b->data, b->size};
}

char *buf_reserve(struct buf *b, size_t n)
{
    if (b->failed || n > b->limit - b->size) {
        b->failed = true;
        return NULL;
    }
    size_t need = b->size + n + 1;
    if (need > b->capacity) {
        size_t capacity = b->capacity * 2 > need ? b->capacity * 2 : need;
        capacity = capacity < 64 ? 64 : capacity;
        char *data = realloc(b->data, capacity);
        if (!data) {
            b->failed = true;
            return NULL;
        }
        b->data = data;
        b->capacity = capacity;
    }
    return b->data + b->size;
}

void buf_append(struct buf *b, struct slice s)
{
    char *place = buf_reserve(b, s.size);
    if (place) {
        if (s.size > 0) {
            memcpy(place, s.data, s.size);
        }
        b->size += s.size;
        b->data[b->size] = 0;
    }
}

void buf_append_text(struct buf *b, const char *text)
{
    buf_append(b, slice_of(text));
}

void buf_append_char(struct buf *b, char c)
{
    buf_append(b, (struct slice){&c, 1});
}

void buf_appendf(struct buf *b, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *place = size >= 0 ? buf_reserve(b, (size_t)size) : NULL;
    if (place) {
        vsnprintf(place, (size_t)size + 1, format, again);
        b->size += (size_t)size;
    }
    va_end(again);
}

size_t utf8_decode(struct slice s, uint32_t *code_point)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (s.size == 0) {
        return 0;
    }
    unsigned char first = (unsigned char)s.data[0];
    size_t length = first < 0x80 ? 1 : (first >> 5) == 6 ? 2 : (first >> 4) == 14 ? 3 : (first >> 3) == 30 ? 4 : 0;
    if (length == 0 || length > s.size) {
        return 0;
    }
    uint32_t value = length == 1 ? first : first & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        unsigned char next = (unsigned char)s.data[i];
        if ((next & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (next & 0x3f);
    }
    if (value < smallest[length] || value > 0x10ffff) {
        return 0;
    }
    *code_point = value;
    return length;
}

size_t utf8_encode(uint32_t code_point, char out[4])
{
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    ASSERT(code_point <= 0x10ffff);
    size_t length = code_point < 0x80 ? 1 : code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    for (size_t i = length; i-- > 1;) {
        out[i] = (char)(0x80 | (code_point & 0x3f));
        code_point >>= 6;
    }
    out[0] = (char)(lead[length] | code_point);
    return length;
}

static bool is_surrogate(uint32_t code_point)
{
    return code_point >= 0xd800 && code_point <= 0xdfff;
}

static bool is_control(uint32_t code_point)
{
    return code_point < 0x20 || (code_point >= 0x7f && code_point <= 0x9f);
}

bool utf8_is_forbidden_in_mqtt(uint32_t code_point)
{
    return is_control(code_point) || is_surrogate(code_point) || (code_point >= 0xfdd0 && code_point <= 0xfdef) ||
           (code_point & 0xfffe) == 0xfffe;
}

static void append_escape(struct buf *b, uint32_t code_point)
{
    static const char *const named[] = {
        ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r", ['"'] = "\\\"", ['\\'] = "\\\\"};
    if (code_point < sizeof named / sizeof named[0] && named[code_point]) {
        buf_append_text(b, named[code_point]);
    } else {
        buf_appendf(b, "\\u%04x", (unsigned)code_point);
    }
}

/* The first byte from at on that must be looked at. As slice_plain_prefix, but for what JSON escapes of what is plain. */
static size_t pass_plain(struct slice s, size_t at)
{
    while (at < s.size && s.data[at] >= ' ' && s.data[at] < 0x7f && s.data[at] != '"' && s.data[at] != '\\') {
        at++;
    }
    return at;
}

void buf_append_json_string(struct buf *b, struct slice s)
{
    buf_append_char(b, '"');
    size_t plain = 0; /* start of the run that needs no escape */
    for (size_t at = pass_plain(s, 0); at < s.size; at = pass_plain(s, at)) {
        uint32_t code_point = 0xfffd;
        size_t length = utf8_decode((struct slice){s.data + at, s.size - at}, &code_point);
        bool escape =
            length == 0 || is_control(code_point) || code_point == '"' || code_point == '\\' || is_surrogate(code_point);
        length = length ? length : 1;
        if (escape) {
            buf_append(b, (struct slice){s.data + plain, at - plain});
            append_escape(b, code_point);
            plain = at + length;
        }
        at += length;
    }
    if (plain < s.size) {
        buf_append(b, (struct slice){s.data + plain, s.size - plain});
    }
    buf_append_char(b, '"');
}

void hex_encode(const uint8_t *bytes, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
}

/* Each digit's value, with a bit that tells it from what is none. */
enum { HEX_DIGIT = 0x10 };
static const uint8_t hex_digits[256] = {
    ['0'] = HEX_DIGIT | 0,  ['1'] = HEX_DIGIT | 1,  ['2'] = HEX_DIGIT | 2,  ['3'] = HEX_DIGIT | 3,  ['4'] = HEX_DIGIT | 4,
    ['5'] = HEX_DIGIT | 5,  ['6'] = HEX_DIGIT | 6,  ['7'] = HEX_DIGIT | 7,  ['8'] = HEX_DIGIT | 8,  ['9'] = HEX_DIGIT | 9,
    ['a'] = HEX_DIGIT | 10, ['b'] = HEX_DIGIT | 11, ['c'] = HEX_DIGIT | 12, ['d'] = HEX_DIGIT | 13, ['e'] = HEX_DIGIT | 14,
    ['f'] = HEX_DIGIT | 15, ['A'] = HEX_DIGIT | 10, ['B'] = HEX_DIGIT | 11, ['C'] = HEX_DIGIT | 12, ['D'] = HEX_DIGIT | 13,
    ['E'] = HEX_DIGIT | 14, ['F'] = HEX_DIGIT | 15,
};

bool hex_decode(struct slice hex, uint8_t *out, size_t n)
{
    if (hex.size != 2 * n) {
        return false;
    }
    const unsigned char *digits = (const unsigned char *)hex.data;
    for (size_t i = 0; i < n; i++) {
        uint8_t high = hex_digits[digits[2 * i]], low = hex_digits[digits[2 * i + 1]];
        if (!(high & low & HEX_DIGIT)) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | (low & 15));
    }
    return true;
}
