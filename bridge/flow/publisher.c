/* The thread and what crosses its border. All policy is elsewhere: the connection's life in publisher_uplink.c, the events'
 * way in publisher_line.c, the bookkeeping in publisher_window.c, waiting times in publisher_pace.c.
 *
 *   publisher (mutex, thread, eventfd) ──▶ uplink (connection) ──▶ line (events) ──▶ window
 *
 * Other threads leave orders (routes, certificates, stop) under the mutex and ring the eventfd; the thread takes them once a
 * turn. publisher_wake, which the journal calls for each commit, takes no lock, and writes to the eventfd only where the
 * thread has not been woken already. */
#include "meowbridge/publisher.h"

#include "meowbridge/clock.h"
#include "meowbridge/heartbeat.h"
#include "meowbridge/log.h"
#include "publisher_line.h"
#include "publisher_uplink.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct publisher {
    pthread_mutex_t lock;
    struct route_table *routes; /* an order, a reference; NULL: none */
    struct mqtt_tls *tls;       /* an order; NULL: none */
    struct slice password;      /* an order, owned; data NULL: none */
    bool stop;
    int64_t deadline_ms;
    struct publisher_state state; /* as of the last turn */

    /* not under the lock */
    atomic_bool is_awake; /* the eventfd was rung, and the thread has not come to look yet */
    int wake_fd;
    bool uses_tls;
    struct uplink *uplink; /* the thread's, while it runs */
    pthread_t thread;
    bool has_thread; /* of who opens, stops and closes */
};

static void ring(struct publisher *publisher)
{
    if (!atomic_exchange(&publisher->is_awake, true)) {
        uint64_t one = 1;
        ssize_t ignored = write(publisher->wake_fd, &one, sizeof one);
        (void)ignored; /* it fails only when the counter is full, and then the thread is awake */
    }
}

void publisher_wake(void *ctx)
{
    ring(ctx);
}

static void take_orders(struct publisher *publisher)
{
    if (atomic_exchange(&publisher->is_awake, false)) {
        line_wake(uplink_line(publisher->uplink));
    }
    pthread_mutex_lock(&publisher->lock);
    struct route_table *routes = publisher->routes;
    struct mqtt_tls *tls = publisher->tls;
    struct slice password = publisher->password;
    publisher->routes = NULL;
    publisher->tls = NULL;
    publisher->password = (struct slice){0};
    bool stop = publisher->stop;
    int64_t deadline_ms = publisher->deadline_ms;
    pthread_mutex_unlock(&publisher->lock);
    if (routes) {
        line_set_routes(uplink_line(publisher->uplink), routes);
        route_table_unref(&routes);
    }
    if (tls) {
        uplink_set_tls(publisher->uplink, tls);
    }
    if (password.data) {
        uplink_set_password(publisher->uplink, password);
    }
    if (stop) {
        uplink_stop(publisher->uplink, deadline_ms);
    }
}

static void tell_state(struct publisher *publisher)
{
    pthread_mutex_lock(&publisher->lock);
    uplink_state(publisher->uplink, &publisher->state);
    pthread_mutex_unlock(&publisher->lock);
}

static short wait_for_work(struct publisher *publisher)
{
    struct pollfd fds[2] = {{.fd = publisher->wake_fd, .events = POLLIN}};
    int timeout_ms;
    uplink_poll(publisher->uplink, &fds[1], &timeout_ms);
    int longest_ms = heartbeat_sleep_ms();
    if (poll(fds, 2, timeout_ms < 0 || timeout_ms > longest_ms ? longest_ms : timeout_ms) <= 0) {
        return 0;
    }
    if (fds[0].revents) { /* by what poll says, not by is_awake: the ring that set it may write only now */
        uint64_t count;
        ssize_t ignored = read(publisher->wake_fd, &count, sizeof count);
        (void)ignored;
    }
    return fds[1].revents;
}

static void *run(void *arg)
{
    struct publisher *publisher = arg;
    short revents = 0;
    struct heartbeat heartbeat;
    heartbeat_begin(&heartbeat, "publisher", clock_mono_ms());
    for (;;) {
        heartbeat_beat(&heartbeat, clock_mono_ms());
        take_orders(publisher);
        uplink_turn(publisher->uplink, revents);
        tell_state(publisher);
        if (uplink_is_over(publisher->uplink)) {
            heartbeat_end(&heartbeat);
            return NULL;
        }
        revents = wait_for_work(publisher);
    }
}

/* Signals are the main thread's business. */
static enum err start_thread(struct publisher *publisher, struct error *why)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&publisher->thread, NULL, run, publisher);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) {
        return error_set(why, ERR_IO, "cannot start the publisher's thread: %s", strerror(failed));
    }
    pthread_setname_np(publisher->thread, "publisher");
    publisher->has_thread = true;
    return ERR_NONE;
}

static bool wants_tls(const struct publisher_options *options)
{
    for (size_t i = 0; i < options->broker_count; i++) {
        if (options->brokers[i].tls) {
            return true;
        }
    }
    return false;
}

static enum err open_uplink(struct publisher *publisher, const struct publisher_options *options, struct error *why)
{
    struct mqtt_tls *tls = NULL;
    struct line *line = NULL;
    publisher->uses_tls = wants_tls(options);
    enum err err = publisher->uses_tls ? mqtt_tls_open(&tls, &options->tls, why) : ERR_NONE;
    if (err != ERR_NONE) {
        return err;
    }
    err = line_open(&line, options->journal, options->routes, options->version, options->inflight, options->max_rate, why);
    if (err != ERR_NONE) {
        mqtt_tls_close(&tls);
        return err;
    }
    return uplink_open(&publisher->uplink, options, tls, line, why);
}

enum err publisher_open(struct publisher **out, const struct publisher_options *options, struct error *why)
{
    *out = NULL;
    struct publisher *publisher = calloc(1, sizeof *publisher);
    if (!publisher) {
        return error_set(why, ERR_MEMORY, "no memory for the publisher");
    }
    pthread_mutex_init(&publisher->lock, NULL);
    publisher->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum err err = publisher->wake_fd < 0 ? error_set(why, ERR_IO, "cannot make an eventfd: %s", strerror(errno))
                                          : open_uplink(publisher, options, why);
    if (err == ERR_NONE) {
        uplink_state(publisher->uplink, &publisher->state);
        err = start_thread(publisher, why);
    }
    if (err != ERR_NONE) {
        publisher_close(&publisher);
        return err;
    }
    *out = publisher;
    return ERR_NONE;
}

void publisher_set_routes(struct publisher *publisher, struct route_table *routes)
{
    struct route_table *mine = route_table_ref(routes);
    pthread_mutex_lock(&publisher->lock);
    struct route_table *old = publisher->routes;
    publisher->routes = mine;
    pthread_mutex_unlock(&publisher->lock);
    route_table_unref(&old);
    ring(publisher);
}

enum err publisher_reload(struct publisher *publisher, const struct mqtt_tls_options *options, struct slice password,
                          struct error *why)
{
    struct slice copy = {slice_dup(password), password.size};
    struct mqtt_tls *tls = NULL;
    enum err err = !copy.data ? error_set(why, ERR_MEMORY, "no memory for the publisher") : ERR_NONE;
    if (err == ERR_NONE && publisher->uses_tls && options) {
        err = mqtt_tls_open(&tls, options, why);
    }
    if (err != ERR_NONE) {
        uplink_wipe(&copy);
        return err;
    }
    pthread_mutex_lock(&publisher->lock);
    struct mqtt_tls *old_tls = publisher->tls;
    struct slice old_password = publisher->password;
    publisher->tls = tls ? tls : old_tls;
    publisher->password = copy;
    pthread_mutex_unlock(&publisher->lock);
    if (tls) {
        mqtt_tls_close(&old_tls);
    }
    uplink_wipe(&old_password);
    ring(publisher);
    return ERR_NONE;
}

void publisher_stop(struct publisher *publisher, int64_t deadline_ms)
{
    if (!publisher->has_thread) {
        return;
    }
    pthread_mutex_lock(&publisher->lock);
    publisher->stop = true;
    publisher->deadline_ms = deadline_ms;
    pthread_mutex_unlock(&publisher->lock);
    ring(publisher);
    pthread_join(publisher->thread, NULL);
    publisher->has_thread = false;
}

void publisher_close(struct publisher **publisher_ptr)
{
    struct publisher *publisher = *publisher_ptr;
    *publisher_ptr = NULL;
    if (!publisher) {
        return;
    }
    publisher_stop(publisher, 0);
    uplink_close(&publisher->uplink);
    route_table_unref(&publisher->routes);
    mqtt_tls_close(&publisher->tls);
    uplink_wipe(&publisher->password);
    if (publisher->wake_fd >= 0) {
        close(publisher->wake_fd);
    }
    pthread_mutex_destroy(&publisher->lock);
    free(publisher);
}

void publisher_state(struct publisher *publisher, struct publisher_state *out)
{
    pthread_mutex_lock(&publisher->lock);
    *out = publisher->state;
    pthread_mutex_unlock(&publisher->lock);
}
