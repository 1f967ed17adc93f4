/* One MQTT connection. libmosquitto 2.0.11 makes it: TCP, TLS and CONNECT. From CONNACK on the session is ours, on the library's
 * socket: its own way costs five system calls a message, searches its list of messages for each, keeps a copy of each payload
 * until PUBACK, drops the reason of a PUBREC, and aborts the process over a property that it does not know. Ours joins packets
 * into few large writes and reads many answers at once (mqtt_stream), and knows what a publisher must know of MQTT (mqtt_packet).
 *
 * The library's ways that shape this file:
 *  - mosquitto_connect_async resolves names synchronously and forgets all addresses but one. It is given one address in figures
 *    at a time; the resolver and the turn over the addresses are ours.
 *  - There is no asynchronous connect with CONNECT properties. Their absence means what we want: session expiry 0.
 *  - mosquitto_loop_read does nothing but carry on the TLS handshake while that is not over; after it, it is never called.
 *  - After a bad client id mosquitto_new closes file descriptor 0. So all that goes in is checked here first. */
#include "meowbridge/mqtt_client.h"

#include "meowbridge/clock.h"
#include "mqtt_packet.h"
#include "mqtt_stream.h"
#include "mqtt_tls.h"
#include "resolver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <mosquitto.h>
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
    TICK_MS = 1000,              /* at most */
    LIBRARY_KEEPALIVE_MIN_S = 5, /* it takes no less */
    STRING_MAX = 65535,
    BURST_FLUSH = 64 << 10, /* of a burst so much is sent before its end */
    UNSENT_MAX = 1 << 20,   /* with so much to send there is no room for more */
    ACKS_AWAITED_MIN = 8,   /* fewer are not worth waiting for */
    ACKS_AWAITED_MAX = 64,
    ACK_BYTES = 4,        /* the shortest PUBACK */
    QUIET_PATIENCES = 10, /* a broker silent for so many times the patience is heard at its next word */
    RECEIVES_A_TURN = 64, /* a broker that floods us gets no more of a turn */
    SESSION_TAKEN_OVER = 0x8e,
};

enum state { RESOLVING, CONNECTING, TLS_HANDSHAKE, AWAITING_CONNACK, CONNECTED, DISCONNECTING, CLOSED };

struct ack {
    uint16_t mid;
    uint8_t reason_code;
};

/* What a message waits for. A QoS 0 one waits for the socket. */
enum phase { NOTHING = 0, WRITTEN, PUBACK, PUBREC, PUBCOMP, PUBCOMP_UNHEARD };

/* A QoS 0 message that is written when so many bytes are sent. */
struct unwritten {
    uint64_t end;
    uint16_t mid;
};

struct mqtt_client {
    enum state state;
    struct mosquitto *library;
    struct mqtt_tls_session *tls; /* NULL: plain TCP */
    struct mqtt_stream stream;    /* on the library's socket */
    int version;
    unsigned window;
    int64_t keepalive_ms, connect_timeout_ms, ack_patience_ms;
    int low_water;      /* SO_RCVLOWAT: poll is silent about fewer bytes */
    char *host, *where; /* where: host and port, for people */
    uint16_t port;
    int64_t now_ms; /* when the current call began */

    struct resolver *resolver;
    struct resolver_answer addresses;
    size_t next_address;
    int64_t connect_deadline_ms, address_deadline_ms;
    char attempts[300]; /* "Connection refused (::1), …" */
    struct mqtt_limits limits;

    /* Messages: phases has what each one waits for, by its identifier, acks those answers that the caller has not taken.
     * Invariant: unanswered + ack_count <= limits.receive_maximum <= window, which is the capacity of acks and unwritten. */
    uint8_t phases[UINT16_MAX + 1];
    uint16_t last_mid;
    unsigned unanswered;
    struct ack *acks;
    unsigned ack_first, ack_count;
    struct unwritten *unwritten; /* in the order of sending */
    unsigned unwritten_first, unwritten_count;
    bool is_bursting;
    size_t replies; /* bytes of answers to what the broker began, since replies_end was the end of what is sent */
    uint64_t replies_end;
    bool is_behind; /* there is more to read than one turn took */
    size_t want;    /* bytes that the next packet is known to need */

    /* Life signs. */
    int64_t ping_ms; /* PINGREQ is sent when nothing was sent or heard for so long; 0: never */
    int64_t sent_ms, heard_ms, progress_ms, tick_ms;
    uint64_t published_end; /* in all that is ever sent: where the latest PUBLISH ends */
    bool is_ping_out;
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

/* What begins with where itself ("127.0.0.1:1883: the broker sends and does not read") has no phrase before it. */
static void describe_closed(struct mqtt_client *client)
{
    const char *where = strstr(client->text, client->where), *behind = where ? where + strlen(client->where) : NULL;
    const bool is_behind_phrase = where && where > client->text && strncmp(behind, ": ", 2) == 0;
    client->closed.text = client->text;
    client->closed.cause = is_behind_phrase ? behind + 2 : client->text;
    client->closed.names_broker = where != NULL;
}

static void __attribute__((format(printf, 2, 3))) finish(struct mqtt_client *client, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(client->text, sizeof client->text, format, arguments);
    va_end(arguments);
    describe_closed(client);
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
        return true;
    }
    return false;
}

static void add_ack(struct mqtt_client *client, uint16_t mid, uint8_t reason_code)
{
    ASSERT(client->ack_count < client->window);
    unsigned place = (client->ack_first + client->ack_count++) % client->window;
    client->acks[place] = (struct ack){mid, reason_code};
}

static void answered(struct mqtt_client *client, uint16_t mid, uint8_t reason_code)
{
    client->phases[mid] = NOTHING;
    client->unanswered--;
    client->progress_ms = client->now_ms;
    add_ack(client, mid, reason_code);
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
        [CONNECTED] = "lost the connection to",  [DISCONNECTING] = "no orderly end of the session with",
    };
    error = client->socket_error ? client->socket_error : error;
    client->closed.silent = is_silence(error);
    finish(client, "%s %s: %s", phases[client->state], client->where, cause_of(client, rc, error));
}

static void finish_disconnected(struct mqtt_client *client, uint8_t code)
{
    client->closed.reason_code = code;
    finish(client, "%s disconnected us: %s (0x%02x)%s", client->where, mqtt_reason_text(code), code,
           code == SESSION_TAKEN_OVER ? ": another client uses this client id" : "");
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

/* Mosquitto answers a wrong password with "not authorized", which alone sends people to the access list. */
static const char *refusal_hint(uint8_t code)
{
    const bool is_about_who_we_are = code == 4 || code == 5 || code == 0x86 || code == 0x87;
    return is_about_who_we_are ? ": user name, password or client certificate?" : "";
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
    for (size_t at = slice_plain_prefix(s); at < s.size;) {
        uint32_t point;
        struct slice rest = {s.data + at, s.size - at};
        size_t size = utf8_decode(rest, &point);
        if (size == 0 || utf8_is_forbidden_in_mqtt(point)) {
            return false;
        }
        at += size + slice_plain_prefix((struct slice){rest.data + size, rest.size - size});
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
    rc = rc ? rc : mosquitto_int_option(library, MOSQ_OPT_TCP_NODELAY, 1);
    if (!rc && client->tls) {
        rc = mosquitto_int_option(library, MOSQ_OPT_SSL_CTX_WITH_DEFAULTS, 0);
        rc = rc ? rc : mosquitto_void_option(library, MOSQ_OPT_SSL_CTX, mqtt_tls_session_context(client->tls));
    }
    if (!rc && options->will_topic) {
        rc = mosquitto_will_set(library, options->will_topic, (int)options->will_payload.size, options->will_payload.data, 1,
                                true);
    }
    return rc ? error_set(why, rc == MOSQ_ERR_NOMEM ? ERR_MEMORY : ERR_LIBRARY, "cannot set up an MQTT client: %s",
                          mosquitto_strerror(rc))
              : ERR_NONE;
}

static enum err set_up(struct mqtt_client *client, const struct mqtt_client_options *options, struct error *why)
{
    client->host = strdup(options->host);
    client->acks = calloc(options->window, sizeof *client->acks);
    client->unwritten = calloc(options->window, sizeof *client->unwritten);
    int size = strchr(options->host, ':') ? asprintf(&client->where, "[%s]:%u", options->host, options->port)
                                          : asprintf(&client->where, "%s:%u", options->host, options->port);
    if (size < 0) {
        client->where = NULL;
    }
    if (!client->host || !client->where || !client->acks || !client->unwritten) {
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
    client->version = options->version;
    client->window = options->window;
    client->port = options->port;
    client->keepalive_ms = options->keepalive_ms;
    client->ping_ms = library_keepalive_s(client) * 1000;
    client->now_ms = clock_mono_ms();
    client->connect_timeout_ms = options->connect_timeout_ms;
    client->ack_patience_ms = options->ack_patience_ms;
    client->low_water = 1;
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
    mqtt_stream_free(&client->stream);
    before_library(client);
    mosquitto_destroy(client->library);
    mqtt_tls_session_close(&client->tls);
    resolver_close(&client->resolver);
    free(client->unwritten);
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

static void await_connack(struct mqtt_client *client)
{
    mqtt_stream_open(&client->stream, mosquitto_socket(client->library), ssl_of(client));
    set_state(client, AWAITING_CONNACK);
}

/* On one machine the broker can be so quick that the whole handshake fits into mosquitto_connect_async: then CONNECT is out, and
 * what comes next is CONNACK. */
static void begin_session(struct mqtt_client *client)
{
    tune_socket(client, mosquitto_socket(client->library));
    client->closed.silent = false;
    if (client->tls && !mqtt_tls_is_established(ssl_of(client))) {
        set_state(client, TLS_HANDSHAKE);
    } else {
        await_connack(client);
    }
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

/* mosquitto_loop_read carries the handshake on. CONNECT waits until it has ended, and then until what the broker may have said
 * against our certificate is read: a failed write would lose it. */
static void work_tls_handshake(struct mqtt_client *client)
{
    before_library(client);
    int rc = mosquitto_loop_read(client->library, 1), error = errno;
    if (rc || mqtt_tls_session_trouble(client->tls)) {
        fail(client, rc ? rc : MOSQ_ERR_TLS, error);
    } else if (mqtt_tls_is_established(ssl_of(client))) {
        await_connack(client);
    }
}

/* ---- what the broker sends ---- */

static void fail_malformed(struct mqtt_client *client)
{
    fail(client, MOSQ_ERR_PROTOCOL, 0);
}

/* A broker of 3.1.1 refuses MQTT 5 with a code of its own. */
static uint8_t refusal_of(const struct mqtt_client *client, uint8_t code)
{
    static const uint8_t version_5[] = {0x00, 0x84, 0x85, 0x88, 0x86, 0x87};
    return client->version == 5 && code < sizeof version_5 ? version_5[code] : code;
}

static void take_connack(struct mqtt_client *client, const struct mqtt_packet *connack)
{
    uint8_t code = refusal_of(client, connack->reason_code);
    if (client->state != AWAITING_CONNACK) {
        fail_malformed(client);
        return;
    }
    if (code != 0) {
        client->closed.refused = true;
        client->closed.reason_code = code;
        finish(client, "%s: the broker refused the connection: %s (0x%02x)%s", client->where, refusal_text(code), code,
               refusal_hint(code));
        return;
    }
    if (mosquitto_want_write(client->library)) { /* the answer to a CONNECT of which we have yet to send the end */
        fail_malformed(client);
        return;
    }
    client->limits = (struct mqtt_limits){
        .receive_maximum = connack->receive_maximum < client->window ? connack->receive_maximum : client->window,
        .maximum_packet_size = connack->maximum_packet_size,
        .maximum_qos = connack->maximum_qos,
        .retain_available = connack->retain_available,
    };
    if (connack->server_keep_alive_s >= 0) {
        client->ping_ms = connack->server_keep_alive_s * 1000;
    }
    mosquitto_username_pw_set(client->library, NULL, NULL); /* the password is not kept longer than needed */
    client->sent_ms = client->heard_ms = client->tick_ms = client->progress_ms = client->now_ms;
    set_state(client, CONNECTED);
}

/* An answer that comes again, or for none of ours, says nothing; one of another QoS's handshake is wrong. */
static void take_puback(struct mqtt_client *client, const struct mqtt_packet *puback)
{
    if (client->phases[puback->id] == PUBACK) {
        answered(client, puback->id, puback->reason_code);
    } else if (client->phases[puback->id] >= PUBREC) {
        fail_malformed(client);
    }
}

/* What is owed to a broker that does not read is bounded: the count begins anew as soon as all is sent that waited when it last began.
 * (It must not wait for a moment with nothing to send: on a busy line there may be none for hours.) */
static void reply(struct mqtt_client *client, enum mqtt_packet_type type, uint16_t id)
{
    if (client->state == DISCONNECTING) {
        return; /* nothing may follow DISCONNECT (OASIS MQTT 5, 3.14.4) */
    }
    if (client->stream.sent >= client->replies_end) {
        client->replies = 0;
        client->replies_end = mqtt_stream_end(&client->stream) + 1; /* of this very answer a byte at least */
    }
    size_t size = client->stream.out.size;
    mqtt_packet_append_ack(&client->stream.out, type, id);
    client->replies += client->stream.out.size - size;
    if (client->replies > UNSENT_MAX) {
        finish(client, "%s: the broker sends and does not read", client->where);
    }
}

static void take_pubrec(struct mqtt_client *client, const struct mqtt_packet *pubrec)
{
    enum phase phase = client->phases[pubrec->id];
    if (phase == PUBACK) {
        fail_malformed(client);
    } else if (phase == PUBREC && pubrec->reason_code >= 0x80) {
        answered(client, pubrec->id, pubrec->reason_code);
    } else {
        if (phase == PUBREC) {
            bool is_unheard = mqtt_ack_of(pubrec->reason_code) == MQTT_ACK_UNHEARD;
            client->phases[pubrec->id] = is_unheard ? PUBCOMP_UNHEARD : PUBCOMP;
            client->progress_ms = client->now_ms;
        }
        reply(client, MQTT_PUBREL, pubrec->id);
    }
}

static void take_pubcomp(struct mqtt_client *client, const struct mqtt_packet *pubcomp)
{
    enum phase phase = client->phases[pubcomp->id];
    if (phase == PUBACK || phase == PUBREC) {
        fail_malformed(client);
    } else if (phase == PUBCOMP || phase == PUBCOMP_UNHEARD) {
        uint8_t code = pubcomp->reason_code;
        answered(client, pubcomp->id, code == 0 && phase == PUBCOMP_UNHEARD ? MQTT_REASON_UNHEARD : code);
    }
}

/* There are brokers that subscribe their clients by themselves. What they forward is confirmed and thrown away. */
static void take_publish(struct mqtt_client *client, const struct mqtt_packet *publish)
{
    if (publish->qos > 0) {
        reply(client, publish->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, publish->id);
    }
}

static void take_packet(struct mqtt_client *client, const struct mqtt_packet *packet)
{
    if (client->state == AWAITING_CONNACK && packet->type != MQTT_CONNACK) {
        fail_malformed(client);
        return;
    }
    switch (packet->type) {
    case MQTT_CONNACK:
        take_connack(client, packet);
        break;
    case MQTT_PUBACK:
        take_puback(client, packet);
        break;
    case MQTT_PUBREC:
        take_pubrec(client, packet);
        break;
    case MQTT_PUBCOMP:
        take_pubcomp(client, packet);
        break;
    case MQTT_PUBLISH:
        take_publish(client, packet);
        break;
    case MQTT_PUBREL:
        reply(client, MQTT_PUBCOMP, packet->id);
        break;
    case MQTT_DISCONNECT:
        finish_disconnected(client, packet->reason_code);
        break;
    default: /* MQTT_PINGRESP */
        client->is_ping_out = false;
        break;
    }
}

/* All the packets that have come whole; what follows CONNACK waits until the caller knows of that. */
static void take_packets(struct mqtt_client *client)
{
    enum mqtt_packet_check check = MQTT_PACKET_GOOD;
    while (check == MQTT_PACKET_GOOD && client->state != CLOSED && !client->connected_due) {
        struct mqtt_packet packet;
        size_t size;
        check = mqtt_packet_read(client->version, mqtt_stream_received(&client->stream), &packet, &size);
        if (check == MQTT_PACKET_GOOD) {
            mqtt_stream_consume(&client->stream, size);
            take_packet(client, &packet);
        } else if (check == MQTT_PACKET_BAD) {
            fail_malformed(client);
        } else {
            client->want = size;
        }
    }
    if (client->state != CLOSED && client->stream.out.failed) {
        fail(client, MOSQ_ERR_NOMEM, 0);
    }
}

static void settle_io(struct mqtt_client *client, enum mqtt_io io, int error)
{
    if (client->state == DISCONNECTING && io != MQTT_IO_NO_MEMORY) {
        finish(client, "disconnected from %s", client->where);
    } else {
        fail(client, io == MQTT_IO_NO_MEMORY ? MOSQ_ERR_NOMEM : MOSQ_ERR_CONN_LOST, error);
    }
}

static void receive(struct mqtt_client *client)
{
    enum mqtt_io io = MQTT_IO_MORE;
    take_packets(client); /* that an earlier turn has left */
    for (int i = 0; i < RECEIVES_A_TURN && io == MQTT_IO_MORE && client->state != CLOSED && !client->connected_due; i++) {
        int error;
        size_t held = mqtt_stream_received(&client->stream).size;
        io = mqtt_stream_receive(&client->stream, client->want, &error);
        if (mqtt_stream_received(&client->stream).size > held) {
            client->heard_ms = client->now_ms;
            take_packets(client);
        }
        if (client->state != CLOSED && io >= MQTT_IO_CLOSED) {
            settle_io(client, io, error);
        }
    }
    client->is_behind = client->state != CLOSED && (io == MQTT_IO_MORE || client->connected_due);
}

/* ---- what we send ---- */

/* The socket can no longer be written to, but what the broker said before it closed may tell why: a PUBACK with its reason,
 * a DISCONNECT. */
static void read_last_words(struct mqtt_client *client, enum mqtt_io io, int error)
{
    receive(client);
    if (client->state != CLOSED) {
        settle_io(client, io, error);
    }
}

static void note_written(struct mqtt_client *client)
{
    while (client->unwritten_count > 0 && client->unwritten[client->unwritten_first].end <= client->stream.sent) {
        uint16_t mid = client->unwritten[client->unwritten_first].mid;
        client->unwritten_first = (client->unwritten_first + 1) % client->window;
        client->unwritten_count--;
        answered(client, mid, 0);
    }
}

static void flush(struct mqtt_client *client)
{
    if (client->state == CLOSED || mqtt_stream_unsent(&client->stream) == 0) {
        return;
    }
    int error = 0;
    const uint64_t sent = client->stream.sent;
    enum mqtt_io io = mqtt_stream_flush(&client->stream, &error);
    if (client->stream.sent > sent) {
        client->sent_ms = client->now_ms;
        if (sent < client->published_end) { /* a PINGREQ that goes out brings no PUBACK nearer */
            client->progress_ms = client->now_ms;
        }
        note_written(client);
    }
    if (io >= MQTT_IO_CLOSED) {
        read_last_words(client, io, error);
    }
}

/* CONNECT is the library's. */
static void write_connect(struct mqtt_client *client)
{
    before_library(client);
    int rc = mosquitto_loop_write(client->library, 1), error = errno;
    if (rc) {
        fail(client, rc, error);
    }
}

static void work_session(struct mqtt_client *client, short revents)
{
    const short readable = POLLIN | POLLRDHUP | POLLHUP | POLLERR;
    if (revents & POLLERR) {
        client->socket_error = take_socket_error(mosquitto_socket(client->library));
    }
    /* A write of TLS may wait for something to read, and a read for being able to write. */
    if ((revents & readable) || client->is_behind || client->low_water > 1 || (client->tls && revents)) {
        receive(client);
        /* A broker with Nagle's algorithm holds the second PUBACK of a burst back until the first is acknowledged: 40 ms. */
        if (client->unanswered > 0) {
            set_option(client->stream.fd, IPPROTO_TCP, TCP_QUICKACK, 1);
        }
    }
    if (client->state == AWAITING_CONNACK && (revents & POLLOUT) && mosquitto_want_write(client->library)) {
        write_connect(client);
    } else if (client->state != AWAITING_CONNACK) {
        flush(client);
    }
    if (client->state == DISCONNECTING && mqtt_stream_unsent(&client->stream) == 0) {
        finish(client, "disconnected from %s", client->where);
    }
}

/* ---- keeping alive ---- */

/* A large message on a slow line takes its time: while the kernel gets bytes across, the broker is not late. */
static void watch_sending(struct mqtt_client *client)
{
    int unsent = 0;
    ioctl(client->stream.fd, SIOCOUTQ, &unsent);
    if (unsent < client->unsent) {
        client->progress_ms = client->now_ms;
    }
    client->unsent = unsent;
}

static int64_t ping_due_ms(const struct mqtt_client *client)
{
    int64_t since_ms = client->sent_ms < client->heard_ms ? client->sent_ms : client->heard_ms;
    return client->ping_ms > 0 && !client->is_ping_out ? since_ms + client->ping_ms : INT64_MAX;
}

/* The moment of the next look: a tick later, or when a PINGREQ falls due. */
static int64_t next_tick_ms(const struct mqtt_client *client)
{
    int64_t quarter_ms = client->keepalive_ms / 4;
    int64_t tick_ms = client->tick_ms + (quarter_ms < TICK_MS ? quarter_ms : TICK_MS), due_ms = ping_due_ms(client);
    return due_ms < tick_ms ? due_ms : tick_ms;
}

static void work_life_signs(struct mqtt_client *client)
{
    if (client->now_ms >= ping_due_ms(client)) {
        mqtt_packet_append_empty(&client->stream.out, MQTT_PINGREQ);
        client->is_ping_out = true;
        flush(client);
    }
    if (client->state == CONNECTED && client->now_ms >= next_tick_ms(client)) {
        client->tick_ms = client->now_ms;
        watch_sending(client);
    }
    if (client->state != CONNECTED) {
        return;
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

/* Under TLS what is blocked may wait for reading. */
static bool wants_to_write(const struct mqtt_client *client)
{
    return client->tls ? mqtt_tls_wants_write(client->stream.ssl) : client->stream.is_blocked;
}

static short wanted_events(const struct mqtt_client *client)
{
    switch (client->state) {
    case CONNECTING:
        return POLLOUT;
    case TLS_HANDSHAKE:
        /* mosquitto_want_write is true from the first flight to the end of the handshake: polling for it would spin. */
        return mqtt_tls_wants_write(ssl_of(client)) ? POLLOUT : POLLIN;
    case AWAITING_CONNACK:
        return mosquitto_want_write(client->library) ? POLLIN | POLLOUT : POLLIN;
    default:
        return wants_to_write(client) ? POLLIN | POLLOUT : POLLIN;
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
    }
    return deadline_ms;
}

/* A broker at full speed answers each message by itself, and each answer would wake us, at the broker's cost and ours. While the
 * window has room for as many messages again, all answers are awaited, else half of them, up to ACKS_AWAITED_MAX; or
 * ack_patience_ms. A broker that has been quiet for a while wakes us with its next word: looking for it every ack_patience_ms would
 * be a spin as long as it stalls.
 * The number follows the window exactly. Measured, that is two calls of setsockopt and one wake-up for each commit of the journal; a
 * smaller number, which could stand for longer, is reached before the last of the answers, and then woke us for each that came. */
static void set_low_water(struct mqtt_client *client)
{
    const unsigned unanswered = client->unanswered, room = mqtt_client_room(client);
    unsigned awaited = room >= unanswered ? unanswered : unanswered / 2;
    awaited = awaited > ACKS_AWAITED_MAX ? ACKS_AWAITED_MAX : awaited;
    bool is_quiet = clock_mono_ms() - client->heard_ms > QUIET_PATIENCES * client->ack_patience_ms;
    if (client->state != CONNECTED || is_quiet || client->ack_patience_ms == 0 || awaited < ACKS_AWAITED_MIN) {
        awaited = 0;
    }
    int bytes = awaited > 0 ? (int)awaited * ACK_BYTES : 1;
    if (bytes != client->low_water) {
        set_option(client->stream.fd, SOL_SOCKET, SO_RCVLOWAT, bytes);
        client->low_water = bytes;
    }
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
    if (client->state >= CONNECTED) {
        set_low_water(client);
    }
    int64_t wait_ms = client->is_behind ? 0 : next_deadline_ms(client) - clock_mono_ms();
    if (client->low_water > 1 && wait_ms > client->ack_patience_ms) {
        wait_ms = client->ack_patience_ms;
    }
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
    bool is_open = client->state == CONNECTED && mqtt_stream_unsent(&client->stream) < UNSENT_MAX;
    return is_open ? client->limits.receive_maximum - client->unanswered - client->ack_count : 0;
}

size_t mqtt_client_packet_size(const struct mqtt_client *client, const struct mqtt_publish *message)
{
    return mqtt_packet_publish_size(client->version, message);
}

/* Content type and properties are not looked at: those who make them answer for them, see struct mqtt_publish. */
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
    if (size > MQTT_PACKET_MAX) {
        return error_set(why, ERR_INVALID, "a packet of %zu bytes is more than MQTT has", size);
    }
    return ERR_NONE;
}

static void begin_waiting(struct mqtt_client *client, uint16_t id, int qos)
{
    static const uint8_t first[] = {WRITTEN, PUBACK, PUBREC};
    client->last_mid = id;
    client->phases[id] = first[qos];
    if (client->unanswered++ == 0) {
        client->progress_ms = client->now_ms = clock_mono_ms();
    }
    if (qos == 0) {
        unsigned place = (client->unwritten_first + client->unwritten_count++) % client->window;
        client->unwritten[place] = (struct unwritten){mqtt_stream_end(&client->stream), id};
    }
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
    uint16_t id = client->last_mid == UINT16_MAX ? 1 : client->last_mid + 1;
    if (client->phases[id] != NOTHING) {
        /* 65534 later ones were answered before it; the broker will never do that. */
        finish(client, "%s: the broker never acknowledged message %u", client->where, id);
        return error_set(why, ERR_CLOSED, "%s", client->text);
    }
    mqtt_packet_append_publish(&client->stream.out, client->version, message, id);
    if (client->stream.out.failed) {
        client->stream.out.failed = false; /* what was there is still there */
        return error_set(why, ERR_MEMORY, "no memory for an MQTT message");
    }
    client->published_end = mqtt_stream_end(&client->stream);
    begin_waiting(client, id, message->qos);
    *mid = id;
    if (!client->is_bursting || mqtt_stream_unsent(&client->stream) >= BURST_FLUSH) {
        client->now_ms = clock_mono_ms();
        flush(client);
    }
    return client->state == CLOSED ? error_set(why, ERR_CLOSED, "%s", client->text) : ERR_NONE;
}

void mqtt_client_burst(struct mqtt_client *client, bool begin)
{
    client->is_bursting = begin;
    if (!begin && client->state == CONNECTED) {
        client->now_ms = clock_mono_ms();
        flush(client);
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
    client->now_ms = clock_mono_ms();
    client->disconnect_deadline_ms = client->now_ms + client->keepalive_ms;
    mqtt_packet_append_empty(&client->stream.out, MQTT_DISCONNECT);
    set_state(client, DISCONNECTING);
    work_session(client, 0);
}
