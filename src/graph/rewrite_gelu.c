/* Gelu as exporters write it before opset 20: x times 1/2 times 1 + erf(x / sqrt 2), or 1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)), in any order of the
 * product (Hendrycks and Gimpel, 2016). Eight to ten passes over memory become one, and as many in training. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "graph/rewrite.h"

enum { MOST_BURIED = 12 };

/* Nodes that go if the whole is a Gelu. */
struct found {
    int nodes[MOST_BURIED], n;
};

static bool near(float a, float b)
{
    return fabsf(a - b) <= 1e-4f * fabsf(b);
}

/* The node of this kind that alone is read here; noted. */
static const struct graph_node *only(const struct graph_rewriter *r, int value, enum op_kind kind, struct found *f)
{
    int p = graph_rw_only(r, value, kind);
    if (p < 0 || f->n == MOST_BURIED || r->g->nodes[p].n_post) return NULL;
    f->nodes[f->n++] = p;
    return &r->g->nodes[p];
}

/* A node of two operands, one of which is this number: the other, or -1. Of Div and Pow the number must come second. */
static int other_than(const struct graph *g, const struct graph_node *n, float number)
{
    float v;
    bool order = n->op.kind == OP_DIV || n->op.kind == OP_POW;
    for (int i = 1; i >= order; i--)
        if (graph_rw_scalar(g, n->op.in[i], &v) && near(v, number) && graph_rw_is_f32(g, n->op.in[1 - i])) return n->op.in[1 - i];
    return -1;
}

/* Mul(a, b): is one of them `a`? The other, or -1. */
static int partner(const struct graph_node *n, int a)
{
    return n->op.in[0] == a ? n->op.in[1] : n->op.in[1] == a ? n->op.in[0] : -1;
}

static bool is_cube(const struct graph_rewriter *r, int value, int x, struct found *f)
{
    struct found before = *f;
    const struct graph_node *n = only(r, value, OP_POW, f);
    if (n) return other_than(r->g, n, 3) == x;
    *f = before;
    n = only(r, value, OP_MUL, f);
    const struct graph_node *square = n ? only(r, partner(n, x), OP_MUL, f) : NULL;
    return square && square->op.in[0] == x && square->op.in[1] == x;
}

/* sqrt(2 / pi) (x + 0.044715 x^3) */
static bool is_bent(const struct graph_rewriter *r, int value, int x, struct found *f)
{
    const struct graph_node *outer = only(r, value, OP_MUL, f);
    int sum = outer ? other_than(r->g, outer, 0.7978845608f) : -1;
    const struct graph_node *add = sum >= 0 ? only(r, sum, OP_ADD, f) : NULL;
    int rest = add ? partner(add, x) : -1;
    const struct graph_node *scaled = rest >= 0 ? only(r, rest, OP_MUL, f) : NULL;
    int cube = scaled ? other_than(r->g, scaled, 0.044715f) : -1;
    return cube >= 0 && is_cube(r, cube, x, f);
}

static bool is_scaled(const struct graph_rewriter *r, int value, int x, struct found *f)
{
    struct found before = *f;
    const struct graph_node *n = only(r, value, OP_DIV, f);
    if (n) return other_than(r->g, n, 1.41421356f) == x;
    *f = before;
    n = only(r, value, OP_MUL, f);
    return n && other_than(r->g, n, 0.70710678f) == x;
}

/* 1 + erf(...) or 1 + tanh(...) of x: the word of ONNX's `approximate`, or NULL. */
static const char *gate_of(const struct graph_rewriter *r, int value, int x, struct found *f)
{
    const struct graph_node *add = only(r, value, OP_ADD, f);
    int inner = add ? other_than(r->g, add, 1) : -1;
    if (inner < 0) return NULL;
    struct found before = *f;
    const struct graph_node *n = only(r, inner, OP_TANH, f);
    if (n) return is_bent(r, n->op.in[0], x, f) ? "tanh" : NULL;
    *f = before;
    n = only(r, inner, OP_ERF, f);
    return n && is_scaled(r, n->op.in[0], x, f) ? "none" : NULL;
}

/* The product of two values, one of which may be a half of itself: x and the gate. */
static const char *product_of(const struct graph_rewriter *r, int a, int b, int *ret_x, struct found *f)
{
    for (int swap = 0; swap < 2; swap++) {
        struct found trial = *f;
        *ret_x = swap ? b : a;
        const char *how = gate_of(r, swap ? a : b, *ret_x, &trial);
        if (!how) continue;
        *f = trial;
        return how;
    }
    return NULL;
}

static const char *gelu_of(const struct graph_rewriter *r, const struct graph_node *n, int *ret_x, struct found *f)
{
    const struct graph *g = r->g;
    int whole = other_than(g, n, 0.5f);
    if (whole >= 0) { /* (x gate) / 2 */
        const struct graph_node *m = only(r, whole, OP_MUL, f);
        return m ? product_of(r, m->op.in[0], m->op.in[1], ret_x, f) : NULL;
    }
    for (int i = 0; i < 2; i++) { /* (x / 2) gate, x (gate / 2) */
        struct found trial = *f;
        const struct graph_node *m = only(r, n->op.in[i], OP_MUL, &trial);
        int inner = m ? other_than(g, m, 0.5f) : -1;
        const char *how = inner >= 0 ? product_of(r, inner, n->op.in[1 - i], ret_x, &trial) : NULL;
        if (!how) continue;
        *f = trial;
        return how;
    }
    return NULL;
}

int graph_rule_gelu(struct graph_rewriter *r, int node)
{
    struct graph_node *n = &r->g->nodes[node];
    struct found f = {.n = 0};
    int x = -1;
    if (n->op.kind != OP_MUL || n->n_post || !graph_rw_is_f32(r->g, n->op.out[0])) return 0;
    const char *how = gelu_of(r, n, &x, &f);
    if (!how || !tensor_shape_equal(&r->g->values[x].shape, &r->g->values[n->op.out[0]].shape)) return 0;
    while (n->op.n_attrs) graph_rw_drop_attr(n, n->op.attrs[0].name);
    n->op.kind = OP_GELU;
    n->op.opset = 20;
    n->op.in[0] = x;
    n->op.n_in = n->n_own_in = 1;
    graph_set_string(n, "approximate", how);
    graph_rw_touch(r, node);
    for (int i = 0; i < f.n; i++) {
        r->g->nodes[f.nodes[i]].dead = true;
        graph_rw_touch(r, f.nodes[i]);
    }
    return 1;
}
