/* Activations that are computed again instead of being kept for the backward pass: memory against time, as a rewrite of a training graph.
 *
 * The forward part is cut into *segments* at places where few values go across. For a segment there are two ways to keep less: `cheap` drops the
 * outputs of normalisations, activations and other work over memory that lie between kept outputs of convolutions and products, also where many read them; `whole` keeps
 * only what enters the segment (Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016). What is dropped is computed again, by a copy of
 * its nodes, right before the first node of the backward part that reads it; each node is copied once at most.
 *
 * The moves are sorted by bytes saved per time added, so *level* n, the first n of them, is the cheapest way to save about that much. Behind them
 * come levels with longer segments, all whole. Which level a job needs is tried with plans (train/net.c), whose bytes are exact.
 *
 * Results do not change by a bit: a copy runs the same kernel on the same numbers, what was not fused because two read it stays apart, and nodes with graphs of their own, or sizes that follow data, are
 * never copied. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"

struct graph_recompute_cost {
    int levels;           /* 0: nothing can be dropped */
    int nodes;            /* copied at this level */
    uint64_t saved;       /* bytes of activations that are not kept; the plan saves less, as what is computed again has to lie somewhere */
    int64_t flops;        /* added */
    double share;         /* of the time of the whole graph, by a guess */
};

/* g: after graph_backward, before post-operations are fused. last_forward: the value that the backward part begins with (the loss). Level 0 changes nothing and
 * says how many there are. ERR_USAGE: a level that is not there. */
err graph_recompute(struct graph *g, int last_forward, int level, struct graph_recompute_cost *ret);
