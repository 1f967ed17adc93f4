/* mqtt_packet: the wire format of a publishing client's session, MQTT 5 and 3.1.1; internal to the port. Pure.
 *
 * CONNECT is not here: libmosquitto writes it. */
#ifndef MEOWBRIDGE_MQTT_PACKET_H
#define MEOWBRIDGE_MQTT_PACKET_H

#include "meowbridge/mqtt_client.h"

/* The largest packet that there is: type, and a remaining length of four bytes, as long as that can say (OASIS MQTT 5, 1.5.5). */
#define MQTT_PACKET_MAX (1u + 4u + 268435455u)
/* The largest packets that a broker may send us. A subscription, which would bring larger ones, is never made. */
#define MQTT_CONNACK_MAX 8192u
#define MQTT_RECEIVED_MAX (256u << 10)

/* The control packets' types with the flags that they must have (OASIS MQTT 5, 2.1); a PUBLISH has flags of its own. */
enum mqtt_packet_type {
    MQTT_CONNACK = 0x20,
    MQTT_PUBLISH = 0x30,
    MQTT_PUBACK = 0x40,
    MQTT_PUBREC = 0x50,
    MQTT_PUBREL = 0x62,
    MQTT_PUBCOMP = 0x70,
    MQTT_PINGREQ = 0xc0,
    MQTT_PINGRESP = 0xd0,
    MQTT_DISCONNECT = 0xe0,
};

/* --- what we send --- */

/* Of the whole PUBLISH packet (OASIS MQTT 5, 3.3). */
size_t mqtt_packet_publish_size(int version, const struct mqtt_publish *message);
/* Appends it; out->failed without memory. Strings and sizes must have been checked. id: not 0; QoS 0 has none on the wire. */
void mqtt_packet_append_publish(struct buf *out, int version, const struct mqtt_publish *message, uint16_t id);
/* PUBACK, PUBREC, PUBREL and PUBCOMP, that say success. */
void mqtt_packet_append_ack(struct buf *out, enum mqtt_packet_type type, uint16_t id);
/* PINGREQ, and DISCONNECT that says goodbye (the will is not sent). */
void mqtt_packet_append_empty(struct buf *out, enum mqtt_packet_type type);

/* --- what the broker sends --- */

struct mqtt_packet {
    enum mqtt_packet_type type;
    uint8_t reason_code; /* CONNACK, PUBACK, PUBREC, PUBCOMP, DISCONNECT */
    uint16_t id;         /* PUBACK, PUBREC, PUBREL, PUBCOMP, and PUBLISH where it has one */
    int qos;             /* PUBLISH */
    /* CONNACK; where a property is missing, what the standard says then. */
    uint16_t receive_maximum;
    uint32_t maximum_packet_size; /* 0: none */
    uint8_t maximum_qos;
    bool retain_available;
    int32_t server_keep_alive_s; /* -1: the client's own holds */
};

/* Reads the packet at the start of bytes. GOOD: packet is set, size is how much of bytes it is. INCOMPLETE: more is needed than
 * there is; size is how much in all, as far as it can be told (never more than MQTT_RECEIVED_MAX). BAD: no packet that a broker may
 * send to a client without subscriptions and enhanced authentication; that it may forward messages all the same is allowed for. */
enum mqtt_packet_check { MQTT_PACKET_INCOMPLETE, MQTT_PACKET_GOOD, MQTT_PACKET_BAD };
enum mqtt_packet_check mqtt_packet_read(int version, struct slice bytes, struct mqtt_packet *packet, size_t *size);

#endif
