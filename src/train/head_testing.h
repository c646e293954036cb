/* For tests of losses that are graphs of their own: a graph made ready to run, and torn down. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/model.h"

struct head_work {
    struct mem_budget *budget;
    struct mem_payer *payer; /* of the graph, before it is a model's */
    struct model *model;
    struct model_plan *plan;
};

static inline void head_work_begin(struct head_work *w)
{
    w->budget = mem_budget_new("host", UINT64_MAX);
    w->payer = mem_payer_new(w->budget, "test");
}

/* The graph is the model's from here on. */
static inline void head_work_plan(struct head_work *w, struct graph *g)
{
    assert_int_equal(model_from_graph(g, "head", &(struct model_options){.budget = w->budget, .threads = 1}, &w->model), ERR_OK);
    assert_int_equal(model_plan_new(w->model, NULL, &w->plan), ERR_OK);
    assert_int_equal(model_plan_reserve(w->plan), ERR_OK);
    assert_int_equal(model_request(w->model), ERR_OK);
    assert_int_equal(model_wait(w->model), ERR_OK);
}

static inline void head_work_end(struct head_work *w)
{
    model_release(w->model);
    model_plan_free(&w->plan);
    model_free(&w->model);
    mem_payer_free(&w->payer);
    mem_budget_free(&w->budget);
}

static inline void head_work_put(struct head_work *w, int input, void *from)
{
    struct tensor to = model_plan_input(w->plan, input), view = tensor_view(TENSOR_F32, &to.shape, from);
    assert_int_equal(model_copy(&view, &to), ERR_OK);
}
