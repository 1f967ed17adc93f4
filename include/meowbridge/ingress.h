/* ingress: from an HTTP request to an event in the journal, and back to the answer (contract.md 3).
 *
 *   headers: path 404 ▸ method 405 ▸ (size: http_server)
 *   whole:   signature 403 ▸ JSON and fields 400 ▸ appId 403 ▸ rate 429 ▸ route 503 (without storage) ▸ append, parked
 *   resumed: 200, 200 duplicate, or 503
 * Nothing of a body that does not verify is parsed. What is collected in one turn of a loop is appended as one batch. */
#ifndef MEOWBRIDGE_INGRESS_H
#define MEOWBRIDGE_INGRESS_H

#include "meowbridge/err.h"
#include "meowbridge/http_server.h"
#include "meowbridge/journal.h"
#include "meowbridge/route.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ingress;

struct ingress_app { /* all borrowed for the call, copied */
    struct slice id; /* empty: any appId */
    struct slice path;
    struct slice secret, previous_secret;  /* previous empty: none */
    struct slice public_host, public_path; /* empty: as the request has them */
    int64_t rate_limit;                    /* events a second; 0: none */
};

struct ingress_options {
    struct journal *journal;
    unsigned loops; /* of the HTTP server */
    const struct ingress_app *apps;
    size_t app_count;
    struct route_table *routes; /* NULL, or: an event that matches none is refused with 503 (`"journal": false`) */
};

MUST_CHECK enum err ingress_open(struct ingress **out, const struct ingress_options *options, struct error *why);
/* Before the journal is closed, where requests may still come: their events are refused from now on. Any thread. */
void ingress_stop(struct ingress *ingress);
void ingress_close(struct ingress **ingress); /* after the HTTP server and the journal; accepts NULL */
/* New apps and routes for the requests that come from now on. Any thread. On error the old ones stay. */
MUST_CHECK enum err ingress_reload(struct ingress *ingress, const struct ingress_app *apps, size_t app_count,
                                   struct route_table *routes, struct error *why);

/* What the HTTP server calls; ctx is the ingress. */
struct http_handler ingress_handler(struct ingress *ingress);
extern const char *const ingress_single_headers[]; /* for http_server_options */
/* For journal_hooks.appended: ctx is the ingress. */
void ingress_appended(void *ctx, struct journal_append *batch);

#endif
