/* Average precision as COCO's evaluator (pycocotools, cocoeval.py) computes it, for area 'all' and 100
 * detections.
 *
 * Per class and threshold: detections of a picture, best first, each take the free truth with the largest
 * overlap that reaches the threshold (a truth to be ignored only if no other fits; such a match counts
 * neither way). Over all pictures, again best first, precision is made monotone from the right and read at
 * recalls 0, 0.01, .. 1; AP is their mean. The work is O(thresholds x detections x truths of that picture);
 * rows are sorted by (class, image) once, so that a picture's boxes lie together. SPDX-License-Identifier:
 * Apache-2.0 */
#include "task/metric.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { THRESHOLDS = 10, RECALLS = 101, MOST_PER_IMAGE = 100 };

struct scored {
    float score;
    uint32_t order;
    bool hit, ignore;
};

struct work {
    const struct task_ap_box **truth, **found; /* sorted */
    bool *taken;                               /* beside truth */
    struct scored *scored;                     /* detections of the class at hand */
    double *precision;
};

static int compare_place(const struct task_ap_box *a, const struct task_ap_box *b)
{
    if (a->class_id != b->class_id) return a->class_id < b->class_id ? -1 : 1;
    return (a->image > b->image) - (a->image < b->image);
}

static int by_place(const void *pa, const void *pb)
{
    const struct task_ap_box *a = *(const struct task_ap_box *const *)pa,
                             *b = *(const struct task_ap_box *const *)pb;
    int c = compare_place(a, b);
    if (c) return c;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    return (a > b) - (a < b); /* one array: the order given */
}

static int by_score(const void *pa, const void *pb)
{
    const struct scored *a = pa, *b = pb;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    return (a->order > b->order) - (a->order < b->order);
}

/* Index of the truth that detection d takes among truth[from, to), or -1. */
static long take(const struct work *w, const struct task_ap_box *d, size_t from, size_t to, double threshold)
{
    long best = -1;
    double least = threshold;
    for (int pass = 0; pass < 2 && best < 0; pass++) { /* real truths first, then those to be ignored */
        for (size_t t = from; t < to; t++) {
            if (w->taken[t] || w->truth[t]->ignore != (pass == 1)) continue;
            double iou = task_box_iou(&d->box, &w->truth[t]->box);
            if (iou < least) continue;
            least = iou;
            best = (long)t;
        }
    }
    return best;
}

/* Matches one class at one threshold; fills w->scored, returns how many. t0..t1, f0..f1: the class's rows. */
static size_t match_class(struct work *w, size_t t0, size_t t1, size_t f0, size_t f1, double threshold)
{
    size_t n = 0, t = t0;
    int in_image = 0;
    for (size_t i = t0; i < t1; i++)
        w->taken[i] = false;
    for (size_t f = f0; f < f1; f++) {
        const struct task_ap_box *d = w->found[f];
        in_image = f > f0 && w->found[f - 1]->image == d->image ? in_image + 1 : 1;
        if (in_image > MOST_PER_IMAGE) continue;
        while (t < t1 && w->truth[t]->image < d->image)
            t++;
        size_t end = t;
        while (end < t1 && w->truth[end]->image == d->image)
            end++;
        long at = take(w, d, t, end, threshold);
        if (at >= 0) w->taken[at] = true;
        w->scored[n] = (struct scored){.score = d->score,
                                       .order = (uint32_t)n,
                                       .hit = at >= 0,
                                       .ignore = at >= 0 && w->truth[at]->ignore};
        n++;
    }
    qsort(w->scored, n, sizeof *w->scored, by_score);
    return n;
}

static double average_precision(struct work *w, size_t n, int64_t truths)
{
    size_t kept = 0;
    int64_t hits = 0;
    double recall_sum = 0;
    /* precision[] after each detection that counts; recall is hits / truths, kept in scored[].order as hits.
     */
    for (size_t i = 0; i < n; i++) {
        if (w->scored[i].ignore) continue;
        hits += w->scored[i].hit;
        w->precision[kept] = (double)hits / (double)(kept + 1);
        w->scored[kept++].order = (uint32_t)hits;
    }
    for (size_t i = kept; i-- > 1;)
        w->precision[i - 1] = fmax(w->precision[i - 1], w->precision[i]);
    size_t at = 0;
    for (int r = 0; r < RECALLS; r++) {
        while (at < kept && (double)w->scored[at].order / (double)truths < r * 0.01)
            at++; /* as NumPy counts them */
        if (at < kept) recall_sum += w->precision[at];
    }
    return recall_sum / RECALLS;
}

static err check(const struct task_ap_box *b, size_t n, int classes, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        if (b[i].class_id < 0 || b[i].class_id >= classes)
            return err_set(ERR_USAGE, "%s box %zu: class %d, but there are %d classes", what, i,
                           b[i].class_id, classes);
        if (!isfinite(b[i].score))
            return err_set(ERR_USAGE, "%s box %zu: its score is not a number", what, i);
    }
    return ERR_OK;
}

static void score_classes(struct work *w, size_t truths, size_t founds, int classes, float score_at,
                          double *class_ap50, struct task_ap *r)
{
    int64_t hits = 0, answers = 0;
    double sum = 0, sum50 = 0;
    for (size_t t0 = 0, f0 = 0, c = 0; c < (size_t)classes; c++) {
        size_t t1 = t0, f1 = f0;
        int64_t real = 0;
        for (; t1 < truths && w->truth[t1]->class_id == (int)c; t1++)
            real += !w->truth[t1]->ignore;
        while (f1 < founds && w->found[f1]->class_id == (int)c)
            f1++;
        double ap50 = -1;
        for (int k = 0; k < THRESHOLDS && (real || k == 0); k++) {
            size_t n = match_class(w, t0, t1, f0, f1, 0.5 + 0.05 * k - 1e-9);
            for (size_t i = 0; i < n && k == 0; i++) {
                bool asked = w->scored[i].score >= score_at && !w->scored[i].ignore;
                answers += asked;
                hits += asked && w->scored[i].hit;
            }
            if (!real) break;
            double ap = average_precision(w, n, real);
            sum += ap / THRESHOLDS;
            if (k == 0) ap50 = ap;
        }
        if (real) {
            r->classes++;
            sum50 += ap50;
            r->truths += real;
        }
        if (class_ap50) class_ap50[c] = ap50;
        t0 = t1;
        f0 = f1;
    }
    r->detections = (int64_t)founds;
    r->ap50 = r->classes ? sum50 / r->classes : -1;
    r->ap = r->classes ? sum / r->classes : -1;
    r->precision = answers ? (double)hits / (double)answers : 0;
    r->recall = r->truths ? (double)hits / (double)r->truths : 0;
    r->f1 = r->precision + r->recall > 0 ? 2 * r->precision * r->recall / (r->precision + r->recall) : 0;
}

err task_ap_compute(struct mem_payer *payer, const struct task_ap_box *truth, size_t truth_count,
                    const struct task_ap_box *found, size_t found_count, int class_count, float score_at,
                    double *ret_class_ap50, struct task_ap *ret)
{
    err e = check(truth, truth_count, class_count, "truth");
    if (!e) e = check(found, found_count, class_count, "detected");
    if (e) return e;
    size_t pointers = (truth_count + found_count) * sizeof(void *);
    size_t bytes = pointers + found_count * (sizeof(double) + sizeof(struct scored)) + truth_count;
    char *block;
    e = mem_alloc(payer, MEM_OTHER, bytes, (void **)&block);
    if (e) return e;
    struct work w = {.truth = (void *)block};
    w.found = w.truth + truth_count;
    w.precision = (double *)(block + pointers);
    w.scored = (struct scored *)(w.precision + found_count);
    w.taken = (bool *)(w.scored + found_count);
    for (size_t i = 0; i < truth_count; i++)
        w.truth[i] = &truth[i];
    for (size_t i = 0; i < found_count; i++)
        w.found[i] = &found[i];
    qsort(w.truth, truth_count, sizeof(void *), by_place);
    qsort(w.found, found_count, sizeof(void *), by_place);
    struct task_ap r = {0};
    score_classes(&w, truth_count, found_count, class_count, score_at, ret_class_ap50, &r);
    mem_free(payer, MEM_OTHER, block, bytes);
    *ret = r;
    return ERR_OK;
}
