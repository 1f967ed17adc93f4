/* send_plan: what `meowbridge send` computes: ids, when to send, what to send, and how long it took. Pure; internal to it. */
#ifndef MEOWBRIDGE_SEND_PLAN_H
#define MEOWBRIDGE_SEND_PLAN_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- ids: 18 digits like MeowFlow's, growing within a run and, with the clock, from run to run ---- */

enum { SEND_ID_DIGITS = 18 };

/* 13 digits of milliseconds, 2 that tell processes apart, 3 that count within the millisecond. */
struct send_ids {
    atomic_int_least64_t last; /* milliseconds * 1000 + count */
    unsigned shard;            /* 0 to 99 */
};
/* The next id; it is later than the one before although the clock may stand still or step back. Any thread. */
uint64_t send_ids_next(struct send_ids *ids, int64_t wall_ms);

/* ---- time ---- */

/* "0.5", "2000": events a second, 0.001 to 1,000,000. ERR_INVALID with what was expected. */
MUST_CHECK enum err send_parse_rate(struct slice text, double *rate, struct error *why);
/* When event number index (from 0) is due, counted from the start; 0 without a rate. */
int64_t send_due_us(double rate, uint64_t index);
/* How long MeowFlow waits before a retry (from 1): 0.2 s, then twice as long each time, 5 s at most. */
int64_t send_backoff_ms(unsigned retry);

/* ---- the event ---- */

/* A request body with holes of fixed width, so that the next event costs a few copies. One thread. */
struct send_template {
    struct buf text;
    size_t ids[8]; /* where an id goes, */
    size_t id_count;
    size_t push_time; /* and the push time */
};
/* payload: put in byte for byte; an empty one means a workflowTask.completed detail, made at wall_ms. ERR_MEMORY, ERR_FULL.
 * send_template_free in either case. */
MUST_CHECK enum err send_template_init(struct send_template *t, struct slice app_id, struct slice event, struct slice payload,
                                       int64_t wall_ms, struct error *why);
void send_template_free(struct send_template *t);
/* The body of the event with this id, pushed now; valid until the next call. */
struct slice send_template_fill(struct send_template *t, uint64_t id, int64_t wall_ms);

/* ---- latencies ---- */

/* Counts by value in microseconds: exact below 64, then 32 buckets for each power of two (3 % at most), to 2^40 us (12 days). */
enum { HISTOGRAM_EXACT = 64, HISTOGRAM_STEPS = 32, HISTOGRAM_BUCKETS = HISTOGRAM_EXACT + (40 - 6) * HISTOGRAM_STEPS };
struct histogram {
    uint64_t count, max_us;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};
void histogram_add(struct histogram *h, int64_t us);
void histogram_merge(struct histogram *into, const struct histogram *from);
/* The value that this share (0 to 1) of all values does not exceed, rounded up to its bucket's end; 0 if there are none. */
uint64_t histogram_quantile(const struct histogram *h, double share);

#endif
