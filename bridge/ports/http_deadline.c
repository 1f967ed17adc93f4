/* A connection's clocks, looked after at a tick for all connections of a loop: libmicrohttpd's own timeout starts again with
 * each byte that comes, so whoever drips would never be late.
 *
 * A request's time runs from its first byte, which is seen here in the kernel's count of bytes received; libmicrohttpd speaks
 * only when the first line is whole. */
#include "http_internal.h"

#include <linux/tcp.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { MIN_IDLE_MS = 75000, HALF_CLOSED_MS = 2000 };

/* Bytes that the socket has received since it was connected; of a Unix socket that is not known, and 0. */
static uint64_t bytes_received(const struct http_connection *c)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    return getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_bytes_received : 0;
}

/* Where every byte of a request is counted the kernel need not be asked: that saves a system call, and does not overlook the
 * part of a next request that came behind this one. */
void http_deadline_settle_bytes(struct http_connection *c)
{
    const struct http_request *r = &c->request;
    if (c->credentials || c->peer.address.ss_family == AF_UNIX) {
        c->bytes_settled = bytes_received(c);
    } else {
        c->bytes_settled += r->head_size + r->declared;
    }
}

static bool is_half_sent(const struct http_connection *c)
{
    return bytes_received(c) > c->bytes_settled;
}

static void refuse_late(struct http_connection *c)
{
    http_reply_drop(&c->request.reply);
    c->request.reply = http_reply_error(&c->request, 408, "request was not whole in time");
    http_request_cut(c);
}

static void check_idle(struct http_connection *c, int64_t timeout_ms)
{
    int64_t now_ms = c->loop->now_ms;
    int64_t idle_ms = c->was_used && timeout_ms < MIN_IDLE_MS ? MIN_IDLE_MS : timeout_ms;
    bool is_mute_unix = !c->was_used && c->peer.address.ss_family == AF_UNIX; /* it may have sent a part: nobody can tell */
    if (c->first_byte_ms == 0 && is_half_sent(c)) {
        c->first_byte_ms = now_ms;
    }
    if (c->first_byte_ms ? now_ms - c->first_byte_ms >= timeout_ms : is_mute_unix && now_ms - c->since_ms >= idle_ms) {
        refuse_late(c);
    } else if (!c->first_byte_ms && now_ms - c->since_ms >= idle_ms) {
        shutdown(c->fd, SHUT_RD);
    }
}

/* libmicrohttpd, edge-triggered, takes a read that did not fill its buffer for the last, and so overlooks an end that came in
 * one packet with a request. */
static bool has_ended(const struct http_connection *c)
{
    char next;
    return recv(c->fd, &next, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void check_arriving(struct http_connection *c, int64_t passed_ms, int64_t timeout_ms)
{
    if (has_ended(c)) {
        shutdown(c->fd, SHUT_RD); /* another edge */
    } else if (c->request.phase == PHASE_IDLE) {
        check_idle(c, timeout_ms);
    } else if (passed_ms >= timeout_ms) {
        refuse_late(c);
    }
}

static void check_deadline(struct http_connection *c)
{
    int64_t timeout_ms = c->loop->server->options.timeout_ms, passed_ms = c->loop->now_ms - c->since_ms;
    switch (c->request.phase) {
    case PHASE_IDLE:
    case PHASE_HEADERS:
    case PHASE_BODY:
    case PHASE_DISCARD:
        check_arriving(c, passed_ms, timeout_ms);
        break;
    case PHASE_ANSWERED: /* the client does not take its answer */
    case PHASE_LINGERING:
        if (passed_ms >= (c->request.phase == PHASE_LINGERING ? HALF_CLOSED_MS : timeout_ms)) {
            shutdown(c->fd, SHUT_RDWR);
        }
        break;
    case PHASE_STREAMING:
        http_stream_check(c);
        break;
    case PHASE_WHOLE:
    case PHASE_PARKED:
        break;
    }
}

/* glibc keeps what is freed below what is still in use, so that a crowd that came and went once would be paid for ever. */
static void give_memory_back(struct http_loop *loop, unsigned connections)
{
    if (connections > loop->crowd) {
        loop->crowd = connections;
    } else if (loop->crowd >= HTTP_CROWD && connections < loop->crowd / 2) {
        malloc_trim(0);
        loop->crowd = connections;
    }
}

void http_deadline_tick(struct http_loop *loop)
{
    if (loop->now_ms < loop->next_tick_ms) {
        return;
    }
    unsigned connections = 0;
    for (struct http_connection *c = loop->connections; c; c = c->next) {
        check_deadline(c);
        connections++;
    }
    give_memory_back(loop, connections);
    loop->next_tick_ms = loop->now_ms + loop->server->tick_ms;
}

static bool is_resting(const struct http_connection *c)
{
    bool is_fresh_tls = c->credentials && !c->was_used; /* its bytes are the handshake's */
    return c->request.phase == PHASE_IDLE && (is_fresh_tls || !is_half_sent(c));
}

void http_deadline_close_resting(struct http_loop *loop)
{
    for (struct http_connection *c = loop->connections; c; c = c->next) {
        if (is_resting(c)) {
            shutdown(c->fd, SHUT_RD);
        }
    }
}
