/* Networks in training on problems made here: the loss falls, equal runs give equal bits, accumulation is a larger batch, a saved state goes on with the same
 * bits, what is not finite stops and is named, a small budget is refused with the one that would do. SPDX-License-Identifier: Apache-2.0 */
#include "train/checkpoint.h"
#include "train/losses.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { ROWS = 16, IN = 6, HIDDEN = 24, CLASSES = 3 };

static int constant(struct graph *g, const char *name, int64_t rows, int64_t columns, uint64_t seed)
{
    struct tensor_shape s = {.rank = columns ? 2 : 1, .dims = {rows, columns}};
    float *f;
    int v;
    assert_int_equal(graph_add_constant(g, name, TENSOR_F32, &s, &v, (void **)&f), ERR_OK);
    for (int64_t i = 0; i < tensor_count(&s); i++)
        f[i] = columns ? ((float)(hash64(&i, sizeof i, seed) >> 40) / (float)(1 << 24) - 0.5f) * 0.8f : 0;
    return v;
}

static int node(struct graph *g, enum op_kind kind, const char *name, const int *in, int n_in)
{
    struct graph_node *n = graph_add_node(g, kind, name, n_in, 1);
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    int y = graph_add_value(g, name, TENSOR_NONE, NULL);
    g->nodes[g->n_nodes - 1].op.out[0] = y;
    return y;
}

/* Two layers and a Softmax, for any number of rows. */
static struct graph *perceptron(struct mem_payer *payer)
{
    struct graph *g = graph_new("mlp", 13, payer);
    struct tensor_shape s = {.rank = 2, .dims = {1, IN}};
    int x = graph_add_input(g, "x", TENSOR_F32, &s);
    int w1 = constant(g, "w1", IN, HIDDEN, 1), b1 = constant(g, "b1", HIDDEN, 0, 2), w2 = constant(g, "w2", HIDDEN, CLASSES, 3), b2 = constant(g, "b2", CLASSES, 0, 4);
    int y = node(g, OP_GEMM, "first", (int[]){x, w1, b1}, 3);
    y = node(g, OP_RELU, "relu", &y, 1);
    y = node(g, OP_GEMM, "second", (int[]){y, w2, b2}, 3);
    y = node(g, OP_SOFTMAX, "classes", &y, 1);
    graph_add_output(g, y);
    return g;
}

struct fixture {
    struct mem_budget *b;
    struct mem_payer *payer;
    struct graph *g;
    struct train_classify loss;
    struct train_net_options o;
};

static struct tensor_shape rows16 = {.rank = 2, .dims = {ROWS, IN}}, rows8 = {.rank = 2, .dims = {ROWS / 2, IN}};

static void setup(struct fixture *f)
{
    f->b = mem_budget_new("host", UINT64_MAX);
    f->payer = mem_payer_new(f->b, "test");
    f->g = perceptron(f->payer);
    f->loss = (struct train_classify){0};
    f->o = (struct train_net_options){.budget = f->b, .input_shapes = &rows16, .threads = 1, .loss = train_loss_classify, .loss_context = &f->loss,
                                      .optimiser = {.rule = TRAIN_SGD, .momentum = 0.9f, .weight_decay = 1e-4f, .ema = 0.9f}};
}

static void teardown(struct fixture *f)
{
    graph_free(&f->g);
    mem_payer_free(&f->payer);
    mem_budget_free(&f->b);
}

/* Rows from .. of step `step`: the class is where a fixed direction points. */
static void batch(struct train_net *n, int step, int from, int rows)
{
    struct tensor x = train_net_input(n, 0), t = train_net_target(n, 0);
    float *in = x.data, *target = t.data;
    for (int r = 0; r < rows; r++) {
        float best = -1e9f;
        int class = 0;
        for (int k = 0; k < IN; k++) {
            int64_t key[] = {step, from + r, k};
            in[r * IN + k] = (float)(hash64(key, sizeof key, 9) >> 40) / (float)(1 << 24) - 0.5f;
        }
        for (int c = 0; c < CLASSES; c++) {
            float score = 0;
            for (int k = 0; k < IN; k++) score += in[r * IN + k] * sinf((float)(1 + 3 * k + 7 * c));
            if (score > best) best = score, class = c;
        }
        for (int c = 0; c < CLASSES; c++) target[r * CLASSES + c] = c == class;
    }
}

static float train(struct train_net *n, int from, int to)
{
    float loss = 0;
    for (int s = from; s < to; s++) {
        batch(n, s, 0, ROWS);
        assert_int_equal(train_net_run(n, &loss), ERR_OK);
        train_net_update(n, 0.1, NULL);
    }
    return loss;
}

static void learns(void **state)
{
    (void)state;
    struct fixture f;
    struct train_net *n, *again;
    setup(&f);
    assert_int_equal(train_net_new(f.g, &f.o, &n), ERR_OK);
    float first = train(n, 0, 1), last = train(n, 1, 200);
    assert_true(first > 0.8f && last < 0.3f);
    assert_int_equal(train_net_sizes(n).parameters, IN * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES);
    /* the same again, in two parts with the state carried over by hand */
    struct train_section s[6], to[6];
    float half;
    int64_t count;
    assert_int_equal(train_net_new(f.g, &f.o, &again), ERR_OK);
    train(again, 0, 100);
    struct train_net *third;
    assert_int_equal(train_net_new(f.g, &f.o, &third), ERR_OK);
    int k = train_net_sections(again, s);
    assert_int_equal(train_net_sections(third, to), k);
    for (int i = 0; i < k; i++) memcpy(to[i].p, s[i].p, s[i].bytes);
    train_net_set_steps(third, train_net_steps(again));
    half = train(third, 100, 200);
    assert_memory_equal(&half, &last, sizeof last);
    const float *w = train_net_parameter(n, "w1", &count), *v = train_net_parameter(third, "w1", &count);
    assert_int_equal(count, IN * HIDDEN);
    assert_memory_equal(w, v, IN * HIDDEN * sizeof *w);
    /* into the graph */
    struct graph *fresh = perceptron(f.payer);
    assert_int_equal(train_net_store(third, fresh, false), ERR_OK);
    for (size_t i = 0; i < fresh->n_values; i++)
        if (!strcmp(fresh->values[i].name, "w1")) assert_memory_equal(fresh->values[i].constant, w, IN * HIDDEN * sizeof *w);
    graph_free(&fresh);
    train_net_free(&third);
    train_net_free(&again);
    train_net_free(&n);
    teardown(&f);
}

static void accumulation_is_a_larger_batch(void **state)
{
    (void)state;
    struct fixture f;
    struct train_net *whole, *parts;
    int64_t count;
    float loss;
    setup(&f);
    assert_int_equal(train_net_new(f.g, &f.o, &whole), ERR_OK);
    f.o.input_shapes = &rows8;
    f.o.accumulate = 2;
    assert_int_equal(train_net_new(f.g, &f.o, &parts), ERR_OK);
    for (int s = 0; s < 20; s++) {
        train(whole, s, s + 1);
        for (int k = 0; k < 2; k++) {
            batch(parts, s, k * ROWS / 2, ROWS / 2);
            assert_int_equal(train_net_run(parts, &loss), ERR_OK);
        }
        train_net_update(parts, 0.1, NULL);
    }
    const float *a = train_net_parameter(whole, "w2", &count), *b = train_net_parameter(parts, "w2", &count);
    for (int64_t i = 0; i < count; i++) assert_float_equal(a[i], b[i], 1e-5f);
    train_net_free(&whole);
    train_net_free(&parts);
    teardown(&f);
}

static void not_finite_stops(void **state)
{
    (void)state;
    struct fixture f;
    struct train_net *n;
    float loss;
    int64_t count;
    setup(&f);
    assert_int_equal(train_net_new(f.g, &f.o, &n), ERR_OK);
    train(n, 0, 3);
    float before = train_net_parameter(n, "w1", &count)[4];
    batch(n, 3, 0, ROWS);
    ((float *)train_net_input(n, 0).data)[5] = NAN;
    assert_int_equal(train_net_run(n, &loss), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "first' (Gemm)")); /* or its gradient 'd first': a fused max(x, 0) may make 0 of NaN */
    assert_float_equal(train_net_parameter(n, "w1", &count)[4], before, 0);
    train(n, 3, 4); /* and it can go on */
    train_net_free(&n);
    teardown(&f);
}

static bool only_last(void *context, const char *name, bool usual)
{
    (void)context;
    return usual && !strcmp(name, "w2");
}

static void frozen_and_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct train_net *n;
    setup(&f);
    f.o.choose = only_last;
    assert_int_equal(train_net_new(f.g, &f.o, &n), ERR_OK);
    assert_int_equal(train_net_sizes(n).parameters, HIDDEN * CLASSES);
    int64_t count;
    assert_null(train_net_parameter(n, "w1", &count));
    train(n, 0, 5);
    train_net_free(&n);
    f.o.choose = NULL;
    uint64_t used = mem_budget_used(f.b);
    mem_budget_set_limit(f.b, used + 1000);
    assert_int_equal(train_net_new(f.g, &f.o, &n), ERR_NOMEM);
    assert_non_null(strstr(err_text(), "--budget 1M"));
    assert_int_equal(mem_budget_used(f.b), used);
    mem_budget_set_limit(f.b, 1 << 20); /* what it said */
    assert_int_equal(train_net_new(f.g, &f.o, &n), ERR_OK);
    train_net_free(&n);
    mem_budget_set_limit(f.b, UINT64_MAX);
    for (uint64_t at = 1;; at++) {
        mem_fault_at(f.b, at);
        err e = train_net_new(f.g, &f.o, &n);
        bool done = mem_fault_calls(f.b) < at;
        mem_fault_at(f.b, 0);
        if (!e) train_net_free(&n);
        else assert_int_equal(e, ERR_NOMEM);
        assert_int_equal(mem_budget_used(f.b), used);
        if (done) break;
    }
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learns),
        cmocka_unit_test(accumulation_is_a_larger_batch),
        cmocka_unit_test(not_finite_stops),
        cmocka_unit_test(frozen_and_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
