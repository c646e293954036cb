/* The heat map is looked at once, and at the neighbours of what is high enough alone: peaks are few. The sigmoid keeps the order, so that neighbours are compared
 * as they are. Equal neighbours are all peaks, as after a max pooling of 3 x 3; suppression sorts them out. SPDX-License-Identifier: Apache-2.0 */
#include "task/peaks.h"

#include <math.h>

/* Does none of the cells around it exceed it? */
static bool highest(const float *map, int rows, int columns, int row, int column)
{
    float v = map[(size_t)row * (size_t)columns + (size_t)column];
    for (int r = MAX(row - 1, 0); r <= MIN(row + 1, rows - 1); r++)
        for (int c = MAX(column - 1, 0); c <= MIN(column + 1, columns - 1); c++)
            if (map[(size_t)r * (size_t)columns + (size_t)c] > v) return false;
    return true;
}

static float score_of(const struct task_peaks *p, float v)
{
    if (p->sigmoid) v = 1 / (1 + expf(-v));
    return v > 0 ? (v < 1 ? v : 1) : 0;
}

void task_peaks_offer(const struct task_peaks *p, float least, struct task_candidates *to)
{
    size_t plane = (size_t)p->rows * (size_t)p->columns;
    float across = p->width / (float)p->columns, down = p->height / (float)p->rows;
    for (int k = 0; k < p->classes; k++) {
        const float *map = p->heat + (size_t)k * plane;
        for (size_t i = 0; i < plane; i++) {
            float score = score_of(p, map[i]);
            int row = (int)(i / (size_t)p->columns), column = (int)(i % (size_t)p->columns);
            if (!(score >= least) || !(score > task_candidates_bar(to)) || !highest(map, p->rows, p->columns, row, column)) continue;
            float x = ((float)column + p->offset[i]) * across, y = ((float)row + p->offset[plane + i]) * down;
            float w = p->size[i] * across / 2, h = p->size[plane + i] * down / 2;
            struct task_detection d = {.box = {x - w, y - h, x + w, y + h}, .score = score, .class_id = k};
            task_candidates_offer(to, &d);
        }
    }
}
