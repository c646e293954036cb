/* Inputs outside the arena: numbers as with a constant, new numbers count at the next run, no byte of the arena. SPDX-License-Identifier: Apache-2.0 */
#include "model/training.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SIDE = 9, FROM = 4, TO = 8, KERNEL = TO * FROM * 9 };

/* A padded 3x3 convolution of one picture, then Relu; the weight is a constant (`numbers`) or input 1. */
static struct graph *net(struct mem_payer *payer, const float *numbers)
{
    struct graph *g = graph_new("net", 13, payer);
    struct tensor_shape x_shape = {.rank = 4, .dims = {1, FROM, SIDE, SIDE}}, w_shape = {.rank = 4, .dims = {TO, FROM, 3, 3}};
    int x = graph_add_input(g, "x", TENSOR_F32, &x_shape), w;
    void *bytes;
    if (numbers) {
        assert_int_equal(graph_add_constant(g, "w", TENSOR_F32, &w_shape, &w, &bytes), ERR_OK);
        memcpy(bytes, numbers, KERNEL * sizeof *numbers);
    } else {
        w = graph_add_input(g, "w", TENSOR_F32, &w_shape);
    }
    int y = graph_add_value(g, "y", TENSOR_NONE, NULL), z = graph_add_value(g, "z", TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, OP_CONV, "conv", 2, 1);
    n->op.in[0] = x;
    n->op.in[1] = w;
    n->op.out[0] = y;
    graph_set_ints(n, "pads", (int64_t[]){1, 1, 1, 1}, 4);
    n = graph_add_node(g, OP_RELU, "relu", 1, 1);
    n->op.in[0] = y;
    n->op.out[0] = z;
    graph_add_output(g, z);
    return g;
}

static struct model_plan *planned(struct mem_budget *b, struct mem_payer *payer, const float *numbers, struct model **ret)
{
    struct model_options o = {.budget = b, .threads = 1};
    struct model_plan *plan;
    assert_int_equal(model_from_graph(net(payer, numbers), "net", &o, ret), ERR_OK);
    if (!numbers) model_external(*ret, 1, 0);
    assert_int_equal(model_plan_new(*ret, NULL, &plan), ERR_OK);
    assert_int_equal(model_plan_reserve(plan), ERR_OK);
    assert_int_equal(model_request(*ret), ERR_OK);
    assert_int_equal(model_wait(*ret), ERR_OK);
    return plan;
}

static void run(struct model_plan *p, float *ret)
{
    struct tensor x = model_plan_input(p, 0), y = model_plan_output(p, 0);
    float in[FROM * SIDE * SIDE];
    for (int i = 0; i < FROM * SIDE * SIDE; i++) in[i] = sinf((float)i);
    struct tensor from = tensor_view(TENSOR_F32, &x.shape, in), to = tensor_view(TENSOR_F32, &y.shape, ret);
    assert_int_equal(model_copy(&from, &x), ERR_OK);
    assert_int_equal(model_plan_run(p, NULL), ERR_OK);
    y = model_plan_output(p, 0);
    assert_int_equal(model_copy(&y, &to), ERR_OK);
}

static void as_a_constant(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(b, "graph");
    float *w;
    assert_int_equal(mem_alloc(payer, MEM_TRAINING, KERNEL * sizeof *w, (void **)&w), ERR_OK);
    struct model *outside;
    struct model_plan *p = planned(b, payer, NULL, &outside);
    float *y;
    assert_int_equal(mem_alloc(payer, MEM_TRAINING, TO * SIDE * SIDE * sizeof *y, (void **)&y), ERR_OK);
    model_plan_bind_input(p, 1, w);
    model_plan_bind_output(p, 0, y);
    assert_ptr_equal(model_plan_output(p, 0).data, y);
    struct tensor t = model_plan_output(p, 0);
    assert_true(tensor_is_row_major(&t));
    assert_ptr_equal(model_plan_input(p, 1).data, w);
    for (int round = 0; round < 3; round++) {
        float found[TO * SIDE * SIDE], want[TO * SIDE * SIDE];
        for (int i = 0; i < KERNEL; i++) w[i] = cosf((float)(i * (round + 1)));
        run(p, found);
        assert_float_equal(w[5], cosf((float)(5 * (round + 1))), 0);
        struct model *inside;
        struct model_plan *q = planned(b, payer, w, &inside);
        run(q, want);
        for (int i = 0; i < TO * SIDE * SIDE; i++) assert_float_equal(found[i], want[i], 1e-4f);
        assert_memory_equal(found, y, sizeof found);
        if (!round) assert_true(model_plan_sizes(p).activations <= model_plan_sizes(q).activations + KERNEL * sizeof *w);
        model_release(inside);
        model_plan_free(&q);
        model_free(&inside);
    }
    /* stopped before a step; a number that is not finite has a name; a run in two parts is a run */
    atomic_bool stop = true;
    float found[TO * SIDE * SIDE];
    char name[64];
    model_plan_set_stop(p, &stop);
    assert_int_equal(model_plan_run(p, NULL), ERR_CANCELLED);
    model_plan_set_stop(p, NULL);
    run(p, found);
    assert_int_equal(model_plan_find_nonfinite(p, name, sizeof name), ERR_OK);
    assert_string_equal(name, "");
    w[3] = INFINITY;
    assert_int_equal(model_plan_find_nonfinite(p, name, sizeof name), ERR_OK);
    assert_non_null(strstr(name, "conv"));
    int cut;
    assert_int_equal(model_plan_cut(p, 1, 0, &cut), ERR_OK);
    assert_true(cut < model_plan_sizes(p).steps);
    assert_int_equal(model_plan_run_part(p, 0, cut), ERR_OK);
    assert_int_equal(model_plan_run_part(p, cut, model_plan_sizes(p).steps), ERR_OK);
    assert_int_equal(model_plan_cut(p, 1, 1, &cut), ERR_UNSUPPORTED);
    model_release(outside);
    model_plan_free(&p);
    model_free(&outside);
    mem_free(payer, MEM_TRAINING, y, TO * SIDE * SIDE * sizeof *y);
    mem_free(payer, MEM_TRAINING, w, KERNEL * sizeof *w);
    mem_payer_free(&payer);
    mem_budget_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_a_constant)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
