#include "journal_fixture.h"

#include "meowbridge/journal_view.h"

enum { MAX_SEEN = 64 };

struct seen {
    uint64_t seqs[MAX_SEEN];
    enum journal_event_state states[MAX_SEEN];
    char reasons[MAX_SEEN][64];
    uint64_t numbers[MAX_SEEN];
    size_t count, stop_at; /* 0: never */
    uint64_t next;
};

static bool see(void *ctx, const struct journal_view_event *event)
{
    struct seen *seen = ctx;
    assert_true(seen->count < MAX_SEEN);
    size_t i = seen->count++;
    seen->seqs[i] = event->seq;
    seen->states[i] = event->state;
    snprintf(seen->reasons[i], sizeof seen->reasons[i], "%.*s", SLICE_ARGS(event->reason));
    memcpy(&seen->numbers[i], event->body.data, sizeof seen->numbers[i]);
    assert_slice(event->head, "head");
    return seen->count != seen->stop_at;
}

static struct journal_view *open_view(struct fixture *f)
{
    struct journal_view *view;
    struct error why;
    if (journal_view_open(&view, f->path, &why) != ERR_NONE) {
        fail_msg("%s", why.text);
    }
    return view;
}

static struct seen walk(struct journal_view *view, struct journal_view_filter filter, size_t max)
{
    static struct seen seen;
    struct error why;
    seen = (struct seen){0};
    if (journal_view_walk(view, &filter, max, see, &seen, &seen.next, &why) != ERR_NONE) {
        fail_msg("%s", why.text);
    }
    return seen;
}

static struct seen walk_state(struct journal_view *view, enum journal_event_state state)
{
    struct journal_view_filter filter = JOURNAL_VIEW_ALL;
    filter.has_state = true;
    filter.state = state;
    return walk(view, filter, MAX_SEEN);
}

#define assert_seqs(seen, ...)                                                  \
    do {                                                                        \
        const uint64_t expected_[] = {__VA_ARGS__};                             \
        assert_int_equal((seen).count, sizeof expected_ / sizeof expected_[0]); \
        assert_memory_equal((seen).seqs, expected_, sizeof expected_);          \
    } while (0)

/* 1 and 3 published, 2 dead, 4 and 5 pending. */
static void fill(struct fixture *f)
{
    struct error why;
    put_many(f, 1, 5, 300, JOURNAL_STORED);
    claim_some(f, 3);
    assert_int_equal(journal_bury(f->journal, 2, "refused by the broker", &why), ERR_NONE);
    journal_settle(f->journal, 3);
    WAIT_FOR(state_of(f).dead == 1 && ask(f, "SELECT cursor FROM state") == 3);
}

static void check_filled(struct journal_view *view)
{
    struct seen all = walk(view, JOURNAL_VIEW_ALL, MAX_SEEN);
    static const enum journal_event_state states[] = {JOURNAL_PENDING, JOURNAL_PENDING, JOURNAL_PUBLISHED, JOURNAL_DEAD,
                                                      JOURNAL_PUBLISHED};
    assert_seqs(all, 5, 4, 3, 2, 1);
    assert_memory_equal(all.states, states, sizeof states);
    assert_string_equal(all.reasons[3], "refused by the broker");
    assert_int_equal(all.numbers[0], 5);
    assert_int_equal(all.next, 0);
    assert_seqs(walk_state(view, JOURNAL_PENDING), 5, 4);
    assert_seqs(walk_state(view, JOURNAL_PUBLISHED), 3, 1);
    assert_seqs(walk_state(view, JOURNAL_DEAD), 2);
}

static void events_are_seen_newest_first_with_their_state_beside_a_running_bridge(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    fill(&f);
    struct journal_view *view = open_view(&f);
    check_filled(view);
    put_one(&f, 6);
    assert_seqs(walk_state(view, JOURNAL_PENDING), 6, 5, 4);
    journal_view_close(&view);
    assert_null(view);
    journal_view_close(&view);
    end(&f);
}

struct trace {
    size_t files;
    struct stat file;
};

static struct trace trace_of(struct fixture *f)
{
    struct trace trace = {files_in(f->dir), {0}};
    assert_int_equal(stat(f->path, &trace.file), 0);
    return trace;
}

static void assert_untouched(struct fixture *f, const struct trace *before)
{
    struct trace after = trace_of(f);
    assert_int_equal(after.files, before->files);
    assert_int_equal(after.file.st_size, before->file.st_size);
    assert_int_equal(after.file.st_ino, before->file.st_ino);
    assert_memory_equal(&after.file.st_mtim, &before->file.st_mtim, sizeof after.file.st_mtim);
}

static void looking_without_a_bridge_leaves_no_trace(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    fill(&f);
    journal_close(&f.journal);
    struct trace before = trace_of(&f);
    assert_int_equal(before.files, 1);
    struct journal_view *view = open_view(&f);
    check_filled(view);
    assert_untouched(&f, &before);
    journal_view_close(&view);
    assert_untouched(&f, &before);
    end(&f);
}

/* As another user, who may read but not write. */
static void assert_seen_without_rights(struct fixture *f)
{
    pid_t child = fork();
    if (child == 0) {
        if (getuid() == 0 && setuid(65534) != 0) {
            _exit(2);
        }
        struct journal_view *view;
        struct error why;
        struct seen seen = {0};
        struct journal_view_filter filter = JOURNAL_VIEW_ALL;
        enum err code = journal_view_open(&view, f->path, &why);
        code = code ? code : journal_view_walk(view, &filter, MAX_SEEN, see, &seen, &seen.next, &why);
        if (code) {
            fprintf(stderr, "%s\n", why.text);
        }
        _exit(code == ERR_NONE && seen.count == 5 ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

static void who_may_only_read_sees_the_same_with_a_bridge_and_without(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    fill(&f);
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < 3; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s%s", f.path, suffixes[i]);
        assert_int_equal(chmod(path, 0444), 0);
    }
    assert_int_equal(chmod(f.dir, 0555), 0);
    assert_seen_without_rights(&f);
    assert_int_equal(chmod(f.dir, 0755), 0);
    journal_close(&f.journal);
    assert_int_equal(chmod(f.dir, 0555), 0);
    struct trace before = trace_of(&f);
    assert_seen_without_rights(&f);
    assert_untouched(&f, &before);
    assert_int_equal(chmod(f.dir, 0700), 0);
    end(&f);
}

static void copy_file(const char *from, const char *to)
{
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_true(in && out);
    for (int c; (c = fgetc(in)) != EOF;) {
        fputc(c, out);
    }
    fclose(in);
    fclose(out);
}

static void the_log_of_a_bridge_that_was_killed_is_read_along(void **unused)
{
    (void)unused;
    struct fixture f, copy;
    begin(&f);
    fill(&f);
    make_fixture(&copy);
    char from[256], to[256];
    snprintf(from, sizeof from, "%s-wal", f.path);
    snprintf(to, sizeof to, "%s-wal", copy.path);
    copy_file(f.path, copy.path);
    copy_file(from, to);
    struct trace before = trace_of(&copy);
    struct journal_view *view = open_view(&copy);
    check_filled(view);
    journal_view_close(&view);
    struct trace after = trace_of(&copy);
    assert_int_equal(after.file.st_size, before.file.st_size);
    assert_memory_equal(&after.file.st_mtim, &before.file.st_mtim, sizeof after.file.st_mtim);
    start(&copy); /* and nothing is lost by having looked */
    assert_int_equal(drain(&copy, 4, true), 2);
    end(&copy);
    end(&f);
}

static void each_call_looks_anew_when_a_bridge_starts_or_stops_meanwhile(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    fill(&f);
    journal_close(&f.journal);
    struct journal_view *view = open_view(&f);
    check_filled(view);
    start(&f);
    check_filled(view);
    put_one(&f, 6);
    assert_seqs(walk_state(view, JOURNAL_PENDING), 6, 5, 4);
    journal_close(&f.journal);
    assert_seqs(walk_state(view, JOURNAL_PENDING), 6, 5, 4);
    start(&f);
    put_one(&f, 7);
    assert_seqs(walk_state(view, JOURNAL_PENDING), 7, 6, 5, 4);
    journal_view_close(&view);
    end(&f);
}

static void pages_follow_each_other_without_gap_or_overlap(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 20, 0, JOURNAL_STORED);
    struct journal_view *view = open_view(&f);
    struct journal_view_filter filter = JOURNAL_VIEW_ALL;
    struct seen page = walk(view, filter, 8);
    assert_seqs(page, 20, 19, 18, 17, 16, 15, 14, 13);
    assert_int_equal(page.next, 13);
    filter.before = page.next;
    page = walk(view, filter, 8);
    assert_seqs(page, 12, 11, 10, 9, 8, 7, 6, 5);
    filter.before = page.next;
    page = walk(view, filter, 4);
    assert_seqs(page, 4, 3, 2, 1);
    assert_int_equal(page.next, 0); /* nothing is left, and that is known */
    filter = JOURNAL_VIEW_ALL;
    filter.after = 18;
    assert_seqs(walk(view, filter, 8), 20, 19);
    filter.before = 20;
    assert_seqs(walk(view, filter, 8), 19);
    filter.before = 0;
    assert_int_equal(walk(view, filter, 8).count, 0);
    journal_view_close(&view);
    end(&f);
}

static void who_is_satisfied_stops_and_goes_on_from_there(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 5, 0, JOURNAL_STORED);
    struct journal_view *view = open_view(&f);
    struct journal_view_filter filter = JOURNAL_VIEW_ALL;
    struct seen seen = {.stop_at = 2};
    struct error why;
    assert_int_equal(journal_view_walk(view, &filter, 10, see, &seen, &seen.next, &why), ERR_NONE);
    assert_seqs(seen, 5, 4);
    assert_int_equal(seen.next, 4);
    seen = (struct seen){.stop_at = 5};
    assert_int_equal(journal_view_walk(view, &filter, 10, see, &seen, &seen.next, &why), ERR_NONE);
    assert_int_equal(seen.next, 0);
    journal_view_close(&view);
    end(&f);
}

static void a_page_of_large_events_ends_early(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    for (uint64_t n = 1; n <= 5; n++) {
        put_many(&f, n, 1, 20 * 1024 * 1024, JOURNAL_STORED);
    }
    struct journal_view *view = open_view(&f);
    struct seen seen = walk(view, JOURNAL_VIEW_ALL, 10);
    assert_seqs(seen, 5, 4, 3);
    assert_int_equal(seen.next, 3);
    journal_view_close(&view);
    end(&f);
}

static void bounds_in_time_are_by_acceptance(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    f.options.retention_ms = INT64_C(365) * 24 * 3600 * 1000;
    start(&f);
    int64_t at_ms[7];
    for (uint64_t n = 1; n <= 6; n++) {
        at_ms[n] = clock_wall_ms();
        put_one(&f, n);
        pass_time(2 * 3600 * 1000);
    }
    struct journal_view *view = open_view(&f);
    for (uint64_t since = 1; since <= 6; since++) {
        for (uint64_t until = since; until <= 6; until++) {
            struct journal_view_filter filter = JOURNAL_VIEW_ALL;
            filter.since_ms = at_ms[since];
            filter.until_ms = at_ms[until];
            struct seen seen = walk(view, filter, MAX_SEEN);
            assert_int_equal(seen.count, until - since);
            assert_true(seen.count == 0 || (seen.seqs[0] == until - 1 && seen.seqs[seen.count - 1] == since));
        }
    }
    struct journal_view_filter filter = JOURNAL_VIEW_ALL;
    filter.since_ms = INT64_MAX - 1;
    assert_int_equal(walk(view, filter, MAX_SEEN).count, 0);
    filter = JOURNAL_VIEW_ALL;
    filter.until_ms = INT64_MIN + 1;
    assert_int_equal(walk(view, filter, MAX_SEEN).count, 0);
    journal_view_close(&view);
    end(&f);
}

static void dead_events_are_seen_also_when_their_row_has_gone_with_the_published_ones(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    fill(&f);
    drain(&f, 4, true);
    pass_time(f.options.retention_ms + 10000);
    put_many(&f, 6, 2, 0, JOURNAL_STORED);
    WAIT_FOR(ask(&f, "SELECT min(seq) FROM events") == 6);
    struct journal_view *view = open_view(&f);
    struct seen seen = walk(view, JOURNAL_VIEW_ALL, MAX_SEEN);
    assert_seqs(seen, 7, 6, 2);
    assert_int_equal(seen.states[2], JOURNAL_DEAD);
    struct journal_view_filter filter = JOURNAL_VIEW_ALL;
    filter.until_ms = clock_wall_ms() - f.options.retention_ms;
    assert_seqs(walk(view, filter, MAX_SEEN), 2);
    journal_view_close(&view);
    end(&f);
}

static void one_event_is_found_whole_whatever_became_of_it(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    fill(&f);
    struct journal_view *view = open_view(&f);
    struct journal_view_event event;
    struct error why;
    assert_int_equal(journal_view_get(view, 2, &event, &why), ERR_NONE);
    assert_int_equal(event.state, JOURNAL_DEAD);
    assert_slice(event.reason, "refused by the broker");
    assert_slice(event.head, "head");
    assert_int_equal(event.body.size, 300);
    assert_true(event.died_ms >= event.accepted_ms);
    assert_int_equal(event.replays, 0);
    struct journal_replay replay = {.seqs = (uint64_t[]){2, 1}, .seq_count = 2};
    assert_int_equal(journal_replay(f.journal, &replay, &why), ERR_NONE);
    assert_int_equal(journal_view_get(view, 2, &event, &why), ERR_NONE);
    assert_int_equal(event.state, JOURNAL_MOVED);
    assert_int_equal(event.moved_to, 6);
    assert_int_equal(event.reason.size, 0);
    assert_int_equal(journal_view_get(view, 6, &event, &why), ERR_NONE);
    assert_int_equal(event.state, JOURNAL_PENDING);
    assert_int_equal(event.replay_of, 2);
    assert_int_equal(event.replays, 1);
    assert_int_equal(journal_view_get(view, 1, &event, &why), ERR_NONE);
    assert_int_equal(event.state, JOURNAL_PUBLISHED);
    assert_int_equal(journal_view_get(view, 8, &event, &why), ERR_INVALID);
    assert_string_equal(why.text, "event 8 is not in the journal");
    assert_int_equal(journal_view_get(view, UINT64_MAX, &event, &why), ERR_INVALID);
    assert_seqs(walk(view, JOURNAL_VIEW_ALL, MAX_SEEN), 7, 6, 5, 4, 3, 1); /* the moved one is listed no more */
    journal_view_close(&view);
    end(&f);
}

static void a_look_does_not_keep_the_log_from_being_moved_into_the_database(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 10, 0, JOURNAL_STORED);
    struct journal_view *view = open_view(&f);
    struct journal_view_event event;
    struct error why;
    walk(view, JOURNAL_VIEW_ALL, 3);
    assert_int_equal(journal_view_get(view, 5, &event, &why), ERR_NONE);
    char log[256];
    snprintf(log, sizeof log, "%s-wal", f.path);
    put_many(&f, 100, 4000, 20000, JOURNAL_STORED); /* 80 MB, and the log starts again every 2 MB or so */
    struct stat status;
    assert_int_equal(stat(log, &status), 0);
    assert_true(status.st_size < 40 * 1024 * 1024);
    assert_int_equal(event.seq, 5);
    journal_view_close(&view);
    end(&f);
}

static void assert_cannot_open(const char *path, enum err expected, const char *text)
{
    struct journal_view *view;
    struct error why = {0};
    assert_int_equal(journal_view_open(&view, path, &why), expected);
    assert_null(view);
    if (!strstr(why.text, text)) {
        fail_msg("\"%s\" has no \"%s\"", why.text, text);
    }
}

static void write_sql(const char *path, const char *sql)
{
    sqlite3 *handle;
    assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
    assert_int_equal(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(handle);
}

static void what_is_no_journal_is_named_as_such_and_not_created(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    assert_cannot_open(f.path, ERR_IO,
                       "No such file or directory; has the bridge run yet, and does journal.path say where (-c FILE)?");
    assert_int_equal(files_in(f.dir), 0);
    assert_cannot_open(f.dir, ERR_IO, "it is not a file");
    FILE *file = fopen(f.path, "w");
    fclose(file);
    assert_cannot_open(f.path, ERR_CORRUPT, "it is empty");
    file = fopen(f.path, "w");
    for (int i = 0; i < 1000; i++) {
        fputs("not a database ", file);
    }
    fclose(file);
    assert_cannot_open(f.path, ERR_CORRUPT, "damaged");
    unlink(f.path);
    write_sql(f.path, "CREATE TABLE t(a)");
    assert_cannot_open(f.path, ERR_CORRUPT, "is not a journal of meowbridge");
    unlink(f.path);
    start(&f);
    journal_close(&f.journal);
    write_sql(f.path, "PRAGMA user_version = 99");
    assert_cannot_open(f.path, ERR_VERSION, "newer meowbridge");
    end(&f);
}

static void the_states_that_can_be_listed_have_names(void **unused)
{
    (void)unused;
    enum journal_event_state state;
    assert_true(journal_state_of(SLICE("dead"), &state));
    assert_int_equal(state, JOURNAL_DEAD);
    assert_string_equal(journal_state_name(JOURNAL_PENDING), "pending");
    assert_string_equal(journal_state_name(JOURNAL_PUBLISHED), "published");
    assert_false(journal_state_of(SLICE("moved"), &state));
    assert_false(journal_state_of(SLICE("Dead"), &state));
    assert_false(journal_state_of(SLICE(""), &state));
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_seen_newest_first_with_their_state_beside_a_running_bridge),
        cmocka_unit_test(looking_without_a_bridge_leaves_no_trace),
        cmocka_unit_test(who_may_only_read_sees_the_same_with_a_bridge_and_without),
        cmocka_unit_test(the_log_of_a_bridge_that_was_killed_is_read_along),
        cmocka_unit_test(each_call_looks_anew_when_a_bridge_starts_or_stops_meanwhile),
        cmocka_unit_test(pages_follow_each_other_without_gap_or_overlap),
        cmocka_unit_test(who_is_satisfied_stops_and_goes_on_from_there),
        cmocka_unit_test(a_page_of_large_events_ends_early),
        cmocka_unit_test(bounds_in_time_are_by_acceptance),
        cmocka_unit_test(dead_events_are_seen_also_when_their_row_has_gone_with_the_published_ones),
        cmocka_unit_test(one_event_is_found_whole_whatever_became_of_it),
        cmocka_unit_test(a_look_does_not_keep_the_log_from_being_moved_into_the_database),
        cmocka_unit_test(what_is_no_journal_is_named_as_such_and_not_created),
        cmocka_unit_test(the_states_that_can_be_listed_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
