/* The configuration as JSON, table by table, so that what is printed is what was understood and nothing else. */
#include "config_internal.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VALUE = 1 << 20 };

/* The texts of a list, one by one. */
static cJSON *list_of(const struct option *option, const void *base)
{
    const struct config *config = base;
    const struct route *route = base;
    bool urls = option->type == OPTION_URLS;
    size_t count = urls ? config->mqtt.broker_count : route->topic_count;
    if (urls && count == 1) {
        return cJSON_CreateString(config->mqtt.brokers[0].url);
    }
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; list && i < count; i++) {
        cJSON *text = cJSON_CreateString(urls ? config->mqtt.brokers[i].url : route->topics[i]);
        if (!cJSON_AddItemToArray(list, text)) {
            cJSON_Delete(list);
            list = NULL;
        }
    }
    return list;
}

/* NULL: no memory. Every integer of the tables is below 2^53. */
static cJSON *value_of(const struct option *option, const void *base)
{
    if (option->type == OPTION_URLS || option->type == OPTION_TOPICS) {
        return list_of(option, base);
    }
    struct buf text;
    buf_init(&text, MAX_VALUE);
    option_append_text(option, base, &text);
    const char *value = text.data ? text.data : "";
    cJSON *json = NULL;
    if (text.failed) {
        json = NULL;
    } else if (option->type == OPTION_INTEGER || option->type == OPTION_CHOICE) {
        json = cJSON_CreateNumber((double)strtoll(value, NULL, 10));
    } else if (option->type == OPTION_BOOLEAN) {
        json = cJSON_CreateBool(strcmp(value, "true") == 0);
    } else {
        json = cJSON_CreateString(value);
    }
    buf_free(&text);
    return json;
}

static bool add(cJSON *object, const char *name, cJSON *value)
{
    bool added = cJSON_AddItemToObject(object, name, value);
    if (!added) {
        cJSON_Delete(value);
    }
    return added;
}

/* An app or a route. A secret is printed where it was written itself; one from a file is named by its file. */
static cJSON *element_of(const struct option_table *table, const void *base)
{
    cJSON *object = cJSON_CreateObject();
    bool ok = object;
    for (size_t i = 0; ok && i < table->count; i++) {
        const struct option *option = &table->options[i];
        bool by_file = table == &app_options && ((const struct app_config *)base)->secret_file[0];
        if (option->type != OPTION_SECRET || !by_file) {
            ok = add(object, option->path, value_of(option, base));
        }
    }
    if (!ok) {
        cJSON_Delete(object);
        object = NULL;
    }
    return object;
}

static cJSON *elements_of(const struct option_table *table, const void *elements, size_t count, size_t size)
{
    cJSON *array = cJSON_CreateArray();
    for (size_t i = 0; array && i < count; i++) {
        cJSON *element = element_of(table, (const char *)elements + i * size);
        if (!cJSON_AddItemToArray(array, element)) {
            cJSON_Delete(array);
            array = NULL;
        }
    }
    return array;
}

/* Without routes, the one that takes their place. */
static cJSON *routes_of(const struct config *config)
{
    struct route implied = {0};
    if (config->route_count > 0) {
        return elements_of(&route_options, config->routes, config->route_count, sizeof implied);
    }
    cJSON *array = options_set_defaults(&route_options, &implied) ? elements_of(&route_options, &implied, 1, 0) : NULL;
    options_free(&route_options, &implied);
    return array;
}

/* The object that holds the option, made on the way; *name becomes its key there. NULL: no memory. */
static cJSON *parent_of(cJSON *root, const char **name)
{
    cJSON *object = root;
    char section[OPTION_VARIABLE_SIZE];
    for (const char *dot; object && (dot = strchr(*name, '.')); *name = dot + 1) {
        size_t size = (size_t)(dot - *name);
        ASSERT(size < sizeof section);
        memcpy(section, *name, size);
        section[size] = 0;
        cJSON *inner = cJSON_GetObjectItemCaseSensitive(object, section);
        object = inner ? inner : cJSON_AddObjectToObject(object, section);
    }
    return object;
}

/* "journal" is a switch and a section: false, or the object. */
static bool is_left_out(const struct config *config, const char *path)
{
    bool is_switch = strcmp(path, "journal") == 0, is_inside = strncmp(path, "journal.", 8) == 0;
    return config->journal.enabled ? is_switch : is_inside;
}

static bool add_option(cJSON *root, const struct option *option, const struct config *config)
{
    if (is_left_out(config, option->path)) {
        return true;
    }
    const char *name = option->path;
    cJSON *parent = parent_of(root, &name);
    if (!parent) {
        return false;
    }
    switch (option->type) {
    case OPTION_APPS:
        return add(parent, name, elements_of(&app_options, config->apps, config->app_count, sizeof config->apps[0]));
    case OPTION_ROUTES:
        return add(parent, name, routes_of(config));
    default:
        return add(parent, name, value_of(option, config));
    }
}

/* cJSON lays out with tabs, which never stand in a string: there they are escaped. */
static void append_with_spaces(struct buf *out, const char *text)
{
    for (const char *c = text; *c; c++) {
        if (*c != '\t') {
            buf_append_char(out, *c);
        } else {
            buf_append_text(out, c > text && c[-1] == ':' ? " " : "  ");
        }
    }
}

void config_print(const struct config *config, struct buf *out)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = root;
    for (size_t i = 0; ok && i < config_options.count; i++) {
        ok = add_option(root, &config_options.options[i], config);
    }
    char *text = ok ? cJSON_Print(root) : NULL;
    if (text) {
        append_with_spaces(out, text);
        buf_append_char(out, '\n');
    }
    out->failed = out->failed || !text;
    cJSON_free(text);
    cJSON_Delete(root);
}

/* --- what a reload cannot change --- */

/* A server that began without TLS cannot take it up, and the reverse; a certificate can be exchanged. */
static bool turns_tls(const struct option *option, struct slice running, struct slice loaded)
{
    return strncmp(option->path, "http.tls.", 9) == 0 && (running.size == 0) != (loaded.size == 0);
}

void config_fixed_changes(const struct config *running, const struct config *loaded, struct buf *out)
{
    struct buf before, after;
    buf_init(&before, MAX_VALUE);
    buf_init(&after, MAX_VALUE);
    const char *comma = "";
    for (size_t i = 0; i < config_options.count; i++) {
        const struct option *option = &config_options.options[i];
        buf_reset(&before);
        buf_reset(&after);
        option_append_text(option, running, &before);
        option_append_text(option, loaded, &after);
        struct slice old = buf_slice(&before), new = buf_slice(&after);
        bool fixed = !(option->flags & OPTION_RELOAD) || turns_tls(option, old, new);
        if (fixed && !slice_equal(old, new)) {
            buf_appendf(out, "%s%s", comma, option->path);
            comma = ", ";
        }
        out->failed = out->failed || before.failed || after.failed;
    }
    buf_free(&before);
    buf_free(&after);
}
