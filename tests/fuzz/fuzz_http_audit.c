/* The audit of a request's head, behind a parser that forgives as libmicrohttpd 0.9.75 does: lines that end in LF alone, blanks
 * before words, texts that end at a NUL. What passes must read the same for a strict parser (RFC 9112). What comes before that
 * parser, http_head, is fed the same bytes in pieces, and must find a strict head clean.
 * Input: the head, up to its empty line; what stands behind it came with it. */
#include "fuzz.h"

#include "../../bridge/ports/http_audit.h"
#include "../../bridge/ports/http_head.h"

static const struct slice singles[] = {{"X-Meowflow-Timestamp", 20}, {"X-Meowflow-Signature", 20}};

static struct slice take_line(struct slice *rest)
{
    const char *end = memchr(rest->data, '\n', rest->size);
    size_t size = end ? (size_t)(end - rest->data) : rest->size, taken = end ? size + 1 : size;
    struct slice line = {rest->data, size};
    *rest = (struct slice){rest->data + taken, rest->size - taken};
    line.size -= line.size > 0 && line.data[line.size - 1] == '\r';
    memset((char *)line.data + line.size, 0, taken - line.size); /* as the parser does */
    return line;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct slice skip_blanks(struct slice s)
{
    while (s.size > 0 && is_blank(s.data[0])) {
        s = (struct slice){s.data + 1, s.size - 1};
    }
    return s;
}

static struct slice trim(struct slice s)
{
    s = skip_blanks(s);
    while (s.size > 0 && is_blank(s.data[s.size - 1])) {
        s.size--;
    }
    return s;
}

static struct slice up_to(struct slice s, char end)
{
    const char *at = s.size > 0 ? memchr(s.data, end, s.size) : NULL;
    s.size = at ? (size_t)(at - s.data) : s.size;
    return s;
}

/* The next word of a request line. */
static struct slice take_word(struct slice *line)
{
    *line = skip_blanks(*line);
    struct slice word = up_to(*line, ' ');
    *line = (struct slice){line->data + word.size, line->size - word.size};
    return word;
}

/* As it reaches the audit; false if no parser would hand it on. */
static bool audit_leniently(struct slice head, bool is_clean, bool *passes)
{
    struct http_audit audit;
    struct slice values[sizeof singles / sizeof singles[0]];
    struct slice rest = head, line = take_line(&rest);
    bool ended = false;
    if (line.size > 0 && is_blank(line.data[0])) {
        return false; /* the method would begin with it, or be empty: the parser skips no blank there */
    }
    struct slice method = up_to(take_word(&line), 0), target = up_to(take_word(&line), 0), version = take_word(&line);
    if (method.size == 0 || target.size == 0 || line.size > 0 ||
        (!slice_equal(version, SLICE("HTTP/1.1")) && !slice_equal(version, SLICE("HTTP/1.0")))) {
        return false;
    }
    http_audit_begin(&audit, &(struct http_singles){singles, values, sizeof singles / sizeof singles[0]}, is_clean);
    while (rest.size > 0 && !ended) {
        if (!memchr(rest.data, '\n', rest.size)) {
            return false; /* the parser waits for the end of the head */
        }
        line = take_line(&rest);
        if (line.size == 0) {
            ended = true;
            continue;
        }
        struct slice name = up_to(up_to(line, 0), ':');
        if (name.size == line.size || line.data[name.size] != ':' || rest.size == 0) {
            return false;
        }
        struct slice value = skip_blanks((struct slice){line.data + name.size + 1, line.size - name.size - 1});
        http_audit_header(&audit, name, up_to(value, 0));
    }
    *passes = http_audit_end(&audit, method, target, version, (size_t)(rest.data - head.data)) == NULL;
    return ended;
}

static bool is_token(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        char c = s.data[i], lower = (char)(c | 0x20);
        if (!(lower >= 'a' && lower <= 'z') && !(c >= '0' && c <= '9') && !memchr("!#$%&'*+-.^_`|~", c, 15)) {
            return false;
        }
    }
    return s.size > 0;
}

static bool is_field_text(struct slice s, bool blanks)
{
    for (size_t i = 0; i < s.size; i++) {
        unsigned char c = (unsigned char)s.data[i];
        if (c == 0x7f || (c < ' ' && !(blanks && c == '\t')) || (!blanks && c == ' ')) {
            return false;
        }
    }
    return true;
}

struct strict {
    unsigned hosts, lengths, codings, seen[2];
};

/* One header line without its CR LF. */
static bool take_field(struct strict *s, struct slice line)
{
    uint64_t number;
    struct slice name = up_to(line, ':');
    struct slice value = trim((struct slice){line.data + name.size + 1, line.size - name.size - (name.size < line.size)});
    if (name.size == line.size || !is_token(name) || !is_field_text(value, true)) {
        return false;
    }
    s->hosts += slice_equal_nocase(name, SLICE("Host"));
    for (size_t i = 0; i < 2; i++) {
        s->seen[i] += slice_equal_nocase(name, singles[i]);
    }
    if (slice_equal_nocase(name, SLICE("Content-Length"))) {
        s->lengths++;
        return slice_to_u64(value, &number);
    }
    if (slice_equal_nocase(name, SLICE("Transfer-Encoding"))) {
        s->codings++;
        return slice_equal_nocase(value, SLICE("chunked"));
    }
    return true;
}

/* Whether the head is one that every parser reads in the same way. */
static bool is_strict(struct slice head)
{
    struct strict s = {0};
    bool first = true, is_1_0 = false, ended = false;
    while (head.size > 0 && !ended) {
        const char *end = memmem(head.data, head.size, "\r\n", 2);
        if (!end) {
            return false;
        }
        struct slice line = {head.data, (size_t)(end - head.data)};
        head = (struct slice){end + 2, head.size - line.size - 2};
        if (first) {
            struct slice method = up_to(line, ' ');
            struct slice target = {line.data + method.size, line.size - method.size};
            bool sound = target.size > 10 && slice_starts((struct slice){line.data + line.size - 9, 9}, SLICE(" HTTP/1."));
            is_1_0 = line.size > 0 && line.data[line.size - 1] == '0';
            sound = sound && (is_1_0 || line.data[line.size - 1] == '1');
            target = sound ? (struct slice){target.data + 1, target.size - 10} : target;
            if (!sound || !is_token(method) || !is_field_text(target, false) || target.size == 0) {
                return false;
            }
            first = false;
        } else if (line.size == 0) {
            ended = true;
        } else if (!take_field(&s, line)) {
            return false;
        }
    }
    return ended && s.lengths <= 1 && s.codings <= 1 && s.lengths + s.codings <= 1 && !(s.codings && is_1_0) &&
           (s.hosts == 1 || (s.hosts == 0 && is_1_0)) && s.seen[0] <= 1 && s.seen[1] <= 1;
}

/* Before the parser sees them. The pieces are of the size that the input's size says. */
static struct http_head follow(struct slice bytes)
{
    struct http_head head = {0};
    size_t most = 1 + bytes.size % 9;
    while (bytes.size > 0) {
        struct slice piece = {bytes.data, bytes.size < most ? bytes.size : most};
        http_head_feed(&head, piece);
        bytes = (struct slice){bytes.data + piece.size, bytes.size - piece.size};
    }
    return head;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size), parsed = fuzz_begin(data, size);
    struct slice head = fuzz_rest(&in);
    struct http_head followed = follow(head);
    bool passes = false, is_clean = http_head_is_clean(&followed);
    if (audit_leniently(fuzz_rest(&parsed), is_clean, &passes) && passes) {
        ASSERT(is_strict(head));
    }
    if (is_strict(head)) {
        const char *end = (const char *)memmem(head.data, head.size, "\r\n\r\n", 4) + 4;
        ASSERT(is_clean && followed.behind == (size_t)(head.data + head.size - end));
    }
    fuzz_end(&parsed);
    fuzz_end(&in);
    return 0;
}
