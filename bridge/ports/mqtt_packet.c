#include "mqtt_packet.h"

#include <string.h>

/* ---- what we send ---- */

static size_t varint_size(size_t value)
{
    return value < 128 ? 1 : value < 16384 ? 2 : value < 2097152 ? 3 : 4;
}

enum {
    PAYLOAD_FORMAT_INDICATOR = 0x01,
    MESSAGE_EXPIRY_INTERVAL = 0x02,
    CONTENT_TYPE = 0x03,
    SERVER_KEEP_ALIVE = 0x13,
    RECEIVE_MAXIMUM = 0x21,
    MAXIMUM_QOS = 0x24,
    RETAIN_AVAILABLE = 0x25,
    USER_PROPERTY = 0x26,
    MAXIMUM_PACKET_SIZE = 0x27,
};

static size_t properties_size(const struct mqtt_publish *message)
{
    size_t size = message->expiry_s > 0 ? 1 + 4 : 0;
    if (message->content_type.size > 0) {
        size += 1 + 1 + 1 + 2 + message->content_type.size; /* with the payload format indicator */
    }
    for (size_t i = 0; i < message->property_count; i++) {
        size += 1 + 2 + message->properties[i].name.size + 2 + message->properties[i].value.size;
    }
    return size;
}

static size_t remaining_length(int version, const struct mqtt_publish *message, size_t properties)
{
    size_t length = 2 + message->topic.size + (message->qos > 0 ? 2 : 0) + message->payload.size;
    return version == 5 ? length + varint_size(properties) + properties : length;
}

size_t mqtt_packet_publish_size(int version, const struct mqtt_publish *message)
{
    size_t length = remaining_length(version, message, properties_size(message));
    return 1 + varint_size(length) + length;
}

static char *put_byte(char *at, size_t value)
{
    *at = (char)value;
    return at + 1;
}

static char *put_two(char *at, size_t value)
{
    return put_byte(put_byte(at, value >> 8), value);
}

static char *put_four(char *at, uint32_t value)
{
    return put_two(put_two(at, value >> 16), value & 0xffff);
}

static char *put_varint(char *at, size_t value)
{
    while (value > 127) {
        at = put_byte(at, (value & 127) | 128);
        value >>= 7;
    }
    return put_byte(at, value);
}

static char *put_bytes(char *at, struct slice s)
{
    if (s.size > 0) {
        memcpy(at, s.data, s.size);
    }
    return at + s.size;
}

static char *put_string(char *at, struct slice s)
{
    ASSERT(s.size <= UINT16_MAX);
    return put_bytes(put_two(at, s.size), s);
}

static char *put_properties(char *at, const struct mqtt_publish *message)
{
    if (message->content_type.size > 0) {
        at = put_byte(put_byte(at, PAYLOAD_FORMAT_INDICATOR), 1);
        at = put_string(put_byte(at, CONTENT_TYPE), message->content_type);
    }
    if (message->expiry_s > 0) {
        at = put_four(put_byte(at, MESSAGE_EXPIRY_INTERVAL), message->expiry_s);
    }
    for (size_t i = 0; i < message->property_count; i++) {
        at = put_string(put_byte(at, USER_PROPERTY), message->properties[i].name);
        at = put_string(at, message->properties[i].value);
    }
    return at;
}

void mqtt_packet_append_publish(struct buf *out, int version, const struct mqtt_publish *message, uint16_t id)
{
    size_t properties = properties_size(message), length = remaining_length(version, message, properties);
    char *begin = buf_reserve(out, 1 + varint_size(length) + length);
    if (!begin) {
        return;
    }
    char *at = put_byte(begin, MQTT_PUBLISH | (unsigned)message->qos << 1 | message->retain);
    at = put_string(put_varint(at, length), message->topic);
    if (message->qos > 0) {
        at = put_two(at, id);
    }
    if (version == 5) {
        at = put_properties(put_varint(at, properties), message);
    }
    at = put_bytes(at, message->payload);
    out->size += (size_t)(at - begin);
    out->data[out->size] = 0;
}

void mqtt_packet_append_ack(struct buf *out, enum mqtt_packet_type type, uint16_t id)
{
    const char packet[] = {(char)type, 2, (char)(id >> 8), (char)id};
    buf_append(out, (struct slice){packet, sizeof packet});
}

void mqtt_packet_append_empty(struct buf *out, enum mqtt_packet_type type)
{
    const char packet[] = {(char)type, 0};
    buf_append(out, (struct slice){packet, sizeof packet});
}

/* ---- what the broker sends ---- */

/* How a property's value is laid out (OASIS MQTT 5, 2.2.2.2), by identifier. */
enum layout { UNKNOWN, BYTE, TWO_BYTES, FOUR_BYTES, VARINT, STRING, STRING_PAIR };
static const uint8_t layouts[] = {
    [0x01] = BYTE,       [0x02] = FOUR_BYTES, [0x03] = STRING,    [0x08] = STRING, [0x09] = STRING,      [0x0b] = VARINT,
    [0x11] = FOUR_BYTES, [0x12] = STRING,     [0x13] = TWO_BYTES, [0x15] = STRING, [0x16] = STRING,      [0x17] = BYTE,
    [0x18] = FOUR_BYTES, [0x19] = BYTE,       [0x1a] = STRING,    [0x1c] = STRING, [0x1f] = STRING,      [0x21] = TWO_BYTES,
    [0x22] = TWO_BYTES,  [0x23] = TWO_BYTES,  [0x24] = BYTE,      [0x25] = BYTE,   [0x26] = STRING_PAIR, [0x27] = FOUR_BYTES,
    [0x28] = BYTE,       [0x29] = BYTE,       [0x2a] = BYTE,
};

/* Which of them a packet may have, as a bit each, and which more than once (the same table). */
#define HAS(id) ((uint64_t)1 << (id))
static const uint64_t repeatable = HAS(0x0b) | HAS(0x26);
static const uint64_t in_connack = HAS(0x11) | HAS(0x12) | HAS(0x13) | HAS(0x15) | HAS(0x16) | HAS(0x1a) | HAS(0x1c) |
                                   HAS(0x1f) | HAS(0x21) | HAS(0x22) | HAS(0x24) | HAS(0x25) | HAS(0x26) | HAS(0x27) |
                                   HAS(0x28) | HAS(0x29) | HAS(0x2a);
static const uint64_t in_publish =
    HAS(0x01) | HAS(0x02) | HAS(0x03) | HAS(0x08) | HAS(0x09) | HAS(0x0b) | HAS(0x23) | HAS(0x26);
static const uint64_t in_ack = HAS(0x1f) | HAS(0x26);
static const uint64_t in_disconnect = HAS(0x11) | HAS(0x1c) | HAS(0x1f) | HAS(0x26);

static bool skip(struct slice *bytes, size_t count)
{
    if (bytes->size < count) {
        return false;
    }
    bytes->data += count;
    bytes->size -= count;
    return true;
}

/* A number of so many bytes, the first one the highest. */
static bool take(struct slice *bytes, size_t count, uint32_t *value)
{
    *value = 0;
    for (size_t i = 0; i < count && i < bytes->size; i++) {
        *value = *value << 8 | (uint8_t)bytes->data[i];
    }
    return skip(bytes, count);
}

static bool skip_string(struct slice *bytes)
{
    uint32_t size;
    return take(bytes, 2, &size) && skip(bytes, size);
}

/* GOOD and the value, BAD if it is longer than four bytes. */
static enum mqtt_packet_check take_varint(struct slice *bytes, size_t *value)
{
    *value = 0;
    for (unsigned i = 0; i < 4; i++) {
        if (i >= bytes->size) {
            return MQTT_PACKET_INCOMPLETE;
        }
        uint8_t byte = (uint8_t)bytes->data[i];
        *value |= (size_t)(byte & 0x7f) << 7 * i;
        if (!(byte & 0x80)) {
            return skip(bytes, i + 1) ? MQTT_PACKET_GOOD : MQTT_PACKET_BAD;
        }
    }
    return MQTT_PACKET_BAD;
}

/* value is that of a number of fixed size, else 0. */
static bool take_value(struct slice *bytes, enum layout layout, uint32_t *value)
{
    size_t ignored;
    *value = 0;
    switch (layout) {
    case BYTE:
        return take(bytes, 1, value);
    case TWO_BYTES:
        return take(bytes, 2, value);
    case FOUR_BYTES:
        return take(bytes, 4, value);
    case VARINT:
        return take_varint(bytes, &ignored) == MQTT_PACKET_GOOD;
    case STRING:
        return skip_string(bytes);
    case STRING_PAIR:
        return skip_string(bytes) && skip_string(bytes);
    default:
        return false;
    }
}

/* What CONNACK's properties say to a publisher; false for a value that there is not. */
static bool note_limit(struct mqtt_packet *packet, uint32_t id, uint32_t value)
{
    switch (id) {
    case RECEIVE_MAXIMUM:
        packet->receive_maximum = (uint16_t)value;
        return value > 0;
    case MAXIMUM_PACKET_SIZE:
        packet->maximum_packet_size = value;
        return value > 0;
    case MAXIMUM_QOS:
        packet->maximum_qos = (uint8_t)value;
        return value < 2;
    case RETAIN_AVAILABLE:
        packet->retain_available = value;
        return value < 2;
    case SERVER_KEEP_ALIVE:
        packet->server_keep_alive_s = (int32_t)value;
        return true;
    default:
        return true;
    }
}

static bool take_properties(struct slice *bytes, uint64_t allowed, struct mqtt_packet *packet)
{
    size_t size;
    if (take_varint(bytes, &size) != MQTT_PACKET_GOOD || size > bytes->size) {
        return false;
    }
    struct slice list = {bytes->data, size};
    while (list.size > 0) {
        uint32_t id, value;
        if (!take(&list, 1, &id) || id >= sizeof layouts || !(allowed & HAS(id)) || !take_value(&list, layouts[id], &value) ||
            !note_limit(packet, id, value)) {
            return false;
        }
        allowed &= ~(HAS(id) & ~repeatable);
    }
    return skip(bytes, size);
}

/* A broker of 3.1.1 answers MQTT 5 in its own tongue, without properties. */
static bool read_connack(int version, struct slice body, struct mqtt_packet *packet)
{
    uint32_t flags, code;
    packet->receive_maximum = UINT16_MAX;
    packet->maximum_qos = 2;
    packet->retain_available = true;
    packet->server_keep_alive_s = -1;
    if (!take(&body, 1, &flags) || !take(&body, 1, &code)) {
        return false;
    }
    packet->reason_code = (uint8_t)code;
    return body.size == 0 || (version == 5 && take_properties(&body, in_connack, packet) && body.size == 0);
}

static bool read_ack(int version, struct slice body, struct mqtt_packet *packet)
{
    uint32_t id, code = 0;
    if (!take(&body, 2, &id) || id == 0 || (version != 5 && body.size > 0)) {
        return false;
    }
    packet->id = (uint16_t)id;
    if (body.size > 0 && !take(&body, 1, &code)) {
        return false;
    }
    packet->reason_code = (uint8_t)code;
    return body.size == 0 || (take_properties(&body, in_ack, packet) && body.size == 0);
}

static bool read_disconnect(int version, struct slice body, struct mqtt_packet *packet)
{
    uint32_t code = 0;
    if (version != 5 || (body.size > 0 && !take(&body, 1, &code))) {
        return false;
    }
    packet->reason_code = (uint8_t)code;
    return body.size == 0 || (take_properties(&body, in_disconnect, packet) && body.size == 0);
}

static bool read_publish(int version, uint8_t first, struct slice body, struct mqtt_packet *packet)
{
    uint32_t id = 1;
    packet->qos = first >> 1 & 3;
    if (packet->qos == 3 || !skip_string(&body) || (packet->qos > 0 && !take(&body, 2, &id)) || id == 0) {
        return false;
    }
    packet->id = (uint16_t)id;
    return version != 5 || take_properties(&body, in_publish, packet);
}

static bool read_body(int version, uint8_t first, struct slice body, struct mqtt_packet *packet)
{
    *packet = (struct mqtt_packet){.type = first};
    switch (first) {
    case MQTT_CONNACK:
        return read_connack(version, body, packet);
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        return read_ack(version, body, packet);
    case MQTT_PINGRESP:
        return body.size == 0;
    case MQTT_DISCONNECT:
        return read_disconnect(version, body, packet);
    default:
        packet->type = MQTT_PUBLISH;
        return (first & 0xf0) == MQTT_PUBLISH && read_publish(version, first, body, packet);
    }
}

/* Whether it is the beginning of anything that a broker may send, so that a stranger is not waited for. */
static bool may_begin(uint8_t first)
{
    switch (first) {
    case MQTT_CONNACK:
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
    case MQTT_PINGRESP:
    case MQTT_DISCONNECT:
        return true;
    default:
        return (first & 0xf0) == MQTT_PUBLISH;
    }
}

enum mqtt_packet_check mqtt_packet_read(int version, struct slice bytes, struct mqtt_packet *packet, size_t *size)
{
    *size = 2;
    if (bytes.size == 0) {
        return MQTT_PACKET_INCOMPLETE;
    }
    struct slice rest = bytes;
    uint8_t first = (uint8_t)bytes.data[0];
    size_t length;
    skip(&rest, 1);
    if (!may_begin(first)) {
        return MQTT_PACKET_BAD;
    }
    enum mqtt_packet_check check = take_varint(&rest, &length);
    if (check != MQTT_PACKET_GOOD) {
        *size = bytes.size + 1;
        return check;
    }
    *size = bytes.size - rest.size + length;
    if (*size > (first == MQTT_CONNACK ? MQTT_CONNACK_MAX : MQTT_RECEIVED_MAX)) {
        return MQTT_PACKET_BAD;
    }
    if (rest.size < length) {
        return MQTT_PACKET_INCOMPLETE;
    }
    return read_body(version, first, (struct slice){rest.data, length}, packet) ? MQTT_PACKET_GOOD : MQTT_PACKET_BAD;
}
