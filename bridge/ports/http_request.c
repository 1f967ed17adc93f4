#include "http_audit.h"
#include "http_callbacks.h"
#include "http_internal.h"

#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
    SMALL_BODY = 64 << 10, /* read and thrown away, so that the connection lives */
    MAX_DISCARD = 1 << 20, /* of a body that is refused while it comes */
    KEPT_TARGET = 1 << 10, /* a longer target's memory is given back */
    VALUE_BYTES = 64,      /* of libmicrohttpd's memory, for each header, cookie and query argument */
    ANSWER_BYTES = 1024    /* and for an answer's head */
};

static const char headers_too_large[] = "the request's headers are too large";

void http_phase_enter(struct http_connection *c, enum http_phase phase)
{
    bool is_arriving = phase == PHASE_BODY || phase == PHASE_DISCARD;
    c->request.phase = phase;
    if (!is_arriving) { /* those keep the time of the first byte */
        c->since_ms = c->loop->now_ms;
    }
}

static void over(struct http_server *server)
{
    if (atomic_fetch_sub(&server->under_way, 1) == 1 && atomic_load(&server->drainers) > 0) {
        pthread_mutex_lock(&server->mutex);
        pthread_cond_broadcast(&server->changed);
        pthread_mutex_unlock(&server->mutex);
    }
}

void http_request_finish(struct http_connection *c)
{
    struct http_request *r = &c->request;
    struct http_server *server = c->loop->server;
    if (r->is_known) {
        server->options.handler.finished(server->options.handler.ctx, r);
        r->is_known = false;
        over(server);
    }
    http_stream_detach(r);
    http_reply_drop(&r->reply);
    http_parser_free(&r->chunks);
    buf_free(&r->body);
    r->method = r->path = (struct slice){0}; /* libmicrohttpd's memory */
    memset(r->singles, 0, sizeof r->singles);
    r->user = NULL;
}

void http_request_cut(struct http_connection *c)
{
    http_reply_send_last(c);
    shutdown(c->fd, SHUT_WR);
    http_request_finish(c);
    http_phase_enter(c, PHASE_LINGERING);
}

static void set_error(struct http_request *r, unsigned status, const char *message)
{
    http_reply_drop(&r->reply);
    r->reply = http_reply_error(r, status, message);
    r->is_answered = true;
}

static enum MHD_Result queue_reply(struct http_connection *c)
{
    struct http_reply *reply = &c->request.reply;
    bool closes = atomic_load(&c->loop->server->is_quiescing);
    http_phase_enter(c, c->request.stream ? PHASE_STREAMING : PHASE_ANSWERED);
    if (!reply->response || (closes && !http_reply_add_header(reply, "Connection", "close"))) {
        http_reply_drop(reply);
        return MHD_NO; /* no memory for an answer: closes the connection */
    }
    bool is_queued = http_reply_queue(c, reply);
    http_reply_drop(reply);
    return is_queued ? MHD_YES : MHD_NO;
}

static enum MHD_Result queue_early(struct http_connection *c)
{
    c->is_early = true;
    return queue_reply(c);
}

static struct slice path_of(struct slice target)
{
    struct slice authority = http_target_authority(target), path = target;
    if (authority.data) {
        const char *start = authority.data + authority.size;
        path = (struct slice){start, (size_t)(target.data + target.size - start)};
    }
    const char *query = path.size ? memchr(path.data, '?', path.size) : NULL;
    path.size = query ? (size_t)(query - path.data) : path.size;
    return authority.data && path.size == 0 ? SLICE("/") : path;
}

/* The request line is in: libmicrohttpd's only chance to show the target before it decodes it. */
void *http_on_target(void *ctx, const char *target, struct MHD_Connection *mhd)
{
    (void)ctx;
    struct http_connection *c = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    struct http_request *r = &c->request;
    if (r->phase != PHASE_IDLE) {
        return c;
    }
    int64_t first_byte_ms = c->first_byte_ms ? c->first_byte_ms : c->loop->now_ms;
    struct buf kept = r->target;
    *r = (struct http_request){.connection = c, .target = kept};
    buf_init(&r->body, c->loop->server->options.max_body);
    buf_reset(&r->target);
    buf_append_text(&r->target, target ? target : "");
    http_phase_enter(c, PHASE_HEADERS);
    c->since_ms = first_byte_ms;
    c->first_byte_ms = 0;
    return c;
}

/* Headers of different bits have different names. */
static uint64_t name_bit(struct slice name)
{
    unsigned letter = name.size > 0 ? (unsigned char)name.data[0] & 0x1fu : 0;
    return UINT64_C(1) << ((letter + 5 * name.size) & 63);
}

struct head {
    struct http_audit audit;
    struct http_request *request;
};

static enum MHD_Result audit_header(void *ctx, enum MHD_ValueKind kind, const char *name, size_t name_size, const char *value,
                                    size_t value_size)
{
    (void)kind;
    struct head *head = ctx;
    head->request->names_seen |= name_bit((struct slice){name, name_size});
    http_audit_header(&head->audit, (struct slice){name, name_size}, (struct slice){value, value_size});
    return MHD_YES;
}

/* The answer is there before the body: a small body is read first and the connection lives; any other answer goes out at once
 * and closes it. Who expects "100 Continue" has not sent the body, and must not be asked for it. */
static enum MHD_Result answer_before_body(struct http_connection *c, bool expects_continue)
{
    const struct http_request *r = &c->request;
    if (r->is_chunked || r->declared > SMALL_BODY || (expects_continue && r->declared > 0)) {
        return queue_early(c);
    }
    http_phase_enter(c, PHASE_DISCARD);
    return MHD_YES;
}

/* libmicrohttpd makes an answer's head in what the request leaves of its memory, and closes without a word where that is too little. It
 * keeps cookies twice. */
static bool leaves_room_for_answer(const struct http_connection *c, int headers)
{
    const struct http_request *r = &c->request;
    const enum MHD_ValueKind more = MHD_COOKIE_KIND | MHD_GET_ARGUMENT_KIND;
    int values = headers + MHD_get_connection_values(c->mhd, more, NULL, NULL);
    size_t cookies = r->names_seen & name_bit(SLICE("Cookie")) ? http_request_header(r, "Cookie").size : 0;
    return r->head_size + cookies + (size_t)values * VALUE_BYTES + ANSWER_BYTES <= c->loop->server->options.max_head;
}

/* The answer goes past libmicrohttpd, and the connection is over. */
static enum MHD_Result refuse_at_once(struct http_connection *c, unsigned status, const char *message)
{
    set_error(&c->request, status, message);
    c->is_early = true;
    http_request_cut(c);
    return MHD_NO;
}

static enum MHD_Result take_headers(struct http_connection *c, const char *method, const char *version)
{
    struct http_server *server = c->loop->server;
    struct http_request *r = &c->request;
    struct head head = {.request = r};
    struct http_audit *audit = &head.audit;
    const struct http_singles singles = {server->singles, r->singles, server->single_count};
    http_audit_begin(audit, &singles, http_head_is_clean(&c->socket.head));
    int headers = MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, audit_header, &head);
    const union MHD_ConnectionInfo *size = MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    r->method = slice_of(method);
    r->path = path_of(buf_slice(&r->target));
    r->head_size = size ? size->header_size : 0;
    r->is_chunked = audit->codings > 0;
    r->declared = audit->declared;
    const char *fault = http_audit_end(audit, r->method, buf_slice(&r->target), slice_of(version), r->head_size);
    if (r->target.failed) {
        set_error(r, 503, "no memory");
        return queue_early(c);
    }
    if (!leaves_room_for_answer(c, headers)) {
        return refuse_at_once(c, 431, headers_too_large);
    }
    if (fault || r->is_chunked != r->is_coding_hidden) {
        set_error(r, fault ? 400 : 411, fault ? fault : "chunked bodies are not taken here");
        return queue_early(c);
    }
    http_head_pass(&c->socket.head, r->method.data + r->head_size, r->is_chunked ? HTTP_HEAD_UNTIL_END : r->declared);
    r->is_known = true;
    atomic_fetch_add(&server->under_way, 1);
    server->options.handler.headers(server->options.handler.ctx, r);
    if (!r->is_answered && r->declared > server->options.max_body) {
        char message[80];
        snprintf(message, sizeof message, "body is larger than %zu bytes", server->options.max_body);
        set_error(r, 413, message);
    } else if (!r->is_answered && r->declared > 0 && !buf_reserve(&r->body, (size_t)r->declared)) {
        set_error(r, 503, "no memory");
    }
    if (r->is_answered) {
        return answer_before_body(c, audit->expects_continue);
    }
    if (r->is_chunked) {
        http_parser_init(&r->chunks, server->options.max_body);
        http_parser_start_body(&r->chunks);
    }
    http_phase_enter(c, PHASE_BODY);
    return MHD_YES;
}

/* The end of a chunked body is not seen by libmicrohttpd, which could take no answer here. */
static enum MHD_Result end_chunked(struct http_connection *c)
{
    c->is_early = true;
    http_request_cut(c);
    return MHD_NO;
}

static enum MHD_Result take_whole_chunked(struct http_connection *c)
{
    struct http_request *r = &c->request;
    const struct http_handler *handler = &c->loop->server->options.handler;
    buf_free(&r->body);
    r->body = r->chunks.body;
    r->chunks.body = (struct buf){0};
    http_phase_enter(c, PHASE_WHOLE);
    handler->whole(handler->ctx, r);
    if (r->phase == PHASE_PARKED) {
        return MHD_YES;
    }
    ASSERT(r->is_answered);
    return end_chunked(c);
}

static enum MHD_Result take_chunks(struct http_connection *c, const char *data, size_t size)
{
    struct http_request *r = &c->request;
    size_t used;
    enum err err = http_parser_feed(&r->chunks, (struct slice){data, size}, &used, NULL);
    if (!err && r->chunks.state != HTTP_PARSER_DONE) {
        return MHD_YES;
    }
    if (c->loop->is_ending) {
        return MHD_NO;
    }
    if (!err && r->chunks.keep_alive) {
        return take_whole_chunked(c);
    }
    unsigned status = !err ? 413 : err == ERR_MEMORY ? 503 : err == ERR_FULL ? 431 : 400;
    set_error(r, status,
              status == 413   ? "body is too large"
              : status == 503 ? "no memory"
              : status == 431 ? headers_too_large
                              : "the body's chunked coding is malformed");
    return end_chunked(c);
}

static enum MHD_Result take_body(struct http_connection *c, const char *data, size_t size)
{
    struct http_request *r = &c->request;
    if (r->phase == PHASE_BODY && r->is_chunked) {
        return take_chunks(c, data, size);
    }
    if (r->phase == PHASE_BODY) {
        buf_append(&r->body, (struct slice){data, size});
        if (!r->body.failed) {
            return MHD_YES;
        }
        buf_free(&r->body); /* what was reserved for its declared size did not suffice: cannot be */
        set_error(r, 503, "no memory");
        http_phase_enter(c, PHASE_DISCARD);
    }
    r->discarded += size;
    if (r->phase == PHASE_LINGERING || r->discarded <= MAX_DISCARD) {
        return MHD_YES;
    }
    http_reply_send_last(c);
    c->is_early = true;
    return MHD_NO;
}

static enum MHD_Result take_whole(struct http_connection *c)
{
    struct http_request *r = &c->request;
    const struct http_handler *handler = &c->loop->server->options.handler;
    if (r->phase == PHASE_BODY) {
        if (c->loop->is_ending) {
            return MHD_NO;
        }
        http_phase_enter(c, PHASE_WHOLE);
        handler->whole(handler->ctx, r);
        if (r->phase == PHASE_PARKED) {
            return MHD_YES;
        }
        ASSERT(r->is_answered);
    }
    return queue_reply(c);
}

enum MHD_Result http_on_request(void *ctx, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
                                const char *data, size_t *size, void **context)
{
    (void)ctx, (void)mhd, (void)url;
    struct http_connection *c = *context;
    size_t taken = *size;
    *size = 0;
    switch (c->request.phase) {
    case PHASE_HEADERS:
        return take_headers(c, method, version);
    case PHASE_LINGERING:
        return taken > 0 ? take_body(c, data, taken) : MHD_NO;
    default:
        return taken > 0 ? take_body(c, data, taken) : take_whole(c);
    }
}

void http_on_completed(void *ctx, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode code)
{
    (void)ctx, (void)mhd;
    struct http_connection *c = *context;
    struct http_request *r = &c->request;
    *context = NULL;
    if (r->phase == PHASE_PARKED) { /* closed for writing while it was parked: libmicrohttpd gives up, the client may not */
        http_reply_send_last(c);
    }
    http_request_finish(c);
    if (code == MHD_REQUEST_TERMINATED_COMPLETED_OK) {
        http_deadline_settle_bytes(c);
        c->was_used = true;
    }
    if (r->target.capacity > KEPT_TARGET) {
        buf_free(&r->target);
    }
    if (r->phase != PHASE_LINGERING) {
        http_phase_enter(c, PHASE_IDLE);
    }
}

struct slice http_request_method(const struct http_request *request)
{
    return request->method;
}

struct slice http_request_target(const struct http_request *request)
{
    return buf_slice(&request->target);
}

struct slice http_request_path(const struct http_request *request)
{
    return request->path;
}

/* libmicrohttpd leaves the blanks behind a value that are no part of it (RFC 9110 section 5.5). */
static struct slice without_blanks(struct slice value)
{
    while (value.size > 0 && (value.data[value.size - 1] == ' ' || value.data[value.size - 1] == '\t')) {
        value.size--;
    }
    return value;
}

struct slice http_request_header(const struct http_request *request, const char *name)
{
    const struct http_server *server = request->connection->loop->server;
    struct slice wanted = slice_of(name), value = {0};
    for (size_t i = 0; i < server->single_count; i++) {
        if (slice_equal_nocase(wanted, server->singles[i])) {
            return without_blanks(request->singles[i]);
        }
    }
    if (MHD_lookup_connection_value_n(request->connection->mhd, MHD_HEADER_KIND, name, wanted.size, &value.data, &value.size) !=
        MHD_YES) {
        return (struct slice){0};
    }
    return without_blanks(value);
}

struct header_search {
    struct slice name, *values;
    size_t max, count;
};

static enum MHD_Result collect_header(void *ctx, enum MHD_ValueKind kind, const char *name, size_t name_size, const char *value,
                                      size_t value_size)
{
    (void)kind;
    struct header_search *search = ctx;
    if (slice_equal_nocase((struct slice){name, name_size}, search->name)) {
        if (search->count < search->max) {
            search->values[search->count] = without_blanks((struct slice){value, value_size});
        }
        search->count++;
    }
    return MHD_YES;
}

size_t http_request_headers(const struct http_request *request, const char *name, struct slice *values, size_t max)
{
    struct header_search search = {.name = slice_of(name), .values = values, .max = max};
    if (!(request->names_seen & name_bit(search.name))) {
        return 0;
    }
    MHD_get_connection_values_n(request->connection->mhd, MHD_HEADER_KIND, collect_header, &search);
    return search.count;
}

struct slice http_request_body(const struct http_request *request)
{
    bool is_whole = request->phase == PHASE_WHOLE || request->phase == PHASE_PARKED;
    return is_whole ? buf_slice(&request->body) : (struct slice){0};
}

char *http_request_take_body(struct http_request *request, size_t *size)
{
    ASSERT(request->phase == PHASE_WHOLE || request->phase == PHASE_PARKED);
    *size = request->body.size;
    return buf_take(&request->body);
}

unsigned http_request_loop(const struct http_request *request)
{
    return request->connection->loop->index;
}

struct slice http_request_peer(const struct http_request *request)
{
    return slice_of(request->connection->peer.text);
}

void http_request_set_user(struct http_request *request, void *user)
{
    request->user = user;
}

void *http_request_user(const struct http_request *request)
{
    return request->user;
}

void http_request_answer(struct http_request *request, const struct http_answer *answer)
{
    ASSERT(request->is_known && !request->is_answered);
    ASSERT(request->phase == PHASE_HEADERS || request->phase == PHASE_WHOLE || request->phase == PHASE_PARKED);
    request->reply = http_reply_on(request->connection, answer);
    request->is_answered = true;
}

void http_request_park(struct http_request *request)
{
    struct http_connection *c = request->connection;
    ASSERT(request->phase == PHASE_WHOLE && !request->is_answered);
    http_phase_enter(c, PHASE_PARKED);
    c->loop->parked++;
    http_socket_park(&c->socket);
    MHD_suspend_connection(c->mhd);
}
