/* Inside: a network as inference runs it. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model/training.h"
#include "train/evaluate.h"

struct train_runner {
    struct model *model;
    struct model_plan *plan;
    bool pinned;
};
err train_runner_open(const struct graph *g, const struct train_evaluate_options *o, int batch, struct mem_payer *payer, struct train_runner *ret);
void train_runner_close(struct train_runner *r);
/* One picture of a YOLOX's answers into boxes in pixels of the network, the surest first, overlapping ones suppressed. Room in `ret` for TRAIN_CANDIDATES. */
enum { TRAIN_CANDIDATES = 1000 };
struct train_yolox;
struct task_detection;
int train_decode(const struct train_yolox *y, const float *rows, float least, struct task_detection *ret);
/* Do a text and a model's output (its shape) fit? */
err train_check_text(const struct graph *g, const struct train_set *set, const struct tensor_shape *out);
/* The data of an evaluation: the options of `o` for this picture. */
struct train_data_options train_evaluate_data(const struct train_evaluate_options *o, const struct train_picture *p, int batch);
