/* Gemm and MatMul.
 *
 * With a constant right-hand side both are oneDNN's inner product: [M, K] x W, where W is packed once into what
 * oneDNN likes; the leading axes of a MatMul's left side fold into M. With two activations (attention) it is
 * oneDNN's matmul, row-major, batch axes broadcast. alpha and beta other than 1 and a transposed A are left to
 * plain C: no exporter of the models seen writes them for anything large. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/state.h"

/* The bias of a Gemm is what broadcasts to [M, N]; ours is one row of N. */
static bool is_row(const struct tensor_shape *s, int64_t n)
{
    return (s->rank == 1 && s->dims[0] == n) || (s->rank == 2 && s->dims[0] == 1 && s->dims[1] == n);
}

static bool accepts_linear(const struct kernel_query *q)
{
    const struct op_node *n = q->node;
    if ((n->kind != OP_GEMM && n->kind != OP_MATMUL) || !onednn_takes_mixed(q) || onednn_own_inputs(q) < 2)
        return false;
    const struct tensor_shape *a = &q->in[0].shape, *b = &q->in[1].shape, *y = &q->out[0].shape;
    if (!q->in[1].data || b->rank != 2 || a->rank < 2 || y->rank != a->rank) return false;
    if (n->kind == OP_MATMUL) return true;
    if (op_attr_int(n, "transA", 0) || op_attr_float(n, "alpha", 1) != 1) return false;
    return !onednn_present(q, 2) || (is_row(&q->in[2].shape, y->dims[1]) && op_attr_float(n, "beta", 1) == 1);
}

static void layouts_linear(const struct kernel_query *q, struct kernel_layouts *ret)
{
    onednn_layouts_rows(q, ret);
    ret->in[1] = KERNEL_LAYOUT_PACKED;
}

/* One row times W as a 1x1 convolution of one pixel: as fast, and a sum is never split over the threads, which the inner product does when K is
 * large: so the bits do not depend on the number of threads, nor on W being cut along N (graph/slice.c). */
static err prepare_row(const struct kernel_query *q, int64_t k, int64_t n, bool transposed, struct mem_payer *payer, struct kernel_state **ret)
{
    for (int i = 0; i < q->n_post; i++)
        if (q->post[i].kind == KERNEL_POST_ADD) return err_set(ERR_UNSUPPORTED, "oneDNN: its other input is no picture");
    dnnl_memory_desc_t src = onednn_last(&(struct tensor_shape){4, {1, k, 1, 1}, 0}), dst = onednn_last(&(struct tensor_shape){4, {1, n, 1, 1}, 0});
    dnnl_memory_desc_t weight = onednn_any(4, (int64_t[]){n, k, 1, 1}), bias = onednn_flat(n);
    dnnl_memory_desc_t plain =
        onednn_strided(4, (int64_t[]){n, k, 1, 1}, transposed ? (int64_t[]){k, 1, 1, 1} : (int64_t[]){1, n, 1, 1});
    src.data_type = weight.data_type = onednn_type(&q->in[0]);
    dst.data_type = onednn_type(&q->out[0]);
    bool has_bias = onednn_present(q, 2);
    const dnnl_dims_t one = {1, 1}, zero = {0, 0};
    dnnl_convolution_desc_t d = {0};
    err e = onednn_check(dnnl_dilated_convolution_forward_desc_init(&d, dnnl_forward_inference, dnnl_convolution_direct, &src, &weight,
                                                                    has_bias ? &bias : NULL, &dst, one, zero, zero, zero),
                         ERR_UNSUPPORTED, "row as convolution");
    if (e) return e;
    struct onednn_job j = {
        .spec = {.what = "row", .desc = &d, .desc_bytes = sizeof d, .dst = &dst, .window = true, .flops = 2 * n * k},
        .ns = (double)(n * k) / 30 + (double)(n * k) / 5};
    onednn_job_arg(&j, DNNL_ARG_SRC, 0);
    onednn_job_arg(&j, DNNL_ARG_DST, ONEDNN_FROM_OUT);
    if (has_bias) onednn_job_arg(&j, DNNL_ARG_BIAS, 2);
    onednn_job_pack(&j, DNNL_ARG_WEIGHTS, 1, &plain);
    return onednn_state_scaling(&j, q, payer, ret);
}

static err prepare_linear(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    const struct tensor_shape *a = &q->in[0].shape, *b = &q->in[1].shape;
    bool transposed = q->node->kind == OP_GEMM && op_attr_int(q->node, "transB", 0);
    int64_t k = a->dims[a->rank - 1], m = tensor_count(a) / k, n = b->dims[transposed ? 0 : 1];
    if (!tensor_is_row_major(&q->in[0]) || !tensor_is_row_major(&q->out[0]))
        return err_set(ERR_UNSUPPORTED, "oneDNN: a product of matrices wants them row-major");
    if (m == 1) {
        err row = prepare_row(q, k, n, transposed, payer, ret);
        if (row != ERR_UNSUPPORTED) return row;
    }
    dnnl_memory_desc_t src = onednn_rows(&(struct tensor_shape){2, {m, k}, 0});
    dnnl_memory_desc_t dst = onednn_rows(&(struct tensor_shape){2, {m, n}, 0});
    dnnl_memory_desc_t weight = onednn_any(2, (int64_t[]){n, k}), bias = onednn_flat(n);
    dnnl_memory_desc_t plain =
        onednn_strided(2, (int64_t[]){n, k}, transposed ? (int64_t[]){k, 1} : (int64_t[]){1, n});
    src.data_type = weight.data_type = onednn_type(&q->in[0]);
    dst.data_type = onednn_type(&q->out[0]);
    bool has_bias = onednn_present(q, 2);
    dnnl_inner_product_desc_t d = {0};
    err e = onednn_check(dnnl_inner_product_forward_desc_init(&d, dnnl_forward_inference, &src, &weight,
                                                              has_bias ? &bias : NULL, &dst),
                         ERR_UNSUPPORTED, "inner product");
    if (e) return e;
    struct onednn_job j = {
        .spec = {.what = "inner product", .desc = &d, .desc_bytes = sizeof d, .dst = &dst, .flops = 2 * m * n * k},
        .ns = (double)(m * n * k) / 30 + (double)(n * k) / 5};
    onednn_job_arg(&j, DNNL_ARG_SRC, 0);
    onednn_job_arg(&j, DNNL_ARG_DST, ONEDNN_FROM_OUT);
    if (has_bias) onednn_job_arg(&j, DNNL_ARG_BIAS, 2);
    onednn_job_pack(&j, DNNL_ARG_WEIGHTS, 1, &plain);
    return onednn_state_scaling(&j, q, payer, ret);
}

static bool accepts_matmul(const struct kernel_query *q)
{
    if (q->node->kind != OP_MATMUL || !onednn_takes_all(q) || onednn_own_inputs(q) != 2) return false;
    return q->in[0].shape.rank >= 2 && q->in[1].shape.rank >= 2;
}

/* The shape with leading ones, so that it has `rank` axes. */
static struct tensor_shape lengthen(const struct tensor_shape *s, int rank)
{
    struct tensor_shape r = {.rank = rank};
    for (int i = 0; i < rank; i++) r.dims[i] = i < rank - s->rank ? 1 : s->dims[i - (rank - s->rank)];
    return r;
}

static err prepare_matmul(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    int rank = q->out[0].shape.rank;
    for (int i = 0; i < 2; i++)
        if (!tensor_is_row_major(&q->in[i])) return err_set(ERR_UNSUPPORTED, "oneDNN: matmul wants row-major");
    if (!tensor_is_row_major(&q->out[0])) return err_set(ERR_UNSUPPORTED, "oneDNN: matmul wants row-major");
    struct tensor_shape a = lengthen(&q->in[0].shape, rank), b = lengthen(&q->in[1].shape, rank);
    dnnl_memory_desc_t src = onednn_rows(&a), weight = onednn_rows(&b), dst = onednn_rows(&q->out[0].shape);
    dnnl_matmul_desc_t d = {0};
    err e = onednn_check(dnnl_matmul_desc_init(&d, &src, &weight, NULL, &dst), ERR_UNSUPPORTED, "matmul");
    if (e) return e;
    struct onednn_job j = {.spec = {.what = "matmul",
                                    .desc = &d,
                                    .desc_bytes = sizeof d,
                                    .dst = &dst,
                                    .flops = 2 * a.dims[rank - 1] * tensor_count(&q->out[0].shape)}};
    onednn_job_arg(&j, DNNL_ARG_SRC, 0);
    onednn_job_arg(&j, DNNL_ARG_WEIGHTS, 1);
    onednn_job_arg(&j, DNNL_ARG_DST, ONEDNN_FROM_OUT);
    return onednn_state_new(&j, q, payer, ret);
}

ONEDNN_CLASS(onednn_linear, "linear", accepts_linear, layouts_linear, prepare_linear);
ONEDNN_CLASS(onednn_matmul, "matmul", accepts_matmul, onednn_layouts_rows, prepare_matmul);
