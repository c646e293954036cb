/* GridSample: the image at the places of a grid, in two or three dimensions.
 *
 * Per place and axis a list of one (nearest), two (linear) or four (cubic) source indices with weights; the
 * padding mode turns an index outside into one inside, or into weight 0. Then one sum over their product for
 * all channels (channels last). Coordinates follow ONNX GridSample-20. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

enum { AXES = 3, TAPS = 4 };
enum mode { NEAREST, LINEAR, CUBIC };
enum padding { ZEROS, BORDER, REFLECTION };

struct sampler {
    enum mode mode;
    enum padding padding;
    bool align;
};

struct axis_taps {
    int n;
    int64_t index[TAPS];
    double weight[TAPS];
};

static double reflect(double x, double low, double high)
{
    double range = high - low;
    if (range <= 0) return low;
    if (x < low) {
        double over = low - x;
        double n = floor(over / range), r = over - n * range;
        return fmod(n, 2) == 0 ? low + r : high - r;
    }
    if (x > high) {
        double over = x - high;
        double n = floor(over / range), r = over - n * range;
        return fmod(n, 2) == 0 ? high - r : low + r;
    }
    return x;
}

/* An index that may lie outside; -1: it counts as zero. */
static int64_t pixel_index(const struct sampler *s, double i, int64_t size)
{
    double last = (double)(size - 1);
    if (i >= 0 && i <= last) return (int64_t)i;
    switch (s->padding) {
    case ZEROS:
        return -1;
    case BORDER:
        return i < 0 ? 0 : size - 1;
    case REFLECTION:
        break;
    }
    double r = s->align ? reflect(i, 0, last) : reflect(i, -0.5, last + 0.5);
    return r < 0 ? 0 : r > last ? size - 1 : (int64_t)r;
}

static void cubic_weights(double d, double *w)
{
    const double a = -0.75;
    double x[4] = {1 + d, d, 1 - d, 2 - d};
    for (int i = 0; i < 4; i++) {
        double v = x[i];
        w[i] = v <= 1 ? ((a + 2) * v - (a + 3)) * v * v + 1 : ((a * v - 5 * a) * v + 8 * a) * v - 4 * a;
    }
}

static void find_taps(const struct sampler *s, double g, int64_t size, struct axis_taps *t)
{
    double last = (double)(size - 1);
    double x = s->align ? (g + 1) / 2 * last : ((g + 1) * (double)size - 1) / 2;
    if (x != x) x = -1; /* NaN: like outside */
    x = x < -1e15 ? -1e15 : x > 1e15 ? 1e15 : x;
    if (s->mode == NEAREST) x = rint(x);
    double low = s->align ? 0 : -0.5, high = s->align ? last : last + 0.5;
    if (s->mode != CUBIC && (x < low || x > high)) {
        if (s->padding == BORDER) x = x < 0 ? 0 : x > last ? last : x;
        if (s->padding == REFLECTION) x = reflect(x, low, high);
    }
    double whole = floor(x), d = x - whole;
    t->n = s->mode == NEAREST ? 1 : s->mode == LINEAR ? 2 : 4;
    if (s->mode == NEAREST) {
        whole = rint(x);
        t->weight[0] = 1;
    } else if (s->mode == LINEAR) {
        t->weight[0] = 1 - d;
        t->weight[1] = d;
    } else {
        cubic_weights(d, t->weight);
    }
    for (int i = 0; i < t->n; i++) {
        t->index[i] = pixel_index(s, whole + i - (s->mode == CUBIC), size);
        if (t->index[i] < 0) t->weight[i] = 0, t->index[i] = 0;
    }
}

/* All channels of one place. */
static void sample(const struct tensor *x, int64_t image, const struct axis_taps *t, void *y)
{
    int axes = x->shape.rank - 2;
    int64_t channels = x->shape.dims[1], index[AXES] = {0}, counts[AXES];
    bool wide = x->dtype == TENSOR_F64;
    for (int i = 0; i < axes; i++)
        counts[i] = t[i].n;
    memset(y, 0, (size_t)channels * (wide ? 8 : 4));
    do {
        double w = 1;
        int64_t at = image * x->strides[0];
        for (int i = 0; i < axes; i++) {
            w *= t[i].weight[index[i]];
            at += t[i].index[index[i]] * x->strides[2 + i];
        }
        if (w == 0) continue;
        for (int64_t c = 0; c < channels; c++)
            if (wide)
                ((double *)y)[c] += w * ((const double *)x->data)[at + c];
            else
                ((float *)y)[c] += (float)w * ((const float *)x->data)[at + c];
    } while (ref_next(axes, counts, index));
}

static err read_sampler(const struct op_node *n, struct sampler *s)
{
    const char *mode = op_attr_string(n, "mode", n->opset >= 20 ? "linear" : "bilinear");
    const char *padding = op_attr_string(n, "padding_mode", "zeros");
    s->align = op_attr_int(n, "align_corners", 0) != 0;
    if (strcmp(mode, "nearest") == 0)
        s->mode = NEAREST;
    else if (strcmp(mode, "linear") == 0 || strcmp(mode, "bilinear") == 0)
        s->mode = LINEAR;
    else if (strcmp(mode, "cubic") == 0 || strcmp(mode, "bicubic") == 0)
        s->mode = CUBIC;
    else
        return err_set(ERR_UNSUPPORTED, "GridSample's mode '%.32s'", mode);
    if (strcmp(padding, "zeros") == 0)
        s->padding = ZEROS;
    else if (strcmp(padding, "border") == 0)
        s->padding = BORDER;
    else if (strcmp(padding, "reflection") == 0)
        s->padding = REFLECTION;
    else
        return err_set(ERR_UNSUPPORTED, "GridSample's padding '%.32s'", padding);
    return ERR_OK;
}

size_t ref_grid_sample_scratch(const struct ref_call *c)
{
    return ref_dense_bytes(&c->in[0], true) + ref_dense_bytes(&c->in[1], false) +
           ref_dense_bytes(&c->out[0], true);
}

err ref_grid_sample(struct ref_call *c)
{
    struct sampler s = {0};
    err e = read_sampler(c->node, &s);
    if (e) return e;
    const struct tensor_shape *gs = &c->in[1].shape, *xs = &c->in[0].shape;
    int axes = xs->rank - 2;
    if (axes < 1 || axes > AXES || gs->rank != xs->rank || gs->dims[gs->rank - 1] != axes ||
        gs->dims[0] != xs->dims[0])
        return err_set(ERR_SHAPE, "the grid does not fit to input 0");
    for (int i = 0; i < axes; i++)
        if (c->out[0].shape.dims[2 + i] != gs->dims[1 + i])
            return err_set(ERR_SHAPE, "the output does not fit to the grid");
    if (tensor_count(&c->out[0].shape) == 0) return ERR_OK;
    if (tensor_count(xs) == 0) return err_set(ERR_SHAPE, "there is nothing to sample");
    struct tensor x = ref_dense_in(c, 0, true), grid = ref_dense_in(c, 1, false),
                  y = ref_dense_out(c, 0, true);
    tensor_strides_channels_last(&x.shape, x.strides); /* sizes of 1 may have any stride so far */
    int64_t places = tensor_count(gs) / axes, per_image = places / MAX(gs->dims[0], 1),
            size = ref_size(&y) * x.shape.dims[1];
    for (int64_t i = 0; i < places; i++) {
        struct axis_taps t[AXES];
        for (int k = 0; k < axes; k++) { /* the grid says x first, the last axis */
            int64_t at = i * axes + (axes - 1 - k);
            double g = grid.dtype == TENSOR_F64 ? ((const double *)grid.data)[at]
                                                : (double)((const float *)grid.data)[at];
            find_taps(&s, g, x.shape.dims[2 + k], &t[k]);
        }
        sample(&x, i / per_image, t, (char *)y.data + i * size);
    }
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}
