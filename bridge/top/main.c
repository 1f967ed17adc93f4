#include "meowbridge/command.h"
#include "meowbridge/version.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"serve", "run the bridge in the foreground", command_serve},
    {"check", "read the configuration and print it as understood", command_check},
    {"sign", "print the signature headers of a webhook body", command_sign},
    {"send", "play MeowFlow: sign and push test events", command_send},
    {"explain", "find out why a captured request does not verify", command_explain},
    {"route", "show what a webhook body would become on MQTT", command_route},
    {"events", "list the events in the journal", command_events},
    {"show", "show one event of the journal whole", command_show},
    {"replay", "queue events for publishing again", command_replay},
    {"status", "say how the running bridge is", command_status},
    {"healthcheck", "ask the running bridge whether it is alive", command_healthcheck},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_usage(FILE *to)
{
    fputs("Usage: meowbridge COMMAND [OPTION]...\n"
          "Takes signed webhooks of MeowFlow, keeps them, and republishes their payloads\n"
          "over MQTT.\n\n"
          "Commands:\n",
          to);
    for (size_t i = 0; i < COMMANDS; i++) {
        fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].summary);
    }
    fputs("\n\"meowbridge COMMAND --help\" says more; --version prints the version.\n"
          "Exit status: 0 done, 1 failed at run time, 2 bad usage or bad configuration.\n",
          to);
}

static int refuse_command(const char *name)
{
    size_t nearest = 0, least = SIZE_MAX;
    for (size_t i = 0; i < COMMANDS; i++) {
        size_t distance = slice_distance(slice_of(name), slice_of(commands[i].name));
        nearest = distance < least ? i : nearest;
        least = distance < least ? distance : least;
    }
    command_complain("unknown command \"%s\"", name);
    if (least <= 2) {
        fprintf(stderr, "Did you mean \"meowbridge %s\"?\n", commands[nearest].name);
    }
    fputs("Try \"meowbridge --help\".\n", stderr);
    return EXIT_USAGE;
}

static int run_command(int argc, char **argv)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[0], commands[i].name) == 0) {
            return commands[i].run(argc, argv);
        }
    }
    return refuse_command(argv[0]);
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        command_complain("a command is missing");
        print_usage(stderr);
        return EXIT_USAGE;
    }
    const char *first = argv[1];
    bool is_help = strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0 || strcmp(first, "help") == 0;
    if (is_help && argc > 2) { /* meowbridge help send */
        char help[] = "--help";
        return run_command(2, (char *[]){argv[2], help, NULL});
    }
    if (is_help) {
        print_usage(stdout);
        return EXIT_DONE;
    }
    if (strcmp(first, "--version") == 0 || strcmp(first, "-V") == 0) {
        puts("meowbridge " MEOWBRIDGE_VERSION);
        return EXIT_DONE;
    }
    if (first[0] == '-') {
        command_complain("unknown option %s", first);
        fputs("Try \"meowbridge --help\".\n", stderr);
        return EXIT_USAGE;
    }
    return run_command(argc - 1, argv + 1);
}

/* The journal or a connection would get the number of a stream that is closed, and log lines with it. What stands in for it is
 * open the wrong way round, so that to read or to write it fails as before. */
static bool hold_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) {
            return false;
        }
    }
    return true;
}

/* Secrets are read by most commands. A core file would hold them; nor may another process of the same user look into this one. */
static bool set_core_dumps(bool allowed)
{
    const struct rlimit none = {0, 0};
    return (allowed || setrlimit(RLIMIT_CORE, &none) == 0) && prctl(PR_SET_DUMPABLE, allowed) == 0;
}

int main(int argc, char **argv)
{
    if (!hold_standard_streams()) {
        return EXIT_FAILED;
    }
    if (!set_core_dumps(false)) {
        command_complain("core dumps cannot be turned off, and one would hold secrets: %s", strerror(errno));
        return EXIT_FAILED;
    }
    int status = run(argc, argv);
    (void)set_core_dumps(true); /* the secrets are wiped, and a leak detector that runs now must look into the process */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        command_complain("the output could not be written whole");
        status = status == EXIT_DONE ? EXIT_FAILED : status;
    }
    return status;
}
