/* Optimisers over flat arrays: one array of all parameters, one of all gradients, cut into slices (one per tensor).
 *
 *     SGD    g += decay p;  m = momentum m + g (the first step: m = g);  p -= lr (g + momentum m with Nesterov, else m)      as torch.optim.SGD
 *     AdamW  p -= lr decay p;  m, v: running means of g and g g;  p -= lr m^ / (sqrt(v^) + eps)          Loshchilov and Hutter 2019; as torch.optim.AdamW
 *     LAMB   r = m^ / (sqrt(v^) + eps) + decay p;  p -= lr r |p| / |r|, norms per slice (1 if either is 0)        You et al. 2020, algorithm 2
 *
 * `relative` is for networks whose batch norms were folded into convolutions before they were exported. Their rows differ in length a thousandfold (a first layer
 * that reads pixels of 0 to 255 has numbers of 0.003, a depthwise one of 20), the gradient grows as the row shrinks, and one learning rate is nothing to one layer and
 * the end of another. With w = s v, s the row's first length: AdamW's step is s times as long, SGD's s^2, clipping measures s g. It is what a batch norm before
 * folding does, without its statistics.
 *
 * Decay and trust ratios are per slice (biases and norms do not decay). Sums over slices are made in double in one order, on one thread, so equal
 * inputs give equal bits on every machine. Nothing here allocates but train_optimiser_new. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"

enum train_rule { TRAIN_SGD = 1, TRAIN_ADAMW, TRAIN_LAMB };

struct train_optimiser_options {
    enum train_rule rule;      /* 0: SGD */
    float momentum;            /* SGD */
    bool nesterov;
    float beta1, beta2, eps;   /* AdamW, LAMB; 0: 0.9, 0.999, 1e-8 (LAMB: 1e-6) */
    float weight_decay;
    float clip;                /* largest norm of all gradients together; 0: none */
    bool relative;             /* SGD, AdamW: as if each row of a slice were its first length times a vector of length 1, and that vector were trained */
    float ema;                 /* decay of the running mean of the parameters, 0: none; in the first steps min(ema, (1 + n) / (10 + n)) */
};
struct train_slice {
    size_t at, count;          /* floats */
    bool decay;
    size_t rows;               /* equal parts, as output channels; 0: it has none (biases), its steps are never relative */
};
struct train_optimiser {
    struct train_optimiser_options o;
    int n_slices;
    struct train_slice *slices;
    size_t count;              /* of the flat arrays, gaps included (what lies in gaps must be 0) */
    int64_t steps;             /* done */
    float **gains;             /* [n_slices][rows]: those lengths, of the parameters that train_optimiser_begin was given; NULL: not `relative` */
    float *m, *v, *ema;        /* NULL: the rule has none. Saved and restored with `steps` (checkpoint.h) */
    struct mem_payer *payer;   /* borrowed; MEM_TRAINING */
};

/* ERR_USAGE: a number out of range. The slices are copied; they ascend and do not overlap. */
err train_optimiser_new(const struct train_optimiser_options *o, const struct train_slice *slices, int n, size_t count, struct mem_payer *payer,
                        struct train_optimiser **ret);
void train_optimiser_free(struct train_optimiser **op);
/* Bytes that train_optimiser_new asks for, slices aside. */
size_t train_optimiser_bytes(const struct train_optimiser_options *o, size_t count);
/* Starts the running mean, and measures the rows, at the parameters as they are: after they were first set. A job that goes on begins with the same. */
void train_optimiser_begin(struct train_optimiser *op, const float *params);
/* One step. `grads` is scaled in place where clipping asks for it. */
void train_optimiser_step(struct train_optimiser *op, float *params, float *grads, double lr);

/* sqrt of the sum of squares, in double. Not finite if any number is not. */
double train_norm(const float *x, size_t n);

/* ---- the learning rate */

enum train_schedule_kind { TRAIN_CONSTANT = 1, TRAIN_COSINE, TRAIN_STEP };
struct train_schedule {
    enum train_schedule_kind kind; /* 0: constant */
    double lr, last;               /* COSINE: ends at lr * last */
    int64_t warmup, total;         /* steps; the warm-up rises in a line from lr / warmup, and is part of total */
    int64_t every;                 /* STEP: lr * gamma after each so many steps, counted from 0; or ... */
    double gamma;
    int n_at;                      /* ... after these */
    int64_t at[8];
};
/* Of step number `step`, from 0. */
double train_schedule_at(const struct train_schedule *s, int64_t step);
