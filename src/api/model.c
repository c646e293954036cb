/* Models behind handles: opening, what goes in and out, and the cache of plans.
 *
 * A plan that nobody holds stays, with its arena, for the next time somebody asks for its shapes; the oldest ones go
 * when there are too many of them, or when the budget has no room for something new. Scratch is one block per model,
 * as only one of its plans runs at a time; arenas are one per plan, because views into them are the program's for as
 * long as it holds the plan.
 *
 * Invariant: every plan in the list has an arena of arena_bytes >= its activations, and scratch_bytes >= the scratch
 * of every plan. SPDX-License-Identifier: Apache-2.0 */
#include "api/inside.h"

#include <stdlib.h>
#include <string.h>

/* ---- opening */

static err check_options(const brim_model_options *options, brim_model_options *ret)
{
    brim_model_options o = BRIM_MODEL_OPTIONS_INIT;
    err e = options ? api_struct_read("brim_model_options", options, &o, sizeof o) : ERR_OK;
    if (e) return e;
    if (o.threads < 0 || o.threads > 1024) return err_set(ERR_USAGE, "%d threads: 0 to 1024", o.threads);
    if ((int)o.precision < 0 || o.precision > BRIM_PRECISION_AUTO)
        return err_set(ERR_USAGE, "there is no precision %d", (int)o.precision);
    *ret = o;
    return ERR_OK;
}

static err start(const brim_model_options *options, brim_model **ret, struct model_options *ret_inner)
{
    brim_model_options o = BRIM_MODEL_OPTIONS_INIT;
    err e = check_options(options, &o);
    if (e) return e;
    brim_model *m = xnew(brim_model);
    atomic_init(&m->holds, 1);
    pthread_mutex_init(&m->lock, NULL);
    if (o.budget)
        api_budget_hold(m->budget = o.budget);
    else
        brim_budget_new(NULL, &m->budget); /* cannot fail without options */
    m->threads = o.threads ? MIN(o.threads, m->budget->threads) : m->budget->threads;
    m->max_idle = o.max_idle_plans < 0 ? 0 : o.max_idle_plans ? o.max_idle_plans : 4;
    m->payer = mem_payer_new(m->budget->bytes, "plans");
    *ret_inner = (struct model_options){.budget = m->budget->bytes, .threads = m->threads};
    ret_inner->precision = o.precision == BRIM_PRECISION_BF16   ? KERNEL_BF16
                           : o.precision == BRIM_PRECISION_AUTO ? KERNEL_AUTO
                                                                : KERNEL_F32;
    if (ret_inner->precision == KERNEL_AUTO) ret_inner->verdict_dir = m->cache = o.cache ? *o.cache ? xstrdup(o.cache) : NULL : model_cache_dir();
    *ret = m;
    return ERR_OK;
}

brim_err brim_model_open(const char *path, const brim_model_options *o, brim_model **ret)
{
    brim_model *m;
    struct model_options inner;
    if (!path || !ret)
        return api_result(err_set(ERR_USAGE, "brim_model_open: no %s", path ? "place for the model" : "path"));
    err e = start(o, &m, &inner);
    if (e) return api_result(e);
    if ((e = model_open(path, path, &inner, &m->model)))
        api_model_drop(m);
    else
        *ret = m;
    return api_result(e);
}

brim_err brim_model_open_bytes(const void *bytes, size_t n, const brim_model_options *o, brim_model **ret)
{
    brim_model *m;
    struct model_options inner;
    struct graph *g;
    if ((!bytes && n) || !ret)
        return api_result(err_set(ERR_USAGE, "brim_model_open_bytes: no %s", ret ? "bytes" : "place for the model"));
    err e = start(o, &m, &inner);
    if (e) return api_result(e);
    m->bytes_payer = mem_payer_new(m->budget->bytes, "model in memory");
    e = graph_parse("model in memory", bytes ? bytes : "", n, NULL, m->bytes_payer, &g);
    if (!e) e = model_from_graph(g, "model in memory", &inner, &m->model);
    if (e)
        api_model_drop(m);
    else
        *ret = m;
    return api_result(e);
}

void api_model_drop(brim_model *m)
{
    if (atomic_fetch_sub(&m->holds, 1) != 1) return;
    while (m->plans)
        api_plan_destroy(m->plans); /* all are idle: a held plan holds us */
    mem_free(m->payer, MEM_SCRATCH, m->scratch, m->scratch_bytes);
    model_free(&m->model);
    mem_payer_free(&m->bytes_payer);
    mem_payer_free(&m->payer);
    brim_budget_free(&m->budget);
    free(m->cache);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

void brim_model_free(brim_model **m)
{
    if (!m || !*m) return;
    brim_model *old = *m;
    *m = NULL;
    api_model_drop(old);
}

/* ---- what goes in and out: fixed at opening, so no lock */

int brim_model_input_count(const brim_model *m)
{
    return model_input_count(m->model);
}

int brim_model_output_count(const brim_model *m)
{
    return model_output_count(m->model);
}

static brim_err describe(const brim_model *m, bool input, int i, brim_io *ret)
{
    int n = input ? model_input_count(m->model) : model_output_count(m->model);
    if (i < 0 || i >= n)
        return api_result(err_set(ERR_USAGE, "%s %d: the model has %d", input ? "input" : "output", i, n));
    const struct graph *g = model_graph(m->model);
    const struct graph_value *v = &g->values[input ? g->inputs[i] : g->outputs[i]];
    brim_io io = {
        .size = sizeof io, .name = v->name, .dtype = (brim_dtype)v->dtype, .rank = v->has_shape ? v->shape.rank : -1};
    for (int k = 0; k < io.rank; k++) {
        int64_t d = v->shape.dims[k];
        io.shape[k] = d < 0 ? -1 : d;
        if (d < 0 && TENSOR_SYMBOL_NUMBER(d) < g->n_symbols) io.symbol[k] = g->symbols[TENSOR_SYMBOL_NUMBER(d)];
    }
    return api_result(api_struct_write("brim_io", &io, ret, sizeof io));
}

brim_err brim_model_input(const brim_model *m, int i, brim_io *ret)
{
    return describe(m, true, i, ret);
}

brim_err brim_model_output(const brim_model *m, int i, brim_io *ret)
{
    return describe(m, false, i, ret);
}

/* ---- plans */

void api_plan_destroy(struct brim_plan *p)
{
    brim_model *m = p->owner;
    struct brim_plan **link = &m->plans;
    while (*link && *link != p)
        link = &(*link)->next;
    if (*link) *link = p->next;
    model_plan_free(&p->plan);
    mem_free(m->payer, MEM_ACTIVATIONS, p->arena, p->arena_bytes);
    free(p->shapes);
    free(p);
}

static struct brim_plan *oldest_idle(brim_model *m, int *ret_count)
{
    struct brim_plan *oldest = NULL;
    int n = 0;
    for (struct brim_plan *p = m->plans; p; p = p->next) {
        if (p->holds) continue;
        n++;
        if (!oldest || p->used_at < oldest->used_at) oldest = p;
    }
    if (ret_count) *ret_count = n;
    return oldest;
}

static err grow_scratch(brim_model *m, size_t bytes)
{
    void *bigger;
    if (bytes <= m->scratch_bytes) return ERR_OK;
    err e = mem_alloc(m->payer, MEM_SCRATCH, bytes,
                      &bigger); /* before the old one goes: other plans need that if this fails */
    if (e) return e;
    mem_free(m->payer, MEM_SCRATCH, m->scratch, m->scratch_bytes);
    m->scratch = bigger;
    m->scratch_bytes = bytes;
    return ERR_OK;
}

static err make_plan(brim_model *m, const struct tensor_shape *shapes, struct brim_plan *p)
{
    api_gate_enter(m->budget, m->threads); /* kernels are made, and weights packed, on all of them */
    err e = model_plan_new(m->model, shapes, &p->plan);
    api_gate_leave(m->budget, m->threads);
    if (e) return e;
    struct model_sizes s = model_plan_sizes(p->plan);
    e = mem_alloc(m->payer, MEM_ACTIVATIONS, s.activations, &p->arena);
    if (!e) {
        p->arena_bytes = s.activations;
        e = grow_scratch(m, s.scratch);
    }
    if (e) {
        mem_free(m->payer, MEM_ACTIVATIONS, p->arena, p->arena_bytes);
        p->arena = NULL;
        p->arena_bytes = 0;
        model_plan_free(&p->plan);
    }
    return e;
}

static bool same_shapes(const struct tensor_shape *a, const struct tensor_shape *b, int n)
{
    if (!a || !b) return a == b;
    for (int i = 0; i < n; i++)
        if (!tensor_shape_equal(&a[i], &b[i])) return false;
    return true;
}

static err take_plan(brim_model *m, struct tensor_shape *shapes, brim_plan **ret)
{
    struct brim_plan *p = m->plans, *idle;
    while (p && !same_shapes(p->shapes, shapes, model_input_count(m->model)))
        p = p->next;
    if (!p) {
        p = xnew(struct brim_plan);
        p->owner = m;
        err e;
        while ((e = make_plan(m, shapes, p)) == ERR_NOMEM && (idle = oldest_idle(m, NULL)))
            api_plan_destroy(idle);
        if (e) {
            free(p);
            return e;
        }
        p->shapes = shapes;
        p->next = m->plans;
        m->plans = p;
    } else {
        free(shapes);
    }
    atomic_fetch_add(&m->holds, p->holds++ == 0);
    p->used_at = ++m->clock;
    model_plan_bind(p->plan, p->arena, m->scratch);
    *ret = p;
    return ERR_OK;
}

static err read_shapes(const brim_model *m, const brim_shape *from, struct tensor_shape **ret)
{
    int n = model_input_count(m->model);
    struct tensor_shape *to = xnewn(struct tensor_shape, MAX(n, 1));
    for (int i = 0; i < n; i++) {
        bool fine = from[i].rank >= 0 && from[i].rank <= TENSOR_MAX_RANK;
        for (int k = 0; fine && k < from[i].rank; k++)
            fine = from[i].dims[k] >= 0;
        if (!fine) {
            free(to);
            return err_set(ERR_SHAPE, "input '%s': a rank is 0 to 8 and a size is not negative",
                           model_input(m->model, i).name);
        }
        to[i] = tensor_shape_of(from[i].rank, from[i].dims);
    }
    *ret = to;
    return ERR_OK;
}

brim_err brim_plan_new(brim_model *m, const brim_shape *shapes, brim_plan **ret)
{
    struct tensor_shape *wanted = NULL;
    if (!m || !ret) return api_result(err_set(ERR_USAGE, "brim_plan_new: no %s", m ? "place for the plan" : "model"));
    err e = shapes ? read_shapes(m, shapes, &wanted) : ERR_OK;
    if (e) return api_result(e);
    pthread_mutex_lock(&m->lock);
    e = take_plan(m, wanted, ret);
    pthread_mutex_unlock(&m->lock);
    if (e) free(wanted);
    return api_result(e);
}

void brim_plan_free(brim_plan **pp)
{
    if (!pp || !*pp) return;
    struct brim_plan *p = *pp, *oldest;
    brim_model *m = p->owner;
    int idle;
    *pp = NULL;
    pthread_mutex_lock(&m->lock);
    bool last = --p->holds == 0;
    while (last && (oldest = oldest_idle(m, &idle)) && idle > m->max_idle)
        api_plan_destroy(oldest);
    pthread_mutex_unlock(&m->lock);
    if (last) api_model_drop(m);
}
