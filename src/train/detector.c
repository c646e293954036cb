/* Answers of several outputs lie one output after the other, each of the whole batch. Boxes that overlap by more than 0.65 are suppressed in either kind: of equal
 * peaks side by side, too. SPDX-License-Identifier: Apache-2.0 */
#include "train/detector.h"

#include "task/peaks.h"

#include <math.h>

enum { MOST = 100 };
static const float OVERLAP = 0.65f;

err train_detector_of(const struct graph *g, int width, int height, struct train_detector *ret)
{
    struct train_detector d = {.width = width, .height = height, .peaks = train_centernet_is(g)};
    err e = d.peaks ? train_centernet_of(g, width, height, &d.centernet) : train_yolox_of(g, width, height, &d.yolox);
    if (e) return e;
    d.classes = d.peaks ? d.centernet.classes : d.yolox.classes;
    d.numbers = d.peaks ? (int64_t)(d.classes + 4) * d.centernet.rows * d.centernet.columns : d.yolox.cells * (5 + d.classes);
    *ret = d;
    return ERR_OK;
}

err train_loss_detector(struct graph_builder *b, const struct graph_training *t, void *context, int *ret_loss)
{
    struct train_detector *d = context;
    err e = train_detector_of(t->g, d->width, d->height, d);
    if (e) return e;
    return d->peaks ? train_loss_centernet(b, t, &d->centernet, ret_loss) : train_loss_yolox(b, t, &d->yolox, ret_loss);
}

err train_detector_read(const struct train_detector *d, const struct model_plan *p, float *rows)
{
    err e = ERR_OK;
    for (int i = 0; i < (d->peaks ? 3 : 1) && !e; i++) {
        struct tensor out = model_plan_output(p, i), to = tensor_view(TENSOR_F32, &out.shape, rows);
        e = model_copy(&out, &to);
        rows += tensor_count(&out.shape);
    }
    return e;
}

static void decode_yolox(const struct train_yolox *y, const float *rows, float least, struct task_candidates *to)
{
    for (int64_t i = 0; i < y->cells; i++) {
        const float *row = rows + i * (5 + y->classes);
        int best = 0, column, line, stride;
        for (int k = 1; k < y->classes; k++)
            if (row[5 + k] > row[5 + best]) best = k;
        float score = row[4] * row[5 + best];
        if (!(score > least)) continue;
        train_yolox_cell(y, i, &column, &line, &stride);
        float x = (row[0] + (float)column) * (float)stride, at = (row[1] + (float)line) * (float)stride;
        float w = expf(row[2]) * (float)stride / 2, h = expf(row[3]) * (float)stride / 2;
        struct task_detection d = {.box = task_box_clip((struct task_box){x - w, at - h, x + w, at + h}, (float)y->width, (float)y->height), .score = score, .class_id = best};
        task_candidates_offer(to, &d);
    }
}

int train_decode(const struct train_detector *d, const float *rows, int batch, int i, float least, struct task_detection *ret)
{
    struct task_candidates c = {.items = ret, .cap = TRAIN_CANDIDATES};
    if (!d->peaks) {
        decode_yolox(&d->yolox, rows + i * d->numbers, least, &c);
        return task_nms(ret, c.count, least, OVERLAP, false, MOST);
    }
    int64_t plane = (int64_t)d->centernet.rows * d->centernet.columns, heat = d->classes * plane;
    struct task_peaks p = {.heat = rows + i * heat, .size = rows + batch * heat + 2 * i * plane, .offset = rows + batch * (heat + 2 * plane) + 2 * i * plane, .classes = d->classes,
                           .rows = d->centernet.rows, .columns = d->centernet.columns, .width = (float)d->width, .height = (float)d->height};
    task_peaks_offer(&p, least, &c);
    int n = task_nms(ret, c.count, least, OVERLAP, false, MOST), kept = 0;
    for (int k = 0; k < n; k++) {
        ret[k].box = task_box_clip(ret[k].box, p.width, p.height);
        if (ret[k].box.x2 > ret[k].box.x1 && ret[k].box.y2 > ret[k].box.y1) ret[kept++] = ret[k];
    }
    return kept;
}
