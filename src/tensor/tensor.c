/* The shape of numbers: see tensor.h. Everything here is arithmetic on sizes that may come from a foreign file, so products
 * are checked: no tensor of more than 2^47 elements or bytes exists (an address has 47 bits).
 *
 * Invariant: a view's strides are >= 0, and span * size never overflows. SPDX-License-Identifier: Apache-2.0 */
#include "tensor/small.h"
#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

static const int64_t MOST = (int64_t)1 << 47;

size_t tensor_dtype_size(enum tensor_dtype t)
{
    switch (t) {
    case TENSOR_U8: case TENSOR_I8: case TENSOR_BOOL: return 1;
    case TENSOR_U16: case TENSOR_I16: case TENSOR_F16: case TENSOR_BF16: return 2;
    case TENSOR_F32: case TENSOR_I32: case TENSOR_U32: return 4;
    case TENSOR_F64: case TENSOR_I64: case TENSOR_U64: return 8;
    case TENSOR_F8E4M3FN: case TENSOR_F8E4M3FNUZ: case TENSOR_F8E5M2: case TENSOR_F8E5M2FNUZ: case TENSOR_F8E8M0:
    case TENSOR_U4: case TENSOR_I4: case TENSOR_F4E2M1: case TENSOR_U2: case TENSOR_I2: return 1;
    case TENSOR_NONE: case TENSOR_STRING: break;
    }
    return 0;
}

const char *tensor_dtype_name(enum tensor_dtype t)
{
    switch (t) {
    case TENSOR_NONE: return "none";
    case TENSOR_F32: return "float32";
    case TENSOR_U8: return "uint8";
    case TENSOR_I8: return "int8";
    case TENSOR_U16: return "uint16";
    case TENSOR_I16: return "int16";
    case TENSOR_I32: return "int32";
    case TENSOR_I64: return "int64";
    case TENSOR_STRING: return "string";
    case TENSOR_BOOL: return "bool";
    case TENSOR_F16: return "float16";
    case TENSOR_F64: return "float64";
    case TENSOR_U32: return "uint32";
    case TENSOR_U64: return "uint64";
    case TENSOR_BF16: return "bfloat16";
    case TENSOR_F8E4M3FN: return "float8e4m3fn";
    case TENSOR_F8E4M3FNUZ: return "float8e4m3fnuz";
    case TENSOR_F8E5M2: return "float8e5m2";
    case TENSOR_F8E5M2FNUZ: return "float8e5m2fnuz";
    case TENSOR_F8E8M0: return "float8e8m0";
    case TENSOR_F4E2M1: return "float4e2m1";
    case TENSOR_U4: return "uint4";
    case TENSOR_I4: return "int4";
    case TENSOR_U2: return "uint2";
    case TENSOR_I2: return "int2";
    }
    return "unknown";
}

bool tensor_dtype_is_float(enum tensor_dtype t)
{
    return t == TENSOR_F32 || t == TENSOR_F64 || t == TENSOR_F16 || t == TENSOR_BF16;
}

bool tensor_dtype_is_integer(enum tensor_dtype t)
{
    return tensor_dtype_size(t) && t != TENSOR_BOOL && !tensor_dtype_is_float(t) && !tensor_dtype_is_small(t);
}

struct tensor_shape tensor_shape_of(int rank, const int64_t *dims)
{
    struct tensor_shape s = {.rank = rank};
    if (rank > 0) memcpy(s.dims, dims, (size_t)MIN(rank, TENSOR_MAX_RANK) * sizeof *dims);
    return s;
}

bool tensor_shape_known(const struct tensor_shape *s)
{
    for (int i = 0; i < s->rank; i++)
        if (s->dims[i] < 0) return false;
    return true;
}

bool tensor_shape_equal(const struct tensor_shape *a, const struct tensor_shape *b)
{
    return a->rank == b->rank && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
}

err tensor_shape_count(const struct tensor_shape *s, int64_t *ret)
{
    int64_t n = 1;
    bool empty = false;
    for (int i = 0; i < s->rank; i++) {
        if (s->dims[i] < 0) return err_set(ERR_SHAPE, "size %d is not known", i);
        if (s->dims[i] == 0)
            empty = true;
        else if (s->dims[i] > MOST / n)
            return err_set(ERR_LIMIT, "a tensor of more than 2^47 elements");
        else
            n *= s->dims[i];
    }
    *ret = empty ? 0 : n;
    return ERR_OK;
}

int64_t tensor_count(const struct tensor_shape *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++) n *= s->dims[i];
    return n;
}

const char *tensor_shape_text(const struct tensor_shape *s, const char *const *symbols, char *buf, size_t size)
{
    size_t n = (size_t)snprintf(buf, size, "[");
    for (int i = 0; i < s->rank && n < size; i++) {
        const char *comma = i ? ", " : "", *bound = s->bounded >> i & 1 ? "<=" : "";
        if (s->dims[i] >= 0)
            n += (size_t)snprintf(buf + n, size - n, "%s%s%lld", comma, bound, (long long)s->dims[i]);
        else if (symbols)
            n += (size_t)snprintf(buf + n, size - n, "%s%s", comma, symbols[TENSOR_SYMBOL_NUMBER(s->dims[i])]);
        else
            n += (size_t)snprintf(buf + n, size - n, "%s?%d", comma, TENSOR_SYMBOL_NUMBER(s->dims[i]));
    }
    if (n < size) snprintf(buf + n, size - n, "]");
    return buf;
}

err tensor_broadcast(const struct tensor_shape *a, const struct tensor_shape *b, struct tensor_shape *ret)
{
    struct tensor_shape out = {.rank = MAX(a->rank, b->rank)};
    for (int i = 0; i < out.rank; i++) {
        int ia = i - (out.rank - a->rank), ib = i - (out.rank - b->rank);
        int64_t da = ia >= 0 ? a->dims[ia] : 1, db = ib >= 0 ? b->dims[ib] : 1;
        if (da != db && da != 1 && db != 1) {
            char s[2][128];
            return err_set(ERR_SHAPE, "%s and %s do not broadcast", tensor_shape_text(a, NULL, s[0], sizeof s[0]),
                           tensor_shape_text(b, NULL, s[1], sizeof s[1]));
        }
        out.dims[i] = da == 1 ? db : da;
        if ((ia >= 0 && a->bounded >> ia & 1) || (ib >= 0 && b->bounded >> ib & 1)) out.bounded |= (uint8_t)(1u << i);
    }
    *ret = out;
    return ERR_OK;
}

void tensor_strides_row_major(const struct tensor_shape *s, int64_t *strides)
{
    int64_t step = 1;
    for (int i = s->rank - 1; i >= 0; i--) {
        strides[i] = step;
        step *= MAX(s->dims[i], 1);
    }
}

void tensor_strides_channels_last(const struct tensor_shape *s, int64_t *strides)
{
    if (s->rank < 3) {
        tensor_strides_row_major(s, strides);
        return;
    }
    int64_t step = MAX(s->dims[1], 1);
    strides[1] = 1;
    for (int i = s->rank - 1; i >= 2; i--) {
        strides[i] = step;
        step *= MAX(s->dims[i], 1);
    }
    strides[0] = step;
}

struct tensor tensor_view(enum tensor_dtype dtype, const struct tensor_shape *shape, const void *data)
{
    struct tensor t = {.dtype = dtype, .shape = *shape, .data = (void *)(uintptr_t)data};
    tensor_strides_row_major(shape, t.strides);
    return t;
}

static bool strides_match(const struct tensor *t, const int64_t *want)
{
    for (int i = 0; i < t->shape.rank; i++)
        if (t->shape.dims[i] > 1 && t->strides[i] != want[i]) return false;
    return true;
}

bool tensor_is_row_major(const struct tensor *t)
{
    int64_t want[TENSOR_MAX_RANK];
    tensor_strides_row_major(&t->shape, want);
    return strides_match(t, want);
}

bool tensor_is_channels_last(const struct tensor *t)
{
    int64_t want[TENSOR_MAX_RANK];
    tensor_strides_channels_last(&t->shape, want);
    return strides_match(t, want);
}

int64_t tensor_span(const struct tensor *t)
{
    int64_t last = 0;
    for (int i = 0; i < t->shape.rank; i++) {
        if (t->shape.dims[i] == 0) return 0;
        last += (t->shape.dims[i] - 1) * t->strides[i];
    }
    return last + 1;
}

static bool has_zero_stride(const struct tensor *t)
{
    for (int i = 0; i < t->shape.rank; i++)
        if (t->shape.dims[i] > 1 && t->strides[i] == 0) return true;
    return false;
}

bool tensor_same_dense_layout(const struct tensor *a, const struct tensor *b)
{
    if (!tensor_shape_equal(&a->shape, &b->shape) || !strides_match(a, b->strides)) return false;
    /* equal strides with a span equal to the count: every offset is used once (zero strides would make the span smaller) */
    return tensor_span(a) == tensor_count(&a->shape) && !has_zero_stride(a);
}

/* Old axes are taken in runs whose strides chain (stride[i] == stride[i+1] * dims[i+1]); each run may be cut in another way, but no
 * new axis may reach over the end of a run. This is NumPy's rule for reshaping without a copy. */
bool tensor_reshape_view(const struct tensor *t, const struct tensor_shape *shape, struct tensor *ret)
{
    int64_t od[TENSOR_MAX_RANK], os[TENSOR_MAX_RANK], strides[TENSOR_MAX_RANK] = {0};
    int on = 0;
    if (tensor_count(&t->shape) != tensor_count(shape)) return false;
    if (tensor_count(shape) == 0) {
        *ret = tensor_view(t->dtype, shape, t->data);
        return true;
    }
    for (int i = 0; i < t->shape.rank; i++)
        if (t->shape.dims[i] != 1) {
            od[on] = t->shape.dims[i];
            os[on++] = t->strides[i];
        }
    int oi = 0, ni = 0;
    while (oi < on) {
        int oj = oi + 1, nj = ni;
        int64_t op = od[oi], np = 1;
        while (nj < shape->rank && np < op) np *= shape->dims[nj++];
        while (np != op) {
            if (np < op) {
                if (nj >= shape->rank) return false;
                np *= shape->dims[nj++];
            } else {
                if (oj >= on) return false;
                op *= od[oj++];
            }
        }
        for (int k = oi; k + 1 < oj; k++)
            if (os[k] != os[k + 1] * od[k + 1]) return false;
        int64_t step = os[oj - 1];
        for (int k = nj - 1; k >= ni; k--) {
            strides[k] = step;
            step *= shape->dims[k];
        }
        oi = oj;
        ni = nj;
    }
    for (int k = ni; k < shape->rank; k++) strides[k] = 1; /* trailing sizes of 1 */
    *ret = *t;
    ret->shape = *shape;
    memcpy(ret->strides, strides, sizeof strides);
    return true;
}
