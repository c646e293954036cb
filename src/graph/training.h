/* From a graph as it is used to a graph as it is trained, and back.
 *
 * The training form is specialised (all shapes known, constants folded) with three differences. Chosen initialisers are graph *inputs* of
 * the same name: parameters. BatchNormalization takes the batch's own statistics (BatchNormTrain); its running ones are inputs too (state), and their
 * new numbers outputs. A Dropout drops, by one more input, the draw (DropoutBy in op/gradient.c): three int64, the seed, the number of the update and of the run in it.
 *
 * The caller appends a loss (backward.h has the builder), then graph_backward over the parameters, makes the gradients outputs, and plans the
 * whole. The way back writes numbers into the constants of the graph the user has, so what is exported is his file with new numbers.
 *
 * Which initialisers are parameters: float32, read as a weight or bias of Conv, ConvTranspose, Gemm, MatMul, of a normalisation, as PRelu's
 * slope or Gather's table; and by Add, Sub, Mul, Div if they are called like one (... weight, bias, gamma, beta, scale, embed...): a detector's
 * decoder has grids and strides as constants of Mul and Add, which must stay. `choose` overrules all of that.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"

enum graph_parameter_role {
    GRAPH_PARAMETER_WEIGHT = 1, /* weight decay applies: two axes or more */
    GRAPH_PARAMETER_VECTOR,     /* biases, scales of normalisations: no decay */
    GRAPH_PARAMETER_STATE,      /* running mean or variance: no gradient; `update` is the new number */
};
struct graph_parameter {
    const char *name;                /* the initialiser's; borrowed from the training graph */
    enum graph_parameter_role role;
    int value;                       /* in the training graph: an input */
    int source_value;                /* in the graph that it was made from: a constant */
    int update;                      /* STATE: the output value that holds the next one; else -1 */
    int64_t count;                   /* floats */
    const float *initial;            /* borrowed from the source */
};
struct graph_training {
    struct graph *g;
    int n_params;                    /* weights and vectors first, in the source's order; then the states */
    int n_trained;                   /* how many of them are no states */
    struct graph_parameter *params;
    int n_inputs;                    /* the source's inputs are g->inputs[0 .. n_inputs), parameters and states follow, then the draw */
    int n_outputs;                   /* the source's outputs are g->outputs[0 .. n_outputs), then the updates of states */
    int n_dropouts, draw;            /* DropoutBy nodes; the input that they read, -1: there are none */
};
struct graph_training_options {
    const struct tensor_shape *input_shapes; /* as for graph_specialise; NULL: those of the file */
    /* May the initialiser be trained? `usual` is what the rule above says. NULL: as usual. What stays frozen is a constant. */
    bool (*choose)(void *context, const char *name, bool usual);
    void *context;
    bool frozen_statistics; /* BatchNormalization stays as in inference (its scale and bias are trained all the same) */
    double dropout;         /* the ratio of every Dropout; 0: its own; below 0: none drops */
    bool keep_patterns;     /* do not turn x * sigmoid(x) into Silu, and the like, first */
};
/* The source must outlive it (its constants are borrowed). ERR_USAGE: nothing to train. */
err graph_training_form(const struct graph *source, const struct graph_training_options *o, struct mem_payer *payer,
                        struct graph_training **ret);
void graph_training_free(struct graph_training **t);

/* Images between the operators of a specialised, rewritten training graph (with its gradients) become bf16 where all that touch them have kernels for either type. */
void graph_training_to_bf16(struct graph *g);

/* A file that was exported while training (PyTorch's TrainingMode.TRAINING) as one for inference, in place: BatchNormalization takes its running
 * statistics, Dropout hands its input on. This is where training starts, and what it writes. ERR_UNSUPPORTED: somebody reads a batch's statistics. */
err graph_inference_form(struct graph *g);

/* Puts numbers (row-major) into a constant of a graph that nobody else borrows from (no graph was specialised from it, or all are freed):
 * the graph owns the copy, the payer pays. ERR_SHAPE if the count is another. */
err graph_set_constant(struct graph *g, int value, const float *numbers, int64_t count);
