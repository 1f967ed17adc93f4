/* http_audit: internal to the HTTP server. Looks at a request's head as the parser saw it, and finds what another parser could
 * read differently (request smuggling, RFC 9112 section 11.2). Pure. */
#ifndef MEOWBRIDGE_HTTP_AUDIT_H
#define MEOWBRIDGE_HTTP_AUDIT_H

#include "meowbridge/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Headers that may stand once only, and their values in a request: data NULL where it is absent. */
struct http_singles {
    const struct slice *names;
    struct slice *values;
    size_t count;
};

struct http_audit {
    struct http_singles singles;
    unsigned hosts, lengths, codings;
    bool expects_continue;
    struct slice host;
    uint64_t declared;        /* Content-Length, if there is one */
    const char *first, *next; /* where the first header line begins, and where one behind the last must */
    bool has_gap;             /* one did not begin there, or a NUL was in the head */
    char message[200];        /* the first fault; empty: none */
};

/* The values are set to absent. is_clean: of http_head, and all that is known of NULs where the parser has left none of its own. */
void http_audit_begin(struct http_audit *audit, const struct http_singles *singles, bool is_clean);
/* Each header in order. name and value must be the parser's own pointers into the head. */
void http_audit_header(struct http_audit *audit, struct slice name, struct slice value);
/* Ends it: the request line as parsed (method and version, too, where they came), and the size of the head on the wire from the
 * method's first byte on (the parser passes over empty lines before it, and counts none of them). Returns the sentence for a 400, or NULL. */
const char *http_audit_end(struct http_audit *audit, struct slice method, struct slice target, struct slice version,
                           size_t head_size);

/* host:port of a target in absolute form (http://host:port/path), else data NULL. */
struct slice http_target_authority(struct slice target);

#endif
