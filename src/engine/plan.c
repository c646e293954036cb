/* `brim plan`: what a site would need and how it would run, from one measurement of each model.
 *
 * The same numbers as in the running box: what is not weights is counted as for "about ... would do" (engine.c), the
 * division is sched's (blocks_divide, one tenant per model, all but pinned ones), with the step times measured here.
 * Two simplifications, both on the safe side: blocks that several models share count for each of them, and models
 * that run in batches count as run one by one.
 *
 * In time means: every run alone ends before its query's deadline, runs with their waits for weights take less than
 * all of the executor's time, and reads less than all of the disk's. The smallest such budget is found by bisection,
 * which supposes that more memory never makes it worse; the answer itself is always one that was tried.
 * SPDX-License-Identifier: Apache-2.0 */
#include "engine/plan.h"
#include "engine/inside.h"

#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 4, READ_BYTES = 64 << 20, READ_NS = 1000000000, STEP = 64 << 10 };
static const double UNKNOWN_BANDWIDTH = 1e9, UNKNOWN_FPS = 25;

struct tenant {
    struct engine_model *model;
    struct model_blocks_problem b;
    int64_t *step_ns, run_ns; /* measured, all in memory */
    double rate;
};

struct plan {
    struct engine *e;
    int n; /* of tenants */
    struct tenant *tenants;
    struct blocks_tenant *wishes; /* one per tenant */
    uint64_t beside, weights,
        pinned,       /* bytes: beside all weights; of all weights; of those in them that stay for good */
        shared, twice; /* of all weights, what is in memory once for several models; of it, in what models that are divided always keep */
    double bandwidth; /* of the disk, bytes a second; 0: nothing to read */
    json_t *assumed;
};

static void assume(struct plan *p, const char *sentence)
{
    size_t i;
    json_t *old;
    json_array_foreach(p->assumed, i, old) if (!strcmp(json_string_value(old), sentence)) return;
    json_array_append_new(p->assumed, text_json(sentence));
}

/* ---- measuring */

/* Any picture costs the same: kernels do not look at values. Not zeros, whose products could be denormal after a
 * normalisation. */
static void fill_inputs(struct engine_model *m)
{
    for (int i = 0; i < model_input_count(m->model); i++) {
        struct tensor t = model_plan_input(m->one.plan, i);
        float *x = t.data;
        int64_t n = tensor_count(&t.shape);
        for (int64_t k = 0; k < n; k++)
            x[k] = 0.5f;
    }
}

static err best_of_runs(struct tenant *t, int steps)
{
    int64_t *ns = xnewn(int64_t, (size_t)steps + 1);
    err e = ERR_OK;
    for (int i = 0; i < RUNS && !e; i++) {
        memset(ns, 0, ((size_t)steps + 1) * sizeof *ns);
        fill_inputs(t->model);
        e = model_plan_run(t->model->one.plan, ns);
        int64_t total = 0;
        for (int k = 0; k < steps; k++)
            total += ns[k];
        if (e || (t->run_ns && total >= t->run_ns)) continue;
        t->run_ns = MAX(total, 1);
        memcpy(t->step_ns, ns, ((size_t)steps + 1) * sizeof *ns);
    }
    free(ns);
    return e;
}

static err measure(struct tenant *t)
{
    int steps = model_plan_sizes(t->model->one.plan).steps;
    t->step_ns = xnewn(int64_t, (size_t)steps + 1);
    err e = model_request(t->model->model);
    if (e) return e;
    e = model_wait(t->model->model);
    if (!e) e = best_of_runs(t, steps);
    model_release(t->model->model);
    return e ? e : model_evict(t->model->model);
}

/* Reads the packed weights again and again, as the box would: large direct reads, several at a time. 0: nothing to
 * read. */
static err measure_disk(struct plan *p, double *ret)
{
    int64_t begin = clock_ns();
    uint64_t first = weights_reader_stats(p->e->reader).bytes, last = first - 1;
    err e = ERR_OK;
    for (;;) {
        struct weights_reader_stats s = weights_reader_stats(p->e->reader);
        if (e || s.bytes == last || s.bytes - first >= READ_BYTES || clock_ns() - begin >= READ_NS) {
            *ret = s.bandwidth > 0            ? s.bandwidth
                   : s.busy_ns > 0 && s.bytes ? (double)s.bytes * 1e9 / (double)s.busy_ns
                                              : 0;
            return e;
        }
        last = s.bytes;
        for (int i = 0; i < p->n && !e; i++) {
            struct model *m = p->tenants[i].model->model;
            e = model_request(m);
            if (e) break;
            e = model_wait(m);
            model_release(m);
            if (!e) e = model_evict(m);
        }
    }
}

/* ---- what is asked for */

static double camera_fps(struct plan *p, const struct engine_stream *s)
{
    struct video_stats v;
    video_camera_stats(s->camera->cam, &v);
    char text[160];
    if (s->q->fps > 0) return s->q->fps;
    double fps = v.stream_fps > 0 ? v.stream_fps : UNKNOWN_FPS;
    snprintf(text, sizeof text, "camera '%s' gives %g frames a second%s, all of which are wanted", s->camera->name,
             fps, v.stream_fps > 0 ? "" : " (it did not say)");
    assume(p, text);
    return fps;
}

static double rate_of(struct plan *p, const struct engine_stream *s)
{
    if (s->cascade) assume(p, "every frame hands one object on to each cascade");
    if (s->camera->max_pace)
        assume(p, "cameras with `pace: max` count with their queries' fps, though they run as fast as they can");
    return camera_fps(p, s);
}

static int64_t deadline_of(const struct engine_stream *s)
{
    return s->camera->max_pace ? 0 : (int64_t)s->q->deadline_ms * 1000000;
}

static void wishes(struct plan *p, struct tenant *t, struct blocks_tenant *w)
{
    int priority = t->model->o->priority;
    *w = (struct blocks_tenant){.problem = &t->b.problem};
    t->rate = 0;
    for (const struct engine_stream *s = p->e->streams; s; s = s->next) {
        if (s->model != t->model) continue;
        int64_t deadline = deadline_of(s);
        t->rate += rate_of(p, s);
        priority = MAX(priority, s->q->priority);
        if (deadline && (!w->deadline_ns || deadline < w->deadline_ns)) w->deadline_ns = deadline;
    }
    w->rate = MAX(t->rate, 0.1);
    w->weight = 1 + priority;
}

/* ---- one budget tried */

struct trial {
    bool fits, in_time;
    double executor_share, disk_share;
    size_t kept, window;
    int64_t *predicted_ns; /* per tenant */
};

static void trial_done(struct trial *t)
{
    free(t->predicted_ns);
}

/* Tenants that can be divided come first; pinned ones after them. */
static int divided(const struct plan *p)
{
    int n = 0;
    while (n < p->n && !p->tenants[n].model->o->pin)
        n++;
    return n;
}

static uint64_t least_of(const struct plan *p)
{
    return p->beside + p->pinned + (divided(p) ? blocks_divide_least(p->wishes, divided(p)) - p->twice : 0);
}

static void judge(const struct plan *p, struct trial *t)
{
    t->in_time = t->disk_share < 1;
    for (int i = 0; i < p->n; i++) {
        t->executor_share += p->tenants[i].rate * (double)t->predicted_ns[i] / 1e9;
        if (p->wishes[i].deadline_ns && t->predicted_ns[i] > p->wishes[i].deadline_ns) t->in_time = false;
    }
    if (t->executor_share >= 1) t->in_time = false;
}

static void try_budget(const struct plan *p, uint64_t budget, struct trial *ret)
{
    int n = divided(p);
    struct blocks_division d = {0};
    *ret = (struct trial){.predicted_ns = xnewn(int64_t, (size_t)p->n + 1)};
    if (budget < least_of(p)) return;
    if (n && blocks_divide_shared(p->wishes, n, (size_t)(budget - p->beside - p->pinned), (size_t)p->twice, &d)) return;
    for (int i = 0; i < p->n; i++)
        ret->predicted_ns[i] = i < n ? d.plans[i].predicted_ns : p->tenants[i].run_ns;
    ret->fits = true;
    ret->kept = d.kept - d.shared + p->pinned;
    ret->window = d.window;
    ret->disk_share = d.disk_share;
    if (n) blocks_division_done(&d, n);
    judge(p, ret);
}

static bool in_time(const struct plan *p, uint64_t budget)
{
    struct trial t;
    try_budget(p, budget, &t);
    bool yes = t.fits && t.in_time;
    trial_done(&t);
    return yes;
}

/* 0: not even with everything in memory. */
static uint64_t least_in_time(const struct plan *p)
{
    uint64_t no = least_of(p), yes = MAX(no, p->beside + p->weights) + STEP;
    if (in_time(p, no)) return no;
    if (!in_time(p, yes)) return 0;
    while (yes - no > STEP) {
        uint64_t middle = no + (yes - no) / 2;
        if (in_time(p, middle))
            yes = middle;
        else
            no = middle;
    }
    return yes;
}

/* ---- from a built engine */

static int pinned_last(const void *a, const void *b)
{
    const struct tenant *x = a, *y = b;
    return x->model->o->pin - y->model->o->pin;
}

static void count_shared(struct plan *p)
{
    struct weights_set **sets = xnewn(struct weights_set *, (size_t)p->n + 1);
    size_t n = (size_t)divided(p), all = (size_t)p->n;
    for (size_t i = 0; i < all; i++)
        sets[i] = model_weights(p->tenants[i].model->model);
    p->shared = weights_twice_bytes(sets, all, false);
    p->twice = weights_twice_bytes(sets, n, true);
    p->pinned -= weights_twice_bytes(sets + n, all - n, false);
    free(sets);
}

static err collect(struct plan *p, double bandwidth)
{
    err e = ERR_OK;
    for (size_t i = 0; i < p->e->n_models; i++)
        if (p->e->models[i]->sched) p->tenants[p->n++].model = p->e->models[i];
    qsort(p->tenants, (size_t)p->n, sizeof *p->tenants, pinned_last);
    for (int i = 0; i < p->n && !e; i++) {
        e = measure(&p->tenants[i]);
        if (e) e = err_wrap(e, "model '%s'", p->tenants[i].model->name);
    }
    p->bandwidth = bandwidth;
    if (!e && bandwidth <= 0) e = measure_disk(p, &p->bandwidth);
    if (e) return e;
    double speed = p->bandwidth > 0 ? p->bandwidth : UNKNOWN_BANDWIDTH;
    for (int i = 0; i < p->n; i++) {
        struct tenant *t = &p->tenants[i];
        model_blocks_problem(t->model->one.plan, speed, &t->b);
        t->b.problem.step_ns = t->step_ns; /* measured here; its own are guesses, for no window was used */
        wishes(p, t, &p->wishes[i]);
        p->weights += weights_bytes(model_weights(t->model->model));
        if (t->model->o->pin) p->pinned += weights_bytes(model_weights(t->model->model));
    }
    count_shared(p);
    return ERR_OK;
}

static json_t *ms_or_null(double ns)
{
    return ns > 0 ? json_real(ns / 1e6) : json_null();
}

static json_t *text_or_null(const char *s)
{
    return s && *s ? text_json(s) : json_null();
}

static json_t *query_json(struct plan *p, const struct engine_stream *s, const struct trial *t)
{
    int64_t own = 0, compute = 0, other = 0, deadline = deadline_of(s);
    int users = 0;
    for (const struct engine_stream *o = p->e->streams; o; o = o->next)
        users += o->model == s->model;
    for (int i = 0; i < p->n; i++) {
        bool mine = p->tenants[i].model == s->model;
        if (mine) own = t->predicted_ns[i], compute = p->tenants[i].run_ns;
        if (!mine || users > 1) other = MAX(other, t->predicted_ns[i]);
    }
    bool right = !s->problem[0] && (!s->model || t->fits) && (!deadline || own <= deadline);
    return json_pack("{s:o, s:o, s:o, s:f, s:o, s:o, s:o, s:o, s:b, s:o}", "query", text_json(s->q->name), "camera",
                     text_json(s->camera->name), "model", text_or_null(s->model ? s->model->name : NULL), "fps",
                     camera_fps(p, s), "deadline_ms", ms_or_null((double)deadline), "compute_ms",
                     ms_or_null((double)compute), "latency_ms", ms_or_null((double)own), "behind_ms",
                     ms_or_null(own ? (double)(own + other) : 0), "in_time", right, "problem",
                     text_or_null(s->problem));
}

static json_t *answer(struct plan *p, uint64_t budget, bool disk_given)
{
    struct trial t;
    uint64_t enough = least_in_time(p);
    try_budget(p, budget, &t);
    json_t *queries = json_array(), *at = json_null();
    bool all = t.fits && t.in_time;
    for (const struct engine_stream *s = p->e->streams; s; s = s->next) {
        json_array_append_new(queries, query_json(p, s, &t));
        if (s->problem[0]) all = false;
    }
    if (t.fits)
        at = json_pack("{s:I, s:I, s:f, s:f}", "kept_bytes", (json_int_t)t.kept, "window_bytes", (json_int_t)t.window,
                       "executor_share", t.executor_share, "disk_share", t.disk_share);
    json_t *r = json_pack("{s:I, s:I, s:o, s:I, s:I, s:I, s:b, s:b, s:o, s:b, s:o, s:o, s:O}", "budget_bytes",
                          (json_int_t)budget, "least_bytes", (json_int_t)least_of(p), "deadline_bytes",
                          enough ? json_integer((json_int_t)enough) : json_null(), "beside_weights_bytes",
                          (json_int_t)p->beside, "weights_bytes", (json_int_t)p->weights, "shared_bytes", (json_int_t)p->shared, "fits", t.fits, "in_time",
                          all, "disk_bytes_per_s", p->bandwidth > 0 ? json_real(p->bandwidth) : json_null(),
                          "disk_given", disk_given, "at_budget", at, "queries", queries, "assumed", p->assumed);
    trial_done(&t);
    return r;
}

static void plan_done(struct plan *p)
{
    for (int i = 0; i < p->n; i++) {
        model_blocks_problem_done(&p->tenants[i].b);
        free(p->tenants[i].step_ns);
    }
    free(p->tenants);
    free(p->wishes);
    json_decref(p->assumed);
}

err engine_plan_site(struct site *site, const struct engine_plan_options *o, json_t **ret)
{
    struct plan p = {.assumed = json_array()};
    struct mem_budget *all = mem_budget_new("host", UINT64_MAX);
    uint64_t budget = o->budget ? o->budget : site->budget ? site->budget : mem_budget_auto();
    char text[128];
    err e = engine_open_borrowed(site, all, &p.e);
    if (!e) {
        size_t away = engine_wait_for_cameras(p.e);
        snprintf(text, sizeof text, "%zu cameras gave no frame within three seconds: 16 MiB for each", away);
        if (away) assume(&p, text);
        if (site->whole_models)
            assume(&p, "`residency: model` is not considered: these figures are for `residency: blocks`");
        p.beside = engine_beside_weights(p.e, away) + o->outputs;
        if (site->outputs.video) assume(&p, "the videos that outputs.video writes are not counted");
        p.tenants = xnewn(struct tenant, p.e->n_models + 1);
        p.wishes = xnewn(struct blocks_tenant, p.e->n_models + 1);
        e = collect(&p, o->bandwidth);
    }
    if (!e) *ret = answer(&p, budget, o->bandwidth > 0);
    plan_done(&p);
    engine_close(&p.e);
    mem_budget_free(&all);
    return e;
}
