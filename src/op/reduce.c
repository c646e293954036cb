/* Shape rules of operators that work along axes: Reduce*, ArgMax, Softmax, CumSum.
 *
 * The axes of Reduce* and (Un)Squeeze were attributes first and became an input in opset 13 (ReduceSum,
 * Squeeze) or 18 (the others). op_axes takes whichever is there. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

int op_axes(const struct op_node *n, const struct op_info *axes_input, int rank, int64_t *ret_axes)
{
    int64_t v[TENSOR_MAX_RANK], sorted[TENSOR_MAX_RANK];
    int count;
    bool seen[TENSOR_MAX_RANK] = {0};
    if (rank < 0 || rank > TENSOR_MAX_RANK) return err_set(ERR_SHAPE, "%d axes", rank);
    err e;
    if (axes_input && axes_input->dtype != TENSOR_NONE)
        e = op_constant_ints(axes_input, 1, "axes", v, TENSOR_MAX_RANK, &count);
    else
        e = op_ints(n, NULL, n->n_in, "axes", v, TENSOR_MAX_RANK, &count);
    if (e) return e;
    for (int i = 0; i < count; i++) {
        int axis;
        e = op_axis(v[i], rank, &axis);
        if (e) return e;
        if (seen[axis]) return err_set(ERR_SHAPE, "axes names axis %d twice", axis);
        seen[axis] = true;
    }
    int k = 0;
    for (int i = 0; i < rank; i++)
        if (seen[i]) sorted[k++] = i;
    for (int i = 0; i < k; i++) ret_axes[i] = sorted[i];
    return k;
}

static err push_reduced(const struct tensor_shape *x, const bool *gone, bool keep, struct tensor_shape *out)
{
    err e = ERR_OK;
    for (int i = 0; !e && i < x->rank; i++) {
        if (!gone[i])
            e = op_push(out, x->dims[i], op_bounded(x, i));
        else if (keep)
            e = op_push(out, 1, false);
    }
    return e;
}

err op_rule_reduce(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    int64_t axes[TENSOR_MAX_RANK];
    bool gone[TENSOR_MAX_RANK] = {0};
    int count = op_axes(n, n->n_in > 1 ? &in[1] : NULL, x->rank, axes);
    if (count < 0) return count;
    out[0].dtype = in[0].dtype;
    bool all = count == 0 && !op_attr_int(n, "noop_with_empty_axes", 0);
    for (int i = 0; i < x->rank; i++) gone[i] = all;
    for (int i = 0; i < count; i++) gone[axes[i]] = true;
    return push_reduced(x, gone, op_attr_int(n, "keepdims", 1) != 0, &out[0].shape);
}

/* ArgMax, ArgMin */
err op_rule_arg(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    bool gone[TENSOR_MAX_RANK] = {0};
    int axis;
    err e = op_axis(op_attr_int(n, "axis", 0), x->rank, &axis);
    if (e) return e;
    if (x->dims[axis] == 0)
        return err_set(ERR_SHAPE, "axis %d of input 0 is empty and has no largest element", axis);
    gone[axis] = true;
    out[0].dtype = TENSOR_I64;
    return push_reduced(x, gone, op_attr_int(n, "keepdims", 1) != 0, &out[0].shape);
}

/* Softmax, LogSoftmax, LpNormalization: the shape stays, the axis must exist. Softmax's default was 1 before
 * opset 13. */
err op_rule_along_axis(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int axis;
    int64_t otherwise = n->kind != OP_LP_NORM && n->opset < 13 ? 1 : -1;
    err e = op_axis(op_attr_int(n, "axis", otherwise), in[0].shape.rank, &axis);
    if (e) return e;
    out[0].dtype = in[0].dtype;
    out[0].shape = in[0].shape;
    return ERR_OK;
}

/* The axis is an input and need not be known: it does not change the shape. */
err op_rule_cumsum(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t v;
    int axis;
    (void)n;
    if (tensor_count(&in[1].shape) != 1) return err_set(ERR_SHAPE, "input 1 (axis) must hold one number");
    if (in[1].constant) {
        err e = op_constant_int(&in[1], 1, "axis", &v);
        if (!e) e = op_axis(v, in[0].shape.rank, &axis);
        if (e) return e;
    }
    out[0].dtype = in[0].dtype;
    out[0].shape = in[0].shape;
    return ERR_OK;
}
