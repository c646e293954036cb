/* Resize and Upsample in all modes (ONNX Resize-19).
 *
 * Interpolation is a product over axes, so each axis that changes is done by itself: for every place along it
 * a list of source places and weights (1 for nearest, 2 linear, 4 cubic, more with antialias), then one pass
 * whose inner loop runs over what lies behind that axis in memory. Any dense order of axes is taken as it is
 * (NCHW, NHWC). Nearest moves elements of any type in the same way; the other modes compute in float32 or
 * float64. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

enum mode { NEAREST, LINEAR, CUBIC };
enum coordinates {
    HALF_PIXEL,
    HALF_PIXEL_SYMMETRIC,
    PYTORCH_HALF_PIXEL,
    ALIGN_CORNERS,
    ASYMMETRIC,
    TF_HALF_PIXEL_FOR_NN,
    TF_CROP
};
enum nearest { ROUND_PREFER_FLOOR, ROUND_PREFER_CEIL, FLOOR, CEIL, SIMPLE };

struct resize {
    enum mode mode;
    enum coordinates coordinates;
    enum nearest nearest;
    bool antialias, exclude_outside;
    /* The corners of align_corners lie at size * scale, which need not be whole: so say ONNX's own test cases (opset 19). In older
     * files they lie at the whole size, as PyTorch, which made those files, and ONNX Runtime have it. */
    bool by_scales;
    double a, extrapolation; /* cubic coefficient; the value outside the crop */
    double scale[TENSOR_MAX_RANK], roi[2][TENSOR_MAX_RANK];
};

static int word(const char *s, const char *const *words, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(s, words[i]) == 0) return i;
    return -1;
}

static err read_words(const struct op_node *n, struct resize *r)
{
    static const char *const MODES[] = {"nearest", "linear", "cubic"};
    static const char *const COORDINATES[] = {
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
        "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize"};
    static const char *const NEARESTS[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
    bool old = n->kind == OP_UPSAMPLE || n->opset < 11;
    int mode = word(op_attr_string(n, "mode", "nearest"), MODES, 3);
    int coordinates = word(op_attr_string(n, "coordinate_transformation_mode", "half_pixel"), COORDINATES, 7);
    int nearest = word(op_attr_string(n, "nearest_mode", "round_prefer_floor"), NEARESTS, 4);
    if (strcmp(op_attr_string(n, "mode", ""), "bilinear") == 0) mode = LINEAR;
    if (mode < 0 || coordinates < 0 || nearest < 0)
        return err_set(ERR_UNSUPPORTED, "an unknown mode of Resize");
    r->mode = (enum mode)mode;
    r->coordinates = old ? ASYMMETRIC : (enum coordinates)coordinates;
    r->nearest = old ? SIMPLE : (enum nearest)nearest;
    r->antialias = op_attr_int(n, "antialias", 0) != 0 && mode != NEAREST;
    r->exclude_outside = op_attr_int(n, "exclude_outside", 0) != 0;
    r->a = (double)op_attr_float(n, "cubic_coeff_a", -0.75f);
    r->extrapolation = (double)op_attr_float(n, "extrapolation_value", 0);
    return ERR_OK;
}

/* Scales and the region of interest of each axis. */
static err read_scales(const struct ref_call *c, struct resize *r)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int rank = in->shape.rank, n_axes = -1, axes_of[TENSOR_MAX_RANK];
    int64_t axes[TENSOR_MAX_RANK];
    bool old = c->node->kind == OP_UPSAMPLE || c->node->opset < 11;
    int scales = old ? 1 : 2, roi = old ? -1 : 1, sizes = old ? -1 : 3;
    const struct op_attr *list = op_attr(c->node, "scales");
    if (out->shape.rank != rank) return err_set(ERR_SHAPE, "Resize keeps the number of axes");
    err e = ref_axes(c, KERNEL_MAX_IN, rank, axes, &n_axes);
    if (e) return e;
    int count = n_axes < 0 ? rank : n_axes;
    for (int i = 0; i < rank; i++) {
        r->scale[i] = in->shape.dims[i] ? (double)out->shape.dims[i] / (double)in->shape.dims[i] : 1;
        r->roi[0][i] = 0;
        r->roi[1][i] = 1;
    }
    for (int i = 0; i < count; i++)
        axes_of[i] = n_axes < 0 ? i : (int)axes[i];
    bool has_scales = ref_has(c, scales) && tensor_count(&c->in[scales].shape) == count;
    r->by_scales = has_scales && c->node->opset >= 19;
    for (int i = 0; i < count && has_scales; i++)
        r->scale[axes_of[i]] = ref_double_at(&c->in[scales], i);
    if (old && !has_scales && list && list->type == OP_ATTR_FLOATS && list->n == (size_t)rank)
        for (int i = 0; i < rank; i++)
            r->scale[i] = (double)list->floats[i];
    if (!has_scales && sizes > 0 && ref_has(c, sizes) && tensor_count(&c->in[sizes].shape) == count) {
        const char *policy = op_attr_string(c->node, "keep_aspect_ratio_policy", "stretch");
        bool larger = strcmp(policy, "not_smaller") == 0;
        double keep = larger ? 0 : INFINITY;
        for (int i = 0; i < count; i++) {
            double s = (double)ref_int_at(&c->in[sizes], i) / (double)MAX(in->shape.dims[axes_of[i]], 1);
            keep = larger ? fmax(keep, s) : fmin(keep, s);
        }
        for (int i = 0; i < count && strcmp(policy, "stretch"); i++)
            r->scale[axes_of[i]] = keep;
    }
    if (roi > 0 && ref_has(c, roi) && tensor_count(&c->in[roi].shape) == 2 * count)
        for (int i = 0; i < 2 * count; i++)
            r->roi[i / count][axes_of[i % count]] = ref_double_at(&c->in[roi], i);
    for (int i = 0; i < rank; i++)
        if (!(r->scale[i] > 0) || isinf(r->scale[i]))
            return err_set(ERR_SHAPE, "the scale of axis %d is not above 0", i);
    return ERR_OK;
}

/* The source coordinate of place x. ORT works in float here; double only differs on ties that float cannot
 * hold. */
static double source_of(const struct resize *r, int axis, int64_t x, int64_t in, int64_t out)
{
    float scale = (float)r->scale[axis], f = (float)x;
    switch (r->coordinates) {
    case HALF_PIXEL:
        return (double)((f + 0.5f) / scale - 0.5f);
    case HALF_PIXEL_SYMMETRIC: {
        float whole = scale * (float)in, adjust = (float)out / whole, center = (float)in / 2;
        return (double)(center * (1 - adjust) + (f + 0.5f) / scale - 0.5f);
    }
    case PYTORCH_HALF_PIXEL:
        return out > 1 ? (double)((f + 0.5f) / scale - 0.5f) : 0;
    case ALIGN_CORNERS:
        return out > 1 ? (double)(f * (float)(in - 1) / (r->by_scales ? scale * (float)in - 1 : (float)(out - 1))) : 0;
    case ASYMMETRIC:
        return (double)(f / scale);
    case TF_HALF_PIXEL_FOR_NN:
        return (double)((f + 0.5f) / scale);
    case TF_CROP: {
        double from = r->roi[0][axis], to = r->roi[1][axis];
        if (out == 1) return 0.5 * (from + to) * (double)(in - 1);
        return from * (double)(in - 1) + (double)x * (to - from) * (double)(in - 1) / (double)(out - 1);
    }
    }
    return 0;
}

static double nearest_of(const struct resize *r, double x, double scale)
{
    switch (r->nearest) {
    case ROUND_PREFER_FLOOR:
        return ceil(x - 0.5);
    case ROUND_PREFER_CEIL:
        return floor(x + 0.5);
    case FLOOR:
        return floor(x);
    case CEIL:
        return ceil(x);
    case SIMPLE:
        break;
    }
    return scale < 1 ? ceil(x) : floor(x);
}

static double kernel_of(const struct resize *r, double d)
{
    double a = r->a;
    d = fabs(d);
    if (r->mode == LINEAR) return d < 1 ? 1 - d : 0;
    if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

/* Taps of one axis: the same number for every place; outside: the place lies outside the crop. */
struct taps {
    int64_t n;
    int64_t *index; /* [out][n] */
    float *weight;
    uint8_t *outside;
};

static int64_t tap_count(const struct resize *r, double scale)
{
    int64_t n = r->mode == NEAREST ? 1 : r->mode == LINEAR ? 2 : 4;
    if (!r->antialias || scale >= 1) return n;
    double width = (double)n / scale + 2;
    return width < 1e9 ? (int64_t)width : (int64_t)1e9;
}

static void clamp_taps(const struct resize *r, const double *w, int64_t first, int64_t n, int64_t in,
                       bool exclude, int64_t *index, float *weight)
{
    double sum = 0;
    for (int64_t k = 0; k < n; k++) {
        int64_t i = first + k;
        bool outside = i < 0 || i >= in;
        double v = exclude && outside ? 0 : w[k];
        index[k] = i < 0 ? 0 : i >= in ? in - 1 : i;
        weight[k] = (float)v;
        sum += v;
    }
    if ((exclude || r->antialias) && sum != 0)
        for (int64_t k = 0; k < n; k++)
            weight[k] = (float)((double)weight[k] / sum);
}

static void fill_taps(const struct resize *r, int axis, int64_t in, int64_t out, struct taps *t)
{
    double scale = r->scale[axis];
    for (int64_t x = 0; x < out; x++) {
        double s = source_of(r, axis, x, in, out), limit = (double)in + 4;
        t->outside[x] = r->coordinates == TF_CROP && (s < 0 || s > (double)(in - 1));
        s = s != s ? 0 : s < -limit ? -limit : s > 2 * limit ? 2 * limit : s;
        int64_t *index = t->index + x * t->n;
        float *weight = t->weight + x * t->n;
        if (r->mode == NEAREST) {
            double k = nearest_of(r, s, scale);
            index[0] = k < 0 ? 0 : k > (double)(in - 1) ? in - 1 : (int64_t)k;
            weight[0] = 1;
            continue;
        }
        double shrink = r->antialias && scale < 1 ? scale : 1, reach = (r->mode == LINEAR ? 1 : 2) / shrink;
        int64_t first = (int64_t)floor(s) - (r->mode == LINEAR ? 0 : 1);
        if (shrink < 1) first = (int64_t)floor(s - reach) + 1;
        if (shrink == 1) {
            double w[4];
            for (int64_t k = 0; k < t->n; k++)
                w[k] = kernel_of(r, s - (double)(first + k));
            clamp_taps(r, w, first, t->n, in, r->mode == CUBIC && (r->exclude_outside || r->antialias), index,
                       weight);
            continue;
        }
        double sum = 0;
        for (int64_t k = 0; k < t->n; k++) {
            int64_t i = first + k;
            bool dropped = r->exclude_outside &&
                           (i < 0 || i >= in); /* else the edge counts once more, as in ONNX Runtime */
            double v = dropped ? 0 : kernel_of(r, (s - (double)i) * shrink);
            index[k] = i < 0 ? 0 : i >= in ? in - 1 : i;
            weight[k] = (float)v;
            sum += v;
        }
        for (int64_t k = 0; k < t->n && sum != 0; k++)
            weight[k] = (float)((double)weight[k] / sum);
    }
}

/* ---- passes over dense memory: [outer, in, inner] to [outer, out, inner] */

static void REF_HOT mix2_f32(float *restrict y, const float *restrict a, const float *restrict b, float u,
                             float v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] * u + b[i] * v;
}

static void mix_f32(float *y, const float *x, const struct taps *t, int64_t place, int64_t inner)
{
    const int64_t *index = t->index + place * t->n;
    const float *w = t->weight + place * t->n;
    if (t->n == 2) {
        mix2_f32(y, x + index[0] * inner, x + index[1] * inner, w[0], w[1], inner);
        return;
    }
    for (int64_t i = 0; i < inner; i++)
        y[i] = 0;
    for (int64_t k = 0; k < t->n; k++) {
        const float *from = x + index[k] * inner;
        for (int64_t i = 0; i < inner && w[k] != 0; i++)
            y[i] += w[k] * from[i];
    }
}

static void mix_f64(double *y, const double *x, const struct taps *t, int64_t place, int64_t inner)
{
    for (int64_t i = 0; i < inner; i++) {
        double sum = 0;
        for (int64_t k = 0; k < t->n; k++)
            sum += (double)t->weight[place * t->n + k] * x[t->index[place * t->n + k] * inner + i];
        y[i] = sum;
    }
}

/* The innermost axis itself. */
static void row_f32(float *y, const float *x, const struct taps *t, int64_t out)
{
    const int64_t *index = t->index;
    const float *w = t->weight;
    for (int64_t i = 0; i < out; i++, index += t->n, w += t->n) {
        float sum = x[index[0]] * w[0];
        for (int64_t k = 1; k < t->n; k++)
            sum += x[index[k]] * w[k];
        y[i] = sum;
    }
}

static void pass(const struct resize *r, enum tensor_dtype type, void *to, const void *from,
                 const struct taps *t, int64_t outer, int64_t in, int64_t out, int64_t inner, size_t size)
{
    if (inner == 1 && type == TENSOR_F32) {
        for (int64_t o = 0; o < outer; o++)
            row_f32((float *)to + o * out, (const float *)from + o * in, t, out);
        return;
    }
    for (int64_t o = 0; o < outer; o++)
        for (int64_t x = 0; x < out; x++) {
            char *y = (char *)to + (o * out + x) * inner * (int64_t)size;
            const char *f = (const char *)from + o * in * inner * (int64_t)size;
            if (r->mode == NEAREST) {
                const char *p = f + t->index[x] * inner * (int64_t)size;
                memcpy(y, p, (size_t)inner * size);
            } else if (type == TENSOR_F32) {
                mix_f32((float *)(void *)y, (const float *)(const void *)f, t, x, inner);
            } else {
                mix_f64((double *)(void *)y, (const double *)(const void *)f, t, x, inner);
            }
        }
}

/* Axes of `t` from the outermost in memory to the innermost; false if t is not dense. */
static bool memory_order(const struct tensor *t, int *order)
{
    int rank = t->shape.rank;
    for (int i = 0; i < rank; i++) {
        int k = i;
        for (; k > 0 && (t->shape.dims[order[k - 1]] == 1 || t->strides[order[k - 1]] < t->strides[i]) &&
               t->shape.dims[i] != 1;
             k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        if (t->shape.dims[order[i]] > 1 && t->strides[order[i]] != step) return false;
        step *= t->shape.dims[order[i]];
    }
    return true;
}

static struct tensor ordered(const struct tensor_shape *s, enum tensor_dtype type, const int *order,
                             void *data)
{
    struct tensor t = {.dtype = type, .shape = *s, .data = data};
    int64_t step = 1;
    for (int i = s->rank - 1; i >= 0; i--) {
        t.strides[order[i]] = step;
        step *= s->dims[order[i]];
    }
    return t;
}

/* What the passes compute in: nearest keeps the type; integers are interpolated in float32. */
static enum tensor_dtype working_type(const struct resize *r, enum tensor_dtype t)
{
    return r->mode == NEAREST || t == TENSOR_F64 ? t : TENSOR_F32;
}

/* Largest product of sizes on the way from one shape to the other, axis by axis, times 8 bytes. */
static size_t way_bytes(const struct tensor_shape *in, const struct tensor_shape *out)
{
    int64_t n = 1;
    for (int i = 0; i < in->rank; i++)
        n *= MAX(in->dims[i], out->dims[i]);
    return REF_ALIGN(n * 8);
}

static size_t taps_bytes(const struct resize *r, double scale, int64_t out)
{
    size_t n = (size_t)tap_count(r, scale) * (size_t)out;
    return REF_ALIGN(n * sizeof(int64_t)) + REF_ALIGN(n * sizeof(float)) + REF_ALIGN((size_t)out);
}

static bool changes(const struct resize *r, const struct ref_call *c, int axis)
{
    return c->in[0].shape.dims[axis] != c->out[0].shape.dims[axis] || r->scale[axis] != 1 ||
           (r->coordinates == TF_CROP && (r->roi[0][axis] != 0 || r->roi[1][axis] != 1));
}

/* The shape rule wants the scales to be constants, so they are readable when the scratch is measured; if not,
 * the worst case. */
size_t ref_resize_scratch(const struct ref_call *c)
{
    struct resize r = {.mode = CUBIC, .antialias = op_attr_int(c->node, "antialias", 0) != 0};
    const struct tensor_shape *in = &c->in[0].shape, *out = &c->out[0].shape;
    if (tensor_count(in) == 0 || tensor_count(out) == 0) return 0;
    size_t bytes = 2 * way_bytes(in, out) + REF_ALIGN(tensor_count(out) * 8);
    for (int i = 0; i < out->rank && i < in->rank; i++) {
        double scale = in->dims[i] ? (double)out->dims[i] / (double)in->dims[i] : 1;
        /* a size is the floor of the scaled one, so the scale itself may be a little larger or, with sizes
         * given, anything */
        bytes += taps_bytes(&r, MIN(scale, 1) * 0.5, out->dims[i]);
    }
    return bytes;
}

static err take_taps(struct ref_call *c, const struct resize *r, int axis, struct taps *t)
{
    int64_t in = c->in[0].shape.dims[axis], out = c->out[0].shape.dims[axis];
    t->n = tap_count(r, r->scale[axis]);
    if (t->n > in + 8 && t->n > 4) t->n = MAX(in + 8, 4);
    size_t n = (size_t)t->n * (size_t)out;
    t->index = ref_scratch(c, n * sizeof *t->index);
    t->weight = ref_scratch(c, n * sizeof *t->weight);
    t->outside = ref_scratch(c, (size_t)out);
    if (!t->index || !t->weight || !t->outside)
        return err_set(ERR_SHAPE, "axis %d: the scale does not fit to the sizes", axis);
    fill_taps(r, axis, in, out, t);
    return ERR_OK;
}

/* Overwrites the places outside the crop along one axis. */
static void blank(const struct tensor *out, int axis, const struct taps *t, double value)
{
    char element[8];
    double v;
    ref_convert(REF_F64, &value, out->dtype, &v, 1);
    ref_put(out->dtype, element, 0, 1, &v);
    for (int64_t x = 0; x < out->shape.dims[axis]; x++) {
        if (!t->outside[x]) continue;
        struct tensor plane = *out;
        plane.shape.dims[axis] = 1;
        plane.data = (char *)out->data + x * out->strides[axis] * ref_size(out);
        ref_fill(&plane, element);
    }
}

static err resize(struct ref_call *c, const struct resize *r)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int rank = in->shape.rank, order[TENSOR_MAX_RANK], n_taps = 0, axis_of[TENSOR_MAX_RANK];
    enum tensor_dtype type = working_type(r, in->dtype);
    struct taps taps[TENSOR_MAX_RANK];
    err e;
    bool dense = memory_order(in, order);
    for (int i = 0; i < rank; i++)
        if (changes(r, c, i)) {
            axis_of[n_taps] = i;
            if ((e = take_taps(c, r, i, &taps[n_taps++]))) return e;
        }
    size_t way = way_bytes(&in->shape, &out->shape), size = tensor_dtype_size(type);
    char *half[2] = {ref_scratch(c, way), ref_scratch(c, way)};
    if (!half[0] || !half[1]) return err_set(ERR_INTERNAL, "Resize: scratch");
    struct tensor now = *in;
    int used = 0;
    if (!dense)
        for (int i = 0; i < rank; i++)
            order[i] = i;
    if (!dense || in->dtype != type) {
        now = ordered(&in->shape, type, order, half[used]);
        used ^= 1;
        ref_cast_tensor(&now, in);
    }
    for (int k = 0; k < n_taps; k++) {
        int axis = axis_of[k], at = 0;
        int64_t outer = 1, inner = 1;
        while (order[at] != axis)
            outer *= now.shape.dims[order[at++]];
        while (++at < rank)
            inner *= now.shape.dims[order[at]];
        struct tensor_shape s = now.shape;
        s.dims[axis] = out->shape.dims[axis];
        struct tensor next = ordered(&s, type, order, half[used]);
        if (k == n_taps - 1 && out->dtype == type && tensor_same_dense_layout(&next, out))
            next.data = out->data;
        pass(r, type, next.data, now.data, &taps[k], outer, now.shape.dims[axis], s.dims[axis], inner, size);
        now = next;
        used ^= 1;
    }
    if (now.data != out->data) ref_cast_tensor(out, &now);
    for (int k = 0; k < n_taps; k++)
        if (r->coordinates == TF_CROP) blank(out, axis_of[k], &taps[k], r->extrapolation);
    return ERR_OK;
}

err ref_resize(struct ref_call *c)
{
    struct resize r = {0};
    err e = read_words(c->node, &r);
    if (!e) e = read_scales(c, &r);
    if (e || tensor_count(&c->out[0].shape) == 0) return e;
    if (tensor_count(&c->in[0].shape) == 0) return err_set(ERR_SHAPE, "there is nothing to resize");
    return resize(c, &r);
}
