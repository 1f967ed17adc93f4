#include "meowbridge/metrics.h"

#include "meowbridge/err.h"

#include <stdatomic.h>

static _Atomic uint64_t counters[METRIC_COUNT];

void metrics_add(enum metric metric, uint64_t n)
{
    ASSERT(metric < METRIC_COUNT);
    atomic_fetch_add_explicit(&counters[metric], n, memory_order_relaxed);
}

uint64_t metrics_get(enum metric metric)
{
    ASSERT(metric < METRIC_COUNT);
    return atomic_load_explicit(&counters[metric], memory_order_relaxed);
}
