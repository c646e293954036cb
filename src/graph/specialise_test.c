/* Tests of graph_specialise: symbols, folding and its limits, outputs that keep their names, and a batch that
 * follows. SPDX-License-Identifier: Apache-2.0 */
#include "graph/testing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void symbol_on(struct graph *g, int value, int axis, const char *name)
{
    for (int i = 0; i < g->n_symbols; i++)
        if (strcmp(g->symbols[i], name) == 0) {
            g->values[value].shape.dims[axis] = TENSOR_SYMBOL(i);
            return;
        }
    g->symbols = xrealloc(g->symbols, ((size_t)g->n_symbols + 1) * sizeof *g->symbols);
    g->symbols[g->n_symbols] = xstrdup(name);
    g->values[value].shape.dims[axis] = TENSOR_SYMBOL(g->n_symbols++);
}

#define REFUSED(call, code, words)                                         \
    do {                                                                   \
        assert_int_equal(call, code);                                      \
        if (!strstr(err_text(), words)) fail_msg("%s", err_text());        \
    } while (0)

static void symbols_are_bound(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct graph *g = graph_new("m", 13, t.payer), *s = NULL;
    int a = testing_input(g, "a", DIMS(1, 3, 1)), b = testing_input(g, "b", DIMS(1, 3, 1));
    symbol_on(g, a, 0, "N");
    symbol_on(g, b, 0, "N");
    symbol_on(g, a, 2, "W");
    symbol_on(g, b, 2, "W");
    graph_add_output(g, testing_node(g, OP_ADD, a, b, -1));
    REFUSED(graph_specialise(g, NULL, t.payer, &s), ERR_SHAPE, "'W' of input 'a'");
    struct tensor_shape given[] = {tensor_shape_of(3, (int64_t[]){2, 3, 5}),
                                   tensor_shape_of(3, (int64_t[]){2, 3, 6})};
    REFUSED(graph_specialise(g, given, t.payer, &s), ERR_SHAPE, "'W' is 5, but input 'b' makes it 6");
    given[1].dims[2] = -1; /* open: as the symbol says */
    assert_int_equal(graph_specialise(g, given, t.payer, &s), ERR_OK);
    assert_true(tensor_shape_equal(&s->values[s->outputs[0]].shape, &given[0]));
    graph_free(&s);
    given[1] = tensor_shape_of(2, (int64_t[]){2, 3});
    REFUSED(graph_specialise(g, given, t.payer, &s), ERR_SHAPE, "input 'b' has 3 axes");
    given[1] = tensor_shape_of(3, (int64_t[]){2, 4, 5});
    REFUSED(graph_specialise(g, given, t.payer, &s), ERR_SHAPE, "'Add' (Add, opset 13)");
    graph_free(&g);
    testing_done(&t);
}

/* Reshape(x, Concat(Shape(x)[0:1], [-1])), as exporters write Flatten. */
static struct graph *shape_arithmetic(struct mem_payer *payer)
{
    struct graph *g = graph_new("m", 13, payer);
    int x = testing_input(g, "x", DIMS(2, 3, 4));
    int n = testing_node(g, OP_SHAPE, x, -1, -1);
    n = testing_node(g, OP_GATHER, n, testing_ints(g, 1, (int64_t[]){0}), -1);
    n = testing_node(g, OP_CONCAT, n, testing_ints(g, 1, (int64_t[]){-1}), -1);
    graph_set_int(testing_last(g), "axis", 0);
    graph_add_output(g, testing_node(g, OP_RESHAPE, x, n, -1));
    return g;
}

static void shape_arithmetic_disappears(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct graph *g = shape_arithmetic(t.payer), *s = testing_specialised(g, t.payer);
    assert_non_null(s);
    assert_int_equal(s->n_nodes, 1);
    assert_int_equal(s->values[s->outputs[0]].shape.dims[0], 2);
    assert_int_equal(s->values[s->outputs[0]].shape.dims[1], 12);
    graph_free(&s);
    graph_free(&g);
    testing_done(&t);
}

/* A large constant is not blown up: the node stays. */
static void folding_is_bounded(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, 8 << 20);
    struct graph *g = graph_new("m", 13, t.payer);
    int x = testing_input(g, "x", DIMS(1));
    int big = testing_node(g, OP_CONSTANT_OF_SHAPE, testing_ints(g, 2, (int64_t[]){1 << 20, 1 << 10}), -1, -1);
    int small = testing_node(g, OP_CONSTANT_OF_SHAPE, testing_ints(g, 1, (int64_t[]){8}), -1, -1);
    int sum = testing_node(g, OP_ADD, x, big, -1);
    graph_add_output(g, testing_node(g, OP_GATHER, sum, testing_ints(g, 1, (int64_t[]){0}), -1));
    graph_add_output(g, testing_node(g, OP_ADD, x, small, -1));
    struct graph *s = testing_specialised(g, t.payer);
    assert_non_null(s);
    assert_int_equal(s->n_nodes, 4); /* the small one is a constant now */
    assert_int_equal(s->nodes[0].op.kind, OP_CONSTANT_OF_SHAPE);
    graph_free(&s);
    graph_free(&g);
    testing_done(&t);
}

/* NonZero of a constant: room for the most there could be, then exactly what there is, with its rows together. */
static void bounded_results_become_exact(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct graph *g = graph_new("m", 13, t.payer);
    testing_input(g, "x", DIMS(1));
    int c = testing_floats(g, 1, DIMS(2, 3));
    memcpy(g->values[c].owned, (float[]){0, 5, 0, 7, 0, 9}, 6 * sizeof(float));
    int y = testing_node(g, OP_CAST, testing_node(g, OP_NON_ZERO, c, -1, -1), -1, -1);
    graph_set_int(testing_last(g), "to", TENSOR_F32);
    graph_add_output(g, y);
    struct graph *s = testing_specialised(g, t.payer);
    assert_non_null(s);
    assert_int_equal(s->n_nodes, 0);
    const struct graph_value *v = &s->values[s->outputs[0]];
    assert_int_equal(v->constant_bytes, 6 * sizeof(float));
    assert_int_equal(v->shape.dims[1], 3);
    assert_int_equal(v->shape.bounded, 0);
    assert_memory_equal(v->constant, ((float[]){0, 1, 1, 1, 0, 2}), 6 * sizeof(float));
    graph_free(&s);
    graph_free(&g);
    testing_done(&t);
}

static void outputs_keep_their_names(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct graph *g = graph_new("m", 13, t.payer);
    int x = testing_input(g, "x", DIMS(4)), y = testing_node(g, OP_RELU, x, -1, -1);
    int outs[] = {testing_node(g, OP_IDENTITY, y, -1, -1), testing_node(g, OP_IDENTITY, y, -1, -1),
                  testing_node(g, OP_DROPOUT, x, -1, -1),
                  testing_node(g, OP_IDENTITY, testing_floats(g, 1, DIMS(4)), -1, -1)};
    const char *names[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++) {
        free(g->values[outs[i]].name);
        g->values[outs[i]].name = xstrdup(names[i]);
        graph_add_output(g, outs[i]);
    }
    struct graph *s = testing_specialised(g, t.payer);
    assert_non_null(s);
    assert_int_equal(s->n_outputs, 4);
    for (int i = 0; i < 4; i++) assert_string_equal(s->values[s->outputs[i]].name, names[i]);
    assert_int_equal(s->n_nodes, 3); /* Relu, and Identity for the second name and for the input */
    assert_non_null(s->values[s->outputs[3]].constant);
    graph_free(&s);
    graph_free(&g);
    testing_done(&t);
}

/* ---- the batch */

enum mix { GOOD, ROWS, MERGED, MOVED };

/* conv, then the reshapes of a detector's head with the batch of 1 written into them. */
static struct graph *batch_of_one(struct mem_payer *payer, enum mix mix)
{
    struct graph *g = graph_new("m", 13, payer);
    int x = testing_input(g, "x", DIMS(1, 3, 6, 6));
    int y = testing_node(g, OP_CONV, x, testing_floats(g, 1, DIMS(4, 3, 3, 3)), -1);
    y = testing_node(g, OP_RESHAPE, y, testing_ints(g, 5, (int64_t[]){1, 2, 2, 4, 4}), -1);
    y = testing_node(g, OP_TRANSPOSE, y, -1, -1);
    graph_set_ints(testing_last(g), "perm", mix == MOVED ? (int64_t[]){2, 1, 0, 3, 4} : (int64_t[]){0, 2, 1, 3, 4},
                   5);
    bool rows = mix == ROWS || mix == MERGED; /* two of each sample, one after another; MERGED: then as columns */
    y = testing_node(g, OP_RESHAPE, y, testing_ints(g, 2, rows ? (int64_t[]){-1, 32} : (int64_t[]){1, -1}), -1);
    if (mix == MERGED) {
        y = testing_node(g, OP_TRANSPOSE, y, -1, -1);
        graph_set_ints(testing_last(g), "perm", (int64_t[]){1, 0}, 2);
    }
    if (rows) y = testing_node(g, OP_RESHAPE, y, testing_ints(g, 2, (int64_t[]){1, -1}), -1);
    graph_add_output(g, testing_node(g, OP_SIGMOID, y, -1, -1));
    return g;
}

static void batch_follows(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    for (int mix = GOOD; mix <= MOVED; mix++) {
        struct graph *g = batch_of_one(t.payer, (enum mix)mix), *one = testing_specialised(g, t.payer), *four = NULL;
        struct tensor_shape shape = tensor_shape_of(4, (int64_t[]){4, 3, 6, 6});
        assert_non_null(one);
        err e = graph_specialise(g, &shape, t.payer, &four);
        if (mix != GOOD && mix != ROWS) {
            assert_int_equal(e, ERR_SHAPE);
            if (!strstr(err_text(), "batch of 1")) fail_msg("%s", err_text());
        } else {
            if (e) fail_msg("%s", err_text());
            assert_int_equal(four->values[four->outputs[0]].shape.dims[0], 4);
            assert_int_equal(four->values[four->outputs[0]].shape.dims[1], 64);
            size_t n, m;
            float *a = testing_run(one, 5, &n), *b = testing_run(four, 5, &m); /* the first sample is drawn alike */
            assert_int_equal(m, 4 * n);
            assert_true(testing_distance(a, n, b, n) < 1e-6);
            free(a);
            free(b);
        }
        graph_free(&one);
        graph_free(&four);
        graph_free(&g);
    }
    testing_done(&t);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct graph *graphs[] = {shape_arithmetic(t.payer), batch_of_one(t.payer, GOOD)};
    struct tensor_shape shapes[] = {tensor_shape_of(3, (int64_t[]){5, 3, 4}),
                                    tensor_shape_of(4, (int64_t[]){4, 3, 6, 6})};
    uint64_t owed = mem_budget_used(t.budget);
    for (int i = 0; i < 2; i++) {
        bool done = false;
        for (uint64_t at = 1; !done; at++) {
            struct graph *s = NULL;
            mem_fault_at(t.budget, at);
            err e = graph_specialise(graphs[i], &shapes[i], t.payer, &s);
            done = mem_fault_calls(t.budget) < at;
            mem_fault_at(t.budget, 0);
            assert_int_equal(e, done ? ERR_OK : ERR_NOMEM);
            graph_free(&s);
            assert_int_equal(mem_budget_used(t.budget), owed);
        }
        graph_free(&graphs[i]);
        owed = mem_budget_used(t.budget);
    }
    testing_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(symbols_are_bound),         cmocka_unit_test(shape_arithmetic_disappears),
        cmocka_unit_test(folding_is_bounded),        cmocka_unit_test(bounded_results_become_exact),
        cmocka_unit_test(outputs_keep_their_names),  cmocka_unit_test(batch_follows),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
