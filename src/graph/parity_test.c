/* Training against PyTorch: logits, every gradient, the running statistics and the losses of 20 plain steps, of four small networks that PyTorch
 * exported (tests/tools/make_gradients.py made the files). Plain C only; kernels are held against plain C elsewhere.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "graph/backward_try.h"
#include "graph/training.h"

struct record {
    char name[64];
    struct tensor_shape shape;
    float *data; /* owned: the file's numbers need not be aligned */
};
struct golden {
    int n;
    struct record records[160];
};

static bool take(FILE *f, void *to, size_t n)
{
    return fread(to, 1, n, f) == n;
}

static void read_golden(const char *path, struct golden *g)
{
    FILE *f = fopen(path, "rb");
    uint32_t length, rank;
    g->n = 0;
    if (!f) fail_msg("%s is missing", path);
    while (take(f, &length, 4)) {
        struct record *r = &g->records[g->n++];
        memset(r, 0, sizeof *r);
        assert_true(length < sizeof r->name && g->n < (int)ARRAY_LEN(g->records));
        assert_true(take(f, r->name, length) && take(f, &rank, 4) && rank <= TENSOR_MAX_RANK);
        r->shape.rank = (int)rank;
        assert_true(take(f, r->shape.dims, rank * 8));
        size_t bytes = (size_t)tensor_count(&r->shape) * 4;
        r->data = xcalloc(bytes + 1, 1);
        assert_true(take(f, r->data, bytes));
    }
    fclose(f);
}

static const struct record *find(const struct golden *g, const char *prefix, const char *name)
{
    char whole[200];
    snprintf(whole, sizeof whole, "%s%s", prefix, name);
    for (int i = 0; i < g->n; i++)
        if (strcmp(g->records[i].name, whole) == 0) return &g->records[i];
    return NULL;
}

/* max |got - want| / max |want|; a shift before a batch norm has a gradient of 0, of which both sides only compute rounding: `floor`. */
static double distance(const struct tensor *got, const struct record *want, double floor)
{
    double d = 0, most = floor;
    if (tensor_count(&got->shape) != tensor_count(&want->shape)) return INFINITY;
    for (int64_t i = 0; i < tensor_count(&want->shape); i++) {
        d = fmax(d, fabs(try_at(got, i) - (double)want->data[i]));
        most = fmax(most, fabs((double)want->data[i]));
    }
    return d / most;
}

struct parity {
    struct golden golden;
    struct graph *source;
    struct graph_training *t;
    int loss, *grads;
    void *in[256];
    double worst;
};

static int add_loss(struct parity *p)
{
    struct graph *g = p->t->g;
    struct graph_builder b = {.g = g, .name = "loss"};
    const struct record *labels = find(&p->golden, "", "labels"), *target = find(&p->golden, "", "target");
    int y = g->outputs[0], loss;
    if (labels) {
        loss = graph_b_cross_entropy_labels(&b, y, graph_add_input(g, "labels", TENSOR_I64, &labels->shape), 0, -100);
    } else {
        int d = graph_b2(&b, OP_SUB, y, graph_add_input(g, "target", TENSOR_F32, &target->shape));
        loss = graph_b_reduce(&b, OP_REDUCE_MEAN, graph_b2(&b, OP_MUL, d, d), NULL, -1, false);
    }
    if (b.e) fail_msg("%s", err_text());
    return loss;
}

/* Inputs: what the golden has under the input's name; else the parameter's initial numbers. */
static void fill_inputs(struct parity *p)
{
    struct graph *g = p->t->g;
    assert_true(g->n_inputs < (int)ARRAY_LEN(p->in));
    for (int i = 0; i < g->n_inputs; i++) {
        const struct graph_value *v = &g->values[g->inputs[i]];
        const struct record *r = find(&p->golden, "", v->name);
        int64_t n = tensor_count(&v->shape);
        p->in[i] = xcalloc((size_t)n + 1, 8);
        for (int64_t k = 0; r && k < n; k++) {
            if (v->dtype == TENSOR_I64) ((int64_t *)p->in[i])[k] = (int64_t)r->data[k];
            else ((float *)p->in[i])[k] = r->data[k];
        }
        for (int k = 0; k < p->t->n_params; k++)
            if (p->t->params[k].value == g->inputs[i]) memcpy(p->in[i], p->t->params[k].initial, (size_t)n * 4);
    }
}

static void check_first_step(struct parity *p, const struct tensor *values)
{
    struct graph_training *t = p->t;
    p->worst = distance(&values[t->g->outputs[0]], find(&p->golden, "", "logits"), 1e-7);
    if (p->worst > 1e-4) fail_msg("logits differ by %g", p->worst);
    int seen = 0, wanted = 0;
    double floor = 1e-7;
    for (int i = 0; i < p->golden.n; i++) {
        const struct record *r = &p->golden.records[i];
        if (strncmp(r->name, "grad:", 5) != 0) continue;
        wanted++;
        for (int64_t j = 0; j < tensor_count(&r->shape); j++) floor = fmax(floor, 1e-3 * fabs((double)r->data[j]));
    }
    for (int k = 0; k < t->n_params; k++) {
        bool state = t->params[k].role == GRAPH_PARAMETER_STATE;
        const struct record *want = find(&p->golden, state ? "next:" : "grad:", t->params[k].name);
        if (!want) {
            if (!state) fail_msg("PyTorch has no parameter '%s'", t->params[k].name);
            continue;
        }
        double d = distance(&values[state ? t->params[k].update : p->grads[k]], want, floor);
        seen += !state;
        p->worst = fmax(p->worst, d);
        if (d > 1e-3) fail_msg("'%s' (%s) differs by %g of its largest number", t->params[k].name, state ? "state" : "gradient", d);
    }
    assert_int_equal(seen, wanted);
}

static void step(struct parity *p, const struct tensor *values, float rate)
{
    struct graph_training *t = p->t;
    for (int k = 0; k < t->n_params; k++)
        for (int i = 0; i < t->g->n_inputs; i++) {
            if (t->g->inputs[i] != t->params[k].value) continue;
            float *at = p->in[i];
            for (int64_t j = 0; j < t->params[k].count; j++)
                at[j] = k < t->n_trained ? at[j] - rate * (float)try_at(&values[p->grads[k]], j) : (float)try_at(&values[t->params[k].update], j);
        }
}

static void run(const char *name)
{
    struct parity *p = xnew(struct parity);
    struct testing box;
    char path[600];
    const char *source = getenv("BRIM_SOURCE");
    testing_init(&box, 256 << 20);
    snprintf(path, sizeof path, "%s/tests/data/gradients/%s.bin", source ? source : ".", name);
    read_golden(path, &p->golden);
    snprintf(path, sizeof path, "%s/tests/data/gradients/%s.onnx", source ? source : ".", name);
    if (graph_load(path, box.payer, &p->source)) fail_msg("%s", err_text());
    if (graph_training_form(p->source, NULL, box.payer, &p->t)) fail_msg("%s", err_text());
    p->loss = add_loss(p);
    int *wrt = xnewn(int, (size_t)p->t->n_trained + 1);
    p->grads = xnewn(int, (size_t)p->t->n_trained + 1);
    for (int i = 0; i < p->t->n_trained; i++) wrt[i] = p->t->params[i].value;
    if (graph_backward(p->t->g, p->loss, wrt, p->t->n_trained, p->grads)) fail_msg("%s", err_text());
    fill_inputs(p);
    const struct record *losses = find(&p->golden, "", "loss");
    double worst_loss = 0;
    for (int s = 0; s < 20; s++) {
        struct tensor *values = try_run(p->t->g, p->in);
        if (!values) fail_msg("%s", err_text());
        if (!s) check_first_step(p, values);
        double d = fabs(try_at(&values[p->loss], 0) - (double)losses->data[s]) / fmax(fabs((double)losses->data[s]), 0.05);
        worst_loss = fmax(worst_loss, d);
        if (d > 5e-3) fail_msg("loss %d is %g, PyTorch's %g", s, try_at(&values[p->loss], 0), (double)losses->data[s]);
        step(p, values, find(&p->golden, "", "rate")->data[0]);
        try_free(p->t->g, &values);
    }
    print_message("# %s: %d parameters, the worst gradient differs by %.2g of its largest number, the worst of 20 losses by %.2g\n", name,
                  p->t->n_trained, p->worst, worst_loss);
    for (int i = 0; i < p->t->g->n_inputs; i++) free(p->in[i]);
    for (int i = 0; i < p->golden.n; i++) free(p->golden.records[i].data);
    free(wrt);
    free(p->grads);
    graph_training_free(&p->t);
    graph_free(&p->source);
    free(p);
    testing_done(&box);
}

static void test_resnet(void **state)
{
    (void)state;
    run("resnet");
}

static void test_mobilenet(void **state)
{
    (void)state;
    run("mobilenet");
}

static void test_yolox(void **state)
{
    (void)state;
    run("yolox");
}

static void test_gpt(void **state)
{
    (void)state;
    run("gpt");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_resnet), cmocka_unit_test(test_mobilenet), cmocka_unit_test(test_yolox), cmocka_unit_test(test_gpt)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
