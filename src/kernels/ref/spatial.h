/* What convolutions and poolings share: images of up to three spatial axes, channels last.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/ref/ref.h"

/* Sizes of an op_window as three axes (depth, row, column), missing ones in front with size 1. */
struct ref_window {
    int64_t kernel[3], stride[3], dilation[3], pad[3], in[3], out[3];
    int64_t taps, group;
};
err ref_window_read(const struct ref_call *c, const struct tensor_shape *weight, struct ref_window *ret);

/* Position of tap t of the window whose first place is `at`, in [0, in): false if it lies in the padding. */
static inline bool ref_tap(const struct ref_window *w, const int64_t *at, int64_t t, int64_t *ret_pixel)
{
    int64_t x = at[2] + t % w->kernel[2] * w->dilation[2];
    int64_t y = at[1] + t / w->kernel[2] % w->kernel[1] * w->dilation[1];
    int64_t z = at[0] + t / (w->kernel[2] * w->kernel[1]) * w->dilation[0];
    if (x < 0 || y < 0 || z < 0 || x >= w->in[2] || y >= w->in[1] || z >= w->in[0]) return false;
    *ret_pixel = (z * w->in[1] + y) * w->in[2] + x;
    return true;
}

/* acc[4][16] += sum over taps and channels of x[tap * 4 + pixel][channel] * w[tap][channel][16]. */
enum { REF_PIXELS = 4, REF_FILTERS = 16 };
void ref_block(float *acc, const float *const *x, int64_t taps, int64_t channels, const float *w);
