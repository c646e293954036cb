/* Inside of graph_specialise: what specialise.c, fold.c and batch.c share. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"

enum { GRAPH_BATCH_DEPENDS = 1, GRAPH_BATCH_FIRST = 2 }; /* bits of graph_special.batch */

/* Dropout in a training form: what is asked, and what was made. */
struct graph_dropout {
    double ratio; /* of every Dropout; 0: its own */
    int count;    /* DropoutBy nodes */
    int draw;     /* the input that they read, if there are any */
};

struct graph_special {
    const struct graph *root;
    struct graph *to;
    int64_t *symbols;   /* sizes, -1: not known */
    int64_t batch;      /* what the caller asks for where the file says 1; 0: nothing asked */
    size_t cap_flags;
    uint8_t *flags;     /* per value of `to` */
    int64_t work_left;  /* what folding may still cost */
    const char *as_input; /* per value of `root`: this constant becomes an input; NULL: none does */
    struct graph_dropout *dropout; /* NULL: Dropout hands its input on */
};
uint8_t *graph_batch_flag(struct graph_special *s, int value);
/* Makes constants of a Reshape or Resize follow the batch. Before op_infer. `n` is in s->to and its inputs are set.
 */
err graph_batch_follow(struct graph_special *s, struct graph_node *n);
/* What the outputs of `n` are with regard to the batch. After op_infer. */
void graph_batch_pass(struct graph_special *s, const struct graph_node *n);
/* ERR_SHAPE if an output mixes samples. */
err graph_batch_check(struct graph_special *s);

/* graph_specialise, but constants of `g` with as_input[value] != 0 become inputs, in their order, behind g's own; then, unless `dropout` is NULL, each
 * Dropout that drops anything becomes a DropoutBy, and their draw the last input. */
err graph_specialise_with(const struct graph *g, const struct tensor_shape *input_shapes, const char *as_input,
                          struct graph_dropout *dropout, struct mem_payer *payer, struct graph **ret);

/* ---- dropout.c */

/* How much the Dropout `n` drops; `given`: its input 1 in s->to, -1: it has none. */
err graph_dropout_ratio(const struct graph_special *s, const struct op_node *n, int given, double *ret);
/* Appends a DropoutBy that reads value x of s->to. */
err graph_dropout_add(struct graph_special *s, const char *name, int x, double ratio, struct graph_node **ret);

/* legacy.c: makes a node of opsets 1 to 6 mean the same in ours. `node` is a number in s->to. */
err graph_legacy(struct graph_special *s, size_t node);

/* loose.c: does this node have to wait for its run? `e` is what op_infer said. */
bool graph_is_loose(const struct graph_special *s, const struct graph_node *n, const struct op_info *in, err e);
/* Makes `n` a loose node. take_outer: the number in s->to of a value of the graph that `n` is from. */
err graph_make_loose(struct graph_special *s, const struct graph *from, const struct graph_node *old, struct graph_node *n, int *map,
                     int (*take_outer)(struct graph_special *s, const struct graph *from, int *map, int v));

/* Computes the outputs of `n` if they are constant and worth it: *ret says whether. */
err graph_fold(struct graph_special *s, const struct graph_node *n, const struct op_info *in,
               const struct op_info *out, bool *ret);
