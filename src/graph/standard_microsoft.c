/* Operators of com.microsoft that exporters and ONNX Runtime's own optimiser write, as bodies of others: what is fused (convolution, product,
 * normalisation, embedding), what the standard has, too, and weights of 2, 4 or 8 bits. ONNX Runtime's docs/ContribOperators.md;
 * standard_quantised.c has the quantised ones, standard_heads.c those of attention. SPDX-License-Identifier: Apache-2.0 */
#include "graph/standard.h"

#include <math.h>

static float number_of(const struct op_node *n, const char *name, size_t i, float otherwise)
{
    const struct op_attr *a = op_attr(n, name);
    return a && a->type == OP_ATTR_FLOATS && i < a->n ? a->floats[i] : otherwise;
}

/* y as the node's output, after the activation that it names. */
static void activate(struct maker *m, const struct op_node *n, const char *which, int y, float alpha, float beta)
{
    static const struct {
        const char *name;
        enum op_kind kind;
    } KINDS[] = {{"Relu", OP_RELU}, {"Tanh", OP_TANH}, {"Sigmoid", OP_SIGMOID}, {"LeakyRelu", OP_LEAKY_RELU}, {"HardSigmoid", OP_HARD_SIGMOID},
                 {"HardSwish", OP_HARD_SWISH}, {"Clip", OP_CLIP}, {"Elu", OP_ELU}, {"Softplus", OP_SOFTPLUS}, {"Gelu", OP_GELU}, {"", OP_IDENTITY}};
    size_t k = 0;
    while (k < ARRAY_LEN(KINDS) && strcmp(KINDS[k].name, which) != 0) k++;
    if (k == ARRAY_LEN(KINDS)) {
        if (!m->e) m->e = err_set(ERR_UNSUPPORTED, "the activation '%.60s'", which);
        return;
    }
    if (KINDS[k].kind == OP_CLIP) {
        node(m, OP_CLIP, y, std_like(m, alpha, y), std_like(m, beta, y), n->out[0]);
        return;
    }
    node(m, KINDS[k].kind, y, -1, -1, n->out[0]);
    if (KINDS[k].kind == OP_GELU) last(m)->op.opset = 20;
    if (!isnan(alpha)) graph_set_float(last(m), "alpha", alpha);
    if (!isnan(beta)) graph_set_float(last(m), "beta", beta);
}

static void fused_conv(struct maker *m, const struct op_node *n)
{
    int y = std_copy(m, n, OP_CONV, 11, std_input(n, 2) >= 0 ? 3 : 2, n->in, -1);
    if (std_input(n, 3) >= 0) y = std_two(m, OP_ADD, y, n->in[3]);
    const char *which = op_attr_string(n, "activation", "");
    bool clip = strcmp(which, "Clip") == 0;
    activate(m, n, which, y, number_of(n, "activation_params", 0, clip ? -INFINITY : NAN),
             number_of(n, "activation_params", 1, clip ? INFINITY : NAN));
}

static void fused_gemm(struct maker *m, const struct op_node *n)
{
    int y = std_copy(m, n, OP_GEMM, 13, std_input(n, 2) >= 0 ? 3 : 2, n->in, -1);
    activate(m, n, op_attr_string(n, "activation", ""), y, op_attr_float(n, "activation_alpha", NAN), op_attr_float(n, "activation_beta", NAN));
}

/* ---- channels last, of which exporters write four axes */

int std_channels_first(struct maker *m, int x)
{
    const struct graph_value *v = &m->g->values[x];
    if (v->has_shape && v->shape.rank != 4 && !m->e)
        m->e = err_set(ERR_UNSUPPORTED, "channels in the last place of %d axes; 4 axes are supported", v->shape.rank);
    return STD_TRANSPOSE(m, x, 0, 3, 1, 2);
}

void std_give_channels_last(struct maker *m, const struct op_node *n, int y)
{
    node(m, OP_TRANSPOSE, y, -1, -1, n->out[0]);
    graph_set_ints(last(m), "perm", (int64_t[]){0, 2, 3, 1}, 4);
}

static void nhwc_max_pool(struct maker *m, const struct op_node *n)
{
    int x = std_channels_first(m, n->in[0]);
    std_give_channels_last(m, n, std_copy(m, n, OP_MAX_POOL, 12, 1, &x, -1));
}

/* ---- embedding */

/* A table that may be quantised: rows are made real when they were taken. */
struct rows {
    int table, scale, zero;
};

static int take(struct maker *m, struct rows t, int at)
{
    int x = at < 0 ? t.table : std_two(m, OP_GATHER, t.table, at);
    return t.scale < 0 ? x : node(m, OP_DEQUANTIZE_LINEAR, x, t.scale, t.zero, -1);
}

static void embed(struct maker *m, const struct op_node *n, const struct rows *t, int mask, int position)
{
    int ids = n->in[0], segment = std_input(n, 1);
    if (position < 0) position = std_count(m, ids, 1);
    int sum = std_two(m, OP_ADD, take(m, t[0], ids), take(m, t[1], position));
    if (segment >= 0 && t[2].table >= 0) sum = std_two(m, OP_ADD, sum, take(m, t[2], segment));
    std_give(m, n, 2, sum);
    node(m, OP_LAYER_NORM, sum, take(m, t[3], -1), take(m, t[4], -1), n->out[0]);
    last(m)->op.opset = 17;
    graph_set_float(last(m), "epsilon", op_attr_float(n, "epsilon", 1e-12f));
    if (n->n_out < 2 || n->out[1] < 0) return;
    int kind = number(m, TENSOR_I32, 0, &(int32_t){1}, 4), count;
    if (mask < 0) {
        count = std_two(m, OP_EXPAND, std_two(m, OP_SUB, kind, kind), std_size(m, ids, 0));
    } else {
        count = std_two(m, OP_CAST_LIKE, std_two(m, OP_EQUAL, mask, std_two(m, OP_CAST_LIKE, kind, mask)), kind);
        count = std_two(m, OP_REDUCE_SUM, count, integer(m, 1, 1));
        graph_set_int(last(m), "keepdims", 0);
    }
    std_give(m, n, 1, count);
}

static void embed_layer_norm(struct maker *m, const struct op_node *n)
{
    struct rows t[5];
    for (int i = 0; i < 5; i++) t[i] = (struct rows){std_input(n, 2 + i), -1, -1};
    embed(m, n, t, std_input(n, 7), std_input(n, 8));
}

static void qembed_layer_norm(struct maker *m, const struct op_node *n)
{
    struct rows t[5];
    for (int i = 0; i < 5; i++) t[i] = (struct rows){std_input(n, 2 + i), std_input(n, 8 + i), std_input(n, 13 + i)};
    embed(m, n, t, std_input(n, 7), -1);
}

/* ---- products */

/* The batch is what lies between: dimension 0 goes before the last. */
static int batch_turned(struct maker *m, int x, bool both)
{
    int y = std_one(m, OP_EINSUM, x);
    graph_set_string(last(m), "equation", both ? "i...j->...ji" : "i...j->...ij");
    return y;
}

int std_turned(struct maker *m, int x)
{
    int y = std_one(m, OP_EINSUM, x);
    graph_set_string(last(m), "equation", "...ij->...ji");
    return y;
}

static void fused_matmul(struct maker *m, const struct op_node *n)
{
    int in[2] = {n->in[0], n->in[1]};
    for (int i = 0; i < 2; i++) {
        bool trans = op_attr_int(n, i ? "transB" : "transA", 0) != 0;
        if (op_attr_int(n, i ? "transBatchB" : "transBatchA", 0))
            in[i] = batch_turned(m, in[i], trans);
        else if (trans)
            in[i] = std_turned(m, in[i]);
    }
    int y = std_two(m, OP_MATMUL, in[0], in[1]);
    float alpha = op_attr_float(n, "alpha", 1);
    std_give(m, n, 0, alpha == 1 ? y : std_two(m, OP_MUL, y, std_like(m, alpha, y)));
}

/* Numbers of `bits` in bytes, the lowest bits first, as real numbers: [...] becomes [..., 8 / bits]. */
static int unpacked(struct maker *m, int bytes, int bits)
{
    float table[256 * 4];
    int each = 8 / bits, n = 0;
    for (int b = 0; b < 256; b++)
        for (int i = 0; i < each; i++) table[n++] = (float)(b >> (i * bits) & ((1 << bits) - 1));
    int t = number(m, TENSOR_F32, 1, table, (size_t)n * sizeof *table);
    if (m->e) return bytes;
    m->g->values[t].shape = tensor_shape_of(2, (int64_t[]){256, each});
    return std_two(m, OP_GATHER, t, std_two(m, OP_CAST_LIKE, bytes, integer(m, 0, 0)));
}

/* Columns from 0 up to `to` of [rows, columns]. */
static int columns(struct maker *m, int x, int64_t to)
{
    int in[] = {x, integer(m, 1, 0), integer(m, 1, to), integer(m, 1, 1)};
    return std_many(m, OP_SLICE, OPSET, 4, in, -1);
}

/* Weights of N columns, each in blocks of `block` numbers along K with a scale and a zero point of its own, as real numbers [N, K]. */
static int weights_of_bits(struct maker *m, const struct op_node *n, int64_t k, int64_t rows, int64_t bits, int64_t block)
{
    int64_t blocks = (k + block - 1) / block;
    int q = unpacked(m, n->in[1], (int)bits), zero = std_input(n, 3), group = std_input(n, 4);
    int scale = std_two(m, OP_RESHAPE, std_two(m, OP_CAST_LIKE, n->in[2], real(m, 0)), STD_INTS(m, rows, blocks));
    if (zero < 0) {
        zero = real(m, (float)(1 << (bits - 1)));
        if (group >= 0) zero = std_two(m, OP_EXPAND, zero, STD_INTS(m, rows, blocks));
    } else if (m->g->values[zero].dtype == TENSOR_U8) {
        zero = std_two(m, OP_RESHAPE, unpacked(m, std_two(m, OP_RESHAPE, zero, STD_INTS(m, rows, -1)), (int)bits), STD_INTS(m, rows, -1));
        zero = columns(m, zero, blocks);
    } else {
        zero = std_two(m, OP_RESHAPE, std_two(m, OP_CAST_LIKE, zero, real(m, 0)), STD_INTS(m, rows, blocks));
    }
    int flat = STD_INTS(m, rows, -1);
    if (group >= 0) {
        int at = std_two(m, OP_RESHAPE, group, integer(m, 1, -1));
        scale = std_two(m, OP_GATHER, scale, at);
        graph_set_int(last(m), "axis", 1);
        zero = std_two(m, OP_GATHER, zero, at);
        graph_set_int(last(m), "axis", 1);
        return columns(m, std_two(m, OP_MUL, std_two(m, OP_SUB, std_two(m, OP_RESHAPE, q, flat), zero), scale), k);
    }
    int last_axis = integer(m, 1, 2);
    if (std_input(n, 3) >= 0) zero = std_two(m, OP_UNSQUEEZE, zero, last_axis);
    q = std_two(m, OP_RESHAPE, q, STD_INTS(m, rows, blocks, block));
    q = std_two(m, OP_MUL, std_two(m, OP_SUB, q, zero), std_two(m, OP_UNSQUEEZE, scale, last_axis));
    q = std_two(m, OP_RESHAPE, q, flat);
    return blocks * block == k ? q : columns(m, q, k);
}

static void matmul_bits(struct maker *m, const struct op_node *n)
{
    int64_t k = op_attr_int(n, "K", 0), rows = op_attr_int(n, "N", 0), bits = op_attr_int(n, "bits", 4), block = op_attr_int(n, "block_size", 0);
    if (k < 1 || rows < 1 || block < 16 || k > INT32_MAX || rows > INT32_MAX || block > INT32_MAX) {
        m->e = err_set(ERR_SHAPE, "K %lld, N %lld and block_size %lld must be 1, 1 and 16 or more", (long long)k, (long long)rows, (long long)block);
        return;
    }
    if (bits != 2 && bits != 4 && bits != 8) {
        m->e = err_set(ERR_UNSUPPORTED, "weights of %lld bits; 2, 4 and 8 are supported", (long long)bits);
        return;
    }
    if (std_input(n, 3) >= 0 && m->g->values[n->in[3]].dtype == TENSOR_NONE) {
        m->e = err_set(ERR_UNSUPPORTED, "zero points whose type the file does not say; run shape inference on the model first");
        return;
    }
    int w = STD_TRANSPOSE(m, weights_of_bits(m, n, k, rows, bits, block), 1, 0);
    int y = std_two(m, OP_MATMUL, n->in[0], std_two(m, OP_CAST_LIKE, w, n->in[0]));
    std_give(m, n, 0, std_input(n, 5) >= 0 ? std_two(m, OP_ADD, y, n->in[5]) : y);
}

/* ---- small ones */

static void expand_dims(struct maker *m, const struct op_node *n)
{
    int axis = std_two(m, OP_RESHAPE, std_two(m, OP_CAST_LIKE, n->in[1], integer(m, 0, 0)), integer(m, 1, 1));
    node(m, OP_UNSQUEEZE, n->in[0], axis, -1, n->out[0]);
}

static void range(struct maker *m, const struct op_node *n)
{
    int step = std_input(n, 2) >= 0 ? n->in[2] : std_like(m, 1, n->in[0]);
    node(m, OP_RANGE, n->in[0], n->in[1], step, n->out[0]);
}

/* Distances between the rows of two matrices. */
static void cdist(struct maker *m, const struct op_node *n)
{
    const char *metric = op_attr_string(n, "metric", "sqeuclidean");
    bool root = strcmp(metric, "euclidean") == 0;
    if (!root && strcmp(metric, "sqeuclidean") != 0) {
        m->e = err_set(ERR_UNSUPPORTED, "the metric '%.60s'; euclidean and sqeuclidean are supported", metric);
        return;
    }
    int one = integer(m, 1, 1), sum[2];
    for (int i = 0; i < 2; i++) sum[i] = std_two(m, OP_REDUCE_SUM, std_two(m, OP_MUL, n->in[i], n->in[i]), one);
    int both = std_two(m, OP_ADD, sum[0], STD_TRANSPOSE(m, sum[1], 1, 0));
    int dot = std_two(m, OP_MATMUL, n->in[0], STD_TRANSPOSE(m, n->in[1], 1, 0));
    int y = std_two(m, OP_MAX, std_two(m, OP_SUB, both, std_two(m, OP_ADD, dot, dot)), std_like(m, 0, both));
    std_give(m, n, 0, root ? std_one(m, OP_SQRT, y) : y);
}

#define NEED(i) (1u << (i))
const struct std_entry GRAPH_STANDARD_MICROSOFT[] = {
    {"FusedConv", 3, fused_conv, OP_NONE, 0}, {"FusedGemm", 3, fused_gemm, OP_NONE, 0},
    {"FusedMatMul", 3, fused_matmul, OP_NONE, 0}, {"TransposeMatMul", 3, fused_matmul, OP_NONE, 0},
    {"NhwcMaxPool", 1, nhwc_max_pool, OP_NONE, 0},
    {"EmbedLayerNormalization", NEED(0) | NEED(2) | NEED(3) | NEED(5) | NEED(6), embed_layer_norm, OP_NONE, 0},
    {"QEmbedLayerNormalization", NEED(0) | NEED(2) | NEED(3) | NEED(5) | NEED(6) | NEED(8) | NEED(9) | NEED(11) | NEED(12), qembed_layer_norm, OP_NONE, 0},
    {"MatMulNBits", 7, matmul_bits, OP_NONE, 0}, {"ExpandDims", 3, expand_dims, OP_NONE, 0}, {"Range", 3, range, OP_NONE, 0},
    {"CDist", 3, cdist, OP_NONE, 0},
    /* as in the standard */
    {"LayerNormalization", 3, NULL, OP_LAYER_NORM, 17}, {"QuantizeLinear", 3, NULL, OP_QUANTIZE_LINEAR, 13},
    {"DequantizeLinear", 3, NULL, OP_DEQUANTIZE_LINEAR, 13}, {"GridSample", 3, NULL, OP_GRID_SAMPLE, 16}, {"Trilu", 1, NULL, OP_TRILU, 14},
    {"GatherND", 3, NULL, OP_GATHER_ND, 12}, {"Pad", 3, NULL, OP_PAD, 13},
    /* standard_quantised.c */
    {"QGemm", 0x1b, graph_standard_qgemm, OP_NONE, 0},
    {"DynamicQuantizeMatMul", 7, graph_standard_dynamic_matmul, OP_NONE, 0}, {"MatMulIntegerToFloat", 15, graph_standard_integer_matmul, OP_NONE, 0},
    {"QLinearConv", 0x5b, graph_standard_qconv, OP_NONE, 0}, {"QLinearConcat", 0x0d, graph_standard_qconcat, OP_NONE, 0},
    {"QLinearGlobalAveragePool", 0x0b, graph_standard_qglobal_pool, OP_NONE, 0}, {"QLinearAveragePool", 0x0b, graph_standard_qpool, OP_NONE, 0},
    {"QLinearSoftmax", 0x0b, graph_standard_qsoftmax, OP_NONE, 0}, {"QLinearWhere", 0xb7, graph_standard_qwhere, OP_NONE, 0},
    {"QLinearReduceMean", 0x0b, graph_standard_qmean, OP_NONE, 0},
    /* standard_heads.c */
    {"Attention", 3, graph_standard_heads, OP_NONE, 0}, {"QAttention", 0x1f, graph_standard_qheads, OP_NONE, 0},
    {"MultiHeadAttention", 1, graph_standard_multi_head, OP_NONE, 0}, {"GroupQueryAttention", 0x61, graph_standard_grouped, OP_NONE, 0},
    {"RotaryEmbedding", 15, graph_standard_rotary_ms, OP_NONE, 0},
    {NULL, 0, NULL, OP_NONE, 0},
};
