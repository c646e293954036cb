/* See merge_teacher.h. The hints are chosen on the training form, by name, and looked up in the teacher: specialising keeps names, and values that a
 * rewrite took away are left out.
 *
 * Invariant: hint i is the teacher's output hint_output[i] and the net's target hint_target[i]. SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_teacher.h"
#include "train/losses.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- choosing hints */

static bool is_layer(const struct op_node *n)
{
    return n->kind == OP_CONV || n->kind == OP_CONV_TRANSPOSE || n->kind == OP_GEMM || n->kind == OP_MATMUL;
}

static int find_value(const struct graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_values; i++)
        if (g->values[i].name && !strcmp(g->values[i].name, name)) return (int)i;
    return -1;
}

static bool made_by_node(const struct graph *g, int value)
{
    return value >= 0 && !g->values[value].is_input && !g->values[value].constant && g->values[value].dtype == TENSOR_F32;
}

struct candidates {
    int *items, n;
};

static void offer(struct candidates *c, const struct graph *g, const struct graph *teacher, int value)
{
    if (!made_by_node(g, value) || find_value(teacher, g->values[value].name) < 0) return;
    for (int i = 0; i < c->n; i++)
        if (c->items[i] == value) return;
    c->items[c->n++] = value;
}

/* Values from which no further layer can be reached: `reach` says of a value whether a layer reads it, or what comes of it. */
static char *reaches_layer(const struct graph *g)
{
    char *reach = xcalloc(g->n_values + 1, 1);
    for (size_t k = g->n_nodes; k-- > 0;) {
        const struct op_node *n = &g->nodes[k].op;
        bool any = is_layer(n);
        for (int i = 0; i < n->n_out && !any; i++) any = n->out[i] >= 0 && reach[n->out[i]];
        for (int i = 0; i < n->n_in && any; i++)
            if (n->in[i] >= 0) reach[n->in[i]] = 1;
    }
    return reach;
}

/* What the last layers give; then what flows into layers, in order. */
static int choose(const struct graph *g, const struct graph *teacher, int *ret, int *ret_last)
{
    struct candidates in = {xnewn(int, g->n_nodes + 1), 0}, last = {xnewn(int, g->n_nodes + 1), 0};
    char *reach = reaches_layer(g);
    for (size_t k = 0; k < g->n_nodes; k++) {
        const struct op_node *n = &g->nodes[k].op;
        if (g->nodes[k].dead || !is_layer(n)) continue;
        offer(&in, g, teacher, n->in[0]);
        if (!reach[n->out[0]]) offer(&last, g, teacher, n->out[0]);
    }
    int n = 0, room = MERGE_INNER_HINTS;
    for (int i = 0; i < last.n && n < MERGE_MAX_HINTS - MERGE_INNER_HINTS; i++) ret[n++] = last.items[i];
    *ret_last = n;
    for (int i = 0; i < MIN(in.n, room); i++) ret[n++] = in.items[(i + 1) * in.n / MIN(in.n, room) - 1]; /* evenly, the last one always */
    free(in.items);
    free(last.items);
    free(reach);
    return n;
}

/* ---- the loss */

static int hint_loss(struct graph_builder *b, int value, int target)
{
    int d = graph_b2(b, OP_SUB, value, target);
    int wrong = graph_b_reduce(b, OP_REDUCE_MEAN, graph_b2(b, OP_MUL, d, d), NULL, -1, false);
    int energy = graph_b_reduce(b, OP_REDUCE_MEAN, graph_b2(b, OP_MUL, target, target), NULL, -1, false);
    return graph_b2(b, OP_DIV, wrong, graph_b2(b, OP_ADD, energy, graph_b_number(b, TENSOR_F32, 1e-6)));
}

/* The i-th number of a list, as a list of one. */
static int item(struct graph_builder *b, int list, int64_t i)
{
    int64_t end = i + 1;
    int in[] = {list, graph_b_ints(b, &i, 1), graph_b_ints(b, &end, 1)};
    return b->e ? -1 : graph_b_close(b, graph_b_open(b, OP_SLICE, in, 3, 1));
}

static int add_hints(struct graph_builder *b, struct merge_teacher *t)
{
    int values[MERGE_MAX_HINTS], sum = -1;
    t->n_hints = choose(b->g, t->source, values, &t->n_last);
    if (!t->n_hints) return -1;
    struct tensor_shape list = {.rank = 1, .dims = {t->n_hints}};
    int weights = graph_add_input(b->g, "merge_hint_weights", TENSOR_F32, &list);
    t->weight_target = b->g->n_inputs - 1;
    for (int i = 0; i < t->n_hints; i++) {
        struct tensor_shape s = *graph_b_shape(b, values[i]);
        free(t->names[i]); /* a loss is built once for each level of recomputation that is tried */
        t->names[i] = xstrdup(b->g->values[values[i]].name);
        char *name = xasprintf("merge_hint_%d", i);
        int target = graph_add_input(b->g, name, TENSOR_F32, &s), one = hint_loss(b, values[i], target);
        free(name);
        t->hint_target[i] = b->g->n_inputs - 1; /* made relative by the caller */
        one = graph_b2(b, OP_MUL, item(b, weights, i), one);
        sum = sum < 0 ? one : graph_b2(b, OP_ADD, sum, one);
    }
    return graph_b_scale(b, graph_b_reduce(b, OP_REDUCE_SUM, sum, NULL, -1, false), t->hints);
}

static int plus(struct graph_builder *b, int sum, int x)
{
    return sum < 0 ? x : x < 0 ? sum : graph_b2(b, OP_ADD, sum, x);
}

static err add_classes(struct graph_builder *b, const struct graph_training *form, struct merge_teacher *t, int *sum)
{
    int logits;
    err e = train_logits(b, form, &logits);
    if (e) return e;
    struct tensor_shape s = *graph_b_shape(b, logits);
    if (t->labels > 0) {
        t->label_target = b->g->n_inputs;
        int target = graph_add_input(b->g, "merge_label", TENSOR_F32, &s);
        *sum = plus(b, *sum, graph_b_scale(b, graph_b_cross_entropy(b, logits, target, 0), t->labels));
    }
    if (t->soft > 0) {
        t->soft_target = b->g->n_inputs;
        int target = graph_add_input(b->g, "merge_soft", TENSOR_F32, &s);
        *sum = plus(b, *sum, graph_b_scale(b, train_b_distill(b, logits, target, t->temperature), t->soft));
    }
    return b->e;
}

err merge_teacher_loss(struct graph_builder *b, const struct graph_training *form, void *context, int *ret_loss)
{
    struct merge_teacher *t = context;
    int sum = -1, first = b->g->n_inputs;
    err e = ERR_OK;
    t->label_target = t->soft_target = t->weight_target = -1;
    if (t->hints > 0) sum = add_hints(b, t);
    for (int i = 0; i < t->n_hints; i++) t->hint_target[i] -= first;
    if (t->weight_target >= 0) t->weight_target -= first;
    if (t->classes) e = add_classes(b, form, t, &sum);
    if (t->label_target >= 0) t->label_target -= first;
    if (t->soft_target >= 0) t->soft_target -= first;
    if (!e && sum < 0) e = err_set(ERR_UNSUPPORTED, "%s: no layer of it can be compared with the original's", t->source->name);
    *ret_loss = sum;
    return e ? e : b->e;
}

/* ---- which hints count */

void merge_teacher_trust(const struct merge_teacher *t, const struct train_net *net, const bool *foreign)
{
    if (t->weight_target < 0) return;
    const struct graph *g = t->source;
    bool *strange = xcalloc(g->n_values + 1, sizeof *strange);
    for (size_t k = 0; k < g->n_nodes && foreign; k++) {
        const struct op_node *n = &g->nodes[k].op;
        bool any = false;
        for (int i = 0; i < n->n_in; i++) any |= n->in[i] >= 0 && (foreign[n->in[i]] || strange[n->in[i]]);
        for (int i = 0; i < n->n_out; i++)
            if (n->out[i] >= 0) strange[n->out[i]] = any;
    }
    float *weight = train_net_target(net, t->weight_target).data;
    int trusted = 0;
    for (int i = 0; i < t->n_hints; i++) trusted += i < t->n_last || !strange[find_value(g, t->names[i])];
    for (int i = 0; i < t->n_hints; i++) weight[i] = i < t->n_last || !strange[find_value(g, t->names[i])] ? 1 / (float)trusted : 0;
    free(strange);
}

/* ---- running */

static int output_of(struct graph *g, int value)
{
    for (int i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == value) return i;
    graph_add_output(g, value);
    return g->n_outputs - 1;
}

static err make_model(struct merge_teacher *t, struct mem_budget *budget, int batch, int threads)
{
    struct tensor_shape shape = t->source->values[t->source->inputs[0]].shape;
    struct model_options options = {.budget = budget, .threads = threads};
    struct graph *g;
    shape.dims[0] = batch;
    err e = graph_specialise(t->source, &shape, t->payer, &g);
    if (e) return e;
    for (int i = 0; i < t->n_hints; i++) t->hint_output[i] = output_of(g, find_value(g, t->names[i]));
    if ((e = model_from_graph(g, "teacher", &options, &t->model))) return e;
    if ((e = model_plan_new(t->model, NULL, &t->plan)) || (e = model_plan_reserve(t->plan)) || (e = model_request(t->model))) return e;
    t->pinned = true;
    return model_wait(t->model);
}

err merge_teacher_open(struct merge_teacher *t, struct mem_budget *budget, int batch, int threads)
{
    t->payer = mem_payer_new(budget, "teacher");
    err e = make_model(t, budget, batch, threads);
    return e ? err_wrap(e, "the original as teacher") : ERR_OK;
}

void merge_teacher_close(struct merge_teacher *t)
{
    if (t->pinned) model_release(t->model);
    model_plan_free(&t->plan);
    model_free(&t->model);
    mem_payer_free(&t->payer);
    for (int i = 0; i < MERGE_MAX_HINTS; i++) {
        free(t->names[i]);
        t->names[i] = NULL;
    }
    t->pinned = false;
    t->n_hints = 0;
}

/* Probabilities at the temperature, from logits or from probabilities (whose logarithms are logits). */
static void soften(float *row, int n, double temperature)
{
    double most = -INFINITY, sum = 0, least = INFINITY;
    bool probabilities = true;
    for (int i = 0; i < n; i++) {
        sum += (double)row[i];
        least = fmin(least, (double)row[i]);
    }
    probabilities = least >= 0 && fabs(sum - 1) < 1e-3;
    for (int i = 0; i < n; i++) {
        row[i] = (float)((probabilities ? log(fmax((double)row[i], 1e-12)) : (double)row[i]) / temperature);
        most = fmax(most, (double)row[i]);
    }
    sum = 0;
    for (int i = 0; i < n; i++) sum += exp((double)row[i] - most);
    for (int i = 0; i < n; i++) row[i] = (float)(exp((double)row[i] - most) / sum);
}

static err fill_soft(const struct merge_teacher *t, const struct train_net *net)
{
    struct tensor out = model_plan_output(t->plan, 0), to = train_net_target(net, t->soft_target);
    struct tensor flat = tensor_view(TENSOR_F32, &out.shape, to.data); /* a trailing 1 x 1 holds the same numbers */
    err e = model_copy(&out, &flat);
    int n = (int)to.shape.dims[1];
    for (int64_t i = 0; i < to.shape.dims[0] && !e; i++) soften((float *)to.data + i * n, n, t->temperature);
    return e;
}

static void fill_labels(const struct train_batch *b, const struct tensor *to)
{
    int n = (int)to->shape.dims[1];
    float *row = to->data;
    memset(row, 0, (size_t)tensor_count(&to->shape) * sizeof *row);
    for (int i = 0; i < b->count; i++, row += n) {
        if (b->labels[i] >= 0 && b->labels[i] < n) row[b->labels[i]] += b->mix[i];
        if (b->mix[i] < 1 && b->labels2[i] >= 0 && b->labels2[i] < n) row[b->labels2[i]] += 1 - b->mix[i];
    }
}

err merge_teacher_labels(const struct merge_teacher *t, const struct train_batch *b, const struct train_net *net)
{
    if (t->label_target < 0) return ERR_OK;
    struct tensor to = train_net_target(net, t->label_target);
    fill_labels(b, &to);
    return ERR_OK;
}

err merge_teacher_run(struct merge_teacher *t, const struct train_picture *picture, const struct train_batch *b, const struct train_net *net)
{
    struct tensor in = model_plan_input(t->plan, 0);
    err e = train_fill_input(picture, b->images, b->count, &in);
    if (!e && (t->n_hints || t->soft_target >= 0)) e = model_plan_run(t->plan, NULL);
    for (int i = 0; i < t->n_hints && !e; i++) {
        struct tensor out = model_plan_output(t->plan, t->hint_output[i]), to = train_net_target(net, t->hint_target[i]);
        e = model_copy(&out, &to);
    }
    if (!e && t->soft_target >= 0) e = fill_soft(t, net);
    return e ? e : merge_teacher_labels(t, b, net);
}
