/* route: which messages an event becomes (contract.md 2 "routes" and 5).
 *
 * A route table is immutable and shared by reference count: a reload makes a new one, and whoever renders with the old one
 * goes on with it. Rendering is pure: event in, messages out, nothing sent. */
#ifndef MEOWBRIDGE_ROUTE_H
#define MEOWBRIDGE_ROUTE_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"
#include "meowbridge/event.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum route_body { ROUTE_PAYLOAD, ROUTE_ENVELOPE, ROUTE_CLOUDEVENT };
enum route_unheard { ROUTE_DELIVER, ROUTE_DEAD };

struct route {
    char *event;   /* pattern: '*' is any run of characters, also none; all else is literal */
    char **topics; /* templates, at least one */
    size_t topic_count;
    int qos; /* 0, 1, 2 */
    bool retain;
    int64_t expiry_ms; /* 0: none */
    enum route_body body;
    enum route_unheard unheard;
};

#define ROUTE_MAX_MESSAGES 64 /* topics of all routes together; the configuration is held to it */

struct route_table;

/* Copies the routes (count 0: the default one, "*" to "meowflow/{event}" with QoS 1). The templates must have passed
 * topic_check_template. One reference is the caller's. ERR_CONFIG: more than ROUTE_MAX_MESSAGES topics in all; ERR_MEMORY. */
MUST_CHECK enum err route_table_open(struct route_table **out, const struct route *routes, size_t count, struct error *why);
struct route_table *route_table_ref(struct route_table *table);
void route_table_unref(struct route_table **table); /* accepts NULL */

/* '*' in the pattern is any run of characters, also none; all else is literal. */
bool route_pattern_matches(struct slice pattern, struct slice name);
/* True if some route takes events of this name. */
bool route_table_matches(const struct route_table *table, struct slice event_name);

/* One MQTT message to be. All slices are borrowed from the event and from the message_list's own buffer. Everything in them
 * is legal in MQTT: topic 1..65535 bytes, property names and values at most 65535 bytes, no forbidden characters. */
struct message {
    struct slice topic, payload;
    int qos;
    bool retain;
    enum route_unheard unheard;
    bool has_run_out;                     /* its route's expiry has passed: it is not to be published */
    uint32_t expiry_s;                    /* what is left, rounded up to at least 1; 0: none */
    struct slice content_type;            /* never empty */
    const struct named_value *properties; /* user properties, in order, shared by all messages of the event */
    size_t property_count;
};

/* Reused from event to event so that rendering allocates nothing in the steady state; what one huge event took beyond 256 KiB
 * a buffer is given back by the next rendering. Its slices point into itself: it is not copied while they are used. */
struct message_list {
    struct message items[ROUTE_MAX_MESSAGES];
    size_t count;
    struct named_value properties[16];
    size_t property_count;
    struct buf text;       /* topics and encoded property values */
    struct buf cloudevent; /* the payload of ROUTE_CLOUDEVENT, made once for all routes that want it */
};

void message_list_init(struct message_list *list);
void message_list_free(struct message_list *list);

/* Why an event becomes no messages: it is dead at once. */
enum route_verdict {
    ROUTE_OK,
    ROUTE_NO_MATCH,
    ROUTE_EXPIRED,
    ROUTE_TOPIC_EMPTY,
    ROUTE_TOPIC_TOO_LONG,
    ROUTE_TEXT_TOO_LONG,
    ROUTE_NO_MEMORY
};
/* A sentence for the event's reason: "no route matches", "expired before it was published", … */
const char *route_verdict_text(enum route_verdict verdict);

/* Fills the list with the messages of every matching route, in order (route by route, topic by topic); with any verdict but
 * ROUTE_OK the list is empty. What it held before is gone.
 * User properties, in this order (contract.md 5; CloudEvents MQTT binding 1.0.2, binary mode: no prefix): specversion, id,
 * source, type, subject, time, appid, webhookid, traceparent, tracestate, replay. Empty values and a pushTime that is no
 * RFC 3339 time are left out; forbidden characters are percent-encoded; appId in source is percent-encoded as a URI needs.
 * ROUTE_CLOUDEVENT's payload is a CloudEvents 1.0 JSON object whose data is the payload's bytes unchanged, content type
 * application/cloudevents+json, with the attributes of the properties; the two others have application/json.
 * Expiry: now_ms - event->accepted_ms is counted against each matching route; the messages of routes that have run out keep
 * their places and say so; if all have, ROUTE_EXPIRED. ROUTE_NO_MEMORY passes; all other verdicts but ROUTE_OK are final. */
enum route_verdict route_render(const struct route_table *table, const struct event *event, int64_t now_ms,
                                struct message_list *out);

#endif
