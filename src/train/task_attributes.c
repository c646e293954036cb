/* Several yes-or-no answers per picture; what is not known counts nothing. SPDX-License-Identifier: Apache-2.0 */
#include "train/head.h"
#include "train/task.h"

static err adapt(struct train_job *j, struct graph *g)
{
    int classes;
    char said[400];
    if (train_head_classes(g, false, &classes) || classes == j->classes) return ERR_OK;
    err e = train_head_replace(g, false, j->classes, j->o->seed, said, sizeof said);
    if (!e) train_job_say(j, "%s", said);
    return e;
}

static err loss(struct train_job *j, struct train_net_options *n)
{
    (void)j;
    n->loss = train_loss_attributes;
    return ERR_OK;
}

static err batch(struct train_job *j, const struct train_batch *b, float *ret_loss)
{
    float *target = train_net_target(j->net, 0).data, *known = train_net_target(j->net, 1).data, *share = train_net_target(j->net, 2).data;
    int n = b->count * j->classes, count = 0;
    for (int i = 0; i < n; i++) {
        known[i] = b->attributes[i] >= 0;
        target[i] = b->attributes[i] > 0.5f;
        count += b->attributes[i] >= 0;
    }
    *share = 1.0f / (float)MAX(count, 1);
    return train_net_run(j->net, ret_loss);
}

static double scored(const struct train_scores *s)
{
    return s->accuracy;
}

const struct train_task_kind train_task_attributes = {.name = "attributes", .score = "accuracy", .adapt = adapt, .loss = loss, .batch = batch,
                                                      .evaluate = train_evaluate_attributes, .scored = scored};
