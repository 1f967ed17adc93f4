/* fuzz: what the targets share. A target is one file, fuzz_NAME.c, with one LLVMFuzzerTestOneInput: it feeds the input to the
 * module and ASSERTs what must hold of whatever comes out. The preset "fuzz" links it with libFuzzer; all others link replay.c,
 * which runs corpus/NAME and regressions/NAME as an ordinary test.
 *
 * Inputs are made to be read and written by hand where they are text: fields stand one behind the other, each ended by the byte
 * ff, which is no part of UTF-8. */
#ifndef FUZZ_H
#define FUZZ_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_END ((char)0xff)
enum { FUZZ_MAX_FIELDS = 32 };

/* The fields of an input, each in memory of its own and of its exact size, so that reading over its end is seen. */
struct fuzz_input {
    struct slice rest;
    char *owned[FUZZ_MAX_FIELDS];
    size_t count;
};

static inline struct fuzz_input fuzz_begin(const uint8_t *data, size_t size)
{
    return (struct fuzz_input){.rest = {(const char *)data, size}};
}

static inline void fuzz_end(struct fuzz_input *in)
{
    for (size_t i = 0; i < in->count; i++) {
        free(in->owned[i]);
    }
    in->count = 0;
}

static inline struct slice fuzz_own(struct fuzz_input *in, struct slice s)
{
    ASSERT(in->count < FUZZ_MAX_FIELDS);
    char *copy = malloc(s.size > 0 ? s.size : 1);
    ASSERT(copy);
    if (s.size > 0) {
        memcpy(copy, s.data, s.size);
    }
    in->owned[in->count++] = copy;
    return (struct slice){copy, s.size};
}

static inline uint8_t fuzz_byte(struct fuzz_input *in)
{
    if (in->rest.size == 0) {
        return 0;
    }
    uint8_t byte = (uint8_t)in->rest.data[0];
    in->rest = (struct slice){in->rest.data + 1, in->rest.size - 1};
    return byte;
}

static inline struct slice fuzz_field(struct fuzz_input *in)
{
    const char *end = in->rest.size > 0 ? memchr(in->rest.data, FUZZ_END, in->rest.size) : NULL;
    size_t size = end ? (size_t)(end - in->rest.data) : in->rest.size, taken = end ? size + 1 : size;
    struct slice field = {in->rest.data, size};
    if (taken > 0) {
        in->rest = (struct slice){in->rest.data + taken, in->rest.size - taken};
    }
    return fuzz_own(in, field);
}

static inline struct slice fuzz_rest(struct fuzz_input *in)
{
    struct slice rest = in->rest;
    in->rest.size = 0;
    return fuzz_own(in, rest);
}

/* UTF-8; with surrogates where they may stand (WTF-8). */
static inline bool fuzz_is_utf8(struct slice s, bool surrogates)
{
    while (s.size > 0) {
        uint32_t c;
        size_t length = utf8_decode(s, &c);
        if (length == 0 || (!surrogates && c >= 0xd800 && c <= 0xdfff)) {
            return false;
        }
        s = (struct slice){s.data + length, s.size - length};
    }
    return true;
}

/* What may stand in an MQTT string. */
static inline bool fuzz_is_mqtt_text(struct slice s)
{
    while (s.size > 0) {
        uint32_t c;
        size_t length = utf8_decode(s, &c);
        if (length == 0 || utf8_is_forbidden_in_mqtt(c)) {
            return false;
        }
        s = (struct slice){s.data + length, s.size - length};
    }
    return true;
}

static inline bool fuzz_contains(struct slice s, struct slice part)
{
    return part.size > 0 && s.size > 0 && memmem(s.data, s.size, part.data, part.size) != NULL;
}

#endif
