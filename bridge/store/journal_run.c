#include "journal_run.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILTER_BLOCK = 64, /* bytes: a lookup touches one cache line */
    FILTER_BITS = 10,  /* a key; with 6 probes some 2 of 100 keys that are not there are looked for in vain */
    FILTER_PROBES = 6,
};

const struct run_limits run_limits = {.fences = 16 * 1024, .filter_bytes = 1024 * 1024};

static size_t size_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* --- the filter --- */

static size_t filter_blocks(uint64_t keys, size_t limit)
{
    size_t blocks = (size_t)(keys * FILTER_BITS / 8) / FILTER_BLOCK + 1;
    return size_min(blocks, limit / FILTER_BLOCK);
}

/* The key's block, and where its probes come from. */
static uint8_t *filter_block(const struct run *run, const uint8_t *key, uint64_t *probes)
{
    const uint64_t hash = key_hash(key, run->facts.number);
    *probes = hash * UINT64_C(0x9e3779b97f4a7c15);
    return run->filter + (size_t)((hash >> 32) * run->facts.filter_blocks >> 32) * FILTER_BLOCK;
}

static void filter_add(struct run *run, const uint8_t *key)
{
    uint64_t probes;
    uint8_t *block = filter_block(run, key, &probes);
    for (int i = 0; i < FILTER_PROBES; i++, probes <<= 9) {
        const unsigned bit = (unsigned)(probes >> 55);
        block[bit >> 3] |= (uint8_t)(1 << (bit & 7));
    }
}

static bool filter_passes(const struct run *run, const uint8_t *key)
{
    uint64_t probes;
    const uint8_t *block = filter_block(run, key, &probes);
    bool passes = true;
    for (int i = 0; i < FILTER_PROBES && passes; i++, probes <<= 9) {
        const unsigned bit = (unsigned)(probes >> 55);
        passes = block[bit >> 3] & 1 << (bit & 7);
    }
    return passes;
}

/* --- a run --- */

static size_t fence_count(const struct db_run *facts)
{
    return (facts->pages + facts->stride - 1) / facts->stride;
}

static bool make_room(struct run *run, size_t fences)
{
    run->fences = calloc(fences, sizeof *run->fences);
    run->filter = calloc(run->facts.filter_blocks, FILTER_BLOCK);
    return run->fences && run->filter;
}

static enum err no_memory(struct error *why)
{
    return error_set(why, ERR_MEMORY, "no memory for the journal's index");
}

/* Pages of the directory are numbered from RUN_DIRECTORY on: the fences, then the filter, each from a page of its own. */
enum { RUN_DIRECTORY = 1 << 30 };

struct piece {
    uint8_t *data;
    size_t size;
};

static size_t pieces_of(const struct run *run, struct piece out[2])
{
    out[0] = (struct piece){run->fences[0], fence_count(&run->facts) * sizeof *run->fences};
    out[1] = (struct piece){run->filter, (size_t)run->facts.filter_blocks * FILTER_BLOCK};
    return 2;
}

enum direction { READING, WRITING };

static enum err move_directory(const struct run *run, struct db *db, enum direction direction, struct error *why)
{
    struct piece pieces[2];
    const size_t count = pieces_of(run, pieces);
    uint32_t page = RUN_DIRECTORY;
    enum err code = ERR_NONE;
    for (size_t i = 0; i < count; i++) {
        for (size_t at = 0; at < pieces[i].size && code == ERR_NONE; at += DB_PAGE_BYTES, page++) {
            const size_t size = size_min(DB_PAGE_BYTES, pieces[i].size - at);
            code = direction == READING ? db_page_get(db, run->facts.number, page, pieces[i].data + at, size, why)
                                        : db_page_put(db, run->facts.number, page, pieces[i].data + at, size, why);
        }
    }
    return code;
}

enum err run_load(struct run **out, struct db *db, const struct db_run *facts, struct error *why)
{
    *out = NULL;
    struct run *run = calloc(1, sizeof *run);
    if (!run) {
        return no_memory(why);
    }
    run->facts = *facts;
    enum err code = ERR_NONE;
    if (facts->state == RUN_LIVE) {
        code = make_room(run, fence_count(facts)) ? move_directory(run, db, READING, why) : no_memory(why);
    }
    if (code != ERR_NONE) {
        run_free(run);
        return code;
    }
    *out = run;
    return ERR_NONE;
}

void run_forget(struct run *run)
{
    run->facts.state = RUN_DROPPING;
    run->is_input = false;
    free(run->fences);
    free(run->filter);
    run->fences = NULL;
    run->filter = NULL;
}

void run_free(struct run *run)
{
    if (run) {
        free(run->fences);
        free(run->filter);
        free(run);
    }
}

/* --- looking up --- */

static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, JOURNAL_KEY_BYTES);
}

enum err run_page_read(const struct run *run, struct db *db, size_t number, struct run_page *out, struct error *why)
{
    const uint64_t before = (uint64_t)number * RUN_PAGE_ENTRIES;
    ASSERT(number < run->facts.pages);
    out->count = run->facts.keys - before < RUN_PAGE_ENTRIES ? (size_t)(run->facts.keys - before) : RUN_PAGE_ENTRIES;
    enum err code =
        db_page_get(db, run->facts.number, (uint32_t)number, out->entries, out->count * sizeof out->entries[0], why);
    for (size_t i = 0; i < out->count && code == ERR_NONE; i++) {
        out->entries[i].value = (int64_t)le64toh((uint64_t)out->entries[i].value);
    }
    return code;
}

/* The last of the fences that is not above the key. There is one. */
static size_t fence_of(const struct run *run, const uint8_t *key)
{
    size_t low = 0, high = fence_count(&run->facts);
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (compare_keys(run->fences[middle], key) <= 0) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Leaves the only page that may hold the key in page. */
static enum err read_page_of(const struct run *run, struct db *db, const uint8_t *key, struct run_page *page, struct error *why)
{
    size_t low = fence_of(run, key) * run->facts.stride;
    size_t high = size_min(low + run->facts.stride, run->facts.pages);
    enum err code = ERR_NONE;
    while (high - low > 1 && code == ERR_NONE) {
        const size_t middle = low + (high - low) / 2;
        code = run_page_read(run, db, middle, page, why);
        if (code == ERR_NONE && compare_keys(page->entries[0].key, key) <= 0) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return code == ERR_NONE ? run_page_read(run, db, low, page, why) : code;
}

enum err run_find(const struct run *run, struct db *db, const uint8_t key[JOURNAL_KEY_BYTES], struct run_page *page,
                  int64_t *kept_ms, struct error *why)
{
    *kept_ms = KEYSET_EMPTY;
    if (run->facts.state != RUN_LIVE || compare_keys(key, run->facts.high) > 0 || compare_keys(key, run->fences[0]) < 0 ||
        !filter_passes(run, key)) {
        return ERR_NONE;
    }
    enum err code = read_page_of(run, db, key, page, why);
    if (code != ERR_NONE) {
        return code;
    }
    const struct keyset_entry *entry = bsearch(key, page->entries, page->count, sizeof page->entries[0], compare_keys);
    if (entry) {
        *kept_ms = entry->value;
    }
    return ERR_NONE;
}

/* --- writing --- */

struct run_writer {
    struct db *db;
    struct run *run;
    uint64_t max_keys;
    struct run_page page;
};

enum err run_writer_open(struct run_writer **out, struct db *db, uint64_t number, unsigned level, uint64_t max_keys,
                         const struct run_limits *limits, struct error *why)
{
    *out = NULL;
    const size_t max_pages = (size_t)(max_keys / RUN_PAGE_ENTRIES + 1);
    struct run_writer *writer = calloc(1, sizeof *writer);
    struct run *run = calloc(1, sizeof *run);
    if (writer && run) {
        *writer = (struct run_writer){.db = db, .run = run, .max_keys = max_keys};
        run->facts = (struct db_run){.number = number, .level = level, .state = RUN_BUILDING, .last_ms = INT64_MIN};
        run->facts.stride = (uint32_t)((max_pages + limits->fences - 1) / limits->fences);
        run->facts.filter_blocks = (uint32_t)filter_blocks(max_keys, limits->filter_bytes);
    }
    enum err code =
        writer && run && make_room(run, max_pages / run->facts.stride + 1) ? db_run_put(db, &run->facts, why) : no_memory(why);
    if (code != ERR_NONE) {
        run_free(run);
        free(writer);
        return code;
    }
    *out = writer;
    return ERR_NONE;
}

static enum err flush_page(struct run_writer *writer, struct error *why)
{
    struct run *run = writer->run;
    struct run_page *page = &writer->page;
    const uint32_t number = run->facts.pages;
    if (page->count == 0) {
        return ERR_NONE;
    }
    memcpy(run->facts.high, page->entries[page->count - 1].key, JOURNAL_KEY_BYTES);
    if (number % run->facts.stride == 0) {
        memcpy(run->fences[number / run->facts.stride], page->entries[0].key, JOURNAL_KEY_BYTES);
    }
    for (size_t i = 0; i < page->count; i++) {
        page->entries[i].value = (int64_t)htole64((uint64_t)page->entries[i].value);
    }
    run->facts.pages++;
    enum err code =
        db_page_put(writer->db, run->facts.number, number, page->entries, page->count * sizeof page->entries[0], why);
    page->count = 0;
    return code;
}

enum err run_writer_add(struct run_writer *writer, const struct keyset_entry *entry, struct error *why)
{
    struct run *run = writer->run;
    ASSERT(run->facts.keys < writer->max_keys);
    writer->page.entries[writer->page.count++] = *entry;
    filter_add(run, entry->key);
    run->facts.keys++;
    run->facts.last_ms = entry->value > run->facts.last_ms ? entry->value : run->facts.last_ms;
    return writer->page.count == RUN_PAGE_ENTRIES ? flush_page(writer, why) : ERR_NONE;
}

enum err run_writer_finish(struct run_writer *writer, struct error *why)
{
    struct run *run = writer->run;
    enum err code = flush_page(writer, why);
    run->facts.state = run->facts.keys > 0 ? RUN_LIVE : RUN_DROPPING;
    if (code == ERR_NONE && run->facts.state == RUN_LIVE) {
        code = move_directory(run, writer->db, WRITING, why);
    }
    return code == ERR_NONE ? db_run_put(writer->db, &run->facts, why) : code;
}

struct run *run_writer_close(struct run_writer **writer, bool is_good)
{
    struct run *run = (*writer)->run;
    if (!is_good || run->facts.state != RUN_LIVE) {
        run_forget(run);
    }
    free(*writer);
    *writer = NULL;
    return run;
}
