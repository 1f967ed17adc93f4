/* The index of keys alone, held against a model that remembers everything: what it knows is exactly what was stored within the
 * retention, whatever is merged, dropped, cut short or failed in between. A seed that fails is printed. */
#include "test.h"

#include "../../bridge/store/journal_index.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

enum { KEYS = 20000, RETENTION_MS = 100000, NEVER = -1 };

struct bench {
    char dir[64], path[128];
    struct db *db;
    struct index *index;
    struct index_options options;
    sqlite3 *other; /* another connection, to look and to break */
    uint64_t seed, last_seq;
    int64_t now_ms;
    int64_t model[KEYS]; /* when a key was stored last */
};

static uint64_t next_random(struct bench *b)
{
    b->seed ^= b->seed << 13;
    b->seed ^= b->seed >> 7;
    b->seed ^= b->seed << 17;
    return b->seed;
}

static void must(enum err code, const struct error *why)
{
    if (code != ERR_NONE) {
        fail_msg("%s", why->text);
    }
}

static void make_key(uint64_t number, uint8_t key[JOURNAL_KEY_BYTES])
{
    uint64_t mixed = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    memcpy(key, &mixed, 8);
    memcpy(key + 8, &number, 8);
}

static void open_index(struct bench *b)
{
    struct error why;
    struct db_state state;
    b->options.db = b->db;
    must(db_state_read(b->db, &state, &why), &why);
    must(index_open(&b->index, &b->options, state.indexed, &why), &why);
}

static struct bench *begin(uint64_t seed)
{
    static const struct run_limits small = {.fences = 5, .filter_bytes = 4096};
    struct bench *b = calloc(1, sizeof *b);
    *b = (struct bench){.seed = seed,
                        .now_ms = 1000000,
                        .options = {.retention_ms = RETENTION_MS, .fresh_keys = 100, .fresh_bytes = 1 << 20, .limits = &small}};
    for (size_t i = 0; i < KEYS; i++) {
        b->model[i] = NEVER;
    }
    make_folder(b->dir, sizeof b->dir);
    snprintf(b->path, sizeof b->path, "%s/journal.db", b->dir);
    struct error why;
    struct file_look look;
    must(file_look(b->path, &look, &why), &why);
    must(db_open(&b->db, b->path, &look, &why), &why);
    assert_int_equal(sqlite3_open(b->path, &b->other), SQLITE_OK);
    open_index(b);
    return b;
}

static void end(struct bench *b)
{
    char command[160];
    index_close(&b->index);
    db_close(&b->db);
    sqlite3_close(b->other);
    snprintf(command, sizeof command, "rm -r %s", b->dir);
    assert_int_equal(system(command), 0);
    free(b);
}

static void run_sql(struct bench *b, const char *sql)
{
    assert_int_equal(sqlite3_exec(b->other, sql, NULL, NULL, NULL), SQLITE_OK);
}

static int64_t ask(struct bench *b, const char *sql)
{
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_prepare_v2(b->other, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

/* --- what a journal does with an index --- */

static bool is_known(struct bench *b, uint64_t number)
{
    struct error why;
    bool known;
    uint8_t key[JOURNAL_KEY_BYTES];
    make_key(number, key);
    must(index_known(b->index, key, b->now_ms, &known, &why), &why);
    return known;
}

static bool should_be_known(const struct bench *b, uint64_t number)
{
    return b->model[number] != NEVER && b->now_ms - b->model[number] < RETENTION_MS;
}

static void store(struct bench *b, uint64_t number)
{
    struct error why;
    uint8_t key[JOURNAL_KEY_BYTES];
    make_key(number, key);
    struct journal_event *event = journal_event_new(key, b->now_ms, SLICE("head"), slice_dup(SLICE("body")), 4);
    event->seq = ++b->last_seq;
    must(db_event_put(b->db, (const struct journal_event *const[]){event}, 1, b->now_ms, &why), &why);
    index_add(b->index, key, b->now_ms, 8);
    journal_event_free(event);
}

/* Every tenth batch fails. */
static void store_batch(struct bench *b, const uint64_t *numbers, size_t count)
{
    struct error why;
    const bool fails = next_random(b) % 10 == 0;
    const uint64_t last_seq = b->last_seq;
    assert_true(index_begin(b->index, count));
    must(db_begin(b->db, DB_LAZY, &why), &why);
    for (size_t i = 0; i < count; i++) {
        const bool known = is_known(b, numbers[i]);
        bool is_twice = false;
        for (size_t j = 0; j < i; j++) {
            is_twice |= numbers[j] == numbers[i];
        }
        assert_int_equal(known, is_twice || should_be_known(b, numbers[i]));
        if (!known) {
            store(b, numbers[i]);
        }
    }
    if (fails) {
        db_rollback(b->db);
        index_undo(b->index);
        b->last_seq = last_seq;
        return;
    }
    must(db_commit(b->db, &why), &why);
    index_commit(b->index, b->last_seq);
    for (size_t i = 0; i < count; i++) {
        if (!should_be_known(b, numbers[i])) {
            b->model[numbers[i]] = b->now_ms;
        }
    }
}

static void store_some(struct bench *b, uint64_t among)
{
    uint64_t numbers[20];
    for (size_t i = 0; i < LENGTH(numbers); i++) {
        numbers[i] = next_random(b) % among;
    }
    store_batch(b, numbers, LENGTH(numbers));
}

static void step(struct bench *b, size_t most)
{
    struct error why;
    for (size_t i = 0; i < most && index_has_work(b->index, b->now_ms); i++) {
        must(index_step(b->index, b->now_ms, &why), &why);
    }
}

static void restart(struct bench *b)
{
    index_close(&b->index);
    open_index(b);
}

static void check_all(struct bench *b)
{
    for (uint64_t number = 0; number < KEYS; number++) {
        if (is_known(b, number) != should_be_known(b, number)) {
            fail_msg("key %llu is %sknown", (unsigned long long)number, should_be_known(b, number) ? "not " : "");
        }
    }
}

/* --- */

static void what_is_known_is_what_was_stored_within_the_retention(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct bench *b = begin(seed);
        int64_t highest_level = 0;
        print_message("seed %llu\n", (unsigned long long)seed);
        for (int batch = 0; batch < 1500; batch++) {
            store_some(b, KEYS);
            while (index_is_stuck(b->index)) {
                step(b, 1);
            }
            step(b, next_random(b) % 3);
            b->now_ms += (int64_t)(next_random(b) % (RETENTION_MS / 500));
            if (next_random(b) % 200 == 0) {
                restart(b);
            }
            if (batch % 50 == 0) {
                const int64_t level = ask(b, "SELECT max(level) FROM runs");
                highest_level = level > highest_level ? level : highest_level;
            }
        }
        check_all(b);
        assert_in_range(highest_level, 2, 4);
        restart(b);
        check_all(b);
        end(b);
    }
}

static void when_all_keys_are_old_nothing_is_left_of_them(void **unused)
{
    (void)unused;
    struct bench *b = begin(7);
    for (int batch = 0; batch < 400; batch++) {
        store_some(b, KEYS);
        step(b, 3);
    }
    step(b, 100000);
    assert_true(ask(b, "SELECT count(*) FROM pages") > 0);
    b->now_ms += RETENTION_MS;
    step(b, 100000);
    assert_int_equal(ask(b, "SELECT count(*) FROM runs"), 0);
    assert_int_equal(ask(b, "SELECT count(*) FROM pages"), 0);
    check_all(b);
    end(b);
}

/* As long as the trigger is there, each page that is to be written fails, and with it the step. */
static void a_step_that_fails_is_begun_anew_and_leaves_nothing_behind(void **unused)
{
    (void)unused;
    struct bench *b = begin(11);
    unsigned failed = 0;
    for (int batch = 0; batch < 600; batch++) {
        struct error why;
        store_some(b, KEYS);
        while (index_is_stuck(b->index)) {
            step(b, 1);
        }
        const bool breaks = batch % 3 != 0;
        if (breaks) {
            run_sql(b, "CREATE TRIGGER broken BEFORE INSERT ON pages BEGIN SELECT RAISE(ABORT, 'broken'); END");
        }
        for (int i = 0; i < 2 && index_has_work(b->index, b->now_ms); i++) {
            enum err code = index_step(b->index, b->now_ms, &why);
            assert_true(code == ERR_NONE || (breaks && code == ERR_IO));
            failed += code != ERR_NONE;
        }
        if (breaks) {
            run_sql(b, "DROP TRIGGER broken");
        }
    }
    assert_in_range(failed, 50, 600);
    check_all(b);
    step(b, 100000);
    check_all(b);
    assert_int_equal(ask(b, "SELECT count(*) FROM runs WHERE state <> 1"), 0);
    assert_int_equal(ask(b, "SELECT count(*) FROM pages WHERE (id >> 31) NOT IN (SELECT number FROM runs)"), 0);
    restart(b);
    check_all(b);
    end(b);
}

static void a_run_that_was_not_finished_is_dropped_at_the_next_start(void **unused)
{
    (void)unused;
    struct bench *b = begin(13);
    b->options.fresh_keys = 10000;
    restart(b);
    for (int batch = 0; batch < 800; batch++) {
        store_some(b, KEYS);
    }
    step(b, 3); /* sealed, and a part of it written */
    assert_int_equal(ask(b, "SELECT state FROM runs"), 0);
    restart(b);
    check_all(b);
    step(b, 2); /* sealed again; dropped */
    assert_int_equal(ask(b, "SELECT count(*) FROM runs"), 0);
    assert_int_equal(ask(b, "SELECT count(*) FROM pages"), 0);
    step(b, 100000);
    assert_int_equal(ask(b, "SELECT state FROM runs"), 1);
    assert_in_range(ask(b, "SELECT stride FROM runs"), 2, 10); /* there are 5 fences for its pages */
    check_all(b);
    end(b);
}

static void store_range(struct bench *b, uint64_t from, uint64_t to)
{
    for (uint64_t number = from; number < to;) {
        store_batch(b, &number, 1);
        number += should_be_known(b, number); /* else the batch failed */
    }
}

static void a_key_that_was_stored_again_keeps_its_new_time_when_runs_are_merged(void **unused)
{
    (void)unused;
    struct bench *b = begin(23);
    store_range(b, 0, 1);
    b->now_ms += RETENTION_MS / 2;
    store_range(b, 1, 100);
    step(b, 100);
    b->now_ms += RETENTION_MS / 2;
    store_range(b, 0, 1); /* its time was over, that of the others is not */
    for (uint64_t run = 1; run <= 7; run++) {
        store_range(b, run * 100, run * 100 + (run == 1 ? 99 : 100));
        step(b, 100);
    }
    assert_int_equal(ask(b, "SELECT level * 1000 + keys FROM runs"), 1799);
    check_all(b);
    end(b);
}

static void few_runs_are_idle_whatever_was_stored(void **unused)
{
    (void)unused;
    struct bench *b = begin(17);
    for (int batch = 0; batch < 3000; batch++) {
        store_some(b, KEYS);
        b->now_ms += RETENTION_MS / 300;
        step(b, 1000);
        assert_in_range(ask(b, "SELECT count(*) FROM runs"), 0, 7 * 4);
    }
    end(b);
}

static void a_damaged_page_is_told_and_no_key_is_made_up(void **unused)
{
    (void)unused;
    struct bench *b = begin(19);
    uint64_t numbers[100];
    for (uint64_t i = 0; i < LENGTH(numbers); i++) {
        numbers[i] = i;
    }
    while (!should_be_known(b, 0)) {
        store_batch(b, numbers, LENGTH(numbers));
    }
    step(b, 100);
    run_sql(b, "UPDATE pages SET bytes = x'00' WHERE id & 0x7fffffff = 0");
    struct error why;
    bool known = true;
    uint8_t key[JOURNAL_KEY_BYTES];
    make_key(5, key);
    assert_int_equal(index_known(b->index, key, b->now_ms, &known, &why), ERR_CORRUPT);
    assert_false(known);
    run_sql(b, "DELETE FROM pages WHERE id & 0x7fffffff >= 1 << 30");
    index_close(&b->index);
    assert_int_equal(index_open(&b->index, &b->options, 100, &why), ERR_CORRUPT);
    assert_null(b->index);
    end(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_known_is_what_was_stored_within_the_retention),
        cmocka_unit_test(when_all_keys_are_old_nothing_is_left_of_them),
        cmocka_unit_test(a_step_that_fails_is_begun_anew_and_leaves_nothing_behind),
        cmocka_unit_test(a_run_that_was_not_finished_is_dropped_at_the_next_start),
        cmocka_unit_test(a_key_that_was_stored_again_keeps_its_new_time_when_runs_are_merged),
        cmocka_unit_test(few_runs_are_idle_whatever_was_stored),
        cmocka_unit_test(a_damaged_page_is_told_and_no_key_is_made_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
