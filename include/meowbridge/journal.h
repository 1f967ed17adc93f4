/* journal: the meeting place of ingress and publisher, and what 200 stands on (contract.md 4).
 *
 *   ingress ──journal_append(batch)──▶ ┌─────────┐ ──journal_claim──▶ publisher
 *           ◀──hooks.appended(batch)── │ journal │ ◀─journal_settle── publisher
 *                                      └─────────┘ ◀─journal_bury──── publisher
 *
 * An event is opaque here: a 16-byte key, a head and a body. It moves through these states and no others:
 *
 *   appended ──commit──▶ pending ──settle──▶ published ──retention or room──▶ gone
 *       │                   └────bury──▶ dead (kept until somebody acts) ──replay──▶ moved (shown no more; goes as published
 *       │                                                                            ones do)
 *       ├──key known──▶ duplicate (nothing is stored)
 *       └──cannot──▶ refused (nothing is stored; the sender is told 503)
 *
 * A replay appends a published or dead event once more: a new row, pending, with a number of its own.
 *
 * Invariants:
 *  J1  hooks.appended says JOURNAL_STORED only after the event is as durable as the implementation promises: written and
 *      synced (SQLite), or confirmed by the broker (memory).
 *  J2  Sequence numbers grow by commit order, start at 1, and are never given twice, also over restarts.
 *  J3  Events are claimed in the order of their sequence numbers, each once between two calls of journal_rewind.
 *  J4  The cursor is the last sequence number of the settled prefix. It is saved no later than the next commit, or within
 *      a second when idle, and at journal_close; never beyond a burial that is not yet durable.
 *  J5  A key is stored once within `retention`; deciding that and storing are one transaction.
 *  J6  Pending and dead events are never deleted.
 *  J7  Memory does not grow with the number of events kept or waiting.
 *  J8  A replay neither asks nor changes which keys are known. A dead event leaves `dead` in the transaction that stores its
 *      replay, so it is always exactly one of both.
 *
 * Implementations: journal_sqlite.c (one file, survives crashes), journal_memory.c (`"journal": false`). */
#ifndef MEOWBRIDGE_JOURNAL_H
#define MEOWBRIDGE_JOURNAL_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOURNAL_KEY_BYTES 16
#define JOURNAL_MAX_REASON 400

struct journal;

/* An event as the journal holds it. Made by journal_event_new, then owned by the journal; immutable once appended but for
 * seq and next. */
struct journal_event {
    struct journal_event *next; /* the next claimed one; the journal's own use otherwise */
    uint64_t seq;               /* 0 before the commit */
    int64_t accepted_ms;        /* wall clock */
    bool is_replay;
    uint8_t key[JOURNAL_KEY_BYTES];
    struct slice head, body; /* owned */
};

/* Copies head; takes over body (malloc'd), also on failure. NULL without memory. */
struct journal_event *journal_event_new(const uint8_t key[JOURNAL_KEY_BYTES], int64_t accepted_ms, struct slice head,
                                        char *body, size_t body_size);
void journal_event_free(struct journal_event *event); /* accepts NULL */

enum journal_outcome {
    JOURNAL_STORED,
    JOURNAL_DUPLICATE, /* an event of this key is stored already */
    JOURNAL_REFUSED    /* why says why, for the 503's message and the log */
};

/* One event on its way in. The caller embeds it in its request; it belongs to the journal from journal_append until
 * hooks.appended hands it back with outcome set. */
struct journal_append {
    struct journal_append *next;
    struct journal_event *event; /* the journal's from journal_append on; NULL when handed back */
    enum journal_outcome outcome;
    const char *why; /* JOURNAL_REFUSED: a sentence, valid until hooks.appended returns; else NULL */
};

/* Called by the journal, from a thread of its own or from inside journal_append, _settle, _bury, _link: they must not call
 * back into the journal and must not block. */
struct journal_hooks {
    void (*appended)(void *ctx, struct journal_append *batch); /* a list, in order of append; each exactly once */
    void *appended_ctx;
    void (*claimable)(void *ctx); /* there is something to claim that was not there before */
    void *claimable_ctx;
};

/* Appends an event's label to out: bytes by which those who look for such events can pass over others unread (see
 * journal_view_filter). Equal ones are to be equal bytes, and there should be few. False if it has none. From the journal's
 * thread. */
typedef bool journal_label(struct slice head, struct slice body, struct buf *out);

struct journal_options {
    const char *path;     /* of the database; copied */
    int64_t retention_ms; /* at least 1 s */
    int64_t max_bytes;    /* of the database file and its log; 0: no limit */
    journal_label *label; /* NULL: events have none */
};

/* Opens or creates the SQLite journal, checks it, and takes the lock that keeps a second bridge out. Reads neither all events
 * nor all keys. On error the file is as it was. ERR_IO (cannot be opened, read-only, no directory), ERR_BUSY (another bridge
 * has it), ERR_CORRUPT (not a journal of ours, or damaged), ERR_VERSION (newer schema), ERR_FULL. */
MUST_CHECK enum err journal_open_sqlite(struct journal **out, const struct journal_options *options, struct error *why);

/* A journal without storage: stored means that the publisher has settled the event. It refuses while the link is down (see
 * journal_link) or while max_bytes of bodies wait (0: 64 MiB), and remembers the last 65,536 keys. A second append of a key
 * that is still unsettled waits for the first one's outcome and shares it (as a duplicate). */
MUST_CHECK enum err journal_open_memory(struct journal **out, const struct journal_options *options, struct error *why);

/* Sets the hooks and starts working. Before it only journal_identity and journal_close may be called. */
MUST_CHECK enum err journal_start(struct journal *journal, const struct journal_hooks *hooks, struct error *why);

/* Hands back every append that is still under way (stored, or refused with "stopping"), saves the cursor, checkpoints, and
 * closes. The publisher must have stopped. Accepts NULL. */
void journal_close(struct journal **journal);

/* A client id made once and kept with the journal: "meowbridge-" and 12 hex digits, NUL-terminated. Memory: a new one each
 * start. Before journal_start. */
#define JOURNAL_IDENTITY_SIZE 24
MUST_CHECK enum err journal_identity(struct journal *journal, char out[JOURNAL_IDENTITY_SIZE], struct error *why);

/* --- ingress: any thread --- */

/* Takes a list of appends, in this order; all of one call are committed together if limits allow. Never waits for the disk.
 * The outcome comes by hooks.appended, possibly before this returns. */
void journal_append(struct journal *journal, struct journal_append *batch);

/* --- replaying: any thread but one that the hooks run in --- */

/* Which events to queue for publishing again, and what came of it. Taken are published and dead ones; a pending one will be
 * published anyway. A replay has a new sequence number, is_replay, the present as its time of acceptance, and key, head and
 * body as they were; replays come in the order of the events' numbers (or of seqs). Of a published event the old row stays, a
 * dead one is moved. What is stored after journal_replay_begin is not taken, so that what fails again is not replayed in a
 * circle; nor, in a span of time, is a published replay whose original is in the span, so that repeating the call does not
 * double what it does. */
struct journal_replay {
    struct journal_replay *next; /* the journal's own use */

    /* Exactly these, if there are any … */
    const uint64_t *seqs; /* borrowed until done */
    size_t seq_count;
    /* … else all of these. */
    bool dead_only;
    int64_t since_ms, until_ms; /* accepted, since <= time < until; INT64_MIN and INT64_MAX: no bound */

    /* Called once, with the outcome, from a thread of the journal's or from inside journal_replay_begin; as the hooks, it must
     * not call back into the journal and must not block. The struct is the caller's again. */
    void (*done)(void *ctx, struct journal_replay *replay);
    void *ctx;

    uint64_t replayed;  /* durably queued, also when an error ended it half way */
    struct error error; /* code ERR_NONE: all were; otherwise as journal_replay returns */

    uint64_t at, upto; /* the journal's own use */
};

/* Starts a replay, in pieces between the batches of appends, so that it may be of a million events and holds none of them up.
 * Never waits. Several replays run one after the other. */
void journal_replay_begin(struct journal *journal, struct journal_replay *replay);
/* The same, and waits for the outcome; done and ctx need not be set. ERR_INVALID: the journal keeps nothing (memory); ERR_FULL,
 * ERR_IO, ERR_CORRUPT, as for appends: the rest was not replayed, and can be with the next call; ERR_CLOSED: stopping. Sequence
 * numbers that are pending, moved or not there are passed over: compare replayed with seq_count. */
MUST_CHECK enum err journal_replay(struct journal *journal, struct journal_replay *replay, struct error *why);

/* ERR_NONE if an append would be tried now, else the reason (full, disk error, link down). */
MUST_CHECK enum err journal_ready(struct journal *journal, struct error *why);

/* --- publisher: one thread --- */

/* Lends up to max events of up to max_bytes of heads and bodies together (but at least one event), in order, following those
 * already claimed; *list is NULL if there are none now. They stay the journal's: valid until a settle past them or a rewind.
 * May read the disk. On error nothing is claimed. */
MUST_CHECK enum err journal_claim(struct journal *journal, size_t max, size_t max_bytes, struct journal_event **list,
                                  struct error *why);
/* Every event up to seq, inclusive, is published or buried. seq must have been claimed; smaller than before is ignored. */
void journal_settle(struct journal *journal, uint64_t seq);
/* A claimed event cannot be published: keep it as dead with this reason (one sentence, cut to JOURNAL_MAX_REASON bytes).
 * Settling is still the caller's. ERR_BUSY while too many burials wait for a disk that does not take them: try later. */
MUST_CHECK enum err journal_bury(struct journal *journal, uint64_t seq, const char *reason, struct error *why);
/* Forgets what was claimed: claiming starts again behind the cursor. */
void journal_rewind(struct journal *journal);
/* The publisher says whether a broker is there. When it goes down, a journal that keeps nothing refuses what waits, with why
 * (NULL: "the broker is away"); such events are then settled by themselves. The others take no notice. */
void journal_link(struct journal *journal, bool up, const char *why);
/* True if events survive a lost link (SQLite), so that the publisher may keep trying what it holds. */
bool journal_keeps(const struct journal *journal);

struct journal_state {
    uint64_t last_seq;         /* committed */
    uint64_t cursor;           /* settled */
    uint64_t dead;             /* events kept as dead */
    int64_t bytes;             /* on disk, free pages not counted; 0 for memory */
    int64_t longest_upkeep_us; /* that a batch may have waited for housekeeping, since the start */
    int64_t oldest_pending_ms; /* when the first unsettled event was accepted, or one settled just before it; 0: none */
};
void journal_state(struct journal *journal, struct journal_state *out); /* any thread */

#endif
