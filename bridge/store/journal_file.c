#include "journal_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const char *remedy_of(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return "create the directory, or set journal.path";
    case EACCES:
    case EPERM:
        return "the user that runs the bridge must be able to write it and its directory";
    case EROFS:
        return "the file system is read-only; set journal.path to one that is not";
    case EISDIR:
        return "journal.path must name a file";
    case ENOSPC:
    case EDQUOT:
        return "make room";
    default:
        return "check the file system";
    }
}

static enum err fail(struct error *why, const char *what, const char *path)
{
    int error = errno;
    enum err code = error == ENOSPC || error == EDQUOT ? ERR_FULL : ERR_IO;
    return error_set(why, code, "cannot %s %s: %s; %s", what, path, strerror(error), remedy_of(error));
}

/* --- lock --- */

/* Whoever gives a lock up removes its file. So what was opened may be locked and yet be no longer the file of that name. */
static bool still_named(int fd, const char *path)
{
    struct stat open_file, named;
    return fstat(fd, &open_file) == 0 && stat(path, &named) == 0 && open_file.st_dev == named.st_dev &&
           open_file.st_ino == named.st_ino;
}

static enum err describe_holder(int fd, const char *database, struct error *why)
{
    char text[24] = "";
    ssize_t size = pread(fd, text, sizeof text - 1, 0);
    long pid = size > 0 ? strtol(text, NULL, 10) : 0;
    if (pid > 0) {
        return error_set(why, ERR_BUSY, "another meowbridge (pid %ld) uses this journal, %s", pid, database);
    }
    return error_set(why, ERR_BUSY, "another meowbridge uses this journal, %s", database);
}

static void write_pid(int fd)
{
    char text[24];
    int size = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)size, 0) != size) {
        return; /* it only makes another one's message better */
    }
}

enum err file_lock_take(struct file_lock *lock, const char *database, struct error *why)
{
    *lock = (struct file_lock){.fd = -1};
    if (asprintf(&lock->path, "%s.lock", database) < 0) {
        lock->path = NULL;
        return error_set(why, ERR_MEMORY, "no memory to open the journal");
    }
    enum err code = ERR_NONE;
    while (code == ERR_NONE && lock->fd < 0) {
        int fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0) {
            code = fail(why, "create", lock->path);
        } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            code = errno == EWOULDBLOCK ? describe_holder(fd, database, why) : fail(why, "lock", lock->path);
            close(fd);
        } else if (still_named(fd, lock->path)) {
            lock->fd = fd;
            write_pid(fd);
        } else {
            close(fd);
        }
    }
    if (code != ERR_NONE) {
        free(lock->path);
        lock->path = NULL;
    }
    return code;
}

void file_lock_release(struct file_lock *lock)
{
    if (lock->fd >= 0) {
        unlink(lock->path);
        close(lock->fd);
    }
    free(lock->path);
    *lock = (struct file_lock){.fd = -1};
}

/* --- look --- */

/* https://www.sqlite.org/fileformat2.html, section 1.3; integers are big-endian. */
enum {
    HEADER_SIZE = 100,
    AT_PAGE_SIZE = 16,
    AT_CHANGES = 24,
    AT_PAGES = 28,
    AT_USER_VERSION = 60,
    AT_APPLICATION_ID = 68,
    AT_VALID_FOR = 92
};

static uint32_t u32_at(const uint8_t *header, size_t at)
{
    return (uint32_t)header[at] << 24 | (uint32_t)header[at + 1] << 16 | (uint32_t)header[at + 2] << 8 | header[at + 3];
}

static bool exists(const char *path, const char *suffix)
{
    char name[4096];
    struct stat status;
    int size = snprintf(name, sizeof name, "%s%s", path, suffix);
    return size > 0 && (size_t)size < sizeof name && stat(name, &status) == 0 && status.st_size > 0;
}

static enum err check_header(const char *path, const uint8_t *header, off_t file_size, bool has_log, struct error *why)
{
    static const char magic[16] = "SQLite format 3";
    if (memcmp(header, magic, sizeof magic) != 0) {
        return error_set(why, ERR_CORRUPT, "%s is not a journal of meowbridge: it is no SQLite database", path);
    }
    if (u32_at(header, AT_APPLICATION_ID) != JOURNAL_APPLICATION_ID) {
        return error_set(why, ERR_CORRUPT, "%s is not a journal of meowbridge: it is another program's SQLite database", path);
    }
    uint32_t schema = u32_at(header, AT_USER_VERSION);
    if (schema > JOURNAL_SCHEMA) {
        return error_set(
            why, ERR_VERSION,
            "%s has schema %u of a newer meowbridge; this one knows %d: use the newer one, or another journal.path", path,
            (unsigned)schema, JOURNAL_SCHEMA);
    }
    uint32_t page_size = (uint32_t)header[AT_PAGE_SIZE] << 8 | header[AT_PAGE_SIZE + 1];
    page_size = page_size == 1 ? 65536 : page_size;
    bool is_cut = !has_log && u32_at(header, AT_CHANGES) == u32_at(header, AT_VALID_FOR) &&
                  (int64_t)u32_at(header, AT_PAGES) * page_size > file_size;
    if (schema == 0 || page_size < 512 || is_cut) {
        return error_set(why, ERR_CORRUPT, "the journal %s is damaged: %s; restore it, or move it away to start a new one",
                         path, is_cut ? "its end is missing" : "its header is not one that meowbridge wrote");
    }
    return ERR_NONE;
}

static enum err look_at(int fd, const char *path, struct file_look *out, struct error *why)
{
    struct stat status;
    uint8_t header[HEADER_SIZE] = {0};
    if (fstat(fd, &status) != 0) {
        return fail(why, "read", path);
    }
    if (!S_ISREG(status.st_mode)) {
        return error_set(why, ERR_IO, "cannot open %s: it is not a file; journal.path must name a file", path);
    }
    out->is_new = status.st_size == 0;
    if (out->is_new) {
        return ERR_NONE;
    }
    if (pread(fd, header, sizeof header, 0) < 0) {
        return fail(why, "read", path);
    }
    return check_header(path, header, status.st_size, out->has_log, why);
}

enum err file_look(const char *path, struct file_look *out, struct error *why)
{
    *out = (struct file_look){.has_log = exists(path, "-wal") || exists(path, "-journal")};
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) {
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        out->is_created = fd >= 0;
    }
    if (fd < 0) {
        return fail(why, "open", path);
    }
    enum err code = look_at(fd, path, out, why);
    close(fd);
    return code;
}

/* --- identity --- */

/* Asks for no times: a kernel that gives times as fine as they are asked for (Linux 6.13) would take each question for a reason to
 * change the inode at the next write, and the sync would have to write that, too. Some sandboxes do not know statx. */
bool file_identify(const char *path, struct file_identity *out)
{
    struct statx fields;
    if (statx(AT_FDCWD, path, 0, STATX_INO, &fields) == 0 && fields.stx_mask & STATX_INO) {
        *out = (struct file_identity){makedev(fields.stx_dev_major, fields.stx_dev_minor), (ino_t)fields.stx_ino};
        return true;
    }
    struct stat status;
    if (stat(path, &status) != 0) {
        return false;
    }
    *out = (struct file_identity){status.st_dev, status.st_ino};
    return true;
}

bool file_is(const char *path, const struct file_identity *expected)
{
    struct file_identity actual;
    return file_identify(path, &actual) && actual.device == expected->device && actual.inode == expected->inode;
}
