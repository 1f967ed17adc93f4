/* bench_subscriber: takes the events of a measurement from the broker, compares each byte of each payload, and says how long
 * after their sending they came.
 *
 *   bench_subscriber -p PORT -t TIMES [-q QOS] [-s BODY-BYTES] [-i FIRST-ID] [-R]
 *
 * Prints "ready" once it is subscribed. A line with a number on standard input says how many events there are: it ends when it
 * has the events 0 to that number - 1. Exit status 1 if one is damaged, is none of these, or does not come within 20 s of the
 * last. Speaks MQTT 5, so that the broker passes the properties on as well. */
#include "sample.h"
#include "tool.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20, SILENCE_S = 20, PING_S = 20, KEEPALIVE_S = 60 };

struct subscriber {
    int fd, qos;
    struct samples samples;
    struct tool_times times;
    uint8_t *seen; /* a bit for each event */
    uint8_t *buffer;
    size_t filled;
    uint8_t pubacks[4 * (BUFFER_BYTES / 64)]; /* of what one read brought; a message is longer than 64 bytes */
    size_t puback_bytes;
    bool is_subscribed, knows_expected;
    uint64_t expected, arrived, duplicates, highest;
    int64_t now_ns, first_ns, last_ns, pinged_ns;
    struct tool_histogram delays;
};

static void send_all(struct subscriber *subscriber, const void *bytes, size_t size)
{
    for (const char *at = bytes; size > 0;) {
        ssize_t sent = send(subscriber->fd, at, size, MSG_NOSIGNAL);
        if (sent < 0) {
            tool_die("the broker's connection broke: %s", strerror(errno));
        }
        at += sent;
        size -= (size_t)sent;
    }
}

static void introduce(struct subscriber *subscriber)
{
    /* CONNECT: MQTT 5, clean start, keep alive 60 s, no properties, a client id that the broker makes up. */
    static const uint8_t connect[] = {0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, KEEPALIVE_S, 0, 0, 0};
    uint8_t subscribe[sizeof SAMPLE_TOPIC + 8] = {0x82, sizeof SAMPLE_TOPIC + 5, 0, 1, 0, 0, sizeof SAMPLE_TOPIC - 1};
    memcpy(subscribe + 7, SAMPLE_TOPIC, sizeof SAMPLE_TOPIC - 1);
    subscribe[7 + sizeof SAMPLE_TOPIC - 1] = (uint8_t)subscriber->qos;
    send_all(subscriber, connect, sizeof connect);
    send_all(subscriber, subscribe, 7 + sizeof SAMPLE_TOPIC);
}

static void take_event(struct subscriber *subscriber, const char *payload, size_t size)
{
    uint64_t n;
    if (!samples_match(&subscriber->samples, payload, size, &n) || n >= subscriber->times.count) {
        tool_die("this arrived, and was not sent: %.*s", (int)(size < 2000 ? size : 2000), payload);
    }
    int64_t sent_ns = subscriber->times.ns[n];
    if (sent_ns == 0) {
        tool_die("event %llu arrived before it was sent", (unsigned long long)n);
    }
    uint8_t bit = (uint8_t)(1 << n % 8);
    if (subscriber->seen[n / 8] & bit) {
        subscriber->duplicates++;
        return;
    }
    subscriber->seen[n / 8] |= bit;
    subscriber->highest = n > subscriber->highest ? n : subscriber->highest;
    subscriber->first_ns = subscriber->arrived++ ? subscriber->first_ns : subscriber->now_ns;
    subscriber->last_ns = subscriber->now_ns;
    tool_histogram_add(&subscriber->delays, subscriber->now_ns - sent_ns);
}

static size_t read_varint(const uint8_t *at, size_t *value)
{
    size_t used = 0;
    *value = 0;
    do {
        *value |= (size_t)(at[used] & 127) << 7 * used;
    } while (at[used++] & 128 && used < 4);
    return used;
}

static void take_publish(struct subscriber *subscriber, uint8_t flags, const uint8_t *body, size_t size)
{
    size_t topic_bytes = (size_t)body[0] << 8 | body[1], at = 2 + topic_bytes, properties;
    if (topic_bytes != sizeof SAMPLE_TOPIC - 1 || memcmp(body + 2, SAMPLE_TOPIC, topic_bytes) != 0) {
        tool_die("a message on %.*s", (int)topic_bytes, (const char *)body + 2);
    }
    if (flags & 6) {
        const uint8_t puback[] = {0x40, 2, body[at], body[at + 1]};
        memcpy(subscriber->pubacks + subscriber->puback_bytes, puback, sizeof puback);
        subscriber->puback_bytes += sizeof puback;
        at += 2;
    }
    at += read_varint(body + at, &properties);
    at += properties;
    take_event(subscriber, (const char *)body + at, size - at);
}

static void take_packet(struct subscriber *subscriber, uint8_t type, const uint8_t *body, size_t size)
{
    switch (type >> 4) {
    case 2: /* CONNACK */
        if (body[1] != 0) {
            tool_die("the broker refuses the connection: 0x%02x", body[1]);
        }
        break;
    case 3:
        take_publish(subscriber, type, body, size);
        break;
    case 9: /* SUBACK */
        if (body[size - 1] > 2) {
            tool_die("the broker refuses the subscription: 0x%02x", body[size - 1]);
        }
        subscriber->is_subscribed = true;
        puts("ready");
        fflush(stdout);
        break;
    case 13: /* PINGRESP */
        break;
    default:
        tool_die("the broker sends packet type %d", type >> 4);
    }
}

/* Takes the packets that are whole and moves the rest to the front. */
static void take_packets(struct subscriber *subscriber)
{
    size_t at = 0;
    while (subscriber->filled - at >= 5 || (subscriber->filled - at >= 2 && subscriber->buffer[at + 1] <= 3)) {
        size_t size, header = 1 + read_varint(subscriber->buffer + at + 1, &size);
        if (header + size > BUFFER_BYTES) {
            tool_die("a packet of %zu bytes", size);
        }
        if (subscriber->filled - at < header + size) {
            break;
        }
        take_packet(subscriber, subscriber->buffer[at], subscriber->buffer + at + header, size);
        at += header + size;
    }
    subscriber->filled -= at;
    memmove(subscriber->buffer, subscriber->buffer + at, subscriber->filled);
}

static void read_broker(struct subscriber *subscriber)
{
    ssize_t size = recv(subscriber->fd, subscriber->buffer + subscriber->filled, BUFFER_BYTES - subscriber->filled, 0);
    if (size <= 0) {
        tool_die("the broker closed the connection after %llu events", (unsigned long long)subscriber->arrived);
    }
    subscriber->filled += (size_t)size;
    subscriber->now_ns = tool_now_ns();
    take_packets(subscriber);
    if (subscriber->puback_bytes > 0) {
        send_all(subscriber, subscriber->pubacks, subscriber->puback_bytes);
        subscriber->puback_bytes = 0;
    }
}

static void read_expected(struct subscriber *subscriber)
{
    char line[32];
    if (!fgets(line, sizeof line, stdin)) {
        exit(1); /* whoever started it has given up */
    }
    line[strcspn(line, "\n")] = '\0';
    subscriber->expected = tool_number(line);
    subscriber->knows_expected = true;
}

static void ping(struct subscriber *subscriber)
{
    static const uint8_t pingreq[] = {0xc0, 0};
    int64_t now_ns = tool_now_ns();
    if (now_ns - subscriber->pinged_ns > PING_S * INT64_C(1000000000)) {
        send_all(subscriber, pingreq, sizeof pingreq);
        subscriber->pinged_ns = now_ns;
    }
}

static bool is_complete(const struct subscriber *subscriber)
{
    return subscriber->knows_expected && subscriber->arrived >= subscriber->expected;
}

static void run(struct subscriber *subscriber)
{
    int64_t heard_ns = tool_now_ns();
    subscriber->pinged_ns = heard_ns;
    while (!is_complete(subscriber)) {
        struct pollfd fds[] = {{.fd = subscriber->fd, .events = POLLIN},
                               {.fd = subscriber->knows_expected ? -1 : STDIN_FILENO, .events = POLLIN}};
        poll(fds, 2, 1000);
        if (fds[0].revents) {
            read_broker(subscriber);
            heard_ns = subscriber->now_ns;
        }
        if (fds[1].revents) {
            read_expected(subscriber);
            heard_ns = tool_now_ns();
        }
        ping(subscriber);
        if (subscriber->knows_expected && tool_now_ns() - heard_ns > SILENCE_S * INT64_C(1000000000)) {
            tool_die("%llu of %llu events arrived, then none for %d s", (unsigned long long)subscriber->arrived,
                     (unsigned long long)subscriber->expected, SILENCE_S);
        }
    }
    if (subscriber->arrived != subscriber->expected ||
        (subscriber->arrived && subscriber->highest != subscriber->expected - 1)) {
        tool_die("%llu events arrived, the highest %llu; expected were %llu", (unsigned long long)subscriber->arrived,
                 (unsigned long long)subscriber->highest, (unsigned long long)subscriber->expected);
    }
}

int main(int argc, char **argv)
{
    static struct subscriber subscriber = {.qos = 1};
    size_t body_bytes = 600;
    uint64_t first_id = 152066840347062275;
    bool is_random = false;
    const char *times_path = NULL;
    int port = 0;
    tool_name = "bench_subscriber";
    for (int option; (option = getopt(argc, argv, "p:t:q:s:i:R")) != -1;) {
        switch (option) {
        case 'p':
            port = (int)tool_number(optarg);
            break;
        case 't':
            times_path = optarg;
            break;
        case 'q':
            subscriber.qos = (int)tool_number(optarg);
            break;
        case 's':
            body_bytes = tool_number(optarg);
            break;
        case 'i':
            first_id = tool_number(optarg);
            break;
        case 'R':
            is_random = true;
            break;
        default:
            return 2;
        }
    }
    if (port == 0 || !times_path || optind != argc) {
        fprintf(stderr, "usage: bench_subscriber -p PORT -t TIMES [options]\n");
        return 2;
    }
    samples_init(&subscriber.samples, body_bytes, first_id, is_random);
    tool_times_open(&subscriber.times, times_path);
    subscriber.seen = tool_alloc(subscriber.times.count / 8 + 1);
    subscriber.buffer = tool_alloc(BUFFER_BYTES);
    subscriber.fd = tool_connect("127.0.0.1", port);
    introduce(&subscriber);
    tool_cpu_reset();
    run(&subscriber);
    printf("{\"events\":%llu,\"duplicates\":%llu,\"first_ns\":%lld,\"last_ns\":%lld,", (unsigned long long)subscriber.arrived,
           (unsigned long long)subscriber.duplicates, (long long)subscriber.first_ns, (long long)subscriber.last_ns);
    tool_histogram_print(&subscriber.delays, "arrival_ms");
    putchar(',');
    tool_cpu_print();
    puts("}");
    return 0;
}
