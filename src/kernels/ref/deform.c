/* DeformConv: a convolution whose taps are moved by offsets that are data, and weighted by a mask (Zhu et al. 2019, "Deformable
 * ConvNets v2"). Two spatial axes.
 *
 * Per place of the output the moved taps of all channels are read by bilinear interpolation into one column, and each filter is a
 * product with its group's part of it. What lies outside of the image is 0. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>

struct deform {
    struct op_window w;
    struct tensor x, weight, offset, bias, mask, y;
    bool has_bias, has_mask;
    int64_t channels, filters, offset_groups;
};

static double get(const struct tensor *t, int64_t i)
{
    return t->dtype == TENSOR_F64 ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i];
}

static double sample(const struct tensor *x, int64_t plane, double y, double at)
{
    int64_t h = x->shape.dims[2], w = x->shape.dims[3];
    if (!(y > -1 && at > -1 && y < (double)h && at < (double)w)) return 0;
    double top = floor(y), left = floor(at), fy = y - top, fx = at - left, sum = 0;
    for (int k = 0; k < 4; k++) {
        int64_t i = (int64_t)top + k / 2, j = (int64_t)left + k % 2;
        double weight = (k / 2 ? fy : 1 - fy) * (k % 2 ? fx : 1 - fx);
        if (i >= 0 && j >= 0 && i < h && j < w) sum += weight * get(x, (plane * h + i) * w + j);
    }
    return sum;
}

/* column[channel][tap] of place (i, j) of image n */
static void fill(const struct deform *d, int64_t n, int64_t i, int64_t j, double *column)
{
    int64_t taps = d->w.kernel[0] * d->w.kernel[1], area = d->w.out[0] * d->w.out[1], at = i * d->w.out[1] + j;
    int64_t per_group = d->channels / d->offset_groups;
    for (int64_t c = 0; c < d->channels; c++)
        for (int64_t t = 0; t < taps; t++) {
            int64_t moved = (n * d->offset_groups + c / per_group) * taps + t;
            double y = (double)(i * d->w.stride[0] - d->w.pad_begin[0] + t / d->w.kernel[1] * d->w.dilation[0]);
            double x = (double)(j * d->w.stride[1] - d->w.pad_begin[1] + t % d->w.kernel[1] * d->w.dilation[1]);
            y += get(&d->offset, moved * 2 * area + at);
            x += get(&d->offset, (moved * 2 + 1) * area + at);
            double v = sample(&d->x, n * d->channels + c, y, x);
            column[c * taps + t] = d->has_mask ? v * get(&d->mask, moved * area + at) : v;
        }
}

static void place(const struct deform *d, int64_t n, int64_t at, const double *column)
{
    int64_t length = d->channels / d->w.group * d->w.kernel[0] * d->w.kernel[1], area = d->w.out[0] * d->w.out[1];
    for (int64_t f = 0; f < d->filters; f++) {
        const double *part = column + f / (d->filters / d->w.group) * length;
        double sum = d->has_bias ? get(&d->bias, f) : 0;
        for (int64_t k = 0; k < length; k++)
            sum += part[k] * get(&d->weight, f * length + k);
        int64_t to = (n * d->filters + f) * area + at;
        if (d->y.dtype == TENSOR_F64)
            ((double *)d->y.data)[to] = sum;
        else
            ((float *)d->y.data)[to] = (float)sum;
    }
}

size_t ref_deform_conv_scratch(const struct ref_call *c)
{
    const struct tensor_shape *w = &c->in[1].shape;
    if (w->rank != 4 || c->in[0].shape.rank != 4) return 0;
    return ref_scratch_rows(c) + REF_ALIGN(c->in[0].shape.dims[1] * w->dims[2] * w->dims[3] * 8);
}

err ref_deform_conv(struct ref_call *c)
{
    struct deform d = {.offset_groups = op_attr_int(c->node, "offset_group", 1)};
    err e = op_window(c->node, &c->in[0].shape, &c->in[1].shape, &d.w);
    if (e) return e;
    if (d.w.n != 2 || d.offset_groups < 1) return err_set(ERR_UNSUPPORTED, "DeformConv has two spatial axes");
    d.has_bias = ref_has(c, 3);
    d.has_mask = ref_has(c, 4);
    d.x = ref_dense_in(c, 0, false);
    d.weight = ref_dense_in(c, 1, false);
    d.offset = ref_dense_in(c, 2, false);
    if (d.has_bias) d.bias = ref_dense_in(c, 3, false);
    if (d.has_mask) d.mask = ref_dense_in(c, 4, false);
    d.y = ref_dense_out(c, 0, false);
    d.channels = d.x.shape.dims[1];
    d.filters = d.weight.shape.dims[0];
    int64_t taps = d.w.kernel[0] * d.w.kernel[1], area = d.w.out[0] * d.w.out[1];
    if (tensor_count(&d.offset.shape) != d.x.shape.dims[0] * d.offset_groups * taps * 2 * area ||
        (d.has_mask && tensor_count(&d.mask.shape) != d.x.shape.dims[0] * d.offset_groups * taps * area) ||
        d.channels % d.offset_groups || d.w.group < 1 || d.filters % d.w.group || d.weight.shape.dims[1] * d.w.group != d.channels || tensor_count(&d.y.shape) != d.x.shape.dims[0] * d.filters * area)
        return err_set(ERR_SHAPE, "offsets or mask do not fit to the output");
    double *column = ref_scratch(c, (size_t)(d.channels * taps) * sizeof *column);
    for (int64_t n = 0; n < d.x.shape.dims[0]; n++)
        for (int64_t at = 0; at < area; at++) {
            fill(&d, n, at / d.w.out[1], at % d.w.out[1], column);
            place(&d, n, at, column);
        }
    ref_dense_done(c, 0, &d.y);
    return ERR_OK;
}
