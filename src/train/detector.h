/* A detector that can be trained and scored: which kind it is, told from the shapes of its outputs, and its answers as boxes. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "train/centernet.h"
#include "train/runner.h"
#include "train/yolox.h"

struct train_detector {
    int width, height, classes;
    bool peaks;                  /* CenterNet; else YOLOX */
    int64_t numbers;             /* floats of one picture's answers */
    struct train_yolox yolox;
    struct train_centernet centernet;
};
/* ERR_SHAPE says what is expected. */
err train_detector_of(const struct graph *g, int width, int height, struct train_detector *ret);
/* The loss of its kind; context: struct train_detector, of which width and height are set; the rest is set here. */
train_loss_fn train_loss_detector;

/* Copies the answers of a run: `rows` has room for `batch` times `numbers`. */
err train_detector_read(const struct train_detector *d, const struct model_plan *p, float *rows);
/* Picture i of those answers: boxes in pixels of the network, the surest first, overlapping ones suppressed. Room in `ret` for TRAIN_CANDIDATES. */
enum { TRAIN_CANDIDATES = 1000 };
struct task_detection;
int train_decode(const struct train_detector *d, const float *rows, int batch, int i, float least, struct task_detection *ret);
