/* One member of a merge: the network as it was, the network in training, its pictures, its teacher, its measure.
 *
 *     merge_member_open    reads the model and its data, and measures the original
 *     merge_member_begin   the training step is planned; from now on weights can change
 *     merge_member_step    a batch: gradients into `grads`; the joint trainer makes them common and calls merge_member_update
 *     merge_member_score   the measure of the weights as they are; merge_member_write: as ONNX
 *
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "methods/merge_score.h"
#include "methods/merge_source.h"
#include "methods/merge_teacher.h"

struct merge_member_options {
    struct mem_budget *budget;
    int batch, threads;
    uint64_t seed;
    double held_out;              /* 0: 0.2 */
    int64_t most_val;             /* pictures to score with, at most; 0: 1000 */
    double weight_decay;
    int size;                     /* of the pictures it is trained and measured with; 0: the model's own */
    const atomic_bool *stop;      /* NULL, or ends runs between two operators with ERR_CANCELLED */
    bool only_labels;             /* no teacher where there are labels (GEMEL's own loss) */
};

struct merge_member {
    char *name, *onnx;
    struct merge_member_options o;
    struct mem_payer *payer;
    struct graph *source;
    struct train_picture picture;
    struct train_feed feed;
    struct train_set *set, *val_set;   /* val_set: set itself, or its own */
    int64_t *train, *held, n_train, n_held;
    struct merge_score score;
    struct task_card card;             /* the source's, for pictures of this size */
    struct merge_teacher teacher;
    bool labels;
    int unfolded;                      /* batch norms that merge_unfold put back */
    double original, target, chance;   /* scores; target: what it must reach */
    double error, best_error;          /* standard errors of the last score, and of the best state's; below 0: not known */
    struct train_net *net;
    struct train_data *data;
    float *values, *grads;             /* the net's flat arrays */
    int64_t n_values;                  /* floats; states included */
    int64_t steps;                     /* batches of an epoch */
    int64_t batches;                   /* drawn so far */
};
/* `target`: share of the original's score. ERR_USAGE: no data, or a model that scores no better than chance. */
err merge_member_open(const struct merge_source *s, const struct merge_member_options *o, double target, struct merge_member **ret);
void merge_member_free(struct merge_member **m);
/* `most`: bytes that its training step may add to what the budget holds by now; what of the activations does not fit is computed again (UINT64_MAX: nothing). */
err merge_member_begin(struct merge_member *m, uint64_t most);
err merge_member_step(struct merge_member *m, float *ret_loss);
/* The same without a step to follow: only running statistics change. */
err merge_member_settle(struct merge_member *m, float *ret_loss);
void merge_member_update(struct merge_member *m, double lr);
/* The optimiser forgets: before another configuration. */
void merge_member_forget(struct merge_member *m);
err merge_member_score(struct merge_member *m, double *ret);
/* The user's graph with these numbers (laid out as `values`; NULL: as they are); graph_free. */
err merge_member_graph(struct merge_member *m, const float *values, struct graph **ret);
/* The original's numbers into an array laid out as `values`. */
void merge_member_original(const struct merge_member *m, float *values);
/* Where the weight that is constant `value` of the source lies in the flat arrays: first float, and how many. False: it is not trained. */
bool merge_member_place(const struct merge_member *m, int value, int64_t *ret_at, int64_t *ret_count);
/* The same, and running statistics as well. */
bool merge_member_numbers(const struct merge_member *m, int value, int64_t *ret_at, int64_t *ret_count);
