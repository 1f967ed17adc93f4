/* What routes make of an event: everything within what MQTT allows, the payload unchanged, the pattern as it is told.
 * Input: four bytes that choose (body of each route, expiry, replay), two patterns, two templates, the event's name, appId,
 * webhookId, objectId, id, pushTime, payload. */
#include "fuzz.h"

#include "meowbridge/event.h"
#include "meowbridge/jsonscan.h"
#include "meowbridge/route.h"
#include "meowbridge/topic.h"

static const char *const names[] = {"specversion", "id",        "source",      "type",       "subject", "time",
                                    "appid",       "webhookid", "traceparent", "tracestate", "replay"};
enum { NAMES = sizeof names / sizeof names[0] };

/* The plain way: from every place of the name that the pattern can have reached so far, to every next one. */
static bool matches(struct slice pattern, struct slice name)
{
    bool *reached = calloc(name.size + 1, 1);
    ASSERT(reached);
    reached[0] = true;
    for (size_t p = 0; p < pattern.size; p++) {
        bool before = reached[0];
        reached[0] = before && pattern.data[p] == '*';
        for (size_t i = 1; i <= name.size; i++) {
            bool here = pattern.data[p] == '*' ? reached[i] || reached[i - 1] : before && pattern.data[p] == name.data[i - 1];
            before = reached[i];
            reached[i] = here;
        }
    }
    bool match = reached[name.size];
    free(reached);
    return match;
}

static void check_properties(const struct message_list *list, bool is_replay)
{
    size_t at = 0;
    for (size_t i = 0; i < list->property_count; i++, at++) {
        const struct named_value *property = &list->properties[i];
        while (at < NAMES && !slice_equal(property->name, slice_of(names[at]))) {
            at++;
        }
        ASSERT(at < NAMES); /* known, and in order */
        ASSERT(property->value.size > 0 && property->value.size <= TOPIC_MAX_BYTES && fuzz_is_mqtt_text(property->value));
    }
    bool ends_with_replay = slice_equal(list->properties[list->property_count - 1].name, SLICE("replay"));
    ASSERT(ends_with_replay == is_replay);
}

static void check_cloudevent(struct slice text, struct slice payload)
{
    struct json_value object, key, value;
    struct json_iterator it;
    size_t count = 0, required = 0;
    ASSERT(jsonscan_document(text, &object, NULL, NULL) == ERR_NONE && object.type == JSON_OBJECT);
    for (jsonscan_enter(&it, &object); jsonscan_next(&it, &key, &value); count++) {
        bool is_data = jsonscan_string_is(&key, SLICE("data"));
        ASSERT(is_data || (value.type == JSON_STRING && value.text.size > 2));
        required += jsonscan_string_is(&key, SLICE("specversion")) + jsonscan_string_is(&key, SLICE("source")) +
                    jsonscan_string_is(&key, SLICE("type")) + jsonscan_string_is(&key, SLICE("id")) + is_data;
    }
    ASSERT(required == 5 && count <= NAMES + 1);
    ASSERT(slice_equal(value.text, payload)); /* data is the last one */
}

static void check_message(const struct message *m, const struct message_list *list, const struct event *event,
                          enum route_body body)
{
    ASSERT(m->topic.size > 0 && m->topic.size <= TOPIC_MAX_BYTES && fuzz_is_mqtt_text(m->topic));
    ASSERT(!memchr(m->topic.data, '+', m->topic.size) && !memchr(m->topic.data, '#', m->topic.size));
    ASSERT(m->properties == list->properties && m->property_count == list->property_count);
    ASSERT(m->content_type.size > 0 && fuzz_is_mqtt_text(m->content_type));
    ASSERT(!(m->has_run_out && m->expiry_s > 0));
    if (body == ROUTE_CLOUDEVENT) {
        check_cloudevent(m->payload, event->payload);
    } else {
        ASSERT(m->payload.data == (body == ROUTE_ENVELOPE ? event->body.data : event->payload.data));
    }
}

static void check(const struct route *routes, const struct event *event, int64_t now_ms)
{
    struct route_table *table;
    struct message_list list;
    message_list_init(&list);
    ASSERT(route_table_open(&table, routes, 2, NULL) == ERR_NONE);
    bool match[2];
    size_t expected = 0, count = 0;
    for (size_t i = 0; i < 2; i++) {
        match[i] = matches(slice_of(routes[i].event), event->name);
        expected += match[i] ? routes[i].topic_count : 0;
    }
    ASSERT(route_table_matches(table, event->name) == (expected > 0));
    enum route_verdict verdict = route_render(table, event, now_ms, &list);
    ASSERT((verdict == ROUTE_OK) == (list.count > 0) && (verdict == ROUTE_NO_MATCH) == (expected == 0));
    ASSERT(verdict != ROUTE_NO_MEMORY && route_verdict_text(verdict)[0]);
    ASSERT(verdict != ROUTE_OK || list.count == expected);
    for (size_t i = 0; verdict == ROUTE_OK && i < 2; i++) {
        for (size_t j = 0; match[i] && j < routes[i].topic_count; j++) {
            check_message(&list.items[count++], &list, event, routes[i].body);
        }
    }
    if (verdict == ROUTE_OK) {
        check_properties(&list, event->is_replay);
    }
    message_list_free(&list);
    route_table_unref(&table);
}

/* A NUL-terminated copy, of something that passes for a template. */
static char *template_of(struct slice s)
{
    return slice_dup(topic_check_template(s, NULL) == ERR_NONE ? s : SLICE("meowflow/{event}/{id}"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size);
    uint8_t bodies = fuzz_byte(&in), expiry = fuzz_byte(&in), age = fuzz_byte(&in), flags = fuzz_byte(&in);
    struct slice patterns[2] = {fuzz_field(&in), fuzz_field(&in)};
    char *topics[2] = {template_of(fuzz_field(&in)), template_of(fuzz_field(&in))};
    char *events[2] = {slice_dup(patterns[0]), slice_dup(patterns[1])};
    struct event event = {.name = fuzz_field(&in), .accepted_ms = 1000000, .is_replay = flags & 1};
    event.app_id = fuzz_field(&in);
    event.webhook_id = fuzz_field(&in);
    event.object_id = fuzz_field(&in);
    event.id = fuzz_field(&in);
    event.push_time = fuzz_field(&in);
    struct slice payload = fuzz_rest(&in);
    struct json_value value;
    event.payload = event.body =
        jsonscan_document(payload, &value, NULL, NULL) ? SLICE("{\"a\": 152066840347062275}") : value.text;
    struct route routes[2] = {
        {events[0], topics, 1 + (flags >> 1 & 1), 1, flags & 4, expiry * 100, (enum route_body)(bodies % 3), ROUTE_DELIVER},
        {events[1], topics + 1, 1, 0, false, 0, (enum route_body)(bodies / 3 % 3), ROUTE_DEAD}};
    /* Nothing of what event_parse lets be empty or not: the names and ids are there. */
    if (event.name.size > 0 && event.app_id.size > 0 && event.webhook_id.size > 0 && event.id.size > 0 && topics[0] &&
        topics[1] && events[0] && events[1]) {
        check(routes, &event, 1000000 + 100 * (int64_t)age);
    }
    for (size_t i = 0; i < 2; i++) {
        free(topics[i]);
        free(events[i]);
    }
    fuzz_end(&in);
    return 0;
}
