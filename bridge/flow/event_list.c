#include "meowbridge/event_list.h"

#include "meowbridge/clock.h"
#include "meowbridge/route.h"

#include <inttypes.h>
#include <stdlib.h>

void event_list_decode(struct listed_event *out, const struct journal_view_event *stored, struct buf *scratch)
{
    *out = (struct listed_event){.stored = *stored};
    out->is_readable = event_decode(&out->event, stored->head, stored->body, scratch, NULL) == ERR_NONE;
    if (!out->is_readable) {
        out->event = (struct event){0};
    }
    out->event.seq = stored->seq;
    out->event.accepted_ms = stored->accepted_ms;
    out->event.is_replay = stored->replays > 0;
}

struct page {
    const struct event_filter *filter;
    size_t left;
    bool (*each)(void *ctx, const struct listed_event *event);
    void *ctx;
    struct buf scratch, label;
};

static bool passes(const struct event_filter *filter, struct slice app_id, struct slice name)
{
    return (filter->name.size == 0 || route_pattern_matches(filter->name, name)) &&
           (filter->app_id.size == 0 || slice_equal(filter->app_id, app_id));
}

static bool wants(void *ctx, struct slice label)
{
    struct page *page = ctx;
    struct slice app_id, name;
    return !event_label_read(label, &app_id, &name, &page->label) || passes(page->filter, app_id, name);
}

static bool visit(void *ctx, const struct journal_view_event *stored)
{
    struct page *page = ctx;
    struct listed_event event;
    event_list_decode(&event, stored, &page->scratch);
    if (!passes(page->filter, event.event.app_id, event.event.name)) {
        return true;
    }
    page->left--;
    return page->each(page->ctx, &event) && page->left > 0;
}

enum err event_list_page(struct journal_view *view, const struct event_filter *filter, size_t limit, size_t max_visited,
                         bool (*each)(void *ctx, const struct listed_event *event), void *ctx, uint64_t *next,
                         struct error *why)
{
    ASSERT(limit > 0 && max_visited > 0);
    struct page page = {filter, limit, each, ctx, {0}, {0}};
    struct journal_view_filter journal = filter->journal;
    if (filter->name.size > 0 || filter->app_id.size > 0) {
        journal.wants = wants;
        journal.wants_ctx = &page;
    }
    buf_init(&page.scratch, SIZE_MAX / 2);
    buf_init(&page.label, SIZE_MAX / 2);
    enum err err = journal_view_walk(view, &journal, max_visited, visit, &page, next, why);
    buf_free(&page.scratch);
    buf_free(&page.label);
    return err;
}

static void append_member(struct buf *out, const char *name, struct slice text)
{
    buf_appendf(out, ",\"%s\":", name);
    buf_append_json_string(out, text);
}

void event_list_append_json(struct buf *out, const struct listed_event *event)
{
    char received[CLOCK_RFC3339_SIZE];
    clock_rfc3339(event->stored.accepted_ms, received);
    buf_appendf(out, "{\"seq\":%" PRIu64, event->stored.seq);
    append_member(out, "id", event->event.id);
    append_member(out, "appId", event->event.app_id);
    append_member(out, "webhookId", event->event.webhook_id);
    append_member(out, "event", event->event.name);
    append_member(out, "objectId", event->event.object_id);
    append_member(out, "state", slice_of(journal_state_name(event->stored.state)));
    append_member(out, "receivedAt", slice_of(received));
    if (event->stored.state == JOURNAL_DEAD) {
        append_member(out, "reason", event->stored.reason);
    }
    buf_append_char(out, '}');
}

unsigned event_list_attempts(const struct journal_view_event *stored)
{
    return stored->replays + (stored->state != JOURNAL_PENDING);
}

/* --- one event whole --- */

static void append_text_or_null(struct buf *out, const char *name, struct slice text)
{
    buf_appendf(out, ",\"%s\":", name);
    if (text.size > 0) {
        buf_append_json_string(out, text);
    } else {
        buf_append_text(out, "null");
    }
}

static void append_time_member(struct buf *out, const char *name, int64_t wall_ms)
{
    char text[CLOCK_RFC3339_SIZE] = "";
    if (wall_ms > 0) {
        clock_rfc3339(wall_ms, text);
    }
    append_text_or_null(out, name, slice_of(text));
}

static void append_number_member(struct buf *out, const char *name, uint64_t number)
{
    buf_appendf(out, number > 0 ? ",\"%s\":%" PRIu64 : ",\"%s\":null", name, number);
}

/* The text as it is, as a JSON string: no number in it is read by anybody. Cut at a character's end. */
static void append_shown(struct buf *out, const char *name, struct slice text, size_t max)
{
    size_t size = text.size < max ? text.size : max;
    while (size > 0 && size < text.size && ((unsigned char)text.data[size] & 0xc0) == 0x80) {
        size--;
    }
    append_text_or_null(out, name, (struct slice){text.data, size});
    buf_appendf(out, ",\"%sBytes\":%zu", name, text.size);
}

/* What the routes of now make of it; what was sent may have been by other ones. */
static void append_messages(struct route_table *routes, const struct event *event, struct buf *out)
{
    struct message_list *list = calloc(1, sizeof *list);
    if (!list || !routes) {
        free(list);
        buf_append_text(out, ",\"messages\":[],\"unroutable\":\"out of memory\"");
        return;
    }
    message_list_init(list);
    enum route_verdict verdict = route_render(routes, event, clock_wall_ms(), list);
    buf_append_text(out, ",\"messages\":[");
    for (size_t i = 0; i < list->count; i++) {
        const struct message *message = &list->items[i];
        buf_append_text(out, i > 0 ? ",{\"topic\":" : "{\"topic\":");
        buf_append_json_string(out, message->topic);
        buf_appendf(out, ",\"qos\":%d,\"retain\":%s,\"bytes\":%zu,\"expired\":%s,\"contentType\":", message->qos,
                    message->retain ? "true" : "false", message->payload.size, message->has_run_out ? "true" : "false");
        buf_append_json_string(out, message->content_type);
        buf_append_char(out, '}');
    }
    buf_append_char(out, ']');
    append_text_or_null(out, "unroutable", slice_of(verdict == ROUTE_OK ? NULL : route_verdict_text(verdict)));
    message_list_free(list);
    free(list);
}

void event_list_append_whole_json(struct buf *out, struct listed_event *listed, struct route_table *routes, size_t max_shown)
{
    const struct journal_view_event *stored = &listed->stored;
    const struct event *event = &listed->event;
    event_list_append_json(out, listed);
    if (out->size > 0 && !out->failed) {
        out->data[--out->size] = 0; /* its bracket: more members follow */
    }
    buf_appendf(out, ",\"attempts\":%u", event_list_attempts(stored));
    append_number_member(out, "replayOf", stored->replay_of);
    append_number_member(out, "movedTo", stored->moved_to);
    append_time_member(out, "diedAt", stored->died_ms);
    append_text_or_null(out, "pushTime", event->push_time);
    append_text_or_null(out, "traceparent", event->traceparent);
    append_text_or_null(out, "tracestate", event->tracestate);
    if (listed->is_readable) {
        append_messages(routes, event, out);
        append_shown(out, "payload", event->payload, max_shown);
    }
    append_shown(out, "body", stored->body, max_shown);
    buf_append_char(out, '}');
}
