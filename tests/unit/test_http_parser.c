#include "test.h"

#include "../../bridge/ports/http_parser.h"

enum { MAX_BODY = 32 };

/* Feeds text in pieces of this size and then, if it is still open, the end of the connection. */
static enum err parse(struct http_parser *parser, bool head_only, struct slice text, size_t piece, size_t *used,
                      struct error *why)
{
    http_parser_start(parser, head_only);
    *used = 0;
    while (*used < text.size && parser->state != HTTP_PARSER_DONE) {
        size_t taken = 0, size = text.size - *used < piece ? text.size - *used : piece;
        enum err err = http_parser_feed(parser, (struct slice){text.data + *used, size}, &taken, why);
        if (err) {
            return err;
        }
        *used += taken;
    }
    return http_parser_close(parser, why);
}

static const struct {
    const char *text, *body;
    unsigned status;
    bool head_only, keep_alive;
    size_t unused; /* bytes behind the answer */
} good[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, false, true, 0},
    {"HTTP/1.1 200\r\ncontent-length:5  \r\n\r\nhelloNEXT", "hello", 200, false, true, 4},
    {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n", "", 503, false, true, 0},
    {"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok", "ok", 200, false, false, 0},
    {"HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 2\r\n\r\nok", "ok", 200, false, false, 0},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200, false, false, 0},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", "ok", 200, false, true, 0},
    {"HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end", 200, false, false, 0},
    {"HTTP/1.1 204 No Content\r\n\r\nNEXT", "", 204, false, true, 4},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "", 304, false, true, 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "", 200, true, true, 0},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nRetry-After: 1\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 1\r\n\r\n!",
     "!", 201, false, true, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n00A ; x=\"y\"\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\nN",
     "abc0123456789", 200, false, true, 1},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", 200, false, true, 0},
    /* A body of 40 bytes where 32 are taken. */
    {"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n0123456789012345678901234567890123456789",
     "01234567890123456789012345678901", 200, false, false, 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n01234567890123456789012345678901", "01234567890123456789012345678901", 200,
     false, true, 0},
};

static void answers_are_understood_however_the_bytes_come(void **state)
{
    (void)state;
    struct http_parser parser;
    http_parser_init(&parser, MAX_BODY);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        for (size_t piece = 1; piece < 200; piece = piece < 4 ? piece + 1 : piece * 5) {
            struct error why = {0};
            size_t used;
            struct slice text = slice_of(good[i].text);
            if (parse(&parser, good[i].head_only, text, piece, &used, &why)) {
                fail_msg("%s: %s", good[i].text, why.text);
            }
            assert_int_equal(parser.status, good[i].status);
            assert_slice(buf_slice(&parser.body), good[i].body);
            assert_int_equal(parser.keep_alive, good[i].keep_alive);
            if (parser.body.size < parser.body.limit) {
                assert_int_equal(text.size - used, good[i].unused);
            }
        }
    }
    http_parser_free(&parser);
}

static const struct {
    const char *text;
    enum err err;
    const char *why;
} bad[] = {
    {"", ERR_CLOSED, "the server closed the connection without an answer"},
    {"HTTP/1.1 200 O", ERR_CLOSED, "the server closed the connection in the middle of its answer"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", ERR_CLOSED,
     "the server closed the connection in the middle of its answer"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", ERR_CLOSED,
     "the server closed the connection in the middle of its answer"},
    {"220 mail ready\r\n", ERR_INVALID, "the answer is not HTTP/1.1"},
    {"\x15\x03\x03", ERR_INVALID, "the answer is not HTTP/1.1"},
    {"HTTP/2 200 OK\r\n\r\n", ERR_INVALID, "the answer is not HTTP/1.1"},
    {"HTTP/1.2 200 OK\r\n\r\n", ERR_INVALID, "the answer's status line is malformed"},
    {"HTTP/1.1 99 OK\r\n\r\n", ERR_INVALID, "the answer's status line is malformed"},
    {"HTTP/1.1 600 OK\r\n\r\n", ERR_INVALID, "the answer's status line is malformed"},
    {"HTTP/1.1 2000\r\n\r\n", ERR_INVALID, "the answer's status line is malformed"},
    {"HTTP/1.1 -20 OK\r\n\r\n", ERR_INVALID, "the answer's status line is malformed"},
    {"HTTP/1.1\r\n\r\n", ERR_INVALID, "the answer's status line is malformed"},
    {"HTTP/1.1 101 Switching\r\n\r\n", ERR_INVALID, "the answer is 101 to a request that asked for no other protocol"},
    {"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", ERR_INVALID, "the answer has a malformed header line"},
    {"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n", ERR_INVALID, "the answer has a malformed header line"},
    {"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", ERR_INVALID, "the answer has a malformed header line"},
    {"HTTP/1.1 200 OK\r\n: b\r\n\r\n", ERR_INVALID, "the answer has a malformed header line"},
    {"HTTP/1.1 200 OK\r\nA\r\n\r\n", ERR_INVALID, "the answer has a malformed header line"},
    {"HTTP/1.1 200 OK\r\nA: b\r\n c: d\r\n\r\n", ERR_INVALID, "the answer has a malformed header line"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", ERR_INVALID,
     "the answer's Content-Length is not one number"},
    {"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na", ERR_INVALID, "the answer's Content-Length is not one number"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\na", ERR_INVALID,
     "the answer's Content-Length is not one number"},
    {"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\na", ERR_INVALID, "the answer's Content-Length is not one number"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", ERR_INVALID,
     "the answer's Transfer-Encoding is not \"chunked\""},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ERR_INVALID, "the answer's Transfer-Encoding is not \"chunked\""},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ERR_INVALID,
     "the answer's Transfer-Encoding is not \"chunked\""},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", ERR_INVALID,
     "the answer has both Content-Length and Transfer-Encoding"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", ERR_INVALID, "a chunk of the answer has a malformed size"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", ERR_INVALID, "a chunk of the answer has a malformed size"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", ERR_INVALID,
     "a chunk of the answer has a malformed size"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n", ERR_INVALID,
     "a line of the answer's chunked coding does not end in CR LF"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", ERR_INVALID,
     "a chunk of the answer is longer than its size"},
};

static void what_is_not_sound_http_is_refused_with_its_reason(void **state)
{
    (void)state;
    struct http_parser parser;
    http_parser_init(&parser, MAX_BODY);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        for (size_t piece = 1; piece < 200; piece += 99) {
            struct error why = {0};
            size_t used;
            assert_int_equal(parse(&parser, false, slice_of(bad[i].text), piece, &used, &why), bad[i].err);
            assert_string_equal(why.text, bad[i].why);
        }
    }
    http_parser_free(&parser);
}

static enum err parse_padded(struct http_parser *parser, const char *before, size_t padding, const char *after,
                             struct error *why)
{
    struct buf text;
    size_t used;
    buf_init(&text, 1 << 20);
    buf_append_text(&text, before);
    for (size_t i = 0; i < padding; i++) {
        buf_append_char(&text, 'x');
    }
    buf_append_text(&text, after);
    assert_false(text.failed);
    enum err err = parse(parser, false, buf_slice(&text), 5000, &used, why);
    buf_free(&text);
    return err;
}

static void headers_and_trailers_end_at_64_kib(void **state)
{
    (void)state;
    struct http_parser parser;
    struct error why = {0};
    http_parser_init(&parser, MAX_BODY);
    const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: ", end[] = "\r\n\r\n";
    size_t fits = HTTP_PARSER_MAX_HEAD - strlen(head) - strlen(end);
    assert_int_equal(parse_padded(&parser, head, fits, end, &why), ERR_NONE);
    assert_int_equal(parse_padded(&parser, head, fits + 1, end, &why), ERR_INVALID);
    assert_string_equal(why.text, "the answer's headers are over 64 KiB");

    const char chunk[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    assert_int_equal(parse_padded(&parser, chunk, HTTP_PARSER_MAX_HEAD - 2, end, &why), ERR_NONE);
    assert_int_equal(parse_padded(&parser, chunk, HTTP_PARSER_MAX_HEAD - 2, "\r\nA: b\r\n\r\n", &why), ERR_INVALID);
    assert_string_equal(why.text, "the answer's trailers are over 64 KiB");
    assert_int_equal(parse_padded(&parser, chunk, HTTP_PARSER_MAX_HEAD, end, &why), ERR_INVALID);
    assert_string_equal(why.text, "a line of the answer's chunked coding is over 64 KiB");
    http_parser_free(&parser);
}

static void retry_after_is_taken_in_seconds_and_of_the_final_answer_only(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool has;
        unsigned seconds;
    } cases[] = {
        {"HTTP/1.1 503 x\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n", true, 30},
        {"HTTP/1.1 503 x\r\nRetry-After: 99999999999\r\nContent-Length: 0\r\n\r\n", true, UINT32_MAX},
        {"HTTP/1.1 503 x\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n", false, 0},
        {"HTTP/1.1 103 x\r\nRetry-After: 30\r\n\r\nHTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", false, 0},
        {"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", false, 0},
    };
    struct http_parser parser;
    http_parser_init(&parser, MAX_BODY);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error why;
        size_t used;
        assert_int_equal(parse(&parser, false, slice_of(cases[i].text), 100, &used, &why), ERR_NONE);
        assert_int_equal(parser.has_retry_after, cases[i].has);
        if (cases[i].has) {
            assert_int_equal(parser.retry_after_s, cases[i].seconds);
        }
    }
    http_parser_free(&parser);
}

static enum err parse_body(struct http_parser *parser, const char *text, size_t piece, size_t *used)
{
    enum err err = ERR_NONE;
    http_parser_start_body(parser);
    *used = 0;
    for (size_t size = strlen(text), taken; !err && *used < size && parser->state != HTTP_PARSER_DONE; *used += taken) {
        size_t part = size - *used < piece ? size - *used : piece;
        err = http_parser_feed(parser, (struct slice){text + *used, part}, &taken, NULL);
    }
    return err;
}

static void the_chunked_body_of_a_request_is_held_to_the_letter(void **state)
{
    (void)state;
    static const char *const sound[] = {"3\r\nabc\r\n0\r\n\r\nNEXT", "0003\r\nabc\r\n000\r\n\r\nNEXT",
                                        "1\r\na\r\n2;x=\"y z\"\r\nbc\r\n0;y\r\nA: b\r\nC:\r\n\r\nNEXT"};
    static const char *const unsound[] = {"3\nabc\r\n0\r\n\r\n",
                                          "3\r\nabc\n0\r\n\r\n",
                                          "3\r\nabc\r\n0\n\r\n",
                                          "3\r\nabc\r\n0\r\n\n",
                                          "3 \r\nabc\r\n0\r\n\r\n",
                                          " 3\r\nabc\r\n0\r\n\r\n",
                                          "3\t;x\r\nabc\r\n0\r\n\r\n",
                                          "3;\x01\r\nabc\r\n0\r\n\r\n",
                                          "3;a\rb\r\nabc\r\n0\r\n\r\n",
                                          "0x3\r\nabc\r\n0\r\n\r\n",
                                          "+3\r\nabc\r\n0\r\n\r\n",
                                          "\r\n",
                                          ";x\r\n",
                                          "3\r\nabcd\r\n0\r\n\r\n",
                                          "4\r\nabc\r\n0\r\n\r\n",
                                          "10000000000000000\r\n",
                                          "0\r\nno colon\r\n\r\n",
                                          "0\r\nA : b\r\n\r\n",
                                          "0\r\nA: b\r\n c\r\n\r\n",
                                          "0\r\nA: b\x7f\r\n\r\n"};
    struct http_parser parser;
    size_t used;
    http_parser_init(&parser, MAX_BODY);
    for (size_t piece = 1; piece < 100; piece *= 3) {
        for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++) {
            assert_int_equal(parse_body(&parser, sound[i], piece, &used), ERR_NONE);
            assert_int_equal(parser.state, HTTP_PARSER_DONE);
            assert_true(parser.keep_alive && slice_equal(buf_slice(&parser.body), SLICE("abc")));
            assert_int_equal(used, strlen(sound[i]) - 4);
        }
        for (size_t i = 0; i < sizeof unsound / sizeof unsound[0]; i++) {
            assert_int_equal(parse_body(&parser, unsound[i], piece, &used), ERR_INVALID);
        }
        assert_int_equal(parse_body(&parser, "21\r\n012345678901234567890123456789012\r\n", piece, &used), ERR_NONE);
        assert_true(parser.state == HTTP_PARSER_DONE && !parser.keep_alive); /* 33 bytes where 32 are taken */
    }
    http_parser_free(&parser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_understood_however_the_bytes_come),
        cmocka_unit_test(what_is_not_sound_http_is_refused_with_its_reason),
        cmocka_unit_test(headers_and_trailers_end_at_64_kib),
        cmocka_unit_test(the_chunked_body_of_a_request_is_held_to_the_letter),
        cmocka_unit_test(retry_after_is_taken_in_seconds_and_of_the_final_answer_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
