/* Top: supervisor, with sockets of its own for systemd's. */
#include "test.h"

#include "meowbridge/supervisor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int forget_environment(void **state)
{
    static const char *const names[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                        "LISTEN_PID",    "LISTEN_FDS",    "LISTEN_FDNAMES"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        unsetenv(names[i]);
    }
    return 0;
}

static void set_number(const char *name, long long value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", value);
    setenv(name, text, 1);
}

static void assert_opens(struct supervisor *s)
{
    struct error why = {0};
    assert_int_equal(supervisor_open(s, &why), ERR_NONE);
}

static void assert_refused(const char *text)
{
    struct supervisor s;
    struct error why = {0};
    assert_int_equal(supervisor_open(&s, &why), ERR_CONFIG);
    assert_string_equal(why.text, text);
}

/* --- telling --- */

static int receiver(const char *name, socklen_t name_size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, name, name_size);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, (socklen_t)offsetof(struct sockaddr_un, sun_path) + name_size), 0);
    return fd;
}

static void assert_arrives(const struct supervisor *s, int fd)
{
    char text[100] = "";
    struct error why = {0};
    assert_int_equal(supervisor_tell(s, "READY=1\nSTATUS=well", &why), ERR_NONE);
    assert_int_equal(recv(fd, text, sizeof text - 1, MSG_DONTWAIT), 19);
    assert_string_equal(text, "READY=1\nSTATUS=well");
}

static void states_arrive_at_an_abstract_socket(void **state)
{
    (void)state;
    struct supervisor s;
    char name[64];
    int size = snprintf(name, sizeof name, "@meowbridge-test-%d", getpid());
    setenv("NOTIFY_SOCKET", name, 1);
    name[0] = 0;
    int fd = receiver(name, (socklen_t)size);
    assert_opens(&s);
    assert_arrives(&s, fd);
    close(fd);
}

static void states_arrive_at_a_path_also_after_it_was_made_anew(void **state)
{
    (void)state;
    struct supervisor s;
    struct error why = {0};
    char folder[64], path[100];
    make_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/notify", folder);
    setenv("NOTIFY_SOCKET", path, 1);
    assert_opens(&s);
    for (int i = 0; i < 2; i++) {
        int fd = receiver(path, (socklen_t)strlen(path) + 1);
        assert_arrives(&s, fd);
        close(fd);
        unlink(path);
    }
    assert_int_equal(supervisor_tell(&s, "READY=1", &why), ERR_IO);
    assert_string_equal(why.text, "cannot write to NOTIFY_SOCKET: No such file or directory");
    rmdir(folder);
}

static void without_a_supervisor_nothing_is_told_nor_taken(void **state)
{
    (void)state;
    struct supervisor s;
    struct error why = {0};
    assert_opens(&s);
    assert_int_equal(supervisor_tell(&s, "READY=1", &why), ERR_NONE);
    assert_int_equal(s.watchdog_ms, 0);
    assert_int_equal(s.http.fd, 0);
    assert_int_equal(s.admin.fd, 0);
}

static void a_notify_socket_that_is_no_address_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"run/notify", "@", "/", "vsock:2:1234"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setenv("NOTIFY_SOCKET", bad[i], 1);
        assert_refused("NOTIFY_SOCKET is neither an absolute path nor an abstract name");
    }
    char longer[110];
    memset(longer, 'a', sizeof longer - 1);
    longer[0] = '/';
    longer[sizeof longer - 1] = 0;
    setenv("NOTIFY_SOCKET", longer, 1);
    assert_refused("NOTIFY_SOCKET is neither an absolute path nor an abstract name");
}

/* --- the watchdog --- */

static void the_watchdog_is_that_of_this_process(void **state)
{
    (void)state;
    struct supervisor s;
    set_number("WATCHDOG_USEC", 60 * 1000 * 1000);
    assert_opens(&s);
    assert_int_equal(s.watchdog_ms, 60000);
    set_number("WATCHDOG_PID", getpid());
    assert_opens(&s);
    assert_int_equal(s.watchdog_ms, 60000);
    set_number("WATCHDOG_PID", getppid());
    assert_opens(&s);
    assert_int_equal(s.watchdog_ms, 0);
}

static void a_watchdog_that_is_no_time_is_refused(void **state)
{
    (void)state;
    setenv("WATCHDOG_USEC", "soon", 1);
    assert_refused("WATCHDOG_USEC is not a number that it could be");
    setenv("WATCHDOG_USEC", "999999", 1);
    assert_refused("WATCHDOG_USEC is less than a second, which a slow disk alone can take");
}

/* --- the sockets: in a process of its own, for their numbers are fixed --- */

static int listening(int family, in_addr_t v4)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = v4};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT};
    int fd = socket(family, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, family == AF_INET ? (void *)&in : (void *)&in6, family == AF_INET ? sizeof in : sizeof in6) ||
        listen(fd, 1)) {
        _exit(90);
    }
    return fd;
}

static void give(int number, int fd)
{
    if (fd != number && dup2(fd, number) != number) {
        _exit(91);
    }
}

static void assert_child(int (*child)(struct supervisor *, struct error *))
{
    pid_t pid = fork();
    if (pid == 0) {
        struct supervisor s;
        struct error why = {0};
        set_number("LISTEN_PID", getpid());
        int failed = child(&s, &why);
        if (failed) {
            fprintf(stderr, "failure %d: %s\n", failed, why.text);
        }
        _exit(failed);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static int named_sockets(struct supervisor *s, struct error *why)
{
    give(40, listening(AF_INET, htonl(INADDR_LOOPBACK)));
    give(41, listening(AF_INET6, 0));
    give(3, 40);
    give(4, 41);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "admin:http", 1);
    return supervisor_open(s, why)                           ? 1
           : s->admin.fd != 3 || s->http.fd != 4             ? 2
           : strcmp(s->admin.address.host, "127.0.0.1") != 0 ? 3
           : strcmp(s->http.address.host, "::") != 0         ? 4
           : s->http.address.port == 0                       ? 5
           : !(fcntl(4, F_GETFD) & FD_CLOEXEC)               ? 6
                                                             : 0;
}

static int nameless_socket(struct supervisor *s, struct error *why)
{
    give(3, listening(AF_INET, INADDR_ANY));
    setenv("LISTEN_FDS", "1", 1);
    return supervisor_open(s, why) ? 1 : s->http.fd != 3 || s->admin.fd ? 2 : 0;
}

static int another_process_socket(struct supervisor *s, struct error *why)
{
    give(3, listening(AF_INET, INADDR_ANY));
    set_number("LISTEN_PID", getppid());
    setenv("LISTEN_FDS", "1", 1);
    return supervisor_open(s, why) ? 1 : s->http.fd ? 2 : 0;
}

static int two_for_one(struct supervisor *s, struct error *why)
{
    give(40, listening(AF_INET, INADDR_ANY));
    give(3, 40);
    give(4, 40);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "meowbridge.socket:http", 1);
    return supervisor_open(s, why) != ERR_CONFIG ? 1 : strstr(why->text, "two sockets for the http listener") ? 0 : 2;
}

static int no_listening_socket(struct supervisor *s, struct error *why)
{
    give(3, socket(AF_INET, SOCK_STREAM, 0));
    setenv("LISTEN_FDS", "1", 1);
    int failed = supervisor_open(s, why) != ERR_CONFIG || !strstr(why->text, "descriptor 3 is no listening") ? 1 : 0;
    give(3, socket(AF_INET, SOCK_DGRAM, 0));
    failed = failed || supervisor_open(s, why) != ERR_CONFIG ? 2 : 0;
    close(3);
    return failed || supervisor_open(s, why) != ERR_CONFIG ? 3 : 0;
}

static int too_many(struct supervisor *s, struct error *why)
{
    setenv("LISTEN_FDS", "17", 1);
    return supervisor_open(s, why) == ERR_CONFIG && strcmp(why->text, "LISTEN_FDS is not a number that it could be") == 0 ? 0
                                                                                                                          : 1;
}

static void sockets_are_taken_by_their_names(void **state)
{
    (void)state;
    assert_child(named_sockets);
    assert_child(nameless_socket);
}

static void sockets_for_another_process_are_left_alone(void **state)
{
    (void)state;
    assert_child(another_process_socket);
}

static void sockets_that_cannot_be_used_are_refused(void **state)
{
    (void)state;
    assert_child(two_for_one);
    assert_child(no_listening_socket);
    assert_child(too_many);
}

int main(void)
{
#define story(name) cmocka_unit_test_setup(name, forget_environment)
    const struct CMUnitTest tests[] = {
        story(states_arrive_at_an_abstract_socket),
        story(states_arrive_at_a_path_also_after_it_was_made_anew),
        story(without_a_supervisor_nothing_is_told_nor_taken),
        story(a_notify_socket_that_is_no_address_is_refused),
        story(the_watchdog_is_that_of_this_process),
        story(a_watchdog_that_is_no_time_is_refused),
        story(sockets_are_taken_by_their_names),
        story(sockets_for_another_process_are_left_alone),
        story(sockets_that_cannot_be_used_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, forget_environment);
}
