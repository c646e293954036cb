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
    const float *x, *dy, *mean;                         /* dy NULL: forward; x: of a softmax, its y */
    const float *factor, *addend, *slope;
    float *y;
    double *sums;                                       /* per task 2 * c (layer normalisation: floats) */
    void (*run)(const struct own_train_call *k, int thread, int threads);
};
enum { OWN_TRAIN_TASKS = 64, OWN_TRAIN_NUMBERS = 8192 }; /* at most so many tasks, each of so many numbers or more */
