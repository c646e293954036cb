/* One class per picture. SPDX-License-Identifier: Apache-2.0 */
#include "train/head.h"
#include "train/task.h"
#include "train/teacher.h"

#include <string.h>

/* A network of which the last layer is not found is taken as it is: whether it fits is found before the first batch. */
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
    j->classify = j->o->classify;
    if (!j->o->teacher) j->classify.distill = 0;
    if (j->classify.distill > 0) {
        struct train_evaluate_options o = {.budget = j->budget, .threads = j->o->threads, .stop = j->o->stop};
        err e = train_teacher_open(j->o->teacher, &j->picture, j->o->batch, &o, &j->teacher);
        if (e) return e;
        if (train_teacher_classes(j->teacher) != j->classes)
            return err_set(ERR_USAGE, "%s: the teacher knows %d classes, the data has %d", j->o->teacher, train_teacher_classes(j->teacher), j->classes);
    }
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
    if (j->teacher) {
        err e = train_teacher_answer(j->teacher, b, j->classify.temperature > 0 ? j->classify.temperature : 1, train_net_target(j->net, 1).data);
        if (e) return e;
    }
    return train_net_run(j->net, ret_loss);
}

static double scored(const struct train_scores *s)
{
    return s->top1;
}

const struct train_task_kind train_task_classify = {.name = "classify", .score = "top1", .adapt = adapt, .loss = loss, .batch = batch, .evaluate = train_evaluate_classify, .scored = scored};
