/* The loop. One epoch is all batches of the training part once; what fills no batch is left out. An update takes `accumulate` batches (the last of an epoch may
 * take fewer), so an epoch ends with an update and a checkpoint is always between two. SPDX-License-Identifier: Apache-2.0 */
#include "graph/file.h"
#include "train/task.h"
#include "train/teacher.h"

#include <float.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SAVE_MS = 300000 };

static bool stopped(const struct train_job *j)
{
    if (j->o->max_steps && j->state.updates >= j->o->max_steps) return true;
    return j->o->stop && atomic_load(j->o->stop);
}

/* ---- data */

/* Pictures without labels get them from the teacher. What is held out may have labels of its own. */
static err label(struct train_job *j, const char *path, struct train_set *set)
{
    const struct train_job_options *o = j->o;
    struct train_teacher_labels l = {.path = o->teacher, .boxes = j->kind->boxes, .names = o->teacher_classes, .n_names = o->n_teacher_classes, .score = o->teacher_score};
    struct train_evaluate_options e_options = {.budget = j->budget, .threads = o->threads, .feed = o->feed, .stop = o->stop, .idle = o->idle};
    if (!o->teacher) return ERR_OK;
    if (o->classes && train_set_unlabelled(set)) return err_set(ERR_USAGE, "--classes is for data with labels; here --teacher-classes NAME=NUMBER,... says which are learnt");
    if (j->kind->boxes && set == j->set && !train_set_unlabelled(set)) return err_set(ERR_USAGE, "%s: it has labels; for detect a teacher labels pictures that have none", path);
    return train_set_unlabelled(set) ? train_teacher_label(&l, set, &e_options) : ERR_OK;
}

/* Is the data what the task takes? */
static err fits(const struct train_job *j, const char *path, const struct train_set *set)
{
    enum train_set_kind kind = train_set_kind(set);
    const char *has = "one class per picture", *task = j->kind->identities ? "embed" : "classify";
    if (kind == TRAIN_SET_TEXT) has = "a text", task = "text";
    else if (kind == TRAIN_SET_PAIRS) has = "pairs of pictures", task = "image";
    else if (train_set_has_attributes(set)) has = "attributes of pictures", task = "attributes";
    else if (train_set_has_boxes(set)) has = "boxes, not one class per picture", task = "detect";
    return strcmp(task, j->kind->name) ? err_set(ERR_USAGE, "%s: it has %s; that is for --task %s, not %s", path, has, task, j->kind->name) : ERR_OK;
}

/* What of the data cannot be used, in one sentence. */
static void say_report(const struct train_job *j, const char *path, const struct train_set *set)
{
    const struct train_set_report *r = train_set_report(set);
    char gone[64] = "";
    if (!r->bad_images && !r->bad_boxes && !r->empty_classes && !r->no_pictures) return;
    if (r->no_pictures) snprintf(gone, sizeof gone, "%lld events without a picture, ", (long long)r->no_pictures);
    train_job_say(j, "%s: %lld samples; left out: %s%lld pictures, %lld boxes; %d classes without a sample. The first: %s", path, (long long)r->samples, gone,
                  (long long)r->bad_images, (long long)r->bad_boxes, r->empty_classes, r->problem);
}

/* Attributes have no names to choose by: what is held out has the same columns. */
static err same_attributes(const struct train_job *j)
{
    const char *path = j->o->val;
    if (train_set_classes(j->val) != j->classes) return err_set(ERR_USAGE, "%s: it has %d attributes, %s has %d", path, train_set_classes(j->val), j->o->data, j->classes);
    for (int i = 0; i < j->classes; i++)
        if (strcmp(train_set_class(j->val, i), train_set_class(j->set, i)))
            return err_set(ERR_USAGE, "%s: attribute %d is '%s', in %s '%s'", path, i + 1, train_set_class(j->val, i), j->o->data, train_set_class(j->set, i));
    return ERR_OK;
}

/* A job that goes on has the classes that it began with, or its numbers would stand for other things. A box's events may show new ones, or some no more: the
 * old ones are chosen. */
static err old_classes(struct train_job *j, struct train_set_options *how)
{
    const struct train_job_options *o = j->o;
    char **old;
    int n, now = train_set_classes(j->set);
    err e = train_job_classes(o->out, &old, &n);
    if (e == ERR_NOT_FOUND) return err_set(e, "%s/last.brim: no checkpoint to go on from", o->out);
    if (e) return e;
    bool same = n == now;
    for (int i = 0; i < n && same; i++) same = !strcmp(old[i], train_set_class(j->set, i));
    if (!same && train_set_kind(j->set) == TRAIN_SET_ROWS && !o->classes) {
        struct train_set_options again = *how;
        again.classes = (const char *const *)old;
        again.n_classes = n;
        train_job_say(j, "%s: its classes are others than when the job began; the %d that it began with are kept", o->data, n);
        train_set_free(&j->set);
        e = train_set_open(o->data, &again, j->payer, &j->set);
    } else if (!same) {
        int i = 0;
        while (i < n && i < now && !strcmp(old[i], train_set_class(j->set, i))) i++;
        e = err_set(ERR_USAGE, "%s: it is not the data that the job began with: class %d of %d was '%s', now it is '%s' of %d; restore the data, or begin another job in another --out",
                    o->data, i + 1, n, i < n ? old[i] : "none", i < now ? train_set_class(j->set, i) : "none", now);
    }
    for (int i = 0; i < n; i++) free(old[i]);
    free(old);
    return e;
}

static err open_sets(struct train_job *j)
{
    const struct train_job_options *o = j->o;
    struct train_set_options how = {.classes = o->classes, .n_classes = o->n_classes, .identities = j->kind->identities, .category = o->embed.category, .every = o->embed.every, .named = o->embed.named, .seen = o->embed.seen};
    how.unlabelled = o->teacher != NULL;
    how.length = j->length;
    how.boxes = j->kind->boxes;
    how.attributes = o->task == TRAIN_ATTRIBUTES;
    how.query = o->rows.query, how.camera = o->rows.camera, how.since = o->rows.since;
    err e = train_set_open(o->data, &how, j->payer, &j->set);
    if (!e) e = label(j, o->data, j->set);
    if (e) return e;
    if ((e = fits(j, o->data, j->set))) return e;
    if (o->resume && (e = old_classes(j, &how))) return e;
    say_report(j, o->data, j->set);
    j->classes = train_set_classes(j->set);
    if (o->val) {
        const char **names = xnewn(const char *, j->classes + 1);
        for (int i = 0; i < j->classes; i++) names[i] = train_set_class(j->set, i);
        how.classes = j->kind->identities || o->task == TRAIN_ATTRIBUTES ? NULL : names;
        how.n_classes = j->classes;
        e = train_set_open(o->val, &how, j->payer, &j->val);
        if (!e) e = label(j, o->val, j->val);
        if (!e) e = fits(j, o->val, j->val);
        if (!e && o->task == TRAIN_ATTRIBUTES) e = same_attributes(j);
        if (!e) say_report(j, o->val, j->val);
        free(names);
        if (e) return err_wrap(e, "held-out data");
    } else if (o->held_out > 0) {
        j->val = j->set;
        (j->kind->identities ? train_data_split_classes : train_data_split)(j->set, o->held_out, o->seed, &j->train_samples, &j->n_train, &j->val_samples, &j->n_val);
        if (!j->n_train || !j->n_val) return err_set(ERR_USAGE, "%s: %lld samples are too few to hold %g of them out", o->data, (long long)train_set_count(j->set), o->held_out);
    }
    return ERR_OK;
}

static struct train_data_options data_options(const struct train_job *j)
{
    const struct train_job_options *o = j->o;
    struct train_data_options d = {.width = j->picture.width, .height = j->picture.height, .channels = j->picture.channels, .batch = o->batch, .seed = o->seed,
                                   .threads = o->data_threads, .idle = o->idle, .epochs = o->epochs, .first_batch = j->state.batches,
                                   .samples = j->train_samples, .n_samples = j->n_train, .bgr = o->feed.bgr, .fit = o->feed.fit, .augment = o->augment, .max_boxes = TRAIN_JOB_BOXES};
    if (j->kind->identities) d.per_class = o->embed.per_class ? o->embed.per_class : 4;
    memcpy(d.mean, o->feed.mean, sizeof d.mean);
    memcpy(d.scale, o->feed.scale, sizeof d.scale);
    return d;
}

/* ---- frozen layers */

static bool frozen_by_name(struct train_job *j, const char *name)
{
    bool frozen = false;
    for (int i = 0; i < j->o->n_freeze; i++)
        if (str_starts(name, j->o->freeze[i])) frozen = j->freezes[i] = true;
    return frozen;
}

static bool choose(void *context, const char *name, bool usual)
{
    struct train_job *j = context;
    if (!usual || frozen_by_name(j, name)) return false;
    for (int i = 0; j->trained && i < j->n_trained; i++)
        if (!strcmp(j->trained[i], name)) return true;
    return !j->trained;
}

/* A prefix that is misspelt would freeze nothing, and nobody would know. */
static err check_freezes(const struct train_job *j)
{
    struct train_net_tensor t = {.name = ""};
    for (int i = 0; i < train_net_tensors(j->net) && !train_net_tensor(j->net, i, &t); i++) continue;
    for (int i = 0; i < j->o->n_freeze; i++)
        if (!j->freezes[i]) return err_set(ERR_USAGE, "--freeze %s: no name of what could be trained begins so; they are like '%s'", j->o->freeze[i], t.name);
    return ERR_OK;
}

struct use {
    int first, i; /* the first node that reads the parameter, and its number */
};

static int by_use(const void *a, const void *b)
{
    const struct use *p = a, *q = b;
    return p->first != q->first ? (p->first < q->first ? -1 : 1) : (p->i > q->i) - (p->i < q->i);
}

/* Parameters in the order in which they are read: files list them in any. */
static struct use *in_order(const struct graph_training *t)
{
    int *first = xnewn(int, t->g->n_values + 1);
    struct use *uses = xnewn(struct use, t->n_trained + 1);
    for (size_t k = t->g->n_nodes; k-- > 0;)
        for (int i = 0; i < t->g->nodes[k].op.n_in; i++)
            if (t->g->nodes[k].op.in[i] >= 0) first[t->g->nodes[k].op.in[i]] = (int)k;
    for (int i = 0; i < t->n_trained; i++) uses[i] = (struct use){first[t->params[i].value], i};
    qsort(uses, (size_t)t->n_trained, sizeof *uses, by_use);
    free(first);
    return uses;
}

/* All but the last n, and heads that only training needs: the names are asked of a training form that is thrown away. */
static err choose_last(struct train_job *j, const struct tensor_shape *shape)
{
    if (j->o->freeze_but <= 0) return ERR_OK;
    struct graph_training_options form = {.input_shapes = shape, .choose = choose, .context = j, .dropout = -1};
    struct graph_training *t;
    err e = graph_training_form(j->source, &form, j->payer, &t);
    if (e) return e;
    struct use *uses = in_order(t);
    char **names = xnewn(char *, t->n_trained + 1);
    int n = 0;
    for (int k = t->n_trained, left = j->o->freeze_but; k-- > 0;) {
        const char *name = t->params[uses[k].i].name;
        if (str_starts(name, TRAIN_HEAD) || left-- > 0) names[n++] = xstrdup(name);
    }
    free(uses);
    graph_training_free(&t);
    j->trained = names;
    j->n_trained = n;
    return ERR_OK;
}

/* ---- the network */

static struct train_evaluate_options evaluation(const struct train_job *j, struct mem_budget *b, const atomic_bool *stop)
{
    return (struct train_evaluate_options){.budget = b, .batch = MIN(j->o->batch, 32), .threads = j->o->threads, .feed = j->o->feed, .samples = j->val_samples,
                                           .n_samples = j->n_val, .stop = stop, .idle = j->o->idle};
}

/* To see what something takes. */
static struct mem_budget *trial_budget(const struct train_job *j, const char *name)
{
    return j->o->host ? mem_budget_within(j->payer, name, NULL, NULL) : mem_budget_new("host", UINT64_MAX);
}

static uint64_t constant_bytes(const struct graph *g)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < g->n_values; i++) sum += g->values[i].constant ? g->values[i].constant_bytes : 0;
    return sum;
}

/* What an evaluation takes, found by one that is stopped at once; it also tells whether classes and outputs fit before hours went by. Scored is a copy of the network,
 * of which every number is set anew. */
static err evaluation_bytes(struct train_job *j, uint64_t *ret)
{
    static const atomic_bool at_once = true;
    struct train_scores scores;
    struct graph *g;
    struct mem_budget *b = trial_budget(j, "evaluation");
    struct mem_payer *payer = mem_payer_new(b, "evaluation");
    struct train_evaluate_options o = evaluation(j, b, &at_once);
    o.unscored = !j->val;
    char *path = xasprintf("%s/model.onnx", j->o->out);
    err e = graph_load(path, payer, &g);
    if (!e) {
        e = j->kind->evaluate(g, j->val ? j->val : j->set, &o, &scores);
        graph_free(&g);
    }
    *ret = mem_budget_peak(b) + constant_bytes(j->source);
    free(path);
    mem_payer_free(&payer);
    mem_budget_free(&b);
    return e == ERR_CANCELLED ? ERR_OK : e;
}

/* What batches made ahead take, found by making the first. */
static err data_bytes(struct train_job *j, uint64_t *ret)
{
    struct mem_budget *b = trial_budget(j, "data");
    struct mem_payer *payer = mem_payer_new(b, "data");
    struct train_data_options d = data_options(j);
    struct train_data *data = NULL;
    const struct train_batch *batch;
    err e = j->net && j->kind->data ? j->kind->data(j, &d) : ERR_OK;
    if (!e) e = train_data_open(j->set, &d, payer, &data);
    if (!e) e = train_data_next(data, &batch);
    train_data_close(&data);
    *ret = mem_budget_peak(b);
    mem_payer_free(&payer);
    mem_budget_free(&b);
    return e;
}

/* The task has taken memory of its own, and its data may be larger than was known before the net: nothing is to run out after the first epoch. */
static err check_room(struct train_job *j, uint64_t evaluation, uint64_t data)
{
    char a[16], b[16];
    err e = j->kind->data ? data_bytes(j, &data) : ERR_OK;
    uint64_t need = j->need = mem_budget_used(j->budget) + evaluation + data, limit = mem_budget_limit(j->budget);
    if (e || need <= limit) return e;
    return err_set(ERR_NOMEM, "the job needs %s, the budget is %s: give it --budget %lluM or more, or take a smaller --batch", size_text(need, a), size_text(limit, b),
                   (unsigned long long)((need + (1 << 20) - 1) >> 20));
}

static err open_net(struct train_job *j)
{
    const struct train_job_options *o = j->o;
    struct tensor_shape shape = j->source->values[j->source->inputs[0]].shape;
    uint64_t evaluation, data;
    shape.dims[0] = o->batch;
    err e = evaluation_bytes(j, &evaluation);
    if (!e) e = data_bytes(j, &data);
    if (!e) e = choose_last(j, &shape);
    if (e) return e;
    struct train_net_options n = {.budget = j->budget, .beside = evaluation + data, .input_shapes = &shape, .threads = o->threads, .choose = choose,
                                  .choose_context = j, .frozen_statistics = o->frozen_statistics, .optimiser = o->optimiser, .accumulate = o->accumulate,
                                  .precision = o->precision, .dropout = o->dropout, .seed = o->seed, .trade = o->trade, .trade_user = j->user};
    if ((e = j->kind->loss(j, &n)) || (e = train_net_new(j->source, &n, &j->net)) || (e = check_freezes(j))) return e;
    graph_file_forget(j->source->file); /* the first numbers are the net's own by now */
    if (o->dropout > 0 && !train_net_sizes(j->net).dropouts) return err_set(ERR_USAGE, "--dropout %g: the network has no Dropout; leave that out, or add such nodes to it", o->dropout);
    train_net_set_stop(j->net, o->stop);
    if (j->kind->ready && (e = j->kind->ready(j))) return e;
    return check_room(j, evaluation, data);
}

static int64_t updates_per_epoch(const struct train_job *j)
{
    int64_t accumulate = MAX(j->o->accumulate, 1);
    return (j->state.steps + accumulate - 1) / accumulate;
}

static void make_schedule(struct train_job *j)
{
    const struct train_job_options *o = j->o;
    int64_t updates = updates_per_epoch(j);
    struct train_schedule *s = &j->schedule;
    *s = (struct train_schedule){.kind = o->schedule, .lr = o->lr, .last = o->lr_last, .gamma = o->gamma, .total = updates * o->epochs,
                                 .warmup = (int64_t)llround(o->warmup * (double)updates), .every = o->every * updates};
    if (!o->every) {
        s->n_at = 2;
        s->at[0] = updates * o->epochs / 2;
        s->at[1] = updates * o->epochs * 3 / 4;
    }
}

/* ---- one batch */

static err one_batch(struct train_job *j, const struct train_batch *b, float *ret_loss)
{
    struct tensor in = train_net_input(j->net, 0);
    err e = j->kind->text ? ERR_OK : train_fill_input(&j->picture, b->images, b->count, &in);
    return e ? e : j->kind->batch(j, b, ret_loss);
}

/* ---- epochs */

static double elapsed(const struct train_job *j)
{
    return j->seconds_before + (double)(clock_ns() - j->begun_ns) * 1e-9;
}

static err score(struct train_job *j, struct train_scores *ret)
{
    struct mem_payer *payer = mem_payer_new(j->budget, "evaluation");
    struct graph *g;
    struct train_evaluate_options o = evaluation(j, j->budget, j->o->stop);
    err e = train_job_graph(j, payer, &g);
    if (!e) {
        e = j->kind->evaluate(g, j->val, &o, ret);
        graph_free(&g);
    }
    mem_payer_free(&payer);
    return e;
}

static err end_epoch(struct train_job *j, struct train_progress *p, train_progress_fn *fn, void *user)
{
    struct train_scores *s = &p->scores;
    err e = ERR_OK;
    j->state.loss_sum = 0;
    if (j->val) {
        if ((e = score(j, s))) return e;
        p->scored = true;
    }
    j->state.epochs_done = p->epoch;
    double reached = p->scored ? j->kind->scored(s) : 0, merit = !p->scored ? -p->loss : j->kind->falls ? -reached : reached;
    if (!isfinite(merit)) merit = -DBL_MAX; /* a network that gave no numbers is the worst there is */
    if (!j->state.best_epoch || merit > j->state.best) {
        p->best = true;
        j->state.best = merit;
        j->state.best_epoch = p->epoch;
    }
    train_curves_add(&j->curves, &(struct train_point){p->epoch, (double)j->state.updates, p->loss, p->lr, p->scored && (j->o->task == TRAIN_CLASSIFY || j->o->task == TRAIN_TEXT) ? s->loss : (double)NAN,
                                                       p->scored ? reached : (double)NAN, elapsed(j)});
    p->epoch_done = true;
    p->peak = mem_budget_peak(j->budget);
    if (p->best && !(e = train_job_write_onnx(j, "best"))) e = train_job_save(j, "best");
    if (!e) e = train_curves_write(&j->curves, j->o->out, j->kind->score); /* first: a job that goes on from an older checkpoint drops what is too new */
    if (!e) e = train_job_save(j, "last");
    if (!e && fn) fn(user, p);
    return e;
}

static void tell(struct train_job *j, struct train_progress *p, int64_t batches_here, train_progress_fn *fn, void *user)
{
    double s = (double)(clock_ns() - j->begun_ns) * 1e-9;
    p->images_per_s = (double)batches_here * j->o->batch / fmax(s, 1e-9);
    p->eta_s = (double)(p->steps * p->epochs - j->state.batches) * s / (double)MAX(batches_here, 1);
    if (fn) fn(user, p);
}

static bool patience_is_over(const struct train_job *j)
{
    return j->o->patience > 0 && j->state.best_epoch && j->state.epochs_done - j->state.best_epoch >= j->o->patience;
}

/* Batches since the last update go: they are drawn again. */
static err leave(struct train_job *j)
{
    train_net_rewind(j->net);
    err e = train_job_save(j, "last");
    return e ? e : err_set(ERR_CANCELLED, "stopped after %lld updates; --resume goes on", (long long)j->state.updates);
}

/* Epoch 0: the network as it was given. It is told and no more: the best epoch is one of the trained ones. */
static err score_first(struct train_job *j, train_progress_fn *fn, void *user)
{
    struct train_progress p = {.epochs = j->o->epochs, .epoch_done = true, .scored = true};
    if (!j->o->score_first || !j->val || j->state.batches || !fn) return ERR_OK;
    err e = score(j, &p.scores);
    if (e == ERR_CANCELLED) return leave(j);
    p.peak = mem_budget_peak(j->budget);
    if (!e) fn(user, &p);
    return e;
}

/* A loss that is no number ends the job. The weights that gave it are worth nothing, so checkpoints stay as they are. */
static err keep(const struct train_job *j, err e)
{
    char why[512];
    if (e != ERR_CORRUPT || !j->state.epochs_done) return e;
    snprintf(why, sizeof why, "%s", err_text());
    return err_set(e, "%s. The weights of epoch %d, the best, are in %s/best.brim and best.onnx", why, j->state.best_epoch, j->o->out);
}

static err loop(struct train_job *j, train_progress_fn *fn, void *user, struct train_result *r)
{
    const struct train_batch *b;
    int accumulate = MAX(j->o->accumulate, 1), runs = 0;
    int64_t here = 0, steps = train_data_steps(j->data);
    double pending = 0;
    float loss;
    err e;
    r->stopped_early = patience_is_over(j) && j->state.epochs_done < j->o->epochs; /* said again of a job that goes on when it has ended */
    if (patience_is_over(j)) return ERR_OK;
    while (!stopped(j) && !(e = train_data_next(j->data, &b))) {
        if ((e = one_batch(j, b, &loss)) == ERR_CANCELLED) return leave(j);
        if (e) return keep(j, e);
        pending += (double)loss;
        here++;
        if (++runs < accumulate && b->step + 1 < steps) continue;
        double lr = train_schedule_at(&j->schedule, b->epoch * updates_per_epoch(j) + b->step / accumulate);
        train_net_update(j->net, lr, NULL);
        j->state.updates++;
        j->state.batches = b->number + 1;
        j->state.loss_sum += pending;
        struct train_progress p = {.epoch = (int)b->epoch + 1, .epochs = j->o->epochs, .step = b->step + 1, .steps = steps, .lr = lr,
                                   .loss = j->state.loss_sum / (double)(b->step + 1)};
        pending = runs = 0;
        r->loss = p.loss;
        if (b->step + 1 < steps) {
            tell(j, &p, here, fn, user);
            if ((clock_ns() - j->saved_ns) / 1000000 > (j->o->save_ms ? j->o->save_ms : SAVE_MS) && (e = train_job_save(j, "last"))) return e;
            continue;
        }
        tell(j, &p, here, NULL, NULL);
        if ((e = end_epoch(j, &p, fn, user)) == ERR_CANCELLED) {
            j->state.loss_sum = r->loss * (double)steps; /* the evaluation is done after the resume */
            return leave(j);
        }
        if (e) return e;
        if (p.scored) r->last_top1 = j->kind->scored(&p.scores);
        r->stopped_early = patience_is_over(j) && p.epoch < j->o->epochs;
        if (r->stopped_early) return ERR_OK;
    }
    return stopped(j) ? leave(j) : e == ERR_CLOSED ? ERR_OK : e;
}

/* ---- all of it */

static err open_text(struct train_job *j)
{
    j->classes = 256; /* of a network by name: bytes; more words are said by the text, or --classes of 'brim new' */
    err e = train_job_bring_model(j);
    if (!e) e = train_text_length(j->source, &j->length);
    j->picture = (struct train_picture){.width = 1, .height = 1, .channels = 1};
    return e ? e : open_sets(j);
}

/* Data that has grown or shrunk since (a box's events): the job goes on in the epoch in which it was. */
static void keep_place(struct train_job *j)
{
    struct train_job_state *s = &j->state;
    int64_t n = j->train_samples ? j->n_train : train_set_count(j->set), steps = MAX(n / j->o->batch, 1), in = s->batches - s->epochs_done * s->steps;
    if (s->steps > 0 && s->steps != steps) {
        int64_t now = in == s->steps ? steps : MIN(in, steps);
        s->batches = s->epochs_done * steps + now;
        s->loss_sum *= in > 0 ? (double)now / (double)in : 0;
    }
    s->steps = steps;
}

static err open_job(struct train_job *j)
{
    const struct train_job_options *o = j->o;
    err e = j->kind->text ? open_text(j) : open_sets(j);
    if (!e && !j->kind->text) e = train_job_bring_model(j);
    if (!e && !j->kind->text) e = train_picture_input(j->source, &j->picture);
    if (!e) e = open_net(j);
    if (!e && o->resume) e = train_job_restore(j);
    if (e || o->dry_run) return e;
    keep_place(j);
    if (o->resume) {
        train_curves_read(&j->curves, o->out, j->state.epochs_done);
        j->seconds_before = j->state.seconds;
    }
    struct train_data_options d = data_options(j);
    if (j->kind->data && (e = j->kind->data(j, &d))) return e;
    e = train_data_open(j->set, &d, j->payer, &j->data);
    if (e) return e;
    make_schedule(j);
    j->begun_ns = j->saved_ns = clock_ns();
    return ERR_OK;
}

/* A job that was stopped between an epoch's last update and its scores. */
static err finish_epoch(struct train_job *j, train_progress_fn *fn, void *user)
{
    int64_t steps = train_data_steps(j->data);
    if (!j->o->resume || j->state.batches == 0 || j->state.batches % steps || j->state.batches / steps == j->state.epochs_done) return ERR_OK;
    struct train_progress p = {.epoch = (int)(j->state.batches / steps), .epochs = j->o->epochs, .step = steps, .steps = steps,
                               .loss = j->state.loss_sum / (double)steps, .lr = train_schedule_at(&j->schedule, j->state.batches / steps * updates_per_epoch(j) - 1)};
    err e = end_epoch(j, &p, fn, user);
    if (e != ERR_CANCELLED) return e;
    j->state.loss_sum = p.loss * (double)steps;
    return leave(j);
}

static void close_job(struct train_job *j)
{
    train_data_close(&j->data);
    train_net_free(&j->net);
    train_teacher_close(&j->teacher);
    graph_free(&j->source);
    mem_free(j->payer, MEM_TRAINING, j->scratch, j->scratch_bytes);
    mem_free(j->payer, MEM_TRAINING, j->rows, j->row_bytes);
    if (j->val != j->set) train_set_free(&j->val);
    train_set_free(&j->set);
    free(j->numbers);
    free(j->train_samples);
    free(j->val_samples);
    for (int i = 0; i < j->n_trained; i++) free(j->trained[i]);
    free(j->trained);
    free(j->freezes);
    train_curves_done(&j->curves);
    if (j->lock >= 0) close(j->lock);
    mem_payer_free(&j->payer);
    if (!j->o->host) mem_budget_free(&j->budget);
}

static err check(const struct train_job_options *o)
{
    if (o->batch < 1 || o->batch > 65536) return err_set(ERR_USAGE, "--batch goes from 1 to 65536");
    if (o->epochs < 1 || o->epochs > 1000000) return err_set(ERR_USAGE, "--epochs goes from 1 to 1000000");
    if (!(o->lr > 0 && o->lr < 1000)) return err_set(ERR_USAGE, "--lr is above 0 and below 1000");
    if (!(o->held_out >= 0 && o->held_out < 1)) return err_set(ERR_USAGE, "--held-out goes from 0 to below 1");
    if (o->accumulate < 0 || o->accumulate > 100000) return err_set(ERR_USAGE, "--accumulate goes from 1 to 100000");
    if (!(o->classify.smoothing >= 0 && o->classify.smoothing < 1)) return err_set(ERR_USAGE, "--smoothing goes from 0 to below 1");
    if (!(o->classify.distill >= 0 && o->classify.distill <= 1) || !(o->classify.temperature >= 0 && o->classify.temperature <= 1000))
        return err_set(ERR_USAGE, "--distill goes from 0 to 1, --temperature from above 0 to 1000");
    if (!(o->teacher_score >= 0 && o->teacher_score < 1)) return err_set(ERR_USAGE, "--teacher-score goes from 0 to below 1");
    if (o->teacher && o->task != TRAIN_CLASSIFY && o->task != TRAIN_DETECT) return err_set(ERR_USAGE, "--teacher is for classify and detect");
    if (!(o->image.l1 >= 0 && o->image.mse >= 0 && o->image.ssim >= 0 && o->image.adversary >= 0)) return err_set(ERR_USAGE, "--l1, --mse, --ssim and --adversary are 0 or more");
    if (!(o->dropout < 1)) return err_set(ERR_USAGE, "--dropout goes from 0 to below 1");
    if (!(o->embed.margin >= 0 && o->embed.triplet >= 0 && o->classify.focal >= 0)) return err_set(ERR_USAGE, "--margin, --triplet and --focal are 0 or more");
    if (!(o->lr_last >= 0 && o->gamma >= 0)) return err_set(ERR_USAGE, "--lr-last and --gamma are 0 or more");
    if (!(o->warmup >= 0 && o->warmup <= o->epochs)) return err_set(ERR_USAGE, "--warmup goes from 0 to the number of epochs");
    return ERR_OK;
}

err train_job(const struct train_job_options *o, train_progress_fn *fn, void *user, struct train_result *ret)
{
    if (o->task < TRAIN_CLASSIFY || o->task > TRAIN_TEXT) return err_set(ERR_USAGE, "%d is no task", (int)o->task);
    err e = check(o);
    if (e) return e;
    static const struct train_task_kind *const kinds[] = {NULL, &train_task_classify, &train_task_detect, &train_task_embed, &train_task_image, &train_task_attributes, &train_task_text};
    struct train_job j = {.o = o, .kind = kinds[o->task], .user = user, .lock = -1, .freezes = xnewn(bool, o->n_freeze + 1), .begun_ns = clock_ns()};
    struct train_result r = {0};
    if (o->idle) {
        struct sched_param none = {0};
        sched_setscheduler(0, SCHED_IDLE, &none); /* threads that are made from here on inherit it; where it is refused, the job runs as it is */
    }
    j.budget = o->host ? o->host : mem_budget_new("host", o->budget ? o->budget : mem_budget_auto());
    if (o->host) mem_budget_set_limit(o->host, o->budget ? o->budget : UINT64_MAX);
    j.payer = mem_payer_new(j.budget, "job");
    e = open_job(&j);
    if (!e && !o->dry_run) e = finish_epoch(&j, fn, user);
    if (!e && !o->dry_run) e = score_first(&j, fn, user);
    if (!e && !o->dry_run) e = loop(&j, fn, user, &r);
    if (!e && !o->dry_run) e = train_job_write_onnx(&j, "last");
    r.epochs = j.state.epochs_done;
    r.updates = j.state.updates;
    r.best_epoch = j.state.best_epoch;
    r.best_top1 = !j.val || !j.state.best_epoch ? (double)NAN : j.kind->falls ? -j.state.best : j.state.best;
    r.peak = mem_budget_peak(j.budget);
    if (j.data) {
        struct train_data_stats stats;
        train_data_stats(j.data, &stats);
        r.corrupt = stats.corrupt;
        snprintf(r.problem, sizeof r.problem, "%s", stats.problem);
    }
    r.seconds = elapsed(&j);
    if (j.net) r.sizes = train_net_sizes(j.net);
    r.need = MAX(r.sizes.need, j.need);
    close_job(&j);
    if (!e || e == ERR_CANCELLED) *ret = r;
    return e;
}
