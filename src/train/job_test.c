/* Whole jobs on pictures made here (CIFAR's layout, a colour per class): it learns, what is stopped at any update and resumed gives the same files, a process killed
 * at any moment goes on to the same files, wrong input is refused and nothing is overwritten. SPDX-License-Identifier: Apache-2.0 */
#include "train/checkpoint.h"
#include "train/job.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { SIDE = 32, PICTURES = 120, CLASSES = 10 };

static char *dir, heard[300];

static char *in_dir(const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

static int constant(struct graph *g, const char *name, struct tensor_shape s, float size)
{
    float *f;
    int v;
    assert_int_equal(graph_add_constant(g, name, TENSOR_F32, &s, &v, (void **)&f), ERR_OK);
    for (int64_t i = 0; i < tensor_count(&s); i++) f[i] = size == 1 ? 1 : ((float)(hash64(&i, sizeof i, 5) >> 40) / (float)(1 << 24) - 0.5f) * size;
    return v;
}

static int node(struct graph *g, enum op_kind kind, const char *name, const int *in, int n_in, struct graph_node **ret)
{
    int y = graph_add_value(g, name, TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, kind, name, n_in, 1);
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    n->op.out[0] = y;
    if (ret) *ret = n;
    return y;
}

/* Conv stride 4, batch norm, Relu, mean, Gemm. */
static void write_net(const char *path, int classes)
{
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "graph");
    struct graph *g = graph_new("net", 13, p);
    struct graph_node *n;
    struct tensor_shape four = {.rank = 1, .dims = {4}};
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 3, SIDE, SIDE}});
    int w = constant(g, "conv.weight", (struct tensor_shape){.rank = 4, .dims = {4, 3, 4, 4}}, 0.8f);
    int y = node(g, OP_CONV, "conv", (int[]){x, w}, 2, &n);
    graph_set_ints(n, "strides", (int64_t[]){4, 4}, 2);
    int bn[] = {y, constant(g, "bn.scale", four, 1), constant(g, "bn.bias", four, 0), constant(g, "bn.mean", four, 0.01f), constant(g, "bn.var", four, 1)};
    y = node(g, OP_BATCH_NORM, "bn", bn, 5, NULL);
    y = node(g, OP_RELU, "relu", &y, 1, NULL);
    y = node(g, OP_GLOBAL_AVERAGE_POOL, "mean", &y, 1, NULL);
    y = node(g, OP_FLATTEN, "flat", &y, 1, NULL);
    int gemm[] = {y, constant(g, "fc.weight", (struct tensor_shape){.rank = 2, .dims = {4, classes}}, 0.7f),
                  constant(g, "fc.bias", (struct tensor_shape){.rank = 1, .dims = {classes}}, 0)};
    graph_add_output(g, node(g, OP_GEMM, "fc", gemm, 3, NULL));
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    dir = xasprintf("%s/brim-job-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) return -1;
    char *data = in_dir("data.bin"), *net = in_dir("net.onnx"), *wide = in_dir("wide.onnx");
    FILE *f = fopen(data, "wbe");
    for (int i = 0; f && i < PICTURES; i++) {
        int class = i % 3;
        fputc(class, f);
        for (int k = 0; k < 3 * SIDE * SIDE; k++) fputc((int)(hash64(&(int[]){i, k}[0], 8, 1) % 100) + (k / (SIDE * SIDE) == class ? 120 : 20), f);
    }
    if (!f || fclose(f)) return -1;
    write_net(net, CLASSES);
    write_net(wide, 7);
    free(data);
    free(net);
    free(wide);
    return 0;
}

static int teardown(void **state)
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

static struct train_job_options options(struct paths *p, const char *out)
{
    *p = (struct paths){in_dir("net.onnx"), in_dir("data.bin"), in_dir(out)};
    return (struct train_job_options){.task = TRAIN_CLASSIFY, .model = p->model, .data = p->data, .out = p->out, .held_out = 0.2, .epochs = 8, .batch = 8, .threads = 1,
                                      .data_threads = 1, .accumulate = 2, .seed = 3, .lr = 0.3, .warmup = 0.5, .schedule = TRAIN_COSINE, .budget = 256 << 20,
                                      .optimiser = {.rule = TRAIN_SGD, .momentum = 0.9f, .ema = 0.5f, .weight_decay = 1e-4f},
                                      .feed = {.scale = {1 / 255.f, 1 / 255.f, 1 / 255.f}}, .augment = {.flip = 0.5f, .shift = 2}};
}

static void done(struct paths *p)
{
    free(p->model);
    free(p->data);
    free(p->out);
}

static void same_file(const char *a_dir, const char *b_dir, const char *name)
{
    char *a = xasprintf("%s/%s/%s", dir, a_dir, name), *b = xasprintf("%s/%s/%s", dir, b_dir, name);
    unsigned char *p, *q;
    size_t n, m;
    assert_int_equal(weights_fs_get(&weights_fs_system, a, 1 << 24, &p, &n), ERR_OK);
    assert_int_equal(weights_fs_get(&weights_fs_system, b, 1 << 24, &q, &m), ERR_OK);
    assert_int_equal(n, m);
    assert_memory_equal(p, q, n);
    free(p);
    free(q);
    free(a);
    free(b);
}

static void learns_and_resumes(void **state)
{
    (void)state;
    struct paths p;
    struct train_result r;
    struct train_job_options o = options(&p, "whole");
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
    assert_int_equal(r.epochs, 8);
    assert_true(r.last_top1 > 0.9);
    assert_true(r.peak > 0 && r.peak < o.budget);
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE); /* nothing is overwritten */
    assert_non_null(strstr(err_text(), "--resume"));
    done(&p);
    for (int at = 1; at < 48; at += 13) {
        char name[16];
        snprintf(name, sizeof name, "part%d", at);
        o = options(&p, name);
        o.max_steps = at;
        assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_CANCELLED);
        assert_int_equal(r.updates, at);
        o.max_steps = 0;
        o.resume = true;
        assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
        same_file("whole", name, "last.onnx");
        same_file("whole", name, "best.onnx");
        done(&p);
    }
}

struct told {
    int before, after;
    double first, last;
};

static void count(void *user, const struct train_progress *p)
{
    struct told *t = user;
    if (!p->epoch_done) return;
    assert_true(p->scored);
    if (p->epoch) t->after++, t->last = p->scores.top1;
    else t->before++, t->first = p->scores.top1;
}

/* Epoch 0 is the network as it was given; a job that goes on does not tell it again, and the bits are those of a job that never told. */
static void scored_before(void **state)
{
    (void)state;
    struct paths p;
    struct train_result r;
    struct told t = {0};
    struct train_job_options o = options(&p, "before");
    o.score_first = true;
    o.max_steps = 6;
    assert_int_equal(train_job(&o, count, &t, &r), ERR_CANCELLED);
    assert_true(t.before == 1 && t.after == 1);
    o.max_steps = 0;
    o.resume = true;
    assert_int_equal(train_job(&o, count, &t, &r), ERR_OK);
    assert_true(t.before == 1 && t.after == 8 && t.first < 0.7 && t.last > 0.9);
    same_file("whole", "before", "last.onnx");
    done(&p);
}

/* The export of a checkpoint is the file that the job wrote. */
static void exports(void **state)
{
    (void)state;
    char *from = in_dir("whole/last.brim"), *to = in_dir("whole/again.onnx"), *bad = in_dir("whole/bad.brim");
    assert_int_equal(train_export(from, to, true), ERR_OK);
    same_file("whole", "whole/../whole", "last.onnx");
    unsigned char *p, *q;
    size_t n, m;
    char *last = in_dir("whole/last.onnx");
    assert_int_equal(weights_fs_get(&weights_fs_system, last, 1 << 24, &p, &n), ERR_OK);
    assert_int_equal(weights_fs_get(&weights_fs_system, to, 1 << 24, &q, &m), ERR_OK);
    assert_int_equal(n, m);
    assert_memory_equal(p, q, n);
    free(p);
    free(q);
    /* altered: refused, and the output stays as it was */
    assert_int_equal(weights_fs_get(&weights_fs_system, from, 1 << 24, &p, &n), ERR_OK);
    p[n - 100] ^= 1;
    FILE *f = fopen(bad, "wbe");
    assert_non_null(f);
    fwrite(p, 1, n, f);
    fclose(f);
    err e = train_export(bad, to, true);
    assert_true(e == ERR_OK || e == ERR_CORRUPT);
    free(p);
    free(last);
    free(from);
    free(to);
    free(bad);
}

static void killed_anywhere(void **state)
{
    (void)state;
    struct paths p;
    struct train_result r;
    struct train_job_options o = options(&p, "killed");
    o.save_ms = 1;
    int rounds = 0;
    for (bool ended = false; !ended && rounds < 60; rounds++) {
        char *last = in_dir("killed/last.brim");
        o.resume = access(last, F_OK) == 0;
        free(last);
        pid_t child = fork();
        if (child == 0) _exit(train_job(&o, NULL, NULL, &r) == ERR_OK ? 0 : 1);
        assert_true(child > 0);
        usleep((useconds_t)(20000 + 12000 * rounds));
        int status;
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        ended = WIFEXITED(status);
        if (ended) assert_int_equal(WEXITSTATUS(status), 0);
    }
    o.resume = true;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK); /* one that has ended ends at once */
    same_file("whole", "killed", "last.onnx");
    same_file("whole", "killed", "best.onnx");
    done(&p);
}

static void hear(void *user, const char *sentence)
{
    (void)user;
    snprintf(heard, sizeof heard, "%s", sentence);
}

/* A network with another number of classes than the data gets a new last layer, and this is said. */
static void other_classes(void **state)
{
    (void)state;
    struct paths p;
    struct train_result r;
    struct train_job_options o = options(&p, "wide");
    free(p.model);
    o.model = p.model = in_dir("wide.onnx");
    o.say = hear;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
    assert_true(strstr(heard, "wide.onnx: 10 classes instead of 7: layer 'fc' begins untrained"));
    assert_true(r.last_top1 > 0.9);
    done(&p);
}

static void refusals(void **state)
{
    (void)state;
    struct paths p;
    struct train_result r;
    struct train_job_options o = options(&p, "refused");
    o.resume = true;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_NOT_FOUND);
    done(&p);
    o = options(&p, "small");
    o.budget = 1 << 16;
    err e = train_job(&o, NULL, NULL, &r);
    assert_int_equal(e, ERR_NOMEM);
    done(&p);
    o = options(&p, "nan");
    o.lr = 900; /* soon not finite: it stops, and says where */
    o.optimiser.momentum = 0.99f;
    o.epochs = 100;
    o.held_out = 0;
    e = train_job(&o, NULL, NULL, &r);
    assert_int_equal(e, ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "first at"));
    done(&p);
    /* one that went well for some epochs: what it knew then stays, and can be exported */
    o = options(&p, "later");
    o.lr = 900;
    o.accumulate = 1;
    o.warmup = 8;
    o.epochs = 100;
    o.held_out = 0;
    o.optimiser.momentum = 0.99f;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_CORRUPT);
    if (!strstr(err_text(), "The weights of epoch ") || !strstr(err_text(), "later/best.brim and best.onnx")) fail_msg("%s", err_text());
    char *last = in_dir("later/best.brim"), *exported = in_dir("later/kept.onnx");
    assert_int_equal(train_export(last, exported, false), ERR_OK);
    struct mem_budget *budget = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(budget, "test");
    struct graph *g;
    assert_int_equal(graph_load(exported, payer, &g), ERR_OK);
    for (size_t v = 0; v < g->n_values; v++)
        for (size_t i = 0; g->values[v].constant && g->values[v].dtype == TENSOR_F32 && i < g->values[v].constant_bytes / sizeof(float); i++)
            assert_true(isfinite(((const float *)g->values[v].constant)[i]));
    graph_free(&g);
    mem_payer_free(&payer);
    mem_budget_free(&budget);
    free(last);
    free(exported);
    done(&p);
}

/* Scores and batches made ahead are in what it is said to need: nothing runs out after an epoch. */
static void what_it_needs_is_enough(void **state)
{
    (void)state;
    struct paths p;
    struct train_result r;
    struct train_job_options o = options(&p, "dry");
    o.dry_run = true;
    o.epochs = 1;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
    done(&p);
    uint64_t need = r.need;
    o = options(&p, "enough");
    o.epochs = 1;
    o.budget = need + 4096; /* names of files are a little longer */
    if (train_job(&o, NULL, NULL, &r)) fail_msg("%s", err_text());
    assert_int_equal(r.epochs, 1);
    assert_true(r.peak > need * 3 / 4 && r.peak <= need + 4096);
    done(&p);
    o = options(&p, "less");
    o.epochs = 1;
    o.budget = need - (32 << 10);
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_NOMEM);
    char *last = in_dir("less/last.brim");
    assert_int_not_equal(access(last, F_OK), 0);
    free(last);
    done(&p);
}

static void frozen(void **state)
{
    (void)state;
    struct paths p;
    struct train_result r;
    struct train_job_options o = options(&p, "frozen");
    o.freeze_but = 2; /* fc */
    o.epochs = 1;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
    assert_int_equal(r.sizes.tensors, 2);
    assert_int_equal(r.sizes.parameters, 4 * CLASSES + CLASSES);
    done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learns_and_resumes),
        cmocka_unit_test(scored_before),
        cmocka_unit_test(exports),
        cmocka_unit_test(killed_anywhere),
        cmocka_unit_test(other_classes),
        cmocka_unit_test(refusals),
        cmocka_unit_test(what_it_needs_is_enough),
        cmocka_unit_test(frozen),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
