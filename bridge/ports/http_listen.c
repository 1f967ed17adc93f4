#include "http_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

/* --- the socket --- */

static enum err cannot_listen(const struct http_server_options *options, const char *name, int error, struct error *why)
{
    switch (error) {
    case EADDRINUSE:
        return error_set(why, ERR_IO, "cannot listen on %s: %s (another program has it; choose another %s.listen)", name,
                         strerror(error), options->name);
    case EACCES:
        return error_set(
            why, ERR_IO,
            "cannot listen on %s: %s (a port below 1024 needs the capability CAP_NET_BIND_SERVICE, a Unix socket a "
            "directory that may be written)",
            name, strerror(error));
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
        return error_set(why, ERR_CONFIG, "cannot listen on %s: %s (this machine has no such address)", name, strerror(error));
    case ENOENT:
    case ENOTDIR:
        return error_set(why, ERR_CONFIG, "cannot listen on %s: %s (its directory must exist)", name, strerror(error));
    default:
        return error_set(why, ERR_IO, "cannot listen on %s: %s", name, strerror(error));
    }
}

static int listening_socket(const struct sockaddr *address, socklen_t size)
{
    int on = 1, off = 0;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    if (address->sa_family == AF_UNIX) {
        fchmod(fd, 0660); /* before bind, so that the file is never open to more */
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit it */
    }
    if (address->sa_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    if (bind(fd, address, size) == 0 && listen(fd, BACKLOG) == 0) {
        return fd;
    }
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static uint16_t bound_port(int fd)
{
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound;
    getsockname(fd, (struct sockaddr *)&bound, &size);
    return bound.ss_family == AF_INET6  ? ntohs(((const struct sockaddr_in6 *)&bound)->sin6_port)
           : bound.ss_family == AF_INET ? ntohs(((const struct sockaddr_in *)&bound)->sin_port)
                                        : 0;
}

static enum err open_tcp(struct http_listener *listener, const struct http_server_options *options, struct error *why)
{
    const char *host = options->host;
    char name[INET6_ADDRSTRLEN + 32], service[8];
    snprintf(name, sizeof name, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, options->port);
    snprintf(service, sizeof service, "%u", options->port);
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, service, &hints, &found) != 0) {
        return error_set(why, ERR_CONFIG,
                         "cannot listen on %s: a numeric address is expected, as 0.0.0.0, 127.0.0.1 or ::", name);
    }
    listener->fd = listening_socket(found->ai_addr, found->ai_addrlen);
    int error = errno;
    freeaddrinfo(found);
    if (listener->fd < 0) {
        return cannot_listen(options, name, error, why);
    }
    listener->port = bound_port(listener->fd);
    return ERR_NONE;
}

/* The file of a Unix socket is that of who made it. */
static enum err take_given(struct http_listener *listener, int fd, struct error *why)
{
    int on = 1, flags = fcntl(fd, F_GETFL);
    listener->fd = fd;
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC)) {
        return error_set(why, ERR_IO, "cannot use the socket that was given: %s", strerror(errno));
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on a Unix socket, which needs none */
    listener->port = bound_port(fd);
    return ERR_NONE;
}

/* A socket file on which nobody accepts is what a killed process leaves behind. */
static enum err remove_stale(const struct sockaddr_un *address, struct error *why)
{
    struct stat file;
    if (lstat(address->sun_path, &file) != 0) {
        return ERR_NONE;
    }
    if (!S_ISSOCK(file.st_mode)) {
        return error_set(why, ERR_CONFIG, "cannot listen on unix:%s: the file is there and is no socket", address->sun_path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return error_set(why, ERR_IO, "cannot listen on unix:%s: %s", address->sun_path, strerror(errno));
    }
    bool stale = connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED;
    close(fd);
    if (stale) {
        unlink(address->sun_path);
    }
    return ERR_NONE; /* where it is not stale, bind says so */
}

static enum err open_unix(struct http_listener *listener, const struct http_server_options *options, struct error *why)
{
    const char *path = options->unix_path;
    ASSERT(path);
    char name[sizeof listener->path + 8];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path[0] == 0 || strlen(path) >= sizeof address.sun_path) {
        return error_set(why, ERR_CONFIG, "cannot listen on unix:%s: a path of 1 to %zu bytes is expected", path,
                         sizeof address.sun_path - 1);
    }
    snprintf(name, sizeof name, "unix:%s", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    enum err err = remove_stale(&address, why);
    if (err) {
        return err;
    }
    listener->fd = listening_socket((const struct sockaddr *)&address, sizeof address);
    if (listener->fd < 0) {
        return cannot_listen(options, name, errno, why);
    }
    memcpy(listener->path, path, strlen(path) + 1);
    chmod(path, 0660); /* whatever the umask is */
    lstat(path, &listener->file);
    return ERR_NONE;
}

enum err http_listener_open(struct http_listener *listener, const struct http_server_options *options, struct error *why)
{
    *listener = (struct http_listener){.fd = -1};
    if (options->listen_fd > 0) {
        return take_given(listener, options->listen_fd, why);
    }
    return options->is_unix ? open_unix(listener, options, why) : open_tcp(listener, options, why);
}

void http_listener_close(struct http_listener *listener)
{
    if (listener->fd < 0) {
        return;
    }
    struct stat file;
    if (listener->path[0] && lstat(listener->path, &file) == 0 && file.st_dev == listener->file.st_dev &&
        file.st_ino == listener->file.st_ino) {
        unlink(listener->path);
    }
    close(listener->fd);
    listener->fd = -1;
}

/* --- who comes --- */

static void name_peer(struct http_peer *peer)
{
    memset(peer->ip, 0, sizeof peer->ip);
    if (peer->address.ss_family == AF_INET) {
        memset(peer->ip + 10, 0xff, 2);
        memcpy(peer->ip + 12, &((const struct sockaddr_in *)&peer->address)->sin_addr, 4);
    } else if (peer->address.ss_family == AF_INET6) {
        memcpy(peer->ip, &((const struct sockaddr_in6 *)&peer->address)->sin6_addr, 16);
    } else {
        strcpy(peer->text, "unix");
        return;
    }
    bool is_v4 = IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)peer->ip);
    inet_ntop(is_v4 ? AF_INET : AF_INET6, is_v4 ? peer->ip + 12 : peer->ip, peer->text, sizeof peer->text);
}

int http_listener_accept(const struct http_listener *listener, struct http_peer *peer)
{
    peer->address_size = sizeof peer->address;
    int fd = accept4(listener->fd, (struct sockaddr *)&peer->address, &peer->address_size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        name_peer(peer);
    }
    return fd;
}

void http_peer_counts_init(struct http_peer_counts *counts, unsigned limit)
{
    *counts = (struct http_peer_counts){.limit = limit};
    pthread_mutex_init(&counts->mutex, NULL);
}

void http_peer_counts_free(struct http_peer_counts *counts)
{
    pthread_mutex_destroy(&counts->mutex);
    free(counts->peers);
}

static struct http_peer_count *find(struct http_peer_counts *counts, const uint8_t ip[16])
{
    for (size_t i = 0; i < counts->size; i++) {
        if (memcmp(counts->peers[i].ip, ip, 16) == 0) {
            return &counts->peers[i];
        }
    }
    return NULL;
}

static struct http_peer_count *add(struct http_peer_counts *counts, const uint8_t ip[16])
{
    if (counts->size == counts->capacity) {
        size_t capacity = counts->capacity ? counts->capacity * 2 : 64;
        struct http_peer_count *peers = realloc(counts->peers, capacity * sizeof *peers);
        if (!peers) {
            return NULL;
        }
        counts->peers = peers;
        counts->capacity = capacity;
    }
    struct http_peer_count *peer = &counts->peers[counts->size++];
    memcpy(peer->ip, ip, 16);
    peer->count = 0;
    return peer;
}

bool http_peer_enters(struct http_peer_counts *counts, const uint8_t ip[16])
{
    if (counts->limit == 0) {
        return true;
    }
    pthread_mutex_lock(&counts->mutex);
    struct http_peer_count *peer = find(counts, ip);
    peer = peer ? peer : add(counts, ip);
    bool enters = peer && peer->count < counts->limit;
    if (enters) {
        peer->count++;
    }
    pthread_mutex_unlock(&counts->mutex);
    return enters;
}

void http_peer_leaves(struct http_peer_counts *counts, const uint8_t ip[16])
{
    if (counts->limit == 0) {
        return;
    }
    pthread_mutex_lock(&counts->mutex);
    struct http_peer_count *peer = find(counts, ip);
    ASSERT(peer && peer->count > 0);
    if (--peer->count == 0) {
        *peer = counts->peers[--counts->size];
    }
    pthread_mutex_unlock(&counts->mutex);
}
