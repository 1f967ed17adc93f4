#include "admin_internal.h"

#include "meowbridge/clock.h"
#include "meowbridge/heartbeat.h"
#include "meowbridge/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the small endpoints --- */

static void serve_live(struct admin *admin, struct http_request *request)
{
    (void)admin;
    struct buf late;
    buf_init(&late, 8192);
    bool alive = heartbeat_late(clock_mono_ms(), &late) == 0;
    answer_body(request, alive ? 200 : 503, "text/plain; charset=utf-8", alive ? SLICE("ok\n") : buf_slice(&late));
    buf_free(&late);
}

static void serve_ready(struct admin *admin, struct http_request *request)
{
    struct buf reasons, checks;
    buf_init(&reasons, 8192);
    buf_init(&checks, 8192);
    status_append_reasons(admin, &reasons);
    bool ready = reasons.size == 0 && !reasons.failed;
    struct slice text = ready ? SLICE("ok\n") : reasons.size ? buf_slice(&reasons) : SLICE("out of memory\n");
    if (query_has(request, "verbose")) {
        status_append_checks(admin, &checks);
        text = buf_slice(&checks);
    }
    answer_body(request, ready ? 200 : 503, "text/plain; charset=utf-8", text);
    buf_free(&reasons);
    buf_free(&checks);
}

static void serve_metrics(struct admin *admin, struct http_request *request)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    status_set_gauges(admin);
    metrics_print(&text);
    if (text.failed) {
        answer_problem(request, 503, "there is no memory for the answer");
    } else {
        answer_body(request, 200, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&text));
    }
    buf_free(&text);
}

static void serve_status(struct admin *admin, struct http_request *request)
{
    struct buf text;
    buf_init(&text, 256 * 1024);
    status_append_json(admin, true, &text);
    answer_json(request, &text);
}

static void serve_root(struct admin *admin, struct http_request *request)
{
    (void)admin;
    serve_page(request, 200, NULL);
}

/* --- the table of endpoints --- */

enum needs { NEEDS_NOTHING = 0, NEEDS_JOURNAL = 1 };

static const struct endpoint {
    const char *path; /* one that ends in "/" is of what is below it */
    const char *allow;
    bool is_open; /* to anybody */
    enum needs needs;
    void (*serve)(struct admin *admin, struct http_request *request);
} endpoints[] = {
    {"/livez", "GET, HEAD", true, NEEDS_NOTHING, serve_live},
    {"/healthz", "GET, HEAD", true, NEEDS_NOTHING, serve_live},
    {"/readyz", "GET, HEAD", true, NEEDS_NOTHING, serve_ready},
    {"/metrics", "GET, HEAD", false, NEEDS_NOTHING, serve_metrics},
    {"/api/status", "GET, HEAD", false, NEEDS_NOTHING, serve_status},
    {"/api/events", "GET, HEAD", false, NEEDS_JOURNAL, serve_events},
    {"/api/events/", "GET, HEAD", false, NEEDS_JOURNAL, serve_event},
    {"/api/replay", "POST", false, NEEDS_JOURNAL, serve_replay},
    {"/api/stream", "GET, HEAD", false, NEEDS_NOTHING, serve_stream},
    {"/", "GET, HEAD", false, NEEDS_NOTHING, serve_root},
};

static const struct endpoint *find_endpoint(struct slice path)
{
    for (size_t i = 0; i < sizeof endpoints / sizeof endpoints[0]; i++) {
        struct slice known = slice_of(endpoints[i].path);
        bool is_folder = known.size > 1 && known.data[known.size - 1] == '/';
        if (is_folder ? slice_starts(path, known) : slice_equal(path, known)) {
            return &endpoints[i];
        }
    }
    return NULL;
}

static bool allows(const struct endpoint *endpoint, struct slice method)
{
    bool reads = slice_equal(method, SLICE("GET")) || slice_equal(method, SLICE("HEAD"));
    return strcmp(endpoint->allow, "POST") == 0 ? slice_equal(method, SLICE("POST")) : reads;
}

static void ask_for_token(struct http_request *request, const struct endpoint *endpoint, bool was_wrong)
{
    const char *challenge = was_wrong ? "Bearer realm=\"meowbridge\", error=\"invalid_token\"" : "Bearer realm=\"meowbridge\"";
    if (endpoint && endpoint->serve == serve_root) {
        serve_page(request, 401, challenge);
        return;
    }
    answer_refusal(request, &(struct http_answer){.status = 401, .www_authenticate = challenge},
                   was_wrong ? "this is not the token of admin.token_file"
                             : "this needs \"Authorization: Bearer TOKEN\" with the token of admin.token_file");
}

/* True if it is answered. */
static bool is_refused(struct admin *admin, struct http_request *request, const struct endpoint *endpoint)
{
    switch (endpoint && endpoint->is_open ? GUARD_PASSES : admin_guard(admin, request)) {
    case GUARD_PASSES:
        return false;
    case GUARD_TOKEN_MISSING:
        ask_for_token(request, endpoint, false);
        return true;
    case GUARD_TOKEN_WRONG:
        log_warn("a wrong token on the admin listener", LOG_SLICE("peer", http_request_peer(request)));
        ask_for_token(request, endpoint, true);
        return true;
    case GUARD_HOST:
        answer_problem(request, 421, "without a token, Host must be an address or localhost");
        return true;
    case GUARD_ORIGIN:
        answer_problem(request, 403, "another site's page may not do this");
        return true;
    case GUARD_TYPE:
        answer_problem(request, 415, "Content-Type must be application/json");
        return true;
    }
    return true;
}

static void on_headers(void *ctx, struct http_request *request)
{
    struct admin *admin = ctx;
    const struct endpoint *endpoint = find_endpoint(http_request_path(request));
    struct slice method = http_request_method(request);
    pthread_rwlock_rdlock(&admin->use);
    bool refused = is_refused(admin, request, endpoint);
    pthread_rwlock_unlock(&admin->use);
    if (refused) {
        return;
    }
    if (!endpoint) {
        answer_problem(request, 404, "there is nothing here; the page is at /");
    } else if (!allows(endpoint, method)) {
        char detail[64];
        snprintf(detail, sizeof detail, "only %s is served here", endpoint->allow);
        answer_refusal(request, &(struct http_answer){.status = 405, .allow = endpoint->allow}, detail);
    }
}

static void on_whole(void *ctx, struct http_request *request)
{
    struct admin *admin = ctx;
    const struct endpoint *endpoint = find_endpoint(http_request_path(request));
    ASSERT(endpoint); /* on_headers saw to it */
    pthread_rwlock_rdlock(&admin->use);
    if (endpoint->needs == NEEDS_JOURNAL && !admin->journal) {
        answer_problem(request, 503, "the bridge is stopping");
    } else if (endpoint->needs == NEEDS_JOURNAL && !admin->journal_path) {
        answer_problem(request, 404, "the bridge runs without a journal, so there are no events to look at");
    } else {
        endpoint->serve(admin, request);
    }
    pthread_rwlock_unlock(&admin->use);
}

static void on_resumed(void *ctx, struct http_request *request)
{
    (void)ctx;
    replay_resumed(request);
}

static void on_finished(void *ctx, struct http_request *request)
{
    (void)ctx;
    replay_free(http_request_user(request));
}

static void append_error_body(void *ctx, unsigned status, const char *message, struct buf *out)
{
    (void)ctx;
    append_problem(out, status, message);
}

struct http_handler admin_handler(struct admin *admin)
{
    return (struct http_handler){.ctx = admin,
                                 .headers = on_headers,
                                 .whole = on_whole,
                                 .resumed = on_resumed,
                                 .finished = on_finished,
                                 .error_body = append_error_body,
                                 .error_type = "application/problem+json"};
}

/* --- life --- */

static bool copy_token(struct slice token, char **out)
{
    *out = token.size > 0 ? slice_dup(token) : NULL;
    return token.size == 0 || *out;
}

static void wipe_token(char *token, size_t size)
{
    if (token) {
        explicit_bzero(token, size);
        free(token);
    }
}

static bool copy_options(struct admin *admin, const struct admin_options *options)
{
    admin->journal = options->journal;
    admin->publisher = options->publisher;
    admin->routes = options->routes ? route_table_ref(options->routes) : NULL;
    admin->journal_max_bytes = options->journal_max_bytes;
    admin->token_size = options->token.size;
    admin->client_id = strdup(options->client_id);
    admin->journal_path = options->journal_path ? strdup(options->journal_path) : NULL;
    return copy_token(options->token, &admin->token) && admin->client_id && (!options->journal_path || admin->journal_path);
}

enum err admin_open(struct admin **out, const struct admin_options *options, struct error *why)
{
    struct admin *admin = calloc(1, sizeof *admin);
    if (!admin) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    pthread_rwlock_init(&admin->use, NULL);
    admin->started_wall_ms = clock_wall_ms();
    admin->started_mono_ms = clock_mono_ms();
    stream_init(admin);
    history_init(&admin->history, admin->started_mono_ms, admin->started_wall_ms);
    enum err err = copy_options(admin, options) ? ERR_NONE : error_set(why, ERR_MEMORY, "out of memory");
    err = err ? err : stream_start(admin, why);
    if (err) {
        admin_close(&admin);
        return err;
    }
    *out = admin;
    return ERR_NONE;
}

void admin_detach(struct admin *admin)
{
    stream_stop(admin);
    pthread_rwlock_wrlock(&admin->use);
    admin->journal = NULL;
    admin->publisher = NULL;
    journal_view_close(&admin->view);
    stream_forget(admin);
    pthread_rwlock_unlock(&admin->use);
}

void admin_close(struct admin **admin_pointer)
{
    struct admin *admin = *admin_pointer;
    *admin_pointer = NULL;
    if (!admin) {
        return;
    }
    admin_detach(admin);
    route_table_unref(&admin->routes);
    wipe_token(admin->token, admin->token_size);
    history_free(&admin->history);
    stream_free(admin);
    pthread_rwlock_destroy(&admin->use);
    free(admin->client_id);
    free(admin->journal_path);
    free(admin);
}

void admin_set_stopping(struct admin *admin)
{
    atomic_store(&admin->stopping, true);
}

enum err admin_reload(struct admin *admin, struct slice token, struct route_table *routes, struct error *why)
{
    char *copy;
    if (!copy_token(token, &copy)) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    pthread_rwlock_wrlock(&admin->use);
    char *old_token = admin->token;
    size_t old_size = admin->token_size;
    struct route_table *old_routes = admin->routes;
    admin->token = copy;
    admin->token_size = token.size;
    admin->routes = route_table_ref(routes);
    pthread_rwlock_unlock(&admin->use);
    wipe_token(old_token, old_size);
    route_table_unref(&old_routes);
    return ERR_NONE;
}
