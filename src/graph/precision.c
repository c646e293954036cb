/* Values into bf16.
 *
 * Three kinds of nodes. *Strong* ones gain by themselves: convolutions in one group and products with constant weights above some work. *Weak* ones
 * (depthwise convolutions, pooling, functions of one number, sums, Concat, Resize, moves) gain nothing but the bytes; they take bf16 if all that
 * comes into them is bf16 already and something strong follows. The rest stays f32: softmax, normalisation, decoders of boxes at the end of a
 * detector, where eight bits of significand would move a box by a pixel.
 *
 * A value is bf16 if its producer is strong or weak and chosen, and at least one of its readers is. Readers of the other type get a Cast, one per value. What a
 * strong node adds at its end (KERNEL_POST_ADD) has the type of its result.
 *
 * Invariant: types of graph inputs, graph outputs and constants are as before. SPDX-License-Identifier: Apache-2.0 */
#include "graph/precision.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_FLOPS = 200000 }; /* less takes a microsecond or two, as long as a cast */

enum role { REST = 0, WEAK, STRONG };

struct lowering {
    struct graph *g;
    size_t n_nodes, n_values; /* before anything is added */
    uint8_t *role;            /* per node */
    int *producer;            /* per value: node, or -1 */
    bool *half;               /* per value: becomes bf16 */
    int *cast;                /* per value: the same in the other type, or -1 */
};

static bool plain_float(const struct graph *g, int v)
{
    return v >= 0 && g->values[v].dtype == TENSOR_F32 && !g->values[v].shape.bounded && !g->values[v].loose;
}

static bool flows(const struct graph *g, int v)
{
    return plain_float(g, v) && !g->values[v].constant;
}

static bool has_weights(const struct graph *g, const struct graph_node *n)
{
    if (n->n_own_in < 2 || n->op.n_out != 1 || !flows(g, n->op.in[0]) || !plain_float(g, n->op.in[1]) || !plain_float(g, n->op.out[0])) return false;
    if (n->n_own_in > 2 && n->op.in[2] >= 0 && !g->values[n->op.in[2]].constant) return false;
    return g->values[n->op.in[1]].constant != NULL;
}

/* What gemm.c takes with a packed weight: a transposed A, a factor, a bias that is no row are left to plain C, which mixes no types. */
static bool supported_product(const struct graph *g, const struct graph_node *n)
{
    const struct tensor_shape *x = &g->values[n->op.in[0]].shape, *w = &g->values[n->op.in[1]].shape, *y = &g->values[n->op.out[0]].shape;
    if (n->op.kind == OP_MATMUL) return w->rank == 2 && x->rank >= 2 && y->rank == x->rank;
    if (n->op.kind != OP_GEMM || x->rank != 2 || op_attr_int(&n->op, "transA", 0) || op_attr_float(&n->op, "alpha", 1) != 1) return false;
    if (n->n_own_in < 3 || n->op.in[2] < 0) return true;
    const struct tensor_shape *b = &g->values[n->op.in[2]].shape;
    return op_attr_float(&n->op, "beta", 1) == 1 && tensor_count(b) == y->dims[1] && (b->rank == 1 || (b->rank == 2 && b->dims[0] == 1));
}

static bool convolves(const struct graph_node *n)
{
    return n->op.kind == OP_CONV || n->op.kind == OP_CONV_TRANSPOSE;
}

static bool depthwise(const struct graph *g, const struct graph_node *n)
{
    int64_t groups = op_attr_int(&n->op, "group", 1);
    const struct tensor_shape *x = &g->values[n->op.in[0]].shape, *y = &g->values[n->op.out[0]].shape;
    return n->op.kind == OP_CONV && x->rank == 4 && groups == x->dims[1] && groups == y->dims[1];
}

static int64_t flops_of(const struct graph *g, const struct graph_node *n)
{
    struct op_info in[KERNEL_MAX_IN], out = {g->values[n->op.out[0]].dtype, g->values[n->op.out[0]].shape, NULL};
    graph_node_infos(g, n, in);
    return op_flops(&n->op, in, &out);
}

bool graph_gains_by_bf16(const struct graph *g, const struct graph_node *n)
{
    if (n->dead || n->loose || !has_weights(g, n) || !kernels_fuse_bf16(n->post, n->n_post)) return false;
    if (!(convolves(n) ? g->values[n->op.in[0]].shape.rank == 4 && op_attr_int(&n->op, "group", 1) == 1 : supported_product(g, n))) return false;
    return flops_of(g, n) >= LEAST_FLOPS;
}

/* Operators that have a fast kernel in bf16 beside the f32 one, or only move numbers. */
static bool weak_kind(enum op_kind k)
{
    switch (k) {
    case OP_MAX_POOL: case OP_AVERAGE_POOL: case OP_GLOBAL_AVERAGE_POOL: case OP_GLOBAL_MAX_POOL:
    case OP_RELU: case OP_LEAKY_RELU: case OP_SIGMOID: case OP_TANH: case OP_SILU: case OP_ELU: case OP_GELU: case OP_MISH: case OP_HARD_SWISH:
    case OP_ADD: case OP_MUL: case OP_CONCAT: case OP_RESHAPE: case OP_FLATTEN: case OP_SQUEEZE: case OP_UNSQUEEZE: case OP_TRANSPOSE:
    case OP_SLICE: case OP_SPLIT: case OP_RESIZE: case OP_UPSAMPLE: case OP_DEPTH_TO_SPACE: case OP_IDENTITY: return true;
    default: return false;
    }
}

static int flowing_inputs(const struct graph_node *n)
{
    return n->op.kind == OP_ADD || n->op.kind == OP_MUL ? 2 : n->op.kind == OP_CONCAT ? n->n_own_in : 1;
}

/* Shapes, axes and scales may be beside the numbers; a float constant beside them may not (it would need a rounded copy). */
static bool only_numbers_flow(const struct graph *g, const struct graph_node *n)
{
    for (int i = 0; i < flowing_inputs(n); i++)
        if (!flows(g, n->op.in[i])) return false;
    for (int i = 0; i < n->op.n_out; i++)
        if (n->op.out[i] >= 0 && !plain_float(g, n->op.out[i])) return false;
    return n->n_post == 0;
}

static enum role first_role(const struct graph *g, const struct graph_node *n, bool keep)
{
    if (keep || n->dead || n->loose || n->op.n_in < 1 || n->op.n_out < 1) return REST;
    if (graph_gains_by_bf16(g, n)) return STRONG;
    if (has_weights(g, n) && depthwise(g, n)) return kernels_fuse_bf16(n->post, n->n_post) ? WEAK : REST;
    return weak_kind(n->op.kind) && only_numbers_flow(g, n) ? WEAK : REST;
}

/* Weak nodes that get anything in f32, or that nothing strong follows, stay as they are. */
static void thin_out(struct lowering *l)
{
    struct graph *g = l->g;
    for (size_t i = 0; i < l->n_nodes; i++) {
        const struct graph_node *n = &g->nodes[i];
        for (int k = 0; l->role[i] == WEAK && k < flowing_inputs(n); k++) {
            int from = l->producer[n->op.in[k]];
            if (from < 0 || !l->role[from]) l->role[i] = REST;
        }
    }
    bool *leads = xnewn(bool, l->n_values + 1); /* to something strong, through what is chosen */
    memset(leads, 0, l->n_values);
    for (size_t i = l->n_nodes; i-- > 0;) {
        const struct graph_node *n = &g->nodes[i];
        bool on = l->role[i] == STRONG;
        for (int k = 0; k < n->op.n_out; k++) on |= l->role[i] == WEAK && n->op.out[k] >= 0 && leads[n->op.out[k]];
        if (!on) {
            l->role[i] = REST;
            continue;
        }
        for (int k = 0; k < n->op.n_in; k++)
            if (n->op.in[k] >= 0) leads[n->op.in[k]] = true;
    }
    free(leads);
}

/* A weak node behind one that has just become REST has lost its bf16 input: until nothing changes. */
static void choose_roles(struct lowering *l)
{
    for (size_t changed = 1; changed;) {
        changed = 0;
        uint8_t *before = xnewn(uint8_t, l->n_nodes + 1);
        memcpy(before, l->role, l->n_nodes);
        thin_out(l);
        for (size_t i = 0; i < l->n_nodes; i++) changed += before[i] != l->role[i];
        free(before);
    }
}

/* Does the node read its k-th input in the type of its result (1), in bf16 (2), or in f32 (0)? */
static int reads(const struct lowering *l, size_t node, int k)
{
    const struct graph_node *n = &l->g->nodes[node];
    if (k >= n->n_own_in) return 1;
    return l->role[node] && k < flowing_inputs(n) ? 2 : 0;
}

static void choose_types(struct lowering *l)
{
    struct graph *g = l->g;
    for (size_t i = 0; i < l->n_nodes; i++) {
        const struct graph_node *n = &g->nodes[i];
        for (int k = 0; !n->dead && k < n->op.n_in; k++) {
            int v = n->op.in[k], from = v >= 0 ? l->producer[v] : -1;
            if (from >= 0 && l->role[from] && reads(l, i, k) == 2) l->half[v] = true;
        }
    }
    /* a weak node gives what it takes, whoever reads it */
    for (size_t i = 0; i < l->n_nodes; i++)
        for (int k = 0; l->role[i] == WEAK && !has_weights(g, &g->nodes[i]) && k < g->nodes[i].op.n_out; k++)
            if (g->nodes[i].op.out[k] >= 0) l->half[g->nodes[i].op.out[k]] = true;
}

/* `v` in the wanted type; made at the first time of asking. */
static int as(struct lowering *l, int v, bool half)
{
    struct graph *g = l->g;
    if (l->half[v] == half) return v;
    if (l->cast[v] >= 0) return l->cast[v];
    char *name = xasprintf("%s.%s", g->values[v].name ? g->values[v].name : "value", half ? "bf16" : "f32");
    struct tensor_shape shape = g->values[v].shape;
    int made = graph_add_value(g, name, half ? TENSOR_BF16 : TENSOR_F32, &shape);
    struct graph_node *c = graph_add_node(g, OP_CAST, name, 1, 1);
    free(name);
    c->op.in[0] = v;
    c->op.out[0] = made;
    graph_set_int(c, "to", half ? TENSOR_BF16 : TENSOR_F32);
    return l->cast[v] = made;
}

static void join_up(struct lowering *l)
{
    for (size_t i = 0; i < l->n_nodes; i++) {
        if (l->g->nodes[i].dead) continue;
        int out = l->g->nodes[i].op.n_out > 0 ? l->g->nodes[i].op.out[0] : -1;
        for (int k = 0; k < l->g->nodes[i].op.n_in; k++) {
            int v = l->g->nodes[i].op.in[k], how = reads(l, i, k);
            if (v < 0 || (size_t)v >= l->n_values || !flows(l->g, v)) continue;
            int use = as(l, v, how == 2 || (how == 1 && out >= 0 && l->half[out])); /* may move the nodes */
            l->g->nodes[i].op.in[k] = use;
        }
    }
}

/* An output of the graph keeps its value, and its type: what made it makes another one, and a Cast stands between. */
static void free_outputs(struct lowering *l)
{
    struct graph *g = l->g;
    for (int i = 0; i < g->n_outputs; i++) {
        int v = g->outputs[i], from = l->producer[v];
        if (from < 0 || !l->half[v]) continue;
        struct tensor_shape shape = g->values[v].shape;
        int made = graph_add_value(g, "half", TENSOR_BF16, &shape);
        for (size_t n = 0; n < g->n_nodes; n++) {
            for (int k = 0; k < g->nodes[n].op.n_in; k++)
                if (g->nodes[n].op.in[k] == v) g->nodes[n].op.in[k] = made;
            for (int k = 0; k < g->nodes[n].op.n_out; k++)
                if (g->nodes[n].op.out[k] == v) g->nodes[n].op.out[k] = made;
        }
        struct graph_node *c = graph_add_node(g, OP_CAST, g->values[v].name, 1, 1);
        c->op.in[0] = made;
        c->op.out[0] = v;
        graph_set_int(c, "to", TENSOR_F32);
        l->half[v] = false;
    }
}

err graph_to_bf16(struct graph *g, const bool *keep)
{
    struct lowering l = {.g = g, .n_nodes = g->n_nodes, .n_values = g->n_values};
    l.role = xcalloc(l.n_nodes + 1, 1);
    l.producer = xnewn(int, l.n_values + 1);
    l.half = xcalloc(l.n_values + 1, sizeof *l.half);
    l.cast = xnewn(int, l.n_values + 1);
    for (size_t v = 0; v < l.n_values; v++) l.producer[v] = l.cast[v] = -1;
    for (size_t i = 0; i < l.n_nodes; i++) {
        const struct graph_node *n = &g->nodes[i];
        for (int k = 0; !n->dead && k < n->op.n_out; k++)
            if (n->op.out[k] >= 0) l.producer[n->op.out[k]] = (int)i;
        l.role[i] = (uint8_t)first_role(g, n, keep && keep[i]);
    }
    choose_roles(&l);
    choose_types(&l);
    join_up(&l);
    free_outputs(&l);
    for (size_t v = 0; v < l.n_values; v++)
        if (l.half[v]) g->values[v].dtype = TENSOR_BF16;
    free(l.role);
    free(l.producer);
    free(l.half);
    free(l.cast);
    return graph_sort(g);
}
