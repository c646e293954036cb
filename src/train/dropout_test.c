/* Dropout in training: the loss and its gradients against the sums written out by hand, each run with a draw of its own that comes back when it is done again, the same bits
 * with recomputation and through stops, and none of it in what is written. SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo.h"
#include "kernels/dropout.h"
#include "train/checkpoint.h"
#include "train/job.h"
#include "train/net.h"
#include "train/net_testing.h"
#include "weights/fs.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROWS = 8, IN = 20, HIDDEN = 24, CLASSES = 3 };

struct fixture {
    struct mem_budget *b;
    struct mem_payer *payer;
    struct graph *g;
    struct train_classify loss;
    struct tensor_shape shape;
    struct train_net_options o;
};

static int drop(struct graph *g, int x, const char *name, float ratio)
{
    int v = test_constant(g, name, (struct tensor_shape){.rank = 0}, 0);
    *(float *)g->values[v].owned = ratio;
    return test_node(g, OP_DROPOUT, name, (int[]){x, v}, 2, NULL);
}

/* x -> Dropout -> Gemm, Relu -> Dropout -> Gemm, both without a bias. */
static struct graph *perceptron(struct mem_payer *payer, float first, float second)
{
    struct graph *g = graph_new("mlp", 13, payer);
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 2, .dims = {1, IN}});
    int w1 = test_constant(g, "w1", (struct tensor_shape){.rank = 2, .dims = {IN, HIDDEN}}, 1), w2 = test_constant(g, "w2", (struct tensor_shape){.rank = 2, .dims = {HIDDEN, CLASSES}}, 2);
    int y = first >= 0 ? drop(g, x, "before", first) : x;
    y = test_node(g, OP_GEMM, "first", (int[]){y, w1}, 2, NULL);
    y = test_node(g, OP_RELU, "relu", &y, 1, NULL);
    if (second >= 0) y = drop(g, y, "between", second);
    graph_add_output(g, test_node(g, OP_GEMM, "second", (int[]){y, w2}, 2, NULL));
    return g;
}

static void setup(struct fixture *f, float first, float second)
{
    *f = (struct fixture){.b = mem_budget_new("host", UINT64_MAX), .shape = {.rank = 2, .dims = {ROWS, IN}}};
    f->payer = mem_payer_new(f->b, "test");
    f->g = perceptron(f->payer, first, second);
    f->o = (struct train_net_options){.budget = f->b, .input_shapes = &f->shape, .threads = 1, .loss = train_loss_classify, .loss_context = &f->loss, .seed = 77,
                                      .optimiser = {.rule = TRAIN_SGD, .momentum = 0.9f}};
}

static void teardown(struct fixture *f)
{
    graph_free(&f->g);
    mem_payer_free(&f->payer);
    assert_true(mem_budget_used(f->b) == 0);
    mem_budget_free(&f->b);
}

static struct train_net *open_net(struct fixture *f)
{
    struct train_net *n;
    if (train_net_new(f->g, &f->o, &n)) fail_msg("%s", err_text());
    struct tensor x = train_net_input(n, 0), t = train_net_target(n, 0);
    for (int64_t i = 0; i < tensor_count(&x.shape); i++) ((float *)x.data)[i] = (float)(hash64(&i, sizeof i, 3) >> 40) / (float)(1 << 23) - 1;
    for (int64_t i = 0; i < tensor_count(&t.shape); i++) ((float *)t.data)[i] = i % t.shape.dims[1] == i / t.shape.dims[1] % t.shape.dims[1];
    return n;
}

static float run(struct train_net *n)
{
    float loss;
    if (train_net_run(n, &loss)) fail_msg("%s", err_text());
    return loss;
}

/* ---- by hand */

/* What node `number` multiplies element i by. */
static double kept(int64_t update, int64_t times, int number, float ratio, int64_t i)
{
    struct kernel_dropout d = {.key = {77, 0}, .update = (uint32_t)update, .run = (uint32_t)times, .node = (uint32_t)number};
    uint32_t words[KERNEL_DROPOUT_GROUP];
    kernel_dropout_words(&d, i / KERNEL_DROPOUT_GROUP, words);
    return (double)words[i % KERNEL_DROPOUT_GROUP] < (double)ratio * 4294967296.0 ? 0 : 1 / (1 - (double)ratio);
}

static double by_hand(struct train_net *n, int64_t update, int64_t times, double *dw1, double *dw2)
{
    int64_t count;
    const float *x = train_net_input(n, 0).data, *w1 = train_net_parameter(n, "w1", &count), *w2 = train_net_parameter(n, "w2", &count);
    double loss = 0;
    memset(dw1, 0, IN * HIDDEN * sizeof *dw1);
    memset(dw2, 0, HIDDEN * CLASSES * sizeof *dw2);
    for (int r = 0; r < ROWS; r++) {
        double in[IN], h[HIDDEN], m[HIDDEN], y[CLASSES], sum = 0, dh[HIDDEN] = {0};
        for (int i = 0; i < IN; i++) in[i] = (double)x[r * IN + i] * kept(update, times, 0, 0.25f, r * IN + i);
        for (int k = 0; k < HIDDEN; k++) {
            h[k] = 0;
            for (int i = 0; i < IN; i++) h[k] += in[i] * (double)w1[i * HIDDEN + k];
            m[k] = (h[k] > 0) * kept(update, times, 1, 0.5f, r * HIDDEN + k);
        }
        for (int c = 0; c < CLASSES; c++) {
            y[c] = 0;
            for (int k = 0; k < HIDDEN; k++) y[c] += h[k] * m[k] * (double)w2[k * CLASSES + c];
            sum += exp(y[c]);
        }
        loss -= (y[r % CLASSES] - log(sum)) / ROWS;
        for (int c = 0; c < CLASSES; c++) {
            double dy = (exp(y[c]) / sum - (c == r % CLASSES)) / ROWS;
            for (int k = 0; k < HIDDEN; k++) {
                dw2[k * CLASSES + c] += h[k] * m[k] * dy;
                dh[k] += dy * (double)w2[k * CLASSES + c] * m[k];
            }
        }
        for (int i = 0; i < IN; i++)
            for (int k = 0; k < HIDDEN; k++) dw1[i * HIDDEN + k] += in[i] * dh[k];
    }
    return loss;
}

static void near(const float *got, const double *want, int n)
{
    for (int i = 0; i < n; i++)
        if (fabs((double)got[i] - want[i]) > 1e-5) fail_msg("number %d is %g, not %g", i, (double)got[i], want[i]);
}

static void as_by_hand(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0.25f, 0.5f);
    f.o.accumulate = 2;
    struct train_net *n = open_net(&f);
    int64_t count;
    assert_int_equal(train_net_sizes(n).dropouts, 2);
    for (int update = 0; update < 3; update++) {
        for (int times = 0; times < 2; times++) {
            double dw1[IN * HIDDEN], dw2[HIDDEN * CLASSES], want = by_hand(n, update, times, dw1, dw2);
            if (fabs((double)run(n) - want) > 1e-5) fail_msg("update %d, run %d: the loss is not %g", update, times, want);
            const float *values = train_net_parameter(n, "w1", &count), *grads = train_net_gradients(n), *base = values;
            struct train_section s[6];
            train_net_sections(n, s);
            base = s[0].p;
            near(grads + (values - base), dw1, IN * HIDDEN);
            near(grads + (train_net_parameter(n, "w2", &count) - base), dw2, HIDDEN * CLASSES);
        }
        train_net_update(n, 0.1, NULL);
    }
    train_net_free(&n);
    teardown(&f);
}

static bool only_second(void *context, const char *name, bool usual)
{
    (void)context;
    return usual && !strcmp(name, "w2");
}

static void draws(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0.25f, 0.5f);
    f.o.accumulate = 3;
    struct train_net *n = open_net(&f);
    float first = run(n), second = run(n);
    assert_true(first != second); /* the same pictures, another mask */
    train_net_rewind(n);
    float again = run(n);
    assert_memory_equal(&again, &first, sizeof first); /* a job that was stopped draws its batches again */
    train_net_rewind(n);
    assert_int_equal(train_net_run_forward(n), ERR_OK); /* in two halves, as detectors do */
    assert_int_equal(train_net_run_rest(n, &again), ERR_OK);
    assert_memory_equal(&again, &first, sizeof first);
    train_net_rewind(n);
    train_net_set_steps(n, 5);
    float later = run(n);
    assert_true(later != first);
    train_net_rewind(n);
    train_net_set_steps(n, 0);
    again = run(n);
    assert_memory_equal(&again, &first, sizeof first);
    train_net_free(&n);
    f.o.choose = only_second; /* what is frozen drops, too */
    n = open_net(&f);
    assert_int_equal(train_net_sizes(n).dropouts, 2);
    assert_int_equal(train_net_sizes(n).tensors, 1);
    if (fabsf(run(n) - first) > 1e-6f) fail_msg("frozen: not %g", (double)first);
    train_net_free(&n);
    f.o.choose = NULL;
    f.o.seed = 78;
    n = open_net(&f);
    assert_true(run(n) != first);
    train_net_free(&n);
    teardown(&f);
}

/* Off, with a ratio of 0, and without such nodes: one and the same; said for all, it holds for those of ratio 0, too. */
static void none_dropped(void **state)
{
    (void)state;
    static const struct {
        float first, second;
        double all;
        int dropouts;
    } cases[] = {{-1, -1, 0, 0}, {0.25f, 0.5f, -1, 0}, {0, 0, 0, 0}, {0, 0, 0.5, 2}, {0.25f, 0, 0, 1}};
    float losses[ARRAY_LEN(cases)];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture f;
        setup(&f, cases[i].first, cases[i].second);
        f.o.dropout = cases[i].all;
        struct train_net *n = open_net(&f);
        assert_int_equal(train_net_sizes(n).dropouts, cases[i].dropouts);
        losses[i] = run(n);
        train_net_free(&n);
        teardown(&f);
        if (i < 3) assert_memory_equal(&losses[i], &losses[0], sizeof losses[0]);
        else assert_true(losses[i] != losses[0]);
    }
}

/* All is dropped: the answers are those of no input, and nothing is learnt before it. */
static void all_dropped(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0.25f, 1);
    struct train_net *n = open_net(&f);
    double loss = (double)run(n);
    if (fabs(loss - log(CLASSES)) > 1e-5) fail_msg("%.9g", loss);
    const float *g = train_net_gradients(n);
    for (int i = 0; i < IN * HIDDEN; i++) assert_true(g[i] == 0);
    train_net_free(&n);
    teardown(&f);
}

/* What it costs to fit few pictures. */
static void holds_back(void **state)
{
    (void)state;
    double last[2];
    for (int k = 0; k < 2; k++) {
        struct fixture f;
        setup(&f, 0.25f, 0.5f);
        f.o.dropout = k ? 0 : -1;
        struct train_net *n = open_net(&f);
        last[k] = 0;
        for (int i = 0; i < 120; i++) {
            float loss = run(n);
            train_net_update(n, 0.05, NULL);
            if (i >= 100) last[k] += (double)loss / 20;
        }
        train_net_free(&n);
        teardown(&f);
    }
    print_message("# loss of the same eight rows after 100 updates: %.4f, with dropout %.4f\n", last[0], last[1]);
    assert_true(last[0] < 0.1 && last[1] > 2 * last[0]);
}

/* ---- recomputation */

/* Eight times Conv, Relu, Dropout. */
static struct graph *tower(struct mem_payer *payer)
{
    struct graph *g = graph_new("tower", 13, payer);
    struct graph_node *n;
    char name[32];
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 8, 16, 16}});
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "conv%d.weight", i);
        x = test_node(g, OP_CONV, name, (int[]){x, test_constant(g, name, (struct tensor_shape){.rank = 4, .dims = {8, 8, 3, 3}}, 0.5f)}, 2, &n);
        graph_set_ints(n, "pads", (int64_t[]){1, 1, 1, 1}, 4);
        snprintf(name, sizeof name, "relu%d", i);
        x = test_node(g, OP_RELU, name, &x, 1, NULL);
        snprintf(name, sizeof name, "drop%d", i);
        x = drop(g, x, name, 0.3f);
    }
    x = test_node(g, OP_GLOBAL_AVERAGE_POOL, "mean", &x, 1, NULL);
    x = test_node(g, OP_FLATTEN, "flat", &x, 1, NULL);
    graph_add_output(g, test_node(g, OP_GEMM, "fc", (int[]){x, test_constant(g, "fc.weight", (struct tensor_shape){.rank = 2, .dims = {8, CLASSES}}, 1)}, 2, NULL));
    return g;
}

/* DropoutBy nodes of a training step at a level of recomputation. */
static int count_drops(const struct graph *source, const struct tensor_shape *shape, int level, int *ret_levels)
{
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(b, "graph");
    struct graph_training_options o = {.input_shapes = shape};
    struct graph_training *t;
    struct graph_recompute_cost cost;
    assert_int_equal(graph_training_form(source, &o, payer, &t), ERR_OK);
    struct graph_builder builder = {.g = t->g, .name = "loss"};
    int loss = graph_b_reduce(&builder, OP_REDUCE_SUM_SQUARE, t->g->outputs[0], NULL, -1, false), wrt[16], grads[16], n = 0;
    for (int i = 0; i < t->n_trained; i++) wrt[i] = t->params[i].value;
    assert_int_equal(graph_backward(t->g, loss, wrt, t->n_trained, grads), ERR_OK);
    for (int i = 0; i < t->n_trained; i++) graph_add_output(t->g, grads[i]);
    assert_int_equal(graph_recompute(t->g, loss, level, &cost), ERR_OK);
    *ret_levels = cost.levels;
    for (size_t i = 0; i < t->g->n_nodes; i++) n += t->g->nodes[i].op.kind == OP_DROPOUT_BY;
    graph_training_free(&t);
    mem_payer_free(&payer);
    mem_budget_free(&b);
    return n;
}

static void computed_again(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, 0, 0);
    graph_free(&f.g);
    f.g = tower(f.payer);
    f.shape = (struct tensor_shape){.rank = 4, .dims = {4, 8, 16, 16}};
    int levels;
    assert_int_equal(count_drops(f.g, &f.shape, 0, &levels), 16);
    assert_true(levels > 2);
    assert_true(count_drops(f.g, &f.shape, levels, &levels) > 16);
    for (int half = 0; half < 2; half++) {
        float want[3] = {0}, *first = NULL;
        const int tried[] = {-1, 1, levels / 2, levels};
        for (size_t k = 0; k < ARRAY_LEN(tried); k++) {
            f.o.recompute = tried[k];
            f.o.precision = half ? KERNEL_BF16 : KERNEL_F32;
            struct train_net *n = open_net(&f);
            struct train_section s[6];
            train_net_sections(n, s);
            for (int i = 0; i < 3; i++) {
                float loss = run(n);
                if (!k) want[i] = loss;
                assert_memory_equal(&loss, &want[i], sizeof loss);
                train_net_update(n, 0.1, NULL);
            }
            if (!k) {
                first = malloc(s[0].bytes);
                memcpy(first, s[0].p, s[0].bytes);
            }
            assert_memory_equal(s[0].p, first, s[0].bytes);
            train_net_free(&n);
        }
        free(first);
    }
    teardown(&f);
}

/* ---- a job */

enum { PICTURES = 40, SIDE = 32 };

static char *dir;

static char *in_dir(const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

static void write_net(const char *name, float ratio)
{
    char *path = in_dir(name);
    struct mem_budget *b = mem_budget_new("test", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "net");
    struct graph *g = test_classifier("net", SIDE, 8, CLASSES, false, p);
    if (ratio >= 0) { /* between the mean and the last layer */
        struct graph_node *last = &g->nodes[g->n_nodes - 1];
        int flat = last->op.in[0], y = drop(g, flat, "drop", ratio);
        for (size_t i = 0; i < g->n_nodes; i++)
            if (g->nodes[i].op.kind == OP_GEMM) g->nodes[i].op.in[0] = y;
        assert_int_equal(graph_sort(g), ERR_OK);
    }
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    mem_payer_free(&p);
    mem_budget_free(&b);
    free(path);
}

static int make_dir(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    dir = xasprintf("%s/brim-dropout-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) return -1;
    char *data = in_dir("data.bin");
    FILE *f = fopen(data, "wbe");
    for (int i = 0; f && i < PICTURES; i++) {
        fputc(i % CLASSES, f);
        for (int k = 0; k < 3 * SIDE * SIDE; k++) fputc((int)(hash64(&(int[]){i, k}[0], 8, 1) % 100) + (k / (SIDE * SIDE) == i % CLASSES ? 120 : 20), f);
    }
    if (!f || fclose(f)) return -1;
    free(data);
    write_net("net.onnx", 0.4f);
    write_net("plain.onnx", -1);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char *command = xasprintf("rm -rf '%s'", dir);
    int r = system(command);
    free(command);
    free(dir);
    return r;
}

struct paths {
    char *model, *data, *out;
};

static struct train_job_options options(struct paths *p, const char *model, const char *out)
{
    *p = (struct paths){in_dir(model), in_dir("data.bin"), in_dir(out)};
    return (struct train_job_options){.task = TRAIN_CLASSIFY, .model = p->model, .data = p->data, .out = p->out, .held_out = 0.2, .epochs = 4, .batch = 4, .threads = 1, .data_threads = 1,
                                      .accumulate = 2, .seed = 3, .lr = 0.05, .schedule = TRAIN_COSINE, .budget = 256 << 20, .optimiser = {.rule = TRAIN_SGD, .momentum = 0.9f},
                                      .feed = {.scale = {1 / 255.f, 1 / 255.f, 1 / 255.f}}};
}

static void done(struct paths *p)
{
    free(p->model);
    free(p->data);
    free(p->out);
}

static bool same_result(const char *a, const char *b)
{
    char *p = xasprintf("%s/%s/last.onnx", dir, a), *q = xasprintf("%s/%s/last.onnx", dir, b);
    unsigned char *x, *y;
    size_t n, m;
    assert_int_equal(weights_fs_get(&weights_fs_system, p, 1 << 24, &x, &n), ERR_OK);
    assert_int_equal(weights_fs_get(&weights_fs_system, q, 1 << 24, &y, &m), ERR_OK);
    bool same = n == m && !memcmp(x, y, n);
    free(x);
    free(y);
    free(p);
    free(q);
    return same;
}

static void whole_job(const char *model, const char *out, uint64_t seed, double dropout)
{
    struct paths p;
    struct train_result r;
    struct train_job_options o = options(&p, model, out);
    o.seed = seed;
    o.dropout = dropout;
    if (train_job(&o, NULL, NULL, &r)) fail_msg("%s", err_text());
    done(&p);
}

static void stops_and_goes_on(void **state)
{
    (void)state;
    whole_job("net.onnx", "whole", 3, 0);
    whole_job("net.onnx", "again", 3, 0);
    whole_job("net.onnx", "off", 3, -1);
    whole_job("net.onnx", "said", 3, 0.6);
    whole_job("net.onnx", "said-again", 3, 0.4);
    assert_true(same_result("whole", "again"));
    assert_false(same_result("whole", "off"));
    assert_false(same_result("whole", "said"));
    assert_true(same_result("whole", "said-again"));
    for (int at = 1; at < 16; at += 7) {
        char name[16];
        struct paths p;
        struct train_result r;
        snprintf(name, sizeof name, "part%d", at);
        struct train_job_options o = options(&p, "net.onnx", name);
        o.max_steps = at;
        assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_CANCELLED);
        o.max_steps = 0;
        o.resume = true;
        assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
        assert_true(same_result("whole", name));
        done(&p);
    }
}

/* The file keeps its Dropout as it was: two inputs, no mode. */
static void written_for_inference(void **state)
{
    (void)state;
    char *path = in_dir("whole/last.onnx");
    struct mem_budget *b = mem_budget_new("test", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "net");
    struct graph *g, *s;
    int found = 0;
    if (access(path, F_OK)) whole_job("net.onnx", "whole", 3, 0);
    assert_int_equal(graph_load(path, p, &g), ERR_OK);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct op_node *n = &g->nodes[i].op;
        assert_int_not_equal(n->kind, OP_DROPOUT_BY);
        if (n->kind != OP_DROPOUT) continue;
        found++;
        assert_int_equal(n->n_in, 2);
        assert_true(*(const float *)g->values[n->in[1]].constant == 0.4f);
    }
    assert_int_equal(found, 1);
    assert_int_equal(g->n_inputs, 1);
    assert_int_equal(graph_specialise(g, NULL, p, &s), ERR_OK);
    for (size_t i = 0; i < s->n_nodes; i++) assert_int_not_equal(s->nodes[i].op.kind, OP_DROPOUT);
    graph_free(&s);
    graph_free(&g);
    mem_payer_free(&p);
    mem_budget_free(&b);
    free(path);
}

static void refused(void **state)
{
    (void)state;
    static const double bad[] = {1, 1.5, (double)NAN};
    struct paths p;
    struct train_result r;
    struct train_job_options o = options(&p, "net.onnx", "refused");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        o.dropout = bad[i];
        assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
        assert_string_equal(err_text(), "--dropout goes from 0 to below 1");
    }
    done(&p);
    o = options(&p, "plain.onnx", "refused");
    o.dropout = 0.3;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    assert_non_null(strstr(err_text(), "the network has no Dropout"));
    done(&p);
    whole_job("plain.onnx", "plain", 3, -1); /* nothing to turn off is no mistake */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_by_hand), cmocka_unit_test(draws), cmocka_unit_test(none_dropped), cmocka_unit_test(all_dropped), cmocka_unit_test(holds_back),
                                       cmocka_unit_test(computed_again), cmocka_unit_test(stops_and_goes_on), cmocka_unit_test(written_for_inference), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
