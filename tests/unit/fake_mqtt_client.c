#include "fake_mqtt_client.h"

#include "meowbridge/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SENT 8192
#define MAX_QUEUE 16384

struct mqtt_client {
    struct mqtt_event queue[MAX_QUEUE];
    size_t first, last;
    bool connected, closed, has_worked;
    unsigned in_flight, window;
};

struct fake_broker fake_broker;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mqtt_client *current;
static struct sent sent[MAX_SENT];
static size_t sent_count;
static int connections, bursts, next_mid;
static unsigned max_in_flight;
static bool has_will, was_disconnected;
static char host[64], topics[65536];

void fake_broker_reset(void)
{
    for (size_t i = 0; i < sent_count; i++) {
        free(sent[i].topic);
        free(sent[i].payload);
    }
    sent_count = 0;
    connections = bursts = next_mid = 0;
    max_in_flight = 0;
    has_will = was_disconnected = false;
    fake_broker = (struct fake_broker){.limits = {.receive_maximum = 65535, .maximum_qos = 2, .retain_available = true}};
}

int fake_connections(void)
{
    return connections;
}

const char *fake_host(void)
{
    return host;
}

bool fake_has_will(void)
{
    return has_will;
}

bool fake_was_disconnected(void)
{
    return was_disconnected;
}

size_t fake_sent_count(void)
{
    pthread_mutex_lock(&lock);
    size_t count = sent_count;
    pthread_mutex_unlock(&lock);
    return count;
}

const struct sent *fake_sent(size_t i)
{
    ASSERT(i < sent_count);
    return &sent[i];
}

unsigned fake_max_in_flight(void)
{
    return max_in_flight;
}

int fake_bursts(void)
{
    return bursts;
}

const char *fake_topics(int connection)
{
    topics[0] = '\0';
    for (size_t i = 0; i < sent_count; i++) {
        if ((connection && sent[i].connection != connection) || strcmp(sent[i].topic, "status") == 0) {
            continue;
        }
        ASSERT(strlen(topics) + strlen(sent[i].topic) + 2 < sizeof topics);
        strcat(topics, topics[0] ? " " : "");
        strcat(topics, sent[i].topic);
    }
    return topics;
}

static void push(struct mqtt_client *client, struct mqtt_event event)
{
    ASSERT(client->last < MAX_QUEUE);
    client->queue[client->last++] = event;
}

static void answer(struct sent *message, uint8_t reason_code)
{
    if (!message->answered && message->connection == connections && current && !current->closed) {
        message->answered = true;
        current->in_flight--;
        push(current, (struct mqtt_event){.type = MQTT_CLIENT_ACKED, .mid = message->mid, .reason_code = reason_code});
    }
}

void fake_answer(size_t i, uint8_t reason_code)
{
    ASSERT(i < sent_count && !sent[i].answered);
    answer(&sent[i], reason_code);
}

void fake_answer_all(uint8_t reason_code)
{
    for (size_t i = 0; i < sent_count; i++) {
        answer(&sent[i], reason_code);
    }
}

static void close_with(struct mqtt_client *client, struct mqtt_event event)
{
    if (!client->closed) {
        client->closed = true;
        client->connected = false;
        event.type = MQTT_CLIENT_CLOSED;
        event.cause = event.cause ? event.cause : event.text;
        push(client, event);
    }
}

void fake_close(uint8_t reason_code, bool silent, const char *text)
{
    ASSERT(current);
    close_with(current, (struct mqtt_event){.reason_code = reason_code, .silent = silent, .text = text});
}

void fake_close_named(const char *text, const char *cause)
{
    ASSERT(current);
    close_with(current, (struct mqtt_event){.silent = true, .text = text, .cause = cause, .names_broker = true});
}

enum err mqtt_client_open(struct mqtt_client **out, const struct mqtt_client_options *options, struct error *why)
{
    (void)why;
    pthread_mutex_lock(&lock);
    ASSERT(!current);
    current = *out = calloc(1, sizeof *current);
    ASSERT(current);
    current->window = options->window;
    connections++;
    has_will = options->will_topic != NULL;
    was_disconnected = false;
    strcpy(host, options->host);
    pthread_mutex_unlock(&lock);
    return ERR_NONE;
}

void mqtt_client_close(struct mqtt_client **client)
{
    pthread_mutex_lock(&lock);
    if (*client) {
        free(*client);
        *client = current = NULL;
    }
    pthread_mutex_unlock(&lock);
}

void mqtt_client_poll(struct mqtt_client *client, struct pollfd *fd, int *timeout_ms)
{
    (void)client;
    *fd = (struct pollfd){.fd = -1};
    *timeout_ms = -1;
}

void mqtt_client_work(struct mqtt_client *client, short revents)
{
    (void)revents;
    pthread_mutex_lock(&lock);
    if (!client->has_worked && !fake_broker.never_completes) {
        client->has_worked = true;
        bool is_away = fake_broker.unreachable_host && strcmp(fake_broker.unreachable_host, host) == 0;
        if (fake_broker.unreachable || is_away) {
            close_with(client, (struct mqtt_event){.silent = fake_broker.is_silent,
                                                   .text = is_away ? "connection refused" : fake_broker.unreachable});
        } else if (fake_broker.rejects_wills && has_will) {
            close_with(client, (struct mqtt_event){.text = "the broker closed the connection"});
        } else if (fake_broker.refuse) {
            close_with(client, (struct mqtt_event){.reason_code = (uint8_t)fake_broker.refuse,
                                                   .refused = true,
                                                   .text = "the broker refused us"});
        } else {
            client->connected = true;
            push(client, (struct mqtt_event){.type = MQTT_CLIENT_CONNECTED});
        }
    }
    pthread_mutex_unlock(&lock);
}

bool mqtt_client_next(struct mqtt_client *client, struct mqtt_event *event)
{
    pthread_mutex_lock(&lock);
    bool any = client->first < client->last;
    if (any) {
        *event = client->queue[client->first++];
    }
    pthread_mutex_unlock(&lock);
    return any;
}

bool mqtt_client_is_connected(const struct mqtt_client *client)
{
    return client->connected;
}

const struct mqtt_limits *mqtt_client_limits(const struct mqtt_client *client)
{
    static struct mqtt_limits limits;
    limits = fake_broker.limits;
    limits.receive_maximum = limits.receive_maximum < client->window ? limits.receive_maximum : client->window;
    return &limits;
}

unsigned mqtt_client_room(const struct mqtt_client *client)
{
    if (client->closed || !client->connected) {
        return 0;
    }
    return mqtt_client_limits(client)->receive_maximum - client->in_flight;
}

size_t mqtt_client_packet_size(const struct mqtt_client *client, const struct mqtt_publish *message)
{
    (void)client;
    return 100 + message->payload.size;
}

static void decide(struct mqtt_client *client, struct sent *message)
{
    int what = fake_broker.answer ? fake_broker.answer(message) : 0;
    if (what != HOLD && what != CLOSE) {
        answer(message, what >= 0 ? (uint8_t)what : what == REFUSE_AND_CLOSE ? 0x87 : 0);
    }
    if (what < 0 && what != HOLD) {
        close_with(client, (struct mqtt_event){.text = "the broker closed the connection"});
    }
}

enum err mqtt_client_publish(struct mqtt_client *client, const struct mqtt_publish *packet, int *mid, struct error *why)
{
    pthread_mutex_lock(&lock);
    enum err err = ERR_NONE;
    if (fake_broker.publish_errors > 0) {
        fake_broker.publish_errors--;
        err = error_set(why, fake_broker.publish_error, "it does not fit");
    } else if (client->closed) {
        err = error_set(why, ERR_CLOSED, "the connection broke");
    } else {
        ASSERT(client->connected && mqtt_client_room(client) > 0 && sent_count < MAX_SENT);
        struct sent *message = &sent[sent_count++];
        *message = (struct sent){.connection = connections,
                                 .mid = next_mid = next_mid % 65535 + 1,
                                 .topic = slice_dup(packet->topic),
                                 .payload = slice_dup(packet->payload),
                                 .qos = packet->qos,
                                 .retain = packet->retain,
                                 .expiry_s = packet->expiry_s,
                                 .content_type_size = packet->content_type.size,
                                 .property_count = packet->property_count,
                                 .at_ms = clock_mono_ms()};
        *mid = message->mid;
        client->in_flight++;
        max_in_flight = client->in_flight > max_in_flight ? client->in_flight : max_in_flight;
        decide(client, message);
    }
    pthread_mutex_unlock(&lock);
    return err;
}

void mqtt_client_burst(struct mqtt_client *client, bool begin)
{
    (void)client;
    bursts += begin;
}

void mqtt_client_disconnect(struct mqtt_client *client)
{
    pthread_mutex_lock(&lock);
    was_disconnected = true;
    close_with(client, (struct mqtt_event){.text = "disconnected"});
    pthread_mutex_unlock(&lock);
}

enum err mqtt_tls_open(struct mqtt_tls **out, const struct mqtt_tls_options *options, struct error *why)
{
    *out = NULL;
    if (options->ca_file && strcmp(options->ca_file, "missing") == 0) {
        return error_set(why, ERR_CONFIG, "cannot read missing");
    }
    *out = calloc(1, 1);
    return *out ? ERR_NONE : ERR_MEMORY;
}

void mqtt_tls_close(struct mqtt_tls **tls)
{
    free(*tls);
    *tls = NULL;
}
