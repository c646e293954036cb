/* Evaluation of embeddings: is the same identity found again? Every picture asks in turn (or the pictures of the query set), all others answer (or those of the
 * gallery), ordered by the cosine between their embeddings. rank-1: the first answer is right; mAP: mean over questions of the average precision, sum of the
 * precision at each right answer / number of right answers, as Market-1501 has it (Zheng et al., 2015). There, too, what the same camera took of the same identity
 * is no answer, where cameras are known. A question without a right answer does not count. SPDX-License-Identifier: Apache-2.0 */
#include "train/runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct embedded {
    int64_t n, cap;
    int width;
    float *rows;          /* [cap][width], of length 1 */
    struct who {
        int label, camera;
    } *who;               /* [cap] */
};
struct answer {
    float near;
    int64_t i;
};

static int nearest_first(const void *a, const void *b)
{
    const struct answer *p = a, *q = b;
    return p->near != q->near ? (p->near < q->near) - (p->near > q->near) : (p->i > q->i) - (p->i < q->i);
}

static void take_row(struct embedded *e, const float *row, int label, int camera)
{
    double sum = 0;
    for (int k = 0; k < e->width; k++) sum += (double)row[k] * (double)row[k];
    double by = sum > 0 ? 1 / sqrt(sum) : 0;
    for (int k = 0; k < e->width; k++) e->rows[e->n * e->width + k] = (float)(row[k] * by);
    e->who[e->n++] = (struct who){label, camera};
}

static err embed_batch(const struct train_runner *r, const struct train_picture *picture, const struct train_batch *b, const struct train_set *set, float *rows,
                       struct embedded *to, struct train_scores *s)
{
    struct tensor in = model_plan_input(r->plan, 0);
    err e = train_fill_input(picture, b->images, b->count, &in);
    if (!e) e = model_plan_run(r->plan, NULL);
    if (e) return e;
    struct tensor out = model_plan_output(r->plan, 0), plain = tensor_view(TENSOR_F32, &out.shape, rows);
    if ((e = model_copy(&out, &plain))) return e;
    for (int i = 0; i < b->count; i++) {
        if (b->samples[i] < 0) s->skipped++;
        else take_row(to, rows + (size_t)i * (size_t)to->width, b->labels[i], train_set_camera(set, b->samples[i]));
    }
    return ERR_OK;
}

static void give(struct mem_payer *payer, struct embedded *e)
{
    mem_free(payer, MEM_OTHER, e->rows, (size_t)e->cap * (size_t)e->width * sizeof *e->rows);
    mem_free(payer, MEM_OTHER, e->who, (size_t)e->cap * sizeof *e->who);
}

static err embed_all(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct mem_payer *payer, struct embedded *ret,
                     struct train_scores *s)
{
    struct train_picture picture;
    struct train_runner r = {0};
    struct train_data *data = NULL;
    const struct train_batch *b;
    int batch = o->batch > 0 ? o->batch : 32;
    float *rows = NULL;
    size_t bytes = 0;
    err e = train_picture_input(g, &picture);
    if (e) return e;
    if (train_set_has_boxes(set)) return err_set(ERR_USAGE, "the data has boxes, not one identity per picture; this is --task detect");
    if ((e = train_runner_open(g, o, batch, payer, &r))) return e;
    struct tensor out = model_plan_output(r.plan, 0);
    int64_t count = tensor_count(&out.shape);
    if (out.shape.rank < 2 || out.shape.dims[0] != batch || count / batch > 1 << 20)
        e = err_set(ERR_SHAPE, "%s: output '%s' is no embedding [N, numbers]", g->name, g->values[g->outputs[0]].name);
    ret->cap = o->samples ? o->n_samples : train_set_count(set);
    ret->width = (int)(count / batch);
    bytes = (size_t)count * sizeof *rows;
    if (!e) e = mem_alloc(payer, MEM_OTHER, bytes, (void **)&rows);
    if (!e) e = mem_alloc(payer, MEM_OTHER, (size_t)ret->cap * (size_t)ret->width * sizeof *ret->rows, (void **)&ret->rows);
    if (!e) e = mem_alloc(payer, MEM_OTHER, (size_t)ret->cap * sizeof *ret->who, (void **)&ret->who);
    struct train_data_options d = train_evaluate_data(o, &picture, batch);
    if (!e) e = train_data_open(set, &d, payer, &data);
    while (!e && !(e = train_data_next(data, &b))) e = embed_batch(&r, &picture, b, set, rows, ret, s);
    if (e == ERR_CLOSED) e = ERR_OK;
    train_data_close(&data);
    mem_free(payer, MEM_OTHER, rows, bytes);
    train_runner_close(&r);
    return e;
}

/* One question: answers are sorted, right ones counted as they come. False: it has no right answer. */
static bool ask(const struct embedded *questions, int64_t q, const struct embedded *gallery, bool same_set, struct answer *answers, struct train_scores *s)
{
    const float *x = questions->rows + q * questions->width;
    struct who me = questions->who[q];
    int64_t n = 0, right = 0;
    double sum = 0;
    for (int64_t i = 0; i < gallery->n; i++) {
        struct who other = gallery->who[i];
        if (same_set ? i == q : false) continue;
        if (other.label == me.label && me.camera >= 0 && other.camera == me.camera) continue;
        const float *y = gallery->rows + i * gallery->width;
        double dot = 0;
        for (int k = 0; k < gallery->width; k++) dot += (double)x[k] * (double)y[k];
        answers[n++] = (struct answer){(float)dot, i};
    }
    qsort(answers, (size_t)n, sizeof *answers, nearest_first);
    for (int64_t i = 0; i < n; i++)
        if (gallery->who[answers[i].i].label == me.label) sum += (double)++right / (double)(i + 1);
    if (!right) return false;
    s->rank1 += gallery->who[answers[0].i].label == me.label;
    s->map += sum / (double)right;
    return true;
}

static err nobody(int64_t questions, bool cameras)
{
    return err_set(ERR_USAGE, "none of the %lld pictures has another of its identity%s to be found", (long long)questions, cameras ? " from another camera" : "");
}

/* Is there a question with an answer among these pictures of one set? By their labels, so that it is known before anything was computed. */
static err can_be_asked(const struct train_set *set, const struct train_evaluate_options *o)
{
    struct seen {
        int64_t n;
        int camera;
        bool several;
    } *seen = xnewn(struct seen, train_set_classes(set) + 1);
    int64_t n = o->samples ? o->n_samples : train_set_count(set);
    bool yes = false, cameras = false;
    for (int64_t i = 0; i < n && !yes; i++) {
        int64_t sample = o->samples ? o->samples[i] : i;
        int label = train_set_label(set, sample), camera = train_set_camera(set, sample);
        if (label < 0) continue;
        struct seen *s = &seen[label];
        s->several |= camera < 0 || (s->n && camera != s->camera);
        s->camera = camera;
        cameras |= camera >= 0;
        yes = ++s->n > 1 && s->several;
    }
    free(seen);
    return yes ? ERR_OK : nobody(n, cameras);
}

static err score(const struct embedded *questions, const struct embedded *gallery, const struct train_evaluate_options *o, struct mem_payer *payer, struct train_scores *s)
{
    struct answer *answers;
    size_t bytes = (size_t)MAX(gallery->n, 1) * sizeof *answers;
    int64_t asked = 0;
    err e = mem_alloc(payer, MEM_OTHER, bytes, (void **)&answers);
    if (e) return e;
    for (int64_t q = 0; q < questions->n; q++) {
        if (o->stop && atomic_load(o->stop)) {
            e = err_set(ERR_CANCELLED, "stopped");
            break;
        }
        asked += ask(questions, q, gallery, questions == gallery, answers, s);
    }
    mem_free(payer, MEM_OTHER, answers, bytes);
    if (e) return e;
    if (!asked) return nobody(questions->n, questions->n && questions->who[0].camera >= 0);
    s->samples = asked;
    s->rank1 /= (double)asked;
    s->map /= (double)asked;
    return ERR_OK;
}

err train_evaluate_gallery(const struct graph *g, const struct train_set *query, const struct train_set *gallery, const struct train_evaluate_options *o,
                           struct train_scores *ret)
{
    struct mem_payer *payer = mem_payer_new(o->budget, "evaluation");
    struct embedded q = {0}, a = {0};
    struct train_scores s = {0};
    int64_t begin = clock_ns();
    err e = gallery || o->unscored || train_set_has_boxes(query) ? ERR_OK : can_be_asked(query, o);
    if (!e) e = embed_all(g, query, o, payer, &q, &s);
    if (!e && gallery) e = embed_all(g, gallery, o, payer, &a, &s);
    for (int64_t i = 0; !e && gallery && i < a.n; i++) { /* the same name is the same identity */
        int label = -1;
        for (int c = 0; c < train_set_classes(query) && label < 0; c++)
            if (!strcmp(train_set_class(query, c), train_set_class(gallery, a.who[i].label))) label = c;
        a.who[i].label = label;
    }
    if (!e) e = score(&q, gallery ? &a : &q, o, payer, &s);
    give(payer, &q);
    give(payer, &a);
    mem_payer_free(&payer);
    s.seconds = (double)(clock_ns() - begin) * 1e-9;
    if (!e) *ret = s;
    return e;
}

err train_evaluate_embed(const struct graph *g, const struct train_set *set, const struct train_evaluate_options *o, struct train_scores *ret)
{
    return train_evaluate_gallery(g, set, NULL, o, ret);
}
