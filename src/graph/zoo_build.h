/* Inside the zoo: a network under construction. Any failure is kept in `e`, and what follows does nothing, so that the networks read like
 * their papers. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/zoo.h"

struct zoo {
    struct graph *g;
    uint64_t seed;
    err e;
    int count; /* names nodes */
};

struct zoo_conv {
    int out, kernel, stride, pad, group; /* 0: 1 x 1, stride 1, no padding, 1 group */
    bool norm, bias;
    enum op_kind act; /* OP_NONE: none. OP_CLIP is ReLU6, OP_LEAKY_RELU has 0.1 */
};

int zoo_input(struct zoo *z, int channels, int height, int width);
int zoo_channels(const struct zoo *z, int value);
int zoo_conv(struct zoo *z, int x, struct zoo_conv c);
int zoo_act(struct zoo *z, int x, enum op_kind kind);
int zoo_add(struct zoo *z, int a, int b);
int zoo_concat(struct zoo *z, const int *xs, int n);
int zoo_max_pool(struct zoo *z, int x, int kernel, int stride, int pad, bool ceil);
int zoo_avg_pool_to(struct zoo *z, int x, int side); /* adaptive: 1 is global; else the input's side must be a multiple */
int zoo_flatten(struct zoo *z, int x);
int zoo_linear(struct zoo *z, int x, int out);
int zoo_upsample2(struct zoo *z, int x);
void zoo_output(struct zoo *z, int x, const char *name);
/* H and W of a value. */
void zoo_sides(const struct zoo *z, int value, int64_t *ret_h, int64_t *ret_w);
