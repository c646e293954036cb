/* Is a merged model still like its original on the pictures of today? A window over the last pictures, and when to be sure.
 *
 * The score is merge_score.h's, over the window. Few pictures make a noisy score, so a model is called below its target only when it is by more than its noise:
 * at least MERGE_DRIFT_LEAST pictures, and score + 2 standard errors < target. The standard error is the jackknife's over pictures (Efron and Stein 1981: the
 * score without each picture in turn), because pictures are what was sampled, and because it needs no formula of the measure: AP50 has none. A score that lies at the
 * target exactly is called below it in some 2 of 100 independent windows.
 *
 * Pictures in which neither network sees anything say nothing about boxes and are not kept. A window in which only the merged one sees something scores 0.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "methods/merge_score.h"
#include "task/alike.h"

enum { MERGE_DRIFT_LEAST = 8, MERGE_DRIFT_MOST = 200 };

struct merge_drift;
struct merge_drift_options {
    enum merge_measure measure; /* MERGE_SAME_... */
    int classes;                /* of the boxes */
    int window;                 /* pictures, MERGE_DRIFT_LEAST to MERGE_DRIFT_MOST */
    double target;
};
/* Memory: MEM_OTHER of `payer`. */
err merge_drift_new(struct mem_payer *payer, const struct merge_drift_options *o, struct merge_drift **ret);
void merge_drift_free(struct merge_drift **d);
void merge_drift_clear(struct merge_drift *d);

struct merge_drift_picture {
    double wrong;                               /* classes: 0 or 1; numbers: task_alike_distance */
    int n_truth, n_found;                       /* boxes, TASK_ALIKE_MOST at most: of the original, of the merged one */
    const struct task_ap_box *truth, *found;    /* their `image` is not used */
};
/* False: there is nothing in it, and it was not kept. */
bool merge_drift_add(struct merge_drift *d, const struct merge_drift_picture *p);

struct merge_drift_verdict {
    int pictures;
    double score, error; /* of the window; error: one standard error. No picture: 1 and 0 */
    bool below;
};
err merge_drift_look(struct merge_drift *d, struct merge_drift_verdict *ret);
