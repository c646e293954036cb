/* Shape rules of DFT, STFT and MelWeightMatrix: lengths must be known when a plan is made.
 * SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

static const int64_t MOST = (int64_t)1 << 30;

static err length_of(const struct op_node *n, const struct op_info *in, int i, const char *what, int64_t otherwise, int64_t *ret)
{
    *ret = otherwise;
    err e = op_present(n, in, i) ? op_constant_int(&in[i], i, what, ret) : ERR_OK;
    if (!e && (*ret < 1 || *ret > MOST)) e = err_set(ERR_SHAPE, "%s is %lld", what, (long long)*ret);
    return e;
}

static err want_parts(const struct op_info *in, int rank)
{
    int64_t parts = in[0].shape.dims[rank - 1];
    if (!tensor_dtype_is_float(in[0].dtype)) return err_set(ERR_SHAPE, "input 0 must be a float");
    if (parts == 1 || parts == 2) return ERR_OK;
    return err_set(ERR_SHAPE, "the last axis of input 0 has the size %lld, not 1 (real) or 2 (complex)", (long long)parts);
}

/* The axis became an input in opset 20. */
err op_rule_dft(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    struct tensor_shape s = in[0].shape;
    bool inverse = op_attr_int(n, "inverse", 0) != 0, onesided = op_attr_int(n, "onesided", 0) != 0;
    int64_t wanted = n->opset >= 20 ? -2 : op_attr_int(n, "axis", 1), length;
    int axis;
    err e = op_want_rank_from(in, 0, 2);
    if (!e) e = want_parts(in, s.rank);
    if (!e && op_present(n, in, 2)) e = op_constant_int(&in[2], 2, "axis", &wanted);
    if (!e) e = op_axis(wanted, s.rank, &axis);
    if (e) return e;
    if (axis == s.rank - 1) return err_set(ERR_SHAPE, "the axis of a DFT cannot be the last one");
    bool back = inverse && onesided;
    e = length_of(n, in, 1, "dft_length", back ? 2 * (s.dims[axis] - 1) : s.dims[axis], &length);
    if (e) return e;
    if (onesided && !inverse && s.dims[s.rank - 1] != 1) return err_set(ERR_SHAPE, "a onesided DFT of complex numbers");
    s.dims[axis] = onesided && !inverse ? length / 2 + 1 : length;
    s.dims[s.rank - 1] = back ? 1 : 2;
    out[0].dtype = in[0].dtype;
    out[0].shape = s;
    return ERR_OK;
}

/* signal [N, length, 1 or 2], frame_step, window [frame] or absent, frame_length or absent */
err op_rule_stft(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t step, frame, size;
    bool onesided = op_attr_int(n, "onesided", 1) != 0;
    err e = op_want_rank(in, 0, 3);
    if (!e) e = want_parts(in, 3);
    if (!e) e = length_of(n, in, 1, "frame_step", 0, &step);
    size = in[0].shape.dims[1];
    if (!e && op_present(n, in, 2)) e = op_want_rank(in, 2, 1);
    if (!e && op_present(n, in, 2)) e = op_want_same_type(in, 0, 2);
    if (!e && op_present(n, in, 2)) size = in[2].shape.dims[0];
    if (!e) e = length_of(n, in, 3, "frame_length", size, &frame);
    if (!e) e = op_want_vector(n, in, 2, frame);
    if (e) return e;
    if (frame > in[0].shape.dims[1])
        return err_set(ERR_SHAPE, "a frame of %lld in a signal of %lld", (long long)frame, (long long)in[0].shape.dims[1]);
    if (onesided && in[0].shape.dims[2] != 1) return err_set(ERR_SHAPE, "a onesided STFT of complex numbers");
    out[0].dtype = in[0].dtype;
    e = op_push(&out[0].shape, in[0].shape.dims[0], false);
    if (!e) e = op_push(&out[0].shape, (in[0].shape.dims[1] - frame) / step + 1, false);
    if (!e) e = op_push(&out[0].shape, onesided ? frame / 2 + 1 : frame, false);
    return e ? e : op_push(&out[0].shape, 2, false);
}

err op_rule_mel(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t mels, length, type = op_attr_int(n, "output_datatype", TENSOR_F32);
    err e = length_of(n, in, 0, "num_mel_bins", 0, &mels);
    if (!e) e = length_of(n, in, 1, "dft_length", 0, &length);
    for (int i = 2; i < 5 && !e; i++)
        if (tensor_count(&in[i].shape) != 1) e = err_set(ERR_SHAPE, "input %d must hold one number", i);
    if (!e && (type < 0 || type > 64 || !tensor_dtype_size((enum tensor_dtype)type)))
        e = err_set(ERR_UNSUPPORTED, "output_datatype = %lld is a type that brim does not compute with", (long long)type);
    if (!e) e = op_push(&out[0].shape, length / 2 + 1, false);
    if (e) return e;
    out[0].dtype = (enum tensor_dtype)type;
    return op_push(&out[0].shape, mels, false);
}
