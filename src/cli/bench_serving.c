/* `brim bench serving --spec F`: one workload of bench/serving.py, which writes F and reads what is printed; without --spec, that script.
 *
 * F: {folder, pace, threads, load, deadline_ms, seconds, most_seconds, warm_up, queries: [{name, arch, classes, size, rate}], runs: [{merged, setting, blind,
 * blocks}]}. Answer: one JSON object: what the models are and take, and for each run what it counted, live and rehearsed.
 *
 * Where there is too much work, a few seconds are a matter of luck. So each run is rehearsed several times, with other frame times, and the live one takes
 * `seconds`, or as much longer (up to most_seconds) as it needs for a standard error of one point. SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench_serving.h"

#include "cli/args.h"
#include "cli/bench_inside.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REHEARSALS = 6 };

struct spec {
    json_t *json, *runs;
    bool no_live;
    double seconds, most_seconds;
    struct serving w;
};

static err bad(const char *what)
{
    return err_set(ERR_USAGE, "brim bench serving --spec: %s; bench/serving.py writes such files", what);
}

static err read_query(struct serving *w, json_t *j)
{
    struct serving_query *q = &w->q[w->n];
    const char *arch, *name;
    if (w->n == SERVING_MOST) return bad("too many queries");
    if (json_unpack(j, "{s:s, s:s, s:i, s:i, s:F}", "name", &name, "arch", &arch, "classes", &q->classes, "size", &q->size, "rate", &q->rate) || q->rate <= 0)
        return bad("a query needs name, arch, classes, size and rate");
    *q = (struct serving_query){.w = w, .name = xstrdup(name), .arch = xstrdup(arch), .classes = q->classes, .size = q->size, .rate = q->rate};
    w->n++;
    return ERR_OK;
}

static err read_spec(const char *path, struct spec *s)
{
    struct serving *w = &s->w;
    const char *folder;
    double deadline_ms;
    json_t *queries, *q;
    json_error_t why;
    int no_live = 0;
    size_t i;
    s->json = json_load_file(path, 0, &why);
    if (!s->json) return err_set(ERR_USAGE, "%s: %s", path, why.text);
    if (json_unpack(s->json, "{s:s, s:F, s:i, s:F, s:F, s:F, s:F, s:F, s:o, s:o, s?b}", "folder", &folder, "pace", &w->pace, "threads", &w->threads, "load", &w->load,
                    "deadline_ms", &deadline_ms, "seconds", &s->seconds, "most_seconds", &s->most_seconds, "warm_up", &w->warm, "queries", &queries, "runs", &s->runs, "no_live", &no_live))
        return bad("a field is missing");
    if (w->pace <= 0 || w->load <= 0 || deadline_ms <= 0 || s->seconds <= 0 || w->warm < 0) return bad("pace, load, deadline_ms and seconds are above 0");
    w->folder = xstrdup(folder);
    w->deadline_ns = deadline_ms * 1e6;
    s->no_live = no_live;
    err e = ERR_OK;
    json_array_foreach(queries, i, q) if (!e) e = read_query(w, q);
    return !e && w->n < 2 ? bad("a workload has two queries or more") : e;
}

/* ---- runs */

static json_t *counts_json(const struct serving *w, const struct serving_outcome *x)
{
    json_t *streams = json_array();
    for (int i = 0; i < w->n; i++) {
        const struct serving_counts *c = &x->streams[i];
        json_t *dropped = json_object();
        for (int k = 1; k < SCHED_DROP_COUNT; k++)
            if (c->dropped[k]) json_object_set_new(dropped, sched_drop_text((enum sched_drop)k), json_integer(c->dropped[k]));
        json_array_append_new(streams, json_pack("{s:s, s:i, s:i, s:i, s:o}", "query", w->q[i].name, "offered", c->offered, "in_time", c->in_time, "late", c->late,
                                                 "dropped", dropped));
    }
    return json_pack("{s:o, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:f, s:i}", "streams", streams, "read_bytes", (json_int_t)x->bytes, "loads", (json_int_t)x->loads, "peak_bytes",
                     (json_int_t)x->peak, "seconds", w->warm + w->seconds + w->deadline_ns / 1e9, "load_s", x->load_s, "run_s", x->run_s, "window_bytes", (json_int_t)x->blocks.window, "kept_bytes",
                     (json_int_t)x->blocks.kept, "disk_bytes_per_s", x->blocks.bandwidth, "divisions", x->blocks.divisions);
}

/* In percent, over the streams. */
static double mean_share(const struct serving *w, const struct serving_outcome *x)
{
    double sum = 0;
    for (int i = 0; i < w->n; i++) sum += 100.0 * x->streams[i].in_time / MAX(x->streams[i].offered, 1);
    return sum / w->n;
}

static err rehearse(struct spec *s, const struct serving_run *r, double seconds, json_t *j, double *ret_variance)
{
    struct serving_outcome x;
    double sum = 0, squares = 0;
    json_t *all = json_array();
    err e = ERR_OK;
    json_object_set_new(j, "rehearsed", all);
    s->w.seconds = seconds;
    for (s->w.seed = 1; s->w.seed <= REHEARSALS && !e; s->w.seed++) {
        e = serving_run(&s->w, r, true, &x);
        double mean = e ? 0 : mean_share(&s->w, &x);
        sum += mean;
        squares += mean * mean;
        if (!e) json_array_append_new(all, counts_json(&s->w, &x));
    }
    if (!e) *ret_variance = MAX(squares / REHEARSALS - sum / REHEARSALS * sum / REHEARSALS, 0);
    return e;
}

static err one_run(struct spec *s, json_t *j)
{
    struct serving_run r = {0};
    struct serving_outcome x;
    int merged, blind, blocks;
    if (json_unpack(j, "{s:b, s:F, s:b, s:b}", "merged", &merged, "setting", &r.setting, "blind", &blind, "blocks", &blocks))
        return bad("a run needs merged, setting, blind and blocks");
    if ((bool)merged != s->w.merged) return ERR_OK;
    r.blind = blind;
    r.blocks = blocks;
    double variance;
    err e = rehearse(s, &r, s->seconds, j, &variance);
    if (e || s->no_live) return e;
    double seconds = MIN(MAX(s->seconds, s->seconds * variance), MAX(s->most_seconds, s->seconds));
    if (seconds > s->seconds) e = rehearse(s, &r, seconds, j, &variance);
    s->w.seed = 0;
    if (!e) e = serving_run(&s->w, &r, false, &x);
    if (!e) json_object_set_new(j, "live", counts_json(&s->w, &x));
    return e;
}

/* Frames so often that all originals together take the load asked for. */
static void set_periods(struct serving *w)
{
    double asked = 0;
    for (int i = 0; i < w->n; i++) asked += w->q[i].rate * w->q[i].median_ns;
    for (int i = 0; i < w->n; i++) w->q[i].period_ns = asked / (w->load * w->q[i].rate);
}

static err all_runs(struct spec *s)
{
    struct serving *w = &s->w;
    err e = serving_make(w);
    if (!e) e = serving_open(w, true, false); /* both kinds' sizes are needed before the first run */
    serving_close(w);
    if (!e) e = serving_open(w, false, true);
    if (!e) set_periods(w);
    for (int i = 0; i < w->n; i++) {
        w->all += w->q[i].bytes[0];
        w->least = MAX(w->least, MAX(w->q[i].bytes[0], w->q[i].bytes[1]));
    }
    for (int merged = 0; merged < 2 && !e; merged++) {
        size_t i;
        json_t *j;
        if (merged) serving_close(w);
        if (merged) e = serving_open(w, true, true);
        json_array_foreach(s->runs, i, j) if (!e) e = one_run(s, j);
    }
    serving_close(w);
    return e;
}

static err open_all(struct serving *w)
{
    char *store = xasprintf("%s/store", w->folder);
    w->budget = mem_budget_new("host", UINT64_MAX);
    w->payer = mem_payer_new(w->budget, "arena");
    w->window = mem_payer_new(w->budget, "window");
    err e = weights_store_open(store, NULL, &w->store);
    if (!e) e = weights_reader_new(&w->reader);
    free(store);
    return e;
}

static void close_all(struct serving *w)
{
    weights_reader_free(&w->reader);
    weights_store_close(&w->store);
    mem_payer_free(&w->window);
    mem_payer_free(&w->payer);
    mem_budget_free(&w->budget);
    for (int i = 0; i < w->n; i++) {
        free(w->q[i].name);
        free(w->q[i].arch);
        free(w->q[i].at_ns);
    }
    free(w->folder);
}

static void print(const struct spec *s)
{
    const struct serving *w = &s->w;
    json_t *queries = json_array();
    for (int i = 0; i < w->n; i++) {
        const struct serving_query *q = &w->q[i];
        json_array_append_new(queries, json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f}", "name", q->name, "arch", q->arch, "bytes", (json_int_t)q->bytes[0], "merged_bytes",
                                                 (json_int_t)q->bytes[1], "run_ms", q->median_ns / 1e6, "slower", q->slower, "fps", 1e9 / q->period_ns));
    }
    json_t *j = json_pack("{s:o, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "queries", queries, "evict_ms_a_mb", w->evict_ns, "layer_bytes", (json_int_t)w->numbers, "bound_bytes", (json_int_t)w->bound,
                          "least_bytes", (json_int_t)w->least, "all_bytes", (json_int_t)w->all, "once_bytes", (json_int_t)w->once[0], "merged_once_bytes",
                          (json_int_t)w->once[1], "runs", s->runs);
    json_dumpf(j, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(j);
}

static err run_spec(const char *path)
{
    struct spec *s = xnew(struct spec);
    err e = read_spec(path, s);
    if (!e) e = open_all(&s->w);
    if (!e) e = all_runs(s);
    if (!e) print(s);
    close_all(&s->w);
    json_decref(s->json);
    free(s);
    return e;
}

err bench_serving(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--spec")) return run_spec(argv[2]);
    return bench_serving_script(argc, argv);
}
