/* `brim bench kill`: is every event there that a client was told of, after kill -9 at any moment?
 *
 * One store, many rounds. In each a `brim serve` starts, a client listens to its event stream over HTTP and
 * remembers each event's uid once the whole event has arrived; at a random moment the box is killed, and the
 * rest that the kernel still holds for the client is read too: it was told. Then the database is opened by
 * SQLite itself (which replays its log), checked, and asked for every event of all rounds so far. A client
 * that comes back says which event it saw last, as browsers do. kill -9 takes back nothing that the kernel
 * had been handed: this says nothing of a power cut. SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"
#include "cli/bench_inside.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { UID_TEXT = 32, MIN_MS = 100, MAX_MS = 4000 };

struct kill_bench {
    int64_t rounds, seed;
    bool json;
    struct bench_place place;
    int port;
    uint64_t random;
    char (*told)[UID_TEXT + 1];
    size_t n_told, cap_told;
    long long last_id;                 /* of the stream */
    long long rows, torn, unreachable; /* events in the database; databases that were not whole; rounds killed
                                          before a client was in */
    size_t lost;                       /* of told, after the last round */
};

static double uniform(struct kill_bench *k) {
    k->random = k->random * 6364136223846793005u + 1442695040888963407u;
    return (double)(k->random >> 11) / 9007199254740992.0;
}

static err write_site(struct kill_bench *k) {
    FILE *f;
    err e = bench_file(&k->place, "site.yaml", &f);
    if (e) return e;
    fprintf(f, "version: 1\nbudget: 200M\ndefaults: {cameras: {loop: true}, queries: {fps: 10}}\ncameras:\n");
    for (int i = 1; i <= 4; i++)
        fprintf(f, "  cam%d: {url: scene/cam%d.mp4}\n", i, i);
    fprintf(
        f,
        "queries:\n  moving:\n    cameras: all\n    model: motion\n    motion: {width: 160}\n"
        "    zones: {left: [[0, 0], [0.5, 0], [0.5, 1], [0, 1]], low: [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]}\n"
        "    lines: {middle: [[0, 0.6], [1, 0.6]]}\n    events: {settle_ms: 0}\n"
        "outputs: {http: {listen: \"127.0.0.1:%d\"}}\n",
        k->port);
    fclose(f);
    return ERR_OK;
}

/* ---- the client */

static int call_box(struct kill_bench *k) {
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)k->port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char *request =
        xasprintf("GET /events/stream HTTP/1.0\r\nHost: 127.0.0.1:%d\r\nLast-Event-ID: %lld\r\n\r\n", k->port,
                  k->last_id);
    if (fd >= 0 && (connect(fd, (struct sockaddr *)&a, sizeof a) ||
                    send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)) {
        close(fd);
        fd = -1;
    }
    free(request);
    return fd;
}

static void hear(struct kill_bench *k, const char *line) {
    const char *uid = strstr(line, "\"uid\":\"");
    if (sscanf(line, "id: %lld", &k->last_id) == 1 || !str_starts(line, "data:") || !uid) return;
    uid += strlen("\"uid\":\"");
    if (strspn(uid, "0123456789abcdef") != UID_TEXT) return;
    vec_grow(&k->told, &k->cap_told, k->n_told);
    snprintf(k->told[k->n_told++], UID_TEXT + 1, "%s", uid);
}

/* Reads what is there for at most `ms`; false at the end of the stream. Only whole lines count as told. */
static bool listen_for(struct kill_bench *k, int fd, struct strbuf *b, int ms) {
    char chunk[8192], *end;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, ms) <= 0) return true;
    ssize_t n = recv(fd, chunk, sizeof chunk, 0);
    if (n <= 0) return false;
    strbuf_addn(b, chunk, (size_t)n);
    char *at = b->s;
    for (; (end = memchr(at, '\n', b->len - (size_t)(at - b->s))); at = end + 1) {
        *end = 0;
        hear(k, at);
    }
    size_t rest = b->len - (size_t)(at - b->s);
    memmove(b->s, at, rest + 1);
    b->len = rest;
    return true;
}

static err one_life(struct kill_bench *k, int ms) {
    char site[96], store[96], log[96], *output;
    struct child c;
    struct strbuf b = {0};
    int fd = -1;
    bool ended = false;
    snprintf(site, sizeof site, "%s/site.yaml", k->place.folder);
    snprintf(store, sizeof store, "%s/store", k->place.folder);
    snprintf(log, sizeof log, "%s/log", k->place.folder);
    const char *argv[] = {k->place.self, "serve", site, "--store", store, NULL};
    int64_t end = clock_ns() + (int64_t)ms * 1000000;
    err e = child_start(&c, (char *const *)(uintptr_t)argv, log, 0);
    if (e) return e;
    while (clock_ns() < end && !ended) {
        if (fd < 0 && (fd = call_box(k)) < 0) poll(NULL, 0, 5);
        if (fd >= 0) ended = !listen_for(k, fd, &b, (int)MAX((end - clock_ns()) / 1000000, 0));
    }
    kill(c.pid, SIGKILL);
    while (fd >= 0 && listen_for(k, fd, &b, 1000))
        continue;
    if (fd < 0) k->unreachable++;
    if (fd >= 0) close(fd);
    strbuf_done(&b);
    e = child_finish(&c, &output);
    free(output);
    if (!e && ended)
        e = err_set(ERR_IO, "the event stream ended before the box was killed; its log is %s", log);
    if (!e && c.status != SIGKILL)
        e = err_set(ERR_IO, "brim serve ended by itself (status %d); its log is %s", c.status, log);
    return e;
}

/* ---- the database */

static err look_up(struct kill_bench *k, sqlite3 *db) {
    sqlite3_stmt *s = NULL;
    const char *verdict = "";
    k->lost = 0;
    if (sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &s, NULL) == SQLITE_OK &&
        sqlite3_step(s) == SQLITE_ROW)
        verdict = (const char *)sqlite3_column_text(s, 0);
    k->torn += strcmp(verdict, "ok") != 0;
    sqlite3_finalize(s);
    int code = sqlite3_prepare_v2(db, "SELECT count(*) FROM events", -1, &s, NULL);
    if (code == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW) k->rows = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    if (code == SQLITE_OK) code = sqlite3_prepare_v2(db, "SELECT 1 FROM events WHERE uid = ?", -1, &s, NULL);
    for (size_t i = 0; i < k->n_told && code == SQLITE_OK; i++) {
        uint8_t uid[UID_TEXT / 2];
        for (size_t b = 0; b < sizeof uid; b++)
            sscanf(k->told[i] + 2 * b, "%2hhx", &uid[b]);
        sqlite3_bind_blob(s, 1, uid, sizeof uid, SQLITE_TRANSIENT);
        k->lost += sqlite3_step(s) != SQLITE_ROW;
        sqlite3_reset(s);
    }
    if (code == SQLITE_OK) sqlite3_finalize(s);
    return code == SQLITE_OK || !k->n_told
               ? ERR_OK
               : err_set(ERR_CORRUPT, "the database cannot be asked: %s", sqlite3_errmsg(db));
}

static err check_database(struct kill_bench *k) {
    char *path = xasprintf("%s/store/events.db", k->place.folder);
    sqlite3 *db = NULL;
    err e = ERR_OK;
    if (access(path, F_OK) == 0) {
        if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
            e = err_set(ERR_CORRUPT, "%s: %s", path, sqlite3_errmsg(db));
        else
            e = look_up(k, db);
        sqlite3_close(db);
    } else if (k->n_told) {
        e = err_set(ERR_NOT_FOUND, "%s is not there, but events were told", path);
    }
    free(path);
    return e;
}

static err all_rounds(struct kill_bench *k) {
    if (!k->json)
        printf("%5s %9s %9s %11s %6s %6s\n", "round", "killed ms", "told", "in database", "lost", "whole");
    for (int64_t i = 0; i < k->rounds; i++) {
        int ms = MIN_MS + (int)(uniform(k) * (MAX_MS - MIN_MS));
        size_t before = k->n_told;
        long long torn = k->torn;
        err e = one_life(k, ms);
        if (!e) e = check_database(k);
        if (e) return e;
        if (!k->json)
            printf("%5lld %9d %9zu %11lld %6zu %6s\n", (long long)i + 1, ms, k->n_told - before, k->rows,
                   k->lost, k->torn == torn ? "yes" : "NO");
        fflush(stdout);
    }
    printf(k->json ? "{\"rounds\": %lld, \"seed\": %lld, \"told\": %zu, \"rows\": %lld, \"lost\": %zu, "
                     "\"torn\": %lld, \"unreachable\": %lld}\n"
                   : "%lld rounds (seed %lld): told %zu events, %lld are in the database, lost %zu; "
                     "databases not whole %lld; killed before a "
                     "client could connect %lld\n",
           (long long)k->rounds, (long long)k->seed, k->n_told, k->rows, k->lost, k->torn, k->unreachable);
    if (k->lost || k->torn)
        return err_set(ERR_CORRUPT, "events that were told are gone, or a database is not whole");
    return k->n_told ? ERR_OK : err_set(ERR_IO, "no event was told in any round; see the log");
}

err bench_kill(int argc, char **argv) {
    struct kill_bench k = {.rounds = 20, .seed = (int64_t)clock_wall()};
    struct args_list rest = {0};
    bool help = false;
    const struct args_option table[] = {{"rounds", ARGS_INT, &k.rounds, "how many times (default 20)"},
                                        {"seed", ARGS_INT, &k.seed, "of the moments (default: the time)"},
                                        {"json", ARGS_FLAG, &k.json, "one JSON object"},
                                        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && rest.n) e = err_set(ERR_USAGE, "'%s' is one word too many", rest.items[0]);
    if (!e && (k.rounds < 1 || k.rounds > 100000)) e = err_set(ERR_USAGE, "--rounds is 1 to 100000");
    free(rest.items);
    if (help) args_help("bench kill [options]", table);
    if (e || help) return e;
    k.random = hash64(&k.seed, sizeof k.seed, 1);
    k.port = bench_free_port();
    signal(SIGPIPE, SIG_IGN);
    e = bench_place_open(&k.place);
    if (!e) e = bench_draw(&k.place, 8);
    if (!e) e = write_site(&k);
    if (!e) e = all_rounds(&k);
    bench_place_close(&k.place, e != ERR_OK);
    free(k.told);
    return e;
}
