/* Joint retraining: several networks, one weight for each slot they share.
 *
 * Each member keeps a training step of its own (train/net.h) with all of its weights; a configuration changes no plan. After every member ran a batch, the
 * gradients of a shared weight are added up with the losses' weights, w = min((target / score)^0.75, 10) (GEMEL, section 5.2), every user takes the same
 * step, and the copies are made equal bit by bit. Batch normalisation and biases stay each member's own.
 *
 * The *best state* (a configuration and all members' weights) is whole at any moment: it changes only to one that saves more bytes and in which
 * every sharing member met its target when it was measured with exactly those weights; who is not in it has its original weights. A firm trial may also replace it by
 * one of the same configuration that lies farther above the targets: the first state that is good enough was a lucky measurement. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "methods/merge_member.h"
#include "methods/merge_policy.h"

struct merge_joint;
struct merge_joint_options {
    double lr;               /* 0: 0.001, or 0.003 where more than half of the shared bytes are of filters that had nothing in common */
    bool share_norm;         /* batch norms behind a shared weight are shared, too (merge_norm.h) */
    const atomic_bool *stop; /* NULL, or ends a trial with ERR_CANCELLED */
    /* After each measurement; `changed`: the best state did. An error ends the trial. NULL: nobody looks. */
    err (*look)(void *user, const struct merge_joint *j, bool changed);
    void *user;
};
/* Members are begun here (merge_member_begin), and borrowed. */
err merge_joint_new(struct merge_member **members, const struct merge_problem *p, const struct merge_joint_options *o, struct merge_joint **ret);
void merge_joint_free(struct merge_joint **j);
#define MERGE_JOINT_FIRM 0.5 /* the slack at which a firm trial ends */
/* The outcome points into the joint; valid until the next run. `look` is not told of changes in a firm trial. */
err merge_joint_run(struct merge_joint *j, const struct merge_trial *t, struct merge_outcome *ret);

bool merge_joint_foreign(const struct merge_joint *j, int slot); /* before any training its members' filters had nothing in common */
const struct merge_config *merge_joint_best(const struct merge_joint *j);
const double *merge_joint_scores(const struct merge_joint *j);      /* [member]: last measured in training */
const double *merge_joint_best_scores(const struct merge_joint *j); /* of the best state */
double merge_joint_slack(const struct merge_joint *j);              /* of the best state: least part of original - target that a sharing member lies above its target; 1: all */
double merge_joint_seconds(const struct merge_joint *j);            /* trained and measured so far */
double merge_joint_loss(const struct merge_joint *j, int member);   /* running mean */
/* A member's graph with the best state's weights; graph_free. */
err merge_joint_graph(struct merge_joint *j, int member, struct graph **ret);

/* What a checkpoint holds: sections point into the joint (one per member for now, one for the best); with these restored, and the two configurations and
 * scores set, a search goes on. */
int merge_joint_sections(struct merge_joint *j, struct train_section *ret /* room for 2 a member */);
void merge_joint_restored(struct merge_joint *j, const struct merge_config *now, const struct merge_config *best, const double *best_scores, double seconds);
/* The member goes back to its original in the best state; the others keep sharing. */
void merge_joint_revert(struct merge_joint *j, int member);
