/* What is wrong, noted while loading and told at the end in the order of the file. Nothing here quotes what a value was
 * understood as: only what the user wrote, and of that no secret. */
#include "config_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SHOWN = 60, MAX_SHOWN_PATH = 1000 }; /* bytes of a value or a key; of a file's name, which is told by its end */

void loader_note(struct loader *l, struct problems *problems, size_t offset, const char *format, ...)
{
    size_t sequence = problems->all++;
    if (problems->count == CONFIG_MAX_PROBLEMS) {
        return;
    }
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0) {
        l->no_memory = true;
    } else {
        problems->items[problems->count++] = (struct problem){offset, sequence, text};
    }
    va_end(arguments);
}

size_t loader_offset(const struct loader *l, const struct origin *origin)
{
    if (origin->from == FROM_DEFAULT && l->top.itself.from == FROM_FILE) {
        origin = &l->top.itself; /* what the file does not say is missing in its object */
    }
    return origin->from == FROM_FILE ? (size_t)(origin->written.data - l->blanked) : PLACE_NONE;
}

static void append_cut(struct buf *out, struct slice text, size_t max)
{
    size_t size = text.size;
    if (size > max) {
        size = max;
        while (size > 0 && ((unsigned char)text.data[size] & 0xc0) == 0x80) {
            size--;
        }
    }
    buf_append(out, (struct slice){text.data, size});
    buf_append_text(out, size < text.size ? "…" : "");
}

void config_append_cut(struct buf *out, struct slice text)
{
    append_cut(out, text, MAX_SHOWN);
}

static void append_quoted(struct buf *out, struct slice text, size_t max)
{
    struct buf cut;
    buf_init(&cut, max + 8);
    append_cut(&cut, text, max);
    buf_append_json_string(out, buf_slice(&cut));
    buf_free(&cut);
}

/* A secret, and a URL that may hold a password. */
static bool is_hidden(const struct option *option, struct slice written)
{
    bool is_url = option->type == OPTION_URLS || option->check == config_check_public_url;
    bool is_empty = written.size == 0 || slice_equal(written, SLICE("\"\""));
    return !is_empty && (option->type == OPTION_SECRET || (is_url && memchr(written.data, '@', written.size)));
}

static void append_written(struct buf *out, const struct option *option, const struct origin *origin)
{
    struct slice written = origin->from == FROM_DEFAULT ? slice_of(option->fallback) : origin->written;
    size_t max = option->type == OPTION_FILE || option->type == OPTION_SECRET_FILE ? MAX_SHOWN_PATH : MAX_SHOWN;
    char first = written.size > 0 ? written.data[0] : 0;
    if (origin->from == FROM_FILE && (first == '{' || first == '[')) {
        buf_append_text(out, first == '{' ? "an object" : "an array");
    } else if (is_hidden(option, written)) {
        buf_append_text(out, "***");
    } else if (origin->from == FROM_FILE) {
        append_cut(out, written, max);
    } else {
        append_quoted(out, written, max);
    }
}

static void append_subject(struct buf *out, const struct scope *scope, const struct option *option, const struct origin *origin)
{
    char variable[OPTION_VARIABLE_SIZE];
    if (origin->from == FROM_ENVIRONMENT && option_variable(option, variable)) {
        buf_append_text(out, variable);
    } else {
        buf_appendf(out, "%s%s", scope->prefix, option->path);
    }
    if (origin->element > 0) {
        buf_appendf(out, "[%zu]", origin->element - 1);
    }
    buf_append_text(out, ": ");
}

void loader_complain(struct loader *l, struct problems *problems, const struct scope *scope, const struct option *option,
                     const struct origin *origin, enum tone tone, const char *text)
{
    struct buf line;
    buf_init(&line, 4096);
    append_subject(&line, scope, option, origin);
    buf_append_text(&line, tone == TONE_IS ? "is " : "");
    if (tone != TONE_PLAIN) {
        append_written(&line, option, origin);
        buf_append_text(&line, tone == TONE_SHOWN ? " " : strncmp(text, "expected ", 9) == 0 ? ", " : ": ");
    }
    buf_append_text(&line, text);
    l->no_memory = l->no_memory || line.failed;
    loader_note(l, problems, loader_offset(l, origin), "%s", line.data ? line.data : "");
    buf_free(&line);
}

void loader_reject(struct loader *l, struct scope *scope, size_t index, enum tone tone, const char *text)
{
    loader_complain(l, &l->errors, scope, &scope->table->options[index], &scope->origins[index], tone, text);
    scope->origins[index].failed = true;
}

/* What is said of a topic quotes it, and must not where variables were filled in. */
void loader_refuse(struct loader *l, struct scope *scope, size_t index, const struct origin *origin, const struct error *why)
{
    const struct option *option = &scope->table->options[index];
    bool quotes = option->type == OPTION_TOPICS || option->type == OPTION_STRING;
    bool says_expected = strncmp(why->text, "expected ", 9) == 0;
    if (why->code == ERR_MEMORY) {
        l->no_memory = true;
        return;
    }
    loader_complain(l, &l->errors, scope, option, origin, TONE_IS,
                    quotes && origin->expanded && !says_expected ? "with its variables filled in it is no valid topic"
                                                                 : why->text);
    scope->origins[index].failed = true;
}

/* --- the report --- */

static int compare_problems(const void *a, const void *b)
{
    const struct problem *x = a, *y = b;
    return x->offset != y->offset ? (x->offset > y->offset) - (x->offset < y->offset)
                                  : (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

/* Where in the original file we are; columns count characters. */
struct place {
    size_t offset, line, column;
};

static void advance(struct place *place, const char *text, size_t to)
{
    for (; place->offset < to; place->offset++) {
        unsigned char c = (unsigned char)text[place->offset];
        place->column = c == '\n' ? 1 : place->column + ((c & 0xc0) != 0x80);
        place->line += c == '\n';
    }
}

void loader_report(struct loader *l, struct problems *problems, struct config_errors *out)
{
    struct place place = {0, 1, 1};
    qsort(problems->items, problems->count, sizeof problems->items[0], compare_problems);
    for (size_t i = 0; i < problems->count; i++) {
        struct problem *problem = &problems->items[i];
        if (problem->offset < PLACE_FILE) {
            advance(&place, l->original, problem->offset);
            buf_appendf(&out->text, "%s:%zu:%zu: ", l->file, place.line, place.column);
        } else if (problem->offset == PLACE_FILE) {
            buf_appendf(&out->text, "%s: ", l->file);
        }
        buf_appendf(&out->text, "%s\n", problem->text);
        free(problem->text);
    }
    if (problems->all > problems->count) {
        buf_appendf(&out->text, "%s: and %zu more\n", l->file ? l->file : "environment", problems->all - problems->count);
    }
    out->count = problems->all;
    problems->count = problems->all = 0;
    l->no_memory = l->no_memory || out->text.failed;
}
