/* err: how a function says that it failed.
 *
 * A fallible function returns enum err and fills a struct error that the caller lends it: the code says which kind, so that
 * the caller can act; the text says what happened, where, and what to do, so that a person can. Who detects describes, who
 * handles logs, once. Outcomes that belong to the work (a wrong signature, a duplicate, a dead event) are data, not errors. */
#ifndef MEOWBRIDGE_ERR_H
#define MEOWBRIDGE_ERR_H

enum err {
    ERR_NONE = 0,
    ERR_MEMORY,  /* allocation failed; the state is as before the call */
    ERR_INVALID, /* the input is not what the function takes */
    ERR_CONFIG,  /* the configuration is at fault: exit status 2 */
    ERR_IO,      /* a system call failed; may pass */
    ERR_FULL,    /* no room: disk, journal limit, buffer limit */
    ERR_BUSY,    /* somebody else holds it */
    ERR_CORRUPT, /* stored data is not what we wrote */
    ERR_VERSION, /* stored data is of a newer schema */
    ERR_TIMEOUT, /* the deadline passed */
    ERR_CLOSED,  /* the other side went away, or this side is stopping */
    ERR_LIBRARY  /* a library refused what should have worked */
};

struct error {
    enum err code;
    char text[600]; /* one sentence, no newline, never a secret; NUL-terminated, cut if longer */
};

#define MUST_CHECK __attribute__((warn_unused_result))

/* Fills *why (may be NULL) and returns code, so that a detector can write: return error_set(why, ERR_IO, "…"). */
enum err error_set(struct error *why, enum err code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the text that stands in *why (may be NULL) and returns its code. */
enum err error_prefix(struct error *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Aborts with the place on standard error, also in release builds: for bugs, never for bad input. */
#define ASSERT(condition) ((condition) ? (void)0 : assert_failed(#condition, __FILE__, __LINE__))
_Noreturn void assert_failed(const char *condition, const char *file, int line);

#endif
