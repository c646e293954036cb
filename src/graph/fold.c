/* Constant folding: nodes whose inputs are all constant are computed now, by plain C, and Shape and Size of known
 * shapes are known.
 *
 * What is worth it: the result may be at most 64 KiB larger than the constants it was made from (a ConstantOfShape
 * of 200 MB stays a node), and the whole of folding may cost 16 operations per byte of the graph's constants plus
 * 16 Mi. The second rule makes the time of reading proportional to the file: a hostile one of a kilobyte cannot buy
 * an hour. What is over stays a node and is computed at run time; only shapes cannot wait, and op_infer says so.
 *
 * Invariant: a folded value's bytes are row-major and owned by the new graph. SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "graph/specialise.h"

enum { WORTH = 64 << 10 };

static size_t bytes_of(enum tensor_dtype dtype, const struct tensor_shape *s)
{
    return (size_t)tensor_count(s) * tensor_dtype_size(dtype);
}

/* Shape (with start and end since opset 15) and Size. */
static size_t known_sizes(const struct op_node *n, const struct tensor_shape *s, int64_t *ret)
{
    if (n->kind == OP_SIZE) {
        ret[0] = tensor_count(s);
        return 1;
    }
    int64_t from = op_attr_int(n, "start", 0), to = op_attr_int(n, "end", s->rank);
    if (from < 0) from = MAX(from + s->rank, 0);
    if (to < 0) to += s->rank;
    to = MIN(to, (int64_t)s->rank);
    size_t count = 0;
    for (int64_t i = from; i < to; i++) ret[count++] = s->dims[i];
    return count;
}

static err own(struct graph *g, int value, size_t bytes)
{
    struct graph_value *v = &g->values[value];
    err e = mem_alloc(g->payer, MEM_OTHER, bytes, &v->owned);
    if (e) return e;
    v->constant = v->owned;
    v->constant_bytes = bytes;
    return ERR_OK;
}

static err fold_shape(struct graph_special *s, const struct graph_node *n, const struct op_info *in, bool *ret)
{
    int64_t sizes[TENSOR_MAX_RANK];
    struct graph_value *v = &s->to->values[n->op.out[0]];
    if (in[0].shape.bounded) return ERR_OK;
    size_t count = known_sizes(&n->op, &in[0].shape, sizes);
    if (count * sizeof *sizes != bytes_of(v->dtype, &v->shape)) return ERR_OK;
    err e = own(s->to, n->op.out[0], count * sizeof *sizes);
    if (e) return e;
    if (count) memcpy(v->owned, sizes, count * sizeof *sizes);
    *ret = true;
    return ERR_OK;
}

static bool worth(struct graph_special *s, const struct graph_node *n, const struct op_info *in,
                  const struct op_info *out)
{
    size_t in_bytes = 0, out_bytes = 0;
    for (int i = 0; i < n->op.n_in; i++) {
        if (n->op.in[i] < 0) continue;
        if (!in[i].constant) return false;
        in_bytes += bytes_of(in[i].dtype, &in[i].shape);
    }
    for (int o = 0; o < n->op.n_out; o++)
        if (n->op.out[o] >= 0) out_bytes += bytes_of(out[o].dtype, &out[o].shape);
    if (out_bytes > in_bytes + WORTH) return false;
    int64_t cost = op_flops(&n->op, in, out);
    int64_t most = s->work_left;
    if (cost < 0 || cost > most || (int64_t)in_bytes > most - cost ||
        (int64_t)out_bytes > most - cost - (int64_t)in_bytes)
        return false;
    s->work_left -= cost + (int64_t)in_bytes + (int64_t)out_bytes + 64;
    return true;
}

/* Rows of `t` to `dst`, densely: what was written for the largest shape has that shape's strides. */
static void pack_rows(const struct tensor *t, char *dst)
{
    size_t size = tensor_dtype_size(t->dtype);
    int64_t index[TENSOR_MAX_RANK] = {0}, count = tensor_count(&t->shape);
    for (int64_t i = 0; i < count; i++, dst += size) {
        int64_t at = 0;
        for (int d = 0; d < t->shape.rank; d++) at += index[d] * t->strides[d];
        memcpy(dst, (const char *)t->data + (size_t)at * size, size);
        for (int d = t->shape.rank - 1; d >= 0 && ++index[d] == t->shape.dims[d]; d--) index[d] = 0;
    }
}

/* A result whose size was only bounded gets a block of its true size. */
static err trim(struct graph *g, int value, const struct tensor *t)
{
    struct graph_value *v = &g->values[value];
    size_t bytes = bytes_of(t->dtype, &t->shape), old = v->constant_bytes;
    if (bytes < old) {
        void *p = NULL;
        err e = mem_alloc(g->payer, MEM_OTHER, bytes, &p);
        if (e) return e;
        pack_rows(t, p);
        mem_free(g->payer, MEM_OTHER, v->owned, old);
        v->constant = v->owned = p;
        v->constant_bytes = bytes;
    }
    v->shape = t->shape;
    v->shape.bounded = 0;
    return ERR_OK;
}

static void disown(struct graph *g, const struct graph_node *n)
{
    for (int o = 0; o < n->op.n_out; o++) {
        struct graph_value *v = n->op.out[o] < 0 ? NULL : &g->values[n->op.out[o]];
        if (!v || !v->owned) continue;
        mem_free(g->payer, MEM_OTHER, v->owned, v->constant_bytes);
        v->owned = NULL;
        v->constant = NULL;
        v->constant_bytes = 0;
    }
}

/* All its numbers come from constants that other models have as well (shapes and axes beside them do not count). */
static bool all_shared(const struct graph *g, const struct graph_node *n)
{
    int shared = 0;
    for (int i = 0; i < n->op.n_in; i++) {
        const struct graph_value *v = n->op.in[i] >= 0 ? &g->values[n->op.in[i]] : NULL;
        if (v && !v->shared && tensor_dtype_is_float(v->dtype)) return false;
        shared += v && v->shared;
    }
    return shared > 0;
}

err graph_fold(struct graph_special *s, const struct graph_node *n, const struct op_info *in,
               const struct op_info *out, bool *ret)
{
    struct graph *g = s->to;
    struct tensor ti[KERNEL_MAX_IN], to[KERNEL_MAX_OUT];
    if ((n->op.kind == OP_SHAPE || n->op.kind == OP_SIZE) && n->op.n_in == 1) return fold_shape(s, n, in, ret);
    if (!worth(s, n, in, out)) return ERR_OK;
    err e = ERR_OK;
    for (int i = 0; i < n->op.n_in; i++) {
        ti[i] = (struct tensor){0};
        if (n->op.in[i] >= 0) ti[i] = tensor_view(in[i].dtype, &in[i].shape, in[i].constant);
    }
    for (int o = 0; o < n->op.n_out && !e; o++) {
        to[o] = (struct tensor){0};
        if (n->op.out[o] < 0) continue;
        e = own(g, n->op.out[o], bytes_of(out[o].dtype, &out[o].shape));
        to[o] = tensor_view(out[o].dtype, &out[o].shape, g->values[n->op.out[o]].owned);
        g->values[n->op.out[o]].shared = all_shared(g, n);
    }
    if (!e) e = kernels_ref_run(&n->op, ti, n->op.n_in, to, n->op.n_out);
    for (int o = 0; o < n->op.n_out && !e; o++)
        if (n->op.out[o] >= 0) e = trim(g, n->op.out[o], &to[o]);
    if (e) {
        disown(g, n);
        return e == ERR_UNSUPPORTED ? ERR_OK : e; /* plain C does not know it: leave it to whoever runs it */
    }
    *ret = true;
    return ERR_OK;
}
