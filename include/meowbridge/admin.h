/* admin: what the bridge says of itself by HTTP (contract.md 6): GET and HEAD of /livez and /readyz. */
#ifndef MEOWBRIDGE_ADMIN_H
#define MEOWBRIDGE_ADMIN_H

#include "meowbridge/err.h"
#include "meowbridge/http_server.h"
#include "meowbridge/journal.h"
#include "meowbridge/publisher.h"

struct admin;

struct admin_options {
    struct journal *journal;
    struct publisher *publisher;
};

MUST_CHECK enum err admin_open(struct admin **out, const struct admin_options *options, struct error *why);
void admin_close(struct admin **admin); /* after its HTTP server; accepts NULL */
struct http_handler admin_handler(struct admin *admin);
/* From now on /readyz answers 503, "stopping". Any thread. */
void admin_set_stopping(struct admin *admin);

#endif
