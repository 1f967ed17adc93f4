/* heartbeat: whether the threads that all depends on still go round. Each of them beats once a turn and sleeps for no longer than
 * heartbeat_sleep_ms, so one that has not beaten for the limit hangs: in a call of the kernel's that does not return (a disk
 * that is gone), on a lock, in a loop without end. Whoever is asked for the health (/livez) or feeds a watchdog looks here.
 *
 *   heartbeat_begin ─▶ heartbeat_beat, each turn ─▶ heartbeat_end            each in the thread that beats
 *                          heartbeat_late                                    any thread
 *
 * Times are clock_mono_ms. */
#ifndef MEOWBRIDGE_HEARTBEAT_H
#define MEOWBRIDGE_HEARTBEAT_H

#include "meowbridge/bytes.h"

#include <stdatomic.h>
#include <stdint.h>

enum { HEARTBEAT_LIMIT_MS = 30 * 1000 }; /* until heartbeat_set_limit */

struct heartbeat {
    struct heartbeat *next; /* guarded by the list's lock, as name */
    char name[16];
    _Atomic int64_t last_ms;
};

/* After how long a silent thread hangs; at least 100. Before the threads start. */
void heartbeat_set_limit(int64_t limit_ms);
/* How long a thread may sleep at most: a part of the limit, 5 s at most. */
int heartbeat_sleep_ms(void);

/* The thread's life; *heartbeat is its own, in place until heartbeat_end. The name is copied, 15 bytes of it. */
void heartbeat_begin(struct heartbeat *heartbeat, const char *name, int64_t now_ms);
void heartbeat_end(struct heartbeat *heartbeat);

static inline void heartbeat_beat(struct heartbeat *heartbeat, int64_t now_ms)
{
    atomic_store_explicit(&heartbeat->last_ms, now_ms, memory_order_relaxed);
}

/* Appends a line for each thread that hangs, "NAME has not moved for N s"; returns how many there are. */
size_t heartbeat_late(int64_t now_ms, struct buf *lines);

#endif
