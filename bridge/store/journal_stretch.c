/* The labels of a stretch stand in its row as two bytes of size, little-endian, and the label, one behind the other. No bytes
 * at all: they are not known (too many, too long, or an event had none to tell), so any may be there. */
#include "journal_stretch.h"

#include "meowbridge/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_LABELS_BYTES = 7 * 1024, /* so that a row fits into a page */
    SLOTS = 2 * DB_STRETCH,      /* a power of two */
    STEP_BYTES = 2 * 1024 * 1024,
    STEP_KNOWN = 1024
};

struct gathering {
    uint64_t next; /* the number that must come next; 0: the stretch is not gathered */
    bool is_empty, knows_labels;
    int64_t earliest_ms, latest_ms;
    struct buf labels;
    size_t newest;         /* where the last one begins that was found or added */
    uint16_t slots[SLOTS]; /* 1 + where a label begins, by its hash; 0: free */
};

struct stretches {
    struct db *db;
    journal_label *label;
    uint64_t filled;             /* every stretch before it is written, or nothing is left of it */
    uint64_t put_first, put_end; /* written in this transaction */
    struct gathering now;        /* of what is being stored */
    struct gathering past;       /* of what is read again, from step to step */
    struct buf scratch;
};

static uint64_t first_of(uint64_t stretch)
{
    return stretch == 0 ? 1 : stretch * DB_STRETCH;
}

static bool is_first(uint64_t seq)
{
    return seq == first_of(seq / DB_STRETCH);
}

static bool is_last(uint64_t seq)
{
    return (seq + 1) % DB_STRETCH == 0;
}

/* --- gathering --- */

static void gathering_begin(struct gathering *g, uint64_t seq)
{
    g->next = seq;
    g->is_empty = g->knows_labels = true;
    g->earliest_ms = INT64_MAX;
    g->latest_ms = INT64_MIN;
    g->newest = 0;
    buf_reset(&g->labels);
    memset(g->slots, 0, sizeof g->slots);
}

static struct slice label_at(const struct gathering *g, size_t at)
{
    const uint8_t *bytes = (const uint8_t *)g->labels.data + at;
    return (struct slice){g->labels.data + at + 2, (size_t)bytes[0] | (size_t)bytes[1] << 8};
}

static size_t slot_of(struct slice label)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < label.size; i++) {
        hash = (hash ^ (unsigned char)label.data[i]) * 16777619u;
    }
    return (hash ^ hash >> 16) & (SLOTS - 1);
}

/* A stretch has half as many events as there are slots. */
static void add_label(struct gathering *g, struct slice label)
{
    if (g->labels.size > 0 && slice_equal(label_at(g, g->newest), label)) {
        return;
    }
    size_t slot = slot_of(label);
    while (g->slots[slot] != 0 && !slice_equal(label_at(g, g->slots[slot] - 1u), label)) {
        slot = (slot + 1) & (SLOTS - 1);
    }
    if (g->slots[slot] == 0) {
        if (label.size == 0 || g->labels.size + 2 + label.size > MAX_LABELS_BYTES) {
            g->knows_labels = false;
            return;
        }
        g->slots[slot] = (uint16_t)(g->labels.size + 1);
        const char size[2] = {(char)label.size, (char)(label.size >> 8)};
        buf_append(&g->labels, (struct slice){size, sizeof size});
        buf_append(&g->labels, label);
        g->knows_labels = !g->labels.failed;
    }
    g->newest = g->slots[slot] - 1u;
}

static void gather(struct stretches *s, struct gathering *g, int64_t accepted_ms, struct slice head, struct slice body)
{
    g->is_empty = false;
    g->earliest_ms = accepted_ms < g->earliest_ms ? accepted_ms : g->earliest_ms;
    g->latest_ms = accepted_ms > g->latest_ms ? accepted_ms : g->latest_ms;
    if (g->knows_labels) {
        buf_reset(&s->scratch);
        g->knows_labels = s->label && s->label(head, body, &s->scratch) && !s->scratch.failed;
    }
    if (g->knows_labels) {
        add_label(g, buf_slice(&s->scratch));
    }
}

static enum err put(struct stretches *s, const struct gathering *g, uint64_t number, struct error *why)
{
    const struct db_stretch stretch = {
        .number = number,
        .earliest_ms = g->earliest_ms,
        .latest_ms = g->latest_ms,
        .labels = g->knows_labels ? buf_slice(&g->labels) : (struct slice){0},
    };
    return db_stretch_put(s->db, &stretch, why);
}

/* --- what is written of a stretch --- */

bool stretch_overlaps(const struct db_stretch *stretch, int64_t since_ms, int64_t until_ms)
{
    return stretch->latest_ms >= since_ms && stretch->earliest_ms < until_ms;
}

bool stretch_take_label(struct slice *labels, struct slice *label)
{
    const uint8_t *bytes = (const uint8_t *)labels->data;
    size_t size = labels->size < 2 ? 0 : (size_t)bytes[0] | (size_t)bytes[1] << 8;
    if (size == 0 || size > labels->size - 2) {
        return false;
    }
    *label = (struct slice){labels->data + 2, size};
    *labels = (struct slice){label->data + size, labels->size - 2 - size};
    return true;
}

/* --- opening --- */

struct stretches *stretches_open(struct db *db, journal_label *label)
{
    struct stretches *s = calloc(1, sizeof *s);
    if (s) {
        s->db = db;
        s->label = label;
        buf_init(&s->scratch, MAX_LABELS_BYTES);
        buf_init(&s->now.labels, MAX_LABELS_BYTES);
        buf_init(&s->past.labels, MAX_LABELS_BYTES);
    }
    return s;
}

void stretches_close(struct stretches **stretches)
{
    if (*stretches) {
        buf_free(&(*stretches)->scratch);
        buf_free(&(*stretches)->now.labels);
        buf_free(&(*stretches)->past.labels);
        free(*stretches);
        *stretches = NULL;
    }
}

/* --- a batch --- */

enum err stretches_add(struct stretches *s, const struct journal_event *event, struct error *why)
{
    if (is_first(event->seq)) {
        gathering_begin(&s->now, event->seq);
    }
    if (event->seq != s->now.next) {
        s->now.next = 0; /* its beginning was not seen */
        return ERR_NONE;
    }
    gather(s, &s->now, event->accepted_ms, event->head, event->body);
    s->now.next++;
    if (!is_last(event->seq)) {
        return ERR_NONE;
    }
    const uint64_t number = event->seq / DB_STRETCH;
    s->put_first = s->put_end == 0 ? number : s->put_first;
    s->put_end = number + 1;
    return put(s, &s->now, number, why);
}

void stretches_commit(struct stretches *s)
{
    if (s->put_end > 0 && s->put_first <= s->filled && s->filled < s->put_end) {
        s->filled = s->put_end;
    }
    s->put_first = s->put_end = 0;
}

void stretches_undo(struct stretches *s)
{
    s->put_first = s->put_end = 0;
    s->now.next = 0;
}

/* --- upkeep --- */

bool stretches_has_work(struct stretches *s, uint64_t oldest_seq, uint64_t last_seq)
{
    if (oldest_seq / DB_STRETCH > s->filled) {
        s->filled = oldest_seq / DB_STRETCH;
        s->past.next = 0;
    }
    return oldest_seq != 0 && first_of(s->filled + 1) <= last_seq + 1;
}

struct reading {
    struct stretches *stretches;
    size_t bytes;
};

static bool read_again(void *ctx, const struct db_look *row)
{
    struct reading *reading = ctx;
    gather(reading->stretches, &reading->stretches->past, row->accepted_ms, row->head, row->body);
    reading->stretches->past.next = row->seq + 1;
    reading->bytes += row->head.size + row->body.size;
    return reading->bytes < STEP_BYTES;
}

/* As much of it as one step may. */
static enum err read_stretch(struct stretches *s, bool *is_whole, struct error *why)
{
    const uint64_t first = first_of(s->filled), end = first_of(s->filled + 1);
    struct reading reading = {.stretches = s};
    if (s->past.next < first || s->past.next > end) {
        gathering_begin(&s->past, first);
    }
    enum err code = db_stretch_read(s->db, s->past.next, end, read_again, &reading, why);
    *is_whole = reading.bytes < STEP_BYTES;
    if (code != ERR_NONE) {
        s->past.next = 0;
    }
    return code;
}

static enum err write_stretch(struct stretches *s, struct error *why)
{
    enum err code = db_begin(s->db, DB_LAZY, why);
    if (code == ERR_NONE) {
        code = put(s, &s->past, s->filled, why);
    }
    if (code == ERR_NONE) {
        code = db_commit(s->db, why);
    }
    if (code != ERR_NONE) {
        db_rollback(s->db);
    }
    return code;
}

struct passing {
    struct stretches *stretches;
    size_t count;
};

static bool pass_written(void *ctx, const struct db_stretch *stretch)
{
    struct passing *passing = ctx;
    if (stretch->number != passing->stretches->filled) {
        return false;
    }
    passing->stretches->filled++;
    return ++passing->count < STEP_KNOWN;
}

/* What cannot be read is nobody's trouble before somebody looks for it: the stretch stays unwritten, and upkeep goes on behind it. */
static enum err give_up(struct stretches *s, const struct error *why)
{
    log_warn("a part of the journal cannot be read, looking for something rare will try it each time",
             LOG_INT("first", (int64_t)first_of(s->filled)), LOG_STR("reason", why->text));
    s->filled++;
    return ERR_NONE;
}

enum err stretches_step(struct stretches *s, uint64_t last_seq, struct error *why)
{
    struct passing passing = {.stretches = s};
    enum err code = db_stretch_walk(s->db, s->filled, last_seq / DB_STRETCH, false, pass_written, &passing, why);
    if (code != ERR_NONE || passing.count == STEP_KNOWN || first_of(s->filled + 1) > last_seq + 1) {
        return code;
    }
    bool is_whole;
    code = read_stretch(s, &is_whole, why);
    if (code != ERR_NONE && code != ERR_MEMORY) {
        return give_up(s, why);
    }
    if (code == ERR_NONE && is_whole && !s->past.is_empty) {
        code = write_stretch(s, why);
    }
    if (code == ERR_NONE && is_whole) {
        s->filled++;
        s->past.next = 0;
    }
    return code;
}
