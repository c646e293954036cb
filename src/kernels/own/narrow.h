/* Convolution into 1 to 4 channels: a vector holds LANES neighbouring pixels of one output channel, so that none of it is wasted where a picture
 * of 3 channels comes out. Channels-last rows of the input are taken apart into one row per channel first (each row once, into a ring of kh rows
 * with the zeros of the padding around them); then every tap is one load for all output channels. SPDX-License-Identifier: Apache-2.0 */
#pragma once

enum { NARROW_SLACK = 8 * LANES };

INLINE int64_t narrow_width(const struct own_conv *c)
{
    return MAX(c->ow + c->kw - 1, c->w + c->left) + NARROW_SLACK;
}

static size_t narrow_weight_floats(const struct own_conv *c)
{
    return (size_t)(c->kh * c->kw * c->ic * c->oc);
}

static void narrow_plan(struct own_conv *c, int threads)
{
    (void)threads;
    c->block = 0;
    c->thread_floats = (size_t)(c->kh * c->ic * narrow_width(c)) + 2 * 4 * NARROW_SLACK;
}

/* [ky][ic][kx][oc] */
static void narrow_pack(const struct own_conv *c, const float *src, float *dst)
{
    int64_t width = c->oc;
    memset(dst, 0, narrow_weight_floats(c) * sizeof *dst);
    for (int64_t o = 0; o < c->oc; o++)
        for (int64_t i = 0; i < c->ic; i++)
            for (int64_t y = 0; y < c->kh; y++)
                for (int64_t x = 0; x < c->kw; x++)
                    dst[((y * c->ic + i) * c->kw + x) * width + o] = src[((o * c->ic + i) * c->kh + y) * c->kw + x];
}

typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t v4i __attribute__((vector_size(16)));

/* n places of ic channels -> ic rows, `width` apart. */
INLINE void apart(const float *from, float *to, int64_t n, int64_t width, int64_t ic)
{
    int64_t x = 0;
    if (ic % 4 == 0)
        for (; x + 4 <= n; x += 4)
            for (int64_t i = 0; i < ic; i += 4) {
                const float *f = from + x * ic + i;
                float *t = to + i * width + x;
                v4 a = *(const v4 *)f, b = *(const v4 *)(f + ic), c = *(const v4 *)(f + 2 * ic), d = *(const v4 *)(f + 3 * ic);
                v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
                v4 ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
                *(v4 *)t = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
                *(v4 *)(t + width) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
                *(v4 *)(t + 2 * width) = __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5);
                *(v4 *)(t + 3 * width) = __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7);
            }
    for (; x < n; x++)
        for (int64_t i = 0; i < ic; i++) to[i * width + x] = from[x * ic + i];
}

/* Input row y (outside of the picture: zeros), channel by channel. */
static void narrow_row(const struct own_call *k, int64_t n, int64_t y, float *to)
{
    const struct own_conv *c = k->c;
    int64_t width = narrow_width(c), ic = c->ic;
    if (y < 0 || y >= c->h) {
        memset(to, 0, (size_t)(ic * width) * sizeof *to);
        return;
    }
    const float *from = k->x + (n * c->h + y) * c->w * ic;
    for (int64_t i = 0; i < ic; i++) {
        memset(to + i * width, 0, (size_t)c->left * sizeof *to);
        memset(to + i * width + c->left + c->w, 0, (size_t)(width - c->left - c->w) * sizeof *to);
    }
    switch (ic) {
    case 1: apart(from, to + c->left, c->w, width, 1); break;
    case 3: apart(from, to + c->left, c->w, width, 3); break;
    case 4: apart(from, to + c->left, c->w, width, 4); break;
    case 8: apart(from, to + c->left, c->w, width, 8); break;
    case 16: apart(from, to + c->left, c->w, width, 16); break;
    default: apart(from, to + c->left, c->w, width, ic);
    }
}

/* `np` vectors of pixels from x on; rows[ky]: where input row ky lies. planar: [oc][NARROW_SLACK] */
INLINE void narrow_pixels(const struct own_call *k, const float *const *rows, int64_t x, float *planar, int oc, int np)
{
    const struct own_conv *c = k->c;
    int64_t width = narrow_width(c);
    vf acc[4][8];
    const float *w = k->weight;
    for (int o = 0; o < oc; o++)
        for (int p = 0; p < np; p++) acc[o][p] = all(k->bias ? k->bias[o] : 0);
    for (int64_t ky = 0; ky < c->kh; ky++)
        for (int64_t i = 0; i < c->ic; i++) {
            const float *in = rows[ky] + i * width + x;
            for (int64_t kx = 0; kx < c->kw; kx++, w += oc) {
                vf d[8];
#pragma GCC unroll 8
                for (int p = 0; p < np; p++) d[p] = load(in + kx + p * LANES);
#pragma GCC unroll 8
                for (int o = 0; o < oc; o++) {
                    vf tap = all(w[o]);
#pragma GCC unroll 8
                    for (int p = 0; p < np; p++) acc[o][p] += tap * d[p];
                }
            }
        }
    for (int o = 0; o < oc; o++)
        for (int p = 0; p < np; p++) store(planar + o * NARROW_SLACK + p * LANES, acc[o][p]);
}

/* n places, one row for each channel -> channels-last; the last lanes of the last vector may be anything. */
INLINE void together(const float *planar, float *mixed, int64_t n, int oc)
{
    int64_t p = 0;
    if (oc == 4)
        for (; p < n; p += 4) {
            const float *f = planar + p;
            v4 a = *(const v4 *)f, b = *(const v4 *)(f + NARROW_SLACK), c = *(const v4 *)(f + 2 * NARROW_SLACK), d = *(const v4 *)(f + 3 * NARROW_SLACK);
            v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
            v4 ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
            float *t = mixed + p * 4;
            *(v4 *)t = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
            *(v4 *)(t + 4) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
            *(v4 *)(t + 8) = __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5);
            *(v4 *)(t + 12) = __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7);
        }
    else if (oc == 3)
        for (; p < n; p += 4) {
            const float *f = planar + p;
            v4 a = *(const v4 *)f, b = *(const v4 *)(f + NARROW_SLACK), c = *(const v4 *)(f + 2 * NARROW_SLACK);
            v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
            float *t = mixed + p * 3; /* abc abc abc abc */
            *(v4 *)t = __builtin_shufflevector(ab, __builtin_shufflevector(a, c, 4, 1, 5, 6), 0, 1, 4, 5);
            *(v4 *)(t + 4) = __builtin_shufflevector(__builtin_shufflevector(b, c, 1, 5, 2, 3), ab2, 0, 1, 4, 5);
            *(v4 *)(t + 8) = __builtin_shufflevector(__builtin_shufflevector(c, a, 2, 7, 3, 3), __builtin_shufflevector(b, c, 3, 7, 3, 7), 0, 1, 4, 5);
        }
    else
        for (; p < n; p++)
            for (int o = 0; o < oc; o++) mixed[p * oc + o] = planar[o * NARROW_SLACK + p];
}

INLINE void narrow_store(const struct own_call *k, const float *planar, float *mixed, int64_t at, int64_t n, int oc)
{
    const struct own_conv *c = k->c;
    int64_t count = n * oc;
    if (oc > 1)
        together(planar, mixed, n, oc);
    else
        mixed = (float *)(uintptr_t)planar;
    for (int64_t i = 0; i < count; i += LANES) {
        int64_t m = MIN(count - i, LANES);
        store_n(k->y + at + i, simple_of(c, load(mixed + i), k->add ? k->add + at + i : NULL, m), m);
    }
    if (c->n_simple < c->n_post) posts(c, k->y + at, k->late ? k->late + at : NULL, 1, 0, count);
}

INLINE void narrow_line(const struct own_call *k, const float *const *rows, int64_t line, float *planar, int oc, int np)
{
    const struct own_conv *c = k->c;
    float *mixed = planar + 4 * NARROW_SLACK;
    for (int64_t x = 0; x < c->ow;) {
        int64_t left = c->ow - x, n = left > (np - 1) * LANES ? np * LANES : LANES;
        if (n > LANES)
            narrow_pixels(k, rows, x, planar, oc, np);
        else
            narrow_pixels(k, rows, x, planar, oc, 1);
        n = MIN(n, left);
        narrow_store(k, planar, mixed, (line * c->ow + x) * oc, n, oc);
        x += n;
    }
}

static void narrow_run(const struct own_call *k, int thread, int threads)
{
    const struct own_conv *c = k->c;
    int64_t from, to, width = narrow_width(c), size = c->ic * width;
    float *ring = k->scratch + (size_t)thread * c->thread_floats, *planar = ring + c->kh * size;
    const float *rows[OWN_MAX_KERNEL];
    own_share(c->n * c->oh, thread, threads, &from, &to);
    for (int64_t line = from; line < to; line++) {
        int64_t n = line / c->oh, y = line - n * c->oh - c->top; /* the first input row */
        bool fresh = line == from || line == n * c->oh;
        for (int64_t i = fresh ? 0 : c->kh - 1; i < c->kh; i++) narrow_row(k, n, y + i, ring + (y + c->top + i) % c->kh * size);
        for (int64_t i = 0; i < c->kh; i++) rows[i] = ring + (y + c->top + i) % c->kh * size;
        switch (c->oc) {
#if LANES == 16
        case 1: narrow_line(k, rows, line, planar, 1, 8); break;
        case 2: narrow_line(k, rows, line, planar, 2, 8); break;
        case 3: narrow_line(k, rows, line, planar, 3, 6); break;
        default: narrow_line(k, rows, line, planar, 4, 5);
#else
        case 1: narrow_line(k, rows, line, planar, 1, 6); break;
        case 2: narrow_line(k, rows, line, planar, 2, 4); break;
        case 3: narrow_line(k, rows, line, planar, 3, 3); break;
        default: narrow_line(k, rows, line, planar, 4, 2);
#endif
        }
    }
}
