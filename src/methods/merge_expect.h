/* What sharing will probably save, before any training: for each slot how likely its members come to share it.
 *
 *     p(a, b) = 1                 the numbers are equal
 *               c + (1 - c) q     else
 *     c = mean over the filters of the cosine of a's filter and b's, at least 0: near 1 for networks with a common ancestor, or that differ by folded
 *         scales alone; 0 for strangers
 *     q = without pictures t / 2, t = 2 common layers / (layers of a + layers of b): an even bet for one architecture, less for two. GEMEL's authors found that
 *         what merges cannot be told from such metadata, and this claims no more
 *     q = with pictures CKA: how alike what the layer gives is in both, over the same pictures (channel means over space; linear, without the bias of few
 *         samples: Kornblith et al. 2019, Song et al. 2012)
 *
 * Members join a slot one after the other, each with the one before that it fits best: expected bytes = bytes of a slot * sum over joining members of their
 * largest p. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "methods/merge_member.h"
#include "methods/merge_problem.h"

struct merge_expected {
    uint64_t bytes;
    double *likelihood; /* [slot]: mean p of the members that join */
    bool pictures;
};
struct merge_expect_options {
    const struct merge_source *sources; /* [member]: onnx, feed, data; NULL: no pictures */
    struct mem_budget *budget;
    int pictures, threads, size;        /* pictures 0: 96 of all data together */
};
/* graphs: those of the problem. ERR_NOMEM, and what is wrong with data and networks if there are pictures. */
err merge_expect(const struct merge_problem *p, const struct graph *const *graphs, const struct merge_expect_options *o, struct merge_expected *ret);
void merge_expected_done(struct merge_expected *x);
/* Linear CKA of n samples of wx and wy numbers, debiased, 0 to 1. n >= 4; else 0. */
double merge_cka(const float *x, int wx, const float *y, int wy, int n);
