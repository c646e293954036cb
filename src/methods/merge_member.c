/* See merge_member.h. Invariant: `source` is never changed; what is scored or written is a graph of its own with the net's numbers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_member.h"
#include "methods/merge_chance.h"
#include "methods/merge_unfold.h"
#include "train/checkpoint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STRETCHES = 5 }; /* of a video, held out */

/* ---- opening */

static err open_sets(struct merge_member *m, const struct merge_source *s)
{
    err e = merge_source_open(s, s->data, true, m->payer, &m->set);
    return e || !s->val ? e : merge_source_open(s, s->val, true, m->payer, &m->val_set);
}

static void all_samples(const struct train_set *set, int64_t **ret, int64_t *ret_n)
{
    *ret_n = train_set_count(set);
    *ret = xnewn(int64_t, *ret_n + 1);
    for (int64_t i = 0; i < *ret_n; i++) (*ret)[i] = i;
}

/* Of a video some stretches all over it: its end alone may be another scene than the rest, single frames are nearly those beside them. */
static void hold_stretches_out(struct merge_member *m, double held_out)
{
    int64_t n = train_set_count(m->set);
    m->val_set = m->set;
    m->train = xnewn(int64_t, n + 1);
    m->held = xnewn(int64_t, n + 1);
    for (int64_t i = 0; i < n; i++) {
        double at = (double)i * STRETCHES / (double)n;
        if (at - floor(at) < 1 - held_out) m->train[m->n_train++] = i;
        else m->held[m->n_held++] = i;
    }
}

static err divide(struct merge_member *m)
{
    double held = m->o.held_out > 0 ? m->o.held_out : 0.2;
    if (m->val_set) {
        all_samples(m->set, &m->train, &m->n_train);
        all_samples(m->val_set, &m->held, &m->n_held);
    } else {
        m->val_set = m->set;
        if (train_set_kind(m->set) == TRAIN_SET_VIDEO) hold_stretches_out(m, held);
        else train_data_split(m->set, held, m->o.seed, &m->train, &m->n_train, &m->held, &m->n_held);
    }
    int64_t most = m->o.most_val > 0 ? m->o.most_val : 1000;
    if (m->n_held > most) { /* evenly, not the first: sets are often sorted by class or time */
        for (int64_t i = 0; i < most; i++) m->held[i] = m->held[i * m->n_held / most];
        m->n_held = most;
    }
    if (!m->n_train || !m->n_held)
        return err_set(ERR_USAGE, "%lld pictures to train with and %lld to measure with: more are needed", (long long)m->n_train, (long long)m->n_held);
    return ERR_OK;
}

static err unfold(struct merge_member *m)
{
    struct train_evaluate_options o = {.budget = m->o.budget, .batch = 8, .threads = m->o.threads, .feed = m->feed, .samples = m->train, .n_samples = m->n_train, .stop = m->o.stop};
    return merge_unfold(m->onnx, m->o.size, m->set, &o, &m->unfolded);
}

static err prepare_score(struct merge_member *m, const struct merge_source *s)
{
    int64_t classes;
    if (s->card) m->card = *s->card;
    if (m->o.size && m->card.prior_count) return err_set(ERR_USAGE, "--size: its card has boxes for a grid of one size");
    if (m->o.size) m->card.inputs[0].width = m->card.inputs[0].height = m->o.size;
    err e = merge_score_classes(m->source, m->payer, &classes);
    if (e) return e;
    m->score = (struct merge_score){.measure = merge_score_measure(classes, s->card, m->val_set, !s->unlabelled && (!s->crops || s->label) && !train_set_unlabelled(m->val_set)), .classes = classes, .original = m->source, .card = s->card ? &m->card : NULL, .set = m->val_set,
                                    .o = {.budget = m->o.budget, .batch = MIN(m->o.batch, 32), .threads = m->o.threads, .feed = s->feed, .samples = m->held, .n_samples = m->n_held, .stop = m->o.stop}};
    m->labels = m->score.measure == MERGE_TOP1;
    return merge_chance(&m->score, &m->chance);
}

static err measure_original(struct merge_member *m, double target)
{
    m->original = 1;
    bool against_labels = m->score.measure == MERGE_TOP1 || m->score.measure == MERGE_AP50;
    err e = against_labels ? merge_score_run(&m->score, m->source, &m->original, NULL) : ERR_OK;
    if (e) return e;
    m->target = target * m->original;
    if (m->score.measure == MERGE_SAME_CLASS && m->chance >= 1)
        return err_set(ERR_USAGE, "it gives all %lld pictures to measure with the same class, so nothing can be measured: give it others (--data %s=PATH), or leave it out", (long long)m->n_held,
                       m->name);
    if (m->original <= m->chance)
        return err_set(ERR_USAGE, "its %s on this data is %.1f %%, no better than chance (%s: %.1f %%): is it the right data, and is it fed as its card says?",
                       merge_measure_name(m->score.measure), 100 * m->original, merge_chance_name(m->score.measure), 100 * m->chance);
    return ERR_OK;
}

err merge_member_open(const struct merge_source *s, const struct merge_member_options *o, double target, struct merge_member **ret)
{
    struct merge_member *m = xnew(struct merge_member);
    m->name = xstrdup(s->name);
    m->onnx = xstrdup(s->onnx);
    m->o = *o;
    m->feed = s->feed;
    m->payer = mem_payer_new(o->budget, s->name);
    err e = s->data ? ERR_OK : err_set(ERR_USAGE, "no data: give it --data %s=PATH (pictures, a video, or a labelled set)", s->name);
    if (!e) e = open_sets(m, s);
    if (!e) e = divide(m);
    if (!e) e = unfold(m);
    if (!e) e = merge_source_load(s->onnx, m->o.size, m->payer, &m->source);
    if (!e) e = train_picture_input(m->source, &m->picture);
    if (!e) e = prepare_score(m, s);
    if (!e) e = measure_original(m, target);
    if (e) {
        e = err_wrap(e, "model '%s'", s->name);
        merge_member_free(&m);
        return e;
    }
    *ret = m;
    return ERR_OK;
}

void merge_member_free(struct merge_member **at)
{
    struct merge_member *m = *at;
    if (!m) return;
    train_data_close(&m->data);
    train_net_free(&m->net);
    merge_teacher_close(&m->teacher);
    if (m->val_set != m->set) train_set_free(&m->val_set);
    train_set_free(&m->set);
    graph_free(&m->source);
    mem_payer_free(&m->payer);
    free(m->train);
    free(m->held);
    free(m->name);
    free(m->onnx);
    free(m);
    *at = NULL;
}

/* ---- training */

static struct train_data_options data_options(const struct merge_member *m)
{
    bool small = m->picture.width <= 64;
    struct train_data_options d = {.width = m->picture.width, .height = m->picture.height, .channels = m->picture.channels, .batch = m->o.batch, .seed = m->o.seed,
                                   .threads = 1, .samples = m->train, .n_samples = m->n_train, .bgr = m->feed.bgr, .fit = m->feed.fit,
                                   .augment = {.flip = 0.5f, .shift = small ? 4 : 0}}; /* more would move running statistics away from what a fixed camera sees */
    memcpy(d.mean, m->feed.mean, sizeof d.mean);
    memcpy(d.scale, m->feed.scale, sizeof d.scale);
    return d;
}

static void find_arrays(struct merge_member *m)
{
    struct train_section sections[8];
    int n = train_net_sections(m->net, sections);
    for (int i = 0; i < n; i++) {
        if (strcmp(sections[i].name, "parameters")) continue;
        m->values = sections[i].p;
        m->n_values = (int64_t)(sections[i].bytes / sizeof(float));
    }
    m->grads = train_net_gradients(m->net);
}

err merge_member_begin(struct merge_member *m, uint64_t most)
{
    struct tensor_shape shape = m->source->values[m->source->inputs[0]].shape;
    bool classes = m->score.measure == MERGE_TOP1 || m->score.measure == MERGE_SAME_CLASS, plain = m->o.only_labels && m->labels;
    m->teacher = (struct merge_teacher){.source = m->source, .classes = classes, .labels = m->labels ? (plain ? 1 : 0.5) : 0, .soft = plain ? 0 : 0.5,
                                        .hints = plain ? 0 : 1, .temperature = 2};
    shape.dims[0] = m->o.batch;
    struct train_net_options o = {.budget = m->o.budget, .input_shapes = &shape, .threads = m->o.threads, .loss = merge_teacher_loss, .loss_context = &m->teacher,
                                  .dropout = -1, /* it follows the original's answers, which drops nothing */
                                  .optimiser = {.rule = TRAIN_ADAMW, .weight_decay = (float)m->o.weight_decay}};
    uint64_t all = mem_budget_limit(m->o.budget), used = mem_budget_used(m->o.budget);
    if (most < all) mem_budget_set_limit(m->o.budget, MIN(all, used + most));
    err e = train_net_new(m->source, &o, &m->net);
    mem_budget_set_limit(m->o.budget, all);
    char text[16];
    if (e == ERR_NOMEM && most < all) e = err_wrap(e, "of the %s for all models together its part is too small", size_text(all, text));
    if (!e && (m->teacher.n_hints || m->teacher.soft_target >= 0)) e = merge_teacher_open(&m->teacher, m->o.budget, m->o.batch, m->o.threads);
    if (e) return err_wrap(e, "model '%s'", m->name);
    merge_teacher_trust(&m->teacher, m->net, NULL);
    train_net_set_stop(m->net, m->o.stop);
    if (m->teacher.plan) model_plan_set_stop(m->teacher.plan, m->o.stop);
    find_arrays(m);
    m->steps = MAX(m->n_train / m->o.batch, 1);
    return ERR_OK;
}

/* Decoding begins with the first batch, so that no thread charges the budget while networks are planned. */
static err next_batch(struct merge_member *m, const struct train_batch **ret)
{
    if (!m->data) {
        struct train_data_options d = data_options(m);
        d.first_batch = m->batches;
        err e = train_data_open(m->set, &d, m->payer, &m->data);
        if (e) return e;
    }
    return train_data_next(m->data, ret);
}

err merge_member_step(struct merge_member *m, float *ret_loss)
{
    const struct train_batch *b;
    err e = next_batch(m, &b);
    if (e) return err_wrap(e, "model '%s'", m->name);
    struct tensor in = train_net_input(m->net, 0);
    e = train_fill_input(&m->picture, b->images, b->count, &in);
    if (!e && m->teacher.plan) e = merge_teacher_run(&m->teacher, &m->picture, b, m->net);
    else if (!e) e = merge_teacher_labels(&m->teacher, b, m->net);
    if (!e) e = train_net_run(m->net, ret_loss);
    m->batches++;
    return e ? err_wrap(e, "model '%s'", m->name) : ERR_OK;
}

err merge_member_settle(struct merge_member *m, float *ret_loss)
{
    err e = merge_member_step(m, ret_loss);
    train_net_rewind(m->net);
    return e;
}

void merge_member_update(struct merge_member *m, double lr)
{
    train_net_update(m->net, lr, NULL);
}

void merge_member_forget(struct merge_member *m)
{
    struct train_section sections[8];
    int n = train_net_sections(m->net, sections);
    for (int i = 0; i < n; i++)
        if (strcmp(sections[i].name, "parameters")) memset(sections[i].p, 0, sections[i].bytes);
    train_net_set_steps(m->net, 0);
}

/* ---- looking at it */

static err graph_of(struct merge_member *m, int size, const float *values, struct graph **ret)
{
    struct train_net_tensor t;
    struct graph *g;
    err e = merge_source_load(m->onnx, size, m->payer, &g);
    if (e) return e;
    if (!values) values = m->values;
    for (int i = 0; i < train_net_tensors(m->net) && !e; i++)
        if (train_net_tensor(m->net, i, &t)) e = graph_set_constant(g, t.source_value, values + t.at, t.count);
    if (e) graph_free(&g);
    else *ret = g;
    return e;
}

err merge_member_graph(struct merge_member *m, const float *values, struct graph **ret)
{
    return graph_of(m, m->o.size, values, ret);
}

void merge_member_original(const struct merge_member *m, float *values)
{
    struct train_net_tensor t;
    memcpy(values, m->values, (size_t)m->n_values * sizeof *values);
    for (int i = 0; i < train_net_tensors(m->net); i++)
        if (train_net_tensor(m->net, i, &t)) memcpy(values + t.at, m->source->values[t.source_value].constant, (size_t)t.count * sizeof *values);
}

err merge_member_score(struct merge_member *m, double *ret)
{
    struct graph *g;
    err e = graph_of(m, m->o.size, NULL, &g);
    if (e) return e;
    e = merge_score_run(&m->score, g, ret, &m->error);
    graph_free(&g);
    return e ? err_wrap(e, "model '%s'", m->name) : ERR_OK;
}

static bool find_numbers(const struct merge_member *m, int value, bool states, int64_t *ret_at, int64_t *ret_count)
{
    struct train_net_tensor t;
    for (int i = 0; i < train_net_tensors(m->net); i++) {
        if (!train_net_tensor(m->net, i, &t) || t.source_value != value || (t.state && !states)) continue;
        *ret_at = t.at;
        *ret_count = t.count;
        return true;
    }
    return false;
}

bool merge_member_place(const struct merge_member *m, int value, int64_t *ret_at, int64_t *ret_count)
{
    return find_numbers(m, value, false, ret_at, ret_count);
}

bool merge_member_numbers(const struct merge_member *m, int value, int64_t *ret_at, int64_t *ret_count)
{
    return find_numbers(m, value, true, ret_at, ret_count);
}
