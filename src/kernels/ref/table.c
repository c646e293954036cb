/* Which function computes which operator, how it likes its operands to lie, and the types it takes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#define ANY  KERNEL_LAYOUT_ANY
#define ROWS KERNEL_LAYOUT_ROW_MAJOR
#define LAST KERNEL_LAYOUT_CHANNELS_LAST
#define FLOAT  REF_TYPE_FLOAT
#define NUMBER REF_TYPE_NUMBER
#define ALL    REF_TYPE_ALL
#define FLOAT_UNARY(kind) [OP_##kind] = {ref_unary, NULL, ANY, FLOAT}
#define BINARY(kind)      [OP_##kind] = {ref_binary, NULL, ANY, NUMBER}
#define LOGIC(kind)       [OP_##kind] = {ref_binary, NULL, ANY, REF_TYPE_BOOL}
#define REDUCE(kind)      [OP_##kind] = {ref_reduce, ref_reduce_scratch, ANY, ALL}

static const struct ref_op TABLE[OP_KIND_COUNT] = {
    FLOAT_UNARY(ACOS), FLOAT_UNARY(ACOSH), FLOAT_UNARY(ASIN), FLOAT_UNARY(ASINH), FLOAT_UNARY(ATAN), FLOAT_UNARY(ATANH),
    FLOAT_UNARY(CEIL), FLOAT_UNARY(CELU), FLOAT_UNARY(COS), FLOAT_UNARY(COSH), FLOAT_UNARY(ELU), FLOAT_UNARY(ERF),
    FLOAT_UNARY(EXP), FLOAT_UNARY(FLOOR), FLOAT_UNARY(GELU), FLOAT_UNARY(HARD_SIGMOID), FLOAT_UNARY(HARD_SWISH),
    FLOAT_UNARY(IS_INF), FLOAT_UNARY(IS_NAN), FLOAT_UNARY(LEAKY_RELU), FLOAT_UNARY(LOG), FLOAT_UNARY(MISH),
    FLOAT_UNARY(RECIPROCAL), FLOAT_UNARY(ROUND), FLOAT_UNARY(SELU), FLOAT_UNARY(SIGMOID), FLOAT_UNARY(SILU),
    FLOAT_UNARY(SIN), FLOAT_UNARY(SINH), FLOAT_UNARY(SOFTPLUS), FLOAT_UNARY(SOFTSIGN), FLOAT_UNARY(SQRT),
    FLOAT_UNARY(TAN), FLOAT_UNARY(TANH), FLOAT_UNARY(THRESHOLDED_RELU),
    [OP_ABS] = {ref_unary, NULL, ANY, NUMBER},
    [OP_NEG] = {ref_unary, NULL, ANY, NUMBER},
    [OP_RELU] = {ref_unary, NULL, ANY, NUMBER},
    [OP_SIGN] = {ref_unary, NULL, ANY, NUMBER},
    [OP_NOT] = {ref_unary, NULL, ANY, REF_TYPE_BOOL},
    BINARY(ADD), BINARY(SUB), BINARY(MUL), BINARY(DIV), BINARY(MAX), BINARY(MIN), BINARY(MOD), BINARY(PRELU), BINARY(SUM),
    LOGIC(AND), LOGIC(OR), LOGIC(XOR),
    [OP_MEAN] = {ref_binary, NULL, ANY, FLOAT},
    [OP_BITSHIFT] = {ref_binary, NULL, ANY, REF_TYPE_INT},
    [OP_EQUAL] = {ref_binary, NULL, ANY, ALL},
    BINARY(GREATER), BINARY(GREATER_OR_EQUAL), BINARY(LESS), BINARY(LESS_OR_EQUAL),
    [OP_POW] = {ref_pow, NULL, ANY, NUMBER},
    [OP_WHERE] = {ref_where, NULL, ANY, ALL},
    [OP_CLIP] = {ref_clip, NULL, ANY, NUMBER},
    [OP_IDENTITY] = {ref_identity, NULL, ANY, ALL},
    [OP_COPY] = {ref_identity, NULL, ANY, ALL},
    [OP_CAST] = {ref_cast, NULL, ANY, ALL},
    [OP_DROPOUT] = {ref_dropout, NULL, ANY, FLOAT},
    [OP_RESHAPE] = {ref_reshape, NULL, ROWS, ALL},
    [OP_FLATTEN] = {ref_reshape, NULL, ROWS, ALL},
    [OP_SQUEEZE] = {ref_reshape, NULL, ROWS, ALL},
    [OP_UNSQUEEZE] = {ref_reshape, NULL, ROWS, ALL},
    [OP_TRANSPOSE] = {ref_transpose, NULL, ROWS, ALL},
    [OP_CONCAT] = {ref_concat, NULL, ANY, ALL},
    [OP_SPLIT] = {ref_split, NULL, ANY, ALL},
    [OP_SLICE] = {ref_slice, NULL, ANY, ALL},
    [OP_PAD] = {ref_pad, NULL, ANY, ALL},
    [OP_EXPAND] = {ref_expand, NULL, ANY, ALL},
    [OP_TILE] = {ref_tile, NULL, ANY, ALL},
    [OP_DEPTH_TO_SPACE] = {ref_depth_to_space, NULL, ANY, ALL},
    [OP_SPACE_TO_DEPTH] = {ref_space_to_depth, NULL, ANY, ALL},
    [OP_TRILU] = {ref_trilu, NULL, ROWS, ALL},
    [OP_GATHER] = {ref_gather, NULL, ROWS, ALL},
    [OP_GATHER_ELEMENTS] = {ref_gather_elements, NULL, ROWS, ALL},
    [OP_GATHER_ND] = {ref_gather_nd, NULL, ROWS, ALL},
    [OP_SCATTER_ELEMENTS] = {ref_scatter_elements, NULL, ROWS, ALL},
    [OP_SCATTER_ND] = {ref_scatter_nd, NULL, ROWS, ALL},
    [OP_ONE_HOT] = {ref_one_hot, NULL, ROWS, NUMBER},
    [OP_TOPK] = {ref_topk, ref_topk_scratch, ANY, NUMBER},
    [OP_NON_MAX_SUPPRESSION] = {ref_nms, ref_nms_scratch, ROWS, FLOAT},
    [OP_NON_ZERO] = {ref_non_zero, NULL, ROWS, ALL},
    [OP_QUANTIZE_LINEAR] = {ref_quantize, NULL, ANY, NUMBER},
    [OP_DEQUANTIZE_LINEAR] = {ref_dequantize, NULL, ANY, REF_TYPE_INT},
    [OP_EINSUM] = {ref_einsum, NULL, ROWS, NUMBER},
    [OP_GRID_SAMPLE] = {ref_grid_sample, ref_grid_sample_scratch, LAST, FLOAT},
    [OP_CONSTANT] = {ref_constant, NULL, ROWS, ALL},
    [OP_CONSTANT_OF_SHAPE] = {ref_constant_of_shape, NULL, ROWS, ALL},
    [OP_SHAPE] = {ref_shape, NULL, ANY, ALL},
    [OP_SIZE] = {ref_size_of, NULL, ANY, ALL},
    [OP_RANGE] = {ref_range, NULL, ROWS, NUMBER},
    [OP_EYE_LIKE] = {ref_eye_like, NULL, ROWS, ALL},
    REDUCE(REDUCE_L1), REDUCE(REDUCE_L2), REDUCE(REDUCE_LOG_SUM), REDUCE(REDUCE_LOG_SUM_EXP), REDUCE(REDUCE_MAX),
    REDUCE(REDUCE_MEAN), REDUCE(REDUCE_MIN), REDUCE(REDUCE_PROD), REDUCE(REDUCE_SUM), REDUCE(REDUCE_SUM_SQUARE),
    REDUCE(GLOBAL_AVERAGE_POOL), REDUCE(GLOBAL_MAX_POOL),
    [OP_ARGMAX] = {ref_arg, NULL, ANY, NUMBER},
    [OP_ARGMIN] = {ref_arg, NULL, ANY, NUMBER},
    [OP_CUMSUM] = {ref_cumsum, NULL, ANY, NUMBER},
    [OP_SOFTMAX] = {ref_softmax, ref_softmax_scratch, ANY, FLOAT},
    [OP_LOG_SOFTMAX] = {ref_softmax, ref_softmax_scratch, ANY, FLOAT},
    [OP_LP_NORM] = {ref_lp_norm, ref_softmax_scratch, ANY, FLOAT},
    [OP_BATCH_NORM] = {ref_batch_norm, ref_batch_norm_scratch, ANY, FLOAT},
    [OP_INSTANCE_NORM] = {ref_instance_norm, ref_instance_norm_scratch, ANY, FLOAT},
    [OP_LAYER_NORM] = {ref_layer_norm, ref_layer_norm_scratch, ANY, FLOAT},
    [OP_LRN] = {ref_lrn, ref_scratch_spatial, LAST, FLOAT},
    [OP_MATMUL] = {ref_matmul, ref_matmul_scratch, ROWS, NUMBER},
    [OP_GEMM] = {ref_gemm, ref_gemm_scratch, ROWS, NUMBER},
    [OP_CONV] = {ref_conv, ref_conv_scratch, LAST, FLOAT},
    [OP_CONV_TRANSPOSE] = {ref_conv_transpose, ref_conv_transpose_scratch, LAST, FLOAT},
    [OP_MAX_POOL] = {ref_max_pool, ref_pool_scratch, LAST, NUMBER},
    [OP_AVERAGE_POOL] = {ref_average_pool, ref_pool_scratch, LAST, FLOAT},
    [OP_RESIZE] = {ref_resize, ref_resize_scratch, ANY, NUMBER},
    [OP_UPSAMPLE] = {ref_resize, ref_resize_scratch, ANY, NUMBER},
};

const struct ref_op *ref_op_find(enum op_kind kind)
{
    return (unsigned)kind < OP_KIND_COUNT && TABLE[kind].run ? &TABLE[kind] : NULL;
}
