/* Inside of graph_rewrite: what rules see and may do.
 *
 * Rewriting goes in rounds. At the start of a round it is written down who makes and who reads each value; a rule
 * looks at a node, may look at its neighbours, and *touches* every node it changes. A node that was touched is not
 * looked at again in that round, so what was written down stays true of all others. Rounds repeat until none fires,
 * at most GRAPH_MAX_ROUNDS times.
 *
 * A rule returns 1 (it fired), 0 (it does not apply) or an error; the graph is valid in all three cases.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"

enum { GRAPH_MAX_ROUNDS = 64 };

struct graph_rewriter {
    struct graph *g;
    size_t n_nodes, n_values; /* at the start of the round: later ones are untouchable */
    int *uses, *producer;     /* per value */
    int *first, *readers;     /* readers of value v: readers[first[v]] ... readers[first[v + 1]] */
    char *touched;            /* per node */
};
typedef int graph_rule_fn(struct graph_rewriter *r, int node);

/* May the node be looked at: alive, untouched, not made in this round? */
bool graph_rw_free(const struct graph_rewriter *r, int node);
/* The node that makes this value and may be looked at, or -1. */
int graph_rw_producer(const struct graph_rewriter *r, int value);
/* The same, if it is of this kind and `value` has one reader and is no output: then it may be changed with its
 * reader. */
int graph_rw_only(const struct graph_rewriter *r, int value, enum op_kind kind);
bool graph_rw_single(const struct graph_rewriter *r, int value);
void graph_rw_touch(struct graph_rewriter *r, int node);
/* Takes the node out; its output is `value` from now on. False (nothing done) if the output cannot go: it is the
 * graph's. */
bool graph_rw_bypass(struct graph_rewriter *r, int node, int value);
/* `by` makes what `dead` made; `dead` is gone. Both touched. */
void graph_rw_take_over(struct graph_rewriter *r, int by, int dead);
void graph_rw_set_input(struct graph_node *n, int i, int value);
void graph_rw_drop_attr(struct graph_node *n, const char *name);
/* A float32 constant's numbers, or NULL. */
const float *graph_rw_floats(const struct graph *g, int value, size_t *ret_n);
/* A float32 constant of one number (any rank)? */
bool graph_rw_scalar(const struct graph *g, int value, float *ret);
bool graph_rw_is_f32(const struct graph *g, int value);
/* A post-op with an input: behind the node's own inputs. */
void graph_rw_add_post(struct graph_node *n, enum kernel_post_kind kind, int value);
err graph_rw_add_floats(struct graph *g, const char *name, const struct tensor_shape *shape, int *ret_value,
                        float **ret);

/* The rules; each says its pattern and condition where it stands. */
graph_rule_fn graph_rule_norm_into_producer, graph_rule_affine_into_producer, graph_rule_affine_into_consumer,
    graph_rule_norm_alone, graph_rule_matmul_bias, graph_rule_constants_meet;         /* rewrite_fold.c */
graph_rule_fn graph_rule_pad_into_window, graph_rule_transposes, graph_rule_reshapes; /* rewrite_move.c */
graph_rule_fn graph_rule_silu, graph_rule_hard_swish, graph_rule_hard_sigmoid,
    graph_rule_clip;                                           /* rewrite_pattern.c */
graph_rule_fn graph_rule_gelu;                                     /* rewrite_gelu.c */
graph_rule_fn graph_rule_post_activation, graph_rule_post_add; /* rewrite_post.c */
