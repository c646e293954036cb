/* HTTP on libmicrohttpd: a thread and at most HTTP_CONNECTION_BYTES per connection, SERVE_HTTP_CLIENTS connections.
 *
 * Order for each request: who asks (Host, Origin, Sec-Fetch-Site), method, path, then the handler. Bodies of answers
 * are charged to the payer "http" until they are sent, so a slow reader costs the budget, not the machine; if the
 * budget refuses, the answer is 503. Kernel buffers are bounded by SO_SNDBUF of the listening socket, which
 * connections inherit.
 *
 * A request must be whole in HTTP_REQUEST_S, however it trickles.
 *
 * Invariant: nothing of a request is used before guard() has let it in. SPDX-License-Identifier: Apache-2.0 */
#include "serve/http_inside.h"
#include "serve/metrics.h"
#include "serve/page.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SEND_BUFFER = 128 << 10, STACK_BYTES = 512 << 10 };

const char *http_argument(struct http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->c, MHD_GET_ARGUMENT_KIND, name);
}

const char *http_header(struct http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->c, MHD_HEADER_KIND, name);
}

/* ---- answers */

http_result http_queue(struct http_request *r, unsigned status, struct MHD_Response *resp, const char *type)
{
    if (!resp) return MHD_NO;
    bool page = !strcmp(type, "text/html; charset=utf-8");
    MHD_add_response_header(resp, "Content-Type", type);
    MHD_add_response_header(resp, "Cache-Control", "no-store");
    MHD_add_response_header(resp, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(resp, "X-Frame-Options", "DENY");
    MHD_add_response_header(resp, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(resp, "Cross-Origin-Resource-Policy", "same-origin");
    MHD_add_response_header(resp, "Content-Security-Policy",
                            page ? serve_page_csp : "default-src 'none'; frame-ancestors 'none'");
    http_result x = MHD_queue_response(r->c, status, resp);
    MHD_destroy_response(resp);
    return x;
}

struct body {
    struct mem_payer *payer;
    char *text;
    size_t n;
};

static void free_body(void *arg)
{
    struct body *b = arg;
    if (b->n) mem_release(b->payer, MEM_QUEUE, b->n);
    free(b->text);
    free(b);
}

static http_result send_static(struct http_request *r, unsigned status, const char *type, const void *text, size_t n)
{
    return http_queue(r, status, MHD_create_response_from_buffer(n, (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT),
                      type);
}

http_result http_send(struct http_request *r, unsigned status, const char *type, char *text, size_t n)
{
    static const char full[] = "{\"error\":\"the memory budget has no room for this answer now\"}\n";
    struct body *b = xnew(struct body);
    *b = (struct body){.payer = r->http->payer, .text = text};
    if (mem_charge(b->payer, MEM_QUEUE, n)) {
        free_body(b);
        return send_static(r, 503, "application/json", full, sizeof full - 1);
    }
    b->n = n;
    struct MHD_Response *resp = MHD_create_response_from_buffer_with_free_callback_cls(n, text, free_body, b);
    if (!resp) free_body(b);
    return http_queue(r, status, resp, type);
}

http_result http_send_json(struct http_request *r, unsigned status, json_t *j)
{
    struct strbuf b = {0};
    char *text = j ? json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(10)) : NULL;
    json_decref(j);
    if (!text) return http_send_error(r, 500, "this answer could not be made");
    strbuf_add(&b, text);
    strbuf_add(&b, "\n");
    free(text);
    size_t n = b.len;
    return http_send(r, status, "application/json", strbuf_take(&b), n);
}

http_result http_send_error(struct http_request *r, unsigned status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    json_t *text = json_vsprintf(fmt, ap);
    va_end(ap);
    return http_send_json(r, status, json_pack("{s:o}", "error", text ? text : json_string(err_name(ERR_INTERNAL))));
}

http_result http_send_err(struct http_request *r, err e)
{
    unsigned status = e == ERR_NOT_FOUND                ? 404
                      : e == ERR_NOMEM                  ? 409
                      : e == ERR_AGAIN || e == ERR_BUSY ? 503
                      : err_exit_status(e) == 2         ? 400
                                                        : 500;
    return http_send_error(r, status, "%s", err_text());
}

bool http_stream_begin(struct http_request *r, http_result *ret)
{
    if (atomic_fetch_add(&r->http->streams, 1) < HTTP_MAX_STREAMS) return true;
    atomic_fetch_sub(&r->http->streams, 1);
    *ret = http_send_error(r, 503, "%d streams are open, more are not served; close some", HTTP_MAX_STREAMS);
    return false;
}

void http_stream_end(struct serve_http *h)
{
    atomic_fetch_sub(&h->streams, 1);
}

/* ---- health */

static bool runs(const struct engine_query_row *q)
{
    int64_t minute = (int64_t)60 * 1000000000;
    return !q->problem[0] &&
           ((q->stats.last_run_ns && clock_ns() - q->stats.last_run_ns < minute) || q->motion_saved);
}

bool http_ready(struct serve_http *h, json_t *reasons)
{
    struct engine_camera_row *c;
    struct engine_query_row *q;
    struct rows_stats rows = {0};
    size_t n = engine_cameras(h->engine, &c), live = 0, running = 0;
    for (size_t i = 0; i < n; i++) live += c[i].video.state == VIDEO_LIVE;
    free(c);
    if (!live) json_array_append_new(reasons, json_string("no camera is live"));
    n = engine_queries(h->engine, &q);
    for (size_t i = 0; i < n; i++) running += runs(&q[i]);
    free(q);
    if (!running) json_array_append_new(reasons, json_string("no query has run in the last minute"));
    if (h->rows) rows_stats(h->rows, &rows);
    if (rows.problem[0]) json_array_append_new(reasons, json_sprintf("database: %s", rows.problem));
    if (!h->rows && !engine_site_get(h->hold)->outputs.database_off)
        json_array_append_new(reasons, json_string("the database could not be opened"));
    return json_array_size(reasons) == 0;
}

static http_result get_readyz(struct http_request *r)
{
    json_t *reasons = json_array();
    bool ready = http_ready(r->http, reasons);
    return http_send_json(r, ready ? 200 : 503, json_pack("{s:b, s:o}", "ready", ready, "reasons", reasons));
}

static http_result get_healthz(struct http_request *r)
{
    return send_static(r, 200, "text/plain; charset=utf-8", "alive\n", 6);
}

static http_result get_page(struct http_request *r)
{
    return send_static(r, 200, "text/html; charset=utf-8", serve_page, serve_page_size);
}

http_result http_metrics(struct http_request *r)
{
    struct strbuf b = {0};
    struct serve_http *h = r->http;
    pthread_mutex_lock(&h->build);
    metrics_write(&b, h->engine, h->rows);
    metrics_write_outputs(&b, serve_feed_counts(h->feed));
    pthread_mutex_unlock(&h->build);
    strbuf_addf(
        &b,
        "# HELP brim_http_requests_total Requests, refused ones included.\n# TYPE brim_http_requests_total counter\n"
        "brim_http_requests_total %llu\n# HELP brim_http_refused_total Requests with a foreign Host or Origin.\n"
        "# TYPE brim_http_refused_total counter\nbrim_http_refused_total %llu\n"
        "# HELP brim_http_streams Open streams of events and pictures.\n# TYPE brim_http_streams "
        "gauge\nbrim_http_streams %d\n# HELP brim_http_ended_total Connections ended because their request did not become whole in time.\n"
        "# TYPE brim_http_ended_total counter\nbrim_http_ended_total %llu\n",
        (unsigned long long)atomic_load(&h->requests), (unsigned long long)atomic_load(&h->refused),
        atomic_load(&h->streams), http_patience_ended(h->patience));
    size_t n = b.len;
    return http_send(r, 200, "text/plain; version=0.0.4; charset=utf-8", strbuf_take(&b), n);
}

/* ---- requests */

struct route {
    const char *path; /* with a final '*': begins so */
    bool post;
    http_result (*answer)(struct http_request *r);
};
static const struct route ROUTES[] = {
    {"/", false, get_page},
    {"/healthz", false, get_healthz},
    {"/readyz", false, get_readyz},
    {"/metrics", false, http_metrics},
    {"/live/*", false, http_live_get},
    {"/events/stream", false, http_events_stream},
    {"/api/v1/status", false, http_api_status},
    {"/api/v1/cameras", false, http_api_cameras},
    {"/api/v1/queries", false, http_api_queries},
    {"/api/v1/models", false, http_api_models},
    {"/api/v1/events", false, http_api_events},
    {"/api/v1/jobs", false, http_api_jobs},
    {"/api/v1/guards", false, http_api_guards},
    {"/api/v1/memory", false, http_api_memory},
    {"/api/v1/why", false, http_api_why},
    {"/api/v1/why/*", false, http_api_why},
    {"/api/v1/budget", true, http_api_budget},
};

static const struct route *find_route(const char *path)
{
    for (size_t i = 0; i < ARRAY_LEN(ROUTES); i++) {
        size_t n = strlen(ROUTES[i].path);
        bool open = ROUTES[i].path[n - 1] == '*';
        if (open ? !strncmp(path, ROUTES[i].path, n - 1) && path[n - 1] : !strcmp(path, ROUTES[i].path))
            return &ROUTES[i];
    }
    return NULL;
}

/* Is the caller allowed to ask anything at all? If not, *ret is the result of the answer given. */
static bool guard(struct http_request *r, http_result *ret)
{
    const char *host = http_header(r, "Host"), *origin = http_header(r, "Origin");
    if (!http_guard_is_ours(&r->http->guard, host)) {
        *ret = http_send_error(r, 421, "this Host is not known here; add it to outputs.http.hosts");
    } else if (!http_guard_same_origin(origin, host) ||
               !http_guard_fetch(http_header(r, "Sec-Fetch-Site"), http_header(r, "Sec-Fetch-Mode"),
                                 http_header(r, "Sec-Fetch-Dest"))) {
        *ret = http_send_error(r, 403, "pages of other sites may not ask here");
    } else {
        return true;
    }
    atomic_fetch_add(&r->http->refused, 1);
    return false;
}

static http_result refuse_method(struct http_request *r, const char *allow)
{
    static const char text[] = "{\"error\":\"this method is not for this address\"}\n";
    struct MHD_Response *resp =
        MHD_create_response_from_buffer(sizeof text - 1, (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    if (resp) MHD_add_response_header(resp, "Allow", allow);
    return http_queue(r, 405, resp, "application/json");
}

static http_result answer(struct http_request *r, const char *method)
{
    http_result x;
    bool get = !strcmp(method, "GET") || !strcmp(method, "HEAD"), post = !strcmp(method, "POST");
    if (!guard(r, &x)) return x;
    const struct route *route = find_route(r->path);
    if (!get && !post) return refuse_method(r, "GET, HEAD, POST");
    if (!route) return http_send_error(r, 404, "there is nothing at this address");
    if (route->post != post) return refuse_method(r, route->post ? "POST" : "GET, HEAD");
    if (post && !http_guard_is_json(http_header(r, "Content-Type")))
        return http_send_error(r, 415, "Content-Type must be application/json");
    if (r->too_large) return http_send_error(r, 413, "a body has at most %d bytes here", HTTP_MAX_BODY);
    return route->answer(r);
}

static http_result on_request(void *arg, struct MHD_Connection *c, const char *path, const char *method,
                              const char *version, const char *data, size_t *size, void **state)
{
    struct http_request *r = *state;
    (void)version;
    if (!r) { /* only the headers are there yet */
        r = *state = xnew(struct http_request);
        r->http = arg;
        r->c = c;
        atomic_fetch_add(&r->http->requests, 1);
        return MHD_YES;
    }
    if (*size) {
        if (*size > HTTP_MAX_BODY - r->body_size) r->too_large = true;
        if (!r->too_large) memcpy(r->body + r->body_size, data, *size), r->body_size += *size;
        *size = 0;
        return MHD_YES;
    }
    r->path = path;
    http_patience_asked(r->http->patience, c);
    return answer(r, method);
}

static void on_completed(void *arg, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode code)
{
    struct serve_http *h = arg;
    (void)code;
    http_patience_answered(h->patience, c);
    free(*state);
    *state = NULL;
}

/* ---- opening */

static err listen_on(struct serve_http *h, const char *host, int port, int *ret)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list, *a;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    int rc = getaddrinfo(host, service, &hints, &list), on = 1, buffer = SEND_BUFFER;
    if (rc) return err_set(ERR_USAGE, "http: '%s' is no address to listen on: %s", host, gai_strerror(rc));
    for (a = list; a->ai_next && a->ai_family != AF_INET;) a = a->ai_next; /* "localhost": IPv4 first */
    if (a->ai_family != AF_INET) a = list;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    err e = ERR_OK;
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    }
    if (fd < 0 || bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 64)) {
        if (errno == EADDRINUSE)
            e = err_set(ERR_BUSY, "http: %s:%d is in use by another program; set outputs.http.listen to another port",
                        host, port);
        else
            e = err_set(errno == EADDRNOTAVAIL ? ERR_USAGE : ERR_IO, "http: cannot listen on %s:%d: %s", host, port,
                        strerror(errno));
    }
    if (!e) {
        struct sockaddr_storage got;
        socklen_t n = sizeof got;
        getsockname(fd, (struct sockaddr *)&got, &n);
        h->port = ntohs(got.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&got)->sin6_port
                                                  : ((struct sockaddr_in *)&got)->sin_port);
        *ret = fd;
    } else if (fd >= 0) {
        close(fd);
    }
    freeaddrinfo(list);
    return e;
}

static void set_guard(struct serve_http *h, const struct site_outputs *o)
{
    size_t n = strlen(o->http_host);
    bool bracket = o->http_host[0] == '[' && n > 2;
    snprintf(h->listen, sizeof h->listen, "%.*s", (int)(n - 2 * bracket), o->http_host + bracket);
    h->guard = (struct http_guard){.listen = h->listen, .names = o->http_hosts.items, .n_names = o->http_hosts.count};
    h->guard.any_address = !strcmp(h->listen, "0.0.0.0") || !strcmp(h->listen, "::");
}

static err start(struct serve_http *h, int fd)
{
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC;
    h->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, h, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)SERVE_HTTP_CLIENTS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_CONNECTION_BYTES,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_TIMEOUT_S, MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
        MHD_OPTION_NOTIFY_CONNECTION, http_patience_connection, h->patience, MHD_OPTION_END);
    return h->daemon ? ERR_OK : err_set(ERR_IO, "http: cannot start: %s", strerror(errno));
}

err serve_http_open(struct engine *e, struct rows *rows, struct serve_feed *feed, const struct site_outputs *o,
                    struct serve_http **ret)
{
    struct serve_http *h = xnew(struct serve_http);
    int fd = -1;
    h->stop.fd = -1;
    h->engine = e;
    h->rows = rows;
    h->feed = feed;
    h->hold = engine_site_hold(e);
    h->payer = mem_payer_new(engine_budget(e), "http");
    pthread_mutex_init(&h->build, NULL);
    set_guard(h, o);
    err x = thread_event_init(&h->stop);
    if (!x) x = http_live_new(h, &h->live);
    if (!x) x = http_patience_new(HTTP_TIMEOUT_S, &h->patience);
    if (!x) x = listen_on(h, h->listen, o->http_port, &fd);
    if (!x && (x = start(h, fd))) close(fd);
    if (x) serve_http_close(&h);
    else *ret = h;
    return x;
}

void serve_http_close(struct serve_http **hp)
{
    struct serve_http *h = *hp;
    if (!h) return;
    if (h->daemon) thread_event_set(&h->stop);
    if (h->daemon) MHD_stop_daemon(h->daemon); /* closes the socket and waits for all connections */
    http_patience_free(&h->patience);
    http_live_free(&h->live);
    thread_event_done(&h->stop);
    mem_payer_free(&h->payer);
    engine_site_unref(&h->hold);
    pthread_mutex_destroy(&h->build);
    free(h);
    *hp = NULL;
}

int serve_http_port(const struct serve_http *h)
{
    return h->port;
}
