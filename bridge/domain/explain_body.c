/* What the sender may have signed in place of the body that was captured: the same with other line ends, or the same JSON as
 * another library prints it. Numbers stay as they are: what a reader of doubles made of 1.50 or of an 18-digit id cannot be
 * made good.
 *
 * Printing keeps its own stack, one frame a level, since jsonscan has held the nesting to JSONSCAN_MAX_DEPTH. */
#include "explain_internal.h"

#include "meowbridge/jsonscan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PRINTED = 4 * 1024 * 1024 }; /* a larger body is not printed again */

static const char no_newline[] =
    "A newline was added to the file that holds the body, by an editor or by echo, or on the way. Capture "
    "the body as it came (curl --data-binary, printf '%s').";
static const char has_newline[] =
    "A newline at the end of the body was lost on the way, or when it was captured. The body must pass as "
    "it is.";
static const char line_ends[] =
    "Line ends were changed on the way or when the body was captured (a text mode, FTP, an editor). The "
    "body must pass as it is.";
static const char no_text_mode[] =
    "The body was changed on the way, or when it was captured. It must pass as it is, byte for byte.";
static const char no_printing[] =
    "Something between MeowFlow and here reads the JSON and prints it again: a gateway, a framework's parsed body, or the tool "
    "that captured it. Pass on and keep the raw body; let the proxy leave it alone (no body rewriting, no re-encoding).";

/* --- bodies that are no other JSON --- */

static bool has_suffix(struct slice s, struct slice suffix)
{
    return s.size >= suffix.size && memcmp(s.data + s.size - suffix.size, suffix.data, suffix.size) == 0;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool add_newline(struct slice body, struct buf *out)
{
    buf_append(out, body);
    buf_append_char(out, '\n');
    return true;
}

static bool drop_newline(struct slice body, struct buf *out)
{
    if (!has_suffix(body, SLICE("\n"))) {
        return false;
    }
    body.size -= has_suffix(body, SLICE("\r\n")) ? 2 : 1;
    buf_append(out, body);
    return true;
}

static bool add_crlf(struct slice body, struct buf *out)
{
    buf_append(out, body);
    buf_append_text(out, "\r\n");
    return true;
}

static bool trim_space(struct slice body, struct buf *out)
{
    struct slice inside = body;
    while (inside.size > 0 && is_space(inside.data[inside.size - 1])) {
        inside.size--;
    }
    while (inside.size > 0 && is_space(inside.data[0])) {
        inside = (struct slice){inside.data + 1, inside.size - 1};
    }
    buf_append(out, inside);
    return inside.size < body.size;
}

static bool to_lf(struct slice body, struct buf *out)
{
    for (size_t i = 0; i < body.size; i++) {
        if (body.data[i] != '\r' || i + 1 == body.size || body.data[i + 1] != '\n') {
            buf_append_char(out, body.data[i]);
        }
    }
    return out->size < body.size;
}

static bool to_crlf(struct slice body, struct buf *out)
{
    for (size_t i = 0; i < body.size; i++) {
        if (body.data[i] == '\n' && (i == 0 || body.data[i - 1] != '\r')) {
            buf_append_char(out, '\r');
        }
        buf_append_char(out, body.data[i]);
    }
    return out->size > body.size;
}

static bool add_mark(struct slice body, struct buf *out)
{
    buf_append_text(out, "\xef\xbb\xbf");
    buf_append(out, body);
    return !slice_starts(body, SLICE("\xef\xbb\xbf"));
}

static bool drop_mark(struct slice body, struct buf *out)
{
    if (!slice_starts(body, SLICE("\xef\xbb\xbf"))) {
        return false;
    }
    buf_append(out, (struct slice){body.data + 3, body.size - 3});
    return true;
}

static bool no_body(struct slice body, struct buf *out)
{
    (void)out;
    return body.size > 0;
}

/* A log or a queue often holds the body as a JSON string. */
static bool out_of_string(struct slice body, struct buf *out)
{
    struct json_value value;
    if (jsonscan_document(body, &value, NULL, NULL) || value.type != JSON_STRING || !buf_reserve(out, value.text.size)) {
        return false;
    }
    struct slice text = jsonscan_unescape(&value, out);
    if (!value.has_escapes) {
        buf_append(out, text);
    }
    return true;
}

/* The other way round: a body that is the "payload" member of what was signed cannot be made whole again; but the payload of a
 * whole body can be taken out. */
static bool only_payload(struct slice body, struct buf *out)
{
    struct json_value value, name, member;
    struct json_iterator it;
    if (jsonscan_document(body, &value, NULL, NULL) || value.type != JSON_OBJECT) {
        return false;
    }
    for (jsonscan_enter(&it, &value); jsonscan_next(&it, &name, &member);) {
        if (jsonscan_string_is(&name, SLICE("payload"))) {
            buf_append(out, member.text);
            return true;
        }
    }
    return false;
}

static const struct plain {
    bool (*make)(struct slice body, struct buf *out);
    const char *what, *advice;
} plains[] = {
    {drop_newline, "the body without the newline at its end", no_newline},
    {add_newline, "the body with a newline at its end", has_newline},
    {add_crlf, "the body with CR LF at its end", has_newline},
    {trim_space, "the body without the white space around it", no_text_mode},
    {to_lf, "the body with LF for CR LF", line_ends},
    {to_crlf, "the body with CR LF for LF", line_ends},
    {drop_mark, "the body without the byte order mark", no_text_mode},
    {add_mark, "the body behind a byte order mark", no_text_mode},
    {no_body, "an empty body", no_text_mode},
    {out_of_string, "the text of the JSON string that the body is", no_text_mode},
    {only_payload, "the payload alone",
     "MeowFlow signs the whole request body: whoever made this signature deviates from its guide."},
};
enum { PLAINS = sizeof plains / sizeof plains[0] };

/* --- JSON printed again --- */

enum escapes {
    AS_THEY_ARE,
    LEAST,         /* JSON.stringify, Python with ensure_ascii=False */
    ASCII,         /* Python's json.dumps */
    ASCII_SLASHES, /* PHP's json_encode */
    SLASHES,       /* … with JSON_UNESCAPED_UNICODE */
    HTML,          /* Go's encoding/json */
    ESCAPES
};

static const struct layout {
    const char *what, *comma, *colon;
    int indent; /* -1: none */
    char unit;
} layouts[] = {
    {"compact JSON", ",", ":", -1, ' '},
    {"JSON spaced as Python's json.dumps does", ", ", ": ", -1, ' '},
    {"JSON indented by 2 spaces", ",", ": ", 2, ' '},
    {"JSON indented by 4 spaces", ",", ": ", 4, ' '},
    {"JSON indented by tabs", ",", ": ", 1, '\t'},
};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0], PRINTS = LAYOUTS * ESCAPES * 2 * 2 };

static const char *const escapes_text[ESCAPES] = {
    [AS_THEY_ARE] = "",
    [LEAST] = ", nothing escaped that need not be",
    [ASCII] = ", non-ASCII characters escaped",
    [ASCII_SLASHES] = ", non-ASCII characters and slashes escaped",
    [SLASHES] = ", slashes escaped",
    [HTML] = ", <, > and & escaped",
};

struct style {
    const struct layout *layout;
    enum escapes escapes;
    bool sorted, newline;
};

/* n counts from 0. */
static struct style style_of(size_t n)
{
    return (struct style){&layouts[n / 2 / 2 / ESCAPES], (enum escapes)(n / 2 / 2 % ESCAPES), n / 2 % 2 == 1, n % 2 == 1};
}

static void append_unit(struct buf *out, uint32_t unit)
{
    buf_appendf(out, "\\u%04x", (unsigned)unit);
}

static bool append_short_escape(struct buf *out, uint32_t c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *found = c > 0 && c < 0x80 ? strchr(from, (int)c) : NULL;
    if (found) {
        buf_append_char(out, '\\');
        buf_append_char(out, to[found - from]);
    }
    return found != NULL;
}

static bool must_escape(enum escapes escapes, uint32_t c)
{
    bool ascii = escapes == ASCII || escapes == ASCII_SLASHES, separator = c == 0x2028 || c == 0x2029;
    return c < ' ' || (c >= 0xd800 && c <= 0xdfff) || (ascii && c >= 0x7f) ||
           (escapes == HTML && (c == '<' || c == '>' || c == '&' || separator)) || (escapes == SLASHES && separator);
}

static void append_character(struct buf *out, enum escapes escapes, uint32_t c)
{
    char bytes[4];
    if (append_short_escape(out, c)) {
        return;
    }
    if (c == '/' && (escapes == SLASHES || escapes == ASCII_SLASHES)) {
        buf_append_text(out, "\\/");
    } else if (!must_escape(escapes, c)) {
        buf_append(out, (struct slice){bytes, utf8_encode(c, bytes)});
    } else if (c > 0xffff) {
        append_unit(out, 0xd800 + ((c - 0x10000) >> 10));
        append_unit(out, 0xdc00 + ((c - 0x10000) & 0x3ff));
    } else {
        append_unit(out, c);
    }
}

static void append_string(struct buf *out, struct buf *scratch, enum escapes escapes, const struct json_value *value)
{
    if (escapes == AS_THEY_ARE) {
        buf_append(out, value->text);
        return;
    }
    buf_reset(scratch);
    struct slice text = jsonscan_unescape(value, scratch);
    buf_append_char(out, '"');
    while (text.size > 0) {
        uint32_t c = 0;
        size_t size = utf8_decode(text, &c);
        ASSERT(size > 0);
        append_character(out, escapes, c);
        text = (struct slice){text.data + size, text.size - size};
    }
    buf_append_char(out, '"');
}

struct member {
    struct json_value key, value;
};

/* An object or array that is being printed. */
struct frame {
    bool is_object, has_any;
    struct json_iterator it;
    struct member *members; /* of a sorted object; NULL: walk it */
    size_t count, at;
};

static int compare_members(const void *a, const void *b)
{
    const struct slice left = ((const struct member *)a)->key.text, right = ((const struct member *)b)->key.text;
    /* Without the closing quote, so that a name comes before those that it begins. */
    size_t least = left.size < right.size ? left.size - 1 : right.size - 1;
    int order = memcmp(left.data, right.data, least);
    return order ? order : left.size < right.size ? -1 : left.size > right.size;
}

static bool sort_members(struct frame *frame, const struct json_value *object)
{
    struct member member;
    size_t capacity = 0;
    for (jsonscan_enter(&frame->it, object); jsonscan_next(&frame->it, &member.key, &member.value);) {
        if (frame->count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            struct member *more = realloc(frame->members, capacity * sizeof *more);
            if (!more) {
                return false;
            }
            frame->members = more;
        }
        frame->members[frame->count++] = member;
    }
    if (frame->count > 0) {
        qsort(frame->members, frame->count, sizeof *frame->members, compare_members);
    }
    return true;
}

static bool open_frame(struct frame *frame, const struct json_value *container, bool sorted)
{
    *frame = (struct frame){.is_object = container->type == JSON_OBJECT};
    jsonscan_enter(&frame->it, container);
    return !sorted || !frame->is_object || sort_members(frame, container);
}

static bool next_member(struct frame *frame, struct member *out)
{
    if (!frame->members) {
        return jsonscan_next(&frame->it, &out->key, &out->value);
    }
    if (frame->at == frame->count) {
        return false;
    }
    *out = frame->members[frame->at++];
    return true;
}

static void append_line(struct buf *out, const struct layout *layout, size_t depth)
{
    if (layout->indent >= 0) {
        buf_append_char(out, '\n');
        for (size_t i = 0; i < depth * (size_t)layout->indent; i++) {
            buf_append_char(out, layout->unit);
        }
    }
}

struct printer {
    struct buf *out, scratch;
    struct style style;
    struct frame stack[JSONSCAN_MAX_DEPTH];
    size_t depth;
};

static bool is_container(const struct json_value *value)
{
    return value->type == JSON_OBJECT || value->type == JSON_ARRAY;
}

/* A scalar is printed; a container is begun, and its members follow. */
static bool begin_value(struct printer *p, const struct json_value *value)
{
    if (value->type == JSON_STRING) {
        append_string(p->out, &p->scratch, p->style.escapes, value);
    } else if (!is_container(value)) {
        buf_append(p->out, value->text);
    } else {
        ASSERT(p->depth < JSONSCAN_MAX_DEPTH);
        buf_append_char(p->out, value->type == JSON_OBJECT ? '{' : '[');
        return open_frame(&p->stack[p->depth++], value, p->style.sorted);
    }
    return true;
}

static bool print_member(struct printer *p, struct frame *frame, const struct member *member)
{
    if (frame->has_any) {
        buf_append_text(p->out, p->style.layout->comma);
    }
    frame->has_any = true;
    append_line(p->out, p->style.layout, p->depth);
    if (frame->is_object) {
        append_string(p->out, &p->scratch, p->style.escapes, &member->key);
        buf_append_text(p->out, p->style.layout->colon);
    }
    return begin_value(p, &member->value);
}

static void end_container(struct printer *p)
{
    struct frame *frame = &p->stack[--p->depth];
    if (frame->has_any) {
        append_line(p->out, p->style.layout, p->depth);
    }
    buf_append_char(p->out, frame->is_object ? '}' : ']');
    free(frame->members);
}

static bool print(struct printer *p, const struct json_value *document)
{
    bool good = begin_value(p, document);
    while (p->depth > 0) {
        struct frame *frame = &p->stack[p->depth - 1];
        struct member member;
        if (good && !p->out->failed && next_member(frame, &member)) {
            good = print_member(p, frame, &member);
        } else {
            end_container(p);
        }
    }
    return good && !p->out->failed;
}

/* How strings are escaped can matter only where one of these stands. */
static bool has_escapable(struct slice body)
{
    bool found = false;
    for (size_t i = 0; i < body.size; i++) {
        unsigned char c = (unsigned char)body.data[i];
        found = found || c >= 0x7f || c == '\\' || c == '/' || c == '<' || c == '>' || c == '&';
    }
    return found;
}

static bool print_again(struct style style, struct slice body, struct buf *out)
{
    struct json_value document;
    struct slice mark = SLICE("\xef\xbb\xbf");
    body = slice_starts(body, mark) ? (struct slice){body.data + mark.size, body.size - mark.size} : body;
    if (body.size > MAX_PRINTED || (style.escapes != AS_THEY_ARE && !has_escapable(body)) ||
        jsonscan_document(body, &document, NULL, NULL) != ERR_NONE || !is_container(&document)) {
        return false;
    }
    struct printer *p = calloc(1, sizeof *p);
    if (!p) {
        out->failed = true;
        return false;
    }
    p->out = out;
    p->style = style;
    buf_init(&p->scratch, body.size);
    bool done = buf_reserve(&p->scratch, body.size) && print(p, &document);
    if (style.newline) {
        buf_append_char(out, '\n');
    }
    buf_free(&p->scratch);
    free(p);
    return done;
}

/* --- all of them --- */

size_t body_choices(void)
{
    return 1 + PLAINS + PRINTS;
}

bool body_choose(size_t n, struct slice body, struct buf *out)
{
    ASSERT(n >= 1 && n < body_choices());
    buf_reset(out);
    bool made = n <= PLAINS ? plains[n - 1].make(body, out) : print_again(style_of(n - 1 - PLAINS), body, out);
    return made && !out->failed && !slice_equal(buf_slice(out), body);
}

void body_describe(size_t n, struct explain_deviation *out)
{
    ASSERT(n >= 1 && n < body_choices());
    if (n <= PLAINS) {
        snprintf(out->what, sizeof out->what, "%s", plains[n - 1].what);
        out->advice = plains[n - 1].advice;
        return;
    }
    struct style style = style_of(n - 1 - PLAINS);
    snprintf(out->what, sizeof out->what, "the body as %s%s%s%s", style.layout->what, escapes_text[style.escapes],
             style.sorted ? ", members sorted by name" : "", style.newline ? ", with a newline at its end" : "");
    out->advice = no_printing;
}
