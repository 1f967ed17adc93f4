#include "meowbridge/command.h"
#include "meowbridge/http_client.h"

#include <stdio.h>
#include <string.h>

enum { MAX_ANSWER = 1024 * 1024, MAX_HEADERS = 8 * 1024 };

/* Whoever listens on all addresses is reached on loopback. */
static const char *reachable(const char *host)
{
    return strcmp(host, "0.0.0.0") == 0 ? "127.0.0.1" : strcmp(host, "::") == 0 ? "::1" : host;
}

static void append_url(struct buf *out, const struct listen_address *address)
{
    if (!address->is_unix) {
        const char *host = reachable(address->host);
        bool is_ipv6 = strchr(host, ':') != NULL;
        buf_appendf(out, "http://%s%s%s:%u/", is_ipv6 ? "[" : "", host, is_ipv6 ? "]" : "", (unsigned)address->port);
        return;
    }
    buf_append_text(out, "http+unix://");
    for (const char *c = address->path; *c; c++) {
        buf_appendf(out, "%%%02x", (unsigned)(unsigned char)*c);
    }
    buf_append_char(out, '/');
}

static enum err find_url(const struct listen_address *address, struct http_url *url, struct error *why)
{
    if (!address->is_unix && address->port == 0) {
        return error_set(why, ERR_INVALID, "admin.listen leaves the port to the system, so it is not known here; name one");
    }
    struct buf text;
    buf_init(&text, 1024);
    append_url(&text, address);
    enum err err = http_url_parse(buf_slice(&text), url, why);
    buf_free(&text);
    return err;
}

static enum err ask(struct http_client *client, const struct config *config, const char *method, const char *target,
                    struct slice json, int64_t timeout_ms, unsigned *status, struct buf *answer, struct error *why)
{
    struct http_reply reply;
    struct buf headers;
    buf_init(&headers, MAX_HEADERS);
    if (config->admin.token.size > 0) {
        buf_appendf(&headers, "Authorization: Bearer %.*s\r\n", (int)config->admin.token.size, config->admin.token.data);
    }
    if (json.size > 0) {
        buf_append_text(&headers, "Content-Type: application/json\r\n");
    }
    enum err err = http_client_request(client, method, slice_of(target), buf_slice(&headers), json, timeout_ms, &reply, why);
    if (headers.data) {
        explicit_bzero(headers.data, headers.size);
    }
    buf_free(&headers);
    if (!err) {
        *status = reply.status;
        buf_append(answer, reply.body);
    }
    return !err && answer->failed ? error_set(why, ERR_MEMORY, "out of memory") : err;
}

enum err command_ask(const struct config *config, const char *method, const char *target, struct slice json, int64_t timeout_ms,
                     unsigned *status, struct buf *answer, struct error *why)
{
    struct http_url url;
    struct http_client *client;
    buf_init(answer, MAX_ANSWER);
    enum err err = find_url(&config->admin.listen, &url, why);
    err = err ? err : http_client_open(&client, &url, false, why);
    if (!err) {
        err = ask(client, config, method, target, json, timeout_ms, status, answer, why);
        http_client_close(&client);
    }
    return err;
}
