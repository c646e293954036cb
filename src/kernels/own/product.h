/* 1x1 convolution, stride 1: [pixels, ic] x [ic, oc], with bias and post-operations before the numbers leave the registers. SPDX-License-Identifier:
 * Apache-2.0 */
#pragma once

static size_t product_weight_floats(const struct own_conv *c)
{
    return (size_t)(c->ic * padded(c->oc));
}

static void product_plan(struct own_conv *c, int threads)
{
    (void)threads;
    c->block = MAX((64 << 10) / (c->ic * 4) / 12 * 12, 12);
    c->thread_floats = (size_t)(4 * c->ic);
}

/* [panel of up to 2 vectors of oc][ic][lane] */
static void product_pack(const struct own_conv *c, const float *src, float *dst)
{
    int64_t ocp = padded(c->oc);
    memset(dst, 0, product_weight_floats(c) * sizeof *dst);
    for (int64_t o = 0; o < c->oc; o++) {
        int64_t first = o / (2 * LANES) * (2 * LANES), width = MIN(ocp - first, 2 * LANES);
        for (int64_t i = 0; i < c->ic; i++) dst[first * c->ic + i * width + (o - first)] = src[o * c->ic + i];
    }
}

/* `rows` of the 4 * groups are written, from pixel `at`, channel `ch` on. full: all channels of the panel are. */
INLINE void product_rows(const struct own_call *k, const float *a, const float *w, int64_t at, int64_t ch, int64_t rows, int groups, int nv, bool full)
{
    const struct own_conv *c = k->c;
    vf acc[12][2];
    multiply(a, c->ic, w, c->ic, acc, groups, nv);
    float *y = k->y + at * c->oc + ch;
    const float *add = k->add ? k->add + at * c->oc + ch : NULL;
    for (int v = 0; v < nv; v++) {
        int64_t n = full ? LANES : MIN(c->oc - ch - v * LANES, LANES);
        vf bias = k->bias ? load_n(k->bias + ch + v * LANES, n) : (vf){0};
        if (!add && full && rows == 4 * groups) { /* the usual case, without a question for each vector */
            float low = c->bounded ? c->low : -INFINITY, high = c->bounded ? c->high : INFINITY;
#pragma GCC unroll 12
            for (int r = 0; r < 4 * groups; r++) store(y + r * c->oc + v * LANES, at_most(at_least(acc[r][v] + bias, low), high));
            continue;
        }
#pragma GCC unroll 12
        for (int r = 0; r < 4 * groups; r++)
            if (r < rows) store_n(y + r * c->oc + v * LANES, simple_of(c, acc[r][v] + bias, add ? add + r * c->oc + v * LANES : NULL, n), n);
    }
    if (c->n_simple < c->n_post) posts(c, y, k->late ? k->late + at * c->oc + ch : NULL, rows, c->oc, MIN(c->oc - ch, nv * LANES));
}

/* Rows [from, to) times one panel. */
INLINE void product_panel(const struct own_call *k, const float *w, int64_t from, int64_t to, int64_t ch, float *last, int nv, bool full)
{
    const struct own_conv *c = k->c;
    int64_t r = from;
    if (LANES == 16 || nv == 1)
        for (; r + 12 <= to; r += 12) product_rows(k, k->x + r * c->ic, w, r, ch, 12, 3, nv, full);
    for (; r + 4 <= to; r += 4) product_rows(k, k->x + r * c->ic, w, r, ch, 4, 1, nv, full);
    if (r < to) product_rows(k, last, w, r, ch, to - r, 1, nv, full);
}

static void product_run(const struct own_call *k, int thread, int threads)
{
    const struct own_conv *c = k->c;
    int64_t from, to, pixels = c->n * c->oh * c->ow, ocp = padded(c->oc);
    float *last = k->scratch + (size_t)thread * c->thread_floats;
    own_share((pixels + 11) / 12, thread, threads, &from, &to);
    from *= 12;
    to = MIN(to * 12, pixels);
    for (int64_t b = from; b < to; b += c->block) {
        int64_t end = MIN(b + c->block, to), odd = (end - b) % 4;
        if (odd) { /* the last rows, and zeros up to 4 */
            memcpy(last, k->x + (end - odd) * c->ic, (size_t)(odd * c->ic) * sizeof *last);
            memset(last + odd * c->ic, 0, (size_t)((4 - odd) * c->ic) * sizeof *last);
        }
        for (int64_t ch = 0; ch < ocp; ch += 2 * LANES) {
            const float *w = k->weight + ch * c->ic;
            if (ch + 2 * LANES <= c->oc)
                product_panel(k, w, b, end, ch, last, 2, true);
            else if (ocp - ch > LANES)
                product_panel(k, w, b, end, ch, last, 2, false);
            else if (ch + LANES == c->oc)
                product_panel(k, w, b, end, ch, last, 1, true);
            else
                product_panel(k, w, b, end, ch, last, 1, false);
        }
    }
}
