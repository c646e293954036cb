/* See testing.h. SPDX-License-Identifier: Apache-2.0 */
#include "graph/testing.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void testing_init(struct testing *t, uint64_t limit)
{
    t->budget = mem_budget_new("host", limit);
    t->payer = mem_payer_new(t->budget, "test");
}

void testing_done(struct testing *t)
{
    mem_payer_free(&t->payer);
    mem_budget_free(&t->budget);
}

static float draw(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(*seed >> 40) / (1 << 23) - 1.0);
}

static float post(const struct kernel_post *p, float x, float add)
{
    float gate;
    switch (p->kind) {
    case KERNEL_POST_RELU: return x > 0 ? x : 0;
    case KERNEL_POST_LEAKY_RELU: return x < 0 ? p->alpha * x : x;
    case KERNEL_POST_CLIP: return fminf(fmaxf(x, p->alpha), p->beta);
    case KERNEL_POST_SIGMOID: return 1 / (1 + expf(-x));
    case KERNEL_POST_SILU: return x / (1 + expf(-x));
    case KERNEL_POST_HARD_SIGMOID: return fmaxf(0, fminf(1, p->alpha * x + p->beta));
    case KERNEL_POST_HARD_SWISH:
        gate = fmaxf(0, fminf(1, x / 6 + 0.5f));
        return x * gate;
    case KERNEL_POST_TANH: return tanhf(x);
    case KERNEL_POST_ELU: return x < 0 ? p->alpha * (expf(x) - 1) : x;
    case KERNEL_POST_ADD: return x + add;
    case KERNEL_POST_SCALE: return x * add;
    }
    return NAN;
}

static err run_node(const struct graph *g, const struct graph_node *n, struct tensor *values)
{
    struct tensor in[KERNEL_MAX_IN] = {{0}}, out[KERNEL_MAX_OUT] = {{0}};
    for (int i = 0; i < n->op.n_in; i++)
        if (n->op.in[i] >= 0) in[i] = values[n->op.in[i]];
    for (int o = 0; o < n->op.n_out; o++) {
        if (n->op.out[o] < 0) continue;
        const struct graph_value *v = &g->values[n->op.out[o]];
        out[o] = tensor_view(v->dtype, &v->shape, NULL);
        out[o].data = xcalloc((size_t)tensor_count(&v->shape) + 8, 8);
    }
    struct op_node own = n->op;
    own.n_in = n->n_own_in;
    while (own.n_in > 0 && own.in[own.n_in - 1] < 0) own.n_in--;
    err e = kernels_ref_run(&own, in, own.n_in, out, own.n_out);
    for (int k = 0; k < n->n_post && !e; k++) {
        float *x = out[0].data;
        const float *add = kernel_post_reads(&n->post[k]) ? in[n->post[k].input].data : NULL;
        bool conv = n->op.kind == OP_CONV || n->op.kind == OP_CONV_TRANSPOSE, scale = n->post[k].kind == KERNEL_POST_SCALE;
        int64_t inner = 1, channels = scale ? tensor_count(&in[n->post[k].input].shape) : 1;
        for (int d = 2; conv && d < out[0].shape.rank; d++) inner *= out[0].shape.dims[d];
        for (int64_t i = 0, c = tensor_count(&out[0].shape); i < c; i++)
            x[i] = post(&n->post[k], x[i], add ? add[scale ? i / inner % channels : i] : 0);
    }
    for (int o = 0; o < n->op.n_out; o++)
        if (n->op.out[o] >= 0) values[n->op.out[o]] = out[o];
    return e;
}

float *testing_run(const struct graph *g, uint64_t seed, size_t *ret_n)
{
    struct tensor *values = xnewn(struct tensor, g->n_values + 1);
    for (size_t v = 0; v < g->n_values; v++)
        if (g->values[v].constant)
            values[v] = tensor_view(g->values[v].dtype, &g->values[v].shape, g->values[v].constant);
    for (int i = 0; i < g->n_inputs; i++) {
        const struct graph_value *v = &g->values[g->inputs[i]];
        float *x = xnewn(float, (size_t)tensor_count(&v->shape) * 2 + 2);
        for (int64_t k = 0, c = tensor_count(&v->shape); k < c && v->dtype == TENSOR_F32; k++) x[k] = draw(&seed);
        values[g->inputs[i]] = tensor_view(v->dtype, &v->shape, x);
    }
    err e = ERR_OK;
    for (size_t i = 0; i < g->n_nodes && !e; i++) e = run_node(g, &g->nodes[i], values);
    float *ret = NULL;
    if (!e) {
        const struct tensor *t = &values[g->outputs[0]];
        *ret_n = (size_t)tensor_count(&t->shape);
        ret = xnewn(float, *ret_n + 1);
        assert(t->dtype == TENSOR_F32 && t->data);
        memcpy(ret, t->data, *ret_n * sizeof *ret);
    } else {
        fprintf(stderr, "# run: %s\n", err_text());
    }
    for (size_t v = 0; v < g->n_values; v++)
        if (!g->values[v].constant) free(values[v].data);
    free(values);
    return ret;
}

double testing_distance(const float *a, size_t n, const float *b, size_t m)
{
    double d = 0, most = 1e-12;
    if (n != m) return 1e9;
    for (size_t i = 0; i < n; i++) {
        if (isnan(a[i]) || isnan(b[i])) return 1e9;
        d = fmax(d, fabs((double)a[i] - b[i]));
        most = fmax(most, fabs((double)b[i]));
    }
    return d / most;
}

int testing_input(struct graph *g, const char *name, int rank, const int64_t *dims)
{
    struct tensor_shape s = tensor_shape_of(rank, dims);
    return graph_add_input(g, name, TENSOR_F32, &s);
}

int testing_floats(struct graph *g, uint64_t seed, int rank, const int64_t *dims)
{
    struct tensor_shape s = tensor_shape_of(rank, dims);
    void *p;
    int v;
    err e = graph_add_constant(g, "c", TENSOR_F32, &s, &v, &p);
    assert(!e);
    for (int64_t i = 0; i < tensor_count(&s); i++) ((float *)p)[i] = draw(&seed);
    return v;
}

int testing_number(struct graph *g, float x)
{
    int v = testing_floats(g, 1, 0, NULL);
    *(float *)g->values[v].owned = x;
    return v;
}

int testing_ints(struct graph *g, int n, const int64_t *from)
{
    int64_t count = n;
    struct tensor_shape s = tensor_shape_of(1, &count);
    void *p;
    int v;
    err e = graph_add_constant(g, "i", TENSOR_I64, &s, &v, &p);
    assert(!e);
    memcpy(p, from, (size_t)n * sizeof *from);
    return v;
}

int testing_node(struct graph *g, enum op_kind kind, int a, int b, int c)
{
    int in[] = {a, b, c}, n_in = c >= 0 ? 3 : b >= 0 ? 2 : a >= 0 ? 1 : 0;
    int out = graph_add_value(g, op_name(kind), TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, kind, op_name(kind), n_in, 1);
    for (int i = 0; i < n_in; i++) n->op.in[i] = in[i];
    n->op.out[0] = out;
    return out;
}

struct graph_node *testing_last(struct graph *g)
{
    return &g->nodes[g->n_nodes - 1];
}

struct graph *testing_specialised(const struct graph *g, struct mem_payer *payer)
{
    struct graph *s = NULL;
    if (graph_specialise(g, NULL, payer, &s)) fprintf(stderr, "# specialise: %s\n", err_text());
    return s;
}
