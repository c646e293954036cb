/* Types and domains, scratch, and the arguments that operators take from constant inputs or attributes.
 *
 * float16 goes through float32 with round-to-nearest-even (IEEE 754, 5.4.2), bfloat16 likewise. A number that
 * does not fit an integer type becomes the limit, except that 8 and 16 bits keep the low bits of the 32-bit
 * result, as processors do. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"
#include "tensor/small.h"

#include <string.h>

enum ref_domain ref_domain(enum tensor_dtype t)
{
    switch (t) {
    case TENSOR_F32:
    case TENSOR_F16:
    case TENSOR_BF16:
    case TENSOR_F8E4M3FN:
    case TENSOR_F8E4M3FNUZ:
    case TENSOR_F8E5M2:
    case TENSOR_F8E5M2FNUZ:
    case TENSOR_F8E8M0:
    case TENSOR_F4E2M1:
        return REF_F32;
    case TENSOR_F64:
        return REF_F64;
    case TENSOR_U64:
        return REF_U64;
    default:
        return REF_I64;
    }
}

enum tensor_dtype ref_domain_dtype(enum tensor_dtype t)
{
    static const enum tensor_dtype own[] = {TENSOR_F32, TENSOR_F64, TENSOR_I64, TENSOR_U64};
    return own[ref_domain(t)];
}

static inline float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

float ref_half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
    if (rest < 0x0400) { /* zero or subnormal: a multiple of 2^-24 */
        float f = (float)rest * 0x1p-24f;
        return sign ? -f : f;
    }
    uint32_t exponent = rest >= 0x7c00 ? 224u << 23 : 112u << 23;
    return float_of(sign | ((rest << 13) + exponent));
}

uint16_t ref_float_to_half(float f)
{
    uint32_t x = bits_of(f), sign = x >> 16 & 0x8000;
    x &= 0x7fffffff;
    if (x > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (x >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (x < 0x38800000) /* below 2^-14: adding 0.5 lines the bits up and rounds them */
        return (uint16_t)(sign | (bits_of(float_of(x) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | ((x - (112u << 23) + 0xfff + (x >> 13 & 1)) >> 13));
}

/* The low bits of a number as a number of so many bits. */
static inline int8_t signed_bits(int64_t v, int bits)
{
    return (int8_t)((int8_t)((uint64_t)v << (8 - bits)) >> (8 - bits));
}

#define FLOAT8(X, type) X(uint8_t, type, float, tensor_small_float(type, v), tensor_small_code(type, v, true))

/* type in memory, its enum, domain type, from memory, to memory */
#define STORED(X)                                                                                            \
    X(float, TENSOR_F32, float, v, v)                                                                        \
    X(uint16_t, TENSOR_F16, float, ref_half_to_float(v), ref_float_to_half(v))                               \
    X(uint16_t, TENSOR_BF16, float, tensor_bf16_float(v), tensor_float_bf16(v))                         \
    X(double, TENSOR_F64, double, v, v)                                                                      \
    X(uint8_t, TENSOR_U8, int64_t, v, (uint8_t)v)                                                            \
    X(int8_t, TENSOR_I8, int64_t, v, (int8_t)v)                                                              \
    X(uint16_t, TENSOR_U16, int64_t, v, (uint16_t)v)                                                         \
    X(int16_t, TENSOR_I16, int64_t, v, (int16_t)v)                                                           \
    X(int32_t, TENSOR_I32, int64_t, v, (int32_t)v)                                                           \
    X(uint32_t, TENSOR_U32, int64_t, v, (uint32_t)v)                                                         \
    X(int64_t, TENSOR_I64, int64_t, v, v)                                                                    \
    X(uint64_t, TENSOR_U64, uint64_t, v, v)                                                                  \
    X(uint8_t, TENSOR_BOOL, int64_t, v != 0, v != 0)                                                         \
    X(uint8_t, TENSOR_U4, int64_t, v & 15, v & 15)                                                           \
    X(uint8_t, TENSOR_U2, int64_t, v & 3, v & 3)                                                             \
    X(int8_t, TENSOR_I4, int64_t, signed_bits(v, 4), signed_bits(v, 4))                                      \
    X(int8_t, TENSOR_I2, int64_t, signed_bits(v, 2), signed_bits(v, 2))                                      \
    FLOAT8(X, TENSOR_F8E4M3FN)                                                                               \
    FLOAT8(X, TENSOR_F8E4M3FNUZ)                                                                             \
    FLOAT8(X, TENSOR_F8E5M2)                                                                                 \
    FLOAT8(X, TENSOR_F8E5M2FNUZ)                                                                             \
    FLOAT8(X, TENSOR_F8E8M0)                                                                                 \
    FLOAT8(X, TENSOR_F4E2M1)

void ref_get(enum tensor_dtype t, const void *from, int64_t step, int64_t n, void *to)
{
    const char *p = from;
    switch (t) {
#define X(T, DTYPE, D, load, store)                                                                          \
    case DTYPE: {                                                                                            \
        D *d = to;                                                                                           \
        if (step == (int64_t)sizeof(T)) {                                                                    \
            const T *s = from;                                                                               \
            for (int64_t i = 0; i < n; i++) {                                                                \
                T v = s[i];                                                                                  \
                d[i] = (D)(load);                                                                            \
            }                                                                                                \
            return;                                                                                          \
        }                                                                                                    \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            T v = *(const T *)(const void *)(p + i * step);                                                  \
            d[i] = (D)(load);                                                                                \
        }                                                                                                    \
        return;                                                                                              \
    }
        STORED(X)
#undef X
    case TENSOR_NONE:
    case TENSOR_STRING:
        break;
    }
}

void ref_put(enum tensor_dtype t, void *to, int64_t step, int64_t n, const void *from)
{
    char *p = to;
    switch (t) {
#define X(T, DTYPE, D, load, store)                                                                          \
    case DTYPE: {                                                                                            \
        const D *s = from;                                                                                   \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            D v = s[i];                                                                                      \
            *(T *)(void *)(p + i * step) = (T)(store);                                                       \
        }                                                                                                    \
        return;                                                                                              \
    }
        STORED(X)
#undef X
    case TENSOR_NONE:
    case TENSOR_STRING:
        break;
    }
}

const void *ref_fetch(enum tensor_dtype t, const void *from, int64_t step, int64_t n, void *buf)
{
    if (step == (int64_t)tensor_dtype_size(t) && ref_domain_dtype(t) == t) return from;
    if (step == 0 && n > 1) { /* one number for the whole row */
        ref_get(t, from, 0, 1, buf);
        if (ref_domain(t) == REF_F32)
            for (int64_t i = 1; i < n; i++)
                ((float *)buf)[i] = ((float *)buf)[0];
        else
            for (int64_t i = 1; i < n; i++)
                ((int64_t *)buf)[i] = ((int64_t *)buf)[0];
        return buf;
    }
    ref_get(t, from, step, n, buf);
    return buf;
}

/* The limits of the integer that a float is cut to before its low bits are kept. */
static void limits_of(enum tensor_dtype t, double *low, double *high, int64_t *least, int64_t *most)
{
    *least = t == TENSOR_I64 ? INT64_MIN : t == TENSOR_U32 ? 0 : INT32_MIN;
    *most = t == TENSOR_I64 ? INT64_MAX : t == TENSOR_U32 ? UINT32_MAX : INT32_MAX;
    *low = (double)*least;
    *high = t == TENSOR_I64 ? 0x1p63 : (double)*most;
}

static uint64_t to_u64(double v)
{
    return !(v > 0) ? 0 : v >= 0x1p64 ? UINT64_MAX : (uint64_t)v;
}

static void float_to_ints(enum ref_domain from, const void *src, enum tensor_dtype to, int64_t *d, int64_t n)
{
    double low, high;
    int64_t least, most;
    limits_of(to, &low, &high, &least, &most);
    for (int64_t i = 0; i < n; i++) {
        double v = from == REF_F32 ? (double)((const float *)src)[i] : ((const double *)src)[i];
        if (to == TENSOR_BOOL)
            d[i] = v != 0;
        else if (to == TENSOR_U64)
            d[i] = (int64_t)to_u64(v);
        else
            d[i] = v != v ? 0 : v <= low ? least : v >= high ? most : (int64_t)v;
    }
}

void ref_convert(enum ref_domain from, const void *src, enum tensor_dtype to, void *dst, int64_t n)
{
    enum ref_domain d = ref_domain(to);
    if (from == d || (from >= REF_I64 && d >= REF_I64)) {
        memcpy(dst, src, (size_t)n * (d == REF_F32 ? 4 : 8));
        return;
    }
    if (d >= REF_I64) {
        float_to_ints(from, src, to, dst, n);
        return;
    }
#define EACH(T, D)                                                                                           \
    for (int64_t i = 0; i < n; i++)                                                                          \
    ((D *)dst)[i] = (D)((const T *)src)[i]
    if (d == REF_F32) {
        if (from == REF_F64)
            EACH(double, float);
        else if (from == REF_I64)
            EACH(int64_t, float);
        else
            EACH(uint64_t, float);
    } else {
        if (from == REF_F32)
            EACH(float, double);
        else if (from == REF_I64)
            EACH(int64_t, double);
        else
            EACH(uint64_t, double);
    }
#undef EACH
}

int64_t ref_offset(const struct tensor *t, int64_t i)
{
    int64_t offset = 0;
    for (int k = t->shape.rank - 1; k >= 0; k--) {
        int64_t d = MAX(t->shape.dims[k], 1);
        offset += i % d * t->strides[k];
        i /= d;
    }
    return offset;
}

static const void *address(const struct tensor *t, int64_t i)
{
    return (const char *)t->data + ref_offset(t, i) * ref_size(t);
}

double ref_double_at(const struct tensor *t, int64_t i)
{
    union {
        float f;
        double d;
        int64_t i;
        uint64_t u;
    } v;
    double r;
    ref_get(t->dtype, address(t, i), 0, 1, &v);
    ref_convert(ref_domain(t->dtype), &v, TENSOR_F64, &r, 1);
    return r;
}

int64_t ref_int_at(const struct tensor *t, int64_t i)
{
    union {
        float f;
        double d;
        int64_t i;
        uint64_t u;
    } v;
    int64_t r;
    ref_get(t->dtype, address(t, i), 0, 1, &v);
    ref_convert(ref_domain(t->dtype), &v, TENSOR_I64, &r, 1);
    return r;
}

/* ---- scratch */

void *ref_scratch(struct ref_call *c, size_t bytes)
{
    bytes = REF_ALIGN(bytes);
    if (bytes > c->scratch_left) return NULL;
    void *p = c->scratch;
    c->scratch += bytes;
    c->scratch_left -= bytes;
    return p;
}

static bool lies_so(const struct tensor *t, bool channels_last)
{
    if (t->dtype != ref_domain_dtype(t->dtype)) return false;
    return channels_last ? tensor_is_channels_last(t) : tensor_is_row_major(t);
}

size_t ref_dense_bytes(const struct tensor *t, bool channels_last)
{
    if (t->dtype == TENSOR_NONE || lies_so(t, channels_last)) return 0;
    return REF_ALIGN(tensor_count(&t->shape) * (int64_t)tensor_dtype_size(ref_domain_dtype(t->dtype)));
}

static struct tensor dense(struct ref_call *c, const struct tensor *t, bool channels_last)
{
    if (lies_so(t, channels_last)) return *t;
    struct tensor d = {.dtype = ref_domain_dtype(t->dtype), .shape = t->shape};
    if (channels_last)
        tensor_strides_channels_last(&d.shape, d.strides);
    else
        tensor_strides_row_major(&d.shape, d.strides);
    d.data = ref_scratch(c, (size_t)tensor_count(&d.shape) * tensor_dtype_size(d.dtype));
    return d;
}

struct tensor ref_dense_in(struct ref_call *c, int i, bool channels_last)
{
    struct tensor d = dense(c, &c->in[i], channels_last);
    if (d.data && d.data != c->in[i].data) ref_cast_tensor(&d, &c->in[i]);
    return d;
}

struct tensor ref_dense_out(struct ref_call *c, int i, bool channels_last)
{
    return dense(c, &c->out[i], channels_last);
}

void ref_dense_done(struct ref_call *c, int i, const struct tensor *d)
{
    if (d->data != c->out[i].data) ref_cast_tensor(&c->out[i], d);
}

static size_t sum_dense(const struct ref_call *c, bool channels_last)
{
    size_t sum = 0;
    for (int i = 0; i < c->n_in; i++)
        sum += ref_dense_bytes(&c->in[i], channels_last);
    for (int i = 0; i < c->n_out; i++)
        sum += ref_dense_bytes(&c->out[i], channels_last);
    return sum;
}

size_t ref_scratch_rows(const struct ref_call *c)
{
    return sum_dense(c, false);
}

size_t ref_scratch_spatial(const struct ref_call *c)
{
    return sum_dense(c, true);
}

/* ---- arguments */

err ref_axis(int64_t axis, int rank, int *ret)
{
    if (axis < -rank || axis >= rank) return err_set(ERR_SHAPE, "axis %lld of %d", (long long)axis, rank);
    *ret = (int)(axis < 0 ? axis + rank : axis);
    return ERR_OK;
}

err ref_ints(const struct ref_call *c, int i, const char *attr, int64_t *ret, int most, int *ret_n)
{
    if (ref_has(c, i)) {
        int64_t n = tensor_count(&c->in[i].shape);
        if (n > most)
            return err_set(ERR_SHAPE, "input %d has %lld numbers, at most %d are possible", i, (long long)n,
                           most);
        for (int64_t k = 0; k < n; k++)
            ret[k] = ref_int_at(&c->in[i], k);
        *ret_n = (int)n;
        return ERR_OK;
    }
    const int64_t *list;
    size_t n = op_attr_ints(c->node, attr, &list);
    if (n > (size_t)most)
        return err_set(ERR_SHAPE, "'%s' has %zu numbers, at most %d are possible", attr, n, most);
    if (n) memcpy(ret, list, n * sizeof *ret);
    *ret_n = n || op_attr(c->node, attr) ? (int)n : -1;
    return ERR_OK;
}

/* All different, all positive. */
err ref_axes(const struct ref_call *c, int i, int rank, int64_t *ret, int *ret_n)
{
    err e = ref_ints(c, i, "axes", ret, TENSOR_MAX_RANK, ret_n);
    unsigned seen = 0;
    for (int k = 0; !e && k < *ret_n; k++) {
        int axis = 0;
        if ((e = ref_axis(ret[k], rank, &axis))) break;
        if (seen >> axis & 1) return err_set(ERR_SHAPE, "axis %d is given twice", axis);
        seen |= 1u << axis;
        ret[k] = axis;
    }
    return e;
}
