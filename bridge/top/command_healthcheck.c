#include "meowbridge/command.h"

#include <stdio.h>
#include <string.h>

enum { TIMEOUT_MS = 5000 };

static int check_health(const struct config *config)
{
    unsigned status = 0;
    struct buf answer;
    struct error why;
    enum err err = command_ask(config, "GET", "/livez", (struct slice){0}, TIMEOUT_MS, &status, &answer, &why);
    bool is_alive = !err && status == 200;
    if (err) {
        command_complain("the bridge does not answer: %s", why.text);
    } else if (!is_alive) {
        command_complain("the bridge answers %u: %.*s", status, SLICE_ARGS(buf_slice(&answer)));
    } else {
        puts("ok");
    }
    buf_free(&answer);
    return is_alive ? EXIT_DONE : EXIT_FAILED;
}

int command_healthcheck(int argc, char **argv)
{
    const char *path = NULL;
    const struct command_option options[] = {
        {'c', "config", "FILE", "the bridge's configuration; without it, defaults and variables", &path},
        {0},
    };
    const struct command_usage usage = {
        .name = "healthcheck",
        .arguments = "",
        .summary = "Asks the running bridge at its admin listener whether it is alive (GET /livez), as a\n"
                   "container's health check.",
        .details = "Exit status: 0 it is, 1 it is not, or does not answer within 5 seconds.\n",
        .options = options,
    };
    char **operands;
    int operand_count;
    int status = command_options(&usage, argc, argv, &operands, &operand_count);
    if (status >= 0) {
        return status;
    }
    struct config *config;
    if (!command_config(path, &config)) {
        return EXIT_USAGE;
    }
    status = check_health(config);
    config_free(&config);
    return status;
}
