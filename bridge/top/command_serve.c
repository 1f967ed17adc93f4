#include "meowbridge/bridge.h"
#include "meowbridge/command.h"

int command_serve(int argc, char **argv)
{
    const char *config = NULL;
    const struct command_option options[] = {
        {'c', "config", "FILE", "the configuration; without it the defaults and the environment", &config},
        {0},
    };
    const struct command_usage usage = {
        .name = "serve",
        .arguments = "",
        .summary = "Runs the bridge in the foreground until SIGTERM or SIGINT.",
        .details = "SIGHUP reads the configuration again: apps, secrets, routes, certificates and the log level change\n"
                   "without a request dropped; a file with a mistake is refused whole and the running one stays.\n"
                   "\n"
                   "With MEOWBRIDGE_SECRET set and a broker on 127.0.0.1:1883 no file is needed.\n",
        .options = options,
    };
    char **operands;
    int operand_count;
    int status = command_options(&usage, argc, argv, &operands, &operand_count);
    return status >= 0 ? status : bridge_run(config);
}
