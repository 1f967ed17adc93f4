/* sandbox: what the running bridge gives up for ever, so that a flaw in it or in a library is worth little to who finds it.
 * Linux. Both are for the only thread of a process; the threads that it starts inherit what they set.
 *
 * What the bridge needs and keeps: files, sockets of the families Unix, IPv4, IPv6 and netlink (getaddrinfo asks for the
 * addresses of the host), threads, memory. */
#ifndef MEOWBRIDGE_SANDBOX_H
#define MEOWBRIDGE_SANDBOX_H

#include "meowbridge/err.h"

#include <stdbool.h>

/* This build has a sanitizer, which starts a process and traces to make its report. */
extern const bool sandbox_is_sanitized;

/* No capability is left, nor gained by a program that is executed (no_new_privs); with keeps_low_ports the right to bind ports
 * below 1024 stays, if there is one. May be called again to give that up too. ERR_IO. */
MUST_CHECK enum err sandbox_drop_privileges(bool keeps_low_ports, struct error *why);

/* From here on the kernel refuses (EPERM) what the bridge never does: new processes and programs, tracing and reading other
 * processes, signals to them, mounts, namespaces, kernel modules, the clock, keys, another user, io_uring, BPF, raw and other
 * exotic sockets (EAFNOSUPPORT), and every call of a foreign architecture. keeps_debugging leaves processes, programs, signals
 * and tracing alone. After sandbox_drop_privileges. ERR_LIBRARY: this kernel or what stands around it has no seccomp filters. */
MUST_CHECK enum err sandbox_forbid_calls(bool keeps_debugging, struct error *why);

#endif
