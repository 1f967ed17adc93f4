#include "http_socket.h"

#include <dlfcn.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

/* --- the table --- */

/* Of its 8 MiB only the pages of descriptors that are in use are ever touched. */
static struct http_socket *_Atomic sockets[HTTP_SOCKET_FDS];

static struct http_socket *find(int fd)
{
    return fd >= 0 && fd < HTTP_SOCKET_FDS ? atomic_load_explicit(&sockets[fd], memory_order_relaxed) : NULL;
}

void http_socket_open(struct http_socket *socket, int fd, bool is_tls)
{
    ASSERT(fd >= 0 && fd < HTTP_SOCKET_FDS && !find(fd));
    *socket = (struct http_socket){.is_tls = is_tls};
    atomic_store_explicit(&sockets[fd], socket, memory_order_relaxed);
}

void http_socket_close(int fd)
{
    ASSERT(find(fd));
    atomic_store_explicit(&sockets[fd], NULL, memory_order_relaxed);
}

/* --- what stands before the libraries' functions --- */

/* The libraries' own, or a sanitizer's before them. Not recvfrom in place of recv: ThreadSanitizer does not take it for what orders
 * threads, as it does recv. */
struct next {
    ssize_t (*recv)(int fd, void *data, size_t size, int flags);
    ssize_t (*record_recv)(gnutls_session_t session, void *data, size_t size);
};

static struct next found;

static void find_next(void)
{
    *(void **)&found.recv = dlsym(RTLD_NEXT, "recv");
    *(void **)&found.record_recv = dlsym(RTLD_NEXT, "gnutls_record_recv");
}

static const struct next *next(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_next);
    return &found;
}

enum err http_socket_init(struct error *why)
{
    bool is_whole = next()->recv && next()->record_recv;
    return is_whole ? ERR_NONE : error_set(why, ERR_LIBRARY, "GnuTLS is not the one that is known here");
}

static void take(struct http_socket *socket, const void *data, ssize_t size)
{
    if (size > 0) {
        http_head_feed(&socket->head, (struct slice){data, (size_t)size});
    }
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    struct http_socket *socket = find(fd);
    ssize_t received = next()->recv(fd, data, size, flags);
    if (socket && !socket->is_tls && !(flags & MSG_PEEK)) {
        take(socket, data, received);
    }
    return received;
}

ssize_t gnutls_record_recv(gnutls_session_t session, void *data, size_t size)
{
    struct http_socket *socket = find(gnutls_transport_get_int(session));
    ssize_t received = next()->record_recv(session, data, size);
    if (socket) {
        take(socket, data, received);
    }
    return received;
}
