/* Gradients of normalisations. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "graph/backward_inside.h"

/* [C] as [C, 1, 1 ...], to be broadcast over x. */
static int per_channel(struct graph_backward *w, int v, int rank)
{
    struct tensor_shape s = {.rank = rank - 1};
    for (int i = 0; i < s.rank; i++) s.dims[i] = i ? 1 : bw_shape(w, v)->dims[0];
    return graph_b_reshape(&w->b, v, &s);
}

static int sum_channels(struct graph_backward *w, int v)
{
    int64_t axes[TENSOR_MAX_RANK];
    int n = 0, rank = bw_shape(w, v)->rank;
    for (int i = 0; i < rank; i++)
        if (i != 1) axes[n++] = i;
    return graph_b_reduce(&w->b, OP_REDUCE_SUM, v, axes, n, false);
}

/* With frozen statistics: an affine map per channel. */
void bw_batch_norm(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int x = n->op.in[0], dy = bw_grad(w, n, 0), rank = bw_shape(w, x)->rank;
    if (rank < 2 || bw_wants(w, n, 3) || bw_wants(w, n, 4)) {
        bw_cannot(w, rank < 2 ? "x has one axis" : "its statistics are to be learnt");
        return;
    }
    int epsilon = graph_b_number(b, bw_dtype(w, x), (double)op_attr_float(&n->op, "epsilon", 1e-5f));
    int inverse = graph_b1(b, OP_RECIPROCAL, graph_b1(b, OP_SQRT, graph_b2(b, OP_ADD, n->op.in[4], epsilon)));
    if (bw_wants(w, n, 0))
        bw_give(w, n, 0, graph_b2(b, OP_MUL, dy, per_channel(w, graph_b2(b, OP_MUL, n->op.in[1], inverse), rank)));
    if (bw_wants(w, n, 1)) {
        int centred = graph_b2(b, OP_SUB, x, per_channel(w, n->op.in[3], rank));
        bw_give(w, n, 1, graph_b2(b, OP_MUL, sum_channels(w, graph_b2(b, OP_MUL, dy, centred)), inverse));
    }
    if (bw_wants(w, n, 2)) bw_give(w, n, 2, sum_channels(w, dy));
}

static void give_three(struct graph_backward *w, const struct graph_node *n, int dx)
{
    for (int i = 0; i < 3; i++) bw_give(w, n, i, graph_b_output(&w->b, dx, i));
}

void bw_batch_norm_train(struct graph_backward *w, const struct graph_node *n)
{
    if (n->op.n_out < 3 || n->op.out[1] < 0 || n->op.out[2] < 0) {
        bw_cannot(w, "the batch's mean and variance are not among its outputs");
        return;
    }
    int in[] = {bw_grad(w, n, 0), n->op.in[0], n->op.in[1], n->op.out[1], n->op.out[2]};
    struct graph_node *d = graph_b_open(&w->b, OP_BATCH_NORM_GRAD, in, 5, 3);
    bw_copy_attr(d, n, "epsilon");
    give_three(w, n, graph_b_close(&w->b, d));
}

void bw_instance_norm(struct graph_backward *w, const struct graph_node *n)
{
    int in[] = {bw_grad(w, n, 0), n->op.in[0], n->op.in[1]};
    struct graph_node *d = graph_b_open(&w->b, OP_INSTANCE_NORM_GRAD, in, 3, 3);
    bw_copy_attr(d, n, "epsilon");
    give_three(w, n, graph_b_close(&w->b, d));
}

void bw_layer_norm(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    struct tensor_shape x = *bw_shape(w, n->op.in[0]), tail = {.rank = 0};
    int axis = bw_axis(w, n, -1, x.rank);
    for (int i = axis; i < x.rank; i++) tail.dims[tail.rank++] = x.dims[i];
    int in[] = {bw_grad(w, n, 0), n->op.in[0], graph_b_expand(b, n->op.in[1], &tail)};
    struct graph_node *d = graph_b_open(b, OP_LAYER_NORM_GRAD, in, 3, 3);
    bw_copy_attr(d, n, "epsilon");
    graph_set_int(d, "axis", axis);
    int dx = graph_b_close(b, d), dscale = graph_b_output(b, dx, 1), dbias = graph_b_output(b, dx, 2);
    bw_give(w, n, 0, dx);
    bw_give_reduced(w, n, 1, dscale);
    bw_give_reduced(w, n, 2, dbias);
}

/* The mean over a window of channels, as an average over [1, C, places]. */
static int window_mean(struct graph_backward *w, int v, int64_t size, bool back)
{
    struct graph_builder *b = &w->b;
    struct tensor_shape s = *bw_shape(w, v), flat = {.rank = 4, .dims = {s.dims[0], 1, s.dims[1], 1}};
    for (int i = 2; i < s.rank; i++) flat.dims[3] *= s.dims[i];
    int64_t before = (size - 1) / 2, after = size - 1 - before, kernel[] = {size, 1}, pads[] = {back ? after : before, 0, back ? before : after, 0};
    v = graph_b_reshape(b, v, &flat);
    struct graph_node *p = graph_b_open(b, OP_AVERAGE_POOL, &v, 1, 1);
    graph_set_ints(p, "kernel_shape", kernel, 2);
    graph_set_ints(p, "pads", pads, 4);
    graph_set_int(p, "count_include_pad", 1);
    return graph_b_reshape(b, graph_b_close(b, p), &s);
}

/* y = x S^-beta, S = bias + alpha mean of x^2 over the window: dx = dy S^-beta - 2 alpha beta x mean'(dy x S^(-beta - 1)) */
void bw_lrn(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int x = n->op.in[0], dy = bw_grad(w, n, 0);
    double alpha = (double)op_attr_float(&n->op, "alpha", 1e-4f), beta = (double)op_attr_float(&n->op, "beta", 0.75f);
    int64_t size = op_attr_int(&n->op, "size", 1);
    int mean = graph_b_scale(b, window_mean(w, graph_b2(b, OP_MUL, x, x), size, false), alpha);
    int sum = graph_b2(b, OP_ADD, mean, graph_b_number(b, bw_dtype(w, x), (double)op_attr_float(&n->op, "bias", 1)));
    int direct = graph_b2(b, OP_MUL, dy, graph_b2(b, OP_POW, sum, graph_b_number(b, bw_dtype(w, x), -beta)));
    int across = graph_b2(b, OP_MUL, x, window_mean(w, graph_b2(b, OP_DIV, graph_b2(b, OP_MUL, direct, x), sum), size, true));
    bw_give(w, n, 0, graph_b2(b, OP_SUB, direct, graph_b_scale(b, across, 2 * alpha * beta)));
}
