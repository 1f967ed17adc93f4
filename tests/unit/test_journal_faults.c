/* The journal on a disk that fails: an SQLite VFS that lets the n-th write, sync or truncation fail, fills up, or loses at a
 * power cut whatever was not synced. A sync that fails may lose what it should have synced, as Linux does, where it is then in the
 * kernel's cache only: it can be read until the power is cut, but no later sync brings it to the disk, unless it is written again. */
#include "journal_fixture.h"

#include "meowbridge/metrics.h"

#include <sys/mman.h>

#define TEST(name) cmocka_unit_test(name)

/* --- the shim --- */

enum file_kind { DATABASE, LOG, FILE_KINDS };
enum operation { WRITE = 1, SYNC = 2, TRUNCATE = 4 };
enum only { ALL, OF_DATABASE, OF_FRAMES /* of a log, not of its header alone */ };
enum { ALL_BYTES = 1 << 30, WRITTEN_AT_ONCE = 4096 };

struct unsynced_write { /* what stood there before */
    struct unsynced_write *older;
    sqlite3_int64 file_size, offset;
    int size;
    char old[];
};

enum lost_state { NOT_LOST, LOST_NOW, LOST };

struct lost {  /* what syncs that failed have lost, by byte */
    char *old; /* what is on the disk instead */
    uint8_t *state;
    size_t size;
};

static struct {
    pthread_mutex_t lock;
    sqlite3_vfs vfs, *real;
    sqlite3_io_methods methods[FILE_KINDS];
    const sqlite3_io_methods *originals[FILE_KINDS];
    sqlite3_file *writers[FILE_KINDS];
    bool remembers; /* unsynced writes, for a power cut */
    struct unsynced_write *unsynced[FILE_KINDS];
    bool loses; /* a sync that fails loses what it should have synced */
    struct lost lost[FILE_KINDS];
    int64_t log_starts, last_offset; /* in the log */
    int64_t syncs, cut_at;           /* the power is cut after so many syncs; 0: not */
    bool half_arrives;               /* of what was not synced the older half is on the disk after a power cut, else nothing */
    bool is_dirty[FILE_KINDS];

    int operations;     /* a set of those that count */
    enum only only;     /* of those, too */
    int64_t count;      /* of them, since the plan was made */
    int64_t fail_at;    /* the first one that fails, from 1; 0: none */
    int64_t fail_count; /* how many do */
    int error;
    int missing; /* a failing write leaves out so many bytes at its end; ALL_BYTES: all of them */
    int64_t failed;
} shim = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void plan(int operations, int64_t at, int64_t count, int error)
{
    pthread_mutex_lock(&shim.lock);
    shim.operations = operations;
    shim.only = ALL;
    shim.count = shim.failed = 0;
    shim.fail_at = at;
    shim.fail_count = count;
    shim.error = error;
    shim.missing = ALL_BYTES;
    pthread_mutex_unlock(&shim.lock);
}

static int64_t failed_operations(void)
{
    pthread_mutex_lock(&shim.lock);
    int64_t failed = shim.failed;
    pthread_mutex_unlock(&shim.lock);
    return failed;
}

/* Under the lock. */
static bool counts(enum file_kind kind, enum operation operation)
{
    const bool is_in = shim.only == ALL || (shim.only == OF_DATABASE && kind == DATABASE) ||
                       (shim.only == OF_FRAMES && kind == LOG && shim.last_offset > 0);
    return shim.operations & operation && is_in;
}

/* Under the lock. */
static int verdict(enum file_kind kind, enum operation operation)
{
    if (!counts(kind, operation)) {
        return SQLITE_OK;
    }
    shim.count++;
    bool fails = shim.fail_at > 0 && shim.count >= shim.fail_at && shim.count - shim.fail_at < shim.fail_count;
    shim.failed += fails;
    return fails ? shim.error : SQLITE_OK;
}

/* In pieces, since a power cut may let a part of a write arrive. */
static void remember(enum file_kind kind, sqlite3_file *file, int size, sqlite3_int64 offset)
{
    sqlite3_int64 file_size;
    shim.originals[kind]->xFileSize(file, &file_size);
    for (int at = 0, piece; at < size; at += piece) {
        piece = size - at < WRITTEN_AT_ONCE ? size - at : WRITTEN_AT_ONCE;
        struct unsynced_write *entry = malloc(sizeof *entry + (size_t)piece);
        *entry = (struct unsynced_write){.older = shim.unsynced[kind], .offset = offset + at, .size = piece};
        entry->file_size = file_size > offset + at ? file_size : offset + at;
        shim.originals[kind]->xRead(file, entry->old, piece, offset + at); /* short at the end of the file */
        shim.unsynced[kind] = entry;
    }
}

static void forget(enum file_kind kind)
{
    for (struct unsynced_write *entry = shim.unsynced[kind], *older; entry; entry = older) {
        older = entry->older;
        free(entry);
    }
    shim.unsynced[kind] = NULL;
}

static void set_lost(enum file_kind kind, const struct unsynced_write *entry, enum lost_state state)
{
    struct lost *lost = &shim.lost[kind];
    const size_t end = (size_t)(entry->offset + entry->size);
    if (end > lost->size) {
        lost->old = realloc(lost->old, end);
        lost->state = realloc(lost->state, end);
        memset(lost->state + lost->size, NOT_LOST, end - lost->size);
        lost->size = end;
    }
    for (size_t i = (size_t)entry->offset; i < end; i++) {
        if (state == NOT_LOST) {
            lost->state[i] = NOT_LOST;
        } else if (lost->state[i] != LOST) { /* what is lost for the second time leaves what was there before the first */
            lost->state[i] = LOST_NOW;
            lost->old[i] = entry->old[i - (size_t)entry->offset];
        }
    }
}

static void lose_unsynced(enum file_kind kind)
{
    struct lost *lost = &shim.lost[kind];
    for (struct unsynced_write *entry = shim.unsynced[kind]; entry; entry = entry->older) {
        set_lost(kind, entry, LOST_NOW);
    }
    for (size_t i = 0; i < lost->size; i++) {
        lost->state[i] = lost->state[i] == LOST_NOW ? LOST : lost->state[i];
    }
    forget(kind);
}

static void arrive(enum file_kind kind, struct unsynced_write *entry)
{
    for (; entry; entry = entry->older) {
        set_lost(kind, entry, NOT_LOST);
    }
}

static void take_lost_away(enum file_kind kind)
{
    sqlite3_int64 file_size = 0;
    struct lost *lost = &shim.lost[kind];
    if (shim.writers[kind]) {
        shim.originals[kind]->xFileSize(shim.writers[kind], &file_size);
    }
    const size_t end = lost->size < (size_t)file_size ? lost->size : (size_t)file_size;
    for (size_t at = 0, to; at < end; at = to) {
        for (to = at + 1; to < end && lost->state[to] == lost->state[at]; to++) {
        }
        if (lost->state[at] == LOST) {
            shim.originals[kind]->xWrite(shim.writers[kind], lost->old + at, (int)(to - at), (sqlite3_int64)at);
        }
    }
}

static int write_file_of(enum file_kind kind, sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    pthread_mutex_lock(&shim.lock);
    int status = verdict(kind, WRITE);
    shim.writers[kind] = file;
    if (kind == LOG) {
        shim.log_starts += offset == 0;
        shim.last_offset = offset;
    }
    if (shim.remembers) {
        remember(kind, file, size, offset);
    }
    if (status == SQLITE_OK) {
        shim.is_dirty[kind] = true;
        status = shim.originals[kind]->xWrite(file, data, size, offset);
    } else if (size > shim.missing) { /* a short write */
        shim.is_dirty[kind] = true;
        shim.originals[kind]->xWrite(file, data, size - shim.missing, offset);
    }
    pthread_mutex_unlock(&shim.lock);
    return status;
}

/* The machine loses its power: each file is as it was at its last sync, or a little newer. Under the lock. Never returns. */
static _Noreturn void lose_power(void)
{
    for (int kind = 0; kind < FILE_KINDS; kind++) {
        size_t count = 0;
        for (struct unsynced_write *entry = shim.unsynced[kind]; entry; entry = entry->older) {
            count++;
        }
        count -= shim.half_arrives ? count / 2 : 0;
        struct unsynced_write *entry = shim.unsynced[kind];
        for (; count > 0; entry = entry->older, count--) {
            sqlite3_file *file = shim.writers[kind];
            shim.originals[kind]->xWrite(file, entry->old, entry->size, entry->offset);
            shim.originals[kind]->xTruncate(file, entry->file_size);
        }
        arrive(kind, entry);
        take_lost_away(kind);
    }
    _exit(0);
}

static int sync_file_of(enum file_kind kind, sqlite3_file *file, int flags)
{
    pthread_mutex_lock(&shim.lock);
    int status = verdict(kind, SYNC);
    if (status == SQLITE_OK) {
        /* What a disk does is not the test's matter, and it would take most of its time. */
        shim.is_dirty[kind] = false;
        arrive(kind, shim.unsynced[kind]);
        forget(kind);
        if (shim.cut_at > 0 && ++shim.syncs == shim.cut_at) {
            lose_power();
        }
    } else if (shim.loses) {
        shim.is_dirty[kind] = false; /* nothing of it is still to be written */
        lose_unsynced(kind);
    }
    pthread_mutex_unlock(&shim.lock);
    (void)file, (void)flags;
    return status;
}

static int truncate_file_of(enum file_kind kind, sqlite3_file *file, sqlite3_int64 size)
{
    pthread_mutex_lock(&shim.lock);
    int status = verdict(kind, TRUNCATE);
    if (status == SQLITE_OK) {
        status = shim.originals[kind]->xTruncate(file, size);
    }
    pthread_mutex_unlock(&shim.lock);
    return status;
}

#define METHODS_OF(name, kind)                                                                    \
    static int name##_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset) \
    {                                                                                             \
        return write_file_of(kind, file, data, size, offset);                                     \
    }                                                                                             \
    static int name##_sync(sqlite3_file *file, int flags)                                         \
    {                                                                                             \
        return sync_file_of(kind, file, flags);                                                   \
    }                                                                                             \
    static int name##_truncate(sqlite3_file *file, sqlite3_int64 size)                            \
    {                                                                                             \
        return truncate_file_of(kind, file, size);                                                \
    }

METHODS_OF(database, DATABASE)
METHODS_OF(log, LOG)

/* One table for each kind of file: the locking methods of the database's are not those of the log's. */
static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)vfs;
    int status = shim.real->xOpen(shim.real, name, file, flags, out_flags);
    enum file_kind kind = flags & SQLITE_OPEN_WAL ? LOG : DATABASE;
    if (status != SQLITE_OK || !(flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)) || (flags & SQLITE_OPEN_URI)) {
        return status;
    }
    pthread_mutex_lock(&shim.lock);
    if (!shim.originals[kind]) {
        shim.originals[kind] = file->pMethods;
        shim.methods[kind] = *file->pMethods;
        shim.methods[kind].xWrite = kind == LOG ? log_write : database_write;
        shim.methods[kind].xSync = kind == LOG ? log_sync : database_sync;
        shim.methods[kind].xTruncate = kind == LOG ? log_truncate : database_truncate;
    }
    if (shim.originals[kind] == file->pMethods) { /* an immutable file has others */
        file->pMethods = &shim.methods[kind];
    }
    pthread_mutex_unlock(&shim.lock);
    return status;
}

static int install(void **unused)
{
    (void)unused;
    shim.real = sqlite3_vfs_find(NULL);
    shim.vfs = *shim.real;
    shim.vfs.zName = "shim";
    shim.vfs.xOpen = open_file;
    return sqlite3_vfs_register(&shim.vfs, 1);
}

static _Noreturn void cut_power(void)
{
    pthread_mutex_lock(&shim.lock);
    lose_power();
}

/* --- what a run may leave behind --- */

enum { RUN_EVENTS = 264 /* over one stretch */, SMALL_RUN_EVENTS = 24, RUN_BATCH = 12, RUN_BODY = 4000 };

struct run {
    struct fixture f;
    uint64_t events;
    bool stored[RUN_EVENTS + 1]; /* by number, from 1 */
    uint64_t settled, buried;
};

/* J1: at the moment when it is said, nothing of the log is unsynced. */
static void check_sync(void *ctx, const struct journal_append *append)
{
    (void)ctx;
    pthread_mutex_lock(&shim.lock);
    bool is_dirty = shim.is_dirty[LOG];
    pthread_mutex_unlock(&shim.lock);
    if (append->outcome == JOURNAL_STORED && is_dirty) {
        fail_msg("stored, but not synced");
    }
}

static void publish_some(struct run *run)
{
    struct error why;
    struct journal_event *list;
    if (journal_claim(run->f.journal, RUN_BATCH / 2, 1 << 20, &list, &why) != ERR_NONE || !list) {
        return;
    }
    uint64_t seq = list->seq;
    if (seq % 4 == 1 && journal_bury(run->f.journal, seq, "refused", &why) == ERR_NONE) {
        run->buried = seq;
    }
    while (list->next) {
        list = list->next;
    }
    run->settled = list->seq;
    journal_settle(run->f.journal, run->settled);
}

/* Stores, publishes and buries, with checkpoints and merging in between. False if the journal cannot even be opened. */
static bool run_through(struct run *run)
{
    struct error why;
    struct fixture *f = &run->f;
    const struct journal_hooks hooks = {note_appended, f, note_claimable, f};
    f->before_note = check_sync;
    if (journal_open_sqlite(&f->journal, &f->options, &why) != ERR_NONE) {
        assert_true(why.code == ERR_IO || why.code == ERR_FULL || why.code == ERR_CORRUPT);
        return false;
    }
    assert_int_equal(journal_start(f->journal, &hooks, &why), ERR_NONE);
    for (uint64_t number = 1; number <= run->events; number += RUN_BATCH) {
        struct put puts[RUN_BATCH];
        post(f, puts, number, RUN_BATCH, RUN_BODY);
        await(f, puts, RUN_BATCH);
        for (uint64_t i = 0; i < RUN_BATCH; i++) {
            run->stored[number + i] = puts[i].append.outcome == JOURNAL_STORED;
        }
        publish_some(run);
    }
    journal_close(&f->journal);
    return true;
}

/* All that was stored is there, once; nothing pending or dead is lost; and the journal works. */
static void check_what_is_left(struct run *run)
{
    struct fixture *f = &run->f;
    start(f);
    assert_int_equal(ask(f, "SELECT count(*) = count(DISTINCT key) FROM events"), 1);
    struct put puts[RUN_EVENTS];
    post(f, puts, 1, run->events, RUN_BODY);
    await(f, puts, run->events);
    for (uint64_t number = 1; number <= run->events; number++) {
        enum journal_outcome outcome = puts[number - 1].append.outcome;
        if (run->stored[number]) {
            assert_int_equal(outcome, JOURNAL_DUPLICATE);
        } else {
            assert_int_not_equal(outcome, JOURNAL_REFUSED); /* a failed commit may have reached the disk after all */
        }
    }
    assert_int_equal(ask(f, "SELECT count(*) FROM events"), run->events);
    struct journal_state state = state_of(f);
    assert_true(state.cursor <= run->settled);
    assert_true(state.last_seq == run->events);
    if (run->buried > 0 && state.cursor >= run->buried) { /* J4 */
        char sql[100];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM dead WHERE seq = %llu", (unsigned long long)run->buried);
        assert_int_equal(ask(f, sql), 1);
    }
    assert_int_equal(ask(f, "SELECT (SELECT count(*) FROM dead) = dead FROM state"), 1);
    uint64_t seq = state.cursor;
    for (struct journal_event *list; (list = claim_some(f, 100));) {
        for (; list; list = list->next) {
            assert_int_equal(list->seq, ++seq);
        }
    }
    assert_int_equal(seq, run->events);
    WAIT_FOR(check_stretches(f) == (int64_t)run->events / 256);
}

static void begin_run(struct run *run, uint64_t events)
{
    *run = (struct run){.events = events};
    make_fixture(&run->f);
    /* A checkpoint each 256 KiB and merging each 512 KiB; an eighth of that in a small run. */
    run->f.options.max_bytes = events < RUN_EVENTS ? 1 << 19 : 4 << 20;
}

/* How many such operations a run makes that does not fail. */
static int64_t count_operations(int operations, uint64_t events)
{
    struct run run;
    begin_run(&run, events);
    plan(operations, 0, 0, 0);
    assert_true(run_through(&run));
    int64_t count = shim.count;
    check_what_is_left(&run);
    end(&run.f);
    return count;
}

static void fail_each(int operations, uint64_t events, int64_t step, int64_t fail_count, int error, int missing)
{
    int64_t count = count_operations(operations, events);
    assert_true(count > 0);
    for (int64_t at = 1; at <= count; at += step) {
        struct run run;
        begin_run(&run, events);
        plan(operations, at, fail_count, error);
        shim.missing = missing;
        run_through(&run);
        plan(0, 0, 0, 0);
        check_what_is_left(&run);
        end(&run.f);
    }
}

static void any_sync_may_fail_once(void **unused)
{
    (void)unused;
    fail_each(SYNC, RUN_EVENTS, 1, 1, SQLITE_IOERR_FSYNC, ALL_BYTES);
}

static void all_syncs_may_fail_from_any_on(void **unused)
{
    (void)unused;
    fail_each(SYNC, RUN_EVENTS, 3, INT64_MAX, SQLITE_IOERR_FSYNC, ALL_BYTES);
}

static void any_write_may_fail_once(void **unused)
{
    (void)unused;
    fail_each(WRITE, SMALL_RUN_EVENTS, 1, 1, SQLITE_IOERR_WRITE, ALL_BYTES);
}

static void any_write_may_be_short(void **unused)
{
    (void)unused;
    fail_each(WRITE, SMALL_RUN_EVENTS, 1, 1, SQLITE_FULL, 1);
    fail_each(WRITE, SMALL_RUN_EVENTS, 3, 1, SQLITE_IOERR_WRITE, 20);
    fail_each(WRITE, SMALL_RUN_EVENTS, 1, 1, SQLITE_FULL, 8192 + 10); /* within the header of the frame that commits */
    fail_each(WRITE, SMALL_RUN_EVENTS, 1, 1, SQLITE_IOERR_WRITE, 2 * (8192 + 24)); /* whole frames */
}

static void writes_of_a_longer_run_may_fail(void **unused)
{
    (void)unused;
    fail_each(WRITE, RUN_EVENTS, 41, 1, SQLITE_IOERR_WRITE, 4096);
}

static void the_disk_may_be_full_from_any_write_on(void **unused)
{
    (void)unused;
    fail_each(WRITE, SMALL_RUN_EVENTS, 1, INT64_MAX, SQLITE_FULL, ALL_BYTES);
    fail_each(WRITE, RUN_EVENTS, 53, INT64_MAX, SQLITE_FULL, 4096);
}

static void any_truncation_may_fail(void **unused)
{
    (void)unused;
    fail_each(TRUNCATE, RUN_EVENTS, 1, 1, SQLITE_IOERR_TRUNCATE, ALL_BYTES);
    fail_each(TRUNCATE, RUN_EVENTS, 1, INT64_MAX, SQLITE_IOERR_TRUNCATE, ALL_BYTES);
}

/* --- refusal and recovery --- */

static void a_full_disk_refuses_at_once_and_recovers_by_itself(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    f.before_note = check_sync;
    assert_int_equal(put_one(&f, 1), JOURNAL_STORED);
    uint64_t errors = metrics_get(METRIC_JOURNAL_COMMIT_ERRORS);
    plan(WRITE, 1, INT64_MAX, SQLITE_FULL);
    logged_errors = logged_infos = 0;
    struct put puts[3];
    post(&f, puts, 2, 3, 0);
    await(&f, puts, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(puts[i].append.outcome, JOURNAL_REFUSED);
        assert_string_equal(puts[i].why, "the journal's disk is full");
    }
    assert_int_equal(metrics_get(METRIC_JOURNAL_COMMIT_ERRORS) - errors, 1);
    struct error why;
    assert_int_equal(journal_ready(f.journal, &why), ERR_FULL);
    assert_string_equal(why.text, "the journal's disk is full");
    post(&f, puts, 2, 1, 0);
    assert_true(puts[0].is_done); /* before journal_append returned */
    assert_string_equal(puts[0].why, "the journal's disk is full");
    assert_int_equal(metrics_get(METRIC_JOURNAL_COMMIT_ERRORS) - errors, 1);
    WAIT_FOR(failed_operations() > 1); /* a probe failed, too */
    assert_int_equal(journal_ready(f.journal, &why), ERR_FULL);
    plan(0, 0, 0, 0);
    assert_int_equal(logged_infos, 0);
    WAIT_FOR(journal_ready(f.journal, &why) == ERR_NONE);
    WAIT_FOR(logged_infos == 1); /* once when it recovers, and once when it broke: */
    assert_int_equal(logged_errors, 1);
    assert_int_equal(put_one(&f, 2), JOURNAL_STORED); /* not taken for a duplicate of the refused one */
    assert_int_equal(put_one(&f, 1), JOURNAL_DUPLICATE);
    assert_int_equal(state_of(&f).last_seq, 2);
    assert_int_equal(drain(&f, 1, true), 2);
    end(&f);
}

static void a_failed_sync_refuses_with_what_the_disk_said(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    plan(SYNC, 1, 1, SQLITE_IOERR_FSYNC);
    struct put put;
    post(&f, &put, 1, 1, 0);
    await(&f, &put, 1);
    assert_int_equal(put.append.outcome, JOURNAL_REFUSED);
    assert_int_equal(strncmp(put.why, "the journal cannot be written: ", 31), 0);
    struct error why;
    assert_int_equal(journal_ready(f.journal, &why), ERR_IO);
    WAIT_FOR(journal_ready(f.journal, &why) == ERR_NONE);
    assert_int_equal(put_one(&f, 1), JOURNAL_STORED);
    end(&f);
}

static void burials_wait_for_the_disk_and_the_cursor_waits_for_them(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 1100, 0, JOURNAL_STORED);
    drain(&f, 1, false);
    plan(SYNC, 1, INT64_MAX, SQLITE_IOERR_FSYNC);
    struct error why;
    enum err code = ERR_NONE;
    uint64_t buried = 0;
    while (buried < 1100 && (code = journal_bury(f.journal, buried + 1, "refused", &why)) == ERR_NONE) {
        buried++;
    }
    assert_int_equal(code, ERR_BUSY);
    assert_int_equal(buried, 1024);
    journal_settle(f.journal, 1024);
    WAIT_FOR(journal_ready(f.journal, &why) == ERR_IO);
    WAIT_FOR(failed_operations() > 1);
    assert_int_equal(state_of(&f).dead, 0);
    plan(SYNC, 6, INT64_MAX, SQLITE_IOERR_FSYNC); /* the probe passes, and a few batches of burials */
    WAIT_FOR(failed_operations() > 0);
    assert_int_equal(ask(&f, "SELECT dead > 0 AND dead < 1024 AND cursor <= dead FROM state"), 1); /* J4: in order, from 1 */
    plan(0, 0, 0, 0);
    WAIT_FOR(state_of(&f).dead == 1024);
    WAIT_FOR(ask(&f, "SELECT cursor FROM state") == 1024);
    end(&f);
}

static void a_replay_that_the_disk_refuses_leaves_the_event_dead(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 3, 0, JOURNAL_STORED);
    claim_some(&f, 3);
    struct error why;
    assert_int_equal(journal_bury(f.journal, 2, "refused", &why), ERR_NONE);
    journal_settle(f.journal, 3);
    WAIT_FOR(state_of(&f).dead == 1);
    WAIT_FOR(ask(&f, "SELECT cursor FROM state") == 3);
    plan(WRITE | SYNC, 1, INT64_MAX, SQLITE_IOERR_WRITE);
    struct journal_replay replay = {.dead_only = true, .since_ms = INT64_MIN, .until_ms = INT64_MAX};
    assert_int_equal(journal_replay(f.journal, &replay, &why), ERR_IO);
    assert_int_equal(replay.replayed, 0);
    assert_int_equal(journal_ready(f.journal, &why), ERR_IO);
    assert_int_equal(journal_replay(f.journal, &replay, &why), ERR_IO); /* at once */
    assert_int_equal(state_of(&f).dead, 1);
    assert_null(claim_some(&f, 1));
    plan(0, 0, 0, 0);
    WAIT_FOR(journal_ready(f.journal, &why) == ERR_NONE);
    assert_int_equal(journal_replay(f.journal, &replay, &why), ERR_NONE);
    assert_int_equal(replay.replayed, 1);
    assert_int_equal(number_of(claim_some(&f, 1)), 2);
    assert_int_equal(ask(&f, "SELECT dead + (SELECT count(*) FROM dead) FROM state"), 0);
    end(&f);
}

static void closing_on_a_broken_disk_ends_and_loses_nothing(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 20, 0, JOURNAL_STORED);
    drain(&f, 1, false);
    plan(WRITE | SYNC, 1, INT64_MAX, SQLITE_IOERR_WRITE);
    struct error why;
    assert_int_equal(journal_bury(f.journal, 5, "refused", &why), ERR_NONE);
    journal_settle(f.journal, 20);
    journal_close(&f.journal);
    plan(0, 0, 0, 0);
    start(&f);
    assert_int_equal(state_of(&f).cursor, 0); /* behind the burial that was not kept */
    assert_int_equal(drain(&f, 1, true), 20);
    end(&f);
}

/* --- power cuts --- */

enum { RAN_TO_ITS_END = 77 };

/* In a child. run is shared with the parent, which sees what was stored until then. */
static _Noreturn void run_until_power_cut(struct run *run, int64_t at, bool half_arrives)
{
    shim.remembers = true;
    shim.cut_at = at;
    shim.half_arrives = half_arrives;
    run_through(run);
    _exit(RAN_TO_ITS_END);
}

/* True if the run had that many syncs. */
static bool cut_after_sync(int64_t at, bool half_arrives)
{
    struct run run;
    begin_run(&run, SMALL_RUN_EVENTS);
    struct run *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    *shared = run;
    shared->f.options.path = shared->f.path;
    pid_t child = fork();
    if (child == 0) {
        run_until_power_cut(shared, at, half_arrives);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == RAN_TO_ITS_END);
    memcpy(run.stored, shared->stored, sizeof run.stored);
    run.settled = shared->settled;
    run.buried = shared->buried;
    munmap(shared, sizeof *shared);
    check_what_is_left(&run);
    end(&run.f);
    return WEXITSTATUS(status) == 0;
}

static void all_that_was_stored_survives_a_power_cut_after_any_sync(void **unused)
{
    (void)unused;
    for (int half_arrives = 0; half_arrives < 2; half_arrives++) {
        int64_t at = 1;
        while (cut_after_sync(at, half_arrives)) {
            at++;
        }
        assert_true(at > SMALL_RUN_EVENTS / RUN_BATCH + 2); /* a sync for each batch, and those of checkpoints */
    }
}

/* --- a sync that fails and loses what it should have synced, and a power cut later --- */

static bool is_dirty(enum file_kind kind)
{
    pthread_mutex_lock(&shim.lock);
    bool is = shim.is_dirty[kind];
    pthread_mutex_unlock(&shim.lock);
    return is;
}

static void lose_at_next_sync(enum only only)
{
    plan(SYNC, 1, 1, SQLITE_IOERR_FSYNC);
    pthread_mutex_lock(&shim.lock);
    shim.only = only;
    pthread_mutex_unlock(&shim.lock);
}

/* Both in a child, which begins to remember before anything is written. */
static void live_until_power_cut(struct fixture *f, void (*live)(struct fixture *f))
{
    pid_t child = fork();
    if (child == 0) {
        shim.remembers = shim.loses = true;
        start(f);
        live(f);
        cut_power();
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

static bool is_writable_again(struct fixture *f)
{
    struct error why;
    return journal_ready(f->journal, &why) == ERR_NONE;
}

enum { TRIMMED = 300, BEHIND = 1001, BEHIND_COUNT = 10 };

/* Trimming commits lazily. */
static void publish_what_will_be_trimmed(struct fixture *f, bool is_expired)
{
    put_many(f, 1, TRIMMED, 0, JOURNAL_STORED);
    pass_time(is_expired ? 2 * f->options.retention_ms : 0);
    assert_int_equal(drain(f, 1, true), TRIMMED);
    WAIT_FOR(ask(f, "SELECT cursor FROM state") == TRIMMED);
}

static void lose_lazy_commits(struct fixture *f)
{
    publish_what_will_be_trimmed(f, true);
    WAIT_FOR(ask(f, "SELECT count(*) FROM events") == 0);
    assert_true(is_dirty(LOG)); /* in the log, and not synced */
    lose_at_next_sync(OF_FRAMES);
    assert_int_equal(put_one(f, BEHIND), JOURNAL_REFUSED);
    assert_int_equal(failed_operations(), 1);
    WAIT_FOR(is_writable_again(f));
    put_many(f, BEHIND, BEHIND_COUNT, 0, JOURNAL_STORED);
}

/* No webhook is refused when a checkpoint fails. */
static void lose_lazy_commits_by_a_checkpoint(struct fixture *f)
{
    publish_what_will_be_trimmed(f, false);
    lose_at_next_sync(OF_FRAMES);
    pass_time(2 * f->options.retention_ms);
    WAIT_FOR(failed_operations() == 1);
    assert_true(is_writable_again(f));
    put_many(f, BEHIND, BEHIND_COUNT, 0, JOURNAL_STORED);
}

static void check_what_was_stored_behind(void (*live)(struct fixture *f), int64_t max_bytes)
{
    struct fixture f;
    make_fixture(&f);
    f.options.max_bytes = max_bytes;
    live_until_power_cut(&f, live);
    start(&f);
    put_many(&f, BEHIND, BEHIND_COUNT, 0, JOURNAL_DUPLICATE);
    assert_int_equal(drain(&f, BEHIND, true), BEHIND_COUNT);
    assert_int_equal(ask(&f, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
    end(&f);
}

static void what_is_stored_behind_lazy_commits_that_a_failed_sync_lost_survives_a_power_cut(void **unused)
{
    (void)unused;
    check_what_was_stored_behind(lose_lazy_commits, 0);
}

static void what_is_stored_behind_lazy_commits_that_a_failed_checkpoint_lost_survives_a_power_cut(void **unused)
{
    (void)unused;
    check_what_was_stored_behind(lose_lazy_commits_by_a_checkpoint, 1 << 18); /* a checkpoint for each two pages */
}

/* Stores one after the other, and returns the last number. */
static uint64_t put_until(struct fixture *f, uint64_t stored, bool (*is_reached)(void))
{
    const int64_t deadline_us = real_us(CLOCK_MONOTONIC) + DEADLINE_MS * 1000;
    while (!is_reached() && real_us(CLOCK_MONOTONIC) < deadline_us) {
        put_many(f, ++stored, 1, 2 * RUN_BODY, JOURNAL_STORED);
        nap();
    }
    assert_true(is_reached());
    return stored;
}

static bool has_moved_unsynced(void)
{
    return is_dirty(DATABASE);
}

static bool has_failed(void)
{
    return failed_operations() > 0;
}

static int64_t starts_of_log(void)
{
    pthread_mutex_lock(&shim.lock);
    int64_t starts = shim.log_starts;
    pthread_mutex_unlock(&shim.lock);
    return starts;
}

static int64_t known_starts;

static bool has_begun_anew(void)
{
    return starts_of_log() > known_starts;
}

static uint64_t *stored_by_child; /* shared */

/* While a reader is in the way, a checkpoint moves what is before it and leaves that unsynced, for the next one to sync. */
static void lose_what_a_checkpoint_moved(struct fixture *f)
{
    sqlite3 *reader;
    put_many(f, 1, 20, 2 * RUN_BODY, JOURNAL_STORED);
    assert_int_equal(sqlite3_open_v2(f->path, &reader, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM events", NULL, NULL, NULL), SQLITE_OK);
    uint64_t stored = put_until(f, 20, has_moved_unsynced);
    lose_at_next_sync(OF_DATABASE);
    sqlite3_close(reader);
    stored = put_until(f, stored, has_failed);
    known_starts = starts_of_log();
    *stored_by_child = put_until(f, stored, has_begun_anew);
}

static void what_checkpoints_moved_and_a_failed_sync_lost_survives_a_power_cut(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    stored_by_child = mmap(NULL, sizeof *stored_by_child, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(stored_by_child != MAP_FAILED);
    live_until_power_cut(&f, lose_what_a_checkpoint_moved);
    assert_true(*stored_by_child > 20);
    start(&f);
    put_many(&f, 1, *stored_by_child, 0, JOURNAL_DUPLICATE);
    assert_int_equal(drain(&f, 1, true), *stored_by_child);
    assert_int_equal(ask(&f, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
    munmap(stored_by_child, sizeof *stored_by_child);
    end(&f);
}

/* --- a log that ends anywhere --- */

enum { CUT_EVENTS = 5, FRAME_HEAD = 24, LOG_HEAD = 32, PAGE = 8192 };

struct content {
    char *data;
    size_t size;
};

static struct content read_whole(const char *path)
{
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    struct stat info;
    assert_int_equal(fstat(fd, &info), 0);
    struct content whole = {malloc((size_t)info.st_size + 1), (size_t)info.st_size};
    assert_non_null(whole.data);
    assert_int_equal(read(fd, whole.data, whole.size), info.st_size);
    close(fd);
    return whole;
}

static void write_whole(const char *path, const char *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    close(fd);
}

/* What a power cut leaves: the database, and so much of the log. */
static void lay_out(struct fixture *f, const struct content *database, const struct content *log, size_t log_size)
{
    char log_path[160], shared_path[160];
    snprintf(log_path, sizeof log_path, "%s-wal", f->path);
    snprintf(shared_path, sizeof shared_path, "%s-shm", f->path);
    unlink(shared_path);
    write_whole(f->path, database->data, database->size);
    write_whole(log_path, log->data, log_size);
}

/* Every byte of what stands at a frame's borders; in the middle of a page, one of 211. */
static size_t next_cut(size_t at)
{
    if (at < LOG_HEAD) {
        return at + 1;
    }
    size_t in_frame = (at - LOG_HEAD) % (FRAME_HEAD + PAGE);
    return in_frame <= FRAME_HEAD + 1 || in_frame >= FRAME_HEAD + PAGE - 212 - 1 ? at + 1 : at + 211;
}

static void all_that_was_synced_survives_a_log_cut_at_any_length(void **unused)
{
    (void)unused;
    struct fixture f, cut;
    begin(&f);
    size_t synced[CUT_EVENTS]; /* the log's size when that event was said to be stored */
    char log_path[160];
    snprintf(log_path, sizeof log_path, "%s-wal", f.path);
    for (uint64_t number = 1; number <= CUT_EVENTS; number++) {
        put_many(&f, number, 1, number == 3 ? 20000 : 0, JOURNAL_STORED);
        struct stat info;
        assert_int_equal(stat(log_path, &info), 0);
        synced[number - 1] = (size_t)info.st_size;
        assert_true(number == 1 || synced[number - 1] > synced[number - 2]);
    }
    struct content database = read_whole(f.path), log = read_whole(log_path);
    assert_int_equal(log.size, synced[CUT_EVENTS - 1]);
    make_fixture(&cut);
    size_t cuts = 0;
    for (size_t at = 0; at <= log.size; at = at < log.size && next_cut(at) > log.size ? log.size : next_cut(at), cuts++) {
        lay_out(&cut, &database, &log, at);
        start(&cut);
        uint64_t expected = 0;
        while (expected < CUT_EVENTS && synced[expected] <= at) {
            expected++;
        }
        assert_int_equal(state_of(&cut).last_seq, expected);
        assert_int_equal(drain(&cut, 1, false), expected);
        journal_close(&cut.journal);
    }
    assert_true(cuts > 1000);
    free(database.data);
    free(log.data);
    end(&cut);
    end(&f);
}

static atomic_uint told_count;
static int told_fd;

static void tell(void *ctx, const struct journal_append *append)
{
    struct fixture *f = ctx;
    const struct put *put = (const struct put *)append;
    (void)f;
    uint64_t number = put->order; /* the child keeps it there */
    if (append->outcome == JOURNAL_STORED && number % 10 == 1) {
        if (write(told_fd, &number, sizeof number) != sizeof number) {
            _exit(1);
        }
        atomic_fetch_add(&told_count, 1);
    }
}

/* In a child: works for a while after something was stored, and then loses the power in the midst of it. */
static void *cut_later(void *ctx)
{
    while (atomic_load(&told_count) < 2) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    nanosleep(&(struct timespec){0, *(long *)ctx * 1000000}, NULL);
    cut_power();
}

static _Noreturn void work_until_power_cut(struct fixture *f, uint64_t first, long ms)
{
    pthread_t thread;
    shim.remembers = true;
    start(f);
    f->before_note = tell;
    if (pthread_create(&thread, NULL, cut_later, &ms) != 0) {
        _exit(1);
    }
    for (uint64_t number = first;; number += 10) {
        struct put puts[10];
        for (uint64_t i = 0; i < 10; i++) {
            puts[i] = (struct put){.append.event = make_event(number + i, RUN_BODY), .order = number + i};
            puts[i].append.next = i < 9 ? &puts[i + 1].append : NULL;
        }
        journal_append(f->journal, &puts[0].append);
        await(f, puts, 10);
        struct journal_event *list = claim_some(f, 8);
        struct error why;
        if (list && journal_bury(f->journal, list->seq, "refused", &why) == ERR_NONE) {
            journal_settle(f->journal, list->seq);
        }
    }
}

static void what_was_stored_survives_a_power_cut(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    f.options.max_bytes = 16 << 20;
    static bool stored[100000];
    uint64_t first = 1;
    for (long round = 0; round < 8; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0) {
            told_fd = pipes[1];
            work_until_power_cut(&f, first, 40 + round * 13);
        }
        close(pipes[1]);
        for (uint64_t number; read(pipes[0], &number, sizeof number) == sizeof number;) {
            assert_in_range(number, first, 99990);
            stored[number] = true;
        }
        close(pipes[0]);
        int status;
        waitpid(child, &status, 0);
        assert_int_equal(status, 0);
        start(&f);
        assert_int_equal(ask(&f, "SELECT count(*) = count(DISTINCT key) FROM events"), 1);
        assert_int_equal(ask(&f, "SELECT (SELECT count(*) FROM dead) = dead FROM state"), 1);
        uint64_t last = first;
        for (uint64_t number = 1; number < 100000; number += 10) {
            if (stored[number]) { /* a batch is stored whole, and told at once */
                put_many(&f, number, 10, 0, JOURNAL_DUPLICATE);
                last = number;
            }
        }
        assert_true(last > first); /* it did something */
        first = last + 1000;       /* what was under way may be there, too */
        journal_close(&f.journal);
    }
    end(&f);
}

#ifdef __SANITIZE_THREAD__
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        TEST(any_sync_may_fail_once),
        TEST(all_syncs_may_fail_from_any_on),
        TEST(any_write_may_fail_once),
        TEST(any_write_may_be_short),
        TEST(writes_of_a_longer_run_may_fail),
        TEST(the_disk_may_be_full_from_any_write_on),
        TEST(any_truncation_may_fail),
        TEST(a_full_disk_refuses_at_once_and_recovers_by_itself),
        TEST(a_failed_sync_refuses_with_what_the_disk_said),
        TEST(burials_wait_for_the_disk_and_the_cursor_waits_for_them),
        TEST(a_replay_that_the_disk_refuses_leaves_the_event_dead),
        TEST(closing_on_a_broken_disk_ends_and_loses_nothing),
        TEST(all_that_was_stored_survives_a_power_cut_after_any_sync),
        TEST(what_is_stored_behind_lazy_commits_that_a_failed_sync_lost_survives_a_power_cut),
        TEST(what_is_stored_behind_lazy_commits_that_a_failed_checkpoint_lost_survives_a_power_cut),
        TEST(what_checkpoints_moved_and_a_failed_sync_lost_survives_a_power_cut),
        TEST(all_that_was_synced_survives_a_log_cut_at_any_length),
        TEST(what_was_stored_survives_a_power_cut),
    };
    return cmocka_run_group_tests(tests, install, NULL);
}
