#include "meowbridge/command.h"
#include "meowbridge/rfc3339.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAX_OPTIONS = 30,
    MAX_FILE = 64 * 1024 * 1024,
    BLOCK = 64 * 1024,
    HELP_COLUMN = 26,
    MAX_PARAGRAPH = 64 * 1024,
    LONG_OPTION = 256, /* getopt's value of a long option: this and its place in the table */
};

static const char *command_name; /* a process runs one command */

void command_complain(const char *format, ...)
{
    char text[sizeof((struct error *)0)->text];
    struct error flat;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    error_set(&flat, ERR_INVALID, "%s", text); /* what the user typed may hold control characters */
    fprintf(stderr, "meowbridge%s%s: %s\n", command_name ? " " : "", command_name ? command_name : "", flat.text);
}

static void print_wrapped(struct slice text, size_t column, size_t indent)
{
    struct buf out;
    buf_init(&out, MAX_PARAGRAPH);
    terminal_append_wrapped(&out, text, column, indent);
    printf("%.*s\n", SLICE_ARGS(out.failed ? SLICE("out of memory") : buf_slice(&out)));
    buf_free(&out);
}

void command_print_wrapped(const char *text, size_t column, size_t indent)
{
    print_wrapped(slice_of(text), column, indent);
}

/* Lines that begin with a space or are empty stay as they are; the others are wrapped, those of a paragraph together. */
static void print_paragraphs(const char *text)
{
    while (*text) {
        const char *end = strchrnul(text, '\n');
        while (*text != ' ' && *text != '\n' && end[0] && end[1] && !strchr(" \n", end[1])) {
            end = strchrnul(end + 1, '\n');
        }
        const struct slice paragraph = {text, (size_t)(end - text)};
        if (*text == ' ') {
            printf("%.*s\n", SLICE_ARGS(paragraph));
        } else {
            print_wrapped(paragraph, 0, 0);
        }
        text = end + (*end != 0);
    }
}

/* "  -c, --config FILE", then the help in its column, or on the next line where the left side is too long. */
static void print_option(char letter, const char *name, const char *argument, const char *help)
{
    char left[80], letters[] = {'-', letter, ',', ' ', 0};
    int used = snprintf(left, sizeof left, "  %s--%s%s%s", letter ? letters : "    ", name, argument ? " " : "",
                        argument ? argument : "");
    if (used < HELP_COLUMN) {
        printf("%-*s", HELP_COLUMN, left);
    } else {
        printf("%s\n%*s", left, HELP_COLUMN, "");
    }
    command_print_wrapped(help, HELP_COLUMN, HELP_COLUMN);
}

static void print_help(const struct command_usage *usage)
{
    const char *arguments = usage->arguments ? usage->arguments : "";
    printf("Usage: meowbridge %s [OPTION]...", usage->name);
    command_print_wrapped(arguments, strlen(usage->name) + 30, 7);
    print_paragraphs(usage->summary);
    puts("\nOptions:");
    for (const struct command_option *o = usage->options; o && o->name; o++) {
        print_option(o->letter, o->name, o->argument, o->help);
    }
    print_option('h', "help", NULL, "print this and exit");
    if (usage->details) {
        putchar('\n');
        print_paragraphs(usage->details);
    }
}

/* getopt's two tables, made of ours. */
struct getopt_tables {
    char letters[2 * MAX_OPTIONS + 4];
    struct option names[MAX_OPTIONS + 2];
    int count;
};

static void make_getopt_tables(const struct command_option *options, struct getopt_tables *out)
{
    char *letter = out->letters;
    *letter++ = ':'; /* tell a missing argument from an unknown option, and say nothing yourself */
    int count = 0;
    for (; options && options[count].name; count++) {
        const struct command_option *o = &options[count];
        ASSERT(count < MAX_OPTIONS);
        out->names[count] = (struct option){o->name, o->argument ? required_argument : no_argument, NULL, LONG_OPTION + count};
        if (o->letter) {
            *letter++ = o->letter;
            if (o->argument) {
                *letter++ = ':';
            }
        }
    }
    *letter++ = 'h';
    *letter = 0;
    out->names[count] = (struct option){"help", no_argument, NULL, 'h'};
    out->names[count + 1] = (struct option){0};
    out->count = count;
}

/* The option that getopt's value stands for, or NULL. */
static const struct command_option *find_option(const struct command_usage *usage, int count, int value)
{
    if (value >= LONG_OPTION && value < LONG_OPTION + count) {
        return &usage->options[value - LONG_OPTION];
    }
    for (int i = 0; i < count && value > 0; i++) {
        if (usage->options[i].letter == value) {
            return &usage->options[i];
        }
    }
    return NULL;
}

static int refuse(const struct command_usage *usage)
{
    fprintf(stderr, "Try \"meowbridge %s --help\".\n", usage->name);
    return EXIT_USAGE;
}

/* value: ':' or '?', as getopt_long returned it. */
static int refuse_option(const struct command_usage *usage, int count, int value, const char *text)
{
    const struct command_option *option = find_option(usage, count, optopt);
    const char *equals = strchr(text, '=');
    int name_size = equals ? (int)(equals - text) : (int)strlen(text);
    if (value == ':' && option) {
        command_complain("option --%s needs an argument: %s", option->name, option->argument);
    } else if (optopt >= LONG_OPTION || (optopt == 'h' && equals)) {
        command_complain("option %.*s takes no argument", name_size, text);
    } else if (optopt > 0) {
        command_complain("unknown option -%c", optopt);
    } else {
        command_complain("unknown option %.*s", name_size, text);
    }
    return refuse(usage);
}

static int check_operands(const struct command_usage *usage, char **operands, int count)
{
    if (usage->max_operands >= 0 && count > usage->max_operands) {
        command_complain("unexpected argument \"%s\"", operands[usage->max_operands]);
        return refuse(usage);
    }
    if (count < usage->min_operands) {
        command_complain("an argument is missing; it takes %s", usage->arguments);
        return refuse(usage);
    }
    return -1;
}

/* getopt takes "--secret" for --secret-file, and what follows it for a file: a secret, as likely as not. behind: what comes
 * behind the long option and its argument. */
static const char *long_option_text(char *const *behind, const char *argument)
{
    return argument && argument == behind[-1] ? behind[-2] : behind[-1];
}

static int refuse_abbreviated(const struct command_usage *usage, const struct command_option *option, const char *text)
{
    command_complain("unknown option %.*s, did you mean --%s?", (int)strcspn(text, "="), text, option->name);
    return refuse(usage);
}

int command_options(const struct command_usage *usage, int argc, char **argv, char ***operands, int *operand_count)
{
    struct getopt_tables tables = {0};
    make_getopt_tables(usage->options, &tables);
    command_name = usage->name;
    optind = 0; /* glibc: start afresh */
    opterr = 0;
    for (;;) {
        optopt = 0;
        int value = getopt_long(argc, argv, tables.letters, tables.names, NULL);
        if (value < 0) {
            break;
        }
        const struct command_option *option = find_option(usage, tables.count, value);
        ASSERT(option || value < LONG_OPTION);
        const char *text = value >= LONG_OPTION ? long_option_text(argv + optind, optarg) : NULL;
        if (text && strcspn(text + 2, "=") != strlen(option->name)) {
            return refuse_abbreviated(usage, option, text);
        }
        if (option) {
            *option->value = option->argument ? optarg : "";
        } else if (value == 'h') {
            print_help(usage);
            return EXIT_DONE;
        } else {
            return refuse_option(usage, tables.count, value, argv[optind - 1]);
        }
    }
    *operands = argv + optind;
    *operand_count = argc - optind;
    return check_operands(usage, *operands, *operand_count);
}

bool command_secret(const char *secret_file, struct secret *out)
{
    struct error why;
    *out = (struct secret){0};
    if (secret_file) {
        if (config_read_secret(secret_file, out, &why)) {
            command_complain("%s", why.text);
            return false;
        }
        return true;
    }
    const char *text = getenv("MEOWBRIDGE_SECRET");
    if (!text || !*text) {
        command_complain("no secret: give --secret-file FILE, or set MEOWBRIDGE_SECRET%s", text ? ", which is empty" : "");
        return false;
    }
    *out = (struct secret){slice_dup(slice_of(text)), strlen(text)};
    if (!out->data) {
        command_complain("out of memory");
    }
    return out->data != NULL;
}

bool command_config(const char *path, struct config **out)
{
    struct config_errors errors;
    enum err err = config_load_to_look(out, path, &errors);
    if (err == ERR_CONFIG) {
        fwrite(errors.text.data, 1, errors.text.size, stderr);
    } else if (err) {
        command_complain("out of memory");
    }
    config_errors_free(&errors);
    return err == ERR_NONE;
}

static bool read_all(int fd, const char *name, struct buf *out)
{
    for (;;) {
        /* At the limit one byte more is asked for, to tell a file that fits from one that does not. */
        size_t room = MAX_FILE + 1 - out->size, size = room < BLOCK ? room : BLOCK;
        char *place = buf_reserve(out, size);
        ssize_t got = place ? read(fd, place, size) : -1;
        if (!place || (got < 0 && errno != EINTR)) {
            command_complain("%s: %s", name, place ? strerror(errno) : "out of memory");
            return false;
        }
        if (got == 0) {
            return true;
        }
        out->size += got > 0 ? (size_t)got : 0;
        out->data[out->size] = 0;
        if (out->size > MAX_FILE) {
            command_complain("%s: larger than 64 MiB", name);
            return false;
        }
    }
}

bool command_read_file(const char *path, struct buf *out)
{
    buf_init(out, MAX_FILE + 1);
    if (!path || strcmp(path, "-") == 0) {
        return read_all(STDIN_FILENO, "standard input", out);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        command_complain("%s: %s", path, strerror(errno));
        return false;
    }
    bool done = read_all(fd, path, out);
    close(fd);
    return done;
}

bool command_number(const char *option, const char *text, int64_t min, int64_t max, int64_t *out)
{
    uint64_t magnitude = 0;
    bool negative = text[0] == '-';
    bool is_number = slice_to_u64(slice_of(negative ? text + 1 : text), &magnitude) && magnitude <= INT64_MAX;
    *out = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    if (!is_number || *out < min || *out > max) {
        command_complain("%s is a whole number from %lld to %lld, not \"%s\"", option, (long long)min, (long long)max, text);
        return false;
    }
    return true;
}

bool command_time(const char *option, const char *text, int64_t now_ms, int64_t *wall_ms)
{
    int64_t span_ms;
    struct error why;
    if (rfc3339_parse(slice_of(text), wall_ms)) {
        return true;
    }
    if (config_parse_span(slice_of(text), &span_ms, &why) == ERR_NONE && !__builtin_sub_overflow(now_ms, span_ms, wall_ms)) {
        return true;
    }
    command_complain("%s is a span before now (90m, 2h, 7d) or an RFC 3339 time (2026-11-24T05:00:00Z), not \"%s\"", option,
                     text);
    return false;
}
