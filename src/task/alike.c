/* See alike.h. SPDX-License-Identifier: Apache-2.0 */
#include "task/alike.h"

#include <math.h>
#include <stdlib.h>

struct task_card task_alike_card(const struct task_card *c)
{
    struct task_card low = *c;
    low.score = TASK_ALIKE_LEAST;
    low.top_k = TASK_ALIKE_MOST;
    return low;
}

static int64_t row_length(const struct task_output *o)
{
    int64_t n = 1;
    for (int i = 1; i < o->rank; i++) n *= o->dims[i];
    return n;
}

int task_alike_class(const struct task_output *o, int item)
{
    int64_t n = row_length(o);
    const float *row = o->data + (int64_t)item * n;
    int best = 0;
    for (int k = 1; k < n; k++)
        if (row[k] > row[best]) best = k;
    return best;
}

double task_alike_distance(const struct task_output *y, int y_item, const struct task_output *t, int t_item, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        int64_t length = row_length(&t[i]);
        const float *a = y[i].data + (int64_t)y_item * length, *b = t[i].data + (int64_t)t_item * length;
        double mean = 0, wrong = 0, spread = 0;
        for (int64_t k = 0; k < length; k++) mean += (double)b[k] / (double)length;
        for (int64_t k = 0; k < length; k++) {
            wrong += ((double)a[k] - (double)b[k]) * ((double)a[k] - (double)b[k]);
            spread += ((double)b[k] - mean) * ((double)b[k] - mean);
        }
        sum += wrong / fmax(spread, 1e-30);
    }
    return n ? sum / n : 0;
}

int task_alike_boxes(const struct task_result *r, float least, int image, struct task_ap_box *ret)
{
    int n = 0;
    for (int k = 0; k < r->detection_count && k < TASK_ALIKE_MOST; k++) {
        const struct task_detection *d = &r->detections[k];
        if (d->score >= least) ret[n++] = (struct task_ap_box){.image = image, .class_id = d->class_id, .score = d->score, .box = d->box};
    }
    return n;
}

err task_alike_ap(struct mem_payer *payer, const struct task_ap_box *truth, size_t n_truth, const struct task_ap_box *found, size_t n_found, int classes, double *ret)
{
    struct task_ap ap = {0};
    double *each = xnewn(double, classes + 1), sum = 0;
    int *seen = xcalloc((size_t)classes + 1, sizeof *seen), n = 0;
    err e = n_truth ? task_ap_compute(payer, truth, n_truth, found, n_found, classes, TASK_ALIKE_SURE, each, &ap) : ERR_OK;
    for (size_t i = 0; i < n_truth && !e; i++) seen[truth[i].class_id]++; /* in range: task_ap_compute has looked */
    for (int c = 0; c < classes && !e; c++)
        if (seen[c] >= TASK_ALIKE_OFTEN) sum += each[c], n++;
    if (!e) *ret = n ? sum / n : fmax(ap.ap50, 0);
    free(each);
    free(seen);
    return e;
}

double task_alike_error(const double *part, int n)
{
    double mean = 0, spread = 0;
    for (int i = 0; i < n; i++) mean += part[i] / n;
    for (int i = 0; i < n; i++) spread += (part[i] - mean) * (part[i] - mean);
    return n > 1 ? sqrt(spread * (n - 1) / n) : 0;
}
