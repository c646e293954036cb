/* Inside the zoo: a network under construction. Any failure is kept in `e`, and what follows does nothing, so that the networks read like
 * their papers. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>

#include "graph/zoo.h"

struct zoo {
    struct graph *g;
    uint64_t seed;
    err e;
    int count;  /* names nodes */
    float eps;  /* of batch normalisation; 0: 1e-5 */
};
typedef void zoo_fn(struct zoo *z, const struct graph_zoo_options *o, int variant);

struct zoo_entry {
    const char *name;
    zoo_fn *make;
    int variant;
};
/* A file's networks, ended by a NULL name. */
extern const struct zoo_entry zoo_classifiers[], zoo_inceptions[], zoo_mobiles[], zoo_yolos[], zoo_crops[], zoo_ssds[], zoo_transformers[], zoo_others[];

static inline int zoo_classes(const struct graph_zoo_options *o, int own)
{
    return o->classes > 0 ? o->classes : own;
}

static inline int zoo_side(const struct graph_zoo_options *o, int own)
{
    return o->size > 0 ? o->size : own;
}

struct zoo_conv {
    int out, kernel, stride, pad, group; /* 0: 1 x 1, stride 1, no padding, 1 group */
    int kernel_w, pad_w;                 /* where the kernel is not square */
    int dilation;
    bool norm, bias;
    enum op_kind act; /* OP_NONE: none. OP_CLIP is ReLU6, OP_LEAKY_RELU has 0.1, OP_HARD_SIGMOID is PyTorch's */
};

enum zoo_filling { ZOO_BELL, ZOO_UNIFORM, ZOO_ZERO, ZOO_ONE };
/* The bytes come from the seed and the name; what ends in "fixed" is never trained. */
int zoo_constant(struct zoo *z, const char *what, struct tensor_shape shape, enum zoo_filling how, float scale);
int zoo_node(struct zoo *z, enum op_kind kind, const int *in, int n_in, struct tensor_shape shape);
struct graph_node *zoo_last(struct zoo *z); /* only while z->e is 0 */
struct tensor_shape zoo_shape(const struct zoo *z, int value);

void zoo_too_small(struct zoo *z);
int zoo_input(struct zoo *z, int channels, int height, int width);
int zoo_channels(const struct zoo *z, int value);
int zoo_conv(struct zoo *z, int x, struct zoo_conv c);
int zoo_act(struct zoo *z, int x, enum op_kind kind);
/* The newest node, a convolution with a bias: its weights times `gain`, its bias all `bias`. Returns x. */
int zoo_start(struct zoo *z, int x, float gain, float bias);
int zoo_norm(struct zoo *z, int x);
int zoo_add(struct zoo *z, int a, int b);
/* Names and seeds of what follows are as without it. A ratio of 0 is a place where `brim train --dropout P` drops. */
int zoo_dropout(struct zoo *z, int x, float ratio);
int zoo_concat(struct zoo *z, const int *xs, int n);
int zoo_max_pool(struct zoo *z, int x, int kernel, int stride, int pad, bool ceil);
int zoo_avg_pool_to(struct zoo *z, int x, int side); /* adaptive: 1 is global; else the input's side must be a multiple */
int zoo_avg_pool(struct zoo *z, int x, int kernel, int stride, int pad); /* padding counts */
int zoo_mul(struct zoo *z, int a, int b); /* b may be one number per channel, [1, C, 1, 1] */
int zoo_reshape(struct zoo *z, int x, struct tensor_shape to); /* a size of -1 in `to` is written so, and taken to be 1 x what is left */
int zoo_transpose(struct zoo *z, int x, const int *order);
int zoo_slice(struct zoo *z, int x, int axis, int64_t from, int64_t to, int64_t step);
int zoo_pad_channels(struct zoo *z, int x, int each_side); /* zeros */
/* One number. */
int zoo_number(struct zoo *z, float v);
int zoo_count(struct zoo *z, int n); /* 0, 1 ... n - 1 as int64 */
int zoo_flatten(struct zoo *z, int x);
int zoo_linear(struct zoo *z, int x, int out);
int zoo_upsample2(struct zoo *z, int x);
void zoo_output(struct zoo *z, int x, const char *name);
/* H and W of a value. */
void zoo_sides(const struct zoo *z, int value, int64_t *ret_h, int64_t *ret_w);
