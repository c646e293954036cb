/* Batch normalisation in training, forward and backward.
 *
 * Batch normalisation runs on one thread: oneDNN's code for several waits for the others in a loop of its own, and where one of them has lost its
 * processor to somebody else (training is what gives way) that loop lasts a time slice: 20 ms instead of 0.5 were seen.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/backward.h"

#include <string.h>

/* ---- batch norm */

static bool accepts_norm(const struct kernel_query *q)
{
    bool forward = q->node->kind == OP_BATCH_NORM_TRAIN;
    int rank = q->n_in ? q->in[0].shape.rank : 0;
    if ((!forward && q->node->kind != OP_BATCH_NORM_GRAD) || q->n_post || rank < 3 || rank > 5 || !onednn_takes_tensors(q)) return false;
    if (q->n_in < (forward ? 3 : 5) || q->n_out < 3) return false;
    for (int i = 0; i < 3; i++)
        if (!q->out[i].dtype) return false;
    return true;
}

static err prepare_norm(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    bool forward = q->node->kind == OP_BATCH_NORM_TRAIN;
    const struct tensor *x = &q->in[forward ? 0 : 1];
    if (!onednn_is_last(x) || !onednn_is_last(&q->in[0]) || !onednn_is_last(&q->out[0]))
        return err_set(ERR_UNSUPPORTED, "oneDNN: normalising wants channels-last");
    dnnl_memory_desc_t md = onednn_last(&x->shape);
    float epsilon = op_attr_float(q->node, "epsilon", 1e-5f);
    int64_t count = tensor_count(&x->shape), each = count / x->shape.dims[1];
    unsigned flags = dnnl_use_scale | dnnl_use_shift;
    struct onednn_norm_pair d;
    memset(&d, 0, sizeof d);
    dnnl_status_t st = dnnl_batch_normalization_forward_desc_init(&d.forward, dnnl_forward_training, &md, epsilon, flags);
    if (!st && !forward) st = dnnl_batch_normalization_backward_desc_init(&d.backward, dnnl_backward, &md, &md, epsilon, flags);
    err e = onednn_check(st, ERR_UNSUPPORTED, "batch norm in training");
    if (e) return e;
    struct onednn_chain_job j = {.spec = {.what = forward ? "batch norm in training" : "batch norm backward", .desc = forward ? (void *)&d.forward : &d,
                                          .desc_bytes = forward ? sizeof d.forward : sizeof d, .make = forward ? NULL : onednn_make_norm_pair,
                                          .flops = 6 * count},
                                 .ns = 1}; /* one thread */
    if (forward) {
        onednn_chain_arg(&j, DNNL_ARG_SRC, false, 0, NULL);
        onednn_chain_arg(&j, DNNL_ARG_SCALE, false, 1, NULL);
        onednn_chain_arg(&j, DNNL_ARG_SHIFT, false, 2, NULL);
        onednn_chain_arg(&j, DNNL_ARG_DST, true, 0, NULL);
        onednn_chain_arg(&j, DNNL_ARG_MEAN, true, 1, NULL);
        onednn_chain_arg(&j, DNNL_ARG_VARIANCE, true, 2, NULL);
        j.channels = q->n_out > 4 && q->n_in > 4 ? x->shape.dims[1] : 0;
        j.momentum = op_attr_float(q->node, "momentum", 0.9f);
        j.unbiased = each > 1 ? (float)each / (float)(each - 1) : 1;
    } else {
        onednn_chain_arg(&j, DNNL_ARG_DIFF_DST, false, 0, NULL);
        onednn_chain_arg(&j, DNNL_ARG_SRC, false, 1, NULL);
        onednn_chain_arg(&j, DNNL_ARG_SCALE, false, 2, NULL);
        onednn_chain_arg(&j, DNNL_ARG_SHIFT, false, 2, NULL); /* asked for, and not read */
        onednn_chain_arg(&j, DNNL_ARG_MEAN, false, 3, NULL);
        onednn_chain_arg(&j, DNNL_ARG_VARIANCE, false, 4, NULL);
        onednn_chain_arg(&j, DNNL_ARG_DIFF_SRC, true, 0, NULL);
        onednn_chain_arg(&j, DNNL_ARG_DIFF_SCALE, true, 1, NULL);
        onednn_chain_arg(&j, DNNL_ARG_DIFF_SHIFT, true, 2, NULL);
    }
    return onednn_chain_new(&j, q, payer, ret);
}

ONEDNN_CHAIN_CLASS(onednn_train_norm, "train_norm", accepts_norm, onednn_layouts_last, prepare_norm);
