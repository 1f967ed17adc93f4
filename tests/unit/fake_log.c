#include "fake_log.h"

#include "meowbridge/log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct buf lines = {.limit = 1 << 20};

void fake_log_reset(void)
{
    pthread_mutex_lock(&lock);
    buf_free(&lines);
    pthread_mutex_unlock(&lock);
}

int fake_log_count(const char *part)
{
    int count = 0;
    pthread_mutex_lock(&lock);
    for (const char *line = lines.data; line && *line; line = strchr(line, '\n') + 1) {
        const char *found = strstr(line, part);
        count += found && found < strchr(line, '\n');
    }
    pthread_mutex_unlock(&lock);
    return count;
}

void log_open(enum log_level level, enum log_format format)
{
    (void)level;
    (void)format;
}

void log_set_level(enum log_level level)
{
    (void)level;
}

bool log_enabled(enum log_level level)
{
    (void)level;
    return true;
}

void log_emit(enum log_level level, const char *message, const struct log_field *fields)
{
    static const char *const names[] = {"ERROR", "WARN", "INFO", "DEBUG"};
    pthread_mutex_lock(&lock);
    buf_appendf(&lines, "%s %s", names[level], message);
    for (; fields->name; fields++) {
        buf_appendf(&lines, " %s=", fields->name);
        if (fields->is_number) {
            buf_appendf(&lines, "%lld", (long long)fields->number);
        } else {
            buf_append(&lines, fields->text);
        }
    }
    buf_append_char(&lines, '\n');
    pthread_mutex_unlock(&lock);
}
