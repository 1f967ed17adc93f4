/* One MQTT connection, as libmosquitto 2.0.11 can be had to make it.
 *
 * The library is used for its wire format only: no thread of its own, no loop of its own, no reconnect, no queue. Its callbacks
 * run inside its loop functions, some with its locks held, so they only write down what happened (on_connect, on_publish,
 * on_disconnect); settle() looks at that when the library has returned, and is where states change.
 *
 * Its ways that shape this file:
 *  - mosquitto_connect_async resolves names synchronously and forgets all addresses but one. It is given one address in figures
 *    at a time; the resolver and the turn over the addresses are ours.
 *  - There is no asynchronous connect with CONNECT properties. Their absence means what we want: session expiry 0.
 *  - A QoS 0 message is reported as published from inside mosquitto_publish_v5, before that has returned.
 *  - What mosquitto_publish_v5 refuses with MOSQ_ERR_NO_CONN may be queued or not; the connection ends there either way.
 *  - on_disconnect gets an MQTT reason code or a library error code in the same argument. It is the broker's reason exactly when
 *    the loop function returns success.
 *  - After a bad client id mosquitto_new closes file descriptor 0; a PUBLISH one byte too long ends in a failed assertion. So all
 *    that goes in is checked here first. An unknown property from the broker does so, too: see mqtt_guard.c.
 *  - The reason code of a PUBREC is dropped unless it is an error: a QoS 2 message is never reported as unheard (0x10).
 *  - A broker's DISCONNECT that arrives while a packet is half written costs the memory of that packet. */
#include "meowbridge/mqtt_client.h"

#include "meowbridge/clock.h"
#include "mqtt_guard.h"
#include "mqtt_packet.h"
#include "mqtt_tls.h"
#include "resolver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
    TICK_MS = 1000,              /* at most: the library's clock has whole seconds */
    LIBRARY_KEEPALIVE_MIN_S = 5, /* it takes no less */
    CONNACK_PAUSE_MS = 10,
    STRING_MAX = 65535,
};

enum state { RESOLVING, CONNECTING, TLS_HANDSHAKE, AWAITING_CONNACK, CONNECTED, DISCONNECTING, CLOSED };

struct ack {
    uint16_t mid;
    uint8_t reason_code;
};

struct mqtt_client {
    enum state state;
    struct mosquitto *library;
    struct mqtt_tls_session *tls; /* NULL: plain TCP */
    bool is_poisoned;             /* an assertion of the library failed over a packet: it can only be destroyed */
    int version;
    unsigned window;
    int64_t keepalive_ms, connect_timeout_ms;
    char *host, *where; /* where: host and port, for people */
    uint16_t port;
    int64_t now_ms; /* when the current call began */

    struct resolver *resolver;
    struct resolver_answer addresses;
    size_t next_address;
    int64_t connect_deadline_ms, address_deadline_ms;
    char attempts[300]; /* "Connection refused (::1), …" */
    bool is_paused;     /* half a CONNACK is there: look again in a moment */

    /* What the callbacks have seen. */
    unsigned connacks, disconnects;
    uint8_t connack_code;
    int disconnect_code;
    struct mqtt_limits limits;

    /* Messages: in_use has those that the broker has not answered for, acks those answers that the caller has not taken.
     * Invariant: unanswered + ack_count <= limits.receive_maximum <= window, which is the capacity of acks. */
    uint64_t in_use[(UINT16_MAX + 1) / 64];
    unsigned unanswered;
    struct ack *acks;
    unsigned ack_first, ack_count;
    int sending; /* the library sets it to the message identifier while mosquitto_publish_v5 runs; else 0 */
    bool sent;   /* and this tells that the message was reported before the call returned */
    bool is_corked;
    struct buf strings; /* the NUL-terminated ones that the library wants */

    /* Life signs. */
    int64_t ping_ms; /* the library sends PINGREQ when nothing was sent or heard for so long; 0: never */
    int64_t heard_ms, progress_ms, tick_ms;
    int64_t disconnect_deadline_ms;
    int unsent;       /* bytes that the kernel had to send or resend at the last tick */
    int socket_error; /* what poll's POLLERR was about */

    bool connected_due, closed_due;
    struct mqtt_event closed;
    char text[400];
};

/* ---- states and events ---- */

static void set_state(struct mqtt_client *client, enum state state)
{
    ASSERT(client->state != CLOSED);
    client->state = state;
    client->connected_due |= state == CONNECTED;
    client->closed_due |= state == CLOSED;
}

static void __attribute__((format(printf, 2, 3))) finish(struct mqtt_client *client, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(client->text, sizeof client->text, format, arguments);
    va_end(arguments);
    set_state(client, CLOSED);
}

bool mqtt_client_next(struct mqtt_client *client, struct mqtt_event *event)
{
    if (client->connected_due) {
        client->connected_due = false;
        *event = (struct mqtt_event){.type = MQTT_CLIENT_CONNECTED};
        return true;
    }
    if (client->ack_count > 0) {
        const struct ack *ack = &client->acks[client->ack_first];
        *event = (struct mqtt_event){.type = MQTT_CLIENT_ACKED, .mid = ack->mid, .reason_code = ack->reason_code};
        client->ack_first = (client->ack_first + 1) % client->window;
        client->ack_count--;
        return true;
    }
    if (client->closed_due) {
        client->closed_due = false;
        *event = client->closed;
        event->type = MQTT_CLIENT_CLOSED;
        event->text = client->text;
        return true;
    }
    return false;
}

static void add_ack(struct mqtt_client *client, int mid, int reason_code)
{
    ASSERT(client->ack_count < client->window);
    unsigned place = (client->ack_first + client->ack_count++) % client->window;
    client->acks[place] = (struct ack){(uint16_t)mid, (uint8_t)reason_code};
}

static bool is_in_use(const struct mqtt_client *client, int mid)
{
    return client->in_use[mid / 64] >> mid % 64 & 1;
}

static void set_in_use(struct mqtt_client *client, int mid, bool in_use)
{
    client->in_use[mid / 64] ^= (uint64_t)1 << mid % 64;
    client->unanswered += in_use ? 1 : -1u;
}

/* ---- callbacks ---- */

static void on_connect(struct mosquitto *library, void *ctx, int code, int flags, const mosquitto_property *properties)
{
    (void)library, (void)flags;
    struct mqtt_client *client = ctx;
    client->connacks++;
    client->connack_code = (uint8_t)code;
    uint16_t receive_maximum = UINT16_MAX, keepalive_s;
    uint8_t maximum_qos = 2, retain_available = 1;
    uint32_t maximum_packet_size = 0;
    mosquitto_property_read_int16(properties, MQTT_PROP_RECEIVE_MAXIMUM, &receive_maximum, false);
    mosquitto_property_read_byte(properties, MQTT_PROP_MAXIMUM_QOS, &maximum_qos, false);
    mosquitto_property_read_byte(properties, MQTT_PROP_RETAIN_AVAILABLE, &retain_available, false);
    mosquitto_property_read_int32(properties, MQTT_PROP_MAXIMUM_PACKET_SIZE, &maximum_packet_size, false);
    client->limits = (struct mqtt_limits){
        .receive_maximum = receive_maximum < client->window ? receive_maximum : client->window,
        .maximum_packet_size = maximum_packet_size,
        .maximum_qos = maximum_qos,
        .retain_available = retain_available,
    };
    if (mosquitto_property_read_int16(properties, MQTT_PROP_SERVER_KEEP_ALIVE, &keepalive_s, false)) {
        client->ping_ms = keepalive_s * 1000; /* and the library obeys it */
    }
}

static void on_publish(struct mosquitto *library, void *ctx, int mid, int reason_code, const mosquitto_property *properties)
{
    (void)library, (void)properties;
    struct mqtt_client *client = ctx;
    if (mid == client->sending) {
        client->sent = true;
    } else if (is_in_use(client, mid)) {
        set_in_use(client, mid, false);
        add_ack(client, mid, reason_code);
        client->progress_ms = client->now_ms;
    }
}

/* The first call tells the cause; the library may make another when it finds the socket closed. */
static void on_disconnect(struct mosquitto *library, void *ctx, int code, const mosquitto_property *properties)
{
    (void)library, (void)properties;
    struct mqtt_client *client = ctx;
    if (client->disconnects++ == 0) {
        client->disconnect_code = code;
    }
}

/* ---- the end of a connection ---- */

static const char *cause_of(const struct mqtt_client *client, int rc, int error)
{
    const char *trouble = client->tls ? mqtt_tls_session_trouble(client->tls) : NULL;
    if (trouble) {
        return trouble;
    }
    switch (rc) {
    case MOSQ_ERR_CONN_LOST:
    case MOSQ_ERR_ERRNO:
        /* The library makes EPROTO of whatever ends a TLS connection. */
        return error == ECONNRESET             ? "the broker reset the connection"
               : error != 0 && error != EPROTO ? strerror(error)
                                               : "the broker closed the connection";
    case MOSQ_ERR_PROTOCOL:
    case MOSQ_ERR_MALFORMED_PACKET:
    case MOSQ_ERR_MALFORMED_UTF8:
    case MOSQ_ERR_DUPLICATE_PROPERTY:
        return "what the broker sent is not valid MQTT";
    case MOSQ_ERR_NOMEM:
        return "out of memory";
    default:
        return mosquitto_strerror(rc);
    }
}

static bool is_silence(int error)
{
    return error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH;
}

static void finish_silent(struct mqtt_client *client, const char *what, int64_t span_ms)
{
    client->closed.silent = true;
    finish(client, "%s: %s for %g s", client->where, what, (double)span_ms / 1000);
}

static int64_t silence_limit_ms(const struct mqtt_client *client)
{
    return client->ping_ms > 0 ? client->ping_ms + client->keepalive_ms : INT64_MAX / 2;
}

static void fail(struct mqtt_client *client, int rc, int error)
{
    static const char *const phases[] = {
        [RESOLVING] = "cannot connect to",       [CONNECTING] = "cannot connect to",
        [TLS_HANDSHAKE] = "no TLS session with", [AWAITING_CONNACK] = "no MQTT session with",
        [CONNECTED] = "lost the connection to",
    };
    if (rc == MOSQ_ERR_KEEPALIVE) {
        finish_silent(client, "nothing was heard from the broker", silence_limit_ms(client));
        return;
    }
    error = client->socket_error ? client->socket_error : error;
    client->closed.silent = is_silence(error);
    finish(client, "%s %s: %s", phases[client->state], client->where, cause_of(client, rc, error));
}

static void finish_disconnected(struct mqtt_client *client)
{
    uint8_t code = (uint8_t)client->disconnect_code;
    client->closed.reason_code = code;
    finish(client, "%s disconnected us: %s (0x%02x)%s", client->where, mqtt_reason_text(code), code,
           code == MQTT_RC_SESSION_TAKEN_OVER ? ": another client uses this client id" : "");
}

static const char *refusal_text(uint8_t code)
{
    static const char *const version_3[] = {"success",
                                            "unacceptable protocol version",
                                            "client identifier rejected",
                                            "server unavailable",
                                            "bad user name or password",
                                            "not authorized"};
    return code < sizeof version_3 / sizeof version_3[0] ? version_3[code] : mqtt_reason_text(code);
}

static void answer_connack(struct mqtt_client *client)
{
    uint8_t code = client->connack_code;
    if (code != 0) {
        client->closed.refused = true;
        client->closed.reason_code = code;
        finish(client, "%s: the broker refused the connection: %s (0x%02x)", client->where, refusal_text(code), code);
        return;
    }
    mosquitto_username_pw_set(client->library, NULL, NULL); /* the password is not kept longer than needed */
    client->heard_ms = client->tick_ms = client->progress_ms = client->now_ms;
    set_state(client, CONNECTED);
}

/* What came of a call to the library. */
static void settle(struct mqtt_client *client, int rc, int error)
{
    if (client->state == AWAITING_CONNACK && client->connacks == 1) {
        answer_connack(client);
    }
    if (client->state == CLOSED) {
        return;
    }
    if (client->state == DISCONNECTING && (rc || client->disconnects > 0)) {
        finish(client, "disconnected from %s", client->where);
    } else if (rc || client->connacks > 1) {
        fail(client, rc ? rc : MOSQ_ERR_PROTOCOL, error);
    } else if (client->disconnects > 0) {
        finish_disconnected(client);
    }
}

static void before_library(const struct mqtt_client *client)
{
    if (client->tls) {
        mqtt_tls_clear_errors();
    }
    errno = 0;
}

/* ---- opening ---- */

static int library_keepalive_s(const struct mqtt_client *client)
{
    int64_t seconds = (client->keepalive_ms + 999) / 1000;
    return seconds > LIBRARY_KEEPALIVE_MIN_S ? (int)seconds : LIBRARY_KEEPALIVE_MIN_S;
}

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void start_library(void)
{
    mosquitto_lib_init();
    signal(SIGPIPE, SIG_IGN);
}

/* What MQTT allows in a string (OASIS MQTT 5, 1.5.4), and brokers are known to accept. */
static bool is_mqtt_string(struct slice s)
{
    if (s.size > STRING_MAX) {
        return false;
    }
    while (s.size > 0) {
        uint32_t point = (uint8_t)*s.data;
        size_t size = 1;
        if (point < 0x20 || point >= 0x7f) {
            size = utf8_decode(s, &point);
            if (size == 0 || utf8_is_forbidden_in_mqtt(point)) {
                return false;
            }
        }
        s.data += size;
        s.size -= size;
    }
    return true;
}

static bool is_topic_name(struct slice topic)
{
    return topic.size > 0 && is_mqtt_string(topic) && !memchr(topic.data, '+', topic.size) &&
           !memchr(topic.data, '#', topic.size);
}

static bool is_mqtt_data(struct slice s)
{
    return s.size <= STRING_MAX && !(s.size > 0 && memchr(s.data, 0, s.size));
}

static bool is_given(const char *text)
{
    return text && *text;
}

static enum err check_options(const struct mqtt_client_options *options, struct error *why)
{
    if (!is_given(options->host) || options->port == 0) {
        return error_set(why, ERR_INVALID, "a broker needs a host and a port other than 0");
    }
    if (options->version != 5 && options->version != 3) {
        return error_set(why, ERR_INVALID, "MQTT version %d is not 5 or 3", options->version);
    }
    if (options->window < 1 || options->window > UINT16_MAX) {
        return error_set(why, ERR_INVALID, "a window of %u messages is not in 1 to 65535", options->window);
    }
    if (options->keepalive_ms < 1000 || options->keepalive_ms > UINT16_MAX * 1000 || options->connect_timeout_ms < 1) {
        return error_set(why, ERR_INVALID, "the keep-alive must be 1 to 65535 seconds, the connect time-out more than none");
    }
    if (!is_mqtt_string(slice_of(options->client_id)) || !is_mqtt_string(slice_of(options->username))) {
        return error_set(why, ERR_INVALID,
                         "client id and user name must be UTF-8 without control characters, 65535 bytes at most");
    }
    if (!is_mqtt_data(options->password)) {
        return error_set(why, ERR_INVALID, "the password must have no NUL byte and 65535 bytes at most");
    }
    if (options->password.size > 0 && !is_given(options->username) && options->version == 3) {
        return error_set(why, ERR_INVALID, "MQTT 3.1.1 has no password without a user name");
    }
    if (options->will_topic && (!is_topic_name(slice_of(options->will_topic)) || options->will_payload.size > STRING_MAX)) {
        return error_set(why, ERR_INVALID, "the last will's topic must be a topic name, its payload 65535 bytes at most");
    }
    return ERR_NONE;
}

static enum err set_credentials(struct mqtt_client *client, const struct mqtt_client_options *options)
{
    const char *username = is_given(options->username) ? options->username : NULL;
    char *password = NULL;
    if (options->password.size > 0) {
        password = slice_dup(options->password);
        if (!password) {
            return ERR_MEMORY;
        }
    }
    int rc = mosquitto_username_pw_set(client->library, username, password);
    if (password) {
        explicit_bzero(password, options->password.size);
        free(password);
    }
    return rc ? ERR_MEMORY : ERR_NONE;
}

static enum err set_up_library(struct mqtt_client *client, const struct mqtt_client_options *options, struct error *why)
{
    const char *client_id = is_given(options->client_id) ? options->client_id : NULL;
    client->library = mosquitto_new(client_id, true, client);
    if (!client->library || set_credentials(client, options) != ERR_NONE) {
        return error_set(why, ERR_MEMORY, "no memory for an MQTT client");
    }
    struct mosquitto *library = client->library;
    int rc =
        mosquitto_int_option(library, MOSQ_OPT_PROTOCOL_VERSION, options->version == 5 ? MQTT_PROTOCOL_V5 : MQTT_PROTOCOL_V311);
    rc = rc ? rc : mosquitto_int_option(library, MOSQ_OPT_SEND_MAXIMUM, (int)options->window);
    rc = rc ? rc : mosquitto_int_option(library, MOSQ_OPT_TCP_NODELAY, 1);
    if (!rc && client->tls) {
        rc = mosquitto_int_option(library, MOSQ_OPT_SSL_CTX_WITH_DEFAULTS, 0);
        rc = rc ? rc : mosquitto_void_option(library, MOSQ_OPT_SSL_CTX, mqtt_tls_session_context(client->tls));
    }
    if (!rc && options->will_topic) {
        rc = mosquitto_will_set(library, options->will_topic, (int)options->will_payload.size, options->will_payload.data, 1,
                                true);
    }
    mosquitto_connect_v5_callback_set(library, on_connect);
    mosquitto_publish_v5_callback_set(library, on_publish);
    mosquitto_disconnect_v5_callback_set(library, on_disconnect);
    return rc ? error_set(why, rc == MOSQ_ERR_NOMEM ? ERR_MEMORY : ERR_LIBRARY, "cannot set up an MQTT client: %s",
                          mosquitto_strerror(rc))
              : ERR_NONE;
}

static enum err set_up(struct mqtt_client *client, const struct mqtt_client_options *options, struct error *why)
{
    client->host = strdup(options->host);
    client->acks = calloc(options->window, sizeof *client->acks);
    int size = strchr(options->host, ':') ? asprintf(&client->where, "[%s]:%u", options->host, options->port)
                                          : asprintf(&client->where, "%s:%u", options->host, options->port);
    if (size < 0) {
        client->where = NULL;
    }
    if (!client->host || !client->where || !client->acks) {
        return error_set(why, ERR_MEMORY, "no memory for an MQTT client");
    }
    if (options->tls) {
        enum err err = mqtt_tls_session_open(&client->tls, options->tls, options->host, why);
        if (err != ERR_NONE) {
            return err;
        }
    }
    enum err err = set_up_library(client, options, why);
    return err == ERR_NONE ? resolver_open(&client->resolver, options->host, why) : err;
}

enum err mqtt_client_open(struct mqtt_client **out, const struct mqtt_client_options *options, struct error *why)
{
    pthread_once(&library_once, start_library);
    enum err err = check_options(options, why);
    if (err != ERR_NONE) {
        return err;
    }
    struct mqtt_client *client = calloc(1, sizeof *client);
    if (!client) {
        return error_set(why, ERR_MEMORY, "no memory for an MQTT client");
    }
    buf_init(&client->strings, 2 * (STRING_MAX + 1));
    client->version = options->version;
    client->window = options->window;
    client->port = options->port;
    client->keepalive_ms = options->keepalive_ms;
    client->ping_ms = library_keepalive_s(client) * 1000;
    client->now_ms = clock_mono_ms();
    client->connect_timeout_ms = options->connect_timeout_ms;
    client->connect_deadline_ms = client->now_ms + options->connect_timeout_ms;
    err = set_up(client, options, why);
    if (err != ERR_NONE) {
        mqtt_client_close(&client);
        return err;
    }
    *out = client;
    return ERR_NONE;
}

void mqtt_client_close(struct mqtt_client **out)
{
    struct mqtt_client *client = *out;
    if (!client) {
        return;
    }
    before_library(client);
    mosquitto_destroy(client->library);
    mqtt_tls_session_close(&client->tls);
    resolver_close(&client->resolver);
    buf_free(&client->strings);
    free(client->acks);
    free(client->where);
    free(client->host);
    free(client);
    *out = NULL;
}

/* ---- connecting ---- */

static void add_attempt(struct mqtt_client *client, const char *cause)
{
    const char *address = client->addresses.addresses[client->next_address - 1];
    bool is_only = client->addresses.count == 1 && strcmp(address, client->host) == 0;
    size_t used = strlen(client->attempts);
    snprintf(client->attempts + used, sizeof client->attempts - used, is_only ? "%s%s" : "%s%s (%s)", used > 0 ? ", " : "",
             cause, address);
}

static void set_option(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof value); /* none of ours is essential */
}

/* Two nets under the keep-alive of MQTT: TCP's own, for a broker that has turned MQTT's off, and an end to waiting for the
 * other host's acknowledgement of what was sent. */
static void tune_socket(const struct mqtt_client *client, int fd)
{
    int seconds = (int)((client->keepalive_ms + 999) / 1000);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds > 4 ? seconds / 4 : 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)(2 * client->keepalive_ms));
    fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* The error that poll announced. */
static int take_socket_error(int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

/* 0 or an errno. */
static int is_unconnected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return getpeername(fd, (struct sockaddr *)&peer, &size) == 0 ? 0 : errno;
}

static void *ssl_of(const struct mqtt_client *client)
{
    return client->tls ? mosquitto_ssl_get(client->library) : NULL;
}

/* On one machine the broker can be so quick that the whole handshake fits into mosquitto_connect_async: then CONNECT is out, and
 * what comes next is CONNACK. */
static void begin_session(struct mqtt_client *client)
{
    tune_socket(client, mosquitto_socket(client->library));
    client->closed.silent = false;
    set_state(client, client->tls && !mqtt_tls_is_established(ssl_of(client)) ? TLS_HANDSHAKE : AWAITING_CONNACK);
}

/* An address gets its share of the time that is left, so that a dead one does not use up that of the next. */
static void connect_to_next_address(struct mqtt_client *client)
{
    while (client->next_address < client->addresses.count) {
        int64_t left_ms = client->connect_deadline_ms - client->now_ms;
        client->address_deadline_ms = client->now_ms + left_ms / (int64_t)(client->addresses.count - client->next_address);
        const char *address = client->addresses.addresses[client->next_address++];
        if (client->tls) {
            mqtt_tls_session_restart(client->tls);
        }
        before_library(client);
        int rc = mosquitto_connect_async(client->library, address, client->port, library_keepalive_s(client));
        int error = errno;
        if (rc == MOSQ_ERR_SUCCESS) {
            if (!is_unconnected(mosquitto_socket(client->library))) {
                begin_session(client);
            }
            return;
        }
        if (client->tls && (rc == MOSQ_ERR_TLS || error == EPROTO)) {
            /* See begin_session: the handshake failed within the call, or after it CONNECT. */
            set_state(client, rc == MOSQ_ERR_TLS ? TLS_HANDSHAKE : AWAITING_CONNACK);
            fail(client, rc, error);
            return;
        }
        client->closed.silent = is_silence(error);
        add_attempt(client, cause_of(client, rc, error));
    }
    finish(client, "cannot connect to %s: %s", client->where, client->attempts);
}

static void work_resolving(struct mqtt_client *client)
{
    struct error why;
    enum err err = resolver_take(client->resolver, &client->addresses, &why);
    if (err == ERR_NONE) {
        set_state(client, CONNECTING);
        connect_to_next_address(client);
    } else if (err != ERR_BUSY) {
        finish(client, "%s", why.text);
    }
}

static void work_connecting(struct mqtt_client *client, short revents)
{
    if (!(revents & (POLLOUT | POLLERR | POLLHUP))) {
        if (client->now_ms >= client->address_deadline_ms) {
            client->closed.silent = true;
            add_attempt(client, "no answer");
            connect_to_next_address(client);
        }
        return;
    }
    /* In a TLS handshake the library may have taken the error away; then the socket is just not connected. */
    int fd = mosquitto_socket(client->library), error = take_socket_error(fd);
    error = error ? error : is_unconnected(fd);
    if (error) {
        client->closed.silent = is_silence(error);
        add_attempt(client, cause_of(client, MOSQ_ERR_ERRNO, error));
        connect_to_next_address(client);
    } else {
        begin_session(client);
    }
}

/* ---- reading and writing ---- */

static void write_packets(struct mqtt_client *client)
{
    before_library(client);
    int rc = mosquitto_loop_write(client->library, 1);
    settle(client, rc, errno);
    client->progress_ms = client->now_ms;
}

/* As many packets as messages are in flight, or until there are no more; what TLS has already decrypted must all be taken, for
 * poll does not see it. */
static int read_packets(struct mqtt_client *client, int *error)
{
    int rc;
    do {
        before_library(client);
        rc = mqtt_guard_loop_read(client->library, &client->is_poisoned);
        *error = errno;
    } while (rc == 0 && mqtt_tls_has_pending(ssl_of(client)));
    return rc;
}

static void read_and_settle(struct mqtt_client *client)
{
    int error, fd = mosquitto_socket(client->library), rc = read_packets(client, &error);
    if (client->is_poisoned) {
        fail(client, MOSQ_ERR_PROTOCOL, 0);
        return;
    }
    client->heard_ms = client->now_ms;
    /* A broker with Nagle's algorithm holds the second PUBACK of a burst back until the first is acknowledged: 40 ms. */
    if (mosquitto_socket(client->library) == fd) {
        set_option(fd, IPPROTO_TCP, TCP_QUICKACK, 1);
    }
    settle(client, rc, error);
}

/* mosquitto_loop_read carries the handshake on. CONNECT waits until it has ended, and then until what the broker may have said
 * against our certificate is read: a failed write would lose it. */
static void work_tls_handshake(struct mqtt_client *client)
{
    before_library(client);
    int rc = mqtt_guard_loop_read(client->library, &client->is_poisoned), error = errno;
    if (rc || mqtt_tls_session_trouble(client->tls)) {
        fail(client, rc ? rc : MOSQ_ERR_TLS, error);
    } else if (mqtt_tls_is_established(ssl_of(client))) {
        set_state(client, AWAITING_CONNACK);
    }
}

/* Plain TCP only: who speaks TLS has proved to be the broker. False: not yet, or it is no CONNACK and the client is closed. */
static bool is_connack_there(struct mqtt_client *client, short revents)
{
    char bytes[MQTT_CONNACK_MAX];
    client->is_paused = false;
    ssize_t size = client->tls ? 0 : recv(mosquitto_socket(client->library), bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
    if (size <= 0) {
        return true;
    }
    switch (mqtt_packet_check_connack(client->version, (struct slice){bytes, (size_t)size})) {
    case MQTT_PACKET_GOOD:
        return true;
    case MQTT_PACKET_BAD:
        fail(client, MOSQ_ERR_PROTOCOL, 0);
        return false;
    default:
        /* What has come so far would wake poll at once; but when no more can come, the library may find that out. */
        client->is_paused = !(revents & (POLLRDHUP | POLLHUP | POLLERR));
        return !client->is_paused;
    }
}

static void work_session(struct mqtt_client *client, short revents)
{
    const short readable = POLLIN | POLLRDHUP | POLLHUP | POLLERR;
    if (revents & POLLERR) {
        client->socket_error = take_socket_error(mosquitto_socket(client->library));
    }
    bool may_read = (revents & readable) || client->is_paused;
    if (may_read && (client->state != AWAITING_CONNACK || is_connack_there(client, revents))) {
        read_and_settle(client);
    }
    if (client->state != CLOSED && (revents & POLLOUT)) {
        write_packets(client);
    }
}

/* ---- keeping alive ---- */

/* A large message on a slow line takes its time: while the kernel gets bytes across, the broker is not late. */
static void watch_sending(struct mqtt_client *client)
{
    int unsent = 0;
    ioctl(mosquitto_socket(client->library), SIOCOUTQ, &unsent);
    if (unsent < client->unsent) {
        client->progress_ms = client->now_ms;
    }
    client->unsent = unsent;
}

/* The moment of the next look: a tick later, or when a PINGREQ falls due. */
static int64_t next_tick_ms(const struct mqtt_client *client)
{
    int64_t quarter_ms = client->keepalive_ms / 4;
    int64_t tick_ms = client->tick_ms + (quarter_ms < TICK_MS ? quarter_ms : TICK_MS),
            due_ms = client->heard_ms + client->ping_ms;
    return due_ms > client->tick_ms && due_ms < tick_ms ? due_ms : tick_ms;
}

static void work_life_signs(struct mqtt_client *client)
{
    if (client->now_ms >= next_tick_ms(client)) {
        client->tick_ms = client->now_ms;
        before_library(client);
        int rc = mosquitto_loop_misc(client->library);
        settle(client, rc, errno);
    }
    if (client->state != CONNECTED) {
        return;
    }
    if (client->now_ms == client->tick_ms) {
        watch_sending(client);
    }
    if (client->now_ms >= client->heard_ms + silence_limit_ms(client)) {
        finish_silent(client, "nothing was heard from the broker", silence_limit_ms(client));
    } else if (client->unanswered > 0 && client->now_ms >= client->progress_ms + client->keepalive_ms) {
        finish_silent(client, "the broker has not acknowledged", client->keepalive_ms);
    }
}

static void finish_late(struct mqtt_client *client)
{
    static const char *const phases[] = {
        [RESOLVING] = "the name was not resolved",
        [CONNECTING] = "no connection",
        [TLS_HANDSHAKE] = "no end of the TLS handshake",
        [AWAITING_CONNACK] = "no CONNACK from the broker",
    };
    finish_silent(client, phases[client->state], client->connect_timeout_ms);
}

/* ---- the caller's loop ---- */

static short wanted_events(const struct mqtt_client *client)
{
    switch (client->state) {
    case CONNECTING:
        return POLLOUT;
    case TLS_HANDSHAKE:
        /* mosquitto_want_write is true from the first flight to the end of the handshake: polling for it would spin. */
        return mqtt_tls_wants_write(ssl_of(client)) ? POLLOUT : POLLIN;
    case AWAITING_CONNACK:
        return (short)((client->is_paused ? 0 : POLLIN) | POLLRDHUP | (mosquitto_want_write(client->library) ? POLLOUT : 0));
    default:
        return mosquitto_want_write(client->library) ? POLLIN | POLLOUT : POLLIN;
    }
}

static int64_t next_deadline_ms(const struct mqtt_client *client)
{
    int64_t deadline_ms = client->connect_deadline_ms;
    if (client->state == CONNECTED) {
        int64_t silence_ms = client->heard_ms + silence_limit_ms(client);
        deadline_ms = next_tick_ms(client);
        deadline_ms = silence_ms < deadline_ms ? silence_ms : deadline_ms;
        if (client->unanswered > 0 && client->progress_ms + client->keepalive_ms < deadline_ms) {
            deadline_ms = client->progress_ms + client->keepalive_ms;
        }
    } else if (client->state == DISCONNECTING) {
        deadline_ms = client->disconnect_deadline_ms;
    } else if (client->state == CONNECTING && client->address_deadline_ms < deadline_ms) {
        deadline_ms = client->address_deadline_ms;
    } else if (client->is_paused && client->now_ms + CONNACK_PAUSE_MS < deadline_ms) {
        deadline_ms = client->now_ms + CONNACK_PAUSE_MS;
    }
    return deadline_ms;
}

void mqtt_client_poll(struct mqtt_client *client, struct pollfd *fd, int *timeout_ms)
{
    *fd = (struct pollfd){.fd = -1};
    if (client->state == CLOSED || client->connected_due || client->ack_count > 0) {
        *timeout_ms = client->closed_due || client->connected_due || client->ack_count > 0 ? 0 : -1;
        return;
    }
    if (client->state == RESOLVING) {
        fd->fd = resolver_fd(client->resolver);
        fd->events = POLLIN;
    } else {
        fd->fd = mosquitto_socket(client->library);
        fd->events = wanted_events(client);
    }
    int64_t wait_ms = next_deadline_ms(client) - clock_mono_ms();
    *timeout_ms = wait_ms < 0 || fd->fd < 0 ? 0 : wait_ms < INT32_MAX ? (int)wait_ms : INT32_MAX;
}

void mqtt_client_work(struct mqtt_client *client, short revents)
{
    client->now_ms = clock_mono_ms();
    if (client->state == RESOLVING) {
        work_resolving(client);
    } else if (client->state == CONNECTING) {
        work_connecting(client, revents);
    } else if (client->state == TLS_HANDSHAKE && revents) {
        work_tls_handshake(client);
    } else if (client->state >= AWAITING_CONNACK && client->state != CLOSED) {
        work_session(client, revents);
    }
    if (client->state == CONNECTED) {
        work_life_signs(client);
    } else if (client->state < CONNECTED && client->now_ms >= client->connect_deadline_ms) {
        finish_late(client);
    } else if (client->state == DISCONNECTING && client->now_ms >= client->disconnect_deadline_ms) {
        finish(client, "disconnected from %s without its taking DISCONNECT", client->where);
    }
}

bool mqtt_client_is_connected(const struct mqtt_client *client)
{
    return client->state == CONNECTED;
}

const struct mqtt_limits *mqtt_client_limits(const struct mqtt_client *client)
{
    return &client->limits;
}

/* ---- publishing ---- */

unsigned mqtt_client_room(const struct mqtt_client *client)
{
    return client->state == CONNECTED ? client->limits.receive_maximum - client->unanswered - client->ack_count : 0;
}

size_t mqtt_client_packet_size(const struct mqtt_client *client, const struct mqtt_publish *message)
{
    return mqtt_packet_publish_size(client->version, message);
}

static enum err check_properties(const struct mqtt_publish *message, struct error *why)
{
    if (!is_mqtt_string(message->content_type)) {
        return error_set(why, ERR_INVALID, "the content type is not what MQTT allows in a string");
    }
    for (size_t i = 0; i < message->property_count; i++) {
        if (!is_mqtt_string(message->properties[i].name) || !is_mqtt_string(message->properties[i].value)) {
            return error_set(why, ERR_INVALID, "user property %zu (%.*s) is not what MQTT allows in a string", i + 1,
                             SLICE_ARGS(message->properties[i].name));
        }
    }
    return ERR_NONE;
}

static enum err check_message(const struct mqtt_client *client, const struct mqtt_publish *message, struct error *why)
{
    const struct mqtt_limits *limits = &client->limits;
    if (!is_topic_name(message->topic)) {
        return error_set(why, ERR_INVALID,
                         "the topic is no topic name: 1 to 65535 bytes of UTF-8 without +, # and control characters");
    }
    if (message->qos > limits->maximum_qos) {
        return error_set(why, ERR_INVALID, "the broker takes QoS %d at most", limits->maximum_qos);
    }
    if (message->retain && !limits->retain_available) {
        return error_set(why, ERR_INVALID, "the broker does not keep retained messages");
    }
    size_t size = mqtt_client_packet_size(client, message);
    if (limits->maximum_packet_size > 0 && size > limits->maximum_packet_size) {
        return error_set(why, ERR_INVALID, "a packet of %zu bytes is over the broker's limit of %u", size,
                         limits->maximum_packet_size);
    }
    if (mqtt_packet_remaining_length(client->version, message) > MQTT_REMAINING_LENGTH_MAX) {
        return error_set(why, ERR_INVALID, "a packet of %zu bytes is more than MQTT has", size);
    }
    return client->version == 5 ? check_properties(message, why) : ERR_NONE;
}

/* The library wants NUL-terminated strings. The place of s in client->strings, or NULL without memory. */
static const char *add_string(struct mqtt_client *client, struct slice s)
{
    size_t at = client->strings.size;
    buf_append(&client->strings, s);
    buf_append_char(&client->strings, 0);
    return client->strings.failed ? NULL : client->strings.data + at;
}

static bool add_user_property(struct mqtt_client *client, const struct mqtt_property *property, mosquitto_property **list)
{
    buf_reset(&client->strings);
    /* Room for both first: the second must not move the first. */
    if (!buf_reserve(&client->strings, property->name.size + property->value.size + 2)) {
        return false;
    }
    const char *name = add_string(client, property->name), *value = add_string(client, property->value);
    return name && value && mosquitto_property_add_string_pair(list, MQTT_PROP_USER_PROPERTY, name, value) == MOSQ_ERR_SUCCESS;
}

static bool add_properties(struct mqtt_client *client, const struct mqtt_publish *message, mosquitto_property **list)
{
    int rc = 0;
    if (message->content_type.size > 0) { /* an empty one crashes the library */
        buf_reset(&client->strings);
        const char *content_type = add_string(client, message->content_type);
        rc = content_type ? mosquitto_property_add_byte(list, MQTT_PROP_PAYLOAD_FORMAT_INDICATOR, 1) : MOSQ_ERR_NOMEM;
        rc = rc ? rc : mosquitto_property_add_string(list, MQTT_PROP_CONTENT_TYPE, content_type);
    }
    if (!rc && message->expiry_s > 0) {
        rc = mosquitto_property_add_int32(list, MQTT_PROP_MESSAGE_EXPIRY_INTERVAL, message->expiry_s);
    }
    for (size_t i = 0; !rc && i < message->property_count; i++) {
        rc = add_user_property(client, &message->properties[i], list) ? 0 : MOSQ_ERR_NOMEM;
    }
    return rc == 0;
}

/* The socket can no longer be written to, but what the broker said before it closed may tell why: a PUBACK with its reason,
 * a DISCONNECT. */
static void read_last_words(struct mqtt_client *client, int rc, int error)
{
    int last_rc = 0, last_error = 0;
    for (int i = 0; i < 100 && last_rc == 0 && last_error != EAGAIN && client->disconnects == 0; i++) {
        last_rc = read_packets(client, &last_error);
    }
    if (last_rc || client->disconnects > 0) {
        settle(client, last_rc, last_error);
    } else {
        fail(client, rc, error);
    }
}

static enum err not_sent(struct mqtt_client *client, int rc, int error, struct error *why)
{
    switch (rc) {
    case MOSQ_ERR_NOMEM:
        return error_set(why, ERR_MEMORY, "no memory for an MQTT message");
    case MOSQ_ERR_INVAL:
    case MOSQ_ERR_MALFORMED_UTF8:
    case MOSQ_ERR_PAYLOAD_SIZE:
    case MOSQ_ERR_OVERSIZE_PACKET:
    case MOSQ_ERR_QOS_NOT_SUPPORTED:
        return error_set(why, ERR_INVALID, "libmosquitto does not take the message: %s", mosquitto_strerror(rc));
    default:
        read_last_words(client, rc, error);
        return error_set(why, ERR_CLOSED, "%s", client->text);
    }
}

static enum err send_message(struct mqtt_client *client, const struct mqtt_publish *message,
                             const mosquitto_property *properties, int *mid, struct error *why)
{
    buf_reset(&client->strings);
    const char *topic = add_string(client, message->topic);
    if (!topic) {
        return error_set(why, ERR_MEMORY, "no memory for an MQTT message");
    }
    client->sent = false;
    before_library(client);
    int rc = mosquitto_publish_v5(client->library, &client->sending, topic, (int)message->payload.size, message->payload.data,
                                  message->qos, message->retain, properties);
    int error = errno, id = client->sending;
    client->sending = 0;
    if (rc) {
        return not_sent(client, rc, error, why);
    }
    *mid = id;
    if (client->sent) {
        add_ack(client, id, 0);
    } else if (is_in_use(client, id)) {
        /* 65535 later ones were answered before it; the broker will never tell these two apart. */
        finish(client, "%s: the broker never acknowledged message %d", client->where, id);
        return error_set(why, ERR_CLOSED, "%s", client->text);
    } else {
        set_in_use(client, id, true);
    }
    return ERR_NONE;
}

enum err mqtt_client_publish(struct mqtt_client *client, const struct mqtt_publish *message, int *mid, struct error *why)
{
    if (client->state != CONNECTED) {
        return error_set(why, ERR_CLOSED, "%s", client->text[0] ? client->text : "not connected");
    }
    ASSERT(mqtt_client_room(client) > 0 && message->qos >= 0 && message->qos <= 2);
    enum err err = check_message(client, message, why);
    if (err != ERR_NONE) {
        return err;
    }
    if (client->unanswered == 0) {
        client->progress_ms = client->now_ms = clock_mono_ms();
    }
    mosquitto_property *properties = NULL;
    err = client->version != 5 || add_properties(client, message, &properties)
              ? send_message(client, message, properties, mid, why)
              : error_set(why, ERR_MEMORY, "no memory for an MQTT message");
    mosquitto_property_free_all(&properties);
    return err;
}

void mqtt_client_burst(struct mqtt_client *client, bool begin)
{
    if (client->state == CONNECTED && begin != client->is_corked) {
        client->is_corked = begin;
        set_option(mosquitto_socket(client->library), IPPROTO_TCP, TCP_CORK, begin);
    }
}

void mqtt_client_disconnect(struct mqtt_client *client)
{
    if (client->state == CLOSED || client->state == DISCONNECTING) {
        return;
    }
    if (client->state != CONNECTED) {
        finish(client, "disconnected from %s before there was a session", client->where);
        return;
    }
    mqtt_client_burst(client, false);
    client->now_ms = clock_mono_ms();
    client->disconnect_deadline_ms = client->now_ms + client->keepalive_ms;
    set_state(client, DISCONNECTING);
    before_library(client);
    int rc = mosquitto_disconnect(client->library);
    settle(client, rc, errno);
}
