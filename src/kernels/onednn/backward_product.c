/* Products none of whose operands is constant: Gemm with any transpositions; and in bf16 MatMul, of stacks of matrices in any strides, too.
 *
 * With `half` the factors are rounded to bf16 on their way in, through scratch, which brings them into order at the same time. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/backward.h"

#include <string.h>

/* bf16 pays where there is so much to multiply per number that is rounded; stacks would often be copied into order otherwise. */
enum { FLOPS_PER_NUMBER = 150, LEAST_OF_STACKS = 100 };

/* ---- Gemm */

static bool accepts_product(const struct kernel_query *q)
{
    const struct op_node *n = q->node;
    if (n->kind != OP_GEMM || q->n_in < 2 || q->n_out != 1 || !onednn_takes_tensors(q) || !onednn_posts_known(q) || onednn_scales(q)) return false;
    if (q->in[0].shape.rank != 2 || q->in[1].shape.rank != 2 || op_attr_float(n, "alpha", 1) != 1) return false;
    if (!onednn_present(q, 2)) return true;
    const struct tensor_shape *s = &q->in[2].shape;
    int64_t columns = q->out[0].shape.dims[1];
    bool row = (s->rank == 1 && s->dims[0] == columns) || (s->rank == 2 && s->dims[0] == 1 && s->dims[1] == columns);
    return row && op_attr_float(n, "beta", 1) == 1;
}

/* A matrix, or its transposed, without moving it. */
static dnnl_memory_desc_t matrix(const struct tensor_shape *s, bool transposed)
{
    int64_t dims[] = {s->dims[transposed ? 1 : 0], s->dims[transposed ? 0 : 1]}, strides[] = {transposed ? 1 : s->dims[1], transposed ? s->dims[1] : 1};
    return onednn_strided(2, dims, strides);
}

static err prepare_product_as(const struct kernel_query *q, bool half, struct mem_payer *payer, struct kernel_state **ret)
{
    for (int i = 0; i < 2; i++)
        if (!tensor_is_row_major(&q->in[i])) return err_set(ERR_UNSUPPORTED, "oneDNN: Gemm wants row-major");
    if (!tensor_is_row_major(&q->out[0])) return err_set(ERR_UNSUPPORTED, "oneDNN: Gemm wants row-major");
    bool ta = op_attr_int(q->node, "transA", 0) != 0, tb = op_attr_int(q->node, "transB", 0) != 0, biased = onednn_present(q, 2);
    dnnl_memory_desc_t a = matrix(&q->in[0].shape, ta), b = matrix(&q->in[1].shape, tb), y = matrix(&q->out[0].shape, false), bias;
    int64_t columns = q->out[0].shape.dims[1], inner = q->in[0].shape.dims[ta ? 0 : 1];
    bias = onednn_rows(&(struct tensor_shape){2, {1, columns}, 0});
    dnnl_memory_desc_t a_lies = a, b_lies = b;
    if (half) a.data_type = b.data_type = dnnl_bf16;
    dnnl_matmul_desc_t d;
    memset(&d, 0, sizeof d);
    err e = onednn_check(dnnl_matmul_desc_init(&d, &a, &b, biased ? &bias : NULL, &y), ERR_UNSUPPORTED, "product in training");
    if (e) return e;
    struct onednn_chain_job j = {
        .spec = {.what = "product in training", .desc = &d, .desc_bytes = sizeof d, .dst = &y, .flops = 2 * inner * tensor_count(&q->out[0].shape)}};
    onednn_chain_arg(&j, DNNL_ARG_SRC, false, 0, &a_lies);
    onednn_chain_arg(&j, DNNL_ARG_WEIGHTS, false, 1, &b_lies);
    if (biased) onednn_chain_arg(&j, DNNL_ARG_BIAS, false, 2, NULL);
    onednn_chain_arg(&j, DNNL_ARG_DST, true, 0, NULL);
    return onednn_chain_new(&j, q, payer, ret);
}

static err prepare_product(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    int64_t a = tensor_count(&q->in[0].shape), b = tensor_count(&q->in[1].shape), y = tensor_count(&q->out[0].shape);
    int64_t inner = y ? a / MAX(q->out[0].shape.dims[0], 1) : 0;
    bool half = q->half && 2 * inner * y >= FLOPS_PER_NUMBER * (a + b);
    err e = half ? prepare_product_as(q, true, payer, ret) : ERR_UNSUPPORTED;
    return e == ERR_UNSUPPORTED ? prepare_product_as(q, false, payer, ret) : e;
}

/* ---- MatMul */

static int64_t inner_of(const struct kernel_query *q)
{
    return q->in[0].shape.dims[q->in[0].shape.rank - 1];
}

static bool accepts_matmul(const struct kernel_query *q)
{
    if (q->node->kind != OP_MATMUL || !q->half || q->n_in != 2 || q->n_out != 1 || q->n_post || !onednn_takes_tensors(q) || q->in[0].data || q->in[1].data) return false;
    int rank = q->out[0].shape.rank;
    if (rank < 2 || rank > 5 || q->in[0].shape.rank != rank || q->in[1].shape.rank != rank) return false;
    for (int i = 0; i < rank - 2; i++)
        if (q->in[0].shape.dims[i] != q->out[0].shape.dims[i] || q->in[1].shape.dims[i] != q->out[0].shape.dims[i]) return false;
    int64_t numbers = tensor_count(&q->in[0].shape) + tensor_count(&q->in[1].shape);
    return 2 * inner_of(q) * tensor_count(&q->out[0].shape) >= LEAST_OF_STACKS * numbers;
}

static void layouts_matmul(const struct kernel_query *q, struct kernel_layouts *ret)
{
    for (int i = 0; i < q->n_in; i++) ret->in[i] = KERNEL_LAYOUT_ANY;
    ret->out[0] = KERNEL_LAYOUT_ROW_MAJOR;
}

static err prepare_matmul(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    const struct tensor *a = &q->in[0], *b = &q->in[1];
    if (!tensor_is_row_major(&q->out[0])) return err_set(ERR_UNSUPPORTED, "oneDNN: MatMul gives row-major");
    dnnl_memory_desc_t wants[] = {onednn_rows(&a->shape), onednn_rows(&b->shape)}, y = onednn_rows(&q->out[0].shape);
    dnnl_memory_desc_t lies[] = {onednn_strided(a->shape.rank, a->shape.dims, a->strides), onednn_strided(b->shape.rank, b->shape.dims, b->strides)};
    wants[0].data_type = wants[1].data_type = dnnl_bf16;
    dnnl_matmul_desc_t d;
    memset(&d, 0, sizeof d);
    err e = onednn_check(dnnl_matmul_desc_init(&d, &wants[0], &wants[1], NULL, &y), ERR_UNSUPPORTED, "MatMul in training");
    if (e) return e;
    struct onednn_chain_job j = {
        .spec = {.what = "MatMul in training", .desc = &d, .desc_bytes = sizeof d, .dst = &y, .flops = 2 * inner_of(q) * tensor_count(&q->out[0].shape)}};
    onednn_chain_arg(&j, DNNL_ARG_SRC, false, 0, &lies[0]);
    onednn_chain_arg(&j, DNNL_ARG_WEIGHTS, false, 1, &lies[1]);
    onednn_chain_arg(&j, DNNL_ARG_DST, true, 0, NULL);
    return onednn_chain_new(&j, q, payer, ret);
}

ONEDNN_CHAIN_CLASS(onednn_train_product, "train_product", accepts_product, onednn_layouts_rows, prepare_product);
ONEDNN_CHAIN_CLASS(onednn_train_matmul, "train_matmul", accepts_matmul, layouts_matmul, prepare_matmul);
