/* Softmax, LogSoftmax, LpNormalization: numbers divided by a sum over some of the axes.
 *
 * As in reduce.c, accumulators of step 0 along the folded axes lie beside the input, so any layout is walked
 * in its own order: maxima, then exp(x - max) and its sums, then the division. Half precision works on
 * float32 copies. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/fastmath.h"
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <string.h>

#define AT(T, p, i) (*(T *)(void *)((p) + (i)))

#define SOFTMAX(T, suffix, EXP, LOG)                                                                         \
    /* p: x, maxima */                                                                                       \
    static void max_##suffix(void *context, char *const *p, const int64_t *step, int64_t n)                  \
    {                                                                                                        \
        (void)context;                                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            T x = AT(const T, p[0], i *step[0]), *m = &AT(T, p[1], i * step[1]);                             \
            *m = x > *m ? x : *m;                                                                            \
        }                                                                                                    \
    }                                                                                                        \
    static void REF_HOT exp_dense_##suffix(T *y, const T *x, T m, int64_t n)                                 \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++)                                                                      \
            y[i] = EXP(x[i] - m);                                                                            \
    }                                                                                                        \
    /* p: y, x, maxima, sums; context: LogSoftmax, where y is written later */                               \
    static void exp_##suffix(void *context, char *const *p, const int64_t *step, int64_t n)                  \
    {                                                                                                        \
        bool logs = *(const bool *)context;                                                                  \
        int64_t size = (int64_t)sizeof(T);                                                                   \
        if (!logs && step[0] == size && step[1] == size && step[2] == 0 && n >= 8) {                         \
            T *y = &AT(T, p[0], 0);                                                                          \
            double sum = 0;                                                                                  \
            exp_dense_##suffix(y, &AT(const T, p[1], 0), AT(const T, p[2], 0), n);                           \
            for (int64_t i = 0; i < n; i++)                                                                  \
                sum += (double)y[i];                                                                         \
            AT(T, p[3], 0) += (T)sum;                                                                        \
            return;                                                                                          \
        }                                                                                                    \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            T e = EXP(AT(const T, p[1], i *step[1]) - AT(const T, p[2], i *step[2]));                        \
            if (!logs) AT(T, p[0], i *step[0]) = e;                                                          \
            AT(T, p[3], i *step[3]) += e;                                                                    \
        }                                                                                                    \
    }                                                                                                        \
    static void end_##suffix(void *context, char *const *p, const int64_t *step, int64_t n)                  \
    {                                                                                                        \
        bool logs = *(const bool *)context;                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            T *y = &AT(T, p[0], i * step[0]), sum = AT(const T, p[3], i *step[3]);                           \
            if (logs)                                                                                        \
                *y = AT(const T, p[1], i *step[1]) - AT(const T, p[2], i *step[2]) - LOG(sum);               \
            else                                                                                             \
                *y = *y / sum;                                                                               \
        }                                                                                                    \
    }                                                                                                        \
    static void norm_##suffix(void *context, char *const *p, const int64_t *step, int64_t n)                 \
    {                                                                                                        \
        int64_t order = *(const int64_t *)context;                                                           \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            T x = AT(const T, p[0], i *step[0]);                                                             \
            AT(T, p[1], i *step[1]) += order == 1 ? (x < 0 ? -x : x) : x * x;                                \
        }                                                                                                    \
    }                                                                                                        \
    static void norm_end_##suffix(void *context, char *const *p, const int64_t *step, int64_t n)             \
    {                                                                                                        \
        int64_t order = *(const int64_t *)context;                                                           \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            T sum = AT(const T, p[2], i *step[2]), d = order == 1 ? sum : (T)sqrt((double)sum);              \
            AT(T, p[0], i *step[0]) = d != 0 ? AT(const T, p[1], i *step[1]) / d : 0;                        \
        }                                                                                                    \
    }
SOFTMAX(float, f32, ref_expf, logf)
SOFTMAX(double, f64, exp, log)

/* Since opset 13 one axis (default the last); before, everything from `axis` (default 1) on. */
static err softmax_axes(const struct ref_call *c, unsigned *ret)
{
    int rank = c->in[0].shape.rank, axis = 0;
    bool old = c->node->opset < 13 && c->node->kind != OP_LP_NORM;
    int64_t wanted = op_attr_int(c->node, "axis", old ? 1 : -1);
    if (old && wanted == rank) {
        *ret = 0;
        return ERR_OK;
    }
    if (rank == 0) {
        *ret = 0;
        return ERR_OK;
    }
    err e = ref_axis(wanted, rank, &axis);
    if (!e) *ret = old ? ((1u << rank) - 1) & ~((1u << axis) - 1) : 1u << axis;
    return e;
}

static struct tensor accumulators(struct ref_call *c, const struct tensor *x, unsigned mask, double start)
{
    struct tensor_shape s = x->shape;
    for (int i = 0; i < s.rank; i++)
        if (mask >> i & 1) s.dims[i] = 1;
    struct tensor acc = tensor_view(x->dtype, &s, NULL);
    int64_t n = tensor_count(&s);
    acc.data = ref_scratch(c, (size_t)n * (size_t)ref_size(x));
    for (int64_t i = 0; i < n; i++)
        if (x->dtype == TENSOR_F32)
            ((float *)acc.data)[i] = (float)start;
        else
            ((double *)acc.data)[i] = start;
    return acc;
}

/* ---- Softmax of dense float32: memory is [outer, n, inner], the sums run over n */

enum { BLOCK = 1024 };

static bool find_lanes(const struct tensor *x, const struct tensor *y, unsigned mask, int64_t *n,
                       int64_t *inner)
{
    if (x->dtype != TENSOR_F32 || mask == 0 || !tensor_same_dense_layout(x, y)) return false;
    bool one = (mask & (mask - 1)) == 0;
    *n = 1;
    *inner = 1;
    for (int i = 0; i < x->shape.rank; i++)
        if (mask >> i & 1) {
            *n *= x->shape.dims[i];
            if (one && x->shape.dims[i] > 1) *inner = x->strides[i];
        }
    return one || tensor_is_row_major(x); /* several axes are always the last ones */
}

/* Lanes of n numbers one after another, a block of whole lanes at a time so that short ones fill the vectors
 * of exp too. */
static void softmax_rows(float *y, const float *x, int64_t lanes, int64_t n)
{
    int64_t most = MAX(BLOCK / n, 1);
    for (int64_t done = 0; done < lanes; done += most, x += most * n, y += most * n) {
        int64_t count = MIN(most, lanes - done);
        for (int64_t k = 0; k < count; k++) {
            const float *from = x + k * n;
            float m = from[0];
            for (int64_t i = 1; i < n; i++)
                m = from[i] > m ? from[i] : m;
            for (int64_t i = 0; i < n; i++)
                y[k * n + i] = from[i] - m;
        }
        exp_dense_f32(y, y, 0, count * n);
        for (int64_t k = 0; k < count; k++) {
            double sum = 0;
            for (int64_t i = 0; i < n; i++)
                sum += (double)y[k * n + i];
            for (int64_t i = 0; i < n; i++)
                y[k * n + i] /= (float)sum;
        }
    }
}

/* One [n, inner] plane, some columns at a time. */
static void REF_HOT softmax_columns(float *y, const float *x, int64_t n, int64_t inner)
{
    for (int64_t at = 0; at < inner; at += REF_CHUNK) {
        int64_t width = MIN(REF_CHUNK, inner - at);
        float m[REF_CHUNK], sum[REF_CHUNK] = {0};
        memcpy(m, x + at, (size_t)width * sizeof *m);
        for (int64_t k = 1; k < n; k++)
            for (int64_t i = 0; i < width; i++)
                m[i] = x[k * inner + at + i] > m[i] ? x[k * inner + at + i] : m[i];
        for (int64_t k = 0; k < n; k++)
            for (int64_t i = 0; i < width; i++) {
                float e = ref_expf(x[k * inner + at + i] - m[i]);
                y[k * inner + at + i] = e;
                sum[i] += e;
            }
        for (int64_t k = 0; k < n; k++)
            for (int64_t i = 0; i < width; i++)
                y[k * inner + at + i] /= sum[i];
    }
}

static void softmax_dense(const struct tensor *y, const struct tensor *x, int64_t n, int64_t inner)
{
    int64_t count = tensor_count(&x->shape);
    if (inner == 1) {
        softmax_rows(y->data, x->data, count / n, n);
        return;
    }
    for (int64_t at = 0; at < count; at += n * inner)
        softmax_columns((float *)y->data + at, (const float *)x->data + at, n, inner);
}

/* x and y in their own strides, or float32 copies of half precision. */
static struct tensor operand(struct ref_call *c, const struct tensor *t, bool input)
{
    if (ref_domain_dtype(t->dtype) == t->dtype) return *t;
    return input ? ref_dense_in(c, 0, false) : ref_dense_out(c, 0, false);
}

/* ---- Softmax of float16: the standard defines it by a body (Exp, ReduceSum, Div) whose operators each give float16, and graphs that
 * hold that body must give the same numbers. A sum too large for float16 stays what it is: only this operator can say it. */

static void to_half(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = fabsf(x[i]) < 65504 ? ref_half_to_float(ref_float_to_half(x[i])) : x[i];
}

static void softmax_half(const struct tensor *y, const struct tensor *x, int64_t n, int64_t inner)
{
    const float *from = x->data;
    float *to = y->data;
    int64_t count = tensor_count(&x->shape);
    for (int64_t lane = 0; lane < count / n; lane++) {
        int64_t at = lane / inner * n * inner + lane % inner;
        float most = -INFINITY, sum = 0;
        for (int64_t i = 0; i < n; i++)
            most = from[at + i * inner] > most ? from[at + i * inner] : most;
        for (int64_t i = 0; i < n; i++) {
            float e = ref_expf(from[at + i * inner] - most);
            to_half(&e, 1);
            to[at + i * inner] = e;
            sum += e;
        }
        to_half(&sum, 1);
        for (int64_t i = 0; i < n; i++)
            to[at + i * inner] /= sum;
    }
}

size_t ref_softmax_scratch(const struct ref_call *c)
{
    return ref_scratch_rows(c) + 2 * REF_ALIGN(tensor_count(&c->in[0].shape) * 8);
}

err ref_softmax(struct ref_call *c)
{
    unsigned mask = 0;
    err e = softmax_axes(c, &mask);
    if (e || tensor_count(&c->in[0].shape) == 0) return e;
    bool logs = c->node->kind == OP_LOG_SOFTMAX;
    struct tensor x = operand(c, &c->in[0], true), y = operand(c, &c->out[0], false);
    int64_t n, inner;
    if (!logs && find_lanes(&x, &y, mask, &n, &inner)) {
        (c->in[0].dtype == TENSOR_F16 ? softmax_half : softmax_dense)(&y, &x, n, inner);
        if (y.data != c->out[0].data) ref_dense_done(c, 0, &y);
        return ERR_OK;
    }
    struct tensor most = accumulators(c, &x, mask, -INFINITY), sum = accumulators(c, &x, mask, 0);
    const struct tensor *all[] = {&y, &x, &most, &sum};
    bool wide = x.dtype == TENSOR_F64;
    struct ref_loop l;
    ref_loop_init(&l, &x.shape, 2, (const struct tensor *[]){&x, &most});
    ref_loop_run(&l, wide ? max_f64 : max_f32, NULL);
    ref_loop_init(&l, &x.shape, 4, all);
    ref_loop_run(&l, wide ? exp_f64 : exp_f32, &logs);
    ref_loop_run(&l, wide ? end_f64 : end_f32, &logs);
    if (y.data != c->out[0].data) ref_dense_done(c, 0, &y);
    return ERR_OK;
}

err ref_lp_norm(struct ref_call *c)
{
    unsigned mask = 0;
    err e = softmax_axes(c, &mask);
    if (e || tensor_count(&c->in[0].shape) == 0) return e;
    int64_t order = op_attr_int(c->node, "p", 2);
    struct tensor x = operand(c, &c->in[0], true), y = operand(c, &c->out[0], false);
    struct tensor sum = accumulators(c, &x, mask, 0);
    bool wide = x.dtype == TENSOR_F64;
    struct ref_loop l;
    ref_loop_init(&l, &x.shape, 2, (const struct tensor *[]){&x, &sum});
    ref_loop_run(&l, wide ? norm_f64 : norm_f32, &order);
    ref_loop_init(&l, &x.shape, 3, (const struct tensor *[]){&y, &x, &sum});
    ref_loop_run(&l, wide ? norm_end_f64 : norm_end_f32, &order);
    if (y.data != c->out[0].data) ref_dense_done(c, 0, &y);
    return ERR_OK;
}
