/* A network in training: one graph of forward pass, loss and backward pass, planned like any other, and the flat arrays around it.
 *
 *     train_net_new      the user's graph -> training form (graph/training.h) -> loss appended (the caller's) -> graph_backward -> one plan
 *     train_net_input    a view to fill with a batch; train_net_target: a buffer for what the loss compares with
 *     train_net_run      loss and gradients; nothing that lasts is changed, so a run that failed or was stopped can be done again
 *     train_net_update   running statistics and parameters take their step
 *
 * Parameters, gradients and the optimiser's numbers are flat arrays of f32 (MEM_TRAINING); parameters are inputs of the plan and gradients its outputs,
 * outside the arena. Same numbers in, same thread count: same bits out. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/backward.h"
#include "graph/recompute.h"
#include "graph/training.h"
#include "model/training.h"
#include "train/optimise.h"

/* Appends a loss to the training form `t`: adds its targets as inputs (graph_add_input on b->g), and gives the value of one float. */
typedef err train_loss_fn(struct graph_builder *b, const struct graph_training *t, void *context, int *ret_loss);

/* Bytes against time: what all would need at a level of recomputation, and what that costs. */
typedef void train_trade_fn(void *user, int level, const struct graph_recompute_cost *cost, uint64_t need);

struct train_net_options {
    struct mem_budget *budget;               /* the job's own: it is refused if it does not hold all, and nothing else may be charged meanwhile */
    uint64_t beside;                         /* bytes that the job needs beside the network (data), for the refusal's sentence */
    const struct tensor_shape *input_shapes; /* one per input of the source; NULL: those of the file */
    int threads;                             /* 0: all. The bits depend on it */
    bool only_ref;
    bool (*choose)(void *context, const char *name, bool usual); /* NULL: all usual parameters are trained */
    void *choose_context;
    bool frozen_statistics;
    double dropout;                          /* the ratio of every Dropout; 0: its own; below 0: none drops */
    uint64_t seed;                           /* of what is dropped: a function of it, the number of the update and of the run in it */
    train_loss_fn *loss;
    void *loss_context;
    const char *rival;                       /* parameters whose names begin so follow a loss of their own, ... */
    const int *rival_loss;                   /* ... the value that stands here after `loss` was called; both take their step in each update. NULL: none */
    struct train_optimiser_options optimiser;
    int accumulate;                          /* runs per update; 0: 1 */
    enum kernel_precision precision;         /* 0: f32. BF16: products round what they multiply; masters, sums, everything else f32, and so it all is where the machine has none. AUTO: the same */
    int recompute;                           /* activations computed again (graph/recompute.h): 0: as many as make it fit; -1: none; else this level */
    train_trade_fn *trade;                   /* NULL, or called for levels from none to all, each of which needs less than those before, before one is chosen: plans are made */
    void *trade_user;
};

struct train_net;
/* The source is borrowed: its constants are the first parameters. ERR_NOMEM: the sentence says the smallest budget that would do. */
err train_net_new(const struct graph *source, const struct train_net_options *o, struct train_net **ret);
void train_net_free(struct train_net **n);

struct tensor train_net_input(const struct train_net *n, int i);  /* the source's; may be channels-last */
struct tensor train_net_output(const struct train_net *n, int i); /* the source's, after a run */
struct tensor train_net_target(const struct train_net *n, int i); /* in the order in which the loss added them; row-major; stays until overwritten */

/* ERR_CANCELLED once *stop is set (see train_net_set_stop). ERR_CORRUPT: loss or gradients are not finite; the sentence names the operation; nothing is
 * changed. Gradients of `accumulate` runs are added up. */
err train_net_run(struct train_net *n, float *ret_loss);
/* A run in two halves for losses whose targets depend on the outputs: after the first the outputs can be read, then targets are filled. */
err train_net_run_forward(struct train_net *n);
err train_net_run_rest(struct train_net *n, float *ret_loss);
void train_net_set_stop(struct train_net *n, const atomic_bool *stop);
/* One step of the optimiser on the mean of the runs since the last; ret_norm (may be NULL): of the gradients before clipping. */
void train_net_update(struct train_net *n, double lr, double *ret_norm);

/* Drops runs since the last update, and what they did to running statistics: before a checkpoint in the middle of an accumulation. */
void train_net_rewind(struct train_net *n);

/* ---- what lasts */

/* What a checkpoint holds: sections point into the net. Reading into the same sections restores it, with train_net_set_steps. */
struct train_section;
int train_net_sections(struct train_net *n, struct train_section *ret /* room for 6 */);
int64_t train_net_steps(const struct train_net *n);
void train_net_set_steps(struct train_net *n, int64_t steps);
/* Puts the numbers (of the running mean if there is one and `mean`) into a graph read from the same file as the source. */
err train_net_store(const struct train_net *n, struct graph *g, bool mean);

/* What the flat arrays hold: tensor i < train_net_tensors(). Only those that train_net_store would put. */
struct train_net_tensor {
    const char *name;
    int source_value;        /* a constant of the source */
    bool state;              /* a running statistic: the running mean of the parameters has none */
    int64_t at, count;       /* floats in "parameters" */
};
int train_net_tensors(const struct train_net *n);
bool train_net_tensor(const struct train_net *n, int i, struct train_net_tensor *ret); /* false: it is not trained */

struct train_net_sizes {
    int64_t parameters;      /* trained numbers */
    int tensors;             /* trained tensors */
    uint64_t fixed;          /* bytes of parameters, gradients, optimiser, targets */
    uint64_t need;           /* bytes of everything, as it was held against the budget */
    struct model_sizes plan;
    int level;               /* of recomputation, and what that costs */
    struct graph_recompute_cost again;
    int dropouts;            /* places where something is dropped */
};
struct train_net_sizes train_net_sizes(const struct train_net *n);
struct model_plan *train_net_plan(const struct train_net *n);
float *train_net_gradients(const struct train_net *n); /* flat, laid out as "parameters"; may be changed before train_net_update */
/* Where parameter `name` lies in the flat arrays; NULL if there is none. */
const float *train_net_parameter(const struct train_net *n, const char *name, int64_t *ret_count);
