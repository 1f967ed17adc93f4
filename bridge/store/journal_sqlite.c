/* The journal that survives: one SQLite database, one thread that alone writes it.
 *
 *   any thread ──queue──▶ journal thread: take all that is queued ▸ one transaction, one sync ▸ hand over, hand back
 *                                         ▸ one step of upkeep ▸ again
 *   publisher  ◀──lane── the events just committed; when it falls far behind, the rest is left on disk (the gap) and is read
 *                        through a second, read-only connection as it claims
 *
 * The batch is whatever came while the last one was being synced: no timer, so a lone request waits for one sync and many
 * share one. Upkeep (index, retention, room, checkpoint) goes in steps of a few milliseconds, at most one between two batches,
 * and is synced by the next batch. Publishing rewrites nothing: the cursor goes along with the next commit.
 *
 * An error refuses the batch and all that comes after it at once, until a probe (each second) can be written: a disk that lost
 * one write must not be trusted with the next, and a sender that gets its 503 early tries elsewhere or later.
 *
 * That the probe, or any commit, is synced means that all before it is, too, although the kernel takes what a failed sync lost for
 * synced: journal_vfs.h, V5, writes it again first. So upkeep may commit lazily, and a checkpoint that fails need not refuse. */
#include "journal_db.h"
#include "journal_index.h"
#include "journal_internal.h"
#include "journal_stretch.h"

#include "meowbridge/clock.h"
#include "meowbridge/heartbeat.h"
#include "meowbridge/log.h"
#include "meowbridge/metrics.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    YIELDS = 5,
    BATCH_ROWS = 512,
    BATCH_BYTES = 2 * 1024 * 1024,
    ROW_OVERHEAD = 100, /* of a row, on disk, over its head and body */
    LANE_EVENTS = 8192, /* unclaimed ones in memory; beyond begins the gap */
    LANE_BYTES = 4 * 1024 * 1024,
    READ_EVENTS = 256,
    READ_BYTES = 1024 * 1024,
    BURIALS = 1024, /* queued */
    BURIALS_AT_ONCE = 32,
    REPLAY_LOOKS = 8192, /* numbers looked at for one piece of a replay */
    FRESH_KEYS = 16 * 1024,
    FRESH_BYTES = 64 * 1024 * 1024,
    CHECKPOINT_BYTES = 1024 * 1024,
    LOG_ALARM_BYTES = 256 * 1024 * 1024,
    SLACK_BYTES = 16 * 1024 * 1024, /* at most, of max_bytes */
    PROBE_BYTES = 256 * 1024,
    PROBE_MS = 1000,
    SAVE_MS = 500,
    MAKE_ROOM_MS = 1000, /* hardly ever more than a few, since trimming begins early */
    STEP_BACK_OFF_MS = 60 * 1000,
    LATENESS_MS = 5000, /* of retention, so that it deletes in bulk */
    CLOCK_STEP_MS = 60 * 1000,
    CLOCK_TRUST_MS = 10 * 60 * 1000,
    CLOCK_ALLOWANCE_MS = 60 * 60 * 1000, /* by which the times of acceptance and the journal's clock may differ */
};

/* --- the journal's clock --- */

/* It never goes back, follows the wall clock forward, and follows a leap only when it has lasted: a clock that is wrong for a
 * while, in either direction, makes no key and no event older than it is. Kept over restarts by what is stored. */
struct timeline {
    int64_t now_ms, mono_ms;
    int64_t leapt_ms; /* by the monotonic clock; -1: no leap is waiting */
};

static void timeline_start(struct timeline *time, int64_t stored_ms)
{
    int64_t wall_ms = clock_wall_ms();
    *time = (struct timeline){wall_ms > stored_ms ? wall_ms : stored_ms, clock_mono_ms(), -1};
}

static int64_t timeline_now(struct timeline *time)
{
    const int64_t mono_ms = clock_mono_ms(), wall_ms = clock_wall_ms();
    time->now_ms += mono_ms - time->mono_ms;
    time->mono_ms = mono_ms;
    bool leaps = wall_ms - time->now_ms > CLOCK_STEP_MS;
    if (!leaps) {
        time->leapt_ms = -1;
    } else if (time->leapt_ms < 0) {
        time->leapt_ms = mono_ms;
    }
    if (wall_ms > time->now_ms && (!leaps || mono_ms - time->leapt_ms >= CLOCK_TRUST_MS)) {
        time->now_ms = wall_ms;
        time->leapt_ms = -1;
    }
    return time->now_ms;
}

/* --- the journal --- */

struct burial {
    struct burial *next;
    uint64_t seq;
    char reason[JOURNAL_MAX_REASON + 1];
};

struct sqlite_journal {
    struct journal base;

    pthread_mutex_t lock;
    pthread_cond_t wake; /* the journal thread, on the monotonic clock */
    struct append_list queue;
    struct burial *burials, **burials_end;
    size_t burial_count;
    struct journal_replay *replays, **replays_end; /* the first one is under way */
    struct lane lane;
    bool has_gap;       /* events behind loaded are on disk only */
    uint64_t loaded;    /* the last one that was in the lane */
    int64_t passed_ms;  /* when the last one that left the lane was accepted, or the first one behind the cursor at the start */
    uint64_t last_seq;  /* committed */
    uint64_t saved;     /* the cursor on disk */
    int64_t unsaved_ms; /* since when the cursor is ahead of it */
    uint64_t dead;
    int64_t bytes;
    int64_t longest_upkeep_us;
    struct error trouble; /* why appends are refused: ERR_NONE, or ERR_FULL by max_bytes, or what broke */
    bool is_broken;       /* refuse without trying */
    bool is_full;         /* by max_bytes: try, since room may have come */
    bool stopping;

    /* Immutable after opening. */
    char *path;
    int64_t retention_ms, max_bytes, slack_bytes, checkpoint_bytes;
    journal_label *label;
    struct file_lock file_lock;
    char identity[JOURNAL_IDENTITY_SIZE];
    pthread_t thread;
    bool has_thread;

    /* The journal thread's, once it runs. */
    struct db *db;
    struct index *index;
    struct stretches *stretches;
    struct timeline time;
    uint64_t oldest_seq; /* 0: no event */
    int64_t oldest_kept_ms;
    bool is_trimming, index_is_next;
    int64_t probe_ms;
    int64_t next_checkpoint;           /* bytes of log */
    int64_t step_ms, step_back_off_ms; /* after a failed step, no other before step_ms */
    bool log_alarm;

    /* The publisher's thread's, once journal_start has returned. */
    struct db *reader;
};

static struct sqlite_journal *self(struct journal *journal)
{
    return (struct sqlite_journal *)journal;
}

/* --- the batch --- */

struct batch {
    struct append_list appends;
    size_t rows, bytes;
    const struct burial *burials[BURIALS_AT_ONCE]; /* the first ones of the queue, where they stay until they are committed */
    size_t burial_count;
    uint64_t cursor; /* to be saved */
    bool must_save;  /* even if there is nothing else to commit */

    uint64_t last_seq;
    const struct journal_event *events[BATCH_ROWS]; /* stored ones */
    size_t stored;
    uint64_t dead;
    bool is_full;
};

static bool is_unsaved(const struct sqlite_journal *j)
{
    return j->lane.cursor > j->saved;
}

/* J4: not beyond a burial that is neither durable nor in this batch. */
static uint64_t savable_cursor(const struct sqlite_journal *j, size_t burials_taken)
{
    uint64_t cursor = j->lane.cursor;
    size_t n = 0;
    for (const struct burial *burial = j->burials; burial; burial = burial->next) {
        if (n++ >= burials_taken && burial->seq <= cursor) {
            cursor = burial->seq - 1;
        }
    }
    return cursor > j->saved ? cursor : j->saved;
}

static void take_appends(struct sqlite_journal *j, struct batch *batch)
{
    append_list_init(&batch->appends);
    while (j->queue.first && batch->rows < BATCH_ROWS) {
        struct journal_append *append = j->queue.first;
        size_t size = event_bytes(append->event) + ROW_OVERHEAD;
        if (batch->rows > 0 && batch->bytes + size > BATCH_BYTES) {
            break;
        }
        j->queue.first = append->next;
        append_list_add(&batch->appends, append);
        batch->rows++;
        batch->bytes += size;
    }
    if (!j->queue.first) {
        append_list_init(&j->queue);
    }
}

static void take_batch(struct sqlite_journal *j, struct batch *batch)
{
    const int64_t unsaved_for_ms = is_unsaved(j) ? clock_mono_ms() - j->unsaved_ms : 0;
    *batch = (struct batch){.last_seq = j->last_seq, .dead = j->dead};
    take_appends(j, batch);
    for (const struct burial *burial = j->burials; burial && batch->burial_count < BURIALS_AT_ONCE; burial = burial->next) {
        batch->burials[batch->burial_count++] = burial;
    }
    batch->cursor = savable_cursor(j, batch->burial_count);
    batch->must_save = batch->cursor > j->saved && (j->stopping || j->is_full || unsaved_for_ms >= SAVE_MS);
}

/* --- writing it --- */

/* What becomes of an append; one that is to be stored gets its number and is noted, so that the batch's next ones know its key. */
static enum err judge(struct sqlite_journal *j, struct batch *batch, struct journal_append *append, int64_t now_ms,
                      struct error *why)
{
    bool known;
    struct journal_event *event = append->event;
    enum err code = index_known(j->index, event->key, now_ms, &known, why);
    append->outcome = known ? JOURNAL_DUPLICATE : batch->is_full ? JOURNAL_REFUSED : JOURNAL_STORED;
    if (code == ERR_NONE && append->outcome == JOURNAL_STORED) {
        index_add(j->index, event->key, now_ms, event_bytes(event));
        event->seq = ++batch->last_seq;
        batch->events[batch->stored++] = event;
        code = stretches_add(j->stretches, event, why);
    }
    return code;
}

static enum err write_appends(struct sqlite_journal *j, struct batch *batch, int64_t now_ms, struct error *why)
{
    enum err code = ERR_NONE;
    for (struct journal_append *append = batch->appends.first; append && code == ERR_NONE; append = append->next) {
        code = judge(j, batch, append, now_ms, why);
    }
    return code == ERR_NONE && batch->stored > 0 ? db_event_put(j->db, batch->events, batch->stored, now_ms, why) : code;
}

static enum err write_burials(struct sqlite_journal *j, struct batch *batch, struct error *why)
{
    enum err code = ERR_NONE;
    for (size_t n = 0; n < batch->burial_count && code == ERR_NONE; n++) {
        const struct burial *burial = batch->burials[n];
        bool added;
        code = db_event_bury(j->db, burial->seq, clock_wall_ms(), burial->reason, &added, why);
        batch->dead += added;
    }
    return code;
}

static enum err write_rows(struct sqlite_journal *j, struct batch *batch, struct error *why)
{
    const int64_t now_ms = timeline_now(&j->time);
    enum err code = write_appends(j, batch, now_ms, why);
    if (code == ERR_NONE) {
        code = write_burials(j, batch, why);
    }
    if (code != ERR_NONE) {
        return code;
    }
    if (batch->stored == 0 && batch->burial_count == 0 && !batch->must_save) {
        db_rollback(j->db); /* duplicates only: nothing to sync */
        batch->cursor = j->saved;
        return ERR_NONE;
    }
    code = db_state_write(j->db, batch->cursor, batch->dead, now_ms, why);
    return code == ERR_NONE ? db_commit(j->db, why) : code;
}

/* J5: looking up and storing are one transaction; J1: when it returns ERR_NONE, that is synced. */
static enum err write_batch(struct sqlite_journal *j, struct batch *batch, struct error *why)
{
    enum err code = db_check_files(j->db, why);
    if (code == ERR_NONE && !index_begin(j->index, batch->rows)) {
        code = error_set(why, ERR_MEMORY, "no memory for the journal");
    }
    if (code == ERR_NONE) {
        code = db_begin(j->db, DB_DURABLE, why);
    }
    if (code == ERR_NONE) {
        code = write_rows(j, batch, why);
    }
    if (code != ERR_NONE) {
        db_rollback(j->db);
        index_undo(j->index);
        stretches_undo(j->stretches);
    } else {
        index_commit(j->index, batch->last_seq);
        stretches_commit(j->stretches);
    }
    return code;
}

/* --- what follows --- */

static void drop_burials(struct sqlite_journal *j, size_t count)
{
    while (count-- > 0) {
        struct burial *burial = j->burials;
        j->burials = burial->next;
        j->burial_count--;
        free(burial);
    }
    if (!j->burials) {
        j->burials_end = &j->burials;
    }
}

/* Into the lane while there is room and no gap; else it is on disk only. */
static void hand_over(struct sqlite_journal *j, struct journal_event *event)
{
    j->has_gap = j->has_gap || j->lane.unclaimed_count >= LANE_EVENTS || j->lane.unclaimed_bytes >= LANE_BYTES;
    if (j->has_gap) {
        journal_event_free(event);
    } else {
        lane_add(&j->lane, event);
        j->loaded = event->seq;
    }
}

static void finish_batch(struct sqlite_journal *j, struct batch *batch)
{
    if (batch->stored > 0 && j->oldest_seq == 0) {
        j->oldest_seq = batch->last_seq - batch->stored + 1;
        j->oldest_kept_ms = j->time.now_ms;
    }
    for (struct journal_append *append = batch->appends.first; append; append = append->next) {
        if (append->outcome != JOURNAL_STORED) {
            append_finish(append, append->outcome, append->outcome == JOURNAL_REFUSED ? "the journal is full" : NULL);
        }
    }
    pthread_mutex_lock(&j->lock);
    for (struct journal_append *append = batch->appends.first; append; append = append->next) {
        if (append->outcome == JOURNAL_STORED) {
            hand_over(j, append->event);
            append->event = NULL;
            append->why = NULL;
        }
    }
    drop_burials(j, batch->burial_count);
    j->last_seq = batch->last_seq;
    if (j->saved != batch->cursor) {
        j->saved = batch->cursor;
        j->unsaved_ms = clock_mono_ms(); /* of what was settled meanwhile */
    }
    j->dead = batch->dead;
    j->bytes = db_bytes(j->db);
    pthread_mutex_unlock(&j->lock);
    journal_hand_back(&j->base, &batch->appends);
    if (batch->stored > 0) {
        metrics_add(METRIC_JOURNAL_COMMITS, 1);
        j->base.hooks.claimable(j->base.hooks.claimable_ctx);
    }
}

static void refuse_all(struct sqlite_journal *j, struct append_list *list, const char *why)
{
    for (struct journal_append *append = list->first; append; append = append->next) {
        append_finish(append, JOURNAL_REFUSED, why);
    }
    journal_hand_back(&j->base, list);
}

/* Hands back all replays, with what they have done so far. */
static void end_replays(struct sqlite_journal *j, const struct error *why)
{
    pthread_mutex_lock(&j->lock);
    struct journal_replay *list = j->replays;
    j->replays = NULL;
    j->replays_end = &j->replays;
    pthread_mutex_unlock(&j->lock);
    while (list) {
        struct journal_replay *next = list->next;
        replay_finish(list, why);
        list = next;
    }
}

/* From now on everything is refused, and so is what is queued; burials stay. */
static void break_down(struct sqlite_journal *j, struct append_list *queue, const struct error *why)
{
    pthread_mutex_lock(&j->lock);
    j->is_broken = true;
    j->trouble = *why;
    *queue = j->queue;
    append_list_init(&j->queue);
    pthread_mutex_unlock(&j->lock);
    j->probe_ms = clock_mono_ms() + PROBE_MS;
    log_error("webhooks are refused until the journal can be written again", LOG_STR("reason", why->text));
}

/* Without memory the disk is not to blame, and the next batch is tried. */
static void fail_batch(struct sqlite_journal *j, struct batch *batch, const struct error *why)
{
    struct append_list queue;
    append_list_init(&queue);
    metrics_add(METRIC_JOURNAL_COMMIT_ERRORS, 1);
    if (why->code != ERR_MEMORY || batch->rows == 0) {
        break_down(j, &queue, why);
    }
    refuse_all(j, &batch->appends, why->text);
    refuse_all(j, &queue, why->text);
    if (j->is_broken) {
        end_replays(j, why);
    }
}

static void probe(struct sqlite_journal *j)
{
    struct error why;
    if (db_probe(j->db, PROBE_BYTES, &why) != ERR_NONE) {
        j->probe_ms = clock_mono_ms() + PROBE_MS;
        pthread_mutex_lock(&j->lock);
        j->trouble = why;
        pthread_mutex_unlock(&j->lock);
        return;
    }
    pthread_mutex_lock(&j->lock);
    j->is_broken = false;
    j->is_full = false;
    j->trouble.code = ERR_NONE;
    pthread_mutex_unlock(&j->lock);
    log_info("the journal can be written again");
}

/* --- upkeep --- */

/* Some room is left for what upkeep itself writes. */
static bool is_over(const struct sqlite_journal *j, int64_t more)
{
    return j->max_bytes > 0 && db_bytes(j->db) + more > j->max_bytes - j->slack_bytes;
}

/* Trimming begins a little earlier, so that appends need not wait for it. */
static bool wants_room(const struct sqlite_journal *j)
{
    return is_over(j, j->slack_bytes);
}

static bool has_published(const struct sqlite_journal *j)
{
    return j->oldest_seq != 0 && j->oldest_seq <= j->saved;
}

static int64_t lateness_ms(const struct sqlite_journal *j)
{
    return j->retention_ms / 20 < LATENESS_MS ? j->retention_ms / 20 : LATENESS_MS;
}

/* When the oldest event is due for deletion, in ms from now; negative if it is overdue. */
static int64_t until_expiry_ms(struct sqlite_journal *j)
{
    int64_t late_ms = j->is_trimming ? 0 : lateness_ms(j);
    return j->oldest_kept_ms + j->retention_ms + late_ms - timeline_now(&j->time);
}

static bool wants_trim(struct sqlite_journal *j)
{
    return has_published(j) && (until_expiry_ms(j) <= 0 || wants_room(j));
}

static enum err trim_piece(struct sqlite_journal *j, uint64_t upto, int64_t kept_until, size_t *deleted, struct error *why)
{
    enum err code = db_begin(j->db, DB_LAZY, why);
    if (code == ERR_NONE) {
        code = db_event_trim(j->db, upto, kept_until, deleted, why);
    }
    if (code == ERR_NONE) {
        code = db_event_oldest(j->db, &j->oldest_seq, &j->oldest_kept_ms, why);
    }
    if (code == ERR_NONE) {
        code = db_commit(j->db, why);
    }
    if (code != ERR_NONE) {
        db_rollback(j->db);
    }
    return code;
}

/* J6: published ones only, up to the cursor that is saved. Before its time an event may go only if its key stays: those whose
 * keys are in memory only wait for the index. */
static enum err trim(struct sqlite_journal *j, struct error *why)
{
    const bool expired = until_expiry_ms(j) <= 0;
    uint64_t upto = j->saved;
    if (!expired && index_upto(j->index) < upto) {
        upto = index_upto(j->index);
    }
    if (j->oldest_seq > upto) {
        index_seal(j->index);
        return index_step(j->index, timeline_now(&j->time), why);
    }
    size_t deleted;
    enum err code = trim_piece(j, upto, expired ? timeline_now(&j->time) - j->retention_ms : INT64_MAX, &deleted, why);
    j->is_trimming = code == ERR_NONE && expired && deleted > 0;
    return code;
}

static bool wants_checkpoint(const struct sqlite_journal *j)
{
    return db_log_bytes(j->db) >= j->next_checkpoint;
}

/* If a reader is in the way, the log grows; it is tried again when it has grown as much again. */
static enum err checkpoint(struct sqlite_journal *j, struct error *why)
{
    enum err code = db_checkpoint(j->db, why);
    j->next_checkpoint = db_log_bytes(j->db) + j->checkpoint_bytes;
    bool alarm = db_log_bytes(j->db) > LOG_ALARM_BYTES;
    if (alarm && !j->log_alarm) {
        log_warn("the journal's log grows because another program keeps reading the journal",
                 LOG_INT("bytes", db_log_bytes(j->db)));
    }
    j->log_alarm = alarm;
    return code;
}

static bool has_step(struct sqlite_journal *j)
{
    return wants_checkpoint(j) || index_has_work(j->index, timeline_now(&j->time)) || wants_trim(j) ||
           stretches_has_work(j->stretches, j->oldest_seq, j->last_seq);
}

/* Trimming and the index take turns when both have work; the stretches, which only make looking quicker, wait for both. */
static enum err step(struct sqlite_journal *j, struct error *why)
{
    if (wants_checkpoint(j)) {
        return checkpoint(j, why);
    }
    const int64_t now_ms = timeline_now(&j->time);
    j->index_is_next = !j->index_is_next;
    if (wants_trim(j) && (!j->index_is_next || !index_has_work(j->index, now_ms))) {
        return trim(j, why);
    }
    if (!index_has_work(j->index, now_ms) && stretches_has_work(j->stretches, j->oldest_seq, j->last_seq)) {
        return stretches_step(j->stretches, j->last_seq, why);
    }
    return index_step(j->index, now_ms, why);
}

static void note_step(struct sqlite_journal *j, enum err code, const struct error *why)
{
    if (code == ERR_NONE) {
        j->step_back_off_ms = 0;
        return;
    }
    if (j->step_back_off_ms == 0) {
        log_warn("the journal's upkeep failed and is tried again", LOG_STR("reason", why->text));
    }
    j->step_back_off_ms = j->step_back_off_ms == 0 ? PROBE_MS : j->step_back_off_ms * 2;
    j->step_back_off_ms = j->step_back_off_ms < STEP_BACK_OFF_MS ? j->step_back_off_ms : STEP_BACK_OFF_MS;
    j->step_ms = clock_mono_ms() + j->step_back_off_ms;
}

static bool may_step(const struct sqlite_journal *j)
{
    return j->step_back_off_ms == 0 || clock_mono_ms() >= j->step_ms;
}

static void after_upkeep(struct sqlite_journal *j, int64_t upkeep_us)
{
    pthread_mutex_lock(&j->lock);
    j->longest_upkeep_us = upkeep_us > j->longest_upkeep_us ? upkeep_us : j->longest_upkeep_us;
    bool has_room = j->is_full && (has_published(j) || !wants_room(j));
    if (has_room) {
        j->is_full = false;
        j->trouble.code = ERR_NONE;
    }
    j->bytes = db_bytes(j->db);
    pthread_mutex_unlock(&j->lock);
    if (has_room) {
        log_info("the journal has room again");
    }
}

static void keep_up(struct sqlite_journal *j)
{
    const int64_t begin_us = clock_mono_us();
    if (may_step(j) && has_step(j)) {
        struct error why;
        enum err code = step(j, &why);
        if (code == ERR_NONE && index_is_behind(j->index)) {
            code = index_step(j->index, timeline_now(&j->time), &why);
        }
        note_step(j, code, &why);
    }
    after_upkeep(j, clock_mono_us() - begin_us);
}

/* --- before a batch: places for its keys and for its rows --- */

/* The index takes keys in much faster than they come; only when its steps fail, this is where the batch must fail. */
static enum err make_index_room(struct sqlite_journal *j, struct error *why)
{
    enum err code = ERR_NONE;
    while (code == ERR_NONE && index_is_stuck(j->index)) {
        code = index_step(j->index, timeline_now(&j->time), why);
    }
    return code;
}

/* One step towards more room; *stuck if there is none left to take. */
static enum err find_room(struct sqlite_journal *j, bool *stuck, struct error *why)
{
    const int64_t log_bytes = db_log_bytes(j->db);
    if (has_published(j) && log_bytes < j->checkpoint_bytes) {
        return trim(j, why);
    }
    enum err code = checkpoint(j, why);
    *stuck = db_log_bytes(j->db) >= log_bytes;
    return code == ERR_NONE && *stuck && has_published(j) ? trim(j, why) : code;
}

/* A batch takes its bytes twice: in the log, and, from the next checkpoint on, in the database. */
static enum err make_room(struct sqlite_journal *j, struct batch *batch, struct error *why)
{
    const int64_t need = 2 * (int64_t)batch->bytes, until_ms = clock_mono_ms() + MAKE_ROOM_MS;
    enum err code = ERR_NONE;
    for (bool stuck = false;
         code == ERR_NONE && !(stuck && !has_published(j)) && is_over(j, need) && clock_mono_ms() < until_ms;) {
        code = find_room(j, &stuck, why);
    }
    batch->is_full = is_over(j, need);
    return code;
}

static void note_full(struct sqlite_journal *j)
{
    pthread_mutex_lock(&j->lock);
    bool is_news = !j->is_full;
    j->is_full = true;
    error_set(&j->trouble, ERR_FULL, "the journal is full");
    pthread_mutex_unlock(&j->lock);
    if (is_news) {
        log_error("webhooks are refused because the journal is full", LOG_INT("bytes", db_bytes(j->db)),
                  LOG_INT("max_bytes", j->max_bytes));
    }
}

static void commit_batch(struct sqlite_journal *j, struct batch *batch)
{
    struct error why;
    const int64_t begun_us = clock_mono_us();
    enum err code = batch->rows > 0 ? make_index_room(j, &why) : ERR_NONE;
    if (code == ERR_NONE && batch->rows > 0) {
        code = make_room(j, batch, &why);
    }
    if (code == ERR_NONE) {
        code = write_batch(j, batch, &why);
    }
    if (code != ERR_NONE) {
        fail_batch(j, batch, &why);
        return;
    }
    if (batch->is_full) {
        note_full(j);
    }
    if (batch->stored > 0) {
        metrics_observe(HISTOGRAM_COMMIT_DURATION, clock_mono_us() - begun_us);
        metrics_observe(HISTOGRAM_COMMIT_EVENTS, (int64_t)batch->stored);
    }
    finish_batch(j, batch);
}

/* --- replays: a piece at a time, each a transaction of its own --- */

/* An event that is to be replayed: read, then stored again. */
struct picked {
    struct db_look row; /* of its slices, only those of event are still there */
    struct journal_event *event;
};

struct piece {
    struct picked picked[READ_EVENTS];
    size_t rows;
    size_t bytes, living_bytes; /* dead ones move, living ones are stored once more */
    uint64_t cursor;            /* events up to it are published, if not dead */
    uint64_t at;                /* how far the replay has come */
    bool is_last, no_memory;
};

static void free_piece(struct piece *piece)
{
    for (size_t i = 0; i < piece->rows; i++) {
        journal_event_free(piece->picked[i].event);
    }
}

static bool is_replayable(const struct piece *piece, const struct db_look *row)
{
    return row->is_dead || (!row->is_moved && row->seq <= piece->cursor);
}

static bool pick(struct piece *piece, const struct db_look *row)
{
    char *body = slice_dup(row->body);
    struct journal_event *event = body ? journal_event_new(row->key, clock_wall_ms(), row->head, body, row->body.size) : NULL;
    if (!event) {
        return false;
    }
    event->is_replay = true;
    piece->picked[piece->rows++] = (struct picked){*row, event};
    piece->bytes += event_bytes(event) + ROW_OVERHEAD;
    piece->living_bytes += row->is_dead ? 0 : event_bytes(event) + ROW_OVERHEAD;
    return true;
}

static bool is_whole(const struct piece *piece, size_t more)
{
    return piece->rows == READ_EVENTS || (piece->rows > 0 && piece->bytes + more > READ_BYTES);
}

static enum err pick_listed(struct sqlite_journal *j, const struct journal_replay *replay, struct piece *piece,
                            struct error *why)
{
    enum err code = ERR_NONE;
    for (size_t looked = 0; piece->at < replay->seq_count && code == ERR_NONE && !piece->no_memory; piece->at++) {
        struct db_look row;
        bool found;
        if (looked++ == REPLAY_LOOKS || is_whole(piece, 0)) {
            piece->is_last = false;
            break;
        }
        code = db_look_one(j->db, replay->seqs[piece->at], &row, &found, why);
        if (found) {
            piece->no_memory = row.seq <= replay->upto && is_replayable(piece, &row) && !pick(piece, &row);
            db_look_end(j->db);
        }
    }
    return code;
}

struct picking {
    struct sqlite_journal *j;
    const struct journal_replay *replay;
    struct piece *piece;
    bool is_cut;
    enum err code; /* with why, of a lookup beside the walk */
    struct error *why;
};

static bool is_in_time(const struct journal_replay *replay, const struct db_look *row)
{
    return row->accepted_ms >= replay->since_ms && row->accepted_ms < replay->until_ms;
}

/* A published replay of an event that is replayed by this call itself: with it, each call would double what the last one did. */
static bool is_double(struct picking *picking, const struct db_look *row)
{
    struct db_look original;
    bool found;
    if (row->is_dead || !row->is_replay) {
        return false;
    }
    picking->code = db_look_one(picking->j->db, row->link, &original, &found, picking->why);
    bool is = found && !original.is_dead && !original.is_moved && is_in_time(picking->replay, &original);
    db_look_end(picking->j->db);
    return is;
}

/* For db_look. Stops at the first row that does not fit into the piece any more. */
static bool pick_row(void *ctx, const struct db_look *row)
{
    struct picking *picking = ctx;
    struct piece *piece = picking->piece;
    bool wanted = is_replayable(piece, row) && is_in_time(picking->replay, row) && !is_double(picking, row);
    picking->is_cut = wanted && is_whole(piece, row->head.size + row->body.size + ROW_OVERHEAD);
    if (picking->is_cut) {
        return false;
    }
    piece->at = row->seq;
    piece->no_memory = wanted && !pick(piece, row);
    return !piece->no_memory && picking->code == ERR_NONE;
}

struct passing {
    const struct journal_replay *replay;
    uint64_t next; /* everything before it is out of time */
    size_t stretches;
};

static bool pass_stretch(void *ctx, const struct db_stretch *stretch)
{
    struct passing *passing = ctx;
    const struct journal_replay *replay = passing->replay;
    if (stretch->number * DB_STRETCH > passing->next || stretch_overlaps(stretch, replay->since_ms, replay->until_ms)) {
        return false;
    }
    passing->next = (stretch->number + 1) * DB_STRETCH;
    return ++passing->stretches < REPLAY_LOOKS;
}

/* Passes over what was accepted at other times without reading it. */
static enum err pass_over(struct sqlite_journal *j, const struct journal_replay *replay, uint64_t *at, struct error *why)
{
    struct passing passing = {.replay = replay, .next = *at + 1};
    enum err code =
        db_stretch_walk(j->db, passing.next / DB_STRETCH, replay->upto / DB_STRETCH, false, pass_stretch, &passing, why);
    *at = passing.next - 1 < replay->upto ? passing.next - 1 : replay->upto;
    return code;
}

/* Looks at a bounded stretch of numbers, so that what lies between the events that are wanted holds up no append. */
static enum err pick_all(struct sqlite_journal *j, const struct journal_replay *replay, struct piece *piece, struct error *why)
{
    enum err code = pass_over(j, replay, &piece->at, why);
    if (code != ERR_NONE) {
        return code;
    }
    const uint64_t left = replay->upto - piece->at;
    const struct db_looking looking = {
        .kinds = replay->dead_only ? DB_DEAD : DB_ALL,
        .after = piece->at,
        .upto = left > REPLAY_LOOKS ? piece->at + REPLAY_LOOKS : replay->upto,
        .since_ms = INT64_MIN,
        .until_ms = INT64_MAX,
    };
    struct picking picking = {.j = j, .replay = replay, .piece = piece, .why = why};
    code = db_look(j->db, &looking, pick_row, &picking, why);
    code = code == ERR_NONE ? picking.code : code;
    if (code == ERR_NONE && !picking.is_cut && !piece->no_memory) {
        piece->at = looking.upto;
    }
    piece->is_last = piece->at >= replay->upto;
    return code;
}

/* Narrows the numbers down by the times, with an allowance for clocks that differ. */
static enum err bound_replay(struct sqlite_journal *j, struct journal_replay *replay, struct error *why)
{
    int64_t kept_ms;
    uint64_t seq;
    if (__builtin_sub_overflow(replay->since_ms, CLOCK_ALLOWANCE_MS, &kept_ms)) {
        kept_ms = INT64_MIN; /* the first one of all */
    }
    enum err code = db_first_since(j->db, kept_ms, &seq, why);
    replay->at = code == ERR_NONE ? seq - 1 : 0;
    if (code == ERR_NONE && !__builtin_add_overflow(replay->until_ms, CLOCK_ALLOWANCE_MS, &kept_ms)) {
        code = db_first_since(j->db, kept_ms, &seq, why);
        replay->upto = code == ERR_NONE && seq <= replay->upto ? seq - 1 : replay->upto;
    }
    replay->at = replay->at < replay->upto ? replay->at : replay->upto;
    return code;
}

static enum err pick_piece(struct sqlite_journal *j, struct journal_replay *replay, struct piece *piece, struct error *why)
{
    piece->rows = piece->bytes = piece->living_bytes = 0;
    piece->at = replay->at;
    piece->is_last = true;
    piece->no_memory = false;
    pthread_mutex_lock(&j->lock);
    piece->cursor = savable_cursor(j, 0); /* behind a burial that is not yet made: that event is dead, not published */
    pthread_mutex_unlock(&j->lock);
    enum err code = ERR_NONE;
    if (replay->seq_count > 0) {
        code = pick_listed(j, replay, piece, why);
    } else {
        code = piece->at == 0 ? bound_replay(j, replay, why) : ERR_NONE;
        piece->at = replay->at;
        code = code == ERR_NONE ? pick_all(j, replay, piece, why) : code;
    }
    return piece->no_memory ? error_set(why, ERR_MEMORY, "no memory for the journal") : code;
}

/* What is dead gives its own place up, so that a journal that is full of dead events is no dead end. */
static enum err make_replay_room(struct sqlite_journal *j, const struct piece *piece, struct error *why)
{
    struct batch needs = {.bytes = piece->living_bytes};
    enum err code = piece->living_bytes > 0 ? make_room(j, &needs, why) : ERR_NONE;
    return code == ERR_NONE && needs.is_full ? error_set(why, ERR_FULL, "the journal is full") : code;
}

static enum err write_piece(struct sqlite_journal *j, struct piece *piece, uint64_t *last_seq, uint64_t *dead,
                            struct error *why)
{
    const int64_t now_ms = timeline_now(&j->time);
    enum err code = db_check_files(j->db, why);
    if (code == ERR_NONE) {
        code = db_begin(j->db, DB_DURABLE, why);
    }
    for (size_t i = 0; i < piece->rows && code == ERR_NONE; i++) {
        struct picked *picked = &piece->picked[i];
        picked->event->seq = ++*last_seq;
        code = db_replay_put(j->db, picked->event, &picked->row, now_ms, why);
        *dead -= picked->row.is_dead;
        code = code == ERR_NONE ? stretches_add(j->stretches, picked->event, why) : code;
    }
    if (code == ERR_NONE) {
        code = db_state_write(j->db, piece->cursor, *dead, now_ms, why);
    }
    code = code == ERR_NONE ? db_commit(j->db, why) : code;
    if (code != ERR_NONE) {
        db_rollback(j->db);
        stretches_undo(j->stretches);
    } else {
        stretches_commit(j->stretches);
    }
    return code;
}

static void finish_piece(struct sqlite_journal *j, struct piece *piece, uint64_t last_seq, uint64_t dead)
{
    index_pass(j->index, last_seq, piece->bytes);
    if (j->oldest_seq == 0) {
        j->oldest_seq = piece->picked[0].event->seq;
        j->oldest_kept_ms = j->time.now_ms;
    }
    pthread_mutex_lock(&j->lock);
    for (size_t i = 0; i < piece->rows; i++) {
        hand_over(j, piece->picked[i].event);
        piece->picked[i].event = NULL;
    }
    j->last_seq = last_seq;
    if (j->saved != piece->cursor) {
        j->saved = piece->cursor;
        j->unsaved_ms = clock_mono_ms();
    }
    j->dead = dead;
    j->bytes = db_bytes(j->db);
    pthread_mutex_unlock(&j->lock);
    metrics_add(METRIC_JOURNAL_COMMITS, 1);
    j->base.hooks.claimable(j->base.hooks.claimable_ctx);
}

static enum err replay_piece(struct sqlite_journal *j, struct journal_replay *replay, bool *is_last, bool *broke,
                             struct error *why)
{
    struct piece piece;
    uint64_t last_seq = j->last_seq, dead = j->dead;
    enum err code = pick_piece(j, replay, &piece, why);
    if (code == ERR_NONE) {
        code = make_replay_room(j, &piece, why);
    }
    if (code == ERR_NONE && piece.rows > 0) {
        code = write_piece(j, &piece, &last_seq, &dead, why);
        *broke = code != ERR_NONE && code != ERR_MEMORY;
    }
    if (code == ERR_NONE && piece.rows > 0) {
        finish_piece(j, &piece, last_seq, dead);
        replay->replayed += piece.rows;
    }
    replay->at = piece.at;
    *is_last = piece.is_last;
    free_piece(&piece);
    return code;
}

static void end_replay(struct sqlite_journal *j, struct journal_replay *replay, const struct error *why)
{
    pthread_mutex_lock(&j->lock);
    ASSERT(j->replays == replay);
    j->replays = replay->next;
    if (!j->replays) {
        j->replays_end = &j->replays;
    }
    pthread_mutex_unlock(&j->lock);
    log_info("events were queued for publishing again", LOG_INT("events", replay->replayed));
    replay_finish(replay, why);
}

static void go_on_replaying(struct sqlite_journal *j)
{
    struct error why;
    bool is_last = true, broke = false;
    pthread_mutex_lock(&j->lock);
    struct journal_replay *replay = j->replays;
    pthread_mutex_unlock(&j->lock);
    enum err code = replay ? replay_piece(j, replay, &is_last, &broke, &why) : ERR_NONE;
    if (broke) {
        struct append_list queue;
        metrics_add(METRIC_JOURNAL_COMMIT_ERRORS, 1);
        break_down(j, &queue, &why);
        refuse_all(j, &queue, why.text);
        end_replays(j, &why);
    } else if (replay && (is_last || code != ERR_NONE)) {
        end_replay(j, replay, code == ERR_NONE ? NULL : &why);
    }
}

/* --- the thread --- */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* How long the thread may sleep: 0 if there is something to do. Under the lock. */
static int64_t idle_ms(struct sqlite_journal *j)
{
    const int64_t now_ms = clock_mono_ms();
    if (j->stopping || j->queue.first) {
        return 0;
    }
    if (j->is_broken) {
        return j->probe_ms > now_ms ? least(j->probe_ms - now_ms, heartbeat_sleep_ms()) : 0;
    }
    if (j->burials || j->replays || (is_unsaved(j) && j->is_full)) {
        return 0;
    }
    int64_t wait_ms = heartbeat_sleep_ms();
    if (is_unsaved(j)) {
        wait_ms = least(wait_ms, j->unsaved_ms + SAVE_MS - now_ms);
    }
    if (!may_step(j)) {
        wait_ms = least(wait_ms, j->step_ms - now_ms);
    } else if (has_step(j)) {
        return 0;
    } else if (has_published(j)) {
        wait_ms = least(wait_ms, until_expiry_ms(j) + 1);
    }
    return wait_ms > 0 ? wait_ms : 0;
}

static void sleep_until_woken(struct sqlite_journal *j, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&j->wake, &j->lock, &until);
}

static bool has_work(const struct batch *batch)
{
    return batch->rows > 0 || batch->burial_count > 0 || batch->must_save;
}

/* A commit costs much the same however many events it has, and a thread that sleeps must be woken: so whoever is about to hand
 * over goes first. With nobody there that costs a microsecond or two. */
static void let_others_go_first(struct sqlite_journal *j)
{
    for (int i = 0; i < YIELDS && !j->queue.first; i++) {
        pthread_mutex_unlock(&j->lock);
        sched_yield();
        pthread_mutex_lock(&j->lock);
    }
}

/* Waits for work and takes it. False when the journal stops and all is done that can be. */
static bool collect(struct sqlite_journal *j, struct heartbeat *heartbeat, struct batch *batch)
{
    pthread_mutex_lock(&j->lock);
    heartbeat_beat(heartbeat, clock_mono_ms());
    let_others_go_first(j);
    for (int64_t ms; (ms = idle_ms(j)) > 0;) {
        sleep_until_woken(j, ms);
        heartbeat_beat(heartbeat, clock_mono_ms());
    }
    take_batch(j, batch);
    bool goes_on = !j->stopping || (has_work(batch) && !j->is_broken);
    pthread_mutex_unlock(&j->lock);
    return goes_on;
}

static void *journal_thread(void *ctx)
{
    struct sqlite_journal *j = ctx;
    struct batch batch;
    struct heartbeat heartbeat;
    heartbeat_begin(&heartbeat, "journal", clock_mono_ms());
    while (collect(j, &heartbeat, &batch)) {
        if (j->is_broken) {
            probe(j);
            continue;
        }
        if (has_work(&batch)) {
            commit_batch(j, &batch);
        }
        if (!j->is_broken) {
            go_on_replaying(j);
        }
        if (!j->is_broken) {
            keep_up(j);
        }
    }
    struct error why;
    error_set(&why, ERR_CLOSED, "stopping");
    end_replays(j, &why);
    heartbeat_end(&heartbeat);
    return NULL;
}

/* --- opening and closing --- */

static void free_journal(struct sqlite_journal *j)
{
    db_close(&j->reader);
    index_close(&j->index);
    stretches_close(&j->stretches);
    db_close(&j->db);
    file_lock_release(&j->file_lock);
    drop_burials(j, j->burial_count);
    held_free(j->lane.first);
    pthread_cond_destroy(&j->wake);
    pthread_mutex_destroy(&j->lock);
    free(j->path);
    free(j);
}

/* How long the first event that is pending has waited already. */
static enum err load_passed(struct sqlite_journal *j, struct error *why)
{
    struct journal_event *first = NULL;
    enum err code = db_event_read(j->db, j->lane.cursor, j->last_seq, 1, 1, &first, why);
    j->passed_ms = first ? first->accepted_ms : 0;
    journal_event_free(first);
    return code;
}

static enum err load(struct sqlite_journal *j, struct error *why)
{
    struct db_state state;
    int64_t kept_ms;
    enum err code = db_state_read(j->db, &state, why);
    if (code == ERR_NONE) {
        code = db_event_last(j->db, &j->last_seq, &kept_ms, why);
    }
    if (code == ERR_NONE) {
        code = db_event_oldest(j->db, &j->oldest_seq, &j->oldest_kept_ms, why);
    }
    if (code != ERR_NONE) {
        return code;
    }
    /* J2: when all events are gone, the cursor still knows the last number. */
    j->last_seq = j->last_seq > state.cursor ? j->last_seq : state.cursor;
    j->saved = j->loaded = j->lane.cursor = j->lane.claimed = state.cursor;
    j->has_gap = j->last_seq > state.cursor;
    j->dead = state.dead;
    memcpy(j->identity, state.identity, sizeof j->identity);
    code = load_passed(j, why);
    if (code != ERR_NONE) {
        return code;
    }
    timeline_start(&j->time, kept_ms > state.clock_ms ? kept_ms : state.clock_ms);
    struct index_options options = {j->db, j->retention_ms, FRESH_KEYS, FRESH_BYTES, &run_limits};
    if (j->max_bytes > 0 && j->max_bytes / 8 < FRESH_BYTES) {
        options.fresh_bytes = (size_t)j->max_bytes / 8;
    }
    j->stretches = stretches_open(j->db, j->label);
    return j->stretches ? index_open(&j->index, &options, state.indexed, why)
                        : error_set(why, ERR_MEMORY, "no memory for the journal");
}

static enum err write_state(struct sqlite_journal *j, struct error *why)
{
    enum err code = db_begin(j->db, DB_DURABLE, why);
    if (code == ERR_NONE) {
        code = db_state_write(j->db, j->saved, j->dead, timeline_now(&j->time), why);
    }
    if (code == ERR_NONE) {
        code = db_commit(j->db, why);
    }
    if (code != ERR_NONE) {
        db_rollback(j->db);
    }
    j->bytes = db_bytes(j->db);
    return code;
}

static void leave_as_it_was(struct sqlite_journal *j, const struct file_look *look)
{
    db_close(&j->reader);
    index_close(&j->index);
    stretches_close(&j->stretches);
    if (j->db && look->has_log) {
        db_keep_log(j->db);
    }
    db_close(&j->db);
    if (look->is_created) {
        unlink(j->path);
    }
}

static enum err open_files(struct sqlite_journal *j, struct error *why)
{
    struct file_look look;
    enum err code = file_lock_take(&j->file_lock, j->path, why);
    if (code == ERR_NONE) {
        code = file_look(j->path, &look, why);
    }
    if (code != ERR_NONE) {
        return code;
    }
    code = db_open(&j->db, j->path, &look, why);
    if (code == ERR_NONE) {
        code = load(j, why);
    }
    if (code == ERR_NONE) {
        code = db_stretches_create(j->db, why);
    }
    if (code == ERR_NONE) {
        code = write_state(j, why); /* better to know at the start that nothing can be written */
    }
    if (code == ERR_NONE) {
        code = db_open_reader(&j->reader, j->path, why);
    }
    if (code != ERR_NONE) {
        leave_as_it_was(j, &look);
    }
    return code;
}

static void init_locks(struct sqlite_journal *j)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&j->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&j->lock, NULL);
}

static const struct journal_ops sqlite_ops;

enum err journal_open_sqlite(struct journal **out, const struct journal_options *options, struct error *why)
{
    *out = NULL;
    struct sqlite_journal *j = calloc(1, sizeof *j);
    if (!j) {
        return error_set(why, ERR_MEMORY, "no memory to open the journal");
    }
    init_locks(j);
    j->base.ops = &sqlite_ops;
    j->file_lock.fd = -1;
    j->retention_ms = options->retention_ms;
    j->max_bytes = options->max_bytes;
    j->label = options->label;
    j->checkpoint_bytes = CHECKPOINT_BYTES;
    if (j->max_bytes > 0) {
        j->checkpoint_bytes = least(j->checkpoint_bytes, j->max_bytes / 16);
        j->slack_bytes = least(SLACK_BYTES, j->max_bytes / 16);
    }
    j->next_checkpoint = j->checkpoint_bytes;
    append_list_init(&j->queue);
    j->burials_end = &j->burials;
    j->replays_end = &j->replays;
    j->path = slice_dup(slice_of(options->path));
    enum err code = j->path ? open_files(j, why) : error_set(why, ERR_MEMORY, "no memory to open the journal");
    if (code != ERR_NONE) {
        free_journal(j);
        return code;
    }
    *out = &j->base;
    return ERR_NONE;
}

static enum err start_journal(struct journal *journal, struct error *why)
{
    struct sqlite_journal *j = self(journal);
    bool has_pending = j->has_gap;
    if (pthread_create(&j->thread, NULL, journal_thread, j) != 0) {
        return error_set(why, ERR_MEMORY, "cannot start the journal's thread");
    }
    j->has_thread = true;
    pthread_setname_np(j->thread, "journal");
    if (has_pending) {
        journal->hooks.claimable(journal->hooks.claimable_ctx);
    }
    return ERR_NONE;
}

static void close_journal(struct journal *journal)
{
    struct sqlite_journal *j = self(journal);
    pthread_mutex_lock(&j->lock);
    j->stopping = true;
    pthread_cond_signal(&j->wake);
    pthread_mutex_unlock(&j->lock);
    if (j->has_thread) {
        pthread_join(j->thread, NULL);
        struct error why;
        if (!j->is_broken && write_state(j, &why) != ERR_NONE) { /* of the clock, for the last time */
            log_warn("the journal's state could not be saved", LOG_STR("reason", why.text));
        }
    }
    free_journal(j);
}

static enum err identity(struct journal *journal, char out[JOURNAL_IDENTITY_SIZE], struct error *why)
{
    (void)why;
    memcpy(out, self(journal)->identity, JOURNAL_IDENTITY_SIZE);
    return ERR_NONE;
}

/* --- ingress --- */

static void append(struct journal *journal, struct journal_append *batch)
{
    struct sqlite_journal *j = self(journal);
    struct error why = {0};
    struct append_list list;
    append_list_init(&list);
    while (batch) {
        struct journal_append *next = batch->next;
        append_list_add(&list, batch);
        batch = next;
    }
    if (!list.first) {
        return;
    }
    pthread_mutex_lock(&j->lock);
    bool takes = !j->stopping && !j->is_broken;
    if (takes) {
        *j->queue.end = list.first;
        j->queue.end = list.end;
        pthread_cond_signal(&j->wake);
    } else if (j->is_broken) {
        why = j->trouble;
    } else {
        error_set(&why, ERR_CLOSED, "stopping");
    }
    pthread_mutex_unlock(&j->lock);
    if (!takes) {
        refuse_all(j, &list, why.text);
    }
}

static void replay_begin(struct journal *journal, struct journal_replay *replay)
{
    struct sqlite_journal *j = self(journal);
    struct error why = {0};
    pthread_mutex_lock(&j->lock);
    if (j->is_broken) {
        why = j->trouble;
    } else if (j->stopping) {
        error_set(&why, ERR_CLOSED, "stopping");
    } else {
        replay->at = 0;
        replay->upto = j->last_seq;
        *j->replays_end = replay;
        j->replays_end = &replay->next;
        pthread_cond_signal(&j->wake);
    }
    pthread_mutex_unlock(&j->lock);
    if (why.code != ERR_NONE) {
        replay_finish(replay, &why);
    }
}

static enum err ready(struct journal *journal, struct error *why)
{
    struct sqlite_journal *j = self(journal);
    pthread_mutex_lock(&j->lock);
    enum err code = j->trouble.code;
    if (code != ERR_NONE && why) {
        *why = j->trouble;
    }
    pthread_mutex_unlock(&j->lock);
    return code;
}

static void state(struct journal *journal, struct journal_state *out)
{
    struct sqlite_journal *j = self(journal);
    pthread_mutex_lock(&j->lock);
    const bool is_pending = j->last_seq > j->lane.cursor;
    *out = (struct journal_state){.last_seq = j->last_seq,
                                  .cursor = j->lane.cursor,
                                  .dead = j->dead,
                                  .bytes = j->bytes,
                                  .longest_upkeep_us = j->longest_upkeep_us};
    out->oldest_pending_ms = !is_pending ? 0 : j->lane.first ? j->lane.first->event.accepted_ms : j->passed_ms;
    pthread_mutex_unlock(&j->lock);
}

/* --- publisher --- */

/* Reads the next piece of the gap into the lane. Called with the lock, which it lets go while it reads: only the publisher's
 * thread, which is here, closes a gap or moves loaded while there is one. */
static enum err read_gap(struct sqlite_journal *j, struct error *why)
{
    const uint64_t after = j->loaded, upto = j->last_seq;
    struct journal_event *list;
    pthread_mutex_unlock(&j->lock);
    enum err code = db_event_read(j->reader, after, upto, READ_EVENTS, READ_BYTES, &list, why);
    pthread_mutex_lock(&j->lock);
    if (code != ERR_NONE) {
        return code;
    }
    if (!list) {
        j->loaded = upto;
    }
    while (list) {
        struct journal_event *next = list->next;
        lane_add(&j->lane, list);
        j->loaded = list->seq;
        list = next;
    }
    j->has_gap = j->loaded < j->last_seq;
    return ERR_NONE;
}

static enum err claim(struct journal *journal, size_t max, size_t max_bytes, struct journal_event **list, struct error *why)
{
    struct sqlite_journal *j = self(journal);
    enum err code = ERR_NONE;
    pthread_mutex_lock(&j->lock);
    while (code == ERR_NONE && !j->lane.unclaimed && j->has_gap) {
        code = read_gap(j, why);
    }
    *list = lane_claim(&j->lane, max, max_bytes);
    pthread_mutex_unlock(&j->lock);
    return code;
}

static void settle(struct journal *journal, uint64_t seq)
{
    struct sqlite_journal *j = self(journal);
    pthread_mutex_lock(&j->lock);
    bool was_unsaved = is_unsaved(j);
    struct held *gone = lane_settle(&j->lane, seq);
    if (!was_unsaved && is_unsaved(j)) {
        j->unsaved_ms = clock_mono_ms();
        pthread_cond_signal(&j->wake); /* to be saved when its time has come */
    } else if (j->is_full) {
        pthread_cond_signal(&j->wake);
    }
    j->passed_ms = gone ? gone->event.accepted_ms : j->passed_ms;
    pthread_mutex_unlock(&j->lock);
    held_free(gone);
}

/* Cuts at a character's end. */
static void copy_reason(char out[JOURNAL_MAX_REASON + 1], const char *reason)
{
    size_t size = strnlen(reason, JOURNAL_MAX_REASON + 1);
    if (size > JOURNAL_MAX_REASON) {
        size = JOURNAL_MAX_REASON;
        while (size > 0 && ((unsigned char)reason[size] & 0xc0) == 0x80) {
            size--;
        }
    }
    memcpy(out, reason, size);
    out[size] = 0;
}

static enum err bury(struct journal *journal, uint64_t seq, const char *reason, struct error *why)
{
    struct sqlite_journal *j = self(journal);
    struct burial *burial = malloc(sizeof *burial);
    if (!burial) {
        return error_set(why, ERR_MEMORY, "no memory to keep event %llu as dead", (unsigned long long)seq);
    }
    *burial = (struct burial){.seq = seq};
    copy_reason(burial->reason, reason);
    pthread_mutex_lock(&j->lock);
    ASSERT(seq > j->lane.cursor && seq <= j->lane.claimed);
    bool takes = j->burial_count < BURIALS;
    if (takes) {
        *j->burials_end = burial;
        j->burials_end = &burial->next;
        j->burial_count++;
        pthread_cond_signal(&j->wake);
    }
    pthread_mutex_unlock(&j->lock);
    if (!takes) {
        free(burial);
        return error_set(why, ERR_BUSY, "too many dead events wait for the journal to be written");
    }
    return ERR_NONE; /* cppcheck-suppress memleak ; the list owns it */
}

static void rewind_claims(struct journal *journal)
{
    struct sqlite_journal *j = self(journal);
    pthread_mutex_lock(&j->lock);
    lane_rewind(&j->lane);
    pthread_mutex_unlock(&j->lock);
}

static void link_changed(struct journal *journal, bool up, const char *why)
{
    (void)journal, (void)up, (void)why; /* events wait on disk */
}

static const struct journal_ops sqlite_ops = {
    .start = start_journal,
    .close = close_journal,
    .identity = identity,
    .append = append,
    .replay = replay_begin,
    .ready = ready,
    .claim = claim,
    .settle = settle,
    .bury = bury,
    .rewind = rewind_claims,
    .link = link_changed,
    .state = state,
    .keeps = true,
};
