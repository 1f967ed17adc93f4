#include "meowbridge/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_clock_us(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_wall_ms(void)
{
    return read_clock_us(CLOCK_REALTIME) / 1000;
}

int64_t clock_mono_ms(void)
{
    return read_clock_us(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_mono_us(void)
{
    return read_clock_us(CLOCK_MONOTONIC);
}

void clock_rfc3339(int64_t wall_ms, char out[CLOCK_RFC3339_SIZE])
{
    const int64_t year_0_ms = -62167219200000, year_9999_ms = 253402300799999;
    wall_ms = wall_ms < year_0_ms ? year_0_ms : wall_ms > year_9999_ms ? year_9999_ms : wall_ms;
    int64_t milliseconds = wall_ms % 1000;
    if (milliseconds < 0) {
        milliseconds += 1000;
    }
    time_t seconds = (time_t)((wall_ms - milliseconds) / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    unsigned year = (unsigned)(utc.tm_year + 1900) % 10000u;
    snprintf(out, CLOCK_RFC3339_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", year, (unsigned)(utc.tm_mon + 1) % 100u,
             (unsigned)utc.tm_mday % 100u, (unsigned)utc.tm_hour % 100u, (unsigned)utc.tm_min % 100u,
             (unsigned)utc.tm_sec % 100u, (unsigned)milliseconds % 1000u);
}
