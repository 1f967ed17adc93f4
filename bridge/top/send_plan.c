#include "send_plan.h"

#include "meowbridge/clock.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BODY = 65 * 1024 * 1024, PUSH_TIME_SIZE = 20, BACKOFF_FIRST_MS = 200, BACKOFF_MAX_MS = 5000 };

uint64_t send_ids_next(struct send_ids *ids, int64_t wall_ms)
{
    int64_t last = atomic_load(&ids->last), next;
    do {
        next = last + 1 > wall_ms * 1000 ? last + 1 : wall_ms * 1000;
    } while (!atomic_compare_exchange_weak(&ids->last, &last, next));
    return (uint64_t)(next / 1000) * 100000 + ids->shard * 1000 + (uint64_t)(next % 1000);
}

enum err send_parse_rate(struct slice text, double *rate, struct error *why)
{
    char copy[32], *end = copy;
    bool is_plain = text.size > 0 && text.size < sizeof copy;
    for (size_t i = 0; is_plain && i < text.size; i++) {
        is_plain = (text.data[i] >= '0' && text.data[i] <= '9') || text.data[i] == '.'; /* no sign, no exponent, no "nan" */
    }
    if (is_plain) {
        memcpy(copy, text.data, text.size);
        copy[text.size] = 0;
        *rate = strtod(copy, &end);
    }
    if (!is_plain || end == copy || *end || *rate < 0.001 || *rate > 1000000) {
        return error_set(why, ERR_INVALID, "is a number of events a second from 0.001 to 1000000, not \"%.*s\"",
                         SLICE_ARGS(text));
    }
    return ERR_NONE;
}

int64_t send_due_us(double rate, uint64_t index)
{
    return rate > 0 ? (int64_t)((double)index * 1e6 / rate) : 0;
}

int64_t send_backoff_ms(unsigned retry)
{
    int64_t wait_ms = BACKOFF_FIRST_MS;
    for (unsigned i = 1; i < retry && wait_ms < BACKOFF_MAX_MS; i++) {
        wait_ms *= 2;
    }
    return wait_ms < BACKOFF_MAX_MS ? wait_ms : BACKOFF_MAX_MS;
}

/* Leaves room for an id and remembers where. */
static void add_id(struct send_template *t)
{
    ASSERT(t->id_count < sizeof t->ids / sizeof t->ids[0]);
    t->ids[t->id_count++] = t->text.size;
    buf_append_text(&t->text, "000000000000000000");
}

static void add_member(struct send_template *t, const char *before, struct slice value)
{
    buf_append_text(&t->text, before);
    buf_append_json_string(&t->text, value);
}

/* "2024-08-31T20:00:00.123+08:00", as MeowFlow writes the times of a task. */
static void add_time(struct send_template *t, const char *before, int64_t wall_ms)
{
    char utc[CLOCK_RFC3339_SIZE];
    clock_rfc3339(wall_ms + 8 * 3600 * 1000, utc);
    buf_appendf(&t->text, "%s\"%.23s+08:00\"", before, utc);
}

/* The detail of a task that ended just now, as in meowflow.md: 18-digit ids as numbers, the price a decimal in a string. */
static void add_completed_task(struct send_template *t, int64_t wall_ms)
{
    buf_append_text(&t->text, "{\"id\":");
    add_id(t);
    add_time(t, ",\"createdAt\":", wall_ms - 9400);
    add_time(t, ",\"updatedAt\":", wall_ms);
    buf_append_text(&t->text, ",\"customId\":\"order-");
    add_id(t);
    buf_append_text(&t->text, "\",\"workflowId\":152066840347062275,\"viewStatus\":2,\"reason\":\"\"");
    add_time(t, ",\"startExecutionAt\":", wall_ms - 8200);
    add_time(t, ",\"completedAt\":", wall_ms);
    buf_append_text(&t->text,
                    ",\"duration\":8200,\"totalPrice\":\"0.0420\",\"currency\":\"CNY\",\"processOutputs\":{\"images\":[{"
                    "\"url\":\"https://cdn.example.com/outputs/");
    add_id(t);
    buf_append_text(&t->text, ".png\",\"width\":1024,\"height\":768}],\"caption\":\"\xe7\x8c\xab on a \\\"roof\\\"\"}}");
}

enum err send_template_init(struct send_template *t, struct slice app_id, struct slice event, struct slice payload,
                            int64_t wall_ms, struct error *why)
{
    *t = (struct send_template){0};
    buf_init(&t->text, MAX_BODY);
    buf_append_text(&t->text, "{\"id\":\"");
    add_id(t);
    add_member(t, "\",\"webhookId\":\"152066840347000001\",\"appId\":", app_id);
    add_member(t, ",\"event\":", event);
    buf_append_text(&t->text, ",\"objectId\":\"task_");
    add_id(t);
    buf_append_text(&t->text, "\",\"payload\":");
    if (payload.size > 0) {
        buf_append(&t->text, payload);
    } else {
        add_completed_task(t, wall_ms);
    }
    buf_append_text(&t->text, ",\"pushTime\":\"");
    t->push_time = t->text.size;
    buf_append_text(&t->text, "0000-00-00T00:00:00Z\"}");
    if (!t->text.failed) {
        return ERR_NONE;
    }
    return payload.size < MAX_BODY / 2 ? error_set(why, ERR_MEMORY, "out of memory")
                                       : error_set(why, ERR_FULL, "the payload is too large");
}

void send_template_free(struct send_template *t)
{
    buf_free(&t->text);
}

struct slice send_template_fill(struct send_template *t, uint64_t id, int64_t wall_ms)
{
    char digits[SEND_ID_DIGITS], time[CLOCK_RFC3339_SIZE];
    for (size_t i = SEND_ID_DIGITS; i-- > 0; id /= 10) {
        digits[i] = (char)('0' + id % 10);
    }
    for (size_t i = 0; i < t->id_count; i++) {
        memcpy(t->text.data + t->ids[i], digits, sizeof digits);
    }
    clock_rfc3339(wall_ms, time);
    memcpy(t->text.data + t->push_time, time, PUSH_TIME_SIZE - 1); /* up to the seconds; the Z stands there */
    return buf_slice(&t->text);
}

static size_t bucket_of(uint64_t us)
{
    if (us < HISTOGRAM_EXACT) {
        return us;
    }
    unsigned power = 63 - (unsigned)__builtin_clzll(us); /* 6 and up: 2^power <= us */
    size_t bucket = HISTOGRAM_EXACT + (power - 6) * HISTOGRAM_STEPS + ((us >> (power - 5)) & (HISTOGRAM_STEPS - 1));
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_end(size_t bucket)
{
    if (bucket < HISTOGRAM_EXACT) {
        return bucket;
    }
    size_t power = 6 + (bucket - HISTOGRAM_EXACT) / HISTOGRAM_STEPS, step = (bucket - HISTOGRAM_EXACT) % HISTOGRAM_STEPS;
    return (((uint64_t)HISTOGRAM_STEPS + step + 1) << (power - 5)) - 1;
}

void histogram_add(struct histogram *h, int64_t us)
{
    uint64_t value = us > 0 ? (uint64_t)us : 0;
    h->buckets[bucket_of(value)]++;
    h->count++;
    h->max_us = value > h->max_us ? value : h->max_us;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        into->buckets[i] += from->buckets[i];
    }
    into->count += from->count;
    into->max_us = from->max_us > into->max_us ? from->max_us : into->max_us;
}

uint64_t histogram_quantile(const struct histogram *h, double share)
{
    double exact = share * (double)h->count;
    uint64_t wanted = (uint64_t)exact, seen = 0;
    wanted += wanted == 0 || (double)wanted < exact;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS && h->count > 0; i++) {
        seen += h->buckets[i];
        if (seen >= wanted) {
            uint64_t end = bucket_end(i);
            return end < h->max_us ? end : h->max_us;
        }
    }
    return h->max_us;
}
