/* Tensors that several models of a store share. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "weights/store.h"

struct model_share_report {
    size_t models, tensors;      /* models that share anything; different tensors that two or more of them have */
    uint64_t bytes, saved_bytes; /* of those tensors, each once; what holding them once saves beside a copy for each model */
    size_t changed;              /* models that got a new version because their marks changed */
};
/* Marks in each of these models (NULL: all of the store) every tensor that another of them has, bit for bit, and takes all other marks away. From then
 * on nothing private is folded into a marked tensor when it is packed, and equal ones are held once in memory, however small. A model shares if at least
 * one of its tensors of MODEL_SHARE_LEAST bytes is in another; what is smaller (norms) is marked beside it. Only models whose marks changed get a new
 * version, one after the other: a death in between leaves models that are right and share less. */
enum { MODEL_SHARE_LEAST = 2048 };
err model_share(struct weights_store *s, const char *const *names, size_t n, struct model_share_report *ret);

/* Per tensor of m: a list "b, c" of current models of the store with the same tensor, which is marked there and here; else NULL. Free each and the
 * array. */
err model_share_names(struct weights_store *s, const struct weights_manifest *m, char ***ret);

struct graph;
/* Marks the graph's constants by name as the manifest does. */
void model_share_mark(struct graph *g, const struct weights_manifest *m);
/* Marks of `old` for `m`, if both are the same otherwise. */
void model_share_keep(struct weights_manifest *m, const struct weights_manifest *old);
