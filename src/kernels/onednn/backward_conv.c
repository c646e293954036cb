/* Convolutions in training: the weight is no constant. Forward; backward by the input, which is how ConvTranspose is computed (its W [I, O/g, k...] is, as it
 * lies, the weight of the convolution that goes the other way); backward by the weight, with the bias' gradient.
 *
 * Images are channels-last, weights and their gradients row-major outside. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/backward.h"

#include <string.h>

/* The three tensors of the convolution, whichever of them is wanted. */
struct sides {
    const struct tensor *image, *weight, *result, *bias; /* bias: NULL if none */
    struct op_window w;
};

static bool sides_of(const struct kernel_query *q, struct sides *ret)
{
    const struct tensor *in = q->in, *out = q->out;
    *ret = (struct sides){0};
    switch (q->node->kind) {
    case OP_CONV:
        *ret = (struct sides){&in[0], &in[1], &out[0], onednn_present(q, 2) ? &in[2] : NULL, {0}};
        break;
    case OP_CONV_TRANSPOSE:
        if (onednn_present(q, 2)) return false;
        *ret = (struct sides){&out[0], &in[1], &in[0], NULL, {0}};
        break;
    case OP_CONV_GRAD_WEIGHT:
        *ret = (struct sides){&in[1], &out[0], &in[0], q->n_out > 1 && out[1].dtype ? &out[1] : NULL, {0}};
        break;
    default: return false;
    }
    const struct tensor *first = q->node->kind == OP_CONV_TRANSPOSE ? &in[0] : ret->image;
    return op_window(q->node, &first->shape, &ret->weight->shape, &ret->w) == ERR_OK;
}

static bool posts_taken(const struct kernel_query *q)
{
    if (q->node->kind == OP_CONV) return onednn_posts_known(q) && !onednn_scales(q);
    return q->n_post == 0 || (q->node->kind == OP_CONV_TRANSPOSE && q->n_post == 1 && q->post[0].kind == KERNEL_POST_ADD);
}

/* Images, and what is added to one, may lie in memory as bf16; weights and their gradients are f32. A forward primitive adds what is of its result's type. */
static bool is_image(const struct kernel_query *q, const struct sides *s, const struct tensor *t)
{
    bool added = false;
    for (int i = 0; i < q->n_post; i++)
        added |= q->post[i].kind == KERNEL_POST_ADD && t == &q->in[q->post[i].input] && (q->node->kind != OP_CONV || t->dtype == q->out[0].dtype);
    return t == s->image || t == s->result || added;
}

static bool accepts(const struct kernel_query *q)
{
    struct sides s;
    if (q->n_in < 2 || !sides_of(q, &s) || !posts_taken(q)) return false;
    if (q->node->kind != OP_CONV_GRAD_WEIGHT && q->in[1].data) return false;
    for (int i = 0; i < q->n_in; i++)
        if (q->in[i].dtype && !(is_image(q, &s, &q->in[i]) ? onednn_takes_half(&q->in[i]) : onednn_takes(&q->in[i]))) return false;
    for (int i = 0; i < q->n_out; i++)
        if (q->out[i].dtype && !(is_image(q, &s, &q->out[i]) ? onednn_takes_half(&q->out[i]) : onednn_takes(&q->out[i]))) return false;
    int rank = s.image->shape.rank;
    if (rank < 3 || rank > 5) return false;
    for (int i = 0; i < s.w.n; i++) { /* as oneDNN counts, the convolution from image to result must come out */
        int64_t cover = (s.w.kernel[i] - 1) * s.w.dilation[i] + 1,
                room = s.image->shape.dims[2 + i] + s.w.pad_begin[i] + s.w.pad_end[i] - cover;
        if (s.w.pad_begin[i] < 0 || s.w.pad_end[i] < 0 || room < 0 || room / s.w.stride[i] + 1 != s.result->shape.dims[2 + i]) return false;
    }
    return true;
}

static void layouts(const struct kernel_query *q, struct kernel_layouts *ret)
{
    onednn_layouts_last(q, ret);
    if (q->node->kind == OP_CONV_GRAD_WEIGHT)
        ret->out[0] = KERNEL_LAYOUT_ROW_MAJOR;
    else
        ret->in[1] = KERNEL_LAYOUT_ROW_MAJOR;
}

/* [O, I/g, k...] as [g, O/g, I/g, k...] */
static void describe_weight(const struct tensor_shape *s, int64_t g, dnnl_memory_desc_t *plain, dnnl_memory_desc_t *any)
{
    int64_t dims[TENSOR_MAX_RANK + 1], strides[TENSOR_MAX_RANK + 1], file[TENSOR_MAX_RANK];
    int n = 0;
    tensor_strides_row_major(s, file);
    if (g > 1) {
        dims[n] = g;
        strides[n++] = file[0] * (s->dims[0] / g);
    }
    for (int i = 0; i < s->rank; i++) {
        dims[n] = i || g == 1 ? s->dims[i] : s->dims[0] / g;
        strides[n++] = file[i];
    }
    *plain = onednn_strided(n, dims, strides);
    *any = onednn_any(n, dims);
}

static bool is_half(const struct tensor *t)
{
    return t->dtype == TENSOR_BF16;
}

static int64_t flops_of(const struct sides *s)
{
    return 2 * (tensor_count(&s->weight->shape) / s->weight->shape.dims[0]) * tensor_count(&s->result->shape);
}

/* With `half` the factors that are not bf16 yet are rounded to it on their way in, through scratch. Worth it where there is much to multiply per number that is rounded. */
static bool gains_by_half(const struct kernel_query *q, const struct sides *s)
{
    enum { FLOPS_PER_NUMBER = 150 };
    int64_t numbers = tensor_count(&s->weight->shape);
    if (q->node->kind != OP_CONV_TRANSPOSE && !is_half(s->image)) numbers += tensor_count(&s->image->shape);
    if (q->node->kind != OP_CONV && !is_half(s->result)) numbers += tensor_count(&s->result->shape);
    return q->half && flops_of(s) >= FLOPS_PER_NUMBER * numbers;
}

bool onednn_halves_pay(const struct kernel_query *q)
{
    struct sides s;
    return q->half && sides_of(q, &s) && gains_by_half(q, &s);
}

/* Channels-last, or some of the channels of such an image (own/split.c). */
static bool lies(const struct tensor *t, dnnl_memory_desc_t *ret)
{
    if (onednn_is_last(t)) *ret = onednn_last(&t->shape);
    else if (t->strides[1] == 1) *ret = onednn_strided(t->shape.rank, t->shape.dims, t->strides);
    else return false;
    ret->data_type = onednn_type(t);
    return true;
}

static err prepare_as(const struct kernel_query *q, bool half, struct mem_payer *payer, struct kernel_state **ret)
{
    struct sides s;
    if (!sides_of(q, &s)) return err_set(ERR_UNSUPPORTED, "oneDNN: convolution in training");
    dnnl_memory_desc_t image = onednn_last(&s.image->shape), result = onednn_last(&s.result->shape), image_lies, result_lies, plain, weight, bias;
    if (!lies(s.image, &image_lies) || !lies(s.result, &result_lies) || !tensor_is_row_major(s.weight))
        return err_set(ERR_UNSUPPORTED, "oneDNN: convolution in training wants channels-last, and plain weights");
    describe_weight(&s.weight->shape, s.w.group, &plain, &weight);
    if (s.bias) bias = onednn_rows(&s.bias->shape);
    int64_t flops = flops_of(&s);
    if (half && !gains_by_half(q, &s)) return err_set(ERR_UNSUPPORTED, "oneDNN: nothing is gained by bf16");
    if (!half && q->n_post && q->node->kind == OP_CONV && is_half(s.result)) return err_set(ERR_UNSUPPORTED, "oneDNN: f32 with post-operations in bf16");
    dnnl_data_type_t type = half ? dnnl_bf16 : dnnl_f32;
    image.data_type = half && q->node->kind == OP_CONV_TRANSPOSE ? image_lies.data_type : type; /* what is made is as it lies, if it can */
    result.data_type = half && q->node->kind == OP_CONV ? result_lies.data_type : type;
    weight.data_type = q->node->kind == OP_CONV_GRAD_WEIGHT ? dnnl_f32 : type;
    dnnl_memory_desc_t hint_image = image, hint_weight = weight;
    hint_image.data_type = hint_weight.data_type = type;
    struct onednn_window at = onednn_window_of(&s.w);
    struct onednn_conv_pair d;
    memset(&d, 0, sizeof d);
    enum op_kind k = q->node->kind;
    bool forward = k == OP_CONV;
    dnnl_status_t st = dnnl_dilated_convolution_forward_desc_init(&d.forward, forward ? dnnl_forward_inference : dnnl_forward_training,
                                                                  dnnl_convolution_direct, &hint_image, &hint_weight, s.bias ? &bias : NULL, &result,
                                                                  at.stride, at.dilation, at.begin, at.end);
    if (!st && k == OP_CONV_TRANSPOSE)
        st = dnnl_dilated_convolution_backward_data_desc_init(&d.backward, dnnl_convolution_direct, &image, &weight, &result, at.stride, at.dilation,
                                                              at.begin, at.end);
    if (!st && k == OP_CONV_GRAD_WEIGHT)
        st = dnnl_dilated_convolution_backward_weights_desc_init(&d.backward, dnnl_convolution_direct, &image, &weight, s.bias ? &bias : NULL,
                                                                 &result, at.stride, at.dilation, at.begin, at.end);
    err e = onednn_check(st, ERR_UNSUPPORTED, "convolution in training");
    if (e) return e;
    struct onednn_chain_job j = {.spec = {.what = forward ? "convolution" : "convolution backward", .desc = forward ? (void *)&d.forward : &d,
                                          .desc_bytes = forward ? sizeof d.forward : sizeof d, .make = forward ? NULL : onednn_make_conv_pair,
                                          .dst = &result, .window = true, .flops = flops}};
    /* In bf16 oneDNN's threads wait for each other many times in a loop of their own (see backward_norm.c); one is faster than two are in f32. */
    if (half && k == OP_CONV_GRAD_WEIGHT) j.ns = 1;
    if (forward) {
        onednn_chain_arg(&j, DNNL_ARG_SRC, false, 0, &image_lies);
        onednn_chain_arg(&j, DNNL_ARG_WEIGHTS, false, 1, &plain);
        if (s.bias) onednn_chain_arg(&j, DNNL_ARG_BIAS, false, 2, NULL);
        onednn_chain_arg(&j, DNNL_ARG_DST, true, 0, &result_lies);
    } else if (k == OP_CONV_TRANSPOSE) {
        onednn_chain_arg(&j, DNNL_ARG_DIFF_DST, false, 0, &result_lies);
        onednn_chain_arg(&j, DNNL_ARG_WEIGHTS, false, 1, &plain);
        onednn_chain_arg(&j, DNNL_ARG_DIFF_SRC, true, 0, &image_lies);
        j.add_after = q->n_post > 0;
    } else {
        onednn_chain_arg(&j, DNNL_ARG_DIFF_DST, false, 0, &result_lies);
        onednn_chain_arg(&j, DNNL_ARG_SRC, false, 1, &image_lies);
        onednn_chain_arg(&j, DNNL_ARG_DIFF_WEIGHTS, true, 0, &plain);
        if (s.bias) onednn_chain_arg(&j, DNNL_ARG_DIFF_BIAS, true, 1, NULL);
    }
    return onednn_chain_new(&j, q, payer, ret);
}

static err prepare(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    err e = q->half ? prepare_as(q, true, payer, ret) : ERR_UNSUPPORTED;
    return e == ERR_UNSUPPORTED ? prepare_as(q, false, payer, ret) : e;
}

ONEDNN_CHAIN_CLASS(onednn_train_conv, "train_conv", accepts, layouts, prepare);
