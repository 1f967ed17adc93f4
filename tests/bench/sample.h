/* sample: the events of a measurement. Both ends can make the whole of event n from its number alone, so the receiving end
 * compares every byte of every payload without having been told any. They look as MeowFlow's do: ids of 18 digits, as text and
 * as a number that exceeds 2^53.
 *
 *   {"id":…,…,"payload":{…,"number":"000000000042","output":"  |  filler  |  ","again":"000000000042"},"pushTime":…}
 *   └───────────────────────── head ──────────────────────────┘            └─────────────────── tail ───────────────┘
 *
 * The filler is a piece of one long text that all events share; where it begins depends on n. */
#ifndef MEOWBRIDGE_BENCH_SAMPLE_H
#define MEOWBRIDGE_BENCH_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SAMPLE_HEAD_MAX 600
#define SAMPLE_TAIL_MAX 120
#define SAMPLE_SECRET "meow-secret-0123456789abcdef"
#define SAMPLE_TOPIC "meowflow/workflowTask/completed"

struct samples {
    uint64_t first_id; /* event n has the id first_id + n … */
    bool is_random;    /* … or one of 18 digits that no order is seen in, different for each n */
    size_t body_bytes; /* of the whole request body */
    char head[SAMPLE_HEAD_MAX], tail[SAMPLE_TAIL_MAX];
    size_t head_bytes, tail_bytes, filler_bytes;
    size_t payload_at, payload_tail_bytes; /* where the payload begins in head, and how much of tail is its */
    char *fillers;
};

/* One event, its three parts. */
struct sample {
    char head[SAMPLE_HEAD_MAX], tail[SAMPLE_TAIL_MAX];
    const char *filler;
};

/* Ends the process with a message if body_bytes leaves no room for the fields. */
void samples_init(struct samples *samples, size_t body_bytes, uint64_t first_id, bool is_random);
void samples_make(const struct samples *samples, uint64_t n, struct sample *out);
void samples_make_id(const struct samples *samples, uint64_t n, char id[18]);

size_t samples_payload_bytes(const struct samples *samples);
/* True if these bytes are the payload of an event, to the last byte; *n is its number. */
bool samples_match(const struct samples *samples, const char *payload, size_t size, uint64_t *n);

#endif
