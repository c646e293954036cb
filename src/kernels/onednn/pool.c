/* Pooling: MaxPool and AveragePool with windows, the global ones, and a ReduceMean over exactly the spatial axes,
 * which is the global average under another name.
 *
 * Where ceil_mode lets the last window reach over the padding, oneDNN is told of a wider padding; for an average
 * that counts padding this would change the divisor (ONNX counts only padding that is there), so that case is left
 * to plain C. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/state.h"

struct plan {
    dnnl_alg_kind_t alg;
    struct op_window w;
    int64_t pad_end[6];
};

static bool is_global(enum op_kind k)
{
    return k == OP_GLOBAL_AVERAGE_POOL || k == OP_GLOBAL_MAX_POOL || k == OP_REDUCE_MEAN;
}

static bool reduces_all_space(const struct kernel_query *q)
{
    struct op_info axes = {0};
    int64_t list[TENSOR_MAX_RANK];
    unsigned seen = 0;
    int rank = q->in[0].shape.rank;
    if (q->n_in > 1) axes = (struct op_info){q->in[1].dtype, q->in[1].shape, q->in[1].data};
    int n = op_axes(q->node, &axes, rank, list);
    for (int i = 0; i < n; i++) seen |= 1u << list[i];
    return n == rank - 2 && seen == (1u << rank) - 4;
}

/* Windows that reach over the end need more padding than the node says; true if that is allowed. */
static bool stretch(const struct kernel_query *q, struct plan *p)
{
    for (int i = 0; i < p->w.n; i++) {
        int64_t cover = (p->w.kernel[i] - 1) * p->w.dilation[i] + 1;
        int64_t need = (p->w.out[i] - 1) * p->w.stride[i] + cover - p->w.in[i] - p->w.pad_begin[i];
        p->pad_end[i] = MAX(need, 0);
        if (need > p->w.pad_end[i] && p->alg == dnnl_pooling_avg_include_padding) return false;
        /* a window with nothing but padding under it has no maximum and no average */
        if (p->w.pad_begin[i] >= cover || p->pad_end[i] >= cover || p->w.pad_begin[i] < 0) return false;
    }
    (void)q;
    return true;
}

static bool plan_of(const struct kernel_query *q, struct plan *p)
{
    const struct op_node *n = q->node;
    *p = (struct plan){0};
    p->alg = n->kind == OP_MAX_POOL || n->kind == OP_GLOBAL_MAX_POOL ? dnnl_pooling_max
             : op_attr_int(n, "count_include_pad", 0)                ? dnnl_pooling_avg_include_padding
                                                                     : dnnl_pooling_avg_exclude_padding;
    if (!is_global(n->kind)) return !op_window(n, &q->in[0].shape, NULL, &p->w) && stretch(q, p);
    p->alg = n->kind == OP_GLOBAL_MAX_POOL ? dnnl_pooling_max : dnnl_pooling_avg_exclude_padding;
    p->w.n = q->in[0].shape.rank - 2;
    for (int i = 0; i < p->w.n; i++) {
        p->w.kernel[i] = p->w.in[i] = q->in[0].shape.dims[2 + i];
        p->w.stride[i] = p->w.dilation[i] = p->w.out[i] = 1;
    }
    return true;
}

static bool accepts(const struct kernel_query *q)
{
    enum op_kind k = q->node->kind;
    struct plan p;
    if (k != OP_MAX_POOL && k != OP_AVERAGE_POOL && !is_global(k)) return false;
    if (q->n_post || q->n_in < 1 || q->n_out < 1 || !onednn_takes_pair(q))
        return false;
    if (q->n_out > 1 && q->out[1].dtype != TENSOR_NONE) return false; /* MaxPool's indices */
    int rank = q->in[0].shape.rank;
    if (rank < 3 || rank > 5 || (k == OP_REDUCE_MEAN && !reduces_all_space(q))) return false;
    return plan_of(q, &p);
}

static err prepare(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    struct plan p;
    dnnl_pooling_v2_desc_t d2 = {0};
    dnnl_pooling_desc_t d1 = {0};
    struct tensor_shape y =
        q->in[0].shape; /* a ReduceMean may have dropped the axes of 1; the bytes are the same */
    if (!plan_of(q, &p)) return err_set(ERR_UNSUPPORTED, "oneDNN: pooling of this kind");
    if (!onednn_is_last(&q->in[0]) || !onednn_is_last(&q->out[0]))
        return err_set(ERR_UNSUPPORTED, "oneDNN: pooling wants channels-last");
    struct onednn_window w = onednn_window_of(&p.w);
    int64_t area = 1;
    bool dilated = false;
    for (int i = 0; i < p.w.n; i++) {
        y.dims[2 + i] = p.w.out[i];
        w.end[i] = p.pad_end[i];
        dilated |= w.dilation[i] > 0;
        area *= p.w.kernel[i];
    }
    dnnl_memory_desc_t src = onednn_last(&q->in[0].shape), dst = onednn_last(&y);
    src.data_type = dst.data_type = onednn_type(&q->in[0]);
    dnnl_status_t st = dilated ? dnnl_pooling_v2_forward_desc_init(&d2, dnnl_forward_inference, p.alg, &src, &dst,
                                                                   w.stride, w.kernel, w.dilation, w.begin, w.end)
                               : dnnl_pooling_forward_desc_init(&d1, dnnl_forward_inference, p.alg, &src, &dst,
                                                                w.stride, w.kernel, w.begin, w.end);
    err e = onednn_check(st, ERR_UNSUPPORTED, "pooling");
    if (e) return e;
    struct onednn_job j = {.spec = {.what = "pooling",
                                    .desc = dilated ? (void *)&d2 : (void *)&d1,
                                    .desc_bytes = dilated ? sizeof d2 : sizeof d1,
                                    .flops = area * tensor_count(&y)},
                           .ns = (double)(area * tensor_count(&y)) / 15};
    onednn_job_arg(&j, DNNL_ARG_SRC, 0);
    onednn_job_arg(&j, DNNL_ARG_DST, ONEDNN_FROM_OUT);
    return onednn_state_new(&j, q, payer, ret);
}

ONEDNN_CLASS(onednn_pool, "pool", accepts, onednn_layouts_last, prepare);
