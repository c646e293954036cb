/* ConvTranspose: each input pixel adds its filters to the places of the output that its window covers
 * (channels last).
 *
 * Per sixteen filters and tap: four neighbouring pixels of the input times the weights [channel][16], then
 * added where they belong. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/spatial.h"

#include <string.h>

struct deconv {
    struct ref_window w;
    int64_t batch, in_channels, out_channels, per_group, filters;
    const float *x, *weight, *zeros;
    float *y, *packed;
};

/* Where pixel `at` of the input adds for tap t; false if that is cut off by the pads. */
static bool target(const struct ref_window *w, const int64_t *at, int64_t t, int64_t *ret)
{
    const int64_t tap[3] = {t / (w->kernel[2] * w->kernel[1]), t / w->kernel[2] % w->kernel[1],
                            t % w->kernel[2]};
    int64_t place = 0;
    for (int i = 0; i < 3; i++) {
        int64_t p = at[i] * w->stride[i] + tap[i] * w->dilation[i] - w->pad[i];
        if (p < 0 || p >= w->out[i]) return false;
        place = place * w->out[i] + p;
    }
    *ret = place;
    return true;
}

/* Four pixels of a row of the input, one tap, `n` filters. */
static void add_pixels(const struct deconv *v, int64_t image, const int64_t *at, int64_t t, int64_t first,
                       int64_t n)
{
    const struct ref_window *w = &v->w;
    const float *rows[REF_PIXELS];
    float acc[REF_PIXELS * REF_FILTERS] = {0};
    int64_t in_plane = w->in[0] * w->in[1] * w->in[2], out_plane = w->out[0] * w->out[1] * w->out[2];
    int64_t pixel = image * in_plane + (at[0] * w->in[1] + at[1]) * w->in[2] + at[2],
            channel = first / v->filters * v->per_group;
    for (int p = 0; p < REF_PIXELS; p++)
        rows[p] = at[2] + p < w->in[2] ? v->x + (pixel + p) * v->in_channels + channel : v->zeros;
    ref_block(acc, rows, 1, v->per_group, v->packed);
    for (int64_t p = 0; p < MIN(REF_PIXELS, w->in[2] - at[2]); p++) {
        const int64_t one[3] = {at[0], at[1], at[2] + p};
        int64_t place;
        if (!target(w, one, t, &place)) continue;
        float *to = v->y + (image * out_plane + place) * v->out_channels + first;
        for (int64_t f = 0; f < n; f++)
            to[f] += acc[p * REF_FILTERS + f];
    }
}

static void deconv_filters(const struct deconv *v, int64_t first, int64_t n)
{
    const struct ref_window *w = &v->w;
    int64_t group = first / v->filters, at_filter = first % v->filters;
    for (int64_t t = 0; t < w->taps; t++) {
        memset(v->packed, 0, (size_t)(v->per_group * REF_FILTERS) * sizeof(float));
        for (int64_t i = 0; i < v->per_group; i++)
            for (int64_t f = 0; f < n; f++)
                v->packed[i * REF_FILTERS + f] =
                    v->weight[((group * v->per_group + i) * v->filters + at_filter + f) * w->taps + t];
        for (int64_t i = 0; i < v->batch * w->in[0] * w->in[1]; i++)
            for (int64_t x = 0; x < w->in[2]; x += REF_PIXELS) {
                const int64_t at[3] = {i / w->in[1] % w->in[0], i % w->in[1], x};
                add_pixels(v, i / w->in[1] / w->in[0], at, t, first, n);
            }
    }
}

static void deconv_double(const struct deconv *v, const double *x, const double *weight, double *y)
{
    const struct ref_window *w = &v->w;
    int64_t in_plane = w->in[0] * w->in[1] * w->in[2], out_plane = w->out[0] * w->out[1] * w->out[2];
    for (int64_t i = 0; i < v->batch * in_plane; i++) {
        int64_t r = i % in_plane, place;
        const int64_t at[3] = {r / w->in[2] / w->in[1], r / w->in[2] % w->in[1], r % w->in[2]};
        for (int64_t t = 0; t < w->taps; t++) {
            if (!target(w, at, t, &place)) continue;
            double *to = y + (i / in_plane * out_plane + place) * v->out_channels;
            for (int64_t f = 0; f < v->out_channels; f++) {
                int64_t group = f / v->filters;
                for (int64_t k = 0; k < v->per_group; k++) {
                    int64_t channel = group * v->per_group + k;
                    to[f] += x[i * v->in_channels + channel] *
                             weight[(channel * v->filters + f % v->filters) * w->taps + t];
                }
            }
        }
    }
}

size_t ref_conv_transpose_scratch(const struct ref_call *c)
{
    if (c->in[0].shape.rank < 3) return 0;
    size_t bytes = ref_dense_bytes(&c->in[0], true) + ref_dense_bytes(&c->out[0], true) +
                   ref_dense_bytes(&c->in[1], false);
    if (c->n_in > 2) bytes += ref_dense_bytes(&c->in[2], false);
    return bytes + REF_ALIGN(c->in[0].shape.dims[1] * REF_FILTERS * 4) +
           REF_ALIGN(c->in[0].shape.dims[1] * 4);
}

static void start_with_bias(const struct tensor *y, const struct tensor *bias)
{
    static const double zero = 0;
    struct tensor b = *y;
    for (int i = 0; i < y->shape.rank; i++)
        b.strides[i] = i == 1 ? 1 : 0;
    b.data = bias->data;
    if (bias->data)
        ref_copy_tensor(y, &b);
    else
        ref_fill(y, &zero);
}

err ref_conv_transpose(struct ref_call *c)
{
    struct deconv v = {.batch = c->in[0].shape.dims[0], .in_channels = c->in[0].shape.dims[1]};
    err e = ref_window_read(c, &c->in[1].shape, &v.w);
    if (e) return e;
    v.per_group = v.in_channels / v.w.group;
    v.filters = c->in[1].shape.dims[1];
    v.out_channels = v.filters * v.w.group;
    if (v.per_group * v.w.group != v.in_channels || c->in[1].shape.dims[0] != v.in_channels ||
        c->out[0].shape.dims[1] != v.out_channels || c->out[0].shape.dims[0] != v.batch ||
        (ref_has(c, 2) && tensor_count(&c->in[2].shape) != v.out_channels))
        return err_set(ERR_SHAPE, "the channels of a ConvTranspose differ");
    if (tensor_count(&c->out[0].shape) == 0) return ERR_OK;
    struct tensor x = ref_dense_in(c, 0, true), weight = ref_dense_in(c, 1, false),
                  y = ref_dense_out(c, 0, true);
    struct tensor bias = ref_has(c, 2) ? ref_dense_in(c, 2, false) : (struct tensor){.dtype = TENSOR_NONE};
    start_with_bias(&y, &bias);
    v.x = x.data;
    v.weight = weight.data;
    v.y = y.data;
    v.packed = ref_scratch(c, (size_t)(v.in_channels * REF_FILTERS) * sizeof(float));
    float *zeros = ref_scratch(c, (size_t)v.in_channels * sizeof(float));
    memset(zeros, 0, (size_t)v.in_channels * sizeof(float));
    v.zeros = zeros;
    if (x.dtype == TENSOR_F64) {
        deconv_double(&v, x.data, weight.data, y.data);
    } else {
        for (int64_t f = 0; f < v.out_channels;) {
            int64_t n = MIN(REF_FILTERS, v.filters - f % v.filters);
            deconv_filters(&v, f, n);
            f += n;
        }
    }
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}
