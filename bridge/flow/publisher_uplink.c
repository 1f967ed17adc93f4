/* The status topic can be refused in three ways: by the reason code of "online", by a connection that is closed over "online",
 * and, as the topic of the last will, with CONNECT. The last looks like a broker that is away. So after three rejected attempts
 * one goes without the will, for a probe. If that is accepted, it is ended at once and an attempt with the will follows: only
 * if this one is rejected again is the will at fault, and not a broker that has just come back. */
#include "publisher_uplink.h"

#include "meowbridge/clock.h"
#include "meowbridge/log.h"
#include "meowbridge/metrics.h"
#include "publisher_pace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_MS 10000
#define ACK_PATIENCE_MS 1
/* A connection that has lived this long was a good one: after its loss the backoff begins anew. One that a broker closes
 * again and again right after its CONNACK or a PUBACK does not get there. */
#define GOOD_AFTER_MS 5000
/* A connection that is lost later than this after "online" was confirmed was not lost over it. Events wait for so long when
 * something is accused already. */
#define BIRTH_BLAME_MS 500
#define PARTING_MS 1000
#define REJECTIONS_BEFORE_PROBE 3
#define MAX_ROUNDS 16 /* of send and answer in one turn */

enum state { WAITING, CONNECTING, ONLINE, LEAVING, PARTING, OVER };

/* "online" on the status topic, as far as this connection goes. */
enum birth { BIRTH_NONE, BIRTH_DUE, BIRTH_IN_FLIGHT, BIRTH_ANSWERED };

struct broker {
    char *url, *host;
    uint16_t port;
    bool tls;
    struct complaint trouble;
    unsigned rejections;       /* attempts with the will that were rejected, running */
    unsigned birth_doubts;     /* doubtful refusals of "online", running */
    bool accepts_without_will; /* the probe says so */
};

struct uplink {
    enum state state;
    struct line *line;
    struct mqtt_client *client; /* CONNECTING to PARTING */
    struct mqtt_tls *tls, *next_tls;

    struct broker *brokers;
    size_t broker_count;
    size_t current, lost; /* places in brokers: of this attempt; of the connection lost last */
    char *client_id, *username;
    struct slice password; /* owned */
    int version;
    int64_t keepalive_ms, ack_patience_ms;
    unsigned inflight;

    int64_t due_ms; /* WAITING: the next attempt; PARTING: the end of patience */
    struct backoff backoff;
    int64_t line_due_ms; /* ONLINE: when events want a turn */
    bool is_linked;      /* the line has been told that a connection stands */
    bool is_busy;        /* the last turn ended with work left */
    int64_t connected_ms;
    int64_t since_ms; /* wall clock: connected or lost since then, or opened */
    bool has_acked;   /* an event's message was answered on this connection */
    char trouble[sizeof((struct publisher_state *)0)->trouble];
    char last_error[sizeof((struct publisher_state *)0)->last_error];
    int64_t last_error_ms; /* wall clock */
    bool said_version;

    char *status_topic; /* NULL: none, or given up */
    bool is_probe;      /* this attempt goes without the will */
    enum birth birth;
    int birth_mid;
    int64_t birth_ms; /* BIRTH_DUE: not before; BIRTH_ANSWERED: when */
    struct backoff birth_backoff;
    struct blame birth_blame;
    int offline_mid; /* LEAVING, 0: not sent yet */

    bool stopping;
    int64_t deadline_ms;
};

static void enter(struct uplink *uplink, enum state state)
{
    ASSERT(uplink->state != OVER);
    uplink->state = state;
}

/* --- opening and closing --- */

static bool copy_brokers(struct uplink *uplink, const struct publisher_options *options)
{
    uplink->brokers = calloc(options->broker_count, sizeof *uplink->brokers);
    if (!uplink->brokers) {
        return false;
    }
    for (size_t i = 0; i < options->broker_count; i++) {
        const struct publisher_broker *from = &options->brokers[i];
        struct broker *to = &uplink->brokers[uplink->broker_count++];
        *to = (struct broker){.url = strdup(from->url), .host = strdup(from->host), .port = from->port, .tls = from->tls};
        if (!to->url || !to->host) {
            return false;
        }
    }
    return true;
}

static bool copy_text(char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

static bool copy_options(struct uplink *uplink, const struct publisher_options *options)
{
    uplink->version = options->version;
    uplink->keepalive_ms = options->keepalive_ms;
    uplink->ack_patience_ms = journal_keeps(options->journal) ? ACK_PATIENCE_MS : 0; /* else senders wait for the PUBACKs */
    uplink->inflight = options->inflight;
    uplink->password = (struct slice){slice_dup(options->password), options->password.size};
    const char *status_topic = options->status_topic && *options->status_topic ? options->status_topic : NULL;
    return uplink->password.data && copy_brokers(uplink, options) && copy_text(&uplink->client_id, options->client_id) &&
           copy_text(&uplink->username, options->username) && copy_text(&uplink->status_topic, status_topic);
}

enum err uplink_open(struct uplink **out, const struct publisher_options *options, struct mqtt_tls *tls, struct line *line,
                     struct error *why)
{
    ASSERT(options->broker_count > 0 && options->inflight > 0);
    struct uplink *uplink = calloc(1, sizeof *uplink);
    if (!uplink) {
        mqtt_tls_close(&tls);
        line_close(&line);
        return error_set(why, ERR_MEMORY, "no memory for the publisher");
    }
    uplink->line = line;
    uplink->tls = tls;
    uplink->due_ms = clock_mono_ms();
    uplink->since_ms = clock_wall_ms();
    snprintf(uplink->trouble, sizeof uplink->trouble, "connecting for the first time");
    if (!copy_options(uplink, options)) {
        uplink_close(&uplink);
        return error_set(why, ERR_MEMORY, "no memory for the publisher");
    }
    uplink->lost = uplink->broker_count; /* none */
    *out = uplink;
    return ERR_NONE;
}

void uplink_close(struct uplink **uplink_ptr)
{
    struct uplink *uplink = *uplink_ptr;
    *uplink_ptr = NULL;
    if (!uplink) {
        return;
    }
    mqtt_client_close(&uplink->client);
    line_close(&uplink->line);
    mqtt_tls_close(&uplink->tls);
    mqtt_tls_close(&uplink->next_tls);
    for (size_t i = 0; i < uplink->broker_count; i++) {
        free(uplink->brokers[i].url);
        free(uplink->brokers[i].host);
    }
    free(uplink->brokers);
    free(uplink->client_id);
    free(uplink->username);
    free(uplink->status_topic);
    uplink_wipe(&uplink->password);
    free(uplink);
}

void uplink_wipe(struct slice *password)
{
    if (password->data) {
        explicit_bzero((char *)password->data, password->size);
        free((char *)password->data);
    }
    *password = (struct slice){0};
}

struct line *uplink_line(struct uplink *uplink)
{
    return uplink->line;
}

void uplink_set_tls(struct uplink *uplink, struct mqtt_tls *tls)
{
    mqtt_tls_close(&uplink->next_tls);
    uplink->next_tls = tls;
}

void uplink_set_password(struct uplink *uplink, struct slice password)
{
    uplink_wipe(&uplink->password);
    uplink->password = password;
}

void uplink_stop(struct uplink *uplink, int64_t deadline_ms)
{
    uplink->stopping = true;
    uplink->deadline_ms = deadline_ms;
    line_stop(uplink->line);
}

bool uplink_is_over(const struct uplink *uplink)
{
    return uplink->state == OVER;
}

void uplink_state(const struct uplink *uplink, struct publisher_state *out)
{
    *out = (struct publisher_state){.connected = uplink->state == ONLINE || uplink->state == LEAVING,
                                    .since_ms = uplink->since_ms,
                                    .last_error_ms = uplink->last_error_ms,
                                    .in_flight = line_in_flight(uplink->line)};
    snprintf(out->broker, sizeof out->broker, "%s", uplink->brokers[uplink->current].url);
    memcpy(out->last_error, uplink->last_error, sizeof out->last_error);
    if (!out->connected) {
        snprintf(out->trouble, sizeof out->trouble, "%s", uplink->trouble);
    }
}

/* --- attempts --- */

/* The next attempt: at once at the next broker of the list; after the last one, or after a loss, from the first and later. */
static void wait_for_attempt(struct uplink *uplink, size_t next)
{
    int64_t delay_ms = 0;
    if (next >= uplink->broker_count) {
        next = 0;
        delay_ms = backoff_next(&uplink->backoff);
    }
    uplink->current = next;
    uplink->due_ms = clock_mono_ms() + delay_ms;
    enter(uplink, WAITING);
}

/* With the broker's address in front, unless why names it: among several, one must know which. */
static void note_error(struct uplink *uplink, const char *why, bool names_broker)
{
    const char *url = uplink->brokers[uplink->current].url;
    snprintf(uplink->trouble, sizeof uplink->trouble, "%s%s%s", names_broker ? "" : url, names_broker ? "" : ": ", why);
    memcpy(uplink->last_error, uplink->trouble, sizeof uplink->last_error);
    uplink->last_error_ms = clock_wall_ms();
}

static void give_up_status_topic(struct uplink *uplink, const char *reason)
{
    log_warn("the status topic is given up", LOG_STR("topic", uplink->status_topic), LOG_STR("reason", reason));
    free(uplink->status_topic);
    uplink->status_topic = NULL;
    uplink->birth_blame = (struct blame){0};
}

static void forget_rejections(struct broker *broker)
{
    broker->rejections = 0;
    broker->accepts_without_will = false;
}

static void suspect_will(struct uplink *uplink, bool rejected)
{
    struct broker *broker = &uplink->brokers[uplink->current];
    if (!uplink->status_topic || uplink->is_probe || !rejected) {
        forget_rejections(broker);
    } else if (broker->accepts_without_will) {
        give_up_status_topic(uplink, "the broker refuses it as the topic of the last will");
        forget_rejections(broker);
        backoff_reset(&uplink->backoff);
    } else {
        broker->rejections++;
    }
}

/* names_broker: why does. rejected: by the broker, rather than by its silence. */
static void attempt_failed(struct uplink *uplink, const char *why, bool names_broker, bool rejected)
{
    struct broker *broker = &uplink->brokers[uplink->current];
    suspect_will(uplink, rejected);
    note_error(uplink, why, names_broker);
    if (complaint_is_due(&broker->trouble, why, clock_mono_ms())) {
        log_warn("cannot connect to the broker; trying again", LOG_STR("url", broker->url), LOG_STR("reason", why));
    }
    if (uplink->current == uplink->lost) {
        line_unreachable(uplink->line);
        blame_broker_is_away(&uplink->birth_blame);
    }
    wait_for_attempt(uplink, uplink->current + 1);
}

static void attempt(struct uplink *uplink)
{
    const struct broker *broker = &uplink->brokers[uplink->current];
    uplink->is_probe = uplink->status_topic && broker->rejections >= REJECTIONS_BEFORE_PROBE && !broker->accepts_without_will;
    if (uplink->next_tls) {
        mqtt_tls_close(&uplink->tls);
        uplink->tls = uplink->next_tls;
        uplink->next_tls = NULL;
    }
    const struct mqtt_client_options options = {
        .host = broker->host,
        .port = broker->port,
        .tls = broker->tls ? uplink->tls : NULL,
        .version = uplink->version,
        .client_id = uplink->client_id,
        .username = uplink->username,
        .password = uplink->password,
        .keepalive_ms = uplink->keepalive_ms,
        .window = uplink->inflight,
        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
        .ack_patience_ms = uplink->ack_patience_ms,
        .will_topic = uplink->is_probe ? NULL : uplink->status_topic,
        .will_payload = SLICE("offline"),
    };
    struct error why;
    enter(uplink, CONNECTING);
    if (mqtt_client_open(&uplink->client, &options, &why) != ERR_NONE) {
        uplink->client = NULL;
        metrics_add(METRIC_MQTT_FAILED, 1);
        attempt_failed(uplink, why.text, false, false);
    }
}

/* --- the status topic --- */

/* mid 0: it could not be sent; if the connection broke, CLOSED follows. */
static int publish_status(struct uplink *uplink, struct slice text)
{
    const struct mqtt_limits *limits = mqtt_client_limits(uplink->client);
    const struct mqtt_publish packet = {.topic = slice_of(uplink->status_topic),
                                        .payload = text,
                                        .qos = limits->maximum_qos < 1 ? limits->maximum_qos : 1,
                                        .retain = limits->retain_available};
    struct error why;
    int mid = 0;
    switch (mqtt_client_publish(uplink->client, &packet, &mid, &why)) {
    case ERR_NONE:
        return mid;
    case ERR_INVALID:
        give_up_status_topic(uplink, why.text);
        return 0;
    default:
        return 0;
    }
}

static void birth_answered(struct uplink *uplink)
{
    uplink->birth = BIRTH_ANSWERED;
    uplink->birth_ms = clock_mono_ms();
}

static void give_birth(struct uplink *uplink)
{
    if (uplink->birth != BIRTH_DUE || clock_mono_ms() < uplink->birth_ms || mqtt_client_room(uplink->client) == 0) {
        return;
    }
    uplink->birth_mid = publish_status(uplink, SLICE("online"));
    if (uplink->birth_mid) {
        uplink->birth = BIRTH_IN_FLIGHT;
    } else if (!uplink->status_topic) {
        birth_answered(uplink);
    } else {
        uplink->birth_ms = clock_mono_ms() + backoff_next(&uplink->birth_backoff);
    }
}

static void birth_acked(struct uplink *uplink, uint8_t reason_code)
{
    unsigned *doubts = &uplink->brokers[uplink->current].birth_doubts;
    enum mqtt_ack ack = mqtt_ack_of(reason_code);
    birth_answered(uplink);
    if (ack == MQTT_ACK_DOUBTFUL) {
        ack = ++*doubts < LINE_MAX_DOUBTS ? MQTT_ACK_RETRY : MQTT_ACK_REFUSED;
    }
    switch (ack) {
    case MQTT_ACK_REFUSED:
    case MQTT_ACK_DOUBTFUL:
        give_up_status_topic(uplink, mqtt_reason_text(reason_code));
        break;
    case MQTT_ACK_RETRY:
        uplink->birth = BIRTH_DUE;
        uplink->birth_ms += backoff_next(&uplink->birth_backoff);
        break;
    case MQTT_ACK_DONE:
    case MQTT_ACK_UNHEARD:
        *doubts = 0;
        backoff_reset(&uplink->birth_backoff);
        break;
    }
}

/* When events may be sent on this connection; INT64_MAX: not before "online" is answered. */
static int64_t events_from_ms(const struct uplink *uplink)
{
    if (uplink->birth == BIRTH_IN_FLIGHT) {
        return INT64_MAX;
    }
    if (uplink->birth == BIRTH_DUE) {
        return uplink->birth_backoff.last_ms ? 0 : INT64_MAX; /* a passing refusal of it holds up nobody */
    }
    bool is_wary = line_is_wary(uplink->line) || uplink->birth_blame.accused;
    return uplink->birth == BIRTH_ANSWERED && is_wary ? uplink->birth_ms + BIRTH_BLAME_MS : 0;
}

/* The broker closed the connection: over "online", perhaps. */
static void blame_birth(struct uplink *uplink, bool closed_by_broker)
{
    if (!uplink->status_topic || uplink->birth == BIRTH_NONE) {
        return;
    }
    bool confirmed = uplink->birth == BIRTH_ANSWERED;
    if (uplink->has_acked || (confirmed && clock_mono_ms() - uplink->birth_ms > BIRTH_BLAME_MS)) {
        uplink->birth_blame = (struct blame){0};
    } else if (closed_by_broker && (confirmed || uplink->birth == BIRTH_IN_FLIGHT)) {
        blame_accuse(&uplink->birth_blame, 1);
    }
}

/* --- online --- */

static void probe_accepted(struct uplink *uplink)
{
    uplink->brokers[uplink->current].accepts_without_will = true;
    mqtt_client_disconnect(uplink->client);
    mqtt_client_close(&uplink->client);
    wait_for_attempt(uplink, uplink->current);
}

static void connected(struct uplink *uplink)
{
    if (uplink->is_probe) {
        probe_accepted(uplink);
        return;
    }
    struct broker *broker = &uplink->brokers[uplink->current];
    forget_rejections(broker);
    log_info("connected to the broker", LOG_STR("url", broker->url), LOG_INT("version", uplink->version));
    if (uplink->version < 5 && !uplink->said_version) {
        uplink->said_version = true;
        log_warn("MQTT 3.1.1 has no reason codes: a broker can confirm a message and drop it; version 5 tells");
    }
    metrics_add(METRIC_MQTT_CONNECTS, 1);
    uplink->since_ms = clock_wall_ms();
    complaint_clear(&broker->trouble);
    uplink->trouble[0] = '\0';
    uplink->connected_ms = clock_mono_ms();
    uplink->has_acked = false;
    enter(uplink, ONLINE);
    blame_broker_is_there(&uplink->birth_blame);
    if (uplink->status_topic && blame_is_proven(&uplink->birth_blame)) {
        give_up_status_topic(uplink, blame_reason(&uplink->birth_blame));
    }
    uplink->birth = uplink->status_topic ? BIRTH_DUE : BIRTH_NONE;
    uplink->birth_ms = uplink->connected_ms;
    backoff_reset(&uplink->birth_backoff);
    uplink->line_due_ms = INT64_MAX;
    uplink->is_linked = true;
    if (line_connected(uplink->line)) {
        backoff_reset(&uplink->backoff);
    }
}

/* DISCONNECT reason codes that speak of the broker's or the connection's state, not of a message: server busy, shutting down,
 * keep alive timeout, session taken over, receive maximum exceeded, message rate too high, quota exceeded, administrative
 * action, use another server, server moved, connection rate exceeded, maximum connect time (OASIS MQTT 5, 3.14.2.1). */
static bool is_brokers_own_trouble(uint8_t reason_code)
{
    static const uint8_t codes[] = {0x89, 0x8b, 0x8d, 0x8e, 0x93, 0x96, 0x97, 0x98, 0x9c, 0x9d, 0x9f, 0xa0};
    return memchr(codes, reason_code, sizeof codes) != NULL;
}

/* By what the broker gave as the reason (OASIS MQTT 5, 3.14.2.1), if it did. */
static enum metric loss_metric(const struct mqtt_event *event)
{
    switch (event->reason_code) {
    case 0x00:
        return event->silent ? METRIC_MQTT_LOST_SILENT : METRIC_MQTT_LOST_CLOSED;
    case 0x81:
    case 0x82:
    case 0x93:
        return METRIC_MQTT_LOST_PROTOCOL;
    case 0x87:
        return METRIC_MQTT_LOST_UNAUTHORIZED;
    case 0x89:
    case 0x96:
    case 0x97:
    case 0x9f:
        return METRIC_MQTT_LOST_OVERLOAD;
    case 0x8b:
        return METRIC_MQTT_LOST_SHUTDOWN;
    case 0x8d:
        return METRIC_MQTT_LOST_SILENT;
    case 0x8e:
        return METRIC_MQTT_LOST_TAKEN_OVER;
    case 0x95:
        return METRIC_MQTT_LOST_TOO_LARGE;
    default:
        return METRIC_MQTT_LOST_OTHER;
    }
}

static void lost(struct uplink *uplink, const struct mqtt_event *event)
{
    const struct broker *broker = &uplink->brokers[uplink->current];
    bool closed_by_broker = !event->silent && !is_brokers_own_trouble(event->reason_code);
    note_error(uplink, event->text, event->names_broker);
    log_warn("lost the connection to the broker", LOG_STR("url", broker->url), LOG_STR("reason", event->cause));
    metrics_add(loss_metric(event), 1);
    uplink->since_ms = clock_wall_ms();
    if (clock_mono_ms() - uplink->connected_ms >= GOOD_AFTER_MS) {
        backoff_reset(&uplink->backoff);
    }
    uplink->lost = uplink->current;
    uplink->is_linked = false;
    blame_birth(uplink, closed_by_broker);
    if (line_lost(uplink->line, closed_by_broker, event->text)) {
        backoff_reset(&uplink->backoff);
    }
    wait_for_attempt(uplink, uplink->broker_count);
}

/* --- leaving --- */

/* Ends the connection now. With a status topic and no word that "offline" arrived, the broker is left without DISCONNECT, so
 * that it sends the last will. */
static void leave(struct uplink *uplink, bool wants_will)
{
    if (!wants_will) {
        mqtt_client_disconnect(uplink->client);
        uplink->due_ms = clock_mono_ms() + PARTING_MS;
        uplink->due_ms = uplink->due_ms < uplink->deadline_ms ? uplink->due_ms : uplink->deadline_ms;
        enter(uplink, PARTING);
        return;
    }
    enter(uplink, OVER);
}

/* One step of stopping, where something waits for no broker any more. */
static void take_leave(struct uplink *uplink)
{
    bool is_late = clock_mono_ms() >= uplink->deadline_ms;
    switch (uplink->state) {
    case WAITING:
    case CONNECTING:
        enter(uplink, OVER);
        break;
    case ONLINE:
        if (is_late) {
            leave(uplink, uplink->status_topic);
        } else if (line_is_drained(uplink->line) && uplink->birth != BIRTH_IN_FLIGHT) {
            uplink->offline_mid = uplink->status_topic ? publish_status(uplink, SLICE("offline")) : 0;
            if (uplink->offline_mid) {
                enter(uplink, LEAVING);
            } else {
                leave(uplink, uplink->status_topic);
            }
        }
        break;
    case LEAVING:
        if (is_late) {
            leave(uplink, true);
        }
        break;
    case PARTING:
        if (clock_mono_ms() >= uplink->due_ms) {
            enter(uplink, OVER);
        }
        break;
    case OVER:
        break;
    }
}

/* --- the turn --- */

static void closed(struct uplink *uplink, const struct mqtt_event *event)
{
    switch (uplink->state) {
    case CONNECTING:
        metrics_add(event->refused  ? METRIC_MQTT_FAILED_REFUSED
                    : event->silent ? METRIC_MQTT_FAILED_SILENT
                                    : METRIC_MQTT_FAILED,
                    1);
        attempt_failed(uplink, event->text, event->names_broker, !event->silent);
        break;
    case ONLINE:
        lost(uplink, event);
        break;
    case LEAVING:
    case PARTING:
        enter(uplink, OVER);
        break;
    case WAITING:
    case OVER:
        break;
    }
    mqtt_client_close(&uplink->client);
}

static void acked(struct uplink *uplink, const struct mqtt_event *event)
{
    if (uplink->birth == BIRTH_IN_FLIGHT && event->mid == uplink->birth_mid) {
        birth_acked(uplink, event->reason_code);
    } else if (uplink->state == LEAVING && event->mid == uplink->offline_mid) {
        leave(uplink, mqtt_ack_of(event->reason_code) == MQTT_ACK_REFUSED);
    } else {
        uplink->has_acked = true;
        line_acked(uplink->line, event->mid, event->reason_code);
    }
}

/* True if there was any. */
static bool take_client_events(struct uplink *uplink)
{
    bool any = false;
    struct mqtt_event event;
    while (uplink->client && mqtt_client_next(uplink->client, &event)) {
        any = true;
        switch (event.type) {
        case MQTT_CLIENT_CONNECTED:
            connected(uplink);
            break;
        case MQTT_CLIENT_ACKED:
            acked(uplink, &event);
            break;
        case MQTT_CLIENT_CLOSED:
            closed(uplink, &event);
            break;
        }
    }
    return any;
}

/* True if it pays to look again at once. */
static bool send_what_may_go(struct uplink *uplink)
{
    if (uplink->state != ONLINE) {
        return false;
    }
    bool was_due = uplink->birth == BIRTH_DUE;
    give_birth(uplink);
    bool any = was_due && uplink->birth == BIRTH_IN_FLIGHT;
    int64_t from_ms = events_from_ms(uplink);
    bool may_go = clock_mono_ms() >= from_ms;
    if (may_go) {
        any |= line_turn(uplink->line, uplink->client);
    }
    any |= line_settle(uplink->line);
    uplink->line_due_ms = may_go ? line_due_ms(uplink->line) : from_ms;
    return any;
}

static void end(struct uplink *uplink)
{
    if (uplink->is_linked) {
        uplink->is_linked = false;
        log_info("left the broker", LOG_STR("url", uplink->brokers[uplink->current].url));
        (void)line_lost(uplink->line, false, "the bridge is stopping");
    }
    mqtt_client_close(&uplink->client);
    snprintf(uplink->trouble, sizeof uplink->trouble, "stopped");
}

void uplink_turn(struct uplink *uplink, short revents)
{
    if (uplink->state == OVER) {
        return;
    }
    if (uplink->state == WAITING && !uplink->stopping && clock_mono_ms() >= uplink->due_ms) {
        attempt(uplink);
        revents = 0;
    }
    if (uplink->client) {
        mqtt_client_work(uplink->client, revents);
    }
    uplink->is_busy = true;
    for (int round = 0; round < MAX_ROUNDS && uplink->is_busy; round++) {
        enum state before = uplink->state;
        uplink->is_busy = take_client_events(uplink);
        uplink->is_busy |= send_what_may_go(uplink);
        if (uplink->stopping) {
            take_leave(uplink);
        }
        uplink->is_busy |= uplink->state != before;
    }
    if (uplink->state == OVER) {
        end(uplink);
    }
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* clock_mono_ms of the next turn that is wanted even if nothing happens. */
static int64_t next_turn_ms(const struct uplink *uplink)
{
    int64_t at_ms = uplink->stopping ? uplink->deadline_ms : INT64_MAX;
    if (uplink->state == WAITING || uplink->state == PARTING) {
        at_ms = earlier(at_ms, uplink->due_ms);
    }
    if (uplink->state == ONLINE) {
        at_ms = earlier(at_ms, uplink->line_due_ms);
        if (uplink->birth == BIRTH_DUE && mqtt_client_room(uplink->client) > 0) {
            at_ms = earlier(at_ms, uplink->birth_ms);
        }
    }
    return at_ms;
}

void uplink_poll(struct uplink *uplink, struct pollfd *fd, int *timeout_ms)
{
    *fd = (struct pollfd){.fd = -1};
    *timeout_ms = -1;
    if (uplink->client) {
        mqtt_client_poll(uplink->client, fd, timeout_ms);
    }
    int64_t at_ms = uplink->is_busy ? 0 : next_turn_ms(uplink);
    if (at_ms == INT64_MAX) {
        return;
    }
    int64_t wait_ms = at_ms - clock_mono_ms();
    wait_ms = wait_ms < 0 ? 0 : wait_ms > 60000 ? 60000 : wait_ms;
    if (*timeout_ms < 0 || wait_ms < *timeout_ms) {
        *timeout_ms = (int)wait_ms;
    }
}
