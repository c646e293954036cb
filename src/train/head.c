/* The last layers are found by walking back from output 0 through what only moves or squashes numbers. Weights of a classifier begin as PyTorch's linear layers do,
 * U(-1, 1) / sqrt(inputs), biases at 0; class layers of a detector at N-like small weights and a bias of log(0.01 / 0.99), so that it begins by seeing nothing (focal
 * loss, Lin et al. 2017, section 3.3; YOLOX does so, too). Sizes that a Reshape on the way has written down are changed with them, and the whole is inferred once
 * more: if the new graph does not give the shape that it should, it is refused. SPDX-License-Identifier: Apache-2.0 */
#include "train/head.h"

#include "train/centernet.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 3, MOST_WALK = 4096 };

struct layer {
    int node, weight, bias; /* numbers of nodes and of inputs: op.in[...]; bias -1: none. Of an Add behind a MatMul: bias_node */
    int bias_node;
    int64_t in, out;
    bool out_first; /* the weight is [out, in ...] */
};
struct walk {
    const struct graph *g;
    int *producer; /* node of a value, -1 */
    bool detector, peaks; /* peaks: a detector whose output 0 is a heat map */
    int n, steps, bias_node, bias_input;
    struct layer layers[MOST_LAYERS];
};

static bool passes(enum op_kind kind)
{
    switch (kind) {
    case OP_SOFTMAX: case OP_LOG_SOFTMAX: case OP_SIGMOID: case OP_FLATTEN: case OP_RESHAPE: case OP_SQUEEZE: case OP_UNSQUEEZE: case OP_IDENTITY: case OP_DROPOUT:
    case OP_GLOBAL_AVERAGE_POOL: case OP_AVERAGE_POOL: case OP_REDUCE_MEAN: case OP_RELU: case OP_TRANSPOSE: case OP_CAST: return true;
    default: return false;
    }
}

static bool is_weight(const struct graph *g, int v)
{
    return v >= 0 && g->values[v].constant && g->values[v].dtype == TENSOR_F32;
}

static err no_way(const struct walk *w, const struct graph_node *n)
{
    return err_set(ERR_UNSUPPORTED, "%s: its classes cannot be exchanged: before output '%s' comes node '%s' (%s), where %s was expected; make a network with 'brim new ARCH "
                   "--classes N'", w->g->name, w->g->values[w->g->outputs[0]].name, n ? n->op.name : "none", n ? op_name(n->op.kind) : "an input",
                   w->peaks ? "a convolution and a Sigmoid" : w->detector ? "a convolution per stride and a Sigmoid" : "a Gemm, MatMul or Conv with weights of its own");
}

static err take_layer(struct walk *w, int at)
{
    const struct graph_node *n = &w->g->nodes[at];
    if (!is_weight(w->g, n->op.in[1]) || w->n >= MOST_LAYERS) return no_way(w, n);
    const struct tensor_shape *s = &w->g->values[n->op.in[1]].shape;
    struct layer l = {.node = at, .weight = 1, .bias = n->op.n_in > 2 && n->op.in[2] >= 0 ? 2 : -1, .bias_node = at};
    l.out_first = n->op.kind == OP_CONV || (n->op.kind == OP_GEMM && op_attr_int(&n->op, "transB", 0));
    if (s->rank < 2 || (n->op.kind == OP_CONV && op_attr_int(&n->op, "group", 1) != 1)) return no_way(w, n);
    l.out = s->dims[l.out_first ? 0 : s->rank - 1];
    l.in = tensor_count(s) / MAX(l.out, 1);
    if (w->bias_node >= 0 && l.bias < 0) {
        l.bias_node = w->bias_node;
        l.bias = w->bias_input;
    } else if (w->bias_node >= 0) return no_way(w, n);
    w->layers[w->n++] = l;
    return ERR_OK;
}

static int first_wanted(const struct walk *w, const struct graph_node *n)
{
    for (int i = 0; i < n->op.n_in; i++)
        if (!is_weight(w->g, n->op.in[i])) return i;
    return 0;
}

static err back(struct walk *w, int value);

/* A YOLOX: per stride a Concat of boxes, objectness, classes; then a Concat of the strides. Classes are the last of three. */
static err back_concat(struct walk *w, const struct graph_node *n)
{
    if (!w->detector || w->peaks || n->op.n_in != 3) return no_way(w, n);
    int last = n->op.in[2], made = w->producer[last];
    if (made >= 0 && w->g->nodes[made].op.kind == OP_SIGMOID) return back(w, last);
    err e = ERR_OK;
    for (int i = 0; i < 3 && !e; i++) e = back(w, n->op.in[i]);
    return e;
}

static err back(struct walk *w, int value)
{
    int at = w->producer[value];
    if (at < 0 || ++w->steps > MOST_WALK) return no_way(w, NULL);
    const struct graph_node *n = &w->g->nodes[at];
    if (n->op.kind == OP_GEMM || n->op.kind == OP_MATMUL || n->op.kind == OP_CONV) return take_layer(w, at);
    if (n->op.kind == OP_CONCAT) return back_concat(w, n);
    if (n->op.kind == OP_ADD && n->op.n_in == 2 && w->bias_node < 0 && (is_weight(w->g, n->op.in[0]) || is_weight(w->g, n->op.in[1]))) {
        w->bias_node = at;
        w->bias_input = is_weight(w->g, n->op.in[1]) ? 1 : 0;
        return back(w, n->op.in[1 - w->bias_input]);
    }
    return passes(n->op.kind) ? back(w, n->op.in[first_wanted(w, n)]) : no_way(w, n);
}

static err find(const struct graph *g, bool detector, struct walk *ret)
{
    struct walk w = {.g = g, .detector = detector, .peaks = detector && train_centernet_is(g), .bias_node = -1};
    if (g->n_outputs < 1) return err_set(ERR_USAGE, "%s: it has no output", g->name);
    w.producer = xnewn(int, g->n_values + 1);
    for (size_t v = 0; v < g->n_values; v++) w.producer[v] = -1;
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int o = 0; o < g->nodes[i].op.n_out && !g->nodes[i].dead; o++)
            if (g->nodes[i].op.out[o] >= 0) w.producer[g->nodes[i].op.out[o]] = (int)i;
    err e = back(&w, g->outputs[0]);
    if (!e && detector && w.n != (w.peaks ? 1 : MOST_LAYERS)) e = no_way(&w, NULL);
    for (int i = 1; i < w.n && !e; i++)
        if (w.layers[i].out != w.layers[0].out) e = no_way(&w, &g->nodes[w.layers[i].node]);
    if (e) free(w.producer);
    else *ret = w;
    return e;
}

err train_head_classes(const struct graph *g, bool detector, int *ret)
{
    struct walk w;
    err e = find(g, detector, &w);
    if (e) return e;
    *ret = (int)MIN(w.layers[0].out, INT32_MAX);
    free(w.producer);
    return ERR_OK;
}

/* ---- exchanging */

static void name_of(char *buf, size_t size, const struct graph *g, int value)
{
    snprintf(buf, size, "%s.new", g->values[value].name ? g->values[value].name : "head");
}

static err new_weight(struct graph *g, const struct layer *l, int classes, bool detector, uint64_t seed)
{
    int old = g->nodes[l->node].op.in[l->weight], v;
    struct tensor_shape s = g->values[old].shape;
    char name[256];
    float *f;
    double by = 1 / sqrt((double)l->in) * (detector ? 0.1 : 1);
    s.dims[l->out_first ? 0 : s.rank - 1] = classes;
    name_of(name, sizeof name, g, old);
    err e = graph_add_constant(g, name, TENSOR_F32, &s, &v, (void **)&f);
    if (e) return e;
    uint64_t key = hash64(name, strlen(name), seed);
    for (int64_t i = 0; i < tensor_count(&s); i++) f[i] = (float)(((double)(hash64(&i, sizeof i, key) >> 11) / 4503599627370496.0 - 1) * by);
    g->nodes[l->node].op.in[l->weight] = v;
    return ERR_OK;
}

static err new_bias(struct graph *g, const struct layer *l, int classes, bool detector)
{
    if (l->bias < 0) return ERR_OK;
    int old = g->nodes[l->bias_node].op.in[l->bias], v;
    struct tensor_shape s = g->values[old].shape;
    char name[256];
    float *f;
    if (tensor_count(&s) == 1 && s.rank < 1) return ERR_OK;
    bool changed = false;
    for (int i = s.rank; i-- > 0 && !changed;)
        if (s.dims[i] == l->out) s.dims[i] = classes, changed = true;
    if (!changed) return err_set(ERR_UNSUPPORTED, "%s: bias '%s' is none of %d classes", g->name, g->values[old].name, (int)l->out);
    name_of(name, sizeof name, g, old);
    err e = graph_add_constant(g, name, TENSOR_F32, &s, &v, (void **)&f);
    if (e) return e;
    for (int64_t i = 0; i < tensor_count(&s); i++) f[i] = detector ? (float)log(0.01 / 0.99) : 0;
    g->nodes[l->bias_node].op.in[l->bias] = v;
    return ERR_OK;
}

/* Is the node on the way from the layers to the output? Marks what comes behind the layers, in execution order. */
static char *behind(const struct graph *g, const struct walk *w)
{
    char *mark = xnewn(char, g->n_values + 1);
    for (int i = 0; i < w->n; i++) mark[g->nodes[w->layers[i].node].op.out[0]] = 1;
    for (size_t k = 0; k < g->n_nodes; k++) {
        const struct op_node *n = &g->nodes[k].op;
        bool yes = false;
        for (int i = 0; i < n->n_in; i++) yes = yes || (n->in[i] >= 0 && mark[n->in[i]]);
        for (int i = 0; i < n->n_out && yes; i++)
            if (n->out[i] >= 0) mark[n->out[i]] = 1;
    }
    return mark;
}

/* A list of whole numbers that says `from` somewhere, with `to` there; as a new constant, for this reader alone. */
static err change_numbers(struct graph *g, int node, int input, int64_t from, int64_t to)
{
    int old = g->nodes[node].op.in[input], v;
    if (old < 0 || !g->values[old].constant || g->values[old].dtype != TENSOR_I64) return ERR_OK;
    struct tensor_shape s = g->values[old].shape;
    int64_t n = tensor_count(&s), *p, found = 0;
    for (int64_t i = 0; i < n; i++) found += ((const int64_t *)g->values[old].constant)[i] == from;
    if (!found) return ERR_OK;
    char name[256];
    name_of(name, sizeof name, g, old);
    err e = graph_add_constant(g, name, TENSOR_I64, &s, &v, (void **)&p);
    if (e) return e;
    memcpy(p, g->values[old].constant, (size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++)
        if (p[i] == from) p[i] = to;
    g->nodes[node].op.in[input] = v;
    return ERR_OK;
}

/* The same, where the number is given another shape on its way, as exporters that fold nothing write it. */
static err change_behind(struct graph *g, const struct walk *w, int node, int input, int64_t from, int64_t to)
{
    for (int steps = 0; steps < MOST_WALK; steps++) {
        int v = g->nodes[node].op.in[input], made = v >= 0 && !g->values[v].constant ? w->producer[v] : -1;
        if (made < 0) break;
        enum op_kind k = g->nodes[made].op.kind;
        if (k != OP_UNSQUEEZE && k != OP_SQUEEZE && k != OP_RESHAPE && k != OP_IDENTITY && k != OP_CAST) break;
        node = made;
        input = 0;
    }
    return change_numbers(g, node, input, from, to);
}

/* Sizes of Reshapes, also where they are put together out of single numbers. */
static err change_sizes(struct graph *g, const struct walk *w, const char *mark, int64_t from, int64_t to)
{
    err e = ERR_OK;
    for (size_t k = 0; k < g->n_nodes && !e; k++) {
        const struct op_node *n = &g->nodes[k].op;
        if (n->kind != OP_RESHAPE || n->n_in < 2 || n->in[0] < 0 || !mark[n->in[0]]) continue;
        e = change_numbers(g, (int)k, 1, from, to);
        int made = n->in[1] >= 0 && n->in[1] < (int)g->n_values && !g->values[n->in[1]].constant ? w->producer[n->in[1]] : -1;
        if (made < 0 || g->nodes[made].op.kind != OP_CONCAT) continue;
        for (int i = 0; i < g->nodes[made].op.n_in && !e; i++) e = change_behind(g, w, made, i, from, to);
    }
    return e;
}

/* Where the output's shape says how many classes there are, and how many numbers it says besides. */
static int width_axis(const struct walk *w, int rank)
{
    return w->peaks ? 1 : rank - 1;
}

static int64_t beside(const struct walk *w)
{
    return w->detector && !w->peaks ? 5 : 0;
}

/* The batch aside, the output must be what it was, with another width. */
static err try_it(const struct graph *g, const struct walk *w, int64_t width)
{
    struct graph *t;
    struct tensor_shape in = g->values[g->inputs[0]].shape;
    if (in.rank > 0 && in.dims[0] < 1) in.dims[0] = 1;
    err e = graph_specialise(g, g->n_inputs == 1 ? &in : NULL, g->payer, &t);
    if (e) return err_wrap(e, "with other classes the network does not fit together");
    const struct tensor_shape *s = &t->values[t->outputs[0]].shape;
    int64_t got = s->rank < 2 ? -1 : w->detector ? s->dims[width_axis(w, s->rank)] : tensor_count(s) / MAX(s->dims[0], 1);
    char text[96];
    if (got != width) e = err_set(ERR_UNSUPPORTED, "%s: with other classes its output would be %s: they cannot be exchanged", g->name, tensor_shape_text(s, NULL, text, sizeof text));
    graph_free(&t);
    return e;
}

err train_head_replace(struct graph *g, bool detector, int classes, uint64_t seed, char *said, size_t size)
{
    struct walk w;
    err e = find(g, detector, &w);
    if (e) return e;
    char *mark = behind(g, &w);
    int64_t old = w.layers[0].out;
    size_t n_values = g->n_values;
    for (int i = 0; i < w.n && !e; i++) {
        e = new_weight(g, &w.layers[i], classes, detector, seed);
        if (!e) e = new_bias(g, &w.layers[i], classes, detector);
    }
    int64_t from = old + beside(&w), to = classes + beside(&w);
    if (!e) e = change_sizes(g, &w, mark, from, to);
    for (size_t v = 0; v < n_values && !e; v++) {
        if (!mark[v]) continue;
        struct graph_value *value = &g->values[v];
        for (int i = 0; i < value->shape.rank && value->is_output; i++)
            if (value->shape.dims[i] == from && (!w.peaks || i == 1)) value->shape.dims[i] = to;
        if (!value->is_output) value->has_shape = false;
    }
    if (!e) e = try_it(g, &w, to);
    if (!e)
        snprintf(said, size, "%s: %d classes instead of %d: %s '%s'%s begin%s untrained", g->name, classes, (int)old, w.n > 1 ? "layers like" : "layer",
                 g->nodes[w.layers[0].node].op.name ? g->nodes[w.layers[0].node].op.name : "", w.n > 1 ? " (one per stride)" : "", w.n > 1 ? "" : "s");
    free(mark);
    free(w.producer);
    return e;
}
