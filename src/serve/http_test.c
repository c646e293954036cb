/* Tests of the HTTP side, against a box that runs: every address, who is refused, events that are on disk when they
 * are told, pictures that decode, clients that are many, slow or talk rubbish. SPDX-License-Identifier: Apache-2.0 */
#include "serve/http_guard.h"
#include "serve/metrics.h"
#include "serve/testing.h"
#include "video/source.h"

#include <errno.h>
#include <math.h>

static struct box box;

static int setup(void **state)
{
    (void)state;
    return box_open(&box, "", "");
}

static int teardown(void **state)
{
    (void)state;
    box_close(&box);
    return 0;
}

/* ---- pure functions */

static void hosts_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text, *name;
        int port;
    } good[] = {{"localhost", "localhost", 0}, {"LocalHost:8090", "localhost", 8090}, {"127.0.0.1:1", "127.0.0.1", 1},
                {"[::1]", "::1", 0},           {"[::1]:65535", "::1", 65535},         {"box.lan.", "box.lan", 0},
                {"a_b-c.d:80", "a_b-c.d", 80}};
    static const char *const bad[] = {"",       ":80",  "a:",     "a:0",      "a:65536",    "a:123456", "a:8x",
                                      "a b",    "a/b",  "a@b",    "[::1",     "::1",        "[]",       "[g::]",
                                      "[::1]x", "a\tb", "[::1]:", "\xc3\xa9", "[127.0.0.1]"};
    char name[HTTP_GUARD_HOST], longest[300];
    int port;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(http_guard_host(good[i].text, name, &port));
        assert_string_equal(name, good[i].name);
        assert_int_equal(port, good[i].port);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) assert_false(http_guard_host(bad[i], name, &port));
    memset(longest, 'a', sizeof longest);
    longest[HTTP_GUARD_HOST - 1] = 0;
    assert_true(http_guard_host(longest, name, &port));
    longest[HTTP_GUARD_HOST - 1] = 'a', longest[HTTP_GUARD_HOST] = 0;
    assert_false(http_guard_host(longest, name, &port));
}

static void foreign_names_are_not_ours(void **state)
{
    (void)state;
    static const char *const names[] = {"brim.example"};
    struct http_guard g = {.listen = "10.0.0.5", .names = names, .n_names = 1},
                      all = {.listen = "0.0.0.0", .any_address = true};
    static const char *const ours[] = {"10.0.0.5:8090", "127.0.0.1", "localhost:1", "[::1]:8090", "BRIM.example:443"};
    static const char *const foreign[] = {"evil.example",      "10.0.0.6", "localhost.evil.example",
                                          "brim.example.evil", "",         "127.0.0.1.nip.io"};
    for (size_t i = 0; i < ARRAY_LEN(ours); i++) assert_true(http_guard_is_ours(&g, ours[i]));
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++) assert_false(http_guard_is_ours(&g, foreign[i]));
    assert_false(http_guard_is_ours(&g, NULL));
    assert_true(http_guard_is_ours(&all, "10.9.8.7:8090")); /* no name, so nobody else's */
    assert_true(http_guard_is_ours(&all, "[fe80::1]"));
    assert_false(http_guard_is_ours(&all, "evil.example"));
    assert_true(http_guard_same_origin(NULL, "a:1") && http_guard_same_origin("http://a:1", "a:1") &&
                http_guard_same_origin("https://A", "a"));
    assert_false(http_guard_same_origin("null", "a") || http_guard_same_origin("http://b", "a") ||
                 http_guard_same_origin("http://a:2", "a:1") || http_guard_same_origin("file://a", "a") ||
                 http_guard_same_origin("http://a", NULL) || http_guard_same_origin("", "a"));
    assert_true(http_guard_fetch(NULL, NULL, NULL) && http_guard_fetch("same-origin", "cors", "empty") &&
                http_guard_fetch("none", "navigate", "document") &&
                http_guard_fetch("cross-site", "navigate", "document"));
    assert_false(http_guard_fetch("cross-site", "no-cors", "image") ||
                 http_guard_fetch("same-site", "cors", "empty") ||
                 http_guard_fetch("cross-site", "navigate", "iframe") || http_guard_fetch("cross-site", NULL, NULL));
    assert_true(http_guard_is_json("application/json") && http_guard_is_json("Application/JSON; charset=utf-8"));
    assert_false(http_guard_is_json(NULL) || http_guard_is_json("text/plain") ||
                 http_guard_is_json("application/jsonx") || http_guard_is_json(""));
}

static void numbers_are_read_whole(void **state)
{
    (void)state;
    int64_t n = 7;
    double x = 7;
    static const char *const bad[] = {
        "", "-", "x", "1x", " 1", "+1", "0x10", "1.5", "101", "-1", "99999999999999999999"};
    static const char *const bad_seconds[] = {"",   ".",     ".5",  "1e9",          "nan", "inf",
                                              "-1", "1.2.3", "0x1", "999999999999", " 1",  "1 "};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) assert_false(http_guard_int(bad[i], 0, 100, &n));
    for (size_t i = 0; i < ARRAY_LEN(bad_seconds); i++) assert_false(http_guard_seconds(bad_seconds[i], &x));
    assert_true(n == 7 && x == 7);
    assert_true(http_guard_int("100", 0, 100, &n) && n == 100);
    assert_true(http_guard_int("9223372036854775807", 0, INT64_MAX, &n) && n == INT64_MAX);
    assert_true(http_guard_seconds("1763690400.25", &x) && fabs(x - 1763690400.25) < 1e-6);
    assert_true(http_guard_name("door-1.a_B", 10));
    assert_false(http_guard_name("", 0) || http_guard_name("a/b", 3) || http_guard_name("..", 2) ||
                 http_guard_name("a b", 3) || http_guard_name("a\0b", 3) || http_guard_name("", 1));
}

static void labels_are_escaped(void **state)
{
    (void)state;
    char text[METRICS_TEXT], *longest = xcalloc(1, 5000);
    assert_string_equal(metrics_escape("a\"b\\c\nd\te", text), "a\\\"b\\\\c\\nd?e");
    memset(longest, '"', 4999);
    assert_true(strlen(metrics_escape(longest, text)) < METRICS_TEXT && strlen(text) % 2 == 0);
    free(longest);
}

/* ---- every address */

static void every_address_answers(void **state)
{
    (void)state;
    static const char *const json[] = {
        "/readyz",
        "/api/v1/status",
        "/api/v1/cameras",
        "/api/v1/queries",
        "/api/v1/models",
        "/api/v1/events",
        "/api/v1/memory",
        "/api/v1/jobs",
        "/api/v1/guards",
        "/api/v1/why/yard",
        "/api/v1/why?camera=yard",
        "/api/v1/events?camera=yard&query=stir&event=appeared&since=1&until=99999999999&limit=3&before=1000000"};
    box_wait_events(&box, 2);
    for (size_t i = 0; i < ARRAY_LEN(json); i++) {
        struct reply r = get(&box, json[i]);
        json_t *j = json_loads(r.body, 0, NULL);
        if (r.status != 200 || !json_is_object(j)) fail_msg("%s: %d %s", json[i], r.status, r.body);
        assert_non_null(strcasestr(r.head, "Content-Type: application/json"));
        assert_non_null(strcasestr(r.head, "X-Content-Type-Options: nosniff"));
        assert_non_null(strcasestr(r.head, "frame-ancestors 'none'"));
        json_decref(j);
        reply_done(&r);
    }
    struct reply r = get(&box, "/");
    assert_int_equal(r.status, 200);
    assert_non_null(strcasestr(r.head, "script-src 'sha256-"));
    assert_non_null(strstr(r.body, "</html>"));
    assert_null(strstr(r.body, "innerHTML"));
    reply_done(&r);
    r = get(&box, "/healthz");
    assert_string_equal(r.body, "alive\n");
    reply_done(&r);
    r = talk(&box, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_true(r.status == 200 && !r.body_size);
    reply_done(&r);
}

static void status_tells_the_truth(void **state)
{
    (void)state;
    json_t *j = get_json(&box, "/api/v1/status", 200), *q = get_json(&box, "/api/v1/queries", 200),
           *c = get_json(&box, "/api/v1/cameras", 200);
    assert_true(json_is_true(json_object_get(j, "ready")));
    assert_int_equal(json_integer_value(json_object_get(j, "cameras_live")), 1);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "memory"), "limit_bytes")),
                     (json_int_t)mem_budget_limit(engine_budget(box.engine)));
    json_t *query = json_array_get(json_object_get(q, "queries"), 0),
           *camera = json_array_get(json_object_get(c, "cameras"), 0);
    assert_string_equal(json_string_value(json_object_get(query, "query")), "stir");
    assert_true(json_integer_value(json_object_get(query, "run")) > 0);
    assert_int_equal(json_integer_value(json_object_get(camera, "width")), CLIP_W);
    assert_string_equal(json_string_value(json_object_get(camera, "state")), "live");
    json_decref(j), json_decref(q), json_decref(c);
}

static void wrong_requests_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        int status;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 421},
        {"GET / HTTP/1.1\r\nHost: evil.example:8090\r\nConnection: close\r\n\r\n", 421},
        {"GET / HTTP/1.0\r\n\r\n", 421},
        {"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n",
         403},
        {"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nConnection: close\r\n\r\n", 403},
        {"GET /live/yard.jpg HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: "
         "no-cors\r\nSec-Fetch-Dest: image\r\nConnection: close\r\n\r\n",
         403},
        {"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nConnection: close\r\n\r\n",
         200},
        {"DELETE /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405},
        {"OPTIONS /api/v1/budget HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405},
        {"POST /api/v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
         "2\r\nConnection: close\r\n\r\n{}",
         405},
        {"GET /api/v1/budget HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405},
        {"POST /api/v1/budget HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: "
         "20\r\nConnection: close\r\n\r\n{\"bytes\": 500000000}",
         415},
        {"POST /api/v1/budget HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
         "3\r\nConnection: close\r\n\r\n[1]",
         400},
        {"POST /api/v1/budget HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
         "0\r\nConnection: close\r\n\r\n",
         400},
        {"POST /api/v1/budget HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
         "14\r\nConnection: close\r\n\r\n{\"bytes\": -20}",
         400},
        {"POST /api/v1/budget HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\nContent-Type: "
         "application/json\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{\"bytes\": 500000000}",
         403},
        {"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404},
        {"GET /live/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404},
        {"GET /live/%2e%2e%2fetc.jpg HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404},
        {"GET /live/nobody.jpg HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404},
        {"GET /live/nobody.mjpeg HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404},
        {"GET /live/yard.jpg?w=x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400},
        {"GET /api/v1/why/nobody HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404},
        {"GET /api/v1/why/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404},
        {"GET /api/v1/events?limit=0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400},
        {"GET /api/v1/events?limit=1001 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400},
        {"GET /api/v1/events?since=yesterday HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400},
        {"GET /api/v1/events?camera=a%27%20or%201=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400},
        {"GET /events/stream?after=x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct reply r = talk(&box, cases[i].request);
        if (r.status != cases[i].status)
            fail_msg("%s\nexpected %d: %s%s", cases[i].request, cases[i].status, r.head, r.body);
        reply_done(&r);
    }
}

static void large_requests_are_refused(void **state)
{
    (void)state;
    char *body = xcalloc(1, 100000), *path = xcalloc(1, 100000);
    memset(body, ' ', 99999);
    memset(path, 'a', 99999);
    char *a = xasprintf("POST /api/v1/budget HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                        "application/json\r\nContent-Length: 99999\r\nConnection: close\r\n\r\n%s",
                        body);
    char *b = xasprintf("GET /%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    struct reply r = talk(&box, a);
    assert_int_equal(r.status, 413);
    reply_done(&r);
    r = talk(&box, b);
    assert_true(r.status == 414 || r.status == 431 || r.status == 413 ||
                r.status == 0); /* 0: closed before all was sent */
    reply_done(&r);
    free(a), free(b), free(body), free(path);
}

static void the_budget_can_be_changed(void **state)
{
    (void)state;
    uint64_t old = mem_budget_limit(engine_budget(box.engine));
    struct reply r = talk(&box, "POST /api/v1/budget HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: "
                                "http://127.0.0.1\r\nContent-Type: application/json\r\n"
                                "Content-Length: 20\r\nConnection: close\r\n\r\n{\"bytes\": 200000000}");
    assert_int_equal(r.status, 200);
    reply_done(&r);
    assert_int_equal(mem_budget_limit(engine_budget(box.engine)), 200000000);
    r = talk(&box, "POST /api/v1/budget HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
                   "application/json\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{\"bytes\": 9}");
    assert_int_equal(r.status, 409); /* not even what is in use fits: nothing changes */
    reply_done(&r);
    assert_int_equal(mem_budget_limit(engine_budget(box.engine)), 200000000);
    assert_int_equal(engine_set_budget(box.engine, old), ERR_OK);
}

/* ---- metrics */

/* Every sample's family was declared just before, names and labels are as the format allows, no series is there
 * twice. */
static void check_metrics(const char *text)
{
    json_t *series = json_object(), *families = json_object();
    char family[128] = "", name[128];
    for (const char *line = text; *line;) {
        const char *end = strchr(line, '\n');
        assert_non_null(end); /* ends with a line feed */
        if (!strncmp(line, "# TYPE ", 7)) {
            assert_int_equal(sscanf(line, "# TYPE %127s", family), 1);
            assert_null(json_object_get(families, family));
            json_object_set_new(families, family, json_true());
        } else if (line[0] != '#') {
            size_t n = strspn(line, "abcdefghijklmnopqrstuvwxyz_");
            snprintf(name, sizeof name, "%.*s", (int)n, line);
            if (strcmp(name, family) != 0) fail_msg("%.*s: not of %s", (int)(end - line), line, family);
            const char *value = end;
            while (value[-1] != ' ') value--;
            char *stop;
            strtod(value, &stop);
            assert_true(stop == end && line[n] == (value[-2] == '}' ? '{' : ' '));
            char *key = xstrndup(line, (size_t)(value - line));
            if (json_object_get(series, key)) fail_msg("%s: twice", key);
            json_object_set_new(series, key, json_true());
            free(key);
        }
        line = end + 1;
    }
    assert_true(json_object_size(series) > 50);
    json_decref(series), json_decref(families);
}

static void metrics_are_well_formed(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "brim_memory_limit_bytes ",
        "brim_memory_bytes{payer=\"camera yard\",purpose=\"frames\"} ",
        "brim_camera_state{camera=\"yard\",state=\"live\"} 1\n",
        "brim_query_dropped_total{query=\"stir\",camera=\"yard\",model=\"motion\",reason=\"late\"} ",
        "brim_query_latency_seconds{query=\"stir\",camera=\"yard\",model=\"motion\",quantile=\"0.95\"} ",
        "brim_events_written_total ",
        "brim_problem{what=\"test\"} 1\n",
        "brim_process_resident_bytes{kind=\"anon\"} "};
    engine_set_problem(box.engine, "test", "a \"problem\"\nof two lines");
    struct reply r = get(&box, "/metrics");
    engine_set_problem(box.engine, "test", "");
    assert_int_equal(r.status, 200);
    assert_non_null(strcasestr(r.head, "Content-Type: text/plain; version=0.0.4"));
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        if (!strstr(r.body, lines[i])) fail_msg("no line '%s'", lines[i]);
    check_metrics(r.body);
    reply_done(&r);
}

/* ---- events */

static int64_t id_on_disk(const char *uid)
{
    struct rows_event *events;
    int n;
    int64_t id = 0;
    json_t *list = get_json(&box, "/api/v1/events?limit=1000", 200);
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(list, "events"), i,
                       e) if (!strcmp(json_string_value(json_object_get(e, "uid")), uid)) id =
        json_integer_value(json_object_get(e, "id"));
    json_decref(list);
    (void)events, (void)n;
    return id;
}

static void told_events_are_on_disk(void **state)
{
    (void)state;
    struct wire w = wire_open(&box);
    wire_say(&w, "GET /events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for (int i = 0; i < 3; i++) {
        assert_true(wire_until(&w, "data: "));
        assert_true(wire_until(&w, "\n\n"));
        json_t *e = json_loads(w.got, JSON_DISABLE_EOF_CHECK, NULL);
        assert_non_null(e);
        assert_int_equal(id_on_disk(json_string_value(json_object_get(e, "uid"))),
                         json_integer_value(json_object_get(e, "id")));
        json_decref(e);
    }
    wire_close(&w);
}

/* Ids come each once and in order, whether from the database or as they happen. */
static void a_stream_goes_on_where_it_was(void **state)
{
    (void)state;
    box_wait_events(&box, 6);
    struct wire w = wire_open(&box);
    wire_say(&w, "GET /events/stream HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 2\r\n\r\n");
    for (long long expected = 3; expected <= 10; expected++) {
        assert_true(wire_until(&w, "id: "));
        assert_true(wire_until(&w, "\n"));
        assert_int_equal(strtoll(w.got, NULL, 10), expected);
    }
    wire_close(&w);
}

/* ---- pictures */

static void pictures_decode(void **state)
{
    (void)state;
    struct reply r = get(&box, "/live/yard.jpg?w=320");
    assert_int_equal(r.status, 200);
    check_jpeg(&box, r.body, r.body_size, MIN(CLIP_W, 320));
    reply_done(&r);
    struct wire w = wire_open(&box);
    wire_say(&w, "GET /live/yard.mjpeg?w=320 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_true(wire_until(&w, "multipart/x-mixed-replace; boundary=frame"));
    for (int i = 0; i < 3; i++) {
        assert_true(wire_until(&w, "--frame\r\n"));
        assert_true(wire_until(&w, "Content-Length: "));
        assert_true(wire_until(&w, "\r\n\r\n"));
        long n = strtol(w.got, NULL, 10);
        assert_in_range(n, 300, 200000);
        char *bytes = wire_body(&w, (size_t)n);
        check_jpeg(&box, bytes, (size_t)n, MIN(CLIP_W, 320));
        free(bytes);
    }
    wire_close(&w);
}

static uint64_t used_by(const char *payer)
{
    struct mem_row *rows;
    uint64_t sum = 0;
    size_t n = mem_snapshot(engine_budget(box.engine), &rows);
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < MEM_PURPOSE_COUNT; k++) sum += strcmp(rows[i].payer, payer) == 0 ? rows[i].used[k] : 0;
    free(rows);
    return sum;
}

static void pictures_give_their_bytes_back(void **state)
{
    (void)state;
    struct reply r = get(&box, "/live/yard.jpg");
    reply_done(&r);
    for (int64_t end = testing_deadline(); used_by("live") && clock_ns() < end;) usleep(100000);
    assert_int_equal(used_by("live"), 0);
    assert_int_equal(used_by("http"), 0);
}

/* Each allocation of a picture fails once: no crash, and either a picture or an honest answer. */
static void no_memory_is_an_answer(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 12; n++) {
        mem_fault_at(engine_budget(box.engine), n);
        struct reply r = get(&box, n % 2 ? "/live/yard.jpg?w=480" : "/api/v1/status");
        if (r.status != 200 && r.status != 503) fail_msg("%d: %s", r.status, r.body);
        reply_done(&r);
    }
    mem_fault_at(engine_budget(box.engine), 0);
}

/* ---- clients that are many, slow, or talk rubbish */

static void many_slow_clients_cost_little(void **state)
{
    (void)state;
    enum { CLIENTS = 200 };
    struct wire w[CLIENTS];
    uint64_t most = 0, anon = mem_process_rss().anon;
    static const char *const asks[] = {"GET /live/yard.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n",
                                       "GET /events/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                                       "GET /api/v1/events?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                                       "GET /live/yard.jpg HT"};
    for (int i = 0; i < CLIENTS; i++) { /* they ask and never read */
        w[i] = wire_open(&box);
        wire_say(&w[i], asks[i % ARRAY_LEN(asks)]);
    }
    for (int i = 0; i < 30; i++) {
        usleep(100000);
        most = MAX(most, used_by("live") + used_by("http"));
    }
    uint64_t grown = mem_process_rss().anon - MIN(anon, mem_process_rss().anon);
    print_message("# 200 clients: %llu bytes charged, %llu bytes of anonymous memory\n", (unsigned long long)most,
                  (unsigned long long)grown);
    assert_true(most < 64 << 20);
    assert_true(grown < 200 << 20); /* stacks touched, sanitizers' own; without a bound this is gigabytes */
    for (int i = 0; i < CLIENTS; i++) wire_close(&w[i]);
    struct reply r = get_patiently(&box, "/healthz");
    assert_int_equal(r.status, 200);
    reply_done(&r);
}

static void streams_leave_room_for_others(void **state)
{
    (void)state;
    enum { CLIENTS = 60 };
    struct wire w[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        w[i] = wire_open(&box);
        wire_say(&w[i], "GET /events/stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    }
    int served = 0, refused = 0;
    for (int i = 0; i < CLIENTS; i++) {
        if (!wire_until(&w[i], "HTTP/1.1 ") || !wire_until(&w[i], "\r\n")) {
            refused++; /* closed: connections of the test before had not all ended */
            continue;
        }
        served += !strncmp(w[i].got, "200", 3);
        refused += !strncmp(w[i].got, "503", 3);
    }
    assert_true(served > 0 && served <= 48 && served + refused == CLIENTS);
    struct reply r = get_patiently(&box, "/healthz");
    assert_int_equal(r.status, 200);
    reply_done(&r);
    for (int i = 0; i < CLIENTS; i++) wire_close(&w[i]);
}

static bool wire_ended(const struct wire *w)
{
    char byte;
    ssize_t n = recv(w->fd, &byte, 1, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

/* One drips its headers, one its body, and neither is ever silent for long; one is silent between two requests, which it may be. */
static void who_drips_is_ended(void **state)
{
    (void)state;
    struct wire head = wire_open(&box), body = wire_open(&box), idle = wire_open(&box);
    bool head_ended = false, body_ended = false;
    wire_say(&head, "GET /healthz HTTP/1.1\r\nX: ");
    wire_say(&body, "POST /api/v1/budget HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n");
    wire_say(&idle, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_true(wire_until(&idle, "alive\n"));
    for (int64_t end = testing_deadline(); clock_ns() < end && !(head_ended && body_ended);) {
        wire_say(&head, "x"), wire_say(&body, " ");
        usleep(250000);
        head_ended = head_ended || wire_ended(&head);
        body_ended = body_ended || wire_ended(&body);
    }
    assert_true(head_ended && body_ended);
    wire_say(&idle, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_true(wire_until(&idle, "\nbrim_http_ended_total ") && wire_until(&idle, "\n"));
    assert_true(atoi(idle.got) >= 2);
    wire_close(&head), wire_close(&body), wire_close(&idle);
}

static void rubbish_is_survived(void **state)
{
    (void)state;
    static const char *const rubbish[] = {
        "\r\n\r\n",
        "GET\r\n\r\n",
        "\x16\x03\x01\x02\x01\xfc\x03\x03",
        "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n",
        "POST /api/v1/budget HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        "POST /api/v1/budget HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        "GET /%00%ff%zz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"};
    uint64_t seed = 1;
    for (size_t i = 0; i < ARRAY_LEN(rubbish); i++) {
        struct wire w = wire_open(&box);
        wire_say(&w, rubbish[i]);
        shutdown(w.fd, SHUT_WR);
        wire_close(&w);
    }
    for (int i = 0; i < 200; i++) {
        char bytes[300];
        size_t n = (seed = hash64(&i, sizeof i, seed)) % sizeof bytes;
        for (size_t k = 0; k < n; k++) bytes[k] = (char)(seed = hash64(&k, sizeof k, seed));
        struct wire w = wire_open(&box);
        (void)!send(w.fd, bytes, n, MSG_NOSIGNAL);
        wire_close(&w);
    }
    struct reply r = get_patiently(&box, "/healthz");
    assert_int_equal(r.status, 200);
    reply_done(&r);
}

/* ---- opening and closing */

static void a_port_in_use_is_said(void **state)
{
    (void)state;
    struct serve_http *h = NULL;
    struct site_outputs o = {.http_host = "127.0.0.1", .http_port = serve_port(box.serve)};
    char *expected = xasprintf(
        "http: 127.0.0.1:%d is in use by another program; set outputs.http.listen to another port", o.http_port);
    assert_int_equal(serve_http_open(box.engine, NULL, NULL, &o, &h), ERR_BUSY);
    assert_string_equal(err_text(), expected);
    assert_null(h);
    o.http_host = "192.0.2.1"; /* of nobody */
    assert_int_equal(serve_http_open(box.engine, NULL, NULL, &o, &h), ERR_USAGE);
    free(expected);
}

static void without_a_database_events_are_still_told(void **state)
{
    (void)state;
    struct box b;
    assert_int_equal(box_open(&b, ", database: off", ""), 0);
    struct reply r = get(&b, "/api/v1/events");
    assert_int_equal(r.status, 404);
    reply_done(&r);
    struct wire w = wire_open(&b);
    wire_say(&w, "GET /events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_true(wire_until(&w, "data: {"));
    wire_close(&w);
    box_close(&b);
}

/* Streams that are open do not hold up the end. */
static void closing_ends_streams(void **state)
{
    (void)state;
    struct box b;
    struct wire w[6];
    assert_int_equal(box_open(&b, "", ""), 0);
    for (int i = 0; i < 6; i++) {
        w[i] = wire_open(&b);
        wire_say(&w[i], i % 2 ? "GET /events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
                              : "GET /live/yard.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_true(wire_until(&w[i], "\r\n\r\n"));
    }
    box_close(&b);
    for (int i = 0; i < 6; i++) {
        while (wire_more(&w[i])) w[i].n = 0;
        wire_close(&w[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_are_read),
        cmocka_unit_test(foreign_names_are_not_ours),
        cmocka_unit_test(numbers_are_read_whole),
        cmocka_unit_test(labels_are_escaped),
        cmocka_unit_test(every_address_answers),
        cmocka_unit_test(status_tells_the_truth),
        cmocka_unit_test(wrong_requests_are_refused),
        cmocka_unit_test(large_requests_are_refused),
        cmocka_unit_test(the_budget_can_be_changed),
        cmocka_unit_test(metrics_are_well_formed),
        cmocka_unit_test(told_events_are_on_disk),
        cmocka_unit_test(a_stream_goes_on_where_it_was),
        cmocka_unit_test(pictures_decode),
        cmocka_unit_test(pictures_give_their_bytes_back),
        cmocka_unit_test(no_memory_is_an_answer),
        cmocka_unit_test(many_slow_clients_cost_little),
        cmocka_unit_test(streams_leave_room_for_others),
        cmocka_unit_test(who_drips_is_ended),
        cmocka_unit_test(rubbish_is_survived),
        cmocka_unit_test(a_port_in_use_is_said),
        cmocka_unit_test(without_a_database_events_are_still_told),
        cmocka_unit_test(closing_ends_streams),
    };
    return cmocka_run_group_tests_name("serve-http", tests, setup, teardown);
}
