/* NanoDet: per stride a map of class scores and a map of four distances, each a distribution over reg_max + 1
 * bins whose mean is the distance in strides (Li et al., "Generalized Focal Loss", NeurIPS 2020,
 * section 3.2). Outputs in the card's order: the class maps of all strides, then the distance maps. The
 * centre of a cell is (cell + 0.5) * stride. SPDX-License-Identifier: Apache-2.0 */
#include "task/head_impl.h"

static int cells(const struct task_card *c, int s, int *ret_across)
{
    *ret_across = (c->inputs[0].width + c->strides[s] - 1) / c->strides[s];
    return *ret_across * ((c->inputs[0].height + c->strides[s] - 1) / c->strides[s]);
}

static err nanodet_check(const struct task_card *c, const struct task_output *o, int n,
                         struct head_needs *ret)
{
    (void)n;
    *ret = (struct head_needs){.boxes = true, .batched = true};
    for (int s = 0; s < c->stride_count; s++) {
        int across, count = cells(c, s, &across);
        err e = head_expect(c, &o[s], "a class map", 3, (int64_t[]){-1, count, c->class_count});
        if (e) return e;
        e = head_expect(c, &o[c->stride_count + s], "a distance map", 3,
                        (int64_t[]){-1, count, 4 * (c->reg_max + 1)});
        if (e) return e;
    }
    return ERR_OK;
}

/* Mean of the softmax of `bins` numbers. */
static float distance(const float *v, int bins)
{
    float p[64], mean = 0;
    for (int i = 0; i < bins; i++)
        p[i] = v[i];
    head_softmax(p, bins);
    for (int i = 1; i < bins; i++)
        mean += (float)i * p[i];
    return mean;
}

static void nanodet_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n, (void)r;
    const struct task_card *c = h->card;
    int bins = c->reg_max + 1;
    for (int s = 0; s < c->stride_count; s++) {
        float stride = (float)c->strides[s];
        int across, count = cells(c, s, &across);
        for (int i = 0; i < count; i++) {
            const float *v = o[s].data + (int64_t)i * c->class_count;
            const float *d = o[c->stride_count + s].data + (int64_t)i * 4 * bins;
            int best = head_argmax(v, c->class_count, 1);
            float score = head_score(c, v[best]);
            if (!(score > head_bar(h))) continue;
            float x = ((float)(i % across) + 0.5f) * stride, y = ((float)(i / across) + 0.5f) * stride;
            head_offer(h, x - distance(d, bins) * stride, y - distance(d + bins, bins) * stride,
                       x + distance(d + 2 * bins, bins) * stride, y + distance(d + 3 * bins, bins) * stride,
                       score, best, NULL, 0);
        }
    }
}

const struct head_ops head_nanodet = {2, TASK_MAX_OUTPUTS, nanodet_check, nanodet_run};
