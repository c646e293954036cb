/* Non-maximum suppression: of boxes that overlap, the best stays.
 *
 * Greedy, in falling order of score; equal scores are ordered by class, then by box, so that the answer does
 * not depend on the order given. Detections whose score or box is not finite are dropped, whatever the
 * threshold. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "task/box.h"

/* Sorts by falling score, drops what is not finite or below `score`, then drops a box whose IoU with
 * a better one that stays is above `iou` (of the same class, unless agnostic; iou >= 1 turns suppression off)
 * and keeps at most `max`. In place; returns how many stay, at the front. O(n log n + n * kept). */
int task_nms(struct task_detection *d, int n, float score, float iou, bool agnostic, int max);

/* Keeps the best `cap` of all detections offered, in bounded memory (a heap whose root is the worst).
 * Zero-initialise, then set items and cap. */
struct task_candidates {
    struct task_detection *items;
    int count, cap;
};
/* Invalid boxes and scores that are not finite are ignored. */
void task_candidates_offer(struct task_candidates *c, const struct task_detection *d);
/* The score below which an offer would be ignored anyway (-1 while there is room): lets a head skip the
 * decoding. */
float task_candidates_bar(const struct task_candidates *c);
