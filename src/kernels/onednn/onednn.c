/* The table of oneDNN's classes. Their order matters only where two accept the same operator: a MatMul with a
 * constant is tried as a packed inner product first. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/onednn.h"

#include "kernels/onednn/state.h"

/* Processors with AVX-512 but without these instructions would emulate them, slower than f32. */
bool kernels_have_bf16(void)
{
    return (onednn_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

const struct kernel_class *const kernels_onednn_classes[] = {
    &onednn_conv, &onednn_deconv,     &onednn_linear,  &onednn_matmul, &onednn_pool,   &onednn_softmax,
    &onednn_norm, &onednn_layer_norm, &onednn_eltwise, &onednn_binary, &onednn_resize, &onednn_copy,
    NULL,
};
