/* The networks of the zoo against PyTorch's outputs for the same weights (tests/data/zoo_goldens.txt, made by tests/tools/make_zoo_goldens.py), and
 * YOLOX-nano against the weights that its authors trained, where those are on this machine.
 *
 * Networks of more than 30 million numbers run only with BRIM_ZOO_ALL=1: they need gigabytes and, under a sanitizer, minutes, and what they are made of
 * is also in the smaller ones. SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo.h"
#include "model/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { SAMPLES = 16 };

static uint32_t step(uint32_t x)
{
    return x * 1664525u + 1013904223u;
}

static float unit(uint32_t x)
{
    return (float)(x >> 8) / 16777216.0f;
}

/* Biases and normalisation as they are drawn are mostly 0 or 1, which would hide mistakes. The script does the same. */
static void stir(struct graph *g)
{
    for (size_t i = 0; i < g->n_values; i++) {
        struct graph_value *v = &g->values[i];
        if (!v->owned || v->dtype != TENSOR_F32 || v->shape.rank != 1 || str_ends(v->name, ".fixed") || str_ends(v->name, ".scales")) continue;
        uint32_t x = 0;
        for (const char *c = v->name; *c; c++) x = x * 31 + (uint8_t)*c;
        float *f = v->owned;
        bool variance = str_ends(v->name, ".running_var");
        for (int64_t k = 0; k < v->shape.dims[0]; k++) {
            x = step(x);
            f[k] = variance ? 0.5f + unit(x) : f[k] + 0.2f * (unit(x) - 0.5f);
        }
    }
}

static void fill(const struct tensor *to, int vocabulary)
{
    int64_t n = tensor_count(&to->shape);
    uint32_t x = 5;
    float *f = xnewn(float, n);
    int64_t *k = xnewn(int64_t, n);
    for (int64_t i = 0; i < n; i++) {
        x = step(x);
        f[i] = unit(x);
        k[i] = (x >> 8) % (uint32_t)vocabulary;
    }
    struct tensor from = tensor_view(to->dtype, &to->shape, to->dtype == TENSOR_I64 ? (void *)k : (void *)f);
    assert_int_equal(model_copy(&from, to), ERR_OK);
    free(f);
    free(k);
}

struct run {
    struct mem_budget *b;
    struct mem_payer *p;
    struct model *m;
    struct model_plan *plan;
};

/* Takes `g` over. */
static struct run run_graph(struct mem_budget *b, struct mem_payer *p, struct graph *g, const char *name, int vocabulary)
{
    struct run r = {.b = b, .p = p};
    err e = model_from_graph(g, name, &(struct model_options){.budget = b}, &r.m);
    if (!e) e = model_plan_new(r.m, NULL, &r.plan);
    if (!e) e = model_plan_reserve(r.plan);
    if (e) fail_msg("%s: %s", name, err_text());
    struct tensor in = model_plan_input(r.plan, 0);
    fill(&in, vocabulary);
    if (model_plan_run(r.plan, NULL)) fail_msg("%s: %s", name, err_text());
    return r;
}

static void run_done(struct run *r)
{
    model_plan_free(&r->plan);
    model_free(&r->m);
}

/* Output `i` in row-major order; free(). */
static float *output(const struct run *r, int i, int64_t *ret_n)
{
    struct tensor t = model_plan_output(r->plan, i);
    *ret_n = tensor_count(&t.shape);
    float *f = xnewn(float, *ret_n);
    struct tensor to = tensor_view(TENSOR_F32, &t.shape, f);
    assert_int_equal(model_copy(&t, &to), ERR_OK);
    return f;
}

struct golden {
    char arch[64];
    int size, output;
    long long count;
    double largest, v[SAMPLES];
};

static bool read_golden(FILE *f, struct golden *g)
{
    char line[1024];
    do
        if (!fgets(line, sizeof line, f)) return false;
    while (line[0] == '#');
    int at;
    assert_int_equal(sscanf(line, "%63s %d %d %lld %lf%n", g->arch, &g->size, &g->output, &g->count, &g->largest, &at), 5);
    const char *p = line + at;
    for (int i = 0; i < SAMPLES; i++) {
        char *end;
        g->v[i] = strtod(p, &end);
        assert_true(end != p);
        p = end;
    }
    return true;
}

static void check(const struct run *r, const struct golden *g)
{
    int64_t n;
    float *f = output(r, g->output, &n);
    double largest = 0, worst = 0;
    if (n != g->count) fail_msg("%s: output %d has %lld numbers, PyTorch's %lld", g->arch, g->output, (long long)n, g->count);
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)f[i]));
    for (int i = 0; i < SAMPLES; i++) worst = fmax(worst, fabs((double)f[i * (n - 1) / (SAMPLES - 1)] - g->v[i]));
    free(f);
    if (!(worst <= 1e-4 * g->largest && fabs(largest - g->largest) <= 1e-4 * g->largest))
        fail_msg("%s: output %d differs by %g; largest magnitude %g, PyTorch's %g", g->arch, g->output, worst, largest, g->largest);
}

static void outputs_are_pytorchs(void **state)
{
    (void)state;
    char *path = xasprintf("%s/tests/data/zoo_goldens.txt", getenv("BRIM_SOURCE") ? getenv("BRIM_SOURCE") : ".");
    FILE *f = fopen(path, "r");
    struct golden g;
    char at[64] = "";
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "zoo");
    struct run r = {0};
    int networks = 0;
    if (!f) fail_msg("%s is missing", path);
    while (read_golden(f, &g)) {
        if (strcmp(g.arch, at)) {
            struct graph *net;
            static const char *const large[] = {"vgg", "alexnet", "resnet101", "resnet152", "ssd300", "yolov3 ", "gpt2 "};
            bool skipped = false;
            char *spaced = xasprintf("%s ", g.arch);
            for (size_t i = 0; i < ARRAY_LEN(large); i++) skipped |= str_starts(spaced, large[i]) && !getenv("BRIM_ZOO_ALL");
            free(spaced);
            run_done(&r);
            r = (struct run){0};
            snprintf(at, sizeof at, "%s", g.arch);
            networks++;
            if (skipped) continue;
            assert_int_equal(graph_zoo(g.arch, &(struct graph_zoo_options){.seed = 7, .size = g.size}, p, &net), ERR_OK);
            stir(net);
            r = run_graph(b, p, net, g.arch, !strcmp(g.arch, "gpt2") ? 50257 : 512);
        }
        if (r.m) check(&r, &g);
    }
    run_done(&r);
    assert_true(networks >= 34);
    fclose(f);
    free(path);
    mem_payer_free(&p);
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
}

/* The next constant of a rank from value `*at` on. */
static struct graph_value *next_constant(struct graph *g, size_t *node, int input, bool conv)
{
    for (; *node < g->n_nodes; ++*node) {
        struct op_node *n = &g->nodes[*node].op;
        if ((n->kind == OP_CONV) == conv && n->n_in > input && n->in[input] >= 0 && g->values[n->in[input]].constant) return &g->values[n->in[input]];
    }
    return NULL;
}

/* The authors' file has the normalisation folded into the convolutions: ours gets scale 1, shift their bias, mean 0, variance 1 - epsilon. */
static void take_weights(struct graph *to, struct graph *from)
{
    size_t a = 0, b = 0;
    for (struct graph_value *w; (w = next_constant(to, &a, 1, true)); a++, b++) {
        struct graph_value *theirs = next_constant(from, &b, 1, true);
        assert_non_null(theirs);
        if (!tensor_shape_equal(&w->shape, &theirs->shape)) fail_msg("convolution %s is not shaped like %s", w->name, theirs->name);
        memcpy(w->owned, theirs->constant, theirs->constant_bytes);
        const struct op_node *conv = &to->nodes[a].op, *their_conv = &from->nodes[b].op, *norm = &to->nodes[a + 1].op;
        const float *bias = from->values[their_conv->in[2]].constant;
        int64_t n = w->shape.dims[0];
        if (conv->n_in > 2) {
            memcpy(to->values[conv->in[2]].owned, bias, (size_t)n * sizeof *bias);
            continue;
        }
        assert_int_equal(norm->kind, OP_BATCH_NORM);
        memcpy(to->values[norm->in[2]].owned, bias, (size_t)n * sizeof *bias);
        for (int64_t i = 0; i < n; i++) ((float *)to->values[norm->in[4]].owned)[i] = 1 - 1e-3f;
    }
    assert_null(next_constant(from, &b, 1, true));
}

static void yolox_nano_with_its_authors_weights(void **state)
{
    (void)state;
    const char *data = getenv("BRIM_DATA"), *source = getenv("BRIM_SOURCE");
    char *path = data ? xasprintf("%s/models/yolox/yolox_nano_416x416.onnx", data)
                      : xasprintf("%s/../shared/data/models/yolox/yolox_nano_416x416.onnx", source ? source : ".");
    if (access(path, R_OK)) {
        print_message("no %s\n", path);
        free(path);
        skip();
    }
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "zoo");
    struct graph *ours, *theirs;
    int64_t n, m;
    assert_int_equal(graph_zoo("yolox-nano", &(struct graph_zoo_options){.seed = 1}, p, &ours), ERR_OK);
    assert_int_equal(graph_load(path, p, &theirs), ERR_OK);
    take_weights(ours, theirs);
    struct run x = run_graph(b, p, ours, "ours", 2), y = run_graph(b, p, theirs, "theirs", 2);
    float *f = output(&x, 0, &n), *g = output(&y, 0, &m);
    double worst = 0, largest = 0;
    assert_int_equal(n, m);
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)f[i] - (double)g[i]));
        largest = fmax(largest, fabs((double)g[i]));
    }
    if (!(worst <= 1e-4 * largest)) fail_msg("differs by %g of %g", worst, largest);
    free(f);
    free(g);
    run_done(&x);
    run_done(&y);
    mem_payer_free(&p);
    mem_budget_free(&b);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(outputs_are_pytorchs), cmocka_unit_test(yolox_nano_with_its_authors_weights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
