/* http_client: see the header. How a request goes:
 *
 *   http_client_request ─▶ connect_server (resolve ─▶ connect_any ─▶ start_tls), unless a connection is kept
 *                       ─▶ exchange: writes and reads in turns, one poll between, until http_parser has the answer
 *
 * The socket does not block, and every wait is one poll with the call's deadline and the cancel descriptor (await). Writing
 * and reading share one loop because a server may answer, and close, while we are still sending: a failed write is held back
 * until it is clear that no answer is coming. */
#include "meowbridge/http_client.h"

#include "meowbridge/clock.h"
#include "http_parser.h"
#include "resolver.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    MAX_ANSWER_BODY = 1024 * 1024,
    MAX_JOINED_BODY = 64 * 1024, /* up to here the body goes out in one write with the headers */
    INPUT_SIZE = 16 * 1024,      /* a TLS record at most, so that none is left half-read in OpenSSL */
    CHECK_AFTER_IDLE_MS = 100,
    UNIX_BACKLOG_WAIT_MS = 10,
};

struct http_client {
    struct http_url url;
    bool insecure;
    int cancel_fd;
    SSL_CTX *tls_context; /* NULL without TLS */
    BIO_METHOD *bio_method;

    /* The connection. */
    int fd;   /* -1: none */
    SSL *tls; /* NULL without TLS */
    int64_t idle_since_ms;

    struct http_parser answer;
    struct buf request;
    char input[INPUT_SIZE];
};

/* ---- waiting ---- */

/* ERR_NONE as soon as fd is ready for one of events (or has an error to be read); fd -1: only waits. */
static enum err await(const struct http_client *client, int fd, short events, int64_t deadline_ms, struct error *why)
{
    struct pollfd wait[2] = {{.fd = fd, .events = events}, {.fd = client->cancel_fd, .events = POLLIN}};
    for (;;) {
        int64_t left_ms = deadline_ms - clock_mono_ms();
        left_ms = left_ms < 0 ? 0 : left_ms < INT_MAX ? left_ms : INT_MAX;
        int ready = poll(wait, client->cancel_fd >= 0 ? 2 : 1, (int)left_ms);
        if (ready > 0 && wait[1].revents != 0) {
            return error_set(why, ERR_CLOSED, "cancelled");
        }
        if (ready > 0) {
            return ERR_NONE;
        }
        if (ready == 0 && clock_mono_ms() >= deadline_ms) {
            return error_set(why, ERR_TIMEOUT, "%s did not answer in time", client->url.authority);
        }
        if (ready < 0 && errno != EINTR) {
            return error_set(why, ERR_IO, "poll: %s", strerror(errno));
        }
    }
}

/* ---- connecting ---- */

static enum err resolve(struct http_client *client, int64_t deadline_ms, struct resolver_answer *answer, struct error *why)
{
    struct resolver *resolver;
    enum err err = resolver_open(&resolver, client->url.host, why);
    if (err) {
        return err;
    }
    if (resolver_fd(resolver) >= 0) {
        err = await(client, resolver_fd(resolver), POLLIN, deadline_ms, why);
    }
    if (err == ERR_TIMEOUT) {
        error_set(why, ERR_TIMEOUT, "resolving %s took too long", client->url.host);
    }
    err = err ? err : resolver_take(resolver, answer, why);
    resolver_close(&resolver);
    return err;
}

static void disconnect(struct http_client *client)
{
    if (client->tls && SSL_is_init_finished(client->tls)) {
        ERR_clear_error();
        SSL_shutdown(client->tls); /* says goodbye; does not wait for the server's */
    }
    SSL_free(client->tls);
    client->tls = NULL;
    if (client->fd >= 0) {
        close(client->fd);
        client->fd = -1;
    }
}

/* "127.0.0.1:8080", "[::1]:8080" or the socket's path, for messages. */
static void address_text(const struct sockaddr *address, socklen_t size, char out[300])
{
    char host[INET6_ADDRSTRLEN] = "?", port[8] = "?";
    if (address->sa_family == AF_UNIX) {
        snprintf(out, 300, "%s", ((const struct sockaddr_un *)address)->sun_path);
        return;
    }
    getnameinfo(address, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(out, 300, address->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* Starts a connection; EAGAIN of a Unix socket means that its backlog is full, and there is nothing to poll for. */
static int start_connect(struct http_client *client, const struct sockaddr *address, socklen_t size, int64_t deadline_ms)
{
    int result;
    while ((result = connect(client->fd, address, size)) < 0 && errno == EAGAIN && address->sa_family == AF_UNIX) {
        int64_t again_ms = clock_mono_ms() + UNIX_BACKLOG_WAIT_MS;
        enum err err = again_ms < deadline_ms ? await(client, -1, 0, again_ms, NULL) : ERR_NONE;
        if (err != ERR_TIMEOUT) {
            errno = err == ERR_CLOSED ? ECANCELED : ETIMEDOUT;
            return -1;
        }
    }
    return result;
}

/* Leaves the connection in client->fd. */
static enum err connect_address(struct http_client *client, const struct sockaddr *address, socklen_t size, int64_t deadline_ms,
                                struct error *why)
{
    char text[300];
    address_text(address, size, text);
    client->fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (client->fd < 0) {
        return error_set(why, ERR_IO, "no socket for %s: %s", text, strerror(errno));
    }
    int failure = 0;
    if (start_connect(client, address, size, deadline_ms) < 0) {
        failure = errno;
    }
    if (failure == EINPROGRESS) {
        enum err err = await(client, client->fd, POLLOUT, deadline_ms, why);
        if (err) {
            disconnect(client);
            return err == ERR_TIMEOUT ? error_set(why, err, "connecting to %s took too long", text) : err;
        }
        socklen_t length = sizeof failure;
        getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &failure, &length);
    }
    if (failure) {
        disconnect(client);
        enum err err = failure == ETIMEDOUT ? ERR_TIMEOUT : failure == ECANCELED ? ERR_CLOSED : ERR_IO;
        return error_set(why, err, "cannot connect to %s: %s", text, strerror(failure));
    }
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); /* a Unix socket has none: no matter */
    return ERR_NONE;
}

static enum err connect_unix(struct http_client *client, int64_t deadline_ms, struct error *why)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    ASSERT(strlen(client->url.host) < sizeof address.sun_path);
    memcpy(address.sun_path, client->url.host, sizeof address.sun_path);
    return connect_address(client, (struct sockaddr *)&address, sizeof address, deadline_ms, why);
}

static enum err connect_ip(struct http_client *client, const char *host, int64_t deadline_ms, struct error *why)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST}, *info = NULL;
    char port[8];
    snprintf(port, sizeof port, "%u", client->url.port);
    if (getaddrinfo(host, port, &hints, &info) != 0) {
        return error_set(why, ERR_IO, "%s is no address", host);
    }
    enum err err = connect_address(client, info->ai_addr, info->ai_addrlen, deadline_ms, why);
    freeaddrinfo(info);
    return err;
}

/* Tries each address in turn. The time left is shared out, so that one that swallows packets leaves some for the next. */
static enum err connect_any(struct http_client *client, int64_t deadline_ms, struct error *why)
{
    struct resolver_answer answer;
    enum err err = resolve(client, deadline_ms, &answer, why);
    if (err) {
        return err;
    }
    err = ERR_IO;
    for (size_t i = 0; i < answer.count && err && err != ERR_CLOSED; i++) {
        int64_t now_ms = clock_mono_ms(), share_ms = (deadline_ms - now_ms) / (int64_t)(answer.count - i);
        err = connect_ip(client, answer.addresses[i], now_ms + share_ms, why);
    }
    return err;
}

/* ---- reading and writing, plain or TLS ---- */

enum io { IO_DONE, IO_WANT_READ, IO_WANT_WRITE, IO_ENDED, IO_FAILED };

/* A socket's error after the connection was made: the other side went away, or the network did. */
static enum io io_errno(const char *what, struct error *why)
{
    if (errno == EAGAIN || errno == EINTR) {
        return IO_WANT_READ;
    }
    bool gone = errno == EPIPE || errno == ECONNRESET;
    error_set(why, gone ? ERR_CLOSED : ERR_IO, "%s: %s", what, strerror(errno));
    return IO_FAILED;
}

/* What OpenSSL's last call on client->tls came to. */
static enum io io_tls(struct http_client *client, int result, const char *what, struct error *why)
{
    int saved_errno = errno;
    switch (SSL_get_error(client->tls, result)) {
    case SSL_ERROR_WANT_READ:
        return IO_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return IO_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return IO_ENDED;
    case SSL_ERROR_SYSCALL:
        errno = saved_errno ? saved_errno : ECONNRESET;
        io_errno(what, why);
        return IO_FAILED;
    default:
        break;
    }
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_reason_error_string(code);
    long verified = SSL_get_verify_result(client->tls);
    if (ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        error_set(why, ERR_CLOSED, "the server closed the connection without ending TLS");
    } else if (ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED && verified != X509_V_OK) {
        error_set(why, ERR_LIBRARY, "the certificate of %s does not verify: %s", client->url.host,
                  X509_verify_cert_error_string(verified));
    } else {
        error_set(why, ERR_LIBRARY, "TLS error while %s: %s", what, reason ? reason : "unknown error");
    }
    return IO_FAILED;
}

static enum io io_read(struct http_client *client, size_t *size, struct error *why)
{
    if (client->tls) {
        ERR_clear_error();
        errno = 0;
        int result = SSL_read_ex(client->tls, client->input, sizeof client->input, size);
        return result > 0 ? IO_DONE : io_tls(client, result, "reading the answer", why);
    }
    ssize_t got = recv(client->fd, client->input, sizeof client->input, 0);
    *size = got > 0 ? (size_t)got : 0;
    return got > 0 ? IO_DONE : got == 0 ? IO_ENDED : io_errno("reading the answer", why);
}

static enum io io_write(struct http_client *client, struct slice bytes, size_t *size, struct error *why)
{
    if (client->tls) {
        ERR_clear_error();
        errno = 0;
        int result = SSL_write_ex(client->tls, bytes.data, bytes.size, size);
        return result > 0 ? IO_DONE : io_tls(client, result, "sending the request", why);
    }
    ssize_t sent = send(client->fd, bytes.data, bytes.size, MSG_NOSIGNAL);
    *size = sent > 0 ? (size_t)sent : 0;
    enum io io = sent >= 0 ? IO_DONE : io_errno("sending the request", why);
    return io == IO_WANT_READ ? IO_WANT_WRITE : io;
}

/* ---- TLS ---- */

/* OpenSSL's socket BIO writes with write(2), which kills the process by SIGPIPE when the server is gone. */
static int bio_write(BIO *bio, const char *data, int size)
{
    int fd = -1;
    BIO_get_fd(bio, &fd);
    BIO_clear_retry_flags(bio);
    int sent = (int)send(fd, data, (size_t)size, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
        BIO_set_retry_write(bio);
    }
    return sent;
}

static BIO_METHOD *make_bio_method(void)
{
    const BIO_METHOD *socket_bio = BIO_s_socket();
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOCKET, "socket without SIGPIPE");
    bool made = method && BIO_meth_set_write(method, bio_write) && BIO_meth_set_read(method, BIO_meth_get_read(socket_bio)) &&
                BIO_meth_set_ctrl(method, BIO_meth_get_ctrl(socket_bio)) &&
                BIO_meth_set_create(method, BIO_meth_get_create(socket_bio)) &&
                BIO_meth_set_destroy(method, BIO_meth_get_destroy(socket_bio));
    if (!made) {
        BIO_meth_free(method);
        return NULL;
    }
    return method;
}

static enum err make_tls_context(struct http_client *client, struct error *why)
{
    static const unsigned char alpn[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    client->tls_context = context;
    client->bio_method = make_bio_method();
    if (!context || !client->bio_method || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) ||
        SSL_CTX_set_alpn_protos(context, alpn, sizeof alpn) != 0) {
        return error_set(why, ERR_LIBRARY, "TLS cannot be set up");
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (client->insecure) {
        return ERR_NONE;
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    return SSL_CTX_set_default_verify_paths(context) ? ERR_NONE
                                                     : error_set(why, ERR_LIBRARY, "TLS: the trust store cannot be read");
}

/* The name, or the address, that the certificate must be for; a name is also asked for (SNI, RFC 6066: no addresses). */
static bool expect_host(SSL *tls, const char *host)
{
    uint8_t address[16];
    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1) {
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), host);
    }
    SSL_set_hostflags(tls, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(tls, host) && SSL_set_tlsext_host_name(tls, host);
}

static enum err handshake(struct http_client *client, int64_t deadline_ms, struct error *why)
{
    for (;;) {
        ERR_clear_error();
        errno = 0;
        int result = SSL_connect(client->tls);
        if (result > 0) {
            return ERR_NONE;
        }
        enum io io = io_tls(client, result, "shaking hands", why);
        if (io == IO_ENDED) {
            return error_set(why, ERR_CLOSED, "the server closed the connection while shaking hands");
        }
        if (io == IO_FAILED) {
            return why->code;
        }
        enum err err = await(client, client->fd, io == IO_WANT_WRITE ? POLLOUT : POLLIN, deadline_ms, why);
        if (err) {
            return err;
        }
    }
}

static enum err start_tls(struct http_client *client, int64_t deadline_ms, struct error *why)
{
    client->tls = SSL_new(client->tls_context);
    BIO *bio = BIO_new(client->bio_method);
    if (!client->tls || !bio || !expect_host(client->tls, client->url.host)) {
        BIO_free(bio);
        return error_set(why, ERR_LIBRARY, "TLS cannot be set up for %s", client->url.host);
    }
    BIO_set_fd(bio, client->fd, BIO_NOCLOSE);
    SSL_set_bio(client->tls, bio, bio);
    return handshake(client, deadline_ms, why);
}

static enum err connect_server(struct http_client *client, int64_t deadline_ms, struct error *why)
{
    enum err err = client->url.is_unix ? connect_unix(client, deadline_ms, why) : connect_any(client, deadline_ms, why);
    if (!err && client->tls_context) {
        err = start_tls(client, deadline_ms, why);
    }
    return err;
}

/* ---- one request ---- */

/* A request on its way out. */
struct outgoing {
    struct slice head, body; /* what is still unsent */
    bool failed;             /* the rest cannot be sent; what is left is to see whether an answer came */
    struct error write_error;
};

static void send_some(struct http_client *client, struct outgoing *out, short *events)
{
    while (!out->failed && out->head.size + out->body.size > 0) {
        struct slice *part = out->head.size > 0 ? &out->head : &out->body;
        size_t sent = 0;
        enum io io = io_write(client, *part, &sent, &out->write_error);
        if (io == IO_WANT_WRITE || io == IO_WANT_READ) {
            *events |= io == IO_WANT_WRITE ? POLLOUT : 0;
            return;
        }
        out->failed = io != IO_DONE;
        *part = (struct slice){part->data + sent, part->size - sent};
    }
}

static enum err receive_some(struct http_client *client, struct error *why)
{
    size_t size = 0, used = 0;
    enum io io = io_read(client, &size, why);
    if (io == IO_WANT_READ || io == IO_WANT_WRITE) {
        return ERR_NONE;
    }
    if (io == IO_ENDED) {
        return http_parser_close(&client->answer, why);
    }
    if (io == IO_FAILED) {
        return why->code;
    }
    enum err err = http_parser_feed(&client->answer, (struct slice){client->input, size}, &used, why);
    client->answer.keep_alive = client->answer.keep_alive && used == size; /* more than we asked for: out of step */
    return err;
}

static enum err exchange(struct http_client *client, struct outgoing out, int64_t deadline_ms, struct error *why)
{
    while (client->answer.state != HTTP_PARSER_DONE) {
        short events = POLLIN;
        send_some(client, &out, &events);
        enum err err =
            client->tls && SSL_pending(client->tls) > 0 ? ERR_NONE : await(client, client->fd, events, deadline_ms, why);
        if (!err) {
            err = receive_some(client, why);
        }
        if (err) {
            bool lost = out.failed && err == ERR_CLOSED && !client->answer.started;
            return lost ? error_set(why, out.write_error.code, "%s", out.write_error.text) : err;
        }
    }
    bool sent = !out.failed && out.head.size + out.body.size == 0;
    client->answer.keep_alive = client->answer.keep_alive && sent;
    return ERR_NONE;
}

/* True if nothing can be wrong with the kept connection as far as one can see without sending. What a server says unasked
 * while we idle (408, end of TLS) would otherwise be taken for the next answer. */
static bool can_reuse(struct http_client *client)
{
    if (client->fd < 0 || clock_mono_ms() - client->idle_since_ms < CHECK_AFTER_IDLE_MS) {
        return client->fd >= 0;
    }
    struct error ignored;
    size_t size;
    return io_read(client, &size, &ignored) == IO_WANT_READ;
}

static bool build_request(struct http_client *client, const char *method, struct slice target, struct slice headers,
                          struct slice body, struct outgoing *out)
{
    struct buf *request = &client->request;
    buf_reset(request);
    buf_append_text(request, method);
    buf_append_char(request, ' ');
    buf_append(request, target.size > 0 ? target : slice_of(client->url.target));
    buf_append_text(request, " HTTP/1.1\r\nHost: ");
    buf_append_text(request, client->url.authority);
    buf_append_text(request, "\r\n");
    buf_append(request, headers);
    if (body.size > 0 || (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)) {
        buf_appendf(request, "Content-Length: %zu\r\n", body.size);
    }
    buf_append_text(request, "\r\n");
    bool joined = body.size <= MAX_JOINED_BODY;
    if (joined) {
        buf_append(request, body);
    }
    *out = (struct outgoing){.head = buf_slice(request)};
    if (!joined) {
        out->body = body;
    }
    return !request->failed;
}

enum err http_client_request(struct http_client *client, const char *method, struct slice target, struct slice headers,
                             struct slice body, int64_t timeout_ms, struct http_reply *reply, struct error *why)
{
    struct error unheard = {0};
    why = why ? why : &unheard;
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;
    struct outgoing out;
    if (!build_request(client, method, target, headers, body, &out)) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    enum err err;
    for (bool again = true; again;) {
        bool reused = can_reuse(client);
        if (!reused) {
            disconnect(client);
        }
        http_parser_start(&client->answer, strcmp(method, "HEAD") == 0);
        err = reused ? ERR_NONE : connect_server(client, deadline_ms, why);
        err = err ? err : exchange(client, out, deadline_ms, why);
        if (err || !client->answer.keep_alive) {
            disconnect(client);
        }
        again = err == ERR_CLOSED && reused && !client->answer.started;
    }
    if (err) {
        return err;
    }
    client->idle_since_ms = clock_mono_ms();
    *reply = (struct http_reply){.status = client->answer.status,
                                 .has_retry_after = client->answer.has_retry_after,
                                 .retry_after_s = client->answer.retry_after_s,
                                 .body = buf_slice(&client->answer.body)};
    return ERR_NONE;
}

/* ---- open and close ---- */

enum err http_client_open(struct http_client **out, const struct http_url *url, bool insecure, struct error *why)
{
    *out = NULL;
    struct http_client *client = calloc(1, sizeof *client);
    if (!client) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    client->url = *url;
    client->insecure = insecure;
    client->cancel_fd = -1;
    client->fd = -1;
    http_parser_init(&client->answer, MAX_ANSWER_BODY);
    buf_init(&client->request, SIZE_MAX / 2);
    enum err err = url->tls ? make_tls_context(client, why) : ERR_NONE;
    if (err) {
        http_client_close(&client);
        return err;
    }
    *out = client;
    return ERR_NONE;
}

void http_client_close(struct http_client **client)
{
    struct http_client *c = *client;
    *client = NULL;
    if (!c) {
        return;
    }
    disconnect(c);
    SSL_CTX_free(c->tls_context);
    BIO_meth_free(c->bio_method);
    http_parser_free(&c->answer);
    buf_free(&c->request);
    free(c);
}

void http_client_set_cancel(struct http_client *client, int fd)
{
    client->cancel_fd = fd;
}
