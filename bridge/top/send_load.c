/* Each connection is one thread that takes the next event's number, waits until that is due, and pushes it, retries included,
 * before it takes another. The numbers are shared, so the schedule holds as long as a connection is free: events are due at
 * fixed times from the start, however long earlier ones took. */
#include "send_load.h"

#include "meowbridge/clock.h"
#include "meowbridge/command.h"
#include "meowbridge/jsonscan.h"
#include "meowbridge/signature.h"
#include "meowbridge/version.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

enum { PROGRESS_MS = 200, TELL_MS = 5000, MAX_MESSAGE = 300 };

/* What the threads share. */
struct load {
    const struct send_options *options;
    struct send_ids ids;
    int64_t start_us;
    int done_fd; /* an eventfd: the last thread has ended */
    atomic_uint_least64_t next, accepted, failed, retrying, retries;
    atomic_uint running;
    atomic_bool said[SEND_STATUSES + SEND_ERRORS]; /* kinds of failure that standard error has seen */
};

struct connection {
    struct load *load;
    pthread_t thread;
    bool started;
    struct http_client *client;
    struct signer *signer;
    struct send_template body;
    struct send_tally tally;
};

/* ---- interruption ---- */

static int interrupt_fd = -1; /* an eventfd, readable once a signal has come; for the handler, which has no other way to know */

static void on_signal(int signal_number)
{
    (void)signal_number;
    int saved = errno;
    eventfd_write(interrupt_fd, 1);
    errno = saved;
}

static void handle_signals(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = (int)SA_RESETHAND | SA_RESTART}; /* a second one kills */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Sleeps until then; false as soon as it is interrupted. */
static bool sleep_until(int64_t then_us)
{
    for (;;) {
        int64_t left_us = then_us - clock_mono_us();
        left_us = left_us > 0 ? left_us : 0;
        struct timespec left = {left_us / 1000000, left_us % 1000000 * 1000};
        int ready = ppoll(&(struct pollfd){.fd = interrupt_fd, .events = POLLIN}, 1, &left, NULL);
        if (ready > 0 || (ready == 0 && clock_mono_us() >= then_us)) {
            return ready == 0;
        }
    }
}

static bool is_interrupted(void)
{
    return poll(&(struct pollfd){.fd = interrupt_fd, .events = POLLIN}, 1, 0) > 0;
}

/* ---- one push ---- */

const char *send_error_name(enum err err)
{
    static const char *const names[SEND_ERRORS] = {
        [ERR_IO] = "no connection",  [ERR_TIMEOUT] = "no answer in time", [ERR_CLOSED] = "connection closed",
        [ERR_LIBRARY] = "TLS error", [ERR_INVALID] = "not HTTP",          [ERR_MEMORY] = "out of memory"};
    return (unsigned)err < SEND_ERRORS && names[err] ? names[err] : "error";
}

/* {"code":0,"message":"OK","data":{"id":"123456","duplicate":false}}; another server's answer changes nothing. */
static void read_answer(struct slice body, struct json_value *message, bool *duplicate)
{
    struct json_value document, key, value, data = {.type = JSON_NULL};
    struct json_iterator it;
    if (jsonscan_document(body, &document, NULL, NULL) || document.type != JSON_OBJECT) {
        return;
    }
    jsonscan_enter(&it, &document);
    while (jsonscan_next(&it, &key, &value)) {
        if (jsonscan_string_is(&key, SLICE("message")) && value.type == JSON_STRING) {
            *message = value;
        } else if (jsonscan_string_is(&key, SLICE("data")) && value.type == JSON_OBJECT) {
            data = value;
        }
    }
    if (data.type == JSON_OBJECT) {
        jsonscan_enter(&it, &data);
        while (jsonscan_next(&it, &key, &value)) {
            *duplicate |= jsonscan_string_is(&key, SLICE("duplicate")) && value.type == JSON_TRUE;
        }
    }
}

/* The user sees why while the retries go on. */
static void say_once(struct load *load, size_t kind, const char *text)
{
    if (!atomic_exchange(&load->said[kind], true)) {
        fputs(load->options->show_progress ? "\r\033[K" : "", stderr);
        command_complain("%s%s", text, load->options->retries > 0 ? "; trying again" : "");
    }
}

static void count_status(struct connection *c, unsigned status, const struct json_value *message)
{
    char text[MAX_MESSAGE];
    struct buf scratch;
    c->tally.statuses[status]++;
    if (atomic_load(&c->load->said[status])) {
        return;
    }
    buf_init(&scratch, message->text.size);
    struct slice words = message->text.size > 0 && buf_reserve(&scratch, message->text.size)
                             ? jsonscan_unescape(message, &scratch)
                             : (struct slice){0};
    words.size = words.size < MAX_MESSAGE - 10 ? words.size : MAX_MESSAGE - 10;
    snprintf(text, sizeof text, "%u%s%.*s", status, words.size > 0 ? " " : "", SLICE_ARGS(words));
    buf_free(&scratch);
    say_once(c->load, status, text);
}

static enum err sign(struct connection *c, struct slice body, int64_t wall_ms, char *headers, size_t size, struct error *why)
{
    const struct http_url *url = &c->load->options->url;
    char timestamp[24], hex[SIGNATURE_HEX_DIGITS];
    uint8_t mac[SIGNATURE_BYTES];
    snprintf(timestamp, sizeof timestamp, "%013lld", (long long)wall_ms);
    struct signed_request request = {.method = SLICE("POST"),
                                     .domain = signature_domain(slice_of(url->authority)),
                                     .path = {url->target, strcspn(url->target, "?")},
                                     .body = body,
                                     .timestamp = slice_of(timestamp)};
    if (!signer_sign(c->signer, &request, mac)) {
        return error_set(why, ERR_MEMORY, "the signature cannot be computed");
    }
    hex_encode(mac, sizeof mac, hex);
    snprintf(headers, size,
             "Content-Type: application/json\r\nUser-Agent: meowbridge/" MEOWBRIDGE_VERSION "\r\n"
             "%s: %s\r\n%s: %.*s\r\n",
             SIGNATURE_TIMESTAMP_HEADER, timestamp, SIGNATURE_HEADER, SIGNATURE_HEX_DIGITS, hex);
    return ERR_NONE;
}

/* One attempt, with a signature of now. True if it was answered 2xx. */
static bool push_once(struct connection *c, uint64_t id)
{
    const struct send_options *options = c->load->options;
    char headers[400];
    struct http_reply reply;
    struct error why;
    int64_t wall_ms = clock_wall_ms();
    struct slice body = send_template_fill(&c->body, id, wall_ms);
    enum err err = sign(c, body, wall_ms, headers, sizeof headers, &why);
    if (!err) {
        err = http_client_request(c->client, "POST", (struct slice){0}, slice_of(headers), body, options->timeout_ms, &reply,
                                  &why);
    }
    if (err && is_interrupted()) {
        return false; /* not the server's fault */
    }
    if (err) {
        c->tally.errors[err]++;
        say_once(c->load, SEND_STATUSES + err, why.text);
        return false;
    }
    struct json_value message = {.type = JSON_NULL};
    bool duplicate = false, accepted = reply.status >= 200 && reply.status < 300;
    read_answer(reply.body, &message, &duplicate);
    if (!accepted) {
        count_status(c, reply.status, &message);
    }
    c->tally.duplicates += accepted && duplicate;
    return accepted;
}

/* ---- one event ---- */

enum fate { ACCEPTED, FAILED, UNFINISHED };

/* Pushes until it is accepted, as MeowFlow does: the same id each time. */
static enum fate push_until_accepted(struct connection *c, uint64_t id)
{
    for (unsigned retry = 1; !push_once(c, id); retry++) {
        if (is_interrupted()) {
            return UNFINISHED;
        }
        if (retry > c->load->options->retries) {
            return FAILED;
        }
        atomic_fetch_add(&c->load->retrying, 1);
        bool slept = sleep_until(clock_mono_us() + send_backoff_ms(retry) * 1000);
        atomic_fetch_sub(&c->load->retrying, 1);
        if (!slept) {
            return UNFINISHED;
        }
        c->tally.retries++;
        atomic_fetch_add(&c->load->retries, 1);
    }
    return ACCEPTED;
}

static void push_event(struct connection *c)
{
    int64_t start_us = clock_mono_us();
    c->tally.sent++;
    switch (push_until_accepted(c, send_ids_next(&c->load->ids, clock_wall_ms()))) {
    case ACCEPTED:
        c->tally.accepted++;
        histogram_add(&c->tally.latency, clock_mono_us() - start_us);
        atomic_fetch_add(&c->load->accepted, 1);
        break;
    case FAILED:
        c->tally.failed++;
        atomic_fetch_add(&c->load->failed, 1);
        break;
    case UNFINISHED:
        c->tally.unfinished++;
        break;
    }
}

static void *run_connection(void *argument)
{
    struct connection *c = argument;
    struct load *load = c->load;
    const struct send_options *options = load->options;
    uint64_t index;
    while ((index = atomic_fetch_add(&load->next, 1)) < options->count) {
        int64_t due_us = load->start_us + send_due_us(options->rate, index);
        if (!sleep_until(due_us)) {
            break;
        }
        int64_t late_us = options->rate > 0 ? clock_mono_us() - due_us : 0;
        c->tally.late_us = late_us > c->tally.late_us ? late_us : c->tally.late_us;
        push_event(c);
    }
    if (atomic_fetch_sub(&load->running, 1) == 1) {
        eventfd_write(load->done_fd, 1);
    }
    return NULL;
}

/* ---- all of them ---- */

static enum err open_connection(struct connection *c, struct load *load, struct error *why)
{
    const struct send_options *o = load->options;
    c->load = load;
    enum err err = http_client_open(&c->client, &o->url, o->insecure, why);
    err = err ? err : signer_open(&c->signer, o->secret, why);
    err = err ? err : send_template_init(&c->body, o->app_id, o->event, o->payload, clock_wall_ms(), why);
    if (!err) {
        http_client_set_cancel(c->client, interrupt_fd);
    }
    return err;
}

static void close_connection(struct connection *c)
{
    http_client_close(&c->client);
    signer_close(&c->signer);
    send_template_free(&c->body);
}

static void show_progress(struct load *load)
{
    uint64_t accepted = atomic_load(&load->accepted);
    double seconds = (double)(clock_mono_us() - load->start_us) / 1e6;
    fprintf(stderr, "\r%llu of %llu accepted, %.0f/s, %llu waiting for a retry, %llu failed\033[K",
            (unsigned long long)accepted, (unsigned long long)load->options->count,
            seconds > 0 ? (double)accepted / seconds : 0.0, (unsigned long long)atomic_load(&load->retrying),
            (unsigned long long)atomic_load(&load->failed));
}

/* A log that grows by a line every few seconds, and only while something is amiss. */
static void tell_retries(struct load *load)
{
    uint64_t retrying = atomic_load(&load->retrying);
    if (retrying > 0) {
        command_complain("%llu of %llu accepted, %llu waiting for a retry, %llu retries so far, %llu failed",
                         (unsigned long long)atomic_load(&load->accepted), (unsigned long long)load->options->count,
                         (unsigned long long)retrying, (unsigned long long)atomic_load(&load->retries),
                         (unsigned long long)atomic_load(&load->failed));
    }
}

static void wait_until_done(struct load *load)
{
    struct pollfd done = {.fd = load->done_fd, .events = POLLIN};
    bool show = load->options->show_progress, tell = load->options->tell_retries;
    int ready;
    while ((ready = poll(&done, 1, show ? PROGRESS_MS : tell ? TELL_MS : -1)) <= 0) {
        if (show) {
            show_progress(load);
        } else if (tell && ready == 0) {
            tell_retries(load);
        }
    }
    fputs(show ? "\r\033[K" : "", stderr);
}

static void add_tally(struct send_tally *into, const struct send_tally *from)
{
    into->sent += from->sent;
    into->accepted += from->accepted;
    into->duplicates += from->duplicates;
    into->failed += from->failed;
    into->unfinished += from->unfinished;
    into->retries += from->retries;
    for (size_t i = 0; i < SEND_STATUSES; i++) {
        into->statuses[i] += from->statuses[i];
    }
    for (size_t i = 0; i < SEND_ERRORS; i++) {
        into->errors[i] += from->errors[i];
    }
    into->late_us = from->late_us > into->late_us ? from->late_us : into->late_us;
    histogram_merge(&into->latency, &from->latency);
}

/* Starts as many threads as it can get; one is enough. */
static enum err run_threads(struct load *load, struct connection *connections, unsigned count, struct error *why)
{
    unsigned started = 0;
    int failure = 0;
    atomic_store(&load->running, count);
    load->start_us = clock_mono_us();
    for (; started < count && !failure; started += !failure) {
        failure = pthread_create(&connections[started].thread, NULL, run_connection, &connections[started]);
    }
    if (started == 0) {
        return error_set(why, ERR_IO, "no thread can be started: %s", strerror(failure));
    }
    if (failure && atomic_fetch_sub(&load->running, count - started) == count - started) {
        eventfd_write(load->done_fd, 1);
    }
    wait_until_done(load);
    for (unsigned i = 0; i < started; i++) {
        pthread_join(connections[i].thread, NULL);
    }
    if (failure) {
        command_complain("only %u of %u connections could be used: %s", started, count, strerror(failure));
    }
    return ERR_NONE;
}

static enum err run_load(struct load *load, struct connection *connections, unsigned count, struct send_tally *tally,
                         struct error *why)
{
    enum err err = ERR_NONE;
    for (unsigned i = 0; i < count && !err; i++) {
        err = open_connection(&connections[i], load, why);
    }
    err = err ? err : run_threads(load, connections, count, why);
    tally->elapsed_us = clock_mono_us() - load->start_us;
    for (unsigned i = 0; i < count; i++) {
        add_tally(tally, &connections[i].tally);
        close_connection(&connections[i]);
    }
    return err;
}

enum err send_load(const struct send_options *options, struct send_tally *tally, struct error *why)
{
    unsigned count = options->connections < options->count ? options->connections : (unsigned)options->count;
    struct load load = {.options = options, .done_fd = eventfd(0, EFD_CLOEXEC)};
    struct connection *connections = calloc(count, sizeof *connections);
    uint8_t random = 0;
    *tally = (struct send_tally){0};
    interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (getrandom(&random, 1, GRND_NONBLOCK) < 0) {
        random = (uint8_t)getpid(); /* early in the machine's life; any number will do */
    }
    load.ids.shard = random % 100;
    enum err err = ERR_NONE;
    if (!connections || load.done_fd < 0 || interrupt_fd < 0) {
        err = error_set(why, ERR_MEMORY, "no memory or no descriptors for %u connections", count);
    } else {
        handle_signals(on_signal);
        err = run_load(&load, connections, count, tally, why);
        handle_signals(SIG_DFL);
    }
    free(connections);
    close(load.done_fd);
    close(interrupt_fd);
    interrupt_fd = -1;
    return err;
}
