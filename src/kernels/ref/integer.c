/* Arithmetic on quantised numbers: ConvInteger, MatMulInteger, QLinearConv, QLinearMatMul, DynamicQuantizeLinear.
 *
 * Sums are int32 and exact (they wrap as ONNX Runtime's do). The zero points are taken off both operands first,
 * so padding is simply nothing. QLinear*: y = saturate(round_half_even(sum * x_scale * w_scale / y_scale) + y_zero),
 * the product of scales in float32 as ONNX Runtime has it.
 *
 * Both are one product: a row of x (a pixel's patch, or a row of the matrix) times a matrix [k, columns] with the
 * columns innermost, which vectorises. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

struct job {
    bool conv, linear;
    int w, x_zero, w_zero; /* numbers of inputs */
};

static struct job job_of(const struct ref_call *c)
{
    enum op_kind k = c->node->kind;
    bool linear = k == OP_QLINEAR_CONV || k == OP_QLINEAR_MATMUL;
    return (struct job){.conv = k == OP_QLINEAR_CONV || k == OP_CONV_INTEGER,
                        .linear = linear,
                        .w = linear ? 3 : 1,
                        .x_zero = 2,
                        .w_zero = linear ? 5 : 3};
}

/* Numbers of input i as int32; one zero point, or one for each step of `axis`. */
static err widen(struct ref_call *c, int i, int zero, int axis, int32_t **ret)
{
    const struct tensor *t = &c->in[i];
    int64_t count = tensor_count(&t->shape), inner = 1, many = 1;
    struct tensor d = *t;
    d.dtype = TENSOR_I32;
    tensor_strides_row_major(&d.shape, d.strides);
    d.data = ref_scratch(c, (size_t)count * sizeof(int32_t));
    if (!d.data) return err_set(ERR_INTERNAL, "too little scratch");
    ref_cast_tensor(&d, t);
    int32_t *v = d.data;
    if (ref_has(c, zero)) {
        many = tensor_count(&c->in[zero].shape);
        for (int a = axis + 1; a < t->shape.rank; a++) inner *= t->shape.dims[a];
        if (many > 1)
            for (int64_t k = 0; k < count; k++) v[k] -= (int32_t)ref_int_at(&c->in[zero], k / inner % many);
        else if (many == 1) {
            int32_t z = (int32_t)ref_int_at(&c->in[zero], 0);
            for (int64_t k = 0; k < count; k++) v[k] -= z;
        }
    }
    *ret = v;
    return ERR_OK;
}

static void REF_HOT add_row(int32_t *restrict y, int32_t s, const int32_t *restrict m, int64_t n)
{
    for (int64_t c = 0; c < n; c++) y[c] = (int32_t)((uint32_t)y[c] + (uint32_t)s * (uint32_t)m[c]);
}

/* Sums of one row into output elements at, at + step ... */
static void give(struct ref_call *c, const struct job *j, const int32_t *sum, int64_t n, int64_t first, char *to,
                 int64_t step)
{
    if (!j->linear) {
        for (int64_t k = 0; k < n; k++) memcpy(to + k * step * 4, &sum[k], 4);
        return;
    }
    bool sign = c->out[0].dtype == TENSOR_I8, per = tensor_count(&c->in[4].shape) > 1;
    float xs = (float)ref_double_at(&c->in[1], 0), ys = (float)ref_double_at(&c->in[6], 0);
    float low = sign ? -128 : 0, high = sign ? 127 : 255, zero = (float)ref_int_at(&c->in[7], 0), scale = 0;
    for (int64_t k = 0; k < n; k++) {
        if (per || k == 0) scale = xs * (float)ref_double_at(&c->in[4], per ? first + k : 0) / ys;
        float v = rintf((float)sum[k] * scale) + zero;
        v = v != v ? zero : v < low ? low : v > high ? high : v;
        to[k * step] = (char)(int)v;
    }
}

/* Where the output's rows go while it is made: row-major bytes of its own type, in scratch unless it lies so. */
static struct tensor place(struct ref_call *c)
{
    struct tensor d = c->out[0];
    if (tensor_is_row_major(&d)) return d;
    tensor_strides_row_major(&d.shape, d.strides);
    d.data = ref_scratch(c, (size_t)tensor_count(&d.shape) * tensor_dtype_size(d.dtype));
    return d;
}

static int64_t columns_of(const struct ref_call *c, const struct job *j)
{
    const struct tensor_shape *w = &c->in[j->w].shape;
    return j->conv ? w->dims[0] : w->rank > 1 ? w->dims[w->rank - 1] : 1;
}

size_t ref_integer_scratch(const struct ref_call *c)
{
    struct job j = job_of(c);
    size_t x = (size_t)tensor_count(&c->in[0].shape), w = (size_t)tensor_count(&c->in[j.w].shape);
    return REF_ALIGN(x * 4) + 2 * REF_ALIGN(w * 4) + REF_ALIGN((size_t)columns_of(c, &j) * 4) +
           REF_ALIGN((size_t)tensor_count(&c->out[0].shape) * 4);
}

static err product(struct ref_call *c, const struct job *j, const int32_t *x, const int32_t *w, struct tensor *y)
{
    struct tensor_shape a = c->in[0].shape, b = c->in[j->w].shape, all;
    if (a.rank == 1) a = tensor_shape_of(2, (int64_t[]){1, a.dims[0]});
    if (b.rank == 1) b = tensor_shape_of(2, (int64_t[]){b.dims[0], 1});
    int64_t rows = a.dims[a.rank - 2], k = a.dims[a.rank - 1], cols = b.dims[b.rank - 1];
    int64_t index[TENSOR_MAX_RANK] = {0};
    a.rank -= 2;
    b.rank -= 2;
    err e = tensor_broadcast(&a, &b, &all);
    int32_t *sum = ref_scratch(c, (size_t)cols * sizeof *sum);
    if (e || !sum) return e ? e : err_set(ERR_INTERNAL, "too little scratch");
    char *to = y->data;
    if (tensor_count(&y->shape) == 0) return ERR_OK;
    do {
        int64_t ai = 0, bi = 0;
        for (int i = 0; i < a.rank; i++)
            ai = ai * a.dims[i] + (a.dims[i] > 1 ? index[all.rank - a.rank + i] : 0);
        for (int i = 0; i < b.rank; i++)
            bi = bi * b.dims[i] + (b.dims[i] > 1 ? index[all.rank - b.rank + i] : 0);
        for (int64_t r = 0; r < rows; r++) {
            memset(sum, 0, (size_t)cols * sizeof *sum);
            for (int64_t i = 0; i < k; i++)
                add_row(sum, x[(ai * rows + r) * k + i], w + (bi * k + i) * cols, cols);
            give(c, j, sum, cols, 0, to, 1);
            to += cols * ref_size(y);
        }
    } while (ref_next(all.rank, all.dims, index));
    return ERR_OK;
}

struct patch {
    struct op_window w;
    int64_t channels, filters, taps, plane_in; /* per group: channels, filters; places of the kernel */
};

/* One output pixel `at` of one group: sums over the kernel's places that lie inside. */
static void pixel(const struct patch *p, const int64_t *at, const int32_t *x, const int32_t *w, int32_t *sum)
{
    int64_t tap[6] = {0};
    for (int64_t t = 0; t < p->taps; t++) {
        int64_t place = 0;
        bool inside = true;
        for (int i = 0; i < p->w.n; i++) {
            int64_t v = at[i] * p->w.stride[i] + tap[i] * p->w.dilation[i] - p->w.pad_begin[i];
            inside &= v >= 0 && v < p->w.in[i];
            place = place * p->w.in[i] + v;
        }
        for (int64_t ch = 0; inside && ch < p->channels; ch++)
            add_row(sum, x[ch * p->plane_in + place], w + (ch * p->taps + t) * p->filters, p->filters);
        ref_next(p->w.n, p->w.kernel, tap);
    }
}

static err convolution(struct ref_call *c, const struct job *j, const int32_t *x, const int32_t *w, struct tensor *y)
{
    struct patch p;
    struct op_node like = *c->node;
    like.kind = OP_CONV;
    err e = op_window(&like, &c->in[0].shape, &c->in[j->w].shape, &p.w);
    if (e) return e;
    int64_t k = tensor_count(&c->in[j->w].shape), all = columns_of(c, j), plane_out = 1;
    p.channels = c->in[j->w].shape.dims[1];
    p.filters = all / p.w.group;
    p.taps = p.plane_in = 1;
    for (int i = 0; i < p.w.n; i++) {
        p.taps *= p.w.kernel[i];
        p.plane_in *= p.w.in[i];
        plane_out *= p.w.out[i];
    }
    int32_t *wt = ref_scratch(c, (size_t)k * 4), *sum = ref_scratch(c, (size_t)all * 4);
    if (!wt || !sum) return err_set(ERR_INTERNAL, "too little scratch");
    if (tensor_count(&y->shape) == 0) return ERR_OK;
    int64_t each = p.channels * p.taps;
    for (int64_t f = 0; f < all; f++) /* [group][channel, tap][filter] */
        for (int64_t i = 0; i < each; i++)
            wt[(f / p.filters * each + i) * p.filters + f % p.filters] = w[f * each + i];
    for (int64_t b = 0; b < c->in[0].shape.dims[0]; b++)
        for (int64_t g = 0; g < p.w.group; g++) {
            const int32_t *from = x + (b * p.w.group + g) * p.channels * p.plane_in;
            char *to = (char *)y->data + (b * all + g * p.filters) * plane_out * ref_size(y);
            int64_t at[6] = {0};
            for (int64_t o = 0; o < plane_out; o++) {
                for (int64_t f = 0; f < p.filters; f++)
                    sum[f] = ref_has(c, 8) ? (int32_t)ref_int_at(&c->in[8], g * p.filters + f) : 0;
                pixel(&p, at, from, wt + g * each * p.filters, sum);
                give(c, j, sum, p.filters, g * p.filters, to + o * ref_size(y), plane_out);
                ref_next(p.w.n, p.w.out, at);
            }
        }
    return ERR_OK;
}

err ref_integer(struct ref_call *c)
{
    struct job j = job_of(c);
    int rank = c->in[0].shape.rank, w_rank = c->in[j.w].shape.rank;
    int32_t *x, *w;
    err e = widen(c, 0, j.x_zero, j.conv ? rank : rank - 2, &x);
    if (!e) e = widen(c, j.w, j.w_zero, j.conv ? 0 : w_rank - 1, &w);
    if (e) return e;
    struct tensor y = place(c);
    if (!y.data) return err_set(ERR_INTERNAL, "too little scratch");
    e = j.conv ? convolution(c, &j, x, w, &y) : product(c, &j, x, w, &y);
    if (!e && y.data != c->out[0].data) ref_copy_tensor(&c->out[0], &y);
    return e;
}

/* The range is widened to hold 0, so that 0 stays exact. */
err ref_dynamic_quantize(struct ref_call *c)
{
    int64_t n = tensor_count(&c->in[0].shape);
    float low = 0, high = 0;
    struct tensor x = ref_dense_in(c, 0, false);
    const float *v = x.data;
    for (int64_t i = 0; i < n; i++) {
        low = v[i] < low ? v[i] : low;
        high = v[i] > high ? v[i] : high;
    }
    float scale = (high - low) / 255;
    if (!(scale > 0)) scale = 1; /* nothing but 0 */
    float zero = rintf(fminf(255, fmaxf(0, -low / scale)));
    struct tensor y = c->out[0];
    tensor_strides_row_major(&y.shape, y.strides);
    bool direct = tensor_is_row_major(&c->out[0]);
    if (!direct) y.data = ref_scratch(c, (size_t)n);
    if (n && !y.data) return err_set(ERR_INTERNAL, "too little scratch");
    for (int64_t i = 0; i < n; i++) {
        float q = rintf(v[i] / scale) + zero;
        ((uint8_t *)y.data)[i] = (uint8_t)(q != q || q < 0 ? 0 : q > 255 ? 255 : q);
    }
    if (!direct) ref_copy_tensor(&c->out[0], &y);
    if (ref_wants(c, 1)) memcpy(c->out[1].data, &scale, sizeof scale);
    if (ref_wants(c, 2)) *(uint8_t *)c->out[2].data = (uint8_t)zero;
    return ERR_OK;
}
