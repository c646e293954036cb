/* Tests of unfolding: the network computes the same, filters have length 1, a second time there is nothing to do.
 * SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_unfold.h"
#include "graph/testing.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { PICTURES = 40 };

static void write_data(const char *path)
{
    FILE *f = fopen(path, "wbe");
    assert_non_null(f);
    for (int i = 0; i < PICTURES; i++) {
        fputc(0, f);
        for (int c = 0; c < 3072; c++) fputc((int)(hash64(&(int[]){i, c}[0], 8, 1) % 256), f);
    }
    assert_int_equal(fclose(f), 0);
}

/* conv with bias, Relu, depthwise conv without, Relu, and a last conv, which feeds no other layer. */
static void write_net(struct testing *t, const char *path)
{
    struct graph *g = graph_new("folded", 17, t->payer);
    int x = testing_input(g, "x", DIMS(1, 3, 32, 32));
    x = testing_node(g, OP_CONV, x, testing_floats(g, 1, DIMS(6, 3, 3, 3)), testing_floats(g, 2, DIMS(6)));
    x = testing_node(g, OP_RELU, x, -1, -1);
    x = testing_node(g, OP_CONV, x, testing_floats(g, 3, DIMS(6, 1, 3, 3)), -1);
    graph_set_int(testing_last(g), "group", 6);
    x = testing_node(g, OP_RELU, x, -1, -1);
    x = testing_node(g, OP_CONV, x, testing_floats(g, 4, DIMS(2, 6, 1, 1)), testing_floats(g, 5, DIMS(2)));
    graph_add_output(g, x);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
}

static int count(const struct graph *g, enum op_kind kind)
{
    int n = 0;
    for (size_t i = 0; i < g->n_nodes; i++) n += !g->nodes[i].dead && g->nodes[i].op.kind == kind;
    return n;
}

static float *run(struct testing *t, const char *path, size_t *n, int *ret_norms)
{
    struct graph *g, *s;
    assert_int_equal(graph_load(path, t->payer, &g), ERR_OK);
    *ret_norms = count(g, OP_BATCH_NORM);
    assert_int_equal(graph_specialise(g, NULL, t->payer, &s), ERR_OK);
    float *y = testing_run(s, 7, n);
    if (!y) fail_msg("%s", err_text());
    graph_free(&s);
    graph_free(&g);
    return y;
}

static void it_computes_the_same(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    const char *tmp = getenv("TMPDIR");
    char *dir = xasprintf("%s/brim-unfold-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    char *net = xasprintf("%s/net.onnx", dir), *data = xasprintf("%s/data.bin", dir);
    struct train_set *set;
    int changed, norms;
    size_t n, m;
    write_data(data);
    write_net(&t, net);
    assert_int_equal(train_set_open(data, &(struct train_set_options){0}, t.payer, &set), ERR_OK);
    struct train_evaluate_options o = {.budget = t.budget, .batch = 8, .threads = 1, .feed = {.mean = {128, 128, 128}, .scale = {0.01f, 0.01f, 0.01f}}};
    float *before = run(&t, net, &n, &norms);
    assert_int_equal(norms, 0);
    if (merge_unfold(net, 0, set, &o, &changed)) fail_msg("%s", err_text());
    assert_int_equal(changed, 2); /* the last one stays as it is */
    float *after = run(&t, net, &m, &norms);
    assert_int_equal(norms, 2);
    assert_true(testing_distance(after, m, before, n) < 1e-5);
    assert_int_equal(merge_unfold(net, 0, set, &o, &changed), ERR_OK);
    assert_int_equal(changed, 0);
    struct graph *g;
    assert_int_equal(graph_load(net, t.payer, &g), ERR_OK);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct op_node *b = &g->nodes[i].op;
        if (b->kind == OP_BATCH_NORM)
            for (int k = 0; k < 6; k++) assert_true(((const float *)g->values[b->in[4]].constant)[k] > 0);
        if (b->kind != OP_CONV || g->values[b->in[1]].shape.dims[0] != 6) continue;
        const float *w = g->values[b->in[1]].constant;
        int64_t each = tensor_count(&g->values[b->in[1]].shape) / 6;
        for (int k = 0; k < 6; k++) {
            double length = 0;
            for (int64_t c = 0; c < each; c++) length += (double)(w[k * each + c] * w[k * each + c]);
            assert_float_equal(length, 1, 1e-4);
        }
    }
    graph_free(&g);
    train_set_free(&set);
    free(before);
    free(after);
    unlink(net);
    unlink(data);
    rmdir(dir);
    free(net);
    free(data);
    free(dir);
    testing_done(&t);
}

/* Long filters, and channels that hardly moved when the network was trained: (var + eps) / length^2 is below eps. */
static void still_channels_stay_as_they_are(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    const char *tmp = getenv("TMPDIR");
    char *net = xasprintf("%s/brim-unfold-still-%d.onnx", tmp && *tmp ? tmp : "/tmp", (int)getpid());
    struct graph *g = graph_new("still", 17, t.payer);
    int x = testing_input(g, "x", DIMS(1, 3, 8, 8)), vectors[4], changed, norms;
    size_t n, m;
    struct tensor_shape four = {.rank = 1, .dims = {4}}, filters = {.rank = 4, .dims = {4, 3, 3, 3}};
    float *w, *v;
    int weight;
    assert_int_equal(graph_add_constant(g, "w", TENSOR_F32, &filters, &weight, (void **)&w), ERR_OK);
    for (int i = 0; i < 4 * 27; i++) w[i] = (float)(i % 27 % 7 - 3) * (i < 54 ? 1.0f : 0.05f);
    static const float numbers[4][4] = {{1, 0.5f, 2, 1}, {0, 0.1f, -0.2f, 0.3f}, {0.1f, -0.3f, 0.2f, 0}, {0, 1e-6f, 3, 1e-6f}}; /* scale, bias, mean, var */
    for (int i = 0; i < 4; i++) {
        char name[2] = {(char)('a' + i), 0};
        assert_int_equal(graph_add_constant(g, name, TENSOR_F32, &four, &vectors[i], (void **)&v), ERR_OK);
        memcpy(v, numbers[i], sizeof numbers[i]);
    }
    x = testing_node(g, OP_CONV, x, weight, -1);
    struct graph_node *norm = graph_add_node(g, OP_BATCH_NORM, "norm", 5, 1);
    memcpy(norm->op.in, (int[]){x, vectors[0], vectors[1], vectors[2], vectors[3]}, 5 * sizeof(int));
    int y = graph_add_value(g, "y", TENSOR_NONE, NULL);
    g->nodes[g->n_nodes - 1].op.out[0] = y;
    graph_add_output(g, y);
    assert_int_equal(graph_save(g, net), ERR_OK);
    graph_free(&g);
    float *before = run(&t, net, &n, &norms);
    struct train_evaluate_options o = {.budget = t.budget, .batch = 8, .threads = 1};
    assert_int_equal(merge_unfold(net, 0, NULL, &o, &changed), ERR_OK);
    assert_int_equal(changed, 0);
    float *after = run(&t, net, &m, &norms);
    assert_int_equal(norms, 1);
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(after[i] - before[i]) <= 1e-4f * (1 + fabsf(before[i])))) fail_msg("number %zu was %g and is %g", i, (double)before[i], (double)after[i]);
    assert_int_equal(m, n);
    assert_int_equal(graph_load(net, t.payer, &g), ERR_OK);
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].op.kind != OP_CONV) continue;
        const float *f = g->values[g->nodes[i].op.in[1]].constant;
        double length = 0;
        for (int k = 0; k < 27; k++) length += (double)(f[2 * 27 + k] * f[2 * 27 + k]);
        assert_float_equal(length, 1, 1e-4); /* of a channel that moves */
    }
    graph_free(&g);
    unlink(net);
    free(net);
    free(before);
    free(after);
    testing_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(it_computes_the_same), cmocka_unit_test(still_channels_stay_as_they_are)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
