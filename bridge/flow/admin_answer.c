#include "admin_internal.h"

#include <stdlib.h>
#include <string.h>

#define PLAIN_POLICY "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

const char *const admin_headers[] = {"Cache-Control",
                                     "no-store",
                                     "X-Content-Type-Options",
                                     "nosniff",
                                     "Content-Security-Policy",
                                     PLAIN_POLICY,
                                     "X-Frame-Options",
                                     "DENY",
                                     "Referrer-Policy",
                                     "no-referrer",
                                     "Cross-Origin-Resource-Policy",
                                     "same-origin",
                                     NULL};

void answer_body(struct http_request *request, unsigned status, const char *type, struct slice body)
{
    http_request_answer(request,
                        &(struct http_answer){.status = status, .body = body, .content_type = type, .headers = admin_headers});
}

void answer_json(struct http_request *request, struct buf *body)
{
    if (body->failed) {
        answer_problem(request, 503, "there is no memory for the answer");
    } else {
        answer_body(request, 200, "application/json", buf_slice(body));
    }
    buf_free(body);
}

static const char *title_of(unsigned status)
{
    static const struct {
        unsigned status;
        const char *title;
    } titles[] = {{400, "Bad Request"},        {401, "Unauthorized"},           {403, "Forbidden"},
                  {404, "Not Found"},          {405, "Method Not Allowed"},     {408, "Request Timeout"},
                  {413, "Content Too Large"},  {415, "Unsupported Media Type"}, {421, "Misdirected Request"},
                  {503, "Service Unavailable"}};
    for (size_t i = 0; i < sizeof titles / sizeof titles[0]; i++) {
        if (titles[i].status == status) {
            return titles[i].title;
        }
    }
    return "Error";
}

void append_problem(struct buf *out, unsigned status, const char *detail)
{
    buf_appendf(out, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%u,\"detail\":", title_of(status), status);
    buf_append_json_string(out, slice_of(detail));
    buf_append_text(out, "}\n");
}

void answer_refusal(struct http_request *request, const struct http_answer *more, const char *detail)
{
    struct buf body;
    buf_init(&body, 8192);
    append_problem(&body, more->status, detail);
    struct http_answer answer = *more;
    answer.body = buf_slice(&body);
    answer.content_type = "application/problem+json";
    answer.headers = admin_headers;
    http_request_answer(request, &answer);
    buf_free(&body);
}

void answer_problem(struct http_request *request, unsigned status, const char *detail)
{
    answer_refusal(request, &(struct http_answer){.status = status, .retry_after_s = status == 503 ? 5 : 0}, detail);
}

/* --- queries --- */

/* The raw value of the first parameter of this name; data NULL if there is none. */
static struct slice raw_parameter(struct http_request *request, const char *name)
{
    struct slice target = http_request_target(request);
    const char *at = memchr(target.data, '?', target.size), *end = target.data + target.size;
    size_t size = strlen(name);
    while (at && at < end) {
        at++;
        const char *next = memchr(at, '&', (size_t)(end - at));
        const char *stop = next ? next : end;
        if ((size_t)(stop - at) >= size && memcmp(at, name, size) == 0 && (at + size == stop || at[size] == '=')) {
            at += size;
            return at == stop ? SLICE("") : (struct slice){at + 1, (size_t)(stop - at - 1)};
        }
        at = next;
    }
    return (struct slice){0};
}

bool query_has(struct http_request *request, const char *name)
{
    return raw_parameter(request, name).data != NULL;
}

bool query_text(struct http_request *request, const char *name, char **out)
{
    struct slice raw = raw_parameter(request, name);
    *out = NULL;
    if (!raw.data) {
        return true;
    }
    char *text = malloc(raw.size + 1);
    size_t size = 0;
    for (size_t i = 0; text && i < raw.size; i++) {
        uint8_t byte = raw.data[i] == '+' ? ' ' : (uint8_t)raw.data[i];
        if (byte == '%') {
            if (raw.size - i < 3 || !hex_decode((struct slice){raw.data + i + 1, 2}, &byte, 1) || byte == 0) {
                free(text);
                return false;
            }
            i += 2;
        }
        text[size++] = (char)byte;
    }
    if (text) {
        text[size] = 0;
    }
    *out = text;
    return text != NULL;
}

bool query_number(struct http_request *request, const char *name, uint64_t min, uint64_t max, uint64_t *out)
{
    struct slice raw = raw_parameter(request, name);
    uint64_t value;
    if (!raw.data) {
        return true;
    }
    if (!slice_to_u64(raw, &value) || value < min || value > max) {
        return false;
    }
    *out = value;
    return true;
}
