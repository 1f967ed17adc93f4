/* From an event to its messages.
 *
 * Topics, and property values that are not taken as they stand, are made one behind the other in list->text, which moves as it
 * grows; so their slices get only their sizes at first, and settle gives them their addresses when the last one is made. An
 * envelope is made after that, out of the settled properties, in a buffer of its own.
 *
 * No text can grow without bound: topic.h stops soon after TOPIC_MAX_BYTES, and the first topic that is too long ends the
 * rendering. TEXT_LIMIT is over what can come together, so a failed buffer always means that memory is short, which passes,
 * and never that the event is too large, which does not. */
#include "meowbridge/route.h"

#include "meowbridge/rfc3339.h"
#include "meowbridge/topic.h"

#include <stdatomic.h>
#include <stdlib.h>

enum {
    /* 63 topics of 64 KiB, one of 320 KiB that ends the rendering, six values of 192 KiB: under 6 MiB. */
    TEXT_LIMIT = 8 << 20,
    KEPT_BYTES = 256 << 10, /* of each buffer, from one event to the next */
    VALUE_MAX_BYTES = 65535 /* of an MQTT string */
};

#define JSON_TYPE SLICE("application/json")

/* The table */

struct route_table {
    atomic_size_t references;
    size_t count;
    struct route routes[];
};

static void route_free(struct route *route)
{
    for (size_t i = 0; i < route->topic_count; i++) {
        free(route->topics[i]);
    }
    free(route->topics);
    free(route->event);
}

/* False without memory; what was copied until then is route_free's. */
static bool route_copy(struct route *copy, const struct route *route)
{
    *copy = *route;
    copy->topic_count = 0;
    copy->event = slice_dup(slice_of(route->event));
    copy->topics = calloc(route->topic_count, sizeof copy->topics[0]);
    if (!copy->event || !copy->topics) {
        return false;
    }
    for (size_t i = 0; i < route->topic_count; i++) {
        copy->topics[i] = slice_dup(slice_of(route->topics[i]));
        if (!copy->topics[i]) {
            return false;
        }
        copy->topic_count++;
    }
    return true;
}

static void assert_route(const struct route *route)
{
    ASSERT(route->event && route->topic_count > 0);
    ASSERT(route->qos >= 0 && route->qos <= 2);
    ASSERT(route->expiry_ms >= 0);
    for (size_t i = 0; i < route->topic_count; i++) {
        ASSERT(topic_check_template(slice_of(route->topics[i]), NULL) == ERR_NONE);
    }
}

static enum err table_of(struct route_table **out, const struct route *routes, size_t count, struct error *why)
{
    size_t topics = 0;
    for (size_t i = 0; i < count; i++) {
        assert_route(&routes[i]);
        topics += routes[i].topic_count;
    }
    if (topics > ROUTE_MAX_MESSAGES) {
        return error_set(why, ERR_CONFIG, "the routes have %zu topics together, at most %d are allowed", topics,
                         ROUTE_MAX_MESSAGES);
    }
    struct route_table *table = calloc(1, sizeof *table + count * sizeof table->routes[0]);
    if (!table) {
        return error_set(why, ERR_MEMORY, "no memory for the routes");
    }
    atomic_init(&table->references, 1);
    for (size_t i = 0; i < count; i++) {
        table->count++;
        if (!route_copy(&table->routes[i], &routes[i])) {
            route_table_unref(&table);
            return error_set(why, ERR_MEMORY, "no memory for the routes");
        }
    }
    *out = table;
    return ERR_NONE;
}

enum err route_table_open(struct route_table **out, const struct route *routes, size_t count, struct error *why)
{
    char event[] = "*", topic[] = "meowflow/{event}", *topics[] = {topic};
    const struct route standard = {.event = event, .topics = topics, .topic_count = 1, .qos = 1};
    *out = NULL;
    return count > 0 ? table_of(out, routes, count, why) : table_of(out, &standard, 1, why);
}

struct route_table *route_table_ref(struct route_table *table)
{
    atomic_fetch_add_explicit(&table->references, 1, memory_order_relaxed);
    return table;
}

void route_table_unref(struct route_table **table)
{
    if (!table || !*table) {
        return;
    }
    struct route_table *t = *table;
    *table = NULL;
    if (atomic_fetch_sub_explicit(&t->references, 1, memory_order_acq_rel) == 1) {
        for (size_t i = 0; i < t->count; i++) {
            route_free(&t->routes[i]);
        }
        free(t);
    }
}

/* Matches '*' greedily from left to right and goes back to the last one only: what an earlier one could take more, the last
 * one can take as well. So the work is bounded by the product of the lengths, whatever the pattern. A '*' at the end, most often
 * the whole pattern, takes all that is left without looking. */
bool route_pattern_matches(struct slice pattern, struct slice name)
{
    size_t star = SIZE_MAX; /* the last one seen */
    size_t star_at = 0;     /* where in name the pattern behind it is being tried */
    size_t at = 0, p = 0;
    while (at < name.size) {
        if (p < pattern.size && pattern.data[p] == '*') {
            star = p++;
            star_at = at;
            if (p == pattern.size) {
                return true;
            }
        } else if (p < pattern.size && pattern.data[p] == name.data[at]) {
            p++;
            at++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            at = ++star_at;
        } else {
            return false;
        }
    }
    while (p < pattern.size && pattern.data[p] == '*') {
        p++;
    }
    return p == pattern.size;
}

bool route_table_matches(const struct route_table *table, struct slice event_name)
{
    for (size_t i = 0; i < table->count; i++) {
        if (route_pattern_matches(slice_of(table->routes[i].event), event_name)) {
            return true;
        }
    }
    return false;
}

/* The list */

void message_list_init(struct message_list *list)
{
    list->count = 0;
    list->property_count = 0;
    buf_init(&list->text, TEXT_LIMIT);
    buf_init(&list->cloudevent, SIZE_MAX / 2); /* as long as the request body and little more: the ingress has bounded it */
}

void message_list_free(struct message_list *list)
{
    buf_free(&list->text);
    buf_free(&list->cloudevent);
    message_list_init(list);
}

static void empty_buffer(struct buf *b)
{
    if (b->capacity > KEPT_BYTES) {
        buf_free(b);
    } else {
        buf_reset(b);
    }
}

static void list_clear(struct message_list *list)
{
    list->count = 0;
    list->property_count = 0;
    empty_buffer(&list->text);
    empty_buffer(&list->cloudevent);
}

/* Whole seconds that are left, rounded up; 0 if none is. A wall clock that was set back counts as no time gone. */
static uint32_t seconds_left(int64_t expiry_ms, int64_t accepted_ms, int64_t now_ms)
{
    uint64_t gone = now_ms > accepted_ms ? (uint64_t)now_ms - (uint64_t)accepted_ms : 0;
    uint64_t left = (uint64_t)expiry_ms > gone ? (uint64_t)expiry_ms - gone : 0;
    uint64_t seconds = left / 1000 + (left % 1000 > 0);
    return seconds > UINT32_MAX ? UINT32_MAX : (uint32_t)seconds;
}

static enum route_verdict add_message(struct message_list *list, const struct route *route, const char *template,
                                      const struct event *event, uint32_t expiry_s)
{
    size_t start = list->text.size;
    topic_expand(&list->text, slice_of(template), event);
    size_t size = list->text.size - start;
    if (list->text.failed) {
        return ROUTE_NO_MEMORY;
    }
    if (size == 0 || size > TOPIC_MAX_BYTES) {
        return size == 0 ? ROUTE_TOPIC_EMPTY : ROUTE_TOPIC_TOO_LONG;
    }
    list->items[list->count++] = (struct message){
        .topic = {NULL, size},
        .payload = route->body == ROUTE_ENVELOPE ? event->body : event->payload,
        .qos = route->qos,
        .retain = route->retain,
        .unheard = route->unheard,
        .has_run_out = route->expiry_ms > 0 && expiry_s == 0,
        .expiry_s = expiry_s,
        .content_type = route->body == ROUTE_CLOUDEVENT ? SLICE("application/cloudevents+json") : JSON_TYPE,
        .properties = list->properties,
    };
    return ROUTE_OK;
}

/* What an event needs beside its topics. */
struct match {
    bool any;        /* some route takes the event, in time or not */
    bool in_time;    /* some route takes it in time */
    bool cloudevent; /* some message is an envelope */
};

static enum route_verdict add_messages(struct message_list *list, const struct route *route, const struct event *event,
                                       int64_t now_ms, struct match *match)
{
    if (!route_pattern_matches(slice_of(route->event), event->name)) {
        return ROUTE_OK;
    }
    match->any = true;
    uint32_t expiry_s = route->expiry_ms > 0 ? seconds_left(route->expiry_ms, event->accepted_ms, now_ms) : 0;
    match->in_time |= route->expiry_ms == 0 || expiry_s > 0;
    match->cloudevent |= route->body == ROUTE_CLOUDEVENT;
    enum route_verdict verdict = ROUTE_OK;
    for (size_t i = 0; i < route->topic_count && verdict == ROUTE_OK; i++) {
        verdict = add_message(list, route, route->topics[i], event, expiry_s);
    }
    return verdict;
}

/* Properties */

/* A value that is legal as it stands. */
static void add_property(struct message_list *list, struct slice name, struct slice value)
{
    ASSERT(list->property_count < sizeof list->properties / sizeof list->properties[0]);
    if (value.size > 0) {
        list->properties[list->property_count++] = (struct named_value){name, value};
    }
}

/* A value that is made by append, behind prefix, in list->text. */
static void add_made(struct message_list *list, struct slice name, struct slice prefix,
                     void (*append)(struct buf *out, struct slice text), struct slice text)
{
    if (text.size > 0) {
        size_t start = list->text.size;
        buf_append(&list->text, prefix);
        append(&list->text, text);
        add_property(list, name, (struct slice){NULL, list->text.size - start});
    }
}

/* A field of the event: as it stands there, or made legal. */
static void add_field(struct message_list *list, struct slice name, struct slice text)
{
    if (slice_plain_prefix(text) == text.size) {
        add_property(list, name, text);
    } else {
        add_made(list, name, SLICE(""), topic_append_mqtt_text, text);
    }
}

/* Where the sorts of properties end: [0, core) CloudEvents' own, [core, all) its extensions. */
struct attributes {
    size_t core, all;
};

static struct attributes add_properties(struct message_list *list, const struct event *event)
{
    struct attributes ends;
    add_property(list, SLICE("specversion"), SLICE("1.0"));
    add_field(list, SLICE("id"), event->id);
    add_made(list, SLICE("source"), SLICE("https://meowflow.com.cn/apps/"), topic_append_uri_segment, event->app_id);
    add_made(list, SLICE("type"), SLICE("cn.com.meowflow."), topic_append_mqtt_text, event->name);
    add_field(list, SLICE("subject"), event->object_id);
    add_property(list, SLICE("time"), rfc3339_parse(event->push_time, NULL) ? event->push_time : (struct slice){0});
    ends.core = list->property_count;
    add_field(list, SLICE("appid"), event->app_id);
    add_field(list, SLICE("webhookid"), event->webhook_id);
    add_property(list, SLICE("traceparent"), event->traceparent);
    add_property(list, SLICE("tracestate"), event->tracestate);
    add_property(list, SLICE("replay"), event->is_replay ? SLICE("1") : (struct slice){0});
    ends.all = list->property_count;
    return ends;
}

static enum route_verdict check_properties(const struct message_list *list)
{
    if (list->text.failed) {
        return ROUTE_NO_MEMORY;
    }
    for (size_t i = 0; i < list->property_count; i++) {
        if (list->properties[i].value.size > VALUE_MAX_BYTES) {
            return ROUTE_TEXT_TOO_LONG;
        }
    }
    return ROUTE_OK;
}

/* Gives what was made in list->text its address: topics, then property values, in the order in which they were made. */
static void settle(struct message_list *list)
{
    const char *at = list->text.data;
    for (size_t i = 0; i < list->count; i++) {
        list->items[i].topic.data = at;
        list->items[i].property_count = list->property_count;
        at += list->items[i].topic.size;
    }
    for (size_t i = 0; i < list->property_count; i++) {
        if (!list->properties[i].value.data) {
            list->properties[i].value.data = at;
            at += list->properties[i].value.size;
        }
    }
    ASSERT(at == list->text.data + list->text.size);
}

/* The envelope */

static void append_members(struct buf *out, const struct named_value *properties, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        buf_append_char(out, '"');
        buf_append(out, properties[i].name);
        buf_append_text(out, "\":");
        buf_append_json_string(out, properties[i].value);
        buf_append_char(out, ',');
    }
}

static enum route_verdict make_cloudevent(struct message_list *list, struct slice payload, struct attributes ends)
{
    struct buf *out = &list->cloudevent;
    ASSERT(payload.size > 0);
    /* One allocation of the right size: growing by doubling would cost twice the payload. */
    size_t room = payload.size + 64;
    for (size_t i = 0; i < ends.all; i++) {
        room += list->properties[i].name.size + 2 * list->properties[i].value.size + 6;
    }
    if (!buf_reserve(out, room)) {
        return ROUTE_NO_MEMORY;
    }
    buf_append_char(out, '{');
    append_members(out, list->properties, ends.core);
    append_members(out, &(struct named_value){SLICE("datacontenttype"), JSON_TYPE}, 1);
    append_members(out, list->properties + ends.core, ends.all - ends.core);
    buf_append_text(out, "\"data\":");
    buf_append(out, payload);
    buf_append_char(out, '}');
    for (size_t i = 0; i < list->count; i++) {
        if (!slice_equal(list->items[i].content_type, JSON_TYPE)) {
            list->items[i].payload = buf_slice(out);
        }
    }
    return out->failed ? ROUTE_NO_MEMORY : ROUTE_OK;
}

static enum route_verdict render(const struct route_table *table, const struct event *event, int64_t now_ms,
                                 struct message_list *out)
{
    struct match match = {0};
    for (size_t i = 0; i < table->count; i++) {
        enum route_verdict verdict = add_messages(out, &table->routes[i], event, now_ms, &match);
        if (verdict != ROUTE_OK) {
            return verdict;
        }
    }
    if (!match.in_time) {
        return match.any ? ROUTE_EXPIRED : ROUTE_NO_MATCH;
    }
    struct attributes ends = add_properties(out, event);
    enum route_verdict verdict = check_properties(out);
    if (verdict != ROUTE_OK) {
        return verdict;
    }
    settle(out);
    return match.cloudevent ? make_cloudevent(out, event->payload, ends) : ROUTE_OK;
}

enum route_verdict route_render(const struct route_table *table, const struct event *event, int64_t now_ms,
                                struct message_list *out)
{
    list_clear(out);
    enum route_verdict verdict = render(table, event, now_ms, out);
    if (verdict != ROUTE_OK) {
        list_clear(out);
    }
    return verdict;
}

const char *route_verdict_text(enum route_verdict verdict)
{
    static const char *const texts[] = {
        [ROUTE_OK] = "ready to be published",
        [ROUTE_NO_MATCH] = "no route matches",
        [ROUTE_EXPIRED] = "expired before it was published",
        [ROUTE_TOPIC_EMPTY] = "a topic is empty: all that its template is filled in with is empty",
        [ROUTE_TOPIC_TOO_LONG] = "a topic is longer than the 65535 bytes that MQTT allows",
        [ROUTE_TEXT_TOO_LONG] = "a field is longer than the 65535 bytes that MQTT allows in a property",
        [ROUTE_NO_MEMORY] = "no memory",
    };
    ASSERT((size_t)verdict < sizeof texts / sizeof texts[0]);
    return texts[verdict];
}
