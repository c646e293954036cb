/* One model inside one budget.
 *
 * The first division uses guessed step times; a few warm-up runs measure them and the disk, then the division is made again.
 *
 * Invariant: kept bytes + window <= weight_budget, which is what the budget has left once code, arena and scratch are paid.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/within.h"

#include <string.h>

enum { WARM_UPS = 2, MOST_WARM_UPS = 8, WARM_BYTES = 96 << 20 };
static const double FIRST_BANDWIDTH = 1e9;

static err set_ring(struct model_within *w, size_t window)
{
    if (w->ring && weights_ring_bytes(w->ring) == window) return ERR_OK;
    model_plan_forget_ahead(w->plan);
    model_set_ring(w->model, NULL);
    weights_ring_free(&w->ring);
    if (!window) return ERR_OK;
    err e = weights_ring_new(w->payer, model_weights_reader(w->model), window, &w->ring);
    if (!e) model_set_ring(w->model, w->ring);
    return e;
}

/* Order matters for the budget: first what is no longer kept goes, then the window changes, then what is new comes in. */
static err apply(struct model_within *w, const struct blocks_plan *b)
{
    model_plan_forget_ahead(w->plan);
    if (w->ring) weights_ring_drain(w->ring);
    err e = model_blocks_apply(w->plan, b);
    if (!e) e = set_ring(w, b->window);
    if (!e) e = model_request(w->model);
    if (e) return e;
    e = model_wait(w->model);
    model_release(w->model);
    return e;
}

/* The smallest window: nothing is read ahead of the step that needs it. */
static err divide_without_ahead(struct model_within *w, double bandwidth, struct blocks_plan *ret)
{
    struct model_blocks_problem b;
    model_blocks_problem(w->plan, bandwidth, &b);
    size_t window = blocks_least(&b.problem) - b.problem.fixed;
    err e = blocks_with_window(&b.problem, w->weight_budget - b.problem.fixed - window, window, ret) ? ERR_OK : err_set(ERR_NOMEM, "no window");
    model_blocks_problem_done(&b);
    return e;
}

err model_within_divide(struct model_within *w, double bandwidth)
{
    struct blocks_plan b;
    w->bandwidth = bandwidth;
    bool streams = w->weight_budget < weights_bytes(model_weights(w->model));
    err e = w->no_ahead && streams ? divide_without_ahead(w, bandwidth, &b) : model_blocks_make(w->plan, w->weight_budget, bandwidth, &b);
    if (e) return e;
    blocks_done(&w->blocks);
    w->blocks = b;
    return apply(w, &w->blocks);
}

static double measured_bandwidth(const struct model_within *w, double otherwise)
{
    struct weights_reader_stats s = weights_reader_stats(model_weights_reader(w->model));
    return s.bandwidth > 0 ? s.bandwidth : otherwise;
}

static uint64_t bytes_read(const struct model_within *w)
{
    return weights_reader_stats(model_weights_reader(w->model)).bytes;
}

static err warm_up(struct model_within *w, double bandwidth)
{
    err e = model_within_divide(w, bandwidth > 0 ? bandwidth : measured_bandwidth(w, FIRST_BANDWIDTH));
    for (int i = 0; !e && w->ring && (i < WARM_UPS || (i < MOST_WARM_UPS && bandwidth <= 0 && bytes_read(w) < WARM_BYTES)); i++)
        e = model_within_run(w, NULL);
    if (!e && w->ring) e = model_within_divide(w, bandwidth > 0 ? bandwidth : measured_bandwidth(w, FIRST_BANDWIDTH));
    return e;
}

static err fits(struct model_within *w, const struct mem_budget *budget)
{
    uint64_t used = mem_budget_used(budget), limit = mem_budget_limit(budget);
    w->weight_budget = limit == UINT64_MAX ? SIZE_MAX : limit - MIN(used, limit);
    size_t least = model_blocks_least(w->plan);
    if (w->weight_budget >= least) return ERR_OK;
    char a[16], b[16];
    return err_set(ERR_NOMEM, "%s: it does not fit into %s even with streamed weights; the smallest budget that would do is %s",
                   model_name(w->model), size_text(limit, a), size_text(used + least, b));
}

/* The arena may fail where the smallest budget is not known yet: say it all the same. */
static err reserve(struct model_within *w, const struct mem_budget *budget)
{
    err e = model_plan_reserve(w->plan);
    if (e != ERR_NOMEM) return e;
    struct model_sizes s = model_plan_sizes(w->plan);
    char a[16], b[16];
    uint64_t least = mem_budget_used(budget) + s.activations + s.scratch + model_blocks_least(w->plan);
    return err_set(ERR_NOMEM, "%s: it does not fit into %s; the smallest budget that would do is %s", model_name(w->model),
                   size_text(mem_budget_limit(budget), a), size_text(least, b));
}

err model_within_open(struct model *m, const struct tensor_shape *shapes, double bandwidth, struct model_within *ret)
{
    struct model_within *w = ret;
    struct mem_budget *budget = model_budget(m);
    *w = (struct model_within){.model = m, .no_ahead = ret->no_ahead, .payer = mem_payer_new(budget, "window")};
    int64_t begin = clock_ns();
    err e = model_plan_new(m, shapes, &w->plan);
    w->pack_ms = (double)(clock_ns() - begin) / 1e6;
    if (!e) e = reserve(w, budget);
    if (!e) e = fits(w, budget);
    return e ? e : warm_up(w, bandwidth);
}

void model_within_close(struct model_within *w)
{
    model_plan_free(&w->plan);
    if (w->model) model_set_ring(w->model, NULL);
    weights_ring_free(&w->ring);
    model_free(&w->model);
    mem_payer_free(&w->payer);
    blocks_done(&w->blocks);
}

err model_within_run(struct model_within *w, int64_t *step_ns)
{
    err e = model_request(w->model);
    if (e) return e;
    e = model_wait(w->model);
    if (!e) e = model_plan_run(w->plan, step_ns);
    if (!e && w->ring && !w->no_ahead) e = model_plan_ahead(w->plan);
    model_release(w->model);
    return e;
}
