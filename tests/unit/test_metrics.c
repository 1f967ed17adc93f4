/* The table and its text. What promtool thinks of it stands in tests/e2e/test_admin.py. */
#include "test.h"

#include "meowbridge/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct buf text;

static const char *printed(void)
{
    buf_free(&text);
    buf_init(&text, 1 << 20);
    metrics_print(&text);
    assert_false(text.failed);
    return text.data;
}

static void assert_line(const char *line)
{
    char wanted[300];
    snprintf(wanted, sizeof wanted, "\n%s\n", line);
    if (!strstr(printed(), wanted)) {
        fail_msg("%s is not in\n%s", line, text.data);
    }
}

static void every_series_is_there_from_the_start_with_0(void **state)
{
    (void)state;
    assert_line("meowbridge_webhook_requests_total{code=\"503\",outcome=\"unavailable\"} 0");
    assert_line("meowbridge_journal_pending_events 0");
    assert_line("meowbridge_event_delay_seconds_bucket{le=\"3600\"} 0");
    assert_line("meowbridge_event_delay_seconds_bucket{le=\"+Inf\"} 0");
    assert_line("meowbridge_event_delay_seconds_sum 0");
    assert_line("meowbridge_event_delay_seconds_count 0");
    assert_line("meowbridge_build_info{version=\"" MEOWBRIDGE_VERSION "\"} 1");
}

static void a_counter_adds_and_a_gauge_keeps_what_was_set_last(void **state)
{
    (void)state;
    metrics_add(METRIC_MQTT_UNHEARD, 2);
    metrics_add(METRIC_MQTT_UNHEARD, 3);
    metrics_set(METRIC_JOURNAL_PENDING, 7);
    metrics_set(METRIC_JOURNAL_PENDING, 4);
    metrics_set(METRIC_JOURNAL_OLDEST_PENDING, 1725105600250);
    metrics_set(METRIC_JOURNAL_DEAD, -1);
    assert_int_equal(metrics_get(METRIC_MQTT_UNHEARD), 5);
    assert_line("meowbridge_mqtt_unheard_total 5");
    assert_line("meowbridge_journal_pending_events 4");
    assert_line("meowbridge_journal_oldest_pending_timestamp_seconds 1725105600.25");
    assert_line("meowbridge_journal_dead_events 0");
}

static void a_histogram_is_cumulative_and_a_value_on_a_bound_is_within_it(void **state)
{
    (void)state;
    static const int64_t values[] = {-5, 500, 501, 2000000, 9000000};
    for (size_t i = 0; i < 5; i++) {
        metrics_observe(HISTOGRAM_WEBHOOK_DURATION, values[i]);
    }
    assert_line("meowbridge_webhook_request_duration_seconds_bucket{le=\"0.0005\"} 2");
    assert_line("meowbridge_webhook_request_duration_seconds_bucket{le=\"0.001\"} 3");
    assert_line("meowbridge_webhook_request_duration_seconds_bucket{le=\"1\"} 3");
    assert_line("meowbridge_webhook_request_duration_seconds_bucket{le=\"5\"} 4");
    assert_line("meowbridge_webhook_request_duration_seconds_bucket{le=\"+Inf\"} 5");
    assert_line("meowbridge_webhook_request_duration_seconds_sum 11.001001");
    assert_line("meowbridge_webhook_request_duration_seconds_count 5");
}

static void a_quantile_lies_in_its_bucket_and_counts_only_what_came_between(void **state)
{
    (void)state;
    struct metrics_sample before, after;
    metrics_observe(HISTOGRAM_COMMIT_DURATION, 4000000);
    metrics_sample(HISTOGRAM_COMMIT_DURATION, &before);
    assert_int_equal(metrics_quantile(HISTOGRAM_COMMIT_DURATION, &before, &before, 0.5), -1);
    for (int i = 0; i < 100; i++) {
        metrics_observe(HISTOGRAM_COMMIT_DURATION, i < 90 ? 700 : 90000);
    }
    metrics_sample(HISTOGRAM_COMMIT_DURATION, &after);
    int64_t middle = metrics_quantile(HISTOGRAM_COMMIT_DURATION, &before, &after, 0.5);
    int64_t high = metrics_quantile(HISTOGRAM_COMMIT_DURATION, &before, &after, 0.99);
    assert_true(middle > 500 && middle <= 1000);
    assert_true(high > 50000 && high <= 100000);
    assert_int_equal(metrics_bucket_bound(HISTOGRAM_COMMIT_DURATION, middle), 1000);
    assert_int_equal(metrics_bucket_bound(HISTOGRAM_COMMIT_DURATION, high), 100000);
    assert_int_equal(metrics_bucket_bound(HISTOGRAM_COMMIT_DURATION, 5000000), -1);
    metrics_observe(HISTOGRAM_COMMIT_DURATION, INT64_C(3600000000));
    metrics_sample(HISTOGRAM_COMMIT_DURATION, &before);
    assert_int_equal(metrics_quantile(HISTOGRAM_COMMIT_DURATION, &after, &before, 0.5), 5000000); /* the last bound */
}

static void an_apps_id_is_escaped_and_its_place_is_kept(void **state)
{
    (void)state;
    unsigned odd = metrics_app(SLICE("a\"b\\c\nd"));
    assert_int_equal(metrics_app(SLICE("a\"b\\c\nd")), odd);
    metrics_app_add(odd, METRIC_APP_VERIFIED_PREVIOUS, 1);
    metrics_app_set(odd, METRIC_APP_PREVIOUS_USED, 1500);
    assert_line("meowbridge_webhook_verified_total{app=\"a\\\"b\\\\c\\nd\",secret=\"previous\"} 1");
    assert_line("meowbridge_webhook_verified_total{app=\"a\\\"b\\\\c\\nd\",secret=\"current\"} 0");
    assert_line("meowbridge_webhook_previous_secret_used_timestamp_seconds{app=\"a\\\"b\\\\c\\nd\"} 1.5");
}

static void apps_that_come_and_go_by_reloads_stay_bounded(void **state)
{
    (void)state;
    char id[16];
    unsigned last = 0;
    for (int i = 0; i < 300; i++) {
        snprintf(id, sizeof id, "app-%d", i);
        last = metrics_app(slice_of(id));
        assert_true(last < METRICS_MAX_APPS);
    }
    metrics_app_add(last, METRIC_APP_VERIFIED_CURRENT, 1);
    assert_line("meowbridge_webhook_verified_total{app=\"other\",secret=\"current\"} 1");
}

static void names_stand_together_and_each_has_its_help_once(void **state)
{
    (void)state;
    size_t families = 0;
    for (const char *at = printed(); (at = strstr(at, "# HELP ")); families++) {
        char name[100], type_line[120];
        assert_int_equal(sscanf(at, "# HELP %99s", name), 1);
        snprintf(type_line, sizeof type_line, "# HELP %s ", name);
        at = strchr(at, '\n');
        assert_null(strstr(at, type_line));
        snprintf(type_line, sizeof type_line, "\n# TYPE %s ", name);
        assert_ptr_equal(strstr(at, type_line), at);
    }
    assert_true(families > 30);
}

static void the_process_knows_itself(void **state)
{
    (void)state;
    metrics_read_process();
    assert_true(metrics_get(METRIC_PROCESS_RESIDENT) > 100000);
    assert_true(metrics_get(METRIC_PROCESS_VIRTUAL) >= metrics_get(METRIC_PROCESS_RESIDENT));
    assert_true(metrics_get(METRIC_PROCESS_OPEN_FDS) >= 3);
    assert_true(metrics_get(METRIC_PROCESS_MAX_FDS) >= metrics_get(METRIC_PROCESS_OPEN_FDS));
    assert_true(metrics_get(METRIC_PROCESS_CPU) > 0);
    int64_t age_ms = (int64_t)time(NULL) * 1000 - (int64_t)metrics_get(METRIC_PROCESS_START);
    assert_true(age_ms > -2000 && age_ms < 300000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_series_is_there_from_the_start_with_0),
        cmocka_unit_test(a_counter_adds_and_a_gauge_keeps_what_was_set_last),
        cmocka_unit_test(a_histogram_is_cumulative_and_a_value_on_a_bound_is_within_it),
        cmocka_unit_test(a_quantile_lies_in_its_bucket_and_counts_only_what_came_between),
        cmocka_unit_test(an_apps_id_is_escaped_and_its_place_is_kept),
        cmocka_unit_test(apps_that_come_and_go_by_reloads_stay_bounded),
        cmocka_unit_test(names_stand_together_and_each_has_its_help_once),
        cmocka_unit_test(the_process_knows_itself),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_free(&text);
    return failed;
}
