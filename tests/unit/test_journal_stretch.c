/* What is written down of stretches of events: journal_stretch.h, and what journal_view.h and replays make of it. */
#include "journal_fixture.h"

#include "meowbridge/journal_view.h"

#define STRETCH 256 /* numbers */

struct look {
    const char *letters; /* wanted */
    uint64_t seqs[STRETCH * 20];
    enum journal_event_state states[STRETCH * 20];
    size_t count, visited, stop_at, asked;
    uint64_t next;
};

static bool wants(void *ctx, struct slice label)
{
    struct look *look = ctx;
    look->asked++;
    assert_int_equal(label.size, 1);
    return strchr(look->letters, label.data[0]) != NULL;
}

static bool visit(void *ctx, const struct journal_view_event *event)
{
    struct look *look = ctx;
    uint64_t number;
    memcpy(&number, event->body.data, sizeof number);
    look->visited++;
    if (strchr(look->letters, letter_of(number))) {
        look->states[look->count] = event->state;
        look->seqs[look->count++] = event->seq;
    }
    return look->stop_at == 0 || look->count < look->stop_at;
}

/* One page. */
static void look_at(struct fixture *f, struct look *look, struct journal_view_filter filter, bool passes_over, size_t max)
{
    struct error why;
    struct journal_view *view;
    filter.wants = passes_over ? wants : NULL;
    filter.wants_ctx = look;
    look->count = look->visited = look->asked = 0;
    if (journal_view_open(&view, f->path, &why) != ERR_NONE ||
        journal_view_walk(view, &filter, max, visit, look, &look->next, &why) != ERR_NONE) {
        fail_msg("%s", why.text);
    }
    journal_view_close(&view);
}

static void fill(struct fixture *f, uint64_t first, size_t count)
{
    put_many(f, first, count, 0, JOURNAL_STORED);
}

static void publish(struct fixture *f, uint64_t upto)
{
    for (struct journal_event *list; state_of(f).cursor < upto && (list = claim_some(f, 100));) {
        uint64_t last = 0;
        for (; list && list->seq <= upto; list = list->next) {
            last = list->seq;
        }
        journal_settle(f->journal, last);
    }
    journal_rewind(f->journal);
}

static void a_stretch_of_other_labels_is_not_read(void **unused)
{
    (void)unused;
    struct fixture f;
    struct look look = {.letters = "c"}; /* numbers 600 to 899 */
    begin(&f);
    fill(&f, 1, 5000);
    assert_int_equal(check_stretches(&f), 5000 / STRETCH);
    look_at(&f, &look, JOURNAL_VIEW_ALL, true, SIZE_MAX);
    assert_int_equal(look.count, 300);
    assert_int_equal(look.seqs[0], 899);
    assert_int_equal(look.next, 0);
    /* Stretches 2 and 3, and the last, which is not whole. */
    assert_int_equal(look.visited, 2 * STRETCH + 5000 % STRETCH + 1);
    look.letters = "-";
    look_at(&f, &look, JOURNAL_VIEW_ALL, true, SIZE_MAX);
    assert_int_equal(look.visited, 5000 % STRETCH + 1);
    end(&f);
}

/* Whoever has enough does not wait for a look at all the rest. */
static void what_lies_behind_a_stop_is_looked_through_no_further_than_asked(void **unused)
{
    (void)unused;
    struct fixture f;
    struct look look = {.letters = "p", .stop_at = 1};
    struct journal_view_filter filter = JOURNAL_VIEW_ALL;
    begin(&f);
    fill(&f, 1, 5000);
    change(&f, "UPDATE stretches SET labels = x'01007a' WHERE number < 18"); /* none of them wanted */
    filter.before = 18 * STRETCH + 1;
    look_at(&f, &look, filter, true, 3);
    assert_int_equal(look.count, 1);
    assert_int_equal(look.seqs[0], 18 * STRETCH);
    assert_int_equal(look.next, 18 * STRETCH);
    assert_true(look.asked <= 5);
    end(&f);
}

/* What is read would be seen: the events of a stretch that is passed over are made to fit. */
static void a_stretch_of_other_times_is_not_read(void **unused)
{
    (void)unused;
    struct fixture f;
    struct look look = {.letters = "abcdefgh"};
    char sql[200];
    begin(&f);
    fill(&f, 1, 1000);
    pass_time(60000);
    const int64_t then_ms = clock_wall_ms();
    pass_time(60000);
    fill(&f, 1001, 1000);
    publish(&f, 2000);
    WAIT_FOR(ask(&f, "SELECT cursor FROM state") == 2000);
    struct journal_view_filter filter = JOURNAL_VIEW_ALL;
    filter.until_ms = then_ms;
    look_at(&f, &look, filter, false, SIZE_MAX);
    assert_int_equal(look.count, 1000);
    struct journal_replay since = {.since_ms = then_ms + 300000, .until_ms = INT64_MAX};
    struct error why;
    journal_close(&f.journal);
    snprintf(sql, sizeof sql, "UPDATE events SET accepted = %lld WHERE seq >= 1280", (long long)then_ms - 1);
    change(&f, sql);
    look_at(&f, &look, filter, false, SIZE_MAX);
    assert_int_equal(look.count, 1000 + 2000 % STRETCH + 1); /* the last one is not whole */
    snprintf(sql, sizeof sql, "UPDATE events SET accepted = %lld WHERE seq < 1280", (long long)then_ms + 300001);
    change(&f, sql);
    start(&f);
    assert_int_equal(journal_replay(f.journal, &since, &why), ERR_NONE);
    assert_int_equal(since.replayed, 0);
    end(&f);
}

/* As an earlier version left it: no table, and a number of events. */
static void a_journal_without_stretches_is_looked_at_and_gets_them(void **unused)
{
    (void)unused;
    struct fixture f;
    static struct look before, after;
    begin(&f);
    fill(&f, 1, 3000);
    journal_close(&f.journal);
    change(&f, "DROP TABLE stretches");
    before.letters = after.letters = "bg";
    look_at(&f, &before, JOURNAL_VIEW_ALL, true, SIZE_MAX);
    assert_int_equal(before.count, 600);
    assert_int_equal(before.visited, 3000);
    start(&f);
    WAIT_FOR(check_stretches(&f) == 3000 / STRETCH);
    look_at(&f, &after, JOURNAL_VIEW_ALL, true, SIZE_MAX);
    assert_int_equal(after.count, 600);
    assert_memory_equal(after.seqs, before.seqs, sizeof after.seqs);
    assert_true(after.visited < 1500);
    fill(&f, 3001, 1000);
    assert_int_equal(check_stretches(&f), 4000 / STRETCH);
    end(&f);
}

/* By reading on, and by leaving the other upkeep alone. */
static void a_stretch_that_cannot_be_read_holds_up_nothing(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    fill(&f, 1, 3000);
    publish(&f, 3000);
    WAIT_FOR(ask(&f, "SELECT cursor FROM state") == 3000);
    journal_close(&f.journal);
    change(&f, "DROP TABLE stretches; UPDATE events SET key = x'00' WHERE seq = 300; UPDATE state SET indexed = 3000");
    start(&f);
    WAIT_FOR(ask(&f, "SELECT count(*) FROM stretches") == 3000 / STRETCH - 1);
    assert_int_equal(ask(&f, "SELECT count(*) FROM stretches WHERE number = 1"), 0);
    fill(&f, 3001, 1000);
    assert_int_equal(ask(&f, "SELECT count(*) FROM stretches"), 4000 / STRETCH - 1);
    end(&f);
}

static void a_stretch_that_a_restart_cut_in_two_is_read_again(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    for (uint64_t n = 0; n < 30; n++) {
        fill(&f, n * 100 + 1, 100);
        restart(&f);
    }
    WAIT_FOR(check_stretches(&f) == 3000 / STRETCH);
    end(&f);
}

static void what_an_earlier_version_stored_in_between_is_read_again(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    fill(&f, 1, 2000);
    journal_close(&f.journal);
    change(&f, "DELETE FROM stretches WHERE number IN (2, 5, 6)");
    start(&f);
    WAIT_FOR(check_stretches(&f) == 2000 / STRETCH);
    end(&f);
}

static void large_events_are_read_again_over_several_steps(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 600, 20000, JOURNAL_STORED); /* 5 MB a stretch */
    journal_close(&f.journal);
    change(&f, "DELETE FROM stretches");
    start(&f);
    WAIT_FOR(check_stretches(&f) == 2);
    end(&f);
}

static void dead_events_are_found_when_their_neighbours_are_deleted(void **unused)
{
    (void)unused;
    struct fixture f;
    struct error why;
    static struct look look;
    look.letters = "b"; /* 300 to 599 */
    begin(&f);
    fill(&f, 1, 1000);
    for (struct journal_event *list; (list = claim_some(&f, 1));) {
        if (list->seq == 310 || list->seq == 590) {
            assert_int_equal(journal_bury(f.journal, list->seq, "refused", &why), ERR_NONE);
        }
        journal_settle(f.journal, list->seq);
    }
    WAIT_FOR(ask(&f, "SELECT cursor = 1000 AND dead = 2 FROM state"));
    journal_close(&f.journal);
    change(&f, "DELETE FROM stretches; DELETE FROM events WHERE seq < 600"); /* by an earlier version */
    start(&f);
    WAIT_FOR(check_stretches(&f) == 1); /* 2: numbers 512 to 767 */
    look_at(&f, &look, JOURNAL_VIEW_ALL, true, SIZE_MAX);
    assert_int_equal(look.count, 2);
    assert_int_equal(look.seqs[0], 590); /* beside living ones of another label */
    assert_int_equal(look.seqs[1], 310);
    pass_time(2 * f.options.retention_ms);
    WAIT_FOR(ask(&f, "SELECT count(*) FROM events") == 0);
    assert_int_equal(ask(&f, "SELECT count(*) FROM stretches WHERE number < 1000 / 256"), 0);
    look_at(&f, &look, JOURNAL_VIEW_ALL, true, SIZE_MAX);
    assert_int_equal(look.count, 2);
    end(&f);
}

static void of_many_dead_events_those_of_other_labels_are_not_read(void **unused)
{
    (void)unused;
    struct fixture f;
    struct error why;
    static struct look look;
    look.letters = "b";
    begin(&f);
    fill(&f, 1, 5000);
    for (struct journal_event *list, *next; (list = claim_some(&f, 100));) {
        for (; list; list = next) {
            next = list->next;
            WAIT_FOR(journal_bury(f.journal, list->seq, "refused", &why) == ERR_NONE);
            journal_settle(f.journal, list->seq);
        }
    }
    WAIT_FOR(ask(&f, "SELECT cursor = 5000 AND dead = 5000 FROM state"));
    struct journal_view_filter filter = JOURNAL_VIEW_ALL;
    filter.has_state = true;
    filter.state = JOURNAL_DEAD;
    look_at(&f, &look, filter, true, SIZE_MAX);
    assert_int_equal(look.count, 300);
    assert_int_equal(look.visited, 2 * STRETCH + 5000 % STRETCH + 1);
    end(&f);
}

static void without_labels_everything_is_looked_at(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    f.options.label = NULL;
    restart(&f);
    fill(&f, 1, 600);
    assert_int_equal(ask(&f, "SELECT sum(length(labels)) FROM stretches"), 0);
    struct look look = {.letters = "a"};
    look_at(&f, &look, JOURNAL_VIEW_ALL, true, SIZE_MAX);
    assert_int_equal(look.count, 299);
    end(&f);
}

static bool long_label(struct slice head, struct slice body, struct buf *out)
{
    (void)head;
    for (int i = 0; i < 8; i++) {
        buf_append(out, (struct slice){body.data, 8});
    }
    return true;
}

static void labels_that_fill_more_than_a_page_are_given_up(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    f.options.label = long_label;
    start(&f);
    fill(&f, 1, 600);
    assert_int_equal(ask(&f, "SELECT sum(length(labels)) FROM stretches"), 0);
    end(&f);
}

/* --- held against looking at everything --- */

static uint64_t seed;

static uint64_t chance(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

/* Stores, publishes, buries, replays and starts anew. */
static void live(struct fixture *f, uint64_t *number)
{
    struct error why;
    struct journal_replay again = {.dead_only = true, .since_ms = INT64_MIN, .until_ms = INT64_MAX};
    for (int step = 0; step < 40; step++) {
        const size_t count = 1 + chance(200);
        fill(f, *number, count);
        *number += count;
        pass_time((int64_t)chance(2000));
        for (struct journal_event *list = chance(3) ? claim_some(f, chance(300) + 1) : NULL, *next; list; list = next) {
            next = list->next;
            if (chance(50) == 0) {
                assert_int_equal(journal_bury(f->journal, list->seq, "refused", &why), ERR_NONE);
            }
            journal_settle(f->journal, list->seq);
        }
        if (chance(8) == 0) {
            assert_int_equal(journal_replay(f->journal, &again, &why), ERR_NONE);
        }
        if (chance(8) == 0) {
            restart(f);
        }
    }
}

static struct journal_view_filter random_filter(uint64_t last_seq)
{
    struct journal_view_filter filter = JOURNAL_VIEW_ALL;
    filter.has_state = chance(2);
    filter.state = (enum journal_event_state)chance(3);
    filter.since_ms = chance(3) ? INT64_MIN : clock_wall_ms() - (int64_t)chance(40000);
    filter.until_ms = chance(3) ? INT64_MAX : clock_wall_ms() - (int64_t)chance(40000);
    filter.after = chance(3) ? 0 : chance(last_seq);
    filter.before = chance(3) ? UINT64_MAX : chance(last_seq + 10);
    return filter;
}

/* Page by page, as far as there are any. */
static void look_by_pages(struct fixture *f, struct look *all, struct journal_view_filter filter)
{
    static struct look page;
    page = (struct look){.letters = all->letters};
    all->count = 0;
    do {
        page.stop_at = 1 + chance(300);
        look_at(f, &page, filter, true, 1 + chance(500));
        memcpy(all->seqs + all->count, page.seqs, page.count * sizeof page.seqs[0]);
        memcpy(all->states + all->count, page.states, page.count * sizeof page.states[0]);
        all->count += page.count;
        assert_true(page.next == 0 || page.next < filter.before);
        filter.before = page.next;
    } while (page.next > 0);
}

/* The reference is made of one look at all there is, without a filter. */
static void hold_against(struct look *found, const struct look *all, const int64_t *accepted,
                         const struct journal_view_filter *filter)
{
    size_t count = 0;
    for (size_t i = 0; i < all->count; i++) {
        const uint64_t seq = all->seqs[i];
        if ((!filter->has_state || filter->state == all->states[i]) && seq > filter->after && seq < filter->before &&
            accepted[seq] >= filter->since_ms && accepted[seq] < filter->until_ms) {
            if (count >= found->count || found->seqs[count] != seq) {
                fail_msg("event %llu is missing (%s, state %d, %lld <= time < %lld, %llu < seq < %llu)",
                         (unsigned long long)seq, found->letters, filter->has_state ? (int)filter->state : -1,
                         (long long)filter->since_ms, (long long)filter->until_ms, (unsigned long long)filter->after,
                         (unsigned long long)filter->before);
            }
            assert_int_equal(found->states[count], all->states[i]);
            count++;
        }
    }
    assert_int_equal(found->count, count);
}

static bool note_time(void *ctx, const struct journal_view_event *event)
{
    ((int64_t *)ctx)[event->seq] = event->accepted_ms;
    return true;
}

static void what_is_found_is_what_looking_at_everything_finds(void **unused)
{
    (void)unused;
    static const char *const letters[] = {"a", "b", "cd", "q", "-", "abcdefghijklmnopqrstuvwxyz", "z"};
    static struct look all, found;
    static int64_t accepted[STRETCH * 40];
    struct fixture f;
    struct error why;
    uint64_t number = 1, next;
    seed = (uint64_t)clock_mono_us() | 1;
    print_message("seed %llu\n", (unsigned long long)seed);
    begin(&f);
    live(&f, &number);
    const uint64_t last_seq = state_of(&f).last_seq;
    journal_close(&f.journal);
    assert_true(check_stretches(&f) > 5);
    struct journal_view *view;
    const struct journal_view_filter everything = JOURNAL_VIEW_ALL;
    assert_int_equal(journal_view_open(&view, f.path, &why), ERR_NONE);
    assert_int_equal(journal_view_walk(view, &everything, SIZE_MAX, note_time, accepted, &next, &why), ERR_NONE);
    journal_view_close(&view);
    for (int round = 0; round < 300; round++) {
        all.letters = found.letters = letters[chance(sizeof letters / sizeof letters[0])];
        struct journal_view_filter filter = random_filter(last_seq);
        look_at(&f, &all, JOURNAL_VIEW_ALL, false, SIZE_MAX);
        look_by_pages(&f, &found, filter);
        hold_against(&found, &all, accepted, &filter);
    }
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stretch_of_other_labels_is_not_read),
        cmocka_unit_test(what_lies_behind_a_stop_is_looked_through_no_further_than_asked),
        cmocka_unit_test(a_stretch_of_other_times_is_not_read),
        cmocka_unit_test(a_journal_without_stretches_is_looked_at_and_gets_them),
        cmocka_unit_test(a_stretch_that_cannot_be_read_holds_up_nothing),
        cmocka_unit_test(a_stretch_that_a_restart_cut_in_two_is_read_again),
        cmocka_unit_test(what_an_earlier_version_stored_in_between_is_read_again),
        cmocka_unit_test(large_events_are_read_again_over_several_steps),
        cmocka_unit_test(dead_events_are_found_when_their_neighbours_are_deleted),
        cmocka_unit_test(of_many_dead_events_those_of_other_labels_are_not_read),
        cmocka_unit_test(without_labels_everything_is_looked_at),
        cmocka_unit_test(labels_that_fill_more_than_a_page_are_given_up),
        cmocka_unit_test(what_is_found_is_what_looking_at_everything_finds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
