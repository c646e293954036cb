/* See merge_chance.h. SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_chance.h"
#include "train/runner.h"

#include <stdlib.h>

const char *merge_chance_name(enum merge_measure m)
{
    if (m == MERGE_TOP1 || m == MERGE_SAME_CLASS) return "always the most frequent class";
    return m == MERGE_SAME_NUMBERS ? "always the mean" : "finding nothing";
}

struct votes {
    int64_t classes, n, *of; /* [class] */
};

static void vote(struct votes *v, int64_t class_id)
{
    if (class_id < 0 || class_id >= v->classes) return;
    v->of[class_id]++;
    v->n++;
}

static err count_labels(struct votes *v, const struct merge_score *s)
{
    int64_t n = s->o.samples ? s->o.n_samples : train_set_count(s->set);
    for (int64_t i = 0; i < n; i++) vote(v, train_set_label(s->set, s->o.samples ? s->o.samples[i] : i));
    return ERR_OK;
}

static void count_rows(struct votes *v, const struct train_batch *b, const float *rows)
{
    for (int i = 0; i < b->count; i++) {
        const float *row = rows + i * v->classes;
        int64_t best = 0;
        for (int64_t k = 1; k < v->classes; k++)
            if (row[k] > row[best]) best = k;
        if (b->samples[i] >= 0) vote(v, best);
    }
}

static err run_over(struct votes *v, const struct merge_score *s, struct train_runner *r, struct mem_payer *payer)
{
    struct train_picture picture;
    struct train_data *data = NULL;
    const struct train_batch *b;
    float *rows = NULL;
    size_t bytes = (size_t)s->o.batch * (size_t)v->classes * sizeof *rows;
    err e = train_picture_input(s->original, &picture);
    if (!e) e = mem_alloc(payer, MEM_OTHER, bytes, (void **)&rows);
    struct train_data_options d = e ? (struct train_data_options){0} : train_evaluate_data(&s->o, &picture, s->o.batch);
    if (!e) e = train_data_open(s->set, &d, payer, &data);
    while (!e && !(e = train_data_next(data, &b))) {
        struct tensor in = model_plan_input(r->plan, 0), out = model_plan_output(r->plan, 0), to = tensor_view(TENSOR_F32, &out.shape, rows);
        e = train_fill_input(&picture, b->images, b->count, &in);
        if (!e) e = model_plan_run(r->plan, NULL);
        if (!e) e = model_copy(&out, &to);
        if (!e) count_rows(v, b, rows);
    }
    train_data_close(&data);
    mem_free(payer, MEM_OTHER, rows, bytes);
    return e == ERR_CLOSED ? ERR_OK : e;
}

static err count_answers(struct votes *v, const struct merge_score *s)
{
    struct mem_payer *payer = mem_payer_new(s->o.budget, "chance");
    struct train_runner r = {0};
    err e = train_runner_open(s->original, &s->o, s->o.batch, payer, &r);
    if (!e) model_plan_set_stop(r.plan, s->o.stop);
    if (!e) e = run_over(v, s, &r, payer);
    train_runner_close(&r);
    mem_payer_free(&payer);
    return e;
}

err merge_chance(const struct merge_score *s, double *ret)
{
    struct votes v = {.classes = MAX(s->classes, 1)};
    int64_t most = 0;
    *ret = 0;
    if (s->measure != MERGE_TOP1 && s->measure != MERGE_SAME_CLASS) return ERR_OK;
    v.of = xnewn(int64_t, v.classes);
    err e = s->measure == MERGE_TOP1 ? count_labels(&v, s) : count_answers(&v, s);
    for (int64_t k = 0; k < v.classes; k++) most = MAX(most, v.of[k]);
    free(v.of);
    if (!e) *ret = MAX((double)most / (double)MAX(v.n, 1), 1 / (double)v.classes);
    return e;
}
