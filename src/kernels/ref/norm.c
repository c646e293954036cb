/* Normalisations: y = (x - mean) * a * scale + bias, where mean and a come from training
 * (BatchNormalization), or from the numbers themselves: over the spatial axes (InstanceNormalization), over
 * the last axes (LayerNormalization). LRN divides by a window of channels.
 *
 * Means and variances are float64 sums of x and x^2, which loses nothing that float32 has. All of it works in
 * float32, or in float64 for float64. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

/* p: y, x, mean, a, scale, bias */
enum { Y, X, MEAN, A, SCALE, BIAS, OPERANDS };

static void REF_HOT affine_f32(float *restrict y, const float *restrict x, const float *restrict m,
                               const float *restrict a, const float *restrict s, const float *restrict b,
                               int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - m[i]) * a[i] * s[i] + b[i];
}

static void REF_HOT affine_one_f32(float *restrict y, const float *restrict x, float m, float a, float b,
                                   int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - m) * a + b;
}

static void affine_f64(double *y, const double *x, const double *m, const double *a, const double *s,
                       const double *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - m[i]) * a[i] * s[i] + b[i];
}

/* A row in the type of x, whatever type the operand has. */
static const void *same(enum tensor_dtype t, enum tensor_dtype want, const char *p, int64_t step, int64_t n,
                        double *raw, double *buf)
{
    const void *v = ref_fetch(t, p, step, n, raw);
    if (ref_domain(t) == ref_domain(want)) return v;
    ref_convert(ref_domain(t), v, want, buf, n);
    return buf;
}

static void affine_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const enum tensor_dtype *t = context;
    enum tensor_dtype own = ref_domain_dtype(t[X]);
    if (t[X] == TENSOR_F32 && t[Y] == TENSOR_F32 && step[X] == 4 && step[Y] == 4 && !step[MEAN] && !step[A] &&
        !step[SCALE] && !step[BIAS]) {
        double one[4], raw[1];
        for (int k = MEAN; k <= BIAS; k++)
            one[k - MEAN] = (double)*(const float *)same(t[k], TENSOR_F32, p[k], 0, 1, raw, &one[k - MEAN]);
        affine_one_f32((float *)(void *)p[Y], (const float *)(const void *)p[X], (float)one[0],
                       (float)one[1] * (float)one[2], (float)one[3], n);
        return;
    }
    double raw[OPERANDS][REF_CHUNK], buf[OPERANDS][REF_CHUNK];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        const void *v[OPERANDS];
        for (int k = X; k < OPERANDS; k++)
            v[k] = same(t[k], own, p[k] + i * step[k], step[k], m, raw[k], buf[k]);
        bool plain = t[Y] == own && step[Y] == (int64_t)tensor_dtype_size(own);
        char *y = plain ? p[Y] + i * step[Y] : (char *)buf[Y];
        if (own == TENSOR_F32)
            affine_f32((float *)(void *)y, v[X], v[MEAN], v[A], v[SCALE], v[BIAS], m);
        else
            affine_f64((double *)(void *)y, v[X], v[MEAN], v[A], v[SCALE], v[BIAS], m);
        if (!plain) ref_put(t[Y], p[Y] + i * step[Y], step[Y], m, buf[Y]);
    }
}

/* scale and bias may be NULL: 1 and 0. */
static void affine(const struct tensor *const *operands)
{
    static const float one = 1, zero = 0;
    struct tensor_shape scalar = {.rank = 0};
    struct tensor t1 = tensor_view(TENSOR_F32, &scalar, &one), t0 = tensor_view(TENSOR_F32, &scalar, &zero);
    const struct tensor *all[OPERANDS] = {operands[Y],
                                          operands[X],
                                          operands[MEAN],
                                          operands[A],
                                          operands[SCALE] ? operands[SCALE] : &t1,
                                          operands[BIAS] ? operands[BIAS] : &t0};
    enum tensor_dtype types[OPERANDS];
    for (int k = 0; k < OPERANDS; k++)
        types[k] = all[k]->dtype;
    struct ref_loop l;
    ref_loop_init(&l, &all[X]->shape, OPERANDS, all);
    ref_loop_run(&l, affine_row, types);
}

/* [C] seen as [1, C, 1 ...] */
static struct tensor per_channel(const struct tensor *t, int rank)
{
    struct tensor v = *t;
    v.shape.rank = rank;
    for (int i = 0; i < rank; i++) {
        v.shape.dims[i] = i == 1 ? t->shape.dims[0] : 1;
        v.strides[i] = i == 1 ? t->strides[0] : 0;
    }
    return v;
}

static err check_channels(const struct ref_call *c, int first, int last)
{
    if (c->in[0].shape.rank < 2) return err_set(ERR_SHAPE, "input 0 has %d axes", c->in[0].shape.rank);
    for (int i = first; i <= last; i++)
        if (!ref_has(c, i) || c->in[i].shape.rank != 1 || c->in[i].shape.dims[0] != c->in[0].shape.dims[1])
            return err_set(ERR_SHAPE, "input %d must hold one number per channel", i);
    return ERR_OK;
}

/* float64 into the type that x is computed in, in place; returns that type. */
static enum tensor_dtype narrow(double *v, int64_t n, enum tensor_dtype x)
{
    if (ref_domain(x) != REF_F32) return TENSOR_F64;
    for (int64_t i = 0; i < n; i++) {
        float f = (float)v[i];
        memcpy((char *)v + i * (int64_t)sizeof f, &f, sizeof f);
    }
    return TENSOR_F32;
}

size_t ref_batch_norm_scratch(const struct ref_call *c)
{
    return c->in[0].shape.rank < 2 ? 0 : REF_ALIGN(c->in[0].shape.dims[1] * 8);
}

/* inputs: x, scale, bias, mean, variance */
err ref_batch_norm(struct ref_call *c)
{
    err e = check_channels(c, 1, 4);
    if (e) return e;
    const struct tensor *x = &c->in[0];
    int64_t channels = x->shape.dims[1];
    double epsilon = (double)op_attr_float(c->node, "epsilon", 1e-5f);
    double *a = ref_scratch(c, (size_t)channels * 8);
    for (int64_t i = 0; i < channels; i++)
        a[i] = ref_double_at(&c->in[1], i) / sqrt(ref_double_at(&c->in[4], i) + epsilon);
    struct tensor factor = tensor_view(narrow(a, channels, x->dtype), &c->in[1].shape, a);
    factor = per_channel(&factor, x->shape.rank);
    struct tensor bias = per_channel(&c->in[2], x->shape.rank), mean = per_channel(&c->in[3], x->shape.rank);
    affine((const struct tensor *[]){&c->out[0], x, &mean, &factor, NULL, &bias});
    return ERR_OK;
}

/* ---- moments */

/* p: x, sums, sums of squares (float64) */
static void moments_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    enum tensor_dtype type = *(const enum tensor_dtype *)context;
    double raw[REF_CHUNK], x[REF_CHUNK];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        ref_convert(ref_domain(type), ref_fetch(type, p[0] + i * step[0], step[0], m, raw), TENSOR_F64, x, m);
        if (step[1] == 8) {
            double *s = (double *)(void *)(p[1] + i * 8), *q = (double *)(void *)(p[2] + i * 8);
            for (int64_t k = 0; k < m; k++)
                s[k] += x[k];
            for (int64_t k = 0; k < m; k++)
                q[k] += x[k] * x[k];
            continue;
        }
        if (step[1]) {
            for (int64_t k = 0; k < m; k++) {
                *(double *)(void *)(p[1] + (i + k) * step[1]) += x[k];
                *(double *)(void *)(p[2] + (i + k) * step[2]) += x[k] * x[k];
            }
            continue;
        }
        double sum[4] = {0}, square[4] = {0};
        int64_t k = 0;
        for (; k + 4 <= m; k += 4)
            for (int j = 0; j < 4; j++) {
                sum[j] += x[k + j];
                square[j] += x[k + j] * x[k + j];
            }
        for (; k < m; k++) {
            sum[0] += x[k];
            square[0] += x[k] * x[k];
        }
        *(double *)(void *)p[1] += sum[0] + sum[1] + sum[2] + sum[3];
        *(double *)(void *)p[2] += square[0] + square[1] + square[2] + square[3];
    }
}

/* Mean and 1 / sqrt(variance + epsilon) over the axes of mask, in float64, sizes 1 along them. Both lie in
 * scratch. */
static void moments(struct ref_call *c, unsigned mask, double epsilon, struct tensor *mean,
                    struct tensor *inverse)
{
    const struct tensor *x = &c->in[0];
    struct tensor_shape s = x->shape;
    int64_t n = 1;
    for (int i = 0; i < s.rank; i++)
        if (mask >> i & 1) {
            n *= s.dims[i];
            s.dims[i] = 1;
        }
    int64_t count = tensor_count(&s);
    double *a = ref_scratch(c, (size_t)count * 8), *b = ref_scratch(c, (size_t)count * 8);
    for (int64_t i = 0; i < count; i++)
        a[i] = b[i] = 0;
    *mean = tensor_view(TENSOR_F64, &s, a);
    *inverse = tensor_view(TENSOR_F64, &s, b);
    enum tensor_dtype type = x->dtype;
    struct ref_loop l;
    ref_loop_init(&l, &x->shape, 3, (const struct tensor *[]){x, mean, inverse});
    ref_loop_run(&l, moments_row, &type);
    for (int64_t i = 0; i < count; i++) {
        a[i] /= (double)n;
        double variance = b[i] / (double)n - a[i] * a[i];
        b[i] = 1 / sqrt((variance < 0 ? 0 : variance) + epsilon);
    }
    mean->dtype = narrow(a, count, type);
    inverse->dtype = narrow(b, count, type);
}

size_t ref_instance_norm_scratch(const struct ref_call *c)
{
    return c->in[0].shape.rank < 2 ? 0 : 2 * REF_ALIGN(c->in[0].shape.dims[0] * c->in[0].shape.dims[1] * 8);
}

err ref_instance_norm(struct ref_call *c)
{
    err e = check_channels(c, 1, 2);
    if (e || tensor_count(&c->in[0].shape) == 0) return e;
    int rank = c->in[0].shape.rank;
    struct tensor mean, inverse, scale = per_channel(&c->in[1], rank), bias = per_channel(&c->in[2], rank);
    moments(c, ((1u << rank) - 1) & ~3u, (double)op_attr_float(c->node, "epsilon", 1e-5f), &mean, &inverse);
    affine((const struct tensor *[]){&c->out[0], &c->in[0], &mean, &inverse, &scale, &bias});
    return ERR_OK;
}

size_t ref_layer_norm_scratch(const struct ref_call *c)
{
    int axis = 0;
    int64_t n = 1;
    if (ref_axis(op_attr_int(c->node, "axis", -1), c->in[0].shape.rank, &axis)) return 0;
    for (int i = 0; i < axis; i++)
        n *= c->in[0].shape.dims[i];
    return 2 * REF_ALIGN(n * 8);
}

err ref_layer_norm(struct ref_call *c)
{
    int axis = 0, rank = c->in[0].shape.rank;
    err e = ref_axis(op_attr_int(c->node, "axis", -1), rank, &axis);
    if (e || tensor_count(&c->in[0].shape) == 0) return e;
    for (int i = 1; i <= 2; i++) {
        struct tensor_shape s;
        if (ref_has(c, i) && (tensor_broadcast(&c->in[0].shape, &c->in[i].shape, &s) ||
                              !tensor_shape_equal(&s, &c->in[0].shape)))
            return err_set(ERR_SHAPE, "input %d does not fit to input 0", i);
    }
    struct tensor mean, inverse;
    moments(c, ((1u << rank) - 1) & ~((1u << axis) - 1), (double)op_attr_float(c->node, "epsilon", 1e-5f),
            &mean, &inverse);
    affine((const struct tensor *[]){&c->out[0], &c->in[0], &mean, &inverse, ref_has(c, 1) ? &c->in[1] : NULL,
                                     ref_has(c, 2) ? &c->in[2] : NULL});
    if (ref_wants(c, 1)) ref_cast_tensor(&c->out[1], &mean);
    if (ref_wants(c, 2)) ref_cast_tensor(&c->out[2], &inverse);
    return ERR_OK;
}

/* y = x / (bias + alpha / size * sum of squares of the neighbouring channels)^beta */
err ref_lrn(struct ref_call *c)
{
    struct tensor x = ref_dense_in(c, 0, true), y = ref_dense_out(c, 0, true);
    int64_t size = op_attr_int(c->node, "size", 1), channels = x.shape.rank > 1 ? x.shape.dims[1] : 0;
    if (size < 1 || channels == 0)
        return size < 1 ? err_set(ERR_SHAPE, "size is %lld", (long long)size) : ERR_OK;
    double alpha = (double)op_attr_float(c->node, "alpha", 1e-4f),
           beta = (double)op_attr_float(c->node, "beta", 0.75f);
    double bias = (double)op_attr_float(c->node, "bias", 1);
    int64_t before = (size - 1) / 2, after = size - 1 - before, count = tensor_count(&x.shape);
    bool wide = x.dtype == TENSOR_F64;
    for (int64_t i = 0; i < count; i += channels)
        for (int64_t k = 0; k < channels; k++) {
            double sum = 0, v = 0;
            for (int64_t j = MAX(k - before, 0); j <= k + MIN(after, channels - 1 - k); j++) {
                v = wide ? ((const double *)x.data)[i + j] : (double)((const float *)x.data)[i + j];
                sum += v * v;
            }
            v = wide ? ((const double *)x.data)[i + k] : (double)((const float *)x.data)[i + k];
            v /= pow(bias + alpha / (double)size * sum, beta);
            if (wide)
                ((double *)y.data)[i + k] = v;
            else
                ((float *)y.data)[i + k] = (float)v;
        }
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}
