/* mqtt_stream: the bytes of a connection that is made, through TCP or TLS; internal to the port. It knows no packets.
 *
 * What is to be sent is appended to out and goes away with mqtt_stream_flush, in as few system calls as there can be; what has
 * come is in mqtt_stream_received until mqtt_stream_consume. Neither ever waits. */
#ifndef MEOWBRIDGE_MQTT_STREAM_H
#define MEOWBRIDGE_MQTT_STREAM_H

#include "meowbridge/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mqtt_stream {
    int fd;
    void *ssl;      /* an SSL *, borrowed; NULL: plain TCP */
    struct buf out; /* bytes before out_begin are sent */
    size_t out_begin;
    uint64_t sent;   /* bytes that the socket has taken since mqtt_stream_open */
    bool is_blocked; /* it took less than there was: poll for POLLOUT */
    char *in;
    size_t in_begin, in_end, in_capacity;
};

enum mqtt_io {
    MQTT_IO_DONE,   /* flush: all is sent; receive: there is nothing more now */
    MQTT_IO_MORE,   /* flush: the socket takes no more now; receive: there may be more */
    MQTT_IO_CLOSED, /* the broker has closed */
    MQTT_IO_FAILED, /* error has an errno, 0 if TLS is to blame */
    MQTT_IO_NO_MEMORY
};

void mqtt_stream_open(struct mqtt_stream *stream, int fd, void *ssl);
void mqtt_stream_free(struct mqtt_stream *stream); /* its memory; leaves it empty. What it borrows is not closed */

size_t mqtt_stream_unsent(const struct mqtt_stream *stream);
/* Where in all that is ever sent the next byte appended to out will stand. */
uint64_t mqtt_stream_end(const struct mqtt_stream *stream);
enum mqtt_io mqtt_stream_flush(struct mqtt_stream *stream, int *error);

/* Reads once. want: how many bytes the next packet is known to need; there is room for so many, and some more. */
enum mqtt_io mqtt_stream_receive(struct mqtt_stream *stream, size_t want, int *error);
struct slice mqtt_stream_received(const struct mqtt_stream *stream);
void mqtt_stream_consume(struct mqtt_stream *stream, size_t size);

#endif
