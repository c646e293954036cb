/* Batch normalisations that are shared, too (--share-norm): the one behind a shared convolution is one for all its users.
 *
 * Scale and shift follow the sum of their users' gradients, as weights do (merge_joint.h). Each member normalises a batch by the batch itself; what is kept
 * for inference are running statistics, and of those the mean over the users becomes common after every batch. What is measured and published is what has
 * been made common. A slot has norms only if each of its members has one there, all trained. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "methods/merge_member.h"
#include "methods/merge_problem.h"

struct merge_norms;
struct merge_norms *merge_norms_new(struct merge_member *const *members, const struct merge_problem *p);
void merge_norms_free(struct merge_norms **n);
/* Has this slot norms to share? */
bool merge_norms_has(const struct merge_norms *n, int slot);
/* users: [member], two or more. */
/* They begin to share: with the numbers of member `from`; -1: with the mean of all. */
void merge_norms_begin(struct merge_norms *n, int slot, const bool *users, int from);
/* Their gradients become the weighted sum. */
void merge_norms_gradients(struct merge_norms *n, int slot, const bool *users, const double *weights);
/* After a step: scales and shifts of the first, the mean of the statistics. */
void merge_norms_common(struct merge_norms *n, int slot, const bool *users);
