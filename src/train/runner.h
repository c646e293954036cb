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
/* Do a text and a model's output (its shape) fit? */
err train_check_text(const struct graph *g, const struct train_set *set, const struct tensor_shape *out);
/* The data of an evaluation: the options of `o` for this picture. */
struct train_data_options train_evaluate_data(const struct train_evaluate_options *o, const struct train_picture *p, int batch);
