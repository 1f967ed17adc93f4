#include "meowbridge/admin.h"

#include <stdatomic.h>
#include <stdlib.h>

struct admin {
    struct journal *journal;
    struct publisher *publisher;
    atomic_bool stopping;
};

static void append_error_body(void *ctx, unsigned status, const char *message, struct buf *out)
{
    (void)ctx;
    buf_appendf(out, "%u %s\n", status, message);
}

static void answer_text(struct http_request *request, unsigned status, struct slice text)
{
    http_request_answer(request, &(struct http_answer){.status = status,
                                                       .body = text,
                                                       .content_type = "text/plain; charset=utf-8",
                                                       .allow = status == 405 ? "GET, HEAD" : NULL});
}

/* Appends a line for each reason not to be ready. The broker counts only where it is all that stands behind a 200. */
static void append_not_ready(struct admin *admin, struct buf *out)
{
    struct error why;
    if (atomic_load(&admin->stopping)) {
        buf_append_text(out, "stopping\n");
    }
    if (journal_ready(admin->journal, &why)) {
        buf_appendf(out, "journal: %s\n", why.text);
    }
    if (!journal_keeps(admin->journal)) {
        struct publisher_state state;
        publisher_state(admin->publisher, &state);
        if (!state.connected) {
            buf_appendf(out, "broker: %s\n", state.trouble[0] ? state.trouble : "not connected yet");
        }
    }
}

static void answer_ready(struct admin *admin, struct http_request *request)
{
    struct buf reasons;
    buf_init(&reasons, 4096);
    append_not_ready(admin, &reasons);
    if (reasons.size == 0 && !reasons.failed) {
        answer_text(request, 200, SLICE("ok\n"));
    } else {
        answer_text(request, 503, reasons.size ? buf_slice(&reasons) : SLICE("out of memory\n"));
    }
    buf_free(&reasons);
}

static void on_whole(void *ctx, struct http_request *request)
{
    struct admin *admin = ctx;
    struct slice method = http_request_method(request), path = http_request_path(request);
    bool live = slice_equal(path, SLICE("/livez")), ready = slice_equal(path, SLICE("/readyz"));
    if (!live && !ready) {
        answer_text(request, 404, SLICE("404 there is nothing here\n"));
    } else if (!slice_equal(method, SLICE("GET")) && !slice_equal(method, SLICE("HEAD"))) {
        answer_text(request, 405, SLICE("405 only GET and HEAD are served here\n"));
    } else if (live) {
        answer_text(request, 200, SLICE("ok\n"));
    } else {
        answer_ready(admin, request);
    }
}

static void ignore(void *ctx, struct http_request *request)
{
    (void)ctx;
    (void)request;
}

struct http_handler admin_handler(struct admin *admin)
{
    return (struct http_handler){.ctx = admin,
                                 .headers = ignore,
                                 .whole = on_whole,
                                 .resumed = ignore, /* nothing is ever parked here */
                                 .finished = ignore,
                                 .error_body = append_error_body};
}

enum err admin_open(struct admin **out, const struct admin_options *options, struct error *why)
{
    struct admin *admin = calloc(1, sizeof *admin);
    if (!admin) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    admin->journal = options->journal;
    admin->publisher = options->publisher;
    *out = admin;
    return ERR_NONE;
}

void admin_close(struct admin **admin)
{
    free(*admin);
    *admin = NULL;
}

void admin_set_stopping(struct admin *admin)
{
    atomic_store(&admin->stopping, true);
}
