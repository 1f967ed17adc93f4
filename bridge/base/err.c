#include "meowbridge/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A sentence is one line wherever it is printed. */
static void flatten(char *text)
{
    for (char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = ' ';
        }
    }
}

enum err error_set(struct error *why, enum err code, const char *format, ...)
{
    if (why) {
        va_list arguments;
        va_start(arguments, format);
        why->code = code;
        vsnprintf(why->text, sizeof why->text, format, arguments);
        va_end(arguments);
        flatten(why->text);
    }
    return code;
}

enum err error_prefix(struct error *why, const char *format, ...)
{
    if (!why) {
        return ERR_LIBRARY;
    }
    char old[sizeof why->text];
    memcpy(old, why->text, sizeof old);
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(why->text, sizeof why->text, format, arguments);
    va_end(arguments);
    if (used >= 0 && (size_t)used < sizeof why->text) {
        strncat(why->text, ": ", sizeof why->text - 1 - strlen(why->text));
        strncat(why->text, old, sizeof why->text - 1 - strlen(why->text));
    }
    flatten(why->text);
    return why->code;
}

void assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "meowbridge: bug: %s:%d: %s does not hold\n", file, line, condition);
    abort();
}
