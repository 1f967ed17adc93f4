/* The way of log and database to their files, V1 to V8 of journal_vfs.h: alone, with frames made by the test, and under SQLite. */
#include "test.h"

#include "journal_vfs.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TEST(name) cmocka_unit_test(name)

enum { HEADER = 24, PAGE = 8192, FRAME = HEADER + PAGE, LOG_HEAD = 32, NEVER = -1 };

/* --- the default VFS beneath: it notes what reaches the files --- */

static struct {
    sqlite3_vfs vfs, *unix_vfs;
    sqlite3_io_methods log_methods, database_methods;
    const sqlite3_io_methods *originals; /* those that are overridden are the same for both */
    int writes;
    int last_size;
    sqlite3_int64 last_offset;
    int fail_in;            /* so many writes from now one fails; NEVER */
    int failing_syncs;      /* of the next ones */
    int largest;            /* write */
    bool watches_databases; /* else only one that a test opens by itself */
    int syncs;
    int writes_when_synced; /* how many there were at the last good sync */
    bool written[64];       /* each frame's place, or page, of which a byte was written; the last one: anywhere behind */
} beneath;

static int note_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    beneath.writes++;
    beneath.last_size = size;
    beneath.largest = size > beneath.largest ? size : beneath.largest;
    beneath.last_offset = offset;
    for (sqlite3_int64 at = offset; at < offset + size; at++) {
        const sqlite3_int64 place = at < LOG_HEAD ? 0 : (at - LOG_HEAD) / FRAME;
        beneath.written[place < 63 ? place : 63] = true;
    }
    if (beneath.fail_in >= 0 && beneath.fail_in-- == 0) {
        return SQLITE_IOERR_WRITE;
    }
    return beneath.originals->xWrite(file, data, size, offset);
}

static int note_sync(sqlite3_file *file, int flags)
{
    beneath.syncs++;
    if (beneath.failing_syncs > 0) {
        beneath.failing_syncs--;
        return SQLITE_IOERR_FSYNC;
    }
    beneath.writes_when_synced = beneath.writes;
    return beneath.originals->xSync(file, flags);
}

static void watch(sqlite3_file *file, sqlite3_io_methods *methods)
{
    beneath.originals = file->pMethods;
    *methods = *file->pMethods;
    methods->xWrite = note_write;
    methods->xSync = note_sync;
    file->pMethods = methods;
}

static int open_beneath(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)vfs;
    int status = beneath.unix_vfs->xOpen(beneath.unix_vfs, name, file, flags, out_flags);
    if (status == SQLITE_OK && flags & SQLITE_OPEN_WAL) {
        watch(file, &beneath.log_methods);
    }
    if (status == SQLITE_OK && (flags & SQLITE_OPEN_EXCLUSIVE || (flags & SQLITE_OPEN_MAIN_DB && beneath.watches_databases))) {
        watch(file, &beneath.database_methods);
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
    beneath.writes = beneath.syncs = 0;
    beneath.fail_in = NEVER;
    beneath.failing_syncs = 0;
    make_folder(log->dir, sizeof log->dir);
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

static void open_one(struct log *log, const char *path, int flags)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(vfs_register());
    assert_non_null(vfs);
    log->file = calloc(1, (size_t)vfs->szOsFile);
    flags |= SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    assert_int_equal(vfs->xOpen(vfs, path, log->file, flags, &flags), SQLITE_OK);
}

static void begin(struct log *log)
{
    make_place(log);
    fclose(fopen(log->database, "w"));
    open_one(log, log->path, SQLITE_OPEN_WAL);
}

static void close_one(struct log *log)
{
    assert_int_equal(log->file->pMethods->xClose(log->file), SQLITE_OK);
    free(log->file);
}

static void end(struct log *log)
{
    close_one(log);
    remove_place(log);
}

static int sync_one(struct log *log)
{
    return log->file->pMethods->xSync(log->file, SQLITE_SYNC_NORMAL);
}

static void forget_writes(void)
{
    beneath.writes = 0;
    memset(beneath.written, 0, sizeof beneath.written);
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

/* V5. */
static void what_a_failed_sync_left_is_written_again_before_the_next(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    put_head(&log);
    for (int frame = 0; frame < 20; frame++) {
        assert_int_equal(put_frame(&log, frame, true, 'a'), SQLITE_OK);
    }
    assert_int_equal(sync_one(&log), SQLITE_OK);
    for (int frame = 20; frame < 40; frame++) {
        assert_int_equal(put_frame(&log, frame, true, 'b'), SQLITE_OK);
    }
    beneath.failing_syncs = 2;
    assert_int_equal(sync_one(&log), SQLITE_IOERR_FSYNC);
    assert_int_equal(put_frame(&log, 39, true, 'c'), SQLITE_OK); /* that commit anew */
    assert_int_equal(sync_one(&log), SQLITE_IOERR_FSYNC);
    beneath.fail_in = 5;
    assert_int_equal(sync_one(&log), SQLITE_IOERR_WRITE);
    forget_writes();
    assert_int_equal(sync_one(&log), SQLITE_OK);
    assert_true(beneath.writes > 0);
    assert_int_equal(beneath.writes_when_synced, beneath.writes);
    for (int frame = 0; frame < 40; frame++) {
        assert_true(beneath.written[frame] == (frame >= 19)); /* 19 shares a block with 20 */
        assert_int_equal(mark_of(&log, frame), frame < 20 ? 'a' : frame < 39 ? 'b' : 'c');
    }
    assert_int_equal(size_of(&log), place_of(40));
    forget_writes();
    assert_int_equal(sync_one(&log), SQLITE_OK);
    assert_int_equal(beneath.writes, 0);
    end(&log);
}

static void what_was_cut_off_is_not_written_again(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    put_head(&log);
    for (int frame = 0; frame < 6; frame++) {
        assert_int_equal(put_frame(&log, frame, true, 'a'), SQLITE_OK);
    }
    beneath.failing_syncs = 1;
    assert_int_equal(sync_one(&log), SQLITE_IOERR_FSYNC);
    assert_int_equal(log.file->pMethods->xTruncate(log.file, place_of(2)), SQLITE_OK);
    assert_int_equal(sync_one(&log), SQLITE_OK);
    assert_int_equal(size_of(&log), place_of(2));
    assert_int_equal(mark_of(&log, 1), 'a');
    end(&log);
}

/* V5: of a large database, what was written and no more. */
static void pages_that_a_failed_sync_left_are_written_again_before_the_next(void **unused)
{
    (void)unused;
    struct log log;
    char page[PAGE], read[PAGE];
    static const sqlite3_int64 places[] = {700000, 3, 9, 8};
    make_place(&log);
    open_one(&log, log.database, SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_EXCLUSIVE);
    memset(page, 'p', sizeof page);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(put(&log, page, PAGE, places[i] * PAGE), SQLITE_OK);
    }
    beneath.failing_syncs = 1;
    assert_int_equal(sync_one(&log), SQLITE_IOERR_FSYNC);
    assert_int_equal(put(&log, page, PAGE, 5 * PAGE), SQLITE_OK);
    forget_writes();
    assert_int_equal(sync_one(&log), SQLITE_OK);
    assert_int_equal(beneath.writes, 5);
    assert_int_equal(beneath.writes_when_synced, 5);
    assert_int_equal(beneath.last_offset, places[0] * PAGE);
    assert_int_equal(log.file->pMethods->xRead(log.file, read, PAGE, places[0] * PAGE), SQLITE_OK);
    assert_memory_equal(read, page, PAGE);
    forget_writes();
    assert_int_equal(put(&log, page, PAGE, 0), SQLITE_OK);
    assert_int_equal(sync_one(&log), SQLITE_OK);
    assert_int_equal(beneath.writes, 1);
    end(&log);
}

/* --- pages that a checkpoint moves --- */

static void begin_pages(struct log *log)
{
    make_place(log);
    open_one(log, log->database, SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_EXCLUSIVE);
    forget_writes();
}

static void tell(struct log *log, int operation)
{
    log->file->pMethods->xFileControl(log->file, operation, NULL);
}

static int put_database_page(struct log *log, int page, char letter)
{
    char bytes[PAGE];
    memset(bytes, letter, sizeof bytes);
    return put(log, bytes, PAGE, (sqlite3_int64)page * PAGE);
}

static char letter_of(struct log *log, int page)
{
    char bytes[PAGE];
    assert_int_equal(log->file->pMethods->xRead(log->file, bytes, PAGE, (sqlite3_int64)page * PAGE), SQLITE_OK);
    for (int i = 1; i < PAGE; i++) {
        assert_int_equal(bytes[i], bytes[0]);
    }
    return bytes[0];
}

static void neighbouring_pages_of_a_checkpoint_are_one_write(void **unused)
{
    (void)unused;
    struct log log;
    static const int pages[] = {0, 1, 2, 3, 7, 8, 20};
    begin_pages(&log);
    tell(&log, SQLITE_FCNTL_CKPT_START);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(put_database_page(&log, pages[i], (char)('a' + i)), SQLITE_OK);
    }
    tell(&log, SQLITE_FCNTL_CKPT_DONE);
    assert_int_equal(beneath.writes, 3);
    assert_int_equal(beneath.last_offset, 20 * PAGE);
    tell(&log, SQLITE_FCNTL_CKPT_START);
    for (int page = 30; page < 60; page++) {
        assert_int_equal(put_database_page(&log, page, 'z'), SQLITE_OK);
    }
    tell(&log, SQLITE_FCNTL_CKPT_DONE);
    assert_int_equal(beneath.writes, 5); /* 15 pages are the most that one write may have */
    for (int i = 0; i < 7; i++) {
        assert_int_equal(letter_of(&log, pages[i]), 'a' + i);
    }
    assert_int_equal(letter_of(&log, 30), 'z');
    assert_int_equal(letter_of(&log, 59), 'z');
    end(&log);
}

static void pages_of_no_checkpoint_are_written_at_once(void **unused)
{
    (void)unused;
    struct log log;
    begin_pages(&log);
    assert_int_equal(put_database_page(&log, 0, 'a'), SQLITE_OK);
    assert_int_equal(put_database_page(&log, 1, 'b'), SQLITE_OK);
    assert_int_equal(beneath.writes, 2);
    end(&log);
}

/* V4: SQLite gives up that checkpoint, and moves them again with the next one. */
static void a_checkpoint_hears_of_a_failed_write_while_it_moves(void **unused)
{
    (void)unused;
    struct log log;
    begin_pages(&log);
    tell(&log, SQLITE_FCNTL_CKPT_START);
    assert_int_equal(put_database_page(&log, 1, 'a'), SQLITE_OK);
    beneath.fail_in = 0;
    assert_int_equal(put_database_page(&log, 5, 'b'), SQLITE_IOERR_WRITE);
    tell(&log, SQLITE_FCNTL_CKPT_DONE);
    assert_int_equal(beneath.writes, 1);
    tell(&log, SQLITE_FCNTL_CKPT_START);
    assert_int_equal(put_database_page(&log, 1, 'c'), SQLITE_OK);
    assert_int_equal(put_database_page(&log, 5, 'd'), SQLITE_OK);
    tell(&log, SQLITE_FCNTL_CKPT_DONE);
    assert_int_equal(letter_of(&log, 1), 'c');
    assert_int_equal(letter_of(&log, 5), 'd');
    end(&log);
}

/* V7: SQLite takes no answer to that all is moved; the cut that follows is heard. */
static void what_a_checkpoint_could_not_write_at_its_end_fails_its_cut(void **unused)
{
    (void)unused;
    struct log log;
    begin_pages(&log);
    tell(&log, SQLITE_FCNTL_CKPT_START);
    assert_int_equal(put_database_page(&log, 0, 'a'), SQLITE_OK);
    beneath.fail_in = 0;
    tell(&log, SQLITE_FCNTL_CKPT_DONE);
    assert_int_equal(log.file->pMethods->xTruncate(log.file, PAGE), SQLITE_IOERR_WRITE);
    tell(&log, SQLITE_FCNTL_CKPT_START);
    assert_int_equal(put_database_page(&log, 0, 'b'), SQLITE_OK);
    tell(&log, SQLITE_FCNTL_CKPT_DONE);
    assert_int_equal(log.file->pMethods->xTruncate(log.file, PAGE), SQLITE_OK);
    assert_int_equal(letter_of(&log, 0), 'b');
    end(&log);
}

/* V8. */
static void a_log_is_synced_once(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    put_head(&log);
    assert_int_equal(put_frame(&log, 0, true, 'a'), SQLITE_OK);
    assert_int_equal(sync_one(&log), SQLITE_OK);
    assert_int_equal(sync_one(&log), SQLITE_OK);
    assert_int_equal(beneath.syncs, 1);
    assert_int_equal(put_frame(&log, 1, true, 'b'), SQLITE_OK);
    beneath.failing_syncs = 1;
    assert_int_equal(sync_one(&log), SQLITE_IOERR_FSYNC);
    assert_int_equal(sync_one(&log), SQLITE_OK);
    assert_int_equal(sync_one(&log), SQLITE_OK);
    assert_int_equal(beneath.syncs, 3);
    end(&log);
}

/* V6. */
static void a_log_that_was_there_is_written_again_before_its_first_sync(void **unused)
{
    (void)unused;
    struct log log;
    begin(&log);
    put_head(&log);
    for (int frame = 0; frame < 10; frame++) {
        assert_int_equal(put_frame(&log, frame, true, 'a'), SQLITE_OK);
    }
    beneath.failing_syncs = 1;
    assert_int_equal(sync_one(&log), SQLITE_IOERR_FSYNC);
    close_one(&log);
    open_one(&log, log.path, SQLITE_OPEN_WAL);
    assert_int_equal(put_frame(&log, 10, true, 'b'), SQLITE_OK);
    forget_writes();
    assert_int_equal(sync_one(&log), SQLITE_OK);
    assert_int_equal(beneath.writes_when_synced, beneath.writes);
    for (int frame = 0; frame < 11; frame++) {
        assert_true(beneath.written[frame]);
        assert_int_equal(mark_of(&log, frame), frame < 10 ? 'a' : 'b');
    }
    forget_writes();
    assert_int_equal(sync_one(&log), SQLITE_OK);
    assert_int_equal(beneath.writes, 0);
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
    sqlite3 *reader = open_database(&log, "unix"), *holder = open_database(&log, "unix");
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
        if (round % 50 == 20) { /* keeps the next checkpoint from what follows, and its end from a cut and a sync */
            run(holder, "BEGIN");
            assert_int_equal(ask(holder, "SELECT total(value) FROM t"), sum);
        } else if (round % 50 == 25) {
            run(writer, "PRAGMA wal_checkpoint(PASSIVE)");
            assert_int_equal(ask(reader, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
        } else if (round % 50 == 30) {
            run(holder, "COMMIT");
        }
        if (round % 50 == 49) {
            assert_int_equal(ask(reader, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
            run(writer, "PRAGMA wal_checkpoint(PASSIVE)");
        }
    }
    assert_true(sum > 10000);
    sqlite3_close(holder);
    sqlite3_close(reader);
    sqlite3_close(writer);
    writer = open_database(&log, "unix");
    assert_int_equal(ask(writer, "SELECT total(value) FROM t"), sum);
    sqlite3_close(writer);
    remove_place(&log);
}

/* Rows that are in the log and not moved yet, after some that are; then, if a reader is to hold the checkpoint up, more of them. */
static sqlite3 *open_with_rows(const struct log *log, sqlite3 *holder)
{
    beneath.watches_databases = true;
    sqlite3 *writer = open_database(log, vfs_register());
    beneath.watches_databases = false;
    run(writer, "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;"
                "CREATE TABLE t(id INTEGER PRIMARY KEY, filler BLOB); INSERT INTO t(filler) VALUES(randomblob(3000));"
                "PRAGMA wal_checkpoint(PASSIVE); INSERT INTO t(filler) VALUES(randomblob(9000))");
    if (holder) {
        run(holder, "BEGIN");
        assert_int_equal(ask(holder, "SELECT count(*) FROM t"), 2);
        run(writer, "INSERT INTO t(filler) VALUES(randomblob(9000))");
    }
    forget_writes();
    beneath.largest = 0;
    return writer;
}

/* V7: whichever write of a checkpoint fails, the checkpoint says so, and all that was committed is there for everybody. */
static void any_write_of_a_checkpoint_may_fail(bool is_held_up)
{
    int status = SQLITE_IOERR, fails = 0;
    for (; status != SQLITE_OK; fails++) {
        struct log log;
        make_place(&log);
        sqlite3 *holder = open_database(&log, "unix"), *writer = open_with_rows(&log, is_held_up ? holder : NULL);
        beneath.fail_in = fails;
        status = sqlite3_wal_checkpoint_v2(writer, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        const bool has_failed = beneath.fail_in < 0;
        beneath.fail_in = NEVER;
        assert_int_equal(status, has_failed ? SQLITE_IOERR : SQLITE_OK);
        if (is_held_up) {
            assert_int_equal(beneath.largest, 1024);
            assert_int_equal(ask(holder, "SELECT count(*) FROM t"), 2);
            run(holder, "COMMIT");
        } else if (!has_failed) {
            assert_true(beneath.largest > 1024);
        }
        const int rows = is_held_up ? 3 : 2;
        assert_int_equal(ask(holder, "SELECT count(*) FROM t"), rows);
        assert_int_equal(ask(holder, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
        run(writer, "INSERT INTO t(filler) VALUES(randomblob(9000))");
        beneath.largest = 0;
        run(writer, "PRAGMA wal_checkpoint(PASSIVE)"); /* a whole one */
        assert_true(beneath.largest > 1024);
        run(writer, "INSERT INTO t(filler) VALUES(randomblob(100))"); /* into a log that began anew */
        assert_int_equal(ask(holder, "SELECT count(*) FROM t"), rows + 2);
        assert_int_equal(ask(holder, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
        sqlite3_close(holder);
        sqlite3_close(writer);
        remove_place(&log);
    }
    assert_in_range(fails, is_held_up ? 10 : 2, 30);
}

static void any_write_of_a_whole_checkpoint_may_fail(void **unused)
{
    (void)unused;
    any_write_of_a_checkpoint_may_fail(false);
}

static void any_write_of_a_checkpoint_that_a_reader_holds_up_may_fail(void **unused)
{
    (void)unused;
    any_write_of_a_checkpoint_may_fail(true);
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
        TEST(what_a_failed_sync_left_is_written_again_before_the_next),
        TEST(what_was_cut_off_is_not_written_again),
        TEST(pages_that_a_failed_sync_left_are_written_again_before_the_next),
        TEST(neighbouring_pages_of_a_checkpoint_are_one_write),
        TEST(pages_of_no_checkpoint_are_written_at_once),
        TEST(a_checkpoint_hears_of_a_failed_write_while_it_moves),
        TEST(what_a_checkpoint_could_not_write_at_its_end_fails_its_cut),
        TEST(a_log_is_synced_once),
        TEST(a_log_that_was_there_is_written_again_before_its_first_sync),
        TEST(others_see_each_commit_at_once),
        TEST(any_write_of_a_whole_checkpoint_may_fail),
        TEST(any_write_of_a_checkpoint_that_a_reader_holds_up_may_fail),
        TEST(a_synced_commit_is_one_write),
    };
    return cmocka_run_group_tests(tests, install, NULL);
}
