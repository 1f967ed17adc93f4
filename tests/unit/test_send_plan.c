#include "test.h"

#include "../../bridge/top/send_plan.h"

#include "meowbridge/jsonscan.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static const int64_t NOW_MS = 1725105600123; /* 2024-08-31T12:00:00.123Z */

static void ids_have_18_digits_and_grow_although_the_clock_steps_back(void **state)
{
    (void)state;
    struct send_ids ids = {.shard = 42};
    assert_int_equal(send_ids_next(&ids, NOW_MS), 172510560012342000u);
    assert_int_equal(send_ids_next(&ids, NOW_MS), 172510560012342001u);
    assert_int_equal(send_ids_next(&ids, NOW_MS - 5000), 172510560012342002u);
    for (int i = 3; i < 1000; i++) {
        (void)send_ids_next(&ids, NOW_MS);
    }
    assert_int_equal(send_ids_next(&ids, NOW_MS), 172510560012442000u); /* the 1000 of a millisecond are used up */
    assert_int_equal(send_ids_next(&ids, NOW_MS + 7), 172510560013042000u);
}

enum { RACERS = 4, RACE = 20000 };

static void *take_ids(void *ids)
{
    uint64_t *taken = malloc(RACE * sizeof *taken);
    for (int i = 0; taken && i < RACE; i++) {
        taken[i] = send_ids_next(ids, NOW_MS);
    }
    return taken;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void threads_never_get_the_same_id(void **state)
{
    (void)state;
    static uint64_t all[RACERS * RACE];
    struct send_ids ids = {.shard = 7};
    pthread_t threads[RACERS];
    for (int i = 0; i < RACERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_ids, &ids), 0);
    }
    for (int i = 0; i < RACERS; i++) {
        void *taken;
        pthread_join(threads[i], &taken);
        assert_non_null(taken);
        memcpy(all + i * RACE, taken, sizeof all / RACERS);
        free(taken);
    }
    qsort(all, RACERS * RACE, sizeof all[0], compare);
    for (int i = 1; i < RACERS * RACE; i++) {
        assert_true(all[i - 1] < all[i]);
    }
}

static void retries_wait_200_ms_then_twice_as_long_up_to_5_s(void **state)
{
    (void)state;
    const int64_t expected[] = {200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000, 5000};
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(send_backoff_ms(i + 1), expected[i]);
    }
    assert_int_equal(send_backoff_ms(UINT32_MAX), 5000);
}

static void the_schedule_does_not_drift(void **state)
{
    (void)state;
    assert_int_equal(send_due_us(0, 12345), 0);
    assert_int_equal(send_due_us(1000, 0), 0);
    assert_int_equal(send_due_us(1000, 1), 1000);
    assert_int_equal(send_due_us(3, 3000000), 1000000000000);
    assert_int_equal(send_due_us(0.5, 3), 6000000);
}

static void a_rate_is_a_plain_positive_number(void **state)
{
    (void)state;
    double rate = 0;
    struct error why;
    assert_int_equal(send_parse_rate(SLICE("0.5"), &rate, &why), ERR_NONE);
    assert_true(rate == 0.5);
    assert_int_equal(send_parse_rate(SLICE("1000000"), &rate, &why), ERR_NONE);
    assert_true(rate == 1000000);
    const char *bad[] = {"",       "0",     "-1", "1e3", "nan", "inf",  "1000001",
                         "0.0001", "1.2.3", ".",  "1 ",  "1/s", "0x10", "00000000000000000000000000000000000001"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(send_parse_rate(slice_of(bad[i]), &rate, &why), ERR_INVALID);
    }
    assert_int_equal(send_parse_rate(SLICE("x"), &rate, &why), ERR_INVALID);
    assert_string_equal(why.text, "is a number of events a second from 0.001 to 1000000, not \"x\"");
}

static void a_given_payload_is_sent_byte_for_byte_between_the_fields(void **state)
{
    (void)state;
    struct send_template t;
    struct error why;
    assert_int_equal(send_template_init(&t, SLICE("a\"b"), SLICE("x.y"), SLICE("{ \"n\" : 1.50 }\n"), NOW_MS, &why), ERR_NONE);
    for (uint64_t id = 172510560012342000; id < 172510560012342002; id++) {
        char expected[400];
        snprintf(expected, sizeof expected,
                 "{\"id\":\"%llu\",\"webhookId\":\"152066840347000001\",\"appId\":\"a\\\"b\",\"event\":\"x.y\","
                 "\"objectId\":\"task_%llu\",\"payload\":{ \"n\" : 1.50 }\n,\"pushTime\":\"2024-08-31T12:00:00Z\"}",
                 (unsigned long long)id, (unsigned long long)id);
        assert_slice(send_template_fill(&t, id, NOW_MS), expected);
    }
    send_template_free(&t);
}

static void the_default_payload_is_a_completed_task_of_the_same_object(void **state)
{
    (void)state;
    const char *members[] = {"id",         "createdAt", "updatedAt",        "customId",    "workflowId",
                             "viewStatus", "reason",    "startExecutionAt", "completedAt", "duration",
                             "totalPrice", "currency",  "processOutputs"};
    struct send_template t;
    struct error why;
    struct json_value document, key, value, payload = {.type = JSON_NULL};
    struct json_iterator it;
    assert_int_equal(send_template_init(&t, SLICE("12345"), SLICE("workflowTask.completed"), (struct slice){0}, NOW_MS, &why),
                     ERR_NONE);
    struct slice body = send_template_fill(&t, 172510560012342000, NOW_MS);
    assert_int_equal(jsonscan_document(body, &document, NULL, &why), ERR_NONE);
    for (jsonscan_enter(&it, &document); jsonscan_next(&it, &key, &value);) {
        if (jsonscan_string_is(&key, SLICE("payload"))) {
            payload = value;
        }
    }
    assert_int_equal(payload.type, JSON_OBJECT);
    size_t i = 0;
    for (jsonscan_enter(&it, &payload); jsonscan_next(&it, &key, &value); i++) {
        assert_true(i < sizeof members / sizeof members[0]);
        assert_true(jsonscan_string_is(&key, slice_of(members[i])));
        if (i == 0) {
            assert_slice(value.text, "172510560012342000");
        } else if (strcmp(members[i], "completedAt") == 0) {
            assert_slice(value.text, "\"2024-08-31T20:00:00.123+08:00\"");
        }
        assert_int_equal(value.type == JSON_STRING, strcmp(members[i], "id") != 0 && strcmp(members[i], "workflowId") != 0 &&
                                                        strcmp(members[i], "viewStatus") != 0 &&
                                                        strcmp(members[i], "duration") != 0 &&
                                                        strcmp(members[i], "processOutputs") != 0);
    }
    assert_int_equal(i, sizeof members / sizeof members[0]);
    send_template_free(&t);
}

static struct histogram histogram; /* 9 KiB */

static void quantiles_are_exact_below_64_us_and_3_percent_above(void **state)
{
    (void)state;
    histogram = (struct histogram){0};
    assert_int_equal(histogram_quantile(&histogram, 0.5), 0);
    for (int us = 1; us <= 60; us++) {
        histogram_add(&histogram, us);
    }
    assert_int_equal(histogram_quantile(&histogram, 0.5), 30);
    assert_int_equal(histogram_quantile(&histogram, 0), 1);
    assert_int_equal(histogram_quantile(&histogram, 1), 60);

    for (int64_t us = 1; us < (int64_t)1 << 39; us = us * 5 / 4 + 1) {
        histogram = (struct histogram){0};
        histogram_add(&histogram, us);
        histogram_add(&histogram, us * 2);
        uint64_t median = histogram_quantile(&histogram, 0.5);
        assert_true(median >= (uint64_t)us && median <= (uint64_t)us + (uint64_t)us * 32 / 1000);
        assert_int_equal(histogram_quantile(&histogram, 1), us * 2);
    }
}

static void values_out_of_range_are_counted_at_the_ends(void **state)
{
    (void)state;
    histogram = (struct histogram){0};
    histogram_add(&histogram, -5);
    assert_int_equal(histogram_quantile(&histogram, 1), 0);
    histogram_add(&histogram, INT64_MAX);
    assert_int_equal(histogram.count, 2);
    assert_int_equal(histogram.max_us, INT64_MAX);
    assert_int_equal(histogram.buckets[HISTOGRAM_BUCKETS - 1], 1);
}

static void merged_histograms_count_as_one(void **state)
{
    (void)state;
    static struct histogram slow;
    histogram = (struct histogram){0};
    for (int i = 0; i < 99; i++) {
        histogram_add(&histogram, 10);
    }
    histogram_add(&slow, 50);
    histogram_merge(&histogram, &slow);
    assert_int_equal(histogram_quantile(&histogram, 0.99), 10);
    assert_int_equal(histogram_quantile(&histogram, 0.991), 50);
    assert_int_equal(histogram.count, 100);
    assert_int_equal(histogram.max_us, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_have_18_digits_and_grow_although_the_clock_steps_back),
        cmocka_unit_test(threads_never_get_the_same_id),
        cmocka_unit_test(retries_wait_200_ms_then_twice_as_long_up_to_5_s),
        cmocka_unit_test(the_schedule_does_not_drift),
        cmocka_unit_test(a_rate_is_a_plain_positive_number),
        cmocka_unit_test(a_given_payload_is_sent_byte_for_byte_between_the_fields),
        cmocka_unit_test(the_default_payload_is_a_completed_task_of_the_same_object),
        cmocka_unit_test(quantiles_are_exact_below_64_us_and_3_percent_above),
        cmocka_unit_test(values_out_of_range_are_counted_at_the_ends),
        cmocka_unit_test(merged_histograms_count_as_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
