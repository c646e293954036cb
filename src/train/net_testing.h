/* Inside train, for tests: small networks made on the spot. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "graph/graph.h"

static inline int test_node(struct graph *g, enum op_kind kind, const char *name, const int *in, int n_in, struct graph_node **ret)
{
    int y = graph_add_value(g, name, TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, kind, name, n_in, 1);
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    n->op.out[0] = y;
    if (ret) *ret = n;
    return y;
}

/* Numbers of -size / 2 to size / 2. */
static inline int test_constant(struct graph *g, const char *name, struct tensor_shape s, float size)
{
    float *f;
    int v;
    assert_int_equal(graph_add_constant(g, name, TENSOR_F32, &s, &v, (void **)&f), ERR_OK);
    for (int64_t i = 0; i < tensor_count(&s); i++) f[i] = ((float)(hash64(&i, sizeof i, 5) >> 40) / (float)(1 << 24) - 0.5f) * size;
    return v;
}

/* Conv 4 x 4 with stride 4 to `channels`, Relu, mean over the picture, Gemm to `classes`; [1, 3, side, side] in. */
static inline struct graph *test_classifier(const char *name, int side, int channels, int classes, bool softmax, struct mem_payer *payer)
{
    struct graph *g = graph_new(name, 13, payer);
    struct graph_node *n;
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 3, side, side}});
    int y = test_node(g, OP_CONV, "conv", (int[]){x, test_constant(g, "conv.weight", (struct tensor_shape){.rank = 4, .dims = {channels, 3, 4, 4}}, 0.8f)}, 2, &n);
    graph_set_ints(n, "strides", (int64_t[]){4, 4}, 2);
    y = test_node(g, OP_RELU, "relu", &y, 1, NULL);
    y = test_node(g, OP_GLOBAL_AVERAGE_POOL, "mean", &y, 1, NULL);
    y = test_node(g, OP_FLATTEN, "flat", &y, 1, NULL);
    int gemm[] = {y, test_constant(g, "fc.weight", (struct tensor_shape){.rank = 2, .dims = {channels, classes}}, 0.7f),
                  test_constant(g, "fc.bias", (struct tensor_shape){.rank = 1, .dims = {classes}}, 0.1f)};
    y = test_node(g, OP_GEMM, "fc", gemm, 3, NULL);
    if (softmax) y = test_node(g, OP_SOFTMAX, "soft", &y, 1, NULL);
    graph_add_output(g, y);
    return g;
}
