/* The reason codes of OASIS MQTT 5.0, section 2.4, their names, and what a PUBACK, PUBREC or PUBCOMP with each asks of the sender.
 *
 * What another attempt can change is tried again: a lack of resources, and the packet identifier errors 0x91 and 0x92, which say
 * that the two sides disagree about the session, and a new session ends that. What lies in the message or in the permissions is
 * refused for good. An unexplained error can be either, and is doubtful. A code that the standard does not know counts as its
 * class does: from 0x80 on an unspecified error, below it a success. */
#include "meowbridge/mqtt_client.h"

static const struct reason {
    uint8_t code;
    enum mqtt_ack ack;
    const char *text;
} reasons[] = {
    {0x00, MQTT_ACK_DONE, "success"},
    {0x01, MQTT_ACK_DONE, "granted QoS 1"},
    {0x02, MQTT_ACK_DONE, "granted QoS 2"},
    {0x04, MQTT_ACK_DONE, "disconnect with will message"},
    {0x10, MQTT_ACK_UNHEARD, "no matching subscribers"},
    {0x11, MQTT_ACK_DONE, "no subscription existed"},
    {0x18, MQTT_ACK_DONE, "continue authentication"},
    {0x19, MQTT_ACK_DONE, "re-authenticate"},
    {0x80, MQTT_ACK_DOUBTFUL, "unspecified error"},
    {0x81, MQTT_ACK_REFUSED, "malformed packet"},
    {0x82, MQTT_ACK_REFUSED, "protocol error"},
    {0x83, MQTT_ACK_DOUBTFUL, "implementation specific error"},
    {0x84, MQTT_ACK_REFUSED, "unsupported protocol version"},
    {0x85, MQTT_ACK_REFUSED, "client identifier not valid"},
    {0x86, MQTT_ACK_REFUSED, "bad user name or password"},
    {0x87, MQTT_ACK_REFUSED, "not authorized"},
    {0x88, MQTT_ACK_RETRY, "server unavailable"},
    {0x89, MQTT_ACK_RETRY, "server busy"},
    {0x8a, MQTT_ACK_REFUSED, "banned"},
    {0x8b, MQTT_ACK_RETRY, "server shutting down"},
    {0x8c, MQTT_ACK_REFUSED, "bad authentication method"},
    {0x8d, MQTT_ACK_RETRY, "keep alive timeout"},
    {0x8e, MQTT_ACK_RETRY, "session taken over"},
    {0x8f, MQTT_ACK_REFUSED, "topic filter invalid"},
    {0x90, MQTT_ACK_REFUSED, "topic name invalid"},
    {0x91, MQTT_ACK_RETRY, "packet identifier in use"},
    {0x92, MQTT_ACK_RETRY, "packet identifier not found"},
    {0x93, MQTT_ACK_RETRY, "receive maximum exceeded"},
    {0x94, MQTT_ACK_REFUSED, "topic alias invalid"},
    {0x95, MQTT_ACK_REFUSED, "packet too large"},
    {0x96, MQTT_ACK_RETRY, "message rate too high"},
    {0x97, MQTT_ACK_RETRY, "quota exceeded"},
    {0x98, MQTT_ACK_RETRY, "administrative action"},
    {0x99, MQTT_ACK_REFUSED, "payload format invalid"},
    {0x9a, MQTT_ACK_REFUSED, "retain not supported"},
    {0x9b, MQTT_ACK_REFUSED, "QoS not supported"},
    {0x9c, MQTT_ACK_RETRY, "use another server"},
    {0x9d, MQTT_ACK_RETRY, "server moved"},
    {0x9e, MQTT_ACK_REFUSED, "shared subscriptions not supported"},
    {0x9f, MQTT_ACK_RETRY, "connection rate exceeded"},
    {0xa0, MQTT_ACK_RETRY, "maximum connect time"},
    {0xa1, MQTT_ACK_REFUSED, "subscription identifiers not supported"},
    {0xa2, MQTT_ACK_REFUSED, "wildcard subscriptions not supported"},
};

static const struct reason unknown_success = {0, MQTT_ACK_DONE, "unknown success"};
static const struct reason unknown_error = {0, MQTT_ACK_DOUBTFUL, "unknown error"};

static const struct reason *reason_of(uint8_t code)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].code == code) {
            return &reasons[i];
        }
    }
    return code < 0x80 ? &unknown_success : &unknown_error;
}

enum mqtt_ack mqtt_ack_of(uint8_t reason_code)
{
    return reason_code == 0 ? MQTT_ACK_DONE : reason_of(reason_code)->ack;
}

const char *mqtt_reason_text(uint8_t reason_code)
{
    return reason_of(reason_code)->text;
}
