/* The engine's lifetime: open, start, reload, close; and the sinks that results go to.
 *
 * Invariant: threads run between engine_start and engine_close only; they are stopped in the opposite order of the data flow (pump, then
 * executor), and only then are streams, models and cameras freed. SPDX-License-Identifier: Apache-2.0 */
#include "engine/guard_inside.h"

#include "base/log.h"
#include "base/text.h"
#include "engine/job_inside.h"
#include "engine/site_diff.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct engine_site *engine_site_ref(struct engine_site *s)
{
    __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
    return s;
}

void engine_site_unref(struct engine_site **sp)
{
    struct engine_site *s = *sp;
    *sp = NULL;
    if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL)) return;
    if (!s->borrowed) site_free(&s->site);
    free(s);
}

void engine_emit(struct engine *e, const struct engine_record *r)
{
    for (int i = 0; i < e->n_sinks; i++) e->sinks[i].fn(e->sinks[i].user, r);
}

void engine_add_sink(struct engine *e, engine_sink_fn *fn, void *user)
{
    if (e->n_sinks == ENGINE_MAX_SINKS) return;
    e->sinks[e->n_sinks].fn = fn;
    e->sinks[e->n_sinks++].user = user;
}

err engine_make_folders(const char *path)
{
    char *copy = xstrdup(path);
    int failed = 0;
    for (char *c = copy + 1; *c; c++) {
        if (*c != '/') continue;
        *c = 0;
        if (mkdir(copy, 0755) && errno != EEXIST) failed = errno;
        *c = '/';
    }
    failed = mkdir(copy, 0755) && errno != EEXIST ? errno : 0;
    free(copy);
    return failed ? err_set(ERR_IO, "%s: cannot make the store: %s; give another with --store", path, strerror(failed)) : ERR_OK;
}

char *engine_store_path(const struct site *s)
{
    const char *env = getenv("BRIM_STORE"), *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (s && s->store) return xstrdup(s->store);
    if (env && *env) return xstrdup(env);
    if (state && *state) return xasprintf("%s/brim", state);
    return xasprintf("%s/.local/state/brim", home && *home ? home : "/var/lib");
}

static err try_open(struct engine_site *site, const struct engine_options *o, struct engine **ret)
{
    struct engine *e = xnew(struct engine);
    pthread_mutex_init(&e->lock, NULL);
    pthread_mutex_init(&e->problems_lock, NULL);
    e->problems = json_object();
    e->started_ns = clock_ns();
    e->own_budget = !o->budget;
    e->measure_now = o->measure_precision;
    e->budget = o->budget ? o->budget : mem_budget_new("host", site->site->budget ? site->site->budget : mem_budget_auto());
    e->payer = mem_payer_new(e->budget, "engine");
    e->store = engine_store_path(site->site);
    err x = thread_event_init(&e->wake);
    if (!x) x = engine_make_folders(e->store);
    if (!x) x = weights_store_open(e->store, NULL, &e->models_store);
    if (!x) x = weights_reader_new(&e->reader);
    if (!x) x = sched_new(e->budget, NULL, NULL, &e->sched);
    if (!x) sched_set_sharing(e->sched, !site->site->blind);
    e->blocks = !site->site->whole_models;
    if (!x && e->blocks) sched_set_blocks(e->sched, e->payer, e->reader, (uint64_t)site->site->camera_count << 20);
    if (!x) x = engine_build(e, site);
    if (x) {
        engine_close(&e);
        return x;
    }
    e->site = engine_site_ref(site);
    *ret = e;
    return ERR_OK;
}

/* Gives cameras three seconds to connect, so that their frames and decoders are measured; returns how many did not. */
size_t engine_wait_for_cameras(struct engine *e)
{
    size_t away = 0;
    for (int tries = 0; tries < 30; tries++) {
        struct engine_camera_row *rows;
        size_t n = engine_cameras(e, &rows);
        away = 0;
        for (size_t i = 0; i < n; i++) away += rows[i].video.published == 0 && rows[i].video.state != VIDEO_FAILED;
        free(rows);
        if (!away) break;
        thread_event_wait(&e->wake, 100);
        thread_event_reset(&e->wake);
    }
    return away;
}

/* Two more pictures of each camera: one that waits for a model, one that a model or an output still reads while newer ones come. (Measured on the site of
 * examples/real.yaml: 28 MiB beside what an idle box has, where one picture of each of 12 cameras takes 13.) */
static uint64_t frames_under_way(struct engine *e)
{
    struct engine_camera_row *rows;
    size_t n = engine_cameras(e, &rows);
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += 2 * (uint64_t)rows[i].video.width * (uint64_t)rows[i].video.height * 3 / 2;
    free(rows);
    return bytes;
}

uint64_t engine_beside_weights(struct engine *e, size_t away)
{
    struct engine_floor f = engine_floor(e);
    struct engine_site *hold = engine_site_hold(e);
    size_t cameras = engine_site_get(hold)->camera_count;
    engine_site_unref(&hold);
    uint64_t bytes = engine_floor_before_weights(&f);
    bytes += away * (16u << 20); /* what a camera takes that could not be measured */
    return bytes + frames_under_way(e) + (1u << 20) * cameras; /* and trackers, converters: nothing runs yet */
}

/* What this site would need, found by building it without a limit; then it is closed again. */
static err too_small(struct engine_site *site, uint64_t limit, uint64_t outputs)
{
    struct engine *e = NULL;
    char reason[512], s[2][16];
    snprintf(reason, sizeof reason, "%s", err_text());
    struct mem_budget *all = mem_budget_new("host", UINT64_MAX);
    uint64_t least = 0;
    if (try_open(site, &(struct engine_options){.budget = all}, &e) == ERR_OK) {
        size_t away = engine_wait_for_cameras(e);
        least = engine_beside_weights(e, away) + engine_floor(e).least_weights + outputs;
        least += least / 16; /* frames and decoders are a little larger at one moment than at another */
    }
    engine_close(&e);
    mem_budget_free(&all);
    if (!least) return err_set(ERR_NOMEM, "%s", reason);
    return err_set(ERR_NOMEM, "a budget of %s is too small for this site (%s); about %s would do", size_text(limit, s[0]), reason,
                   size_text(least, s[1]));
}

err engine_open_borrowed(struct site *s, struct mem_budget *budget, struct engine **ret)
{
    struct engine_site *site = xnew(struct engine_site);
    site->site = s;
    site->refs = 1;
    site->borrowed = true;
    err x = try_open(site, &(struct engine_options){.budget = budget, .measure_precision = true}, ret);
    engine_site_unref(&site);
    return x;
}

err engine_open(struct site *s, const struct engine_options *o, struct engine **ret)
{
    struct engine_site *site = xnew(struct engine_site);
    site->site = s;
    site->refs = 1;
    uint64_t limit = o->budget ? mem_budget_limit(o->budget) : s->budget ? s->budget : mem_budget_auto();
    err x = try_open(site, o, ret);
    if (x == ERR_NOMEM) x = too_small(site, limit, o->outputs);
    if (x) site->site = NULL; /* stays the caller's */
    engine_site_unref(&site);
    return x;
}

/* With engine->lock held: somebody may give the box another site at any time, also before it runs. */
static err start(struct engine *e)
{
    err x = sched_start(e->sched);
    if (!x) x = thread_start("brim-pump", engine_pump, e, &e->pump);
    if (x) {
        sched_stop(e->sched);
        return x;
    }
    e->running = true;
    if (engine_precise_start(e, &e->precise)) log_warn("engine", "precision is not measured: %s", err_text());
    return ERR_OK;
}

err engine_start(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    err x = start(e);
    pthread_mutex_unlock(&e->lock);
    if (x) return x;
    if (engine_jobs_open(e)) log_error("engine", "jobs do not run: %s", err_text());
    if (engine_guards_open(e)) log_error("engine", "nothing is guarded: %s", err_text());
    return ERR_OK;
}

void engine_stop(struct engine *e)
{
    if (!e->running) return;
    engine_guards_close(e); /* first: it starts jobs */
    engine_jobs_close(e); /* they wait for the executor to make room */
    engine_precise_stop(&e->precise);
    atomic_store(&e->stop, true);
    thread_event_set(&e->wake);
    pthread_join(e->pump, NULL);
    pthread_mutex_lock(&e->lock); /* a reload stops and starts it, too: not any more */
    sched_stop(e->sched);
    e->running = false;
    pthread_mutex_unlock(&e->lock);
}

void engine_close(struct engine **ep)
{
    struct engine *e = *ep;
    if (!e) return;
    engine_stop(e);
    engine_jobs_free(e);
    while (e->streams) { /* nothing runs any more, so the order does not matter */
        struct engine_stream *s = e->streams;
        e->streams = s->next;
        engine_stream_close(&s);
    }
    for (size_t i = 0; i < e->n_models; i++) engine_model_close(&e->models[i]);
    engine_guards_free(e);
    for (size_t i = 0; i < e->n_cameras; i++) engine_camera_close(&e->cameras[i]);
    sched_free(&e->sched);
    weights_reader_free(&e->reader);
    weights_store_close(&e->models_store);
    mem_free(e->payer, MEM_ACTIVATIONS, e->arena, e->arena_bytes);
    mem_free(e->payer, MEM_SCRATCH, e->scratch, e->scratch_bytes);
    mem_payer_free(&e->payer);
    if (e->own_budget) mem_budget_free(&e->budget);
    engine_site_unref(&e->site);
    thread_event_done(&e->wake);
    json_decref(e->problems);
    pthread_mutex_destroy(&e->lock);
    pthread_mutex_destroy(&e->problems_lock);
    free(e->models);
    free(e->cameras);
    free(e->store);
    free(e);
    *ep = NULL;
}

/* With engine->lock held. In blocks, a budget that one model cannot be divided into would end them all; whole models (`residency: model`) are refused one by one. */
static err set_budget(struct engine *e, uint64_t bytes)
{
    struct engine_floor f = engine_floor_locked(e);
    uint64_t before = engine_floor_before_weights(&f), weights = e->blocks ? f.least_weights : 0;
    char s[3][16];
    if (bytes < before + weights && engine_eyes_leave(e)) return set_budget(e, bytes); /* guests go first */
    if (bytes < before)
        return err_set(ERR_NOMEM, "a budget of %s is less than the %s that are needed before any weights", size_text(bytes, s[0]),
                       size_text(before, s[1]));
    if (bytes < before + weights)
        return err_set(ERR_NOMEM, "a budget of %s is less than the %s that are needed before any weights and the least part of these, %s", size_text(bytes, s[0]),
                       size_text(before, s[1]), size_text(weights, s[2]));
    mem_budget_set_limit(e->budget, bytes);
    if (e->blocks) sched_divide(e->sched); /* before the next run: what stays is not touched */
    else sched_set_reserve(e->sched, 0); /* evicts what stands above the new limit */
    return ERR_OK;
}

err engine_set_budget(struct engine *e, uint64_t bytes)
{
    engine_jobs_give_way(e, bytes);
    pthread_mutex_lock(&e->lock);
    err x = set_budget(e, bytes);
    pthread_mutex_unlock(&e->lock);
    engine_jobs_go_on(e);
    return x;
}

static void now_runs(struct engine *e, struct engine_site *site)
{
    engine_site_unref(&e->site);
    e->site = engine_site_ref(site);
}

/* A larger budget is there before the new parts are made, a smaller one comes when the old ones are gone. */
static err build_within(struct engine *e, struct engine_site *site, bool same_budget)
{
    uint64_t limit = mem_budget_limit(e->budget), want = site->site->budget ? site->site->budget : mem_budget_auto();
    if (same_budget) return engine_build(e, site);
    if (want > limit) mem_budget_set_limit(e->budget, want);
    err x = engine_build(e, site);
    return x ? x : set_budget(e, want);
}

static bool all_same(const struct site_change *c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!c[i].same) return false;
    return true;
}

/* Will the new site take other memory than the old? Then jobs give way until it has what it needs. */
static bool needs_memory(struct engine *e, const struct site *s)
{
    struct engine_site *hold = engine_site_hold(e);
    struct site_diff *d = site_diff(engine_site_get(hold), s);
    bool same = d->budget_same && all_same(d->cameras, d->camera_count) && all_same(d->models, d->model_count) && all_same(d->queries, d->query_count);
    site_diff_free(&d);
    engine_site_unref(&hold);
    return !same;
}

err engine_reload(struct engine *e, struct site *s)
{
    struct engine_site *site = xnew(struct engine_site);
    site->site = s;
    site->refs = 1;
    if (needs_memory(e, s)) engine_jobs_give_way(e, 0);
    pthread_mutex_lock(&e->lock);
    struct engine_site *old = engine_site_ref(e->site);
    struct site_diff *d = site_diff(old->site, s);
    if (!d->settings_same) log_warn("engine", "%s: store, precision, threads, residency and sharing change at the next start only", s->path);
    if (!d->outputs_same) log_warn("engine", "%s: outputs change at the next start only", s->path);
    uint64_t limit = mem_budget_limit(e->budget);
    err x = build_within(e, site, d->budget_same);
    now_runs(e, site);
    if (x) { /* the budget did not suffice: back to what was there, which is known to fit */
        char reason[512];
        snprintf(reason, sizeof reason, "%s", err_text());
        mem_budget_set_limit(e->budget, limit);
        err back = engine_build(e, old);
        now_runs(e, old);
        x = err_set(x, back ? "%s; and the old site could not be restored: %s" : "%s%s", reason, back ? err_text() : "; the old site runs on");
    }
    site_diff_free(&d);
    pthread_mutex_unlock(&e->lock);
    engine_jobs_go_on(e);
    engine_jobs_follow_site(e);
    engine_site_unref(&old);
    engine_site_unref(&site);
    return x;
}

bool engine_finished(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    bool finished = e->n_cameras > 0; /* a box without cameras waits for a reload */
    for (size_t i = 0; i < e->n_cameras && finished; i++) {
        struct video_stats v;
        video_camera_stats(e->cameras[i]->cam, &v);
        finished = (v.state == VIDEO_ENDED || v.state == VIDEO_FAILED) && atomic_load(&e->cameras[i]->pending) == 0 &&
                   v.published == atomic_load(&e->cameras[i]->taken) + v.dropped;
    }
    pthread_mutex_unlock(&e->lock);
    return finished;
}

struct mem_budget *engine_budget(struct engine *e)
{
    return e->budget;
}

struct engine_site *engine_site_hold(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    struct engine_site *s = engine_site_ref(e->site);
    pthread_mutex_unlock(&e->lock);
    return s;
}

const struct site *engine_site_get(const struct engine_site *s)
{
    return s->site;
}

double engine_uptime_s(struct engine *e)
{
    return (double)(clock_ns() - e->started_ns) / 1e9;
}

void engine_set_problem(struct engine *e, const char *what, const char *sentence)
{
    pthread_mutex_lock(&e->problems_lock);
    const char *old = json_string_value(json_object_get(e->problems, what));
    bool news = *sentence && (!old || strcmp(old, sentence) != 0);
    if (*sentence)
        json_object_set_new(e->problems, what, text_json(sentence));
    else
        json_object_del(e->problems, what);
    pthread_mutex_unlock(&e->problems_lock);
    if (news) log_warn("engine", "%s: %s", what, sentence);
}
