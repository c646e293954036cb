/* Shape rules of regions, moved taps and places: RoiAlign, MaxRoiPool, DeformConv, Col2Im, MaxUnpool, AffineGrid.
 * SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

static const int64_t MOST = (int64_t)1 << 30;

static err want_float(const struct op_info *in, int i)
{
    if (tensor_dtype_is_float(in[i].dtype)) return ERR_OK;
    return err_set(ERR_SHAPE, "input %d is %s, but must be a float", i, tensor_dtype_name(in[i].dtype));
}

/* An attribute of `count` numbers in [least, MOST]; absent: all are `otherwise`. */
static err read_list(const struct op_node *n, const char *name, int count, int64_t least, int64_t otherwise, int64_t *ret)
{
    const int64_t *v = NULL;
    size_t len = op_attr_ints(n, name, &v);
    if (len && len != (size_t)count) return err_set(ERR_SHAPE, "%s has %zu numbers, not %d", name, len, count);
    for (int i = 0; i < count; i++) {
        ret[i] = len ? v[i] : otherwise;
        if (ret[i] < least || ret[i] > MOST)
            return err_set(ERR_SHAPE, "%s holds %lld, outside %lld to 2^30", name, (long long)ret[i], (long long)least);
    }
    return ERR_OK;
}

static err regions(const struct op_info *in, int64_t row, int64_t h, int64_t w, struct op_info *out)
{
    err e = want_float(in, 0);
    if (!e) e = op_want_rank(in, 0, 4);
    if (!e) e = op_want_rank(in, 1, 2);
    if (!e) e = op_want_same_type(in, 0, 1);
    if (!e && in[1].shape.dims[1] != row)
        e = err_set(ERR_SHAPE, "input 1 (rois) has rows of %lld, not %lld", (long long)in[1].shape.dims[1], (long long)row);
    if (!e && (h < 1 || h > MOST || w < 1 || w > MOST))
        e = err_set(ERR_SHAPE, "regions of %lld x %lld", (long long)h, (long long)w);
    if (!e) e = op_push_range(&out[0].shape, &in[1].shape, 0, 1);
    if (!e) e = op_push_range(&out[0].shape, &in[0].shape, 1, 2);
    if (!e) e = op_push(&out[0].shape, h, false);
    out[0].dtype = in[0].dtype;
    return e ? e : op_push(&out[0].shape, w, false);
}

err op_rule_roi_align(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t d;
    bool bounded;
    err e = op_want_rank(in, 2, 1);
    if (!e && in[2].dtype != TENSOR_I64 && in[2].dtype != TENSOR_I32) e = err_set(ERR_SHAPE, "input 2 (batch_indices) is no integer");
    if (!e) e = op_want_rank(in, 1, 2);
    if (!e) e = op_agree(&in[1].shape, 0, &in[2].shape, 0, &d, &bounded);
    return e ? e : regions(in, 4, op_attr_int(n, "output_height", 1), op_attr_int(n, "output_width", 1), out);
}

err op_rule_max_roi_pool(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const int64_t *v = NULL;
    if (op_attr_ints(n, "pooled_shape", &v) != 2) return err_set(ERR_SHAPE, "the attribute 'pooled_shape' must hold two numbers");
    return regions(in, 5, v[0], v[1], out);
}

/* x [N, C, H, W], w [M, C / group, kH, kW], offset [N, offset groups * kH * kW * 2, oH, oW], bias [M], mask */
err op_rule_deform_conv(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape, *w = &in[1].shape;
    struct op_window s = {0};
    int64_t groups = op_attr_int(n, "offset_group", 1), taps = 0;
    err e = want_float(in, 0);
    for (int i = 0; i < 5 && !e; i++) {
        if (!op_present(n, in, i)) continue;
        e = i == 3 ? ERR_OK : op_want_rank(in, i, 4);
        if (!e) e = op_want_same_type(in, 0, i);
    }
    if (!e) e = op_window(n, x, w, &s);
    if (e) return e;
    if (groups < 1 || groups > x->dims[1] || x->dims[1] % groups)
        return err_set(ERR_SHAPE, "%lld offset groups for %lld channels", (long long)groups, (long long)x->dims[1]);
    if ((e = op_times(s.kernel[0], s.kernel[1], &taps)) || (e = op_times(taps, groups, &taps))) return e;
    for (int i = 2; i < 5; i += 2) {
        if (!op_present(n, in, i)) continue;
        const int64_t *d = in[i].shape.dims;
        if (d[0] != x->dims[0] || d[1] != (i == 2 ? 2 : 1) * taps || d[2] != s.out[0] || d[3] != s.out[1])
            return err_set(ERR_SHAPE, "input %d (%s) does not fit to the output's size", i, i == 2 ? "offset" : "mask");
    }
    if ((e = op_want_vector(n, in, 3, w->dims[0]))) return e;
    out[0].dtype = in[0].dtype;
    e = op_push(&out[0].shape, x->dims[0], false);
    if (!e) e = op_push(&out[0].shape, w->dims[0], false);
    for (int i = 0; i < 2 && !e; i++) e = op_push(&out[0].shape, s.out[i], false);
    return e;
}

/* [N, C * taps, blocks] -> [N, C, image...] */
err op_rule_col2im(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t image[TENSOR_MAX_RANK], block[TENSOR_MAX_RANK], dilation[TENSOR_MAX_RANK], stride[TENSOR_MAX_RANK],
        pads[2 * TENSOR_MAX_RANK], taps = 1, blocks = 1;
    int count, axes;
    err e = op_want_rank(in, 0, 3);
    if (!e) e = op_constant_ints(&in[1], 1, "image_shape", image, TENSOR_MAX_RANK - 2, &count);
    if (!e) e = op_constant_ints(&in[2], 2, "block_shape", block, TENSOR_MAX_RANK - 2, &axes);
    if (!e && (axes != count || count < 1)) e = err_set(ERR_SHAPE, "block_shape and image_shape differ in length");
    if (!e) e = read_list(n, "dilations", count, 1, 1, dilation);
    if (!e) e = read_list(n, "strides", count, 1, 1, stride);
    if (!e) e = read_list(n, "pads", 2 * count, 0, 0, pads);
    for (int i = 0; i < count && !e; i++) {
        if (image[i] < 1 || image[i] > MOST || block[i] < 1 || block[i] > MOST)
            return err_set(ERR_SHAPE, "blocks of %lld in an image of %lld", (long long)block[i], (long long)image[i]);
        int64_t room = image[i] + pads[i] + pads[count + i] - dilation[i] * (block[i] - 1) - 1;
        e = op_times(blocks, room < 0 ? 0 : room / stride[i] + 1, &blocks);
        if (!e) e = op_times(taps, block[i], &taps);
    }
    if (e) return e;
    if (in[0].shape.dims[1] % taps || in[0].shape.dims[2] != blocks)
        return err_set(ERR_SHAPE, "input 0 must have a multiple of %lld rows and %lld columns", (long long)taps, (long long)blocks);
    e = op_push(&out[0].shape, in[0].shape.dims[0], false);
    if (!e) e = op_push(&out[0].shape, in[0].shape.dims[1] / taps, false);
    for (int i = 0; i < count && !e; i++) e = op_push(&out[0].shape, image[i], false);
    out[0].dtype = in[0].dtype;
    return e;
}

err op_rule_max_unpool(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    int64_t kernel[TENSOR_MAX_RANK], stride[TENSOR_MAX_RANK], pads[2 * TENSOR_MAX_RANK], wanted[TENSOR_MAX_RANK];
    int count = 0, axes = x->rank - 2;
    err e = op_want_rank_from(in, 0, 3);
    if (e) return e;
    if (in[1].dtype != TENSOR_I64 || !tensor_shape_equal(x, &in[1].shape))
        return err_set(ERR_SHAPE, "input 1 (indices) must be int64 of the shape of input 0");
    if (!op_attr(n, "kernel_shape")) return err_set(ERR_SHAPE, "the attribute 'kernel_shape' is missing");
    e = read_list(n, "kernel_shape", axes, 1, 1, kernel);
    if (!e) e = read_list(n, "strides", axes, 1, 1, stride);
    if (!e) e = read_list(n, "pads", 2 * axes, 0, 0, pads);
    if (!e && op_present(n, in, 2)) {
        e = op_constant_ints(&in[2], 2, "output_shape", wanted, TENSOR_MAX_RANK, &count);
        if (!e && count != x->rank) e = err_set(ERR_SHAPE, "output_shape has %d numbers, not %d", count, x->rank);
    }
    out[0].dtype = in[0].dtype;
    for (int i = 0; i < x->rank && !e; i++) {
        int64_t size = x->dims[i];
        if (i >= 2 && (size < 1 || size > MOST)) return err_set(ERR_SHAPE, "axis %d has the size %lld", i, (long long)size);
        if (i >= 2) size = (size - 1) * stride[i - 2] - pads[i - 2] - pads[i - 2 + axes] + kernel[i - 2];
        if (count && wanted[i] < size)
            return err_set(ERR_SHAPE, "output_shape has %lld at axis %d, the window leads to %lld", (long long)wanted[i], i, (long long)size);
        e = op_push(&out[0].shape, count ? wanted[i] : size, false);
    }
    return e;
}

/* theta [N, 2, 3] and size [N, C, H, W] -> [N, H, W, 2]; or with one axis more */
err op_rule_affine_grid(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *theta = &in[0].shape;
    int64_t size[5];
    int count;
    (void)n;
    err e = want_float(in, 0);
    if (!e) e = op_want_rank(in, 0, 3);
    if (!e) e = op_constant_ints(&in[1], 1, "size", size, 5, &count);
    if (e) return e;
    int axes = count - 2;
    if (axes < 2 || theta->dims[0] != size[0] || theta->dims[1] != axes || theta->dims[2] != axes + 1)
        return err_set(ERR_SHAPE, "input 0 (theta) and input 1 (size) do not fit");
    e = op_push(&out[0].shape, size[0], false);
    for (int i = 0; i < axes && !e; i++) e = op_push(&out[0].shape, size[2 + i], false);
    out[0].dtype = in[0].dtype;
    return e ? e : op_push(&out[0].shape, axes, false);
}
