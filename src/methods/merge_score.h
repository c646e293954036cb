/* How right is a member? Its own measure, taken the same way before and after merging.
 *
 *     labels, one class per picture     top-1
 *     labels, boxes                     AP50 of its card's detections (task/metric.h)
 *     none, classes                     share of pictures for which it says the original's class
 *     none, a card that detects         AP50 with the original's detections of 0.3 and more as truth
 *     none, anything else               1 - |y - t|^2 / |t - mean t|^2 over all outputs, at least 0
 *
 * Without labels the original scores 1 by definition. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "task/card.h"
#include "train/evaluate.h"

enum merge_measure { MERGE_TOP1 = 1, MERGE_AP50, MERGE_SAME_CLASS, MERGE_SAME_BOXES, MERGE_SAME_NUMBERS };
const char *merge_measure_name(enum merge_measure m); /* "top-1", "AP50 against the original" ... */

struct merge_score {
    enum merge_measure measure;
    int64_t classes;                 /* merge_score_classes */
    const struct graph *original;    /* borrowed */
    const struct task_card *card;    /* borrowed; NULL: none */
    const struct train_set *set;     /* borrowed */
    struct train_evaluate_options o; /* samples, batch, feed, budget, threads */
};
/* The length of output 0 if it is a list of classes, else 0: from its shape for one picture. */
err merge_score_classes(const struct graph *g, struct mem_payer *payer, int64_t *ret);
/* Which measure it is. `labels`: the set's labels are the model's own. */
enum merge_measure merge_score_measure(int64_t classes, const struct task_card *card, const struct train_set *set, bool labels);
/* `ret_error`, if not NULL: the standard error of the score, for it is a sample that was measured: the jackknife's over 20 stretches of the pictures (Efron and Stein
 * 1981; neighbours in a video are alike, so stretches and not single ones), for top-1 that of a share. */
err merge_score_run(const struct merge_score *s, const struct graph *g, double *ret, double *ret_error);
