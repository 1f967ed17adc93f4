/* http_server: the HTTP port, libmicrohttpd behind loops of our own.
 *
 * Each loop is one thread: epoll on libmicrohttpd's descriptor and on an eventfd. A request goes through these states:
 *
 *   HEADERS ──handler.headers──▶ (answered there) or READING ──whole body──▶ handler.whole
 *   handler.whole ──▶ http_request_answer                                  ──▶ ANSWERED ──▶ gone
 *                 └─▶ http_request_park … http_requests_resume (any thread) ──▶ handler.resumed ──▶ http_request_answer
 *
 * The server knows HTTP and nothing of webhooks. It refuses by itself, with the handler's error body (handler.error_body):
 *   400  what two HTTP parsers could read differently: more than one Content-Length or Host, no Host in HTTP/1.1,
 *        Content-Length beside Transfer-Encoding, a Transfer-Encoding that is not exactly "chunked" or in HTTP/1.0, a header
 *        name that is no token, a folded line, a line not ended by CR LF, a NUL or another control character, a target in
 *        absolute form (http://host/path) that contradicts Host; or a second
 *        header of a name in http_server_options.single_headers. Before handler.headers; closes the connection
 *   408  a request that is not whole within timeout_ms of its first byte, however it drips
 *   413  a body over max_body, where handler.headers did not answer otherwise: before reading where Content-Length tells; a
 *        chunked one where it becomes too large, and closes the connection
 *   414, 431  a head that does not fit into http_server_options.max_head, for its first line or for its headers; trailers over
 *        16 KiB
 *   505  HTTP of another major version than 1
 *   400  any other protocol error: a request line, a header, a Content-Length that is none, a chunked body that is not to the
 *        letter (RFC 9112 section 7.1: a line ended by LF, a blank, a size over 16 digits). Closes the connection, as
 *        the former two do. (Without an answer where the first line has not even a blank.)
 * A connection that sends nothing is closed after timeout_ms (with a 408 under TLS and on a Unix socket, where silence after the
 * handshake looks as dripping does), one that idles after a request after max(timeout_ms, 75 s).
 * A chunked body ends its connection: nothing that follows it is read as a request.
 * An answer of handler.headers comes after a declared body of up to 64 KiB, which is thrown away, and the connection lives;
 * before any other body it comes at once and closes the connection, without resetting it under the answer. */
#ifndef MEOWBRIDGE_HTTP_SERVER_H
#define MEOWBRIDGE_HTTP_SERVER_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_server;
struct http_request;

/* All hooks run in the loop thread of the request. */
struct http_handler {
    void *ctx;
    /* Headers are in, the body is not read. May answer at once (the body is then never read), or do nothing to go on. */
    void (*headers)(void *ctx, struct http_request *request);
    /* The whole request is in. Must answer or park. */
    void (*whole)(void *ctx, struct http_request *request);
    /* A parked request was resumed. Must answer; where the client has gone the answer is dropped. */
    void (*resumed)(void *ctx, struct http_request *request);
    /* The loop has done all that is at hand, or has not rested for 0.5 ms: hand on what was collected. loop: 0 … threads-1. May be
     * NULL. */
    void (*at_rest)(void *ctx, unsigned loop);
    /* The request is over (answered, or the client went away before handler.whole): free what user points to. Never while parked. */
    void (*finished)(void *ctx, struct http_request *request);
    /* Appends the body of an answer that the server gives by itself, status 4xx with its sentence. Any thread. */
    void (*error_body)(void *ctx, unsigned status, const char *message, struct buf *out);
    /* The server refuses a request by itself, for handler.headers has not seen it or has not answered. Its peer is known, its
     * method and path only where its headers were whole (else empty). May be NULL. */
    void (*refused)(void *ctx, const struct http_request *request, unsigned status, const char *message);
    const char *error_type; /* its content type; NULL: application/json */
};

struct http_server_options {
    const char *name; /* for threads and log lines: "http", "admin" */
    bool is_unix;
    const char *host;      /* numeric address, or */
    uint16_t port;         /* 0: any free one */
    const char *unix_path; /* a stale socket file is replaced; one in use is an error; removed at close */
    int listen_fd;         /* 0: none; else a socket that listens already and takes the place of these. The server closes it */
    unsigned threads;      /* loops, 1 to 64 */
    const char *tls_certificate_file, *tls_key_file; /* PEM; both NULL or empty: no TLS. TLS 1.2 at least */
    /* Memory for a request's first line and headers, 64 bytes for each header, cookie and query argument, cookies once more, and 1024
     * bytes for an answer's head; so at least 1024. It is cleared at each request. */
    size_t max_head;
    size_t max_body;
    int64_t timeout_ms;
    unsigned max_connections;        /* over all loops */
    unsigned max_connections_per_ip; /* 0: no limit */
    /* At most 8 names that may stand once only, NULL-terminated; may be NULL. The names are borrowed for ever. */
    const char *const *single_headers;
    struct http_handler handler;
};

/* Binds, reads the certificate, and starts the loops. ERR_CONFIG: the address is none or not this machine's, or a certificate
 * cannot be used; ERR_IO: the address is taken or not allowed, or the system refuses; the text names it and the remedy.
 * ERR_MEMORY, ERR_LIBRARY. Options are copied, but for the names in single_headers. */
MUST_CHECK enum err http_server_open(struct http_server **out, const struct http_server_options *options, struct error *why);
/* Stops accepting, refuses new connections, and closes idle ones after a grace of 0.2 s for requests that are on their way;
 * requests under way go on and are answered with Connection: close. Any thread; not a signal handler. */
void http_server_quiesce(struct http_server *server);
/* Waits until no request is under way, and the grace of http_server_quiesce is over if that was called, or deadline_ms
 * (clock_mono_ms) has passed; true if so. A request is under way from its whole headers until its answer is sent. */
bool http_server_drain(struct http_server *server, int64_t deadline_ms);
/* Stops the loops. Parked requests must have been resumed before. Accepts NULL. */
void http_server_close(struct http_server **server);

uint16_t http_server_port(const struct http_server *server); /* the bound one; 0 for a Unix socket */
/* Reads certificate and key again; new connections get them. On error the old ones stay. Only for a server opened with TLS. Any
 * thread. */
MUST_CHECK enum err http_server_reload_tls(struct http_server *server, const char *certificate_file, const char *key_file,
                                           struct error *why);

/* Could a server be opened with them? ERR_CONFIG names the file at fault; ERR_MEMORY, ERR_LIBRARY. */
MUST_CHECK enum err http_server_try_tls(const char *certificate_file, const char *key_file, struct error *why);

/* --- of a request, in its loop thread, until it is answered --- */

struct slice http_request_method(const struct http_request *request);
struct slice http_request_target(const struct http_request *request); /* raw, as in the request line, with the query */
struct slice http_request_path(const struct http_request *request);   /* the target up to '?' */
/* data NULL if absent; name without case. */
struct slice http_request_header(const struct http_request *request, const char *name);
/* All values of a header, in order, the first max of them in values. Returns how many there are. */
size_t http_request_headers(const struct http_request *request, const char *name, struct slice *values, size_t max);
struct slice http_request_body(const struct http_request *request);       /* empty before handler.whole */
char *http_request_take_body(struct http_request *request, size_t *size); /* malloc'd, now the caller's */
unsigned http_request_loop(const struct http_request *request);
struct slice http_request_peer(const struct http_request *request); /* "192.0.2.1", "::1", "unix" */

void http_request_set_user(struct http_request *request, void *user);
void *http_request_user(const struct http_request *request);

struct http_answer {
    unsigned status;
    struct slice body;            /* copied */
    const char *content_type;     /* NULL: application/json */
    const char *allow;            /* Allow, for 405; else NULL */
    unsigned retry_after_s;       /* Retry-After, 0: none */
    const char *www_authenticate; /* NULL: none */
    const char *const *headers;   /* more of them: name, value, …, NULL; may be NULL */
};
void http_request_answer(struct http_request *request, const struct http_answer *answer);

/* An answer whose body goes on: what is written to the stream follows the head of the answer, until it is closed. It waits without
 * a thread, and is never waited for: a client that lets more than max_queued bytes pile up is cut off. Called where
 * http_request_answer may be; head has no body. NULL: no memory, or the server is quiescing; then the request is not answered
 * yet. Quiescing ends all streams. */
struct http_stream;
struct http_stream *http_request_stream(struct http_request *request, const struct http_answer *head, size_t max_queued);
/* Queues bytes and never waits. False: nobody reads any more (the client has gone or was cut off, the server quiesces). Any
 * thread, one at a time. */
bool http_stream_write(struct http_stream *stream, struct slice bytes);
/* What is queued is still sent. May come after http_server_close. Accepts NULL. */
void http_stream_close(struct http_stream **stream);

/* Sets the request aside without holding a thread. Only from handler.whole; after it the loop does not touch the request
 * until http_requests_resume. */
void http_request_park(struct http_request *request);
/* Hands parked requests, all of one server, back to their loops, which call handler.resumed. One wake-up a loop and call. Any
 * thread, also a loop's. */
void http_requests_resume(struct http_request **requests, size_t count);

#endif
