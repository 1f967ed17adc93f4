#include "mqtt_stream.h"

#include "mqtt_tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    IN_SIZE = 8 << 10,   /* hundreds of PUBACKs */
    OUT_KEPT = 256 << 10 /* a larger buffer is given back when it is empty */
};

void mqtt_stream_open(struct mqtt_stream *stream, int fd, void *ssl)
{
    *stream = (struct mqtt_stream){.fd = fd, .ssl = ssl};
    buf_init(&stream->out, SIZE_MAX / 2);
}

void mqtt_stream_free(struct mqtt_stream *stream)
{
    buf_free(&stream->out);
    free(stream->in);
    *stream = (struct mqtt_stream){.fd = -1};
}

/* ---- sending ---- */

size_t mqtt_stream_unsent(const struct mqtt_stream *stream)
{
    return stream->out.size - stream->out_begin;
}

uint64_t mqtt_stream_end(const struct mqtt_stream *stream)
{
    return stream->sent + mqtt_stream_unsent(stream);
}

static enum mqtt_io write_some(struct mqtt_stream *stream, struct slice bytes, size_t *taken, int *error)
{
    if (stream->ssl) {
        return mqtt_tls_write(stream->ssl, bytes, taken, error);
    }
    ssize_t size = send(stream->fd, bytes.data, bytes.size, MSG_NOSIGNAL | MSG_DONTWAIT);
    *taken = size > 0 ? (size_t)size : 0;
    *error = size < 0 ? errno : 0;
    return size >= 0 || *error == EINTR ? MQTT_IO_DONE : *error == EAGAIN ? MQTT_IO_MORE : MQTT_IO_FAILED;
}

static void forget_sent(struct mqtt_stream *stream)
{
    if (mqtt_stream_unsent(stream) > 0) {
        return;
    }
    stream->out_begin = 0;
    if (stream->out.capacity > OUT_KEPT) {
        buf_free(&stream->out);
    } else {
        buf_reset(&stream->out);
    }
}

/* Where the socket is slow the bytes that it has taken are moved out of the way now and then, so that the buffer stays as large as
 * what is unsent. */
static void close_ranks(struct mqtt_stream *stream)
{
    size_t unsent = mqtt_stream_unsent(stream);
    if (stream->out_begin > unsent) {
        memmove(stream->out.data, stream->out.data + stream->out_begin, unsent);
        stream->out.size = unsent;
        stream->out.data[unsent] = 0;
        stream->out_begin = 0;
    }
}

enum mqtt_io mqtt_stream_flush(struct mqtt_stream *stream, int *error)
{
    enum mqtt_io io = MQTT_IO_DONE;
    *error = 0;
    while (io == MQTT_IO_DONE && mqtt_stream_unsent(stream) > 0) {
        size_t taken;
        io =
            write_some(stream, (struct slice){stream->out.data + stream->out_begin, mqtt_stream_unsent(stream)}, &taken, error);
        stream->out_begin += taken;
        stream->sent += taken;
    }
    stream->is_blocked = io == MQTT_IO_MORE;
    forget_sent(stream);
    close_ranks(stream);
    return io;
}

/* ---- receiving ---- */

static bool make_room(struct mqtt_stream *stream, size_t want)
{
    size_t held = stream->in_end - stream->in_begin;
    if (stream->in_begin > 0) {
        memmove(stream->in, stream->in + stream->in_begin, held);
        stream->in_begin = 0;
        stream->in_end = held;
    }
    if (stream->in && stream->in_capacity >= want && stream->in_capacity > held) {
        return true;
    }
    size_t capacity = want > IN_SIZE / 2 ? want + IN_SIZE : IN_SIZE;
    char *in = realloc(stream->in, capacity);
    if (in) {
        stream->in = in;
        stream->in_capacity = capacity;
    }
    return in;
}

static enum mqtt_io read_some(struct mqtt_stream *stream, char *to, size_t room, size_t *size, int *error)
{
    if (stream->ssl) {
        return mqtt_tls_read(stream->ssl, to, room, size, error);
    }
    ssize_t n = recv(stream->fd, to, room, MSG_DONTWAIT);
    *size = n > 0 ? (size_t)n : 0;
    *error = n < 0 ? errno : 0;
    if (n < 0) {
        return *error == EAGAIN || *error == EINTR ? MQTT_IO_DONE : MQTT_IO_FAILED;
    }
    return n == 0 ? MQTT_IO_CLOSED : *size < room ? MQTT_IO_DONE : MQTT_IO_MORE;
}

enum mqtt_io mqtt_stream_receive(struct mqtt_stream *stream, size_t want, int *error)
{
    *error = 0;
    if (!make_room(stream, want)) {
        return MQTT_IO_NO_MEMORY;
    }
    size_t size;
    enum mqtt_io io = read_some(stream, stream->in + stream->in_end, stream->in_capacity - stream->in_end, &size, error);
    stream->in_end += size;
    return io;
}

struct slice mqtt_stream_received(const struct mqtt_stream *stream)
{
    return (struct slice){stream->in + stream->in_begin, stream->in_end - stream->in_begin};
}

void mqtt_stream_consume(struct mqtt_stream *stream, size_t size)
{
    stream->in_begin += size;
}
