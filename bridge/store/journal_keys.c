/* keyset: open addressing with linear probing, at most three quarters full; removal shifts back, so there are no tombstones. */
#include "journal_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void keyset_init(struct keyset *set)
{
    *set = (struct keyset){0};
    ASSERT(getrandom(&set->seed, sizeof set->seed, 0) == (ssize_t)sizeof set->seed);
}

void keyset_free(struct keyset *set)
{
    free(set->entries);
    *set = (struct keyset){.seed = set->seed};
}

uint64_t key_hash(const uint8_t key[JOURNAL_KEY_BYTES], uint64_t seed)
{
    uint64_t half[2];
    memcpy(half, key, sizeof half);
    uint64_t mixed = (half[0] ^ seed) * UINT64_C(0x9e3779b97f4a7c15);
    mixed = ((mixed ^ mixed >> 32) + half[1] + seed) * UINT64_C(0xd6e8feb86659fd93);
    return (mixed ^ mixed >> 32) * UINT64_C(0xd6e8feb86659fd93);
}

static size_t home_of(const struct keyset *set, const uint8_t key[JOURNAL_KEY_BYTES])
{
    return (size_t)(key_hash(key, set->seed) >> 32) & (set->capacity - 1);
}

static bool is_free(const struct keyset_entry *entry)
{
    return entry->value == KEYSET_EMPTY;
}

/* The key's entry, or the free one where it would go. The table is never full. */
static struct keyset_entry *slot_of(const struct keyset *set, const uint8_t key[JOURNAL_KEY_BYTES])
{
    size_t at = home_of(set, key);
    while (!is_free(&set->entries[at]) && memcmp(set->entries[at].key, key, JOURNAL_KEY_BYTES) != 0) {
        at = (at + 1) & (set->capacity - 1);
    }
    return &set->entries[at];
}

static bool rebuild(struct keyset *set, size_t capacity)
{
    struct keyset bigger = {.entries = malloc(capacity * sizeof *bigger.entries), .capacity = capacity, .seed = set->seed};
    if (!bigger.entries) {
        return false;
    }
    for (size_t i = 0; i < capacity; i++) {
        bigger.entries[i].value = KEYSET_EMPTY;
    }
    for (size_t i = 0; i < set->capacity; i++) {
        if (!is_free(&set->entries[i])) {
            keyset_put(&bigger, set->entries[i].key, set->entries[i].value);
        }
    }
    free(set->entries);
    *set = bigger;
    return true;
}

bool keyset_reserve(struct keyset *set, size_t more)
{
    size_t need = set->count + more, capacity = set->capacity ? set->capacity : 1024;
    while (need > capacity / 4 * 3) {
        capacity *= 2;
    }
    return capacity == set->capacity || rebuild(set, capacity);
}

struct keyset_entry *keyset_find(const struct keyset *set, const uint8_t key[JOURNAL_KEY_BYTES])
{
    if (set->count == 0) {
        return NULL;
    }
    struct keyset_entry *entry = slot_of(set, key);
    return is_free(entry) ? NULL : entry;
}

void keyset_put(struct keyset *set, const uint8_t key[JOURNAL_KEY_BYTES], int64_t value)
{
    ASSERT(set->count < set->capacity / 4 * 3 && value != KEYSET_EMPTY);
    struct keyset_entry *entry = slot_of(set, key);
    if (is_free(entry)) {
        memcpy(entry->key, key, JOURNAL_KEY_BYTES);
        set->count++;
    }
    entry->value = value;
}

void keyset_remove(struct keyset *set, const uint8_t key[JOURNAL_KEY_BYTES])
{
    struct keyset_entry *entry = keyset_find(set, key);
    if (!entry) {
        return;
    }
    const size_t mask = set->capacity - 1;
    size_t hole = (size_t)(entry - set->entries);
    for (size_t at = (hole + 1) & mask; !is_free(&set->entries[at]); at = (at + 1) & mask) {
        /* An entry may move into the hole if the hole is not before its home. */
        if (((at - home_of(set, set->entries[at].key)) & mask) >= ((at - hole) & mask)) {
            set->entries[hole] = set->entries[at];
            hole = at;
        }
    }
    set->entries[hole].value = KEYSET_EMPTY;
    set->count--;
}
