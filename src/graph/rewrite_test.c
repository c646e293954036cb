/* Tests of rewrites: each fires on its pattern, leaves what it must not touch, and the numbers hold: the graph
 * before and after is run by plain C on the same random input. SPDX-License-Identifier: Apache-2.0 */
#include "graph/testing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Specialises, runs, rewrites, runs; `nodes` is what must be left. The graph is freed. */
static void check_(struct graph *g, size_t nodes, int posts, const char *file, int line)
{
    struct graph *s = testing_specialised(g, g->payer);
    if (!s) _fail(file, line);
    size_t n = 0, m = 0;
    float *before = testing_run(s, 42, &n);
    if (graph_rewrite(s, GRAPH_REWRITE_ALL)) print_error("%s\n", err_text());
    float *after = testing_run(s, 42, &m);
    int n_post = 0;
    for (size_t i = 0; i < s->n_nodes; i++) n_post += s->nodes[i].n_post;
    double d = before && after ? testing_distance(after, m, before, n) : 1e9;
    if (s->n_nodes != nodes || n_post != posts || !(d < 2e-6)) {
        for (size_t i = 0; i < s->n_nodes; i++)
            print_error("%s, %d post-ops\n", op_name(s->nodes[i].op.kind), s->nodes[i].n_post);
        print_error("%zu nodes, %d post-ops, distance %g\n", s->n_nodes, n_post, d);
        _fail(file, line);
    }
    free(before);
    free(after);
    graph_free(&s);
}
#define CHECK(g, y, nodes, posts)                       \
    do {                                                \
        graph_add_output(g, y);                         \
        check_(g, nodes, posts, __FILE__, __LINE__);    \
        graph_free(&g);                                 \
    } while (0)

static int setup(void **state)
{
    struct testing *t = xnew(struct testing);
    testing_init(t, UINT64_MAX);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    testing_done(*state);
    free(*state);
    return 0;
}

static int conv(struct graph *g, int x, int64_t in, int64_t out, int64_t k, int64_t group)
{
    int64_t p = k / 2;
    int y = testing_node(g, OP_CONV, x, testing_floats(g, (uint64_t)(in * 7 + out), DIMS(out, in / group, k, k)), -1);
    graph_set_ints(testing_last(g), "pads", (int64_t[]){p, p, p, p}, 4);
    graph_set_int(testing_last(g), "group", group);
    return y;
}

static int batch_norm(struct graph *g, int x, int64_t c)
{
    int p[4], y = testing_node(g, OP_BATCH_NORM, x, -1, -1);
    for (int i = 0; i < 4; i++) p[i] = testing_floats(g, (uint64_t)(i + 77), DIMS(c));
    for (int64_t k = 0; k < c; k++) ((float *)g->values[p[3]].owned)[k] = 0.5f + 0.1f * (float)k; /* variances */
    struct graph_node *n = testing_last(g);
    n->op.in = xrealloc(n->op.in, 5 * sizeof *n->op.in);
    memcpy(n->op.in + 1, p, sizeof p);
    n->op.n_in = n->n_own_in = 5;
    return y;
}

static struct graph *start(struct testing *t, int *ret_x)
{
    struct graph *g = graph_new("m", 13, t->payer);
    *ret_x = testing_input(g, "x", DIMS(2, 4, 6, 5));
    return g;
}

static void norm_into_conv(void **state)
{
    struct testing *t = *state;
    int x;
    struct graph *g = start(t, &x);
    CHECK(g, batch_norm(g, conv(g, x, 4, 6, 3, 1), 6), 1, 0);
    g = start(t, &x);
    CHECK(g, batch_norm(g, conv(g, x, 4, 8, 3, 4), 8), 1, 0); /* depthwise */
    g = start(t, &x);
    int y = testing_node(g, OP_CONV_TRANSPOSE, x, testing_floats(g, 9, DIMS(4, 3, 2, 2)),
                         testing_floats(g, 3, DIMS(6)));
    graph_set_int(testing_last(g), "group", 2);
    graph_set_ints(testing_last(g), "strides", (int64_t[]){2, 2}, 2);
    CHECK(g, batch_norm(g, y, 6), 1, 0);
    g = start(t, &x); /* the result of the convolution is an output as well: Mul and Add */
    y = conv(g, x, 4, 6, 3, 1);
    int z = batch_norm(g, y, 6);
    graph_add_output(g, z);
    CHECK(g, y, 3, 0);
}

static void norm_into_gemm(void **state)
{
    struct testing *t = *state;
    for (int trans = 0; trans < 2; trans++) {
        struct graph *g = graph_new("m", 13, t->payer);
        int x = testing_input(g, "x", DIMS(3, 7));
        int w = trans ? testing_floats(g, 5, DIMS(6, 7)) : testing_floats(g, 5, DIMS(7, 6));
        int y = testing_node(g, OP_GEMM, x, w, testing_floats(g, 6, DIMS(1, 6)));
        graph_set_int(testing_last(g), "transB", trans);
        graph_set_float(testing_last(g), "alpha", 0.5f);
        graph_set_float(testing_last(g), "beta", 2.0f);
        CHECK(g, batch_norm(g, y, 6), 1, 0);
    }
}

static void norm_elsewhere(void **state)
{
    struct testing *t = *state;
    int x;
    struct graph *g = start(t, &x); /* before a convolution without padding */
    CHECK(g, conv(g, batch_norm(g, x, 4), 4, 6, 1, 2), 1, 0);
    g = start(t, &x); /* padding would let the shift in at the border */
    CHECK(g, conv(g, batch_norm(g, x, 4), 4, 6, 3, 1), 3, 0);
    g = start(t, &x); /* alone: Mul, Add */
    CHECK(g, testing_node(g, OP_RELU, batch_norm(g, x, 4), -1, -1), 3, 0);
    g = start(t, &x); /* a scale alone passes through padding */
    CHECK(g, conv(g, testing_node(g, OP_MUL, x, testing_floats(g, 4, DIMS(4, 1, 1)), -1), 4, 6, 3, 1), 1, 0);
}

static void constants_after_linear(void **state)
{
    struct testing *t = *state;
    static const enum op_kind kinds[] = {OP_MUL, OP_ADD, OP_SUB, OP_DIV};
    int x;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct graph *g = start(t, &x);
        CHECK(g, testing_node(g, kinds[i], conv(g, x, 4, 6, 3, 1), testing_floats(g, 8, DIMS(1, 6, 1, 1)), -1), 1, 0);
        g = start(t, &x); /* constant first */
        CHECK(g, testing_node(g, kinds[i], testing_number(g, 1.5f), conv(g, x, 4, 6, 3, 1), -1),
              kinds[i] == OP_DIV ? 2 : 1, 0);
        g = start(t, &x); /* per column of the picture: not a channel */
        CHECK(g, testing_node(g, kinds[i], conv(g, x, 4, 6, 3, 1), testing_floats(g, 8, DIMS(5)), -1), 2, 0);
        g = graph_new("m", 13, t->payer);
        x = testing_input(g, "x", DIMS(3, 7));
        int y = testing_node(g, OP_MATMUL, x, testing_floats(g, 5, DIMS(7, 6)), -1);
        CHECK(g, testing_node(g, kinds[i], y, testing_floats(g, 6, DIMS(6)), -1), kinds[i] == OP_SUB ? 2 : 1, 0);
    }
}

static void constants_meet(void **state)
{
    struct testing *t = *state;
    static const enum op_kind kinds[] = {OP_ADD, OP_SUB, OP_MUL, OP_DIV};
    for (int i = 0; i < 16; i++) {
        int x;
        struct graph *g = start(t, &x);
        int y = testing_node(g, kinds[i / 4], x, testing_floats(g, 3, DIMS(4, 1, 1)), -1);
        y = testing_node(g, kinds[i % 4], y, testing_number(g, 0.75f), -1);
        CHECK(g, y, i / 8 == i % 4 / 2 ? 1 : 2, 0);
    }
}

static int pad(struct graph *g, int x, float value)
{
    int y = testing_node(g, OP_PAD, x, testing_ints(g, 8, (int64_t[]){0, 0, 1, 0, 0, 0, 1, 1}),
                         testing_number(g, value));
    return y;
}

static int pool(struct graph *g, enum op_kind kind, int x)
{
    int y = testing_node(g, kind, x, -1, -1);
    graph_set_ints(testing_last(g), "kernel_shape", (int64_t[]){2, 2}, 2);
    return y;
}

static void pads(void **state)
{
    struct testing *t = *state;
    int x;
    struct graph *g = start(t, &x);
    CHECK(g, conv(g, pad(g, x, 0), 4, 6, 3, 1), 1, 0);
    g = start(t, &x);
    CHECK(g, conv(g, pad(g, x, 1), 4, 6, 3, 1), 2, 0);
    g = start(t, &x);
    CHECK(g, pool(g, OP_AVERAGE_POOL, pad(g, x, 0)), 1, 0);
    g = start(t, &x);
    CHECK(g, pool(g, OP_MAX_POOL, pad(g, x, 0)), 2, 0); /* 0 may be the largest there */
    g = start(t, &x);
    CHECK(g, pool(g, OP_MAX_POOL, pad(g, testing_node(g, OP_RELU, x, -1, -1), 0)), 2, 0);
}

static int transpose(struct graph *g, int x, const int64_t *perm)
{
    int y = testing_node(g, OP_TRANSPOSE, x, -1, -1);
    graph_set_ints(testing_last(g), "perm", perm, 4);
    return y;
}

static void moves(void **state)
{
    struct testing *t = *state;
    static const int64_t to_last[] = {0, 2, 3, 1}, to_first[] = {0, 3, 1, 2}, swap[] = {1, 0, 2, 3};
    int x;
    struct graph *g = start(t, &x);
    CHECK(g, testing_node(g, OP_RELU, transpose(g, transpose(g, x, to_last), to_first), -1, -1), 1, 0);
    g = start(t, &x);
    CHECK(g, transpose(g, transpose(g, x, to_last), swap), 1, 0);
    g = start(t, &x); /* the end of a chain that cancels is an output: one is left */
    CHECK(g, transpose(g, transpose(g, x, to_last), to_first), 1, 0);
    g = start(t, &x);
    int y = testing_node(g, OP_RESHAPE, x, testing_ints(g, 2, (int64_t[]){8, -1}), -1);
    y = testing_node(g, OP_UNSQUEEZE, y, testing_ints(g, 1, (int64_t[]){1}), -1);
    y = testing_node(g, OP_FLATTEN, y, -1, -1);
    y = testing_node(g, OP_RESHAPE, y, testing_ints(g, 3, (int64_t[]){2, 4, 30}), -1);
    CHECK(g, testing_node(g, OP_RELU, y, -1, -1), 2, 0);
    g = start(t, &x); /* there and back */
    y = testing_node(g, OP_UNSQUEEZE, x, testing_ints(g, 1, (int64_t[]){1}), -1);
    y = testing_node(g, OP_SQUEEZE, y, testing_ints(g, 1, (int64_t[]){1}), -1);
    CHECK(g, testing_node(g, OP_RELU, y, -1, -1), 1, 0);
}

/* 1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)), or 1 + erf(x / sqrt 2), written in four ways. */
static int gate(struct graph *g, int x, int way)
{
    int cube, y;
    if (way & 2) {
        y = way & 1 ? testing_node(g, OP_MUL, x, testing_number(g, 0.70710678f), -1) : testing_node(g, OP_DIV, x, testing_number(g, 1.41421356f), -1);
        y = testing_node(g, OP_ERF, y, -1, -1);
        return testing_node(g, OP_ADD, y, testing_number(g, 1), -1);
    }
    if (way & 1) cube = testing_node(g, OP_POW, x, testing_number(g, 3), -1);
    else cube = testing_node(g, OP_MUL, x, testing_node(g, OP_MUL, x, x, -1), -1);
    y = testing_node(g, OP_ADD, x, testing_node(g, OP_MUL, testing_number(g, 0.044715f), cube, -1), -1);
    y = testing_node(g, OP_TANH, testing_node(g, OP_MUL, y, testing_number(g, 0.7978845608f), -1), -1, -1);
    return testing_node(g, OP_ADD, testing_number(g, 1), y, -1);
}

static void gelus(void **state)
{
    struct testing *t = *state;
    for (int k = 0; k < 12; k++) {
        int x;
        struct graph *g = start(t, &x);
        int half = testing_number(g, 0.5f), y = gate(g, x, k / 3);
        if (k % 3 == 0) y = testing_node(g, OP_MUL, testing_node(g, OP_MUL, x, y, -1), half, -1);
        if (k % 3 == 1) y = testing_node(g, OP_MUL, testing_node(g, OP_MUL, half, x, -1), y, -1);
        if (k % 3 == 2) y = testing_node(g, OP_MUL, testing_node(g, OP_MUL, y, half, -1), x, -1);
        CHECK(g, y, 1, 0);
    }
    int x;
    struct graph *g = start(t, &x); /* x is not what the gate is of */
    int z = testing_node(g, OP_EXP, x, -1, -1);
    CHECK(g, testing_node(g, OP_MUL, testing_node(g, OP_MUL, z, gate(g, x, 3), -1), testing_number(g, 0.5f), -1), 6, 0);
    g = start(t, &x); /* the gate is read by somebody else, too */
    int y = gate(g, x, 3);
    graph_add_output(g, y);
    CHECK(g, testing_node(g, OP_MUL, testing_node(g, OP_MUL, x, y, -1), testing_number(g, 0.5f), -1), 5, 0);
}

static int clip06(struct graph *g, int x)
{
    return testing_node(g, OP_CLIP, x, testing_number(g, 0), testing_number(g, 6));
}

static void patterns(void **state)
{
    struct testing *t = *state;
    int x;
    struct graph *g = start(t, &x);
    CHECK(g, testing_node(g, OP_MUL, x, testing_node(g, OP_SIGMOID, x, -1, -1), -1), 1, 0);
    g = start(t, &x);
    int y = conv(g, x, 4, 6, 3, 1);
    CHECK(g, testing_node(g, OP_MUL, testing_node(g, OP_SIGMOID, y, -1, -1), y, -1), 1, 1);
    for (int form = 0; form < 4; form++) { /* x clip(x + 3, 0, 6) / 6, divided before or after, by Div or Mul */
        g = start(t, &x);
        y = testing_node(g, OP_MUL, x, testing_number(g, 4), -1);
        int c = clip06(g, testing_node(g, OP_ADD, y, testing_number(g, 3), -1)),
            six = testing_number(g, form & 1 ? 6 : 1.0f / 6);
        enum op_kind kind = form & 1 ? OP_DIV : OP_MUL;
        y = form & 2 ? testing_node(g, OP_MUL, y, testing_node(g, kind, c, six, -1), -1)
                     : testing_node(g, kind, testing_node(g, OP_MUL, y, c, -1), six, -1);
        CHECK(g, y, 2, 0);
    }
    g = start(t, &x);
    y = testing_node(g, OP_HARD_SIGMOID, x, -1, -1);
    graph_set_float(testing_last(g), "alpha", 1.0f / 6);
    CHECK(g, testing_node(g, OP_MUL, x, y, -1), 1, 0);
    g = start(t, &x);
    y = testing_node(g, OP_HARD_SIGMOID, x, -1, -1); /* alpha 0.2 is no hard swish */
    CHECK(g, testing_node(g, OP_MUL, x, y, -1), 2, 0);
    g = start(t, &x);
    y = testing_node(g, OP_MAX, x, testing_number(g, -0.5f), -1);
    CHECK(g, testing_node(g, OP_MIN, y, testing_number(g, 0.25f), -1), 1, 0);
    g = start(t, &x);
    y = testing_node(g, OP_MIN, x, testing_number(g, 0.25f), -1);
    CHECK(g, testing_node(g, OP_MAX, y, testing_number(g, -0.5f), -1), 1, 0);
    g = start(t, &x);
    y = testing_node(g, OP_RELU, conv(g, x, 4, 6, 3, 1), -1, -1);
    CHECK(g, testing_node(g, OP_MIN, y, testing_number(g, 0.3f), -1), 1, 1);
}

static void activations(void **state)
{
    struct testing *t = *state;
    static const enum op_kind kinds[] = {OP_RELU,       OP_LEAKY_RELU, OP_SIGMOID, OP_HARD_SIGMOID,
                                         OP_HARD_SWISH, OP_TANH,       OP_ELU};
    int x;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct graph *g = start(t, &x);
        g->opset = 14;
        CHECK(g, testing_node(g, kinds[i], conv(g, x, 4, 6, 3, 1), -1, -1), 1, 1);
    }
    struct graph *g = start(t, &x);
    CHECK(g, clip06(g, conv(g, x, 4, 6, 3, 1)), 1, 1);
    g = start(t, &x); /* two readers: nothing is fused */
    int y = conv(g, x, 4, 6, 3, 1);
    CHECK(g, testing_node(g, OP_ADD, testing_node(g, OP_RELU, y, -1, -1), testing_node(g, OP_TANH, y, -1, -1), -1),
          4, 0);
}

static void residuals(void **state)
{
    struct testing *t = *state;
    int x;
    struct graph *g = start(t, &x);
    int y = conv(g, x, 4, 4, 3, 1);
    CHECK(g, testing_node(g, OP_RELU, testing_node(g, OP_ADD, y, x, -1), -1, -1), 1, 2);
    g = start(t, &x); /* two branches: the later convolution takes the sum */
    y = batch_norm(g, conv(g, x, 4, 6, 3, 1), 6);
    int z = conv(g, testing_node(g, OP_RELU, conv(g, x, 4, 4, 3, 1), -1, -1), 4, 6, 1, 1);
    CHECK(g, testing_node(g, OP_RELU, testing_node(g, OP_ADD, y, z, -1), -1, -1), 3, 3);
    g = start(t, &x); /* the sum is made by the earlier one, whose other operand comes later in the file */
    y = conv(g, x, 4, 4, 3, 1);
    z = testing_node(g, OP_EXP, x, -1, -1);
    CHECK(g, testing_node(g, OP_ADD, y, z, -1), 2, 1);
    g = start(t, &x); /* another shape is no residual */
    y = conv(g, x, 4, 4, 3, 1);
    z = testing_node(g, OP_GLOBAL_AVERAGE_POOL, x, -1, -1);
    CHECK(g, testing_node(g, OP_ADD, y, z, -1), 3, 0);
    g = graph_new("m", 13, t->payer);
    x = testing_input(g, "x", DIMS(2, 3, 7));
    y = testing_node(g, OP_MATMUL, x, testing_floats(g, 5, DIMS(7, 7)), -1);
    CHECK(g, testing_node(g, OP_ADD, x, y, -1), 1, 1);
}

/* Long chains end, and a graph of nothing but rewritable nodes does too. */
static void long_chains(void **state)
{
    struct testing *t = *state;
    int x;
    struct graph *g = start(t, &x);
    int y = x;
    for (int i = 0; i < 300; i++) y = testing_node(g, OP_ADD, y, testing_number(g, 0.01f), -1);
    CHECK(g, y, 1, 0);
}

/* A failed allocation leaves a graph that is valid and gives the same numbers. */
/* Marks constants as other models': weights (rank 2 and more), with `norms` those of rank 1 as well. */
static void mark(struct graph *g, bool norms)
{
    for (size_t i = 0; i < g->n_values; i++) g->values[i].shared = g->values[i].constant && g->values[i].shape.rank >= (norms ? 1 : 2);
}

/* Rewritten with marks: `nodes` and `posts` are left, numbers hold, and the first node's weight has the bytes it had (or not). Frees g. */
static void check_shared(struct graph *g, int y, bool norms, size_t nodes, int posts, bool kept)
{
    graph_add_output(g, y);
    struct graph *s = testing_specialised(g, g->payer);
    size_t n, m;
    float *before = testing_run(s, 42, &n);
    mark(s, norms);
    const void *raw = s->values[s->nodes[0].op.in[1]].constant;
    assert_int_equal(graph_rewrite(s, GRAPH_REWRITE_ALL), ERR_OK);
    float *after = testing_run(s, 42, &m);
    int n_post = 0;
    for (size_t i = 0; i < s->n_nodes; i++) n_post += s->nodes[i].n_post;
    const struct graph_value *w = &s->values[s->nodes[0].op.in[1]];
    assert_int_equal(s->n_nodes, nodes);
    assert_int_equal(n_post, posts);
    assert_true((w->constant == raw) == kept);
    assert_true(w->shared);
    if (posts) assert_int_equal(s->nodes[0].post[0].kind, KERNEL_POST_SCALE);
    assert_true(testing_distance(after, m, before, n) < 2e-6);
    free(before);
    free(after);
    graph_free(&s);
    graph_free(&g);
}

static void shared_weights_keep_their_numbers(void **state)
{
    struct testing *t = *state;
    int x;
    struct graph *g = start(t, &x);
    check_shared(g, testing_node(g, OP_RELU, batch_norm(g, conv(g, x, 4, 6, 3, 1), 6), -1, -1), false, 1, 2, true);
    g = start(t, &x); /* a normalisation that is shared as well: folded, and still shared */
    check_shared(g, batch_norm(g, conv(g, x, 4, 6, 3, 1), 6), true, 1, 0, false);
    g = start(t, &x); /* a shift alone goes into the bias, which is private */
    check_shared(g, testing_node(g, OP_ADD, conv(g, x, 4, 6, 3, 1), testing_floats(g, 3, DIMS(1, 6, 1, 1)), -1), false, 1, 0, true);
    g = start(t, &x); /* two norms after each other: one scale */
    check_shared(g, batch_norm(g, batch_norm(g, conv(g, x, 4, 6, 3, 1), 6), 6), false, 1, 1, true);
    g = start(t, &x);
    int y = testing_node(g, OP_CONV_TRANSPOSE, x, testing_floats(g, 9, DIMS(4, 3, 2, 2)), testing_floats(g, 3, DIMS(6)));
    graph_set_int(testing_last(g), "group", 2);
    check_shared(g, batch_norm(g, y, 6), false, 1, 1, true);
    g = start(t, &x); /* channels that a network has switched off: a scale of zero */
    y = batch_norm(g, conv(g, x, 4, 6, 3, 1), 6);
    float *gamma = g->values[testing_last(g)->op.in[1]].owned;
    gamma[1] = gamma[4] = 0;
    check_shared(g, y, false, 1, 1, true);
    g = start(t, &x); /* a residual, then a function */
    y = batch_norm(g, conv(g, x, 4, 4, 3, 1), 4);
    check_shared(g, testing_node(g, OP_RELU, testing_node(g, OP_ADD, y, x, -1), -1, -1), false, 1, 3, true);
    g = start(t, &x); /* a scale before a convolution stays before it */
    graph_add_output(g, conv(g, testing_node(g, OP_MUL, x, testing_floats(g, 4, DIMS(4, 1, 1)), -1), 4, 6, 3, 1));
    struct graph *s = testing_specialised(g, t->payer);
    mark(s, false);
    for (size_t i = 0; i < s->n_values; i++) s->values[i].shared &= s->values[i].shape.rank == 4;
    assert_int_equal(graph_rewrite(s, GRAPH_REWRITE_ALL), ERR_OK);
    assert_int_equal(s->n_nodes, 2);
    graph_free(&s);
    graph_free(&g);
}

static void shared_products(void **state)
{
    struct testing *t = *state;
    for (int trans = 0; trans < 2; trans++) {
        struct graph *g = graph_new("m", 13, t->payer);
        int x = testing_input(g, "x", DIMS(3, 7));
        int w = trans ? testing_floats(g, 5, DIMS(6, 7)) : testing_floats(g, 5, DIMS(7, 6));
        int y = testing_node(g, OP_GEMM, x, w, testing_floats(g, 6, DIMS(6)));
        graph_set_int(testing_last(g), "transB", trans);
        graph_set_float(testing_last(g), "alpha", 0.5f);
        graph_set_float(testing_last(g), "beta", 2.0f);
        check_shared(g, batch_norm(g, y, 6), false, 1, 1, true);
    }
    struct graph *g = graph_new("m", 13, t->payer);
    int x = testing_input(g, "x", DIMS(2, 3, 7));
    int y = testing_node(g, OP_MATMUL, x, testing_floats(g, 5, DIMS(7, 6)), -1);
    check_shared(g, testing_node(g, OP_MUL, y, testing_floats(g, 6, DIMS(6)), -1), false, 1, 1, true);
}

/* A weight that two nodes of one graph read, too large to have twice. */
static void large_weights_stay_one(void **state)
{
    struct testing *t = *state;
    struct graph *g = graph_new("m", 13, t->payer);
    int x = testing_input(g, "x", DIMS(1, 64, 3, 3)), w = testing_floats(g, 8, DIMS(64, 64, 3, 3));
    int a = testing_node(g, OP_CONV, x, w, -1), b = testing_node(g, OP_CONV, testing_node(g, OP_TANH, x, -1, -1), w, -1);
    a = batch_norm(g, a, 64);
    b = testing_node(g, OP_MUL, b, testing_floats(g, 4, DIMS(64, 1, 1)), -1);
    CHECK(g, testing_node(g, OP_MUL, a, b, -1), 4, 2);
}

static void slices_of_scaled_weights(void **state)
{
    struct testing *t = *state;
    struct graph *g = graph_new("m", 13, t->payer);
    int x = testing_input(g, "x", DIMS(1, 8, 5, 5));
    int y = testing_node(g, OP_RELU, batch_norm(g, conv(g, x, 8, 200, 3, 1), 200), -1, -1);
    graph_add_output(g, testing_node(g, OP_SOFTMAX, y, -1, -1));
    struct graph *s = testing_specialised(g, t->payer);
    size_t n, m;
    float *before = testing_run(s, 42, &n);
    mark(s, false);
    assert_int_equal(graph_rewrite(s, GRAPH_REWRITE_ALL), ERR_OK);
    assert_int_equal(graph_slice(s, 64 * 8 * 9 * 4), ERR_OK);
    assert_int_equal(s->n_nodes, 4 + 2); /* 64 + 64 + 64 + 8 channels, Concat, Softmax */
    for (int i = 0; i < 4; i++) assert_true(s->values[s->nodes[i].op.in[1]].shared && s->nodes[i].n_post == 2);
    float *after = testing_run(s, 42, &m);
    assert_true(testing_distance(after, m, before, n) < 2e-6);
    free(before);
    free(after);
    graph_free(&s);
    graph_free(&g);
}

static void every_allocation_may_fail(void **state)
{
    struct testing *t = *state;
    int x;
    struct graph *g = start(t, &x);
    int y = batch_norm(g, conv(g, pad(g, x, 0), 4, 6, 3, 1), 6);
    y = testing_node(g, OP_MIN, testing_node(g, OP_RELU, y, -1, -1), testing_number(g, 0.3f), -1);
    y = testing_node(g, OP_ADD, testing_node(g, OP_ADD, y, testing_number(g, 1), -1), testing_number(g, 2), -1);
    y = batch_norm(g, y, 6);
    y = testing_node(g, OP_FLATTEN, testing_node(g, OP_UNSQUEEZE, y, testing_ints(g, 1, (int64_t[]){1}), -1), -1, -1);
    graph_add_output(g, testing_node(g, OP_RELU, y, -1, -1));
    bool done = false;
    for (uint64_t at = 1; !done; at++) {
        struct graph *s = testing_specialised(g, t->payer);
        size_t n, m;
        float *before = testing_run(s, 3, &n);
        mem_fault_at(t->budget, at);
        err e = graph_rewrite(s, GRAPH_REWRITE_ALL);
        done = mem_fault_calls(t->budget) < at;
        mem_fault_at(t->budget, 0);
        assert_int_equal(e, done ? ERR_OK : ERR_NOMEM);
        float *after = testing_run(s, 3, &m);
        assert_true(testing_distance(after, m, before, n) < 2e-6);
        free(before);
        free(after);
        graph_free(&s);
    }
    graph_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_into_conv), cmocka_unit_test(norm_into_gemm),
        cmocka_unit_test(norm_elsewhere), cmocka_unit_test(constants_after_linear),
        cmocka_unit_test(constants_meet), cmocka_unit_test(pads),
        cmocka_unit_test(moves),          cmocka_unit_test(patterns), cmocka_unit_test(gelus),
        cmocka_unit_test(activations),    cmocka_unit_test(residuals),
        cmocka_unit_test(long_chains),    cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(shared_weights_keep_their_numbers), cmocka_unit_test(shared_products),
        cmocka_unit_test(large_weights_stay_one), cmocka_unit_test(slices_of_scaled_weights),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
