/* What shape rules have in common: sizes that cannot overflow, axes, constants.
 *
 * Constants may lie at any address of a mapped file, so they are read through memcpy.
 * SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <math.h>
#include <string.h>

err op_push(struct tensor_shape *s, int64_t size, bool bounded)
{
    if (s->rank >= TENSOR_MAX_RANK)
        return err_set(ERR_SHAPE, "the result has more than %d axes", TENSOR_MAX_RANK);
    if (size < 0)
        return err_set(ERR_SHAPE, "the result's axis %d would have the size %lld", s->rank, (long long)size);
    s->dims[s->rank] = size;
    if (bounded) s->bounded |= (uint8_t)(1u << s->rank);
    s->rank++;
    return ERR_OK;
}

err op_push_range(struct tensor_shape *s, const struct tensor_shape *of, int from, int to)
{
    for (int i = from; i < to; i++) {
        err e = op_push(s, of->dims[i], op_bounded(of, i));
        if (e) return e;
    }
    return ERR_OK;
}

err op_times(int64_t a, int64_t b, int64_t *ret)
{
    int64_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return err_set(ERR_SHAPE, "a size of %lld x %lld", (long long)a, (long long)b);
    *ret = r;
    return ERR_OK;
}

err op_axis(int64_t axis, int rank, int *ret)
{
    if (axis < -rank || axis >= rank)
        return err_set(ERR_SHAPE, "axis %lld of a tensor with %d axes", (long long)axis, rank);
    *ret = (int)(axis < 0 ? axis + rank : axis);
    return ERR_OK;
}

static err wrong_rank(const struct op_info *v, int i, const char *at_least, int rank)
{
    char s[256];
    return err_set(ERR_SHAPE, "input %d is %s, but must have %s%d axes", i,
                   tensor_shape_text(&v->shape, NULL, s, sizeof s), at_least, rank);
}

err op_want_rank(const struct op_info *in, int i, int rank)
{
    return in[i].shape.rank == rank ? ERR_OK : wrong_rank(&in[i], i, "", rank);
}

err op_want_rank_from(const struct op_info *in, int i, int least)
{
    return in[i].shape.rank >= least ? ERR_OK : wrong_rank(&in[i], i, "at least ", least);
}

err op_want_same_type(const struct op_info *in, int a, int b)
{
    if (in[a].dtype == in[b].dtype) return ERR_OK;
    return err_set(ERR_SHAPE, "input %d is %s but input %d is %s; the types must be equal", a,
                   tensor_dtype_name(in[a].dtype), b, tensor_dtype_name(in[b].dtype));
}

err op_want_vector(const struct op_node *n, const struct op_info *in, int i, int64_t size)
{
    if (!op_present(n, in, i)) return ERR_OK;
    if (in[i].shape.rank == 1 && in[i].shape.dims[0] == size) return ERR_OK;
    char s[256];
    return err_set(ERR_SHAPE, "input %d is %s, but must be [%lld]", i,
                   tensor_shape_text(&in[i].shape, NULL, s, sizeof s), (long long)size);
}

err op_agree(const struct tensor_shape *a, int i, const struct tensor_shape *b, int j, int64_t *ret,
             bool *ret_bounded)
{
    bool ba = op_bounded(a, i), bb = op_bounded(b, j);
    int64_t x = a->dims[i], y = b->dims[j];
    if ((!ba && !bb && x != y) || (ba && !bb && y > x) || (bb && !ba && x > y))
        return err_set(ERR_SHAPE, "axis %d has the size %lld, but axis %d of the other %lld", i, (long long)x,
                       j, (long long)y);
    *ret = MIN(x, y);
    *ret_bounded = ba && bb;
    return ERR_OK;
}

static err constant_count(const struct op_info *v, int i, const char *what, int most, int *ret_n)
{
    if (!v->constant)
        return err_set(ERR_UNSUPPORTED,
                       "input %d (%s) decides the result's shape and must be known before the run, "
                       "but it is computed from data; export the model with fixed sizes",
                       i, what);
    if (v->shape.rank > 1) return wrong_rank(v, i, "at most ", 1);
    int64_t n = v->shape.rank ? v->shape.dims[0] : 1;
    if (n > most)
        return err_set(ERR_SHAPE, "input %d (%s) has %lld numbers, at most %d fit", i, what, (long long)n,
                       most);
    *ret_n = (int)n;
    return ERR_OK;
}

static err wrong_type(const struct op_info *v, int i, const char *what)
{
    return err_set(ERR_SHAPE, "input %d (%s) cannot be %s", i, what, tensor_dtype_name(v->dtype));
}

err op_constant_ints(const struct op_info *v, int i, const char *what, int64_t *ret, int most, int *ret_n)
{
    int count;
    if (v->dtype != TENSOR_I64 && v->dtype != TENSOR_I32) return wrong_type(v, i, what);
    err e = constant_count(v, i, what, most, &count);
    if (e) return e;
    if (v->dtype == TENSOR_I64) {
        memcpy(ret, v->constant, (size_t)count * sizeof *ret);
    } else {
        for (int k = 0; k < count; k++) {
            int32_t x;
            memcpy(&x, (const char *)v->constant + (size_t)k * sizeof x, sizeof x);
            ret[k] = x;
        }
    }
    *ret_n = count;
    return ERR_OK;
}

err op_constant_int(const struct op_info *v, int i, const char *what, int64_t *ret)
{
    int64_t number;
    int count = 0;
    err e = op_constant_ints(v, i, what, &number, 1, &count);
    if (e) return e;
    if (count != 1) return err_set(ERR_SHAPE, "input %d (%s) must hold one number", i, what);
    *ret = number;
    return ERR_OK;
}

/* float16 (IEEE 754 binary16) or bfloat16 (the upper half of a float32) */
static float half_of(enum tensor_dtype t, uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float f;
    if (t == TENSOR_BF16) {
        memcpy(&f, &wide, sizeof f);
        return f;
    }
    f = exponent == 31 ? (mantissa ? NAN : INFINITY)
        : exponent     ? ldexpf((float)(mantissa + 1024), exponent - 25)
                       : ldexpf((float)mantissa, -24);
    return bits >> 15 ? -f : f;
}

err op_constant_floats(const struct op_info *v, int i, const char *what, float *ret, int most, int *ret_n)
{
    int count;
    bool half = v->dtype == TENSOR_F16 || v->dtype == TENSOR_BF16;
    if (v->dtype != TENSOR_F32 && v->dtype != TENSOR_F64 && !half) return wrong_type(v, i, what);
    err e = constant_count(v, i, what, most, &count);
    if (e) return e;
    for (int k = 0; k < count; k++) {
        double d;
        if (half) {
            uint16_t bits;
            memcpy(&bits, (const char *)v->constant + (size_t)k * sizeof bits, sizeof bits);
            ret[k] = half_of(v->dtype, bits);
            continue;
        }
        if (v->dtype == TENSOR_F32) {
            memcpy(&ret[k], (const char *)v->constant + (size_t)k * sizeof *ret, sizeof *ret);
        } else {
            memcpy(&d, (const char *)v->constant + (size_t)k * sizeof d, sizeof d);
            ret[k] = (float)d;
        }
    }
    *ret_n = count;
    return ERR_OK;
}

err op_constant_number(const struct op_info *v, int i, const char *what, double *ret)
{
    int count;
    int64_t integer;
    float f;
    err e;
    if (v->dtype == TENSOR_F64) { /* not through float: a Range of doubles counts exactly */
        e = constant_count(v, i, what, 1, &count);
        if (!e && count == 1) memcpy(ret, v->constant, sizeof *ret);
    } else if (tensor_dtype_is_float(v->dtype)) {
        e = op_constant_floats(v, i, what, &f, 1, &count);
        if (!e && count == 1) *ret = (double)f;
    } else {
        e = op_constant_ints(v, i, what, &integer, 1, &count);
        if (!e && count == 1) *ret = (double)integer;
    }
    if (!e && count != 1) e = err_set(ERR_SHAPE, "input %d (%s) must hold one number", i, what);
    return e;
}

err op_ints(const struct op_node *n, const struct op_info *in, int i, const char *name, int64_t *ret,
            int most, int *ret_n)
{
    if (op_present(n, in, i)) return op_constant_ints(&in[i], i, name, ret, most, ret_n);
    const struct op_attr *a = op_attr(n, name);
    if (!a || a->type != OP_ATTR_INTS) {
        *ret_n = -1;
        return ERR_OK;
    }
    if (a->n > (size_t)most)
        return err_set(ERR_SHAPE, "%s has %zu numbers, at most %d fit", name, a->n, most);
    if (a->n) memcpy(ret, a->ints, a->n * sizeof *ret);
    *ret_n = (int)a->n;
    return ERR_OK;
}
