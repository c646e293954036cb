/* What to try next: the search over configurations, apart from how a configuration is trained.
 *
 * A policy is asked for a trial; the joint trainer (merge_joint.h) runs it and says what came of it; and so on until the policy has no more or the time is
 * over. The best state so far is always whole and kept by the trainer, so a policy may be wrong, late or cut off without harm. Policies draw nothing
 * and read no clock: the same outcomes give the same trials, which is how a search is resumed after a kill (its log is played back).
 *
 *     groups  GEMEL's heuristic (NSDI 2023, section 5.3): one group of equal layers after the other, heaviest first; what failed is halved, as long as
 *             what is left weighs more than the next group
 *     grow    ours: what was alike before any training, and the heaviest layers up to 60 % of what could be saved, all at once; then, going on from there,
 *             80, 95 and 100 %. Who misses his target gets more time, then his layers nearest to the picture back
 *     split   everything is shared at once, and what its members' gradients disagree on most, per byte, is given back to those that miss their target
 *
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "methods/merge_problem.h"

struct merge_trial {
    struct merge_config config; /* made and freed by the searcher; a policy fills it */
    double seconds;             /* at most */
    int most_epochs;            /* of the longest data; 0: as many as fit */
    bool go_on;                 /* from the weights as the last trial left them; else from the best state's */
    bool gentle;                /* the same again or less of it: the learning rate begins at three tenths */
    bool firm;                  /* the searcher's own: the best configuration again, until every score lies half-way between target and original */
};
struct merge_outcome {
    const struct merge_config *tried, *best; /* best: of the best state, after the trial */
    const bool *met;            /* [member]; members that were not in it: true */
    const double *score, *target; /* [member] */
    const double *rise;         /* [member]: gain of the score per second over the last half of the trial */
    const double *gain;         /* [slot][member]: what a step of its own would gain it over the common step, per step; 0 where it shares nothing */
    bool accepted;              /* the best state changed */
};

struct merge_policy {
    const char *name;
    void *(*start)(const struct merge_problem *p, double seconds);
    void (*end)(void *state);
    /* last: NULL at first. False: nothing is left to try. */
    bool (*next)(void *state, const struct merge_outcome *last, double seconds_left, struct merge_trial *ret);
};
extern const struct merge_policy merge_policy_groups, merge_policy_grow, merge_policy_split;
const struct merge_policy *merge_policy_find(const char *name); /* NULL: none; the names: merge_policy_names */
extern const char merge_policy_names[];
