/* config: the configuration as the user gave it (contract.md 2), checked whole, with nothing defaulted silently.
 *
 * One table of options (config_options.c) feeds parsing, defaults, ranges, the environment's overrides, printing with secrets
 * masked, the comparison for a reload, and the tests that hold conf/ and the README against it.
 *
 * Sources, each over the one before: the defaults; the file (JSON with // and block comments, ${NAME} expanded); the
 * environment (MEOWBRIDGE_MQTT_URL, …); MEOWBRIDGE_SECRET and MEOWBRIDGE_SECRET_FILE for the first app (one is made where
 * the file has none). Secret files are read here, so that a missing one is an error before anything starts.
 *
 * A struct config is immutable after config_load and owned by one holder. */
#ifndef MEOWBRIDGE_CONFIG_H
#define MEOWBRIDGE_CONFIG_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"
#include "meowbridge/log.h"
#include "meowbridge/route.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CONFIG_MAX_APPS = 64, CONFIG_MAX_ROUTES = 64, CONFIG_MAX_BROKERS = 8, CONFIG_MAX_TOPICS = ROUTE_MAX_MESSAGES };

/* Where to listen: a numeric address and port, or a Unix socket's path. */
struct listen_address {
    bool is_unix;
    char host[64];  /* "0.0.0.0", "::" (no brackets); empty for a Unix socket */
    uint16_t port;  /* 0: any free one, which the log names */
    char path[108]; /* of the Unix socket, NUL-terminated */
};

/* A secret's bytes; wiped by config_free. size 0: none. */
struct secret {
    char *data;
    size_t size;
};

struct app_config {
    char *id; /* empty: any appId */
    char *path;
    struct secret secret, previous_secret; /* secret is never empty in a loaded configuration */
    char *secret_file, *previous_secret_file;
    char *public_url;
    char *public_host, *public_path; /* parts of public_url: host with its port if one stands there, path; NULL without */
    int64_t rate_limit;
};

struct broker_address {
    char *url; /* as given */
    char *host;
    uint16_t port;
    bool tls;
};

struct config {
    struct {
        struct listen_address listen;
        int64_t threads;
        char *tls_certificate_file, *tls_key_file; /* both or neither */
        int64_t max_body, timeout_ms, max_connections, max_connections_per_ip;
    } http;
    struct {
        struct listen_address listen;
        char *token_file;
        struct secret token; /* never empty off loopback */
    } admin;
    struct app_config *apps; /* at least one */
    size_t app_count;
    struct {
        struct broker_address *brokers; /* at least one */
        size_t broker_count;
        int64_t version; /* 5 or 3 */
        char *client_id, *username, *password_file;
        struct secret password;
        char *tls_ca_file, *tls_certificate_file, *tls_key_file;
        int64_t keepalive_ms, inflight, max_rate;
        char *status_topic;
    } mqtt;
    struct {
        bool enabled;
        char *path;
        int64_t retention_ms, max_size;
    } journal;
    struct route *routes; /* as given; 0: the default route */
    size_t route_count;
    struct {
        enum log_level level;
        enum log_format format;
    } log;
};

/* One mistake of the user's, ready to print: "FILE:LINE:COL: key: what is wrong, what was expected". For the environment and
 * for what concerns no place in the file, the place is the variable's name or the file's. */
struct config_errors {
    struct buf text; /* one a line, in the order of the file */
    size_t count;
};

/* Loads the configuration. path NULL: no file. Environment as getenv gives it. Returns ERR_CONFIG with every error at once in
 * *errors, or ERR_MEMORY. errors is initialised here; the caller frees it with config_errors_free in either case.
 * Warnings that do not stop the start (a secret file that others can read) go to *warnings, one a line. */
MUST_CHECK enum err config_load(struct config **out, const char *path, struct config_errors *errors,
                                struct config_errors *warnings);
/* The same, and certificates, keys and CAs are tried: those who know TLS are above this level. Each returns ERR_CONFIG with a
 * sentence that names the file at fault; http is called with two files, mqtt with what is set, else "". */
struct config_trials {
    enum err (*http)(const char *certificate_file, const char *key_file, struct error *why);
    enum err (*mqtt)(const char *ca_file, const char *certificate_file, const char *key_file, struct error *why);
};
MUST_CHECK enum err config_load_and_try(struct config **out, const char *path, const struct config_trials *trials,
                                        struct config_errors *errors, struct config_errors *warnings);
/* The same for a command that only looks at the journal or asks the running bridge, and that its user may run without access
 * to the secrets: they need not be there, and those of apps are not read. What can be read of the others is (admin.token). */
MUST_CHECK enum err config_load_to_look(struct config **out, const char *path, struct config_errors *errors);
void config_errors_free(struct config_errors *errors);
void config_free(struct config **config); /* wipes secrets; accepts NULL */

/* The configuration as understood, as JSON that config_load would take again but for the masked secrets ("***"). */
void config_print(const struct config *config, struct buf *out);

/* Names, comma-separated, of the options that differ and that a reload cannot change (all but apps, secrets, routes,
 * certificates, log level); empty if none. */
void config_fixed_changes(const struct config *running, const struct config *loaded, struct buf *out);

/* True if the option can be reached from this host alone (loopback address or Unix socket). */
bool listen_is_local(const struct listen_address *address);

/* Parsers of single values, for the options of the commands too. ERR_INVALID with what was expected. */
MUST_CHECK enum err config_parse_listen(struct slice text, struct listen_address *out, struct error *why);
MUST_CHECK enum err config_parse_size(struct slice text, int64_t *bytes, struct error *why); /* "1MiB" */
MUST_CHECK enum err config_parse_span(struct slice text, int64_t *ms, struct error *why);    /* "15s", "7d" */
/* Reads a secret file: up to its first newline (CR LF too), at most 4 KiB, not empty. */
MUST_CHECK enum err config_read_secret(const char *path, struct secret *out, struct error *why);
void secret_free(struct secret *secret);

#endif
