/* explain: why a captured request does not verify, found by trying what usually goes wrong on the way (contract.md 1).
 *
 * A signature is over method, host, path, body and timestamp under a secret. For each of these there is a list of what the sender
 * may have signed instead of what was captured: the host with its port, the path with the prefix that a proxy takes off, the
 * body before somebody printed its JSON again, … They are tried with as few deviations at once as possible, three at most, and
 * with bounded work. Nothing here reveals a signature: what is found is what it was made of. Pure; any thread. */
#ifndef MEOWBRIDGE_EXPLAIN_H
#define MEOWBRIDGE_EXPLAIN_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPLAIN_MAX_SECRETS 64

enum explain_part {
    EXPLAIN_TIMESTAMP,
    EXPLAIN_HOST,
    EXPLAIN_PATH,
    EXPLAIN_METHOD,
    EXPLAIN_SECRET,
    EXPLAIN_BODY,
    EXPLAIN_PARTS
};

/* A secret that may have been taken for the right one. Borrowed. */
struct explain_secret {
    struct slice secret;
    const char *name;   /* "the secret of apps[1]" */
    const char *advice; /* must stay as long as the result */
};

/* All borrowed for the call. */
struct explain_request {
    struct slice secret; /* not empty */
    const struct explain_secret *other_secrets;
    size_t other_secret_count; /* EXPLAIN_MAX_SECRETS at most are tried */
    struct slice method;
    struct slice host;   /* with its port, as in a URL or a Host header */
    struct slice target; /* path and query */
    struct slice body;
    struct slice timestamp, signature; /* the headers' values as captured, well-formed or not */
    const struct slice *others;        /* what else to try: "/…" a path, "scheme://…" a URL, all else a host */
    size_t other_count;
    int64_t received_ms; /* when the bridge got it; with is_received_known, its age is judged */
    bool is_received_known;
    int64_t now_ms;
};

/* One part of which the sender signed something else. */
struct explain_deviation {
    enum explain_part part;
    char what[160];      /* "the host without its port", for a sentence */
    char signed_as[400]; /* the value that was signed, printable and cut; empty for a body or a secret */
    const char *advice;  /* sentences; static, or as given */
};

enum explain_verdict {
    EXPLAIN_VERIFIES,      /* as captured */
    EXPLAIN_FOUND,         /* with the deviations */
    EXPLAIN_NOT_FOUND,     /* with none that was tried */
    EXPLAIN_BAD_SIGNATURE, /* no signature at all: complaint says why */
};

enum explain_clock {
    EXPLAIN_FRESH,   /* within 5 minutes of when it was received, or of now */
    EXPLAIN_STALE,   /* older than that when it was received */
    EXPLAIN_OLD,     /* older than that now; when it was received is not known */
    EXPLAIN_AHEAD,   /* more than 5 minutes in the future: a clock is wrong */
    EXPLAIN_NO_TIME, /* not 13 digits: refused whatever the signature */
};

struct explain_result {
    enum explain_verdict verdict;
    enum explain_clock clock;
    int64_t age_ms; /* against received_ms, else now_ms; negative: in the future */
    struct explain_deviation deviations[3];
    size_t deviation_count;
    char complaint[160];      /* EXPLAIN_BAD_SIGNATURE, else empty */
    const char *clean_advice; /* the signature verifies but for what stood around it ("sha256=", white space); else NULL */
    uint64_t tried;           /* signatures */
    bool is_cut;              /* the bound was reached: combinations were left untried */
};

/* ERR_MEMORY, ERR_LIBRARY, ERR_INVALID (the secret is empty). */
MUST_CHECK enum err explain_find(const struct explain_request *request, struct explain_result *out, struct error *why);

#endif
