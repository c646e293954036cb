/* Gradients as a rewrite: the nodes that compute d loss / d value are appended to the graph, so one plan, one arena and the same kernels do
 * a whole training step.
 *
 * `graph_backward` walks the nodes from the loss back (reverse accumulation: Griewank and Walther, Evaluating Derivatives, 2008, chapter 3).
 * Each operator has one rule, in the table of backward.c by kind; a rule is given the gradients of the node's outputs and *gives* one to
 * each input that wants it. What several readers give to one value is added. A value *wants* a gradient if it leads from one of `wrt` to
 * the loss: everything else, frozen layers first of all, costs no node and keeps no activation.
 *
 * A rule says its gradient with the operators that exist where that is exact and cheap; where it is not, with one of brim's own (ConvGradInput,
 * UnaryGrad ...; op/gradient.c says their shapes). Rules read the output of an activation rather than its input where they may, so that
 * the input's memory is free again.
 *
 * At points without a derivative (Relu at 0, the edges of Clip, ties of a maximum) the gradient is PyTorch's choice, said at each rule.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"

/* g: specialised, without fused post-ops (graph_rewrite with GRAPH_REWRITE_FUSE comes after, not before), float32 where it counts.
 * loss: a value of one float. ret_grads[i]: the value d loss / d wrt[i], of wrt[i]'s type and shape; -1 if the loss does not depend on it.
 * The new values are no outputs yet: graph_add_output. Nodes stay in execution order.
 * ERR_UNSUPPORTED names the operator and the node that has no gradient (only if one is wanted through it); the graph is then to be freed.
 * ERR_USAGE: the loss is not one float, post-ops, a value that does not exist. */
err graph_backward(struct graph *g, int loss, const int *wrt, int n_wrt, int *ret_grads);
/* The same with d (something) / d (values[i]) given from outside as seeds[i] (-1: none): of a vector-valued end, or several. */
err graph_backward_from(struct graph *g, const int *values, const int *seeds, int n, const int *wrt, int n_wrt, int *ret_grads);

/* Why an operator has no gradient, in words ("it gives whole numbers"); NULL: it has one. */
const char *graph_backward_why_not(enum op_kind kind);

/* Building blocks, also for losses (train): a *builder* appends nodes whose shapes are inferred at once. The first failure stays in `e`, and
 * what follows does nothing and returns -1, so that a loss reads like its formula. Values are numbers. */
struct graph_builder {
    struct graph *g;
    const char *name; /* of the nodes that are made: the name of the one they belong to */
    err e;
};
int graph_b1(struct graph_builder *b, enum op_kind kind, int x);
int graph_b2(struct graph_builder *b, enum op_kind kind, int x, int y);
int graph_b3(struct graph_builder *b, enum op_kind kind, int x, int y, int z);
/* The general case. A node is opened, given attributes (graph_set_*), and closed, which infers; the value is its first output. Between the two
 * the pointer stays valid only until the next node is made. */
struct graph_node *graph_b_open(struct graph_builder *b, enum op_kind kind, const int *in, int n_in, int n_out);
int graph_b_close(struct graph_builder *b, struct graph_node *n);
int graph_b_output(const struct graph_builder *b, int first, int i); /* output i of the node that made `first`; it was the last one made */

int graph_b_number(struct graph_builder *b, enum tensor_dtype dtype, double v); /* a constant of rank 0 */
int graph_b_ints(struct graph_builder *b, const int64_t *v, int n);             /* a constant list of int64 */
int graph_b_zeros(struct graph_builder *b, int like);                           /* of the same type and shape */
int graph_b_scale(struct graph_builder *b, int x, double by);                   /* x itself for 1 */
/* Sum, mean or another Reduce* over axes; n < 0: all, to one number. */
int graph_b_reduce(struct graph_builder *b, enum op_kind kind, int x, const int64_t *axes, int n, bool keep);
int graph_b_reshape(struct graph_builder *b, int x, const struct tensor_shape *shape); /* x itself if it is so */
int graph_b_transpose(struct graph_builder *b, int x, const int64_t *perm);
/* x summed to what was broadcast to it: the gradient of broadcasting. */
int graph_b_reduce_to(struct graph_builder *b, int x, const struct tensor_shape *shape);
int graph_b_expand(struct graph_builder *b, int x, const struct tensor_shape *shape);
const struct tensor_shape *graph_b_shape(const struct graph_builder *b, int x);

/* loss = mean over rows of -sum(target * log softmax(logits)): logits and target are [rows, classes] (or [N, C, d...]: the classes on axis 1),
 * target any distribution (one-hot, soft, smoothed by `smoothing`: (1 - s) target + s / classes). A scalar. */
int graph_b_cross_entropy(struct graph_builder *b, int logits, int target, double smoothing);
/* The same for labels as int64 [N] (or [N, d...]); rows whose label is `ignore` count nothing, also not in the mean.
 * A label outside 0 .. classes - 1 is an ERR_SHAPE when it runs. */
int graph_b_cross_entropy_labels(struct graph_builder *b, int logits, int labels, double smoothing, int64_t ignore);
