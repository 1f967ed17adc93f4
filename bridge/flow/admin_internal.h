/* admin_internal: what the files of the admin listener share. admin.c has its life and the table of endpoints, admin_guard.c
 * says who may, admin_answer.c the forms of answers, admin_status.c and admin_history.c what it knows, admin_events.c the
 * journal's events, admin_stream.c the thread and the streams, admin_page.c the page.
 *
 *   HTTP loop ──guard──▶ endpoint ──▶ answer          thread, each second ──▶ history
 *                           └── stream ──────────────────▶ └──▶ streams
 * Both hold `use` for reading while they touch journal, publisher, routes or token; admin_detach and admin_reload take it for
 * writing. */
#ifndef ADMIN_INTERNAL_H
#define ADMIN_INTERNAL_H

#include "meowbridge/admin.h"
#include "meowbridge/event_list.h"
#include "meowbridge/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* --- admin_history.c: the counters over the last hour. Its own lock; any thread --- */

enum { HISTORY_MINUTES = 60, HISTORY_MARKS = 64, HISTORY_MARK_MS = 5000 };

struct history_counts {
    uint64_t accepted, duplicates, refused, published, dead;
};
struct history_minute {
    int64_t start_ms; /* wall clock */
    struct history_counts counts;
    uint64_t pending;                   /* the most there were */
    int64_t delay_us[3], request_us[2]; /* quantiles; -1: nothing was counted */
};
struct history {
    pthread_mutex_t lock;
    struct history_mark {
        int64_t mono_ms;
        struct history_counts counts;
    } marks[HISTORY_MARKS], now;
    size_t mark_count, mark_next;
    struct history_minute minutes[HISTORY_MINUTES - 1]; /* those that are over */
    size_t minute_count, minute_next;
    struct history_mark begin; /* of the minute in hand */
    int64_t begin_ms;          /* wall clock */
    uint64_t pending;
    struct metrics_sample delay, request;
};
void history_init(struct history *history, int64_t mono_ms, int64_t wall_ms);
void history_free(struct history *history);
void history_tick(struct history *history, int64_t mono_ms, int64_t wall_ms, uint64_t pending);
void history_append_rates(struct history *history, struct buf *out);   /* a JSON object */
void history_append_minutes(struct history *history, struct buf *out); /* a JSON array, the oldest first */
struct history_counts history_count(void);                             /* as of now, since the start */

/* --- the whole --- */

enum { ADMIN_MAX_STREAMS = 8 };

/* What a query asks for; the slices of filter point to the two texts. */
struct event_query {
    struct event_filter filter;
    char *name, *app_id;
};

struct watcher {
    struct watcher *next;
    struct http_stream *stream;
    struct event_query query;
    uint64_t seen;      /* the newest event that was told */
    uint64_t unsettled; /* the oldest of those that were told as pending; 0: none */
};

struct admin {
    pthread_rwlock_t use;
    struct journal *journal; /* NULL once it is detached, as publisher */
    struct publisher *publisher;
    struct route_table *routes;
    char *token; /* NULL: none */
    size_t token_size;

    char *journal_path, *client_id;
    int64_t journal_max_bytes, started_wall_ms, started_mono_ms;
    atomic_bool stopping;
    struct history history;

    struct journal_view *view; /* the HTTP loop's; opened when it is needed */

    pthread_mutex_t stream_lock;
    pthread_cond_t stream_wake;
    bool stream_stop;
    unsigned watcher_count;   /* those that enter too */
    struct watcher *entering; /* guarded up to here */
    struct watcher *watchers; /* the thread's, as what follows */
    struct journal_view *stream_view;
    int64_t status_ms; /* when the next one is due */
    pthread_t thread;
    bool has_thread;
};

/* --- admin_answer.c --- */

void answer_body(struct http_request *request, unsigned status, const char *type, struct slice body);
void answer_json(struct http_request *request, struct buf *body); /* 200, or 503 if it failed; frees it */
void answer_problem(struct http_request *request, unsigned status, const char *detail);
void answer_refusal(struct http_request *request, const struct http_answer *more, const char *detail); /* of a 401, a 405 */
void append_problem(struct buf *out, unsigned status, const char *detail);
extern const char *const admin_headers[]; /* of every answer but the page's */
/* The value of a query's parameter, decoded, or NULL if it is not there; "" for one without '='. The caller frees it. False
 * without memory or if it is no percent-encoding. */
MUST_CHECK bool query_text(struct http_request *request, const char *name, char **out);
bool query_has(struct http_request *request, const char *name);
/* A number from min to max; *out stays if it is not there. False: it is something else. */
MUST_CHECK bool query_number(struct http_request *request, const char *name, uint64_t min, uint64_t max, uint64_t *out);

/* --- admin_guard.c --- */

enum guard_verdict { GUARD_PASSES, GUARD_TOKEN_MISSING, GUARD_TOKEN_WRONG, GUARD_HOST, GUARD_ORIGIN, GUARD_TYPE };
enum guard_verdict admin_guard(const struct admin *admin, struct http_request *request);
bool guard_host_is_safe(struct slice host);

/* --- admin_status.c --- */

void status_append_reasons(struct admin *admin, struct buf *out); /* one a line; empty: it is ready */
void status_append_checks(struct admin *admin, struct buf *out);
void status_append_json(struct admin *admin, bool with_history, struct buf *out);
void status_set_gauges(struct admin *admin);

/* --- admin_events.c, admin_stream.c, admin_page.c --- */

/* False: it is answered. */
MUST_CHECK bool event_query_of(struct http_request *request, struct event_query *out);
void event_query_free(struct event_query *query);
void serve_events(struct admin *admin, struct http_request *request);
void serve_event(struct admin *admin, struct http_request *request); /* /api/events/SEQ */
void serve_replay(struct admin *admin, struct http_request *request);
void replay_resumed(struct http_request *request);
void replay_free(void *user);

void serve_stream(struct admin *admin, struct http_request *request);
void stream_init(struct admin *admin);
MUST_CHECK enum err stream_start(struct admin *admin, struct error *why);
void stream_stop(struct admin *admin);   /* ends the thread; no stream enters any more */
void stream_forget(struct admin *admin); /* after it, with `use` held for writing: ends all streams */
void stream_free(struct admin *admin);

/* status 401: what it shows then asks for the token. */
void serve_page(struct http_request *request, unsigned status, const char *www_authenticate);

#endif
