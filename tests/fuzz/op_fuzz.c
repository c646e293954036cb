/* Fuzzes shape rules: bytes become a node with attributes and inputs of any numbers; op_infer, op_window, op_axes and
 * op_flops must answer, and what they answer must be shapes that can exist. SPDX-License-Identifier: Apache-2.0 */
#include "op/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ATTRS = 6, MAX_IN = 6, MAX_OUT = 33, MAX_LIST = 20 };

struct bytes {
    const uint8_t *p;
    size_t n;
};

static uint8_t byte(struct bytes *b)
{
    return b->n ? b->n--, *b->p++ : 0;
}

/* Mostly small, sometimes at an edge, sometimes anything. */
static int64_t number(struct bytes *b)
{
    static const int64_t EDGES[] = {
        INT64_MIN,        INT64_MAX,        INT64_MIN + 1,          INT32_MIN, INT32_MAX, (int64_t)1 << 47,
        (int64_t)1 << 62, (int64_t)1 << 30, ((int64_t)1 << 30) + 1, 1000000007};
    uint8_t k = byte(b);
    if (k < 200) return (int64_t)(k % 20) - 4;
    if (k < 250) return EDGES[k % ARRAY_LEN(EDGES)];
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v = v << 8 | byte(b);
    return (int64_t)v;
}

static float real(struct bytes *b)
{
    static const float EDGES[] = {0, -1, 1e38f, -1e38f, 1e-38f, INFINITY, 0.5f, 2, 1.0f / 3};
    uint8_t k = byte(b);
    return k < 128 ? (float)k / 16 : EDGES[k % ARRAY_LEN(EDGES)];
}

static struct tensor_shape shape(struct bytes *b, bool small)
{
    struct tensor_shape s = {.rank = byte(b) % 11};
    if (s.rank == 10) s.rank = (int)number(b); /* any rank at all */
    for (int i = 0; i < MIN(s.rank, TENSOR_MAX_RANK); i++) s.dims[i] = small ? byte(b) % 10 : number(b);
    s.bounded = byte(b) < 40 ? byte(b) : 0;
    return s;
}

static void fill_attr(struct bytes *b, struct op_attr *a, int64_t *ints, float *floats, char *text)
{
    static const char *const NAMES[] = {
        "axis", "axes", "auto_pad", "pads", "strides", "dilations", "kernel_shape", "group",
        "ceil_mode", "output_padding", "output_shape", "keepdims", "noop_with_empty_axes", "perm",
        "shape", "allowzero", "split", "num_outputs", "starts", "ends", "mode", "scales",
        "keep_aspect_ratio_policy", "equation", "transA", "transB", "to", "value", "value_int",
        "value_ints", "value_float", "value_floats", "blocksize", "block_size", "batch_dims", "k",
        "start", "end", "dtype", "stash_type", "size", "direction", "spatial", "output_dtype"};
    static const char *const WORDS[] = {
        "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "reflect", "edge", "not_larger", "not_smaller",
        "cubic", "ij,jk->ik", "...ij,...jk", "ii->", "a...,b...->...", "LEFT"};
    *a = (struct op_attr){.name = (char *)(uintptr_t)NAMES[byte(b) % ARRAY_LEN(NAMES)]};
    a->type = byte(b) % 9;
    a->i = number(b);
    a->f = real(b);
    a->n = byte(b) % MAX_LIST;
    a->ints = ints;
    a->floats = floats;
    for (size_t i = 0; i < a->n; i++) {
        if (a->type == OP_ATTR_INTS) ints[i] = number(b);
        if (a->type == OP_ATTR_FLOATS) floats[i] = real(b);
    }
    uint8_t word = byte(b);
    if (word < 128) {
        strcpy(text, WORDS[word % ARRAY_LEN(WORDS)]);
    } else {
        for (size_t i = 0; i < a->n; i++) text[i] = (char)byte(b);
        text[a->n] = 0;
    }
    a->s = text;
    a->tensor.dtype = byte(b) % 18;
    if (a->type == OP_ATTR_TENSOR) a->tensor.shape = shape(b, true);
}

/* A constant of as many bytes as its shape says: a read beyond is found by the sanitizer. */
static void *fill_input(struct bytes *b, struct op_info *v)
{
    static const enum tensor_dtype COMMON[] = {TENSOR_F32,  TENSOR_I64, TENSOR_I32,
                                               TENSOR_BOOL, TENSOR_F64, TENSOR_I64};
    uint8_t k = byte(b);
    v->dtype = k < 220 ? COMMON[k % ARRAY_LEN(COMMON)] : (enum tensor_dtype)(byte(b) % 40);
    v->shape = shape(b, k & 1);
    int64_t n;
    if (k < 110 || v->shape.rank < 0 || v->shape.rank > TENSOR_MAX_RANK ||
        tensor_shape_count(&v->shape, &n) || n > 256)
        return NULL;
    size_t size = tensor_dtype_size(v->dtype);
    char *bytes = malloc((size_t)n * size + 1);
    for (int64_t i = 0; i < n; i++) {
        int64_t whole = number(b);
        float f = real(b);
        double d = f;
        const void *from = v->dtype == TENSOR_F32   ? (void *)&f
                           : v->dtype == TENSOR_F64 ? (void *)&d
                                                    : (void *)&whole;
        memcpy(bytes + (size_t)i * size, from, size);
    }
    v->constant = bytes;
    return bytes;
}

static void check_answer(const struct op_node *n, const struct op_info *out)
{
    for (int i = 0; i < n->n_out; i++) {
        int64_t count;
        if (!tensor_dtype_size(out[i].dtype) || out[i].shape.rank < 0 || out[i].shape.rank > TENSOR_MAX_RANK)
            abort();
        if (tensor_shape_count(&out[i].shape, &count)) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes b = {data, size};
    struct op_attr attrs[MAX_ATTRS];
    int64_t ints[MAX_ATTRS][MAX_LIST], axes[TENSOR_MAX_RANK];
    float floats[MAX_ATTRS][MAX_LIST];
    char text[MAX_ATTRS][32];
    struct op_info in[MAX_IN + 8] = {{0}}, out[MAX_OUT];
    void *owned[MAX_IN];
    struct op_node n = {.name = (char[]){""}, .attrs = attrs};
    n.kind = byte(&b) % (OP_KIND_COUNT + 2);
    n.opset = byte(&b) % 25;
    n.n_in = byte(&b) % (MAX_IN + 1);
    n.n_out = byte(&b);
    n.n_out = n.n_out < 200 ? 1 + n.n_out % 3 : n.n_out % (MAX_OUT + 1);
    n.n_attrs = byte(&b) % (MAX_ATTRS + 1);
    for (int i = 0; i < n.n_attrs; i++) fill_attr(&b, &attrs[i], ints[i], floats[i], text[i]);
    for (int i = 0; i < n.n_in; i++) owned[i] = fill_input(&b, &in[i]);
    if (op_infer(&n, in, out) == ERR_OK) {
        check_answer(&n, out);
        if (op_flops(&n, in, out) < 0) abort();
    }
    struct op_window w;
    if (op_window(&n, &in[0].shape, n.n_in > 1 ? &in[1].shape : NULL, &w) == ERR_OK)
        for (int i = 0; i < w.n; i++)
            if (w.out[i] < 0) abort();
    if (op_axes(&n, &in[1], in[0].shape.rank, axes) > TENSOR_MAX_RANK) abort();
    for (int i = 0; i < n.n_in; i++) free(owned[i]);
    return 0;
}
