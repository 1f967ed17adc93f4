#include "tool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

const char *tool_name = "bench";

void tool_die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", tool_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void *tool_alloc(size_t bytes)
{
    void *memory = calloc(1, bytes ? bytes : 1);
    if (!memory) {
        tool_die("no memory for %zu bytes", bytes);
    }
    return memory;
}

uint64_t tool_number(const char *text)
{
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno || end == text || *end) {
        tool_die("%s is no number", text);
    }
    return number;
}

int64_t tool_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int tool_connect(const char *host, int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
        connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        tool_die("cannot connect to %s:%d: %s", host, port, strerror(errno));
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

void tool_times_open(struct tool_times *times, const char *path)
{
    struct stat status;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) {
        tool_die("%s: %s", path, strerror(errno));
    }
    times->count = (size_t)status.st_size / sizeof *times->ns;
    times->ns = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (times->ns == MAP_FAILED) {
        tool_die("%s cannot be mapped: %s", path, strerror(errno));
    }
    close(fd);
}

/* Values below 2^BITS have a bucket each; above, each power of two has 2^BITS buckets. */
static size_t bucket_of(uint64_t value)
{
    unsigned shift = value >> TOOL_SUBBUCKET_BITS ? 63 - (unsigned)__builtin_clzll(value) - TOOL_SUBBUCKET_BITS : 0;
    size_t bucket = ((size_t)shift << TOOL_SUBBUCKET_BITS) + (size_t)(value >> shift);
    return bucket < TOOL_BUCKETS ? bucket : TOOL_BUCKETS - 1;
}

static uint64_t edge_of(size_t bucket)
{
    const size_t size = (size_t)1 << TOOL_SUBBUCKET_BITS;
    size_t shift = bucket < 2 * size ? 0 : (bucket >> TOOL_SUBBUCKET_BITS) - 1;
    return (bucket - (shift << TOOL_SUBBUCKET_BITS) + 1) << shift;
}

void tool_histogram_add(struct tool_histogram *histogram, int64_t ns)
{
    ns = ns < 0 ? 0 : ns;
    histogram->counts[bucket_of((uint64_t)ns)]++;
    histogram->count++;
    histogram->max_ns = ns > histogram->max_ns ? ns : histogram->max_ns;
}

double tool_histogram_ms(const struct tool_histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t)((double)histogram->count * share), seen = 0;
    for (size_t i = 0; i < TOOL_BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen > wanted) {
            return (double)edge_of(i) / 1e6;
        }
    }
    return (double)histogram->max_ns / 1e6;
}

void tool_histogram_print(const struct tool_histogram *histogram, const char *name)
{
    printf("\"%s\":{\"p50\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f}", name, tool_histogram_ms(histogram, 0.5),
           tool_histogram_ms(histogram, 0.99), tool_histogram_ms(histogram, 0.999), (double)histogram->max_ns / 1e6);
}

static int64_t cpu_before_us;

static int64_t cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * INT64_C(1000000) + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

void tool_cpu_reset(void)
{
    cpu_before_us = cpu_us();
}

void tool_cpu_print(void)
{
    printf("\"cpu_us\":%lld", (long long)(cpu_us() - cpu_before_us));
}
