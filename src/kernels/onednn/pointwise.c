/* Element by element: functions of one number, and sums and products of two tensors.
 *
 * Functions run over the flat memory, whatever the layout is, as long as input and output lie alike. Only those are
 * taken whose oneDNN formula is ONNX's. Of two tensors, both have the output's shape, or one is broadcast in a way
 * for which oneDNN has fast code (a number, a number for each channel ...); its reference code is never taken,
 * plain C is as good. Post-operations are refused: oneDNN 2.6.3 computes some of them wrongly behind a broadcast
 * product (a linear function followed by a clip gave 1.027 where 1 is the most), and no rewrite of ours makes them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "kernels/onednn/state.h"

/* ---- one input */

struct function {
    dnnl_alg_kind_t alg;
    float alpha, beta;
};

/* A bound of Clip: an attribute before opset 11, then an optional scalar constant. */
static bool clip_bound(const struct kernel_query *q, int input, const char *name, float otherwise, float *ret)
{
    *ret = otherwise;
    if (q->node->opset < 11) {
        *ret = op_attr_float(q->node, name, otherwise);
        return true;
    }
    if (input >= q->n_in || q->in[input].dtype == TENSOR_NONE) return true;
    const struct tensor *t = &q->in[input];
    if (!t->data || t->dtype != TENSOR_F32 || tensor_count(&t->shape) != 1) return false;
    memcpy(ret, t->data, sizeof *ret);
    return true;
}

static bool function_of(const struct kernel_query *q, struct function *f)
{
    const struct op_node *n = q->node;
    *f = (struct function){0};
    switch (n->kind) {
    case OP_RELU: f->alg = dnnl_eltwise_relu; return true;
    case OP_LEAKY_RELU:
        f->alg = dnnl_eltwise_relu;
        f->alpha = op_attr_float(n, "alpha", 0.01f);
        return true;
    case OP_SIGMOID: f->alg = dnnl_eltwise_logistic; return true;
    case OP_TANH: f->alg = dnnl_eltwise_tanh; return true;
    case OP_EXP: f->alg = dnnl_eltwise_exp; return true;
    case OP_SILU:
        f->alg = dnnl_eltwise_swish;
        f->alpha = 1;
        return true;
    case OP_ELU:
        f->alg = dnnl_eltwise_elu;
        f->alpha = op_attr_float(n, "alpha", 1);
        return true;
    case OP_GELU:
        f->alg = strcmp(op_attr_string(n, "approximate", "none"), "tanh") ? dnnl_eltwise_gelu_erf
                                                                          : dnnl_eltwise_gelu_tanh;
        return true;
    case OP_MISH: f->alg = dnnl_eltwise_mish; return true;
    case OP_HARD_SWISH: f->alg = dnnl_eltwise_hardswish; return true;
    case OP_CLIP:
        f->alg = dnnl_eltwise_clip;
        return clip_bound(q, 1, "min", -3.402823466e38f, &f->alpha) &&
               clip_bound(q, 2, "max", 3.402823466e38f, &f->beta) && f->alpha <= f->beta;
    default: return false;
    }
}

static bool accepts_eltwise(const struct kernel_query *q)
{
    struct function f;
    return q->n_in >= 1 && q->n_out == 1 && !q->n_post && onednn_takes_pair(q) &&
           function_of(q, &f);
}

static void layouts_any(const struct kernel_query *q, struct kernel_layouts *ret)
{
    for (int i = 0; i < q->n_in; i++) ret->in[i] = KERNEL_LAYOUT_ANY;
    for (int i = 0; i < q->n_out; i++) ret->out[i] = KERNEL_LAYOUT_ANY;
}

static err prepare_eltwise(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    struct function f;
    if (!function_of(q, &f) || !tensor_same_dense_layout(&q->in[0], &q->out[0]))
        return err_set(ERR_UNSUPPORTED, "oneDNN: input and output lie differently");
    int64_t count = tensor_count(&q->in[0].shape);
    dnnl_memory_desc_t md = onednn_flat(count);
    md.data_type = onednn_type(&q->in[0]);
    dnnl_eltwise_desc_t d = {0};
    err e = onednn_check(dnnl_eltwise_forward_desc_init(&d, dnnl_forward_inference, f.alg, &md, f.alpha, f.beta),
                         ERR_UNSUPPORTED, "elementwise function");
    if (e) return e;
    struct onednn_job j = {.spec = {.what = "eltwise", .desc = &d, .desc_bytes = sizeof d, .flops = ONEDNN_NO_REF},
                           .ns = 0.4 * (double)count};
    onednn_job_arg(&j, DNNL_ARG_SRC, 0);
    onednn_job_arg(&j, DNNL_ARG_DST, ONEDNN_FROM_OUT);
    return onednn_state_new(&j, q, payer, ret);
}

/* ---- two inputs */

static dnnl_alg_kind_t binary_of(enum op_kind k)
{
    switch (k) {
    case OP_ADD:
    case OP_SUM: return dnnl_binary_add;
    case OP_MUL: return dnnl_binary_mul;
    case OP_SUB: return dnnl_binary_sub;
    case OP_DIV: return dnnl_binary_div;
    case OP_MAX: return dnnl_binary_max;
    case OP_MIN: return dnnl_binary_min;
    default: return dnnl_alg_kind_undef;
    }
}

/* The number of the input that has the output's shape and comes first for oneDNN; -1: neither can. */
static int whole_input(const struct kernel_query *q)
{
    bool swap = q->node->kind != OP_SUB && q->node->kind != OP_DIV;
    if (tensor_shape_equal(&q->in[0].shape, &q->out[0].shape)) return 0;
    return swap && tensor_shape_equal(&q->in[1].shape, &q->out[0].shape) ? 1 : -1;
}

static bool accepts_binary(const struct kernel_query *q)
{
    return binary_of(q->node->kind) != dnnl_alg_kind_undef && !q->n_post && q->n_in == 2 && q->n_out == 1 && onednn_takes_pair(q) &&
           onednn_takes_half(&q->in[1]) && q->in[1].dtype == q->in[0].dtype && onednn_present(q, 0) && onednn_present(q, 1) && q->out[0].shape.rank <= 5 &&
           whole_input(q) >= 0;
}

/* Descriptors of the whole and the broadcast operand. */
static err operands(const struct kernel_query *q, const struct tensor *a, const struct tensor *b,
                    dnnl_memory_desc_t *ret_a, dnnl_memory_desc_t *ret_b)
{
    int rank = a->shape.rank;
    if (!tensor_same_dense_layout(a, &q->out[0]))
        return err_set(ERR_UNSUPPORTED, "oneDNN: input and output lie differently");
    if (tensor_same_dense_layout(a, b)) {
        *ret_a = *ret_b = onednn_flat(tensor_count(&a->shape));
        return ERR_OK;
    }
    struct tensor_shape wide = {.rank = rank};
    int axes = 0;
    for (int i = 0; i < rank; i++) {
        wide.dims[i] = i < rank - b->shape.rank ? 1 : b->shape.dims[i - (rank - b->shape.rank)];
        axes += wide.dims[i] > 1;
    }
    bool last = onednn_is_last(a), rows = tensor_is_row_major(a);
    bool fits = axes <= 1 ? tensor_span(b) == tensor_count(&b->shape)
                          : (last && b->shape.rank == rank && onednn_is_last(b)) ||
                                (!last && rows && tensor_is_row_major(b));
    if ((!last && !rows) || !fits) return err_set(ERR_UNSUPPORTED, "oneDNN: the inputs lie differently");
    *ret_a = last ? onednn_last(&a->shape) : onednn_rows(&a->shape);
    *ret_b = last ? onednn_last(&wide) : onednn_rows(&wide);
    return ERR_OK;
}

static err prepare_binary(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    int first = whole_input(q);
    dnnl_memory_desc_t a, b;
    dnnl_binary_desc_t d = {0};
    err e = operands(q, &q->in[first], &q->in[1 - first], &a, &b);
    if (!e) a.data_type = b.data_type = onednn_type(&q->out[0]);
    if (!e)
        e = onednn_check(dnnl_binary_desc_init(&d, binary_of(q->node->kind), &a, &b, &a), ERR_UNSUPPORTED,
                         "binary");
    if (e) return e;
    struct onednn_job j = {
        .spec = {.what = "binary", .desc = &d, .desc_bytes = sizeof d, .dst = &a, .flops = ONEDNN_NO_REF},
        .ns = 0.15 * (double)tensor_count(&q->out[0].shape)};
    onednn_job_arg(&j, DNNL_ARG_SRC_0, first);
    onednn_job_arg(&j, DNNL_ARG_SRC_1, 1 - first);
    onednn_job_arg(&j, DNNL_ARG_DST, ONEDNN_FROM_OUT);
    return onednn_state_new(&j, q, payer, ret);
}

ONEDNN_CLASS(onednn_eltwise, "eltwise", accepts_eltwise, layouts_any, prepare_eltwise);
ONEDNN_CLASS(onednn_binary, "binary", accepts_binary, layouts_any, prepare_binary);
