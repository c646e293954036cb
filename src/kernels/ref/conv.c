/* Conv: direct, channels last.
 *
 * Sixteen filters at a time: their weights are put in order [tap][channel][filter] in scratch (a cost of one
 * pass over the weights per run), then each group of four neighbouring pixels of the output is one block of 4
 * x 16 sums in registers. A tap in the padding points to a row of zeros. Depthwise convolutions run over the
 * channels instead. float64 takes the plain loops. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/spatial.h"

#include <string.h>

/* Huge pads allow huge windows that hold nothing: they would only burn time. */
static const int64_t MOST_TAPS = (int64_t)1 << 22;

err ref_window_read(const struct ref_call *c, const struct tensor_shape *weight, struct ref_window *ret)
{
    struct op_window w;
    err e = op_window(c->node, &c->in[0].shape, weight, &w);
    if (e) return e;
    if (w.n > 3) return err_set(ERR_UNSUPPORTED, "%d spatial axes", w.n);
    struct ref_window r = {.taps = 1, .group = w.group};
    for (int i = 0; i < 3; i++) {
        int k = i - (3 - w.n);
        r.kernel[i] = k < 0 ? 1 : w.kernel[k];
        r.stride[i] = k < 0 ? 1 : w.stride[k];
        r.dilation[i] = k < 0 ? 1 : w.dilation[k];
        r.pad[i] = k < 0 ? 0 : w.pad_begin[k];
        r.in[i] = k < 0 ? 1 : w.in[k];
        r.out[i] = k < 0 ? 1 : w.out[k];
        if (r.kernel[i] > MOST_TAPS / r.taps) return err_set(ERR_LIMIT, "a window of more than 2^22 places");
        r.taps *= r.kernel[i];
        if (k >= 0 && c->out[0].shape.dims[2 + k] != r.out[i])
            return err_set(ERR_SHAPE, "axis %d of the output does not fit", 2 + k);
    }
    *ret = r;
    return ERR_OK;
}

static void REF_HOT tile(float *restrict acc, const float *const *x, int64_t taps, int64_t channels,
                         const float *restrict w)
{
    float sum[REF_PIXELS][REF_FILTERS];
    memcpy(sum, acc, sizeof sum);
    for (int64_t t = 0; t < taps; t++, x += REF_PIXELS) {
        const float *restrict a = x[0], *restrict b = x[1], *restrict c = x[2], *restrict d = x[3];
        for (int64_t i = 0; i < channels; i++, w += REF_FILTERS)
            for (int k = 0; k < REF_FILTERS; k++) {
                sum[0][k] += a[i] * w[k];
                sum[1][k] += b[i] * w[k];
                sum[2][k] += c[i] * w[k];
                sum[3][k] += d[i] * w[k];
            }
    }
    memcpy(acc, sum, sizeof sum);
}

void ref_block(float *acc, const float *const *x, int64_t taps, int64_t channels, const float *w)
{
    tile(acc, x, taps, channels, w);
}

struct conv {
    struct ref_window w;
    int64_t batch, in_channels, out_channels, per_group,
        filters; /* per_group: input channels, filters: outputs */
    const float *x, *weight, *bias, *zeros;
    float *y, *packed;
    const float **rows;
};

/* [filter][channel][tap] of `n` filters from `first` to [tap][channel][16] */
static void pack_filters(const struct conv *v, int64_t first, int64_t n)
{
    int64_t taps = v->w.taps, channels = v->per_group;
    if (n < REF_FILTERS) memset(v->packed, 0, (size_t)(taps * channels * REF_FILTERS) * sizeof(float));
    for (int64_t f = 0; f < n; f++) {
        const float *from = v->weight + (first + f) * channels * taps;
        for (int64_t i = 0; i < channels; i++)
            for (int64_t t = 0; t < taps; t++)
                v->packed[(t * channels + i) * REF_FILTERS + f] = from[i * taps + t];
    }
}

/* Rows of x for each tap and each of the four pixels from `column`; beyond the end, zeros. */
static void find_rows(const struct conv *v, int64_t n, int64_t z, int64_t y, int64_t column, int64_t channel)
{
    const struct ref_window *w = &v->w;
    int64_t plane = w->in[0] * w->in[1] * w->in[2];
    for (int p = 0; p < REF_PIXELS; p++) {
        int64_t at[3] = {z * w->stride[0] - w->pad[0], y * w->stride[1] - w->pad[1],
                         (column + p) * w->stride[2] - w->pad[2]};
        for (int64_t t = 0; t < w->taps; t++) {
            int64_t pixel;
            bool inside = column + p < w->out[2] && ref_tap(w, at, t, &pixel);
            v->rows[t * REF_PIXELS + p] =
                inside ? v->x + (n * plane + pixel) * v->in_channels + channel : v->zeros;
        }
    }
}

/* `n` filters from number `first`, which belong to one group. */
static void conv_filters(const struct conv *v, int64_t first, int64_t n)
{
    const struct ref_window *w = &v->w;
    int64_t channel = first / v->filters * v->per_group;
    pack_filters(v, first, n);
    float start[REF_FILTERS] = {0};
    for (int64_t f = 0; f < n && v->bias; f++)
        start[f] = v->bias[first + f];
    for (int64_t row = 0; row < v->batch * w->out[0] * w->out[1]; row++) {
        int64_t y = row % w->out[1], z = row / w->out[1] % w->out[0], image = row / w->out[1] / w->out[0];
        for (int64_t x = 0; x < w->out[2]; x += REF_PIXELS) {
            float acc[REF_PIXELS * REF_FILTERS];
            for (int p = 0; p < REF_PIXELS; p++)
                memcpy(acc + p * REF_FILTERS, start, sizeof start);
            find_rows(v, image, z, y, x, channel);
            ref_block(acc, v->rows, w->taps, v->per_group, v->packed);
            float *to = v->y + (row * w->out[2] + x) * v->out_channels + first;
            for (int64_t p = 0; p < MIN(REF_PIXELS, w->out[2] - x); p++)
                memcpy(to + p * v->out_channels, acc + p * REF_FILTERS, (size_t)n * sizeof(float));
        }
    }
}

static void REF_HOT multiply_add(float *restrict y, const float *restrict x, const float *restrict w,
                                 int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i] * w[i];
}

static void conv_depthwise(const struct conv *v)
{
    const struct ref_window *w = &v->w;
    int64_t channels = v->out_channels, plane = w->in[0] * w->in[1] * w->in[2];
    for (int64_t i = 0; i < channels; i++)
        for (int64_t t = 0; t < w->taps; t++)
            v->packed[t * channels + i] = v->weight[i * w->taps + t];
    float *y = v->y;
    for (int64_t i = 0; i < v->batch * w->out[0] * w->out[1] * w->out[2]; i++, y += channels) {
        int64_t x = i % w->out[2], r = i / w->out[2];
        int64_t at[3] = {r / w->out[1] % w->out[0] * w->stride[0] - w->pad[0],
                         r % w->out[1] * w->stride[1] - w->pad[1], x * w->stride[2] - w->pad[2]};
        int64_t image = r / w->out[1] / w->out[0];
        if (v->bias)
            memcpy(y, v->bias, (size_t)channels * sizeof *y);
        else
            memset(y, 0, (size_t)channels * sizeof *y);
        for (int64_t t = 0; t < w->taps; t++) {
            int64_t pixel;
            if (ref_tap(w, at, t, &pixel))
                multiply_add(y, v->x + (image * plane + pixel) * channels, v->packed + t * channels,
                             channels);
        }
    }
}

/* float64: one number at a time. */
static void conv_double(const struct conv *v, const double *x, const double *weight, const double *bias,
                        double *y)
{
    const struct ref_window *w = &v->w;
    int64_t plane = w->in[0] * w->in[1] * w->in[2], pixels = w->out[0] * w->out[1] * w->out[2];
    for (int64_t i = 0; i < v->batch * pixels; i++) {
        int64_t r = i % pixels;
        int64_t at[3] = {r / w->out[2] / w->out[1] * w->stride[0] - w->pad[0],
                         r / w->out[2] % w->out[1] * w->stride[1] - w->pad[1],
                         r % w->out[2] * w->stride[2] - w->pad[2]};
        for (int64_t f = 0; f < v->out_channels; f++) {
            double sum = bias ? bias[f] : 0;
            int64_t channel = f / v->filters * v->per_group;
            for (int64_t t = 0; t < w->taps; t++) {
                int64_t pixel;
                if (!ref_tap(w, at, t, &pixel)) continue;
                const double *from = x + (i / pixels * plane + pixel) * v->in_channels + channel;
                for (int64_t k = 0; k < v->per_group; k++)
                    sum += from[k] * weight[(f * v->per_group + k) * w->taps + t];
            }
            y[i * v->out_channels + f] = sum;
        }
    }
}

static int64_t packed_floats(const struct ref_call *c)
{
    const struct tensor_shape *w = &c->in[1].shape;
    int64_t one = 1; /* numbers of one filter */
    for (int i = 1; i < w->rank; i++)
        one *= w->dims[i];
    return one *
           (w->dims[1] == 1 ? MAX(REF_FILTERS, w->dims[0]) : REF_FILTERS); /* depthwise packs all at once */
}

static int64_t tap_count(const struct ref_call *c)
{
    int64_t taps = 1;
    for (int i = 2; i < c->in[1].shape.rank; i++)
        taps *= c->in[1].shape.dims[i];
    return taps;
}

size_t ref_conv_scratch(const struct ref_call *c)
{
    if (c->in[0].shape.rank < 3) return 0;
    size_t bytes = ref_dense_bytes(&c->in[0], true) + ref_dense_bytes(&c->out[0], true) +
                   ref_dense_bytes(&c->in[1], false);
    if (c->n_in > 2) bytes += ref_dense_bytes(&c->in[2], false);
    bytes += REF_ALIGN(packed_floats(c) * 4);
    return bytes + REF_ALIGN(c->in[0].shape.dims[1] * 4) + REF_ALIGN(tap_count(c) * REF_PIXELS * 8);
}

err ref_conv(struct ref_call *c)
{
    struct conv v = {.batch = c->in[0].shape.dims[0], .in_channels = c->in[0].shape.dims[1]};
    err e = ref_window_read(c, &c->in[1].shape, &v.w);
    if (e) return e;
    v.out_channels = c->in[1].shape.dims[0];
    v.per_group = c->in[1].shape.dims[1];
    v.filters = v.out_channels / v.w.group;
    if (v.per_group * v.w.group != v.in_channels || v.filters * v.w.group != v.out_channels ||
        c->out[0].shape.dims[1] != v.out_channels || c->out[0].shape.dims[0] != v.batch ||
        (ref_has(c, 2) && tensor_count(&c->in[2].shape) != v.out_channels))
        return err_set(ERR_SHAPE, "the channels of a Conv differ");
    if (tensor_count(&c->out[0].shape) == 0) return ERR_OK;
    struct tensor x = ref_dense_in(c, 0, true), weight = ref_dense_in(c, 1, false),
                  y = ref_dense_out(c, 0, true);
    struct tensor bias = ref_has(c, 2) ? ref_dense_in(c, 2, false) : (struct tensor){.dtype = TENSOR_NONE};
    if (x.dtype == TENSOR_F64) {
        conv_double(&v, x.data, weight.data, bias.data, y.data);
        ref_dense_done(c, 0, &y);
        return ERR_OK;
    }
    v.x = x.data;
    v.weight = weight.data;
    v.bias = bias.data;
    v.y = y.data;
    v.packed = ref_scratch(c, (size_t)packed_floats(c) * sizeof(float));
    float *zeros = ref_scratch(c, (size_t)v.in_channels * sizeof(float));
    memset(zeros, 0, (size_t)v.in_channels * sizeof(float));
    v.zeros = zeros;
    v.rows = ref_scratch(c, (size_t)(v.w.taps * REF_PIXELS) * sizeof *v.rows);
    if (v.per_group == 1 && v.filters == 1) {
        conv_depthwise(&v);
    } else {
        for (int64_t f = 0; f < v.out_channels;) {
            int64_t n = MIN(REF_FILTERS, v.filters - f % v.filters);
            conv_filters(&v, f, n);
            f += n;
        }
    }
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}
