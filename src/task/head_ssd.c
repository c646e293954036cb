/* SSD before decoding (Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016; the centre-size code of
 * its Caffe implementation): locations and confidences per prior, priors from the card: grid by grid, row by
 * row, cell by cell.
 *
 *     cx = prior.cx + loc0 * variance0 * prior.w        w = prior.w * exp(loc2 * variance2)
 *
 * Outputs may be flat ([N, priors * 4]) or not ([N, priors, 4]). SPDX-License-Identifier: Apache-2.0 */
#include "task/head_impl.h"

static int64_t count_priors(const struct task_card *c)
{
    int64_t n = 0;
    for (int i = 0; i < c->prior_count; i++)
        n += (int64_t)c->priors[i].grid_w * c->priors[i].grid_h * c->priors[i].count;
    return n;
}

static err expect(const struct task_card *c, const struct task_output *o, const char *what, int64_t rows,
                  int64_t columns)
{
    if (o->rank == 3) return head_expect(c, o, what, 3, (int64_t[]){-1, rows, columns});
    return head_expect(c, o, what, 2, (int64_t[]){-1, rows * columns});
}

static err ssd_check(const struct task_card *c, const struct task_output *o, int n, struct head_needs *ret)
{
    (void)n;
    *ret = (struct head_needs){.boxes = true, .batched = true, .floats = (size_t)c->class_count + 1};
    err e = expect(c, &o[0], "locations for the card's priors", count_priors(c), 4);
    return e ? e
             : expect(c, &o[1], "confidences for the card's priors (background first)", count_priors(c),
                      1 + c->class_count);
}

static void offer(struct task_head *h, const float *loc, const float *conf, float cx, float cy, float w,
                  float t)
{
    const struct task_card *c = h->card;
    if (c->activation == TASK_SOFTMAX) {
        for (int i = 0; i <= c->class_count; i++)
            h->floats[i] = conf[i];
        head_softmax(h->floats, c->class_count + 1);
        conf = h->floats;
    }
    int best = head_argmax(conf + 1, c->class_count, 1);
    float score = head_score(c, conf[1 + best]);
    if (!(score > head_bar(h))) return;
    float x = cx + loc[0] * c->variances[0] * w, y = cy + loc[1] * c->variances[1] * t;
    float half_w = w * expf(loc[2] * c->variances[2]) / 2, half_h = t * expf(loc[3] * c->variances[3]) / 2;
    head_offer(h, x - half_w, y - half_h, x + half_w, y + half_h, score, best, NULL, 0);
}

static void ssd_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n, (void)r;
    const struct task_card *c = h->card;
    const float *loc = o[0].data, *conf = o[1].data;
    for (int k = 0; k < c->prior_count; k++) {
        const struct task_priors *p = &c->priors[k];
        for (int i = 0; i < p->grid_w * p->grid_h * p->count; i++, loc += 4, conf += 1 + c->class_count) {
            int cell = i / p->count, one = i % p->count;
            offer(h, loc, conf, ((float)(cell % p->grid_w) + p->offset) * p->step,
                  ((float)(cell / p->grid_w) + p->offset) * p->step, p->w[one], p->h[one]);
        }
    }
}

const struct head_ops head_ssd = {2, 2, ssd_check, ssd_run};
