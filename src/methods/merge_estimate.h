/* What several models could share at best, without training: layers of equal architecture.
 *
 * GEMEL (Padmanabhan et al., NSDI 2023) lets models share the weights of layers that have the same architecture, after joint retraining. How
 * much memory that can save is known before any training: a layer is a Conv, ConvTranspose, Gemm or MatMul with constant weights; two layers are of
 * one group if operator, element type, sizes of weights and bias and every attribute are equal. A group that occurs n[i] times in
 * member i is stored sum(n[i]) times now and max(n[i]) times if all of it were shared, because two layers of one model stay two layers.
 *
 *     merge_estimate_add(m, "door", graph) ...; merge_estimate_finish(m); then read, merge_estimate_json, merge_draw_svg
 *
 * All bytes are those of weights and biases as the file has them. Equal numbers, which the store holds once without any retraining, are counted
 * apart (`equal_bytes`, a part of `saved_bytes`). Subgraphs (If, Loop) are not looked into. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"

#include <jansson.h>

struct merge_layer {
    int group;      /* into groups, once finished */
    int nth;        /* the how manieth of its group in this member, from 0 */
    int value;      /* the weight's number in the member's graph */
    uint64_t bytes; /* weights and bias */
    uint64_t weight_bytes;
};
struct merge_estimated {
    char *name;
    uint64_t bytes;
    size_t n_layers, cap_layers;
    struct merge_layer *layers; /* in the order of execution */
};
struct merge_group {
    char *what;     /* "Conv 64x3x7x7 + bias, strides 2 2, pads 3 3 3 3" */
    uint64_t bytes; /* of one layer */
    uint64_t saved_bytes, equal_bytes;
    int *counts;    /* per member */
    int most, second; /* the two largest counts: saved_bytes is 0 if second is 0 */
};
struct merge_estimate {
    size_t n_members, cap_members, n_groups, cap_groups;
    struct merge_estimated *members;
    struct merge_group *groups; /* finished: by saved_bytes, largest first */
    uint64_t bytes, saved_bytes, equal_bytes;
    struct merge_numbers *numbers; /* inside: what the numbers are */
    size_t n_numbers, cap_numbers;
};

struct merge_estimate *merge_estimate_new(void);
void merge_estimate_free(struct merge_estimate **m);
/* A member, as read from its file; `g` is not needed afterwards. */
void merge_estimate_add(struct merge_estimate *m, const char *name, const struct graph *g);
/* Once, after the last member. */
void merge_estimate_finish(struct merge_estimate *m);
/* Of the sum of all members' bytes; 0 if there are none. */
double merge_estimate_share(const struct merge_estimate *m);
/* {members: [{name, layers, bytes}], bytes, saved_bytes, saved_share, equal_bytes, layers: [{layer, bytes, counts, saved_bytes, equal_bytes}]};
 * `layers` has the groups that occur in two members or more. */
json_t *merge_estimate_json(const struct merge_estimate *m);

/* merge_draw.c: the members as columns of layers (height: logarithm of the bytes), what can be shared in colour, one per group. free() it. */
struct merge_drawing { /* of a result */
    bool (*shared)(void *user, int member, int value); /* is this weight shared? */
    void *user;
    uint64_t saved_bytes;
};
char *merge_draw_svg(const struct merge_estimate *m, const struct merge_drawing *d /* NULL: of the estimate */);
