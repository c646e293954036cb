/* The order in which kernel classes are asked: brim's own, which take only what they do faster; oneDNN's own order; then plain C, which takes
 * what is left.
 *
 * The classes are named one by one because a constant table cannot be made out of another one; edge_test.c
 * holds it against kernels_own_classes and kernels_onednn_classes. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "kernels/kernel.h"
#include "kernels/ref/ref.h"

extern const struct kernel_class onednn_conv, onednn_deconv, onednn_linear, onednn_matmul, onednn_pool,
    onednn_softmax, onednn_norm, onednn_layer_norm, onednn_eltwise, onednn_binary, onednn_resize, onednn_copy, onednn_train_conv,
    onednn_train_product, onednn_train_matmul, onednn_train_norm;

extern const struct kernel_class own_winograd, own_narrow, own_product, own_depthwise, own_binary, own_function, own_concat, own_softmax, own_norm, own_gradient,
    own_batch_norm, own_softmax_grad, own_layer_norm_grad, own_split_conv, own_dropout;

static const struct kernel_class *const ONLY_REF[] = {&kernels_ref_class, NULL};
static const struct kernel_class *const ALL[] = {
    &own_winograd,      &own_narrow,      &own_product,
    &own_depthwise,     &own_binary,      &own_function,    &own_concat,
    &own_softmax,       &own_norm,        &own_gradient,
    &own_batch_norm,    &own_softmax_grad, &own_layer_norm_grad,
    &own_split_conv,
    &own_dropout,
    &onednn_conv,       &onednn_deconv,   &onednn_train_matmul,
    &onednn_linear,     &onednn_matmul,
    &onednn_train_conv, &onednn_train_product, &onednn_train_norm,
    &onednn_pool,       &onednn_softmax,
    &onednn_norm,       &onednn_layer_norm,
    &onednn_eltwise,    &onednn_binary,
    &onednn_resize,     &onednn_copy,
    &kernels_ref_class, NULL,
};

bool kernels_only_ref(void)
{
    const char *v = getenv("BRIM_ONLY_REF");
    return v && *v;
}

const struct kernel_class *const *kernels_list(bool only_ref)
{
    return only_ref || kernels_only_ref() ? ONLY_REF : ALL;
}
