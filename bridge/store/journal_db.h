/* journal_db: the journal's database. All SQL, all of SQLite (but for the way to its files, journal_vfs.h) and its error codes
 * stop here.
 *
 *   state       one row: how far the publisher and the index are, the clock, the client id
 *   events      seq -> event; pending above the cursor, published (until they are deleted) up to it; flags: is it a replay and
 *               of which one, or dead once and moved to which one
 *   dead        copies of the events that were buried, with the reason, until they are replayed
 *   runs        the index of the keys of events up to state.indexed: sorted runs of keys (journal_run.h) ...
 *   pages       ... and their pages, (run, page) -> bytes
 *   stretches   number / DB_STRETCH -> what is in that stretch of events (journal_stretch.h). Journals of earlier versions lack
 *               this table: it is made when a bridge opens them, and those that only look do without it
 *
 * A handle belongs to one thread at a time. One writer and one reader at most; the writer alone writes and checkpoints,
 * because of the WAL-reset bug (SQLite 3.7.0 to 3.51.2). Errors: ERR_FULL, ERR_IO, ERR_CORRUPT, ERR_BUSY, ERR_MEMORY, with a sentence. */
#ifndef JOURNAL_DB_H
#define JOURNAL_DB_H

#include "meowbridge/journal.h"

#include "journal_file.h"

struct db;

/* Opens for writing; creates the schema in an empty file. Checks without a trace before it opens for good. */
MUST_CHECK enum err db_open(struct db **out, const char *path, const struct file_look *look, struct error *why);
MUST_CHECK enum err db_open_reader(struct db **out, const char *path, struct error *why);
/* The writer moves its log into the database, unless nothing may change any more. Accepts NULL. */
void db_close(struct db **db);
void db_keep_log(struct db *db); /* db_close will leave the log as it is */

/* --- transactions --- */

enum db_sync {
    DB_DURABLE, /* committed means synced */
    DB_LAZY     /* synced by the next durable commit (journal_vfs.h, V5); a crash cuts off a tail of the log and no more */
};
MUST_CHECK enum err db_begin(struct db *db, enum db_sync sync, struct error *why);
MUST_CHECK enum err db_commit(struct db *db, struct error *why); /* on error it is rolled back */
void db_rollback(struct db *db);
/* ERR_IO if the file or its log was deleted or replaced while we have it open: a commit would be lost. */
MUST_CHECK enum err db_check_files(struct db *db, struct error *why);
int64_t db_bytes(const struct db *db);     /* as of the last commit: pages in use, and the log */
int64_t db_log_bytes(const struct db *db); /* the part of the log that is not yet in the database */
MUST_CHECK enum err db_checkpoint(struct db *db, struct error *why);

/* --- state --- */

struct db_state {
    char identity[JOURNAL_IDENTITY_SIZE];
    uint64_t cursor;  /* published or buried up to here */
    uint64_t indexed; /* keys of events up to here are in the index */
    uint64_t dead;    /* rows */
    int64_t clock_ms; /* the journal's clock */
};
MUST_CHECK enum err db_state_read(struct db *db, struct db_state *out, struct error *why);
MUST_CHECK enum err db_state_write(struct db *db, uint64_t cursor, uint64_t dead, int64_t clock_ms, struct error *why);
MUST_CHECK enum err db_indexed_write(struct db *db, uint64_t indexed, struct error *why);
/* Writes that much and commits it: is there room again? */
MUST_CHECK enum err db_probe(struct db *db, size_t bytes, struct error *why);

/* --- events --- */

/* Stores events, at least one. Their numbers are set: each is one above the one before, and the first above
 * all that are stored. */
MUST_CHECK enum err db_event_put(struct db *db, const struct journal_event *const *events, size_t count, int64_t kept_ms,
                                 struct error *why);
/* The newest one; seq 0 if there is none. */
MUST_CHECK enum err db_event_last(struct db *db, uint64_t *seq, int64_t *kept_ms, struct error *why);
MUST_CHECK enum err db_event_oldest(struct db *db, uint64_t *seq, int64_t *kept_ms, struct error *why);
/* Up to max events of up to max_bytes (but at least one) with after < seq <= upto, but moved ones, as a list by next; the
 * caller frees them. */
MUST_CHECK enum err db_event_read(struct db *db, uint64_t after, uint64_t upto, size_t max, size_t max_bytes,
                                  struct journal_event **list, struct error *why);
/* Calls each for the key of every event behind after that is no replay; stops with ERR_MEMORY when it returns false. */
MUST_CHECK enum err db_event_keys(struct db *db, uint64_t after,
                                  bool (*each)(void *ctx, const uint8_t key[JOURNAL_KEY_BYTES], int64_t kept_ms), void *ctx,
                                  struct error *why);
/* Deletes the oldest events up to seq upto that were kept until kept_until, a bounded number. */
MUST_CHECK enum err db_event_trim(struct db *db, uint64_t upto, int64_t kept_until, size_t *deleted, struct error *why);
/* Copies an event to dead; *added is false if it is there already. */
MUST_CHECK enum err db_event_bury(struct db *db, uint64_t seq, int64_t died_ms, const char *reason, bool *added,
                                  struct error *why);

/* --- runs: the index's, see journal_run.h --- */

#define DB_PAGE_BYTES 8136 /* of one row that fills a page */

enum db_run_state { RUN_BUILDING, RUN_LIVE, RUN_DROPPING };

struct db_run {
    uint64_t number;
    unsigned level;
    enum db_run_state state;
    uint64_t keys;
    int64_t last_ms; /* of its keys */
    uint32_t pages, stride, filter_blocks;
    uint8_t high[JOURNAL_KEY_BYTES]; /* the last key */
};
/* Up to max, by number. */
MUST_CHECK enum err db_run_list(struct db *db, struct db_run *out, size_t max, size_t *count, struct error *why);
MUST_CHECK enum err db_run_put(struct db *db, const struct db_run *run, struct error *why);
MUST_CHECK enum err db_run_delete(struct db *db, uint64_t number, struct error *why);
MUST_CHECK enum err db_page_put(struct db *db, uint64_t run, uint32_t page, const void *bytes, size_t size, struct error *why);
/* ERR_CORRUPT if it is not there or of another size. */
MUST_CHECK enum err db_page_get(struct db *db, uint64_t run, uint32_t page, void *bytes, size_t size, struct error *why);
/* Deletes a bounded number of a run's pages; *empty when none is left. */
MUST_CHECK enum err db_pages_trim(struct db *db, uint64_t run, bool *empty, struct error *why);

/* --- stretches: see journal_stretch.h --- */

#define DB_STRETCH 256

struct db_stretch {
    uint64_t number;                /* of events number * DB_STRETCH to (number + 1) * DB_STRETCH - 1 */
    int64_t earliest_ms, latest_ms; /* accepted */
    struct slice labels;            /* one behind the other; empty: not known */
};
/* Makes the table where an earlier version left none. Before any other of these but db_stretch_walk. */
MUST_CHECK enum err db_stretches_create(struct db *db, struct error *why);
MUST_CHECK enum err db_stretch_put(struct db *db, const struct db_stretch *stretch, struct error *why);
/* Calls each for the stretches that are written down with first <= number <= last, in order, until it returns false. */
MUST_CHECK enum err db_stretch_walk(struct db *db, uint64_t first, uint64_t last, bool newest_first,
                                    bool (*each)(void *ctx, const struct db_stretch *stretch), void *ctx, struct error *why);

/* --- looking, and replaying: what journal_view.c and replays in journal_sqlite.c need --- */

/* Opens for reading a journal that somebody else may have open. has_log: a log lies beside it; without one the file is read as it
 * stands (immutable), which leaves no trace but is right only as long as no bridge starts. Checks that it is a journal of ours. */
MUST_CHECK enum err db_open_look(struct db **out, const char *path, bool has_log, struct error *why);

/* An event, alive or dead. Slices are of the row, valid until the next one is read. */
struct db_look {
    uint64_t seq;
    int64_t accepted_ms, kept_ms;
    bool is_replay, is_moved, is_dead;
    uint64_t link;       /* is_moved: to which one; else is_replay: of which one; else 0 */
    unsigned replays;    /* that came before this one, of the same event; counted to 127 */
    int64_t died_ms;     /* is_dead */
    struct slice reason; /* is_dead */
    uint8_t key[JOURNAL_KEY_BYTES];
    struct slice head, body;
};

enum db_kinds { DB_ALL, DB_LIVING, DB_DEAD };

struct db_looking {
    enum db_kinds kinds;
    bool newest_first;
    uint64_t after, upto;       /* after < seq <= upto */
    int64_t since_ms, until_ms; /* since <= accepted < until */
};
/* Calls each for the events of these kinds, not for moved ones, in order, until it returns false. */
MUST_CHECK enum err db_look(struct db *db, const struct db_looking *looking, bool (*each)(void *ctx, const struct db_look *row),
                            void *ctx, struct error *why);
/* Every event with from <= seq < end, moved ones too, each once, in order, until each returns false. Only seq, accepted_ms, head
 * and body mean something. */
MUST_CHECK enum err db_stretch_read(struct db *db, uint64_t from, uint64_t end,
                                    bool (*each)(void *ctx, const struct db_look *row), void *ctx, struct error *why);
/* One event, whatever it is; *found is false if there is none. Its slices are valid until db_look_end. */
MUST_CHECK enum err db_look_one(struct db *db, uint64_t seq, struct db_look *out, bool *found, struct error *why);
void db_look_end(struct db *db);
/* The first event, alive or dead, that was kept at or after that time by the journal's clock, which never goes back, so that all
 * before it are older; UINT64_MAX if there is none. By bisection. */
MUST_CHECK enum err db_first_since(struct db *db, int64_t kept_ms, uint64_t *seq, struct error *why);
/* One consistent look over several calls. */
MUST_CHECK enum err db_begin_reading(struct db *db, struct error *why);

/* Stores event, whose seq is set, as the replay of row. If row is dead, it leaves dead, and what events has of it is marked as
 * moved. */
MUST_CHECK enum err db_replay_put(struct db *db, const struct journal_event *event, const struct db_look *row, int64_t kept_ms,
                                  struct error *why);

#endif
