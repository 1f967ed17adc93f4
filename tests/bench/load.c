/* bench_load: pushes signed events over many connections that are kept open, and says how long the answers took.
 *
 *   bench_load -p PORT -t TIMES [-c CONNECTIONS] [-n REQUESTS] [-d SECONDS] [-r RATE] [-s BODY-BYTES] [-i FIRST-ID] [-R]
 *              [-u DUPLICATES-PERCENT] [-T]
 *
 * All signatures are made before the clock starts. Without -r the loop is closed: each connection sends its next event when it
 * has the answer to the last one. With -r event i is due at start + i / RATE; an answer's time counts from there, so a stall of
 * the other side is not hidden by events that were not sent. It ends after -n requests or -d seconds, with the answers to what
 * was sent. -R takes random ids; -u sends so many events a second time, soon after the first; -T speaks TLS and believes any
 * certificate. An answer that is not 200 ends it with exit status 1. TIMES: see tool.h. */
#include "sample.h"
#include "tool.h"

#include "meowbridge/clock.h"
#include "meowbridge/signature.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    HTTP_HEAD_MAX = 400,
    ANSWER_MAX = 2048,
    SILENCE_S = 20,     /* so long without any answer is a failure */
    SIGNED_MAX_S = 240, /* a signature is good for 300 */
    RECENT = 500,       /* a duplicate is one of so many latest events */
};

struct settings {
    int port;
    size_t connections, requests, body_bytes;
    double seconds, rate, duplicate_share;
    uint64_t first_id;
    bool is_random, is_tls;
    const char *times_path;
};

struct connection {
    int fd;
    SSL *tls;
    int64_t due_ns;                             /* of the request under way */
    char head[HTTP_HEAD_MAX + SAMPLE_HEAD_MAX]; /* HTTP head and the first part of the body */
    size_t head_bytes;
    struct sample sample;
    char *whole; /* TLS: the request in one piece, because it goes into records */
    size_t sent, total;
    bool waits_to_write;
    char answer[ANSWER_MAX];
    size_t answer_bytes;
};

struct load {
    struct settings settings;
    struct samples samples;
    struct tool_times times;
    char domain[32], timestamp[16], http_head[HTTP_HEAD_MAX];
    size_t http_head_bytes, signature_at;
    uint32_t *plan; /* the event that request i carries */
    char (*signatures)[SIGNATURE_HEX_DIGITS];
    struct connection *connections;
    int epoll_fd;
    size_t *idle, idle_first, idle_count; /* a ring: all connections take their turn */
    size_t sent, answered, duplicates_sent, duplicates_answered;
    int64_t start_ns, end_ns, signed_ns, last_answer_ns;
    struct tool_histogram answers;
};

/* ---- the plan and the signatures ---- */

static uint32_t noise(uint32_t x)
{
    x ^= x >> 16, x *= 0x7feb352d, x ^= x >> 15, x *= 0x846ca68b, x ^= x >> 16;
    return x;
}

static size_t make_plan(struct load *load)
{
    const uint32_t limit = (uint32_t)(load->settings.duplicate_share * 1e6);
    uint32_t events = 0;
    load->plan = tool_alloc(load->settings.requests * sizeof *load->plan);
    for (size_t i = 0; i < load->settings.requests; i++) {
        uint32_t x = noise((uint32_t)i + 1);
        bool is_duplicate = events > RECENT && x % 1000000 < limit;
        load->plan[i] = is_duplicate ? events - 1 - noise(x) % RECENT : events++;
    }
    return events;
}

static void make_http_head(struct load *load)
{
    snprintf(load->domain, sizeof load->domain, "127.0.0.1:%d", load->settings.port);
    snprintf(load->timestamp, sizeof load->timestamp, "%lld", (long long)clock_wall_ms());
    int size = snprintf(load->http_head, sizeof load->http_head,
                        "POST /webhook HTTP/1.1\r\nHost: %s\r\nUser-Agent: meowflow-webhook/1.0\r\nAccept: */*\r\n"
                        "Content-Type: application/json\r\nContent-Length: %zu\r\n" SIGNATURE_TIMESTAMP_HEADER
                        ": %s\r\n" SIGNATURE_HEADER ": %064d\r\n\r\n",
                        load->domain, load->settings.body_bytes, load->timestamp, 0);
    load->http_head_bytes = (size_t)size;
    load->signature_at = load->http_head_bytes - 4 - SIGNATURE_HEX_DIGITS;
}

static void sign_all(struct load *load, size_t events)
{
    static const char digits[] = "0123456789abcdef";
    struct signer *signer;
    struct error why;
    if (signer_open(&signer, slice_of(SAMPLE_SECRET), &why) != ERR_NONE) {
        tool_die("%s", why.text);
    }
    const struct samples *samples = &load->samples;
    char *body = tool_alloc(samples->body_bytes);
    const struct signed_request request = {
        slice_of("POST"), slice_of(load->domain), slice_of("/webhook"), {body, samples->body_bytes}, slice_of(load->timestamp)};
    load->signatures = tool_alloc(events * sizeof *load->signatures);
    load->signed_ns = tool_now_ns();
    for (size_t n = 0; n < events; n++) {
        struct sample sample;
        uint8_t mac[SIGNATURE_BYTES];
        samples_make(samples, n, &sample);
        memcpy(body, sample.head, samples->head_bytes);
        memcpy(body + samples->head_bytes, sample.filler, samples->filler_bytes);
        memcpy(body + samples->head_bytes + samples->filler_bytes, sample.tail, samples->tail_bytes);
        if (!signer_sign(signer, &request, mac)) {
            tool_die("OpenSSL cannot sign");
        }
        for (int i = 0; i < SIGNATURE_BYTES; i++) {
            load->signatures[n][2 * i] = digits[mac[i] >> 4];
            load->signatures[n][2 * i + 1] = digits[mac[i] & 15];
        }
    }
    free(body);
    signer_close(&signer);
}

/* ---- one connection ---- */

static void watch(struct load *load, struct connection *connection, int operation, bool writes)
{
    struct epoll_event event = {.events = EPOLLIN | (writes ? EPOLLOUT : 0), .data.ptr = connection};
    if (epoll_ctl(load->epoll_fd, operation, connection->fd, &event) != 0) {
        tool_die("epoll_ctl: %s", strerror(errno));
    }
    connection->waits_to_write = writes;
}

static ssize_t write_plain(struct load *load, struct connection *connection)
{
    const struct samples *samples = &load->samples;
    struct iovec parts[] = {{connection->head, connection->head_bytes},
                            {(char *)(uintptr_t)connection->sample.filler, samples->filler_bytes},
                            {connection->sample.tail, samples->tail_bytes}};
    size_t skip = connection->sent, first = 0;
    while (skip >= parts[first].iov_len) {
        skip -= parts[first++].iov_len;
    }
    parts[first].iov_base = (char *)parts[first].iov_base + skip;
    parts[first].iov_len -= skip;
    const struct msghdr message = {.msg_iov = parts + first, .msg_iovlen = 3 - first};
    return sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static bool tls_wants_more(SSL *tls, int result)
{
    int error = SSL_get_error(tls, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static void write_rest(struct load *load, struct connection *connection)
{
    while (connection->sent < connection->total) {
        ssize_t written;
        if (connection->tls) {
            written =
                SSL_write(connection->tls, connection->whole + connection->sent, (int)(connection->total - connection->sent));
            errno = written <= 0 && tls_wants_more(connection->tls, (int)written) ? EAGAIN : errno;
        } else {
            written = write_plain(load, connection);
        }
        if (written > 0) {
            connection->sent += (size_t)written;
        } else if (errno == EAGAIN) {
            if (!connection->waits_to_write) {
                watch(load, connection, EPOLL_CTL_MOD, true);
            }
            return;
        } else {
            tool_die("a connection broke while a request was sent: %s", strerror(errno));
        }
    }
    if (connection->waits_to_write) {
        watch(load, connection, EPOLL_CTL_MOD, false);
    }
}

static void send_next(struct load *load, struct connection *connection, int64_t due_ns)
{
    const struct samples *samples = &load->samples;
    uint32_t n = load->plan[load->sent++];
    samples_make(samples, n, &connection->sample);
    memcpy(connection->head, load->http_head, load->http_head_bytes);
    memcpy(connection->head + load->signature_at, load->signatures[n], SIGNATURE_HEX_DIGITS);
    memcpy(connection->head + load->http_head_bytes, connection->sample.head, samples->head_bytes);
    connection->head_bytes = load->http_head_bytes + samples->head_bytes;
    connection->sent = 0;
    connection->total = load->http_head_bytes + samples->body_bytes;
    connection->due_ns = due_ns;
    if (connection->tls) {
        char *rest = connection->whole + connection->head_bytes;
        memcpy(connection->whole, connection->head, connection->head_bytes);
        memcpy(rest, connection->sample.filler, samples->filler_bytes);
        memcpy(rest + samples->filler_bytes, connection->sample.tail, samples->tail_bytes);
    }
    if (load->times.ns[n] == 0) {
        load->times.ns[n] = due_ns;
    } else {
        load->duplicates_sent++;
    }
    write_rest(load, connection);
}

/* ---- answers ---- */

/* The size of a whole answer at the start of the bytes; 0 while it is not whole. */
static size_t answer_size(const char *bytes, size_t size)
{
    static const char name[] = "content-length:";
    const char *end = memmem(bytes, size, "\r\n\r\n", 4);
    if (!end) {
        return 0;
    }
    for (const char *line = bytes; (line = memchr(line, '\n', (size_t)(end - line))); line++) {
        if (strncasecmp(line + 1, name, sizeof name - 1) == 0) {
            size_t whole = (size_t)(end - bytes) + 4 + strtoul(line + sizeof name, NULL, 10);
            return whole <= size ? whole : 0;
        }
    }
    tool_die("an answer without Content-Length: %.*s", (int)size, bytes);
}

static bool take_answer(struct load *load, struct connection *connection)
{
    connection->answer[connection->answer_bytes] = '\0';
    size_t size = answer_size(connection->answer, connection->answer_bytes);
    if (size == 0) {
        return false;
    }
    if (memcmp(connection->answer, "HTTP/1.1 200 ", 13) != 0 || size != connection->answer_bytes) {
        tool_die("after %zu good answers: %s", load->answered, connection->answer);
    }
    load->last_answer_ns = tool_now_ns();
    load->duplicates_answered += memmem(connection->answer, size, "\"duplicate\":true", 16) != NULL;
    tool_histogram_add(&load->answers, load->last_answer_ns - connection->due_ns);
    load->answered++;
    connection->answer_bytes = 0;
    return true;
}

/* True once the answer is whole. */
static bool read_answer(struct load *load, struct connection *connection)
{
    for (;;) {
        char *at = connection->answer + connection->answer_bytes;
        size_t room = sizeof connection->answer - 1 - connection->answer_bytes;
        ssize_t size;
        if (connection->tls) {
            size = SSL_read(connection->tls, at, (int)room);
            errno = size <= 0 && tls_wants_more(connection->tls, (int)size) ? EAGAIN : 0;
        } else {
            size = recv(connection->fd, at, room, MSG_DONTWAIT);
        }
        if (size <= 0 && errno == EAGAIN) {
            return false;
        }
        if (size <= 0) {
            tool_die("a connection was closed after %zu answers: %s", load->answered, size < 0 ? strerror(errno) : "end");
        }
        connection->answer_bytes += (size_t)size;
        if (take_answer(load, connection)) {
            return true;
        }
    }
}

/* ---- the run ---- */

static bool is_over(const struct load *load, int64_t now_ns)
{
    return load->sent == load->settings.requests || now_ns >= load->end_ns;
}

static int64_t due_of(const struct load *load, size_t request)
{
    return load->start_ns + (int64_t)((double)request * 1e9 / load->settings.rate);
}

static void set_idle(struct load *load, struct connection *connection)
{
    size_t count = load->settings.connections;
    load->idle[(load->idle_first + load->idle_count++) % count] = (size_t)(connection - load->connections);
}

/* What is due by now, as far as connections are free. */
static void send_due(struct load *load)
{
    int64_t now_ns = tool_now_ns();
    while (load->idle_count > 0 && load->sent < load->settings.requests) {
        int64_t due_ns = load->settings.rate > 0 ? due_of(load, load->sent) : now_ns;
        if (due_ns > now_ns || due_ns >= load->end_ns) {
            return;
        }
        struct connection *connection = &load->connections[load->idle[load->idle_first]];
        load->idle_first = (load->idle_first + 1) % load->settings.connections;
        load->idle_count--;
        send_next(load, connection, due_ns);
    }
}

static bool is_all_sent(const struct load *load)
{
    if (load->settings.rate > 0) {
        return load->sent == load->settings.requests || due_of(load, load->sent) >= load->end_ns;
    }
    return is_over(load, tool_now_ns());
}

static struct timespec patience(const struct load *load)
{
    int64_t ns = SILENCE_S * INT64_C(1000000000);
    if (load->settings.rate > 0 && load->idle_count > 0 && !is_all_sent(load)) {
        int64_t left_ns = due_of(load, load->sent) - tool_now_ns();
        ns = left_ns < 0 ? 0 : left_ns;
    }
    return (struct timespec){ns / 1000000000, ns % 1000000000};
}

static void serve(struct load *load, struct connection *connection, uint32_t events)
{
    if (events & EPOLLOUT) {
        write_rest(load, connection);
    }
    if (!(events & ~(uint32_t)EPOLLOUT) || !read_answer(load, connection)) {
        return;
    }
    int64_t now_ns = load->last_answer_ns;
    if (now_ns - load->signed_ns > SIGNED_MAX_S * INT64_C(1000000000)) {
        tool_die("the signatures are getting too old: ask for fewer events");
    }
    if (load->settings.rate <= 0 && !is_over(load, now_ns)) {
        send_next(load, connection, now_ns);
    } else {
        set_idle(load, connection);
    }
}

static void run(struct load *load)
{
    struct epoll_event events[256];
    load->start_ns = tool_now_ns();
    load->end_ns = load->start_ns + (int64_t)(load->settings.seconds * 1e9);
    for (size_t i = 0; i < load->settings.connections; i++) {
        set_idle(load, &load->connections[i]);
    }
    send_due(load);
    while (load->answered < load->sent || !is_all_sent(load)) {
        struct timespec wait = patience(load);
        int count = epoll_pwait2(load->epoll_fd, events, 256, &wait, NULL);
        if (count < 0 && errno != EINTR) {
            tool_die("epoll_pwait2: %s", strerror(errno));
        }
        if (count == 0 && wait.tv_sec >= SILENCE_S) {
            tool_die("%zu of %zu requests were answered, then none for %d s", load->answered, load->sent, SILENCE_S);
        }
        for (int i = 0; i < count; i++) {
            serve(load, events[i].data.ptr, events[i].events);
        }
        if (load->settings.rate > 0) {
            send_due(load);
        }
    }
}

static void connect_all(struct load *load)
{
    SSL_CTX *context = load->settings.is_tls ? SSL_CTX_new(TLS_client_method()) : NULL;
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    load->connections = tool_alloc(load->settings.connections * sizeof *load->connections);
    load->idle = tool_alloc(load->settings.connections * sizeof *load->idle);
    for (size_t i = 0; i < load->settings.connections; i++) {
        struct connection *connection = &load->connections[i];
        connection->fd = tool_connect("127.0.0.1", load->settings.port);
        if (context) {
            connection->whole = tool_alloc(sizeof connection->head + load->samples.body_bytes);
            connection->tls = SSL_new(context);
            SSL_set_fd(connection->tls, connection->fd);
            if (SSL_connect(connection->tls) != 1) {
                tool_die("the TLS handshake failed");
            }
        }
        fcntl(connection->fd, F_SETFL, O_NONBLOCK);
        watch(load, connection, EPOLL_CTL_ADD, false);
    }
}

static struct settings read_settings(int argc, char **argv)
{
    struct settings settings = {
        .connections = 64, .requests = 100000, .seconds = 60, .body_bytes = 600, .first_id = 152066840347062275};
    for (int option; (option = getopt(argc, argv, "p:t:c:n:d:r:s:i:u:RT")) != -1;) {
        switch (option) {
        case 'p':
            settings.port = (int)tool_number(optarg);
            break;
        case 't':
            settings.times_path = optarg;
            break;
        case 'c':
            settings.connections = tool_number(optarg);
            break;
        case 'n':
            settings.requests = tool_number(optarg);
            break;
        case 'd':
            settings.seconds = strtod(optarg, NULL);
            break;
        case 'r':
            settings.rate = strtod(optarg, NULL);
            break;
        case 's':
            settings.body_bytes = tool_number(optarg);
            break;
        case 'i':
            settings.first_id = tool_number(optarg);
            break;
        case 'u':
            settings.duplicate_share = strtod(optarg, NULL) / 100;
            break;
        case 'R':
            settings.is_random = true;
            break;
        case 'T':
            settings.is_tls = true;
            break;
        default:
            exit(2);
        }
    }
    if (optind != argc || !settings.times_path || settings.port == 0 || settings.connections == 0) {
        fprintf(stderr, "usage: bench_load -p PORT -t TIMES [options]\n");
        exit(2);
    }
    return settings;
}

int main(int argc, char **argv)
{
    static struct load load;
    tool_name = "bench_load";
    signal(SIGPIPE, SIG_IGN);
    load.settings = read_settings(argc, argv);
    samples_init(&load.samples, load.settings.body_bytes, load.settings.first_id, load.settings.is_random);
    tool_times_open(&load.times, load.settings.times_path);
    make_http_head(&load);
    size_t events = make_plan(&load);
    if (events > load.times.count) {
        tool_die("%s has room for %zu events, not for %zu", load.settings.times_path, load.times.count, events);
    }
    sign_all(&load, events);
    connect_all(&load);
    puts("start"); /* for who watches the machine meanwhile */
    fflush(stdout);
    tool_cpu_reset();
    run(&load);
    if (load.duplicates_answered != load.duplicates_sent && load.settings.duplicate_share > 0) {
        tool_die("%zu duplicates were sent, %zu were answered as such", load.duplicates_sent, load.duplicates_answered);
    }
    printf("{\"requests\":%zu,\"events\":%zu,\"start_ns\":%lld,\"end_ns\":%lld,", load.answered,
           load.answered - load.duplicates_sent, (long long)load.start_ns, (long long)load.last_answer_ns);
    tool_histogram_print(&load.answers, "answer_ms");
    putchar(',');
    tool_cpu_print();
    puts("}");
    return 0;
}
