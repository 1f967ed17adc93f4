/* Answers that go on. The writer, of any thread, appends to a bounded queue; libmicrohttpd, in the loop's thread, asks for bytes
 * when the socket takes them. When there are none the connection is suspended, for libmicrohttpd would ask again at once; so the
 * writer rings the loop, which resumes it.
 *
 *   writer ──write──▶ queue ──rings──▶ loop: resume ──▶ MHD_run ──▶ read ──▶ socket
 *
 * A suspended connection does not notice that its client has gone, so the tick of the deadlines looks. */
#include "http_internal.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct http_stream {
    pthread_mutex_t mutex;
    struct buf queue;
    size_t sent;            /* of the queue */
    struct http_loop *loop; /* NULL: the request is over */
    bool is_suspended;
    bool is_ended; /* nothing more is taken; the rest is sent */
    bool is_cut;   /* nothing more is sent */
    bool has_writer;

    /* the loop's, while there is one */
    struct http_request *request;
    struct http_stream *next, *previous;
};

static void destroy(struct http_stream *stream)
{
    buf_free(&stream->queue);
    pthread_mutex_destroy(&stream->mutex);
    free(stream);
}

static ssize_t read_queue(struct http_stream *stream, char *out, size_t max)
{
    size_t size = stream->queue.size - stream->sent;
    size = size < max ? size : max;
    memcpy(out, stream->queue.data + stream->sent, size);
    stream->sent += size;
    if (stream->sent == stream->queue.size) {
        stream->sent = 0;
        buf_reset(&stream->queue);
    }
    return (ssize_t)size;
}

static ssize_t read_stream(void *ctx, uint64_t position, char *out, size_t max)
{
    (void)position;
    struct http_stream *stream = ctx;
    ssize_t size = 0;
    pthread_mutex_lock(&stream->mutex);
    if (stream->is_cut) {
        size = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (stream->queue.size > 0) {
        size = read_queue(stream, out, max);
    } else if (stream->is_ended) {
        size = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        stream->is_suspended = true;
        http_socket_park(&stream->request->connection->socket);
        MHD_suspend_connection(stream->request->connection->mhd);
    }
    pthread_mutex_unlock(&stream->mutex);
    return size;
}

struct http_stream *http_request_stream(struct http_request *request, const struct http_answer *head, size_t max_queued)
{
    struct http_loop *loop = request->connection->loop;
    struct http_stream *stream = loop->is_quiescing || loop->is_ending ? NULL : calloc(1, sizeof *stream);
    ASSERT(request->phase == PHASE_WHOLE && !request->is_answered);
    if (!stream) {
        return NULL;
    }
    request->reply = http_reply_stream(head, read_stream, stream);
    if (!request->reply.response) {
        free(stream);
        return NULL;
    }
    pthread_mutex_init(&stream->mutex, NULL);
    buf_init(&stream->queue, max_queued);
    stream->loop = loop;
    stream->has_writer = true;
    stream->request = request;
    stream->next = loop->streams;
    if (stream->next) {
        stream->next->previous = stream;
    }
    loop->streams = stream;
    request->stream = stream;
    request->is_answered = true;
    return stream;
}

/* --- the writer --- */

/* Under the mutex, so that the loop is still there. */
static void ring(struct http_stream *stream)
{
    if (!atomic_exchange(&stream->loop->streams_rang, true)) {
        http_loop_wake(stream->loop);
    }
}

bool http_stream_write(struct http_stream *stream, struct slice bytes)
{
    pthread_mutex_lock(&stream->mutex);
    bool takes = stream->loop && !stream->is_ended && !stream->is_cut;
    if (takes) {
        buf_append(&stream->queue, bytes);
        stream->is_cut = stream->queue.failed; /* it would have been too much */
        if (stream->is_cut || stream->is_suspended) {
            ring(stream);
        }
    }
    takes = takes && !stream->is_cut;
    pthread_mutex_unlock(&stream->mutex);
    return takes;
}

void http_stream_close(struct http_stream **stream_pointer)
{
    struct http_stream *stream = *stream_pointer;
    *stream_pointer = NULL;
    if (!stream) {
        return;
    }
    pthread_mutex_lock(&stream->mutex);
    bool is_over = !stream->loop;
    stream->has_writer = false;
    stream->is_ended = true;
    if (!is_over) {
        ring(stream);
    }
    pthread_mutex_unlock(&stream->mutex);
    if (is_over) {
        destroy(stream);
    }
}

/* --- the loop --- */

/* What is_cut and is_ended ask for. A client that was cut off may not be taking anything, so the socket is shut. */
static void act(struct http_stream *stream)
{
    struct http_connection *c = stream->request->connection;
    if (stream->is_cut) {
        shutdown(c->fd, SHUT_RDWR);
    }
    if (stream->is_suspended && (stream->is_cut || stream->is_ended || stream->queue.size > 0)) {
        stream->is_suspended = false;
        http_socket_unpark(&c->socket);
        MHD_resume_connection(c->mhd);
    }
}

void http_streams_turn(struct http_loop *loop)
{
    if (!atomic_exchange(&loop->streams_rang, false)) {
        return;
    }
    for (struct http_stream *stream = loop->streams; stream; stream = stream->next) {
        pthread_mutex_lock(&stream->mutex);
        act(stream);
        pthread_mutex_unlock(&stream->mutex);
    }
}

static void finish_all(struct http_loop *loop, bool cuts)
{
    for (struct http_stream *stream = loop->streams; stream; stream = stream->next) {
        pthread_mutex_lock(&stream->mutex);
        stream->is_ended = true;
        stream->is_cut |= cuts;
        act(stream);
        pthread_mutex_unlock(&stream->mutex);
    }
}

void http_streams_end(struct http_loop *loop)
{
    finish_all(loop, false);
}

void http_streams_cut(struct http_loop *loop)
{
    finish_all(loop, true);
}

void http_stream_check(struct http_connection *c)
{
    struct http_stream *stream = c->request.stream;
    char next;
    ssize_t size = recv(c->fd, &next, 1, MSG_PEEK | MSG_DONTWAIT);
    bool has_gone = size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR);
    if (!has_gone || !stream) {
        return;
    }
    pthread_mutex_lock(&stream->mutex);
    stream->is_cut = true;
    act(stream);
    pthread_mutex_unlock(&stream->mutex);
}

void http_stream_detach(struct http_request *request)
{
    struct http_stream *stream = request->stream;
    if (!stream) {
        return;
    }
    request->stream = NULL;
    *(stream->previous ? &stream->previous->next : &request->connection->loop->streams) = stream->next;
    if (stream->next) {
        stream->next->previous = stream->previous;
    }
    pthread_mutex_lock(&stream->mutex);
    bool is_over = !stream->has_writer;
    stream->loop = NULL;
    pthread_mutex_unlock(&stream->mutex);
    if (is_over) {
        destroy(stream);
    }
}
