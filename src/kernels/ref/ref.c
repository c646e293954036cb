/* The kernel class "ref": plain C behind the contract of kernel.h, and plain C at once (kernels_ref_run).
 *
 * A state is a copy of the query's types, sizes and strides; run() adds the addresses and calls the
 * operator's function. Post-ops run as one more pass over output 0. Nothing is packed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"
#include "tensor/small.h"

#include <stdio.h>
#include <stdlib.h>

struct ref_state {
    struct ref_call call; /* in and out point to `tensors` */
    const struct ref_op *op;
    size_t scratch;
    int n_post, n_in; /* n_in: with the inputs of post-ops */
    struct kernel_post post[KERNEL_MAX_POST];
    char words[48];
    struct tensor tensors[];
};

static bool takes(uint8_t types, enum tensor_dtype t)
{
    if (t == TENSOR_NONE) return true;
    if (!tensor_dtype_size(t)) return false;
    if (tensor_dtype_is_small(t)) return types & REF_TYPE_SMALL;
    return types & (tensor_dtype_is_float(t) ? REF_TYPE_FLOAT
                    : t == TENSOR_BOOL       ? REF_TYPE_BOOL
                                             : REF_TYPE_INT);
}

static const struct ref_op *find(const struct op_node *n, const struct tensor *in, int n_in,
                                 const struct tensor *out, int n_out)
{
    const struct ref_op *op = ref_op_find(n->kind);
    if (!op || n_in > KERNEL_MAX_IN || n_out > KERNEL_MAX_OUT || n_out < 1) return NULL;
    for (int i = 0; i < n_in; i++)
        if (in[i].dtype != TENSOR_NONE && !tensor_dtype_size(in[i].dtype)) return NULL;
    for (int i = 0; i < n_out; i++)
        if (out[i].dtype != TENSOR_NONE && !tensor_dtype_size(out[i].dtype)) return NULL;
    return n_in == 0 || takes(op->types, in[0].dtype) ? op : NULL;
}

/* What flows in bf16 over weights in f32 is for kernels that pack the weights. */
static bool mixes_types(const struct kernel_query *q)
{
    enum op_kind k = q->node->kind;
    if (k != OP_CONV && k != OP_CONV_TRANSPOSE && k != OP_GEMM && k != OP_MATMUL) return false;
    return q->n_in > 1 && (q->in[1].dtype != q->in[0].dtype || q->out[0].dtype != q->in[0].dtype);
}

static bool accepts(const struct kernel_query *q)
{
    if (mixes_types(q)) return false;
    if (!find(q->node, q->in, q->node->n_in, q->out, q->n_out)) return false;
    return q->n_post == 0 || tensor_dtype_is_float(q->out[0].dtype);
}

static void layouts(const struct kernel_query *q, struct kernel_layouts *ret)
{
    enum kernel_layout l = ref_op_find(q->node->kind)->layout;
    for (int i = 0; i < q->n_in; i++) {
        /* only images have channels: weights, scales and indices stay as they are */
        bool image = i == 0 || i >= q->node->n_in || q->node->kind == OP_CONV_GRAD_WEIGHT || q->node->kind == OP_MAX_POOL_GRAD;
        ret->in[i] = l == KERNEL_LAYOUT_CHANNELS_LAST && !image ? KERNEL_LAYOUT_ROW_MAJOR : l;
        if (i >= q->node->n_in) ret->in[i] = KERNEL_LAYOUT_ANY;
    }
    for (int i = 0; i < q->n_out; i++)
        ret->out[i] = q->node->kind == OP_CONV_GRAD_WEIGHT ? KERNEL_LAYOUT_ROW_MAJOR : l;
}

static err prepare(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    (void)payer;
    struct ref_state *s = xcalloc(1, sizeof *s + (size_t)(q->n_in + q->n_out) * sizeof s->tensors[0]);
    s->op = ref_op_find(q->node->kind);
    s->n_in = q->n_in;
    for (int i = 0; i < q->n_in; i++) {
        s->tensors[i] = q->in[i];
        if (q->in[i].data) tensor_strides_row_major(&q->in[i].shape, s->tensors[i].strides);
    }
    for (int i = 0; i < q->n_out; i++)
        s->tensors[q->n_in + i] = q->out[i];
    s->call = (struct ref_call){.node = q->node,
                                .n_in = q->node->n_in,
                                .n_out = q->n_out,
                                .in = s->tensors,
                                .out = s->tensors + q->n_in};
    s->n_post = q->n_post;
    for (int i = 0; i < q->n_post; i++)
        s->post[i] = q->post[i];
    s->scratch = s->op->scratch ? s->op->scratch(&s->call) : 0;
    snprintf(s->words, sizeof s->words, "plain C%s", q->n_post ? ", then a pass for post-ops" : "");
    *ret = (struct kernel_state *)s;
    return ERR_OK;
}

static size_t weight_bytes(const struct kernel_state *s, int input)
{
    (void)s;
    (void)input;
    return 0;
}

static err pack(struct kernel_state *s, int input, const void *src, void *dst)
{
    (void)s;
    (void)src;
    (void)dst;
    return err_set(ERR_INTERNAL, "plain C packs nothing, but was asked for input %d", input);
}

static const char *weight_format(const struct kernel_state *s, int input)
{
    (void)s;
    (void)input;
    return "raw";
}

static size_t scratch_bytes(const struct kernel_state *state)
{
    return ((const struct ref_state *)state)->scratch;
}

static size_t code_bytes(const struct kernel_state *s)
{
    (void)s;
    return 0;
}

static const char *describe(const struct kernel_state *state)
{
    return ((const struct ref_state *)state)->words;
}

static err run(struct kernel_state *state, const struct kernel_buffers *b)
{
    struct ref_state *s = (struct ref_state *)state;
    struct ref_call c = s->call;
    for (int i = 0; i < s->n_in; i++)
        s->tensors[i].data = (void *)(uintptr_t)b->in[i];
    for (int i = 0; i < c.n_out; i++)
        c.out[i].data = b->out[i];
    struct tensor_shape kept[KERNEL_MAX_OUT]; /* a bounded shape becomes exact in this run only */
    for (int i = 0; i < c.n_out; i++)
        kept[i] = c.out[i].shape;
    c.scratch = b->scratch;
    c.scratch_left = s->scratch;
    err e = s->op->run(&c);
    if (!e && s->n_post) ref_post(&c.out[0], s->n_post, s->post, s->tensors);
    for (int i = 0; i < c.n_out; i++) {
        if (!e && b->out_shape[i]) *b->out_shape[i] = c.out[i].shape;
        c.out[i].shape = kept[i];
    }
    return e;
}

static void free_state(struct kernel_state **s)
{
    free(*s);
    *s = NULL;
}

const struct kernel_class kernels_ref_class = {
    .name = "ref",
    .accepts = accepts,
    .layouts = layouts,
    .prepare = prepare,
    .weight_bytes = weight_bytes,
    .pack = pack,
    .weight_format = weight_format,
    .scratch_bytes = scratch_bytes,
    .code_bytes = code_bytes,
    .describe = describe,
    .run = run,
    .free = free_state,
};

err kernels_ref_run(const struct op_node *n, const struct tensor *in, int n_in, struct tensor *out, int n_out)
{
    const struct ref_op *op = find(n, in, n_in, out, n_out);
    if (!op)
        return err_set(ERR_UNSUPPORTED, "plain C has no %s of %s", op_name(n->kind),
                       n_in ? tensor_dtype_name(in[0].dtype) : "nothing");
    struct ref_call c = {.node = n, .n_in = n_in, .n_out = n_out, .in = in, .out = out};
    c.scratch_left = op->scratch ? op->scratch(&c) : 0;
    void *scratch = NULL;
    if (c.scratch_left && posix_memalign(&scratch, 64, c.scratch_left))
        return err_set(ERR_NOMEM, "%s: no memory for %zu bytes of scratch", op_name(n->kind), c.scratch_left);
    c.scratch = scratch;
    err e = op->run(&c);
    free(scratch);
    return e;
}
