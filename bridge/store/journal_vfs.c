#include "journal_vfs.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    FRAME_HEADER = 24,
    AT_COMMIT = 4,         /* in it: not 0 if the transaction ends with this frame */
    CHECKPOINT_LOCK = 1,   /* of the shared memory: who moves pages, and ... */
    READER_LOCK = 4,       /* ... the first of those that keep a reader's mark */
    GATHERED = 120 * 1024, /* bytes; SQLite's unix VFS takes no write of 128 KiB or more */
    NOWHERE = -1,
    BLOCK = 8192, /* of what is written again */
};

struct unsynced { /* what was written since the last good sync, by blocks */
    uint8_t *bits;
    size_t size;
    sqlite3_int64 first, end; /* all of them are first <= block < end */
    bool is_suspect;          /* the kernel may take them for synced, and they are not */
};

struct file {
    sqlite3_file file;  /* first: what SQLite sees */
    sqlite3_file *real; /* behind this struct */
    struct unsynced unsynced;
    sqlite3_int64 end; /* where the last write ended; NOWHERE: there was none */
    int size;          /* of what is gathered, which belongs before end */
    char *gathered;

    /* Of a log: */
    bool is_log;
    bool awaits_page; /* the last write was a header ... */
    bool commits;     /* ... of a commit */

    /* Of a database: */
    bool is_moving;  /* a checkpoint is */
    bool is_partial; /* ... and a reader keeps it from the end of the log */
    int failure;     /* SQLITE_OK, or what the checkpoint's cut is to fail with */
};

static struct {
    pthread_once_t once;
    sqlite3_vfs vfs, *real;
    bool is_registered;
} layer = {.once = PTHREAD_ONCE_INIT};

static struct file *self(sqlite3_file *file)
{
    return (struct file *)file;
}

/* --- what is not synced --- */

static bool reserve(struct unsynced *unsynced, size_t size)
{
    if (size <= unsynced->size) {
        return true;
    }
    size = size > 2 * unsynced->size ? size : 2 * unsynced->size;
    uint8_t *bits = realloc(unsynced->bits, size);
    if (!bits) {
        return false;
    }
    memset(bits + unsynced->size, 0, size - unsynced->size);
    unsynced->bits = bits;
    unsynced->size = size;
    return true;
}

static int mark(struct unsynced *unsynced, sqlite3_int64 size, sqlite3_int64 offset)
{
    const sqlite3_int64 first = offset / BLOCK, end = (offset + size + BLOCK - 1) / BLOCK;
    if (!reserve(unsynced, (size_t)end / 8 + 1)) {
        return SQLITE_NOMEM;
    }
    for (sqlite3_int64 block = first; block < end; block++) {
        unsynced->bits[block / 8] |= (uint8_t)(1u << block % 8);
    }
    const bool is_first = unsynced->first == unsynced->end;
    unsynced->first = is_first || first < unsynced->first ? first : unsynced->first;
    unsynced->end = is_first || end > unsynced->end ? end : unsynced->end;
    return SQLITE_OK;
}

static bool is_marked(const struct unsynced *unsynced, sqlite3_int64 block)
{
    return unsynced->bits[block / 8] >> block % 8 & 1;
}

static void unmark_all(struct unsynced *unsynced)
{
    if (unsynced->first < unsynced->end) {
        memset(unsynced->bits + unsynced->first / 8, 0, (size_t)((unsynced->end - 1) / 8 - unsynced->first / 8 + 1));
    }
    unsynced->first = unsynced->end = 0;
}

/* Makes the kernel take them for unsynced again. Other connections that read meanwhile see what they saw before. */
static int write_again(struct file *file)
{
    const struct unsynced *unsynced = &file->unsynced;
    const sqlite3_io_methods *methods = file->real->pMethods;
    sqlite3_int64 file_size;
    int status = methods->xFileSize(file->real, &file_size);
    for (sqlite3_int64 block = unsynced->first; block < unsynced->end && status == SQLITE_OK; block++) {
        char bytes[BLOCK];
        const sqlite3_int64 at = block * BLOCK, left = file_size - at;
        if (left <= 0) { /* it was cut off */
            break;
        }
        if (is_marked(unsynced, block)) {
            const int size = left < BLOCK ? (int)left : BLOCK;
            status = methods->xRead(file->real, bytes, size, at);
            status = status == SQLITE_OK ? methods->xWrite(file->real, bytes, size, at) : status;
        }
    }
    return status;
}

static int write_marked(struct file *file, const void *data, int size, sqlite3_int64 offset)
{
    int status = mark(&file->unsynced, size, offset);
    return status == SQLITE_OK ? file->real->pMethods->xWrite(file->real, data, size, offset) : status;
}

/* V4. */
static int flush(struct file *file)
{
    const int size = file->size;
    file->size = 0;
    return size > 0 ? write_marked(file, file->gathered, size, file->end - size) : SQLITE_OK;
}

static void add_gathered(struct file *file, const void *data, int size)
{
    memcpy(file->gathered + file->size, data, (size_t)size);
    file->size += size;
    file->end += size;
}

/* --- writing a log --- */

static int write_through(struct file *log, const void *data, int size, sqlite3_int64 offset)
{
    log->end = offset + size;
    log->awaits_page = false;
    return write_marked(log, data, size, offset);
}

static bool is_commit(const unsigned char *header)
{
    static const unsigned char none[4];
    return memcmp(header + AT_COMMIT, none, sizeof none) != 0;
}

static int gather(struct file *log, const void *data, int size)
{
    int status = log->size + size > GATHERED ? flush(log) : SQLITE_OK;
    if (status != SQLITE_OK) {
        return status;
    }
    add_gathered(log, data, size);
    log->awaits_page = !log->awaits_page;
    if (log->awaits_page) {
        log->commits = is_commit(data);
    }
    return !log->awaits_page && log->commits ? flush(log) : SQLITE_OK;
}

static int write_log(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    struct file *log = self(file);
    if (offset == log->end && (log->awaits_page || size == FRAME_HEADER) && size <= GATHERED) {
        return gather(log, data, size);
    }
    int status = flush(log);
    return status == SQLITE_OK ? write_through(log, data, size, offset) : status;
}

/* --- writing a database --- */

static int write_database(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    struct file *f = self(file);
    const bool gathers = f->is_moving && !f->is_partial && size <= GATHERED;
    const bool goes_on = gathers && offset == f->end && f->size + size <= GATHERED;
    int status = goes_on ? SQLITE_OK : flush(f);
    if (status != SQLITE_OK || !gathers) {
        return status == SQLITE_OK ? write_marked(f, data, size, offset) : status;
    }
    f->end = offset;
    add_gathered(f, data, size);
    return SQLITE_OK;
}

/* V7. */
static void note_shared_lock(struct file *database, int lock, int status)
{
    if (lock == CHECKPOINT_LOCK) {
        database->is_partial = false;
    } else if (lock >= READER_LOCK && status == SQLITE_BUSY) {
        database->is_partial = true;
    }
}

static void end_moving(struct file *database)
{
    database->is_moving = false;
    database->failure = flush(database);
}

static int take_failure(struct file *database)
{
    int failure = database->failure;
    database->failure = SQLITE_OK;
    return failure;
}

/* --- what finds the file as SQLite believes it to be --- */

static int read_file(sqlite3_file *file, void *data, int size, sqlite3_int64 offset)
{
    struct file *f = self(file);
    int status = flush(f);
    return status == SQLITE_OK ? f->real->pMethods->xRead(f->real, data, size, offset) : status;
}

static int truncate_file(sqlite3_file *file, sqlite3_int64 size)
{
    struct file *f = self(file);
    int status = flush(f);
    status = status == SQLITE_OK ? take_failure(f) : status;
    return status == SQLITE_OK ? f->real->pMethods->xTruncate(f->real, size) : status;
}

/* V8. A log that is cut needs no sync: what is behind its end counts for nothing. */
static bool is_synced(const struct file *file)
{
    return file->is_log && file->unsynced.first == file->unsynced.end;
}

/* V5. */
static int sync_file(sqlite3_file *file, int flags)
{
    struct file *f = self(file);
    int status = flush(f);
    if (status == SQLITE_OK && f->unsynced.is_suspect) {
        status = write_again(f);
    }
    if (status != SQLITE_OK || is_synced(f)) {
        return status;
    }
    status = f->real->pMethods->xSync(f->real, flags);
    f->unsynced.is_suspect = status != SQLITE_OK;
    if (status == SQLITE_OK) {
        unmark_all(&f->unsynced);
    }
    return status;
}

static int measure_file(sqlite3_file *file, sqlite3_int64 *size)
{
    struct file *f = self(file);
    int status = flush(f);
    return status == SQLITE_OK ? f->real->pMethods->xFileSize(f->real, size) : status;
}

/* V1: what may still be gathered is of a transaction that was rolled back. */
static int close_file(sqlite3_file *file)
{
    struct file *f = self(file);
    free(f->gathered);
    free(f->unsynced.bits);
    f->gathered = NULL;
    f->unsynced.bits = NULL;
    return f->real->pMethods->xClose(f->real);
}

/* --- what is passed on --- */

static int lock_file(sqlite3_file *file, int level)
{
    return self(file)->real->pMethods->xLock(self(file)->real, level);
}

static int unlock_file(sqlite3_file *file, int level)
{
    return self(file)->real->pMethods->xUnlock(self(file)->real, level);
}

static int check_reserved_lock(sqlite3_file *file, int *out)
{
    return self(file)->real->pMethods->xCheckReservedLock(self(file)->real, out);
}

static int control_file(sqlite3_file *file, int operation, void *argument)
{
    if (operation == SQLITE_FCNTL_CKPT_START) {
        self(file)->is_moving = true;
    } else if (operation == SQLITE_FCNTL_CKPT_DONE) {
        end_moving(self(file));
    }
    return self(file)->real->pMethods->xFileControl(self(file)->real, operation, argument);
}

static int sector_size(sqlite3_file *file)
{
    return self(file)->real->pMethods->xSectorSize(self(file)->real);
}

static int device_characteristics(sqlite3_file *file)
{
    return self(file)->real->pMethods->xDeviceCharacteristics(self(file)->real);
}

static int map_shared(sqlite3_file *file, int region, int size, int extends, void volatile **out)
{
    return self(file)->real->pMethods->xShmMap(self(file)->real, region, size, extends, out);
}

static int lock_shared(sqlite3_file *file, int offset, int count, int flags)
{
    int status = self(file)->real->pMethods->xShmLock(self(file)->real, offset, count, flags);
    if (flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE)) {
        note_shared_lock(self(file), offset, status);
    }
    return status;
}

static void order_shared(sqlite3_file *file)
{
    self(file)->real->pMethods->xShmBarrier(self(file)->real);
}

static int unmap_shared(sqlite3_file *file, int deletes)
{
    return self(file)->real->pMethods->xShmUnmap(self(file)->real, deletes);
}

/* --- opening --- */

#define METHODS(version, write)                                                                                     \
    .iVersion = (version), .xWrite = (write), .xClose = close_file, .xRead = read_file, .xTruncate = truncate_file, \
    .xSync = sync_file, .xFileSize = measure_file, .xLock = lock_file, .xUnlock = unlock_file,                      \
    .xCheckReservedLock = check_reserved_lock, .xFileControl = control_file, .xSectorSize = sector_size,            \
    .xDeviceCharacteristics = device_characteristics

/* A log is neither shared memory nor mapped, and our database is not mapped. */
static const sqlite3_io_methods log_methods = {METHODS(1, write_log)};
static const sqlite3_io_methods database_methods = {
    METHODS(2, write_database),  .xShmMap = map_shared,     .xShmLock = lock_shared,
    .xShmBarrier = order_shared, .xShmUnmap = unmap_shared,
};

/* V6: nobody knows whether all of it is on the disk. */
static int suspect_all(struct file *log)
{
    sqlite3_int64 size;
    int status = log->real->pMethods->xFileSize(log->real, &size);
    log->unsynced.is_suspect = status == SQLITE_OK && size > 0;
    return log->unsynced.is_suspect ? mark(&log->unsynced, size, 0) : status;
}

static int prepare(struct file *file)
{
    file->end = NOWHERE;
    file->gathered = malloc(GATHERED);
    if (!file->gathered) {
        return SQLITE_NOMEM;
    }
    return file->is_log ? suspect_all(file) : SQLITE_OK;
}

/* SQLite calls xClose if pMethods is set, also after an error. */
static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)vfs;
    if (!(flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_DB))) {
        return layer.real->xOpen(layer.real, name, file, flags, out_flags);
    }
    struct file *f = self(file);
    *f = (struct file){.real = (sqlite3_file *)(f + 1), .is_log = flags & SQLITE_OPEN_WAL};
    f->real->pMethods = NULL;
    int status = layer.real->xOpen(layer.real, name, f->real, flags, out_flags);
    if (!f->real->pMethods) {
        return status == SQLITE_OK ? SQLITE_CANTOPEN : status; /* what is open has methods */
    }
    f->file.pMethods = f->is_log ? &log_methods : &database_methods;
    return status == SQLITE_OK ? prepare(f) : status;
}

static void register_layer(void)
{
    layer.real = sqlite3_vfs_find(NULL);
    if (!layer.real) {
        return;
    }
    layer.vfs = *layer.real;
    layer.vfs.pNext = NULL;
    layer.vfs.zName = "meowbridge";
    layer.vfs.szOsFile += (int)sizeof(struct file);
    layer.vfs.xOpen = open_file;
    layer.is_registered = sqlite3_vfs_register(&layer.vfs, 0) == SQLITE_OK;
}

const char *vfs_register(void)
{
    pthread_once(&layer.once, register_layer);
    return layer.is_registered ? layer.vfs.zName : NULL;
}
