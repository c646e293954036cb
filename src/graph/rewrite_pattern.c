/* Activations that exporters write as several operators. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "graph/rewrite.h"

static void become_unary(struct graph_node *n, enum op_kind kind, int x, int opset)
{
    while (n->op.n_attrs) graph_rw_drop_attr(n, n->op.attrs[0].name);
    n->op.kind = kind;
    n->op.opset = opset;
    n->op.in[0] = x;
    n->op.n_in = n->n_own_in = 1;
}

static void bury(struct graph_rewriter *r, int node)
{
    r->g->nodes[node].dead = true;
    graph_rw_touch(r, node);
}

static bool near(float a, float b)
{
    return fabsf(a - b) <= 1e-6f * MAX(fabsf(b), 1.0f);
}

/* A binary node with a constant of one number: the other operand, or -1. For Sub and Div the number must come
 * second. */
static int with_number(const struct graph *g, const struct graph_node *n, enum op_kind kind, float *ret)
{
    if (n->op.kind != kind || n->op.n_in != 2 || n->n_post) return -1;
    for (int i = 1; i >= 0; i--) {
        int x = n->op.in[1 - i];
        if (!graph_rw_is_f32(g, x) || !graph_rw_scalar(g, n->op.in[i], ret)) continue;
        if (i == 0 && (kind == OP_SUB || kind == OP_DIV)) return -1;
        return tensor_shape_equal(&g->values[x].shape, &g->values[n->op.out[0]].shape) ? x : -1;
    }
    return -1;
}

/* x * Sigmoid(x) -> Silu(x). Condition: the Sigmoid has one reader. */
int graph_rule_silu(struct graph_rewriter *r, int node)
{
    struct graph_node *n = &r->g->nodes[node];
    if (n->op.kind != OP_MUL || !graph_rw_is_f32(r->g, n->op.out[0])) return 0;
    for (int i = 0; i < 2; i++) {
        int s = graph_rw_only(r, n->op.in[i], OP_SIGMOID), x = n->op.in[1 - i];
        if (s < 0 || r->g->nodes[s].op.in[0] != x) continue;
        become_unary(n, OP_SILU, x, 1);
        graph_rw_touch(r, node);
        bury(r, s);
        return 1;
    }
    return 0;
}

/* Bounds of a Clip, constants or attributes. False if they are not known. */
static bool clip_bounds(const struct graph *g, const struct graph_node *n, float *lo, float *hi)
{
    *lo = op_attr_float(&n->op, "min", -INFINITY);
    *hi = op_attr_float(&n->op, "max", INFINITY);
    if (n->op.n_in > 1 && n->op.in[1] >= 0 && !graph_rw_scalar(g, n->op.in[1], lo)) return false;
    return n->op.n_in < 3 || n->op.in[2] < 0 || graph_rw_scalar(g, n->op.in[2], hi);
}

/* Clip(x + 3, 0, 6) with one reader each: x, and the two nodes; else -1. */
static int clipped_sum(const struct graph_rewriter *r, int value, int *ret_clip, int *ret_add)
{
    float lo, hi, three;
    *ret_clip = graph_rw_only(r, value, OP_CLIP);
    if (*ret_clip < 0 || !clip_bounds(r->g, &r->g->nodes[*ret_clip], &lo, &hi) || lo != 0 || hi != 6) return -1;
    *ret_add = graph_rw_only(r, r->g->nodes[*ret_clip].op.in[0], OP_ADD);
    if (*ret_add < 0) return -1;
    int x = with_number(r->g, &r->g->nodes[*ret_add], OP_ADD, &three);
    return x >= 0 && three == 3 ? x : -1;
}

/* What the node divides by 6, or -1. */
static int sixth_of(const struct graph *g, const struct graph_node *n)
{
    float v;
    int x = with_number(g, n, OP_DIV, &v);
    if (x >= 0 && v == 6) return x;
    x = with_number(g, n, OP_MUL, &v);
    return x >= 0 && near(v, 1.0f / 6) ? x : -1;
}

/* Clip(x + 3, 0, 6) / 6 -> HardSigmoid(x, 1/6, 1/2). */
int graph_rule_hard_sigmoid(struct graph_rewriter *r, int node)
{
    struct graph_node *n = &r->g->nodes[node];
    int clip, add, y = sixth_of(r->g, n), x = y < 0 ? -1 : clipped_sum(r, y, &clip, &add);
    if (x < 0) return 0;
    become_unary(n, OP_HARD_SIGMOID, x, 6);
    graph_set_float(n, "alpha", 1.0f / 6);
    graph_set_float(n, "beta", 0.5f);
    graph_rw_touch(r, node);
    bury(r, clip);
    bury(r, add);
    return 1;
}

/* x * HardSigmoid(x, 1/6, 1/2), or x * Clip(x + 3, 0, 6) / 6 -> HardSwish(x). */
int graph_rule_hard_swish(struct graph_rewriter *r, int node)
{
    struct graph *g = r->g;
    struct graph_node *n = &g->nodes[node];
    int y = sixth_of(g, n), m = y < 0 ? -1 : graph_rw_only(r, y, OP_MUL);
    for (int i = 0; i < 2 && m >= 0; i++) {
        int clip, add, x = clipped_sum(r, g->nodes[m].op.in[i], &clip, &add);
        if (x < 0 || x != g->nodes[m].op.in[1 - i]) continue;
        become_unary(n, OP_HARD_SWISH, x, 14);
        graph_rw_touch(r, node);
        bury(r, m);
        bury(r, clip);
        bury(r, add);
        return 1;
    }
    for (int i = 0; i < 2 && n->op.kind == OP_MUL && graph_rw_is_f32(g, n->op.out[0]); i++) {
        int s = graph_rw_only(r, n->op.in[i], OP_HARD_SIGMOID), x = n->op.in[1 - i];
        if (s < 0 || g->nodes[s].op.in[0] != x) continue;
        if (!near(op_attr_float(&g->nodes[s].op, "alpha", 0.2f), 1.0f / 6) ||
            op_attr_float(&g->nodes[s].op, "beta", 0.5f) != 0.5f)
            continue;
        become_unary(n, OP_HARD_SWISH, x, 14);
        graph_rw_touch(r, node);
        bury(r, s);
        return 1;
    }
    return 0;
}

/* Min(Max(x, lo), hi), Max(Min(x, hi), lo), Min(Relu(x), hi) -> Clip(x, lo, hi). Condition: numbers with lo <= hi;
 * one reader. */
int graph_rule_clip(struct graph_rewriter *r, int node)
{
    struct graph *g = r->g;
    enum op_kind kind = g->nodes[node].op.kind, other = kind == OP_MIN ? OP_MAX : OP_MIN;
    struct tensor_shape scalar = {0};
    float bound[2]; /* of the node, of its producer */
    int v[2];
    float *p[2];
    if (kind != OP_MIN && kind != OP_MAX) return 0;
    int y = with_number(g, &g->nodes[node], kind, &bound[0]), q = y < 0 ? -1 : graph_rw_only(r, y, other), x = -1;
    if (q >= 0) {
        x = with_number(g, &g->nodes[q], other, &bound[1]);
    } else if (y >= 0 && kind == OP_MIN && (q = graph_rw_only(r, y, OP_RELU)) >= 0) {
        x = g->nodes[q].op.in[0];
        bound[1] = 0;
    }
    float lo = kind == OP_MIN ? bound[1] : bound[0], hi = kind == OP_MIN ? bound[0] : bound[1];
    if (x < 0 || !(lo <= hi)) return 0;
    err e = graph_rw_add_floats(g, "min", &scalar, &v[0], &p[0]);
    if (!e) e = graph_rw_add_floats(g, "max", &scalar, &v[1], &p[1]);
    if (e) return e;
    *p[0] = lo;
    *p[1] = hi;
    struct graph_node *n = &g->nodes[node];
    become_unary(n, OP_CLIP, x, 13);
    graph_rw_set_input(n, 2, v[1]);
    n->op.in[1] = v[0];
    graph_rw_touch(r, node);
    bury(r, q);
    return 1;
}
