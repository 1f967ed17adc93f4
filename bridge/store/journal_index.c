/* The index of keys is a small log-structured merge tree, because a b-tree that is fed keys one by one in random order
 * writes one page a key, and because nothing here may grow in memory with the journal:
 *
 *   fresh   a hash table of the keys behind sealed_upto, not on disk but for their events
 *   sealed  a sorted array of those up to sealed_upto, on its way, piece by piece, into the newest generation
 *   generations on disk, in a b-tree each, of keys of a span of time: a quarter of the retention, or less if they get large
 *
 * A replay brings no key: it is passed over, and reading the keys after a start leaves it out.
 *
 * A key is looked up in that order, newest first; a generation is asked only if the key lies between its lowest and its
 * highest, so ids that grow never touch the disk. A generation whose newest key has outlived the retention is deleted, in
 * pieces.
 *
 * A crash loses fresh and sealed, and a start reads them again from the events behind state.indexed, which moves only when
 * the last piece of sealed is committed. Pieces that were merged before are then merged once more: nothing changes by it. */
#include "journal_index.h"
#include "journal_internal.h"

#include "meowbridge/clock.h"

#include <stdlib.h>
#include <string.h>

enum {
    FRESH_KEYS = 32 * 1024,
    MERGE_KEYS = 2048, /* in one piece, but no more than fit into MERGE_US */
    MERGE_US = 2000,
    GENERATION_PARTS = 4, /* of the retention */
    GENERATION_KEYS = 1024 * 1024,
    GENERATIONS = 64,
};

struct undo {
    uint8_t key[JOURNAL_KEY_BYTES];
    int64_t old; /* KEYSET_EMPTY: there was none */
};

struct index {
    struct db *db;
    int64_t retention_ms;
    size_t max_fresh_bytes;

    struct keyset fresh;
    size_t fresh_bytes;
    uint64_t last_seq; /* of the events whose keys are in fresh */
    bool wants_seal;

    struct keyset_entry *sealed; /* NULL: none */
    size_t sealed_count, merged;
    uint64_t sealed_upto;

    struct db_generation generations[GENERATIONS]; /* oldest first */
    size_t generation_count;
    uint64_t indexed;

    struct undo *undo;
    size_t undo_count, undo_capacity, batch_bytes;
};

/* --- opening --- */

static bool load_key(void *ctx, const uint8_t key[JOURNAL_KEY_BYTES], int64_t kept_ms)
{
    struct index *index = ctx;
    if (!keyset_reserve(&index->fresh, 1)) {
        return false;
    }
    keyset_put(&index->fresh, key, kept_ms);
    return true;
}

enum err index_open(struct index **out, const struct index_options *options, uint64_t indexed, struct error *why)
{
    *out = NULL;
    struct index *index = calloc(1, sizeof *index);
    if (!index) {
        return error_set(why, ERR_MEMORY, "no memory for the journal");
    }
    index->db = options->db;
    index->retention_ms = options->retention_ms;
    index->max_fresh_bytes = options->fresh_bytes;
    index->indexed = indexed;
    keyset_init(&index->fresh);
    int64_t kept_ms;
    enum err code = db_generation_list(index->db, index->generations, GENERATIONS, &index->generation_count, why);
    if (code == ERR_NONE) {
        code = db_event_keys(index->db, indexed, load_key, index, why);
    }
    if (code == ERR_NONE) {
        code = db_event_last(index->db, &index->last_seq, &kept_ms, why);
    }
    if (code != ERR_NONE) {
        index_close(&index);
    }
    *out = index;
    return code;
}

void index_close(struct index **index)
{
    if (*index) {
        keyset_free(&(*index)->fresh);
        free((*index)->sealed);
        free((*index)->undo);
        free(*index);
        *index = NULL;
    }
}

/* --- looking up --- */

static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, JOURNAL_KEY_BYTES);
}

static const struct keyset_entry *find_sealed(const struct index *index, const uint8_t *key)
{
    return index->sealed ? bsearch(key, index->sealed, index->sealed_count, sizeof *index->sealed, compare_keys) : NULL;
}

static bool may_hold(const struct db_generation *generation, const uint8_t *key)
{
    return generation->has_range && compare_keys(key, generation->low) >= 0 && compare_keys(key, generation->high) <= 0;
}

/* The clock is the journal's, which never goes back, so an age is never negative. */
static bool is_valid(const struct index *index, int64_t kept_ms, int64_t now_ms)
{
    return now_ms - kept_ms < index->retention_ms;
}

enum err index_known(struct index *index, const uint8_t key[JOURNAL_KEY_BYTES], int64_t now_ms, bool *known, struct error *why)
{
    const struct keyset_entry *entry = keyset_find(&index->fresh, key);
    if (!entry) {
        entry = find_sealed(index, key);
    }
    *known = entry && is_valid(index, entry->value, now_ms);
    enum err code = ERR_NONE;
    for (size_t i = index->generation_count; i-- > 0 && !entry && !*known && code == ERR_NONE;) {
        if (may_hold(&index->generations[i], key)) {
            bool found;
            int64_t kept_ms;
            code = db_key_find(index->db, index->generations[i].number, key, &found, &kept_ms, why);
            *known = code == ERR_NONE && found && is_valid(index, kept_ms, now_ms);
        }
    }
    return code;
}

/* --- batches --- */

bool index_begin(struct index *index, size_t rows)
{
    if (rows > index->undo_capacity) {
        struct undo *undo = realloc(index->undo, rows * sizeof *undo);
        if (!undo) {
            return false;
        }
        index->undo = undo;
        index->undo_capacity = rows;
    }
    index->undo_count = 0;
    index->batch_bytes = 0;
    return keyset_reserve(&index->fresh, rows);
}

void index_add(struct index *index, const uint8_t key[JOURNAL_KEY_BYTES], int64_t now_ms, size_t bytes)
{
    ASSERT(index->undo_count < index->undo_capacity);
    const struct keyset_entry *entry = keyset_find(&index->fresh, key);
    struct undo *undo = &index->undo[index->undo_count++];
    memcpy(undo->key, key, JOURNAL_KEY_BYTES);
    undo->old = entry ? entry->value : KEYSET_EMPTY;
    keyset_put(&index->fresh, key, now_ms);
    index->batch_bytes += bytes;
}

void index_commit(struct index *index, uint64_t last_seq)
{
    index->undo_count = 0;
    index->fresh_bytes += index->batch_bytes;
    index->last_seq = last_seq;
}

void index_pass(struct index *index, uint64_t last_seq, size_t bytes)
{
    index->fresh_bytes += bytes;
    index->last_seq = last_seq;
}

void index_undo(struct index *index)
{
    while (index->undo_count > 0) {
        const struct undo *undo = &index->undo[--index->undo_count];
        if (undo->old == KEYSET_EMPTY) {
            keyset_remove(&index->fresh, undo->key);
        } else {
            keyset_put(&index->fresh, undo->key, undo->old);
        }
    }
}

/* --- merging --- */

/* Replays bring no keys, and yet index_upto must get past them. */
static bool wants_seal(const struct index *index)
{
    return index->wants_seal && index->last_seq > index->indexed;
}

static bool is_full(const struct index *index)
{
    return index->fresh.count >= FRESH_KEYS || index->fresh_bytes >= index->max_fresh_bytes;
}

/* Without memory it is tried again at the next step. */
static enum err seal(struct index *index, struct error *why)
{
    size_t count = index->fresh.count;
    struct keyset_entry *sealed = malloc((count > 0 ? count : 1) * sizeof *sealed); /* none, where all were replays */
    if (!sealed) {
        return error_set(why, ERR_MEMORY, "no memory for the journal's index");
    }
    size_t n = 0;
    for (size_t i = 0; i < index->fresh.capacity; i++) {
        if (index->fresh.entries[i].value != KEYSET_EMPTY) {
            sealed[n++] = index->fresh.entries[i];
        }
    }
    ASSERT(n == count);
    qsort(sealed, count, sizeof *sealed, compare_keys);
    index->sealed = sealed;
    index->sealed_count = count;
    index->sealed_upto = index->last_seq;
    index->merged = 0;
    keyset_free(&index->fresh);
    index->fresh_bytes = 0;
    index->wants_seal = false;
    return ERR_NONE;
}

/* Few generations make lookups cheap, small ones merging: the limit grows so that their number does not. */
static bool wants_new_generation(const struct index *index, int64_t now_ms)
{
    uint64_t total = 0;
    for (size_t i = 0; i < index->generation_count; i++) {
        total += index->generations[i].keys;
    }
    if (index->generation_count == 0) {
        return true;
    }
    const struct db_generation *newest = &index->generations[index->generation_count - 1];
    uint64_t limit = total / 8 > GENERATION_KEYS ? total / 8 : GENERATION_KEYS;
    return index->generation_count < GENERATIONS &&
           (now_ms - newest->first_ms >= index->retention_ms / GENERATION_PARTS || newest->keys >= limit);
}

static struct db_generation *current_generation(struct index *index, int64_t now_ms)
{
    if (wants_new_generation(index, now_ms)) {
        uint64_t last = index->generation_count > 0 ? index->generations[index->generation_count - 1].number : 0;
        index->generations[index->generation_count++] =
            (struct db_generation){.number = last + 1, .first_ms = now_ms, .last_ms = now_ms};
    }
    return &index->generations[index->generation_count - 1];
}

static void count_in(struct db_generation *generation, const struct keyset_entry *entry)
{
    if (!generation->has_range || compare_keys(entry->key, generation->low) < 0) {
        memcpy(generation->low, entry->key, JOURNAL_KEY_BYTES);
    }
    if (!generation->has_range || compare_keys(entry->key, generation->high) > 0) {
        memcpy(generation->high, entry->key, JOURNAL_KEY_BYTES);
    }
    generation->has_range = true;
    generation->last_ms = entry->value > generation->last_ms ? entry->value : generation->last_ms;
    generation->keys++;
}

static enum err merge_piece(struct index *index, struct db_generation *generation, size_t *merged, struct error *why)
{
    const int64_t until_us = clock_mono_us() + MERGE_US;
    const size_t last = index->sealed_count - *merged > MERGE_KEYS ? *merged + MERGE_KEYS : index->sealed_count;
    enum err code = ERR_NONE;
    while (*merged < last && code == ERR_NONE && (*merged % 16 != 0 || clock_mono_us() < until_us)) {
        const struct keyset_entry *entry = &index->sealed[(*merged)++];
        code = db_key_put(index->db, generation->number, entry->key, entry->value, why);
        count_in(generation, entry);
    }
    if (code == ERR_NONE) {
        code = db_generation_put(index->db, generation, why);
    }
    if (code == ERR_NONE && *merged == index->sealed_count) {
        code = db_indexed_write(index->db, index->sealed_upto, why);
    }
    return code;
}

static enum err merge(struct index *index, int64_t now_ms, struct error *why)
{
    struct db_generation *generation = current_generation(index, now_ms);
    struct db_generation changed = *generation;
    size_t merged = index->merged;
    enum err code = db_begin(index->db, DB_LAZY, why);
    if (code == ERR_NONE) {
        code = merge_piece(index, &changed, &merged, why);
    }
    if (code == ERR_NONE) {
        code = db_commit(index->db, why);
    }
    if (code != ERR_NONE) {
        db_rollback(index->db);
        return code;
    }
    *generation = changed;
    index->merged = merged;
    if (merged == index->sealed_count) {
        free(index->sealed);
        index->sealed = NULL;
        index->sealed_count = 0;
        index->indexed = index->sealed_upto;
    }
    return ERR_NONE;
}

/* --- dropping --- */

static bool oldest_is_over(const struct index *index, int64_t now_ms)
{
    return index->generation_count > 0 && !is_valid(index, index->generations[0].last_ms, now_ms);
}

static enum err drop_piece(struct index *index, bool *empty, struct error *why)
{
    enum err code = db_begin(index->db, DB_LAZY, why);
    if (code == ERR_NONE) {
        code = db_key_trim(index->db, index->generations[0].number, empty, why);
    }
    if (code == ERR_NONE && *empty) {
        code = db_generation_delete(index->db, index->generations[0].number, why);
    }
    if (code == ERR_NONE) {
        code = db_commit(index->db, why);
    }
    if (code != ERR_NONE) {
        db_rollback(index->db);
    }
    return code;
}

static enum err drop(struct index *index, struct error *why)
{
    bool empty;
    enum err code = drop_piece(index, &empty, why);
    if (code == ERR_NONE && empty) {
        index->generation_count--;
        memmove(&index->generations[0], &index->generations[1], index->generation_count * sizeof index->generations[0]);
    }
    return code;
}

/* --- upkeep --- */

bool index_has_work(const struct index *index, int64_t now_ms)
{
    return index->sealed || is_full(index) || wants_seal(index) || oldest_is_over(index, now_ms);
}

enum err index_step(struct index *index, int64_t now_ms, struct error *why)
{
    if (index->sealed) {
        return merge(index, now_ms, why);
    }
    if (is_full(index) || wants_seal(index)) {
        return seal(index, why);
    }
    return oldest_is_over(index, now_ms) ? drop(index, why) : ERR_NONE;
}

uint64_t index_upto(const struct index *index)
{
    return index->indexed;
}

void index_seal(struct index *index)
{
    index->wants_seal = true;
}

bool index_is_behind(const struct index *index)
{
    return index->sealed && is_full(index);
}

bool index_is_stuck(const struct index *index)
{
    return index->sealed && index->fresh.count >= 2 * (size_t)FRESH_KEYS;
}
