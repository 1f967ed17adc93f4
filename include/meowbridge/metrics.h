/* metrics: what the bridge counts. One table gives the counters' names; adding is one relaxed atomic. Any thread. */
#ifndef MEOWBRIDGE_METRICS_H
#define MEOWBRIDGE_METRICS_H

#include <stdint.h>

/*  identifier                  what is counted */
#define METRICS_COUNTERS(X)                                                    \
    X(WEBHOOKS_ACCEPTED, "webhooks answered 200, first of their id")           \
    X(WEBHOOKS_DUPLICATE, "webhooks answered 200 as duplicates")               \
    X(WEBHOOKS_BAD_SIGNATURE, "webhooks refused for signature or timestamp")   \
    X(WEBHOOKS_WRONG_APP, "webhooks refused because appId is another app's")   \
    X(WEBHOOKS_MALFORMED, "webhooks refused for JSON, fields or HTTP")         \
    X(WEBHOOKS_TOO_LARGE, "webhooks refused for their size")                   \
    X(WEBHOOKS_RATE_LIMITED, "webhooks refused above the app's rate limit")    \
    X(WEBHOOKS_UNAVAILABLE, "webhooks answered 503")                           \
    X(WEBHOOKS_PREVIOUS_SECRET, "webhooks that only the previous secret verified") \
    X(WEBHOOK_BYTES, "bytes of verified webhook bodies")                       \
    X(JOURNAL_COMMITS, "journal commits that held events")                     \
    X(JOURNAL_COMMIT_ERRORS, "journal commits that failed")                    \
    X(MQTT_CONNECTS, "connections that a broker accepted")                     \
    X(MQTT_DISCONNECTS, "connections lost or refused")                         \
    X(MQTT_PUBLISHED, "messages that a broker confirmed")                      \
    X(MQTT_UNHEARD, "messages that nobody subscribed to (0x10)")               \
    X(MQTT_RETRIED, "messages published again after a passing refusal or a lost connection") \
    X(EVENTS_PUBLISHED, "events of which every message is published")          \
    X(EVENTS_DEAD, "events kept as dead")

enum metric {
#define METRICS_IDENTIFIER(identifier, text) METRIC_##identifier,
    METRICS_COUNTERS(METRICS_IDENTIFIER)
#undef METRICS_IDENTIFIER
    METRIC_COUNT
};

void metrics_add(enum metric metric, uint64_t n);
uint64_t metrics_get(enum metric metric);

#endif
