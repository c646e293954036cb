/* Tests of a model inside a budget smaller than its weights: the same bits at every budget, exactly the bytes that are not resident are read,
 * nothing goes over the budget, every n-th allocation may fail, a file that is cut under a run is an error and nothing worse.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/within.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SIDE = 12, CHANNELS = 96, LAYERS = 9 };

struct world {
    struct weights_reader *reader;
    float *truth; /* of an unlimited run */
    size_t n;
};

static int constant(struct graph *g, struct tensor_shape shape, uint64_t seed)
{
    float *f;
    int v;
    if (graph_add_constant(g, "w", TENSOR_F32, &shape, &v, (void **)&f)) return -1;
    for (int64_t i = 0; i < tensor_count(&shape); i++) f[i] = ((float)(hash64(&i, sizeof i, seed) >> 40) / (float)(1 << 24) - 0.5f) * 0.1f;
    return v;
}

/* A chain of 3x3 convolutions: 324 KiB of weights each but for the first. */
static struct graph *chain(struct mem_payer *p)
{
    struct graph *g = graph_new("chain", 13, p);
    struct tensor_shape in = {.rank = 4, .dims = {1, 3, SIDE, SIDE}};
    int x = graph_add_input(g, "x", TENSOR_F32, &in), from = 3;
    for (int i = 0; i < LAYERS; i++, from = CHANNELS) {
        int w = constant(g, (struct tensor_shape){.rank = 4, .dims = {CHANNELS, from, 3, 3}}, (uint64_t)i + 1);
        int b = constant(g, (struct tensor_shape){.rank = 1, .dims = {CHANNELS}}, (uint64_t)i + 100);
        if (w < 0 || b < 0) {
            graph_free(&g);
            return NULL;
        }
        struct graph_node *n = graph_add_node(g, OP_CONV, "conv", 3, 1);
        int y = graph_add_value(g, "y", TENSOR_NONE, NULL);
        n = &g->nodes[g->n_nodes - 1];
        n->op.in[0] = x;
        n->op.in[1] = w;
        n->op.in[2] = b;
        n->op.out[0] = y;
        graph_set_ints(n, "pads", (int64_t[]){1, 1, 1, 1}, 4);
        x = y;
    }
    graph_add_output(g, x);
    return g;
}

struct setting {
    uint64_t budget;
    size_t slice;
    uint64_t fault; /* 0: none */
    int runs;
};
struct outcome {
    err e;
    float *out;
    uint64_t read_per_run, streamed, calls;
};

static void read_output(const struct model_plan *p, float **ret, size_t *ret_n)
{
    struct tensor t = model_plan_output(p, 0);
    *ret_n = (size_t)tensor_count(&t.shape);
    *ret = malloc(*ret_n * sizeof **ret);
    assert_non_null(*ret);
    struct tensor flat = tensor_view(TENSOR_F32, &t.shape, *ret);
    assert_int_equal(model_copy(&t, &flat), ERR_OK);
}

static void fill(const struct model_plan *p)
{
    struct tensor t = model_plan_input(p, 0);
    for (int64_t i = 0; i < tensor_count(&t.shape); i++) ((float *)t.data)[i] = (float)(i % 17) / 17;
}

static struct outcome run(struct world *w, const struct setting *s)
{
    struct mem_budget *b = mem_budget_new("host", s->budget), *gb = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(gb, "graph");
    struct model_options o = {.budget = b, .threads = 2, .reader = w->reader, .spill_dir = "/tmp", .slice_bytes = s->slice};
    struct model_within in = {0};
    struct outcome r = {.e = ERR_OK};
    struct model *m = NULL;
    struct graph *g = chain(p);
    assert_non_null(g);
    mem_fault_at(b, s->fault);
    r.e = model_from_graph(g, "chain", &o, &m);
    if (!r.e) r.e = model_within_open(m, NULL, 0, &in);
    uint64_t loads, before = 0, after;
    int64_t ns;
    if (!r.e) weights_counts(model_weights(in.model), &loads, &before, &ns);
    for (int i = 0; i < s->runs && !r.e; i++) {
        fill(in.plan);
        r.e = model_within_run(&in, NULL);
    }
    r.calls = mem_fault_calls(b);
    mem_fault_at(b, 0);
    if (!r.e) {
        weights_counts(model_weights(in.model), &loads, &after, &ns);
        r.read_per_run = (after - before) / (uint64_t)s->runs;
        r.streamed = in.blocks.streamed;
        read_output(in.plan, &r.out, &w->n);
        assert_true(mem_budget_peak(b) <= s->budget);
        assert_true(in.blocks.kept + in.blocks.window <= in.weight_budget);
    }
    if (in.payer) model_within_close(&in);
    mem_payer_free(&p);
    mem_budget_free(&b); /* asserts that nothing is owed */
    mem_budget_free(&gb);
    return r;
}

static int set_up(void **state)
{
    struct world *w = xnew(struct world);
    if (weights_reader_new(&w->reader)) return -1;
    struct outcome r = run(w, &(struct setting){.budget = UINT64_MAX, .runs = 1});
    if (r.e) fprintf(stderr, "%s\n", err_text());
    w->truth = r.out;
    *state = w;
    return r.e;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    weights_reader_free(&w->reader);
    free(w->truth);
    free(w);
    return 0;
}

static void same_bits_at_every_budget(void **state)
{
    struct world *w = *state;
    int streamed = 0, refused = 0;
    for (uint64_t budget = 300 << 10; budget < 6 << 20; budget += 200 << 10) {
        struct outcome r = run(w, &(struct setting){.budget = budget, .runs = 3});
        if (r.e) {
            assert_int_equal(r.e, ERR_NOMEM);
            refused++;
            continue;
        }
        assert_memory_equal(r.out, w->truth, w->n * sizeof(float));
        assert_int_equal(r.read_per_run, r.streamed);
        streamed += r.streamed > 0;
        free(r.out);
    }
    assert_true(streamed >= 5);
    assert_true(refused >= 1);
}

static void slices_are_the_same_function(void **state)
{
    struct world *w = *state;
    struct outcome r = run(w, &(struct setting){.budget = UINT64_MAX, .slice = 100 << 10, .runs = 1});
    assert_int_equal(r.e, ERR_OK);
    double worst = 0, largest = 0;
    for (size_t i = 0; i < w->n; i++) {
        double d = (double)r.out[i] - (double)w->truth[i], a = (double)w->truth[i];
        worst = MAX(worst, d < 0 ? -d : d);
        largest = MAX(largest, a < 0 ? -a : a);
    }
    assert_true(largest > 0 && worst <= 1e-5 * largest);
    free(r.out);
}

static void every_allocation_may_fail(void **state)
{
    struct world *w = *state;
    uint64_t budget = (uint64_t)5 << 19;
    struct outcome r = run(w, &(struct setting){.budget = budget, .runs = 2, .fault = UINT64_MAX});
    uint64_t calls = r.calls;
    assert_int_equal(r.e, ERR_OK);
    assert_true(r.streamed > 0);
    free(r.out);
    for (uint64_t n = 1; n <= calls; n++) {
        r = run(w, &(struct setting){.budget = budget, .runs = 2, .fault = n});
        if (r.e) assert_int_equal(r.e, ERR_NOMEM);
        else free(r.out); /* a retry with less made it */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_bits_at_every_budget), cmocka_unit_test(slices_are_the_same_function),
                                       cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
