/* http_linger: internal to the HTTP server. Sockets on which an answer was sent before the request was read to its end.
 *
 * Closing such a socket with unread bytes in it makes the kernel reset the connection, and the reset can overtake the answer.
 * So a duplicate of the descriptor is kept here, closed for writing, and what still comes is read and thrown away: until the
 * client closes, for LINGER_MS at most, LINGER_BYTES at most, and for LINGER_MAX sockets of a loop at most, the oldest going
 * first. One thread. */
#ifndef MEOWBRIDGE_HTTP_LINGER_H
#define MEOWBRIDGE_HTTP_LINGER_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

enum { LINGER_MAX = 64, LINGER_MS = 2000, LINGER_BYTES = 32 << 20 };

struct http_linger {
    struct {
        int fd;
        int64_t until_ms;
        size_t bytes_left;
    } sockets[LINGER_MAX];
    size_t count;
};

/* Keeps a duplicate of fd, which stays the caller's. */
void http_linger_add(struct http_linger *linger, int fd, int64_t now_ms);
size_t http_linger_poll_set(const struct http_linger *linger, struct pollfd *fds); /* fills count entries */
/* After poll: reads from those that are ready and closes those that are done. fds as http_linger_poll_set filled it. */
void http_linger_turn(struct http_linger *linger, const struct pollfd *fds, size_t count, int64_t now_ms);
void http_linger_close_all(struct http_linger *linger);

#endif
