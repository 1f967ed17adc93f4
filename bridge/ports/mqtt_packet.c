#include "mqtt_packet.h"

static size_t varint_size(size_t value)
{
    return value < 128 ? 1 : value < 16384 ? 2 : value < 2097152 ? 3 : 4;
}

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

size_t mqtt_packet_remaining_length(int version, const struct mqtt_publish *message)
{
    size_t length = 2 + message->topic.size + (message->qos > 0 ? 2 : 0) + message->payload.size;
    if (version == 5) {
        size_t properties = properties_size(message);
        length += varint_size(properties) + properties;
    }
    return length;
}

size_t mqtt_packet_publish_size(int version, const struct mqtt_publish *message)
{
    size_t length = mqtt_packet_remaining_length(version, message);
    return 1 + varint_size(length) + length;
}

/* How a property's value is laid out (OASIS MQTT 5, 2.2.2.2), by identifier. */
enum layout { UNKNOWN, BYTE, TWO_BYTES, FOUR_BYTES, VARINT, STRING, STRING_PAIR };
static const uint8_t layouts[] = {
    [0x01] = BYTE,       [0x02] = FOUR_BYTES, [0x03] = STRING,    [0x08] = STRING, [0x09] = STRING,      [0x0b] = VARINT,
    [0x11] = FOUR_BYTES, [0x12] = STRING,     [0x13] = TWO_BYTES, [0x15] = STRING, [0x16] = STRING,      [0x17] = BYTE,
    [0x18] = FOUR_BYTES, [0x19] = BYTE,       [0x1a] = STRING,    [0x1c] = STRING, [0x1f] = STRING,      [0x21] = TWO_BYTES,
    [0x22] = TWO_BYTES,  [0x23] = TWO_BYTES,  [0x24] = BYTE,      [0x25] = BYTE,   [0x26] = STRING_PAIR, [0x27] = FOUR_BYTES,
    [0x28] = BYTE,       [0x29] = BYTE,       [0x2a] = BYTE,
};

static bool skip(struct slice *bytes, size_t count)
{
    if (bytes->size < count) {
        return false;
    }
    bytes->data += count;
    bytes->size -= count;
    return true;
}

static bool skip_string(struct slice *bytes)
{
    return bytes->size >= 2 && skip(bytes, 2 + ((size_t)(uint8_t)bytes->data[0] << 8 | (uint8_t)bytes->data[1]));
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

static bool skip_property(struct slice *bytes)
{
    uint8_t id = (uint8_t)bytes->data[0];
    size_t value;
    skip(bytes, 1);
    switch (id < sizeof layouts ? layouts[id] : UNKNOWN) {
    case BYTE:
        return skip(bytes, 1);
    case TWO_BYTES:
        return skip(bytes, 2);
    case FOUR_BYTES:
        return skip(bytes, 4);
    case VARINT:
        return take_varint(bytes, &value) == MQTT_PACKET_GOOD;
    case STRING:
        return skip_string(bytes);
    case STRING_PAIR:
        return skip_string(bytes) && skip_string(bytes);
    default:
        return false;
    }
}

/* The body after the flags and the reason code. A broker of old answers MQTT 5 in its own tongue, without properties. */
static bool are_properties(struct slice body)
{
    size_t size;
    if (body.size == 0) {
        return true;
    }
    if (take_varint(&body, &size) != MQTT_PACKET_GOOD || size != body.size) {
        return false;
    }
    while (body.size > 0) {
        if (!skip_property(&body)) {
            return false;
        }
    }
    return true;
}

enum mqtt_packet_check mqtt_packet_check_connack(int version, struct slice bytes)
{
    if (bytes.size == 0) {
        return MQTT_PACKET_INCOMPLETE;
    }
    if ((uint8_t)bytes.data[0] != 0x20) {
        return MQTT_PACKET_BAD;
    }
    size_t length;
    skip(&bytes, 1);
    enum mqtt_packet_check check = take_varint(&bytes, &length);
    if (check != MQTT_PACKET_GOOD) {
        return check;
    }
    if (length < 2 || length > MQTT_CONNACK_MAX - 5 || (version != 5 && length != 2)) {
        return MQTT_PACKET_BAD;
    }
    if (bytes.size < length) {
        return MQTT_PACKET_INCOMPLETE;
    }
    struct slice body = {bytes.data + 2, length - 2};
    return are_properties(body) ? MQTT_PACKET_GOOD : MQTT_PACKET_BAD;
}
