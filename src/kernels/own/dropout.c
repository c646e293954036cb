/* The kernel contract for DropoutBy (kernels/dropout.h): x and y lie as their elements are counted. Results do not depend on the number of threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "kernels/dropout.h"
#include "kernels/onednn/engine.h"
#include "kernels/onednn/state.h"
#include "kernels/own/conv.h"

struct kernel_state {
    const struct op_node *node;
    const struct own_lanes *lanes;
    struct mem_payer *payer;
    int64_t n;
    int threads;
    bool x_half, y_half;
};

static bool accepts(const struct kernel_query *q)
{
    if (q->node->kind != OP_DROPOUT_BY || !own_lanes() || q->n_post || q->n_in != 2 || q->n_out != 1 || q->in[1].dtype != TENSOR_I64) return false;
    return onednn_takes_half(&q->in[0]) && onednn_takes_half(&q->out[0]);
}

static bool last(const struct kernel_query *q)
{
    return op_attr_int(q->node, "channels_last", 0) && q->in[0].shape.rank >= 3;
}

static void layouts(const struct kernel_query *q, struct kernel_layouts *ret)
{
    ret->in[0] = ret->out[0] = last(q) ? KERNEL_LAYOUT_CHANNELS_LAST : KERNEL_LAYOUT_ROW_MAJOR;
    ret->in[1] = KERNEL_LAYOUT_ROW_MAJOR;
}

static err prepare(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    const struct tensor *x = &q->in[0], *y = &q->out[0];
    bool lies = last(q) ? onednn_is_last(x) && onednn_is_last(y) : tensor_is_row_major(x) && tensor_is_row_major(y);
    if (!lies || !tensor_is_row_major(&q->in[1])) return err_set(ERR_UNSUPPORTED, "own dropout wants its numbers to lie as they are counted");
    err e = mem_charge(payer, MEM_CODE, sizeof(struct kernel_state));
    if (e) return e;
    struct kernel_state *s = xnew(struct kernel_state);
    int64_t n = tensor_count(&x->shape);
    *s = (struct kernel_state){.node = q->node, .lanes = own_lanes(), .payer = payer, .n = n, .threads = onednn_threads_for((double)n, q->threads),
                               .x_half = x->dtype == TENSOR_BF16, .y_half = y->dtype == TENSOR_BF16};
    *ret = s;
    return ERR_OK;
}

static void member(void *arg, int thread, int threads)
{
    const struct own_dropout_call *k = arg;
    k->run(k, thread, threads);
}

static err run(struct kernel_state *s, const struct kernel_buffers *b)
{
    struct kernel_dropout d = kernel_dropout_of(s->node, b->in[1]);
    struct own_dropout_call k = {.d = &d, .n = s->n, .x = b->in[0], .y = b->out[0], .x_half = s->x_half, .y_half = s->y_half, .run = s->lanes->dropout};
    if (d.all)
        memset(b->out[0], 0, (size_t)s->n * (s->y_half ? 2 : 4));
    else
        own_team(s->threads, member, &k);
    return ERR_OK;
}

static size_t scratch_bytes(const struct kernel_state *s)
{
    (void)s;
    return 0;
}

static size_t code_bytes(const struct kernel_state *s)
{
    return sizeof *s;
}

static const char *describe(const struct kernel_state *s)
{
    return s->lanes->lanes == 16 ? "avx512" : "avx2";
}

static void state_free(struct kernel_state **s)
{
    if (!*s) return;
    mem_release((*s)->payer, MEM_CODE, sizeof **s);
    free(*s);
    *s = NULL;
}

extern const struct kernel_class own_dropout; /* named by list.c */
const struct kernel_class own_dropout = {.name = "own:dropout",
                                         .accepts = accepts,
                                         .layouts = layouts,
                                         .prepare = prepare,
                                         .scratch_bytes = scratch_bytes,
                                         .code_bytes = code_bytes,
                                         .describe = describe,
                                         .run = run,
                                         .free = state_free};
