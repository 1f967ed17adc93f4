#include "publisher_pace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE 1000000 /* the credit that one message costs */

int64_t backoff_next(struct backoff *backoff)
{
    int64_t ms = backoff->last_ms ? backoff->last_ms * 2 : BACKOFF_MIN_MS;
    backoff->last_ms = ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
    int64_t quarter = backoff->last_ms / 4;
    return backoff->last_ms - quarter + (int64_t)arc4random_uniform((uint32_t)(2 * quarter + 1));
}

void backoff_reset(struct backoff *backoff)
{
    backoff->last_ms = 0;
}

static int64_t bucket_size(const struct rate *rate)
{
    int64_t messages = rate->per_second / 20;
    return (messages > 1 ? messages : 1) * MESSAGE;
}

void rate_init(struct rate *rate, int64_t per_second, int64_t now_us)
{
    *rate = (struct rate){.per_second = per_second, .credit = MESSAGE, .last_us = now_us};
}

bool rate_take(struct rate *rate, int64_t now_us)
{
    if (rate->per_second == 0) {
        return true;
    }
    const int64_t second_us = 1000000;
    int64_t passed_us = now_us - rate->last_us;
    passed_us = passed_us < 2 * second_us ? passed_us : 2 * second_us;
    rate->last_us = now_us;
    rate->credit += passed_us * rate->per_second;
    if (rate->credit > bucket_size(rate)) {
        rate->credit = bucket_size(rate);
    }
    if (rate->credit < MESSAGE) {
        return false;
    }
    rate->credit -= MESSAGE;
    return true;
}

int64_t rate_wait_ms(const struct rate *rate)
{
    if (rate->per_second == 0) {
        return 1;
    }
    int64_t worth = rate->per_second / 100 * MESSAGE;
    int64_t missing = (worth > MESSAGE ? worth : MESSAGE) - rate->credit;
    int64_t us = missing / rate->per_second;
    return us > 0 ? us / 1000 + 1 : 1;
}

bool complaint_is_due(struct complaint *complaint, const char *text, int64_t now_ms)
{
    if (complaint->text[0] && strncmp(complaint->text, text, sizeof complaint->text - 1) == 0 &&
        now_ms - complaint->said_ms < COMPLAINT_AGAIN_MS) {
        return false;
    }
    snprintf(complaint->text, sizeof complaint->text, "%s", text);
    complaint->said_ms = now_ms;
    return true;
}

void complaint_clear(struct complaint *complaint)
{
    complaint->text[0] = '\0';
}
