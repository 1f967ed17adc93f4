#include "meowbridge/ingress.h"

#include "meowbridge/clock.h"
#include "meowbridge/event.h"
#include "meowbridge/log.h"
#include "meowbridge/metrics.h"
#include "meowbridge/signature.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Apps and routes come as one immutable set, shared by reference count. A reload publishes a new set; each loop takes it up
 * at its next request and keys its own signers for it, so that verifying needs no lock. */

enum { HANDOVER = 128, MAX_APPS = 64, RESUME_CHUNK = 256, REFUSALS_LOGGED_A_SECOND = 10, CLOCK_USES = 16 };
enum { MAX_TRACESTATE_HEADERS = 32 }; /* as many as the list may have members */
enum { RETRY_SOON_S = 5, RETRY_RATE_S = 1 };
enum { KEPT_BUFFER_BYTES = 256 * 1024 }; /* what a loop's buffer may keep when it rests */

const char *const ingress_single_headers[] = {"Host", SIGNATURE_HEADER, SIGNATURE_TIMESTAMP_HEADER, NULL};

/* A bucket of tokens that fills at `rate` a second and holds one second's worth. */
struct bucket {
    pthread_mutex_t lock;
    int64_t rate, tokens_us; /* a token is 1,000,000 / rate microseconds of credit */
    int64_t updated_us;
};

struct app {
    char *id, *path, *public_host, *public_path;
    char *secrets[2]; /* current, previous or NULL */
    size_t secret_sizes[2];
    struct bucket bucket; /* rate 0: no limit */
    unsigned metrics;     /* its place there */
};

struct app_set {
    atomic_uint references;
    unsigned generation;
    struct route_table *routes; /* NULL: whatever is verified is taken */
    size_t count;
    struct app apps[];
};

/* What one HTTP loop owns. */
struct loop {
    struct app_set *set;
    struct signer **signers; /* two an app: [2 * i] current, [2 * i + 1] previous or NULL */
    struct buf scratch, head, answer;
    struct journal_append *first, **last; /* collected, and not handed over yet */
    unsigned collected;
    int64_t now_us, wall_ms; /* of clock_mono_us and clock_wall_ms, see look_at_clock */
    unsigned clock_uses;     /* since they were read */
};

struct ingress {
    pthread_mutex_t lock;
    struct app_set *current; /* guarded by lock */
    bool is_stopped;         /* guarded by lock, which is held while the journal is given anything */

    atomic_uint generation; /* current->generation, for a look without the lock */
    struct journal *journal;
    unsigned loop_count;
    atomic_llong refusals_second; /* the second that refusals_logged counts for */
    atomic_uint refusals_logged, refusals_silent;
    struct loop loops[];
};

/* A request that waits for the journal. */
struct ticket {
    struct journal_append append; /* first: an append handed back is its ticket */
    struct http_request *request;
    char *why; /* of a refusal; NULL if there was no memory for it */
    int64_t begun_us;
    size_t id_size;
    char id[];
};

/* --- the set of apps --- */

static bool bucket_take(struct bucket *bucket, int64_t now_us)
{
    if (bucket->rate == 0) {
        return true;
    }
    const int64_t second = 1000000, price = second / bucket->rate > 0 ? second / bucket->rate : 1;
    pthread_mutex_lock(&bucket->lock);
    int64_t credit = bucket->tokens_us + (now_us - bucket->updated_us);
    int64_t most = price > second ? price : second;
    credit = credit > most ? most : credit;
    bool taken = credit >= price;
    bucket->tokens_us = taken ? credit - price : credit;
    bucket->updated_us = now_us;
    pthread_mutex_unlock(&bucket->lock);
    return taken;
}

static void free_secret(char *secret, size_t size)
{
    if (secret) {
        signature_wipe(secret, size);
        free(secret);
    }
}

static void set_unref(struct app_set *set)
{
    if (!set || atomic_fetch_sub(&set->references, 1) != 1) {
        return;
    }
    for (size_t i = 0; i < set->count; i++) {
        struct app *app = &set->apps[i];
        free(app->id);
        free(app->path);
        free(app->public_host);
        free(app->public_path);
        free_secret(app->secrets[0], app->secret_sizes[0]);
        free_secret(app->secrets[1], app->secret_sizes[1]);
        pthread_mutex_destroy(&app->bucket.lock);
    }
    route_table_unref(&set->routes);
    free(set);
}

static bool copy_secret(struct app *app, int which, struct slice secret)
{
    if (secret.size == 0) {
        return true;
    }
    app->secrets[which] = slice_dup(secret);
    app->secret_sizes[which] = secret.size;
    return app->secrets[which] != NULL;
}

static bool copy_app(struct app *to, const struct ingress_app *from)
{
    pthread_mutex_init(&to->bucket.lock, NULL);
    to->bucket.rate = from->rate_limit;
    to->bucket.tokens_us = 1000000;
    to->bucket.updated_us = clock_mono_us();
    to->metrics = metrics_app(from->id.size > 0 ? from->id : SLICE("*"));
    to->id = slice_dup(from->id);
    to->path = slice_dup(from->path);
    if (from->public_host.size > 0) {
        to->public_host = slice_dup(from->public_host);
        to->public_path = slice_dup(from->public_path);
    }
    return to->id && to->path && (from->public_host.size == 0 || (to->public_host && to->public_path)) &&
           copy_secret(to, 0, from->secret) && copy_secret(to, 1, from->previous_secret);
}

static enum err set_open(struct app_set **out, const struct ingress_app *apps, size_t count, struct route_table *routes,
                         unsigned generation, struct error *why)
{
    if (count == 0 || count > MAX_APPS) {
        return error_set(why, ERR_INVALID, "%zu apps are configured, expected 1 to %d", count, MAX_APPS);
    }
    struct app_set *set = calloc(1, sizeof *set + count * sizeof set->apps[0]);
    if (!set) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    atomic_init(&set->references, 1);
    set->generation = generation;
    set->routes = routes ? route_table_ref(routes) : NULL;
    for (size_t i = 0; i < count; i++) {
        set->count = i + 1;
        if (!copy_app(&set->apps[i], &apps[i])) {
            set_unref(set);
            return error_set(why, ERR_MEMORY, "out of memory");
        }
    }
    *out = set;
    return ERR_NONE;
}

/* --- a loop's view of it --- */

/* What many requests of a busy loop share: a turn of it, or 16 of them. */
static void look_at_clock(struct loop *loop)
{
    if (loop->clock_uses++ % CLOCK_USES == 0) {
        loop->now_us = clock_mono_us();
        loop->wall_ms = clock_wall_ms();
    }
}

static void loop_drop_set(struct loop *loop)
{
    for (size_t i = 0; loop->signers && i < 2 * loop->set->count; i++) {
        signer_close(&loop->signers[i]);
    }
    free(loop->signers);
    loop->signers = NULL;
    set_unref(loop->set);
    loop->set = NULL;
}

static enum err key_signers(struct signer **signers, const struct app_set *set, struct error *why)
{
    for (size_t i = 0; i < 2 * set->count; i++) {
        const struct app *app = &set->apps[i / 2];
        struct slice secret = {app->secrets[i % 2], app->secret_sizes[i % 2]};
        enum err failed = secret.data ? signer_open(&signers[i], secret, why) : ERR_NONE;
        if (failed) {
            return failed;
        }
    }
    return ERR_NONE;
}

/* Takes up the current set if it is not the loop's already. */
static enum err loop_refresh(struct ingress *ingress, struct loop *loop, struct error *why)
{
    if (loop->set && loop->set->generation == atomic_load(&ingress->generation)) {
        return ERR_NONE;
    }
    loop_drop_set(loop);
    pthread_mutex_lock(&ingress->lock);
    struct app_set *set = ingress->current;
    atomic_fetch_add(&set->references, 1);
    pthread_mutex_unlock(&ingress->lock);
    loop->set = set;
    loop->signers = calloc(2 * set->count, sizeof(struct signer *));
    enum err failed = loop->signers ? key_signers(loop->signers, set, why) : error_set(why, ERR_MEMORY, "out of memory");
    if (failed) {
        loop_drop_set(loop);
    }
    return failed;
}

/* --- answers --- */

static void append_error_body(void *ctx, unsigned status, const char *message, struct buf *out)
{
    (void)ctx;
    buf_appendf(out, "{\"code\":%u,\"message\":", status);
    buf_append_json_string(out, slice_of(message));
    buf_append_text(out, ",\"data\":null}");
}

static void answer_error(struct loop *loop, struct http_request *request, unsigned status, const char *message,
                         unsigned retry_after_s)
{
    buf_reset(&loop->answer);
    append_error_body(NULL, status, message, &loop->answer);
    http_request_answer(request, &(struct http_answer){.status = status,
                                                       .body = buf_slice(&loop->answer),
                                                       .allow = status == 405 ? "POST" : NULL,
                                                       .retry_after_s = retry_after_s});
}

/* A stranger can send as many bad requests as the line carries; the log gets a few a second and the number of the others. */
static bool may_log_refusal(struct ingress *ingress)
{
    long long second = clock_mono_ms() / 1000;
    if (atomic_exchange(&ingress->refusals_second, second) != second) {
        atomic_store(&ingress->refusals_logged, 0);
    }
    if (atomic_fetch_add(&ingress->refusals_logged, 1) < REFUSALS_LOGGED_A_SECOND) {
        return true;
    }
    atomic_fetch_add(&ingress->refusals_silent, 1);
    return false;
}

static void log_refusal(struct ingress *ingress, unsigned status, const char *reason, const char *detail, struct slice peer,
                        struct slice path)
{
    if (may_log_refusal(ingress)) {
        log_warn("webhook refused", LOG_INT("status", status), LOG_STR("reason", reason),
                 LOG_STR("detail", detail ? detail : "-"), LOG_SLICE("peer", peer), LOG_SLICE("path", path),
                 LOG_INT("unlogged", atomic_exchange(&ingress->refusals_silent, 0)));
    }
}

struct refusal {
    unsigned status;
    const char *message; /* what the sender is told */
    const char *detail;  /* what the log says beside it; NULL: nothing */
    enum metric metric;
    unsigned retry_after_s;
};

static void refuse(struct ingress *ingress, struct http_request *request, const struct refusal *refusal)
{
    metrics_add(refusal->metric, 1);
    log_refusal(ingress, refusal->status, refusal->message, refusal->detail, http_request_peer(request),
                http_request_path(request));
    answer_error(&ingress->loops[http_request_loop(request)], request, refusal->status, refusal->message,
                 refusal->retry_after_s);
}

static enum metric metric_of_refusal(unsigned status)
{
    switch (status) {
    case 408:
        return METRIC_WEBHOOKS_TOO_SLOW;
    case 413:
        return METRIC_WEBHOOKS_TOO_LARGE;
    case 414:
        return METRIC_WEBHOOKS_LONG_TARGET;
    case 431:
        return METRIC_WEBHOOKS_LONG_HEADERS;
    case 503:
        return METRIC_WEBHOOKS_UNAVAILABLE;
    case 505:
        return METRIC_WEBHOOKS_BAD_VERSION;
    default:
        return METRIC_WEBHOOKS_MALFORMED;
    }
}

/* What the server refuses before the ingress sees it, or in its place. */
static void on_refused(void *ctx, const struct http_request *request, unsigned status, const char *message)
{
    struct slice path = http_request_path(request);
    metrics_add(metric_of_refusal(status), 1);
    log_refusal(ctx, status, message, NULL, http_request_peer(request), path.size ? path : SLICE("-"));
}

static void answer_taken(struct loop *loop, struct http_request *request, const struct ticket *ticket)
{
    bool duplicate = ticket->append.outcome == JOURNAL_DUPLICATE;
    metrics_add(duplicate ? METRIC_WEBHOOKS_DUPLICATE : METRIC_WEBHOOKS_ACCEPTED, 1);
    buf_reset(&loop->answer);
    buf_append_text(&loop->answer, "{\"code\":0,\"message\":\"OK\",\"data\":{\"id\":");
    buf_append_json_string(&loop->answer, (struct slice){ticket->id, ticket->id_size});
    buf_append_text(&loop->answer, duplicate ? ",\"duplicate\":true}}" : ",\"duplicate\":false}}");
    http_request_answer(request, &(struct http_answer){.status = 200, .body = buf_slice(&loop->answer)});
}

/* --- a request's way --- */

/* Which apps of the path have a secret that signed this request, as a bit each, and whose current one did. */
static uint64_t verified_apps(const struct loop *loop, struct http_request *request, struct slice timestamp,
                              const uint8_t mac[SIGNATURE_BYTES], uint64_t *by_current)
{
    struct slice path = http_request_path(request), host = http_request_header(request, "Host");
    uint64_t verified = 0;
    *by_current = 0;
    for (size_t i = 0; i < loop->set->count; i++) {
        const struct app *app = &loop->set->apps[i];
        if (!slice_equal(slice_of(app->path), path)) {
            continue;
        }
        struct signed_request signed_request = {
            .method = http_request_method(request),
            .domain = signature_domain(app->public_host ? slice_of(app->public_host) : host),
            .path = app->public_path ? slice_of(app->public_path) : path,
            .body = http_request_body(request),
            .timestamp = timestamp,
        };
        bool current = signer_verify(loop->signers[2 * i], &signed_request, mac);
        bool previous = loop->signers[2 * i + 1] && signer_verify(loop->signers[2 * i + 1], &signed_request, mac);
        verified |= (uint64_t)(current || previous) << i;
        *by_current |= (uint64_t)current << i;
    }
    return verified;
}

/* The verified app whose events these are: one that names the appId before one that takes any. */
static struct app *app_of(struct app_set *set, uint64_t verified, struct slice app_id)
{
    struct app *any = NULL;
    for (size_t i = 0; i < set->count; i++) {
        struct app *app = &set->apps[i];
        if (!(verified >> i & 1)) {
            continue;
        }
        if (slice_equal(slice_of(app->id), app_id)) {
            return app;
        }
        any = app->id[0] == 0 ? app : any;
    }
    return any;
}

/* True if the headers name a fresh time and a MAC; else refusal says what is wrong with them. */
static bool read_signature(struct slice timestamp, struct slice signature, int64_t now_ms, uint8_t mac[SIGNATURE_BYTES],
                           struct refusal *refusal)
{
    int64_t timestamp_ms;
    *refusal = (struct refusal){403, NULL, NULL, METRIC_WEBHOOKS_BAD_TIMESTAMP, 0};
    if (timestamp.size == 0) {
        refusal->message = "missing timestamp";
    } else if (signature.size == 0) {
        refusal->message = "missing signature";
        refusal->metric = METRIC_WEBHOOKS_BAD_SIGNATURE;
    } else if (!signature_parse_timestamp(timestamp, &timestamp_ms)) {
        refusal->message = "timestamp is invalid";
        refusal->detail = "it is not 13 digits";
    } else if (!signature_is_fresh(timestamp_ms, now_ms)) {
        refusal->message = "timestamp is invalid";
        refusal->detail = "it is more than 5 minutes from this host's clock";
    } else if (!hex_decode(signature, mac, SIGNATURE_BYTES)) {
        refusal->message = "signature verification failed";
        refusal->detail = "it is not 64 hexadecimal digits";
        refusal->metric = METRIC_WEBHOOKS_BAD_SIGNATURE;
    }
    return !refusal->message;
}

static struct ticket *ticket_of(struct loop *loop, struct http_request *request, struct event *event)
{
    uint8_t key[EVENT_KEY_BYTES];
    struct ticket *ticket = calloc(1, sizeof *ticket + event->id.size);
    buf_reset(&loop->head);
    event_encode_head(event, &loop->head);
    if (!ticket || loop->head.failed || !event_key(event, key)) {
        free(ticket);
        return NULL;
    }
    ticket->request = request;
    ticket->begun_us = loop->now_us;
    ticket->id_size = event->id.size;
    memcpy(ticket->id, event->id.data, event->id.size); /* never empty */
    size_t body_size;
    char *body = http_request_take_body(request, &body_size); /* the head holds offsets, no pointers */
    ticket->append.event = journal_event_new(key, event->accepted_ms, buf_slice(&loop->head), body, body_size);
    if (!ticket->append.event) {
        free(ticket);
        return NULL;
    }
    return ticket;
}

static void refuse_stopped(struct ingress *ingress, struct journal_append *batch)
{
    for (struct journal_append *append = batch; append; append = append->next) {
        journal_event_free(append->event);
        append->event = NULL;
        append->outcome = JOURNAL_REFUSED;
        append->why = "the bridge is stopping";
    }
    ingress_appended(ingress, batch);
}

static void hand_over(struct ingress *ingress, struct loop *loop)
{
    struct journal_append *batch = loop->first;
    if (!batch) {
        return;
    }
    loop->first = NULL;
    loop->last = &loop->first;
    loop->collected = 0;
    pthread_mutex_lock(&ingress->lock);
    bool is_stopped = ingress->is_stopped;
    if (!is_stopped) {
        journal_append(ingress->journal, batch);
    }
    pthread_mutex_unlock(&ingress->lock);
    if (is_stopped) {
        refuse_stopped(ingress, batch);
    }
}

/* A busy loop hands its first events on while it reads the others. */
static void take(struct ingress *ingress, struct loop *loop, struct http_request *request, struct event *event)
{
    struct ticket *ticket = ticket_of(loop, request, event);
    if (!ticket) {
        refuse(ingress, request, &(struct refusal){503, "out of memory", NULL, METRIC_WEBHOOKS_UNAVAILABLE, RETRY_SOON_S});
        return;
    }
    http_request_set_user(request, ticket);
    http_request_park(request);
    *loop->last = &ticket->append;
    loop->last = &ticket->append.next;
    if (++loop->collected == HANDOVER) {
        hand_over(ingress, loop);
    }
}

/* A traceparent that is given twice is none; the list of tracestate may be split over several headers (W3C Trace Context,
 * 3.2 and 3.3). The joined list lies in loop->answer. */
static void set_trace(struct loop *loop, const struct http_request *request, struct event *event)
{
    struct slice parent, states[MAX_TRACESTATE_HEADERS], state = {0};
    size_t count = http_request_headers(request, "tracestate", states, MAX_TRACESTATE_HEADERS);
    if (http_request_headers(request, "traceparent", &parent, 1) != 1) {
        parent = (struct slice){0};
    }
    buf_reset(&loop->answer);
    for (size_t i = 0; i < count && count <= MAX_TRACESTATE_HEADERS; i++) {
        buf_append_text(&loop->answer, i > 0 ? "," : "");
        buf_append(&loop->answer, states[i]);
        state = buf_slice(&loop->answer);
    }
    if (loop->answer.failed) {
        state = (struct slice){0};
    }
    event_set_trace(event, parent, state);
}

static void count_verified(const struct app *app, bool by_current)
{
    metrics_app_add(app->metrics, by_current ? METRIC_APP_VERIFIED_CURRENT : METRIC_APP_VERIFIED_PREVIOUS, 1);
    if (!by_current) {
        metrics_app_set(app->metrics, METRIC_APP_PREVIOUS_USED, clock_wall_ms());
    }
}

static void on_verified(struct ingress *ingress, struct loop *loop, struct http_request *request, uint64_t verified,
                        uint64_t by_current)
{
    struct event event;
    struct error why;
    struct slice body = http_request_body(request);
    metrics_add(METRIC_WEBHOOK_BYTES, body.size);
    loop->scratch.limit = body.size + 64;
    buf_reset(&loop->scratch);
    enum err failed = event_parse(&event, body, &loop->scratch, &why);
    if (failed == ERR_INVALID) {
        refuse(ingress, request, &(struct refusal){400, why.text, NULL, METRIC_WEBHOOKS_MALFORMED, 0});
        return;
    }
    if (failed) {
        refuse(ingress, request, &(struct refusal){503, why.text, NULL, METRIC_WEBHOOKS_UNAVAILABLE, RETRY_SOON_S});
        return;
    }
    struct app *app = app_of(loop->set, verified, event.app_id);
    if (!app) {
        refuse(ingress, request,
               &(struct refusal){403, "app is not allowed", "the secret that signed it is another app's",
                                 METRIC_WEBHOOKS_WRONG_APP, 0});
        return;
    }
    count_verified(app, by_current >> (app - loop->set->apps) & 1);
    if (!bucket_take(&app->bucket, loop->now_us)) {
        refuse(ingress, request,
               &(struct refusal){429, "too many events for this app", NULL, METRIC_WEBHOOKS_RATE_LIMITED, RETRY_RATE_S});
        return;
    }
    if (loop->set->routes && !route_table_matches(loop->set->routes, event.name)) {
        refuse(ingress, request,
               &(struct refusal){503, "no route matches this event", NULL, METRIC_WEBHOOKS_UNAVAILABLE, RETRY_SOON_S});
        return;
    }
    event.accepted_ms = loop->wall_ms;
    set_trace(loop, request, &event);
    take(ingress, loop, request, &event);
}

static void on_headers(void *ctx, struct http_request *request)
{
    struct ingress *ingress = ctx;
    struct loop *loop = &ingress->loops[http_request_loop(request)];
    struct error why;
    if (loop_refresh(ingress, loop, &why)) {
        refuse(ingress, request, &(struct refusal){503, why.text, NULL, METRIC_WEBHOOKS_UNAVAILABLE, RETRY_SOON_S});
        return;
    }
    bool known = false;
    for (size_t i = 0; i < loop->set->count && !known; i++) {
        known = slice_equal(slice_of(loop->set->apps[i].path), http_request_path(request));
    }
    if (!known) {
        refuse(ingress, request, &(struct refusal){404, "no app has this path", NULL, METRIC_WEBHOOKS_NO_PATH, 0});
    } else if (!slice_equal(http_request_method(request), SLICE("POST"))) {
        refuse(ingress, request, &(struct refusal){405, "only POST is served here", NULL, METRIC_WEBHOOKS_BAD_METHOD, 0});
    }
}

static void judge(struct ingress *ingress, struct loop *loop, struct http_request *request)
{
    struct slice timestamp = http_request_header(request, SIGNATURE_TIMESTAMP_HEADER);
    struct slice signature = http_request_header(request, SIGNATURE_HEADER);
    struct error why;
    struct refusal refusal;
    uint8_t mac[SIGNATURE_BYTES];
    if (loop_refresh(ingress, loop, &why)) {
        refuse(ingress, request, &(struct refusal){503, why.text, NULL, METRIC_WEBHOOKS_UNAVAILABLE, RETRY_SOON_S});
        return;
    }
    if (!read_signature(timestamp, signature, loop->wall_ms, mac, &refusal)) {
        refuse(ingress, request, &refusal);
        return;
    }
    uint64_t by_current, verified = verified_apps(loop, request, timestamp, mac, &by_current);
    if (verified == 0) {
        refuse(ingress, request,
               &(struct refusal){403, "signature verification failed",
                                 "another secret, or host, path or body changed on the way: ask meowbridge explain",
                                 METRIC_WEBHOOKS_BAD_SIGNATURE, 0});
        return;
    }
    on_verified(ingress, loop, request, verified, by_current);
}

static void on_whole(void *ctx, struct http_request *request)
{
    struct ingress *ingress = ctx;
    struct loop *loop = &ingress->loops[http_request_loop(request)];
    look_at_clock(loop);
    judge(ingress, loop, request);
    if (!http_request_user(request)) { /* it does not wait for the journal */
        metrics_observe(HISTOGRAM_WEBHOOK_DURATION, clock_mono_us() - loop->now_us);
    }
}

static void shrink(struct buf *buffer)
{
    if (buffer->capacity > KEPT_BUFFER_BYTES) {
        buf_free(buffer);
    }
}

static void on_rest(void *ctx, unsigned index)
{
    struct ingress *ingress = ctx;
    struct loop *loop = &ingress->loops[index];
    shrink(&loop->scratch);
    shrink(&loop->answer);
    loop->clock_uses = 0;
    hand_over(ingress, loop);
}

static void on_resumed(void *ctx, struct http_request *request)
{
    struct ingress *ingress = ctx;
    struct loop *loop = &ingress->loops[http_request_loop(request)];
    struct ticket *ticket = http_request_user(request);
    look_at_clock(loop);
    if (ticket->append.outcome == JOURNAL_REFUSED) {
        const char *message = ticket->why ? ticket->why : "the event cannot be kept now";
        refuse(ingress, request, &(struct refusal){503, message, NULL, METRIC_WEBHOOKS_UNAVAILABLE, RETRY_SOON_S});
    } else {
        answer_taken(loop, request, ticket);
    }
    metrics_observe(HISTOGRAM_WEBHOOK_DURATION, loop->now_us - ticket->begun_us);
}

static void on_finished(void *ctx, struct http_request *request)
{
    (void)ctx;
    struct ticket *ticket = http_request_user(request);
    if (ticket) {
        free(ticket->why);
        free(ticket);
    }
}

void ingress_appended(void *ctx, struct journal_append *batch)
{
    (void)ctx;
    struct http_request *requests[RESUME_CHUNK];
    while (batch) {
        size_t count = 0;
        for (; batch && count < RESUME_CHUNK; count++) {
            struct ticket *ticket = (struct ticket *)batch;
            batch = batch->next; /* before the resume: the loop may free the ticket at once */
            ticket->why = ticket->append.why ? strdup(ticket->append.why) : NULL;
            requests[count] = ticket->request;
        }
        http_requests_resume(requests, count);
    }
}

struct http_handler ingress_handler(struct ingress *ingress)
{
    return (struct http_handler){.ctx = ingress,
                                 .headers = on_headers,
                                 .whole = on_whole,
                                 .resumed = on_resumed,
                                 .at_rest = on_rest,
                                 .finished = on_finished,
                                 .error_body = append_error_body,
                                 .refused = on_refused};
}

/* --- life --- */

enum err ingress_open(struct ingress **out, const struct ingress_options *options, struct error *why)
{
    struct ingress *ingress = calloc(1, sizeof *ingress + options->loops * sizeof ingress->loops[0]);
    if (!ingress) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    pthread_mutex_init(&ingress->lock, NULL);
    ingress->journal = options->journal;
    ingress->loop_count = options->loops;
    atomic_init(&ingress->generation, 1);
    for (unsigned i = 0; i < options->loops; i++) {
        struct loop *loop = &ingress->loops[i];
        buf_init(&loop->scratch, 0);
        buf_init(&loop->head, 64 * 1024);
        buf_init(&loop->answer, 512 * 1024 * 1024);
        loop->last = &loop->first;
    }
    enum err failed = set_open(&ingress->current, options->apps, options->app_count, options->routes, 1, why);
    if (failed) {
        ingress_close(&ingress);
        return failed;
    }
    *out = ingress;
    return ERR_NONE;
}

void ingress_stop(struct ingress *ingress)
{
    pthread_mutex_lock(&ingress->lock);
    ingress->is_stopped = true;
    pthread_mutex_unlock(&ingress->lock);
}

void ingress_close(struct ingress **ingress_)
{
    struct ingress *ingress = *ingress_;
    if (!ingress) {
        return;
    }
    for (unsigned i = 0; i < ingress->loop_count; i++) {
        struct loop *loop = &ingress->loops[i];
        ASSERT(!loop->first);
        loop_drop_set(loop);
        buf_free(&loop->scratch);
        buf_free(&loop->head);
        buf_free(&loop->answer);
    }
    set_unref(ingress->current);
    pthread_mutex_destroy(&ingress->lock);
    free(ingress);
    *ingress_ = NULL;
}

enum err ingress_reload(struct ingress *ingress, const struct ingress_app *apps, size_t app_count, struct route_table *routes,
                        struct error *why)
{
    struct app_set *set;
    enum err failed = set_open(&set, apps, app_count, routes, atomic_load(&ingress->generation) + 1, why);
    if (failed) {
        return failed;
    }
    pthread_mutex_lock(&ingress->lock);
    struct app_set *old = ingress->current;
    ingress->current = set;
    atomic_store(&ingress->generation, set->generation);
    pthread_mutex_unlock(&ingress->lock);
    set_unref(old);
    return ERR_NONE;
}
