/* See try.h: the comparison, on one and on two threads, with post-operations. SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/onednn/try.h"

static double post_apply(const struct kernel_post *p, double x, double other)
{
    switch (p->kind) {
    case KERNEL_POST_RELU: return x > 0 ? x : 0;
    case KERNEL_POST_LEAKY_RELU: return x < 0 ? (double)p->alpha * x : x;
    case KERNEL_POST_CLIP: return fmin(fmax(x, (double)p->alpha), (double)p->beta);
    case KERNEL_POST_SIGMOID: return 1 / (1 + exp(-x));
    case KERNEL_POST_SILU: return x / (1 + exp(-x));
    case KERNEL_POST_HARD_SIGMOID: return fmax(0, fmin(1, (double)p->alpha * x + (double)p->beta));
    case KERNEL_POST_HARD_SWISH: return x * fmax(0, fmin(1, x / 6 + 0.5));
    case KERNEL_POST_TANH: return tanh(x);
    case KERNEL_POST_ELU: return x < 0 ? (double)p->alpha * (exp(x) - 1) : x;
    case KERNEL_POST_ADD: return x + other;
    case KERNEL_POST_SCALE: return x * other;
    }
    return NAN;
}

const struct kernel_post TRY_POSTS[TRY_POST_COUNT] = {
    {.kind = KERNEL_POST_RELU},
    {.kind = KERNEL_POST_LEAKY_RELU, .alpha = 0.1f},
    {.kind = KERNEL_POST_CLIP, .alpha = 0, .beta = 6},
    {.kind = KERNEL_POST_SIGMOID},
    {.kind = KERNEL_POST_SILU},
    {.kind = KERNEL_POST_HARD_SIGMOID, .alpha = 1.0f / 6, .beta = 0.5f},
    {.kind = KERNEL_POST_HARD_SWISH},
    {.kind = KERNEL_POST_TANH},
    {.kind = KERNEL_POST_ELU, .alpha = 0.7f},
    {.kind = KERNEL_POST_ADD},
    {.kind = KERNEL_POST_SCALE},
};

void try_draw_posts(struct try_case *c, uint64_t *seed, int which)
{
    int n = which < 0 ? 1 : try_below(seed, 3);
    for (int i = 0; i < n; i++) {
        struct kernel_post p = TRY_POSTS[which < 0 ? -1 - which : try_below(seed, TRY_POST_COUNT)];
        if (p.kind == KERNEL_POST_ADD) {
            bool twice = false;
            for (int k = 0; k < i; k++) twice |= c->q.post[k].kind == KERNEL_POST_ADD;
            if (twice) continue;
            p.input = c->q.n_in;
            c->in[c->q.n_in++] = try_tensor(c->out.shape.rank, c->out.shape.dims, seed);
        }
        if (p.kind == KERNEL_POST_SCALE && i > 0) continue; /* always the first */
        if (p.kind == KERNEL_POST_SCALE) {
            bool rows = c->q.node->kind == OP_GEMM || c->q.node->kind == OP_MATMUL;
            int64_t dims[TENSOR_MAX_RANK] = {c->out.shape.dims[rows ? c->out.shape.rank - 1 : 1]};
            for (int k = 1; k < c->out.shape.rank - 1; k++) dims[k] = 1;
            p.input = c->q.n_in;
            c->constant[c->q.n_in] = true;
            c->in[c->q.n_in++] = try_tensor(rows ? 1 : c->out.shape.rank - 1, dims, seed);
        }
        c->q.post[c->q.n_post++] = p;
    }
}

/* The expected numbers after post-operations. */
static void apply_posts(const struct try_case *c, double *want)
{
    int64_t n = tensor_count(&c->out.shape), channels = 1, inner = 1;
    bool rows = c->q.node->kind == OP_GEMM || c->q.node->kind == OP_MATMUL;
    if (c->out.shape.rank > 1) channels = c->out.shape.dims[rows ? c->out.shape.rank - 1 : 1];
    for (int i = 2; i < c->out.shape.rank && !rows; i++) inner *= c->out.shape.dims[i];
    for (int i = 0; i < c->q.n_post; i++) {
        const struct kernel_post *p = &c->q.post[i];
        const float *other = kernel_post_reads(p) ? c->in[p->input].data : NULL;
        bool scale = p->kind == KERNEL_POST_SCALE;
        for (int64_t k = 0; k < n; k++) want[k] = post_apply(p, want[k], other ? (double)other[scale ? k / inner % channels : k] : 0);
    }
}

void try_done(struct try_case *c)
{
    for (int i = 0; i < c->q.n_in; i++) free(c->in[i].data);
    free(c->out.data);
}

/* oneDNN promises nothing here. Seen: where sums are split over the threads (instance norm, anything by gemm), and
 * in 2 of 400 convolutions by brgconv, both below 20,000 operations. Anything else is a surprise that we want to
 * hear of. */
static void other_bits(const struct try_case *c, const float *a, const float *b, int64_t n, const char *what)
{
    bool known =
        c->q.node->kind == OP_INSTANCE_NORM || strstr(c->impl, "gemm") || (c->q.node->kind == OP_CONV && n <= 1000);
    if (!known) fail_msg("%s (%s): other bits on two threads", what, c->impl);
    for (int64_t i = 0; i < n; i++) assert_true(fabsf(a[i] - b[i]) <= 2e-6f * (1 + fabsf(a[i])));
}

/* Runs on one and on two threads; both must be near `want` and have the same bits. False if no class takes it.
 * Frees want. */
bool try_check(struct try_case *c, struct mem_payer *payer, double *want, double tolerance, const char *what)
{
    int64_t n = tensor_count(&c->out.shape);
    float *first = xnewn(float, (size_t)n);
    const struct kernel_class *class = c->class;
    apply_posts(c, want);
    for (int threads = 1; threads <= 2; threads++) {
        c->q.threads = threads;
        c->class = class;
        err e = try_run(c, payer);
        if (e == ERR_UNSUPPORTED) {
            free(first);
            free(want);
            return false;
        }
        if (e) fail_msg("%s: %s", what, err_text());
        const float *got = c->out.data;
        for (int64_t i = 0; i < n; i++)
            if (!(fabs((double)got[i] - want[i]) <= tolerance * (1 + fabs(want[i]))))
                fail_msg("%s (%s): number %lld of %lld is %g, not %g", what, c->impl, (long long)i, (long long)n,
                         (double)got[i], want[i]);
        if (threads == 1)
            memcpy(first, got, (size_t)n * sizeof *got);
        else if (memcmp(first, got, (size_t)n * sizeof *got))
            other_bits(c, first, got, n, what);
    }
    free(first);
    free(want);
    return true;
}

void try_must(struct try_case *c, struct mem_payer *payer, double *want, double tolerance, const char *what)
{
    if (!try_check(c, payer, want, tolerance, what)) fail_msg("%s: no class takes it: %s", what, err_text());
}
