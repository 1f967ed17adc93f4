/* The parser (libmicrohttpd 0.9.75) forgives what RFC 9112 calls an error, and each thing that it forgives is a place where a
 * proxy in front of it may count the bytes of a request in another way. Most of it shows in names and values. What does not
 * show is found by place: the parser leaves the parts where they came, so each must begin exactly where the one before it and
 * the bytes between them end, up to the end of the head. A line ended by LF alone or spare blanks in the request line move what
 * follows. A folded line moves the name behind its value, since the parser copies it to join the parts. A NUL can leave no trace
 * at all, for the parser overwrites both ends of a line with NULs, so http_head looks for it before the parser does. */
#include "http_audit.h"

#include <stdio.h>
#include <string.h>

/* RFC 9110, 5.6.2 */
static const bool is_token_char[256] = {
    ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['!'] = true, ['#'] = true, ['$'] = true,
    ['%'] = true,         ['&'] = true,         ['\''] = true,        ['*'] = true, ['+'] = true, ['-'] = true,
    ['.'] = true,         ['^'] = true,         ['_'] = true,         ['`'] = true, ['|'] = true, ['~'] = true,
};

static bool is_token(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        if (!is_token_char[(unsigned char)s.data[i]]) {
            return false;
        }
    }
    return s.size > 0;
}

static bool has_control(struct slice s, bool tab_is_one)
{
    for (size_t i = slice_plain_prefix(s); i < s.size; i++) {
        unsigned char c = (unsigned char)s.data[i];
        if ((c < ' ' && (c != '\t' || tab_is_one)) || c == 0x7f) {
            return true;
        }
    }
    return false;
}

/* The name is the sender's: only what is printable of it goes into the sentence. */
static void fault(struct http_audit *audit, struct slice name, const char *what)
{
    if (audit->message[0]) {
        return;
    }
    char shown[64];
    size_t size = name.size < sizeof shown - 1 ? name.size : sizeof shown - 1;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)name.data[i];
        shown[i] = c >= ' ' && c < 0x7f ? (char)c : '?';
    }
    shown[size] = 0;
    snprintf(audit->message, sizeof audit->message, "header \"%s\" %s", shown, what);
}

void http_audit_begin(struct http_audit *audit, const struct http_singles *singles, bool is_clean)
{
    *audit = (struct http_audit){.singles = *singles, .has_gap = !is_clean};
    for (size_t i = 0; i < singles->count; i++) {
        singles->values[i] = (struct slice){0};
    }
}

static void check_single(struct http_audit *audit, struct slice name, struct slice value)
{
    const struct http_singles *singles = &audit->singles;
    for (size_t i = 0; i < singles->count; i++) {
        if (slice_equal_nocase(name, singles->names[i])) {
            if (singles->values[i].data) {
                fault(audit, name, "is given twice");
            }
            singles->values[i] = value;
        }
    }
}

static void check_framing(struct http_audit *audit, struct slice name, struct slice value)
{
    if (slice_equal_nocase(name, SLICE("Host"))) {
        audit->host = value;
        if (++audit->hosts > 1) {
            fault(audit, name, "is given twice");
        }
    } else if (slice_equal_nocase(name, SLICE("Content-Length"))) {
        if (++audit->lengths > 1) {
            fault(audit, name, "is given twice");
        } else if (!slice_to_u64(value, &audit->declared)) {
            fault(audit, name, "is not a number of bytes");
        }
    } else if (slice_equal_nocase(name, SLICE("Transfer-Encoding"))) {
        if (++audit->codings > 1) {
            fault(audit, name, "is given twice");
        } else if (!slice_equal_nocase(value, SLICE("chunked"))) {
            fault(audit, name, "is not exactly \"chunked\"");
        }
    } else if (slice_equal_nocase(name, SLICE("Expect"))) {
        audit->expects_continue = true;
    }
}

void http_audit_header(struct http_audit *audit, struct slice name, struct slice value)
{
    if (!is_token(name)) {
        fault(audit, name, "is no valid header name");
    } else if (!value.data || value.data <= name.data) {
        fault(audit, name, "is folded over lines");
    } else {
        if (audit->next && name.data != audit->next) {
            audit->has_gap = true;
        }
        audit->first = audit->first ? audit->first : name.data;
        audit->next = value.data + value.size + 2;
        if (value.data[value.size] || value.data[value.size + 1]) { /* the parser has put NULs into the line's end */
            audit->has_gap = true;
        }
        if (has_control(value, false)) {
            fault(audit, name, "has a control character");
        }
        check_framing(audit, name, value);
        check_single(audit, name, value);
    }
}

struct slice http_target_authority(struct slice target)
{
    static const struct slice schemes[] = {{"http://", 7}, {"https://", 8}};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t start = schemes[i].size, end = start;
        if (target.size < start || !slice_equal_nocase((struct slice){target.data, start}, schemes[i])) {
            continue;
        }
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): what has a size has bytes */
        while (end < target.size && !strchr("/?#", target.data[end])) {
            end++;
        }
        return (struct slice){target.data + start, end - start};
    }
    return (struct slice){0};
}

/* A request in absolute form may repeat its Host, not contradict it. */
static bool names_another_host(const struct http_audit *audit, struct slice target)
{
    struct slice authority = http_target_authority(target), host = audit->host;
    while (host.size > 0 && (host.data[host.size - 1] == ' ' || host.data[host.size - 1] == '\t')) {
        host.size--;
    }
    return authority.data && audit->hosts > 0 && !slice_equal_nocase(authority, host);
}

/* The request line, the header lines, and the empty line, with nothing between them. */
static bool has_gap(const struct http_audit *audit, struct slice method, struct slice target, struct slice version,
                    size_t head_size)
{
    const char *lines = version.data + version.size + 2, *end = (audit->next ? audit->next : lines) + 2;
    return audit->has_gap || method.data + method.size + 1 + target.size + 1 != version.data ||
           (audit->first && audit->first != lines) || (size_t)(end - method.data) != head_size;
}

const char *http_audit_end(struct http_audit *audit, struct slice method, struct slice target, struct slice version,
                           size_t head_size)
{
    bool is_1_0 = slice_equal(version, SLICE("HTTP/1.0"));
    if (audit->message[0]) {
        return audit->message;
    }
    if (audit->codings > 0 && audit->lengths > 0) {
        fault(audit, SLICE("Content-Length"), "stands beside Transfer-Encoding");
    } else if (audit->codings > 0 && is_1_0) {
        fault(audit, SLICE("Transfer-Encoding"), "is not part of HTTP/1.0");
    } else if (audit->hosts == 0 && !is_1_0) {
        fault(audit, SLICE("Host"), "is missing");
    } else if (!is_token(method)) {
        return "the request method has a character that no method has";
    } else if (has_control(target, true) || memchr(target.data ? target.data : "", ' ', target.size)) {
        return "the request target has a space or a control character";
    } else if (names_another_host(audit, target)) {
        return "the request target names another host than Host";
    } else if (has_gap(audit, method, target, version, head_size)) {
        return "the request's head has a NUL byte, a folded line, a line not ended by CR LF, or spare blanks in its first line";
    }
    return audit->message[0] ? audit->message : NULL;
}
