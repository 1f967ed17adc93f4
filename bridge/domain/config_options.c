/* The tables of options, in contract.md's order. Parsing, defaults, ranges, environment, printing and reload follow from
 * them; conf/ and its schema are held against them by a test. A default is written as the user would write it and is read
 * by the same code as what the user writes. */
#include "config_internal.h"

#include "meowbridge/topic.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const mqtt_versions[] = {"5", "3", NULL};
static const char *const log_levels[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug", NULL};
static const char *const log_formats[] = {[LOG_TEXT] = "text", [LOG_JSON] = "json", NULL};
static const char *const route_bodies[] = {
    [ROUTE_PAYLOAD] = "payload", [ROUTE_ENVELOPE] = "envelope", [ROUTE_CLOUDEVENT] = "cloudevent", NULL};
static const char *const route_unheards[] = {[ROUTE_DELIVER] = "deliver", [ROUTE_DEAD] = "dead", NULL};

#define KIB 1024LL
#define MIB (1024 * KIB)
#define PIB (1024 * 1024 * 1024 * MIB)
#define SECONDS(n) ((n)*1000LL)
#define HOURS(n) SECONDS((n)*3600LL)
#define DAYS(n) HOURS((n)*24LL)
#define MILLION 1000000LL

#define FIELD(type, member) .offset = offsetof(struct type, member), .width = sizeof(((struct type *)0)->member)
#define RANGE(from, to) .min = (from), .max = (to)
#define INTO(type, member) .secret_offset = offsetof(struct type, member)

/* clang-format off */
static const struct option config_entries[] = {
    {.path = "http.listen", .type = OPTION_LISTEN, .fallback = "0.0.0.0:8080", FIELD(config, http.listen)},
    {.path = "http.threads", .type = OPTION_INTEGER, .fallback = "1", FIELD(config, http.threads), RANGE(1, 64)},
    {.path = "http.tls.certificate_file", .type = OPTION_FILE, .fallback = "", FIELD(config, http.tls_certificate_file),
     .flags = OPTION_RELOAD},
    {.path = "http.tls.key_file", .type = OPTION_FILE, .fallback = "", FIELD(config, http.tls_key_file),
     .flags = OPTION_RELOAD | OPTION_PRIVATE},
    {.path = "http.max_body", .type = OPTION_SIZE, .fallback = "1MiB", FIELD(config, http.max_body), RANGE(KIB, 64 * MIB)},
    {.path = "http.timeout", .type = OPTION_SPAN, .fallback = "15s", FIELD(config, http.timeout_ms), RANGE(100, HOURS(1))},
    {.path = "http.max_connections", .type = OPTION_INTEGER, .fallback = "4096", FIELD(config, http.max_connections),
     RANGE(1, MILLION)},
    {.path = "http.max_connections_per_ip", .type = OPTION_INTEGER, .fallback = "0",
     FIELD(config, http.max_connections_per_ip), RANGE(0, MILLION)},

    {.path = "admin.listen", .type = OPTION_LISTEN, .fallback = "127.0.0.1:9090", FIELD(config, admin.listen)},
    {.path = "admin.token_file", .type = OPTION_SECRET_FILE, .fallback = "", FIELD(config, admin.token_file),
     INTO(config, admin.token), .flags = OPTION_RELOAD},

    {.path = "apps", .type = OPTION_APPS, .fallback = "", FIELD(config, apps), .flags = OPTION_RELOAD},

    {.path = "mqtt.url", .type = OPTION_URLS, .fallback = "mqtt://127.0.0.1:1883", FIELD(config, mqtt.brokers)},
    {.path = "mqtt.version", .type = OPTION_CHOICE, .fallback = "5", FIELD(config, mqtt.version), .names = mqtt_versions},
    {.path = "mqtt.client_id", .type = OPTION_STRING, .fallback = "", FIELD(config, mqtt.client_id),
     .check = config_check_mqtt_text},
    {.path = "mqtt.username", .type = OPTION_STRING, .fallback = "", FIELD(config, mqtt.username),
     .check = config_check_mqtt_text},
    {.path = "mqtt.password_file", .type = OPTION_SECRET_FILE, .fallback = "", FIELD(config, mqtt.password_file),
     INTO(config, mqtt.password), .flags = OPTION_RELOAD},
    {.path = "mqtt.tls.ca_file", .type = OPTION_FILE, .fallback = "", FIELD(config, mqtt.tls_ca_file), .flags = OPTION_RELOAD},
    {.path = "mqtt.tls.certificate_file", .type = OPTION_FILE, .fallback = "", FIELD(config, mqtt.tls_certificate_file),
     .flags = OPTION_RELOAD},
    {.path = "mqtt.tls.key_file", .type = OPTION_FILE, .fallback = "", FIELD(config, mqtt.tls_key_file),
     .flags = OPTION_RELOAD | OPTION_PRIVATE},
    /* MQTT keeps seconds in 16 bits; libmosquitto takes no less than 5. */
    {.path = "mqtt.keepalive", .type = OPTION_SPAN, .fallback = "10s", FIELD(config, mqtt.keepalive_ms),
     RANGE(SECONDS(5), HOURS(18)), .flags = OPTION_SECONDS},
    {.path = "mqtt.inflight", .type = OPTION_INTEGER, .fallback = "128", FIELD(config, mqtt.inflight), RANGE(1, UINT16_MAX)},
    {.path = "mqtt.max_rate", .type = OPTION_INTEGER, .fallback = "0", FIELD(config, mqtt.max_rate), RANGE(0, MILLION)},
    {.path = "mqtt.status_topic", .type = OPTION_STRING, .fallback = "meowbridge/{client_id}/status",
     FIELD(config, mqtt.status_topic), .check = topic_check_status_template},

    {.path = "journal", .type = OPTION_BOOLEAN, .fallback = "true", FIELD(config, journal.enabled)},
    {.path = "journal.path", .type = OPTION_STRING, .fallback = "meowbridge.db", FIELD(config, journal.path),
     .flags = OPTION_NOT_EMPTY},
    {.path = "journal.retention", .type = OPTION_SPAN, .fallback = "7d", FIELD(config, journal.retention_ms),
     RANGE(SECONDS(1), DAYS(3650))},
    {.path = "journal.max_size", .type = OPTION_SIZE, .fallback = "4GiB", FIELD(config, journal.max_size),
     RANGE(MIB, PIB), .flags = OPTION_ZERO},

    {.path = "routes", .type = OPTION_ROUTES, .fallback = "", FIELD(config, routes), .flags = OPTION_RELOAD},

    {.path = "log.level", .type = OPTION_ENUM, .fallback = "info", FIELD(config, log.level), .names = log_levels,
     .flags = OPTION_RELOAD},
    {.path = "log.format", .type = OPTION_ENUM, .fallback = "text", FIELD(config, log.format), .names = log_formats},
};

static const struct option app_entries[] = {
    {.path = "id", .type = OPTION_STRING, .fallback = "", FIELD(app_config, id)},
    {.path = "path", .type = OPTION_STRING, .fallback = "/webhook", FIELD(app_config, path), .check = config_check_path,
     .flags = OPTION_NOT_EMPTY},
    {.path = "secret", .type = OPTION_SECRET, .fallback = NULL, FIELD(app_config, secret), .variable = "MEOWBRIDGE_SECRET"},
    {.path = "secret_file", .type = OPTION_SECRET_FILE, .fallback = "", FIELD(app_config, secret_file),
     INTO(app_config, secret), .variable = "MEOWBRIDGE_SECRET_FILE"},
    {.path = "previous_secret_file", .type = OPTION_SECRET_FILE, .fallback = "", FIELD(app_config, previous_secret_file),
     INTO(app_config, previous_secret)},
    {.path = "public_url", .type = OPTION_STRING, .fallback = "", FIELD(app_config, public_url),
     .check = config_check_public_url},
    {.path = "rate_limit", .type = OPTION_INTEGER, .fallback = "0", FIELD(app_config, rate_limit), RANGE(0, MILLION)},
};

static const struct option route_entries[] = {
    {.path = "event", .type = OPTION_STRING, .fallback = "*", FIELD(route, event), .flags = OPTION_NOT_EMPTY},
    {.path = "topics", .type = OPTION_TOPICS, .fallback = "meowflow/{event}", FIELD(route, topics)},
    {.path = "qos", .type = OPTION_INTEGER, .fallback = "1", FIELD(route, qos), RANGE(0, 2)},
    {.path = "retain", .type = OPTION_BOOLEAN, .fallback = "false", FIELD(route, retain)},
    /* MQTT 5 keeps seconds in 32 bits. */
    {.path = "expiry", .type = OPTION_SPAN, .fallback = "0s", FIELD(route, expiry_ms), RANGE(SECONDS(1), DAYS(49710)),
     .flags = OPTION_ZERO},
    {.path = "body", .type = OPTION_ENUM, .fallback = "payload", FIELD(route, body), .names = route_bodies},
    {.path = "unheard", .type = OPTION_ENUM, .fallback = "deliver", FIELD(route, unheard), .names = route_unheards},
};
/* clang-format on */

#define TABLE(entries)                                  \
    {                                                   \
        (entries), sizeof(entries) / sizeof(entries)[0] \
    }
const struct option_table config_options = TABLE(config_entries);
const struct option_table app_options = TABLE(app_entries);
const struct option_table route_options = TABLE(route_entries);
_Static_assert(sizeof config_entries / sizeof config_entries[0] <= OPTION_MAX_COUNT, "origins would not fit");

/* --- finding an option --- */

size_t options_index(const struct option_table *table, const char *path)
{
    size_t i = 0;
    while (i < table->count && strcmp(table->options[i].path, path) != 0) {
        i++;
    }
    ASSERT(i < table->count);
    return i;
}

struct option_match options_match(const struct option_table *table, struct slice path)
{
    struct option_match match = {.index = table->count};
    for (size_t i = 0; i < table->count; i++) {
        struct slice known = slice_of(table->options[i].path);
        bool is_option = slice_equal(known, path);
        bool is_below = known.size > path.size && slice_starts(known, path) && known.data[path.size] == '.';
        match.index = (is_option || is_below) && match.index == table->count ? i : match.index;
        match.is_option = match.is_option || is_option;
        match.is_section = match.is_section || is_below;
    }
    return match;
}

static struct slice last_part(struct slice path)
{
    const char *dot = path.size ? memrchr(path.data, '.', path.size) : NULL;
    return dot ? (struct slice){dot + 1, (size_t)(path.data + path.size - dot - 1)} : path;
}

/* How far a known path is from what the user wrote: the right key in the wrong object is near, a beginning is nearly. */
static size_t strangeness(struct slice known, struct slice path)
{
    struct slice last = last_part(path);
    size_t allowed = last.size / 3 > 2 ? last.size / 3 : 2, far = slice_distance(known, path);
    if (far <= allowed && far < last.size) {
        return far;
    }
    if (slice_equal(last_part(known), last)) {
        return allowed + 1;
    }
    return last.size >= 3 && slice_starts(known, path) ? allowed + 2 : SIZE_MAX;
}

struct slice options_nearest(const struct option_table *table, struct slice path)
{
    struct slice nearest = {0};
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < table->count; i++) {
        struct slice whole = slice_of(table->options[i].path);
        for (size_t size = 1; size <= whole.size; size++) { /* the sections on the way are names too */
            struct slice known = {whole.data, size};
            bool is_name = size == whole.size || whole.data[size] == '.';
            size_t strange = is_name ? strangeness(known, path) : SIZE_MAX;
            if (strange < least) {
                least = strange;
                nearest = known;
            }
        }
    }
    return nearest;
}

bool option_variable(const struct option *option, char name[OPTION_VARIABLE_SIZE])
{
    if (option->variable) {
        snprintf(name, OPTION_VARIABLE_SIZE, "%s", option->variable);
        return true;
    }
    int size = snprintf(name, OPTION_VARIABLE_SIZE, "MEOWBRIDGE_%s", option->path);
    ASSERT(size < OPTION_VARIABLE_SIZE);
    for (char *c = name; *c; c++) {
        *c = *c == '.' ? '_' : (char)toupper((unsigned char)*c);
    }
    return option->type != OPTION_APPS && option->type != OPTION_ROUTES;
}

static bool variable_is_near(const char *known, const char *unknown)
{
    size_t size = strlen(unknown);
    bool file_is_meant = strncmp(known, unknown, size) == 0 && strcmp(known + size, "_FILE") == 0;
    return file_is_meant || slice_distance(slice_of(known), slice_of(unknown)) <= 2;
}

/* Others put MEOWBRIDGE_… into the environment as well (Kubernetes does for a service of that name), hence only what is near. */
bool options_nearest_variable(const char *unknown, char name[OPTION_VARIABLE_SIZE])
{
    const struct option_table *tables[] = {&config_options, &app_options};
    bool near = false;
    for (size_t t = 0; t < 2; t++) {
        for (size_t i = 0; i < tables[t]->count; i++) {
            char known[OPTION_VARIABLE_SIZE];
            const struct option *option = &tables[t]->options[i];
            if ((t == 1 && !option->variable) || !option_variable(option, known)) {
                continue;
            }
            if (strcmp(known, unknown) == 0) {
                return false;
            }
            if (!near && variable_is_near(known, unknown)) {
                memcpy(name, known, sizeof known);
                near = true;
            }
        }
    }
    return near;
}

/* --- the field of an option --- */

static void *field_of(const struct option *option, const void *base)
{
    return (char *)base + option->offset;
}

char **option_string(const struct option *option, void *base)
{
    ASSERT(option->type == OPTION_STRING || option->type == OPTION_FILE || option->type == OPTION_SECRET_FILE);
    return field_of(option, base);
}

/* Numbers, switches and enums are kept in fields of 8, 1 and 4 bytes. */
static void store_number(const struct option *option, void *base, int64_t number)
{
    int32_t narrow = (int32_t)number;
    bool truth = number != 0;
    ASSERT(option->width == sizeof number || option->width == sizeof narrow || option->width == sizeof truth);
    const void *from = option->width == sizeof number   ? (void *)&number
                       : option->width == sizeof narrow ? (void *)&narrow
                                                        : &truth;
    memcpy(field_of(option, base), from, option->width);
}

static int64_t load_number(const struct option *option, const void *base)
{
    int64_t number;
    int32_t narrow;
    bool truth;
    const void *field = field_of(option, base);
    if (option->width == sizeof number) {
        memcpy(&number, field, sizeof number);
        return number;
    }
    if (option->width == sizeof narrow) {
        memcpy(&narrow, field, sizeof narrow);
        return narrow;
    }
    memcpy(&truth, field, sizeof truth);
    return truth;
}

static enum err set_string(char **field, struct slice text, struct error *why)
{
    char *copy = slice_dup(text);
    if (!copy) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    free(*field);
    *field = copy;
    return ERR_NONE;
}

static enum err set_secret(struct secret *field, struct slice text, struct error *why)
{
    struct secret secret = {slice_dup(text), text.size};
    if (!secret.data) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    secret_free(field);
    *field = secret;
    return ERR_NONE;
}

/* --- numbers --- */

static void append_value(const struct option *option, int64_t number, struct buf *out)
{
    if (option->type == OPTION_SIZE) {
        config_append_size(out, number);
    } else if (option->type == OPTION_SPAN) {
        config_append_span(out, number);
    } else {
        buf_appendf(out, "%lld", (long long)number);
    }
}

static enum err expected_range(const struct option *option, struct error *why)
{
    static const char *const kinds[] = {[OPTION_SIZE] = "a size", [OPTION_SPAN] = "a time", [OPTION_INTEGER] = "an integer"};
    char zero[32], min[32], max[32];
    const int64_t numbers[] = {0, option->min, option->max};
    char *const texts[] = {zero, min, max};
    for (size_t i = 0; i < 3; i++) {
        struct buf text;
        buf_init(&text, sizeof zero - 1);
        append_value(option, numbers[i], &text);
        snprintf(texts[i], sizeof zero, "%s", text.data ? text.data : "?");
        buf_free(&text);
    }
    bool with_zero = option->flags & OPTION_ZERO;
    return error_set(why, ERR_INVALID, "expected %s%s%s%s from %s to %s", with_zero ? zero : "", with_zero ? " or " : "",
                     kinds[option->type], option->flags & OPTION_SECONDS ? " in whole seconds" : "", min, max);
}

static enum err parse_number(const struct option *option, struct slice text, int64_t *number, struct error *why)
{
    if (option->type == OPTION_SIZE) {
        return config_parse_size(text, number, why);
    }
    if (option->type == OPTION_SPAN) {
        return config_parse_span(text, number, why);
    }
    uint64_t value;
    if (!slice_to_u64(text, &value) || value > INT64_MAX) {
        return expected_range(option, why);
    }
    *number = (int64_t)value;
    return ERR_NONE;
}

static enum err set_number(const struct option *option, void *base, struct slice text, struct error *why)
{
    int64_t number = 0;
    enum err err = parse_number(option, text, &number, why);
    if (err) {
        return err;
    }
    bool inside = number >= option->min && number <= option->max;
    bool whole = !(option->flags & OPTION_SECONDS) || number % 1000 == 0;
    if (!(inside && whole) && !(number == 0 && option->flags & OPTION_ZERO)) {
        return expected_range(option, why);
    }
    store_number(option, base, number);
    return ERR_NONE;
}

/* --- names --- */

static enum err expected_names(const struct option *option, struct error *why)
{
    const char *quote = option->type == OPTION_ENUM ? "\"" : "";
    struct buf text;
    buf_init(&text, sizeof why->text - 1);
    for (size_t i = 0; option->names[i]; i++) {
        const char *between = i == 0 ? "" : option->names[i + 1] ? ", " : " or ";
        buf_appendf(&text, "%s%s%s%s", between, quote, option->names[i], quote);
    }
    error_set(why, ERR_INVALID, "expected %s", text.data ? text.data : "another value");
    buf_free(&text);
    return ERR_INVALID;
}

static enum err set_name(const struct option *option, void *base, struct slice text, struct error *why)
{
    for (size_t i = 0; option->names[i]; i++) {
        if (slice_equal(text, slice_of(option->names[i]))) {
            store_number(option, base, option->type == OPTION_ENUM ? (int64_t)i : strtoll(option->names[i], NULL, 10));
            return ERR_NONE;
        }
    }
    return expected_names(option, why);
}

static enum err set_boolean(const struct option *option, void *base, struct slice text, struct error *why)
{
    bool truth = slice_equal(text, SLICE("true"));
    if (!truth && !slice_equal(text, SLICE("false"))) {
        return option_expected(option, why);
    }
    store_number(option, base, truth);
    return ERR_NONE;
}

/* --- lists --- */

void option_clear_list(const struct option *option, void *base)
{
    if (option->type == OPTION_URLS) {
        struct config *config = base;
        for (size_t i = 0; i < config->mqtt.broker_count; i++) {
            broker_address_free(&config->mqtt.brokers[i]);
        }
        free(config->mqtt.brokers);
        config->mqtt.brokers = NULL;
        config->mqtt.broker_count = 0;
    } else {
        struct route *route = base;
        for (size_t i = 0; i < route->topic_count; i++) {
            free(route->topics[i]);
        }
        free(route->topics);
        route->topics = NULL;
        route->topic_count = 0;
    }
}

static enum err add_broker(struct config *config, struct slice url, struct error *why)
{
    struct broker_address broker;
    if (config->mqtt.broker_count == CONFIG_MAX_BROKERS) {
        return error_set(why, ERR_INVALID, "expected at most %d URLs", CONFIG_MAX_BROKERS);
    }
    enum err err = config_parse_broker(url, &broker, why);
    if (err) {
        return err;
    }
    size_t count = config->mqtt.broker_count;
    struct broker_address *brokers = realloc(config->mqtt.brokers, (count + 1) * sizeof *brokers);
    if (!brokers) {
        broker_address_free(&broker);
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    brokers[count] = broker;
    config->mqtt.brokers = brokers;
    config->mqtt.broker_count = count + 1;
    return ERR_NONE;
}

static enum err add_topic(struct route *route, struct slice template, struct error *why)
{
    if (route->topic_count == CONFIG_MAX_TOPICS) {
        return error_set(why, ERR_INVALID, "expected at most %d topics", CONFIG_MAX_TOPICS);
    }
    enum err err = topic_check_template(template, why);
    if (err) {
        return err;
    }
    char **topics = realloc(route->topics, (route->topic_count + 1) * sizeof *topics);
    route->topics = topics ? topics : route->topics;
    char *topic = topics ? slice_dup(template) : NULL;
    if (!topic) {
        return error_set(why, ERR_MEMORY, "out of memory"); /* cppcheck-suppress memleak ; the route owns topics */
    }
    topics[route->topic_count++] = topic;
    return ERR_NONE; /* cppcheck-suppress memleak ; the route owns topics */
}

enum err option_add(const struct option *option, void *base, struct slice text, struct error *why)
{
    return option->type == OPTION_URLS ? add_broker(base, text, why) : add_topic(base, text, why);
}

static enum err set_urls(const struct option *option, struct config *config, struct slice text, struct error *why)
{
    struct config fresh = {0};
    enum err err = ERR_NONE;
    for (bool more = true; more && !err;) {
        const char *comma = text.size ? memchr(text.data, ',', text.size) : NULL;
        struct slice url = {text.data, comma ? (size_t)(comma - text.data) : text.size};
        err = add_broker(&fresh, url, why);
        more = comma;
        text = comma ? (struct slice){comma + 1, text.size - url.size - 1} : text;
    }
    if (err) {
        option_clear_list(option, &fresh);
        return err;
    }
    option_clear_list(option, config);
    config->mqtt.brokers = fresh.mqtt.brokers;
    config->mqtt.broker_count = fresh.mqtt.broker_count;
    return ERR_NONE;
}

/* --- any option --- */

enum err option_expected(const struct option *option, struct error *why)
{
    static const char *const phrases[] = {
        [OPTION_STRING] = "a string",
        [OPTION_FILE] = "a file's path",
        [OPTION_SECRET_FILE] = "a file's path",
        [OPTION_SECRET] = "a string that is not empty",
        [OPTION_LISTEN] = "a string such as \"127.0.0.1:8080\"",
        [OPTION_SIZE] = "a size such as \"64KiB\" or \"1MiB\"",
        [OPTION_SPAN] = "a time such as \"500ms\", \"15s\" or \"7d\"",
        [OPTION_BOOLEAN] = "true or false",
        [OPTION_URLS] = "a URL such as \"mqtt://127.0.0.1:1883\", or an array of them",
        [OPTION_TOPICS] = "an array of topic templates such as [\"meowflow/{event}\"]",
        [OPTION_APPS] = "an array of apps",
        [OPTION_ROUTES] = "an array of routes",
    };
    if (option->type == OPTION_INTEGER) {
        return expected_range(option, why);
    }
    if (option->names) {
        return expected_names(option, why);
    }
    bool not_empty = option->type == OPTION_STRING && option->flags & OPTION_NOT_EMPTY;
    return error_set(why, ERR_INVALID, "expected %s%s", phrases[option->type], not_empty ? " that is not empty" : "");
}

static enum err set_text(const struct option *option, void *base, struct slice text, struct error *why)
{
    if (text.size == 0 && (option->flags & OPTION_NOT_EMPTY || option->type == OPTION_SECRET)) {
        return option_expected(option, why);
    }
    enum err err = option->check && text.size > 0 ? option->check(text, why) : ERR_NONE;
    if (err) {
        return err;
    }
    return option->type == OPTION_SECRET ? set_secret(field_of(option, base), text, why)
                                         : set_string(field_of(option, base), text, why);
}

enum err option_set(const struct option *option, void *base, struct slice text, struct error *why)
{
    switch (option->type) {
    case OPTION_STRING:
    case OPTION_FILE:
    case OPTION_SECRET_FILE:
    case OPTION_SECRET:
        return set_text(option, base, text, why);
    case OPTION_LISTEN:
        return config_parse_listen(text, field_of(option, base), why);
    case OPTION_SIZE:
    case OPTION_SPAN:
    case OPTION_INTEGER:
        return set_number(option, base, text, why);
    case OPTION_CHOICE:
    case OPTION_ENUM:
        return set_name(option, base, text, why);
    case OPTION_BOOLEAN:
        return set_boolean(option, base, text, why);
    case OPTION_URLS:
        return set_urls(option, base, text, why);
    case OPTION_TOPICS:
        option_clear_list(option, base);
        return option_add(option, base, text, why);
    case OPTION_APPS:
    case OPTION_ROUTES:
        break;
    }
    return option_expected(option, why);
}

static void append_list(const struct option *option, const void *base, struct buf *out)
{
    const struct config *config = base;
    const struct route *route = base;
    bool urls = option->type == OPTION_URLS;
    size_t count = urls ? config->mqtt.broker_count : route->topic_count;
    for (size_t i = 0; i < count; i++) {
        buf_append_text(out, i ? "," : "");
        buf_append_text(out, urls ? config->mqtt.brokers[i].url : route->topics[i]);
    }
}

void option_append_text(const struct option *option, const void *base, struct buf *out)
{
    switch (option->type) {
    case OPTION_STRING:
    case OPTION_FILE:
    case OPTION_SECRET_FILE:
        buf_append_text(out, *(char **)field_of(option, base));
        break;
    case OPTION_SECRET:
        buf_append_text(out, "***");
        break;
    case OPTION_LISTEN:
        config_append_listen(out, field_of(option, base));
        break;
    case OPTION_SIZE:
    case OPTION_SPAN:
    case OPTION_INTEGER:
    case OPTION_CHOICE:
        append_value(option, load_number(option, base), out);
        break;
    case OPTION_ENUM:
        buf_append_text(out, option->names[load_number(option, base)]);
        break;
    case OPTION_BOOLEAN:
        buf_append_text(out, load_number(option, base) ? "true" : "false");
        break;
    case OPTION_URLS:
    case OPTION_TOPICS:
        append_list(option, base, out);
        break;
    case OPTION_APPS:
    case OPTION_ROUTES:
        break;
    }
}

bool options_set_defaults(const struct option_table *table, void *base)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct option *option = &table->options[i];
        bool has_default = option->fallback && option->type != OPTION_APPS && option->type != OPTION_ROUTES;
        enum err err = has_default ? option_set(option, base, slice_of(option->fallback), NULL) : ERR_NONE;
        if (err == ERR_MEMORY) {
            return false;
        }
        ASSERT(err == ERR_NONE); /* the table contradicts itself */
    }
    return true;
}

void options_free(const struct option_table *table, void *base)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct option *option = &table->options[i];
        if (option->type == OPTION_URLS || option->type == OPTION_TOPICS) {
            option_clear_list(option, base);
        } else if (option->type == OPTION_SECRET) {
            secret_free(field_of(option, base));
        } else if (option->type <= OPTION_SECRET_FILE) {
            char **field = option_string(option, base);
            free(*field);
            *field = NULL;
        }
        if (option->secret_offset) {
            secret_free((struct secret *)((char *)base + option->secret_offset));
        }
    }
}
