/* The training form of a graph: see training.h.
 *
 * Which initialisers are weights is found by walking the nodes backwards, so that a weight behind a Transpose or an Identity is found too. Then the
 * graph is specialised with those as inputs, and BatchNormalization nodes are exchanged.
 *
 * Invariant: params[i] is input n_inputs + i of the training graph until states are sorted behind the others, which moves no input.
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/training.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/specialise.h"

/* ---- what is a parameter */

enum slot { SLOT_NONE, SLOT_STATE, SLOT_NAMED, SLOT_VECTOR, SLOT_WEIGHT };

/* What input i of a node is. */
static enum slot slot_of(const struct op_node *n, int i)
{
    switch (n->kind) {
    case OP_CONV:
    case OP_CONV_TRANSPOSE: return i == 1 ? SLOT_WEIGHT : i == 2 ? SLOT_VECTOR : SLOT_NONE;
    case OP_GEMM: return i < 2 ? SLOT_WEIGHT : SLOT_VECTOR;
    case OP_MATMUL:
    case OP_EINSUM: return SLOT_WEIGHT;
    case OP_GATHER: return i == 0 ? SLOT_WEIGHT : SLOT_NONE;
    case OP_BATCH_NORM: return i == 0 ? SLOT_NONE : i < 3 ? SLOT_VECTOR : SLOT_STATE;
    case OP_INSTANCE_NORM:
    case OP_LAYER_NORM: return i ? SLOT_VECTOR : SLOT_NONE;
    case OP_PRELU: return i == 1 ? SLOT_VECTOR : SLOT_NONE;
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV: return SLOT_NAMED;
    default: return SLOT_NONE;
    }
}

/* Hands the numbers of input 0 on, as far as a weight is concerned. */
static bool passes(enum op_kind kind)
{
    return kind == OP_IDENTITY || kind == OP_TRANSPOSE || kind == OP_RESHAPE || kind == OP_SQUEEZE || kind == OP_UNSQUEEZE || kind == OP_EXPAND ||
           kind == OP_FLATTEN;
}

static enum slot *find_slots(const struct graph *g)
{
    enum slot *slots = xnewn(enum slot, g->n_values + 1);
    for (size_t k = g->n_nodes; k-- > 0;) {
        const struct op_node *n = &g->nodes[k].op;
        for (int i = 0; i < n->n_in; i++) {
            if (n->in[i] < 0) continue;
            enum slot s = passes(n->kind) && i == 0 && n->n_out > 0 && n->out[0] >= 0 ? slots[n->out[0]] : slot_of(n, i);
            slots[n->in[i]] = MAX(slots[n->in[i]], s);
        }
    }
    return slots;
}

static bool ends(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

static bool named_like_one(const char *name)
{
    static const char *const ENDS[] = {"weight", "bias", "gamma", "beta", "scale", "embed", "embedding", "embeddings", "token"};
    for (size_t i = 0; i < ARRAY_LEN(ENDS); i++)
        if (ends(name, ENDS[i])) return true;
    return false;
}

/* Exporters merge equal constants: a running mean of zeros may be a bias, too. */
static err check_states(const struct graph *g, const char *as_input, const enum slot *slots)
{
    for (size_t k = 0; k < g->n_nodes; k++) {
        const struct op_node *n = &g->nodes[k].op;
        for (int i = 3; i < 5 && i < n->n_in && n->kind == OP_BATCH_NORM; i++)
            if (n->in[i] >= 0 && as_input[n->in[i]] && slots[n->in[i]] != SLOT_STATE)
                return err_set(ERR_UNSUPPORTED, "%s: '%s' is a running statistic of node '%s' and a weight elsewhere: the exporter merged equal constants; "
                               "export the network from its training form, or with other numbers", g->name, g->values[n->in[i]].name, n->name);
    }
    return ERR_OK;
}

static bool is_parameter(const struct graph *g, int v, enum slot slot, const struct graph_training_options *o)
{
    const struct graph_value *c = &g->values[v];
    if (!c->constant || c->dtype != TENSOR_F32 || slot == SLOT_STATE || ends(c->name, ".fixed")) return false; /* the zoo's masks and angles */
    bool usual = slot == SLOT_WEIGHT || slot == SLOT_VECTOR || (slot == SLOT_NAMED && named_like_one(c->name));
    return o->choose ? o->choose(o->context, c->name, usual) : usual;
}

/* ---- batch normalisation */

/* Is the value a graph input that we made? */
static bool is_state(const struct graph_training *t, int v)
{
    for (int i = t->n_trained; i < t->n_params; i++)
        if (t->params[i].value == v) return true;
    return false;
}

/* The last update of a state, or the state: two nodes with the same statistics update them one after the other. */
static int newest(const struct graph_training *t, int v)
{
    for (int i = t->n_trained; i < t->n_params; i++)
        if (t->params[i].value == v && t->params[i].update >= 0) return t->params[i].update;
    return v;
}

static void train_norm(struct graph_training *t, size_t node)
{
    struct graph *g = t->g;
    struct graph_node *n = &g->nodes[node];
    int out[5] = {n->op.out[0]};
    for (int i = 1; i < 5; i++) {
        char name[200];
        snprintf(name, sizeof name, "%.150s.%s", g->values[n->op.in[i < 3 ? i + 2 : i]].name, i < 3 ? "batch" : "next");
        struct tensor_shape s = g->values[n->op.in[3]].shape;
        out[i] = graph_add_value(g, name, TENSOR_F32, &s);
    }
    n->op.kind = OP_BATCH_NORM_TRAIN;
    n->op.n_out = 5;
    n->op.out = xrealloc(n->op.out, 6 * sizeof *n->op.out);
    memcpy(n->op.out, out, sizeof out);
    for (int k = 3; k < 5; k++) {
        int state = n->op.in[k];
        n->op.in[k] = newest(t, state);
        for (int i = t->n_trained; i < t->n_params; i++)
            if (t->params[i].value == state) t->params[i].update = out[k];
    }
}

static void train_norms(struct graph_training *t)
{
    for (size_t i = 0; i < t->g->n_nodes; i++) {
        const struct graph_node *n = &t->g->nodes[i];
        if (n->op.kind == OP_BATCH_NORM && n->op.n_in == 5 && is_state(t, n->op.in[3]) && is_state(t, n->op.in[4]) &&
            t->g->values[n->op.in[0]].shape.rank >= 2)
            train_norm(t, i);
    }
    for (int i = t->n_trained; i < t->n_params; i++)
        if (t->params[i].update >= 0) graph_add_output(t->g, t->params[i].update);
}

/* ---- the form */

static void list_parameters(const struct graph *source, const enum slot *slots, const char *as_input, struct graph_training *t)
{
    int at = t->n_inputs;
    t->params = xnewn(struct graph_parameter, (size_t)t->n_params + 1);
    t->n_params = 0;
    for (int states = 0; states < 2; states++) {
        at = t->n_inputs;
        for (size_t v = 0; v < source->n_values; v++) {
            if (!as_input[v]) continue;
            int value = t->g->inputs[at++];
            const struct graph_value *c = &source->values[v];
            if ((slots[v] == SLOT_STATE) != states) continue;
            enum graph_parameter_role role = states                                             ? GRAPH_PARAMETER_STATE
                                             : slots[v] == SLOT_WEIGHT && c->shape.rank >= 2 ? GRAPH_PARAMETER_WEIGHT
                                                                                                : GRAPH_PARAMETER_VECTOR;
            t->params[t->n_params++] = (struct graph_parameter){.name = t->g->values[value].name, .role = role, .value = value, .source_value = (int)v,
                                                                .update = -1, .count = tensor_count(&c->shape), .initial = c->constant};
        }
        if (!states) t->n_trained = t->n_params;
    }
}

err graph_training_form(const struct graph *source, const struct graph_training_options *o, struct mem_payer *payer,
                        struct graph_training **ret)
{
    static const struct graph_training_options usual;
    if (!o) o = &usual;
    struct graph_training *t = xnew(struct graph_training);
    enum slot *slots = find_slots(source);
    char *as_input = xnewn(char, source->n_values + 1);
    int trained = 0;
    for (size_t v = 0; v < source->n_values; v++) {
        const struct graph_value *c = &source->values[v];
        bool state = slots[v] == SLOT_STATE && c->constant && c->dtype == TENSOR_F32 && !o->frozen_statistics;
        as_input[v] = is_parameter(source, (int)v, slots[v], o) || state;
        t->n_params += as_input[v];
        trained += as_input[v] && !state;
    }
    err e = trained ? ERR_OK : err_set(ERR_USAGE, "%s: no initialiser is to be trained: it has no float32 weights, or all are frozen", source->name);
    if (!e) e = check_states(source, as_input, slots);
    struct graph_dropout dropout = {.ratio = o->dropout};
    if (!e) e = graph_specialise_with(source, o->input_shapes, as_input, o->dropout < 0 ? NULL : &dropout, payer, &t->g);
    if (!e) {
        t->n_dropouts = dropout.count;
        t->draw = dropout.count ? dropout.draw : -1;
        t->n_inputs = source->n_inputs;
        t->n_outputs = t->g->n_outputs;
        list_parameters(source, slots, as_input, t);
        if (!o->keep_patterns) e = graph_rewrite(t->g, GRAPH_REWRITE_PATTERNS);
        if (!e) train_norms(t);
    }
    free(slots);
    free(as_input);
    if (e)
        graph_training_free(&t);
    else
        *ret = t;
    return e;
}

void graph_training_free(struct graph_training **t)
{
    if (!*t) return;
    graph_free(&(*t)->g);
    free((*t)->params);
    free(*t);
    *t = NULL;
}

/* ---- the way back */

static err norm_at_inference(const struct graph *g, struct graph_node *n, const int *uses)
{
    for (int o = 1; o < n->op.n_out; o++)
        if (n->op.out[o] >= 0 && uses[n->op.out[o]])
            return err_set(ERR_UNSUPPORTED, "%s: node '%s': '%s', a statistic of the batch, is read; at inference there is none", g->name, n->op.name,
                           g->values[n->op.out[o]].name);
    n->op.n_out = MIN(n->op.n_out, 1);
    for (int i = 0; i < n->op.n_attrs; i++)
        if (!strcmp(n->op.attrs[i].name, "training_mode")) n->op.attrs[i].i = 0;
    return ERR_OK;
}

err graph_inference_form(struct graph *g)
{
    int *uses = graph_use_counts(g);
    err e = ERR_OK;
    for (size_t i = 0; i < g->n_nodes && !e; i++) {
        struct graph_node *n = &g->nodes[i];
        if (n->op.kind == OP_BATCH_NORM) e = norm_at_inference(g, n, uses);
        if (n->op.kind == OP_DROPOUT && n->op.n_in > 2) n->op.n_in = n->n_own_in = 2;
    }
    free(uses);
    return e;
}

err graph_set_constant(struct graph *g, int value, const float *numbers, int64_t count)
{
    if (value < 0 || (size_t)value >= g->n_values || !g->values[value].constant || g->values[value].dtype != TENSOR_F32)
        return err_set(ERR_USAGE, "%s: value %d is no float32 constant", g->name, value);
    struct graph_value *v = &g->values[value];
    if (count != tensor_count(&v->shape))
        return err_set(ERR_SHAPE, "%s: '%s' has %lld numbers, not %lld", g->name, v->name, (long long)tensor_count(&v->shape), (long long)count);
    size_t bytes = (size_t)count * sizeof *numbers;
    if (!v->owned) {
        err e = mem_alloc(g->payer, MEM_OTHER, bytes, &v->owned);
        if (e) return e;
        v->constant = v->owned;
        v->constant_bytes = bytes;
    }
    if (bytes) memcpy(v->owned, numbers, bytes);
    return ERR_OK;
}
