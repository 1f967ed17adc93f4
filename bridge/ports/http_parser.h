/* http_parser: reads the answers of an HTTP/1.1 server (RFC 9112), without any I/O, however the bytes come in; internal to
 * http_client. Also the chunked bodies of requests, for http_server.
 *
 *   HEAD ─▶ (1xx: HEAD again) ─┬─▶ DONE                                              HEAD request, 204, 304, length 0
 *                              ├─▶ LENGTH ─▶ DONE                                    Content-Length
 *                              ├─▶ CHUNK_LINE ─▶ CHUNK_DATA ─▶ CHUNK_END ─▶ CHUNK_LINE … ─▶ TRAILER ─▶ DONE
 *                              └─▶ UNTIL_CLOSE ─▶ DONE                               neither: the end of the connection
 *
 * Strict: lines end in CR LF; what two parsers could read differently (a second Content-Length, one beside
 * Transfer-Encoding, a folded line, a name that is no token) is an error. Bounded: 64 KiB of headers, as much of trailers;
 * a body over max_body is cut there, which ends the answer and the use of the connection. */
#ifndef MEOWBRIDGE_HTTP_PARSER_H
#define MEOWBRIDGE_HTTP_PARSER_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HTTP_PARSER_MAX_HEAD = 64 * 1024, HTTP_PARSER_MAX_BODY_TRAILER = 16 * 1024 };

enum http_parser_state {
    HTTP_PARSER_HEAD,
    HTTP_PARSER_LENGTH,
    HTTP_PARSER_UNTIL_CLOSE,
    HTTP_PARSER_CHUNK_LINE,
    HTTP_PARSER_CHUNK_DATA,
    HTTP_PARSER_CHUNK_END,
    HTTP_PARSER_TRAILER,
    HTTP_PARSER_DONE
};

struct http_parser {
    enum http_parser_state state;
    bool head_only; /* the request was HEAD: no body, whatever Content-Length says */
    bool is_body;   /* what is fed is the chunked body of a request, and nothing is forgiven */
    bool started;   /* a byte of the answer has come */
    /* Of the answer; they count once state is DONE. */
    unsigned status;
    bool keep_alive; /* the connection can take the next request */
    bool has_retry_after;
    unsigned retry_after_s; /* of Retry-After in seconds; its other form, a date, counts as none */
    struct buf body;
    /* Inside. */
    struct buf line; /* the head, or the line of the chunked coding, as far as it has come */
    uint64_t left;   /* bytes of the body or of the chunk that are still to come */
    size_t trailer_size;
};

void http_parser_init(struct http_parser *parser, size_t max_body);
void http_parser_free(struct http_parser *parser);
/* Ready for the next answer; keeps its memory. */
void http_parser_start(struct http_parser *parser, bool head_only);
/* Ready for a request's chunked body alone, held to the grammar: no blanks, no control characters, trailers that are header lines.
 * keep_alive is false at the end of one that was cut. Then http_parser_feed also gives ERR_FULL: over 16 KiB of trailers. */
void http_parser_start_body(struct http_parser *parser);
/* Takes what came. *used says how many bytes belong to this answer: all of them unless state is DONE. ERR_INVALID with what is
 * wrong (the parser must be started anew), ERR_MEMORY. */
MUST_CHECK enum err http_parser_feed(struct http_parser *parser, struct slice bytes, size_t *used, struct error *why);
/* The server closed the connection. ERR_CLOSED if that leaves the answer incomplete. */
MUST_CHECK enum err http_parser_close(struct http_parser *parser, struct error *why);

#endif
