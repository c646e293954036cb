/* Every oneDNN class against loops written out in double precision, over many drawn shapes and attributes, in the
 * layouts the planner would choose, on one and on two threads (equal bits). The whole program runs again as
 * DNNL_MAX_CPU_ISA=AVX2, the only way to change what oneDNN believes of the processor. SPDX-License-Identifier:
 * Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/onednn/again.h"
#include "kernels/onednn/try.h"

/* ---- convolution */

struct conv {
    int space, n, c_in, c_out, group;
    int64_t size[3], kernel[3], stride[3], dilation[3], pads[6];
    bool bias, transposed;
    int which; /* < 0: post-operation -1 - which alone; else drawn */
};

static void conv_node(const struct conv *v, struct try_node *n)
{
    try_init(n, v->transposed ? OP_CONV_TRANSPOSE : OP_CONV, 11);
    try_ints(n, "kernel_shape", v->space, v->kernel);
    try_ints(n, "strides", v->space, v->stride);
    try_ints(n, "dilations", v->space, v->dilation);
    try_ints(n, "pads", 2 * v->space, v->pads);
    try_int(n, "group", v->group);
}

/* One step from input place to output place, in whichever direction; false if it falls outside. Sizes of 3 axes. */
struct walk {
    int64_t in[3], out[3], k[3], stride[3], dilation[3], pad[3];
};

static struct walk walk_of(const struct op_window *w)
{
    struct walk r;
    for (int i = 0; i < 3; i++) {
        int a = i - (3 - w->n);
        r.in[i] = a < 0 ? 1 : w->in[a];
        r.out[i] = a < 0 ? 1 : w->out[a];
        r.k[i] = a < 0 ? 1 : w->kernel[a];
        r.stride[i] = a < 0 ? 1 : w->stride[a];
        r.dilation[i] = a < 0 ? 1 : w->dilation[a];
        r.pad[i] = a < 0 ? 0 : w->pad_begin[a];
    }
    return r;
}

/* For window place t of output place o: the input place, or -1. Numbers are flat over three axes. */
static int64_t input_place(const struct walk *w, int64_t o, int64_t t)
{
    int64_t p = 0, oo[3], tt[3];
    for (int i = 2; i >= 0; i--) {
        oo[i] = o % w->out[i];
        o /= w->out[i];
        tt[i] = t % w->k[i];
        t /= w->k[i];
    }
    for (int i = 0; i < 3; i++) {
        int64_t x = oo[i] * w->stride[i] + tt[i] * w->dilation[i] - w->pad[i];
        if (x < 0 || x >= w->in[i]) return -1;
        p = p * w->in[i] + x;
    }
    return p;
}

static int64_t volume(const int64_t *v)
{
    return v[0] * v[1] * v[2];
}

static double *conv_reference(const struct try_case *c, const struct conv *v, const struct op_window *ow)
{
    struct walk w = walk_of(ow);
    int64_t taps = volume(w.k), places = volume(w.out), from = volume(w.in), cg = v->c_in / v->group,
            og = v->c_out / v->group;
    double *y = xnewn(double, (size_t)tensor_count(&c->out.shape));
    const float *x = c->in[0].data, *f = c->in[1].data, *b = v->bias ? c->in[2].data : NULL;
    for (int64_t n = 0; n < v->n; n++)
        for (int64_t o = 0; o < v->c_out; o++)
            for (int64_t p = 0; p < places; p++) {
                double sum = b ? (double)b[o] : 0;
                for (int64_t i = 0; i < cg; i++)
                    for (int64_t t = 0; t < taps; t++) {
                        int64_t at = input_place(&w, p, t);
                        if (at < 0) continue;
                        sum += (double)x[(n * v->c_in + o / og * cg + i) * from + at] *
                               (double)f[(o * cg + i) * taps + t];
                    }
                y[(n * v->c_out + o) * places + p] = sum;
            }
    return y;
}

/* The same windows with the roles of input and output exchanged. */
static double *deconv_reference(const struct try_case *c, const struct conv *v, const struct op_window *ow)
{
    struct walk w = walk_of(ow), back = w;
    memcpy(back.in, w.out, sizeof w.out);
    memcpy(back.out, w.in, sizeof w.in);
    int64_t taps = volume(w.k), places = volume(w.out), from = volume(w.in), cg = v->c_in / v->group,
            og = v->c_out / v->group;
    double *y = xnewn(double, (size_t)tensor_count(&c->out.shape));
    const float *x = c->in[0].data, *f = c->in[1].data, *b = v->bias ? c->in[2].data : NULL;
    for (int64_t i = 0; b && i < tensor_count(&c->out.shape); i++) y[i] = (double)b[i / places % v->c_out];
    for (int64_t n = 0; n < v->n; n++)
        for (int64_t i = 0; i < v->c_in; i++)
            for (int64_t p = 0; p < from; p++)
                for (int64_t t = 0; t < taps; t++) {
                    int64_t at = input_place(&back, p, t);
                    for (int64_t o = 0; at >= 0 && o < og; o++)
                        y[(n * v->c_out + i / cg * og + o) * places + at] +=
                            (double)x[(n * v->c_in + i) * from + p] * (double)f[(i * og + o) * taps + t];
                }
    return y;
}

/* False if the class does not take it. */
static bool conv_try(const struct conv *v, uint64_t *seed, char *impl)
{
    struct try_node node;
    struct try_case c = {0};
    struct op_window w;
    int64_t xd[5] = {v->n, v->c_in}, wd[5] = {v->c_out, v->c_in / v->group}, yd[5] = {v->n, v->c_out};
    if (v->transposed) {
        wd[0] = v->c_in;
        wd[1] = v->c_out / v->group;
    }
    memcpy(xd + 2, v->size, (size_t)v->space * sizeof *xd);
    memcpy(wd + 2, v->kernel, (size_t)v->space * sizeof *wd);
    conv_node(v, &node);
    c.in[0] = try_tensor(v->space + 2, xd, seed);
    c.in[1] = try_tensor(v->space + 2, wd, seed);
    c.constant[1] = c.constant[2] = true;
    if (v->bias) c.in[2] = try_tensor(1, yd + 1, seed);
    assert_int_equal(op_window(&node.op, &c.in[0].shape, &c.in[1].shape, &w), ERR_OK);
    memcpy(yd + 2, w.out, (size_t)v->space * sizeof *yd);
    c.out = try_tensor(v->space + 2, yd, seed);
    try_query(&c, &node, v->bias ? 3 : 2, 1);
    try_draw_posts(&c, seed, v->which);
    char what[200];
    snprintf(what, sizeof what,
             "%s %d axes n%d %d->%d g%d in %d,%d k %d,%d s %d,%d d %d p %d,%d-%d,%d posts %d: %d %d",
             v->transposed ? "deconv" : "conv", v->space, v->n, v->c_in, v->c_out, v->group, (int)v->size[0],
             (int)v->size[1], (int)v->kernel[0], (int)v->kernel[1], (int)v->stride[0], (int)v->stride[1],
             (int)v->dilation[0], (int)v->pads[0], (int)v->pads[1], (int)v->pads[v->space],
             (int)v->pads[v->space + 1], c.q.n_post, (int)c.q.post[0].kind, (int)c.q.post[1].kind);
    bool ok =
        try_check(&c, payer, v->transposed ? deconv_reference(&c, v, &w) : conv_reference(&c, v, &w), 1e-4, what);
    if (!ok) print_message("# not taken: %s: %s\n", what, err_text());
    if (impl) memcpy(impl, c.impl, sizeof c.impl);
    try_done(&c);
    return ok;
}

static struct conv draw_conv(uint64_t *seed, bool transposed)
{
    static const int channels[] = {1, 3, 4, 7, 8, 16, 17, 24, 32, 40, 48, 64, 96};
    struct conv v = {.space = 1 + try_below(seed, 3),
                     .n = 1 + try_below(seed, 2),
                     .transposed = transposed,
                     .bias = try_below(seed, 2) != 0};
    if (try_below(seed, 3)) v.space = 2;
    int most = v.space == 3 ? 6 : 14;
    v.c_in = channels[try_below(seed, ARRAY_LEN(channels))];
    v.c_out = channels[try_below(seed, ARRAY_LEN(channels))];
    v.group = 1;
    int kind = try_below(seed, 4);
    if (kind == 0) v.group = v.c_out = v.c_in; /* depthwise */
    if (kind == 1) {
        v.group = 2 + 2 * try_below(seed, 2);
        v.c_in = v.group * (1 + try_below(seed, 12));
        v.c_out = v.group * (1 + try_below(seed, 12));
    }
    for (int i = 0; i < v.space; i++) {
        v.kernel[i] = 1 + try_below(seed, 3);
        v.stride[i] = 1 + try_below(seed, 2);
        v.dilation[i] = try_below(seed, 4) ? 1 : 2;
        int cover = (int)((v.kernel[i] - 1) * v.dilation[i] + 1);
        v.size[i] = cover + try_below(seed, most);
        v.pads[i] = try_below(seed, cover);
        v.pads[v.space + i] = try_below(seed, cover);
    }
    return v;
}

static void convolutions(void **state)
{
    (void)state;
    uint64_t seed = 1;
    int taken = 0;
    for (int i = 0; i < 400; i++) {
        struct conv v = draw_conv(&seed, false);
        taken += conv_try(&v, &seed, NULL);
    }
    print_message("# %d of 400 convolutions taken\n", taken);
    assert_true(taken >= 396); /* not: two functions that oneDNN takes for one (prim.c) */
}

static void transposed_convolutions(void **state)
{
    (void)state;
    uint64_t seed = 2;
    int taken = 0, n = 0;
    for (int i = 0; i < 150; i++) {
        struct conv v = draw_conv(&seed, true);
        bool whole = true;
        for (int k = 0; k < v.space; k++)
            whole &= (v.size[k] - 1) * v.stride[k] + 1 > v.pads[k] + v.pads[v.space + k];
        if (!whole) continue; /* the result would be empty */
        n++;
        taken += conv_try(&v, &seed, NULL);
    }
    print_message("# %d of %d transposed convolutions taken\n", taken, n);
    assert_true(taken >= n * 9 / 10);
}

/* Each post-operation on each kind of convolution, above 1 MFLOP, so that a reference implementation would be
 * refused. */
static void every_post_operation(void **state)
{
    (void)state;
    uint64_t seed = 3;
    static const struct conv KINDS[] = {
        {2, 1, 32, 48, 1, {40, 41}, {1, 1}, {1, 1}, {1, 1}, {0}, true, false, 0},
        {2, 1, 16, 24, 1, {50, 50}, {3, 3}, {2, 2}, {1, 1}, {1, 1, 1, 1}, true, false, 0},
        {2, 1, 3, 24, 1, {101, 100}, {3, 3}, {2, 2}, {1, 1}, {0, 0, 1, 1}, false, false, 0},
        {2, 1, 58, 58, 58, {60, 60}, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, true, false, 0},
        {2, 1, 72, 72, 72, {64, 64}, {5, 5}, {2, 2}, {1, 1}, {2, 2, 2, 2}, true, false, 0},
        {2, 1, 64, 64, 4, {20, 20}, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, true, false, 0},
    };
    for (size_t k = 0; k < ARRAY_LEN(KINDS); k++)
        for (size_t p = 0; p < TRY_POST_COUNT; p++) {
            struct conv v = KINDS[k];
            char impl[64] = "";
            v.which = -1 - (int)p;
            if (!conv_try(&v, &seed, impl))
                fail_msg("kind %zu with post-operation %d is not taken", k, (int)TRY_POSTS[p].kind);
            assert_null(strstr(impl, "ref"));
        }
}

/* Two functions that oneDNN would make into one (prim.c): not taken, or right. */
static void functions_of_one_algorithm(void **state)
{
    static const struct kernel_post PAIRS[][2] = {
        {{.kind = KERNEL_POST_LEAKY_RELU, .alpha = 0.1f}, {.kind = KERNEL_POST_RELU}},
        {{.kind = KERNEL_POST_CLIP, .alpha = 0, .beta = 6}, {.kind = KERNEL_POST_HARD_SIGMOID, .alpha = 0.5f, .beta = 0.5f}},
        {{.kind = KERNEL_POST_ELU, .alpha = 0.5f}, {.kind = KERNEL_POST_ELU, .alpha = 2}}};
    uint64_t seed = 4;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(PAIRS); i++) {
        struct try_node node;
        struct try_case c = {0};
        try_init(&node, OP_CONV, 11);
        c.in[0] = try_tensor(4, (int64_t[]){1, 16, 9, 9}, &seed);
        c.in[1] = try_tensor(4, (int64_t[]){24, 16, 1, 1}, &seed);
        c.constant[1] = true;
        c.out = try_tensor(4, (int64_t[]){1, 24, 9, 9}, &seed);
        try_query(&c, &node, 2, 1);
        memcpy(c.q.post, PAIRS[i], sizeof PAIRS[i]);
        c.q.n_post = 2;
        double *want = xcalloc(24 * 81, sizeof *want);
        for (int n = 0; n < 24 * 81; n++)
            for (int k = 0; k < 16; k++) want[n] += (double)((float *)c.in[0].data)[k * 81 + n % 81] * (double)((float *)c.in[1].data)[n / 81 * 16 + k];
        try_check(&c, payer, want, 1e-4, "two functions");
        try_done(&c);
    }
}

/* ---- products */

static void gemms(void **state)
{
    (void)state;
    uint64_t seed = 4;
    for (int i = 0; i < 60; i++) {
        struct try_node node;
        struct try_case c = {0};
        int64_t m = 1 + try_below(&seed, 20), k = 1 + try_below(&seed, 100), n = 1 + try_below(&seed, 90);
        bool gemm = try_below(&seed, 2), tb = gemm && try_below(&seed, 2), bias = gemm && try_below(&seed, 2);
        try_init(&node, gemm ? OP_GEMM : OP_MATMUL, 13);
        if (gemm) try_int(&node, "transB", tb);
        c.in[0] = gemm ? try_tensor(2, (int64_t[]){m, k}, &seed) : try_tensor(3, (int64_t[]){2, m, k}, &seed);
        c.in[1] = tb ? try_tensor(2, (int64_t[]){n, k}, &seed) : try_tensor(2, (int64_t[]){k, n}, &seed);
        if (bias) c.in[2] = try_tensor(1 + try_below(&seed, 1), &n, &seed);
        c.constant[1] = c.constant[2] = true;
        c.out = gemm ? try_tensor(2, (int64_t[]){m, n}, &seed) : try_tensor(3, (int64_t[]){2, m, n}, &seed);
        try_query(&c, &node, bias ? 3 : 2, 1);
        try_draw_posts(&c, &seed, 0);
        if (!gemm) m *= 2;
        double *want = xnewn(double, (size_t)(m * n));
        const float *a = c.in[0].data, *b = c.in[1].data;
        for (int64_t r = 0; r < m; r++)
            for (int64_t s = 0; s < n; s++) {
                double sum = bias ? (double)((float *)c.in[2].data)[s] : 0;
                for (int64_t t = 0; t < k; t++)
                    sum += (double)a[r * k + t] * (double)(tb ? b[s * k + t] : b[t * n + s]);
                want[r * n + s] = sum;
            }
        bool two = c.q.n_post == 2;
        if (try_check(&c, payer, want, 1e-4, "gemm")) assert_string_equal(c.class->name, "onednn:linear");
        else if (!two) fail_msg("gemm: no class takes it: %s", err_text());
        try_done(&c);
    }
}

static void batched_products(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int i = 0; i < 30; i++) {
        struct try_node node;
        struct try_case c = {0};
        int64_t b1 = 1 + try_below(&seed, 3), b2 = 1 + try_below(&seed, 4), m = 1 + try_below(&seed, 12),
                k = 1 + try_below(&seed, 30), n = 1 + try_below(&seed, 25);
        bool one = try_below(&seed, 3) == 0; /* the right side has no batch of its own */
        try_init(&node, OP_MATMUL, 13);
        c.in[0] = try_tensor(4, (int64_t[]){b1, b2, m, k}, &seed);
        c.in[1] =
            one ? try_tensor(3, (int64_t[]){b2, k, n}, &seed) : try_tensor(4, (int64_t[]){b1, b2, k, n}, &seed);
        c.out = try_tensor(4, (int64_t[]){b1, b2, m, n}, &seed);
        try_query(&c, &node, 2, 1);
        double *want = xnewn(double, (size_t)(b1 * b2 * m * n));
        for (int64_t b = 0; b < b1 * b2; b++)
            for (int64_t r = 0; r < m; r++)
                for (int64_t s = 0; s < n; s++)
                    for (int64_t t = 0; t < k; t++)
                        want[(b * m + r) * n + s] +=
                            (double)((float *)c.in[0].data)[(b * m + r) * k + t] *
                            (double)((float *)c.in[1].data)[((one ? b % b2 : b) * k + t) * n + s];
        try_must(&c, payer, want, 1e-4, "matmul");
        try_done(&c);
    }
}

/* ---- pooling */

static void poolings(void **state)
{
    (void)state;
    uint64_t seed = 6;
    int taken = 0, n = 0;
    for (int i = 0; i < 200; i++) {
        static const enum op_kind KINDS[] = {OP_MAX_POOL, OP_AVERAGE_POOL, OP_GLOBAL_AVERAGE_POOL,
                                             OP_GLOBAL_MAX_POOL, OP_REDUCE_MEAN};
        enum op_kind kind = KINDS[try_below(&seed, 5)];
        struct conv v = draw_conv(&seed, false);
        struct try_node node;
        struct try_case c = {0};
        struct op_window w = {0};
        int64_t xd[5] = {v.n, v.c_in}, yd[5] = {v.n, v.c_in};
        bool include = try_below(&seed, 2), global = kind != OP_MAX_POOL && kind != OP_AVERAGE_POOL;
        memcpy(xd + 2, v.size, (size_t)v.space * sizeof *xd);
        try_init(&node, kind, 11);
        if (!global) {
            try_ints(&node, "kernel_shape", v.space, v.kernel);
            try_ints(&node, "strides", v.space, v.stride);
            try_ints(&node, "pads", 2 * v.space, v.pads);
            if (kind == OP_MAX_POOL) try_ints(&node, "dilations", v.space, v.dilation);
            try_int(&node, "ceil_mode", kind == OP_MAX_POOL && try_below(&seed, 2));
            if (kind == OP_AVERAGE_POOL) try_int(&node, "count_include_pad", include);
        } else if (kind == OP_REDUCE_MEAN) {
            try_ints(&node, "axes", v.space, (int64_t[]){-1, 2, 3});
            if (v.space == 1) node.ints[0][0] = 2;
        }
        c.in[0] = try_tensor(v.space + 2, xd, &seed);
        if (!global) {
            if (op_window(&node.op, &c.in[0].shape, NULL, &w)) {
                free(c.in[0].data);
                continue;
            }
        } else {
            w.n = v.space;
            for (int k = 0; k < v.space; k++) {
                w.in[k] = w.kernel[k] = xd[2 + k];
                w.out[k] = w.stride[k] = w.dilation[k] = 1;
            }
        }
        memcpy(yd + 2, w.out, (size_t)v.space * sizeof *yd);
        c.out = try_tensor(v.space + 2, yd, &seed);
        try_query(&c, &node, 1, 1);
        struct walk k = walk_of(&w);
        int64_t places = volume(k.out), from = volume(k.in), taps = volume(k.k);
        double *want = xnewn(double, (size_t)tensor_count(&c.out.shape));
        for (int64_t o = 0; o < tensor_count(&c.out.shape); o++) {
            double sum = 0, most = -INFINITY, count = 0;
            for (int64_t t = 0; t < taps; t++) {
                int64_t at = input_place(&k, o % places, t);
                if (at < 0) continue;
                double x = (double)((float *)c.in[0].data)[o / places * from + at];
                sum += x;
                most = fmax(most, x);
                count++;
            }
            bool max = kind == OP_MAX_POOL || kind == OP_GLOBAL_MAX_POOL;
            want[o] = max ? most : sum / (include && kind == OP_AVERAGE_POOL ? (double)taps : count);
        }
        n++;
        taken += try_check(&c, payer, want, 1e-5, op_name(kind));
        try_done(&c);
    }
    print_message("# %d of %d poolings taken\n", taken, n);
    assert_true(taken >= n * 8 / 10);
}

/* ---- the whole again on an older processor */

static void again_on_older_processors(void **state)
{
    (void)state;
    again_on("AVX2");
    again_on("SSE41"); /* small boxes with an Atom */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(again_on_older_processors), /* first: no thread must exist at the fork */
        cmocka_unit_test(convolutions),
        cmocka_unit_test(transposed_convolutions),
        cmocka_unit_test(every_post_operation),
        cmocka_unit_test(functions_of_one_algorithm),
        cmocka_unit_test(gemms),
        cmocka_unit_test(batched_products),
        cmocka_unit_test(poolings),
    };
    return cmocka_run_group_tests(tests, start, end);
}
