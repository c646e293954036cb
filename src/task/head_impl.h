/* What the heads share among themselves. Private to `task`: other rooms use head.h.
 *
 * A head is two functions. `check` gets the outputs in the head's order (data NULL), refuses what cannot be,
 * and says what memory a run needs. `run` gets them with data for one picture. Everything common (binding
 * names, batches, candidates, NMS, clipping) is head.c's. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "task/head.h"
#include "task/nms.h"

#include <math.h>

/* What a run needs; the arrays of struct task_head have these lengths. */
struct head_needs {
    bool boxes;
    size_t floats, ints, bytes;
    int width, height;            /* of a map or image */
    bool batched;                 /* dims[0] of the outputs is the batch */
    enum task_yolo_layout layout; /* resolved */
};

struct task_head {
    struct mem_payer *payer;
    size_t size;
    const struct task_card *card;
    struct head_needs needs;
    int bound, index[TASK_MAX_OUTPUTS];          /* the head's i-th output is the model's index[i]-th */
    struct task_output shapes[TASK_MAX_OUTPUTS]; /* as checked; names and data are NULL */
    struct task_candidates candidates;
    float *floats;
    int *ints;
    uint8_t *bytes;
};

struct head_ops {
    int least, most; /* outputs */
    err (*check)(const struct task_card *c, const struct task_output *o, int n, struct head_needs *ret);
    /* o[i].data is the picture's own first number. */
    void (*run)(struct task_head *h, const struct task_output *o, int n, struct task_result *r);
};

extern const struct head_ops head_yolox, head_nanodet, head_fastestdet, head_ultraface, head_ssd, head_yolo,
    head_centernet, head_yunet, head_classify, head_attributes, head_embedding, head_segmentation, head_image;

/* ERR_SHAPE unless o has this rank and these dims (-1: anything). dims[0] is never compared if it is -1. */
err head_expect(const struct task_card *c, const struct task_output *o, const char *what, int rank,
                const int64_t *dims);
/* "[1, 3, 80]" into buf. */
const char *head_dims_text(const struct task_output *o, char buf[96]);
/* Elements of one picture: the product of all dims, without the batch if `batched`. */
int64_t head_elements(const struct task_output *o, bool batched);

/* Scores a head would throw away anyway: not above this. */
float head_bar(const struct task_head *h);
/* Offers a box; anything that is not finite, empty or below the threshold is dropped. */
void head_offer(struct task_head *h, float x1, float y1, float x2, float y2, float score, int class_id,
                const struct task_point *landmarks, int landmark_count);

static inline float head_sigmoid(float v)
{
    return 1 / (1 + expf(-v));
}
/* A score between 0 and 1 out of a raw one; NaN becomes 0. (Softmax is over a vector: head_softmax.) */
static inline float head_score(const struct task_card *c, float v)
{
    if (c->activation == TASK_SIGMOID) v = head_sigmoid(v);
    return v > 0 ? (v < 1 ? v : 1) : 0;
}
/* Index of the largest of n numbers `step` apart; NaN never wins; 0 if all are NaN. */
int head_argmax(const float *v, int n, size_t step);
/* In place, safe for any input: NaN counts as minus infinity, and one infinity takes all. */
void head_softmax(float *v, int n);
