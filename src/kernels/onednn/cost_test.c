/* What primitives cost, and who pays: sharing, moving charges, failing charges, nothing left behind; and that real
 * convolutions never land on reference code. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "kernels/onednn/try.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* transposed, in, out, groups, height, width, kernel (2), strides (2), dilations (2), pads (4): every fifth of the
 * distinct convolutions of some thirty published models (detectors, classifiers, segmentation, super-resolution).
 */
static const int64_t REAL[][16] = {
    {0, 3, 24, 1, 352, 352, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
    {0, 48, 48, 48, 44, 44, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
    {0, 96, 96, 1, 11, 11, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 288, 96, 1, 22, 22, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 16, 16, 16, 96, 96, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
    {0, 32, 32, 1, 48, 48, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 32, 32, 32, 24, 24, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 64, 64, 1, 12, 12, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 256, 128, 1, 6, 6, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 256, 64, 1, 12, 12, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 1, 1, 12, 12, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 1, 1, 6, 6, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 32, 64, 1, 60, 80, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 64, 32, 1, 120, 160, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 16, 16, 1, 240, 320, 3, 3, 1, 1, 2, 2, 2, 2, 2, 2},
    {0, 16, 32, 1, 160, 240, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {1, 64, 32, 1, 80, 120, 2, 2, 2, 2, 1, 1, 0, 0, 0, 0},
    {0, 3, 16, 1, 320, 480, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 16, 16, 1, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 64, 64, 1, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 16, 16, 16, 48, 48, 3, 3, 2, 2, 1, 1, 0, 0, 1, 1},
    {0, 64, 128, 1, 6, 6, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 3, 24, 1, 320, 320, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
    {0, 58, 58, 1, 40, 40, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 116, 116, 116, 20, 20, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 116, 96, 1, 40, 40, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 96, 112, 1, 40, 40, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 96, 96, 1, 10, 10, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 8, 32, 1, 75, 75, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 128, 16, 1, 75, 75, 1, 1, 2, 2, 1, 1, 0, 0, 0, 0},
    {0, 24, 96, 1, 38, 38, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 256, 32, 1, 38, 38, 1, 1, 2, 2, 1, 1, 0, 0, 0, 0},
    {0, 48, 192, 1, 19, 19, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 32, 24, 1, 40, 20, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 48, 64, 1, 20, 10, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 64, 1, 20, 10, 1, 1, 2, 2, 1, 1, 0, 0, 0, 0},
    {0, 48, 48, 1, 10, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 128, 48, 1, 10, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 3, 16, 1, 360, 640, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 3, 8, 1, 1080, 1920, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 16, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 24, 1, 32, 16, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 24, 96, 1, 32, 16, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 96, 32, 1, 16, 8, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 32, 128, 1, 16, 8, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 32, 32, 32, 112, 112, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 24, 144, 1, 56, 56, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 32, 192, 1, 28, 28, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 384, 1, 14, 14, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 576, 576, 576, 14, 14, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 960, 960, 960, 7, 7, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 64, 256, 1, 56, 56, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 256, 1, 28, 28, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 512, 128, 1, 28, 28, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 256, 256, 1, 14, 14, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 3, 64, 1, 224, 224, 3, 3, 2, 2, 1, 1, 0, 0, 0, 0},
    {0, 128, 32, 1, 27, 27, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 48, 192, 1, 13, 13, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 256, 1, 13, 13, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 3, 16, 1, 257, 257, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
    {0, 48, 12, 1, 65, 65, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 72, 16, 1, 33, 33, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 32, 192, 1, 33, 33, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 288, 288, 288, 33, 33, 3, 3, 1, 1, 2, 2, 2, 2, 2, 2},
    {0, 480, 80, 1, 33, 33, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 256, 21, 1, 33, 33, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 8, 24, 1, 256, 448, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 32, 8, 1, 256, 448, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 48, 16, 1, 128, 224, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 32, 32, 32, 66, 114, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 40, 80, 1, 64, 112, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 40, 40, 40, 66, 114, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 32, 32, 32, 80, 128, 3, 3, 1, 1, 8, 8, 0, 0, 0, 0},
    {0, 56, 24, 1, 64, 112, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 24, 24, 24, 76, 124, 3, 3, 1, 1, 6, 6, 0, 0, 0, 0},
    {0, 48, 24, 1, 128, 224, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 16, 16, 1, 137, 137, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 16, 16, 16, 120, 160, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 32, 32, 32, 60, 80, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
    {0, 8, 16, 1, 30, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 16, 16, 1, 30, 40, 3, 3, 1, 1, 5, 5, 5, 5, 5, 5},
    {0, 64, 128, 1, 15, 20, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 128, 128, 128, 15, 20, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
    {0, 256, 8, 1, 8, 10, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 256, 12, 1, 4, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 32, 32, 1, 120, 160, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 8, 1, 60, 80, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 12, 16, 1, 60, 80, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 64, 64, 64, 60, 80, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
    {0, 128, 8, 1, 30, 40, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 256, 4, 1, 15, 20, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 256, 6, 1, 8, 10, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 32, 16, 1, 104, 104, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 32, 64, 1, 52, 52, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 64, 64, 52, 52, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
    {0, 128, 128, 1, 26, 26, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 128, 128, 1, 13, 13, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 64, 64, 52, 52, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 64, 4, 1, 26, 26, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 80, 1, 13, 13, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 64, 16, 1, 13, 13, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 16, 16, 16, 30, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 64, 64, 64, 7, 10, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {0, 64, 51, 1, 15, 20, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {0, 34, 34, 34, 3, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},

};

struct one {
    struct try_node node;
    struct tensor in[4], out; /* in[3]: what a post-operation may add */
    struct kernel_query q;
    const struct kernel_class *class;
    struct kernel_state *state;
};

/* A convolution with constant weights, channels-last. */
static void conv_init(struct one *c, const int64_t *v)
{
    uint64_t seed = 1;
    struct op_window w;
    memset(c, 0, sizeof *c);
    try_init(&c->node, v[0] ? OP_CONV_TRANSPOSE : OP_CONV, 11);
    try_ints(&c->node, "strides", 2, v + 8);
    try_ints(&c->node, "dilations", 2, v + 10);
    try_ints(&c->node, "pads", 4, v + 12);
    try_int(&c->node, "group", v[3]);
    struct tensor_shape x = {4, {1, v[1], v[4], v[5]}, 0};
    c->in[0] = tensor_view(TENSOR_F32, &x, NULL);
    c->in[1] = v[0] ? try_tensor(4, (int64_t[]){v[1], v[2] / v[3], v[6], v[7]}, &seed)
                    : try_tensor(4, (int64_t[]){v[2], v[1] / v[3], v[6], v[7]}, &seed);
    c->in[2] = try_tensor(1, v + 2, &seed);
    assert_int_equal(op_window(&c->node.op, &x, &c->in[1].shape, &w), ERR_OK);
    struct tensor_shape y = {4, {1, v[2], w.out[0], w.out[1]}, 0};
    c->out = tensor_view(TENSOR_F32, &y, NULL);
    tensor_strides_channels_last(&x, c->in[0].strides);
    tensor_strides_channels_last(&y, c->out.strides);
    c->in[3] = c->out;
    c->q = (struct kernel_query){.node = &c->node.op,
                                 .n_in = 3,
                                 .n_out = 1,
                                 .in = c->in,
                                 .out = &c->out,
                                 .threads = 1};
}

static void one_done(struct one *c)
{
    if (c->state) c->class->free(&c->state);
    free(c->in[1].data);
    free(c->in[2].data);
}

static err one_prepare(struct one *c, struct mem_payer *p)
{
    err e = ERR_UNSUPPORTED;
    for (int i = 0; kernels_onednn_classes[i] && e == ERR_UNSUPPORTED; i++) {
        c->class = kernels_onednn_classes[i];
        if (c->class->accepts(&c->q)) e = c->class->prepare(&c->q, p, &c->state);
    }
    return e;
}

static const int64_t SMALL[16] = {0, 24, 40, 1, 20, 20, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1};

static void real_convolutions_get_real_code(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "model");
    for (size_t i = 0; i < ARRAY_LEN(REAL); i++)
        for (int threads = 1; threads <= 2; threads++)
            for (int post = 0; post < 3; post++) {
                struct one c;
                conv_init(&c, REAL[i]);
                c.q.threads = threads;
                c.q.n_post = post; /* nothing; silu; silu and an addition */
                c.q.n_in = post == 2 ? 4 : 3;
                c.q.post[0].kind = KERNEL_POST_SILU;
                c.q.post[1] = (struct kernel_post){.kind = KERNEL_POST_ADD, .input = 3};
                if (one_prepare(&c, p)) fail_msg("row %zu: %s", i, err_text());
                if (strstr(c.class->describe(c.state), "ref"))
                    print_message("# row %zu: %s\n", i, c.class->describe(c.state));
                one_done(&c);
            }
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void equal_ones_share_and_the_charge_moves(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p[2] = {mem_payer_new(b, "model a"), mem_payer_new(b, "model b")};
    struct one c[3];
    for (int i = 0; i < 3; i++) {
        conv_init(&c[i], SMALL);
        assert_int_equal(one_prepare(&c[i], p[i > 0]), ERR_OK);
    }
    size_t bytes = kernels_onednn_usage().bytes,
           own = c[0].class->code_bytes(c[0].state) - bytes; /* code, a state */
    assert_true(bytes >= 4096 && bytes < (4 << 20) && own < 16384);
    assert_int_equal(kernels_onednn_usage().primitives, 1);
    assert_int_equal(mem_budget_used(b), bytes + 3 * own);
    assert_int_equal(mem_payer_used(p[0], MEM_CODE), bytes + own);
    one_done(&c[1]); /* it did not pay for the code: nothing changes for the others */
    assert_int_equal(mem_payer_used(p[0], MEM_CODE), bytes + own);
    one_done(&c[0]);
    assert_int_equal(mem_payer_used(p[0], MEM_CODE), 0);
    assert_int_equal(mem_payer_used(p[1], MEM_CODE), bytes + own);
    mem_payer_free(&p[0]); /* the first model is gone for good */
    one_done(&c[2]);
    assert_int_equal(mem_budget_used(b), 0);
    assert_int_equal(kernels_onednn_usage().primitives, 0);
    mem_payer_free(&p[1]);
    mem_budget_free(&b);
}

static void a_refused_charge_leaves_nothing(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "model");
    bool done = false;
    uint64_t n = 1;
    for (; !done; n++) {
        struct one c;
        conv_init(&c, SMALL);
        mem_fault_at(b, n);
        err e = one_prepare(&c, p);
        done = mem_fault_calls(b) < n;
        mem_fault_at(b, 0);
        if (done) {
            assert_int_equal(e, ERR_OK);
        } else {
            assert_int_equal(e, ERR_NOMEM);
            assert_null(c.state);
            assert_int_equal(mem_budget_used(b), 0);
            assert_int_equal(kernels_onednn_usage().primitives, 0);
        }
        one_done(&c);
    }
    assert_true(n > 3);            /* the state, the code */
    mem_budget_set_limit(b, 1000); /* a real limit, not an injected fault */
    struct one c;
    conv_init(&c, SMALL);
    assert_int_equal(one_prepare(&c, p), ERR_NOMEM);
    one_done(&c);
    assert_int_equal(mem_budget_used(b), 0);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void a_thousand_times_leaves_nothing(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "model");
    uint64_t before = 0;
    for (int i = 0; i < 1000; i++) {
        struct one c;
        int64_t v[16];
        memcpy(v, SMALL, sizeof v);
        v[4] += i % 10;
        conv_init(&c, v);
        assert_int_equal(one_prepare(&c, p), ERR_OK);
        one_done(&c);
        if (i == 100) before = mem_process_rss().anon;
    }
    uint64_t after = mem_process_rss().anon;
    print_message("# RssAnon after 100: %llu KiB, after 1000: %llu KiB\n", (unsigned long long)before >> 10,
                  (unsigned long long)after >> 10);
    if (!SANITIZED) assert_true(after < before + (1 << 20));
    assert_int_equal(mem_budget_used(b), 0);
    assert_int_equal(kernels_onednn_usage().primitives, 0);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void many(struct one *c, int n, struct mem_payer *p)
{
    for (int i = 0; i < n; i++) {
        int64_t v[16];
        memcpy(v, SMALL, sizeof v);
        v[6] = v[7] = i % 2 ? 1 : 3;
        v[12] = v[13] = v[14] = v[15] = i % 2 ? 0 : 1;
        v[4] += i;
        conv_init(&c[i], v);
        assert_int_equal(one_prepare(&c[i], p), ERR_OK);
        free(c[i].in[1].data); /* 35 KB of this test's own would blur the picture */
        c[i].in[1].data = NULL;
    }
}

/* The kernel's word for it: RssAnon grows by what was charged, within a third, over a hundred different primitives;
 * and shrinks. */
static void charges_are_what_the_process_grew(void **state)
{
    (void)state;
    if (SANITIZED) skip();
    enum { FEW = 20, N = 120 };
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "model");
    struct one *c = xnewn(struct one, N), *few = xnewn(struct one, FEW);
    many(few, FEW, p); /* what the library needs once is not any payer's; they stay, and are shared below */
    memset(c, 1, N * sizeof *c);
    uint64_t before = mem_process_rss().anon, paid = mem_budget_used(b);
    many(c, N, p);
    uint64_t grown = mem_process_rss().anon - before, charged = mem_budget_used(b) - paid;
    print_message("# %d more primitives: charged %llu KiB, RssAnon grew by %llu KiB; before: %llu and %llu KiB\n",
                  N - FEW, (unsigned long long)charged >> 10, (unsigned long long)grown >> 10,
                  (unsigned long long)paid >> 10, (unsigned long long)before >> 10);
    assert_true(charged < grown * 4 / 3 && grown < charged * 4 / 3);
    for (int i = 0; i < N; i++) one_done(&c[i]);
    for (int i = 0; i < FEW; i++) one_done(&few[i]);
    free(c);
    free(few);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

/* Packs into its own pages and closes them for writing: a run must not touch weights, padded ones neither. */
static void weights_are_only_read(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "model");
    static const int64_t V[16] = {0, 24, 17, 1, 20, 20, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1};
    struct one c;
    conv_init(&c, V);
    assert_int_equal(one_prepare(&c, p), ERR_OK);
    size_t n = c.class->weight_bytes(c.state, 1), scratch = c.class->scratch_bytes(c.state);
    /* this one is padded wherever there are vectors of 8 or 16 */
    if (n == 17 * 24 * 9 * sizeof(float)) print_message("# not padded on this processor\n");
    void *w = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(c.class->pack(c.state, 1, c.in[1].data, w), ERR_OK);
    assert_int_equal(mprotect(w, n, PROT_READ), 0);
    float *x = xnewn(float, 24 * 400), *y = xnewn(float, 17 * 400);
    void *s = aligned_alloc(64, scratch + 64 - scratch % 64);
    struct kernel_buffers buf = {.in = {x, w, c.in[2].data}, .out = {y}, .scratch = s};
    assert_int_equal(c.class->run(c.state, &buf), ERR_OK);
    for (int i = 0; i < 17; i++) assert_true(y[i] == ((float *)c.in[2].data)[i]);
    munmap(w, n);
    free(x);
    free(y);
    free(s);
    one_done(&c);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

/* Equal words mean equal bytes, whatever the picture's size is. */
static void equal_formats_are_equal_bytes(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "model");
    static const int SIZES[] = {5, 7, 14, 20, 40, 56, 112};
    void *packed[ARRAY_LEN(SIZES)];
    char format[ARRAY_LEN(SIZES)][96];
    size_t bytes[ARRAY_LEN(SIZES)];
    int equal = 0;
    for (size_t i = 0; i < ARRAY_LEN(SIZES); i++) {
        int64_t v[16] = {0, 64, 64, 1, SIZES[i], SIZES[i], 1, 1, 1, 1, 1, 1, 0, 0, 0, 0};
        struct one c;
        conv_init(&c, v);
        assert_int_equal(one_prepare(&c, p), ERR_OK);
        bytes[i] = c.class->weight_bytes(c.state, 1);
        packed[i] = aligned_alloc(64, bytes[i]);
        assert_int_equal(c.class->pack(c.state, 1, c.in[1].data, packed[i]), ERR_OK);
        strcpy(format[i], c.class->weight_format(c.state, 1));
        one_done(&c);
        for (size_t k = 0; k < i; k++) {
            bool same = strcmp(format[i], format[k]) == 0;
            equal += same;
            if (same) assert_true(bytes[i] == bytes[k] && memcmp(packed[i], packed[k], bytes[i]) == 0);
            if (!same) assert_true(bytes[i] != bytes[k] || memcmp(packed[i], packed[k], bytes[i]) != 0);
        }
    }
    print_message("# %d of %zu pairs of sizes share one packed form (%s ...)\n", equal,
                  ARRAY_LEN(SIZES) * (ARRAY_LEN(SIZES) - 1) / 2, format[0]);
    for (size_t i = 0; i < ARRAY_LEN(SIZES); i++) free(packed[i]);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

struct worker {
    pthread_t thread;
    struct mem_payer *payer;
    int number;
    err e;
    float sum;
};

/* Prepares, runs and frees, over and over, what the other threads do, too. */
static void *work(void *arg)
{
    struct worker *w = arg;
    float *x = xnewn(float, 24 * 900), *y = xnewn(float, 40 * 900);
    for (int i = 0; i < 24 * 900; i++) x[i] = (float)(i % 7) - 3;
    for (int i = 0; i < 40 && !w->e; i++) {
        struct one c;
        int64_t v[16];
        memcpy(v, SMALL, sizeof v);
        v[4] += (i + w->number) % 4;
        conv_init(&c, v);
        w->e = one_prepare(&c, w->payer);
        if (!w->e) {
            size_t scratch = c.class->scratch_bytes(c.state);
            void *s = aligned_alloc(64, scratch + 64 - scratch % 64),
                 *p = aligned_alloc(64, c.class->weight_bytes(c.state, 1));
            w->e = c.class->pack(c.state, 1, c.in[1].data, p);
            struct kernel_buffers b = {.in = {x, p, c.in[2].data}, .out = {y}, .scratch = s};
            for (int k = 0; k < 3 && !w->e; k++) w->e = c.class->run(c.state, &b);
            w->sum += y[0] + y[40 * 100 + 7]; /* the same place in all four sizes: far from the lower edge */
            free(p);
            free(s);
        }
        one_done(&c);
    }
    free(x);
    free(y);
    return NULL;
}

static void four_threads_at_once(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct worker w[4] = {0};
    for (int i = 0; i < 4; i++) {
        w[i].payer = mem_payer_new(b, "model");
        w[i].number = i;
        pthread_create(&w[i].thread, NULL, work, &w[i]);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(w[i].thread, NULL);
        assert_int_equal(w[i].e, ERR_OK);
        assert_true(w[i].sum == w[0].sum);
    }
    for (int i = 0; i < 4; i++) mem_payer_free(&w[i].payer);
    assert_int_equal(kernels_onednn_usage().primitives, 0);
    mem_budget_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(charges_are_what_the_process_grew), /* first: the heap has no holes yet */
        cmocka_unit_test(real_convolutions_get_real_code),
        cmocka_unit_test(equal_ones_share_and_the_charge_moves),
        cmocka_unit_test(a_refused_charge_leaves_nothing),
        cmocka_unit_test(a_thousand_times_leaves_nothing),
        cmocka_unit_test(weights_are_only_read),
        cmocka_unit_test(equal_formats_are_equal_bytes),
        cmocka_unit_test(four_threads_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
