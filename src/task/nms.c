/* Non-maximum suppression and the bounded heap before it.
 *
 * Both use one total order: score, then class, then the box's numbers. So the answer does not depend on the
 * order in which a model lists its anchors, and heap sort (in place, no allocation, n log n at worst) will do
 * although it is not stable. Invariant of the heap: items[0] is the worst of those kept, and no item is worse
 * than its parent. SPDX-License-Identifier: Apache-2.0 */
#include "task/nms.h"

#include <math.h>

/* Is a worse than b? A strict total order on valid detections (equal ones are the same in every number
 * compared). */
static bool worse(const struct task_detection *a, const struct task_detection *b)
{
    if (a->score != b->score) return a->score < b->score;
    if (a->class_id != b->class_id) return a->class_id > b->class_id;
    const float *p = &a->box.x1, *q = &b->box.x1;
    for (int i = 0; i < 4; i++)
        if (p[i] != q[i]) return p[i] > q[i];
    return false;
}

static void sift_down(struct task_detection *d, int at, int n)
{
    struct task_detection moved = d[at];
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && worse(&d[child + 1], &d[child])) child++;
        if (!worse(&d[child], &moved)) break;
        d[at] = d[child];
    }
    d[at] = moved;
}

/* Best first. */
static void sort(struct task_detection *d, int n)
{
    for (int i = n / 2 - 1; i >= 0; i--)
        sift_down(d, i, n);
    for (int end = n - 1; end > 0; end--) {
        struct task_detection worst = d[0];
        d[0] = d[end];
        d[end] = worst;
        sift_down(d, 0, end);
    }
}

static bool believable(const struct task_detection *d)
{
    return isfinite(d->score) && task_box_valid(&d->box);
}

void task_candidates_offer(struct task_candidates *c, const struct task_detection *d)
{
    if (!believable(d) || c->cap <= 0) return;
    if (c->count < c->cap) {
        int at = c->count++;
        for (int parent; at > 0 && worse(d, &c->items[parent = (at - 1) / 2]); at = parent)
            c->items[at] = c->items[parent];
        c->items[at] = *d;
    } else if (worse(&c->items[0], d)) {
        c->items[0] = *d;
        sift_down(c->items, 0, c->count);
    }
}

float task_candidates_bar(const struct task_candidates *c)
{
    return c->count < c->cap || c->cap <= 0 ? -1 : c->items[0].score;
}

int task_nms(struct task_detection *d, int n, float score, float iou, bool agnostic, int max)
{
    int valid = 0, kept = 0;
    for (int i = 0; i < n; i++)
        if (believable(&d[i]) && !(d[i].score < score)) d[valid++] = d[i];
    sort(d, valid);
    for (int i = 0; i < valid && kept < max; i++) {
        bool hidden = false;
        for (int k = 0; k < kept && !hidden && iou < 1; k++)
            hidden = (agnostic || d[k].class_id == d[i].class_id) && task_box_iou(&d[k].box, &d[i].box) > iou;
        if (!hidden) d[kept++] = d[i];
    }
    return kept;
}
