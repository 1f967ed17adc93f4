/* Marks of the counters each 5 seconds, for rates over 1 and 5 minutes, and what each of the last 60 minutes brought. The
 * counters themselves live elsewhere and only grow; here are differences. */
#include "admin_internal.h"

#include "meowbridge/clock.h"

#include <inttypes.h>
#include <string.h>

enum { MINUTE_MS = 60 * 1000 };

struct history_counts history_count(void)
{
    struct history_counts counts = {.accepted = metrics_get(METRIC_WEBHOOKS_ACCEPTED),
                                    .duplicates = metrics_get(METRIC_WEBHOOKS_DUPLICATE),
                                    .published = metrics_get(METRIC_EVENTS_PUBLISHED),
                                    .dead = metrics_get(METRIC_EVENTS_DEAD)};
    for (int i = METRIC_WEBHOOKS_MALFORMED; i <= METRIC_WEBHOOKS_UNAVAILABLE; i++) {
        counts.refused += metrics_get((enum metric)i);
    }
    return counts;
}

static struct history_counts minus(const struct history_counts *a, const struct history_counts *b)
{
    return (struct history_counts){a->accepted - b->accepted, a->duplicates - b->duplicates, a->refused - b->refused,
                                   a->published - b->published, a->dead - b->dead};
}

static void begin_minute(struct history *h, int64_t wall_ms)
{
    h->begin = h->now;
    h->begin_ms = wall_ms;
    h->pending = 0;
    metrics_sample(HISTOGRAM_EVENT_DELAY, &h->delay);
    metrics_sample(HISTOGRAM_WEBHOOK_DURATION, &h->request);
}

static struct history_minute minute_in_hand(const struct history *h)
{
    static const double delays[] = {0.5, 0.95, 0.99}, requests[] = {0.5, 0.99};
    struct history_minute minute = {
        .start_ms = h->begin_ms, .counts = minus(&h->now.counts, &h->begin.counts), .pending = h->pending};
    struct metrics_sample delay, request;
    metrics_sample(HISTOGRAM_EVENT_DELAY, &delay);
    metrics_sample(HISTOGRAM_WEBHOOK_DURATION, &request);
    for (size_t i = 0; i < 3; i++) {
        minute.delay_us[i] = metrics_quantile(HISTOGRAM_EVENT_DELAY, &h->delay, &delay, delays[i]);
    }
    for (size_t i = 0; i < 2; i++) {
        minute.request_us[i] = metrics_quantile(HISTOGRAM_WEBHOOK_DURATION, &h->request, &request, requests[i]);
    }
    return minute;
}

static void mark(struct history *h)
{
    h->marks[h->mark_next] = h->now;
    h->mark_next = (h->mark_next + 1) % HISTORY_MARKS;
    h->mark_count += h->mark_count < HISTORY_MARKS;
}

void history_init(struct history *h, int64_t mono_ms, int64_t wall_ms)
{
    *h = (struct history){.now = {mono_ms, history_count()}};
    pthread_mutex_init(&h->lock, NULL);
    mark(h);
    begin_minute(h, wall_ms);
}

void history_free(struct history *h)
{
    pthread_mutex_destroy(&h->lock);
}

static const struct history_mark *mark_before(const struct history *h, size_t back)
{
    return &h->marks[(h->mark_next + HISTORY_MARKS - 1 - back) % HISTORY_MARKS];
}

void history_tick(struct history *h, int64_t mono_ms, int64_t wall_ms, uint64_t pending)
{
    pthread_mutex_lock(&h->lock);
    h->now = (struct history_mark){mono_ms, history_count()};
    h->pending = pending > h->pending ? pending : h->pending;
    if (mono_ms - mark_before(h, 0)->mono_ms >= HISTORY_MARK_MS) {
        mark(h);
    }
    if (mono_ms - h->begin.mono_ms >= MINUTE_MS) {
        h->minutes[h->minute_next] = minute_in_hand(h);
        h->minute_next = (h->minute_next + 1) % (HISTORY_MINUTES - 1);
        h->minute_count += h->minute_count < HISTORY_MINUTES - 1;
        begin_minute(h, wall_ms);
    }
    pthread_mutex_unlock(&h->lock);
}

/* The mark that is about so old, or the oldest there is. */
static const struct history_mark *mark_of_age(const struct history *h, int64_t age_ms)
{
    size_t back = 0;
    while (back + 1 < h->mark_count && h->now.mono_ms - mark_before(h, back)->mono_ms < age_ms) {
        back++;
    }
    return mark_before(h, back);
}

static double rate(uint64_t now, uint64_t then, int64_t ms)
{
    return ms > 0 ? (double)(now - then) * 1000 / (double)ms : 0;
}

void history_append_rates(struct history *h, struct buf *out)
{
    static const struct {
        const char *name;
        int64_t ms;
    } spans[] = {{"1m", MINUTE_MS}, {"5m", 5 * MINUTE_MS}};
    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < 2; i++) {
        const struct history_mark *then = mark_of_age(h, spans[i].ms);
        const struct history_counts *a = &h->now.counts, *b = &then->counts;
        int64_t ms = h->now.mono_ms - then->mono_ms;
        buf_appendf(out, "%s\"%s\":{\"accepted\":%.3f,\"duplicates\":%.3f,\"refused\":%.3f,\"published\":%.3f,\"dead\":%.3f}",
                    i > 0 ? "," : "{", spans[i].name, rate(a->accepted, b->accepted, ms),
                    rate(a->duplicates, b->duplicates, ms), rate(a->refused, b->refused, ms),
                    rate(a->published, b->published, ms), rate(a->dead, b->dead, ms));
    }
    buf_append_char(out, '}');
    pthread_mutex_unlock(&h->lock);
}

static void append_seconds(struct buf *out, const char *name, int64_t us)
{
    if (us < 0) {
        buf_appendf(out, "%snull", name);
    } else {
        buf_appendf(out, "%s%" PRId64 ".%06" PRId64, name, us / 1000000, us % 1000000);
    }
}

static void append_minute(struct buf *out, const struct history_minute *minute)
{
    char start[CLOCK_RFC3339_SIZE];
    const struct history_counts *c = &minute->counts;
    clock_rfc3339(minute->start_ms, start);
    buf_appendf(out,
                "{\"start\":\"%s\",\"accepted\":%" PRIu64 ",\"duplicates\":%" PRIu64 ",\"refused\":%" PRIu64
                ",\"published\":%" PRIu64 ",\"dead\":%" PRIu64 ",\"pending\":%" PRIu64,
                start, c->accepted, c->duplicates, c->refused, c->published, c->dead, minute->pending);
    append_seconds(out, ",\"delay\":{\"p50\":", minute->delay_us[0]);
    append_seconds(out, ",\"p95\":", minute->delay_us[1]);
    append_seconds(out, ",\"p99\":", minute->delay_us[2]);
    append_seconds(out, "},\"request\":{\"p50\":", minute->request_us[0]);
    append_seconds(out, ",\"p99\":", minute->request_us[1]);
    buf_append_text(out, "}}");
}

void history_append_minutes(struct history *h, struct buf *out)
{
    const size_t size = HISTORY_MINUTES - 1;
    pthread_mutex_lock(&h->lock);
    buf_append_char(out, '[');
    for (size_t i = 0; i < h->minute_count; i++) {
        append_minute(out, &h->minutes[(h->minute_next + size - h->minute_count + i) % size]);
        buf_append_char(out, ',');
    }
    const struct history_minute last = minute_in_hand(h);
    append_minute(out, &last);
    buf_append_char(out, ']');
    pthread_mutex_unlock(&h->lock);
}
