/* brim's own kernels against loops written out in double precision, over drawn shapes, with every post-operation, on one and on two threads
 * (equal bits); in buffers that end where the tensor ends; when memory is refused. The whole program runs again as DNNL_MAX_CPU_ISA=AVX2.
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
#include "kernels/own/conv.h"

extern const struct kernel_class own_winograd, own_narrow, own_product, own_depthwise, own_binary, own_concat, own_softmax, own_norm;

struct conv {
    int n, ic, oc, h, w, kh, kw, pads[4]; /* top, left, bottom, right */
    int stride, dilation; /* 0: 1; depthwise if not 0 */
    bool bias;
    int which; /* < 0: post-operation -1 - which alone; else drawn */
};

static void conv_case(const struct conv *v, uint64_t *seed, struct try_node *node, struct try_case *c)
{
    *c = (struct try_case){0};
    try_init(node, OP_CONV, 11);
    try_ints(node, "kernel_shape", 2, (int64_t[]){v->kh, v->kw});
    try_ints(node, "pads", 4, (int64_t[]){v->pads[0], v->pads[1], v->pads[2], v->pads[3]});
    int64_t s = MAX(v->stride, 1), d = MAX(v->dilation, 1);
    if (v->stride) {
        try_ints(node, "strides", 2, (int64_t[]){s, s});
        try_ints(node, "dilations", 2, (int64_t[]){d, d});
        try_int(node, "group", v->ic);
    }
    c->in[0] = try_tensor(4, (int64_t[]){v->n, v->ic, v->h, v->w}, seed);
    c->in[1] = try_tensor(4, (int64_t[]){v->oc, v->stride ? 1 : v->ic, v->kh, v->kw}, seed);
    if (v->bias) c->in[2] = try_tensor(1, (int64_t[]){v->oc}, seed);
    c->constant[1] = c->constant[2] = true;
    c->out = try_tensor(4, (int64_t[]){v->n, v->oc, (v->h + v->pads[0] + v->pads[2] - (v->kh - 1) * d - 1) / s + 1,
                                          (v->w + v->pads[1] + v->pads[3] - (v->kw - 1) * d - 1) / s + 1}, seed);
    try_query(c, node, v->bias ? 3 : 2, 1);
}

static double at(const struct try_case *c, const struct conv *v, int64_t n, int64_t o, int64_t y, int64_t x)
{
    const float *in = c->in[0].data, *f = c->in[1].data, *b = c->in[2].data;
    double sum = v->bias ? (double)b[o] : 0;
    int64_t s = MAX(v->stride, 1), d = MAX(v->dilation, 1), each = v->stride ? 1 : v->ic;
    for (int64_t i = 0; i < each; i++)
        for (int64_t ky = 0; ky < v->kh; ky++)
            for (int64_t kx = 0; kx < v->kw; kx++) {
                int64_t iy = y * s + ky * d - v->pads[0], ix = x * s + kx * d - v->pads[1], from = v->stride ? o : i;
                if (iy < 0 || iy >= v->h || ix < 0 || ix >= v->w) continue;
                sum += (double)in[((n * v->ic + from) * v->h + iy) * v->w + ix] * (double)f[((o * each + i) * v->kh + ky) * v->kw + kx];
            }
    return sum;
}

static double *reference(const struct try_case *c, const struct conv *v)
{
    const int64_t *d = c->out.shape.dims;
    double *y = xnewn(double, (size_t)tensor_count(&c->out.shape)), *to = y;
    for (int64_t n = 0; n < d[0]; n++)
        for (int64_t o = 0; o < d[1]; o++)
            for (int64_t p = 0; p < d[2] * d[3]; p++) *to++ = at(c, v, n, o, p / d[3], p % d[3]);
    return y;
}

/* In buffers of exactly the right size, for sanitizers. */
static void in_tight_buffers(struct try_case *c, const char *what)
{
    struct tensor in[4] = {{0}}, out = c->out;
    struct kernel_query q = c->q;
    struct kernel_state *s = NULL;
    struct kernel_buffers b = {0};
    for (int i = 0; i < q.n_in; i++) {
        in[i] = c->in[i];
        if (!c->constant[i]) in[i].data = NULL;
        if (in[i].shape.rank == 4) tensor_strides_channels_last(&in[i].shape, in[i].strides);
    }
    tensor_strides_channels_last(&out.shape, out.strides);
    out.data = NULL;
    q.in = in;
    q.out = &out;
    assert_int_equal(c->class->prepare(&q, payer, &s), ERR_OK);
    for (int i = 0; i < q.n_in; i++) {
        size_t n = c->class->weight_bytes(s, i), raw = (size_t)tensor_count(&c->in[i].shape) * sizeof(float);
        void *p = malloc(n ? n : raw);
        if (n)
            assert_int_equal(c->class->pack(s, i, c->in[i].data, p), ERR_OK);
        else
            memcpy(p, c->in[i].data, raw);
        b.in[i] = p;
    }
    b.out[0] = malloc((size_t)tensor_count(&out.shape) * sizeof(float));
    b.scratch = malloc(c->class->scratch_bytes(s));
    if (c->class->run(s, &b)) fail_msg("%s: %s", what, err_text());
    for (int i = 0; i < q.n_in; i++) free((void *)(uintptr_t)b.in[i]);
    free(b.out[0]);
    free(b.scratch);
    c->class->free(&s);
}

static void check(const struct kernel_class *class, const struct conv *v, uint64_t *seed)
{
    struct try_node node;
    struct try_case c;
    char what[160];
    conv_case(v, seed, &node, &c);
    c.class = class;
    try_draw_posts(&c, seed, v->which);
    snprintf(what, sizeof what, "%s n%d %d->%d in %d,%d k %d,%d p %d,%d,%d,%d post %d %d", class->name, v->n, v->ic, v->oc, v->h, v->w, v->kh, v->kw,
             v->pads[0], v->pads[1], v->pads[2], v->pads[3], c.q.n_post, (int)c.q.post[0].kind);
    try_must(&c, payer, reference(&c, v), 1e-4, what);
    in_tight_buffers(&c, what);
    try_done(&c);
}

static bool here(void)
{
    if (own_lanes()) return true;
    print_message("skipped: neither AVX2 nor AVX-512 here, or not allowed\n");
    return false;
}

static int drawn(uint64_t *seed, const int *from, int n)
{
    return from[try_below(seed, n)];
}

static void winograd(void **state)
{
    (void)state;
    static const int channels[] = {8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 64, 80};
    uint64_t seed = 11;
    if (!here()) skip();
    for (int i = 0; i < 60; i++) {
        struct conv v = {.n = 1 + try_below(&seed, 2), .kh = 3, .kw = 3, .bias = try_below(&seed, 2), .which = i < TRY_POST_COUNT ? -1 - i : 0};
        v.ic = drawn(&seed, channels, ARRAY_LEN(channels));
        v.oc = drawn(&seed, channels, ARRAY_LEN(channels));
        v.h = 5 + try_below(&seed, 30);
        v.w = 5 + try_below(&seed, 30);
        for (int k = 0; k < 4; k++) v.pads[k] = try_below(&seed, 3);
        if (v.ic * v.oc < 144 || v.n * ((v.h + v.pads[0] + v.pads[2] + 1) / 4) * ((v.w + v.pads[1] + v.pads[3] + 1) / 4) < 4) continue;
        check(&own_winograd, &v, &seed);
    }
}

static void narrow(void **state)
{
    (void)state;
    uint64_t seed = 12;
    if (!here()) skip();
    for (int i = 0; i < 60; i++) {
        struct conv v = {.n = 1 + try_below(&seed, 2), .ic = 1 + try_below(&seed, 12), .oc = 1 + try_below(&seed, 4), .bias = try_below(&seed, 2),
                         .which = i < TRY_POST_COUNT ? -1 - i : 0};
        v.kh = 1 + try_below(&seed, 5);
        v.kw = 2 + try_below(&seed, 5);
        v.h = v.kh + try_below(&seed, 8);
        v.w = 40 + try_below(&seed, 160);
        for (int k = 0; k < 4; k++) v.pads[k] = try_below(&seed, 4);
        check(&own_narrow, &v, &seed);
    }
}

static void product(void **state)
{
    (void)state;
    static const int channels[] = {1, 3, 8, 13, 16, 24, 32, 48, 49, 64, 96, 160};
    uint64_t seed = 13;
    if (!here()) skip();
    for (int i = 0; i < 60; i++) {
        struct conv v = {.n = 1 + try_below(&seed, 2), .kh = 1, .kw = 1, .bias = try_below(&seed, 2), .which = i < TRY_POST_COUNT ? -1 - i : 0};
        v.ic = drawn(&seed, channels, ARRAY_LEN(channels));
        v.oc = drawn(&seed, channels, ARRAY_LEN(channels));
        v.h = 1 + try_below(&seed, 20);
        v.w = 1 + try_below(&seed, 20);
        check(&own_product, &v, &seed);
    }
}

static void depthwise(void **state)
{
    (void)state;
    uint64_t seed = 16;
    if (!here()) skip();
    for (int i = 0; i < 120; i++) {
        struct conv v = {.n = 1 + try_below(&seed, 2), .kh = 3, .kw = 3, .bias = try_below(&seed, 2), .which = i < TRY_POST_COUNT ? -1 - i : 0};
        v.ic = v.oc = 16 * (1 + try_below(&seed, 4));
        v.stride = 1 + try_below(&seed, 2);
        v.h = 3 + try_below(&seed, 10);
        v.w = 12 * v.stride + 2 + try_below(&seed, 20);
        for (int k = 0; k < 4; k++) v.pads[k] = try_below(&seed, 4);
        check(&own_depthwise, &v, &seed);
    }
}

/* ---- what runs over memory */

/* Strides: 0 row-major, 1 channels-last, 2 axes reversed. */
static void lay(struct tensor *t, int how)
{
    int64_t step = 1;
    tensor_strides_row_major(&t->shape, t->strides);
    if (how == 1 && t->shape.rank >= 3) tensor_strides_channels_last(&t->shape, t->strides);
    for (int i = 0; how == 2 && i < t->shape.rank; step *= t->shape.dims[i++]) t->strides[i] = step;
}

static double element(const struct tensor *t, const struct tensor_shape *of, int64_t i)
{
    int64_t at = 0;
    for (int k = of->rank - 1; k >= 0; i /= of->dims[k--]) {
        int own = k - (of->rank - t->shape.rank);
        if (own >= 0 && t->shape.dims[own] > 1) at += i % of->dims[k] * t->strides[own];
    }
    return (double)((const float *)t->data)[at];
}

static void run_in(const struct kernel_class *class, struct kernel_query *q, struct tensor *in, struct tensor *out)
{
    struct tensor shown[3], y = *out;
    struct kernel_state *s = NULL;
    struct kernel_buffers b = {0};
    for (int i = 0; i < q->n_in; i++) {
        shown[i] = in[i];
        shown[i].data = NULL;
        b.in[i] = in[i].data;
    }
    y.data = NULL;
    q->in = shown;
    q->out = &y;
    assert_true(class->accepts(q));
    assert_int_equal(class->prepare(q, payer, &s), ERR_OK);
    b.out[0] = out->data;
    b.scratch = malloc(class->scratch_bytes(s) + 1);
    assert_int_equal(class->run(s, &b), ERR_OK);
    free(b.scratch);
    class->free(&s);
}

static void binary(void **state)
{
    (void)state;
    static const enum op_kind kinds[] = {OP_ADD, OP_SUB, OP_MUL, OP_DIV};
    static const int64_t sizes[] = {1, 2, 3, 4, 7, 16, 40};
    uint64_t seed = 21;
    if (!here()) skip();
    for (int round = 0; round < 400; round++) {
        struct try_node node;
        int64_t d[2][4], y[4];
        struct tensor in[2], out;
        enum op_kind kind = kinds[try_below(&seed, 4)];
        for (int i = 0; i < 4; i++) {
            y[i] = sizes[try_below(&seed, ARRAY_LEN(sizes))];
            d[0][i] = try_below(&seed, 4) ? y[i] : 1;
            d[1][i] = d[0][i] == y[i] && try_below(&seed, 3) == 0 ? 1 : y[i];
        }
        if (round == 0) memcpy(d[0], (y[0] = 1, y[1] = 1, y[2] = 3, y[3] = 5000, y), sizeof y), memcpy(d[1], y, sizeof y);
        int drop = try_below(&seed, 3); /* the second has fewer axes */
        for (int i = 0; i < drop; i++) d[0][i] = y[i], d[1][i] = 1;
        try_init(&node, kind, 14);
        in[0] = try_tensor(4, d[0], &seed);
        in[1] = try_tensor(4 - drop, d[1] + drop, &seed);
        out = try_tensor(4, y, &seed);
        for (int i = 0; i < 2; i++) lay(&in[i], try_below(&seed, 3));
        lay(&out, try_below(&seed, 3));
        for (int64_t i = 0; i < tensor_count(&in[1].shape) && kind == OP_DIV; i++) ((float *)in[1].data)[i] += 2;
        int64_t n = tensor_count(&out.shape);
        for (int threads = 1; threads <= 2; threads++) {
            struct kernel_query q = {.node = &node.op, .n_in = 2, .n_out = 1, .threads = threads};
            bool relu = round & 1;
            if (relu) q.post[q.n_post++].kind = KERNEL_POST_RELU;
            run_in(&own_binary, &q, in, &out);
            for (int64_t i = 0; i < n; i++) {
                float a = (float)element(&in[0], &out.shape, i), b = (float)element(&in[1], &out.shape, i);
                float want = kind == OP_ADD ? a + b : kind == OP_SUB ? a - b : kind == OP_MUL ? a * b : a / b;
                if (relu && want < 0) want = 0;
                assert_true((float)element(&out, &out.shape, i) == want);
            }
        }
        free(in[0].data);
        free(in[1].data);
        free(out.data);
    }
}

static void concat(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 5, 16, 32, 64, 70};
    uint64_t seed = 24;
    if (!here()) skip();
    for (int round = 0; round < 300; round++) {
        struct try_node node;
        struct tensor in[3], out;
        int axis = try_below(&seed, 4), n_in = 1 + try_below(&seed, 3);
        int64_t d[4], y[4];
        for (int i = 0; i < 4; i++) y[i] = sizes[try_below(&seed, i < 2 ? 5 : 4)];
        y[axis] = 0;
        try_init(&node, OP_CONCAT, 13);
        try_int(&node, "axis", round % 2 ? axis : axis - 4);
        for (int i = 0; i < n_in; i++) {
            memcpy(d, y, sizeof d);
            y[axis] += d[axis] = sizes[try_below(&seed, ARRAY_LEN(sizes))];
            in[i] = try_tensor(4, d, &seed);
            lay(&in[i], try_below(&seed, 3));
        }
        out = try_tensor(4, y, &seed);
        lay(&out, try_below(&seed, 3));
        for (int threads = 1; threads <= 2; threads++) {
            struct kernel_query q = {.node = &node.op, .n_in = n_in, .n_out = 1, .threads = threads};
            run_in(&own_concat, &q, in, &out);
            for (int64_t i = 0; i < tensor_count(&out.shape); i++) {
                int64_t after = 1, of = 0, place, at;
                for (int k = axis + 1; k < 4; k++) after *= y[k];
                place = i / after % y[axis];
                while (place >= in[of].shape.dims[axis]) place -= in[of++].shape.dims[axis];
                at = (i / after / y[axis] * in[of].shape.dims[axis] + place) * after + i % after;
                assert_true(element(&out, &out.shape, i) == element(&in[of], &in[of].shape, at));
            }
        }
        for (int i = 0; i < n_in; i++) free(in[i].data);
        free(out.data);
    }
}

static void softmax(void **state)
{
    (void)state;
    uint64_t seed = 22;
    if (!here()) skip();
    for (int round = 0; round < 60; round++) {
        struct try_node node;
        bool channel = round % 3 == 0;
        int64_t c = 2 + try_below(&seed, 7), side = 1 + try_below(&seed, 40), d[4] = {1, channel ? c : side, side, channel ? side : c};
        struct tensor x = try_tensor(4, d, &seed), y = try_tensor(4, d, &seed);
        int axis = channel ? 1 : 3;
        try_init(&node, OP_SOFTMAX, 13);
        try_int(&node, "axis", axis);
        lay(&x, channel);
        lay(&y, channel);
        int64_t n = tensor_count(&x.shape), rows = n / c;
        for (int64_t i = 0; i < n; i++) ((float *)x.data)[i] *= round % 2 ? 60 : 3;
        for (int threads = 1; threads <= 2; threads++) {
            struct kernel_query q = {.node = &node.op, .n_in = 1, .n_out = 1, .threads = threads};
            run_in(&own_softmax, &q, &x, &y);
            for (int64_t r = 0; r < rows; r++) {
                const float *in = (const float *)x.data + r * c, *out = (const float *)y.data + r * c;
                double most = -INFINITY, sum = 0;
                for (int64_t i = 0; i < c; i++) most = fmax(most, (double)in[i]);
                for (int64_t i = 0; i < c; i++) sum += exp((double)in[i] - most);
                for (int64_t i = 0; i < c; i++) assert_true(fabs((double)out[i] - exp((double)in[i] - most) / sum) < 2e-7);
            }
        }
        free(x.data);
        free(y.data);
    }
}

static void norm(void **state)
{
    (void)state;
    uint64_t seed = 23;
    if (!here()) skip();
    for (int round = 0; round < 60; round++) {
        struct try_node node;
        int64_t c = round < 20 ? round + 1 : 1 + try_below(&seed, OWN_NORM_CHANNELS), d[4] = {1 + round % 2, c, 1 + try_below(&seed, 70), 1 + try_below(&seed, 70)};
        struct tensor in[3] = {try_tensor(4, d, &seed), try_tensor(1, &c, &seed), try_tensor(1, &c, &seed)}, y = try_tensor(4, d, &seed);
        int64_t n = tensor_count(&y.shape), rows = d[2] * d[3];
        float *first = xnewn(float, (size_t)n), *x = in[0].data;
        try_init(&node, OP_INSTANCE_NORM, 6);
        try_float(&node, "epsilon", 1e-3f);
        lay(&in[0], 1);
        lay(&y, 1);
        for (int64_t i = 0; i < n; i++) x[i] += round % 4 ? 3 : 100;
        for (int threads = 1; threads <= 2; threads++) {
            struct kernel_query q = {.node = &node.op, .n_in = 3, .n_out = 1, .threads = threads};
            run_in(&own_norm, &q, in, &y);
            if (threads == 1)
                memcpy(first, y.data, (size_t)n * sizeof *first);
            else
                assert_memory_equal(first, y.data, (size_t)n * sizeof *first);
        }
        for (int64_t k = 0; k < d[0] * c; k++) {
            double mean = 0, square = 0;
            const float *from = x + k / c * rows * c + k % c, *to = (const float *)y.data + k / c * rows * c + k % c;
            for (int64_t i = 0; i < rows; i++) mean += (double)from[i * c] / (double)rows;
            for (int64_t i = 0; i < rows; i++) square += ((double)from[i * c] - mean) * ((double)from[i * c] - mean) / (double)rows;
            for (int64_t i = 0; i < rows; i++) {
                double scale = (double)((const float *)in[1].data)[k % c], shift = (double)((const float *)in[2].data)[k % c];
                double want = ((double)from[i * c] - mean) / sqrt(square + 1e-3) * scale + shift;
                if (!(fabs((double)to[i * c] - want) < 2e-4)) fail_msg("norm of %d channels: %g, not %g", (int)c, (double)to[i * c], want);
            }
        }
        for (int i = 0; i < 3; i++) free(in[i].data);
        free(y.data);
        free(first);
    }
}

static void memory_may_be_refused(void **state)
{
    (void)state;
    static const struct kernel_class *const classes[] = {&own_winograd, &own_narrow, &own_product};
    uint64_t seed = 14;
    if (!here()) skip();
    for (size_t i = 0; i < ARRAY_LEN(classes); i++) {
        struct conv v = {.n = 1, .ic = 16, .oc = i == 1 ? 3 : 16, .h = 12, .w = 40, .kh = i == 2 ? 1 : 3, .kw = i == 2 ? 1 : 3};
        struct try_node node;
        struct try_case c;
        conv_case(&v, &seed, &node, &c);
        c.class = classes[i];
        mem_fault_at(budget, 1);
        assert_int_equal(try_run(&c, payer), ERR_NOMEM);
        mem_fault_at(budget, 0);
        assert_int_equal(try_run(&c, payer), ERR_OK);
        try_done(&c);
    }
}

/* What they must leave to others. */
static void refuses(void **state)
{
    (void)state;
    uint64_t seed = 15;
    if (!here()) skip();
    struct conv v = {.n = 1, .ic = 16, .oc = 16, .h = 12, .w = 40, .kh = 3, .kw = 3};
    struct try_node node;
    struct try_case c;
    conv_case(&v, &seed, &node, &c);
    c.class = &own_winograd;
    try_ints(&node, "strides", 2, (int64_t[]){2, 2});
    assert_int_equal(try_run(&c, payer), ERR_UNSUPPORTED);
    node.op.n_attrs--;
    try_ints(&node, "dilations", 2, (int64_t[]){2, 2});
    assert_int_equal(try_run(&c, payer), ERR_UNSUPPORTED);
    node.op.n_attrs--;
    c.constant[1] = false;
    assert_int_equal(try_run(&c, payer), ERR_UNSUPPORTED);
    try_done(&c);
}

/* NaN and infinities come out where sums have them, and nowhere else. */
static void not_finite(void **state)
{
    static const float BAD[] = {NAN, INFINITY, -INFINITY};
    (void)state;
    uint64_t seed = 12;
    if (!here()) skip();
    for (int i = 0; i < 20; i++) {
        struct conv v = {.n = 1, .ic = 8 + try_below(&seed, 30), .oc = 18 + try_below(&seed, 30), .h = 9 + try_below(&seed, 12), .w = 9 + try_below(&seed, 12), .kh = 3,
                         .kw = 3, .pads = {1, 1, try_below(&seed, 2), 1}, .bias = i & 1};
        struct try_node node;
        struct try_case c;
        conv_case(&v, &seed, &node, &c);
        c.class = &own_winograd;
        for (int k = 0; k < 1 + i % 3; k++) ((float *)c.in[0].data)[try_below(&seed, (int)tensor_count(&c.in[0].shape))] = BAD[(i + k) % ARRAY_LEN(BAD)];
        double *want = reference(&c, &v);
        assert_int_equal(try_run(&c, payer), ERR_OK);
        const float *got = c.out.data;
        int64_t bad = 0, n = tensor_count(&c.out.shape);
        for (int64_t k = 0; k < n; k++) {
            bad += !isfinite(want[k]);
            if (isnan(want[k]))
                assert_true(isnan(got[k]));
            else if (isinf(want[k]))
                assert_true((double)got[k] == want[k]);
            else if (fabs((double)got[k] - want[k]) > 1e-4 * fmax(1, fabs(want[k])))
                fail_msg("%d: [%d] is %g, expected %g", i, (int)k, (double)got[k], want[k]);
        }
        assert_true(bad < n / 2);
        free(want);
        try_done(&c);
    }
}

static void again_on_older_processors(void **state)
{
    (void)state;
    again_on("AVX2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(again_on_older_processors), /* first: no thread must exist at the fork */
        cmocka_unit_test(winograd),
        cmocka_unit_test(narrow),
        cmocka_unit_test(product),
        cmocka_unit_test(depthwise),
        cmocka_unit_test(binary),
        cmocka_unit_test(concat),
        cmocka_unit_test(softmax),
        cmocka_unit_test(norm),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(memory_may_be_refused),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, start, end);
}
