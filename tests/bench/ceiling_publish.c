/* bench_ceiling_publish: the ceiling of publishing. libmosquitto alone, QoS 1, as fast as it can be had: a poll loop of our
 * own, a window that is refilled when it is half empty, a burst in one segment, acknowledgements asked for at once.
 *
 *   bench_ceiling_publish -p PORT -t TIMES [-n EVENTS] [-d SECONDS] [-s BODY-BYTES] [-i FIRST-ID] [-w WINDOW] [-P]
 *
 * Publishes the payloads of a measurement's events, no others. -P adds the properties that the bridge sends with them. */
#include "sample.h"
#include "tool.h"

#include <errno.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct publisher {
    struct mosquitto *library;
    struct samples samples;
    struct tool_times times;
    int port;
    size_t events, window;
    bool has_properties, is_connected;
    size_t sent, acked;
    int64_t sent_ns[65536]; /* by message identifier */
    int64_t now_ns;
    struct tool_histogram acks;
    char *payload;
};

static void on_connect(struct mosquitto *library, void *ctx, int code, int flags, const mosquitto_property *properties)
{
    struct publisher *publisher = ctx;
    uint16_t maximum;
    (void)library, (void)flags;
    if (code != 0) {
        tool_die("the broker refuses the connection: 0x%02x", code);
    }
    publisher->is_connected = true;
    if (mosquitto_property_read_int16(properties, MQTT_PROP_RECEIVE_MAXIMUM, &maximum, false) && maximum < publisher->window) {
        publisher->window = maximum;
    }
}

static void on_publish(struct mosquitto *library, void *ctx, int mid, int code, const mosquitto_property *properties)
{
    struct publisher *publisher = ctx;
    (void)library, (void)properties;
    if (code >= 0x80) {
        tool_die("the broker refuses a message: 0x%02x", code);
    }
    tool_histogram_add(&publisher->acks, publisher->now_ns - publisher->sent_ns[mid & 65535]);
    publisher->acked++;
}

static mosquitto_property *make_properties(const struct samples *samples, uint64_t n)
{
    char id[19] = "", subject[24];
    samples_make_id(samples, n, id);
    snprintf(subject, sizeof subject, "task_%s", id);
    const char *const pairs[][2] = {{"specversion", "1.0"},
                                    {"id", id},
                                    {"source", "https://meowflow.com.cn/apps/12345"},
                                    {"type", "cn.com.meowflow.workflowTask.completed"},
                                    {"subject", subject},
                                    {"time", "2026-11-28T02:00:00Z"},
                                    {"appid", "12345"},
                                    {"webhookid", "1234567"}};
    mosquitto_property *list = NULL;
    mosquitto_property_add_byte(&list, MQTT_PROP_PAYLOAD_FORMAT_INDICATOR, 1);
    mosquitto_property_add_string(&list, MQTT_PROP_CONTENT_TYPE, "application/json");
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        mosquitto_property_add_string_pair(&list, MQTT_PROP_USER_PROPERTY, pairs[i][0], pairs[i][1]);
    }
    return list;
}

static void publish(struct publisher *publisher)
{
    const struct samples *samples = &publisher->samples;
    const size_t head_bytes = samples->head_bytes - samples->payload_at;
    struct sample sample;
    int mid;
    samples_make(samples, publisher->sent, &sample);
    memcpy(publisher->payload, sample.head + samples->payload_at, head_bytes);
    memcpy(publisher->payload + head_bytes, sample.filler, samples->filler_bytes);
    memcpy(publisher->payload + head_bytes + samples->filler_bytes, sample.tail, samples->payload_tail_bytes);
    mosquitto_property *properties = publisher->has_properties ? make_properties(samples, publisher->sent) : NULL;
    publisher->times.ns[publisher->sent] = tool_now_ns();
    int result = mosquitto_publish_v5(publisher->library, &mid, SAMPLE_TOPIC, (int)samples_payload_bytes(samples),
                                      publisher->payload, 1, false, properties);
    if (result != MOSQ_ERR_SUCCESS) {
        tool_die("publish: %s", mosquitto_strerror(result));
    }
    publisher->sent_ns[mid & 65535] = publisher->times.ns[publisher->sent];
    publisher->sent++;
    mosquitto_property_free_all(&properties);
}

static void set_option(int fd, int option, int value)
{
    setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value);
}

static void turn(struct publisher *publisher, bool goes_on)
{
    int fd = mosquitto_socket(publisher->library);
    size_t in_flight = publisher->sent - publisher->acked;
    if (publisher->is_connected && goes_on && in_flight <= publisher->window / 2) {
        set_option(fd, TCP_CORK, 1);
        for (; in_flight < publisher->window && publisher->sent < publisher->events; in_flight++) {
            publish(publisher);
        }
        set_option(fd, TCP_CORK, 0);
    }
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    poller.events |= mosquitto_want_write(publisher->library) ? POLLOUT : 0;
    if (poll(&poller, 1, 20000) == 0) {
        tool_die("the broker is silent after %zu messages", publisher->acked);
    }
    int result = MOSQ_ERR_SUCCESS;
    publisher->now_ns = tool_now_ns();
    if (poller.revents & POLLOUT) {
        result = mosquitto_loop_write(publisher->library, 1);
    }
    if (result == MOSQ_ERR_SUCCESS && poller.revents & ~POLLOUT) {
        result = mosquitto_loop_read(publisher->library, 1000);
        set_option(fd, TCP_QUICKACK, 1);
    }
    if (result != MOSQ_ERR_SUCCESS) {
        tool_die("the connection broke: %s", mosquitto_strerror(result));
    }
}

static void connect_broker(struct publisher *publisher)
{
    mosquitto_lib_init();
    publisher->library = mosquitto_new(NULL, true, publisher);
    mosquitto_int_option(publisher->library, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
    mosquitto_int_option(publisher->library, MOSQ_OPT_TCP_NODELAY, 1);
    mosquitto_int_option(publisher->library, MOSQ_OPT_SEND_MAXIMUM, (int)publisher->window);
    mosquitto_connect_v5_callback_set(publisher->library, on_connect);
    mosquitto_publish_v5_callback_set(publisher->library, on_publish);
    if (mosquitto_connect(publisher->library, "127.0.0.1", publisher->port, 300) != MOSQ_ERR_SUCCESS) {
        tool_die("cannot connect to port %d", publisher->port);
    }
    while (!publisher->is_connected) {
        turn(publisher, false);
    }
}

int main(int argc, char **argv)
{
    static struct publisher publisher = {.events = 100000, .window = 128};
    size_t body_bytes = 600;
    uint64_t first_id = 152066840347062275;
    double seconds = 60;
    const char *times_path = NULL;
    tool_name = "bench_ceiling_publish";
    signal(SIGPIPE, SIG_IGN);
    for (int option; (option = getopt(argc, argv, "p:t:n:d:s:i:w:P")) != -1;) {
        switch (option) {
        case 'p':
            publisher.port = (int)tool_number(optarg);
            break;
        case 't':
            times_path = optarg;
            break;
        case 'n':
            publisher.events = tool_number(optarg);
            break;
        case 'd':
            seconds = strtod(optarg, NULL);
            break;
        case 's':
            body_bytes = tool_number(optarg);
            break;
        case 'i':
            first_id = tool_number(optarg);
            break;
        case 'w':
            publisher.window = tool_number(optarg);
            break;
        case 'P':
            publisher.has_properties = true;
            break;
        default:
            return 2;
        }
    }
    if (publisher.port == 0 || !times_path || optind != argc) {
        fprintf(stderr, "usage: bench_ceiling_publish -p PORT -t TIMES [options]\n");
        return 2;
    }
    samples_init(&publisher.samples, body_bytes, first_id, false);
    tool_times_open(&publisher.times, times_path);
    publisher.payload = tool_alloc(samples_payload_bytes(&publisher.samples));
    publisher.events = publisher.events < publisher.times.count ? publisher.events : publisher.times.count;
    connect_broker(&publisher);
    tool_cpu_reset();
    int64_t start_ns = tool_now_ns(), end_ns = start_ns + (int64_t)(seconds * 1e9);
    bool goes_on = true;
    while (goes_on || publisher.acked < publisher.sent) {
        turn(&publisher, goes_on);
        goes_on = goes_on && publisher.sent < publisher.events && publisher.now_ns < end_ns;
    }
    printf("{\"requests\":%zu,\"events\":%zu,\"start_ns\":%lld,\"end_ns\":%lld,", publisher.acked, publisher.acked,
           (long long)start_ns, (long long)tool_now_ns());
    tool_histogram_print(&publisher.acks, "answer_ms");
    putchar(',');
    tool_cpu_print();
    puts("}");
    return 0;
}
