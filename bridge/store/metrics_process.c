/* What Linux tells of the process, without /proc/stat, which a sandbox may hide. What cannot be read stays 0. */
#include "meowbridge/metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_us(clockid_t clock)
{
    struct timespec now = {0};
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static size_t read_file(const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "re");
    size_t got = file ? fread(out, 1, size - 1, file) : 0;
    out[got] = 0;
    if (file) {
        fclose(file);
    }
    return got;
}

static void read_memory(void)
{
    char text[256];
    int64_t pages = 0, resident = 0, page_bytes = sysconf(_SC_PAGESIZE);
    read_file("/proc/self/statm", text, sizeof text);
    /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it */
    if (sscanf(text, "%" SCNd64 " %" SCNd64, &pages, &resident) == 2) {
        metrics_set(METRIC_PROCESS_VIRTUAL, pages * page_bytes);
        metrics_set(METRIC_PROCESS_RESIDENT, resident * page_bytes);
    }
}

/* The 22nd field, ticks since the boot; the second one, in brackets, may hold anything. */
static void read_start(void)
{
    char text[1024];
    int64_t ticks = 0, hertz = sysconf(_SC_CLK_TCK);
    read_file("/proc/self/stat", text, sizeof text);
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it */
    if (at && hertz > 0 && sscanf(at, "%" SCNd64, &ticks) == 1) {
        int64_t age_us = clock_us(CLOCK_BOOTTIME) - ticks * 1000000 / hertz;
        metrics_set(METRIC_PROCESS_START, (clock_us(CLOCK_REALTIME) - age_us) / 1000);
    }
}

static void read_descriptors(void)
{
    struct rlimit limit;
    int64_t count = -3; /* ".", "..", and the directory's own */
    DIR *directory = opendir("/proc/self/fd");
    for (; directory && readdir(directory); count++) {
    }
    if (directory) {
        closedir(directory);
    }
    metrics_set(METRIC_PROCESS_OPEN_FDS, count);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        metrics_set(METRIC_PROCESS_MAX_FDS, (int64_t)limit.rlim_cur);
    }
}

void metrics_read_process(void)
{
    metrics_set(METRIC_PROCESS_CPU, clock_us(CLOCK_PROCESS_CPUTIME_ID));
    read_memory();
    read_descriptors();
    if (metrics_get(METRIC_PROCESS_START) == 0) {
        read_start();
    }
}
