/* See merge_drift.h. Boxes lie in slots of TASK_ALIKE_MOST per picture, and are gathered anew for each score: without the picture that is left out.
 * SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_drift.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double SURE = 2; /* standard errors */

struct picture {
    double wrong;
    int n_truth, n_found;
};
struct merge_drift {
    struct mem_payer *payer;
    struct merge_drift_options o;
    int count, next;                                /* pictures in the window; where the next one goes */
    struct picture pictures[MERGE_DRIFT_MOST];
    struct task_ap_box *truth, *found;              /* window slots each; NULL: no boxes */
    struct task_ap_box *all_truth, *all_found;      /* gathered */
    size_t bytes;                                   /* of each of the four */
};

static bool boxes(const struct merge_drift *d)
{
    return d->o.measure == MERGE_SAME_BOXES;
}

err merge_drift_new(struct mem_payer *payer, const struct merge_drift_options *o, struct merge_drift **ret)
{
    struct merge_drift *d = xnew(struct merge_drift);
    struct task_ap_box **parts[] = {&d->truth, &d->found, &d->all_truth, &d->all_found};
    err e = ERR_OK;
    d->payer = payer;
    d->o = *o;
    d->o.window = MAX(MERGE_DRIFT_LEAST, MIN(o->window, MERGE_DRIFT_MOST));
    d->bytes = (size_t)d->o.window * TASK_ALIKE_MOST * sizeof *d->truth;
    for (size_t i = 0; i < ARRAY_LEN(parts) && boxes(d) && !e; i++) e = mem_alloc(payer, MEM_OTHER, d->bytes, (void **)parts[i]);
    if (e) {
        merge_drift_free(&d);
        return e;
    }
    *ret = d;
    return ERR_OK;
}

void merge_drift_free(struct merge_drift **dp)
{
    struct merge_drift *d = *dp;
    if (!d) return;
    mem_free(d->payer, MEM_OTHER, d->truth, d->bytes);
    mem_free(d->payer, MEM_OTHER, d->found, d->bytes);
    mem_free(d->payer, MEM_OTHER, d->all_truth, d->bytes);
    mem_free(d->payer, MEM_OTHER, d->all_found, d->bytes);
    free(d);
    *dp = NULL;
}

void merge_drift_clear(struct merge_drift *d)
{
    d->count = d->next = 0;
}

static bool sure(const struct task_ap_box *b, int n)
{
    for (int i = 0; i < n; i++)
        if (b[i].score >= TASK_ALIKE_SURE) return true;
    return false;
}

bool merge_drift_add(struct merge_drift *d, const struct merge_drift_picture *p)
{
    if (boxes(d) && !p->n_truth && !sure(p->found, p->n_found)) return false;
    struct picture *to = &d->pictures[d->next];
    *to = (struct picture){.wrong = p->wrong, .n_truth = MIN(p->n_truth, TASK_ALIKE_MOST), .n_found = MIN(p->n_found, TASK_ALIKE_MOST)};
    if (boxes(d)) {
        size_t slot = (size_t)d->next * TASK_ALIKE_MOST;
        if (to->n_truth) memcpy(d->truth + slot, p->truth, (size_t)to->n_truth * sizeof *p->truth);
        if (to->n_found) memcpy(d->found + slot, p->found, (size_t)to->n_found * sizeof *p->found);
    }
    d->next = (d->next + 1) % d->o.window;
    d->count = MIN(d->count + 1, d->o.window);
    return true;
}

static size_t gather(struct task_ap_box *to, size_t at, const struct task_ap_box *from, int n, int image)
{
    for (int i = 0; i < n; i++) {
        to[at] = from[i];
        to[at++].image = image;
    }
    return at;
}

static err score_boxes(struct merge_drift *d, int without, double *ret)
{
    size_t n_truth = 0, n_found = 0;
    for (int i = 0; i < d->count; i++) {
        size_t slot = (size_t)i * TASK_ALIKE_MOST;
        if (i == without) continue;
        n_truth = gather(d->all_truth, n_truth, d->truth + slot, d->pictures[i].n_truth, i);
        n_found = gather(d->all_found, n_found, d->found + slot, d->pictures[i].n_found, i);
    }
    return task_alike_ap(d->payer, d->all_truth, n_truth, d->all_found, n_found, MAX(d->o.classes, 1), ret); /* 0 where the merged one alone sees something */
}

/* Over the window without one picture; -1: all of it. */
static err score(struct merge_drift *d, int without, double *ret)
{
    if (boxes(d)) return score_boxes(d, without, ret);
    double wrong = 0;
    int n = d->count - (without >= 0);
    for (int i = 0; i < d->count; i++)
        if (i != without) wrong += d->pictures[i].wrong;
    *ret = n > 0 ? fmax(0, 1 - wrong / n) : 1;
    return ERR_OK;
}

err merge_drift_look(struct merge_drift *d, struct merge_drift_verdict *ret)
{
    struct merge_drift_verdict v = {.pictures = d->count, .score = 1};
    double part[MERGE_DRIFT_MOST];
    err e = d->count ? score(d, -1, &v.score) : ERR_OK;
    for (int i = 0; i < d->count && d->count > 1 && !e; i++) e = score(d, i, &part[i]);
    if (e) return e;
    v.error = task_alike_error(part, d->count);
    v.below = d->count >= MERGE_DRIFT_LEAST && v.score + SURE * v.error < d->o.target;
    *ret = v;
    return ERR_OK;
}
