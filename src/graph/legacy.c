/* Opsets 1 to 6 as later ones: element-wise operators said with `axis` where their second input lies in the first, and PRelu's slopes lay
 * along the channels. The second input gets axes of 1 behind it, so that broadcasting does the same.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "graph/specialise.h"

static bool had_axis(enum op_kind kind)
{
    switch (kind) {
    case OP_ADD: case OP_SUB: case OP_MUL: case OP_DIV: case OP_POW: case OP_AND: case OP_OR: case OP_XOR: case OP_EQUAL:
    case OP_GREATER: case OP_LESS: case OP_PRELU:
        return true;
    default: return false;
    }
}

/* The same numbers with another shape: a constant's bytes in another view, or a Reshape before the node. */
static err reshaped(struct graph_special *s, int value, const struct tensor_shape *shape, int *ret)
{
    struct graph *g = s->to;
    struct graph_value from = g->values[value];
    *ret = graph_add_value(g, from.name, from.dtype, shape);
    if (from.constant) {
        g->values[*ret].constant = from.constant; /* owned by the other value, which lives as long */
        g->values[*ret].constant_bytes = from.constant_bytes;
        g->values[*ret].shared = from.shared;
        return ERR_OK;
    }
    void *dims;
    int to;
    int64_t rank = shape->rank;
    struct tensor_shape list = tensor_shape_of(1, &rank);
    err e = graph_add_constant(g, "", TENSOR_I64, &list, &to, &dims);
    if (e) return e;
    memcpy(dims, shape->dims, (size_t)rank * sizeof *shape->dims);
    struct graph_node *n = graph_add_node(g, OP_RESHAPE, from.name, 2, 1);
    n->op.opset = 13;
    n->op.in[0] = value;
    n->op.in[1] = to;
    n->op.out[0] = *ret;
    return ERR_OK;
}

err graph_legacy(struct graph_special *s, size_t node)
{
    const struct op_node *n = &s->to->nodes[node].op;
    if (n->opset >= 7 || !had_axis(n->kind) || n->n_in != 2 || n->in[0] < 0 || n->in[1] < 0) return ERR_OK;
    const struct graph_value *a = &s->to->values[n->in[0]], *b = &s->to->values[n->in[1]];
    int64_t axis = n->kind == OP_PRELU ? 1 : op_attr_int(n, "axis", a->shape.rank - b->shape.rank);
    if (n->kind == OP_PRELU && (b->shape.rank != 1 || b->shape.dims[0] == 1)) return ERR_OK;
    if (a->loose || b->loose || b->shape.rank == 0) return ERR_OK;
    if (axis < 0) axis += a->shape.rank;
    if (axis < 0 || axis + b->shape.rank > a->shape.rank) return err_set(ERR_SHAPE, "input 1 does not lie in input 0 at axis %lld", (long long)axis);
    if (axis + b->shape.rank == a->shape.rank) return ERR_OK;
    struct tensor_shape shape = b->shape;
    while (axis + shape.rank < a->shape.rank) shape.dims[shape.rank++] = 1;
    int made = -1;
    err e = reshaped(s, n->in[1], &shape, &made);
    if (!e) s->to->nodes[node].op.in[1] = made; /* the list may have moved */
    return e;
}
