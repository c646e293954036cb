/* Whole jobs on pictures made here (CIFAR's layout, a colour per class): it learns, what is stopped at any update and resumed gives the same files, a process killed
 * at any moment goes on to the same files, wrong input is refused and nothing is overwritten. SPDX-License-Identifier: Apache-2.0 */
#include "train/checkpoint.h"
#include "train/curves.h"
#include "train/job.h"
#include "video/encode.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
static void write_net(const char *path, int classes, bool fc_first)
{
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "graph");
    struct graph *g = graph_new("net", 13, p);
    struct graph_node *n;
    struct tensor_shape four = {.rank = 1, .dims = {4}};
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 3, SIDE, SIDE}});
    int first[2] = {0}, w;
    if (fc_first) { /* as files of folded networks list them: what was not folded comes first */
        first[0] = constant(g, "fc.weight", (struct tensor_shape){.rank = 2, .dims = {4, classes}}, 0.7f);
        first[1] = constant(g, "fc.bias", (struct tensor_shape){.rank = 1, .dims = {classes}}, 0);
    }
    w = constant(g, "conv.weight", (struct tensor_shape){.rank = 4, .dims = {4, 3, 4, 4}}, 0.8f);
    int y = node(g, OP_CONV, "conv", (int[]){x, w}, 2, &n);
    graph_set_ints(n, "strides", (int64_t[]){4, 4}, 2);
    int bn[] = {y, constant(g, "bn.scale", four, 1), constant(g, "bn.bias", four, 0), constant(g, "bn.mean", four, 0.01f), constant(g, "bn.var", four, 1)};
    y = node(g, OP_BATCH_NORM, "bn", bn, 5, NULL);
    y = node(g, OP_RELU, "relu", &y, 1, NULL);
    y = node(g, OP_GLOBAL_AVERAGE_POOL, "mean", &y, 1, NULL);
    y = node(g, OP_FLATTEN, "flat", &y, 1, NULL);
    int gemm[] = {y, fc_first ? first[0] : constant(g, "fc.weight", (struct tensor_shape){.rank = 2, .dims = {4, classes}}, 0.7f),
                  fc_first ? first[1] : constant(g, "fc.bias", (struct tensor_shape){.rank = 1, .dims = {classes}}, 0)};
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
    write_net(net, CLASSES, false);
    write_net(wide, 7, false);
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
        usleep((useconds_t)(20000 + 12000 * rounds + (rounds > 40 ? 1000 << (rounds - 40) : 0))); /* a slow machine is given its minutes in the end */
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
    /* the last ones are those that are read last, wherever the file has them */
    char *turned = in_dir("turned.onnx");
    write_net(turned, CLASSES, true);
    o = options(&p, "frozen2");
    o.model = turned;
    o.freeze_but = 2;
    o.epochs = 1;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
    assert_int_equal(r.sizes.parameters, 4 * CLASSES + CLASSES);
    free(turned);
    done(&p);
    o = options(&p, "frozen3");
    o.freeze = (const char *const[]){"conv.", "bm."};
    o.n_freeze = 2;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    if (!strstr(err_text(), "--freeze bm.: no name of what could be trained begins so; they are like 'bn.scale'")) fail_msg("%s", err_text());
    o.freeze = (const char *const[]){"conv.", "bn."};
    o.epochs = 1;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
    assert_int_equal(r.sizes.tensors, 2);
    done(&p);
}

static void copy_file(const char *from, const char *to)
{
    char *command = xasprintf("mkdir -p \"$(dirname '%s')\" && cp '%s' '%s'", to, from, to);
    assert_int_equal(system(command), 0);
    free(command);
}

/* Two classes as folders of pictures; the second's name is of Latin-1, as old disks have them. */
static char *write_folders(const char *name, const char *second)
{
    char *data = in_dir("data.bin"), *folder = in_dir(name);
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(b, "test");
    struct video_jpeg *j = video_jpeg_new(payer, 95);
    uint8_t rgb[3 * SIDE * SIDE];
    for (int i = 0; i < 24; i++) {
        const uint8_t *bytes;
        size_t n;
        for (int k = 0; k < 3 * SIDE * SIDE; k++) rgb[k] = (uint8_t)(40 + (k * 7 + i * 13) % 60 + (k % 3 == i % 2) * 120);
        assert_int_equal(video_jpeg_encode(j, rgb, 3 * SIDE, SIDE, SIDE, &bytes, &n), ERR_OK);
        char *path = xasprintf("%s/%s/%d.jpg", folder, i % 2 ? second : "a", i);
        copy_file(data, path); /* makes the folders */
        FILE *f = fopen(path, "wbe");
        assert_non_null(f);
        assert_int_equal(fwrite(bytes, 1, n, f), n);
        assert_int_equal(fclose(f), 0);
        free(path);
    }
    video_jpeg_free(&j);
    mem_payer_free(&payer);
    mem_budget_free(&b);
    free(data);
    return folder;
}

/* Names that are no UTF-8: the job ends, and goes on. Afterwards a class has another name: its numbers would stand for something else. */
static void names_of_classes(void **state)
{
    (void)state;
    struct paths p;
    struct train_result r;
    char *folder = write_folders("latin", "caf\xe9"), *model;
    struct train_job_options o = options(&p, "latin-out");
    o.data = folder;
    o.arguments = (const char *const[]){"--data", "caf\xe9/\xc3\xa9"};
    o.n_arguments = 2;
    o.folder = "/caf\xe9";
    o.epochs = 2;
    o.max_steps = 1;
    if (train_job(&o, NULL, NULL, &r) != ERR_CANCELLED) fail_msg("%s", err_text());
    o.max_steps = 0;
    o.resume = true;
    char **arguments, *begun;
    int n;
    assert_int_equal(train_job_arguments(p.out, &arguments, &n, &begun), ERR_OK);
    assert_int_equal(n, 2);
    assert_string_equal(arguments[0], "--data");
    assert_string_equal(arguments[1], "caf\xe9/\xc3\xa9");
    assert_string_equal(begun, "/caf\xe9");
    free(begun);
    free(arguments[0]);
    free(arguments[1]);
    free(arguments);
    char *from = xasprintf("%s/caf\xe9", folder), *to = xasprintf("%s/Zoo", folder);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    if (!strstr(err_text(), "it is not the data that the job began with: class 1 of 2 was 'a', now it is 'Zoo' of 2")) fail_msg("%s", err_text());
    assert_int_equal(rename(to, from), 0);
    if (train_job(&o, NULL, NULL, &r)) fail_msg("%s", err_text());
    assert_int_equal(r.epochs, 2);
    model = xasprintf("%s/last.brim", p.out);
    char *exported = in_dir("latin.onnx");
    if (train_export(model, exported, true)) fail_msg("%s", err_text());
    free(exported);
    free(model);
    free(from);
    free(to);
    free(folder);
    done(&p);
}

struct epochs {
    int n, seen[32];
    double lr[32];
};

static void note(void *user, const struct train_progress *p)
{
    struct epochs *e = user;
    if (p->epoch_done && e->n < 32) e->seen[e->n] = p->epoch, e->lr[e->n++] = p->lr;
}

/* Data that grew or shrank while the job stood still (a box's events): each epoch is told once, and the rate falls to where it should. */
static void data_of_another_size(void **state)
{
    (void)state;
    for (int grown = 0; grown < 2; grown++) {
        struct paths p;
        struct train_result r;
        struct epochs first = {0}, rest = {0};
        char *other = in_dir("other.bin"), *path = in_dir("data.bin"), *command;
        struct train_job_options o = options(&p, grown ? "grown" : "shrunk");
        o.data = other;
        copy_file(path, other);
        o.max_steps = 6 * 3 + 4; /* 12 batches of 8 an epoch, two of them an update: in the fourth */
        assert_int_equal(train_job(&o, note, &first, &r), ERR_CANCELLED);
        assert_int_equal(first.n, 3);
        command = grown ? xasprintf("cat '%s' '%s' >> '%s'", path, path, other) : xasprintf("head -c %d '%s' > '%s'", (3 * SIDE * SIDE + 1) * PICTURES / 4, path, other);
        assert_int_equal(system(command), 0);
        free(command);
        o.max_steps = 0;
        o.resume = true;
        if (train_job(&o, note, &rest, &r)) fail_msg("%s", err_text());
        assert_int_equal(rest.n, 5);
        for (int i = 0; i < 5; i++) assert_int_equal(rest.seen[i], 4 + i);
        for (int i = 1; i < 5; i++) assert_true(rest.lr[i] < rest.lr[i - 1] && rest.lr[i] > 0);
        assert_true(rest.lr[0] < first.lr[2] && rest.lr[4] < 0.1 * o.lr);
        assert_int_equal(r.epochs, 8);
        free(other);
        free(path);
        done(&p);
    }
}

static err inner; /* of a second job in the same folder */

static void meddle(void *user, const struct train_progress *p)
{
    const struct train_job_options *o = user;
    struct train_job_options again = *o;
    struct train_result r;
    if (p->epoch_done || p->step != 2) return;
    again.resume = p->epoch == 2; /* the same command again, or what goes on with it */
    inner = train_job(&again, NULL, NULL, &r);
    assert_non_null(strstr(err_text(), "another job is at work in it"));
}

/* One job in a folder at a time; what killed writers left goes, other files stay; a model is not written over. */
static void folder_of_its_own(void **state)
{
    (void)state;
    struct paths p;
    struct train_result r;
    struct train_job_options o = options(&p, "busy");
    const struct { const char *name; bool goes; } files[] = {{"best.onnx.123.part", true}, {"77-last.brim", true}, {"last.onnx.9.part", true}, {"model.onnx.9.part", true},
                                                             {"best.onnx.part", false}, {"mine.onnx.5.part", false}, {"best.onnx.5.parts", false}};
    char *net = in_dir("net.onnx");
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char *path = xasprintf("%s/%s", p.out, files[i].name);
        copy_file(net, path);
        free(path);
    }
    o.epochs = 2;
    inner = ERR_OK;
    if (train_job(&o, meddle, &o, &r)) fail_msg("%s", err_text());
    assert_int_equal(inner, ERR_BUSY);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char *path = xasprintf("%s/%s", p.out, files[i].name);
        if ((access(path, F_OK) != 0) != files[i].goes) fail_msg("%s", files[i].name);
        free(path);
    }
    o.resume = true; /* free again */
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
    done(&p);
    o = options(&p, "own");
    char *own = in_dir("own/model.onnx");
    copy_file(net, own);
    o.model = own;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    if (!strstr(err_text(), "own/model.onnx: the job writes its own model.onnx there; take another --out")) fail_msg("%s", err_text());
    char *command = xasprintf("cmp '%s' '%s'", net, own);
    assert_int_equal(system(command), 0);
    free(command);
    free(own);
    o.model = p.model;
    o.size = SIDE;
    o.epochs = 1;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK); /* what the file says, too */
    done(&p);
    o = options(&p, "sized");
    o.size = 64;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    if (!strstr(err_text(), "net.onnx: its input is [1, 3, 32, 32]; --size 64 is for networks by name")) fail_msg("%s", err_text());
    free(net);
    done(&p);
}

static void in_the_way(void *user, const struct train_progress *p)
{
    if (p->epoch == 2 && !p->epoch_done) {
        char *last = xasprintf("%s/last.brim", (const char *)user);
        unlink(last);
        mkdir(last, 0700); /* nothing can be renamed to it */
        free(last);
    }
}

/* One epoch makes no line: its dots are what there is to see. Without a score there is no right axis. */
static void one_epoch(const char *path)
{
    struct train_curves c = {0};
    unsigned char *text;
    size_t n;
    int dots = 0;
    train_curves_add(&c, &(struct train_point){1, 8, 2.5, 0.1, 2.25, 0.25, 1});
    assert_int_equal(train_curves_write(&c, dir, "top1"), ERR_OK);
    assert_int_equal(weights_fs_get(&weights_fs_system, path, 1 << 20, &text, &n), ERR_OK);
    assert_non_null(strstr((const char *)text, ">0</text>"));
    assert_non_null(strstr((const char *)text, ">top-1</text>"));
    free(text);
    c.points[0].score = NAN;
    assert_int_equal(train_curves_write(&c, dir, "top1"), ERR_OK);
    train_curves_done(&c);
    assert_int_equal(weights_fs_get(&weights_fs_system, path, 1 << 20, &text, &n), ERR_OK);
    for (const char *at = (const char *)text; (at = strstr(at, "<circle ")); at++) dots++;
    assert_int_equal(dots, 2);
    assert_null(strstr((const char *)text, "top-1"));
    free(text);
}

/* A job that dies between the files of an epoch loses no line of its curves; scores above 1 are drawn inside the picture. */
static void curves(void **state)
{
    (void)state;
    struct paths p;
    struct train_result r;
    struct train_job_options o = options(&p, "curves");
    assert_int_equal(train_job(&o, in_the_way, p.out, &r), ERR_IO);
    struct train_curves c = {0};
    train_curves_read(&c, p.out, 8);
    assert_int_equal(c.n, 2);
    train_curves_done(&c);
    done(&p);
    struct train_curves db = {0};
    for (int i = 0; i < 4; i++) train_curves_add(&db, &(struct train_point){i + 1, i, 1.0 / (i + 1), 0.1, NAN, 20 + 2 * i, 1});
    assert_int_equal(train_curves_write(&db, dir, "psnr"), ERR_OK);
    train_curves_done(&db);
    char *path = in_dir("curves.svg");
    unsigned char *text;
    size_t n;
    assert_int_equal(weights_fs_get(&weights_fs_system, path, 1 << 20, &text, &n), ERR_OK);
    const char *green = strstr((const char *)text, "#2ca02c"), *points = green ? strstr(green, "points=\"") : NULL;
    double x, y;
    int used, drawn = 0;
    assert_non_null(points);
    for (points += 8; sscanf(points, "%lf,%lf %n", &x, &y, &used) == 2; points += used, drawn++) assert_true(y >= 0 && y <= 360);
    assert_int_equal(drawn, 4);
    static const char *const said[] = {">26</text>", ">0.4</text>", ">4</text>", ">epoch</text>", ">loss (logarithmic)</text>", ">PSNR, dB</text>"}; /* round numbers, and what they are */
    for (size_t i = 0; i < ARRAY_LEN(said); i++) assert_non_null(strstr((const char *)text, said[i]));
    assert_null(strstr((const char *)text, "held-out")); /* there was no such loss */
    free(text);
    one_epoch(path);
    free(path);
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
        cmocka_unit_test(names_of_classes),
        cmocka_unit_test(data_of_another_size),
        cmocka_unit_test(folder_of_its_own),
        cmocka_unit_test(curves),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
