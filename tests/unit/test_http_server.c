#include "test.h"

#include "meowbridge/clock.h"
#include "meowbridge/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000, MAX_PARKED = 512, SHORT_MS = 400 };

/* --- the scripted handler: what it does depends on the path --- */

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct http_request *parked[MAX_PARKED];
    size_t parked_count;
    unsigned headers, wholes, resumed, finished, rests, refused, last_refused;
    bool is_blocking, is_blocked; /* of "/block" */
    bool resumes_at_once;         /* "/park" is resumed from within handler.whole */
    int then_fd, then_wait_ms;    /* "/then" sends "/echo" there, from within handler.whole */
    unsigned rests_at_whole[2];   /* how many there had been at the last but one, and at the last */
    char last_peer[64];
} script;

static void changed(void)
{
    pthread_cond_broadcast(&script.changed);
    pthread_mutex_unlock(&script.mutex);
}

static struct http_server *server;
static void put_get(int fd, const char *path);

static void answer_text(struct http_request *request, unsigned status, const char *text)
{
    http_request_answer(request, &(struct http_answer){.status = status, .body = slice_of(text), .content_type = "text/plain"});
}

static bool path_is(struct http_request *request, const char *path)
{
    return slice_equal(http_request_path(request), slice_of(path));
}

static void on_headers(void *ctx, struct http_request *request)
{
    assert_ptr_equal(ctx, &script);
    assert_int_equal(http_request_body(request).size, 0);
    http_request_set_user(request, strdup("user"));
    pthread_mutex_lock(&script.mutex);
    script.headers++;
    snprintf(script.last_peer, sizeof script.last_peer, "%.*s", SLICE_ARGS(http_request_peer(request)));
    changed();
    if (path_is(request, "/missing")) {
        answer_text(request, 404, "no such path");
    } else if (path_is(request, "/method")) {
        http_request_answer(request, &(struct http_answer){.status = 405, .body = SLICE("{}"), .allow = "POST"});
    } else if (path_is(request, "/busy")) {
        http_request_answer(request, &(struct http_answer){
                                         .status = 503, .body = SLICE("{}"), .retry_after_s = 7, .www_authenticate = "Bearer"});
    }
}

static void block(void)
{
    pthread_mutex_lock(&script.mutex);
    script.is_blocked = true;
    pthread_cond_broadcast(&script.changed);
    while (script.is_blocking) {
        pthread_cond_wait(&script.changed, &script.mutex);
    }
    script.is_blocked = false;
    pthread_mutex_unlock(&script.mutex);
}

static void park(struct http_request *request)
{
    http_request_park(request);
    pthread_mutex_lock(&script.mutex);
    if (script.resumes_at_once) {
        pthread_mutex_unlock(&script.mutex);
        http_requests_resume(&request, 1);
        return;
    }
    assert_true(script.parked_count < MAX_PARKED);
    script.parked[script.parked_count++] = request;
    changed();
}

static void on_whole(void *ctx, struct http_request *request)
{
    assert_ptr_equal(ctx, &script);
    assert_string_equal(http_request_user(request), "user");
    pthread_mutex_lock(&script.mutex);
    script.wholes++;
    script.rests_at_whole[0] = script.rests_at_whole[1];
    script.rests_at_whole[1] = script.rests;
    changed();
    if (path_is(request, "/then")) {
        poll(NULL, 0, script.then_wait_ms);
        put_get(script.then_fd, "/echo");
    }
    if (path_is(request, "/park")) {
        park(request);
        return;
    }
    if (path_is(request, "/block")) {
        block();
    }
    if (path_is(request, "/take")) {
        size_t size;
        char *body = http_request_take_body(request, &size);
        assert_int_equal(strlen(body), size);
        assert_int_equal(http_request_body(request).size, 0);
        answer_text(request, 200, body);
        free(body);
        return;
    }
    if (path_is(request, "/large")) {
        char *large = malloc(8 << 20);
        memset(large, 'x', 8 << 20);
        http_request_answer(request, &(struct http_answer){.status = 200, .body = {large, 8 << 20}});
        free(large);
        return;
    }
    struct buf text;
    buf_init(&text, 1 << 20);
    buf_appendf(&text, "%.*s|%.*s|%.*s|%.*s|%.*s", SLICE_ARGS(http_request_method(request)),
                SLICE_ARGS(http_request_target(request)), SLICE_ARGS(http_request_path(request)),
                SLICE_ARGS(http_request_header(request, "x-test")), SLICE_ARGS(http_request_body(request)));
    http_request_answer(request, &(struct http_answer){.status = 200, .body = buf_slice(&text)});
    buf_free(&text);
}

static void on_resumed(void *ctx, struct http_request *request)
{
    assert_ptr_equal(ctx, &script);
    assert_string_equal(http_request_user(request), "user");
    char text[200];
    snprintf(text, sizeof text, "resumed %.*s", SLICE_ARGS(http_request_body(request)));
    answer_text(request, 200, text);
    pthread_mutex_lock(&script.mutex);
    script.resumed++;
    changed();
}

static void on_rest(void *ctx, unsigned loop)
{
    assert_ptr_equal(ctx, &script);
    assert_true(loop < 64);
    pthread_mutex_lock(&script.mutex);
    script.rests++;
    changed();
}

static void on_finished(void *ctx, struct http_request *request)
{
    assert_ptr_equal(ctx, &script);
    assert_string_equal(http_request_user(request), "user");
    free(http_request_user(request));
    pthread_mutex_lock(&script.mutex);
    script.finished++;
    changed();
}

static void error_body(void *ctx, unsigned status, const char *message, struct buf *out)
{
    assert_ptr_equal(ctx, &script);
    buf_appendf(out, "{\"code\":%u,\"message\":", status);
    buf_append_json_string(out, slice_of(message));
    buf_append_text(out, "}");
}

static void on_refused(void *ctx, const struct http_request *request, unsigned status, const char *message)
{
    assert_ptr_equal(ctx, &script);
    assert_true(http_request_peer(request).size > 0 && message[0]);
    pthread_mutex_lock(&script.mutex);
    script.refused++;
    script.last_refused = status;
    changed();
}

/* Waits until *counter is at least value. */
static void wait_for(const unsigned *counter, unsigned value)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += PATIENCE_MS / 1000;
    pthread_mutex_lock(&script.mutex);
    int error = 0;
    while (*counter < value && error == 0) {
        error = pthread_cond_timedwait(&script.changed, &script.mutex, &deadline);
    }
    unsigned got = *counter;
    pthread_mutex_unlock(&script.mutex);
    assert_true(got >= value);
}

static size_t parked_now(void)
{
    pthread_mutex_lock(&script.mutex);
    size_t count = script.parked_count;
    pthread_mutex_unlock(&script.mutex);
    return count;
}

static void wait_parked(size_t count)
{
    for (int64_t end = clock_mono_ms() + PATIENCE_MS; parked_now() < count && clock_mono_ms() < end;) {
        poll(NULL, 0, 2);
    }
    assert_int_equal(parked_now(), count);
}

static void resume_all(void)
{
    struct http_request *requests[MAX_PARKED];
    pthread_mutex_lock(&script.mutex);
    size_t count = script.parked_count;
    memcpy(requests, script.parked, count * sizeof requests[0]);
    script.parked_count = 0;
    pthread_mutex_unlock(&script.mutex);
    http_requests_resume(requests, count);
}

/* From here on. */
static void resume_at_once(void)
{
    pthread_mutex_lock(&script.mutex);
    script.resumes_at_once = true;
    pthread_mutex_unlock(&script.mutex);
}

/* --- the server under test --- */

static const char *const single_headers[] = {"X-Signature", "X-Timestamp", NULL};
static char directory[64], socket_path[100], certificates[2][100], keys[2][100];

static struct http_server_options usual(void)
{
    return (struct http_server_options){
        .name = "http",
        .host = "127.0.0.1",
        .threads = 1,
        .max_head = 16 << 10,
        .max_body = 100000,
        .timeout_ms = 10000,
        .max_connections = 1000,
        .single_headers = single_headers,
        .handler = {&script, on_headers, on_whole, on_resumed, on_rest, on_finished, error_body, on_refused, NULL},
    };
}

static void open_with(struct http_server_options options)
{
    struct error why = {0};
    memset(&script, 0, sizeof script);
    pthread_mutex_init(&script.mutex, NULL);
    pthread_cond_init(&script.changed, NULL);
    enum err err = http_server_open(&server, &options, &why);
    if (err) {
        fail_msg("%s", why.text);
    }
}

static void open_short(void)
{
    struct http_server_options options = usual();
    options.timeout_ms = SHORT_MS;
    open_with(options);
}

static void open_usual(void)
{
    open_with(usual());
}

/* Each request that the handler saw was finished exactly once. */
static void close_server(void)
{
    http_server_close(&server);
    assert_null(server);
    assert_int_equal(script.finished, script.headers);
    pthread_cond_destroy(&script.changed);
    pthread_mutex_destroy(&script.mutex);
}

static enum err try_open(struct http_server_options options, struct error *why)
{
    struct http_server *other = NULL;
    enum err err = http_server_open(&other, &options, why);
    http_server_close(&other);
    return err;
}

/* --- the client: a raw socket --- */

static int dial_address(const char *host, uint16_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    bool is_v6 = inet_pton(AF_INET, host, &v4.sin_addr) != 1;
    assert_true(!is_v6 || inet_pton(AF_INET6, host, &v6.sin6_addr) == 1);
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    const void *address = is_v6 ? (const void *)&v6 : (const void *)&v4;
    if (connect(fd, address, is_v6 ? sizeof v6 : sizeof v4) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int dial(void)
{
    int fd = dial_address("127.0.0.1", http_server_port(server));
    assert_true(fd >= 0);
    return fd;
}

static int dial_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void put_bytes(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        assert_true(n > 0);
        bytes += n;
        size -= (size_t)n;
    }
}

static void put(int fd, const char *text)
{
    put_bytes(fd, text, strlen(text));
}

static void put_post(int fd, const char *path, const char *headers, const char *body)
{
    char text[4096];
    snprintf(text, sizeof text, "POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n%s", path, headers, strlen(body),
             body);
    put(fd, text);
}

static void put_get(int fd, const char *path)
{
    char text[1024];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    put(fd, text);
}

struct answer {
    unsigned status;
    char head[2048], body[4096];
};

/* One byte, or -1 where the connection ended (0 bytes) or nothing came in time. */
static int get_char(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    unsigned char c;
    if (poll(&p, 1, PATIENCE_MS) != 1) {
        fail_msg("nothing came in time");
    }
    return recv(fd, &c, 1, 0) == 1 ? c : -1;
}

static bool get_head(int fd, char *head, size_t size)
{
    size_t n = 0;
    while (n < size - 1) {
        int c = get_char(fd);
        if (c < 0) {
            break;
        }
        head[n++] = (char)c;
        head[n] = 0;
        if (n >= 4 && memcmp(head + n - 4, "\r\n\r\n", 4) == 0) {
            return true;
        }
    }
    return false;
}

/* Reads one answer; false where the connection ended instead. */
static bool get_answer(int fd, struct answer *answer)
{
    *answer = (struct answer){0};
    if (!get_head(fd, answer->head, sizeof answer->head)) {
        return false;
    }
    assert_int_equal(sscanf(answer->head, "HTTP/1.1 %u", &answer->status), 1);
    const char *length = strcasestr(answer->head, "Content-Length: ");
    assert_non_null(length);
    size_t size = strtoul(length + 16, NULL, 10);
    assert_true(size < sizeof answer->body);
    for (size_t i = 0; i < size; i++) {
        int c = get_char(fd);
        assert_true(c >= 0);
        answer->body[i] = (char)c;
    }
    return true;
}

static void assert_answer(int fd, unsigned status, const char *body)
{
    struct answer answer;
    assert_true(get_answer(fd, &answer));
    assert_int_equal(answer.status, status);
    assert_string_equal(answer.body, body);
}

static void assert_error(int fd, unsigned status, const char *message)
{
    char body[300];
    snprintf(body, sizeof body, "{\"code\":%u,\"message\":\"%s\"}", status, message);
    struct answer answer;
    assert_true(get_answer(fd, &answer));
    assert_string_equal(answer.body, body);
    assert_int_equal(answer.status, status);
    assert_non_null(strstr(answer.head, "Content-Type: application/json\r\n"));
}

static void assert_end(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char c;
    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    assert_int_equal(recv(fd, &c, 1, 0), 0); /* an end, no reset */
    close(fd);
}

static void assert_alive(int fd)
{
    put_get(fd, "/echo");
    assert_answer(fd, 200, "GET|/echo|/echo||");
}

/* --- requests and answers --- */

static void a_request_is_seen_as_it_was_sent(void **state)
{
    (void)state;
    open_usual();
    int fd = dial();
    put_post(fd, "/echo%2fa%00?b=%41&c", "X-Test: one two \t \r\n", "body");
    assert_answer(fd, 200, "POST|/echo%2fa%00?b=%41&c|/echo%2fa%00|one two|body");
    put_get(fd, "http://x/echo?x");
    assert_answer(fd, 200, "GET|http://x/echo?x|/echo||");
    put_get(fd, "HTTPS://X?x=/echo");
    assert_answer(fd, 200, "GET|HTTPS://X?x=/echo|/||");
    put_get(fd, "a?b://x/echo");
    assert_answer(fd, 200, "GET|a?b://x/echo|a||");
    put_get(fd, "*");
    assert_answer(fd, 200, "GET|*|*||");
    put_get(fd, "*");
    assert_answer(fd, 200, "GET|*|*||");
    put_get(fd, "?a");
    assert_answer(fd, 200, "GET|?a|||");
    put_post(fd, "/take", "", "a body that is taken");
    assert_answer(fd, 200, "a body that is taken");
    assert_string_equal(script.last_peer, "127.0.0.1");
    close(fd);
    close_server();
}

static void answers_carry_their_headers(void **state)
{
    (void)state;
    open_usual();
    int fd = dial();
    struct answer answer;
    put_get(fd, "/method");
    assert_true(get_answer(fd, &answer));
    assert_int_equal(answer.status, 405);
    assert_non_null(strstr(answer.head, "\r\nAllow: POST\r\n"));
    assert_non_null(strstr(answer.head, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(answer.head, "\r\nDate: "));
    assert_null(strstr(answer.head, "Retry-After"));
    put_get(fd, "/busy");
    assert_true(get_answer(fd, &answer));
    assert_int_equal(answer.status, 503);
    assert_non_null(strstr(answer.head, "\r\nRetry-After: 7\r\n"));
    assert_non_null(strstr(answer.head, "\r\nWWW-Authenticate: Bearer\r\n"));
    put_get(fd, "/missing");
    assert_true(get_answer(fd, &answer));
    assert_non_null(strstr(answer.head, "\r\nContent-Type: text/plain\r\n"));
    put(fd, "HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(get_head(fd, answer.head, sizeof answer.head));
    assert_non_null(strstr(answer.head, "HTTP/1.1 200 "));
    assert_non_null(strstr(answer.head, "\r\nContent-Length: 18\r\n"));
    assert_alive(fd); /* no body came */
    close(fd);
    close_server();
}

static void a_connection_serves_many_requests(void **state)
{
    (void)state;
    open_usual();
    int fd = dial();
    for (unsigned i = 0; i < 500; i++) {
        char body[20], expected[60];
        snprintf(body, sizeof body, "%u", i);
        snprintf(expected, sizeof expected, "POST|/echo|/echo||%u", i);
        put_post(fd, "/echo", "", body);
        assert_answer(fd, 200, expected);
    }
    wait_for(&script.finished, 500);
    wait_for(&script.rests, 1);
    close(fd);
    close_server();
}

/* Whether the loop rested between two requests, the second of which was at hand when the first was over. */
static bool rests_between(int fds[2])
{
    put_get(fds[0], "/then");
    assert_answer(fds[0], 200, "GET|/then|/then||");
    assert_answer(fds[1], 200, "GET|/echo|/echo||");
    pthread_mutex_lock(&script.mutex);
    bool rested = script.rests_at_whole[0] != script.rests_at_whole[1];
    pthread_mutex_unlock(&script.mutex);
    return rested;
}

static void a_loop_rests_when_nothing_is_at_hand_or_it_was_busy_for_long(void **state)
{
    (void)state;
    open_usual();
    int fds[2] = {dial(), dial()};
    assert_alive(fds[1]);
    script.then_fd = fds[1];
    int64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    while (rests_between(fds)) { /* where the machine was busy that took the loop too long */
        assert_true(clock_mono_ms() < until_ms);
    }
    script.then_wait_ms = 1;
    for (int i = 0; i < 20; i++) {
        assert_true(rests_between(fds));
    }
    close(fds[0]);
    close(fds[1]);
    close_server();
}

static void a_chunked_body_is_put_together_and_ends_its_connection(void **state)
{
    (void)state;
    static const char *const bodies[] = {"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "0005\r\nabcde\r\n00\r\n\r\n",
                                         "03;a=\"b\"\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n"};
    open_usual();
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        int fd = dial();
        put(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n");
        put(fd, bodies[i]);
        put_get(fd, "/echo");
        struct answer answer;
        assert_true(get_answer(fd, &answer));
        assert_string_equal(answer.body, "POST|/echo|/echo||abcde");
        assert_non_null(strstr(answer.head, "\r\nConnection: close\r\n"));
        assert_end(fd);
        assert_int_equal(script.headers, i + 1);
    }
    int fd = dial(); /* byte by byte, and answered from another thread */
    const char *parked =
        "POST /park HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\n";
    for (size_t i = 0; i < strlen(parked); i++) {
        put_bytes(fd, parked + i, 1);
    }
    wait_parked(1);
    resume_all();
    assert_answer(fd, 200, "resumed abc");
    assert_end(fd);
    close_server();
}

static void a_client_that_leaves_a_parked_chunked_request_gives_it_back_once(void **state)
{
    (void)state;
    open_usual();
    for (unsigned i = 0; i < 20; i++) {
        int fd = dial();
        put(fd, "POST /park HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        wait_parked(1);
        if (i % 2) {
            put_get(fd, "/echo"); /* unread when it is closed */
        }
        close(fd);
        resume_all();
        wait_for(&script.finished, i + 1);
    }
    int fd = dial();
    put(fd, "POST /park HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n");
    wait_parked(1);
    http_server_quiesce(server);
    resume_all();
    assert_answer(fd, 200, "resumed a");
    assert_true(http_server_drain(server, clock_mono_ms() + PATIENCE_MS));
    assert_end(fd);
    close_server();
}

static void a_client_that_waits_for_100_continue_gets_it_or_the_answer(void **state)
{
    (void)state;
    open_usual();
    int fd = dial();
    char head[200];
    put(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_true(get_head(fd, head, sizeof head));
    assert_string_equal(head, "HTTP/1.1 100 Continue\r\n\r\n");
    put(fd, "ab");
    assert_answer(fd, 200, "POST|/echo|/echo||ab");
    put(fd, "POST /missing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_answer(fd, 404, "no such path");
    assert_end(fd);
    close_server();
}

static void an_answer_before_a_small_body_keeps_the_connection(void **state)
{
    (void)state;
    open_usual();
    int fd = dial();
    char body[1001] = {0};
    memset(body, 'x', 1000);
    put_post(fd, "/missing", "", body);
    assert_answer(fd, 404, "no such path");
    put_get(fd, "/missing");
    assert_answer(fd, 404, "no such path");
    assert_alive(fd);
    close(fd);
    close_server();
}

/* Sends all of a large body before it looks for an answer, as naive clients do. */
static void assert_early_answer(const char *path, unsigned status, const char *body, size_t size)
{
    int fd = dial();
    char head[200], *bytes = calloc(1, size);
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", path, size);
    put(fd, head);
    assert_int_equal(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, PATIENCE_MS), 1); /* it is there before the body */
    put_bytes(fd, bytes, size);
    assert_answer(fd, status, body);
    shutdown(fd, SHUT_WR);
    assert_end(fd);
    free(bytes);
}

static void an_early_answer_reaches_a_client_that_goes_on_sending(void **state)
{
    (void)state;
    open_usual();
    assert_early_answer("/missing", 404, "no such path", 90000);
    assert_early_answer("/echo", 413, "{\"code\":413,\"message\":\"body is larger than 100000 bytes\"}", 20 << 20);
    close_server();
}

static void a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(void **state)
{
    (void)state;
    struct http_server_options options = usual();
    options.max_body = 10;
    open_with(options);
    int fd = dial();
    put_post(fd, "/echo", "", "0123456789");
    assert_answer(fd, 200, "POST|/echo|/echo||0123456789");
    put_post(fd, "/echo", "", "0123456789a"); /* small: read to its end */
    assert_error(fd, 413, "body is larger than 10 bytes");
    put(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n");
    assert_answer(fd, 200, "POST|/echo|/echo||0123456789");
    assert_end(fd);
    fd = dial();
    put(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n6\r\n56789a\r\n0\r\n\r\n");
    assert_error(fd, 413, "body is too large");
    assert_end(fd);
    assert_int_equal(script.wholes, 2);
    close_server();
}

static void a_chunked_body_without_end_is_cut_off(void **state)
{
    (void)state;
    open_usual();
    int fd = dial();
    put(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    char chunk[10008];
    size_t size = (size_t)snprintf(chunk, sizeof chunk, "2710\r\n");
    memset(chunk + size, 'x', 10000);
    memcpy(chunk + size + 10000, "\r\n", 2);
    for (unsigned i = 0; i < 160; i++) { /* 1.6 MB, over 100 kB and 1 MiB */
        if (send(fd, chunk, size + 10002, MSG_NOSIGNAL) < 0) {
            break;
        }
    }
    assert_error(fd, 413, "body is too large");
    assert_end(fd);
    assert_int_equal(script.wholes, 0);
    close_server();
}

/* --- what is refused --- */

static void what_two_parsers_could_read_differently_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *request, *message;
    } cases[] = {
        {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "header \\\"Content-Length\\\" stands beside Transfer-Encoding"},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nGET /",
         "header \\\"Content-Length\\\" is given twice"},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\nhello",
         "header \\\"content-length\\\" is given twice"},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length : 31\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
         "header \\\"Content-Length \\\" is no valid header name"},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
         "header \\\"Transfer-Encoding\\\" is not exactly \\\"chunked\\\""},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
         "header \\\"Transfer-Encoding\\\" is not exactly \\\"chunked\\\""},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked \r\n\r\n0\r\n\r\n",
         "header \\\"Transfer-Encoding\\\" is not exactly \\\"chunked\\\""},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
         "header \\\"Transfer-Encoding\\\" is not exactly \\\"chunked\\\""},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "header \\\"Transfer-Encoding\\\" is given twice"},
        {"POST /echo HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "header \\\"Transfer-Encoding\\\" is not part of HTTP/1.0"},
        {"GET /echo HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "header \\\"Host\\\" is given twice"},
        {"GET /echo HTTP/1.1\r\nA: b\r\n\r\n", "header \\\"Host\\\" is missing"},
        {"GET /echo HTTP/1.1\r\nHost: x\r\nX-Signature: a\r\nx-signature: a\r\n\r\n",
         "header \\\"x-signature\\\" is given twice"},
        {"GET /echo HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n", "header \\\"A b\\\" is no valid header name"},
        {"GET /echo HTTP/1.1\r\nHost: x\r\n\x80: c\r\n\r\n", "header \\\"?\\\" is no valid header name"},
        {"GET /echo HTTP/1.1\r\nHost: x\r\n: c\r\n\r\n",
         "the request's head has a NUL byte, a folded line, a line not ended by CR LF, or spare blanks in its first line"},
        {"GET /echo HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", "header \\\"A\\\" has a control character"},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
         "header \\\"Transfer-Encodingchunked\\\" is folded over lines"},
        {"GET /echo HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
         "the request's head has a NUL byte, a folded line, a line not ended by CR LF, or spare blanks in its first line"},
        {"GET  /echo HTTP/1.1\r\nHost: x\r\n\r\n",
         "the request's head has a NUL byte, a folded line, a line not ended by CR LF, or spare blanks in its first line"},
        {"GET  /echo HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", /* a byte too many and one too few */
         "the request's head has a NUL byte, a folded line, a line not ended by CR LF, or spare blanks in its first line"},
        {"GET  /echo HTTP/1.1\r\nHost: x\r\n\n",
         "the request's head has a NUL byte, a folded line, a line not ended by CR LF, or spare blanks in its first line"},
        {"GE\x0bT /echo HTTP/1.1\r\nHost: x\r\n\r\n", "the request method has a character that no method has"},
        {"GET /echo /x HTTP/1.1\r\nHost: x\r\n\r\n", "the request target has a space or a control character"},
        {"GET http://other/echo HTTP/1.1\r\nHost: x\r\n\r\n", "the request target names another host than Host"},
        {"GET http://x@y/echo HTTP/1.1\r\nHost: x\r\n\r\n", "the request target names another host than Host"},
        {"GET /echo\x01 HTTP/1.1\r\nHost: x\r\n\r\n", "the request target has a space or a control character"},
    };
    open_usual();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd = dial();
        put(fd, cases[i].request);
        assert_error(fd, 400, cases[i].message);
        assert_end(fd);
    }
    assert_int_equal(script.headers, 0); /* the handler saw none of them */
    close_server();
}

/* One NUL in each; of most the parser leaves no trace. */
#define ROW(literal)                   \
    {                                  \
        (literal), sizeof(literal) - 1 \
    }
#define NUL_LINE(text) ROW("GET /echo HTTP/1.1\r\nHost: x\r\n" text)
static const struct slice nul_heads[] = {
    NUL_LINE("X-Test: a\0\r\n\n"),
    NUL_LINE("X-Test: a\0\n\r\n"),
    NUL_LINE("X-Test: a\r\n\0\n"),
    NUL_LINE("X-Test: a\0\r\n\r\n"),
    NUL_LINE("X-Test: a\0b\r\n\r\n"),
    NUL_LINE("X-Test:\0\r\n\n"),
    NUL_LINE("X-Test: a\0\nX-More: b\r\n\r\n"),
    ROW("GET /echo\0x HTTP/1.1\r\nHost: x\r\n\r\n"),
    ROW("\r\n\0\nGET /echo HTTP/1.1\r\nHost: x\r\n\r\n"),
};
static const char nul_refused[] =
    "the request's head has a NUL byte, a folded line, a line not ended by CR LF, or spare blanks in its first line";

/* Requests with NULs where they are a body's, in an empty line's neighbourhood and behind one that has no body. */
#define NUL_BODIES                                                                   \
    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nb\0\r\n\r\n"         \
    "\r\n\r\nPOST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nb\0\0\r\n\0" \
    "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"                                          \
    "POST /missing HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n\0\0\0"           \
    "POST /park HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nb\0"

typedef void put_part(const void *client, const char *bytes, size_t size);

/* Bodies with NULs, and then this, in steps of that many bytes. */
static void put_behind_nul_bodies(put_part *put_to, const void *client, struct slice last, size_t step)
{
    struct buf all;
    buf_init(&all, 1 << 20);
    buf_append(&all, SLICE(NUL_BODIES));
    buf_append(&all, last);
    for (size_t at = 0; at < all.size; at += step) {
        put_to(client, all.data + at, step < all.size - at ? step : all.size - at);
    }
    buf_free(&all);
}

static const size_t nul_steps[] = {1 << 20, 1000, 61, 7, 1};

static void put_to_socket(const void *client, const char *bytes, size_t size)
{
    put_bytes(*(const int *)client, bytes, size);
}

static void assert_nul_bodies(int fd)
{
    assert_answer(fd, 200, "POST|/echo|/echo||b");
    assert_answer(fd, 200, "POST|/echo|/echo||b");
    assert_answer(fd, 200, "GET|/echo|/echo||");
    assert_answer(fd, 404, "no such path");
    assert_answer(fd, 200, "resumed b");
}

static void a_nul_in_a_head_is_refused_and_in_a_body_is_none_of_the_heads(void **state)
{
    (void)state;
    open_usual();
    resume_at_once();
    for (size_t i = 0; i < sizeof nul_heads / sizeof nul_heads[0]; i++) {
        for (size_t j = 0; j < sizeof nul_steps / sizeof nul_steps[0]; j++) {
            int fd = dial();
            put_bytes(fd, nul_heads[i].data, nul_heads[i].size);
            assert_error(fd, 400, nul_refused);
            assert_end(fd);
            fd = dial();
            put_behind_nul_bodies(put_to_socket, &fd, nul_heads[i], nul_steps[j]);
            assert_nul_bodies(fd);
            assert_error(fd, 400, nul_refused);
            assert_end(fd);
        }
    }
    for (size_t j = 0; j < sizeof nul_steps / sizeof nul_steps[0]; j++) {
        int fd = dial();
        put_behind_nul_bodies(put_to_socket, &fd, SLICE(NUL_BODIES), nul_steps[j]);
        assert_nul_bodies(fd);
        assert_nul_bodies(fd);
        assert_alive(fd);
        close(fd);
    }
    close_server();
}

/* It does not fit into the parser's buffer, which is filled many times. */
static void a_large_body_of_nuls_is_none_of_the_heads_around_it(void **state)
{
    (void)state;
    enum { SIZE = 70000 };
    struct buf request;
    buf_init(&request, SIZE + 1000);
    buf_appendf(&request, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", SIZE);
    memset(buf_reserve(&request, SIZE), 0, SIZE);
    request.size += SIZE;
    buf_append_text(&request, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    open_usual();
    int fd = dial();
    for (unsigned i = 0; i < 3; i++) {
        put_bytes(fd, request.data, request.size);
        assert_answer(fd, 200, "POST|/echo|/echo||");
        assert_answer(fd, 200, "GET|/echo|/echo||");
    }
    put_bytes(fd, request.data, request.size - 2);
    put_bytes(fd, "\0\n", 2);
    assert_answer(fd, 200, "POST|/echo|/echo||");
    assert_error(fd, 400, nul_refused);
    assert_end(fd);
    buf_free(&request);
    close_server();
}

/* The check by arithmetic must not depend on how the bytes arrive, nor on what the parser does with its buffer. */
static void a_head_is_the_same_request_however_it_arrives(void **state)
{
    (void)state;
    open_usual();
    struct buf head;
    buf_init(&head, 16 << 10);
    buf_append_text(&head,
                    "GET /echo?a=b&c=%41&d HTTP/1.1\r\nHost:x\r\nX-Test:\t  value\t \r\nCookie: a=b; c=\"d\"\r\nX-Empty:\r\n");
    for (unsigned i = 0; i < 100; i++) {
        buf_appendf(&head, "X-Filler-%u: 0123456789012345678901234567890123456789\r\n", i);
    }
    buf_append_text(&head, "\r\n");
    static const size_t steps[] = {1 << 20, 1000, 37, 1};
    int fd = dial();
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        for (size_t at = 0; at < head.size; at += steps[i]) {
            put_bytes(fd, head.data + at, steps[i] < head.size - at ? steps[i] : head.size - at);
        }
        assert_answer(fd, 200, "GET|/echo?a=b&c=%41&d|/echo|value|");
    }
    close(fd);
    buf_free(&head);
    close_server();
}

/* libmicrohttpd would close without a word where it has memory for the head and none for the answer's. */
static void a_head_of_any_size_is_answered(void **state)
{
    (void)state;
    open_usual();
    static const struct {
        const char *before, *filler; /* a filler's size is added until the head is too large */
    } cases[] = {{"A: ", "aaaaaaaaaaaaaaaa"},
                 {"", "A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"},
                 {"Cookie: ", "a=b; cc=dd; "},
                 {NULL, "abc=def&"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned served = 0, refused = 0;
        for (size_t count = 1; refused < 50; count++) {
            struct buf head;
            struct answer answer;
            buf_init(&head, 64 << 10);
            buf_append_text(&head, cases[i].before ? "GET /echo HTTP/1.1\r\nHost: x\r\n" : "GET /echo?");
            buf_append_text(&head, cases[i].before ? cases[i].before : "");
            for (size_t n = 0; n < count; n++) {
                buf_append_text(&head, cases[i].filler);
            }
            buf_append_text(&head, cases[i].before ? "\r\n\r\n" : " HTTP/1.1\r\nHost: x\r\n\r\n");
            int fd = dial();
            put_bytes(fd, head.data, head.size);
            assert_true(get_answer(fd, &answer));
            bool is_served = strstr(answer.head, "HTTP/1.1 200 ");
            assert_true(is_served || strstr(answer.head, "HTTP/1.1 431 "));
            assert_true(!is_served || refused == 0);
            served += is_served;
            refused += !is_served;
            close(fd);
            buf_free(&head);
        }
        assert_in_range(served, 50, 1100);
    }
    close_server();
}

static void http_1_0_is_served_without_a_host(void **state)
{
    (void)state;
    open_usual();
    int fd = dial();
    put(fd, "GET /echo HTTP/1.0\r\n\r\n");
    assert_answer(fd, 200, "GET|/echo|/echo||");
    assert_end(fd);
    close_server();
}

static char *flood(const char *start, const char *part, size_t times, const char *end)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    buf_append_text(&text, start);
    for (size_t i = 0; i < times; i++) {
        buf_append_text(&text, part);
    }
    buf_append_text(&text, end);
    buf_append(&text, (struct slice){"", 1});
    return buf_take(&text);
}

#define HEAD "POST /echo HTTP/1.1\r\nHost: x\r\n"
#define CHUNKED HEAD "Transfer-Encoding: chunked\r\n\r\n"
static const char in_headers[] = "a header line has no colon, or Content-Length is not a number of bytes";
static const char in_chunks[] = "the body's chunked coding is malformed";

/* All that libmicrohttpd answers by itself. start, then part as often as is said, then end. */
static const struct {
    const char *start, *part;
    size_t times;
    const char *end;
    unsigned status;
    const char *message;
} malformed[] = {
    {"GET /\r\n\r\n", "", 0, "", 400, "the request line is malformed"},
    {"GET / \r\n\r\n", "", 0, "", 400, "the request line is malformed"},
    {"GET / HTTP/1\r\nHost: x\r\n\r\n", "", 0, "", 400, "the request line is malformed"},
    {"GET / http/1.1\r\nHost: x\r\n\r\n", "", 0, "", 400, "the request line is malformed"},
    {"GET / HTTP/0.9\r\nHost: x\r\n\r\n", "", 0, "", 505, "this HTTP version is not supported"},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", 0, "", 505, "this HTTP version is not supported"},
    {HEAD "no colon\r\n\r\n", "", 0, "", 400, in_headers},
    {"POST /echo HTTP/1.1\r\nno colon\r\nHost: x\r\n\r\n", "", 0, "", 400, in_headers},
    {HEAD "Content-Length: abc\r\n\r\nabc", "", 0, "", 400, in_headers},
    {HEAD "Content-Length: -1\r\n\r\n", "", 0, "", 400, in_headers},
    {HEAD "Content-Length: +3\r\n\r\nabc", "", 0, "", 400, in_headers},
    {HEAD "Content-Length: 0x3\r\n\r\nabc", "", 0, "", 400, in_headers},
    {HEAD "Content-Length: 3, 3\r\n\r\nabc", "", 0, "", 400, in_headers},
    {HEAD "Content-Length: \r\n\r\n", "", 0, "", 400, in_headers},
    {HEAD "Content-Length: 18446744073709551616\r\n\r\n", "", 0, "", 413, "body is larger than 100000 bytes"},
    {CHUNKED "zz\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "-1\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "3\r\nabcdef\r\n0\r\n\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "10000000000000000\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "3\nabc\r\n0\r\n\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "3\r\nabc\n0\r\n\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "3\r\nabc\r\n0\n\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "3\r\nabc\r\n0\r\n\n", "", 0, "", 400, in_chunks},
    {CHUNKED "3;a\rb\r\nabc\r\n0\r\n\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "4\r\nabc\r\n0\r\n\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "0\r\nno colon\r\n\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "0\r\nA: b\r\nno colon\r\n\r\n", "", 0, "", 400, in_chunks},
    {CHUNKED "0\r\n", "A: b\r\n", 6000, "\r\n", 431, "the request's headers are too large"},
    {CHUNKED "0\r\nA: ", "x", 40000, "\r\n\r\n", 431, "the request's headers are too large"},
    {"GET /", "x", 40000, " HTTP/1.1\r\nHost: x\r\n\r\n", 414, "the request target is too long"},
    {HEAD "A: ", "x", 40000, "\r\n\r\n", 431, "the request's headers are too large"},
    {HEAD, "A: b\r\n", 6000, "\r\n", 431, "the request's headers are too large"},
    {HEAD "A: b\r\n ", "x", 9000, "\r\n y\r\n\r\n", 431, "the request's headers are too large"},
    {"GET /?", "a&", 3000, " HTTP/1.1\r\nHost: x\r\n\r\n", 431, "the request's headers are too large"},
    {HEAD "Cookie: ", "a;", 2000, "\r\nContent-Length: 3\r\n\r\nabc", 431, "the request's headers are too large"},
};

static void put_malformed(int fd, size_t i)
{
    char *text = flood(malformed[i].start, malformed[i].part, malformed[i].times, malformed[i].end);
    put(fd, text);
    free(text);
}

/* One head, one body in the handler's form, and the end. */
static void assert_refused(int fd, unsigned status, const char *message)
{
    struct answer answer;
    char body[300];
    snprintf(body, sizeof body, "{\"code\":%u,\"message\":\"%s\"}", status, message);
    assert_true(get_answer(fd, &answer));
    assert_string_equal(answer.body, body);
    assert_int_equal(answer.status, status);
    assert_non_null(strstr(answer.head, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(answer.head, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(answer.head, "\r\nDate: "));
    assert_end(fd);
}

static void what_the_library_cannot_parse_is_refused_in_our_form(void **state)
{
    (void)state;
    open_usual();
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        int fd = dial();
        put_malformed(fd, i);
        assert_refused(fd, malformed[i].status, malformed[i].message);
        assert_int_equal(script.refused, i + 1); /* once */
        assert_int_equal(script.last_refused, malformed[i].status);
    }
    assert_int_equal(script.wholes, 0);
    assert_alive(dial());
    close_server();
}

/* The good requests before it keep their answers, and what stands behind it is not looked at. */
static void a_malformed_request_ends_its_connection_behind_good_ones(void **state)
{
    (void)state;
    open_usual();
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        int fd = dial();
        put_get(fd, "/echo?1");
        put_post(fd, "/echo", "", "two");
        put_malformed(fd, i);
        put_get(fd, "/echo?3");
        assert_answer(fd, 200, "GET|/echo?1|/echo||");
        assert_answer(fd, 200, "POST|/echo|/echo||two");
        assert_refused(fd, malformed[i].status, malformed[i].message);
        assert_int_equal(script.wholes, 2 * (i + 1));
    }
    close_server();
}

static void a_malformed_end_does_not_change_the_refusal_of_a_body_that_is_too_large(void **state)
{
    (void)state;
    open_usual();
    char *text = flood(CHUNKED "186a1\r\n", "x", 100001, "\r\nzz\r\n");
    int fd = dial();
    put(fd, text);
    assert_refused(fd, 413, "body is too large");
    assert_int_equal(script.refused, 1);
    free(text);
    close_server();
}

/* --- deadlines --- */

static const char late[] = "request was not whole in time";

/* Sends text a byte at a time, over and over from repeat on, until something comes back; the time that took. */
static int64_t drip(int fd, const char *text, size_t repeat)
{
    int64_t start = clock_mono_ms();
    size_t size = strlen(text);
    for (size_t i = 0; clock_mono_ms() - start < PATIENCE_MS; i = i + 1 < size ? i + 1 : repeat) {
        if (poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 20) == 1) {
            return clock_mono_ms() - start;
        }
        put_bytes(fd, text + i, 1);
    }
    fail_msg("dripped for ever");
    return 0;
}

static void assert_late(int fd, int64_t took)
{
    assert_true(took >= SHORT_MS - 20 && took < SHORT_MS * 5);
    put(fd, "x"); /* goes on, and still gets the answer */
    assert_error(fd, 408, late);
    int64_t start = clock_mono_ms();
    assert_end(fd);
    assert_true(clock_mono_ms() - start < 1000); /* at once, though the server reads on for a while */
}

static void dripping_headers_end_with_408(void **state)
{
    (void)state;
    open_short();
    int fd = dial();
    assert_late(fd, drip(fd, "GET /echo HTTP/1.1\r\nHost: x\r\nX-Test: xxx", 38));
    fd = dial();
    assert_late(fd, drip(fd, "GET /xxx", 7)); /* the first line already */
    assert_int_equal(script.headers, 0);
    close_server();
}

static void the_time_of_a_request_runs_from_its_first_byte(void **state)
{
    (void)state;
    struct http_server_options options = usual();
    options.timeout_ms = 2000;
    open_with(options);
    int fd = dial();
    int64_t start = clock_mono_ms();
    for (const char *c = "GET /echo HTTP/1."; *c; c++) {
        put_bytes(fd, c, 1);
        poll(NULL, 0, 85);
    }
    put(fd, "1\r\nHost: x\r\n"); /* the first line is whole after 1.4 s */
    drip(fd, "X-Test: x", 8);
    assert_error(fd, 408, late);
    assert_true(clock_mono_ms() - start < 3200);
    assert_end(fd);
    close_server();
}

static void a_dripping_body_ends_with_408(void **state)
{
    (void)state;
    open_short();
    int fd = dial();
    put(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n");
    assert_late(fd, drip(fd, "x", 0));
    fd = dial();
    put(fd, "POST /missing HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n"); /* answered, but for its body */
    assert_late(fd, drip(fd, "x", 0));
    wait_for(&script.finished, 2);
    assert_int_equal(script.wholes, 0);
    close_server();
}

static void a_second_request_that_stalls_ends_with_408(void **state)
{
    (void)state;
    open_short();
    int fd = dial(), behind = dial();
    put(behind, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\nGET /ec"); /* in one packet with the first */
    assert_answer(behind, 200, "GET|/echo|/echo||");
    assert_alive(fd);
    put(fd, "G");
    assert_error(fd, 408, late);
    assert_end(fd);
    assert_error(behind, 408, late);
    assert_end(behind);
    close_server();
}

static void a_connection_that_sends_nothing_is_closed_without_an_answer(void **state)
{
    (void)state;
    open_short();
    int64_t start = clock_mono_ms();
    int fd = dial();
    assert_end(fd);
    assert_true(clock_mono_ms() - start >= SHORT_MS - 20);
    close_server();
}

static void a_connection_may_idle_between_requests(void **state)
{
    (void)state;
    open_short();
    int fd = dial();
    put_get(fd, "/echo");
    assert_answer(fd, 200, "GET|/echo|/echo||");
    assert_int_equal(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 3 * SHORT_MS), 0);
    put_post(fd, "/echo", "", "x");
    assert_answer(fd, 200, "POST|/echo|/echo||x");
    assert_int_equal(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 3 * SHORT_MS), 0);
    assert_alive(fd);
    close(fd);
    close_server();
}

static void a_client_that_does_not_take_its_answer_is_closed(void **state)
{
    (void)state;
    open_short();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(http_server_port(server)), .sin_addr = {htonl(0x7f000001)}};
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    put_get(fd, "/large");
    wait_for(&script.finished, 1);
    close(fd);
    close_server();
}

/* --- parking --- */

static void a_parked_request_is_answered_when_another_thread_resumes_it(void **state)
{
    (void)state;
    open_short();
    int fd = dial(), other = dial();
    put_post(fd, "/park", "", "one");
    wait_parked(1);
    assert_alive(other);                                                                      /* no thread is held */
    assert_int_equal(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 3 * SHORT_MS), 0); /* and no deadline runs */
    resume_all();
    assert_answer(fd, 200, "resumed one");
    assert_alive(fd);
    close(fd);
    close(other);
    close_server();
}

static void a_request_may_be_resumed_from_within_its_loop(void **state)
{
    (void)state;
    open_usual();
    resume_at_once();
    int fd = dial();
    for (unsigned i = 0; i < 50; i++) {
        put_post(fd, "/park", "", "x");
        assert_answer(fd, 200, "resumed x");
    }
    close(fd);
    close_server();
}

static void pipelined_requests_that_park_are_answered_in_order(void **state)
{
    (void)state;
    open_usual();
    int fd = dial();
    struct buf requests;
    buf_init(&requests, 10000);
    for (unsigned i = 0; i < 10; i++) {
        buf_appendf(&requests, "POST /park HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%u", i);
    }
    put(fd, requests.data);
    for (unsigned i = 0; i < 10; i++) {
        char expected[20];
        snprintf(expected, sizeof expected, "resumed %u", i);
        wait_parked(1);
        resume_all();
        assert_answer(fd, 200, expected);
    }
    buf_free(&requests);
    close(fd);
    close_server();
}

static void a_client_that_leaves_while_parked_gives_the_request_back_once(void **state)
{
    (void)state;
    open_usual();
    for (unsigned i = 0; i < 20; i++) {
        int fd = dial();
        put_post(fd, "/park", "", "x");
        wait_parked(i + 1);
        if (i % 2) { /* a reset instead of an end */
            struct linger now = {.l_onoff = 1};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        }
        close(fd);
    }
    assert_int_equal(script.resumed, 0);
    resume_all();
    wait_for(&script.finished, 20);
    assert_int_equal(script.resumed, 20);
    assert_int_equal(script.finished, 20);
    int fd = dial();
    assert_alive(fd);
    close(fd);
    close_server();
}

static void a_client_that_half_closes_gets_its_answer(void **state)
{
    (void)state;
    open_usual();
    int fds[10]; /* several: libmicrohttpd treats the oldest connection otherwise than the others */
    for (unsigned i = 0; i < 10; i++) {
        fds[i] = dial();
        put_post(fds[i], "/park", "", "x");
        wait_parked(i + 1);
        shutdown(fds[i], SHUT_WR);
    }
    resume_all();
    for (unsigned i = 0; i < 10; i++) {
        assert_answer(fds[i], 200, "resumed x");
        assert_end(fds[i]);
    }
    int fd = dial();
    put_get(fd, "/echo");
    shutdown(fd, SHUT_WR);
    assert_answer(fd, 200, "GET|/echo|/echo||");
    assert_end(fd);
    close_server();
}

static void many_parked_requests_of_several_loops_are_resumed_at_once(void **state)
{
    (void)state;
    enum { CLIENTS = 200, ROUNDS = 5 };
    struct http_server_options options = usual();
    options.threads = 3;
    open_with(options);
    int fds[CLIENTS];
    for (unsigned i = 0; i < CLIENTS; i++) {
        fds[i] = dial();
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < CLIENTS; i++) {
            put_post(fds[i], "/park", "", "x");
        }
        wait_parked(CLIENTS);
        resume_all();
        for (unsigned i = 0; i < CLIENTS; i++) {
            assert_answer(fds[i], 200, "resumed x");
        }
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        close(fds[i]);
    }
    wait_for(&script.finished, CLIENTS * ROUNDS);
    close_server();
}

static void *resume_for_ever(void *argument)
{
    const atomic_bool *stop = argument;
    while (!atomic_load(stop)) {
        resume_all();
        sched_yield();
    }
    return NULL;
}

static void requests_are_resumed_while_their_clients_come_and_go(void **state)
{
    (void)state;
    struct http_server_options options = usual();
    options.threads = 2;
    open_with(options);
    atomic_bool stop = false;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, resume_for_ever, &stop), 0);
    for (unsigned i = 0; i < 300; i++) {
        int fd = dial();
        put_post(fd, "/park", "", "x");
        if (i % 3) {
            assert_answer(fd, 200, "resumed x");
        }
        close(fd);
    }
    wait_for(&script.finished, 200);
    http_server_quiesce(server);
    assert_true(http_server_drain(server, clock_mono_ms() + PATIENCE_MS));
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(script.resumed, script.wholes);
    close_server();
}

/* Keeps the loop in handler.whole until script.is_blocking is taken back. */
static void block_loop(int fd)
{
    pthread_mutex_lock(&script.mutex);
    script.is_blocking = true;
    pthread_mutex_unlock(&script.mutex);
    put_get(fd, "/block");
    for (bool blocked = false; !blocked;) {
        pthread_mutex_lock(&script.mutex);
        blocked = script.is_blocked;
        pthread_mutex_unlock(&script.mutex);
        poll(NULL, 0, 1);
    }
}

/* libmicrohttpd's own epoll threads hang here: 128 events fill its array. */
static void ready_together(unsigned count)
{
    int *fds = calloc(count, sizeof *fds);
    open_usual();
    for (unsigned i = 0; i < count; i++) {
        fds[i] = dial();
        assert_alive(fds[i]);
    }
    int blocker = dial();
    block_loop(blocker);
    for (unsigned i = 0; i < count; i++) {
        put_get(fds[i], "/echo");
    }
    pthread_mutex_lock(&script.mutex);
    script.is_blocking = false;
    changed();
    for (unsigned i = 0; i < count; i++) {
        assert_answer(fds[i], 200, "GET|/echo|/echo||");
        close(fds[i]);
    }
    close(blocker);
    free(fds);
    close_server();
}

static void sockets_that_are_ready_together_are_all_served(void **state)
{
    (void)state;
    ready_together(127);
    ready_together(128);
    ready_together(256);
}

/* --- connections --- */

static void connections_over_the_limit_wait_for_a_place(void **state)
{
    (void)state;
    struct http_server_options options = usual();
    options.max_connections = 3;
    options.threads = 2; /* the limit is of both together */
    open_with(options);
    int fds[4];
    for (unsigned i = 0; i < 3; i++) {
        fds[i] = dial();
        assert_alive(fds[i]);
    }
    fds[3] = dial(); /* by the kernel */
    put_get(fds[3], "/echo");
    assert_int_equal(poll(&(struct pollfd){.fd = fds[3], .events = POLLIN}, 1, 400), 0);
    close(fds[0]);
    assert_answer(fds[3], 200, "GET|/echo|/echo||");
    for (unsigned i = 1; i < 4; i++) {
        close(fds[i]);
    }
    close_server();
}

static void connections_over_the_limit_of_an_address_are_closed(void **state)
{
    (void)state;
    struct http_server_options options = usual();
    options.host = "::";
    options.max_connections_per_ip = 2;
    options.threads = 2;
    open_with(options);
    int a = dial(), b = dial();
    assert_alive(a);
    assert_alive(b);
    assert_end(dial());
    int other = dial_address("::1", http_server_port(server));
    assert_alive(other);
    close(a);
    for (int64_t end = clock_mono_ms() + PATIENCE_MS;;) { /* until the server has seen that */
        a = dial();
        put_get(a, "/echo");
        struct answer answer;
        if (get_answer(a, &answer)) {
            break;
        }
        close(a);
        assert_true(clock_mono_ms() < end);
    }
    close(a);
    close(b);
    close(other);
    close_server();
}

static void without_a_free_descriptor_connections_wait_and_the_loop_rests(void **state)
{
    (void)state;
    open_usual();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(http_server_port(server)), .sin_addr = {htonl(0x7f000001)}};
    struct rlimit before, none;
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = (rlim_t)fd + 1;
    struct rusage start, end;
    setrlimit(RLIMIT_NOFILE, &none);
    getrusage(RUSAGE_SELF, &start);
    int connected = connect(fd, (const struct sockaddr *)&address, sizeof address);
    int early = poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 600);
    getrusage(RUSAGE_SELF, &end);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(connected, 0);
    assert_int_equal(early, 0);
    int64_t cpu_us = (end.ru_utime.tv_sec - start.ru_utime.tv_sec + end.ru_stime.tv_sec - start.ru_stime.tv_sec) * 1000000 +
                     end.ru_utime.tv_usec - start.ru_utime.tv_usec + end.ru_stime.tv_usec - start.ru_stime.tv_usec;
    assert_true(cpu_us < 200000);
    assert_alive(fd);
    close(fd);
    close_server();
}

static void ipv6_and_ipv4_come_over_one_socket(void **state)
{
    (void)state;
    struct http_server_options options = usual();
    options.host = "::";
    open_with(options);
    int v6 = dial_address("::1", http_server_port(server));
    assert_alive(v6);
    assert_string_equal(script.last_peer, "::1");
    int v4 = dial();
    assert_alive(v4);
    assert_string_equal(script.last_peer, "127.0.0.1");
    close(v6);
    close(v4);
    close_server();
}

static void an_address_that_is_taken_is_named(void **state)
{
    (void)state;
    open_usual();
    struct http_server_options options = usual();
    struct error why;
    char expected[200];
    options.port = http_server_port(server);
    assert_int_equal(try_open(options, &why), ERR_IO);
    snprintf(expected, sizeof expected,
             "cannot listen on 127.0.0.1:%u: Address already in use (another program has it; choose another http.listen)",
             options.port);
    assert_string_equal(why.text, expected);
    options.host = "192.0.2.1";
    assert_int_equal(try_open(options, &why), ERR_CONFIG);
    assert_non_null(strstr(why.text, "192.0.2.1"));
    options.host = "localhost";
    assert_int_equal(try_open(options, &why), ERR_CONFIG);
    assert_non_null(strstr(why.text, "numeric address"));
    close_server();
}

static struct http_server_options on_unix_socket(void)
{
    struct http_server_options options = usual();
    options.is_unix = true;
    options.unix_path = socket_path;
    options.timeout_ms = SHORT_MS;
    return options;
}

static void a_malformed_request_is_refused_over_a_unix_socket_too(void **state)
{
    (void)state;
    open_with(on_unix_socket());
    int fd = dial_unix(socket_path);
    put(fd, HEAD "Content-Length: abc\r\n\r\n");
    assert_refused(fd, 400, in_headers);
    close_server();
}

static void a_unix_socket_is_served_and_its_file_looked_after(void **state)
{
    (void)state;
    struct error why;
    struct stat file;
    open_with(on_unix_socket());
    assert_int_equal(stat(socket_path, &file), 0);
    assert_int_equal(file.st_mode & 0777, 0660);
    assert_int_equal(http_server_port(server), 0);
    int fd = dial_unix(socket_path);
    assert_alive(fd);
    put_post(fd, "/park", "", "x");
    wait_parked(1);
    resume_all();
    assert_answer(fd, 200, "resumed x");
    assert_string_equal(script.last_peer, "unix");
    assert_int_equal(try_open(on_unix_socket(), &why), ERR_IO);
    assert_non_null(strstr(why.text, "Address already in use"));
    assert_alive(fd); /* and the file is still there */
    close(fd);
    fd = dial_unix(socket_path);
    put(fd, "GET /echo HTTP/1.1\r\n");
    assert_error(fd, 408, late);
    assert_end(fd);
    close_server();
    assert_int_equal(access(socket_path, F_OK), -1);
}

static void a_stale_unix_socket_is_replaced_and_other_files_are_not(void **state)
{
    (void)state;
    struct error why;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, socket_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    close(fd); /* its file stays */
    open_with(on_unix_socket());
    fd = dial_unix(socket_path);
    assert_alive(fd);
    close(fd);
    assert_int_equal(unlink(socket_path), 0);
    FILE *file = fopen(socket_path, "w"); /* somebody else's now */
    fclose(file);
    close_server();
    assert_int_equal(access(socket_path, F_OK), 0);
    assert_int_equal(try_open(on_unix_socket(), &why), ERR_CONFIG);
    assert_non_null(strstr(why.text, "is no socket"));
    assert_int_equal(unlink(socket_path), 0);
}

/* --- the end --- */

static void quiescing_answers_what_is_under_way_and_closes_what_idles(void **state)
{
    (void)state;
    struct http_server_options options = usual();
    options.threads = 2;
    open_with(options);
    uint16_t port = http_server_port(server);
    int parked = dial(), idle = dial(), fresh = dial(), half = dial();
    assert_alive(idle);
    put_post(parked, "/park", "", "x");
    put(half, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na");
    wait_for(&script.headers, 3);
    wait_parked(1);
    assert_false(http_server_drain(server, clock_mono_ms() + 20));
    http_server_quiesce(server);
    put_get(fresh, "/echo"); /* in the air */
    struct answer answer;
    assert_true(get_answer(fresh, &answer));
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.head, "Connection: close\r\n"));
    assert_end(fresh);
    assert_end(idle);
    int64_t end = clock_mono_ms() + PATIENCE_MS;
    for (int fd = 0; fd >= 0 && clock_mono_ms() < end;) {
        fd = dial_address("127.0.0.1", port);
        if (fd >= 0) {
            close(fd);
        }
    }
    assert_true(clock_mono_ms() < end); /* refused */
    assert_false(http_server_drain(server, clock_mono_ms() + 50));
    put(half, "b");
    assert_true(get_answer(half, &answer));
    assert_string_equal(answer.body, "POST|/echo|/echo||ab");
    assert_non_null(strstr(answer.head, "Connection: close\r\n"));
    assert_end(half);
    resume_all();
    assert_true(http_server_drain(server, clock_mono_ms() + PATIENCE_MS));
    assert_true(get_answer(parked, &answer));
    assert_string_equal(answer.body, "resumed x");
    assert_end(parked);
    assert_int_equal(script.finished, 4);
    close_server();
}

static void *unblock_later(void *argument)
{
    (void)argument;
    poll(NULL, 0, 100);
    pthread_mutex_lock(&script.mutex);
    script.is_blocking = false;
    changed();
    return NULL;
}

static void closing_answers_what_was_just_resumed(void **state)
{
    (void)state;
    pthread_t thread;
    open_usual();
    int fds[3], half = dial(), blocker = dial();
    put(half, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na");
    wait_for(&script.headers, 1);
    for (unsigned i = 0; i < 3; i++) {
        fds[i] = dial();
        put_post(fds[i], "/park", "", "x");
        wait_parked(i + 1);
    }
    block_loop(blocker); /* so that closing comes before the loop's next turn */
    resume_all();
    assert_int_equal(pthread_create(&thread, NULL, unblock_later, NULL), 0);
    http_server_close(&server); /* which finishes the other one too */
    pthread_join(thread, NULL);
    close_server();
    for (unsigned i = 0; i < 3; i++) {
        assert_answer(fds[i], 200, "resumed x");
        close(fds[i]);
    }
    close(half);
    close(blocker);
}

/* --- TLS --- */

__attribute__((format(printf, 1, 2))) static void run(const char *format, ...)
{
    char command[1000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    assert_int_equal(system(command), 0);
}

/* What a shell command prints. */
__attribute__((format(printf, 3, 4))) static void output_of(char *out, size_t size, const char *format, ...)
{
    char command[1000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t n = fread(out, 1, size - 1, pipe);
    out[n] = 0;
    pclose(pipe);
}

static struct http_server_options with_tls(void)
{
    struct http_server_options options = usual();
    options.tls_certificate_file = certificates[0];
    options.tls_key_file = keys[0];
    return options;
}

/* A TLS client, which is the openssl command between two pipes. */
struct tls_client {
    pid_t pid;
    int in, out;
};

static struct tls_client dial_tls(void)
{
    struct tls_client client;
    int to[2], from[2];
    char address[40];
    snprintf(address, sizeof address, "127.0.0.1:%u", http_server_port(server));
    assert_int_equal(pipe(to) | pipe(from), 0);
    client.pid = fork();
    if (client.pid == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[1]);
        close(from[0]);
        int quiet = open("/dev/null", O_WRONLY);
        dup2(quiet, 2);
        execlp("openssl", "openssl", "s_client", "-quiet", "-connect", address, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    client.in = to[1];
    client.out = from[0];
    return client;
}

static void put_to_tls(const void *client, const char *bytes, size_t size)
{
    assert_int_equal(write(((const struct tls_client *)client)->in, bytes, size), size);
}

static void tls_put(const struct tls_client *client, const char *text)
{
    put_to_tls(client, text, strlen(text));
}

/* Reads until expected stands at the end of what came. */
static void tls_expect(const struct tls_client *client, const char *expected)
{
    char text[4096];
    size_t n = 0;
    while (n < sizeof text - 1) {
        assert_int_equal(poll(&(struct pollfd){.fd = client->out, .events = POLLIN}, 1, PATIENCE_MS), 1);
        ssize_t got = read(client->out, text + n, 1);
        assert_true(got == 1);
        text[++n] = 0;
        if (n >= strlen(expected) && strcmp(text + n - strlen(expected), expected) == 0) {
            return;
        }
    }
    fail();
}

static void tls_close(struct tls_client *client)
{
    close(client->in);
    close(client->out);
    kill(client->pid, SIGTERM);
    waitpid(client->pid, NULL, 0);
}

static void assert_subject(const char *expected)
{
    char text[2000];
    output_of(text, sizeof text, "openssl s_client -connect 127.0.0.1:%u </dev/null 2>/dev/null | openssl x509 -noout -subject",
              http_server_port(server));
    assert_non_null(strstr(text, expected));
}

static void a_new_certificate_is_for_new_connections(void **state)
{
    (void)state;
    struct error why;
    open_with(with_tls());
    assert_subject("first.example");
    struct tls_client old = dial_tls();
    tls_put(&old, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    tls_expect(&old, "GET|/echo|/echo||");
    assert_int_equal(http_server_reload_tls(server, certificates[1], keys[1], &why), ERR_NONE);
    assert_subject("second.example");
    tls_put(&old, "POST /park HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
    wait_parked(1);
    resume_all();
    tls_expect(&old, "resumed x");
    assert_int_equal(http_server_reload_tls(server, certificates[0], keys[1], &why), ERR_CONFIG);
    assert_non_null(strstr(why.text, keys[1]));
    assert_non_null(strstr(why.text, "does not belong"));
    assert_subject("second.example");
    tls_close(&old);
    close_server();
}

static void tls_files_that_cannot_be_used_are_named(void **state)
{
    (void)state;
    struct http_server_options options = with_tls();
    struct error why;
    options.tls_key_file = keys[1];
    assert_int_equal(try_open(options, &why), ERR_CONFIG);
    assert_non_null(strstr(why.text, "does not belong to the certificate file"));
    options.tls_key_file = "/nowhere/key.pem";
    assert_int_equal(try_open(options, &why), ERR_CONFIG);
    assert_string_equal(why.text, "cannot read the key file /nowhere/key.pem: No such file or directory");
    options.tls_key_file = certificates[0];
    assert_int_equal(try_open(options, &why), ERR_CONFIG);
    assert_non_null(strstr(why.text, "one PEM key is expected"));
    options.tls_certificate_file = keys[0];
    assert_int_equal(try_open(options, &why), ERR_CONFIG);
    assert_non_null(strstr(why.text, keys[0]));
    assert_non_null(strstr(why.text, "PEM certificates are expected"));
}

static void old_protocol_versions_are_refused(void **state)
{
    (void)state;
    char text[4000];
    open_with(with_tls());
    static const char *const flags[] = {"-tls1_1", "-tls1_2", "-tls1_3"};
    for (size_t i = 0; i < 3; i++) {
        output_of(
            text, sizeof text,
            "openssl s_client %s -cipher DEFAULT@SECLEVEL=0 -connect 127.0.0.1:%u </dev/null 2>/dev/null | grep Cipher.is",
            flags[i], http_server_port(server));
        assert_int_equal(strstr(text, "(NONE)") == NULL, i > 0);
    }
    close_server();
}

static void deadlines_hold_under_tls(void **state)
{
    (void)state;
    struct http_server_options options = with_tls();
    options.timeout_ms = SHORT_MS;
    open_with(options);
    struct tls_client client = dial_tls();
    tls_put(&client, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    tls_expect(&client, "GET|/echo|/echo||");
    assert_int_equal(poll(&(struct pollfd){.fd = client.out, .events = POLLIN}, 1, 3 * SHORT_MS), 0);
    tls_put(&client, "GET /ec");
    tls_expect(&client, "{\"code\":408,\"message\":\"request was not whole in time\"}");
    tls_close(&client);
    int fd = dial(); /* no handshake at all */
    assert_end(fd);
    close_server();
}

static void a_malformed_request_is_refused_under_tls(void **state)
{
    (void)state;
    open_with(with_tls());
    struct tls_client client = dial_tls();
    tls_put(&client, HEAD "Content-Length: abc\r\n\r\n");
    tls_expect(&client,
               "{\"code\":400,\"message\":\"a header line has no colon, or Content-Length is not a number of bytes\"}");
    char more;
    assert_int_equal(poll(&(struct pollfd){.fd = client.out, .events = POLLIN}, 1, PATIENCE_MS), 1);
    assert_int_equal(read(client.out, &more, 1), 0);
    tls_close(&client);
    client = dial_tls();
    tls_put(&client, "POST /park HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    wait_parked(1);
    resume_all();
    tls_expect(&client, "resumed abc");
    tls_close(&client);
    close_server();
}

static void a_nul_in_a_head_is_refused_under_tls(void **state)
{
    (void)state;
    open_with(with_tls());
    resume_at_once();
    for (size_t i = 0; i < sizeof nul_heads / sizeof nul_heads[0]; i++) {
        char refused[200], more;
        snprintf(refused, sizeof refused, "{\"code\":400,\"message\":\"%s\"}", nul_refused);
        struct tls_client client = dial_tls();
        put_behind_nul_bodies(put_to_tls, &client, nul_heads[i], nul_steps[i % (sizeof nul_steps / sizeof nul_steps[0])]);
        tls_expect(&client, "POST|/echo|/echo||b");
        tls_expect(&client, "POST|/echo|/echo||b");
        tls_expect(&client, "GET|/echo|/echo||");
        tls_expect(&client, "no such path");
        tls_expect(&client, "resumed b");
        tls_expect(&client, refused);
        assert_int_equal(poll(&(struct pollfd){.fd = client.out, .events = POLLIN}, 1, PATIENCE_MS), 1);
        assert_int_equal(read(client.out, &more, 1), 0);
        tls_close(&client);
    }
    close_server();
}

static int make_files(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    make_folder(directory, sizeof directory);
    snprintf(socket_path, sizeof socket_path, "%s/http.sock", directory);
    static const char *const names[] = {"first", "second"};
    for (unsigned i = 0; i < 2; i++) {
        snprintf(certificates[i], sizeof certificates[i], "%s/%s.pem", directory, names[i]);
        snprintf(keys[i], sizeof keys[i], "%s/%s.key", directory, names[i]);
        run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=%s.example "
            "-keyout %s -out %s 2>/dev/null",
            names[i], keys[i], certificates[i]);
    }
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    run("rm -r %s", directory);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_seen_as_it_was_sent),
        cmocka_unit_test(answers_carry_their_headers),
        cmocka_unit_test(a_connection_serves_many_requests),
        cmocka_unit_test(a_loop_rests_when_nothing_is_at_hand_or_it_was_busy_for_long),
        cmocka_unit_test(a_chunked_body_is_put_together_and_ends_its_connection),
        cmocka_unit_test(a_client_that_leaves_a_parked_chunked_request_gives_it_back_once),
        cmocka_unit_test(a_client_that_waits_for_100_continue_gets_it_or_the_answer),
        cmocka_unit_test(an_answer_before_a_small_body_keeps_the_connection),
        cmocka_unit_test(an_early_answer_reaches_a_client_that_goes_on_sending),
        cmocka_unit_test(a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not),
        cmocka_unit_test(a_chunked_body_without_end_is_cut_off),
        cmocka_unit_test(what_two_parsers_could_read_differently_is_refused),
        cmocka_unit_test(a_nul_in_a_head_is_refused_and_in_a_body_is_none_of_the_heads),
        cmocka_unit_test(a_large_body_of_nuls_is_none_of_the_heads_around_it),
        cmocka_unit_test(a_head_is_the_same_request_however_it_arrives),
        cmocka_unit_test(a_head_of_any_size_is_answered),
        cmocka_unit_test(http_1_0_is_served_without_a_host),
        cmocka_unit_test(what_the_library_cannot_parse_is_refused_in_our_form),
        cmocka_unit_test(a_malformed_request_ends_its_connection_behind_good_ones),
        cmocka_unit_test(a_malformed_end_does_not_change_the_refusal_of_a_body_that_is_too_large),
        cmocka_unit_test(dripping_headers_end_with_408),
        cmocka_unit_test(the_time_of_a_request_runs_from_its_first_byte),
        cmocka_unit_test(a_dripping_body_ends_with_408),
        cmocka_unit_test(a_second_request_that_stalls_ends_with_408),
        cmocka_unit_test(a_connection_that_sends_nothing_is_closed_without_an_answer),
        cmocka_unit_test(a_connection_may_idle_between_requests),
        cmocka_unit_test(a_client_that_does_not_take_its_answer_is_closed),
        cmocka_unit_test(a_parked_request_is_answered_when_another_thread_resumes_it),
        cmocka_unit_test(a_request_may_be_resumed_from_within_its_loop),
        cmocka_unit_test(pipelined_requests_that_park_are_answered_in_order),
        cmocka_unit_test(a_client_that_leaves_while_parked_gives_the_request_back_once),
        cmocka_unit_test(a_client_that_half_closes_gets_its_answer),
        cmocka_unit_test(many_parked_requests_of_several_loops_are_resumed_at_once),
        cmocka_unit_test(requests_are_resumed_while_their_clients_come_and_go),
        cmocka_unit_test(sockets_that_are_ready_together_are_all_served),
        cmocka_unit_test(connections_over_the_limit_wait_for_a_place),
        cmocka_unit_test(connections_over_the_limit_of_an_address_are_closed),
        cmocka_unit_test(without_a_free_descriptor_connections_wait_and_the_loop_rests),
        cmocka_unit_test(ipv6_and_ipv4_come_over_one_socket),
        cmocka_unit_test(an_address_that_is_taken_is_named),
        cmocka_unit_test(a_malformed_request_is_refused_over_a_unix_socket_too),
        cmocka_unit_test(a_unix_socket_is_served_and_its_file_looked_after),
        cmocka_unit_test(a_stale_unix_socket_is_replaced_and_other_files_are_not),
        cmocka_unit_test(quiescing_answers_what_is_under_way_and_closes_what_idles),
        cmocka_unit_test(closing_answers_what_was_just_resumed),
        cmocka_unit_test(a_new_certificate_is_for_new_connections),
        cmocka_unit_test(tls_files_that_cannot_be_used_are_named),
        cmocka_unit_test(old_protocol_versions_are_refused),
        cmocka_unit_test(a_malformed_request_is_refused_under_tls),
        cmocka_unit_test(a_nul_in_a_head_is_refused_under_tls),
        cmocka_unit_test(deadlines_hold_under_tls),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
