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
/* The node of this kind that output 0 comes from, past nodes that only give numbers another shape; NULL: another one made them. Its numbers are the output's, in order. */
const struct graph_node *train_ends_in(const struct graph *g, enum op_kind kind);
/* Do a text and a model's output (its shape) fit? */
err train_check_text(const struct graph *g, const struct train_set *set, const struct tensor_shape *out);
/* The data of an evaluation: the options of `o` for this picture. */
struct train_data_options train_evaluate_data(const struct train_evaluate_options *o, const struct train_picture *p, int batch);
