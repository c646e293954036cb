/* BatchNormTrain, and the gradients of normalisations. All of them see x as rows [outer][channel][inner] of equal meaning:
 *
 *     xhat = (x - mean) r, r = 1 / sqrt(var + epsilon), y = xhat s + b
 *     ds = sum dy xhat, db = sum dy
 *     dx = r (g - mean(g) - xhat mean(g xhat)), g = dy s
 *
 * (Ioffe and Szegedy, 2015), where sums run over what shares a mean: batch and places for BatchNorm, places for InstanceNorm, the last axes for
 * LayerNorm. Sums are float64 in a fixed order. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

struct norm {
    int64_t batch, channels, inner; /* dense, row-major or channels-last */
    int64_t batch_step, channel_step, inner_step;
    double epsilon;
};

static bool both_last(const struct ref_call *c, int x)
{
    return c->in[x].shape.rank > 2 && tensor_is_channels_last(&c->in[x]) && !tensor_is_row_major(&c->in[x]);
}

static struct norm norm_of(const struct ref_call *c, int x, bool last)
{
    const struct tensor_shape *s = &c->in[x].shape;
    struct norm n = {s->dims[0], s->dims[1], 1, 0, 0, 0, (double)op_attr_float(c->node, "epsilon", 1e-5f)};
    for (int i = 2; i < s->rank; i++) n.inner *= s->dims[i];
    n.batch_step = n.channels * n.inner;
    n.channel_step = last ? 1 : n.inner;
    n.inner_step = last ? n.channels : 1;
    return n;
}

/* [C] vectors are read and written in any type. */
static void put_vector(const struct tensor *t, const double *v)
{
    int64_t n = t->shape.dims[0], step = t->strides[0] * ref_size(t);
    for (int64_t i = 0; i < n; i++) {
        char *to = (char *)t->data + i * step;
        double one = v[i];
        union {
            float f;
            double d;
        } u;
        ref_convert(REF_F64, &one, t->dtype, &u, 1);
        ref_put(t->dtype, to, 0, 1, &u);
    }
}

static void get_vector(const struct tensor *t, double *v)
{
    for (int64_t i = 0; i < t->shape.dims[0]; i++) v[i] = ref_double_at(t, i);
}

#define NORM(suffix, T)                                                                                      \
    /* sum[c] += f, over the rows that channels-last and row-major share: the inner loop is dense in both */ \
    static void moments_##suffix(const struct norm *n, const T *x, double *sum, const double *mean)          \
    {                                                                                                        \
        for (int64_t b = 0; b < n->batch; b++)                                                               \
            if (n->channel_step == 1) {                                                                      \
                const T *p = x + b * n->batch_step;                                                          \
                for (int64_t i = 0; i < n->inner; i++, p += n->channels)                                     \
                    for (int64_t c = 0; c < n->channels; c++) {                                              \
                        double d = mean ? (double)p[c] - mean[c] : (double)p[c];                             \
                        sum[c] += mean ? d * d : d;                                                          \
                    }                                                                                        \
            } else {                                                                                         \
                for (int64_t c = 0; c < n->channels; c++) {                                                  \
                    const T *p = x + b * n->batch_step + c * n->channel_step;                                \
                    double s = 0, m = mean ? mean[c] : 0;                                                    \
                    for (int64_t i = 0; i < n->inner; i++)                                                   \
                        s += mean ? ((double)p[i] - m) * ((double)p[i] - m) : (double)p[i];                  \
                    sum[c] += s;                                                                             \
                }                                                                                            \
            }                                                                                                \
    }                                                                                                        \
    static void REF_HOT affine_##suffix(T *restrict y, const T *restrict x, const T *restrict a, const T *restrict b, int64_t n) \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * a[i] + b[i];                                           \
    }                                                                                                        \
    static void apply_##suffix(const struct norm *n, T *y, const T *x, const T *a, const T *b)               \
    {                                                                                                        \
        for (int64_t k = 0; k < n->batch; k++)                                                               \
            if (n->channel_step == 1)                                                                        \
                for (int64_t i = 0; i < n->inner; i++) {                                                     \
                    int64_t at = k * n->batch_step + i * n->channels;                                        \
                    affine_##suffix(y + at, x + at, a, b, n->channels);                                      \
                }                                                                                            \
            else                                                                                             \
                for (int64_t c = 0; c < n->channels; c++) {                                                  \
                    int64_t at = k * n->batch_step + c * n->channel_step;                                    \
                    for (int64_t i = 0; i < n->inner; i++) y[at + i] = x[at + i] * a[c] + b[c];              \
                }                                                                                            \
    }                                                                                                        \
    static void sums_##suffix(const struct norm *n, const T *dy, const T *x, const double *mean, double *sg, double *sgx) \
    {                                                                                                        \
        for (int64_t b = 0; b < n->batch; b++)                                                               \
            if (n->channel_step == 1)                                                                        \
                for (int64_t i = 0; i < n->inner; i++) {                                                     \
                    int64_t at = b * n->batch_step + i * n->channels;                                        \
                    for (int64_t c = 0; c < n->channels; c++) {                                              \
                        sg[c] += (double)dy[at + c];                                                         \
                        sgx[c] += (double)dy[at + c] * ((double)x[at + c] - mean[c]);                        \
                    }                                                                                        \
                }                                                                                            \
            else                                                                                             \
                for (int64_t c = 0; c < n->channels; c++) {                                                  \
                    int64_t at = b * n->batch_step + c * n->channel_step;                                    \
                    double s = 0, t = 0, m = mean[c];                                                        \
                    for (int64_t i = 0; i < n->inner; i++) {                                                 \
                        s += (double)dy[at + i];                                                             \
                        t += (double)dy[at + i] * ((double)x[at + i] - m);                                   \
                    }                                                                                        \
                    sg[c] += s;                                                                              \
                    sgx[c] += t;                                                                             \
                }                                                                                            \
    }                                                                                                        \
    /* dx = dy a + x b + k, per channel */                                                                   \
    static void back_##suffix(const struct norm *n, T *dx, const T *dy, const T *x, const T *a, const T *b, const T *k) \
    {                                                                                                        \
        for (int64_t m = 0; m < n->batch; m++)                                                               \
            if (n->channel_step == 1)                                                                        \
                for (int64_t i = 0; i < n->inner; i++) {                                                     \
                    int64_t at = m * n->batch_step + i * n->channels;                                        \
                    for (int64_t c = 0; c < n->channels; c++) dx[at + c] = dy[at + c] * a[c] + x[at + c] * b[c] + k[c]; \
                }                                                                                            \
            else                                                                                             \
                for (int64_t c = 0; c < n->channels; c++) {                                                  \
                    int64_t at = m * n->batch_step + c * n->channel_step;                                    \
                    for (int64_t i = 0; i < n->inner; i++) dx[at + i] = dy[at + i] * a[c] + x[at + i] * b[c] + k[c]; \
                }                                                                                            \
    }
NORM(f32, float)
NORM(f64, double)

enum { VECTORS = 12 };

static void narrow(enum tensor_dtype t, const double *from, void *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (t == TENSOR_F64) ((double *)to)[i] = from[i];
        else ((float *)to)[i] = (float)from[i];
    }
}

size_t ref_norm_grad_scratch(const struct ref_call *c)
{
    const struct tensor_shape *s = &c->in[c->n_in > 2 && c->in[1].shape.rank > 1 ? 1 : 0].shape;
    size_t dense = 0, vectors = (size_t)MAX(s->rank > 1 ? s->dims[1] : 1, 1) * 8 + 64;
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].dtype != TENSOR_NONE) dense += REF_ALIGN(tensor_count(&c->in[i].shape) * 8) + 64;
    for (int i = 0; i < c->n_out; i++)
        if (c->out[i].dtype != TENSOR_NONE) dense += REF_ALIGN(tensor_count(&c->out[i].shape) * 8) + 64;
    return dense + VECTORS * vectors;
}

static void write_moments(struct ref_call *c, const struct norm *n, const double *mean, const double *var)
{
    int64_t count = n->batch * n->inner;
    double momentum = (double)op_attr_float(c->node, "momentum", 0.9f), unbiased = count > 1 ? (double)count / (double)(count - 1) : 1;
    if (ref_wants(c, 1)) put_vector(&c->out[1], mean);
    if (ref_wants(c, 2)) put_vector(&c->out[2], var);
    for (int k = 3; k < 5; k++) {
        if (!ref_wants(c, k)) continue;
        double *next = ref_scratch(c, (size_t)n->channels * 8);
        get_vector(&c->in[k], next);
        for (int64_t i = 0; i < n->channels; i++) next[i] = momentum * next[i] + (1 - momentum) * (k == 3 ? mean[i] : var[i] * unbiased);
        put_vector(&c->out[k], next);
    }
}

err ref_batch_norm_train(struct ref_call *c)
{
    bool last = both_last(c, 0);
    struct norm n = norm_of(c, 0, last);
    if (tensor_count(&c->in[0].shape) == 0) return err_set(ERR_SHAPE, "an empty batch has no mean");
    struct tensor x = ref_dense_in(c, 0, last), y = ref_dense_out(c, 0, last);
    double *mean = ref_scratch(c, (size_t)n.channels * 8), *var = ref_scratch(c, (size_t)n.channels * 8), *a = ref_scratch(c, (size_t)n.channels * 8),
           *b = ref_scratch(c, (size_t)n.channels * 8), count = (double)(n.batch * n.inner);
    void *an = ref_scratch(c, (size_t)n.channels * 8), *bn = ref_scratch(c, (size_t)n.channels * 8);
    bool wide = x.dtype == TENSOR_F64;
    for (int k = 0; k < 2; k++) {
        double *to = k ? var : mean;
        memset(to, 0, (size_t)n.channels * 8);
        if (wide) moments_f64(&n, x.data, to, k ? mean : NULL);
        else moments_f32(&n, x.data, to, k ? mean : NULL);
        for (int64_t i = 0; i < n.channels; i++) to[i] /= count;
    }
    get_vector(&c->in[1], a);
    get_vector(&c->in[2], b);
    for (int64_t i = 0; i < n.channels; i++) {
        a[i] /= sqrt(var[i] + n.epsilon);
        b[i] -= mean[i] * a[i];
    }
    narrow(x.dtype, a, an, n.channels);
    narrow(x.dtype, b, bn, n.channels);
    if (wide) apply_f64(&n, y.data, x.data, an, bn);
    else apply_f32(&n, y.data, x.data, an, bn);
    ref_dense_done(c, 0, &y);
    write_moments(c, &n, mean, var);
    return ERR_OK;
}

/* One group of numbers that share their means: dx, and what they add to dscale and dbias. */
static void back(const struct norm *n, enum tensor_dtype t, void *dx, const void *dy, const void *x, const double *scale, const double *mean,
                 const double *var, double *dscale, double *dbias, double *const *v)
{
    double count = (double)(n->batch * n->inner), *sg = v[0], *sgx = v[1];
    memset(sg, 0, (size_t)n->channels * 8);
    memset(sgx, 0, (size_t)n->channels * 8);
    if (t == TENSOR_F64) sums_f64(n, dy, x, mean, sg, sgx);
    else sums_f32(n, dy, x, mean, sg, sgx);
    for (int64_t c = 0; c < n->channels; c++) {
        double r = 1 / sqrt(var[c] + n->epsilon), g = sg[c], gx = sgx[c];
        dscale[c] += gx * r;
        dbias[c] += g;
        double a = r * scale[c], b = -a * r * r * gx / count;
        v[2][c] = -a * g / count - b * mean[c];
        sg[c] = a;
        sgx[c] = b;
    }
    for (int k = 0; k < 3; k++) narrow(t, v[k], v[3 + k], n->channels);
    if (t == TENSOR_F64) back_f64(n, dx, dy, x, v[3], v[4], v[5]);
    else back_f32(n, dx, dy, x, (float *)v[3], (float *)v[4], (float *)v[5]);
}

err ref_batch_norm_grad(struct ref_call *c)
{
    bool last = both_last(c, 1);
    struct norm n = norm_of(c, 1, last);
    size_t bytes = (size_t)n.channels * 8;
    struct tensor dy = ref_dense_in(c, 0, last), x = ref_dense_in(c, 1, last), dx = ref_dense_out(c, 0, last);
    double *v[6], *known[5];
    for (int i = 0; i < 6; i++) v[i] = ref_scratch(c, bytes);
    for (int i = 0; i < 5; i++) known[i] = ref_scratch(c, bytes);
    for (int i = 0; i < 3; i++) get_vector(&c->in[2 + i], known[i]);
    memset(known[3], 0, bytes);
    memset(known[4], 0, bytes);
    back(&n, dx.dtype, dx.data, dy.data, x.data, known[0], known[1], known[2], known[3], known[4], v);
    ref_dense_done(c, 0, &dx);
    for (int i = 1; i < 3; i++)
        if (ref_wants(c, i)) put_vector(&c->out[i], known[2 + i]);
    return ERR_OK;
}

err ref_instance_norm_grad(struct ref_call *c)
{
    bool last = both_last(c, 1);
    struct norm n = norm_of(c, 1, last);
    int64_t batch = n.batch;
    size_t bytes = (size_t)n.channels * 8;
    struct tensor dy = ref_dense_in(c, 0, last), x = ref_dense_in(c, 1, last), dx = ref_dense_out(c, 0, last);
    double *v[6], *known[5];
    for (int i = 0; i < 6; i++) v[i] = ref_scratch(c, bytes);
    for (int i = 0; i < 5; i++) known[i] = ref_scratch(c, bytes);
    get_vector(&c->in[2], known[0]);
    memset(known[3], 0, bytes);
    memset(known[4], 0, bytes);
    n.batch = 1;
    for (int64_t b = 0; b < batch; b++) {
        int64_t at = b * n.batch_step * ref_size(&dx);
        for (int k = 1; k < 3; k++) {
            memset(known[k], 0, bytes);
            const void *from = (char *)x.data + at;
            if (dx.dtype == TENSOR_F64) moments_f64(&n, from, known[k], k == 2 ? known[1] : NULL);
            else moments_f32(&n, from, known[k], k == 2 ? known[1] : NULL);
            for (int64_t i = 0; i < n.channels; i++) known[k][i] /= (double)MAX(n.inner, 1);
        }
        back(&n, dx.dtype, (char *)dx.data + at, (char *)dy.data + at, (char *)x.data + at, known[0], known[1], known[2], known[3], known[4], v);
    }
    ref_dense_done(c, 0, &dx);
    for (int i = 1; i < 3; i++)
        if (ref_wants(c, i)) put_vector(&c->out[i], known[2 + i]);
    return ERR_OK;
}

/* ---- LayerNorm: each row has its own mean; scale and bias belong to places of the row */

#define LAYER(suffix, T)                                                                                     \
    static void layer_##suffix(T *dx, const T *dy, const T *x, const T *s, double *ds, double *db, int64_t n, double epsilon) \
    {                                                                                                        \
        double mean = 0, var = 0, sg = 0, sgx = 0;                                                           \
        for (int64_t i = 0; i < n; i++) mean += (double)x[i];                                                \
        mean /= (double)n;                                                                                   \
        for (int64_t i = 0; i < n; i++) var += ((double)x[i] - mean) * ((double)x[i] - mean);                \
        double r = 1 / sqrt(var / (double)n + epsilon);                                                      \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            double hat = ((double)x[i] - mean) * r, g = (double)dy[i] * (double)s[i];                        \
            ds[i] += (double)dy[i] * hat;                                                                    \
            db[i] += (double)dy[i];                                                                          \
            sg += g;                                                                                         \
            sgx += g * hat;                                                                                  \
        }                                                                                                    \
        T a = (T)(sg / (double)n), b = (T)(sgx / (double)n * r), m = (T)mean, rr = (T)r;                     \
        for (int64_t i = 0; i < n; i++) dx[i] = rr * (dy[i] * s[i] - a - (x[i] - m) * b);                    \
    }
LAYER(f32, float)
LAYER(f64, double)

static void put_dense(const struct tensor *to, const double *from)
{
    struct tensor view = tensor_view(TENSOR_F64, &to->shape, from);
    ref_cast_tensor(to, &view);
}

err ref_layer_norm_grad(struct ref_call *c)
{
    int axis = 0, rank = c->in[1].shape.rank;
    err e = ref_axis(op_attr_int(c->node, "axis", -1), rank, &axis);
    if (e) return e;
    struct tensor dy = ref_dense_in(c, 0, false), x = ref_dense_in(c, 1, false), s = ref_dense_in(c, 2, false), dx = ref_dense_out(c, 0, false);
    int64_t rows = 1, n = tensor_count(&c->in[2].shape), size = ref_size(&dx);
    for (int i = 0; i < axis; i++) rows *= x.shape.dims[i];
    double *ds = ref_scratch(c, (size_t)n * 8), *db = ref_scratch(c, (size_t)n * 8), epsilon = (double)op_attr_float(c->node, "epsilon", 1e-5f);
    memset(ds, 0, (size_t)n * 8);
    memset(db, 0, (size_t)n * 8);
    for (int64_t r = 0; r < rows && n > 0; r++) {
        int64_t at = r * n * size;
        if (dx.dtype == TENSOR_F64)
            layer_f64((double *)dx.data + r * n, (double *)dy.data + r * n, (double *)x.data + r * n, s.data, ds, db, n, epsilon);
        else
            layer_f32((float *)(void *)((char *)dx.data + at), (float *)dy.data + r * n, (float *)x.data + r * n, s.data, ds, db, n, epsilon);
    }
    ref_dense_done(c, 0, &dx);
    if (ref_wants(c, 1)) put_dense(&c->out[1], ds);
    if (ref_wants(c, 2)) put_dense(&c->out[2], db);
    return ERR_OK;
}

size_t ref_layer_norm_grad_scratch(const struct ref_call *c)
{
    size_t all = 2 * REF_ALIGN(tensor_count(&c->in[2].shape) * 8);
    for (int i = 0; i < 3; i++) all += ref_dense_bytes(&c->in[i], false);
    return all + ref_dense_bytes(&c->out[0], false);
}
