/* command: what `meowbridge NAME …` does. One table (main.c) has them all; each takes its own arguments, argv[0] being its
 * name, and returns the exit status: 0 done, 1 failed at run time, 2 bad usage or bad configuration. */
#ifndef MEOWBRIDGE_COMMAND_H
#define MEOWBRIDGE_COMMAND_H

#include "meowbridge/config.h"
#include "meowbridge/err.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

int command_serve(int argc, char **argv);
int command_check(int argc, char **argv);
int command_sign(int argc, char **argv);
int command_send(int argc, char **argv);
int command_explain(int argc, char **argv);
int command_route(int argc, char **argv);
int command_status(int argc, char **argv);
int command_healthcheck(int argc, char **argv);
int command_events(int argc, char **argv);
int command_show(int argc, char **argv);
int command_replay(int argc, char **argv);

/* Says "meowbridge NAME: …" on standard error, in one line; NAME is the command that command_options was last called for. */
void command_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* An option of a command, for command_options. */
struct command_option {
    char letter;          /* 0: long form only */
    const char *name;     /* "url" for --url */
    const char *argument; /* "URL" if it takes one, else NULL */
    const char *help;
    const char **value; /* set to the argument, or to "" where it takes none; NULL stays if the option is absent */
};
struct command_usage {
    const char *name, *arguments, *summary; /* "sign", "--url URL [BODY-FILE]" (options that must be, operands), "Prints …" */
    const char *details;                    /* more for --help, or NULL; --help wraps all that does not begin with a space */
    const struct command_option *options;   /* ends with a name of NULL */
    int min_operands, max_operands;         /* max -1: any number */
};
/* Prints text on standard output in lines of at most 80 columns, broken at spaces and newlines; the first goes on at column, behind
 * a space if that is beyond indent, the others begin at indent. Ends with a newline. */
void command_print_wrapped(const char *text, size_t column, size_t indent);
/* Parses argv by the table, which has at most 30 options, --help beside them; operands may stand between options and are
 * gathered at the end of argv; "--" ends the options. Returns -1 to go on, with *operands at the first operand; otherwise the
 * exit status (after --help: 0, after a mistake, said on standard error with the remedy: 2). */
int command_options(const struct command_usage *usage, int argc, char **argv, char ***operands, int *operand_count);

/* The secret of --secret-file or of MEOWBRIDGE_SECRET; says on standard error what is missing. False: exit status 2. The caller
 * frees it with secret_free. */
MUST_CHECK bool command_secret(const char *secret_file, struct secret *out);
/* Reads a whole file, or standard input for NULL and "-", up to 64 MiB. Says what failed. False: exit status 1.
 * Initialises *out, which the caller frees in either case. */
MUST_CHECK bool command_read_file(const char *path, struct buf *out);
/* The configuration for a command that only looks (config_load_to_look). Says every mistake in it. False: exit status 2. */
MUST_CHECK bool command_config(const char *path, struct config **out);
/* A number from min to max; says what is wrong. */
MUST_CHECK bool command_number(const char *option, const char *text, int64_t min, int64_t max, int64_t *out);
/* A moment: an RFC 3339 time, or a span before now ("90m"); says what is wrong. */
MUST_CHECK bool command_time(const char *option, const char *text, int64_t now_ms, int64_t *wall_ms);

/* One request of the running bridge at its admin listener, with the token if there is one. *answer, initialised here, is the
 * caller's to free. Implemented in command_ask.c. Errors as http_client_request's, with the address. */
MUST_CHECK enum err command_ask(const struct config *config, const char *method, const char *target, struct slice json,
                                int64_t timeout_ms, unsigned *status, struct buf *answer, struct error *why);

#endif
