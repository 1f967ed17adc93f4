#include "meowbridge/supervisor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_FD = 3, MAX_FDS = 16, TELL_S = 5 };

/* --- variables --- */

static enum err not_a_number(const char *name, struct error *why)
{
    return error_set(why, ERR_CONFIG, "%s is not a number that it could be", name);
}

/* *out stays 0 where the variable is not set. */
static enum err read_number(const char *name, uint64_t max, uint64_t *out, struct error *why)
{
    const char *text = getenv(name);
    *out = 0;
    return text && (!slice_to_u64(slice_of(text), out) || *out > max) ? not_a_number(name, why) : ERR_NONE;
}

/* True if the variable names this process. */
static enum err is_for_us(const char *name, bool *out, struct error *why)
{
    uint64_t pid;
    enum err err = read_number(name, INT32_MAX, &pid, why);
    *out = !err && pid == (uint64_t)getpid();
    return err;
}

/* --- telling --- */

static enum err read_notify(struct supervisor *s, struct error *why)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t size = path ? strlen(path) : 0;
    if (size == 0) {
        return ERR_NONE;
    }
    if ((path[0] != '/' && path[0] != '@') || size < 2 || size >= sizeof s->notify.sun_path) {
        return error_set(why, ERR_CONFIG, "NOTIFY_SOCKET is neither an absolute path nor an abstract name");
    }
    s->notify.sun_family = AF_UNIX;
    memcpy(s->notify.sun_path, path, size);
    if (path[0] == '@') {
        s->notify.sun_path[0] = 0;
    }
    /* a path with its NUL, an abstract name without */
    s->notify_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (path[0] == '/'));
    return ERR_NONE;
}

enum err supervisor_tell(const struct supervisor *s, const char *assignments, struct error *why)
{
    if (s->notify_size == 0) {
        return ERR_NONE;
    }
    /* A socket of its own each time: one that is connected would not outlive a restart of the supervisor. */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {.tv_sec = TELL_S};
    enum err err = ERR_NONE;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) ||
        sendto(fd, assignments, strlen(assignments), MSG_NOSIGNAL, (const struct sockaddr *)&s->notify, s->notify_size) < 0) {
        err = error_set(why, ERR_IO, "cannot write to NOTIFY_SOCKET: %s", strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return err;
}

static enum err read_watchdog(struct supervisor *s, struct error *why)
{
    bool ours = true;
    uint64_t usec;
    enum err err = getenv("WATCHDOG_PID") ? is_for_us("WATCHDOG_PID", &ours, why) : ERR_NONE;
    err = err ? err : read_number("WATCHDOG_USEC", INT64_MAX, &usec, why);
    if (!err && getenv("WATCHDOG_USEC") && usec < 1000 * 1000) {
        err = error_set(why, ERR_CONFIG, "WATCHDOG_USEC is less than a second, which a slow disk alone can take");
    }
    if (!err && ours) {
        s->watchdog_ms = (int64_t)(usec / 1000);
    }
    return err;
}

/* --- the sockets --- */

static bool describe(int fd, struct listen_address *out)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un un;
    } bound = {0};
    socklen_t size = sizeof bound;
    int type = 0, listens = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof type}) || type != SOCK_STREAM ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &(socklen_t){sizeof listens}) || !listens ||
        getsockname(fd, &bound.any, &size)) {
        return false;
    }
    *out = (struct listen_address){0};
    switch (bound.any.sa_family) {
    case AF_INET:
        out->port = ntohs(bound.v4.sin_port);
        return inet_ntop(AF_INET, &bound.v4.sin_addr, out->host, sizeof out->host);
    case AF_INET6:
        out->port = ntohs(bound.v6.sin6_port);
        return inet_ntop(AF_INET6, &bound.v6.sin6_addr, out->host, sizeof out->host);
    case AF_UNIX:
        out->is_unix = true;
        memcpy(out->path, bound.un.sun_path, sizeof out->path - 1);
        return true;
    default:
        return false;
    }
}

static enum err take_socket(struct supervisor *s, int fd, struct slice name, struct error *why)
{
    bool is_admin = slice_equal(name, SLICE("admin"));
    struct supervisor_socket *socket = is_admin ? &s->admin : &s->http;
    if (socket->fd) {
        return error_set(why, ERR_CONFIG, "LISTEN_FDS has two sockets for the %s listener, which takes one%s",
                         is_admin ? "admin" : "http", is_admin ? "" : " (FileDescriptorName=admin for the admin listener's)");
    }
    if (!describe(fd, &socket->address)) {
        return error_set(why, ERR_CONFIG, "LISTEN_FDS: descriptor %d is no listening TCP or Unix socket", fd);
    }
    socket->fd = fd;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return ERR_NONE;
}

/* Takes the first of the names that colons separate. */
static struct slice next_name(const char **names)
{
    size_t size = strcspn(*names, ":");
    struct slice name = {*names, size};
    *names += size + ((*names)[size] == ':');
    return name;
}

static enum err read_sockets(struct supervisor *s, struct error *why)
{
    bool ours = false;
    uint64_t count = 0;
    enum err err = is_for_us("LISTEN_PID", &ours, why);
    err = err || !ours ? err : read_number("LISTEN_FDS", MAX_FDS, &count, why);
    const char *names = getenv("LISTEN_FDNAMES");
    names = names ? names : "";
    for (int i = 0; i < (int)count && !err; i++) {
        err = take_socket(s, FIRST_FD + i, next_name(&names), why);
    }
    return err;
}

enum err supervisor_open(struct supervisor *out, struct error *why)
{
    *out = (struct supervisor){0};
    enum err err = read_notify(out, why);
    err = err ? err : read_watchdog(out, why);
    return err ? err : read_sockets(out, why);
}
