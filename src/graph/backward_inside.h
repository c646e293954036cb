/* Inside of graph_backward: what rules see and may do.
 *
 * A rule gets a node of the forward graph of which at least one output has a gradient, asks for that gradient (bw_grad), and gives one to each
 * input that wants it (bw_give). It appends nodes through the builder `b`, which remembers the first failure; a rule never changes what is there.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/backward.h"

struct graph_backward {
    struct graph_builder b;
    size_t n_values, n_nodes; /* of the forward graph */
    char *wants;              /* per value of the forward graph: leads from wrt, a float */
    int *grad;                /* per value: its gradient so far, or -1 */
};
/* `n` is a copy of the node's struct: its lists stay where they are while nodes are added. */
typedef void graph_gradient_fn(struct graph_backward *w, const struct graph_node *n);

/* Of output o; -1: nothing depends on it. */
int bw_grad(const struct graph_backward *w, const struct graph_node *n, int o);
bool bw_wants(const struct graph_backward *w, const struct graph_node *n, int i);
/* Adds `grad` to what input i has so far. Its shape must be the input's; -1 (after a failure) is ignored. */
void bw_give(struct graph_backward *w, const struct graph_node *n, int i, int grad);
/* The same, summed over what was broadcast. */
void bw_give_reduced(struct graph_backward *w, const struct graph_node *n, int i, int grad);
/* ERR_UNSUPPORTED "this case of OPERATOR has no gradient: WHY". */
void bw_cannot(struct graph_backward *w, const char *why);
static inline int bw_in(const struct graph_node *n, int i)
{
    return i < n->op.n_in ? n->op.in[i] : -1;
}
const struct tensor_shape *bw_shape(const struct graph_backward *w, int value);
enum tensor_dtype bw_dtype(const struct graph_backward *w, int value);
/* Copies the attribute of this name, if it is there. */
void bw_copy_attr(struct graph_node *to, const struct graph_node *from, const char *name);
/* Integers of a constant input or an attribute (as op_ints); -1: absent. */
int bw_ints(struct graph_backward *w, const struct graph_node *n, int i, const char *name, int64_t *ret);
int bw_axis(struct graph_backward *w, const struct graph_node *n, int64_t otherwise, int rank); /* the attribute `axis`, made positive */

graph_gradient_fn bw_unary, bw_clip, bw_neg, bw_flat, bw_add, bw_sub, bw_mul, bw_div, bw_pow, bw_extreme, bw_sum, bw_mean, bw_where, bw_prelu,
    bw_cast, bw_dropout, bw_dropout_by; /* backward_elementwise.c */
graph_gradient_fn bw_reduce_sum, bw_reduce_mean, bw_reduce_square, bw_reduce_l1, bw_reduce_l2, bw_reduce_log_sum, bw_reduce_log_sum_exp,
    bw_reduce_extreme, bw_global_average, bw_global_max, bw_softmax, bw_lp_norm, bw_cumsum; /* backward_reduce.c */
graph_gradient_fn bw_matmul, bw_gemm, bw_einsum;                                             /* backward_matmul.c */
graph_gradient_fn bw_identity, bw_reshape, bw_transpose, bw_expand, bw_tile, bw_concat, bw_split, bw_slice, bw_pad, bw_gather, bw_gather_elements,
    bw_gather_nd, bw_scatter_elements, bw_scatter_nd, bw_depth_to_space, bw_space_to_depth, bw_trilu, bw_resize, bw_topk; /* backward_move.c */
graph_gradient_fn bw_conv, bw_conv_transpose, bw_max_pool, bw_average_pool;                  /* backward_window.c */
graph_gradient_fn bw_batch_norm, bw_batch_norm_train, bw_instance_norm, bw_layer_norm, bw_lrn; /* backward_norm.c */
