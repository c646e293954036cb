/* exp, sigmoid and tanh of float32 without branches and calls, so that a loop of them becomes vector code.
 *
 * exp: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial of degree 6 in r (Cephes, expf.c: below 2 ulp), then
 * 2^n in two steps so that subnormal results and infinity come out right. NaN stays NaN.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#define REF_INLINE static inline __attribute__((always_inline))

REF_INLINE float ref_scale2(int32_t n)
{
    int32_t bits = (int32_t)((uint32_t)(n + 127) << 23);
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

REF_INLINE float ref_expf(float x)
{
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float shifted =
        x * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: the integer part ends up in the low bits */
    int32_t n;
    memcpy(&n, &shifted, sizeof n);
    n = (int32_t)((uint32_t)n - 0x4b400000u);
    n = n < -160 ? -160 : n; /* NaN */
    n = n > 160 ? 160 : n;
    float whole = shifted - 12582912.0f;
    float r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    int32_t half = n >> 1;
    return y * ref_scale2(half) * ref_scale2(n - half);
}

REF_INLINE float ref_sigmoidf(float x)
{
    return 1.0f / (1.0f + ref_expf(-x));
}

REF_INLINE float ref_tanhf(float x)
{
    float z = x * x;
    float near = -5.70498872745e-3f;
    near = near * z + 2.06390887954e-2f;
    near = near * z - 5.37397155531e-2f;
    near = near * z + 1.33314422036e-1f;
    near = near * z - 3.33332819422e-1f;
    near = near * z * x + x;
    float far = 1.0f - 2.0f / (ref_expf(2.0f * x) + 1.0f);
    return fabsf(x) < 0.625f ? near : far;
}
