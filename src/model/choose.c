/* Precision by measurement: how much of a model may run in bf16, and is it faster?
 *
 * A twin of the model runs in f32 and in bf16 on numbers drawn in the range that its inputs have. Every float output must keep ||a - b|| <= LIMIT ||a||, and the run
 * must take less time than in f32. Where all of it in bf16 is too coarse, the operators that gain are cut into groups in their order, each group runs in bf16 alone,
 * and the groups that hurt most stay in f32, as few as do. (Measured: yolox_nano is hurt by its first quarter, nanodet and FastestDet by their heads as well; keeping
 * only the first operators refused both, though bf16 makes them 1.7 times faster.) If nothing does, the model stays f32.
 *
 * Time is the processor time of the calling thread: other work on the machine must not decide what is then believed for good.
 *
 * The verdict is a file of the spill directory, or of the folder of verdicts where there is none, named by the graph, its numbers and the
 * processor, so that only the first start pays (verdict.c). What the twin takes is the import's (files, dropped
 * at the end); without a spill directory it is the budget's, and where that is too small the model is f32 this time.
 *
 * Invariant: a choice is made once per model object; all its plans follow it. SPDX-License-Identifier: Apache-2.0 */
#include "model/verdict.h"

#include "graph/precision.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RUNS = 4, SAMPLES = 2, GROUPS = MODEL_VERDICT_GROUPS, FEW_GROUPS = 6, SLOW_MS = 150 }; /* slow models are cut into fewer: it is the start that waits */
static const double LIMIT = 0.025; /* 0.03 is promised; other inputs are not these */

/* ---- which model the verdict is about */

static uint64_t hash_attr(const struct op_attr *a, uint64_t h)
{
    h = hash64(&a->i, sizeof a->i, hash64(&a->f, sizeof a->f, h));
    if (a->ints) h = hash64(a->ints, a->n * sizeof *a->ints, h);
    if (a->floats) h = hash64(a->floats, a->n * sizeof *a->floats, h);
    return a->type == OP_ATTR_STRING && a->s ? hash64(a->s, a->n, h) : h;
}

static uint64_t hash_of(const struct model *m, const struct graph *g)
{
    if (m->stored) return model_stored_hash(m);
    uint64_t h = hash64(&g->opset, sizeof g->opset, 0);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct op_node *n = &g->nodes[i].op;
        int facts[3] = {(int)n->kind, n->n_in, n->n_out};
        h = hash64(n->out, (size_t)n->n_out * sizeof *n->out, hash64(n->in, (size_t)n->n_in * sizeof *n->in, hash64(facts, sizeof facts, h)));
        for (int k = 0; k < n->n_attrs; k++) h = hash_attr(&n->attrs[k], h);
    }
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i].constant) h = hash64(g->values[i].constant, g->values[i].constant_bytes, h);
    return h;
}

/* ---- what is kept */

static int count_strong(const struct graph *g)
{
    int strong = 0;
    for (size_t i = 0; i < g->n_nodes; i++) strong += graph_gains_by_bf16(g, &g->nodes[i]);
    return strong;
}

bool *model_choice_flags(const struct graph *g, const struct model_choice *c)
{
    bool *keep = xnewn(bool, g->n_nodes + 1);
    int64_t strong = c->keep ? count_strong(g) : 0, at = 0;
    for (size_t i = 0; i < g->n_nodes && strong; i++)
        if (graph_gains_by_bf16(g, &g->nodes[i])) keep[i] = c->keep >> (at++ * c->groups / strong) & 1;
    return keep;
}

/* ---- twins */

struct twin {
    struct model *m;
    struct model_plan *p;
    double ms;
    float **out[SAMPLES]; /* per output, row-major; NULL for those that are not f32 */
};

static void draw(const struct model *m, int sample, uint32_t seed, const struct tensor *to)
{
    size_t bytes = (size_t)tensor_span(to) * tensor_dtype_size(to->dtype);
    memset(to->data, 0, bytes);
    if (to->dtype != TENSOR_F32) return;
    const float *range = m->options.sample_range;
    bool given = range[0] < range[1];
    float low = given ? range[0] : 0, high = given ? range[1] : sample ? 255 : 1;
    uint32_t x = seed + (uint32_t)sample;
    for (int64_t i = 0; i < tensor_span(to); i++) { /* the order does not matter: it is the same for both twins */
        x = x * 1664525u + 1013904223u;
        ((float *)to->data)[i] = low + (high - low) * (float)(x >> 8) / 16777216.0f;
    }
}

static err take_output(struct twin *t, int sample, int i)
{
    struct tensor from = model_plan_output(t->p, i);
    if (from.dtype != TENSOR_F32 || from.shape.bounded) return ERR_OK;
    int64_t n = tensor_count(&from.shape);
    float *flat = malloc((size_t)MAX(n, 1) * sizeof *flat);
    if (!flat) return err_set(ERR_NOMEM, "no memory for an output");
    t->out[sample][i] = flat;
    struct tensor to = tensor_view(TENSOR_F32, &from.shape, flat);
    return model_copy(&from, &to);
}

static int64_t own_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000 + t.tv_nsec;
}

static err run_sample(struct twin *t, const struct model *of, int sample, int runs)
{
    int n = model_output_count(t->m);
    t->out[sample] = xnewn(float *, n);
    for (int k = 0; k < runs; k++) {
        for (int i = 0; i < model_input_count(t->m); i++) {
            struct tensor to = model_plan_input(t->p, i);
            draw(of, sample, (uint32_t)i * 977 + 1, &to);
        }
        int64_t begin = own_ns();
        err e = model_plan_run(t->p, NULL);
        if (e) return e;
        double ms = (double)(own_ns() - begin) / 1e6;
        t->ms = t->ms > 0 ? MIN(t->ms, ms) : ms;
        if (sample) break; /* times were taken with the first */
    }
    err e = ERR_OK;
    for (int i = 0; i < n && !e; i++) e = take_output(t, sample, i);
    return e;
}

static void twin_free(struct twin *t)
{
    for (int s = 0; s < SAMPLES; s++) {
        for (int i = 0; t->out[s] && i < model_output_count(t->m); i++) free(t->out[s][i]);
        free(t->out[s]);
    }
    model_plan_free(&t->p);
    if (t->m) t->m->graph = NULL; /* borrowed */
    model_free(&t->m);
}

static err twin_run(const struct model *m, const struct graph *g, const struct tensor_shape *shapes, const struct model_choice *c, int runs, struct twin *ret)
{
    *ret = (struct twin){0};
    struct model_options o = m->options;
    o.precision = c->half ? KERNEL_AUTO : KERNEL_F32;
    o.reader = NULL;
    o.spill_dir = NULL;
    if (m->import && !m->options.precision_in_budget) o.budget = m->import;
    if (m->options.stop && atomic_load(m->options.stop)) return err_set(ERR_CANCELLED, "%s: stopped while its precision was measured", m->name);
    err e = model_prepare(m->name, &o, &ret->m);
    if (e) return e;
    ret->m->graph = (struct graph *)(uintptr_t)g;
    ret->m->choice = *c;
    e = model_plan_new(ret->m, shapes, &ret->p);
    if (!e) e = model_plan_reserve(ret->p);
    if (!e) e = model_request(ret->m);
    if (!e) e = model_wait(ret->m);
    bool given = m->options.sample_range[0] < m->options.sample_range[1];
    for (int s = 0; s < (given ? 1 : SAMPLES) && !e; s++) e = run_sample(ret, m, s, runs);
    if (ret->p && !e) model_release(ret->m);
    return e;
}

/* The largest relative error of all outputs; infinite if one has become something that is not a number. */
static double error_of(const struct twin *a, const struct twin *b)
{
    double worst = 0;
    for (int s = 0; s < SAMPLES; s++)
        for (int i = 0; a->out[s] && b->out[s] && i < model_output_count(a->m); i++) {
            const float *x = a->out[s][i], *y = b->out[s][i];
            struct tensor t = model_plan_output(a->p, i);
            int64_t n = x && y ? tensor_count(&t.shape) : 0;
            double d = 0, norm = 0;
            for (int64_t k = 0; k < n; k++) {
                d += ((double)x[k] - (double)y[k]) * ((double)x[k] - (double)y[k]);
                norm += (double)x[k] * (double)x[k];
            }
            if (!isfinite(norm)) continue; /* f32 does not hold either */
            double r = d > 0 ? sqrt(d / norm) : 0;
            worst = isnan(r) ? INFINITY : MAX(worst, r);
        }
    return worst;
}

/* ---- the choice */

struct search {
    const struct model *m;
    const struct graph *g;
    const struct tensor_shape *shapes;
    struct twin f32;
    struct model_choice best; /* half: one that is near enough, and faster */
    bool slow;                /* the last one took no less time than f32: keeping more takes longer still */
};

static err attempt(struct search *s, int groups, unsigned keep, bool only_error, double *ret_error)
{
    struct model_choice c = {.known = true, .half = true, .groups = groups, .keep = keep, .ms_f32 = s->f32.ms};
    struct twin t;
    err e = twin_run(s->m, s->g, s->shapes, &c, only_error ? 1 : RUNS, &t);
    if (!e) {
        *ret_error = c.error = error_of(&s->f32, &t);
        c.ms = t.ms;
        s->slow = !only_error && c.ms > 0.97 * c.ms_f32;
        if (!only_error && !s->slow && c.error <= LIMIT) s->best = c;
    }
    twin_free(&t);
    return e;
}

/* Groups by falling error, each in bf16 alone. */
static err rank(struct search *s, int groups, int *order, double *errors)
{
    unsigned all = (1u << groups) - 1;
    err e = ERR_OK;
    for (int i = 0; i < groups && !e; i++) {
        if ((e = attempt(s, groups, all & ~(1u << i), true, &errors[i]))) break;
        int k = i;
        for (; k > 0 && errors[order[k - 1]] < errors[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    return e;
}

/* Errors of groups add up like those of independent numbers, nearly: what is hopeless by that is not tried. */
static err keep_the_worst(struct search *s, int groups)
{
    int order[GROUPS];
    double errors[GROUPS], error;
    err e = rank(s, groups, order, errors);
    unsigned keep = 0;
    for (int k = 0; k < groups - 1 && !e && !s->best.half && !s->slow; k++) {
        double left = 0;
        keep |= 1u << order[k];
        for (int i = k + 1; i < groups; i++) left += errors[order[i]] * errors[order[i]];
        if (sqrt(left) <= 1.5 * LIMIT) e = attempt(s, groups, keep, false, &error);
    }
    return e;
}

static err measure(const struct model *m, const struct graph *g, const struct tensor_shape *shapes, int strong, struct model_choice *ret)
{
    struct search s = {.m = m, .g = g, .shapes = shapes, .best = {.known = true, .groups = 1}};
    struct model_choice none = s.best;
    double error;
    err e = twin_run(m, g, shapes, &none, RUNS, &s.f32);
    int groups = MIN(strong, s.f32.ms > SLOW_MS ? FEW_GROUPS : GROUPS);
    if (!e) e = attempt(&s, groups, 0, false, &error);
    bool hopeless = e || s.slow || s.best.half || groups < 2;
    if (!hopeless) e = attempt(&s, groups, 1, false, &error); /* the first group alone often does: few channels carry everything there */
    s.slow = false;
    if (!hopeless && !e && !s.best.half) e = keep_the_worst(&s, groups);
    twin_free(&s.f32);
    *ret = s.best;
    return e;
}

bool model_choice_known(struct model *m, const struct graph *g)
{
    if (m->choice.known || m->options.precision != KERNEL_AUTO) return true;
    char *path = model_verdict_path(m, hash_of(m, g));
    struct model_choice c;
    if (model_verdict_load(path, &c)) m->choice = c;
    free(path);
    return m->choice.known;
}

/* What follows data is not measured on noise. */
static bool follows_data(const struct graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].loose) return true;
    return false;
}

err model_choose(struct model *m, const struct graph *g, const struct tensor_shape *shapes)
{
    if (model_choice_known(m, g)) return ERR_OK;
    if (m->options.precision_later) {
        m->choice = (struct model_choice){.known = true, .groups = 1, .pending = true};
        return ERR_OK;
    }
    struct graph *ready = NULL;
    struct model_choice c = {.known = true, .groups = 1};
    err e = model_make_ready(m, g, shapes, &ready);
    int strong = e || follows_data(ready) ? 0 : count_strong(ready);
    graph_free(&ready);
    if (!e && strong) e = measure(m, g, shapes, strong, &c);
    if (!e) {
        char *path = model_verdict_path(m, hash_of(m, g));
        model_verdict_save(path, &c);
        free(path);
    }
    c.pending = e != ERR_OK;
    if (e) c.half = false;
    m->choice = c;
    return e == ERR_NOMEM ? ERR_OK : e;
}
