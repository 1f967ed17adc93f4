/* admin: what the bridge says of itself by HTTP, and how it is mended (contract.md 6). On a listener of its own:
 *
 *   GET  /                 the page, for people
 *   GET  /livez, /healthz  200 while all threads go round (heartbeat.h), whatever broker and disk say; else 503
 *   GET  /readyz           200, or 503 with a line for each reason; ?verbose: a line for each check
 *   GET  /metrics          Prometheus's text format
 *   GET  /api/status       JSON: everything at a glance, with the last hour by the minute
 *   GET  /api/events       JSON: ?state= ?event= ?app= ?since= ?until= ?after= ?before= ?limit=, newest first, "next" for the next page
 *   GET  /api/events/SEQ   JSON: one event whole
 *   POST /api/replay       JSON: {"seqs":[…]} or {"state":"dead"} or {"since":T,"until":T}; answered when it is queued
 *   GET  /api/stream       server-sent events: "status" each second, "event" for each that comes or changes; filters as above
 *
 * Who may: the probes anybody. The rest needs the token if there is one; without one only this host can connect (bridge sees to
 * that), and then a page of somebody else's, in a browser of this host, must not get in: so Host is an address or localhost
 * (against DNS rebinding), and a POST has JSON for its content and, if it names an Origin, ours (against forged requests). A
 * request with the token needs no look at Host: such a page does not know it.
 * Errors are application/problem+json (RFC 9457). HEAD is GET without a body.
 * Bounded: 8 streams, 200 events a page, 1,000 numbers a replay, and what an answer holds. */
#ifndef MEOWBRIDGE_ADMIN_H
#define MEOWBRIDGE_ADMIN_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"
#include "meowbridge/http_server.h"
#include "meowbridge/journal.h"
#include "meowbridge/publisher.h"
#include "meowbridge/route.h"

#include <stdint.h>

struct admin;

struct admin_options {           /* strings are copied */
    struct journal *journal;     /* until admin_detach */
    struct publisher *publisher; /* the same */
    struct route_table *routes;  /* a reference is taken */
    struct slice token;          /* empty: none is asked for */
    const char *journal_path;    /* NULL: it keeps nothing */
    int64_t journal_max_bytes;   /* 0: no limit */
    const char *client_id;
};

/* Starts a thread, which samples the counters each second and feeds the streams. */
MUST_CHECK enum err admin_open(struct admin **out, const struct admin_options *options, struct error *why);
void admin_close(struct admin **admin); /* after its HTTP server; accepts NULL */
struct http_handler admin_handler(struct admin *admin);
extern const char *const admin_single_headers[]; /* for http_server_options */
/* From now on /readyz answers 503, "stopping". Any thread. */
void admin_set_stopping(struct admin *admin);
/* From now on neither journal nor publisher is touched, and what needs them answers 503. Replays under way end with the journal,
 * so the HTTP server is closed after it. */
void admin_detach(struct admin *admin);
/* New token and routes, for what comes from now on. On error the old ones stay. Any thread. */
MUST_CHECK enum err admin_reload(struct admin *admin, struct slice token, struct route_table *routes, struct error *why);

#endif
