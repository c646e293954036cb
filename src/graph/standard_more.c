/* More operators as bodies of others: those of ONNX that need no kernel of their own, and the fused ones of com.microsoft.
 * https://onnx.ai/onnx/operators/ and ONNX Runtime's docs/ContribOperators.md.
 *
 * Neither types nor ranks are known while a file is read, so constants are cast like the value they meet, and sizes are taken from
 * Shape, which specialisation folds away. SPDX-License-Identifier: Apache-2.0 */
#include "graph/standard.h"

static void group_norm(struct maker *m, const struct op_node *n)
{
    int64_t groups = op_attr_int(n, "num_groups", 0);
    int x = n->in[0], scale = n->in[1], bias = n->in[2], shape = std_one(m, OP_SHAPE, x);
    if (groups < 1) {
        m->e = err_set(ERR_SHAPE, "num_groups is %lld, but must be 1 or more", (long long)groups);
        return;
    }
    bool per_channel = n->opset >= 21;
    int64_t group_shape[] = {0, groups, -1};
    int rows = std_two(m, OP_RESHAPE, x, std_ints(m, 3, group_shape));
    int s = scale, b = bias, count = integer(m, 1, groups);
    if (per_channel) {
        s = std_two(m, OP_EXPAND, std_like(m, 1, x), count);
        b = std_two(m, OP_EXPAND, std_like(m, 0, x), count);
    }
    int y = node(m, OP_INSTANCE_NORM, rows, s, b, -1);
    graph_set_float(last(m), "epsilon", op_attr_float(n, "epsilon", 1e-5f));
    if (per_channel) {
        int to = std_concat(m, 0, integer(m, 1, 0), std_one(m, OP_SHAPE, scale), integer(m, 1, -1)), one = integer(m, 1, 1);
        y = std_two(m, OP_MUL, std_two(m, OP_RESHAPE, y, to), std_two(m, OP_UNSQUEEZE, scale, one));
        y = std_two(m, OP_ADD, y, std_two(m, OP_UNSQUEEZE, bias, one));
    }
    std_give(m, n, 0, std_two(m, OP_RESHAPE, y, shape));
}

static int rms(struct maker *m, int x, int scale, int64_t axis, float epsilon)
{
    int wide = std_two(m, OP_CAST_LIKE, x, real(m, 0)), rows = std_one(m, OP_FLATTEN, wide);
    graph_set_int(last(m), "axis", axis);
    int mean = std_one(m, OP_REDUCE_MEAN, std_two(m, OP_MUL, rows, rows));
    graph_set_ints(last(m), "axes", (int64_t[]){1}, 1);
    int root = std_one(m, OP_SQRT, std_two(m, OP_ADD, mean, real(m, epsilon)));
    int y = std_two(m, OP_RESHAPE, std_two(m, OP_DIV, rows, root), std_one(m, OP_SHAPE, x));
    return std_two(m, OP_MUL, std_two(m, OP_CAST_LIKE, y, scale), scale);
}

static void rms_norm(struct maker *m, const struct op_node *n)
{
    std_give(m, n, 0, rms(m, n->in[0], n->in[1], op_attr_int(n, "axis", -1), op_attr_float(n, "epsilon", 1e-5f)));
}

static void skip_norm(struct maker *m, const struct op_node *n, bool simple)
{
    int bias = std_input(n, simple ? 3 : 4), sum = std_two(m, OP_ADD, n->in[0], n->in[1]), y;
    float epsilon = op_attr_float(n, "epsilon", 1e-12f);
    if (bias >= 0) sum = std_two(m, OP_ADD, sum, bias);
    if (simple) {
        y = rms(m, sum, n->in[2], -1, epsilon);
    } else {
        y = node(m, OP_LAYER_NORM, sum, n->in[2], std_input(n, 3), -1);
        last(m)->op.opset = 17;
        graph_set_float(last(m), "epsilon", epsilon);
    }
    std_give(m, n, 0, y);
    std_give(m, n, 3, sum);
}

static void skip_layer_norm(struct maker *m, const struct op_node *n)
{
    skip_norm(m, n, false);
}

static void skip_rms_norm(struct maker *m, const struct op_node *n)
{
    skip_norm(m, n, true);
}

static int swish_of(struct maker *m, int x, float alpha)
{
    int s = alpha == 1 ? x : std_two(m, OP_MUL, x, std_like(m, alpha, x));
    return std_two(m, OP_MUL, x, std_one(m, OP_SIGMOID, s));
}

static void swish(struct maker *m, const struct op_node *n)
{
    std_give(m, n, 0, swish_of(m, n->in[0], op_attr_float(n, "alpha", 1)));
}

static void quick_gelu(struct maker *m, const struct op_node *n)
{
    std_give(m, n, 0, swish_of(m, n->in[0], op_attr_float(n, "alpha", 1.702f)));
}

static void gelu_of(struct maker *m, const struct op_node *n, const char *how)
{
    int x = n->in[0];
    if (std_input(n, 1) >= 0) x = std_two(m, OP_ADD, x, n->in[1]);
    node(m, OP_GELU, x, -1, -1, n->out[0]);
    last(m)->op.opset = 20;
    graph_set_string(last(m), "approximate", how);
}

static void gelu(struct maker *m, const struct op_node *n)
{
    gelu_of(m, n, "none");
}

static void fast_gelu(struct maker *m, const struct op_node *n)
{
    gelu_of(m, n, "tanh");
}

/* Before opset 13 the axes from `axis` on are one. */
static void hardmax(struct maker *m, const struct op_node *n)
{
    bool old = n->opset < 13;
    int64_t axis = op_attr_int(n, "axis", old ? 1 : -1);
    int x = n->in[0], rows = x;
    if (old) {
        rows = std_one(m, OP_FLATTEN, x);
        graph_set_int(last(m), "axis", axis);
        axis = 1;
    }
    int at = std_one(m, OP_ARGMAX, rows);
    graph_set_int(last(m), "axis", axis);
    graph_set_int(last(m), "keepdims", 0);
    int64_t two[] = {0, 1};
    int values = std_two(m, OP_CAST_LIKE, std_ints(m, 2, two), x);
    int y = node(m, OP_ONE_HOT, at, std_size(m, rows, axis), values, -1);
    graph_set_int(last(m), "axis", axis);
    std_give(m, n, 0, old ? std_two(m, OP_RESHAPE, y, std_one(m, OP_SHAPE, x)) : y);
}

static void shrink(struct maker *m, const struct op_node *n)
{
    int x = n->in[0], bias = std_like(m, op_attr_float(n, "bias", 0), x);
    float l = op_attr_float(n, "lambd", 0.5f);
    int above = node(m, OP_WHERE, std_two(m, OP_GREATER, x, std_like(m, l, x)), std_two(m, OP_SUB, x, bias), std_like(m, 0, x), -1);
    std_give(m, n, 0, node(m, OP_WHERE, std_two(m, OP_LESS, x, std_like(m, -l, x)), std_two(m, OP_ADD, x, bias), above, -1));
}

/* -1 - x: all bits turned, in two's complement and in unsigned numbers that wrap. */
static void bitwise_not(struct maker *m, const struct op_node *n)
{
    int x = n->in[0], zero = std_two(m, OP_CAST_LIKE, integer(m, 0, 0), x), one = std_two(m, OP_CAST_LIKE, integer(m, 0, 1), x);
    std_give(m, n, 0, std_two(m, OP_SUB, std_two(m, OP_SUB, zero, one), x));
}

static void compress(struct maker *m, const struct op_node *n)
{
    int x = n->in[0], zero = integer(m, 1, 0);
    if (!op_attr(n, "axis")) x = std_two(m, OP_RESHAPE, x, integer(m, 1, -1));
    int at = std_two(m, OP_SQUEEZE, std_one(m, OP_NON_ZERO, n->in[1]), zero);
    int y = std_two(m, OP_GATHER, x, at);
    graph_set_int(last(m), "axis", op_attr_int(n, "axis", 0));
    std_give(m, n, 0, y);
}

static void reverse_sequence(struct maker *m, const struct op_node *n)
{
    int64_t time = op_attr_int(n, "time_axis", 0), batch = op_attr_int(n, "batch_axis", 1);
    if ((time != 0 && time != 1) || batch != 1 - time) {
        m->e = err_set(ERR_SHAPE, "time_axis and batch_axis must be 0 and 1, or 1 and 0");
        return;
    }
    int x = n->in[0], zero = integer(m, 1, 0), one = integer(m, 0, 1);
    int t = node(m, OP_RANGE, integer(m, 0, 0), std_two(m, OP_SQUEEZE, std_size(m, x, time), zero), one, -1);
    t = std_two(m, OP_UNSQUEEZE, t, integer(m, 1, batch));
    int length = std_two(m, OP_UNSQUEEZE, n->in[1], integer(m, 1, time));
    int back = std_two(m, OP_SUB, std_two(m, OP_SUB, length, one), t);
    int at = node(m, OP_WHERE, std_two(m, OP_LESS, t, length), back, t, -1);
    int rows = std_two(m, OP_RESHAPE, x, STD_INTS(m, 0, 0, -1));
    at = std_two(m, OP_EXPAND, std_two(m, OP_UNSQUEEZE, at, integer(m, 1, 2)), std_one(m, OP_SHAPE, rows));
    int y = std_two(m, OP_GATHER_ELEMENTS, rows, at);
    graph_set_int(last(m), "axis", time);
    std_give(m, n, 0, std_two(m, OP_RESHAPE, y, std_one(m, OP_SHAPE, x)));
}

/* The mean over all places of |x|^p, times their number. */
static void global_lp_pool(struct maker *m, const struct op_node *n)
{
    int x = n->in[0], p = std_like(m, (float)op_attr_int(n, "p", 2), x);
    int mean = std_one(m, OP_GLOBAL_AVERAGE_POOL, std_two(m, OP_POW, std_one(m, OP_ABS, x), p));
    int count = std_two(m, OP_CAST_LIKE, std_two(m, OP_DIV, std_one(m, OP_SIZE, x), std_one(m, OP_SIZE, mean)), x);
    std_give(m, n, 0, std_two(m, OP_POW, std_two(m, OP_MUL, mean, count), std_one(m, OP_RECIPROCAL, p)));
}

static void lp_pool(struct maker *m, const struct op_node *n)
{
    static const char *const LISTS[] = {"kernel_shape", "strides", "pads", "dilations"};
    const int64_t *v = NULL;
    double places = 1;
    size_t axes = op_attr_ints(n, "kernel_shape", &v);
    for (size_t i = 0; i < axes; i++) places *= (double)v[i];
    if (!axes || op_attr_int(n, "ceil_mode", 0)) {
        m->e = err_set(ERR_UNSUPPORTED, axes ? "LpPool with ceil_mode" : "LpPool without kernel_shape");
        return;
    }
    int x = n->in[0], p = std_like(m, (float)op_attr_int(n, "p", 2), x);
    int mean = std_one(m, OP_AVERAGE_POOL, std_two(m, OP_POW, std_one(m, OP_ABS, x), p));
    struct graph_node *pool = last(m);
    pool->op.opset = 19;
    for (size_t i = 0; i < ARRAY_LEN(LISTS); i++) {
        size_t count = op_attr_ints(n, LISTS[i], &v);
        if (count) graph_set_ints(pool, LISTS[i], v, count);
    }
    graph_set_string(pool, "auto_pad", op_attr_string(n, "auto_pad", "NOTSET"));
    graph_set_int(pool, "count_include_pad", 1);
    int sum = std_two(m, OP_MUL, mean, std_like(m, (float)places, x));
    std_give(m, n, 0, std_two(m, OP_POW, sum, std_one(m, OP_RECIPROCAL, p)));
}

/* a - b cos(2 pi i / N) + c cos(4 pi i / N), N one less unless periodic */
static void window(struct maker *m, const struct op_node *n, float a, float b, float c)
{
    int zero = integer(m, 0, 0), one = integer(m, 0, 1);
    int size = std_two(m, OP_CAST_LIKE, std_two(m, OP_RESHAPE, n->in[0], integer(m, 1, 1)), zero);
    size = std_two(m, OP_SQUEEZE, size, integer(m, 1, 0));
    int f = real(m, 0), over = op_attr_int(n, "periodic", 1) ? size : std_two(m, OP_SUB, size, one);
    int i = std_two(m, OP_CAST_LIKE, node(m, OP_RANGE, zero, size, one, -1), f);
    int turn = std_two(m, OP_DIV, std_two(m, OP_MUL, i, real(m, 6.283185307179586f)), std_two(m, OP_CAST_LIKE, over, f));
    int y = std_two(m, OP_SUB, real(m, a), std_two(m, OP_MUL, real(m, b), std_one(m, OP_COS, turn)));
    if (c != 0) y = std_two(m, OP_ADD, y, std_two(m, OP_MUL, real(m, c), std_one(m, OP_COS, std_two(m, OP_ADD, turn, turn))));
    node(m, OP_CAST, y, -1, -1, n->out[0]);
    graph_set_int(last(m), "to", op_attr_int(n, "output_datatype", TENSOR_F32));
}

static void hann(struct maker *m, const struct op_node *n)
{
    window(m, n, 0.5f, 0.5f, 0);
}

static void hamming(struct maker *m, const struct op_node *n)
{
    window(m, n, 25.0f / 46, 21.0f / 46, 0);
}

static void blackman(struct maker *m, const struct op_node *n)
{
    window(m, n, 0.42f, 0.5f, 0.08f);
}

/* What is too long loses its ends, what is too short gains zeros; an odd one is lost at the end, or added there. */
static void center_crop_pad(struct maker *m, const struct op_node *n)
{
    const int64_t *v = NULL;
    size_t count = op_attr_ints(n, "axes", &v);
    int x = n->in[0], shape = std_one(m, OP_SHAPE, x), zero = integer(m, 1, 0), axes, two = integer(m, 1, 2);
    int all = node(m, OP_RANGE, integer(m, 0, 0), std_two(m, OP_SQUEEZE, std_one(m, OP_SHAPE, shape), zero), integer(m, 0, 1), -1);
    axes = count && count <= TENSOR_MAX_RANK ? std_two(m, OP_GATHER, all, std_ints(m, (int)count, v)) : all;
    int have = std_two(m, OP_GATHER, shape, axes), want = std_two(m, OP_CAST_LIKE, n->in[1], zero);
    int less = std_two(m, OP_MAX, std_two(m, OP_SUB, have, want), zero), more = std_two(m, OP_MAX, std_two(m, OP_SUB, want, have), zero);
    int from = std_two(m, OP_DIV, less, two), before = std_two(m, OP_DIV, more, two);
    int to = std_two(m, OP_ADD, from, std_two(m, OP_MIN, have, want)), cut = value(m, "cut");
    struct graph_node *slice = graph_add_node(m->g, OP_SLICE, m->name, 4, 1);
    slice->op.opset = OPSET;
    memcpy(slice->op.in, (int[]){x, from, to, axes}, 4 * sizeof(int));
    slice->op.out[0] = cut;
    int pads = std_concat(m, 0, before, std_two(m, OP_SUB, more, before), -1);
    struct graph_node *pad = graph_add_node(m->g, OP_PAD, m->name, 4, 1);
    pad->op.opset = 18;
    memcpy(pad->op.in, (int[]){cut, pads, -1, axes}, 4 * sizeof(int));
    pad->op.out[0] = n->out[0];
}

static int from_q(struct maker *m, const struct op_node *n, int i)
{
    return node(m, OP_DEQUANTIZE_LINEAR, n->in[i], n->in[i + 1], std_input(n, i + 2), -1);
}

static void to_q(struct maker *m, const struct op_node *n, int x, int i)
{
    node(m, OP_QUANTIZE_LINEAR, x, std_input(n, i), std_input(n, i + 1), n->out[0]);
}

static void qlinear_add(struct maker *m, const struct op_node *n)
{
    to_q(m, n, std_two(m, OP_ADD, from_q(m, n, 0), from_q(m, n, 3)), 6);
}

static void qlinear_mul(struct maker *m, const struct op_node *n)
{
    to_q(m, n, std_two(m, OP_MUL, from_q(m, n, 0), from_q(m, n, 3)), 6);
}

static void qlinear_sigmoid(struct maker *m, const struct op_node *n)
{
    to_q(m, n, std_one(m, OP_SIGMOID, from_q(m, n, 0)), 3);
}

static void qlinear_leaky(struct maker *m, const struct op_node *n)
{
    int y = std_one(m, OP_LEAKY_RELU, from_q(m, n, 0));
    graph_set_float(last(m), "alpha", op_attr_float(n, "alpha", 0.01f));
    to_q(m, n, y, 3);
}

static void swiglu(struct maker *m, const struct op_node *n)
{
    std_give(m, n, 0, std_two(m, OP_MUL, swish_of(m, n->in[0], op_attr_float(n, "alpha", 1)), n->in[1]));
}

/* Scatter became ScatterElements in opset 11. */
static void old_scatter(struct maker *m, const struct op_node *n)
{
    std_copy(m, n, OP_SCATTER_ELEMENTS, 11, 3, n->in, n->out[0]);
}

/* A depthwise convolution along the last axis that sees the past only: k - 1 places are put in front, zeros or those of the call
 * before, and the last k - 1 are handed to the next one. */
static void causal_conv(struct maker *m, const struct op_node *n)
{
    const struct graph_value *w = &m->g->values[n->in[1]];
    const char *activation = op_attr_string(n, "activation", "none");
    bool swish = strcmp(activation, "silu") == 0 || strcmp(activation, "swish") == 0;
    int past = std_input(n, 3), x = n->in[0];
    if (!w->has_shape || w->shape.rank != 3 || w->shape.dims[0] < 1 || w->shape.dims[2] < 1)
        m->e = err_set(ERR_UNSUPPORTED, "CausalConvWithState needs weights of a known shape [channels, 1, k]");
    else if (!swish && strcmp(activation, "none") != 0)
        m->e = err_set(ERR_UNSUPPORTED, "CausalConvWithState with the activation '%.32s'", activation);
    if (m->e) return;
    int64_t channels = w->shape.dims[0], k = w->shape.dims[2];
    int padded = past >= 0 ? std_concat(m, 2, past, x, -1) : std_two(m, OP_PAD, x, STD_INTS(m, 0, 0, k - 1, 0, 0, 0));
    int y = node(m, OP_CONV, padded, n->in[1], std_input(n, 2), -1);
    graph_set_int(last(m), "group", channels);
    if (swish) {
        int wide = std_f32(m, y);
        y = std_two(m, OP_CAST_LIKE, std_two(m, OP_MUL, wide, std_one(m, OP_SIGMOID, wide)), x);
    }
    std_give(m, n, 0, y);
    int slice[] = {padded, std_size(m, x, 2), integer(m, 1, INT64_MAX), integer(m, 1, 2)};
    if (n->n_out > 1) std_give(m, n, 1, std_many(m, OP_SLICE, OPSET, 4, slice, -1));
}

/* Without functions of its own for scores and probabilities it is Attention. */
static void flex_attention(struct maker *m, const struct op_node *n)
{
    if (op_attr(n, "score_mod") || op_attr(n, "prob_mod"))
        m->e = err_set(ERR_UNSUPPORTED, "FlexAttention with score_mod or prob_mod");
    else
        graph_standard_attention(m, n);
}

static const struct {
    const char *domain, *name;
    int least_in;
    std_fn *make;
} TABLE[] = {
    {"", "Attention", 3, graph_standard_attention}, {"", "RotaryEmbedding", 3, graph_standard_rotary},
    {"", "GroupNormalization", 3, group_norm}, {"", "RMSNormalization", 2, rms_norm},
    {"", "SimplifiedLayerNormalization", 2, rms_norm}, {"", "Swish", 1, swish}, {"", "Hardmax", 1, hardmax},
    {"", "Shrink", 1, shrink}, {"", "BitwiseNot", 1, bitwise_not}, {"", "Compress", 2, compress},
    {"", "ReverseSequence", 2, reverse_sequence}, {"", "GlobalLpPool", 1, global_lp_pool}, {"", "LpPool", 1, lp_pool},
    {"", "HannWindow", 1, hann}, {"", "HammingWindow", 1, hamming}, {"", "BlackmanWindow", 1, blackman},
    {"", "CenterCropPad", 2, center_crop_pad},
    {"", "SwiGLU", 2, swiglu}, {"", "CausalConvWithState", 2, causal_conv},
    {"ai.onnx.preview", "FlexAttention", 3, flex_attention}, {"", "Scatter", 3, old_scatter},
    {"com.microsoft", "SimplifiedLayerNormalization", 2, rms_norm}, {"com.microsoft", "SkipLayerNormalization", 3, skip_layer_norm},
    {"com.microsoft", "SkipSimplifiedLayerNormalization", 3, skip_rms_norm}, {"com.microsoft", "Gelu", 1, gelu},
    {"com.microsoft", "BiasGelu", 2, gelu}, {"com.microsoft", "FastGelu", 1, fast_gelu}, {"com.microsoft", "QuickGelu", 1, quick_gelu},
    {"com.microsoft", "QLinearAdd", 7, qlinear_add},
    {"com.microsoft", "QLinearMul", 7, qlinear_mul}, {"com.microsoft", "QLinearSigmoid", 4, qlinear_sigmoid},
    {"com.microsoft", "QLinearLeakyRelu", 4, qlinear_leaky},
};

static size_t find(const char *domain, const char *name)
{
    if (strcmp(domain, "ai.onnx") == 0) domain = "";
    size_t i = 0;
    while (i < ARRAY_LEN(TABLE) && (strcmp(TABLE[i].domain, domain) != 0 || strcmp(TABLE[i].name, name) != 0)) i++;
    return i;
}

static const struct std_entry *find_microsoft(const char *domain, const char *name)
{
    const struct std_entry *e = GRAPH_STANDARD_MICROSOFT;
    if (strcmp(domain, "com.microsoft") != 0) return NULL;
    while (e->name && strcmp(e->name, name) != 0) e++;
    return e->name ? e : NULL;
}

bool graph_standard_more_has(const char *domain, const char *name)
{
    return find(domain, name) < ARRAY_LEN(TABLE) || find_microsoft(domain, name);
}

static void microsoft(struct maker *m, const struct std_entry *t, size_t at, const struct op_node *n)
{
    struct op_node *here = &m->g->nodes[at].op;
    for (int i = 0; i < 32; i++)
        if (t->need >> i & 1 && std_input(n, i) < 0) {
            m->e = err_set(ERR_FORMAT, "%s needs input %d, which is absent", t->name, i);
            return;
        }
    if (!t->make) {
        here->kind = t->same;
        here->opset = t->opset;
        return;
    }
    m->g->nodes[at].dead = true;
    t->make(m, n);
}

void graph_standard_more(struct maker *m, const char *domain, const char *name, size_t at, const struct op_node *n)
{
    size_t k = find(domain, name);
    bool quantised = strncmp(name, "QLinear", 7) == 0; /* zero points may be absent */
    if (n->out[0] < 0) {
        m->e = err_set(ERR_FORMAT, "%s has no first output", name);
        return;
    }
    if (k == ARRAY_LEN(TABLE)) {
        microsoft(m, find_microsoft(domain, name), at, n);
        return;
    }
    for (int i = 0; i < TABLE[k].least_in; i++)
        if (i >= n->n_in || (n->in[i] < 0 && !(quantised && i % 3 == 2))) {
            m->e = err_set(ERR_FORMAT, "%s needs %d inputs; input %d is absent", name, TABLE[k].least_in, i);
            return;
        }
    m->g->nodes[at].dead = true;
    TABLE[k].make(m, n);
}
