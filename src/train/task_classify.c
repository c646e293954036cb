/* One class per picture. SPDX-License-Identifier: Apache-2.0 */
#include "train/task.h"

#include <string.h>

static err loss(struct train_job *j, struct train_net_options *n)
{
    j->classify = j->o->classify;
    n->loss = train_loss_classify;
    n->loss_context = &j->classify;
    return ERR_OK;
}

static err batch(struct train_job *j, const struct train_batch *b, float *ret_loss)
{
    struct tensor t = train_net_target(j->net, 0);
    float *to = t.data;
    memset(to, 0, (size_t)tensor_count(&t.shape) * sizeof *to);
    for (int i = 0; i < b->count; i++) {
        float *row = to + (size_t)i * (size_t)j->classes;
        if (b->labels[i] >= 0) row[b->labels[i]] += b->mix[i];
        if (b->mix[i] < 1 && b->labels2[i] >= 0) row[b->labels2[i]] += 1 - b->mix[i];
    }
    return train_net_run(j->net, ret_loss);
}

static double scored(const struct train_scores *s)
{
    return s->top1;
}

const struct train_task_kind train_task_classify = {.name = "classify", .score = "top1", .loss = loss, .batch = batch, .evaluate = train_evaluate_classify, .scored = scored};
