/* The kernels of own.h for vectors of 16 floats. SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/dropout.h"
#include "kernels/own/train.h"

enum { OWN_MAX_KERNEL = 16 };
#ifdef __clang__
#pragma clang fp contract(fast)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC optimize("fp-contract=fast")
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
#define LANES 16
#include "kernels/own/lanes.inc"
#include "kernels/own/winograd.inc"
#include "kernels/own/narrow.inc"
#include "kernels/own/product.inc"
#include "kernels/own/depthwise.inc"
#include "kernels/own/flat.inc"
#include "kernels/own/train.inc"
#include "kernels/own/dropout.inc"
#ifdef __clang__
#pragma clang attribute pop
#endif

const struct own_lanes own_lanes512 = {
    LANES,
    {winograd_weight_floats, winograd_pack, winograd_plan, winograd_run},
    {narrow_weight_floats, narrow_pack, narrow_plan, narrow_run},
    {product_weight_floats, product_pack, product_plan, product_run},
    {depthwise_weight_floats, depthwise_pack, depthwise_plan, depthwise_run},
    binary_run,
    concat_run,
    softmax_run,
    norm_measure,
    norm_apply,
    sums_run,
    affine_run,
    softmax_grad_run,
    layer_norm_grad_run,
    dropout_run,
};
