/* Loading, in four steps over one struct config: defaults, file (config_file.c), environment, and what only the whole can tell
 * (config_rules.c).
 *
 * Every mistake is noted with its place and the loading goes on, so that the user sees all of them at once (config_report.c).
 * For each option its origin is kept: where its value was written, so that a rule that is broken later can name the place,
 * and the text as written, so that what a variable or a secret held never reaches an error. Every buffer that may hold a
 * secret is sized once, so that no reallocation leaves a copy, and is wiped. */
#include "config_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool loader_open_scope(struct loader *l, struct scope *scope, const struct option_table *table, void *base)
{
    scope->table = table;
    scope->base = base;
    l->no_memory = !options_set_defaults(table, base) || l->no_memory;
    return !l->no_memory;
}

/* --- the environment --- */

static void load_variable(struct loader *l, struct scope *scope, size_t index, const char *value)
{
    struct error why = {0};
    const struct option *option = &scope->table->options[index];
    scope->origins[index] = (struct origin){.from = FROM_ENVIRONMENT, .written = slice_of(value)};
    enum err err = option->type == OPTION_SECRET ? ERR_NONE : config_check_text(slice_of(value), &why);
    err = err ? err : option_set(option, scope->base, slice_of(value), &why);
    if (err) {
        loader_refuse(l, scope, index, &scope->origins[index], &why);
    }
}

static void add_app(struct loader *l)
{
    free(l->config->apps);
    l->config->apps = calloc(1, sizeof *l->config->apps);
    l->no_memory = l->no_memory || !l->config->apps;
    if (l->config->apps) {
        l->config->app_count = 1;
        snprintf(l->apps[0].prefix, sizeof l->apps[0].prefix, "apps[0].");
        loader_open_scope(l, &l->apps[0], &app_options, l->config->apps);
    }
}

/* The first app's secret: what the file says of it counts no more, so its secret file is not even read. */
static void load_secret_variables(struct loader *l)
{
    size_t by_text = options_index(&app_options, "secret"), by_file = options_index(&app_options, "secret_file");
    const char *text = getenv(app_options.options[by_text].variable), *file = getenv(app_options.options[by_file].variable);
    if (l->only_looks) {
        return;
    }
    if (text && file) {
        loader_note(l, &l->errors, PLACE_NONE, "%s: is set beside %s, expected one of them",
                    app_options.options[by_text].variable, app_options.options[by_file].variable);
    }
    if ((!text && !file) || l->top.origins[options_index(&config_options, "apps")].failed) {
        return;
    }
    if (l->config->app_count == 0) {
        add_app(l);
    }
    if (l->no_memory) {
        return;
    }
    struct app_config *app = l->config->apps;
    struct scope *scope = &l->apps[0];
    secret_free(&app->secret);
    app->secret_file[0] = 0;
    scope->origins[by_text] = scope->origins[by_file] = (struct origin){0};
    load_variable(l, scope, text ? by_text : by_file, text ? text : file);
    if (!text && !file[0]) {
        struct error why = {0};
        option_expected(&app_options.options[by_file], &why);
        loader_refuse(l, scope, by_file, &scope->origins[by_file], &why);
    }
}

/* MEOWBRIDGE_APPS_0_ID and the like: a list has no variables. */
static const char *list_of_variable(const char *name)
{
    for (size_t i = 0; i < config_options.count; i++) {
        char list[OPTION_VARIABLE_SIZE];
        const struct option *option = &config_options.options[i];
        size_t size = option_variable(option, list) ? 0 : strlen(list);
        if (size > 0 && strncmp(name, list, size) == 0 && (name[size] == 0 || name[size] == '_')) {
            return option->path;
        }
    }
    return NULL;
}

/* Only a warning: what else is called MEOWBRIDGE_… is not ours to judge. */
static void warn_of_unknown_variables(struct loader *l)
{
    static const char prefix[] = "MEOWBRIDGE_";
    for (char **variable = environ; variable && *variable; variable++) {
        char name[OPTION_VARIABLE_SIZE], nearest[OPTION_VARIABLE_SIZE];
        size_t size = strcspn(*variable, "=");
        if (strncmp(*variable, prefix, sizeof prefix - 1) != 0 || size >= sizeof name) {
            continue;
        }
        snprintf(name, sizeof name, "%.*s", (int)size, *variable);
        if (options_nearest_variable(name, nearest)) {
            loader_note(l, &l->warnings, PLACE_NONE, "%s: unknown variable, did you mean %s?", name, nearest);
        } else if (list_of_variable(name)) {
            loader_note(l, &l->warnings, PLACE_NONE, "%s: unknown variable, %s are set in the file only", name,
                        list_of_variable(name));
        }
    }
}

static void load_environment(struct loader *l)
{
    for (size_t i = 0; i < config_options.count; i++) {
        char name[OPTION_VARIABLE_SIZE];
        const char *value = option_variable(&config_options.options[i], name) ? getenv(name) : NULL;
        if (value) {
            load_variable(l, &l->top, i, value);
        }
    }
    load_secret_variables(l);
    warn_of_unknown_variables(l);
}

/* --- all of it --- */

static void free_wiped(char *data, size_t size)
{
    if (data) {
        explicit_bzero(data, size);
    }
    free(data);
}

static void loader_close(struct loader *l)
{
    free_wiped(l->original, l->size);
    free_wiped(l->blanked, l->size);
    free_wiped(l->unescaped.data, l->unescaped.capacity);
    free_wiped(l->expanded.data, l->expanded.capacity);
    free(l);
}

static struct loader *loader_open(const char *file)
{
    struct loader *l = calloc(1, sizeof *l);
    if (!l) {
        return NULL;
    }
    l->file = file;
    l->original = malloc(CONFIG_MAX_FILE + 1);
    l->config = calloc(1, sizeof *l->config);
    buf_init(&l->unescaped, CONFIG_MAX_FILE + 1);
    buf_init(&l->expanded, CONFIG_MAX_EXPANDED);
    if (!l->original || !l->config || !buf_reserve(&l->expanded, CONFIG_MAX_EXPANDED) ||
        !loader_open_scope(l, &l->top, &config_options, l->config)) {
        config_free(&l->config);
        loader_close(l);
        return NULL;
    }
    return l;
}

static enum err load(struct config **out, const char *path, bool only_looks, const struct config_trials *trials,
                     struct config_errors *errors, struct config_errors *warnings)
{
    *out = NULL;
    *errors = *warnings = (struct config_errors){0};
    buf_init(&errors->text, CONFIG_MAX_FILE);
    buf_init(&warnings->text, CONFIG_MAX_FILE);
    struct loader *l = loader_open(path);
    if (!l) {
        return ERR_MEMORY;
    }
    l->only_looks = only_looks;
    l->trials = trials;
    bool whole = !path || loader_read_file(l);
    load_environment(l);
    if (whole && !l->no_memory) {
        loader_check_whole(l);
    }
    loader_report(l, &l->errors, errors);
    loader_report(l, &l->warnings, warnings);
    struct config *config = l->config;
    enum err err = l->no_memory ? ERR_MEMORY : errors->count > 0 ? ERR_CONFIG : ERR_NONE;
    loader_close(l);
    if (err) {
        config_free(&config);
    }
    *out = config;
    return err;
}

enum err config_load(struct config **out, const char *path, struct config_errors *errors, struct config_errors *warnings)
{
    return load(out, path, false, NULL, errors, warnings);
}

enum err config_load_and_try(struct config **out, const char *path, const struct config_trials *trials,
                             struct config_errors *errors, struct config_errors *warnings)
{
    return load(out, path, false, trials, errors, warnings);
}

enum err config_load_to_look(struct config **out, const char *path, struct config_errors *errors)
{
    struct config_errors warnings;
    enum err err = load(out, path, true, NULL, errors, &warnings);
    config_errors_free(&warnings);
    return err;
}

void config_errors_free(struct config_errors *errors)
{
    buf_free(&errors->text);
    errors->count = 0;
}

void config_free(struct config **config)
{
    struct config *c = *config;
    if (!c) {
        return;
    }
    for (size_t i = 0; i < c->app_count; i++) {
        options_free(&app_options, &c->apps[i]);
        free(c->apps[i].public_host);
        free(c->apps[i].public_path);
    }
    for (size_t i = 0; i < c->route_count; i++) {
        options_free(&route_options, &c->routes[i]);
    }
    options_free(&config_options, c);
    free(c->apps);
    free(c->routes);
    free(c);
    *config = NULL;
}
