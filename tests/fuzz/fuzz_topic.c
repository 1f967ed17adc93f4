/* A topic template, and what events make of it. Input: template, event's name, appId, webhookId, objectId, id.
 * The topic is read back by a decoder that knows the template alone: it finds every value again, so two events that differ in
 * one of them have different topics. */
#include "fuzz.h"

#include "meowbridge/topic.h"

static bool is_digit(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F');
}

/* Undoes the percent-encoding; of an event's name, dots stand where slashes stood. */
static void decode(struct buf *out, struct slice level, bool is_name)
{
    for (size_t i = 0; i < level.size; i++) {
        uint8_t byte = (uint8_t)level.data[i];
        if (byte == '%') {
            ASSERT(level.size - i >= 3 && is_digit(level.data[i + 1]) && is_digit(level.data[i + 2]));
            ASSERT(hex_decode((struct slice){level.data + i + 1, 2}, &byte, 1));
            i += 2;
        } else if (byte == '/') {
            ASSERT(is_name);
            byte = '.';
        }
        buf_append_char(out, (char)byte);
    }
}

struct piece {
    struct slice text; /* literal, or a placeholder's name */
    bool is_placeholder;
};

static struct piece take_piece(struct slice *template)
{
    bool is_placeholder = template->data[0] == '{';
    const char *end = memchr(template->data, is_placeholder ? '}' : '{', template->size);
    size_t size = end ? (size_t)(end - template->data) : template->size;
    struct piece piece = {{template->data + is_placeholder, size - is_placeholder}, is_placeholder};
    size += is_placeholder;
    *template = (struct slice){template->data + size, template->size - size};
    return piece;
}

/* Each placeholder alone between slashes, or at an end: then no value can run over into what stands beside it. */
static bool can_be_read_back(struct slice template)
{
    for (size_t i = 0; i < template.size; i++) {
        bool open = template.data[i] == '{' && i > 0 && template.data[i - 1] != '/';
        bool close = template.data[i] == '}' && i + 1 < template.size && template.data[i + 1] != '/';
        if (open || close) {
            return false;
        }
    }
    return true;
}

static struct slice value_of(const struct event *event, struct slice name)
{
    return slice_equal(name, SLICE("event"))       ? event->name
           : slice_equal(name, SLICE("appId"))     ? event->app_id
           : slice_equal(name, SLICE("webhookId")) ? event->webhook_id
           : slice_equal(name, SLICE("objectId"))  ? event->object_id
                                                   : event->id;
}

/* The levels that the value takes: one, or, of an event's name, as many as it has dots and one. */
static struct slice take_levels(struct slice *topic, size_t levels)
{
    size_t size = 0;
    for (; size < topic->size && (topic->data[size] != '/' || levels > 1); size++) {
        levels -= topic->data[size] == '/';
    }
    struct slice taken = {topic->data, size};
    *topic = (struct slice){topic->data + size, topic->size - size};
    return taken;
}

static size_t count_dots(struct slice s)
{
    size_t count = 0;
    for (size_t i = 0; i < s.size; i++) {
        count += s.data[i] == '.';
    }
    return count;
}

static void check_readable(struct slice template, struct slice topic, const struct event *event)
{
    struct buf back;
    buf_init(&back, SIZE_MAX / 2);
    while (template.size > 0) {
        struct piece piece = take_piece(&template);
        if (!piece.is_placeholder) {
            ASSERT(slice_starts(topic, piece.text));
            topic = (struct slice){topic.data + piece.text.size, topic.size - piece.text.size};
            continue;
        }
        struct slice value = value_of(event, piece.text);
        bool is_name = slice_equal(piece.text, SLICE("event"));
        buf_reset(&back);
        decode(&back, take_levels(&topic, is_name ? count_dots(value) + 1 : 1), is_name);
        ASSERT(slice_equal(buf_slice(&back), value));
    }
    ASSERT(topic.size == 0);
    buf_free(&back);
}

static size_t count_char(struct slice s, char c)
{
    size_t count = 0;
    for (size_t i = 0; i < s.size; i++) {
        count += s.data[i] == c;
    }
    return count;
}

static void check_expansion(struct slice template, const struct event *event)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    topic_expand(&out, template, event);
    struct slice topic = buf_slice(&out);
    ASSERT(!out.failed && topic.size <= TOPIC_MAX_BYTES + (320 << 10));
    if (topic.size > 0 && topic.size <= TOPIC_MAX_BYTES) {
        ASSERT(fuzz_is_mqtt_text(topic));
        ASSERT(!memchr(topic.data, '+', topic.size) && !memchr(topic.data, '#', topic.size));
        ASSERT(topic.data[0] != '$' || template.data[0] == '$' || template.data[0] == '{');
        if (template.data[0] == '{' && event->name.size > 0 && event->app_id.size > 0 && event->webhook_id.size > 0 &&
            event->object_id.size > 0 && event->id.size > 0) {
            ASSERT(topic.data[0] != '$');
        }
        if (!memmem(template.data, template.size, "{event}", 7)) {
            ASSERT(count_char(topic, '/') == count_char(template, '/'));
        }
        if (can_be_read_back(template)) {
            check_readable(template, topic, event);
        }
    }
    buf_free(&out);
}

static void check_status(struct slice template, struct slice client_id)
{
    struct buf out;
    struct error why = {0};
    enum err err = topic_check_status_template(template, &why);
    ASSERT(err == ERR_NONE || (err == ERR_INVALID && why.text[0] && fuzz_is_utf8(slice_of(why.text), false)));
    buf_init(&out, 1 << 20);
    if (!err) {
        topic_expand_status(&out, template, client_id);
        ASSERT(!out.failed && fuzz_is_mqtt_text(buf_slice(&out)));
        ASSERT(count_char(buf_slice(&out), '/') == count_char(template, '/'));
    }
    buf_free(&out);
}

static void check_encodings(struct slice text)
{
    struct buf mqtt, uri;
    buf_init(&mqtt, 1 << 20);
    buf_init(&uri, 1 << 20);
    topic_append_mqtt_text(&mqtt, text);
    topic_append_uri_segment(&uri, text);
    ASSERT(!mqtt.failed && fuzz_is_mqtt_text(buf_slice(&mqtt)) && mqtt.size >= text.size);
    for (size_t i = 0; i < uri.size; i++) {
        char c = uri.data[i], lower = (char)(c | 0x20);
        ASSERT((lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || memchr("-._~%", c, 5));
    }
    buf_reset(&mqtt);
    decode(&mqtt, buf_slice(&uri), false);
    ASSERT(!uri.failed && slice_equal(buf_slice(&mqtt), text));
    buf_free(&mqtt);
    buf_free(&uri);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size);
    struct slice template = fuzz_field(&in);
    struct event event = {.name = fuzz_field(&in)};
    event.app_id = fuzz_field(&in);
    event.webhook_id = fuzz_field(&in);
    event.object_id = fuzz_field(&in);
    event.id = fuzz_rest(&in);
    struct error why = {0};
    enum err err = topic_check_template(template, &why);
    ASSERT(err == ERR_NONE || (err == ERR_INVALID && why.text[0] && fuzz_is_utf8(slice_of(why.text), false)));
    if (!err) {
        check_expansion(template, &event);
    }
    check_status(template, event.name);
    check_encodings(event.id);
    fuzz_end(&in);
    return 0;
}
