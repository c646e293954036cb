/* MatMul, Gemm, Einsum.
 *
 * float32: four rows by sixteen columns of the result are kept in registers while k runs; where the second
 * matrix is transposed (the usual fully connected layer), dot products of dense rows. float64 and integers:
 * the plain three loops, with the inner one over columns. Integers wrap. SPDX-License-Identifier: Apache-2.0
 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <string.h>

enum { ROWS = 4, COLUMNS = 16 };

static void REF_HOT block_f32(float *restrict c, int64_t ldc, const float *restrict a, int64_t lda,
                              const float *restrict b, int64_t ldb, int64_t k)
{
    float acc[ROWS][COLUMNS] = {{0}};
    const float *a1 = a + lda, *a2 = a1 + lda, *a3 = a2 + lda;
    for (int64_t p = 0; p < k; p++, b += ldb)
        for (int j = 0; j < COLUMNS; j++) {
            acc[0][j] += a[p] * b[j];
            acc[1][j] += a1[p] * b[j];
            acc[2][j] += a2[p] * b[j];
            acc[3][j] += a3[p] * b[j];
        }
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < COLUMNS; j++)
            c[r * ldc + j] = acc[r][j];
}

/* Any m <= ROWS and n <= COLUMNS. */
static void REF_HOT edge_f32(float *restrict c, int64_t ldc, const float *restrict a, int64_t lda,
                             const float *restrict b, int64_t ldb, int64_t k, int64_t m, int64_t n)
{
    for (int64_t r = 0; r < m; r++) {
        float acc[COLUMNS] = {0};
        for (int64_t p = 0; p < k; p++) {
            float v = a[r * lda + p];
            for (int64_t j = 0; j < n; j++)
                acc[j] += v * b[p * ldb + j];
        }
        for (int64_t j = 0; j < n; j++)
            c[r * ldc + j] = acc[j];
    }
}

static void multiply_f32(float *c, const float *a, const float *b, int64_t m, int64_t n, int64_t k)
{
    for (int64_t j = 0; j < n; j += COLUMNS)
        for (int64_t i = 0; i < m; i += ROWS) {
            if (i + ROWS <= m && j + COLUMNS <= n)
                block_f32(c + i * n + j, n, a + i * k, k, b + j, n, k);
            else
                edge_f32(c + i * n + j, n, a + i * k, k, b + j, n, k, MIN(m - i, ROWS), MIN(n - j, COLUMNS));
        }
}

static float REF_HOT dot_f32(const float *restrict a, const float *restrict b, int64_t k)
{
    float part[16] = {0}, sum = 0;
    int64_t p = 0;
    for (; p + 16 <= k; p += 16)
        for (int j = 0; j < 16; j++)
            part[j] += a[p + j] * b[p + j];
    for (; p < k; p++)
        sum += a[p] * b[p];
    for (int j = 0; j < 16; j++)
        sum += part[j];
    return sum;
}

#define MULTIPLY(T)                                                                                          \
    static void multiply_##T(T *c, const T *a, const T *b, int64_t m, int64_t n, int64_t k)                  \
    {                                                                                                        \
        memset(c, 0, (size_t)(m * n) * sizeof(T));                                                           \
        for (int64_t i = 0; i < m; i++)                                                                      \
            for (int64_t p = 0; p < k; p++) {                                                                \
                T v = a[i * k + p];                                                                          \
                for (int64_t j = 0; j < n; j++)                                                              \
                    c[i * n + j] += v * b[p * n + j];                                                        \
            }                                                                                                \
    }
MULTIPLY(double)
MULTIPLY(uint64_t)

/* Dense row-major matrices of one domain. */
static void multiply(enum tensor_dtype t, void *c, const void *a, const void *b, int64_t m, int64_t n,
                     int64_t k)
{
    if (t == TENSOR_F32)
        multiply_f32(c, a, b, m, n, k);
    else if (t == TENSOR_F64)
        multiply_double(c, a, b, m, n, k);
    else
        multiply_uint64_t(c, a, b, m, n, k);
}

/* Sizes of a MatMul, and for each batch of the result the places of its matrices. */
struct batches {
    int64_t m, n, k, count;
    int rank;
    int64_t dims[TENSOR_MAX_RANK], a[TENSOR_MAX_RANK], b[TENSOR_MAX_RANK];
};

static err measure(const struct tensor *a, const struct tensor *b, const struct tensor *out,
                   struct batches *s)
{
    int ra = a->shape.rank, rb = b->shape.rank;
    if (ra < 1 || rb < 1) return err_set(ERR_SHAPE, "MatMul of a scalar");
    *s = (struct batches){.m = ra > 1 ? a->shape.dims[ra - 2] : 1,
                          .n = rb > 1 ? b->shape.dims[rb - 1] : 1,
                          .k = a->shape.dims[ra - 1]};
    if (b->shape.dims[rb > 1 ? rb - 2 : 0] != s->k)
        return err_set(ERR_SHAPE, "the inner sizes of a MatMul differ");
    int ba = MAX(ra - 2, 0), bb = MAX(rb - 2, 0);
    s->rank = MAX(ba, bb);
    s->count = 1;
    int64_t step_a = s->m * s->k, step_b = s->k * s->n;
    for (int i = s->rank - 1; i >= 0; i--) {
        int ia = i - (s->rank - ba), ib = i - (s->rank - bb);
        int64_t da = ia >= 0 ? a->shape.dims[ia] : 1, db = ib >= 0 ? b->shape.dims[ib] : 1;
        if (da != db && da != 1 && db != 1) return err_set(ERR_SHAPE, "the batches of a MatMul differ");
        s->dims[i] = da == 1 ? db : da;
        s->a[i] = da == 1 ? 0 : step_a;
        s->b[i] = db == 1 ? 0 : step_b;
        step_a *= da;
        step_b *= db;
        s->count *= s->dims[i];
    }
    if (s->count * s->m * s->n != tensor_count(&out->shape))
        return err_set(ERR_SHAPE, "the output of a MatMul does not fit");
    return ERR_OK;
}

size_t ref_matmul_scratch(const struct ref_call *c)
{
    return ref_scratch_rows(c);
}

err ref_matmul(struct ref_call *c)
{
    struct batches s;
    err e = measure(&c->in[0], &c->in[1], &c->out[0], &s);
    if (e || tensor_count(&c->out[0].shape) == 0) return e;
    struct tensor a = ref_dense_in(c, 0, false), b = ref_dense_in(c, 1, false),
                  out = ref_dense_out(c, 0, false);
    int64_t size = ref_size(&out), index[TENSOR_MAX_RANK] = {0};
    char *to = out.data;
    do {
        int64_t ia = 0, ib = 0;
        for (int i = 0; i < s.rank; i++) {
            ia += index[i] * s.a[i];
            ib += index[i] * s.b[i];
        }
        multiply(out.dtype, to, (const char *)a.data + ia * size, (const char *)b.data + ib * size, s.m, s.n,
                 s.k);
        to += s.m * s.n * size;
    } while (ref_next(s.rank, s.dims, index));
    ref_dense_done(c, 0, &out);
    return ERR_OK;
}

/* ---- Gemm: alpha A' B' + beta C */

/* The operand, dense as it is to be multiplied: transposed if asked for, by a copy. */
static struct tensor turned(struct ref_call *c, int i, bool transpose)
{
    const struct tensor *t = &c->in[i];
    if (!transpose) return ref_dense_in(c, i, false);
    struct tensor view = *t;
    view.shape.dims[0] = t->shape.dims[1];
    view.shape.dims[1] = t->shape.dims[0];
    view.strides[0] = t->strides[1];
    view.strides[1] = t->strides[0];
    struct tensor d = tensor_view(ref_domain_dtype(t->dtype), &view.shape, NULL);
    d.data = ref_scratch(c, (size_t)tensor_count(&view.shape) * (size_t)ref_size(&d));
    ref_cast_tensor(&d, &view);
    return d;
}

size_t ref_gemm_scratch(const struct ref_call *c)
{
    size_t own = 0;
    for (int i = 0; i < 2; i++)
        own += REF_ALIGN(tensor_count(&c->in[i].shape) * 8);
    return own + 3 * REF_ALIGN(tensor_count(&c->out[0].shape) * 8) + ref_scratch_rows(c);
}

/* out = alpha out + beta c, in the domain; c is broadcast. */
static void add_bias(struct ref_call *c, const struct tensor *out, double alpha, double beta)
{
    int64_t n = tensor_count(&out->shape);
    struct tensor bias = {.dtype = TENSOR_NONE};
    if (ref_has(c, 2) && beta != 0) {
        bias = tensor_view(out->dtype, &out->shape, ref_scratch(c, (size_t)n * (size_t)ref_size(out)));
        struct tensor wide = c->in[2];
        int shift = 2 - wide.shape.rank;
        for (int i = 1; i >= 0; i--) {
            int k = i - shift;
            wide.strides[i] = k < 0 || c->in[2].shape.dims[k] == 1 ? 0 : c->in[2].strides[k];
        }
        wide.shape = out->shape;
        ref_cast_tensor(&bias, &wide);
    }
#define EACH(T)                                                                                              \
    for (int64_t i = 0; i < n; i++) {                                                                        \
        T v = ((T *)out->data)[i];                                                                           \
        if (alpha != 1) v = (T)((T)alpha * v);                                                               \
        if (bias.data) v += beta == 1 ? ((T *)bias.data)[i] : (T)beta * ((T *)bias.data)[i];                 \
        ((T *)out->data)[i] = v;                                                                             \
    }
    if (out->dtype == TENSOR_F32)
        EACH(float)
    else if (out->dtype == TENSOR_F64)
        EACH(double)
    else
        EACH(uint64_t)
#undef EACH
}

err ref_gemm(struct ref_call *c)
{
    bool ta = op_attr_int(c->node, "transA", 0) != 0, tb = op_attr_int(c->node, "transB", 0) != 0;
    if (c->in[0].shape.rank != 2 || c->in[1].shape.rank != 2)
        return err_set(ERR_SHAPE, "Gemm wants matrices");
    int64_t m = c->in[0].shape.dims[ta], k = c->in[0].shape.dims[!ta], n = c->in[1].shape.dims[!tb];
    struct tensor_shape s;
    if (c->in[1].shape.dims[tb] != k || c->out[0].shape.rank != 2 || c->out[0].shape.dims[0] != m ||
        c->out[0].shape.dims[1] != n)
        return err_set(ERR_SHAPE, "the sizes of a Gemm differ");
    if (ref_has(c, 2) && (tensor_broadcast(&c->out[0].shape, &c->in[2].shape, &s) ||
                          !tensor_shape_equal(&s, &c->out[0].shape)))
        return err_set(ERR_SHAPE, "input 2 does not fit to the output");
    if (m * n == 0) return ERR_OK;
    struct tensor out = ref_dense_out(c, 0, false), a = turned(c, 0, ta);
    if (tb && out.dtype == TENSOR_F32 && m <= 8) {
        struct tensor b = ref_dense_in(c, 1, false);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++)
                ((float *)out.data)[i * n + j] =
                    dot_f32((const float *)a.data + i * k, (const float *)b.data + j * k, k);
    } else {
        struct tensor b = turned(c, 1, tb);
        multiply(out.dtype, out.data, a.data, b.data, m, n, k);
    }
    add_bias(c, &out, (double)op_attr_float(c->node, "alpha", 1), (double)op_attr_float(c->node, "beta", 1));
    ref_dense_done(c, 0, &out);
    return ERR_OK;
}
