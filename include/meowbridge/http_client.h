/* http_client: a small blocking HTTP/1.1 client, for the commands that play the sender or ask the running bridge. Plain TCP,
 * TLS (system trust store, names verified), or a Unix socket; keep-alive; every call has a deadline. One thread a client. */
#ifndef MEOWBRIDGE_HTTP_CLIENT_H
#define MEOWBRIDGE_HTTP_CLIENT_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <stdbool.h>
#include <stdint.h>

/* http://host[:port]/path, https://…; for a Unix socket http+unix://%2Frun%2Fx.sock/path. */
struct http_url {
    bool tls, is_unix;
    char host[256]; /* name or address without brackets; the socket's path if is_unix */
    uint16_t port;
    char authority[300]; /* for the Host header: as in the URL; "localhost" if is_unix */
    char target[2048];   /* path and query, at least "/" */
};
/* ERR_INVALID with what was expected. A user name is refused; a fragment is dropped. Implemented in http_url.c. */
MUST_CHECK enum err http_url_parse(struct slice text, struct http_url *out, struct error *why);

struct http_client;
/* Does not connect yet. insecure: accept any certificate. The trust store is the system's, or what SSL_CERT_FILE and
 * SSL_CERT_DIR name. ERR_MEMORY, ERR_LIBRARY (TLS cannot be set up). */
MUST_CHECK enum err http_client_open(struct http_client **out, const struct http_url *url, bool insecure, struct error *why);
void http_client_close(struct http_client **client); /* accepts NULL */
/* From now on a request ends with ERR_CLOSED as soon as fd (an eventfd, say) is readable. Borrowed; -1: none. */
void http_client_set_cancel(struct http_client *client, int fd);

struct http_reply {
    unsigned status;
    bool has_retry_after;
    unsigned retry_after_s;
    struct slice body; /* of the client, valid until the next call; cut at 1 MiB */
};
/* Sends one request with these header lines ("Name: value\r\n" each) beside Host and Content-Length, and reads the answer; an
 * empty target means the URL's. Connects first if there is no connection; a kept connection that turns out closed before any
 * byte of the answer came is opened anew once. An answer that comes before the request is all sent (413, say) is an answer.
 * ERR_TIMEOUT after timeout_ms, name resolution included; ERR_IO (no connection), ERR_CLOSED (the server went away, or
 * cancelled), ERR_LIBRARY (TLS), ERR_INVALID (not HTTP), ERR_MEMORY. */
MUST_CHECK enum err http_client_request(struct http_client *client, const char *method, struct slice target,
                                        struct slice headers, struct slice body, int64_t timeout_ms, struct http_reply *reply,
                                        struct error *why);

#endif
