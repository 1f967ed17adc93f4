/* The index of keys is a log-structured merge tree, because a b-tree that is fed keys in random order writes one page a key, and
 * because nothing here may grow in memory with the journal:
 *
 *   fresh   a hash table of the keys behind sealed_upto, not on disk but for their events
 *   sealed  a sorted array of those up to sealed_upto, on its way, piece by piece, into a run of level 0
 *   runs    on disk, sorted, never changed (journal_run.h); FAN runs of a level are merged, piece by piece, into one of the next
 *
 * So a key is written once a level, with its neighbours, and there are fewer than FAN idle runs a level. A lookup asks the runs
 * that the key may be in: those whose span of keys holds it, so ids that grow touch none, and whose filter passes it. Merging
 * leaves out keys that have outlived the retention; a run whose youngest key has done so is dropped whole.
 * A replay brings no key: it is passed over, and reading the keys after a start leaves it out.
 *
 * A crash loses fresh and sealed, and a start reads them again from the events behind state.indexed, which moves only when the
 * run of sealed is whole. Runs that were being written are dropped. */
#include "journal_index.h"

#include "meowbridge/clock.h"

#include <stdlib.h>
#include <string.h>

enum {
    FAN = 8,
    LEVELS = 8, /* the last one merges into itself */
    RUNS = LEVELS * 2 * FAN,
    STEP_KEYS = 4096, /* in one piece, but no more than fit into STEP_US */
    STEP_US = 2000,
};

struct undo {
    uint8_t key[JOURNAL_KEY_BYTES];
    int64_t old; /* KEYSET_EMPTY: there was none */
};

/* A run that is read from its first key to its last. */
struct input {
    struct run *run;
    size_t number; /* of the page */
    size_t at;     /* in it; the page's count when the run is at its end */
    struct run_page page;
};

struct merge {
    struct run_writer *writer; /* NULL before the first step */
    struct input inputs[FAN];
};

struct index {
    struct db *db;
    struct index_options options;

    struct keyset fresh;
    size_t fresh_bytes;
    uint64_t last_seq; /* of the events whose keys are in fresh */
    bool wants_seal;

    struct keyset_entry *sealed; /* NULL: none */
    size_t sealed_count, sealed_at;
    uint64_t sealed_upto;
    struct run_writer *sealed_writer; /* NULL before the first piece */

    struct run *runs[RUNS]; /* live ones and those to be dropped; oldest first */
    size_t run_count;
    uint64_t next_number;
    struct merge *merges[LEVELS]; /* of runs of that level */
    uint64_t indexed;

    /* What upkeep there is for runs; kept by survey. */
    int merge_level; /* the lowest one with a merge to go on with, or to begin; -1: none */
    bool has_drop;
    int64_t oldest_ms; /* of the live runs' youngest keys; INT64_MAX: none */

    struct undo *undo;
    size_t undo_count, undo_capacity, batch_bytes;
    struct run_page scratch;
};

/* --- opening --- */

static size_t idle_runs(const struct index *index, unsigned level)
{
    size_t count = 0;
    for (size_t i = 0; i < index->run_count; i++) {
        const struct run *run = index->runs[i];
        count += run->facts.state == RUN_LIVE && run->facts.level == level && !run->is_input;
    }
    return count;
}

static void survey(struct index *index)
{
    index->merge_level = -1;
    for (unsigned level = LEVELS; level-- > 0;) {
        if (index->merges[level] || idle_runs(index, level) >= FAN) {
            index->merge_level = (int)level;
        }
    }
    index->has_drop = false;
    index->oldest_ms = INT64_MAX;
    for (size_t i = 0; i < index->run_count; i++) {
        const struct run *run = index->runs[i];
        index->has_drop |= run->facts.state == RUN_DROPPING;
        if (run->facts.state == RUN_LIVE && !run->is_input && run->facts.last_ms < index->oldest_ms) {
            index->oldest_ms = run->facts.last_ms;
        }
    }
}

static void add_run(struct index *index, struct run *run)
{
    ASSERT(index->run_count < RUNS);
    index->runs[index->run_count++] = run;
}

/* What was being written when the last bridge ended is of no use. */
static enum err load_runs(struct index *index, struct error *why)
{
    struct db_run facts[RUNS];
    size_t count;
    enum err code = db_run_list(index->db, facts, RUNS, &count, why);
    for (size_t i = 0; i < count && code == ERR_NONE; i++) {
        struct run *run;
        if (facts[i].state == RUN_BUILDING) {
            facts[i].state = RUN_DROPPING;
        }
        code = run_load(&run, index->db, &facts[i], why);
        if (code == ERR_NONE) {
            add_run(index, run);
            index->next_number = facts[i].number + 1;
        }
    }
    survey(index);
    return code;
}

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
    index->options = *options;
    index->indexed = indexed;
    index->next_number = 1;
    keyset_init(&index->fresh);
    int64_t kept_ms;
    enum err code = load_runs(index, why);
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

static void free_writer(struct run_writer **writer)
{
    if (*writer) {
        run_free(run_writer_close(writer, false));
    }
}

void index_close(struct index **index)
{
    struct index *i = *index;
    if (i) {
        free_writer(&i->sealed_writer);
        for (size_t n = 0; n < LEVELS; n++) {
            if (i->merges[n]) {
                free_writer(&i->merges[n]->writer);
                free(i->merges[n]);
            }
        }
        for (size_t n = 0; n < i->run_count; n++) {
            run_free(i->runs[n]);
        }
        keyset_free(&i->fresh);
        free(i->sealed);
        free(i->undo);
        free(i);
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

/* The clock is the journal's, which never goes back, so an age is never negative. */
static bool is_valid(const struct index *index, int64_t kept_ms, int64_t now_ms)
{
    return now_ms - kept_ms < index->options.retention_ms;
}

enum err index_known(struct index *index, const uint8_t key[JOURNAL_KEY_BYTES], int64_t now_ms, bool *known, struct error *why)
{
    const struct keyset_entry *entry = keyset_find(&index->fresh, key);
    if (!entry) {
        entry = find_sealed(index, key);
    }
    *known = entry && is_valid(index, entry->value, now_ms);
    enum err code = ERR_NONE;
    for (size_t i = index->run_count; i-- > 0 && !*known && code == ERR_NONE;) {
        int64_t kept_ms;
        code = run_find(index->runs[i], index->db, key, &index->scratch, &kept_ms, why);
        *known = code == ERR_NONE && kept_ms != KEYSET_EMPTY && is_valid(index, kept_ms, now_ms);
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

/* --- upkeep: each piece is a transaction --- */

struct piece {
    int64_t now_ms, until_us;
    size_t keys;
};

static bool goes_on(const struct piece *piece)
{
    return piece->keys < STEP_KEYS && (piece->keys % 64 != 0 || clock_mono_us() < piece->until_us);
}

/* body has changed nothing but the database and its writer when it fails. */
static enum err transact(struct index *index, enum err (*body)(struct index *index, void *ctx, struct error *why), void *ctx,
                         struct error *why)
{
    enum err code = db_begin(index->db, DB_LAZY, why);
    if (code == ERR_NONE) {
        code = body(index, ctx, why);
    }
    if (code == ERR_NONE) {
        code = db_commit(index->db, why);
    }
    if (code != ERR_NONE) {
        db_rollback(index->db);
    }
    return code;
}

/* The writer's run joins the others: live if it is whole and committed, to be dropped if not. */
static void take_run(struct index *index, struct run_writer **writer, bool is_good)
{
    if (*writer) {
        add_run(index, run_writer_close(writer, is_good));
    }
}

static enum err add_key(const struct index *index, struct run_writer *writer, const struct keyset_entry *entry,
                        struct piece *piece, struct error *why)
{
    piece->keys++;
    return is_valid(index, entry->value, piece->now_ms) ? run_writer_add(writer, entry, why) : ERR_NONE;
}

static enum err open_writer(struct index *index, struct run_writer **writer, unsigned level, uint64_t max_keys,
                            struct error *why)
{
    return *writer ? ERR_NONE
                   : run_writer_open(writer, index->db, index->next_number++, level, max_keys, index->options.limits, why);
}

/* --- from fresh to a run of level 0 --- */

static bool is_full(const struct index *index)
{
    return index->fresh.count >= index->options.fresh_keys || index->fresh_bytes >= index->options.fresh_bytes;
}

/* Replays bring no keys, and yet index_upto must get past them. */
static bool wants_seal(const struct index *index)
{
    return !index->sealed && (is_full(index) || (index->wants_seal && index->last_seq > index->indexed));
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
    index->sealed_at = 0;
    keyset_free(&index->fresh);
    index->fresh_bytes = 0;
    index->wants_seal = false;
    return ERR_NONE;
}

static enum err write_sealed(struct index *index, void *ctx, struct error *why)
{
    struct piece *piece = ctx;
    enum err code = open_writer(index, &index->sealed_writer, 0, index->sealed_count, why);
    while (code == ERR_NONE && index->sealed_at < index->sealed_count && goes_on(piece)) {
        code = add_key(index, index->sealed_writer, &index->sealed[index->sealed_at++], piece, why);
    }
    if (code == ERR_NONE && index->sealed_at == index->sealed_count) {
        code = run_writer_finish(index->sealed_writer, why);
        code = code == ERR_NONE ? db_indexed_write(index->db, index->sealed_upto, why) : code;
    }
    return code;
}

static enum err step_sealed(struct index *index, struct piece *piece, struct error *why)
{
    enum err code = transact(index, write_sealed, piece, why);
    if (code != ERR_NONE) { /* from the start, into another run */
        take_run(index, &index->sealed_writer, false);
        index->sealed_at = 0;
    } else if (index->sealed_at == index->sealed_count) {
        take_run(index, &index->sealed_writer, true);
        free(index->sealed);
        index->sealed = NULL;
        index->sealed_count = 0;
        index->indexed = index->sealed_upto;
    }
    return code;
}

/* --- from the runs of a level to one of the next --- */

static enum err begin_merge(struct index *index, unsigned level, struct error *why)
{
    struct merge *merge = calloc(1, sizeof *merge);
    if (!merge) {
        return error_set(why, ERR_MEMORY, "no memory for the journal's index");
    }
    size_t count = 0;
    for (size_t i = 0; i < index->run_count && count < FAN; i++) {
        struct run *run = index->runs[i];
        if (run->facts.state == RUN_LIVE && run->facts.level == level && !run->is_input) {
            run->is_input = true;
            merge->inputs[count++].run = run;
        }
    }
    ASSERT(count == FAN);
    index->merges[level] = merge;
    return ERR_NONE;
}

static bool is_at_end(const struct input *input)
{
    return input->at == input->page.count;
}

static enum err next_page(const struct index *index, struct input *input, struct error *why)
{
    input->at = input->page.count = 0;
    return input->number < input->run->facts.pages ? run_page_read(input->run, index->db, input->number++, &input->page, why)
                                                   : ERR_NONE;
}

static enum err advance(const struct index *index, struct input *input, struct error *why)
{
    return ++input->at == input->page.count ? next_page(index, input, why) : ERR_NONE;
}

/* The lowest key of all inputs, which move on: with the time it was kept last. False if all are at their end. */
static enum err next_key(const struct index *index, struct merge *merge, struct keyset_entry *out, bool *found,
                         struct error *why)
{
    const struct keyset_entry *lowest = NULL;
    for (size_t i = 0; i < FAN; i++) {
        const struct input *input = &merge->inputs[i];
        const struct keyset_entry *entry = is_at_end(input) ? NULL : &input->page.entries[input->at];
        if (entry && (!lowest || compare_keys(entry->key, lowest->key) < 0)) {
            lowest = entry;
        }
    }
    *found = lowest != NULL;
    if (!lowest) {
        return ERR_NONE;
    }
    *out = *lowest;
    enum err code = ERR_NONE;
    for (size_t i = 0; i < FAN && code == ERR_NONE; i++) {
        struct input *input = &merge->inputs[i];
        const struct keyset_entry *entry = is_at_end(input) ? NULL : &input->page.entries[input->at];
        if (entry && compare_keys(entry->key, out->key) == 0) {
            out->value = entry->value > out->value ? entry->value : out->value;
            code = advance(index, input, why);
        }
    }
    return code;
}

static enum err open_merge(struct index *index, struct merge *merge, unsigned level, struct error *why)
{
    uint64_t max_keys = 0;
    enum err code = ERR_NONE;
    for (size_t i = 0; i < FAN && code == ERR_NONE; i++) {
        max_keys += merge->inputs[i].run->facts.keys;
        code = next_page(index, &merge->inputs[i], why);
    }
    return code == ERR_NONE ? open_writer(index, &merge->writer, level, max_keys, why) : code;
}

static enum err finish_merge(const struct index *index, struct merge *merge, struct error *why)
{
    enum err code = run_writer_finish(merge->writer, why);
    for (size_t i = 0; i < FAN && code == ERR_NONE; i++) {
        struct db_run facts = merge->inputs[i].run->facts;
        facts.state = RUN_DROPPING;
        code = db_run_put(index->db, &facts, why);
    }
    return code;
}

struct merge_piece {
    struct piece piece;
    unsigned level;
    bool is_done;
};

static enum err write_merge(struct index *index, void *ctx, struct error *why)
{
    struct merge_piece *step = ctx;
    struct merge *merge = index->merges[step->level];
    const unsigned into = step->level + 1 < LEVELS ? step->level + 1 : step->level;
    enum err code = merge->writer ? ERR_NONE : open_merge(index, merge, into, why);
    while (code == ERR_NONE && !step->is_done && goes_on(&step->piece)) {
        struct keyset_entry entry;
        bool found;
        code = next_key(index, merge, &entry, &found, why);
        step->is_done = code == ERR_NONE && !found;
        if (code == ERR_NONE && found) {
            code = add_key(index, merge->writer, &entry, &step->piece, why);
        }
    }
    return code == ERR_NONE && step->is_done ? finish_merge(index, merge, why) : code;
}

static enum err step_merge(struct index *index, const struct piece *piece, struct error *why)
{
    struct merge_piece step = {*piece, (unsigned)index->merge_level, false};
    enum err code = index->merges[step.level] ? ERR_NONE : begin_merge(index, step.level, why);
    if (code != ERR_NONE) {
        return code;
    }
    struct merge *merge = index->merges[step.level];
    code = transact(index, write_merge, &step, why);
    if (code != ERR_NONE || step.is_done) {
        const bool is_good = code == ERR_NONE;
        for (size_t i = 0; i < FAN; i++) {
            merge->inputs[i].run->is_input = false;
            if (is_good) {
                run_forget(merge->inputs[i].run);
            }
        }
        take_run(index, &merge->writer, is_good);
        index->merges[step.level] = NULL;
        free(merge);
    }
    return code;
}

/* --- dropping --- */

static bool oldest_is_over(const struct index *index, int64_t now_ms)
{
    return index->oldest_ms != INT64_MAX && !is_valid(index, index->oldest_ms, now_ms);
}

static enum err mark_over(struct index *index, void *ctx, struct error *why)
{
    struct run *run = ctx;
    struct db_run facts = run->facts;
    facts.state = RUN_DROPPING;
    return db_run_put(index->db, &facts, why);
}

static enum err step_over(struct index *index, struct error *why)
{
    enum err code = ERR_NONE;
    for (size_t i = 0; i < index->run_count && code == ERR_NONE; i++) {
        struct run *run = index->runs[i];
        if (run->facts.state == RUN_LIVE && !run->is_input && run->facts.last_ms == index->oldest_ms) {
            code = transact(index, mark_over, run, why);
            if (code == ERR_NONE) {
                run_forget(run);
            }
        }
    }
    return code;
}

struct drop_piece {
    uint64_t number;
    bool is_empty;
};

static enum err delete_pages(struct index *index, void *ctx, struct error *why)
{
    struct drop_piece *drop = ctx;
    enum err code = db_pages_trim(index->db, drop->number, &drop->is_empty, why);
    return code == ERR_NONE && drop->is_empty ? db_run_delete(index->db, drop->number, why) : code;
}

static enum err step_drop(struct index *index, struct error *why)
{
    size_t at = 0;
    while (index->runs[at]->facts.state != RUN_DROPPING) {
        at++;
    }
    struct drop_piece drop = {.number = index->runs[at]->facts.number};
    enum err code = transact(index, delete_pages, &drop, why);
    if (code == ERR_NONE && drop.is_empty) {
        run_free(index->runs[at]);
        index->run_count--;
        memmove(&index->runs[at], &index->runs[at + 1], (index->run_count - at) * sizeof index->runs[0]);
    }
    return code;
}

/* --- the next piece --- */

bool index_has_work(const struct index *index, int64_t now_ms)
{
    return index->sealed || wants_seal(index) || index->has_drop || index->merge_level >= 0 || oldest_is_over(index, now_ms);
}

enum err index_step(struct index *index, int64_t now_ms, struct error *why)
{
    struct piece piece = {.now_ms = now_ms, .until_us = clock_mono_us() + STEP_US};
    enum err code = ERR_NONE;
    if (wants_seal(index)) {
        return seal(index, why);
    }
    if (index->has_drop) { /* first, so that room is kept for runs */
        code = step_drop(index, why);
    } else if (index->sealed) {
        code = step_sealed(index, &piece, why);
    } else if (index->merge_level >= 0) {
        code = step_merge(index, &piece, why);
    } else if (oldest_is_over(index, now_ms)) {
        code = step_over(index, why);
    }
    survey(index);
    return code;
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

/* With so many runs there is one to drop or to merge: fewer than FAN idle ones a level would be half as many. */
bool index_is_stuck(const struct index *index)
{
    return (index->sealed && index->fresh.count >= 2 * index->options.fresh_keys) || index->run_count >= RUNS - 2 * FAN;
}
