/* The URLs of http_client: RFC 3986, held to what can be put into a request line and a Host header as it stands. */
#include "meowbridge/http_client.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/un.h>

static bool is_host_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

static struct slice drop(struct slice s, size_t n)
{
    return (struct slice){s.data + n, s.size - n};
}

/* Takes the scheme off *rest. */
static enum err parse_scheme(struct slice *rest, struct http_url *out, struct error *why)
{
    static const struct {
        struct slice prefix;
        bool tls, is_unix;
        uint16_t port;
    } schemes[] = {
        {{"http://", 7}, false, false, 80}, {{"https://", 8}, true, false, 443}, {{"http+unix://", 12}, false, true, 0}};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t size = schemes[i].prefix.size;
        if (rest->size >= size && slice_equal_nocase((struct slice){rest->data, size}, schemes[i].prefix)) {
            out->tls = schemes[i].tls;
            out->is_unix = schemes[i].is_unix;
            out->port = schemes[i].port;
            *rest = drop(*rest, size);
            return ERR_NONE;
        }
    }
    return error_set(why, ERR_INVALID, "a URL begins with http://, https:// or http+unix://");
}

/* The socket's path, percent-encoded in the place of the host: http+unix://%2Frun%2Fx.sock/path */
static enum err parse_socket(struct slice text, struct http_url *out, struct error *why)
{
    const size_t max = sizeof((struct sockaddr_un *)0)->sun_path - 1;
    size_t size = 0;
    for (size_t at = 0; at < text.size; at++, size++) {
        uint8_t c = (uint8_t)text.data[at];
        if (c == '%') {
            if (text.size - at < 3 || !hex_decode((struct slice){text.data + at + 1, 2}, &c, 1)) {
                return error_set(why, ERR_INVALID, "a %% in a URL is followed by two hexadecimal digits");
            }
            at += 2;
        }
        if (c == 0 || size == max) {
            return error_set(why, ERR_INVALID, "the path of a Unix socket has 1 to %zu bytes and no NUL", max);
        }
        out->host[size] = (char)c;
    }
    strcpy(out->authority, "localhost");
    return size > 0 ? ERR_NONE
                    : error_set(why, ERR_INVALID, "the URL names no Unix socket, as http+unix://%%2Frun%%2Fx.sock/ does");
}

static enum err parse_port(struct slice text, struct http_url *out, struct error *why)
{
    uint64_t port = 0;
    if (!slice_to_u64(text, &port) || port < 1 || port > UINT16_MAX) {
        return error_set(why, ERR_INVALID, "the port in a URL is a number from 1 to 65535");
    }
    out->port = (uint16_t)port;
    return ERR_NONE;
}

/* "[::1]" or "[::1]:8080". */
static enum err parse_ipv6(struct slice text, struct http_url *out, struct error *why)
{
    const char *end = memchr(text.data, ']', text.size);
    size_t size = end ? (size_t)(end - text.data) - 1 : 0;
    struct in6_addr address;
    if (size == 0 || size >= sizeof out->host) {
        return error_set(why, ERR_INVALID, "an IPv6 address in a URL stands in brackets, as in http://[::1]:8080/");
    }
    memcpy(out->host, text.data + 1, size);
    struct slice rest = drop(text, size + 2);
    if (strlen(out->host) != size || inet_pton(AF_INET6, out->host, &address) != 1 || (rest.size > 0 && rest.data[0] != ':')) {
        return error_set(why, ERR_INVALID, "an IPv6 address in a URL stands in brackets, as in http://[::1]:8080/");
    }
    return rest.size > 0 ? parse_port(drop(rest, 1), out, why) : ERR_NONE;
}

static enum err parse_name(struct slice text, struct http_url *out, struct error *why)
{
    const char *colon = memchr(text.data, ':', text.size);
    size_t size = colon ? (size_t)(colon - text.data) : text.size;
    if (size == 0 || size >= sizeof out->host) {
        return error_set(why, ERR_INVALID, "the host in a URL has 1 to %zu characters", sizeof out->host - 1);
    }
    for (size_t i = 0; i < size; i++) {
        if (!is_host_char(text.data[i])) {
            return error_set(why, ERR_INVALID, "the host in a URL has letters, digits, '-', '.' and '_' only");
        }
    }
    memcpy(out->host, text.data, size);
    return colon ? parse_port(drop(text, size + 1), out, why) : ERR_NONE;
}

static enum err parse_authority(struct slice text, struct http_url *out, struct error *why)
{
    if (out->is_unix) {
        return parse_socket(text, out, why);
    }
    if (text.size == 0) {
        return error_set(why, ERR_INVALID, "the URL names no host");
    }
    if (memchr(text.data, '@', text.size)) {
        return error_set(why, ERR_INVALID, "a user name in a URL is not supported");
    }
    enum err err = text.data[0] == '[' ? parse_ipv6(text, out, why) : parse_name(text, out, why);
    if (!err) {
        memcpy(out->authority, text.data, text.size); /* fits: a host and at most ":65535" have passed */
    }
    return err;
}

/* Path and query: what follows the authority, without the fragment, which is never sent. */
static enum err parse_target(struct slice text, struct http_url *out, struct error *why)
{
    const char *fragment = text.size > 0 ? memchr(text.data, '#', text.size) : NULL;
    text.size = fragment ? (size_t)(fragment - text.data) : text.size;
    size_t at = text.size == 0 || text.data[0] != '/' ? 1 : 0;
    if (text.size + at >= sizeof out->target) {
        return error_set(why, ERR_INVALID, "path and query of a URL have at most %zu bytes", sizeof out->target - 1);
    }
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c <= 0x20 || c >= 0x7f) {
            return error_set(why, ERR_INVALID, "spaces, control characters and what is not ASCII are percent-encoded in a URL");
        }
    }
    out->target[0] = '/';
    if (text.size > 0) {
        memcpy(out->target + at, text.data, text.size);
    }
    return ERR_NONE;
}

enum err http_url_parse(struct slice text, struct http_url *out, struct error *why)
{
    *out = (struct http_url){0};
    enum err err = parse_scheme(&text, out, why);
    if (err) {
        return err;
    }
    size_t size = 0;
    while (size < text.size && text.data[size] != '/' && text.data[size] != '?' && text.data[size] != '#') {
        size++;
    }
    err = parse_authority((struct slice){text.data, size}, out, why);
    return err ? err : parse_target(drop(text, size), out, why);
}
