/* Softmax, LogSoftmax, LpNormalization: numbers divided by a sum over some of the axes.
 *
 * As in reduce.c, accumulators of step 0 along the folded axes lie beside the input, so any layout is walked in its own order: maxima, then
 * exp(x - max) and its sums, then the division. Half precision works on float32 copies.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/fastmath.h"
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#define AT(T, p, i) (*(T *)(void *)((p) + (i)))

#define SOFTMAX(T, suffix, EXP, LOG)                                                                             \
    /* p: x, maxima */                                                                                           \
    static void max_##suffix(void *context, char *const *p, const int64_t *step, int64_t n)                      \
    {                                                                                                            \
        (void)context;                                                                                           \
        for (int64_t i = 0; i < n; i++) {                                                                        \
            T x = AT(const T, p[0], i * step[0]), *m = &AT(T, p[1], i * step[1]);                                \
            *m = x > *m ? x : *m;                                                                                \
        }                                                                                                        \
    }                                                                                                            \
    static void REF_HOT exp_dense_##suffix(T *y, const T *x, T m, int64_t n)                                     \
    {                                                                                                            \
        for (int64_t i = 0; i < n; i++) y[i] = EXP(x[i] - m);                                                    \
    }                                                                                                            \
    /* p: y, x, maxima, sums; context: LogSoftmax, where y is written later */                                   \
    static void exp_##suffix(void *context, char *const *p, const int64_t *step, int64_t n)                      \
    {                                                                                                            \
        bool logs = *(const bool *)context;                                                                      \
        int64_t size = (int64_t)sizeof(T);                                                                       \
        if (!logs && step[0] == size && step[1] == size && step[2] == 0 && n >= 8) {                             \
            T *y = &AT(T, p[0], 0);                                                                              \
            double sum = 0;                                                                                      \
            exp_dense_##suffix(y, &AT(const T, p[1], 0), AT(const T, p[2], 0), n);                               \
            for (int64_t i = 0; i < n; i++) sum += (double)y[i];                                                 \
            AT(T, p[3], 0) += (T)sum;                                                                            \
            return;                                                                                              \
        }                                                                                                        \
        for (int64_t i = 0; i < n; i++) {                                                                        \
            T e = EXP(AT(const T, p[1], i * step[1]) - AT(const T, p[2], i * step[2]));                          \
            if (!logs) AT(T, p[0], i * step[0]) = e;                                                             \
            AT(T, p[3], i * step[3]) += e;                                                                       \
        }                                                                                                        \
    }                                                                                                            \
    static void end_##suffix(void *context, char *const *p, const int64_t *step, int64_t n)                      \
    {                                                                                                            \
        bool logs = *(const bool *)context;                                                                      \
        for (int64_t i = 0; i < n; i++) {                                                                        \
            T *y = &AT(T, p[0], i * step[0]), sum = AT(const T, p[3], i * step[3]);                              \
            if (logs)                                                                                            \
                *y = AT(const T, p[1], i * step[1]) - AT(const T, p[2], i * step[2]) - LOG(sum);                 \
            else                                                                                                 \
                *y = *y / sum;                                                                                   \
        }                                                                                                        \
    }                                                                                                            \
    static void norm_##suffix(void *context, char *const *p, const int64_t *step, int64_t n)                     \
    {                                                                                                            \
        int64_t order = *(const int64_t *)context;                                                               \
        for (int64_t i = 0; i < n; i++) {                                                                        \
            T x = AT(const T, p[0], i * step[0]);                                                                \
            AT(T, p[1], i * step[1]) += order == 1 ? (x < 0 ? -x : x) : x * x;                                   \
        }                                                                                                        \
    }                                                                                                            \
    static void norm_end_##suffix(void *context, char *const *p, const int64_t *step, int64_t n)                 \
    {                                                                                                            \
        int64_t order = *(const int64_t *)context;                                                               \
        for (int64_t i = 0; i < n; i++) {                                                                        \
            T sum = AT(const T, p[2], i * step[2]), d = order == 1 ? sum : (T)sqrt((double)sum);                 \
            AT(T, p[0], i * step[0]) = d != 0 ? AT(const T, p[1], i * step[1]) / d : 0;                          \
        }                                                                                                        \
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
        if (x->dtype == TENSOR_F32) ((float *)acc.data)[i] = (float)start;
        else ((double *)acc.data)[i] = start;
    return acc;
}

/* x and y in their own strides, or float32 copies of half precision. */
static struct tensor operand(struct ref_call *c, const struct tensor *t, bool input)
{
    if (ref_domain_dtype(t->dtype) == t->dtype) return *t;
    return input ? ref_dense_in(c, 0, false) : ref_dense_out(c, 0, false);
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
