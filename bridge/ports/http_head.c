#include "http_head.h"

#include "meowbridge/err.h"

#include <string.h>

static struct slice without_first(struct slice s, size_t n)
{
    return (struct slice){s.data + n, s.size - n};
}

static void begin(struct http_head *head)
{
    *head = (struct http_head){.state = HTTP_HEAD_BEFORE};
}

static struct slice pass_body(struct http_head *head, struct slice bytes)
{
    size_t size = bytes.size < head->left ? bytes.size : (size_t)head->left;
    head->left -= size;
    if (head->left == 0) {
        begin(head);
    }
    return without_first(bytes, size);
}

static struct slice pass_empty_lines(struct http_head *head, struct slice bytes)
{
    while (bytes.size > 0 && (bytes.data[0] == '\r' || bytes.data[0] == '\n')) {
        bytes = without_first(bytes, 1);
    }
    if (bytes.size > 0) {
        head->state = HTTP_HEAD_LINES;
    }
    return bytes;
}

/* How many of the bytes belong to the head. */
static size_t find_end(struct http_head *head, struct slice bytes)
{
    static const char end[] = "\r\n\r\n";
    size_t i = 0;
    while (i < bytes.size && head->matched < sizeof end - 1) {
        if (head->matched == 0) {
            const char *cr = memchr(bytes.data + i, '\r', bytes.size - i);
            i = cr ? (size_t)(cr - bytes.data) : bytes.size;
            head->matched = cr != NULL;
        } else if (bytes.data[i] == end[head->matched]) {
            head->matched++;
        } else {
            head->matched = bytes.data[i] == '\r';
        }
        i += i < bytes.size;
    }
    return i;
}

static struct slice take_lines(struct http_head *head, struct slice bytes)
{
    size_t size = find_end(head, bytes);
    head->has_nul = head->has_nul || (size > 0 && memchr(bytes.data, 0, size));
    if (head->matched == 4) {
        head->state = HTTP_HEAD_BEHIND;
    }
    return without_first(bytes, size);
}

void http_head_feed(struct http_head *head, struct slice bytes)
{
    if (head->state == HTTP_HEAD_BODY) {
        bytes = pass_body(head, bytes);
    }
    if (head->state == HTTP_HEAD_BEFORE) {
        bytes = pass_empty_lines(head, bytes);
    }
    if (head->state == HTTP_HEAD_LINES) {
        bytes = take_lines(head, bytes);
    }
    if (head->state == HTTP_HEAD_BEHIND) {
        head->behind += bytes.size;
    }
}

bool http_head_is_clean(const struct http_head *head)
{
    return head->state == HTTP_HEAD_BEHIND && !head->has_nul;
}

void http_head_pass(struct http_head *head, const char *end, uint64_t body_size)
{
    ASSERT(http_head_is_clean(head));
    uint64_t behind = head->behind;
    begin(head);
    if (body_size > behind) {
        head->state = HTTP_HEAD_BODY;
        head->left = body_size - behind;
    } else {
        http_head_feed(head, (struct slice){end + body_size, (size_t)(behind - body_size)});
    }
}
