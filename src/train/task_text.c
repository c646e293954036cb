/* Language models: each token is told from those before it. SPDX-License-Identifier: Apache-2.0 */
#include "train/task.h"

#include <string.h>

static err loss(struct train_job *j, struct train_net_options *n)
{
    j->classify = (struct train_classify){.smoothing = j->o->classify.smoothing};
    n->loss = train_loss_text;
    n->loss_context = &j->classify;
    return ERR_OK;
}

static err ready(struct train_job *j)
{
    struct tensor out = train_net_output(j->net, 0);
    return train_check_text(j->source, j->set, &out.shape);
}

static err batch(struct train_job *j, const struct train_batch *b, float *ret_loss)
{
    struct tensor in = train_net_input(j->net, 0), to = train_net_target(j->net, 0);
    int64_t length = in.shape.dims[1], *labels = to.data;
    struct tensor from = tensor_view(TENSOR_I64, &in.shape, b->images);
    from.strides[0] = length + 1;
    err e = model_copy(&from, &in);
    if (e) return e;
    for (int i = 0; i < b->count; i++) memcpy(labels + i * length, (const int64_t *)b->images + i * (length + 1) + 1, (size_t)length * sizeof *labels);
    return train_net_run(j->net, ret_loss);
}

static double scored(const struct train_scores *s)
{
    return s->perplexity;
}

const struct train_task_kind train_task_text = {.name = "text", .score = "perplexity", .falls = true, .text = true, .loss = loss, .ready = ready, .batch = batch,
                                                .evaluate = train_evaluate_text, .scored = scored};
