/* What the sender may have signed in place of what was captured, for all parts but the body. */
#include "explain_internal.h"

#include "meowbridge/signature.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_BYTES = 256 * 1024, MAX_SEGMENTS = 8 };

static const char set_public_url[] =
    "MeowFlow signs host and path as they were registered with it. Set the app's public_url to the registered URL, or let the "
    "proxy pass the Host header on unchanged (nginx: proxy_set_header Host $http_host;).";
static const char set_public_path[] =
    "MeowFlow signs the path as it was registered with it. Set the app's public_url to the registered URL, or let the proxy "
    "pass the path on unchanged (nginx: proxy_pass without a path).";
static const char fix_sender[] = "MeowFlow signs otherwise: whoever made this signature deviates from its guide.";

static void put(struct choices *c, struct slice text, const char *what, const char *advice)
{
    for (size_t i = 0; i < c->count; i++) {
        if (slice_equal(c->items[i].text, text)) {
            return;
        }
    }
    if (c->count < EXPLAIN_CHOICES) {
        c->items[c->count++] = (struct choice){what, advice, text};
    }
}

/* What was written to the arena behind start. */
static void put_made(struct choices *c, size_t start, const char *what, const char *advice)
{
    if (!c->arena.failed) {
        put(c, (struct slice){c->arena.data + start, c->arena.size - start}, what, advice);
    }
}

static void put_joined(struct choices *c, struct slice a, struct slice b, const char *what, const char *advice)
{
    size_t start = c->arena.size;
    buf_append(&c->arena, a);
    buf_append(&c->arena, b);
    put_made(c, start, what, advice);
}

static void put_lower(struct choices *c, struct slice text, const char *what, const char *advice)
{
    size_t start = c->arena.size;
    for (size_t i = 0; i < text.size; i++) {
        buf_append_char(&c->arena, (char)tolower((unsigned char)text.data[i]));
    }
    put_made(c, start, what, advice);
}

static struct slice drop(struct slice s, size_t n)
{
    return (struct slice){s.data + n, s.size - n};
}

static bool ends_with(struct slice s, char c)
{
    return s.size > 0 && s.data[s.size - 1] == c;
}

/* --- other hosts and paths that the user names --- */

static struct slice after_scheme(struct slice url)
{
    const char *found = memmem(url.data ? url.data : "", url.size, "://", 3);
    return found ? drop(url, (size_t)(found - url.data) + 3) : (struct slice){0};
}

static struct slice host_of(struct slice other)
{
    struct slice rest = after_scheme(other);
    rest = rest.data ? rest : other;
    const char *slash = rest.size > 0 ? memchr(rest.data, '/', rest.size) : NULL;
    return slash ? (struct slice){rest.data, (size_t)(slash - rest.data)} : rest;
}

static struct slice path_of(struct slice other)
{
    struct slice rest = after_scheme(other);
    rest = rest.data ? rest : other;
    const char *slash = rest.size > 0 ? memchr(rest.data, '/', rest.size) : NULL;
    struct slice path = slash ? drop(rest, (size_t)(slash - rest.data)) : (struct slice){0};
    const char *query = path.size > 0 ? memchr(path.data, '?', path.size) : NULL;
    return query ? (struct slice){path.data, (size_t)(query - path.data)} : path;
}

/* --- host --- */

static struct slice without_port(struct slice host)
{
    const char *bracket = host.size > 0 ? memrchr(host.data, ']', host.size) : NULL;
    const char *colon = host.size > 0 ? memrchr(host.data, ':', host.size) : NULL;
    bool is_port = colon && (bracket ? colon > bracket : memchr(host.data, ':', host.size) == colon);
    return is_port ? (struct slice){host.data, (size_t)(colon - host.data)} : host;
}

static void put_ports(struct choices *c, struct slice name)
{
    static const char *const ports[] = {":443", ":80", ":8080", ":8443", ":8000", ":8888", ":3000", ":5000", ":9090"};
    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
        put_joined(c, name, slice_of(ports[i]),
                   i < 2 ? "the host with a default port, which MeowFlow leaves out" : "the host with another port",
                   i < 2 ? fix_sender : set_public_url);
    }
}

static void put_www(struct choices *c, struct slice host)
{
    if (slice_starts(host, SLICE("www."))) {
        put(c, drop(host, 4), "the host without www.", set_public_url);
    } else {
        put_joined(c, SLICE("www."), host, "the host with www.", set_public_url);
    }
}

static void put_hosts(struct choices *c, const struct explain_request *r)
{
    struct slice domain = signature_domain(r->host), name = without_port(r->host);
    put(c, domain, NULL, NULL);
    for (size_t i = 0; i < r->other_count; i++) {
        if (host_of(r->others[i]).size > 0) {
            put(c, signature_domain(host_of(r->others[i])), "another of the hosts given", set_public_url);
        }
    }
    put(c, name, "the host without its port", set_public_url);
    put(c, r->host, "the host with its default port, which MeowFlow leaves out", fix_sender);
    put_lower(c, domain, "the host in lower case", set_public_url);
    put_lower(c, name, "the host in lower case without its port", set_public_url);
    put_ports(c, name);
    put_www(c, domain);
    put_www(c, name);
    if (ends_with(name, '.')) {
        put(c, (struct slice){name.data, name.size - 1}, "the host without the dot at its end", set_public_url);
    } else {
        put_joined(c, name, SLICE("."), "the host with a dot at its end", set_public_url);
    }
    put_joined(c, SLICE("https://"), domain, "the host behind https://", fix_sender);
    put_joined(c, SLICE("http://"), domain, "the host behind http://", fix_sender);
    static const char *const local[] = {"localhost", "127.0.0.1", "localhost:8080", "127.0.0.1:8080", "[::1]:8080"};
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++) {
        put(c, slice_of(local[i]), "the host by which a proxy on this machine reaches the bridge", set_public_url);
    }
    put(c, (struct slice){0}, "no host at all", fix_sender);
}

/* --- path --- */

static int hex_digit(char c)
{
    c = (char)tolower((unsigned char)c);
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_escape(struct slice s, size_t at)
{
    return at + 2 < s.size && s.data[at] == '%' && hex_digit(s.data[at + 1]) >= 0 && hex_digit(s.data[at + 2]) >= 0;
}

static void put_decoded(struct choices *c, struct slice path)
{
    size_t start = c->arena.size;
    for (size_t i = 0; i < path.size; i++) {
        if (is_escape(path, i)) {
            buf_append_char(&c->arena, (char)(hex_digit(path.data[i + 1]) * 16 + hex_digit(path.data[i + 2])));
            i += 2;
        } else {
            buf_append_char(&c->arena, path.data[i]);
        }
    }
    put_made(c, start, "the path percent-decoded", set_public_path);
}

static void put_encoded(struct choices *c, struct slice path)
{
    size_t start = c->arena.size;
    for (size_t i = 0; i < path.size; i++) {
        unsigned char byte = (unsigned char)path.data[i];
        if (byte <= ' ' || byte >= 0x7f || strchr("\"<>[]^`{|}", byte)) {
            buf_appendf(&c->arena, "%%%02X", (unsigned)byte);
        } else {
            buf_append_char(&c->arena, path.data[i]);
        }
    }
    put_made(c, start, "the path percent-encoded", set_public_path);
}

/* convert: tolower or toupper, for the digits of percent-encodings. */
static void put_hex_case(struct choices *c, struct slice path, int (*convert)(int), const char *what)
{
    size_t start = c->arena.size;
    for (size_t i = 0; i < path.size; i++) {
        bool of_escape = (i >= 1 && is_escape(path, i - 1)) || (i >= 2 && is_escape(path, i - 2));
        buf_append_char(&c->arena, of_escape ? (char)convert((unsigned char)path.data[i]) : path.data[i]);
    }
    put_made(c, start, what, set_public_path);
}

static void put_single_slashes(struct choices *c, struct slice path)
{
    size_t start = c->arena.size;
    for (size_t i = 0; i < path.size; i++) {
        if (i == 0 || path.data[i] != '/' || path.data[i - 1] != '/') {
            buf_append_char(&c->arena, path.data[i]);
        }
    }
    put_made(c, start, "the path with single slashes", set_public_path);
}

static void put_slash(struct choices *c, struct slice path)
{
    if (ends_with(path, '/')) {
        put(c, (struct slice){path.data, path.size - 1}, "the path without the slash at its end", set_public_path);
    } else {
        put_joined(c, path, SLICE("/"), "the path with a slash at its end", set_public_path);
    }
}

/* "/a/b/c" to "/b/c", "/c", "/"; and "/a/b", "/a". */
static void put_parts_of_path(struct choices *c, struct slice path)
{
    struct slice rest = path;
    for (int i = 0; i < MAX_SEGMENTS && rest.size > 1; i++) {
        const char *slash = memchr(rest.data + 1, '/', rest.size - 1);
        rest = slash ? drop(rest, (size_t)(slash - rest.data)) : SLICE("/");
        put(c, rest, "the path without its first part", set_public_path);
        put_slash(c, rest);
    }
    rest = path;
    for (int i = 0; i < MAX_SEGMENTS && rest.size > 1; i++) {
        const char *slash = memrchr(rest.data, '/', rest.size);
        rest.size = slash ? (size_t)(slash - rest.data) : 0;
        put(c, rest, "the path without its last part", set_public_path);
    }
}

static void put_prefixes(struct choices *c, struct slice path)
{
    static const char *const prefixes[] = {"/api",   "/webhook",  "/webhooks",   "/hook",
                                           "/hooks", "/meowflow", "/meowbridge", "/callback"};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        put_joined(c, slice_of(prefixes[i]), path, "the path behind a prefix that a proxy takes off", set_public_path);
    }
}

static void put_paths(struct choices *c, const struct explain_request *r)
{
    const char *mark = r->target.size > 0 ? memchr(r->target.data, '?', r->target.size) : NULL;
    struct slice path = mark ? (struct slice){r->target.data, (size_t)(mark - r->target.data)} : r->target;
    put(c, path, NULL, NULL);
    for (size_t i = 0; i < r->other_count; i++) {
        if (path_of(r->others[i]).size > 0) {
            put(c, path_of(r->others[i]), "another of the paths given", set_public_path);
        }
    }
    put_slash(c, path);
    put(c, r->target, "the path with its query", fix_sender);
    put_decoded(c, path);
    put_encoded(c, path);
    put_hex_case(c, path, toupper, "the path with percent-encodings in upper case");
    put_hex_case(c, path, tolower, "the path with percent-encodings in lower case");
    put_single_slashes(c, path);
    put_lower(c, path, "the path in lower case", set_public_path);
    put_parts_of_path(c, path);
    put(c, SLICE("/webhook"), "the path /webhook", set_public_path);
    put_prefixes(c, path);
    put(c, SLICE("/"), "the path /", set_public_path);
    put(c, (struct slice){0}, "no path at all", fix_sender);
}

/* --- method, timestamp, secret --- */

static void put_methods(struct choices *c, const struct explain_request *r)
{
    static const char *const methods[] = {"POST", "PUT", "PATCH", "GET", "DELETE", "post", ""};
    put(c, r->method, NULL, NULL);
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        put(c, slice_of(methods[i]), *methods[i] ? "another method" : "no method at all",
            "MeowFlow pushes webhooks with POST. Something on the way may have changed the method, as a redirect does; "
            "register the URL that is redirected to.");
    }
}

struct slice explain_trim(struct slice s)
{
    while (s.size > 0 && isspace((unsigned char)s.data[0])) {
        s = drop(s, 1);
    }
    while (s.size > 0 && isspace((unsigned char)s.data[s.size - 1])) {
        s.size--;
    }
    return s;
}

static void put_timestamps(struct choices *c, const struct explain_request *r)
{
    static const char whole[] =
        "The timestamp is Unix time in milliseconds, 13 digits, and the header must hold exactly what was signed.";
    put(c, r->timestamp, NULL, NULL);
    struct slice text = explain_trim(r->timestamp);
    put(c, text, "the timestamp without white space around it", whole);
    if (text.size == 13) {
        struct slice seconds = {text.data, 10};
        put(c, seconds, "the timestamp in seconds", whole);
        put_joined(c, seconds, SLICE("000"), "the timestamp cut to whole seconds", whole);
        put_joined(c, text, SLICE("000"), "the timestamp in microseconds", whole);
    } else if (text.size == 10) {
        put_joined(c, text, SLICE("000"), "the timestamp in milliseconds", whole);
    } else if (text.size == 16 || text.size == 19) {
        put(c, (struct slice){text.data, 13}, "the timestamp in milliseconds", whole);
        put(c, (struct slice){text.data, 10}, "the timestamp in seconds", whole);
    }
    put(c, (struct slice){0}, "no timestamp at all", whole);
}

static void put_bytes_of_hex(struct choices *c, struct slice secret, const char *advice)
{
    size_t start = c->arena.size;
    char *place = secret.size > 0 && secret.size % 2 == 0 ? buf_reserve(&c->arena, secret.size / 2) : NULL;
    if (place && hex_decode(secret, (uint8_t *)place, secret.size / 2)) {
        c->arena.size += secret.size / 2;
        put_made(c, start, "the secret as the bytes that its hex digits stand for", advice);
    }
}

static void drop_empty(struct choices *c)
{
    size_t kept = 0;
    for (size_t i = 0; i < c->count; i++) {
        if (c->items[i].text.size > 0) {
            c->items[kept++] = c->items[i];
        }
    }
    c->count = kept;
}

static void put_secrets(struct choices *c, const struct explain_request *r)
{
    static const char exact[] = "The secret is the App Secret as MeowFlow shows it, without white space or quotes around it.";
    struct slice inside = explain_trim(r->secret);
    put(c, r->secret, NULL, NULL);
    const bool at_start = inside.data != r->secret.data, at_end = inside.data + inside.size != r->secret.data + r->secret.size;
    put(c, inside,
        at_start && at_end ? "the secret without the white space at its beginning and its end"
        : at_start         ? "the secret without the white space at its beginning"
                           : "the secret without the white space at its end",
        exact);
    put_joined(c, inside, SLICE("\n"), "the secret with a newline at its end", exact);
    put_joined(c, inside, SLICE("\r"), "the secret with a carriage return at its end", exact);
    put_joined(c, inside, SLICE("\r\n"), "the secret with CR LF at its end", exact);
    if (inside.size > 2 && strchr("\"'", inside.data[0]) && ends_with(inside, inside.data[0])) {
        put(c, (struct slice){inside.data + 1, inside.size - 2}, "the secret without the quotes around it", exact);
    }
    put_lower(c, inside, "the secret in lower case", exact);
    put_bytes_of_hex(c, inside, exact);
    for (size_t i = 0; i < r->other_secret_count && i < EXPLAIN_MAX_SECRETS; i++) {
        put(c, r->other_secrets[i].secret, r->other_secrets[i].name, r->other_secrets[i].advice);
    }
    drop_empty(c); /* an empty key must never verify anything */
}

bool choices_open(struct choices *c, enum explain_part part, const struct explain_request *request)
{
    static void (*const fill[EXPLAIN_PARTS])(struct choices *, const struct explain_request *) = {
        [EXPLAIN_TIMESTAMP] = put_timestamps, [EXPLAIN_HOST] = put_hosts,     [EXPLAIN_PATH] = put_paths,
        [EXPLAIN_METHOD] = put_methods,       [EXPLAIN_SECRET] = put_secrets,
    };
    *c = (struct choices){0};
    buf_init(&c->arena, ARENA_BYTES);
    if (!buf_reserve(&c->arena, ARENA_BYTES)) {
        return false;
    }
    fill[part](c, request);
    return true;
}

void choices_close(struct choices *c)
{
    if (c->arena.data) {
        signature_wipe(c->arena.data, c->arena.capacity);
    }
    buf_free(&c->arena);
}
