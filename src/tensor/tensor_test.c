/* Tests of shapes and views; reshaping is checked by brute force over every element. SPDX-License-Identifier: Apache-2.0 */
#include "tensor/tensor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SHAPE(...)                                                                                           \
    tensor_shape_of((int)ARRAY_LEN(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__})

static int64_t offset_of(const struct tensor *t, int64_t index)
{
    int64_t at = 0;
    for (int i = t->shape.rank - 1; i >= 0; i--) {
        at += index % t->shape.dims[i] * t->strides[i];
        index /= t->shape.dims[i];
    }
    return at;
}

static void counts_are_checked(void **state)
{
    (void)state;
    int64_t n = -7;
    struct tensor_shape s = SHAPE(1 << 20, 1 << 20, 1 << 20);
    assert_int_equal(tensor_shape_count(&s, &n), ERR_LIMIT);
    s = SHAPE(INT64_MAX, INT64_MAX, 0);
    assert_int_equal(tensor_shape_count(&s, &n), ERR_LIMIT);
    s = SHAPE(3, TENSOR_SYMBOL(0));
    assert_int_equal(tensor_shape_count(&s, &n), ERR_SHAPE);
    assert_int_equal(n, -7);
    s = (struct tensor_shape){0};
    assert_int_equal(tensor_shape_count(&s, &n), ERR_OK);
    assert_int_equal(n, 1);
}

static void broadcasting_is_numpys(void **state)
{
    (void)state;
    struct tensor_shape a = SHAPE(4, 1, 3), b = SHAPE(5, 1), c, want = SHAPE(4, 5, 3);
    assert_int_equal(tensor_broadcast(&a, &b, &c), ERR_OK);
    assert_true(tensor_shape_equal(&c, &want));
    b = SHAPE(2, 3, 4);
    assert_int_equal(tensor_broadcast(&a, &b, &c), ERR_SHAPE);
    assert_string_equal(err_text(), "[4, 1, 3] and [2, 3, 4] do not broadcast");
}

static void layouts_are_strides(void **state)
{
    (void)state;
    struct tensor_shape s = SHAPE(2, 3, 4, 5);
    struct tensor t = tensor_view(TENSOR_F32, &s, NULL), u = t;
    assert_true(tensor_is_row_major(&t) && !tensor_is_channels_last(&t));
    tensor_strides_channels_last(&s, u.strides);
    assert_true(tensor_is_channels_last(&u) && !tensor_same_dense_layout(&t, &u));
    assert_int_equal(tensor_span(&u), 120);
    s = SHAPE(1, 3, 1, 1);
    t = tensor_view(TENSOR_F32, &s, NULL);
    assert_true(tensor_is_row_major(&t) && tensor_is_channels_last(&t));
}

static void reshaping_views_is_right_or_refused(void **state)
{
    (void)state;
    const struct tensor_shape to[] = {SHAPE(24),      SHAPE(2, 12),       SHAPE(6, 4),    SHAPE(2, 3, 4),
                                      SHAPE(4, 3, 2), SHAPE(1, 24, 1),    SHAPE(3, 8),    SHAPE(2, 3, 2, 2),
                                      SHAPE(8, 3),    SHAPE(1, 2, 12, 1), SHAPE(2, 2, 6)};
    struct tensor_shape from = SHAPE(2, 3, 4);
    int seen = 0;
    for (int order = 0; order < 4; order++) {
        struct tensor t = tensor_view(TENSOR_F32, &from, NULL);
        if (order == 1) t.strides[0] = 4, t.strides[1] = 8;                   /* axes 0 and 1 swapped */
        if (order == 2) t.strides[0] = 1, t.strides[1] = 2, t.strides[2] = 6; /* reversed */
        if (order == 3) t.strides[0] = 40, t.strides[1] = 12, t.strides[2] = 3; /* gaps */
        for (size_t k = 0; k < ARRAY_LEN(to); k++) {
            struct tensor v;
            if (!tensor_reshape_view(&t, &to[k], &v)) continue;
            seen++;
            for (int64_t i = 0; i < 24; i++) assert_int_equal(offset_of(&v, i), offset_of(&t, i));
        }
    }
    assert_true(seen >= 16);
    struct tensor t = tensor_view(TENSOR_F32, &from, NULL), v;
    for (size_t k = 0; k < ARRAY_LEN(to); k++) assert_true(tensor_reshape_view(&t, &to[k], &v));
    struct tensor_shape other = SHAPE(5, 5);
    assert_false(tensor_reshape_view(&t, &other, &v));
}

static void texts(void **state)
{
    (void)state;
    char buf[64], tiny[6];
    struct tensor_shape s = SHAPE(1, TENSOR_SYMBOL(0), 7);
    s.bounded = 4;
    assert_string_equal(tensor_shape_text(&s, NULL, buf, sizeof buf), "[1, ?0, <=7]");
    assert_string_equal(tensor_shape_text(&s, (const char *[]){"N"}, buf, sizeof buf), "[1, N, <=7]");
    tensor_shape_text(&s, NULL, tiny, sizeof tiny);
    assert_true(strlen(tiny) < sizeof tiny);
    assert_string_equal(tensor_dtype_name(TENSOR_BF16), "bfloat16");
    assert_int_equal(tensor_dtype_size(TENSOR_BF16), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts_are_checked), cmocka_unit_test(broadcasting_is_numpys),
                                       cmocka_unit_test(layouts_are_strides),
                                       cmocka_unit_test(reshaping_views_is_right_or_refused), cmocka_unit_test(texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
