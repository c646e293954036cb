/* Dropout in a training form: how much, and the DropoutBy that does it.
 *
 * Nodes are numbered in the order in which they are emitted, which is that of the file: the same file gives the same numbers, and so the same draws.
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/specialise.h"

#include "op/rule.h"

/* The ratio was an attribute before opset 12, then an input; 0.5 unless it is said. */
err graph_dropout_ratio(const struct graph_special *s, const struct op_node *n, int given, double *ret)
{
    double ratio = s->dropout->ratio > 0 ? s->dropout->ratio : (double)op_attr_float(n, "ratio", 0.5f);
    err e = ERR_OK;
    if (given >= 0 && !(s->dropout->ratio > 0)) {
        const struct graph_value *v = &s->to->values[given];
        if (!v->constant || v->loose) return err_set(ERR_UNSUPPORTED, "its ratio is no constant; --dropout P gives every Dropout one");
        e = op_constant_number(&(struct op_info){v->dtype, v->shape, v->constant}, 1, "ratio", &ratio);
    }
    if (!e && !(ratio >= 0 && ratio <= 1)) e = err_set(ERR_FORMAT, "its ratio is %g, but goes from 0 to 1; --dropout P gives every Dropout another", ratio);
    if (!e) *ret = ratio;
    return e;
}

/* Do images lie channels-last where this value is made? Then its elements are counted so, too; what is multiplied, normalised along rows or moved lies in rows. Nothing but
 * speed depends on it, but forward and backward must agree. */
static bool is_image(const struct graph *g, int value)
{
    if (g->values[value].shape.rank < 3) return false;
    for (size_t i = g->n_nodes; i-- > 0;) {
        const struct op_node *n = &g->nodes[i].op;
        bool makes = false;
        for (int o = 0; o < n->n_out; o++) makes |= n->out[o] == value;
        if (!makes) continue;
        switch (n->kind) {
        case OP_CONV: case OP_CONV_TRANSPOSE: case OP_BATCH_NORM: case OP_INSTANCE_NORM: case OP_MAX_POOL: case OP_AVERAGE_POOL: case OP_GLOBAL_AVERAGE_POOL: case OP_GLOBAL_MAX_POOL:
        case OP_RESIZE: case OP_LRN: return true;
        case OP_MATMUL: case OP_GEMM: case OP_EINSUM: case OP_SOFTMAX: case OP_LAYER_NORM: case OP_RESHAPE: case OP_TRANSPOSE: case OP_GATHER: return false;
        default: break;
        }
        if (n->n_in < 1 || n->in[0] < 0) break;
        value = n->in[0];
    }
    return g->values[value].shape.rank == 4;
}

err graph_dropout_add(struct graph_special *s, const char *name, int x, double ratio, struct graph_node **ret)
{
    struct graph_dropout *d = s->dropout;
    struct tensor_shape three = {.rank = 1, .dims = {3}};
    if (s->to->values[x].loose || s->to->values[x].shape.bounded) return err_set(ERR_UNSUPPORTED, "in training its input must have a size that does not depend on data");
    if (!d->count) d->draw = graph_add_input(s->to, "draw", TENSOR_I64, &three);
    struct graph_node *n = graph_add_node(s->to, OP_DROPOUT_BY, name, 2, 1);
    n->op.in[0] = x;
    n->op.in[1] = d->draw;
    n->op.opset = 1;
    graph_set_float(n, "ratio", (float)ratio);
    graph_set_int(n, "node", d->count++);
    graph_set_int(n, "channels_last", is_image(s->to, x));
    *ret = n;
    return ERR_OK;
}
