/* Shape rules, inside the room: one function per family, found through the table in infer.c.
 *
 * A rule is called when op_infer has checked what all rules need: enough inputs, the required ones present,
 * every input's sizes known, >= 0, its bytes below 2^47, no strings. Sizes that are bounds reach only rules
 * whose row in the table says so. A rule fills out[0 .. n->n_out); the table says how many that can be.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "op/op.h"

enum { OP_MAX_OUT = 32 };

typedef err op_infer_fn(const struct op_node *n, const struct op_info *in, struct op_info *out);
typedef int64_t op_flops_fn(const struct op_node *n, const struct op_info *in, const struct op_info *out);

static inline bool op_present(const struct op_node *n, const struct op_info *in, int i)
{
    return i < n->n_in && in[i].dtype != TENSOR_NONE;
}

static inline bool op_bounded(const struct tensor_shape *s, int i)
{
    return s->bounded >> i & 1;
}

/* Appends a size. ERR_SHAPE beyond TENSOR_MAX_RANK or below 0. */
err op_push(struct tensor_shape *s, int64_t size, bool bounded);
/* Appends sizes [from, to) of another shape with their bounds. */
err op_push_range(struct tensor_shape *s, const struct tensor_shape *of, int from, int to);
/* a * b for sizes >= 0, ERR_SHAPE on overflow. */
err op_times(int64_t a, int64_t b, int64_t *ret);
/* Makes an axis positive; ERR_SHAPE unless it lies in [-rank, rank). */
err op_axis(int64_t axis, int rank, int *ret);
/* ERR_SHAPE unless input i has this rank (or at least it). */
err op_want_rank(const struct op_info *in, int i, int rank);
err op_want_rank_from(const struct op_info *in, int i, int least);
/* ERR_SHAPE unless inputs a and b have the same type. */
err op_want_same_type(const struct op_info *in, int a, int b);
/* ERR_SHAPE unless input i, where present, is [size]. */
err op_want_vector(const struct op_node *n, const struct op_info *in, int i, int64_t size);
/* One size out of two that must be equal, where either may be a bound. */
err op_agree(const struct tensor_shape *a, int i, const struct tensor_shape *b, int j, int64_t *ret,
             bool *ret_bounded);

/* Integers of a constant v (int32 or int64, one axis or none); i and `what` are its number and name in the
 * sentence. ERR_UNSUPPORTED if it is not constant, ERR_SHAPE if it is of another type or has more than `most`
 * numbers. */
err op_constant_ints(const struct op_info *v, int i, const char *what, int64_t *ret, int most, int *ret_n);
err op_constant_int(const struct op_info *v, int i, const char *what, int64_t *ret);
err op_constant_floats(const struct op_info *v, int i, const char *what, float *ret, int most, int *ret_n);
/* One number of any integer or float type that C has. */
err op_constant_number(const struct op_info *v, int i, const char *what, double *ret);
/* The same from the input where the opset has it there (i), else from the attribute of that name. *ret_n =
 * -1: absent. */
err op_ints(const struct op_node *n, const struct op_info *in, int i, const char *name, int64_t *ret,
            int most, int *ret_n);

/* Families: who owns which operators is said in the table. */
op_infer_fn op_rule_same, op_rule_broadcast, op_rule_compare, op_rule_test, op_rule_logic, op_rule_shift,
    op_rule_pow, op_rule_where, op_rule_prelu, op_rule_clip, op_rule_cast, op_rule_dropout, op_rule_quantize,
    op_rule_dequantize;
op_infer_fn op_rule_conv, op_rule_conv_transpose, op_rule_pool, op_rule_global_pool;
op_infer_fn op_rule_reduce, op_rule_arg, op_rule_along_axis, op_rule_cumsum;
op_infer_fn op_rule_matmul, op_rule_gemm, op_rule_einsum;
op_infer_fn op_rule_batch_norm, op_rule_instance_norm, op_rule_layer_norm, op_rule_lrn;
op_infer_fn op_rule_reshape, op_rule_flatten, op_rule_squeeze, op_rule_unsqueeze, op_rule_expand,
    op_rule_tile;
op_infer_fn op_rule_transpose, op_rule_concat, op_rule_split, op_rule_slice, op_rule_pad,
    op_rule_depth_to_space, op_rule_space_to_depth, op_rule_trilu;
op_infer_fn op_rule_gather, op_rule_gather_elements, op_rule_gather_nd, op_rule_scatter_elements,
    op_rule_scatter_nd, op_rule_one_hot;
op_infer_fn op_rule_resize, op_rule_upsample, op_rule_grid_sample;
op_infer_fn op_rule_constant, op_rule_constant_of_shape, op_rule_eye_like, op_rule_range, op_rule_shape,
    op_rule_size;
op_infer_fn op_rule_recurrent, op_rule_qlinear, op_rule_integer, op_rule_dynamic_quantize;
op_infer_fn op_rule_unary_grad, op_rule_softmax_grad, op_rule_conv_grad_weight, op_rule_max_pool_grad,
    op_rule_average_pool_grad, op_rule_batch_norm_train, op_rule_batch_norm_grad, op_rule_instance_norm_grad,
    op_rule_layer_norm_grad, op_rule_gather_grad, op_rule_slice_grad, op_rule_dropout_by;
op_infer_fn op_rule_bitwise, op_rule_bit_cast, op_rule_det, op_rule_tensor_scatter, op_rule_roi_align, op_rule_max_roi_pool,
    op_rule_deform_conv, op_rule_col2im, op_rule_max_unpool, op_rule_affine_grid, op_rule_dft, op_rule_stft, op_rule_mel;
op_infer_fn op_rule_unique, op_rule_non_zero, op_rule_nms, op_rule_topk, op_rule_subgraph;

/* flops.c */
op_flops_fn op_flops_none, op_flops_out, op_flops_in, op_flops_conv, op_flops_conv_transpose, op_flops_pool,
    op_flops_matmul, op_flops_gemm, op_flops_einsum, op_flops_softmax, op_flops_batch_norm, op_flops_norm,
    op_flops_lrn, op_flops_resize, op_flops_recurrent, op_flops_integer, op_flops_conv_grad_weight;

/* What an Einsum equation means: for each operand and the result, one letter number per axis (an axis behind
 * an ellipsis has a number too), and the size of each letter (1 where it is not used). */
enum { OP_EINSUM_MAX_IN = 8, OP_EINSUM_MAX_LETTERS = 52 + TENSOR_MAX_RANK };
struct op_einsum {
    int n_in, n_letters;
    int in_rank[OP_EINSUM_MAX_IN];
    int in[OP_EINSUM_MAX_IN][TENSOR_MAX_RANK];
    int out_rank, out[TENSOR_MAX_RANK];
    int64_t size[OP_EINSUM_MAX_LETTERS];
};
err op_einsum_parse(const struct op_node *n, const struct op_info *in, struct op_einsum *ret);
