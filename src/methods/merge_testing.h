/* For tests of merging: small networks that tell colours apart, and their pictures (CIFAR's layout). Member k calls them in an order of its own.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"
#include "train/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { SIDE = 32, PICTURES = 120 };

static char *dir;

static inline char *in_dir(const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

static inline int constant(struct graph *g, const char *name, struct tensor_shape s, float size, uint64_t seed)
{
    float *f;
    int v;
    assert_int_equal(graph_add_constant(g, name, TENSOR_F32, &s, &v, (void **)&f), ERR_OK);
    for (int64_t i = 0; i < tensor_count(&s); i++) f[i] = size == 1 ? 1 : ((float)(hash64(&i, sizeof i, seed) >> 40) / (float)(1 << 24) - 0.5f) * size;
    return v;
}

static inline int node(struct graph *g, enum op_kind kind, const char *name, const int *in, int n_in, struct graph_node **ret)
{
    int y = graph_add_value(g, name, TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, kind, name, n_in, 1);
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    n->op.out[0] = y;
    if (ret) *ret = n;
    return y;
}

static inline int block(struct graph *g, const char *name, int x, int in, int kernel, uint64_t seed)
{
    char what[5][32];
    static const char *const parts[] = {"weight", "scale", "bias", "mean", "var"};
    struct tensor_shape eight = {.rank = 1, .dims = {8}};
    struct graph_node *n;
    for (int i = 0; i < 5; i++) snprintf(what[i], sizeof what[i], "%s.%s", name, parts[i]);
    int w = constant(g, what[0], (struct tensor_shape){.rank = 4, .dims = {8, in, kernel, kernel}}, 0.8f, seed);
    int y = node(g, OP_CONV, name, (int[]){x, w}, 2, &n);
    graph_set_ints(n, "strides", (int64_t[]){kernel, kernel}, 2);
    int bn[] = {y, constant(g, what[1], eight, 1, seed), constant(g, what[2], eight, 0, seed), constant(g, what[3], eight, 0.01f, seed), constant(g, what[4], eight, 1, seed)};
    y = node(g, OP_BATCH_NORM, "bn", bn, 5, NULL);
    return node(g, OP_RELU, "relu", &y, 1, NULL);
}

/* Two convolutions with batch norms, mean, Gemm. `kernel` of the first makes another architecture. */
static inline void write_net(const char *path, uint64_t seed, int kernel, int classes)
{
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "graph");
    struct graph *g = graph_new("net", 13, p);
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 3, SIDE, SIDE}});
    int y = block(g, "b", block(g, "a", x, 3, kernel, seed), 8, 1, seed + 50);
    y = node(g, OP_GLOBAL_AVERAGE_POOL, "mean", &y, 1, NULL);
    y = node(g, OP_FLATTEN, "flat", &y, 1, NULL);
    int gemm[] = {y, constant(g, "fc.weight", (struct tensor_shape){.rank = 2, .dims = {8, classes}}, 0.7f, seed + 100),
                  constant(g, "fc.bias", (struct tensor_shape){.rank = 1, .dims = {classes}}, 0, 0)};
    graph_add_output(g, node(g, OP_GEMM, "fc", gemm, 3, NULL));
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

/* Member k tells colours apart in its own order: class (colour + k) % 3. */
static inline void write_data(int k)
{
    char name[32];
    snprintf(name, sizeof name, "d%d.bin", k);
    char *path = in_dir(name);
    FILE *f = fopen(path, "wbe");
    assert_non_null(f);
    for (int i = 0; i < PICTURES; i++) {
        fputc((i + k) % 3, f);
        for (int c = 0; c < 3 * SIDE * SIDE; c++) fputc((int)(hash64(&(int[]){i, c, k}[0], 12, 1) % 100) + (c / (SIDE * SIDE) == i % 3 ? 100 : 30), f);
    }
    assert_int_equal(fclose(f), 0);
    free(path);
}

/* Trains dir/nK.onnx on dir/dK.bin; the result is dir/mK.onnx. */
static inline void train_net(int k, int kernel)
{
    char net[32], data[32], out[32], done[32];
    struct train_result r;
    snprintf(net, sizeof net, "n%d.onnx", k);
    snprintf(data, sizeof data, "d%d.bin", k);
    snprintf(out, sizeof out, "t%d", k);
    snprintf(done, sizeof done, "m%d.onnx", k);
    char *a = in_dir(net), *b = in_dir(data), *c = in_dir(out), *from = xasprintf("%s/last.onnx", c), *to = in_dir(done);
    write_net(a, (uint64_t)k + 1, kernel, 10);
    struct train_job_options o = {.task = TRAIN_CLASSIFY, .model = a, .data = b, .out = c, .held_out = 0.2, .epochs = 12, .batch = 8, .threads = 1, .lr = 0.02,
                                  .feed = {.mean = {80, 80, 80}, .scale = {0.01f, 0.01f, 0.01f}}, .optimiser = {.rule = TRAIN_ADAMW}, .schedule = TRAIN_COSINE};
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
    assert_int_equal(rename(from, to), 0);
    free(a);
    free(b);
    free(c);
    free(from);
    free(to);
}
