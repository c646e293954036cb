/* Reduce*, the global poolings, ArgMax and ArgMin, CumSum.
 *
 * A reduction walks the input in the order of its memory beside a dense accumulator whose steps along the
 * reduced axes are 0. So a row either folds into one number (eight partial ones, merged at its end) or is
 * added to a row of accumulators; every layout is read once, in order. Floats are summed in float64.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

/* Accumulates n numbers x into acc[0] (step 0) or acc[0 ... n) (else; dense or strided). */
typedef void fold_fn(void *acc, int64_t step, const void *x, int64_t n);

#define FOLD(name, T, A, start, value, merge)                                                                \
    static void REF_HOT name(void *to, int64_t step, const void *from, int64_t n)                            \
    {                                                                                                        \
        A *acc = to;                                                                                         \
        const T *v = from;                                                                                   \
        if (step) {                                                                                          \
            for (int64_t i = 0; i < n; i++) {                                                                \
                A x = (A)v[i], a = acc[i * step], b = value;                                                 \
                acc[i * step] = merge;                                                                       \
            }                                                                                                \
            return;                                                                                          \
        }                                                                                                    \
        A part[8];                                                                                           \
        for (int k = 0; k < 8; k++)                                                                          \
            part[k] = start;                                                                                 \
        int64_t i = 0;                                                                                       \
        for (; i + 8 <= n; i += 8)                                                                           \
            for (int k = 0; k < 8; k++) {                                                                    \
                A x = (A)v[i + k], a = part[k], b = value;                                                   \
                part[k] = merge;                                                                             \
            }                                                                                                \
        for (; i < n; i++) {                                                                                 \
            A x = (A)v[i], a = part[0], b = value;                                                           \
            part[0] = merge;                                                                                 \
        }                                                                                                    \
        for (int k = 0; k < 8; k++) {                                                                        \
            A b = part[k], a = acc[0];                                                                       \
            acc[0] = merge;                                                                                  \
        }                                                                                                    \
    }
#define MAX_OF(a, b) ((a) < (b) || (b) != (b) ? (b) : (a))
#define MIN_OF(a, b) ((a) > (b) || (b) != (b) ? (b) : (a))
#define FOLDS(suffix, T, A, low, high)                                                                       \
    FOLD(sum_##suffix, T, A, 0, x, a + b)                                                                    \
    FOLD(sum_square_##suffix, T, A, 0, x * x, a + b)                                                          \
    FOLD(prod_##suffix, T, A, 1, x, a * b)                                                                    \
    FOLD(max_##suffix, T, A, low, x, MAX_OF(a, b))                                                           \
    FOLD(min_##suffix, T, A, high, x, MIN_OF(a, b))
FOLDS(f32, float, double, -(double)INFINITY, (double)INFINITY)
FOLDS(f64, double, double, -(double)INFINITY, (double)INFINITY)
/* sums of integers wrap: without a sign; order needs it */
FOLDS(u64, uint64_t, uint64_t, 0, UINT64_MAX)
FOLD(sum_abs_f32, float, double, 0, fabs(x), a + b)
FOLD(sum_abs_f64, double, double, 0, fabs(x), a + b)
FOLD(sum_abs_i64, int64_t, uint64_t, 0, (x >> 63 ? 0 - x : x), a + b)
FOLD(max_i64, int64_t, int64_t, INT64_MIN, x, MAX_OF(a, b))
FOLD(min_i64, int64_t, int64_t, INT64_MAX, x, MIN_OF(a, b))

enum fold { FOLD_SUM, FOLD_ABS, FOLD_SQUARE, FOLD_PROD, FOLD_MAX, FOLD_MIN };
static fold_fn *const FOLD_FNS[][4] = {
    [FOLD_SUM] = {sum_f32, sum_f64, sum_u64, sum_u64},
    [FOLD_ABS] = {sum_abs_f32, sum_abs_f64, sum_abs_i64, sum_u64},
    [FOLD_SQUARE] = {sum_square_f32, sum_square_f64, sum_square_u64, sum_square_u64},
    [FOLD_PROD] = {prod_f32, prod_f64, prod_u64, prod_u64},
    [FOLD_MAX] = {max_f32, max_f64, max_i64, max_u64},
    [FOLD_MIN] = {min_f32, min_f64, min_i64, min_u64},
};

struct fold_row {
    fold_fn *fn;
    enum tensor_dtype type;
};

/* p: input, accumulators */
static void fold_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const struct fold_row *r = context;
    double buf[REF_CHUNK];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        r->fn(p[1] + i * step[1], step[1] / 8, ref_fetch(r->type, p[0] + i * step[0], step[0], m, buf), m);
    }
}

/* The value that changes nothing: of the smallest and the largest of no bools, false and true. */
static void fill_start(const struct tensor *acc, enum fold f, bool of_bools)
{
    union {
        double d;
        int64_t i;
        uint64_t u;
    } v = {.u = 0};
    bool d = acc->dtype == TENSOR_F64, u = acc->dtype == TENSOR_U64;
    if (f == FOLD_PROD) {
        if (d)
            v.d = 1;
        else
            v.i = 1;
    } else if (f == FOLD_MAX) {
        if (d)
            v.d = -INFINITY;
        else
            v.i = u || of_bools ? 0 : INT64_MIN;
    } else if (f == FOLD_MIN) {
        if (d)
            v.d = INFINITY;
        else
            v.u = u ? UINT64_MAX : INT64_MAX;
    }
    ref_fill(acc, &v);
}

static enum tensor_dtype acc_dtype(enum tensor_dtype t)
{
    return tensor_dtype_is_float(t) ? TENSOR_F64 : ref_domain_dtype(t);
}

/* Accumulators for `in` with the axes of `mask` folded: float64, int64 or uint64, dense, sizes of 1 where
 * folded. */
static struct tensor acc_like(const struct tensor *in, unsigned mask, void *data)
{
    struct tensor_shape s = in->shape;
    for (int i = 0; i < s.rank; i++)
        if (mask >> i & 1) s.dims[i] = 1;
    return tensor_view(acc_dtype(in->dtype), &s, data);
}

static void fold(const struct tensor *acc, const struct tensor *in, enum fold f)
{
    struct fold_row r = {FOLD_FNS[f][ref_domain(in->dtype)], in->dtype};
    struct ref_loop l;
    fill_start(acc, f, in->dtype == TENSOR_BOOL);
    ref_loop_init(&l, &in->shape, 2, (const struct tensor *[]){in, acc});
    ref_loop_run(&l, fold_row, &r);
}

/* sum of exp(x - max); p: input, sums, maxima */
static void exp_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    enum tensor_dtype type = *(const enum tensor_dtype *)context;
    double raw[REF_CHUNK], x[REF_CHUNK];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        ref_convert(ref_domain(type), ref_fetch(type, p[0] + i * step[0], step[0], m, raw), TENSOR_F64, x, m);
        for (int64_t k = 0; k < m; k++) {
            double most = *(const double *)(const void *)(p[2] + (i + k) * step[2]);
            *(double *)(void *)(p[1] + (i + k) * step[1]) += exp(x[k] - (isinf(most) ? 0 : most));
        }
    }
}

static void log_sum_exp(const struct tensor *acc, const struct tensor *most, const struct tensor *in)
{
    struct ref_loop l;
    enum tensor_dtype type = in->dtype;
    fold(most, in, FOLD_MAX);
    fill_start(acc, FOLD_SUM, false);
    ref_loop_init(&l, &in->shape, 3, (const struct tensor *[]){in, acc, most});
    ref_loop_run(&l, exp_row, &type);
    double *a = acc->data, *m = most->data;
    for (int64_t i = 0; i < tensor_count(&acc->shape); i++)
        a[i] = log(a[i]) + (isinf(m[i]) ? 0 : m[i]);
}

/* What is left to do with the folded numbers; `n` were folded into each. */
static void finish(const struct tensor *acc, enum op_kind kind, int64_t n)
{
    int64_t count = tensor_count(&acc->shape);
    if (acc->dtype == TENSOR_F64) {
        double *a = acc->data;
        for (int64_t i = 0; i < count; i++) {
            if (kind == OP_REDUCE_MEAN || kind == OP_GLOBAL_AVERAGE_POOL) a[i] /= (double)n;
            if (kind == OP_REDUCE_L2) a[i] = sqrt(a[i]);
            if (kind == OP_REDUCE_LOG_SUM) a[i] = log(a[i]);
        }
        return;
    }
    int64_t *a = acc->data;
    for (int64_t i = 0; i < count; i++) {
        if (kind == OP_REDUCE_MEAN)
            a[i] = n ? acc->dtype == TENSOR_U64 ? (int64_t)((uint64_t)a[i] / (uint64_t)n) : a[i] / n : 0;
        double v = acc->dtype == TENSOR_U64 ? (double)(uint64_t)a[i] : (double)a[i];
        if (kind == OP_REDUCE_L2 || kind == OP_REDUCE_LOG_SUM) {
            v = kind == OP_REDUCE_L2 ? sqrt(v) : log(v);
            ref_convert(REF_F64, &v, acc->dtype, &a[i], 1);
        }
    }
}

static enum fold fold_of(enum op_kind kind)
{
    switch (kind) {
    case OP_REDUCE_L1:
        return FOLD_ABS;
    case OP_REDUCE_L2:
    case OP_REDUCE_SUM_SQUARE:
        return FOLD_SQUARE;
    case OP_REDUCE_PROD:
        return FOLD_PROD;
    case OP_REDUCE_MAX:
    case OP_GLOBAL_MAX_POOL:
        return FOLD_MAX;
    case OP_REDUCE_MIN:
        return FOLD_MIN;
    default:
        return FOLD_SUM;
    }
}

static err folded_axes(const struct ref_call *c, unsigned *ret_mask)
{
    int rank = c->in[0].shape.rank, n = -1;
    int64_t axes[TENSOR_MAX_RANK];
    unsigned mask = 0;
    if (c->node->kind == OP_GLOBAL_AVERAGE_POOL || c->node->kind == OP_GLOBAL_MAX_POOL) {
        *ret_mask = ((1u << rank) - 1) & ~3u;
        return ERR_OK;
    }
    err e = ref_axes(c, 1, rank, axes, &n);
    if (e) return e;
    for (int i = 0; i < n; i++)
        mask |= 1u << axes[i];
    if (n <= 0 && !op_attr_int(c->node, "noop_with_empty_axes", 0)) mask = (1u << rank) - 1;
    *ret_mask = mask;
    return ERR_OK;
}

err ref_reduce(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    enum op_kind kind = c->node->kind;
    unsigned mask = 0;
    err e = folded_axes(c, &mask);
    if (e) return e;
    size_t bytes = (size_t)tensor_count(&out->shape) * 8;
    struct tensor acc = acc_like(in, mask, ref_scratch(c, bytes));
    if (tensor_count(&acc.shape) != tensor_count(&out->shape))
        return err_set(ERR_SHAPE, "the axes do not lead to the output's shape");
    int64_t n = 1;
    for (int i = 0; i < in->shape.rank; i++)
        if (mask >> i & 1) n *= in->shape.dims[i];
    if (kind == OP_REDUCE_LOG_SUM_EXP && acc.dtype == TENSOR_F64) {
        struct tensor most = acc_like(in, mask, ref_scratch(c, bytes));
        log_sum_exp(&acc, &most, in);
    } else if (kind == OP_REDUCE_LOG_SUM_EXP) {
        return err_set(ERR_UNSUPPORTED, "ReduceLogSumExp of integers");
    } else {
        fold(&acc, in, fold_of(kind));
        finish(&acc, kind, n);
    }
    struct tensor flat = tensor_view(acc.dtype, &out->shape, acc.data);
    ref_cast_tensor(out, &flat);
    return ERR_OK;
}

size_t ref_reduce_scratch(const struct ref_call *c)
{
    return 2 * REF_ALIGN(tensor_count(&c->out[0].shape) * 8);
}

/* ---- along one axis */

/* Index of the best of `n` numbers; the last of equals if asked for. */
static int64_t best(const struct tensor *in, const char *p, int64_t step, int64_t n, bool least, bool last)
{
    double chunk[REF_CHUNK];
    enum ref_domain d = ref_domain(in->dtype);
    int64_t at = 0;
    double best_f = 0;
    int64_t best_i = 0;
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        ref_get(in->dtype, p + i * step, step, m, chunk);
        for (int64_t k = 0; k < m; k++) {
            bool better, equal;
            double f = d == REF_F32 ? (double)((const float *)(const void *)chunk)[k] : chunk[k];
            int64_t v = 0;
            if (d >= REF_I64) {
                memcpy(&v, &chunk[k], sizeof v);
                if (d == REF_U64) v = (int64_t)((uint64_t)v ^ (1ull << 63)); /* order without a sign */
                better = least ? v < best_i : v > best_i;
                equal = v == best_i;
            } else {
                better = least ? f < best_f : f > best_f;
                equal = f == best_f;
            }
            if (i + k == 0 || better || (last && equal)) {
                at = i + k;
                best_f = f;
                best_i = v;
            }
        }
    }
    return at;
}

err ref_arg(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int axis = 0, rank = in->shape.rank;
    err e = ref_axis(op_attr_int(c->node, "axis", 0), rank, &axis);
    if (e) return e;
    bool least = c->node->kind == OP_ARGMIN, last = op_attr_int(c->node, "select_last_index", 0) != 0;
    struct tensor_shape s = in->shape;
    s.dims[axis] = 1;
    int64_t count = tensor_count(&s);
    if (count != tensor_count(&out->shape) || out->dtype != TENSOR_I64)
        return err_set(ERR_SHAPE, "the output does not fit");
    if (count == 0) return ERR_OK;
    if (in->shape.dims[axis] == 0) return err_set(ERR_SHAPE, "axis %d is empty", axis);
    int64_t index[TENSOR_MAX_RANK] = {0}, number = 0;
    do {
        int64_t from = 0;
        for (int i = 0; i < rank; i++)
            from += index[i] * in->strides[i];
        ((int64_t *)out->data)[ref_offset(out, number++)] =
            best(in, (const char *)in->data + from * ref_size(in), in->strides[axis] * ref_size(in),
                 in->shape.dims[axis], least, last);
    } while (ref_next(rank, s.dims, index));
    return ERR_OK;
}

static void cumsum_lane(const struct tensor *out, char *to, int64_t ts, const struct tensor *in,
                        const char *from, int64_t fs, int64_t n, bool exclusive, bool product)
{
    double sum_f = product;
    uint64_t sum_i = product;
    bool is_float = tensor_dtype_is_float(in->dtype);
    for (int64_t i = 0; i < n; i++) {
        union {
            float f;
            double d;
            uint64_t u;
        } v;
        double before_f = sum_f;
        uint64_t before_i = sum_i;
        ref_get(in->dtype, from + i * fs, 0, 1, &v);
        double x = ref_domain(in->dtype) == REF_F32 ? (double)v.f : v.d;
        if (is_float)
            sum_f = product ? sum_f * x : sum_f + x;
        else
            sum_i = product ? sum_i * v.u : sum_i + v.u;
        double f = exclusive ? before_f : sum_f;
        uint64_t u = exclusive ? before_i : sum_i;
        if (!is_float)
            v.u = u;
        else
            ref_convert(REF_F64, &f, in->dtype, &v, 1);
        ref_put(out->dtype, to + i * ts, 0, 1, &v);
    }
}

err ref_cumsum(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int axis = 0, rank = in->shape.rank;
    if (!ref_has(c, 1) || tensor_count(&c->in[1].shape) != 1)
        return err_set(ERR_SHAPE, "input 1 must be the axis");
    err e = ref_axis(ref_int_at(&c->in[1], 0), rank, &axis);
    if (e || tensor_count(&in->shape) == 0) return e;
    bool reverse = op_attr_int(c->node, "reverse", 0) != 0,
         exclusive = op_attr_int(c->node, "exclusive", 0) != 0;
    struct tensor_shape s = in->shape;
    int64_t n = s.dims[axis], size = ref_size(in), index[TENSOR_MAX_RANK] = {0};
    s.dims[axis] = 1;
    do {
        int64_t from = 0, to = 0, fs = in->strides[axis], ts = out->strides[axis];
        for (int i = 0; i < rank; i++) {
            from += index[i] * in->strides[i];
            to += index[i] * out->strides[i];
        }
        if (reverse) {
            from += (n - 1) * fs;
            to += (n - 1) * ts;
            fs = -fs;
            ts = -ts;
        }
        cumsum_lane(out, (char *)out->data + to * size, ts * size, in, (const char *)in->data + from * size,
                    fs * size, n, exclusive, c->node->kind == OP_CUMPROD);
    } while (ref_next(rank, s.dims, index));
    return ERR_OK;
}
