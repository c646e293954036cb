/* Gradients of reductions, and of what works along axes. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "graph/backward_inside.h"

/* The reduced axes of a Reduce* or global pooling. */
static int reduced_axes(struct graph_backward *w, const struct graph_node *n, int64_t *ret)
{
    struct op_info in[KERNEL_MAX_IN];
    int rank = bw_shape(w, n->op.in[0])->rank, count = 0;
    if (w->b.e) return 0;
    if (n->op.kind == OP_GLOBAL_AVERAGE_POOL || n->op.kind == OP_GLOBAL_MAX_POOL) {
        for (int i = 2; i < rank; i++) ret[count++] = i;
        return count;
    }
    graph_node_infos(w->b.g, n, in);
    count = op_axes(&n->op, bw_in(n, 1) >= 0 ? &in[1] : NULL, rank, ret);
    if (count < 0) w->b.e = (err)count;
    if (count == 0 && !op_attr_int(&n->op, "noop_with_empty_axes", 0))
        for (; count < rank; count++) ret[count] = count;
    return MAX(count, 0);
}

static struct tensor_shape kept(struct graph_backward *w, const struct graph_node *n)
{
    int64_t axes[TENSOR_MAX_RANK];
    struct tensor_shape s = *bw_shape(w, n->op.in[0]);
    int count = reduced_axes(w, n, axes);
    for (int i = 0; i < count; i++) s.dims[axes[i]] = 1;
    return s;
}

/* `v` (dy, or y) with the reduced axes as 1. */
static int spread(struct graph_backward *w, const struct graph_node *n, int v)
{
    struct tensor_shape s = kept(w, n);
    return graph_b_reshape(&w->b, v, &s);
}

static void give_expanded(struct graph_backward *w, const struct graph_node *n, int v)
{
    struct tensor_shape s = *bw_shape(w, n->op.in[0]);
    bw_give(w, n, 0, graph_b_expand(&w->b, v, &s));
}

static double share(struct graph_backward *w, const struct graph_node *n)
{
    int64_t in = tensor_count(bw_shape(w, n->op.in[0])), out = tensor_count(bw_shape(w, n->op.out[0]));
    return in > 0 ? (double)out / (double)in : 1;
}

void bw_reduce_sum(struct graph_backward *w, const struct graph_node *n)
{
    give_expanded(w, n, spread(w, n, bw_grad(w, n, 0)));
}

void bw_reduce_mean(struct graph_backward *w, const struct graph_node *n)
{
    give_expanded(w, n, spread(w, n, graph_b_scale(&w->b, bw_grad(w, n, 0), share(w, n))));
}

void bw_reduce_square(struct graph_backward *w, const struct graph_node *n)
{
    int twice = graph_b_scale(&w->b, spread(w, n, bw_grad(w, n, 0)), 2);
    bw_give(w, n, 0, graph_b2(&w->b, OP_MUL, n->op.in[0], twice));
}

void bw_reduce_l1(struct graph_backward *w, const struct graph_node *n)
{
    int sign = graph_b1(&w->b, OP_SIGN, n->op.in[0]);
    bw_give(w, n, 0, graph_b2(&w->b, OP_MUL, sign, spread(w, n, bw_grad(w, n, 0))));
}

/* x / y, and 0 where all of x is 0. */
void bw_reduce_l2(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    enum tensor_dtype dtype = bw_dtype(w, n->op.out[0]);
    int zero = graph_b_number(b, dtype, 0), y = n->op.out[0], none = graph_b2(b, OP_EQUAL, y, zero);
    int each = graph_b2(b, OP_DIV, bw_grad(w, n, 0), graph_b3(b, OP_WHERE, none, graph_b_number(b, dtype, 1), y));
    bw_give(w, n, 0, graph_b2(b, OP_MUL, n->op.in[0], spread(w, n, each)));
}

/* y = log(sum x): 1 / sum x = exp(-y) */
void bw_reduce_log_sum(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int each = graph_b1(b, OP_EXP, graph_b1(b, OP_NEG, n->op.out[0]));
    give_expanded(w, n, spread(w, n, graph_b2(b, OP_MUL, bw_grad(w, n, 0), each)));
}

void bw_reduce_log_sum_exp(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int p = graph_b1(b, OP_EXP, graph_b2(b, OP_SUB, n->op.in[0], spread(w, n, n->op.out[0])));
    bw_give(w, n, 0, graph_b2(b, OP_MUL, p, spread(w, n, bw_grad(w, n, 0))));
}

/* Equal extremes share (as torch.amax). */
void bw_reduce_extreme(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int64_t axes[TENSOR_MAX_RANK];
    int count = reduced_axes(w, n, axes);
    struct graph_node *c = graph_b_open(b, OP_CAST, (int[]){graph_b2(b, OP_EQUAL, n->op.in[0], spread(w, n, n->op.out[0]))}, 1, 1);
    graph_set_int(c, "to", bw_dtype(w, n->op.in[0]));
    int mask = graph_b_close(b, c), many = graph_b_reduce(b, OP_REDUCE_SUM, mask, axes, count, true);
    bw_give(w, n, 0, graph_b2(b, OP_MUL, mask, graph_b2(b, OP_DIV, spread(w, n, bw_grad(w, n, 0)), many)));
}

void bw_global_average(struct graph_backward *w, const struct graph_node *n)
{
    bw_reduce_mean(w, n);
}

void bw_global_max(struct graph_backward *w, const struct graph_node *n)
{
    bw_reduce_extreme(w, n);
}

/* Before opset 13 all axes from `axis` on are one. */
void bw_softmax(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    struct tensor_shape s = *bw_shape(w, n->op.out[0]);
    bool old = n->op.opset < 13;
    int axis = bw_axis(w, n, old ? 1 : -1, s.rank), in[] = {bw_grad(w, n, 0), n->op.out[0]};
    if (w->b.e) return;
    if (old) {
        struct tensor_shape flat = {.rank = 2, .dims = {1, 1}};
        for (int i = 0; i < s.rank; i++) flat.dims[i >= axis] *= s.dims[i];
        for (int i = 0; i < 2; i++) in[i] = graph_b_reshape(b, in[i], &flat);
        axis = 1;
    }
    struct graph_node *d = graph_b_open(b, OP_SOFTMAX_GRAD, in, 2, 1);
    graph_set_string(d, "of", op_name(n->op.kind));
    graph_set_int(d, "axis", axis);
    bw_give(w, n, 0, graph_b_reshape(b, graph_b_close(b, d), &s));
}

/* y = x / |x|: dx = (dy - y sum(dy y)) / |x| for p = 2; sign(x) instead of y for p = 1. */
void bw_lp_norm(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int x = n->op.in[0], y = n->op.out[0], dy = bw_grad(w, n, 0);
    bool one = op_attr_int(&n->op, "p", 2) == 1;
    int64_t axis = bw_axis(w, n, -1, bw_shape(w, x)->rank);
    int along = graph_b_reduce(b, OP_REDUCE_SUM, graph_b2(b, OP_MUL, dy, y), &axis, 1, true);
    int length = graph_b_reduce(b, one ? OP_REDUCE_L1 : OP_REDUCE_L2, x, &axis, 1, true);
    int direction = one ? graph_b1(b, OP_SIGN, x) : y;
    int across = graph_b2(b, OP_SUB, dy, graph_b2(b, OP_MUL, direction, along));
    bw_give(w, n, 0, graph_b2(b, OP_DIV, across, length));
}

/* The same from the other end. */
void bw_cumsum(struct graph_backward *w, const struct graph_node *n)
{
    int in[] = {bw_grad(w, n, 0), n->op.in[1]};
    struct graph_node *c = graph_b_open(&w->b, OP_CUMSUM, in, 2, 1);
    bw_copy_attr(c, n, "exclusive");
    graph_set_int(c, "reverse", !op_attr_int(&n->op, "reverse", 0));
    bw_give(w, n, 0, graph_b_close(&w->b, c));
}
