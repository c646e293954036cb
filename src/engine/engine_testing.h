/* What engine_test's site consists of: clips, and two networks whose answers can be told in advance. Inside the test.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"
#include "video/encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { W = 160, H = 96, FRAMES = 40, WIDE = 256 };

static void write_text(const char *dir, const char *name, const char *text)
{
    char *path = xasprintf("%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    free(path);
}

/* The right half is bright; with `moving`, a white block goes from left to right, 4 pixels a frame. */
static void write_clip(const char *dir, const char *name, int frames, bool moving)
{
    struct mem_budget *b = mem_budget_new("clip", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "clip");
    struct video_writer *w;
    char *path = xasprintf("%s/%s", dir, name);
    uint8_t *rgb = xcalloc(W * H, 3);
    assert_int_equal(
        video_writer_open(&(struct video_writer_options){.path = path, .w = W, .h = H, .fps = 10, .quality = 90}, p,
                          &w),
        ERR_OK);
    for (int i = 0; i < frames; i++) {
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                bool block = moving && x >= 4 * i - 20 && x < 4 * i + 4 && y >= 36 && y < 60;
                memset(rgb + (y * W + x) * 3, block ? 255 : x < W / 2 ? 40 : 200, 3);
            }
        assert_int_equal(video_writer_add(w, rgb, W * 3), ERR_OK);
    }
    assert_int_equal(video_writer_close(&w), ERR_OK);
    free(rgb);
    free(path);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static int floats(struct graph *g, const char *name, int rank, const int64_t *dims, float **ret)
{
    struct tensor_shape s = {.rank = rank};
    int v;
    memcpy(s.dims, dims, (size_t)rank * sizeof *dims);
    assert_int_equal(graph_add_constant(g, name, TENSOR_F32, &s, &v, (void **)ret), ERR_OK);
    return v;
}

static int node(struct graph *g, enum op_kind kind, const char *name, int n_in, const int *in, int rank,
                const int64_t *dims)
{
    struct tensor_shape s = {.rank = rank};
    memcpy(s.dims, dims, (size_t)rank * sizeof *dims);
    int out = graph_add_value(g, name, TENSOR_F32, &s);
    struct graph_node *n = graph_add_node(g, kind, name, n_in, 1);
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    n->op.out[0] = out;
    return out;
}

/* A 1 x 1 convolution; weight[0][0..from) are `first`, all else is 0. Bias: `values`, or 0. */
static int conv(struct graph *g, const char *name, int x, int from, int to, float first, const float *values,
                float **ret_weight)
{
    char text[64];
    float *w, *b;
    snprintf(text, sizeof text, "%s_w", name);
    int in[3] = {x, floats(g, text, 4, (int64_t[]){to, from, 1, 1}, &w)};
    snprintf(text, sizeof text, "%s_b", name);
    in[2] = floats(g, text, 1, (int64_t[]){to}, &b);
    for (int i = 0; i < from; i++)
        w[i] = first;
    if (values) memcpy(b, values, (size_t)to * sizeof *b);
    if (ret_weight) *ret_weight = w;
    return node(g, OP_CONV, name, 3, in, 4, (int64_t[]){1, to, 1, 1});
}

static int reshaped(struct graph *g, const char *name, int x, int rank, const int64_t *dims)
{
    int64_t *to;
    int shape;
    char text[64];
    snprintf(text, sizeof text, "%s_shape", name);
    struct tensor_shape s = {.rank = 1, .dims = {rank}};
    assert_int_equal(graph_add_constant(g, text, TENSOR_I64, &s, &shape, (void **)&to), ERR_OK);
    memcpy(to, dims, (size_t)rank * sizeof *dims);
    return node(g, OP_RESHAPE, name, 2, (int[]){x, shape}, rank, dims);
}

static void write_model(const char *dir, const char *name, bool detector, enum tensor_dtype input)
{
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "graph");
    struct graph *g = graph_new(name, 13, p);
    struct tensor_shape picture = {.rank = 4, .dims = {1, 3, 32, 32}};
    int x = graph_add_input(g, "image", input, &picture);
    float *w;
    x = node(g, OP_GLOBAL_AVERAGE_POOL, "mean", 1, &x, 4, (int64_t[]){1, 3, 1, 1});
    x = conv(g, "wide", x, 3, WIDE, 1.f / 3, NULL, NULL);
    x = node(g, OP_RELU, "relu", 1, &x, 4, (int64_t[]){1, WIDE, 1, 1});
    x = conv(g, "deep", x, WIDE, WIDE, 0, NULL, &w);
    w[0] = 1;
    x = node(g, OP_RELU, "relu2", 1, &x, 4, (int64_t[]){1, WIDE, 1, 1});
    if (detector) {
        int s = conv(g, "s", x, WIDE, 4, 0, (float[]){0.1f, 0.9f, 0.9f, 0.1f}, NULL);
        graph_add_output(g, reshaped(g, "scores", s, 3, (int64_t[]){1, 2, 2}));
        int k = conv(g, "k", x, WIDE, 8, 0, (float[]){0.5f, 0, 1, 1, 0.1f, 0.1f, 0.3f, 0.3f}, NULL);
        graph_add_output(g, reshaped(g, "boxes", k, 3, (int64_t[]){1, 2, 4}));
    } else { /* dark = 1 - mean, bright = mean */
        int c = conv(g, "c", x, WIDE, 2, 0, (float[]){1, 0}, &w);
        w[0] = -1;
        w[WIDE] = 1;
        graph_add_output(g, reshaped(g, "classes", c, 2, (int64_t[]){1, 2}));
    }
    char *path = xasprintf("%s/%s", dir, name);
    assert_int_equal(graph_save(g, path), ERR_OK);
    free(path);
    graph_free(&g);
    mem_payer_free(&p);
    mem_budget_free(&b);
}
