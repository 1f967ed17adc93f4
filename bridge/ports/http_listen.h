/* http_listen: internal to the HTTP server. The listening socket, TCP or Unix, and who came over it. */
#ifndef MEOWBRIDGE_HTTP_LISTEN_H
#define MEOWBRIDGE_HTTP_LISTEN_H

#include "meowbridge/err.h"
#include "meowbridge/http_server.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>

struct http_listener {
    int fd; /* -1: closed. Non-blocking, so that several loops may wait on it */
    uint16_t port;
    char path[108]; /* of a Unix socket, else empty */
    struct stat file;
};

/* ERR_CONFIG: the address is none, or not this machine's. ERR_IO: it is taken or not allowed. The text names the remedy. */
MUST_CHECK enum err http_listener_open(struct http_listener *listener, const struct http_server_options *options,
                                       struct error *why);
/* Closes it and removes the socket's file if it is still ours. May be called again. */
void http_listener_close(struct http_listener *listener);

struct http_peer {
    struct sockaddr_storage address;
    socklen_t address_size;
    uint8_t ip[16];              /* IPv4 as ::ffff:a.b.c.d; zero for a Unix socket */
    char text[INET6_ADDRSTRLEN]; /* "192.0.2.1", "::1", "unix" */
};

/* A non-blocking descriptor, or -1 with errno. */
int http_listener_accept(const struct http_listener *listener, struct http_peer *peer);

/* How many connections each address has, over all loops. */
struct http_peer_counts {
    pthread_mutex_t mutex;
    struct http_peer_count {
        uint8_t ip[16];
        unsigned count;
    } * peers;
    size_t size, capacity;
    unsigned limit; /* 0: none, and nothing is counted */
};

void http_peer_counts_init(struct http_peer_counts *counts, unsigned limit);
void http_peer_counts_free(struct http_peer_counts *counts);
bool http_peer_enters(struct http_peer_counts *counts, const uint8_t ip[16]); /* false: over the limit, or no memory */
void http_peer_leaves(struct http_peer_counts *counts, const uint8_t ip[16]);

#endif
