#include "meowbridge/command.h"

#include "trials.h"

#include <stdio.h>
#include <string.h>

enum { MAX_PRINTED = 16 * 1024 * 1024 };

static void print_lines(const struct buf *lines, const char *prefix)
{
    for (const char *line = lines->data; line && *line;) {
        size_t size = strcspn(line, "\n");
        fprintf(stderr, "%s%.*s\n", prefix, (int)size, line);
        line += size + (line[size] == '\n');
    }
}

static int print_config(const struct config *config)
{
    struct buf text;
    buf_init(&text, MAX_PRINTED);
    config_print(config, &text);
    bool printed = !text.failed;
    if (printed) {
        fwrite(text.data, 1, text.size, stdout);
    } else {
        command_complain("out of memory");
    }
    buf_free(&text);
    return printed ? EXIT_DONE : EXIT_FAILED;
}

static int check(const char *path)
{
    struct config *config;
    struct config_errors errors, warnings;
    enum err err = config_load_and_try(&config, path, &config_trials, &errors, &warnings);
    print_lines(&errors.text, "");
    print_lines(&warnings.text, "warning: ");
    int status = err == ERR_CONFIG ? EXIT_USAGE : EXIT_FAILED;
    if (!err) {
        status = print_config(config);
    } else if (err != ERR_CONFIG) {
        command_complain("out of memory");
    }
    config_free(&config);
    config_errors_free(&errors);
    config_errors_free(&warnings);
    return status;
}

int command_check(int argc, char **argv)
{
    const char *path = NULL;
    const struct command_option options[] = {
        {'c', "config", "FILE", "the configuration; without it, defaults and MEOWBRIDGE_… variables", &path},
        {0},
    };
    const struct command_usage usage = {
        .name = "check",
        .summary = "Reads the configuration as serve does and prints it as understood, every secret masked.\n"
                   "All mistakes are told at once, each as FILE:LINE:COL: what is wrong, what was expected.",
        .details = "Exit status: 0 no mistake, 2 mistakes.\n",
        .options = options,
    };
    char **operands;
    int operand_count;
    int status = command_options(&usage, argc, argv, &operands, &operand_count);
    return status >= 0 ? status : check(path);
}
