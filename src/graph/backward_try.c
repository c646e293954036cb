/* See backward_try.h. SPDX-License-Identifier: Apache-2.0 */
#include "graph/backward_try.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double try_unit(struct try_draw *d)
{
    d->state = d->state * 6364136223846793005u + 1442695040888963407u;
    return (double)(d->state >> 33) / 2147483648.0;
}

double try_between(struct try_draw *d, double low, double high)
{
    return low + (high - low) * try_unit(d);
}

int64_t try_int(struct try_draw *d, int64_t low, int64_t high)
{
    return low + (int64_t)(try_unit(d) * (double)(high - low + 1));
}

int try_input(struct graph *g, int rank, const int64_t *dims)
{
    struct tensor_shape s = tensor_shape_of(rank, dims);
    char name[16];
    snprintf(name, sizeof name, "in%d", g->n_inputs);
    return graph_add_input(g, name, TENSOR_F64, &s);
}

double try_at(const struct tensor *t, int64_t i)
{
    return t->dtype == TENSOR_F64 ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i];
}

static err run_node(const struct graph *g, const struct graph_node *n, struct tensor *values)
{
    struct tensor in[KERNEL_MAX_IN] = {{0}}, out[KERNEL_MAX_OUT] = {{0}};
    int n_in = n->op.n_in;
    for (int i = 0; i < n_in; i++)
        if (n->op.in[i] >= 0) in[i] = values[n->op.in[i]];
    while (n_in > 0 && n->op.in[n_in - 1] < 0) n_in--;
    for (int o = 0; o < n->op.n_out; o++) {
        if (n->op.out[o] < 0) continue;
        const struct graph_value *v = &g->values[n->op.out[o]];
        out[o] = tensor_view(v->dtype, &v->shape, NULL);
        out[o].data = xcalloc((size_t)tensor_count(&v->shape) + 8, 8);
        values[n->op.out[o]] = out[o];
    }
    err e = kernels_ref_run(&n->op, in, n_in, out, n->op.n_out);
    return e ? err_wrap(e, "%s (%s)", op_name(n->op.kind), n->op.name) : ERR_OK;
}

void try_free(const struct graph *g, struct tensor **values)
{
    for (size_t v = 0; *values && v < g->n_values; v++)
        if (!g->values[v].constant && !g->values[v].is_input) free((*values)[v].data);
    free(*values);
    *values = NULL;
}

struct tensor *try_run(const struct graph *g, void *const *in)
{
    struct tensor *values = xnewn(struct tensor, g->n_values + 1);
    for (size_t v = 0; v < g->n_values; v++)
        if (g->values[v].constant) values[v] = tensor_view(g->values[v].dtype, &g->values[v].shape, g->values[v].constant);
    for (int i = 0; i < g->n_inputs; i++) {
        const struct graph_value *v = &g->values[g->inputs[i]];
        values[g->inputs[i]] = tensor_view(v->dtype, &v->shape, in[i]);
    }
    err e = ERR_OK;
    for (size_t i = 0; i < g->n_nodes && !e; i++)
        if (!g->nodes[i].dead) e = run_node(g, &g->nodes[i], values);
    if (e) try_free(g, &values);
    return values;
}

/* sum(y * weights), in float64. */
static int weighted_sum(struct graph *g, int y, struct try_draw *d)
{
    struct graph_builder b = {.g = g, .name = "loss"};
    struct tensor_shape s = g->values[y].shape;
    void *p = NULL;
    int weights = -1;
    if (graph_add_constant(g, "weights", TENSOR_F64, &s, &weights, &p)) return -1;
    for (int64_t i = 0; i < tensor_count(&s); i++) ((double *)p)[i] = try_between(d, -1, 1);
    return graph_b_reduce(&b, OP_REDUCE_SUM, graph_b2(&b, OP_MUL, y, weights), NULL, -1, false);
}

static double loss_of(const struct graph *g, int loss, void *const *in)
{
    struct tensor *values = try_run(g, in);
    double r = values ? try_at(&values[loss], 0) : NAN;
    if (!values) fprintf(stderr, "# run: %s\n", err_text());
    try_free(g, &values);
    return r;
}

/* One input against differences: `by` moves each number it may. */
static bool compare(const struct graph *g, int loss, void *const *in, int input, const struct tensor *grad, double scale, struct try_draw *d,
                    const char *what)
{
    int64_t count = tensor_count(&g->values[g->inputs[input]].shape), tries = MIN(count, 24);
    double *x = in[input], h = 1e-5;
    for (int64_t t = 0; t < tries; t++) {
        int64_t i = tries == count ? t : try_int(d, 0, count - 1);
        double kept = x[i];
        x[i] = kept + h;
        double above = loss_of(g, loss, in);
        x[i] = kept - h;
        double below = loss_of(g, loss, in), want = (above - below) / (2 * h), got = grad ? try_at(grad, i) : 0;
        x[i] = kept;
        if (!(fabs(want - got) <= 2e-6 * fmax(1, fmax(scale, fabs(want))))) {
            fprintf(stderr, "# %s: input %d, number %lld: the gradient is %.9g, differences say %.9g\n", what, input, (long long)i, got, want);
            return false;
        }
    }
    return true;
}

bool try_gradients(struct graph *source, int y, uint64_t seed, double low, double high, const char *what)
{
    struct try_draw d = {seed * 7919 + 17};
    struct graph *g = NULL;
    graph_add_output(source, y);
    err e = graph_specialise(source, NULL, source->payer, &g);
    int grads[16], loss = e ? -1 : weighted_sum(g, g->outputs[0], &d), n = e ? 0 : g->n_inputs;
    size_t forward = e ? 0 : g->n_nodes;
    if (!e && loss < 0) e = ERR_INTERNAL;
    if (!e) e = graph_backward(g, loss, g->inputs, n, grads);
    bool ok = !e;
    if (e) fprintf(stderr, "# %s: %s\n", what, err_text());
    void *in[16] = {0};
    for (int i = 0; i < n; i++) {
        int64_t count = tensor_count(&g->values[g->inputs[i]].shape);
        in[i] = xcalloc((size_t)count + 1, 8);
        for (int64_t k = 0; k < count; k++) ((double *)in[i])[k] = try_between(&d, low, high);
    }
    struct tensor *values = ok ? try_run(g, in) : NULL;
    if (ok && !values) fprintf(stderr, "# %s: %s\n", what, err_text());
    ok = ok && values;
    size_t all = g ? g->n_nodes : 0;
    if (ok) g->n_nodes = forward; /* differences need the loss alone */
    for (int i = 0; i < n && ok; i++) {
        const struct tensor *grad = grads[i] >= 0 ? &values[grads[i]] : NULL;
        double scale = 0;
        for (int64_t k = 0; grad && k < tensor_count(&grad->shape); k++) scale = fmax(scale, fabs(try_at(grad, k)));
        ok = compare(g, loss, in, i, grad, scale, &d, what);
    }
    for (int i = 0; i < n; i++) free(in[i]);
    if (g) g->n_nodes = all;
    try_free(g, &values);
    graph_free(&g);
    return ok;
}
