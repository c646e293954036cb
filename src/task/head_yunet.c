/* YuNet as published in 2021: loc [priors, 14] (box, then five landmarks), conf [priors, 2], iou [priors, 1],
 * without a batch dimension. Boxes are coded as in SSD but with one variance for w and another for h,
 * landmarks as centres; score = sqrt(face * iou), iou cut to 0..1, as OpenCV's own reader has it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "task/head_impl.h"

static err yunet_check(const struct task_card *c, const struct task_output *o, int n, struct head_needs *ret)
{
    (void)n;
    *ret = (struct head_needs){.boxes = true};
    int64_t priors = 0;
    for (int i = 0; i < c->prior_count; i++)
        priors += (int64_t)c->priors[i].grid_w * c->priors[i].grid_h * c->priors[i].count;
    err e = head_expect(c, &o[0], "boxes and landmarks for the card's priors", 2, (int64_t[]){priors, 14});
    if (!e) e = head_expect(c, &o[1], "confidences for the card's priors", 2, (int64_t[]){priors, 2});
    return e ? e : head_expect(c, &o[2], "overlaps for the card's priors", 2, (int64_t[]){priors, 1});
}

static void offer(struct task_head *h, const float *loc, float score, float cx, float cy, float w, float t)
{
    const float *var = h->card->variances;
    struct task_point marks[TASK_MAX_LANDMARKS];
    for (int i = 0; i < TASK_MAX_LANDMARKS; i++) {
        marks[i].x = cx + loc[4 + 2 * i] * var[0] * w;
        marks[i].y = cy + loc[5 + 2 * i] * var[1] * t;
    }
    float x = cx + loc[0] * var[0] * w, y = cy + loc[1] * var[1] * t;
    float half_w = w * expf(loc[2] * var[2]) / 2, half_h = t * expf(loc[3] * var[3]) / 2;
    head_offer(h, x - half_w, y - half_h, x + half_w, y + half_h, score, 0, marks, TASK_MAX_LANDMARKS);
}

static void yunet_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n, (void)r;
    const struct task_card *c = h->card;
    int64_t row = 0;
    for (int k = 0; k < c->prior_count; k++) {
        const struct task_priors *p = &c->priors[k];
        for (int i = 0; i < p->grid_w * p->grid_h * p->count; i++, row++) {
            float iou = o[2].data[row],
                  score = sqrtf(head_score(c, o[1].data[2 * row + 1]) * fminf(fmaxf(iou, 0), 1));
            if (isnan(iou) || !(score > head_bar(h))) continue;
            int cell = i / p->count, one = i % p->count;
            offer(h, o[0].data + 14 * row, score, ((float)(cell % p->grid_w) + p->offset) * p->step,
                  ((float)(cell / p->grid_w) + p->offset) * p->step, p->w[one], p->h[one]);
        }
    }
}

const struct head_ops head_yunet = {3, 3, yunet_check, yunet_run};
