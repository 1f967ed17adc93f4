/* The log's way to its file, V1 to V4 of journal_vfs.h: alone, with frames made by the test, and under SQLite. */
#include "test.h"

#include "journal_vfs.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TEST(name) cmocka_unit_test(name)

enum { HEADER = 24, PAGE = 8192, FRAME = HEADER + PAGE, LOG_HEAD = 32, NEVER = -1 };

/* --- the default VFS beneath: it notes what reaches the log's file --- */

static struct {
    sqlite3_vfs vfs, *unix_vfs;
    sqlite3_io_methods methods;
    const sqlite3_io_methods *originals;
    int writes;
    int last_size;
    sqlite3_int64 last_offset;
    int fail_in; /* so many writes from now one fails; NEVER */
} beneath;

static int note_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    beneath.writes++;
    beneath.last_size = size;
    beneath.last_offset = offset;
    if (beneath.fail_in >= 0 && beneath.fail_in-- == 0) {
        return SQLITE_IOERR_WRITE;
    }
    return beneath.originals->xWrite(file, data, size, offset);
}

static int open_beneath(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)vfs;
    int status = beneath.unix_vfs->xOpen(beneath.unix_vfs, name, file, flags, out_flags);
    if (status == SQLITE_OK && flags & SQLITE_OPEN_WAL) {
        beneath.originals = file->pMethods;
        beneath.methods = *file->pMethods;
        beneath.methods.xWrite = note_write;
        file->pMethods = &beneath.methods;
    }
    return status;
}

static int install(void **unused)
{
    (void)unused;
    beneath.unix_vfs = sqlite3_vfs_find(NULL);
    beneath.vfs = *beneath.unix_vfs;
    beneath.vfs.zName = "beneath";
    beneath.vfs.xOpen = open_beneath;
    return sqlite3_vfs_register(&beneath.vfs, 1);
}

/* --- a log --- */

struct log {
    char dir[64], database[80], path[96];
    sqlite3_file *file;
};

static void make_place(struct log *log)
{
    beneath.writes = 0;
    beneath.fail_in = NEVER;
    snprintf(log->dir, sizeof log->dir, "/tmp/meowbridge-test-XXXXXX");
    assert_non_null(mkdtemp(log->dir));
    snprintf(log->database, sizeof log->database, "%s/db", log->dir);
    snprintf(log->path, sizeof log->path, "%s/db-wal", log->dir);
}

static void remove_place(struct log *log)
{
    char path[96];
    unlink(log->database);
    unlink(log->path);
    snprintf(path, sizeof path, "%s/db-shm", log->dir);
    unlink(path);
    rmdir(log->dir);
}

static void begin(struct log *log)
{
    make_place(log);
    fclose(fopen(log->database, "w"));
    sqlite3_vfs *vfs = sqlite3_vfs_find(vfs_register());
    assert_non_null(vfs);
    log->file = calloc(1, (size_t)vfs->szOsFile);
    int flags = SQLITE_OPEN_WAL | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    assert_int_equal(vfs->xOpen(vfs, log->path, log->file, flags, &flags), SQLITE_OK);
}

static void end(struct log *log)
{
    assert_int_equal(log->file->pMethods->xClose(log->file), SQLITE_OK);
    free(log->file);
    remove_place(log);
}

static int put(struct log *log, const void *data, int size, sqlite3_int64 offset)
{
    return log->file->pMethods->xWrite(log->file, data, size, offset);
}

static void put_head(struct log *log)
{
    static const char head[LOG_HEAD] = "head";
    assert_int_equal(put(log, head, sizeof head, 0), SQLITE_OK);
}

static sqlite3_int64 place_of(int frame)
{
    return LOG_HEAD + (sqlite3_int64)frame * FRAME;
}

static int put_frame_header(struct log *log, int frame, bool commits)
{
    char header[HEADER] = {0, 0, 0, (char)(frame + 1)};
    header[7] = commits;
    return put(log, header, sizeof header, place_of(frame));
}

static int put_page(struct log *log, int frame, int mark)
{
    char page[PAGE];
    memset(page, mark, sizeof page);
    return put(log, page, sizeof page, place_of(frame) + HEADER);
}

/* Its page is filled with mark. */
static int put_frame(struct log *log, int frame, bool commits, int mark)
{
    int status = put_frame_header(log, frame, commits);
    return status == SQLITE_OK ? put_page(log, frame, mark) : status;
}

/* By another way than SQLite's. */
static size_t size_of(const struct log *log)
{
    FILE *file = fopen(log->path, "r");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    fclose(file);
    return (size_t)size;
}

/* The mark of that frame's page as it is in the file. */
static int mark_of(const struct log *log, int frame)
{
    FILE *file = fopen(log->path, "r");
    assert_non_null(file);
    static char page[PAGE];
    assert_int_equal(fseek(file, place_of(frame) + HEADER, SEEK_SET), 0);
    assert_int_equal(fread(page, 1, PAGE, file), PAGE);
    fclose(file);
    for (int i = 1; i < PAGE; i++) {
        assert_int_equal(page[i], page[0]);
    }
    return page[0];
}

/* --- alone --- */

static void the_frames_of_a_commit_are_one_write(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    put_head(&log);
    beneath.writes = 0;
    for (int frame = 0; frame < 6; frame++) {
        assert_int_equal(put_frame(&log, frame, frame == 5, 'a' + frame), SQLITE_OK);
    }
    assert_int_equal(beneath.writes, 1);
    assert_int_equal(beneath.last_offset, LOG_HEAD);
    assert_int_equal(beneath.last_size, 6 * FRAME);
    for (int frame = 0; frame < 6; frame++) {
        assert_int_equal(mark_of(&log, frame), 'a' + frame);
    }
    end(&log);
}

static void a_commit_is_in_the_file_before_anything_is_synced(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    put_head(&log);
    for (int frame = 0; frame < 5; frame++) { /* commits of one frame each, and no sync */
        assert_int_equal(put_frame(&log, frame, true, 'a'), SQLITE_OK);
        assert_int_equal(size_of(&log), place_of(frame + 1));
    }
    assert_int_equal(put_frame(&log, 5, false, 'b'), SQLITE_OK);
    assert_int_equal(size_of(&log), place_of(5)); /* this one is of no commit yet */
    assert_int_equal(put_frame(&log, 6, true, 'c'), SQLITE_OK);
    assert_int_equal(size_of(&log), place_of(7));
    end(&log);
}

static void a_log_that_goes_on_after_a_start_is_gathered_from_its_second_write_on(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    for (int frame = 10; frame < 14; frame++) {
        assert_int_equal(put_frame(&log, frame, frame == 13, 'a'), SQLITE_OK);
    }
    assert_int_equal(beneath.writes, 3); /* the first frame in its two pieces */
    assert_int_equal(size_of(&log), place_of(14));
    end(&log);
}

static void a_transaction_of_any_size_arrives_whole(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    put_head(&log);
    beneath.writes = 0;
    for (int frame = 0; frame < 100; frame++) {
        assert_int_equal(put_frame(&log, frame, frame == 99, frame), SQLITE_OK);
        assert_true(frame == 0 || beneath.last_size < 128 * 1024);
    }
    assert_in_range(beneath.writes, 7, 9);
    for (int frame = 0; frame < 100; frame++) {
        assert_int_equal(mark_of(&log, frame), frame);
    }
    end(&log);
}

/* V2, for each operation that finds the file. */
static void whatever_looks_at_the_file_finds_it_whole(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    put_head(&log);
    char page[PAGE];
    sqlite3_int64 size;
    const sqlite3_io_methods *methods = log.file->pMethods;
    assert_int_equal(put_frame(&log, 0, false, 'a'), SQLITE_OK);
    assert_int_equal(methods->xRead(log.file, page, PAGE, place_of(0) + HEADER), SQLITE_OK);
    assert_int_equal(page[PAGE - 1], 'a');
    assert_int_equal(put_frame(&log, 1, false, 'b'), SQLITE_OK);
    assert_int_equal(methods->xFileSize(log.file, &size), SQLITE_OK);
    assert_int_equal(size, place_of(2));
    assert_int_equal(put_frame(&log, 2, false, 'c'), SQLITE_OK);
    assert_int_equal(methods->xSync(log.file, SQLITE_SYNC_NORMAL), SQLITE_OK);
    assert_int_equal(size_of(&log), place_of(3));
    assert_int_equal(put_frame(&log, 3, false, 'd'), SQLITE_OK);
    assert_int_equal(methods->xTruncate(log.file, place_of(1)), SQLITE_OK);
    assert_int_equal(size_of(&log), place_of(1));
    assert_int_equal(put_frame_header(&log, 1, false), SQLITE_OK);
    assert_int_equal(methods->xSync(log.file, SQLITE_SYNC_NORMAL), SQLITE_OK);
    assert_int_equal(put_page(&log, 1, 'e'), SQLITE_OK); /* its header was synced without it */
    assert_int_equal(put_frame(&log, 2, true, 'f'), SQLITE_OK);
    assert_int_equal(mark_of(&log, 1), 'e');
    assert_int_equal(mark_of(&log, 2), 'f');
    assert_int_equal(size_of(&log), place_of(3)); /* what was cut off did not come back */
    end(&log);
}

static void what_is_written_elsewhere_is_written_at_once_and_in_order(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    put_head(&log);
    assert_int_equal(put_frame(&log, 0, false, 'a'), SQLITE_OK);
    assert_int_equal(put_frame(&log, 1, false, 'b'), SQLITE_OK);
    assert_int_equal(put_page(&log, 0, 'c'), SQLITE_OK); /* the page changed once more */
    assert_int_equal(mark_of(&log, 0), 'c');
    assert_int_equal(mark_of(&log, 1), 'b');
    assert_int_equal(put_frame(&log, 2, true, 'd'), SQLITE_OK);
    assert_int_equal(mark_of(&log, 2), 'd');
    int writes = beneath.writes;
    for (int frame = 0; frame < 3; frame++) { /* the checksums anew, up to the commit, which is then shown without a sync */
        assert_int_equal(put_frame_header(&log, frame, frame == 2), SQLITE_OK);
        assert_int_equal(beneath.writes, ++writes);
    }
    end(&log);
}

/* V4. */
static void a_failed_write_is_reported_and_its_place_is_written_anew(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    put_head(&log);
    assert_int_equal(put_frame(&log, 0, true, 'a'), SQLITE_OK);
    beneath.fail_in = 0;
    assert_int_equal(put_frame(&log, 1, false, 'b'), SQLITE_OK);
    assert_int_equal(put_frame(&log, 2, true, 'c'), SQLITE_IOERR_WRITE); /* by the operation that made it a commit */
    assert_int_equal(size_of(&log), place_of(1));
    assert_int_equal(log.file->pMethods->xSync(log.file, SQLITE_SYNC_NORMAL), SQLITE_OK);
    assert_int_equal(size_of(&log), place_of(1)); /* forgotten */
    assert_int_equal(put_frame(&log, 1, true, 'd'), SQLITE_OK);
    assert_int_equal(mark_of(&log, 1), 'd');
    assert_int_equal(size_of(&log), place_of(2));
    assert_int_equal(put_frame(&log, 2, false, 'e'), SQLITE_OK);
    beneath.fail_in = 0;
    assert_int_equal(log.file->pMethods->xSync(log.file, SQLITE_SYNC_NORMAL), SQLITE_IOERR_WRITE);
    assert_int_equal(put_frame(&log, 2, true, 'f'), SQLITE_OK);
    assert_int_equal(mark_of(&log, 2), 'f');
    end(&log);
}

static void what_was_rolled_back_is_overwritten(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    put_head(&log);
    assert_int_equal(put_frame(&log, 0, true, 'a'), SQLITE_OK);
    assert_int_equal(put_frame(&log, 1, false, 'b'), SQLITE_OK); /* spilled, then rolled back */
    assert_int_equal(put_frame(&log, 2, false, 'c'), SQLITE_OK);
    assert_int_equal(put_frame(&log, 1, false, 'd'), SQLITE_OK);
    assert_int_equal(put_frame(&log, 2, true, 'e'), SQLITE_OK);
    assert_int_equal(mark_of(&log, 1), 'd');
    assert_int_equal(mark_of(&log, 2), 'e');
    put_head(&log); /* and from the start */
    assert_int_equal(put_frame(&log, 0, true, 'f'), SQLITE_OK);
    assert_int_equal(mark_of(&log, 0), 'f');
    end(&log);
}

/* --- under SQLite --- */

static sqlite3 *open_database(const struct log *log, const char *vfs)
{
    sqlite3 *handle;
    assert_int_equal(sqlite3_open_v2(log->database, &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs), SQLITE_OK);
    return handle;
}

static void run(sqlite3 *handle, const char *sql)
{
    if (sqlite3_exec(handle, sql, NULL, NULL, NULL) != SQLITE_OK) {
        fail_msg("%s: %s", sql, sqlite3_errmsg(handle));
    }
}

static sqlite3_int64 ask(sqlite3 *handle, const char *sql)
{
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_prepare_v2(handle, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    sqlite3_int64 value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

/* Commits of all sizes, synced or not, with spilled caches, pages that change once more after that, rollbacks and checkpoints:
 * another connection, which does not know of this VFS, sees each at once and whole. */
static void others_see_each_commit_at_once(void **unused)
{
    (void)unused;
    struct log log;
    make_place(&log);
    sqlite3 *writer = open_database(&log, vfs_register());
    run(writer, "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; PRAGMA cache_size = 10; PRAGMA wal_autocheckpoint = 0;"
                "CREATE TABLE t(id INTEGER PRIMARY KEY, value INTEGER, filler BLOB)");
    sqlite3 *reader = open_database(&log, "unix");
    sqlite3_int64 sum = 0;
    for (unsigned round = 0, random = 1; round < 400; round++) {
        random = random * 1103515245 + 12345;
        const unsigned rows = 1 + (random >> 16) % 60, which = (random >> 24) % 8;
        char sql[400];
        snprintf(
            sql, sizeof sql,
            "PRAGMA synchronous = %s; BEGIN IMMEDIATE;"
            "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %u)"
            " INSERT INTO t(value, filler) SELECT i, randomblob(300) FROM n; UPDATE t SET value = value + 1 WHERE id %% 7 = %u",
            which < 4 ? "FULL" : "NORMAL", rows, random % 7);
        run(writer, sql);
        sqlite3_int64 mine = ask(writer, "SELECT total(value) FROM t");
        run(writer, which == 3 || which == 7 ? "ROLLBACK" : "COMMIT");
        sum = which == 3 || which == 7 ? sum : mine;
        assert_int_equal(ask(reader, "SELECT total(value) FROM t"), sum);
        if (round % 50 == 49) {
            assert_int_equal(ask(reader, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
            run(writer, "PRAGMA wal_checkpoint(PASSIVE)");
        }
    }
    assert_true(sum > 10000);
    sqlite3_close(reader);
    sqlite3_close(writer);
    writer = open_database(&log, "unix");
    assert_int_equal(ask(writer, "SELECT total(value) FROM t"), sum);
    sqlite3_close(writer);
    remove_place(&log);
}

static void a_synced_commit_is_one_write(void **unused)
{
    (void)unused;
    struct log log;
    make_place(&log);
    sqlite3 *writer = open_database(&log, vfs_register());
    run(writer,
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t(id INTEGER PRIMARY "
        "KEY, filler BLOB)");
    beneath.writes = 0;
    for (int commit = 0; commit < 20; commit++) {
        run(writer, "BEGIN; INSERT INTO t(filler) VALUES(randomblob(6000)), (randomblob(6000)), (randomblob(6000)); COMMIT");
    }
    assert_int_equal(beneath.writes, 20);
    sqlite3_close(writer);
    remove_place(&log);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        TEST(the_frames_of_a_commit_are_one_write),
        TEST(a_commit_is_in_the_file_before_anything_is_synced),
        TEST(a_log_that_goes_on_after_a_start_is_gathered_from_its_second_write_on),
        TEST(a_transaction_of_any_size_arrives_whole),
        TEST(whatever_looks_at_the_file_finds_it_whole),
        TEST(what_is_written_elsewhere_is_written_at_once_and_in_order),
        TEST(a_failed_write_is_reported_and_its_place_is_written_anew),
        TEST(what_was_rolled_back_is_overwritten),
        TEST(others_see_each_commit_at_once),
        TEST(a_synced_commit_is_one_write),
    };
    return cmocka_run_group_tests(tests, install, NULL);
}
