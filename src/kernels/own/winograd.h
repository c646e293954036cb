/* Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, 'Fast Algorithms for Convolutional Neural Networks', 2016, section 4): an output tile of
 * 4x4 takes 36 multiplications for each pair of channels instead of 144. Input tiles of 6x6 are transformed (B^T d B), so that each of
 * the 36 places is a product of matrices [tiles, ic] x [ic, oc] with the transformed weight, and the results go back (A^T m A).
 * A block of tiles is done at a time, so that both intermediate arrays stay in the second-level cache. SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The points 0, +-P, +-Q and infinity: with 5/8 and 3/2 rounding errors are smaller than with 1 and 2 (the choice of oneDNN's kernel), and all
 * products of them that are used have few digits. */
#define P 0.625f
#define Q 1.5f
#define A (P * P)
#define B (Q * Q)

INLINE int64_t padded(int64_t channels)
{
    return (channels + LANES - 1) / LANES * LANES;
}

/* From place to place; 16 more so that the 36 places do not fall on the same cache lines. */
INLINE int64_t place_floats(int64_t block, int64_t channels)
{
    return block * channels + 16;
}

static size_t winograd_weight_floats(const struct own_conv *c)
{
    return (size_t)(36 * c->ic * padded(c->oc));
}

static void winograd_plan(struct own_conv *c, int threads)
{
    int64_t tiles = c->n * ((c->oh + 3) / 4) * ((c->ow + 3) / 4), each = 36 * (padded(c->ic) + padded(c->oc)) * 4;
    int64_t most = MAX((512 << 10) / each / 12 * 12, 12), parts = (tiles + threads * most - 1) / (threads * most) * threads;
    c->block = ((tiles + parts - 1) / parts + 3) / 4 * 4;
    c->thread_floats = (size_t)(36 * (place_floats(c->block, padded(c->ic)) + place_floats(c->block, padded(c->oc))));
}

/* G g G^T, in double: it is done once. [place][panel of up to 2 vectors of oc][ic][lane] */
static void winograd_pack(const struct own_conv *c, const float *src, float *dst)
{
    const double p = P, q = Q, n0 = p * p * q * q, n1 = 2 * p * p * (p * p - q * q), n3 = 2 * q * q * (q * q - p * p);
    const double G[6][3] = {{1 / n0, 0, 0}, {1 / n1, p / n1, p * p / n1}, {1 / n1, -p / n1, p * p / n1},
                            {1 / n3, q / n3, q * q / n3}, {1 / n3, -q / n3, q * q / n3}, {0, 0, 1}};
    int64_t ocp = padded(c->oc);
    memset(dst, 0, winograd_weight_floats(c) * sizeof *dst);
    for (int64_t first = 0; first < c->oc; first += 2 * LANES) {
        int64_t width = MIN(ocp - first, 2 * LANES), n = MIN(c->oc - first, 2 * LANES);
        for (int64_t i = 0; i < c->ic; i++) {
            double g[9][2 * LANES] = {{0}}, half[6][3][2 * LANES]; /* all channels of a panel at once */
            for (int64_t o = 0; o < n; o++)
                for (int t = 0; t < 9; t++) g[t][o] = (double)src[((first + o) * c->ic + i) * 9 + t];
            for (int a = 0; a < 6; a++)
                for (int b = 0; b < 3; b++)
                    for (int o = 0; o < 2 * LANES; o++) half[a][b][o] = G[a][0] * g[b][o] + G[a][1] * g[3 + b][o] + G[a][2] * g[6 + b][o];
            float *to = dst + first * c->ic + i * width;
            for (int a = 0; a < 6; a++)
                for (int b = 0; b < 6; b++)
                    for (int64_t o = 0; o < width; o++)
                        to[(a * 6 + b) * c->ic * ocp + o] = (float)(half[a][0][o] * G[b][0] + half[a][1][o] * G[b][1] + half[a][2][o] * G[b][2]);
        }
    }
}

INLINE void forward(const vf d[6], vf t[6])
{
    vf a = d[4] - B * d[2], b = P * d[3] - B * P * d[1], e = d[4] - A * d[2], f = Q * d[3] - A * Q * d[1];
    t[0] = A * B * d[0] - (A + B) * d[2] + d[4];
    t[1] = a + b;
    t[2] = a - b;
    t[3] = e + f;
    t[4] = e - f;
    t[5] = A * B * d[1] - (A + B) * d[3] + d[5];
}

INLINE void backward(const vf m[6], vf o[4])
{
    vf a = m[1] + m[2], b = m[1] - m[2], e = m[3] + m[4], f = m[3] - m[4];
    o[0] = m[0] + a + e;
    o[1] = P * b + Q * f;
    o[2] = A * a + B * e;
    o[3] = A * P * b + B * Q * f + m[5];
}

/* Where a tile lies: its first input and output places, which may be outside of the picture at the edges. */
struct tile {
    int64_t y, x;        /* output */
    const float *in;     /* of sample n */
    float *out;
    const float *add, *late;
};

INLINE struct tile tile_of(const struct own_call *k, int64_t i)
{
    const struct own_conv *c = k->c;
    int64_t across = (c->ow + 3) / 4, down = (c->oh + 3) / 4, n = i / (across * down);
    i -= n * across * down;
    return (struct tile){.y = i / across * 4, .x = i % across * 4, .in = k->x + n * c->h * c->w * c->ic,
                         .out = k->y + n * c->oh * c->ow * c->oc, .add = k->add ? k->add + n * c->oh * c->ow * c->oc : NULL,
                         .late = k->late ? k->late + n * c->oh * c->ow * c->oc : NULL};
}

static void winograd_in(const struct own_call *k, const struct tile *t, float *u, int64_t place)
{
    const struct own_conv *c = k->c;
    int64_t y = t->y - c->top, x = t->x - c->left, row = c->w * c->ic;
    bool inside = y >= 0 && x >= 0 && y + 6 <= c->h && x + 6 <= c->w;
    const float *end = k->x + c->n * c->h * row;
    for (int64_t ch = 0; ch < c->ic; ch += LANES) {
        vf half[6][6];
        for (int j = 0; j < 6; j++) {
            vf d[6], column[6];
            for (int i = 0; i < 6; i++) {
                const float *p = t->in + (y + i) * row + (x + j) * c->ic + ch;
                if (!inside && (y + i < 0 || y + i >= c->h || x + j < 0 || x + j >= c->w))
                    d[i] = (vf){0};
                else if (p + LANES <= end)
                    d[i] = load(p); /* beyond the last channel: of the next place, and not used */
                else
                    d[i] = load_part(p, c->ic - ch);
            }
            forward(d, column);
            for (int i = 0; i < 6; i++) half[i][j] = column[i];
        }
        for (int i = 0; i < 6; i++) {
            vf line[6];
            forward(half[i], line);
            for (int j = 0; j < 6; j++) store(u + (i * 6 + j) * place + ch, line[j]);
        }
    }
}

static void winograd_out(const struct own_call *k, const struct tile *t, const float *m, int64_t place)
{
    const struct own_conv *c = k->c;
    int64_t down = MIN(c->oh - t->y, 4), across = MIN(c->ow - t->x, 4);
    for (int64_t ch = 0; ch < c->oc; ch += LANES) {
        int64_t n = MIN(c->oc - ch, LANES);
        vf half[4][6], bias = k->bias ? load_n(k->bias + ch, n) : (vf){0};
        for (int j = 0; j < 6; j++) {
            vf d[6], column[4];
            for (int i = 0; i < 6; i++) d[i] = load(m + (i * 6 + j) * place + ch);
            backward(d, column);
            for (int i = 0; i < 4; i++) half[i][j] = column[i];
        }
        for (int64_t i = 0; i < down; i++) {
            vf line[4];
            backward(half[i], line);
            for (int64_t j = 0; j < across; j++) {
                int64_t at = ((t->y + i) * c->ow + t->x + j) * c->oc + ch;
                store_n(t->out + at, simple_of(c, line[j] + bias, t->add ? t->add + at : NULL, n), n);
            }
        }
    }
    if (c->n_simple == c->n_post) return;
    for (int64_t i = 0; i < down; i++) {
        int64_t at = ((t->y + i) * c->ow + t->x) * c->oc;
        posts(c, t->out + at, t->late ? t->late + at : NULL, 1, 0, across * c->oc);
    }
}

INLINE void winograd_rows(const float *a, int64_t lda, const float *w, int64_t k, float *o, int64_t ldo, int groups, int nv)
{
    vf acc[12][2];
    multiply(a, lda, w, k, acc, groups, nv);
    for (int r = 0; r < 4 * groups; r++) {
        store(o + r * ldo, acc[r][0]);
        if (nv > 1) store(o + r * ldo + LANES, acc[r][1]);
    }
}

/* One place: `rows` (a multiple of 4) x ic times ic x oc. */
static void winograd_product(const float *a, int64_t lda, const float *w, const struct own_conv *c, float *o, int64_t ldo, int64_t rows)
{
    int64_t ocp = padded(c->oc);
    for (int64_t v = 0; v < ocp; v += 2 * LANES) {
        const float *panel = w + v * c->ic;
        int64_t r = 0;
        if (ocp - v == LANES) {
            for (; r + 12 <= rows; r += 12) winograd_rows(a + r * lda, lda, panel, c->ic, o + r * ldo + v, ldo, 3, 1);
            for (; r < rows; r += 4) winograd_rows(a + r * lda, lda, panel, c->ic, o + r * ldo + v, ldo, 1, 1);
            continue;
        }
#if LANES == 16
        for (; r + 12 <= rows; r += 12) winograd_rows(a + r * lda, lda, panel, c->ic, o + r * ldo + v, ldo, 3, 2);
        for (; r + 8 <= rows; r += 8) winograd_rows(a + r * lda, lda, panel, c->ic, o + r * ldo + v, ldo, 2, 2);
#endif
        for (; r < rows; r += 4) winograd_rows(a + r * lda, lda, panel, c->ic, o + r * ldo + v, ldo, 1, 2);
    }
}

static void winograd_run(const struct own_call *k, int thread, int threads)
{
    const struct own_conv *c = k->c;
    int64_t tiles = c->n * ((c->oh + 3) / 4) * ((c->ow + 3) / 4), icp = padded(c->ic), ocp = padded(c->oc), from, to;
    int64_t place_in = place_floats(c->block, icp), place_out = place_floats(c->block, ocp);
    float *u = k->scratch + (size_t)thread * c->thread_floats, *m = u + 36 * place_in;
    own_share((tiles + c->block - 1) / c->block, thread, threads, &from, &to);
    for (int64_t b = from; b < to; b++) {
        int64_t first = b * c->block, n = MIN(tiles - first, c->block), rows = (n + 3) / 4 * 4;
        for (int64_t i = 0; i < n; i++) {
            struct tile t = tile_of(k, first + i);
            winograd_in(k, &t, u + i * icp, place_in);
        }
        for (int64_t i = n; i < rows; i++)
            for (int p = 0; p < 36; p++) memset(u + p * place_in + i * icp, 0, (size_t)icp * sizeof *u);
        for (int p = 0; p < 36; p++)
            winograd_product(u + p * place_in, icp, k->weight + p * c->ic * ocp, c, m + p * place_out, ocp, rows);
        for (int64_t i = 0; i < n; i++) {
            struct tile t = tile_of(k, first + i);
            winograd_out(k, &t, m + i * ocp, place_out);
        }
    }
}
