/* publisher: takes events from the journal, in order, and publishes what the routes make of them (contract.md 5).
 *
 *                 ┌───────────── connect, birth ─────────────┐
 *   journal_claim ──▶ window of events, each with its messages ──▶ mqtt_client_publish
 *                         ▲ next connection: all unacknowledged ones again, in order      │ reason code
 *                         └─────── RETRY, DOUBTFUL, after a backoff ◀─────────────────────┤
 *   journal_settle ◀── contiguous prefix ◀── DONE, UNHEARD                                │
 *   journal_bury   ◀── REFUSED, DOUBTFUL eight times, no route, expired, too large, three connections lost over it
 *
 * Invariants: P1 messages of one connection are sent in the order of acceptance. P2 an event is settled only when each of its
 * messages is confirmed or it is buried. P3 no event blocks the line for ever: what is refused for good is buried and the line
 * moves on; what passes is tried again with backoff; an error that does not explain itself is tried eight times (half a
 * minute), and while nothing else passes only the oldest event's attempts count, so that a broker in trouble does not cost the
 * whole window. P4 an event over which the broker closes the connection three times running is buried: it was the oldest
 * unacknowledged one each time, and the last attempts were made with it alone in flight, so the blame is not shared; an outage
 * is not held against it as far as it can be told (publisher_line.h, struct blame, says how), nor a loss right after a refusal.
 * P5 a status topic that is refused is given up with one warning. P6 the ingress never waits for anything here.
 *
 * A journal that does not keep (memory) has senders who wait for the answer: for it a passing refusal is a refusal, a lost
 * connection gives every event back to it at once, and stopping publishes all that waits.
 * The publisher owns one thread; the functions below may be called from any, but publisher_stop and publisher_close from one
 * at a time. Implementation: publisher.c (thread), publisher_uplink.c (connection), publisher_line.c (events' way),
 * publisher_window.c (which message is where), publisher_pace.c (waiting times). */
#ifndef MEOWBRIDGE_PUBLISHER_H
#define MEOWBRIDGE_PUBLISHER_H

#include "meowbridge/err.h"
#include "meowbridge/journal.h"
#include "meowbridge/mqtt_client.h"
#include "meowbridge/route.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct publisher;

struct publisher_broker {
    const char *url; /* for the log; holds no password */
    const char *host;
    uint16_t port;
    bool tls;
};

struct publisher_options {      /* copied */
    struct journal *journal;    /* must outlive the publisher */
    struct route_table *routes; /* a reference is taken */
    const struct publisher_broker *brokers;
    size_t broker_count; /* at least 1; tried in order, from the first again after a loss */
    struct mqtt_tls_options tls;
    int version; /* 5 or 3 */
    const char *client_id, *username;
    struct slice password;
    int64_t keepalive_ms;
    unsigned inflight;        /* messages */
    int64_t max_rate;         /* messages a second; 0: no limit */
    const char *status_topic; /* expanded; NULL: none */
};

/* Reads certificates and starts the thread, which connects by itself. ERR_CONFIG for certificates. */
MUST_CHECK enum err publisher_open(struct publisher **out, const struct publisher_options *options, struct error *why);
/* For journal_hooks.claimable: ctx is the publisher. Takes no lock and never waits. */
void publisher_wake(void *ctx);
/* New routes for whatever is rendered from now on. Takes a reference. */
void publisher_set_routes(struct publisher *publisher, struct route_table *routes);
/* Certificate files (NULL: the ones it has) and password for the next connection. On error the old ones stay. The password is
 * copied. */
MUST_CHECK enum err publisher_reload(struct publisher *publisher, const struct mqtt_tls_options *tls, struct slice password,
                                     struct error *why);
/* Claims no more; waits for outstanding PUBACKs until deadline_ms (clock_mono_ms), publishes "offline", disconnects, joins.
 * Where "offline" is not confirmed in time, leaves without DISCONNECT, so that the broker sends the last will. Without a
 * connection it ends at once. Claimed events that are not settled go back to the journal with publisher_close. */
void publisher_stop(struct publisher *publisher, int64_t deadline_ms);
void publisher_close(struct publisher **publisher); /* stops at once if publisher_stop did not; accepts NULL */

struct publisher_state {
    bool connected;
    int64_t since_ms;      /* wall clock: for how long it has been so; first of all, since it was opened */
    char broker[256];      /* URL of the current or last tried one */
    char trouble[256];     /* why it is not connected, or empty */
    char last_error[256];  /* the last trouble there was, also when it is over; empty: none so far */
    int64_t last_error_ms; /* wall clock */
    unsigned in_flight;
};
void publisher_state(struct publisher *publisher, struct publisher_state *out);

#endif
