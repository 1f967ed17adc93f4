#include "test.h"

#include "../../bridge/ports/http_head.h"

/* Two requests on one connection, as a parser that takes everything would have them. */
#define FIRST "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"
#define SECOND "GET / HTTP/1.1\r\nA: b\r\n\r\n"

struct connection {
    struct http_head head;
    const char *bytes;
    size_t size, came;
};

static void come(struct connection *c, size_t to)
{
    http_head_feed(&c->head, (struct slice){c->bytes + c->came, to - c->came});
    c->came = to;
}

/* The bytes come in two parts, split at this place, and the parser looks at what it has after each. Says whether the second head was clean. */
static bool second_is_clean(const char *bytes, size_t size, size_t first_size, size_t body_size, size_t second_size,
                            size_t split)
{
    struct connection c = {.bytes = bytes, .size = size};
    bool is_passed = false;
    for (unsigned i = 0; i < 2; i++) {
        come(&c, i == 0 ? split : size);
        if (!is_passed && c.came >= first_size) {
            assert_true(http_head_is_clean(&c.head));
            http_head_pass(&c.head, bytes + first_size, body_size);
            is_passed = true;
        }
    }
    assert_true(is_passed);
    bool is_clean = http_head_is_clean(&c.head);
    assert_true(!is_clean || c.head.behind == size - first_size - body_size - second_size);
    return is_clean;
}

#define assert_second(expected, first, body, second, behind)                                                              \
    do {                                                                                                                  \
        static const char bytes_[] = first body second behind;                                                            \
        for (size_t split_ = 0; split_ < sizeof bytes_; split_++) {                                                       \
            assert_int_equal(                                                                                             \
                second_is_clean(bytes_, sizeof bytes_ - 1, sizeof first - 1, sizeof body - 1, sizeof second - 1, split_), \
                expected);                                                                                                \
        }                                                                                                                 \
    } while (0)

static void a_nul_counts_for_the_head_in_which_it_came(void **state)
{
    (void)state;
    assert_second(true, FIRST, "hello", SECOND, "");
    assert_second(true, FIRST, "hello", SECOND, "behind it");
    assert_second(true, FIRST, "\0\0\0\0\0", SECOND, "");
    assert_second(true, FIRST, "hello", SECOND, "\0");
    assert_second(true, FIRST, "\r\n\r\n\0", SECOND, "\0\r\n\r\n");
    assert_second(true, SECOND, "", SECOND, "\0");
    assert_second(false, FIRST, "hello", "GET / HTTP/1.1\r\nA: b\0\r\n\r\n", "");
    assert_second(false, FIRST, "hello", "\0GET / HTTP/1.1\r\nA: b\r\n\r\n", "");
    assert_second(false, FIRST, "hello", "GET / HTTP/1.1\r\nA: b\r\n\0\n\r\n\r\n", "");
    assert_second(false, SECOND, "", "GET / HTTP/1.1\0\r\n\r\n", "");
}

static void empty_lines_before_a_head_are_no_end_of_one(void **state)
{
    (void)state;
    assert_second(true, "\r\n\r\n\r\n" FIRST, "hello", "\r\n\n\n\r\n\r\n" SECOND, "");
    assert_second(false, "\r\n\r\n" FIRST, "hello", "\r\n\0\r\n\r\n" SECOND, "");
}

static void a_head_ends_with_cr_lf_cr_lf_and_with_nothing_else(void **state)
{
    (void)state;
    assert_second(true, FIRST, "hello", "GET\r\r\n\r\r\r\n\n\n\r\r\n\r\n", "");
    assert_second(false, FIRST, "hello", "GET\n\n", "");
    assert_second(false, FIRST, "hello", "GET\r\n\n", "");
    assert_second(false, FIRST, "hello", "GET\r\n\r", "");
    assert_second(false, FIRST, "hello", "GET\r\n\r\r\n", "");
}

static void a_body_that_ends_with_the_connection_has_no_head_behind_it(void **state)
{
    (void)state;
    static const char bytes[] = FIRST "\0";
    struct connection c = {.bytes = bytes, .size = sizeof bytes - 1};
    come(&c, sizeof FIRST - 1);
    http_head_pass(&c.head, bytes + sizeof FIRST - 1, HTTP_HEAD_UNTIL_END);
    come(&c, c.size);
    assert_int_equal(c.head.state, HTTP_HEAD_BODY);
    assert_false(http_head_is_clean(&c.head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_nul_counts_for_the_head_in_which_it_came),
        cmocka_unit_test(empty_lines_before_a_head_are_no_end_of_one),
        cmocka_unit_test(a_head_ends_with_cr_lf_cr_lf_and_with_nothing_else),
        cmocka_unit_test(a_body_that_ends_with_the_connection_has_no_head_behind_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
