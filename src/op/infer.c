/* From operator to rule: the one table, and what is checked before and after every rule.
 *
 * Everything a node says is foreign. Before a rule runs: as many inputs and outputs as the operator can have,
 * required inputs present, ranks up to TENSOR_MAX_RANK, sizes known and >= 0, fewer than 2^47 bytes, no
 * strings. After it: the same for every output. So a rule may index shapes and multiply two sizes of one
 * tensor freely, and callers may trust what comes out. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <string.h>

enum { ANY = 255 };

static const struct rule {
    op_infer_fn *infer;
    op_flops_fn *flops;
    uint8_t least_in, most_in,
        most_out;   /* inputs below least_in must be present; at least one output always */
    bool bounds_ok; /* the rule knows what to do with a size that is only a bound */
} RULES[OP_KIND_COUNT] = {
    [OP_ABS] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_ACOS] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_ACOSH] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_ASIN] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_ASINH] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_ATAN] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_ATANH] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_CEIL] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_CELU] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_COS] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_COSH] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_ELU] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_ERF] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_EXP] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_FLOOR] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_GELU] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_HARD_SIGMOID] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_HARD_SWISH] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_LEAKY_RELU] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_LOG] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_MISH] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_NEG] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_RECIPROCAL] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_RELU] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_ROUND] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_SELU] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_SIGMOID] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_SIGN] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_SILU] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_SIN] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_SINH] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_SOFTPLUS] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_SOFTSIGN] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_SQRT] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_TAN] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_TANH] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_THRESHOLDED_RELU] = {op_rule_same, op_flops_out, 1, 1, 1, true},
    [OP_COPY] = {op_rule_same, op_flops_none, 1, 1, 1, true},
    [OP_IDENTITY] = {op_rule_same, op_flops_none, 1, 1, 1, true},
    [OP_CLIP] = {op_rule_clip, op_flops_out, 1, 3, 1, true},
    [OP_IS_INF] = {op_rule_test, op_flops_out, 1, 1, 1, true},
    [OP_IS_NAN] = {op_rule_test, op_flops_out, 1, 1, 1, true},
    [OP_NOT] = {op_rule_logic, op_flops_out, 1, 1, 1, true},
    [OP_AND] = {op_rule_logic, op_flops_out, 2, 2, 1, true},
    [OP_OR] = {op_rule_logic, op_flops_out, 2, 2, 1, true},
    [OP_XOR] = {op_rule_logic, op_flops_out, 2, 2, 1, true},
    [OP_ADD] = {op_rule_broadcast, op_flops_out, 2, 2, 1, true},
    [OP_SUB] = {op_rule_broadcast, op_flops_out, 2, 2, 1, true},
    [OP_MUL] = {op_rule_broadcast, op_flops_out, 2, 2, 1, true},
    [OP_DIV] = {op_rule_broadcast, op_flops_out, 2, 2, 1, true},
    [OP_MOD] = {op_rule_broadcast, op_flops_out, 2, 2, 1, true},
    [OP_MAX] = {op_rule_broadcast, op_flops_out, 1, ANY, 1, true},
    [OP_MIN] = {op_rule_broadcast, op_flops_out, 1, ANY, 1, true},
    [OP_MEAN] = {op_rule_broadcast, op_flops_out, 1, ANY, 1, true},
    [OP_SUM] = {op_rule_broadcast, op_flops_out, 1, ANY, 1, true},
    [OP_EQUAL] = {op_rule_compare, op_flops_out, 2, 2, 1, true},
    [OP_GREATER] = {op_rule_compare, op_flops_out, 2, 2, 1, true},
    [OP_GREATER_OR_EQUAL] = {op_rule_compare, op_flops_out, 2, 2, 1, true},
    [OP_LESS] = {op_rule_compare, op_flops_out, 2, 2, 1, true},
    [OP_LESS_OR_EQUAL] = {op_rule_compare, op_flops_out, 2, 2, 1, true},
    [OP_BITSHIFT] = {op_rule_shift, op_flops_out, 2, 2, 1, true},
    [OP_POW] = {op_rule_pow, op_flops_out, 2, 2, 1, true},
    [OP_PRELU] = {op_rule_prelu, op_flops_out, 2, 2, 1, true},
    [OP_WHERE] = {op_rule_where, op_flops_none, 3, 3, 1, true},
    [OP_CAST] = {op_rule_cast, op_flops_none, 1, 1, 1, true},
    [OP_DROPOUT] = {op_rule_dropout, op_flops_none, 1, 3, 2, true},
    [OP_QUANTIZE_LINEAR] = {op_rule_quantize, op_flops_out, 2, 3, 1, true},
    [OP_DEQUANTIZE_LINEAR] = {op_rule_dequantize, op_flops_out, 2, 3, 1, true},
    [OP_CONV] = {op_rule_conv, op_flops_conv, 2, 3, 1, true},
    [OP_CONV_TRANSPOSE] = {op_rule_conv_transpose, op_flops_conv_transpose, 2, 3, 1, true},
    [OP_AVERAGE_POOL] = {op_rule_pool, op_flops_pool, 1, 1, 1, true},
    [OP_MAX_POOL] = {op_rule_pool, op_flops_pool, 1, 1, 2, true},
    [OP_GLOBAL_AVERAGE_POOL] = {op_rule_global_pool, op_flops_in, 1, 1, 1, true},
    [OP_GLOBAL_MAX_POOL] = {op_rule_global_pool, op_flops_in, 1, 1, 1, true},
    [OP_REDUCE_L1] = {op_rule_reduce, op_flops_in, 1, 2, 1, true},
    [OP_REDUCE_L2] = {op_rule_reduce, op_flops_in, 1, 2, 1, true},
    [OP_REDUCE_LOG_SUM] = {op_rule_reduce, op_flops_in, 1, 2, 1, true},
    [OP_REDUCE_LOG_SUM_EXP] = {op_rule_reduce, op_flops_in, 1, 2, 1, true},
    [OP_REDUCE_MAX] = {op_rule_reduce, op_flops_in, 1, 2, 1, true},
    [OP_REDUCE_MEAN] = {op_rule_reduce, op_flops_in, 1, 2, 1, true},
    [OP_REDUCE_MIN] = {op_rule_reduce, op_flops_in, 1, 2, 1, true},
    [OP_REDUCE_PROD] = {op_rule_reduce, op_flops_in, 1, 2, 1, true},
    [OP_REDUCE_SUM] = {op_rule_reduce, op_flops_in, 1, 2, 1, true},
    [OP_REDUCE_SUM_SQUARE] = {op_rule_reduce, op_flops_in, 1, 2, 1, true},
    [OP_ARGMAX] = {op_rule_arg, op_flops_in, 1, 1, 1, true},
    [OP_ARGMIN] = {op_rule_arg, op_flops_in, 1, 1, 1, true},
    [OP_SOFTMAX] = {op_rule_along_axis, op_flops_softmax, 1, 1, 1, true},
    [OP_LOG_SOFTMAX] = {op_rule_along_axis, op_flops_softmax, 1, 1, 1, true},
    [OP_LP_NORM] = {op_rule_along_axis, op_flops_batch_norm, 1, 1, 1, true},
    [OP_CUMSUM] = {op_rule_cumsum, op_flops_out, 2, 2, 1, true},
    [OP_MATMUL] = {op_rule_matmul, op_flops_matmul, 2, 2, 1, true},
    [OP_GEMM] = {op_rule_gemm, op_flops_gemm, 2, 3, 1, true},
    [OP_EINSUM] = {op_rule_einsum, op_flops_einsum, 1, 8, 1, false},
    [OP_BATCH_NORM] = {op_rule_batch_norm, op_flops_batch_norm, 5, 5, 5, true},
    [OP_INSTANCE_NORM] = {op_rule_instance_norm, op_flops_norm, 3, 3, 1, true},
    [OP_LAYER_NORM] = {op_rule_layer_norm, op_flops_norm, 2, 3, 3, true},
    [OP_LRN] = {op_rule_lrn, op_flops_lrn, 1, 1, 1, true},
    [OP_RESHAPE] = {op_rule_reshape, op_flops_none, 2, 2, 1, true},
    [OP_FLATTEN] = {op_rule_flatten, op_flops_none, 1, 1, 1, true},
    [OP_SQUEEZE] = {op_rule_squeeze, op_flops_none, 1, 2, 1, true},
    [OP_UNSQUEEZE] = {op_rule_unsqueeze, op_flops_none, 1, 2, 1, true},
    [OP_EXPAND] = {op_rule_expand, op_flops_none, 2, 2, 1, true},
    [OP_TILE] = {op_rule_tile, op_flops_none, 2, 2, 1, true},
    [OP_TRANSPOSE] = {op_rule_transpose, op_flops_none, 1, 1, 1, true},
    [OP_CONCAT] = {op_rule_concat, op_flops_none, 1, ANY, 1, true},
    [OP_SPLIT] = {op_rule_split, op_flops_none, 1, 2, ANY, true},
    [OP_SLICE] = {op_rule_slice, op_flops_none, 1, 5, 1, true},
    [OP_PAD] = {op_rule_pad, op_flops_none, 1, 4, 1, true},
    [OP_DEPTH_TO_SPACE] = {op_rule_depth_to_space, op_flops_none, 1, 1, 1, true},
    [OP_SPACE_TO_DEPTH] = {op_rule_space_to_depth, op_flops_none, 1, 1, 1, true},
    [OP_TRILU] = {op_rule_trilu, op_flops_none, 1, 2, 1, true},
    [OP_GATHER] = {op_rule_gather, op_flops_none, 2, 2, 1, true},
    [OP_GATHER_ELEMENTS] = {op_rule_gather_elements, op_flops_none, 2, 2, 1, false},
    [OP_GATHER_ND] = {op_rule_gather_nd, op_flops_none, 2, 2, 1, true},
    [OP_SCATTER_ELEMENTS] = {op_rule_scatter_elements, op_flops_none, 3, 3, 1, false},
    [OP_SCATTER_ND] = {op_rule_scatter_nd, op_flops_none, 3, 3, 1, true},
    [OP_ONE_HOT] = {op_rule_one_hot, op_flops_none, 3, 3, 1, true},
    [OP_RESIZE] = {op_rule_resize, op_flops_resize, 1, 4, 1, false},
    [OP_UPSAMPLE] = {op_rule_upsample, op_flops_resize, 1, 2, 1, false},
    [OP_GRID_SAMPLE] = {op_rule_grid_sample, op_flops_resize, 2, 2, 1, true},
    [OP_CONSTANT] = {op_rule_constant, op_flops_none, 0, 0, 1, true},
    [OP_CONSTANT_OF_SHAPE] = {op_rule_constant_of_shape, op_flops_none, 1, 1, 1, true},
    [OP_EYE_LIKE] = {op_rule_eye_like, op_flops_none, 1, 1, 1, true},
    [OP_RANGE] = {op_rule_range, op_flops_none, 3, 3, 1, true},
    [OP_SHAPE] = {op_rule_shape, op_flops_none, 1, 1, 1, true},
    [OP_SIZE] = {op_rule_size, op_flops_none, 1, 1, 1, true},
    [OP_NON_ZERO] = {op_rule_non_zero, op_flops_none, 1, 1, 1, true},
    [OP_NON_MAX_SUPPRESSION] = {op_rule_nms, op_flops_none, 2, 5, 1, true},
    [OP_TOPK] = {op_rule_topk, op_flops_in, 1, 2, 2, true},
    [OP_LSTM] = {op_rule_recurrent, op_flops_recurrent, 3, 8, 3, false},
    [OP_GRU] = {op_rule_recurrent, op_flops_recurrent, 3, 6, 2, false},
    [OP_RNN] = {op_rule_recurrent, op_flops_recurrent, 3, 6, 2, false},
    [OP_QLINEAR_CONV] = {op_rule_qlinear, op_flops_integer, 8, 9, 1, false},
    [OP_QLINEAR_MATMUL] = {op_rule_qlinear, op_flops_integer, 8, 8, 1, false},
    [OP_CONV_INTEGER] = {op_rule_integer, op_flops_integer, 2, 4, 1, false},
    [OP_MATMUL_INTEGER] = {op_rule_integer, op_flops_integer, 2, 4, 1, false},
    [OP_DYNAMIC_QUANTIZE] = {op_rule_dynamic_quantize, op_flops_out, 1, 1, 3, false},
    [OP_UNARY_GRAD] = {op_rule_unary_grad, op_flops_out, 2, 2, 1, false},
    [OP_SOFTMAX_GRAD] = {op_rule_softmax_grad, op_flops_softmax, 2, 2, 1, false},
    [OP_CONV_GRAD_WEIGHT] = {op_rule_conv_grad_weight, op_flops_conv_grad_weight, 2, 2, 2, false},
    [OP_MAX_POOL_GRAD] = {op_rule_max_pool_grad, op_flops_out, 2, 2, 1, false},
    [OP_AVERAGE_POOL_GRAD] = {op_rule_average_pool_grad, op_flops_out, 1, 1, 1, false},
    [OP_BATCH_NORM_TRAIN] = {op_rule_batch_norm_train, op_flops_norm, 3, 5, 5, false},
    [OP_BATCH_NORM_GRAD] = {op_rule_batch_norm_grad, op_flops_norm, 5, 5, 3, false},
    [OP_INSTANCE_NORM_GRAD] = {op_rule_instance_norm_grad, op_flops_norm, 3, 3, 3, false},
    [OP_LAYER_NORM_GRAD] = {op_rule_layer_norm_grad, op_flops_norm, 3, 3, 3, false},
    [OP_GATHER_GRAD] = {op_rule_gather_grad, op_flops_in, 2, 2, 1, false},
    [OP_SLICE_GRAD] = {op_rule_slice_grad, op_flops_none, 1, 1, 1, false},
    [OP_DROPOUT_BY] = {op_rule_dropout_by, op_flops_out, 2, 2, 1, false},
    [OP_BITWISE_AND] = {op_rule_bitwise, op_flops_out, 2, 2, 1, true},
    [OP_BITWISE_OR] = {op_rule_bitwise, op_flops_out, 2, 2, 1, true},
    [OP_BITWISE_XOR] = {op_rule_bitwise, op_flops_out, 2, 2, 1, true},
    [OP_BIT_CAST] = {op_rule_bit_cast, op_flops_none, 1, 1, 1, true},
    [OP_CUMPROD] = {op_rule_cumsum, op_flops_out, 2, 2, 1, true},
    [OP_DET] = {op_rule_det, op_flops_in, 1, 1, 1, false},
    [OP_UNIQUE] = {op_rule_unique, op_flops_none, 1, 1, 4, false},
    [OP_ROI_ALIGN] = {op_rule_roi_align, op_flops_out, 3, 3, 1, true},
    [OP_MAX_ROI_POOL] = {op_rule_max_roi_pool, op_flops_out, 2, 2, 1, true},
    [OP_MAX_UNPOOL] = {op_rule_max_unpool, op_flops_none, 2, 3, 1, false},
    [OP_DEFORM_CONV] = {op_rule_deform_conv, op_flops_conv, 3, 5, 1, false},
    [OP_COL2IM] = {op_rule_col2im, op_flops_in, 3, 3, 1, false},
    [OP_AFFINE_GRID] = {op_rule_affine_grid, op_flops_out, 2, 2, 1, false},
    [OP_TENSOR_SCATTER] = {op_rule_tensor_scatter, op_flops_none, 2, 3, 1, false},
    [OP_DFT] = {op_rule_dft, op_flops_out, 1, 3, 1, false},
    [OP_STFT] = {op_rule_stft, op_flops_out, 2, 4, 1, false},
    [OP_MEL_WEIGHT_MATRIX] = {op_rule_mel, op_flops_out, 5, 5, 1, false},
    [OP_IF] = {op_rule_subgraph, op_flops_none, 0, ANY, ANY, true},
    [OP_LOOP] = {op_rule_subgraph, op_flops_none, 0, ANY, ANY, true},
    [OP_SCAN] = {op_rule_subgraph, op_flops_none, 0, ANY, ANY, true},
};

static err check_count(const struct op_node *n, const struct rule *r)
{
    if (n->n_in < 0 || n->n_out < 0 || (r->most_in != ANY && n->n_in > r->most_in))
        return err_set(ERR_SHAPE, "%s with %d inputs; it has at most %d", op_name(n->kind), n->n_in,
                       r->most_in);
    if (n->n_out > OP_MAX_OUT)
        return err_set(ERR_UNSUPPORTED, "%d outputs; brim takes at most %d", n->n_out, OP_MAX_OUT);
    if (n->n_out < 1 || (r->most_out != ANY && n->n_out > r->most_out))
        return err_set(ERR_SHAPE, "%s with %d outputs; it has 1 to %d", op_name(n->kind), n->n_out,
                       r->most_out);
    return ERR_OK;
}

static err check_value(const char *which, int i, const struct op_info *v)
{
    int64_t count;
    size_t size = tensor_dtype_size(v->dtype);
    if (!size)
        return err_set(ERR_UNSUPPORTED, "%s %d is of the type %s", which, i, tensor_dtype_name(v->dtype));
    if (v->shape.rank < 0 || v->shape.rank > TENSOR_MAX_RANK)
        return err_set(ERR_SHAPE, "%s %d has %d axes, at most %d are possible", which, i, v->shape.rank,
                       TENSOR_MAX_RANK);
    if (!tensor_shape_known(&v->shape))
        return err_set(ERR_SHAPE, "%s %d has a size that is not known", which, i);
    if (tensor_shape_count(&v->shape, &count) || count > ((int64_t)1 << 47) / (int64_t)size)
        return err_set(ERR_SHAPE, "%s %d would have more than 2^47 bytes", which, i);
    return ERR_OK;
}

static err check_inputs(const struct op_node *n, const struct rule *r, const struct op_info *in)
{
    for (int i = 0; i < MAX(n->n_in, r->least_in); i++) {
        if (!op_present(n, in, i)) {
            if (i < r->least_in) return err_set(ERR_SHAPE, "input %d is absent", i);
            continue;
        }
        err e = check_value("input", i, &in[i]);
        if (e) return e;
        unsigned bits =
            in[i].shape.rank < 8 ? in[i].shape.bounded & ((1u << in[i].shape.rank) - 1) : in[i].shape.bounded;
        if (bits && !r->bounds_ok)
            return err_set(ERR_UNSUPPORTED, "input %d of %s has a size that depends on data", i,
                           op_name(n->kind));
    }
    return ERR_OK;
}

err op_infer(const struct op_node *n, const struct op_info *in, struct op_info *ret_out)
{
    struct op_info out[OP_MAX_OUT];
    if ((unsigned)n->kind >= OP_KIND_COUNT || !RULES[n->kind].infer)
        return err_set(ERR_UNSUPPORTED, "an operator without a shape rule");
    const struct rule *r = &RULES[n->kind];
    err e = check_count(n, r);
    if (!e) e = check_inputs(n, r, in);
    if (e) return e;
    memset(out, 0, (size_t)n->n_out * sizeof *out);
    e = r->infer(n, in, out);
    for (int i = 0; !e && i < n->n_out; i++) e = check_value("output", i, &out[i]);
    if (!e) memcpy(ret_out, out, (size_t)n->n_out * sizeof *out);
    return e;
}

int64_t op_flops(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    if ((unsigned)n->kind >= OP_KIND_COUNT || !RULES[n->kind].flops) return 0;
    return RULES[n->kind].flops(n, in, out);
}
