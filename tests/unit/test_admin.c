/* The last hour: what the counters did, by the minute. Times are given, so no clock is waited for. */
#include "test.h"

#include "admin_internal.h"

#include <stdio.h>
#include <stdlib.h>

static struct history history;
static struct buf text;
static int64_t now_ms;

static int set_up(void **state)
{
    (void)state;
    now_ms = 1000;
    history_init(&history, now_ms, 1725105600000);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    history_free(&history);
    buf_free(&text);
    return 0;
}

static void pass(int64_t seconds, uint64_t accepted, uint64_t pending)
{
    for (int64_t i = 0; i < seconds; i++) {
        now_ms += 1000;
        metrics_add(METRIC_WEBHOOKS_ACCEPTED, accepted);
        history_tick(&history, now_ms, 1725105600000 + now_ms - 1000, pending);
    }
}

static const char *rates(void)
{
    buf_free(&text);
    buf_init(&text, 1 << 20);
    history_append_rates(&history, &text);
    return text.data;
}

static const char *minutes(void)
{
    buf_free(&text);
    buf_init(&text, 1 << 20);
    history_append_minutes(&history, &text);
    return text.data;
}

static size_t count_of(const char *all, const char *part)
{
    size_t count = 0;
    for (; (all = strstr(all, part)); all++) {
        count++;
    }
    return count;
}

static void a_rate_is_that_of_its_span_and_of_the_time_since_the_start_before(void **state)
{
    (void)state;
    assert_non_null(strstr(rates(), "\"1m\":{\"accepted\":0.000"));
    pass(10, 3, 0);
    assert_non_null(strstr(rates(), "\"1m\":{\"accepted\":3.000"));
    assert_non_null(strstr(rates(), "\"5m\":{\"accepted\":3.000"));
    pass(600, 3, 0);
    pass(60, 6, 0);
    assert_non_null(strstr(rates(), "\"1m\":{\"accepted\":6.000"));
    assert_non_null(strstr(rates(), "\"5m\":{\"accepted\":3.600"));
}

static void a_minute_holds_what_it_brought_and_the_most_that_waited(void **state)
{
    (void)state;
    assert_int_equal(count_of(minutes(), "\"start\""), 1); /* the one in hand */
    pass(30, 2, 7);
    pass(30, 2, 3);
    pass(20, 1, 1);
    const char *all = minutes();
    assert_int_equal(count_of(all, "\"start\""), 2);
    assert_non_null(strstr(all, "[{\"start\":\"2024-08-31T12:00:00.000Z\",\"accepted\":120,"));
    assert_non_null(strstr(all, "\"pending\":7,\"delay\":{\"p50\":null"));
    assert_non_null(strstr(all, "{\"start\":\"2024-08-31T12:01:00.000Z\",\"accepted\":20,"));
}

static void latencies_are_those_of_the_minute(void **state)
{
    (void)state;
    metrics_observe(HISTOGRAM_EVENT_DELAY, 4000);
    pass(60, 0, 0);
    metrics_observe(HISTOGRAM_EVENT_DELAY, 4000000);
    const char *all = minutes();
    double first, second;
    assert_int_equal(sscanf(strstr(all, "\"p50\":"), "\"p50\":%lf", &first), 1);
    assert_true(first > 0.0025 && first <= 0.005);
    all = strstr(all, "},{");
    assert_int_equal(sscanf(strstr(all, "\"p50\":"), "\"p50\":%lf", &second), 1);
    assert_true(second > 1 && second <= 5);
}

static void an_hour_is_kept_and_no_more(void **state)
{
    (void)state;
    pass(60 * 200, 1, 0);
    assert_int_equal(count_of(minutes(), "\"start\""), 60);
    assert_int_equal(count_of(minutes(), "\"accepted\":60,"), 59);
    assert_true(text.size < 64 * 1024);
}

/* --- who may --- */

static void a_host_is_an_address_or_localhost_and_nothing_that_looks_like_it(void **state)
{
    (void)state;
    static const char *const safe[] = {"localhost", "LOCALHOST:1", "127.0.0.1", "10.1.2.3:9090", "[::1]", "[fe80::1]:80"};
    static const char *const unsafe[] = {
        "",      "evil", "localhost.evil", "127.0.0.1.evil",  "[::1]x:80", "[::1",          "127.0.0.1:80x", "[::1].evil",
        "1:2:3", ":80",  "[]:80",          "127.0.0.1:80:80", "0x7f.1",    "localhost:80@x"};
    for (size_t i = 0; i < sizeof safe / sizeof safe[0]; i++) {
        assert_true(guard_host_is_safe(slice_of(safe[i])));
    }
    for (size_t i = 0; i < sizeof unsafe / sizeof unsafe[0]; i++) {
        if (guard_host_is_safe(slice_of(unsafe[i]))) {
            fail_msg("%s is taken", unsafe[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_rate_is_that_of_its_span_and_of_the_time_since_the_start_before, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_minute_holds_what_it_brought_and_the_most_that_waited, set_up, tear_down),
        cmocka_unit_test_setup_teardown(latencies_are_those_of_the_minute, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_hour_is_kept_and_no_more, set_up, tear_down),
        cmocka_unit_test(a_host_is_an_address_or_localhost_and_nothing_that_looks_like_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
