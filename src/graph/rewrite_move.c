/* Rewrites that move nothing but data: paddings into windows, transposes that cancel, chains of reshapes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "graph/rewrite.h"

/* ---- Pad */

/* Amounts of a Pad with zeros: *ret has 2 * rank numbers. False if it is not one, or they are not known. */
static bool zero_pads(const struct graph *g, const struct graph_node *n, int rank, int64_t *ret)
{
    const int64_t *list = NULL;
    float value = op_attr_float(&n->op, "value", 0);
    if (strcmp(op_attr_string(&n->op, "mode", "constant"), "constant") != 0) return false;
    if (n->op.n_in > 1) {
        const struct graph_value *v = n->op.in[1] >= 0 ? &g->values[n->op.in[1]] : NULL;
        if (!v || !v->constant || v->dtype != TENSOR_I64 || v->constant_bytes != 16 * (size_t)rank) return false;
        memcpy(ret, v->constant, 16 * (size_t)rank);
        if (n->op.n_in > 2 && n->op.in[2] >= 0 && !graph_rw_scalar(g, n->op.in[2], &value)) return false;
        if (n->op.n_in > 3) return false;
    } else {
        if (op_attr_ints(&n->op, "pads", &list) != 2 * (size_t)rank) return false;
        memcpy(ret, list, 16 * (size_t)rank);
    }
    for (int i = 0; i < 2 * rank; i++)
        if (ret[i] < 0 || ret[i] > INT32_MAX || (i % rank < 2 && ret[i])) return false;
    return value == 0;
}

static bool never_negative(const struct graph_rewriter *r, int value)
{
    int p = value >= 0 && (size_t)value < r->n_values ? r->producer[value] : -1;
    if (p < 0) return false;
    enum op_kind k = r->g->nodes[p].op.kind;
    return k == OP_RELU || k == OP_SIGMOID || k == OP_ABS;
}

static bool any(const int64_t *p, int n)
{
    for (int i = 0; i < n; i++)
        if (p[i]) return true;
    return false;
}

/* May the window see zeros at its border in place of what Pad wrote there? */
static bool same_with_border(const struct graph_rewriter *r, struct graph_node *n, const struct op_window *w,
                             const int64_t *pads, int x)
{
    if (n->op.kind == OP_CONV) return true;
    if (op_attr_int(&n->op, "ceil_mode", 0)) return false;
    for (int i = 0; i < w->n; i++) /* a window of nothing but border is something else in a pool */
        if (w->pad_begin[i] + pads[i + 2] >= w->kernel[i] || w->pad_end[i] + pads[w->n + 2 + i + 2] >= w->kernel[i])
            return false;
    if (n->op.kind == OP_MAX_POOL)
        return n->op.n_out == 1 && never_negative(r, x); /* its border is -inf, Pad's is 0 */
    return op_attr_int(&n->op, "count_include_pad", 0) || (!any(w->pad_begin, w->n) && !any(w->pad_end, w->n));
}

/* Conv | AveragePool | MaxPool (Pad (x, zeros)) -> with larger pads. Condition: Pad has one reader; spatial axes
 * only; explicit padding. AveragePool: the zeros were counted, so they are from now on; MaxPool: x is never
 * negative. */
int graph_rule_pad_into_window(struct graph_rewriter *r, int node)
{
    struct graph *g = r->g;
    struct graph_node *n = &g->nodes[node];
    enum op_kind k = n->op.kind;
    if (k != OP_CONV && k != OP_AVERAGE_POOL && k != OP_MAX_POOL) return 0;
    int p = graph_rw_only(r, n->op.in[0], OP_PAD);
    const char *automatic = op_attr_string(&n->op, "auto_pad", "NOTSET");
    if (p < 0 || (strcmp(automatic, "NOTSET") != 0 && strcmp(automatic, "VALID") != 0)) return 0;
    const struct tensor_shape *xs = &g->values[n->op.in[0]].shape;
    struct op_window w;
    int64_t pads[2 * TENSOR_MAX_RANK], sum[2 * TENSOR_MAX_RANK];
    int x = g->nodes[p].op.in[0];
    if (xs->bounded || !zero_pads(g, &g->nodes[p], xs->rank, pads)) return 0;
    if (op_window(&n->op, xs, k == OP_CONV ? &g->values[n->op.in[1]].shape : NULL, &w) || w.n != xs->rank - 2)
        return 0;
    if (!same_with_border(r, n, &w, pads, x)) return 0;
    for (int i = 0; i < w.n; i++) {
        sum[i] = w.pad_begin[i] + pads[i + 2];
        sum[w.n + i] = w.pad_end[i] + pads[xs->rank + i + 2];
    }
    graph_rw_drop_attr(n, "auto_pad");
    graph_set_ints(n, "pads", sum, 2 * (size_t)w.n);
    if (k == OP_AVERAGE_POOL) graph_set_int(n, "count_include_pad", 1);
    n->op.in[0] = x;
    g->nodes[p].dead = true;
    graph_rw_touch(r, node);
    graph_rw_touch(r, p);
    return 1;
}

/* ---- Transpose */

static bool perm_of(const struct graph *g, const struct graph_node *n, int64_t *ret)
{
    const int64_t *p;
    int rank = g->values[n->op.out[0]].shape.rank;
    size_t count = op_attr_ints(&n->op, "perm", &p);
    for (int i = 0; i < rank; i++) ret[i] = count ? 0 : rank - 1 - i;
    if (count && count != (size_t)rank) return false;
    for (size_t i = 0; i < count; i++) {
        if (p[i] < 0 || p[i] >= rank) return false;
        ret[i] = p[i];
    }
    return true;
}

/* Transpose(Transpose(x)) -> one, or x itself; a Transpose that changes nothing goes. */
int graph_rule_transposes(struct graph_rewriter *r, int node)
{
    struct graph *g = r->g;
    struct graph_node *n = &g->nodes[node];
    int64_t outer[TENSOR_MAX_RANK], inner[TENSOR_MAX_RANK], both[TENSOR_MAX_RANK];
    if (n->op.kind != OP_TRANSPOSE || !perm_of(g, n, outer)) return 0;
    int rank = g->values[n->op.out[0]].shape.rank, p = graph_rw_producer(r, n->op.in[0]);
    bool merge = p >= 0 && g->nodes[p].op.kind == OP_TRANSPOSE && perm_of(g, &g->nodes[p], inner), same = true;
    for (int i = 0; i < rank; i++) {
        both[i] = merge ? inner[outer[i]] : outer[i];
        same &= both[i] == i;
    }
    if (same && graph_rw_bypass(r, node, merge ? g->nodes[p].op.in[0] : n->op.in[0])) {
        if (merge) graph_rw_touch(r, p);
        return 1;
    }
    if (!merge) return 0;
    n->op.in[0] = g->nodes[p].op.in[0];
    graph_set_ints(n, "perm", both, (size_t)rank);
    graph_rw_touch(r, node);
    graph_rw_touch(r, p);
    return 1;
}

/* ---- Reshape */

static bool reshapes(enum op_kind k)
{
    return k == OP_RESHAPE || k == OP_FLATTEN || k == OP_SQUEEZE || k == OP_UNSQUEEZE;
}

static bool plain(const struct tensor_shape *s)
{
    for (int i = 0; i < s->rank; i++)
        if (s->dims[i] < 1) return false;
    return !s->bounded;
}

/* Reshape | Flatten | Squeeze | Unsqueeze of another of them -> one Reshape to the last shape; one that changes
 * nothing goes. */
int graph_rule_reshapes(struct graph_rewriter *r, int node)
{
    struct graph *g = r->g;
    struct graph_node *n = &g->nodes[node];
    if (!reshapes(n->op.kind)) return 0;
    struct tensor_shape shape = g->values[n->op.out[0]].shape;
    if (!plain(&shape) || !plain(&g->values[n->op.in[0]].shape)) return 0;
    if (tensor_shape_equal(&shape, &g->values[n->op.in[0]].shape) && graph_rw_bypass(r, node, n->op.in[0])) return 1;
    int p = graph_rw_producer(r, n->op.in[0]), v;
    if (p < 0 || !reshapes(g->nodes[p].op.kind) || !plain(&g->values[g->nodes[p].op.in[0]].shape)) return 0;
    int64_t rank = shape.rank;
    struct tensor_shape s = tensor_shape_of(1, &rank);
    void *sizes;
    err e = graph_add_constant(g, "shape", TENSOR_I64, &s, &v, &sizes);
    if (e) return e;
    memcpy(sizes, shape.dims, (size_t)rank * sizeof *shape.dims);
    n->op.kind = OP_RESHAPE;
    n->op.opset = 13;
    while (n->op.n_attrs) graph_rw_drop_attr(n, n->op.attrs[0].name);
    n->op.in[0] = g->nodes[p].op.in[0];
    graph_rw_set_input(n, 1, v);
    graph_rw_touch(r, node);
    graph_rw_touch(r, p);
    return 1;
}
