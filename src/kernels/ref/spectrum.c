/* Frequencies: DFT, STFT, MelWeightMatrix.
 *
 * One transform for all lengths: a length p * m is p transforms of length m, put together with the roots of unity (Cooley and Tukey
 * 1965), down to primes, which cost p * p. It works in float64, in scratch: two complex numbers per place, the roots, and one for
 * each place of the largest prime. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

struct number {
    double re, im;
};

struct transform {
    int64_t n;
    struct number *in, *out, *root, *few; /* root[k] = exp(-2 pi i k / n), or its conjugate for the inverse */
};

static size_t transform_bytes(int64_t n)
{
    return 4 * REF_ALIGN((size_t)n * sizeof(struct number));
}

static void transform_init(struct ref_call *c, int64_t n, bool inverse, struct transform *t)
{
    size_t bytes = (size_t)n * sizeof(struct number);
    *t = (struct transform){n, ref_scratch(c, bytes), ref_scratch(c, bytes), ref_scratch(c, bytes), ref_scratch(c, bytes)};
    for (int64_t k = 0; k < n; k++) {
        double turn = 2 * M_PI * (double)k / (double)n;
        t->root[k] = (struct number){cos(turn), inverse ? sin(turn) : -sin(turn)};
    }
}

static int64_t smallest_factor(int64_t n)
{
    for (int64_t p = 2; p * p <= n; p++)
        if (n % p == 0) return p;
    return n;
}

/* n places of `in`, `step` apart, to n dense places of `out`; step * n is the whole length. */
static void step_of(const struct transform *t, int64_t n, const struct number *in, int64_t step, struct number *out)
{
    if (n == 1) {
        *out = *in;
        return;
    }
    int64_t p = smallest_factor(n), m = n / p;
    for (int64_t q = 0; q < p; q++)
        step_of(t, m, in + q * step, step * p, out + q * m);
    for (int64_t k = 0; k < m; k++) {
        for (int64_t q = 0; q < p; q++)
            t->few[q] = out[q * m + k];
        for (int64_t r = 0; r < p; r++) {
            struct number sum = {0, 0};
            int64_t turn = (k + r * m) % n * step, at = 0;
            for (int64_t q = 0; q < p; q++) {
                struct number w = t->root[at], v = t->few[q];
                sum.re += v.re * w.re - v.im * w.im;
                sum.im += v.re * w.im + v.im * w.re;
                at = (at + turn) % t->n;
            }
            out[r * m + k] = sum;
        }
    }
}

static double get(const struct tensor *t, int64_t i)
{
    return t->dtype == TENSOR_F64 ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i];
}

static void put(const struct tensor *t, int64_t i, double v)
{
    if (t->dtype == TENSOR_F64)
        ((double *)t->data)[i] = v;
    else
        ((float *)t->data)[i] = (float)v;
}

/* ---- DFT along one axis; the last one holds real and imaginary part */

struct dft {
    int axis;
    bool inverse, onesided;
    int64_t n, in_size, out_size, inner; /* length; sizes of the axis; places behind it, without the last axis */
    int64_t in_parts, out_parts;
};

static err read_dft(const struct ref_call *c, struct dft *d)
{
    const struct tensor_shape *x = &c->in[0].shape, *y = &c->out[0].shape;
    bool as_input = c->node->opset >= 20;
    int64_t axis = as_input ? ref_has(c, 2) ? ref_int_at(&c->in[2], 0) : -2 : op_attr_int(c->node, "axis", 1);
    err e = ref_axis(axis, x->rank, &d->axis);
    if (e) return e;
    d->inverse = op_attr_int(c->node, "inverse", 0) != 0;
    d->onesided = op_attr_int(c->node, "onesided", 0) != 0;
    d->in_size = x->dims[d->axis];
    d->out_size = y->dims[d->axis];
    d->in_parts = x->dims[x->rank - 1];
    d->out_parts = y->dims[y->rank - 1];
    d->n = d->onesided && !d->inverse ? ref_has(c, 1) ? ref_int_at(&c->in[1], 0) : d->in_size : d->out_size;
    d->inner = 1;
    for (int i = d->axis + 1; i < x->rank - 1; i++)
        d->inner *= x->dims[i];
    if (d->n < 1 || d->n > 2 * MAX(d->in_size, d->out_size) + 1 || d->axis >= x->rank - 1 || d->out_size > d->n) return err_set(ERR_SHAPE, "DFT of length %lld", (long long)d->n);
    return ERR_OK;
}

/* Before there are numbers: no length is longer than an axis here, or twice one of which half is given. */
size_t ref_dft_scratch(const struct ref_call *c)
{
    int64_t most = 0;
    for (int i = 0; i < c->in[0].shape.rank; i++)
        most = MAX(most, MAX(c->in[0].shape.dims[i], i < c->out[0].shape.rank ? c->out[0].shape.dims[i] : 0));
    return ref_scratch_rows(c) + transform_bytes(2 * most + 1);
}

static void load(const struct dft *d, const struct tensor *x, int64_t lane, struct number *to)
{
    int64_t first = lane / d->inner * d->in_size * d->inner + lane % d->inner;
    for (int64_t k = 0; k < d->n; k++) {
        bool mirrored = d->inverse && d->onesided && k > d->n / 2;
        int64_t from = mirrored ? d->n - k : k, at = (first + from * d->inner) * d->in_parts;
        to[k] = (struct number){0, 0};
        if (from >= d->in_size) continue;
        to[k].re = get(x, at);
        if (d->in_parts == 2) to[k].im = mirrored ? -get(x, at + 1) : get(x, at + 1);
        if (d->inverse && d->onesided && (k == 0 || 2 * k == d->n)) to[k].im = 0;
    }
}

err ref_dft(struct ref_call *c)
{
    struct dft d;
    struct transform t;
    err e = read_dft(c, &d);
    if (e) return e;
    struct tensor x = ref_dense_in(c, 0, false), y = ref_dense_out(c, 0, false);
    transform_init(c, d.n, d.inverse, &t);
    int64_t lanes = d.in_size ? tensor_count(&x.shape) / (d.in_size * d.in_parts) : 0;
    double scale = d.inverse ? 1 / (double)d.n : 1;
    for (int64_t lane = 0; lane < lanes; lane++) {
        int64_t first = lane / d.inner * d.out_size * d.inner + lane % d.inner;
        load(&d, &x, lane, t.in);
        step_of(&t, d.n, t.in, 1, t.out);
        for (int64_t k = 0; k < d.out_size; k++) {
            int64_t at = (first + k * d.inner) * d.out_parts;
            put(&y, at, t.out[k].re * scale);
            if (d.out_parts == 2) put(&y, at + 1, t.out[k].im * scale);
        }
    }
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}

/* ---- STFT: signal [N, length, 1 or 2] to [N, frames, bins, 2] */

static int64_t frame_of(const struct ref_call *c)
{
    if (ref_has(c, 3)) return ref_int_at(&c->in[3], 0);
    return ref_has(c, 2) ? c->in[2].shape.dims[0] : c->in[0].shape.dims[1];
}

size_t ref_stft_scratch(const struct ref_call *c)
{
    /* The frame is known as a constant when the plan is made; it is never longer than the signal. */
    return ref_scratch_rows(c) + transform_bytes(c->in[0].shape.dims[1]);
}

err ref_stft(struct ref_call *c)
{
    struct transform t;
    const struct tensor_shape *s = &c->out[0].shape;
    int64_t frame = frame_of(c), step = ref_int_at(&c->in[1], 0), length = c->in[0].shape.dims[1];
    int64_t parts = c->in[0].shape.dims[2], at = 0;
    if (frame < 1 || frame > length || step < 1 || (s->dims[1] - 1) * step + frame > length || s->dims[2] > frame ||
        (ref_has(c, 2) && c->in[2].shape.dims[0] != frame))
        return err_set(ERR_SHAPE, "STFT: frames of %lld every %lld of %lld", (long long)frame, (long long)step, (long long)length);
    struct tensor x = ref_dense_in(c, 0, false), window = {0}, y = ref_dense_out(c, 0, false);
    if (ref_has(c, 2)) window = ref_dense_in(c, 2, false);
    transform_init(c, frame, false, &t);
    for (int64_t n = 0; n < s->dims[0]; n++)
        for (int64_t f = 0; f < s->dims[1]; f++) {
            for (int64_t k = 0; k < frame; k++) {
                int64_t from = (n * length + f * step + k) * parts;
                double w = window.data ? get(&window, k) : 1;
                t.in[k] = (struct number){get(&x, from) * w, parts == 2 ? get(&x, from + 1) * w : 0};
            }
            step_of(&t, frame, t.in, 1, t.out);
            for (int64_t k = 0; k < s->dims[2]; k++) {
                put(&y, at++, t.out[k].re);
                put(&y, at++, t.out[k].im);
            }
        }
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}

/* ---- MelWeightMatrix [bins of the DFT, bins of mel]: triangles that are equally wide on the mel scale */

static int64_t bin_of(double mel, int64_t length, int64_t rate, int64_t bins)
{
    double hertz = 700 * expm1(mel / 2595 * M_LN10), bin = floor((double)(length + 1) * hertz / (double)rate);
    return !(bin > 0) ? 0 : bin > (double)bins ? bins : (int64_t)bin;
}

err ref_mel_weight_matrix(struct ref_call *c)
{
    const struct tensor *out = &c->out[0];
    int64_t rows = out->shape.dims[0], mels = out->shape.dims[1], length = ref_int_at(&c->in[1], 0), rate = ref_int_at(&c->in[2], 0);
    if (rate < 1) return err_set(ERR_SHAPE, "sample_rate is %lld", (long long)rate);
    double low = 2595 * log1p(ref_double_at(&c->in[3], 0) / 700) / M_LN10;
    double high = 2595 * log1p(ref_double_at(&c->in[4], 0) / 700) / M_LN10, step = (high - low) / (double)(mels + 2);
    struct tensor y = ref_dense_out(c, 0, false);
    bool is_float = tensor_dtype_is_float(y.dtype);
    memset(y.data, 0, (size_t)(rows * mels * ref_size(&y)));
    for (int64_t i = 0; i < mels; i++) {
        int64_t left = bin_of(low + (double)i * step, length, rate, rows), middle = bin_of(low + (double)(i + 1) * step, length, rate, rows);
        int64_t right = bin_of(low + (double)(i + 2) * step, length, rate, rows);
        for (int64_t j = left; j <= MAX(middle, right) && j < rows; j++) {
            double v = middle == left ? 1 : (double)(j - left) / (double)(middle - left);
            if (j > middle || (j == middle && right > middle)) {
                if (j >= right) continue;
                v = (double)(right - j) / (double)(right - middle);
            }
            if (is_float)
                put(&y, j * mels + i, v);
            else
                ((int64_t *)y.data)[j * mels + i] = (int64_t)v;
        }
    }
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}
