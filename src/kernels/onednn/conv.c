/* Convolution and transposed convolution, 1 to 3 axes, with groups, dilation, uneven padding and post-operations.
 *
 * Activations are channels-last, f32 or bf16 (weights are packed as what comes in), and the weight's layout is left to oneDNN ("any"): with a layout that it does not
 * like it falls silently to reference code. ONNX and oneDNN agree on everything but three things: oneDNN counts
 * dilation from 0, groups are an axis of their own in front of the weight, and a transposed convolution's weight is
 * [I, O/g, k...] in ONNX and [g, O/g, I/g, k...] there, which is the same bytes seen through other strides.
 * A residual is added by a binary post-operation; where only the convolution by gemm is left, by "sum" (see
 * prim.c), and where that cannot follow the function before it, in a loop afterwards. SPDX-License-Identifier:
 * Apache-2.0 */
#include "kernels/onednn/state.h"

struct geometry {
    struct op_window w;
    dnnl_memory_desc_t src, weight, plain, bias, dst;
    bool has_bias;
    struct onednn_window at;
    int64_t flops;
};

static bool accepts(const struct kernel_query *q)
{
    if (!onednn_takes_mixed(q) || onednn_own_inputs(q) < 2) return false;
    int rank = q->in[0].shape.rank;
    if (rank < 3 || rank > 5 || !q->in[1].data) return false;
    if (onednn_present(q, 2) && q->in[2].shape.rank != 1) return false;
    struct op_window w;
    if (op_window(q->node, &q->in[0].shape, &q->in[1].shape, &w)) return false;
    for (int i = 0; i < w.n; i++)
        if (w.pad_begin[i] < 0 || w.pad_end[i] < 0) return false;
    return true;
}

static bool accepts_conv(const struct kernel_query *q)
{
    return q->node->kind == OP_CONV && accepts(q);
}

static bool accepts_deconv(const struct kernel_query *q)
{
    return q->node->kind == OP_CONV_TRANSPOSE && accepts(q);
}

static void layouts(const struct kernel_query *q, struct kernel_layouts *ret)
{
    onednn_layouts_last(q, ret);
    ret->in[1] = KERNEL_LAYOUT_PACKED;
}

/* The weight as oneDNN wants to see it, [g, O/g, I/g, k...] (without g if there is one group), in the file's byte
 * order. */
static void describe_weight(const struct tensor_shape *s, int64_t g, bool transposed, struct geometry *ret)
{
    int64_t file[TENSOR_MAX_RANK], dims[TENSOR_MAX_RANK + 1], strides[TENSOR_MAX_RANK + 1];
    tensor_strides_row_major(s, file);
    int o = transposed ? 1 : 0, i = 1 - o; /* axes of the file's weight */
    /* the grouped axis is O in a convolution (W is [O, I/g]) and I in a transposed one (W is [I, O/g]) */
    int64_t outs = transposed ? s->dims[o] : s->dims[o] / g, ins = transposed ? s->dims[i] / g : s->dims[i];
    int n = 0;
    if (g > 1) {
        dims[n] = g;
        strides[n++] = file[0] * (s->dims[0] / g);
    }
    dims[n] = outs;
    strides[n++] = file[o];
    dims[n] = ins;
    strides[n++] = file[i];
    for (int k = 2; k < s->rank; k++) {
        dims[n] = s->dims[k];
        strides[n++] = file[k];
    }
    ret->plain = onednn_strided(n, dims, strides);
    ret->weight = onednn_any(n, dims);
}

static err geometry_of(const struct kernel_query *q, bool transposed, struct geometry *ret)
{
    const struct tensor *x = &q->in[0], *y = &q->out[0], *w = &q->in[1];
    *ret = (struct geometry){0};
    err e = op_window(q->node, &x->shape, &w->shape, &ret->w);
    if (e) return e;
    if (!onednn_is_last(x) || !onednn_is_last(y))
        return err_set(ERR_UNSUPPORTED, "oneDNN: convolution wants channels-last");
    if (w->shape.dims[0] % ret->w.group)
        return err_set(ERR_SHAPE, "%lld channels in %lld groups", (long long)w->shape.dims[0],
                       (long long)ret->w.group);
    ret->src = onednn_last(&x->shape);
    ret->dst = onednn_last(&y->shape);
    describe_weight(&w->shape, ret->w.group, transposed, ret);
    ret->src.data_type = ret->weight.data_type = onednn_type(x);
    ret->dst.data_type = onednn_type(y);
    if ((ret->has_bias = onednn_present(q, 2))) ret->bias = onednn_rows(&q->in[2].shape);
    ret->at = onednn_window_of(&ret->w);
    int64_t per = tensor_count(&w->shape) / w->shape.dims[0];
    ret->flops = 2 * per * tensor_count(transposed ? &x->shape : &y->shape);
    return ERR_OK;
}

static err make_state(const struct geometry *g, const void *desc, size_t bytes, const char *what,
                      const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    struct onednn_job j = {
        .spec = {
            .what = what, .desc = desc, .desc_bytes = bytes, .dst = &g->dst, .window = true, .flops = g->flops}};
    onednn_job_arg(&j, DNNL_ARG_SRC, 0);
    onednn_job_arg(&j, DNNL_ARG_DST, ONEDNN_FROM_OUT);
    if (g->has_bias) onednn_job_arg(&j, DNNL_ARG_BIAS, 2);
    onednn_job_pack(&j, DNNL_ARG_WEIGHTS, 1, &g->plain);
    int adds = 0;
    for (int i = 0; i < q->n_post; i++) adds += q->post[i].kind == KERNEL_POST_ADD;
    if (adds != 1) return onednn_state_scaling(&j, q, payer, ret);
    err e = onednn_state_new(&j, q, payer, ret);
    if (e != ERR_UNSUPPORTED) return e;
    j.spec.sum = true; /* nothing that is fast can add from elsewhere: copy there first, then add in place */
    e = onednn_state_new(&j, q, payer, ret);
    const struct kernel_post *last = &q->post[q->n_post - 1];
    if (e != ERR_UNSUPPORTED || q->out[0].dtype != TENSOR_F32 || onednn_posts_lie_like_output(q)) return e;
    if (last->kind != KERNEL_POST_ADD) {
        j.spec.sum = false;
        return onednn_state_scaling(&j, q, payer, ret);
    }
    struct kernel_query without = *q; /* nor in place: add afterwards */
    without.n_post--;
    j.spec.sum = false;
    e = onednn_state_scaling(&j, &without, payer, ret);
    if (!e) onednn_state_add_after(*ret, last->input, tensor_count(&q->out[0].shape));
    return e;
}

static err prepare_conv(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    struct geometry g;
    dnnl_convolution_desc_t d = {0};
    err e = geometry_of(q, false, &g);
    if (e) return e;
    e = onednn_check(dnnl_dilated_convolution_forward_desc_init(
                         &d, dnnl_forward_inference, dnnl_convolution_direct, &g.src, &g.weight,
                         g.has_bias ? &g.bias : NULL, &g.dst, g.at.stride, g.at.dilation, g.at.begin, g.at.end),
                     ERR_UNSUPPORTED, "convolution");
    return e ? e : make_state(&g, &d, sizeof d, "convolution", q, payer, ret);
}

static err prepare_deconv(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    struct geometry g;
    dnnl_deconvolution_desc_t d = {0};
    err e = geometry_of(q, true, &g);
    if (e) return e;
    e = onednn_check(dnnl_dilated_deconvolution_forward_desc_init(
                         &d, dnnl_forward_inference, dnnl_deconvolution_direct, &g.src, &g.weight,
                         g.has_bias ? &g.bias : NULL, &g.dst, g.at.stride, g.at.dilation, g.at.begin, g.at.end),
                     ERR_UNSUPPORTED, "deconvolution");
    return e ? e : make_state(&g, &d, sizeof d, "deconvolution", q, payer, ret);
}

ONEDNN_CLASS(onednn_conv, "conv", accepts_conv, layouts, prepare_conv);
ONEDNN_CLASS(onednn_deconv, "deconv", accepts_deconv, layouts, prepare_deconv);
