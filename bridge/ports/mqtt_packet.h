/* mqtt_packet: the little of the wire format that the port must know beside libmosquitto; internal to it. Pure. */
#ifndef MEOWBRIDGE_MQTT_PACKET_H
#define MEOWBRIDGE_MQTT_PACKET_H

#include "meowbridge/mqtt_client.h"

/* The largest remaining length that there is (OASIS MQTT 5, 1.5.5). */
#define MQTT_REMAINING_LENGTH_MAX 268435455u

/* Of the whole PUBLISH packet, in MQTT 5 or 3.1.1 (OASIS MQTT 5, 3.3). */
size_t mqtt_packet_publish_size(int version, const struct mqtt_publish *message);
size_t mqtt_packet_remaining_length(int version, const struct mqtt_publish *message);

/* Whether a broker's first bytes are a CONNACK that the library may see: 2.0.11 aborts the process over a property that it does
 * not know. size 0 is incomplete. */
enum mqtt_packet_check { MQTT_PACKET_INCOMPLETE, MQTT_PACKET_GOOD, MQTT_PACKET_BAD };
#define MQTT_CONNACK_MAX 8192
enum mqtt_packet_check mqtt_packet_check_connack(int version, struct slice bytes);

#endif
