/* The table of oneDNN's classes. Their order matters only where two accept the same operator: a MatMul with a
 * constant is tried as a packed inner product first. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/onednn.h"

#include <string.h>

#include "kernels/onednn/backward.h"

/* Processors with AVX-512 but without these instructions would emulate them, slower than f32. */
bool kernels_have_bf16(void)
{
    return !kernels_only_ref() && (onednn_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

bool kernels_fuse_bf16(const struct kernel_post *post, int n_post)
{
    struct kernel_query q = {.n_post = n_post};
    memcpy(q.post, post, (size_t)n_post * sizeof *post);
    return onednn_posts_known(&q) && !onednn_posts_distinct(&q);
}

const struct kernel_class *const kernels_onednn_classes[] = {
    &onednn_conv, &onednn_deconv, &onednn_train_matmul, &onednn_linear, &onednn_matmul, &onednn_train_conv, &onednn_train_product, &onednn_train_norm, &onednn_pool,   &onednn_softmax,
    &onednn_norm, &onednn_layer_norm, &onednn_eltwise, &onednn_binary, &onednn_resize, &onednn_copy,
    NULL,
};
