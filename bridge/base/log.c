#include "meowbridge/log.h"

#include "meowbridge/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LINE 8192

static _Atomic enum log_level current_level = LOG_INFO;
static enum log_format current_format = LOG_TEXT;
static bool tells_priority;

/* JOURNAL_STREAM is device and inode of the stream that was given; it may have been redirected since. */
static bool is_journal_stream(void)
{
    const char *given = getenv("JOURNAL_STREAM");
    struct stat stream;
    char ours[64];
    if (!given || fstat(STDERR_FILENO, &stream)) {
        return false;
    }
    snprintf(ours, sizeof ours, "%llu:%llu", (unsigned long long)stream.st_dev, (unsigned long long)stream.st_ino);
    return strcmp(given, ours) == 0;
}

void log_open(enum log_level level, enum log_format format)
{
    current_format = format;
    tells_priority = is_journal_stream();
    log_set_level(level);
}

const char *log_priority(enum log_level level)
{
    static const char *const priorities[] = {"<3>", "<4>", "<6>", "<7>"}; /* syslog's: err, warning, info, debug */
    return tells_priority || is_journal_stream() ? priorities[level] : "";
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&current_level, level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

/* A value needs quotes where a reader, or a program that splits at spaces, could misread it. */
static bool is_bare(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        unsigned char c = (unsigned char)s.data[i];
        if (c <= ' ' || c == '"' || c == '\\' || c == '=' || c >= 0x7f) {
            return false;
        }
    }
    return s.size > 0;
}

static void append_text_value(struct buf *line, const struct log_field *field)
{
    if (field->is_number) {
        buf_appendf(line, "%lld", (long long)field->number);
    } else if (is_bare(field->text)) {
        buf_append(line, field->text);
    } else {
        buf_append_json_string(line, field->text);
    }
}

static void append_text(struct buf *line, const char *time, enum log_level level, const char *message,
                        const struct log_field *fields)
{
    static const char *const names[] = {"ERROR", "WARN", "INFO", "DEBUG"};
    buf_appendf(line, "%s%s %s %s", tells_priority ? log_priority(level) : "", time, names[level], message);
    for (; fields->name; fields++) {
        buf_appendf(line, " %s=", fields->name);
        append_text_value(line, fields);
    }
}

static void append_json(struct buf *line, const char *time, enum log_level level, const char *message,
                        const struct log_field *fields)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    buf_appendf(line, "{\"time\":\"%s\",\"level\":\"%s\",\"message\":", time, names[level]);
    buf_append_json_string(line, slice_of(message));
    for (; fields->name; fields++) {
        buf_append_char(line, ',');
        buf_append_json_string(line, slice_of(fields->name));
        buf_append_char(line, ':');
        if (fields->is_number) {
            buf_appendf(line, "%lld", (long long)fields->number);
        } else {
            buf_append_json_string(line, fields->text);
        }
    }
    buf_append_char(line, '}');
}

void log_emit(enum log_level level, const char *message, const struct log_field *fields)
{
    if (!log_enabled(level)) {
        return;
    }
    char time[CLOCK_RFC3339_SIZE];
    clock_rfc3339(clock_wall_ms(), time);
    static const struct log_field none = {0};
    void (*append)(struct buf *, const char *, enum log_level, const char *, const struct log_field *) =
        current_format == LOG_JSON ? append_json : append_text;
    struct buf line;
    buf_init(&line, MAX_LINE);
    append(&line, time, level, message, fields);
    buf_append_char(&line, '\n');
    if (line.failed) { /* a field too long: the sentence alone still tells */
        buf_reset(&line);
        append(&line, time, level, message, &none);
        buf_append_char(&line, '\n');
    }
    if (!line.failed) {
        ssize_t ignored = write(STDERR_FILENO, line.data, line.size);
        (void)ignored;
    }
    buf_free(&line);
}
