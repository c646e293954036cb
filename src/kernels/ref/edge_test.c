/* Plain C at the edges: numbers that would trap or crash, empty and scalar tensors, foreign indices and
 * attributes, post-ops, bounded outputs, and copies against the obvious loop. SPDX-License-Identifier:
 * Apache-2.0 */
#include "kernels/ref/ref.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct tensor vec(enum tensor_dtype t, int64_t n, const void *data)
{
    struct tensor_shape s = {.rank = 1, .dims = {n}};
    return tensor_view(t, &s, data);
}

static struct tensor scalar(enum tensor_dtype t, const void *data)
{
    struct tensor_shape s = {.rank = 0};
    return tensor_view(t, &s, data);
}

static struct op_node node(enum op_kind kind, int opset, int n_in, int n_out)
{
    return (struct op_node){
        .kind = kind, .name = (char *)(uintptr_t) "", .opset = opset, .n_in = n_in, .n_out = n_out};
}

static struct op_attr int_attr(const char *name, int64_t v)
{
    return (struct op_attr){.name = (char *)(uintptr_t)name, .type = OP_ATTR_INT, .i = v};
}

static struct op_attr text_attr(const char *name, const char *v)
{
    return (struct op_attr){
        .name = (char *)(uintptr_t)name, .type = OP_ATTR_STRING, .s = (char *)(uintptr_t)v};
}

static void test_integer_division(void **state)
{
    (void)state;
    int32_t a[] = {7, -7, INT32_MIN, 5, 0}, b[] = {2, 2, -1, 0, 0}, y[5];
    struct tensor in[] = {vec(TENSOR_I32, 5, a), vec(TENSOR_I32, 5, b)}, out = vec(TENSOR_I32, 5, y);
    struct op_node n = node(OP_DIV, 14, 2, 1);
    assert_int_equal(kernels_ref_run(&n, in, 2, &out, 1), ERR_OK);
    const int32_t want[] = {3, -3, INT32_MIN, 0, 0};
    assert_memory_equal(y, want, sizeof want);
    n.kind = OP_MOD;
    assert_int_equal(kernels_ref_run(&n, in, 2, &out, 1), ERR_OK);
    const int32_t rest[] = {1, 1, 0, 0, 0};
    assert_memory_equal(y, rest, sizeof rest);
    int64_t c[] = {INT64_MIN, INT64_MIN, 1}, d[] = {-1, 0, INT64_MIN}, z[3];
    struct tensor in2[] = {vec(TENSOR_I64, 3, c), vec(TENSOR_I64, 3, d)}, out2 = vec(TENSOR_I64, 3, z);
    n.kind = OP_DIV;
    assert_int_equal(kernels_ref_run(&n, in2, 2, &out2, 1), ERR_OK);
    assert_true(z[0] == INT64_MIN && z[1] == 0 && z[2] == 0);
    uint64_t u[] = {UINT64_MAX, 4}, v[] = {0, 3}, w[2];
    struct tensor in3[] = {vec(TENSOR_U64, 2, u), vec(TENSOR_U64, 2, v)}, out3 = vec(TENSOR_U64, 2, w);
    assert_int_equal(kernels_ref_run(&n, in3, 2, &out3, 1), ERR_OK);
    assert_true(w[0] == 0 && w[1] == 1);
}

static void test_integers_wrap_and_shift(void **state)
{
    (void)state;
    int64_t a[] = {INT64_MAX, INT64_MIN, INT64_MIN}, b[] = {1, -1, INT64_MIN}, y[3];
    struct tensor in[] = {vec(TENSOR_I64, 3, a), vec(TENSOR_I64, 3, b)}, out = vec(TENSOR_I64, 3, y);
    struct op_node n = node(OP_ADD, 14, 2, 1);
    assert_int_equal(kernels_ref_run(&n, in, 2, &out, 1), ERR_OK);
    assert_true(y[0] == INT64_MIN && y[1] == INT64_MAX && y[2] == 0);
    n = node(OP_NEG, 14, 1, 1);
    assert_int_equal(kernels_ref_run(&n, in, 1, &out, 1), ERR_OK);
    assert_true(y[1] == INT64_MIN);
    n.kind = OP_ABS;
    assert_int_equal(kernels_ref_run(&n, in, 1, &out, 1), ERR_OK);
    assert_true(y[1] == INT64_MIN);
    uint64_t u[] = {1, 1, UINT64_MAX}, s[] = {63, 64, UINT64_MAX}, z[3];
    struct op_attr left = text_attr("direction", "LEFT");
    struct tensor in2[] = {vec(TENSOR_U64, 3, u), vec(TENSOR_U64, 3, s)}, out2 = vec(TENSOR_U64, 3, z);
    n = node(OP_BITSHIFT, 11, 2, 1);
    n.attrs = &left;
    n.n_attrs = 1;
    assert_int_equal(kernels_ref_run(&n, in2, 2, &out2, 1), ERR_OK);
    assert_true(z[0] == 1ull << 63 && z[1] == 0 && z[2] == 0);
}

static void test_casts_of_bad_floats(void **state)
{
    (void)state;
    const float x[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, -0.9f};
    int32_t i32[6];
    int64_t i64[6];
    uint64_t u64[6];
    uint8_t truth[6];
    struct tensor in = vec(TENSOR_F32, 6, x), out = vec(TENSOR_I32, 6, i32);
    struct op_node n = node(OP_CAST, 13, 1, 1);
    assert_int_equal(kernels_ref_run(&n, &in, 1, &out, 1), ERR_OK);
    const int32_t want[] = {0, INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN, 0};
    assert_memory_equal(i32, want, sizeof want);
    out = vec(TENSOR_I64, 6, i64);
    assert_int_equal(kernels_ref_run(&n, &in, 1, &out, 1), ERR_OK);
    const int64_t wide[] = {0, INT64_MAX, INT64_MIN, INT64_MAX, INT64_MIN, 0};
    assert_memory_equal(i64, wide, sizeof wide);
    out = vec(TENSOR_U64, 6, u64);
    assert_int_equal(kernels_ref_run(&n, &in, 1, &out, 1), ERR_OK);
    const uint64_t positive[] = {0, UINT64_MAX, 0, UINT64_MAX, 0, 0};
    assert_memory_equal(u64, positive, sizeof positive);
    out = vec(TENSOR_BOOL, 6, truth);
    assert_int_equal(kernels_ref_run(&n, &in, 1, &out, 1), ERR_OK);
    for (int i = 0; i < 6; i++)
        assert_int_equal(truth[i], 1);
}

/* Every half and every rounding of a float near it. */
static void test_halves(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = ref_half_to_float((uint16_t)h);
        if (isnan(f)) {
            assert_true((h & 0x7c00) == 0x7c00 && (h & 0x3ff) != 0);
            assert_true(isnan(ref_half_to_float(ref_float_to_half(f))));
            continue;
        }
        assert_int_equal(ref_float_to_half(f), h);
        int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
        double want = exponent == 31 ? INFINITY
                      : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                     : ldexp(fraction, -24);
        assert_true((double)f == (h & 0x8000 ? -want : want));
        if (exponent < 30 && !(h & 0x8000)) { /* the middle between two halves goes to the even one */
            float next = ref_half_to_float((uint16_t)(h + 1)), middle = (f + next) / 2;
            assert_int_equal(ref_float_to_half(middle), h & 1 ? h + 1 : h);
            assert_int_equal(ref_float_to_half(nextafterf(middle, 1e9f)), h + 1);
            assert_int_equal(ref_float_to_half(nextafterf(middle, -1)), h);
        }
    }
}

static void test_foreign_indices(void **state)
{
    (void)state;
    const float x[] = {1, 2, 3};
    float y[2];
    int64_t ids[] = {0, 3};
    struct tensor in[] = {vec(TENSOR_F32, 3, x), vec(TENSOR_I64, 2, ids)}, out = vec(TENSOR_F32, 2, y);
    struct op_node n = node(OP_GATHER, 13, 2, 1);
    static const int64_t BAD[] = {3, -4, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        ids[1] = BAD[i];
        n.kind = OP_GATHER;
        assert_int_equal(kernels_ref_run(&n, in, 2, &out, 1), ERR_SHAPE);
        n.kind = OP_GATHER_ELEMENTS;
        assert_int_equal(kernels_ref_run(&n, in, 2, &out, 1), ERR_SHAPE);
    }
    ids[1] = -1;
    assert_int_equal(kernels_ref_run(&n, in, 2, &out, 1), ERR_OK);
    assert_true(y[0] == 1 && y[1] == 3);
    const float updates[] = {8, 9};
    float z[3];
    struct tensor all[] = {vec(TENSOR_F32, 3, x), vec(TENSOR_I64, 2, ids), vec(TENSOR_F32, 2, updates)},
                  to = vec(TENSOR_F32, 3, z);
    n = node(OP_SCATTER_ELEMENTS, 16, 3, 1);
    assert_int_equal(kernels_ref_run(&n, all, 3, &to, 1), ERR_OK);
    assert_true(z[0] == 8 && z[1] == 2 && z[2] == 9);
    ids[0] = -4;
    assert_int_equal(kernels_ref_run(&n, all, 3, &to, 1), ERR_SHAPE);
    n.kind = OP_SCATTER_ND;
    struct tensor_shape s = {.rank = 2, .dims = {2, 1}};
    all[1] = tensor_view(TENSOR_I64, &s, ids);
    assert_int_equal(kernels_ref_run(&n, all, 3, &to, 1), ERR_SHAPE);
}

/* Operators whose arguments are numbers of foreign files: any value, never a crash. */
static void test_foreign_arguments(void **state)
{
    (void)state;
    static const int64_t BAD[] = {INT64_MIN, INT64_MIN + 1, -100, -1, 0, 1, 2, 100, INT64_MAX - 1, INT64_MAX};
    static const enum op_kind KINDS[] = {OP_SOFTMAX,
                                         OP_ARGMAX,
                                         OP_CUMSUM,
                                         OP_LP_NORM,
                                         OP_LAYER_NORM,
                                         OP_GATHER,
                                         OP_TOPK,
                                         OP_CONCAT,
                                         OP_SPLIT,
                                         OP_LRN,
                                         OP_TRILU,
                                         OP_EYE_LIKE,
                                         OP_DEPTH_TO_SPACE,
                                         OP_REDUCE_SUM,
                                         OP_GATHER_ND,
                                         OP_SHAPE,
                                         OP_QUANTIZE_LINEAR,
                                         OP_SLICE,
                                         OP_PAD,
                                         OP_ONE_HOT,
                                         OP_SCATTER_ELEMENTS,
                                         OP_FLATTEN};
    float x[12] = {1}, y[64];
    for (size_t k = 0; k < ARRAY_LEN(KINDS); k++)
        for (size_t i = 0; i < ARRAY_LEN(BAD); i++)
            for (size_t j = 0; j < ARRAY_LEN(BAD); j++) {
                struct op_attr attrs[] = {int_attr("axis", BAD[i]),      int_attr("size", BAD[i]),
                                          int_attr("k", BAD[i]),         int_attr("blocksize", BAD[i]),
                                          int_attr("start", BAD[i]),     int_attr("end", BAD[j]),
                                          int_attr("batch_dims", BAD[j])};
                struct op_node n = node(KINDS[k], 13, 3, 2);
                n.attrs = attrs;
                n.n_attrs = ARRAY_LEN(attrs);
                struct tensor_shape s = {.rank = 2, .dims = {3, 4}};
                struct tensor in[] = {tensor_view(TENSOR_F32, &s, x), vec(TENSOR_I64, 1, &BAD[j]),
                                      vec(TENSOR_I64, 1, &BAD[i])};
                struct tensor out[] = {tensor_view(TENSOR_F32, &s, y),
                                       tensor_view(TENSOR_I64, &s, xcalloc(12, 8))};
                if (KINDS[k] == OP_SHAPE) out[0] = vec(TENSOR_I64, 2, y);
                (void)kernels_ref_run(&n, in, 3, out, 2);
                free(out[1].data);
            }
}

static void test_empty_and_scalar(void **state)
{
    (void)state;
    float x = 4, y = 0, nothing;
    struct tensor in = scalar(TENSOR_F32, &x), out = scalar(TENSOR_F32, &y);
    struct op_node n = node(OP_SQRT, 13, 1, 1);
    assert_int_equal(kernels_ref_run(&n, &in, 1, &out, 1), ERR_OK);
    assert_true(y == 2);
    n.kind = OP_REDUCE_SUM;
    assert_int_equal(kernels_ref_run(&n, &in, 1, &out, 1), ERR_OK);
    assert_true(y == 4);
    n.kind = OP_SOFTMAX;
    assert_int_equal(kernels_ref_run(&n, &in, 1, &out, 1), ERR_OK);
    assert_true(y == 1);
    in = vec(TENSOR_F32, 0, &nothing);
    n.kind = OP_REDUCE_MAX;
    assert_int_equal(kernels_ref_run(&n, &in, 1, &out, 1), ERR_OK);
    assert_true(isinf(y) && y < 0);
    static const enum op_kind KINDS[] = {OP_RELU,   OP_SOFTMAX,   OP_IDENTITY, OP_CAST, OP_RESHAPE,
                                         OP_CONCAT, OP_TRANSPOSE, OP_LOG,      OP_CLIP};
    struct tensor empty = vec(TENSOR_F32, 0, NULL);
    for (size_t i = 0; i < ARRAY_LEN(KINDS); i++) {
        struct op_attr axis = int_attr("axis", 0);
        n = node(KINDS[i], 13, 1, 1);
        n.attrs = &axis;
        n.n_attrs = 1;
        assert_int_equal(kernels_ref_run(&n, &in, 1, &empty, 1), ERR_OK);
    }
}

static void test_refuses(void **state)
{
    (void)state;
    float x = 1, y;
    uint8_t b = 1;
    struct tensor in = scalar(TENSOR_F32, &x), out = scalar(TENSOR_F32, &y), truth = scalar(TENSOR_BOOL, &b);
    struct op_node n = node(OP_LOOP, 13, 1, 1);
    assert_int_equal(kernels_ref_run(&n, &in, 1, &out, 1), ERR_UNSUPPORTED);
    n.kind = OP_SQRT;
    assert_int_equal(kernels_ref_run(&n, &truth, 1, &out, 1), ERR_UNSUPPORTED);
    in.dtype = TENSOR_STRING;
    n.kind = OP_IDENTITY;
    assert_int_equal(kernels_ref_run(&n, &in, 1, &out, 1), ERR_UNSUPPORTED);
}

static void test_post_ops(void **state)
{
    (void)state;
    const float a[] = {-3, -1, 0.5f, 4}, b[] = {1, 1, 1, 1}, extra[] = {10, 20, 30, 40};
    float y[4];
    struct tensor in[] = {vec(TENSOR_F32, 4, a), vec(TENSOR_F32, 4, b), vec(TENSOR_F32, 4, extra)},
                  out = vec(TENSOR_F32, 4, NULL);
    struct op_node n = node(OP_ADD, 14, 2, 1);
    struct kernel_query q = {.node = &n,
                             .n_in = 3,
                             .n_out = 1,
                             .in = in,
                             .out = &out,
                             .n_post = 3,
                             .threads = 1,
                             .post = {{.kind = KERNEL_POST_LEAKY_RELU, .alpha = 0.5f},
                                      {.kind = KERNEL_POST_ADD, .input = 2},
                                      {.kind = KERNEL_POST_CLIP, .alpha = 0, .beta = 40}}};
    const struct kernel_class *ref = kernels_list(true)[0];
    struct kernel_state *s;
    struct kernel_buffers buffers = {.in = {a, b, extra}, .out = {y}};
    assert_true(ref->accepts(&q));
    assert_int_equal(ref->prepare(&q, NULL, &s), ERR_OK);
    assert_int_equal(ref->run(s, &buffers), ERR_OK);
    assert_true(y[0] == 9 && y[1] == 20 && y[2] == 31.5f && y[3] == 40);
    ref->free(&s);
    ref->free(&s);
}

/* All permutations of some sizes, and negative and zero steps, against one element at a time. */
static void test_copies(void **state)
{
    (void)state;
    static const int64_t SIZES[][4] = {
        {2, 3, 4, 5}, {1, 17, 33, 2}, {3, 1, 40, 18}, {1, 1, 1, 1}, {2, 16, 16, 16}};
    static const size_t WIDTHS[] = {1, 2, 4, 8};
    enum { MOST = 65536 };
    uint64_t from[MOST], to[MOST], want[MOST];
    for (size_t i = 0; i < MOST; i++)
        from[i] = i * 0x9e3779b97f4a7c15ull;
    for (size_t k = 0; k < ARRAY_LEN(SIZES); k++)
        for (int p = 0; p < 256; p++) {
            int perm[4] = {p & 3, p >> 2 & 3, p >> 4 & 3, p >> 6 & 3};
            unsigned seen = 0;
            for (int i = 0; i < 4; i++)
                seen |= 1u << perm[i];
            if (seen != 15) continue;
            size_t width = WIDTHS[(size_t)(p + (int)k) % 4];
            int64_t ts[4], fs[4], step = 1 + (p & 1), start = 0;
            for (int i = 0; i < 4; i++) {
                fs[perm[i]] = step;
                step *= SIZES[k][perm[i]];
            }
            if (p & 2) { /* backwards along axis 1 */
                start = fs[1] * (SIZES[k][1] - 1);
                fs[1] = -fs[1];
            }
            if ((p & 7) == 7) fs[2] = 0;
            struct tensor_shape s = tensor_shape_of(4, SIZES[k]);
            tensor_strides_row_major(&s, ts);
            memset(to, 0, sizeof to);
            memset(want, 0, sizeof want);
            int64_t index[4] = {0};
            do {
                int64_t a = 0, b = start;
                for (int i = 0; i < 4; i++)
                    a += index[i] * ts[i], b += index[i] * fs[i];
                memcpy((char *)want + a * (int64_t)width, (char *)from + b * (int64_t)width, width);
            } while (ref_next(4, SIZES[k], index));
            ref_copy(width, 4, SIZES[k], to, ts, (char *)from + start * (int64_t)width, fs);
            assert_memory_equal(to, want, sizeof want);
        }
}

/* The list names brim's own classes and oneDNN's in their own order, plain C last. */
extern const struct kernel_class *const kernels_own_classes[];
extern const struct kernel_class *const kernels_onednn_classes[];
static void test_list(void **state)
{
    (void)state;
    setenv("BRIM_ONLY_REF", "1", 1);
    assert_true(kernels_only_ref() && kernels_list(false) == kernels_list(true) && !kernels_have_bf16());
    unsetenv("BRIM_ONLY_REF");
    const struct kernel_class *const *all = kernels_list(false), *const *ref = kernels_list(true);
    size_t n = 0;
    for (; kernels_own_classes[n]; n++)
        assert_ptr_equal(all[n], kernels_own_classes[n]);
    all += n;
    for (n = 0; kernels_onednn_classes[n]; n++)
        assert_ptr_equal(all[n], kernels_onednn_classes[n]);
    assert_ptr_equal(all[n], ref[0]);
    assert_null(all[n + 1]);
    assert_null(ref[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integer_division),
        cmocka_unit_test(test_integers_wrap_and_shift),
        cmocka_unit_test(test_casts_of_bad_floats),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_foreign_indices),
        cmocka_unit_test(test_foreign_arguments),
        cmocka_unit_test(test_empty_and_scalar),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_post_ops),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
