/* The vocabulary of computation: every operator, its attributes, its shape rule. No numbers are computed here.
 *
 * Operators are those of ONNX (https://onnx.ai/onnx/operators/), one enum value per operator over all opsets; the node keeps
 * the opset in force, because attributes moved to inputs over the years (Clip 11, Pad 11, ReduceSum 13 ...). The kernels
 * look at the node in the same way, through op_attr_*.
 *
 * A shape rule is asked when a plan is made, with known input shapes, and answers with known shapes or with upper bounds
 * (struct tensor_shape.bounded) where the result depends on data. Inputs that are constants at that moment (shape arithmetic,
 * axes, scales) carry their bytes. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "tensor/tensor.h"

struct graph; /* a subgraph inside an attribute (If, Loop, Scan); owned by the graph room */

/* kind, ONNX name, domain ("" = ai.onnx). The order has no meaning; names are unique within a domain. */
#define OP_LIST(X)                                                                                           \
    X(ABS, "Abs", "") X(ACOS, "Acos", "") X(ACOSH, "Acosh", "") X(ADD, "Add", "") X(AND, "And", "")          \
    X(ARGMAX, "ArgMax", "") X(ARGMIN, "ArgMin", "") X(ASIN, "Asin", "") X(ASINH, "Asinh", "")                \
    X(ATAN, "Atan", "") X(ATANH, "Atanh", "") X(AVERAGE_POOL, "AveragePool", "")                             \
    X(BATCH_NORM, "BatchNormalization", "") X(BITSHIFT, "BitShift", "") X(CAST, "Cast", "")                  \
    X(CEIL, "Ceil", "") X(CELU, "Celu", "") X(CLIP, "Clip", "") X(CONCAT, "Concat", "")                      \
    X(CONSTANT, "Constant", "") X(CONSTANT_OF_SHAPE, "ConstantOfShape", "") X(CONV, "Conv", "")              \
    X(CONV_TRANSPOSE, "ConvTranspose", "") X(COS, "Cos", "") X(COSH, "Cosh", "") X(CUMSUM, "CumSum", "")     \
    X(DEPTH_TO_SPACE, "DepthToSpace", "") X(DEQUANTIZE_LINEAR, "DequantizeLinear", "") X(DIV, "Div", "")     \
    X(DROPOUT, "Dropout", "") X(EINSUM, "Einsum", "") X(ELU, "Elu", "") X(EQUAL, "Equal", "")                \
    X(ERF, "Erf", "") X(EXP, "Exp", "") X(EXPAND, "Expand", "") X(EYE_LIKE, "EyeLike", "")                   \
    X(FLATTEN, "Flatten", "") X(FLOOR, "Floor", "") X(GATHER, "Gather", "")                                  \
    X(GATHER_ELEMENTS, "GatherElements", "") X(GATHER_ND, "GatherND", "") X(GELU, "Gelu", "")                \
    X(GEMM, "Gemm", "") X(GLOBAL_AVERAGE_POOL, "GlobalAveragePool", "")                                      \
    X(GLOBAL_MAX_POOL, "GlobalMaxPool", "") X(GREATER, "Greater", "")                                        \
    X(GREATER_OR_EQUAL, "GreaterOrEqual", "") X(GRID_SAMPLE, "GridSample", "")                               \
    X(HARD_SIGMOID, "HardSigmoid", "") X(HARD_SWISH, "HardSwish", "") X(IDENTITY, "Identity", "")            \
    X(IF, "If", "") X(INSTANCE_NORM, "InstanceNormalization", "") X(IS_INF, "IsInf", "")                     \
    X(IS_NAN, "IsNaN", "") X(LAYER_NORM, "LayerNormalization", "") X(LEAKY_RELU, "LeakyRelu", "")            \
    X(LESS, "Less", "") X(LESS_OR_EQUAL, "LessOrEqual", "") X(LOG, "Log", "")                                \
    X(LOG_SOFTMAX, "LogSoftmax", "") X(LOOP, "Loop", "") X(LP_NORM, "LpNormalization", "") X(LRN, "LRN", "") \
    X(MATMUL, "MatMul", "") X(MAX, "Max", "") X(MAX_POOL, "MaxPool", "") X(MEAN, "Mean", "")                 \
    X(MIN, "Min", "") X(MISH, "Mish", "") X(MOD, "Mod", "") X(MUL, "Mul", "") X(NEG, "Neg", "")              \
    X(NON_MAX_SUPPRESSION, "NonMaxSuppression", "") X(NON_ZERO, "NonZero", "") X(NOT, "Not", "")             \
    X(ONE_HOT, "OneHot", "") X(OR, "Or", "") X(PAD, "Pad", "") X(POW, "Pow", "") X(PRELU, "PRelu", "")       \
    X(QUANTIZE_LINEAR, "QuantizeLinear", "") X(RANGE, "Range", "") X(RECIPROCAL, "Reciprocal", "")           \
    X(REDUCE_L1, "ReduceL1", "") X(REDUCE_L2, "ReduceL2", "") X(REDUCE_LOG_SUM, "ReduceLogSum", "")          \
    X(REDUCE_LOG_SUM_EXP, "ReduceLogSumExp", "") X(REDUCE_MAX, "ReduceMax", "")                              \
    X(REDUCE_MEAN, "ReduceMean", "") X(REDUCE_MIN, "ReduceMin", "") X(REDUCE_PROD, "ReduceProd", "")         \
    X(REDUCE_SUM, "ReduceSum", "") X(REDUCE_SUM_SQUARE, "ReduceSumSquare", "") X(RELU, "Relu", "")           \
    X(RESHAPE, "Reshape", "") X(RESIZE, "Resize", "") X(ROUND, "Round", "") X(SCAN, "Scan", "")              \
    X(SCATTER_ELEMENTS, "ScatterElements", "") X(SCATTER_ND, "ScatterND", "") X(SELU, "Selu", "")            \
    X(SHAPE, "Shape", "") X(SIGMOID, "Sigmoid", "") X(SIGN, "Sign", "") X(SIN, "Sin", "")                    \
    X(SINH, "Sinh", "") X(SIZE, "Size", "") X(SLICE, "Slice", "") X(SOFTMAX, "Softmax", "")                  \
    X(SOFTPLUS, "Softplus", "") X(SOFTSIGN, "Softsign", "") X(SPACE_TO_DEPTH, "SpaceToDepth", "")            \
    X(SPLIT, "Split", "") X(SQRT, "Sqrt", "") X(SQUEEZE, "Squeeze", "") X(SUB, "Sub", "") X(SUM, "Sum", "")  \
    X(TAN, "Tan", "") X(TANH, "Tanh", "") X(THRESHOLDED_RELU, "ThresholdedRelu", "") X(TILE, "Tile", "")     \
    X(TOPK, "TopK", "") X(TRANSPOSE, "Transpose", "") X(TRILU, "Trilu", "")                                  \
    X(UNSQUEEZE, "Unsqueeze", "") X(UPSAMPLE, "Upsample", "") X(WHERE, "Where", "") X(XOR, "Xor", "")        \
    X(GRU, "GRU", "") X(LSTM, "LSTM", "") X(RNN, "RNN", "") X(CONV_INTEGER, "ConvInteger", "")               \
    X(MATMUL_INTEGER, "MatMulInteger", "") X(QLINEAR_CONV, "QLinearConv", "")                                \
    X(QLINEAR_MATMUL, "QLinearMatMul", "") X(DYNAMIC_QUANTIZE, "DynamicQuantizeLinear", "")                  \
    X(BITWISE_AND, "BitwiseAnd", "") X(BITWISE_OR, "BitwiseOr", "") X(BITWISE_XOR, "BitwiseXor", "")         \
    X(BIT_CAST, "BitCast", "") X(CUMPROD, "CumProd", "") X(DET, "Det", "") X(UNIQUE, "Unique", "")           \
    X(ROI_ALIGN, "RoiAlign", "") X(MAX_ROI_POOL, "MaxRoiPool", "") X(MAX_UNPOOL, "MaxUnpool", "")            \
    X(DEFORM_CONV, "DeformConv", "") X(COL2IM, "Col2Im", "") X(AFFINE_GRID, "AffineGrid", "")                \
    X(TENSOR_SCATTER, "TensorScatter", "") X(DFT, "DFT", "") X(STFT, "STFT", "")                             \
    X(MEL_WEIGHT_MATRIX, "MelWeightMatrix", "")                                                              \
    /* brim's own: what rewrites make */                                                                     \
    X(CAST_LIKE, "CastLike", "") X(COPY, "Copy", "brim") X(SILU, "Silu", "brim")                 \
    /* ... and gradients (gradient.c says what each is) */                                                   \
    X(UNARY_GRAD, "UnaryGrad", "brim") X(SOFTMAX_GRAD, "SoftmaxGrad", "brim")                                \
    X(CONV_GRAD_WEIGHT, "ConvGradWeight", "brim") X(MAX_POOL_GRAD, "MaxPoolGrad", "brim")                    \
    X(AVERAGE_POOL_GRAD, "AveragePoolGrad", "brim") X(BATCH_NORM_TRAIN, "BatchNormTrain", "brim")            \
    X(BATCH_NORM_GRAD, "BatchNormGrad", "brim") X(INSTANCE_NORM_GRAD, "InstanceNormGrad", "brim")            \
    X(LAYER_NORM_GRAD, "LayerNormGrad", "brim") X(GATHER_GRAD, "GatherGrad", "brim")                         \
    X(SLICE_GRAD, "SliceGrad", "brim") X(DROPOUT_BY, "DropoutBy", "brim")

enum op_kind {
    OP_NONE = 0,
#define X(kind, name, domain) OP_##kind,
    OP_LIST(X)
#undef X
        OP_KIND_COUNT
};
const char *op_name(enum op_kind kind);
/* OP_NONE if brim has no such operator. domain "ai.onnx" equals "". */
enum op_kind op_find(const char *domain, const char *name);

enum op_attr_type {
    OP_ATTR_FLOAT = 1, /* the numbers of ONNX's AttributeProto.AttributeType */
    OP_ATTR_INT,
    OP_ATTR_STRING,
    OP_ATTR_TENSOR,
    OP_ATTR_GRAPH,
    OP_ATTR_FLOATS,
    OP_ATTR_INTS,
    OP_ATTR_STRINGS,
};
struct op_attr {
    char *name;
    enum op_attr_type type;
    int64_t i; /* of strings: the bytes of s */
    float f;
    size_t n; /* of ints, floats, strings; bytes of s where it is one string */
    int64_t *ints;
    float *floats;
    char *s; /* terminated; strings lie one behind the other, each with its 0 */
    struct tensor tensor; /* row-major view; the bytes live in the file or in `owned` */
    struct graph *graph;
};

struct op_node {
    enum op_kind kind;
    char *name;    /* never NULL, may be "" */
    int opset;     /* of the node's domain, as the file imports it */
    int n_in, n_out;
    int *in, *out; /* value numbers in the graph; -1: an absent optional one */
    int n_attrs;
    struct op_attr *attrs;
};
const struct op_attr *op_attr(const struct op_node *n, const char *name);
int64_t op_attr_int(const struct op_node *n, const char *name, int64_t otherwise);
float op_attr_float(const struct op_node *n, const char *name, float otherwise);
const char *op_attr_string(const struct op_node *n, const char *name, const char *otherwise);
/* Number of integers in the list attribute (0 if absent), pointer into the node. */
size_t op_attr_ints(const struct op_node *n, const char *name, const int64_t **ret);

/* What is known of a value when a plan is made. */
struct op_info {
    enum tensor_dtype dtype; /* TENSOR_NONE: an absent optional input */
    struct tensor_shape shape;
    const void *constant; /* its bytes in row-major order, or NULL */
};
/* Shapes and types of all outputs of `n`. ERR_SHAPE or ERR_UNSUPPORTED with a sentence that says which input and what is
 * wrong with it, without the node's name (the caller adds it). ERR_UNSUPPORTED also for a constant that has to be known
 * (the shape of a Reshape, say) and is not. Attribute values are foreign: any number is possible. */
err op_infer(const struct op_node *n, const struct op_info *in, struct op_info *ret_out);

/* Multiplications and additions of one run, each counted as one; 0 for pure data movement. */
int64_t op_flops(const struct op_node *n, const struct op_info *in, const struct op_info *out);

/* Sizes of a convolution or pooling along each spatial axis, after auto_pad: what the shape rule and every kernel need. */
struct op_window {
    int n; /* spatial axes, 1 to 3 (up to 6 for shape only) */
    int64_t kernel[6], stride[6], dilation[6], pad_begin[6], pad_end[6], in[6], out[6];
    int64_t output_padding[6];
    int64_t group;
};
/* For Conv, ConvTranspose, AveragePool, MaxPool. `weight` is the shape of W, or NULL for pooling. */
err op_window(const struct op_node *n, const struct tensor_shape *x, const struct tensor_shape *weight,
              struct op_window *ret);
/* Axes of a Reduce*, Squeeze, Unsqueeze ...: from the attribute or the constant input, made positive and checked against
 * rank; returns the count, at most TENSOR_MAX_RANK, or a negative err. */
int op_axes(const struct op_node *n, const struct op_info *axes_input, int rank, int64_t *ret_axes);
