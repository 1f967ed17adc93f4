/* config_internal: what the files of the configuration share; nobody else includes it.
 *
 *   config_values   texts that stand for something: addresses, sizes, times, URLs, secret files
 *   config_options  the tables of options, and reading and writing one option's field by its table entry
 *   config_report   what is wrong, with its place
 *   config_file     the file: comments, JSON, variables, objects walked by a table
 *   config_rules    what only the whole can tell: files, secrets, rules that join options
 *   config          the sources one over the other: config_load
 *   config_print    the configuration as JSON; what a reload cannot change */
#ifndef MEOWBRIDGE_CONFIG_INTERNAL_H
#define MEOWBRIDGE_CONFIG_INTERNAL_H

#include "meowbridge/config.h"

#include <sys/types.h>

/* --- options --- */

enum option_type {
    OPTION_STRING,
    OPTION_FILE,        /* a path; a file that can be read, once loaded */
    OPTION_SECRET_FILE, /* a path; what it holds goes to secret_offset */
    OPTION_SECRET,      /* the secret itself */
    OPTION_LISTEN,
    OPTION_SIZE,
    OPTION_SPAN,
    OPTION_INTEGER,
    OPTION_CHOICE, /* an integer among names */
    OPTION_BOOLEAN,
    OPTION_ENUM, /* a string among names, kept as its index */
    OPTION_URLS,
    OPTION_TOPICS,
    OPTION_APPS,
    OPTION_ROUTES
};

enum option_flag {
    OPTION_RELOAD = 1,    /* a reload can change it */
    OPTION_NOT_EMPTY = 2, /* "" is no value */
    OPTION_ZERO = 4,      /* 0 is allowed beside min to max */
    OPTION_SECONDS = 8,   /* a time in whole seconds */
    OPTION_PRIVATE = 16   /* a file that others should not be able to read */
};

/* One option: everything that is known of it stands here and nowhere else. */
struct option {
    const char *path; /* "http.tls.key_file"; in an app or a route just "id" */
    enum option_type type;
    const char *fallback; /* the default, in the text form that an environment variable would have */
    size_t offset, width; /* of its field in struct config, app_config or route */
    int64_t min, max;
    const char *const *names;                                /* OPTION_CHOICE, OPTION_ENUM: NULL-terminated */
    enum err (*check)(struct slice text, struct error *why); /* of a string that is not empty; may be NULL */
    size_t secret_offset;
    const char *variable; /* the environment variable where it is not MEOWBRIDGE_ and the path */
    unsigned flags;
};

struct option_table {
    const struct option *options; /* in contract.md's order */
    size_t count;
};
extern const struct option_table config_options, app_options, route_options; /* of the three structs */

#define OPTION_MAX_COUNT 40
#define OPTION_VARIABLE_SIZE 64

/* Each takes the struct that the option's table describes as base. */
MUST_CHECK bool options_set_defaults(const struct option_table *table, void *base); /* false: no memory */
void options_free(const struct option_table *table, void *base);                    /* the fields, secrets wiped */
/* The index of the option with this path, which must be in the table. */
size_t options_index(const struct option_table *table, const char *path);
/* Where a key leads: the first option at or below path (table->count if none), and what is there. */
struct option_match {
    size_t index;
    bool is_option, is_section;
};
struct option_match options_match(const struct option_table *table, struct slice path);
/* The known path that the user may have meant, or an empty slice. */
struct slice options_nearest(const struct option_table *table, struct slice path);
/* The environment variable that a user of this unknown one may have meant: false if none is near. */
bool options_nearest_variable(const char *unknown, char name[OPTION_VARIABLE_SIZE]);

/* False if no environment variable sets this option. */
bool option_variable(const struct option *option, char name[OPTION_VARIABLE_SIZE]);
char **option_string(const struct option *option, void *base); /* the field of a string or a path */
/* Puts text into the field in place of what was there. ERR_INVALID: why says what was expected, beginning with "expected", or
 * in a sentence of its own what is wrong; the field is as before. A list of URLs is separated by commas. */
MUST_CHECK enum err option_set(const struct option *option, void *base, struct slice text, struct error *why);
void option_clear_list(const struct option *option, void *base);
MUST_CHECK enum err option_add(const struct option *option, void *base, struct slice text, struct error *why);
/* "expected …" for a value of another type. Returns ERR_INVALID. */
enum err option_expected(const struct option *option, struct error *why);
/* The value as option_set takes it; "***" for a secret. */
void option_append_text(const struct option *option, const void *base, struct buf *out);

/* --- values --- */

/* The largest unit that divides evenly, so that it reads back as the same number. */
void config_append_size(struct buf *out, int64_t bytes);
void config_append_span(struct buf *out, int64_t ms);
void config_append_listen(struct buf *out, const struct listen_address *address);

/* The texts never quote the URL, which may hold a password. */
MUST_CHECK enum err config_parse_broker(struct slice url, struct broker_address *out, struct error *why);
void broker_address_free(struct broker_address *broker);
MUST_CHECK enum err config_split_public_url(struct slice url, struct slice *host, struct slice *path, struct error *why);
MUST_CHECK enum err config_check_public_url(struct slice url, struct error *why);
MUST_CHECK enum err config_check_path(struct slice path, struct error *why);      /* of an app */
MUST_CHECK enum err config_check_mqtt_text(struct slice text, struct error *why); /* client id, user name */
/* UTF-8 without NUL and without surrogates. */
MUST_CHECK enum err config_check_text(struct slice text, struct error *why);
/* As config_read_secret, but the text does not name the path. *mode: the file's permissions. */
MUST_CHECK enum err config_read_secret_file(const char *path, struct secret *out, mode_t *mode, struct error *why);
/* Opens for reading; a directory is refused. Returns -1 with the reason in why, which does not name the path. */
int config_open_file(const char *path, mode_t *mode, struct error *why);

/* --- loading --- */

enum {
    CONFIG_MAX_FILE = 1 << 20,
    CONFIG_MAX_EXPANDED = 128 << 10, /* of one string with its variables filled in */
    CONFIG_MAX_PROBLEMS = 100        /* that are told one by one */
};

struct origin {
    enum { FROM_DEFAULT, FROM_FILE, FROM_ENVIRONMENT } from;
    struct slice written; /* FROM_FILE: the JSON value, a slice of blanked; FROM_ENVIRONMENT: the variable's value */
    size_t element;       /* 1 …: of a list */
    bool expanded;        /* variables were filled in */
    bool failed;          /* the value was not taken: whatever depends on it is not judged */
};

/* One object that a table describes: the configuration, an app, or a route. */
struct scope {
    const struct option_table *table;
    void *base;
    char prefix[32];      /* "", "apps[3]." */
    struct origin itself; /* of the object; FROM_DEFAULT if there is none */
    struct origin origins[OPTION_MAX_COUNT];
};

struct problem {
    size_t offset, sequence;
    char *text; /* what comes behind the place */
};

struct problems {
    struct problem items[CONFIG_MAX_PROBLEMS];
    size_t count, all;
};

struct loader {
    const char *file; /* NULL: none */
    mode_t file_mode;
    char *original, *blanked; /* the file, and the same with spaces for comments */
    size_t size;
    struct buf unescaped, expanded; /* of the string at hand */
    struct config *config;
    struct scope top, apps[CONFIG_MAX_APPS], routes[CONFIG_MAX_ROUTES];
    struct problems errors, warnings;
    const struct config_trials *trials; /* NULL: none */
    bool only_looks;                    /* config_load_to_look: what concerns secrets is no mistake */
    bool no_memory;
};

/* Gives the scope its table and the struct its defaults. False: no memory. */
bool loader_open_scope(struct loader *l, struct scope *scope, const struct option_table *table, void *base);
/* Reads the file into the scopes. False: it is no JSON object, so that nothing else can be judged. */
bool loader_read_file(struct loader *l);
void loader_check_whole(struct loader *l);

/* Offsets of the file, or: */
#define PLACE_NONE SIZE_MAX       /* the text names its own place: an environment variable */
#define PLACE_FILE (SIZE_MAX - 1) /* the file, but no line */

/* How an error goes on behind `key: `. */
enum tone {
    TONE_IS,    /* is VALUE, expected … or: is VALUE: sentence */
    TONE_SHOWN, /* VALUE can not … */
    TONE_PLAIN  /* as it is */
};

void loader_note(struct loader *l, struct problems *problems, size_t offset, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
size_t loader_offset(const struct loader *l, const struct origin *origin);
void config_append_cut(struct buf *out, struct slice text); /* … and an ellipsis, if it is long */
/* Notes what is wrong with an option whose value has this origin. */
void loader_complain(struct loader *l, struct problems *problems, const struct scope *scope, const struct option *option,
                     const struct origin *origin, enum tone tone, const char *text);
/* An error, after which the option is not judged further. */
void loader_reject(struct loader *l, struct scope *scope, size_t index, enum tone tone, const char *text);
/* A value at origin (the option's, or an element's) was not taken: why says what was expected. */
void loader_refuse(struct loader *l, struct scope *scope, size_t index, const struct origin *origin, const struct error *why);
void loader_report(struct loader *l, struct problems *problems, struct config_errors *out);

#endif
