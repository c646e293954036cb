/* Shape rules of normalisations: the result is as large as x, and the parameters must fit its channels or its
 * last axes. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

/* Channels of x [N, C, ...]; a single axis counts as [N] with one channel. */
static err channels(const struct op_info *in, int64_t *ret)
{
    const struct tensor_shape *x = &in[0].shape;
    err e = op_want_rank_from(in, 0, 1);
    if (e) return e;
    if (x->rank > 1 && op_bounded(x, 1))
        return err_set(ERR_UNSUPPORTED, "the channels of input 0 depend on data");
    *ret = x->rank > 1 ? x->dims[1] : 1;
    return ERR_OK;
}

/* While training, the numbers of the batch itself take the place of the running ones: opset 14 says so in an attribute, earlier ones by having
 * outputs (mean, var, saved_mean, saved_var) beside Y. What a picture gives would depend on its neighbours. */
static err want_inference(const struct op_node *n)
{
    if (!op_attr_int(n, "training_mode", 0) && n->n_out <= 1) return ERR_OK;
    return err_set(ERR_UNSUPPORTED, "it was exported while training, so each answer depends on the others of its batch; `brim export F.onnx -o G.onnx` "
                                    "writes the network for inference");
}

err op_rule_batch_norm(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t c = 0;
    err e = channels(in, &c);
    if (!e && n->opset < 9 && !op_attr_int(n, "spatial", 1))
        e = err_set(ERR_UNSUPPORTED,
                    "spatial=0 (one mean per pixel) is not supported; export with opset 9 or later");
    for (int i = 1; !e && i < 5; i++) e = op_want_vector(n, in, i, c);
    if (!e) e = want_inference(n);
    if (e) return e;
    out[0].dtype = in[0].dtype;
    out[0].shape = in[0].shape;
    return ERR_OK;
}

err op_rule_instance_norm(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t c = 0;
    err e = op_want_rank_from(in, 0, 3);
    if (!e) e = channels(in, &c);
    for (int i = 1; !e && i < 3; i++) e = op_want_vector(n, in, i, c);
    out[0].dtype = in[0].dtype;
    out[0].shape = in[0].shape;
    return e;
}

/* Y, and the mean and inverse deviation with the normalised axes as 1, in the type stash_type. */
err op_rule_layer_norm(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    struct tensor_shape whole;
    int axis;
    err e = op_axis(op_attr_int(n, "axis", -1), x->rank, &axis);
    if (e) return e;
    for (int i = 1; i < n->n_in; i++) {
        if (!op_present(n, in, i)) continue;
        e = tensor_broadcast(x, &in[i].shape, &whole);
        if (!e && (!tensor_shape_equal(&whole, x) || in[i].shape.rank > x->rank - axis))
            e = err_set(ERR_SHAPE, "input %d does not fit the normalised axes of input 0", i);
        if (e) return e;
    }
    out[0].dtype = in[0].dtype;
    out[0].shape = *x;
    int64_t stash = op_attr_int(n, "stash_type", TENSOR_F32);
    if (n->n_out > 1 && (stash < 0 || stash > 64 || !tensor_dtype_is_float((enum tensor_dtype)stash)))
        return err_set(ERR_SHAPE, "stash_type is %lld, not a float type", (long long)stash);
    for (int i = 1; i < n->n_out; i++) {
        out[i].dtype = (enum tensor_dtype)stash;
        out[i].shape = *x;
        for (int a = axis; a < x->rank; a++) out[i].shape.dims[a] = 1;
        out[i].shape.bounded &= (uint8_t)((1u << axis) - 1);
    }
    return ERR_OK;
}

err op_rule_lrn(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct op_attr *size = op_attr(n, "size");
    if (!size || size->type != OP_ATTR_INT || size->i < 1)
        return err_set(ERR_SHAPE, "the attribute 'size' is missing or below 1");
    out[0].dtype = in[0].dtype;
    out[0].shape = in[0].shape;
    return op_want_rank_from(in, 0, 2);
}
