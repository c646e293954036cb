/* How alike do two networks of one task answer a picture? One of them, the original, is the truth.
 *
 *     a list of classes   1 if both say the same class, else 0
 *     boxes               rows for task_ap_compute: the original's detections of TASK_ALIKE_SURE and more are the truth, AP50 over many pictures is the score
 *     anything else       1 - |y - t|^2 / |t - mean t|^2, the mean over all outputs
 *
 * Merging measures its members so, and so does the guard of the running box. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "task/head.h"
#include "task/metric.h"

enum { TASK_ALIKE_MOST = 100 /* detections of a picture */, TASK_ALIKE_OFTEN = 5 };
#define TASK_ALIKE_SURE 0.3f
#define TASK_ALIKE_LEAST 0.01f

/* The card with thresholds for measuring: scores from TASK_ALIKE_LEAST, TASK_ALIKE_MOST of them. It shares what the original points to. */
struct task_card task_alike_card(const struct task_card *c);
/* The class of output 0: which number of its row is largest. */
int task_alike_class(const struct task_output *outputs, int item);
/* |y - t|^2 / |t - mean t|^2, the mean over n outputs of equal shapes. */
double task_alike_distance(const struct task_output *y, int y_item, const struct task_output *t, int t_item, int n);
/* Detections of `least` and more as rows of picture `image`, TASK_ALIKE_MOST at most; how many. */
int task_alike_boxes(const struct task_result *r, float least, int image, struct task_ap_box *ret);
/* AP50 of `found` over the classes that the original saw TASK_ALIKE_OFTEN times or more: whether one rare thing is found or not would weigh as much as all people
 * otherwise. Where it saw none so often, all classes count; where it saw nothing at all, 0. */
err task_alike_ap(struct mem_payer *payer, const struct task_ap_box *truth, size_t n_truth, const struct task_ap_box *found, size_t n_found, int classes, double *ret);
/* The standard error of a score: part[i] is the score without the i-th of n parts of the pictures (the jackknife: Efron and Stein 1981). */
double task_alike_error(const double *part, int n);
