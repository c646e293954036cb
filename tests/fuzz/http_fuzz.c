/* Fuzz target: what a box reads of strangers over HTTP.
 *
 * Input that begins with '!' is lines for the pure functions of the guard: host, Origin, Sec-Fetch-Site, -Mode,
 * -Dest, Content-Type, numbers, and as a whole a label. Any other is sent as it is through a socket to a running HTTP
 * side with a database of three events, and the answer is read to its end (a stream's for a moment). The box has no
 * cameras. Its folder is in $TMPDIR. SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "rows/rows.h"
#include "serve/feed.h"
#include "serve/http.h"
#include "serve/http_guard.h"
#include "serve/metrics.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* libFuzzer gives no place to keep things from input to input but globals. */
static struct {
    struct engine *engine;
    struct engine_site *site;
    struct rows *rows;
    struct serve_feed *feed;
    struct serve_http *http;
    struct mem_budget *budget;
} box;

static void close_box(void)
{
    serve_feed_close(box.feed);
    serve_http_close(&box.http);
    rows_close(&box.rows);
    serve_feed_free(&box.feed);
    engine_site_unref(&box.site);
    engine_close(&box.engine);
    mem_budget_free(&box.budget);
}

static void add_events(void)
{
    for (int i = 0; i < 3; i++) {
        struct rows_event e = {.uid = {(uint8_t)i},
                               .time = 1e9 + i,
                               .camera = "yard",
                               .query = "stir",
                               .event = "appeared",
                               .label = "motion"};
        rows_add(box.rows, &e);
        serve_feed_put(box.feed, &e);
    }
    if (rows_flush(box.rows, 10000)) abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *tmp = getenv("TMPDIR");
    char *folder = xasprintf("%s/brim-http-fuzz-XXXXXX", tmp ? tmp : "/tmp");
    struct site *site = NULL;
    (void)argc, (void)argv;
    if (!mkdtemp(folder)) abort();
    char *text = xasprintf(
        "version: 1\nbudget: 64M\nstore: \"%s\"\noutputs: {http: {listen: \"127.0.0.1:0\", hosts: [box.example]}}\n",
        folder);
    char *path = xasprintf("%s/events.db", folder);
    box.budget = mem_budget_new("host", 64u << 20);
    box.feed = serve_feed_new();
    err e = site_load_all("f.yaml", text, strlen(text), NULL, &site);
    if (!e) e = engine_open(site, &(struct engine_options){.budget = box.budget}, &box.engine);
    if (!e) e = engine_start(box.engine);
    if (!e) e = rows_open(&(struct rows_options){.path = path, .budget = box.budget}, &box.rows);
    if (!e) {
        box.site = engine_site_hold(box.engine);
        e = serve_http_open(box.engine, box.rows, box.feed, &engine_site_get(box.site)->outputs, &box.http);
    }
    if (e) fprintf(stderr, "%s\n", err_text()), abort();
    add_events();
    atexit(close_box);
    free(text), free(path), free(folder);
    return 0;
}

/* Names of cameras and errors of foreign programs end up in /metrics and in JSON: neither may break its line. */
static void labels(const char *text)
{
    char escaped[METRICS_TEXT];
    const char *e = metrics_escape(text, escaped);
    if (strlen(e) >= METRICS_TEXT || strchr(e, '\n')) abort();
    for (; *e; e++) {
        if (*e == '"') abort();
        if (*e == '\\' && !*++e) abort();
    }
    json_t *j = text_json(text);
    if (!json_is_string(j)) abort();
    json_decref(j);
}

static void guard(char *text)
{
    enum { FIELDS = 8 };
    const char *field[FIELDS] = {0};
    struct http_guard g = {.listen = "10.0.0.5", .names = (const char *const[]){"box.example"}, .n_names = 1},
                      any = {.listen = "::", .any_address = true};
    char name[HTTP_GUARD_HOST];
    int port;
    int64_t n = 0;
    double s = 0;
    for (int i = 0; i < FIELDS && text; i++) { /* an empty line is a header that is not there */
        char *line = strsep(&text, "\n");
        field[i] = *line ? line : NULL;
    }
    if (field[0] && http_guard_host(field[0], name, &port) &&
        (strlen(name) >= sizeof name || port < 0 || port > 65535))
        abort();
    /* A name that is not listed is foreign, on whatever is listened; only addresses may differ. */
    if (http_guard_is_ours(&g, field[0]) && !http_guard_is_ours(&any, field[0]) &&
        !strcasestr(field[0], "box.example"))
        abort();
    http_guard_same_origin(field[1], field[0]);
    http_guard_fetch(field[2], field[3], field[4]);
    http_guard_is_json(field[5]);
    if (field[6] && http_guard_int(field[6], -5, 1000, &n) && (n < -5 || n > 1000)) abort();
    if (field[6] && http_guard_seconds(field[6], &s) && !(s >= 0 && s <= 1e11)) abort();
    if (field[7] && http_guard_name(field[7], strlen(field[7])) && strpbrk(field[7], "/\\ \"'<>")) abort();
}

static void send_all(int fd, const uint8_t *data, size_t size)
{
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0) return; /* it was told enough */
        data += n, size -= (size_t)n;
    }
}

static void talk(const uint8_t *data, size_t size)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)serve_http_port(box.http)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char head[5] = "", chunk[65536];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct linger hard = {.l_onoff = 1}; /* no TIME_WAIT: a run makes more connections than there are ports */
    size_t got = 0;
    if (fd < 0) abort();
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) {
        send_all(fd, data, size);
        shutdown(fd, SHUT_WR);
        while (got < (1u << 20) && poll(&p, 1, 300) > 0) {
            ssize_t n = recv(fd, chunk, sizeof chunk, 0);
            if (n <= 0) break;
            if (got < 4) memcpy(head + got, chunk, MIN((size_t)n, 4 - got));
            got += (size_t)n;
        }
    }
    close(fd);
    if (got >= 4 && strcmp(head, "HTTP") != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && data[0] == '!') {
        char *text = xstrndup((const char *)data + 1, size - 1);
        labels(text);
        guard(text);
        free(text);
    } else if (size) {
        talk(data, size);
    }
    return 0;
}
