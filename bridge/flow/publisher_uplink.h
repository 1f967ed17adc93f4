/* publisher_uplink: the connection to a broker and its life: attempts, backoff, status topic, leave-taking.
 *
 *   WAITING ──due──▶ CONNECTING ──CONNACK──▶ ONLINE ──stop, drained──▶ LEAVING ──"offline" confirmed──▶ PARTING ──▶ OVER
 *    ▲  │                │ CLOSED, stop        │ CLOSED, the deadline     │ CLOSED, the deadline            │        ▲
 *    │  └──stop──────────│─────────────────────│──────────────────────────┴─────────────────────────────────┴────────┘
 *    └───────────────────┴─────────────────────┘ and, when stopping, OVER from there
 *
 * Events follow once "online" is answered, so that a connection closed over the status topic is told from one closed over an
 * event. One thread. */
#ifndef MEOWBRIDGE_PUBLISHER_UPLINK_H
#define MEOWBRIDGE_PUBLISHER_UPLINK_H

#include "meowbridge/err.h"
#include "meowbridge/mqtt_client.h"
#include "meowbridge/publisher.h"
#include "publisher_line.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

struct uplink;

/* options are copied; tls (may be NULL) and line are the uplink's from then on, also on failure. */
MUST_CHECK enum err uplink_open(struct uplink **out, const struct publisher_options *options, struct mqtt_tls *tls,
                                struct line *line, struct error *why);
void uplink_close(struct uplink **uplink); /* at once, without DISCONNECT; accepts NULL */
struct line *uplink_line(struct uplink *uplink);
/* Takes new certificates, for the next connection. */
void uplink_set_tls(struct uplink *uplink, struct mqtt_tls *tls);
/* Takes over a malloc'd password, for the next connection. */
void uplink_set_password(struct uplink *uplink, struct slice password);
void uplink_wipe(struct slice *password); /* overwrites and frees; data NULL is fine */
void uplink_stop(struct uplink *uplink, int64_t deadline_ms);

/* Does what can be done without waiting. revents: as poll gave them for uplink_poll's descriptor. */
void uplink_turn(struct uplink *uplink, short revents);
/* What to wait for after a turn: fd (-1: none) and timeout_ms (-1: none). */
void uplink_poll(struct uplink *uplink, struct pollfd *fd, int *timeout_ms);
bool uplink_is_over(const struct uplink *uplink);
void uplink_state(const struct uplink *uplink, struct publisher_state *out);

#endif
