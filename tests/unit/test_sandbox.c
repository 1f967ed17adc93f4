#include "test.h"

#include "meowbridge/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs check in a process of its own, within the sandbox as a bridge without sanitizers has it. check returns the number of its
 * first failure, 0 for none. */
static void assert_inside(int (*check)(void))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct error why = {0};
        if (sandbox_drop_privileges(false, &why) || sandbox_forbid_calls(false, &why)) {
            fprintf(stderr, "%s\n", why.text);
            _exit(99);
        }
        _exit(check());
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static bool is_refused(long result, int error)
{
    return result == -1 && errno == error;
}

static int no_process(void)
{
    char *const none[] = {NULL};
    return !is_refused(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), EPERM)                   ? 1
           : !is_refused(syscall(SYS_clone3, NULL, 0), ENOSYS)                           ? 2
           : !is_refused(syscall(SYS_execve, "/bin/true", none, none), EPERM)            ? 3
           : !is_refused(syscall(SYS_execveat, 0, "/bin/true", none, none, 0), EPERM)    ? 4
           : !is_refused(syscall(SYS_kill, getppid(), 0), EPERM)                         ? 5
           : !is_refused(syscall(SYS_tkill, getppid(), 0), EPERM)                        ? 6
           : !is_refused(ptrace(PTRACE_TRACEME, 0, 0, 0), EPERM)                         ? 7
           : !is_refused(syscall(SYS_process_vm_readv, getppid(), 0, 0, 0, 0, 0), EPERM) ? 8
           : !is_refused(syscall(SYS_pidfd_open, getppid(), 0), EPERM)                   ? 9
                                                                                         : 0;
}

static void new_processes_and_other_processes_are_out_of_reach(void **state)
{
    (void)state;
    assert_inside(no_process);
}

/* What root could do before. Each would fail in another way, or succeed, without the filter. */
static int no_kernel(void)
{
    return !is_refused(mount("none", "/nowhere", "tmpfs", 0, NULL), EPERM)               ? 1
           : !is_refused(unshare(0), EPERM)                                              ? 2
           : !is_refused(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), EPERM) ? 3
           : !is_refused(syscall(SYS_bpf, -1, NULL, 0), EPERM)                           ? 4
           : !is_refused(syscall(SYS_io_uring_setup, 0, NULL), EPERM)                    ? 5
           : !is_refused(syscall(SYS_keyctl, -1), EPERM)                                 ? 6
           : !is_refused(syscall(SYS_setuid, getuid()), EPERM)                           ? 7
           : !is_refused(syscall(SYS_setgroups, -1, NULL), EPERM)                        ? 8
           : !is_refused(syscall(SYS_finit_module, -1, NULL, 0), EPERM)                  ? 9
           : !is_refused(syscall(SYS_perf_event_open, NULL, 0, 0, -1, 0), EPERM)         ? 10
           : !is_refused(syscall(SYS_chroot, "/nowhere"), EPERM)                         ? 11
                                                                                         : 0;
}

static void what_is_the_machines_is_out_of_reach(void **state)
{
    (void)state;
    assert_inside(no_kernel);
}

static int some_sockets(void)
{
    static const int wanted[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
    static const int other[] = {AF_PACKET, AF_ALG, AF_VSOCK, AF_KEY, AF_BLUETOOTH};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        int fd = socket(wanted[i], SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 && errno != EAFNOSUPPORT) { /* a machine may have no IPv6 */
            return 1;
        }
        close(fd);
    }
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        if (!is_refused(socket(other[i], SOCK_RAW, 0), EAFNOSUPPORT)) {
            return 2;
        }
    }
    return 0;
}

static void sockets_are_of_the_families_that_the_bridge_uses(void **state)
{
    (void)state;
    assert_inside(some_sockets);
}

static void *open_something(void *result)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    *(int *)result = fd;
    return NULL;
}

static int daily_work(void)
{
    pthread_t thread;
    int fd = -1;
    struct addrinfo *addresses = NULL;
    if (pthread_create(&thread, NULL, open_something, &fd) || pthread_join(thread, NULL) || fd < 0) {
        return 1;
    }
    if (getaddrinfo("localhost", "80", &(struct addrinfo){.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, &addresses)) {
        return 2;
    }
    freeaddrinfo(addresses);
    char *large = malloc(64 << 20);
    if (!large) {
        return 3;
    }
    memset(large, 1, 64 << 20);
    free(large);
    return pthread_kill(pthread_self(), 0) ? 4 : 0;
}

static void threads_files_names_and_memory_are_there_as_before(void **state)
{
    (void)state;
    assert_inside(daily_work);
}

static int no_capability(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    memset(sets, 0xff, sizeof sets);
    if (syscall(SYS_capget, &head, sets)) {
        return 1;
    }
    unsigned left = 0;
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        left |= sets[i].effective | sets[i].permitted | sets[i].inheritable;
    }
    return left ? 2 : prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 ? 3 : prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2 ? 4 : 0;
}

static void no_capability_is_left(void **state)
{
    (void)state;
    assert_inside(no_capability);
}

static void the_right_to_low_ports_can_be_kept_and_given_up_later(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct before[_LINUX_CAPABILITY_U32S_3], after[_LINUX_CAPABILITY_U32S_3];
        struct error why;
        bool ok =
            !syscall(SYS_capget, &head, before) && !sandbox_drop_privileges(true, &why) && !syscall(SYS_capget, &head, after);
        ok = ok && after[0].permitted == (before[0].permitted & 1u << CAP_NET_BIND_SERVICE) && after[1].permitted == 0;
        _exit(!(ok && !sandbox_drop_privileges(false, &why) && !sandbox_forbid_calls(false, &why) && no_capability() == 0));
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static int a_child(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        _exit(7);
    }
    int status = 0;
    return pid < 0 || waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 7;
}

static void a_build_with_a_sanitizer_keeps_what_its_report_needs(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        struct error why;
        bool ok = !sandbox_drop_privileges(false, &why) && !sandbox_forbid_calls(true, &why) && a_child() == 0;
        _exit(!(ok && is_refused(unshare(0), EPERM) &&
                is_refused(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), EPERM)));
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_processes_and_other_processes_are_out_of_reach),
        cmocka_unit_test(what_is_the_machines_is_out_of_reach),
        cmocka_unit_test(sockets_are_of_the_families_that_the_bridge_uses),
        cmocka_unit_test(threads_files_names_and_memory_are_there_as_before),
        cmocka_unit_test(no_capability_is_left),
        cmocka_unit_test(the_right_to_low_ports_can_be_kept_and_given_up_later),
        cmocka_unit_test(a_build_with_a_sanitizer_keeps_what_its_report_needs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
