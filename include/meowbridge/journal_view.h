/* journal_view: a read-only look at an SQLite journal, beside the bridge that runs with it, in its process or in another one,
 * or without any.
 *
 * Nothing is ever created, changed or locked out: where a log lies beside the database (a bridge runs, or was killed), it is
 * read along; where none does, the file is read as it stands, and each call looks anew whether that is still so. A call is one
 * consistent look and short, since a long one would keep the bridge's log from being moved into the database. What is marked
 * published here follows the publisher by up to a second, as the cursor on disk does (J4).
 *
 * Pending: above the cursor and not dead; published: up to it and not dead; dead: kept as such, with its reason. A dead event
 * that was replayed is a new event with a new number: the old one is listed no more, but journal_view_get still finds it
 * (moved) for as long as published ones are kept.
 *
 * A view belongs to one thread at a time. Implementation: journal_view.c, over journal_db.c. */
#ifndef MEOWBRIDGE_JOURNAL_VIEW_H
#define MEOWBRIDGE_JOURNAL_VIEW_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct journal_view;

/* ERR_IO (not there, not readable, with a remedy), ERR_CORRUPT (not a journal of ours, or damaged), ERR_VERSION (of a newer
 * meowbridge), ERR_MEMORY. */
MUST_CHECK enum err journal_view_open(struct journal_view **out, const char *path, struct error *why);
void journal_view_close(struct journal_view **view); /* accepts NULL */

enum journal_event_state { JOURNAL_PENDING, JOURNAL_PUBLISHED, JOURNAL_DEAD, JOURNAL_MOVED };
const char *journal_state_name(enum journal_event_state state); /* "pending", "published", "dead", "moved" */
/* True if text names one of the first three, the ones that can be listed. */
bool journal_state_of(struct slice text, enum journal_event_state *out);

struct journal_view_event {
    uint64_t seq;
    enum journal_event_state state;
    int64_t accepted_ms;     /* wall clock */
    unsigned replays;        /* that came before this one, of the same event: 0 for what was pushed; counted to 127 */
    uint64_t replay_of;      /* of a replay, the number of the event that was replayed; else 0 */
    uint64_t moved_to;       /* JOURNAL_MOVED: the number of its replay; else 0 */
    int64_t died_ms;         /* JOURNAL_DEAD; else 0 */
    struct slice reason;     /* JOURNAL_DEAD; else empty */
    struct slice head, body; /* as appended */
};

struct journal_view_filter {
    bool has_state;
    enum journal_event_state state; /* not JOURNAL_MOVED */
    int64_t since_ms, until_ms;     /* accepted, since <= time < until; INT64_MIN and INT64_MAX: no bound */
    uint64_t after, before;         /* after < seq < before; UINT64_MAX: from the newest on */
    /* Not NULL: where every event of a stretch of the journal bears a label (journal_options.label) that this refuses, and all
     * are known, that stretch may be passed over. What is not passed over is visited whatever its label. */
    bool (*wants)(void *ctx, struct slice label);
    void *wants_ctx;
};
#define JOURNAL_VIEW_ALL ((struct journal_view_filter){.since_ms = INT64_MIN, .until_ms = INT64_MAX, .before = UINT64_MAX})

/* Calls each for the events that the filter lets through, newest first, until it returns false or max events or 64 MiB of them
 * were visited: each may be choosy, and the work is bounded all the same; a stretch that is passed over counts as one. What it is
 * handed is valid during the call. *next is the filter's before for going on behind the last one visited, or 0 if there is nothing
 * left. The bounds in time are found by bisection, not by reading what lies outside; an event that was accepted while the clock
 * was off by more than an hour may be left out by them. */
typedef bool journal_view_each(void *ctx, const struct journal_view_event *event);
MUST_CHECK enum err journal_view_walk(struct journal_view *view, const struct journal_view_filter *filter, size_t max,
                                      journal_view_each *each, void *ctx, uint64_t *next, struct error *why);

/* One event; its slices are valid until the next call. ERR_INVALID: "event 7 is not in the journal". */
MUST_CHECK enum err journal_view_get(struct journal_view *view, uint64_t seq, struct journal_view_event *out,
                                     struct error *why);

#endif
