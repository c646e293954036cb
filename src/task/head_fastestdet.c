/* FastestDet: one map [N, 5 + classes, rows, columns]: objectness, tanh of the centre's offset in cells,
 * sigmoid of the sides relative to the picture, class scores. score = objectness^0.6 * class^0.4, as its own
 * code has it. Objectness and classes have been through sigmoid and softmax in the model.
 * SPDX-License-Identifier: Apache-2.0 */
#include "task/head_impl.h"

static err fastestdet_check(const struct task_card *c, const struct task_output *o, int n,
                            struct head_needs *ret)
{
    (void)n;
    *ret = (struct head_needs){.boxes = true, .batched = true};
    return head_expect(c, &o[0], "a map of objectness, box and classes", 4,
                       (int64_t[]){-1, 5 + c->class_count, -1, -1});
}

static void fastestdet_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n, (void)r;
    const struct task_card *c = h->card;
    int down = (int)o[0].dims[2], across = (int)o[0].dims[3];
    size_t plane = (size_t)down * (size_t)across;
    float width = (float)c->inputs[0].width, height = (float)c->inputs[0].height;
    for (size_t i = 0; i < plane; i++) {
        const float *v = o[0].data + i;
        float objectness = powf(head_score(c, v[0]), 0.6f);
        if (!(objectness > head_bar(h))) continue;
        int best = head_argmax(v + 5 * plane, c->class_count, plane);
        float score = objectness * powf(head_score(c, v[(size_t)(5 + best) * plane]), 0.4f);
        float x = ((float)(i % (size_t)across) + tanhf(v[plane])) / (float)across * width;
        float y = ((float)(i / (size_t)across) + tanhf(v[2 * plane])) / (float)down * height;
        float w = head_sigmoid(v[3 * plane]) * width / 2, t = head_sigmoid(v[4 * plane]) * height / 2;
        head_offer(h, x - w, y - t, x + w, y + t, score, best, NULL, 0);
    }
}

const struct head_ops head_fastestdet = {1, 1, fastestdet_check, fastestdet_run};
