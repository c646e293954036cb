/* Two networks, or one and labels, over the same pictures. Detections of all pictures are kept until the end, at most 100 each, so the room is known before.
 * SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_score.h"
#include "task/alike.h"
#include "train/runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TRUTHS = 120 };

const char *merge_measure_name(enum merge_measure m)
{
    static const char *const NAMES[] = {"", "top-1", "AP50", "same class as the original", "AP50 against the original", "likeness to the original"};
    return NAMES[m];
}

err merge_score_classes(const struct graph *g, struct mem_payer *payer, int64_t *ret)
{
    struct tensor_shape in = g->values[g->inputs[0]].shape;
    struct graph *one;
    in.dims[0] = 1;
    err e = graph_specialise(g, &in, payer, &one);
    if (e) return e;
    const struct tensor_shape *s = &one->values[one->outputs[0]].shape;
    int64_t n = 1;
    for (int i = 1; i < s->rank; i++) n *= s->dims[i];
    *ret = one->n_outputs == 1 && s->rank >= 2 && n == s->dims[1] ? n : 0;
    graph_free(&one);
    return ERR_OK;
}

enum merge_measure merge_score_measure(int64_t classes, const struct task_card *card, const struct train_set *set, bool labels)
{
    bool detects = card && task_head_detects(card->head);
    if (labels && train_set_has_boxes(set) && detects) return MERGE_AP50;
    if (labels && !train_set_has_boxes(set) && classes > 1 && classes == train_set_classes(set)) return MERGE_TOP1;
    if (detects) return MERGE_SAME_BOXES;
    if (classes > 1 && (!card || card->head == TASK_CLASSIFY)) return MERGE_SAME_CLASS;
    return MERGE_SAME_NUMBERS;
}

/* ---- a network and its answers */

struct answers {
    struct train_runner r;
    struct mem_payer *payer;
    int n;
    struct task_output out[TASK_MAX_OUTPUTS];
    float *rows;
    size_t bytes;
    struct task_head *head;
    struct task_card card; /* the caller's, with its thresholds lowered */
};

static size_t plan_output_count(const struct model_plan *p, int i)
{
    struct tensor t = model_plan_output(p, i);
    return (size_t)tensor_count(&t.shape);
}

static err open_answers(struct answers *a, const struct merge_score *s, const struct graph *g, struct mem_payer *payer)
{
    a->payer = payer;
    err e = train_runner_open(g, &s->o, s->o.batch, payer, &a->r);
    if (e) return e;
    model_plan_set_stop(a->r.plan, s->o.stop);
    a->n = model_output_count(a->r.model);
    if (a->n > TASK_MAX_OUTPUTS) return err_set(ERR_LIMIT, "%s: %d outputs; at most %d can be compared", g->name, a->n, TASK_MAX_OUTPUTS);
    size_t count = 0;
    for (int i = 0; i < a->n; i++) count += plan_output_count(a->r.plan, i);
    a->bytes = MAX(count, 1) * sizeof(float);
    if ((e = mem_alloc(payer, MEM_OTHER, a->bytes, (void **)&a->rows))) return e;
    float *at = a->rows;
    for (int i = 0; i < a->n; i++) {
        struct tensor t = model_plan_output(a->r.plan, i);
        if (t.dtype != TENSOR_F32) return err_set(ERR_UNSUPPORTED, "%s: output '%s' is %s; float32 can be compared", g->name, model_output(a->r.model, i).name, tensor_dtype_name(t.dtype));
        a->out[i] = (struct task_output){.name = model_output(a->r.model, i).name, .rank = t.shape.rank, .data = at};
        memcpy(a->out[i].dims, t.shape.dims, sizeof a->out[i].dims);
        at += tensor_count(&t.shape);
    }
    if (s->measure != MERGE_AP50 && s->measure != MERGE_SAME_BOXES) return ERR_OK;
    a->card = task_alike_card(s->card);
    return task_head_new(payer, &a->card, a->out, a->n, &a->head);
}

static void close_answers(struct answers *a)
{
    if (!a->payer) return;
    task_head_free(&a->head);
    mem_free(a->payer, MEM_OTHER, a->rows, a->bytes);
    train_runner_close(&a->r);
}

static err answer(struct answers *a, const struct train_picture *p, const struct train_batch *b)
{
    struct tensor in = model_plan_input(a->r.plan, 0);
    err e = train_fill_input(p, b->images, b->count, &in);
    if (!e) e = model_plan_run(a->r.plan, NULL);
    for (int i = 0; i < a->n && !e; i++) {
        struct tensor out = model_plan_output(a->r.plan, i), to = tensor_view(TENSOR_F32, &out.shape, (void *)a->out[i].data);
        e = model_copy(&out, &to);
    }
    return e;
}

/* ---- sums */

enum { STRETCHES = 20 };

struct sums {
    const struct merge_score *s;
    struct mem_payer *payer;
    struct task_ap_box *truth, *found;
    size_t n_truth, n_found;
    int64_t room, pictures, same[STRETCHES], each[STRETCHES]; /* each: pictures of a stretch */
    double wrong[STRETCHES];
};

static int stretch_of(const struct sums *u, int64_t picture)
{
    return (int)(picture * STRETCHES / MAX(u->room, 1));
}

static err offer_boxes(struct sums *u, struct answers *a, int item, bool truth)
{
    struct task_result r;
    err e = task_head_run(a->head, a->out, a->n, item, &r);
    if (e) return e;
    if (truth) u->n_truth += (size_t)task_alike_boxes(&r, TASK_ALIKE_SURE, (int)u->pictures, u->truth + u->n_truth);
    else u->n_found += (size_t)task_alike_boxes(&r, 0, (int)u->pictures, u->found + u->n_found);
    return ERR_OK;
}

static void offer_truth(struct sums *u, const struct train_batch *b, int item)
{
    for (int k = 0; k < MIN(b->n_boxes[item], TRUTHS); k++) {
        const struct train_box *t = &b->boxes[(size_t)item * TRUTHS + (size_t)k];
        u->truth[u->n_truth++] = (struct task_ap_box){.image = (int)u->pictures, .class_id = t->class_id, .box = {t->x1, t->y1, t->x2, t->y2}};
    }
}

static err take_batch(struct sums *u, struct answers *y, struct answers *t, const struct train_batch *b)
{
    err e = ERR_OK;
    for (int i = 0; i < b->count && !e; i++) {
        if (b->samples[i] < 0) continue;
        int at = stretch_of(u, u->pictures);
        switch (u->s->measure) {
        case MERGE_SAME_CLASS: u->same[at] += task_alike_class(y->out, i) == task_alike_class(t->out, i); break;
        case MERGE_AP50: offer_truth(u, b, i); e = offer_boxes(u, y, i, false); break;
        case MERGE_SAME_BOXES:
            if (!(e = offer_boxes(u, t, i, true))) e = offer_boxes(u, y, i, false);
            break;
        default: u->wrong[at] += task_alike_distance(y->out, i, t->out, i, y->n); break;
        }
        u->pictures++;
        u->each[at]++;
    }
    return e;
}

/* Boxes of all pictures but one stretch's, which lie side by side. */
static size_t leave_out(const struct sums *u, int without, const struct task_ap_box *from, size_t n, struct task_ap_box *to)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (stretch_of(u, from[i].image) != without) to[kept++] = from[i];
    return kept;
}

static err score_boxes(const struct sums *u, const struct task_ap_box *truth, size_t n_truth, const struct task_ap_box *found, size_t n_found, double *ret)
{
    struct task_ap ap;
    int classes = MAX(u->s->card ? u->s->card->class_count : 1, 1);
    if (u->s->measure == MERGE_SAME_BOXES) return task_alike_ap(u->payer, truth, n_truth, found, n_found, classes, ret);
    err e = task_ap_compute(u->payer, truth, n_truth, found, n_found, classes, TASK_ALIKE_SURE, NULL, &ap);
    if (!e) *ret = fmax(ap.ap50, 0);
    return e;
}

/* Without one stretch of the pictures; -1: of all. `room`: for the boxes that are left, if it is a measure of boxes. */
static err score_without(const struct sums *u, int without, struct task_ap_box *room, double *ret)
{
    int64_t same = 0, n = 0;
    double wrong = 0;
    if (room) {
        size_t n_truth = leave_out(u, without, u->truth, u->n_truth, room), n_found = leave_out(u, without, u->found, u->n_found, room + n_truth);
        return score_boxes(u, room, n_truth, room + n_truth, n_found, ret);
    }
    for (int k = 0; k < STRETCHES; k++)
        if (k != without) same += u->same[k], wrong += u->wrong[k], n += u->each[k];
    *ret = !n ? 0 : u->s->measure == MERGE_SAME_CLASS ? (double)same / (double)n : fmax(0, 1 - wrong / (double)n);
    return ERR_OK;
}

static err jackknife(const struct sums *u, struct task_ap_box *room, double *ret)
{
    double part[STRETCHES];
    int n = 0;
    for (int k = 0; k < STRETCHES; k++) {
        if (!u->each[k]) continue;
        err e = score_without(u, k, room, &part[n++]);
        if (e) return e;
    }
    *ret = task_alike_error(part, n);
    return ERR_OK;
}

static err finish(const struct sums *u, double *ret, double *ret_error)
{
    struct task_ap_box *room = NULL;
    size_t bytes = (u->n_truth + u->n_found) * sizeof *room;
    if (!u->pictures) return err_set(ERR_FORMAT, "none of the pictures to score with could be read");
    if (u->truth && !u->n_truth)
        return err_set(ERR_FORMAT, "there is no box in any of the %lld pictures to score with, so nothing can be measured: give others", (long long)u->pictures);
    err e = u->truth ? score_boxes(u, u->truth, u->n_truth, u->found, u->n_found, ret) : score_without(u, -1, NULL, ret);
    if (e || !ret_error) return e;
    if (u->truth) e = mem_alloc(u->payer, MEM_OTHER, bytes, (void **)&room);
    if (!e) e = jackknife(u, room, ret_error);
    if (room) mem_free(u->payer, MEM_OTHER, room, bytes);
    return e;
}

static err run_over(struct sums *u, const struct train_picture *picture, struct answers *y, struct answers *t, bool teacher)
{
    struct train_data_options d = train_evaluate_data(&u->s->o, picture, u->s->o.batch);
    struct train_data *data = NULL;
    const struct train_batch *b;
    d.max_boxes = TRUTHS;
    err e = train_data_open(u->s->set, &d, u->payer, &data);
    while (!e && !(e = train_data_next(data, &b))) {
        e = answer(y, picture, b);
        if (!e && teacher) e = answer(t, picture, b);
        if (!e) e = take_batch(u, y, t, b);
    }
    train_data_close(&data);
    return e == ERR_CLOSED ? ERR_OK : e;
}

err merge_score_run(const struct merge_score *s, const struct graph *g, double *ret, double *ret_error)
{
    struct train_scores scores;
    if (s->measure == MERGE_TOP1) {
        err e = train_evaluate_classify(g, s->set, &s->o, &scores);
        if (!e) *ret = scores.top1;
        if (!e && ret_error) *ret_error = sqrt(scores.top1 * (1 - scores.top1) / (double)MAX(s->o.samples ? s->o.n_samples : train_set_count(s->set), 1));
        return e;
    }
    struct train_picture picture;
    struct sums u = {.s = s, .payer = mem_payer_new(s->o.budget, "score"), .room = s->o.samples ? s->o.n_samples : train_set_count(s->set)};
    struct answers y = {0}, t = {0};
    bool boxes = s->measure == MERGE_AP50 || s->measure == MERGE_SAME_BOXES, teacher = s->measure != MERGE_AP50;
    size_t bytes = (size_t)u.room * TRUTHS * sizeof *u.truth;
    err e = train_picture_input(g, &picture);
    if (!e && boxes) e = mem_alloc(u.payer, MEM_OTHER, bytes, (void **)&u.truth);
    if (!e && boxes) e = mem_alloc(u.payer, MEM_OTHER, bytes, (void **)&u.found);
    if (!e) e = open_answers(&y, s, g, u.payer);
    if (!e && teacher) e = open_answers(&t, s, s->original, u.payer);
    if (!e) e = run_over(&u, &picture, &y, &t, teacher);
    if (!e) e = finish(&u, ret, ret_error);
    close_answers(&y);
    close_answers(&t);
    if (boxes) {
        mem_free(u.payer, MEM_OTHER, u.truth, bytes);
        mem_free(u.payer, MEM_OTHER, u.found, bytes);
    }
    mem_payer_free(&u.payer);
    return e;
}
