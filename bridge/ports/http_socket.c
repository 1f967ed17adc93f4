#include "http_socket.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* --- the table --- */

/* Of its 8 MiB only the pages of descriptors that are in use are ever touched. */
static struct http_socket *_Atomic sockets[HTTP_SOCKET_FDS];

static struct http_socket *find(int fd)
{
    return fd >= 0 && fd < HTTP_SOCKET_FDS ? atomic_load_explicit(&sockets[fd], memory_order_relaxed) : NULL;
}

/* --- what stands behind the functions here --- */

/* The C library's own, or a sanitizer's before them. Not recvfrom in place of recv: ThreadSanitizer does not take it for what orders
 * threads, as it does recv. */
struct next {
    ssize_t (*recv)(int fd, void *data, size_t size, int flags);
    int (*epoll_ctl)(int epoll_fd, int operation, int fd, struct epoll_event *event);
    int (*epoll_wait)(int epoll_fd, struct epoll_event *events, int max, int timeout_ms);
};

static struct next found;

static void find_next(void)
{
    *(void **)&found.recv = dlsym(RTLD_NEXT, "recv");
    *(void **)&found.epoll_ctl = dlsym(RTLD_NEXT, "epoll_ctl");
    *(void **)&found.epoll_wait = dlsym(RTLD_NEXT, "epoll_wait");
}

static const struct next *next(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_next);
    return &found;
}

enum err http_socket_init(struct error *why)
{
    bool is_whole = next()->recv && next()->epoll_ctl && next()->epoll_wait;
    return is_whole ? ERR_NONE : error_set(why, ERR_LIBRARY, "the C library is not the one that is known here");
}

/* --- a socket --- */

void http_socket_open(struct http_socket *socket, int fd, bool is_tls)
{
    ASSERT(fd >= 0 && fd < HTTP_SOCKET_FDS && !find(fd));
    *socket = (struct http_socket){.is_tls = is_tls};
    atomic_store_explicit(&sockets[fd], socket, memory_order_relaxed);
}

/* The kernel watches what is open, not the descriptor, and who lingers keeps it open. */
void http_socket_close(int fd)
{
    struct http_socket *socket = find(fd);
    ASSERT(socket);
    if (socket->is_in_set && !socket->is_awaited) { /* else libmicrohttpd takes it out */
        next()->epoll_ctl(socket->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    }
    atomic_store_explicit(&sockets[fd], NULL, memory_order_relaxed);
}

void http_socket_park(struct http_socket *socket)
{
    socket->is_parked = true;
}

void http_socket_unpark(struct http_socket *socket)
{
    socket->is_parked = false;
}

/* --- the epoll set --- */

/* An event's data, so that events of sockets are known from others. Pointers do not have it in their upper half: libmicrohttpd's
 * own events carry those. */
#define MARK ((uint64_t)0x6d656f77 << 32)

/* What libmicrohttpd finds out by itself: it reads and writes a connection that is resumed without being told that it can. */
#define TRIED_ANYWAY ((uint32_t)(EPOLLIN | EPOLLOUT | EPOLLRDHUP))

static struct http_socket *socket_of(int epoll_fd, const struct epoll_event *event)
{
    uint64_t data = event->data.u64;
    struct http_socket *socket = (data >> 32) << 32 == MARK ? find((int)(uint32_t)data) : NULL;
    return socket && socket->is_in_set && socket->epoll_fd == epoll_fd ? socket : NULL;
}

static int add(struct http_socket *socket, int epoll_fd, int fd, const struct epoll_event *event)
{
    bool stayed = socket->is_in_set;
    socket->data = event->data.u64;
    socket->is_awaited = true;
    if (stayed && !socket->has_missed && !socket->has_ended) {
        return 0;
    }
    struct epoll_event own = {.events = event->events | EPOLLRDHUP, .data.u64 = MARK | (uint32_t)fd};
    socket->has_missed = false;
    socket->epoll_fd = epoll_fd;
    socket->is_in_set = next()->epoll_ctl(epoll_fd, stayed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &own) == 0;
    socket->is_awaited = socket->is_in_set;
    return socket->is_in_set ? 0 : -1;
}

static int take_out(struct http_socket *socket, int epoll_fd, int fd)
{
    socket->is_awaited = false;
    if (socket->is_parked) {
        return 0;
    }
    socket->is_in_set = socket->is_drained = socket->has_missed = false;
    return next()->epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

int epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
    struct http_socket *socket = find(fd);
    if (socket && operation == EPOLL_CTL_ADD) {
        return add(socket, epoll_fd, fd, event);
    }
    if (socket && operation == EPOLL_CTL_DEL && socket->is_in_set) {
        return take_out(socket, epoll_fd, fd);
    }
    return next()->epoll_ctl(epoll_fd, operation, fd, event);
}

/* Whether libmicrohttpd is to be told. */
static bool note(struct http_socket *socket, struct epoll_event *event)
{
    socket->is_drained = false;
    socket->has_ended = socket->has_ended || event->events & EPOLLRDHUP;
    socket->has_missed = socket->has_missed || (socket->is_parked && event->events & ~TRIED_ANYWAY);
    event->events &= ~(uint32_t)EPOLLRDHUP; /* which it did not ask for */
    event->data.u64 = socket->data;
    return !socket->is_parked;
}

int epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms)
{
    int count = next()->epoll_wait(epoll_fd, events, max, timeout_ms), told = 0;
    for (int i = 0; i < count; i++) {
        struct http_socket *socket = socket_of(epoll_fd, &events[i]);
        if (!socket || note(socket, &events[i])) {
            events[told++] = events[i];
        }
    }
    return count < 0 ? count : told;
}

/* --- receiving --- */

static ssize_t receive(struct http_socket *socket, int fd, void *data, size_t size, int flags)
{
    if (socket->is_drained) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t received = next()->recv(fd, data, size, flags);
    socket->is_drained = received > 0 && (size_t)received < size && socket->is_in_set && !socket->has_ended;
    if (!socket->is_tls && received > 0) {
        http_head_feed(&socket->head, (struct slice){data, (size_t)received});
    }
    return received;
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    struct http_socket *socket = flags & MSG_PEEK ? NULL : find(fd);
    return socket ? receive(socket, fd, data, size, flags) : next()->recv(fd, data, size, flags);
}

void http_socket_took(int fd, struct slice text)
{
    struct http_socket *socket = find(fd);
    if (socket) {
        http_head_feed(&socket->head, text);
    }
}
