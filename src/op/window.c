/* Convolutions and poolings: one window arithmetic for the shape rules and all kernels.
 *
 * Along one axis a window covers e = (kernel - 1) * dilation + 1 places (ONNX operators Conv, MaxPool, ConvTranspose):
 *     forward     out = floor((in + pads - e) / stride) + 1; with ceil_mode, ceil, less a last window that would start
 *                 beyond in + pad_begin. Windows may then reach over in + pads: kernels cut them.
 *     SAME_*      out = ceil(in / stride), pads follow; UPPER puts the odd one at the end.
 *     transpose   out = stride * (in - 1) + output_padding + e - pads. With output_shape the pads follow instead; where
 *                 more was asked for than there is, output_padding takes the rest, so the equation always holds.
 *                 SAME_* asks for in * stride, but never for more than there is (as ONNX's own inference).
 *
 * All numbers of the attributes are foreign and checked against 2^30, so no product of two overflows.
 * SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <stdlib.h>
#include <string.h>

static const int64_t MOST = (int64_t)1 << 30;

enum pad_mode { PAD_EXPLICIT, PAD_VALID, PAD_SAME_UPPER, PAD_SAME_LOWER };

static err read_pad_mode(const struct op_node *n, enum pad_mode *ret)
{
    static const char *const NAMES[] = {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"};
    const char *s = op_attr_string(n, "auto_pad", "");
    *ret = PAD_EXPLICIT;
    if (!*s) return ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        if (strcmp(s, NAMES[i]) == 0) {
            *ret = (enum pad_mode)i;
            return ERR_OK;
        }
    return err_set(ERR_SHAPE, "auto_pad is '%.32s'", s);
}

/* Copies a list of `count` numbers in [least, MOST]; where absent, all are `otherwise`. */
static err read_list(const struct op_node *n, const char *name, int count, int64_t least, int64_t otherwise,
                     int64_t *ret)
{
    const int64_t *v = NULL;
    size_t len = op_attr_ints(n, name, &v);
    if (len && len != (size_t)count)
        return err_set(ERR_SHAPE, "%s has %zu numbers, not %d", name, len, count);
    for (int i = 0; i < count; i++) {
        ret[i] = len ? v[i] : otherwise;
        if (ret[i] < least || ret[i] > MOST)
            return err_set(ERR_SHAPE, "%s holds %lld, outside %lld to 2^30", name, (long long)ret[i],
                           (long long)least);
    }
    return ERR_OK;
}

static err read_kernel(const struct op_node *n, const struct tensor_shape *weight, struct op_window *w)
{
    const int64_t *v = NULL;
    bool given = op_attr_ints(n, "kernel_shape", &v) > 0;
    if (!given && !weight) return err_set(ERR_SHAPE, "the attribute 'kernel_shape' is missing");
    err e = read_list(n, "kernel_shape", w->n, 1, 1, w->kernel);
    for (int i = 0; !e && weight && i < w->n; i++) {
        int64_t k = weight->dims[2 + i];
        if (k < 1 || k > MOST)
            return err_set(ERR_SHAPE, "axis %d of input 1 (weight) has the size %lld", 2 + i, (long long)k);
        if (given && k != w->kernel[i])
            return err_set(ERR_SHAPE, "kernel_shape says %lld where the weight has %lld",
                           (long long)w->kernel[i], (long long)k);
        w->kernel[i] = k;
    }
    return e;
}

static err read_attributes(const struct op_node *n, const struct tensor_shape *x,
                           const struct tensor_shape *weight, struct op_window *w)
{
    int64_t pads[12];
    if (x->rank < 3 || x->rank > TENSOR_MAX_RANK)
        return err_set(ERR_SHAPE, "input 0 has %d axes, but must have 3 to 8", x->rank);
    w->n = x->rank - 2;
    if (weight && weight->rank != x->rank)
        return err_set(ERR_SHAPE, "input 0 has %d axes and input 1 (weight) %d", x->rank, weight->rank);
    for (int i = 0; i < w->n; i++) {
        w->in[i] = x->dims[2 + i];
        if (w->in[i] < 0 || w->in[i] > MOST)
            return err_set(ERR_SHAPE, "axis %d of input 0 has the size %lld", 2 + i, (long long)w->in[i]);
    }
    err e = read_kernel(n, weight, w);
    if (!e) e = read_list(n, "strides", w->n, 1, 1, w->stride);
    if (!e) e = read_list(n, "dilations", w->n, 1, 1, w->dilation);
    if (!e) e = read_list(n, "output_padding", w->n, 0, 0, w->output_padding);
    if (!e) e = read_list(n, "pads", 2 * w->n, 0, 0, pads);
    if (e) return e;
    memcpy(w->pad_begin, pads, (size_t)w->n * sizeof *pads);
    memcpy(w->pad_end, pads + w->n, (size_t)w->n * sizeof *pads);
    w->group = weight ? op_attr_int(n, "group", 1) : 1;
    if (w->group < 1 || w->group > MOST) return err_set(ERR_SHAPE, "group is %lld", (long long)w->group);
    return ERR_OK;
}

static err forward_axis(struct op_window *w, int i, enum pad_mode mode, bool ceil_mode)
{
    int64_t in = w->in[i], stride = w->stride[i], cover = (w->kernel[i] - 1) * w->dilation[i] + 1;
    if (mode == PAD_SAME_UPPER || mode == PAD_SAME_LOWER) {
        w->out[i] = (in + stride - 1) / stride;
        int64_t total = w->out[i] ? MAX((w->out[i] - 1) * stride + cover - in, 0) : 0;
        w->pad_begin[i] = mode == PAD_SAME_UPPER ? total / 2 : total - total / 2;
        w->pad_end[i] = total - w->pad_begin[i];
        return ERR_OK;
    }
    if (mode == PAD_VALID) w->pad_begin[i] = w->pad_end[i] = 0;
    int64_t room = in + w->pad_begin[i] + w->pad_end[i] - cover;
    if (room < 0)
        return err_set(ERR_SHAPE,
                       "axis %d: a window of %lld does not fit into %lld with padding %lld and %lld", 2 + i,
                       (long long)cover, (long long)in, (long long)w->pad_begin[i], (long long)w->pad_end[i]);
    w->out[i] = room / stride + 1;
    /* one more, if it starts inside the input or the padding before it */
    if (ceil_mode && room % stride && w->out[i] * stride < in + w->pad_begin[i]) w->out[i]++;
    return ERR_OK;
}

static err transpose_axis(struct op_window *w, int i, enum pad_mode mode, int64_t wanted)
{
    int64_t cover = (w->kernel[i] - 1) * w->dilation[i] + 1;
    if (w->in[i] == 0) return err_set(ERR_SHAPE, "axis %d of input 0 is empty", 2 + i);
    int64_t full = w->stride[i] * (w->in[i] - 1) + w->output_padding[i] + cover;
    if (mode == PAD_VALID) w->pad_begin[i] = w->pad_end[i] = 0;
    if (wanted < 0 && (mode == PAD_SAME_UPPER || mode == PAD_SAME_LOWER))
        wanted = MIN(w->in[i] * w->stride[i], full); /* ONNX's own inference never adds to `full` */
    if (wanted >= 0) {
        int64_t total = MAX(full - wanted, 0);
        w->pad_begin[i] = mode == PAD_SAME_UPPER ? total / 2 : total - total / 2;
        w->pad_end[i] = total - w->pad_begin[i];
        w->output_padding[i] += MAX(wanted - full, 0);
        w->out[i] = wanted;
        return ERR_OK;
    }
    w->out[i] = full - w->pad_begin[i] - w->pad_end[i];
    if (w->out[i] < 0) return err_set(ERR_SHAPE, "axis %d: the pads are larger than the result", 2 + i);
    return ERR_OK;
}

err op_window(const struct op_node *n, const struct tensor_shape *x, const struct tensor_shape *weight,
              struct op_window *ret)
{
    struct op_window w = {0};
    enum pad_mode mode = PAD_EXPLICIT;
    int64_t wanted[6];
    err e = read_pad_mode(n, &mode);
    if (!e) e = read_attributes(n, x, weight, &w);
    if (e) return e;
    if (n->kind != OP_CONV_TRANSPOSE) {
        bool ceil_mode = op_attr_int(n, "ceil_mode", 0) != 0;
        for (int i = 0; !e && i < w.n; i++) e = forward_axis(&w, i, mode, ceil_mode);
    } else {
        /* some exporters give all axes of output_shape, most only the spatial ones */
        const int64_t *v = NULL;
        size_t len = op_attr_ints(n, "output_shape", &v);
        if (len && len != (size_t)w.n && len != (size_t)w.n + 2)
            return err_set(ERR_SHAPE, "output_shape has %zu numbers, not %d", len, w.n);
        for (int i = 0; i < w.n; i++) {
            wanted[i] = len ? v[len - (size_t)w.n + (size_t)i] : -1;
            if (len && (wanted[i] < 0 || wanted[i] > MOST))
                return err_set(ERR_SHAPE, "output_shape holds %lld", (long long)wanted[i]);
        }
        for (int i = 0; !e && i < w.n; i++) e = transpose_axis(&w, i, mode, wanted[i]);
    }
    if (!e) *ret = w;
    return e;
}

static err push_window(const struct tensor_shape *x, const struct op_window *w, struct tensor_shape *out)
{
    err e = ERR_OK;
    for (int i = 0; !e && i < w->n; i++) e = op_push(out, w->out[i], op_bounded(x, 2 + i));
    return e;
}

static err conv_like(const struct op_node *n, const struct op_info *in, int64_t channels, struct op_info *out)
{
    struct op_window w;
    err e = op_want_same_type(in, 0, 1);
    if (!e) e = op_want_vector(n, in, 2, channels);
    if (!e) e = op_window(n, &in[0].shape, &in[1].shape, &w);
    if (e) return e;
    out[0].dtype = in[0].dtype;
    e = op_push(&out[0].shape, in[0].shape.dims[0], op_bounded(&in[0].shape, 0));
    if (!e) e = op_push(&out[0].shape, channels, false);
    return e ? e : push_window(&in[0].shape, &w, &out[0].shape);
}

/* Channels behind a bound would have to match the weight's: there the bound must be the size, which nobody
 * knows. */
static err want_known_channels(const struct op_info *in)
{
    return op_bounded(&in[0].shape, 1) ? err_set(ERR_UNSUPPORTED, "the channels of input 0 depend on data")
                                       : ERR_OK;
}

/* W is [M, C / group, kernel...] */
err op_rule_conv(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape, *w = &in[1].shape;
    int64_t group = op_attr_int(n, "group", 1), channels;
    err e = op_want_rank_from(in, 0, 3);
    if (!e) e = op_want_rank(in, 1, x->rank);
    if (!e) e = want_known_channels(in);
    if (!e && (group < 1 || w->dims[0] % group))
        e = err_set(ERR_SHAPE, "group %lld of %lld filters", (long long)group, (long long)w->dims[0]);
    if (!e) e = op_times(w->dims[1], group, &channels);
    if (!e && channels != x->dims[1])
        e = err_set(ERR_SHAPE, "input 0 has %lld channels, input 1 (weight) is for %lld in %lld groups",
                    (long long)x->dims[1], (long long)channels, (long long)group);
    return e ? e : conv_like(n, in, w->dims[0], out);
}

/* W is [C, M / group, kernel...] */
err op_rule_conv_transpose(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape, *w = &in[1].shape;
    int64_t group = op_attr_int(n, "group", 1), channels;
    err e = op_want_rank_from(in, 0, 3);
    if (!e) e = op_want_rank(in, 1, x->rank);
    if (!e) e = want_known_channels(in);
    if (!e && x->bounded >> 2) e = err_set(ERR_UNSUPPORTED, "the sizes of input 0 depend on data");
    if (!e && w->dims[0] != x->dims[1])
        e = err_set(ERR_SHAPE, "input 0 has %lld channels, input 1 (weight) %lld", (long long)x->dims[1],
                    (long long)w->dims[0]);
    if (!e && (group < 1 || x->dims[1] % group))
        e = err_set(ERR_SHAPE, "group %lld of %lld channels", (long long)group, (long long)x->dims[1]);
    if (!e) e = op_times(w->dims[1], group, &channels);
    return e ? e : conv_like(n, in, channels, out);
}

/* MaxPool may also give the place of each maximum. */
err op_rule_pool(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    struct op_window w;
    err e = op_window(n, &in[0].shape, NULL, &w);
    if (e) return e;
    out[0].dtype = in[0].dtype;
    e = op_push_range(&out[0].shape, &in[0].shape, 0, 2);
    if (!e) e = push_window(&in[0].shape, &w, &out[0].shape);
    if (!e && n->n_out > 1) {
        out[1].dtype = TENSOR_I64;
        out[1].shape = out[0].shape;
    }
    return e;
}

err op_rule_global_pool(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    (void)n;
    err e = op_want_rank_from(in, 0, 2);
    if (e) return e;
    out[0].dtype = in[0].dtype;
    e = op_push_range(&out[0].shape, &in[0].shape, 0, 2);
    for (int i = 2; !e && i < in[0].shape.rank; i++) e = op_push(&out[0].shape, 1, false);
    return e;
}
