/* Long operators of a training step run in parts of the batch, so that a job stops soon: between operators, and between the parts of one.
 *
 * A convolution and its gradient by the input give each picture's result alone, so parts lie side by side and nothing else changes; batch
 * norms are never split, their statistics are of the whole batch. The gradient by the weight is a sum over pictures: the parts' sums are added,
 * in order. How many parts depends on the operator and the batch alone, never on time, so the bits are the same everywhere: at most 2 GFLOP each,
 * which is about 20 ms on two cores. SPDX-License-Identifier: Apache-2.0 */
#include "model/parts.h"

#include <stdatomic.h>
#include <string.h>

static const int64_t MOST_FLOPS = 2000000000;
enum { MOST_INPUTS = KERNEL_MAX_POST + 3 };

/* 0: not of this kind. */
static int64_t conv_flops(const struct kernel_query *q)
{
    const struct tensor *weight, *result;
    switch (q->node->kind) {
    case OP_CONV: weight = &q->in[1], result = &q->out[0]; break;
    case OP_CONV_TRANSPOSE: weight = &q->in[1], result = &q->in[0]; break;
    case OP_CONV_GRAD_WEIGHT: weight = &q->out[0], result = &q->in[0]; break;
    default: return 0;
    }
    if (weight->shape.rank < 3 || weight->shape.dims[0] < 1) return 0;
    return 2 * (tensor_count(&weight->shape) / weight->shape.dims[0]) * tensor_count(&result->shape);
}

static bool over_batch(const struct kernel_query *q, int i)
{
    if (q->node->kind == OP_CONV_GRAD_WEIGHT) return i < 2;
    return i == 0 || i >= q->node->n_in; /* posts' inputs are as the output */
}

static bool has_batch(const struct tensor *t, int64_t n)
{
    return !t->data && t->shape.rank > 0 && t->shape.dims[0] == n && !t->shape.bounded;
}

int model_parts(const struct kernel_query *q, struct model_part_query *ret)
{
    int64_t flops = q->n_in >= 2 && q->n_in <= MOST_INPUTS && q->n_out >= 1 ? conv_flops(q) : 0, n = flops ? q->in[0].shape.dims[0] : 0;
    bool sums = q->node->kind == OP_CONV_GRAD_WEIGHT;
    if (flops <= MOST_FLOPS || n < 2 || (sums && (q->n_post || q->n_out > 2))) return 1;
    int64_t parts = (flops + MOST_FLOPS - 1) / MOST_FLOPS;
    while (parts < n && n % parts) parts++;
    parts = parts > n ? n : parts;
    ret->q = *q;
    memcpy(ret->in, q->in, (size_t)q->n_in * sizeof *ret->in);
    memcpy(ret->out, q->out, (size_t)q->n_out * sizeof *ret->out);
    ret->q.in = ret->in;
    ret->q.out = ret->out;
    for (int i = 0; i < q->n_in; i++) {
        if (!over_batch(q, i) || ret->in[i].dtype == TENSOR_NONE) continue;
        if (!has_batch(&ret->in[i], n)) return 1;
        ret->in[i].shape.dims[0] = n / parts;
    }
    for (int i = 0; i < q->n_out && !sums; i++) {
        if (ret->out[i].dtype == TENSOR_NONE) continue;
        if (!has_batch(&ret->out[i], n)) return 1;
        ret->out[i].shape.dims[0] = n / parts;
    }
    for (int i = 0; i < q->n_out && sums; i++)
        if (ret->out[i].dtype && (ret->out[i].dtype != TENSOR_F32 || !tensor_is_row_major(&ret->out[i]))) return 1;
    return (int)parts;
}

static size_t part_bytes(const struct tensor *t)
{
    return t->dtype ? (size_t)(t->strides[0] * t->shape.dims[0]) * tensor_dtype_size(t->dtype) : 0;
}

void model_parts_keep(const struct model_part_query *p, int parts, struct model_split *ret)
{
    *ret = (struct model_split){.parts = parts};
    for (int i = 0; i < p->q.n_in; i++) ret->in[i] = over_batch(&p->q, i) ? part_bytes(&p->in[i]) : 0;
    if (p->q.node->kind != OP_CONV_GRAD_WEIGHT) ret->out = part_bytes(&p->out[0]);
    else
        for (int i = 0; i < p->q.n_out; i++) ret->sum[i] = p->out[i].dtype ? (size_t)tensor_count(&p->out[i].shape) : 0;
}

static size_t round64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static size_t kernel_scratch(const struct model_step *s)
{
    return s->class->scratch_bytes ? s->class->scratch_bytes(s->state) : 0;
}

size_t model_parts_scratch(const struct model_step *s)
{
    size_t bytes = kernel_scratch(s);
    for (int i = 0; i < 2 && s->split.sum[0]; i++) bytes = round64(bytes) + s->split.sum[i] * sizeof(float);
    return bytes;
}

static void add(float *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] += from[i];
}

err model_parts_run(struct model_plan *p, struct model_step *s, const struct kernel_buffers *whole)
{
    const struct model_split *split = &s->split;
    struct kernel_buffers b = *whole;
    err e = ERR_OK;
    for (int k = 0; k < split->parts && !e; k++) {
        if (k && p->stop && atomic_load_explicit(p->stop, memory_order_relaxed)) return err_set(ERR_CANCELLED, "stopped");
        for (int i = 0; i < s->n_in; i++)
            if (split->in[i]) b.in[i] = (const char *)whole->in[i] + (size_t)k * split->in[i];
        if (split->out) b.out[0] = (char *)whole->out[0] + (size_t)k * split->out;
        size_t at = kernel_scratch(s);
        for (int i = 0; k && i < s->n_out && i < 2 && split->sum[0]; i++) {
            b.out[i] = (char *)p->scratch + round64(at);
            at = round64(at) + split->sum[i] * sizeof(float);
        }
        e = s->class->run(s->state, &b);
        for (int i = 0; !e && k && i < s->n_out && i < 2; i++)
            if (split->sum[i]) add(whole->out[i], b.out[i], split->sum[i]);
    }
    return e;
}
