/* For tests of kernels of training: one run of a class as the planner would make it, against plain C in f32. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/onednn/try.h"

struct box {
    struct mem_budget *budget;
    struct mem_payer *payer;
    uint64_t seed;
    int taken, asked;
    unsigned half_in, half_out; /* bits of the inputs and outputs that lie as bf16; their numbers must be some that bf16 has */
    bool half;                  /* kernel_query.half */
    int least_threads;          /* 0: 1 */
};

static inline float bf16_at(const struct tensor *t, int64_t i)
{
    float v;
    if (t->dtype != TENSOR_BF16) return ((const float *)t->data)[i];
    uint32_t u = (uint32_t)((const uint16_t *)t->data)[i] << 16;
    memcpy(&v, &u, sizeof v);
    return v;
}

static inline void bf16_put(const struct tensor *t, int64_t i, float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    if (t->dtype == TENSOR_BF16) ((uint16_t *)t->data)[i] = (uint16_t)(u >> 16);
    else ((float *)t->data)[i] = v;
}

static inline void relay(const struct tensor *from, const struct tensor *to)
{
    int64_t at[TENSOR_MAX_RANK] = {0};
    int rank = from->shape.rank;
    for (int64_t left = tensor_count(&from->shape); left > 0; left--) {
        int64_t a = 0, b = 0;
        for (int i = 0; i < rank; i++) {
            a += at[i] * from->strides[i];
            b += at[i] * to->strides[i];
        }
        bf16_put(to, b, bf16_at(from, a));
        for (int i = rank - 1; i >= 0 && ++at[i] == from->shape.dims[i]; i--) at[i] = 0;
    }
}

static inline struct tensor laid(const struct tensor *t, enum kernel_layout layout)
{
    struct tensor r = *t;
    if (layout == KERNEL_LAYOUT_CHANNELS_LAST) tensor_strides_channels_last(&r.shape, r.strides);
    size_t bytes = ((size_t)tensor_count(&t->shape) * 4 + 127) / 64 * 64;
    r.data = aligned_alloc(64, bytes);
    memset(r.data, 0x7f, bytes);
    return r;
}

static inline struct tensor typed(const struct tensor *t, bool half)
{
    struct tensor r = *t;
    r.data = NULL;
    if (half) r.dtype = TENSOR_BF16;
    return r;
}

/* One run of `class`; false if it does not take it. */
static inline bool run_class(struct box *b, const struct kernel_class *class, const struct try_node *n, const struct tensor *in, int n_in, struct tensor *out,
                      int n_out, int n_post, const struct kernel_post *post, int threads)
{
    struct tensor ins[KERNEL_MAX_IN] = {{0}}, outs[8] = {{0}};
    struct kernel_layouts l = {0};
    struct kernel_query q = {.node = &n->op, .n_in = n_in, .n_out = n_out, .in = ins, .out = outs, .n_post = n_post, .threads = threads,
                             .half = b->half};
    struct kernel_state *state = NULL;
    struct kernel_buffers buffers = {0};
    for (int i = 0; i < n_post; i++) q.post[i] = post[i];
    for (int i = 0; i < n_in; i++) ins[i] = typed(&in[i], b->half_in >> i & 1);
    for (int i = 0; i < n_out; i++) outs[i] = typed(&out[i], b->half_out >> i & 1);
    if (!class->accepts(&q)) return false;
    class->layouts(&q, &l);
    for (int i = 0; i < n_in; i++) {
        ins[i] = laid(&ins[i], l.in[i]);
        relay(&in[i], &ins[i]);
        buffers.in[i] = ins[i].data;
        ins[i].data = NULL;
    }
    for (int i = 0; i < n_out; i++) {
        outs[i] = laid(&outs[i], l.out[i]);
        buffers.out[i] = outs[i].data;
        outs[i].data = NULL;
    }
    err e = class->prepare(&q, b->payer, &state);
    void *scratch = NULL;
    if (!e) {
        size_t bytes = (class->scratch_bytes(state) + 127) / 64 * 64;
        buffers.scratch = scratch = aligned_alloc(64, bytes);
        memset(scratch, 0x7f, bytes);
        for (int twice = 0; twice < 2 && !e; twice++) e = class->run(state, &buffers);
        if (e) fail_msg("%s", err_text());
        class->free(&state);
    }
    for (int i = 0; i < n_out; i++) {
        outs[i].data = buffers.out[i];
        if (!e) relay(&outs[i], &out[i]);
        free(outs[i].data);
    }
    for (int i = 0; i < n_in; i++) free((void *)(uintptr_t)buffers.in[i]);
    free(scratch);
    if (e && e != ERR_UNSUPPORTED) fail_msg("%s", err_text());
    return !e;
}

static inline void check(struct box *b, const struct kernel_class *class, const struct try_node *n, struct tensor *in, int n_in, struct tensor *out, int n_out,
                  const char *what)
{
    struct tensor want[8];
    for (int i = 0; i < n_out; i++) want[i] = tensor_view(TENSOR_F32, &out[i].shape, xcalloc((size_t)tensor_count(&out[i].shape) + 1, 4));
    if (kernels_ref_run(&n->op, in, n_in, want, n_out)) fail_msg("%s: %s", what, err_text());
    b->asked++;
    for (int threads = MAX(b->least_threads, 1); threads < 3; threads++) {
        if (!run_class(b, class, n, in, n_in, out, n_out, 0, NULL, threads)) break;
        b->taken += threads == MAX(b->least_threads, 1);
        for (int o = 0; o < n_out; o++) {
            double d = 0, most = 1e-3;
            for (int64_t i = 0; i < tensor_count(&out[o].shape); i++) {
                double w = (double)((float *)want[o].data)[i];
                double off = fabs((double)((float *)out[o].data)[i] - w);
                d = fmax(d, b->half_out >> o & 1 ? fmax(off - fabs(w) / 256, 0) : off); /* bf16 has 8 bits */
                most = fmax(most, fabs(w));
                if (isnan(((float *)out[o].data)[i])) d = INFINITY;
            }
            if (d > 2e-4 * most) fail_msg("%s: output %d differs by %g of %g on %d threads", what, o, d, most, threads);
        }
    }
    for (int i = 0; i < n_out; i++) free(want[i].data), free(out[i].data);
    for (int i = 0; i < n_in; i++) free(in[i].data);
}

static inline int set_up(void **state)
{
    struct box *b = xnew(struct box);
    b->budget = mem_budget_new("host", 512 << 20);
    b->payer = mem_payer_new(b->budget, "test");
    b->seed = 11;
    *state = b;
    return 0;
}

static inline int tear_down(void **state)
{
    struct box *b = *state;
    assert_int_equal(kernels_onednn_usage().primitives, 0);
    mem_payer_free(&b->payer);
    mem_budget_free(&b->budget);
    free(b);
    return 0;
}
