/* The journal without storage: an event is stored when the publisher has settled it, that is, when the broker has confirmed
 * it. Until then its sender waits. No thread: each call hands back what it finished.
 *
 * unsettled maps the keys of the lane's events to the events (a second append of such a key joins the first); remembered maps
 * those of the last REMEMBERED settled ones, which leave it in the order of ring. */
#include "journal_internal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REMEMBERED = 65536, DEFAULT_MAX_BYTES = 64 * 1024 * 1024, WHY_SIZE = JOURNAL_MAX_REASON + 64 };

struct memory_journal {
    struct journal base;

    pthread_mutex_t lock;
    struct lane lane;
    uint64_t last_seq;
    size_t bytes; /* of the lane's events that are not done */
    struct keyset unsettled, remembered;
    uint8_t (*ring)[JOURNAL_KEY_BYTES]; /* REMEMBERED of them */
    size_t ring_at, ring_count;
    bool is_up, stopping;
    char why_down[WHY_SIZE];

    size_t max_bytes; /* immutable */
};

static struct memory_journal *self(struct journal *journal)
{
    return (struct memory_journal *)journal;
}

static size_t cost_of(const struct held *held)
{
    return event_bytes(&held->event) + sizeof *held;
}

/* --- outcomes --- */

static void remember(struct memory_journal *j, const uint8_t key[JOURNAL_KEY_BYTES])
{
    if (j->ring_count == REMEMBERED) {
        keyset_remove(&j->remembered, j->ring[j->ring_at]);
    } else {
        j->ring_count++;
    }
    memcpy(j->ring[j->ring_at], key, JOURNAL_KEY_BYTES);
    j->ring_at = (j->ring_at + 1) % REMEMBERED;
    keyset_put(&j->remembered, key, 0);
}

/* All who wait for an event hear of it; the first one stored it, the others are its duplicates. */
static void finish(struct memory_journal *j, struct held *held, enum journal_outcome outcome, const char *why,
                   struct append_list *out)
{
    if (held->done) {
        return;
    }
    held->done = true;
    j->bytes -= cost_of(held);
    keyset_remove(&j->unsettled, held->event.key);
    for (struct journal_append *append = held->waiting; append;) {
        struct journal_append *next = append->next;
        append->outcome = outcome;
        append->why = why;
        append_list_add(out, append);
        outcome = outcome == JOURNAL_STORED ? JOURNAL_DUPLICATE : outcome;
        append = next;
    }
    held->waiting = NULL;
}

/* --- appending --- */

/* The error is for journal_ready; its text is the sender's, too. Under the lock. */
static enum err check(const struct memory_journal *j, size_t more, struct error *why)
{
    if (j->stopping) {
        return error_set(why, ERR_CLOSED, "stopping");
    }
    if (!j->is_up) {
        return error_set(why, ERR_CLOSED, "%s", j->why_down);
    }
    if (more > j->max_bytes || j->bytes > j->max_bytes - more) {
        return error_set(why, ERR_FULL, "too many events wait for the broker's confirmation");
    }
    return ERR_NONE;
}

static void join(struct held *held, struct journal_append *append)
{
    struct journal_append **end = &held->waiting;
    while (*end) {
        end = &(*end)->next;
    }
    journal_event_free(append->event);
    append->event = NULL;
    append->next = NULL;
    *end = append;
}

static void take(struct memory_journal *j, struct journal_append *append)
{
    struct held *held = held_of(append->event);
    held->event.seq = ++j->last_seq;
    held->waiting = append;
    append->event = NULL;
    append->next = NULL;
    keyset_put(&j->unsettled, held->event.key, (int64_t)(intptr_t)held);
    j->bytes += cost_of(held);
    lane_add(&j->lane, &held->event);
}

/* *text receives the sentence of a refusal; the last one serves all, since it can only get worse within one call. */
static bool append_one(struct memory_journal *j, struct journal_append *append, struct append_list *out, struct error *why)
{
    struct keyset_entry *first = keyset_find(&j->unsettled, append->event->key);
    if (first) {
        join((struct held *)(intptr_t)first->value, append);
        return false;
    }
    if (keyset_find(&j->remembered, append->event->key)) {
        append_finish(append, JOURNAL_DUPLICATE, NULL);
        append_list_add(out, append);
        return false;
    }
    enum err code = check(j, cost_of(held_of(append->event)), why);
    if (code == ERR_NONE && !keyset_reserve(&j->unsettled, 1)) {
        code = error_set(why, ERR_MEMORY, "no memory for the event");
    }
    if (code != ERR_NONE) {
        append_finish(append, JOURNAL_REFUSED, why->text);
        append_list_add(out, append);
        return false;
    }
    take(j, append);
    return true;
}

static void append(struct journal *journal, struct journal_append *batch)
{
    struct memory_journal *j = self(journal);
    struct append_list out;
    struct error why = {0};
    bool has_news = false;
    append_list_init(&out);
    pthread_mutex_lock(&j->lock);
    while (batch) {
        struct journal_append *next = batch->next;
        has_news |= append_one(j, batch, &out, &why);
        batch = next;
    }
    pthread_mutex_unlock(&j->lock);
    journal_hand_back(journal, &out);
    if (has_news) {
        journal->hooks.claimable(journal->hooks.claimable_ctx);
    }
}

static void replay_none(struct journal *journal, struct journal_replay *replay)
{
    struct error why;
    (void)journal;
    error_set(&why, ERR_INVALID, "without a journal no event is kept that could be replayed");
    replay_finish(replay, &why);
}

static enum err ready(struct journal *journal, struct error *why)
{
    struct memory_journal *j = self(journal);
    pthread_mutex_lock(&j->lock);
    enum err code = check(j, 1, why);
    pthread_mutex_unlock(&j->lock);
    return code;
}

/* --- publisher --- */

static enum err claim(struct journal *journal, size_t max, size_t max_bytes, struct journal_event **list, struct error *why)
{
    struct memory_journal *j = self(journal);
    (void)why;
    pthread_mutex_lock(&j->lock);
    *list = lane_claim(&j->lane, max, max_bytes);
    pthread_mutex_unlock(&j->lock);
    return ERR_NONE;
}

static void settle(struct journal *journal, uint64_t seq)
{
    struct memory_journal *j = self(journal);
    struct append_list out;
    append_list_init(&out);
    pthread_mutex_lock(&j->lock);
    struct held *gone = lane_settle(&j->lane, seq);
    for (struct held *held = gone; held; held = held->after) {
        if (!held->done) {
            remember(j, held->event.key);
            finish(j, held, JOURNAL_STORED, NULL, &out);
        }
    }
    pthread_mutex_unlock(&j->lock);
    held_free(gone);
    journal_hand_back(journal, &out);
}

static struct held *find_claimed(struct memory_journal *j, uint64_t seq)
{
    struct held *held = j->lane.first;
    while (held && held->event.seq < seq) {
        held = held->after;
    }
    ASSERT(held && held->event.seq == seq && seq <= j->lane.claimed);
    return held;
}

/* Nothing can be kept, so whoever waits for it is told. The event itself stays lent until it is settled. */
static enum err bury(struct journal *journal, uint64_t seq, const char *reason, struct error *why)
{
    struct memory_journal *j = self(journal);
    struct append_list out;
    char text[JOURNAL_MAX_REASON + 1];
    (void)why;
    append_list_init(&out);
    snprintf(text, sizeof text, "%s", reason);
    pthread_mutex_lock(&j->lock);
    finish(j, find_claimed(j, seq), JOURNAL_REFUSED, text, &out);
    pthread_mutex_unlock(&j->lock);
    journal_hand_back(journal, &out);
    return ERR_NONE;
}

/* What is done need not be claimed again. Returns the events to be freed. */
static struct held *drop_done(struct memory_journal *j)
{
    struct held *gone = NULL, **end = &gone, *kept = NULL, **kept_end = &kept, *last = NULL;
    for (struct held *held = j->lane.first, *after; held; held = after) {
        after = held->after;
        held->after = NULL;
        if (held->done) {
            *end = held;
            end = &held->after;
        } else {
            *kept_end = last = held;
            kept_end = &held->after;
        }
    }
    j->lane.first = kept;
    j->lane.last = last;
    return gone;
}

static void rewind_claims(struct journal *journal)
{
    struct memory_journal *j = self(journal);
    pthread_mutex_lock(&j->lock);
    lane_rewind(&j->lane);
    struct held *gone = drop_done(j);
    j->lane.unclaimed = j->lane.first;
    for (const struct held *held = gone; held; held = held->after) {
        j->lane.unclaimed_count--;
        j->lane.unclaimed_bytes -= event_bytes(&held->event);
    }
    pthread_mutex_unlock(&j->lock);
    held_free(gone);
}

static void refuse_waiting(struct memory_journal *j, const char *why, struct append_list *out)
{
    for (struct held *held = j->lane.first; held; held = held->after) {
        finish(j, held, JOURNAL_REFUSED, why, out);
    }
}

/* Lent events stay until the publisher rewinds or settles; the others go at once. */
static struct held *take_unclaimed(struct memory_journal *j)
{
    struct held *gone = j->lane.unclaimed, *last = NULL;
    for (struct held *held = j->lane.first; held != gone; held = held->after) {
        last = held;
    }
    if (last) {
        last->after = NULL;
    } else {
        j->lane.first = NULL;
    }
    j->lane.last = last;
    j->lane.unclaimed = NULL;
    j->lane.unclaimed_count = j->lane.unclaimed_bytes = 0;
    return gone;
}

static void link_changed(struct journal *journal, bool up, const char *why)
{
    struct memory_journal *j = self(journal);
    struct append_list out;
    struct held *gone = NULL;
    char text[WHY_SIZE];
    append_list_init(&out);
    snprintf(text, sizeof text, "%.*s", JOURNAL_MAX_REASON, why ? why : "the broker is away");
    pthread_mutex_lock(&j->lock);
    j->is_up = up;
    if (!up) {
        memcpy(j->why_down, text, sizeof text);
        refuse_waiting(j, text, &out);
        gone = take_unclaimed(j);
    }
    pthread_mutex_unlock(&j->lock);
    held_free(gone);
    journal_hand_back(&j->base, &out);
}

/* The cursor is the last number of the prefix that nobody waits for any more. */
static void state(struct journal *journal, struct journal_state *out)
{
    struct memory_journal *j = self(journal);
    pthread_mutex_lock(&j->lock);
    const struct held *held = j->lane.first;
    while (held && held->done) {
        held = held->after;
    }
    *out = (struct journal_state){.last_seq = j->last_seq,
                                  .cursor = held ? held->event.seq - 1 : j->last_seq,
                                  .oldest_pending_ms = held ? held->event.accepted_ms : 0};
    pthread_mutex_unlock(&j->lock);
}

/* --- opening and closing --- */

static void free_journal(struct memory_journal *j)
{
    held_free(j->lane.first);
    keyset_free(&j->unsettled);
    keyset_free(&j->remembered);
    free(j->ring);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

static const struct journal_ops memory_ops;

enum err journal_open_memory(struct journal **out, const struct journal_options *options, struct error *why)
{
    *out = NULL;
    struct memory_journal *j = calloc(1, sizeof *j);
    if (!j) {
        return error_set(why, ERR_MEMORY, "no memory for the journal");
    }
    pthread_mutex_init(&j->lock, NULL);
    j->base.ops = &memory_ops;
    j->max_bytes = options->max_bytes > 0 ? (size_t)options->max_bytes : DEFAULT_MAX_BYTES;
    snprintf(j->why_down, sizeof j->why_down, "the broker is away");
    keyset_init(&j->unsettled);
    keyset_init(&j->remembered);
    j->ring = malloc(REMEMBERED * sizeof *j->ring);
    if (!j->ring || !keyset_reserve(&j->remembered, REMEMBERED)) {
        free_journal(j);
        return error_set(why, ERR_MEMORY, "no memory for the journal");
    }
    *out = &j->base;
    return ERR_NONE;
}

static enum err start_journal(struct journal *journal, struct error *why)
{
    (void)journal, (void)why;
    return ERR_NONE;
}

static void close_journal(struct journal *journal)
{
    struct memory_journal *j = self(journal);
    struct append_list out;
    append_list_init(&out);
    pthread_mutex_lock(&j->lock);
    j->stopping = true;
    refuse_waiting(j, "stopping", &out);
    pthread_mutex_unlock(&j->lock);
    journal_hand_back(journal, &out);
    free_journal(j);
}

static enum err identity(struct journal *journal, char out[JOURNAL_IDENTITY_SIZE], struct error *why)
{
    (void)journal, (void)why;
    journal_new_identity(out);
    return ERR_NONE;
}

static const struct journal_ops memory_ops = {
    .start = start_journal,
    .close = close_journal,
    .identity = identity,
    .append = append,
    .replay = replay_none,
    .ready = ready,
    .claim = claim,
    .settle = settle,
    .bury = bury,
    .rewind = rewind_claims,
    .link = link_changed,
    .state = state,
    .keeps = false,
};
