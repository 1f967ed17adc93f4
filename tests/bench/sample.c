#include "sample.h"

#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_DIGITS = 18, NUMBER_DIGITS = 12, FILLER_STARTS = 4096 };

/* The digits stand as zeros in the texts; these are their places. */
static const char head_text[] =
    "{\"id\":\"000000000000000000\",\"webhookId\":\"1234567\",\"appId\":\"12345\",\"event\":\"workflowTask.completed\","
    "\"objectId\":\"task_000000000000000000\",\"payload\":{\"id\":000000000000000000,"
    "\"completedAt\":\"2026-11-28T10:00:00.123+08:00\",\"totalPrice\":\"1.50\",\"number\":\"000000000000\",\"output\":\"";
static const char tail_text[] = "\",\"again\":\"000000000000\"},\"pushTime\":\"2026-11-28T02:00:00Z\"}";

enum { ID_AT = sizeof "{\"id\":\"" - 1 };

static size_t object_at, payload_id_at, number_at, again_at;

static size_t place_of(const char *text, const char *before)
{
    return (size_t)(strstr(text, before) - text) + strlen(before);
}

static void write_digits(char *at, uint64_t value, int digits)
{
    while (digits-- > 0) {
        at[digits] = (char)('0' + value % 10);
        value /= 10;
    }
}

/* A number that cannot be told from random ones; different n give different ones (each step can be undone). */
static uint64_t scatter(uint64_t n)
{
    const uint64_t mask = (UINT64_C(1) << 58) - 1; /* 2.9e17, so that 18 digits hold it above 1e17 */
    for (int round = 0; round < 3; round++) {
        n = (n * UINT64_C(0x9e3779b97f4a7c15)) & mask;
        n ^= n >> 29;
    }
    return n + UINT64_C(100000000000000000);
}

static uint64_t id_of(const struct samples *samples, uint64_t n)
{
    return samples->is_random ? scatter(samples->first_id + n) : samples->first_id + n;
}

static const char *filler_of(const struct samples *samples, uint64_t n)
{
    return samples->fillers + n * 61 % FILLER_STARTS;
}

static void make_fillers(struct samples *samples)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:/";
    size_t size = samples->filler_bytes + FILLER_STARTS;
    samples->fillers = tool_alloc(size);
    uint64_t x = 88172645463325252;
    for (size_t i = 0; i < size; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        samples->fillers[i] = letters[x % (sizeof letters - 1)];
    }
}

void samples_init(struct samples *samples, size_t body_bytes, uint64_t first_id, bool is_random)
{
    _Static_assert(sizeof head_text <= SAMPLE_HEAD_MAX && sizeof tail_text <= SAMPLE_TAIL_MAX, "the texts must fit");
    *samples = (struct samples){.first_id = first_id, .is_random = is_random, .body_bytes = body_bytes};
    samples->head_bytes = sizeof head_text - 1;
    samples->tail_bytes = sizeof tail_text - 1;
    if (body_bytes < samples->head_bytes + samples->tail_bytes) {
        tool_die("a body has at least %zu bytes", samples->head_bytes + samples->tail_bytes);
    }
    samples->filler_bytes = body_bytes - samples->head_bytes - samples->tail_bytes;
    memcpy(samples->head, head_text, samples->head_bytes);
    memcpy(samples->tail, tail_text, samples->tail_bytes);
    samples->payload_at = place_of(head_text, "\"payload\":");
    samples->payload_tail_bytes = place_of(tail_text, "\"}");
    object_at = place_of(head_text, "task_");
    payload_id_at = place_of(head_text, "{\"id\":0") - 1;
    number_at = place_of(head_text, "\"number\":\"");
    again_at = place_of(tail_text, "\"again\":\"");
    make_fillers(samples);
}

void samples_make_id(const struct samples *samples, uint64_t n, char id[18])
{
    write_digits(id, id_of(samples, n), ID_DIGITS);
}

void samples_make(const struct samples *samples, uint64_t n, struct sample *out)
{
    memcpy(out->head, samples->head, samples->head_bytes);
    memcpy(out->tail, samples->tail, samples->tail_bytes);
    samples_make_id(samples, n, out->head + ID_AT);
    memcpy(out->head + object_at, out->head + ID_AT, ID_DIGITS);
    memcpy(out->head + payload_id_at, out->head + ID_AT, ID_DIGITS);
    write_digits(out->head + number_at, n, NUMBER_DIGITS);
    memcpy(out->tail + again_at, out->head + number_at, NUMBER_DIGITS);
    out->filler = filler_of(samples, n);
}

size_t samples_payload_bytes(const struct samples *samples)
{
    return samples->head_bytes - samples->payload_at + samples->filler_bytes + samples->payload_tail_bytes;
}

static bool read_number(const char *digits, uint64_t *n)
{
    *n = 0;
    for (int i = 0; i < NUMBER_DIGITS; i++) {
        if (digits[i] < '0' || digits[i] > '9') {
            return false;
        }
        *n = *n * 10 + (uint64_t)(digits[i] - '0');
    }
    return true;
}

bool samples_match(const struct samples *samples, const char *payload, size_t size, uint64_t *n)
{
    if (size != samples_payload_bytes(samples) || !read_number(payload + number_at - samples->payload_at, n)) {
        return false;
    }
    struct sample right;
    samples_make(samples, *n, &right);
    size_t head_bytes = samples->head_bytes - samples->payload_at;
    return memcmp(payload, right.head + samples->payload_at, head_bytes) == 0 &&
           memcmp(payload + head_bytes, right.filler, samples->filler_bytes) == 0 &&
           memcmp(payload + head_bytes + samples->filler_bytes, right.tail, samples->payload_tail_bytes) == 0;
}
