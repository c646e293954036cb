/* The exports of the YOLO family that carry their decoder, in the layouts that are about:
 *
 *     v5       [N, rows, 5 + classes]   YOLOv5, v6, v7: cx cy w h objectness classes
 *     v8       [N, 4 + classes, rows]   YOLOv8, v9, v11: cx cy w h classes, one row per number
 *     end2end  [N, rows, 6]             YOLOv10, or an export with NMS inside: x1 y1 x2 y2 score class
 *
 * `auto` tells them apart by their sizes, and refuses where two fit. SPDX-License-Identifier: Apache-2.0 */
#include "task/head_impl.h"

static err resolve(const struct task_card *c, const struct task_output *o, enum task_yolo_layout *ret)
{
    *ret = c->layout;
    if (c->layout != TASK_YOLO_AUTO || o->rank != 3) return ERR_OK;
    bool v5 = o->dims[2] == 5 + c->class_count, v8 = o->dims[1] == 4 + c->class_count, end = o->dims[2] == 6;
    if (v5 + v8 + end > 1) {
        char text[96];
        return err_set(
            ERR_SHAPE,
            "%s: output '%s' is %s, which may be several YOLO layouts; add 'layout: v5', 'v8' or 'end2end'",
            c->path, o->name ? o->name : "?", head_dims_text(o, text));
    }
    *ret = v5 ? TASK_YOLO_V5 : end ? TASK_YOLO_END2END : TASK_YOLO_V8;
    return ERR_OK;
}

static err yolo_check(const struct task_card *c, const struct task_output *o, int n, struct head_needs *ret)
{
    (void)n;
    *ret = (struct head_needs){.boxes = true, .batched = true};
    err e = resolve(c, &o[0], &ret->layout);
    if (e) return e;
    if (ret->layout == TASK_YOLO_V5)
        return head_expect(c, &o[0], "rows of box, objectness and classes", 3,
                           (int64_t[]){-1, -1, 5 + c->class_count});
    if (ret->layout == TASK_YOLO_END2END)
        return head_expect(c, &o[0], "rows of box, score and class", 3, (int64_t[]){-1, -1, 6});
    return head_expect(c, &o[0], "columns of box and classes", 3, (int64_t[]){-1, 4 + c->class_count, -1});
}

static void offer_end2end(struct task_head *h, const float *v, float sx, float sy)
{
    if (v[4] > head_bar(h) && v[5] >= 0 && v[5] < (float)h->card->class_count)
        head_offer(h, v[0] * sx, v[1] * sy, v[2] * sx, v[3] * sy, fminf(v[4], 1), (int)v[5], NULL, 0);
}

/* A row of box, maybe objectness, and classes, whose numbers are `step` apart. */
static void offer_row(struct task_head *h, const float *v, size_t step, bool objectness, float sx, float sy)
{
    const struct task_card *c = h->card;
    float score = objectness ? head_score(c, v[4 * step]) : 1;
    if (!(score > head_bar(h))) return;
    const float *classes = v + (objectness ? 5 : 4) * step;
    int best = head_argmax(classes, c->class_count, step);
    score *= head_score(c, classes[(size_t)best * step]);
    float x = v[0] * sx, y = v[step] * sy, w = v[2 * step] * sx / 2, t = v[3 * step] * sy / 2;
    if (score > head_bar(h)) head_offer(h, x - w, y - t, x + w, y + t, score, best, NULL, 0);
}

static void yolo_run(struct task_head *h, const struct task_output *o, int n, struct task_result *r)
{
    (void)n, (void)r;
    const struct task_input *in = &h->card->inputs[0];
    float sx = h->card->normalised ? (float)in->width : 1, sy = h->card->normalised ? (float)in->height : 1;
    bool columns = h->needs.layout == TASK_YOLO_V8;
    int64_t rows = columns ? o[0].dims[2] : o[0].dims[1];
    for (int64_t i = 0; i < rows; i++) {
        if (columns)
            offer_row(h, o[0].data + i, (size_t)rows, false, sx, sy);
        else if (h->needs.layout == TASK_YOLO_V5)
            offer_row(h, o[0].data + i * o[0].dims[2], 1, true, sx, sy);
        else
            offer_end2end(h, o[0].data + i * 6, sx, sy);
    }
}

const struct head_ops head_yolo = {1, 1, yolo_check, yolo_run};
