/* Resize and Upsample, where oneDNN's two formulas are exactly ONNX's:
 *     linear   half_pixel (and pytorch_half_pixel if no axis shrinks to 1), scale = out / in
 *     nearest  whole factors up: out / in = f. oneDNN rounds (x + 0.5) / f - 0.5, which never is a tie and equals
 * floor(x / f). So do half_pixel with rounding to nearest, asymmetric with floor, and for f = 2 asymmetric with
 * round_prefer_floor, too. Everything else (cubic, align_corners, downscaling by nearest ...) is plain C.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "kernels/onednn/state.h"

static bool attr_is(const struct op_node *n, const char *name, const char *otherwise, const char *word)
{
    return strcmp(op_attr_string(n, name, otherwise), word) == 0;
}

/* ONNX computes coordinates with the scale that was given, oneDNN with out / in: are they one? */
static bool scales_are_exact(const struct kernel_query *q)
{
    const struct op_node *n = q->node;
    const struct op_attr *a = op_attr(n, "scales");
    int input = n->kind == OP_UPSAMPLE || n->opset < 11 ? 1 : 2, rank = q->in[0].shape.rank;
    const float *scales = NULL;
    if (a && a->type == OP_ATTR_FLOATS && a->n == (size_t)rank) scales = a->floats;
    if (!scales && input < q->n_in && q->in[input].dtype == TENSOR_F32 && tensor_count(&q->in[input].shape) > 0) {
        if (!q->in[input].data || tensor_count(&q->in[input].shape) != rank) return false;
        scales = q->in[input].data;
    }
    if (!scales) return n->kind == OP_RESIZE && n->opset >= 11; /* sizes were given */
    for (int i = 0; i < rank; i++)
        if ((double)scales[i] * (double)q->in[0].shape.dims[i] != (double)q->out[0].shape.dims[i]) return false;
    return true;
}

static bool nearest_is_same(const struct op_node *n, const struct tensor_shape *x, const struct tensor_shape *y,
                            bool asymmetric, bool half)
{
    int64_t most = 1;
    for (int i = 2; i < x->rank; i++) {
        if (y->dims[i] % x->dims[i]) return false;
        most = MAX(most, y->dims[i] / x->dims[i]);
    }
    const char *mode =
        n->kind == OP_UPSAMPLE || n->opset < 11 ? "floor" : op_attr_string(n, "nearest_mode", "round_prefer_floor");
    if (asymmetric) return strcmp(mode, "floor") == 0 || (most <= 2 && strcmp(mode, "round_prefer_floor") == 0);
    return half && str_starts(mode, "round_prefer");
}

static bool algorithm(const struct kernel_query *q, dnnl_alg_kind_t *ret)
{
    const struct op_node *n = q->node;
    const struct tensor_shape *x = &q->in[0].shape, *y = &q->out[0].shape;
    bool old = n->kind == OP_UPSAMPLE || n->opset < 11, asymmetric, half;
    const char *c = old ? "asymmetric" : op_attr_string(n, "coordinate_transformation_mode", "half_pixel");
    asymmetric = strcmp(c, "asymmetric") == 0;
    half = strcmp(c, "half_pixel") == 0 || strcmp(c, "pytorch_half_pixel") == 0;
    if (!attr_is(n, "keep_aspect_ratio_policy", "stretch", "stretch") || op_attr(n, "axes") ||
        op_attr_int(n, "antialias", 0))
        return false;
    for (int i = 2; i < x->rank; i++)
        if (y->dims[i] == 1 && x->dims[i] != 1) half = half && strcmp(c, "half_pixel") == 0;
    if (attr_is(n, "mode", "nearest", "nearest")) {
        *ret = dnnl_resampling_nearest;
        return nearest_is_same(n, x, y, asymmetric, half);
    }
    *ret = dnnl_resampling_linear;
    return attr_is(n, "mode", "nearest", "linear") && half;
}

static bool accepts(const struct kernel_query *q)
{
    dnnl_alg_kind_t alg;
    if ((q->node->kind != OP_RESIZE && q->node->kind != OP_UPSAMPLE) || q->n_post || q->n_in < 1 || q->n_out != 1)
        return false;
    const struct tensor_shape *x = &q->in[0].shape, *y = &q->out[0].shape;
    if (!onednn_takes_pair(q) || x->rank < 3 || x->rank > 5 || x->rank != y->rank)
        return false;
    return x->dims[0] == y->dims[0] && x->dims[1] == y->dims[1] && scales_are_exact(q) && algorithm(q, &alg);
}

static err prepare(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    dnnl_alg_kind_t alg;
    if (!algorithm(q, &alg) || !onednn_is_last(&q->in[0]) || !onednn_is_last(&q->out[0]))
        return err_set(ERR_UNSUPPORTED, "oneDNN: resizing wants channels-last");
    dnnl_memory_desc_t src = onednn_last(&q->in[0].shape), dst = onednn_last(&q->out[0].shape);
    src.data_type = dst.data_type = onednn_type(&q->in[0]);
    dnnl_resampling_desc_t d = {0};
    err e = onednn_check(dnnl_resampling_forward_desc_init(&d, dnnl_forward_inference, alg, NULL, &src, &dst),
                         ERR_UNSUPPORTED, "resizing");
    if (e) return e;
    struct onednn_job j = {.spec = {.what = "resize", .desc = &d, .desc_bytes = sizeof d, .flops = ONEDNN_NO_REF},
                           .ns = 0.15 * (double)tensor_count(&q->out[0].shape)};
    onednn_job_arg(&j, DNNL_ARG_SRC, 0);
    onednn_job_arg(&j, DNNL_ARG_DST, ONEDNN_FROM_OUT);
    return onednn_state_new(&j, q, payer, ret);
}

ONEDNN_CLASS(onednn_resize, "resize", accepts, onednn_layouts_last, prepare);
