/* A broker in the place of mqtt_client. Every attempt meets what `broker` says at that moment; every message is recorded and
 * answered as broker.answer says. */
#ifndef FAKE_MQTT_CLIENT_H
#define FAKE_MQTT_CLIENT_H

#include "meowbridge/mqtt_client.h"

/* An answer: a reason code, or one of these. */
enum { HOLD = -1, CLOSE = -2, CONFIRM_AND_CLOSE = -3, REFUSE_AND_CLOSE = -4 };

struct sent {
    int connection; /* counts from 1 */
    int mid;
    char *topic, *payload;
    int qos;
    bool retain;
    uint32_t expiry_s;
    size_t content_type_size, property_count;
    int64_t at_ms;
    bool answered;
};

struct fake_broker {
    const char *unreachable;      /* attempts fail with this text; NULL: they succeed */
    const char *unreachable_host; /* attempts at this host fail; NULL: none */
    bool is_silent;               /* unreachable is for want of an answer */
    bool rejects_wills;           /* attempts with a last will are closed */
    int refuse;                   /* CONNACK with this reason code; 0: accept */
    struct mqtt_limits limits;
    int (*answer)(const struct sent *message); /* NULL: 0x00 to all */
    enum err publish_error;                    /* of the next publish_errors messages */
    int publish_errors;
    bool never_completes; /* attempts hang */
};
extern struct fake_broker fake_broker;

void fake_broker_reset(void);
int fake_connections(void);  /* attempts so far */
const char *fake_host(void); /* of the last attempt */
bool fake_has_will(void);
bool fake_was_disconnected(void); /* the last connection ended with DISCONNECT */
size_t fake_sent_count(void);
const struct sent *fake_sent(size_t i);
unsigned fake_max_in_flight(void);
int fake_bursts(void);
/* The topics of what connection (0: all) got, but for the status topic, as "a b c". Valid until the next call. */
const char *fake_topics(int connection);
void fake_answer(size_t i, uint8_t reason_code);                     /* of a message held */
void fake_answer_all(uint8_t reason_code);                           /* every message held on this connection, in order */
void fake_close(uint8_t reason_code, bool silent, const char *text); /* the connection that stands */
void fake_close_named(const char *text, const char *cause);          /* the same, silent; text names the broker */

#endif
