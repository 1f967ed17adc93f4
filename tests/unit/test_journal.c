#include "journal_fixture.h"

#include "../../bridge/store/journal_internal.h"
#include "meowbridge/metrics.h"

#include <malloc.h>

#define TEST(name) cmocka_unit_test(name)

static unsigned claimable_calls(struct fixture *f)
{
    pthread_mutex_lock(&f->lock);
    unsigned calls = f->claimable;
    pthread_mutex_unlock(&f->lock);
    return calls;
}

/* --- J1, J2, J3: commit, numbers, claims --- */

static void an_appended_event_is_stored_and_claimed_whole(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    uint64_t commits = metrics_get(METRIC_JOURNAL_COMMITS);
    struct put put = {0};
    put.append.event = make_event(42, 700);
    put.append.event->is_replay = true;
    int64_t accepted_ms = put.append.event->accepted_ms;
    journal_append(f.journal, &put.append);
    await(&f, &put, 1);
    assert_int_equal(put.append.outcome, JOURNAL_STORED);
    WAIT_FOR(claimable_calls(&f) == 1);
    assert_int_equal(metrics_get(METRIC_JOURNAL_COMMITS) - commits, 1);
    for (int from_disk = 0; from_disk < 2; from_disk++) {
        struct journal_event *event = claim_some(&f, 10);
        assert_non_null(event);
        assert_null(event->next);
        assert_int_equal(event->seq, 1);
        assert_int_equal(event->accepted_ms, accepted_ms);
        assert_true(event->is_replay);
        assert_slice(event->head, "head");
        assert_int_equal(event->body.size, 700);
        assert_int_equal(number_of(event), 42);
        uint8_t key[JOURNAL_KEY_BYTES];
        number_key(42, key);
        assert_memory_equal(event->key, key, sizeof key);
        restart(&f);
    }
    end(&f);
}

static void appends_are_handed_back_in_order_and_a_call_is_one_batch(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    struct put puts[200];
    post(&f, puts, 1, 200, 50);
    await(&f, puts, 200);
    for (size_t i = 0; i < 200; i++) {
        assert_int_equal(puts[i].order, i + 1);
    }
    assert_int_equal(f.calls, 1);
    assert_int_equal(state_of(&f).last_seq, 200);
    assert_int_equal(drain(&f, 1, true), 200);
    end(&f);
}

static void an_empty_body_and_a_large_one_come_back_as_they_were(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    uint8_t key[JOURNAL_KEY_BYTES] = {1};
    struct put put = {.append.event = journal_event_new(key, 5, (struct slice){0}, NULL, 0)};
    journal_append(f.journal, &put.append);
    await(&f, &put, 1);
    put_many(&f, 9, 1, 3 << 20, JOURNAL_STORED);
    restart(&f);
    struct journal_event *first = claim_some(&f, 1), *second = claim_some(&f, 1);
    assert_int_equal(first->body.size, 0);
    assert_int_equal(first->head.size, 0);
    assert_int_equal(second->body.size, 3 << 20);
    assert_int_equal(second->body.data[(3 << 20) - 1], 'b');
    end(&f);
}

static void sequence_numbers_are_not_given_twice_even_when_no_event_is_left(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 30, 0, JOURNAL_STORED);
    assert_int_equal(drain(&f, 1, true), 30);
    WAIT_FOR(ask(&f, "SELECT cursor FROM state") == 30);
    pass_time(f.options.retention_ms + 60000);
    put_one(&f, 31);
    WAIT_FOR(ask(&f, "SELECT count(*) FROM events") == 1);
    drain(&f, 31, true);
    WAIT_FOR(ask(&f, "SELECT cursor FROM state") == 31);
    pass_time(f.options.retention_ms + 60000);
    restart(&f);
    WAIT_FOR(ask(&f, "SELECT count(*) FROM events") == 0);
    restart(&f);
    put_one(&f, 99);
    assert_int_equal(state_of(&f).last_seq, 32);
    assert_int_equal(claim_some(&f, 1)->seq, 32);
    end(&f);
}

static void events_are_claimed_once_until_a_rewind_lends_the_unsettled_ones_again(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 10, 0, JOURNAL_STORED);
    assert_int_equal(claim_some(&f, 3)->seq, 1);
    assert_int_equal(claim_some(&f, 3)->seq, 4);
    journal_settle(f.journal, 2);
    journal_settle(f.journal, 1); /* smaller: ignored */
    assert_int_equal(state_of(&f).cursor, 2);
    journal_rewind(f.journal);
    assert_int_equal(drain(&f, 3, false), 8);
    assert_null(claim_some(&f, 3));
    journal_rewind(f.journal);
    assert_int_equal(drain(&f, 3, true), 8);
    assert_int_equal(state_of(&f).cursor, 10);
    end(&f);
}

static void a_claim_keeps_to_its_limits_but_gives_at_least_one_event(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 5, 1000, JOURNAL_STORED);
    struct journal_event *list;
    struct error why;
    assert_int_equal(journal_claim(f.journal, 10, 1, &list, &why), ERR_NONE);
    assert_non_null(list);
    assert_null(list->next);
    assert_int_equal(journal_claim(f.journal, 10, 2 * 1004, &list, &why), ERR_NONE);
    assert_int_equal(list->next->seq, 3);
    assert_null(list->next->next);
    end(&f);
}

/* --- J4: the cursor --- */

static void the_cursor_goes_along_with_the_next_commit(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 10, 0, JOURNAL_STORED);
    claim_some(&f, 10);
    journal_settle(f.journal, 7);
    put_one(&f, 11);
    assert_int_equal(ask(&f, "SELECT cursor FROM state"), 7);
    end(&f);
}

static void the_cursor_is_saved_within_a_second_when_idle(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 10, 0, JOURNAL_STORED);
    claim_some(&f, 10);
    journal_settle(f.journal, 4);
    int64_t begun_us = real_us(CLOCK_MONOTONIC);
    WAIT_FOR(ask(&f, "SELECT cursor FROM state") == 4);
    assert_true(real_us(CLOCK_MONOTONIC) - begun_us < 3000000); /* a second, and patience with a busy machine */
    end(&f);
}

static void the_cursor_is_saved_at_close_and_claiming_goes_on_behind_it(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 10, 0, JOURNAL_STORED);
    claim_some(&f, 10);
    journal_settle(f.journal, 6);
    WAIT_FOR(claimable_calls(&f) == 1);
    restart(&f);
    assert_int_equal(claimable_calls(&f), 2); /* it was told of what was there */
    assert_int_equal(state_of(&f).cursor, 6);
    assert_int_equal(drain(&f, 7, true), 4);
    restart(&f);
    assert_int_equal(claimable_calls(&f), 2); /* nothing was there */
    assert_null(claim_some(&f, 10));
    end(&f);
}

static void publishing_a_backlog_does_not_sync_for_each_settle(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 2000, 0, JOURNAL_STORED);
    int64_t size_before = state_of(&f).bytes;
    for (struct journal_event *event; (event = claim_some(&f, 1));) {
        journal_settle(f.journal, event->seq);
    }
    WAIT_FOR(ask(&f, "SELECT cursor FROM state") == 2000);
    assert_true(state_of(&f).bytes - size_before < 20 * 8192 * 10); /* some seconds' worth of saves, not 2000 */
    end(&f);
}

/* --- J5: duplicates --- */

static void a_key_is_stored_once_within_a_batch_and_over_batches(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    struct put puts[3] = {0};
    for (int i = 0; i < 3; i++) {
        puts[i].append.event = make_event(i == 1 ? 8 : 7, 0);
        puts[i].append.next = i < 2 ? &puts[i + 1].append : NULL;
    }
    journal_append(f.journal, &puts[0].append);
    await(&f, puts, 3);
    assert_int_equal(puts[0].append.outcome, JOURNAL_STORED);
    assert_int_equal(puts[1].append.outcome, JOURNAL_STORED);
    assert_int_equal(puts[2].append.outcome, JOURNAL_DUPLICATE);
    assert_int_equal(put_one(&f, 8), JOURNAL_DUPLICATE);
    assert_int_equal(state_of(&f).last_seq, 2);
    restart(&f);
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    assert_int_equal(put_one(&f, 9), JOURNAL_STORED);
    end(&f);
}

static void a_key_may_come_again_after_the_retention_and_not_before(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_one(&f, 7);
    pass_time(f.options.retention_ms - 5000);
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    pass_time(10000);
    assert_int_equal(put_one(&f, 7), JOURNAL_STORED);
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    restart(&f);
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    assert_int_equal(state_of(&f).last_seq, 2);
    end(&f);
}

static void merging_that_is_cut_short_is_done_again(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 33000, 0, JOURNAL_STORED);
    WAIT_FOR(ask(&f, "SELECT EXISTS(SELECT 1 FROM runs)") == 1);
    restart(&f); /* in the midst of it: what is merged is merged again */
    put_many(&f, 1, 33000, 0, JOURNAL_DUPLICATE);
    WAIT_FOR(ask(&f, "SELECT indexed FROM state") >= 16384);
    restart(&f);
    put_many(&f, 1, 33000, 0, JOURNAL_DUPLICATE);
    end(&f);
}

/* The index merges when an eighth of max_bytes of events has come. */
static void begin_merging_early(struct fixture *f)
{
    make_fixture(f);
    f->options.max_bytes = 64 << 20;
    start(f);
}

static void duplicates_are_known_while_and_after_keys_are_merged(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f); /* sealed at 16384 keys */
    put_many(&f, 1, 40000, 0, JOURNAL_STORED);
    put_many(&f, 32000, 2000, 0, JOURNAL_DUPLICATE);
    put_many(&f, 1, 3000, 0, JOURNAL_DUPLICATE);
    WAIT_FOR(ask(&f, "SELECT indexed FROM state") > 0);
    put_many(&f, 1, 40000, 0, JOURNAL_DUPLICATE);
    assert_int_equal(ask(&f, "SELECT indexed >= 16384 AND (SELECT sum(keys) FROM runs) = indexed FROM state"), 1);
    restart(&f);
    put_many(&f, 1, 40000, 0, JOURNAL_DUPLICATE);
    put_many(&f, 40001, 10, 0, JOURNAL_STORED);
    end(&f);
}

/* Keys of 0 … count - 1 in no order. */
static uint64_t scatter(uint64_t number)
{
    return (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void put_scattered(struct fixture *f, uint64_t from, uint64_t to, enum journal_outcome expected)
{
    struct put puts[100];
    for (uint64_t at = from; at < to; at += 100) {
        for (uint64_t i = 0; i < 100; i++) {
            puts[i] = (struct put){.append.event = make_event(scatter(at + i), 1500)};
            puts[i].append.next = i < 99 ? &puts[i + 1].append : NULL;
        }
        journal_append(f->journal, &puts[0].append);
        await(f, puts, 100);
        for (int i = 0; i < 100; i++) {
            assert_int_equal(puts[i].append.outcome, expected);
        }
    }
}

static void random_keys_are_known_until_they_are_old_and_then_their_runs_go(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_merging_early(&f); /* at 8 MiB of bodies: 5600 of them */
    for (uint64_t part = 0; part < 3; part++) {
        put_scattered(&f, part * 6000, part * 6000 + 6000, JOURNAL_STORED);
        WAIT_FOR(ask(&f, "SELECT count(*) FROM runs WHERE state = 1") == (int64_t)part + 1);
        pass_time(f.options.retention_ms / 3);
    }
    put_scattered(&f, 7000, 18000, JOURNAL_DUPLICATE);
    restart(&f);
    put_scattered(&f, 7000, 18000, JOURNAL_DUPLICATE);
    while (claim_some(&f, 100)) {
    }
    journal_settle(f.journal, 18000);
    pass_time(60 * 1000);
    put_scattered(&f, 0, 100, JOURNAL_STORED); /* the first part's time is over */
    WAIT_FOR(ask(&f, "SELECT min(number) FROM runs") == 2);
    put_scattered(&f, 7000, 18000, JOURNAL_DUPLICATE);
    pass_time(f.options.retention_ms);
    put_scattered(&f, 7000, 7100, JOURNAL_STORED);
    WAIT_FOR(ask(&f, "SELECT count(*) FROM runs") == 0 && ask(&f, "SELECT count(*) FROM pages") == 0);
    end(&f);
}

static void duplicates_alone_write_nothing(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_one(&f, 1);
    int64_t bytes = state_of(&f).bytes;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(put_one(&f, 1), JOURNAL_DUPLICATE);
    }
    assert_int_equal(state_of(&f).bytes, bytes);
    end(&f);
}

/* --- the clock --- */

static void a_clock_that_leaps_ahead_for_a_while_ages_no_key(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_one(&f, 7);
    wall_offset_ms += INT64_C(365) * 86400 * 1000;
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    pass_time(5 * 60 * 1000);
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    wall_offset_ms -= INT64_C(365) * 86400 * 1000;
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    wall_offset_ms += INT64_C(365) * 86400 * 1000;
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    pass_time(11 * 60 * 1000); /* it has lasted: so it is true */
    assert_int_equal(put_one(&f, 7), JOURNAL_STORED);
    wall_offset_ms -= INT64_C(365) * 86400 * 1000;
    end(&f);
}

static void a_clock_that_steps_back_ages_keys_by_the_time_that_really_passes(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_one(&f, 7);
    wall_offset_ms -= INT64_C(365) * 86400 * 1000;
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    put_one(&f, 8);
    pass_time(f.options.retention_ms / 2);
    restart(&f);
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    pass_time(f.options.retention_ms / 2 + 1000);
    assert_int_equal(put_one(&f, 7), JOURNAL_STORED);
    claim_some(&f, 3);
    journal_settle(f.journal, 2);
    put_one(&f, 9);
    pass_time(10000);
    put_one(&f, 10);
    WAIT_FOR(ask(&f, "SELECT min(seq) FROM events") == 3);
    wall_offset_ms += INT64_C(365) * 86400 * 1000;
    end(&f);
}

/* --- J6: retention --- */

static void published_events_go_after_the_retention_and_pending_ones_stay(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 2000, 300, JOURNAL_STORED);
    for (size_t n = 0; n < 1500;) {
        for (struct journal_event *list = claim_some(&f, 100); list; list = list->next) {
            n++;
        }
    }
    journal_settle(f.journal, 1500);
    put_one(&f, 2001);
    assert_int_equal(ask(&f, "SELECT count(*) FROM events"), 2001);
    pass_time(f.options.retention_ms + 10000);
    put_one(&f, 2002);
    WAIT_FOR(ask(&f, "SELECT count(*) FROM events") == 502);
    assert_int_equal(ask(&f, "SELECT min(seq) FROM events"), 1501);
    restart(&f);
    assert_int_equal(drain(&f, 1501, true), 502);
    end(&f);
}

static void dead_events_are_kept_with_their_reason_over_retention_and_restart(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 10, 500, JOURNAL_STORED);
    struct error why;
    claim_some(&f, 10);
    assert_int_equal(journal_bury(f.journal, 3, "the broker refused it", &why), ERR_NONE);
    journal_settle(f.journal, 10);
    WAIT_FOR(state_of(&f).dead == 1);
    pass_time(f.options.retention_ms + 10000);
    put_one(&f, 11);
    WAIT_FOR(ask(&f, "SELECT count(*) FROM events") == 1);
    restart(&f);
    assert_int_equal(state_of(&f).dead, 1);
    assert_int_equal(
        ask(&f, "SELECT count(*) FROM dead WHERE seq = 3 AND reason = 'the broker refused it' AND length(body) = 500"), 1);
    end(&f);
}

static void an_event_that_is_buried_twice_is_dead_once(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 3, 0, JOURNAL_STORED);
    struct error why;
    for (int i = 0; i < 2; i++) {
        claim_some(&f, 3);
        assert_int_equal(journal_bury(f.journal, 2, "no", &why), ERR_NONE);
        journal_rewind(f.journal);
    }
    put_one(&f, 4);
    WAIT_FOR(state_of(&f).dead == 1);
    restart(&f);
    assert_int_equal(state_of(&f).dead, 1);
    assert_int_equal(ask(&f, "SELECT count(*) FROM dead"), 1);
    end(&f);
}

static void a_reason_is_cut_at_the_end_of_a_character(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_one(&f, 1);
    claim_some(&f, 1);
    char reason[JOURNAL_MAX_REASON + 10];
    memset(reason, 'r', sizeof reason);
    memcpy(reason + JOURNAL_MAX_REASON - 1, "\xc3\xa4", 2); /* would be cut in two */
    reason[sizeof reason - 1] = 0;
    struct error why;
    assert_int_equal(journal_bury(f.journal, 1, reason, &why), ERR_NONE);
    WAIT_FOR(state_of(&f).dead == 1);
    assert_int_equal(ask(&f, "SELECT length(CAST(reason AS BLOB)) FROM dead"), JOURNAL_MAX_REASON - 1);
    end(&f);
}

/* --- J7: the gap --- */

static size_t allocated(void)
{
#if defined(__SANITIZE_ADDRESS__)
    size_t __sanitizer_get_current_allocated_bytes(void);
    return __sanitizer_get_current_allocated_bytes();
#elif defined(__SANITIZE_THREAD__)
    return 0;
#else
    return mallinfo2().uordblks + mallinfo2().hblkhd;
#endif
}

static void memory_does_not_grow_with_what_waits_and_order_is_kept_over_the_gap(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    size_t before = allocated();
    put_many(&f, 1, 900, 100000, JOURNAL_STORED); /* 90 MB */
    assert_true(allocated() - before < 60 << 20); /* SQLite's cache and the lane */
    uint64_t next = 1;
    for (struct journal_event *list; next <= 900;) {
        list = claim_some(&f, 20);
        assert_non_null(list);
        for (; list; list = list->next) {
            assert_true(next > 900 || number_of(list) == next);
            assert_int_equal(list->seq, next++);
        }
        assert_true(allocated() - before < 70 << 20);
        journal_settle(f.journal, next - 1);
        if (next < 500) {
            put_one(&f, 900 + next); /* what comes while there is a gap waits behind it */
        }
    }
    while (claim_some(&f, 100)) {
    }
    put_one(&f, 9999);
    assert_int_equal(number_of(claim_some(&f, 1)), 9999);
    end(&f);
}

static void a_rewind_in_the_gap_lends_all_from_the_cursor_on(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 20000, 0, JOURNAL_STORED);
    for (int i = 0; i < 100; i++) {
        claim_some(&f, 100);
    }
    journal_settle(f.journal, 50);
    journal_rewind(f.journal);
    assert_int_equal(drain(&f, 51, true), 19950);
    end(&f);
}

/* --- max_bytes --- */

static void begin_small(struct fixture *f, int64_t max_bytes)
{
    make_fixture(f);
    f->options.max_bytes = max_bytes;
    start(f);
}

static void a_full_journal_trims_published_events_and_remembers_their_keys(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_small(&f, 4 << 20);
    for (uint64_t at = 1; at < 20000; at += 500) { /* 20 MB through 4 MB */
        put_many(&f, at, 500, 1000, JOURNAL_STORED);
        assert_int_equal(drain(&f, at, true), 500);
        assert_in_range(state_of(&f).bytes, 0, 4 << 20);
    }
    assert_true(ask(&f, "SELECT count(*) FROM events") < 5000);
    put_many(&f, 1, 20000, 1000, JOURNAL_DUPLICATE);
    restart(&f);
    put_many(&f, 1, 20000, 1000, JOURNAL_DUPLICATE);
    end(&f);
}

static void events_whose_keys_are_in_memory_only_are_trimmed_after_their_keys_are_merged(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_small(&f, 4 << 20);
    struct error why;
    for (uint64_t number = 1; number <= 100; number++) { /* dead ones take most of the room */
        put_many(&f, number, 1, 30000, JOURNAL_STORED);
        WAIT_FOR(state_of(&f).dead == number - 1);
        struct journal_event *event = claim_some(&f, 1);
        assert_int_equal(journal_bury(f.journal, event->seq, "refused", &why), ERR_NONE);
        journal_settle(f.journal, event->seq);
    }
    for (uint64_t number = 101; number <= 300; number += 10) { /* fewer than make it merge */
        put_many(&f, number, 10, 2000, JOURNAL_STORED);
        assert_int_equal(drain(&f, number, true), 10);
    }
    WAIT_FOR(ask(&f, "SELECT count(*) < 100 FROM events"));
    restart(&f);
    put_many(&f, 1, 300, 0, JOURNAL_DUPLICATE);
    assert_int_equal(state_of(&f).dead, 100);
    end(&f);
}

static void a_journal_full_of_pending_events_refuses_until_some_are_published(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_small(&f, 2 << 20);
    uint64_t number = 1;
    struct put put;
    do {
        post(&f, &put, number++, 1, 30000);
        await(&f, &put, 1);
    } while (put.append.outcome == JOURNAL_STORED && number < 1000);
    assert_int_equal(put.append.outcome, JOURNAL_REFUSED);
    assert_string_equal(put.why, "the journal is full");
    struct error why;
    assert_int_equal(journal_ready(f.journal, &why), ERR_FULL);
    assert_string_equal(why.text, "the journal is full");
    uint64_t stored = state_of(&f).last_seq;
    assert_true(stored > 30 && stored < 70);
    assert_int_equal(put_one(&f, 1), JOURNAL_DUPLICATE);
    assert_int_equal(ask(&f, "SELECT count(*) FROM events"), stored);
    struct journal_event *list = claim_some(&f, 20);
    assert_int_equal(journal_bury(f.journal, list->seq, "dead while full", &why), ERR_NONE);
    WAIT_FOR(state_of(&f).dead == 1);
    journal_settle(f.journal, 10);
    WAIT_FOR(journal_ready(f.journal, &why) == ERR_NONE);
    post(&f, &put, 5000, 1, 30000);
    await(&f, &put, 1);
    assert_int_equal(put.append.outcome, JOURNAL_STORED);
    assert_int_equal(ask(&f, "SELECT count(*) FROM events WHERE seq > 10"), stored - 10 + 1);
    assert_int_equal(state_of(&f).dead, 1);
    end(&f);
}

/* --- crashes --- */

#ifdef __SANITIZE_THREAD__
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

/* In a child: appends without end, tells of each that is stored, and settles some. */
static void run_until_killed(struct fixture *f, int out, uint64_t first)
{
    start(f);
    for (uint64_t number = first;; number += 7) {
        struct put puts[7];
        post(f, puts, number, 7, 900);
        await(f, puts, 7);
        for (uint64_t i = 0; i < 7; i++) {
            uint64_t told = number + i;
            if (puts[i].append.outcome != JOURNAL_STORED || write(out, &told, sizeof told) != sizeof told) {
                _exit(1);
            }
        }
        struct journal_event *list = claim_some(f, 6);
        if (list) {
            journal_settle(f->journal, list->seq);
        }
    }
}

static void what_was_stored_survives_a_kill_exactly_once_and_in_order(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    uint64_t stored = 0;
    for (int round = 0; round < 4; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0) {
            run_until_killed(&f, pipes[1], stored + 1);
        }
        close(pipes[1]);
        uint64_t told;
        for (int n = 0; n < 300 + round * 57 && read(pipes[0], &told, sizeof told) == sizeof told; n++) {
            stored = told;
        }
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        while (read(pipes[0], &told, sizeof told) == sizeof told) {
            stored = told;
        }
        close(pipes[0]);
        start(&f);
        uint64_t last = state_of(&f).last_seq;
        assert_true(last >= stored);
        assert_int_equal(ask(&f, "SELECT count(*) = max(seq) AND count(DISTINCT key) = count(*) FROM events"), 1);
        uint64_t cursor = state_of(&f).cursor;
        assert_int_equal(drain(&f, cursor + 1, false), last - cursor);
        put_many(&f, 1, stored, 900, JOURNAL_DUPLICATE);
        stored = last;
        journal_close(&f.journal);
    }
    end(&f);
}

/* --- opening --- */

static void assert_cannot_open(struct fixture *f, enum err expected, const char *expected_text)
{
    struct error why = {0};
    struct journal *journal = NULL;
    enum err code = journal_open_sqlite(&journal, &f->options, &why);
    if (code != expected || !strstr(why.text, expected_text)) {
        fail_msg("got %d, \"%s\"; expected %d, \"%s\"", (int)code, why.text, (int)expected, expected_text);
    }
    assert_null(journal);
}

static char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(*size + 1);
    assert_int_equal(fread(data, 1, *size, file), *size);
    fclose(file);
    return data;
}

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
}

/* Refused, byte-identical, and with nothing left beside it. */
static void assert_left_alone(struct fixture *f, enum err expected, const char *expected_text)
{
    size_t before_size, after_size;
    char *before = read_file(f->path, &before_size);
    size_t files = files_in(f->dir);
    assert_cannot_open(f, expected, expected_text);
    char *after = read_file(f->path, &after_size);
    assert_int_equal(before_size, after_size);
    assert_memory_equal(before, after, before_size);
    assert_int_equal(files_in(f->dir), files);
    free(before);
    free(after);
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *handle;
    assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
    assert_int_equal(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(handle);
}

static void a_file_that_is_not_ours_is_refused_and_left_alone(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    write_file(f.path, "a shopping list", 15);
    assert_left_alone(&f, ERR_CORRUPT, "is not a journal of meowbridge: it is no SQLite database");
    unlink(f.path);
    run_sql(f.path, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    assert_left_alone(&f, ERR_CORRUPT, "is not a journal of meowbridge: it is another program's SQLite database");
    end(&f);
}

static void a_newer_schema_is_refused_as_such(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    journal_close(&f.journal);
    run_sql(f.path, "PRAGMA user_version = 9");
    assert_left_alone(&f, ERR_VERSION, "schema 9 of a newer meowbridge");
    end(&f);
}

static void a_damaged_journal_is_refused_and_left_alone(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 2000, 500, JOURNAL_STORED);
    journal_close(&f.journal);
    size_t size;
    char *data = read_file(f.path, &size);
    write_file(f.path, data, size / 2);
    assert_left_alone(&f, ERR_CORRUPT, "is damaged: its end is missing");
    write_file(f.path, data, 50);
    assert_left_alone(&f, ERR_CORRUPT, "meowbridge");
    for (size_t page = 0; page < 8; page++) { /* the roots of all tables */
        char *damaged = malloc(size);
        memcpy(damaged, data, size);
        memset(damaged + page * 8192 + 100 * (page == 0), 0xa5, 8192 - 100 * (page == 0));
        write_file(f.path, damaged, size);
        assert_left_alone(&f, ERR_CORRUPT, "is damaged");
        free(damaged);
    }
    write_file(f.path, data, size);
    start(&f);
    assert_int_equal(drain(&f, 1, true), 2000);
    free(data);
    end(&f);
}

/* A kill while the schema was being created: all is in the file, but the rollback journal says that it was empty before. */
static void a_creation_that_was_cut_short_begins_anew(void **unused)
{
    (void)unused;
    struct fixture f;
    char path[256];
    static const uint8_t rollback[512] = {/* https://www.sqlite.org/fileformat2.html, section 3 */
                                          0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, 0, 0, 0, 0, 1,   2,
                                          3,    4,    0,    0,    0,    0,    0,    0,    2, 0, 0, 0, 0x20};
    begin(&f);
    put_one(&f, 1);
    journal_close(&f.journal);
    snprintf(path, sizeof path, "%s-journal", f.path);
    write_file(path, rollback, sizeof rollback);
    start(&f);
    assert_int_equal(put_one(&f, 1), JOURNAL_STORED);
    end(&f);
}

static void a_second_bridge_is_told_who_has_the_journal(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    char expected[64];
    snprintf(expected, sizeof expected, "another meowbridge (pid %ld) uses this journal", (long)getpid());
    assert_cannot_open(&f, ERR_BUSY, expected);
    assert_int_equal(put_one(&f, 1), JOURNAL_STORED); /* the first one took no harm */
    journal_close(&f.journal);
    assert_int_equal(files_in(f.dir), 1); /* neither lock nor log */
    start(&f);
    end(&f);
}

static void places_that_cannot_hold_a_journal_are_named_with_a_remedy(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    char path[256];
    f.options.path = path;
    snprintf(path, sizeof path, "%s/none/journal.db", f.dir);
    assert_cannot_open(&f, ERR_IO, "No such file or directory; create the directory, or set journal.path");
    snprintf(path, sizeof path, "%s/sub", f.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_cannot_open(&f, ERR_IO, "journal.path must name a file");
    rmdir(path);
    end(&f);
}

static void a_directory_that_may_not_be_written_is_named_with_a_remedy(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    assert_int_equal(chmod(f.dir, 0555), 0);
    pid_t child = fork();
    if (child == 0) { /* root may do anything */
        if (getuid() == 0 && setuid(65534) != 0) {
            _exit(2);
        }
        struct journal *journal;
        struct error why;
        bool as_expected = journal_open_sqlite(&journal, &f.options, &why) == ERR_IO &&
                           strstr(why.text, "Permission denied; the user that runs the bridge must be able to write it");
        _exit(as_expected ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    chmod(f.dir, 0700);
    end(&f);
}

static void the_files_are_for_their_owner_only(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_one(&f, 1);
    static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; i < 4; i++) {
        char path[256];
        struct stat status;
        snprintf(path, sizeof path, "%s%s", f.path, suffixes[i]);
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(status.st_mode & 0777, 0600);
    }
    end(&f);
}

static void the_identity_is_made_once_and_kept(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    char first[JOURNAL_IDENTITY_SIZE], second[JOURNAL_IDENTITY_SIZE];
    struct error why;
    uint8_t bytes[6];
    assert_int_equal(journal_identity(f.journal, first, &why), ERR_NONE);
    restart(&f);
    assert_int_equal(journal_identity(f.journal, second, &why), ERR_NONE);
    assert_string_equal(first, second);
    assert_int_equal(strncmp(first, "meowbridge-", 11), 0);
    assert_true(hex_decode(slice_of(first + 11), bytes, 6));
    end(&f);
}

static void a_journal_is_closed_without_having_been_started(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    struct error why;
    assert_int_equal(journal_open_sqlite(&f.journal, &f.options, &why), ERR_NONE);
    journal_close(&f.journal);
    assert_null(f.journal);
    journal_close(&f.journal);
    end(&f);
}

static void closing_hands_back_what_is_under_way(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    static struct put puts[3000];
    for (size_t i = 0; i < 3000; i += 100) {
        post(&f, &puts[i], i + 1, 100, 500);
    }
    journal_close(&f.journal);
    for (size_t i = 0; i < 3000; i++) {
        assert_true(puts[i].is_done);
        assert_int_equal(puts[i].append.outcome, JOURNAL_STORED);
    }
    start(&f);
    assert_int_equal(drain(&f, 1, true), 3000);
    end(&f);
}

/* J2: the numbers of a batch follow from each other; a row that is not the journal's own breaks that, and must not go unseen. */
static void a_batch_that_would_get_other_numbers_is_refused(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 20, 0, JOURNAL_STORED); /* one by one, and in statements of several rows */
    assert_int_equal(ask(&f, "SELECT count(*) = 20 AND min(seq) = 1 AND max(seq) = 20 FROM events"), 1);
    sqlite3 *stranger;
    assert_int_equal(sqlite3_open_v2(f.path, &stranger, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    sqlite3_busy_timeout(stranger, 5000);
    sqlite3_db_config(stranger, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    const char *sql = "INSERT INTO events SELECT 1000, accepted, kept, flags, key, head, body FROM events WHERE seq = 1";
    assert_int_equal(sqlite3_exec(stranger, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(stranger);
    struct put puts[20];
    for (size_t count = 2; count <= 20; count += 18) {
        struct error why;
        WAIT_FOR(journal_ready(f.journal, &why) == ERR_NONE);
        post(&f, puts, 21, count, 0);
        await(&f, puts, count);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(puts[i].append.outcome, JOURNAL_REFUSED);
        }
    }
    assert_int_equal(ask(&f, "SELECT count(*) FROM events"), 21);
    end(&f);
}

static void a_deleted_or_replaced_file_refuses_appends_until_it_is_back(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_one(&f, 1);
    static const char *const suffixes[] = {"", "-wal"};
    for (uint64_t i = 0; i < 2; i++) {
        char path[256], away[256];
        snprintf(path, sizeof path, "%s%s", f.path, suffixes[i]);
        snprintf(away, sizeof away, "%s/away", f.dir);
        assert_int_equal(rename(path, away), 0);
        write_file(path, "", 0);
        struct put put;
        post(&f, &put, 10 + i, 1, 0);
        await(&f, &put, 1);
        assert_int_equal(put.append.outcome, JOURNAL_REFUSED);
        assert_non_null(strstr(put.why, "was deleted or replaced"));
        struct error why;
        assert_int_equal(journal_ready(f.journal, &why), ERR_IO);
        assert_int_equal(rename(away, path), 0);
        WAIT_FOR(journal_ready(f.journal, &why) == ERR_NONE);
        assert_int_equal(put_one(&f, 10 + i), JOURNAL_STORED);
    }
    end(&f);
}

/* --- many threads --- */

struct feeder {
    struct fixture *f;
    uint64_t first;
    pthread_t thread;
};

static void *feed(void *ctx)
{
    struct feeder *feeder = ctx;
    for (uint64_t n = 0; n < 1000; n += 10) {
        struct put puts[10];
        post(feeder->f, puts, feeder->first + n, 10, 200);
        await(feeder->f, puts, 10);
    }
    return NULL;
}

static void many_threads_append_while_one_publishes_and_another_looks(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    struct feeder feeders[3];
    for (uint64_t i = 0; i < 3; i++) {
        feeders[i] = (struct feeder){&f, i * 1000000, 0};
        assert_int_equal(pthread_create(&feeders[i].thread, NULL, feed, &feeders[i]), 0);
    }
    uint64_t next = 1;
    int64_t deadline_us = real_us(CLOCK_MONOTONIC) + DEADLINE_MS * 1000;
    while (next <= 3000 && real_us(CLOCK_MONOTONIC) < deadline_us) {
        struct error why;
        for (struct journal_event *list = claim_some(&f, 50); list; list = list->next) {
            assert_int_equal(list->seq, next++);
        }
        assert_int_equal(journal_ready(f.journal, &why), ERR_NONE);
        journal_settle(f.journal, next - 1);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(feeders[i].thread, NULL);
    }
    assert_int_equal(next, 3001);
    assert_int_equal(state_of(&f).last_seq, 3000);
    end(&f);
}

/* --- without storage --- */

static void begin_memory(struct fixture *f, int64_t max_bytes)
{
    make_fixture(f);
    f->is_memory = true;
    f->options.max_bytes = max_bytes;
    start(f);
    assert_false(journal_keeps(f->journal));
    journal_link(f->journal, true, NULL);
}

static void without_storage_an_event_is_stored_when_it_is_settled(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_memory(&f, 0);
    struct put puts[3];
    post(&f, puts, 1, 3, 0);
    assert_int_equal(f.claimable, 1);
    assert_int_equal(f.handed_back, 0);
    assert_int_equal(claim_some(&f, 3)->seq, 1);
    journal_settle(f.journal, 2);
    assert_true(puts[0].is_done && puts[1].is_done && !puts[2].is_done);
    assert_int_equal(puts[1].append.outcome, JOURNAL_STORED);
    assert_int_equal(f.calls, 1);
    assert_int_equal(state_of(&f).cursor, 2);
    assert_int_equal(put_one(&f, 1), JOURNAL_DUPLICATE);
    journal_rewind(f.journal);
    assert_int_equal(claim_some(&f, 3)->seq, 3);
    journal_settle(f.journal, 3);
    assert_int_equal(puts[2].append.outcome, JOURNAL_STORED);
    assert_int_equal(state_of(&f).bytes, 0);
    end(&f);
}

static void without_storage_a_second_append_shares_the_outcome_of_the_first(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_memory(&f, 0);
    struct put first, second, third;
    post(&f, &first, 1, 1, 0);
    post(&f, &second, 1, 1, 0);
    post(&f, &third, 1, 1, 0);
    assert_null(claim_some(&f, 5)->next);
    journal_settle(f.journal, 1);
    assert_int_equal(first.append.outcome, JOURNAL_STORED);
    assert_int_equal(second.append.outcome, JOURNAL_DUPLICATE);
    assert_int_equal(third.append.outcome, JOURNAL_DUPLICATE);
    post(&f, &first, 2, 1, 0);
    post(&f, &second, 2, 1, 0);
    journal_link(f.journal, false, NULL);
    assert_int_equal(first.append.outcome, JOURNAL_REFUSED);
    assert_int_equal(second.append.outcome, JOURNAL_REFUSED);
    assert_string_equal(second.why, "the broker is away");
    end(&f);
}

static void without_storage_a_lost_link_refuses_what_waits_and_what_comes(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    f.is_memory = true;
    start(&f);
    struct error why;
    assert_int_equal(put_one(&f, 1), JOURNAL_REFUSED); /* no broker yet */
    assert_int_equal(journal_ready(f.journal, &why), ERR_CLOSED);
    assert_string_equal(why.text, "the broker is away");
    journal_link(f.journal, true, NULL);
    assert_int_equal(journal_ready(f.journal, &why), ERR_NONE);
    struct put puts[4];
    post(&f, puts, 1, 4, 0);
    struct journal_event *lent = claim_some(&f, 2);
    journal_link(f.journal, false, "the broker said goodbye");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(puts[i].append.outcome, JOURNAL_REFUSED);
        assert_string_equal(puts[i].why, "the broker said goodbye");
    }
    assert_int_equal(number_of(lent), 1); /* lent ones stay until the rewind */
    assert_int_equal(state_of(&f).cursor, 4);
    assert_null(claim_some(&f, 2));
    journal_rewind(f.journal);
    assert_null(claim_some(&f, 2));
    journal_link(f.journal, true, NULL);
    post(&f, puts, 1, 1, 0); /* refused ones are not remembered */
    assert_int_equal(claim_some(&f, 2)->seq, 5);
    journal_settle(f.journal, 5);
    assert_int_equal(puts[0].append.outcome, JOURNAL_STORED);
    end(&f);
}

static void without_storage_what_cannot_be_published_is_refused_at_once(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_memory(&f, 0);
    struct put puts[2];
    struct error why;
    post(&f, puts, 1, 2, 0);
    claim_some(&f, 2);
    assert_int_equal(journal_bury(f.journal, 1, "not authorized (0x87)", &why), ERR_NONE);
    assert_true(puts[0].is_done);
    assert_int_equal(puts[0].append.outcome, JOURNAL_REFUSED);
    assert_string_equal(puts[0].why, "not authorized (0x87)");
    struct put again;
    post(&f, &again, 1, 1, 0); /* tried again, since it is not known as a duplicate */
    journal_settle(f.journal, 2);
    assert_int_equal(puts[1].append.outcome, JOURNAL_STORED);
    assert_int_equal(claim_some(&f, 1)->seq, 3);
    journal_settle(f.journal, 3);
    assert_int_equal(again.append.outcome, JOURNAL_STORED);
    assert_int_equal(f.handed_back, 3);
    end(&f);
}

static void without_storage_room_is_bounded(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_memory(&f, 10000);
    struct put puts[3];
    post(&f, puts, 1, 3, 4000);
    assert_true(puts[2].is_done);
    assert_int_equal(puts[2].append.outcome, JOURNAL_REFUSED);
    assert_string_equal(puts[2].why, "too many events wait for the broker's confirmation");
    claim_some(&f, 3);
    journal_settle(f.journal, 2);
    post(&f, puts, 3, 1, 4000);
    assert_false(puts[0].is_done);
    struct error why;
    assert_int_equal(journal_ready(f.journal, &why), ERR_NONE);
    journal_close(&f.journal);
    assert_int_equal(puts[0].append.outcome, JOURNAL_REFUSED);
    assert_string_equal(puts[0].why, "stopping");
    end(&f);
}

static void without_storage_the_last_65536_keys_are_remembered_and_no_more(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_memory(&f, 0);
    struct put puts[64];
    for (uint64_t at = 0; at < 65536 + 64; at += 64) {
        post(&f, puts, at, 64, 0);
        uint64_t last = 0;
        for (struct journal_event *list = claim_some(&f, 64); list; list = list->next) {
            last = list->seq;
        }
        journal_settle(f.journal, last);
        assert_int_equal(puts[63].append.outcome, JOURNAL_STORED);
    }
    assert_int_equal(put_one(&f, 64), JOURNAL_DUPLICATE);
    post(&f, puts, 63, 1, 0);
    assert_false(puts[0].is_done); /* forgotten: on its way again */
    end(&f);
}

static void a_keyset_finds_what_was_put_and_not_removed(void **unused)
{
    (void)unused;
    enum { KEYS = 3000 };
    static bool expected[KEYS];
    struct keyset set;
    uint8_t key[JOURNAL_KEY_BYTES];
    uint64_t random = 1;
    keyset_init(&set);
    for (int round = 0; round < 20000; round++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint64_t number = (random >> 33) % KEYS;
        number_key(number, key);
        expected[number] = random >> 63;
        if (expected[number]) {
            assert_true(keyset_reserve(&set, 1));
            keyset_put(&set, key, round);
        } else {
            keyset_remove(&set, key);
        }
    }
    size_t count = 0;
    for (uint64_t number = 0; number < KEYS; number++) {
        number_key(number, key);
        assert_int_equal(keyset_find(&set, key) != NULL, expected[number]);
        count += expected[number];
    }
    assert_int_equal(set.count, count);
    keyset_free(&set);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        TEST(an_appended_event_is_stored_and_claimed_whole),
        TEST(appends_are_handed_back_in_order_and_a_call_is_one_batch),
        TEST(an_empty_body_and_a_large_one_come_back_as_they_were),
        TEST(sequence_numbers_are_not_given_twice_even_when_no_event_is_left),
        TEST(events_are_claimed_once_until_a_rewind_lends_the_unsettled_ones_again),
        TEST(a_claim_keeps_to_its_limits_but_gives_at_least_one_event),
        TEST(the_cursor_goes_along_with_the_next_commit),
        TEST(the_cursor_is_saved_within_a_second_when_idle),
        TEST(the_cursor_is_saved_at_close_and_claiming_goes_on_behind_it),
        TEST(publishing_a_backlog_does_not_sync_for_each_settle),
        TEST(a_key_is_stored_once_within_a_batch_and_over_batches),
        TEST(a_key_may_come_again_after_the_retention_and_not_before),
        TEST(duplicates_are_known_while_and_after_keys_are_merged),
        TEST(merging_that_is_cut_short_is_done_again),
        TEST(random_keys_are_known_until_they_are_old_and_then_their_runs_go),
        TEST(duplicates_alone_write_nothing),
        TEST(a_clock_that_leaps_ahead_for_a_while_ages_no_key),
        TEST(a_clock_that_steps_back_ages_keys_by_the_time_that_really_passes),
        TEST(published_events_go_after_the_retention_and_pending_ones_stay),
        TEST(dead_events_are_kept_with_their_reason_over_retention_and_restart),
        TEST(an_event_that_is_buried_twice_is_dead_once),
        TEST(a_reason_is_cut_at_the_end_of_a_character),
        TEST(memory_does_not_grow_with_what_waits_and_order_is_kept_over_the_gap),
        TEST(a_rewind_in_the_gap_lends_all_from_the_cursor_on),
        TEST(a_full_journal_trims_published_events_and_remembers_their_keys),
        TEST(events_whose_keys_are_in_memory_only_are_trimmed_after_their_keys_are_merged),
        TEST(a_journal_full_of_pending_events_refuses_until_some_are_published),
        TEST(what_was_stored_survives_a_kill_exactly_once_and_in_order),
        TEST(a_file_that_is_not_ours_is_refused_and_left_alone),
        TEST(a_newer_schema_is_refused_as_such),
        TEST(a_damaged_journal_is_refused_and_left_alone),
        TEST(a_creation_that_was_cut_short_begins_anew),
        TEST(a_second_bridge_is_told_who_has_the_journal),
        TEST(places_that_cannot_hold_a_journal_are_named_with_a_remedy),
        TEST(a_directory_that_may_not_be_written_is_named_with_a_remedy),
        TEST(the_files_are_for_their_owner_only),
        TEST(the_identity_is_made_once_and_kept),
        TEST(a_journal_is_closed_without_having_been_started),
        TEST(closing_hands_back_what_is_under_way),
        TEST(a_batch_that_would_get_other_numbers_is_refused),
        TEST(a_deleted_or_replaced_file_refuses_appends_until_it_is_back),
        TEST(many_threads_append_while_one_publishes_and_another_looks),
        TEST(a_keyset_finds_what_was_put_and_not_removed),
        TEST(without_storage_an_event_is_stored_when_it_is_settled),
        TEST(without_storage_a_second_append_shares_the_outcome_of_the_first),
        TEST(without_storage_a_lost_link_refuses_what_waits_and_what_comes),
        TEST(without_storage_what_cannot_be_published_is_refused_at_once),
        TEST(without_storage_room_is_bounded),
        TEST(without_storage_the_last_65536_keys_are_remembered_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
