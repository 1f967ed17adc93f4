/* mqtt_client: one connection to one MQTT broker, in the caller's poll loop. libmosquitto makes it, the session is ours.
 *
 * A client lives for one connection: after any failure it is closed and a new one opened. It never calls back: the caller polls its descriptor, lets it work, and takes events.
 *
 *   RESOLVING ──▶ CONNECTING ──▶ HANDSHAKE (TLS, CONNECT … CONNACK) ──▶ CONNECTED ──▶ CLOSED
 *       └───────────────┴────────────────┴──────────── any failure, or connect_timeout_ms ──▶ CLOSED
 *
 * Invariants: M1 no call blocks (name resolution runs beside it). M2 no more messages are unacknowledged than
 * receive_maximum. M3 nothing is sent that MQTT or the broker's limits forbid (see mqtt_client_publish). M4 every message given to mqtt_client_publish yields exactly one MQTT_CLIENT_ACKED or the client
 * gets CLOSED first.
 * One thread. */
#ifndef MEOWBRIDGE_MQTT_CLIENT_H
#define MEOWBRIDGE_MQTT_CLIENT_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

struct mqtt_client;

struct mqtt_tls_options {
    const char *ca_file;                     /* NULL or empty: the system's trust store */
    const char *certificate_file, *key_file; /* both or neither */
};
/* Shared by the clients that follow each other; reads the files once. TLS 1.2 at least, names verified, SNI sent. */
struct mqtt_tls;
MUST_CHECK enum err mqtt_tls_open(struct mqtt_tls **out, const struct mqtt_tls_options *options, struct error *why);
void mqtt_tls_close(struct mqtt_tls **tls);

struct mqtt_client_options {
    const char *host;
    uint16_t port;
    struct mqtt_tls *tls;             /* NULL: plain TCP. Must outlive the client */
    int version;                      /* 5 or 3 (3.1.1) */
    const char *client_id, *username; /* username NULL or empty: none */
    struct slice password;
    /* 1 s at least (PINGREQ comes every 5 s at the most often). A silent broker is given up after twice that, one that leaves
     * PUBACKs out after once, unless the line is still busy getting our bytes across. */
    int64_t keepalive_ms;
    unsigned window;            /* messages in flight, 1 to 65535 */
    int64_t connect_timeout_ms; /* from open to CONNACK */
    /* With many messages in flight, answers may wait for each other so long: one look for all; 0: no. */
    int64_t ack_patience_ms;
    const char *will_topic; /* NULL: no last will; else retained, QoS 1 */
    struct slice will_payload;
};

enum mqtt_event_type {
    MQTT_CLIENT_CONNECTED, /* once; limits are known now */
    MQTT_CLIENT_ACKED,     /* the broker has answered for a message (QoS 0: it is written to the socket) */
    MQTT_CLIENT_CLOSED     /* last event; text says why */
};
struct mqtt_event {
    enum mqtt_event_type type;
    int mid; /* ACKED */
    /* ACKED: PUBACK or PUBREC/PUBCOMP reason code (0 on 3.1.1), of QoS 2 PUBREC's 0x10 with a PUBCOMP of 0.
     * CLOSED: CONNACK's (1 to 5 on 3.1.1) or DISCONNECT's, or 0. */
    uint8_t reason_code;
    bool refused; /* CLOSED: the broker's CONNACK refused us (password, client id, …) */
    bool silent;  /* CLOSED: an answer was overdue (keep-alive, PUBACK, TCP time-out); the broker closed nothing */
    /* CLOSED, valid until the client is closed: a sentence, and for whoever has said already what was lost, what stands in it
     * behind "lost the connection to HOST:PORT: " or another such phrase; all of it where it does not begin with one. */
    const char *text, *cause;
    bool names_broker; /* CLOSED: text has the broker's HOST:PORT in it, an IPv6 address in brackets */
};

/* What CONNACK allows. */
struct mqtt_limits {
    unsigned receive_maximum;     /* min(window, broker's) */
    uint32_t maximum_packet_size; /* 0: none */
    int maximum_qos;
    bool retain_available;
};

/* Copies what it needs. ERR_INVALID: these options can never work. Whatever the network does is told by CLOSED. */
MUST_CHECK enum err mqtt_client_open(struct mqtt_client **out, const struct mqtt_client_options *options, struct error *why);
/* Closes at once, without DISCONNECT (the will is sent by the broker) unless mqtt_client_disconnect went before. NULL is fine. */
void mqtt_client_close(struct mqtt_client **client);

/* What to poll for: fd -1 if nothing yet. timeout_ms: call mqtt_client_work no later than in that time (-1: no need); 0 while
 * there are events to take. */
void mqtt_client_poll(struct mqtt_client *client, struct pollfd *fd, int *timeout_ms);
/* Does what can be done without waiting. revents: as poll gave them, 0 on a mere time-out. */
void mqtt_client_work(struct mqtt_client *client, short revents);
/* The next event, false if there is none now. */
bool mqtt_client_next(struct mqtt_client *client, struct mqtt_event *event);

bool mqtt_client_is_connected(const struct mqtt_client *client);
const struct mqtt_limits *mqtt_client_limits(const struct mqtt_client *client); /* after CONNECTED */
/* Messages that may be published now. One takes room until its ACKED event is taken; there is none while a megabyte or more waits
 * for the socket. */
unsigned mqtt_client_room(const struct mqtt_client *client);

/* What stands in the content type and in the properties must be legal in MQTT, at most 65535 bytes a string: it goes out as it is.
 * (route_render makes nothing else, see struct message.) The topic is checked. */
struct mqtt_publish {
    struct slice topic, payload;
    int qos;
    bool retain;
    uint32_t expiry_s;         /* 0: none */
    struct slice content_type; /* empty: none. The payload format indicator is 1 when set */
    const struct named_value *properties;
    size_t property_count;
};
/* Exact size of the PUBLISH packet on the wire, to hold against maximum_packet_size. */
size_t mqtt_client_packet_size(const struct mqtt_client *client, const struct mqtt_publish *message);
/* Sends a message; copies all. Only while connected and with room. mid identifies the ACKED event. ERR_CLOSED: the connection
 * broke (CLOSED follows); ERR_INVALID: this message can never be sent here (its topic, or
 * the broker's limits on size, QoS or retain; why says which); ERR_MEMORY. */
MUST_CHECK enum err mqtt_client_publish(struct mqtt_client *client, const struct mqtt_publish *message, int *mid,
                                        struct error *why);
/* Bracket a burst of publishes: packets are joined, and sent at the end at the latest. Without it each is sent at once. */
void mqtt_client_burst(struct mqtt_client *client, bool begin);
/* Sends DISCONNECT; CLOSED follows. */
void mqtt_client_disconnect(struct mqtt_client *client);

/* A PUBACK's reason code (OASIS MQTT 5, 3.4.2.1), sorted by what to do. DOUBTFUL: an error that does not say whether it passes or
 * lies in the message; worth some attempts, but not all of them. */
#define MQTT_REASON_UNHEARD 0x10 /* no matching subscribers */
enum mqtt_ack { MQTT_ACK_DONE, MQTT_ACK_UNHEARD, MQTT_ACK_RETRY, MQTT_ACK_DOUBTFUL, MQTT_ACK_REFUSED };
enum mqtt_ack mqtt_ack_of(uint8_t reason_code);
const char *mqtt_reason_text(uint8_t reason_code); /* "not authorized", … for any code */

#endif
