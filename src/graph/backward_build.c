/* The builder of backward.h: appending nodes whose shapes are inferred at once.
 *
 * Every node is of opset 13 (Softmax along one axis; axes of reductions as attributes, which the shape rules take in any opset). After a failure nodes
 * are still made, dead ones, so that callers need not look at pointers. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "graph/backward.h"

enum { OPSET = 13 };

struct graph_node *graph_b_open(struct graph_builder *b, enum op_kind kind, const int *in, int n_in, int n_out)
{
    struct graph_node *n = graph_add_node(b->g, kind, b->name ? b->name : "", n_in, n_out);
    n->op.opset = OPSET;
    n->dead = b->e != ERR_OK;
    for (int i = 0; i < n_in; i++) n->op.in[i] = in[i];
    return n;
}

int graph_b_close(struct graph_builder *b, struct graph_node *n)
{
    if (b->e) {
        n->dead = true;
        return -1;
    }
    struct op_info in[KERNEL_MAX_IN], out[KERNEL_MAX_OUT];
    if (n->op.n_in > KERNEL_MAX_IN || n->op.n_out > KERNEL_MAX_OUT) {
        b->e = err_set(ERR_UNSUPPORTED, "%s: %s with %d inputs", b->g->name, op_name(n->op.kind), n->op.n_in);
    } else {
        graph_node_infos(b->g, n, in);
        b->e = op_infer(&n->op, in, out);
        if (b->e) err_wrap(b->e, "%s: %s for '%s'", b->g->name, op_name(n->op.kind), b->name ? b->name : "");
    }
    if (b->e) {
        n->dead = true;
        return -1;
    }
    for (int o = 0; o < n->op.n_out; o++) n->op.out[o] = graph_add_value(b->g, "", out[o].dtype, &out[o].shape);
    return n->op.out[0];
}

int graph_b_output(const struct graph_builder *b, int first, int i)
{
    return b->e || first < 0 ? -1 : first + i;
}

int graph_b1(struct graph_builder *b, enum op_kind kind, int x)
{
    return graph_b_close(b, graph_b_open(b, kind, &x, 1, 1));
}

int graph_b2(struct graph_builder *b, enum op_kind kind, int x, int y)
{
    int in[] = {x, y};
    return graph_b_close(b, graph_b_open(b, kind, in, 2, 1));
}

int graph_b3(struct graph_builder *b, enum op_kind kind, int x, int y, int z)
{
    int in[] = {x, y, z};
    return graph_b_close(b, graph_b_open(b, kind, in, 3, 1));
}

static int constant(struct graph_builder *b, enum tensor_dtype dtype, const struct tensor_shape *s, void **ret)
{
    int v = -1;
    if (!b->e) b->e = graph_add_constant(b->g, "", dtype, s, &v, ret);
    return b->e ? -1 : v;
}

int graph_b_number(struct graph_builder *b, enum tensor_dtype dtype, double x)
{
    struct tensor_shape s = {.rank = 0}, one = s;
    void *p = NULL;
    if (dtype == TENSOR_F16 || dtype == TENSOR_BF16) {
        struct graph_node *n = graph_b_open(b, OP_CAST, (int[]){graph_b_number(b, TENSOR_F32, x)}, 1, 1);
        graph_set_int(n, "to", dtype);
        return graph_b_close(b, n);
    }
    int v = constant(b, dtype, &one, &p);
    if (v < 0) return -1;
    switch (dtype) {
    case TENSOR_F32: memcpy(p, &(float){(float)x}, 4); break;
    case TENSOR_F64: memcpy(p, &x, 8); break;
    case TENSOR_I64: memcpy(p, &(int64_t){(int64_t)x}, 8); break;
    case TENSOR_I32: memcpy(p, &(int32_t){(int32_t)x}, 4); break;
    default: b->e = err_set(ERR_INTERNAL, "a constant of type %s", tensor_dtype_name(dtype)); return -1;
    }
    return v;
}

int graph_b_ints(struct graph_builder *b, const int64_t *x, int n)
{
    int64_t count = n;
    struct tensor_shape s = tensor_shape_of(1, &count);
    void *p = NULL;
    int v = constant(b, TENSOR_I64, &s, &p);
    if (v >= 0 && n) memcpy(p, x, (size_t)n * sizeof *x);
    return v;
}

const struct tensor_shape *graph_b_shape(const struct graph_builder *b, int x)
{
    static const struct tensor_shape none;
    return x < 0 ? &none : &b->g->values[x].shape;
}

int graph_b_expand(struct graph_builder *b, int x, const struct tensor_shape *shape)
{
    if (b->e || tensor_shape_equal(graph_b_shape(b, x), shape)) return b->e ? -1 : x;
    return graph_b2(b, OP_EXPAND, x, graph_b_ints(b, shape->dims, shape->rank));
}

int graph_b_zeros(struct graph_builder *b, int like)
{
    if (b->e) return -1;
    struct tensor_shape s = *graph_b_shape(b, like);
    return graph_b_expand(b, graph_b_number(b, b->g->values[like].dtype, 0), &s);
}

int graph_b_scale(struct graph_builder *b, int x, double by)
{
    if (b->e || by == 1) return b->e ? -1 : x;
    return graph_b2(b, OP_MUL, x, graph_b_number(b, b->g->values[x].dtype, by));
}

int graph_b_reduce(struct graph_builder *b, enum op_kind kind, int x, const int64_t *axes, int n, bool keep)
{
    if (n == 0) return b->e ? -1 : x;
    struct graph_node *r = graph_b_open(b, kind, &x, 1, 1);
    if (n > 0) graph_set_ints(r, "axes", axes, (size_t)n);
    graph_set_int(r, "keepdims", keep);
    return graph_b_close(b, r);
}

int graph_b_reshape(struct graph_builder *b, int x, const struct tensor_shape *shape)
{
    if (b->e || tensor_shape_equal(graph_b_shape(b, x), shape)) return b->e ? -1 : x;
    int in[] = {x, graph_b_ints(b, shape->dims, shape->rank)};
    struct graph_node *n = graph_b_open(b, OP_RESHAPE, in, 2, 1);
    graph_set_int(n, "allowzero", 1);
    n->op.opset = 14;
    return graph_b_close(b, n);
}

int graph_b_transpose(struct graph_builder *b, int x, const int64_t *perm)
{
    if (b->e) return -1;
    int rank = graph_b_shape(b, x)->rank;
    bool same = true;
    for (int i = 0; i < rank; i++) same &= perm[i] == i;
    if (same) return x;
    struct graph_node *n = graph_b_open(b, OP_TRANSPOSE, &x, 1, 1);
    graph_set_ints(n, "perm", perm, (size_t)rank);
    return graph_b_close(b, n);
}

int graph_b_reduce_to(struct graph_builder *b, int x, const struct tensor_shape *shape)
{
    if (b->e) return -1;
    struct tensor_shape from = *graph_b_shape(b, x), to = *shape;
    int64_t axes[TENSOR_MAX_RANK];
    int n = 0;
    for (int i = 0; i < from.rank; i++) {
        int k = i - (from.rank - to.rank);
        if (k < 0 || (to.dims[k] == 1 && from.dims[i] != 1)) axes[n++] = i;
    }
    return graph_b_reshape(b, graph_b_reduce(b, OP_REDUCE_SUM, x, axes, n, false), &to);
}

/* ---- losses */

/* log softmax over axis 1, as [rows, classes]-like with any axes behind. */
static int log_softmax(struct graph_builder *b, int logits)
{
    struct graph_node *n = graph_b_open(b, OP_LOG_SOFTMAX, &logits, 1, 1);
    graph_set_int(n, "axis", 1);
    return graph_b_close(b, n);
}

static bool loss_shapes(struct graph_builder *b, const char *what, int logits)
{
    if (b->e) return false;
    if (logits < 0 || graph_b_shape(b, logits)->rank < 2)
        b->e = err_set(ERR_SHAPE, "%s: %s needs logits of [N, classes, ...]", b->g->name, what);
    return !b->e;
}

int graph_b_cross_entropy(struct graph_builder *b, int logits, int target, double smoothing)
{
    if (!loss_shapes(b, "cross entropy", logits)) return -1;
    struct tensor_shape s = *graph_b_shape(b, logits);
    if (!tensor_shape_equal(&s, graph_b_shape(b, target))) {
        b->e = err_set(ERR_SHAPE, "%s: cross entropy's target does not have the shape of the logits", b->g->name);
        return -1;
    }
    int64_t classes = s.dims[1], rows = MAX(tensor_count(&s) / MAX(classes, 1), 1);
    if (smoothing != 0) {
        int rest = graph_b_number(b, b->g->values[target].dtype, smoothing / (double)MAX(classes, 1));
        target = graph_b2(b, OP_ADD, graph_b_scale(b, target, 1 - smoothing), rest);
    }
    int sum = graph_b_reduce(b, OP_REDUCE_SUM, graph_b2(b, OP_MUL, target, log_softmax(b, logits)), NULL, -1, false);
    return graph_b_scale(b, sum, -1.0 / (double)rows);
}

/* Rows to be ignored look up class 0 and count 0. */
int graph_b_cross_entropy_labels(struct graph_builder *b, int logits, int labels, double smoothing, int64_t ignore)
{
    if (!loss_shapes(b, "cross entropy", logits)) return -1;
    enum tensor_dtype dtype = b->g->values[logits].dtype;
    struct tensor_shape s = *graph_b_shape(b, logits), one = s;
    int64_t classes = s.dims[1], axis1 = 1;
    one.dims[1] = 1;
    labels = graph_b_reshape(b, labels, &one);
    int ignored = graph_b2(b, OP_EQUAL, labels, graph_b_number(b, TENSOR_I64, (double)ignore));
    int safe = graph_b3(b, OP_WHERE, ignored, graph_b_number(b, TENSOR_I64, 0), labels);
    int weight = graph_b3(b, OP_WHERE, ignored, graph_b_number(b, dtype, 0), graph_b_number(b, dtype, 1));
    int logs = log_softmax(b, logits);
    struct graph_node *n = graph_b_open(b, OP_GATHER_ELEMENTS, (int[]){logs, safe}, 2, 1);
    graph_set_int(n, "axis", 1);
    int each = graph_b_close(b, n);
    if (smoothing != 0) {
        int all = graph_b_reduce(b, OP_REDUCE_SUM, logs, &axis1, 1, true);
        each = graph_b2(b, OP_ADD, graph_b_scale(b, each, 1 - smoothing), graph_b_scale(b, all, smoothing / (double)MAX(classes, 1)));
    }
    int sum = graph_b_reduce(b, OP_REDUCE_SUM, graph_b2(b, OP_MUL, each, weight), NULL, -1, false);
    int count = graph_b2(b, OP_MAX, graph_b_reduce(b, OP_REDUCE_SUM, weight, NULL, -1, false), graph_b_number(b, dtype, 1));
    return graph_b_scale(b, graph_b2(b, OP_DIV, sum, count), -1);
}
