/* `brim serve SITE`: the main job, until SIGINT or SIGTERM; SIGHUP reads the site file again.
 *
 * All signals are blocked before the first thread starts, and the main thread waits for them; every second it lets the outputs look at
 * themselves. Order at the end: the engine stops producing, outputs tell what waits, then everything is freed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"
#include "base/text.h"
#include "cli/args.h"
#include "cli/merge.h"
#include "cli/serve_cmd.h"
#include "cli/train.h"
#include "engine/engine.h"
#include "engine/guard.h"
#include "engine/job.h"
#include "serve/serve.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options {
    const char *store;
    uint64_t budget;
    double seconds;
    bool json, no_http;
};

static void announce(struct engine *e, const struct serve *s)
{
    char a[16], b[16];
    struct engine_floor f = engine_floor(e);
    log_info("serve", "budget %s; before any weights %s, weights of all models %s", size_text(mem_budget_limit(engine_budget(e)), a),
             size_text(engine_floor_before_weights(&f), b), size_text(f.all_models, (char[16]){0}));
    if (serve_port(s)) log_info("serve", "http://127.0.0.1:%d/ shows the box", serve_port(s));
}

/* Waits for the end: a signal, the time given, or all files at their end. */
static void wait_for_end(struct engine *e, struct serve *s, const sigset_t *signals, double seconds)
{
    int64_t begin = clock_ns();
    for (;;) {
        int got = sigtimedwait(signals, NULL, &(struct timespec){.tv_nsec = 500000000});
        if (got == SIGHUP) {
            if (serve_reload(s)) log_error("serve", "the old site runs on: %s", err_text());
        } else if (got > 0) {
            log_info("serve", "%s: stopping", strsignal(got));
            return;
        }
        serve_tick(s);
        if (seconds > 0 && (double)(clock_ns() - begin) / 1e9 >= seconds) return;
        if (engine_finished(e)) {
            log_info("serve", "all cameras have ended");
            return;
        }
    }
}

static json_t *summary_json(struct engine *e)
{
    struct engine_query_row *q;
    struct engine_camera_row *c;
    size_t nq = engine_queries(e, &q), nc = engine_cameras(e, &c);
    json_t *queries = json_array(), *cameras = json_array();
    for (size_t i = 0; i < nq; i++) {
        json_t *drops = json_object();
        for (int k = 1; k < SCHED_DROP_COUNT; k++)
            json_object_set_new(drops, sched_drop_text((enum sched_drop)k), json_integer((json_int_t)q[i].stats.dropped[k]));
        json_array_append_new(queries, json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:f, s:f, s:o}", "query", q[i].query, "camera",
                                                 q[i].camera, "model", q[i].model, "offered", (json_int_t)q[i].stats.offered, "run",
                                                 (json_int_t)q[i].stats.run, "late", (json_int_t)q[i].stats.late, "dropped", drops,
                                                 "saved_by_motion", (json_int_t)q[i].motion_saved, "detections", (json_int_t)q[i].detections,
                                                 "tracks", (json_int_t)q[i].tracks, "events", (json_int_t)q[i].events, "p50_ms",
                                                 (double)q[i].stats.p50_ns / 1e6, "p95_ms", (double)q[i].stats.p95_ns / 1e6, "problem", text_json(q[i].problem)));
    }
    for (size_t i = 0; i < nc; i++)
        json_array_append_new(cameras, json_pack("{s:s, s:s, s:I, s:I, s:I, s:o}", "camera", c[i].name, "state", video_state_name(c[i].video.state), "decoded",
                                                 (json_int_t)c[i].video.decoded, "corrupt", (json_int_t)c[i].video.corrupt, "reconnects",
                                                 (json_int_t)c[i].video.reconnects, "error", text_json(c[i].video.error)));
    free(q);
    free(c);
    struct engine_floor f = engine_floor(e);
    json_t *floor = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "arena", (json_int_t)f.arena, "scratch", (json_int_t)f.scratch, "code",
                              (json_int_t)f.code, "frames", (json_int_t)f.frames, "decoders", (json_int_t)f.decoders, "heads", (json_int_t)f.heads,
                              "other", (json_int_t)f.other, "largest_model", (json_int_t)f.largest_model, "all_models", (json_int_t)f.all_models,
                              "least_weights", (json_int_t)f.least_weights);
    return json_pack("{s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "seconds", engine_uptime_s(e), "cameras", cameras, "queries", queries, "floor", floor,
                     "memory", engine_memory(e), "blocks", engine_blocks(e), "guards", engine_guards_json(e), "problems", engine_problems(e));
}

static void print_summary(struct engine *e, FILE *to)
{
    struct engine_query_row *q;
    size_t n = engine_queries(e, &q);
    char a[16], b[16];
    fprintf(to, "%-24s %-14s %-18s %8s %8s %8s %8s %7s %7s %8s %8s\n", "query", "camera", "model", "offered", "run", "dropped", "still", "p50 ms",
           "p95 ms", "tracks", "events");
    for (size_t i = 0; i < n; i++) {
        uint64_t dropped = 0;
        for (int k = 1; k < SCHED_DROP_COUNT; k++) dropped += q[i].stats.dropped[k];
        fprintf(to, "%-24.24s %-14.14s %-18.18s %8llu %8llu %8llu %8llu %7.1f %7.1f %8llu %8llu%s%s\n", q[i].query, q[i].camera, q[i].model,
               (unsigned long long)q[i].stats.offered, (unsigned long long)q[i].stats.run, (unsigned long long)dropped,
               (unsigned long long)q[i].motion_saved, (double)q[i].stats.p50_ns / 1e6, (double)q[i].stats.p95_ns / 1e6,
               (unsigned long long)q[i].tracks, (unsigned long long)q[i].events, q[i].problem[0] ? "  " : "", q[i].problem);
    }
    free(q);
    struct mem_rss rss = mem_process_rss();
    fprintf(to, "budget: peak %s of %s; the kernel says %s resident, %s of it private\n", size_text(mem_budget_peak(engine_budget(e)), a),
           size_text(mem_budget_limit(engine_budget(e)), b), size_text(rss.total, (char[16]){0}), size_text(rss.anon, (char[16]){0}));
}

/* Where standard output has JSON lines, a summary for people goes to standard error. */
static void report(struct engine *e, struct serve *s, bool json)
{
    if (!json) {
        print_summary(e, serve_say(s, "") ? stderr : stdout);
        return;
    }
    json_t *j = summary_json(e);
    char *text = json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER), *line = xasprintf("%s\n", text ? text : "{}");
    if (!serve_say(s, line)) fputs(line, stdout);
    json_decref(j);
    free(line);
    free(text);
}

static err serve(const char *path, const struct options *o)
{
    struct site *site;
    struct engine *e = NULL;
    struct serve *s = NULL;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT), sigaddset(&signals, SIGTERM), sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error of a write, not the end of the box */
    if (o->store) setenv("BRIM_STORE", o->store, 1);
    err x = site_load(path, &site);
    if (x) return x;
    if (o->store) site->store = NULL; /* the command line wins */
    if (o->budget) site->budget = o->budget;
    if ((x = engine_open(site, &(struct engine_options){.outputs = serve_bytes(site)}, &e))) {
        site_free(&site);
        return x;
    }
    const struct engine_job_kind kinds[] = {cli_train_kind, cli_merge_kind};
    engine_guard_enable(e);
    engine_job_kinds(e, kinds, ARRAY_LEN(kinds));
    x = serve_open(e, &(struct serve_options){.site_path = path, .no_http = o->no_http, .own_store = o->store != NULL, .budget = o->budget}, &s);
    if (!x) x = engine_start(e);
    if (!x) {
        announce(e, s);
        wait_for_end(e, s, &signals, o->seconds);
        engine_stop(e);
        serve_tick(s);
        report(e, s, o->json);
    }
    serve_close(&s);
    engine_close(&e);
    return x;
}

int cli_serve(int argc, char **argv)
{
    struct options o = {0};
    struct args_list rest = {0};
    bool help = false;
    const struct args_option table[] = {{"store", ARGS_STRING, &o.store, "where weights, socket and database are (default: $BRIM_STORE, the site's)"},
                                        {"budget", ARGS_SIZE, &o.budget, "instead of the site's"},
                                        {"seconds", ARGS_FLOAT, &o.seconds, "stop after so long, and print a summary"},
                                        {"no-http", ARGS_FLAG, &o.no_http, "no page, no API"},
                                        {"json", ARGS_FLAG, &o.json, "the summary as one JSON object"},
                                        {NULL, 0, NULL, NULL}};
    err e = args_parse(argc, argv, table, &rest, &help);
    if (!e && !help && rest.n != 1) e = err_set(ERR_USAGE, "expected one SITE.yaml; --help says more");
    if (help) args_help("serve SITE.yaml [options]", table);
    if (!e && !help) e = serve(rest.items[0], &o);
    free(rest.items);
    return e ? args_fail("serve", e) : 0;
}
