/* brim's own kernels: what is faster here than in oneDNN, or as fast and needs no code to be made.
 *
 *     own:winograd   3x3, stride 1, 8 channels or more, small weights: F(4x4, 3x3), 4 times fewer multiplications (winograd.inc)
 *     own:narrow     few output channels: lanes are pixels of a row, not channels (narrow.inc)
 *     own:product    1x1, stride 1 (product.inc)
 *     own:depthwise  3x3, as many groups as channels (depthwise.inc)
 *     own:binary, own:concat   Add, Sub, Mul, Div and Concat in any layouts; own:softmax of 2 to 8 numbers; own:norm, an InstanceNormalization of up
 *                    to 64 channels (flat.inc)
 *     own:function   Relu and five others from f32 to bf16 or back (flat.inc)
 *     own:gradient   UnaryGrad of nine activations in any layout (flat.inc)
 *     own:split_conv ConvGradWeight in bf16 by parts of the batch (split.c)
 *     own:dropout    DropoutBy, f32 and bf16 (dropout.inc)
 *     own:batch_norm BatchNormTrain and its gradient; own:softmax_grad, own:layer_norm_grad   of rows (train.inc)
 *
 * Written once for LANES floats (lanes.inc) and compiled for AVX-512 and for AVX2; which runs is decided by what oneDNN is allowed to use, so
 * DNNL_MAX_CPU_ISA holds for both. On a processor with neither, no query is accepted. f32 only; channels-last in and out; no code is generated, so
 * making one takes microseconds. Results do not depend on the number of threads. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/kernel.h"

/* NULL-terminated. */
extern const struct kernel_class *const kernels_own_classes[];
