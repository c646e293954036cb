/* oneDNN's kernels of training against plain C, over drawn shapes, and what they charge. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/backward.h"
#include "kernels/onednn/backward_testing.h"
#include "kernels/own/conv.h"

extern const struct kernel_class own_batch_norm, own_gradient, own_softmax_grad, own_layer_norm_grad;

static void test_conv(void **state)
{
    struct box *b = *state;
    static const enum op_kind KINDS[] = {OP_CONV, OP_CONV_TRANSPOSE, OP_CONV_GRAD_WEIGHT};
    for (int k = 0; k < 120; k++) {
        uint64_t *s = &b->seed;
        enum op_kind kind = KINDS[k % 3];
        int64_t group = try_below(s, 3) ? 1 : 1 + try_below(s, 8), own = 1 + try_below(s, k & 1 ? 20 : 3), each = 1 + try_below(s, k & 1 ? 20 : 2);
        int64_t image[] = {1 + try_below(s, 3), group * own, 4 + try_below(s, 9), 4 + try_below(s, 9)}, kernel[] = {1 + try_below(s, 3), 1 + try_below(s, 3)};
        int64_t strides[] = {1 + try_below(s, 2), 1 + try_below(s, 2)}, dilations[] = {1 + try_below(s, 2), 1}, pads[4], result[4] = {image[0], group * each}, rest[2];
        int64_t weight[] = {group * each, own, kernel[0], kernel[1]};
        for (int i = 0; i < 4; i++) pads[i] = try_below(s, 2);
        bool fits = true;
        for (int i = 0; i < 2; i++) {
            int64_t room = image[2 + i] + pads[i] + pads[2 + i] - (kernel[i] - 1) * dilations[i] - 1;
            fits &= room >= 0;
            result[2 + i] = room / strides[i] + 1;
            rest[i] = room % strides[i];
        }
        if (!fits) continue;
        struct try_node n;
        try_init(&n, kind, 13);
        try_int(&n, "group", group);
        try_ints(&n, "strides", 2, strides);
        try_ints(&n, "dilations", 2, dilations);
        try_ints(&n, "pads", 4, pads);
        if (kind == OP_CONV_TRANSPOSE) try_ints(&n, "output_padding", 2, rest);
        if (kind == OP_CONV_GRAD_WEIGHT) try_ints(&n, "shape", 4, weight);
        struct tensor x = try_tensor(4, image, s), w = try_tensor(4, weight, s), y = try_tensor(4, result, s), bias = try_tensor(1, weight, s);
        int more = kind != OP_CONV_TRANSPOSE && (k & 2);
        n.op.n_in = kind == OP_CONV ? 2 + more : 2;
        n.op.n_out = kind == OP_CONV_GRAD_WEIGHT ? 1 + more : 1;
        struct tensor in[3] = {x, w, bias}, out[2] = {y, bias};
        if (kind == OP_CONV_TRANSPOSE) in[0] = y, out[0] = x;
        if (kind == OP_CONV_GRAD_WEIGHT) in[0] = y, in[1] = x, out[0] = w;
        if (!more) free(bias.data);
        char what[60];
        snprintf(what, sizeof what, "%s %d", op_name(kind), k);
        check(b, &onednn_train_conv, &n, in, n.op.n_in, out, n.op.n_out, what);
    }
    print_message("# oneDNN took %d of %d\n", b->taken, b->asked);
    assert_true(b->taken * 10 > b->asked * 7);
}

/* The sizes of a ResNet's last layers, where oneDNN takes other ways. */
static void test_big(void **state)
{
    struct box *b = *state;
    static const int64_t SHAPES[][4] = {{512, 512, 2, 1}, {512, 256, 4, 2}, {512, 256, 4, 1}, {64, 64, 16, 1}};
    for (int k = 0; k < 12; k++) {
        int64_t o = SHAPES[k / 3][0], c = SHAPES[k / 3][1], side = SHAPES[k / 3][2], stride = SHAPES[k / 3][3], out_side = (side - 1) / stride + 1;
        int64_t image[] = {4, c, side, side}, weight[] = {o, c, 3, 3}, result[] = {4, o, out_side, out_side};
        static const enum op_kind KINDS[] = {OP_CONV, OP_CONV_TRANSPOSE, OP_CONV_GRAD_WEIGHT};
        enum op_kind kind = KINDS[k % 3];
        struct try_node n;
        try_init(&n, kind, 13);
        try_ints(&n, "strides", 2, (int64_t[]){stride, stride});
        try_ints(&n, "pads", 4, (int64_t[]){1, 1, 1, 1});
        if (kind == OP_CONV_TRANSPOSE) try_ints(&n, "output_padding", 2, (int64_t[]){(side + 1) % stride, (side + 1) % stride});
        if (kind == OP_CONV_GRAD_WEIGHT) try_ints(&n, "shape", 4, weight);
        struct tensor x = try_tensor(4, image, &b->seed), w = try_tensor(4, weight, &b->seed), y = try_tensor(4, result, &b->seed);
        n.op.n_in = 2;
        n.op.n_out = 1;
        struct tensor in[2] = {x, w}, out[1] = {y};
        if (kind == OP_CONV_TRANSPOSE) in[0] = y, out[0] = x;
        if (kind == OP_CONV_GRAD_WEIGHT) in[0] = y, in[1] = x, out[0] = w;
        char what[60];
        snprintf(what, sizeof what, "%s big %d", op_name(kind), k);
        check(b, &onednn_train_conv, &n, in, 2, out, 1, what);
    }
}

/* What is added after a backward convolution. */
static void test_add(void **state)
{
    struct box *b = *state;
    struct try_node n;
    int64_t weight[] = {8, 16, 3, 3}, small[] = {2, 8, 6, 6}, image[] = {2, 16, 6, 6};
    try_init(&n, OP_CONV_TRANSPOSE, 13);
    try_ints(&n, "pads", 4, (int64_t[]){1, 1, 1, 1});
    n.op.n_in = 2;
    n.op.n_out = 1;
    struct tensor in[3] = {try_tensor(4, small, &b->seed), try_tensor(4, weight, &b->seed), try_tensor(4, image, &b->seed)}, out = try_tensor(4, image, &b->seed),
                  want = try_tensor(4, image, &b->seed);
    struct kernel_post post = {.kind = KERNEL_POST_ADD, .input = 2};
    assert_int_equal(kernels_ref_run(&n.op, in, 2, &want, 1), ERR_OK);
    assert_true(run_class(b, &onednn_train_conv, &n, in, 3, &out, 1, 1, &post, 1));
    for (int64_t i = 0; i < tensor_count(&out.shape); i++)
        assert_float_equal(((float *)out.data)[i], ((float *)want.data)[i] + ((float *)in[2].data)[i], 1e-3);
    for (int i = 0; i < 3; i++) free(in[i].data);
    free(out.data);
    free(want.data);
}

static void norm_cases(struct box *b, const struct kernel_class *class, int cases, int64_t side)
{
    for (int k = 0; k < cases; k++) {
        uint64_t *s = &b->seed;
        bool forward = k & 1;
        int64_t dims[] = {2 + try_below(s, 3), 1 + try_below(s, k % 8 > 5 ? 200 : 40), 2 + try_below(s, side), 1 + try_below(s, side)}, c = dims[1];
        struct try_node n;
        try_init(&n, forward ? OP_BATCH_NORM_TRAIN : OP_BATCH_NORM_GRAD, 13);
        try_float(&n, "epsilon", 1e-3f);
        struct tensor in[5], out[5];
        in[0] = try_tensor(4, dims, s);
        for (int i = 1; i < 5; i++) in[i] = !forward && i == 1 ? try_tensor(4, dims, s) : try_tensor(1, &c, s);
        for (int64_t i = 0; i < c; i++) ((float *)in[4].data)[i] = fabsf(((float *)in[4].data)[i]) + 0.5f;
        int n_out = forward ? 5 : 3;
        for (int i = 0; i < n_out; i++) out[i] = i ? try_tensor(1, &c, s) : try_tensor(4, dims, s);
        if (!forward) { /* true statistics: oneDNN assumes them */
            struct tensor y[5];
            for (int i = 0; i < 5; i++) y[i] = i ? try_tensor(1, &c, s) : try_tensor(4, dims, s);
            struct try_node t;
            try_init(&t, OP_BATCH_NORM_TRAIN, 13);
            struct tensor from[5] = {in[1], in[2], in[2], in[2], in[2]};
            t.op.n_in = t.op.n_out = 5;
            assert_int_equal(kernels_ref_run(&t.op, from, 5, y, 5), ERR_OK);
            relay(&y[1], &in[3]);
            relay(&y[2], &in[4]);
            for (int i = 0; i < 5; i++) free(y[i].data);
        }
        n.op.n_in = 5;
        n.op.n_out = n_out;
        if (k % 3 == 0) /* far from 0, as a layer without a normalisation before it */
            for (int64_t i = 0; i < tensor_count(&in[!forward].shape) && forward; i++) ((float *)in[0].data)[i] += 30;
        check(b, class, &n, in, 5, out, n_out, forward ? "BatchNormTrain" : "BatchNormGrad");
    }
}

static void test_norm(void **state)
{
    struct box *b = *state;
    norm_cases(b, &onednn_train_norm, 24, 6);
    print_message("# oneDNN took %d of %d\n", b->taken, b->asked);
    assert_true(b->taken * 2 > b->asked);
}

/* brim's own: all of them, small and large enough for several tasks. */
static void test_own_norm(void **state)
{
    struct box *b = *state;
    if (!own_lanes()) skip();
    norm_cases(b, &own_batch_norm, 24, 6);
    norm_cases(b, &own_batch_norm, 12, 40);
    assert_int_equal(b->taken, b->asked);
}

static void test_own_gradient(void **state)
{
    static const struct {
        const char *of;
        bool by_y; /* between 0 and 1 */
    } KINDS[] = {{"Relu", false}, {"LeakyRelu", false}, {"Clip", false}, {"Sigmoid", true}, {"Tanh", true}, {"HardSigmoid", false}, {"HardSwish", false},
                 {"Silu", false}, {"Gelu", false}, {"Gelu", false}};
    struct box *b = *state;
    if (!own_lanes()) skip();
    for (int k = 0; k < 60; k++) {
        uint64_t *s = &b->seed;
        int64_t dims[] = {1 + try_below(s, 3), 1 + try_below(s, 40), 1 + try_below(s, 9), 1 + try_below(s, k < 8 ? 2 : 90)};
        struct try_node n;
        try_init(&n, OP_UNARY_GRAD, 13);
        try_word(&n, "of", KINDS[k % 10].of);
        if (k % 10 == 2) try_float(&n, "alpha", -0.3f), try_float(&n, "beta", 0.6f);
        if (k >= 24 && k % 10 == 1) try_float(&n, "alpha", 0.2f);
        if (k % 10 == 8) try_word(&n, "approximate", "tanh");
        struct tensor in[2] = {try_tensor(4, dims, s), try_tensor(4, dims, s)}, out = try_tensor(4, dims, s);
        for (int64_t i = 0; i < tensor_count(&in[1].shape); i++) {
            float *v = &((float *)in[1].data)[i];
            *v = KINDS[k % 10].by_y ? fabsf(sinf(*v)) : i % 97 == 13 ? 0 : *v * (k & 16 ? 8 : 1);
        }
        n.op.n_in = 2;
        n.op.n_out = 1;
        check(b, &own_gradient, &n, in, 2, &out, 1, KINDS[k % 10].of);
    }
    assert_int_equal(b->taken, b->asked);
}

static void test_own_rows(void **state)
{
    struct box *b = *state;
    if (!own_lanes()) skip();
    for (int k = 0; k < 36; k++) {
        uint64_t *s = &b->seed;
        int64_t dims[] = {1 + try_below(s, 4), 1 + try_below(s, k < 6 ? 300 : 20), 1 + try_below(s, k % 6 > 3 ? 200 : 30)};
        struct try_node n;
        try_init(&n, k % 3 == 2 ? OP_LAYER_NORM_GRAD : OP_SOFTMAX_GRAD, 17);
        if (k % 3 == 1) try_word(&n, "of", "LogSoftmax");
        struct tensor in[3] = {try_tensor(3, dims, s), try_tensor(3, dims, s), try_tensor(1, dims + 2, s)};
        struct tensor out[3] = {try_tensor(3, dims, s), try_tensor(1, dims + 2, s), try_tensor(1, dims + 2, s)};
        bool layer = n.op.kind == OP_LAYER_NORM_GRAD;
        for (int64_t i = 0; i < tensor_count(&in[1].shape) && layer && k % 4 == 0; i++) ((float *)in[1].data)[i] += 20;
        n.op.n_in = layer ? 3 : 2;
        n.op.n_out = layer ? 3 : 1;
        if (!layer) free(in[2].data), free(out[1].data), free(out[2].data);
        check(b, layer ? &own_layer_norm_grad : &own_softmax_grad, &n, in, n.op.n_in, out, n.op.n_out, op_name(n.op.kind));
    }
    assert_int_equal(b->taken, b->asked);
}

static void test_product(void **state)
{
    struct box *b = *state;
    for (int k = 0; k < 32; k++) {
        uint64_t *s = &b->seed;
        int64_t m = 1 + try_below(s, 40), n = 1 + try_below(s, 40), inner = 1 + try_below(s, 40);
        int64_t a[] = {k & 1 ? inner : m, k & 1 ? m : inner}, c[] = {k & 2 ? n : inner, k & 2 ? inner : n}, y[] = {m, n};
        struct try_node node;
        try_init(&node, OP_GEMM, 13);
        try_int(&node, "transA", k & 1);
        try_int(&node, "transB", (k & 2) != 0);
        struct tensor in[] = {try_tensor(2, a, s), try_tensor(2, c, s), try_tensor(1, &n, s)}, out = try_tensor(2, y, s);
        if (!(k & 4)) free(in[2].data);
        node.op.n_in = k & 4 ? 3 : 2;
        node.op.n_out = 1;
        check(b, &onednn_train_product, &node, in, node.op.n_in, &out, 1, "Gemm");
    }
    assert_int_equal(b->taken, b->asked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_conv, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_big, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_add, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_norm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_norm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_gradient, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_rows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_product, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
