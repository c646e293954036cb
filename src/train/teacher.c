/* A teacher is a runner (runner.h) with, if its pictures have another size than the student's, a Resize put before it.
 *
 * Labels of a whole set are made in the set's order with the teacher's own size of pictures. Invariant: samples are labelled from the first to the last, so
 * their boxes follow one another. SPDX-License-Identifier: Apache-2.0 */
#include "train/teacher.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "task/nms.h"
#include "train/detector.h"

enum { LABEL_BATCH = 4, CANDIDATES = TRAIN_CANDIDATES, BOXES = 120 };

struct train_teacher {
    struct mem_payer *payer;
    struct graph *g;
    struct train_runner r;
    struct train_picture picture; /* what it is given */
    bool probabilities;
    int classes;
};

/* [1, 3, h, w] of the student, then Resize (linear), then what was there. */
static err put_resize(struct graph *g, const struct train_picture *own, const struct train_picture *given)
{
    struct tensor_shape s = g->values[g->inputs[0]].shape, four = {.rank = 1, .dims = {4}};
    int old = g->inputs[0], v;
    float *scales;
    err e = graph_add_constant(g, "teacher_scales", TENSOR_F32, &four, &v, (void **)&scales);
    if (e) return e;
    memcpy(scales, (float[]){1, 1, (float)own->height / (float)given->height, (float)own->width / (float)given->width}, 4 * sizeof *scales);
    s.dims[2] = given->height;
    s.dims[3] = given->width;
    int in = graph_add_value(g, "teacher_picture", TENSOR_F32, &s), out = graph_add_value(g, "teacher_resized", TENSOR_F32, &g->values[old].shape);
    for (size_t k = 0; k < g->n_nodes; k++)
        for (int i = 0; i < g->nodes[k].op.n_in; i++)
            if (g->nodes[k].op.in[i] == old) g->nodes[k].op.in[i] = out;
    struct graph_node *n = graph_add_node(g, OP_RESIZE, "teacher_resize", 3, 1);
    n->op.opset = MAX(g->opset, 13);
    n->op.in[0] = in;
    n->op.in[2] = v;
    n->op.out[0] = out;
    graph_set_string(n, "mode", "linear");
    g->values[old].is_input = false;
    g->values[in].is_input = true;
    g->inputs[0] = in;
    return graph_sort(g);
}

static err open_teacher(struct train_teacher *t, const char *path, const struct train_picture *picture, int batch, const struct train_evaluate_options *o)
{
    struct train_picture own;
    err e = graph_load(path, t->payer, &t->g);
    if (!e) e = train_picture_input(t->g, &own);
    if (e) return e;
    t->picture = picture ? *picture : own;
    bool same = own.width == t->picture.width && own.height == t->picture.height;
    if (own.channels != t->picture.channels || own.nhwc != t->picture.nhwc || (!same && own.nhwc))
        return err_set(ERR_USAGE, "%s: the teacher wants %d x %d x %d pictures, the student %d x %d x %d; channels and their order must be the same", path, own.channels,
                       own.height, own.width, t->picture.channels, t->picture.height, t->picture.width);
    if (!same) e = put_resize(t->g, &own, &t->picture);
    t->probabilities = train_ends_in(t->g, OP_SOFTMAX);
    return e ? e : train_runner_open(t->g, o, batch, t->payer, &t->r);
}

err train_teacher_open(const char *path, const struct train_picture *picture, int batch, const struct train_evaluate_options *o, struct train_teacher **ret)
{
    struct train_teacher *t = xnew(struct train_teacher);
    t->payer = mem_payer_new(o->budget, "teacher");
    err e = open_teacher(t, path, picture, batch, o);
    if (!e) {
        struct tensor out = model_plan_output(t->r.plan, 0);
        t->classes = (int)MIN(tensor_count(&out.shape) / batch, INT32_MAX);
        *ret = t;
        return ERR_OK;
    }
    train_teacher_close(&t);
    return err_wrap(e, "teacher");
}

void train_teacher_close(struct train_teacher **tp)
{
    struct train_teacher *t = *tp;
    if (!t) return;
    *tp = NULL;
    train_runner_close(&t->r);
    graph_free(&t->g);
    mem_payer_free(&t->payer);
    free(t);
}

int train_teacher_classes(const struct train_teacher *t)
{
    return t->classes;
}

static err ask(struct train_teacher *t, const struct train_batch *b)
{
    struct tensor in = model_plan_input(t->r.plan, 0);
    err e = train_fill_input(&t->picture, b->images, b->count, &in);
    return e ? e : model_plan_run(t->r.plan, NULL);
}

static err answer(struct train_teacher *t, const struct train_batch *b, float *to)
{
    err e = ask(t, b);
    if (e) return e;
    struct tensor out = model_plan_output(t->r.plan, 0), plain = tensor_view(TENSOR_F32, &out.shape, to);
    return model_copy(&out, &plain);
}

err train_teacher_answer(struct train_teacher *t, const struct train_batch *b, double temperature, float *to)
{
    err e = answer(t, b, to);
    for (int r = 0; r < b->count && !e; r++) {
        float *row = to + (size_t)r * (size_t)t->classes;
        double most = -INFINITY, sum = 0;
        for (int c = 0; c < t->classes; c++) {
            if (t->probabilities) row[c] = logf(fmaxf(row[c], 1e-12f));
            most = fmax(most, (double)row[c]);
        }
        if (!isfinite(most)) return err_set(ERR_CORRUPT, "%s: the teacher's answer is not a finite number", t->g->name);
        for (int c = 0; c < t->classes; c++) sum += exp(((double)row[c] - most) / temperature);
        for (int c = 0; c < t->classes; c++) row[c] = (float)(exp(((double)row[c] - most) / temperature) / sum);
    }
    return e;
}

/* ---- labels for a set */

struct labelling {
    const struct train_teacher_labels *l;
    struct train_set *set;
    struct train_teacher *t;
    struct train_detector detector;
    int *map;                 /* of the teacher's classes: the set's, or -1 */
    int classes;
    float *rows;
    size_t row_bytes;
    struct task_detection *found;
};

/* Which classes the set gets, and from which of the teacher's. */
static err name_classes(struct labelling *k)
{
    char **names = xnewn(char *, k->classes + 1);
    int n = 0;
    k->map = xnewn(int, k->classes + 1);
    for (int c = 0; c < k->classes; c++) {
        bool wanted = !k->l->names || (c < k->l->n_names && k->l->names[c][0] != '#');
        k->map[c] = wanted ? n : -1;
        if (wanted) names[n++] = k->l->names ? xstrdup(k->l->names[c]) : xasprintf("%d", c);
    }
    err e = n ? train_set_name_classes(k->set, (const char *const *)names, n, k->l->boxes) : err_set(ERR_USAGE, "none of the teacher's %d classes is named", k->classes);
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
    return e;
}

/* Into pixels of the picture as stored, cut to what of it the teacher was shown: a network may well see something in a letterbox's padding. False if less than a quarter
 * of it is left, or less than 2 pixels of the teacher's (as of what an augmentation cuts). */
static bool inside(const struct train_picture *seen, const float *geometry, const struct task_detection *d, struct train_box *ret)
{
    double sx = (double)geometry[0], sy = (double)geometry[1], ox = (double)geometry[2], oy = (double)geometry[3];
    double right = MIN(ox + (double)geometry[4] * sx, seen->width), bottom = MIN(oy + (double)geometry[5] * sy, seen->height), left = MAX(ox, 0), top = MAX(oy, 0);
    double x1 = MAX((double)d->box.x1, left), y1 = MAX((double)d->box.y1, top), x2 = MIN((double)d->box.x2, right), y2 = MIN((double)d->box.y2, bottom);
    double area = ((double)d->box.x2 - (double)d->box.x1) * ((double)d->box.y2 - (double)d->box.y1);
    if (!(x2 - x1 >= 2 && y2 - y1 >= 2 && (x2 - x1) * (y2 - y1) >= 0.25 * area)) return false;
    ret->x1 = (float)((x1 - ox) / sx), ret->y1 = (float)((y1 - oy) / sy), ret->x2 = (float)((x2 - ox) / sx), ret->y2 = (float)((y2 - oy) / sy);
    return true;
}

static err boxes_of(struct labelling *k, int64_t sample, int i, const float *geometry)
{
    struct train_box boxes[BOXES];
    float least = k->l->score > 0 ? (float)k->l->score : 0.4f;
    int n = 0, found = train_decode(&k->detector, k->rows, LABEL_BATCH, i, least, k->found);
    for (int f = 0; f < found && n < BOXES; f++) {
        const struct task_detection *d = &k->found[f];
        if (k->map[d->class_id] < 0) continue;
        boxes[n].class_id = k->map[d->class_id];
        n += inside(&k->t->picture, geometry, d, &boxes[n]);
    }
    return train_set_label_boxes(k->set, sample, boxes, n);
}

static void class_of(struct labelling *k, int64_t sample, const float *row)
{
    int best = -1;
    for (int c = 0; c < k->classes; c++)
        if (k->map[c] >= 0 && (best < 0 || row[c] > row[best])) best = c;
    train_set_label_class(k->set, sample, k->map[best]);
}

static err label_batch(struct labelling *k, const struct train_batch *b)
{
    err e = k->l->boxes ? ask(k->t, b) : answer(k->t, b, k->rows);
    size_t width = k->row_bytes / LABEL_BATCH / sizeof(float);
    if (!e && k->l->boxes) e = train_detector_read(&k->detector, k->t->r.plan, k->rows);
    for (int i = 0; i < b->count && !e; i++) {
        if (b->samples[i] < 0) continue;
        if (k->l->boxes) e = boxes_of(k, b->samples[i], i, b->geometry + TRAIN_GEOMETRY * i);
        else class_of(k, b->samples[i], k->rows + (size_t)i * width);
    }
    return e;
}

static err open_labelling(struct labelling *k, const struct train_evaluate_options *o)
{
    err e = train_teacher_open(k->l->path, NULL, LABEL_BATCH, o, &k->t);
    if (e) return e;
    if (k->l->boxes) e = train_detector_of(model_graph(k->t->r.model), k->t->picture.width, k->t->picture.height, &k->detector);
    if (e) return err_wrap(e, "teacher");
    k->classes = k->l->boxes ? k->detector.classes : k->t->classes;
    k->row_bytes = (size_t)LABEL_BATCH * (size_t)(k->l->boxes ? k->detector.numbers : k->t->classes) * sizeof(float);
    e = mem_alloc(k->t->payer, MEM_OTHER, k->row_bytes, (void **)&k->rows);
    if (!e) e = mem_alloc(k->t->payer, MEM_OTHER, CANDIDATES * sizeof *k->found, (void **)&k->found);
    return e ? e : name_classes(k);
}

static err check_labels(const struct labelling *k, const char *name)
{
    int64_t n = 0, count = train_set_count(k->set);
    int boxes;
    for (int64_t i = 0; i < count; i++) n += k->l->boxes ? (train_set_boxes(k->set, i, &boxes), boxes) : train_set_label(k->set, i) >= 0;
    if (n) return ERR_OK;
    return err_set(ERR_USAGE, "%s: in %lld pictures the teacher saw nothing that it is sure of (--teacher-score %g); is it fed as it was trained?", name, (long long)count,
                   k->l->score > 0 ? k->l->score : 0.4);
}

err train_teacher_label(const struct train_teacher_labels *l, struct train_set *set, const struct train_evaluate_options *o)
{
    struct labelling k = {.l = l, .set = set};
    struct train_data *data = NULL;
    const struct train_batch *b;
    err e = open_labelling(&k, o);
    if (!e) {
        struct train_data_options d = train_evaluate_data(o, &k.t->picture, LABEL_BATCH);
        d.samples = NULL;
        if (l->boxes) d.pad = 114;
        e = train_data_open(set, &d, k.t->payer, &data);
    }
    while (!e && !(e = train_data_next(data, &b))) e = label_batch(&k, b);
    if (e == ERR_CLOSED) e = check_labels(&k, l->path);
    train_data_close(&data);
    if (k.rows) mem_free(k.t->payer, MEM_OTHER, k.rows, k.row_bytes);
    if (k.found) mem_free(k.t->payer, MEM_OTHER, k.found, CANDIDATES * sizeof *k.found);
    free(k.map);
    train_teacher_close(&k.t);
    return e;
}
