/* The loops, and the server over them. http_internal.h has the design. */
#include "http_callbacks.h"
#include "http_internal.h"
#include "meowbridge/clock.h"
#include "meowbridge/log.h"

#include <errno.h>
#include <microhttpd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    QUIESCE_GRACE_MS = 200, /* for requests that are on their way */
    BUSY_US = 500,          /* so long what was collected waits at most, and for the end of a turn */
    ACCEPT_BATCH = 64,
    ACCEPT_PAUSE_MS = 100, /* without a free descriptor */
    WARNING_PAUSE_MS = 10000
};

/* --- connections --- */

const struct http_tls_credentials *http_tls_credentials_of(void *mhd_connection)
{
    const struct http_connection *c =
        MHD_get_connection_info(mhd_connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    return c->credentials;
}

static void connection_free(struct http_connection *c)
{
    struct http_server *server = c->loop->server;
    http_request_finish(c);
    http_reply_forget(c);
    buf_free(&c->request.target);
    http_tls_release(c->credentials);
    if (c->peer.address.ss_family != AF_UNIX) {
        http_peer_leaves(&server->peer_counts, c->peer.ip);
    }
    atomic_fetch_sub(&server->connections, 1);
    free(c);
}

static void on_connection(void *ctx, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode code)
{
    struct http_loop *loop = ctx;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        struct http_connection *c = loop->entering;
        loop->entering = NULL;
        *context = c;
        c->mhd = mhd;
        http_socket_open(&c->socket, c->fd, c->credentials != NULL);
        c->next = loop->connections;
        if (c->next) {
            c->next->previous = c;
        }
        loop->connections = c;
        return;
    }
    struct http_connection *c = *context;
    int unread = 0;
    http_socket_close(c->fd);
    if (c->is_early || (ioctl(c->fd, FIONREAD, &unread) == 0 && unread > 0)) {
        http_linger_add(&loop->linger, c->fd, loop->now_ms);
    }
    *(c->previous ? &c->previous->next : &loop->connections) = c->next;
    if (c->next) {
        c->next->previous = c->previous;
    }
    connection_free(c);
}

static void add_connection(struct http_loop *loop, int fd, const struct http_peer *peer)
{
    struct http_server *server = loop->server;
    bool is_unix = peer->address.ss_family == AF_UNIX;
    struct http_connection *c = fd < HTTP_SOCKET_FDS ? calloc(1, sizeof *c) : NULL;
    if (!c || (!is_unix && !http_peer_enters(&server->peer_counts, peer->ip))) {
        free(c);
        close(fd);
        return;
    }
    atomic_fetch_add(&server->connections, 1);
    *c = (struct http_connection){.loop = loop, .fd = fd, .peer = *peer, .request = {.connection = c}};
    c->credentials = server->tls ? http_tls_acquire(server->tls) : NULL;
    buf_init(&c->request.target, server->options.max_head);
    buf_init(&c->request.body, 0);
    http_phase_enter(c, PHASE_IDLE);
    loop->entering = c;
    MHD_add_connection(loop->daemon, fd, (const struct sockaddr *)&peer->address, peer->address_size);
    if (loop->entering) { /* refused, and the descriptor closed, before it was shown to us */
        loop->entering = NULL;
        connection_free(c);
    }
}

static void warn(struct http_loop *loop, const char *message, const char *reason)
{
    if (loop->now_ms >= loop->warn_again_ms) {
        loop->warn_again_ms = loop->now_ms + WARNING_PAUSE_MS;
        log_warn(message, LOG_STR("listener", loop->server->options.name), LOG_STR("reason", reason));
    }
}

static bool has_room(struct http_loop *loop)
{
    bool room = atomic_load(&loop->server->connections) < loop->server->options.max_connections;
    if (!room) {
        warn(loop, "at the connection limit, new connections wait", "max_connections");
    }
    return room;
}

/* Takes up to most waiting connections. */
static void accept_some(struct http_loop *loop, unsigned most)
{
    for (unsigned i = 0; i < most && has_room(loop); i++) {
        struct http_peer peer = {0};
        int fd = http_listener_accept(&loop->server->listener, &peer);
        if (fd >= 0) {
            add_connection(loop, fd, &peer);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            /* no descriptor or no memory: the socket stays readable, and without a pause this would spin */
            warn(loop, "cannot accept, new connections wait", strerror(errno));
            loop->accept_again_ms = loop->now_ms + ACCEPT_PAUSE_MS;
            return;
        }
    }
}

/* --- quiescing --- */

static void begin_quiescing(struct http_loop *loop)
{
    loop->is_quiescing = true;
    loop->settle_ms = loop->now_ms + QUIESCE_GRACE_MS;
    http_streams_end(loop);
    accept_some(loop, UINT32_MAX); /* who was connected by the kernel before is served */
    if (atomic_fetch_sub(&loop->server->accepting, 1) == 1) {
        http_listener_close(&loop->server->listener);
    }
}

static void settle(struct http_loop *loop)
{
    loop->is_settled = true;
    http_deadline_close_resting(loop);
    pthread_mutex_lock(&loop->server->mutex);
    loop->server->settled++;
    pthread_cond_broadcast(&loop->server->changed);
    pthread_mutex_unlock(&loop->server->mutex);
}

static void quiesce_step(struct http_loop *loop)
{
    if (!loop->is_quiescing && atomic_load(&loop->server->is_quiescing)) {
        begin_quiescing(loop);
    }
    if (loop->is_quiescing && !loop->is_settled && loop->now_ms >= loop->settle_ms) {
        settle(loop);
    }
}

/* --- the loop --- */

void http_loop_wake(struct http_loop *loop)
{
    ssize_t ignored = write(loop->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    (void)ignored; /* it fails only where the counter is full, and then the loop is awake */
}

static void take_resumed(struct http_loop *loop)
{
    const struct http_handler *handler = &loop->server->options.handler;
    pthread_mutex_lock(&loop->mutex);
    struct http_request *r = loop->resumed;
    loop->resumed = NULL;
    loop->resumed_end = &loop->resumed;
    pthread_mutex_unlock(&loop->mutex);
    while (r) {
        struct http_request *next = r->next_resumed;
        r->next_resumed = NULL;
        r->is_resumed = false;
        loop->parked--;
        handler->resumed(handler->ctx, r);
        ASSERT(r->is_answered);
        if (r->is_chunked) { /* libmicrohttpd waits for more of its body, and takes no answer */
            r->connection->is_early = true;
            http_request_cut(r->connection);
        }
        http_socket_unpark(&r->connection->socket);
        MHD_resume_connection(r->connection->mhd);
        r = next;
    }
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int poll_timeout(struct http_loop *loop, bool accepts)
{
    MHD_UNSIGNED_LONG_LONG mhd_ms;
    int64_t until_ms = loop->now_ms + heartbeat_sleep_ms();
    if (MHD_get_timeout(loop->daemon, &mhd_ms) == MHD_YES) {
        until_ms = earlier(until_ms, loop->now_ms + (int64_t)(mhd_ms < INT32_MAX ? mhd_ms : INT32_MAX));
    }
    if (loop->connections || loop->linger.count > 0 || loop->crowd >= HTTP_CROWD) {
        until_ms = earlier(until_ms, loop->next_tick_ms);
    }
    if (!loop->is_quiescing && !accepts) {
        until_ms = earlier(until_ms, loop->now_ms + ACCEPT_PAUSE_MS); /* another loop's connection may have gone */
    }
    if (loop->is_quiescing && !loop->is_settled) {
        until_ms = earlier(until_ms, loop->settle_ms);
    }
    int64_t wait_ms = until_ms - loop->now_ms;
    return wait_ms < 0 ? 0 : (int)wait_ms;
}

static void hand_on(struct http_loop *loop)
{
    const struct http_handler *handler = &loop->server->options.handler;
    if (handler->at_rest) {
        handler->at_rest(handler->ctx, loop->index);
    }
}

/* What was collected is handed on before the loop sleeps, and not while more is at hand: a batch costs much the same however large
 * it is. */
static int poll_at_rest(struct http_loop *loop, nfds_t count, int wait_ms)
{
    int ready = poll(loop->fds, count, 0);
    bool sleeps = ready == 0 && wait_ms > 0;
    if (sleeps) {
        hand_on(loop);
        ready = poll(loop->fds, count, wait_ms);
    }
    int64_t now_us = clock_mono_us();
    loop->now_ms = now_us / 1000;
    if (sleeps) {
        loop->rested_us = now_us;
    } else if (now_us - loop->rested_us >= BUSY_US) {
        loop->rested_us = now_us;
        hand_on(loop);
    }
    return ready;
}

/* Sleeps until there is something to do. True if connections wait to be accepted. */
static bool wait_for_work(struct http_loop *loop)
{
    bool accepts = !loop->is_quiescing && loop->now_ms >= loop->accept_again_ms && has_room(loop);
    loop->fds[0] = (struct pollfd){.fd = loop->wake_fd, .events = POLLIN};
    loop->fds[1] = (struct pollfd){.fd = loop->mhd_fd, .events = POLLIN};
    loop->fds[2] = (struct pollfd){.fd = accepts ? loop->server->listener.fd : -1, .events = POLLIN};
    size_t lingering = http_linger_poll_set(&loop->linger, loop->fds + HTTP_FIXED_FDS);
    int ready = poll_at_rest(loop, HTTP_FIXED_FDS + lingering, poll_timeout(loop, accepts));
    heartbeat_beat(&loop->heartbeat, loop->now_ms);
    if (ready < 0) {
        return false;
    }
    if (loop->fds[0].revents) {
        uint64_t count;
        ssize_t ignored = read(loop->wake_fd, &count, sizeof count);
        (void)ignored;
    }
    http_linger_turn(&loop->linger, loop->fds + HTTP_FIXED_FDS, lingering, loop->now_ms);
    return loop->fds[2].revents != 0;
}

static void turn(struct http_loop *loop)
{
    bool accepts = wait_for_work(loop);
    quiesce_step(loop);
    take_resumed(loop);
    http_streams_turn(loop);
    if (accepts && !loop->is_quiescing) {
        accept_some(loop, ACCEPT_BATCH);
    }
    MHD_run(loop->daemon);
    http_deadline_tick(loop);
}

/* libmicrohttpd aborts where a suspended connection is left, so what was resumed goes back to it first. */
static void end(struct http_loop *loop)
{
    loop->is_ending = true;
    take_resumed(loop);
    ASSERT(loop->parked == 0);
    http_streams_cut(loop);
    MHD_run(loop->daemon); /* takes them back and sends their answers */
    MHD_stop_daemon(loop->daemon);
    loop->daemon = NULL;
    http_linger_close_all(&loop->linger);
}

static void *loop_main(void *argument)
{
    struct http_loop *loop = argument;
    char name[16];
    snprintf(name, sizeof name, "%.10s-%u", loop->server->options.name, loop->index);
    pthread_setname_np(pthread_self(), name);
    loop->now_ms = clock_mono_ms();
    heartbeat_begin(&loop->heartbeat, name, loop->now_ms);
    while (!atomic_load(&loop->server->is_stopping)) {
        turn(loop);
    }
    end(loop);
    heartbeat_end(&loop->heartbeat);
    return NULL;
}

void http_requests_resume(struct http_request **requests, size_t count)
{
    if (count == 0) {
        return;
    }
    struct http_server *server = requests[0]->connection->loop->server;
    struct {
        struct http_request *first, **end;
    } chains[HTTP_MAX_LOOPS] = {0};
    atomic_fetch_add(&server->resumers, 1);
    for (size_t i = 0; i < count; i++) {
        unsigned index = requests[i]->connection->loop->index;
        ASSERT(requests[i]->phase == PHASE_PARKED && !requests[i]->is_resumed);
        requests[i]->is_resumed = true;
        *(chains[index].first ? chains[index].end : &chains[index].first) = requests[i];
        chains[index].end = &requests[i]->next_resumed;
    }
    for (unsigned i = 0; i < server->options.threads; i++) {
        struct http_loop *loop = &server->loops[i];
        if (!chains[i].first) {
            continue;
        }
        pthread_mutex_lock(&loop->mutex);
        bool was_empty = !loop->resumed;
        *loop->resumed_end = chains[i].first;
        loop->resumed_end = chains[i].end;
        pthread_mutex_unlock(&loop->mutex);
        if (was_empty) {
            http_loop_wake(loop);
        }
    }
    atomic_fetch_sub(&server->resumers, 1);
}

/* --- the server --- */

__attribute__((format(printf, 2, 0))) static void on_mhd_log(void *ctx, const char *format, va_list arguments)
{
    if (log_enabled(LOG_DEBUG)) {
        char text[512];
        int size = vsnprintf(text, sizeof text, format, arguments);
        size_t end = size < 0 ? 0 : (size_t)size < sizeof text ? (size_t)size : sizeof text - 1;
        while (end > 0 && text[end - 1] == '\n') {
            end--;
        }
        log_debug("libmicrohttpd", LOG_STR("listener", ctx), LOG_SLICE("text", ((struct slice){text, end})));
    }
}

static enum err loop_open(struct http_loop *loop, struct http_server *server, unsigned index, struct error *why)
{
    loop->server = server;
    loop->index = index;
    loop->resumed_end = &loop->resumed;
    pthread_mutex_init(&loop->mutex, NULL);
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->wake_fd < 0) {
        return error_set(why, ERR_IO, "cannot make an eventfd: %s", strerror(errno));
    }
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)http_tls_priorities},
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)http_tls_certificate_callback()},
        {MHD_OPTION_END, 0, NULL},
    };
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET;
    loop->daemon = MHD_start_daemon(
        flags | (server->tls ? MHD_USE_TLS : 0), 0, NULL, NULL, http_on_request, loop, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log,
        server->name, MHD_OPTION_URI_LOG_CALLBACK, http_on_target, loop, MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, loop,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, loop, MHD_OPTION_CONNECTION_LIMIT, server->options.max_connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, server->options.max_head, MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_ARRAY,
        server->tls ? tls : tls + 2, MHD_OPTION_END);
    const union MHD_DaemonInfo *info = loop->daemon ? MHD_get_daemon_info(loop->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info || info->epoll_fd < 0) {
        return error_set(why, ERR_LIBRARY, "libmicrohttpd cannot start (log level debug shows why)");
    }
    loop->mhd_fd = info->epoll_fd;
    return ERR_NONE;
}

/* Signals are the main thread's. */
static enum err start_threads(struct http_server *server, struct error *why)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    while (server->started < server->options.threads && error == 0) {
        struct http_loop *loop = &server->loops[server->started];
        error = pthread_create(&loop->thread, NULL, loop_main, loop);
        server->started += error == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? error_set(why, ERR_IO, "cannot start a thread: %s", strerror(error)) : ERR_NONE;
}

static enum err open_parts(struct http_server *server, struct error *why)
{
    const struct http_server_options *o = &server->options;
    bool has_tls = o->tls_certificate_file && o->tls_certificate_file[0];
    enum err err = http_refusal_init(why);
    err = err ? err : http_socket_init(why);
    if (!err && has_tls) {
        err = http_tls_open(&server->tls, o->tls_certificate_file, o->tls_key_file, why);
    }
    err = err ? err : http_listener_open(&server->listener, o, why);
    server->port = server->listener.port;
    for (unsigned i = 0; i < o->threads && !err; i++) {
        err = loop_open(&server->loops[i], server, i, why);
    }
    return err ? err : start_threads(server, why);
}

enum err http_server_open(struct http_server **out, const struct http_server_options *options, struct error *why)
{
    const struct http_handler *handler = &options->handler;
    ASSERT(options->threads >= 1 && options->threads <= HTTP_MAX_LOOPS && options->max_connections > 0 &&
           options->timeout_ms > 0 && options->max_head >= 1024);
    ASSERT(handler->headers && handler->whole && handler->resumed && handler->finished && handler->error_body);
    struct http_server *server = calloc(1, sizeof *server + options->threads * sizeof server->loops[0]);
    if (!server) {
        return error_set(why, ERR_MEMORY, "no memory for the HTTP server");
    }
    server->options = *options;
    snprintf(server->name, sizeof server->name, "%s", options->name);
    server->options.name = server->name;
    for (const char *const *name = options->single_headers; name && *name; name++) {
        ASSERT(server->single_count < HTTP_MAX_SINGLES);
        server->singles[server->single_count++] = slice_of(*name);
    }
    server->listener.fd = -1;
    int64_t tick_ms = options->timeout_ms / 8;
    server->tick_ms = tick_ms < 50 ? 50 : earlier(tick_ms, 1000);
    pthread_mutex_init(&server->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    http_peer_counts_init(&server->peer_counts, options->max_connections_per_ip);
    atomic_init(&server->accepting, options->threads);
    for (unsigned i = 0; i < options->threads; i++) {
        server->loops[i].wake_fd = -1;
    }
    enum err err = open_parts(server, why);
    if (err) {
        http_server_close(&server);
        return err;
    }
    *out = server;
    return ERR_NONE;
}

void http_server_quiesce(struct http_server *server)
{
    atomic_store(&server->is_quiescing, true);
    for (unsigned i = 0; i < server->options.threads; i++) {
        http_loop_wake(&server->loops[i]);
    }
}

static bool is_drained(struct http_server *server)
{
    bool is_settled = !atomic_load(&server->is_quiescing) || server->settled == server->options.threads;
    return is_settled && atomic_load(&server->under_way) == 0;
}

bool http_server_drain(struct http_server *server, int64_t deadline_ms)
{
    const struct timespec deadline = {.tv_sec = deadline_ms / 1000, .tv_nsec = deadline_ms % 1000 * 1000000};
    atomic_fetch_add(&server->drainers, 1);
    pthread_mutex_lock(&server->mutex);
    while (!is_drained(server) && pthread_cond_timedwait(&server->changed, &server->mutex, &deadline) != ETIMEDOUT) {
    }
    bool drained = is_drained(server);
    pthread_mutex_unlock(&server->mutex);
    atomic_fetch_sub(&server->drainers, 1);
    return drained;
}

static void loop_close(struct http_loop *loop)
{
    if (!loop->server) {
        return; /* never opened */
    }
    if (loop->daemon) { /* its thread never ran */
        MHD_stop_daemon(loop->daemon);
    }
    if (loop->wake_fd >= 0) {
        close(loop->wake_fd);
    }
    pthread_mutex_destroy(&loop->mutex);
}

void http_server_close(struct http_server **server_pointer)
{
    struct http_server *server = *server_pointer;
    if (!server) {
        return;
    }
    atomic_store(&server->is_stopping, true);
    for (unsigned i = 0; i < server->started; i++) {
        http_loop_wake(&server->loops[i]);
    }
    for (unsigned i = 0; i < server->started; i++) {
        pthread_join(server->loops[i].thread, NULL);
    }
    while (atomic_load(&server->resumers) > 0) { /* the last request can be over before its resumer has returned */
        sched_yield();
    }
    for (unsigned i = 0; i < server->options.threads; i++) {
        loop_close(&server->loops[i]);
    }
    http_listener_close(&server->listener);
    http_tls_close(&server->tls);
    http_peer_counts_free(&server->peer_counts);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->mutex);
    free(server);
    *server_pointer = NULL;
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

enum err http_server_reload_tls(struct http_server *server, const char *certificate_file, const char *key_file,
                                struct error *why)
{
    ASSERT(server->tls);
    return http_tls_reload(server->tls, certificate_file, key_file, why);
}

enum err http_server_try_tls(const char *certificate_file, const char *key_file, struct error *why)
{
    struct http_tls *tls = NULL;
    enum err err = http_tls_open(&tls, certificate_file, key_file, why);
    http_tls_close(&tls);
    return err;
}
