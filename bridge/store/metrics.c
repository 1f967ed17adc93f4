#include "meowbridge/metrics.h"

#include "meowbridge/err.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_LINE = 64 };

/* A series alone on its cache line: threads that count different things do not slow each other down. */
struct cell {
    _Alignas(CACHE_LINE) _Atomic uint64_t value;
};

struct histogram_cells {
    _Alignas(CACHE_LINE) _Atomic uint64_t counts[METRICS_MAX_BUCKETS];
    _Atomic uint64_t sum;
};

/* --- the table, as data --- */

struct family {
    const char *name, *type, *help, *labels;
    int64_t scale;
};
struct bounds {
    size_t count;
    int64_t upper[METRICS_MAX_BUCKETS - 1];
};

#define FAMILY_COUNTER(identifier, name, labels, scale, help) {name, "counter", help, labels, scale},
#define FAMILY_GAUGE(identifier, name, labels, scale, help) {name, "gauge", help, labels, scale},
#define FAMILY_HISTOGRAM(identifier, name, scale, help, ...) {name, "histogram", help, "", scale},
#define BOUNDS(identifier, name, scale, help, ...) {sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), {__VA_ARGS__}},
#define ROW_SCALAR(...) false,
#define ROW_HISTOGRAM(...) true,

static const struct family scalars[] = {METRICS_TABLE(FAMILY_COUNTER, FAMILY_GAUGE, METRICS_NOTHING)};
static const struct family histograms[] = {METRICS_TABLE(METRICS_NOTHING, METRICS_NOTHING, FAMILY_HISTOGRAM)};
static const struct bounds bounds[] = {METRICS_TABLE(METRICS_NOTHING, METRICS_NOTHING, BOUNDS)};
static const struct family app_metrics[] = {METRICS_APP_TABLE(FAMILY_COUNTER, FAMILY_GAUGE)};
static const bool row_is_histogram[] = {METRICS_TABLE(ROW_SCALAR, ROW_SCALAR, ROW_HISTOGRAM)};

static struct cell cells[METRIC_COUNT] = {[METRIC_BUILD_INFO] = {1}};
static struct histogram_cells histogram_cells[HISTOGRAM_COUNT];

/* Apps are only ever added: below app_count everything but the cells is immutable. */
static pthread_mutex_t app_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint app_count;
static char *app_ids[METRICS_MAX_APPS];
static struct cell app_cells[METRICS_MAX_APPS][METRIC_APP_COUNT];

/* --- counting --- */

static void add(struct cell *cell, uint64_t n)
{
    atomic_fetch_add_explicit(&cell->value, n, memory_order_relaxed);
}

static void set(struct cell *cell, int64_t value)
{
    atomic_store_explicit(&cell->value, value > 0 ? (uint64_t)value : 0, memory_order_relaxed);
}

static uint64_t get(const struct cell *cell)
{
    return atomic_load_explicit(&cell->value, memory_order_relaxed);
}

void metrics_add(enum metric metric, uint64_t n)
{
    ASSERT(metric < METRIC_COUNT);
    add(&cells[metric], n);
}

void metrics_set(enum metric gauge, int64_t value)
{
    ASSERT(gauge < METRIC_COUNT);
    set(&cells[gauge], value);
}

uint64_t metrics_get(enum metric metric)
{
    ASSERT(metric < METRIC_COUNT);
    return get(&cells[metric]);
}

static size_t bucket_of(const struct bounds *b, int64_t value)
{
    size_t bucket = 0;
    while (bucket < b->count && value > b->upper[bucket]) {
        bucket++;
    }
    return bucket;
}

void metrics_observe(enum metric_histogram histogram, int64_t value)
{
    ASSERT(histogram < HISTOGRAM_COUNT);
    struct histogram_cells *h = &histogram_cells[histogram];
    value = value > 0 ? value : 0;
    size_t bucket = bucket_of(&bounds[histogram], value);
    atomic_fetch_add_explicit(&h->counts[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum, (uint64_t)value, memory_order_relaxed);
}

void metrics_sample(enum metric_histogram histogram, struct metrics_sample *out)
{
    ASSERT(histogram < HISTOGRAM_COUNT);
    const struct histogram_cells *h = &histogram_cells[histogram];
    *out = (struct metrics_sample){.sum = atomic_load_explicit(&h->sum, memory_order_relaxed)};
    for (size_t i = 0; i <= bounds[histogram].count; i++) {
        out->counts[i] = atomic_load_explicit(&h->counts[i], memory_order_relaxed);
        out->count += out->counts[i];
    }
}

int64_t metrics_quantile(enum metric_histogram histogram, const struct metrics_sample *before,
                         const struct metrics_sample *after, double share)
{
    const struct bounds *b = &bounds[histogram];
    uint64_t total = after->count - before->count, passed = 0;
    double wanted = share * (double)total;
    if (total == 0) {
        return -1;
    }
    for (size_t i = 0; i < b->count; i++) {
        uint64_t here = after->counts[i] - before->counts[i];
        if (here > 0 && (double)(passed + here) >= wanted) {
            int64_t lower = i > 0 ? b->upper[i - 1] : 0;
            return lower + (int64_t)((double)(b->upper[i] - lower) * (wanted - (double)passed) / (double)here);
        }
        passed += here;
    }
    return b->upper[b->count - 1];
}

int64_t metrics_bucket_bound(enum metric_histogram histogram, int64_t value)
{
    ASSERT(histogram < HISTOGRAM_COUNT);
    const struct bounds *b = &bounds[histogram];
    return value < b->upper[b->count - 1] ? b->upper[bucket_of(b, value)] : -1;
}

/* --- apps --- */

static unsigned find_app(struct slice id, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (slice_equal(slice_of(app_ids[i]), id)) {
            return i;
        }
    }
    return METRICS_MAX_APPS;
}

unsigned metrics_app(struct slice id)
{
    pthread_mutex_lock(&app_lock);
    unsigned count = atomic_load(&app_count), place = find_app(id, count);
    if (place == METRICS_MAX_APPS && count < METRICS_MAX_APPS) {
        app_ids[count] = slice_dup(count < METRICS_MAX_APPS - 1 ? id : SLICE("other"));
        place = app_ids[count] ? count : METRICS_MAX_APPS;
        atomic_store(&app_count, app_ids[count] ? count + 1 : count);
    }
    pthread_mutex_unlock(&app_lock);
    return place < METRICS_MAX_APPS ? place : METRICS_MAX_APPS - 1;
}

void metrics_app_add(unsigned app, enum metric_app metric, uint64_t n)
{
    ASSERT(app < METRICS_MAX_APPS && metric < METRIC_APP_COUNT);
    add(&app_cells[app][metric], n);
}

void metrics_app_set(unsigned app, enum metric_app gauge, int64_t value)
{
    ASSERT(app < METRICS_MAX_APPS && gauge < METRIC_APP_COUNT);
    set(&app_cells[app][gauge], value);
}

uint64_t metrics_app_get(unsigned app, enum metric_app metric)
{
    ASSERT(app < METRICS_MAX_APPS && metric < METRIC_APP_COUNT);
    return get(&app_cells[app][metric]);
}

/* --- the text --- */

static void print_number(struct buf *out, uint64_t value, int64_t scale)
{
    uint64_t whole = value / (uint64_t)scale, rest = value % (uint64_t)scale;
    buf_appendf(out, "%" PRIu64, whole);
    if (rest > 0) {
        int digits = scale == 1000 ? 3 : 6;
        char text[24];
        snprintf(text, sizeof text, ".%0*" PRIu64, digits, rest);
        for (size_t end = strlen(text); text[end - 1] == '0'; end--) {
            text[end - 1] = 0;
        }
        buf_append_text(out, text);
    }
}

/* The text format escapes these three in a label's value. */
static void print_label_value(struct buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\n') {
            buf_append_text(out, "\\n");
        } else if (*text == '"' || *text == '\\') {
            buf_append_char(out, '\\');
            buf_append_char(out, *text);
        } else {
            buf_append_char(out, *text);
        }
    }
}

static void print_head(struct buf *out, const struct family *family)
{
    if (*family->help) {
        buf_appendf(out, "# HELP %s %s\n# TYPE %s %s\n", family->name, family->help, family->name, family->type);
    }
}

static void print_scalar(struct buf *out, size_t i)
{
    const struct family *family = &scalars[i];
    print_head(out, family);
    buf_appendf(out, *family->labels ? "%s{%s} " : "%s%s ", family->name, family->labels);
    print_number(out, get(&cells[i]), family->scale);
    buf_append_char(out, '\n');
}

static void print_histogram(struct buf *out, size_t i)
{
    const struct family *family = &histograms[i];
    struct metrics_sample sample;
    uint64_t below = 0;
    metrics_sample((enum metric_histogram)i, &sample);
    print_head(out, family);
    for (size_t bucket = 0; bucket < bounds[i].count; bucket++) {
        below += sample.counts[bucket];
        buf_appendf(out, "%s_bucket{le=\"", family->name);
        print_number(out, (uint64_t)bounds[i].upper[bucket], family->scale);
        buf_appendf(out, "\"} %" PRIu64 "\n", below);
    }
    buf_appendf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum ", family->name, sample.count, family->name);
    print_number(out, sample.sum, family->scale);
    buf_appendf(out, "\n%s_count %" PRIu64 "\n", family->name, sample.count);
}

static void print_app_series(struct buf *out, size_t i, unsigned app)
{
    const struct family *family = &app_metrics[i];
    buf_appendf(out, "%s{app=\"", family->name);
    print_label_value(out, app_ids[app]);
    buf_appendf(out, *family->labels ? "\",%s} " : "\"%s} ", family->labels);
    print_number(out, get(&app_cells[app][i]), family->scale);
    buf_append_char(out, '\n');
}

static void print_apps(struct buf *out)
{
    unsigned count = atomic_load(&app_count);
    for (size_t i = 0; i < METRIC_APP_COUNT; i++) {
        print_head(out, &app_metrics[i]);
        for (unsigned app = 0; app < count; app++) {
            print_app_series(out, i, app);
        }
    }
}

void metrics_print(struct buf *out)
{
    size_t scalar = 0, histogram = 0;
    for (size_t row = 0; row < sizeof row_is_histogram; row++) {
        if (row_is_histogram[row]) {
            print_histogram(out, histogram++);
        } else {
            print_scalar(out, scalar++);
        }
    }
    print_apps(out);
}
