/* What an HTTP server answers, whole and in pieces: how the bytes come in must not matter.
 * Input: a byte that chooses (bit 0: to a HEAD request), a byte for the sizes of the pieces, the bytes of the connection. */
#include "fuzz.h"

#include "../../bridge/ports/http_parser.h"

enum { MAX_BODY = 48 };

struct outcome {
    enum err err;
    size_t used;
    struct http_parser parser;
};

/* The connection closes behind the bytes. step 0: all at once. */
static void run(struct outcome *o, struct slice bytes, bool head_only, size_t step)
{
    http_parser_init(&o->parser, MAX_BODY);
    http_parser_start(&o->parser, head_only);
    o->err = ERR_NONE;
    o->used = 0;
    while (o->err == ERR_NONE && o->used < bytes.size && o->parser.state != HTTP_PARSER_DONE) {
        size_t left = bytes.size - o->used, used = SIZE_MAX;
        size_t size = step == 0 || left < step ? left : step;
        struct error why = {0};
        o->err = http_parser_feed(&o->parser, (struct slice){bytes.data + o->used, size}, &used, &why);
        ASSERT(used <= size && (o->err == ERR_NONE || (o->err == ERR_INVALID && why.text[0])));
        ASSERT(o->err || used == size || o->parser.state == HTTP_PARSER_DONE);
        o->used += used;
    }
    if (o->err == ERR_NONE) {
        o->err = http_parser_close(&o->parser, NULL);
    }
    ASSERT((o->err == ERR_NONE) <= (o->parser.state == HTTP_PARSER_DONE));
    ASSERT(o->parser.body.size <= MAX_BODY && o->parser.line.size <= HTTP_PARSER_MAX_HEAD);
}

static void check_answer(const struct outcome *o, bool head_only)
{
    const struct http_parser *p = &o->parser;
    ASSERT(p->status >= 200 && p->status <= 599);
    ASSERT(!head_only || p->body.size == 0);
    ASSERT((p->status != 204 && p->status != 304) || p->body.size == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size);
    bool head_only = fuzz_byte(&in) & 1;
    size_t step = 1 + fuzz_byte(&in) % 64;
    struct slice bytes = fuzz_rest(&in);
    struct outcome whole, pieces;
    run(&whole, bytes, head_only, 0);
    run(&pieces, bytes, head_only, step);
    ASSERT(whole.err == pieces.err);
    if (whole.err == ERR_NONE) {
        check_answer(&whole, head_only);
        ASSERT(whole.parser.status == pieces.parser.status && whole.parser.keep_alive == pieces.parser.keep_alive);
        ASSERT(whole.parser.has_retry_after == pieces.parser.has_retry_after);
        ASSERT(slice_equal(buf_slice(&whole.parser.body), buf_slice(&pieces.parser.body)));
        /* What follows the answer is the next one's, unless the connection is of no use any more. */
        ASSERT(whole.used == pieces.used || !whole.parser.keep_alive);
    }
    http_parser_free(&whole.parser);
    http_parser_free(&pieces.parser);
    fuzz_end(&in);
    return 0;
}
