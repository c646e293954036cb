/* Every code of the small floats, there and back; the numbers that the formats' papers name; packed integers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tensor/small.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const enum tensor_dtype FLOATS[] = {TENSOR_F8E4M3FN, TENSOR_F8E4M3FNUZ, TENSOR_F8E5M2, TENSOR_F8E5M2FNUZ, TENSOR_F4E2M1};

static void codes_come_back(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(FLOATS); k++)
        for (int code = 0; code < (1 << tensor_small_bits(FLOATS[k])); code++) {
            float v = tensor_small_float(FLOATS[k], (uint8_t)code);
            if (isnan(v))
                assert_true(isnan(tensor_small_float(FLOATS[k], tensor_small_code(FLOATS[k], v, true))));
            else
                assert_int_equal(tensor_small_code(FLOATS[k], v, false), code);
        }
    for (int code = 0; code < 255; code++)
        assert_int_equal(tensor_e8m0_code(tensor_small_float(TENSOR_F8E8M0, (uint8_t)code), true, "nearest"), code);
}

/* Between two neighbours the nearer one is taken, and in the middle the even one. */
static void neighbours_round(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(FLOATS); k++)
        for (int code = 0;; code++) {
            float a = tensor_small_float(FLOATS[k], (uint8_t)code), b = tensor_small_float(FLOATS[k], (uint8_t)(code + 1));
            if (!isfinite(b) || b < a) break;
            float middle = a / 2 + b / 2;
            assert_int_equal(tensor_small_code(FLOATS[k], middle, true), code % 2 ? code + 1 : code);
            assert_int_equal(tensor_small_code(FLOATS[k], nextafterf(middle, a), true), code);
            assert_int_equal(tensor_small_code(FLOATS[k], nextafterf(middle, b), true), code + 1);
        }
}

static void limits(void **state)
{
    (void)state;
    static const float MOST[] = {448, 240, 57344, 57344, 6};
    for (size_t k = 0; k < ARRAY_LEN(FLOATS); k++) {
        assert_true(tensor_small_float(FLOATS[k], tensor_small_code(FLOATS[k], 1e9f, true)) == MOST[k]);
        assert_true(tensor_small_float(FLOATS[k], tensor_small_code(FLOATS[k], -INFINITY, true)) == -MOST[k]);
    }
    assert_int_equal(tensor_small_code(TENSOR_F8E4M3FN, 1e9f, false), 0x7f);
    assert_int_equal(tensor_small_code(TENSOR_F8E5M2, -1e9f, false), 0xfc);
    assert_int_equal(tensor_small_code(TENSOR_F8E4M3FNUZ, 1e9f, false), 0x80);
    assert_int_equal(tensor_small_code(TENSOR_F8E4M3FNUZ, -0.0f, true), 0);
    assert_int_equal(tensor_e8m0_code(3, true, "up"), 129);
    assert_int_equal(tensor_e8m0_code(3, true, "down"), 128);
    assert_int_equal(tensor_e8m0_code(-1, true, "up"), 0xff);
}

static void packed_numbers(void **state)
{
    (void)state;
    uint8_t to[5];
    const uint8_t bytes[] = {0xf1, 0x8e, 0x07};
    tensor_small_unpack(TENSOR_I4, bytes, 5, to);
    const int8_t four[] = {1, -1, -2, -8, 7};
    assert_memory_equal(to, four, 5);
    tensor_small_unpack(TENSOR_U4, bytes, 3, to);
    assert_memory_equal(to, ((uint8_t[]){1, 15, 14}), 3);
    tensor_small_unpack(TENSOR_I2, bytes, 5, to);
    const int8_t two[] = {1, 0, -1, -1, -2};
    assert_memory_equal(to, two, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(codes_come_back), cmocka_unit_test(neighbours_round), cmocka_unit_test(limits),
                                       cmocka_unit_test(packed_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
