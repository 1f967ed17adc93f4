/* Answers that go on: a real server, a handler that streams, and raw sockets. */
#include "test.h"

#include "meowbridge/clock.h"
#include "meowbridge/http_server.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000, MAX_QUEUED = 64 * 1024 };

static struct http_server *server;
static struct http_stream *_Atomic stream;
static atomic_uint finished;

static void ignore(void *ctx, struct http_request *request)
{
    (void)ctx, (void)request;
}

static void on_finished(void *ctx, struct http_request *request)
{
    (void)ctx, (void)request;
    atomic_fetch_add(&finished, 1);
}

static void on_resumed(void *ctx, struct http_request *request)
{
    (void)ctx;
    http_request_answer(request, &(struct http_answer){.status = 200, .body = SLICE("resumed")});
}

static void on_whole(void *ctx, struct http_request *request)
{
    (void)ctx;
    if (slice_equal(http_request_path(request), SLICE("/park"))) {
        http_request_park(request);
        http_requests_resume(&request, 1);
        return;
    }
    static const char *const headers[] = {"Cache-Control", "no-store", "X-More", "yes", NULL};
    const struct http_answer head = {.status = 200, .content_type = "text/event-stream", .headers = headers};
    struct http_stream *opened =
        slice_equal(http_request_path(request), SLICE("/stream")) ? http_request_stream(request, &head, MAX_QUEUED) : NULL;
    if (opened) {
        atomic_store(&stream, opened);
    } else {
        http_request_answer(request, &(struct http_answer){.status = 503, .body = SLICE("plain"), .headers = headers});
    }
}

static void error_body(void *ctx, unsigned status, const char *message, struct buf *out)
{
    (void)ctx;
    buf_appendf(out, "%u %s", status, message);
}

static void open_server(void)
{
    struct error why;
    const struct http_server_options options = {
        .name = "http",
        .host = "127.0.0.1",
        .threads = 1,
        .max_head = 8 << 10,
        .max_body = 1000,
        .timeout_ms = 400, /* a stream lives longer */
        .max_connections = 10,
        .handler =
            {.headers = ignore, .whole = on_whole, .resumed = on_resumed, .finished = on_finished, .error_body = error_body},
    };
    atomic_store(&stream, NULL);
    atomic_store(&finished, 0);
    assert_int_equal(http_server_open(&server, &options, &why), ERR_NONE);
}

static int ask(const char *method, const char *path)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(http_server_port(server))};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    char text[200];
    int size = snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, path);
    assert_int_equal(send(fd, text, (size_t)size, 0), size);
    return fd;
}

static struct http_stream *wait_stream(void)
{
    for (int64_t end = clock_mono_ms() + PATIENCE_MS; !atomic_load(&stream) && clock_mono_ms() < end;) {
        poll(NULL, 0, 1);
    }
    assert_non_null(atomic_load(&stream));
    return atomic_exchange(&stream, NULL);
}

static void wait_finished(unsigned count)
{
    for (int64_t end = clock_mono_ms() + PATIENCE_MS; atomic_load(&finished) < count && clock_mono_ms() < end;) {
        poll(NULL, 0, 1);
    }
    assert_int_equal(atomic_load(&finished), count);
}

/* Reads until text is there; false at the end of the connection. */
static bool read_until(int fd, char *all, size_t size, const char *text)
{
    size_t used = strlen(all);
    while (!strstr(all, text)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_true(poll(&p, 1, PATIENCE_MS) > 0);
        ssize_t got = recv(fd, all + used, size - used - 1, 0);
        if (got <= 0) {
            return false;
        }
        used += (size_t)got;
        all[used] = 0;
    }
    return true;
}

static void what_is_written_arrives_at_once_and_the_end_ends_the_answer(void **state)
{
    (void)state;
    open_server();
    int fd = ask("GET", "/stream");
    struct http_stream *mine = wait_stream();
    char all[4000] = "";
    assert_true(read_until(fd, all, sizeof all, "\r\n\r\n"));
    assert_non_null(strstr(all, "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(all, "Content-Type: text/event-stream\r\n"));
    assert_non_null(strstr(all, "Cache-Control: no-store\r\n"));
    assert_non_null(strstr(all, "X-More: yes\r\n"));
    for (int i = 0; i < 20; i++) {
        char text[32];
        snprintf(text, sizeof text, "data: number %d.\n\n", i);
        assert_true(http_stream_write(mine, slice_of(text)));
        assert_true(read_until(fd, all, sizeof all, text));
    }
    http_stream_close(&mine);
    assert_null(mine);
    assert_true(read_until(fd, all, sizeof all, "\r\n0\r\n\r\n"));
    wait_finished(1);
    assert_true(send(fd, "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n", 33, 0) > 0); /* the connection lives on */
    assert_true(read_until(fd, all, sizeof all, "plain"));
    close(fd);
    http_server_close(&server);
}

static void a_stream_outlives_the_timeout_of_a_request(void **state)
{
    (void)state;
    open_server();
    int fd = ask("GET", "/stream");
    struct http_stream *mine = wait_stream();
    for (int64_t end = clock_mono_ms() + 1000; clock_mono_ms() < end;) {
        poll(NULL, 0, 20);
    }
    char all[1000] = "";
    assert_true(http_stream_write(mine, SLICE("late")));
    assert_true(read_until(fd, all, sizeof all, "late"));
    http_stream_close(&mine);
    close(fd);
    http_server_close(&server);
}

static void a_client_that_leaves_is_noticed_without_a_write(void **state)
{
    (void)state;
    open_server();
    int fd = ask("GET", "/stream");
    struct http_stream *mine = wait_stream();
    char all[1000] = "";
    assert_true(read_until(fd, all, sizeof all, "\r\n\r\n"));
    close(fd);
    wait_finished(1);
    assert_false(http_stream_write(mine, SLICE("nobody reads this")));
    http_stream_close(&mine);
    http_server_close(&server);
}

/* So the loop has seen what other clients did before. */
static void let_the_loop_turn(void)
{
    char all[1000] = "";
    int fd = ask("GET", "/plain");
    assert_true(read_until(fd, all, sizeof all, "plain"));
    close(fd);
}

/* A stream that has nothing to send. It was asked for behind something that parks, in the same breath: libmicrohttpd does not wait
 * for the client in between. */
static struct http_stream *open_resting_stream(int *fd)
{
    static const char both[] = "GET /park HTTP/1.1\r\nHost: x\r\n\r\nGET /stream HTTP/1.1\r\nHost: x\r\n\r\n";
    char all[2000] = "";
    open_server();
    *fd = ask("GET", "/plain");
    assert_true(read_until(*fd, all, sizeof all, "plain"));
    assert_int_equal(send(*fd, both, sizeof both - 1, 0), sizeof both - 1);
    struct http_stream *mine = wait_stream();
    assert_true(read_until(*fd, all, sizeof all, "text/event-stream"));
    let_the_loop_turn();
    return mine;
}

static void what_a_client_sends_into_a_resting_stream_waits_for_its_end(void **state)
{
    (void)state;
    int fd;
    char all[2000] = "";
    struct http_stream *mine = open_resting_stream(&fd);
    assert_int_equal(send(fd, "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n", 33, 0), 33);
    let_the_loop_turn();
    assert_true(http_stream_write(mine, SLICE("written")));
    assert_true(read_until(fd, all, sizeof all, "written"));
    assert_null(strstr(all, "plain"));
    http_stream_close(&mine);
    assert_true(read_until(fd, all, sizeof all, "plain"));
    close(fd);
    http_server_close(&server);
}

static void a_client_that_breaks_a_resting_stream_off_is_noticed(void **state)
{
    (void)state;
    int fd;
    struct http_stream *mine = open_resting_stream(&fd);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
    close(fd); /* with a reset */
    let_the_loop_turn();
    wait_finished(5); /* "/plain" three times, "/park", and the stream */
    assert_false(http_stream_write(mine, SLICE("nobody reads this")));
    http_stream_close(&mine);
    http_server_close(&server);
}

static void a_slow_client_is_cut_off_and_never_waited_for(void **state)
{
    (void)state;
    open_server();
    int fd = ask("GET", "/stream"), other = ask("GET", "/plain");
    struct http_stream *mine = wait_stream();
    static char block[16 * 1024];
    memset(block, 'x', sizeof block);
    int64_t begun_ms = clock_mono_ms();
    unsigned written = 0;
    while (http_stream_write(mine, (struct slice){block, sizeof block})) {
        assert_true(++written < 10000); /* what the sockets hold, and the queue */
        assert_true(clock_mono_ms() - begun_ms < PATIENCE_MS);
    }
    wait_finished(2);
    assert_false(http_stream_write(mine, SLICE("x")));
    char all[1000] = "";
    assert_true(read_until(other, all, sizeof all, "plain"));
    http_stream_close(&mine);
    close(fd);
    close(other);
    http_server_close(&server);
}

static void head_gets_the_head_alone(void **state)
{
    (void)state;
    open_server();
    int fd = ask("HEAD", "/stream");
    struct http_stream *mine = wait_stream();
    char all[1000] = "";
    assert_true(read_until(fd, all, sizeof all, "\r\n\r\n"));
    wait_finished(1);
    assert_false(http_stream_write(mine, SLICE("x")));
    http_stream_close(&mine);
    close(fd);
    http_server_close(&server);
}

static void quiescing_ends_streams_so_that_the_server_drains(void **state)
{
    (void)state;
    open_server();
    int fd = ask("GET", "/stream");
    struct http_stream *mine = wait_stream();
    char all[1000] = "";
    assert_true(http_stream_write(mine, SLICE("last words")));
    http_server_quiesce(server);
    assert_true(http_server_drain(server, clock_mono_ms() + PATIENCE_MS));
    assert_true(read_until(fd, all, sizeof all, "last words"));
    assert_false(http_stream_write(mine, SLICE("x")));
    http_server_close(&server);
    http_stream_close(&mine); /* after the server */
    close(fd);
}

static void closing_the_server_cuts_streams_in_any_state(void **state)
{
    (void)state;
    open_server();
    static char block[60 * 1024];
    int fds[3];
    struct http_stream *streams[3];
    for (int i = 0; i < 3; i++) {
        fds[i] = ask("GET", "/stream");
        streams[i] = wait_stream();
    }
    assert_true(http_stream_write(streams[1], (struct slice){block, sizeof block}));
    http_stream_close(&streams[2]);
    http_server_close(&server);
    for (int i = 0; i < 3; i++) {
        http_stream_close(&streams[i]);
        close(fds[i]);
    }
    assert_int_equal(atomic_load(&finished), 3);
}

static void *write_on(void *arg)
{
    struct http_stream *mine = arg;
    while (http_stream_write(mine, SLICE("x"))) {
        poll(NULL, 0, 0);
    }
    http_stream_close(&mine);
    return NULL;
}

static void streams_are_written_while_their_clients_come_and_go(void **state)
{
    (void)state;
    open_server();
    enum { ROUNDS = 60 };
    pthread_t threads[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        char all[4000] = "";
        int fd = ask("GET", "/stream");
        assert_int_equal(pthread_create(&threads[i], NULL, write_on, wait_stream()), 0);
        assert_true(read_until(fd, all, sizeof all, "x"));
        close(fd);
    }
    for (int i = 0; i < ROUNDS; i++) {
        pthread_join(threads[i], NULL);
    }
    wait_finished(ROUNDS);
    http_server_close(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_arrives_at_once_and_the_end_ends_the_answer),
        cmocka_unit_test(a_stream_outlives_the_timeout_of_a_request),
        cmocka_unit_test(a_client_that_leaves_is_noticed_without_a_write),
        cmocka_unit_test(what_a_client_sends_into_a_resting_stream_waits_for_its_end),
        cmocka_unit_test(a_client_that_breaks_a_resting_stream_off_is_noticed),
        cmocka_unit_test(a_slow_client_is_cut_off_and_never_waited_for),
        cmocka_unit_test(head_gets_the_head_alone),
        cmocka_unit_test(quiescing_ends_streams_so_that_the_server_drains),
        cmocka_unit_test(closing_the_server_cuts_streams_in_any_state),
        cmocka_unit_test(streams_are_written_while_their_clients_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
