/* One model through failures, eviction and threads, on a small network that is made here: three convolutions and a
 * classifier.
 *
 * Peaks of three shared models are held to a recorded figure: growing by more than 3 % fails.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { SIDE = 16, CLASSES = 10 };

static int constant(struct graph *g, const char *name, struct tensor_shape shape, uint64_t seed)
{
    float *f;
    int v;
    if (graph_add_constant(g, name, TENSOR_F32, &shape, &v, (void **)&f)) return -1;
    for (int64_t i = 0; i < tensor_count(&shape); i++)
        f[i] = (float)(hash64(&i, sizeof i, seed) >> 40) / (float)(1 << 24) - 0.5f;
    return v;
}

static int layer(struct graph *g, const char *name, int x, int from, int to)
{
    char w[32], b[32];
    snprintf(w, sizeof w, "%s_w", name);
    snprintf(b, sizeof b, "%s_b", name);
    int in[3] = {x, constant(g, w, (struct tensor_shape){.rank = 4, .dims = {to, from, 3, 3}}, (uint64_t)to),
                 constant(g, b, (struct tensor_shape){.rank = 1, .dims = {to}}, (uint64_t)to + 1)};
    if (in[1] < 0 || in[2] < 0) return -1;
    int y = graph_add_value(g, name, TENSOR_NONE, NULL), z = graph_add_value(g, w + 1, TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, OP_CONV, name, 3, 1);
    memcpy(n->op.in, in, sizeof in);
    n->op.out[0] = y;
    graph_set_ints(n, "pads", (int64_t[]){1, 1, 1, 1}, 4);
    n = graph_add_node(g, OP_RELU, b, 1, 1);
    n->op.in[0] = y;
    n->op.out[0] = z;
    return z;
}

/* A graph that writes itself to `path`: models are read from files, as they are in use. */
static void write_net(const char *path)
{
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "graph");
    struct graph *g = graph_new("net", 13, p);
    struct tensor_shape in = {.rank = 4, .dims = {1, 3, SIDE, SIDE}};
    int x = graph_add_input(g, "x", TENSOR_F32, &in);
    x = layer(g, "one", x, 3, 32);
    x = layer(g, "two", x, 32, 64);
    x = layer(g, "three", x, 64, CLASSES);
    assert_true(x >= 0);
    int y = graph_add_value(g, "y", TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, OP_GLOBAL_AVERAGE_POOL, "mean", 1, 1);
    n->op.in[0] = x;
    n->op.out[0] = y;
    graph_add_output(g, y);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

struct world {
    char *dir, *net;
    struct weights_reader *reader;
};

static int set_up(void **state)
{
    struct world *w = xnew(struct world);
    w->dir = xstrdup("/tmp/brim-model-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->net = xasprintf("%s/net.onnx", w->dir);
    write_net(w->net);
    assert_int_equal(weights_reader_new(&w->reader), ERR_OK);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    weights_reader_free(&w->reader);
    unlink(w->net);
    int failed = rmdir(w->dir);
    free(w->net);
    free(w->dir);
    free(w);
    return failed;
}

static err run(struct model_plan *p, int batch, float *out)
{
    struct tensor_shape in = {.rank = 4, .dims = {batch, 3, SIDE, SIDE}},
                        shape = {.rank = 4, .dims = {batch, CLASSES, 1, 1}};
    float *x = xnewn(float, batch * 3 * SIDE * SIDE);
    for (int i = 0; i < batch * 3 * SIDE * SIDE; i++)
        x[i] = (float)(i % 251) / 251;
    struct tensor from = tensor_view(TENSOR_F32, &in, x), to = model_plan_input(p, 0);
    err e = model_copy(&from, &to);
    if (!e) e = model_plan_run(p, NULL);
    struct tensor got = model_plan_output(p, 0), flat = tensor_view(TENSOR_F32, &shape, out);
    if (!e) e = model_copy(&got, &flat);
    free(x);
    return e;
}

/* Open, plan, reserve, load, run, close. */
static err whole_life(const struct world *w, struct mem_budget *b, bool spill, int threads, float *out)
{
    struct model_options o = {
        .budget = b, .threads = threads, .reader = spill ? w->reader : NULL, .spill_dir = spill ? w->dir : NULL};
    struct model *m = NULL;
    struct model_plan *p = NULL;
    err e = model_open(w->net, "net", &o, &m);
    if (!e) e = model_plan_new(m, NULL, &p);
    if (!e) e = model_plan_reserve(p);
    if (!e && spill) {
        e = model_request(m);
        if (!e) {
            e = model_wait(m);
            if (!e) e = run(p, 1, out);
            model_release(m);
        }
    } else if (!e) {
        e = run(p, 1, out);
    }
    model_plan_free(&p);
    model_free(&m);
    return e;
}

static void every_allocation_may_fail(void **state)
{
    for (int spill = 0; spill <= 1; spill++) {
        float out[CLASSES];
        uint64_t n = 1;
        for (;; n++) {
            struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
            mem_fault_at(b, n);
            err e = whole_life(*state, b, spill, 1, out);
            bool reached = mem_fault_calls(b) >= n;
            assert_true(e == ERR_OK || e == ERR_NOMEM); /* OK: another kernel did without, or no more to fail */
            if (!reached) assert_int_equal(e, ERR_OK);
            assert_int_equal(mem_budget_used(b), 0);
            mem_budget_free(&b);
            if (!reached) break;
        }
        print_message("# %llu allocations\n", (unsigned long long)(n - 1));
        assert_true(n > 5);
    }
}

static void bits_do_not_depend_on_threads_or_eviction(void **state)
{
    struct world *w = *state;
    float one[CLASSES], two[CLASSES], spilled[CLASSES];
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    assert_int_equal(whole_life(w, b, false, 1, one), ERR_OK);
    assert_int_equal(whole_life(w, b, false, 2, two), ERR_OK);
    assert_memory_equal(one, two, sizeof one);
    struct model_options o = {.budget = b, .threads = 1, .reader = w->reader, .spill_dir = w->dir};
    struct model *m;
    struct model_plan *p;
    assert_int_equal(model_open(w->net, "net", &o, &m), ERR_OK);
    assert_int_equal(model_plan_new(m, NULL, &p), ERR_OK);
    assert_int_equal(model_plan_reserve(p), ERR_OK);
    uint64_t without = mem_budget_used(b);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(model_request(m), ERR_OK);
        assert_int_equal(model_wait(m), ERR_OK);
        assert_int_equal(run(p, 1, spilled), ERR_OK);
        assert_memory_equal(one, spilled, sizeof one);
        assert_int_equal(mem_budget_used(b), without + model_weight_bytes(m));
        assert_int_equal(model_evict(m), ERR_BUSY); /* still asked for */
        model_release(m);
        assert_int_equal(model_evict(m), ERR_OK);
        assert_int_equal(mem_budget_used(b), without);
    }
    model_plan_free(&p);
    model_free(&m);
    mem_budget_free(&b);
}

static void batches_share_weights(void **state)
{
    struct world *w = *state;
    float one[CLASSES], four[4 * CLASSES];
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct model_options o = {.budget = b, .threads = 1};
    struct tensor_shape shape = {.rank = 4, .dims = {4, 3, SIDE, SIDE}};
    struct model *m;
    struct model_plan *p, *q;
    assert_int_equal(model_open(w->net, "net", &o, &m), ERR_OK);
    assert_int_equal(model_plan_new(m, NULL, &p), ERR_OK);
    size_t alone = model_weight_bytes(m);
    assert_int_equal(model_plan_new(m, &shape, &q), ERR_OK);
    assert_true(model_weight_bytes(m) < alone + alone / 10);
    assert_int_equal(model_plan_reserve(p), ERR_OK);
    assert_int_equal(model_plan_reserve(q), ERR_OK);
    assert_int_equal(run(p, 1, one), ERR_OK);
    assert_int_equal(run(q, 4, four), ERR_OK);
    for (int i = 0; i < CLASSES; i++)
        assert_float_equal(one[i], four[i], 1e-5); /* the first sample is the same */
    model_plan_free(&p);
    model_plan_free(&q);
    model_free(&m);
    mem_budget_free(&b);
}

static void peaks_do_not_grow(void **state)
{
    static const struct {
        const char *path;
        double mebibytes; /* with plain C kernels: the same on every machine */
    } recorded[] = {{"yolox/yolox_nano_416x416.onnx", 16.61},
                    {"rebuilt/squeezenet1.1.onnx", 10.76},
                    {"openvino/face-detection-retail-0004.onnx", 10.03}};
    const char *data = getenv("BRIM_DATA"), *source = getenv("BRIM_SOURCE");
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(recorded); i++) {
        char *path = data && *data
                         ? xasprintf("%s/models/%s", data, recorded[i].path)
                         : xasprintf("%s/../shared/data/models/%s", source ? source : ".", recorded[i].path);
        if (access(path, R_OK)) {
            print_message("# %s is not there\n", path);
            free(path);
            skip();
        }
        struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
        struct model_options o = {.budget = b, .threads = 1, .only_ref = true};
        struct model *m;
        struct model_plan *p;
        assert_int_equal(model_open(path, "m", &o, &m), ERR_OK);
        assert_int_equal(model_plan_new(m, NULL, &p), ERR_OK);
        mem_budget_reset_peak(b); /* a run, not the import */
        assert_int_equal(model_plan_reserve(p), ERR_OK);
        assert_int_equal(model_plan_run(p, NULL), ERR_OK);
        double peak = (double)mem_budget_peak(b) / (1 << 20);
        print_message("# %s: %.2f MiB, recorded %.2f\n", recorded[i].path, peak, recorded[i].mebibytes);
        assert_true(peak <= recorded[i].mebibytes * 1.03);
        model_plan_free(&p);
        model_free(&m);
        mem_budget_free(&b);
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(bits_do_not_depend_on_threads_or_eviction),
        cmocka_unit_test(batches_share_weights),
        cmocka_unit_test(peaks_do_not_grow),
    };
    return cmocka_run_group_tests_name("model", tests, set_up, tear_down);
}
