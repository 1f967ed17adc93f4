/* The thread that samples the counters each second and feeds the streams. It asks the journal only where somebody watches and
 * something has changed; what it hands to a stream is bounded, and a stream that is not read is cut off (http_server.h). */
#include "admin_internal.h"

#include "meowbridge/clock.h"
#include "meowbridge/log.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    IDLE_MS = 1000,
    WATCHING_MS = 250,
    STATUS_MS = 1000,
    QUEUE_BYTES = 512 * 1024,
    LOOK_BYTES = 128 * 1024,
    EVENTS_AT_ONCE = 100, /* told a look; the newest */
    VISITED_AT_ONCE = 2000
};

/* --- entering --- */

static void watcher_free(struct watcher *watcher)
{
    http_stream_close(&watcher->stream);
    event_query_free(&watcher->query);
    free(watcher);
}

static bool take_place(struct admin *admin)
{
    pthread_mutex_lock(&admin->stream_lock);
    bool has_place = !admin->stream_stop && admin->watcher_count < ADMIN_MAX_STREAMS;
    admin->watcher_count += has_place;
    pthread_mutex_unlock(&admin->stream_lock);
    return has_place;
}

static void give_place_back(struct admin *admin)
{
    pthread_mutex_lock(&admin->stream_lock);
    admin->watcher_count--;
    pthread_mutex_unlock(&admin->stream_lock);
}

static void enter(struct admin *admin, struct watcher *watcher)
{
    pthread_mutex_lock(&admin->stream_lock);
    watcher->next = admin->entering;
    admin->entering = watcher;
    pthread_cond_signal(&admin->stream_wake);
    pthread_mutex_unlock(&admin->stream_lock);
}

void serve_stream(struct admin *admin, struct http_request *request)
{
    const struct http_answer head = {.status = 200, .content_type = "text/event-stream", .headers = admin_headers};
    struct event_query query;
    if (slice_equal(http_request_method(request), SLICE("HEAD"))) {
        http_request_answer(request, &head);
        return;
    }
    if (!event_query_of(request, &query)) {
        return;
    }
    struct watcher *watcher = take_place(admin) ? calloc(1, sizeof *watcher) : NULL;
    if (!watcher) {
        event_query_free(&query);
        answer_problem(request, 503, "too many streams are open; at most 8 are served");
        return;
    }
    watcher->query = query;
    watcher->stream = http_request_stream(request, &head, QUEUE_BYTES);
    if (!watcher->stream) {
        watcher_free(watcher);
        give_place_back(admin);
        answer_problem(request, 503, "no stream can be opened now");
        return;
    }
    enter(admin, watcher);
}

/* --- what is told --- */

/* The events of one look, each a whole message, in the order in which they were found: the newest first. */
struct look {
    struct buf text;
    size_t starts[EVENTS_AT_ONCE + 1];
    size_t count;
    uint64_t newest, unsettled;
};

static bool take_event(void *ctx, const struct listed_event *event)
{
    struct look *look = ctx;
    look->newest = event->stored.seq > look->newest ? event->stored.seq : look->newest;
    if (event->stored.state == JOURNAL_PENDING) {
        look->unsettled = event->stored.seq;
    }
    buf_appendf(&look->text, "event: event\nid: %" PRIu64 "\ndata: ", event->stored.seq);
    event_list_append_json(&look->text, event);
    buf_append_text(&look->text, "\n\n");
    if (look->text.failed) {
        return false; /* what there is of this one lies behind the last start */
    }
    look->starts[++look->count] = look->text.size;
    return look->count < EVENTS_AT_ONCE;
}

/* The oldest first. False: nobody reads any more. */
static bool write_look(struct watcher *watcher, const struct look *look)
{
    bool goes_on = true;
    for (size_t i = look->count; goes_on && i-- > 0;) {
        goes_on = http_stream_write(watcher->stream,
                                    (struct slice){look->text.data + look->starts[i], look->starts[i + 1] - look->starts[i]});
    }
    return goes_on;
}

static enum err open_view(struct admin *admin, struct error *why)
{
    return admin->stream_view ? ERR_NONE : journal_view_open(&admin->stream_view, admin->journal_path, why);
}

/* Tells what is new, and what was told as pending and may be settled by now. */
static bool tell_events(struct admin *admin, struct watcher *watcher, const struct journal_state *state)
{
    bool has_settled = watcher->unsettled > 0 && state->cursor >= watcher->unsettled;
    if (!admin->journal_path || (state->last_seq <= watcher->seen && !has_settled)) {
        return true;
    }
    struct error why;
    struct look look = {0};
    uint64_t next;
    struct event_filter filter = watcher->query.filter;
    filter.journal.after = has_settled ? watcher->unsettled - 1 : watcher->seen;
    buf_init(&look.text, LOOK_BYTES);
    enum err err = open_view(admin, &why);
    if (err == ERR_NONE) {
        err = event_list_page(admin->stream_view, &filter, EVENTS_AT_ONCE, VISITED_AT_ONCE, take_event, &look, &next, &why);
    }
    if (err != ERR_NONE) {
        journal_view_close(&admin->stream_view);
        buf_free(&look.text);
        log_debug("a stream cannot look into the journal now", LOG_STR("reason", why.text));
        return true;
    }
    bool goes_on = write_look(watcher, &look);
    watcher->seen = state->last_seq > watcher->seen ? state->last_seq : watcher->seen;
    watcher->seen = look.newest > watcher->seen ? look.newest : watcher->seen;
    watcher->unsettled = look.unsettled > 0 ? look.unsettled : has_settled ? 0 : watcher->unsettled;
    buf_free(&look.text);
    return goes_on;
}

static bool tell_status(struct watcher *watcher, struct slice status)
{
    return http_stream_write(watcher->stream, SLICE("event: status\ndata: ")) && http_stream_write(watcher->stream, status) &&
           http_stream_write(watcher->stream, SLICE("\n\n"));
}

static void tell_all(struct admin *admin, const struct journal_state *state, bool with_status)
{
    struct buf status;
    buf_init(&status, 64 * 1024);
    if (with_status) {
        status_append_json(admin, false, &status);
    }
    for (struct watcher **place = &admin->watchers; *place;) {
        struct watcher *watcher = *place;
        bool goes_on = tell_events(admin, watcher, state);
        if (goes_on && with_status && !status.failed) {
            goes_on = tell_status(watcher, buf_slice(&status));
        }
        if (goes_on) {
            place = &watcher->next;
        } else {
            *place = watcher->next;
            watcher_free(watcher);
            give_place_back(admin);
        }
    }
    buf_free(&status);
}

/* --- the thread --- */

/* A stream begins with what comes from now on. */
static void admit(struct admin *admin, struct watcher *entering, uint64_t last_seq)
{
    while (entering) {
        struct watcher *next = entering->next;
        entering->seen = last_seq;
        entering->next = admin->watchers;
        admin->watchers = entering;
        admin->status_ms = 0;
        entering = next;
    }
}

static void turn(struct admin *admin, struct watcher *entering)
{
    struct journal_state state;
    const int64_t mono_ms = clock_mono_ms();
    pthread_rwlock_rdlock(&admin->use);
    journal_state(admin->journal, &state);
    history_tick(&admin->history, mono_ms, clock_wall_ms(), state.last_seq - state.cursor);
    admit(admin, entering, state.last_seq);
    bool with_status = mono_ms >= admin->status_ms;
    if (with_status) {
        admin->status_ms = mono_ms + STATUS_MS;
    }
    if (admin->watchers) {
        tell_all(admin, &state, with_status);
    }
    pthread_rwlock_unlock(&admin->use);
}

/* Under the lock. */
static void wait_for_turn(struct admin *admin)
{
    struct timespec until;
    const int64_t ms = admin->watchers ? WATCHING_MS : IDLE_MS;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ms % 1000 * 1000000;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (!admin->stream_stop && !admin->entering &&
           pthread_cond_timedwait(&admin->stream_wake, &admin->stream_lock, &until) != ETIMEDOUT) {
    }
}

static void *run(void *arg)
{
    struct admin *admin = arg;
    pthread_mutex_lock(&admin->stream_lock);
    while (!admin->stream_stop) {
        struct watcher *entering = admin->entering;
        admin->entering = NULL;
        pthread_mutex_unlock(&admin->stream_lock);
        turn(admin, entering);
        pthread_mutex_lock(&admin->stream_lock);
        wait_for_turn(admin);
    }
    pthread_mutex_unlock(&admin->stream_lock);
    return NULL;
}

void stream_init(struct admin *admin)
{
    pthread_condattr_t monotonic;
    pthread_mutex_init(&admin->stream_lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&admin->stream_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

enum err stream_start(struct admin *admin, struct error *why)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&admin->thread, NULL, run, admin);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    admin->has_thread = failed == 0;
    if (failed) {
        return error_set(why, ERR_IO, "cannot start a thread: %s", strerror(failed));
    }
    pthread_setname_np(admin->thread, "admin-watch");
    return ERR_NONE;
}

void stream_stop(struct admin *admin)
{
    if (!admin->has_thread) {
        return;
    }
    pthread_mutex_lock(&admin->stream_lock);
    admin->stream_stop = true;
    pthread_cond_signal(&admin->stream_wake);
    pthread_mutex_unlock(&admin->stream_lock);
    pthread_join(admin->thread, NULL);
    admin->has_thread = false;
}

static void free_all(struct watcher *watcher)
{
    while (watcher) {
        struct watcher *next = watcher->next;
        watcher_free(watcher);
        watcher = next;
    }
}

void stream_forget(struct admin *admin)
{
    free_all(admin->entering);
    free_all(admin->watchers);
    admin->entering = admin->watchers = NULL;
    journal_view_close(&admin->stream_view);
}

void stream_free(struct admin *admin)
{
    pthread_cond_destroy(&admin->stream_wake);
    pthread_mutex_destroy(&admin->stream_lock);
}
