/* UltraFace, and any detector that decodes its boxes itself: scores [N, boxes, 1 + classes] with the
 * background first, and boxes [N, boxes, 4] as corners relative to the picture. NMS is ours.
 * SPDX-License-Identifier: Apache-2.0 */
#include "task/head_impl.h"

static err ultraface_check(const struct task_card *c, const struct task_output *o, int n,
                           struct head_needs *ret)
{
    (void)n;
    *ret = (struct head_needs){.boxes = true, .batched = true};
    err e = head_expect(c, &o[0], "scores (background first)", 3, (int64_t[]){-1, -1, 1 + c->class_count});
    return e ? e : head_expect(c, &o[1], "boxes", 3, (int64_t[]){-1, o[0].dims[1], 4});
}

static void ultraface_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n, (void)r;
    const struct task_card *c = h->card;
    float w = (float)c->inputs[0].width, t = (float)c->inputs[0].height;
    for (int64_t i = 0; i < o[0].dims[1]; i++) {
        const float *v = o[0].data + i * (1 + c->class_count) + 1, *b = o[1].data + i * 4;
        int best = head_argmax(v, c->class_count, 1);
        float score = head_score(c, v[best]);
        if (score > head_bar(h)) head_offer(h, b[0] * w, b[1] * t, b[2] * w, b[3] * t, score, best, NULL, 0);
    }
}

const struct head_ops head_ultraface = {2, 2, ultraface_check, ultraface_run};
