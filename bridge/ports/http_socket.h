/* http_socket: internal to the HTTP server. The server's connections as libmicrohttpd meets them in system calls: what is to be
 * known or done there, and it has no hook for.
 *
 * libmicrohttpd receives by calling recv, or gnutls_record_recv where the server has TLS, and waits by epoll_ctl and epoll_wait, all
 * through its table of dynamic symbols; functions of those names in the executable stand before the C library's and GnuTLS's
 * (http_refusal.c has more of that). So they stand here, and GnuTLS's in http_tls.c. They do what the ones behind them do, for
 * whoever calls, in any thread, and besides keep a struct http_socket for each descriptor that is a connection of a server. What
 * is called for any other descriptor, and what is only looked at (MSG_PEEK), passes through: that costs one look into a table. Three
 * things are done here, the latter two whether libmicrohttpd receives by itself or GnuTLS for it:
 *
 *   The client's text is followed by http_head: the bytes received, or under TLS, where they are not the text, what GnuTLS makes of
 *   them. Where libmicrohttpd would not call by this way nothing would be seen of a request, and each be refused.
 *
 *   A parked connection stays in the epoll set. libmicrohttpd takes it out and adds it again, two system calls a request; here
 *   both are only noted. What the kernel reports while it is parked is held back: that there is something to read or room to write
 *   libmicrohttpd finds out when it has been resumed, for it tries both then; anything else, an end of the stream too, the kernel is
 *   asked to report once more.
 *   From its resumption on it is told again, though it believes that the connection is still out: else the next request, which mostly
 *   comes right behind the answer, would wait for another turn of the loop.
 *
 *   A socket that gave less than was asked for is drained, and needs not be asked again before the kernel has reported it (epoll(7),
 *   edge-triggered). libmicrohttpd does ask, after each parking. Not where the end of the stream has been reported: no other report
 *   would follow.
 *
 * A socket is its loop's thread's, from http_socket_open to http_socket_close; other threads' look into the table finds that a
 * descriptor is not theirs to care for. */
#ifndef MEOWBRIDGE_HTTP_SOCKET_H
#define MEOWBRIDGE_HTTP_SOCKET_H

#include "http_head.h"
#include "meowbridge/err.h"

enum { HTTP_SOCKET_FDS = 1 << 20 }; /* Linux gives a process no more unless it is told to (fs.nr_open) */

struct http_socket {
    bool is_tls;
    struct http_head head;
    int epoll_fd;    /* is_in_set: whose */
    uint64_t data;   /* of libmicrohttpd's epoll_event */
    bool is_in_set;  /* of what the kernel watches */
    bool is_awaited; /* so libmicrohttpd believes */
    bool is_parked;  /* libmicrohttpd is told of nothing, and its taking it out is only noted */
    bool has_missed; /* an event that was held back and that it will not find out by itself */
    bool is_drained; /* nothing to receive before the next event. Only in the set */
    bool has_ended;  /* the client sends no more */
};

MUST_CHECK enum err http_socket_init(struct error *why); /* before the first is opened; again is harmless */
/* fd, below HTTP_SOCKET_FDS, is a connection from here on; socket must stand still until it is closed. */
void http_socket_open(struct http_socket *socket, int fd, bool is_tls);
void http_socket_close(int fd); /* before the descriptor is */
/* Under TLS: text is what the client's bytes on fd say, in their order. Nothing happens if fd is no connection. */
void http_socket_took(int fd, struct slice text);
/* Before each MHD_suspend_connection: a suspended connection must hear of nothing, and libmicrohttpd takes only those out of the set
 * that it believes in. */
void http_socket_park(struct http_socket *socket);
void http_socket_unpark(struct http_socket *socket); /* before MHD_resume_connection */

#endif
