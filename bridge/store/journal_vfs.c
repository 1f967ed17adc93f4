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
    GATHERED = 120 * 1024, /* bytes; SQLite's unix VFS takes no write of 128 KiB or more */
    NOWHERE = -1,
};

struct log_file {
    sqlite3_file file;  /* first: what SQLite sees */
    sqlite3_file *real; /* behind this struct */
    sqlite3_int64 end;  /* where the last write ended; NOWHERE: there was none */
    int size;           /* of what is gathered, which belongs before end */
    bool awaits_page;   /* the last write was a header ... */
    bool commits;       /* ... of a commit */
    char *gathered;
};

static struct {
    pthread_once_t once;
    sqlite3_vfs vfs, *real;
    bool is_registered;
} layer = {.once = PTHREAD_ONCE_INIT};

static struct log_file *self(sqlite3_file *file)
{
    return (struct log_file *)file;
}

/* --- writing --- */

static int write_through(struct log_file *log, const void *data, int size, sqlite3_int64 offset)
{
    log->end = offset + size;
    log->awaits_page = false;
    return log->real->pMethods->xWrite(log->real, data, size, offset);
}

static int flush(struct log_file *log)
{
    const int size = log->size;
    log->size = 0;
    return size > 0 ? log->real->pMethods->xWrite(log->real, log->gathered, size, log->end - size) : SQLITE_OK;
}

static bool is_commit(const unsigned char *header)
{
    static const unsigned char none[4];
    return memcmp(header + AT_COMMIT, none, sizeof none) != 0;
}

static int gather(struct log_file *log, const void *data, int size)
{
    int status = log->size + size > GATHERED ? flush(log) : SQLITE_OK;
    if (status != SQLITE_OK) {
        return status;
    }
    memcpy(log->gathered + log->size, data, (size_t)size);
    log->size += size;
    log->end += size;
    log->awaits_page = !log->awaits_page;
    if (log->awaits_page) {
        log->commits = is_commit(data);
    }
    return !log->awaits_page && log->commits ? flush(log) : SQLITE_OK;
}

static int write_log(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    struct log_file *log = self(file);
    if (offset == log->end && (log->awaits_page || size == FRAME_HEADER) && size <= GATHERED) {
        return gather(log, data, size);
    }
    int status = flush(log);
    return status == SQLITE_OK ? write_through(log, data, size, offset) : status;
}

/* --- what finds the file as SQLite believes it to be --- */

static int read_log(sqlite3_file *file, void *data, int size, sqlite3_int64 offset)
{
    struct log_file *log = self(file);
    int status = flush(log);
    return status == SQLITE_OK ? log->real->pMethods->xRead(log->real, data, size, offset) : status;
}

static int truncate_log(sqlite3_file *file, sqlite3_int64 size)
{
    struct log_file *log = self(file);
    int status = flush(log);
    return status == SQLITE_OK ? log->real->pMethods->xTruncate(log->real, size) : status;
}

static int sync_log(sqlite3_file *file, int flags)
{
    struct log_file *log = self(file);
    int status = flush(log);
    return status == SQLITE_OK ? log->real->pMethods->xSync(log->real, flags) : status;
}

static int measure_log(sqlite3_file *file, sqlite3_int64 *size)
{
    struct log_file *log = self(file);
    int status = flush(log);
    return status == SQLITE_OK ? log->real->pMethods->xFileSize(log->real, size) : status;
}

/* V1: what may still be gathered is of a transaction that was rolled back. */
static int close_log(sqlite3_file *file)
{
    struct log_file *log = self(file);
    free(log->gathered);
    log->gathered = NULL;
    return log->real->pMethods->xClose(log->real);
}

/* --- what is passed on --- */

static int lock_log(sqlite3_file *file, int level)
{
    return self(file)->real->pMethods->xLock(self(file)->real, level);
}

static int unlock_log(sqlite3_file *file, int level)
{
    return self(file)->real->pMethods->xUnlock(self(file)->real, level);
}

static int check_reserved_lock(sqlite3_file *file, int *out)
{
    return self(file)->real->pMethods->xCheckReservedLock(self(file)->real, out);
}

static int control_log(sqlite3_file *file, int operation, void *argument)
{
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

/* --- opening --- */

static const sqlite3_io_methods log_methods = {
    .iVersion = 1, /* a log is neither shared memory nor mapped */
    .xClose = close_log,
    .xRead = read_log,
    .xWrite = write_log,
    .xTruncate = truncate_log,
    .xSync = sync_log,
    .xFileSize = measure_log,
    .xLock = lock_log,
    .xUnlock = unlock_log,
    .xCheckReservedLock = check_reserved_lock,
    .xFileControl = control_log,
    .xSectorSize = sector_size,
    .xDeviceCharacteristics = device_characteristics,
};

/* SQLite calls xClose if pMethods is set, also after an error. */
static int open_log(struct log_file *log, const char *name, int flags, int *out_flags)
{
    *log = (struct log_file){.real = (sqlite3_file *)(log + 1), .end = NOWHERE, .gathered = malloc(GATHERED)};
    if (!log->gathered) {
        return SQLITE_NOMEM;
    }
    log->real->pMethods = NULL;
    int status = layer.real->xOpen(layer.real, name, log->real, flags, out_flags);
    if (log->real->pMethods) {
        log->file.pMethods = &log_methods;
    } else {
        free(log->gathered);
    }
    return status;
}

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)vfs;
    return flags & SQLITE_OPEN_WAL ? open_log(self(file), name, flags, out_flags)
                                   : layer.real->xOpen(layer.real, name, file, flags, out_flags);
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
    layer.vfs.szOsFile += (int)sizeof(struct log_file);
    layer.vfs.xOpen = open_file;
    layer.is_registered = sqlite3_vfs_register(&layer.vfs, 0) == SQLITE_OK;
}

const char *vfs_register(void)
{
    pthread_once(&layer.once, register_layer);
    return layer.is_registered ? layer.vfs.zName : NULL;
}
