/* A file made for one sample, asked to take several.
 *
 * Exporters write the batch of 1 into constants: Reshape to [1, 85, -1], Resize to [1, 64, 52, 52]. With a batch of
 * 4 these would be wrong, or silently mix samples. So each value carries two bits: it DEPENDS on an input of the
 * batch; its FIRST axis is the batch, or the batch times so many rows of each sample one after another, and part b of
 * it is computed from part b of the inputs alone. FIRST is proven operator by operator (graph_batch_pass): what is not in the table loses it. Then
 *
 *     Reshape, Resize   a leading literal 1 on a FIRST input becomes the batch: each sample is reshaped as before;
 *                       on an input that DEPENDS but is not FIRST: refused, nobody knows what the 1 was
 *     Reshape to -1 ... all other sizes are as before, so each sample is: rows of a text become rows of one matrix
 *     outputs           one that DEPENDS must be FIRST, with the batch itself as first size, else refused: samples were mixed
 *
 * A refusal costs speed (run them one at a time), a wrong guess would cost the result.
 *
 * Invariant: FIRST implies DEPENDS, rank >= 1 and dims[0] a multiple of the batch. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "graph/specialise.h"

uint8_t *graph_batch_flag(struct graph_special *s, int value)
{
    size_t old = s->cap_flags;
    while ((size_t)value >= s->cap_flags) vec_grow(&s->flags, &s->cap_flags, s->cap_flags);
    if (s->cap_flags > old) memset(s->flags + old, 0, s->cap_flags - old);
    return &s->flags[value];
}

static bool has(struct graph_special *s, const struct op_node *n, int i, int bit)
{
    return i < n->n_in && n->in[i] >= 0 && (*graph_batch_flag(s, n->in[i]) & bit);
}

static const struct graph_value *input(const struct graph_special *s, const struct op_node *n, int i)
{
    return i < n->n_in && n->in[i] >= 0 ? &s->to->values[n->in[i]] : NULL;
}

static bool leads(const struct graph_special *s, const struct graph_value *v)
{
    return v && v->shape.rank > 0 && v->shape.dims[0] == s->batch;
}

/* ---- constants follow */

err graph_batch_follow(struct graph_special *s, struct graph_node *n)
{
    int at = n->op.kind == OP_RESHAPE ? 1 : n->op.kind == OP_RESIZE ? 3 : -1;
    const struct graph_value *sizes = at < 0 ? NULL : input(s, &n->op, at);
    if (!sizes || !sizes->constant || sizes->dtype != TENSOR_I64 || sizes->shape.rank != 1 ||
        sizes->shape.dims[0] < 1)
        return ERR_OK;
    int64_t first;
    memcpy(&first, sizes->constant, sizeof first);
    if (first != 1 || !has(s, &n->op, 0, GRAPH_BATCH_DEPENDS)) return ERR_OK;
    if (!has(s, &n->op, 0, GRAPH_BATCH_FIRST))
        return err_set(ERR_SHAPE,
                       "the file is made for a batch of 1, and whether this 1 is the batch is not certain; "
                       "run one at a time, or export the model with an open batch");
    struct tensor_shape shape = sizes->shape;
    const void *old = sizes->constant;
    size_t bytes = sizes->constant_bytes;
    int64_t *p;
    int v;
    err e = graph_add_constant(s->to, "batch", TENSOR_I64, &shape, &v, (void **)&p);
    if (e) return e;
    memcpy(p, old, bytes);
    p[0] = s->batch;
    n->op.in[at] = v;
    return ERR_OK;
}

/* ---- what is proven, operator by operator */

/* All inputs that depend are FIRST, and broadcasting does not move the axis. */
static bool elementwise(struct graph_special *s, const struct op_node *n)
{
    int rank = s->to->values[n->out[0]].shape.rank;
    for (int i = 0; i < n->n_in; i++) {
        const struct graph_value *v = input(s, n, i);
        if (!v) continue;
        if (has(s, n, i, GRAPH_BATCH_DEPENDS) ? !has(s, n, i, GRAPH_BATCH_FIRST) || v->shape.rank != rank
                                              : v->shape.rank == rank && rank > 0 && v->shape.dims[0] != 1)
            return false;
    }
    return true;
}

/* Input 0 is FIRST and the others know nothing of the batch. */
static bool first_only(struct graph_special *s, const struct op_node *n)
{
    for (int i = 1; i < n->n_in; i++)
        if (has(s, n, i, GRAPH_BATCH_DEPENDS)) return false;
    return has(s, n, 0, GRAPH_BATCH_FIRST);
}

/* Works along attribute `axis`, which is not the batch's. */
static bool other_axis(struct graph_special *s, const struct op_node *n, int64_t otherwise)
{
    const struct graph_value *v = input(s, n, 0);
    int64_t axis = op_attr_int(n, "axis", otherwise);
    return v && axis != 0 && axis != -v->shape.rank && first_only(s, n);
}

static bool concat(struct graph_special *s, const struct op_node *n)
{
    int64_t axis = op_attr_int(n, "axis", 0);
    for (int i = 0; i < n->n_in; i++)
        if (!has(s, n, i, GRAPH_BATCH_FIRST) || axis == 0 || axis == -input(s, n, i)->shape.rank) return false;
    return true;
}

static bool other_axes(struct graph_special *s, const struct op_node *n)
{
    int64_t axes[TENSOR_MAX_RANK];
    struct op_info in[KERNEL_MAX_IN];
    struct graph_node node = {.op = *n};
    graph_node_infos(s->to, &node, in);
    if (!first_only(s, n)) return false;
    const struct graph_value *out = &s->to->values[n->out[0]];
    int rank = n->kind == OP_UNSQUEEZE ? out->shape.rank : in[0].shape.rank;
    if (n->kind != OP_UNSQUEEZE && n->kind != OP_SQUEEZE && !op_attr(n, "axes") && n->n_in < 2)
        return false; /* all of them */
    int count = op_axes(n, n->n_in > 1 ? &in[1] : NULL, rank, axes);
    if (count <= 0) return false;
    for (int i = 0; i < count; i++)
        if (axes[i] == 0) return false;
    return true;
}

static bool perm_keeps(struct graph_special *s, const struct op_node *n)
{
    const int64_t *perm;
    return op_attr_ints(n, "perm", &perm) > 0 && perm[0] == 0 && first_only(s, n);
}

static bool same_rows(const struct graph_special *s, const struct op_node *n)
{
    const struct graph_value *v = input(s, n, 0), *out = &s->to->values[n->out[0]];
    return v && v->shape.rank > 0 && out->shape.rank > 0 && v->shape.dims[0] == out->shape.dims[0];
}

/* Row-major order and an equal first size: each sample stays together. */
static bool whole_samples(struct graph_special *s, const struct op_node *n)
{
    return first_only(s, n) && same_rows(s, n);
}

/* To the batch itself, or to a list of rows of which each sample has as many as it had alone. */
static bool reshape(struct graph_special *s, const struct op_node *n)
{
    const struct graph_value *sizes = input(s, n, 1);
    int64_t first = 0;
    if (!first_only(s, n)) return false;
    if (leads(s, &s->to->values[n->out[0]])) return true;
    if (sizes && sizes->constant && sizes->dtype == TENSOR_I64 && sizes->constant_bytes >= 8) memcpy(&first, sizes->constant, sizeof first);
    return first == -1;
}

/* Rows of a table that every sample reads. */
static bool gather(struct graph_special *s, const struct op_node *n)
{
    if (has(s, n, 0, GRAPH_BATCH_DEPENDS)) return other_axis(s, n, 0);
    return op_attr_int(n, "axis", 0) == 0 && has(s, n, 1, GRAPH_BATCH_FIRST);
}

/* Slice and Pad may not touch the batch: only what is known is trusted. */
static bool slice(struct graph_special *s, const struct op_node *n)
{
    const struct graph_value *steps = input(s, n, 4);
    if (steps && (!steps->constant || steps->dtype != TENSOR_I64)) return false;
    for (int64_t i = 0; steps && i < tensor_count(&steps->shape); i++) {
        int64_t step;
        memcpy(&step, (const char *)steps->constant + i * 8, sizeof step);
        if (step < 0) return false;
    }
    return whole_samples(s, n);
}

static bool pad(struct graph_special *s, const struct op_node *n)
{
    const int64_t *p = NULL;
    int64_t first = -1;
    const struct graph_value *v = input(s, n, 1);
    if (v && v->constant && v->dtype == TENSOR_I64 && v->constant_bytes >= 8)
        memcpy(&first, v->constant, sizeof first);
    else if (!v && op_attr_ints(n, "pads", &p))
        first = p[0];
    return first == 0 && whole_samples(s, n) && n->n_in < 4;
}

static bool gemm(struct graph_special *s, const struct op_node *n)
{
    const struct graph_value *c = input(s, n, 2);
    return op_attr_int(n, "transA", 0) == 0 && first_only(s, n) && (!c || c->shape.rank < 2 || c->shape.dims[0] == 1);
}

static bool matmul(struct graph_special *s, const struct op_node *n)
{
    const struct graph_value *a = input(s, n, 0), *b = input(s, n, 1);
    if (!a || !b || !has(s, n, 0, GRAPH_BATCH_FIRST)) return false;
    if (has(s, n, 1, GRAPH_BATCH_DEPENDS))
        return has(s, n, 1, GRAPH_BATCH_FIRST) && a->shape.rank == b->shape.rank && a->shape.rank >= 3;
    return a->shape.rank >= 2 && (b->shape.rank <= 2 || (b->shape.rank == a->shape.rank && b->shape.dims[0] == 1));
}

static bool keeps_first(struct graph_special *s, const struct op_node *n)
{
    switch (n->kind) {
    case OP_ABS: case OP_ADD: case OP_AND: case OP_CAST: case OP_CEIL: case OP_CELU: case OP_CLIP: case OP_DIV:
    case OP_ELU: case OP_EQUAL: case OP_ERF: case OP_EXP: case OP_FLOOR: case OP_GELU: case OP_GREATER:
    case OP_GREATER_OR_EQUAL: case OP_HARD_SIGMOID: case OP_HARD_SWISH: case OP_IDENTITY: case OP_DROPOUT: case OP_DROPOUT_BY:
    case OP_LEAKY_RELU: case OP_LESS: case OP_LESS_OR_EQUAL: case OP_LOG: case OP_MAX: case OP_MEAN:
    case OP_MIN: case OP_MISH: case OP_MOD: case OP_MUL: case OP_NEG: case OP_NOT: case OP_OR: case OP_POW:
    case OP_PRELU: case OP_RECIPROCAL: case OP_RELU: case OP_ROUND: case OP_SELU: case OP_SIGMOID:
    case OP_SIGN: case OP_SILU: case OP_SIN: case OP_COS: case OP_SOFTPLUS: case OP_SOFTSIGN: case OP_SQRT:
    case OP_SUB: case OP_SUM: case OP_TANH: case OP_WHERE: case OP_XOR: case OP_EXPAND:
        return elementwise(s, n);
    case OP_CONV: case OP_CONV_TRANSPOSE: case OP_AVERAGE_POOL: case OP_MAX_POOL: case OP_GLOBAL_AVERAGE_POOL:
    case OP_GLOBAL_MAX_POOL: case OP_BATCH_NORM: case OP_INSTANCE_NORM: case OP_LRN: case OP_DEPTH_TO_SPACE:
    case OP_SPACE_TO_DEPTH: case OP_RESIZE: case OP_UPSAMPLE: case OP_TILE:
        return whole_samples(s, n);
    case OP_RESHAPE: return reshape(s, n);
    case OP_GATHER: return gather(s, n);
    case OP_SOFTMAX: case OP_LOG_SOFTMAX: return other_axis(s, n, n->opset < 13 ? 1 : -1);
    case OP_LP_NORM: case OP_TOPK: case OP_LAYER_NORM: return other_axis(s, n, -1);
    case OP_ARGMAX: case OP_ARGMIN: case OP_SPLIT: return other_axis(s, n, 0);
    case OP_FLATTEN: return op_attr_int(n, "axis", 1) == 1 && first_only(s, n);
    case OP_REDUCE_L1: case OP_REDUCE_L2: case OP_REDUCE_LOG_SUM: case OP_REDUCE_LOG_SUM_EXP: case OP_REDUCE_MAX:
    case OP_REDUCE_MEAN: case OP_REDUCE_MIN: case OP_REDUCE_PROD: case OP_REDUCE_SUM: case OP_REDUCE_SUM_SQUARE:
    case OP_SQUEEZE: case OP_UNSQUEEZE:
        return other_axes(s, n);
    case OP_CONCAT: return concat(s, n);
    case OP_TRANSPOSE: return perm_keeps(s, n);
    case OP_SLICE: return slice(s, n);
    case OP_PAD: return pad(s, n);
    case OP_GEMM: return gemm(s, n);
    case OP_MATMUL: return matmul(s, n);
    default: return false;
    }
}

void graph_batch_pass(struct graph_special *s, const struct graph_node *n)
{
    bool depends = false;
    for (int i = 0; i < n->op.n_in; i++) depends |= has(s, &n->op, i, GRAPH_BATCH_DEPENDS);
    bool first = depends && n->op.out[0] >= 0 && keeps_first(s, &n->op);
    for (int o = 0; o < n->op.n_out && depends; o++) {
        int v = n->op.out[o];
        if (v < 0 || s->to->values[v].constant) continue; /* a known size is known, whatever it came from */
        uint8_t *flag = graph_batch_flag(s, v);
        *flag = GRAPH_BATCH_DEPENDS;
        const struct tensor_shape *shape = &s->to->values[v].shape;
        if (first && shape->rank > 0 && shape->dims[0] > 0 && shape->dims[0] % s->batch == 0) *flag |= GRAPH_BATCH_FIRST;
    }
}

err graph_batch_check(struct graph_special *s)
{
    for (int i = 0; i < s->to->n_outputs; i++) {
        int v = s->to->outputs[i];
        uint8_t flag = *graph_batch_flag(s, v);
        if ((flag & GRAPH_BATCH_DEPENDS) && !((flag & GRAPH_BATCH_FIRST) && leads(s, &s->to->values[v])))
            return err_set(ERR_SHAPE,
                           "%s: the file is made for a batch of 1, and output '%s' would mix the samples of %lld: "
                           "run one at a time, or export the model with an open batch",
                           s->root->name, s->to->values[v].name, (long long)s->batch);
    }
    return ERR_OK;
}
