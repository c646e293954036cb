/* Boxes. Every function here is total: NaN and infinity give 0 or false, never a surprise further up. Areas
 * are computed in double, because two boxes of 1e30 pixels have a finite ratio but no finite float area.
 * SPDX-License-Identifier: Apache-2.0 */
#include "task/box.h"

#include <math.h>

bool task_box_valid(const struct task_box *b)
{
    return isfinite(b->x1) && isfinite(b->y1) && isfinite(b->x2) && isfinite(b->y2) && b->x1 <= b->x2 &&
           b->y1 <= b->y2;
}

static double area(const struct task_box *b)
{
    return ((double)b->x2 - b->x1) * ((double)b->y2 - b->y1);
}

float task_box_area(const struct task_box *b)
{
    return task_box_valid(b) ? (float)area(b) : 0;
}

float task_box_iou(const struct task_box *a, const struct task_box *b)
{
    if (!task_box_valid(a) || !task_box_valid(b)) return 0;
    double w = fmin(a->x2, b->x2) - fmax(a->x1, b->x1), h = fmin(a->y2, b->y2) - fmax(a->y1, b->y1);
    if (w <= 0 || h <= 0) return 0;
    double both = w * h, either = area(a) + area(b) - both;
    return either > 0 ? (float)(both / either) : 0;
}

static float clip(float v, float most)
{
    return v > 0 ? (v < most ? v : most) : 0; /* NaN becomes 0 */
}

struct task_box task_box_clip(struct task_box b, float width, float height)
{
    struct task_box r = {clip(b.x1, width), clip(b.y1, height), clip(b.x2, width), clip(b.y2, height)};
    r.x2 = MAX(r.x1, r.x2);
    r.y2 = MAX(r.y1, r.y2);
    return r;
}
