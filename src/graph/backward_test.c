/* Gradients against finite differences, operator by operator, over drawn shapes and attributes; and what graph_backward refuses.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "graph/backward_try.h"

static struct testing T;

static int set_up(void **state)
{
    (void)state;
    testing_init(&T, 256 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    testing_done(&T);
    return 0;
}

static struct graph *start(int opset)
{
    return graph_new("try", opset, T.payer);
}

static void finish(struct graph *g, int y, uint64_t seed, double low, double high, const char *what)
{
    bool ok = try_gradients(g, y, seed, low, high, what);
    graph_free(&g);
    assert_true(ok);
}

static int64_t *draw_dims(struct try_draw *d, int rank, int64_t *dims)
{
    for (int i = 0; i < rank; i++) dims[i] = try_int(d, 1, 4);
    return dims;
}

static int numbers(struct graph *g, struct try_draw *d, int rank, const int64_t *dims)
{
    struct tensor_shape s = tensor_shape_of(rank, dims);
    void *p;
    int v;
    assert_int_equal(graph_add_constant(g, "c", TENSOR_F64, &s, &v, &p), ERR_OK);
    for (int64_t i = 0; i < tensor_count(&s); i++) ((double *)p)[i] = try_between(d, -1, 1);
    return v;
}

/* ---- element by element */

static const struct {
    enum op_kind kind;
    double low, high;
} UNARY[] = {
    {OP_ABS, -2, 2}, {OP_ACOS, -0.9, 0.9}, {OP_ACOSH, 1.1, 3}, {OP_ASIN, -0.9, 0.9}, {OP_ASINH, -2, 2}, {OP_ATAN, -2, 2},
    {OP_ATANH, -0.9, 0.9}, {OP_CELU, -2, 2}, {OP_COS, -2, 2}, {OP_COSH, -2, 2}, {OP_ELU, -2, 2}, {OP_ERF, -2, 2}, {OP_EXP, -2, 2},
    {OP_GELU, -3, 3}, {OP_HARD_SIGMOID, -4, 4}, {OP_HARD_SWISH, -5, 5}, {OP_LEAKY_RELU, -2, 2}, {OP_LOG, 0.2, 3}, {OP_MISH, -4, 4},
    {OP_NEG, -2, 2}, {OP_RECIPROCAL, 0.3, 2}, {OP_RELU, -2, 2}, {OP_SELU, -2, 2}, {OP_SIGMOID, -4, 4}, {OP_SILU, -4, 4}, {OP_SIN, -2, 2},
    {OP_SINH, -2, 2}, {OP_SOFTPLUS, -4, 4}, {OP_SOFTSIGN, -2, 2}, {OP_SQRT, 0.2, 3}, {OP_TAN, -1, 1}, {OP_TANH, -2, 2},
    {OP_THRESHOLDED_RELU, -2, 3}, {OP_CEIL, 0.1, 0.9}, {OP_FLOOR, 0.1, 0.9}, {OP_ROUND, 0.1, 0.4}, {OP_SIGN, 0.1, 1},
    {OP_IDENTITY, -1, 1}, {OP_COPY, -1, 1}, {OP_DROPOUT, -1, 1}, {OP_CLIP, -2, 2},
};

static void test_unary(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(UNARY); k++)
        for (uint64_t seed = 0; seed < 2; seed++) {
            struct try_draw d = {seed + 31 * k};
            int64_t dims[4];
            int rank = (int)try_int(&d, 0, 3);
            struct graph *g = start(13);
            int x = try_input(g, rank, draw_dims(&d, rank, dims)), y = testing_node(g, UNARY[k].kind, x, -1, -1);
            struct graph_node *n = testing_last(g);
            if (seed && (UNARY[k].kind == OP_LEAKY_RELU || UNARY[k].kind == OP_ELU || UNARY[k].kind == OP_CELU || UNARY[k].kind == OP_SELU))
                graph_set_float(n, "alpha", 0.3f);
            if (seed && UNARY[k].kind == OP_LEAKY_RELU) graph_set_float(n, "alpha", -0.3f);
            if (seed && UNARY[k].kind == OP_HARD_SIGMOID) graph_set_float(n, "beta", 0.4f);
            if (seed && UNARY[k].kind == OP_GELU) graph_set_string(n, "approximate", "tanh");
            if (UNARY[k].kind == OP_CLIP) {
                n->op.opset = 6;
                graph_set_float(n, "min", -0.7f);
                if (seed) graph_set_float(n, "max", 1.1f);
            }
            finish(g, y, seed, UNARY[k].low, UNARY[k].high, op_name(UNARY[k].kind));
        }
}

static const enum op_kind BINARY[] = {OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_POW, OP_MAX, OP_MIN, OP_SUM, OP_MEAN, OP_PRELU};

/* Each may be stretched along some axes and have fewer of them. */
static void test_binary(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(BINARY); k++)
        for (uint64_t seed = 0; seed < 4; seed++) {
            struct try_draw d = {seed + 77 * k};
            int64_t dims[4], other[4];
            int rank = (int)try_int(&d, 1, 4), less = seed ? (int)try_int(&d, 0, rank) : rank;
            draw_dims(&d, rank, dims);
            for (int i = 0; i < less; i++) other[i] = try_unit(&d) < 0.4 ? 1 : dims[rank - less + i];
            if (BINARY[k] != OP_PRELU)
                for (int i = 0; i < rank; i++)
                    if (i >= rank - less && other[i - rank + less] > 1 && try_unit(&d) < 0.2) dims[i] = 1;
            struct graph *g = start(13);
            int a = try_input(g, rank, dims), b = try_input(g, less, other);
            bool positive = BINARY[k] == OP_POW || BINARY[k] == OP_DIV;
            int y = testing_node(g, BINARY[k], a, b, -1);
            finish(g, y, seed, positive ? 0.3 : -1, positive ? 2 : 1, op_name(BINARY[k]));
        }
    for (int same = 0; same < 3; same++) { /* x * x, a value with several readers; constant exponents; Where */
        struct try_draw d = {99};
        struct graph *g = start(13);
        int x = try_input(g, DIMS(2, 3)), y;
        if (same == 0) {
            y = testing_node(g, OP_MUL, testing_node(g, OP_MUL, x, x, -1), testing_node(g, OP_ADD, x, x, -1), -1);
        } else if (same == 1) {
            y = testing_node(g, OP_POW, x, testing_number(g, 2), -1);
            y = testing_node(g, OP_ADD, y, testing_node(g, OP_POW, x, testing_number(g, 3), -1), -1);
        } else {
            int c = testing_node(g, OP_GREATER, x, numbers(g, &d, 0, NULL), -1);
            y = testing_node(g, OP_WHERE, c, try_input(g, DIMS(3)), try_input(g, DIMS(2, 2, 1)));
        }
        finish(g, y, 5, -1, 1, "several readers");
    }
}

/* The same draw in all evaluations: what is dropped stays dropped. */
static void test_dropout(void **state)
{
    (void)state;
    for (int k = 0; k < 6; k++) {
        static const float RATIOS[] = {0.5f, 0.2f, 0, 1, 0.9f, 0.3f};
        struct graph *g = start(13);
        int x = k % 2 ? try_input(g, DIMS(2, 3, 2, 4)) : try_input(g, DIMS(5, 7));
        int y = testing_node(g, OP_DROPOUT_BY, x, testing_ints(g, 3, (int64_t[]){k, 7, 1}), -1);
        graph_set_float(testing_last(g), "ratio", RATIOS[k]);
        graph_set_int(testing_last(g), "node", k);
        graph_set_int(testing_last(g), "channels_last", k / 2 % 2);
        finish(g, testing_node(g, OP_MUL, y, y, -1), (uint64_t)k, -1, 1, "DropoutBy"); /* not linear: dy is not the same everywhere */
    }
}

static void test_cast(void **state)
{
    (void)state;
    struct graph *g = start(13);
    int x = try_input(g, DIMS(2, 3)), y = testing_node(g, OP_CAST, x, -1, -1);
    graph_set_int(testing_last(g), "to", TENSOR_F64);
    finish(g, y, 1, -1, 1, "Cast");
}

/* ---- products */

static void test_matmul(void **state)
{
    (void)state;
    static const int64_t SHAPES[][2][5] = {/* rank, sizes */
                                           {{2, 3, 4}, {2, 4, 5}},       {{3, 2, 3, 4}, {2, 4, 5}},    {{3, 2, 3, 4}, {3, 2, 4, 2}},
                                           {{3, 1, 3, 4}, {3, 2, 4, 2}}, {{2, 3, 4}, {3, 2, 4, 2}},    {{1, 4}, {2, 4, 5}},
                                           {{2, 3, 4}, {1, 4}},          {{1, 4}, {1, 4}},             {{4, 2, 1, 3, 4}, {3, 2, 4, 2}},
                                           {{1, 4}, {3, 2, 4, 2}},       {{3, 2, 3, 4}, {1, 4}}};
    for (size_t k = 0; k < ARRAY_LEN(SHAPES); k++) {
        struct graph *g = start(13);
        int a = try_input(g, (int)SHAPES[k][0][0], SHAPES[k][0] + 1), b = try_input(g, (int)SHAPES[k][1][0], SHAPES[k][1] + 1);
        char what[40];
        snprintf(what, sizeof what, "MatMul %zu", k);
        finish(g, testing_node(g, OP_MATMUL, a, b, -1), k, -1, 1, what);
    }
    for (int k = 0; k < 8; k++) {
        struct graph *g = start(13);
        bool ta = k & 1, tb = k & 2;
        int a = try_input(g, 2, ta ? (int64_t[]){4, 3} : (int64_t[]){3, 4}), b = try_input(g, 2, tb ? (int64_t[]){2, 4} : (int64_t[]){4, 2});
        int c = k & 4 ? try_input(g, DIMS(2)) : try_input(g, DIMS(3, 1)), y = testing_node(g, OP_GEMM, a, b, c);
        graph_set_int(testing_last(g), "transA", ta);
        graph_set_int(testing_last(g), "transB", tb);
        graph_set_float(testing_last(g), "alpha", 0.5f);
        graph_set_float(testing_last(g), "beta", k & 4 ? 1.0f : 2.0f);
        finish(g, y, (uint64_t)k, -1, 1, "Gemm");
    }
}

static void test_einsum(void **state)
{
    (void)state;
    static const char *const EQUATIONS[] = {"bij,bjk->bik", "ij,ij->i", "i,j->ij", "bhid,bhjd->bhij", "ij,jk,kl->il"};
    static const int64_t SIZES[][3][5] = {{{3, 2, 3, 4}, {3, 2, 4, 2}}, {{2, 3, 4}, {2, 3, 4}}, {{1, 3}, {1, 4}},
                                          {{4, 2, 2, 3, 4}, {4, 2, 2, 2, 4}}, {{2, 2, 3}, {2, 3, 4}, {2, 4, 2}}};
    for (size_t k = 0; k < ARRAY_LEN(EQUATIONS); k++) {
        struct graph *g = start(13);
        int in[3] = {-1, -1, -1};
        for (int i = 0; i < 3 && SIZES[k][i][0]; i++) in[i] = try_input(g, (int)SIZES[k][i][0], SIZES[k][i] + 1);
        int y = testing_node(g, OP_EINSUM, in[0], in[1], in[2]);
        graph_set_string(testing_last(g), "equation", EQUATIONS[k]);
        finish(g, y, k, -1, 1, EQUATIONS[k]);
    }
}

/* ---- along axes */

static const enum op_kind REDUCE[] = {OP_REDUCE_SUM, OP_REDUCE_MEAN, OP_REDUCE_SUM_SQUARE, OP_REDUCE_L1, OP_REDUCE_L2, OP_REDUCE_LOG_SUM,
                                      OP_REDUCE_LOG_SUM_EXP, OP_REDUCE_MAX, OP_REDUCE_MIN};

static void test_reduce(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(REDUCE); k++)
        for (uint64_t seed = 0; seed < 4; seed++) {
            struct try_draw d = {seed + 13 * k};
            int64_t dims[4], axes[4];
            int rank = (int)try_int(&d, 1, 4), n = 0;
            struct graph *g = start(11);
            int x = try_input(g, rank, draw_dims(&d, rank, dims)), y = testing_node(g, REDUCE[k], x, -1, -1);
            for (int i = 0; i < rank; i++)
                if (try_unit(&d) < 0.5) axes[n++] = seed & 1 ? i : i - rank;
            if (n) graph_set_ints(testing_last(g), "axes", axes, (size_t)n);
            graph_set_int(testing_last(g), "keepdims", seed & 1);
            finish(g, y, seed, REDUCE[k] == OP_REDUCE_LOG_SUM ? 0.2 : -1, 1.5, op_name(REDUCE[k]));
        }
    for (int k = 0; k < 2; k++) {
        struct graph *g = start(13);
        int x = try_input(g, DIMS(2, 3, 2, 3));
        finish(g, testing_node(g, k ? OP_GLOBAL_MAX_POOL : OP_GLOBAL_AVERAGE_POOL, x, -1, -1), 1, -1, 1, "global pool");
    }
}

static void test_softmax(void **state)
{
    (void)state;
    for (int k = 0; k < 12; k++) {
        struct graph *g = start(k & 2 ? 13 : 11);
        int x = try_input(g, DIMS(2, 3, 4)), y = testing_node(g, k & 1 ? OP_SOFTMAX : OP_LOG_SOFTMAX, x, -1, -1);
        graph_set_int(testing_last(g), "axis", k / 4);
        finish(g, y, (uint64_t)k, -2, 2, "Softmax");
    }
    for (int k = 0; k < 4; k++) {
        struct graph *g = start(13);
        int x = try_input(g, DIMS(2, 3, 4)), y;
        if (k < 2) {
            y = testing_node(g, OP_LP_NORM, x, -1, -1);
            graph_set_int(testing_last(g), "p", k + 1);
            graph_set_int(testing_last(g), "axis", k);
        } else {
            y = testing_node(g, OP_CUMSUM, x, testing_ints(g, 1, (int64_t[]){1}), -1);
            graph_set_int(testing_last(g), "exclusive", k & 1);
            graph_set_int(testing_last(g), "reverse", k & 1);
        }
        finish(g, y, (uint64_t)k, -1, 1, k < 2 ? "LpNormalization" : "CumSum");
    }
}

/* ---- moving */

static void test_shapes(void **state)
{
    (void)state;
    for (int k = 0; k < 9; k++) {
        struct graph *g = start(13);
        int x = try_input(g, DIMS(2, 1, 3, 4)), y = -1;
        switch (k) {
        case 0: y = testing_node(g, OP_RESHAPE, x, testing_ints(g, 2, (int64_t[]){-1, 6}), -1); break;
        case 1: y = testing_node(g, OP_FLATTEN, x, -1, -1); break;
        case 2: y = testing_node(g, OP_SQUEEZE, x, testing_ints(g, 1, (int64_t[]){1}), -1); break;
        case 3: y = testing_node(g, OP_UNSQUEEZE, x, testing_ints(g, 2, (int64_t[]){0, 3}), -1); break;
        case 4: y = testing_node(g, OP_TRANSPOSE, x, -1, -1); break;
        case 5:
            y = testing_node(g, OP_TRANSPOSE, x, -1, -1);
            graph_set_ints(testing_last(g), "perm", (int64_t[]){2, 0, 3, 1}, 4);
            break;
        case 6: y = testing_node(g, OP_EXPAND, x, testing_ints(g, 5, (int64_t[]){3, 2, 2, 1, 4}), -1); break;
        case 7: y = testing_node(g, OP_TILE, x, testing_ints(g, 4, (int64_t[]){2, 3, 1, 2}), -1); break;
        default:
            y = testing_node(g, OP_TRILU, x, -1, -1);
            testing_last(g)->op.opset = 14;
            graph_set_int(testing_last(g), "upper", 0);
            break;
        }
        finish(g, y, (uint64_t)k, -1, 1, "a shape");
    }
}

static void test_parts(void **state)
{
    (void)state;
    struct graph *g = start(13);
    int a = try_input(g, DIMS(2, 3)), b = try_input(g, DIMS(2, 1)), c = try_input(g, DIMS(2, 2)), y = testing_node(g, OP_CONCAT, a, b, c);
    graph_set_int(testing_last(g), "axis", -1);
    finish(g, y, 1, -1, 1, "Concat");
    g = start(13); /* two parts of three are used */
    int x = try_input(g, DIMS(2, 6)), parts[3];
    struct graph_node *n = graph_add_node(g, OP_SPLIT, "split", 2, 3);
    n->op.in[0] = x;
    n->op.in[1] = testing_ints(g, 3, (int64_t[]){2, 2, 2});
    graph_set_int(n, "axis", 1);
    for (int i = 0; i < 3; i++) parts[i] = n->op.out[i] = graph_add_value(g, "part", TENSOR_NONE, NULL);
    finish(g, testing_node(g, OP_MUL, parts[1], parts[2], -1), 2, -1, 1, "Split");
    static const int64_t SLICES[][4] = {{0, 2, 0, 1}, {1, 100, 1, 2}, {-1, -100, 1, -2}, {-2, 100, -1, 1}, {4, 0, 1, -1}};
    for (size_t k = 0; k < ARRAY_LEN(SLICES); k++) {
        g = start(13);
        x = try_input(g, DIMS(3, 5));
        n = graph_add_node(g, OP_SLICE, "slice", 5, 1);
        n->op.in[0] = x;
        for (int i = 0; i < 4; i++) {
            int v = testing_ints(g, 1, &SLICES[k][i]);
            g->nodes[g->n_nodes - 1].op.in[1 + i] = v;
        }
        y = g->nodes[g->n_nodes - 1].op.out[0] = graph_add_value(g, "y", TENSOR_NONE, NULL);
        finish(g, y, k, -1, 1, "Slice");
    }
}

static void test_pad(void **state)
{
    (void)state;
    static const char *const MODES[] = {"constant", "reflect", "edge", "constant"};
    for (int k = 0; k < 4; k++) {
        struct graph *g = start(13);
        int x = try_input(g, DIMS(2, 4, 3));
        int64_t pads[] = {0, 2, 1, k == 0, 3, 0};
        if (k == 3) pads[1] = -1;
        int y = testing_node(g, OP_PAD, x, testing_ints(g, 6, pads), -1);
        graph_set_string(testing_last(g), "mode", MODES[k]);
        finish(g, y, (uint64_t)k, -1, 1, MODES[k]);
    }
}

static void test_gather(void **state)
{
    (void)state;
    struct graph *g = start(18);
    int x = try_input(g, DIMS(4, 3)), ids = testing_ints(g, 3, (int64_t[]){1, -1, 1}), y = testing_node(g, OP_GATHER, x, ids, -1);
    finish(g, y, 1, -1, 1, "Gather");
    g = start(18);
    x = try_input(g, DIMS(2, 4, 3));
    y = testing_node(g, OP_GATHER, x, testing_ints(g, 3, (int64_t[]){0, 2, 2}), -1);
    graph_set_int(testing_last(g), "axis", 1);
    finish(g, y, 1, -1, 1, "Gather along 1");
    g = start(18);
    x = try_input(g, DIMS(5));
    y = testing_node(g, OP_GATHER_ELEMENTS, x, testing_ints(g, 4, (int64_t[]){3, 0, 3, -2}), -1);
    finish(g, y, 1, -1, 1, "GatherElements");
    for (int add = 0; add < 2; add++) {
        g = start(18);
        x = try_input(g, DIMS(5));
        y = testing_node(g, OP_SCATTER_ELEMENTS, x, testing_ints(g, 2, (int64_t[]){3, 0}), try_input(g, DIMS(2)));
        if (add) graph_set_string(testing_last(g), "reduction", "add");
        finish(g, y, 1, -1, 1, "ScatterElements");
    }
    g = start(18);
    struct graph_node *n = graph_add_node(g, OP_TOPK, "top", 2, 2);
    n->op.in[0] = try_input(g, DIMS(2, 5));
    n->op.in[1] = testing_ints(g, 1, (int64_t[]){2});
    for (int i = 0; i < 2; i++) n->op.out[i] = graph_add_value(g, i ? "places" : "top", TENSOR_NONE, NULL);
    finish(g, n->op.out[0], 1, -1, 1, "TopK");
}

static void test_space(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        struct graph *g = start(13);
        int x = k < 2 ? try_input(g, DIMS(2, 8, 2, 3)) : try_input(g, DIMS(2, 2, 4, 6));
        int y = testing_node(g, k < 2 ? OP_DEPTH_TO_SPACE : OP_SPACE_TO_DEPTH, x, -1, -1);
        graph_set_int(testing_last(g), "blocksize", 2);
        if (k == 1) graph_set_string(testing_last(g), "mode", "CRD");
        finish(g, y, (uint64_t)k, -1, 1, "DepthToSpace");
    }
}

static int resize(struct graph *g, int x, const float *scales, int n)
{
    int64_t count = n;
    struct tensor_shape s = tensor_shape_of(1, &count);
    void *p;
    int v, y = graph_add_value(g, "y", TENSOR_NONE, NULL);
    assert_int_equal(graph_add_constant(g, "scales", TENSOR_F32, &s, &v, &p), ERR_OK);
    memcpy(p, scales, (size_t)n * sizeof *scales);
    struct graph_node *r = graph_add_node(g, OP_RESIZE, "resize", 3, 1);
    r->op.in[0] = x;
    r->op.in[2] = v;
    r->op.out[0] = y;
    return y;
}

static void test_resize(void **state)
{
    (void)state;
    static const char *const MODES[] = {"nearest", "linear", "cubic"};
    static const char *const COORDINATES[] = {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"};
    static const float SCALES[][4] = {{1, 1, 2, 2}, {1, 1, 0.5f, 1.5f}, {1, 1, 3, 1}};
    for (int k = 0; k < 36; k++) {
        struct graph *g = start(13);
        int y = resize(g, try_input(g, DIMS(1, 2, 4, 3)), SCALES[k / 12], 4);
        graph_set_string(testing_last(g), "mode", MODES[k % 3]);
        graph_set_string(testing_last(g), "coordinate_transformation_mode", COORDINATES[k / 3 % 4]);
        if (k & 1) graph_set_string(testing_last(g), "nearest_mode", "floor");
        char what[60];
        snprintf(what, sizeof what, "Resize %s %s %d", MODES[k % 3], COORDINATES[k / 3 % 4], k / 12);
        finish(g, y, (uint64_t)k, -1, 1, what);
    }
}

/* ---- windows and norms */

static void draw_window(struct graph_node *n, struct try_draw *d, int axes, int64_t *kernel, bool pool)
{
    int64_t strides[3], dilations[3], pads[6];
    for (int i = 0; i < axes; i++) {
        strides[i] = try_int(d, 1, 3);
        dilations[i] = try_int(d, 1, 2);
        for (int k = 0; k < 2; k++) pads[i + k * axes] = try_int(d, 0, pool ? (kernel[i] - 1) / 2 : 2);
    }
    graph_set_ints(n, "strides", strides, (size_t)axes);
    graph_set_ints(n, "dilations", dilations, (size_t)axes);
    if (try_unit(d) < 0.25)
        graph_set_string(n, "auto_pad", try_unit(d) < 0.5 ? "SAME_UPPER" : "SAME_LOWER");
    else
        graph_set_ints(n, "pads", pads, 2 * (size_t)axes);
}

static void test_conv(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct try_draw d = {seed * 41 + 3};
        bool transpose = seed % 3 == 2;
        int axes = (int)try_int(&d, 1, 3);
        int64_t group = try_int(&d, 1, 3), own = seed % 4 == 0 ? 1 : try_int(&d, 1, 2), out = seed % 4 == 0 ? 1 : try_int(&d, 1, 2),
                x[5] = {try_int(&d, 1, 2), group * own}, w[5], kernel[3];
        w[0] = transpose ? group * own : group * out;
        w[1] = transpose ? out : own;
        for (int i = 0; i < axes; i++) {
            x[2 + i] = try_int(&d, axes == 1 ? 6 : 5, axes == 1 ? 10 : 6);
            kernel[i] = w[2 + i] = try_int(&d, 1, 3);
        }
        struct graph *g = start(13);
        int64_t filters = group * out;
        int in = try_input(g, axes + 2, x), weight = try_input(g, axes + 2, w), bias = seed & 1 ? try_input(g, 1, &filters) : -1;
        int y = testing_node(g, transpose ? OP_CONV_TRANSPOSE : OP_CONV, in, weight, bias);
        struct graph_node *n = testing_last(g);
        graph_set_int(n, "group", group);
        draw_window(n, &d, axes, kernel, false);
        if (transpose && try_unit(&d) < 0.6) graph_set_ints(n, "output_padding", (int64_t[]){try_int(&d, 0, 3), 1, 0}, (size_t)axes);
        char what[60];
        snprintf(what, sizeof what, "%s %u", transpose ? "ConvTranspose" : "Conv", (unsigned)seed);
        finish(g, y, seed, -1, 1, what);
    }
}

static void test_pool(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 24; seed++) {
        struct try_draw d = {seed * 29 + 1};
        int axes = (int)try_int(&d, 1, 3);
        int64_t x[5] = {try_int(&d, 1, 2), try_int(&d, 1, 3)}, kernel[3];
        for (int i = 0; i < axes; i++) {
            x[2 + i] = try_int(&d, 5, 7);
            kernel[i] = try_int(&d, 1, 3);
        }
        struct graph *g = start(19);
        int y = testing_node(g, seed & 1 ? OP_MAX_POOL : OP_AVERAGE_POOL, try_input(g, axes + 2, x), -1, -1);
        struct graph_node *n = testing_last(g);
        graph_set_ints(n, "kernel_shape", kernel, (size_t)axes);
        draw_window(n, &d, axes, kernel, true);
        graph_set_int(n, "ceil_mode", try_int(&d, 0, 1));
        if (!(seed & 1)) graph_set_int(n, "count_include_pad", try_int(&d, 0, 1));
        char what[60];
        snprintf(what, sizeof what, "%s %u", seed & 1 ? "MaxPool" : "AveragePool", (unsigned)seed);
        finish(g, y, seed, -1, 1, what);
    }
}

static int norm(struct graph *g, enum op_kind kind, const int *in, int n_in, int n_out)
{
    struct graph_node *n = graph_add_node(g, kind, "norm", n_in, n_out);
    size_t at = g->n_nodes - 1;
    for (int i = 0; i < n_in; i++) n->op.in[i] = in[i];
    for (int i = 0; i < n_out; i++) {
        int v = graph_add_value(g, "norm", TENSOR_NONE, NULL);
        g->nodes[at].op.out[i] = v;
    }
    return g->nodes[at].op.out[0];
}

static void test_norm(void **state)
{
    (void)state;
    static const int64_t SHAPES[][5] = {{2, 3, 4}, {3, 3, 2, 5}, {4, 2, 3, 2, 2}, {2, 6, 3}};
    for (int k = 0; k < 16; k++) {
        int shape = k % 4, rank = shape == 0 ? 2 : shape == 3 ? 2 : 3 + (shape == 2);
        int64_t x[5];
        for (int i = 0; i < rank; i++) x[i] = SHAPES[shape][shape == 0 || shape == 3 ? i : i];
        if (shape == 1) x[3] = 5, rank = 4;
        struct graph *g = start(17);
        int64_t c = x[1], tail = x[rank - 1];
        int y = -1, in[5] = {try_input(g, rank, x)};
        struct try_draw d = {(uint64_t)k};
        if (k / 4 == 0 || k / 4 == 1) {
            for (int i = 1; i < 3; i++) in[i] = try_input(g, 1, &c);
            for (int i = 3; i < 5; i++) in[i] = numbers(g, &d, 1, &c);
            for (int64_t i = 0; i < c; i++) ((double *)g->values[in[4]].owned)[i] += 1.5;
            y = k / 4 ? norm(g, OP_BATCH_NORM, in, 5, 1) : norm(g, OP_BATCH_NORM_TRAIN, in, 5, 5);
        } else if (k / 4 == 2) {
            if (rank < 3) {
                graph_free(&g);
                continue;
            }
            for (int i = 1; i < 3; i++) in[i] = try_input(g, 1, &c);
            y = norm(g, OP_INSTANCE_NORM, in, 3, 1);
        } else {
            int axis = k & 1 ? -1 : 1;
            for (int i = 1; i < 3; i++) in[i] = axis < 0 ? try_input(g, 1, &tail) : try_input(g, rank - 1, x + 1);
            y = norm(g, OP_LAYER_NORM, in, k & 2 ? 2 : 3, 1);
            if (k & 2) y = testing_node(g, OP_ADD, y, in[2], -1);
            for (size_t i = 0; i < g->n_nodes; i++)
                if (g->nodes[i].op.kind == OP_LAYER_NORM) graph_set_int(&g->nodes[i], "axis", axis);
        }
        graph_set_float(&g->nodes[0], "epsilon", 1e-2f);
        char what[60];
        snprintf(what, sizeof what, "normalisation %d", k);
        finish(g, y, (uint64_t)k, -1, 1, what);
    }
    for (int size = 2; size < 5; size++) {
        struct graph *g = start(13);
        int y = testing_node(g, OP_LRN, try_input(g, DIMS(2, 5, 2, 2)), -1, -1);
        graph_set_int(testing_last(g), "size", size);
        graph_set_float(testing_last(g), "alpha", 0.5f);
        finish(g, y, 1, -1, 1, "LRN");
    }
}

/* ---- losses, and what is refused */

static void test_cross_entropy(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct graph *g = start(13);
        struct graph_builder b = {.g = g, .name = "loss"};
        struct try_draw d = {7};
        int64_t dims[] = {3, 4, 2}, rank = k & 1 ? 3 : 2;
        int x = try_input(g, (int)rank, dims), y;
        if (k < 2) {
            y = graph_b_cross_entropy(&b, x, numbers(g, &d, (int)rank, dims), 0.1);
        } else {
            int labels = testing_ints(g, k & 1 ? 6 : 3, (int64_t[]){0, 3, -100, 1, 1, 2});
            if (k & 1) labels = testing_node(g, OP_RESHAPE, labels, testing_ints(g, 2, (int64_t[]){3, 2}), -1);
            if (k & 1) g->values[labels].dtype = TENSOR_I64, g->values[labels].shape = tensor_shape_of(2, (int64_t[]){3, 2});
            y = graph_b_cross_entropy_labels(&b, x, labels, 0.1, -100);
        }
        assert_int_equal(b.e, ERR_OK);
        finish(g, y, (uint64_t)k, -1, 1, "cross entropy");
    }
}

static void test_every_operator(void **state)
{
    (void)state;
    int rules = 0, none = 0;
    for (int k = OP_NONE + 1; k < OP_KIND_COUNT; k++) {
        const char *why = graph_backward_why_not((enum op_kind)k);
        if (why && strstr(why, "no rule is written"))
            print_message("# %s: %s\n", op_name((enum op_kind)k), why);
        rules += !why;
        none += why != NULL;
    }
    print_message("# %d operators with a gradient, %d without\n", rules, none);
    assert_true(rules >= 100);
}

static void test_refusals(void **state)
{
    (void)state;
    int grad = 7;
    struct graph *g = start(13), *s = NULL;
    int x = try_input(g, DIMS(2, 3)), y = testing_node(g, OP_REDUCE_PROD, x, -1, -1);
    graph_add_output(g, y);
    assert_int_equal(graph_specialise(g, NULL, T.payer, &s), ERR_OK);
    assert_int_equal(graph_backward(s, s->outputs[0], s->inputs, 1, &grad), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "ReduceProd"));
    assert_int_equal(grad, 7);
    graph_free(&s);
    graph_free(&g);
    g = start(13); /* frozen: nothing is asked of the operator without a rule */
    x = try_input(g, DIMS(2, 3));
    int other = try_input(g, DIMS(1));
    y = testing_node(g, OP_MUL, testing_node(g, OP_REDUCE_PROD, x, -1, -1), other, -1);
    graph_add_output(g, testing_node(g, OP_REDUCE_SUM, y, -1, -1));
    assert_int_equal(graph_specialise(g, NULL, T.payer, &s), ERR_OK);
    assert_int_equal(graph_backward(s, s->outputs[0], &s->inputs[1], 1, &grad), ERR_OK);
    assert_true(grad >= 0);
    assert_int_equal(graph_backward(s, s->inputs[0], &s->inputs[1], 1, &grad), ERR_USAGE);
    assert_int_equal(graph_backward(s, 10000, &s->inputs[1], 1, &grad), ERR_USAGE);
    graph_free(&s);
    graph_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unary, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_binary, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dropout, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cast, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_matmul, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_einsum, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reduce, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_softmax, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_shapes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_parts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pad, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gather, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_space, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_resize, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_conv, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pool, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_norm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cross_entropy, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_operator, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
