/* `brim merge`: finds what several models can share, retrains them jointly, publishes what works (GEMEL, NSDI 2023).
 *
 *     OUT/models/NAME.onnx   the models as they were when the search began: teachers, and what a member falls back to
 *     OUT/NAME.onnx          the models of the best state so far: shared weights are equal to the last bit, so the store holds them once
 *     OUT/merge.json, merge.svg   what was tried and kept, scores, bytes, minutes; the members as columns of layers
 *     OUT/state.brim         everything to go on after a kill (train/checkpoint.h), after each trial and whenever the best state changes
 *
 * OUT/NAME.onnx are replaced each by a rename, merge.json last, whenever the best state changes: the box improves while the search runs.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "methods/merge_joint.h"

struct merge_search_options {
    const struct merge_source *sources; /* onnx: the users' files; copied to OUT/models */
    int n;
    const char *out, *policy;           /* policy NULL: grow */
    double seconds, target, lr, held_out; /* target 0: 0.95 */
    int batch, threads, size;           /* batch 0: 32; size 0: the models' own */
    int64_t most_val;
    uint64_t seed, budget;              /* bytes; 0: what the machine has */
    bool only_labels, resume, share_norm; /* share_norm: batch norms behind a shared weight are shared, too */
    struct mem_budget *host;            /* (borrowed) all bytes come out of this one, up to `budget` (0: what it gives); NULL: a budget of its own */
    const atomic_bool *stop;            /* ends it between two operators */
};
struct merge_progress {
    const struct merge_problem *problem;
    const struct merge_config *best;
    const double *score, *target, *best_score; /* [member] */
    int trial;
    double seconds, seconds_total;
    uint64_t saved;
    bool changed;   /* OUT/NAME.onnx are new; also at first, where a search goes on */
};
/* Called after each measurement. An error ends the search. */
typedef err merge_progress_fn(void *user, const struct merge_progress *p);

struct merge_result {
    int n, trials;                      /* n 0: stopped before anything was tried, OUT is as it was */
    double seconds;
    uint64_t bytes, most, saved, equal; /* of layers before; could be saved at most; are saved; were equal before */
    bool all_met, stopped;
};
/* ERR_NOT_FOUND: nothing in common. ERR_CANCELLED: stopped, and OUT can be gone on with. ERR_USAGE: OUT holds another search. */
err merge_search(const struct merge_search_options *o, merge_progress_fn *fn, void *user, struct merge_result *ret);
