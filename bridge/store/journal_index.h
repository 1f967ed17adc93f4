/* journal_index: which keys are stored within the retention. Exact, in bounded memory (see the note in journal_index.c).
 * One thread. */
#ifndef JOURNAL_INDEX_H
#define JOURNAL_INDEX_H

#include "journal_db.h"
#include "journal_run.h"

struct index;

struct index_options {
    struct db *db; /* must outlive the index */
    int64_t retention_ms;
    size_t fresh_keys;  /* in memory only, at most; twice as many while they are being written */
    size_t fresh_bytes; /* of their events, which may not be deleted before */
    const struct run_limits *limits;
};

/* Reads the keys of the events behind indexed. */
MUST_CHECK enum err index_open(struct index **out, const struct index_options *options, uint64_t indexed, struct error *why);
void index_close(struct index **index); /* accepts NULL */

/* --- a batch: within one transaction of the caller's --- */

/* False without memory. */
MUST_CHECK bool index_begin(struct index *index, size_t rows);
MUST_CHECK enum err index_known(struct index *index, const uint8_t key[JOURNAL_KEY_BYTES], int64_t now_ms, bool *known,
                                struct error *why);
void index_add(struct index *index, const uint8_t key[JOURNAL_KEY_BYTES], int64_t now_ms, size_t bytes);
void index_commit(struct index *index, uint64_t last_seq);
/* Events of so many bytes were committed up to last_seq whose keys it need not know: replays. */
void index_pass(struct index *index, uint64_t last_seq, size_t bytes);
void index_undo(struct index *index); /* forgets what was added since index_begin */

/* --- upkeep: between batches, each a transaction of its own and bounded to a few milliseconds --- */

bool index_has_work(const struct index *index, int64_t now_ms);
MUST_CHECK enum err index_step(struct index *index, int64_t now_ms, struct error *why);
uint64_t index_upto(const struct index *index);  /* keys of events up to here are on disk: the events may go */
void index_seal(struct index *index);            /* wants index_upto to move on, to make room */
bool index_is_behind(const struct index *index); /* keys come faster than they are merged: make two steps, not one */
bool index_is_stuck(const struct index *index);  /* so far behind that the next batch must wait for steps */

#endif
