/* http_internal: what the files of the HTTP server share. http_server.c has the loops, http_request.c a request's way,
 * http_reply.c the answers, http_stream.c those that go on, http_refusal.c those that libmicrohttpd would give by itself,
 * http_deadline.c the clocks, http_socket.c what libmicrohttpd receives.
 *
 * One libmicrohttpd daemon a loop, with external epoll and without a listening socket: its own epoll threads hang when exactly
 * 128 sockets are ready in one turn, and its accepting knows neither a limit over all loops nor what to do without a free
 * descriptor. So a loop polls its daemon's epoll descriptor, the listening socket that all loops share, and an eventfd that
 * wakes it; accepts by itself; and lets MHD_run do the rest.
 *
 * A connection has one request at a time, so the request lives in the connection. A parked connection is suspended, and
 * libmicrohttpd neither closes nor times out such a one: so it and its request outlive whatever the client does, and the
 * answer is made (handler.resumed) before the connection is resumed.
 *
 *   IDLE ─request line─▶ HEADERS ─▶ BODY ─whole─▶ WHOLE ─▶ ANSWERED ─▶ IDLE, or closed
 *                           │        │              └─▶ PARKED ─resumed─▶ ANSWERED
 *                           │        └─too large, no memory─▶ DISCARD
 *                           ├─answered, body small─▶ DISCARD ─whole─▶ ANSWERED
 *                           └─answered early─▶ ANSWERED ─▶ closed, lingering (http_linger.h)
 *                                      WHOLE ─▶ STREAMING ─closed, or the client gone─▶ IDLE, or closed
 *   IDLE, HEADERS, BODY, DISCARD ─time is up, or malformed─▶ refused, LINGERING ─▶ closed
 *
 * Invariants, in the loop's thread:
 *   1. is_known from handler.headers to handler.finished, and server->under_way counts those requests.
 *   2. reply.response is set from http_request_answer until it is handed to libmicrohttpd or the request ends.
 *   3. A suspended connection is PARKED, or STREAMING with nothing to send, and no other; its socket is parked (http_socket.h). */
#ifndef MEOWBRIDGE_HTTP_INTERNAL_H
#define MEOWBRIDGE_HTTP_INTERNAL_H

#include "http_linger.h"
#include "http_listen.h"
#include "http_parser.h"
#include "http_socket.h"
#include "http_tls.h"
#include "meowbridge/heartbeat.h"
#include "meowbridge/http_server.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

struct MHD_Connection;
struct MHD_Daemon;
struct MHD_Response;

enum {
    HTTP_MAX_LOOPS = 64,
    HTTP_MAX_SINGLES = 8,
    HTTP_FIXED_FDS = 3,
    HTTP_CROWD = 256 /* connections whose memory is worth giving back */
};

enum http_phase {
    PHASE_IDLE,    /* nothing of a request, or a part of its first line */
    PHASE_HEADERS, /* the request line is in */
    PHASE_BODY,
    PHASE_DISCARD, /* the answer is there, the rest of the body is thrown away first */
    PHASE_WHOLE,   /* with the handler */
    PHASE_PARKED,
    PHASE_ANSWERED,  /* the answer is libmicrohttpd's to send */
    PHASE_STREAMING, /* so is its head, and what is written to the stream */
    PHASE_LINGERING  /* answered past libmicrohttpd, and closed for writing */
};

struct http_reply {
    struct MHD_Response *response; /* NULL: none, or no memory for it */
    unsigned status;
    struct slice body; /* of response */
    bool is_kept;      /* the connection's */
};

struct http_request {
    enum http_phase phase;
    bool is_known, is_answered, is_chunked;
    bool is_coding_hidden; /* libmicrohttpd does not know that it is chunked */
    bool is_resumed;       /* the resumer's, until the loop has the request back */
    struct http_request *next_resumed;
    struct http_connection *connection;
    struct slice method, path;
    struct slice singles[HTTP_MAX_SINGLES]; /* values of the server's */
    uint64_t names_seen;                    /* a bit for each header, see name_bit */
    struct buf target, body;
    struct http_parser chunks; /* is_chunked: decodes the body */
    size_t head_size;          /* request line and headers, as they came */
    uint64_t declared;         /* Content-Length */
    size_t discarded;
    struct http_reply reply;
    struct http_stream *stream; /* NULL: the answer is whole */
    void *user;
};

struct http_connection {
    struct http_connection *next, *previous;
    struct http_loop *loop;
    struct MHD_Connection *mhd;
    struct http_tls_credentials *credentials; /* NULL: no TLS */
    int fd;                                   /* libmicrohttpd's */
    struct http_socket socket;                /* what comes on it */
    bool is_early;                            /* answered before its request was read to the end */
    bool was_used;                            /* a request on it was answered */
    int64_t since_ms;       /* when the phase began; HEADERS, BODY, DISCARD: when the request's first byte came */
    int64_t first_byte_ms;  /* of a request whose first line is not whole; 0: none came */
    uint64_t bytes_settled; /* that the socket had received when the last request was over */
    struct http_peer peer;
    struct http_reply kept; /* the last answer that is status 200, JSON, and no more: the next one mostly has the same size */
    struct http_request request;
};

struct http_loop {
    pthread_mutex_t mutex;
    struct http_request *resumed, **resumed_end; /* guarded by mutex */

    struct http_server *server;
    unsigned index;
    int wake_fd, mhd_fd;
    pthread_t thread;
    struct heartbeat heartbeat;
    struct MHD_Daemon *daemon;
    struct http_connection *connections;
    struct http_connection *entering; /* while MHD_add_connection runs */
    unsigned parked;
    unsigned crowd; /* the most connections at a tick since memory was given back */
    struct http_stream *streams;
    atomic_bool streams_rang; /* look at them */
    int64_t rested_us;        /* when it last awoke, or called handler.at_rest; clock_mono_us */
    int64_t now_ms, next_tick_ms, accept_again_ms, warn_again_ms, settle_ms;
    bool is_quiescing, is_settled, is_ending;
    struct http_linger linger;
    struct pollfd fds[HTTP_FIXED_FDS + LINGER_MAX];
};

struct http_server {
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a loop has settled, or under_way is 0 */
    unsigned settled;       /* loops whose grace is over; guarded by mutex */

    struct http_server_options options;     /* its strings are gone behind http_server_open, but for name: see below */
    struct slice singles[HTTP_MAX_SINGLES]; /* the strings that options.single_headers listed: those are borrowed for ever */
    size_t single_count;
    char name[24];
    struct http_listener listener; /* read by loops that accept; closed by the last of them */
    struct http_tls *tls;
    struct http_peer_counts peer_counts;
    atomic_uint connections, under_way, accepting, drainers, resumers;
    atomic_bool is_quiescing, is_stopping;
    uint16_t port;
    int64_t tick_ms;
    unsigned started;
    struct http_loop loops[];
};

/* --- http_request.c --- */

void http_phase_enter(struct http_connection *connection, enum http_phase phase); /* the only one that assigns it */
/* Ends the request on the connection: handler.finished if that is due, memory. Again is harmless. */
void http_request_finish(struct http_connection *connection);
/* Ends it before it was read to its end: sends its reply past libmicrohttpd and closes the connection for writing. */
void http_request_cut(struct http_connection *connection);

/* --- http_reply.c --- */

struct http_reply http_reply_make(const struct http_answer *answer);
/* The same for a request on the connection, which keeps what can serve once more. Only when its last answer has been sent. */
struct http_reply http_reply_on(struct http_connection *connection, const struct http_answer *answer);
void http_reply_forget(struct http_connection *connection);
typedef ssize_t http_reader(void *ctx, uint64_t position, char *out, size_t max); /* libmicrohttpd's, which calls it */
struct http_reply http_reply_stream(const struct http_answer *head, http_reader *reader, void *ctx);
/* A refusal of the server's own, which handler.refused is told of. */
struct http_reply http_reply_error(struct http_request *request, unsigned status, const char *message);
void http_reply_drop(struct http_reply *reply);
bool http_reply_add_header(struct http_reply *reply, const char *name, const char *value);
/* Sends the request's reply past libmicrohttpd, where that cannot send it any more, and says that it is the last. Drops it. */
void http_reply_send_last(struct http_connection *connection);

/* --- http_refusal.c --- */

MUST_CHECK enum err http_refusal_init(struct error *why); /* before the first loop runs; again is harmless */
/* Hands the reply to libmicrohttpd; false: it does not take it. Only so: what calls MHD_queue_response is the library. */
MUST_CHECK bool http_reply_queue(struct http_connection *connection, const struct http_reply *reply);

/* --- http_stream.c --- */

void http_streams_turn(struct http_loop *loop);             /* sends what was written; once a turn, before MHD_run */
void http_streams_end(struct http_loop *loop);              /* their writers are told; what is queued is still sent */
void http_streams_cut(struct http_loop *loop);              /* at once; MHD_run takes them back */
void http_stream_check(struct http_connection *connection); /* has the client gone while nothing was sent? */
void http_stream_detach(struct http_request *request);      /* the request is over; without a stream nothing happens */

/* --- http_server.c --- */

void http_loop_wake(struct http_loop *loop);

/* --- http_deadline.c --- */

/* A request on a connection that lives on is over: so much of what was received belongs to requests that are over. */
void http_deadline_settle_bytes(struct http_connection *connection);
void http_deadline_tick(struct http_loop *loop); /* does nothing before next_tick_ms */
/* Closes for reading where no request is under way, as far as can be told. What is in the socket is still read. */
void http_deadline_close_resting(struct http_loop *loop);

#endif
