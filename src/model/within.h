/* One model inside one budget: opens, plans, reserves, divides what is left between weights that stay and a window, and runs.
 *
 * What `brim run --budget`, `brim explain --budget` and the swap bench use; a box with many models does the same with one window for all
 * (engine). SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model/model.h"

struct model_within {
    struct model *model;
    struct model_plan *plan;
    struct weights_ring *ring;           /* NULL: everything is kept */
    struct mem_payer *payer;             /* the window's */
    struct blocks_plan blocks;
    size_t weight_budget;                /* what the budget leaves for weights */
    double bandwidth, pack_ms;
    bool no_ahead;                       /* for comparison: set before open; blocks are read when they are needed, no sooner */
};

/* Takes the model over, also on failure: opened with a reader and a spill_dir, no plan made yet. `shapes`: as model_plan_new; bandwidth of
 * the disk in bytes a second, 0: measured. ERR_NOMEM: it cannot run in this budget; the sentence says the smallest that would do. */
err model_within_open(struct model *m, const struct tensor_shape *shapes, double bandwidth, struct model_within *ret);
/* `ret` is zeroed but for no_ahead. Accepts one that was never opened (zeroed) or whose opening failed. Frees the model, but for one that was never opened. */
void model_within_close(struct model_within *w);
/* The division again: after the budget, the step times or the bandwidth changed. What stays is not read again. */
err model_within_divide(struct model_within *w, double bandwidth);
/* model_plan_run; the window fills for the next run behind it. */
err model_within_run(struct model_within *w, int64_t *step_ns);
