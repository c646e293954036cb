/* com.microsoft's Attention, QAttention, MultiHeadAttention, GroupQueryAttention and RotaryEmbedding as products, sums and a softmax, as ONNX
 * Runtime computes them on a processor. https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
 *
 * The rank of a mask is mostly not known while a file is read, but its size per sample is when a plan is made: 1 is a number of keys, that of
 * the keys, or keys times queries, is a mask. (A mask of one key and a number of keys mean the same.) What is hidden gets
 * mask_filter_value, so a row in which all is hidden stays what it is without a mask. Keys behind a query get minus infinity.
 *
 * GroupQueryAttention: each sample has its own number of past keys (seqlens_k + 1 - S), in a cache that may have room for more; new keys lie
 * behind them. K and V are not repeated for the queries that share them: those queries are rows of one product.
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/standard.h"

#include <math.h>

struct heads {
    int q, k, v;      /* [N, heads, S, D] */
    int bias;         /* added to the scores, or -1 */
    int64_t groups;   /* heads of K and V, if fewer than those of Q; else 0 */
    int64_t count;    /* heads of Q */
    float cap;        /* softcap, 0: none */
    int sink;         /* a score that only takes a share, per head, or -1 */
};

static void refuse(struct maker *m, bool when, const char *what)
{
    if (when && !m->e) m->e = err_set(ERR_UNSUPPORTED, "%s", what);
}

/* The shape [N, heads, rest, size] */
static int with_heads(struct maker *m, int64_t heads, int size)
{
    return std_concat(m, 0, STD_INTS(m, 0, heads, -1), size, -1);
}

static int with_bias(struct maker *m, int bias, int more)
{
    return bias < 0 ? more : std_two(m, OP_ADD, bias, more);
}

static int shares(struct maker *m, const struct heads *h, int x)
{
    if (h->sink >= 0) {
        int rows = std_concat(m, 0, std_concat(m, 0, std_size(m, x, 0), std_size(m, x, 1), std_size(m, x, 2)), integer(m, 1, 1), -1);
        int sink = std_two(m, OP_RESHAPE, std_two(m, OP_CAST_LIKE, h->sink, x), STD_INTS(m, 1, -1, 1, 1));
        x = std_concat(m, -1, x, std_two(m, OP_EXPAND, sink, rows), -1);
    }
    x = std_one(m, OP_SOFTMAX, x);
    graph_set_int(last(m), "axis", -1);
    return h->sink >= 0 ? std_part(m, x, 0, -1, 1) : x;
}

/* [N, S, heads * D] */
static int attend(struct maker *m, const struct op_node *n, const struct heads *h)
{
    float scale = op_attr_float(n, "scale", 0);
    int s, q = h->q;
    if (scale > 0)
        s = std_like(m, scale, q);
    else
        s = std_two(m, OP_CAST_LIKE, std_one(m, OP_RECIPROCAL, std_one(m, OP_SQRT, std_f32(m, std_size(m, q, 3)))), q);
    q = std_two(m, OP_MUL, q, s);
    if (h->groups) q = std_two(m, OP_RESHAPE, q, with_heads(m, h->groups, std_size(m, h->q, 3)));
    int x = std_two(m, OP_MATMUL, q, STD_TRANSPOSE(m, h->k, 0, 1, 3, 2));
    if (h->groups) x = std_two(m, OP_RESHAPE, x, with_heads(m, h->count, std_size(m, h->k, 2)));
    if (h->cap > 0) {
        int c = std_like(m, h->cap, h->q);
        x = std_two(m, OP_MUL, std_one(m, OP_TANH, std_two(m, OP_DIV, x, c)), c);
    }
    if (h->bias >= 0) x = std_two(m, OP_ADD, x, h->bias);
    x = shares(m, h, x);
    if (h->groups) x = std_two(m, OP_RESHAPE, x, with_heads(m, h->groups, std_size(m, h->k, 2)));
    int y = std_two(m, OP_MATMUL, x, h->v);
    if (h->groups) y = std_two(m, OP_RESHAPE, y, with_heads(m, h->count, std_size(m, h->v, 3)));
    return std_join_heads(m, y);
}

/* ---- what is hidden */

static int hide(struct maker *m, int allowed, float as, int like)
{
    return node(m, OP_WHERE, allowed, std_like(m, 0, like), std_like(m, as, like), -1);
}

static int mask_bias(struct maker *m, const struct op_node *n, int mask, const struct heads *h)
{
    int samples = std_size(m, h->q, 0), keys = std_size(m, h->k, 2);
    int each = std_two(m, OP_DIV, std_two(m, OP_RESHAPE, std_one(m, OP_SIZE, mask), integer(m, 1, 1)), samples);
    int across = std_two(m, OP_MIN, keys, each);
    int x = std_two(m, OP_RESHAPE, std_f32(m, mask), std_concat(m, 0, samples, STD_INTS(m, 1, -1), across));
    int number = std_two(m, OP_LESS, std_f32(m, std_count(m, h->k, 2)), x), plain = std_two(m, OP_GREATER, x, real(m, 0));
    int allowed = node(m, OP_WHERE, std_two(m, OP_EQUAL, across, integer(m, 1, 1)), number, plain, -1);
    return hide(m, allowed, op_attr_float(n, "mask_filter_value", -10000.0f), h->q);
}

static void biases(struct maker *m, const struct op_node *n, struct heads *h, int mask, int more, int past)
{
    h->bias = more;
    if (mask >= 0) h->bias = with_bias(m, h->bias, mask_bias(m, n, mask, h));
    if (!op_attr_int(n, "unidirectional", 0)) return;
    int i = std_two(m, OP_UNSQUEEZE, std_count(m, h->q, 2), integer(m, 1, 1));
    if (past >= 0) i = std_two(m, OP_ADD, i, std_size(m, past, 2));
    h->bias = with_bias(m, h->bias, hide(m, std_two(m, OP_LESS_OR_EQUAL, std_count(m, h->k, 2), i), -INFINITY, h->q));
}

/* ---- Attention */

static void in_three(struct maker *m, int x, int64_t axis, const int64_t *sizes, int *ret)
{
    static const char *const NAMES[] = {"query", "key", "value"};
    for (int i = 0; i < 3; i++) ret[i] = value(m, NAMES[i]);
    int at = sizes ? std_ints(m, 3, sizes) : -1;
    struct graph_node *s = graph_add_node(m->g, OP_SPLIT, m->name, sizes ? 2 : 1, 3);
    s->op.opset = OPSET;
    s->op.in[0] = x;
    if (sizes) s->op.in[1] = at;
    memcpy(s->op.out, ret, 3 * sizeof *ret);
    graph_set_int(s, "axis", axis);
}

static int one_of(struct maker *m, int x, int64_t which)
{
    return std_two(m, OP_GATHER, x, integer(m, 0, which));
}

/* projected: [N, S, 3 * heads * D]; past [2, N, heads, P, D] */
static void from_projected(struct maker *m, const struct op_node *n, int projected, int mask, int past, int more)
{
    struct heads h = {.sink = -1};
    const int64_t *sizes = NULL;
    int64_t count = op_attr_int(n, "num_heads", 0);
    int part[3], kept = -1;
    refuse(m, op_attr_int(n, "do_rotary", 0), "do_rotary; RotaryEmbedding before the attention is supported");
    refuse(m, op_attr_int(n, "past_present_share_buffer", 0), "past_present_share_buffer");
    if (op_attr_ints(n, "qkv_hidden_sizes", &sizes) != 3) sizes = NULL;
    in_three(m, projected, -1, sizes, part);
    h.q = std_split_heads(m, part[0], count);
    h.k = std_split_heads(m, part[1], count);
    h.v = std_split_heads(m, part[2], count);
    if (past >= 0) {
        kept = one_of(m, past, 0);
        h.k = std_concat(m, 2, kept, h.k, -1);
        h.v = std_concat(m, 2, one_of(m, past, 1), h.v, -1);
    }
    biases(m, n, &h, mask, more, kept);
    std_give(m, n, 0, attend(m, n, &h));
    if (n->n_out < 2 || n->out[1] < 0) return;
    int first = integer(m, 1, 0);
    std_give(m, n, 1, std_concat(m, 0, std_two(m, OP_UNSQUEEZE, h.k, first), std_two(m, OP_UNSQUEEZE, h.v, first), -1));
}

void graph_standard_heads(struct maker *m, const struct op_node *n)
{
    int x = std_two(m, OP_MATMUL, n->in[0], n->in[1]);
    if (std_input(n, 2) >= 0) x = std_two(m, OP_ADD, x, n->in[2]);
    refuse(m, std_input(n, 6) >= 0, "Attention with past_sequence_length");
    from_projected(m, n, x, std_input(n, 3), std_input(n, 4), std_input(n, 5));
}

void graph_standard_qheads(struct maker *m, const struct op_node *n)
{
    int a = std_without_zero(m, n->in[0], std_input(n, 6)), w = std_without_zero(m, n->in[1], std_input(n, 7));
    int x = std_two(m, OP_MUL, std_two(m, OP_MATMUL, a, w), std_two(m, OP_MUL, n->in[3], n->in[4]));
    from_projected(m, n, std_two(m, OP_ADD, x, n->in[2]), std_input(n, 5), std_input(n, 8), -1);
}

/* ---- MultiHeadAttention */

static bool has_four_axes(const struct maker *m, int x)
{
    const struct graph_value *v = &m->g->values[x];
    return v->has_shape && v->shape.rank == 4;
}

/* x [N, S, heads * D] plus a part of the bias from `from` on as long as x is wide; to [N, heads, S, D]. */
static int biased(struct maker *m, int x, int bias, int from, int64_t count)
{
    if (bias >= 0) {
        int in[] = {bias, from, std_two(m, OP_ADD, from, std_size(m, x, 2))};
        x = std_two(m, OP_ADD, x, std_many(m, OP_SLICE, OPSET, 3, in, -1));
    }
    return std_split_heads(m, x, count);
}

/* Number `which` of x [N, S, heads, n, D], plus its bias; to [N, heads, S, D]. */
static int unpacked(struct maker *m, int x, int64_t which, int bias, int64_t count)
{
    x = one_of(m, x, which);
    graph_set_int(last(m), "axis", 3);
    if (bias >= 0) x = std_two(m, OP_ADD, x, std_two(m, OP_RESHAPE, bias, STD_INTS(m, count, -1)));
    return STD_TRANSPOSE(m, x, 0, 2, 1, 3);
}

static void multi_head_inputs(struct maker *m, const struct op_node *n, struct heads *h)
{
    int key = std_input(n, 1), v = std_input(n, 2), bias = std_input(n, 3), third[3] = {-1, -1, -1};
    int64_t count = h->count;
    bool packed = key < 0 || v < 0;
    if (packed && bias >= 0) in_three(m, bias, 0, NULL, third);
    if (key < 0) {
        h->q = unpacked(m, n->in[0], 0, third[0], count);
        h->k = unpacked(m, n->in[0], 1, third[1], count);
        h->v = unpacked(m, n->in[0], 2, third[2], count);
        return;
    }
    int from = integer(m, 1, 0), width = std_size(m, n->in[0], 2);
    h->q = biased(m, n->in[0], packed ? third[0] : bias, from, count);
    if (v < 0) {
        h->k = unpacked(m, key, 0, third[1], count);
        h->v = unpacked(m, key, 1, third[2], count);
    } else if (has_four_axes(m, key)) {
        h->k = key;
        h->v = v;
    } else {
        h->k = biased(m, key, bias, width, count);
        h->v = biased(m, v, bias, std_two(m, OP_ADD, width, width), count);
    }
}

void graph_standard_multi_head(struct maker *m, const struct op_node *n)
{
    struct heads h = {.sink = -1, .count = op_attr_int(n, "num_heads", 0)};
    int past_k = std_input(n, 6), past_v = std_input(n, 7);
    refuse(m, std_input(n, 8) >= 0 || std_input(n, 9) >= 0, "MultiHeadAttention with past_sequence_length or cache_indirection");
    refuse(m, n->n_out > 3 && n->out[3] >= 0, "MultiHeadAttention with the output qk");
    multi_head_inputs(m, n, &h);
    if (past_k >= 0) h.k = std_concat(m, 2, past_k, h.k, -1);
    if (past_v >= 0) h.v = std_concat(m, 2, past_v, h.v, -1);
    biases(m, n, &h, std_input(n, 4), std_input(n, 5), past_k);
    std_give(m, n, 0, attend(m, n, &h));
    std_give(m, n, 1, h.k);
    std_give(m, n, 2, h.v);
}

/* ---- rotation */

static int turned_by(struct maker *m, int x, int cosine, int sine, int at, bool interleaved, int64_t width)
{
    const struct graph_value *c = &m->g->values[cosine];
    int64_t turned = c->has_shape && c->shape.rank == 2 && c->shape.dims[1] > 0 && c->shape.dims[1] < 1 << 30 ? 2 * c->shape.dims[1] : 0;
    int one = integer(m, 1, 1), rest = -1;
    int a = std_two(m, OP_UNSQUEEZE, std_two(m, OP_GATHER, cosine, at), one);
    int b = std_two(m, OP_UNSQUEEZE, std_two(m, OP_GATHER, sine, at), one);
    if (turned && turned != width) {
        rest = std_part(m, x, turned, INT64_MAX, 1);
        x = std_part(m, x, 0, turned, 1);
    }
    int y = std_rotate(m, x, a, b, interleaved);
    return rest < 0 ? y : std_concat(m, -1, y, rest, -1);
}

void graph_standard_rotary_ms(struct maker *m, const struct op_node *n)
{
    bool four = has_four_axes(m, n->in[0]);
    int64_t heads = op_attr_int(n, "num_heads", 0), part = op_attr_int(n, "rotary_embedding_dim", 0);
    int x = n->in[0], position = n->in[1], cosine = n->in[2];
    refuse(m, op_attr_int(n, "is_packed_batching", 0), "RotaryEmbedding with is_packed_batching");
    refuse(m, op_attr_float(n, "scale", 1) != 1, "RotaryEmbedding with a scale");
    if (!four && (part > 0 || heads > 0)) {
        x = std_split_heads(m, x, heads);
    } else if (!four) {
        int half = std_size(m, cosine, 1);
        x = std_two(m, OP_RESHAPE, x, std_concat(m, 0, STD_INTS(m, 0, 0, -1), std_two(m, OP_ADD, half, half), -1));
        x = STD_TRANSPOSE(m, x, 0, 2, 1, 3);
    }
    int length = std_size(m, x, 2), one = integer(m, 1, 1);
    int size = std_two(m, OP_RESHAPE, std_one(m, OP_SIZE, position), one), zero = integer(m, 0, 0);
    int at = std_two(m, OP_RESHAPE, position, std_concat(m, 0, integer(m, 1, -1), std_two(m, OP_MIN, length, size), -1));
    int onward = node(m, OP_WHERE, std_two(m, OP_EQUAL, size, one), std_count(m, x, 2), zero, -1);
    at = std_two(m, OP_ADD, std_two(m, OP_CAST_LIKE, at, zero), onward);
    int y = turned_by(m, x, cosine, n->in[3], at, op_attr_int(n, "interleaved", 0) != 0, part > 0 ? -1 : 0);
    std_give(m, n, 0, four ? y : std_join_heads(m, y));
}

/* ---- GroupQueryAttention */

/* Keys or values so far with the new ones behind them, sample by sample, then zeros. before [N, 1]: how many there are. */
static int appended(struct maker *m, int past, int fresh, int before, int length)
{
    int room = std_size(m, past, 2), count = std_size(m, fresh, 2), zero = integer(m, 1, 0), one = integer(m, 1, 1);
    int t = node(m, OP_RANGE, integer(m, 0, 0), std_two(m, OP_SQUEEZE, length, zero), integer(m, 0, 1), -1);
    int most = std_two(m, OP_SUB, std_two(m, OP_ADD, room, count), one);
    int is_new = std_two(m, OP_GREATER_OR_EQUAL, t, before), is_there = std_two(m, OP_LESS, t, std_two(m, OP_ADD, before, count));
    int at = node(m, OP_WHERE, is_new, std_two(m, OP_ADD, std_two(m, OP_SUB, t, before), room), t, -1), middle = STD_INTS(m, 1, 3);
    at = std_two(m, OP_MIN, at, most);
    int all = std_concat(m, 2, past, fresh, -1), shape = std_one(m, OP_SHAPE, all);
    int head = std_two(m, OP_GATHER, shape, STD_INTS(m, 0, 1)), tail = std_two(m, OP_GATHER, shape, integer(m, 1, 3));
    at = std_two(m, OP_EXPAND, std_two(m, OP_UNSQUEEZE, at, middle), std_concat(m, 0, head, length, tail));
    int y = std_two(m, OP_GATHER_ELEMENTS, all, at);
    graph_set_int(last(m), "axis", 2);
    return node(m, OP_WHERE, std_two(m, OP_UNSQUEEZE, is_there, middle), y, std_like(m, 0, y), -1);
}

static void grouped_inputs(struct maker *m, const struct op_node *n, int64_t groups, struct heads *h)
{
    if (std_input(n, 1) >= 0 && std_input(n, 2) >= 0) {
        h->q = std_split_heads(m, n->in[0], h->count);
        h->k = std_split_heads(m, n->in[1], groups);
        h->v = std_split_heads(m, n->in[2], groups);
        return;
    }
    int part[3];
    in_three(m, std_split_heads(m, n->in[0], h->count + 2 * groups), 1, (int64_t[]){h->count, groups, groups}, part);
    h->q = part[0];
    h->k = part[1];
    h->v = part[2];
}

static void check_grouped(struct maker *m, const struct op_node *n, int64_t count, int64_t groups)
{
    if (count < 1 || groups < 1 || count > 1 << 20 || groups > count || count % groups != 0)
        m->e = err_set(ERR_SHAPE, "num_heads %lld must be a multiple of kv_num_heads %lld", (long long)count, (long long)groups);
    bool plain = strcmp(op_attr_string(n, "k_quant_type", "NONE"), "NONE") == 0 && strcmp(op_attr_string(n, "v_quant_type", "NONE"), "NONE") == 0;
    refuse(m, !plain, "GroupQueryAttention with a quantised cache");
    refuse(m, n->n_out > 3 && n->out[3] >= 0, "GroupQueryAttention with the output qk");
    refuse(m, (std_input(n, 3) >= 0) != (std_input(n, 4) >= 0), "GroupQueryAttention with one of past_key and past_value");
    refuse(m, op_attr_int(n, "do_rotary", 0) && (std_input(n, 7) < 0 || std_input(n, 8) < 0), "GroupQueryAttention with do_rotary but without caches");
}

static int64_t head_width(const struct maker *m, int past)
{
    const struct graph_value *v = past < 0 ? NULL : &m->g->values[past];
    return v && v->has_shape && v->shape.rank == 4 ? v->shape.dims[3] : 0;
}

void graph_standard_grouped(struct maker *m, const struct op_node *n)
{
    int64_t groups = op_attr_int(n, "kv_num_heads", 0), window = op_attr_int(n, "local_window_size", -1);
    struct heads h = {.sink = std_input(n, 11), .count = op_attr_int(n, "num_heads", 0), .cap = op_attr_float(n, "softcap", 0), .bias = -1};
    int past_k = std_input(n, 3), past_v = std_input(n, 4);
    check_grouped(m, n, h.count, groups);
    if (m->e) return;
    if (groups != h.count) h.groups = groups;
    if (h.sink < 0 && op_attr_int(n, "smooth_softmax", 0) > 0) h.sink = real(m, 0);
    grouped_inputs(m, n, groups, &h);
    int zero = integer(m, 0, 0), one = integer(m, 0, 1), fresh = std_count(m, h.q, 2);
    int before = std_two(m, OP_RESHAPE, std_two(m, OP_CAST_LIKE, n->in[5], zero), STD_INTS(m, -1, 1));
    before = std_two(m, OP_SUB, std_two(m, OP_ADD, before, one), std_size(m, h.q, 2));
    before = std_two(m, OP_MAX, before, zero);
    int i = std_two(m, OP_ADD, before, fresh); /* places of the queries, [N, S] */
    if (op_attr_int(n, "do_rotary", 0)) {
        int at = std_input(n, 9) >= 0 ? n->in[9] : i;
        bool mixed = op_attr_int(n, "rotary_interleaved", 0) != 0;
        h.q = turned_by(m, h.q, n->in[7], n->in[8], at, mixed, head_width(m, past_k));
        h.k = turned_by(m, h.k, n->in[7], n->in[8], at, mixed, head_width(m, past_k));
    }
    if (past_k >= 0) {
        int total = std_two(m, OP_RESHAPE, std_two(m, OP_CAST_LIKE, n->in[6], zero), integer(m, 1, 1));
        int length = std_two(m, OP_MAX, std_size(m, past_k, 2), total);
        h.k = appended(m, past_k, h.k, before, length);
        h.v = appended(m, past_v, h.v, before, length);
    }
    int j = std_count(m, h.k, 2);
    i = std_two(m, OP_UNSQUEEZE, i, STD_INTS(m, 1, 3));
    int allowed = std_two(m, OP_LESS_OR_EQUAL, j, i);
    if (window > 0) allowed = std_two(m, OP_AND, allowed, std_two(m, OP_GREATER, j, std_two(m, OP_SUB, i, integer(m, 0, window))));
    h.bias = hide(m, allowed, -INFINITY, h.q);
    if (std_input(n, 10) >= 0) h.bias = std_two(m, OP_ADD, h.bias, n->in[10]);
    std_give(m, n, 0, attend(m, n, &h));
    std_give(m, n, 1, h.k);
    std_give(m, n, 2, h.v);
}
