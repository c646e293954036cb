/* See merge_unfold.h. Two graphs of one file: one is run, with the convolutions' results as outputs, the other is changed and written.
 * Invariant: values have the same numbers in both until the first is specialised. SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_unfold.h"
#include "methods/merge_source.h"
#include "graph/training.h"
#include "train/runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCHES = 6, MOST_OUTPUTS = 512 };
static const double EPSILON = 1e-5;

struct place {
    int node, channels;
    const char *name;     /* of the result */
    double *sum, *square, count;
};
struct unfold {
    struct graph *g;      /* what is changed */
    struct place *places;
    int n;
};

/* ---- finding */

static char *feeds_layer(const struct graph *g)
{
    char *reach = xcalloc(g->n_values + 1, 1);
    for (size_t k = g->n_nodes; k-- > 0;) {
        const struct op_node *n = &g->nodes[k].op;
        bool any = n->kind == OP_CONV || n->kind == OP_CONV_TRANSPOSE || n->kind == OP_GEMM || n->kind == OP_MATMUL;
        for (int i = 0; i < n->n_out && !any; i++) any = n->out[i] >= 0 && reach[n->out[i]];
        for (int i = 0; i < n->n_in && any; i++)
            if (n->in[i] >= 0) reach[n->in[i]] = 1;
    }
    return reach;
}

static bool normalised(const struct graph *g, int value)
{
    for (size_t k = 0; k < g->n_nodes; k++)
        if (g->nodes[k].op.kind == OP_BATCH_NORM && g->nodes[k].op.in[0] == value) return true;
    return false;
}

static bool has_constant(const struct graph *g, const struct op_node *n, int i)
{
    return i < n->n_in && n->in[i] >= 0 && g->values[n->in[i]].constant && g->values[n->in[i]].dtype == TENSOR_F32;
}

static void find_places(struct unfold *u)
{
    const struct graph *g = u->g;
    char *reach = feeds_layer(g);
    u->places = xnewn(struct place, g->n_nodes + 1);
    for (size_t k = 0; k < g->n_nodes && u->n < MOST_OUTPUTS; k++) {
        const struct op_node *n = &g->nodes[k].op;
        if (n->kind != OP_CONV || !has_constant(g, n, 1) || (n->n_in > 2 && n->in[2] >= 0 && !has_constant(g, n, 2))) continue;
        int y = n->out[0];
        if (!reach[y] || g->values[y].is_output || normalised(g, y)) continue;
        int channels = (int)g->values[n->in[1]].shape.dims[0];
        u->places[u->n++] = (struct place){.node = (int)k, .channels = channels, .name = g->values[y].name, .sum = xnewn(double, channels), .square = xnewn(double, channels)};
    }
    free(reach);
}

static void unfold_done(struct unfold *u)
{
    for (int i = 0; i < u->n; i++) {
        free(u->places[i].sum);
        free(u->places[i].square);
    }
    free(u->places);
    graph_free(&u->g);
}

/* ---- statistics */

struct watch {
    struct train_runner r;
    int *output;     /* [place] */
    float *row;
    size_t bytes;
};

static int output_of(struct graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_values; i++) {
        if (!g->values[i].name || strcmp(g->values[i].name, name)) continue;
        graph_add_output(g, (int)i);
        return g->n_outputs - 1;
    }
    return -1;
}

static err open_watch(struct watch *w, const struct unfold *u, const char *path, int size, const struct train_evaluate_options *o, struct mem_payer *payer)
{
    struct graph *g;
    size_t most = 0;
    err e = merge_source_load(path, size, payer, &g);
    if (e) return e;
    w->output = xnewn(int, u->n);
    for (int i = 0; i < u->n; i++) w->output[i] = output_of(g, u->places[i].name);
    e = train_runner_open(g, o, o->batch, payer, &w->r);
    graph_free(&g);
    if (!e) model_plan_set_stop(w->r.plan, o->stop);
    for (int i = 0; i < u->n && !e; i++) {
        struct tensor t = model_plan_output(w->r.plan, w->output[i]);
        most = MAX(most, (size_t)tensor_count(&t.shape));
    }
    w->bytes = MAX(most, 1) * sizeof(float);
    return e ? e : mem_alloc(payer, MEM_OTHER, w->bytes, (void **)&w->row);
}

static err take(struct watch *w, const struct unfold *u, int rows)
{
    err e = ERR_OK;
    for (int i = 0; i < u->n && !e; i++) {
        struct place *p = &u->places[i];
        struct tensor t = model_plan_output(w->r.plan, w->output[i]), to = tensor_view(TENSOR_F32, &t.shape, w->row);
        int64_t each = 1;
        for (int d = 2; d < t.shape.rank; d++) each *= t.shape.dims[d];
        if ((e = model_copy(&t, &to))) break;
        for (int64_t k = 0; k < (int64_t)rows * p->channels; k++)
            for (int64_t at = 0; at < each; at++) {
                double v = (double)w->row[k * each + at];
                p->sum[k % p->channels] += v;
                p->square[k % p->channels] += v * v;
            }
        p->count += (double)rows * (double)each;
    }
    return e;
}

static err gather(const struct unfold *u, const char *path, int size, const struct train_set *set, const struct train_evaluate_options *o, struct mem_payer *payer)
{
    struct train_picture picture;
    struct train_data *data = NULL;
    const struct train_batch *b;
    struct watch w = {0};
    err e = train_picture_input(u->g, &picture);
    if (!e && size) picture.width = picture.height = size;
    if (!e) e = open_watch(&w, u, path, size, o, payer);
    struct train_data_options d = train_evaluate_data(o, &picture, o->batch);
    if (!e) e = train_data_open(set, &d, payer, &data);
    for (int i = 0; i < BATCHES && !e; i++) {
        if ((e = train_data_next(data, &b))) break;
        struct tensor in = model_plan_input(w.r.plan, 0);
        e = train_fill_input(&picture, b->images, b->count, &in);
        if (!e) e = model_plan_run(w.r.plan, NULL);
        if (!e) e = take(&w, u, b->count);
    }
    train_data_close(&data);
    mem_free(payer, MEM_OTHER, w.row, w.bytes);
    train_runner_close(&w.r);
    free(w.output);
    return e == ERR_CLOSED ? ERR_OK : e;
}

/* ---- rewriting */

static err add_vector(struct graph *g, const char *of, const char *what, int n, float **ret_numbers, int *ret)
{
    char *name = xasprintf("%s.%s", of, what);
    struct tensor_shape s = {.rank = 1, .dims = {n}};
    err e = graph_add_constant(g, name, TENSOR_F32, &s, ret, (void **)ret_numbers);
    free(name);
    return e;
}

static err insert(struct graph *g, const struct place *p)
{
    enum { SCALE, BIAS, MEAN, VAR };
    static const char *const names[] = {"bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"};
    float *v[4];
    int c[4];
    int y = g->nodes[p->node].op.out[0];
    char *name = xasprintf("%s.unfolded", p->name);
    for (int i = 0; i < 4; i++) {
        err e = add_vector(g, p->name, names[i], p->channels, &v[i], &c[i]);
        if (e) return free(name), e;
    }
    struct op_node *conv = &g->nodes[p->node].op;
    const float *bias = conv->n_in > 2 && conv->in[2] >= 0 ? g->values[conv->in[2]].constant : NULL;
    for (int k = 0; k < p->channels; k++) {
        double mean = p->sum[k] / fmax(p->count, 1), var = fmax(p->square[k] / fmax(p->count, 1) - mean * mean, 0);
        v[MEAN][k] = (float)(mean - (bias ? (double)bias[k] : 0));
        v[VAR][k] = (float)var;
        v[SCALE][k] = (float)sqrt(var + EPSILON);
        v[BIAS][k] = (float)mean;
    }
    int raw = graph_add_value(g, name, TENSOR_NONE, NULL);
    conv = &g->nodes[p->node].op;
    conv->out[0] = raw;
    if (conv->n_in > 2) conv->n_in = 2;
    g->nodes[p->node].n_own_in = conv->n_in;
    struct graph_node *n = graph_add_node(g, OP_BATCH_NORM, name, 5, 1);
    memcpy(n->op.in, (int[]){raw, c[SCALE], c[BIAS], c[MEAN], c[VAR]}, 5 * sizeof(int));
    n->op.out[0] = y;
    graph_set_float(n, "epsilon", (float)EPSILON);
    free(name);
    return ERR_OK;
}

/* ---- filters of length 1 */

static int readers(const struct graph *g, int value)
{
    int n = g->values[value].is_output;
    for (size_t k = 0; k < g->n_nodes; k++)
        for (int i = 0; i < g->nodes[k].op.n_in; i++) n += g->nodes[k].op.in[i] == value;
    return n;
}

static const struct op_node *norm_of(const struct graph *g, const struct op_node *conv)
{
    if (conv->kind != OP_CONV || conv->n_in > 2 || !has_constant(g, conv, 1) || readers(g, conv->in[1]) != 1 || readers(g, conv->out[0]) != 1) return NULL;
    for (size_t k = 0; k < g->n_nodes; k++) {
        const struct op_node *n = &g->nodes[k].op;
        if (n->kind != OP_BATCH_NORM || n->in[0] != conv->out[0]) continue;
        return has_constant(g, n, 3) && has_constant(g, n, 4) && readers(g, n->in[3]) == 1 && readers(g, n->in[4]) == 1 ? n : NULL;
    }
    return NULL;
}

/* (var + eps) / s^2 = var' + eps, so that not even eps changes anything. var' is no less than 0, so a long filter of a channel that hardly moves stays longer than 1. */
static err shorten(struct graph *g, const struct op_node *conv, const struct op_node *norm, bool *ret_changed)
{
    const struct graph_value *w = &g->values[conv->in[1]];
    int64_t rows = w->shape.dims[0], each = tensor_count(&w->shape) / MAX(rows, 1);
    double eps = (double)op_attr_float(norm, "epsilon", 1e-5f), off = 0;
    float *f = xnewn(float, rows * each + 1), *mean = xnewn(float, rows + 1), *var = xnewn(float, rows + 1);
    memcpy(f, w->constant, w->constant_bytes);
    memcpy(mean, g->values[norm->in[3]].constant, (size_t)rows * sizeof *mean);
    memcpy(var, g->values[norm->in[4]].constant, (size_t)rows * sizeof *var);
    for (int64_t k = 0; k < rows; k++) {
        double s = 0;
        for (int64_t i = 0; i < each; i++) s += (double)f[k * each + i] * (double)f[k * each + i];
        if (!((s = sqrt(s)) > 1e-12) || !isfinite(s)) continue;
        if (eps > 0) s = fmin(s, sqrt((fmax((double)var[k], 0) + eps) / eps));
        off = fmax(off, fabs(s - 1));
        for (int64_t i = 0; i < each; i++) f[k * each + i] = (float)((double)f[k * each + i] / s);
        mean[k] = (float)((double)mean[k] / s);
        var[k] = (float)fmax(((double)var[k] + eps) / (s * s) - eps, 0);
    }
    err e = ERR_OK;
    if (off > 1e-3) {
        *ret_changed = true;
        e = graph_set_constant(g, conv->in[1], f, rows * each);
        if (!e) e = graph_set_constant(g, norm->in[3], mean, rows);
        if (!e) e = graph_set_constant(g, norm->in[4], var, rows);
    }
    free(f);
    free(mean);
    free(var);
    return e;
}

static err shorten_all(struct graph *g, bool *ret_changed)
{
    err e = ERR_OK;
    for (size_t k = 0; k < g->n_nodes && !e; k++) {
        const struct op_node *norm = norm_of(g, &g->nodes[k].op);
        if (norm) e = shorten(g, &g->nodes[k].op, norm, ret_changed);
    }
    return e;
}

err merge_unfold(const char *path, int size, const struct train_set *set, const struct train_evaluate_options *o, int *ret_changed)
{
    struct mem_payer *payer = mem_payer_new(o->budget, "unfold");
    struct unfold u = {0};
    err e = graph_load(path, payer, &u.g);
    if (!e) find_places(&u);
    bool changed = u.n > 0;
    if (!e && u.n) e = gather(&u, path, size, set, o, payer);
    for (int i = 0; i < u.n && !e; i++) e = insert(u.g, &u.places[i]);
    if (!e && u.n) e = graph_sort(u.g);
    if (!e) e = shorten_all(u.g, &changed);
    if (!e && changed) e = graph_save(u.g, path);
    *ret_changed = e ? 0 : u.n;
    unfold_done(&u);
    mem_payer_free(&payer);
    return e;
}
