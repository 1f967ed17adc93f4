#include "test.h"

#include "meowbridge/clock.h"
#include "meowbridge/http_client.h"

#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { DEADLINE_MS = 10000 };

#define OK_ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

/* A server whose thread plays one script. */
struct server {
    int listener;
    char url[300];
    pthread_t thread;
    void (*script)(struct server *);
    SSL_CTX *tls;
    /* What the script saw; read after server_stop. */
    struct buf received;
    int connections, requests;
    bool joined;
    int done_fd;        /* the test writes to it when the script may go on */
    atomic_bool spoken; /* the script has said what the test waits for */
};

static void *server_thread(void *argument)
{
    struct server *s = argument;
    s->script(s);
    return NULL;
}

static struct server *server_start(int listener, const char *url, void (*script)(struct server *), SSL_CTX *tls)
{
    struct server *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->listener = listener;
    s->script = script;
    s->tls = tls;
    s->done_fd = eventfd(0, 0);
    snprintf(s->url, sizeof s->url, "%s", url);
    buf_init(&s->received, 16 << 20);
    assert_int_equal(listen(listener, 16), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, server_thread, s), 0);
    return s;
}

/* A socket bound to a free loopback port. */
static int bind_tcp(uint16_t *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static struct server *serve(void (*script)(struct server *))
{
    uint16_t port;
    int fd = bind_tcp(&port);
    char url[100];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/hook?q=1", port);
    return server_start(fd, url, script, NULL);
}

static void server_go_on(struct server *s)
{
    assert_int_equal(eventfd_write(s->done_fd, 1), 0);
}

static void wait_until_spoken(struct server *s)
{
    int64_t deadline_ms = clock_mono_ms() + DEADLINE_MS;
    while (!atomic_load(&s->spoken)) {
        assert_true(clock_mono_ms() < deadline_ms);
        usleep(1000);
    }
}

/* Waits until the script has ended by itself; its findings can be read then. */
static void server_join(struct server *s)
{
    pthread_join(s->thread, NULL);
    s->joined = true;
}

static void server_stop(struct server *s)
{
    server_go_on(s);
    if (!s->joined) {
        server_join(s);
    }
    close(s->listener);
    close(s->done_fd);
    buf_free(&s->received);
    free(s);
}

/* ---- names: this getaddrinfo stands before libc's ---- */

static sem_t slow_lookup;

static int real_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
    typedef int function(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    return ((function *)dlsym(RTLD_NEXT, "getaddrinfo"))(host, service, hints, list);
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
    const char *dot = strchr(host, '.');
    if (!dot || strcmp(dot, ".test") != 0) {
        return real_getaddrinfo(host, service, hints, list);
    }
    if (strcmp(host, "none.test") == 0 || (hints->ai_flags & AI_NUMERICHOST)) {
        return EAI_NONAME;
    }
    if (strcmp(host, "slow.test") == 0) {
        sem_wait(&slow_lookup);
    }
    /* two.test: nobody listens on the first address */
    int result = real_getaddrinfo("127.0.0.2", service, hints, list);
    return result ? result : real_getaddrinfo("127.0.0.1", service, hints, &(*list)->ai_next);
}

/* ---- what scripts are made of (they run in the server's thread, where no assert may be used) ---- */

static void wait_for_test(struct server *s)
{
    poll(&(struct pollfd){.fd = s->done_fd, .events = POLLIN}, 1, DEADLINE_MS);
}

static int accept_one(struct server *s)
{
    if (poll(&(struct pollfd){.fd = s->listener, .events = POLLIN}, 1, DEADLINE_MS) != 1) {
        return -1;
    }
    s->connections++;
    return accept(s->listener, NULL, NULL);
}

/* Reads up to the blank line and Content-Length bytes more. */
static bool read_request(struct server *s, int fd)
{
    size_t from = s->received.size, need = SIZE_MAX;
    while (s->received.size - from < need) {
        char *place = buf_reserve(&s->received, 4096);
        ssize_t got = place ? recv(fd, place, 4096, 0) : 0;
        if (got <= 0) {
            return false;
        }
        s->received.size += (size_t)got;
        s->received.data[s->received.size] = 0;
        const char *start = s->received.data + from, *end = need == SIZE_MAX ? strstr(start, "\r\n\r\n") : NULL;
        if (end) {
            const char *length = strcasestr(start, "Content-Length: ");
            need = (size_t)(end + 4 - start) + (length && length < end ? strtoul(length + 16, NULL, 10) : 0);
        }
    }
    s->requests++;
    return true;
}

static void say(int fd, const char *text)
{
    send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* ---- the client's side ---- */

static struct http_client *client_of(const char *url_text, bool insecure)
{
    struct http_url url;
    struct http_client *client;
    struct error why;
    assert_int_equal(http_url_parse(slice_of(url_text), &url, &why), ERR_NONE);
    assert_int_equal(http_client_open(&client, &url, insecure, &why), ERR_NONE);
    return client;
}

static enum err post(struct http_client *client, const char *body, int64_t timeout_ms, struct http_reply *reply,
                     struct error *why)
{
    why->text[0] = 0;
    return http_client_request(client, "POST", (struct slice){0}, SLICE("X-A: b\r\n"), slice_of(body), timeout_ms, reply, why);
}

/* One POST by a new client, which must be answered. */
static void expect_answer(const char *url, unsigned status, const char *body)
{
    struct http_client *client = client_of(url, false);
    struct http_reply reply;
    struct error why;
    if (post(client, "{}", DEADLINE_MS, &reply, &why)) {
        fail_msg("%s", why.text);
    }
    assert_int_equal(reply.status, status);
    assert_slice(reply.body, body);
    http_client_close(&client);
    assert_null(client);
}

static void expect_error(const char *url, enum err err, const char *text)
{
    struct http_client *client = client_of(url, false);
    struct http_reply reply;
    struct error why;
    assert_int_equal(post(client, "{}", DEADLINE_MS, &reply, &why), err);
    assert_string_equal(why.text, text);
    http_client_close(&client);
}

/* ---- URLs ---- */

static void a_url_is_taken_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool tls, is_unix;
        const char *host, *authority, *target;
        unsigned port;
    } cases[] = {
        {"http://example.com", false, false, "example.com", "example.com", "/", 80},
        {"HTTPS://Example.com/a%20b/?x=y#part", true, false, "Example.com", "Example.com", "/a%20b/?x=y", 443},
        {"http://127.0.0.1:8080/webhook", false, false, "127.0.0.1", "127.0.0.1:8080", "/webhook", 8080},
        {"http://h:80?q", false, false, "h", "h:80", "/?q", 80},
        {"http://[::1]", false, false, "::1", "[::1]", "/", 80},
        {"https://[2001:db8::7]:8443/x", true, false, "2001:db8::7", "[2001:db8::7]:8443", "/x", 8443},
        {"http+unix://%2Frun%2fx.sock/path", false, true, "/run/x.sock", "localhost", "/path", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_url url;
        struct error why = {0};
        if (http_url_parse(slice_of(cases[i].text), &url, &why)) {
            fail_msg("%s: %s", cases[i].text, why.text);
        }
        assert_int_equal(url.tls, cases[i].tls);
        assert_int_equal(url.is_unix, cases[i].is_unix);
        assert_string_equal(url.host, cases[i].host);
        assert_string_equal(url.authority, cases[i].authority);
        assert_string_equal(url.target, cases[i].target);
        assert_int_equal(url.port, cases[i].port);
    }
}

static void a_wrong_url_is_refused_with_what_was_expected(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "a URL begins with http://, https:// or http+unix://"},
        {"example.com/x", "a URL begins with http://, https:// or http+unix://"},
        {"ftp://h/", "a URL begins with http://, https:// or http+unix://"},
        {"http://", "the URL names no host"},
        {"http:///x", "the URL names no host"},
        {"http://:80/", "the host in a URL has 1 to 255 characters"},
        {"http://a b/", "the host in a URL has letters, digits, '-', '.' and '_' only"},
        {"http://h%41/", "the host in a URL has letters, digits, '-', '.' and '_' only"},
        {"http://me:secret@h/", "a user name in a URL is not supported"},
        {"http://h:/", "the port in a URL is a number from 1 to 65535"},
        {"http://h:0/", "the port in a URL is a number from 1 to 65535"},
        {"http://h:65536/", "the port in a URL is a number from 1 to 65535"},
        {"http://h:8o/", "the port in a URL is a number from 1 to 65535"},
        {"http://[::1/", "an IPv6 address in a URL stands in brackets, as in http://[::1]:8080/"},
        {"http://[127.0.0.1]/", "an IPv6 address in a URL stands in brackets, as in http://[::1]:8080/"},
        {"http://[::1]8080/", "an IPv6 address in a URL stands in brackets, as in http://[::1]:8080/"},
        {"http://[::1]:/", "the port in a URL is a number from 1 to 65535"},
        {"http://h/a b", "spaces, control characters and what is not ASCII are percent-encoded in a URL"},
        {"http://h/a\r\nX: y", "spaces, control characters and what is not ASCII are percent-encoded in a URL"},
        {"http://h/\xc3\xa4", "spaces, control characters and what is not ASCII are percent-encoded in a URL"},
        {"http+unix:///x", "the URL names no Unix socket, as http+unix://%2Frun%2Fx.sock/ does"},
        {"http+unix://%2/x", "a % in a URL is followed by two hexadecimal digits"},
        {"http+unix://a%00b/x", "the path of a Unix socket has 1 to 107 bytes and no NUL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_url url;
        struct error why = {0};
        assert_int_equal(http_url_parse(slice_of(cases[i].text), &url, &why), ERR_INVALID);
        assert_string_equal(why.text, cases[i].why);
    }
    char text[2100] = "http://h/";
    memset(text + strlen(text), 'x', 2047 - 1);
    struct http_url url;
    struct error why;
    assert_int_equal(http_url_parse(slice_of(text), &url, &why), ERR_NONE);
    strcat(text, "x");
    assert_int_equal(http_url_parse(slice_of(text), &url, &why), ERR_INVALID);
    assert_string_equal(why.text, "path and query of a URL have at most 2047 bytes");
    memset(text + 7, 'h', 256);
    assert_int_equal(http_url_parse(slice_of(text), &url, &why), ERR_INVALID);
    assert_string_equal(why.text, "the host in a URL has 1 to 255 characters");
}

/* ---- requests ---- */

static void answer_until_closed(struct server *s)
{
    int fd = accept_one(s);
    while (read_request(s, fd)) {
        say(fd, OK_ANSWER);
    }
    close(fd);
}

static void requests_go_out_as_written_over_one_kept_connection(void **state)
{
    (void)state;
    struct server *s = serve(answer_until_closed);
    struct http_client *client = client_of(s->url, false);
    struct http_reply reply;
    struct error why;
    assert_int_equal(post(client, "{}", DEADLINE_MS, &reply, &why), ERR_NONE);
    assert_int_equal(
        http_client_request(client, "GET", SLICE("/livez"), (struct slice){0}, (struct slice){0}, DEADLINE_MS, &reply, &why),
        ERR_NONE);
    assert_int_equal(reply.status, 200);
    assert_slice(reply.body, "ok");
    http_client_close(&client);
    server_join(s);
    assert_int_equal(s->connections, 1);
    char expected[1000];
    struct http_url url;
    assert_int_equal(http_url_parse(slice_of(s->url), &url, &why), ERR_NONE);
    snprintf(expected, sizeof expected,
             "POST /hook?q=1 HTTP/1.1\r\nHost: %s\r\nX-A: b\r\nContent-Length: 2\r\n\r\n{}"
             "GET /livez HTTP/1.1\r\nHost: %s\r\n\r\n",
             url.authority, url.authority);
    assert_slice(buf_slice(&s->received), expected);
    server_stop(s);
}

static void answer_byte_by_byte(struct server *s)
{
    int fd = accept_one(s);
    setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &(int){1}, sizeof(int));
    read_request(s, fd);
    const char *text =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    for (; *text; text++) {
        send(fd, text, 1, MSG_NOSIGNAL);
        sched_yield();
    }
    close(fd);
}

static void an_answer_may_come_byte_by_byte(void **state)
{
    (void)state;
    struct server *s = serve(answer_byte_by_byte);
    expect_answer(s->url, 200, "abcde");
    server_stop(s);
}

static void answer_and_close_kept_connections(struct server *s)
{
    for (int i = 0; i < 2; i++) {
        int fd = accept_one(s);
        if (read_request(s, fd)) {
            say(fd, OK_ANSWER);
        }
        close(fd);
    }
}

static void a_kept_connection_that_the_server_closed_is_opened_anew_once(void **state)
{
    (void)state;
    struct server *s = serve(answer_and_close_kept_connections);
    struct http_client *client = client_of(s->url, false);
    struct http_reply reply;
    struct error why;
    assert_int_equal(post(client, "1", DEADLINE_MS, &reply, &why), ERR_NONE);
    assert_int_equal(post(client, "2", DEADLINE_MS, &reply, &why), ERR_NONE);
    server_join(s); /* the second connection is closed too, and nobody listens for a third */
    shutdown(s->listener, SHUT_RDWR);
    assert_int_equal(post(client, "3", DEADLINE_MS, &reply, &why), ERR_IO);
    assert_non_null(strstr(why.text, "cannot connect to 127.0.0.1:"));
    assert_int_equal(s->connections, 2);
    assert_int_equal(s->requests, 2);
    http_client_close(&client);
    server_stop(s);
}

/* Closes a kept connection so that the client's next write is a broken pipe: an end, then a reset. */
static void break_pipe(struct server *s, int fd)
{
    shutdown(fd, SHUT_WR);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
    close(fd);
    atomic_store(&s->spoken, true);
}

static void answer_and_break(struct server *s)
{
    int fd = accept_one(s);
    read_request(s, fd);
    say(fd, OK_ANSWER);
    break_pipe(s, fd);
    fd = accept_one(s);
    read_request(s, fd);
    say(fd, OK_ANSWER);
    close(fd);
}

/* Two requests, the second of which meets a broken pipe; SIGPIPE would end the test. */
static void post_into_a_broken_pipe(struct server *s)
{
    struct http_client *client = client_of(s->url, true);
    struct http_reply reply;
    struct error why;
    signal(SIGPIPE, SIG_DFL);
    assert_int_equal(post(client, "1", DEADLINE_MS, &reply, &why), ERR_NONE);
    wait_until_spoken(s);
    if (post(client, "2", DEADLINE_MS, &reply, &why)) {
        fail_msg("%s", why.text);
    }
    assert_int_equal(reply.status, 200);
    http_client_close(&client);
}

static void a_broken_pipe_is_no_signal(void **state)
{
    (void)state;
    struct server *s = serve(answer_and_break);
    post_into_a_broken_pipe(s);
    server_stop(s);
}

static void close_the_first_request(struct server *s)
{
    int fd = accept_one(s);
    read_request(s, fd);
    close(fd);
}

static void a_new_connection_that_is_closed_without_an_answer_is_not_tried_again(void **state)
{
    (void)state;
    struct server *s = serve(close_the_first_request);
    expect_error(s->url, ERR_CLOSED, "the server closed the connection without an answer");
    server_join(s);
    assert_int_equal(s->connections, 1);
    server_stop(s);
}

static void answer_half_of_the_second(struct server *s)
{
    int fd = accept_one(s);
    read_request(s, fd);
    say(fd, OK_ANSWER);
    read_request(s, fd);
    say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    close(fd);
}

static void a_half_answer_on_a_kept_connection_is_an_error_and_the_request_is_not_repeated(void **state)
{
    (void)state;
    struct server *s = serve(answer_half_of_the_second);
    struct http_client *client = client_of(s->url, false);
    struct http_reply reply;
    struct error why;
    assert_int_equal(post(client, "1", DEADLINE_MS, &reply, &why), ERR_NONE);
    assert_int_equal(post(client, "2", DEADLINE_MS, &reply, &why), ERR_CLOSED);
    assert_string_equal(why.text, "the server closed the connection in the middle of its answer");
    http_client_close(&client);
    server_stop(s);
}

static void speak_unasked_while_idle(struct server *s)
{
    int fd = accept_one(s);
    read_request(s, fd);
    say(fd, OK_ANSWER);
    wait_for_test(s);
    say(fd, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    close(fd);
    atomic_store(&s->spoken, true);
    fd = accept_one(s);
    read_request(s, fd);
    say(fd, OK_ANSWER);
    close(fd);
}

static void what_a_server_says_unasked_is_not_taken_for_the_next_answer(void **state)
{
    (void)state;
    struct server *s = serve(speak_unasked_while_idle);
    struct http_client *client = client_of(s->url, false);
    struct http_reply reply;
    struct error why;
    assert_int_equal(post(client, "1", DEADLINE_MS, &reply, &why), ERR_NONE);
    usleep(150 * 1000); /* idle: the matter of this test */
    server_go_on(s);
    wait_until_spoken(s);
    assert_int_equal(post(client, "2", DEADLINE_MS, &reply, &why), ERR_NONE);
    assert_int_equal(reply.status, 200);
    http_client_close(&client);
    server_stop(s);
}

static void answer_two_at_once(struct server *s)
{
    int fd = accept_one(s);
    read_request(s, fd);
    say(fd, OK_ANSWER "HTTP/1.1 500 Stray\r\nContent-Length: 0\r\n\r\n");
    int next = accept_one(s);
    read_request(s, next);
    say(next, OK_ANSWER);
    close(fd);
    close(next);
}

static void a_connection_that_answers_more_than_was_asked_is_not_kept(void **state)
{
    (void)state;
    struct server *s = serve(answer_two_at_once);
    struct http_client *client = client_of(s->url, false);
    struct http_reply reply;
    struct error why;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(post(client, "x", DEADLINE_MS, &reply, &why), ERR_NONE);
        assert_int_equal(reply.status, 200);
    }
    http_client_close(&client);
    server_stop(s);
}

static void answer_413_at_once(struct server *s)
{
    int fd = accept_one(s);
    say(fd, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
    close(fd); /* with the request unread: a reset follows the answer */
}

static void answer_413_and_read_nothing(struct server *s)
{
    int fd = accept_one(s);
    say(fd, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
    wait_for_test(s);
    close(fd);
}

/* 8 MiB: more than the socket buffers take. */
static void post_much(const char *url)
{
    size_t size = 8 << 20;
    char *body = malloc(size);
    assert_non_null(body);
    memset(body, 'x', size);
    struct http_client *client = client_of(url, true);
    struct http_reply reply;
    struct error why = {0};
    enum err err = http_client_request(client, "POST", (struct slice){0}, (struct slice){0}, (struct slice){body, size},
                                       DEADLINE_MS, &reply, &why);
    assert_string_equal(why.text, "");
    assert_int_equal(err, ERR_NONE);
    assert_int_equal(reply.status, 413);
    assert_slice(reply.body, "big");
    http_client_close(&client);
    free(body);
}

static void an_early_answer_is_read_although_the_request_cannot_be_sent(void **state)
{
    (void)state;
    struct server *s = serve(answer_413_and_read_nothing);
    post_much(s->url);
    server_stop(s);
    s = serve(answer_413_at_once);
    post_much(s->url);
    server_stop(s);
}

static void take_all_and_answer(struct server *s)
{
    int fd = accept_one(s);
    read_request(s, fd);
    say(fd, OK_ANSWER);
    wait_for_test(s);
    close(fd);
}

static void a_large_body_arrives_whole(void **state)
{
    (void)state;
    struct server *s = serve(take_all_and_answer);
    size_t size = 12 << 20; /* more than one write takes */
    char *body = malloc(size);
    assert_non_null(body);
    for (size_t i = 0; i < size; i++) {
        body[i] = (char)('a' + i % 23);
    }
    struct http_client *client = client_of(s->url, false);
    struct http_reply reply;
    struct error why;
    assert_int_equal(http_client_request(client, "POST", (struct slice){0}, (struct slice){0}, (struct slice){body, size},
                                         DEADLINE_MS, &reply, &why),
                     ERR_NONE);
    assert_int_equal(reply.status, 200);
    server_go_on(s);
    server_join(s);
    assert_memory_equal(s->received.data + s->received.size - size, body, size); /* the answer came after all was read */
    http_client_close(&client);
    free(body);
    server_stop(s);
}

static void flood(struct server *s)
{
    static const char block[64 * 1024];
    int fd = accept_one(s);
    read_request(s, fd);
    say(fd, "HTTP/1.1 200 OK\r\n\r\n");
    while (send(fd, block, sizeof block, MSG_NOSIGNAL) > 0) {
    }
    close(fd);
}

static void an_endless_answer_is_cut_at_1_mib(void **state)
{
    (void)state;
    struct server *s = serve(flood);
    struct http_client *client = client_of(s->url, false);
    struct http_reply reply;
    struct error why;
    assert_int_equal(post(client, "x", DEADLINE_MS, &reply, &why), ERR_NONE);
    assert_int_equal(reply.body.size, 1024 * 1024);
    http_client_close(&client);
    server_stop(s);
}

static void say_garbage(struct server *s)
{
    int fd = accept_one(s);
    read_request(s, fd);
    say(fd, "SSH-2.0-OpenSSH_9.2\r\n");
    wait_for_test(s);
    close(fd);
}

static void what_is_not_http_is_refused_at_once(void **state)
{
    (void)state;
    struct server *s = serve(say_garbage);
    expect_error(s->url, ERR_INVALID, "the answer is not HTTP/1.1");
    server_stop(s);
}

static void say_nothing(struct server *s)
{
    int fd = accept_one(s);
    wait_for_test(s);
    close(fd);
}

static void drip(struct server *s)
{
    int fd = accept_one(s);
    struct pollfd done = {.fd = s->done_fd, .events = POLLIN};
    say(fd, "HTTP/1.1 200 OK\r\nX: ");
    while (poll(&done, 1, 20) == 0) {
        say(fd, "x");
    }
    close(fd);
}

static void a_call_ends_at_its_deadline_even_if_the_answer_drips(void **state)
{
    (void)state;
    void (*const scripts[])(struct server *) = {say_nothing, drip};
    for (int i = 0; i < 2; i++) {
        struct server *s = serve(scripts[i]);
        struct http_client *client = client_of(s->url, false);
        struct http_reply reply;
        struct error why;
        int64_t start_ms = clock_mono_ms();
        assert_int_equal(post(client, "{}", 200, &reply, &why), ERR_TIMEOUT);
        int64_t took_ms = clock_mono_ms() - start_ms;
        assert_true(took_ms >= 200 && took_ms < 2000);
        assert_non_null(strstr(why.text, " did not answer in time"));
        http_client_close(&client);
        server_stop(s);
    }
}

static void a_server_that_accepts_nothing_runs_into_the_deadline(void **state)
{
    (void)state;
    uint16_t port;
    int listener = bind_tcp(&port), filler[8];
    assert_int_equal(listen(listener, 0), 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    for (int i = 0; i < 8; i++) { /* a full backlog swallows what else comes */
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(filler[i], (struct sockaddr *)&address, sizeof address);
    }
    char url[100], expected[100];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/", port);
    snprintf(expected, sizeof expected, "connecting to 127.0.0.1:%u took too long", port);
    struct http_client *client = client_of(url, false);
    struct http_reply reply;
    struct error why;
    assert_int_equal(post(client, "{}", 200, &reply, &why), ERR_TIMEOUT);
    assert_string_equal(why.text, expected);
    http_client_close(&client);
    for (int i = 0; i < 8; i++) {
        close(filler[i]);
    }
    close(listener);
}

static void *cancel_later(void *fd)
{
    usleep(50 * 1000);
    eventfd_write(*(int *)fd, 1);
    return NULL;
}

static void a_call_ends_when_it_is_cancelled(void **state)
{
    (void)state;
    struct server *s = serve(say_nothing);
    struct http_client *client = client_of(s->url, false);
    int fd = eventfd(0, 0);
    pthread_t thread;
    struct http_reply reply;
    struct error why;
    http_client_set_cancel(client, fd);
    assert_int_equal(pthread_create(&thread, NULL, cancel_later, &fd), 0);
    int64_t start_ms = clock_mono_ms();
    assert_int_equal(post(client, "{}", DEADLINE_MS, &reply, &why), ERR_CLOSED);
    assert_string_equal(why.text, "cancelled");
    assert_true(clock_mono_ms() - start_ms < DEADLINE_MS / 2);
    pthread_join(thread, NULL);
    http_client_close(&client);
    close(fd);
    server_stop(s);
}

static void a_name_is_looked_up_and_every_address_tried(void **state)
{
    (void)state;
    const char *hosts[] = {"localhost", "two.test"};
    for (int i = 0; i < 2; i++) {
        char url[100];
        struct server *s = serve(answer_until_closed);
        snprintf(url, sizeof url, "http://%s%s", hosts[i], strrchr(s->url, ':'));
        expect_answer(url, 200, "ok");
        server_stop(s);
    }
    expect_error("http://two.test:1/", ERR_IO, "cannot connect to 127.0.0.1:1: Connection refused");
    expect_error("http://none.test/", ERR_IO, "cannot resolve none.test: Name or service not known");
}

static void looking_up_a_name_counts_against_the_deadline(void **state)
{
    (void)state;
    struct http_client *client = client_of("http://slow.test:1/", false);
    struct http_reply reply;
    struct error why;
    sem_init(&slow_lookup, 0, 0);
    assert_int_equal(post(client, "{}", 100, &reply, &why), ERR_TIMEOUT);
    assert_string_equal(why.text, "resolving slow.test took too long");
    sem_post(&slow_lookup);
    http_client_close(&client);
}

static void a_unix_socket_is_spoken_to_alike(void **state)
{
    (void)state;
    char directory[64], url[200];
    make_folder(directory, sizeof directory);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/s", directory);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    snprintf(url, sizeof url, "http+unix://%%2Ftmp%%2F%s%%2Fs/livez", strrchr(directory, '/') + 1);
    struct server *s = server_start(fd, url, take_all_and_answer, NULL);
    expect_answer(url, 200, "ok");
    server_go_on(s);
    server_join(s);
    assert_non_null(strstr(s->received.data, "POST /livez HTTP/1.1\r\nHost: localhost\r\n"));
    server_stop(s);
    unlink(address.sun_path);

    char expected[200];
    snprintf(expected, sizeof expected, "cannot connect to %s: No such file or directory", address.sun_path);
    expect_error(url, ERR_IO, expected);
    rmdir(directory);
}

/* ---- TLS ---- */

/* A self-signed certificate for this name ("DNS:…"), as a PEM file and as the server's context. */
static SSL_CTX *make_tls_server(const char *pem_path, const char *subject)
{
    EVP_PKEY *key = EVP_RSA_gen(2048);
    X509 *certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_EXTENSION *alternative = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, subject);
    X509_add_ext(certificate, alternative, -1);
    X509_EXTENSION_free(alternative);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    FILE *file = fopen(pem_path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, certificate), 1);
    fclose(file);
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(context, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, key), 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return context;
}

/* Answers twice on each of two connections, the second time with the name that the client asked for. */
static void answer_over_tls(struct server *s)
{
    char text[300], request[4096];
    int fd = accept_one(s);
    SSL *tls = SSL_new(s->tls);
    SSL_set_fd(tls, fd);
    if (SSL_accept(tls) == 1) {
        for (int i = 0; i < 2 && SSL_read(tls, request, sizeof request) > 0; i++) {
            const char *name = SSL_get_servername(tls, TLSEXT_NAMETYPE_host_name);
            name = name ? name : "(none)";
            snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(name), name);
            SSL_write(tls, text, (int)strlen(text));
        }
        SSL_shutdown(tls);
    }
    SSL_free(tls);
    close(fd);
}

/* Answers before the request's body has come, and closes. */
static void answer_413_over_tls(struct server *s)
{
    const char text[] = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
    int fd = accept_one(s);
    SSL *tls = SSL_new(s->tls);
    SSL_set_fd(tls, fd);
    if (SSL_accept(tls) == 1) {
        SSL_write(tls, text, sizeof text - 1);
    }
    wait_for_test(s);
    SSL_free(tls);
    close(fd);
}

static void break_over_tls(struct server *s)
{
    char request[4096];
    for (int i = 0; i < 2; i++) {
        int fd = accept_one(s);
        SSL *tls = SSL_new(s->tls);
        SSL_set_fd(tls, fd);
        if (SSL_accept(tls) == 1 && SSL_read(tls, request, sizeof request) > 0) {
            SSL_write(tls, OK_ANSWER, sizeof OK_ANSWER - 1);
        }
        SSL_free(tls);
        if (i == 0) {
            break_pipe(s, fd);
        } else {
            wait_for_test(s);
            close(fd);
        }
    }
}

static struct server *serve_tls(SSL_CTX *context, const char *host, void (*script)(struct server *))
{
    uint16_t port;
    int fd = bind_tcp(&port);
    char url[100];
    snprintf(url, sizeof url, "https://%s:%u/hook", host, port);
    return server_start(fd, url, script, context);
}

static void tls_is_spoken_to_whoever_proves_the_name(void **state)
{
    (void)state;
    char directory[64], pem[100];
    make_folder(directory, sizeof directory);
    snprintf(pem, sizeof pem, "%s/ca.pem", directory);
    SSL_CTX *context = make_tls_server(pem, "DNS:localhost");

    /* A certificate that nobody vouches for. */
    unsetenv("SSL_CERT_FILE");
    struct server *s = serve_tls(context, "localhost", answer_over_tls);
    expect_error(s->url, ERR_LIBRARY, "the certificate of localhost does not verify: self-signed certificate");
    server_stop(s);

    setenv("SSL_CERT_FILE", pem, 1);
    s = serve_tls(context, "localhost", answer_over_tls);
    struct http_client *client = client_of(s->url, false);
    struct http_reply reply;
    struct error why;
    for (int i = 0; i < 2; i++) {
        if (post(client, "{}", DEADLINE_MS, &reply, &why)) {
            fail_msg("%s", why.text);
        }
        assert_slice(reply.body, "localhost"); /* SNI */
    }
    http_client_close(&client);
    server_join(s);
    assert_int_equal(s->connections, 1);
    server_stop(s);

    /* Vouched for, but for another name. */
    s = serve_tls(context, "127.0.0.1", answer_over_tls);
    expect_error(s->url, ERR_LIBRARY, "the certificate of 127.0.0.1 does not verify: IP address mismatch");
    server_stop(s);

    s = serve_tls(context, "127.0.0.1", answer_over_tls);
    client = client_of(s->url, true);
    assert_int_equal(post(client, "{}", DEADLINE_MS, &reply, &why), ERR_NONE);
    assert_slice(reply.body, "(none)"); /* an address is no server name */
    http_client_close(&client);
    server_stop(s);

    s = serve_tls(context, "127.0.0.1", answer_413_over_tls);
    post_much(s->url);
    server_stop(s);

    s = serve_tls(context, "127.0.0.1", break_over_tls);
    post_into_a_broken_pipe(s);
    server_stop(s);
    SSL_CTX_free(context);

    context = make_tls_server(pem, "DNS:elsewhere.test");
    s = serve_tls(context, "localhost", answer_over_tls);
    expect_error(s->url, ERR_LIBRARY, "the certificate of localhost does not verify: hostname mismatch");
    server_stop(s);

    unsetenv("SSL_CERT_FILE");
    SSL_CTX_free(context);
    unlink(pem);
    rmdir(directory);
}

static void refuse_at_once(struct server *s)
{
    int fd = accept_one(s);
    say(fd, "HTTP/1.1 400 Bad Request\r\n\r\n");
    wait_for_test(s);
    close(fd);
}

static void plain_http_is_not_tls(void **state)
{
    (void)state;
    struct server *s = serve(refuse_at_once);
    char url[100];
    snprintf(url, sizeof url, "https%s", strchr(s->url, ':'));
    struct http_client *client = client_of(url, true);
    struct http_reply reply;
    struct error why;
    assert_int_equal(post(client, "{}", DEADLINE_MS, &reply, &why), ERR_LIBRARY);
    assert_string_equal(why.text, "TLS error while shaking hands: wrong version number");
    http_client_close(&client);
    server_stop(s);
}

static void half_over_tls(struct server *s)
{
    const char text[] = "HTTP/1.1 200 OK\r\n\r\nhalf of it";
    char request[4096];
    int fd = accept_one(s);
    SSL *tls = SSL_new(s->tls);
    SSL_set_fd(tls, fd);
    if (SSL_accept(tls) == 1 && SSL_read(tls, request, sizeof request) > 0) {
        SSL_write(tls, text, sizeof text - 1);
    }
    SSL_free(tls);
    close(fd); /* no close_notify: who cut the connection here? */
}

static void an_answer_that_ends_with_the_connection_must_end_tls_too(void **state)
{
    (void)state;
    char directory[64], pem[100];
    make_folder(directory, sizeof directory);
    snprintf(pem, sizeof pem, "%s/ca.pem", directory);
    SSL_CTX *context = make_tls_server(pem, "DNS:localhost");
    struct server *s = serve_tls(context, "127.0.0.1", half_over_tls);
    struct http_client *client = client_of(s->url, true);
    struct http_reply reply;
    struct error why;
    assert_int_equal(post(client, "{}", DEADLINE_MS, &reply, &why), ERR_CLOSED);
    assert_string_equal(why.text, "the server closed the connection without ending TLS");
    http_client_close(&client);
    server_stop(s);
    SSL_CTX_free(context);
    unlink(pem);
    rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_url_is_taken_apart),
        cmocka_unit_test(a_wrong_url_is_refused_with_what_was_expected),
        cmocka_unit_test(requests_go_out_as_written_over_one_kept_connection),
        cmocka_unit_test(an_answer_may_come_byte_by_byte),
        cmocka_unit_test(a_kept_connection_that_the_server_closed_is_opened_anew_once),
        cmocka_unit_test(a_broken_pipe_is_no_signal),
        cmocka_unit_test(a_new_connection_that_is_closed_without_an_answer_is_not_tried_again),
        cmocka_unit_test(a_half_answer_on_a_kept_connection_is_an_error_and_the_request_is_not_repeated),
        cmocka_unit_test(what_a_server_says_unasked_is_not_taken_for_the_next_answer),
        cmocka_unit_test(a_connection_that_answers_more_than_was_asked_is_not_kept),
        cmocka_unit_test(an_early_answer_is_read_although_the_request_cannot_be_sent),
        cmocka_unit_test(a_large_body_arrives_whole),
        cmocka_unit_test(an_endless_answer_is_cut_at_1_mib),
        cmocka_unit_test(what_is_not_http_is_refused_at_once),
        cmocka_unit_test(a_call_ends_at_its_deadline_even_if_the_answer_drips),
        cmocka_unit_test(a_server_that_accepts_nothing_runs_into_the_deadline),
        cmocka_unit_test(a_call_ends_when_it_is_cancelled),
        cmocka_unit_test(a_name_is_looked_up_and_every_address_tried),
        cmocka_unit_test(looking_up_a_name_counts_against_the_deadline),
        cmocka_unit_test(a_unix_socket_is_spoken_to_alike),
        cmocka_unit_test(tls_is_spoken_to_whoever_proves_the_name),
        cmocka_unit_test(plain_http_is_not_tls),
        cmocka_unit_test(an_answer_that_ends_with_the_connection_must_end_tls_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
