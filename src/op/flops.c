/* How much arithmetic one run of an operator is: multiplications and additions, each counted as one; a
 * function (exp, sqrt) and a comparison count as one too. Sizes were checked by op_infer, but products of
 * them may still overflow: then INT64_MAX. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <string.h>

static int64_t times(int64_t a, int64_t b)
{
    int64_t r;
    return __builtin_mul_overflow(a, b, &r) ? INT64_MAX : r;
}

static int64_t count(const struct op_info *v)
{
    int64_t n;
    return tensor_shape_count(&v->shape, &n) ? 0 : n;
}

int64_t op_flops_none(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    (void)n;
    (void)in;
    (void)out;
    return 0;
}

/* One per element and further input: Add, Relu, Max of three. */
int64_t op_flops_out(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    (void)in;
    return times(count(&out[0]), MAX(n->n_in - 1, 1));
}

/* One per element that goes in: reductions. */
int64_t op_flops_in(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    (void)n;
    (void)out;
    return count(&in[0]);
}

/* 2 * out * (weights of one filter), and one addition for the bias */
int64_t op_flops_conv(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    int64_t filters = in[1].shape.dims[0], each = filters ? count(&in[1]) / filters : 0;
    return times(count(&out[0]), 2 * each + (n->n_in > 2 && in[2].dtype != TENSOR_NONE));
}

/* Every input element meets the weights of its channel. */
int64_t op_flops_conv_transpose(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    int64_t channels = in[1].shape.dims[0], each = channels ? count(&in[1]) / channels : 0;
    int64_t bias = n->n_in > 2 && in[2].dtype != TENSOR_NONE ? count(&out[0]) : 0,
            all = times(count(&in[0]), 2 * each);
    return __builtin_add_overflow(all, bias, &all) ? INT64_MAX : all;
}

/* As the convolution itself: 2 * dy * (weights of one filter). */
int64_t op_flops_conv_grad_weight(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    (void)n;
    int64_t filters = out[0].shape.dims[0], each = filters ? count(&out[0]) / filters : 0;
    return times(count(&in[0]), 2 * each);
}

int64_t op_flops_pool(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    struct op_window w;
    int64_t each = 1;
    if (op_window(n, &in[0].shape, NULL, &w)) return 0;
    for (int i = 0; i < w.n; i++) each = times(each, w.kernel[i]);
    return times(count(&out[0]), each);
}

int64_t op_flops_matmul(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    (void)n;
    return times(count(&out[0]), times(2, in[0].shape.dims[in[0].shape.rank - 1]));
}

int64_t op_flops_gemm(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    int64_t inner = in[0].shape.dims[op_attr_int(n, "transA", 0) ? 0 : 1];
    return times(count(&out[0]), times(2, inner) + (n->n_in > 2 && in[2].dtype != TENSOR_NONE));
}

/* One multiplication chain and one addition for each combination of letters. */
int64_t op_flops_einsum(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    struct op_einsum q;
    int64_t all = n->n_in;
    (void)out;
    if (op_einsum_parse(n, in, &q)) return 0;
    for (int l = 0; l < q.n_letters; l++) all = times(all, q.size[l]);
    return all;
}

/* maximum, minus, exp, sum, divided by */
int64_t op_flops_softmax(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    (void)n;
    (void)out;
    return times(count(&in[0]), 5);
}

/* scale and shift; the rest is per channel */
int64_t op_flops_batch_norm(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    (void)n;
    (void)out;
    return times(count(&in[0]), 2);
}

/* sum, minus mean, square, sum, scale, shift */
int64_t op_flops_norm(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    (void)n;
    (void)out;
    return times(count(&in[0]), 6);
}

int64_t op_flops_lrn(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    (void)out;
    return times(count(&in[0]), times(2, MAX(op_attr_int(n, "size", 1), 1)));
}

/* Every step of every sequence meets all of W and R. */
int64_t op_flops_recurrent(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    (void)n;
    (void)out;
    int64_t each = times(2, count(&in[1]) + count(&in[2]));
    return times(times(in[0].shape.dims[0], in[0].shape.dims[1]), each);
}

/* As the float operators of the same names. */
int64_t op_flops_integer(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    if (n->kind == OP_MATMUL_INTEGER || n->kind == OP_QLINEAR_MATMUL) return op_flops_matmul(n, in, out);
    const struct op_info *w = &in[n->kind == OP_QLINEAR_CONV ? 3 : 1];
    int64_t filters = w->shape.dims[0];
    return times(count(&out[0]), 2 * (filters ? count(w) / filters : 0));
}

/* Nearest moves elements; linear weighs 2 neighbours along each axis that changes, cubic 4. */
int64_t op_flops_resize(const struct op_node *n, const struct op_info *in, const struct op_info *out)
{
    const char *mode = op_attr_string(n, "mode", n->kind == OP_GRID_SAMPLE ? "linear" : "nearest");
    int64_t each = strcmp(mode, "nearest") == 0 ? 0 : 2, taps = strstr(mode, "cubic") ? 4 : 2;
    for (int i = 0; each && i < in[0].shape.rank; i++)
        if (n->kind == OP_GRID_SAMPLE ? i >= 2 : in[0].shape.dims[i] != out[0].shape.dims[i]) each *= taps;
    return times(count(&out[0]), each);
}
