/* Geometry of zones and lines: small exact predicates, in double, total for any float.
 * SPDX-License-Identifier: Apache-2.0 */
#include "task/zone.h"

#include <math.h>

static bool finite_point(struct task_point p)
{
    return isfinite(p.x) && isfinite(p.y);
}

/* > 0: p is to the right of a->b as seen on the screen (y grows downwards). Twice the triangle's area. */
static double turn(struct task_point a, struct task_point b, struct task_point p)
{
    return ((double)b.x - a.x) * ((double)p.y - a.y) - ((double)b.y - a.y) * ((double)p.x - a.x);
}

static bool on_segment(struct task_point p, struct task_point a, struct task_point b)
{
    return turn(a, b, p) == 0 && p.x >= MIN(a.x, b.x) && p.x <= MAX(a.x, b.x) && p.y >= MIN(a.y, b.y) &&
           p.y <= MAX(a.y, b.y);
}

bool task_zone_contains(const struct task_zone *z, struct task_point p)
{
    if (!finite_point(p)) return false;
    bool inside = false;
    for (int i = 0, j = z->point_count - 1; i < z->point_count; j = i++) {
        struct task_point a = z->points[i], b = z->points[j];
        if (on_segment(p, a, b)) return true;
        /* Half-open in y, so that a ray through a corner counts it once. */
        if ((a.y > p.y) == (b.y > p.y)) continue;
        double x = a.x + ((double)b.x - a.x) * ((double)p.y - a.y) / ((double)b.y - a.y);
        if (p.x < x) inside = !inside;
    }
    return inside;
}

static double segment_distance(struct task_point p, struct task_point a, struct task_point b)
{
    double dx = (double)b.x - a.x, dy = (double)b.y - a.y, length = dx * dx + dy * dy;
    double along = length > 0 ? (((double)p.x - a.x) * dx + ((double)p.y - a.y) * dy) / length : 0;
    along = fmin(fmax(along, 0), 1);
    return hypot(p.x - (a.x + along * dx), p.y - (a.y + along * dy));
}

float task_zone_distance(const struct task_zone *z, struct task_point p)
{
    double least = INFINITY;
    for (int i = 0, j = z->point_count - 1; i < z->point_count; j = i++)
        least = fmin(least, segment_distance(p, z->points[j], z->points[i]));
    return (float)least;
}

static int sign(double v)
{
    return (v > 0) - (v < 0);
}

bool task_segments_touch(struct task_point p, struct task_point q, struct task_point a, struct task_point b)
{
    if (!finite_point(p) || !finite_point(q) || !finite_point(a) || !finite_point(b)) return false;
    int pa = sign(turn(a, b, p)), qa = sign(turn(a, b, q)), ap = sign(turn(p, q, a)),
        bp = sign(turn(p, q, b));
    if (pa * qa < 0 && ap * bp < 0) return true;
    return on_segment(p, a, b) || on_segment(q, a, b) || on_segment(a, p, q) || on_segment(b, p, q);
}

struct task_point task_anchor(const struct task_box *b, bool centre)
{
    return (struct task_point){(b->x1 + b->x2) / 2, centre ? (b->y1 + b->y2) / 2 : b->y2};
}
