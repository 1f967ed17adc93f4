/* The order is kept by three rules. Messages are sent by window.next, which only moves forward but for two reasons: a lost
 * connection takes it back to the head, and a passing refusal (RETRY, DOUBTFUL) to the refused message. After a passing refusal nothing
 * is sent until all that was in flight has been answered and the backoff has passed; so whatever else was refused joins the
 * queue at its own place. What was acknowledged stays acknowledged over both. */
#include "publisher_line.h"

#include "meowbridge/clock.h"
#include "meowbridge/event.h"
#include "meowbridge/log.h"
#include "meowbridge/metrics.h"
#include "publisher_pace.h"
#include "publisher_window.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Four times the in-flight window: half of it can be claimed at once while the other half still has more to send than may be
 * in flight. The bytes bound what the claimed events take in memory; they cover 128 messages of 32 KiB. */
#define EVENTS_PER_FLIGHT 4
#define MIN_EVENTS 64
#define MAX_BYTES (4u << 20)

/* How long after its sending a message may still be blamed for a lost connection. A slow link gets longer for a large one. */
#define BLAME_MS 5000
#define BLAME_SLOW_LINK_BYTES_PER_MS 16

/* A connection that the broker closes so soon after a refusal was closed over that. */
#define REFUSAL_MS 1000

struct line {
    struct journal *journal;
    bool keeps;
    int version;
    struct route_table *routes;
    struct window window;
    int64_t due_ms;
    bool stopping;
    int64_t burst_us, burst_wall_ms; /* when the last burst began: what goes in one goes at one time */

    /* the event that was decoded and rendered last */
    struct event event;
    struct buf scratch;
    struct message_list list;

    struct rate rate;
    int64_t refused_ms;    /* when a message was refused for good; INT64_MIN: not on this connection */
    bool is_paused;        /* nothing is sent: a passing refusal, or no memory */
    int64_t resume_ms;     /* and not before this time */
    uint64_t pauses;       /* counted: they are rounds of attempts, and this is the current one */
    uint64_t confirmed_in; /* the last round in which a message was confirmed */
    struct backoff pause;
    struct complaint pause_trouble;

    bool claimable;
    int64_t claim_ms; /* not before */
    struct backoff claim;
    struct complaint claim_trouble;

    int64_t bury_ms; /* not before */
    struct complaint bury_trouble;

    struct blame blame;
    uint64_t alone_until; /* events before this place are sent one at a time */

    bool said_qos, said_retain;
};

void blame_accuse(struct blame *blame, uint64_t accused)
{
    if (blame->accused != accused) {
        *blame = (struct blame){.accused = accused};
    }
    blame->is_open = true;
}

void blame_broker_is_there(struct blame *blame)
{
    blame->strikes += blame->is_open;
    blame->is_open = false;
}

void blame_broker_is_away(struct blame *blame)
{
    blame->outages += blame->is_open;
    blame->is_open = false;
}

bool blame_is_proven(const struct blame *blame)
{
    return blame->strikes >= BLAME_MAX_STRIKES || blame->outages >= BLAME_MAX_OUTAGES;
}

const char *blame_reason(const struct blame *blame)
{
    return blame->strikes >= BLAME_MAX_STRIKES ? "the broker closed the connection over it three times"
                                               : "the broker went down over it ten times";
}

enum err line_open(struct line **out, struct journal *journal, struct route_table *routes, int version, unsigned inflight,
                   int64_t max_rate, struct error *why)
{
    struct line *line = calloc(1, sizeof *line);
    if (!line) {
        return error_set(why, ERR_MEMORY, "no memory for the publisher");
    }
    size_t events = (size_t)inflight * EVENTS_PER_FLIGHT;
    enum err err = window_open(&line->window, events > MIN_EVENTS ? events : MIN_EVENTS, inflight, why);
    if (err != ERR_NONE) {
        free(line);
        return err;
    }
    line->journal = journal;
    line->keeps = journal_keeps(journal);
    line->version = version;
    line->routes = route_table_ref(routes);
    line->due_ms = INT64_MAX;
    line->claimable = true;
    line->refused_ms = INT64_MIN;
    buf_init(&line->scratch, SIZE_MAX / 2);
    message_list_init(&line->list);
    rate_init(&line->rate, max_rate, clock_mono_us());
    *out = line;
    return ERR_NONE;
}

void line_close(struct line **line_ptr)
{
    struct line *line = *line_ptr;
    *line_ptr = NULL;
    if (!line) {
        return;
    }
    window_close(&line->window);
    journal_rewind(line->journal);
    route_table_unref(&line->routes);
    message_list_free(&line->list);
    buf_free(&line->scratch);
    free(line);
}

void line_set_routes(struct line *line, struct route_table *routes)
{
    route_table_unref(&line->routes);
    line->routes = route_table_ref(routes);
}

void line_wake(struct line *line)
{
    line->claimable = true;
}

void line_stop(struct line *line)
{
    line->stopping = true;
}

int64_t line_due_ms(const struct line *line)
{
    return line->due_ms;
}

unsigned line_in_flight(const struct line *line)
{
    return (unsigned)line->window.flight_count;
}

bool line_is_wary(const struct line *line)
{
    return line->blame.accused != 0;
}

/* True if at_ms has come; else it is noted as a time to come back. */
static bool is_time(struct line *line, int64_t at_ms)
{
    if (clock_mono_ms() >= at_ms) {
        return true;
    }
    line->due_ms = at_ms < line->due_ms ? at_ms : line->due_ms;
    return false;
}

static void pause_sending(struct line *line, const char *reason)
{
    if (line->is_paused) {
        return;
    }
    int64_t now_ms = clock_mono_ms();
    line->is_paused = true;
    line->pauses++;
    line->resume_ms = now_ms + backoff_next(&line->pause);
    if (complaint_is_due(&line->pause_trouble, reason, now_ms)) {
        log_warn("publishing pauses; trying again", LOG_STR("reason", reason));
    }
}

/* --- claiming --- */

static void claim_failed(struct line *line, const struct error *why)
{
    line->claim_ms = clock_mono_ms() + backoff_next(&line->claim);
    (void)is_time(line, line->claim_ms);
    if (complaint_is_due(&line->claim_trouble, why->text, clock_mono_ms())) {
        log_error("cannot read the journal; trying again", LOG_STR("reason", why->text));
    }
}

static void claim_events(struct line *line)
{
    struct window *window = &line->window;
    size_t room = window_room(window);
    if (!line->claimable || (line->stopping && line->keeps) || room < window->capacity / 2 || window->bytes > MAX_BYTES / 2 ||
        !is_time(line, line->claim_ms)) {
        return;
    }
    struct error why;
    struct journal_event *list = NULL;
    if (journal_claim(line->journal, room, MAX_BYTES - window->bytes, &list, &why) != ERR_NONE) {
        claim_failed(line, &why);
        return;
    }
    backoff_reset(&line->claim);
    complaint_clear(&line->claim_trouble);
    line->claimable = list != NULL;
    for (; list; list = list->next) {
        window_add(window, list);
    }
}

/* --- counting what cannot be published --- */

static enum metric refusal_by_verdict(enum route_verdict verdict)
{
    return verdict == ROUTE_NO_MATCH  ? METRIC_REFUSED_NO_ROUTE
           : verdict == ROUTE_EXPIRED ? METRIC_REFUSED_EXPIRED
                                      : METRIC_REFUSED_TOPIC;
}

static enum metric refusal_by_code(uint8_t reason_code)
{
    switch (reason_code) {
    case 0x87:
        return METRIC_REFUSED_UNAUTHORIZED;
    case 0x90:
        return METRIC_REFUSED_TOPIC;
    case 0x95:
        return METRIC_REFUSED_TOO_LARGE;
    case 0x99:
        return METRIC_REFUSED_PAYLOAD;
    default:
        return METRIC_REFUSED_OTHER;
    }
}

/* --- rendering --- */

static enum err decode(struct line *line, const struct slot *slot)
{
    const struct journal_event *stored = slot->stored;
    enum err err = event_decode(&line->event, stored->head, stored->body, &line->scratch, NULL);
    if (err != ERR_NONE) {
        line->event = (struct event){0};
    }
    line->event.seq = stored->seq;
    line->event.accepted_ms = stored->accepted_ms;
    line->event.is_replay = stored->is_replay;
    return err;
}

/* New routes hold for an event from its beginning, or not at all: its messages are told apart by their number. */
static void choose_routes(struct line *line, struct slot *slot)
{
    if (slot->routes != line->routes && !slot_has_begun(slot)) {
        route_table_unref(&slot->routes);
        slot->routes = route_table_ref(line->routes);
    }
}

/* True if line->list holds the event's messages. Else the event is dead now, or sending pauses. */
static bool render(struct line *line, struct slot *slot)
{
    enum err err = decode(line, slot);
    if (err == ERR_CORRUPT) {
        metrics_add(METRIC_REFUSED_DAMAGED, 1);
        slot_kill(slot, "the stored event is damaged");
        return false;
    }
    if (err != ERR_NONE) {
        pause_sending(line, "no memory");
        return false;
    }
    choose_routes(line, slot);
    enum route_verdict verdict = route_render(slot->routes, &line->event, line->burst_wall_ms, &line->list);
    if (verdict == ROUTE_OK) {
        slot_rendered(slot, (unsigned)line->list.count, line->burst_wall_ms);
        return true;
    }
    if (verdict == ROUTE_NO_MEMORY) {
        pause_sending(line, "no memory");
    } else {
        metrics_add(refusal_by_verdict(verdict), 1);
        slot_kill(slot, route_verdict_text(verdict));
    }
    return false;
}

/* The topic of a message that was sent, for a reason; empty if it cannot be told any more. */
static struct slice topic_of(struct line *line, const struct slot *slot, const struct flight *flight)
{
    if (decode(line, slot) != ERR_NONE ||
        route_render(slot->routes, &line->event, slot->rendered_ms, &line->list) != ROUTE_OK ||
        flight->number >= line->list.count) {
        return (struct slice){0};
    }
    return line->list.items[flight->number].topic;
}

/* How much of a text a reason or a log line shows: not all of a long one, but whole characters. */
static int shown(struct slice text)
{
    const size_t most = 200;
    if (text.size <= most) {
        return (int)text.size;
    }
    size_t size = most;
    while (size > 0 && ((unsigned char)text.data[size] & 0xc0) == 0x80) {
        size--;
    }
    return (int)size;
}

/* --- sending --- */

/* A broker that offers less than the route asks for gets less: delivered with QoS 0 is better than dead. */
static void lower_to_limits(struct line *line, struct mqtt_publish *packet, const struct mqtt_limits *limits)
{
    if (packet->qos > limits->maximum_qos) {
        packet->qos = limits->maximum_qos;
        if (!line->said_qos) {
            line->said_qos = true;
            log_warn("the broker offers a lower QoS than the routes ask for; publishing with that",
                     LOG_INT("maximum_qos", limits->maximum_qos));
        }
    }
    if (packet->retain && !limits->retain_available) {
        packet->retain = false;
        if (!line->said_retain) {
            line->said_retain = true;
            log_warn("the broker does not retain messages; publishing without retain");
        }
    }
}

static struct mqtt_publish packet_of(const struct line *line, const struct message *message)
{
    struct mqtt_publish packet = {
        .topic = message->topic, .payload = message->payload, .qos = message->qos, .retain = message->retain};
    if (line->version >= 5) {
        packet.expiry_s = message->expiry_s;
        packet.content_type = message->content_type;
        packet.properties = message->properties;
        packet.property_count = message->property_count;
    }
    return packet;
}

static bool is_too_large(struct mqtt_client *client, const struct mqtt_publish *packet, char *reason, size_t size)
{
    uint32_t limit = mqtt_client_limits(client)->maximum_packet_size;
    size_t bytes = limit ? mqtt_client_packet_size(client, packet) : 0;
    if (bytes <= limit) {
        return false;
    }
    snprintf(reason, size, "its packet of %zu bytes is over the broker's limit of %u on topic %.*s", bytes, limit,
             shown(packet->topic), packet->topic.data);
    return true;
}

static void refuse_unsent(struct slot *slot, unsigned number, enum metric metric, const char *reason)
{
    metrics_add(metric, 1);
    slot_blame(slot, reason);
    slot->done |= UINT64_C(1) << number;
}

/* False: no more can be sent now. */
static bool send_message(struct line *line, struct mqtt_client *client, struct slot *slot, unsigned number)
{
    const struct message *message = &line->list.items[number];
    struct mqtt_publish packet = packet_of(line, message);
    lower_to_limits(line, &packet, mqtt_client_limits(client));
    if (packet.qos == 0 && !line->keeps) {
        refuse_unsent(slot, number, METRIC_REFUSED_OTHER,
                      "with QoS 0 nothing confirms it, and without a journal only a confirmed event is taken");
        return true;
    }
    char too_large[JOURNAL_MAX_REASON];
    if (is_too_large(client, &packet, too_large, sizeof too_large)) {
        refuse_unsent(slot, number, METRIC_REFUSED_TOO_LARGE, too_large);
        return true;
    }
    bool again = slot->tried >> number & 1;
    int mid;
    struct error why;
    switch (mqtt_client_publish(client, &packet, &mid, &why)) {
    case ERR_NONE:
        window_sent(&line->window, line->window.next, number, mid, message->unheard == ROUTE_DEAD, line->burst_us / 1000);
        metrics_add(METRIC_MQTT_RETRIED, again);
        return true;
    case ERR_INVALID:
        refuse_unsent(slot, number, METRIC_REFUSED_OTHER, why.text);
        return true;
    case ERR_CLOSED:
        return false;
    default:
        pause_sending(line, why.text);
        return false;
    }
}

static bool may_go_now(struct line *line, struct mqtt_client *client)
{
    if (mqtt_client_room(client) == 0 || line->window.flight_count == line->window.flight_capacity) {
        return false;
    }
    if (rate_take(&line->rate, line->burst_us)) {
        return true;
    }
    (void)is_time(line, clock_mono_ms() + rate_wait_ms(&line->rate));
    return false;
}

/* False: no more can be sent now. */
static bool send_event(struct line *line, struct mqtt_client *client, struct slot *slot)
{
    if (!render(line, slot)) {
        return !line->is_paused;
    }
    for (unsigned i = 0; i < slot->count; i++) {
        if ((slot->done | slot->in_flight) >> i & 1) {
            continue;
        }
        if (line->list.items[i].has_run_out) {
            refuse_unsent(slot, i, METRIC_REFUSED_EXPIRED, route_verdict_text(ROUTE_EXPIRED));
            continue;
        }
        if (!may_go_now(line, client) || !send_message(line, client, slot, i)) {
            return false;
        }
    }
    return true;
}

/* The next event, if it may be sent now. */
static struct slot *next_event(struct line *line)
{
    struct window *window = &line->window;
    struct slot *slot = window_next(window);
    if (!slot || (line->stopping && line->keeps && !slot_has_begun(slot))) {
        return NULL;
    }
    /* "<=": the first one behind the suspects, too, waits until the last of them is answered. */
    bool shares = window->flight_count > (size_t)__builtin_popcountll(slot->in_flight);
    return window->next <= line->alone_until && shares ? NULL : slot;
}

/* Packets are sent in bursts of half a window, which take a fraction of the system calls and segments, unless nothing is in
 * flight whose answer would start the next burst. */
static bool is_worth_a_burst(struct line *line, struct mqtt_client *client)
{
    unsigned room = mqtt_client_room(client);
    return room > 0 && (line->window.flight_count == 0 || room >= mqtt_client_limits(client)->receive_maximum / 2);
}

static bool is_held_up(struct line *line)
{
    if (!line->is_paused) {
        return false;
    }
    if (line->window.flight_count > 0 || !is_time(line, line->resume_ms)) {
        return true;
    }
    line->is_paused = false;
    return false;
}

bool line_turn(struct line *line, struct mqtt_client *client)
{
    line->due_ms = INT64_MAX;
    claim_events(line);
    if (is_held_up(line) || !is_worth_a_burst(line, client)) {
        return false;
    }
    size_t before = line->window.flight_count;
    struct slot *slot = next_event(line);
    if (!slot) {
        return false;
    }
    line->burst_us = clock_mono_us();
    line->burst_wall_ms = clock_wall_ms();
    mqtt_client_burst(client, true);
    while (slot && send_event(line, client, slot)) {
        slot = next_event(line);
    }
    mqtt_client_burst(client, false);
    if (line->is_paused) {
        (void)is_held_up(line);
    }
    return line->window.flight_count > before;
}

/* --- answers --- */

static void refused(struct line *line, struct slot *slot, const struct flight *flight, uint8_t code)
{
    line->refused_ms = clock_mono_ms();
    struct slice topic = topic_of(line, slot, flight);
    char reason[JOURNAL_MAX_REASON], times[32] = "";
    if (slot->doubts >= LINE_MAX_DOUBTS) {
        snprintf(times, sizeof times, ", at each of %d attempts", LINE_MAX_DOUBTS);
    }
    snprintf(reason, sizeof reason, "refused by the broker: %s (0x%02x) on topic %.*s%s", mqtt_reason_text(code), code,
             shown(topic), topic.data ? topic.data : "", times);
    slot_blame(slot, reason);
}

static void unheard(struct line *line, struct slot *slot, const struct flight *flight)
{
    struct slice topic = topic_of(line, slot, flight);
    char reason[JOURNAL_MAX_REASON];
    snprintf(reason, sizeof reason, "nobody subscribes to %.*s (0x10)", shown(topic), topic.data ? topic.data : "");
    slot_blame(slot, reason);
}

static void retry(struct line *line, const struct flight *flight, uint8_t code)
{
    char reason[128];
    snprintf(reason, sizeof reason, "the broker cannot take it now: %s (0x%02x)", mqtt_reason_text(code), code);
    window_retry(&line->window, flight);
    pause_sending(line, reason);
}

static bool is_oldest(struct line *line, uint64_t place)
{
    for (uint64_t older = line->window.head; older < place; older++) {
        if (!slot_is_complete(window_slot(&line->window, older))) {
            return false;
        }
    }
    return true;
}

/* The pause that goes on, or the one that a refusal would begin now. */
static uint64_t round_of(const struct line *line)
{
    return line->pauses + !line->is_paused;
}

/* An event is doubted once a round, and while the broker takes nothing else only if it is the oldest: so a broker in trouble has
 * the time of a whole series of attempts for each event that it costs. */
static bool is_to_be_given_up(struct line *line, struct slot *slot, const struct flight *flight)
{
    uint64_t now = round_of(line);
    bool others_pass = line->confirmed_in + 1 >= now;
    if (!slot || slot->doubted == now || !(others_pass || is_oldest(line, flight->place))) {
        return false;
    }
    slot->doubted = now;
    if (++slot->doubts < LINE_MAX_DOUBTS) {
        return false;
    }
    if (others_pass) {
        backoff_reset(&line->pause);
    }
    return true;
}

static void confirmed(struct line *line)
{
    metrics_add(METRIC_MQTT_PUBLISHED, 1);
    line->confirmed_in = round_of(line);
    if (!line->is_paused) { /* while it pauses, this one was sent before the refusal and proves nothing */
        backoff_reset(&line->pause);
        complaint_clear(&line->pause_trouble);
    }
}

void line_acked(struct line *line, int mid, uint8_t reason_code)
{
    struct flight flight;
    if (!window_landed(&line->window, mid, &flight)) {
        return;
    }
    struct slot *slot = window_owner(&line->window, &flight);
    enum mqtt_ack ack = mqtt_ack_of(reason_code);
    switch (ack) {
    case MQTT_ACK_UNHEARD:
        metrics_add(METRIC_MQTT_UNHEARD, 1);
        if (slot && flight.unheard_is_dead) {
            metrics_add(METRIC_REFUSED_UNHEARD, 1);
            unheard(line, slot, &flight);
        }
        confirmed(line);
        break;
    case MQTT_ACK_DONE:
        confirmed(line);
        break;
    case MQTT_ACK_RETRY:
    case MQTT_ACK_DOUBTFUL:
        /* Without a journal its sender waits for an answer and will come again by itself. */
        if (line->keeps && !(ack == MQTT_ACK_DOUBTFUL && is_to_be_given_up(line, slot, &flight))) {
            retry(line, &flight, reason_code);
            break;
        }
        __attribute__((fallthrough));
    case MQTT_ACK_REFUSED:
        if (slot) {
            metrics_add(refusal_by_code(reason_code), 1);
            refused(line, slot, &flight, reason_code);
        }
        break;
    }
}

/* --- settling --- */

static void log_dead(struct line *line, const struct slot *slot)
{
    (void)!decode(line, slot);
    struct slice id = {line->event.id.data, (size_t)shown(line->event.id)};
    struct slice name = {line->event.name.data, (size_t)shown(line->event.name)};
    log_warn("an event is dead", LOG_INT("seq", slot->stored->seq), LOG_SLICE("id", id), LOG_SLICE("event", name),
             LOG_STR("reason", slot->reason));
}

/* False: the journal does not take it now. */
static bool bury(struct line *line, const struct slot *slot)
{
    struct error why;
    if (!is_time(line, line->bury_ms)) {
        return false;
    }
    if (journal_bury(line->journal, slot->stored->seq, slot->reason, &why) != ERR_NONE) {
        line->bury_ms = clock_mono_ms() + BACKOFF_MIN_MS;
        (void)is_time(line, line->bury_ms);
        if (complaint_is_due(&line->bury_trouble, why.text, clock_mono_ms())) {
            log_error("cannot keep a dead event now; trying again", LOG_STR("reason", why.text));
        }
        return false;
    }
    complaint_clear(&line->bury_trouble);
    metrics_add(METRIC_EVENTS_DEAD, 1);
    log_dead(line, slot);
    return true;
}

bool line_settle(struct line *line)
{
    struct window *window = &line->window;
    const int64_t wall_ms = clock_wall_ms();
    uint64_t settled = 0;
    uint64_t published = 0;
    while (!window_is_empty(window)) {
        struct slot *slot = window_slot(window, window->head);
        if (!slot_is_complete(slot) || (slot->reason && !bury(line, slot))) {
            break;
        }
        settled = slot->stored->seq;
        published += !slot->reason;
        if (!slot->reason && !slot->stored->is_replay) {
            metrics_observe(HISTOGRAM_EVENT_DELAY, (wall_ms - slot->stored->accepted_ms) * 1000);
        }
        if (line->blame.accused == settled) {
            line->blame = (struct blame){0};
        }
        window_release(window);
    }
    if (settled) {
        metrics_add(METRIC_EVENTS_PUBLISHED, published);
        journal_settle(line->journal, settled);
    }
    return settled != 0;
}

/* --- connections --- */

/* Finds the accused among the events that are held. */
static struct slot *accused_event(struct line *line)
{
    for (uint64_t place = line->window.head; place < line->window.tail; place++) {
        struct slot *slot = window_slot(&line->window, place);
        if (slot->stored->seq == line->blame.accused) {
            return slot;
        }
    }
    return NULL;
}

bool line_connected(struct line *line)
{
    journal_link(line->journal, true, NULL);
    line->refused_ms = INT64_MIN;
    blame_broker_is_there(&line->blame);
    struct slot *slot = blame_is_proven(&line->blame) ? accused_event(line) : NULL;
    if (slot) {
        metrics_add(METRIC_REFUSED_CONNECTION, 1);
        slot_kill(slot, blame_reason(&line->blame));
    }
    return slot;
}

void line_unreachable(struct line *line)
{
    blame_broker_is_away(&line->blame);
}

/* Accuses the oldest event in flight, if it was sent just now. */
static void accuse(struct line *line)
{
    uint64_t first, last;
    if (!window_in_flight(&line->window, &first, &last)) {
        return;
    }
    const struct slot *slot = window_slot(&line->window, first);
    int64_t patience_ms = BLAME_MS + (int64_t)(slot->stored->body.size / BLAME_SLOW_LINK_BYTES_PER_MS);
    if (clock_mono_ms() - slot->sent_ms > patience_ms) {
        return;
    }
    blame_accuse(&line->blame, slot->stored->seq);
    if (line->alone_until < last + 1) {
        line->alone_until = last + 1;
    }
}

bool line_lost(struct line *line, bool closed_by_broker, const char *why)
{
    bool is_explained = closed_by_broker && line->refused_ms != INT64_MIN && clock_mono_ms() - line->refused_ms <= REFUSAL_MS;
    (void)line_settle(line);
    if (line->keeps) {
        if (closed_by_broker && !is_explained) {
            accuse(line);
        }
        window_lost(&line->window);
        journal_link(line->journal, false, why);
        return is_explained;
    }
    /* The journal refuses what waits and takes those events back: not one may be touched after that. */
    window_clear(&line->window);
    journal_link(line->journal, false, why);
    journal_rewind(line->journal);
    line->claimable = true;
    return is_explained;
}

bool line_is_drained(struct line *line)
{
    if (!line->keeps) {
        return window_is_empty(&line->window) && !line->claimable;
    }
    return line->window.flight_count == 0 && (line->is_paused || !next_event(line));
}
