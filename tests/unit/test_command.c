#include "test.h"

#include "meowbridge/command.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- what a command says ---- */

static int saved[3];
static char *caught_path[3] = {NULL, (char[]){"/tmp/command-out.XXXXXX"}, (char[]){"/tmp/command-err.XXXXXX"}};

static void catch_output(void)
{
    fflush(stdout);
    for (int fd = 1; fd <= 2; fd++) {
        strcpy(strrchr(caught_path[fd], '.'), ".XXXXXX");
        int file = mkstemp(caught_path[fd]);
        assert_true(file >= 0);
        saved[fd] = dup(fd);
        dup2(file, fd);
        close(file);
    }
}

/* What was written since; to be freed. */
static void release_output(char *out[3])
{
    fflush(stdout);
    for (int fd = 1; fd <= 2; fd++) {
        off_t size = lseek(fd, 0, SEEK_END);
        out[fd] = calloc(1, (size_t)size + 1);
        (void)!pread(fd, out[fd], (size_t)size, 0);
        dup2(saved[fd], fd);
        close(saved[fd]);
        unlink(caught_path[fd]);
    }
}

/* ---- options ---- */

static const char *file, *rate, *loud;
static const struct command_option options[] = {
    {'c', "config", "FILE", "the file", &file},
    {0, "rate-that-has-a-long-name", "R", "the rate", &rate},
    {'l', "loud", NULL, "be loud", &loud},
    {0},
};
static const struct command_usage usage = {.name = "probe",
                                           .arguments = "[THING]",
                                           .summary = "Tries things",
                                           .details = "More.\n",
                                           .options = options,
                                           .max_operands = 1};

/* Splits a command line at its spaces and parses it. out: what was said. */
static int parse(const char *line, char ***operands, int *count, char *out[3])
{
    static char text[200];
    static char *argv[20];
    int argc = 0;
    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    file = rate = loud = NULL;
    catch_output();
    int status = command_options(&usage, argc, argv, operands, count);
    release_output(out);
    return status;
}

static void options_are_taken_in_every_usual_form(void **state)
{
    (void)state;
    const char *lines[] = {
        "probe -c f -l thing",       "probe thing --config f --loud", "probe --config=f thing -l",      "probe -lcf thing",
        "probe -l --config f thing", "probe --loud -lcf thing",       "probe -c x --loud -c f -- thing"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char **operands, *out[3];
        int count;
        assert_int_equal(parse(lines[i], &operands, &count, out), -1);
        assert_string_equal(file, "f");
        assert_string_equal(loud, "");
        assert_null(rate);
        assert_int_equal(count, 1);
        assert_string_equal(operands[0], "thing");
        assert_string_equal(out[1], "");
        assert_string_equal(out[2], "");
        free(out[1]);
        free(out[2]);
    }
    char **operands, *out[3];
    int count;
    assert_int_equal(parse("probe -- -l", &operands, &count, out), -1);
    assert_string_equal(operands[0], "-l");
    assert_null(loud);
    free(out[1]);
    free(out[2]);
}

static void a_mistake_is_named_with_the_remedy_and_is_exit_2(void **state)
{
    (void)state;
    static const struct {
        const char *line, *why;
    } cases[] = {
        {"probe -x", "unknown option -x"},
        {"probe --nope=1", "unknown option --nope"},
        {"probe -c", "option --config needs an argument: FILE"},
        {"probe --rate-that", "option --rate-that-has-a-long-name needs an argument: R"},
        {"probe --conf f", "unknown option --conf, did you mean --config?"}, /* "--secret SECRET" would be a file's name */
        {"probe --conf=f", "unknown option --conf, did you mean --config?"},
        {"probe --config f --lou", "unknown option --lou, did you mean --loud?"},
        {"probe --loud=yes", "option --loud takes no argument"},
        {"probe --help=yes", "option --help takes no argument"},
        {"probe a b", "unexpected argument \"b\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char **operands, *out[3], expected[200];
        int count;
        assert_int_equal(parse(cases[i].line, &operands, &count, out), EXIT_USAGE);
        snprintf(expected, sizeof expected, "meowbridge probe: %s\nTry \"meowbridge probe --help\".\n", cases[i].why);
        assert_string_equal(out[2], expected);
        assert_string_equal(out[1], "");
        free(out[1]);
        free(out[2]);
    }
}

static void help_lists_every_option_on_standard_output(void **state)
{
    (void)state;
    char **operands, *out[3];
    int count;
    assert_int_equal(parse("probe -l --help", &operands, &count, out), EXIT_DONE);
    assert_string_equal(out[1], "Usage: meowbridge probe [OPTION]... [THING]\n"
                                "Tries things\n"
                                "\n"
                                "Options:\n"
                                "  -c, --config FILE       the file\n"
                                "      --rate-that-has-a-long-name R\n"
                                "                          the rate\n"
                                "  -l, --loud              be loud\n"
                                "  -h, --help              print this and exit\n"
                                "\n"
                                "More.\n");
    assert_string_equal(out[2], "");
    free(out[1]);
    free(out[2]);
}

/* ---- values ---- */

static void a_number_is_held_to_its_range(void **state)
{
    (void)state;
    int64_t number = 0;
    char *out[3];
    assert_true(command_number("--n", "7", 0, 9, &number));
    assert_int_equal(number, 7);
    assert_true(command_number("--n", "-3", -3, 9, &number));
    assert_int_equal(number, -3);
    assert_true(command_number("--n", "9223372036854775807", 0, INT64_MAX, &number));
    catch_output();
    const char *bad[] = {"", "-", "x", "7x", " 7", "+7", "10", "-4", "18446744073709551615", "9223372036854775808"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bool taken = command_number("--n", bad[i], -3, 9, &number);
        if (taken) {
            release_output(out);
            fail_msg("%s was taken", bad[i]);
        }
    }
    release_output(out);
    assert_non_null(strstr(out[2], "--n is a whole number from -3 to 9, not \"7x\"\n"));
    free(out[1]);
    free(out[2]);
}

static void a_moment_is_a_span_before_now_or_a_time(void **state)
{
    (void)state;
    char *out[3];
    int64_t ms = 0;
    assert_true(command_time("--since", "90m", 10000000000, &ms));
    assert_int_equal(ms, 10000000000 - 90 * 60000);
    assert_true(command_time("--since", "1970-01-01T00:00:01+00:00", 5, &ms));
    assert_int_equal(ms, 1000);
    catch_output();
    const char *bad[] = {"", "soon", "90", "-5m", "2024-08-31", "1h30m"};
    bool taken = false;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        taken = taken || command_time("--since", bad[i], 10000000000, &ms);
    }
    release_output(out);
    assert_false(taken);
    assert_non_null(strstr(
        out[2], "--since is a span before now (90m, 2h, 7d) or an RFC 3339 time (2026-11-24T05:00:00Z), not \"soon\"\n"));
    free(out[1]);
    free(out[2]);
}

static void a_secret_comes_from_its_file_else_from_the_environment(void **state)
{
    (void)state;
    char path[] = "/tmp/command-secret.XXXXXX", *out[3];
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, "from the file\nnot this", 22) == 22);
    close(fd);
    struct secret secret;
    setenv("MEOWBRIDGE_SECRET", "from the environment", 1);
    assert_true(command_secret(path, &secret));
    assert_slice(((struct slice){secret.data, secret.size}), "from the file");
    secret_free(&secret);
    assert_true(command_secret(NULL, &secret));
    assert_slice(((struct slice){secret.data, secret.size}), "from the environment");
    secret_free(&secret);
    unlink(path);
    catch_output();
    bool gone = command_secret(path, &secret);
    setenv("MEOWBRIDGE_SECRET", "", 1);
    bool empty = command_secret(NULL, &secret);
    unsetenv("MEOWBRIDGE_SECRET");
    bool unset = command_secret(NULL, &secret);
    release_output(out);
    assert_false(gone || empty || unset);
    assert_non_null(strstr(out[2], path));
    assert_non_null(strstr(out[2], ": no secret: give --secret-file FILE, or set MEOWBRIDGE_SECRET, which is empty\n"));
    assert_non_null(strstr(out[2], ": no secret: give --secret-file FILE, or set MEOWBRIDGE_SECRET\n"));
    free(out[1]);
    free(out[2]);
}

static void a_file_is_read_whole_with_its_nul_bytes_and_newlines(void **state)
{
    (void)state;
    char path[] = "/tmp/command-file.XXXXXX", *out[3];
    size_t size = 200001;
    char *bytes = calloc(1, size);
    assert_non_null(bytes);
    bytes[1] = '\r';
    bytes[size - 1] = '\n';
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    struct buf content;
    assert_true(command_read_file(path, &content));
    assert_int_equal(content.size, size);
    assert_memory_equal(content.data, bytes, size);
    buf_free(&content);

    int input = dup(0);
    lseek(fd, 0, SEEK_SET);
    dup2(fd, 0);
    assert_true(command_read_file("-", &content));
    assert_int_equal(content.size, size);
    buf_free(&content);
    dup2(input, 0);
    close(input);

    assert_int_equal(ftruncate(fd, 64 * 1024 * 1024), 0);
    assert_true(command_read_file(path, &content));
    assert_int_equal(content.size, 64 * 1024 * 1024);
    buf_free(&content);
    catch_output();
    bool large = ftruncate(fd, 64 * 1024 * 1024 + 1) != 0 || command_read_file(path, &content);
    buf_free(&content);
    bool directory = command_read_file("/", &content);
    buf_free(&content);
    unlink(path);
    bool gone = command_read_file(path, &content);
    buf_free(&content);
    release_output(out);
    close(fd);
    free(bytes);
    assert_false(large || directory || gone);
    assert_non_null(strstr(out[2], ": larger than 64 MiB\n"));
    assert_non_null(strstr(out[2], ": /: Is a directory\n"));
    assert_non_null(strstr(out[2], ": No such file or directory\n"));
    free(out[1]);
    free(out[2]);
}

static void a_complaint_is_one_line_whatever_the_user_typed(void **state)
{
    (void)state;
    char *out[3];
    catch_output();
    command_complain("unknown \"%s\"", "a\nb\033[31m");
    release_output(out);
    assert_string_equal(out[2], "meowbridge probe: unknown \"a b [31m\"\n");
    free(out[1]);
    free(out[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_taken_in_every_usual_form),
        cmocka_unit_test(a_mistake_is_named_with_the_remedy_and_is_exit_2),
        cmocka_unit_test(help_lists_every_option_on_standard_output),
        cmocka_unit_test(a_number_is_held_to_its_range),
        cmocka_unit_test(a_moment_is_a_span_before_now_or_a_time),
        cmocka_unit_test(a_secret_comes_from_its_file_else_from_the_environment),
        cmocka_unit_test(a_file_is_read_whole_with_its_nul_bytes_and_newlines),
        cmocka_unit_test(a_complaint_is_one_line_whatever_the_user_typed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
