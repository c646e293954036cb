/* Language models: GPT-2 (Radford et al., 2019; `gpt2` is the published one of 124 million numbers) and Llama (Touvron et al., 2023). Here `classes`
 * is the vocabulary and `size` the length of the text; input `tokens` [1, length] of int64, output `logits` [1, length, vocabulary]. The embedding is
 * the last layer's matrix, too.
 *
 * All linear layers work on one row per token, [length, width]; heads are apart only inside the attention. Sizes are written so that a batch
 * follows. What no training changes (masks, angles) has names that end in "fixed". SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo_build.h"

#include <math.h>
#include <stdio.h>

struct net {
    int layers, width, heads, kv_heads, hidden, vocabulary, length, positions;
    bool llama;
    float dropout; /* GPT-2: of embeddings, attention, and what each half of a layer adds */
    int mask, cosine, sine, turn; /* constants shared by the layers */
};

static struct tensor_shape shape(int rank, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e)
{
    return (struct tensor_shape){.rank = rank, .dims = {a, b, c, d, e}};
}

static int fill(struct zoo *z, const char *what, struct tensor_shape s, float **ret)
{
    int v = zoo_constant(z, what, s, ZOO_ZERO, 0);
    *ret = z->e ? NULL : z->g->values[v].owned;
    return v;
}

/* y = x W (+ b). GPT-2 keeps W as [in, out], Llama as [out, in]. */
static int linear(struct zoo *z, const struct net *n, int x, int out)
{
    struct tensor_shape s = zoo_shape(z, x);
    int in[3] = {x, zoo_constant(z, "weight", n->llama ? shape(2, out, s.dims[1], 0, 0, 0) : shape(2, s.dims[1], out, 0, 0, 0), ZOO_BELL, 0.02f)};
    if (!n->llama) in[2] = zoo_constant(z, "bias", shape(1, out, 0, 0, 0, 0), ZOO_ZERO, 0);
    int y = zoo_node(z, OP_GEMM, in, n->llama ? 2 : 3, shape(2, s.dims[0], out, 0, 0, 0));
    if (!z->e && n->llama) graph_set_int(zoo_last(z), "transB", 1);
    return y;
}

static int layer_norm(struct zoo *z, int x)
{
    struct tensor_shape s = zoo_shape(z, x), w = shape(1, s.dims[s.rank - 1], 0, 0, 0, 0);
    int y = zoo_node(z, OP_LAYER_NORM, (int[]){x, zoo_constant(z, "weight", w, ZOO_ONE, 0), zoo_constant(z, "bias", w, ZOO_ZERO, 0)}, 3, s);
    if (!z->e) graph_set_int(zoo_last(z), "axis", -1);
    return y;
}

/* x / sqrt(mean(x^2) + 1e-5) * weight. */
static int rms_norm(struct zoo *z, int x)
{
    struct tensor_shape s = zoo_shape(z, x), one = s;
    one.dims[1] = 1;
    int y = zoo_node(z, OP_MUL, (int[]){x, x}, 2, s);
    y = zoo_node(z, OP_REDUCE_MEAN, &y, 1, one);
    if (!z->e) graph_set_ints(zoo_last(z), "axes", (int64_t[]){-1}, 1);
    y = zoo_node(z, OP_ADD, (int[]){y, zoo_number(z, 1e-5f)}, 2, one);
    y = zoo_node(z, OP_SQRT, &y, 1, one);
    y = zoo_node(z, OP_DIV, (int[]){x, y}, 2, s);
    return zoo_mul(z, y, zoo_constant(z, "weight", shape(1, s.dims[1], 0, 0, 0, 0), ZOO_ONE, 0));
}

static int normed(struct zoo *z, const struct net *n, int x)
{
    return n->llama ? rms_norm(z, x) : layer_norm(z, x);
}

static int dropped(struct zoo *z, const struct net *n, int x)
{
    return n->llama ? x : zoo_dropout(z, x, n->dropout);
}

/* 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), as GPT-2 has it; ONNX has no operator for it before version 20. */
static int gelu(struct zoo *z, int x)
{
    struct tensor_shape s = zoo_shape(z, x);
    int y = zoo_mul(z, zoo_mul(z, x, x), x);
    y = zoo_add(z, x, zoo_mul(z, y, zoo_number(z, 0.044715f)));
    y = zoo_mul(z, y, zoo_number(z, 0.7978845608f));
    y = zoo_node(z, OP_TANH, &y, 1, s);
    y = zoo_mul(z, x, zoo_node(z, OP_ADD, (int[]){y, zoo_number(z, 1)}, 2, s));
    return zoo_mul(z, y, zoo_number(z, 0.5f));
}

/* ---- what all layers share */

/* 0 where a token may look, -1e9 (nothing, after the softmax) where it may not: the future. */
static int make_mask(struct zoo *z, const struct net *n)
{
    float *f;
    int v = fill(z, "mask.fixed", shape(2, n->length, n->length, 0, 0, 0), &f);
    for (int i = 0; f && i < n->length; i++)
        for (int k = i + 1; k < n->length; k++) f[(size_t)i * (size_t)n->length + (size_t)k] = -1e9f;
    return v;
}

/* Rotary positions (Su et al., 2021): neighbours 2 i and 2 i + 1 are turned by position * 10000^(-2 i / size). x cos + (x turn) sin, where `turn` swaps
 * neighbours and changes the sign of one. */
static void make_angles(struct zoo *z, struct net *n)
{
    int size = n->width / n->heads;
    float *c, *s, *t;
    n->cosine = fill(z, "cosine.fixed", shape(3, n->length, 1, size, 0, 0), &c);
    n->sine = fill(z, "sine.fixed", shape(3, n->length, 1, size, 0, 0), &s);
    n->turn = fill(z, "turn.fixed", shape(2, size, size, 0, 0, 0), &t);
    if (z->e) return;
    for (int p = 0; p < n->length; p++)
        for (int i = 0; i < size; i++) {
            double a = p * pow(10000, -(double)(i / 2 * 2) / size);
            c[p * size + i] = (float)cos(a);
            s[p * size + i] = (float)sin(a);
        }
    for (int i = 0; i < size; i += 2) {
        t[(i + 1) * size + i] = -1;
        t[i * size + i + 1] = 1;
    }
}

static int rotate(struct zoo *z, const struct net *n, int x)
{
    struct tensor_shape s = zoo_shape(z, x);
    int turned = zoo_node(z, OP_MATMUL, (int[]){x, n->turn}, 2, s);
    return zoo_add(z, zoo_mul(z, x, n->cosine), zoo_mul(z, turned, n->sine));
}

/* ---- a layer */

/* [tokens, heads * size] into [1, kv heads, heads per kv head, length, size]. */
static int heads(struct zoo *z, const struct net *n, int x, int groups, bool turn)
{
    int size = n->width / n->heads, all = (int)zoo_shape(z, x).dims[1] / size;
    x = zoo_reshape(z, x, shape(4, -1, n->length, all, size, 0));
    if (turn && n->llama) x = rotate(z, n, x);
    if (groups == all && n->heads == n->kv_heads) return zoo_transpose(z, x, (int[]){0, 2, 1, 3});
    x = zoo_reshape(z, x, shape(5, -1, n->length, n->kv_heads, all / n->kv_heads, size));
    return zoo_transpose(z, x, (int[]){0, 2, 3, 1, 4});
}

static int attention(struct zoo *z, const struct net *n, int x)
{
    int size = n->width / n->heads, q, k, v;
    if (n->llama) {
        q = linear(z, n, x, n->width);
        k = linear(z, n, x, n->kv_heads * size);
        v = linear(z, n, x, n->kv_heads * size);
    } else {
        int all = linear(z, n, x, 3 * n->width);
        q = zoo_slice(z, all, 1, 0, n->width, 1);
        k = zoo_slice(z, all, 1, n->width, 2 * n->width, 1);
        v = zoo_slice(z, all, 1, 2 * n->width, 3 * n->width, 1);
    }
    q = heads(z, n, q, n->heads, true);
    k = heads(z, n, k, n->kv_heads, true);
    v = heads(z, n, v, n->kv_heads, false);
    struct tensor_shape s = zoo_shape(z, q), scores = s;
    scores.dims[s.rank - 1] = n->length;
    k = zoo_transpose(z, k, s.rank == 4 ? (int[]){0, 1, 3, 2} : (int[]){0, 1, 2, 4, 3});
    int a = zoo_node(z, OP_MATMUL, (int[]){q, k}, 2, scores);
    a = zoo_mul(z, a, zoo_number(z, 1 / sqrtf((float)size)));
    a = zoo_add(z, a, n->mask);
    a = zoo_node(z, OP_SOFTMAX, &a, 1, scores);
    if (!z->e) graph_set_int(zoo_last(z), "axis", -1);
    a = zoo_node(z, OP_MATMUL, (int[]){dropped(z, n, a), v}, 2, s);
    a = zoo_transpose(z, a, s.rank == 4 ? (int[]){0, 2, 1, 3} : (int[]){0, 3, 1, 2, 4});
    return linear(z, n, zoo_reshape(z, a, shape(2, -1, n->width, 0, 0, 0)), n->width);
}

static int feed_forward(struct zoo *z, const struct net *n, int x)
{
    if (!n->llama) return linear(z, n, gelu(z, linear(z, n, x, n->hidden)), n->width);
    int gate = zoo_act(z, linear(z, n, x, n->hidden), OP_SILU);
    return linear(z, n, zoo_mul(z, gate, linear(z, n, x, n->hidden)), n->width);
}

static int embed(struct zoo *z, const struct net *n, int tokens, int words)
{
    int x = zoo_node(z, OP_GATHER, (int[]){words, tokens}, 2, shape(3, 1, n->length, n->width, 0, 0));
    if (!n->llama) {
        int table = zoo_constant(z, "positions", shape(2, n->positions, n->width, 0, 0, 0), ZOO_BELL, 0.02f);
        int where = zoo_node(z, OP_GATHER, (int[]){table, zoo_count(z, n->length)}, 2, shape(2, n->length, n->width, 0, 0, 0));
        x = zoo_add(z, x, where);
    }
    return dropped(z, n, zoo_reshape(z, x, shape(2, -1, n->width, 0, 0, 0)));
}

static void build(struct zoo *z, struct net *n)
{
    struct tensor_shape in = shape(2, 1, n->length, 0, 0, 0);
    if (z->e) return;
    int tokens = graph_add_input(z->g, "tokens", TENSOR_I64, &in);
    int table = zoo_constant(z, "embedding", shape(2, n->vocabulary, n->width, 0, 0, 0), ZOO_BELL, 0.02f);
    n->mask = make_mask(z, n);
    if (n->llama) make_angles(z, n);
    int x = embed(z, n, tokens, table);
    for (int i = 0; i < n->layers; i++) {
        x = zoo_add(z, x, dropped(z, n, attention(z, n, normed(z, n, x))));
        x = zoo_add(z, x, dropped(z, n, feed_forward(z, n, normed(z, n, x))));
    }
    x = normed(z, n, x);
    x = zoo_node(z, OP_GEMM, (int[]){x, table}, 2, shape(2, n->length, n->vocabulary, 0, 0, 0));
    if (!z->e) graph_set_int(zoo_last(z), "transB", 1);
    zoo_output(z, zoo_reshape(z, x, shape(3, -1, n->length, n->vocabulary, 0, 0)), "logits");
}

/* gpt2: 12 layers of 768, a tenth dropped; gpt2-mini: 6 layers of 384, about 10 million numbers, which drops nothing unless told to; llama-mini: the shape of the 260 thousand numbers that tell stories. */
static void transformer(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const struct net nets[] = {
        {.layers = 12, .width = 768, .heads = 12, .kv_heads = 12, .hidden = 3072, .vocabulary = 50257, .positions = 1024, .length = 256, .dropout = 0.1f},
        {.layers = 6, .width = 384, .heads = 6, .kv_heads = 6, .hidden = 1536, .vocabulary = 512, .positions = 256, .length = 256},
        {.layers = 5, .width = 64, .heads = 8, .kv_heads = 4, .hidden = 172, .vocabulary = 512, .length = 256, .llama = true}};
    struct net n = nets[variant];
    n.vocabulary = zoo_classes(o, n.vocabulary);
    n.length = zoo_side(o, n.length);
    if (!z->e && n.positions && n.length > n.positions) {
        if (variant == 0) z->e = err_set(ERR_USAGE, "%s: texts of up to 1024 tokens", z->g->name);
        else n.positions = n.length;
    }
    build(z, &n);
}

const struct zoo_entry zoo_transformers[] = {{"gpt2", transformer, 0}, {"gpt2-mini", transformer, 1}, {"llama-mini", transformer, 2}, {NULL, NULL, 0}};
