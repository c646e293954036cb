/* YOLOX without its decoder (Ge et al., "YOLOX: Exceeding YOLO Series in 2021", section 2.1): anchor-free,
 * one row (cx, cy, w, h, objectness, classes) per cell of each stride, row by row, strides in the card's
 * order. centre = (xy + cell) * stride, side = exp(wh) * stride, score = objectness * class. Sigmoids are in
 * the model unless the card says otherwise. SPDX-License-Identifier: Apache-2.0 */
#include "task/head_impl.h"

static err yolox_check(const struct task_card *c, const struct task_output *o, int n, struct head_needs *ret)
{
    (void)n;
    int64_t cells = 0;
    for (int s = 0; s < c->stride_count; s++)
        cells += (int64_t)(c->inputs[0].width / c->strides[s]) * (c->inputs[0].height / c->strides[s]);
    *ret = (struct head_needs){.boxes = true, .batched = true};
    return head_expect(c, &o[0], "rows of box, objectness and classes", 3,
                       (int64_t[]){-1, cells, 5 + c->class_count});
}

static void yolox_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n, (void)r;
    const struct task_card *c = h->card;
    const float *v = o[0].data;
    for (int s = 0; s < c->stride_count; s++) {
        int stride = c->strides[s], across = c->inputs[0].width / stride, down = c->inputs[0].height / stride;
        for (int i = 0; i < across * down; i++, v += 5 + c->class_count) {
            float objectness = head_score(c, v[4]);
            if (!(objectness > head_bar(h))) continue;
            int best = head_argmax(v + 5, c->class_count, 1);
            float score = objectness * head_score(c, v[5 + best]);
            float x = (v[0] + (float)(i % across)) * (float)stride,
                  y = (v[1] + (float)(i / across)) * (float)stride;
            float w = expf(v[2]) * (float)stride / 2, t = expf(v[3]) * (float)stride / 2;
            head_offer(h, x - w, y - t, x + w, y + t, score, best, NULL, 0);
        }
    }
}

const struct head_ops head_yolox = {1, 1, yolox_check, yolox_run};
