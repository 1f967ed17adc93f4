/* publisher_pace: how often. Waiting times between attempts, a rate of messages, and repeated log lines. Pure: the caller
 * brings the time. */
#ifndef MEOWBRIDGE_PUBLISHER_PACE_H
#define MEOWBRIDGE_PUBLISHER_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* 0.25 s, then twice as long each time, 15 s at most, each give or take a quarter, so that many bridges that lost the same
 * broker do not come back at the same moment. Zero-initialised it is ready. */
struct backoff {
    int64_t last_ms; /* before jitter; 0: none yet */
};
#define BACKOFF_MIN_MS 250
#define BACKOFF_MAX_MS 15000
int64_t backoff_next(struct backoff *backoff); /* how long to wait now */
void backoff_reset(struct backoff *backoff);

/* A token bucket of messages. per_second 0: no limit. It holds a twentieth of a second's worth, at least one message: enough
 * to make up for what a poll oversleeps, too little for a burst that a consumer would notice. */
struct rate {
    int64_t per_second;
    int64_t credit;  /* in millionths of a message */
    int64_t last_us; /* when credit was last right */
};
void rate_init(struct rate *rate, int64_t per_second, int64_t now_us);
bool rate_take(struct rate *rate, int64_t now_us); /* true: one message may go now */
/* How long until it is worth asking again: for one message, or for 10 ms worth where that is more. At least 1. */
int64_t rate_wait_ms(const struct rate *rate);

/* A complaint that comes again and again is said when it changes, and every five minutes. Zero-initialised it is ready. */
struct complaint {
    char text[256];
    int64_t said_ms;
};
#define COMPLAINT_AGAIN_MS (5 * 60 * 1000)
bool complaint_is_due(struct complaint *complaint, const char *text, int64_t now_ms); /* true: say it now */
void complaint_clear(struct complaint *complaint);

#endif
