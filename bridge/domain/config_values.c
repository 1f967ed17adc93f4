#include "config_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_SECRET 4096
#define MAX_HOST 253 /* RFC 1035, 2.3.4, without the root's dot */

struct unit {
    const char *name;
    int64_t factor;
};
static const struct unit size_units[] = {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}};
static const struct unit span_units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
#define SIZE_UNITS size_units, sizeof size_units / sizeof size_units[0]
#define SPAN_UNITS span_units, sizeof span_units / sizeof span_units[0]

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool parse_quantity(struct slice text, const struct unit *units, size_t count, int64_t *value)
{
    size_t digits = 0;
    while (digits < text.size && is_digit(text.data[digits])) {
        digits++;
    }
    uint64_t number;
    if (!slice_to_u64((struct slice){text.data, digits}, &number)) {
        return false;
    }
    struct slice unit = {text.data + digits, text.size - digits};
    for (size_t i = 0; i < count; i++) {
        if (slice_equal(unit, slice_of(units[i].name))) {
            return !__builtin_mul_overflow(number, units[i].factor, value);
        }
    }
    return false;
}

enum err config_parse_size(struct slice text, int64_t *bytes, struct error *why)
{
    int64_t value;
    if (!parse_quantity(text, SIZE_UNITS, &value)) {
        return error_set(why, ERR_INVALID, "expected a size such as 64KiB or 1MiB");
    }
    *bytes = value;
    return ERR_NONE;
}

enum err config_parse_span(struct slice text, int64_t *ms, struct error *why)
{
    int64_t value;
    if (!parse_quantity(text, SPAN_UNITS, &value)) {
        return error_set(why, ERR_INVALID, "expected a time such as 500ms, 15s or 7d");
    }
    *ms = value;
    return ERR_NONE;
}

/* Zero takes the unit that comes first to mind. */
static void append_quantity(struct buf *out, int64_t value, const struct unit *units, const char *zero)
{
    if (value == 0) {
        buf_append_text(out, zero);
        return;
    }
    while (value % units->factor != 0) {
        units++;
    }
    buf_appendf(out, "%lld%s", (long long)(value / units->factor), units->name);
}

void config_append_size(struct buf *out, int64_t bytes)
{
    append_quantity(out, bytes, size_units, "0B");
}

void config_append_span(struct buf *out, int64_t ms)
{
    append_quantity(out, ms, span_units, "0s");
}

static bool parse_port(struct slice text, uint16_t *port)
{
    uint64_t number;
    if (text.size > 5 || !slice_to_u64(text, &number) || number > UINT16_MAX) {
        return false;
    }
    *port = (uint16_t)number;
    return true;
}

/* HOST, HOST:PORT, [IPv6], [IPv6]:PORT. The host comes without its brackets; port is empty where none is given. */
struct authority {
    struct slice host, port;
    bool bracketed, has_port;
};

static bool split_authority(struct slice text, struct authority *out)
{
    *out = (struct authority){0};
    const char *end = text.data + text.size;
    const char *after = text.data; /* where ":PORT" may begin */
    if (text.size > 0 && text.data[0] == '[') {
        const char *close = memchr(text.data, ']', text.size);
        if (!close) {
            return false;
        }
        out->bracketed = true;
        out->host = (struct slice){text.data + 1, (size_t)(close - text.data - 1)};
        after = close + 1;
    } else if (text.size > 0) {
        const char *colon = memchr(text.data, ':', text.size);
        after = colon ? colon : end;
        out->host = (struct slice){text.data, (size_t)(after - text.data)};
    }
    out->has_port = after < end && *after == ':';
    if (out->has_port) {
        out->port = (struct slice){after + 1, (size_t)(end - after - 1)};
    }
    return out->has_port || after == end;
}

static bool is_numeric(struct slice host, bool v6)
{
    char text[INET6_ADDRSTRLEN];
    unsigned char address[16];
    if (host.size >= sizeof text) {
        return false;
    }
    memcpy(text, host.data ? host.data : "", host.size);
    text[host.size] = 0;
    return inet_pton(v6 ? AF_INET6 : AF_INET, text, address) == 1;
}

/* Names as they are in use, underscores too; whether one exists is the resolver's to say. */
static bool is_host_name(struct slice host)
{
    for (size_t i = 0; i < host.size; i++) {
        char c = host.data[i], lower = (char)(c | 0x20);
        if (!is_digit(c) && !(lower >= 'a' && lower <= 'z') && c != '.' && c != '_' && (c != '-' || i == 0)) {
            return false;
        }
    }
    return host.size > 0 && host.size <= MAX_HOST && host.data[0] != '.';
}

static bool is_host(const struct authority *authority)
{
    return authority->bracketed ? is_numeric(authority->host, true) : is_host_name(authority->host);
}

static enum err parse_unix(struct slice path, struct listen_address *out, struct error *why)
{
    if (path.size == 0 || path.size >= sizeof out->path || memchr(path.data, 0, path.size)) {
        return error_set(why, ERR_INVALID, "expected a socket's path of 1 to %zu bytes behind unix:", sizeof out->path - 1);
    }
    *out = (struct listen_address){.is_unix = true};
    memcpy(out->path, path.data, path.size);
    return ERR_NONE;
}

enum err config_parse_listen(struct slice text, struct listen_address *out, struct error *why)
{
    struct slice unix_prefix = SLICE("unix:");
    if (slice_starts(text, unix_prefix)) {
        return parse_unix((struct slice){text.data + unix_prefix.size, text.size - unix_prefix.size}, out, why);
    }
    struct authority authority;
    struct listen_address address = {0};
    if (!split_authority(text, &authority) || authority.host.size == 0 || !is_numeric(authority.host, authority.bracketed) ||
        !parse_port(authority.port, &address.port)) {
        return error_set(why, ERR_INVALID,
                         "expected a numeric address and a port such as 127.0.0.1:8080 or [::1]:8080, or "
                         "unix:/run/meowbridge/http.sock");
    }
    memcpy(address.host, authority.host.data, authority.host.size);
    *out = address;
    return ERR_NONE;
}

void config_append_listen(struct buf *out, const struct listen_address *address)
{
    if (address->is_unix) {
        buf_appendf(out, "unix:%s", address->path);
    } else {
        buf_appendf(out, strchr(address->host, ':') ? "[%s]:%u" : "%s:%u", address->host, address->port);
    }
}

bool listen_is_local(const struct listen_address *address)
{
    if (address->is_unix) {
        return true;
    }
    struct in_addr v4;
    if (inet_pton(AF_INET, address->host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    struct in6_addr v6;
    return inet_pton(AF_INET6, address->host, &v6) == 1 &&
           (IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127));
}

#define BROKER_EXPECTED "expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], an IPv6 address in brackets"

static enum err parse_broker_parts(struct slice url, struct authority *authority, struct broker_address *out, struct error *why)
{
    struct slice plain = SLICE("mqtt://"), tls = SLICE("mqtts://");
    out->tls = slice_starts(url, tls);
    if (!out->tls && !slice_starts(url, plain)) {
        return error_set(why, ERR_INVALID, BROKER_EXPECTED);
    }
    size_t scheme = out->tls ? tls.size : plain.size;
    struct slice rest = {url.data + scheme, url.size - scheme};
    if (memchr(rest.data, '@', rest.size)) {
        return error_set(why, ERR_INVALID,
                         "expected no user name or password in the URL: set mqtt.username and mqtt.password_file");
    }
    if (memchr(rest.data, '/', rest.size) || memchr(rest.data, '?', rest.size) || memchr(rest.data, '#', rest.size)) {
        return error_set(why, ERR_INVALID, "expected nothing behind the host and port: MQTT's URLs have no path");
    }
    out->port = out->tls ? 8883 : 1883;
    if (!split_authority(rest, authority) || !is_host(authority) ||
        (authority->has_port && (!parse_port(authority->port, &out->port) || out->port == 0))) {
        return error_set(why, ERR_INVALID, BROKER_EXPECTED);
    }
    return ERR_NONE;
}

enum err config_parse_broker(struct slice url, struct broker_address *out, struct error *why)
{
    struct authority authority;
    struct broker_address broker = {0};
    enum err err = parse_broker_parts(url, &authority, &broker, why);
    if (err) {
        return err;
    }
    broker.url = slice_dup(url);
    broker.host = slice_dup(authority.host);
    if (!broker.url || !broker.host) {
        broker_address_free(&broker);
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    *out = broker;
    return ERR_NONE;
}

void broker_address_free(struct broker_address *broker)
{
    free(broker->url);
    free(broker->host);
    *broker = (struct broker_address){0};
}

/* What a request line can hold as it is: visible ASCII. */
static bool is_path(struct slice path)
{
    for (size_t i = 0; i < path.size; i++) {
        if (path.data[i] <= ' ' || path.data[i] > '~' || path.data[i] == '?' || path.data[i] == '#') {
            return false;
        }
    }
    return path.size > 0 && path.data[0] == '/';
}

enum err config_check_path(struct slice path, struct error *why)
{
    if (!is_path(path)) {
        return error_set(why, ERR_INVALID,
                         "expected a path such as /webhook as it stands in the request line: visible ASCII without ? and #");
    }
    return ERR_NONE;
}

enum err config_split_public_url(struct slice url, struct slice *host, struct slice *path, struct error *why)
{
    struct slice plain = SLICE("http://"), tls = SLICE("https://");
    size_t scheme = slice_starts(url, tls) ? tls.size : slice_starts(url, plain) ? plain.size : 0;
    struct slice rest = {url.data + scheme, url.size - scheme};
    size_t host_size = 0;
    while (host_size < rest.size && !strchr("/?#", rest.data[host_size])) {
        host_size++;
    }
    *host = (struct slice){rest.data, host_size};
    rest = (struct slice){rest.data + host_size, rest.size - host_size};
    const char *query = rest.size ? memchr(rest.data, '?', rest.size) : NULL;
    *path = query ? (struct slice){rest.data, (size_t)(query - rest.data)} : rest;
    *path = path->size ? *path : SLICE("/");
    struct authority authority;
    uint16_t port;
    if (scheme == 0 || !split_authority(*host, &authority) || !is_host(&authority) || !is_path(*path) ||
        (authority.has_port && !parse_port(authority.port, &port))) {
        return error_set(why, ERR_INVALID,
                         "expected the URL registered with MeowFlow, such as https://hooks.example.com/webhook");
    }
    return ERR_NONE;
}

enum err config_check_public_url(struct slice url, struct error *why)
{
    struct slice host, path;
    return config_split_public_url(url, &host, &path, why);
}

enum err config_check_text(struct slice text, struct error *why)
{
    while (text.size > 0) {
        uint32_t code_point;
        size_t length = utf8_decode(text, &code_point);
        if (length == 0) {
            return error_set(why, ERR_INVALID, "expected valid UTF-8");
        }
        if (code_point == 0) {
            return error_set(why, ERR_INVALID, "expected no NUL character (\\u0000)");
        }
        if (code_point >= 0xd800 && code_point <= 0xdfff) {
            return error_set(why, ERR_INVALID, "expected no unpaired surrogate (\\ud800 to \\udfff)");
        }
        text = (struct slice){text.data + length, text.size - length};
    }
    return ERR_NONE;
}

enum err config_check_mqtt_text(struct slice text, struct error *why)
{
    if (text.size > UINT16_MAX) {
        return error_set(why, ERR_INVALID, "expected at most %d bytes", UINT16_MAX);
    }
    while (text.size > 0) {
        uint32_t code_point;
        size_t length = utf8_decode(text, &code_point);
        if (length == 0 || utf8_is_forbidden_in_mqtt(code_point)) {
            return error_set(why, ERR_INVALID, "expected no control character and no non-character, which MQTT forbids");
        }
        text = (struct slice){text.data + length, text.size - length};
    }
    return ERR_NONE;
}

int config_open_file(const char *path, mode_t *mode, struct error *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat status = {0};
    if (fd < 0 || fstat(fd, &status) < 0) {
        error_set(why, ERR_INVALID, "cannot be read: %s", strerror(errno));
    } else if (S_ISDIR(status.st_mode)) {
        error_set(why, ERR_INVALID, "cannot be read: it is a directory");
    } else {
        *mode = status.st_mode & 07777;
        return fd;
    }
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

static ssize_t read_up_to(int fd, char *data, size_t size)
{
    size_t used = 0;
    while (used < size) {
        ssize_t got = read(fd, data + used, size - used);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        used += (size_t)got;
    }
    return (ssize_t)used;
}

/* What would make a secret wrong in a way that nobody sees is refused here: a byte order mark, and the NULs of UTF-16. */
static enum err take_secret(struct slice content, struct secret *out, struct error *why)
{
    const char *newline = content.size ? memchr(content.data, '\n', content.size) : NULL;
    if (newline) {
        content.size = (size_t)(newline - content.data);
        content.size -= content.size > 0 && content.data[content.size - 1] == '\r';
    }
    if (content.size == 0) {
        return error_set(why, ERR_INVALID, "holds no secret: its first line is empty");
    }
    if (content.size > MAX_SECRET) {
        return error_set(why, ERR_INVALID, "holds a first line of more than %d bytes, which is no secret", MAX_SECRET);
    }
    if (memchr(content.data, 0, content.size) || slice_starts(content, SLICE("\xef\xbb\xbf")) ||
        slice_starts(content, SLICE("\xff\xfe"))) {
        return error_set(why, ERR_INVALID, "holds a NUL byte or a byte order mark, expected plain text");
    }
    struct secret secret = {slice_dup(content), content.size};
    if (!secret.data) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    secret_free(out);
    *out = secret;
    return ERR_NONE;
}

enum err config_read_secret_file(const char *path, struct secret *out, mode_t *mode, struct error *why)
{
    int fd = config_open_file(path, mode, why);
    if (fd < 0) {
        return ERR_INVALID;
    }
    char content[MAX_SECRET + 2]; /* with CR LF */
    ssize_t size = read_up_to(fd, content, sizeof content);
    int error = errno;
    close(fd);
    enum err err = size < 0 ? error_set(why, ERR_INVALID, "cannot be read: %s", strerror(error))
                            : take_secret((struct slice){content, (size_t)size}, out, why);
    explicit_bzero(content, sizeof content);
    return err;
}

enum err config_read_secret(const char *path, struct secret *out, struct error *why)
{
    *out = (struct secret){0};
    mode_t mode;
    struct error detail = {0};
    enum err err = config_read_secret_file(path, out, &mode, &detail);
    return err ? error_set(why, err, "%s: %s", path, detail.text) : ERR_NONE;
}

void secret_free(struct secret *secret)
{
    if (secret->data) {
        explicit_bzero(secret->data, secret->size);
    }
    free(secret->data);
    *secret = (struct secret){0};
}
