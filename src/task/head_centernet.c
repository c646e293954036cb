/* CenterNet (Zhou et al., "Objects as Points", 2019): a heat map per class, a map of sides and one of offsets, all of the same rows and columns; the stride is
 * the picture's sides over the map's. Boxes as in peaks.h. SPDX-License-Identifier: Apache-2.0 */
#include "task/head_impl.h"
#include "task/peaks.h"

static err centernet_check(const struct task_card *c, const struct task_output *o, int n, struct head_needs *ret)
{
    (void)n;
    *ret = (struct head_needs){.boxes = true, .batched = true};
    err e = head_expect(c, &o[0], "a heat map per class", 4, (int64_t[]){-1, c->class_count, -1, -1});
    if (!e) e = head_expect(c, &o[1], "a map of widths and heights", 4, (int64_t[]){-1, 2, o[0].dims[2], o[0].dims[3]});
    return e ? e : head_expect(c, &o[2], "a map of the centre's offsets", 4, (int64_t[]){-1, 2, o[0].dims[2], o[0].dims[3]});
}

static void centernet_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n, (void)r;
    const struct task_card *c = h->card;
    struct task_peaks p = {.heat = o[0].data, .size = o[1].data, .offset = o[2].data, .classes = c->class_count, .rows = (int)o[0].dims[2],
                           .columns = (int)o[0].dims[3], .width = (float)c->inputs[0].width, .height = (float)c->inputs[0].height,
                           .sigmoid = c->activation == TASK_SIGMOID};
    task_peaks_offer(&p, c->score, &h->candidates);
}

const struct head_ops head_centernet = {3, 3, centernet_check, centernet_run};
