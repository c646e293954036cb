/* The oneDNN classes that are no products and no windows, as in onednn_test.c. SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/onednn/again.h"
#include "kernels/onednn/try.h"

/* ---- normalising */

static void softmaxes(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (int i = 0; i < 60; i++) {
        struct try_node node;
        struct try_case c = {0};
        int rank = 1 + try_below(&seed, 4), opset = try_below(&seed, 2) ? 13 : 11, axis = try_below(&seed, rank);
        bool log = try_below(&seed, 4) == 0;
        int64_t d[4], inner = 1, along;
        if (opset == 13 && axis != 1) axis = rank - 1;
        for (int k = 0; k < rank; k++) d[k] = 1 + try_below(&seed, 9);
        for (int k = axis + 1; k < rank; k++) inner *= d[k];
        along = d[axis];
        if (opset == 11) {
            along *= inner;
            inner = 1;
        }
        try_init(&node, log ? OP_LOG_SOFTMAX : OP_SOFTMAX, opset);
        try_int(&node, "axis", try_below(&seed, 2) ? axis : axis - rank);
        c.in[0] = try_tensor(rank, d, &seed);
        c.out = try_tensor(rank, d, &seed);
        try_query(&c, &node, 1, 1);
        int64_t n = tensor_count(&c.out.shape);
        double *want = xnewn(double, (size_t)n);
        const float *x = c.in[0].data;
        for (int64_t k = 0; k < n; k++) {
            double sum = 0;
            int64_t base = k / (along * inner) * (along * inner) + k % inner;
            for (int64_t t = 0; t < along; t++) sum += exp((double)x[base + t * inner]);
            want[k] = log ? (double)x[k] - log1p(sum - 1) : exp((double)x[k]) / sum;
        }
        try_must(&c, payer, want, 1e-5, "softmax");
        try_done(&c);
    }
}

static void norms(void **state)
{
    (void)state;
    uint64_t seed = 8;
    for (int i = 0; i < 60; i++) {
        struct try_node node;
        struct try_case c = {0};
        bool instance = try_below(&seed, 2);
        int64_t n = instance ? 1 : 1 + try_below(&seed, 3), ch = 1 + try_below(&seed, 40),
                h = 1 + try_below(&seed, 9), w = 2 + try_below(&seed, 9);
        try_init(&node, instance ? OP_INSTANCE_NORM : OP_BATCH_NORM, 11);
        try_float(&node, "epsilon", 1e-3f);
        c.in[0] = try_tensor(4, (int64_t[]){n, ch, h, w}, &seed);
        c.out = try_tensor(4, (int64_t[]){n, ch, h, w}, &seed);
        for (int k = 1; k < (instance ? 3 : 5); k++) {
            c.in[k] = try_tensor(1, &ch, &seed);
            c.constant[k] = true;
        }
        for (int64_t k = 0; !instance && k < ch; k++)
            ((float *)c.in[4].data)[k] = fabsf(((float *)c.in[4].data)[k]) + 0.1f;
        try_query(&c, &node, instance ? 3 : 5, 1);
        double *want = xnewn(double, (size_t)(n * ch * h * w));
        const float *x = c.in[0].data;
        for (int64_t k = 0; k < n * ch; k++) {
            double mean = 0, var = 0;
            for (int64_t t = 0; t < h * w; t++) mean += (double)x[k * h * w + t] / (double)(h * w);
            for (int64_t t = 0; t < h * w; t++) var += pow((double)x[k * h * w + t] - mean, 2) / (double)(h * w);
            if (!instance) {
                mean = (double)((float *)c.in[3].data)[k % ch];
                var = (double)((float *)c.in[4].data)[k % ch];
            }
            for (int64_t t = 0; t < h * w; t++)
                want[k * h * w + t] =
                    ((double)x[k * h * w + t] - mean) / sqrt(var + 1e-3) * (double)((float *)c.in[1].data)[k % ch] +
                    (double)((float *)c.in[2].data)[k % ch];
        }
        try_must(&c, payer, want, 5e-5, instance ? "instance norm" : "batch norm");
        try_done(&c);
    }
}

static void layer_norms(void **state)
{
    (void)state;
    uint64_t seed = 9;
    for (int i = 0; i < 20; i++) {
        struct try_node node;
        struct try_case c = {0};
        int64_t rows = 1 + try_below(&seed, 9), ch = 2 + try_below(&seed, 70);
        bool shift = try_below(&seed, 2);
        try_init(&node, OP_LAYER_NORM, 17);
        c.in[0] = try_tensor(3, (int64_t[]){2, rows, ch}, &seed);
        c.out = try_tensor(3, (int64_t[]){2, rows, ch}, &seed);
        c.in[1] = try_tensor(1, &ch, &seed);
        if (shift) c.in[2] = try_tensor(1, &ch, &seed);
        c.constant[1] = c.constant[2] = true;
        try_query(&c, &node, 2 + shift, 1);
        double *want = xnewn(double, (size_t)(2 * rows * ch));
        const float *x = c.in[0].data;
        for (int64_t k = 0; k < 2 * rows; k++) {
            double mean = 0, var = 0;
            for (int64_t t = 0; t < ch; t++) mean += (double)x[k * ch + t] / (double)ch;
            for (int64_t t = 0; t < ch; t++) var += pow((double)x[k * ch + t] - mean, 2) / (double)ch;
            for (int64_t t = 0; t < ch; t++)
                want[k * ch + t] =
                    ((double)x[k * ch + t] - mean) / sqrt(var + 1e-5) * (double)((float *)c.in[1].data)[t] +
                    (shift ? (double)((float *)c.in[2].data)[t] : 0);
        }
        try_must(&c, payer, want, 1e-4, "layer norm");
        try_done(&c);
    }
}

/* ---- element by element */

static double function(enum op_kind k, double x)
{
    switch (k) {
    case OP_RELU: return fmax(x, 0);
    case OP_LEAKY_RELU: return x < 0 ? 0.2 * x : x;
    case OP_SIGMOID: return 1 / (1 + exp(-x));
    case OP_TANH: return tanh(x);
    case OP_EXP: return exp(x);
    case OP_SILU: return x / (1 + exp(-x));
    case OP_ELU: return x < 0 ? 0.2 * (exp(x) - 1) : x;
    case OP_GELU: return 0.5 * x * (1 + erf(x / sqrt(2)));
    case OP_MISH: return x * tanh(log1p(exp(x)));
    case OP_HARD_SWISH: return x * fmax(0, fmin(1, x / 6 + 0.5));
    case OP_CLIP: return fmin(fmax(x, -0.5), 2);
    default: return NAN;
    }
}

static void functions(void **state)
{
    (void)state;
    uint64_t seed = 10;
    static const enum op_kind KINDS[] = {OP_RELU, OP_LEAKY_RELU, OP_SIGMOID, OP_TANH,       OP_EXP, OP_SILU,
                                         OP_ELU,  OP_GELU,       OP_MISH,    OP_HARD_SWISH, OP_CLIP};
    for (size_t i = 0; i < 4 * ARRAY_LEN(KINDS); i++) {
        enum op_kind kind = KINDS[i % ARRAY_LEN(KINDS)];
        struct try_node node;
        struct try_case c = {.lie = i / ARRAY_LEN(KINDS) % 2 ? TRY_LAST : TRY_ROWS};
        int64_t d[] = {1, 1 + try_below(&seed, 20), 1 + try_below(&seed, 20), 1 + try_below(&seed, 20)}, one = 1;
        if (i % 5 == 0) d[0] = 60; /* large enough for two threads */
        try_init(&node, kind, kind == OP_GELU ? 20 : 13);
        if (kind == OP_LEAKY_RELU || kind == OP_ELU) try_float(&node, "alpha", 0.2f);
        c.in[0] = try_tensor(4, d, &seed);
        for (int64_t k = 0; k < tensor_count(&c.in[0].shape); k++) ((float *)c.in[0].data)[k] *= 8;
        int n_in = 1;
        if (kind == OP_CLIP) {
            c.in[1] = try_tensor(0, &one, &seed);
            c.in[2] = try_tensor(0, &one, &seed);
            *(float *)c.in[1].data = -0.5f;
            *(float *)c.in[2].data = 2;
            c.constant[1] = c.constant[2] = true;
            n_in = 3;
        }
        c.out = try_tensor(4, d, &seed);
        try_query(&c, &node, n_in, 1);
        double *want = xnewn(double, (size_t)tensor_count(&c.out.shape));
        for (int64_t k = 0; k < tensor_count(&c.out.shape); k++)
            want[k] = function(kind, (double)((float *)c.in[0].data)[k]);
        try_must(&c, payer, want, 5e-6, op_name(kind));
        try_done(&c);
    }
}

static double both(enum op_kind k, double a, double b)
{
    switch (k) {
    case OP_ADD: return a + b;
    case OP_MUL: return a * b;
    case OP_SUB: return a - b;
    case OP_DIV: return a / b;
    case OP_MAX: return fmax(a, b);
    case OP_MIN: return fmin(a, b);
    default: return NAN;
    }
}

static void binaries(void **state)
{
    (void)state;
    uint64_t seed = 11;
    int taken = 0, n = 0;
    static const enum op_kind KINDS[] = {OP_ADD, OP_MUL, OP_SUB, OP_DIV, OP_MAX, OP_MIN};
    for (int i = 0; i < 240; i++) {
        enum op_kind kind = KINDS[i % 6];
        struct try_node node;
        struct try_case c = {.lie = i / 6 % 2 ? TRY_LAST : TRY_ROWS};
        int64_t d[] = {1 + try_below(&seed, 2), 1 + try_below(&seed, 40), 1 + try_below(&seed, 9),
                       1 + try_below(&seed, 9)},
                e[4];
        if (i % 8 == 0) d[0] = 150; /* large enough for two threads */
        int how = try_below(&seed, 5), rank = 4, whole = try_below(&seed, 2);
        memcpy(e, d, sizeof e);
        if (how == 1) e[0] = e[2] = e[3] = 1; /* a number for each channel */
        if (how == 2) e[0] = e[1] = e[2] = e[3] = 1;
        if (how == 3) e[2] = e[3] = 1;        /* for each channel of each image */
        if (how == 4) e[0] = e[1] = e[2] = 1; /* for each column */
        try_init(&node, kind, 13);
        c.in[whole] = try_tensor(4, d, &seed);
        c.in[1 - whole] = how == 4 ? try_tensor(1, d + 3, &seed) : try_tensor(rank, e, &seed);
        for (int k = 0; k < 2; k++)
            for (int64_t t = 0; t < tensor_count(&c.in[k].shape); t++) ((float *)c.in[k].data)[t] += 1.5f;
        c.out = try_tensor(4, d, &seed);
        try_query(&c, &node, 2, 1);
        double *want = xnewn(double, (size_t)tensor_count(&c.out.shape));
        for (int64_t k = 0; k < tensor_count(&c.out.shape); k++) {
            int64_t at[4], p = k, q = 0;
            for (int t = 3; t >= 0; t--) {
                at[t] = p % d[t];
                p /= d[t];
            }
            for (int t = 0; t < 4; t++) q = q * e[t] + (e[t] == 1 ? 0 : at[t]);
            double a = (double)((float *)c.in[whole].data)[k], b = (double)((float *)c.in[1 - whole].data)[q];
            want[k] = whole ? both(kind, b, a) : both(kind, a, b);
        }
        n++;
        taken += try_check(&c, payer, want, 1e-5, op_name(kind));
        try_done(&c);
    }
    print_message("# %d of %d binaries taken\n", taken, n);
    assert_true(taken >= n / 3);
}

/* ---- moving */

static void resizes(void **state)
{
    (void)state;
    uint64_t seed = 12;
    for (int i = 0; i < 60; i++) {
        struct try_node node;
        struct try_case c = {0};
        bool linear = try_below(&seed, 2);
        int f = 1 + try_below(&seed, 3);
        int64_t d[] = {1 + try_below(&seed, 2), 1 + try_below(&seed, 40), 1 + try_below(&seed, 9),
                       1 + try_below(&seed, 9)},
                e[4];
        memcpy(e, d, sizeof e);
        for (int k = 2; k < 4; k++) e[k] = linear ? 2 + try_below(&seed, 20) : d[k] * f;
        try_init(&node, OP_RESIZE, 13);
        try_word(&node, "mode", linear ? "linear" : "nearest");
        try_word(&node, "coordinate_transformation_mode", linear ? "half_pixel" : "asymmetric");
        try_word(&node, "nearest_mode", "floor");
        c.in[0] = try_tensor(4, d, &seed);
        c.out = try_tensor(4, e, &seed);
        try_query(&c, &node, 1, 1);
        double *want = xnewn(double, (size_t)tensor_count(&c.out.shape));
        const float *x = c.in[0].data;
        for (int64_t k = 0; k < tensor_count(&c.out.shape); k++) {
            int64_t at[2] = {k / e[3] % e[2], k % e[3]}, image = k / (e[2] * e[3]);
            int64_t lo[2], hi[2];
            double t[2];
            for (int a = 0; a < 2; a++) {
                double s = linear ? ((double)at[a] + 0.5) * (double)d[2 + a] / (double)e[2 + a] - 0.5
                                  : (double)(at[a] / f);
                lo[a] = (int64_t)fmax(floor(s), 0);
                hi[a] = MIN((int64_t)fmax(floor(s) + 1, 0), d[2 + a] - 1);
                t[a] = s < 0 ? 0 : s - (double)lo[a];
            }
#define AT(r, s) (double)x[(image * d[2] + (r)) * d[3] + (s)]
            want[k] = (1 - t[0]) * ((1 - t[1]) * AT(lo[0], lo[1]) + t[1] * AT(lo[0], hi[1])) +
                      t[0] * ((1 - t[1]) * AT(hi[0], lo[1]) + t[1] * AT(hi[0], hi[1]));
        }
        try_must(&c, payer, want, 1e-5, linear ? "linear" : "nearest");
        try_done(&c);
    }
}

static void transposes(void **state)
{
    (void)state;
    uint64_t seed = 14;
    for (int i = 0; i < 80; i++) {
        struct try_node node;
        struct try_case c = {.lie = try_below(&seed, 2) ? TRY_LAST : TRY_ROWS};
        int rank = 1 + try_below(&seed, 5);
        int64_t d[5], e[5], perm[5], step[5];
        bool copy = try_below(&seed, 3) == 0;
        for (int k = 0; k < rank; k++) {
            d[k] = 1 + try_below(&seed, 9);
            perm[k] = k;
        }
        for (int k = rank - 1; k > 0 && !copy; k--) {
            int o = try_below(&seed, k + 1);
            int64_t t = perm[k];
            perm[k] = perm[o];
            perm[o] = t;
        }
        try_init(&node, copy ? OP_COPY : OP_TRANSPOSE, 13);
        if (!copy) try_ints(&node, "perm", rank, perm);
        c.in[0] = try_tensor(rank, d, &seed);
        tensor_strides_row_major(&c.in[0].shape, step);
        for (int k = 0; k < rank; k++) e[k] = d[perm[k]];
        c.out = try_tensor(rank, e, &seed);
        try_query(&c, &node, 1, 1);
        double *want = xnewn(double, (size_t)tensor_count(&c.out.shape));
        for (int64_t k = 0; k < tensor_count(&c.out.shape); k++) {
            int64_t p = k, q = 0;
            for (int t = rank - 1; t >= 0; t--) {
                q += p % e[t] * step[perm[t]];
                p /= e[t];
            }
            want[k] = (double)((float *)c.in[0].data)[q];
        }
        try_must(&c, payer, want, 0, "transpose");
        try_done(&c);
    }
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
        cmocka_unit_test(softmaxes),
        cmocka_unit_test(norms),
        cmocka_unit_test(layer_norms),
        cmocka_unit_test(functions),
        cmocka_unit_test(binaries),
        cmocka_unit_test(resizes),
        cmocka_unit_test(transposes),
    };
    return cmocka_run_group_tests(tests, start, end);
}
