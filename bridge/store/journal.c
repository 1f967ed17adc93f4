/* The journal's ground floor: event objects, the lane of unsettled ones, and the way to the implementation. */
#include "journal_internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* The head lies behind the struct in the same allocation: an event costs two mallocs in all. */
struct journal_event *journal_event_new(const uint8_t key[JOURNAL_KEY_BYTES], int64_t accepted_ms, struct slice head,
                                        char *body, size_t body_size)
{
    struct held *held = malloc(sizeof *held + head.size);
    if (!held) {
        free(body);
        return NULL;
    }
    *held = (struct held){.event = {.accepted_ms = accepted_ms}};
    memcpy(held->event.key, key, JOURNAL_KEY_BYTES);
    char *place = (char *)(held + 1);
    if (head.size > 0) {
        memcpy(place, head.data, head.size);
    }
    held->event.head = (struct slice){place, head.size};
    held->event.body = (struct slice){body, body_size};
    return &held->event;
}

void journal_event_free(struct journal_event *event)
{
    if (event) {
        free((char *)event->body.data);
        free(held_of(event));
    }
}

struct held *held_of(struct journal_event *event)
{
    return (struct held *)event;
}

void held_free(struct held *list)
{
    while (list) {
        struct held *after = list->after;
        journal_event_free(&list->event);
        list = after;
    }
}

size_t event_bytes(const struct journal_event *event)
{
    return event->head.size + event->body.size;
}

void journal_new_identity(char out[JOURNAL_IDENTITY_SIZE])
{
    static const char prefix[] = "meowbridge-";
    uint8_t random[6];
    ASSERT(getrandom(random, sizeof random, 0) == (ssize_t)sizeof random);
    memcpy(out, prefix, sizeof prefix);
    hex_encode(random, sizeof random, out + sizeof prefix - 1);
    out[JOURNAL_IDENTITY_SIZE - 1] = 0;
}

/* --- appends on their way back --- */

void append_list_init(struct append_list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

void append_list_add(struct append_list *list, struct journal_append *append)
{
    append->next = NULL;
    *list->end = append;
    list->end = &append->next;
}

void append_finish(struct journal_append *append, enum journal_outcome outcome, const char *why)
{
    journal_event_free(append->event);
    append->event = NULL;
    append->outcome = outcome;
    append->why = why;
}

void journal_hand_back(struct journal *journal, struct append_list *list)
{
    if (list->first) {
        journal->hooks.appended(journal->hooks.appended_ctx, list->first);
    }
}

/* --- replays on their way back --- */

void replay_finish(struct journal_replay *replay, const struct error *why)
{
    replay->error = why ? *why : (struct error){0};
    replay->done(replay->ctx, replay);
}

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_done;
};

static void wake_waiter(void *ctx, struct journal_replay *replay)
{
    struct waiter *waiter = ctx;
    (void)replay;
    pthread_mutex_lock(&waiter->lock);
    waiter->is_done = true;
    pthread_cond_signal(&waiter->changed);
    pthread_mutex_unlock(&waiter->lock);
}

enum err journal_replay(struct journal *journal, struct journal_replay *replay, struct error *why)
{
    struct waiter waiter = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    replay->done = wake_waiter;
    replay->ctx = &waiter; /* cppcheck-suppress autoVariables ; it is waited for */
    journal_replay_begin(journal, replay);
    pthread_mutex_lock(&waiter.lock);
    while (!waiter.is_done) {
        pthread_cond_wait(&waiter.changed, &waiter.lock);
    }
    pthread_mutex_unlock(&waiter.lock);
    pthread_cond_destroy(&waiter.changed);
    pthread_mutex_destroy(&waiter.lock);
    if (why && replay->error.code != ERR_NONE) {
        *why = replay->error;
    }
    return replay->error.code;
}

/* --- lane --- */

void lane_add(struct lane *lane, struct journal_event *event)
{
    struct held *held = held_of(event);
    ASSERT(event->seq > (lane->last ? lane->last->event.seq : lane->cursor));
    held->after = NULL;
    if (lane->last) {
        lane->last->after = held;
    } else {
        lane->first = held;
    }
    lane->last = held;
    if (!lane->unclaimed) {
        lane->unclaimed = held;
    }
    lane->unclaimed_count++;
    lane->unclaimed_bytes += event_bytes(event);
}

struct journal_event *lane_claim(struct lane *lane, size_t max, size_t max_bytes)
{
    struct journal_event *list = NULL, **end = &list;
    size_t bytes = 0;
    for (size_t n = 0; n < max && lane->unclaimed; n++) {
        struct journal_event *event = &lane->unclaimed->event;
        size_t size = event_bytes(event);
        if (n > 0 && size > max_bytes - bytes) {
            break;
        }
        bytes = size < max_bytes - bytes ? bytes + size : max_bytes;
        lane->unclaimed = lane->unclaimed->after;
        lane->unclaimed_count--;
        lane->unclaimed_bytes -= size;
        lane->claimed = event->seq;
        event->next = NULL;
        *end = event;
        end = &event->next;
    }
    return list;
}

struct held *lane_settle(struct lane *lane, uint64_t seq)
{
    ASSERT(seq <= lane->claimed);
    if (seq <= lane->cursor) {
        return NULL;
    }
    lane->cursor = seq;
    struct held *gone = lane->first, *last = NULL;
    while (lane->first && lane->first->event.seq <= seq) {
        last = lane->first;
        lane->first = last->after;
    }
    if (!lane->first) {
        lane->last = NULL;
    }
    if (last) {
        last->after = NULL;
    }
    return last ? gone : NULL;
}

void lane_rewind(struct lane *lane)
{
    for (struct held *held = lane->first; held != lane->unclaimed; held = held->after) {
        lane->unclaimed_count++;
        lane->unclaimed_bytes += event_bytes(&held->event);
    }
    lane->unclaimed = lane->first;
    lane->claimed = lane->cursor;
}

/* --- dispatch --- */

enum err journal_start(struct journal *journal, const struct journal_hooks *hooks, struct error *why)
{
    journal->hooks = *hooks;
    return journal->ops->start(journal, why);
}

void journal_close(struct journal **journal)
{
    if (*journal) {
        (*journal)->ops->close(*journal);
        *journal = NULL;
    }
}

enum err journal_identity(struct journal *journal, char out[JOURNAL_IDENTITY_SIZE], struct error *why)
{
    return journal->ops->identity(journal, out, why);
}

void journal_append(struct journal *journal, struct journal_append *batch)
{
    journal->ops->append(journal, batch);
}

void journal_replay_begin(struct journal *journal, struct journal_replay *replay)
{
    replay->replayed = 0;
    replay->next = NULL;
    journal->ops->replay(journal, replay);
}

enum err journal_ready(struct journal *journal, struct error *why)
{
    return journal->ops->ready(journal, why);
}

enum err journal_claim(struct journal *journal, size_t max, size_t max_bytes, struct journal_event **list, struct error *why)
{
    ASSERT(max > 0);
    *list = NULL;
    return journal->ops->claim(journal, max, max_bytes, list, why);
}

void journal_settle(struct journal *journal, uint64_t seq)
{
    journal->ops->settle(journal, seq);
}

enum err journal_bury(struct journal *journal, uint64_t seq, const char *reason, struct error *why)
{
    return journal->ops->bury(journal, seq, reason, why);
}

void journal_rewind(struct journal *journal)
{
    journal->ops->rewind(journal);
}

void journal_link(struct journal *journal, bool up, const char *why)
{
    journal->ops->link(journal, up, why);
}

bool journal_keeps(const struct journal *journal)
{
    return journal->ops->keeps;
}

void journal_state(struct journal *journal, struct journal_state *out)
{
    journal->ops->state(journal, out);
}
