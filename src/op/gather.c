/* Shape rules of operators that read or write where an index tensor says: Gather*, Scatter*, OneHot.
 *
 * The values of indices are data and are checked by the kernels; that the shapes fit together is checked
 * here. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

static err want_index(const struct op_info *in, int i)
{
    if (in[i].dtype == TENSOR_I64 || in[i].dtype == TENSOR_I32) return ERR_OK;
    return err_set(ERR_SHAPE, "input %d (indices) is %s, but must be int32 or int64", i,
                   tensor_dtype_name(in[i].dtype));
}

/* data[:axis] + indices + data[axis + 1:] */
err op_rule_gather(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape, *at = &in[1].shape;
    struct tensor_shape *o = &out[0].shape;
    int axis;
    err e = want_index(in, 1);
    if (!e) e = op_axis(op_attr_int(n, "axis", 0), x->rank, &axis);
    if (!e && x->dims[axis] == 0 && tensor_count(at) > 0)
        e = err_set(ERR_SHAPE, "axis %d of input 0 is empty", axis);
    if (!e) e = op_push_range(o, x, 0, axis);
    if (!e) e = op_push_range(o, at, 0, at->rank);
    if (!e) e = op_push_range(o, x, axis + 1, x->rank);
    out[0].dtype = in[0].dtype;
    return e;
}

/* Indices may be smaller than the data along every axis but their own. */
static err check_elements(const struct op_node *n, const struct op_info *in)
{
    const struct tensor_shape *x = &in[0].shape, *at = &in[1].shape;
    int axis;
    err e = want_index(in, 1);
    if (!e) e = op_axis(op_attr_int(n, "axis", 0), x->rank, &axis);
    if (!e) e = op_want_rank(in, 1, x->rank);
    for (int i = 0; !e && i < x->rank; i++)
        if (i == axis ? x->dims[i] == 0 && tensor_count(at) : at->dims[i] > x->dims[i])
            e = err_set(ERR_SHAPE, "axis %d of input 1 (indices) has the size %lld, of input 0 %lld", i,
                        (long long)at->dims[i], (long long)x->dims[i]);
    return e;
}

err op_rule_gather_elements(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    out[0].dtype = in[0].dtype;
    out[0].shape = in[1].shape;
    return check_elements(n, in);
}

err op_rule_scatter_elements(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    err e = check_elements(n, in);
    if (!e) e = op_want_same_type(in, 0, 2);
    if (!e && !tensor_shape_equal(&in[1].shape, &in[2].shape))
        e = err_set(ERR_SHAPE, "indices and updates differ in shape");
    out[0].dtype = in[0].dtype;
    out[0].shape = in[0].shape;
    return e;
}

/* The last axis of indices holds k numbers, which name the first k axes of data after the batch axes. */
static err index_depth(const struct op_info *in, int batch, int *ret)
{
    const struct tensor_shape *x = &in[0].shape, *at = &in[1].shape;
    err e = want_index(in, 1);
    if (!e) e = op_want_rank_from(in, 1, MAX(batch + 1, 1));
    if (!e) e = op_want_rank_from(in, 0, MAX(batch + 1, 1));
    if (e) return e;
    if (op_bounded(at, at->rank - 1))
        return err_set(ERR_UNSUPPORTED, "the length of an index depends on data");
    int64_t k = at->dims[at->rank - 1];
    if (k < 1 || k > x->rank - batch)
        return err_set(ERR_SHAPE, "an index of %lld numbers into a tensor with %d axes", (long long)k,
                       x->rank - batch);
    *ret = (int)k;
    return ERR_OK;
}

err op_rule_gather_nd(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape, *at = &in[1].shape;
    struct tensor_shape *o = &out[0].shape;
    int64_t batch = op_attr_int(n, "batch_dims", 0);
    int k;
    if (batch < 0 || batch >= TENSOR_MAX_RANK)
        return err_set(ERR_SHAPE, "batch_dims is %lld", (long long)batch);
    err e = index_depth(in, (int)batch, &k);
    for (int i = 0; !e && i < batch; i++) {
        bool bounded;
        int64_t d;
        e = op_agree(x, i, at, i, &d, &bounded);
        if (!e) e = op_push(o, d, bounded);
    }
    if (!e) e = op_push_range(o, at, (int)batch, at->rank - 1);
    if (!e) e = op_push_range(o, x, (int)batch + k, x->rank);
    out[0].dtype = in[0].dtype;
    return e;
}

err op_rule_scatter_nd(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape, *at = &in[1].shape;
    struct tensor_shape want = {0};
    int64_t d;
    bool bounded;
    int k;
    (void)n;
    err e = index_depth(in, 0, &k);
    if (!e) e = op_want_same_type(in, 0, 2);
    if (!e) e = op_push_range(&want, at, 0, at->rank - 1);
    if (!e) e = op_push_range(&want, x, k, x->rank);
    if (!e) e = op_want_rank(in, 2, want.rank);
    for (int i = 0; !e && i < want.rank; i++) e = op_agree(&want, i, &in[2].shape, i, &d, &bounded);
    out[0].dtype = in[0].dtype;
    out[0].shape = *x;
    return e ? err_wrap(e, "updates") : ERR_OK;
}

err op_rule_one_hot(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    double depth;
    int axis;
    err e = op_axis(op_attr_int(n, "axis", -1), x->rank + 1, &axis);
    if (!e) e = op_want_vector(n, in, 2, 2);
    if (!e) e = op_constant_number(&in[1], 1, "depth", &depth);
    if (!e && !(depth >= 1 && depth <= 0x1p47)) e = err_set(ERR_SHAPE, "input 1 (depth) is %g", depth);
    if (!e) e = op_push_range(&out[0].shape, x, 0, axis);
    if (!e) e = op_push(&out[0].shape, (int64_t)depth, false);
    if (!e) e = op_push_range(&out[0].shape, x, axis, x->rank);
    out[0].dtype = in[2].dtype;
    return e;
}

/* past_cache [N, ..., length, ...], update of the same shape but the length, write_indices [N] */
err op_rule_tensor_scatter(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape, *u = &in[1].shape;
    int axis;
    err e = op_axis(op_attr_int(n, "axis", -2), x->rank, &axis);
    if (!e && axis == 0) e = err_set(ERR_SHAPE, "the axis of a TensorScatter cannot be the batch");
    if (!e) e = op_want_rank(in, 1, x->rank);
    if (!e) e = op_want_same_type(in, 0, 1);
    for (int i = 0; i < x->rank && !e; i++)
        if (i == axis ? u->dims[i] > x->dims[i] : u->dims[i] != x->dims[i])
            e = err_set(ERR_SHAPE, "axis %d of input 1 (update) has the size %lld, of input 0 %lld", i, (long long)u->dims[i],
                        (long long)x->dims[i]);
    if (!e && op_present(n, in, 2)) e = want_index(in, 2);
    if (!e) e = op_want_vector(n, in, 2, x->dims[0]);
    out[0].dtype = in[0].dtype;
    out[0].shape = *x;
    return e;
}
