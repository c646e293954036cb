/* Whole models in bf16: near their f32 outputs on the golden inputs, half the weight bytes, the same bits when weights stream, and graphs whose chains
 * of functions no bf16 kernel takes. The bounds are twice what was measured: other processors add in another order.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/plan.h"
#include "model/within.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char *model_path(const char *name)
{
    const char *data = getenv("BRIM_DATA"), *source = getenv("BRIM_SOURCE");
    return data && *data ? xasprintf("%s/models/%s", data, name) : xasprintf("%s/../shared/data/models/%s", source ? source : ".", name);
}

static void fill(const struct model_plan *p, int n)
{
    for (int i = 0; i < n; i++) {
        struct tensor to = model_plan_input(p, i);
        int64_t count = tensor_count(&to.shape);
        float *values = xnewn(float, (size_t)count);
        uint32_t x = 1;
        for (int64_t k = 0; k < count; k++) {
            x = x * 1664525u + 1013904223u;
            values[k] = (float)(x >> 8) / 16777216.0f;
        }
        struct tensor from = tensor_view(TENSOR_F32, &to.shape, values);
        assert_int_equal(model_copy(&from, &to), ERR_OK);
        free(values);
    }
}

struct answer {
    int n;
    float *out[8];
    int64_t count[8];
    size_t weights;
    uint64_t streamed;
};

static void take(const struct model_plan *p, int n, struct answer *ret)
{
    ret->n = MIN(n, 8);
    for (int i = 0; i < ret->n; i++) {
        struct tensor from = model_plan_output(p, i);
        assert_int_equal(from.dtype, TENSOR_F32);
        ret->count[i] = tensor_count(&from.shape);
        ret->out[i] = xnewn(float, (size_t)ret->count[i]);
        struct tensor to = tensor_view(TENSOR_F32, &from.shape, ret->out[i]);
        assert_int_equal(model_copy(&from, &to), ERR_OK);
    }
    ret->weights = model_plan_sizes(p).weights;
}

static void answer_done(struct answer *a)
{
    for (int i = 0; i < a->n; i++) free(a->out[i]);
}

static double distance(const struct answer *a, const struct answer *b)
{
    double worst = 0;
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        double d = 0, n = 0;
        assert_int_equal(a->count[i], b->count[i]);
        for (int64_t k = 0; k < a->count[i]; k++) {
            d += pow((double)a->out[i][k] - (double)b->out[i][k], 2);
            n += pow((double)a->out[i][k], 2);
        }
        double r = sqrt(d / fmax(n, 1e-30));
        worst = isnan(r) ? INFINITY : fmax(worst, r);
    }
    return worst;
}

/* Takes the graph over if there is one, else reads the file. */
static void run(const char *path, struct graph *g, enum kernel_precision precision, struct answer *ret)
{
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct model_options o = {.budget = b, .precision = precision, .threads = 1};
    struct model *m = NULL;
    struct model_plan *p = NULL;
    err e = g ? model_from_graph(g, "net", &o, &m) : model_open(path, path, &o, &m);
    if (!e) e = model_plan_new(m, NULL, &p);
    if (!e) e = model_plan_reserve(p);
    if (!e) e = model_request(m);
    if (!e) e = model_wait(m);
    if (e) fail_msg("%s: %s", path, err_text());
    fill(p, model_input_count(m));
    assert_int_equal(model_plan_run(p, NULL), ERR_OK);
    take(p, model_output_count(m), ret);
    model_release(m);
    model_plan_free(&p);
    model_free(&m);
    mem_budget_free(&b);
}

static void real_models(void **state)
{
    static const struct {
        const char *name;
        double bound, bytes; /* bytes: of f32's weights */
    } MODELS[] = {{"resnet_cifar/resnet20_cifar10.onnx", 0.03, 0.56}, {"rebuilt/squeezenet1.1.onnx", 0.026, 0.56}, {"ultraface/version-RFB-320.onnx", 0.01, 0.75},
                  {"openvino/person-attributes-recognition-crossroad-0230.onnx", 0.03, 0.75}, {"mlperf_tiny/resnet8_cifar10.onnx", 0.03, 0.75}};
    (void)state;
    if (!kernels_have_bf16()) skip();
    for (size_t i = 0; i < ARRAY_LEN(MODELS); i++) {
        char *path = model_path(MODELS[i].name);
        struct answer a = {0}, b = {0};
        if (access(path, R_OK) != 0) {
            print_message("# no %s\n", path);
            free(path);
            skip();
        }
        run(path, NULL, KERNEL_F32, &a);
        run(path, NULL, KERNEL_BF16, &b);
        double d = distance(&a, &b);
        print_message("# %s: %.4f, weights %.2f\n", MODELS[i].name, d, (double)b.weights / (double)a.weights);
        assert_true(d > 0 && d <= MODELS[i].bound);
        assert_true((double)b.weights <= MODELS[i].bytes * (double)a.weights);
        answer_done(&a);
        answer_done(&b);
        free(path);
    }
}

/* ---- streaming */

static void run_within(const char *path, const char *dir, uint64_t limit, struct answer *ret, uint64_t *ret_peak)
{
    struct mem_budget *b = mem_budget_new("host", limit);
    struct weights_reader *r;
    struct model *m;
    struct model_within w = {0};
    assert_int_equal(weights_reader_new(&r), ERR_OK);
    struct model_options o = {.budget = b, .precision = KERNEL_BF16, .threads = 1, .reader = r, .spill_dir = dir};
    assert_int_equal(model_open(path, path, &o, &m), ERR_OK);
    err e = model_within_open(m, NULL, 1e9, &w);
    if (e) fail_msg("%s in %llu bytes: %s", path, (unsigned long long)limit, err_text());
    for (int i = 0; i < 3; i++) {
        fill(w.plan, model_input_count(m));
        assert_int_equal(model_within_run(&w, NULL), ERR_OK);
    }
    take(w.plan, model_output_count(m), ret);
    ret->streamed = w.blocks.streamed;
    *ret_peak = mem_budget_peak(b);
    assert_true(*ret_peak <= limit);
    model_within_close(&w);
    weights_reader_free(&r);
    mem_budget_free(&b);
}

static void some_weights_stream(void **state)
{
    char dir[] = "/tmp/brim-bf16-XXXXXX", *path = model_path("rebuilt/squeezenet1.1.onnx");
    struct answer all = {0}, part = {0};
    uint64_t peak, less;
    (void)state;
    if (!kernels_have_bf16() || access(path, R_OK) != 0) {
        free(path);
        skip();
    }
    assert_non_null(mkdtemp(dir));
    run_within(path, dir, (uint64_t)1 << 40, &all, &peak);
    run_within(path, dir, peak - all.weights / 4, &part, &less);
    assert_true(all.streamed == 0 && part.streamed > 0 && part.streamed < part.weights && part.weights == all.weights);
    for (int i = 0; i < all.n; i++) assert_memory_equal(all.out[i], part.out[i], (size_t)all.count[i] * sizeof(float));
    answer_done(&all);
    answer_done(&part);
    char *command = xasprintf("rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    free(command);
    free(path);
}

/* ---- chains of functions: Conv, two functions, Conv */

enum { SIDE = 20, CHANNELS = 32 };

static int conv(struct graph *g, int x, uint64_t seed)
{
    float *f;
    int w, y = graph_add_value(g, "y", TENSOR_NONE, NULL);
    assert_int_equal(graph_add_constant(g, "w", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {CHANNELS, CHANNELS, 3, 3}}, &w, (void **)&f), ERR_OK);
    for (int i = 0; i < CHANNELS * CHANNELS * 9; i++) f[i] = ((float)(hash64(&i, sizeof i, seed) >> 40) / (float)(1 << 24) - 0.5f) * 0.2f;
    struct graph_node *n = graph_add_node(g, OP_CONV, "conv", 2, 1);
    n->op.in[0] = x;
    n->op.in[1] = w;
    n->op.out[0] = y;
    graph_set_ints(n, "pads", (int64_t[]){1, 1, 1, 1}, 4);
    return y;
}

static int function(struct graph *g, int x, enum op_kind kind)
{
    int y = graph_add_value(g, "f", TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, kind, "f", 1, 1);
    n->op.in[0] = x;
    n->op.out[0] = y;
    if (kind == OP_LEAKY_RELU) graph_set_float(n, "alpha", 0.2f);
    return y;
}

static struct graph *chain(struct mem_payer *p, enum op_kind first, enum op_kind second)
{
    struct graph *g = graph_new("chain", 17, p);
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, CHANNELS, SIDE, SIDE}});
    graph_add_output(g, conv(g, function(g, function(g, conv(g, x, 1), first), second), 2));
    return g;
}

static void every_pair_of_functions(void **state)
{
    static const enum op_kind KINDS[] = {OP_RELU, OP_LEAKY_RELU, OP_SIGMOID, OP_HARD_SIGMOID, OP_HARD_SWISH, OP_TANH, OP_ELU};
    (void)state;
    if (!kernels_have_bf16()) skip();
    for (size_t i = 0; i < ARRAY_LEN(KINDS); i++)
        for (size_t k = 0; k < ARRAY_LEN(KINDS); k++) {
            struct mem_budget *budget = mem_budget_new("graph", UINT64_MAX);
            struct mem_payer *p = mem_payer_new(budget, "graph");
            struct answer a = {0}, b = {0};
            run("chain", chain(p, KINDS[i], KINDS[k]), KERNEL_F32, &a);
            run("chain", chain(p, KINDS[i], KINDS[k]), KERNEL_BF16, &b);
            double d = distance(&a, &b);
            if (!(d > 0 && d < 0.02)) fail_msg("%s, %s: %g", op_name(KINDS[i]), op_name(KINDS[k]), d);
            answer_done(&a);
            answer_done(&b);
            mem_payer_free(&p);
            mem_budget_free(&budget);
        }
}

/* x -> bf16 -> Gemm with a transposed A and f32 weights -> f32. No kernel takes that in bf16: what is bf16 is made by hand. */
static void what_no_kernel_takes_is_f32(void **state)
{
    enum { ROWS = 6, INNER = 8, COLUMNS = 5 };
    (void)state;
    float *w, worst = 0;
    int weight;
    struct mem_budget *budget = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(budget, "graph");
    struct graph *g = graph_new("mixed", 13, payer);
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 2, .dims = {INNER, ROWS}});
    assert_int_equal(graph_add_constant(g, "w", TENSOR_F32, &(struct tensor_shape){.rank = 2, .dims = {INNER, COLUMNS}}, &weight, (void **)&w), ERR_OK);
    for (int i = 0; i < INNER * COLUMNS; i++) w[i] = (float)(i % 7) / 4 - 0.75f;
    int a = function(g, x, OP_ABS), b = graph_add_value(g, "b", TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, OP_GEMM, "gemm", 2, 1);
    n->op.in[0] = a;
    n->op.in[1] = weight;
    n->op.out[0] = b;
    graph_set_int(n, "transA", 1);
    graph_add_output(g, function(g, b, OP_ABS));
    struct model_options o = {.budget = budget, .threads = 1, .no_rewrites = true};
    struct model *m;
    struct model_plan *p = xnew(struct model_plan);
    assert_int_equal(model_from_graph(g, "mixed", &o, &m), ERR_OK);
    p->model = m;
    m->n_plans++;
    assert_int_equal(model_make_ready(m, m->graph, NULL, &p->graph), ERR_OK);
    for (size_t i = 0; i < p->graph->n_nodes; i++) {
        struct op_node *op = &p->graph->nodes[i].op;
        if (op->kind == OP_GEMM) p->graph->values[op->in[0]].dtype = p->graph->values[op->out[0]].dtype = TENSOR_BF16;
        if (op->kind == OP_ABS) op->kind = OP_CAST;
    }
    assert_int_equal(model_plan_build(p), ERR_OK);
    assert_int_equal(weights_set_seal(m->weights), ERR_OK);
    m->filling = false;
    assert_int_equal(p->n_steps, 5); /* cast, cast, Gemm, cast, cast */
    assert_int_equal(model_plan_reserve(p), ERR_OK);
    assert_int_equal(model_request(m), ERR_OK);
    assert_int_equal(model_wait(m), ERR_OK);
    struct tensor in = model_plan_input(p, 0), out;
    for (int i = 0; i < INNER * ROWS; i++) ((float *)in.data)[i] = (float)(i % 11) / 8 - 0.5f; /* bf16 holds them */
    assert_int_equal(model_plan_run(p, NULL), ERR_OK);
    out = model_plan_output(p, 0);
    assert_int_equal(out.dtype, TENSOR_F32);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) {
            float sum = 0;
            for (int k = 0; k < INNER; k++) sum += ((float)((k * ROWS + r) % 11) / 8 - 0.5f) * w[k * COLUMNS + c];
            worst = fmaxf(worst, fabsf(((float *)out.data)[r * COLUMNS + c] - sum) / fmaxf(1, fabsf(sum)));
        }
    assert_true(worst <= 1.0f / 256); /* one rounding of the result */
    model_release(m);
    model_plan_free(&p);
    model_free(&m);
    mem_payer_free(&payer);
    mem_budget_free(&budget);
}

/* Asked for where there is none, f32 runs, with f32's bits. */
static void without_bf16_it_is_f32(void **state)
{
    (void)state;
    if (kernels_have_bf16()) skip();
    struct mem_budget *budget = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(budget, "graph");
    struct answer a = {0}, b = {0};
    run("chain", chain(p, OP_RELU, OP_TANH), KERNEL_F32, &a);
    run("chain", chain(p, OP_RELU, OP_TANH), KERNEL_BF16, &b);
    assert_memory_equal(a.out[0], b.out[0], (size_t)a.count[0] * sizeof(float));
    answer_done(&a);
    answer_done(&b);
    mem_payer_free(&p);
    mem_budget_free(&budget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_models), cmocka_unit_test(some_weights_stream), cmocka_unit_test(every_pair_of_functions),
        cmocka_unit_test(what_no_kernel_takes_is_f32), cmocka_unit_test(without_bf16_it_is_f32)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
