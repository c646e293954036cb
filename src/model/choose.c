/* Precision by measurement: how much of a model may run in bf16, and is it faster?
 *
 * A twin of the model runs in f32 and in bf16 on numbers drawn in the range that its inputs have. Rounding hurts most at the beginning, where few channels carry everything
 * (measured: of yolox_nano's error of 0.41 on small inputs all but 0.01 comes from the first 30 of 80 convolutions), so the first 0, 4, a quarter or half of the
 * strong operators are kept in f32, as few as do: every float output must keep ||a - b|| <= LIMIT ||a||, and the run must be shorter than in f32. Else the model stays f32.
 *
 * The verdict is a file of the spill directory, named by the graph and its numbers, so that only the first start pays. What the twin takes is the import's (files, dropped
 * at the end); without a spill directory it is the budget's, and where that is too small the model is f32 this time.
 *
 * Invariant: a choice is made once per model object; all its plans follow it. SPDX-License-Identifier: Apache-2.0 */
#include "model/plan.h"

#include "graph/precision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 1, RUNS = 4, SAMPLES = 2 };
static const double LIMIT = 0.025; /* 0.03 is promised; other inputs are not these */

/* ---- the verdict on disk */

static uint64_t hash_of(const struct model *m, const struct graph *g)
{
    if (m->stored) return model_stored_hash(m) + VERSION;
    uint64_t h = hash64(&g->opset, sizeof g->opset, VERSION);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct op_node *n = &g->nodes[i].op;
        int facts[3] = {(int)n->kind, n->n_in, n->n_out};
        h = hash64(n->out, (size_t)n->n_out * sizeof *n->out, hash64(n->in, (size_t)n->n_in * sizeof *n->in, hash64(facts, sizeof facts, h)));
    }
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i].constant) h = hash64(g->values[i].constant, g->values[i].constant_bytes, h);
    return h;
}

static char *path_of(const struct model *m, uint64_t hash)
{
    const float *range = m->options.sample_range;
    uint64_t h = hash64(range, 2 * sizeof *range, hash ^ (uint64_t)m->options.threads);
    return m->spill_dir ? xasprintf("%s/precision-%016llx", m->spill_dir, (unsigned long long)h) : NULL;
}

static bool load(const char *path, struct model_choice *ret)
{
    FILE *f = path ? fopen(path, "re") : NULL;
    int version = 0, half = 0, first = 0;
    bool good = f && fscanf(f, "brim precision %d\nbf16 %d\nkeep_first %d\n", &version, &half, &first) == 3 && version == VERSION && first >= 0;
    if (f) fclose(f);
    if (good) *ret = (struct model_choice){.known = true, .half = half == 1, .keep_first = first};
    return good;
}

/* Losing it costs a measurement: no fsync, and no complaint. */
static void save(const char *path, const struct model_choice *c)
{
    char *temporary = path ? xasprintf("%s.%d", path, (int)getpid()) : NULL;
    FILE *f = path ? fopen(temporary, "we") : NULL;
    if (f) {
        fprintf(f, "brim precision %d\nbf16 %d\nkeep_first %d\nerror %.5f ms_f32 %.4f ms %.4f\n", VERSION, c->half, c->keep_first, c->error, c->ms_f32, c->ms);
        if (fclose(f) || rename(temporary, path)) unlink(temporary);
    }
    free(temporary);
}

/* ---- what is kept */

bool *model_choice_flags(const struct graph *g, int keep_first)
{
    bool *keep = xnewn(bool, g->n_nodes + 1);
    int strong = 0;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (graph_gains_by_bf16(g, &g->nodes[i])) keep[i] = strong++ < keep_first;
    return keep;
}

static int count_strong(const struct graph *g)
{
    int strong = 0;
    for (size_t i = 0; i < g->n_nodes; i++) strong += graph_gains_by_bf16(g, &g->nodes[i]);
    return strong;
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

static err run_sample(struct twin *t, const struct model *of, int sample)
{
    int n = model_output_count(t->m);
    t->out[sample] = xnewn(float *, n);
    for (int k = 0; k < RUNS; k++) {
        for (int i = 0; i < model_input_count(t->m); i++) {
            struct tensor to = model_plan_input(t->p, i);
            draw(of, sample, (uint32_t)i * 977 + 1, &to);
        }
        int64_t begin = clock_ns();
        err e = model_plan_run(t->p, NULL);
        if (e) return e;
        double ms = (double)(clock_ns() - begin) / 1e6;
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

static err twin_run(const struct model *m, const struct graph *g, const struct tensor_shape *shapes, const struct model_choice *c, struct twin *ret)
{
    struct model_options o = m->options;
    o.precision = c->half ? KERNEL_AUTO : KERNEL_F32;
    o.reader = NULL;
    o.spill_dir = NULL;
    if (m->import) o.budget = m->import;
    *ret = (struct twin){0};
    err e = model_prepare(m->name, &o, &ret->m);
    if (e) return e;
    ret->m->graph = (struct graph *)(uintptr_t)g;
    ret->m->choice = *c;
    e = model_plan_new(ret->m, shapes, &ret->p);
    if (!e) e = model_plan_reserve(ret->p);
    if (!e) e = model_request(ret->m);
    if (!e) e = model_wait(ret->m);
    bool given = m->options.sample_range[0] < m->options.sample_range[1];
    for (int s = 0; s < (given ? 1 : SAMPLES) && !e; s++) e = run_sample(ret, m, s);
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

static err measure(const struct model *m, const struct graph *g, const struct tensor_shape *shapes, int strong, struct model_choice *ret)
{
    const int first[] = {0, MIN(4, strong / 8 + 1), strong / 4 + 1, strong / 2 + 1};
    const int n = (int)ARRAY_LEN(first);
    struct twin f32;
    *ret = (struct model_choice){.known = true};
    err e = twin_run(m, g, shapes, ret, &f32);
    ret->ms = ret->ms_f32 = f32.ms;
    for (int i = 0; i < n && !e && first[i] < strong; i++) {
        struct model_choice c = {.known = true, .half = true, .keep_first = first[i], .ms_f32 = f32.ms};
        struct twin t;
        if (!(e = twin_run(m, g, shapes, &c, &t))) {
            c.error = error_of(&f32, &t);
            c.ms = t.ms;
        }
        twin_free(&t);
        if (e) break;
        if (c.ms > 0.97 * f32.ms) break; /* keeping more makes it no faster */
        if (c.error > LIMIT) continue;
        *ret = c;
        break;
    }
    twin_free(&f32);
    return e;
}

bool model_choice_known(struct model *m, const struct graph *g)
{
    if (m->choice.known || m->options.precision != KERNEL_AUTO) return true;
    char *path = path_of(m, hash_of(m, g));
    struct model_choice c;
    if (load(path, &c)) m->choice = c;
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
    struct graph *ready = NULL;
    struct model_choice c = {.known = true};
    err e = model_make_ready(m, g, shapes, &ready);
    int strong = e || follows_data(ready) ? 0 : count_strong(ready);
    graph_free(&ready);
    if (!e && strong) e = measure(m, g, shapes, strong, &c);
    if (!e) {
        char *path = path_of(m, hash_of(m, g));
        save(path, &c);
        free(path);
    }
    m->choice = c;
    return e == ERR_NOMEM ? ERR_OK : e;
}
