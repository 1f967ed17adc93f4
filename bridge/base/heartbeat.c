#include "meowbridge/heartbeat.h"

#include "meowbridge/err.h"

#include <pthread.h>
#include <stdio.h>

enum { LONGEST_SLEEP_MS = 5000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct heartbeat *first; /* guarded by lock */

static _Atomic int64_t limit_ms = HEARTBEAT_LIMIT_MS;

void heartbeat_set_limit(int64_t ms)
{
    ASSERT(ms >= 100);
    atomic_store(&limit_ms, ms);
}

int heartbeat_sleep_ms(void)
{
    int64_t part_ms = atomic_load_explicit(&limit_ms, memory_order_relaxed) / 4;
    return part_ms < LONGEST_SLEEP_MS ? (int)part_ms : LONGEST_SLEEP_MS;
}

void heartbeat_begin(struct heartbeat *heartbeat, const char *name, int64_t now_ms)
{
    heartbeat_beat(heartbeat, now_ms);
    pthread_mutex_lock(&lock);
    snprintf(heartbeat->name, sizeof heartbeat->name, "%s", name);
    heartbeat->next = first;
    first = heartbeat;
    pthread_mutex_unlock(&lock);
}

void heartbeat_end(struct heartbeat *heartbeat)
{
    pthread_mutex_lock(&lock);
    struct heartbeat **at = &first;
    while (*at && *at != heartbeat) {
        at = &(*at)->next;
    }
    ASSERT(*at);
    *at = heartbeat->next;
    pthread_mutex_unlock(&lock);
}

size_t heartbeat_late(int64_t now_ms, struct buf *lines)
{
    size_t late = 0;
    pthread_mutex_lock(&lock);
    for (const struct heartbeat *h = first; h; h = h->next) {
        int64_t silent_ms = now_ms - atomic_load_explicit(&h->last_ms, memory_order_relaxed);
        if (silent_ms > atomic_load(&limit_ms)) {
            buf_appendf(lines, "%s has not moved for %lld s\n", h->name, (long long)(silent_ms / 1000));
            late++;
        }
    }
    pthread_mutex_unlock(&lock);
    return late;
}
