/* The small encodings. Input: any bytes. */
#include "fuzz.h"

#include "meowbridge/jsonscan.h"

#include <errno.h>

/* A slice read with strtoull, which takes signs and spaces that we do not. */
static bool reads_as(struct slice text, uint64_t *value)
{
    char copy[32] = {0};
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
    }
    if (text.size == 0 || text.size > 20) {
        return false;
    }
    memcpy(copy, text.data, text.size);
    errno = 0;
    *value = strtoull(copy, NULL, 10);
    return errno == 0;
}

static void check_number(struct slice text)
{
    uint64_t value = 0, expected = 0;
    bool good = slice_to_u64(text, &value);
    ASSERT(good == reads_as(text, &expected) && (!good || value == expected));
}

static void check_utf8(struct slice text)
{
    uint32_t c;
    char back[4];
    size_t length = utf8_decode(text, &c);
    ASSERT(length <= 4 && length <= text.size);
    if (length > 0) {
        ASSERT(c <= 0x10ffff && utf8_encode(c, back) == length && memcmp(back, text.data, length) == 0);
    }
}

/* A JSON string of any bytes is one, and of well-formed ones it reads back as the same. */
static void check_json(struct slice text)
{
    struct buf out, scratch;
    struct json_value value;
    buf_init(&out, 1 << 20);
    buf_append_json_string(&out, text);
    buf_init(&scratch, out.size);
    ASSERT(buf_reserve(&scratch, out.size));
    ASSERT(!out.failed && jsonscan_document(buf_slice(&out), &value, NULL, NULL) == ERR_NONE && value.type == JSON_STRING);
    for (struct slice rest = buf_slice(&out); rest.size > 0;) {
        uint32_t c;
        size_t length = utf8_decode(rest, &c);
        ASSERT(length > 0 && c >= 0x20 && !(c >= 0x7f && c <= 0x9f)); /* no terminal is told anything by it */
        rest = (struct slice){rest.data + length, rest.size - length};
    }
    struct slice back = jsonscan_unescape(&value, &scratch);
    if (fuzz_is_utf8(text, false)) {
        ASSERT(slice_equal(back, text));
    } else {
        ASSERT(fuzz_is_utf8(back, true));
    }
    buf_free(&out);
    buf_free(&scratch);
}

static void check_distance(struct slice a, struct slice b)
{
    size_t distance = slice_distance(a, b), longer = a.size > b.size ? a.size : b.size;
    ASSERT(distance == slice_distance(b, a));
    if (longer > SLICE_DISTANCE_MAX) {
        ASSERT(distance == SIZE_MAX);
    } else {
        ASSERT(distance <= longer && distance + (a.size < b.size ? a.size : b.size) >= longer);
        ASSERT((distance == 0) == slice_equal_nocase(a, b));
    }
}

static void check_hex(struct slice text)
{
    uint8_t bytes[16];
    char back[32];
    size_t n = text.size / 2 < sizeof bytes ? text.size / 2 : sizeof bytes;
    if (hex_decode((struct slice){text.data, 2 * n}, bytes, n)) {
        hex_encode(bytes, n, back);
        ASSERT(slice_equal_nocase((struct slice){back, 2 * n}, (struct slice){text.data, 2 * n}));
    }
    ASSERT(!hex_decode(text, bytes, text.size / 2 + 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size);
    struct slice a = fuzz_field(&in), b = fuzz_rest(&in);
    check_number(a);
    check_utf8(b);
    check_json(b);
    check_distance(a, b);
    check_hex(a);
    fuzz_end(&in);
    return 0;
}
