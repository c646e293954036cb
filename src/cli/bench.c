/* `brim bench NAME`, and `site`: the main job at several budgets, measured from outside.
 *
 * Each row is a `brim serve` of its own: at a budget of floor + 100, 50, 25 % of the packed weights, and the
 * same again inside a memory cgroup of budget + idle + 48 MiB. The floor (arena, scratch, code, frames,
 * decoders) is what a first run says. RssAnon is sampled from /proc ten times a second, over that of an idle
 * box. SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench.h"

#include "cli/args.h"
#include "cli/bench_inside.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static const uint64_t MARGIN = 48u << 20;

struct site_bench {
    const char *site;
    double seconds;
    bool json, no_cgroup;
    struct bench_place place;
    uint64_t idle_anon, idle_rss, floor, weights;
    json_t *rows;
};

static err serve_once(const struct site_bench *b, const char *site, double seconds, uint64_t budget,
                      uint64_t limit, struct child *c, json_t **ret) {
    char budget_text[32], seconds_text[32], store[96], log[96], *output;
    snprintf(budget_text, sizeof budget_text, "%llu", (unsigned long long)budget);
    snprintf(seconds_text, sizeof seconds_text, "%.1f", seconds);
    snprintf(store, sizeof store, "%s/store", b->place.folder);
    snprintf(log, sizeof log, "%s/log", b->place.folder);
    char *argv[] = {(char *)(uintptr_t)b->place.self,
                    (char *)"serve",
                    (char *)(uintptr_t)site,
                    (char *)"--store",
                    store,
                    (char *)"--seconds",
                    seconds_text,
                    (char *)"--no-http",
                    (char *)"--json",
                    (char *)"--budget",
                    budget_text,
                    NULL};
    if (!budget) argv[9] = NULL;
    err e = child_start(c, argv, log, limit);
    if (e) return e;
    if ((e = child_finish(c, &output))) return e;
    *ret = json_loads(output, 0, NULL);
    free(output);
    if (*ret || c->oom_killed) return ERR_OK;
    return err_set(ERR_IO, "brim serve ended with status %d; its log is %s",
                   WIFEXITED(c->status) ? WEXITSTATUS(c->status) : -WTERMSIG(c->status), log);
}

static uint64_t number(const json_t *o, const char *key) {
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

static err measure_idle(struct site_bench *b) {
    char path[96];
    struct child c;
    json_t *j = NULL;
    snprintf(path, sizeof path, "%s/idle.yaml", b->place.folder);
    FILE *f = fopen(path, "we");
    if (!f) return err_set(ERR_IO, "%s", path);
    fputs("version: 1\noutputs: {http: {listen: \"127.0.0.1:0\"}}\n", f);
    fclose(f);
    err e = serve_once(b, path, 3, 0, 0, &c, &j);
    b->idle_anon = c.peak_anon;
    b->idle_rss = c.peak_rss;
    json_decref(j);
    return e;
}

static err measure_floor(struct site_bench *b) {
    struct child c;
    json_t *j = NULL;
    err e = serve_once(b, b->site, 8, (uint64_t)1 << 40, 0, &c, &j);
    if (e) return e;
    const json_t *f = json_object_get(j, "floor");
    b->floor = number(f, "arena") + number(f, "scratch") + number(f, "code") + number(f, "frames") +
               number(f, "decoders") + number(f, "heads") + number(f, "other");
    b->weights = number(f, "all_models");
    if (!b->json)
        printf("floor %.1f MiB: arena %.1f, scratch %.1f, code %.1f, frames %.1f, decoders %.1f, heads %.1f, "
               "other %.1f; packed weights %.1f MiB, "
               "largest model %.1f MiB\nidle box: %.1f MiB resident, %.1f MiB of it private\n",
               (double)b->floor / 1048576, (double)number(f, "arena") / 1048576,
               (double)number(f, "scratch") / 1048576, (double)number(f, "code") / 1048576,
               (double)number(f, "frames") / 1048576, (double)number(f, "decoders") / 1048576,
               (double)number(f, "heads") / 1048576, (double)number(f, "other") / 1048576,
               (double)b->weights / 1048576, (double)number(f, "largest_model") / 1048576,
               (double)b->idle_rss / 1048576, (double)b->idle_anon / 1048576);
    json_decref(j);
    return ERR_OK;
}

static json_int_t dropped(const json_t *query, const char *reason) {
    const char *key;
    json_t *v;
    json_int_t sum = 0;
    json_object_foreach(json_object_get(query, "dropped"), key, v) if (!reason || !strcmp(key, reason)) sum +=
        json_integer_value(v);
    return sum;
}

static void print_row(const struct site_bench *b, int percent, const struct child *c, const json_t *j,
                      uint64_t budget, bool cgroup) {
    size_t i;
    json_t *q;
    const json_t *memory = json_object_get(j, "memory");
    json_int_t offered = 0, run = 0, late = 0, newer = 0, no_memory = 0;
    printf("\n== weights %d %%: budget %.1f MiB%s\n", percent, (double)budget / 1048576,
           cgroup ? ", in a memory cgroup of budget + idle + 48 MiB" : "");
    if (c->oom_killed || !j) {
        printf("KILLED by the cgroup\n");
        return;
    }
    if (!cgroup)
        printf("%-20s %-14s %-12s %7s %7s %9s %9s %9s %8s %8s\n", "query", "camera", "model", "asked", "run",
               "late", "newer", "no memory", "p50 ms", "p95 ms");
    json_array_foreach(json_object_get(j, "queries"), i, q) {
        offered += json_integer_value(json_object_get(q, "offered"));
        run += json_integer_value(json_object_get(q, "run"));
        late += dropped(q, "it would have been late");
        newer += dropped(q, "a newer frame came");
        no_memory += dropped(q, "its model did not fit into the budget");
        if (cgroup) continue;
        printf(
            "%-20.20s %-14.14s %-12.12s %7lld %7lld %9lld %9lld %9lld %8.1f %8.1f\n",
            json_string_value(json_object_get(q, "query")), json_string_value(json_object_get(q, "camera")),
            json_string_value(json_object_get(q, "model")), json_integer_value(json_object_get(q, "offered")),
            json_integer_value(json_object_get(q, "run")), dropped(q, "it would have been late"),
            dropped(q, "a newer frame came"), dropped(q, "its model did not fit into the budget"),
            json_real_value(json_object_get(q, "p50_ms")), json_real_value(json_object_get(q, "p95_ms")));
    }
    printf("all: asked %lld, run %lld (%.1f %%), late %lld, newer %lld, no memory %lld\n", offered, run,
           offered ? 100.0 * (double)run / (double)offered : 0, late, newer, no_memory);
    double growth = ((double)c->peak_anon - (double)b->idle_anon) / 1048576,
           peak = (double)number(memory, "peak_bytes") / 1048576;
    printf("budget peak %.1f of %.1f MiB; RssAnon grew by %.1f MiB over idle (difference %+.1f); CPU %.0f %% "
           "of two cores\n",
           peak, (double)budget / 1048576, growth, growth - peak, 100 * c->cpu_s / (b->seconds * 2));
}

static err one_budget(struct site_bench *b, int percent, bool cgroup) {
    struct child c;
    json_t *j = NULL;
    uint64_t budget = b->floor + b->weights * (uint64_t)percent / 100;
    err e = serve_once(b, b->site, b->seconds, budget, cgroup ? budget + b->idle_anon + MARGIN : 0, &c, &j);
    if (e) return e;
    if (!b->json) print_row(b, percent, &c, j, budget, cgroup);
    json_array_append_new(
        b->rows, json_pack("{s:i, s:b, s:I, s:I, s:f, s:b, s:o}", "weights_percent", percent, "cgroup",
                           cgroup, "budget_bytes", (json_int_t)budget, "rss_anon_growth_bytes",
                           (json_int_t)c.peak_anon - (json_int_t)b->idle_anon, "cpu_s", c.cpu_s, "oom_killed",
                           c.oom_killed, "serve", j ? j : json_null()));
    return ERR_OK;
}

static err measure_site(struct site_bench *b) {
    static const int percents[] = {100, 50, 25};
    err e = bench_place_open(&b->place);
    if (e) return e;
    b->rows = json_array();
    e = measure_idle(b);
    if (!e) e = measure_floor(b);
    for (size_t i = 0; i < ARRAY_LEN(percents) && !e; i++)
        e = one_budget(b, percents[i], false);
    for (size_t i = 0; i < ARRAY_LEN(percents) && !e && !b->no_cgroup; i++) {
        e = one_budget(b, percents[i], true);
        if (e != ERR_UNSUPPORTED) continue;
        fprintf(stderr, "memory cgroup: %s\n", err_text());
        e = ERR_OK;
        break;
    }
    if (b->json && !e) {
        json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:O}", "site", b->site, "idle_rss_anon_bytes",
                              (json_int_t)b->idle_anon, "floor_bytes", (json_int_t)b->floor, "weight_bytes",
                              (json_int_t)b->weights, "rows", b->rows);
        json_dumpf(j, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(j);
    }
    json_decref(b->rows);
    bench_place_close(&b->place, e != ERR_OK);
    return e;
}

static err bench_site(int argc, char **argv) {
    struct site_bench b = {.site = "examples/real.yaml", .seconds = 60};
    struct args_list rest = {0};
    bool help = false;
    const struct args_option table[] = {
        {"site", ARGS_STRING, &b.site, "site file (default examples/real.yaml, needs BRIM_DATA)"},
        {"seconds", ARGS_FLOAT, &b.seconds, "of each run (default 60)"},
        {"no-cgroup", ARGS_FLAG, &b.no_cgroup, "not again inside a memory cgroup"},
        {"json", ARGS_FLAG, &b.json, "one JSON object"},
        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && rest.n) e = err_set(ERR_USAGE, "'%s' is one word too many", rest.items[0]);
    if (help) args_help("bench site [options]", table);
    if (!e && !help) e = measure_site(&b);
    free(rest.items);
    return e;
}

/* clang-format off */
static const struct bench {
    const char *name;
    err (*run)(int argc, char **argv);
    const char *what;
} benches[] = {
    {"site", bench_site, "the main job at several budgets, also inside a memory cgroup"},
    {"residency", bench_site_script, "the site at 50, 25, 15 % of its weights: block against whole-model residency"},
    {"plan", bench_site_script, "what brim plan predicts beside what a running box measures"},
    {"soak", bench_soak, "memory over time while half of the cameras are dead or flapping"},
    {"kill", bench_kill, "kill -9 at random moments: is every event there that was told"},
    {"start", bench_start, "an idle box's memory, and the time to the first detection"},
    {"merge", bench_merge_script, "layers that models share: pairs, real merges, both policies in equal minutes"},
    {"serving", bench_serving, "frames in time in too little memory: time sharing, merging, blocks; live and rehearsed"},
    {"applications", bench_applications, "eleven tasks in three applications, each in a budget that is too small for it"},
    {"swap", bench_swap, "networks in less memory than they need, beside the bound and other ways"},
    {"train", bench_train, "training beside PyTorch, detectors before and after; with ARCH one network's step"},
    {"beside", bench_beside, "how much cameras suffer from a training in the same box"},
    {"models", bench_models, "other engines on the same models: time, start, memory"},
    {"precision", bench_precision, "what bf16 and auto cost detectors: error and AP50 beside f32"},
};
/* clang-format on */

static void usage(FILE *to) {
    fprintf(to, "usage: brim bench NAME [options]\n");
    for (size_t i = 0; i < ARRAY_LEN(benches); i++)
        fprintf(to, "  %-9s %s\n", benches[i].name, benches[i].what);
}

int cli_bench(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < ARRAY_LEN(benches); i++)
        if (!strcmp(name, benches[i].name)) {
            err e = benches[i].run(argc - 1, argv + 1);
            return e ? args_fail("bench", e) : 0;
        }
    bool help = !strcmp(name, "--help");
    usage(help ? stdout : stderr);
    return help ? 0 : 2;
}
