/* What libmicrohttpd refuses by itself (a head that is too large, a Content-Length that is no number, a broken chunk, …) it
 * answers with HTML of its own, and there is no option for another form. But it queues that answer by calling
 * MHD_queue_response as its users do, through its table of dynamic symbols, and there a function of that name in the
 * executable stands before the library's. So here is one: whatever comes to it is the library's own answer, since ours go to
 * http_reply_queue, which knows the way past it.
 *
 * Our answer is sent past libmicrohttpd, as the one to a late request is, and the socket is closed for writing. The library
 * still gets what it asked for: it cannot do without (some of its errors free the connection's memory and then read in it,
 * others send the head twice), and what it sends finds the socket closed, upon which it closes the connection.
 *
 * Where the library does not call by that way (linked with -Bsymbolic, say) its HTML goes out: nothing else changes. */
#include "http_internal.h"

#include <dlfcn.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdio.h>

static enum MHD_Result (*library_queue)(struct MHD_Connection *mhd, unsigned status, struct MHD_Response *response);

static void find_library_queue(void)
{
    *(void **)&library_queue = dlsym(RTLD_NEXT, "MHD_queue_response");
}

enum err http_refusal_init(struct error *why)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_library_queue);
    return library_queue ? ERR_NONE : error_set(why, ERR_LIBRARY, "libmicrohttpd has no MHD_queue_response: %s", dlerror());
}

bool http_reply_queue(struct http_connection *c, const struct http_reply *reply)
{
    return library_queue(c->mhd, reply->status, reply->response) == MHD_YES;
}

static void describe(const struct http_connection *c, unsigned status, char *message, size_t size)
{
    enum http_phase phase = c->request.phase;
    switch (status) {
    case 400:
        snprintf(message, size, "%s",
                 phase == PHASE_IDLE      ? "the request line is malformed"
                 : phase == PHASE_HEADERS ? "a header line has no colon, or Content-Length is not a number of bytes"
                                          : "the body's chunked coding is malformed");
        break;
    case 413:
        snprintf(message, size, "body is larger than %zu bytes", c->loop->server->options.max_body);
        break;
    case 414:
        snprintf(message, size, "the request target is too long");
        break;
    case 431:
        snprintf(message, size, "the request's headers are too large");
        break;
    case 505:
        snprintf(message, size, "this HTTP version is not supported");
        break;
    default:
        snprintf(message, size, "%s", MHD_get_reason_phrase_for(status));
    }
}

static void refuse(struct http_connection *c, unsigned status)
{
    struct http_request *r = &c->request;
    if (r->phase == PHASE_LINGERING) {
        return; /* it was answered before */
    }
    if (!r->is_answered || r->phase == PHASE_IDLE) { /* else: refused before, and the rest of its body is malformed too */
        char message[100];
        describe(c, status, message, sizeof message);
        http_reply_drop(&r->reply);
        r->reply = http_reply_error(r, status, message);
    }
    c->is_early = true;
    http_request_cut(c);
}

/* The library's, called by itself: see above. */
enum MHD_Result MHD_queue_response(struct MHD_Connection *mhd, unsigned status, struct MHD_Response *response)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    if (info && info->socket_context) {
        refuse(info->socket_context, status);
    }
    return library_queue(mhd, status, response);
}
