/* Attention (opset 23 and up) and RotaryEmbedding as products, sums and a softmax.
 * https://onnx.ai/onnx/operators/onnx__Attention.html
 *
 * Ranks are not known while a file is read: inputs of three axes are told by the number of heads, which they need and inputs of four
 * axes may not have. Grouped queries: Q becomes [N, heads of K, queries per head, S, D] and K and V have 1 in the third place, so that
 * nothing is repeated in memory. A row in which everything is masked gives 0. SPDX-License-Identifier: Apache-2.0 */
#include "graph/standard.h"

#include <math.h>

static bool has_three_axes(struct maker *m, const struct op_node *n, const char *heads)
{
    const struct graph_value *x = &m->g->values[n->in[0]];
    return x->has_shape ? x->shape.rank == 3 : op_attr_int(n, heads, 0) > 0;
}

/* [N, S, heads * D] becomes [N, heads, S, D] */
int std_split_heads(struct maker *m, int x, int64_t heads)
{
    if (heads < 1 || heads > 1 << 20) {
        if (!m->e) m->e = err_set(ERR_SHAPE, "inputs of three axes need a number of heads, 1 or more");
        heads = 1;
    }
    int y = std_two(m, OP_RESHAPE, x, STD_INTS(m, 0, 0, heads, -1));
    return STD_TRANSPOSE(m, y, 0, 2, 1, 3);
}

int std_join_heads(struct maker *m, int x)
{
    return std_two(m, OP_RESHAPE, STD_TRANSPOSE(m, x, 0, 2, 1, 3), STD_INTS(m, 0, 0, -1));
}

static int no_or(struct maker *m, int allowed, int like)
{
    return node(m, OP_WHERE, allowed, std_like(m, 0, like), std_like(m, -INFINITY, like), -1);
}

static int plus(struct maker *m, int bias, int more)
{
    return bias < 0 ? more : std_two(m, OP_ADD, bias, more);
}

struct attention {
    int q, k, v, mask, past_k, past_v, filled; /* [N, heads, S, D]; filled: lengths of a static cache, [N] */
};

/* A mask shorter than the keys hides the rest. */
static int mask_bias(struct maker *m, const struct attention *a)
{
    int x = a->mask;
    const struct graph_value *v = &m->g->values[x];
    bool is_bool = v->dtype == TENSOR_BOOL;
    if (v->dtype == TENSOR_NONE && !m->e)
        m->e = err_set(ERR_UNSUPPORTED, "Attention with a mask whose type the file does not say; run shape inference on the model first");
    if (is_bool) x = no_or(m, x, a->q);
    int shape = std_one(m, OP_SHAPE, x), one = integer(m, 1, 1);
    int rank = std_one(m, OP_SHAPE, shape);
    int zeros = std_two(m, OP_EXPAND, integer(m, 1, 0), std_two(m, OP_SUB, std_two(m, OP_ADD, rank, rank), one));
    int less = std_two(m, OP_SUB, std_size(m, a->k, 2), std_two(m, OP_GATHER, shape, integer(m, 1, -1)));
    return node(m, OP_PAD, x, std_concat(m, 0, zeros, std_two(m, OP_MAX, less, integer(m, 1, 0)), -1), std_like(m, -INFINITY, x), -1);
}

static int bias_of(struct maker *m, const struct op_node *n, const struct attention *a)
{
    int64_t left = op_attr_int(n, "left_window_size", -1), right = op_attr_int(n, "right_window_size", -1);
    bool causal = op_attr_int(n, "is_causal", 0) != 0;
    int bias = a->mask >= 0 ? mask_bias(m, a) : -1;
    if (!causal && left < 0 && right < 0 && a->filled < 0) return bias;
    int j = std_count(m, a->k, 2), filled = -1;
    int i = std_two(m, OP_UNSQUEEZE, std_count(m, a->q, 2), integer(m, 1, 1));
    if (a->filled >= 0) {
        filled = std_two(m, OP_RESHAPE, a->filled, STD_INTS(m, -1, 1, 1, 1));
        i = std_two(m, OP_ADD, i, std_two(m, OP_SUB, filled, std_size(m, a->q, 2)));
        bias = plus(m, bias, no_or(m, std_two(m, OP_LESS, j, filled), a->q));
    } else if (a->past_k >= 0) {
        i = std_two(m, OP_ADD, i, std_size(m, a->past_k, 2));
    }
    if (causal) bias = plus(m, bias, no_or(m, std_two(m, OP_LESS_OR_EQUAL, j, i), a->q));
    if (left >= 0)
        bias = plus(m, bias, no_or(m, std_two(m, OP_LESS_OR_EQUAL, std_two(m, OP_SUB, i, j), integer(m, 0, left)), a->q));
    if (right >= 0)
        bias = plus(m, bias, no_or(m, std_two(m, OP_LESS_OR_EQUAL, std_two(m, OP_SUB, j, i), integer(m, 0, right)), a->q));
    return bias;
}

/* The fourth root of 1 / D, or the root of the scale given: Q and K have one each. */
static int root_of_scale(struct maker *m, const struct op_node *n, int q)
{
    float scale = op_attr_float(n, "scale", 0);
    if (op_attr(n, "scale") && scale > 0) return std_like(m, sqrtf(scale), q);
    int d = std_two(m, OP_CAST_LIKE, std_size(m, q, 3), real(m, 0));
    return std_two(m, OP_CAST_LIKE, std_one(m, OP_RECIPROCAL, std_one(m, OP_SQRT, std_one(m, OP_SQRT, d))), q);
}

/* [N, heads of K, queries per head, S, L] with all heads in one axis */
static int join(struct maker *m, int x)
{
    int tail = std_two(m, OP_GATHER, std_one(m, OP_SHAPE, x), STD_INTS(m, 3, 4));
    return std_two(m, OP_RESHAPE, x, std_concat(m, 0, STD_INTS(m, 0, -1), tail, -1));
}

static int softmax(struct maker *m, const struct op_node *n, int x, int bias, int q)
{
    int64_t type = op_attr_int(n, "softmax_precision", 0);
    if (type) {
        x = std_one(m, OP_CAST, x);
        graph_set_int(last(m), "to", type);
    }
    x = std_one(m, OP_SOFTMAX, x);
    graph_set_int(last(m), "axis", -1);
    if (type) x = std_two(m, OP_CAST_LIKE, x, q);
    if (bias < 0) return x;
    int most = std_one(m, OP_REDUCE_MAX, bias);
    graph_set_ints(last(m), "axes", (int64_t[]){-1}, 1);
    return node(m, OP_WHERE, std_two(m, OP_EQUAL, most, std_like(m, -INFINITY, q)), std_like(m, 0, q), x, -1);
}

static void inputs(struct maker *m, const struct op_node *n, bool three, struct attention *a)
{
    *a = (struct attention){n->in[0], n->in[1], n->in[2], std_input(n, 3), std_input(n, 4), std_input(n, 5), std_input(n, 6)};
    if (three) {
        int64_t heads = op_attr_int(n, "kv_num_heads", 0);
        a->q = std_split_heads(m, a->q, op_attr_int(n, "q_num_heads", 0));
        a->k = std_split_heads(m, a->k, heads);
        a->v = std_split_heads(m, a->v, heads);
    }
    if (a->past_k >= 0) a->k = std_concat(m, 2, a->past_k, a->k, -1);
    if (a->past_v >= 0) a->v = std_concat(m, 2, a->past_v, a->v, -1);
}

void graph_standard_attention(struct maker *m, const struct op_node *n)
{
    struct attention a;
    bool three = has_three_axes(m, n, "q_num_heads");
    int64_t mode = op_attr_int(n, "qk_matmul_output_mode", 0);
    float cap = op_attr_float(n, "softcap", 0);
    if (!m->e && (mode < 0 || mode > 3)) m->e = err_set(ERR_SHAPE, "qk_matmul_output_mode is %lld, not 0 to 3", (long long)mode);
    inputs(m, n, three, &a);
    int root = root_of_scale(m, n, a.q), two = integer(m, 1, 2);
    int bias = bias_of(m, n, &a);
    int tail = std_two(m, OP_GATHER, std_one(m, OP_SHAPE, a.q), STD_INTS(m, 2, 3));
    int to = std_concat(m, 0, integer(m, 1, 0), std_concat(m, 0, std_size(m, a.k, 1), integer(m, 1, -1), -1), tail);
    int q = std_two(m, OP_RESHAPE, std_two(m, OP_MUL, a.q, root), to);
    int k = std_two(m, OP_UNSQUEEZE, std_two(m, OP_MUL, STD_TRANSPOSE(m, a.k, 0, 1, 3, 2), root), two);
    int x = join(m, std_two(m, OP_MATMUL, q, k));
    if (mode == 0) std_give(m, n, 3, x);
    if (cap > 0) {
        int c = std_like(m, cap, a.q);
        x = std_two(m, OP_MUL, std_one(m, OP_TANH, std_two(m, OP_DIV, x, c)), c);
    }
    if (mode == 1) std_give(m, n, 3, x);
    if (bias >= 0) x = std_two(m, OP_ADD, x, bias);
    if (mode == 2) std_give(m, n, 3, x);
    x = softmax(m, n, x, bias, a.q);
    if (mode == 3) std_give(m, n, 3, x);
    tail = std_two(m, OP_GATHER, std_one(m, OP_SHAPE, x), STD_INTS(m, 2, 3));
    to = std_concat(m, 0, integer(m, 1, 0), std_concat(m, 0, std_size(m, a.k, 1), integer(m, 1, -1), -1), tail);
    int y = join(m, std_two(m, OP_MATMUL, std_two(m, OP_RESHAPE, x, to), std_two(m, OP_UNSQUEEZE, a.v, two)));
    if (three) y = std_join_heads(m, y);
    std_give(m, n, 0, y);
    std_give(m, n, 1, a.k);
    std_give(m, n, 2, a.v);
}

int std_part(struct maker *m, int x, int64_t from, int64_t to, int64_t step)
{
    int y = graph_add_node(m->g, OP_SLICE, m->name, 5, 1) ? value(m, "part") : -1;
    int in[5] = {x, integer(m, 1, from), integer(m, 1, to), integer(m, 1, -1), integer(m, 1, step)};
    struct graph_node *n = last(m);
    n->op.opset = OPSET;
    memcpy(n->op.in, in, sizeof in);
    n->op.out[0] = y;
    return y;
}

static void halves(struct maker *m, int x, bool interleaved, int *ret_a, int *ret_b)
{
    if (interleaved) {
        *ret_a = std_part(m, x, 0, INT64_MAX, 2);
        *ret_b = std_part(m, x, 1, INT64_MAX, 2);
        return;
    }
    struct graph_node *s = graph_add_node(m->g, OP_SPLIT, m->name, 1, 2);
    s->op.opset = OPSET;
    s->op.in[0] = x;
    graph_set_int(s, "axis", -1);
    *ret_a = value(m, "first");
    *ret_b = value(m, "second");
    last(m)->op.out[0] = *ret_a;
    last(m)->op.out[1] = *ret_b;
}

int std_rotate(struct maker *m, int x, int cosine, int sine, bool interleaved)
{
    int a, b;
    halves(m, x, interleaved, &a, &b);
    int re = std_two(m, OP_SUB, std_two(m, OP_MUL, cosine, a), std_two(m, OP_MUL, sine, b));
    int im = std_two(m, OP_ADD, std_two(m, OP_MUL, sine, a), std_two(m, OP_MUL, cosine, b));
    if (!interleaved) return std_concat(m, -1, re, im, -1);
    int axis = integer(m, 1, -1);
    int y = std_concat(m, -1, std_two(m, OP_UNSQUEEZE, re, axis), std_two(m, OP_UNSQUEEZE, im, axis), -1);
    return std_two(m, OP_RESHAPE, y, std_one(m, OP_SHAPE, x));
}

void graph_standard_rotary(struct maker *m, const struct op_node *n)
{
    bool three = has_three_axes(m, n, "num_heads");
    int64_t turned = op_attr_int(n, "rotary_embedding_dim", 0);
    int x = three ? std_split_heads(m, n->in[0], op_attr_int(n, "num_heads", 0)) : n->in[0];
    int cache[2] = {n->in[1], n->in[2]}, one = integer(m, 1, 1), rest = -1;
    for (int i = 0; i < 2; i++) {
        if (std_input(n, 3) >= 0) cache[i] = std_two(m, OP_GATHER, cache[i], n->in[3]);
        cache[i] = std_two(m, OP_UNSQUEEZE, cache[i], one);
    }
    if (turned > 0) {
        rest = std_part(m, x, turned, INT64_MAX, 1);
        x = std_part(m, x, 0, turned, 1);
    }
    int y = std_rotate(m, x, cache[0], cache[1], op_attr_int(n, "interleaved", 0) != 0);
    if (rest >= 0) y = std_concat(m, -1, y, rest, -1);
    std_give(m, n, 0, three ? std_join_heads(m, y) : y);
}
