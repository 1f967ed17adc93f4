#include "test.h"

#include "../../bridge/domain/config_internal.h"

#include "meowbridge/topic.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Each test runs in a fresh directory of its own, without any MEOWBRIDGE_ variable, so that "c.json" is the file's whole name in
 * an error. */
static char directory[64];

static void clear_variables(void)
{
    for (char **variable = environ; *variable;) {
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(*variable, "="), *variable);
        if (strncmp(name, "MEOWBRIDGE_", 11) == 0 || strncmp(name, "TEST_", 5) == 0) {
            unsetenv(name);
            variable = environ;
        } else {
            variable++;
        }
    }
}

static int enter(void **state)
{
    (void)state;
    umask(077);
    clear_variables();
    make_folder(directory, sizeof directory);
    return chdir(directory);
}

static int leave(void **state)
{
    (void)state;
    char command[sizeof directory + 16];
    clear_variables();
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return chdir("/") == 0 && system(command) == 0 ? 0 : -1;
}

static void write_bytes(const char *path, struct slice content)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(content.data, 1, content.size, file), content.size);
    assert_int_equal(fclose(file), 0);
}

static void write_text(const char *path, const char *text)
{
    write_bytes(path, slice_of(text));
}

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "r");
    struct buf text;
    buf_init(&text, 1 << 20);
    assert_non_null(file);
    for (int c; (c = fgetc(file)) != EOF;) {
        buf_append_char(&text, (char)c);
    }
    fclose(file);
    assert_false(text.failed);
    return buf_take(&text);
}

struct loaded {
    enum err err;
    struct config *config;
    struct config_errors errors, warnings;
};

static struct loaded load_path(const char *path)
{
    struct loaded l;
    l.err = config_load(&l.config, path, &l.errors, &l.warnings);
    assert_true((l.err == ERR_NONE) == (l.config != NULL));
    assert_true((l.err == ERR_NONE) == (l.errors.count == 0));
    return l;
}

static struct loaded load_bytes(struct slice content)
{
    write_bytes("c.json", content);
    return load_path("c.json");
}

static void unload(struct loaded *l)
{
    config_free(&l->config);
    config_errors_free(&l->errors);
    config_errors_free(&l->warnings);
}

static const char *text_of(const struct config_errors *errors)
{
    return errors->text.data ? errors->text.data : "";
}

/* The whole file, and every line that it must give. */
static void assert_whole_refused(const char *text, const char *expected)
{
    struct loaded l = load_bytes(slice_of(text));
    assert_int_equal(l.err, ERR_CONFIG);
    assert_string_equal(text_of(&l.errors), expected);
    unload(&l);
}

#define FINE "{\"apps\":[{\"secret\":\"s\"}]}"

/* Members beside an app that is right, on line 2. */
static void assert_refused(const char *members, const char *expected)
{
    char text[4096];
    snprintf(text, sizeof text, "{\"apps\":[{\"secret\":\"s\"}],\n%s}", members);
    assert_whole_refused(text, expected);
}

static struct config *assert_loads(const char *members)
{
    char text[16384];
    snprintf(text, sizeof text, "{\"apps\":[{\"secret\":\"s\"}],\n%s}", members);
    struct loaded l = load_bytes(slice_of(text));
    assert_string_equal(text_of(&l.errors), "");
    assert_string_equal(text_of(&l.warnings), "");
    struct config *config = l.config;
    l.config = NULL;
    unload(&l);
    return config;
}

static void assert_fine(const char *members)
{
    struct config *config = assert_loads(members);
    config_free(&config);
}

static char *print(const struct config *config)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    config_print(config, &text);
    assert_false(text.failed);
    return buf_take(&text);
}

/* The option's value in its text form. */
static char *value_text(const struct option *option, const void *base)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    option_append_text(option, base, &text);
    return buf_take(&text);
}

/* --- single values --- */

static void sizes_and_times_have_exact_units(void **state)
{
    (void)state;
    int64_t n;
    struct error why;
    static const struct {
        const char *text;
        int64_t size;
    } sizes[] = {{"0B", 0},         {"17B", 17},         {"1KiB", 1024},
                 {"1MiB", 1 << 20}, {"4GiB", 4LL << 30}, {"8589934591GiB", 8589934591LL << 30}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(config_parse_size(slice_of(sizes[i].text), &n, &why), ERR_NONE);
        assert_true(n == sizes[i].size);
    }
    static const struct {
        const char *text;
        int64_t span;
    } spans[] = {{"0s", 0}, {"1ms", 1}, {"15s", 15000}, {"90m", 5400000}, {"2h", 7200000}, {"7d", 604800000}};
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
        assert_int_equal(config_parse_span(slice_of(spans[i].text), &n, &why), ERR_NONE);
        assert_true(n == spans[i].span);
    }
    static const char *const bad[] = {
        "",      "1",    "MiB", "1MB", "1 MiB", "1mib", "-1B", "+1B", "1.5GiB", "8589934592GiB", "18446744073709551616B",
        "1MiBx", "0x1B", "1S",  "1w",  "1h30m"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        n = 42;
        assert_int_equal(config_parse_size(slice_of(bad[i]), &n, &why), ERR_INVALID);
        assert_string_equal(why.text, "expected a size such as 64KiB or 1MiB");
        assert_int_equal(config_parse_span(slice_of(bad[i]), &n, &why), ERR_INVALID);
        assert_string_equal(why.text, "expected a time such as 500ms, 15s or 7d");
        assert_int_equal(n, 42);
    }
}

static void a_quantity_is_printed_so_that_it_reads_back(void **state)
{
    (void)state;
    static const int64_t numbers[] = {0,     1,     999,     1000,     1023,    1024,         1500,
                                      60000, 90000, 3600000, 86400000, 1 << 20, (1 << 20) + 1};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct buf text;
        int64_t n;
        buf_init(&text, 64);
        config_append_size(&text, numbers[i]);
        assert_int_equal(config_parse_size(buf_slice(&text), &n, NULL), ERR_NONE);
        assert_int_equal(n, numbers[i]);
        buf_reset(&text);
        config_append_span(&text, numbers[i]);
        assert_int_equal(config_parse_span(buf_slice(&text), &n, NULL), ERR_NONE);
        assert_int_equal(n, numbers[i]);
        buf_free(&text);
    }
}

static void an_address_to_listen_on_is_numeric_or_a_socket(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host, *path;
        uint16_t port;
        bool local;
    } good[] = {
        {"0.0.0.0:8080", "0.0.0.0", "", 8080, false},
        {"127.0.0.1:0", "127.0.0.1", "", 0, true},
        {"127.9.9.9:65535", "127.9.9.9", "", 65535, true},
        {"[::]:80", "::", "", 80, false},
        {"[::1]:80", "::1", "", 80, true},
        {"[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1", "", 80, true},
        {"[fe80::1]:80", "fe80::1", "", 80, false},
        {"10.0.0.1:80", "10.0.0.1", "", 80, false},
        {"unix:/run/x.sock", "", "/run/x.sock", 0, true},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct listen_address address;
        struct buf text;
        assert_int_equal(config_parse_listen(slice_of(good[i].text), &address, NULL), ERR_NONE);
        assert_string_equal(address.host, good[i].host);
        assert_string_equal(address.path, good[i].path);
        assert_int_equal(address.port, good[i].port);
        assert_int_equal(address.is_unix, good[i].path[0] != 0);
        assert_int_equal(listen_is_local(&address), good[i].local);
        buf_init(&text, 256);
        config_append_listen(&text, &address);
        assert_slice(buf_slice(&text), good[i].text);
        buf_free(&text);
    }
    static const char *const bad[] = {"",
                                      "8080",
                                      ":8080",
                                      "127.0.0.1",
                                      "127.0.0.1:",
                                      "127.0.0.1:65536",
                                      "127.0.0.1:080800",
                                      "127.0.0.1:x",
                                      "localhost:80",
                                      "::1:80",
                                      "[::1]80",
                                      "[::1]",
                                      "[::1:80",
                                      "[127.0.0.1]:80",
                                      "1.2.3:80",
                                      "127.0.0.1:80 ",
                                      "[fe80::1%lo]:80",
                                      "256.0.0.1:80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct listen_address address;
        struct error why;
        assert_int_equal(config_parse_listen(slice_of(bad[i]), &address, &why), ERR_INVALID);
        assert_string_equal(why.text, "expected a numeric address and a port such as 127.0.0.1:8080 or [::1]:8080, or "
                                      "unix:/run/meowbridge/http.sock");
    }
    struct listen_address address;
    struct error why;
    char path[5 + 108 + 1] = "unix:";
    memset(path + 5, 'x', 108);
    assert_int_equal(config_parse_listen((struct slice){path, 5 + 107}, &address, &why), ERR_NONE);
    assert_int_equal(strlen(address.path), 107);
    assert_int_equal(config_parse_listen((struct slice){path, 5 + 108}, &address, &why), ERR_INVALID);
    assert_string_equal(why.text, "expected a socket's path of 1 to 107 bytes behind unix:");
    assert_int_equal(config_parse_listen(SLICE("unix:"), &address, &why), ERR_INVALID);
}

static void a_secret_is_the_first_line_of_its_file(void **state)
{
    (void)state;
    static const struct {
        struct slice content;
        const char *secret;
    } good[] = {{SLICE("s3cret"), "s3cret"},     {SLICE("s3cret\n"), "s3cret"},
                {SLICE("s3cret\r\n"), "s3cret"}, {SLICE("s3cret\nmore\n"), "s3cret"},
                {SLICE(" a b \n"), " a b "},     {SLICE("a\rb\n"), "a\rb"},
                {SLICE("a\r"), "a\r"},           {SLICE("\xff\n"), "\xff"}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct secret secret;
        write_bytes("s", good[i].content);
        assert_int_equal(config_read_secret("s", &secret, NULL), ERR_NONE);
        assert_slice(((struct slice){secret.data, secret.size}), good[i].secret);
        secret_free(&secret);
        assert_null(secret.data);
    }
    static const struct {
        struct slice content;
        const char *why;
    } bad[] = {{SLICE(""), "s: holds no secret: its first line is empty"},
               {SLICE("\n"), "s: holds no secret: its first line is empty"},
               {SLICE("\r\nx"), "s: holds no secret: its first line is empty"},
               {SLICE("a\0b\n"), "s: holds a NUL byte or a byte order mark, expected plain text"},
               {SLICE("\xef\xbb\xbfs3cret\n"), "s: holds a NUL byte or a byte order mark, expected plain text"},
               {SLICE("\xff\xfes"), "s: holds a NUL byte or a byte order mark, expected plain text"}};
    struct error why;
    struct secret secret;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_bytes("s", bad[i].content);
        assert_int_equal(config_read_secret("s", &secret, &why), ERR_INVALID);
        assert_string_equal(why.text, bad[i].why);
        assert_null(secret.data);
    }
    assert_int_equal(config_read_secret("none", &secret, &why), ERR_INVALID);
    assert_string_equal(why.text, "none: cannot be read: No such file or directory");
    assert_int_equal(config_read_secret(".", &secret, &why), ERR_INVALID);
    assert_string_equal(why.text, ".: cannot be read: it is a directory");
}

static void a_secret_has_4096_bytes_at_most(void **state)
{
    (void)state;
    char content[4096 + 3];
    struct secret secret;
    struct error why;
    memset(content, 'x', sizeof content);
    static const char *const ends[] = {"", "\n", "\r\n"};
    for (size_t i = 0; i < 3; i++) {
        memcpy(content + 4096, ends[i], strlen(ends[i]));
        write_bytes("s", (struct slice){content, 4096 + strlen(ends[i])});
        assert_int_equal(config_read_secret("s", &secret, &why), ERR_NONE);
        assert_int_equal(secret.size, 4096);
        secret_free(&secret);
    }
    memset(content, 'x', sizeof content);
    for (size_t size = 4097; size <= 4099; size++) {
        write_bytes("s", (struct slice){content, size});
        assert_int_equal(config_read_secret("s", &secret, &why), ERR_INVALID);
        assert_string_equal(why.text, "s: holds a first line of more than 4096 bytes, which is no secret");
    }
}

/* --- the tables --- */

static void *table_base(const struct option_table *table, struct config *config)
{
    return table == &config_options ? (void *)config : table == &app_options ? (void *)config->apps : config->routes;
}

/* The object of a dotted path's last key. */
static const cJSON *descend(const cJSON *object, const char *path, bool schema)
{
    char key[64];
    for (;;) {
        size_t size = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)size, path);
        if (schema) {
            const cJSON *alternatives = cJSON_GetObjectItemCaseSensitive(object, "oneOf"); /* "journal" */
            object = alternatives ? cJSON_GetArrayItem(alternatives, 1) : object;
            object = cJSON_GetObjectItemCaseSensitive(object, "properties");
        }
        object = cJSON_GetObjectItemCaseSensitive(object, key);
        if (!object || !path[size]) {
            return object;
        }
        path += size + 1;
    }
}

/* Its default as JSON, against the table's text. */
static void assert_json_is(const cJSON *json, const char *path, const char *text)
{
    char number[32];
    const char *actual = cJSON_IsString(json)  ? json->valuestring
                         : cJSON_IsTrue(json)  ? "true"
                         : cJSON_IsFalse(json) ? "false"
                                               : NULL;
    if (cJSON_IsNumber(json)) {
        snprintf(number, sizeof number, "%.17g", json->valuedouble);
        actual = number;
    }
    if (cJSON_IsArray(json)) {
        assert_int_equal(cJSON_GetArraySize(json), 1);
        actual = cJSON_GetArrayItem(json, 0)->valuestring;
    }
    if (!actual || strcmp(actual, text) != 0) {
        fail_msg("%s is %s, the table says %s", path, actual ? actual : "missing", text);
    }
}

static bool has_plain_default(const struct option *option)
{
    return option->type != OPTION_SECRET && option->type != OPTION_APPS && option->type != OPTION_ROUTES;
}

static char *conf_path(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/conf/%s", TEST_SOURCE_DIR, name);
    return path;
}

static cJSON *parse_conf(const char *name)
{
    char *text = read_text(conf_path(name));
    cJSON_Minify(text);
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    free(text);
    return json;
}

static void the_reference_has_every_option_with_its_default(void **state)
{
    (void)state;
    cJSON *root = parse_conf("meowbridge.json");
    const cJSON *app = cJSON_GetArrayItem(descend(root, "apps", false), 0);
    const cJSON *route = cJSON_GetArrayItem(descend(root, "routes", false), 0);
    const struct option_table *tables[] = {&config_options, &app_options, &route_options};
    const cJSON *objects[] = {root, app, route};
    for (size_t t = 0; t < 3; t++) {
        for (size_t i = 0; i < tables[t]->count; i++) {
            const struct option *option = &tables[t]->options[i];
            bool is_example = strcmp(option->path, "secret_file") == 0 || strcmp(option->path, "journal") == 0;
            if (has_plain_default(option) && !is_example) {
                assert_json_is(descend(objects[t], option->path, false), option->path, option->fallback);
            }
        }
    }
    cJSON_Delete(root);
    setenv("MEOWBRIDGE_SECRET", "s", 1);
    struct loaded l = load_path(conf_path("meowbridge.json"));
    assert_string_equal(text_of(&l.errors), "");
    assert_string_equal(text_of(&l.warnings), "");
    struct loaded without = load_path(NULL);
    char *a = print(l.config), *b = print(without.config);
    assert_string_equal(a, b);
    free(a);
    free(b);
    unload(&without);
    unload(&l);
}

static void the_reference_keeps_the_order_of_the_table(void **state)
{
    (void)state;
    char *text = read_text(conf_path("meowbridge.json"));
    const char *at = strchr(text, '{');
    for (size_t i = 0; i < config_options.count; i++) {
        char key[80];
        const char *dot = strrchr(config_options.options[i].path, '.');
        snprintf(key, sizeof key, "\"%s\":", dot ? dot + 1 : config_options.options[i].path);
        at = strstr(at, key);
        if (!at) {
            fail_msg("%s is not where the table has it", config_options.options[i].path);
        }
    }
    free(text);
}

static void the_minimal_file_is_taken(void **state)
{
    (void)state;
    setenv("MEOWBRIDGE_SECRET", "s", 1);
    struct loaded l = load_path(conf_path("minimal.json"));
    assert_string_equal(text_of(&l.errors), "");
    unload(&l);
}

static const cJSON *schema_of(const cJSON *root, const struct option_table *table)
{
    const cJSON *definitions = cJSON_GetObjectItemCaseSensitive(root, "$defs");
    return table == &config_options ? root
                                    : cJSON_GetObjectItemCaseSensitive(definitions, table == &app_options ? "app" : "route");
}

static void the_schema_has_every_option_with_its_default(void **state)
{
    (void)state;
    cJSON *root = parse_conf("meowbridge.schema.json");
    const struct option_table *tables[] = {&config_options, &app_options, &route_options};
    for (size_t t = 0; t < 3; t++) {
        for (size_t i = 0; i < tables[t]->count; i++) {
            const struct option *option = &tables[t]->options[i];
            const cJSON *property = descend(schema_of(root, tables[t]), option->path, true);
            assert_non_null(property);
            assert_non_null(cJSON_GetObjectItemCaseSensitive(property, "description"));
            if (has_plain_default(option)) {
                assert_json_is(cJSON_GetObjectItemCaseSensitive(property, "default"), option->path, option->fallback);
            }
            if (option->type == OPTION_INTEGER) {
                assert_int_equal(cJSON_GetObjectItemCaseSensitive(property, "minimum")->valueint, option->min);
                assert_int_equal(cJSON_GetObjectItemCaseSensitive(property, "maximum")->valueint, option->max);
            }
            for (int n = 0; option->names && option->names[n]; n++) {
                const cJSON *names = cJSON_GetObjectItemCaseSensitive(property, "enum");
                assert_json_is(cJSON_GetArrayItem(names, n), option->path, option->names[n]);
                assert_true(option->names[n + 1] || cJSON_GetArraySize(names) == n + 1);
            }
        }
    }
    cJSON_Delete(root);
}

/* Every property of the schema is an option or a section, and no object takes others. */
static void the_schema_has_nothing_else(void **state)
{
    (void)state;
    cJSON *root = parse_conf("meowbridge.schema.json");
    const struct option_table *tables[] = {&config_options, &app_options, &route_options};
    for (size_t t = 0; t < 3; t++) {
        const cJSON *object = schema_of(root, tables[t]), *property;
        assert_true(cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(object, "additionalProperties")));
        cJSON_ArrayForEach(property, cJSON_GetObjectItemCaseSensitive(object, "properties"))
        {
            struct option_match match = options_match(tables[t], slice_of(property->string));
            assert_true(match.is_option || match.is_section || strcmp(property->string, "$schema") == 0);
            const cJSON *inner = cJSON_GetObjectItemCaseSensitive(property, "oneOf");
            inner = inner ? cJSON_GetArrayItem(inner, 1) : property;
            const cJSON *below;
            cJSON_ArrayForEach(below, cJSON_GetObjectItemCaseSensitive(inner, "properties"))
            {
                char path[128];
                snprintf(path, sizeof path, "%s.%s", property->string, below->string);
                match = options_match(tables[t], slice_of(path));
                assert_true(match.is_option || match.is_section);
                assert_true(cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(inner, "additionalProperties")));
            }
        }
    }
    cJSON_Delete(root);
}

/* Another value than the default, told from those of the other options where it can be. */
static const char *another_value(const struct option *option, size_t i)
{
    static char text[128];
    switch (option->type) {
    case OPTION_FILE:
    case OPTION_SECRET_FILE:
        snprintf(text, sizeof text, "file-%zu", i);
        write_text(text, "s3cret\n");
        return text;
    case OPTION_LISTEN:
        snprintf(text, sizeof text, "127.0.0.1:%zu", 1000 + i);
        return text;
    case OPTION_SIZE:
        snprintf(text, sizeof text, "%zuMiB", 2 + i);
        return text;
    case OPTION_SPAN:
        snprintf(text, sizeof text, "%zus", 100 + i);
        return text;
    case OPTION_INTEGER:
        snprintf(text, sizeof text, "%zu", 2 + i);
        return text;
    case OPTION_URLS:
        return "mqtts://a,mqtt://[::1]:1884";
    case OPTION_CHOICE:
    case OPTION_ENUM:
        return strcmp(option->names[0], option->fallback) == 0 ? option->names[1] : option->names[0];
    case OPTION_BOOLEAN:
        return strcmp(option->fallback, "true") == 0 ? "false" : "true";
    default:
        snprintf(text, sizeof text, "text-%zu", i);
        return text;
    }
}

static void assert_every_scalar_can_be_set_over(const char *path)
{
    char *values[OPTION_MAX_COUNT] = {0};
    setenv("MEOWBRIDGE_SECRET", "s", 1);
    for (size_t i = 0; i < config_options.count; i++) {
        const struct option *option = &config_options.options[i];
        char name[OPTION_VARIABLE_SIZE];
        if (option_variable(option, name)) {
            values[i] = strdup(another_value(option, i));
            assert_string_not_equal(values[i], option->fallback);
            setenv(name, values[i], 1);
        }
    }
    struct loaded l = load_path(path);
    assert_string_equal(text_of(&l.errors), "");
    assert_string_equal(text_of(&l.warnings), "");
    for (size_t i = 0; i < config_options.count; i++) {
        char *actual = value_text(&config_options.options[i], l.config);
        assert_string_equal(actual, values[i] ? values[i] : "");
        free(actual);
        free(values[i]);
    }
    assert_slice(((struct slice){l.config->mqtt.password.data, l.config->mqtt.password.size}), "s3cret");
    assert_slice(((struct slice){l.config->admin.token.data, l.config->admin.token.size}), "s3cret");
    unload(&l);
}

static void every_scalar_can_be_set_by_its_variable(void **state)
{
    (void)state;
    assert_every_scalar_can_be_set_over(NULL);
    assert_every_scalar_can_be_set_over(conf_path("meowbridge.json")); /* which has every option */
}

static void a_variable_has_the_key_in_capitals_for_a_name(void **state)
{
    (void)state;
    static const char *const names[] = {"MEOWBRIDGE_MQTT_URL",
                                        "MEOWBRIDGE_HTTP_LISTEN",
                                        "MEOWBRIDGE_JOURNAL_PATH",
                                        "MEOWBRIDGE_JOURNAL",
                                        "MEOWBRIDGE_HTTP_TLS_CERTIFICATE_FILE",
                                        "MEOWBRIDGE_HTTP_MAX_CONNECTIONS_PER_IP"};
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        bool found = false;
        for (size_t i = 0; i < config_options.count; i++) {
            char name[OPTION_VARIABLE_SIZE];
            found = found || (option_variable(&config_options.options[i], name) && strcmp(name, names[n]) == 0);
        }
        assert_true(found);
    }
}

/* {"http": {"tls": {"key_file": VALUE}}}, or within an app or a route. */
static void put_value(struct buf *text, const struct option_table *table, const char *path, const char *value)
{
    int depth = 1;
    buf_append_text(text, table == &config_options ? "{" : table == &app_options ? "{\"apps\":[{" : "{\"routes\":[{");
    for (const char *dot; (dot = strchr(path, '.')); path = dot + 1) {
        buf_appendf(text, "\"%.*s\":{", (int)(dot - path), path);
        depth++;
    }
    buf_appendf(text, "\"%s\":%s", path, value);
    while (depth-- > 0) {
        buf_append_text(text, "}");
    }
    buf_append_text(text, table == &config_options ? "" : "]}");
}

static void assert_type_refused(const struct option_table *table, const struct option *option, const char *value)
{
    struct buf text;
    char expected[1024];
    struct error why;
    buf_init(&text, 4096);
    put_value(&text, table, option->path, value);
    struct loaded l = load_bytes(buf_slice(&text));
    const char *prefix = table == &config_options ? "" : table == &app_options ? "apps[0]." : "routes[0].";
    const char *shown = value[0] == '{'                 ? "an object"
                        : value[0] == '['               ? "an array"
                        : option->type == OPTION_SECRET ? "***"
                                                        : value;
    option_expected(option, &why);
    bool is_section = strcmp(option->path, "journal") == 0;
    snprintf(expected, sizeof expected, "%s%s: is %s, %s\n", prefix, option->path, shown,
             is_section ? "expected an object, true or false" : why.text);
    if (!strstr(text_of(&l.errors), expected)) {
        fail_msg("%s gives\n%s and not\n%s", text.data, text_of(&l.errors), expected);
    }
    unload(&l);
    buf_free(&text);
}

static void a_wrong_type_is_refused_for_every_option(void **state)
{
    (void)state;
    const struct option_table *tables[] = {&config_options, &app_options, &route_options};
    setenv("MEOWBRIDGE_SECRET", "s", 1);
    for (size_t t = 0; t < 3; t++) {
        for (size_t i = 0; i < tables[t]->count; i++) {
            const struct option *option = &tables[t]->options[i];
            bool is_number = option->type == OPTION_INTEGER || option->type == OPTION_CHOICE;
            bool is_list = option->type == OPTION_APPS || option->type == OPTION_ROUTES || option->type == OPTION_TOPICS;
            assert_type_refused(tables[t], option, "null");
            assert_type_refused(tables[t], option, is_number ? "\"1\"" : "1");
            assert_type_refused(tables[t], option, is_number ? "1.5" : "-1e3");
            if (strcmp(option->path, "journal") != 0) {
                assert_type_refused(tables[t], option, "{}");
            }
            if (option->type != OPTION_BOOLEAN) {
                assert_type_refused(tables[t], option, "true");
            }
            if (!is_list && option->type != OPTION_URLS) {
                assert_type_refused(tables[t], option, "[1]");
            }
        }
    }
}

static void assert_set(const struct option *option, struct config *config, int64_t number, bool taken)
{
    struct buf text;
    buf_init(&text, 64);
    if (option->type == OPTION_SIZE) {
        config_append_size(&text, number);
    } else if (option->type == OPTION_SPAN) {
        config_append_span(&text, number);
    } else {
        buf_appendf(&text, "%lld", (long long)number);
    }
    struct error why = {0};
    enum err err = number < 0 ? ERR_INVALID : option_set(option, config, buf_slice(&text), &why);
    if ((err == ERR_NONE) != taken || (err && number >= 0 && strncmp(why.text, "expected ", 9) != 0)) {
        fail_msg("%s with %s: %s", option->path, text.data, why.text);
    }
    buf_free(&text);
}

static void every_number_is_held_to_its_range(void **state)
{
    (void)state;
    struct config *config = assert_loads("\"routes\":[{}]");
    const struct option_table *tables[] = {&config_options, &app_options, &route_options};
    for (size_t t = 0; t < 3; t++) {
        for (size_t i = 0; i < tables[t]->count; i++) {
            const struct option *option = &tables[t]->options[i];
            if (option->type == OPTION_INTEGER || option->type == OPTION_SIZE || option->type == OPTION_SPAN) {
                void *base = table_base(tables[t], config);
                bool zero = option->min == 0 || option->flags & OPTION_ZERO;
                assert_set(option, base, option->min, true);
                assert_set(option, base, option->max, true);
                assert_set(option, base, option->max + 1, false);
                assert_set(option, base, option->min - 1, option->min - 1 == 0 && zero);
                assert_set(option, base, 0, zero);
            }
        }
    }
    config_free(&config);
}

/* --- what is refused, and how --- */

static void an_unknown_key_is_named_with_the_nearest_known(void **state)
{
    (void)state;
    assert_refused("\"mqtt\": {\"keepalve\": \"1s\"}",
                   "c.json:2:10: mqtt.keepalve: unknown key, did you mean mqtt.keepalive?\n");
    assert_refused("\"htpp\": {}", "c.json:2:1: htpp: unknown key, did you mean http?\n");
    assert_refused("\"listen\": 1", "c.json:2:1: listen: unknown key, did you mean http.listen?\n");
    assert_refused("\"mqtt\":{\"password\":1}", "c.json:2:9: mqtt.password: unknown key, did you mean mqtt.password_file?\n");
    assert_refused("\"http\":{\"maxBody\":1}", "c.json:2:9: http.maxBody: unknown key, did you mean http.max_body?\n");
    assert_refused("\"Http\":{}", "c.json:2:1: Http: unknown key, did you mean http?\n");
    assert_refused("\"routes\":[{\"topic\":\"x\"}]",
                   "c.json:2:12: routes[0].topic: unknown key, did you mean routes[0].topics?\n");
    assert_refused("\"zzz\": 1", "c.json:2:1: zzz: unknown key, expected http, admin, apps, mqtt, journal, routes or log\n");
    assert_refused("\"http\":{\"tls\":{\"zzzzz\":1}}",
                   "c.json:2:16: http.tls.zzzzz: unknown key, expected certificate_file or key_file\n");
    assert_refused("\"http.listen\": 1",
                   "c.json:2:1: http.listen: unknown key, expected objects in each other where a dot stands\n");
    assert_refused("\"log\\u0000\": 1", "c.json:2:1: log\\u0000: unknown key, did you mean log?\n");
    assert_refused("\"\": 1", "c.json:2:1: : unknown key, expected http, admin, apps, mqtt, journal, routes or log\n");
    assert_refused("\"http\":{\"$schema\":1}",
                   "c.json:2:9: http.$schema: unknown key, expected listen, threads, tls, max_body, "
                   "timeout, max_connections or max_connections_per_ip\n");
    assert_fine("\"$schema\": \"x\"");
    assert_fine("\"l\\u006fg\": {\"level\": \"\\u0069nfo\"}"); /* escapes are no other key */
}

static void a_key_given_twice_is_refused_at_the_second(void **state)
{
    (void)state;
    assert_refused("\"mqtt\":{\"inflight\":1,\"inflight\":1}", "c.json:2:22: mqtt.inflight: is given twice, expected once\n");
    assert_refused("\"log\":{}, \"l\\u006fg\":{}", "c.json:2:11: l\\u006fg: is given twice, expected once\n");
    assert_refused("\"apps\":[]", "c.json:2:1: apps: is given twice, expected once\n");
    assert_refused("\"http\":{\"tls\":{},\"tls\":{}}", "c.json:2:18: http.tls: is given twice, expected once\n");
    assert_refused("\"routes\":[{\"qos\":1,\"qos\":1}]", "c.json:2:20: routes[0].qos: is given twice, expected once\n");
    assert_refused("\"$schema\":\"x\",\"$schema\":\"x\"", "c.json:2:15: $schema: is given twice, expected once\n");
}

static void a_value_is_refused_with_what_was_expected(void **state)
{
    (void)state;
    static const struct {
        const char *members, *error;
    } cases[] = {
        {"\"mqtt\":{\"inflight\":0}", "c.json:2:20: mqtt.inflight: is 0, expected an integer from 1 to 65535\n"},
        {"\"mqtt\":{\"inflight\":18446744073709551617}",
         "c.json:2:20: mqtt.inflight: is 18446744073709551617, expected an integer from 1 to 65535\n"},
        {"\"http\":{\"max_body\":\"1MB\"}", "c.json:2:20: http.max_body: is \"1MB\", expected a size such as 64KiB or 1MiB\n"},
        {"\"http\":{\"max_body\":1048576}",
         "c.json:2:20: http.max_body: is 1048576, expected a size such as \"64KiB\" or \"1MiB\"\n"},
        {"\"http\":{\"max_body\":\"1GiB\"}", "c.json:2:20: http.max_body: is \"1GiB\", expected a size from 1KiB to 64MiB\n"},
        {"\"http\":{\"timeout\":\"2h\"}", "c.json:2:19: http.timeout: is \"2h\", expected a time from 100ms to 1h\n"},
        {"\"mqtt\":{\"keepalive\":\"5500ms\"}",
         "c.json:2:21: mqtt.keepalive: is \"5500ms\", expected a time in whole seconds from 5s to 18h\n"},
        {"\"mqtt\":{\"version\":4}", "c.json:2:19: mqtt.version: is 4, expected 5 or 3\n"},
        {"\"log\":{\"level\":\"verbose\"}",
         "c.json:2:16: log.level: is \"verbose\", expected \"error\", \"warn\", \"info\" or \"debug\"\n"},
        {"\"routes\":[{\"retain\":\"yes\"}]", "c.json:2:21: routes[0].retain: is \"yes\", expected true or false\n"},
        {"\"routes\":[{\"expiry\":\"10ms\"}]",
         "c.json:2:21: routes[0].expiry: is \"10ms\", expected 0s or a time from 1s to 49710d\n"},
        {"\"routes\":[{\"event\":\"\"}]", "c.json:2:20: routes[0].event: is \"\", expected a string that is not empty\n"},
        {"\"routes\":[{\"topics\":[]}]", "c.json:2:21: routes[0].topics: is empty, expected one element at least\n"},
        {"\"routes\":[{\"topics\":[\"a\",5]}]", "c.json:2:26: routes[0].topics[1]: is 5, expected a string\n"},
        {"\"routes\":[3]", "c.json:2:11: routes[0]: is 3, expected an object\n"},
        {"\"journal\":5", "c.json:2:11: journal: is 5, expected an object, true or false\n"},
        {"\"journal\":{\"max_size\":\"1KiB\"}",
         "c.json:2:23: journal.max_size: is \"1KiB\", expected 0B or a size from 1MiB to 1048576GiB\n"},
        {"\"journal\":{\"path\":\"\"}", "c.json:2:19: journal.path: is \"\", expected a string that is not empty\n"},
        {"\"http\":[]", "c.json:2:8: http: is an array, expected an object\n"},
        {"\"mqtt\":{\"client_id\":\"a\\u0000b\"}",
         "c.json:2:21: mqtt.client_id: is \"a\\u0000b\", expected no NUL character (\\u0000)\n"},
        {"\"journal\":{\"path\":\"\\ud800\"}",
         "c.json:2:19: journal.path: is \"\\ud800\", expected no unpaired surrogate (\\ud800 to \\udfff)\n"},
        {"\"mqtt\":{\"username\":\"a\\u0007\"}", "c.json:2:20: mqtt.username: is \"a\\u0007\", expected no control character "
                                                 "and no non-character, which MQTT forbids\n"},
        {"\"log\":{\"level\":\"喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵\"}",
         "c.json:2:16: log.level: is \"喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵喵…, expected \"error\", \"warn\", \"info\" or "
         "\"debug\"\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_refused(cases[i].members, cases[i].error);
    }
}

static void topic_templates_are_held_to_their_rules(void **state)
{
    (void)state;
    char expected[1024];
    struct error why;
    static const char *const bad[] = {"a/{evnt}", "a/+", "a/#", "", "a/{event"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char members[256];
        assert_int_equal(topic_check_template(slice_of(bad[i]), &why), ERR_INVALID);
        snprintf(members, sizeof members, "\"routes\":[{\"topics\":[\"ok\",\"%s\"]}]", bad[i]);
        snprintf(expected, sizeof expected, "c.json:2:27: routes[0].topics[1]: is \"%s\": %s\n", bad[i], why.text);
        assert_refused(members, expected);
    }
    assert_int_equal(topic_check_status_template(SLICE("a/{event}"), &why), ERR_INVALID);
    snprintf(expected, sizeof expected, "c.json:2:24: mqtt.status_topic: is \"a/{event}\": %s\n", why.text);
    assert_refused("\"mqtt\":{\"status_topic\":\"a/{event}\"}", expected);
    assert_fine("\"mqtt\":{\"status_topic\":\"\"}");
}

static void all_routes_together_have_64_topics_at_most(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, 1 << 16);
    buf_append_text(&text, "\"routes\":[{\"topics\":[");
    for (int i = 0; i < 63; i++) {
        buf_appendf(&text, "%s\"t/%d\"", i ? "," : "", i);
    }
    buf_append_text(&text, "]},{\"topics\":[\"a\"");
    size_t size = text.size;
    buf_append_text(&text, "]}]");
    assert_fine(text.data);
    text.size = size;
    buf_append_text(&text, ",\"b\"]}]");
    assert_refused(text.data, "c.json:2:10: routes: have 65 topics together, expected at most 64\n");
    buf_free(&text);
}

static void brokers_are_urls_without_a_user_or_a_path(void **state)
{
    (void)state;
    struct config *config =
        assert_loads("\"mqtt\":{\"url\":[\"mqtt://broker.example\",\"mqtts://a_b.example\",\"mqtt://[::1]:1884\"]}");
    static const struct {
        const char *url, *host;
        uint16_t port;
        bool tls;
    } brokers[] = {{"mqtt://broker.example", "broker.example", 1883, false},
                   {"mqtts://a_b.example", "a_b.example", 8883, true},
                   {"mqtt://[::1]:1884", "::1", 1884, false}};
    assert_int_equal(config->mqtt.broker_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(config->mqtt.brokers[i].url, brokers[i].url);
        assert_string_equal(config->mqtt.brokers[i].host, brokers[i].host);
        assert_int_equal(config->mqtt.brokers[i].port, brokers[i].port);
        assert_int_equal(config->mqtt.brokers[i].tls, brokers[i].tls);
    }
    config_free(&config);
    static const struct {
        const char *url, *shown, *why;
    } bad[] = {
        {"mqtt://u:hunter2@h", "***", "expected no user name or password in the URL: set mqtt.username and mqtt.password_file"},
        {"ssl://u:hunter2@h", "***", "expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], an IPv6 address in brackets"},
        {"mqtt://h/", "\"mqtt://h/\"", "expected nothing behind the host and port: MQTT's URLs have no path"},
        {"mqtt://h?x", "\"mqtt://h?x\"", "expected nothing behind the host and port: MQTT's URLs have no path"},
        {"tcp://h", "\"tcp://h\"", "expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], an IPv6 address in brackets"},
        {"h:1883", "\"h:1883\"", "expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], an IPv6 address in brackets"},
        {"mqtt://", "\"mqtt://\"", "expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], an IPv6 address in brackets"},
        {"mqtt://h:0", "\"mqtt://h:0\"", "expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], an IPv6 address in brackets"},
        {"mqtt://h:70000", "\"mqtt://h:70000\"",
         "expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], an IPv6 address in brackets"},
        {"mqtt://::1", "\"mqtt://::1\"", "expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], an IPv6 address in brackets"},
        {"mqtt://[h]", "\"mqtt://[h]\"", "expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], an IPv6 address in brackets"},
        {"mqtt://a b", "\"mqtt://a b\"", "expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], an IPv6 address in brackets"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char members[256], expected[1024];
        snprintf(members, sizeof members, "\"mqtt\":{\"url\":\"%s\"}", bad[i].url);
        snprintf(expected, sizeof expected, "c.json:2:15: mqtt.url: is %s, %s\n", bad[i].shown, bad[i].why);
        assert_refused(members, expected);
        setenv("MEOWBRIDGE_MQTT_URL", bad[i].url, 1);
        snprintf(expected, sizeof expected, "MEOWBRIDGE_MQTT_URL: is %s, %s\n", bad[i].shown, bad[i].why);
        assert_whole_refused(FINE, expected);
        unsetenv("MEOWBRIDGE_MQTT_URL");
    }
    assert_refused("\"mqtt\":{\"url\":[]}", "c.json:2:15: mqtt.url: is empty, expected one element at least\n");
    assert_refused(
        "\"mqtt\":{\"url\":[\"mqtt://a\",\"mqtt://a\",\"mqtt://a\",\"mqtt://a\",\"mqtt://a\",\"mqtt://a\",\"mqtt://a\","
        "\"mqtt://a\",\"mqtt://b\"]}",
        "c.json:2:104: mqtt.url[8]: is \"mqtt://b\", expected at most 8 URLs\n");
}

static void who_only_looks_needs_no_secret_but_is_told_every_other_mistake(void **state)
{
    (void)state;
    static const char text[] = "{\"apps\":[{\"secret_file\":\"${NOBODY_HAS_SET_THIS}/s\",\"public_url\":\"https://h/"
                               "p\"},{\"path\":\"/b\",\"secret\":\"\"}],"
                               "\"admin\":{\"listen\":\"0.0.0.0:9090\",\"token_file\":\"not-there\"},\"mqtt\":{\"username\":"
                               "\"u\",\"password_file\":\"not-there\"},"
                               "\"journal\":{\"path\":\"j.db\"}}";
    struct config *config;
    struct config_errors errors;
    write_text("c.json", text);
    assert_int_equal(config_load_to_look(&config, "c.json", &errors), ERR_NONE);
    assert_string_equal(config->journal.path, "j.db");
    assert_string_equal(config->apps[0].public_path, "/p");
    assert_int_equal(config->apps[0].secret.size, 0);
    assert_int_equal(config->admin.token.size, 0);
    config_errors_free(&errors);
    config_free(&config);
    assert_int_equal(config_load_to_look(&config, NULL, &errors), ERR_NONE);
    config_errors_free(&errors);
    config_free(&config);
    write_text("token", "t0ken\n");
    write_text("c.json", "{\"admin\":{\"token_file\":\"token\"}}");
    assert_int_equal(config_load_to_look(&config, "c.json", &errors), ERR_NONE);
    assert_slice(((struct slice){config->admin.token.data, config->admin.token.size}), "t0ken");
    config_errors_free(&errors);
    config_free(&config);
    write_text("c.json", "{\"jurnal\":{}}");
    assert_int_equal(config_load_to_look(&config, "c.json", &errors), ERR_CONFIG);
    assert_string_equal(text_of(&errors), "c.json:1:2: jurnal: unknown key, did you mean journal?\n");
    config_errors_free(&errors);
    struct loaded l = load_path("c.json"); /* and serve still wants the secret */
    assert_int_equal(l.err, ERR_CONFIG);
    unload(&l);
}

static void an_app_needs_exactly_one_secret(void **state)
{
    (void)state;
    write_text("s", "s3cret\n");
    assert_whole_refused(
        "{\"apps\":[{}]}",
        "c.json:1:10: apps[0]: has no secret, expected secret_file or secret: nothing is accepted unverified\n");
    assert_whole_refused("{\"apps\":[{\"secret\":\"\"}]}",
                         "c.json:1:20: apps[0].secret: is \"\", expected a string that is not empty\n");
    assert_whole_refused("{\"apps\":[{\"secret\":\"a\",\"secret_file\":\"s\"}]}",
                         "c.json:1:38: apps[0].secret_file: is set beside secret, expected one of them\n");
    assert_whole_refused("{\"apps\":[{\"secret_file\":\"none\"}]}",
                         "c.json:1:25: apps[0].secret_file: \"none\" cannot be read: No such file or directory\n");
    assert_whole_refused("{\"apps\":[{\"secret\":\"a\",\"previous_secret_file\":\".\"}]}",
                         "c.json:1:47: apps[0].previous_secret_file: \".\" cannot be read: it is a directory\n");
    assert_whole_refused("{\"apps\":[]}",
                         "c.json:1:9: apps: there is none, expected one with secret_file or secret, or the App Secret in "
                         "MEOWBRIDGE_SECRET, or its file's path in MEOWBRIDGE_SECRET_FILE\n");
    assert_whole_refused("{}", "c.json:1:1: apps: there is none, expected one with secret_file or secret, or the App Secret in "
                               "MEOWBRIDGE_SECRET, or its file's path in MEOWBRIDGE_SECRET_FILE\n");
    struct loaded l =
        load_bytes(SLICE("{\"apps\":[{\"secret_file\":\"s\",\"secret\":\"\\u0061\\ud83d\\ude3a\",\"secret_file\":\"\"}]}"));
    assert_int_equal(l.err, ERR_CONFIG); /* twice */
    unload(&l);
    l = load_bytes(
        SLICE("{\"apps\":[{\"secret\":\"\\u0061\\ud83d\\ude3a\",\"secret_file\":\"\"},{\"id\":\"1\",\"secret_file\":\"s\","
              "\"previous_secret_file\":\"s\"}]}"));
    assert_int_equal(l.err, ERR_NONE);
    assert_slice(((struct slice){l.config->apps[0].secret.data, l.config->apps[0].secret.size}), "a\xf0\x9f\x98\xba");
    assert_slice(((struct slice){l.config->apps[1].secret.data, l.config->apps[1].secret.size}), "s3cret");
    assert_slice(((struct slice){l.config->apps[1].previous_secret.data, l.config->apps[1].previous_secret.size}), "s3cret");
    unload(&l);
}

static void no_file_and_no_secret_says_what_to_do(void **state)
{
    (void)state;
    struct loaded l = load_path(NULL);
    assert_int_equal(l.err, ERR_CONFIG);
    assert_string_equal(text_of(&l.errors),
                        "MEOWBRIDGE_SECRET: is not set, expected the App Secret there, or its file's path in "
                        "MEOWBRIDGE_SECRET_FILE, or apps in a configuration file (-c FILE)\n");
    unload(&l);
}

static void the_environment_makes_an_app_where_the_file_has_none(void **state)
{
    (void)state;
    setenv("MEOWBRIDGE_SECRET", "from-environment", 1);
    static const char *const files[] = {NULL, "{}", "{\"apps\":[]}"};
    for (size_t i = 0; i < 3; i++) {
        struct loaded l = files[i] ? load_bytes(slice_of(files[i])) : load_path(NULL);
        assert_string_equal(text_of(&l.errors), "");
        assert_int_equal(l.config->app_count, 1);
        assert_string_equal(l.config->apps[0].path, "/webhook");
        assert_string_equal(l.config->apps[0].id, "");
        assert_slice(((struct slice){l.config->apps[0].secret.data, l.config->apps[0].secret.size}), "from-environment");
        unload(&l);
    }
}

static void the_environment_sets_the_first_apps_secret_over_the_file(void **state)
{
    (void)state;
    write_text("s", "from-file\n");
    setenv("MEOWBRIDGE_SECRET", "from-environment", 1);
    struct loaded l =
        load_bytes(SLICE("{\"apps\":[{\"id\":\"1\",\"secret_file\":\"none\"},{\"id\":\"2\",\"secret\":\"two\"}]}"));
    assert_string_equal(text_of(&l.errors), ""); /* the file's secret_file is not read */
    assert_slice(((struct slice){l.config->apps[0].secret.data, l.config->apps[0].secret.size}), "from-environment");
    assert_slice(((struct slice){l.config->apps[1].secret.data, l.config->apps[1].secret.size}), "two");
    assert_string_equal(l.config->apps[0].secret_file, "");
    assert_string_equal(l.config->apps[0].id, "1");
    unload(&l);
    unsetenv("MEOWBRIDGE_SECRET");
    setenv("MEOWBRIDGE_SECRET_FILE", "s", 1);
    l = load_bytes(SLICE("{\"apps\":[{\"secret\":\"one\"}]}"));
    assert_string_equal(text_of(&l.errors), "");
    assert_slice(((struct slice){l.config->apps[0].secret.data, l.config->apps[0].secret.size}), "from-file");
    unload(&l);
    setenv("MEOWBRIDGE_SECRET", "x", 1);
    assert_whole_refused(FINE, "MEOWBRIDGE_SECRET: is set beside MEOWBRIDGE_SECRET_FILE, expected one of them\n");
    unsetenv("MEOWBRIDGE_SECRET");
    setenv("MEOWBRIDGE_SECRET_FILE", "none", 1);
    assert_whole_refused(FINE, "MEOWBRIDGE_SECRET_FILE: \"none\" cannot be read: No such file or directory\n");
    setenv("MEOWBRIDGE_SECRET_FILE", "", 1);
    assert_whole_refused(FINE, "MEOWBRIDGE_SECRET_FILE: is \"\", expected a file's path\n");
    unsetenv("MEOWBRIDGE_SECRET_FILE");
    setenv("MEOWBRIDGE_SECRET", "", 1);
    assert_whole_refused(FINE, "MEOWBRIDGE_SECRET: is \"\", expected a string that is not empty\n");
}

static void apps_may_share_a_path_but_not_the_id_too(void **state)
{
    (void)state;
    struct loaded l = load_bytes(
        SLICE("{\"apps\":[{\"secret\":\"a\"},{\"id\":\"1\",\"secret\":\"a\"},{\"path\":\"/b%2f\",\"secret\":\"a\"}]}"));
    assert_string_equal(text_of(&l.errors), "");
    assert_string_equal(l.config->apps[2].path, "/b%2f");
    unload(&l);
    assert_whole_refused(
        "{\"apps\":[{\"secret\":\"a\"},{\"id\":\"1\",\"secret\":\"a\"},{\"secret\":\"b\",\"path\":\"/webhook\"}]}",
        "c.json:1:49: apps[2]: has the path and the id of apps[0], expected another\n");
    static const char *const bad[] = {"webhook", "", "/a?b", "/a#b", "/a b", "/\xc3\xbc", "/a\x7f"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256], expected[1024];
        snprintf(text, sizeof text, "{\"apps\":[{\"secret\":\"a\",\"path\":\"%s\"}]}", bad[i]);
        snprintf(expected, sizeof expected, "c.json:1:31: apps[0].path: is \"%s\", expected %s\n", bad[i],
                 bad[i][0] ? "a path such as /webhook as it stands in the request line: visible ASCII without ? and #"
                           : "a string that is not empty");
        assert_whole_refused(text, expected);
    }
}

static void there_are_64_apps_at_most(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, 1 << 16);
    buf_append_text(&text, "{\"apps\":[");
    for (int i = 0; i < 64; i++) {
        buf_appendf(&text, "%s{\"id\":\"%d\",\"secret\":\"s\"}", i ? "," : "", i);
    }
    size_t size = text.size;
    buf_append_text(&text, "]}");
    struct loaded l = load_bytes(buf_slice(&text));
    assert_string_equal(text_of(&l.errors), "");
    assert_int_equal(l.config->app_count, 64);
    unload(&l);
    text.size = size;
    buf_append_text(&text, ",{}]}");
    assert_whole_refused(text.data, "c.json:1:9: apps: has 65 elements, expected at most 64\n");
    buf_free(&text);
}

static void a_public_url_is_split_as_it_is_signed(void **state)
{
    (void)state;
    static const struct {
        const char *url, *host, *path;
    } good[] = {{"https://hooks.example.com/in/x", "hooks.example.com", "/in/x"},
                {"http://hooks.example.com:8080/in?a=1", "hooks.example.com:8080", "/in"},
                {"https://hooks.example.com", "hooks.example.com", "/"},
                {"https://hooks.example.com:443?x", "hooks.example.com:443", "/"},
                {"https://[::1]:443/%e5", "[::1]:443", "/%e5"}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"apps\":[{\"secret\":\"a\",\"public_url\":\"%s\"}]}", good[i].url);
        struct loaded l = load_bytes(slice_of(text));
        assert_string_equal(text_of(&l.errors), "");
        assert_string_equal(l.config->apps[0].public_url, good[i].url);
        assert_string_equal(l.config->apps[0].public_host, good[i].host);
        assert_string_equal(l.config->apps[0].public_path, good[i].path);
        unload(&l);
    }
    struct loaded l = load_bytes(SLICE(FINE));
    assert_null(l.config->apps[0].public_host);
    assert_null(l.config->apps[0].public_path);
    unload(&l);
    static const char *const bad[][2] = {{"hooks.example.com/x", "\"hooks.example.com/x\""},
                                         {"ftp://h/x", "\"ftp://h/x\""},
                                         {"https:///x", "\"https:///x\""},
                                         {"https://h:x/", "\"https://h:x/\""},
                                         {"https://h/#x", "\"https://h/#x\""},
                                         {"https://h/a b", "\"https://h/a b\""},
                                         {"https://u:hunter2@h/", "***"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256], expected[1024];
        snprintf(text, sizeof text, "{\"apps\":[{\"secret\":\"a\",\"public_url\":\"%s\"}]}", bad[i][0]);
        snprintf(expected, sizeof expected,
                 "c.json:1:37: apps[0].public_url: is %s, expected the URL registered with MeowFlow, such as "
                 "https://hooks.example.com/webhook\n",
                 bad[i][1]);
        assert_whole_refused(text, expected);
    }
}

static void rules_that_join_options_name_the_one_at_fault(void **state)
{
    (void)state;
    write_text("f", "x\n");
    static const struct {
        const char *members, *error;
    } cases[] = {
        {"\"http\":{\"tls\":{\"certificate_file\":\"f\"}}",
         "c.json:2:35: http.tls.certificate_file: is set without http.tls.key_file, expected both or neither\n"},
        {"\"mqtt\":{\"url\":\"mqtts://h\",\"tls\":{\"key_file\":\"f\"}}",
         "c.json:2:45: mqtt.tls.key_file: is set without mqtt.tls.certificate_file, expected both or neither\n"},
        {"\"mqtt\":{\"tls\":{\"ca_file\":\"f\"}}",
         "c.json:2:26: mqtt.tls.ca_file: is set, but no URL of mqtt.url uses TLS, expected mqtts:// there\n"},
        {"\"mqtt\":{\"tls\":{\"ca_file\":\"none\"},\"url\":\"mqtts://h\"}",
         "c.json:2:26: mqtt.tls.ca_file: \"none\" cannot be read: No such file or directory\n"},
        {"\"admin\":{\"listen\":\"0.0.0.0:9090\"}",
         "c.json:2:19: admin.listen: is \"0.0.0.0:9090\", expected admin.token_file beside an address that others can reach\n"},
        {"\"admin\":{\"listen\":\"127.0.0.1:80\"},\"http\":{\"listen\":\"127.0.0.1:80\"}",
         "c.json:2:19: admin.listen: is \"127.0.0.1:80\", expected another address than that of http.listen\n"},
        {"\"http\":{\"listen\":\"127.0.0.1:9090\"}",
         "c.json:2:18: http.listen: is \"127.0.0.1:9090\", expected another address than that of admin.listen\n"},
        {"\"mqtt\":{\"version\":3,\"password_file\":\"f\"}",
         "c.json:2:37: mqtt.password_file: is set without mqtt.username, which MQTT 3.1.1 forbids\n"},
        {"\"mqtt\":{\"version\":3},\"routes\":[{\"unheard\":\"dead\"}]",
         "c.json:2:43: routes[0].unheard: is \"dead\", expected \"deliver\" with mqtt.version 3, whose brokers do not say who "
         "listens\n"},
        {"\"journal\":false,\"routes\":[{\"qos\":0}]",
         "c.json:2:34: routes[0].qos: is 0, expected 1 or 2 without a journal, where only what the broker confirms is taken\n"},
        {"\"routes\":[{\"unheard\":\"dead\",\"qos\":0}]",
         "c.json:2:22: routes[0].unheard: is \"dead\", expected \"deliver\" with qos 0, which brokers do not answer\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_refused(cases[i].members, cases[i].error);
    }
    assert_fine("\"http\":{\"tls\":{\"certificate_file\":\"f\",\"key_file\":\"f\"}}");
    assert_fine("\"mqtt\":{\"url\":[\"mqtt://h\",\"mqtts://h\"],\"tls\":{\"ca_file\":\"f\"}}");
    assert_fine("\"admin\":{\"listen\":\"0.0.0.0:9090\",\"token_file\":\"f\"}");
    assert_fine("\"admin\":{\"listen\":\"unix:a\"},\"http\":{\"listen\":\"127.0.0.1:9090\"}");
    assert_fine("\"admin\":{\"listen\":\"127.0.0.1:0\"},\"http\":{\"listen\":\"127.0.0.1:0\"}");
    assert_fine("\"mqtt\":{\"version\":3,\"password_file\":\"f\",\"username\":\"u\"}");
    assert_fine("\"mqtt\":{\"password_file\":\"f\"}");
    assert_fine("\"routes\":[{\"unheard\":\"dead\",\"qos\":1}]");
    assert_fine("\"routes\":[{\"unheard\":\"dead\",\"qos\":2}]");
    setenv("MEOWBRIDGE_ADMIN_LISTEN", "[::]:9090", 1);
    assert_whole_refused(FINE,
                         "MEOWBRIDGE_ADMIN_LISTEN: is \"[::]:9090\", expected admin.token_file beside an address that others "
                         "can reach\n");
    unsetenv("MEOWBRIDGE_ADMIN_LISTEN");
    setenv("MEOWBRIDGE_SECRET", "s", 1);
    setenv("MEOWBRIDGE_HTTP_LISTEN", "127.0.0.1:9090", 1);
    struct loaded l = load_path(NULL);
    assert_string_equal(text_of(&l.errors),
                        "MEOWBRIDGE_HTTP_LISTEN: is \"127.0.0.1:9090\", expected another address than that of "
                        "admin.listen\n");
    unload(&l);
}

static void one_mistake_gives_one_error(void **state)
{
    (void)state;
    write_text("f", "x\n");
    assert_refused(
        "\"mqtt\":{\"url\":\"mqts://h\",\"tls\":{\"ca_file\":\"f\"}}",
        "c.json:2:15: mqtt.url: is \"mqts://h\", expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], an IPv6 address in "
        "brackets\n");
    assert_refused("\"admin\":{\"listen\":\"0.0.0.0:1\",\"token_file\":\"none\"}",
                   "c.json:2:44: admin.token_file: \"none\" cannot be read: No such file or directory\n");
    assert_whole_refused("{\"apps\":[{\"secret\":5}]}",
                         "c.json:1:20: apps[0].secret: is ***, expected a string that is not empty\n");
    assert_whole_refused("{\"apps\":5}", "c.json:1:9: apps: is 5, expected an array of apps\n");
    assert_whole_refused("{\"apps\":[5]}", "c.json:1:10: apps[0]: is 5, expected an object\n");
    setenv("MEOWBRIDGE_SECRET", "s", 1);
    assert_whole_refused("{\"apps\":[{},5]}", "c.json:1:13: apps[1]: is 5, expected an object\n");
}

static void all_errors_come_at_once_in_the_order_of_the_file(void **state)
{
    (void)state;
    setenv("MEOWBRIDGE_LOG_LEVEL", "loud", 1);
    assert_whole_refused("{\n"
                         "  \"routes\": [{\"qos\": 3}],\n"
                         "  \"mqtt\": {\"tls\": {\"ca_file\": \"none\"}, \"url\": \"mqtts://h\", \"inflight\": 0},\n"
                         "  \"apps\": [{\"secret\": 1}],\n"
                         "  \"log\": {\"levle\": 1}\n"
                         "}\n",
                         "c.json:2:22: routes[0].qos: is 3, expected an integer from 0 to 2\n"
                         "c.json:3:31: mqtt.tls.ca_file: \"none\" cannot be read: No such file or directory\n"
                         "c.json:3:72: mqtt.inflight: is 0, expected an integer from 1 to 65535\n"
                         "c.json:4:23: apps[0].secret: is ***, expected a string that is not empty\n"
                         "c.json:5:11: log.levle: unknown key, did you mean log.level?\n"
                         "MEOWBRIDGE_LOG_LEVEL: is \"loud\", expected \"error\", \"warn\", \"info\" or \"debug\"\n");
}

static void columns_count_characters_and_comments_keep_places(void **state)
{
    (void)state;
    assert_whole_refused("// 喵 \"\n{ /* 喵\n * 喵 // */ \"apps\":[{\"secret\":\"喵//\"}], \"x\":1 }",
                         "c.json:3:39: x: unknown key, expected http, admin, apps, mqtt, journal, routes or log\n");
    assert_whole_refused("{\"apps\":[{\"secret\":\"喵\"}],\r\n\t\"x\":1 }",
                         "c.json:2:2: x: unknown key, expected http, admin, apps, mqtt, journal, routes or log\n");
    assert_fine("\"log\":{/**/},//\n\"journal\":/*/*/false/***/ //}\n");
}

static void what_is_no_json_is_refused_at_its_place(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        const char *error;
    } cases[] = {
        {SLICE("{\"log\":{}"), "c.json:1:10: not JSON: unexpected end\n"},
        {SLICE(""), "c.json:1:1: holds no configuration, expected one object: {}\n"},
        {SLICE("// only a comment"), "c.json:1:18: holds no configuration, expected one object: {}\n"},
        {SLICE("{} ,"), "c.json:1:4: not JSON: more bytes after the value\n"},
        {SLICE("[]"), "c.json:1:1: expected one object that holds the configuration\n"},
        {SLICE(" 5"), "c.json:1:2: expected one object that holds the configuration\n"},
        {SLICE("{} {}"), "c.json:1:4: not JSON: more bytes after the value\n"},
        {SLICE("{}\n/* x"), "c.json:2:1: the comment that begins here does not end, expected */\n"},
        {SLICE("{\"a\":\"/*\"}/*/"), "c.json:1:11: the comment that begins here does not end, expected */\n"},
        {SLICE("{\n \"log\": {}, // last\n}"),
         "c.json:3:1: not JSON: } behind a comma, expected no comma behind the last element\n"},
        {SLICE("{\"routes\":[{},]}"), "c.json:1:15: not JSON: ] behind a comma, expected no comma behind the last element\n"},
        {SLICE("{\"log\":{},,}"), "c.json:1:11: not JSON: a member name is expected\n"},
        {SLICE("{\"log\" {}}"), "c.json:1:8: not JSON: a colon is expected\n"},
        {SLICE("{\"a\": 01}"), NULL},
        {SLICE("{/ /}"), NULL},
        {SLICE("{\"a\":\"\xff\"}"), "c.json:1:7: not JSON: invalid UTF-8\n"},
        {SLICE("\xef\xbb\xbf{}"), "c.json:1:1: not JSON: a byte order mark, expected UTF-8 without one\n"},
        {SLICE("{\"a\":\"x\0y\"}"), NULL},
        {SLICE("{}\0"), NULL},
        {SLICE("{\"a\":\"\\x\"}"), NULL},
        {SLICE("{\"a\":\"x"), NULL},
        {SLICE("{\"a\":\"x\\"), NULL},
    };
    setenv("MEOWBRIDGE_SECRET", "s", 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loaded l = load_bytes(cases[i].text);
        assert_int_equal(l.err, ERR_CONFIG);
        assert_int_equal(l.errors.count, 1);
        assert_true(strncmp(text_of(&l.errors), "c.json:1:", 7) == 0);
        if (cases[i].error) {
            assert_string_equal(text_of(&l.errors), cases[i].error);
        }
        unload(&l);
    }
}

static void a_file_that_cannot_be_read_is_an_error(void **state)
{
    (void)state;
    struct loaded l = load_path("none.json");
    assert_int_equal(l.err, ERR_CONFIG);
    assert_string_equal(text_of(&l.errors), "none.json: cannot be read: No such file or directory\n");
    unload(&l);
    l = load_path(".");
    assert_string_equal(text_of(&l.errors), ".: cannot be read: it is a directory\n");
    unload(&l);
}

static void a_file_has_one_mebibyte_at_most(void **state)
{
    (void)state;
    size_t size = 1 << 20;
    char *text = malloc(size + 1);
    memset(text, ' ', size + 1);
    memcpy(text, FINE, sizeof FINE - 1);
    struct loaded l = load_bytes((struct slice){text, size});
    assert_string_equal(text_of(&l.errors), "");
    unload(&l);
    l = load_bytes((struct slice){text, size + 1});
    assert_string_equal(text_of(&l.errors), "c.json: is larger than 1MiB, which is no configuration\n");
    unload(&l);
    free(text);
}

static void assert_truncations_refused(const char *text, size_t step)
{
    size_t whole = (size_t)(strrchr(text, '}') - text);
    for (size_t size = 0; size <= whole; size += step) {
        struct loaded l = load_bytes((struct slice){text, size});
        assert_int_equal(l.err, ERR_CONFIG);
        assert_int_equal(l.errors.count, 1);
        unload(&l);
    }
    struct loaded l = load_bytes((struct slice){text, whole + 1});
    assert_int_equal(l.err, ERR_NONE);
    unload(&l);
}

static void every_truncation_of_the_reference_is_refused(void **state)
{
    (void)state;
    char *text = read_text(conf_path("meowbridge.json"));
    setenv("MEOWBRIDGE_SECRET", "s", 1);
    assert_truncations_refused(text, 7); /* most of it is comments */
    cJSON_Minify(text);
    assert_truncations_refused(text, 1);
    free(text);
}

static void a_damaged_reference_never_crashes(void **state)
{
    (void)state;
    static const char damage[] = {0, '"', '{', '}', '[', ']', ',', '/', '*', '\\', '0', '$', '\xff', '\n'};
    char *text = read_text(conf_path("meowbridge.json"));
    size_t size = strlen(text);
    setenv("MEOWBRIDGE_SECRET", "s", 1);
    for (size_t i = 0; i < size; i += 11) {
        char kept = text[i];
        text[i] = damage[i % sizeof damage];
        struct loaded l = load_bytes((struct slice){text, size});
        assert_true(l.err == ERR_NONE || l.err == ERR_CONFIG);
        unload(&l);
        text[i] = kept;
    }
    free(text);
}

static void deep_nesting_is_refused(void **state)
{
    (void)state;
    size_t size = 200000;
    char *text = malloc(size);
    memset(text, '[', size);
    memcpy(text, "{\"apps\":", 8);
    struct loaded l = load_bytes((struct slice){text, size});
    assert_int_equal(l.err, ERR_CONFIG);
    assert_string_equal(text_of(&l.errors), "c.json:1:72: not JSON: nesting deeper than 64 levels\n");
    unload(&l);
    free(text);
}

static void a_hundred_errors_are_told_and_the_rest_counted(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, 1 << 20);
    buf_append_text(&text, "{\"apps\":[{\"secret\":\"s\"}]");
    for (int i = 0; i < 5000; i++) {
        buf_appendf(&text, ",\"k%d\":1", i);
    }
    buf_append_text(&text, "}");
    struct loaded l = load_bytes(buf_slice(&text));
    assert_int_equal(l.errors.count, 5000);
    size_t lines = 0;
    for (const char *c = text_of(&l.errors); (c = strchr(c, '\n')); c++) {
        lines++;
    }
    assert_int_equal(lines, 101);
    assert_non_null(strstr(text_of(&l.errors), "\nc.json: and 4900 more\n"));
    unload(&l);
    buf_free(&text);
}

/* --- variables in strings --- */

static void a_variable_is_filled_in_wherever_it_stands(void **state)
{
    (void)state;
    setenv("TEST_HOST", "broker.example", 1);
    setenv("TEST_A", "aa", 1);
    setenv("TEST_EMPTY", "", 1);
    struct config *config =
        assert_loads("\"mqtt\":{\"url\":\"mqtt://${TEST_HOST}:1884\",\"client_id\":\"$${TEST_A}$x${TEST_A}{y}\","
                     "\"username\":\"${TEST_EMPTY}\"},\"routes\":[{\"topics\":[\"${TEST_A}/{event}\"]}]");
    assert_string_equal(config->mqtt.brokers[0].host, "broker.example");
    assert_string_equal(config->mqtt.client_id, "$aa$xaa{y}");
    assert_string_equal(config->mqtt.username, "");
    assert_string_equal(config->routes[0].topics[0], "aa/{event}");
    config_free(&config);
    setenv("TEST_URLS", "mqtt://a,mqtts://b", 1);
    config = assert_loads("\"mqtt\":{\"url\":\"${TEST_URLS}\"}");
    assert_int_equal(config->mqtt.broker_count, 2);
    config_free(&config);
    setenv("TEST_A", "${TEST_HOST}", 1); /* what is filled in is not looked through again */
    config = assert_loads("\"mqtt\":{\"client_id\":\"${TEST_A}\"}");
    assert_string_equal(config->mqtt.client_id, "${TEST_HOST}");
    config_free(&config);
}

static void an_unset_variable_is_an_error(void **state)
{
    (void)state;
    assert_refused(
        "\"mqtt\":{\"client_id\":\"x${TEST_NONE}\"}",
        "c.json:2:21: mqtt.client_id: is \"x${TEST_NONE}\", expected the environment variable TEST_NONE to be set\n");
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_refused(
        "\"admin\":{\"token_file\":\"${CREDENTIALS_DIRECTORY}/t\"}",
        "c.json:2:23: admin.token_file: is \"${CREDENTIALS_DIRECTORY}/t\", expected the environment variable "
        "CREDENTIALS_DIRECTORY to be set: systemd sets it for the service, elsewhere set it to the folder that holds "
        "the secrets\n");
    static const char *const bad[] = {"${", "${}", "${TEST", "${1A}", "${A-B}", "${A B}", "a${A${B}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char members[128], expected[256];
        snprintf(members, sizeof members, "\"mqtt\":{\"client_id\":\"%s\"}", bad[i]);
        snprintf(expected, sizeof expected,
                 "c.json:2:21: mqtt.client_id: is \"%s\", expected the name of an environment variable and } behind ${\n",
                 bad[i]);
        assert_refused(members, expected);
    }
}

static void what_a_variable_holds_never_reaches_an_error(void **state)
{
    (void)state;
    setenv("TEST_SECRET", "hunter2", 1);
    setenv("TEST_BRACE", "{hunter2}", 1);
    setenv("TEST_BYTES", "hunter2\xff", 1);
    static const char *const members[] = {
        "\"mqtt\":{\"url\":\"${TEST_SECRET}\"}",
        "\"mqtt\":{\"status_topic\":\"a/${TEST_BRACE}\"}",
        "\"routes\":[{\"topics\":[\"${TEST_BRACE}\"]}]",
        "\"mqtt\":{\"password_file\":\"${TEST_SECRET}\"}",
        "\"http\":{\"listen\":\"${TEST_SECRET}\"}",
        "\"http\":{\"timeout\":\"${TEST_SECRET}\"}",
        "\"log\":{\"level\":\"${TEST_SECRET}\"}",
        "\"mqtt\":{\"client_id\":\"${TEST_BYTES}\"}",
        "\"http\":{\"tls\":{\"key_file\":\"${TEST_SECRET}\"}}",
    };
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"apps\":[{\"secret\":\"s\"}],\n%s}", members[i]);
        struct loaded l = load_bytes(slice_of(text));
        assert_int_equal(l.err, ERR_CONFIG);
        assert_non_null(strstr(text_of(&l.errors), "${TEST_"));
        assert_null(strstr(text_of(&l.errors), "hunter2"));
        unload(&l);
    }
    assert_refused(
        "\"routes\":[{\"topics\":[\"${TEST_BRACE}\"]}]",
        "c.json:2:22: routes[0].topics[0]: is \"${TEST_BRACE}\": with its variables filled in it is no valid topic\n");
}

static void a_written_secret_never_reaches_an_error(void **state)
{
    (void)state;
    static const char *const files[] = {"{\"apps\":[{\"secret\":[\"hunter2\"]}]}",
                                        "{\"apps\":[{\"secret\":{\"x\":\"hunter2\"}}]}",
                                        "{\"apps\":[{\"secret\":\"hunter2\\u0000\"}]}",
                                        "{\"apps\":[{\"secret\":\"hunter2${\"}]}",
                                        "{\"apps\":[{\"secrt\":\"hunter2\"}]}",
                                        "{\"apps\":[{\"secret\":\"hunter2",
                                        "{\"apps\":[{\"secret\":\"hunter2\",\"path\":\"x\",\"secret_file\":\"y\"}]}"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct loaded l = load_bytes(slice_of(files[i]));
        assert_int_equal(l.err, ERR_CONFIG);
        assert_null(strstr(text_of(&l.errors), "hunter2"));
        unload(&l);
    }
}

static void a_string_is_bounded_with_its_variables_filled_in(void **state)
{
    (void)state;
    char *value = calloc(1, 60001);
    memset(value, 'x', 60000);
    setenv("TEST_LONG", value, 1);
    assert_fine("\"log\":{},\"journal\":{\"path\":\"${TEST_LONG}${TEST_LONG}\"}");
    assert_refused(
        "\"journal\":{\"path\":\"${TEST_LONG}${TEST_LONG}${TEST_LONG}\"}",
        "c.json:2:19: journal.path: is \"${TEST_LONG}${TEST_LONG}${TEST_LONG}\", expected at most 131072 bytes with its "
        "variables filled in\n");
    assert_refused("\"mqtt\":{\"client_id\":\"${TEST_LONG}${TEST_LONG}\"}",
                   "c.json:2:21: mqtt.client_id: is \"${TEST_LONG}${TEST_LONG}\", expected at most 65535 bytes\n");
    free(value);
}

static void a_variable_that_is_no_value_is_refused_by_its_name(void **state)
{
    (void)state;
    setenv("MEOWBRIDGE_MQTT_KEEPALIVE", "soon\n", 1);
    assert_whole_refused(FINE, "MEOWBRIDGE_MQTT_KEEPALIVE: is \"soon\\n\", expected a time such as 500ms, 15s or 7d\n");
    setenv("MEOWBRIDGE_MQTT_KEEPALIVE", "\xff", 1);
    assert_whole_refused(FINE, "MEOWBRIDGE_MQTT_KEEPALIVE: is \"\\ufffd\", expected valid UTF-8\n");
    setenv("MEOWBRIDGE_MQTT_KEEPALIVE", "10s", 1);
    setenv("MEOWBRIDGE_HTTP_THREADS", "", 1);
    assert_whole_refused(FINE, "MEOWBRIDGE_HTTP_THREADS: is \"\", expected an integer from 1 to 64\n");
}

static void a_variable_goes_over_the_file(void **state)
{
    (void)state;
    setenv("MEOWBRIDGE_JOURNAL", "false", 1);
    setenv("MEOWBRIDGE_MQTT_URL", "mqtt://a,mqtt://b", 1);
    struct config *config = assert_loads("\"journal\":{\"path\":\"x\"},\"mqtt\":{\"url\":[\"mqtt://c\"]}");
    assert_false(config->journal.enabled);
    assert_int_equal(config->mqtt.broker_count, 2);
    assert_string_equal(config->mqtt.brokers[1].host, "b");
    config_free(&config);
}

static void a_variable_that_is_nearly_ours_gives_a_warning(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"MEOWBRIDGE_MQTT_URI", "MEOWBRIDGE_MQTT_URI: unknown variable, did you mean MEOWBRIDGE_MQTT_URL?\n"},
        {"MEOWBRIDGE_MQTT_PASSWORD",
         "MEOWBRIDGE_MQTT_PASSWORD: unknown variable, did you mean MEOWBRIDGE_MQTT_PASSWORD_FILE?\n"},
        {"MEOWBRIDGE_SECRETS", "MEOWBRIDGE_SECRETS: unknown variable, did you mean MEOWBRIDGE_SECRET?\n"},
        {"MEOWBRIDGE_APPS", "MEOWBRIDGE_APPS: unknown variable, apps are set in the file only\n"},
        {"MEOWBRIDGE_ROUTES_0_QOS", "MEOWBRIDGE_ROUTES_0_QOS: unknown variable, routes are set in the file only\n"},
        {"MEOWBRIDGE_APPSTORE", ""},
        {"MEOWBRIDGE_SERVICE_HOST", ""}, /* Kubernetes' own */
        {"MEOWBRIDGE_PORT_8080_TCP_ADDR", ""},
        {"MEOWBRIDGE_MQTT_URL", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv(cases[i][0], "mqtt://h", 1);
        struct loaded l = load_bytes(SLICE(FINE));
        assert_int_equal(l.err, ERR_NONE);
        assert_string_equal(text_of(&l.warnings), cases[i][1]);
        unload(&l);
        unsetenv(cases[i][0]);
    }
}

static void a_secret_that_everybody_can_read_gives_a_warning(void **state)
{
    (void)state;
    write_text("s", "s\n");
    chmod("s", 0644);
    struct loaded l = load_bytes(SLICE("{\"apps\":[{\"secret_file\":\"s\"}]}"));
    assert_int_equal(l.err, ERR_NONE);
    assert_string_equal(text_of(&l.warnings),
                        "c.json:1:25: apps[0].secret_file: \"s\" can be read by everybody (mode 0644), expected chmod o-r\n");
    assert_int_equal(l.warnings.count, 1);
    unload(&l);
    chmod("s", 0640); /* a service's group is the usual way */
    l = load_bytes(SLICE("{\"apps\":[{\"secret_file\":\"s\"}]}"));
    assert_string_equal(text_of(&l.warnings), "");
    unload(&l);
    chmod("c.json", 0644);
    write_text("c.json", "{\"apps\":[{\"secret\":\"s\"}]}");
    l = load_path("c.json");
    assert_string_equal(text_of(&l.warnings),
                        "c.json:1:20: apps[0].secret: stands in a file that everybody can read (mode 0644), "
                        "expected chmod o-r or secret_file\n");
    unload(&l);
    setenv("TEST_SECRET", "s", 1);
    write_text("c.json", "{\"apps\":[{\"secret\":\"${TEST_SECRET}\"}]}");
    l = load_path("c.json");
    assert_string_equal(text_of(&l.warnings), "");
    unload(&l);
}

static void a_secret_with_white_space_around_it_gives_a_warning(void **state)
{
    (void)state;
    write_text("s", "hush \n");
    struct loaded l = load_bytes(SLICE("{\"apps\":[{\"secret_file\":\"s\"}]}"));
    assert_int_equal(l.err, ERR_NONE);
    assert_string_equal(text_of(&l.warnings), "c.json:1:25: apps[0].secret_file: \"s\" holds a secret that ends with white "
                                              "space, which counts; MeowFlow's secrets have none\n");
    unload(&l);
    l = load_bytes(SLICE("{\"apps\":[{\"secret\":\"\\thush \"}]}"));
    assert_string_equal(text_of(&l.warnings), "c.json:1:20: apps[0].secret: begins and ends with white space, which counts; "
                                              "MeowFlow's secrets have none\n");
    unload(&l);
    l = load_bytes(SLICE("{\"apps\":[{\"secret\":\"hu sh\"}],\"admin\":{\"token_file\":\"s\"}}"));
    assert_string_equal(text_of(&l.warnings), "c.json:1:52: admin.token_file: \"s\" holds a secret that ends with white "
                                              "space, which counts\n");
    unload(&l);
    setenv("MEOWBRIDGE_SECRET", " hush", 1);
    l = load_path(NULL);
    assert_string_equal(text_of(&l.warnings),
                        "MEOWBRIDGE_SECRET: begins with white space, which counts; MeowFlow's secrets have none\n");
    unload(&l);
    unsetenv("MEOWBRIDGE_SECRET");
}

/* --- printing and reloading --- */

static void the_journal_is_an_object_or_a_switch(void **state)
{
    (void)state;
    struct config *config = assert_loads("\"journal\":false");
    assert_false(config->journal.enabled);
    char *text = print(config);
    assert_non_null(strstr(text, "\n  \"journal\": false,\n"));
    free(text);
    config_free(&config);
    config = assert_loads("\"journal\":true");
    assert_true(config->journal.enabled);
    assert_string_equal(config->journal.path, "meowbridge.db");
    config_free(&config);
    config = assert_loads("\"journal\":{\"retention\":\"1h\"}");
    assert_true(config->journal.enabled);
    assert_int_equal(config->journal.retention_ms, 3600000);
    text = print(config);
    assert_non_null(strstr(text, "\"journal\": {\n    \"path\": \"meowbridge.db\",\n    \"retention\": \"1h\",\n"));
    free(text);
    config_free(&config);
}

/* Many values that differ from the defaults. */
#define RICH                                                                                                              \
    "{\"http\":{\"listen\":\"[::1]:8081\",\"threads\":4,\"tls\":{\"certificate_file\":\"s\",\"key_file\":\"s\"},"         \
    "\"max_body\":\"1500B\",\"timeout\":\"1500ms\"},\"admin\":{\"listen\":\"unix:a.sock\",\"token_file\":\"s\"},"         \
    "\"apps\":[{\"id\":\"1\",\"secret\":\"%s\",\"rate_limit\":100},{\"id\":\"\\\"2\\n\",\"secret_file\":\"s\","           \
    "\"previous_secret_file\":\"s\",\"public_url\":\"https://h:8443/x?y\"}],"                                             \
    "\"mqtt\":{\"url\":[\"mqtts://a\",\"mqtt://[::1]:1\"],\"version\":5,\"client_id\":\"喵\",\"username\":\"u\","        \
    "\"password_file\":\"s\",\"tls\":{\"ca_file\":\"s\"},\"keepalive\":\"90s\",\"inflight\":65535,\"max_rate\":1000000}," \
    "\"journal\":{\"path\":\"x:\\ty\",\"retention\":\"36h\",\"max_size\":\"1048576GiB\"},"                                \
    "\"routes\":[{\"event\":\"a.*\",\"topics\":[\"x/{id}\",\"y,z\"],\"qos\":2,\"retain\":true,\"expiry\":\"49710d\","     \
    "\"body\":\"cloudevent\"},{\"unheard\":\"dead\"}],\"log\":{\"level\":\"debug\",\"format\":\"json\"}}"

static void what_is_printed_is_read_as_the_same(void **state)
{
    (void)state;
    char text[4096];
    write_text("s", "s3cret\n");
    snprintf(text, sizeof text, RICH, "hunter2");
    struct loaded l = load_bytes(slice_of(text));
    assert_string_equal(text_of(&l.errors), "");
    char *first = print(l.config);
    assert_null(strstr(first, "hunter2"));
    assert_null(strstr(first, "s3cret"));
    char *masked = strstr(first, "\"secret\": \"***\"");
    assert_non_null(masked);
    assert_null(strstr(masked + 14, "\"***\"")); /* the other app's is named by its file */
    cJSON *json = cJSON_Parse(first);
    assert_non_null(json);
    cJSON_Delete(json);
    struct loaded again = load_bytes(slice_of(first)); /* "***" is as good a secret as any */
    assert_string_equal(text_of(&again.errors), "");
    char *second = print(again.config);
    assert_string_equal(first, second);
    for (size_t i = 0; i < config_options.count; i++) {
        char *a = value_text(&config_options.options[i], l.config), *b = value_text(&config_options.options[i], again.config);
        assert_string_equal(a, b);
        free(a);
        free(b);
    }
    assert_string_equal(again.config->routes[0].topics[1], "y,z");
    assert_string_equal(again.config->apps[1].id, "\"2\n");
    assert_string_equal(again.config->journal.path, "x:\ty");
    unload(&again);
    unload(&l);
    free(second);
    free(first);
}

static void the_route_that_applies_without_routes_is_printed(void **state)
{
    (void)state;
    struct config *config = assert_loads("\"routes\":[]");
    assert_int_equal(config->route_count, 0);
    char *text = print(config);
    assert_non_null(strstr(text, "\"event\": \"*\",\n      \"topics\": [\"meowflow/{event}\"],\n      \"qos\": 1,"));
    free(text);
    config_free(&config);
}

static void a_print_without_room_fails(void **state)
{
    (void)state;
    struct config *config = assert_loads("\"log\":{}");
    struct buf text;
    buf_init(&text, 100);
    config_print(config, &text);
    assert_true(text.failed);
    buf_free(&text);
    config_free(&config);
}

static void assert_fixed(const char *running, const char *loaded, const char *names)
{
    struct config *a = assert_loads(running), *b = assert_loads(loaded);
    struct buf out;
    buf_init(&out, 4096);
    config_fixed_changes(a, b, &out);
    assert_slice(buf_slice(&out), names);
    buf_free(&out);
    config_free(&a);
    config_free(&b);
}

static void a_reload_names_what_it_cannot_change(void **state)
{
    (void)state;
    write_text("s", "s\n");
    write_text("t", "t\n");
    assert_fixed("\"log\":{}", "\"log\":{}", "");
    assert_fixed("\"log\":{\"level\":\"info\"}",
                 "\"log\":{\"level\":\"debug\"},\"routes\":[{}],\"mqtt\":{\"password_file\":\"s\"},"
                 "\"admin\":{\"token_file\":\"s\"}",
                 "");
    assert_fixed("\"log\":{}", "\"log\":{\"format\":\"json\"},\"http\":{\"threads\":2},\"journal\":false",
                 "http.threads, journal, log.format");
    assert_fixed("\"mqtt\":{\"url\":\"mqtt://a\"}", "\"mqtt\":{\"url\":[\"mqtt://a\",\"mqtt://b\"],\"username\":\"u\"}",
                 "mqtt.url, mqtt.username");
    assert_fixed("\"http\":{\"tls\":{\"certificate_file\":\"s\",\"key_file\":\"s\"}}",
                 "\"http\":{\"tls\":{\"certificate_file\":\"t\",\"key_file\":\"t\"}}", "");
    assert_fixed("\"log\":{}", "\"http\":{\"tls\":{\"certificate_file\":\"t\",\"key_file\":\"t\"}}",
                 "http.tls.certificate_file, http.tls.key_file");
}

static void freeing_nothing_is_fine(void **state)
{
    (void)state;
    struct config *config = NULL;
    config_free(&config);
    struct secret secret = {0};
    secret_free(&secret);
    struct config_errors errors = {0};
    config_errors_free(&errors);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, enter, leave)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(sizes_and_times_have_exact_units),
        TEST(a_quantity_is_printed_so_that_it_reads_back),
        TEST(an_address_to_listen_on_is_numeric_or_a_socket),
        TEST(a_secret_is_the_first_line_of_its_file),
        TEST(a_secret_has_4096_bytes_at_most),
        TEST(the_reference_has_every_option_with_its_default),
        TEST(the_reference_keeps_the_order_of_the_table),
        TEST(the_minimal_file_is_taken),
        TEST(the_schema_has_every_option_with_its_default),
        TEST(the_schema_has_nothing_else),
        TEST(every_scalar_can_be_set_by_its_variable),
        TEST(a_variable_has_the_key_in_capitals_for_a_name),
        TEST(a_wrong_type_is_refused_for_every_option),
        TEST(every_number_is_held_to_its_range),
        TEST(an_unknown_key_is_named_with_the_nearest_known),
        TEST(a_key_given_twice_is_refused_at_the_second),
        TEST(a_value_is_refused_with_what_was_expected),
        TEST(topic_templates_are_held_to_their_rules),
        TEST(all_routes_together_have_64_topics_at_most),
        TEST(brokers_are_urls_without_a_user_or_a_path),
        TEST(who_only_looks_needs_no_secret_but_is_told_every_other_mistake),
        TEST(an_app_needs_exactly_one_secret),
        TEST(no_file_and_no_secret_says_what_to_do),
        TEST(the_environment_makes_an_app_where_the_file_has_none),
        TEST(the_environment_sets_the_first_apps_secret_over_the_file),
        TEST(apps_may_share_a_path_but_not_the_id_too),
        TEST(there_are_64_apps_at_most),
        TEST(a_public_url_is_split_as_it_is_signed),
        TEST(rules_that_join_options_name_the_one_at_fault),
        TEST(one_mistake_gives_one_error),
        TEST(all_errors_come_at_once_in_the_order_of_the_file),
        TEST(columns_count_characters_and_comments_keep_places),
        TEST(what_is_no_json_is_refused_at_its_place),
        TEST(a_file_that_cannot_be_read_is_an_error),
        TEST(a_file_has_one_mebibyte_at_most),
        TEST(every_truncation_of_the_reference_is_refused),
        TEST(a_damaged_reference_never_crashes),
        TEST(deep_nesting_is_refused),
        TEST(a_hundred_errors_are_told_and_the_rest_counted),
        TEST(a_variable_is_filled_in_wherever_it_stands),
        TEST(an_unset_variable_is_an_error),
        TEST(what_a_variable_holds_never_reaches_an_error),
        TEST(a_written_secret_never_reaches_an_error),
        TEST(a_string_is_bounded_with_its_variables_filled_in),
        TEST(a_variable_that_is_no_value_is_refused_by_its_name),
        TEST(a_variable_goes_over_the_file),
        TEST(a_variable_that_is_nearly_ours_gives_a_warning),
        TEST(a_secret_that_everybody_can_read_gives_a_warning),
        TEST(a_secret_with_white_space_around_it_gives_a_warning),
        TEST(the_journal_is_an_object_or_a_switch),
        TEST(what_is_printed_is_read_as_the_same),
        TEST(the_route_that_applies_without_routes_is_printed),
        TEST(a_print_without_room_fails),
        TEST(a_reload_names_what_it_cannot_change),
        TEST(freeing_nothing_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
