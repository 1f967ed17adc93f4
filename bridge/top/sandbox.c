/* The filter is a list of what is refused, not of what is allowed: which calls glibc, its name services, SQLite and two TLS
 * libraries make changes with their versions, and a bridge that dies of an upgrade has protected nobody. */
#include "meowbridge/sandbox.h"

#include "meowbridge/bytes.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true
#elif defined(__has_feature)
#define IS_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer))
#else
#define IS_SANITIZED false
#endif

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#define FOREIGN_CALLS 0x40000000 /* of the x32 ABI, from here on */
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#define FOREIGN_CALLS 0xffffffff
#else
#define NATIVE_ARCH 0 /* no filter: sandbox_forbid_calls says so */
#define FOREIGN_CALLS 0xffffffff
#endif

enum {
    MAX_FILTER = 256,
    NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
};

const bool sandbox_is_sanitized = IS_SANITIZED;

static const unsigned forbidden[] = {
    /* mounts and namespaces */
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_setns,
    SYS_unshare,
    SYS_swapon,
    SYS_swapoff,
    SYS_quotactl,
    SYS_quotactl_fd,
    /* the kernel and the machine */
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_reboot,
    SYS_syslog,
    SYS_acct,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_vhangup,
    /* large and young parts of the kernel that nothing here needs */
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_fanotify_init,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_lookup_dcookie,
    /* another user, more rights */
    SYS_setuid,
    SYS_setgid,
    SYS_setreuid,
    SYS_setregid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setgroups,
    SYS_setfsuid,
    SYS_setfsgid,
    SYS_capset,
    SYS_mknodat,
    /* other processes */
    SYS_pidfd_open,
    SYS_pidfd_getfd,
    SYS_pidfd_send_signal,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_move_pages,
    SYS_migrate_pages,
    SYS_kcmp,
#if defined(__x86_64__)
    SYS_iopl,
    SYS_ioperm,
    SYS_modify_ldt,
    SYS_mknod,
    SYS_uselib,
    SYS_ustat,
    SYS_sysfs,
    SYS__sysctl,
    SYS_create_module,
#endif
};

static const unsigned forbidden_unless_debugging[] = {
    SYS_execve, SYS_execveat, SYS_ptrace, SYS_process_vm_readv, SYS_kill, SYS_tkill, SYS_rt_sigqueueinfo,
#if defined(__x86_64__)
    SYS_fork,   SYS_vfork,
#endif
};

/* --- capabilities --- */

enum err sandbox_drop_privileges(bool keeps_low_ports, struct error *why)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* goes with the permitted ones anyway */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_capget, &head, sets)) {
        return error_set(why, ERR_IO, "cannot ask for or limit the capabilities: %s", strerror(errno));
    }
    unsigned kept = keeps_low_ports ? sets[0].permitted & 1u << CAP_NET_BIND_SERVICE : 0;
    struct __user_cap_data_struct wanted[_LINUX_CAPABILITY_U32S_3] = {{.permitted = kept, .effective = kept}};
    if (memcmp(sets, wanted, sizeof sets) == 0) {
        return ERR_NONE; /* systemd's @privileged refuses the call itself */
    }
    if (syscall(SYS_capset, &head, wanted)) {
        return error_set(why, ERR_IO, "cannot give up the capabilities: %s", strerror(errno));
    }
    return ERR_NONE;
}

/* --- the filter --- */

struct filter {
    struct sock_filter code[MAX_FILTER];
    unsigned short size;
};

static void add(struct filter *filter, struct sock_filter instruction)
{
    ASSERT(filter->size < MAX_FILTER);
    filter->code[filter->size++] = instruction;
}

static void load(struct filter *filter, size_t offset)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offset));
}

/* Goes on behind the next skipped instructions unless what is loaded compares so with value. */
static void unless(struct filter *filter, unsigned short comparison, unsigned value, unsigned char skipped)
{
    add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | comparison | BPF_K, value, 0, skipped));
}

static void refuse(struct filter *filter, int error)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)error & SECCOMP_RET_DATA)));
}

static void allow(struct filter *filter)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
}

static void refuse_calls(struct filter *filter, const unsigned *calls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        unless(filter, BPF_JEQ, calls[i], 1);
        refuse(filter, EPERM);
    }
}

/* The lower half of an argument: all that an int or these flags have. */
static size_t argument(unsigned i)
{
    return offsetof(struct seccomp_data, args) + 8 * i; /* both architectures are little-endian */
}

/* Threads, and neither processes nor namespaces. The arguments of clone3 stand in memory, where a filter cannot look: glibc
 * takes ENOSYS for an older kernel and uses clone. */
static void limit_clone(struct filter *filter, bool keeps_debugging)
{
    unless(filter, BPF_JEQ, SYS_clone3, 1);
    refuse(filter, ENOSYS);
    unless(filter, BPF_JEQ, SYS_clone, 6);
    load(filter, argument(0));
    unless(filter, BPF_JSET, NAMESPACES, 1);
    refuse(filter, EPERM);
    unless(filter, BPF_JSET, keeps_debugging ? 0xffffffff : CLONE_THREAD, 1);
    allow(filter);
    refuse(filter, EPERM);
}

static void limit_sockets(struct filter *filter)
{
    static const unsigned families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
    enum { COUNT = sizeof families / sizeof families[0] };
    unless(filter, BPF_JEQ, SYS_socket, 2 * COUNT + 2);
    load(filter, argument(0));
    for (size_t i = 0; i < COUNT; i++) {
        unless(filter, BPF_JEQ, families[i], 1);
        allow(filter);
    }
    refuse(filter, EAFNOSUPPORT);
}

/* Nothing is typed into the terminal that it was started from. */
static void limit_terminals(struct filter *filter)
{
    static const unsigned requests[] = {TIOCSTI, TIOCLINUX};
    unless(filter, BPF_JEQ, SYS_ioctl, 6);
    load(filter, argument(1));
    for (size_t i = 0; i < 2; i++) {
        unless(filter, BPF_JEQ, requests[i], 1);
        refuse(filter, EPERM);
    }
    allow(filter);
}

enum err sandbox_forbid_calls(bool keeps_debugging, struct error *why)
{
    struct filter filter = {.size = 0};
    if (NATIVE_ARCH == 0) {
        return error_set(why, ERR_LIBRARY, "there is no filter for this architecture");
    }
    load(&filter, offsetof(struct seccomp_data, arch));
    unless(&filter, BPF_JEQ, NATIVE_ARCH, 1);
    add(&filter, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 1));
    refuse(&filter, EPERM);
    load(&filter, offsetof(struct seccomp_data, nr));
    unless(&filter, BPF_JGE, FOREIGN_CALLS, 1);
    refuse(&filter, EPERM);
    refuse_calls(&filter, forbidden, sizeof forbidden / sizeof forbidden[0]);
    if (!keeps_debugging) {
        refuse_calls(&filter, forbidden_unless_debugging,
                     sizeof forbidden_unless_debugging / sizeof forbidden_unless_debugging[0]);
    }
    limit_clone(&filter, keeps_debugging);
    limit_sockets(&filter);
    limit_terminals(&filter);
    allow(&filter);
    const struct sock_fprog program = {filter.size, filter.code};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0)) {
        return error_set(why, ERR_LIBRARY, "the kernel takes no seccomp filter: %s", strerror(errno));
    }
    return ERR_NONE;
}
