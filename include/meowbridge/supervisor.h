/* supervisor: what systemd, and whoever speaks its protocols, expects of a service and gives it. Without libsystemd.
 *
 *   NOTIFY_SOCKET                 a datagram socket, a path or "@" and an abstract name: states are told there (sd_notify(3))
 *   WATCHDOG_USEC, WATCHDOG_PID   how often WATCHDOG=1 must come, or the service is killed (sd_watchdog_enabled(3))
 *   LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES   sockets that listen already, from descriptor 3 on (sd_listen_fds(3)). The one that
 *                                 is named "admin" is the admin listener's, one of any other name the webhooks'
 * Where a variable is not set, or is meant for another process, its part is absent, and telling does nothing. */
#ifndef MEOWBRIDGE_SUPERVISOR_H
#define MEOWBRIDGE_SUPERVISOR_H

#include "meowbridge/config.h"
#include "meowbridge/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct supervisor_socket {
    int fd;                        /* 0: none was given */
    struct listen_address address; /* that it is bound to */
};

struct supervisor {
    struct sockaddr_un notify;
    socklen_t notify_size; /* 0: nobody listens to us */
    int64_t watchdog_ms;   /* 0: no watchdog */
    struct supervisor_socket http, admin;
};

/* Reads the environment. ERR_CONFIG, with the variable's name: a value that is none, a descriptor that is no listening stream
 * socket, two for one listener. */
MUST_CHECK enum err supervisor_open(struct supervisor *out, struct error *why);
/* Tells assignments, one a line: "READY=1\nSTATUS=…". Waits 5 s at most. ERR_IO. */
MUST_CHECK enum err supervisor_tell(const struct supervisor *supervisor, const char *assignments, struct error *why);

#endif
