/* Moving numbers: copies between strides (OP_COPY), Transpose, and Cast between f32 and bf16. (Concat was tried and taken out: plain C is 1.4
 * to 2.2 times as fast as oneDNN's "simple:any".)
 *
 * A copy is one reorder between two strided views of the same shape. Axes of size 1 are dropped and axes that chain
 * in both views are joined first: fewer axes make oneDNN's generated code simpler, and more shapes share it. A view
 * with zero strides (a broadcast) is left to plain C. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "kernels/onednn/state.h"

struct copy {
    dnnl_memory_desc_t from, to;
};

static dnnl_status_t make_copy(const void *desc, const_dnnl_primitive_attr_t attr, dnnl_engine_t engine,
                               dnnl_primitive_desc_t *ret)
{
    const struct copy *c = desc;
    return dnnl_reorder_primitive_desc_create(ret, &c->from, engine, &c->to, engine, attr);
}

/* The input's strides in the order of the output's axes. */
static bool source_strides(const struct kernel_query *q, int64_t *ret)
{
    int rank = q->in[0].shape.rank;
    const int64_t *perm = NULL;
    size_t n = q->node->kind == OP_TRANSPOSE ? op_attr_ints(q->node, "perm", &perm) : 0;
    if (n && n != (size_t)rank) return false;
    for (int i = 0; i < rank; i++) {
        int64_t from = n ? perm[i] : q->node->kind == OP_TRANSPOSE ? rank - 1 - i : i;
        if (from < 0 || from >= rank || q->in[0].shape.dims[from] != q->out[0].shape.dims[i]) return false;
        ret[i] = q->in[0].strides[from];
    }
    return true;
}

static bool accepts_copy(const struct kernel_query *q)
{
    int64_t strides[TENSOR_MAX_RANK];
    if (q->node->kind != OP_COPY && q->node->kind != OP_TRANSPOSE && q->node->kind != OP_CAST) return false;
    if (q->n_post || q->n_in != 1 || q->n_out != 1 || !onednn_takes_half(&q->in[0]) || !onednn_takes_half(&q->out[0])) return false;
    if ((q->node->kind == OP_CAST) == (q->in[0].dtype == q->out[0].dtype)) return false;
    int rank = q->in[0].shape.rank;
    return rank >= 1 && rank == q->out[0].shape.rank && source_strides(q, strides);
}

static void layouts_copy(const struct kernel_query *q, struct kernel_layouts *ret)
{
    ret->in[0] = KERNEL_LAYOUT_ANY;
    ret->out[0] = q->node->kind == OP_TRANSPOSE ? KERNEL_LAYOUT_ROW_MAJOR : KERNEL_LAYOUT_ANY;
}

static err prepare_copy(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    const struct tensor *y = &q->out[0];
    int64_t from[TENSOR_MAX_RANK], dims[TENSOR_MAX_RANK] = {1}, a[TENSOR_MAX_RANK] = {1}, b[TENSOR_MAX_RANK] = {1};
    int n = 0;
    if (!source_strides(q, from)) return err_set(ERR_UNSUPPORTED, "oneDNN: a copy between different shapes");
    for (int i = 0; i < y->shape.rank; i++) {
        int64_t d = y->shape.dims[i];
        if (d == 1) continue;
        if (!from[i] || !y->strides[i]) return err_set(ERR_UNSUPPORTED, "oneDNN: a copy with zero strides");
        if (n && a[n - 1] == from[i] * d && b[n - 1] == y->strides[i] * d) { /* chains with the axis before */
            dims[n - 1] *= d;
            a[n - 1] = from[i];
            b[n - 1] = y->strides[i];
            continue;
        }
        dims[n] = d;
        a[n] = from[i];
        b[n++] = y->strides[i];
    }
    struct copy c;
    memset(&c, 0, sizeof c);
    c.from = onednn_strided(MAX(n, 1), dims, a);
    c.to = onednn_strided(MAX(n, 1), dims, b);
    c.from.data_type = onednn_type(&q->in[0]);
    c.to.data_type = onednn_type(&q->out[0]);
    if (!c.from.ndims || !c.to.ndims)
        return err_set(ERR_UNSUPPORTED, "oneDNN: a copy between views that overlap themselves");
    struct onednn_job j = {
        .spec = {.what = "copy", .desc = &c, .desc_bytes = sizeof c, .make = make_copy, .flops = ONEDNN_NO_REF},
        .ns = 0.8 * (double)tensor_count(&y->shape)};
    onednn_job_arg(&j, DNNL_ARG_FROM, 0);
    onednn_job_arg(&j, DNNL_ARG_TO, ONEDNN_FROM_OUT);
    return onednn_state_new(&j, q, payer, ret);
}

ONEDNN_CLASS(onednn_copy, "copy", accepts_copy, layouts_copy, prepare_copy);
