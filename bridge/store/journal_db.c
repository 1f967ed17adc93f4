/* The tables hold what their statements say and no trigger, view or second index: an event costs one insertion at the end of
 * a b-tree, and its key, later, one insertion among many others in key order (journal_index.c).
 *
 * accepted is the sender's side of time (the wall clock, for the publisher), kept the journal's (its own clock, which never
 * goes back; for retention). kept and key stand before head and body, so that reading them touches no overflow page. */
#include "journal_db.h"
#include "journal_internal.h"
#include "journal_vfs.h"

#include <sqlite3.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char schema[] =
    "CREATE TABLE state(id INTEGER PRIMARY KEY CHECK(id = 1), identity TEXT NOT NULL, cursor INTEGER NOT NULL,"
    " indexed INTEGER NOT NULL, dead INTEGER NOT NULL, clock INTEGER NOT NULL);"
    "CREATE TABLE events(seq INTEGER PRIMARY KEY, accepted INTEGER NOT NULL, kept INTEGER NOT NULL, flags INTEGER NOT NULL,"
    " key BLOB NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL);"
    "CREATE TABLE dead(seq INTEGER PRIMARY KEY, died INTEGER NOT NULL, reason TEXT NOT NULL, accepted INTEGER NOT NULL,"
    " kept INTEGER NOT NULL, flags INTEGER NOT NULL, key BLOB NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL);"
    "CREATE TABLE runs(number INTEGER PRIMARY KEY, level INTEGER NOT NULL, state INTEGER NOT NULL, keys INTEGER NOT NULL,"
    " last INTEGER NOT NULL, pages INTEGER NOT NULL, stride INTEGER NOT NULL, filter INTEGER NOT NULL, high BLOB NOT NULL);"
    "CREATE TABLE pages(id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);"
    "CREATE TABLE probe(id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);";

/* Came later than the others. An earlier version takes no notice of it, so it makes no new schema. */
static const char stretches_schema[] =
    "CREATE TABLE stretches(number INTEGER PRIMARY KEY, earliest INTEGER NOT NULL, latest INTEGER NOT NULL,"
    " labels BLOB NOT NULL);";

enum statement {
    BEGIN,
    COMMIT,
    ROLLBACK,
    PAGE_COUNT,
    FREE_COUNT,
    PAGE_BYTES,
    TOUCH_ALL,
    STATE_READ,
    STATE_WRITE,
    INDEXED_WRITE,
    PROBE_PUT,
    PROBE_DELETE,
    EVENT_PUT,
    EVENT_NEXT,
    EVENTS_NEXT,
    EVENT_LAST,
    EVENT_OLDEST,
    EVENT_READ,
    EVENT_KEYS,
    EVENT_SIZES,
    EVENT_DELETE,
    EVENT_BURY,
    RUN_LIST,
    RUN_PUT,
    RUN_DELETE,
    PAGE_PUT,
    PAGE_GET,
    PAGE_NTH,
    PAGES_DELETE,
    BEGIN_READING,
    LOOK_DOWN,
    LOOK_UP,
    DEAD_DOWN,
    DEAD_UP,
    LOOK_ONE,
    EVENT_FROM,
    DEAD_FROM,
    EVENT_MOVE,
    DEAD_DELETE,
    STRETCH_READ,
    OF_STRETCHES, /* those from here on need the table */
    STRETCH_PUT = OF_STRETCHES,
    STRETCH_DELETE,
    STRETCH_DOWN,
    STRETCH_UP,
    STATEMENT_COUNT
};

/* An event behind the last one, whose number follows from that: SQLite then looks for no place in the b-tree. OR
 * FAIL, since the caller rolls all of it back: eight rows a statement would need a journal of their own to be taken back one by one. */
#define NEXT_SQL "INSERT OR FAIL INTO events(accepted, kept, flags, key, head, body) VALUES" NEXT_ROW
#define NEXT_ROW "(?, ?, ?, ?, ?, ?)"
#define NEXT_ROWS NEXT_SQL ", " NEXT_ROW ", " NEXT_ROW ", " NEXT_ROW ", " NEXT_ROW ", " NEXT_ROW ", " NEXT_ROW ", " NEXT_ROW

#define BURY_SQL                                                                            \
    "INSERT OR IGNORE INTO dead(seq, died, reason, accepted, kept, flags, key, head, body)" \
    " SELECT seq, ?2, ?3, accepted, kept, flags, key, head, body FROM events WHERE seq = ?1"

#define LOOK_COLUMNS(t) #t ".seq AS seq, " #t ".accepted, " #t ".kept, " #t ".flags, " #t ".key, " #t ".head, " #t ".body"

/* ?1 < seq <= ?2, ?3 <= accepted < ?4, ?5: dead ones too. Both halves come in the order of their b-trees and are merged row by
 * row. A moved event (flag 2) is shown only where a crash between its replay and the saving of the cursor made it dead again. */
#define LOOK_WHERE(t) #t ".seq > ?1 AND " #t ".seq <= ?2 AND " #t ".accepted >= ?3 AND " #t ".accepted < ?4"
#define LOOK_SQL                                                                                                      \
    "SELECT " LOOK_COLUMNS(e) ", d.died, d.reason FROM events e LEFT JOIN dead d ON d.seq = e.seq WHERE " LOOK_WHERE( \
        e) " AND (?5 OR d.seq IS NULL) AND (e.flags & 2 = 0 OR d.seq IS NOT NULL) UNION ALL " DEAD_SQL                \
           " AND ?5 AND NOT EXISTS(SELECT 1 FROM events e WHERE e.seq = d.seq)"
#define DEAD_SQL "SELECT " LOOK_COLUMNS(d) ", d.died, d.reason FROM dead d WHERE " LOOK_WHERE(d)
#define LOOK_ONE_SQL                                                                                            \
    "SELECT " LOOK_COLUMNS(d) ", d.died, d.reason FROM dead d WHERE d.seq = ?1 UNION ALL SELECT " LOOK_COLUMNS( \
        e) ", NULL, NULL FROM events e WHERE e.seq = ?1 LIMIT 1"

#define STRETCH_READ_SQL                                                                                                    \
    "SELECT " LOOK_COLUMNS(e) ", NULL, NULL FROM events e WHERE e.seq >= ?1 AND e.seq < ?2 UNION ALL SELECT " LOOK_COLUMNS( \
        d) ", NULL, NULL FROM dead d WHERE d.seq >= ?1 AND d.seq < ?2"                                                      \
           " AND NOT EXISTS(SELECT 1 FROM events e WHERE e.seq = d.seq) ORDER BY seq"
#define STRETCH_SQL "SELECT number, earliest, latest, labels FROM stretches WHERE number BETWEEN ?1 AND ?2 ORDER BY number"

#define TOUCH_SQL                                                                                 \
    "SELECT EXISTS(SELECT 1 FROM dead), EXISTS(SELECT 1 FROM runs), EXISTS(SELECT 1 FROM pages)," \
    " EXISTS(SELECT 1 FROM probe)"

static const char *const statements[STATEMENT_COUNT] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [PAGE_COUNT] = "PRAGMA page_count",
    [FREE_COUNT] = "PRAGMA freelist_count",
    [PAGE_BYTES] = "PRAGMA page_size",
    [TOUCH_ALL] = TOUCH_SQL,
    [STATE_READ] = "SELECT identity, cursor, indexed, dead, clock FROM state WHERE id = 1",
    [STATE_WRITE] = "UPDATE state SET cursor = ?1, dead = ?2, clock = ?3 WHERE id = 1",
    [INDEXED_WRITE] = "UPDATE state SET indexed = ?1 WHERE id = 1",
    [PROBE_PUT] = "INSERT OR REPLACE INTO probe VALUES(1, zeroblob(?1))",
    [PROBE_DELETE] = "DELETE FROM probe",
    [EVENT_PUT] = "INSERT INTO events(seq, accepted, kept, flags, key, head, body) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [EVENT_NEXT] = NEXT_SQL,
    [EVENTS_NEXT] = NEXT_ROWS,
    [EVENT_LAST] = "SELECT seq, kept FROM events ORDER BY seq DESC LIMIT 1",
    [EVENT_OLDEST] = "SELECT seq, kept FROM events ORDER BY seq LIMIT 1",
    [EVENT_READ] =
        "SELECT seq, accepted, flags, key, head, body FROM events WHERE seq > ?1 AND seq <= ?2 AND flags & 2 = 0 ORDER BY seq"
        " LIMIT ?3",
    [EVENT_KEYS] = "SELECT kept, key FROM events WHERE seq > ?1 AND flags & 1 = 0 ORDER BY seq",
    [EVENT_SIZES] = "SELECT seq, kept, length(head) + length(body) FROM events WHERE seq <= ?1 ORDER BY seq LIMIT ?2",
    [EVENT_DELETE] = "DELETE FROM events WHERE seq <= ?1",
    [EVENT_BURY] = BURY_SQL,
    [RUN_LIST] = "SELECT number, level, state, keys, last, pages, stride, filter, high FROM runs ORDER BY number LIMIT ?1",
    [RUN_PUT] = "INSERT OR REPLACE INTO runs(number, level, state, keys, last, pages, stride, filter, high)"
                " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [RUN_DELETE] = "DELETE FROM runs WHERE number = ?1",
    [PAGE_PUT] = "INSERT INTO pages(id, bytes) VALUES(?1, ?2)",
    [PAGE_GET] = "SELECT bytes FROM pages WHERE id = ?1",
    [PAGE_NTH] = "SELECT id FROM pages WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1 OFFSET ?3",
    [PAGES_DELETE] = "DELETE FROM pages WHERE id BETWEEN ?1 AND ?2",
    [BEGIN_READING] = "BEGIN",
    [LOOK_DOWN] = LOOK_SQL " ORDER BY seq DESC",
    [LOOK_UP] = LOOK_SQL " ORDER BY seq",
    [DEAD_DOWN] = DEAD_SQL " ORDER BY seq DESC",
    [DEAD_UP] = DEAD_SQL " ORDER BY seq",
    [LOOK_ONE] = LOOK_ONE_SQL,
    [EVENT_FROM] = "SELECT seq, kept FROM events WHERE seq >= ?1 ORDER BY seq LIMIT 1",
    [DEAD_FROM] = "SELECT seq, kept FROM dead WHERE seq >= ?1 ORDER BY seq LIMIT 1",
    [EVENT_MOVE] = "UPDATE events SET flags = ?2 WHERE seq = ?1",
    [DEAD_DELETE] = "DELETE FROM dead WHERE seq = ?1",
    [STRETCH_READ] = STRETCH_READ_SQL,
    [STRETCH_PUT] = "INSERT OR REPLACE INTO stretches(number, earliest, latest, labels) VALUES(?1, ?2, ?3, ?4)",
    [STRETCH_DELETE] = "DELETE FROM stretches WHERE number < ?1",
    [STRETCH_DOWN] = STRETCH_SQL " DESC",
    [STRETCH_UP] = STRETCH_SQL,
};

enum {
    PAGE_SIZE = 8192,
    CACHE_KIB = 4 * 1024,
    READER_CACHE_KIB = 2 * 1024,
    LOADING_CACHE_KIB = 512,           /* pages that are read once would fill the big one */
    LOG_FILE_LIMIT = 16 * 1024 * 1024, /* what the log's file shrinks to when it begins anew */
    BUSY_MS = 2000,                    /* for whoever else opens our file */
    TRIM_EVENTS = 1024,
    TRIM_BYTES = 2 * 1024 * 1024,
    TRIM_PAGES = 128,
    FRAME_HEADER = 24,
    NEXT_AT_ONCE = 8, /* rows of EVENTS_NEXT */
    NEXT_COLUMNS = 6,
};

struct db {
    sqlite3 *handle;
    sqlite3_stmt *prepared[STATEMENT_COUNT];
    char *path, *log_path;
    bool is_reader, keeps_log, is_lazy, has_stretches;
    struct file_identity file, log;
    bool log_is_known;
    int64_t page_size, pages_in_use;
    int64_t log_frames; /* not yet checkpointed, or not known to be */
};

/* --- errors --- */

static enum err no_memory(struct error *why)
{
    return error_set(why, ERR_MEMORY, "no memory for the journal");
}

static enum err fail(struct db *db, int status, struct error *why)
{
    const char *text = db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(status);
    int error = db->handle ? sqlite3_system_errno(db->handle) : 0;
    switch (status & 0xff) {
    case SQLITE_FULL:
        return error_set(why, ERR_FULL, "the journal's disk is full");
    case SQLITE_NOMEM:
        return no_memory(why);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return error_set(why, ERR_CORRUPT, "the journal %s is damaged (%s); restore it, or move it away to start a new one",
                         db->path, text);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return error_set(why, ERR_BUSY, "the journal cannot be %s: another program has locked it",
                         db->is_reader ? "read" : "written");
    case SQLITE_IOERR:
        if (error == ENOSPC || error == EDQUOT) {
            return error_set(why, ERR_FULL, "the journal's disk is full");
        }
        return error_set(why, ERR_IO, "the journal cannot be %s: %s", db->is_reader ? "read" : "written",
                         error ? strerror(error) : text);
    default:
        return error_set(why, ERR_IO, "the journal cannot be %s: %s", db->is_reader ? "read" : "written", text);
    }
}

/* --- statements --- */

static void bind_u64(struct db *db, enum statement id, int column, uint64_t value)
{
    sqlite3_bind_int64(db->prepared[id], column, (sqlite3_int64)value);
}

static void bind_i64(struct db *db, enum statement id, int column, int64_t value)
{
    sqlite3_bind_int64(db->prepared[id], column, value);
}

static void bind_bytes(struct db *db, enum statement id, int column, const void *data, size_t size)
{
    sqlite3_bind_blob64(db->prepared[id], column, size > 0 ? data : "", size, SQLITE_STATIC);
}

/* Runs a statement that gives no rows, or whose rows do not matter. */
static enum err run_statement(struct db *db, enum statement id, struct error *why)
{
    int status = sqlite3_step(db->prepared[id]);
    enum err code = status == SQLITE_DONE || status == SQLITE_ROW ? ERR_NONE : fail(db, status, why);
    sqlite3_reset(db->prepared[id]);
    return code;
}

/* One step of a statement that gives rows: *row says whether there is one; after the last, or an error, it is reset. */
static enum err next_row(struct db *db, enum statement id, bool *row, struct error *why)
{
    int status = sqlite3_step(db->prepared[id]);
    *row = status == SQLITE_ROW;
    if (*row) {
        return ERR_NONE;
    }
    enum err code = status == SQLITE_DONE ? ERR_NONE : fail(db, status, why);
    sqlite3_reset(db->prepared[id]);
    return code;
}

static int64_t column_i64(struct db *db, enum statement id, int column)
{
    return sqlite3_column_int64(db->prepared[id], column);
}

static uint64_t column_u64(struct db *db, enum statement id, int column)
{
    return (uint64_t)sqlite3_column_int64(db->prepared[id], column);
}

static struct slice column_slice(struct db *db, enum statement id, int column)
{
    const char *data = sqlite3_column_blob(db->prepared[id], column);
    return (struct slice){data, data ? (size_t)sqlite3_column_bytes(db->prepared[id], column) : 0};
}

static bool column_key(struct db *db, enum statement id, int column, uint8_t out[JOURNAL_KEY_BYTES])
{
    struct slice key = column_slice(db, id, column);
    if (key.size != JOURNAL_KEY_BYTES) {
        return false;
    }
    memcpy(out, key.data, JOURNAL_KEY_BYTES);
    return true;
}

/* A statement of at most one row of one integer. */
static enum err read_number(struct db *db, enum statement id, int64_t *out, struct error *why)
{
    bool row;
    enum err code = next_row(db, id, &row, why);
    if (row) {
        *out = column_i64(db, id, 0);
        sqlite3_reset(db->prepared[id]);
    }
    return code;
}

static enum err execute(struct db *db, const char *sql, struct error *why)
{
    int status = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return status == SQLITE_OK ? ERR_NONE : fail(db, status, why);
}

static enum err set_cache(struct db *db, int kib, struct error *why)
{
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA cache_size = -%d", kib);
    return execute(db, sql, why);
}

/* --- opening --- */

static int log_grew(void *ctx, sqlite3 *handle, const char *name, int frames)
{
    (void)handle, (void)name;
    ((struct db *)ctx)->log_frames = frames;
    return SQLITE_OK;
}

/* A number that is asked for once. */
static enum err ask_number(struct db *db, const char *sql, int64_t *out, struct error *why)
{
    sqlite3_stmt *statement;
    int status = sqlite3_prepare_v2(db->handle, sql, -1, &statement, NULL);
    status = status == SQLITE_OK ? sqlite3_step(statement) : status;
    enum err code = status == SQLITE_ROW ? ERR_NONE : fail(db, status, why);
    *out = status == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_finalize(statement);
    return code;
}

static enum err prepare(struct db *db, int first, int end, struct error *why)
{
    for (int i = first; i < end; i++) {
        int status = sqlite3_prepare_v3(db->handle, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &db->prepared[i], NULL);
        if (status == SQLITE_ERROR) { /* a table or a column is missing */
            status = SQLITE_CORRUPT;
        }
        if (status != SQLITE_OK) {
            return fail(db, status, why);
        }
    }
    return ERR_NONE;
}

static enum err prepare_all(struct db *db, struct error *why)
{
    int64_t count = 0;
    enum err code = prepare(db, 0, OF_STRETCHES, why);
    if (code == ERR_NONE) {
        code = ask_number(db, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'stretches'", &count, why);
    }
    if (code == ERR_NONE && count > 0) {
        code = prepare(db, OF_STRETCHES, STATEMENT_COUNT, why);
        db->has_stretches = code == ERR_NONE;
    }
    return code;
}

static enum err open_handle(struct db *db, const char *name, int flags, struct error *why)
{
    const char *vfs = flags & SQLITE_OPEN_READWRITE ? vfs_register() : NULL;
    if (flags & SQLITE_OPEN_READWRITE && !vfs) {
        return no_memory(why);
    }
    int status = sqlite3_open_v2(name, &db->handle, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, vfs);
    if (status != SQLITE_OK) {
        return fail(db, status, why);
    }
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, BUSY_MS);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    return ERR_NONE;
}

static void free_db(struct db *db)
{
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        sqlite3_finalize(db->prepared[i]);
    }
    sqlite3_close(db->handle);
    free(db->path);
    free(db->log_path);
    free(db);
}

static struct db *new_db(const char *path)
{
    struct db *db = calloc(1, sizeof *db);
    if (db && (!(db->path = slice_dup(slice_of(path))) || asprintf(&db->log_path, "%s-wal", path) < 0)) {
        db->log_path = NULL;
        free_db(db);
        return NULL;
    }
    return db;
}

static enum err use_log(struct db *db, struct error *why)
{
    sqlite3_stmt *statement;
    int status = sqlite3_prepare_v2(db->handle, "PRAGMA journal_mode = WAL", -1, &statement, NULL);
    if (status != SQLITE_OK) {
        return fail(db, status, why);
    }
    status = sqlite3_step(statement);
    const char *mode = status == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
    enum err code = status != SQLITE_ROW ? fail(db, status, why) : ERR_NONE;
    if (code == ERR_NONE && (!mode || strcmp(mode, "wal") != 0)) {
        code =
            error_set(why, ERR_IO,
                      "the file system of %s is not fit for a journal (no write-ahead log); it must be a local one", db->path);
    }
    sqlite3_finalize(statement);
    return code;
}

/* In rollback mode and one transaction, so that what makes the file ours is never in a log only. */
static enum err create_schema(struct db *db, struct error *why)
{
    char identity[JOURNAL_IDENTITY_SIZE], sql[256];
    journal_new_identity(identity);
    snprintf(sql, sizeof sql,
             "PRAGMA application_id = %d; PRAGMA user_version = %d; INSERT INTO state VALUES(1, '%s', 0, 0, 0, 0);",
             JOURNAL_APPLICATION_ID, JOURNAL_SCHEMA, identity);
    enum err code = execute(db, "BEGIN EXCLUSIVE", why);
    if (code == ERR_NONE) {
        code = execute(db, schema, why);
    }
    if (code == ERR_NONE) {
        code = execute(db, stretches_schema, why);
    }
    if (code == ERR_NONE) {
        code = execute(db, sql, why);
    }
    if (code == ERR_NONE) {
        code = execute(db, "COMMIT", why);
    }
    return code;
}

/* Empty is also a file whose creation was cut short and is rolled back when it is first read. */
static enum err is_empty(struct db *db, bool *out, struct error *why)
{
    int64_t count;
    enum err code = ask_number(db, "SELECT count(*) FROM sqlite_schema", &count, why);
    *out = code == ERR_NONE && count == 0;
    return code;
}

static enum err set_up_writer(struct db *db, struct error *why)
{
    bool creates = false;
    char sql[512];
    snprintf(sql, sizeof sql,
             "PRAGMA page_size = %d; PRAGMA synchronous = FULL; PRAGMA secure_delete = OFF; PRAGMA cache_size = -%d;"
             "PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = %d;",
             PAGE_SIZE, CACHE_KIB, LOG_FILE_LIMIT);
    enum err code = execute(db, sql, why);
    if (code == ERR_NONE) {
        code = is_empty(db, &creates, why);
    }
    if (code == ERR_NONE && creates) {
        code = create_schema(db, why);
    }
    if (code == ERR_NONE) {
        code = use_log(db, why);
    }
    if (code == ERR_NONE) {
        code = prepare_all(db, why);
    }
    if (code == ERR_NONE) {
        code = read_number(db, PAGE_BYTES, &db->page_size, why);
    }
    if (code == ERR_NONE && (sqlite3_db_readonly(db->handle, "main") == 1 || !file_identify(db->path, &db->file))) {
        code = error_set(why, ERR_IO, "cannot write %s; the user that runs the bridge must be able to", db->path);
    }
    sqlite3_wal_hook(db->handle, log_grew, db);
    return code;
}

/* Percent-encodes what a URI would take for its own. */
static char *immutable_uri(const char *path)
{
    struct buf uri;
    buf_init(&uri, 3 * strlen(path) + 64);
    buf_append_text(&uri, "file:");
    for (const char *c = path; *c; c++) {
        if (*c == '%' || *c == '?' || *c == '#') {
            buf_appendf(&uri, "%%%02x", (unsigned)*c);
        } else {
            buf_append_char(&uri, *c);
        }
    }
    buf_append_text(&uri, "?immutable=1");
    if (uri.failed) {
        buf_free(&uri);
        return NULL;
    }
    return buf_take(&uri);
}

static bool see_stretch(void *ctx, const struct db_stretch *stretch)
{
    (void)ctx, (void)stretch;
    return false;
}

/* Reads what opening needs without a lock, a log or any other trace. Only where no log lies beside the file. */
static enum err check_unseen(const char *path, struct error *why)
{
    struct db *db = new_db(path);
    char *uri = immutable_uri(path);
    if (!db || !uri) {
        if (db) {
            free_db(db);
        }
        free(uri);
        return no_memory(why);
    }
    db->is_reader = true;
    struct db_state state;
    uint64_t seq;
    int64_t kept_ms;
    enum err code = open_handle(db, uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, why);
    if (code == ERR_NONE) {
        code = prepare_all(db, why);
    }
    if (code == ERR_NONE) {
        code = db_state_read(db, &state, why);
    }
    if (code == ERR_NONE) {
        code = db_event_last(db, &seq, &kept_ms, why);
    }
    if (code == ERR_NONE) {
        code = db_event_oldest(db, &seq, &kept_ms, why);
    }
    if (code == ERR_NONE) {
        code = run_statement(db, TOUCH_ALL, why);
    }
    if (code == ERR_NONE) {
        code = db_stretch_walk(db, 0, 0, false, see_stretch, NULL, why);
    }
    free_db(db);
    free(uri);
    return code;
}

enum err db_open(struct db **out, const char *path, const struct file_look *look, struct error *why)
{
    *out = NULL;
    enum err code = look->is_new || look->has_log ? ERR_NONE : check_unseen(path, why);
    if (code != ERR_NONE) {
        return code;
    }
    struct db *db = new_db(path);
    if (!db) {
        return no_memory(why);
    }
    code = open_handle(db, path, SQLITE_OPEN_READWRITE, why);
    if (code == ERR_NONE) {
        code = set_up_writer(db, why);
    }
    if (code != ERR_NONE) {
        if (look->has_log) {
            db_keep_log(db);
        }
        free_db(db);
        return code;
    }
    *out = db;
    return ERR_NONE;
}

enum err db_open_reader(struct db **out, const char *path, struct error *why)
{
    *out = NULL;
    struct db *db = new_db(path);
    if (!db) {
        return no_memory(why);
    }
    db->is_reader = true;
    enum err code = open_handle(db, path, SQLITE_OPEN_READONLY, why);
    if (code == ERR_NONE) {
        db_keep_log(db);
        code = set_cache(db, READER_CACHE_KIB, why);
    }
    if (code == ERR_NONE) {
        code = prepare_all(db, why);
    }
    if (code != ERR_NONE) {
        free_db(db);
        return code;
    }
    *out = db;
    return ERR_NONE;
}

void db_keep_log(struct db *db)
{
    db->keeps_log = true;
    if (db->handle) {
        sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    }
}

void db_close(struct db **db)
{
    if (*db) {
        struct error gone;
        if (!(*db)->is_reader && db_check_files(*db, &gone) != ERR_NONE) {
            db_keep_log(*db); /* what now bears the log's name is not ours to delete */
        }
        if (!(*db)->is_reader && !(*db)->keeps_log) {
            sqlite3_wal_checkpoint_v2((*db)->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        }
        free_db(*db);
        *db = NULL;
    }
}

/* --- transactions --- */

enum err db_begin(struct db *db, enum db_sync sync, struct error *why)
{
    bool is_lazy = sync == DB_LAZY;
    if (is_lazy != db->is_lazy) {
        enum err code = execute(db, is_lazy ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL", why);
        if (code != ERR_NONE) {
            return code;
        }
        db->is_lazy = is_lazy;
    }
    return run_statement(db, BEGIN, why);
}

enum err db_commit(struct db *db, struct error *why)
{
    int64_t pages = 0, free_pages = 0;
    enum err code = read_number(db, PAGE_COUNT, &pages, why);
    if (code == ERR_NONE) {
        code = read_number(db, FREE_COUNT, &free_pages, why);
    }
    if (code == ERR_NONE) {
        code = run_statement(db, COMMIT, why);
    }
    if (code != ERR_NONE) {
        db_rollback(db);
        return code;
    }
    db->pages_in_use = pages - free_pages;
    if (!db->log_is_known) {
        db->log_is_known = file_identify(db->log_path, &db->log);
    }
    return ERR_NONE;
}

void db_rollback(struct db *db)
{
    struct error ignored;
    if (!sqlite3_get_autocommit(db->handle) && run_statement(db, ROLLBACK, &ignored) != ERR_NONE) {
        ASSERT(sqlite3_get_autocommit(db->handle));
    }
}

enum err db_check_files(struct db *db, struct error *why)
{
    if (!file_is(db->path, &db->file)) {
        return error_set(why, ERR_IO, "the journal's file %s was deleted or replaced; put it back, or restart the bridge",
                         db->path);
    }
    if (db->log_is_known && !file_is(db->log_path, &db->log)) {
        return error_set(why, ERR_IO, "the journal's log %s was deleted or replaced; put it back, or restart the bridge",
                         db->log_path);
    }
    return ERR_NONE;
}

int64_t db_log_bytes(const struct db *db)
{
    return db->log_frames * (db->page_size + FRAME_HEADER);
}

int64_t db_bytes(const struct db *db)
{
    return db->pages_in_use * db->page_size + db_log_bytes(db);
}

enum err db_checkpoint(struct db *db, struct error *why)
{
    int frames = 0, moved = 0;
    int status = sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames, &moved);
    if (status == SQLITE_BUSY) { /* a reader is in the way: some other time */
        return ERR_NONE;
    }
    if (status != SQLITE_OK) {
        return fail(db, status, why);
    }
    if (moved == frames) {
        db->log_frames = 0;
    }
    return ERR_NONE;
}

/* --- state --- */

enum err db_state_read(struct db *db, struct db_state *out, struct error *why)
{
    bool row;
    enum err code = next_row(db, STATE_READ, &row, why);
    if (code != ERR_NONE) {
        return code;
    }
    struct slice identity = row ? column_slice(db, STATE_READ, 0) : (struct slice){0};
    bool is_ours =
        identity.size == JOURNAL_IDENTITY_SIZE - 1 && column_i64(db, STATE_READ, 1) >= 0 && column_i64(db, STATE_READ, 2) >= 0;
    if (is_ours) {
        *out = (struct db_state){
            .cursor = column_u64(db, STATE_READ, 1),
            .indexed = column_u64(db, STATE_READ, 2),
            .dead = column_u64(db, STATE_READ, 3),
            .clock_ms = column_i64(db, STATE_READ, 4),
        };
        memcpy(out->identity, identity.data, identity.size);
    }
    sqlite3_reset(db->prepared[STATE_READ]);
    return is_ours ? ERR_NONE : fail(db, SQLITE_CORRUPT, why);
}

enum err db_state_write(struct db *db, uint64_t cursor, uint64_t dead, int64_t clock_ms, struct error *why)
{
    bind_u64(db, STATE_WRITE, 1, cursor);
    bind_u64(db, STATE_WRITE, 2, dead);
    bind_i64(db, STATE_WRITE, 3, clock_ms);
    return run_statement(db, STATE_WRITE, why);
}

enum err db_indexed_write(struct db *db, uint64_t indexed, struct error *why)
{
    bind_u64(db, INDEXED_WRITE, 1, indexed);
    return run_statement(db, INDEXED_WRITE, why);
}

/* Two transactions, since pages that are freed in the one that took them are never written. */
enum err db_probe(struct db *db, size_t bytes, struct error *why)
{
    bind_u64(db, PROBE_PUT, 1, bytes);
    static const enum statement both[] = {PROBE_PUT, PROBE_DELETE};
    enum err code = db_check_files(db, why);
    for (size_t i = 0; i < sizeof both / sizeof both[0] && code == ERR_NONE; i++) {
        code = db_begin(db, DB_DURABLE, why);
        if (code == ERR_NONE) {
            code = run_statement(db, both[i], why);
        }
        if (code == ERR_NONE) {
            code = db_commit(db, why);
        }
        if (code != ERR_NONE) {
            db_rollback(db);
        }
    }
    return code;
}

/* --- events --- */

/* events.flags: FLAG_…, and above them a link (the number of another event) and how many replays came before. */
enum {
    FLAG_REPLAY = 1,
    FLAG_MOVED = 2,
    LINK_SHIFT = 8,
    LINK_BITS = 48,
    REPLAYS_SHIFT = LINK_SHIFT + LINK_BITS,
    MAX_REPLAYS = 127
};

static uint64_t plain_flags(const struct journal_event *event)
{
    return event->is_replay ? FLAG_REPLAY : 0;
}

/* From that parameter on. */
static void bind_event(struct db *db, enum statement id, int first, const struct journal_event *event, uint64_t flags,
                       int64_t kept_ms)
{
    bind_i64(db, id, first, event->accepted_ms);
    bind_i64(db, id, first + 1, kept_ms);
    bind_u64(db, id, first + 2, flags);
    bind_bytes(db, id, first + 3, event->key, JOURNAL_KEY_BYTES);
    bind_bytes(db, id, first + 4, event->head.data, event->head.size);
    bind_bytes(db, id, first + 5, event->body.data, event->body.size);
}

static enum err put_event(struct db *db, const struct journal_event *event, uint64_t flags, int64_t kept_ms, struct error *why)
{
    bind_u64(db, EVENT_PUT, 1, event->seq);
    bind_event(db, EVENT_PUT, 2, event, flags, kept_ms);
    return run_statement(db, EVENT_PUT, why);
}

/* J2: the numbers are those that were meant. */
static enum err put_next(struct db *db, enum statement id, const struct journal_event *const *events, size_t count,
                         int64_t kept_ms, struct error *why)
{
    for (size_t i = 0; i < count; i++) {
        bind_event(db, id, 1 + (int)i * NEXT_COLUMNS, events[i], plain_flags(events[i]), kept_ms);
    }
    enum err code = run_statement(db, id, why);
    bool is_next = (uint64_t)sqlite3_last_insert_rowid(db->handle) == events[count - 1]->seq;
    return code == ERR_NONE && !is_next ? fail(db, SQLITE_CORRUPT, why) : code;
}

enum err db_event_put(struct db *db, const struct journal_event *const *events, size_t count, int64_t kept_ms,
                      struct error *why)
{
    size_t at = 1;
    enum err code = put_event(db, events[0], plain_flags(events[0]), kept_ms, why);
    for (; code == ERR_NONE && count - at >= NEXT_AT_ONCE; at += NEXT_AT_ONCE) {
        code = put_next(db, EVENTS_NEXT, events + at, NEXT_AT_ONCE, kept_ms, why);
    }
    for (; code == ERR_NONE && at < count; at++) {
        code = put_next(db, EVENT_NEXT, events + at, 1, kept_ms, why);
    }
    return code;
}

static enum err read_end(struct db *db, enum statement id, uint64_t *seq, int64_t *kept_ms, struct error *why)
{
    bool row;
    enum err code = next_row(db, id, &row, why);
    *seq = 0;
    *kept_ms = 0;
    if (row) {
        *seq = column_u64(db, id, 0);
        *kept_ms = column_i64(db, id, 1);
        sqlite3_reset(db->prepared[id]);
    }
    return code;
}

enum err db_event_last(struct db *db, uint64_t *seq, int64_t *kept_ms, struct error *why)
{
    return read_end(db, EVENT_LAST, seq, kept_ms, why);
}

enum err db_event_oldest(struct db *db, uint64_t *seq, int64_t *kept_ms, struct error *why)
{
    return read_end(db, EVENT_OLDEST, seq, kept_ms, why);
}

static enum err read_event(struct db *db, struct journal_event **out, struct error *why)
{
    uint8_t key[JOURNAL_KEY_BYTES];
    if (!column_key(db, EVENT_READ, 3, key)) {
        return fail(db, SQLITE_CORRUPT, why);
    }
    struct slice head = column_slice(db, EVENT_READ, 4), body = column_slice(db, EVENT_READ, 5);
    char *copy = slice_dup(body);
    *out = copy ? journal_event_new(key, column_i64(db, EVENT_READ, 1), head, copy, body.size) : NULL;
    if (!*out) {
        return no_memory(why);
    }
    (*out)->seq = column_u64(db, EVENT_READ, 0);
    (*out)->is_replay = column_i64(db, EVENT_READ, 2) & FLAG_REPLAY;
    return ERR_NONE;
}

enum err db_event_read(struct db *db, uint64_t after, uint64_t upto, size_t max, size_t max_bytes, struct journal_event **list,
                       struct error *why)
{
    struct journal_event **end = list;
    *list = NULL;
    bind_u64(db, EVENT_READ, 1, after);
    bind_u64(db, EVENT_READ, 2, upto);
    bind_u64(db, EVENT_READ, 3, max);
    bool row = true;
    enum err code = ERR_NONE;
    for (size_t bytes = 0; row && code == ERR_NONE && bytes < max_bytes;) {
        code = next_row(db, EVENT_READ, &row, why);
        if (row) {
            code = read_event(db, end, why);
        }
        if (*end) {
            bytes += (*end)->head.size + (*end)->body.size;
            end = &(*end)->next;
        }
    }
    sqlite3_reset(db->prepared[EVENT_READ]);
    while (code != ERR_NONE && *list) {
        struct journal_event *next = (*list)->next;
        journal_event_free(*list);
        *list = next;
    }
    return code;
}

enum err db_event_keys(struct db *db, uint64_t after,
                       bool (*each)(void *ctx, const uint8_t key[JOURNAL_KEY_BYTES], int64_t kept_ms), void *ctx,
                       struct error *why)
{
    bind_u64(db, EVENT_KEYS, 1, after);
    bool row;
    enum err code = set_cache(db, LOADING_CACHE_KIB, why);
    while (code == ERR_NONE && (code = next_row(db, EVENT_KEYS, &row, why)) == ERR_NONE && row) {
        uint8_t key[JOURNAL_KEY_BYTES];
        if (!column_key(db, EVENT_KEYS, 1, key)) {
            code = fail(db, SQLITE_CORRUPT, why);
            break;
        }
        if (!each(ctx, key, column_i64(db, EVENT_KEYS, 0))) {
            code = no_memory(why);
            break;
        }
    }
    sqlite3_reset(db->prepared[EVENT_KEYS]);
    return code == ERR_NONE ? set_cache(db, CACHE_KIB, why) : code;
}

enum err db_event_trim(struct db *db, uint64_t upto, int64_t kept_until, size_t *deleted, struct error *why)
{
    *deleted = 0;
    bind_u64(db, EVENT_SIZES, 1, upto);
    bind_i64(db, EVENT_SIZES, 2, TRIM_EVENTS);
    uint64_t last = 0;
    bool row = true;
    enum err code = ERR_NONE;
    for (int64_t bytes = 0; row && code == ERR_NONE && bytes < TRIM_BYTES;) {
        code = next_row(db, EVENT_SIZES, &row, why);
        if (row && column_i64(db, EVENT_SIZES, 1) > kept_until) {
            break;
        }
        if (row) {
            last = column_u64(db, EVENT_SIZES, 0);
            bytes += column_i64(db, EVENT_SIZES, 2);
            ++*deleted;
        }
    }
    sqlite3_reset(db->prepared[EVENT_SIZES]);
    if (code != ERR_NONE || *deleted == 0) {
        return code;
    }
    bind_u64(db, EVENT_DELETE, 1, last);
    code = run_statement(db, EVENT_DELETE, why);
    if (code == ERR_NONE && db->has_stretches) {
        bind_u64(db, STRETCH_DELETE, 1, (last + 1) / DB_STRETCH);
        code = run_statement(db, STRETCH_DELETE, why);
    }
    return code;
}

enum err db_event_bury(struct db *db, uint64_t seq, int64_t died_ms, const char *reason, bool *added, struct error *why)
{
    bind_u64(db, EVENT_BURY, 1, seq);
    bind_i64(db, EVENT_BURY, 2, died_ms);
    sqlite3_bind_text(db->prepared[EVENT_BURY], 3, reason, -1, SQLITE_STATIC);
    enum err code = run_statement(db, EVENT_BURY, why);
    *added = code == ERR_NONE && sqlite3_changes(db->handle) > 0;
    return code;
}

/* --- runs --- */

enum err db_run_list(struct db *db, struct db_run *out, size_t max, size_t *count, struct error *why)
{
    bind_u64(db, RUN_LIST, 1, max);
    bool row = true;
    enum err code = ERR_NONE;
    *count = 0;
    while (code == ERR_NONE && (code = next_row(db, RUN_LIST, &row, why)) == ERR_NONE && row) {
        struct db_run *run = &out[(*count)++];
        *run = (struct db_run){
            .number = column_u64(db, RUN_LIST, 0),
            .level = (unsigned)column_i64(db, RUN_LIST, 1),
            .state = (enum db_run_state)column_i64(db, RUN_LIST, 2),
            .keys = column_u64(db, RUN_LIST, 3),
            .last_ms = column_i64(db, RUN_LIST, 4),
            .pages = (uint32_t)column_i64(db, RUN_LIST, 5),
            .stride = (uint32_t)column_i64(db, RUN_LIST, 6),
            .filter_blocks = (uint32_t)column_i64(db, RUN_LIST, 7),
        };
        bool is_good = column_key(db, RUN_LIST, 8, run->high) && run->stride > 0 && run->filter_blocks > 0 &&
                       (run->state != RUN_LIVE || (run->keys > 0 && run->pages > 0));
        code = is_good ? ERR_NONE : fail(db, SQLITE_CORRUPT, why);
    }
    sqlite3_reset(db->prepared[RUN_LIST]);
    return code;
}

enum err db_run_put(struct db *db, const struct db_run *run, struct error *why)
{
    bind_u64(db, RUN_PUT, 1, run->number);
    bind_i64(db, RUN_PUT, 2, run->level);
    bind_i64(db, RUN_PUT, 3, run->state);
    bind_u64(db, RUN_PUT, 4, run->keys);
    bind_i64(db, RUN_PUT, 5, run->last_ms);
    bind_i64(db, RUN_PUT, 6, run->pages);
    bind_i64(db, RUN_PUT, 7, run->stride);
    bind_i64(db, RUN_PUT, 8, run->filter_blocks);
    bind_bytes(db, RUN_PUT, 9, run->high, JOURNAL_KEY_BYTES);
    return run_statement(db, RUN_PUT, why);
}

enum err db_run_delete(struct db *db, uint64_t number, struct error *why)
{
    bind_u64(db, RUN_DELETE, 1, number);
    return run_statement(db, RUN_DELETE, why);
}

static uint64_t page_id(uint64_t run, uint32_t page)
{
    return run << 31 | page;
}

enum err db_page_put(struct db *db, uint64_t run, uint32_t page, const void *bytes, size_t size, struct error *why)
{
    bind_u64(db, PAGE_PUT, 1, page_id(run, page));
    bind_bytes(db, PAGE_PUT, 2, bytes, size);
    return run_statement(db, PAGE_PUT, why);
}

enum err db_page_get(struct db *db, uint64_t run, uint32_t page, void *bytes, size_t size, struct error *why)
{
    bool row;
    bind_u64(db, PAGE_GET, 1, page_id(run, page));
    enum err code = next_row(db, PAGE_GET, &row, why);
    if (code != ERR_NONE) {
        return code;
    }
    struct slice found = row ? column_slice(db, PAGE_GET, 0) : (struct slice){0};
    bool is_good = found.size == size;
    if (is_good && size > 0) {
        memcpy(bytes, found.data, size);
    }
    sqlite3_reset(db->prepared[PAGE_GET]);
    return is_good ? ERR_NONE : fail(db, SQLITE_CORRUPT, why);
}

enum err db_pages_trim(struct db *db, uint64_t run, bool *empty, struct error *why)
{
    const uint64_t first = page_id(run, 0), end = page_id(run + 1, 0) - 1;
    int64_t last = -1;
    bind_u64(db, PAGE_NTH, 1, first);
    bind_u64(db, PAGE_NTH, 2, end);
    bind_i64(db, PAGE_NTH, 3, TRIM_PAGES);
    enum err code = read_number(db, PAGE_NTH, &last, why);
    *empty = last < 0;
    if (code != ERR_NONE) {
        return code;
    }
    bind_u64(db, PAGES_DELETE, 1, first);
    bind_u64(db, PAGES_DELETE, 2, *empty ? end : (uint64_t)last);
    return run_statement(db, PAGES_DELETE, why);
}

/* --- stretches --- */

enum err db_stretches_create(struct db *db, struct error *why)
{
    if (db->has_stretches) {
        return ERR_NONE;
    }
    enum err code = db_begin(db, DB_DURABLE, why);
    if (code == ERR_NONE) {
        code = execute(db, stretches_schema, why);
    }
    if (code == ERR_NONE) {
        code = db_commit(db, why);
    }
    if (code != ERR_NONE) {
        db_rollback(db);
        return code;
    }
    code = prepare(db, OF_STRETCHES, STATEMENT_COUNT, why);
    db->has_stretches = code == ERR_NONE;
    return code;
}

enum err db_stretch_put(struct db *db, const struct db_stretch *stretch, struct error *why)
{
    bind_u64(db, STRETCH_PUT, 1, stretch->number);
    bind_i64(db, STRETCH_PUT, 2, stretch->earliest_ms);
    bind_i64(db, STRETCH_PUT, 3, stretch->latest_ms);
    bind_bytes(db, STRETCH_PUT, 4, stretch->labels.data, stretch->labels.size);
    return run_statement(db, STRETCH_PUT, why);
}

enum err db_stretch_walk(struct db *db, uint64_t first, uint64_t last, bool newest_first,
                         bool (*each)(void *ctx, const struct db_stretch *stretch), void *ctx, struct error *why)
{
    const enum statement id = newest_first ? STRETCH_DOWN : STRETCH_UP;
    bool row, goes_on = db->has_stretches;
    enum err code = ERR_NONE;
    if (!goes_on) {
        return ERR_NONE;
    }
    bind_u64(db, id, 1, first);
    bind_u64(db, id, 2, last);
    while (goes_on && (code = next_row(db, id, &row, why)) == ERR_NONE && row) {
        const struct db_stretch stretch = {column_u64(db, id, 0), column_i64(db, id, 1), column_i64(db, id, 2),
                                           column_slice(db, id, 3)};
        goes_on = each(ctx, &stretch);
    }
    sqlite3_reset(db->prepared[id]);
    return code;
}

/* --- looking, and replaying --- */

/* By SQL and not by reading the header: closing another descriptor of the file would drop the locks of a bridge in this process. */
static enum err check_ours(struct db *db, struct error *why)
{
    int64_t application = 0, version = 0;
    enum err code = ask_number(db, "PRAGMA application_id", &application, why);
    code = code == ERR_NONE ? ask_number(db, "PRAGMA user_version", &version, why) : code;
    if (code == ERR_NONE && application != JOURNAL_APPLICATION_ID) {
        return error_set(why, ERR_CORRUPT, "%s is not a journal of meowbridge", db->path);
    }
    if (code == ERR_NONE && version > JOURNAL_SCHEMA) {
        return error_set(why, ERR_VERSION, "%s has schema %lld of a newer meowbridge; this one knows %d", db->path,
                         (long long)version, JOURNAL_SCHEMA);
    }
    return code;
}

enum err db_open_look(struct db **out, const char *path, bool has_log, struct error *why)
{
    *out = NULL;
    struct db *db = new_db(path);
    char *uri = db && !has_log ? immutable_uri(path) : NULL;
    if (!db || (!has_log && !uri)) {
        if (db) {
            free_db(db);
        }
        return no_memory(why);
    }
    db->is_reader = true;
    enum err code = open_handle(db, has_log ? path : uri, SQLITE_OPEN_READONLY | (has_log ? 0 : SQLITE_OPEN_URI), why);
    free(uri);
    if (code == ERR_NONE) {
        db_keep_log(db);
        code = set_cache(db, READER_CACHE_KIB, why);
    }
    if (code == ERR_NONE) {
        code = check_ours(db, why);
    }
    if (code == ERR_NONE) {
        code = prepare_all(db, why);
    }
    if (code != ERR_NONE) {
        free_db(db);
        return code;
    }
    *out = db;
    return ERR_NONE;
}

enum err db_begin_reading(struct db *db, struct error *why)
{
    return run_statement(db, BEGIN_READING, why);
}

static bool read_look(struct db *db, enum statement id, struct db_look *out)
{
    const uint64_t flags = column_u64(db, id, 3), link = flags >> LINK_SHIFT & ((UINT64_C(1) << LINK_BITS) - 1);
    *out = (struct db_look){
        .seq = column_u64(db, id, 0),
        .accepted_ms = column_i64(db, id, 1),
        .kept_ms = column_i64(db, id, 2),
        .is_replay = flags & FLAG_REPLAY,
        .is_moved = flags & FLAG_MOVED,
        .is_dead = sqlite3_column_type(db->prepared[id], 7) != SQLITE_NULL,
        .link = link,
        .replays = (unsigned)(flags >> REPLAYS_SHIFT) & MAX_REPLAYS,
        .died_ms = column_i64(db, id, 7),
        .reason = column_slice(db, id, 8),
        .head = column_slice(db, id, 5),
        .body = column_slice(db, id, 6),
    };
    return column_key(db, id, 4, out->key);
}

/* Of a statement that is bound, until there are no more or each says no. */
static enum err tell_rows(struct db *db, enum statement id, bool (*each)(void *ctx, const struct db_look *row), void *ctx,
                          struct error *why)
{
    bool row, goes_on = true;
    enum err code = ERR_NONE;
    while (goes_on && (code = next_row(db, id, &row, why)) == ERR_NONE && row) {
        struct db_look look;
        if (!read_look(db, id, &look)) {
            code = fail(db, SQLITE_CORRUPT, why);
            break;
        }
        goes_on = each(ctx, &look);
    }
    sqlite3_reset(db->prepared[id]);
    return code;
}

enum err db_look(struct db *db, const struct db_looking *looking, bool (*each)(void *ctx, const struct db_look *row), void *ctx,
                 struct error *why)
{
    const bool down = looking->newest_first, dead = looking->kinds == DB_DEAD;
    const enum statement id = dead ? (down ? DEAD_DOWN : DEAD_UP) : (down ? LOOK_DOWN : LOOK_UP);
    bind_u64(db, id, 1, looking->after > INT64_MAX ? INT64_MAX : looking->after);
    bind_u64(db, id, 2, looking->upto > INT64_MAX ? INT64_MAX : looking->upto);
    bind_i64(db, id, 3, looking->since_ms);
    bind_i64(db, id, 4, looking->until_ms);
    if (!dead) {
        bind_i64(db, id, 5, looking->kinds == DB_ALL);
    }
    return tell_rows(db, id, each, ctx, why);
}

enum err db_stretch_read(struct db *db, uint64_t from, uint64_t end, bool (*each)(void *ctx, const struct db_look *row),
                         void *ctx, struct error *why)
{
    bind_u64(db, STRETCH_READ, 1, from);
    bind_u64(db, STRETCH_READ, 2, end);
    return tell_rows(db, STRETCH_READ, each, ctx, why);
}

enum err db_look_one(struct db *db, uint64_t seq, struct db_look *out, bool *found, struct error *why)
{
    *found = false;
    if (seq > INT64_MAX) {
        return ERR_NONE;
    }
    bind_u64(db, LOOK_ONE, 1, seq);
    enum err code = next_row(db, LOOK_ONE, found, why);
    if (*found && !read_look(db, LOOK_ONE, out)) {
        db_look_end(db);
        return fail(db, SQLITE_CORRUPT, why);
    }
    return code;
}

void db_look_end(struct db *db)
{
    sqlite3_reset(db->prepared[LOOK_ONE]);
}

/* The first row of EVENT_FROM or DEAD_FROM that was kept at or after that time; UINT64_MAX: there is none. */
static enum err bisect(struct db *db, enum statement id, int64_t kept_ms, uint64_t *seq, struct error *why)
{
    uint64_t low = 1, high = INT64_MAX, found = 0;
    int64_t found_ms = 0;
    enum err code = ERR_NONE;
    *seq = UINT64_MAX;
    while (code == ERR_NONE && low < high) {
        const uint64_t middle = low + (high - low) / 2;
        bind_u64(db, id, 1, middle);
        code = read_end(db, id, &found, &found_ms, why);
        if (found != 0 && found_ms < kept_ms) {
            low = found + 1;
        } else {
            high = middle;
            *seq = found != 0 ? found : *seq;
        }
    }
    return code;
}

enum err db_first_since(struct db *db, int64_t kept_ms, uint64_t *seq, struct error *why)
{
    uint64_t living, dead;
    enum err code = bisect(db, EVENT_FROM, kept_ms, &living, why);
    code = code == ERR_NONE ? bisect(db, DEAD_FROM, kept_ms, &dead, why) : code;
    if (code == ERR_NONE) {
        *seq = living < dead ? living : dead;
    }
    return code;
}

static enum err leave_dead(struct db *db, const struct db_look *row, uint64_t moved_to, struct error *why)
{
    uint64_t flags = (row->is_replay ? FLAG_REPLAY : 0) | FLAG_MOVED | moved_to << LINK_SHIFT;
    bind_u64(db, DEAD_DELETE, 1, row->seq);
    bind_u64(db, EVENT_MOVE, 1, row->seq);
    bind_u64(db, EVENT_MOVE, 2, flags | (uint64_t)row->replays << REPLAYS_SHIFT);
    enum err code = run_statement(db, DEAD_DELETE, why);
    return code == ERR_NONE ? run_statement(db, EVENT_MOVE, why) : code;
}

enum err db_replay_put(struct db *db, const struct journal_event *event, const struct db_look *row, int64_t kept_ms,
                       struct error *why)
{
    uint64_t replays = row->replays < MAX_REPLAYS ? row->replays + 1 : MAX_REPLAYS;
    enum err code = put_event(db, event, FLAG_REPLAY | row->seq << LINK_SHIFT | replays << REPLAYS_SHIFT, kept_ms, why);
    return code == ERR_NONE && row->is_dead ? leave_dead(db, row, event->seq, why) : code;
}
