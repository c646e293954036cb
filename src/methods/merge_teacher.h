/* The original model as a teacher: runs it on the pictures of a batch and hands out what it computes inside.
 *
 * A merged network has its teacher's topology, so it can be taught layer by layer and without labels: what flows into each layer (a *hint*; Romero et al.
 * 2015, FitNets) and what the last ones give is compared with the teacher's, relative to its energy:
 *
 *     loss = labels CE(y, label) + soft T^2 KL(teacher / T, y / T) + hints mean over trusted hints of |s - t|^2 / |t|^2
 *
 * The first two terms only where output 0 is a list of classes. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/evaluate.h"
#include "train/net.h"

enum { MERGE_MAX_HINTS = 48, MERGE_INNER_HINTS = 12 }; /* what the last layers give, all of it; of what lies between, so many */

struct merge_teacher {
    /* set by the caller before train_net_new */
    const struct graph *source;   /* borrowed */
    bool classes;                 /* output 0 is a list of classes */
    double labels, soft, hints, temperature;
    /* made by merge_teacher_loss */
    int n_hints, n_last, label_target, soft_target, weight_target; /* numbers of targets; -1: none. The first n_last hints are what the last layers give */
    int hint_target[MERGE_MAX_HINTS];
    char *names[MERGE_MAX_HINTS]; /* of the values, in the teacher too */
    int hint_output[MERGE_MAX_HINTS];
    /* made by merge_teacher_open */
    struct mem_payer *payer;
    struct model *model;
    struct model_plan *plan;
    bool pinned;
};

/* For train_net_options.loss; context: the teacher. */
train_loss_fn merge_teacher_loss;
/* After train_net_new: the original, with the hints as outputs, for batches of `batch`. ERR_NOMEM. */
err merge_teacher_open(struct merge_teacher *t, struct mem_budget *budget, int batch, int threads);
void merge_teacher_close(struct merge_teacher *t);
/* Hints count only where the network can still compute what its original does: `foreign` says of each value of the source whether it is a weight that the
 * network shares with others whose filters are not its own. What comes after such a layer is in nobody's own terms, so only the last layers are compared
 * there (NULL: no weight is foreign). */
void merge_teacher_trust(const struct merge_teacher *t, const struct train_net *net, const bool *foreign);
/* Labels alone, for a net that wants nothing else. */
err merge_teacher_labels(const struct merge_teacher *t, const struct train_batch *b, const struct train_net *net);
/* Runs it on images (as train_fill_input takes them) and fills the net's targets. */
err merge_teacher_run(struct merge_teacher *t, const struct train_picture *picture, const struct train_batch *b, const struct train_net *net);
