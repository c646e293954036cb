/* `brim bench soak`: does memory grow while half of the cameras are dead?
 *
 * A `brim serve` of its own with ten cameras: five videos that live, and one each that is a closed port, a
 * missing file, silent, garbage, and flapping. Each second RssAnon is read from /proc. The first third of the
 * time is left out (caches fill: 376 KiB of SQLite's in two minutes, decoders' pools); what follows is cut into 20 blocks, and a line is fitted to the
 * blocks' means: samples a second apart are far from independent, so fitting them directly would claim a much smaller
 * error than there is. SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"
#include "cli/bench_inside.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 20 };

struct sample {
    double s;
    uint64_t anon; /* bytes */
    int files, threads;
};

struct soak {
    double minutes;
    bool json;
    struct bench_place place;
    struct bench_flaky *flaky[3];
    bool detector; /* yolox_nano is there */
    struct sample *samples;
    size_t n, cap;
    int came; /* connections to the flaky cameras */
};

struct line {
    double slope, error; /* KB a minute */
    double first, last;  /* MiB: means of the first and the last block */
    int blocks;
};

static err write_site(struct soak *s) {
    const char *data = getenv("BRIM_DATA");
    char *model = xasprintf("%s/models/yolox/yolox_nano_416x416.onnx", data ? data : ""),
         *card = realpath("models/cards/yolox_nano_416x416.yaml", NULL);
    FILE *f;
    s->detector = data && card && access(model, R_OK) == 0;
    err e = bench_file(&s->place, "site.yaml", &f);
    if (!e) {
        fprintf(f, "version: 1\nbudget: 300M\noutputs: {http: off}\ndefaults: {cameras: {loop: true, "
                   "timeout: 3s}, queries: {fps: 5}}\ncameras:\n");
        for (int i = 1; i <= 4; i++)
            fprintf(f, "  live%d: {url: scene/cam%d.mp4}\n", i, i);
        fprintf(f,
                "  process: {url: scene/cam1.mp4, decode: process}\n  closed: {url: "
                "\"http://127.0.0.1:%d/\"}\n  missing: {url: nothing.mp4}\n",
                bench_free_port());
        fprintf(f,
                "  silent: {url: \"http://127.0.0.1:%d/\"}\n  garbage: {url: \"http://127.0.0.1:%d/\"}\n  "
                "flapping: {url: \"http://127.0.0.1:%d/\"}\n",
                bench_flaky_port(s->flaky[BENCH_SILENT]), bench_flaky_port(s->flaky[BENCH_GARBAGE]),
                bench_flaky_port(s->flaky[BENCH_FLAPPING]));
        if (s->detector) fprintf(f, "models:\n  yolox: {onnx: \"%s\", card: \"%s\"}\n", model, card);
        fprintf(f, "queries:\n  moving: {cameras: all, model: motion}\n");
        if (s->detector)
            fprintf(f, "  objects: {cameras: [live1, flapping, garbage], model: yolox, fps: 2}\n");
        fclose(f);
    }
    free(model);
    free(card);
    return e;
}

static int count_entries(int pid, const char *folder) {
    char path[64];
    int n = -2; /* . and .. */
    snprintf(path, sizeof path, "/proc/%d/%s", pid, folder);
    DIR *d = opendir(path);
    while (d && readdir(d))
        n++;
    if (d) closedir(d);
    return MAX(n, 0);
}

/* Until the child ends, or says something (its summary). */
static void watch(struct soak *s, struct child *c) {
    int64_t begin = clock_ns(), next = begin;
    struct pollfd p = {.fd = c->out, .events = POLLIN};
    while (poll(&p, 1, (int)MAX((next - clock_ns()) / 1000000, 0)) == 0) {
        next += 1000000000;
        child_sample(c);
        vec_grow(&s->samples, &s->cap, s->n);
        s->samples[s->n++] = (struct sample){(double)(clock_ns() - begin) / 1e9, c->last_anon,
                                             count_entries(c->pid, "fd"), count_entries(c->pid, "task")};
        if (isatty(STDERR_FILENO) && s->n % 10 == 0)
            fprintf(stderr, "\r%.0f s, RssAnon %.1f MiB ", s->samples[s->n - 1].s,
                    (double)c->last_anon / 1048576);
    }
    if (isatty(STDERR_FILENO)) fputc('\n', stderr);
}

static size_t settled(const struct soak *s) {
    return s->n / 3;
}

/* Least squares over the blocks' means. */
static struct line fit(const struct soak *s) {
    size_t skip = settled(s), n = s->n - skip, blocks = MIN((size_t)BLOCKS, n);
    double x[BLOCKS], y[BLOCKS], mx = 0, my = 0, sxx = 0, sxy = 0, rest = 0;
    if (blocks < 3) return (struct line){NAN, NAN, NAN, NAN, 0};
    for (size_t b = 0; b < blocks; b++) {
        size_t from = skip + b * n / blocks, to = skip + (b + 1) * n / blocks;
        x[b] = y[b] = 0;
        for (size_t i = from; i < to; i++)
            x[b] += s->samples[i].s / 60, y[b] += (double)s->samples[i].anon / 1024;
        x[b] /= (double)(to - from), y[b] /= (double)(to - from);
        mx += x[b] / (double)blocks, my += y[b] / (double)blocks;
    }
    for (size_t b = 0; b < blocks; b++)
        sxx += (x[b] - mx) * (x[b] - mx), sxy += (x[b] - mx) * (y[b] - my);
    double slope = sxy / sxx;
    for (size_t b = 0; b < blocks; b++)
        rest += pow(y[b] - my - slope * (x[b] - mx), 2);
    return (struct line){slope, sqrt(rest / (double)(blocks - 2) / sxx), y[0] / 1024, y[blocks - 1] / 1024,
                         (int)blocks};
}

static void print_text(const struct soak *s, const struct line *l, const struct child *c,
                       const json_t *summary) {
    size_t i;
    json_t *v;
    const struct sample *a = &s->samples[settled(s)], *b = &s->samples[s->n - 1];
    printf("%-10s %-11s %9s %8s %10s  %s\n", "camera", "state", "frames", "corrupt", "reconnects",
           "last error");
    json_array_foreach(json_object_get(summary, "cameras"), i, v) printf(
        "%-10s %-11s %9lld %8lld %10lld  %s\n", json_string_value(json_object_get(v, "camera")),
        json_string_value(json_object_get(v, "state")), json_integer_value(json_object_get(v, "decoded")),
        json_integer_value(json_object_get(v, "corrupt")),
        json_integer_value(json_object_get(v, "reconnects")), json_string_value(json_object_get(v, "error")));
    printf("%.1f minutes, %zu samples, %s; the flaky cameras were called %d times\n", b->s / 60, s->n,
           s->detector ? "motion on all, yolox_nano on three" : "motion on all (no BRIM_DATA: no detector)",
           s->came);
    printf("RssAnon: slope %+.1f KB a minute, standard error %.1f (%d block means after the first third); "
           "%.2f MiB then, %.2f MiB at the end, "
           "peak %.2f\n",
           l->slope, l->error, l->blocks, l->first, l->last, (double)c->peak_anon / 1048576);
    printf("open files %d then, %d at the end; threads %d, %d; budget peak %.1f of 300 MiB\n", a->files,
           b->files, a->threads, b->threads,
           (double)json_integer_value(json_object_get(json_object_get(summary, "memory"), "peak_bytes")) /
               1048576);
}

static void print_json(const struct soak *s, const struct line *l, const struct child *c, json_t *summary) {
    json_t *series = json_array();
    for (size_t i = 0; i < s->n; i++)
        json_array_append_new(series, json_integer((json_int_t)s->samples[i].anon));
    json_t *j = json_pack("{s:f, s:b, s:f, s:f, s:i, s:I, s:I, s:i, s:i, s:i, s:O, s:o}", "minutes",
                          s->samples[s->n - 1].s / 60, "detector", s->detector, "slope_kb_per_minute",
                          l->slope, "standard_error", l->error, "blocks", l->blocks, "peak_rss_anon_bytes",
                          (json_int_t)c->peak_anon, "last_rss_anon_bytes", (json_int_t)c->last_anon,
                          "open_files_first", s->samples[settled(s)].files, "open_files_last",
                          s->samples[s->n - 1].files, "flaky_connections", s->came, "serve", summary,
                          "rss_anon_bytes_each_second", series);
    json_dumpf(j, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(j);
}

static err serve_and_watch(struct soak *s) {
    char site[96], store[96], log[96], seconds[32], *output;
    struct child c;
    snprintf(site, sizeof site, "%s/site.yaml", s->place.folder);
    snprintf(store, sizeof store, "%s/store", s->place.folder);
    snprintf(log, sizeof log, "%s/log", s->place.folder);
    snprintf(seconds, sizeof seconds, "%.1f", s->minutes * 60);
    const char *argv[] = {s->place.self, "serve", site,     "--store", store,
                          "--seconds",   seconds, "--json", NULL};
    err e = child_start(&c, (char *const *)(uintptr_t)argv, log, 0);
    if (e) return e;
    watch(s, &c);
    if ((e = child_finish(&c, &output))) return e;
    json_t *summary = json_loads(output, 0, NULL);
    free(output);
    for (size_t i = 0; i < ARRAY_LEN(s->flaky); i++)
        s->came += bench_flaky_stop(&s->flaky[i]);
    if (!summary || c.status != 0 || s->n < 10) {
        json_decref(summary);
        return err_set(ERR_IO, "brim serve ended early (status %d); its log is %s",
                       WIFEXITED(c.status) ? WEXITSTATUS(c.status) : -WTERMSIG(c.status), log);
    }
    struct line l = fit(s);
    if (s->json)
        print_json(s, &l, &c, summary);
    else
        print_text(s, &l, &c, summary);
    json_decref(summary);
    return ERR_OK;
}

err bench_soak(int argc, char **argv) {
    struct soak s = {.minutes = 15};
    struct args_list rest = {0};
    bool help = false;
    const struct args_option table[] = {{"minutes", ARGS_FLOAT, &s.minutes, "how long (default 15)"},
                                        {"json", ARGS_FLAG, &s.json, "one JSON object, with all samples"},
                                        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && rest.n) e = err_set(ERR_USAGE, "'%s' is one word too many", rest.items[0]);
    if (!e && !(s.minutes >= 0.25 && s.minutes <= 1e5)) e = err_set(ERR_USAGE, "--minutes is 0.25 or more");
    free(rest.items);
    if (help) args_help("bench soak [options]", table);
    if (e || help) return e;
    signal(SIGPIPE, SIG_IGN);
    e = bench_place_open(&s.place);
    for (size_t i = 0; i < ARRAY_LEN(s.flaky) && !e; i++)
        e = bench_flaky_start((enum bench_flaky_kind)i, &s.flaky[i]);
    if (!e) e = bench_draw(&s.place, 8);
    if (!e) e = write_site(&s);
    if (!e) e = serve_and_watch(&s);
    for (size_t i = 0; i < ARRAY_LEN(s.flaky); i++)
        bench_flaky_stop(&s.flaky[i]);
    bench_place_close(&s.place, e != ERR_OK);
    free(s.samples);
    return e;
}
