/* What the journal's tests share: a journal in a directory of its own, hooks that note what they are told, and a clock that
 * can be moved. Every wait has a deadline. */
#ifndef JOURNAL_FIXTURE_H
#define JOURNAL_FIXTURE_H

#include "test.h"

#include "meowbridge/clock.h"
#include "meowbridge/journal.h"
#include "meowbridge/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_MS 20000
#define SHARED static __attribute__((unused)) /* not every test uses all of it */

/* --- the clock that is linked instead of bridge/base/clock.c --- */

static _Atomic int64_t wall_offset_ms, mono_offset_ms;

static int64_t real_us(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_wall_ms(void)
{
    return real_us(CLOCK_REALTIME) / 1000 + wall_offset_ms;
}

int64_t clock_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

int64_t clock_mono_us(void)
{
    return real_us(CLOCK_MONOTONIC) + mono_offset_ms * 1000;
}

void clock_rfc3339(int64_t wall_ms, char out[CLOCK_RFC3339_SIZE])
{
    (void)wall_ms;
    memcpy(out, "2026-01-01T00:00:00.000Z", CLOCK_RFC3339_SIZE);
}

SHARED void pass_time(int64_t ms)
{
    wall_offset_ms += ms;
    mono_offset_ms += ms;
}

/* --- the log that is linked instead of bridge/base/log.c: it counts --- */

static _Atomic unsigned logged_errors, logged_infos;

void log_emit(enum log_level level, const char *message, const struct log_field *fields)
{
    (void)message, (void)fields;
    logged_errors += level == LOG_ERROR;
    logged_infos += level == LOG_INFO;
}

/* --- appends --- */

struct put {
    struct journal_append append; /* first */
    bool is_done;
    char why[600];
    uint64_t order; /* of being handed back, from 1 */
};

struct fixture {
    char dir[64], path[128];
    struct journal_options options;
    bool is_memory;
    struct journal *journal;
    pthread_mutex_t lock;
    pthread_cond_t noted; /* whenever the hooks are called */
    uint64_t handed_back, calls;
    unsigned claimable;
    void (*before_note)(void *ctx, const struct journal_append *append); /* in the journal's thread */
};

static void note_appended(void *ctx, struct journal_append *batch)
{
    struct fixture *f = ctx;
    pthread_mutex_lock(&f->lock);
    f->calls++;
    while (batch) {
        struct journal_append *next = batch->next;
        struct put *put = (struct put *)batch;
        assert_false(put->is_done);
        assert_null(batch->event);
        assert_true((batch->outcome == JOURNAL_REFUSED) == (batch->why != NULL));
        if (f->before_note) {
            f->before_note(f, batch);
        }
        snprintf(put->why, sizeof put->why, "%s", batch->why ? batch->why : "");
        put->order = ++f->handed_back;
        put->is_done = true;
        batch = next;
    }
    pthread_cond_broadcast(&f->noted);
    pthread_mutex_unlock(&f->lock);
}

static void note_claimable(void *ctx)
{
    struct fixture *f = ctx;
    pthread_mutex_lock(&f->lock);
    f->claimable++;
    pthread_mutex_unlock(&f->lock);
}

static void nap(void)
{
    nanosleep(&(struct timespec){0, 2000000}, NULL);
}

#define WAIT_FOR(condition)                                                \
    do {                                                                   \
        int64_t deadline_ = real_us(CLOCK_MONOTONIC) + DEADLINE_MS * 1000; \
        while (!(condition)) {                                             \
            if (real_us(CLOCK_MONOTONIC) > deadline_) {                    \
                fail_msg("waited in vain for %s", #condition);             \
            }                                                              \
            nap();                                                         \
        }                                                                  \
    } while (0)

static void number_key(uint64_t number, uint8_t key[JOURNAL_KEY_BYTES])
{
    memset(key, 7, JOURNAL_KEY_BYTES);
    for (int i = 0; i < 8; i++) {
        key[i] = (uint8_t)(number >> (56 - 8 * i));
    }
}

/* A body that tells its number, so that a test can see what it claimed. */
static struct journal_event *make_event(uint64_t number, size_t body_size)
{
    uint8_t key[JOURNAL_KEY_BYTES];
    number_key(number, key);
    body_size = body_size < sizeof number ? sizeof number : body_size;
    char *body = malloc(body_size);
    memset(body, 'b', body_size);
    memcpy(body, &number, sizeof number);
    struct journal_event *event = journal_event_new(key, clock_wall_ms(), SLICE("head"), body, body_size);
    assert_non_null(event);
    return event;
}

static uint64_t number_of(const struct journal_event *event)
{
    uint64_t number;
    assert_true(event->body.size >= sizeof number);
    memcpy(&number, event->body.data, sizeof number);
    return number;
}

/* The label of an event: one letter for each FAMILY numbers that follow each other. */
enum { FAMILY = 300 };

static char letter_of(uint64_t number)
{
    return (char)('a' + number / FAMILY % 26);
}

static bool label_by_number(struct slice head, struct slice body, struct buf *out)
{
    uint64_t number;
    (void)head;
    if (body.size < sizeof number) {
        return false;
    }
    memcpy(&number, body.data, sizeof number);
    buf_append_char(out, letter_of(number));
    return true;
}

/* Appends numbers first … first + count - 1 in one call. */
static void post(struct fixture *f, struct put *puts, uint64_t first, size_t count, size_t body_size)
{
    for (size_t i = 0; i < count; i++) {
        puts[i] = (struct put){0};
        puts[i].append.event = make_event(first + i, body_size);
        puts[i].append.next = i + 1 < count ? &puts[i + 1].append : NULL;
    }
    journal_append(f->journal, &puts[0].append);
}

static void await(struct fixture *f, const struct put *puts, size_t count)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += DEADLINE_MS / 1000;
    int status = 0;
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < count; i++) {
        while (!puts[i].is_done && status == 0) {
            status = pthread_cond_timedwait(&f->noted, &f->lock, &deadline);
        }
    }
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(status, 0);
}

SHARED void put_many(struct fixture *f, uint64_t first, size_t count, size_t body_size, enum journal_outcome expected)
{
    struct put *puts = calloc(count, sizeof *puts);
    for (size_t at = 0, piece; at < count; at += piece) {
        piece = count - at < 500 ? count - at : 500;
        post(f, &puts[at], first + at, piece, body_size);
    }
    await(f, puts, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(puts[i].append.outcome, expected);
    }
    free(puts);
}

SHARED enum journal_outcome put_one(struct fixture *f, uint64_t number)
{
    struct put put;
    post(f, &put, number, 1, 0);
    await(f, &put, 1);
    return put.append.outcome;
}

/* --- the journal --- */

static void start(struct fixture *f)
{
    struct error why = {0};
    const struct journal_hooks hooks = {note_appended, f, note_claimable, f};
    enum err code = f->is_memory ? journal_open_memory(&f->journal, &f->options, &why)
                                 : journal_open_sqlite(&f->journal, &f->options, &why);
    if (code != ERR_NONE || journal_start(f->journal, &hooks, &why) != ERR_NONE) {
        fail_msg("%s", why.text);
    }
}

SHARED void restart(struct fixture *f)
{
    journal_close(&f->journal);
    start(f);
}

static void make_fixture(struct fixture *f)
{
    *f = (struct fixture){.options = {.retention_ms = 3600 * 1000, .label = label_by_number}};
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->noted, NULL);
    make_folder(f->dir, sizeof f->dir);
    snprintf(f->path, sizeof f->path, "%s/journal.db", f->dir);
    f->options.path = f->path;
}

SHARED size_t files_in(const char *dir)
{
    size_t count = 0;
    DIR *listing = opendir(dir);
    assert_non_null(listing);
    for (struct dirent *entry; (entry = readdir(listing));) {
        count += entry->d_name[0] != '.';
    }
    closedir(listing);
    return count;
}

static void remove_dir(const char *dir)
{
    DIR *listing = opendir(dir);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        unlink(path);
    }
    if (listing) {
        closedir(listing);
    }
    rmdir(dir);
}

static void end(struct fixture *f)
{
    journal_close(&f->journal);
    remove_dir(f->dir);
    pthread_cond_destroy(&f->noted);
    pthread_mutex_destroy(&f->lock);
}

static void begin(struct fixture *f)
{
    make_fixture(f);
    start(f);
}

/* --- looking inside --- */

static struct journal_state state_of(struct fixture *f)
{
    struct journal_state state;
    journal_state(f->journal, &state);
    return state;
}

static struct journal_event *claim_some(struct fixture *f, size_t max)
{
    struct journal_event *list;
    struct error why = {0};
    if (journal_claim(f->journal, max, 1 << 20, &list, &why) != ERR_NONE) {
        fail_msg("%s", why.text);
    }
    return list;
}

/* Claims all there is, checks order and content against numbers first …, settles if asked, and returns how many there were. */
SHARED size_t drain(struct fixture *f, uint64_t first, bool settles)
{
    size_t count = 0;
    uint64_t last_seq = 0;
    for (struct journal_event *list; (list = claim_some(f, 100));) {
        for (; list; list = list->next) {
            assert_true(list->seq > last_seq);
            assert_int_equal(number_of(list), first + count);
            assert_slice(list->head, "head");
            last_seq = list->seq;
            count++;
        }
        if (settles) {
            journal_settle(f->journal, last_seq);
        }
    }
    return count;
}

SHARED void change(struct fixture *f, const char *sql)
{
    sqlite3 *handle;
    assert_int_equal(sqlite3_open(f->path, &handle), SQLITE_OK);
    if (sqlite3_exec(handle, sql, NULL, NULL, NULL) != SQLITE_OK) {
        fail_msg("%s: %s", sql, sqlite3_errmsg(handle));
    }
    sqlite3_close(handle);
}

/* A statement on a connection of the test's own, which changes nothing. */
static sqlite3_stmt *query(struct fixture *f, const char *sql)
{
    sqlite3 *handle;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open_v2(f->path, &handle, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    sqlite3_busy_timeout(handle, 5000);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    assert_int_equal(sqlite3_prepare_v2(handle, sql, -1, &statement, NULL), SQLITE_OK);
    return statement;
}

static void end_query(sqlite3_stmt *statement)
{
    sqlite3 *handle = sqlite3_db_handle(statement);
    sqlite3_finalize(statement);
    sqlite3_close(handle);
}

/* One integer by SQL. */
SHARED int64_t ask(struct fixture *f, const char *sql)
{
    sqlite3_stmt *statement = query(f, sql);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(statement, 0);
    end_query(statement);
    return value;
}

/* journal_stretch.h, S1: what is written down of stretches contradicts no event, alive or dead. Returns how many there are. */
SHARED int64_t check_stretches(struct fixture *f)
{
    static const char sql[] =
        "SELECT accepted BETWEEN earliest AND latest, labels, body FROM (SELECT seq, accepted, body FROM events UNION ALL"
        " SELECT seq, accepted, body FROM dead) AS e JOIN stretches ON number = e.seq / 256";
    sqlite3_stmt *statement = query(f, sql);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        uint64_t number;
        const char *labels = sqlite3_column_blob(statement, 1);
        const int size = sqlite3_column_bytes(statement, 1);
        memcpy(&number, sqlite3_column_blob(statement, 2), sizeof number);
        assert_int_equal(sqlite3_column_int(statement, 0), 1);
        assert_true(size == 0 || memchr(labels, letter_of(number), (size_t)size));
    }
    end_query(statement);
    return ask(f, "SELECT count(*) FROM stretches");
}

#endif
