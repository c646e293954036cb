/* Evaluation of detectors. Truth and detections of all pictures are kept until the end, at most 100 detections a picture (what COCO counts), so the room is known
 * before. SPDX-License-Identifier: Apache-2.0 */
#include "task/metric.h"
#include "task/nms.h"
#include "train/detector.h"

enum { MOST = 100, TRUTHS = 120, CANDIDATES = TRAIN_CANDIDATES };
static const float LEAST_SCORE = 0.01f;

struct sums {
    struct mem_payer *payer;
    struct task_ap_box *truth, *found;
    struct task_detection *candidates;
    float *rows;
    size_t n_truth, n_found, row_bytes;
    int64_t pictures;
    struct train_scores scores;
};

static err take(struct sums *s, int64_t pictures, size_t row_bytes)
{
    s->pictures = pictures;
    s->row_bytes = row_bytes;
    err e = mem_alloc(s->payer, MEM_OTHER, (size_t)pictures * TRUTHS * sizeof *s->truth, (void **)&s->truth);
    if (!e) e = mem_alloc(s->payer, MEM_OTHER, (size_t)pictures * MOST * sizeof *s->found, (void **)&s->found);
    if (!e) e = mem_alloc(s->payer, MEM_OTHER, CANDIDATES * sizeof *s->candidates, (void **)&s->candidates);
    if (!e) e = mem_alloc(s->payer, MEM_OTHER, row_bytes, (void **)&s->rows);
    return e;
}

static void give(struct sums *s)
{
    mem_free(s->payer, MEM_OTHER, s->truth, (size_t)s->pictures * TRUTHS * sizeof *s->truth);
    mem_free(s->payer, MEM_OTHER, s->found, (size_t)s->pictures * MOST * sizeof *s->found);
    mem_free(s->payer, MEM_OTHER, s->candidates, CANDIDATES * sizeof *s->candidates);
    mem_free(s->payer, MEM_OTHER, s->rows, s->row_bytes);
}

static void take_batch(struct sums *s, const struct train_detector *y, int batch, const struct train_batch *b)
{
    for (int i = 0; i < b->count; i++) {
        if (b->samples[i] < 0) {
            s->scores.skipped++;
            continue;
        }
        int image = (int)s->scores.samples++, n = train_decode(y, s->rows, batch, i, LEAST_SCORE, s->candidates);
        for (int k = 0; k < n; k++)
            s->found[s->n_found++] = (struct task_ap_box){.image = image, .class_id = s->candidates[k].class_id, .score = s->candidates[k].score, .box = s->candidates[k].box};
        for (int k = 0; k < MIN(b->n_boxes[i], TRUTHS); k++) {
            const struct train_box *t = &b->boxes[(size_t)i * TRUTHS + (size_t)k];
            s->truth[s->n_truth++] = (struct task_ap_box){.image = image, .class_id = t->class_id, .box = {t->x1, t->y1, t->x2, t->y2}};
        }
    }
}

/* Classes that no truth has do not count, so what a network says of others than the set's does no harm. */
static err finish(struct sums *s, const struct train_detector *y, struct train_scores *ret)
{
    struct task_ap ap;
    if (!s->scores.samples) return err_set(ERR_FORMAT, "none of the %lld pictures could be read", (long long)s->scores.skipped);
    err e = task_ap_compute(s->payer, s->truth, s->n_truth, s->found, s->n_found, y->classes, 0.3f, NULL, &ap);
    if (e) return e;
    s->scores.ap50 = ap.ap50;
    s->scores.ap = ap.ap;
    *ret = s->scores;
    return ERR_OK;
}

/* Without a box in any of them there is nothing to score by. */
static err some_box(const struct train_set *set, const struct train_evaluate_options *o)
{
    int64_t n = o->samples ? o->n_samples : train_set_count(set);
    for (int64_t i = 0; i < n; i++) {
        int boxes;
        train_set_boxes(set, o->samples ? o->samples[i] : i, &boxes);
        if (boxes) return ERR_OK;
    }
    return err_set(ERR_USAGE, "none of the %lld pictures to score on has a box in it: give others (--val, --held-out)", (long long)n);
}

err train_evaluate_detect(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret)
{
    struct train_picture picture;
    struct train_runner r = {0};
    struct train_data *data = NULL;
    const struct train_batch *b;
    struct train_detector y = {0};
    int batch = o->batch > 0 ? o->batch : 8;
    int64_t begin = clock_ns();
    err e = train_picture_input(g, &picture);
    if (e) return e;
    if (!train_set_has_boxes(set)) return err_set(ERR_USAGE, "the data has one class per picture and no boxes; this is --task classify");
    if (!o->unscored && (e = some_box(set, o))) return e;
    struct sums s = {.payer = mem_payer_new(o->budget, "evaluation")};
    e = train_runner_open(g, o, batch, s.payer, &r);
    if (!e) e = train_detector_of(model_graph(r.model), picture.width, picture.height, &y);
    if (!e && train_set_classes(set) > y.classes)
        e = err_set(ERR_USAGE, "the data has %d classes, the network %d: say which is which with --classes NAME=NUMBER,...", train_set_classes(set), y.classes);
    if (!e) e = take(&s, o->samples ? o->n_samples : train_set_count(set), (size_t)batch * (size_t)y.numbers * sizeof(float));
    struct train_data_options d = train_evaluate_data(o, &picture, batch);
    d.max_boxes = TRUTHS;
    if (!e) e = train_data_open(set, &d, s.payer, &data);
    while (!e && !(e = train_data_next(data, &b))) {
        struct tensor in = model_plan_input(r.plan, 0);
        e = train_fill_input(&picture, b->images, b->count, &in);
        if (!e) e = model_plan_run(r.plan, NULL);
        if (!e) e = train_detector_read(&y, r.plan, s.rows);
        if (!e) take_batch(&s, &y, batch, b);
    }
    if (e == ERR_CLOSED) e = finish(&s, &y, ret);
    if (!e) ret->seconds = (double)(clock_ns() - begin) * 1e-9;
    train_data_close(&data);
    give(&s);
    train_runner_close(&r);
    mem_payer_free(&s.payer);
    return e;
}
