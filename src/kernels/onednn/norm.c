/* Softmax, batch norm, instance norm of one image, layer norm.
 *
 * A softmax along the channels runs in channels-last and one along the last axis row-major: the axis has stride 1
 * in both, which is what oneDNN's fast code wants; other axes are left to plain C. Before opset 13, Softmax means
 * "flatten to two axes first". An InstanceNormalization of a batch of 1 is a batch norm that computes its own
 * statistics. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/state.h"

/* ---- softmax */

static int softmax_axis(const struct kernel_query *q)
{
    int64_t axis = op_attr_int(q->node, "axis", q->node->opset < 13 ? 1 : -1);
    int rank = q->in[0].shape.rank;
    if (axis < 0) axis += rank;
    return axis < 0 || axis >= rank ? -1 : (int)axis;
}

static bool softmax_is_flat(const struct kernel_query *q)
{
    return q->node->opset < 13;
}

static bool accepts_softmax(const struct kernel_query *q)
{
    enum op_kind k = q->node->kind;
    if ((k != OP_SOFTMAX && k != OP_LOG_SOFTMAX) || q->n_post || !onednn_takes_all(q)) return false;
    int axis = softmax_axis(q), rank = q->in[0].shape.rank;
    return rank >= 1 && axis >= 0 && (softmax_is_flat(q) || axis == rank - 1 || (axis == 1 && rank <= 5));
}

static bool softmax_by_channel(const struct kernel_query *q)
{
    return !softmax_is_flat(q) && q->in[0].shape.rank >= 3 && softmax_axis(q) == 1;
}

static void layouts_softmax(const struct kernel_query *q, struct kernel_layouts *ret)
{
    if (softmax_by_channel(q))
        onednn_layouts_last(q, ret);
    else
        onednn_layouts_rows(q, ret);
}

static err prepare_softmax(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    const struct tensor *x = &q->in[0], *y = &q->out[0];
    int axis = softmax_axis(q), along = axis;
    int64_t rows = 1, count = tensor_count(&x->shape);
    bool channel = softmax_by_channel(q),
         lies = channel ? onednn_is_last(x) && onednn_is_last(y) : tensor_is_row_major(x) && tensor_is_row_major(y);
    if (!lies) return err_set(ERR_UNSUPPORTED, "oneDNN: softmax wants its axis to lie densely");
    for (int i = 0; i < axis; i++) rows *= x->shape.dims[i];
    dnnl_memory_desc_t md =
        channel ? onednn_last(&x->shape) : onednn_rows(&(struct tensor_shape){2, {rows, count / rows}, 0});
    if (!channel) along = 1;
    dnnl_softmax_desc_t d = {0};
    dnnl_status_t st = q->node->kind == OP_SOFTMAX
                           ? dnnl_softmax_forward_desc_init(&d, dnnl_forward_inference, &md, along)
                           : dnnl_logsoftmax_forward_desc_init(&d, dnnl_forward_inference, &md, along);
    err e = onednn_check(st, ERR_UNSUPPORTED, "softmax");
    if (e) return e;
    struct onednn_job j = {.spec = {.what = "softmax", .desc = &d, .desc_bytes = sizeof d, .flops = 8 * count},
                           .ns = (double)count};
    onednn_job_arg(&j, DNNL_ARG_SRC, 0);
    onednn_job_arg(&j, DNNL_ARG_DST, ONEDNN_FROM_OUT);
    return onednn_state_new(&j, q, payer, ret);
}

/* ---- batch norm and instance norm */

static bool accepts_norm(const struct kernel_query *q)
{
    const struct op_node *n = q->node;
    int wanted = n->kind == OP_BATCH_NORM ? 5 : n->kind == OP_INSTANCE_NORM ? 3 : 0;
    if (!wanted || q->n_post || !onednn_takes_all(q) || q->n_in != wanted) return false;
    const struct tensor_shape *x = &q->in[0].shape;
    if (x->rank < 3 || x->rank > 5) return false;
    if (n->kind == OP_INSTANCE_NORM && x->dims[0] != 1) return false;
    for (int i = 1; i < wanted; i++)
        if (q->in[i].shape.rank != 1 || q->in[i].shape.dims[0] != x->dims[1]) return false;
    return true;
}

static err prepare_norm(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    bool instance = q->node->kind == OP_INSTANCE_NORM;
    unsigned flags = dnnl_use_scale | dnnl_use_shift | (instance ? 0 : dnnl_use_global_stats);
    if (!onednn_is_last(&q->in[0]) || !onednn_is_last(&q->out[0]))
        return err_set(ERR_UNSUPPORTED, "oneDNN: normalising wants channels-last");
    dnnl_memory_desc_t md = onednn_last(&q->in[0].shape);
    dnnl_batch_normalization_desc_t d = {0};
    err e = onednn_check(dnnl_batch_normalization_forward_desc_init(
                             &d, dnnl_forward_inference, &md, op_attr_float(q->node, "epsilon", 1e-5f), flags),
                         ERR_UNSUPPORTED, "batch norm");
    if (e) return e;
    struct onednn_job j = {.spec = {.what = "batch norm",
                                    .desc = &d,
                                    .desc_bytes = sizeof d,
                                    .flops = 4 * tensor_count(&q->in[0].shape)},
                           .ns = 0.3 * (double)tensor_count(&q->in[0].shape)};
    onednn_job_arg(&j, DNNL_ARG_SRC, 0);
    onednn_job_arg(&j, DNNL_ARG_DST, ONEDNN_FROM_OUT);
    onednn_job_arg(&j, DNNL_ARG_SCALE, 1);
    onednn_job_arg(&j, DNNL_ARG_SHIFT, 2);
    if (!instance) {
        onednn_job_arg(&j, DNNL_ARG_MEAN, 3);
        onednn_job_arg(&j, DNNL_ARG_VARIANCE, 4);
    }
    return onednn_state_new(&j, q, payer, ret);
}

/* ---- layer norm over the last axis */

static bool accepts_layer_norm(const struct kernel_query *q)
{
    const struct op_node *n = q->node;
    if (n->kind != OP_LAYER_NORM || q->n_post || !onednn_takes_all(q) || q->n_in < 2) return false;
    int rank = q->in[0].shape.rank;
    int64_t axis = op_attr_int(n, "axis", -1), last = rank < 1 ? 0 : q->in[0].shape.dims[rank - 1];
    if (rank < 2 || (axis != -1 && axis != rank - 1)) return false;
    for (int i = 1; i < q->n_in; i++)
        if (onednn_present(q, i) && (q->in[i].shape.rank != 1 || q->in[i].shape.dims[0] != last)) return false;
    return true;
}

static err prepare_layer_norm(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    const struct tensor_shape *x = &q->in[0].shape;
    int64_t c = x->dims[x->rank - 1], count = tensor_count(x), rows = count / c;
    bool shift = onednn_present(q, 2);
    if (!tensor_is_row_major(&q->in[0]) || !tensor_is_row_major(&q->out[0]))
        return err_set(ERR_UNSUPPORTED, "oneDNN: layer norm wants row-major");
    dnnl_memory_desc_t md = onednn_rows(&(struct tensor_shape){2, {rows, c}, 0}), stat = onednn_flat(rows);
    dnnl_layer_normalization_desc_t d = {0};
    err e = onednn_check(dnnl_layer_normalization_forward_desc_init(&d, dnnl_forward_inference, &md, &stat,
                                                                    op_attr_float(q->node, "epsilon", 1e-5f),
                                                                    dnnl_use_scale | (shift ? dnnl_use_shift : 0)),
                         ERR_UNSUPPORTED, "layer norm");
    if (e) return e;
    struct onednn_job j = {.spec = {.what = "layer norm", .desc = &d, .desc_bytes = sizeof d, .flops = 8 * count},
                           .ns = (double)count};
    onednn_job_arg(&j, DNNL_ARG_SRC, 0);
    onednn_job_arg(&j, DNNL_ARG_DST, ONEDNN_FROM_OUT);
    onednn_job_arg(&j, DNNL_ARG_SCALE, 1);
    if (shift) onednn_job_arg(&j, DNNL_ARG_SHIFT, 2);
    return onednn_state_new(&j, q, payer, ret);
}

ONEDNN_CLASS(onednn_softmax, "softmax", accepts_softmax, layouts_softmax, prepare_softmax);
ONEDNN_CLASS(onednn_norm, "norm", accepts_norm, onednn_layouts_last, prepare_norm);
ONEDNN_CLASS(onednn_layer_norm, "layer_norm", accepts_layer_norm, onednn_layouts_rows, prepare_layer_norm);
