/* The gradient of a convolution's weights in parts, one for each thread: of some of the output channels, where there are many; else of some of the pictures, and
 * then their sum. (What is smaller is moved: the results' gradient, or gradients of all weights.)
 *
 * oneDNN's own code for it in bf16 has threads that wait for each other many times in a loop, which lasts a time slice where one of them has lost its processor
 * (training is what gives way), so it runs on one thread. Here each thread runs such a primitive on its part, and they meet at the end.
 *
 * Sums are in the order of the parts, so the bits depend on the number of threads, which a job keeps, and on nothing else. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/backward.h"
#include "kernels/onednn/engine.h"
#include "kernels/own/conv.h"

enum { MOST_PARTS = 16, LEAST_FLOPS = 4000000 }; /* per part: below that a second thread is not worth waking */

struct kernel_state {
    struct mem_payer *payer;
    int parts, n_out;
    bool channels;                     /* parts are of output channels; else of pictures */
    struct kernel_state *part[MOST_PARTS];
    size_t step[2], scratch;           /* from a part's results and pictures to the next part's; bytes of one part's run */
    int64_t numbers[2];                /* of the gradient of weights, and of the bias' */
};

static size_t round64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

static int64_t flops_of(const struct kernel_query *q)
{
    const struct tensor_shape *w = &q->out[0].shape;
    return 2 * (tensor_count(w) / MAX(w->dims[0], 1)) * tensor_count(&q->in[0].shape);
}

static bool by_channels(const struct kernel_query *q)
{
    enum { BLOCK = 16 }; /* of channels, as oneDNN has them */
    return op_attr_int(q->node, "group", 1) == 1 && q->out[0].shape.dims[0] % (BLOCK * q->threads) == 0 &&
           tensor_count(&q->in[0].shape) < 2 * tensor_count(&q->out[0].shape);
}

static bool accepts(const struct kernel_query *q)
{
    if (q->node->kind != OP_CONV_GRAD_WEIGHT || q->threads < 2 || q->threads > MOST_PARTS || q->n_post || !onednn_train_conv.accepts(q)) return false;
    int64_t n = q->in[0].shape.dims[0];
    return n == q->in[1].shape.dims[0] && (by_channels(q) || n % q->threads == 0) && flops_of(q) >= q->threads * (int64_t)LEAST_FLOPS && onednn_halves_pay(q);
}

static void layouts(const struct kernel_query *q, struct kernel_layouts *ret)
{
    onednn_train_conv.layouts(q, ret);
}

static void state_free(struct kernel_state **sp)
{
    struct kernel_state *s = *sp;
    if (!s) return;
    for (int i = 0; i < s->parts; i++)
        if (s->part[i]) onednn_train_conv.free(&s->part[i]);
    mem_release(s->payer, MEM_CODE, sizeof *s);
    free(s);
    *sp = NULL;
}

static err parts_new(struct kernel_state *s, const struct kernel_query *q)
{
    struct tensor in[2] = {q->in[0], q->in[1]}, out[2] = {q->out[0], s->n_out > 1 ? q->out[1] : (struct tensor){0}};
    struct kernel_query part = *q;
    part.in = in;
    part.out = out;
    part.n_in = 2;
    part.n_out = s->n_out;
    part.threads = 1;
    for (int k = 0; k < 2; k++) {
        if (s->channels && k == 1) break;
        in[k].shape.dims[s->channels ? 1 : 0] /= s->parts;
        s->step[k] = (size_t)(s->channels ? in[k].shape.dims[1] : tensor_count(&in[k].shape)) * tensor_dtype_size(in[k].dtype);
    }
    for (int k = 0; k < s->n_out; k++) {
        if (s->channels) out[k].shape.dims[0] /= s->parts;
        s->numbers[k] = tensor_count(&out[k].shape);
    }
    err e = ERR_OK;
    for (int i = 0; i < s->parts && !e; i++) {
        e = onednn_train_conv.prepare(&part, s->payer, &s->part[i]);
        if (!e) s->scratch = MAX(s->scratch, round64(onednn_train_conv.scratch_bytes(s->part[i])));
    }
    return e;
}

static err prepare(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    if (!onednn_is_last(&q->in[0]) || !onednn_is_last(&q->in[1]) || !tensor_is_row_major(&q->out[0])) return err_set(ERR_UNSUPPORTED, "own split wants channels-last");
    err e = mem_charge(payer, MEM_CODE, sizeof(struct kernel_state));
    if (e) return e;
    struct kernel_state *s = xnew(struct kernel_state);
    s->payer = payer;
    s->parts = q->threads;
    s->n_out = q->n_out > 1 && q->out[1].dtype ? 2 : 1;
    s->channels = by_channels(q);
    e = parts_new(s, q);
    if (e) state_free(&s);
    else *ret = s;
    return e;
}

static size_t gradient_bytes(const struct kernel_state *s)
{
    size_t bytes = 0;
    for (int i = 0; i < s->n_out; i++) bytes += round64((size_t)s->numbers[i] * sizeof(float));
    return bytes;
}

/* All parts' scratch; of pictures, the gradients of all parts but the first, too, which is the output itself. */
static size_t scratch_bytes(const struct kernel_state *s)
{
    return (size_t)s->parts * s->scratch + (s->channels ? 0 : (size_t)(s->parts - 1) * gradient_bytes(s));
}

static float *gradient_of(const struct kernel_state *s, const struct kernel_buffers *b, int part, int out)
{
    if (part == 0 || s->channels) return (float *)b->out[out] + (s->channels ? part * s->numbers[out] : 0);
    char *at = (char *)b->scratch + (size_t)s->parts * s->scratch + (size_t)(part - 1) * gradient_bytes(s);
    return (float *)(void *)(at + (out ? round64((size_t)s->numbers[0] * sizeof(float)) : 0));
}

struct work {
    struct kernel_state *s;
    const struct kernel_buffers *b;
    err e[MOST_PARTS];
};

static void run_part(void *arg, int thread, int threads)
{
    struct work *w = arg;
    for (int i = thread; i < w->s->parts; i += threads) { /* a team may come out smaller than was asked for */
        struct kernel_buffers b = *w->b;
        for (int k = 0; k < 2; k++) b.in[k] = (const char *)w->b->in[k] + (size_t)i * w->s->step[k];
        for (int k = 0; k < w->s->n_out; k++) b.out[k] = gradient_of(w->s, w->b, i, k);
        b.scratch = (char *)w->b->scratch + (size_t)i * w->s->scratch;
        w->e[i] = onednn_train_conv.run(w->s->part[i], &b);
    }
}

static void add_parts(void *arg, int thread, int threads)
{
    struct work *w = arg;
    for (int k = 0; k < w->s->n_out; k++) {
        int64_t from, to;
        float *sum = w->b->out[k];
        own_share(w->s->numbers[k], thread, threads, &from, &to);
        for (int p = 1; p < w->s->parts; p++) {
            const float *more = gradient_of(w->s, w->b, p, k);
            for (int64_t i = from; i < to; i++) sum[i] += more[i];
        }
    }
}

static err run(struct kernel_state *s, const struct kernel_buffers *b)
{
    struct work w = {.s = s, .b = b};
    own_team(s->parts, run_part, &w);
    for (int i = 0; i < s->parts; i++)
        if (w.e[i]) return w.e[i];
    if (!s->channels) own_team(s->parts, add_parts, &w);
    return ERR_OK;
}

static size_t code_bytes(const struct kernel_state *s)
{
    size_t bytes = sizeof *s;
    for (int i = 0; i < s->parts; i++) bytes += onednn_train_conv.code_bytes(s->part[i]);
    return bytes;
}

static const char *describe(const struct kernel_state *s)
{
    return onednn_train_conv.describe(s->part[0]);
}

extern const struct kernel_class own_split_conv; /* named by list.c */
const struct kernel_class own_split_conv = {.name = "own:split_conv",
                                            .accepts = accepts,
                                            .layouts = layouts,
                                            .prepare = prepare,
                                            .scratch_bytes = scratch_bytes,
                                            .code_bytes = code_bytes,
                                            .describe = describe,
                                            .run = run,
                                            .free = state_free};
