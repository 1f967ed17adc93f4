/* journal_file: the journal's database as a file: whose it is, what it is, and whether it is still there. No SQLite. */
#ifndef JOURNAL_FILE_H
#define JOURNAL_FILE_H

#include "meowbridge/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define JOURNAL_APPLICATION_ID 0x4d656f77 /* "Meow" */
#define JOURNAL_SCHEMA 1

/* --- the lock that keeps a second bridge out: flock on PATH.lock, which holds the pid for the message --- */

struct file_lock {
    int fd; /* -1: not taken */
    char *path;
};
/* ERR_BUSY: another bridge holds it. ERR_IO, ERR_FULL, ERR_MEMORY. */
MUST_CHECK enum err file_lock_take(struct file_lock *lock, const char *database, struct error *why);
void file_lock_release(struct file_lock *lock); /* removes the file; accepts one that is not taken */

/* --- the look before the database is opened --- */

struct file_look {
    bool is_created;
    bool is_new;  /* it was created, or was empty */
    bool has_log; /* a write-ahead log or a rollback journal lies beside it: a bridge was killed */
};
/* Creates the file with mode 0600 if there is none. Reads its header and nothing else, and changes nothing. Under the lock
 * only: closing a descriptor of a file drops this process's POSIX locks on it. ERR_CORRUPT, ERR_VERSION, ERR_IO, ERR_FULL. */
MUST_CHECK enum err file_look(const char *path, struct file_look *out, struct error *why);

/* --- is the file of that name still the one that is open? --- */

struct file_identity {
    dev_t device;
    ino_t inode;
};
MUST_CHECK bool file_identify(const char *path, struct file_identity *out);
bool file_is(const char *path, const struct file_identity *expected);

#endif
