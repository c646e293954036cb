/* Shared primitives: oneDNN's compiled operators, one for all that are equal, reference counted, and paid for.
 *
 *     struct onednn_spec s = {.what = "conv", .desc = &cd, .desc_bytes = sizeof cd, ...};
 *     struct onednn_hold h;
 *     err e = onednn_hold(&s, payer, &h);       // h.prim->handle can be executed
 *     onednn_drop(&h);
 *
 * A hold must not move in memory while it is held. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <dnnl.h>

#include "kernels/kernel.h"

typedef dnnl_status_t onednn_make_fn(const void *desc, const_dnnl_primitive_attr_t attr, dnnl_engine_t engine,
                                     dnnl_primitive_desc_t *ret);

/* What is wanted. Equal bytes here give the same primitive, so `desc` must not hold pointers. */
struct onednn_spec {
    const char *what; /* "conv": for messages and for the key */
    const void *desc; /* an operation descriptor, or what `make` reads */
    size_t desc_bytes;
    onednn_make_fn
        *make; /* for the few operators without a descriptor (reorder); NULL: ask oneDNN in its order */
    int n_post;
    const struct kernel_post *post;
    const dnnl_memory_desc_t *dst; /* needed if there is a KERNEL_POST_ADD or KERNEL_POST_SCALE */
    bool window;                   /* a convolution: some implementations have to be avoided */
    bool sum;                      /* KERNEL_POST_ADD adds to what is in the output already, see state.c */
    int threads;
    int64_t flops; /* above ONEDNN_REF_FLOPS a reference implementation is refused; ONEDNN_NO_REF: always */
};
#define ONEDNN_REF_FLOPS 1000000
#define ONEDNN_NO_REF    INT64_MAX

struct onednn_prim {
    struct onednn_prim *next;
    uint64_t hash;
    size_t key_bytes;
    void *key;
    dnnl_primitive_t handle;
    const_dnnl_primitive_desc_t desc; /* borrowed from the handle */
    const char *impl;                 /* "brgconv:avx512_core"; lives as long as the handle */
    size_t bytes;                     /* code and bookkeeping, as measured */
    struct onednn_hold *holds;        /* the first one pays */
};
struct onednn_hold {
    struct onednn_prim *prim;
    struct mem_payer *payer;
    struct onednn_hold *next;
};

err onednn_hold(const struct onednn_spec *spec, struct mem_payer *payer, struct onednn_hold *ret);
/* Accepts a hold whose prim is NULL. */
void onednn_drop(struct onednn_hold *h);

/* One number per channel (axis 1) of such an output. */
dnnl_memory_desc_t onednn_channels_of(const dnnl_memory_desc_t *dst);
/* oneDNN's post-operation number of post[i] (one of ours can be two of theirs). */
int onednn_post_index(const struct kernel_post *post, int i);
/* Can oneDNN do these with the meaning that ONNX gives them? */
bool onednn_posts_known(const struct kernel_query *q);
/* Is there a KERNEL_POST_SCALE? */
bool onednn_scales(const struct kernel_query *q);
/* ERR_UNSUPPORTED where oneDNN would compute the second of two with the numbers of the first. */
err onednn_posts_distinct(const struct kernel_query *q);
