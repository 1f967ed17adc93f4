/* resolver: a host name's addresses, without waiting for them; internal to the ports.
 *
 * getaddrinfo blocks for as long as the name servers take, so it runs in a thread of its own, which nobody joins: whoever loses
 * interest leaves, and the thread cleans up when the answer has come. An address in figures is its own answer, without thread. */
#ifndef MEOWBRIDGE_RESOLVER_H
#define MEOWBRIDGE_RESOLVER_H

#include "meowbridge/err.h"

#include <stddef.h>

#define RESOLVER_ADDRESSES 16
#define RESOLVER_ADDRESS_SIZE 64 /* "fe80::…%interface" and its NUL */

struct resolver;

/* In figures, in the order in which to try them (RFC 6724); those beyond the limit are left out. */
struct resolver_answer {
    size_t count;
    char addresses[RESOLVER_ADDRESSES][RESOLVER_ADDRESS_SIZE];
};

MUST_CHECK enum err resolver_open(struct resolver **out, const char *host, struct error *why);
/* Accepts NULL. Never waits, whatever the state. */
void resolver_close(struct resolver **resolver);
/* Readable from when there is an answer; -1 if there was one at once. */
int resolver_fd(const struct resolver *resolver);
/* ERR_BUSY: not yet. ERR_IO: there is no such host, or nobody to ask. */
MUST_CHECK enum err resolver_take(struct resolver *resolver, struct resolver_answer *answer, struct error *why);

#endif
