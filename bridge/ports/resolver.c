#include "resolver.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* Two hold it while the thread runs, the owner and the thread; the last to leave frees it. What the thread writes is read by
 * the owner only after is_done. */
struct resolver {
    atomic_int holders;
    atomic_bool is_done;
    int fd;
    int trouble, trouble_errno; /* EAI_…, and errno where that is EAI_SYSTEM */
    struct resolver_answer answer;
    char host[];
};

static void let_go(struct resolver *resolver)
{
    if (atomic_fetch_sub(&resolver->holders, 1) == 1) {
        if (resolver->fd >= 0) {
            close(resolver->fd);
        }
        free(resolver);
    }
}

static void add_address(struct resolver_answer *answer, const struct addrinfo *info)
{
    if (answer->count < RESOLVER_ADDRESSES && (info->ai_family == AF_INET || info->ai_family == AF_INET6) &&
        getnameinfo(info->ai_addr, info->ai_addrlen, answer->addresses[answer->count], RESOLVER_ADDRESS_SIZE, NULL, 0,
                    NI_NUMERICHOST) == 0) {
        answer->count++;
    }
}

static int look_up(struct resolver *resolver, int flags)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags}, *list = NULL;
    errno = 0;
    int trouble = getaddrinfo(resolver->host, NULL, &hints, &list);
    resolver->trouble_errno = errno;
    for (const struct addrinfo *info = trouble ? NULL : list; info; info = info->ai_next) {
        add_address(&resolver->answer, info);
    }
    if (!trouble) {
        freeaddrinfo(list);
    }
    return trouble ? trouble : resolver->answer.count > 0 ? 0 : EAI_NONAME;
}

/* "localhost" is this host also where no file and no name server says so (RFC 6761 section 6.3): in bare containers. */
static bool is_localhost(struct resolver *resolver)
{
    if (strcasecmp(resolver->host, "localhost") != 0) {
        return false;
    }
    resolver->answer = (struct resolver_answer){.count = 2, .addresses = {"127.0.0.1", "::1"}};
    return true;
}

static void *look_up_beside(void *ctx)
{
    struct resolver *resolver = ctx;
    resolver->trouble = look_up(resolver, 0);
    if (resolver->trouble && is_localhost(resolver)) {
        resolver->trouble = 0;
    }
    atomic_store(&resolver->is_done, true);
    eventfd_write(resolver->fd, 1);
    let_go(resolver);
    return NULL;
}

/* Signals are for the threads that wait for them. */
static int start_thread(struct resolver *resolver)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, old;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&thread, &attributes, look_up_beside, resolver);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

static enum err look_up_by_name(struct resolver *resolver, struct error *why)
{
    resolver->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (resolver->fd < 0) {
        return error_set(why, ERR_IO, "cannot resolve %s: eventfd: %s", resolver->host, strerror(errno));
    }
    atomic_fetch_add(&resolver->holders, 1);
    int error = start_thread(resolver);
    if (error) {
        atomic_fetch_sub(&resolver->holders, 1);
        return error_set(why, ERR_IO, "cannot resolve %s: no thread: %s", resolver->host, strerror(error));
    }
    return ERR_NONE;
}

enum err resolver_open(struct resolver **out, const char *host, struct error *why)
{
    size_t size = strlen(host) + 1;
    struct resolver *resolver = calloc(1, sizeof *resolver + size);
    if (!resolver) {
        return error_set(why, ERR_MEMORY, "no memory to resolve %s", host);
    }
    memcpy(resolver->host, host, size);
    resolver->fd = -1;
    atomic_init(&resolver->holders, 1);
    enum err err = ERR_NONE;
    if (look_up(resolver, AI_NUMERICHOST) == 0) {
        atomic_store(&resolver->is_done, true);
    } else {
        err = look_up_by_name(resolver, why);
    }
    if (err != ERR_NONE) {
        resolver_close(&resolver);
        return err;
    }
    *out = resolver;
    return ERR_NONE;
}

void resolver_close(struct resolver **resolver)
{
    if (*resolver) {
        let_go(*resolver);
        *resolver = NULL;
    }
}

int resolver_fd(const struct resolver *resolver)
{
    return resolver->fd;
}

enum err resolver_take(struct resolver *resolver, struct resolver_answer *answer, struct error *why)
{
    if (!atomic_load(&resolver->is_done)) {
        return error_set(why, ERR_BUSY, "%s is being resolved", resolver->host);
    }
    if (resolver->trouble) {
        return error_set(why, ERR_IO, "cannot resolve %s: %s", resolver->host,
                         resolver->trouble == EAI_SYSTEM ? strerror(resolver->trouble_errno) : gai_strerror(resolver->trouble));
    }
    *answer = resolver->answer;
    return ERR_NONE;
}
