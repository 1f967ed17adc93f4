/* What only the whole configuration can tell: whether files can be read, what secrets they hold, and the rules that join
 * options. A rule is not judged where one of its options was refused already: one mistake, one error. */
#include "config_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void warn_of_readers(struct loader *l, struct scope *scope, size_t index, mode_t mode)
{
    char text[96];
    if (mode & S_IROTH) {
        snprintf(text, sizeof text, "can be read by everybody (mode %04o), expected chmod o-r", (unsigned)mode);
        loader_complain(l, &l->warnings, scope, &scope->table->options[index], &scope->origins[index], TONE_SHOWN, text);
    }
}

/* It counts, as some password may need it, but is nearly always copied along by mistake, and nobody sees it. */
static void warn_of_space(struct loader *l, struct scope *scope, size_t index, const struct secret *secret)
{
    char text[128];
    const struct option *option = &scope->table->options[index];
    bool at_start = secret->size > 0 && isspace((unsigned char)secret->data[0]);
    bool at_end = secret->size > 0 && isspace((unsigned char)secret->data[secret->size - 1]);
    if (at_start || at_end) {
        snprintf(text, sizeof text, "%s%s%s%s with white space, which counts%s",
                 option->type == OPTION_SECRET_FILE ? "holds a secret that " : "", at_start ? "begins" : "",
                 at_start && at_end ? " and " : "", at_end ? "ends" : "",
                 scope->table == &app_options ? "; MeowFlow's secrets have none" : "");
        loader_complain(l, &l->warnings, scope, option, &scope->origins[index],
                        option->type == OPTION_SECRET_FILE ? TONE_SHOWN : TONE_PLAIN, text);
    }
}

static void check_file(struct loader *l, struct scope *scope, size_t index)
{
    const struct option *option = &scope->table->options[index];
    const char *path = *option_string(option, scope->base);
    struct error why = {0};
    mode_t mode = 0;
    if (scope->origins[index].failed || !path[0]) {
        return;
    }
    if (option->type == OPTION_SECRET_FILE) {
        struct secret *secret = (struct secret *)((char *)scope->base + option->secret_offset);
        enum err err = config_read_secret_file(path, secret, &mode, &why);
        l->no_memory = l->no_memory || err == ERR_MEMORY;
        if (!err) {
            warn_of_space(l, scope, index, secret);
        }
    } else {
        int fd = config_open_file(path, &mode, &why);
        if (fd >= 0) {
            close(fd);
        }
    }
    if (why.code == ERR_INVALID && !l->only_looks) {
        loader_reject(l, scope, index, TONE_SHOWN, why.text);
    } else if (option->type == OPTION_SECRET_FILE || option->flags & OPTION_PRIVATE) {
        warn_of_readers(l, scope, index, mode);
    }
}

static void check_files(struct loader *l, struct scope *scope)
{
    for (size_t i = 0; i < scope->table->count; i++) {
        enum option_type type = scope->table->options[i].type;
        if (type == OPTION_FILE || type == OPTION_SECRET_FILE) {
            check_file(l, scope, i);
        }
    }
}

static bool is_judged(const struct scope *scope, const char *path)
{
    return !scope->origins[options_index(scope->table, path)].failed;
}

static bool is_set(const struct scope *scope, const char *path)
{
    return (*option_string(&scope->table->options[options_index(scope->table, path)], scope->base))[0] != 0;
}

static void reject_at(struct loader *l, struct scope *scope, const char *path, enum tone tone, const char *text)
{
    loader_reject(l, scope, options_index(scope->table, path), tone, text);
}

static void check_pair(struct loader *l, const char *first, const char *second)
{
    char text[128];
    bool has_first = is_set(&l->top, first), has_second = is_set(&l->top, second);
    if (has_first != has_second && is_judged(&l->top, first) && is_judged(&l->top, second)) {
        snprintf(text, sizeof text, "is set without %s, expected both or neither", has_first ? second : first);
        reject_at(l, &l->top, has_first ? first : second, TONE_PLAIN, text);
    }
}

/* The place is that of the file that the sentence names first. */
static void reject_named(struct loader *l, const char *const *paths, size_t count, const char *text)
{
    const char *first = NULL;
    size_t named = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t index = options_index(&config_options, paths[i]);
        const char *file = *option_string(&config_options.options[index], l->top.base);
        const char *at = file[0] ? strstr(text, file) : NULL;
        if (at && (!first || at < first)) {
            first = at;
            named = i;
        }
    }
    reject_at(l, &l->top, paths[named], TONE_PLAIN, text);
}

/* Files that are there but cannot be used: only where nothing else is wrong with them. */
static bool are_judged(const struct loader *l, const char *const *paths, size_t count)
{
    bool judged = true;
    for (size_t i = 0; i < count; i++) {
        judged = judged && is_judged(&l->top, paths[i]);
    }
    return judged;
}

static void try_http_files(struct loader *l)
{
    static const char *const paths[] = {"http.tls.certificate_file", "http.tls.key_file"};
    const struct config *config = l->config;
    struct error why;
    if (!are_judged(l, paths, 2) || !config->http.tls_certificate_file[0]) {
        return;
    }
    enum err err = l->trials->http(config->http.tls_certificate_file, config->http.tls_key_file, &why);
    l->no_memory = l->no_memory || err == ERR_MEMORY;
    if (err == ERR_CONFIG) {
        reject_named(l, paths, 2, why.text);
    }
}

static void try_mqtt_files(struct loader *l)
{
    static const char *const paths[] = {"mqtt.tls.ca_file", "mqtt.tls.certificate_file", "mqtt.tls.key_file"};
    const struct config *config = l->config;
    struct error why;
    if (!are_judged(l, paths, 3) || (!config->mqtt.tls_ca_file[0] && !config->mqtt.tls_certificate_file[0])) {
        return;
    }
    enum err err =
        l->trials->mqtt(config->mqtt.tls_ca_file, config->mqtt.tls_certificate_file, config->mqtt.tls_key_file, &why);
    l->no_memory = l->no_memory || err == ERR_MEMORY;
    if (err == ERR_CONFIG) {
        reject_named(l, paths, 3, why.text);
    }
}

static void check_listeners(struct loader *l)
{
    struct config *config = l->config;
    const struct listen_address *http = &config->http.listen, *admin = &config->admin.listen;
    if (!is_judged(&l->top, "http.listen") || !is_judged(&l->top, "admin.listen")) {
        return;
    }
    bool same = http->is_unix == admin->is_unix && strcmp(http->host, admin->host) == 0 && http->port == admin->port &&
                strcmp(http->path, admin->path) == 0;
    if (same && (http->is_unix || http->port != 0)) {
        bool by_admin = l->top.origins[options_index(&config_options, "admin.listen")].from != FROM_DEFAULT;
        reject_at(l, &l->top, by_admin ? "admin.listen" : "http.listen", TONE_IS,
                  by_admin ? "expected another address than that of http.listen"
                           : "expected another address than that of admin.listen");
    }
    if (!l->only_looks && !listen_is_local(admin) && !is_set(&l->top, "admin.token_file") &&
        is_judged(&l->top, "admin.token_file")) {
        reject_at(l, &l->top, "admin.listen", TONE_IS, "expected admin.token_file beside an address that others can reach");
    }
}

static void check_mqtt(struct loader *l)
{
    static const char *const tls[] = {"mqtt.tls.ca_file", "mqtt.tls.certificate_file", "mqtt.tls.key_file"};
    struct config *config = l->config;
    bool uses_tls = !is_judged(&l->top, "mqtt.url");
    for (size_t i = 0; i < config->mqtt.broker_count; i++) {
        uses_tls = uses_tls || config->mqtt.brokers[i].tls;
    }
    for (size_t i = 0; i < sizeof tls / sizeof tls[0]; i++) {
        if (is_set(&l->top, tls[i]) && !uses_tls) {
            reject_at(l, &l->top, tls[i], TONE_PLAIN, "is set, but no URL of mqtt.url uses TLS, expected mqtts:// there");
        }
    }
    if (is_set(&l->top, "mqtt.password_file") && config->mqtt.version == 3 && !is_set(&l->top, "mqtt.username") &&
        is_judged(&l->top, "mqtt.username") && is_judged(&l->top, "mqtt.version")) {
        reject_at(l, &l->top, "mqtt.password_file", TONE_PLAIN, "is set without mqtt.username, which MQTT 3.1.1 forbids");
    }
}

static void check_route(struct loader *l, struct scope *scope)
{
    const struct route *route = scope->base;
    if (!l->config->journal.enabled && route->qos == 0 && is_judged(scope, "qos")) {
        reject_at(l, scope, "qos", TONE_IS, "expected 1 or 2 without a journal, where only what the broker confirms is taken");
    }
    if (route->unheard != ROUTE_DEAD || !is_judged(scope, "unheard")) {
        return;
    }
    if (l->config->mqtt.version != 5 && is_judged(&l->top, "mqtt.version")) {
        reject_at(l, scope, "unheard", TONE_IS,
                  "expected \"deliver\" with mqtt.version 3, whose brokers do not say who listens");
    }
    if (route->qos == 0 && is_judged(scope, "qos")) {
        reject_at(l, scope, "unheard", TONE_IS, "expected \"deliver\" with qos 0, which brokers do not answer");
    }
}

static void check_routes(struct loader *l)
{
    size_t topics = 0;
    for (size_t i = 0; i < l->config->route_count; i++) {
        check_route(l, &l->routes[i]);
        topics += l->config->routes[i].topic_count;
    }
    if (topics > CONFIG_MAX_TOPICS) {
        char text[96];
        snprintf(text, sizeof text, "have %zu topics together, expected at most %d", topics, CONFIG_MAX_TOPICS);
        reject_at(l, &l->top, "routes", TONE_PLAIN, text);
    }
}

static void split_public_url(struct loader *l, struct app_config *app)
{
    struct slice host, path;
    if (app->public_url[0] && !config_split_public_url(slice_of(app->public_url), &host, &path, NULL)) {
        app->public_host = slice_dup(host);
        app->public_path = slice_dup(path);
        l->no_memory = l->no_memory || !app->public_host || !app->public_path;
    }
}

/* A secret that stands in a file that everybody can read is worth a word, as its own file would be. */
static void warn_of_written_secret(struct loader *l, struct scope *scope)
{
    size_t index = options_index(&app_options, "secret");
    const struct origin *origin = &scope->origins[index];
    if (origin->from == FROM_FILE && !origin->expanded && !origin->failed && l->file_mode & S_IROTH) {
        char text[128];
        snprintf(text, sizeof text, "stands in a file that everybody can read (mode %04o), expected chmod o-r or secret_file",
                 (unsigned)l->file_mode);
        loader_complain(l, &l->warnings, scope, &app_options.options[index], origin, TONE_PLAIN, text);
    }
}

static void complain_of_app(struct loader *l, struct scope *scope, const char *text)
{
    loader_complain(l, &l->errors, &l->top, &config_options.options[options_index(&config_options, "apps")], &scope->itself,
                    TONE_PLAIN, text);
}

static void check_secret(struct loader *l, struct scope *scope)
{
    struct app_config *app = scope->base;
    bool judged = is_judged(scope, "secret") && is_judged(scope, "secret_file");
    if (app->secret.size > 0 && app->secret_file[0]) {
        reject_at(l, scope, "secret_file", TONE_PLAIN, "is set beside secret, expected one of them");
    } else if (judged && app->secret.size == 0 && !app->secret_file[0]) {
        complain_of_app(l, scope, "has no secret, expected secret_file or secret: nothing is accepted unverified");
    }
    if (!app->secret_file[0]) {
        warn_of_space(l, scope, options_index(&app_options, "secret"), &app->secret);
    }
}

static void check_app(struct loader *l, struct scope *scope)
{
    const struct app_config *app = scope->base;
    for (struct scope *other = l->apps; other < scope; other++) {
        const struct app_config *earlier = other->base;
        bool judged = is_judged(scope, "id") && is_judged(scope, "path") && is_judged(other, "id") && is_judged(other, "path");
        if (judged && strcmp(app->path, earlier->path) == 0 && strcmp(app->id, earlier->id) == 0) {
            char text[64];
            snprintf(text, sizeof text, "has the path and the id of apps[%zu], expected another", (size_t)(other - l->apps));
            complain_of_app(l, scope, text);
            break;
        }
    }
    if (!l->only_looks) {
        check_secret(l, scope);
        warn_of_written_secret(l, scope);
        check_files(l, scope);
    }
}

static void check_apps(struct loader *l)
{
    size_t index = options_index(&config_options, "apps");
    if (l->only_looks && l->config->app_count == 0) {
        return;
    }
    if (l->config->app_count == 0 && !l->file) {
        loader_note(
            l, &l->errors, PLACE_NONE,
            "MEOWBRIDGE_SECRET: is not set, expected the App Secret there, or its file's path in MEOWBRIDGE_SECRET_FILE, or "
            "apps in a configuration file (-c FILE)");
    } else if (l->config->app_count == 0 && !l->top.origins[index].failed) {
        loader_reject(
            l, &l->top, index, TONE_PLAIN,
            "there is none, expected one with secret_file or secret, or the App Secret in MEOWBRIDGE_SECRET, or its file's "
            "path in MEOWBRIDGE_SECRET_FILE");
    }
    for (size_t i = 0; i < l->config->app_count; i++) {
        check_app(l, &l->apps[i]);
        split_public_url(l, &l->config->apps[i]);
    }
}

void loader_check_whole(struct loader *l)
{
    check_files(l, &l->top);
    check_pair(l, "http.tls.certificate_file", "http.tls.key_file");
    check_pair(l, "mqtt.tls.certificate_file", "mqtt.tls.key_file");
    check_listeners(l);
    check_mqtt(l);
    if (l->trials) {
        try_http_files(l);
        try_mqtt_files(l);
    }
    check_apps(l);
    check_routes(l);
}
