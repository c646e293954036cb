/* Boxes and detections: the plain structs that everything in `task` speaks.
 *
 * A box is (x1, y1) top left to (x2, y2) bottom right, in pixels of whatever picture the caller names: a head
 * answers in pixels of the network's input, `task_fit_box` moves them to the frame, and tracker and zones
 * never care which it was. Boxes that come out of this room are finite and have x1 <= x2, y1 <= y2.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

struct task_point {
    float x, y;
};

struct task_box {
    float x1, y1, x2, y2;
};

enum { TASK_MAX_LANDMARKS = 5 };

struct task_detection {
    struct task_box box;
    float score;  /* 0 to 1 */
    int class_id; /* index into the card's labels */
    int landmark_count;
    struct task_point
        landmarks[TASK_MAX_LANDMARKS]; /* faces: right eye, left eye, nose, right and left mouth corner */
};

/* All numbers finite, and x1 <= x2, y1 <= y2. */
bool task_box_valid(const struct task_box *b);
/* 0 for empty or invalid boxes. */
float task_box_area(const struct task_box *b);
/* Intersection over union, 0 to 1; 0 if either box is empty or invalid (NaN, infinite). */
float task_box_iou(const struct task_box *a, const struct task_box *b);
struct task_box task_box_clip(struct task_box b, float width, float height);
