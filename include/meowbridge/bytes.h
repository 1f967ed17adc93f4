/* bytes: borrowed slices, bounded growing buffers, and the small encodings that everybody needs.
 * Nothing here allocates but struct buf; nothing locks; every function may be called from any thread on its own data. */
#ifndef MEOWBRIDGE_BYTES_H
#define MEOWBRIDGE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that somebody else owns. data may be NULL if size is 0. Not NUL-terminated. */
struct slice {
    const char *data;
    size_t size;
};

/* A user property of MQTT, or an attribute of CloudEvents. */
struct named_value {
    struct slice name, value;
};

#define SLICE(literal) ((struct slice){(literal), sizeof(literal) - 1})
/* For printf("%.*s"). */
#define SLICE_ARGS(s) (int)(s).size, ((s).data ? (s).data : "")

struct slice slice_of(const char *text);                 /* of a NUL-terminated string; NULL gives an empty slice */
bool slice_equal(struct slice a, struct slice b);        /* same bytes; not constant time */
bool slice_equal_nocase(struct slice a, struct slice b); /* ASCII letters compared without case */
bool slice_starts(struct slice s, struct slice prefix);
size_t slice_plain_prefix(struct slice s); /* how many bytes at its start are printable ASCII, U+0020 to U+007E */
/* How many letters to insert, delete, replace, or swap with the next one, to make b of a, without regard to ASCII case: how near
 * is a slip of the finger? SIZE_MAX where one of them is longer than SLICE_DISTANCE_MAX. */
#define SLICE_DISTANCE_MAX 64
size_t slice_distance(struct slice a, struct slice b);
char *slice_dup(struct slice s);                    /* a malloc'd NUL-terminated copy, NULL without memory */
bool slice_to_u64(struct slice s, uint64_t *value); /* 1 to 20 decimal digits and nothing else, no overflow */

/* A growing buffer with a limit. An append that would pass the limit, or that gets no memory, sets failed and leaves the
 * contents as they are; every later append does nothing. So a caller appends freely and looks at failed once, at the end.
 * Invariant: data[size] == 0 whenever data is not NULL. */
struct buf {
    char *data;
    size_t size, capacity;
    size_t limit; /* bytes of content, at most */
    bool failed;
};

void buf_init(struct buf *b, size_t limit);
void buf_free(struct buf *b);  /* leaves it as buf_init would */
void buf_reset(struct buf *b); /* empty, not failed; keeps the memory */
char *buf_take(struct buf *b); /* gives the malloc'd content away ("" is allocated if need be; NULL without memory) */
struct slice buf_slice(const struct buf *b);

void buf_append(struct buf *b, struct slice s);
void buf_append_text(struct buf *b, const char *text);
void buf_append_char(struct buf *b, char c);
void buf_appendf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Makes room for n more bytes at data + size and returns that place, or NULL (failed). The caller then adds to size. */
char *buf_reserve(struct buf *b, size_t n);
/* A JSON string with its quotes (RFC 8259). Valid UTF-8 stays as it is; control characters (DEL and C1 too, which terminals
 * obey), the quote and the backslash are escaped; a surrogate encoded as three bytes (which jsonscan makes of an escaped lone surrogate) becomes \udXXX again; any
 * other invalid byte becomes \ufffd. */
void buf_append_json_string(struct buf *b, struct slice s);

/* One code point of UTF-8 at s.data[0], RFC 3629; a surrogate in three bytes is also taken (WTF-8), so that an escaped lone
 * surrogate survives. Returns its length, 1 to 4, or 0 where the bytes are no such encoding or s is empty. */
size_t utf8_decode(struct slice s, uint32_t *code_point);
/* Writes 1 to 4 bytes, surrogates included, and returns how many. code_point <= 0x10ffff. */
size_t utf8_encode(uint32_t code_point, char out[4]);
/* What MQTT and CloudEvents strings may not hold: U+0000-001F, U+007F-009F, surrogates, the non-characters U+FDD0-FDEF and
 * U+xxFFFE, U+xxFFFF (OASIS MQTT 5 section 1.5.4; CloudEvents 1.0.2 section 3.1). */
bool utf8_is_forbidden_in_mqtt(uint32_t code_point);

void hex_encode(const uint8_t *bytes, size_t n, char *out); /* 2n lower-case digits, no NUL */
bool hex_decode(struct slice hex, uint8_t *out, size_t n);  /* exactly 2n digits of either case */

#endif
