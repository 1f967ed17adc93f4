#include "http_linger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void forget(struct http_linger *linger, size_t i)
{
    close(linger->sockets[i].fd);
    linger->count--;
    memmove(&linger->sockets[i], &linger->sockets[i + 1], (linger->count - i) * sizeof linger->sockets[0]);
}

void http_linger_add(struct http_linger *linger, int fd, int64_t now_ms)
{
    int kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (kept < 0) {
        return; /* no descriptor left: then this answer may be lost */
    }
    shutdown(kept, SHUT_WR);
    if (linger->count == LINGER_MAX) {
        forget(linger, 0);
    }
    linger->sockets[linger->count].fd = kept;
    linger->sockets[linger->count].until_ms = now_ms + LINGER_MS;
    linger->sockets[linger->count].bytes_left = LINGER_BYTES;
    linger->count++;
}

size_t http_linger_poll_set(const struct http_linger *linger, struct pollfd *fds)
{
    for (size_t i = 0; i < linger->count; i++) {
        fds[i] = (struct pollfd){.fd = linger->sockets[i].fd, .events = POLLIN};
    }
    return linger->count;
}

/* Reads a bounded part of what is there; true when there is nothing more to wait for. */
static bool is_drained(struct http_linger *linger, size_t i)
{
    char waste[16384];
    for (int round = 0; round < 16; round++) {
        ssize_t n = recv(linger->sockets[i].fd, waste, sizeof waste, MSG_DONTWAIT);
        if (n <= 0) {
            return n == 0 || (errno != EAGAIN && errno != EINTR);
        }
        if ((size_t)n >= linger->sockets[i].bytes_left) {
            return true;
        }
        linger->sockets[i].bytes_left -= (size_t)n;
    }
    return false;
}

void http_linger_turn(struct http_linger *linger, const struct pollfd *fds, size_t count, int64_t now_ms)
{
    for (size_t i = count; i-- > 0;) {
        if (now_ms >= linger->sockets[i].until_ms || (fds[i].revents && is_drained(linger, i))) {
            forget(linger, i);
        }
    }
}

void http_linger_close_all(struct http_linger *linger)
{
    while (linger->count > 0) {
        forget(linger, linger->count - 1);
    }
}
