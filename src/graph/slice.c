/* Weights that are too large for a window are cut along the output channel.
 *
 * Conv (one group), Gemm and MatMul compute each output channel from its own part of the weight alone; so a node whose weight has more
 * bytes than asked becomes several with a part each, and a Concat of their results. The parts of a row-major [out, in ...] weight are views of
 * the same constant. Parts have 64, 128, 256 ... channels, which keeps the kernels' blocking, so that the numbers stay the same bit for bit.
 *
 * What scales channels is cut along with the weight. Not cut: a node with a fused addition (its other input would have to be cut as well). SPDX-License-Identifier: Apache-2.0 */
#include "graph/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 64 };

/* How the node's weight lies. */
struct cut {
    int64_t channels, per_channel; /* output channels; elements of the weight for each */
    bool rows;                     /* a channel's elements are adjacent */
    int axis;                      /* of the output */
};

/* Nothing of the arena comes in by a post-op. */
static bool only_scales(const struct graph_node *n)
{
    int scales = 0;
    for (int i = 0; i < n->n_post; i++) scales += n->post[i].kind == KERNEL_POST_SCALE;
    return n->op.n_in == n->n_own_in + scales;
}

static bool can_cut(const struct graph *g, const struct graph_node *n, struct cut *ret)
{
    if (n->dead || n->loose || n->op.n_out != 1 || n->n_own_in < 2 || !only_scales(n)) return false;
    if (n->op.in[0] < 0 || n->op.in[1] < 0 || n->op.out[0] < 0) return false; /* of any operator: an absent input */
    const struct graph_value *w = &g->values[n->op.in[1]], *y = &g->values[n->op.out[0]];
    if (!w->constant || w->dtype != TENSOR_F32 || y->shape.bounded || y->is_output) return false;
    int64_t count;
    if (tensor_shape_count(&w->shape, &count) || w->shape.rank < 2) return false;
    switch (n->op.kind) {
    case OP_CONV:
        if (op_attr_int(&n->op, "group", 1) != 1) return false;
        *ret = (struct cut){.channels = w->shape.dims[0], .rows = true, .axis = 1};
        break;
    case OP_GEMM:
        if (op_attr_float(&n->op, "beta", 1) != 1 && n->op.n_in > 2) return false;
        ret->rows = op_attr_int(&n->op, "transB", 0) != 0;
        *ret = (struct cut){.channels = w->shape.dims[ret->rows ? 0 : 1], .rows = ret->rows, .axis = 1};
        break;
    case OP_MATMUL:
        if (w->shape.rank != 2 || y->shape.rank < 2) return false;
        *ret = (struct cut){.channels = w->shape.dims[1], .axis = y->shape.rank - 1};
        break;
    default: return false;
    }
    if (ret->channels < 2 * CHANNELS) return false;
    ret->per_channel = count / ret->channels;
    return n->op.kind != OP_CONV || n->op.n_in < 3 || n->op.in[2] < 0 || g->values[n->op.in[2]].constant != NULL;
}

/* Can the bias be cut along with it: one number per channel, or none at all? */
static bool bias_fits(const struct graph *g, const struct graph_node *n, const struct cut *c)
{
    if (n->n_own_in < 3 || n->op.in[2] < 0) return true;
    const struct graph_value *b = &g->values[n->op.in[2]];
    int64_t count;
    return b->constant && b->dtype == TENSOR_F32 && !tensor_shape_count(&b->shape, &count) && count == c->channels &&
           b->shape.dims[b->shape.rank - 1] == c->channels;
}

/* Channels [from, from + n) of constant `v` as a value of its own. */
static err part_of(struct graph *g, int v, const struct cut *c, int64_t per_channel, bool rows, int64_t from, int64_t n, int *ret)
{
    struct tensor_shape shape = g->values[v].shape;
    shape.dims[rows ? 0 : shape.rank - 1] = n;
    size_t bytes = (size_t)(n * per_channel) * sizeof(float);
    if (rows || per_channel == 1) {
        *ret = graph_add_value(g, g->values[v].name, TENSOR_F32, &shape);
        g->values[*ret].constant = (const float *)g->values[v].constant + from * per_channel;
        g->values[*ret].constant_bytes = bytes;
        g->values[*ret].shared = g->values[v].shared;
        return ERR_OK;
    }
    void *to;
    err e = graph_add_constant(g, g->values[v].name, TENSOR_F32, &shape, ret, &to);
    if (e) return e;
    const float *src = (const float *)g->values[v].constant + from;
    g->values[*ret].shared = g->values[v].shared;
    for (int64_t k = 0; k < per_channel; k++) memcpy((float *)to + k * n, src + k * c->channels, (size_t)n * sizeof(float));
    return ERR_OK;
}

static err add_part(struct graph *g, size_t node, const struct cut *c, int64_t from, int64_t n, int *ret_out)
{
    int w, bias = -1;
    err e = part_of(g, g->nodes[node].op.in[1], c, c->per_channel, c->rows, from, n, &w);
    if (!e && g->nodes[node].n_own_in > 2 && g->nodes[node].op.in[2] >= 0)
        e = part_of(g, g->nodes[node].op.in[2], c, 1, g->values[g->nodes[node].op.in[2]].shape.rank == 1, from, n, &bias);
    int scale[KERNEL_MAX_POST];
    for (int i = 0; i < g->nodes[node].n_post && !e; i++)
        if (g->nodes[node].post[i].kind == KERNEL_POST_SCALE)
            e = part_of(g, g->nodes[node].op.in[g->nodes[node].post[i].input], c, 1, true, from, n, &scale[i]);
    if (e) return e;
    struct tensor_shape shape = g->values[g->nodes[node].op.out[0]].shape;
    shape.dims[c->axis] = n;
    *ret_out = graph_add_value(g, g->values[g->nodes[node].op.out[0]].name, TENSOR_F32, &shape);
    struct graph_node original = g->nodes[node]; /* its arrays stay where they are; the list of nodes may move */
    struct graph_node *x = graph_copy_node(g, &original);
    x->n_own_in = original.n_own_in;
    x->n_post = original.n_post;
    memcpy(x->post, original.post, sizeof x->post);
    x->op.in[0] = original.op.in[0];
    x->op.in[1] = w;
    if (x->op.n_in > 2 && x->n_own_in > 2) x->op.in[2] = bias;
    for (int i = 0; i < x->n_post; i++)
        if (x->post[i].kind == KERNEL_POST_SCALE) x->op.in[x->post[i].input] = scale[i];
    x->op.out[0] = *ret_out;
    return ERR_OK;
}

static err cut_node(struct graph *g, size_t node, const struct cut *c, int64_t step)
{
    int parts = (int)((c->channels + step - 1) / step), *outs = xnewn(int, parts);
    err e = ERR_OK;
    for (int i = 0; i < parts && !e; i++) e = add_part(g, node, c, i * step, MIN(step, c->channels - i * step), &outs[i]);
    if (!e) {
        struct graph_node *join = graph_add_node(g, OP_CONCAT, g->nodes[node].op.name, parts, 1);
        join->op.opset = 13;
        join->n_own_in = parts;
        graph_set_int(join, "axis", c->axis);
        memcpy(join->op.in, outs, (size_t)parts * sizeof *outs);
        join->op.out[0] = g->nodes[node].op.out[0];
        g->nodes[node].dead = true;
    }
    free(outs);
    return e;
}

err graph_slice(struct graph *g, size_t bytes)
{
    size_t n = g->n_nodes;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        struct cut c;
        if (!can_cut(g, &g->nodes[i], &c) || !bias_fits(g, &g->nodes[i], &c)) continue;
        size_t per_channel = (size_t)c.per_channel * sizeof(float);
        if (per_channel * (size_t)c.channels <= bytes) continue;
        int64_t step = CHANNELS;
        while (step * 2 * (int64_t)per_channel <= (int64_t)bytes || step * KERNEL_MAX_IN < c.channels) step *= 2; /* a Concat takes so many */
        if (step >= c.channels) continue;
        err e = cut_node(g, i, &c, step);
        if (e) return e;
        any = true;
    }
    if (!any) return ERR_OK;
    graph_drop_dead(g);
    return graph_sort(g);
}
