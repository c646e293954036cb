/* Arithmetic on LANES floats at once, written with the compiler's vector types, for files that define LANES and include it (lanes512.c, lanes256.c).
 * Nothing here is called by another file: everything is inlined. SPDX-License-Identifier: Apache-2.0 */
#pragma once

typedef float vf __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p)
{
    return *(const vf *)p;
}

INLINE void store(float *p, vf v)
{
    *(vf *)p = v;
}

/* The first n of them; the others are 0, and are not touched in memory. */
#if LANES == 16
INLINE vf load_part(const float *p, int64_t n)
{
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

INLINE void store_part(float *p, vf v, int64_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
#else
INLINE __m256i first(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE vf load_part(const float *p, int64_t n)
{
    return (vf)_mm256_maskload_ps(p, first(n));
}

INLINE void store_part(float *p, vf v, int64_t n)
{
    _mm256_maskstore_ps(p, first(n), (__m256)v);
}
#endif

INLINE vf all(float x)
{
    return x - (vf){0};
}

INLINE vf choose(vi mask, vf yes, vf no)
{
    return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}

/* NaN stays NaN: these instructions give their second operand then. */
#if LANES == 16
INLINE vf larger(vf a, vf b)
{
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}

INLINE vf smaller(vf a, vf b)
{
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}
#else
INLINE vf larger(vf a, vf b)
{
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}

INLINE vf smaller(vf a, vf b)
{
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}
#endif

INLINE vf at_least(vf x, float bound)
{
    return larger(all(bound), x);
}

INLINE vf at_most(vf x, float bound)
{
    return smaller(all(bound), x);
}

/* As ref_expf (kernels/ref/fastmath.h). */
#if LANES == 16
INLINE vf exp_of(vf x)
{
    x = at_most(at_least(x, -104.0f), 89.0f);
    vf whole = (vf)_mm512_roundscale_ps((__m512)(x * 1.44269504088896341f), 8); /* to the nearest */
    vf r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vf y = all(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return (vf)_mm512_scalef_ps((__m512)y, (__m512)whole);
}
#else
INLINE vf exp_of(vf x)
{
    x = at_most(at_least(x, -104.0f), 89.0f);
    vf shifted = x * 1.44269504088896341f + 12582912.0f;
    vi n = (vi)shifted - 0x4b400000;
    vi low = n < -160, high = n > 160; /* NaN */
    n = (n & ~low & ~high) | (low & -160) | (high & 160);
    vf whole = shifted - 12582912.0f;
    vf r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vf y = all(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    vi half = n >> 1;
    return y * (vf)((half + 127) << 23) * (vf)((n - half + 127) << 23);
}
#endif

INLINE vf sigmoid_of(vf x)
{
    return 1.0f / (1.0f + exp_of(-x));
}

INLINE vf tanh_of(vf x)
{
    vf z = x * x;
    vf near = all(-5.70498872745e-3f);
    near = near * z + 2.06390887954e-2f;
    near = near * z - 5.37397155531e-2f;
    near = near * z + 1.33314422036e-1f;
    near = near * z - 3.33332819422e-1f;
    near = near * z * x + x;
    vf far = 1.0f - 2.0f / (exp_of(2.0f * x) + 1.0f);
    return choose((z < all(0.625f * 0.625f)), near, far);
}

INLINE vf load_n(const float *p, int64_t n)
{
    return n == LANES ? load(p) : load_part(p, n);
}

INLINE void store_n(float *p, vf v, int64_t n)
{
    if (n == LANES)
        store(p, v);
    else
        store_part(p, v, n);
}

/* The first step after a sum, while it is in a register: what is added, and bounds. */
INLINE vf simple_of(const struct own_conv *c, vf x, const float *add, int64_t n)
{
    if (add) x += load_n(add, n);
    return c->bounded ? at_most(at_least(x, c->low), c->high) : x;
}

#define EACH(f)                                                                                                        \
    for (int64_t r = 0; r < rows; r++)                                                                                 \
        for (int64_t i = 0; i < width; i += LANES) {                                                                   \
            int64_t n = MIN(width - i, LANES), at = r * stride + i;                                                    \
            vf x = load_n(y + at, n);                                                                                  \
            store_n(y + at, f, n);                                                                                     \
        }                                                                                                              \
    break

/* All post-operations that are not simple, on `rows` times `width` numbers that lie `stride` apart, just written. */
static void posts(const struct own_conv *c, float *y, const float *add, int64_t rows, int64_t stride, int64_t width)
{
    for (int k = c->n_simple; k < c->n_post; k++) {
        const struct kernel_post *p = &c->post[k];
        switch (p->kind) {
        case KERNEL_POST_RELU: EACH(at_least(x, 0));
        case KERNEL_POST_LEAKY_RELU: EACH(choose(x < all(0), x * p->alpha, x));
        case KERNEL_POST_CLIP: EACH(at_most(at_least(x, p->alpha), p->beta));
        case KERNEL_POST_SIGMOID: EACH(sigmoid_of(x));
        case KERNEL_POST_SILU: EACH(x * sigmoid_of(x));
        case KERNEL_POST_HARD_SIGMOID: EACH(at_most(at_least(x * p->alpha + p->beta, 0), 1));
        case KERNEL_POST_HARD_SWISH: EACH(x * at_most(at_least(x * (1.0f / 6) + 0.5f, 0), 1));
        case KERNEL_POST_TANH: EACH(tanh_of(x));
        case KERNEL_POST_ELU: EACH(choose(x < all(0), p->alpha * (exp_of(x) - 1.0f), x));
        case KERNEL_POST_ADD: EACH(x + load_n(add + at, n));
        }
    }
}

/* rows x (nv * LANES) numbers: o = a * w over k, in ascending order of k whatever the block. 4 `groups` rows; w: [k][nv * LANES]. */
#define ROWS4(p, b)                                                                                                    \
    do {                                                                                                               \
        vf x0 = all((p)[0]), x1 = all((p)[lda]), x2 = all((p)[2 * lda]), x3 = all((p)[lda3]);                          \
        acc[b][0] += x0 * w0;                                                                                          \
        acc[b + 1][0] += x1 * w0;                                                                                      \
        acc[b + 2][0] += x2 * w0;                                                                                      \
        acc[b + 3][0] += x3 * w0;                                                                                      \
        if (nv > 1) {                                                                                                  \
            acc[b][1] += x0 * w1;                                                                                      \
            acc[b + 1][1] += x1 * w1;                                                                                  \
            acc[b + 2][1] += x2 * w1;                                                                                  \
            acc[b + 3][1] += x3 * w1;                                                                                  \
        }                                                                                                              \
        (p)++;                                                                                                         \
    } while (0)

INLINE void multiply(const float *a, int64_t lda, const float *w, int64_t k, vf acc[12][2], int groups, int nv)
{
    const float *p0 = a, *p1 = a + 4 * lda, *p2 = a + 8 * lda;
    const int64_t lda3 = 3 * lda;
    for (int r = 0; r < 4 * groups; r++) acc[r][0] = acc[r][1] = (vf){0};
    for (int64_t i = 0; i < k; i++) {
        vf w0 = load(w), w1 = w0;
        if (nv > 1) w1 = load(w + LANES);
        w += nv * LANES;
        ROWS4(p0, 0);
        if (groups > 1) ROWS4(p1, 4);
        if (groups > 2) ROWS4(p2, 8);
    }
}
