/* journal_run: a sorted run of keys on disk. It is written once, and then merged into a larger one or dropped whole.
 *
 *   pages       the entries in the order of their keys, RUN_PAGE_ENTRIES a page: one row that fills a page of the database
 *   directory   the first key of every stride-th page (the fences) and a Bloom filter; in memory while the run is live
 *
 *   BUILDING ──run_writer_finish──▶ LIVE ──▶ DROPPING ──its pages deleted──▶ gone
 *       └──── given up, or found so at a start ────▲
 *
 * One thread. What writes does so in a transaction of the caller's; when that fails, the writer must be given up. */
#ifndef JOURNAL_RUN_H
#define JOURNAL_RUN_H

#include "journal_db.h"
#include "journal_internal.h"

enum { RUN_PAGE_ENTRIES = DB_PAGE_BYTES / sizeof(struct keyset_entry) };

struct run {
    struct db_run facts;
    bool is_input; /* of a merge */
    uint8_t (*fences)[JOURNAL_KEY_BYTES];
    uint8_t *filter;
};

struct run_page {
    size_t count;
    struct keyset_entry entries[RUN_PAGE_ENTRIES];
};

/* Reads the directory of a live run; of another one nothing. */
MUST_CHECK enum err run_load(struct run **out, struct db *db, const struct db_run *facts, struct error *why);
/* From now on the run is no more than pages to be deleted. */
void run_forget(struct run *run);
void run_free(struct run *run); /* accepts NULL */

/* Looks a key up: *kept_ms is KEYSET_EMPTY if the run does not hold it. page is scratch. */
MUST_CHECK enum err run_find(const struct run *run, struct db *db, const uint8_t key[JOURNAL_KEY_BYTES], struct run_page *page,
                             int64_t *kept_ms, struct error *why);
MUST_CHECK enum err run_page_read(const struct run *run, struct db *db, size_t number, struct run_page *out, struct error *why);

/* --- writing one --- */

struct run_writer;

/* The bound on a run's memory. */
struct run_limits {
    size_t fences;       /* where a run has more pages, they share them */
    size_t filter_bytes; /* where a run has more keys than these suffice for, its filter is less sharp */
};
extern const struct run_limits run_limits;

MUST_CHECK enum err run_writer_open(struct run_writer **out, struct db *db, uint64_t number, unsigned level, uint64_t max_keys,
                                    const struct run_limits *limits, struct error *why);
/* Keys grow from call to call; at most max_keys of them. */
MUST_CHECK enum err run_writer_add(struct run_writer *writer, const struct keyset_entry *entry, struct error *why);
/* Writes what is left and the directory: the run is live, or, without a key, to be dropped. The writer stays to be closed. */
MUST_CHECK enum err run_writer_finish(struct run_writer *writer, struct error *why);
/* Frees the writer and hands out its run: as it is if its transaction was committed and it is finished, else forgotten. */
struct run *run_writer_close(struct run_writer **writer, bool is_good);

#endif
