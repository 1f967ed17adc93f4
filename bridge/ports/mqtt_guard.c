/* libmosquitto 2.0.11 asserts that its own logging has a client, and logs without one where a packet of the broker has a property
 * that it does not know: any PUBACK, PUBLISH or DISCONNECT can end the process. Packets cannot be looked at beforehand: the
 * library reads from the socket itself, as far as there is something, and through TLS nobody else can.
 *
 * So the function that a failed assertion calls is ours. Within a guarded call it leaves the library by longjmp; no lock of the
 * library is held where packets are parsed, and what is lost is the memory of a property and a message head, a hundred bytes or two. Elsewhere it does what libc's does. */
#include "mqtt_guard.h"

#include <mosquitto.h>

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local jmp_buf way_out;
static _Thread_local bool is_guarded;

_Noreturn void __assert_fail(const char *condition, const char *file, unsigned line, const char *function);

__attribute__((used, visibility("default"))) _Noreturn void __assert_fail(const char *condition, const char *file,
                                                                          unsigned line, const char *function)
{
    if (is_guarded) {
        is_guarded = false;
        _longjmp(way_out, 1);
    }
    fprintf(stderr, "meowbridge: %s:%u: %s: Assertion `%s' failed.\n", file, line, function ? function : "?", condition);
    abort();
}

int mqtt_guard_loop_read(struct mosquitto *library, bool *failed)
{
    *failed = _setjmp(way_out) != 0;
    if (*failed) {
        return MOSQ_ERR_PROTOCOL;
    }
    is_guarded = true;
    int rc = mosquitto_loop_read(library, 1);
    is_guarded = false;
    return rc;
}
