/* metrics: what the bridge counts, and how Prometheus reads it (text exposition format 0.0.4).
 *
 * One table gives the identifiers, the storage, the text and its documentation; a test holds the names against promtool's rules.
 * Rows of one name stand together and differ in their labels, which are bounded sets only: whatever a sender or a broker can
 * choose freely never becomes a label. Every series is there from the start, with 0.
 *
 * Counting is one relaxed atomic addition to a cache line that the series has for itself: no lock, any thread. A gauge is what
 * was set last; those of the process are read from /proc when they are printed. */
#ifndef MEOWBRIDGE_METRICS_H
#define MEOWBRIDGE_METRICS_H

#include "meowbridge/bytes.h"
#include "meowbridge/version.h"

#include <stdint.h>

/* COUNTER and GAUGE: identifier, name, labels, how many of what is stored make 1 of what is printed, help (of the name's first
 * row). HISTOGRAM: identifier, name, the same, help, upper bounds of the buckets as stored. */
#define METRICS_TABLE(COUNTER, GAUGE, HISTOGRAM)                                                                               \
    GAUGE(BUILD_INFO, "meowbridge_build_info", "version=\"" MEOWBRIDGE_VERSION "\"", 1, "The program; always 1.")              \
    /* Ingress */                                                                                                              \
    COUNTER(WEBHOOKS_ACCEPTED, "meowbridge_webhook_requests_total", "code=\"200\",outcome=\"accepted\"", 1,                    \
            "Webhook requests, by what they were answered and why.")                                                           \
    COUNTER(WEBHOOKS_DUPLICATE, "meowbridge_webhook_requests_total", "code=\"200\",outcome=\"duplicate\"", 1, "")              \
    COUNTER(WEBHOOKS_MALFORMED, "meowbridge_webhook_requests_total", "code=\"400\",outcome=\"malformed\"", 1, "")              \
    COUNTER(WEBHOOKS_BAD_TIMESTAMP, "meowbridge_webhook_requests_total", "code=\"403\",outcome=\"bad_timestamp\"", 1, "")      \
    COUNTER(WEBHOOKS_BAD_SIGNATURE, "meowbridge_webhook_requests_total", "code=\"403\",outcome=\"bad_signature\"", 1, "")      \
    COUNTER(WEBHOOKS_WRONG_APP, "meowbridge_webhook_requests_total", "code=\"403\",outcome=\"wrong_app\"", 1, "")              \
    COUNTER(WEBHOOKS_NO_PATH, "meowbridge_webhook_requests_total", "code=\"404\",outcome=\"unknown_path\"", 1, "")             \
    COUNTER(WEBHOOKS_BAD_METHOD, "meowbridge_webhook_requests_total", "code=\"405\",outcome=\"wrong_method\"", 1, "")          \
    COUNTER(WEBHOOKS_TOO_SLOW, "meowbridge_webhook_requests_total", "code=\"408\",outcome=\"too_slow\"", 1, "")                \
    COUNTER(WEBHOOKS_TOO_LARGE, "meowbridge_webhook_requests_total", "code=\"413\",outcome=\"too_large\"", 1, "")              \
    COUNTER(WEBHOOKS_LONG_TARGET, "meowbridge_webhook_requests_total", "code=\"414\",outcome=\"malformed\"", 1, "")            \
    COUNTER(WEBHOOKS_RATE_LIMITED, "meowbridge_webhook_requests_total", "code=\"429\",outcome=\"rate_limited\"", 1, "")        \
    COUNTER(WEBHOOKS_LONG_HEADERS, "meowbridge_webhook_requests_total", "code=\"431\",outcome=\"malformed\"", 1, "")           \
    COUNTER(WEBHOOKS_UNAVAILABLE, "meowbridge_webhook_requests_total", "code=\"503\",outcome=\"unavailable\"", 1, "")          \
    COUNTER(WEBHOOKS_BAD_VERSION, "meowbridge_webhook_requests_total", "code=\"505\",outcome=\"malformed\"", 1, "")            \
    HISTOGRAM(WEBHOOK_DURATION, "meowbridge_webhook_request_duration_seconds", 1000000,                                        \
              "From a whole webhook request to its answer.", 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000,       \
              1000000, 5000000)                                                                                                \
    COUNTER(WEBHOOK_BYTES, "meowbridge_webhook_request_bytes_total", "", 1,                                                    \
            "Bytes of webhook bodies whose signature verified.")                                                               \
    /* Journal */                                                                                                              \
    COUNTER(JOURNAL_COMMITS, "meowbridge_journal_commits_total", "", 1, "Commits that held events, each synced.")              \
    COUNTER(JOURNAL_COMMIT_ERRORS, "meowbridge_journal_commit_errors_total", "", 1,                                            \
            "Commits that failed; their events got 503.")                                                                      \
    HISTOGRAM(COMMIT_DURATION, "meowbridge_journal_commit_duration_seconds", 1000000,                                          \
              "Writing and syncing a commit that held events.", 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000,       \
              250000, 1000000, 5000000)                                                                                        \
    HISTOGRAM(COMMIT_EVENTS, "meowbridge_journal_commit_events", 1, "Events stored by a commit.", 1, 2, 4, 8, 16, 32, 64, 128, \
              256, 512)                                                                                                        \
    GAUGE(JOURNAL_PENDING, "meowbridge_journal_pending_events", "", 1, "Events accepted and not yet published.")               \
    GAUGE(JOURNAL_OLDEST_PENDING, "meowbridge_journal_oldest_pending_timestamp_seconds", "", 1000,                             \
          "When the oldest event that is pending was accepted; 0 if none is.")                                                 \
    GAUGE(JOURNAL_DEAD, "meowbridge_journal_dead_events", "", 1, "Events kept as dead, for somebody to look at.")              \
    GAUGE(JOURNAL_BYTES, "meowbridge_journal_size_bytes", "", 1,                                                               \
          "The journal's database and its log; free pages not counted.")                                                       \
    GAUGE(JOURNAL_MAX_BYTES, "meowbridge_journal_max_size_bytes", "", 1, "journal.max_size; 0 if there is no limit.")          \
    /* Publisher */                                                                                                            \
    GAUGE(MQTT_CONNECTED, "meowbridge_mqtt_connected", "", 1, "1 while a broker has accepted the connection.")                 \
    COUNTER(MQTT_CONNECTS, "meowbridge_mqtt_connects_total", "", 1, "Connections that a broker accepted.")                     \
    COUNTER(MQTT_FAILED_REFUSED, "meowbridge_mqtt_connect_failures_total", "reason=\"refused\"", 1,                            \
            "Attempts to connect that failed: refused by the broker, no answer in time, or no connection at all.")             \
    COUNTER(MQTT_FAILED_SILENT, "meowbridge_mqtt_connect_failures_total", "reason=\"silent\"", 1, "")                          \
    COUNTER(MQTT_FAILED, "meowbridge_mqtt_connect_failures_total", "reason=\"unreachable\"", 1, "")                            \
    COUNTER(MQTT_LOST_CLOSED, "meowbridge_mqtt_disconnects_total", "reason=\"closed\"", 1,                                     \
            "Connections lost: closed without a reason, silent for too long, or for the reason that the broker gave.")         \
    COUNTER(MQTT_LOST_SILENT, "meowbridge_mqtt_disconnects_total", "reason=\"silent\"", 1, "")                                 \
    COUNTER(MQTT_LOST_TAKEN_OVER, "meowbridge_mqtt_disconnects_total", "reason=\"session_taken_over\"", 1, "")                 \
    COUNTER(MQTT_LOST_SHUTDOWN, "meowbridge_mqtt_disconnects_total", "reason=\"server_shutting_down\"", 1, "")                 \
    COUNTER(MQTT_LOST_OVERLOAD, "meowbridge_mqtt_disconnects_total", "reason=\"overload\"", 1, "")                             \
    COUNTER(MQTT_LOST_TOO_LARGE, "meowbridge_mqtt_disconnects_total", "reason=\"packet_too_large\"", 1, "")                    \
    COUNTER(MQTT_LOST_UNAUTHORIZED, "meowbridge_mqtt_disconnects_total", "reason=\"not_authorized\"", 1, "")                   \
    COUNTER(MQTT_LOST_PROTOCOL, "meowbridge_mqtt_disconnects_total", "reason=\"protocol_error\"", 1, "")                       \
    COUNTER(MQTT_LOST_OTHER, "meowbridge_mqtt_disconnects_total", "reason=\"other\"", 1, "")                                   \
    GAUGE(MQTT_IN_FLIGHT, "meowbridge_mqtt_inflight_messages", "", 1, "Messages sent that the broker has not confirmed yet.")  \
    COUNTER(MQTT_PUBLISHED, "meowbridge_mqtt_published_total", "", 1, "Messages that a broker confirmed.")                     \
    COUNTER(MQTT_UNHEARD, "meowbridge_mqtt_unheard_total", "", 1, "Confirmed messages that nobody subscribes to (0x10).")      \
    COUNTER(MQTT_RETRIED, "meowbridge_mqtt_retries_total", "", 1,                                                              \
            "Messages sent again, after a passing refusal or a lost connection.")                                              \
    COUNTER(REFUSED_UNAUTHORIZED, "meowbridge_mqtt_refused_total", "reason=\"not_authorized\"", 1,                             \
            "Messages that cannot be published, by reason; their event becomes dead.")                                         \
    COUNTER(REFUSED_TOPIC, "meowbridge_mqtt_refused_total", "reason=\"topic_invalid\"", 1, "")                                 \
    COUNTER(REFUSED_TOO_LARGE, "meowbridge_mqtt_refused_total", "reason=\"packet_too_large\"", 1, "")                          \
    COUNTER(REFUSED_PAYLOAD, "meowbridge_mqtt_refused_total", "reason=\"payload_invalid\"", 1, "")                             \
    COUNTER(REFUSED_OTHER, "meowbridge_mqtt_refused_total", "reason=\"other\"", 1, "")                                         \
    COUNTER(REFUSED_NO_ROUTE, "meowbridge_mqtt_refused_total", "reason=\"no_route\"", 1, "")                                   \
    COUNTER(REFUSED_EXPIRED, "meowbridge_mqtt_refused_total", "reason=\"expired\"", 1, "")                                     \
    COUNTER(REFUSED_UNHEARD, "meowbridge_mqtt_refused_total", "reason=\"unheard\"", 1, "")                                     \
    COUNTER(REFUSED_CONNECTION, "meowbridge_mqtt_refused_total", "reason=\"connection_lost\"", 1, "")                          \
    COUNTER(REFUSED_DAMAGED, "meowbridge_mqtt_refused_total", "reason=\"damaged\"", 1, "")                                     \
    HISTOGRAM(EVENT_DELAY, "meowbridge_event_delay_seconds", 1000000,                                                          \
              "From an event's acceptance to the broker's last confirmation of it; replays are not counted.", 1000, 2500,      \
              5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 5000000, 30000000, 300000000, 3600000000)            \
    COUNTER(EVENTS_PUBLISHED, "meowbridge_events_published_total", "", 1, "Events of which every message is published.")       \
    COUNTER(EVENTS_DEAD, "meowbridge_events_dead_total", "", 1, "Events kept as dead.")                                        \
    COUNTER(EVENTS_REPLAYED, "meowbridge_events_replayed_total", "", 1, "Events queued again by hand.")                        \
    /* Process, by the names that Prometheus's own clients use */                                                              \
    COUNTER(PROCESS_CPU, "process_cpu_seconds_total", "", 1000000, "User and system CPU time spent in seconds.")               \
    GAUGE(PROCESS_OPEN_FDS, "process_open_fds", "", 1, "Number of open file descriptors.")                                     \
    GAUGE(PROCESS_MAX_FDS, "process_max_fds", "", 1, "Maximum number of open file descriptors.")                               \
    GAUGE(PROCESS_VIRTUAL, "process_virtual_memory_bytes", "", 1, "Virtual memory size in bytes.")                             \
    GAUGE(PROCESS_RESIDENT, "process_resident_memory_bytes", "", 1, "Resident memory size in bytes.")                          \
    GAUGE(PROCESS_START, "process_start_time_seconds", "", 1000, "Start time of the process since the Unix epoch in seconds.")

/* Of each app, by its configured id: identifier, name, labels beside app, scale, help. */
#define METRICS_APP_TABLE(COUNTER, GAUGE)                                                         \
    COUNTER(VERIFIED_CURRENT, "meowbridge_webhook_verified_total", "secret=\"current\"", 1,       \
            "Requests that verified, by the app's secret that did it.")                           \
    COUNTER(VERIFIED_PREVIOUS, "meowbridge_webhook_verified_total", "secret=\"previous\"", 1, "") \
    GAUGE(PREVIOUS_USED, "meowbridge_webhook_previous_secret_used_timestamp_seconds", "", 1000,   \
          "When a request last verified by the previous secret alone; 0 for never.")

#define METRICS_NOTHING(...)
#define METRICS_IDENTIFIER(identifier, ...) METRIC_##identifier,
#define METRICS_HISTOGRAM_IDENTIFIER(identifier, ...) HISTOGRAM_##identifier,
#define METRICS_APP_IDENTIFIER(identifier, ...) METRIC_APP_##identifier,
enum metric { METRICS_TABLE(METRICS_IDENTIFIER, METRICS_IDENTIFIER, METRICS_NOTHING) METRIC_COUNT };
enum metric_histogram { METRICS_TABLE(METRICS_NOTHING, METRICS_NOTHING, METRICS_HISTOGRAM_IDENTIFIER) HISTOGRAM_COUNT };
enum metric_app { METRICS_APP_TABLE(METRICS_APP_IDENTIFIER, METRICS_APP_IDENTIFIER) METRIC_APP_COUNT };

void metrics_add(enum metric metric, uint64_t n);
void metrics_set(enum metric gauge, int64_t value); /* as stored; negative is 0 */
uint64_t metrics_get(enum metric metric);           /* as stored */

/* Counts one value, as stored (microseconds of a duration); a negative one, of a clock that was set back, as 0. */
void metrics_observe(enum metric_histogram histogram, int64_t value);

#define METRICS_MAX_BUCKETS 16
struct metrics_sample {
    uint64_t counts[METRICS_MAX_BUCKETS]; /* not cumulative; the last one holds what is above all bounds */
    uint64_t sum, count;
};
void metrics_sample(enum metric_histogram histogram, struct metrics_sample *out);
/* The value, as stored, that a share of what was counted between two samples does not exceed, interpolated within its bucket;
 * -1 if nothing was counted. What is above all bounds counts as the last bound. */
int64_t metrics_quantile(enum metric_histogram histogram, const struct metrics_sample *before,
                         const struct metrics_sample *after, double share);
/* The bound, as stored, of the bucket that a value such as metrics_quantile gives lies in: what was counted there is no more than
 * this. -1: it is the last bound, or lies above it. */
int64_t metrics_bucket_bound(enum metric_histogram histogram, int64_t value);

/* The place of an app's series ("*" for one that takes any appId), made at its first mention and kept for the life of the process; ids beyond the first 127 share
 * the last place, "other". Any thread; locks, so ask once. */
#define METRICS_MAX_APPS 128
unsigned metrics_app(struct slice id);
void metrics_app_add(unsigned app, enum metric_app metric, uint64_t n);
void metrics_app_set(unsigned app, enum metric_app gauge, int64_t value);
uint64_t metrics_app_get(unsigned app, enum metric_app metric);

/* Reads what the kernel knows of the process into its metrics. */
void metrics_read_process(void);
/* Appends everything in the text format. Any thread. */
void metrics_print(struct buf *out);

#endif
