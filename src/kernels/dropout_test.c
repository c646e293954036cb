/* DropoutBy: the generator against its authors' numbers, what is kept against NumPy's own account of it (tests/tools/make_dropout_golden.py), the vector kernel against plain C bit for
 * bit at every size, type and number of threads, and that the bits are as random as dropout needs. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/dropout.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/own/conv.h"

extern const struct kernel_class own_dropout;

struct node {
    struct op_node op;
    struct op_attr attrs[3];
};

static void node_init(struct node *n, float ratio, int number, bool last)
{
    static char names[4][16] = {"ratio", "node", "channels_last", ""};
    *n = (struct node){.attrs = {{.name = names[0], .type = OP_ATTR_FLOAT, .f = ratio}, {.name = names[1], .type = OP_ATTR_INT, .i = number},
                                 {.name = names[2], .type = OP_ATTR_INT, .i = last}}};
    n->op = (struct op_node){.kind = OP_DROPOUT_BY, .name = names[3], .opset = 1, .n_in = 2, .n_out = 1, .n_attrs = 3};
}

static err by_ref(struct node *n, struct tensor x, struct tensor y, const int64_t *draw)
{
    struct tensor_shape three = {.rank = 1, .dims = {3}};
    struct tensor in[] = {x, tensor_view(TENSOR_I64, &three, draw)};
    n->op.attrs = n->attrs;
    return kernels_ref_run(&n->op, in, 2, &y, 1);
}

static void generator(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } known[] = {/* kat_vectors of Random123, philox4x32 10 */
                 {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
                 {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
                 {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        uint32_t got[4];
        kernel_philox(known[i].counter, known[i].key, got);
        assert_memory_equal(got, known[i].want, sizeof got);
    }
}

static void as_numpy_has_it(void **state)
{
    (void)state;
    const char *source = getenv("BRIM_SOURCE");
    char *path = xasprintf("%s/tests/data/train/dropout.txt", source ? source : "."), sizes[64], bits[512];
    FILE *f = fopen(path, "re");
    if (!f) fail_msg("%s is missing", path);
    uint64_t seed;
    int64_t update;
    int run, number, last, lines = 0;
    double ratio;
    while (fscanf(f, "%" SCNu64 " %" SCNd64 " %d %d %lf %d %63s %511s", &seed, &update, &run, &number, &ratio, &last, sizes, bits) == 8) {
        struct tensor_shape s = {.rank = 0};
        char *at = sizes;
        while (*at) {
            s.dims[s.rank++] = strtol(at, &at, 10);
            at += *at == 'x';
        }
        int64_t n = tensor_count(&s), draw[3] = {(int64_t)seed, update, run};
        assert_int_equal(n, strlen(bits));
        double *x = xnewn(double, n), *y = xnewn(double, n);
        for (int64_t i = 0; i < n; i++) x[i] = (double)(i + 1);
        struct node by;
        node_init(&by, (float)ratio, number, last);
        assert_int_equal(by_ref(&by, tensor_view(TENSOR_F64, &s, x), tensor_view(TENSOR_F64, &s, y), draw), ERR_OK);
        for (int64_t i = 0; i < n; i++)
            if (y[i] != (bits[i] == '1' ? x[i] * (1 / (1 - (double)(float)ratio)) : 0)) fail_msg("line %d, element %" PRId64, lines + 1, i);
        free(x);
        free(y);
        lines++;
    }
    assert_int_equal(lines, 7);
    fclose(f);
    free(path);
}

/* ---- own against plain C */

struct box {
    struct mem_budget *budget;
    struct mem_payer *payer;
};

static void by_own(struct box *b, struct node *n, const struct tensor *x, const struct tensor *y, const int64_t *draw, int threads)
{
    struct tensor_shape three = {.rank = 1, .dims = {3}};
    struct tensor in[] = {*x, tensor_view(TENSOR_I64, &three, NULL)}, out = *y;
    in[0].data = out.data = NULL;
    n->op.attrs = n->attrs;
    struct kernel_query q = {.node = &n->op, .n_in = 2, .n_out = 1, .in = in, .out = &out, .threads = threads};
    struct kernel_layouts l = {0};
    struct kernel_state *s;
    assert_true(own_dropout.accepts(&q));
    own_dropout.layouts(&q, &l);
    bool last = x->shape.rank >= 3 && n->attrs[2].i;
    assert_int_equal(l.in[0], last ? KERNEL_LAYOUT_CHANNELS_LAST : KERNEL_LAYOUT_ROW_MAJOR);
    if (own_dropout.prepare(&q, b->payer, &s)) fail_msg("%s", err_text());
    assert_string_equal(own_dropout.describe(s), own_lanes()->lanes == 16 ? "avx512" : "avx2");
    struct kernel_buffers buffers = {.in = {x->data, draw}, .out = {y->data}};
    assert_int_equal(own_dropout.run(s, &buffers), ERR_OK);
    own_dropout.free(&s);
}

static struct tensor filled(enum tensor_dtype dtype, const struct tensor_shape *s, bool last)
{
    int64_t n = tensor_count(s);
    struct tensor t = tensor_view(dtype, s, xcalloc((size_t)n + 2, 4));
    if (last) tensor_strides_channels_last(s, t.strides);
    for (int64_t i = 0; i < n; i++) {
        float v = i % 13 == 5 ? NAN : i % 17 == 3 ? -INFINITY : (float)(i % 101) - 50.25f;
        if (dtype == TENSOR_BF16) ((uint16_t *)t.data)[i] = tensor_float_bf16(v);
        else ((float *)t.data)[i] = v;
    }
    return t;
}

static void vectors_are_plain_c(void **state)
{
    struct box *b = *state;
    if (!own_lanes()) skip();
    static const enum tensor_dtype types[] = {TENSOR_F32, TENSOR_BF16};
    static const float ratios[] = {0, 0.1f, 0.5f, 0.97f, 1};
    for (int k = 0; k < 260; k++) {
        struct tensor_shape s = {.rank = 1, .dims = {k + 1}};
        if (k >= 200) s = (struct tensor_shape){.rank = 4, .dims = {2, k - 199, 5, 7}};
        if (k >= 250) s = (struct tensor_shape){.rank = 2, .dims = {37, 997}}; /* shared by threads */
        int64_t draw[3] = {(int64_t)(0x9e3779b97f4a7c15u * (uint64_t)k), k + ((int64_t)1 << 31), k % 3};
        struct node n;
        node_init(&n, ratios[k % 5], k % 7, k % 2);
        struct tensor x = filled(types[k / 2 % 2], &s, s.rank == 4 && k % 2), want = filled(types[k / 4 % 2], &s, s.rank == 4 && k % 2), got = filled(want.dtype, &s, s.rank == 4 && k % 2);
        size_t bytes = (size_t)tensor_count(&s) * tensor_dtype_size(want.dtype);
        assert_int_equal(by_ref(&n, x, want, draw), ERR_OK);
        for (int threads = 1; threads < 4; threads++) {
            memset(got.data, 0x55, bytes + 2);
            by_own(b, &n, &x, &got, draw, threads);
            if (memcmp(got.data, want.data, bytes)) fail_msg("case %d on %d threads", k, threads);
            assert_int_equal(((uint8_t *)got.data)[bytes], 0x55); /* nothing behind it */
        }
        free(x.data);
        free(want.data);
        free(got.data);
    }
}

/* How images lie says nothing about which elements stay. */
static void layouts_do_not_matter(void **state)
{
    (void)state;
    struct tensor_shape s = {.rank = 4, .dims = {2, 6, 5, 3}};
    int64_t draw[3] = {4, 2, 0}, n = tensor_count(&s);
    for (int last = 0; last < 2; last++) {
        struct node by;
        node_init(&by, 0.4f, 1, last);
        float x[180], rows[180], images[180], *lying[] = {rows, images};
        for (int64_t i = 0; i < n; i++) x[i] = (float)(i + 1);
        struct tensor from = tensor_view(TENSOR_F32, &s, x);
        for (int k = 0; k < 2; k++) {
            struct tensor to = tensor_view(TENSOR_F32, &s, lying[k]);
            if (k) tensor_strides_channels_last(&s, to.strides);
            assert_int_equal(by_ref(&by, from, to, draw), ERR_OK);
        }
        for (int64_t i = 0; i < n; i++) {
            int64_t c = i / 15 % 6, image = i / 90 * 90 + i % 15 * 6 + c;
            assert_memory_equal(&rows[i], &images[image], sizeof(float));
        }
    }
}

/* ---- is it random? */

enum { MANY = 1 << 18 };

static uint8_t *mask(const int64_t *draw, int number, float ratio)
{
    struct tensor_shape s = {.rank = 1, .dims = {MANY}};
    float *x = xnewn(float, MANY);
    uint8_t *bits = xnewn(uint8_t, MANY);
    struct node n;
    for (int i = 0; i < MANY; i++) x[i] = 1;
    node_init(&n, ratio, number, false);
    assert_int_equal(by_ref(&n, tensor_view(TENSOR_F32, &s, x), tensor_view(TENSOR_F32, &s, x), draw), ERR_OK);
    for (int i = 0; i < MANY; i++) {
        assert_true(x[i] == 0 || x[i] == (float)(1 / (1 - (double)ratio)));
        bits[i] = x[i] != 0;
    }
    free(x);
    return bits;
}

/* The share of places where both are kept is that of independent ones, within five standard deviations. */
static void independent(const uint8_t *a, const uint8_t *b, int n, double keep, const char *what)
{
    double both = 0, p = keep * keep;
    for (int i = 0; i < n; i++) both += a[i] & b[i];
    if (fabs(both / n - p) > 5 * sqrt(p * (1 - p) / n)) fail_msg("%s: both are kept in %g of the places, not %g", what, both / n, p);
}

static void random_enough(void **state)
{
    (void)state;
    static const float ratios[] = {0.1f, 0.5f, 0.8f};
    for (size_t k = 0; k < ARRAY_LEN(ratios); k++) {
        double keep = 1 - (double)ratios[k], sum = 0;
        int64_t draw[3] = {3, 1000, 0};
        uint8_t *a = mask(draw, 0, ratios[k]);
        for (int i = 0; i < MANY; i++) sum += a[i];
        assert_true(fabs(sum / MANY - keep) < 5 * sqrt(keep * (1 - keep) / MANY)); /* so y has the mean of x, and x^2 ratio / (1 - ratio) as its variance */
        for (int step = 1; step <= 128; step *= 2) independent(a, a + step, MANY - step, keep, "neighbours");
        for (int i = 0; i < 4; i++) { /* another seed, update, run, node */
            int64_t other[3] = {3, 1000, 0};
            if (i < 3) other[i]++;
            uint8_t *b = mask(other, i == 3, ratios[k]);
            independent(a, b, MANY, keep, "another draw");
            free(b);
        }
        uint8_t *same = mask(draw, 0, ratios[k]);
        assert_memory_equal(a, same, MANY);
        free(same);
        free(a);
    }
}

static void refuses(void **state)
{
    (void)state;
    struct tensor_shape s = {.rank = 1, .dims = {4}}, three = {.rank = 1, .dims = {3}}, many = {.rank = 2, .dims = {1 << 20, (1 << 14) + 1}};
    struct node n;
    struct op_info in[] = {{TENSOR_F32, s, NULL}, {TENSOR_I64, three, NULL}}, out[1];
    node_init(&n, 0.5f, 0, false);
    n.op.attrs = n.attrs;
    assert_int_equal(op_infer(&n.op, in, out), ERR_OK);
    assert_true(tensor_shape_equal(&out[0].shape, &s));
    in[1].dtype = TENSOR_F32;
    assert_int_equal(op_infer(&n.op, in, out), ERR_SHAPE);
    in[1] = (struct op_info){TENSOR_I64, s, NULL};
    assert_int_equal(op_infer(&n.op, in, out), ERR_SHAPE);
    in[1].shape = three;
    in[0].dtype = TENSOR_I32;
    assert_int_equal(op_infer(&n.op, in, out), ERR_SHAPE);
    in[0] = (struct op_info){TENSOR_F32, many, NULL};
    assert_int_equal(op_infer(&n.op, in, out), ERR_LIMIT);
    in[0].shape = s;
    static const float bad[] = {-0.1f, 1.5f, NAN};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        n.attrs[0].f = bad[i];
        assert_int_equal(op_infer(&n.op, in, out), ERR_SHAPE);
    }
}

static int start(void **state)
{
    static struct box b;
    b.budget = mem_budget_new("test", UINT64_MAX);
    b.payer = mem_payer_new(b.budget, "test");
    *state = &b;
    return 0;
}

static int end(void **state)
{
    struct box *b = *state;
    mem_payer_free(&b->payer);
    int left = mem_budget_used(b->budget) != 0;
    mem_budget_free(&b->budget);
    return left;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(generator), cmocka_unit_test(as_numpy_has_it), cmocka_unit_test(vectors_are_plain_c), cmocka_unit_test(layouts_do_not_matter),
                                       cmocka_unit_test(random_enough), cmocka_unit_test(refuses)};
    return cmocka_run_group_tests(tests, start, end);
}
