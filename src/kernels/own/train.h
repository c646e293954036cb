/* Inside kernels/own: normalisations and softmax in training. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/own/conv.h"

struct own_train {
    int64_t rows, c, tasks;
    bool log;               /* LogSoftmax */
    float epsilon;          /* layer normalisation */
};
struct own_train_call {
    const struct own_train *t;
    const void *x, *dy;                                 /* dy NULL: forward; x: of a softmax, its y */
    const float *mean, *factor, *addend, *slope;
    void *y;
    bool x_half, dy_half, y_half;                       /* batch normalisation: bf16, else f32 */
    float *room;                                        /* of threads: OWN_TRAIN_ROOM * c each */
    double *sums;                                       /* per task 2 * c (layer normalisation: floats) */
    void (*run)(const struct own_train_call *k, int thread, int threads);
};
/* At most so many tasks, each of so many numbers or more; they begin at multiples of so many rows, where every vector begins with the first channel. Room: four
 * vectors of channels, each repeated until it fills whole vectors. */
enum { OWN_TRAIN_TASKS = 64, OWN_TRAIN_NUMBERS = 8192, OWN_TRAIN_ALIGN = 16, OWN_TRAIN_ROOM = 4 * 16 };
static inline void own_train_rows(const struct own_train *t, int64_t task, int64_t *ret_from, int64_t *ret_to)
{
    own_share((t->rows + OWN_TRAIN_ALIGN - 1) / OWN_TRAIN_ALIGN, (int)task, (int)t->tasks, ret_from, ret_to);
    *ret_from *= OWN_TRAIN_ALIGN;
    *ret_to = MIN(*ret_to * OWN_TRAIN_ALIGN, t->rows);
}
