/* bf16 through the oneDNN classes against loops in double precision on the same rounded numbers: convolutions (every post-operation, groups, strides,
 * pads, dilation), products, and what only lets bf16 pass (pooling, functions, sums, casts). Results in f32 differ by the order of sums alone; results in bf16 by
 * one rounding. The scratchpad and the padding of packed weights are full of large numbers beforehand, so that reading what nobody wrote shows.
 *
 * Where the processor has no bf16, only this is tested: no class takes it with more than reference code, and kernels_have_bf16 says so.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/onednn/again.h"
#include "kernels/onednn/try.h"

/* Round to nearest, ties to even. */
static uint16_t half_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static float float_of(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* One operator: its inputs row-major in f32, already rounded where they are given as bf16. */
struct half_case {
    struct try_node node;
    struct kernel_query q;
    struct tensor in[KERNEL_MAX_IN], out; /* data of `in`: f32 numbers; dtype: how the kernel gets them */
    bool constant[KERNEL_MAX_IN];
    bool round_weight;
    float *got;
    char impl[64], format[96];
    size_t weight_bytes;
};

static struct tensor drawn(int rank, const int64_t *dims, enum tensor_dtype as, bool rounded, uint64_t *seed)
{
    struct tensor t = try_tensor(rank, dims, seed);
    float *f = t.data;
    for (int64_t i = 0; rounded && i < tensor_count(&t.shape); i++) f[i] = float_of(half_of(f[i]));
    t.dtype = as;
    return t;
}

static void half_done(struct half_case *c)
{
    for (int i = 0; i < c->q.n_in; i++) free(c->in[i].data);
    free(c->got);
}

/* Row-major place k of `t` in its own strides. */
static int64_t place(const struct tensor *t, int64_t k)
{
    int64_t at = 0;
    for (int i = t->shape.rank - 1; i >= 0; i--) {
        at += k % t->shape.dims[i] * t->strides[i];
        k /= t->shape.dims[i];
    }
    return at;
}

static void *laid_out(const struct tensor *t, const float *from)
{
    int64_t n = tensor_count(&t->shape);
    void *to = aligned_alloc(64, ((size_t)n * tensor_dtype_size(t->dtype) + 127) / 64 * 64);
    for (int64_t k = 0; k < n && from; k++)
        if (t->dtype == TENSOR_BF16) ((uint16_t *)to)[place(t, k)] = half_of(from[k]);
        else ((float *)to)[place(t, k)] = from[k];
    return to;
}

static void *filled(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    memset(p, 0x7f, (bytes + 127) / 64 * 64);
    return p;
}

static err execute(struct half_case *c, const struct kernel_class *k, struct kernel_state *s, const struct kernel_layouts *l, const struct tensor *in,
                   const struct tensor *out)
{
    struct kernel_buffers b = {0};
    void *own[KERNEL_MAX_IN] = {0};
    err e = ERR_OK;
    snprintf(c->impl, sizeof c->impl, "%s", k->describe(s));
    for (int i = 0; i < c->q.n_in && !e; i++) {
        if (c->in[i].dtype == TENSOR_NONE) continue;
        if (l->in[i] == KERNEL_LAYOUT_PACKED) {
            c->weight_bytes = k->weight_bytes(s, i);
            own[i] = filled(c->weight_bytes);
            snprintf(c->format, sizeof c->format, "%s", k->weight_format(s, i));
            e = k->pack(s, i, c->in[i].data, own[i]);
        } else
            own[i] = laid_out(&in[i], c->in[i].data);
        b.in[i] = own[i];
    }
    b.out[0] = laid_out(out, NULL);
    b.scratch = filled(k->scratch_bytes(s));
    for (int run = 0; run < 2 && !e; run++) e = k->run(s, &b); /* twice: nothing may be left over */
    for (int64_t i = 0; i < tensor_count(&out->shape); i++)
        c->got[i] = out->dtype == TENSOR_BF16 ? float_of(((uint16_t *)b.out[0])[place(out, i)]) : ((float *)b.out[0])[place(out, i)];
    for (int i = 0; i < KERNEL_MAX_IN; i++) free(own[i]);
    free(b.out[0]);
    free(b.scratch);
    return e;
}

/* The first oneDNN class that takes it, in the layouts that it wants. */
static err half_run(struct half_case *c, int threads)
{
    err e = ERR_UNSUPPORTED;
    for (int i = 0; kernels_onednn_classes[i]; i++) {
        const struct kernel_class *k = kernels_onednn_classes[i];
        struct kernel_state *s = NULL;
        struct kernel_layouts l = {{0}, {0}};
        struct tensor in[KERNEL_MAX_IN], out = c->out;
        memcpy(in, c->in, sizeof in);
        for (int n = 0; n < c->q.n_in; n++)
            if (!c->constant[n]) in[n].data = NULL;
        c->q.node = &c->node.op;
        c->q.n_out = 1;
        c->q.in = in;
        c->q.out = &out;
        c->q.threads = threads;
        if (!k->accepts(&c->q)) continue;
        k->layouts(&c->q, &l);
        for (int n = 0; n < c->q.n_in; n++)
            if (!c->constant[n] && l.in[n] == KERNEL_LAYOUT_CHANNELS_LAST) tensor_strides_channels_last(&in[n].shape, in[n].strides);
        if (l.out[0] == KERNEL_LAYOUT_CHANNELS_LAST) tensor_strides_channels_last(&out.shape, out.strides);
        if ((e = k->prepare(&c->q, payer, &s)) == ERR_UNSUPPORTED) continue;
        if (!e) e = execute(c, k, s, &l, in, &out);
        k->free(&s);
        return e;
    }
    return e;
}

static bool is_product(const struct half_case *c)
{
    return c->node.op.kind == OP_GEMM || c->node.op.kind == OP_MATMUL;
}

static double after(const struct half_case *c, double x, int64_t at)
{
    const struct tensor_shape *y = &c->out.shape;
    int64_t channel = is_product(c) ? at % y->dims[y->rank - 1] : at / (y->dims[2] * y->dims[3]) % y->dims[1];
    for (int i = 0; i < c->q.n_post; i++) {
        const struct kernel_post *p = &c->q.post[i];
        double a = (double)p->alpha, b = (double)p->beta;
        switch (p->kind) {
        case KERNEL_POST_RELU: x = x > 0 ? x : 0; break;
        case KERNEL_POST_LEAKY_RELU: x = x < 0 ? a * x : x; break;
        case KERNEL_POST_CLIP: x = fmin(fmax(x, a), b); break;
        case KERNEL_POST_SIGMOID: x = 1 / (1 + exp(-x)); break;
        case KERNEL_POST_SILU: x = x / (1 + exp(-x)); break;
        case KERNEL_POST_HARD_SIGMOID: x = fmax(0, fmin(1, a * x + b)); break;
        case KERNEL_POST_HARD_SWISH: x *= fmax(0, fmin(1, x / 6 + 0.5)); break;
        case KERNEL_POST_TANH: x = tanh(x); break;
        case KERNEL_POST_ELU: x = x < 0 ? a * (exp(x) - 1) : x; break;
        case KERNEL_POST_ADD: x += (double)((float *)c->in[p->input].data)[at]; break;
        case KERNEL_POST_SCALE: x *= (double)((float *)c->in[p->input].data)[channel]; break;
        }
    }
    return x;
}

/* `want` is before post-operations; freed here. False: no class takes it. */
static bool near_enough(struct half_case *c, double *want, const char *what)
{
    int64_t n = tensor_count(&c->out.shape);
    double one_rounding = c->out.dtype == TENSOR_BF16 ? 1.0 / 256 + 1e-4 : 1e-4;
    bool taken = true;
    c->got = xnewn(float, (size_t)n);
    for (int threads = 1; threads <= 2 && taken; threads++) {
        err e = half_run(c, threads);
        if (e == ERR_UNSUPPORTED) taken = false;
        else if (e) fail_msg("%s: %s", what, err_text());
        for (int64_t i = 0; i < n && taken; i++) {
            double w = after(c, want[i], i);
            if (!(fabs((double)c->got[i] - w) <= one_rounding * fabs(w) + 1e-4))
                fail_msg("%s (%s): number %lld of %lld is %g, not %g", what, c->impl, (long long)i, (long long)n, (double)c->got[i], w);
        }
    }
    free(want);
    return taken;
}

static void add_post(struct half_case *c, struct kernel_post p, uint64_t *seed)
{
    if (p.kind == KERNEL_POST_ADD) {
        p.input = c->q.n_in;
        c->in[c->q.n_in++] = drawn(c->out.shape.rank, c->out.shape.dims, c->out.dtype, c->out.dtype == TENSOR_BF16, seed);
    }
    if (p.kind == KERNEL_POST_SCALE && c->q.n_post) return; /* always the first */
    if (p.kind == KERNEL_POST_SCALE) {
        const struct tensor_shape *y = &c->out.shape;
        p.input = c->q.n_in;
        c->constant[p.input] = true;
        c->in[c->q.n_in++] = is_product(c) ? drawn(1, &y->dims[y->rank - 1], TENSOR_F32, false, seed)
                                           : drawn(3, (int64_t[]){y->dims[1], 1, 1}, TENSOR_F32, false, seed);
    }
    c->q.post[c->q.n_post++] = p;
}

/* ---- convolutions of two axes */

struct conv {
    int n, c_in, c_out, group, h, w, k[2], stride[2], dilation[2], pads[4];
    bool bias;
};

static double *conv_wanted(const struct half_case *c, const struct conv *v)
{
    const int64_t oh = c->out.shape.dims[2], ow = c->out.shape.dims[3];
    const float *x = c->in[0].data, *f = c->in[1].data, *b = v->bias ? c->in[2].data : NULL;
    double *y = xnewn(double, (size_t)tensor_count(&c->out.shape));
    int cg = v->c_in / v->group, og = v->c_out / v->group;
    for (int64_t at = 0; at < tensor_count(&c->out.shape); at++) {
        int64_t o = at / (oh * ow) % v->c_out, n = at / (oh * ow) / v->c_out, r = at / ow % oh, s = at % ow;
        double sum = b ? (double)b[o] : 0;
        for (int i = 0; i < cg; i++)
            for (int t = 0; t < v->k[0] * v->k[1]; t++) {
                int64_t p = r * v->stride[0] + t / v->k[1] * v->dilation[0] - v->pads[0], q = s * v->stride[1] + t % v->k[1] * v->dilation[1] - v->pads[1];
                if (p < 0 || q < 0 || p >= v->h || q >= v->w) continue;
                sum += (double)x[((n * v->c_in + o / og * cg + i) * v->h + p) * v->w + q] * (double)float_of(half_of(f[(o * cg + i) * v->k[0] * v->k[1] + t]));
            }
        y[at] = sum;
    }
    return y;
}

static void conv_make(struct half_case *c, const struct conv *v, enum tensor_dtype to, uint64_t *seed)
{
    struct op_window w;
    memset(c, 0, sizeof *c);
    try_init(&c->node, OP_CONV, 11);
    try_ints(&c->node, "kernel_shape", 2, (int64_t[]){v->k[0], v->k[1]});
    try_ints(&c->node, "strides", 2, (int64_t[]){v->stride[0], v->stride[1]});
    try_ints(&c->node, "dilations", 2, (int64_t[]){v->dilation[0], v->dilation[1]});
    try_ints(&c->node, "pads", 4, (int64_t[]){v->pads[0], v->pads[1], v->pads[2], v->pads[3]});
    try_int(&c->node, "group", v->group);
    c->in[0] = drawn(4, (int64_t[]){v->n, v->c_in, v->h, v->w}, TENSOR_BF16, true, seed);
    c->in[1] = drawn(4, (int64_t[]){v->c_out, v->c_in / v->group, v->k[0], v->k[1]}, TENSOR_F32, false, seed);
    if (v->bias) c->in[2] = drawn(1, (int64_t[]){v->c_out}, TENSOR_F32, false, seed);
    c->constant[1] = true;
    c->constant[2] = v->bias;
    c->q.n_in = v->bias ? 3 : 2;
    assert_int_equal(op_window(&c->node.op, &c->in[0].shape, &c->in[1].shape, &w), ERR_OK);
    struct tensor_shape y = tensor_shape_of(4, (int64_t[]){v->n, v->c_out, w.out[0], w.out[1]});
    c->out = tensor_view(to, &y, NULL);
}

static bool conv_holds(const struct conv *v, enum tensor_dtype to, const struct kernel_post *post, int n_post, uint64_t *seed)
{
    struct half_case c;
    char what[200];
    conv_make(&c, v, to, seed);
    for (int i = 0; i < n_post; i++) add_post(&c, post[i], seed);
    snprintf(what, sizeof what, "n%d %d->%d g%d %dx%d k %d,%d s %d,%d d %d,%d p %d,%d,%d,%d bias %d to %s, posts %d %d", v->n, v->c_in, v->c_out, v->group, v->h,
             v->w, v->k[0], v->k[1], v->stride[0], v->stride[1], v->dilation[0], v->dilation[1], v->pads[0], v->pads[1], v->pads[2], v->pads[3], v->bias,
             to == TENSOR_BF16 ? "bf16" : "f32", n_post ? (int)post[0].kind : 0, n_post > 1 ? (int)post[1].kind : 0);
    bool taken = near_enough(&c, conv_wanted(&c, v), what);
    if (taken) {
        if (strncmp(c.format, "bf16:", 5)) fail_msg("%s: weights are packed as %s", what, c.format);
        if (v->c_in % 64 == 0 && v->c_out % 64 == 0 && v->group == 1) assert_int_equal(c.weight_bytes, 2 * tensor_count(&c.in[1].shape));
    } else
        print_message("# not taken: %s\n", what);
    half_done(&c);
    return taken;
}

static void every_post_operation(void **state)
{
    (void)state;
    if (!kernels_have_bf16()) skip();
    static const struct conv KINDS[] = {
        {1, 32, 48, 1, 20, 21, {1, 1}, {1, 1}, {1, 1}, {0}, true},        {1, 16, 24, 1, 25, 25, {3, 3}, {2, 2}, {1, 1}, {1, 1, 1, 1}, true},
        {1, 3, 24, 1, 51, 50, {3, 3}, {2, 2}, {1, 1}, {0, 0, 1, 1}, true}, {1, 12, 16, 1, 26, 26, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, true},
        {1, 64, 64, 1, 13, 13, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, false}, {1, 58, 58, 1, 20, 20, {1, 1}, {1, 1}, {1, 1}, {0}, true},
        {1, 64, 64, 4, 10, 10, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, true},  {1, 58, 58, 58, 20, 20, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, true},
    };
    uint64_t seed = 1;
    for (size_t k = 0; k < ARRAY_LEN(KINDS); k++)
        for (int p = 0; p < TRY_POST_COUNT; p++)
            for (int half = 0; half < 2; half++) {
                bool taken = conv_holds(&KINDS[k], half ? TENSOR_BF16 : TENSOR_F32, &TRY_POSTS[p], 1, &seed);
                if (KINDS[k].group == 1) assert_true(taken);
            }
    /* a residual before and after the function, as networks have it */
    for (size_t k = 0; k < ARRAY_LEN(KINDS); k++)
        for (int half = 0; half < 2; half++) {
            const struct kernel_post add = {.kind = KERNEL_POST_ADD}, relu = {.kind = KERNEL_POST_RELU}, silu = {.kind = KERNEL_POST_SILU};
            conv_holds(&KINDS[k], half ? TENSOR_BF16 : TENSOR_F32, (struct kernel_post[]){add, relu}, 2, &seed);
            conv_holds(&KINDS[k], half ? TENSOR_BF16 : TENSOR_F32, (struct kernel_post[]){silu, add}, 2, &seed);
        }
}

static void drawn_convolutions(void **state)
{
    static const int CHANNELS[] = {1, 3, 4, 7, 8, 12, 16, 17, 24, 32, 40, 48, 64, 96};
    uint64_t seed = 2;
    int taken = 0, plain = 0, plain_taken = 0;
    (void)state;
    if (!kernels_have_bf16()) skip();
    for (int i = 0; i < 300; i++) {
        struct conv v = {.n = 1 + try_below(&seed, 2), .group = 1, .bias = try_below(&seed, 2) != 0};
        v.c_in = CHANNELS[try_below(&seed, ARRAY_LEN(CHANNELS))];
        v.c_out = CHANNELS[try_below(&seed, ARRAY_LEN(CHANNELS))];
        int kind = try_below(&seed, 5), size[2];
        if (kind == 0) v.group = v.c_out = v.c_in;
        if (kind == 1) {
            v.group = 2 + 2 * try_below(&seed, 2);
            v.c_in = v.group * (1 + try_below(&seed, 12));
            v.c_out = v.group * (1 + try_below(&seed, 12));
        }
        for (int a = 0; a < 2; a++) {
            v.k[a] = 1 + try_below(&seed, 4);
            v.stride[a] = 1 + try_below(&seed, 2);
            v.dilation[a] = try_below(&seed, 4) ? 1 : 2;
            int cover = (v.k[a] - 1) * v.dilation[a] + 1;
            size[a] = cover + try_below(&seed, 14);
            v.pads[a] = try_below(&seed, cover);
            v.pads[2 + a] = try_below(&seed, cover);
        }
        v.h = size[0];
        v.w = size[1];
        struct kernel_post posts[2] = {TRY_POSTS[try_below(&seed, TRY_POST_COUNT)], TRY_POSTS[try_below(&seed, TRY_POST_COUNT)]};
        int n_post = try_below(&seed, 3);
        if (n_post == 2 && posts[0].kind == KERNEL_POST_ADD && posts[1].kind == KERNEL_POST_ADD) n_post = 1;
        bool ok = conv_holds(&v, try_below(&seed, 2) ? TENSOR_BF16 : TENSOR_F32, posts, n_post, &seed);
        taken += ok;
        plain += v.group == 1;
        plain_taken += ok && v.group == 1;
    }
    print_message("# %d of 300 convolutions taken, %d of %d in one group\n", taken, plain_taken, plain);
    assert_true(plain_taken >= plain * 9 / 10); /* the rest: two functions that oneDNN takes for one */
}

/* ---- products with constant weights */

static void products(void **state)
{
    uint64_t seed = 3;
    (void)state;
    if (!kernels_have_bf16()) skip();
    for (int i = 0; i < 80; i++) {
        struct half_case c = {0};
        int64_t m = i % 4 ? 1 + try_below(&seed, 20) : 1, k = 1 + try_below(&seed, 100), n = 1 + try_below(&seed, 90);
        bool gemm = try_below(&seed, 2), tb = gemm && try_below(&seed, 2), bias = gemm && try_below(&seed, 2);
        enum tensor_dtype to = try_below(&seed, 2) ? TENSOR_BF16 : TENSOR_F32;
        try_init(&c.node, gemm ? OP_GEMM : OP_MATMUL, 13);
        if (gemm) try_int(&c.node, "transB", tb);
        c.in[0] = drawn(2, (int64_t[]){m, k}, TENSOR_BF16, true, &seed);
        c.in[1] = drawn(2, tb ? (int64_t[]){n, k} : (int64_t[]){k, n}, TENSOR_F32, false, &seed);
        if (bias) c.in[2] = drawn(1, &n, TENSOR_F32, false, &seed);
        c.constant[1] = true;
        c.constant[2] = bias;
        c.q.n_in = bias ? 3 : 2;
        struct tensor_shape y = tensor_shape_of(2, (int64_t[]){m, n});
        c.out = tensor_view(to, &y, NULL);
        if (try_below(&seed, 2)) add_post(&c, TRY_POSTS[try_below(&seed, TRY_POST_COUNT)], &seed);
        double *want = xnewn(double, (size_t)(m * n));
        const float *a = c.in[0].data, *b = c.in[1].data;
        for (int64_t at = 0; at < m * n; at++) {
            want[at] = bias ? (double)((float *)c.in[2].data)[at % n] : 0;
            for (int64_t t = 0; t < k; t++) want[at] += (double)a[at / n * k + t] * (double)float_of(half_of(tb ? b[at % n * k + t] : b[t * n + at % n]));
        }
        char what[100];
        snprintf(what, sizeof what, "product %lldx%lldx%lld gemm %d transB %d bias %d to %d post %d", (long long)m, (long long)k, (long long)n, gemm, tb, bias,
                 (int)to, (int)c.q.post[0].kind);
        if (!near_enough(&c, want, what)) fail_msg("%s: not taken: %s", what, err_text());
        assert_int_equal(strncmp(c.format, "bf16:", 5), 0);
        half_done(&c);
    }
}

/* ---- casts: exactly the rounding that bf16 has, infinities and NaN too */

static void casts(void **state)
{
    static const float HARD[] = {0, -0.0f, 1, -1, 1.00390625f, 1.01171875f, 3.3895314e38f, 3.4e38f, INFINITY, -INFINITY, 1e-40f, 65504};
    uint64_t seed = 4;
    (void)state;
    if (!kernels_have_bf16()) skip();
    for (int back = 0; back < 2; back++) {
        struct half_case c = {0};
        try_init(&c.node, OP_CAST, 13);
        try_int(&c.node, "to", back ? TENSOR_F32 : TENSOR_BF16);
        c.in[0] = drawn(4, (int64_t[]){1, 5, 7, 9}, back ? TENSOR_BF16 : TENSOR_F32, back, &seed);
        for (size_t i = 0; i < ARRAY_LEN(HARD) && !back; i++) ((float *)c.in[0].data)[3 * i] = HARD[i];
        c.q.n_in = 1;
        c.out = tensor_view(back ? TENSOR_F32 : TENSOR_BF16, &c.in[0].shape, NULL);
        c.got = xnewn(float, (size_t)tensor_count(&c.out.shape));
        assert_int_equal(half_run(&c, 1), ERR_OK);
        for (int64_t i = 0; i < tensor_count(&c.out.shape); i++) {
            float x = ((float *)c.in[0].data)[i], want = float_of(half_of(x));
            if (memcmp(&want, &c.got[i], sizeof want) && !(fabsf(x) < 1.2e-38f)) fail_msg("%a becomes %a, not %a", (double)x, (double)c.got[i], (double)want);
        }
        half_done(&c);
    }
}

/* ---- what lets bf16 pass: nothing gained but that no cast stands between */

static double passed(enum op_kind kind, const float *x, const float *y, int64_t at)
{
    int64_t r = at / 5 % 4, c = at % 5, plane = at / 20; /* of the pooled picture, 4 x 5 from 8 x 10 */
    const float *p = x + plane * 80 + r * 20 + c * 2;
    switch (kind) {
    case OP_RELU: return fmax((double)x[at], 0);
    case OP_SIGMOID: return 1 / (1 + exp(-(double)x[at]));
    case OP_ADD: return (double)x[at] + (double)y[at];
    case OP_MUL: return (double)x[at] * (double)y[at];
    case OP_MAX_POOL: return fmax(fmax((double)p[0], (double)p[1]), fmax((double)p[10], (double)p[11]));
    default: return ((double)p[0] + (double)p[1] + (double)p[10] + (double)p[11]) / 4;
    }
}

static void what_follows(void **state)
{
    static const enum op_kind KINDS[] = {OP_RELU, OP_SIGMOID, OP_ADD, OP_MUL, OP_MAX_POOL, OP_AVERAGE_POOL};
    uint64_t seed = 6;
    (void)state;
    if (!kernels_have_bf16()) skip();
    for (size_t i = 0; i < ARRAY_LEN(KINDS); i++) {
        struct half_case c = {0};
        bool pool = KINDS[i] == OP_MAX_POOL || KINDS[i] == OP_AVERAGE_POOL, two = KINDS[i] == OP_ADD || KINDS[i] == OP_MUL;
        try_init(&c.node, KINDS[i], 13);
        if (pool) {
            try_ints(&c.node, "kernel_shape", 2, (int64_t[]){2, 2});
            try_ints(&c.node, "strides", 2, (int64_t[]){2, 2});
        }
        for (int k = 0; k < 1 + two; k++) c.in[k] = drawn(4, (int64_t[]){1, 24, 8, 10}, TENSOR_BF16, true, &seed);
        c.q.n_in = 1 + two;
        struct tensor_shape y = tensor_shape_of(4, pool ? (int64_t[]){1, 24, 4, 5} : (int64_t[]){1, 24, 8, 10});
        c.out = tensor_view(TENSOR_BF16, &y, NULL);
        double *want = xnewn(double, (size_t)tensor_count(&y));
        for (int64_t k = 0; k < tensor_count(&y); k++) want[k] = passed(KINDS[i], c.in[0].data, c.in[1].data, k);
        if (!near_enough(&c, want, op_name(KINDS[i]))) fail_msg("%s: not taken: %s", op_name(KINDS[i]), err_text());
        half_done(&c);
    }
}

/* What has no bf16 must not be taken: reference code would be a hundred times slower than f32. */
static void refused_without(void **state)
{
    (void)state;
    if (kernels_have_bf16()) skip();
    const struct conv v = {1, 64, 64, 1, 40, 40, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, true};
    struct half_case c;
    uint64_t seed = 5;
    conv_make(&c, &v, TENSOR_F32, &seed);
    c.got = xnewn(float, (size_t)tensor_count(&c.out.shape));
    err e = half_run(&c, 1);
    if (e != ERR_UNSUPPORTED) print_message("# taken by %s\n", c.impl);
    assert_int_equal(e, ERR_UNSUPPORTED);
    half_done(&c);
}

static void again_on_older_processors(void **state)
{
    (void)state;
    again_on("AVX2"); /* without any */
    again_on("AVX512_CORE_BF16"); /* without AMX */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(again_on_older_processors), /* first: no thread must exist at the fork */
        cmocka_unit_test(every_post_operation), cmocka_unit_test(drawn_convolutions), cmocka_unit_test(products), cmocka_unit_test(casts),
        cmocka_unit_test(what_follows),
        cmocka_unit_test(refused_without),
    };
    return cmocka_run_group_tests(tests, start, end);
}
