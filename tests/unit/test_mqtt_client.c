/* Against a real broker for what brokers do, and against a scripted one for what they should not. */
#include "test.h"

#include "meowbridge/clock.h"
#include "meowbridge/mqtt_client.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_MS 20000

static char directory[64];

/* libmosquitto unlocks a mutex that it does not hold when the broker disconnects it; harmless, and not ours. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "mutex:libmosquitto.so\n";
}

/* ---- names: a resolver that tests can slow down ---- */

static atomic_bool slow_is_over, nobody_knows_localhost;

typedef int look_up(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
    look_up *real = (look_up *)dlsym(RTLD_NEXT, "getaddrinfo");
    bool is_figures = hints && (hints->ai_flags & AI_NUMERICHOST);
    if (nobody_knows_localhost && !is_figures && name && strcmp(name, "localhost") == 0) {
        return EAI_AGAIN;
    }
    if (is_figures || !name || !strstr(name, ".test")) {
        return real(name, service, hints, list);
    }
    if (strcmp(name, "none.test") == 0) {
        return EAI_NONAME;
    }
    for (int i = 0; strcmp(name, "slow.test") == 0 && !slow_is_over && i < 20000; i++) {
        usleep(1000);
    }
    /* two.test: nobody listens at the first address. */
    struct addrinfo *second;
    int trouble = real("127.0.0.1", service, hints, &second);
    if (!trouble && strcmp(name, "two.test") == 0 && (trouble = real("127.0.0.9", service, hints, list)) == 0) {
        (*list)->ai_next = second;
    } else if (!trouble) {
        *list = second;
    }
    return trouble;
}

/* ---- TLS: a broker so quick that the handshake ends in the call that begins it ---- */

static atomic_bool is_broker_quick;

int SSL_connect(SSL *ssl)
{
    int (*real)(SSL *) = (int (*)(SSL *))dlsym(RTLD_NEXT, "SSL_connect");
    int done = real(ssl);
    while (is_broker_quick && done <= 0 && (SSL_want_read(ssl) || SSL_want_write(ssl)) && !SSL_get_shutdown(ssl)) {
        struct pollfd fd = {.fd = SSL_get_fd(ssl), .events = SSL_want_read(ssl) ? POLLIN : POLLOUT};
        if (poll(&fd, 1, 5000) <= 0) {
            break;
        }
        done = real(ssl);
        if (done <= 0 && SSL_get_error(ssl, done) != SSL_ERROR_WANT_READ && SSL_get_error(ssl, done) != SSL_ERROR_WANT_WRITE) {
            break;
        }
    }
    return done;
}

/* ---- the caller's loop ---- */

static unsigned turns; /* how often poll came back */

static void turn(struct mqtt_client *client)
{
    struct pollfd fd;
    int timeout_ms;
    mqtt_client_poll(client, &fd, &timeout_ms);
    poll(&fd, 1, timeout_ms >= 0 && timeout_ms < 5000 ? timeout_ms : 5000);
    mqtt_client_work(client, fd.revents);
    turns++;
}

static struct mqtt_event next_event(struct mqtt_client *client)
{
    struct mqtt_event event;
    int64_t deadline_ms = clock_mono_ms() + DEADLINE_MS;
    while (!mqtt_client_next(client, &event)) {
        assert_true(clock_mono_ms() < deadline_ms);
        turn(client);
    }
    return event;
}

static struct mqtt_event expect(struct mqtt_client *client, enum mqtt_event_type type)
{
    struct mqtt_event event = next_event(client);
    if (event.type != type) {
        fail_msg("event %d instead of %d: %s", event.type, type, event.type == MQTT_CLIENT_CLOSED ? event.text : "");
    }
    return event;
}

static void expect_closed(struct mqtt_client *client, const char *text)
{
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    if (!strstr(event.text, text)) {
        fail_msg("\"%s\" does not say \"%s\"", event.text, text);
    }
    assert_false(mqtt_client_next(client, &event));
    struct pollfd fd;
    int timeout_ms;
    mqtt_client_poll(client, &fd, &timeout_ms);
    assert_int_equal(fd.fd, -1);
    assert_int_equal(timeout_ms, -1);
    assert_int_equal(mqtt_client_room(client), 0);
}

static struct mqtt_client_options options_for(uint16_t port)
{
    return (struct mqtt_client_options){.host = "127.0.0.1",
                                        .port = port,
                                        .version = 5,
                                        .client_id = "bridge",
                                        .keepalive_ms = 10000,
                                        .window = 16,
                                        .connect_timeout_ms = 8000};
}

static struct mqtt_client *open_client(const struct mqtt_client_options *options)
{
    struct mqtt_client *client;
    struct error why;
    if (mqtt_client_open(&client, options, &why) != ERR_NONE) {
        fail_msg("%s", why.text);
    }
    return client;
}

static struct mqtt_client *connected_client(const struct mqtt_client_options *options)
{
    struct mqtt_client *client = open_client(options);
    expect(client, MQTT_CLIENT_CONNECTED);
    assert_true(mqtt_client_is_connected(client));
    return client;
}

static int publish(struct mqtt_client *client, const char *topic, const char *payload, int qos)
{
    struct mqtt_publish message = {.topic = slice_of(topic), .payload = slice_of(payload), .qos = qos};
    struct error why;
    int mid = 0;
    if (mqtt_client_publish(client, &message, &mid, &why) != ERR_NONE) {
        fail_msg("%s", why.text);
    }
    assert_true(mid > 0);
    return mid;
}

static int bound_socket(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

/* ---- the scripted broker: one connection, in a thread; it must not use cmocka's asserts ---- */

struct packet {
    uint8_t bytes[4096];
    size_t size;
};

struct peer {
    int listener, fd;
    uint16_t port;
    pthread_t thread;
    void (*script)(struct peer *peer);
    const char *bytes; /* for the script */
    size_t size;
    SSL_CTX *tls; /* NULL: plain */
    SSL *ssl;
    struct packet connect, publish, last;
    char server_name[256];
};

static ssize_t peer_receive(struct peer *peer, void *bytes, size_t size)
{
    return peer->ssl ? SSL_read(peer->ssl, bytes, (int)size) : recv(peer->fd, bytes, size, 0);
}

static void peer_send(struct peer *peer, const void *bytes, size_t size)
{
    if (size == 0) {
        return;
    }
    ssize_t sent = peer->ssl ? SSL_write(peer->ssl, bytes, (int)size) : send(peer->fd, bytes, size, MSG_NOSIGNAL);
    (void)sent;
}

#define PEER_SEND(peer, literal) peer_send(peer, literal, sizeof(literal) - 1)

static bool receive_exactly(struct peer *peer, struct packet *packet, size_t size)
{
    while (size > 0) {
        ssize_t n = peer_receive(peer, packet->bytes + packet->size, size);
        if (n <= 0) {
            return false;
        }
        packet->size += (size_t)n;
        size -= (size_t)n;
    }
    return true;
}

/* False at the end of the connection. */
static bool peer_packet(struct peer *peer, struct packet *packet)
{
    size_t length = 0;
    unsigned shift = 0;
    packet->size = 0;
    if (!receive_exactly(peer, packet, 1)) {
        return false;
    }
    do {
        if (!receive_exactly(peer, packet, 1)) {
            return false;
        }
        length |= (size_t)(packet->bytes[packet->size - 1] & 0x7f) << shift;
        shift += 7;
    } while (packet->bytes[packet->size - 1] & 0x80);
    return length <= sizeof packet->bytes - packet->size && receive_exactly(peer, packet, length);
}

static void peer_wait_for_end(struct peer *peer)
{
    while (peer_packet(peer, &peer->last)) {
    }
}

static void peer_reset(struct peer *peer)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static void *run_peer(void *ctx)
{
    struct peer *peer = ctx;
    struct pollfd fd = {.fd = peer->listener, .events = POLLIN};
    if (poll(&fd, 1, DEADLINE_MS) <= 0) {
        return NULL;
    }
    peer->fd = accept(peer->listener, NULL, NULL);
    struct timeval patience = {.tv_sec = DEADLINE_MS / 1000};
    setsockopt(peer->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (peer->tls) {
        peer->ssl = SSL_new(peer->tls);
        SSL_set_fd(peer->ssl, peer->fd);
        if (SSL_accept(peer->ssl) == 1) {
            const char *name = SSL_get_servername(peer->ssl, TLSEXT_NAMETYPE_host_name);
            snprintf(peer->server_name, sizeof peer->server_name, "%s", name ? name : "");
            peer->script(peer);
        } else { /* with its alert on the way: closing over unread bytes would overtake it */
            while (recv(peer->fd, peer->last.bytes, sizeof peer->last.bytes, 0) > 0) {
            }
        }
        SSL_free(peer->ssl);
    } else {
        peer->script(peer);
    }
    close(peer->fd);
    return NULL;
}

static void start_peer(struct peer *peer, void (*script)(struct peer *peer), const char *bytes, size_t size)
{
    SSL_CTX *tls = peer->tls;
    *peer = (struct peer){.script = script, .bytes = bytes, .size = size, .tls = tls};
    peer->listener = bound_socket(&peer->port);
    assert_int_equal(listen(peer->listener, 5), 0);
    assert_int_equal(pthread_create(&peer->thread, NULL, run_peer, peer), 0);
}

static void stop_peer(struct peer *peer)
{
    pthread_join(peer->thread, NULL);
    close(peer->listener);
}

#define ACCEPTED "\x20\x03\x00\x00\x00"
#define ACCEPTED_3 "\x20\x02\x00\x00"

/* Takes CONNECT, answers with the test's bytes, and stays until the client has gone. */
static void answer_and_stay(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    peer_send(peer, peer->bytes, peer->size);
    peer_wait_for_end(peer);
}

static void answer_and_close(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    peer_send(peer, peer->bytes, peer->size);
}

/* Accepts a session, takes one PUBLISH, answers it with the test's bytes. */
static void answer_publish(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    peer_packet(peer, &peer->publish);
    peer_send(peer, peer->bytes, peer->size);
    peer_wait_for_end(peer);
}

/* ---- a real broker ---- */

struct broker {
    uint16_t port;
    pid_t pid;
};

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void in_directory(const char *command)
{
    char line[2048];
    snprintf(line, sizeof line, "cd %s && %s", directory, command);
    assert_int_equal(system(line), 0);
}

static bool is_open(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool open = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return open;
}

static void start_broker(struct broker *broker, const char *settings)
{
    char text[4096], path[256];
    close(bound_socket(&broker->port));
    snprintf(text, sizeof text, "%slistener %u 127.0.0.1\nlog_dest file %s/broker.log\n%s\n",
             geteuid() == 0 ? "user root\n" : "", broker->port, directory, settings);
    write_file("broker.conf", text);
    snprintf(path, sizeof path, "%s/broker.conf", directory);
    broker->pid = fork();
    if (broker->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* whatever becomes of the test */
        freopen("/dev/null", "w", stderr);
        execl("/usr/sbin/mosquitto", "mosquitto", "-c", path, (char *)NULL);
        _exit(127);
    }
    for (int64_t deadline_ms = clock_mono_ms() + DEADLINE_MS; !is_open(broker->port); usleep(5000)) {
        assert_true(clock_mono_ms() < deadline_ms && waitpid(broker->pid, NULL, WNOHANG) == 0);
    }
}

static void stop_broker(struct broker *broker)
{
    kill(broker->pid, SIGKILL);
    waitpid(broker->pid, NULL, 0);
}

/* What mosquitto_sub prints in that format for the first message, without its newline. */
static FILE *subscribe(const struct broker *broker, const char *topic, const char *format)
{
    char command[512];
    snprintf(command, sizeof command, "mosquitto_sub -h 127.0.0.1 -V 5 -p %u -q 2 -C 1 -W 15 -t '%s' -F '%s'", broker->port,
             topic, format);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    return pipe;
}

static void expect_heard(FILE *pipe, const char *expected)
{
    char line[1024] = "";
    char *got = fgets(line, sizeof line, pipe);
    pclose(pipe);
    assert_ptr_equal(got, line);
    line[strcspn(line, "\n")] = 0;
    assert_string_equal(line, expected);
}

/* A retained message is there before anybody subscribes, so that no test has to wait for a subscription. */
static void expect_retained(const struct broker *broker, const char *topic, const char *format, const char *expected)
{
    expect_heard(subscribe(broker, topic, format), expected);
}

/* ---- pure ---- */

static void reason_codes_say_what_to_do(void **state)
{
    (void)state;
    static const struct {
        uint8_t code;
        enum mqtt_ack ack;
        const char *text;
    } cases[] = {
        {0x00, MQTT_ACK_DONE, "success"},
        {0x10, MQTT_ACK_UNHEARD, "no matching subscribers"},
        {0x80, MQTT_ACK_DOUBTFUL, "unspecified error"},
        {0x83, MQTT_ACK_DOUBTFUL, "implementation specific error"},
        {0x87, MQTT_ACK_REFUSED, "not authorized"},
        {0x90, MQTT_ACK_REFUSED, "topic name invalid"},
        {0x91, MQTT_ACK_RETRY, "packet identifier in use"},
        {0x92, MQTT_ACK_RETRY, "packet identifier not found"},
        {0x95, MQTT_ACK_REFUSED, "packet too large"},
        {0x97, MQTT_ACK_RETRY, "quota exceeded"},
        {0x99, MQTT_ACK_REFUSED, "payload format invalid"},
        {0x9a, MQTT_ACK_REFUSED, "retain not supported"},
        {0x9b, MQTT_ACK_REFUSED, "QoS not supported"},
        {0xa3, MQTT_ACK_DOUBTFUL, "unknown error"},
        {0xf0, MQTT_ACK_DOUBTFUL, "unknown error"},
        {0x70, MQTT_ACK_DONE, "unknown success"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(mqtt_ack_of(cases[i].code), cases[i].ack);
        assert_string_equal(mqtt_reason_text(cases[i].code), cases[i].text);
    }
}

static void expect_refused_options(const struct mqtt_client_options *options, const char *text)
{
    struct mqtt_client *client;
    struct error why;
    assert_int_equal(mqtt_client_open(&client, options, &why), ERR_INVALID);
    if (!strstr(why.text, text)) {
        fail_msg("\"%s\" does not say \"%s\"", why.text, text);
    }
}

static void options_that_cannot_work_are_refused_at_once(void **state)
{
    (void)state;
    struct mqtt_client_options good = options_for(1883), bad;
    expect_refused_options((bad = good, bad.host = "", &bad), "host");
    expect_refused_options((bad = good, bad.port = 0, &bad), "port");
    expect_refused_options((bad = good, bad.version = 4, &bad), "version 4");
    expect_refused_options((bad = good, bad.window = 0, &bad), "window");
    expect_refused_options((bad = good, bad.window = 65536, &bad), "window");
    expect_refused_options((bad = good, bad.keepalive_ms = 999, &bad), "keep-alive");
    expect_refused_options((bad = good, bad.client_id = "a\xff", &bad), "client id");
    expect_refused_options((bad = good, bad.username = "a\n", &bad), "user name");
    expect_refused_options((bad = good, bad.password = SLICE("a\0b"), &bad), "NUL");
    expect_refused_options((bad = good, bad.version = 3, bad.password = SLICE("secret"), &bad), "without a user name");
    expect_refused_options((bad = good, bad.will_topic = "a/#", &bad), "will");
    expect_refused_options((bad = good, bad.will_topic = "", &bad), "will");
    assert_int_not_equal(fcntl(STDIN_FILENO, F_GETFD), -1); /* mosquitto_new closes 0 over a bad id */
}

/* ---- connecting ---- */

static void connect_says_all_that_it_should(void **state)
{
    (void)state;
    static const char v5[] = "\x10\x37\x00\x04MQTT\x05\xee\x00\x0a\x03\x21\x00\x14" /* clean start, will QoS 1 retained, 10 s */
                             "\x00\x06"
                             "bridge\x00\x00\x08"
                             "a/status\x00\x07"
                             "offline\x00\x03"
                             "ann\x00\x06secret";
    static const char v3[] = "\x10\x32\x00\x04MQTT\x04\xee\x00\x0a\x00\x06"
                             "bridge\x00\x08"
                             "a/status\x00\x07"
                             "offline\x00\x03"
                             "ann\x00\x06secret";
    for (int version = 3; version <= 5; version += 2) {
        static struct peer peer;
        start_peer(&peer, answer_and_stay, version == 5 ? ACCEPTED : ACCEPTED_3, version == 5 ? 5 : 4);
        struct mqtt_client_options options = options_for(peer.port);
        options.version = version;
        options.username = "ann";
        options.password = SLICE("secret");
        options.will_topic = "a/status";
        options.will_payload = SLICE("offline");
        struct mqtt_client *client = connected_client(&options);
        mqtt_client_close(&client);
        stop_peer(&peer);
        assert_int_equal(peer.connect.size, version == 5 ? sizeof v5 - 1 : sizeof v3 - 1);
        assert_memory_equal(peer.connect.bytes, version == 5 ? v5 : v3, peer.connect.size);
        assert_null(client);
    }
}

static struct mqtt_limits limits_after(const char *connack, size_t size, int version)
{
    static struct peer peer;
    start_peer(&peer, answer_and_stay, connack, size);
    struct mqtt_client_options options = options_for(peer.port);
    options.version = version;
    struct mqtt_client *client = connected_client(&options);
    struct mqtt_limits limits = *mqtt_client_limits(client);
    assert_int_equal(mqtt_client_room(client), limits.receive_maximum);
    mqtt_client_close(&client);
    stop_peer(&peer);
    return limits;
}

#define LIMITS_AFTER(connack, version) limits_after(connack, sizeof(connack) - 1, version)

static void limits_are_the_brokers_or_the_standards(void **state)
{
    (void)state;
    struct mqtt_limits limits = LIMITS_AFTER(ACCEPTED, 5);
    assert_int_equal(limits.receive_maximum, 16);
    assert_int_equal(limits.maximum_packet_size, 0);
    assert_int_equal(limits.maximum_qos, 2);
    assert_true(limits.retain_available);
    limits = LIMITS_AFTER("\x20\x0f\x00\x00\x0c\x21\x00\x01\x27\x00\x00\x01\x00\x24\x01\x25\x00", 5);
    assert_int_equal(limits.receive_maximum, 1);
    assert_int_equal(limits.maximum_packet_size, 256);
    assert_int_equal(limits.maximum_qos, 1);
    assert_false(limits.retain_available);
    limits = LIMITS_AFTER("\x20\x06\x00\x00\x03\x21\x01\x00", 5);
    assert_int_equal(limits.receive_maximum, 16);
    limits = LIMITS_AFTER(ACCEPTED_3, 3);
    assert_int_equal(limits.receive_maximum, 16);
    assert_int_equal(limits.maximum_packet_size, 0);
    assert_int_equal(limits.maximum_qos, 2);
    assert_true(limits.retain_available);
}

static void expect_refusal(int version, const char *connack, size_t size, uint8_t code, const char *text)
{
    static struct peer peer;
    start_peer(&peer, answer_and_stay, connack, size);
    struct mqtt_client_options options = options_for(peer.port);
    options.version = version;
    struct mqtt_client *client = open_client(&options);
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    assert_true(event.refused);
    assert_false(event.silent);
    assert_int_equal(event.reason_code, code);
    if (!strstr(event.text, text)) {
        fail_msg("\"%s\" does not say \"%s\"", event.text, text);
    }
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void a_refusal_is_told_with_its_reason(void **state)
{
    (void)state;
    expect_refusal(5, "\x20\x03\x00\x86\x00", 5, 0x86, "the broker refused the connection: bad user name or password (0x86)");
    expect_refusal(5, "\x20\x03\x00\x85\x00", 5, 0x85, "client identifier not valid (0x85)");
    expect_refusal(5, "\x20\x09\x00\x87\x06\x1f\x00\x03its", 11, 0x87,
                   "not authorized (0x87): user name, password or client certificate?");
    expect_refusal(5, "\x20\x03\x00\x9a\x00", 5, 0x9a, "retain not supported (0x9a)");
    expect_refusal(5, "\x20\x02\x00\x01", 4, 0x84, "unsupported protocol version (0x84)"); /* a broker of 3.1.1 */
    static const char *const version_3[] = {"unacceptable protocol version (0x01)", "client identifier rejected (0x02)",
                                            "server unavailable (0x03)", "bad user name or password (0x04): user name",
                                            "not authorized (0x05): user name"};
    for (int code = 1; code <= 5; code++) {
        char connack[] = {0x20, 2, 0, (char)code};
        expect_refusal(3, connack, sizeof connack, (uint8_t)code, version_3[code - 1]);
    }
}

static void expect_end_after(void (*script)(struct peer *), const char *bytes, size_t size, const char *text)
{
    static struct peer peer;
    start_peer(&peer, script, bytes, size);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = open_client(&options);
    expect_closed(client, text);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

#define GARBAGE(literal) expect_end_after(answer_and_stay, literal, sizeof(literal) - 1, "is not valid MQTT")

static void what_is_no_connack_ends_the_connection(void **state)
{
    (void)state;
    GARBAGE("HTTP/1.1 400 Bad Request\r\n\r\n");
    GARBAGE("SSH-2.0-OpenSSH_9.2p1\r\n");
    GARBAGE("\x15\x03\x03\x00\x02\x02\x46");
    GARBAGE("\x20\x05\x00\x00\x02\x7f\x00");                 /* a property that there is not: aborts libmosquitto */
    GARBAGE("\x20\x06\x00\x00\x03\x1f\x00\x09");             /* a string that ends outside */
    GARBAGE("\x20\x06\x00\x00\x03\x21\x00\x00");             /* receive maximum 0 */
    GARBAGE("\x20\x09\x00\x00\x06\x21\x00\x05\x21\x00\x05"); /* twice */
    GARBAGE("\x20\x00");
    GARBAGE("\x20\xff\xff\xff\xff\x01");
    GARBAGE("\x20\xff\xff\x7f");
    GARBAGE("\xd0\x00");
    GARBAGE("\x40\x02\x00\x01");
}

static void expect_end_of_session_after(const char *bytes, size_t size)
{
    static struct peer peer;
    start_peer(&peer, answer_and_stay, bytes, size);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    expect_closed(client, "is not valid MQTT");
    mqtt_client_close(&client);
    stop_peer(&peer);
}

#define GARBAGE_LATER(literal) expect_end_of_session_after(ACCEPTED literal, sizeof(ACCEPTED literal) - 1)

static void a_property_that_there_is_not_ends_the_connection_and_not_the_process(void **state)
{
    (void)state;
    GARBAGE_LATER("\x40\x06\x00\x01\x00\x02\x7f\x00");                         /* PUBACK */
    GARBAGE_LATER("\x50\x06\x00\x01\x00\x02\x7f\x00");                         /* PUBREC */
    GARBAGE_LATER("\x62\x06\x00\x01\x00\x02\x7f\x00");                         /* PUBREL */
    GARBAGE_LATER("\x70\x06\x00\x01\x00\x02\x7f\x00");                         /* PUBCOMP */
    GARBAGE_LATER("\x32\x08\x00\x01x\x00\x01\x02\x7f\x00");                    /* PUBLISH */
    GARBAGE_LATER("\x90\x06\x00\x01\x02\x7f\x00\x00");                         /* SUBACK */
    GARBAGE_LATER("\xe0\x04\x00\x02\x7f\x00");                                 /* DISCONNECT */
    GARBAGE_LATER("\x40\x06\x00\x01\x00\x02\x24\x00");                         /* one that a PUBACK may not have */
    GARBAGE_LATER("\x40\x0a\x00\x01\x00\x06\x1f\x00\x00\x1f\x00\x00");         /* twice */
    GARBAGE_LATER("\xf0\x00");                                                 /* AUTH */
    GARBAGE_LATER("\xd0\x00\xd0\x00\x40\x06\x00\x01\x00\x02\x7f\x00\xd0\x00"); /* among good ones */
}

static void a_second_connack_ends_the_connection(void **state)
{
    (void)state;
    GARBAGE_LATER(ACCEPTED);
}

static void a_connack_cut_anywhere_is_the_end(void **state)
{
    (void)state;
    static const char connack[] = "\x20\x09\x00\x00\x06\x21\x00\x05\x24\x01\x2a\x01";
    for (size_t size = 0; size < 11; size++) {
        expect_end_after(answer_and_close, connack, size, "no MQTT session with 127.0.0.1:");
    }
}

static void drip_connack(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    for (size_t i = 0; i < peer->size; i++) {
        peer_send(peer, peer->bytes + i, 1);
        usleep(30000);
    }
    peer_wait_for_end(peer);
}

static void a_connack_in_drips_is_taken_without_spinning(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, drip_connack, "\x20\x06\x00\x00\x03\x21\x00\x05", 8);
    struct mqtt_client_options options = options_for(peer.port);
    turns = 0;
    struct mqtt_client *client = connected_client(&options);
    assert_int_equal(mqtt_client_limits(client)->receive_maximum, 5);
    assert_in_range(turns, 5, 80);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void a_closed_port_is_told_quickly_with_the_cause(void **state)
{
    (void)state;
    uint16_t port;
    close(bound_socket(&port));
    struct mqtt_client_options options = options_for(port);
    int64_t begin_ms = clock_mono_ms();
    for (int i = 0; i < 3; i++) {
        struct mqtt_client *client = open_client(&options);
        char text[100];
        snprintf(text, sizeof text, "cannot connect to 127.0.0.1:%u: Connection refused", port);
        expect_closed(client, text);
        mqtt_client_close(&client);
    }
    assert_true(clock_mono_ms() - begin_ms < 2000);
}

static void every_address_of_a_name_is_tried(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, answer_and_stay, ACCEPTED, 5);
    struct mqtt_client_options options = options_for(peer.port);
    options.host = "two.test";
    struct mqtt_client *client = connected_client(&options);
    mqtt_client_close(&client);
    stop_peer(&peer);

    options.port = peer.port; /* now nobody is there either */
    client = open_client(&options);
    expect_closed(client, "Connection refused (127.0.0.9), Connection refused (127.0.0.1)");
    mqtt_client_close(&client);
}

static void localhost_works_when_only_ipv4_listens(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, answer_and_stay, ACCEPTED, 5);
    struct mqtt_client_options options = options_for(peer.port);
    options.host = "localhost";
    struct mqtt_client *client = connected_client(&options);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void localhost_works_where_no_file_knows_it(void **state)
{
    nobody_knows_localhost = true;
    localhost_works_when_only_ipv4_listens(state);
    nobody_knows_localhost = false;
}

static void a_name_that_is_none_is_told(void **state)
{
    (void)state;
    struct mqtt_client_options options = options_for(1883);
    options.host = "none.test";
    struct mqtt_client *client = open_client(&options);
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    assert_string_equal(event.text, "cannot resolve none.test: Name or service not known");
    assert_string_equal(event.cause, event.text);
    assert_false(event.names_broker);
    mqtt_client_close(&client);
}

static void a_slow_resolver_blocks_nobody(void **state)
{
    (void)state;
    struct mqtt_client_options options = options_for(1883);
    options.host = "slow.test";
    options.connect_timeout_ms = 300;
    slow_is_over = false;
    int64_t begin_ms = clock_mono_ms();
    struct mqtt_client *client = open_client(&options);
    mqtt_client_work(client, 0);
    assert_true(clock_mono_ms() - begin_ms < 200);
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    assert_true(event.silent);
    assert_non_null(strstr(event.text, "the name was not resolved for 0.3 s"));
    mqtt_client_close(&client);
    assert_true(clock_mono_ms() - begin_ms < 2000);
    slow_is_over = true;
}

/* A listener whose queue is full drops what comes. */
struct deaf {
    int listener, fillers[8];
    uint16_t port;
};

static void start_deaf(struct deaf *deaf)
{
    deaf->listener = bound_socket(&deaf->port);
    listen(deaf->listener, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(deaf->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < 8; i++) {
        deaf->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(deaf->fillers[i], (struct sockaddr *)&address, sizeof address);
    }
}

static void stop_deaf(struct deaf *deaf)
{
    for (int i = 0; i < 8; i++) {
        close(deaf->fillers[i]);
    }
    close(deaf->listener);
}

static void a_host_that_does_not_answer_is_given_up(void **state)
{
    (void)state;
    struct deaf deaf;
    start_deaf(&deaf);
    struct mqtt_client_options options = options_for(deaf.port);
    options.connect_timeout_ms = 400;
    turns = 0;
    int64_t begin_ms = clock_mono_ms();
    struct mqtt_client *client = open_client(&options);
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    assert_true(event.silent);
    assert_non_null(strstr(event.text, "no answer"));
    assert_in_range(clock_mono_ms() - begin_ms, 390, 1500);
    assert_in_range(turns, 1, 10);
    mqtt_client_close(&client);
    stop_deaf(&deaf);
}

static void stay(struct peer *peer)
{
    peer_wait_for_end(peer);
}

static void a_broker_without_connack_is_given_up(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, stay, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    options.connect_timeout_ms = 400;
    turns = 0;
    struct mqtt_client *client = open_client(&options);
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    assert_true(event.silent);
    assert_false(event.refused);
    assert_non_null(strstr(event.text, "no CONNACK from the broker for 0.4 s"));
    assert_in_range(turns, 1, 10);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

/* ---- publishing ---- */

static const struct named_value two_properties[] = {{SLICE("id"), SLICE("7")}, {SLICE("empty"), {NULL, 0}}};

static void a_publish_packet_is_exact_and_its_size_is_known(void **state)
{
    (void)state;
    static const char expected[] = "\x33\x36\x00\x03"
                                   "a/b\x00\x01\x2c\x01\x01\x03\x00\x10"
                                   "application/json\x02\x00\x00\x00\x3c\x26\x00\x02"
                                   "id\x00\x01"
                                   "7\x26\x00\x05"
                                   "empty\x00\x00"
                                   "{}";
    static struct peer peer;
    start_peer(&peer, answer_publish, "\x40\x02\x00\x01", 4);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    struct mqtt_publish message = {.topic = SLICE("a/b"),
                                   .payload = SLICE("{}"),
                                   .qos = 1,
                                   .retain = true,
                                   .expiry_s = 60,
                                   .content_type = SLICE("application/json"),
                                   .properties = two_properties,
                                   .property_count = 2};
    struct error why;
    int mid;
    assert_int_equal(mqtt_client_packet_size(client, &message), sizeof expected - 1);
    assert_int_equal(mqtt_client_publish(client, &message, &mid, &why), ERR_NONE);
    assert_int_equal(mqtt_client_room(client), 15);
    struct mqtt_event event = expect(client, MQTT_CLIENT_ACKED);
    assert_int_equal(event.mid, mid);
    assert_int_equal(event.reason_code, 0);
    assert_int_equal(mqtt_client_room(client), 16);
    mqtt_client_close(&client);
    stop_peer(&peer);
    assert_int_equal(peer.publish.size, sizeof expected - 1);
    assert_memory_equal(peer.publish.bytes, expected, sizeof expected - 1);
}

static void answer_publish_3(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED_3);
    peer_packet(peer, &peer->publish);
    PEER_SEND(peer, "\x40\x02\x00\x01");
    peer_wait_for_end(peer);
}

static void a_publish_packet_of_version_3_has_no_properties(void **state)
{
    (void)state;
    static const char expected[] = "\x32\x09\x00\x03"
                                   "a/b\x00\x01"
                                   "{}";
    static struct peer peer;
    start_peer(&peer, answer_publish_3, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    options.version = 3;
    struct mqtt_client *client = connected_client(&options);
    struct mqtt_publish message = {.topic = SLICE("a/b"),
                                   .payload = SLICE("{}"),
                                   .qos = 1,
                                   .expiry_s = 60,
                                   .content_type = SLICE("application/json"),
                                   .properties = two_properties,
                                   .property_count = 2};
    struct error why;
    int mid;
    assert_int_equal(mqtt_client_packet_size(client, &message), sizeof expected - 1);
    assert_int_equal(mqtt_client_publish(client, &message, &mid, &why), ERR_NONE);
    expect(client, MQTT_CLIENT_ACKED);
    mqtt_client_close(&client);
    stop_peer(&peer);
    assert_int_equal(peer.publish.size, sizeof expected - 1);
    assert_memory_equal(peer.publish.bytes, expected, sizeof expected - 1);
}

static void the_size_of_large_packets_counts_each_length_byte(void **state)
{
    (void)state;
    struct mqtt_client_options options = options_for(1883); /* it connects when it is given time to work */
    struct mqtt_client *client = open_client(&options);
    static const char filler[2200000];
    static const struct {
        size_t payload, qos, size;
    } cases[] = {{121, 0, 2 + 127},         {122, 0, 3 + 128},         {16377, 0, 3 + 16383}, {16378, 0, 4 + 16384},
                 {2097145, 0, 4 + 2097151}, {2097146, 0, 5 + 2097152}, {119, 1, 2 + 127},     {120, 2, 3 + 128}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mqtt_publish message = {.topic = SLICE("abc"), .payload = {filler, cases[i].payload}, .qos = (int)cases[i].qos};
        assert_int_equal(mqtt_client_packet_size(client, &message), cases[i].size);
    }
    /* 130 bytes of properties: their length takes two. */
    struct named_value property = {SLICE("name"), {filler, 121}};
    struct mqtt_publish message = {.topic = SLICE("abc"), .properties = &property, .property_count = 1};
    assert_int_equal(mqtt_client_packet_size(client, &message), 3 + 2 + 3 + 2 + 130);
    mqtt_client_close(&client);
}

static void expect_ack(const char *answer, size_t size, int qos, uint8_t code)
{
    static struct peer peer;
    start_peer(&peer, answer_publish, answer, size);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    int mid = publish(client, "a", "b", qos);
    struct mqtt_event event = expect(client, MQTT_CLIENT_ACKED);
    assert_int_equal(event.mid, mid);
    assert_int_equal(event.reason_code, code);
    mqtt_client_disconnect(client);
    expect_closed(client, "disconnected"); /* and not a second ACKED */
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void every_reason_code_reaches_the_caller(void **state)
{
    (void)state;
    static const uint8_t codes[] = {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99, 0xee};
    for (size_t i = 0; i < sizeof codes; i++) {
        char puback[] = {0x40, 3, 0, 1, (char)codes[i]};
        expect_ack(puback, sizeof puback, 1, codes[i]);
        if (codes[i] >= 0x80) {
            char pubrec[] = {0x50, 3, 0, 1, (char)codes[i]};
            expect_ack(pubrec, sizeof pubrec, 2, codes[i]);
        }
    }
    expect_ack("\x40\x09\x00\x01\x87\x05\x1f\x00\x02no", 11, 1, 0x87); /* with a reason string */
    expect_ack("\x50\x02\x00\x01\x70\x02\x00\x01", 8, 2, 0x00);        /* PUBREC, then PUBCOMP */
    expect_ack("\x50\x02\x00\x01\x70\x03\x00\x01\x92", 9, 2, 0x92);
    expect_ack("\x50\x03\x00\x01\x10\x70\x02\x00\x01", 9, 2, 0x10);              /* unheard, as PUBREC said */
    expect_ack("\x40\x02\x00\x01\x40\x02\x00\x01\x40\x02\x00\x09", 12, 1, 0x00); /* again, and for none of ours */
}

static void expect_end_after_publish(const char *answer, size_t size, int qos)
{
    static struct peer peer;
    start_peer(&peer, answer_publish, answer, size);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    publish(client, "a", "b", qos);
    expect_closed(client, "is not valid MQTT");
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void an_answer_of_another_qos_ends_the_connection(void **state)
{
    (void)state;
    expect_end_after_publish("\x40\x02\x00\x01", 4, 2); /* PUBACK */
    expect_end_after_publish("\x50\x02\x00\x01", 4, 1); /* PUBREC */
    expect_end_after_publish("\x70\x02\x00\x01", 4, 1); /* PUBCOMP */
    expect_end_after_publish("\x70\x02\x00\x01", 4, 2); /* PUBCOMP before PUBREC */
    expect_end_after_publish("\x50\x02\x00\x01\x40\x02\x00\x01", 8, 2);
    expect_end_after_publish("\x40\x02\x00\x00", 4, 1); /* for message 0 */
    expect_end_after_publish("\x41\x02\x00\x01", 4, 1); /* a flag that there is not */
}

static void answer_in_drips(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    peer_packet(peer, &peer->publish);
    for (size_t i = 0; i < peer->size; i++) {
        peer_send(peer, peer->bytes + i, 1);
        usleep(2000);
    }
    peer_wait_for_end(peer);
}

static void an_answer_in_drips_is_taken(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, answer_in_drips, "\xd0\x00\x40\x09\x00\x01\x97\x05\x1f\x00\x02no", 13);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    publish(client, "a", "b", 1);
    assert_int_equal(expect(client, MQTT_CLIENT_ACKED).reason_code, 0x97);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

/* Forwards a message of each QoS, the second of 100,000 bytes, and takes the answers. */
static void forward_messages(struct peer *peer)
{
    static char large[5 + 100000] = "\x32\xa0\x8d\x06\x00\x01y\x00\x07";
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    PEER_SEND(peer, "\x30\x05\x00\x01x\x00?");
    peer_send(peer, large, 4 + 100000);
    peer_packet(peer, &peer->publish);
    PEER_SEND(peer, "\x34\x07\x00\x01z\x00\x08\x00?");
    peer_packet(peer, &peer->last);
    PEER_SEND(peer, "\x62\x02\x00\x08");
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, "\xe0\x00");
}

static void messages_that_nobody_asked_for_are_confirmed_and_thrown_away(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, forward_messages, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    expect_closed(client, "disconnected us: success");
    mqtt_client_close(&client);
    stop_peer(&peer);
    assert_memory_equal(peer.publish.bytes, "\x40\x02\x00\x07", 4);
    assert_memory_equal(peer.last.bytes, "\x50\x02\x00\x08", 4);
    assert_memory_equal(peer.connect.bytes, "\x70\x02\x00\x08", 4);
}

static void flood(struct peer *peer)
{
    static char messages[9 * 4000];
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    for (size_t i = 0; i < sizeof messages; i += 9) {
        memcpy(messages + i, "\x32\x07\x00\x01z\x00\x08\x00?", 9);
    }
    while (send(peer->fd, messages, sizeof messages, MSG_NOSIGNAL) > 0) {
    }
}

static void a_broker_that_sends_and_does_not_read_is_left(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, flood, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    expect_closed(client, "the broker sends and does not read");
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static atomic_bool may_acknowledge_more;

/* Takes 32 messages, acknowledges the first, and when told 20 more in one piece. */
static void acknowledge_in_two_pieces(struct peer *peer)
{
    char pubacks[20 * 4];
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    for (int i = 0; i < 32; i++) {
        peer_packet(peer, &peer->publish);
    }
    PEER_SEND(peer, "\x40\x02\x00\x01");
    while (!may_acknowledge_more) {
        usleep(1000);
    }
    for (size_t i = 0; i < 20; i++) {
        memcpy(pubacks + 4 * i, (char[]){0x40, 2, 0, (char)(i + 2)}, 4);
    }
    peer_send(peer, pubacks, sizeof pubacks);
    peer_wait_for_end(peer);
}

static void answers_wait_for_each_other_no_longer_than_patience_lasts(void **state)
{
    (void)state;
    enum { PATIENCE_MS = 700 }; /* less than a tick */
    static struct peer peer;
    may_acknowledge_more = false;
    start_peer(&peer, acknowledge_in_two_pieces, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    options.window = 32;
    options.ack_patience_ms = PATIENCE_MS;
    struct mqtt_client *client = connected_client(&options);
    turn(client); /* it looks once more for what has come with CONNACK */
    for (int i = 0; i < 32; i++) {
        publish(client, "a", "b", 1);
    }
    int64_t begin_ms = clock_mono_ms();
    assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, 1); /* alone: its time has come */
    assert_in_range(clock_mono_ms() - begin_ms, PATIENCE_MS - 10, DEADLINE_MS);
    begin_ms = clock_mono_ms();
    may_acknowledge_more = true;
    for (int i = 0; i < 20; i++) { /* enough of them: at once */
        assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, i + 2);
    }
    assert_in_range(clock_mono_ms() - begin_ms, 0, PATIENCE_MS - 10);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

/* Takes 32 messages and says nothing until told, then acknowledges one. */
static void acknowledge_one_when_told(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    for (int i = 0; i < 32; i++) {
        peer_packet(peer, &peer->publish);
    }
    while (!may_acknowledge_more) {
        usleep(1000);
    }
    PEER_SEND(peer, "\x40\x02\x00\x01");
    peer_wait_for_end(peer);
}

static void a_broker_that_stalls_is_not_looked_after_all_the_time(void **state)
{
    (void)state;
    static struct peer peer;
    may_acknowledge_more = false;
    start_peer(&peer, acknowledge_one_when_told, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    options.window = 32;
    options.ack_patience_ms = 1;
    struct mqtt_client *client = connected_client(&options);
    for (int i = 0; i < 32; i++) {
        publish(client, "a", "b", 1);
    }
    turns = 0;
    for (int64_t end_ms = clock_mono_ms() + 700; clock_mono_ms() < end_ms;) {
        turn(client);
    }
    assert_in_range(turns, 1, 60);
    may_acknowledge_more = true;
    turns = 0;
    assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, 1); /* though it is alone */
    assert_in_range(turns, 1, 3);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void a_puback_cut_anywhere_is_the_end(void **state)
{
    (void)state;
    for (size_t size = 0; size < 4; size++) {
        static struct peer peer;
        char answer[] = ACCEPTED "\x40\x02\x00\x01";
        start_peer(&peer, answer_and_close, answer, 5 + size);
        struct mqtt_client_options options = options_for(peer.port);
        struct mqtt_client *client = connected_client(&options);
        expect_closed(client, "the broker closed the connection");
        mqtt_client_close(&client);
        stop_peer(&peer);
    }
}

static void qos_0_is_acknowledged_when_written(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, answer_and_stay, ACCEPTED, 5);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    int first = publish(client, "a", "b", 0), second = publish(client, "a", "c", 0);
    assert_int_not_equal(first, second);
    assert_int_equal(mqtt_client_room(client), 14); /* until the events are taken */
    assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, first);
    assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, second);
    assert_int_equal(mqtt_client_room(client), 16);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static atomic_bool may_take;

static void take_all_when_told(struct peer *peer)
{
    static char bytes[65536];
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    while (!may_take) {
        usleep(1000);
    }
    while (peer_receive(peer, bytes, sizeof bytes) > 0) {
    }
}

static void qos_0_counts_as_in_flight_until_the_socket_has_taken_it(void **state)
{
    (void)state;
    static struct peer peer;
    may_take = false;
    start_peer(&peer, take_all_when_told, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    static char filler[8000000]; /* more than a socket takes */
    struct mqtt_publish message = {.topic = SLICE("a"), .payload = {filler, sizeof filler}};
    struct error why;
    int mids[16], sent = 0, taken = 0;
    while (mqtt_client_room(client) > 0) { /* until what is unsent is too much to take more */
        assert_in_range(sent, 0, 14);
        assert_int_equal(mqtt_client_room(client), 16 - sent);
        assert_int_equal(mqtt_client_publish(client, &message, &mids[sent++], &why), ERR_NONE);
    }
    struct mqtt_event event;
    while (mqtt_client_next(client, &event)) {
        assert_int_equal(event.mid, mids[taken++]);
    }
    assert_true(taken < sent);
    may_take = true;
    for (; taken < sent; taken++) {
        assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, mids[taken]);
    }
    assert_int_equal(mqtt_client_room(client), 16);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

/* PUBCOMPs for messages that have no such thing, while nothing is read. */
static void complete_then_take_all(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    while (!may_take) {
        usleep(1000);
    }
    for (char mid = 1; mid <= 16; mid++) {
        peer_send(peer, (char[]){0x70, 2, 0, mid}, 4);
    }
    PEER_SEND(peer, "\x30\x05\x00\x01x\x00?");
    char bytes[65536];
    while (peer_receive(peer, bytes, sizeof bytes) > 0) {
    }
}

static void a_false_pubcomp_does_not_count_for_qos_0(void **state)
{
    (void)state;
    static struct peer peer;
    may_take = false;
    start_peer(&peer, complete_then_take_all, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    static char filler[8000000]; /* more than a socket takes */
    const struct mqtt_publish message = {.topic = SLICE("a"), .payload = {filler, sizeof filler}};
    struct error why;
    int mids[16], sent = 0;
    while (mqtt_client_room(client) > 0) {
        assert_in_range(sent, 0, 14);
        assert_int_equal(mqtt_client_publish(client, &message, &mids[sent++], &why), ERR_NONE);
    }
    may_take = true;
    for (int i = 0; i < sent; i++) {
        assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, mids[i]);
    }
    struct mqtt_event event;
    assert_false(mqtt_client_next(client, &event));
    assert_int_equal(mqtt_client_room(client), 16);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void one_by_one(struct peer *peer)
{
    static const char connack[] = "\x20\x06\x00\x00\x03\x21\x00\x01";
    peer_packet(peer, &peer->connect);
    peer_send(peer, connack, sizeof connack - 1);
    while (peer_packet(peer, &peer->publish)) {
        char puback[] = {0x40, 2, (char)peer->publish.bytes[5], (char)peer->publish.bytes[6]};
        peer_send(peer, puback, sizeof puback);
    }
}

static void a_receive_maximum_of_one_is_kept(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, one_by_one, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(mqtt_client_room(client), 1);
        int mid = publish(client, "a", "b", 1);
        assert_int_equal(mqtt_client_room(client), 0);
        assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, mid);
    }
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static enum err try_publish(struct mqtt_client *client, struct mqtt_publish message, const char *text)
{
    struct error why = {0};
    int mid;
    enum err err = mqtt_client_publish(client, &message, &mid, &why);
    if (err != ERR_NONE && !strstr(why.text, text)) {
        fail_msg("\"%s\" does not say \"%s\"", why.text, text);
    }
    return err;
}

static void what_the_broker_does_not_take_is_not_sent(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, answer_and_stay, "\x20\x0c\x00\x00\x09\x27\x00\x00\x00\x80\x24\x01\x25\x00", 14);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    static char filler[200];
    memset(filler, 'x', sizeof filler);
    struct mqtt_publish message = {.topic = SLICE("a"), .payload = {filler, 120}, .qos = 1};
    assert_int_equal(mqtt_client_packet_size(client, &message), 128);
    assert_int_equal(try_publish(client, message, ""), ERR_NONE);
    message.payload.size++;
    assert_int_equal(try_publish(client, message, "a packet of 129 bytes is over the broker's limit of 128"), ERR_INVALID);
    assert_int_equal(try_publish(client, (struct mqtt_publish){.topic = SLICE("a"), .qos = 2}, "QoS 1 at most"), ERR_INVALID);
    assert_int_equal(try_publish(client, (struct mqtt_publish){.topic = SLICE("a"), .retain = true}, "retained"), ERR_INVALID);
    assert_true(mqtt_client_is_connected(client));
    assert_int_equal(mqtt_client_room(client), 15);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void topics_that_mqtt_forbids_are_not_sent(void **state)
{
    (void)state;
    static struct peer peer;
    may_take = true;
    start_peer(&peer, take_all_when_told, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    static const struct slice bad[] = {SLICE("a\0b"),         SLICE("a\n"),          SLICE("\x7f"),    SLICE("\xff"),
                                       SLICE("\xed\xa0\x80"), SLICE("\xef\xbf\xbf"), SLICE("\xc2\x85")};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(try_publish(client, (struct mqtt_publish){.topic = bad[i]}, "topic"), ERR_INVALID);
    }
    static char filler[65536];
    memset(filler, 'x', sizeof filler);
    assert_int_equal(try_publish(client, (struct mqtt_publish){.topic = SLICE("")}, "topic"), ERR_INVALID);
    assert_int_equal(try_publish(client, (struct mqtt_publish){.topic = SLICE("a/+")}, "topic"), ERR_INVALID);
    assert_int_equal(try_publish(client, (struct mqtt_publish){.topic = SLICE("#")}, "topic"), ERR_INVALID);
    assert_int_equal(try_publish(client, (struct mqtt_publish){.topic = {filler, 65536}}, "topic"), ERR_INVALID);
    assert_int_equal(try_publish(client, (struct mqtt_publish){.topic = {filler, 65535}}, ""), ERR_NONE);
    struct named_value longest = {{filler, 65535}, {filler, 65535}};
    struct mqtt_publish message = {.topic = SLICE("\xe5\x96\xb5"), .properties = &longest, .property_count = 1};
    assert_int_equal(try_publish(client, message, ""), ERR_NONE);
    assert_int_equal(expect(client, MQTT_CLIENT_ACKED).reason_code, 0);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static int socket_option(struct mqtt_client *client, int option)
{
    struct pollfd fd;
    int timeout_ms, value = -1;
    socklen_t size = sizeof value;
    mqtt_client_poll(client, &fd, &timeout_ms);
    assert_int_equal(getsockopt(fd.fd, IPPROTO_TCP, option, &value, &size), 0);
    return value;
}

static void a_burst_is_sent_at_its_end(void **state)
{
    (void)state;
    static struct peer peer;
    may_take = true;
    start_peer(&peer, take_all_when_told, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    struct mqtt_event event;
    mqtt_client_burst(client, true);
    int first = publish(client, "a", "b", 0), second = publish(client, "a", "c", 0);
    mqtt_client_burst(client, true);
    assert_false(mqtt_client_next(client, &event)); /* QoS 0 is acknowledged when the socket has it */
    mqtt_client_burst(client, false);
    assert_true(mqtt_client_next(client, &event));
    assert_int_equal(event.mid, first);
    assert_true(mqtt_client_next(client, &event));
    assert_int_equal(event.mid, second);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void the_socket_is_set_for_silence(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, answer_and_stay, ACCEPTED, 5);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    assert_int_equal(socket_option(client, TCP_NODELAY), 1);
    assert_int_equal(socket_option(client, TCP_USER_TIMEOUT), 20000);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

/* ---- the end ---- */

static void the_brokers_disconnect_is_told_with_its_reason(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        uint8_t code;
        const char *text;
    } cases[] = {
        {ACCEPTED "\xe0\x01\x8e", 8, 0x8e, "disconnected us: session taken over (0x8e): another client uses this client id"},
        {ACCEPTED "\xe0\x01\x8b", 8, 0x8b, "disconnected us: server shutting down (0x8b)"},
        {ACCEPTED "\xe0\x06\x95\x04\x1f\x00\x01x", 13, 0x95, "disconnected us: packet too large (0x95)"},
        {ACCEPTED "\xe0\x01\x00", 8, 0x00, "disconnected us: success (0x00)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct peer peer;
        start_peer(&peer, answer_and_stay, cases[i].bytes, cases[i].size);
        struct mqtt_client_options options = options_for(peer.port);
        struct mqtt_client *client = connected_client(&options);
        struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
        assert_int_equal(event.reason_code, cases[i].code);
        assert_false(event.refused);
        assert_false(event.silent);
        if (!strstr(event.text, cases[i].text)) {
            fail_msg("\"%s\" does not say \"%s\"", event.text, cases[i].text);
        }
        mqtt_client_close(&client);
        stop_peer(&peer);
    }
}

static void reset_at_once(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    peer_packet(peer, &peer->publish);
    peer_reset(peer);
}

static void a_reset_is_told(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, reset_at_once, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    publish(client, "a", "b", 1);
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    assert_false(event.silent);
    assert_non_null(strstr(event.text, "lost the connection to 127.0.0.1:"));
    assert_non_null(strstr(event.text, ": the broker reset the connection"));
    assert_string_equal(event.cause, "the broker reset the connection");
    assert_true(event.names_broker);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void refuse_and_reset(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    peer_packet(peer, &peer->publish);
    PEER_SEND(peer, "\x40\x03\x00\x01\x87");
    peer_reset(peer);
}

/* The next publish finds the socket dead, while the reason is still to be read. */
static void the_last_words_of_a_broker_are_heard(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, refuse_and_reset, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    int mid = publish(client, "a", "b", 1);
    stop_peer(&peer);
    enum err err = ERR_NONE;
    for (int i = 0; i < 5 && err == ERR_NONE; i++) {
        err = try_publish(client, (struct mqtt_publish){.topic = SLICE("a"), .qos = 1}, "lost the connection to 127.0.0.1:");
    }
    assert_int_equal(err, ERR_CLOSED);
    assert_false(mqtt_client_is_connected(client));
    struct mqtt_event event = expect(client, MQTT_CLIENT_ACKED);
    assert_int_equal(event.mid, mid);
    assert_int_equal(event.reason_code, 0x87);
    expect_closed(client, "lost the connection to 127.0.0.1:");
    assert_int_equal(try_publish(client, (struct mqtt_publish){.topic = SLICE("a")}, "lost the connection"), ERR_CLOSED);
    mqtt_client_close(&client);
}

static void missing_pubacks_end_the_connection(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, answer_and_stay, ACCEPTED, 5);
    struct mqtt_client_options options = options_for(peer.port);
    options.keepalive_ms = 1000;
    struct mqtt_client *client = connected_client(&options);
    int64_t begin_ms = clock_mono_ms();
    turns = 0;
    publish(client, "a", "b", 1);
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    assert_true(event.silent);
    assert_non_null(strstr(event.text, "the broker has not acknowledged for 1 s"));
    assert_string_equal(event.cause, event.text); /* it begins with the address: no phrase to leave out */
    assert_true(event.names_broker);
    assert_in_range(clock_mono_ms() - begin_ms, 990, 4000);
    assert_in_range(turns, 1, 20);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

/* Server keep alive 1 s, answers each PINGREQ, and never a PUBLISH. */
static void answer_pings_alone(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, "\x20\x06\x00\x00\x03\x13\x00\x01");
    while (peer_packet(peer, &peer->last)) {
        if (peer->last.bytes[0] == 0xc0) {
            PEER_SEND(peer, "\xd0\x00");
        }
    }
}

static void a_broker_that_answers_pings_and_no_message_is_given_up(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, answer_pings_alone, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    options.keepalive_ms = 3000;
    struct mqtt_client *client = connected_client(&options);
    int64_t begin_ms = clock_mono_ms();
    publish(client, "a", "b", 1);
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    assert_non_null(strstr(event.text, "the broker has not acknowledged for 3 s"));
    assert_in_range(clock_mono_ms() - begin_ms, 2990, 7000);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

/* One PUBACK for many, again and again, shows that the broker is alive. */
static void acknowledge_slowly(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    for (char mid = 1; mid <= 4; mid++) {
        peer_packet(peer, &peer->publish);
    }
    for (char mid = 1; mid <= 4; mid++) {
        usleep(600000);
        char puback[] = {0x40, 2, 0, mid};
        peer_send(peer, puback, sizeof puback);
    }
    peer_wait_for_end(peer);
}

static void slow_pubacks_are_waited_for(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, acknowledge_slowly, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    options.keepalive_ms = 1000;
    struct mqtt_client *client = connected_client(&options);
    for (int i = 0; i < 4; i++) {
        publish(client, "a", "b", 1);
    }
    for (int i = 0; i < 4; i++) {
        expect(client, MQTT_CLIENT_ACKED);
    }
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void drain_slowly(struct peer *peer)
{
    char bytes[65536];
    const int window = sizeof bytes; /* so that the kernel does not take everything at once: the line itself must be slow */
    size_t size = 0;
    setsockopt(peer->fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    while (size < 8000000) {
        ssize_t n = peer_receive(peer, bytes, sizeof bytes);
        if (n <= 0) {
            return;
        }
        size += (size_t)n;
        usleep(35000); /* less than 2 MB/s: more than four seconds, which is more than the keep-alive */
    }
    PEER_SEND(peer, "\x40\x02\x00\x01");
    peer_wait_for_end(peer);
}

static void a_large_message_on_a_slow_line_is_waited_for(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, drain_slowly, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    options.keepalive_ms = 2500;
    struct mqtt_client *client = connected_client(&options);
    static char filler[8000000];
    struct mqtt_publish message = {.topic = SLICE("a"), .payload = {filler, sizeof filler}, .qos = 1};
    int64_t begin_ms = clock_mono_ms();
    assert_int_equal(try_publish(client, message, ""), ERR_NONE);
    expect(client, MQTT_CLIENT_ACKED);
    assert_true(clock_mono_ms() - begin_ms > 3000);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void a_silent_broker_is_given_up(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, answer_and_stay, "\x20\x06\x00\x00\x03\x13\x00\x01", 8); /* server keep alive 1 s, ours 1 s too */
    struct mqtt_client_options options = options_for(peer.port);
    options.keepalive_ms = 1000;
    struct mqtt_client *client = connected_client(&options);
    int64_t begin_ms = clock_mono_ms();
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    assert_true(event.silent);
    assert_non_null(strstr(event.text, "nothing was heard from the broker for 2 s"));
    assert_in_range(clock_mono_ms() - begin_ms, 1000, 4000);
    mqtt_client_close(&client);
    stop_peer(&peer);
    assert_memory_equal(peer.last.bytes, "\xc0\x00", 2); /* PINGREQ */
}

static void answer_pings(struct peer *peer)
{
    static const char connack[] = "\x20\x06\x00\x00\x03\x13\x00\x01";
    peer_packet(peer, &peer->connect);
    peer_send(peer, connack, sizeof connack - 1);
    while (peer_packet(peer, &peer->last) && peer->last.bytes[0] == 0xc0) {
        peer->publish.size++;
        PEER_SEND(peer, "\xd0\x00");
    }
}

static void an_idle_connection_is_kept_by_pings_at_the_brokers_rate(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, answer_pings, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    options.keepalive_ms = 1000;
    struct mqtt_client *client = connected_client(&options);
    turns = 0;
    for (int64_t end_ms = clock_mono_ms() + 3500; clock_mono_ms() < end_ms;) {
        turn(client);
        assert_true(mqtt_client_is_connected(client));
    }
    assert_in_range(turns, 3, 30);
    mqtt_client_close(&client);
    stop_peer(&peer);
    assert_in_range(peer.publish.size, 2, 5);
}

static void disconnect_says_goodbye(void **state)
{
    (void)state;
    static struct peer peer;
    start_peer(&peer, answer_and_stay, ACCEPTED, 5);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    mqtt_client_disconnect(client);
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    assert_non_null(strstr(event.text, "disconnected from 127.0.0.1:"));
    assert_int_equal(event.reason_code, 0);
    mqtt_client_disconnect(client); /* nothing more to do */
    mqtt_client_close(&client);
    stop_peer(&peer);
    assert_memory_equal(peer.last.bytes, "\xe0\x00", 2);
}

/* What comes with CONNACK is read only when the client already says goodbye. */
static void expect_goodbye_after(const char *bytes, size_t size, const char *text)
{
    static struct peer peer;
    start_peer(&peer, answer_and_stay, bytes, size);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    mqtt_client_disconnect(client);
    expect_closed(client, text);
    mqtt_client_close(&client);
    stop_peer(&peer);
}

static void whatever_the_broker_says_during_the_goodbye_is_taken(void **state)
{
    (void)state;
    static const char malformed[] = ACCEPTED "\x40\x02\x00\x00", again[] = ACCEPTED ACCEPTED, left[] = ACCEPTED "\xe0\x01\x8b";
    expect_goodbye_after(malformed, sizeof malformed - 1, "no orderly end of the session with 127.0.0.1:");
    expect_goodbye_after(again, sizeof again - 1, "what the broker sent is not valid MQTT");
    expect_goodbye_after(left, sizeof left - 1, "server shutting down (0x8b)");
}

static void nothing_follows_disconnect(void **state)
{
    (void)state;
    static const char forwarded[] = ACCEPTED "\x32\x07\x00\x01y\x00\x07\x00?";
    static struct peer peer;
    start_peer(&peer, answer_and_stay, forwarded, sizeof forwarded - 1);
    struct mqtt_client_options options = options_for(peer.port);
    struct mqtt_client *client = connected_client(&options);
    mqtt_client_disconnect(client);
    expect_closed(client, "disconnected from");
    mqtt_client_close(&client);
    stop_peer(&peer);
    assert_memory_equal(peer.last.bytes, "\xe0\x00", 2);
}

/* Leak checkers look at what remains. */
static void a_client_may_be_closed_in_every_state(void **state)
{
    (void)state;
    mqtt_client_close(&(struct mqtt_client *){NULL});
    struct mqtt_client_options options = options_for(1883);
    options.host = "slow.test";
    slow_is_over = false;
    struct mqtt_client *client = open_client(&options);
    mqtt_client_disconnect(client);
    expect_closed(client, "before there was a session");
    mqtt_client_close(&client);
    client = open_client(&options); /* resolving */
    mqtt_client_close(&client);
    slow_is_over = true;

    struct deaf deaf;
    start_deaf(&deaf);
    options = options_for(deaf.port);
    client = open_client(&options); /* connecting */
    turn(client);
    mqtt_client_close(&client);
    stop_deaf(&deaf);

    static struct peer peer;
    start_peer(&peer, stay, NULL, 0);
    options = options_for(peer.port);
    client = open_client(&options); /* waiting for CONNACK */
    turn(client);
    mqtt_client_close(&client);
    stop_peer(&peer);

    static char filler[8000000];
    for (int disconnect = 0; disconnect < 2; disconnect++) {
        may_take = false;
        start_peer(&peer, take_all_when_told, NULL, 0);
        options = options_for(peer.port);
        options.keepalive_ms = 1000;
        client = connected_client(&options); /* with half a message in the socket, and DISCONNECT behind it */
        struct mqtt_publish message = {.topic = SLICE("a"),
                                       .payload = {filler, sizeof filler},
                                       .qos = 1,
                                       .properties = two_properties,
                                       .property_count = 2};
        assert_int_equal(try_publish(client, message, ""), ERR_NONE);
        if (disconnect) {
            mqtt_client_disconnect(client);
            expect_closed(client, "without its taking DISCONNECT");
        }
        mqtt_client_close(&client);
        may_take = true;
        stop_peer(&peer);
    }
}

/* ---- TLS ---- */

static void make_certificates(void)
{
    write_file(
        "make.sh",
        "set -e\n"
        "key() { openssl ecparam -name prime256v1 -genkey -noout -out $1.key; }\n"
        "authority() { key $1; openssl req -x509 -new -key $1.key -subj /CN=$1 -days 2 -out $1.pem; }\n"
        "issue() { key $1; openssl req -new -key $1.key -subj /CN=$1 -out $1.csr; echo \"$3\" > $1.ext;\n"
        "  openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days 2 -extfile $1.ext -out $1.pem; }\n"
        "authority ca; authority other-ca\n"
        "issue here ca subjectAltName=DNS:localhost,DNS:ok.test,DNS:two.test,IP:127.0.0.1\n"
        "issue elsewhere ca subjectAltName=DNS:elsewhere.test,IP:127.0.0.2\n"
        "issue client ca extendedKeyUsage=clientAuth\n"
        "openssl ec -in client.key -aes128 -passout pass:secret -out encrypted.key\n"
        "chmod a+r *\n");
    in_directory("sh make.sh > make.log 2>&1");
}

static const char *in_dir(const char *name)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static struct mqtt_tls *open_tls(const char *ca, const char *certificate, const char *key)
{
    struct mqtt_tls_options options = {.ca_file = ca ? in_dir(ca) : NULL,
                                       .certificate_file = certificate ? in_dir(certificate) : NULL,
                                       .key_file = key ? in_dir(key) : ""};
    struct mqtt_tls *tls;
    struct error why;
    if (mqtt_tls_open(&tls, &options, &why) != ERR_NONE) {
        fail_msg("%s", why.text);
    }
    return tls;
}

static void expect_bad_tls(const char *ca, const char *certificate, const char *key, const char *text)
{
    struct mqtt_tls_options options = {in_dir(ca), certificate ? in_dir(certificate) : NULL, key ? in_dir(key) : NULL};
    struct mqtt_tls *tls;
    struct error why;
    assert_int_equal(mqtt_tls_open(&tls, &options, &why), ERR_CONFIG);
    if (!strstr(why.text, text)) {
        fail_msg("\"%s\" does not say \"%s\"", why.text, text);
    }
}

static void bad_certificate_files_are_told(void **state)
{
    (void)state;
    write_file("empty.pem", "");
    expect_bad_tls("missing.pem", NULL, NULL, "missing.pem: No such file or directory");
    expect_bad_tls("empty.pem", NULL, NULL, "cannot read CA certificates from");
    expect_bad_tls("ca.pem", "client.pem", NULL, "needs both");
    expect_bad_tls("ca.pem", NULL, "client.key", "needs both");
    expect_bad_tls("ca.pem", "missing.pem", "client.key", "cannot read a certificate from");
    expect_bad_tls("ca.pem", "client.pem", "missing.key", "No such file or directory");
    expect_bad_tls("ca.pem", "client.pem", "here.key", "belong to");
    expect_bad_tls("ca.pem", "client.pem", "encrypted.key", "not encrypted");
    struct mqtt_tls *tls = open_tls(NULL, NULL, NULL); /* the system's store */
    mqtt_tls_close(&tls);
    mqtt_tls_close(&tls);
}

static void start_tls_peer(struct peer *peer, const char *name, void (*script)(struct peer *), const char *bytes, size_t size)
{
    char file[64];
    *peer = (struct peer){.tls = SSL_CTX_new(TLS_server_method())};
    snprintf(file, sizeof file, "%s.pem", name);
    assert_int_equal(SSL_CTX_use_certificate_chain_file(peer->tls, in_dir(file)), 1);
    snprintf(file, sizeof file, "%s.key", name);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(peer->tls, in_dir(file), SSL_FILETYPE_PEM), 1);
    start_peer(peer, script, bytes, size);
}

static void stop_tls_peer(struct peer *peer)
{
    stop_peer(peer);
    SSL_CTX_free(peer->tls);
}

/* The name that the peer saw, or NULL and the end that the client saw. */
static void connect_by_tls(const char *host, const char *certificate, const char *ca, int max_version, const char *server_name,
                           const char *end)
{
    struct mqtt_tls *tls = open_tls(ca, NULL, NULL);
    static struct peer peer;
    start_tls_peer(&peer, certificate, answer_publish, "\x40\x02\x00\x01", 4);
    SSL_CTX_set_max_proto_version(peer.tls, max_version);
    struct mqtt_client_options options = options_for(peer.port);
    options.host = host;
    options.tls = tls;
    turns = 0;
    struct mqtt_client *client = open_client(&options);
    if (server_name) {
        expect(client, MQTT_CLIENT_CONNECTED);
        int mid = publish(client, "a", "b", 1);
        assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, mid);
    } else {
        expect_closed(client, end);
    }
    assert_in_range(turns, 1, 30);
    mqtt_client_close(&client);
    stop_tls_peer(&peer);
    mqtt_tls_close(&tls);
    if (server_name) {
        assert_string_equal(peer.server_name, server_name);
    }
}

static void names_are_verified_and_sent(void **state)
{
    (void)state;
    for (int quick = 0; quick < 2; quick++) {
        is_broker_quick = quick;
        connect_by_tls("ok.test", "here", "ca.pem", TLS1_3_VERSION, "ok.test", NULL);
        connect_by_tls("ok.test", "here", "ca.pem", TLS1_2_VERSION, "ok.test", NULL);
        connect_by_tls("ok.test.", "here", "ca.pem", TLS1_3_VERSION, "ok.test", NULL);
        connect_by_tls("two.test", "here", "ca.pem", TLS1_3_VERSION, "two.test", NULL); /* after a refused address */
        connect_by_tls("127.0.0.1", "here", "ca.pem", TLS1_3_VERSION, "", NULL);
        connect_by_tls("ok.test", "elsewhere", "ca.pem", TLS1_3_VERSION, NULL, "certificate verify failed: hostname mismatch");
        connect_by_tls("127.0.0.1", "elsewhere", "ca.pem", TLS1_3_VERSION, NULL,
                       "certificate verify failed: IP address mismatch");
        connect_by_tls("ok.test", "here", "other-ca.pem", TLS1_3_VERSION, NULL,
                       "certificate verify failed: unable to get local issuer certificate");
        connect_by_tls("ok.test", "here", NULL, TLS1_3_VERSION, NULL, "certificate verify failed");
        connect_by_tls("ok.test", "here", "ca.pem", TLS1_1_VERSION, NULL, "no TLS session with ok.test:");
    }
    is_broker_quick = false;
}

static void read_and_stay(struct peer *peer)
{
    while (recv(peer->fd, peer->last.bytes, sizeof peer->last.bytes, 0) > 0) {
    }
}

static void say_hello_in_plain(struct peer *peer)
{
    PEER_SEND(peer, "\x20\x02\x00\x01 is what a plain broker may say");
    read_and_stay(peer);
}

static void read_some(struct peer *peer)
{
    recv(peer->fd, peer->last.bytes, sizeof peer->last.bytes, 0);
}

static void read_some_and_reset(struct peer *peer)
{
    read_some(peer);
    peer_reset(peer);
}

static void a_tls_handshake_that_fails_is_told_at_once(void **state)
{
    (void)state;
    static const struct {
        void (*script)(struct peer *);
        const char *text;
    } cases[] = {{say_hello_in_plain, "wrong version number"},
                 {read_some, "the broker closed the connection"},
                 {read_some_and_reset, ": the broker reset the connection"},
                 {read_and_stay, "no end of the TLS handshake for 0.5 s"}};
    struct mqtt_tls *tls = open_tls("ca.pem", NULL, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct peer peer;
        start_peer(&peer, cases[i].script, NULL, 0);
        struct mqtt_client_options options = options_for(peer.port);
        options.tls = tls;
        options.connect_timeout_ms = 500;
        turns = 0;
        struct mqtt_client *client = open_client(&options);
        expect_closed(client, cases[i].text);
        assert_in_range(turns, 1, 20);
        mqtt_client_close(&client);
        stop_peer(&peer);
    }
    uint16_t port;
    close(bound_socket(&port));
    struct mqtt_client_options options = options_for(port);
    options.tls = tls;
    struct mqtt_client *client = open_client(&options);
    expect_closed(client, ": Connection refused");
    mqtt_client_close(&client);
    mqtt_tls_close(&tls);
}

static void acknowledge_all_in_one_record(struct peer *peer)
{
    char pubacks[16 * 4];
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    for (int i = 0; i < 16; i++) {
        peer_packet(peer, &peer->publish);
        memcpy(pubacks + 4 * i, (char[]){0x40, 2, 0, (char)(i + 1)}, 4);
    }
    peer_send(peer, pubacks, sizeof pubacks);
    peer_wait_for_end(peer);
}

static void a_demand_for_a_certificate_is_told(void **state)
{
    (void)state;
    static struct peer peer;
    for (int i = 0; i < 4; i++) {
        int version = i % 2 ? TLS1_3_VERSION : TLS1_2_VERSION;
        is_broker_quick = i >= 2;
        start_tls_peer(&peer, "here", answer_and_stay, ACCEPTED, 5);
        SSL_CTX_set_max_proto_version(peer.tls, version);
        SSL_CTX_load_verify_file(peer.tls, in_dir("ca.pem"));
        SSL_CTX_set_verify(peer.tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        struct mqtt_client_options options = options_for(peer.port);
        options.tls = open_tls("ca.pem", NULL, NULL);
        struct mqtt_client *client = open_client(&options);
        expect_closed(client, version == TLS1_3_VERSION ? "the broker ended TLS: tlsv13 alert certificate required"
                                                        : "handshake failure");
        mqtt_client_close(&client);
        mqtt_tls_close(&options.tls);
        stop_tls_peer(&peer);
    }
    is_broker_quick = false;
}

static void what_tls_has_decrypted_is_not_left_lying(void **state)
{
    (void)state;
    struct mqtt_tls *tls = open_tls("ca.pem", NULL, NULL);
    static struct peer peer;
    start_tls_peer(&peer, "here", acknowledge_all_in_one_record, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    options.tls = tls;
    struct mqtt_client *client = connected_client(&options);
    for (int i = 0; i < 16; i++) {
        publish(client, "a", "b", 1);
    }
    for (int i = 1; i <= 16; i++) {
        assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, i);
    }
    mqtt_client_close(&client);
    stop_tls_peer(&peer);
    mqtt_tls_close(&tls);
}

static atomic_bool has_acknowledged_each;

static void acknowledge_each_in_a_record(struct peer *peer)
{
    setsockopt(peer->fd, IPPROTO_TCP, TCP_CORK, &(int){1}, sizeof(int)); /* all in one segment */
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    for (int i = 0; i < 200; i++) {
        peer_packet(peer, &peer->publish);
    }
    for (int i = 1; i <= 200; i++) {
        peer_send(peer, (char[]){0x40, 2, 0, (char)i}, 4);
    }
    setsockopt(peer->fd, IPPROTO_TCP, TCP_CORK, &(int){0}, sizeof(int));
    has_acknowledged_each = true;
    peer_wait_for_end(peer);
}

static void many_records_are_taken_in_one_turn(void **state)
{
    (void)state;
    static struct peer peer;
    has_acknowledged_each = false;
    start_tls_peer(&peer, "here", acknowledge_each_in_a_record, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    options.window = 200;
    options.tls = open_tls("ca.pem", NULL, NULL);
    struct mqtt_client *client = connected_client(&options);
    mqtt_client_burst(client, true);
    for (int i = 0; i < 200; i++) {
        publish(client, "a", "b", 1);
    }
    mqtt_client_burst(client, false);
    for (int64_t deadline_ms = clock_mono_ms() + DEADLINE_MS; !has_acknowledged_each; usleep(1000)) {
        assert_true(clock_mono_ms() < deadline_ms);
    }
    turn(client);
    struct mqtt_event event;
    int count = 0;
    while (mqtt_client_next(client, &event)) {
        assert_int_equal(event.type, MQTT_CLIENT_ACKED);
        assert_int_equal(event.mid, ++count);
    }
    assert_int_equal(count, 200);
    mqtt_client_close(&client);
    stop_tls_peer(&peer);
    mqtt_tls_close(&options.tls);
}

static void acknowledge_and_leave(struct peer *peer)
{
    peer_packet(peer, &peer->connect);
    PEER_SEND(peer, ACCEPTED);
    peer_packet(peer, &peer->publish);
    PEER_SEND(peer, "\x40\x02\x00\x01");
    PEER_SEND(peer, "\xe0\x01\x8b");
    SSL_shutdown(peer->ssl);
    has_acknowledged_each = true;
    peer_wait_for_end(peer);
}

static void what_comes_with_the_end_of_tls_is_heard(void **state)
{
    (void)state;
    static struct peer peer;
    has_acknowledged_each = false;
    start_tls_peer(&peer, "here", acknowledge_and_leave, NULL, 0);
    struct mqtt_client_options options = options_for(peer.port);
    options.tls = open_tls("ca.pem", NULL, NULL);
    struct mqtt_client *client = connected_client(&options);
    int mid = publish(client, "a", "b", 1);
    for (int64_t deadline_ms = clock_mono_ms() + DEADLINE_MS; !has_acknowledged_each; usleep(1000)) {
        assert_true(clock_mono_ms() < deadline_ms);
    }
    assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, mid);
    expect_closed(client, "server shutting down (0x8b)");
    mqtt_client_close(&client);
    stop_tls_peer(&peer);
    mqtt_tls_close(&options.tls);
}

/* ---- with Mosquitto ---- */

static void messages_reach_a_subscriber_whole(void **state)
{
    (void)state;
    struct broker broker;
    start_broker(&broker, "allow_anonymous true");
    for (int version = 3; version <= 5; version += 2) {
        for (int qos = 0; qos <= 2; qos++) {
            struct mqtt_client_options options = options_for(broker.port);
            options.version = version;
            struct mqtt_client *client = connected_client(&options);
            char topic[64];
            snprintf(topic, sizeof topic, "meow/%d/%d", version, qos);
            struct mqtt_publish message = {.topic = slice_of(topic),
                                           .payload = SLICE("{\"a\": 1.0}"),
                                           .qos = qos,
                                           .retain = true,
                                           .content_type = SLICE("application/json"),
                                           .properties = two_properties,
                                           .property_count = 1};
            assert_int_equal(try_publish(client, message, ""), ERR_NONE);
            struct mqtt_event event = expect(client, MQTT_CLIENT_ACKED);
            assert_int_equal(event.reason_code, version == 5 && qos == 1 ? 0x10 : 0x00); /* nobody has subscribed yet */
            mqtt_client_disconnect(client);
            expect_closed(client, "disconnected");
            mqtt_client_close(&client);
            char expected[256];
            snprintf(expected, sizeof expected, "%s %d {\"a\": 1.0} [%s] [%s] [%s]", topic, qos,
                     version == 5 ? "application/json" : "", version == 5 ? "1" : "", version == 5 ? "id:7" : "");
            expect_retained(&broker, topic, "%t %q %p [%C] [%F] [%P]", expected);
        }
    }
    stop_broker(&broker);
}

static void many_messages_are_each_acknowledged_once_and_in_order(void **state)
{
    (void)state;
    struct broker broker;
    start_broker(&broker, "allow_anonymous true\nmax_inflight_messages 50");
    for (int qos = 1; qos <= 2; qos++) {
        struct mqtt_client_options options = options_for(broker.port);
        options.window = 128;
        struct mqtt_client *client = connected_client(&options);
        assert_int_equal(mqtt_client_limits(client)->receive_maximum, 50);
        int sent = 0, acked = 0, first = 0;
        while (acked < 3000) {
            mqtt_client_burst(client, true);
            while (mqtt_client_room(client) > 0 && sent < 3000) {
                int mid = publish(client, "meow/many", "payload", qos);
                first = sent++ == 0 ? mid : first;
            }
            mqtt_client_burst(client, false);
            do {
                assert_int_equal(expect(client, MQTT_CLIENT_ACKED).mid, first + acked++);
            } while (acked < 3000 && mqtt_client_room(client) < 25);
        }
        assert_int_equal(mqtt_client_room(client), 50);
        mqtt_client_close(&client);
    }
    stop_broker(&broker);
}

static void a_wrong_password_and_a_forbidden_topic_are_told(void **state)
{
    (void)state;
    struct broker broker;
    char settings[512];
    write_file("acl", "user ann\ntopic write allowed/#\n");
    in_directory("rm -f passwords && touch passwords && mosquitto_passwd -b passwords ann secret && chmod a+r passwords acl");
    snprintf(settings, sizeof settings, "allow_anonymous false\npassword_file %s\nacl_file %s", in_dir("passwords"),
             in_dir("acl"));
    start_broker(&broker, settings);
    struct mqtt_client_options options = options_for(broker.port);
    options.username = "ann";
    options.password = SLICE("wrong");
    for (int version = 3; version <= 5; version += 2) {
        options.version = version;
        struct mqtt_client *client = open_client(&options);
        struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
        assert_true(event.refused);
        assert_int_equal(event.reason_code, version == 5 ? 0x87 : 5);
        assert_non_null(strstr(event.text, "the broker refused the connection: not authorized"));
        mqtt_client_close(&client);
    }
    options.password = SLICE("secret");
    struct mqtt_client *client = connected_client(&options);
    publish(client, "forbidden", "x", 1);
    assert_int_equal(expect(client, MQTT_CLIENT_ACKED).reason_code, 0x87);
    publish(client, "forbidden", "x", 2);
    assert_int_equal(expect(client, MQTT_CLIENT_ACKED).reason_code, 0x87);
    publish(client, "allowed/a", "x", 1);
    assert_int_equal(expect(client, MQTT_CLIENT_ACKED).reason_code, 0x10);
    mqtt_client_close(&client);
    stop_broker(&broker);
}

static void the_will_is_sent_after_a_death_and_not_after_a_disconnect(void **state)
{
    (void)state;
    struct broker broker;
    start_broker(&broker, "allow_anonymous true");
    struct mqtt_client_options options = options_for(broker.port);
    options.will_topic = "meow/status";
    options.will_payload = SLICE("offline");
    for (int version = 3; version <= 5; version += 2) {
        options.version = version;
        for (int says_goodbye = 0; says_goodbye < 2; says_goodbye++) {
            struct mqtt_client *client = connected_client(&options);
            struct mqtt_publish message = {.topic = SLICE("meow/status"), .payload = SLICE("online"), .qos = 1, .retain = true};
            assert_int_equal(try_publish(client, message, ""), ERR_NONE);
            expect(client, MQTT_CLIENT_ACKED);
            FILE *will = says_goodbye ? NULL : subscribe(&broker, "meow/status", "%p %q");
            if (says_goodbye) {
                mqtt_client_disconnect(client);
                expect_closed(client, "disconnected");
            }
            mqtt_client_close(&client);
            if (says_goodbye) {
                expect_retained(&broker, "meow/status", "%p %q", "online 1");
            } else {
                /* It may see the retained "online" first; then the will is what is retained. */
                pclose(will);
                expect_retained(&broker, "meow/status", "%p %q", "offline 1");
            }
        }
    }
    stop_broker(&broker);
}

static void a_frozen_broker_is_noticed(void **state)
{
    (void)state;
    struct broker broker;
    start_broker(&broker, "allow_anonymous true");
    struct mqtt_client_options options = options_for(broker.port);
    options.keepalive_ms = 1000;
    struct mqtt_client *client = connected_client(&options);
    kill(broker.pid, SIGSTOP);
    int64_t begin_ms = clock_mono_ms();
    publish(client, "a", "b", 1);
    struct mqtt_event event = expect(client, MQTT_CLIENT_CLOSED);
    assert_true(event.silent);
    assert_in_range(clock_mono_ms() - begin_ms, 990, 4000);
    mqtt_client_close(&client);
    kill(broker.pid, SIGCONT);
    stop_broker(&broker);
}

static void tls_to_mosquitto_works_with_and_without_certificate(void **state)
{
    (void)state;
    struct broker broker;
    char settings[1024];
    snprintf(settings, sizeof settings, "allow_anonymous true\ncafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true",
             in_dir("ca.pem"), in_dir("here.pem"), in_dir("here.key"));
    start_broker(&broker, settings);
    struct mqtt_client_options options = options_for(broker.port);
    options.host = "localhost";
    struct mqtt_tls *tls = open_tls("ca.pem", "client.pem", "client.key");
    options.tls = tls;
    for (int i = 0; i < 2; i++) { /* the files were read once, for all that follow */
        struct mqtt_client *client = connected_client(&options);
        static char filler[3000000];
        struct mqtt_publish message = {.topic = SLICE("a"), .payload = {filler, sizeof filler}, .qos = 2};
        assert_int_equal(try_publish(client, message, ""), ERR_NONE);
        expect(client, MQTT_CLIENT_ACKED);
        mqtt_client_disconnect(client);
        expect_closed(client, "disconnected");
        mqtt_client_close(&client);
    }
    mqtt_tls_close(&tls);
    options.tls = tls = open_tls("ca.pem", NULL, NULL);
    struct mqtt_client *client = open_client(&options);
    expect_closed(client, "localhost:"); /* the alert may be lost behind a reset */
    mqtt_client_close(&client);
    mqtt_tls_close(&tls);
    options.tls = NULL; /* plain, to a port that speaks TLS */
    client = open_client(&options);
    expect_closed(client, "localhost:");
    mqtt_client_close(&client);
    stop_broker(&broker);
}

/* ---- the group ---- */

static int make_directory(void **state)
{
    (void)state;
    make_folder(directory, sizeof directory);
    make_certificates();
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    char command[256];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reason_codes_say_what_to_do),
        cmocka_unit_test(options_that_cannot_work_are_refused_at_once),
        cmocka_unit_test(connect_says_all_that_it_should),
        cmocka_unit_test(limits_are_the_brokers_or_the_standards),
        cmocka_unit_test(a_refusal_is_told_with_its_reason),
        cmocka_unit_test(what_is_no_connack_ends_the_connection),
        cmocka_unit_test(a_property_that_there_is_not_ends_the_connection_and_not_the_process),
        cmocka_unit_test(a_second_connack_ends_the_connection),
        cmocka_unit_test(a_connack_cut_anywhere_is_the_end),
        cmocka_unit_test(a_connack_in_drips_is_taken_without_spinning),
        cmocka_unit_test(a_closed_port_is_told_quickly_with_the_cause),
        cmocka_unit_test(every_address_of_a_name_is_tried),
        cmocka_unit_test(localhost_works_when_only_ipv4_listens),
        cmocka_unit_test(localhost_works_where_no_file_knows_it),
        cmocka_unit_test(a_name_that_is_none_is_told),
        cmocka_unit_test(a_slow_resolver_blocks_nobody),
        cmocka_unit_test(a_host_that_does_not_answer_is_given_up),
        cmocka_unit_test(a_broker_without_connack_is_given_up),
        cmocka_unit_test(a_publish_packet_is_exact_and_its_size_is_known),
        cmocka_unit_test(a_publish_packet_of_version_3_has_no_properties),
        cmocka_unit_test(the_size_of_large_packets_counts_each_length_byte),
        cmocka_unit_test(every_reason_code_reaches_the_caller),
        cmocka_unit_test(an_answer_of_another_qos_ends_the_connection),
        cmocka_unit_test(an_answer_in_drips_is_taken),
        cmocka_unit_test(messages_that_nobody_asked_for_are_confirmed_and_thrown_away),
        cmocka_unit_test(a_broker_that_sends_and_does_not_read_is_left),
        cmocka_unit_test(answers_wait_for_each_other_no_longer_than_patience_lasts),
        cmocka_unit_test(a_broker_that_stalls_is_not_looked_after_all_the_time),
        cmocka_unit_test(a_puback_cut_anywhere_is_the_end),
        cmocka_unit_test(qos_0_is_acknowledged_when_written),
        cmocka_unit_test(qos_0_counts_as_in_flight_until_the_socket_has_taken_it),
        cmocka_unit_test(a_false_pubcomp_does_not_count_for_qos_0),
        cmocka_unit_test(a_receive_maximum_of_one_is_kept),
        cmocka_unit_test(what_the_broker_does_not_take_is_not_sent),
        cmocka_unit_test(topics_that_mqtt_forbids_are_not_sent),
        cmocka_unit_test(a_burst_is_sent_at_its_end),
        cmocka_unit_test(the_socket_is_set_for_silence),
        cmocka_unit_test(the_brokers_disconnect_is_told_with_its_reason),
        cmocka_unit_test(a_reset_is_told),
        cmocka_unit_test(the_last_words_of_a_broker_are_heard),
        cmocka_unit_test(missing_pubacks_end_the_connection),
        cmocka_unit_test(a_broker_that_answers_pings_and_no_message_is_given_up),
        cmocka_unit_test(slow_pubacks_are_waited_for),
        cmocka_unit_test(a_large_message_on_a_slow_line_is_waited_for),
        cmocka_unit_test(a_silent_broker_is_given_up),
        cmocka_unit_test(an_idle_connection_is_kept_by_pings_at_the_brokers_rate),
        cmocka_unit_test(disconnect_says_goodbye),
        cmocka_unit_test(whatever_the_broker_says_during_the_goodbye_is_taken),
        cmocka_unit_test(nothing_follows_disconnect),
        cmocka_unit_test(a_client_may_be_closed_in_every_state),
        cmocka_unit_test(bad_certificate_files_are_told),
        cmocka_unit_test(names_are_verified_and_sent),
        cmocka_unit_test(a_tls_handshake_that_fails_is_told_at_once),
        cmocka_unit_test(a_demand_for_a_certificate_is_told),
        cmocka_unit_test(what_tls_has_decrypted_is_not_left_lying),
        cmocka_unit_test(many_records_are_taken_in_one_turn),
        cmocka_unit_test(what_comes_with_the_end_of_tls_is_heard),
        cmocka_unit_test(messages_reach_a_subscriber_whole),
        cmocka_unit_test(many_messages_are_each_acknowledged_once_and_in_order),
        cmocka_unit_test(a_wrong_password_and_a_forbidden_topic_are_told),
        cmocka_unit_test(the_will_is_sent_after_a_death_and_not_after_a_disconnect),
        cmocka_unit_test(a_frozen_broker_is_noticed),
        cmocka_unit_test(tls_to_mosquitto_works_with_and_without_certificate),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
