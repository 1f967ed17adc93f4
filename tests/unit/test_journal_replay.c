/* Replays: journal.h, J8 and "replaying". */
#include "journal_fixture.h"

static struct journal_replay everything(void)
{
    return (struct journal_replay){.since_ms = INT64_MIN, .until_ms = INT64_MAX};
}

static uint64_t replay(struct fixture *f, struct journal_replay what)
{
    struct error why;
    assert_int_equal(journal_replay(f->journal, &what, &why), ERR_NONE);
    return what.replayed;
}

static uint64_t replay_seqs(struct fixture *f, const uint64_t *seqs, size_t count)
{
    struct journal_replay what = everything();
    what.seqs = seqs;
    what.seq_count = count;
    return replay(f, what);
}

static uint64_t replay_dead(struct fixture *f)
{
    struct journal_replay what = everything();
    what.dead_only = true;
    return replay(f, what);
}

/* Claims all there is, buries each if there is a reason, and settles. Returns the last one's number. */
static uint64_t publish_all(struct fixture *f, const char *reason)
{
    uint64_t last = 0;
    struct error why;
    for (struct journal_event *list; (list = claim_some(f, 100));) {
        for (; list; list = list->next) {
            last = list->seq;
            if (reason) {
                assert_int_equal(journal_bury(f->journal, last, reason, &why), ERR_NONE);
            }
        }
        journal_settle(f->journal, last);
    }
    return last;
}

static void bury_all(struct fixture *f, const char *reason)
{
    uint64_t dead = state_of(f).dead + state_of(f).last_seq - state_of(f).cursor;
    publish_all(f, reason);
    WAIT_FOR(state_of(f).dead == dead);
}

static void a_published_event_is_replayed_as_a_new_one_behind_all_others(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 3, 700, JOURNAL_STORED);
    publish_all(&f, NULL);
    const int64_t before_ms = clock_wall_ms();
    pass_time(60000);
    assert_int_equal(replay_seqs(&f, (uint64_t[]){2}, 1), 1);
    struct journal_event *event = claim_some(&f, 10);
    assert_non_null(event);
    assert_null(event->next);
    assert_int_equal(event->seq, 4);
    assert_true(event->is_replay);
    assert_true(event->accepted_ms >= before_ms + 60000);
    assert_int_equal(number_of(event), 2);
    assert_int_equal(event->body.size, 700);
    assert_slice(event->head, "head");
    uint8_t key[JOURNAL_KEY_BYTES];
    number_key(2, key);
    assert_memory_equal(event->key, key, sizeof key);
    assert_int_equal(ask(&f, "SELECT count(*) FROM events WHERE seq = 2 AND flags = 0"), 1);
    journal_settle(f.journal, 4);
    assert_int_equal(state_of(&f).cursor, 4);
    end(&f);
}

static void what_is_pending_or_not_there_is_passed_over(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 3, 0, JOURNAL_STORED);
    journal_settle(f.journal, claim_some(&f, 1)->seq);
    const uint64_t seqs[] = {0, 3, 1, 2, 99, UINT64_MAX};
    assert_int_equal(replay_seqs(&f, seqs, 6), 1);
    assert_int_equal(replay(&f, everything()), 1);
    static const uint64_t expected[] = {2, 3, 1, 1};
    for (size_t i = 0; i < 4; i++) {
        struct journal_event *event = claim_some(&f, 1);
        assert_int_equal(number_of(event), expected[i]);
        assert_int_equal(event->is_replay, i >= 2);
    }
    assert_null(claim_some(&f, 1));
    end(&f);
}

static void a_dead_event_is_dead_or_pending_but_never_both(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 2, 0, JOURNAL_STORED);
    bury_all(&f, "first");
    assert_int_equal(replay_dead(&f), 2);
    assert_int_equal(state_of(&f).dead, 0);
    assert_int_equal(ask(&f, "SELECT count(*) FROM dead"), 0);
    bury_all(&f, "second");
    assert_int_equal(ask(&f, "SELECT count(*) FROM dead WHERE reason = 'second' AND seq IN (3, 4) AND flags & 1 = 1"), 2);
    assert_int_equal(replay_seqs(&f, (uint64_t[]){1, 3}, 2), 1); /* 1 has moved */
    restart(&f);
    assert_int_equal(state_of(&f).dead, 1);
    struct journal_event *event = claim_some(&f, 10);
    assert_int_equal(event->seq, 5);
    assert_true(event->is_replay);
    assert_int_equal(number_of(event), 1);
    assert_null(event->next);
    end(&f);
}

static void events_of_a_span_of_time_are_replayed_dead_or_published(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    f.options.retention_ms = INT64_C(365) * 24 * 3600 * 1000;
    start(&f);
    int64_t since_ms = 0, until_ms = 0;
    for (uint64_t day = 0; day < 5; day++) {
        since_ms = day == 2 ? clock_wall_ms() : since_ms;
        until_ms = day == 4 ? clock_wall_ms() : until_ms;
        put_many(&f, 10 * day + 1, 4, 0, JOURNAL_STORED);
        if (day % 2) {
            bury_all(&f, "odd day");
        } else {
            publish_all(&f, NULL);
        }
        pass_time(INT64_C(24) * 3600 * 1000);
    }
    struct journal_replay what = {.since_ms = since_ms, .until_ms = until_ms};
    assert_int_equal(replay(&f, what), 8);
    for (uint64_t number = 21; number <= 34; number = number == 24 ? 31 : number + 1) {
        struct journal_event *event = claim_some(&f, 1);
        assert_int_equal(number_of(event), number);
        journal_settle(f.journal, event->seq);
    }
    assert_null(claim_some(&f, 1));
    assert_int_equal(state_of(&f).dead, 4);
    what = (struct journal_replay){.dead_only = true, .since_ms = INT64_MIN, .until_ms = since_ms};
    assert_int_equal(replay(&f, what), 4);
    assert_int_equal(state_of(&f).dead, 0);
    end(&f);
}

static void a_replay_asks_for_no_key_and_changes_none(void **unused)
{
    (void)unused;
    for (int restarts = 0; restarts < 2; restarts++) {
        struct fixture f;
        begin(&f);
        put_one(&f, 1);
        bury_all(&f, "no");
        pass_time(f.options.retention_ms / 2);
        assert_int_equal(put_one(&f, 1), JOURNAL_DUPLICATE);
        assert_int_equal(replay_dead(&f), 1);
        if (restarts) {
            restart(&f);
        }
        assert_int_equal(put_one(&f, 1), JOURNAL_DUPLICATE);
        pass_time(f.options.retention_ms / 2 + 1000);
        if (restarts) {
            restart(&f);
        }
        assert_int_equal(put_one(&f, 1), JOURNAL_STORED); /* remembered as long as without the replay */
        end(&f);
    }
}

static void what_fails_again_is_not_replayed_in_a_circle(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 600, 0, JOURNAL_STORED);
    bury_all(&f, "no");
    assert_int_equal(replay_dead(&f), 600);
    bury_all(&f, "still not");
    assert_int_equal(state_of(&f).last_seq, 1200);
    assert_int_equal(replay_dead(&f), 600);
    assert_int_equal(state_of(&f).last_seq, 1800);
    assert_int_equal(ask(&f, "SELECT max(flags >> 56) FROM events"), 2);
    end(&f);
}

static void a_span_that_is_replayed_again_is_not_doubled(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 3, 0, JOURNAL_STORED);
    publish_all(&f, NULL);
    for (uint64_t round = 1; round <= 3; round++) {
        assert_int_equal(replay(&f, everything()), 3);
        publish_all(&f, NULL);
        assert_int_equal(state_of(&f).last_seq, 3 + 3 * round);
    }
    assert_int_equal(replay_seqs(&f, (uint64_t[]){4}, 1), 1); /* who names a replay means it */
    publish_all(&f, NULL);
    pass_time(3600 * 1000 / 2);
    struct journal_replay what = everything();
    what.since_ms = clock_wall_ms();
    assert_int_equal(replay_seqs(&f, (uint64_t[]){1}, 1), 1);
    publish_all(&f, NULL);
    assert_int_equal(replay(&f, what), 1); /* its original is not in the span */
    end(&f);
}

struct begun {
    struct journal_replay replay;
    atomic_bool is_done;
};

static void note_done(void *ctx, struct journal_replay *done)
{
    struct begun *begun = ctx;
    assert_ptr_equal(done, &begun->replay);
    begun->is_done = true;
}

static void begin_replay(struct fixture *f, struct begun *begun, struct journal_replay what)
{
    begun->replay = what;
    begun->replay.done = note_done;
    begun->replay.ctx = begun;
    begun->is_done = false;
    journal_replay_begin(f->journal, &begun->replay);
}

static void a_large_replay_holds_no_append_up_and_keeps_its_order(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 20000, 300, JOURNAL_STORED);
    publish_all(&f, NULL);
    struct begun first, second;
    begin_replay(&f, &first, everything());
    begin_replay(&f, &second, everything());
    uint64_t appended = 0;
    while (!first.is_done) {
        int64_t begun_us = real_us(CLOCK_MONOTONIC);
        put_one(&f, 1000000 + ++appended);
        assert_true(real_us(CLOCK_MONOTONIC) - begun_us < 2000000);
    }
    assert_true(appended > 5);
    WAIT_FOR(second.is_done);
    assert_int_equal(first.replay.replayed, 20000);
    assert_int_equal(second.replay.replayed, 20000); /* what was stored after its beginning is left out */
    uint64_t next = 1, seq = 20000, others = 0;
    for (struct journal_event *list; (list = claim_some(&f, 100));) {
        for (; list; list = list->next) {
            assert_int_equal(list->seq, ++seq);
            if (number_of(list) > 1000000) {
                assert_int_equal(number_of(list), 1000000 + ++others);
                assert_false(list->is_replay);
                continue;
            }
            assert_int_equal(number_of(list), next);
            assert_true(list->is_replay);
            next = next == 20000 ? 1 : next + 1;
        }
        journal_settle(f.journal, seq);
    }
    assert_int_equal(others, appended);
    assert_int_equal(seq, 60000 + appended);
    end(&f);
}

static void a_replay_outlives_retention_and_restart_until_it_is_published(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 5, 0, JOURNAL_STORED);
    publish_all(&f, NULL);
    assert_int_equal(replay(&f, everything()), 5);
    pass_time(f.options.retention_ms + 60000);
    put_one(&f, 6);
    WAIT_FOR(ask(&f, "SELECT min(seq) FROM events") == 6); /* the originals have gone, the replays are there */
    restart(&f);
    assert_int_equal(drain(&f, 1, true), 6);
    pass_time(f.options.retention_ms + 60000);
    put_one(&f, 7);
    WAIT_FOR(ask(&f, "SELECT min(seq) FROM events") == 12);
    end(&f);
}

enum { SMALL = 4 * 1024 * 1024, BODY = 10000 };

static void begin_small(struct fixture *f)
{
    make_fixture(f);
    f->options.max_bytes = SMALL;
    start(f);
}

static void a_replay_is_never_trimmed_for_room_before_it_is_published(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_small(&f);
    put_many(&f, 1, 50, BODY, JOURNAL_STORED);
    publish_all(&f, NULL);
    assert_int_equal(replay(&f, everything()), 50);
    struct journal_event *list = claim_some(&f, 100);
    assert_int_equal(number_of(list), 1);
    journal_rewind(f.journal);
    for (uint64_t n = 100; put_one(&f, n) == JOURNAL_STORED && n < 2000; n++) {
        struct put put;
        post(&f, &put, 10000 + n, 1, BODY);
        await(&f, &put, 1);
    }
    assert_true(ask(&f, "SELECT min(seq) FROM events") > 1); /* it was short of room */
    restart(&f);
    for (uint64_t number = 1; number <= 50; number++) {
        struct journal_event *event = claim_some(&f, 1);
        assert_int_equal(number_of(event), number);
        journal_settle(f.journal, event->seq);
    }
    end(&f);
}

static void published_replays_make_room_though_they_bring_no_keys(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_small(&f);
    put_many(&f, 1, 20, BODY, JOURNAL_STORED);
    publish_all(&f, NULL);
    for (int round = 0; round < 40; round++) { /* 8 MB in all */
        struct journal_replay what = everything();
        uint64_t last = state_of(&f).last_seq, seqs[20];
        for (uint64_t i = 0; i < 20; i++) {
            seqs[i] = last - 19 + i;
        }
        what.seqs = seqs;
        what.seq_count = 20;
        assert_int_equal(replay(&f, what), 20);
        publish_all(&f, NULL);
    }
    assert_true(state_of(&f).bytes <= SMALL);
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    WAIT_FOR(ask(&f, "SELECT indexed FROM state") > 20);
    assert_int_equal(put_one(&f, 1000), JOURNAL_STORED);
    restart(&f);
    assert_int_equal(put_one(&f, 7), JOURNAL_DUPLICATE);
    end(&f);
}

static void a_journal_that_is_full_of_dead_events_is_no_dead_end(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_small(&f);
    uint64_t count = 0;
    struct put put;
    do {
        post(&f, &put, ++count, 1, BODY);
        await(&f, &put, 1);
        bury_all(&f, "no");
    } while (put.append.outcome == JOURNAL_STORED && count < 2000);
    assert_string_equal(put.why, "the journal is full");
    uint64_t dead = state_of(&f).dead;
    assert_true(dead > 100);
    assert_int_equal(replay_dead(&f), dead);
    assert_int_equal(drain(&f, 1, true), dead);
    assert_int_equal(state_of(&f).dead, 0);
    WAIT_FOR(put_one(&f, 100000) == JOURNAL_STORED || put_one(&f, 100001) == JOURNAL_STORED);
    end(&f);
}

static void replays_alone_make_room_beside_dead_events_that_stay(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_small(&f);
    for (uint64_t n = 1; state_of(&f).dead < 320; n += 10) { /* what is left is less than the index lets wait */
        put_many(&f, n, 10, BODY, JOURNAL_STORED);
        bury_all(&f, "no");
    }
    put_many(&f, 100000, 1, BODY, JOURNAL_STORED);
    publish_all(&f, NULL);
    for (int round = 0; round < 200; round++) { /* 2 MB into what is left */
        assert_int_equal(replay_seqs(&f, (uint64_t[]){state_of(&f).last_seq}, 1), 1);
        publish_all(&f, NULL);
    }
    assert_true(state_of(&f).bytes <= SMALL);
    end(&f);
}

static void a_journal_full_of_pending_events_refuses_to_double_published_ones(void **unused)
{
    (void)unused;
    struct fixture f;
    begin_small(&f);
    put_many(&f, 1, 2, BODY, JOURNAL_STORED);
    publish_all(&f, NULL);
    uint64_t n = 100;
    struct put put;
    do {
        post(&f, &put, ++n, 1, 2000);
        await(&f, &put, 1);
    } while (put.append.outcome == JOURNAL_STORED && n < 5000);
    struct journal_replay what = everything();
    struct error why = {0};
    enum err code = journal_replay(f.journal, &what, &why);
    assert_true(code == ERR_FULL || (code == ERR_NONE && what.replayed == 0)); /* or they were trimmed for room */
    assert_int_equal(what.replayed, 0);
    end(&f);
}

static void without_storage_nothing_is_replayed(void **unused)
{
    (void)unused;
    struct fixture f;
    make_fixture(&f);
    f.is_memory = true;
    start(&f);
    struct journal_replay what = everything();
    struct error why;
    assert_int_equal(journal_replay(f.journal, &what, &why), ERR_INVALID);
    assert_string_equal(why.text, "without a journal no event is kept that could be replayed");
    end(&f);
}

static void closing_hands_a_replay_back_with_what_it_has_done(void **unused)
{
    (void)unused;
    struct fixture f;
    begin(&f);
    put_many(&f, 1, 5000, 0, JOURNAL_STORED);
    publish_all(&f, NULL);
    struct begun many[20];
    for (int i = 0; i < 20; i++) {
        begin_replay(&f, &many[i], everything());
    }
    journal_close(&f.journal);
    uint64_t replayed = 0;
    for (int i = 0; i < 20; i++) {
        assert_true(many[i].is_done);
        assert_true(many[i].replay.error.code == ERR_CLOSED || many[i].replay.replayed == 5000);
        replayed += many[i].replay.replayed;
    }
    start(&f);
    assert_int_equal(state_of(&f).last_seq, 5000 + replayed);
    end(&f);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_published_event_is_replayed_as_a_new_one_behind_all_others),
        cmocka_unit_test(what_is_pending_or_not_there_is_passed_over),
        cmocka_unit_test(a_dead_event_is_dead_or_pending_but_never_both),
        cmocka_unit_test(events_of_a_span_of_time_are_replayed_dead_or_published),
        cmocka_unit_test(a_replay_asks_for_no_key_and_changes_none),
        cmocka_unit_test(what_fails_again_is_not_replayed_in_a_circle),
        cmocka_unit_test(a_span_that_is_replayed_again_is_not_doubled),
        cmocka_unit_test(a_large_replay_holds_no_append_up_and_keeps_its_order),
        cmocka_unit_test(a_replay_outlives_retention_and_restart_until_it_is_published),
        cmocka_unit_test(a_replay_is_never_trimmed_for_room_before_it_is_published),
        cmocka_unit_test(published_replays_make_room_though_they_bring_no_keys),
        cmocka_unit_test(a_journal_that_is_full_of_dead_events_is_no_dead_end),
        cmocka_unit_test(replays_alone_make_room_beside_dead_events_that_stay),
        cmocka_unit_test(a_journal_full_of_pending_events_refuses_to_double_published_ones),
        cmocka_unit_test(without_storage_nothing_is_replayed),
        cmocka_unit_test(closing_hands_a_replay_back_with_what_it_has_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
