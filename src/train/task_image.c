/* Pictures into pictures: brighter, sharper, without noise. The loss is a sum of L1, L2 and 1 - SSIM by weight, and, if asked for, what a second network says that
 * tells answers from true pictures. SPDX-License-Identifier: Apache-2.0 */
#include "train/task.h"

static err adapt(struct train_job *j, struct graph *g)
{
    return j->o->image.adversary > 0 ? train_add_rival(g, j->o->seed) : ERR_OK;
}

static err loss(struct train_job *j, struct train_net_options *n)
{
    j->image = j->o->image;
    if (j->image.adversary <= 0 && j->image.l1 <= 0 && j->image.mse <= 0 && j->image.ssim <= 0) j->image.l1 = 1;
    j->image.range = 255 * (j->o->feed.scale[0] > 0 ? (double)j->o->feed.scale[0] : 1);
    n->loss = train_loss_image;
    n->loss_context = &j->image;
    if (j->image.adversary > 0) {
        n->rival = TRAIN_HEAD ".rival";
        n->rival_loss = &j->image.rival;
    }
    return ERR_OK;
}

static err batch(struct train_job *j, const struct train_batch *b, float *ret_loss)
{
    struct tensor to = train_net_target(j->net, 0);
    struct train_picture p = {.width = (int)to.shape.dims[3], .height = (int)to.shape.dims[2], .channels = (int)to.shape.dims[1]};
    err e = train_fill_input(&p, b->targets, b->count, &to);
    return e ? e : train_net_run(j->net, ret_loss);
}

static err data(struct train_job *j, struct train_data_options *d)
{
    struct tensor to = train_net_target(j->net, 0);
    d->target_width = (int)to.shape.dims[3];
    d->target_height = (int)to.shape.dims[2];
    return ERR_OK;
}

static double scored(const struct train_scores *s)
{
    return s->psnr;
}

const struct train_task_kind train_task_image = {.name = "image", .score = "psnr", .adapt = adapt, .loss = loss, .data = data, .batch = batch,
                                                 .evaluate = train_evaluate_image, .scored = scored};
