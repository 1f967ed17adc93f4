#include "test.h"

#include "../../bridge/top/terminal.h"

#include <stdio.h>
#include <unistd.h>

static void assert_shown(struct slice text, size_t columns, const char *expected, size_t used)
{
    struct buf out;
    buf_init(&out, 1000);
    assert_int_equal(terminal_append(&out, text, columns), used);
    assert_slice(buf_slice(&out), expected);
    buf_free(&out);
}

static void text_from_outside_cannot_move_the_cursor(void **state)
{
    (void)state;
    assert_shown(SLICE("a\x1b[2J\n\r\tb\x7f\0c"), SIZE_MAX, "a?[2J???b??c", 12);
    assert_shown(SLICE("a\xc2\x9b"
                       "b\xe2\x80\xae"
                       "c\xff"
                       "d\xed\xa0\x80"
                       "e"),
                 SIZE_MAX, "a?b?c?d?e", 9);
}

static void text_is_cut_at_its_columns_also_where_characters_take_two(void **state)
{
    (void)state;
    assert_shown(SLICE("abcdef"), 6, "abcdef", 6);
    assert_shown(SLICE("abcdefg"), 6, "abcde…", 6);
    assert_shown(SLICE("喵福禄"), 6, "喵福禄", 6);
    assert_shown(SLICE("喵福禄"), 5, "喵福…", 5);
    assert_shown(SLICE("喵福禄"), 4, "喵…", 3);
    assert_shown(SLICE("e\xcc\x81t\xc3\xa9"), 3, "e\xcc\x81t\xc3\xa9", 3);
    assert_shown(SLICE("abc"), 0, "", 0);
    assert_shown(SLICE(""), 3, "", 0);
}

/* With so much of a line to the right of the indent, and used columns of the first taken. In expected, '|' stands for the indent. */
static void assert_wrapped(const char *text, size_t used, size_t width, const char *expected)
{
    struct buf out, whole;
    const size_t indent = TERMINAL_COLUMNS - width;
    buf_init(&out, 1000);
    buf_init(&whole, 1000);
    terminal_append_wrapped(&out, slice_of(text), used > 0 ? indent + used : 0, indent);
    for (; *expected; expected++) {
        buf_appendf(&whole, "%*s", *expected == '|' ? (int)indent : 0, "");
        buf_append(&whole, (struct slice){expected, *expected != '|'});
    }
    assert_string_equal(out.data ? out.data : "", whole.data ? whole.data : "");
    buf_free(&out);
    buf_free(&whole);
}

static void text_is_wrapped_at_spaces_and_nothing_of_it_is_lost(void **state)
{
    (void)state;
    assert_wrapped("not authorized (0x87) on topic a/b/c", 0, 22, "|not authorized (0x87)\n|on topic a/b/c");
    assert_wrapped("one\ntwo", 0, 7, "|one two");
    assert_wrapped("one\ntwo", 0, 6, "|one\n|two");
    assert_wrapped("a  b", 0, 4, "|a  b");
    assert_wrapped("abcdef ghi", 0, 3, "|abc\n|def\n|ghi");
    assert_wrapped("a bcdefg hi", 0, 4, "|a\n|bcde\n|fg\n|hi");
    assert_wrapped("abc def", 0, 3, "|abc\n|def");
    assert_wrapped("喵福禄 a\033b", 0, 4, "|喵福\n|禄\n|a?b");
    assert_wrapped("", 0, 4, "");
}

static void text_goes_on_behind_what_a_line_has_already(void **state)
{
    (void)state;
    assert_wrapped("abc def", 4, 8, " abc\n|def");
    assert_wrapped("abc def", 5, 8, "\n|abc def");
    assert_wrapped("喵福禄", 2, 8,
                   "\n|喵福禄"); /* in bytes it would be too wide for any line, in characters not for this one */
    assert_wrapped("", 5, 8, "");
}

static void columns_line_up(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 1000);
    terminal_append_padded(&out, SLICE("喵福禄"), 4);
    buf_append_char(&out, '|');
    terminal_append_padded(&out, SLICE("ab"), 4);
    buf_append_char(&out, '|');
    assert_slice(buf_slice(&out), "喵… |ab  |");
    buf_free(&out);
}

static void colour_is_for_terminals_only(void **state)
{
    (void)state;
    int fds[2], saved = dup(1);
    fflush(stdout);
    assert_int_equal(pipe(fds), 0);
    dup2(fds[1], 1);
    bool coloured = terminal_has_colour();
    dup2(saved, 1);
    close(saved);
    close(fds[0]);
    close(fds[1]);
    assert_false(coloured);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_from_outside_cannot_move_the_cursor),
        cmocka_unit_test(text_is_cut_at_its_columns_also_where_characters_take_two),
        cmocka_unit_test(text_is_wrapped_at_spaces_and_nothing_of_it_is_lost),
        cmocka_unit_test(text_goes_on_behind_what_a_line_has_already),
        cmocka_unit_test(columns_line_up),
        cmocka_unit_test(colour_is_for_terminals_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
