#include "meowbridge/bridge.h"

#include "meowbridge/admin.h"
#include "meowbridge/clock.h"
#include "meowbridge/command.h"
#include "meowbridge/config.h"
#include "meowbridge/heartbeat.h"
#include "meowbridge/http_server.h"
#include "meowbridge/ingress.h"
#include "meowbridge/journal.h"
#include "meowbridge/log.h"
#include "meowbridge/metrics.h"
#include "meowbridge/publisher.h"
#include "meowbridge/sandbox.h"
#include "meowbridge/supervisor.h"
#include "meowbridge/topic.h"
#include "meowbridge/version.h"

#include "trials.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STOP_MS = 9 * 1000, STOP_HTTP_MS = 3 * 1000, FILES_BESIDE_CONNECTIONS = 128 };

struct bridge {
    pthread_mutex_t wake_lock;
    struct publisher *woken; /* guarded by wake_lock: the publisher, while the journal may wake it */

    const char *config_path;
    struct supervisor supervisor;
    char told[400]; /* the last STATUS */
    struct config *config;
    struct route_table *routes;
    struct journal *journal;
    struct ingress *ingress;
    struct publisher *publisher;
    struct http_server *http;
    char identity[JOURNAL_IDENTITY_SIZE]; /* the client id where the configuration has none */
    struct admin *admin;
    struct http_server *admin_http;
};

/* --- the process --- */

/* Secrets in the environment stay readable in /proc/PID/environ as long as they stand where the kernel put them: move every
 * variable to the heap (a reload reads them again) and wipe the old place. */
static enum err hide_environment(struct error *why)
{
    size_t count = 0;
    while (environ[count]) {
        count++;
    }
    char **moved = calloc(count + 1, sizeof *moved);
    bool ok = moved != NULL;
    for (size_t i = 0; ok && i < count; i++) {
        moved[i] = strdup(environ[i]);
        ok = moved[i] != NULL;
    }
    if (!ok) {
        for (size_t i = 0; moved && i < count; i++) {
            free(moved[i]);
        }
        free(moved);
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    for (size_t i = 0; i < count; i++) {
        explicit_bzero(environ[i], strlen(environ[i]));
    }
    environ = moved;
    return ERR_NONE;
}

static bool is_low(const struct listen_address *listen)
{
    return listen->port > 0 && listen->port < 1024;
}

/* Before any thread exists: they inherit it. That root is nobody special here holds from the first file that is read, so that a
 * reload finds what the start found. */
static enum err enter_sandbox(const struct config *config, struct error *why)
{
    enum err failed = sandbox_drop_privileges(is_low(&config->http.listen) || is_low(&config->admin.listen), why);
    if (!failed && sandbox_forbid_calls(sandbox_is_sanitized, why)) {
        log_warn("running without a filter of system calls", LOG_STR("reason", why->text));
    }
    if (geteuid() == 0) {
        log_warn("running as root, which is not needed: give the bridge a user of its own");
    }
    return failed;
}

static void block_signals(sigset_t *waited)
{
    sigemptyset(waited);
    sigaddset(waited, SIGTERM);
    sigaddset(waited, SIGINT);
    sigaddset(waited, SIGHUP);
    sigprocmask(SIG_BLOCK, waited, NULL); /* before any thread exists: they inherit it */
    signal(SIGPIPE, SIG_IGN);
}

/* Every connection is a descriptor. Returns how many connections there is room for. */
static unsigned connections_allowed(int64_t wanted)
{
    struct rlimit limit;
    rlim_t need = (rlim_t)wanted + FILES_BESIDE_CONNECTIONS;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < need) {
        limit.rlim_cur = limit.rlim_max == RLIM_INFINITY || limit.rlim_max > need ? need : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= need) {
        return (unsigned)wanted;
    }
    rlim_t room = limit.rlim_cur > FILES_BESIDE_CONNECTIONS + 1 ? limit.rlim_cur - FILES_BESIDE_CONNECTIONS : 1;
    log_warn("fewer connections than http.max_connections fit into the limit of open files; raise it (ulimit -n, LimitNOFILE=)",
             LOG_INT("max_connections", wanted), LOG_INT("used", room), LOG_INT("open_files", limit.rlim_cur));
    return (unsigned)room;
}

/* --- from the configuration to each module's options --- */

static size_t ingress_apps(const struct config *config, struct ingress_app *apps)
{
    for (size_t i = 0; i < config->app_count; i++) {
        const struct app_config *app = &config->apps[i];
        apps[i] = (struct ingress_app){
            .id = slice_of(app->id),
            .path = slice_of(app->path),
            .secret = {app->secret.data, app->secret.size},
            .previous_secret = {app->previous_secret.data, app->previous_secret.size},
            .public_host = slice_of(app->public_host),
            .public_path = slice_of(app->public_path),
            .rate_limit = app->rate_limit,
        };
    }
    return config->app_count;
}

/* With a journal an event that no route takes is kept as dead; without one it must be refused. */
static struct route_table *ingress_routes(const struct config *config, struct route_table *routes)
{
    return config->journal.enabled ? NULL : routes;
}

static struct mqtt_tls_options mqtt_tls_options(const struct config *config)
{
    return (struct mqtt_tls_options){config->mqtt.tls_ca_file, config->mqtt.tls_certificate_file, config->mqtt.tls_key_file};
}

static bool wants_mqtt_tls(const struct config *config)
{
    bool wanted = false;
    for (size_t i = 0; i < config->mqtt.broker_count; i++) {
        wanted = wanted || config->mqtt.brokers[i].tls;
    }
    return wanted;
}

/* A socket that was given takes the place of the configured address. */
static struct http_server_options listener(const char *name, const struct listen_address *configured,
                                           const struct supervisor_socket *given)
{
    const struct listen_address *address = given->fd ? &given->address : configured;
    return (struct http_server_options){
        .name = name,
        .is_unix = address->is_unix,
        .host = address->host,
        .port = address->port,
        .unix_path = address->path,
        .listen_fd = given->fd,
        .threads = 1,
    };
}

/* --- starting, in order --- */

static void on_claimable(void *ctx)
{
    struct bridge *bridge = ctx;
    pthread_mutex_lock(&bridge->wake_lock);
    if (bridge->woken) {
        publisher_wake(bridge->woken);
    }
    pthread_mutex_unlock(&bridge->wake_lock);
}

static void let_wake(struct bridge *bridge, struct publisher *publisher)
{
    pthread_mutex_lock(&bridge->wake_lock);
    bridge->woken = publisher;
    pthread_mutex_unlock(&bridge->wake_lock);
}

static enum err start_journal(struct bridge *bridge, struct error *why)
{
    const struct config *config = bridge->config;
    const struct journal_options options = {
        .path = config->journal.path,
        .retention_ms = config->journal.retention_ms,
        .max_bytes = config->journal.max_size,
        .label = event_label,
    };
    enum err failed = config->journal.enabled ? journal_open_sqlite(&bridge->journal, &options, why)
                                              : journal_open_memory(&bridge->journal, &(struct journal_options){0}, why);
    if (failed) {
        return failed;
    }
    struct journal_state state;
    journal_state(bridge->journal, &state);
    if (config->journal.enabled) {
        log_info("journal open", LOG_STR("path", config->journal.path), LOG_INT("pending", state.last_seq - state.cursor),
                 LOG_INT("dead", state.dead), LOG_INT("bytes", state.bytes));
    } else {
        log_info("no journal: a webhook is answered 200 when the broker has confirmed it");
    }
    return ERR_NONE;
}

static enum err start_ingress(struct bridge *bridge, struct error *why)
{
    struct ingress_app apps[CONFIG_MAX_APPS];
    const struct ingress_options options = {
        .journal = bridge->journal,
        .loops = (unsigned)bridge->config->http.threads,
        .apps = apps,
        .app_count = ingress_apps(bridge->config, apps),
        .routes = ingress_routes(bridge->config, bridge->routes),
    };
    enum err failed = ingress_open(&bridge->ingress, &options, why);
    if (failed) {
        return failed;
    }
    const struct journal_hooks hooks = {ingress_appended, bridge->ingress, on_claimable, bridge};
    return journal_start(bridge->journal, &hooks, why);
}

static enum err start_publisher(struct bridge *bridge, struct error *why)
{
    const struct config *config = bridge->config;
    struct publisher_broker brokers[CONFIG_MAX_BROKERS];
    struct buf status_topic;
    for (size_t i = 0; i < config->mqtt.broker_count; i++) {
        const struct broker_address *broker = &config->mqtt.brokers[i];
        brokers[i] = (struct publisher_broker){broker->url, broker->host, broker->port, broker->tls};
    }
    enum err failed = journal_identity(bridge->journal, bridge->identity, why);
    if (failed) {
        return failed;
    }
    const char *client_id = config->mqtt.client_id[0] ? config->mqtt.client_id : bridge->identity;
    buf_init(&status_topic, TOPIC_MAX_BYTES);
    topic_expand_status(&status_topic, slice_of(config->mqtt.status_topic), slice_of(client_id));
    const struct publisher_options options = {
        .journal = bridge->journal,
        .routes = bridge->routes,
        .brokers = brokers,
        .broker_count = config->mqtt.broker_count,
        .tls = mqtt_tls_options(config),
        .version = (int)config->mqtt.version,
        .client_id = client_id,
        .username = config->mqtt.username,
        .password = {config->mqtt.password.data, config->mqtt.password.size},
        .keepalive_ms = config->mqtt.keepalive_ms,
        .inflight = (unsigned)config->mqtt.inflight,
        .max_rate = config->mqtt.max_rate,
        .status_topic = status_topic.size > 0 ? status_topic.data : NULL,
    };
    failed = status_topic.failed ? error_set(why, ERR_CONFIG, "mqtt.status_topic is longer than a topic may be (65,535 bytes)")
                                 : publisher_open(&bridge->publisher, &options, why);
    buf_free(&status_topic);
    if (!failed) {
        let_wake(bridge, bridge->publisher);
        publisher_wake(bridge->publisher); /* for what was committed before on_claimable could see it */
    }
    return failed;
}

static void log_listening(const char *what, const struct http_server_options *options, const struct http_server *server)
{
    char address[160];
    if (options->is_unix) {
        snprintf(address, sizeof address, "unix:%s", options->unix_path);
    } else {
        bool is_ipv6 = strchr(options->host, ':') != NULL;
        snprintf(address, sizeof address, "%s%s%s:%u", is_ipv6 ? "[" : "", options->host, is_ipv6 ? "]" : "",
                 (unsigned)http_server_port(server));
    }
    log_info(what, LOG_STR("address", address), LOG_STR("tls", options->tls_certificate_file ? "yes" : "no"));
}

static enum err start_http(struct bridge *bridge, struct error *why)
{
    const struct config *config = bridge->config;
    struct http_server_options options = listener("http", &config->http.listen, &bridge->supervisor.http);
    options.threads = (unsigned)config->http.threads;
    options.max_head = 10 << 10; /* senders need less than one, and a proxy before the bridge adds one or two */
    options.max_body = (size_t)config->http.max_body;
    options.timeout_ms = config->http.timeout_ms;
    options.max_connections = connections_allowed(config->http.max_connections);
    options.max_connections_per_ip = (unsigned)config->http.max_connections_per_ip;
    options.single_headers = ingress_single_headers;
    options.handler = ingress_handler(bridge->ingress);
    if (config->http.tls_certificate_file[0]) {
        options.tls_certificate_file = config->http.tls_certificate_file;
        options.tls_key_file = config->http.tls_key_file;
    }
    enum err failed = http_server_open(&bridge->http, &options, why);
    if (!failed) {
        log_listening("listening for webhooks", &options, bridge->http);
    }
    return failed;
}

static enum err start_admin(struct bridge *bridge, struct error *why)
{
    const struct config *config = bridge->config;
    const struct supervisor_socket *given = &bridge->supervisor.admin;
    if (given->fd && !listen_is_local(&given->address) && config->admin.token.size == 0) {
        return error_set(why, ERR_CONFIG,
                         "the admin listener's socket (LISTEN_FDS) can be reached from elsewhere: it needs admin.token_file");
    }
    const struct admin_options admin_options = {
        .journal = bridge->journal,
        .publisher = bridge->publisher,
        .routes = bridge->routes,
        .token = {config->admin.token.data, config->admin.token.size},
        .journal_path = config->journal.enabled ? config->journal.path : NULL,
        .journal_max_bytes = config->journal.enabled ? config->journal.max_size : 0,
        .client_id = config->mqtt.client_id[0] ? config->mqtt.client_id : bridge->identity,
    };
    enum err failed = admin_open(&bridge->admin, &admin_options, why);
    if (failed) {
        return failed;
    }
    struct http_server_options options = listener("admin", &config->admin.listen, given);
    options.max_head = 16 << 10; /* a browser's cookies, of all that runs on this host */
    options.max_body = 64 * 1024;
    options.timeout_ms = 15 * 1000;
    options.max_connections = 64;
    options.single_headers = admin_single_headers;
    options.handler = admin_handler(bridge->admin);
    failed = http_server_open(&bridge->admin_http, &options, why);
    if (!failed) {
        log_listening("listening for probes", &options, bridge->admin_http);
    }
    return failed;
}

static enum err start(struct bridge *bridge, struct error *why)
{
    /* Who cannot listen does not connect. */
    /* cppcheck-suppress uninitvar ; the next line fills it, behind a declarator that it cannot read */
    enum err (*const steps[])(struct bridge *, struct error *) = {start_journal, start_ingress, start_http, start_publisher,
                                                                  start_admin};
    const struct config *config = bridge->config;
    enum err failed = route_table_open(&bridge->routes, config->routes, config->route_count, why);
    for (size_t i = 0; !failed && i < sizeof steps / sizeof steps[0]; i++) {
        failed = steps[i](bridge, why);
    }
    return failed;
}

/* --- stopping, in reverse --- */

static void stop(struct bridge *bridge)
{
    int64_t begun_ms = clock_mono_ms(); /* a container is killed 10 s after its SIGTERM: be gone before */
    if (bridge->admin) {
        admin_set_stopping(bridge->admin);
    }
    if (bridge->http) {
        http_server_quiesce(bridge->http);
        if (!http_server_drain(bridge->http, begun_ms + STOP_HTTP_MS)) {
            log_warn("some requests are not answered in time; their senders will push again");
        }
    }
    if (bridge->publisher) {
        publisher_stop(bridge->publisher, begun_ms + STOP_MS);
    }
    if (bridge->admin_http) {
        http_server_quiesce(bridge->admin_http);
    }
    if (bridge->admin) {
        admin_detach(bridge->admin);
    }
    let_wake(bridge, NULL);
    publisher_close(&bridge->publisher);
    if (bridge->ingress) {
        ingress_stop(bridge->ingress);
    }
    journal_close(&bridge->journal); /* hands back what is still parked, on both listeners … */
    if (bridge->http) {
        http_server_drain(bridge->http, clock_mono_ms() + 500); /* … which is answered now */
    }
    http_server_close(&bridge->http);
    http_server_close(&bridge->admin_http);
    admin_close(&bridge->admin);
    ingress_close(&bridge->ingress);
    route_table_unref(&bridge->routes);
}

static void log_totals(void)
{
    log_info("stopped", LOG_INT("accepted", metrics_get(METRIC_WEBHOOKS_ACCEPTED)),
             LOG_INT("duplicates", metrics_get(METRIC_WEBHOOKS_DUPLICATE)),
             LOG_INT("published", metrics_get(METRIC_EVENTS_PUBLISHED)), LOG_INT("dead", metrics_get(METRIC_EVENTS_DEAD)));
}

/* --- the configuration, first and again --- */

static void say_lines(const struct buf *lines, const char *prefix)
{
    for (const char *line = lines->data; line && *line;) {
        size_t size = strcspn(line, "\n");
        fprintf(stderr, "%s%s%.*s\n", log_priority(LOG_ERROR), prefix, (int)size, line);
        line += size + (line[size] == '\n');
    }
}

static void log_lines(enum log_level level, const char *message, const struct buf *lines)
{
    for (const char *line = lines->data; line && *line;) {
        size_t size = strcspn(line, "\n");
        log_at(level, message, LOG_SLICE("at", ((struct slice){line, size})));
        line += size + (line[size] == '\n');
    }
}

/* Everything that can fail fails before anything changes; certificates are tried before they are swapped. */
static enum err apply(struct bridge *bridge, const struct config *loaded, struct error *why)
{
    struct route_table *routes = NULL;
    struct ingress_app apps[CONFIG_MAX_APPS];
    struct mqtt_tls_options tls = mqtt_tls_options(loaded);
    struct mqtt_tls *trial = NULL;
    struct publisher *publisher = bridge->publisher;
    /* Where the file has turned TLS on or off, which takes a restart, the certificates in use stay. */
    bool mqtt_tls = wants_mqtt_tls(bridge->config) && wants_mqtt_tls(loaded),
         http_tls = bridge->config->http.tls_certificate_file[0];
    enum err failed = route_table_open(&routes, loaded->routes, loaded->route_count, why);
    if (!failed && mqtt_tls) {
        failed = mqtt_tls_open(&trial, &tls, why);
        mqtt_tls_close(&trial);
    }
    if (!failed && http_tls && loaded->http.tls_certificate_file[0]) {
        failed = http_server_reload_tls(bridge->http, loaded->http.tls_certificate_file, loaded->http.tls_key_file, why);
    }
    if (!failed) {
        failed = publisher_reload(publisher, mqtt_tls ? &tls : NULL,
                                  (struct slice){loaded->mqtt.password.data, loaded->mqtt.password.size}, why);
    }
    if (!failed) {
        failed = ingress_reload(bridge->ingress, apps, ingress_apps(loaded, apps), ingress_routes(bridge->config, routes), why);
    }
    if (failed) {
        route_table_unref(&routes);
        return failed;
    }
    publisher_set_routes(publisher, routes);
    if (admin_reload(bridge->admin, (struct slice){loaded->admin.token.data, loaded->admin.token.size}, routes, why)) {
        log_warn("the admin listener keeps its token", LOG_STR("reason", why->text));
    }
    route_table_unref(&bridge->routes);
    bridge->routes = routes;
    log_set_level(loaded->log.level);
    return ERR_NONE;
}

static void warn_of_fixed_changes(const struct config *running, const struct config *loaded)
{
    struct buf names;
    buf_init(&names, 4096);
    config_fixed_changes(running, loaded, &names);
    if (names.size > 0) {
        log_warn("these options changed but take effect at the next start only", LOG_SLICE("options", buf_slice(&names)));
    }
    buf_free(&names);
}

static void reload(struct bridge *bridge)
{
    struct config *loaded = NULL;
    struct config_errors errors, warnings;
    struct error why = {0};
    enum err failed = config_load_and_try(&loaded, bridge->config_path, &config_trials, &errors, &warnings);
    if (failed) {
        log_lines(LOG_ERROR, "the configuration has a mistake", &errors.text);
        log_error("the configuration is not taken; the running one stays", LOG_INT("mistakes", errors.count));
    } else if (apply(bridge, loaded, &why)) {
        log_error("the configuration is not taken; the running one stays", LOG_STR("reason", why.text));
    } else {
        log_lines(LOG_WARN, "the configuration", &warnings.text);
        warn_of_fixed_changes(bridge->config, loaded);
        const size_t routes = loaded->route_count > 0 ? loaded->route_count : 1; /* without any, the default one */
        log_info("configuration read again", LOG_INT("apps", loaded->app_count), LOG_INT("routes", routes));
    }
    config_free(&loaded);
    config_errors_free(&errors);
    config_errors_free(&warnings);
}

static enum err load_first(struct bridge *bridge)
{
    struct config_errors errors, warnings;
    enum err failed = config_load_and_try(&bridge->config, bridge->config_path, &config_trials, &errors, &warnings);
    if (failed) {
        say_lines(&errors.text, errors.count ? "" : "meowbridge: ");
        fprintf(stderr, "%smeowbridge: %s\n", log_priority(LOG_ERROR),
                failed == ERR_CONFIG ? "the configuration is not usable; `meowbridge check` shows it without starting"
                                     : "out of memory");
    } else {
        log_open(bridge->config->log.level, bridge->config->log.format);
        log_lines(LOG_WARN, "the configuration", &warnings.text);
    }
    config_errors_free(&errors);
    config_errors_free(&warnings);
    return failed;
}

/* --- what the supervisor is told --- */

__attribute__((format(printf, 2, 3))) static void tell(struct bridge *bridge, const char *format, ...)
{
    char text[600];
    struct error why;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (supervisor_tell(&bridge->supervisor, text, &why)) {
        log_warn("the supervisor is not told", LOG_STR("reason", why.text));
    }
}

/* One line for `systemctl status`. */
static void tell_status(struct bridge *bridge)
{
    struct publisher_state publisher;
    struct journal_state journal;
    char text[sizeof bridge->told];
    publisher_state(bridge->publisher, &publisher);
    journal_state(bridge->journal, &journal);
    snprintf(text, sizeof text, "%s %.150s, %llu pending, %llu dead%s%.120s",
             publisher.connected ? "Connected to" : "Not connected to", publisher.broker,
             (unsigned long long)(journal.last_seq - journal.cursor), (unsigned long long)journal.dead,
             publisher.trouble[0] ? ": " : "", publisher.trouble);
    if (strcmp(text, bridge->told) != 0) {
        memcpy(bridge->told, text, sizeof bridge->told);
        tell(bridge, "STATUS=%s", text);
    }
}

/* The watchdog is fed only while every thread goes round. */
static void look_after(struct bridge *bridge, size_t *stuck)
{
    struct buf late;
    buf_init(&late, 4096);
    size_t count = heartbeat_late(clock_mono_ms(), &late);
    if (count > *stuck) {
        log_lines(LOG_ERROR, "a thread hangs", &late);
    } else if (count == 0 && *stuck > 0) {
        log_info("all threads go on");
    }
    *stuck = count;
    buf_free(&late);
    if (count == 0) {
        if (bridge->supervisor.watchdog_ms > 0) {
            tell(bridge, "WATCHDOG=1");
        }
        tell_status(bridge);
    }
}

/* The next signal, or 0 when it is time to look after the threads. */
static int next_signal(const sigset_t *waited)
{
    int ms = heartbeat_sleep_ms();
    const struct timespec patience = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    int number = sigtimedwait(waited, NULL, &patience);
    return number > 0 ? number : 0;
}

/* --- the whole --- */

static void wait_for_the_end(struct bridge *bridge, const sigset_t *waited)
{
    size_t stuck = 0;
    for (;;) {
        look_after(bridge, &stuck);
        int number = next_signal(waited);
        if (number == SIGHUP) {
            tell(bridge, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_mono_us());
            reload(bridge);
            tell(bridge, "READY=1");
        } else if (number > 0) {
            tell(bridge, "STOPPING=1\nSTATUS=Stopping");
            log_info("stopping", LOG_STR("signal", number == SIGTERM ? "SIGTERM" : "SIGINT"));
            return;
        }
    }
}

int bridge_run(const char *config_path)
{
    struct bridge bridge = {.wake_lock = PTHREAD_MUTEX_INITIALIZER, .config_path = config_path};
    struct error why = {0};
    sigset_t waited;
    block_signals(&waited);
    enum err failed = sandbox_drop_privileges(true, &why);
    if (failed) {
        fprintf(stderr, "%smeowbridge: %s\n", log_priority(LOG_ERROR), why.text);
        return EXIT_FAILED;
    }
    failed = load_first(&bridge);
    if (failed) {
        return failed == ERR_CONFIG ? EXIT_USAGE : EXIT_FAILED;
    }
    log_info("meowbridge starting", LOG_STR("version", MEOWBRIDGE_VERSION),
             LOG_STR("config", config_path ? config_path : "none"));
    failed = hide_environment(&why);
    failed = failed ? failed : supervisor_open(&bridge.supervisor, &why);
    if (!failed && bridge.supervisor.watchdog_ms > 0) {
        heartbeat_set_limit(bridge.supervisor.watchdog_ms / 2);
    }
    failed = failed ? failed : enter_sandbox(bridge.config, &why);
    failed = failed ? failed : start(&bridge, &why);
    if (failed) {
        log_error("meowbridge cannot start", LOG_STR("reason", why.text));
    } else {
        log_info("ready");
        tell(&bridge, "READY=1");
        wait_for_the_end(&bridge, &waited);
    }
    stop(&bridge);
    config_free(&bridge.config);
    if (!failed) {
        log_totals();
    }
    return !failed ? EXIT_DONE : failed == ERR_CONFIG ? EXIT_USAGE : EXIT_FAILED;
}
