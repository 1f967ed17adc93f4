/* From the file to the options.
 *
 * Comments are blanked with spaces in a copy of the file, which keeps every offset, and the result is read by the strict
 * scanner alone, which knows where everything stands. cJSON does not read it: it knows no places, lets a NUL end a key, takes
 * numbers that are none, and leaves copies of secrets behind. */
#include "config_internal.h"

#include "meowbridge/jsonscan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAX_DEPTH = 3, /* objects in each other: the root, "http", "tls" */
    MAX_PATH = 192 /* bytes of a key's path */
};

/* --- the text --- */

/* Each byte of a comment becomes a space, so that offsets stay. False: *open is where a comment begins that does not end. */
static bool blank_comments(char *text, size_t size, size_t *open)
{
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        const char next = i + 1 < size ? text[i + 1] : 0;
        if (in_string && text[i] == '\\') {
            i++;
        } else if (text[i] == '"') {
            in_string = !in_string;
        } else if (!in_string && text[i] == '/' && next == '/') {
            const char *newline = memchr(text + i, '\n', size - i);
            size_t end = newline ? (size_t)(newline - text) : size;
            memset(text + i, ' ', end - i);
        } else if (!in_string && text[i] == '/' && next == '*') {
            const char *close = memmem(text + i + 2, size - i - 2, "*/", 2);
            *open = i;
            if (!close) {
                return false;
            }
            memset(text + i, ' ', (size_t)(close - text) + 2 - i);
        }
    }
    return true;
}

static bool read_file(struct loader *l)
{
    struct error why = {0};
    int fd = config_open_file(l->file, &l->file_mode, &why);
    if (fd < 0) {
        loader_note(l, &l->errors, PLACE_FILE, "%s", why.text);
        return false;
    }
    ssize_t got = 0;
    while (l->size <= CONFIG_MAX_FILE) {
        got = read(fd, l->original + l->size, CONFIG_MAX_FILE + 1 - l->size);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            break;
        }
        l->size += got > 0 ? (size_t)got : 0;
    }
    if (got < 0) {
        loader_note(l, &l->errors, PLACE_FILE, "cannot be read: %s", strerror(errno));
    } else if (l->size > CONFIG_MAX_FILE) {
        loader_note(l, &l->errors, PLACE_FILE, "is larger than 1MiB, which is no configuration");
    }
    close(fd);
    return got >= 0 && l->size <= CONFIG_MAX_FILE;
}

/* The place that the scanner names is right, but not every mistake that people make is a sentence of JSON's grammar. */
static void note_no_json(struct loader *l, size_t offset, const struct error *why)
{
    bool at_end = offset >= l->size;
    size_t before = at_end ? l->size : offset;
    char at = at_end ? 0 : l->blanked[offset];
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): the four, and not the NUL behind them */
    while (before > 0 && memchr(" \t\r\n", l->blanked[before - 1], 4)) {
        before--;
    }
    if (before == 0 && at_end) {
        loader_note(l, &l->errors, offset, "holds no configuration, expected one object: {}");
    } else if ((at == '}' || at == ']') && before > 0 && l->blanked[before - 1] == ',') {
        loader_note(l, &l->errors, offset, "not JSON: %c behind a comma, expected no comma behind the last element", at);
    } else if (offset == 0 && (unsigned char)at == 0xef) {
        loader_note(l, &l->errors, offset, "not JSON: %s, expected UTF-8 without one", why->text);
    } else {
        loader_note(l, &l->errors, offset, "not JSON: %s", why->text);
    }
}

static bool parse_file(struct loader *l, struct json_value *root)
{
    size_t offset = 0;
    struct error why = {0};
    l->blanked = malloc(l->size + 1);
    if (!l->blanked || !buf_reserve(&l->unescaped, l->size + 1)) {
        l->no_memory = true;
        return false;
    }
    memcpy(l->blanked, l->original, l->size);
    if (!blank_comments(l->blanked, l->size, &offset)) {
        loader_note(l, &l->errors, offset, "the comment that begins here does not end, expected */");
        return false;
    }
    if (jsonscan_document((struct slice){l->blanked, l->size}, root, &offset, &why)) {
        note_no_json(l, offset, &why);
        return false;
    }
    if (root->type != JSON_OBJECT) {
        loader_note(l, &l->errors, (size_t)(root->text.data - l->blanked), "expected one object that holds the configuration");
        return false;
    }
    return true;
}

/* --- from a JSON value to an option --- */

static bool is_name_character(char c, bool first)
{
    char lower = (char)(c | 0x20);
    return (lower >= 'a' && lower <= 'z') || c == '_' || (!first && c >= '0' && c <= '9');
}

/* The NAME of "${NAME}" at the start of text; empty if it is none. */
static struct slice variable_name(struct slice text)
{
    size_t size = 0;
    text = (struct slice){text.data + 2, text.size - 2};
    while (size < text.size && is_name_character(text.data[size], size == 0)) {
        size++;
    }
    bool closed = size < text.size && text.data[size] == '}';
    return (struct slice){text.data, closed && size < OPTION_VARIABLE_SIZE * 2 ? size : 0};
}

static enum err append_variable(struct buf *out, struct slice name, struct error *why)
{
    char text[OPTION_VARIABLE_SIZE * 2];
    if (name.size == 0) {
        return error_set(why, ERR_INVALID, "expected the name of an environment variable and } behind ${");
    }
    memcpy(text, name.data, name.size);
    text[name.size] = 0;
    const char *value = getenv(text);
    if (!value) {
        return error_set(why, ERR_INVALID, "expected the environment variable %s to be set%s", text,
                         strcmp(text, "CREDENTIALS_DIRECTORY") == 0
                             ? ": systemd sets it for the service, elsewhere set it to the folder that holds the secrets"
                             : "");
    }
    buf_append_text(out, value);
    return ERR_NONE;
}

static enum err expand(struct loader *l, struct slice *text, bool *expanded, struct error *why)
{
    struct slice rest = *text;
    buf_reset(&l->expanded);
    const char *dollar;
    while (rest.size > 0 && (dollar = memmem(rest.data, rest.size, "${", 2))) {
        size_t before = (size_t)(dollar - rest.data);
        buf_append(&l->expanded, (struct slice){rest.data, before});
        rest = (struct slice){dollar, rest.size - before};
        struct slice name = variable_name(rest);
        enum err err = append_variable(&l->expanded, name, why);
        if (err) {
            return err;
        }
        rest = (struct slice){rest.data + name.size + 3, rest.size - name.size - 3};
        *expanded = true;
    }
    if (!*expanded) {
        return ERR_NONE;
    }
    buf_append(&l->expanded, rest);
    if (l->expanded.failed) {
        return error_set(why, ERR_INVALID, "expected at most %d bytes with its variables filled in", CONFIG_MAX_EXPANDED);
    }
    *text = buf_slice(&l->expanded);
    return config_check_text(*text, why);
}

/* The text that option_set takes; it stays until the next call. */
static enum err text_of(struct loader *l, const struct json_value *value, struct slice *text, bool *expanded, struct error *why)
{
    *text = value->text;
    if (value->type != JSON_STRING) {
        return ERR_NONE;
    }
    buf_reset(&l->unescaped);
    *text = jsonscan_unescape(value, &l->unescaped);
    ASSERT(!l->unescaped.failed);
    enum err err = config_check_text(*text, why);
    return err ? err : expand(l, text, expanded, why);
}

static bool type_fits(const struct option *option, const struct json_value *value)
{
    switch (option->type) {
    case OPTION_INTEGER:
    case OPTION_CHOICE:
        return value->type == JSON_NUMBER && value->is_integer;
    case OPTION_BOOLEAN:
        return value->type == JSON_TRUE || value->type == JSON_FALSE;
    case OPTION_URLS:
        return value->type == JSON_STRING || value->type == JSON_ARRAY;
    case OPTION_TOPICS:
    case OPTION_APPS:
    case OPTION_ROUTES:
        return value->type == JSON_ARRAY;
    default:
        return value->type == JSON_STRING;
    }
}

static void load_scalar(struct loader *l, struct scope *scope, size_t index, const struct json_value *value)
{
    const struct option *option = &scope->table->options[index];
    struct origin *origin = &scope->origins[index];
    struct error why = {0};
    struct slice text;
    bool taken = !text_of(l, value, &text, &origin->expanded, &why) && !option_set(option, scope->base, text, &why);
    if (!taken && !(l->only_looks && (option->type == OPTION_SECRET || option->type == OPTION_SECRET_FILE))) {
        loader_refuse(l, scope, index, origin, &why);
    }
}

static void load_element(struct loader *l, struct scope *scope, size_t index, const struct origin *origin,
                         const struct json_value *value)
{
    const struct option *option = &scope->table->options[index];
    struct origin element = *origin;
    struct error why = {0};
    struct slice text;
    enum err err = value->type == JSON_STRING ? text_of(l, value, &text, &element.expanded, &why)
                                              : error_set(&why, ERR_INVALID, "expected a string");
    err = err ? err : option_add(option, scope->base, text, &why);
    if (err) {
        loader_refuse(l, scope, index, &element, &why);
    }
}

static void load_list(struct loader *l, struct scope *scope, size_t index, const struct json_value *list)
{
    const struct option *option = &scope->table->options[index];
    struct origin element = {.from = FROM_FILE};
    struct json_iterator it;
    struct json_value value;
    option_clear_list(option, scope->base);
    jsonscan_enter(&it, list);
    while (jsonscan_next(&it, NULL, &value)) {
        element.element++;
        element.written = value.text;
        load_element(l, scope, index, &element, &value);
    }
    if (element.element == 0) {
        loader_reject(l, scope, index, TONE_PLAIN, "is empty, expected one element at least");
    }
}

static void load_value(struct loader *l, struct scope *scope, size_t index, const struct json_value *value)
{
    const struct option *option = &scope->table->options[index];
    scope->origins[index] = (struct origin){.from = FROM_FILE, .written = value->text};
    if (!type_fits(option, value)) {
        struct error why = {0};
        option_expected(option, &why);
        loader_refuse(l, scope, index, &scope->origins[index], &why);
    } else if (option->type == OPTION_APPS || option->type == OPTION_ROUTES) {
        /* load_elements takes them later, from their origin: objects are walked one scope after the other. */
    } else if (value->type == JSON_ARRAY) {
        load_list(l, scope, index, value);
    } else {
        load_scalar(l, scope, index, value);
    }
}

/* --- objects --- */

/* The object being walked. */
struct frame {
    struct json_iterator it;
    char path[MAX_PATH]; /* "", "http.", "http.tls." */
    uint64_t seen;       /* by the index of the first option at or below a key */
    bool seen_schema;
};
_Static_assert(OPTION_MAX_COUNT < 64, "seen has 64 bits");

/* "listen, threads or tls": the keys that the object has. */
static void append_known_keys(struct buf *out, const struct option_table *table, struct slice section)
{
    struct slice keys[OPTION_MAX_COUNT];
    size_t count = 0;
    for (size_t i = 0; i < table->count; i++) {
        struct slice path = slice_of(table->options[i].path);
        if (!slice_starts(path, section)) {
            continue;
        }
        struct slice key = {path.data + section.size, strcspn(path.data + section.size, ".")};
        if (count == 0 || !slice_equal(keys[count - 1], key)) {
            keys[count++] = key;
        }
    }
    for (size_t i = 0; i < count; i++) {
        buf_appendf(out, "%s%.*s", i == 0 ? "" : i + 1 == count ? " or " : ", ", SLICE_ARGS(keys[i]));
    }
}

static void note_key(struct loader *l, const struct scope *scope, const struct frame *frame, const struct json_value *key,
                     const char *text)
{
    struct buf shown;
    buf_init(&shown, 256);
    config_append_cut(&shown, (struct slice){key->text.data + 1, key->text.size - 2});
    l->no_memory = l->no_memory || shown.failed;
    loader_note(l, &l->errors, (size_t)(key->text.data - l->blanked), "%s%s%s: %s", scope->prefix, frame->path,
                shown.data ? shown.data : "", text);
    buf_free(&shown);
}

static void note_unknown_key(struct loader *l, const struct scope *scope, const struct frame *frame,
                             const struct json_value *key, struct slice name)
{
    struct buf text, path;
    struct slice nearest = {0};
    buf_init(&text, 1024);
    buf_init(&path, MAX_PATH);
    buf_append_text(&path, frame->path);
    buf_append(&path, name);
    if (!path.failed) {
        nearest = options_nearest(scope->table, buf_slice(&path));
    }
    if (name.size > 0 && memchr(name.data, '.', name.size)) {
        buf_append_text(&text, "unknown key, expected objects in each other where a dot stands");
    } else if (nearest.size > 0) {
        buf_appendf(&text, "unknown key, did you mean %s%.*s?", scope->prefix, SLICE_ARGS(nearest));
    } else {
        buf_append_text(&text, "unknown key, expected ");
        append_known_keys(&text, scope->table, slice_of(frame->path));
    }
    note_key(l, scope, frame, key, text.data ? text.data : "unknown key");
    buf_free(&path);
    buf_free(&text);
}

/* Appends the key to the frame's path. A key with a dot or a NUL in it is none of ours. */
static bool key_path(const struct frame *frame, struct slice name, char path[MAX_PATH])
{
    size_t before = strlen(frame->path);
    if (before + name.size + 2 > MAX_PATH || memchr(name.data, '.', name.size) || memchr(name.data, 0, name.size)) {
        return false;
    }
    memcpy(path, frame->path, before);
    memcpy(path + before, name.data, name.size);
    path[before + name.size] = 0;
    return true;
}

/* Sections stand in the outermost scope alone. */
static void note_no_object(struct loader *l, const char *path, bool may_be_switch, const struct json_value *value)
{
    struct buf shown;
    buf_init(&shown, 256);
    config_append_cut(&shown, value->type == JSON_ARRAY ? SLICE("an array") : value->text);
    l->no_memory = l->no_memory || shown.failed;
    loader_note(l, &l->errors, (size_t)(value->text.data - l->blanked), "%s: is %s, expected an object%s", path,
                shown.data ? shown.data : "", may_be_switch ? ", true or false" : "");
    buf_free(&shown);
}

/* "$schema" is for editors. */
static bool is_ignored(const struct loader *l, const struct scope *scope, const struct frame *frame,
                       const struct json_value *key)
{
    return scope == &l->top && frame->path[0] == 0 && jsonscan_string_is(key, SLICE("$schema"));
}

/* Takes one member. True: it is a section, and *inner is to be walked first. */
static bool take_member(struct loader *l, struct scope *scope, struct frame *frame, const struct json_value *key,
                        const struct json_value *value, struct frame *inner)
{
    char path[MAX_PATH];
    if (is_ignored(l, scope, frame, key)) {
        if (frame->seen_schema) {
            note_key(l, scope, frame, key, "is given twice, expected once");
        }
        frame->seen_schema = true;
        return false;
    }
    buf_reset(&l->unescaped);
    struct slice name = jsonscan_unescape(key, &l->unescaped);
    struct option_match match = {.index = scope->table->count};
    if (key_path(frame, name, path)) {
        match = options_match(scope->table, slice_of(path));
    }
    if (match.index == scope->table->count) {
        note_unknown_key(l, scope, frame, key, name);
        return false;
    }
    if (frame->seen & 1ull << match.index) {
        note_key(l, scope, frame, key, "is given twice, expected once");
        return false;
    }
    frame->seen |= 1ull << match.index;
    if (match.is_section && value->type == JSON_OBJECT) {
        jsonscan_enter(&inner->it, value);
        snprintf(inner->path, sizeof inner->path, "%.*s.", MAX_PATH - 2, path);
        inner->seen = 0;
        inner->seen_schema = false;
        return true;
    }
    if (match.is_option && (!match.is_section || type_fits(&scope->table->options[match.index], value))) {
        load_value(l, scope, match.index, value);
    } else {
        note_no_object(l, path, match.is_option, value);
    }
    return false;
}

static void walk_object(struct loader *l, struct scope *scope, const struct json_value *object)
{
    struct frame frames[MAX_DEPTH];
    struct json_value key, value;
    size_t depth = 1;
    frames[0] = (struct frame){0};
    jsonscan_enter(&frames[0].it, object);
    while (depth > 0) {
        struct frame *frame = &frames[depth - 1];
        if (!jsonscan_next(&frame->it, &key, &value)) {
            depth--;
            continue;
        }
        struct frame inner;
        if (take_member(l, scope, frame, &key, &value, &inner)) {
            ASSERT(depth < MAX_DEPTH); /* no path of a table has more dots */
            frames[depth++] = inner;
        }
    }
}

static size_t count_elements(const struct json_value *array)
{
    struct json_iterator it;
    struct json_value value;
    size_t count = 0;
    jsonscan_enter(&it, array);
    while (jsonscan_next(&it, NULL, &value)) {
        count++;
    }
    return count;
}

/* An app or a route that is none: there is nothing in it to judge. */
static void refuse_element(struct loader *l, const struct option *list, struct scope *scope)
{
    loader_complain(l, &l->errors, &l->top, list, &scope->itself, TONE_IS, "expected an object");
    for (size_t i = 0; i < scope->table->count; i++) {
        scope->origins[i].failed = true;
    }
}

/* What "apps" and "routes" have in common. */
struct element_kind {
    const char *name;
    const struct option_table *table;
    size_t size, max;
    struct scope *scopes;
};

static void load_elements(struct loader *l, const struct element_kind *kind, void **elements, size_t *count)
{
    size_t index = options_index(&config_options, kind->name);
    struct origin *origin = &l->top.origins[index];
    if (origin->from != FROM_FILE || origin->failed) {
        return;
    }
    struct json_value array = {.type = JSON_ARRAY, .text = origin->written}, value;
    size_t all = count_elements(&array);
    if (all > kind->max) {
        char text[96];
        snprintf(text, sizeof text, "has %zu elements, expected at most %zu", all, kind->max);
        loader_reject(l, &l->top, index, TONE_PLAIN, text);
        return;
    }
    *elements = calloc(all ? all : 1, kind->size);
    l->no_memory = l->no_memory || !*elements;
    struct json_iterator it;
    jsonscan_enter(&it, &array);
    while (*elements && jsonscan_next(&it, NULL, &value)) {
        struct scope *scope = &kind->scopes[*count];
        snprintf(scope->prefix, sizeof scope->prefix, "%s[%zu].", kind->name, *count);
        scope->itself = (struct origin){.from = FROM_FILE, .written = value.text, .element = *count + 1};
        if (!loader_open_scope(l, scope, kind->table, (char *)*elements + *count * kind->size)) {
            *count += 1; /* to be freed */
            return;
        }
        if (value.type == JSON_OBJECT) {
            walk_object(l, scope, &value);
        } else {
            refuse_element(l, &config_options.options[index], scope);
        }
        *count += 1;
    }
}

static void load_apps_and_routes(struct loader *l)
{
    const struct element_kind apps = {"apps", &app_options, sizeof(struct app_config), CONFIG_MAX_APPS, l->apps};
    const struct element_kind routes = {"routes", &route_options, sizeof(struct route), CONFIG_MAX_ROUTES, l->routes};
    void *elements = NULL;
    load_elements(l, &apps, &elements, &l->config->app_count);
    l->config->apps = elements;
    elements = NULL;
    load_elements(l, &routes, &elements, &l->config->route_count);
    l->config->routes = elements;
}

bool loader_read_file(struct loader *l)
{
    struct json_value root;
    if (!read_file(l) || !parse_file(l, &root)) {
        return false;
    }
    l->top.itself = (struct origin){.from = FROM_FILE, .written = root.text};
    walk_object(l, &l->top, &root);
    load_apps_and_routes(l);
    return true;
}
