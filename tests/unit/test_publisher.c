/* Most tests drive the publisher without its thread, turn by turn, with a clock that moves only from one wanted turn to the
 * next; so they also show that a turn is asked for whenever one is needed. The last ones are about the thread. */
#include "test.h"

#include "fake_clock.h"
#include "fake_journal.h"
#include "fake_log.h"
#include "fake_mqtt_client.h"
#include "meowbridge/clock.h"
#include "meowbridge/metrics.h"
#include "meowbridge/publisher.h"

#include "../../bridge/flow/publisher_pace.h"
#include "../../bridge/flow/publisher_uplink.h"
#include "../../bridge/flow/publisher_window.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- a publisher on the bench --- */

#define MAX_SPINS 50

static struct {
    struct journal *journal;
    struct uplink *uplink;
    uint64_t metrics[METRIC_COUNT];
} bench;

static const struct publisher_broker one_broker[] = {{"mqtt://a", "a", 1883, false}};
static const struct publisher_broker two_brokers[] = {{"mqtt://a", "a", 1883, false}, {"mqtt://b", "b", 1883, false}};

struct setup {
    bool is_memory;
    int version;
    unsigned inflight;
    int64_t max_rate;
    const char *status_topic;
    const struct route *routes;
    size_t route_count;
    const struct publisher_broker *brokers;
    size_t broker_count;
};

#define ROUTE(event_, topics_, ...)                                                                                   \
    {                                                                                                                 \
        .event = (char *)(event_), .topics = (char **)(topics_), .topic_count = sizeof(topics_) / sizeof(topics_)[0], \
        __VA_ARGS__                                                                                                   \
    }

static struct route_table *open_routes(const struct route *routes, size_t count)
{
    static const char *topics[] = {"t/{id}"};
    static const struct route plain[] = {ROUTE("*", topics, .qos = 1)};
    struct route_table *table = NULL;
    struct error why;
    assert_int_equal(route_table_open(&table, routes ? routes : plain, routes ? count : 1, &why), ERR_NONE);
    return table;
}

static struct publisher_options options_of(const struct setup *setup)
{
    return (struct publisher_options){
        .journal = bench.journal,
        .brokers = setup->brokers ? setup->brokers : one_broker,
        .broker_count = setup->brokers ? setup->broker_count : 1,
        .version = setup->version ? setup->version : 5,
        .client_id = "bridge",
        .password = SLICE("secret"),
        .keepalive_ms = 10000,
        .inflight = setup->inflight ? setup->inflight : 8,
        .max_rate = setup->max_rate,
        .status_topic = setup->status_topic,
    };
}

static void prepare(bool is_memory, bool real_clock)
{
    fake_clock_reset(real_clock);
    fake_log_reset();
    fake_broker_reset();
    bench.journal = fake_journal_open(!is_memory);
    for (int i = 0; i < METRIC_COUNT; i++) {
        bench.metrics[i] = metrics_get((enum metric)i);
    }
}

static uint64_t counted(enum metric metric)
{
    return metrics_get(metric) - bench.metrics[metric];
}

static void start(struct setup setup)
{
    struct error why;
    struct line *line = NULL;
    prepare(setup.is_memory, false);
    struct publisher_options options = options_of(&setup);
    options.routes = open_routes(setup.routes, setup.route_count);
    assert_int_equal(line_open(&line, bench.journal, options.routes, options.version, options.inflight, options.max_rate, &why),
                     ERR_NONE);
    assert_int_equal(uplink_open(&bench.uplink, &options, NULL, line, &why), ERR_NONE);
    route_table_unref(&options.routes);
}

static void stop(void)
{
    uplink_close(&bench.uplink);
    fake_journal_close(&bench.journal);
    fake_broker_reset();
}

static void turn(void)
{
    uplink_turn(bench.uplink, 0);
}

/* Lets time pass, from one turn that the publisher asks for to the next. */
static void run(int64_t ms)
{
    int64_t end = clock_mono_ms() + ms;
    int spins = 0;
    turn();
    while (!uplink_is_over(bench.uplink)) {
        struct pollfd fd;
        int timeout_ms;
        uplink_poll(bench.uplink, &fd, &timeout_ms);
        int64_t left = end - clock_mono_ms();
        spins = timeout_ms == 0 ? spins + 1 : 0;
        assert_true(spins < MAX_SPINS);
        if (timeout_ms < 0 || timeout_ms > left) {
            fake_clock_advance(left);
            return;
        }
        fake_clock_advance(timeout_ms);
        turn();
    }
}

static void add(int first, int last)
{
    for (int id = first; id <= last; id++) {
        fake_journal_add(bench.journal, id, "workflowTask.completed");
    }
    line_wake(uplink_line(bench.uplink));
}

static const char *reason(uint64_t seq)
{
    const char *text = fake_journal_reason(bench.journal, seq);
    return text ? text : "(alive)";
}

static struct publisher_state state_now(void)
{
    struct publisher_state state;
    uplink_state(bench.uplink, &state);
    return state;
}

/* Brokers' ways of answering. */
static int hold(const struct sent *message)
{
    (void)message;
    return HOLD;
}

static int hold_events(const struct sent *message)
{
    return strcmp(message->topic, "status") == 0 ? 0 : HOLD;
}

static const char *bad_topic;
static int bad_answer, bad_times;

/* Answers the bad topic badly, bad_times times; confirms all else. */
static int confirm_but_the_bad(const struct sent *message)
{
    return strcmp(message->topic, bad_topic) == 0 && bad_times-- > 0 ? bad_answer : 0;
}

static void make_bad(const char *topic, int answer, int times)
{
    bad_topic = topic;
    bad_answer = answer;
    bad_times = times;
    fake_broker.answer = confirm_but_the_bad;
}

/* --- pace --- */

static void the_backoff_doubles_from_a_quarter_second_to_fifteen_with_a_quarter_of_jitter(void **state)
{
    (void)state;
    int64_t lowest = INT64_MAX, highest = 0;
    for (int i = 0; i < 500; i++) {
        struct backoff backoff = {0};
        for (int64_t nominal = 250; nominal < 30000; nominal *= 2) {
            int64_t expected = nominal < 15000 ? nominal : 15000;
            int64_t ms = backoff_next(&backoff);
            assert_in_range(ms, expected - expected / 4, expected + expected / 4);
        }
        backoff_reset(&backoff);
        int64_t ms = backoff_next(&backoff);
        lowest = ms < lowest ? ms : lowest;
        highest = ms > highest ? ms : highest;
    }
    assert_true(lowest < 205 && highest > 295); /* the whole of the quarter is used */
}

static void a_complaint_is_said_when_it_changes_and_every_five_minutes(void **state)
{
    (void)state;
    struct complaint complaint = {0};
    assert_true(complaint_is_due(&complaint, "refused", 1000));
    assert_false(complaint_is_due(&complaint, "refused", 2000));
    assert_true(complaint_is_due(&complaint, "timed out", 3000));
    assert_false(complaint_is_due(&complaint, "timed out", 3000 + COMPLAINT_AGAIN_MS - 1));
    assert_true(complaint_is_due(&complaint, "timed out", 3000 + COMPLAINT_AGAIN_MS));
    complaint_clear(&complaint);
    assert_true(complaint_is_due(&complaint, "timed out", 3001 + COMPLAINT_AGAIN_MS));
    char long_text[400];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    assert_true(complaint_is_due(&complaint, long_text, 1));
    assert_false(complaint_is_due(&complaint, long_text, 2));
}

static void a_rate_lets_through_what_it_says_and_no_burst_after_a_pause(void **state)
{
    (void)state;
    struct rate rate;
    rate_init(&rate, 1000, 0);
    int taken = 0;
    for (int64_t us = 0; us <= 1000000; us += 500) {
        while (rate_take(&rate, us)) {
            taken++;
        }
    }
    assert_in_range(taken, 1000, 1001);
    taken = 0;
    while (rate_take(&rate, 3600000000)) {
        taken++;
    }
    assert_int_equal(taken, 50);
}

/* --- the connection --- */

static void online_is_published_retained_before_any_event_and_offline_is_the_will(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    add(1, 2);
    fake_broker.answer = hold;
    run(1000);
    assert_int_equal(fake_sent_count(), 1); /* events wait until it is confirmed */
    assert_string_equal(fake_sent(0)->topic, "status");
    assert_string_equal(fake_sent(0)->payload, "online");
    assert_int_equal(fake_sent(0)->qos, 1);
    assert_true(fake_sent(0)->retain);
    assert_true(fake_has_will());
    assert_true(state_now().connected);
    fake_answer(0, 0);
    run(1);
    assert_string_equal(fake_topics(0), "t/1 t/2");
    assert_int_equal(state_now().in_flight, 2);
    assert_int_equal(counted(METRIC_MQTT_PUBLISHED), 0); /* the status is no event's message */
    assert_int_equal(fake_log_count("INFO connected to the broker url=mqtt://a version=5"), 1);
    stop();
}

static void without_a_status_topic_there_is_neither_birth_nor_will(void **state)
{
    (void)state;
    start((struct setup){.status_topic = ""});
    add(1, 1);
    run(10);
    assert_false(fake_has_will());
    assert_int_equal(fake_sent_count(), 1);
    stop();
}

static void brokers_are_tried_in_order_at_once_and_the_whole_list_again_after_the_backoff(void **state)
{
    (void)state;
    start((struct setup){.brokers = two_brokers, .broker_count = 2});
    fake_broker.unreachable = "connection refused";
    run(0);
    assert_int_equal(fake_connections(), 2);
    assert_string_equal(fake_host(), "b");
    run(187); /* 250 ms less a quarter */
    assert_int_equal(fake_connections(), 2);
    run(313 - 187);
    assert_int_equal(fake_connections(), 4);
    run(20 * 60 * 1000);
    int attempts = fake_connections() / 2;
    assert_in_range(attempts, 20 * 60 / 19, 20 * 60 / 11 + 8);
    assert_false(state_now().connected);
    assert_string_equal(state_now().trouble, "mqtt://b: connection refused");
    stop();
}

static void a_broker_that_stays_away_is_logged_once_and_every_five_minutes(void **state)
{
    (void)state;
    start((struct setup){.brokers = two_brokers, .broker_count = 2});
    fake_broker.unreachable = "connection refused";
    run(4 * 60 * 1000);
    assert_int_equal(fake_log_count("WARN cannot connect to the broker"), 2); /* one each */
    run(3 * 60 * 1000);
    assert_int_equal(fake_log_count("WARN cannot connect to the broker"), 4);
    fake_broker.unreachable = "no route to host";
    run(60 * 1000);
    assert_int_equal(fake_log_count("reason=no route to host"), 2);
    fake_broker.unreachable = NULL;
    run(60 * 1000);
    assert_true(state_now().connected);
    assert_string_equal(state_now().broker, "mqtt://a");
    assert_string_equal(state_now().trouble, "");
    stop();
}

static void a_lost_connection_is_logged_once_and_the_first_broker_is_tried_again(void **state)
{
    (void)state;
    start((struct setup){.brokers = two_brokers, .broker_count = 2});
    fake_broker.unreachable = "connection refused";
    turn();
    fake_broker.unreachable = NULL;
    run(10000);
    assert_string_equal(fake_host(), "b");
    fake_close_named("lost the connection to b:1883: the network is unreachable", "the network is unreachable");
    turn();
    assert_string_equal(state_now().last_error, "lost the connection to b:1883: the network is unreachable");
    run(400);
    assert_string_equal(fake_host(), "a");
    assert_true(state_now().connected);
    assert_int_equal(fake_log_count("WARN lost the connection to the broker url=mqtt://b reason=the network is"), 1);
    assert_int_equal(counted(METRIC_MQTT_CONNECTS), 2);
    assert_int_equal(counted(METRIC_MQTT_FAILED), 1);
    assert_int_equal(counted(METRIC_MQTT_LOST_SILENT), 1);
    stop();
}

static void a_refused_login_is_tried_again_and_named(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    fake_broker.refuse = 0x87;
    run(60000);
    assert_true(fake_connections() > 4);
    assert_string_equal(state_now().trouble, "mqtt://a: the broker refused us");
    assert_int_equal(fake_log_count("the broker refused us"), 1);
    fake_broker.refuse = 0;
    run(20000);
    assert_true(state_now().connected);
    assert_true(fake_has_will());
    assert_int_equal(fake_log_count("given up"), 0);
    stop();
}

static void the_backoff_begins_anew_only_after_a_connection_that_lived(void **state)
{
    (void)state;
    start((struct setup){0});
    for (int i = 0; i < 9; i++) { /* closed at once each time */
        int before = fake_connections();
        while (fake_connections() == before) {
            run(1);
        }
        fake_close(0, false, "end of stream");
        turn();
    }
    int before = fake_connections();
    run(11000);
    assert_int_equal(fake_connections(), before); /* it has grown to 15 s */
    run(8000);
    assert_int_equal(fake_connections(), before + 1);
    run(6000);
    fake_close(0, false, "end of stream");
    run(350);
    assert_int_equal(fake_connections(), before + 2);
    stop();
}

static void mqtt_3_is_warned_about_once_and_gets_no_properties(void **state)
{
    (void)state;
    start((struct setup){.version = 3});
    add(1, 1);
    run(10000);
    fake_close(0, true, "silence");
    run(1000);
    assert_int_equal(fake_log_count("WARN MQTT 3.1.1"), 1);
    assert_int_equal(fake_sent(0)->property_count, 0);
    assert_int_equal(fake_sent(0)->content_type_size, 0);
    stop();
}

static void a_broker_that_went_away_again_is_complained_about_again(void **state)
{
    (void)state;
    start((struct setup){0});
    fake_broker.unreachable = "connection refused";
    run(1000);
    fake_broker.unreachable = NULL;
    run(10000);
    assert_true(state_now().connected);
    fake_close(0, false, "end of stream");
    fake_broker.unreachable = "connection refused";
    run(2000);
    assert_int_equal(fake_log_count("WARN cannot connect to the broker"), 2);
    stop();
}

/* --- P5: the status topic --- */

static void P5_a_status_topic_refused_by_reason_code_is_given_up_with_one_warning(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    make_bad("status", 0x87, 100);
    add(1, 2);
    run(10000);
    assert_string_equal(fake_topics(0), "t/1 t/2");
    fake_close(0, true, "silence");
    run(1000);
    assert_false(fake_has_will());
    assert_int_equal(fake_sent_count(), 3);
    assert_int_equal(fake_log_count("WARN the status topic is given up topic=status reason=not authorized"), 1);
    assert_int_equal(fake_log_count("given up"), 1);
    stop();
}

static void status_is_given_up_after_three(int answer)
{
    start((struct setup){.status_topic = "status"});
    make_bad("status", answer, 100);
    add(1, 3);
    run(30000);
    assert_int_equal(fake_connections(), 4);
    assert_int_equal(fake_log_count("the status topic is given up"), 1);
    assert_true(state_now().connected);
    assert_int_equal(fake_journal_settled(bench.journal), 3);
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 0);
    assert_int_equal(counted(METRIC_EVENTS_PUBLISHED), 3);
    fake_close(0, true, "silence");
    run(1000);
    assert_false(fake_has_will());
    stop();
}

static void P5_a_status_topic_over_which_the_broker_closes_three_times_is_given_up(void **state)
{
    (void)state;
    status_is_given_up_after_three(CLOSE);
}

static void P5_so_is_one_that_the_broker_confirms_before_it_closes(void **state)
{
    (void)state;
    status_is_given_up_after_three(CONFIRM_AND_CLOSE);
}

static void P5_a_broker_that_closes_a_moment_after_confirming_it_is_not_held_against_an_event(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    fake_broker.answer = hold_events;
    add(1, 2);
    for (int connection = 1; connection <= 3; connection++) {
        while (!state_now().connected) {
            run(1);
        }
        run(200);
        assert_string_equal(fake_topics(connection),
                            connection == 1 ? "t/1 t/2" : ""); /* they wait, once somebody is accused */
        fake_close(0, false, "end of stream");
        turn();
    }
    run(3000);
    assert_int_equal(fake_log_count("the status topic is given up"), 1);
    assert_string_equal(fake_topics(4), "t/1");
    assert_string_equal(reason(1), "(alive)");
    stop();
}

static void P5_a_broker_that_rejects_the_will_is_found_out_by_an_attempt_without_it(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    fake_broker.rejects_wills = true;
    add(1, 2);
    run(2600); /* the backoff has begun anew after the proof */
    assert_true(state_now().connected);
    assert_false(fake_has_will());
    assert_int_equal(fake_connections(), 6); /* three, the probe, the proof, and the one that stays */
    assert_string_equal(fake_topics(0), "t/1 t/2");
    assert_int_equal(counted(METRIC_MQTT_CONNECTS), 1);
    assert_int_equal(fake_log_count("WARN the status topic is given up topic=status reason=the broker refuses it as"), 1);
    stop();
}

static void P5_silence_is_no_reason_to_go_without_the_will(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    fake_broker.unreachable = "no answer";
    fake_broker.is_silent = true;
    for (int i = 0; i < 600; i++) {
        run(100);
        assert_true(fake_has_will());
    }
    stop();
}

static void P5_a_broker_that_comes_back_at_the_attempt_without_the_will_gets_it_all_the_same(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    fake_broker.rejects_wills = true;
    add(1, 1);
    while (fake_connections() < 3) {
        run(1);
    }
    fake_broker.rejects_wills = false;
    run(5000);
    assert_true(state_now().connected);
    assert_true(fake_has_will());
    assert_int_equal(fake_connections(), 5);
    assert_string_equal(fake_sent(0)->payload, "online");
    assert_int_equal(fake_log_count("given up"), 0);
    stop();
}

static void a_broker_that_falls_silent_or_goes_away_over_the_status_topic_keeps_it(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    fake_broker.answer = hold;
    for (int i = 0; i < 5; i++) {
        run(15000);
        fake_close(0, true, "a PUBACK is overdue");
        turn();
    }
    for (int i = 0; i < 5; i++) { /* stopped and started again */
        fake_broker.unreachable = NULL;
        run(19000);
        fake_close(0, false, "end of stream");
        fake_broker.unreachable = "connection refused";
        run(3000);
    }
    assert_int_equal(fake_log_count("given up"), 0);
    stop();
}

static void a_passing_refusal_of_online_is_repeated_and_holds_up_no_event(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    make_bad("status", 0x97, 2);
    add(1, 1);
    run(3000);
    assert_int_equal(fake_sent_count(), 4);
    assert_string_equal(fake_sent(0)->payload, "online");
    assert_string_equal(fake_sent(1)->topic, "t/1");
    assert_string_equal(fake_sent(2)->payload, "online");
    assert_string_equal(fake_sent(3)->payload, "online");
    assert_int_equal(fake_log_count("given up"), 0);
    stop();
}

/* --- P1, P2: order and settling --- */

static void P1_messages_go_in_the_order_of_acceptance_and_within_an_event_of_routes_and_topics(void **state)
{
    (void)state;
    const char *first[] = {"a/{id}", "b/{id}"}, *second[] = {"c/{id}"};
    const struct route routes[] = {ROUTE("*", first, .qos = 1), ROUTE("*", second, .qos = 1)};
    start((struct setup){.routes = routes, .route_count = 2, .inflight = 4});
    add(1, 3);
    run(1000);
    assert_string_equal(fake_topics(0), "a/1 b/1 c/1 a/2 b/2 c/2 a/3 b/3 c/3");
    assert_string_equal(fake_sent(0)->payload, "{\"n\":1}");
    assert_true(fake_sent(0)->property_count >= 8);
    assert_int_equal(fake_journal_settled(bench.journal), 3);
    assert_int_equal(counted(METRIC_MQTT_PUBLISHED), 9);
    assert_int_equal(counted(METRIC_EVENTS_PUBLISHED), 3);
    assert_int_equal(counted(METRIC_MQTT_RETRIED), 0);
    stop();
}

static void no_more_is_in_flight_than_the_window_and_the_broker_allow(void **state)
{
    (void)state;
    start((struct setup){.inflight = 8});
    fake_broker.limits.receive_maximum = 5;
    fake_broker.answer = hold;
    add(1, 100);
    run(1000);
    assert_int_equal(fake_sent_count(), 5);
    fake_answer(0, 0);
    run(10);
    assert_int_equal(fake_sent_count(), 5); /* less than half of the window is free: no burst yet */
    fake_answer(1, 0);
    run(10);
    assert_int_equal(fake_sent_count(), 7);
    fake_broker.answer = NULL;
    fake_answer_all(0);
    run(1000);
    assert_int_equal(fake_max_in_flight(), 5);
    assert_int_equal(fake_journal_settled(bench.journal), 100);
    assert_true(fake_bursts() <= 40);
    stop();
}

static void P2_only_the_contiguous_prefix_is_settled_and_once_a_turn(void **state)
{
    (void)state;
    start((struct setup){.inflight = 8});
    fake_broker.answer = hold;
    add(1, 6);
    run(1);
    fake_answer(1, 0);
    fake_answer(2, 0);
    run(1);
    assert_int_equal(fake_journal_settled(bench.journal), 0);
    fake_answer(0, 0);
    fake_answer(4, 0);
    run(1);
    assert_int_equal(fake_journal_settled(bench.journal), 3);
    assert_int_equal(fake_journal_settle_calls(bench.journal), 1);
    fake_answer_all(0);
    run(1);
    assert_int_equal(fake_journal_settled(bench.journal), 6);
    stop();
}

static void P2_an_event_is_settled_only_when_each_of_its_messages_is_confirmed(void **state)
{
    (void)state;
    const char *topics[] = {"a/{id}", "b/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 1)};
    start((struct setup){.routes = routes, .route_count = 1});
    fake_broker.answer = hold;
    add(1, 1);
    run(1);
    fake_answer(1, 0);
    run(1);
    assert_int_equal(fake_journal_settled(bench.journal), 0);
    fake_answer(0, 0);
    run(1);
    assert_int_equal(fake_journal_settled(bench.journal), 1);
    stop();
}

static void P1_after_a_lost_connection_the_unacknowledged_go_again_in_order_before_anything_newer(void **state)
{
    (void)state;
    start((struct setup){.inflight = 4});
    fake_broker.answer = hold;
    add(1, 10);
    run(1);
    fake_answer(1, 0); /* of 1 to 4 only 2 is acknowledged */
    run(10000);
    fake_broker.answer = NULL;
    fake_close(0, true, "silence");
    run(1000);
    assert_string_equal(fake_topics(1), "t/1 t/2 t/3 t/4");
    assert_string_equal(fake_topics(2), "t/1 t/3 t/4 t/5 t/6 t/7 t/8 t/9 t/10");
    assert_int_equal(counted(METRIC_MQTT_RETRIED), 3);
    assert_int_equal(counted(METRIC_MQTT_PUBLISHED), 10);
    assert_int_equal(fake_journal_settled(bench.journal), 10);
    assert_int_equal(fake_journal_rewinds(bench.journal), 0);
    stop();
}

static void P1_a_connection_that_breaks_inside_a_burst_loses_nothing(void **state)
{
    (void)state;
    start((struct setup){.inflight = 4});
    make_bad("t/3", CLOSE, 1);
    add(1, 5);
    run(5000);
    assert_string_equal(fake_topics(2), "t/3 t/4 t/5");
    assert_int_equal(fake_journal_settled(bench.journal), 5);
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 0);
    stop();
}

static void the_window_is_refilled_however_many_events_wait(void **state)
{
    (void)state;
    start((struct setup){.inflight = 2});
    add(1, 1000);
    run(1);
    assert_int_equal(fake_journal_settled(bench.journal), 1000);
    stop();
}

static void what_is_claimed_is_bounded_by_bytes(void **state)
{
    (void)state;
    start((struct setup){.inflight = 100});
    fake_broker.answer = hold;
    for (int id = 1; id <= 100; id++) {
        fake_journal_add_sized(bench.journal, id, "e", 200000);
    }
    run(1);
    assert_in_range(fake_journal_claimed(bench.journal), 19, 21);
    fake_broker.answer = NULL;
    fake_answer_all(0);
    run(1);
    assert_int_equal(fake_journal_settled(bench.journal), 100);
    stop();
}

/* --- reason codes --- */

static void retry_codes_stop_the_line_and_the_refused_go_again_in_order(void **state)
{
    (void)state;
    start((struct setup){.inflight = 4});
    fake_broker.answer = hold;
    add(1, 8);
    run(1);
    fake_answer(1, 0x97);
    fake_answer(0, 0);
    run(5000);
    assert_int_equal(fake_sent_count(), 4); /* waits for 3 and 4, whose answers are out */
    fake_answer(3, 0x97);
    fake_answer(2, 0);
    fake_broker.answer = NULL;
    run(1000);
    assert_string_equal(fake_topics(0), "t/1 t/2 t/3 t/4 t/2 t/4 t/5 t/6 t/7 t/8");
    assert_int_equal(counted(METRIC_MQTT_RETRIED), 2);
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 0);
    assert_int_equal(fake_journal_settled(bench.journal), 8);
    assert_int_equal(fake_connections(), 1);
    stop();
}

static void retries_back_off_up_to_fifteen_seconds_and_begin_anew_after_a_success(void **state)
{
    (void)state;
    start((struct setup){0});
    make_bad("t/1", 0x97, 9);
    add(1, 2);
    run(100000);
    assert_int_equal(fake_sent_count(), 11);
    assert_string_equal(fake_sent(1)->topic, "t/2"); /* it was in the same burst, and its success proves nothing */
    for (size_t i = 2; i <= 10; i++) {
        assert_string_equal(fake_sent(i)->topic, "t/1");
        int64_t nominal = 250 << (i - 2) < 15000 ? 250 << (i - 2) : 15000;
        int64_t gap = fake_sent(i)->at_ms - fake_sent(i - 1)->at_ms;
        assert_in_range(gap, nominal * 3 / 4, nominal * 5 / 4 + 1);
    }
    assert_int_equal(fake_log_count("WARN publishing pauses; trying again reason=the broker cannot take it now"), 1);
    make_bad("t/3", 0x97, 1);
    add(3, 3);
    run(320);
    assert_int_equal(fake_journal_settled(bench.journal), 3);
    stop();
}

static void an_error_that_does_not_explain_itself_makes_an_event_dead_after_eight_attempts(void **state)
{
    (void)state;
    static const int codes[] = {0x80, 0x83, 0xa3, 0xff};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        start((struct setup){0});
        make_bad("t/2", codes[i], 1000);
        add(1, 3);
        run(20000);
        assert_string_equal(reason(2), "(alive)");
        assert_int_equal(fake_journal_settled(bench.journal), 1);
        run(20000);
        char expected[200];
        snprintf(expected, sizeof expected, "refused by the broker: %s (0x%02x) on topic t/2, at each of 8 attempts",
                 mqtt_reason_text((uint8_t)codes[i]), codes[i]);
        assert_string_equal(reason(2), expected);
        assert_int_equal(fake_sent_count(), 2 + 8);
        assert_int_equal(fake_journal_settled(bench.journal), 3);
        assert_int_equal(counted(METRIC_EVENTS_DEAD), 1);
        stop();
    }
}

static int refuse_every_third(const struct sent *message)
{
    return atoi(message->topic + 2) % 3 == 0 ? 0x83 : 0;
}

static void events_of_a_kind_that_is_refused_so_die_together_while_others_pass(void **state)
{
    (void)state;
    start((struct setup){.inflight = 8});
    fake_broker.answer = refuse_every_third;
    for (int second = 0; second < 60; second++) {
        add(3 * second + 1, 3 * second + 3);
        run(1000);
    }
    assert_in_range(counted(METRIC_EVENTS_DEAD), 10, 59);
    add(181, 183);
    run(8 * 19000); /* the last ones are alone, and the backoff is as long as it gets */
    add(184, 184);
    run(8 * 19000);
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 61);
    assert_int_equal(fake_journal_settled(bench.journal), 184);
    stop();
}

static int refuse_all_events(const struct sent *message)
{
    return strcmp(message->topic, "status") == 0 ? 0 : 0x80;
}

static void a_broker_that_refuses_everything_so_costs_an_event_now_and_then_and_not_the_window(void **state)
{
    (void)state;
    start((struct setup){.inflight = 64});
    fake_broker.answer = refuse_all_events;
    add(1, 100);
    run(600000);
    assert_in_range(counted(METRIC_EVENTS_DEAD), 2, 20);
    fake_broker.answer = NULL;
    run(20000);
    assert_int_equal(fake_journal_settled(bench.journal), 100);
    assert_int_equal(fake_log_count("an event is dead"), counted(METRIC_EVENTS_DEAD));
    stop();
}

static void an_error_that_passes_after_seven_attempts_costs_nothing_also_over_a_lost_connection(void **state)
{
    (void)state;
    start((struct setup){0});
    make_bad("t/1", 0x80, 7);
    add(1, 1);
    run(3000);
    fake_close(0, false, "end of stream");
    run(60000);
    assert_int_equal(fake_journal_settled(bench.journal), 1);
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 0);
    stop();
}

static void a_quota_is_waited_for_as_long_as_it_takes(void **state)
{
    (void)state;
    static const int codes[] = {0x88, 0x89, 0x93, 0x96, 0x97};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        start((struct setup){0});
        make_bad("t/1", codes[i], 100);
        add(1, 1);
        run(2000000);
        assert_int_equal(fake_journal_settled(bench.journal), 1);
        assert_int_equal(counted(METRIC_EVENTS_DEAD), 0);
        stop();
    }
}

static void an_unexplained_refusal_of_online_is_repeated_eight_times_and_then_given_up_with_one_warning(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    make_bad("status", 0x80, 1000);
    add(1, 1);
    run(600000);
    assert_int_equal(fake_sent_count(), 1 + 8);
    assert_int_equal(fake_journal_settled(bench.journal), 1);
    assert_int_equal(fake_log_count("WARN the status topic is given up topic=status reason=unspecified error"), 1);
    stop();
}

static void only_the_message_that_was_refused_goes_again(void **state)
{
    (void)state;
    const char *topics[] = {"a/{id}", "b/{id}", "c/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 1)};
    start((struct setup){.routes = routes, .route_count = 1});
    make_bad("b/1", 0x97, 1);
    add(1, 1);
    run(1000);
    assert_string_equal(fake_topics(0), "a/1 b/1 c/1 b/1");
    assert_int_equal(fake_journal_settled(bench.journal), 1);
    stop();
}

static void without_memory_sending_pauses_and_goes_on(void **state)
{
    (void)state;
    start((struct setup){0});
    fake_broker.publish_error = ERR_MEMORY;
    fake_broker.publish_errors = 3;
    add(1, 3);
    run(5000);
    assert_string_equal(fake_topics(0), "t/1 t/2 t/3");
    assert_int_equal(counted(METRIC_EVENTS_PUBLISHED), 3);
    stop();
}

static void P3_what_the_client_says_can_never_be_sent_is_buried(void **state)
{
    (void)state;
    start((struct setup){0});
    fake_broker.publish_error = ERR_INVALID;
    fake_broker.publish_errors = 1;
    add(1, 2);
    run(10);
    assert_string_equal(reason(1), "it does not fit");
    assert_string_equal(fake_topics(0), "t/2");
    stop();
}

static void the_first_reason_stays(void **state)
{
    (void)state;
    const char *topics[] = {"a/{id}", "b/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 1)};
    start((struct setup){.routes = routes, .route_count = 1});
    fake_broker.answer = hold;
    add(1, 1);
    run(1);
    fake_answer(0, 0x87);
    fake_answer(1, 0x99);
    run(1);
    assert_string_equal(reason(1), "refused by the broker: not authorized (0x87) on topic a/1");
    stop();
}

static void P3_a_permanent_refusal_buries_the_event_and_the_line_moves_on(void **state)
{
    (void)state;
    const char *topics[] = {"a/{id}", "b/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 1)};
    start((struct setup){.routes = routes, .route_count = 1});
    make_bad("a/2", 0x87, 1);
    add(1, 3);
    run(10);
    assert_string_equal(fake_topics(0), "a/1 b/1 a/2 b/2 a/3 b/3"); /* its other message is sent */
    assert_string_equal(reason(2), "refused by the broker: not authorized (0x87) on topic a/2");
    assert_string_equal(reason(1), "(alive)");
    assert_string_equal(reason(3), "(alive)");
    assert_int_equal(fake_journal_settled(bench.journal), 3);
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 1);
    assert_int_equal(counted(METRIC_EVENTS_PUBLISHED), 2);
    assert_int_equal(
        fake_log_count("WARN an event is dead seq=2 id=2 event=workflowTask.completed reason=refused by the broker"), 1);
    assert_int_equal(fake_log_count("{\"n\""), 0);
    stop();
}

static void an_unheard_message_is_published_and_counted(void **state)
{
    (void)state;
    start((struct setup){0});
    make_bad("t/1", 0x10, 1);
    add(1, 1);
    run(10);
    assert_string_equal(reason(1), "(alive)");
    assert_int_equal(counted(METRIC_MQTT_UNHEARD), 1);
    assert_int_equal(counted(METRIC_MQTT_PUBLISHED), 1);
    assert_int_equal(counted(METRIC_EVENTS_PUBLISHED), 1);
    stop();
}

static void an_unheard_message_is_dead_where_its_route_says_so(void **state)
{
    (void)state;
    const char *topics[] = {"a/{id}"}, *others[] = {"b/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 1), ROUTE("*", others, .qos = 1, .unheard = ROUTE_DEAD)};
    start((struct setup){.routes = routes, .route_count = 2});
    make_bad("a/1", 0x10, 1);
    add(1, 1);
    run(10);
    assert_string_equal(reason(1), "(alive)");
    make_bad("b/2", 0x10, 1);
    add(2, 2);
    run(10);
    assert_string_equal(reason(2), "nobody subscribes to b/2 (0x10)");
    stop();
}

static void P3_what_can_never_be_sent_is_buried_unsent_however_much_of_it_there_is(void **state)
{
    (void)state;
    const char *topics[] = {"t/{id}"};
    const struct route routes[] = {ROUTE("workflowTask.completed", topics, .qos = 1)};
    start((struct setup){.routes = routes, .route_count = 1});
    for (int id = 1; id <= 300; id++) {
        fake_journal_add(bench.journal, id, "other");
    }
    add(301, 301);
    run(10);
    assert_string_equal(reason(1), "no route matches");
    assert_string_equal(reason(300), "no route matches");
    assert_string_equal(fake_topics(0), "t/301");
    assert_int_equal(fake_journal_settled(bench.journal), 301);
    stop();
}

static void a_packet_over_the_brokers_limit_is_buried_unsent(void **state)
{
    (void)state;
    start((struct setup){0});
    fake_broker.limits.maximum_packet_size = 1100;
    fake_journal_add_sized(bench.journal, 1, "e", 1000);
    fake_journal_add_sized(bench.journal, 2, "e", 1001);
    run(10);
    assert_string_equal(reason(1), "(alive)");
    assert_string_equal(reason(2), "its packet of 1101 bytes is over the broker's limit of 1100 on topic t/2");
    assert_string_equal(fake_topics(0), "t/1");
    stop();
}

static void a_lower_qos_and_no_retain_are_taken_from_the_broker_and_said_once(void **state)
{
    (void)state;
    const char *topics[] = {"t/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 2, .retain = true)};
    start((struct setup){.routes = routes, .route_count = 1, .status_topic = "status"});
    fake_broker.limits.maximum_qos = 0;
    fake_broker.limits.retain_available = false;
    add(1, 3);
    run(10);
    assert_int_equal(fake_sent_count(), 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(fake_sent(i)->qos, 0);
        assert_false(fake_sent(i)->retain);
    }
    assert_int_equal(fake_log_count("WARN the broker offers a lower QoS"), 1);
    assert_int_equal(fake_log_count("WARN the broker does not retain"), 1);
    stop();
}

static void what_the_route_asks_for_is_what_is_sent(void **state)
{
    (void)state;
    const char *topics[] = {"t/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 2, .retain = true, .expiry_ms = 60000)};
    start((struct setup){.routes = routes, .route_count = 1});
    add(1, 1);
    run(10);
    assert_int_equal(fake_sent(0)->qos, 2);
    assert_true(fake_sent(0)->retain);
    assert_int_equal(fake_sent(0)->expiry_s, 60);
    assert_true(fake_sent(0)->content_type_size > 0);
    stop();
}

/* --- expiry --- */

static void expiry_counts_from_the_acceptance_and_what_ran_out_while_the_broker_was_away_is_dead(void **state)
{
    (void)state;
    const char *topics[] = {"t/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 1, .expiry_ms = 60000)};
    start((struct setup){.routes = routes, .route_count = 1});
    fake_broker.answer = hold;
    add(1, 1);
    run(30000);
    add(2, 2);
    run(10000);
    fake_close(0, true, "silence");
    fake_broker.unreachable = "connection refused";
    run(25000);
    fake_broker.unreachable = NULL;
    run(20000);
    assert_string_equal(fake_topics(2) + 0, "");
    assert_string_equal(reason(1), "expired before it was published");
    const struct sent *last = fake_sent(fake_sent_count() - 1);
    assert_string_equal(last->topic, "t/2");
    assert_in_range(last->expiry_s, 5, 25);
    stop();
}

static void a_message_that_has_run_out_makes_its_event_dead_and_the_others_are_sent(void **state)
{
    (void)state;
    const char *first[] = {"a/{id}"}, *second[] = {"b/{id}"};
    const struct route routes[] = {ROUTE("*", first, .qos = 1, .expiry_ms = 5000), ROUTE("*", second, .qos = 1)};
    start((struct setup){.routes = routes, .route_count = 2});
    fake_broker.unreachable = "connection refused";
    add(1, 1);
    run(8000);
    fake_broker.unreachable = NULL;
    run(60000);
    assert_string_equal(fake_topics(0), "b/1");
    assert_string_equal(reason(1), "expired before it was published");
    assert_int_equal(fake_journal_settled(bench.journal), 1);
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 1);
    assert_int_equal(counted(METRIC_EVENTS_PUBLISHED), 0);
    stop();
}

static void a_message_that_was_confirmed_in_time_does_not_run_out_any_more(void **state)
{
    (void)state;
    const char *first[] = {"a/{id}"}, *second[] = {"b/{id}"}, *third[] = {"c/{id}"};
    const struct route routes[] = {ROUTE("*", first, .qos = 1, .expiry_ms = 5000), ROUTE("*", second, .qos = 1),
                                   ROUTE("*", third, .qos = 1)};
    start((struct setup){.routes = routes, .route_count = 3});
    fake_broker.answer = hold;
    add(1, 1);
    run(1);
    fake_answer(0, 0);
    fake_answer(1, 0);
    run(10000); /* "a" would have run out by now */
    fake_close(0, true, "silence");
    run(1000);
    assert_string_equal(fake_topics(2), "c/1");
    fake_answer(3, 0);
    run(1);
    assert_int_equal(fake_journal_settled(bench.journal), 1);
    assert_string_equal(reason(1), "(alive)");
    stop();
}

static void a_message_may_run_out_while_it_is_in_flight(void **state)
{
    (void)state;
    const char *first[] = {"a/{id}"}, *others[] = {"b/{id}", "c/{id}"};
    const struct route routes[] = {ROUTE("*", first, .qos = 1, .expiry_ms = 5000), ROUTE("*", others, .qos = 1)};
    start((struct setup){.routes = routes, .route_count = 2, .inflight = 2});
    fake_broker.answer = hold;
    add(1, 1);
    run(8000);
    fake_answer(1, 0);
    run(1);
    assert_string_equal(fake_topics(0), "a/1 b/1 c/1");
    fake_answer(2, 0);
    run(1);
    assert_int_equal(fake_journal_settled(bench.journal), 0);
    fake_answer(0, 0);
    run(1);
    assert_int_equal(fake_journal_settled(bench.journal), 1);
    assert_string_equal(reason(1), "(alive)");
    stop();
}

/* --- P4: poison --- */

static void P4_strikes_count_for_one_event_only_and_the_verdict_waits_for_the_next_attempt(void **state)
{
    (void)state;
    struct blame blame = {0};
    for (int i = 0; i < 3; i++) {
        assert_false(blame_is_proven(&blame));
        blame_accuse(&blame, 7);
        assert_false(blame_is_proven(&blame));
        blame_broker_is_there(&blame);
        blame_broker_is_there(&blame);
        blame_broker_is_away(&blame);
    }
    assert_true(blame_is_proven(&blame));
    blame_accuse(&blame, 8);
    blame_broker_is_there(&blame);
    assert_false(blame_is_proven(&blame));
    assert_int_equal(blame.strikes, 1);
    assert_int_equal(blame.outages, 0);
}

static void P4_an_event_over_which_the_broker_closes_three_times_running_is_buried(void **state)
{
    (void)state;
    start((struct setup){.inflight = 8, .status_topic = "status"});
    make_bad("t/3", CLOSE, 100);
    add(1, 6);
    run(30000);
    assert_string_equal(reason(3), "the broker closed the connection over it three times");
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 1);
    assert_int_equal(counted(METRIC_EVENTS_PUBLISHED), 5);
    assert_int_equal(fake_connections(), 4);
    assert_string_equal(fake_topics(2), "t/3");
    assert_string_equal(fake_topics(3), "t/3");
    assert_string_equal(fake_topics(4), "t/4 t/5 t/6");
    assert_int_equal(fake_log_count("given up"), 0); /* the status topic is innocent */
    assert_true(state_now().connected);
    stop();
}

static int refuse_every_third_and_close(const struct sent *message)
{
    return message->topic[0] == 't' && atoi(message->topic + 2) % 3 == 0 ? REFUSE_AND_CLOSE : 0;
}

static void a_broker_that_closes_after_each_refusal_holds_up_the_line_for_less_than_a_second_each(void **state)
{
    (void)state;
    start((struct setup){.inflight = 8, .status_topic = "status"});
    fake_broker.answer = refuse_every_third_and_close;
    add(1, 60);
    run(20 * 400);
    assert_int_equal(fake_journal_settled(bench.journal), 60);
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 20);
    assert_int_equal(fake_log_count("refused by the broker: not authorized (0x87)"), 20);
    assert_int_equal(fake_connections(), 21);
    assert_int_equal(fake_log_count("given up"), 0);
    stop();
}

/* PUBACKs that the closing overtook: only the poison itself is clear, and it is not the oldest. */
static int hold_until_poison(const struct sent *message)
{
    if (strcmp(message->topic, bad_topic) == 0) {
        return CLOSE;
    }
    return message->connection == 1 ? HOLD : 0;
}

static int close_over_every_tenth(const struct sent *message)
{
    size_t length = strlen(message->topic);
    return message->topic[0] == 't' && message->topic[length - 1] == '0' ? CLOSE : 0;
}

static void P4_the_blame_is_not_shared_with_those_in_flight_before_it(void **state)
{
    (void)state;
    start((struct setup){.inflight = 8});
    make_bad("t/5", CLOSE, 100);
    fake_broker.answer = hold_until_poison;
    add(1, 20);
    run(30000);
    assert_string_equal(reason(5), "the broker closed the connection over it three times");
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 1);
    assert_int_equal(fake_journal_settled(bench.journal), 20);
    assert_int_equal(fake_connections(), 5); /* one in company, in which 1 was accused, and three alone */
    assert_string_equal(fake_topics(2), "t/1 t/2 t/3 t/4 t/5");
    assert_string_equal(fake_topics(3), "t/5");
    stop();
}

static void P4_the_accused_and_its_neighbours_are_alone_in_flight(void **state)
{
    (void)state;
    start((struct setup){.inflight = 4});
    fake_broker.answer = hold;
    add(1, 9);
    run(1);
    fake_close(0, false, "end of stream");
    run(1000);
    assert_string_equal(fake_topics(2), "t/1");
    fake_answer(4, 0);
    run(1);
    assert_string_equal(fake_topics(2), "t/1 t/2");
    fake_answer(5, 0);
    run(1);
    fake_answer(6, 0);
    run(1);
    assert_string_equal(fake_topics(2), "t/1 t/2 t/3 t/4"); /* 5 waits for the last of them */
    fake_answer(7, 0);
    run(1);
    assert_string_equal(fake_topics(2), "t/1 t/2 t/3 t/4 t/5 t/6 t/7 t/8");
    stop();
}

static void P4_two_poisonous_events_both_die_and_the_rest_lives(void **state)
{
    (void)state;
    start((struct setup){.inflight = 8, .status_topic = "status"});
    fake_broker.limits.receive_maximum = 8;
    make_bad("t/2", CLOSE, 3);
    add(1, 4);
    run(20000);
    make_bad("t/7", CLOSE, 3);
    add(5, 9);
    run(30000);
    assert_string_equal(reason(2), "the broker closed the connection over it three times");
    assert_string_equal(reason(7), "the broker closed the connection over it three times");
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 2);
    assert_int_equal(fake_journal_settled(bench.journal), 9);
    stop();
}

static void P4_each_burial_begins_the_backoff_anew(void **state)
{
    (void)state;
    start((struct setup){.inflight = 8, .status_topic = "status"});
    fake_broker.answer = close_over_every_tenth;
    add(1, 100);
    run(60000); /* ten of them: with a backoff that goes on growing it would take minutes */
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 10);
    assert_int_equal(fake_journal_settled(bench.journal), 100);
    stop();
}

static void P4_only_three_times_running_counts(void **state)
{
    (void)state;
    start((struct setup){0});
    make_bad("t/1", CLOSE, 2);
    add(1, 1);
    run(5000);
    assert_string_equal(reason(1), "(alive)");
    assert_int_equal(fake_journal_settled(bench.journal), 1);
    assert_false(line_is_wary(uplink_line(bench.uplink)));
    stop();
}

/* The broker goes after_ms after it got something, and is away for a while or there again at once. */
static void outage(uint8_t reason_code, bool silent, int64_t after_ms, bool away)
{
    while (state_now().in_flight == 0) {
        run(100);
    }
    run(after_ms);
    fake_close(reason_code, silent, "gone");
    turn();
    fake_broker.unreachable = away ? "connection refused" : NULL;
    run(away ? 20000 : 0);
    fake_broker.unreachable = NULL;
}

static void outages_happen(int times, uint8_t reason_code, bool silent, int64_t after_ms, bool away)
{
    start((struct setup){.inflight = 4, .status_topic = "status"});
    fake_broker.answer = hold_events;
    add(1, 6);
    for (int i = 0; i < times; i++) {
        outage(reason_code, silent, after_ms, away);
    }
}

static void and_all_is_published(void)
{
    fake_broker.answer = NULL;
    run(60000);
    assert_int_equal(fake_journal_settled(bench.journal), 6);
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 0);
    assert_int_equal(counted(METRIC_EVENTS_PUBLISHED), 6);
    assert_int_equal(fake_log_count("given up"), 0);
    stop();
}

static void P4_a_broker_that_says_it_is_its_own_trouble_accuses_nobody(void **state)
{
    (void)state;
    static const uint8_t codes[] = {0x89, 0x8b, 0x8d, 0x8e, 0x93, 0x96, 0x97, 0x98, 0x9c, 0x9d, 0x9f, 0xa0};
    for (size_t i = 0; i < sizeof codes; i++) {
        outages_happen(4, codes[i], false, 1, false);
        and_all_is_published();
    }
}

static void P4_silence_accuses_nobody(void **state)
{
    (void)state;
    outages_happen(5, 0, true, 1, false);
    and_all_is_published();
}

static void P4_a_loss_long_after_the_sending_accuses_nobody(void **state)
{
    (void)state;
    outages_happen(5, 0, false, 9000, false);
    and_all_is_published();
}

static void P4_a_broker_that_is_away_after_the_loss_was_stopped_and_accuses_nobody(void **state)
{
    (void)state;
    outages_happen(5, 0, false, 1, true);
    and_all_is_published();
}

static void P4_packet_too_large_by_disconnect_does_accuse(void **state)
{
    (void)state;
    outages_happen(3, 0x95, false, 1, false);
    run(20000);
    assert_string_equal(reason(1), "the broker closed the connection over it three times");
    stop();
}

static void P4_an_event_that_brings_the_broker_down_each_time_is_believed_after_ten(void **state)
{
    (void)state;
    outages_happen(9, 0, false, 1, true);
    assert_string_equal(reason(1), "(alive)");
    outage(0, false, 1, true);
    assert_string_equal(reason(1), "(alive)");
    run(20000);
    assert_string_equal(reason(1), "the broker went down over it ten times");
    stop();
}

static void P4_a_large_event_on_a_slow_link_can_be_accused_later(void **state)
{
    (void)state;
    start((struct setup){0});
    fake_broker.answer = hold;
    fake_journal_add_sized(bench.journal, 1, "e", 1000000);
    line_wake(uplink_line(bench.uplink));
    for (int i = 0; i < 3; i++) {
        while (state_now().in_flight == 0) {
            run(100);
        }
        run(30000);
        fake_close(0, false, "end of stream");
        turn();
    }
    run(20000);
    assert_string_equal(reason(1), "the broker closed the connection over it three times");
    stop();
}

static void P4_of_two_brokers_only_the_one_that_was_lost_can_be_away(void **state)
{
    (void)state;
    start((struct setup){.brokers = two_brokers, .broker_count = 2});
    make_bad("t/1", CLOSE, 100);
    fake_broker.unreachable_host = "a";
    add(1, 2);
    run(20000);
    assert_string_equal(reason(1), "the broker closed the connection over it three times");
    stop();
}

/* --- the rate --- */

static void no_more_messages_go_than_max_rate_allows(void **state)
{
    (void)state;
    start((struct setup){.max_rate = 20, .inflight = 100});
    add(1, 100);
    run(1000);
    assert_in_range(fake_sent_count(), 19, 21);
    run(4100);
    assert_int_equal(fake_sent_count(), 100);
    for (size_t i = 1; i < 100; i++) {
        int64_t gap = fake_sent(i)->at_ms - fake_sent(i - 1)->at_ms;
        assert_in_range(gap, 49, 52);
    }
    assert_int_equal(fake_journal_settled(bench.journal), 100);
    stop();
}

/* --- the journal's own troubles --- */

static void a_journal_that_cannot_be_read_is_asked_again_and_logged_once(void **state)
{
    (void)state;
    start((struct setup){0});
    fake_journal_fail_claims(bench.journal, "disk error");
    add(1, 1);
    run(60000);
    assert_int_equal(fake_log_count("ERROR cannot read the journal; trying again reason=disk error"), 1);
    assert_in_range(fake_journal_failures(bench.journal), 7, 12); /* with backoff */
    fake_journal_fail_claims(bench.journal, NULL);
    run(20000);
    assert_int_equal(fake_journal_settled(bench.journal), 1);
    stop();
}

static void P3_a_damaged_event_is_buried_and_the_line_moves_on(void **state)
{
    (void)state;
    start((struct setup){0});
    add(1, 3);
    fake_journal_damage(bench.journal, 2);
    run(10);
    assert_string_equal(reason(2), "the stored event is damaged");
    assert_string_equal(fake_topics(0), "t/1 t/3");
    assert_int_equal(fake_journal_settled(bench.journal), 3);
    stop();
}

static void a_burial_that_the_journal_cannot_take_is_tried_again_and_nothing_passes_it(void **state)
{
    (void)state;
    start((struct setup){0});
    make_bad("t/2", 0x87, 1);
    fake_journal_refuse_burials(bench.journal, true);
    add(1, 4);
    run(5000);
    assert_int_equal(fake_journal_settled(bench.journal), 1);
    assert_string_equal(fake_topics(0), "t/1 t/2 t/3 t/4");
    assert_int_equal(fake_log_count("ERROR cannot keep a dead event now"), 1);
    assert_in_range(fake_journal_failures(bench.journal), 15, 25);
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 0);
    fake_journal_refuse_burials(bench.journal, false);
    run(300);
    assert_int_equal(fake_journal_settled(bench.journal), 4);
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 1);
    stop();
}

/* --- without a journal --- */

static void the_journal_hears_of_the_connection(void **state)
{
    (void)state;
    start((struct setup){0});
    run(10);
    assert_string_equal(fake_journal_link(bench.journal), "up");
    fake_close(0, true, "nothing was heard");
    turn();
    assert_string_equal(fake_journal_link(bench.journal), "nothing was heard");
    stop();
}

static void a_journal_that_keeps_nothing_takes_everything_back_when_the_connection_is_lost(void **state)
{
    (void)state;
    start((struct setup){.is_memory = true});
    fake_broker.answer = hold;
    add(1, 5);
    run(1);
    fake_answer(0, 0);
    fake_close(0, false, "end of stream"); /* in the same turn: the confirmed one is settled, not refused */
    turn();
    assert_int_equal(counted(METRIC_EVENTS_PUBLISHED), 1);
    assert_string_equal(fake_journal_link(bench.journal), "end of stream");
    assert_int_equal(fake_journal_rewinds(bench.journal), 1);
    assert_int_equal(state_now().in_flight, 0);
    fake_broker.answer = NULL;
    run(1000);
    assert_string_equal(fake_journal_link(bench.journal), "up");
    add(6, 7);
    run(10);
    assert_string_equal(fake_topics(2), "t/6 t/7"); /* none is sent again: their senders will */
    assert_int_equal(counted(METRIC_EVENTS_DEAD), 0);
    stop();
}

static void without_a_journal_a_passing_refusal_refuses_the_event(void **state)
{
    (void)state;
    start((struct setup){.is_memory = true});
    make_bad("t/1", 0x97, 1);
    add(1, 2);
    run(10);
    assert_string_equal(reason(1), "refused by the broker: quota exceeded (0x97) on topic t/1");
    assert_int_equal(fake_journal_settled(bench.journal), 2);
    stop();
}

static void without_a_journal_nothing_counts_that_nobody_confirms(void **state)
{
    (void)state;
    const char *topics[] = {"t/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 0), ROUTE("*", topics, .qos = 1)};
    static const char unconfirmed[] = "with QoS 0 nothing confirms it, and without a journal only a confirmed event is taken";
    start((struct setup){.is_memory = true, .routes = routes + 1, .route_count = 1});
    fake_broker.limits.maximum_qos = 0;
    add(1, 1);
    run(10);
    assert_string_equal(reason(1), unconfirmed);
    assert_int_equal(fake_sent_count(), 0);
    stop();
    start((struct setup){.is_memory = true, .routes = routes, .route_count = 1});
    add(1, 1);
    run(10);
    assert_string_equal(reason(1), unconfirmed);
    assert_int_equal(fake_sent_count(), 0);
    stop();
}

/* --- reload --- */

static void new_routes_hold_for_what_is_rendered_from_then_on(void **state)
{
    (void)state;
    const char *topics[] = {"new/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 1)};
    start((struct setup){.inflight = 2});
    fake_broker.answer = hold;
    add(1, 4);
    run(1);
    struct route_table *table = open_routes(routes, 1);
    line_set_routes(uplink_line(bench.uplink), table);
    route_table_unref(&table);
    fake_broker.answer = NULL;
    fake_answer_all(0);
    run(1);
    assert_string_equal(fake_topics(0), "t/1 t/2 new/3 new/4");
    stop();
}

static void an_event_of_which_a_part_is_confirmed_is_finished_with_its_old_routes(void **state)
{
    (void)state;
    const char *two[] = {"a/{id}", "b/{id}"}, *other[] = {"x/{id}", "y/{id}"};
    const struct route routes[] = {ROUTE("*", two, .qos = 1)};
    const struct route new_routes[] = {ROUTE("*", other, .qos = 1)};
    start((struct setup){.inflight = 4, .routes = routes, .route_count = 1});
    fake_broker.answer = hold;
    add(1, 2);
    run(1);
    fake_answer(0, 0);
    run(10000);
    struct route_table *table = open_routes(new_routes, 1);
    line_set_routes(uplink_line(bench.uplink), table);
    route_table_unref(&table);
    fake_close(0, true, "silence");
    fake_broker.answer = NULL;
    run(1000);
    assert_string_equal(fake_topics(2), "b/1 x/2 y/2");
    stop();
}

/* --- stopping --- */

static void a_stop_waits_for_what_is_in_flight_says_offline_and_disconnects(void **state)
{
    (void)state;
    start((struct setup){.inflight = 2, .status_topic = "status"});
    fake_broker.answer = hold_events;
    add(1, 5);
    run(10);
    uplink_stop(bench.uplink, clock_mono_ms() + 10000);
    uint64_t claimed = fake_journal_claimed(bench.journal);
    add(6, 7);
    run(1000);
    assert_int_equal(fake_journal_claimed(bench.journal), claimed);
    assert_int_equal(fake_sent_count(), 3); /* "online", 1, 2 */
    fake_answer(1, 0);
    run(1000);
    assert_int_equal(fake_sent_count(), 3);
    fake_broker.answer = hold;
    fake_answer(2, 0);
    run(1000);
    assert_int_equal(fake_sent_count(), 4); /* nothing newer went */
    assert_string_equal(fake_sent(3)->topic, "status");
    assert_string_equal(fake_sent(3)->payload, "offline");
    assert_true(fake_sent(3)->retain);
    assert_false(uplink_is_over(bench.uplink));
    assert_false(fake_was_disconnected());
    fake_answer(3, 0);
    turn();
    assert_true(uplink_is_over(bench.uplink));
    assert_true(fake_was_disconnected());
    assert_int_equal(fake_journal_settled(bench.journal), 2);
    stop();
}

static void a_stop_finishes_the_event_that_is_half_sent(void **state)
{
    (void)state;
    const char *topics[] = {"a/{id}", "b/{id}", "c/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 1)};
    start((struct setup){.inflight = 2, .routes = routes, .route_count = 1});
    fake_broker.answer = hold;
    add(1, 2);
    run(10);
    uplink_stop(bench.uplink, clock_mono_ms() + 10000);
    fake_broker.answer = NULL;
    fake_answer_all(0);
    run(100);
    assert_string_equal(fake_topics(0), "a/1 b/1 c/1");
    assert_int_equal(fake_journal_settled(bench.journal), 1);
    assert_true(uplink_is_over(bench.uplink));
    assert_true(fake_was_disconnected());
    stop();
}

static void a_stop_finishes_the_half_sent_event_at_the_rate_that_is_allowed(void **state)
{
    (void)state;
    const char *topics[] = {"a/{id}", "b/{id}", "c/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 1)};
    start((struct setup){.routes = routes, .route_count = 1, .max_rate = 1});
    add(1, 2);
    run(1);
    uplink_stop(bench.uplink, clock_mono_ms() + 10000);
    run(5000);
    assert_string_equal(fake_topics(0), "a/1 b/1 c/1");
    assert_true(uplink_is_over(bench.uplink));
    stop();
}

static void at_the_deadline_the_connection_is_dropped_so_that_the_will_speaks(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    fake_broker.answer = hold_events;
    add(1, 1);
    run(10);
    uplink_stop(bench.uplink, clock_mono_ms() + 10000);
    run(9999);
    assert_false(uplink_is_over(bench.uplink));
    run(1);
    assert_true(uplink_is_over(bench.uplink));
    assert_false(fake_was_disconnected());
    assert_int_equal(fake_sent_count(), 2);
    assert_int_equal(fake_journal_settled(bench.journal), 0);
    stop();
}

static void an_offline_that_is_not_confirmed_leaves_the_word_to_the_will(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    run(10);
    fake_broker.answer = hold;
    uplink_stop(bench.uplink, clock_mono_ms() + 5000);
    run(5000);
    assert_true(uplink_is_over(bench.uplink));
    assert_string_equal(fake_sent(1)->payload, "offline");
    assert_false(fake_was_disconnected());
    stop();
}

static void a_stop_without_a_connection_ends_at_once(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    fake_broker.never_completes = true;
    add(1, 1);
    turn();
    uplink_stop(bench.uplink, clock_mono_ms() + 10000);
    turn();
    assert_true(uplink_is_over(bench.uplink));
    stop();
    start((struct setup){0});
    fake_broker.unreachable = "connection refused";
    turn();
    uplink_stop(bench.uplink, clock_mono_ms() + 10000);
    turn();
    assert_true(uplink_is_over(bench.uplink));
    stop();
}

static void a_stop_does_not_wait_for_a_passing_refusal(void **state)
{
    (void)state;
    const char *topics[] = {"a/{id}", "b/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 1)};
    start((struct setup){.routes = routes, .route_count = 1});
    make_bad("b/1", 0x97, 100);
    add(1, 2);
    run(30000);
    uplink_stop(bench.uplink, clock_mono_ms() + 10000);
    run(100);
    assert_true(uplink_is_over(bench.uplink));
    assert_true(fake_was_disconnected());
    stop();
}

static void a_stop_without_a_journal_answers_all_who_wait(void **state)
{
    (void)state;
    start((struct setup){.is_memory = true, .inflight = 2});
    fake_broker.answer = hold;
    add(1, 300);
    run(10);
    uplink_stop(bench.uplink, clock_mono_ms() + 10000);
    fake_broker.answer = NULL;
    fake_answer_all(0);
    run(1000);
    assert_true(uplink_is_over(bench.uplink));
    assert_int_equal(counted(METRIC_EVENTS_PUBLISHED), 300);
    assert_string_equal(fake_journal_link(bench.journal), "the bridge is stopping");
    stop();
}

static void a_connection_lost_while_stopping_is_not_made_again(void **state)
{
    (void)state;
    start((struct setup){.status_topic = "status"});
    fake_broker.answer = hold_events;
    add(1, 1);
    run(10);
    uplink_stop(bench.uplink, clock_mono_ms() + 10000);
    turn();
    fake_close(0, false, "end of stream");
    turn();
    assert_true(uplink_is_over(bench.uplink));
    assert_int_equal(fake_connections(), 1);
    stop();
}

/* --- the thread --- */

static struct publisher *open_threaded(struct setup setup)
{
    prepare(setup.is_memory, true);
    struct publisher_options options = options_of(&setup);
    options.routes = open_routes(setup.routes, setup.route_count);
    struct publisher *publisher = NULL;
    struct error why;
    assert_int_equal(publisher_open(&publisher, &options, &why), ERR_NONE);
    route_table_unref(&options.routes);
    return publisher;
}

static void wait_until_settled(uint64_t seq)
{
    int64_t deadline_ms = clock_mono_ms() + 20000;
    while (fake_journal_settled(bench.journal) < seq) {
        assert_true(clock_mono_ms() < deadline_ms);
        usleep(200);
    }
}

static void the_thread_publishes_what_it_is_woken_for_and_takes_new_routes(void **state)
{
    (void)state;
    const char *topics[] = {"new/{id}"};
    const struct route routes[] = {ROUTE("*", topics, .qos = 1)};
    struct publisher *publisher = open_threaded((struct setup){.status_topic = "status"});
    for (int id = 1; id <= 500; id++) {
        fake_journal_add(bench.journal, id, "e");
        publisher_wake(publisher);
    }
    wait_until_settled(500);
    struct publisher_state now;
    publisher_state(publisher, &now);
    assert_true(now.connected);
    assert_string_equal(now.broker, "mqtt://a");
    struct route_table *table = open_routes(routes, 1);
    publisher_set_routes(publisher, table);
    publisher_set_routes(publisher, table);
    route_table_unref(&table);
    fake_journal_add(bench.journal, 501, "e");
    publisher_wake(publisher);
    wait_until_settled(501);
    publisher_stop(publisher, clock_mono_ms() + 10000);
    publisher_stop(publisher, clock_mono_ms() + 10000);
    assert_string_equal(fake_sent(fake_sent_count() - 2)->topic, "new/501");
    assert_string_equal(fake_sent(fake_sent_count() - 1)->payload, "offline");
    assert_true(fake_was_disconnected());
    publisher_state(publisher, &now);
    assert_false(now.connected);
    publisher_close(&publisher);
    assert_null(publisher);
    publisher_close(&publisher);
    stop();
}

static void P6_waking_never_waits_even_while_the_broker_does_not_answer(void **state)
{
    (void)state;
    struct publisher *publisher = open_threaded((struct setup){0});
    int64_t begun_us = clock_mono_us();
    for (int i = 0; i < 100000; i++) {
        publisher_wake(publisher);
    }
    assert_true(clock_mono_us() - begun_us < 5000000);
    publisher_close(&publisher);
    stop();
}

static void certificates_are_read_at_the_start_and_again_and_a_bad_one_changes_nothing(void **state)
{
    (void)state;
    const struct publisher_broker tls_broker[] = {{"mqtts://a", "a", 8883, true}};
    struct publisher *publisher = open_threaded((struct setup){.brokers = tls_broker, .broker_count = 1});
    const struct mqtt_tls_options bad = {.ca_file = "missing"}, good = {.ca_file = "there"};
    struct error why;
    assert_int_equal(publisher_reload(publisher, &bad, SLICE("new"), &why), ERR_CONFIG);
    assert_int_equal(publisher_reload(publisher, &good, SLICE("new"), &why), ERR_NONE);
    assert_int_equal(publisher_reload(publisher, &good, SLICE("new"), &why), ERR_NONE);
    publisher_close(&publisher);
    stop();

    prepare(false, true);
    struct setup setup = {.brokers = tls_broker, .broker_count = 1};
    struct publisher_options options = options_of(&setup);
    options.routes = open_routes(NULL, 0);
    options.tls = bad;
    assert_int_equal(publisher_open(&publisher, &options, &why), ERR_CONFIG);
    assert_string_equal(why.text, "cannot read missing");
    assert_null(publisher);
    route_table_unref(&options.routes);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_backoff_doubles_from_a_quarter_second_to_fifteen_with_a_quarter_of_jitter),
        cmocka_unit_test(a_complaint_is_said_when_it_changes_and_every_five_minutes),
        cmocka_unit_test(a_rate_lets_through_what_it_says_and_no_burst_after_a_pause),
        cmocka_unit_test(online_is_published_retained_before_any_event_and_offline_is_the_will),
        cmocka_unit_test(without_a_status_topic_there_is_neither_birth_nor_will),
        cmocka_unit_test(brokers_are_tried_in_order_at_once_and_the_whole_list_again_after_the_backoff),
        cmocka_unit_test(a_broker_that_stays_away_is_logged_once_and_every_five_minutes),
        cmocka_unit_test(a_lost_connection_is_logged_once_and_the_first_broker_is_tried_again),
        cmocka_unit_test(a_refused_login_is_tried_again_and_named),
        cmocka_unit_test(the_backoff_begins_anew_only_after_a_connection_that_lived),
        cmocka_unit_test(mqtt_3_is_warned_about_once_and_gets_no_properties),
        cmocka_unit_test(a_broker_that_went_away_again_is_complained_about_again),
        cmocka_unit_test(P5_a_status_topic_refused_by_reason_code_is_given_up_with_one_warning),
        cmocka_unit_test(P5_a_status_topic_over_which_the_broker_closes_three_times_is_given_up),
        cmocka_unit_test(P5_so_is_one_that_the_broker_confirms_before_it_closes),
        cmocka_unit_test(P5_a_broker_that_closes_a_moment_after_confirming_it_is_not_held_against_an_event),
        cmocka_unit_test(P5_a_broker_that_rejects_the_will_is_found_out_by_an_attempt_without_it),
        cmocka_unit_test(P5_silence_is_no_reason_to_go_without_the_will),
        cmocka_unit_test(P5_a_broker_that_comes_back_at_the_attempt_without_the_will_gets_it_all_the_same),
        cmocka_unit_test(a_broker_that_falls_silent_or_goes_away_over_the_status_topic_keeps_it),
        cmocka_unit_test(a_passing_refusal_of_online_is_repeated_and_holds_up_no_event),
        cmocka_unit_test(P1_messages_go_in_the_order_of_acceptance_and_within_an_event_of_routes_and_topics),
        cmocka_unit_test(no_more_is_in_flight_than_the_window_and_the_broker_allow),
        cmocka_unit_test(P2_only_the_contiguous_prefix_is_settled_and_once_a_turn),
        cmocka_unit_test(P2_an_event_is_settled_only_when_each_of_its_messages_is_confirmed),
        cmocka_unit_test(P1_after_a_lost_connection_the_unacknowledged_go_again_in_order_before_anything_newer),
        cmocka_unit_test(P1_a_connection_that_breaks_inside_a_burst_loses_nothing),
        cmocka_unit_test(the_window_is_refilled_however_many_events_wait),
        cmocka_unit_test(what_is_claimed_is_bounded_by_bytes),
        cmocka_unit_test(retry_codes_stop_the_line_and_the_refused_go_again_in_order),
        cmocka_unit_test(retries_back_off_up_to_fifteen_seconds_and_begin_anew_after_a_success),
        cmocka_unit_test(an_error_that_does_not_explain_itself_makes_an_event_dead_after_eight_attempts),
        cmocka_unit_test(events_of_a_kind_that_is_refused_so_die_together_while_others_pass),
        cmocka_unit_test(a_broker_that_refuses_everything_so_costs_an_event_now_and_then_and_not_the_window),
        cmocka_unit_test(an_error_that_passes_after_seven_attempts_costs_nothing_also_over_a_lost_connection),
        cmocka_unit_test(a_quota_is_waited_for_as_long_as_it_takes),
        cmocka_unit_test(an_unexplained_refusal_of_online_is_repeated_eight_times_and_then_given_up_with_one_warning),
        cmocka_unit_test(only_the_message_that_was_refused_goes_again),
        cmocka_unit_test(without_memory_sending_pauses_and_goes_on),
        cmocka_unit_test(P3_what_the_client_says_can_never_be_sent_is_buried),
        cmocka_unit_test(the_first_reason_stays),
        cmocka_unit_test(P3_a_permanent_refusal_buries_the_event_and_the_line_moves_on),
        cmocka_unit_test(an_unheard_message_is_published_and_counted),
        cmocka_unit_test(an_unheard_message_is_dead_where_its_route_says_so),
        cmocka_unit_test(P3_what_can_never_be_sent_is_buried_unsent_however_much_of_it_there_is),
        cmocka_unit_test(a_packet_over_the_brokers_limit_is_buried_unsent),
        cmocka_unit_test(a_lower_qos_and_no_retain_are_taken_from_the_broker_and_said_once),
        cmocka_unit_test(what_the_route_asks_for_is_what_is_sent),
        cmocka_unit_test(expiry_counts_from_the_acceptance_and_what_ran_out_while_the_broker_was_away_is_dead),
        cmocka_unit_test(a_message_that_has_run_out_makes_its_event_dead_and_the_others_are_sent),
        cmocka_unit_test(a_message_that_was_confirmed_in_time_does_not_run_out_any_more),
        cmocka_unit_test(a_message_may_run_out_while_it_is_in_flight),
        cmocka_unit_test(P4_strikes_count_for_one_event_only_and_the_verdict_waits_for_the_next_attempt),
        cmocka_unit_test(P4_an_event_over_which_the_broker_closes_three_times_running_is_buried),
        cmocka_unit_test(a_broker_that_closes_after_each_refusal_holds_up_the_line_for_less_than_a_second_each),
        cmocka_unit_test(P4_the_blame_is_not_shared_with_those_in_flight_before_it),
        cmocka_unit_test(P4_the_accused_and_its_neighbours_are_alone_in_flight),
        cmocka_unit_test(P4_two_poisonous_events_both_die_and_the_rest_lives),
        cmocka_unit_test(P4_each_burial_begins_the_backoff_anew),
        cmocka_unit_test(P4_only_three_times_running_counts),
        cmocka_unit_test(P4_a_broker_that_says_it_is_its_own_trouble_accuses_nobody),
        cmocka_unit_test(P4_silence_accuses_nobody),
        cmocka_unit_test(P4_a_loss_long_after_the_sending_accuses_nobody),
        cmocka_unit_test(P4_a_broker_that_is_away_after_the_loss_was_stopped_and_accuses_nobody),
        cmocka_unit_test(P4_packet_too_large_by_disconnect_does_accuse),
        cmocka_unit_test(P4_an_event_that_brings_the_broker_down_each_time_is_believed_after_ten),
        cmocka_unit_test(P4_a_large_event_on_a_slow_link_can_be_accused_later),
        cmocka_unit_test(P4_of_two_brokers_only_the_one_that_was_lost_can_be_away),
        cmocka_unit_test(no_more_messages_go_than_max_rate_allows),
        cmocka_unit_test(a_journal_that_cannot_be_read_is_asked_again_and_logged_once),
        cmocka_unit_test(P3_a_damaged_event_is_buried_and_the_line_moves_on),
        cmocka_unit_test(a_burial_that_the_journal_cannot_take_is_tried_again_and_nothing_passes_it),
        cmocka_unit_test(the_journal_hears_of_the_connection),
        cmocka_unit_test(a_journal_that_keeps_nothing_takes_everything_back_when_the_connection_is_lost),
        cmocka_unit_test(without_a_journal_a_passing_refusal_refuses_the_event),
        cmocka_unit_test(without_a_journal_nothing_counts_that_nobody_confirms),
        cmocka_unit_test(new_routes_hold_for_what_is_rendered_from_then_on),
        cmocka_unit_test(an_event_of_which_a_part_is_confirmed_is_finished_with_its_old_routes),
        cmocka_unit_test(a_stop_waits_for_what_is_in_flight_says_offline_and_disconnects),
        cmocka_unit_test(a_stop_finishes_the_event_that_is_half_sent),
        cmocka_unit_test(a_stop_finishes_the_half_sent_event_at_the_rate_that_is_allowed),
        cmocka_unit_test(at_the_deadline_the_connection_is_dropped_so_that_the_will_speaks),
        cmocka_unit_test(an_offline_that_is_not_confirmed_leaves_the_word_to_the_will),
        cmocka_unit_test(a_stop_without_a_connection_ends_at_once),
        cmocka_unit_test(a_stop_does_not_wait_for_a_passing_refusal),
        cmocka_unit_test(a_stop_without_a_journal_answers_all_who_wait),
        cmocka_unit_test(a_connection_lost_while_stopping_is_not_made_again),
        cmocka_unit_test(the_thread_publishes_what_it_is_woken_for_and_takes_new_routes),
        cmocka_unit_test(P6_waking_never_waits_even_while_the_broker_does_not_answer),
        cmocka_unit_test(certificates_are_read_at_the_start_and_again_and_a_bad_one_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
