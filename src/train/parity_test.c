/* The whole of training against PyTorch: plan, arena and the kernels that the planner chooses, on the networks of graph/parity_test.c: 20 plain steps give
 * PyTorch's losses, and the first one its gradients. (tests/tools/make_gradients.py made the files.) SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/net.h"

struct record {
    char name[64];
    struct tensor_shape shape;
    float *data;
};
struct golden {
    int n;
    struct record records[160];
};

static void read_golden(const char *path, struct golden *g)
{
    FILE *f = fopen(path, "rb");
    uint32_t length, rank;
    g->n = 0;
    if (!f) fail_msg("%s is missing", path);
    while (fread(&length, 4, 1, f) == 1) {
        struct record *r = &g->records[g->n++];
        memset(r, 0, sizeof *r);
        assert_true(length < sizeof r->name && g->n < (int)ARRAY_LEN(g->records));
        assert_true(fread(r->name, 1, length, f) == length && fread(&rank, 4, 1, f) == 1 && rank <= TENSOR_MAX_RANK);
        r->shape.rank = (int)rank;
        assert_true(fread(r->shape.dims, 8, rank, f) == rank);
        size_t count = (size_t)tensor_count(&r->shape);
        r->data = xcalloc(count + 1, 4);
        assert_true(fread(r->data, 4, count, f) == count);
    }
    fclose(f);
}

static const struct record *find(const struct golden *g, const char *name)
{
    for (int i = 0; i < g->n; i++)
        if (strcmp(g->records[i].name, name) == 0) return &g->records[i];
    return NULL;
}

static err loss_of(struct graph_builder *b, const struct graph_training *t, void *context, int *ret)
{
    const struct golden *golden = context;
    const struct record *labels = find(golden, "labels"), *target = find(golden, "target");
    int y = t->g->outputs[0];
    if (labels) {
        *ret = graph_b_cross_entropy_labels(b, y, graph_add_input(b->g, "labels", TENSOR_I64, &labels->shape), 0, -100);
    } else {
        int d = graph_b2(b, OP_SUB, y, graph_add_input(b->g, "target", TENSOR_F32, &target->shape));
        *ret = graph_b_reduce(b, OP_REDUCE_MEAN, graph_b2(b, OP_MUL, d, d), NULL, -1, false);
    }
    return b->e;
}

static void fill(const struct tensor *to, const struct record *r)
{
    int64_t n = tensor_count(&r->shape);
    assert_int_equal(n, tensor_count(&to->shape));
    if (to->dtype == TENSOR_I64) {
        for (int64_t i = 0; i < n; i++) ((int64_t *)to->data)[i] = (int64_t)r->data[i];
        return;
    }
    struct tensor from = tensor_view(TENSOR_F32, &r->shape, r->data);
    assert_int_equal(model_copy(&from, to), ERR_OK);
}

static void check_gradients(const struct train_net *n, const struct golden *g, const char *name)
{
    double floor = 1e-7, worst = 0;
    for (int i = 0; i < g->n; i++)
        for (int64_t k = 0; strncmp(g->records[i].name, "grad:", 5) == 0 && k < tensor_count(&g->records[i].shape); k++)
            floor = fmax(floor, 1e-3 * fabs((double)g->records[i].data[k]));
    for (int i = 0; i < g->n; i++) {
        const struct record *r = &g->records[i];
        int64_t count = 0;
        if (strncmp(r->name, "grad:", 5) != 0) continue;
        const float *p = train_net_parameter(n, r->name + 5, &count), *base = train_net_parameter(n, g->records[i].name + 5, &count);
        struct train_net_tensor t = {0};
        bool found = false;
        for (int k = 0; k < train_net_tensors(n) && !found; k++) found = train_net_tensor(n, k, &t) && strcmp(t.name, r->name + 5) == 0;
        if (!found || !p || !base) fail_msg("%s: no parameter '%s'", name, r->name + 5);
        const float *grad = train_net_gradients(n) + t.at;
        double d = 0, most = floor;
        for (int64_t k = 0; k < count; k++) {
            d = fmax(d, fabs((double)grad[k] - (double)r->data[k]));
            most = fmax(most, fabs((double)r->data[k]));
        }
        worst = fmax(worst, d / most);
        if (d > 2e-3 * most) fail_msg("%s: the gradient of '%s' differs by %g of its largest number", name, r->name + 5, d / most);
    }
    print_message("# %s: the worst gradient differs by %.2g of its largest number\n", name, worst);
}

static void run(const char *name, bool only_ref, int threads)
{
    struct golden *golden = xnew(struct golden);
    struct mem_budget *budget = mem_budget_new("host", 512 << 20), *job = mem_budget_new("job", 512 << 20);
    struct mem_payer *payer = mem_payer_new(budget, "test");
    const char *source = getenv("BRIM_SOURCE");
    struct graph *g = NULL;
    struct train_net *n = NULL;
    char path[600];
    snprintf(path, sizeof path, "%s/tests/data/gradients/%s.bin", source ? source : ".", name);
    read_golden(path, golden);
    snprintf(path, sizeof path, "%s/tests/data/gradients/%s.onnx", source ? source : ".", name);
    if (graph_load(path, payer, &g)) fail_msg("%s", err_text());
    struct train_net_options o = {.budget = job, .threads = threads, .only_ref = only_ref, .loss = loss_of, .loss_context = golden};
    if (train_net_new(g, &o, &n)) fail_msg("%s", err_text());
    const struct record *labels = find(golden, "labels"), *losses = find(golden, "loss");
    double worst = 0;
    for (int s = 0; s < 20; s++) {
        struct tensor x = train_net_input(n, 0), t = train_net_target(n, 0);
        float loss = 0;
        fill(&x, find(golden, "in"));
        fill(&t, labels ? labels : find(golden, "target"));
        if (train_net_run(n, &loss)) fail_msg("%s: %s", name, err_text());
        double d = fabs((double)loss - (double)losses->data[s]) / fmax(fabs((double)losses->data[s]), 0.05);
        worst = fmax(worst, d);
        if (d > 5e-3) fail_msg("%s: loss %d is %g, PyTorch's %g", name, s, (double)loss, (double)losses->data[s]);
        if (!s) check_gradients(n, golden, name);
        train_net_update(n, (double)find(golden, "rate")->data[0], NULL);
    }
    struct train_net_sizes z = train_net_sizes(n);
    print_message("# %s: the worst of 20 losses differs by %.2g; %d of %d steps in plain C\n", name, worst, z.plan.ref_steps, z.plan.steps);
    train_net_free(&n);
    graph_free(&g);
    for (int i = 0; i < golden->n; i++) free(golden->records[i].data);
    free(golden);
    mem_payer_free(&payer);
    mem_budget_free(&job);
    mem_budget_free(&budget);
}

static void test_networks(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"resnet", "mobilenet", "yolox", "gpt"};
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++) {
        run(NAMES[i], false, 2);
        run(NAMES[i], true, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_networks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
