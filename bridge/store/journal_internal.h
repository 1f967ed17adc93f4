/* journal_internal: what the journal's implementations share, and nobody else sees.
 *
 *   journal.c ──ops──▶ journal_sqlite.c ──▶ journal_index.c ──▶ journal_run.c ──▶ journal_db.c [sqlite3.h] ──▶ journal_file.c
 *             │                         └───▶ journal_stretch.c ───────────────────────▲ └──▶ journal_vfs.c
 *             └──────▶ journal_memory.c        journal_view.c ───────────────────────────▲
 * lane (journal.c) and keyset (journal_keys.c) serve both. Nothing in this header locks: the owner's mutex guards it. */
#ifndef JOURNAL_INTERNAL_H
#define JOURNAL_INTERNAL_H

#include "meowbridge/journal.h"

/* Each function is that of journal.h with the same name; start finds the hooks in place. */
struct journal_ops {
    enum err (*start)(struct journal *journal, struct error *why);
    void (*close)(struct journal *journal); /* frees it, too */
    enum err (*identity)(struct journal *journal, char out[JOURNAL_IDENTITY_SIZE], struct error *why);
    void (*append)(struct journal *journal, struct journal_append *batch);
    void (*replay)(struct journal *journal, struct journal_replay *replay); /* journal_replay_begin */
    enum err (*ready)(struct journal *journal, struct error *why);
    enum err (*claim)(struct journal *journal, size_t max, size_t max_bytes, struct journal_event **list, struct error *why);
    void (*settle)(struct journal *journal, uint64_t seq);
    enum err (*bury)(struct journal *journal, uint64_t seq, const char *reason, struct error *why);
    void (*rewind)(struct journal *journal);
    void (*link)(struct journal *journal, bool up, const char *why);
    void (*state)(struct journal *journal, struct journal_state *out);
    bool keeps;
};

struct journal {
    const struct journal_ops *ops;
    struct journal_hooks hooks;
};

void journal_new_identity(char out[JOURNAL_IDENTITY_SIZE]);

/* --- appends on their way back --- */

/* A list under construction; append_list_init before use. */
struct append_list {
    struct journal_append *first, **end;
};
void append_list_init(struct append_list *list);
void append_list_add(struct append_list *list, struct journal_append *append);
/* Frees the event and sets the outcome; why as in struct journal_append. */
void append_finish(struct journal_append *append, enum journal_outcome outcome, const char *why);
void journal_hand_back(struct journal *journal, struct append_list *list); /* calls hooks.appended unless the list is empty */

/* Hands a replay back with this outcome (NULL: all went well). */
void replay_finish(struct journal_replay *replay, const struct error *why);

/* --- lane: the unsettled events that are in memory, in order --- */

/* What journal_event_new really makes. The list is linked by after, not by event.next, which the publisher reads unlocked. */
struct held {
    struct journal_event event; /* first: a journal_event is a held */
    struct held *after;
    struct journal_append *waiting; /* memory journal: who hears of the outcome, by next */
    bool done;                      /* memory journal: they have heard */
};

struct lane {
    struct held *first, *last;
    struct held *unclaimed; /* the first one that is not lent; NULL: all are */
    size_t unclaimed_count;
    size_t unclaimed_bytes;
    uint64_t cursor;  /* settled up to here */
    uint64_t claimed; /* lent up to here; never below cursor */
};

struct held *held_of(struct journal_event *event);
size_t event_bytes(const struct journal_event *event);
void lane_add(struct lane *lane, struct journal_event *event); /* takes it over; seq above all others */
struct journal_event *lane_claim(struct lane *lane, size_t max, size_t max_bytes);
/* Moves the cursor and takes out what it passed, as a list by after, for the caller to free without the lock. */
struct held *lane_settle(struct lane *lane, uint64_t seq);
void lane_rewind(struct lane *lane);
void held_free(struct held *list); /* the whole list by after */

/* --- keyset: a hash table from keys to numbers --- */

#define KEYSET_EMPTY INT64_MIN /* not a value */

struct keyset_entry {
    uint8_t key[JOURNAL_KEY_BYTES];
    int64_t value;
};

struct keyset {
    struct keyset_entry *entries; /* capacity of them, a power of two; KEYSET_EMPTY marks a free one */
    size_t capacity, count;
    uint64_t seed; /* so that nobody can choose ids that collide */
};

/* Mixed well in its upper half; the seed goes in before each multiplication, so that a difference of two keys alone does not
 * tell whether they collide. */
uint64_t key_hash(const uint8_t key[JOURNAL_KEY_BYTES], uint64_t seed);

void keyset_init(struct keyset *set);
void keyset_free(struct keyset *set);                            /* leaves it empty and usable */
MUST_CHECK bool keyset_reserve(struct keyset *set, size_t more); /* room for more keys; false without memory */
struct keyset_entry *keyset_find(const struct keyset *set, const uint8_t key[JOURNAL_KEY_BYTES]);
void keyset_put(struct keyset *set, const uint8_t key[JOURNAL_KEY_BYTES], int64_t value); /* room was reserved */
void keyset_remove(struct keyset *set, const uint8_t key[JOURNAL_KEY_BYTES]);

#endif
