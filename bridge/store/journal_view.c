/* Two ways to open, by whether a log lies beside the database: see db_open_look. With one, the handle is kept: as long as it is
 * open, nobody takes the log away. Without, a bridge may start and change the file at any time, so that each call opens it
 * again, which costs less than a millisecond. */
#include "meowbridge/journal_view.h"

#include "journal_db.h"
#include "journal_stretch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_BYTES = 64 * 1024 * 1024, CLOCK_ALLOWANCE_MS = 60 * 60 * 1000, FEW_DEAD = 4096 };

struct journal_view {
    char *path, *log_path;
    struct db *db; /* with is_immutable of the last call; NULL: none */
    bool is_immutable;
    struct buf copy; /* of what journal_view_get returned */
};

static const char *const state_names[] = {
    [JOURNAL_PENDING] = "pending",
    [JOURNAL_PUBLISHED] = "published",
    [JOURNAL_DEAD] = "dead",
    [JOURNAL_MOVED] = "moved",
};

const char *journal_state_name(enum journal_event_state state)
{
    ASSERT((size_t)state < sizeof state_names / sizeof state_names[0]);
    return state_names[state];
}

bool journal_state_of(struct slice text, enum journal_event_state *out)
{
    for (int state = JOURNAL_PENDING; state <= JOURNAL_DEAD; state++) {
        if (slice_equal(text, slice_of(state_names[state]))) {
            *out = (enum journal_event_state)state;
            return true;
        }
    }
    return false;
}

/* --- opening --- */

static enum err check_readable(const char *path, struct error *why)
{
    struct stat status;
    if (stat(path, &status) != 0) {
        return error_set(why, ERR_IO, "cannot read the journal %s: %s%s", path, strerror(errno),
                         errno == ENOENT ? "; has the bridge run yet, and does journal.path say where (-c FILE)?" : "");
    }
    if (!S_ISREG(status.st_mode)) {
        return error_set(why, ERR_IO, "cannot read the journal %s: it is not a file", path);
    }
    if (status.st_size == 0) {
        return error_set(why, ERR_CORRUPT, "%s is not a journal of meowbridge: it is empty", path);
    }
    if (access(path, R_OK) != 0) {
        return error_set(why, ERR_IO, "cannot read the journal %s: %s; run this as the user that runs the bridge, or as root",
                         path, strerror(errno));
    }
    return ERR_NONE;
}

static bool has_log(const struct journal_view *view)
{
    struct stat status;
    return stat(view->log_path, &status) == 0 && status.st_size > 0;
}

/* Leaves a handle that is fit for one call. */
static enum err enter(struct journal_view *view, struct error *why)
{
    if (view->db && !view->is_immutable) {
        return ERR_NONE;
    }
    db_close(&view->db);
    enum err code = check_readable(view->path, why);
    if (code != ERR_NONE) {
        return code;
    }
    view->is_immutable = !has_log(view);
    code = db_open_look(&view->db, view->path, !view->is_immutable, why);
    if (code == ERR_IO && !view->is_immutable) { /* a log without its shared memory, in a directory that we may not write */
        error_prefix(why,
                     "the bridge that wrote %s did not stop cleanly, and its log must be read along, which needs the rights "
                     "of the user that runs the bridge",
                     view->path);
    }
    return code;
}

enum err journal_view_open(struct journal_view **out, const char *path, struct error *why)
{
    *out = NULL;
    struct journal_view *view = calloc(1, sizeof *view);
    if (!view || !(view->path = slice_dup(slice_of(path))) || asprintf(&view->log_path, "%s-wal", path) < 0) {
        if (view) {
            view->log_path = NULL;
        }
        journal_view_close(&view);
        return error_set(why, ERR_MEMORY, "no memory to read the journal");
    }
    buf_init(&view->copy, SIZE_MAX / 2);
    enum err code = enter(view, why);
    if (code != ERR_NONE) {
        journal_view_close(&view);
    }
    *out = view;
    return code;
}

void journal_view_close(struct journal_view **view)
{
    if (*view) {
        db_close(&(*view)->db);
        buf_free(&(*view)->copy);
        free((*view)->path);
        free((*view)->log_path);
        free(*view);
        *view = NULL;
    }
}

/* --- reading --- */

static enum journal_event_state state_of(const struct db_look *row, uint64_t cursor)
{
    return row->is_dead        ? JOURNAL_DEAD
           : row->is_moved     ? JOURNAL_MOVED
           : row->seq > cursor ? JOURNAL_PENDING
                               : JOURNAL_PUBLISHED;
}

static struct journal_view_event event_of(const struct db_look *row, uint64_t cursor)
{
    return (struct journal_view_event){
        .seq = row->seq,
        .state = state_of(row, cursor),
        .accepted_ms = row->accepted_ms,
        .replays = row->replays,
        .replay_of = row->is_replay && !row->is_moved ? row->link : 0,
        .moved_to = row->is_moved && !row->is_dead ? row->link : 0,
        .died_ms = row->died_ms,
        .reason = row->reason,
        .head = row->head,
        .body = row->body,
    };
}

struct walk {
    journal_view_each *each;
    void *ctx;
    uint64_t cursor;
    size_t left, bytes_left;
    uint64_t last; /* visited */
    bool stopped, has_more;
};

/* Stops at the first row that is not visited any more, so that it is known whether there is one. */
static bool visit(void *ctx, const struct db_look *row)
{
    struct walk *walk = ctx;
    size_t size = row->head.size + row->body.size;
    if (walk->stopped || walk->left == 0 || (walk->last != 0 && size > walk->bytes_left)) {
        walk->has_more = true;
        return false;
    }
    const struct journal_view_event event = event_of(row, walk->cursor);
    walk->left--;
    walk->bytes_left -= size < walk->bytes_left ? size : walk->bytes_left;
    walk->last = row->seq;
    walk->stopped = !walk->each(walk->ctx, &event);
    return true;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Moves a bound in time into the bounds in numbers, with an allowance for clocks that differ. */
static enum err bound_by_time(struct db *db, const struct journal_view_filter *filter, struct db_looking *looking,
                              struct error *why)
{
    uint64_t seq;
    int64_t moment_ms;
    enum err code = ERR_NONE;
    if (!__builtin_sub_overflow(filter->since_ms, CLOCK_ALLOWANCE_MS, &moment_ms)) {
        code = db_first_since(db, moment_ms, &seq, why);
        looking->after = code == ERR_NONE && seq - 1 > looking->after ? seq - 1 : looking->after;
    }
    if (code == ERR_NONE && !__builtin_add_overflow(filter->until_ms, CLOCK_ALLOWANCE_MS, &moment_ms)) {
        code = db_first_since(db, moment_ms, &seq, why);
        looking->upto = code == ERR_NONE ? least(looking->upto, seq - 1) : looking->upto;
    }
    return code;
}

static struct db_looking looking_for(const struct journal_view_filter *filter, uint64_t cursor)
{
    struct db_looking looking = {
        .kinds = !filter->has_state              ? DB_ALL
                 : filter->state == JOURNAL_DEAD ? DB_DEAD
                                                 : DB_LIVING,
        .newest_first = true,
        .after = filter->after,
        .upto = filter->before > 0 ? filter->before - 1 : 0,
        .since_ms = filter->since_ms,
        .until_ms = filter->until_ms,
    };
    if (filter->has_state && filter->state == JOURNAL_PENDING) {
        looking.after = looking.after > cursor ? looking.after : cursor;
    } else if (filter->has_state && filter->state == JOURNAL_PUBLISHED) {
        looking.upto = least(looking.upto, cursor);
    }
    return looking;
}

/* --- passing over stretches --- */

/* From the newest number down: what is left to look at is after < seq <= looking.upto. */
struct passing {
    struct db *db;
    const struct journal_view_filter *filter;
    struct db_looking looking;
    struct walk *walk;
    enum err code;
    struct error *why;
};

static bool bears_wanted(const struct journal_view_filter *filter, struct slice labels)
{
    struct slice label;
    bool wants = labels.size == 0;
    while (!wants && labels.size > 0) {
        wants = !stretch_take_label(&labels, &label) || filter->wants(filter->wants_ctx, label);
    }
    return wants;
}

static bool may_hold(const struct journal_view_filter *filter, const struct db_stretch *stretch)
{
    return stretch_overlaps(stretch, filter->since_ms, filter->until_ms) &&
           (!filter->wants || bears_wanted(filter, stretch->labels));
}

/* Looks at what is left from that number on; what is left then is below it. */
static void look_down_to(struct passing *passing, uint64_t seq)
{
    struct db_looking looking = passing->looking;
    looking.after = seq > 0 && seq - 1 > looking.after ? seq - 1 : looking.after;
    if (looking.after < looking.upto) {
        passing->code = db_look(passing->db, &looking, visit, passing->walk, passing->why);
    }
    passing->looking.upto = least(passing->looking.upto, looking.after);
}

/* Behind a stop it goes on only to find out whether there is anything more, and no further than it might have gone without. */
static void pass_over(struct passing *passing, uint64_t first)
{
    struct walk *walk = passing->walk;
    const uint64_t last = first > passing->looking.after ? first : passing->looking.after + 1;
    walk->has_more = walk->left == 0;
    if (walk->left > 0) {
        walk->left--;
        walk->last = walk->stopped ? walk->last : last;
    }
    passing->looking.upto = last - 1;
}

static bool visit_stretch(void *ctx, const struct db_stretch *stretch)
{
    struct passing *passing = ctx;
    const uint64_t first = stretch->number * DB_STRETCH, end = first + DB_STRETCH;
    const bool is_wanted = may_hold(passing->filter, stretch);
    if (is_wanted || passing->looking.upto >= end) {
        look_down_to(passing, is_wanted ? first : end);
    }
    if (!is_wanted && passing->code == ERR_NONE && !passing->walk->has_more) {
        pass_over(passing, first);
    }
    return passing->code == ERR_NONE && !passing->walk->has_more;
}

/* Few dead events are found more quickly than the stretches around them are read. */
static bool may_pass_over(const struct journal_view_filter *filter, const struct db_looking *looking, uint64_t dead)
{
    const bool is_choosy = filter->wants || filter->since_ms != INT64_MIN || filter->until_ms != INT64_MAX;
    return is_choosy && (looking->kinds != DB_DEAD || dead > FEW_DEAD);
}

static enum err walk_rows(struct db *db, const struct journal_view_filter *filter, struct walk *walk, struct error *why)
{
    struct db_state state;
    enum err code = db_state_read(db, &state, why);
    if (code != ERR_NONE) {
        return code;
    }
    walk->cursor = state.cursor;
    struct passing passing = {db, filter, looking_for(filter, state.cursor), walk, ERR_NONE, why};
    const struct db_looking *looking = &passing.looking;
    code = bound_by_time(db, filter, &passing.looking, why);
    if (code == ERR_NONE && looking->after < looking->upto && may_pass_over(filter, looking, state.dead)) {
        code = db_stretch_walk(db, (looking->after + 1) / DB_STRETCH, least(looking->upto, INT64_MAX) / DB_STRETCH, true,
                               visit_stretch, &passing, why);
    }
    code = code == ERR_NONE ? passing.code : code;
    if (code == ERR_NONE && !walk->has_more) {
        look_down_to(&passing, 0);
        code = passing.code;
    }
    return code;
}

enum err journal_view_walk(struct journal_view *view, const struct journal_view_filter *filter, size_t max,
                           journal_view_each *each, void *ctx, uint64_t *next, struct error *why)
{
    ASSERT(max > 0 && !(filter->has_state && filter->state == JOURNAL_MOVED));
    struct walk walk = {.each = each, .ctx = ctx, .left = max, .bytes_left = MAX_BYTES};
    *next = 0;
    enum err code = enter(view, why);
    if (code == ERR_NONE) {
        code = db_begin_reading(view->db, why);
    }
    if (code != ERR_NONE) {
        return code;
    }
    code = walk_rows(view->db, filter, &walk, why);
    db_rollback(view->db);
    *next = code == ERR_NONE && walk.has_more ? walk.last : 0;
    return code;
}

/* What a row lends ends with the reading, which must not go on until the next call. */
static bool keep(struct journal_view *view, struct journal_view_event *event)
{
    struct slice *const slices[] = {&event->reason, &event->head, &event->body};
    buf_free(&view->copy);
    buf_init(&view->copy, SIZE_MAX / 2);
    if (!buf_reserve(&view->copy, event->reason.size + event->head.size + event->body.size)) {
        return false;
    }
    for (size_t i = 0; i < sizeof slices / sizeof slices[0]; i++) {
        size_t start = view->copy.size;
        buf_append(&view->copy, *slices[i]);
        slices[i]->data = view->copy.data + start;
    }
    return true;
}

enum err journal_view_get(struct journal_view *view, uint64_t seq, struct journal_view_event *out, struct error *why)
{
    struct db_state state;
    struct db_look row;
    bool found = false;
    enum err code = enter(view, why);
    if (code == ERR_NONE) {
        code = db_state_read(view->db, &state, why);
    }
    if (code == ERR_NONE) {
        code = db_look_one(view->db, seq, &row, &found, why);
    }
    if (code != ERR_NONE) {
        return code;
    }
    if (!found) {
        return error_set(why, ERR_INVALID, "event %llu is not in the journal", (unsigned long long)seq);
    }
    *out = event_of(&row, state.cursor);
    code = keep(view, out) ? ERR_NONE : error_set(why, ERR_MEMORY, "no memory to read the journal");
    db_look_end(view->db);
    return code;
}
