/* How the arrays lie: every parameter and state begins at a multiple of 16 floats; gaps are 0 in all arrays and stay so. Trained parameters come first
 * (`n_flat` floats), states behind them. A parameter that the loss does not depend on keeps its numbers: it has no slice.
 *
 * Invariant: between train_net_update calls `values` changes not at all; a run writes gradients and the `next` of states only.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/net.h"
#include "train/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct place {
    char *name;
    size_t at, count, rows;
    int source_value;
    bool decay, state;
    int input; /* its number among the plan's inputs */
    int grad; /* output number of the gradient, or of the state's next; -1: none */
};
struct target {
    struct tensor_shape shape;
    enum tensor_dtype dtype;
    size_t bytes;
    void *p;
};
struct train_net {
    struct mem_payer *payer;
    struct model *model;
    struct model_plan *plan;
    bool pinned;
    int n_places, n_trained, n_targets, first_target, n_outputs, loss_output, cut;
    struct place *places;
    struct target *targets;
    size_t n_flat, n_all;         /* floats of trained parameters; with states */
    float *values, *grads, *sum;  /* values, grads: n_all floats (grads holds the next of states too); sum: n_flat, NULL without accumulation */
    float *kept;                  /* states as of the last update; NULL without accumulation */
    float *loss;                  /* one number in a block of 64 bytes */
    int dropouts, draw_input;     /* of the plan, -1: nothing is dropped; */
    int64_t *draw;                /* what it reads: seed, update, run in the update; a block of 64 bytes */
    uint64_t seed;
    int accumulate, runs;
    uint64_t fixed, need;
    int level;                    /* of recomputation; `again` says what it costs */
    struct graph_recompute_cost again;
    struct train_optimiser *optimiser;
};

enum { LOSS_BYTES = 64, DRAW_BYTES = 64 };

static err take(struct train_net *n, size_t bytes, void *ret)
{
    err e = mem_alloc(n->payer, MEM_TRAINING, bytes, (void **)ret);
    if (!e) n->fixed += bytes;
    return e;
}

/* ---- making the graph */

static int input_number(const struct graph *g, int value)
{
    for (int i = 0; i < g->n_inputs; i++)
        if (g->inputs[i] == value) return i;
    return -1;
}

/* Output channels of a convolution; other matrices are taken as one. */
static size_t rows_of(const struct tensor_shape *s)
{
    return s->rank < 2 ? 0 : s->rank == 2 ? 1 : (size_t)s->dims[0];
}

static void lay_out(struct train_net *n, const struct graph_training *t)
{
    n->n_places = t->n_params;
    n->n_trained = t->n_trained;
    n->places = xnewn(struct place, t->n_params + 1);
    for (int i = 0; i < t->n_params; i++) {
        const struct graph_parameter *p = &t->params[i];
        n->places[i] = (struct place){.name = xstrdup(p->name), .at = n->n_all, .count = (size_t)p->count, .source_value = p->source_value, .input = input_number(t->g, p->value),
                                      .decay = p->role == GRAPH_PARAMETER_WEIGHT, .state = p->role == GRAPH_PARAMETER_STATE, .grad = -1,
                                      .rows = rows_of(&t->g->values[p->value].shape)};
        n->n_all += ((size_t)p->count + 15) / 16 * 16;
        if (i + 1 == t->n_trained) n->n_flat = n->n_all;
    }
}

static int output_number(const struct graph *g, int value)
{
    for (int i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == value) return i;
    return -1;
}

static void take_targets(struct train_net *n, const struct graph *g)
{
    n->n_targets = g->n_inputs - n->first_target;
    n->targets = xnewn(struct target, n->n_targets + 1);
    for (int i = 0; i < n->n_targets; i++) {
        const struct graph_value *v = &g->values[g->inputs[n->first_target + i]];
        size_t bytes = (size_t)tensor_count(&v->shape) * tensor_dtype_size(v->dtype);
        n->targets[i] = (struct target){.shape = v->shape, .dtype = v->dtype, .bytes = MAX(bytes, 1)};
    }
}

/* Gradients of one loss by those parameters that follow it. */
static err add_part(const struct graph_training *t, int loss, const char *rival, bool of_rival, int *grads)
{
    int *wrt = xnewn(int, t->n_trained + 1), *part = xnewn(int, t->n_trained + 1), *which = xnewn(int, t->n_trained + 1), k = 0;
    for (int i = 0; i < t->n_trained; i++) {
        if ((rival && str_starts(t->params[i].name, rival)) != of_rival) continue;
        wrt[k] = t->params[i].value;
        which[k++] = i;
    }
    err e = graph_backward(t->g, loss, wrt, k, part);
    for (int i = 0; i < k && !e; i++) grads[which[i]] = part[i];
    free(wrt);
    free(part);
    free(which);
    return e;
}

static err add_gradients(struct train_net *n, struct graph_training *t, int loss, const struct train_net_options *o)
{
    struct graph *g = t->g;
    int *grads = xnewn(int, t->n_trained + 1);
    err e = add_part(t, loss, o->rival, false, grads);
    if (!e && o->rival) e = add_part(t, *o->rival_loss, o->rival, true, grads);
    if (!e) {
        n->loss_output = g->n_outputs;
        graph_add_output(g, loss);
    }
    int found = 0;
    for (int i = 0; i < t->n_trained && !e; i++) {
        if (grads[i] < 0) continue;
        n->places[i].grad = g->n_outputs;
        graph_add_output(g, grads[i]);
        found++;
    }
    for (int i = t->n_trained; i < t->n_params && !e; i++) n->places[i].grad = output_number(g, t->params[i].update);
    if (!e && !found) e = err_set(ERR_USAGE, "%s: the loss depends on no parameter that may be trained", g->name);
    free(grads);
    return e;
}

static err make_graph(struct train_net *n, const struct graph *source, const struct train_net_options *o, struct graph_training **ret)
{
    struct graph_training_options form = {.input_shapes = o->input_shapes, .choose = o->choose, .context = o->choose_context,
                                          .frozen_statistics = o->frozen_statistics, .dropout = o->dropout};
    struct graph_training *t;
    err e = graph_training_form(source, &form, n->payer, &t);
    if (e) return e;
    lay_out(n, t);
    n->draw_input = t->draw < 0 ? -1 : input_number(t->g, t->draw);
    n->dropouts = t->n_dropouts;
    n->first_target = t->g->n_inputs;
    n->n_outputs = t->n_inputs ? t->n_outputs : 0;
    struct graph_builder b = {.g = t->g, .name = "loss"};
    int loss = -1;
    e = o->loss(&b, t, o->loss_context, &loss);
    if (!e) e = b.e;
    if (!e) take_targets(n, t->g);
    if (!e) e = add_gradients(n, t, loss, o);
    if (!e && !o->rival) e = graph_recompute(t->g, loss, n->level, &n->again);
    if (e)
        graph_training_free(&t);
    else
        *ret = t;
    return e;
}

static err make_plan(struct train_net *n, struct graph_training *t, const struct train_net_options *o)
{
    struct model_options options = {.budget = o->budget, .threads = o->threads, .only_ref = o->only_ref};
    int n_inputs = t->n_inputs;
    struct graph *g = t->g;
    t->g = NULL; /* the model's now, also on failure */
    err e = model_from_graph(g, "training", &options, &n->model);
    if (e) return e;
    model_external(n->model, n_inputs, n->n_outputs);
    if (o->precision == KERNEL_BF16 || o->precision == KERNEL_AUTO) model_half_products(n->model);
    e = model_plan_new(n->model, NULL, &n->plan);
    if (!e && model_plan_cut(n->plan, n->first_target, n->n_outputs, &n->cut)) n->cut = -1; /* only some losses ask for it */
    return e;
}

/* ---- memory */

static uint64_t still_to_come(const struct train_net *n, const struct train_net_options *o)
{
    struct model_sizes s = model_plan_sizes(n->plan);
    uint64_t bytes = s.activations + s.scratch + LOSS_BYTES + (n->draw_input >= 0 ? DRAW_BYTES : 0) + 2 * n->n_all * sizeof(float) + train_optimiser_bytes(&o->optimiser, n->n_flat);
    if (o->accumulate > 1) bytes += n->n_all * sizeof(float);
    for (int i = 0; i < n->n_targets; i++) bytes += n->targets[i].bytes;
    return bytes;
}

static err refuse(const struct train_net *n, uint64_t need, uint64_t limit)
{
    char a[16], b[16], c[16];
    (void)n;
    uint64_t megabytes = (need + (1 << 20) - 1) >> 20;
    return err_set(ERR_NOMEM, "training needs %s (%s of it activations), the budget is %s: give it --budget %lluM or more, or take a smaller --batch",
                   size_text(need, a), size_text(model_plan_sizes(n->plan).activations, b), size_text(limit, c), (unsigned long long)megabytes);
}

static err make_optimiser(struct train_net *n, const struct train_net_options *o)
{
    struct train_slice *slices = xnewn(struct train_slice, n->n_trained + 1);
    int count = 0;
    for (int i = 0; i < n->n_trained; i++)
        if (n->places[i].grad >= 0) slices[count++] = (struct train_slice){n->places[i].at, n->places[i].count, n->places[i].decay,
                                                                           n->places[i].rows};
    err e = train_optimiser_new(&o->optimiser, slices, count, n->n_flat, n->payer, &n->optimiser);
    if (!e) n->fixed += train_optimiser_bytes(&o->optimiser, n->n_flat);
    free(slices);
    return e;
}

static err take_memory(struct train_net *n, const struct train_net_options *o)
{
    err e = take(n, n->n_all * sizeof(float), &n->values);
    if (!e) e = take(n, n->n_all * sizeof(float), &n->grads);
    if (!e && n->accumulate > 1) e = take(n, n->n_flat * sizeof(float), &n->sum);
    if (!e && n->accumulate > 1) e = take(n, (n->n_all - n->n_flat) * sizeof(float), &n->kept);
    if (!e) e = take(n, LOSS_BYTES, &n->loss);
    if (!e && n->draw_input >= 0) e = take(n, DRAW_BYTES, &n->draw);
    for (int i = 0; i < n->n_targets && !e; i++) e = take(n, n->targets[i].bytes, &n->targets[i].p);
    if (!e) e = make_optimiser(n, o);
    if (!e) e = model_plan_reserve(n->plan);
    if (!e) e = model_request(n->model);
    if (!e) {
        n->pinned = true;
        e = model_wait(n->model);
    }
    return e;
}

static void connect(struct train_net *n)
{
    for (int i = 0; i < n->n_places; i++) {
        model_plan_bind_input(n->plan, n->places[i].input, n->values + n->places[i].at);
        if (n->places[i].grad >= 0) model_plan_bind_output(n->plan, n->places[i].grad, n->grads + n->places[i].at);
    }
    for (int i = 0; i < n->n_targets; i++) model_plan_bind_input(n->plan, n->first_target + i, n->targets[i].p);
    if (n->draw) model_plan_bind_input(n->plan, n->draw_input, n->draw);
    model_plan_bind_output(n->plan, n->loss_output, n->loss);
}

static void drop_plan(struct train_net *n, struct graph_training **t)
{
    model_plan_free(&n->plan);
    model_free(&n->model);
    graph_training_free(t);
    for (int i = 0; i < n->n_places; i++) free(n->places[i].name);
    free(n->places);
    free(n->targets);
    n->places = NULL;
    n->targets = NULL;
    n->n_places = n->n_targets = 0;
    n->n_all = n->n_flat = 0;
}

/* Graph and plan at a level of recomputation, and all bytes that the job then needs. */
static err attempt(struct train_net *n, const struct graph *source, const struct train_net_options *o, int level, struct graph_training **t, uint64_t *ret_need)
{
    drop_plan(n, t);
    n->level = level;
    err e = make_graph(n, source, o, t);
    if (!e) e = make_plan(n, *t, o);
    if (!e) *ret_need = mem_budget_used(o->budget) + still_to_come(n, o) + o->beside;
    return e;
}

/* The lowest level that fits: bytes fall with the level, nearly. Where none fits, the one that needs least. */
static err search(struct train_net *n, const struct graph *source, const struct train_net_options *o, uint64_t limit, struct graph_training **t, uint64_t *need)
{
    int best = n->again.levels, low = 0; /* low: does not fit */
    uint64_t least = UINT64_MAX, now;
    err e = ERR_OK;
    for (int level = n->again.levels; level > 0 && level > n->again.levels - 3 && !e; level--)
        if (!(e = attempt(n, source, o, level, t, &now)) && now < least) {
            least = now;
            best = level;
        }
    for (int high = best; least <= limit && high - low > 1 && !e;) {
        int middle = (low + high) / 2;
        if ((e = attempt(n, source, o, middle, t, &now))) break;
        *(now <= limit ? &high : &low) = middle;
        if (now <= limit) best = middle;
    }
    if (!e && n->level != best) return attempt(n, source, o, best, t, need);
    *need = now;
    return e;
}

static err show_trade(struct train_net *n, const struct graph *source, const struct train_net_options *o, struct graph_training **t, uint64_t *need)
{
    int levels = n->again.levels, at[] = {0, levels / 4, levels / 2, 3 * levels / 4, levels - 2, levels - 1, levels}, last = -1;
    uint64_t least = UINT64_MAX;
    err e = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(at) && !e; i++) {
        if (at[i] <= last) continue;
        last = at[i];
        if ((e = attempt(n, source, o, at[i], t, need)) || *need >= least) continue; /* more time for nothing */
        least = *need;
        o->trade(o->trade_user, at[i], &n->again, *need);
    }
    return e ? e : attempt(n, source, o, MAX(o->recompute, 0), t, need);
}

static err choose_plan(struct train_net *n, const struct graph *source, const struct train_net_options *o, uint64_t limit, struct graph_training **t)
{
    uint64_t need = 0;
    mem_budget_set_limit(o->budget, UINT64_MAX); /* so that the refusal can say how much would do */
    err e = attempt(n, source, o, MAX(o->recompute, 0), t, &need);
    if (!e && o->trade) e = show_trade(n, source, o, t, &need);
    if (!e && need > limit && o->recompute == 0 && n->again.levels) e = search(n, source, o, limit, t, &need);
    mem_budget_set_limit(o->budget, limit);
    n->need = need;
    if (!e) e = need > limit ? refuse(n, need, limit) : mem_budget_hold(o->budget, need);
    return e;
}

err train_net_new(const struct graph *source, const struct train_net_options *o, struct train_net **ret)
{
    struct train_net *n = xnew(struct train_net);
    struct graph_training *t = NULL;
    n->payer = mem_payer_new(o->budget, "training");
    n->accumulate = MAX(o->accumulate, 1);
    n->seed = o->seed;
    err e = choose_plan(n, source, o, mem_budget_limit(o->budget), &t);
    if (!e) e = take_memory(n, o);
    if (!e) {
        for (int i = 0; i < n->n_places; i++) memcpy(n->values + n->places[i].at, t->params[i].initial, n->places[i].count * sizeof(float));
        connect(n);
        train_optimiser_begin(n->optimiser, n->values);
    }
    graph_training_free(&t);
    if (e)
        train_net_free(&n);
    else
        *ret = n;
    return e;
}

void train_net_free(struct train_net **np)
{
    struct train_net *n = *np;
    if (!n) return;
    if (n->pinned) model_release(n->model);
    model_plan_free(&n->plan);
    model_free(&n->model);
    train_optimiser_free(&n->optimiser);
    mem_free(n->payer, MEM_TRAINING, n->values, n->n_all * sizeof(float));
    mem_free(n->payer, MEM_TRAINING, n->grads, n->n_all * sizeof(float));
    mem_free(n->payer, MEM_TRAINING, n->sum, n->n_flat * sizeof(float));
    mem_free(n->payer, MEM_TRAINING, n->kept, (n->n_all - n->n_flat) * sizeof(float));
    mem_free(n->payer, MEM_TRAINING, n->loss, LOSS_BYTES);
    mem_free(n->payer, MEM_TRAINING, n->draw, DRAW_BYTES);
    for (int i = 0; i < n->n_targets; i++) mem_free(n->payer, MEM_TRAINING, n->targets[i].p, n->targets[i].bytes);
    for (int i = 0; i < n->n_places; i++) free(n->places[i].name);
    mem_payer_free(&n->payer);
    free(n->places);
    free(n->targets);
    free(n);
    *np = NULL;
}

/* ---- running */

struct tensor train_net_input(const struct train_net *n, int i)
{
    return model_plan_input(n->plan, i);
}

struct tensor train_net_output(const struct train_net *n, int i)
{
    return model_plan_output(n->plan, i);
}

struct tensor train_net_target(const struct train_net *n, int i)
{
    return tensor_view(n->targets[i].dtype, &n->targets[i].shape, n->targets[i].p);
}

void train_net_set_stop(struct train_net *n, const atomic_bool *stop)
{
    model_plan_set_stop(n->plan, stop);
}

static err not_finite(struct train_net *n)
{
    char where[160];
    err e = model_plan_find_nonfinite(n->plan, where, sizeof where);
    if (e) return e;
    return err_set(ERR_CORRUPT, "step %lld: the loss or a gradient is not a finite number, first at %s; try a smaller learning rate, or a warm-up",
                   (long long)n->optimiser->steps, *where ? where : "the sum over all");
}

static err after_run(struct train_net *n, float *ret_loss)
{
    if (!isfinite(n->loss[0]) || !isfinite(train_norm(n->grads, n->n_all))) return not_finite(n);
    if (n->kept && n->runs == 0) memcpy(n->kept, n->values + n->n_flat, (n->n_all - n->n_flat) * sizeof(float));
    n->runs++;
    for (size_t i = 0; n->sum && i < n->n_flat; i++) n->sum[i] = (n->runs == 1 ? 0 : n->sum[i]) + n->grads[i];
    /* running statistics follow every run, as in PyTorch */
    for (int i = n->n_trained; i < n->n_places; i++)
        if (n->places[i].grad >= 0) memcpy(n->values + n->places[i].at, n->grads + n->places[i].at, n->places[i].count * sizeof(float));
    *ret_loss = n->loss[0];
    return ERR_OK;
}

/* A run that failed or was stopped is done again with the same draw; each of an accumulation has its own. */
static void draw(struct train_net *n)
{
    if (!n->draw) return;
    n->draw[0] = (int64_t)n->seed;
    n->draw[1] = n->optimiser->steps;
    n->draw[2] = n->runs;
}

err train_net_run(struct train_net *n, float *ret_loss)
{
    draw(n);
    err e = model_plan_run(n->plan, NULL);
    return e ? e : after_run(n, ret_loss);
}

err train_net_run_forward(struct train_net *n)
{
    if (n->cut < 0) return err_set(ERR_INTERNAL, "this network's loss is begun before its last output");
    draw(n);
    return model_plan_run_part(n->plan, 0, n->cut);
}

err train_net_run_rest(struct train_net *n, float *ret_loss)
{
    err e = model_plan_run_part(n->plan, n->cut, model_plan_sizes(n->plan).steps);
    return e ? e : after_run(n, ret_loss);
}

void train_net_update(struct train_net *n, double lr, double *ret_norm)
{
    float *g = n->sum ? n->sum : n->grads, by = 1.0f / (float)MAX(n->runs, 1);
    for (size_t i = 0; n->runs > 1 && i < n->n_flat; i++) g[i] *= by;
    if (ret_norm) *ret_norm = train_norm(g, n->n_flat);
    train_optimiser_step(n->optimiser, n->values, g, lr);
    n->runs = 0;
}

void train_net_rewind(struct train_net *n)
{
    if (n->kept && n->runs) memcpy(n->values + n->n_flat, n->kept, (n->n_all - n->n_flat) * sizeof(float));
    n->runs = 0;
}

/* ---- what lasts */

int train_net_sections(struct train_net *n, struct train_section *ret)
{
    int k = 0;
    ret[k++] = (struct train_section){"parameters", n->values, n->n_all * sizeof(float)};
    if (n->optimiser->m) ret[k++] = (struct train_section){"m", n->optimiser->m, n->n_flat * sizeof(float)};
    if (n->optimiser->v) ret[k++] = (struct train_section){"v", n->optimiser->v, n->n_flat * sizeof(float)};
    if (n->optimiser->ema) ret[k++] = (struct train_section){"mean", n->optimiser->ema, n->n_flat * sizeof(float)};
    return k;
}

int64_t train_net_steps(const struct train_net *n)
{
    return n->optimiser->steps;
}

void train_net_set_steps(struct train_net *n, int64_t steps)
{
    n->optimiser->steps = steps;
    n->runs = 0;
}

int train_net_tensors(const struct train_net *n)
{
    return n->n_places;
}

bool train_net_tensor(const struct train_net *n, int i, struct train_net_tensor *ret)
{
    const struct place *p = &n->places[i];
    if (p->source_value < 0 || p->grad < 0) return false;
    *ret = (struct train_net_tensor){p->name, p->source_value, p->state, (int64_t)p->at, (int64_t)p->count};
    return true;
}

err train_net_store(const struct train_net *n, struct graph *g, bool mean)
{
    err e = ERR_OK;
    struct train_net_tensor t;
    for (int i = 0; i < n->n_places && !e; i++) {
        if (!train_net_tensor(n, i, &t)) continue;
        const float *from = mean && n->optimiser->ema && !t.state ? n->optimiser->ema : n->values;
        e = graph_set_constant(g, t.source_value, from + t.at, t.count);
    }
    return e;
}

struct train_net_sizes train_net_sizes(const struct train_net *n)
{
    struct train_net_sizes s = {.fixed = n->fixed, .need = n->need, .plan = model_plan_sizes(n->plan), .level = n->level, .again = n->again, .dropouts = n->dropouts};
    for (int i = 0; i < n->n_trained; i++) {
        if (n->places[i].grad < 0) continue;
        s.parameters += (int64_t)n->places[i].count;
        s.tensors++;
    }
    return s;
}

struct model_plan *train_net_plan(const struct train_net *n)
{
    return n->plan;
}

float *train_net_gradients(const struct train_net *n)
{
    return n->grads;
}

const float *train_net_parameter(const struct train_net *n, const char *name, int64_t *ret_count)
{
    for (int i = 0; i < n->n_places; i++) {
        if (strcmp(n->places[i].name, name)) continue;
        *ret_count = (int64_t)n->places[i].count;
        return n->values + n->places[i].at;
    }
    return NULL;
}
