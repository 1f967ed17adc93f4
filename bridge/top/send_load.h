/* send_load: the connections of `meowbridge send`, a thread each, and what they count; internal to it. */
#ifndef MEOWBRIDGE_SEND_LOAD_H
#define MEOWBRIDGE_SEND_LOAD_H

#include "send_plan.h"

#include "meowbridge/http_client.h"

struct send_options {
    struct http_url url;
    bool insecure;
    struct slice secret, app_id, event, payload; /* payload empty: the default one */
    uint64_t count;
    double rate; /* 0: as fast as the connections go */
    unsigned connections, retries;
    int64_t timeout_ms;
    bool show_progress; /* on standard error, a terminal */
    bool tell_retries;  /* while events wait for one, a line on standard error every few seconds */
};

enum { SEND_STATUSES = 600, SEND_ERRORS = ERR_LIBRARY + 1 };

/* accepted + failed + unfinished == sent; unfinished ones were under way when it was interrupted. */
struct send_tally {
    uint64_t sent, accepted, duplicates, failed, unfinished, retries;
    uint64_t statuses[SEND_STATUSES]; /* pushes by their answer, if it was not 2xx */
    uint64_t errors[SEND_ERRORS];     /* pushes by their enum err */
    int64_t late_us;                  /* behind the schedule, at worst */
    int64_t elapsed_us;
    struct histogram latency; /* of an event, from its first push to its 2xx */
};

/* What an enum err of a push means to the user: "no connection". */
const char *send_error_name(enum err err);
/* Pushes the events. Ends early when SIGINT or SIGTERM comes. The first answer of each kind that is not 2xx is said on standard
 * error at once. ERR_MEMORY, ERR_INVALID, ERR_LIBRARY, ERR_IO if it could not begin. */
MUST_CHECK enum err send_load(const struct send_options *options, struct send_tally *tally, struct error *why);

#endif
