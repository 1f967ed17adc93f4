/* event_list: the journal's events as people and scripts ask for them: filtered by name and app too, decoded, as JSON
 * (contract.md 1, `events`). What the commands and the admin listener share. One thread a call. */
#ifndef MEOWBRIDGE_EVENT_LIST_H
#define MEOWBRIDGE_EVENT_LIST_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"
#include "meowbridge/event.h"
#include "meowbridge/journal_view.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct route_table;

struct event_filter {
    struct journal_view_filter journal;
    struct slice name;   /* a pattern as in routes ('*' is any run of characters); empty: any */
    struct slice app_id; /* exactly; empty: any */
};

/* An event that was found. Slices are valid during the call of each, or until the view's next call. */
struct listed_event {
    struct journal_view_event stored;
    struct event event; /* all empty if the stored head is damaged */
    bool is_readable;
};
/* Decodes what the view gave. scratch as for event_decode. */
void event_list_decode(struct listed_event *out, const struct journal_view_event *stored, struct buf *scratch);

/* Calls each for up to limit events that the filter lets through, newest first. Looks at no more than max_visited of them, so
 * that a rare name costs bounded work a page: *next, if not 0, is filter->journal.before for the next page, also when this one
 * is empty. A damaged event passes a filter without name and app only. each returns false to stop. */
MUST_CHECK enum err event_list_page(struct journal_view *view, const struct event_filter *filter, size_t limit,
                                    size_t max_visited, bool (*each)(void *ctx, const struct listed_event *event), void *ctx,
                                    uint64_t *next, struct error *why);

/* Appends one JSON object: seq (an integer), id, appId, webhookId, event, objectId, state, receivedAt (RFC 3339) and, if dead,
 * reason. No newline. */
void event_list_append_json(struct buf *out, const struct listed_event *event);

/* Every replay is one more; how often the publisher tried within one is in the bridge's log. */
unsigned event_list_attempts(const struct journal_view_event *stored);
/* Appends it whole: the members above and attempts, replayOf, movedTo, diedAt, pushTime, traceparent, tracestate, messages (what
 * these routes make of it now), unroutable, payload and body, both as JSON strings of their bytes, so that no number in them is
 * read by anybody; of either no more than max_shown bytes, with payloadBytes and bodyBytes beside. What is not there is null. */
void event_list_append_whole_json(struct buf *out, struct listed_event *listed, struct route_table *routes, size_t max_shown);

#endif
