/* Boxes, as YOLOX or CenterNet trains them, whichever the network is. SPDX-License-Identifier: Apache-2.0 */
#include "train/head.h"
#include "train/task.h"

/* Numbers were said (names alone leave no gaps), and the network has no class of the last one. */
static bool beyond(const struct train_job *j, int classes)
{
    for (int i = 0; i < j->o->n_classes; i++)
        if (j->o->classes[i][0] == '#' && j->classes > classes) return true;
    return false;
}

/* Where the user says which class of the data is which of the network's, and the network has them all, its head stays. */
static err adapt(struct train_job *j, struct graph *g)
{
    int classes;
    char said[400];
    if (train_head_classes(g, true, &classes) || (j->o->n_classes ? j->classes <= classes : j->classes == classes)) return ERR_OK;
    if (beyond(j, classes))
        return err_set(ERR_USAGE, "%s: it has classes 0 to %d; --classes says %s=%d", j->o->model, classes - 1, j->o->classes[j->o->n_classes - 1], j->o->n_classes - 1);
    err e = train_head_replace(g, true, j->classes, j->o->seed, said, sizeof said);
    if (!e) train_job_say(j, "%s", said);
    return e;
}

static err loss(struct train_job *j, struct train_net_options *n)
{
    j->detector = (struct train_detector){.width = j->picture.width, .height = j->picture.height};
    n->loss = train_loss_detector;
    n->loss_context = &j->detector;
    return ERR_OK;
}

static err ready(struct train_job *j)
{
    const struct train_detector *d = &j->detector;
    if (j->classes > d->classes || (!j->o->n_classes && j->classes != d->classes))
        return err_set(ERR_USAGE, "the data has %d classes, the network %d: say which is which with --classes NAME=NUMBER,..., or make one with 'brim new ARCH --classes %d'",
                       j->classes, d->classes, j->classes);
    if (d->peaks) return ERR_OK;
    j->scratch_bytes = train_yolox_scratch(&d->yolox, TRAIN_JOB_BOXES);
    j->row_bytes = (size_t)j->o->batch * (size_t)d->numbers * sizeof(float);
    err e = mem_alloc(j->payer, MEM_TRAINING, j->scratch_bytes, &j->scratch);
    return e ? e : mem_alloc(j->payer, MEM_TRAINING, j->row_bytes, (void **)&j->rows);
}

/* YOLOX: the first half of the run answers, SimOTA assigns, the second half compares. */
static err batch_yolox(struct train_job *j, const struct train_batch *b, float *ret_loss)
{
    const struct train_yolox *y = &j->detector.yolox;
    err e = train_net_run_forward(j->net);
    if (e) return e;
    struct tensor out = train_net_output(j->net, 0), to = tensor_view(TENSOR_F32, &out.shape, j->rows);
    if ((e = model_copy(&out, &to))) return e;
    float *assigned = train_net_target(j->net, 0).data, *box = train_net_target(j->net, 1).data, *class = train_net_target(j->net, 2).data;
    int64_t found = 0;
    for (int i = 0; i < b->count; i++)
        found += train_yolox_assign(y, j->rows + i * y->cells * (5 + y->classes), b->boxes + (size_t)i * TRAIN_JOB_BOXES, b->n_boxes[i], j->scratch, assigned + i * y->cells,
                                    box + 4 * i * y->cells, class + i * y->cells * y->classes);
    *(float *)train_net_target(j->net, 3).data = 1.0f / (float)MAX(found, 1);
    return train_net_run_rest(j->net, ret_loss);
}

static err batch(struct train_job *j, const struct train_batch *b, float *ret_loss)
{
    const struct train_centernet *c = &j->detector.centernet;
    int64_t plane = (int64_t)c->rows * c->columns;
    if (!j->detector.peaks) return batch_yolox(j, b, ret_loss);
    float *heat = train_net_target(j->net, 0).data, *size = train_net_target(j->net, 1).data, *offset = train_net_target(j->net, 2).data;
    for (int i = 0; i < b->count; i++)
        train_centernet_aim(c, b->boxes + (size_t)i * TRAIN_JOB_BOXES, b->n_boxes[i], heat + i * c->classes * plane, size + 2 * i * plane, offset + 2 * i * plane);
    return train_net_run(j->net, ret_loss);
}

static double scored(const struct train_scores *s)
{
    return s->ap50;
}

const struct train_task_kind train_task_detect = {.name = "detect", .score = "ap50", .boxes = true, .adapt = adapt, .loss = loss, .ready = ready, .batch = batch,
                                                  .evaluate = train_evaluate_detect, .scored = scored};
