/* The models of a serving workload: made, merged, stored, opened and measured.
 *
 * Merged models are the originals with the weight of every common layer (methods/merge_problem.h) set to the first member's: what a merge would publish
 * that kept all it tried. Their answers are worth nothing, which a schedule does not see. SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench_serving.h"

#include "graph/zoo.h"
#include "methods/merge_problem.h"
#include "model/import.h"
#include "model/share.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *stored_name(const struct serving_query *q, bool merged)
{
    return xasprintf("%s-%s", q->name, merged ? "merged" : "own");
}

static err store(struct serving *w, const struct graph *g, const char *name, struct mem_payer *payer)
{
    char *path = xasprintf("%s/%s.onnx", w->folder, name);
    struct model_import_report r;
    err e = graph_save(g, path);
    if (!e) e = model_import(w->store, path, name, payer, &r);
    remove(path);
    free(path);
    return e;
}

static void merge(const struct merge_problem *p, struct graph *const *graphs)
{
    for (int s = 0; s < p->n_slots; s++) {
        const struct graph_value *first = NULL;
        for (int i = 0; i < p->n_members; i++) {
            if (p->slots[s].value[i] < 0) continue;
            struct graph_value *v = &graphs[i]->values[p->slots[s].value[i]];
            if (first) memcpy((void *)(uintptr_t)v->constant, first->constant, first->constant_bytes); /* a graph of the zoo owns its numbers */
            else first = v;
        }
    }
}

static err store_all(struct serving *w, struct graph *const *graphs, bool merged, struct mem_payer *payer)
{
    char *names[SERVING_MOST] = {0};
    err e = ERR_OK;
    for (int i = 0; i < w->n && !e; i++) {
        names[i] = stored_name(&w->q[i], merged);
        e = store(w, graphs[i], names[i], payer);
    }
    struct model_share_report r;
    if (!e && merged) e = model_share(w->store, (const char *const *)names, (size_t)w->n, &r);
    for (int i = 0; i < w->n; i++) free(names[i]);
    return e;
}

err serving_make(struct serving *w)
{
    struct mem_budget *b = mem_budget_new("networks", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(b, "networks");
    struct graph *graphs[SERVING_MOST] = {0};
    const char *names[SERVING_MOST];
    struct merge_problem *p = NULL;
    struct merge_estimate *m = merge_estimate_new();
    err e = ERR_OK;
    for (int i = 0; i < w->n && !e; i++) {
        struct graph_zoo_options o = {.classes = w->q[i].classes, .size = w->q[i].size, .seed = (uint64_t)i + 1};
        names[i] = w->q[i].name;
        e = graph_zoo(w->q[i].arch, &o, payer, &graphs[i]);
        if (!e) merge_estimate_add(m, names[i], graphs[i]);
    }
    if (!e) merge_estimate_finish(m);
    w->bound = m->saved_bytes;
    w->numbers = m->bytes;
    if (!e) e = store_all(w, graphs, false, payer);
    if (!e) e = merge_problem_new((const struct graph *const *)graphs, names, w->n, &p);
    if (!e) {
        merge(p, graphs);
        e = store_all(w, graphs, true, payer);
    }
    merge_problem_free(&p);
    merge_estimate_free(&m);
    for (int i = 0; i < w->n; i++) graph_free(&graphs[i]);
    mem_payer_free(&payer);
    mem_budget_free(&b);
    return e;
}

/* ---- opening */

static err open_one(struct serving *w, struct serving_query *q, bool merged)
{
    struct model_options o = {.budget = w->budget, .threads = w->threads, .reader = w->reader, .spill_dir = w->folder};
    char *name = stored_name(q, merged);
    err e = model_open_stored(w->store, name, q->name, &o, &q->model);
    free(name);
    if (!e) e = model_plan_new(q->model, NULL, &q->plan);
    if (e) return e;
    struct model_sizes s = model_plan_sizes(q->plan);
    w->arena_bytes = MAX(w->arena_bytes, s.activations);
    w->scratch_bytes = MAX(w->scratch_bytes, s.scratch);
    q->step_ns = xnewn(int64_t, s.steps + 1);
    q->bytes[merged] = weights_bytes(model_weights(q->model));
    return ERR_OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static err rounds(struct serving *w)
{
    err e = ERR_OK;
    for (int round = -2; round < SERVING_ROUNDS && !e; round++) /* the first ones warm up */
        for (int i = 0; i < w->n && !e; i++) {
            struct serving_query *q = &w->q[i];
            int64_t begin = clock_ns();
            e = serving_compute(q, round >= 0 ? q->step_ns : NULL);
            if (round >= 0) q->run_ns[round] = (double)(clock_ns() - begin);
        }
    for (int i = 0; i < w->n && !e; i++) {
        struct serving_query *q = &w->q[i];
        for (int k = 0; k < model_plan_sizes(q->plan).steps; k++) q->step_ns[k] /= SERVING_ROUNDS;
        qsort(q->run_ns, SERVING_ROUNDS, sizeof *q->run_ns, ascending);
        if (!w->merged) q->median_ns = q->run_ns[SERVING_ROUNDS / 2];
    }
    return e;
}

struct beside {
    double times[SERVING_ROUNDS], evict_ns, evicted;
    int n;
};

/* Runs of q while `other` is read; runs that end later do not count. */
static err runs_beside(struct serving *w, struct serving_query *q, struct serving_query *other, struct beside *x)
{
    uint64_t before = mem_budget_used(w->budget);
    int64_t begin = clock_ns();
    err e = model_evict(other->model);
    x->evict_ns += (double)(clock_ns() - begin);
    x->evicted += (double)(before - mem_budget_used(w->budget));
    if (e || (e = model_request(q->model))) return e;
    e = model_wait(q->model);
    if (!e && !(e = model_request(other->model))) {
        while (!e && x->n < SERVING_ROUNDS) {
            begin = clock_ns();
            e = serving_compute(q, NULL);
            if (weights_state(model_weights(other->model)) != WEIGHTS_LOADING) break;
            x->times[x->n++] = (double)(clock_ns() - begin);
        }
        err waited = model_wait(other->model);
        if (!e) e = waited;
        model_release(other->model);
    }
    model_release(q->model);
    return e;
}

/* Reading takes a part of the memory's and the processor's speed; giving memory back takes time. Merged models have next to nothing to read
 * beside each other: then what the originals said holds. */
static err beside_reading(struct serving *w)
{
    struct beside all = {0};
    err e = ERR_OK;
    for (int i = 0; i < w->n && !e; i++) {
        struct serving_query *q = &w->q[i], *other = &w->q[i == 0];
        struct beside x = {0};
        for (int k = 0; k < w->n; k++) /* the one that takes longest to read */
            if (k != i && w->q[k].bytes[w->merged] > other->bytes[w->merged]) other = &w->q[k];
        for (int round = 0; round < 4 && x.n < SERVING_ROUNDS && !e; round++) e = runs_beside(w, q, other, &x);
        qsort(x.times, (size_t)x.n, sizeof *x.times, ascending);
        if (x.n) q->slower = MAX(x.times[x.n / 2] / q->run_ns[SERVING_ROUNDS / 2], 1.0);
        else if (q->slower < 1) q->slower = 1;
        all.evict_ns += x.evict_ns;
        all.evicted += x.evicted;
    }
    if (!w->merged && all.evicted > 0) w->evict_ns = all.evict_ns / all.evicted;
    return e;
}

/* All in memory, one after the other: as it is when nothing is ever evicted. */
static err measure(struct serving *w)
{
    struct weights_set *sets[SERVING_MOST];
    int held = 0;
    err e = ERR_OK;
    weights_reader_set_pace(w->reader, w->pace);
    for (; held < w->n && !e && !(e = model_request(w->q[held].model)); held++) { /* one after the other: what two read at once is there twice */
        sets[held] = model_weights(w->q[held].model);
        e = model_wait(w->q[held].model);
    }
    if (!e) e = rounds(w);
    if (!e) w->once[w->merged] = weights_union_bytes(sets, (size_t)w->n);
    for (int i = 0; i < held; i++) model_release(w->q[i].model);
    if (!e) e = beside_reading(w);
    for (int i = 0; i < held && !e; i++) e = model_evict(w->q[i].model);
    return e;
}

err serving_open(struct serving *w, bool merged, bool measured)
{
    err e = ERR_OK;
    w->merged = merged;
    w->arena_bytes = w->scratch_bytes = 0;
    for (int i = 0; i < w->n && !e; i++) e = open_one(w, &w->q[i], merged);
    if (!e) e = mem_alloc(w->payer, MEM_ACTIVATIONS, w->arena_bytes, &w->arena);
    if (!e) e = mem_alloc(w->payer, MEM_SCRATCH, w->scratch_bytes, &w->scratch);
    for (int i = 0; i < w->n && !e; i++) model_plan_bind(w->q[i].plan, w->arena, w->scratch);
    if (!e && measured) e = measure(w);
    w->base = mem_budget_used(w->budget);
    return e;
}

void serving_close(struct serving *w)
{
    for (int i = 0; i < w->n; i++) {
        model_plan_free(&w->q[i].plan);
        model_free(&w->q[i].model);
        free(w->q[i].step_ns);
        w->q[i].step_ns = NULL;
    }
    mem_free(w->payer, MEM_ACTIVATIONS, w->arena, w->arena_bytes);
    mem_free(w->payer, MEM_SCRATCH, w->scratch, w->scratch_bytes);
    w->arena = w->scratch = NULL;
}
