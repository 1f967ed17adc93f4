#include "meowbridge/event_list.h"

#include "meowbridge/clock.h"
#include "meowbridge/route.h"

#include <inttypes.h>

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
    struct buf scratch;
};

static bool passes(const struct event_filter *filter, const struct event *event)
{
    return (filter->name.size == 0 || route_pattern_matches(filter->name, event->name)) &&
           (filter->app_id.size == 0 || slice_equal(filter->app_id, event->app_id));
}

static bool visit(void *ctx, const struct journal_view_event *stored)
{
    struct page *page = ctx;
    struct listed_event event;
    event_list_decode(&event, stored, &page->scratch);
    if (!passes(page->filter, &event.event)) {
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
    struct page page = {filter, limit, each, ctx, {0}};
    buf_init(&page.scratch, SIZE_MAX / 2);
    enum err err = journal_view_walk(view, &filter->journal, max_visited, visit, &page, next, why);
    buf_free(&page.scratch);
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
