/* `brim bench start`: what an idle box takes, and how soon a box sees something.
 *
 * Idle: a site without cameras and models, its page on; the kernel's VmRSS at its highest over three seconds.
 * First detection: from fork to the first JSON line with something in it, for yolox_nano on a shared video
 * with people in its first frame; with a store that is empty (weights are packed and written), and with one
 * that is not. Medians. SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"
#include "cli/bench_inside.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_RUNS = 99, GIVE_UP_MS = 60000 };

struct start_bench {
    int64_t runs;
    bool json;
    struct bench_place place;
    double rss[MAX_RUNS], anon[MAX_RUNS], cold[MAX_RUNS], warm[MAX_RUNS]; /* MB, MB, s, s */
};

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int64_t n) {
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static err idle_once(struct start_bench *b, int64_t i) {
    char site[96], store[96], log[96], *output;
    struct child c;
    snprintf(site, sizeof site, "%s/idle.yaml", b->place.folder);
    snprintf(store, sizeof store, "%s/idle-store", b->place.folder);
    snprintf(log, sizeof log, "%s/log", b->place.folder);
    const char *argv[] = {b->place.self, "serve", site, "--store", store, "--seconds", "3", "--json", NULL};
    err e = child_start(&c, (char *const *)(uintptr_t)argv, log, 0);
    if (!e) e = child_finish(&c, &output);
    if (e) return e;
    free(output);
    b->rss[i] = (double)c.peak_rss / 1e6, b->anon[i] = (double)c.peak_anon / 1e6;
    return c.status == 0 ? ERR_OK : err_set(ERR_IO, "brim serve failed; its log is %s", log);
}

/* Does a line say that something was seen? */
static bool sees(const char *text) {
    return strstr(text, "\"tracks\":[{") != NULL;
}

static err detect_once(struct start_bench *b, const char *store_name, double *ret_s) {
    char site[96], store[96], log[96], chunk[8192], *output;
    struct child c;
    struct strbuf heard = {0};
    bool seen = false, open = true;
    snprintf(site, sizeof site, "%s/video.yaml", b->place.folder);
    snprintf(store, sizeof store, "%s/%s", b->place.folder, store_name);
    snprintf(log, sizeof log, "%s/log", b->place.folder);
    const char *argv[] = {b->place.self, "serve", site, "--store", store, NULL};
    int64_t begin = clock_ns();
    err e = child_start(&c, (char *const *)(uintptr_t)argv, log, 0);
    if (e) return e;
    while (!seen && open && clock_ns() - begin < (int64_t)GIVE_UP_MS * 1000000) {
        struct pollfd p = {.fd = c.out, .events = POLLIN};
        if (poll(&p, 1, 1000) <= 0) continue;
        ssize_t n = read(c.out, chunk, sizeof chunk);
        open = n > 0;
        if (open) strbuf_addn(&heard, chunk, (size_t)n), seen = sees(heard.s);
    }
    double s = (double)(clock_ns() - begin) / 1e9;
    kill(c.pid, SIGTERM);
    strbuf_done(&heard);
    if ((e = child_finish(&c, &output))) return e;
    free(output);
    if (!seen) return err_set(ERR_IO, "nothing was seen in %.0f s; the log is %s", s, log);
    *ret_s = s;
    return ERR_OK;
}

static err write_sites(struct start_bench *b) {
    FILE *f;
    const char *data = getenv("BRIM_DATA");
    char *card = realpath("models/cards/yolox_nano_416x416.yaml", NULL);
    err e = bench_file(&b->place, "idle.yaml", &f);
    if (!e) {
        fputs("version: 1\noutputs: {http: {listen: \"127.0.0.1:0\"}}\n", f);
        fclose(f);
        e = data && card ? bench_file(&b->place, "video.yaml", &f)
                         : err_set(ERR_USAGE, "needs $BRIM_DATA, and to be called in the project's folder");
    }
    if (!e) {
        fprintf(f,
                "version: 1\nbudget: 200M\ncameras:\n  room: {url: \"%s/videos/multicam/four_cam/cam0.mp4\", "
                "loop: true}\nmodels:\n  yolox: {onnx: "
                "\"%s/models/yolox/yolox_nano_416x416.onnx\", card: \"%s\"}\nqueries:\n  people: {cameras: "
                "room, model: yolox, fps: 10}\n"
                "outputs: {jsonl: \"-\", http: {listen: \"127.0.0.1:0\"}}\n",
                data, data, card);
        fclose(f);
    }
    free(card);
    return e;
}

static err measure(struct start_bench *b) {
    double ignored;
    err e = write_sites(b);
    for (int64_t i = 0; i < b->runs && !e; i++)
        e = idle_once(b, i);
    for (int64_t i = 0; i < b->runs && !e; i++) {
        char name[32];
        snprintf(name, sizeof name, "cold-%d", (int)i);
        e = detect_once(b, name, &b->cold[i]);
    }
    if (!e) e = detect_once(b, "warm", &ignored);
    for (int64_t i = 0; i < b->runs && !e; i++)
        e = detect_once(b, "warm", &b->warm[i]);
    return e;
}

err bench_start(int argc, char **argv) {
    struct start_bench b = {.runs = 5};
    struct args_list rest = {0};
    bool help = false;
    const struct args_option table[] = {{"runs", ARGS_INT, &b.runs, "of each kind (default 5)"},
                                        {"json", ARGS_FLAG, &b.json, "one JSON object"},
                                        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && rest.n) e = err_set(ERR_USAGE, "'%s' is one word too many", rest.items[0]);
    if (!e && (b.runs < 1 || b.runs > MAX_RUNS)) e = err_set(ERR_USAGE, "--runs is 1 to %d", MAX_RUNS);
    free(rest.items);
    if (help) args_help("bench start [options]", table);
    if (e || help) return e;
    e = bench_place_open(&b.place);
    if (!e) e = measure(&b);
    bench_place_close(&b.place, e != ERR_OK);
    if (e) return e;
    double rss = median(b.rss, b.runs), anon = median(b.anon, b.runs), cold = median(b.cold, b.runs),
           warm = median(b.warm, b.runs);
    if (b.json) {
        printf("{\"runs\": %d, \"idle_rss_mb\": %.2f, \"idle_rss_anon_mb\": %.2f, "
               "\"first_detection_empty_store_s\": %.3f, "
               "\"first_detection_s\": %.3f, \"first_detection_slowest_s\": %.3f}\n",
               (int)b.runs, rss, anon, cold, warm, b.warm[b.runs - 1]);
        return ERR_OK;
    }
    printf("idle box: %.1f MB resident, %.1f MB of it private (medians of %d runs)\n", rss, anon,
           (int)b.runs);
    printf("start to first detection, yolox_nano: %.2f s with an empty store (%.2f to %.2f), %.2f s with a "
           "filled one (%.2f to %.2f)\n",
           cold, b.cold[0], b.cold[b.runs - 1], warm, b.warm[0], b.warm[b.runs - 1]);
    return ERR_OK;
}
