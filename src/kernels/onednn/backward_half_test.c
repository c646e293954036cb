/* Kernels of training on images that lie as bf16, each input and output on its own, against plain C in f32 on the same numbers (which bf16 has exactly).
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/backward.h"
#include "kernels/onednn/backward_testing.h"
#include "kernels/own/conv.h"

extern const struct kernel_class own_batch_norm, own_gradient, own_binary, own_function, own_split_conv;

/* Numbers that bf16 has. */
static struct tensor halves(int rank, const int64_t *dims, uint64_t *seed)
{
    struct tensor t = try_tensor(rank, dims, seed);
    for (int64_t i = 0; i < tensor_count(&t.shape); i++) {
        uint32_t *bits = (uint32_t *)t.data + i;
        *bits &= 0xffff0000;
    }
    return t;
}

/* What only runs over memory works on bf16 without a processor that multiplies it. */
static struct box *box_of(void **state, bool multiplies)
{
    if (!own_lanes() || (multiplies && !kernels_have_bf16())) skip();
    return *state;
}

/* ---- convolutions */

static void conv_case(struct box *b, const struct kernel_class *class, enum op_kind kind, int k, int64_t n, int64_t c, int64_t o, int64_t group, int64_t side)
{
    uint64_t *s = &b->seed;
    int64_t image[] = {n, c, side, side}, weight[] = {o, c / group, 3, 3}, result[] = {n, o, side, side};
    struct try_node node;
    try_init(&node, kind, 13);
    try_int(&node, "group", group);
    try_ints(&node, "pads", 4, (int64_t[]){1, 1, 1, 1});
    if (kind == OP_CONV_GRAD_WEIGHT) try_ints(&node, "shape", 4, weight);
    bool bias = kind == OP_CONV_GRAD_WEIGHT && (k & 1);
    struct tensor x = halves(4, image, s), w = halves(4, weight, s), y = halves(4, result, s), in[2] = {x, w}, out[2] = {y};
    node.op.n_in = 2;
    node.op.n_out = 1 + bias;
    if (kind == OP_CONV_TRANSPOSE) in[0] = y, out[0] = x;
    if (kind == OP_CONV_GRAD_WEIGHT) in[0] = y, in[1] = x, out[0] = w;
    if (bias) out[1] = halves(1, weight, s);
    char what[80];
    snprintf(what, sizeof what, "%s %d: images %x of inputs, %x of outputs are bf16", op_name(kind), k, b->half_in, b->half_out);
    check(b, class, &node, in, 2, out, node.op.n_out, what);
}

static void test_conv(void **state)
{
    static const enum op_kind KINDS[] = {OP_CONV, OP_CONV_TRANSPOSE, OP_CONV_GRAD_WEIGHT};
    struct box *b = box_of(state, true);
    b->half = true;
    for (int k = 0; k < 72; k++) {
        enum op_kind kind = KINDS[k % 3];
        bool sums = kind == OP_CONV_GRAD_WEIGHT;
        b->half_in = (unsigned)try_below(&b->seed, sums ? 4 : 2);
        b->half_out = sums ? 0 : (unsigned)try_below(&b->seed, 2);
        int64_t group = k % 5 == 4 ? 32 : 1, c = group > 1 ? 32 : 1 + try_below(&b->seed, 70), o = group > 1 ? 32 : 1 + try_below(&b->seed, 70);
        conv_case(b, &onednn_train_conv, kind, k, 1 + try_below(&b->seed, 4), c, o, group, 4 + try_below(&b->seed, 12));
    }
    assert_int_equal(b->taken, b->asked);
}

/* Few and many pictures for the weights: parts of channels, and of pictures. */
static void test_split(void **state)
{
    static const int64_t SIZES[][5] = {{2, 64, 128, 4, 0}, {4, 128, 64, 8, 0}, {2, 256, 256, 3, 0}, {6, 32, 48, 20, 0}, {2, 48, 64, 30, 1}, {3, 128, 64, 8, 0}};
    struct box *b = box_of(state, true);
    b->half = true;
    b->least_threads = 2;
    for (int k = 0; k < 24; k++) {
        const int64_t *z = SIZES[k % 6];
        b->half_in = (unsigned)k % 4;
        conv_case(b, &own_split_conv, OP_CONV_GRAD_WEIGHT, k, z[0], z[1], z[2], 1, z[3]);
    }
    print_message("# split %d of %d\n", b->taken, b->asked);
    assert_true(b->taken > 12 && b->taken < b->asked); /* odd numbers of pictures, and what is not worth it, are not taken */
}

/* What is added after a backward convolution, of either type. */
static void test_add(void **state)
{
    struct box *b = box_of(state, true);
    b->half = true;
    int64_t weight[] = {8, 16, 3, 3}, small[] = {2, 8, 6, 6}, image[] = {2, 16, 6, 6};
    struct kernel_post post = {.kind = KERNEL_POST_ADD, .input = 2};
    for (unsigned k = 0; k < 8; k++) {
        struct try_node n;
        try_init(&n, OP_CONV_TRANSPOSE, 13);
        try_ints(&n, "pads", 4, (int64_t[]){1, 1, 1, 1});
        n.op.n_in = 2;
        n.op.n_out = 1;
        struct tensor in[3] = {halves(4, small, &b->seed), halves(4, weight, &b->seed), halves(4, image, &b->seed)}, out = try_tensor(4, image, &b->seed),
                      want = try_tensor(4, image, &b->seed);
        b->half_in = (k & 1) | (k & 2) << 1;
        b->half_out = k >> 2;
        assert_int_equal(kernels_ref_run(&n.op, in, 2, &want, 1), ERR_OK);
        assert_true(run_class(b, &onednn_train_conv, &n, in, 3, &out, 1, 1, &post, 1));
        for (int64_t i = 0; i < tensor_count(&out.shape); i++) {
            float w = ((float *)want.data)[i] + ((float *)in[2].data)[i];
            assert_float_equal(((float *)out.data)[i], w, b->half_out ? 0.05 : 1e-3); /* rounded before and after */
        }
        for (int i = 0; i < 3; i++) free(in[i].data);
        free(out.data);
        free(want.data);
    }
}

/* ---- what runs over memory */

static void test_norm(void **state)
{
    struct box *b = box_of(state, false);
    for (int k = 0; k < 48; k++) {
        uint64_t *s = &b->seed;
        bool forward = k & 1;
        int64_t dims[] = {2 + try_below(s, 3), 1 + try_below(s, k % 8 > 5 ? 200 : 40), 2 + try_below(s, 20), 1 + try_below(s, 20)}, c = dims[1];
        struct try_node n;
        try_init(&n, forward ? OP_BATCH_NORM_TRAIN : OP_BATCH_NORM_GRAD, 13);
        struct tensor in[5], out[5];
        in[0] = halves(4, dims, s);
        for (int i = 1; i < 5; i++) in[i] = !forward && i == 1 ? halves(4, dims, s) : try_tensor(1, &c, s);
        for (int64_t i = 0; i < c; i++) ((float *)in[4].data)[i] = fabsf(((float *)in[4].data)[i]) + 0.5f;
        n.op.n_in = 5;
        n.op.n_out = forward ? 5 : 3;
        for (int i = 0; i < n.op.n_out; i++) out[i] = i ? try_tensor(1, &c, s) : try_tensor(4, dims, s);
        b->half_in = (unsigned)try_below(s, forward ? 2 : 4);
        b->half_out = (unsigned)try_below(s, 2);
        check(b, &own_batch_norm, &n, in, 5, out, n.op.n_out, forward ? "BatchNormTrain" : "BatchNormGrad");
    }
    assert_int_equal(b->taken, b->asked);
}

static void test_functions(void **state)
{
    static const struct {
        enum op_kind kind;
        const char *of;
    } KINDS[] = {{OP_RELU, "Relu"}, {OP_LEAKY_RELU, "LeakyRelu"}, {OP_SIGMOID, "Sigmoid"}, {OP_SILU, "Silu"}, {OP_HARD_SWISH, "HardSwish"}, {OP_HARD_SIGMOID, "HardSigmoid"}};
    struct box *b = box_of(state, false);
    for (int k = 0; k < 60; k++) {
        uint64_t *s = &b->seed;
        int64_t dims[] = {1 + try_below(s, 3), 1 + try_below(s, 40), 1 + try_below(s, 9), 1 + try_below(s, 90)};
        struct try_node n;
        bool forward = k & 1;
        try_init(&n, forward ? KINDS[k % 6].kind : OP_UNARY_GRAD, 13);
        if (!forward) try_word(&n, "of", KINDS[k / 2 % 6].of);
        n.op.n_in = forward ? 1 : 2;
        n.op.n_out = 1;
        struct tensor in[2] = {halves(4, dims, s), halves(4, dims, s)}, out = try_tensor(4, dims, s);
        b->half_in = forward ? (unsigned)(k / 2 % 2) : (unsigned)try_below(s, 4);
        b->half_out = forward ? 1 - b->half_in : (unsigned)try_below(s, 2);
        if (forward) free(in[1].data);
        check(b, forward ? &own_function : &own_gradient, &n, in, n.op.n_in, &out, 1, forward ? op_name(n.op.kind) : KINDS[k / 2 % 6].of);
    }
    assert_int_equal(b->taken, b->asked);
}

/* All that is no single type; broadcasts, too. */
static void test_sums(void **state)
{
    static const enum op_kind KINDS[] = {OP_ADD, OP_SUB, OP_MUL};
    struct box *b = box_of(state, false);
    for (int k = 0; k < 60; k++) {
        uint64_t *s = &b->seed;
        int64_t dims[] = {1 + try_below(s, 3), 1 + try_below(s, 40), 1 + try_below(s, 9), 1 + try_below(s, 90)}, one[] = {1, dims[1], 1, 1};
        unsigned types = 1 + (unsigned)try_below(s, 6);
        struct try_node n;
        try_init(&n, KINDS[k % 3], 14);
        n.op.n_in = 2;
        n.op.n_out = 1;
        struct tensor in[2] = {halves(4, dims, s), halves(4, k % 4 ? dims : one, s)}, out = try_tensor(4, dims, s);
        b->half_in = types & 3;
        b->half_out = types >> 2;
        check(b, &own_binary, &n, in, 2, &out, 1, op_name(n.op.kind));
    }
    assert_int_equal(b->taken, b->asked);
}

/* Stacks of matrices, transposed ones, too. Tensors are f32; what is multiplied has few enough bits for bf16. */
static void test_matmul(void **state)
{
    struct box *b = box_of(state, true);
    b->half = true;
    for (int k = 0; k < 24; k++) {
        uint64_t *s = &b->seed;
        int64_t m = 160 + try_below(s, 200), n = 160 + try_below(s, 200), inner = 160 + try_below(s, 100), x[] = {2, 3, m, inner}, w[] = {2, 3, inner, n}, y[] = {2, 3, m, n};
        int rank = 2 + k % 3, skip = 4 - rank;
        struct try_node node;
        try_init(&node, OP_MATMUL, 13);
        node.op.n_in = 2;
        node.op.n_out = 1;
        struct tensor in[2] = {halves(rank, x + skip, s), halves(rank, w + skip, s)}, out = try_tensor(rank, y + skip, s);
        for (int i = 0; i < 2; i++) { /* as a Transpose leaves it */
            int64_t *t = in[i].strides + rank - 2, rows = in[i].shape.dims[rank - 2];
            if (k / 3 >> i & 1) t[0] = 1, t[1] = rows;
        }
        check(b, &onednn_train_matmul, &node, in, 2, &out, 1, "MatMul");
    }
    assert_int_equal(b->taken, b->asked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_conv, set_up, tear_down),      cmocka_unit_test_setup_teardown(test_split, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_add, set_up, tear_down),       cmocka_unit_test_setup_teardown(test_norm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_functions, set_up, tear_down), cmocka_unit_test_setup_teardown(test_sums, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_matmul, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
