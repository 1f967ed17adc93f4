/* http_head: internal to the HTTP server. Follows the bytes of a connection as they came, before libmicrohttpd has put its own
 * NULs over line ends, and tells of a request's head what cannot be seen of it any more behind the parser: whether a NUL came in
 * it, or in the empty lines before it. Pure, and without memory of the bytes.
 *
 *   BEFORE ─a byte but CR and LF─▶ LINES ─CR LF CR LF─▶ BEHIND ─http_head_pass─▶ BODY ─whole─▶ BEFORE
 *
 * Where the head ends can be told by its bytes, where the body ends cannot: so what comes in state BEHIND is only counted, and
 * looked at by http_head_pass, which is told of the body, where it lies. What is in the body is not looked at.
 *
 * A head ends here as RFC 9112 has it. Where the parser ends it earlier (at LF LF, say) http_audit finds it, and where the parser
 * begins it later (it takes a line with nothing but a NUL for an empty one) it is not clean. So of what passes both mean the same. */
#ifndef MEOWBRIDGE_HTTP_HEAD_H
#define MEOWBRIDGE_HTTP_HEAD_H

#include "meowbridge/bytes.h"

#include <stdbool.h>
#include <stdint.h>

enum http_head_state { HTTP_HEAD_BEFORE, HTTP_HEAD_LINES, HTTP_HEAD_BEHIND, HTTP_HEAD_BODY };

#define HTTP_HEAD_UNTIL_END UINT64_MAX /* a body whose end is the connection's */

struct http_head { /* zeroed: the begin of a connection */
    enum http_head_state state;
    bool has_nul;
    unsigned matched; /* LINES: bytes of CR LF CR LF that came last */
    uint64_t behind;  /* BEHIND: bytes that came behind the head */
    uint64_t left;    /* BODY: bytes of it that are still to come */
};

/* The next bytes of the connection. */
void http_head_feed(struct http_head *head, struct slice bytes);
/* The parser takes the head for whole: was it, and without a NUL? */
bool http_head_is_clean(const struct http_head *head);
/* Goes on behind a clean head: what came behind it lies at end, and the first body_size bytes of that are its body. */
void http_head_pass(struct http_head *head, const char *end, uint64_t body_size);

#endif
