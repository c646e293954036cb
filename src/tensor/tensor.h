/* The shape of numbers: type, sizes, strides, views. No arithmetic on the numbers themselves.
 *
 * A size may be a *symbol* (the batch 'N' of an ONNX file): a negative number that indexes a table of names which the graph
 * owns. A size may also be only an *upper bound* of what comes out at run time (NonMaxSuppression): the bit in `bounded`.
 * A layout is nothing but strides: an NHWC image has the ONNX shape [N, C, H, W] and the strides of channels-last, so a
 * Transpose between the two is a view and costs nothing. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <string.h>

#include "base/base.h"
#include "base/err.h"

enum { TENSOR_MAX_RANK = 8 };

/* The numbers are those of ONNX's TensorProto.DataType. */
enum tensor_dtype {
    TENSOR_NONE = 0, /* not known, or an absent optional input */
    TENSOR_F32 = 1,
    TENSOR_U8 = 2,
    TENSOR_I8 = 3,
    TENSOR_U16 = 4,
    TENSOR_I16 = 5,
    TENSOR_I32 = 6,
    TENSOR_I64 = 7,
    TENSOR_STRING = 8, /* named so that messages can say it; never supported */
    TENSOR_BOOL = 9,
    TENSOR_F16 = 10,
    TENSOR_F64 = 11,
    TENSOR_U32 = 12,
    TENSOR_U64 = 13,
    TENSOR_BF16 = 16,
    /* below: small.h. Casts and quantisation know them; nothing is computed in them */
    TENSOR_F8E4M3FN = 17,
    TENSOR_F8E4M3FNUZ = 18,
    TENSOR_F8E5M2 = 19,
    TENSOR_F8E5M2FNUZ = 20,
    TENSOR_U4 = 21,
    TENSOR_I4 = 22,
    TENSOR_F4E2M1 = 23,
    TENSOR_F8E8M0 = 24,
    TENSOR_U2 = 25,
    TENSOR_I2 = 26,
    TENSOR_DTYPE_LAST = TENSOR_I2,
};
size_t tensor_dtype_size(enum tensor_dtype t);      /* bytes; 0 for NONE and STRING */
const char *tensor_dtype_name(enum tensor_dtype t); /* "float32", as NumPy says it */
bool tensor_dtype_is_float(enum tensor_dtype t);   /* 16 bits and more */
bool tensor_dtype_is_integer(enum tensor_dtype t); /* 8 bits and more; bool is not */

struct tensor_shape {
    int rank;
    int64_t dims[TENSOR_MAX_RANK]; /* >= 0: size; < 0: symbol number -1 - dims[i] */
    uint8_t bounded;               /* bit i: dims[i] is an upper bound, the true size is known when it was computed */
};
#define TENSOR_SYMBOL(number)    (-1 - (int64_t)(number))
#define TENSOR_SYMBOL_NUMBER(d)  ((int)(-1 - (d)))

struct tensor_shape tensor_shape_of(int rank, const int64_t *dims);
bool tensor_shape_known(const struct tensor_shape *s); /* no symbols; bounds count as known */
bool tensor_shape_equal(const struct tensor_shape *a, const struct tensor_shape *b);
/* Number of elements. ERR_LIMIT if it or its bytes overflow 2^47, ERR_SHAPE if a symbol is left. Scalars have 1. */
err tensor_shape_count(const struct tensor_shape *s, int64_t *ret);
/* Product of dims without checks: only for shapes that tensor_shape_count accepted. */
int64_t tensor_count(const struct tensor_shape *s);
/* "[1, 3, N, 416]" into buf; symbols as ?0, ?1 unless names are given. Returns buf. */
const char *tensor_shape_text(const struct tensor_shape *s, const char *const *symbols, char *buf, size_t size);
/* NumPy broadcasting of two known shapes; ERR_SHAPE with both in the sentence. */
err tensor_broadcast(const struct tensor_shape *a, const struct tensor_shape *b, struct tensor_shape *ret);

/* A view: borrows its bytes. Strides are in elements, and may be 0 (broadcast) but never negative. */
struct tensor {
    enum tensor_dtype dtype;
    struct tensor_shape shape;
    int64_t strides[TENSOR_MAX_RANK];
    void *data;
};
/* A view of `data` in C order. */
struct tensor tensor_view(enum tensor_dtype dtype, const struct tensor_shape *shape, const void *data);
void tensor_strides_row_major(const struct tensor_shape *s, int64_t *strides);
/* Channels last (N, spatial..., C) for rank >= 3; row-major below that. */
void tensor_strides_channels_last(const struct tensor_shape *s, int64_t *strides);
/* True if the strides address `count` elements densely in C order (sizes of 1 do not matter). */
bool tensor_is_row_major(const struct tensor *t);
bool tensor_is_channels_last(const struct tensor *t);
/* Same elements at the same offsets in both (so that element-wise work may run over the flat memory)? Dense only. */
bool tensor_same_dense_layout(const struct tensor *a, const struct tensor *b);
/* Tries to see `t` with another shape of equal count without moving bytes: false if strides do not allow it. */
bool tensor_reshape_view(const struct tensor *t, const struct tensor_shape *shape, struct tensor *ret);
/* Elements spanned, from the first to one past the last (for bounds checks and aliasing): 0 if empty. */
int64_t tensor_span(const struct tensor *t);

/* bfloat16: the upper half of a float32; rounded to the nearest even, NaN stays NaN. */
static inline float tensor_bf16_float(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t tensor_float_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
}
