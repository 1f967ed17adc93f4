#include "test.h"

#include "meowbridge/clock.h"
#include "meowbridge/event_list.h"
#include "meowbridge/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    char dir[64], path[96];
    struct journal *journal;
    struct journal_view *view;
};

static void ignore_batch(void *ctx, struct journal_append *batch)
{
    (void)ctx;
    while (batch) {
        struct journal_append *next = batch->next;
        assert_int_equal(batch->outcome, JOURNAL_STORED);
        free(batch);
        batch = next;
    }
}

static void ignore(void *ctx)
{
    (void)ctx;
}

/* A webhook of the guide with this id, name and app; head NULL: as it should be. */
static void put(struct fixture *f, const char *id, const char *name, const char *app, const char *head_text)
{
    struct buf body, scratch, head;
    struct event event;
    struct error why;
    uint8_t key[EVENT_KEY_BYTES];
    buf_init(&body, 10000);
    buf_init(&scratch, 10000);
    buf_init(&head, EVENT_HEAD_MAX);
    buf_appendf(
        &body,
        "{\"id\":\"%s\",\"webhookId\":12,\"appId\":\"%s\",\"event\":\"%s\",\"objectId\":\"o\",\"payload\":1,\"pushTime\":\"\"}",
        id, app, name);
    assert_int_equal(event_parse(&event, buf_slice(&body), &scratch, &why), ERR_NONE);
    event_encode_head(&event, &head);
    assert_true(event_key(&event, key));
    size_t size = body.size;
    struct journal_append *append = calloc(1, sizeof *append);
    append->event =
        journal_event_new(key, 1725105600007, head_text ? slice_of(head_text) : buf_slice(&head), buf_take(&body), size);
    journal_append(f->journal, append);
    buf_free(&scratch);
    buf_free(&head);
}

static void begin(struct fixture *f)
{
    struct error why;
    make_folder(f->dir, sizeof f->dir);
    snprintf(f->path, sizeof f->path, "%s/j", f->dir);
    const struct journal_options options = {f->path, 3600000, 0, event_label};
    const struct journal_hooks hooks = {ignore_batch, NULL, ignore, NULL};
    assert_int_equal(journal_open_sqlite(&f->journal, &options, &why), ERR_NONE);
    assert_int_equal(journal_start(f->journal, &hooks, &why), ERR_NONE);
}

/* Closing commits what was put. */
static void look(struct fixture *f)
{
    struct error why;
    journal_close(&f->journal);
    assert_int_equal(journal_view_open(&f->view, f->path, &why), ERR_NONE);
}

static void end(struct fixture *f)
{
    journal_view_close(&f->view);
    unlink(f->path);
    rmdir(f->dir);
}

struct found {
    struct buf json;
    size_t count, stop_at;
};

static bool note(void *ctx, const struct listed_event *event)
{
    struct found *found = ctx;
    event_list_append_json(&found->json, event);
    buf_append_char(&found->json, '\n');
    return ++found->count != found->stop_at;
}

static void assert_listed(struct fixture *f, struct event_filter filter, size_t limit, size_t max_visited, const char *ids,
                          uint64_t expected_next)
{
    struct found found = {.count = 0};
    struct error why;
    uint64_t next;
    char got[64] = "";
    buf_init(&found.json, 100000);
    assert_int_equal(event_list_page(f->view, &filter, limit, max_visited, note, &found, &next, &why), ERR_NONE);
    for (const char *at = found.json.data; at && (at = strstr(at, "\"id\":\"")); at += 6) {
        strncat(got, at + 6, 1);
    }
    assert_string_equal(got, ids);
    assert_int_equal(next, expected_next);
    buf_free(&found.json);
}

static struct event_filter named(const char *name, const char *app)
{
    return (struct event_filter){JOURNAL_VIEW_ALL, slice_of(name), slice_of(app)};
}

static void events_are_filtered_by_name_and_app_and_paged_with_bounded_work(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    for (int n = 0; n < 8; n++) {
        char id[] = {(char)('1' + n), 0};
        put(&f, id, n % 4 == 0 ? "rare.one" : "usual.one", n < 6 ? "a" : "b", NULL);
    }
    look(&f);
    assert_listed(&f, named(NULL, NULL), 3, 100, "876", 6);
    assert_listed(&f, named(NULL, NULL), 8, 100, "87654321", 0);
    assert_listed(&f, named("rare.*", NULL), 10, 100, "51", 0);
    assert_listed(&f, named("rare.*", NULL), 10, 3, "", 6); /* nothing in this page, and yet there is a next one */
    assert_listed(&f, named("rare.*", NULL), 1, 100, "5", 5);
    assert_listed(&f, named("*.one", "b"), 10, 100, "87", 0);
    assert_listed(&f, named("rare.one", "b"), 10, 100, "", 0);
    assert_listed(&f, named("rare", NULL), 10, 100, "", 0);
    end(&f);
}

/* Of a thousand, the stretches of 256 in which neither name nor app fit count as one. */
static void what_is_rare_is_found_by_few_visits(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    for (int n = 1; n <= 1000; n++) {
        char id[16];
        snprintf(id, sizeof id, "%d", n);
        if (n == 300) {
            put(&f, "r", "\\u0072are.one", "a", NULL);
        } else {
            put(&f, id, "usual.one", n == 600 ? "b" : "a", NULL);
        }
    }
    look(&f);
    enum { TAIL = 1000 - 767, ONE = 256 };
    assert_listed(&f, named("rare.one", NULL), 10, TAIL + 1 + ONE + 1, "r", 0);
    assert_listed(&f, named("*.one", "b"), 10, TAIL + ONE + 2, "6", 0);
    assert_listed(&f, named("rare.*", "b"), 10, TAIL + 3, "", 0);
    assert_listed(&f, named("rare.*", "b"), 10, TAIL + 2, "", 256);
    assert_listed(&f, named("rare", NULL), 10, TAIL + 3, "", 0);
    end(&f);
}

static void an_event_is_printed_as_the_contract_has_it(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    put(&f, "1", "a\\u0000\\\"\\ud800", "app", NULL);
    look(&f);
    struct found found = {.count = 0};
    struct error why;
    uint64_t next;
    struct event_filter filter = named(NULL, NULL);
    buf_init(&found.json, 10000);
    assert_int_equal(event_list_page(f.view, &filter, 5, 5, note, &found, &next, &why), ERR_NONE);
    assert_slice(
        buf_slice(&found.json),
        "{\"seq\":1,\"id\":\"1\",\"appId\":\"app\",\"webhookId\":\"12\",\"event\":\"a\\u0000\\\"\\ud800\",\"objectId\":\"o\","
        "\"state\":\"pending\",\"receivedAt\":\"2024-08-31T12:00:00.007Z\"}\n");
    buf_free(&found.json);
    end(&f);
}

static void a_dead_event_is_printed_with_its_reason(void **state)
{
    (void)state;
    const struct listed_event event = {
        .stored = {.seq = 18446744073709551615u, .state = JOURNAL_DEAD, .reason = SLICE("\"no\"\n")}};
    struct buf out;
    buf_init(&out, 1000);
    event_list_append_json(&out, &event);
    assert_slice(buf_slice(&out),
                 "{\"seq\":18446744073709551615,\"id\":\"\",\"appId\":\"\",\"webhookId\":\"\",\"event\":\"\",\"objectId\":\"\","
                 "\"state\":\"dead\",\"receivedAt\":\"1970-01-01T00:00:00.000Z\",\"reason\":\"\\\"no\\\"\\n\"}");
    buf_free(&out);
}

static void a_damaged_event_is_listed_but_where_its_name_or_app_is_asked_for(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    put(&f, "1", "a", "app", NULL);
    put(&f, "2", "a", "app", "no head of ours");
    look(&f);
    struct found found = {.count = 0};
    struct error why;
    uint64_t next;
    struct event_filter filter = named(NULL, NULL);
    buf_init(&found.json, 10000);
    assert_int_equal(event_list_page(f.view, &filter, 5, 5, note, &found, &next, &why), ERR_NONE);
    assert_int_equal(found.count, 2);
    assert_true(slice_starts(buf_slice(&found.json), SLICE("{\"seq\":2,\"id\":\"\",")));
    buf_free(&found.json);
    assert_listed(&f, named("a", NULL), 5, 5, "1", 0);
    assert_listed(&f, named(NULL, "app"), 5, 5, "1", 0);
    end(&f);
}

static void who_has_enough_stops_early(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    put(&f, "1", "a", "app", NULL);
    put(&f, "2", "a", "app", NULL);
    look(&f);
    struct found found = {.stop_at = 1};
    struct error why;
    uint64_t next;
    struct event_filter filter = named(NULL, NULL);
    buf_init(&found.json, 10000);
    assert_int_equal(event_list_page(f.view, &filter, 5, 5, note, &found, &next, &why), ERR_NONE);
    assert_int_equal(found.count, 1);
    assert_int_equal(next, 2);
    buf_free(&found.json);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_filtered_by_name_and_app_and_paged_with_bounded_work),
        cmocka_unit_test(what_is_rare_is_found_by_few_visits),
        cmocka_unit_test(an_event_is_printed_as_the_contract_has_it),
        cmocka_unit_test(a_dead_event_is_printed_with_its_reason),
        cmocka_unit_test(a_damaged_event_is_listed_but_where_its_name_or_app_is_asked_for),
        cmocka_unit_test(who_has_enough_stops_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
