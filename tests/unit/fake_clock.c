#include "fake_clock.h"

#include "meowbridge/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define WALL_MS 1795000000000

static atomic_bool is_real;
static _Atomic int64_t now_ms;

void fake_clock_reset(bool real)
{
    is_real = real;
    now_ms = 1000000;
}

void fake_clock_advance(int64_t ms)
{
    now_ms += ms;
}

int64_t clock_mono_us(void)
{
    if (!is_real) {
        return now_ms * 1000;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

int64_t clock_wall_ms(void)
{
    return WALL_MS + clock_mono_ms();
}

void clock_rfc3339(int64_t wall_ms, char out[CLOCK_RFC3339_SIZE])
{
    snprintf(out, CLOCK_RFC3339_SIZE, "%024lld", (long long)wall_ms);
}
