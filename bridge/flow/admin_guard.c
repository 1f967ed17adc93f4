#include "admin_internal.h"

#include <arpa/inet.h>
#include <string.h>

const char *const admin_single_headers[] = {"Host", "Authorization", "Origin", "Content-Type", "Sec-Fetch-Site", NULL};

/* In a time that depends on the sizes alone. */
static bool equals_secret(struct slice given, const char *secret, size_t size)
{
    volatile unsigned char difference = given.size != size;
    for (size_t i = 0; i < given.size; i++) {
        difference |= (unsigned char)(given.data[i] ^ secret[size > 0 ? i % size : 0]);
    }
    return difference == 0;
}

static enum guard_verdict check_token(const struct admin *admin, struct http_request *request)
{
    struct slice header = http_request_header(request, "Authorization");
    struct slice scheme = {header.data, header.size < 7 ? header.size : 7};
    if (!slice_equal_nocase(scheme, SLICE("Bearer "))) {
        return GUARD_TOKEN_MISSING;
    }
    header.data += 7;
    header.size -= 7;
    while (header.size > 0 && header.data[0] == ' ') {
        header.data++;
        header.size--;
    }
    return equals_secret(header, admin->token, admin->token_size) ? GUARD_PASSES : GUARD_TOKEN_WRONG;
}

/* The name of "name", "name:port" or "[address]:port"; empty if it is none of them. */
static struct slice without_port(struct slice host)
{
    bool has_bracket = host.size > 0 && host.data[0] == '[';
    const char *end = host.data + host.size;
    const char *stop = host.size > 0 ? memchr(host.data, has_bracket ? ']' : ':', host.size) : NULL;
    if (!stop) {
        return has_bracket ? SLICE("") : host;
    }
    const char *port = stop + has_bracket;
    bool has_port = port < end && *port == ':';
    for (const char *c = port + has_port; c < end; c++) {
        if (*c < '0' || *c > '9' || !has_port) {
            return SLICE("");
        }
    }
    return (struct slice){host.data + has_bracket, (size_t)(stop - host.data - has_bracket)};
}

/* A page whose name was made to point here has that name as the Host; an address cannot be made to. */
bool guard_host_is_safe(struct slice host)
{
    char name[64];
    struct slice bare = without_port(host);
    unsigned char address[16];
    if (bare.size == 0 || bare.size >= sizeof name) {
        return false;
    }
    memcpy(name, bare.data, bare.size);
    name[bare.size] = 0;
    return slice_equal_nocase(bare, SLICE("localhost")) || inet_pton(AF_INET, name, address) == 1 ||
           inet_pton(AF_INET6, name, address) == 1;
}

static bool is_own_origin(struct slice origin, struct slice host)
{
    static const struct slice schemes[] = {SLICE("http://"), SLICE("https://")};
    for (size_t i = 0; i < 2; i++) {
        if (slice_starts(origin, schemes[i])) {
            return slice_equal_nocase((struct slice){origin.data + schemes[i].size, origin.size - schemes[i].size}, host);
        }
    }
    return false; /* "null" too */
}

static bool is_json(struct slice type)
{
    const char *semicolon = type.size > 0 ? memchr(type.data, ';', type.size) : NULL;
    size_t size = semicolon ? (size_t)(semicolon - type.data) : type.size;
    while (size > 0 && type.data[size - 1] == ' ') {
        size--;
    }
    return slice_equal_nocase((struct slice){type.data, size}, SLICE("application/json"));
}

/* A form of another site's can send neither JSON nor our Origin; what is no browser sends no Origin at all. */
static enum guard_verdict check_post(struct http_request *request)
{
    struct slice origin = http_request_header(request, "Origin"), site = http_request_header(request, "Sec-Fetch-Site");
    if (origin.data && !is_own_origin(origin, http_request_header(request, "Host"))) {
        return GUARD_ORIGIN;
    }
    if (site.data && !slice_equal(site, SLICE("same-origin")) && !slice_equal(site, SLICE("none"))) {
        return GUARD_ORIGIN;
    }
    return is_json(http_request_header(request, "Content-Type")) ? GUARD_PASSES : GUARD_TYPE;
}

enum guard_verdict admin_guard(const struct admin *admin, struct http_request *request)
{
    bool is_unix = slice_equal(http_request_peer(request), SLICE("unix"));
    if (admin->token) {
        enum guard_verdict verdict = check_token(admin, request);
        if (verdict != GUARD_PASSES) {
            return verdict;
        }
    } else if (!is_unix && !guard_host_is_safe(http_request_header(request, "Host"))) {
        return GUARD_HOST;
    }
    return slice_equal(http_request_method(request), SLICE("POST")) ? check_post(request) : GUARD_PASSES;
}
