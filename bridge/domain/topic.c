/* How an event's text gets into MQTT's strings.
 *
 * One encoder serves topics, property values and URIs; they differ in the table of what is encoded. Text is WTF-8: it may hold
 * NUL and surrogates, and each byte of what may not stay becomes %XX. Where a value must be told from every other one (topics,
 * URIs), '%' itself is encoded, so that the encoding can be undone and no two values meet. In the name of an event '.' becomes
 * '/', which can be undone too: a '/' of the name itself has become %2F.
 *
 * Not done: nothing separates two placeholders that touch. In "{appId}{id}" the app 1 with the id 23 meets the app 12 with the
 * id 3; who wants them apart writes a '/' between them, which no value can hold. Nor is a '$' that begins a template refused:
 * it is the user's own word, and some brokers have topics there that are made to be published to. */
#include "meowbridge/topic.h"

#include <stdbool.h>
#include <string.h>

/* What becomes of a character, by its first byte. */
enum fate { STAYS = 0, ENCODED, ENCODED_IF_FORBIDDEN };

struct encoding {
    uint8_t fates[256];
};

static const struct encoding in_text = {{[0x00 ... 0x1f] = ENCODED, [0x7f] = ENCODED, [0x80 ... 0xff] = ENCODED_IF_FORBIDDEN}};

static const struct encoding in_topic = {{[0x00 ... 0x1f] = ENCODED,
                                          ['#'] = ENCODED,
                                          ['%'] = ENCODED,
                                          ['+'] = ENCODED,
                                          ['/'] = ENCODED,
                                          [0x7f] = ENCODED,
                                          [0x80 ... 0xff] = ENCODED_IF_FORBIDDEN}};

/* What stays are the unreserved characters of RFC 3986, 2.3: letters, digits, '-', '.', '_', '~'. */
static const struct encoding in_uri = {{[0x00 ... ','] = ENCODED,
                                        ['/'] = ENCODED,
                                        [':' ... '@'] = ENCODED,
                                        ['[' ... '^'] = ENCODED,
                                        ['`'] = ENCODED,
                                        ['{' ... '}'] = ENCODED,
                                        [0x7f ... 0xff] = ENCODED}};

/* The first byte from at on that must be looked at. */
static size_t pass_staying(const struct encoding *encoding, struct slice s, size_t at)
{
    while (at < s.size && encoding->fates[(unsigned char)s.data[at]] == STAYS) {
        at++;
    }
    return at;
}

/* The length of the character at the start of s if it stays all the same, else 0. */
static size_t allowed_length(const struct encoding *encoding, struct slice s)
{
    uint32_t code_point;
    if (encoding->fates[(unsigned char)s.data[0]] == ENCODED) {
        return 0;
    }
    size_t length = utf8_decode(s, &code_point);
    return length && !utf8_is_forbidden_in_mqtt(code_point) ? length : 0;
}

static void append_percent(struct buf *out, char byte)
{
    static const char digits[] = "0123456789ABCDEF";
    const char text[] = {'%', digits[(unsigned char)byte >> 4], digits[byte & 15]};
    buf_append(out, (struct slice){text, sizeof text});
}

static void append_encoded(struct buf *out, const struct encoding *encoding, struct slice text)
{
    /* Encoding never shortens: what is cut here stays too long, and a hostile value costs no more than this. */
    text.size = text.size > TOPIC_MAX_BYTES ? TOPIC_MAX_BYTES + 1 : text.size;
    size_t run = 0; /* start of the run that stays as it is */
    for (size_t at = pass_staying(encoding, text, 0); at < text.size; at = pass_staying(encoding, text, at)) {
        size_t length = allowed_length(encoding, (struct slice){text.data + at, text.size - at});
        if (length > 0) {
            at += length;
            continue;
        }
        buf_append(out, (struct slice){text.data + run, at - run});
        append_percent(out, text.data[at]);
        run = ++at;
    }
    if (run < text.size) {
        buf_append(out, (struct slice){text.data + run, text.size - run});
    }
}

void topic_append_mqtt_text(struct buf *out, struct slice text)
{
    append_encoded(out, &in_text, text);
}

void topic_append_uri_segment(struct buf *out, struct slice text)
{
    append_encoded(out, &in_uri, text);
}

/* Templates */

enum { PLACEHOLDERS_MAX = 5 };

struct placeholders {
    const char *names[PLACEHOLDERS_MAX];
    size_t count;
};

static const char event_name[] = "event"; /* the one whose dots become levels */
static const struct placeholders of_event = {{event_name, "appId", "webhookId", "objectId", "id"}, 5};
static const struct placeholders of_status = {{"client_id"}, 1};

/* The index of the name, or known->count. */
static size_t find(const struct placeholders *known, struct slice name)
{
    size_t i = 0;
    while (i < known->count && !slice_equal(name, slice_of(known->names[i]))) {
        i++;
    }
    return i;
}

struct part {
    struct slice text; /* literal, or the name between the braces */
    bool is_placeholder;
};

/* The first part of *rest, which moves behind it. Braces must come in pairs, *rest must not be empty. */
static struct part take_part(struct slice *rest)
{
    const char *brace = memchr(rest->data, '{', rest->size);
    struct part part = {{rest->data, brace ? (size_t)(brace - rest->data) : rest->size}, brace == rest->data};
    size_t taken = part.text.size;
    if (part.is_placeholder) {
        const char *end = memchr(brace, '}', rest->size);
        ASSERT(end);
        part.text = (struct slice){brace + 1, (size_t)(end - brace) - 1};
        taken = part.text.size + 2;
    }
    rest->data += taken;
    rest->size -= taken;
    return part;
}

static enum err check_characters(struct slice template, struct error *why)
{
    for (size_t at = 0; at < template.size;) {
        uint32_t code_point;
        size_t length = utf8_decode((struct slice){template.data + at, template.size - at}, &code_point);
        if (length == 0) {
            return error_set(why, ERR_INVALID, "byte %zu of the topic is not UTF-8", at + 1);
        }
        if (utf8_is_forbidden_in_mqtt(code_point)) {
            return error_set(why, ERR_INVALID, "U+%04X at byte %zu is not allowed in a topic", (unsigned)code_point, at + 1);
        }
        if (code_point == '+' || code_point == '#') {
            return error_set(why, ERR_INVALID, "'%c' at byte %zu is a wildcard, and a topic to publish to may not hold one",
                             (char)code_point, at + 1);
        }
        at += length;
    }
    return ERR_NONE;
}

static enum err check_braces(struct slice template, struct error *why)
{
    size_t open = 0; /* byte, counted from 1, of the brace that waits for its end; 0: none */
    for (size_t at = 1; at <= template.size; at++) {
        char c = template.data[at - 1];
        if (c == '{' && open == 0) {
            open = at;
        } else if (c == '{') {
            break;
        } else if (c == '}' && open == 0) {
            return error_set(why, ERR_INVALID, "the '}' at byte %zu ends no placeholder", at);
        } else if (c == '}') {
            open = 0;
        }
    }
    return open == 0 ? ERR_NONE : error_set(why, ERR_INVALID, "the '{' at byte %zu has no '}'", open);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static const char *nearest(const struct placeholders *known, struct slice name)
{
    size_t best = 0, best_distance = SIZE_MAX;
    for (size_t i = 0; i < known->count; i++) {
        size_t distance = slice_distance(name, slice_of(known->names[i]));
        if (distance < best_distance) {
            best = i;
            best_distance = distance;
        }
    }
    return known->names[best];
}

/* The longest start of s of at most max bytes that ends with a whole character; s is UTF-8. */
static struct slice cut(struct slice s, size_t max)
{
    size_t size = smaller(s.size, max);
    while (size > 0 && size < s.size && ((unsigned char)s.data[size] & 0xc0) == 0x80) {
        size--;
    }
    return (struct slice){s.data, size};
}

static enum err check_names(struct slice template, const struct placeholders *known, struct error *why)
{
    while (template.size > 0) {
        struct part part = take_part(&template);
        if (part.is_placeholder && find(known, part.text) == known->count) {
            struct slice shown = cut(part.text, 64);
            return error_set(why, ERR_INVALID, "unknown placeholder {%.*s%s}, did you mean {%s}?", SLICE_ARGS(shown),
                             shown.size < part.text.size ? "…" : "", nearest(known, shown));
        }
    }
    return ERR_NONE;
}

static enum err check(struct slice template, const struct placeholders *known, struct error *why)
{
    if (template.size == 0) {
        return error_set(why, ERR_INVALID, "a topic must not be empty");
    }
    if (template.size > TOPIC_MAX_BYTES) {
        return error_set(why, ERR_INVALID, "a topic of %zu bytes is too long, MQTT allows %d", template.size, TOPIC_MAX_BYTES);
    }
    enum err err = check_characters(template, why);
    if (err == ERR_NONE) {
        err = check_braces(template, why);
    }
    return err == ERR_NONE ? check_names(template, known, why) : err;
}

enum err topic_check_template(struct slice template, struct error *why)
{
    return check(template, &of_event, why);
}

enum err topic_check_status_template(struct slice template, struct error *why)
{
    return check(template, &of_status, why);
}

static void append_value(struct buf *out, struct slice value)
{
    if (slice_starts(value, SLICE("$"))) {
        append_percent(out, '$');
        value.data++;
        value.size--;
    }
    append_encoded(out, &in_topic, value);
}

static void append_event_name(struct buf *out, struct slice name)
{
    const size_t start = out->size;
    append_value(out, name);
    char *text = out->data;
    for (size_t at = start, end = out->size; at < end; at++) {
        if (text[at] == '.') {
            text[at] = '/';
        }
    }
}

/* values[i] belongs to known->names[i]. */
static void expand(struct buf *out, struct slice template, const struct placeholders *known, const struct slice *values)
{
    size_t start = out->size;
    while (template.size > 0 && out->size - start <= TOPIC_MAX_BYTES) {
        struct part part = take_part(&template);
        if (!part.is_placeholder) {
            buf_append(out, part.text);
            continue;
        }
        size_t i = find(known, part.text);
        ASSERT(i < known->count);
        if (known->names[i] == event_name) {
            append_event_name(out, values[i]);
        } else {
            append_value(out, values[i]);
        }
    }
}

void topic_expand(struct buf *out, struct slice template, const struct event *event)
{
    const struct slice values[] = {event->name, event->app_id, event->webhook_id, event->object_id, event->id};
    expand(out, template, &of_event, values);
}

void topic_expand_status(struct buf *out, struct slice template, struct slice client_id)
{
    expand(out, template, &of_status, &client_id);
}
