#include "http_internal.h"
#include "meowbridge/clock.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { MAX_ERROR_BODY = 64 << 10, STREAM_BLOCK = 4 << 10, KEPT_BODY = 512, MAX_HEAD = 16 << 10 };

void http_reply_drop(struct http_reply *reply)
{
    if (reply->response && !reply->is_kept) {
        MHD_destroy_response(reply->response);
    }
    *reply = (struct http_reply){0};
}

bool http_reply_add_header(struct http_reply *reply, const char *name, const char *value)
{
    return !value || MHD_add_response_header(reply->response, name, value) == MHD_YES;
}

/* Drops the reply where one of them finds no memory. */
static void add_headers(struct http_reply *reply, const struct http_answer *answer)
{
    char seconds[16] = "";
    if (answer->retry_after_s > 0) {
        snprintf(seconds, sizeof seconds, "%u", answer->retry_after_s);
    }
    bool ok = http_reply_add_header(reply, "Content-Type", answer->content_type ? answer->content_type : "application/json") &&
              http_reply_add_header(reply, "Allow", answer->allow) &&
              http_reply_add_header(reply, "Retry-After", answer->retry_after_s ? seconds : NULL) &&
              http_reply_add_header(reply, "WWW-Authenticate", answer->www_authenticate);
    for (const char *const *header = answer->headers; ok && header && *header; header += 2) {
        ok = http_reply_add_header(reply, header[0], header[1]);
    }
    if (!ok) {
        http_reply_drop(reply);
    }
}

struct http_reply http_reply_make(const struct http_answer *answer)
{
    struct http_reply reply = {.status = answer->status};
    char *body = slice_dup(answer->body);
    reply.response = body ? MHD_create_response_from_buffer(answer->body.size, body, MHD_RESPMEM_MUST_FREE) : NULL;
    if (!reply.response) {
        free(body);
        return reply;
    }
    reply.body = (struct slice){body, answer->body.size};
    add_headers(&reply, answer);
    return reply;
}

static bool is_plain(const struct http_answer *answer)
{
    return answer->status == 200 && answer->body.size <= KEPT_BODY && !answer->content_type && !answer->allow &&
           answer->retry_after_s == 0 && !answer->www_authenticate && !answer->headers;
}

/* A response costs libmicrohttpd five allocations. The one that is kept differs in the bytes of its body, which are ours and which
 * nobody reads between two requests of a connection. */
struct http_reply http_reply_on(struct http_connection *c, const struct http_answer *answer)
{
    if (!is_plain(answer)) {
        return http_reply_make(answer);
    }
    if (c->kept.response && c->kept.body.size == answer->body.size) {
        memcpy((char *)c->kept.body.data, answer->body.data, answer->body.size);
        return c->kept;
    }
    http_reply_forget(c);
    c->kept = http_reply_make(answer);
    c->kept.is_kept = true;
    return c->kept;
}

void http_reply_forget(struct http_connection *c)
{
    c->kept.is_kept = false;
    http_reply_drop(&c->kept);
}

struct http_reply http_reply_stream(const struct http_answer *head, http_reader *reader, void *ctx)
{
    struct http_reply reply = {.status = head->status};
    reply.response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, reader, ctx, NULL);
    if (reply.response) {
        add_headers(&reply, head);
    }
    return reply;
}

struct http_reply http_reply_error(struct http_request *request, unsigned status, const char *message)
{
    const struct http_handler *handler = &request->connection->loop->server->options.handler;
    struct buf body;
    buf_init(&body, MAX_ERROR_BODY);
    handler->error_body(handler->ctx, status, message, &body);
    if (handler->refused) {
        handler->refused(handler->ctx, request, status, message);
    }
    struct http_reply reply =
        http_reply_make(&(struct http_answer){.status = status, .body = buf_slice(&body), .content_type = handler->error_type});
    buf_free(&body);
    return reply;
}

static enum MHD_Result append_header_line(void *ctx, enum MHD_ValueKind kind, const char *name, const char *value)
{
    (void)kind;
    buf_appendf(ctx, "%s: %s\r\n", name, value);
    return MHD_YES;
}

/* The socket is seldom full here, and where it is the client gets less. */
void http_reply_send_last(struct http_connection *c)
{
    struct http_reply *reply = &c->request.reply;
    if (!reply->response) {
        return;
    }
    char date[40];
    struct tm utc;
    time_t now = (time_t)(clock_wall_ms() / 1000);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &utc));
    struct buf text;
    buf_init(&text, reply->body.size + MAX_HEAD);
    buf_appendf(&text, "HTTP/1.1 %u %s\r\nDate: %s\r\nConnection: close\r\nContent-Length: %zu\r\n", reply->status,
                MHD_get_reason_phrase_for(reply->status), date, reply->body.size);
    MHD_get_response_headers(reply->response, append_header_line, &text);
    buf_append_text(&text, "\r\n");
    if (!slice_equal(c->request.method, SLICE("HEAD"))) {
        buf_append(&text, reply->body);
    }
    const union MHD_ConnectionInfo *tls = MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    if (text.failed) {
        /* closed without an answer */
    } else if (tls) {
        http_tls_send_last(tls->tls_session, buf_slice(&text));
    } else {
        ssize_t ignored = send(c->fd, text.data, text.size, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)ignored;
    }
    buf_free(&text);
    http_reply_drop(reply);
}
