/* tool: what the programs of the measurements share. All figures of a program go to standard output as one line of JSON; any
 * trouble ends it with a message and exit status 1, because half a measurement is none. */
#ifndef MEOWBRIDGE_BENCH_TOOL_H
#define MEOWBRIDGE_BENCH_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern const char *tool_name;
_Noreturn void tool_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *tool_alloc(size_t bytes); /* zeroed; ends the process without memory */
uint64_t tool_number(const char *text);

int64_t tool_now_ns(void); /* monotonic: the same clock for all processes of this machine */

/* A connected TCP socket without delay, blocking. */
int tool_connect(const char *host, int port);

/* When event n was to be sent, in ns of tool_now_ns: a file that the sender writes and the subscriber reads. Its size is the
 * number of events. */
struct tool_times {
    _Atomic int64_t *ns;
    size_t count;
};
void tool_times_open(struct tool_times *times, const char *path);

/* How long something took: counts in buckets that are at most 1 % wide, of any span up to 2^40 ns. */
#define TOOL_SUBBUCKET_BITS 7
#define TOOL_BUCKETS ((40 - TOOL_SUBBUCKET_BITS + 2) << TOOL_SUBBUCKET_BITS)
struct tool_histogram {
    uint64_t counts[TOOL_BUCKETS], count;
    int64_t max_ns;
};
void tool_histogram_add(struct tool_histogram *histogram, int64_t ns);
double tool_histogram_ms(const struct tool_histogram *histogram, double share); /* upper edge of the bucket */
/* Prints "NAME":{"p50":…,"p99":…,"p999":…,"max":…}, in ms. */
void tool_histogram_print(const struct tool_histogram *histogram, const char *name);

/* Prints "cpu_us":… of this process since the last tool_cpu_reset. */
void tool_cpu_reset(void);
void tool_cpu_print(void);

#endif
