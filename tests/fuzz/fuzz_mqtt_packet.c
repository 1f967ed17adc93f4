/* What a broker sends, and a PUBLISH as we send it. Input: a byte that chooses the version, the bytes; and, for a
 * PUBLISH, the same bytes as texts. */
#include "fuzz.h"

#include "../../bridge/ports/mqtt_packet.h"

/* --- CONNACK, a second reading --- */

struct reader {
    struct slice rest;
    bool failed;
};

static uint32_t take(struct reader *r, unsigned bytes)
{
    uint32_t value = 0;
    r->failed = r->failed || r->rest.size < bytes;
    for (unsigned i = 0; !r->failed && i < bytes; i++) {
        value = value << 8 | (uint8_t)r->rest.data[i];
    }
    if (!r->failed) {
        r->rest = (struct slice){r->rest.data + bytes, r->rest.size - bytes};
    }
    return value;
}

static size_t take_varint(struct reader *r)
{
    size_t value = 0;
    for (unsigned i = 0; i < 4; i++) {
        uint32_t byte = take(r, 1);
        value += (size_t)(byte & 127) << 7 * i;
        if (byte < 128) {
            return value;
        }
    }
    r->failed = true;
    return 0;
}

static void take_text(struct reader *r)
{
    uint32_t size = take(r, 2);
    r->failed = r->failed || r->rest.size < size;
    if (!r->failed) {
        r->rest = (struct slice){r->rest.data + size, r->rest.size - size};
    }
}

/* OASIS MQTT 5, 2.2.2.2, as its table stands there. Returns the identifier. */
static uint32_t take_property(struct reader *r)
{
    uint32_t id = take(r, 1);
    switch (id) {
    case 1:
    case 23:
    case 25:
    case 36:
    case 37:
    case 40:
    case 41:
    case 42:
        (void)take(r, 1);
        break;
    case 19:
    case 33:
    case 34:
    case 35:
        (void)take(r, 2);
        break;
    case 2:
    case 17:
    case 24:
    case 39:
        (void)take(r, 4);
        break;
    case 11:
        (void)take_varint(r);
        break;
    case 38:
        take_text(r);
        take_text(r);
        break;
    case 3:
    case 8:
    case 9:
    case 18:
    case 21:
    case 22:
    case 26:
    case 28:
    case 31:
        take_text(r);
        break;
    default:
        r->failed = true;
    }
    return id;
}

/* The properties of a CONNACK: each once but for the user's, no other packet's, and the four that limit us in their bounds. */
static void take_connack_properties(struct reader *r)
{
    bool seen[256] = {false};
    while (!r->failed && r->rest.size > 0) {
        struct reader value = *r;
        uint32_t id = take_property(r);
        (void)take(&value, 1);
        switch (id) {
        case 33:
            r->failed = r->failed || take(&value, 2) == 0;
            break;
        case 39:
            r->failed = r->failed || take(&value, 4) == 0;
            break;
        case 36:
        case 37:
            r->failed = r->failed || take(&value, 1) > 1;
            break;
        case 1:
        case 2:
        case 3:
        case 8:
        case 9:
        case 11:
        case 23:
        case 24:
        case 25:
        case 35:
            r->failed = true;
            break;
        }
        r->failed = r->failed || (seen[id] && id != 38);
        seen[id] = true;
    }
}

static bool is_connack(int version, struct slice bytes)
{
    struct reader r = {.rest = bytes};
    bool right = take(&r, 1) == 0x20;
    size_t length = take_varint(&r);
    r.failed = r.failed || !right || length < 2 || length > r.rest.size || (version != 5 && length != 2);
    r.rest.size = r.failed ? 0 : length;
    (void)take(&r, 2);
    if (!r.failed && r.rest.size > 0) {
        size_t properties = take_varint(&r);
        r.failed = r.failed || properties != r.rest.size || version != 5;
        take_connack_properties(&r);
    }
    return !r.failed;
}

static void check_received(int version, struct slice bytes)
{
    struct mqtt_packet packet, again;
    size_t size, size_again;
    enum mqtt_packet_check check = mqtt_packet_read(version, bytes, &packet, &size);
    ASSERT(check == MQTT_PACKET_BAD || size <= MQTT_RECEIVED_MAX + 5);
    ASSERT(check != MQTT_PACKET_GOOD || (size >= 2 && size <= bytes.size));
    ASSERT(check != MQTT_PACKET_INCOMPLETE || size > bytes.size);
    if (bytes.size > 0 && (uint8_t)bytes.data[0] == 0x20 && bytes.size < MQTT_CONNACK_MAX - 5) {
        ASSERT((check == MQTT_PACKET_GOOD) == is_connack(version, bytes));
    }
    if (check == MQTT_PACKET_GOOD) { /* what follows it changes nothing, and what it needs is needed */
        ASSERT(mqtt_packet_read(version, (struct slice){bytes.data, size}, &again, &size_again) == MQTT_PACKET_GOOD);
        ASSERT(size_again == size && memcmp(&packet, &again, sizeof packet) == 0);
        ASSERT(mqtt_packet_read(version, (struct slice){bytes.data, size - 1}, &again, &size_again) == MQTT_PACKET_INCOMPLETE);
    }
    if (bytes.size > 0) { /* a byte less: it was incomplete, or it says the same already */
        enum mqtt_packet_check before =
            mqtt_packet_read(version, (struct slice){bytes.data, bytes.size - 1}, &again, &size_again);
        ASSERT(before == MQTT_PACKET_INCOMPLETE || before == check);
    }
}

/* --- PUBLISH, written out --- */

static void put(struct buf *out, size_t value, unsigned bytes)
{
    while (bytes-- > 0) {
        buf_append_char(out, (char)(value >> 8 * bytes));
    }
}

static void put_text(struct buf *out, struct slice text)
{
    put(out, text.size, 2);
    buf_append(out, text);
}

static void put_varint(struct buf *out, size_t value)
{
    do {
        buf_append_char(out, (char)((value & 127) | (value > 127 ? 128 : 0)));
        value >>= 7;
    } while (value > 0);
}

static void put_properties(struct buf *out, const struct mqtt_publish *m)
{
    if (m->content_type.size > 0) {
        put(out, 0x0101, 2);
        put(out, 3, 1);
        put_text(out, m->content_type);
    }
    if (m->expiry_s > 0) {
        put(out, 2, 1);
        put(out, m->expiry_s, 4);
    }
    for (size_t i = 0; i < m->property_count; i++) {
        put(out, 38, 1);
        put_text(out, m->properties[i].name);
        put_text(out, m->properties[i].value);
    }
}

static void check_publish(int version, const struct mqtt_publish *m)
{
    struct buf body, properties, packet;
    buf_init(&body, 1 << 24);
    buf_init(&properties, 1 << 24);
    buf_init(&packet, 1 << 24);
    put_text(&body, m->topic);
    put(&body, 0x1234, m->qos > 0 ? 2 : 0);
    if (version == 5) {
        put_properties(&properties, m);
        put_varint(&body, properties.size);
        buf_append(&body, buf_slice(&properties));
    }
    buf_append(&body, m->payload);
    put(&packet, 0x30 + (size_t)m->qos * 2 + m->retain, 1);
    put_varint(&packet, body.size);
    buf_append(&packet, buf_slice(&body));
    ASSERT(mqtt_packet_publish_size(version, m) == packet.size);
    struct buf written;
    buf_init(&written, 1 << 24);
    buf_append_char(&written, '*'); /* it appends */
    mqtt_packet_append_publish(&written, version, m, 0x1234);
    ASSERT(!written.failed && slice_equal((struct slice){written.data + 1, written.size - 1}, buf_slice(&packet)));
    buf_free(&written);
    buf_free(&body);
    buf_free(&properties);
    buf_free(&packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size), texts;
    uint8_t flags = fuzz_byte(&in);
    int version = flags & 1 ? 5 : 3;
    texts = fuzz_begin(data, size);
    struct slice bytes = fuzz_rest(&in);
    check_received(version, bytes);
    struct named_value properties[2] = {{fuzz_field(&texts), fuzz_field(&texts)}, {fuzz_field(&texts), fuzz_field(&texts)}};
    struct mqtt_publish message = {
        .topic = fuzz_field(&texts), .qos = (flags >> 1 & 3) % 3, .retain = flags >> 7, .expiry_s = flags & 4};
    message.content_type = fuzz_field(&texts);
    message.payload = fuzz_rest(&texts);
    message.properties = properties;
    message.property_count = (flags >> 3) % 3;
    check_publish(version, &message);
    ASSERT(mqtt_reason_text(flags)[0] && mqtt_ack_of(flags) <= MQTT_ACK_REFUSED);
    fuzz_end(&in);
    fuzz_end(&texts);
    return 0;
}
