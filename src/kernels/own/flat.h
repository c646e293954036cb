/* What runs over memory, for LANES floats at once.
 *
 * Binary: inputs that do not lie like the output are brought into a small buffer first, so that there is one loop for all layouts and broadcasts.
 * Softmax: LANES rows at once, their numbers taken apart, because a row of 2 to 8 numbers fills no vector.
 * Norm: moments of blocks of 1024 places in two sweeps over the block while it is in the cache, combined in double in the order of the blocks (Chan,
 * Golub and LeVeque 1979), so that the result does not depend on who did which block. SPDX-License-Identifier: Apache-2.0 */
#pragma once

enum { FLAT_CHUNK = 1024 };

struct fetched {
    float buffer[FLAT_CHUNK + LANES];
    const float *from; /* what is in the buffer */
    int64_t rows, n;
};

/* rows x n numbers with these strides as one row: in place if they lie so. */
INLINE const float *fetch(struct fetched *f, const float *p, int64_t rows, int64_t n, int64_t outer, int64_t inner)
{
    if (inner == 1 && (rows == 1 || outer == n)) return p;
    if (f->from == p && f->rows == rows && f->n == n) return f->buffer;
    float *to = f->buffer;
    for (int64_t r = 0; r < rows; r++, to += n) {
        const float *q = p + r * outer;
        if (inner == 0)
            for (int64_t i = 0; i < n; i++) to[i] = *q;
        else if (n == 3)
            for (int64_t i = 0; i < 3; i++) to[i] = q[i * inner];
        else
            for (int64_t i = 0; i < n; i++) to[i] = q[i * inner];
    }
    f->from = p;
    f->rows = rows;
    f->n = n;
    return f->buffer;
}

#define OVER(f)                                                                                                        \
    for (int64_t i = 0; i < n; i += LANES) {                                                                           \
        int64_t m = MIN(n - i, LANES);                                                                                 \
        vf x = load_n(a + i, m), z = load_n(b + i, m);                                                                 \
        store_n(y + i, f, m);                                                                                          \
    }                                                                                                                  \
    break

static void binary_chunk(enum op_kind kind, const float *a, const float *b, float *y, int64_t n)
{
    switch (kind) {
    case OP_ADD: OVER(x + z);
    case OP_SUB: OVER(x - z);
    case OP_MUL: OVER(x * z);
    default: OVER(x / z);
    }
}

static void binary_run(const struct own_flat_call *k, int thread, int threads)
{
    const struct own_flat *f = k->f;
    int last = f->n_axes - 1, row = last > 0 ? last - 1 : last; /* two axes in a chunk; the others, and those rows, are walked */
    int64_t n = f->dims[last], rows = last > 0 ? f->dims[row] : 1, outer = 1, from, to;
    int64_t oa = last > 0 ? f->a[row] : 0, ob = last > 0 ? f->b[row] : 0;
    for (int i = 0; i < row; i++) outer *= f->dims[i];
    int64_t at_once = MIN(MAX(FLAT_CHUNK / n, 1), rows), pieces = (rows + at_once - 1) / at_once;
    int64_t piece = at_once > 1 ? n : FLAT_CHUNK, parts = (n + piece - 1) / piece;
    struct fetched fa = {.from = NULL}, fb = {.from = NULL};
    own_share(outer * pieces * parts, thread, threads, &from, &to);
    for (int64_t t = from; t < to; t++) {
        int64_t part = t % parts, p = t / parts % pieces, o = t / parts / pieces, pa = 0, pb = 0;
        int64_t y = (o * rows + p * at_once) * n + part * piece, r = MIN(at_once, rows - p * at_once), w = MIN(piece, n - part * piece);
        for (int i = row - 1; i >= 0; i--) {
            pa += o % f->dims[i] * f->a[i];
            pb += o % f->dims[i] * f->b[i];
            o /= f->dims[i];
        }
        pa += p * at_once * oa + part * piece * f->a[last];
        pb += p * at_once * ob + part * piece * f->b[last];
        const float *a = fetch(&fa, k->a + pa, r, w, oa, f->a[last]), *b = fetch(&fb, k->b + pb, r, w, ob, f->b[last]);
        binary_chunk(f->kind, a, b, k->y + y, r * w);
        if (f->post.n_post) posts(&f->post, k->y + y, k->late ? k->late + y : NULL, 1, 0, r * w);
    }
}

/* rows x n numbers; the strides of rows, and of numbers in the input. */
INLINE void copy_rows(const float *from, float *to, int64_t rows, int64_t n, int64_t from_row, int64_t to_row, int64_t inner)
{
    if (n == 1) { /* pictures of one channel into one of three */
        for (int64_t r = 0; r < rows; r++) to[r * to_row] = from[r * from_row];
        return;
    }
    for (int64_t r = 0; r < rows; r++, from += from_row, to += to_row) {
        if (inner == 1)
            for (int64_t i = 0; i < n; i += LANES) store_n(to + i, load_n(from + i, MIN(n - i, LANES)), MIN(n - i, LANES));
        else
            for (int64_t i = 0; i < n; i++) to[i] = from[i * inner];
    }
}

static void concat_part(const struct own_part *p, const float *from, float *to, int thread, int threads)
{
    int last = p->n_axes - 1, row = last - 1;
    int64_t n = p->dims[last], inner = p->from[last], rows = 1, first, end;
    for (int i = 0; i < last; i++) rows *= p->dims[i];
    own_share(rows, thread, threads, &first, &end);
    while (first < end) { /* as many rows as follow each other */
        int64_t left = first, count = row >= 0 ? MIN(p->dims[row] - first % p->dims[row], end - first) : 1, f = 0, t = p->start;
        for (int i = row; i >= 0; i--) {
            f += left % p->dims[i] * p->from[i];
            t += left % p->dims[i] * p->to[i];
            left /= p->dims[i];
        }
        int64_t fr = row >= 0 ? p->from[row] : 0, tr = row >= 0 ? p->to[row] : 0;
        switch (inner == 1 ? n : 0) { /* the usual numbers of channels, without a loop */
        case LANES: copy_rows(from + f, to + t, count, LANES, fr, tr, 1); break;
        case 2 * LANES: copy_rows(from + f, to + t, count, 2 * LANES, fr, tr, 1); break;
        case 4 * LANES: copy_rows(from + f, to + t, count, 4 * LANES, fr, tr, 1); break;
        default: copy_rows(from + f, to + t, count, n, fr, tr, inner);
        }
        first += count;
    }
}

static void concat_run(const struct own_flat_call *k, int thread, int threads)
{
    for (int64_t i = 0; i < k->f->n; i++) concat_part(&k->f->parts[i], k->in[i], k->y, thread, threads);
}

INLINE void softmax_rows(const float *x, float *y, int64_t n, int c)
{
    float planar[OWN_SOFTMAX_ROW * NARROW_SLACK];
    apart(x, planar, n, NARROW_SLACK, c);
    for (int64_t i = 0; i < n; i += LANES) {
        vf v[OWN_SOFTMAX_ROW], most = load(planar + i), sum = (vf){0};
        for (int k = 1; k < c; k++) most = larger(most, load(planar + k * NARROW_SLACK + i));
        for (int k = 0; k < c; k++) sum += v[k] = exp_of(load(planar + k * NARROW_SLACK + i) - most);
        for (int k = 0; k < c; k++) store(planar + k * NARROW_SLACK + i, v[k] / sum);
    }
    if (n % 4 == 0 || (c != 3 && c != 4)) {
        together(planar, y, n, c);
    } else { /* together writes by fours */
        together(planar, y, n / 4 * 4, c);
        for (int64_t i = n / 4 * 4; i < n; i++)
            for (int k = 0; k < c; k++) y[i * c + k] = planar[k * NARROW_SLACK + i];
    }
}

static void softmax_run(const struct own_flat_call *k, int thread, int threads)
{
    const struct own_flat *f = k->f;
    int64_t from, to;
    own_share((f->rows + NARROW_SLACK - 1) / NARROW_SLACK, thread, threads, &from, &to);
    for (int64_t b = from; b < to; b++) {
        int64_t at = b * NARROW_SLACK * f->c, n = MIN(f->rows - b * NARROW_SLACK, NARROW_SLACK);
        switch (f->c) {
        case 2: softmax_rows(k->a + at, k->y + at, n, 2); break;
        case 3: softmax_rows(k->a + at, k->y + at, n, 3); break;
        case 4: softmax_rows(k->a + at, k->y + at, n, 4); break;
        default: softmax_rows(k->a + at, k->y + at, n, (int)f->c);
        }
    }
}

INLINE int64_t common_divisor(int64_t a, int64_t b)
{
    while (b) {
        int64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* Sum of x - mean, or of its square, for each channel over a block. `period` vectors hold whole places. */
INLINE void norm_sum(const float *x, int64_t n, int64_t c, int64_t period, const float *mean, bool square, double *ret)
{
    vf acc[OWN_NORM_CHANNELS];
    int64_t i = 0;
    for (int64_t v = 0; v < period; v++) acc[v] = (vf){0};
    for (; i + period * LANES <= n * c; i += period * LANES)
        for (int64_t v = 0; v < period; v++) {
            vf d = load(x + i + v * LANES) - load(mean + v * LANES);
            if (square) d *= d;
            acc[v] += d;
        }
    for (int64_t k = 0; k < c; k++) ret[k] = 0;
    for (int64_t v = 0, k = 0; v < period; v++)
        for (int l = 0; l < LANES; l++, k = k + 1 == c ? 0 : k + 1) ret[k] += (double)acc[v][l];
    for (int64_t k = 0; i < n * c; i++, k = k + 1 == c ? 0 : k + 1) {
        double d = (double)x[i] - (double)mean[k];
        ret[k] += square ? d * d : d;
    }
}

INLINE void repeat(const double *from, int64_t c, int64_t period, float *to)
{
    for (int64_t i = 0, k = 0; i < period * LANES; i++, k = k + 1 == c ? 0 : k + 1) to[i] = (float)from[k];
}

/* Per block and channel: mean, and the sum of squares around it. */
static void norm_measure(const struct own_flat_call *k, int thread, int threads)
{
    const struct own_flat *f = k->f;
    int64_t blocks = (f->rows + OWN_NORM_BLOCK - 1) / OWN_NORM_BLOCK, period = f->c / common_divisor(f->c, LANES), from, to;
    float mean[OWN_NORM_CHANNELS * LANES];
    double sum[OWN_NORM_CHANNELS];
    own_share(f->n * blocks, thread, threads, &from, &to);
    for (int64_t t = from; t < to; t++) {
        int64_t first = t % blocks * OWN_NORM_BLOCK, n = MIN(f->rows - first, OWN_NORM_BLOCK);
        const float *x = k->a + (t / blocks * f->rows + first) * f->c;
        double *m = k->moments + t * 2 * f->c;
        for (int64_t c = 0; c < f->c; c++) sum[c] = (double)x[c]; /* near the mean: nothing is lost in the sums */
        repeat(sum, f->c, period, mean);
        norm_sum(x, n, f->c, period, mean, false, m);
        for (int64_t c = 0; c < f->c; c++) sum[c] = (double)mean[c] + m[c] / (double)n;
        repeat(sum, f->c, period, mean);
        for (int64_t c = 0; c < f->c; c++) m[c] = (double)mean[c]; /* as rounded */
        norm_sum(x, n, f->c, period, mean, false, sum);
        norm_sum(x, n, f->c, period, mean, true, m + f->c);
        for (int64_t c = 0; c < f->c; c++) { /* from around the rounded mean to around the mean */
            double off = sum[c] / (double)n;
            m[c] += off;
            m[f->c + c] -= off * off * (double)n;
        }
    }
}

static void norm_apply(const struct own_flat_call *k, int thread, int threads)
{
    const struct own_flat *f = k->f;
    int64_t blocks = (f->rows + OWN_NORM_BLOCK - 1) / OWN_NORM_BLOCK, period = f->c / common_divisor(f->c, LANES), from, to, have = -1;
    float factor[OWN_NORM_CHANNELS * LANES], addend[OWN_NORM_CHANNELS * LANES];
    own_share(f->n * blocks, thread, threads, &from, &to);
    for (int64_t t = from; t < to; t++) {
        int64_t sample = t / blocks, first = t % blocks * OWN_NORM_BLOCK, n = MIN(f->rows - first, OWN_NORM_BLOCK) * f->c, i = 0;
        double a[OWN_NORM_CHANNELS], b[OWN_NORM_CHANNELS];
        for (int64_t c = 0; c < f->c && have != sample; c++) {
            double mean = 0, square = 0, count = 0;
            for (int64_t j = 0; j < blocks; j++) {
                const double *m = k->moments + (sample * blocks + j) * 2 * f->c;
                double more = (double)MIN(f->rows - j * OWN_NORM_BLOCK, OWN_NORM_BLOCK), d = m[c] - mean;
                square += m[f->c + c] + d * d * count * more / (count + more);
                mean += d * more / (count + more);
                count += more;
            }
            a[c] = (double)k->b[c] / sqrt(square / count + (double)f->epsilon);
            b[c] = (double)k->shift[c] - mean * a[c];
        }
        if (have != sample) {
            repeat(a, f->c, period, factor);
            repeat(b, f->c, period, addend);
            have = sample;
        }
        const float *x = k->a + (sample * f->rows + first) * f->c;
        float *y = k->y + (sample * f->rows + first) * f->c;
        for (; i + period * LANES <= n; i += period * LANES)
            for (int64_t v = 0; v < period; v++) store(y + i + v * LANES, load(x + i + v * LANES) * load(factor + v * LANES) + load(addend + v * LANES));
        for (int64_t c = 0; i < n; i++, c++) y[i] = x[i] * factor[c] + addend[c];
    }
}
