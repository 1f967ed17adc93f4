/* log: one line a matter, on standard error, as text or as JSON.
 *
 * A line is a time, a level, a sentence, and named fields:
 *     2026-11-24T05:00:00.123Z INFO connected to the broker url=mqtt://127.0.0.1:1883 version=5
 *     {"time":"…","level":"info","message":"connected to the broker","url":"mqtt://127.0.0.1:1883","version":5}
 * A line is written with one write(2), so lines of several threads do not mix. What cannot be written is lost: logging never
 * blocks the work for long and never fails. Never log a secret, a signature, or (above debug) a payload.
 * As text to the journal of systemd (JOURNAL_STREAM) a line begins with its priority, "<6>", which the journal takes off.
 * Any thread; log_open before the others start. */
#ifndef MEOWBRIDGE_LOG_H
#define MEOWBRIDGE_LOG_H

#include "meowbridge/bytes.h"

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

struct log_field {
    const char *name; /* NULL ends a list */
    struct slice text;
    int64_t number;
    bool is_number;
};

#define LOG_STR(name, value) ((struct log_field){(name), slice_of(value), 0, false})
#define LOG_SLICE(name, value) ((struct log_field){(name), (value), 0, false})
#define LOG_INT(name, value) ((struct log_field){(name), {0}, (int64_t)(value), true})

void log_open(enum log_level level, enum log_format format);
void log_set_level(enum log_level level);
/* What a text line of this level begins with: "<3>" where standard error is the journal's stream, else "". Also before log_open. */
const char *log_priority(enum log_level level);
bool log_enabled(enum log_level level);
void log_emit(enum log_level level, const char *message, const struct log_field *fields);

#define log_at(level, message, ...) log_emit((level), (message), (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}})
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

#endif
