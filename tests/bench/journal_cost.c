/* journal_cost: what an event costs in the SQLite journal, from storing to deletion, and how long its sender waits.
 *
 *   journal_cost [-n EVENTS] [-b BATCH] [-s BODY-BYTES] [-r RETENTION-SECONDS] [-e EVENTS-A-SECOND] [-p PENDING] [-R] [-k] PATH
 *
 * -R takes random ids instead of growing ones; -p leaves the last PENDING events unsettled; -k skips waiting for the deletion.
 * One batch is under way at a time, as in a bridge with as many connections. CPU time is the journal thread's: that of the
 * process without this one's. Then it opens the journal once more and says how long that took. */
#include "meowbridge/clock.h"
#include "meowbridge/journal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct settings {
    size_t events, batch, body_bytes, rate, pending;
    int64_t retention_ms;
    bool is_random, keeps;
    const char *path;
};

struct waiting {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    size_t left, stored;
};

static void appended(void *ctx, struct journal_append *batch)
{
    struct waiting *waiting = ctx;
    pthread_mutex_lock(&waiting->lock);
    for (; batch; batch = batch->next) {
        waiting->left--;
        waiting->stored += batch->outcome == JOURNAL_STORED;
    }
    if (waiting->left == 0) {
        pthread_cond_signal(&waiting->wake);
    }
    pthread_mutex_unlock(&waiting->lock);
}

static void claimable(void *ctx)
{
    (void)ctx;
}

static void die(const char *what, const struct error *why)
{
    fprintf(stderr, "journal_cost: %s: %s\n", what, why->text);
    exit(1);
}

static double cpu_us(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static double others_cpu_us(void)
{
    return cpu_us(RUSAGE_SELF) - cpu_us(RUSAGE_THREAD);
}

static void make_key(const struct settings *settings, uint64_t number, uint8_t key[JOURNAL_KEY_BYTES])
{
    uint64_t x = number + 1;
    memset(key, 0x5a, JOURNAL_KEY_BYTES);
    for (int i = 0; i < 8; i++) {
        key[i] = (uint8_t)(x >> (56 - 8 * i));
    }
    for (int i = 0; settings->is_random && i < JOURNAL_KEY_BYTES; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        key[i] = (uint8_t)((x * 0x9e3779b97f4a7c15) >> 56);
    }
}

static void append_batch(struct journal *journal, const struct settings *settings, struct journal_append *appends,
                         uint64_t first)
{
    static const char head[48];
    for (size_t i = 0; i < settings->batch; i++) {
        uint8_t key[JOURNAL_KEY_BYTES];
        char *body = malloc(settings->body_bytes);
        make_key(settings, first + i, key);
        memset(body, 'x', settings->body_bytes);
        appends[i] = (struct journal_append){
            .next = i + 1 < settings->batch ? &appends[i + 1] : NULL,
            .event = journal_event_new(key, clock_wall_ms(), (struct slice){head, sizeof head}, body, settings->body_bytes)};
    }
    journal_append(journal, appends);
}

static void settle_all(struct journal *journal, uint64_t upto)
{
    struct journal_event *list;
    struct error why;
    for (;;) {
        if (journal_claim(journal, 1024, 1 << 20, &list, &why) != ERR_NONE) {
            die("claim", &why);
        }
        uint64_t last = 0;
        for (; list && list->seq <= upto; list = list->next) {
            last = list->seq;
        }
        if (last == 0) {
            return;
        }
        journal_settle(journal, last);
    }
}

static void sleep_us(int64_t us)
{
    struct timespec span = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&span, NULL);
}

static int compare_waits(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void report_waits(int64_t *waits, size_t count)
{
    qsort(waits, count, sizeof *waits, compare_waits);
    printf("a batch waits for its commit: p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms, longest %.2f ms\n",
           (double)waits[count / 2] / 1e3, (double)waits[count * 99 / 100] / 1e3, (double)waits[count * 999 / 1000] / 1e3,
           (double)waits[count - 1] / 1e3);
}

static void feed(struct journal *journal, const struct settings *settings, struct waiting *waiting)
{
    const size_t batches = settings->events / settings->batch;
    struct journal_append *appends = calloc(settings->batch, sizeof *appends);
    int64_t *waits = calloc(batches, sizeof *waits), begin = clock_mono_us();
    for (size_t i = 0; i < batches; i++) {
        if (settings->rate > 0) {
            int64_t due = begin + (int64_t)(i * settings->batch * 1000000 / settings->rate), now = clock_mono_us();
            sleep_us(due > now ? due - now : 0);
        }
        int64_t start = clock_mono_us();
        pthread_mutex_lock(&waiting->lock);
        waiting->left = settings->batch;
        pthread_mutex_unlock(&waiting->lock);
        append_batch(journal, settings, appends, i * settings->batch);
        pthread_mutex_lock(&waiting->lock);
        while (waiting->left > 0) {
            pthread_cond_wait(&waiting->wake, &waiting->lock);
        }
        pthread_mutex_unlock(&waiting->lock);
        waits[i] = clock_mono_us() - start;
        settle_all(journal, settings->events > settings->pending ? settings->events - settings->pending : 0);
    }
    double seconds = (double)(clock_mono_us() - begin) / 1e6;
    printf("%zu events in %.1f s: %.0f a second\n", batches * settings->batch, seconds,
           (double)(batches * settings->batch) / seconds);
    report_waits(waits, batches);
    free(waits);
    free(appends);
}

static void wait_for_deletion(struct journal *journal)
{
    struct journal_state state;
    int64_t before = 0;
    do {
        before = (journal_state(journal, &state), state.bytes);
        sleep_us(3000000);
        journal_state(journal, &state);
    } while (state.bytes > 12000000 || state.bytes != before);
}

static void report_start(const struct settings *settings, const struct journal_options *options)
{
    struct journal *journal;
    struct error why;
    int64_t begin = clock_mono_us();
    if (journal_open_sqlite(&journal, options, &why) != ERR_NONE) {
        die("opening again", &why);
    }
    int64_t opened = clock_mono_us();
    const struct journal_hooks hooks = {.appended = appended, .claimable = claimable};
    struct journal_event *list = NULL;
    if (journal_start(journal, &hooks, &why) != ERR_NONE || journal_claim(journal, 128, 1 << 20, &list, &why) != ERR_NONE) {
        die("starting again", &why);
    }
    struct journal_state state;
    journal_state(journal, &state);
    printf("opening again took %.1f ms, the first claim %.1f ms; %lu pending\n", (double)(opened - begin) / 1e3,
           (double)(clock_mono_us() - opened) / 1e3, (unsigned long)(state.last_seq - state.cursor));
    (void)settings;
    journal_close(&journal);
}

static struct settings read_settings(int argc, char **argv)
{
    struct settings settings = {.events = 600000, .batch = 128, .body_bytes = 600, .retention_ms = 8000};
    for (int option; (option = getopt(argc, argv, "n:b:s:r:e:p:Rk")) != -1;) {
        size_t number = optarg ? strtoul(optarg, NULL, 10) : 0;
        switch (option) {
        case 'n':
            settings.events = number;
            break;
        case 'b':
            settings.batch = number;
            break;
        case 's':
            settings.body_bytes = number;
            break;
        case 'r':
            settings.retention_ms = (int64_t)number * 1000;
            break;
        case 'e':
            settings.rate = number;
            break;
        case 'p':
            settings.pending = number;
            break;
        case 'R':
            settings.is_random = true;
            break;
        case 'k':
            settings.keeps = true;
            break;
        default:
            exit(2);
        }
    }
    if (optind + 1 != argc || settings.batch == 0 || settings.events < settings.batch) {
        fprintf(stderr, "usage: journal_cost [options] PATH\n");
        exit(2);
    }
    settings.path = argv[optind];
    return settings;
}

int main(int argc, char **argv)
{
    const struct settings settings = read_settings(argc, argv);
    const struct journal_options options = {.path = settings.path, .retention_ms = settings.retention_ms};
    struct waiting waiting = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    const struct journal_hooks hooks = {appended, &waiting, claimable, NULL};
    struct journal *journal;
    struct error why;
    if (journal_open_sqlite(&journal, &options, &why) != ERR_NONE || journal_start(journal, &hooks, &why) != ERR_NONE) {
        die("open", &why);
    }
    double before = others_cpu_us();
    feed(journal, &settings, &waiting);
    double stored = others_cpu_us();
    printf("CPU for an event: %.2f us until the last one was stored", (stored - before) / (double)settings.events);
    if (!settings.keeps) {
        wait_for_deletion(journal);
        printf(", %.2f us until all are deleted", (others_cpu_us() - before) / (double)settings.events);
    }
    struct rusage usage;
    struct journal_state state;
    getrusage(RUSAGE_SELF, &usage);
    journal_state(journal, &state);
    printf("; %zu stored; resident at most %ld KiB\nupkeep kept a batch waiting for %.2f ms at most\n", waiting.stored,
           usage.ru_maxrss, (double)state.longest_upkeep_us / 1e3);
    journal_close(&journal);
    if (settings.keeps) {
        report_start(&settings, &options);
    }
    return 0;
}
