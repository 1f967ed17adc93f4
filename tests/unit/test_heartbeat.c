/* Base: heartbeat, with times that are made up. */
#include "test.h"

#include "meowbridge/heartbeat.h"

static void assert_late(int64_t now_ms, const char *expected, size_t count)
{
    struct buf lines;
    buf_init(&lines, 1000);
    assert_int_equal(heartbeat_late(now_ms, &lines), count);
    assert_string_equal(lines.size > 0 ? lines.data : "", expected);
    buf_free(&lines);
}

static void only_a_thread_that_is_silent_for_longer_than_the_limit_is_late(void **state)
{
    (void)state;
    struct heartbeat one, other;
    heartbeat_set_limit(30000);
    heartbeat_begin(&one, "http-0", 1000);
    heartbeat_begin(&other, "journal", 1000);
    assert_late(31000, "", 0);
    heartbeat_beat(&one, 31000);
    assert_late(31001, "journal has not moved for 30 s\n", 1);
    assert_late(62000, "journal has not moved for 61 s\nhttp-0 has not moved for 31 s\n", 2);
    heartbeat_beat(&other, 62000);
    assert_late(62000, "http-0 has not moved for 31 s\n", 1);
    heartbeat_end(&one);
    heartbeat_end(&other);
}

static void a_thread_that_has_ended_is_not_late(void **state)
{
    (void)state;
    struct heartbeat first, second, third;
    heartbeat_set_limit(1000);
    heartbeat_begin(&first, "first", 0);
    heartbeat_begin(&second, "second", 0);
    heartbeat_begin(&third, "third", 0);
    heartbeat_end(&second);
    assert_late(5000, "third has not moved for 5 s\nfirst has not moved for 5 s\n", 2);
    heartbeat_end(&third);
    heartbeat_end(&first);
    assert_late(5000, "", 0);
}

static void a_beat_that_is_newer_than_the_question_is_not_late(void **state)
{
    (void)state;
    struct heartbeat one;
    heartbeat_set_limit(1000);
    heartbeat_begin(&one, "one", 9000);
    assert_late(5000, "", 0);
    heartbeat_end(&one);
}

static void who_sleeps_as_long_as_it_may_is_never_late(void **state)
{
    (void)state;
    heartbeat_set_limit(100);
    assert_int_equal(heartbeat_sleep_ms(), 25);
    heartbeat_set_limit(HEARTBEAT_LIMIT_MS);
    assert_int_equal(heartbeat_sleep_ms(), 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_thread_that_is_silent_for_longer_than_the_limit_is_late),
        cmocka_unit_test(a_thread_that_has_ended_is_not_late),
        cmocka_unit_test(a_beat_that_is_newer_than_the_question_is_not_late),
        cmocka_unit_test(who_sleeps_as_long_as_it_may_is_never_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
