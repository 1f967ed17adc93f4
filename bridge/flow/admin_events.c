/* The journal's events by HTTP: a page of them, one whole, and replaying. Looking is read-only and bounded; it happens in the
 * HTTP loop's thread, which serves nothing but this listener. */
#include "admin_internal.h"

#include "meowbridge/jsonscan.h"
#include "meowbridge/rfc3339.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_LIMIT = 50,
    MAX_LIMIT = 200,
    MAX_VISITED = 20000,
    MAX_PAGE = 4 << 20,
    MAX_SHOWN = 1 << 20, /* of a payload or a body */
    MAX_REPLAYED = 1000  /* numbers of one request */
};

/* --- what is asked for --- */

/* A time: RFC 3339, or milliseconds since 1970. */
static bool time_of(struct slice text, int64_t *out)
{
    uint64_t ms;
    bool is_before = slice_starts(text, SLICE("-"));
    if (slice_to_u64((struct slice){text.data + is_before, text.size - is_before}, &ms) && ms <= INT64_MAX) {
        *out = is_before ? -(int64_t)ms : (int64_t)ms;
        return true;
    }
    return rfc3339_parse(text, out);
}

static bool query_time(struct http_request *request, const char *name, int64_t *out)
{
    char *text;
    bool ok = query_text(request, name, &text) && (!text || time_of(slice_of(text), out));
    free(text);
    return ok;
}

static bool query_state(struct http_request *request, struct journal_view_filter *filter)
{
    char *text;
    bool ok = query_text(request, "state", &text);
    filter->has_state = ok && text && *text;
    ok = ok && (!filter->has_state || journal_state_of(slice_of(text), &filter->state));
    free(text);
    return ok;
}

static const char *read_query(struct http_request *request, struct event_query *query)
{
    struct journal_view_filter *filter = &query->filter.journal;
    *filter = JOURNAL_VIEW_ALL;
    if (!query_state(request, filter)) {
        return "state is pending, published or dead";
    }
    if (!query_time(request, "since", &filter->since_ms) || !query_time(request, "until", &filter->until_ms)) {
        return "since and until are RFC 3339 times, or milliseconds since 1970";
    }
    if (!query_number(request, "after", 0, UINT64_MAX, &filter->after) ||
        !query_number(request, "before", 1, UINT64_MAX, &filter->before)) {
        return "after and before are sequence numbers";
    }
    if (!query_text(request, "event", &query->name) || !query_text(request, "app", &query->app_id)) {
        return "event and app are percent-encoded text";
    }
    query->filter.name = slice_of(query->name);
    query->filter.app_id = slice_of(query->app_id);
    return NULL;
}

bool event_query_of(struct http_request *request, struct event_query *out)
{
    *out = (struct event_query){0};
    const char *trouble = read_query(request, out);
    if (trouble) {
        event_query_free(out);
        answer_problem(request, 400, trouble);
    }
    return !trouble;
}

void event_query_free(struct event_query *query)
{
    free(query->name);
    free(query->app_id);
    *query = (struct event_query){0};
}

/* --- looking --- */

static enum err open_view(struct admin *admin, struct error *why)
{
    return admin->view ? ERR_NONE : journal_view_open(&admin->view, admin->journal_path, why);
}

/* The view is opened anew after an error. */
static void answer_no_view(struct admin *admin, struct http_request *request, const struct error *why)
{
    journal_view_close(&admin->view);
    answer_problem(request, why->code == ERR_INVALID ? 404 : 503, why->text);
}

struct page {
    struct buf text;
    size_t count;
};

static bool take_event(void *ctx, const struct listed_event *event)
{
    struct page *page = ctx;
    buf_append_text(&page->text, page->count++ > 0 ? ",\n" : "");
    event_list_append_json(&page->text, event);
    return !page->text.failed;
}

void serve_events(struct admin *admin, struct http_request *request)
{
    struct event_query query;
    struct page page = {0};
    struct error why;
    uint64_t limit = DEFAULT_LIMIT, next = 0;
    if (!query_number(request, "limit", 1, MAX_LIMIT, &limit)) {
        answer_problem(request, 400, "limit is a number from 1 to 200");
        return;
    }
    if (!event_query_of(request, &query)) {
        return;
    }
    buf_init(&page.text, MAX_PAGE);
    buf_append_text(&page.text, "{\"events\":[");
    enum err err = open_view(admin, &why);
    if (err == ERR_NONE) {
        err = event_list_page(admin->view, &query.filter, limit, MAX_VISITED, take_event, &page, &next, &why);
    }
    event_query_free(&query);
    if (err != ERR_NONE) {
        buf_free(&page.text);
        answer_no_view(admin, request, &why);
        return;
    }
    buf_appendf(&page.text, next > 0 ? "],\"next\":%" PRIu64 "}\n" : "],\"next\":null}\n", next);
    answer_json(request, &page.text);
}

/* --- one event whole --- */

void serve_event(struct admin *admin, struct http_request *request)
{
    struct slice path = http_request_path(request), prefix = SLICE("/api/events/");
    struct listed_event listed;
    struct journal_view_event stored;
    struct buf scratch, text;
    struct error why;
    uint64_t seq;
    if (!slice_to_u64((struct slice){path.data + prefix.size, path.size - prefix.size}, &seq) || seq == 0) {
        answer_problem(request, 404, "an event is named by its sequence number: /api/events/SEQ");
        return;
    }
    enum err err = open_view(admin, &why);
    if (err == ERR_NONE) {
        err = journal_view_get(admin->view, seq, &stored, &why);
    }
    if (err != ERR_NONE) {
        answer_no_view(admin, request, &why);
        return;
    }
    buf_init(&scratch, SIZE_MAX / 2);
    buf_init(&text, 16 << 20);
    event_list_decode(&listed, &stored, &scratch);
    event_list_append_whole_json(&text, &listed, admin->routes, MAX_SHOWN);
    buf_append_char(&text, '\n');
    answer_json(request, &text);
    buf_free(&scratch);
}

/* --- replaying --- */

struct replay_ticket {
    struct journal_replay replay;
    struct http_request *request;
    uint64_t seqs[MAX_REPLAYED];
};

static bool read_seqs(const struct json_value *value, struct replay_ticket *ticket)
{
    struct json_iterator it;
    struct json_value element;
    size_t count = 0;
    if (value->type != JSON_ARRAY) {
        return false;
    }
    jsonscan_enter(&it, value);
    for (; jsonscan_next(&it, NULL, &element); count++) {
        if (count == MAX_REPLAYED || !element.is_integer || !slice_to_u64(element.text, &ticket->seqs[count])) {
            return false;
        }
    }
    ticket->replay.seqs = ticket->seqs;
    ticket->replay.seq_count = count;
    return count > 0;
}

static bool read_time(const struct json_value *value, int64_t *out)
{
    if (value->type == JSON_STRING && value->text.size >= 2 && !value->has_escapes) {
        return time_of((struct slice){value->text.data + 1, value->text.size - 2}, out);
    }
    return value->type == JSON_NUMBER && value->is_integer && time_of(value->text, out);
}

/* What is wrong with the body, or NULL. */
static const char *read_order(struct slice body, struct replay_ticket *ticket)
{
    struct json_value document, key, value;
    struct json_iterator it;
    bool has_span = false;
    if (jsonscan_document(body, &document, NULL, NULL) != ERR_NONE || document.type != JSON_OBJECT) {
        return "the body is a JSON object";
    }
    jsonscan_enter(&it, &document);
    while (jsonscan_next(&it, &key, &value)) {
        if (jsonscan_string_is(&key, SLICE("seqs"))) {
            if (!read_seqs(&value, ticket)) {
                return "seqs is an array of 1 to 1000 sequence numbers";
            }
        } else if (jsonscan_string_is(&key, SLICE("state"))) {
            if (value.type != JSON_STRING || !jsonscan_string_is(&value, SLICE("dead"))) {
                return "state is \"dead\"";
            }
            ticket->replay.dead_only = true;
        } else if (jsonscan_string_is(&key, SLICE("since")) || jsonscan_string_is(&key, SLICE("until"))) {
            bool is_since = jsonscan_string_is(&key, SLICE("since"));
            has_span = has_span || is_since;
            if (!read_time(&value, is_since ? &ticket->replay.since_ms : &ticket->replay.until_ms)) {
                return "since and until are RFC 3339 times, or milliseconds since 1970";
            }
        } else {
            return "the body holds seqs, or state, or since and until, and nothing else";
        }
    }
    bool has_seqs = ticket->replay.seq_count > 0, has_others = ticket->replay.dead_only || has_span;
    return has_seqs != has_others ? NULL : "the body says either seqs, or state, or since (and until)";
}

static void on_replayed(void *ctx, struct journal_replay *replay)
{
    (void)replay;
    struct replay_ticket *ticket = ctx;
    http_requests_resume(&ticket->request, 1);
}

void serve_replay(struct admin *admin, struct http_request *request)
{
    struct replay_ticket *ticket = calloc(1, sizeof *ticket);
    if (!ticket) {
        answer_problem(request, 503, "out of memory");
        return;
    }
    ticket->request = request;
    ticket->replay.since_ms = INT64_MIN;
    ticket->replay.until_ms = INT64_MAX;
    ticket->replay.done = on_replayed;
    ticket->replay.ctx = ticket;
    const char *trouble = read_order(http_request_body(request), ticket);
    if (trouble) {
        free(ticket);
        answer_problem(request, 400, trouble);
        return;
    }
    http_request_set_user(request, ticket);
    http_request_park(request);
    journal_replay_begin(admin->journal, &ticket->replay);
}

void replay_resumed(struct http_request *request)
{
    struct replay_ticket *ticket = http_request_user(request);
    const struct journal_replay *replay = &ticket->replay;
    metrics_add(METRIC_EVENTS_REPLAYED, replay->replayed);
    if (replay->error.code != ERR_NONE) {
        char detail[sizeof replay->error.text + 80];
        snprintf(detail, sizeof detail, "%s (%" PRIu64 " events were queued before that)", replay->error.text,
                 replay->replayed);
        answer_problem(request, 503, detail);
        return;
    }
    struct buf text;
    buf_init(&text, 256);
    buf_appendf(&text, "{\"replayed\":%" PRIu64, replay->replayed);
    buf_appendf(&text, replay->seq_count > 0 ? ",\"asked\":%zu}\n" : ",\"asked\":null}\n", replay->seq_count);
    answer_json(request, &text);
}

void replay_free(void *user)
{
    free(user);
}
