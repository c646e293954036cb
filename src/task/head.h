/* Heads: from a model's output numbers to their meaning.
 *
 *     struct task_head *h;
 *     err e = task_head_new(payer, card, outputs, n, &h);   // checks the card against the shapes, reserves
 * everything e = task_head_run(h, outputs, n, item, &result);      // no allocation; result is borrowed until
 * the next run task_head_free(&h);
 *
 * A head never trusts a number: NaN and infinity never pass a score threshold, sizes are clamped, results are
 * finite, sorted by falling score and at most card->top_k long. Memory is bounded: at most
 * TASK_MAX_CANDIDATES boxes (the best ones) go into NMS; maps and images are as large as the output. One
 * thread at a time per head. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"
#include "task/card.h"

enum { TASK_MAX_CANDIDATES = 1000, TASK_MAX_POINTS = 8 };

/* One output: row-major, in ONNX's order of dimensions, f32. For checks `data` may be NULL. */
struct task_output {
    const char *name;
    int rank;
    int64_t dims[8];
    const float *data;
};

/* One clear line (ERR_SHAPE) if the card cannot be of this model. `inputs` may be NULL; dims <= 0 are symbols
 * and fit anything in `inputs`, but outputs must be known, except for the batch. */
err task_card_check(const struct task_card *c, const struct task_output *inputs, int input_count,
                    const struct task_output *outputs, int output_count);

/* Only what belongs to `head` is set; all else is zero. */
struct task_result {
    enum task_head_kind head;
    /* detectors: input pixels of inputs[0], inside it, falling score */
    int detection_count;
    const struct task_detection *detections;
    /* classify: class_count probabilities and the best top_k classes in order; attributes: class_count
     * probabilities */
    int class_count, best_count;
    const float *probabilities;
    const int *best;
    /* attributes: points that the model names, relative (0 to 1) to its input */
    int point_count;
    struct task_point points[TASK_MAX_POINTS];
    /* embedding: length 1 unless the card says `l2: false`; all zero if the model gave nothing finite */
    int embedding_count;
    const float *embedding;
    /* segmentation: one class per pixel, row-major; share of pixels per class */
    int width, height;
    const uint8_t *map;
    const float *shares; /* class_count numbers */
    /* image: width x height RGB bytes, interleaved */
    const uint8_t *pixels;
};

struct task_head;
/* The card is borrowed and must outlive the head. ERR_SHAPE, ERR_NOMEM. Memory: MEM_OTHER of `payer`. */
err task_head_new(struct mem_payer *payer, const struct task_card *card, const struct task_output *outputs,
                  int count, struct task_head **ret);
void task_head_free(struct task_head **h);
/* How many bytes a head of this card and these shapes takes. */
uint64_t task_head_bytes(const struct task_card *card, const struct task_output *outputs, int count);
/* `item` is the picture's index in the batch. ERR_SHAPE if the outputs are no longer those of task_head_new
 * (the batch may differ). The result is valid until the next run or free. */
err task_head_run(struct task_head *h, const struct task_output *outputs, int count, int item,
                  struct task_result *ret);

/* Cosine of two embeddings, -1 to 1; 0 if either has no length. */
float task_cosine(const float *a, const float *b, int n);
