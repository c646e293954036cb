/* Anchor-free detection as YOLOX trains it (Ge et al. 2021): SimOTA assigns each true box to a few cells by the network's own answers, then the loss compares.
 *
 * The network's output 0 is [N, cells, 5 + classes]: x, y, w, h raw, objectness and classes after their sigmoids, strides 8, 16, 32, row by row (what YOLOX
 * exports without its decoder, and task/head_yolox.c reads). The assignment is made on the host between the two halves of a run (train_net_run_forward).
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/data.h"
#include "train/net.h"

enum { TRAIN_YOLOX_STRIDES = 3 };

struct train_yolox {
    int width, height, classes;
    int64_t cells;
};
/* From the shape of the output. ERR_SHAPE says what is expected. */
err train_yolox_of(const struct graph *g, int width, int height, struct train_yolox *ret);
/* Cell i: its column, row and stride. */
void train_yolox_cell(const struct train_yolox *y, int64_t i, int *ret_x, int *ret_y, int *ret_stride);

/* (5 (1 - IoU^2) over assigned cells + binary cross entropy of objectness over all and of classes over assigned ones) / number of assigned cells.
 * Targets: 0 assigned [N, cells, 1]; 1 boxes x1 y1 x2 y2 [N, cells, 4]; 2 classes [N, cells, classes]; 3 [1]: 1 / number of assigned cells.
 * context: struct train_yolox, of which width and height are set; the rest is set here. */
train_loss_fn train_loss_yolox;

/* Room that an assignment of up to `max_boxes` boxes takes. */
size_t train_yolox_scratch(const struct train_yolox *y, int max_boxes);
/* One picture: rows [cells][5 + classes] -> its part of targets 0, 1, 2. Returns the number of assigned cells. */
int64_t train_yolox_assign(const struct train_yolox *y, const float *rows, const struct train_box *boxes, int n_boxes, void *scratch, float *assigned,
                           float *box, float *class);
