/* The kernel contract for what runs over memory (flat.inc): sums and products of two tensors, gradients of activations and
 * Concat in any layout, softmax of short rows, instance normalisation of few channels. What oneDNN has good code for (long rows, many channels) is left to it. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/engine.h"
#include "kernels/onednn/state.h"
#include "kernels/own/conv.h"

struct kernel_state {
    struct own_flat f;
    const struct own_lanes *lanes;
    struct mem_payer *payer;
    int threads, late;
    size_t moments;
};

static err state_new(const struct own_flat *f, double ns, const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    err e = mem_charge(payer, MEM_CODE, sizeof(struct kernel_state));
    if (e) return e;
    struct kernel_state *s = xnew(struct kernel_state);
    s->f = *f;
    s->lanes = own_lanes();
    s->payer = payer;
    s->threads = onednn_threads_for(ns, q->threads);
    s->late = -1;
    *ret = s;
    return ERR_OK;
}

/* ---- two tensors */

static bool is_half(const struct tensor *t)
{
    return t->dtype == TENSOR_BF16;
}

/* One output; f32 and bf16 in it and in the first `n` inputs; nothing added after it. */
static bool takes_halves(const struct kernel_query *q, int n)
{
    if (q->n_in < n || q->n_out != 1 || !onednn_takes_half(&q->out[0])) return false;
    for (int i = 0; i < q->n_post; i++)
        if (kernel_post_reads(&q->post[i])) return false;
    for (int i = 0; i < n; i++)
        if (!onednn_takes_half(&q->in[i])) return false;
    return true;
}

/* What is all bf16, with nothing after it, is oneDNN's; what is all f32 is looked at elsewhere. */
static bool takes_mixture(const struct kernel_query *q, int n)
{
    bool same = !q->n_post || !is_half(&q->out[0]);
    for (int i = 0; i < n && i < q->n_in; i++) same &= q->in[i].dtype == q->out[0].dtype;
    return !same && takes_halves(q, n);
}

static bool accepts_binary(const struct kernel_query *q)
{
    enum op_kind k = q->node->kind;
    if ((k != OP_ADD && k != OP_SUB && k != OP_MUL && k != OP_DIV) || !own_lanes() || onednn_own_inputs(q) != 2) return false;
    if (q->n_in == 2 && takes_mixture(q, 2)) return q->out[0].shape.rank >= 1;
    if (onednn_scales(q) || !onednn_takes_all(q)) return false;
    int adds = 0;
    for (int i = 0; i < q->n_post; i++) adds += q->post[i].kind == KERNEL_POST_ADD;
    return adds <= 1 && q->out[0].shape.rank >= 1;
}

static void layouts_any(const struct kernel_query *q, struct kernel_layouts *ret)
{
    for (int i = 0; i < q->n_in; i++) ret->in[i] = KERNEL_LAYOUT_ANY;
    ret->out[0] = KERNEL_LAYOUT_ANY;
}

static int64_t stride_of(const struct tensor *t, int rank, int axis)
{
    int own = axis - (rank - t->shape.rank);
    return own < 0 || t->shape.dims[own] == 1 ? 0 : t->strides[own];
}

/* The axes of two inputs and an output, as the output lies. */
static err axes_of(const struct kernel_query *q, struct own_flat *f)
{
    const struct tensor *y = &q->out[0];
    int rank = y->shape.rank, order[TENSOR_MAX_RANK], n = 0;
    int64_t strides[TENSOR_MAX_RANK];
    if (tensor_span(y) != tensor_count(&y->shape)) return err_set(ERR_UNSUPPORTED, "own kernel wants a dense output");
    for (int i = 0; i < rank; i++) {
        int k = n;
        if (y->shape.dims[i] == 1) continue;
        for (; k > 0 && y->strides[order[k - 1]] < y->strides[i]; k--) order[k] = order[k - 1];
        order[k] = i;
        n++;
    }
    for (int i = 0; i < n; i++) {
        int64_t d = y->shape.dims[order[i]], a = stride_of(&q->in[0], rank, order[i]), b = stride_of(&q->in[1], rank, order[i]);
        int l = f->n_axes - 1;
        if (l >= 0 && strides[l] == y->strides[order[i]] * d && f->a[l] == a * d && f->b[l] == b * d) {
            f->dims[l] *= d;
        } else {
            f->dims[++l] = d;
            f->n_axes++;
        }
        f->a[l] = a;
        f->b[l] = b;
        strides[l] = y->strides[order[i]];
    }
    if (!f->n_axes) f->dims[f->n_axes++] = 1;
    return ERR_OK;
}

static err prepare_binary(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    struct own_flat f = {.kind = q->node->kind, .a_half = is_half(&q->in[0]), .b_half = is_half(&q->in[1]), .y_half = is_half(&q->out[0])};
    err e = axes_of(q, &f);
    if (e) return e;
    f.post.n_post = q->n_post;
    memcpy(f.post.post, q->post, sizeof q->post);
    e = onednn_posts_lie_like_output(q);
    if (!e) e = state_new(&f, 0.3 * (double)tensor_count(&q->out[0].shape), q, payer, ret);
    for (int i = 0; i < q->n_post && !e; i++)
        if (q->post[i].kind == KERNEL_POST_ADD) (*ret)->late = q->post[i].input;
    return e;
}

static void member(void *arg, int thread, int threads)
{
    const struct own_flat_call *k = arg;
    k->run(k, thread, threads);
}

static err run_binary(struct kernel_state *s, const struct kernel_buffers *b)
{
    struct own_flat_call k = {.f = &s->f, .a = b->in[0], .b = b->in[1], .y = b->out[0], .late = s->late >= 0 ? b->in[s->late] : NULL,
                              .run = s->lanes->binary};
    own_team(s->threads, member, &k);
    return ERR_OK;
}

/* ---- gradients of activations: dy, and what the slope is a function of */

static enum op_kind kind_of(const struct kernel_query *q)
{
    const char *name = op_attr_string(q->node, "of", "");
    enum op_kind k = op_find("", name);
    if (k == OP_NONE) k = op_find("brim", name);
    switch (k) {
    case OP_RELU:
    case OP_LEAKY_RELU:
    case OP_CLIP:
    case OP_SIGMOID:
    case OP_TANH:
    case OP_HARD_SIGMOID:
    case OP_HARD_SWISH:
    case OP_SILU:
    case OP_GELU: return k;
    default: return OP_NONE;
    }
}

static bool accepts_gradient(const struct kernel_query *q)
{
    return q->node->kind == OP_UNARY_GRAD && own_lanes() && !q->n_post && q->n_in == 2 && takes_halves(q, 2) && kind_of(q) != OP_NONE && q->out[0].shape.rank >= 1;
}

static err prepare_gradient(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    enum op_kind of = kind_of(q);
    struct own_flat f = {.kind = OP_UNARY_GRAD, .of = of, .beta = op_attr_float(q->node, "beta", 0.5f), .a_half = is_half(&q->in[0]),
                         .b_half = is_half(&q->in[1]), .y_half = is_half(&q->out[0]),
                         .by_tanh = !strcmp(op_attr_string(q->node, "approximate", "none"), "tanh")};
    f.alpha = op_attr_float(q->node, "alpha", of == OP_HARD_SIGMOID ? 0.2f : of == OP_LEAKY_RELU ? 0.01f : 1);
    err e = axes_of(q, &f);
    return e ? e : state_new(&f, 0.3 * (double)tensor_count(&q->out[0].shape), q, payer, ret);
}

/* ---- functions of one number, from one type to the other */

static bool function_of(const struct kernel_query *q, struct kernel_post *ret)
{
    const struct op_node *n = q->node;
    switch (n->kind) {
    case OP_RELU: *ret = (struct kernel_post){.kind = KERNEL_POST_RELU}; return true;
    case OP_LEAKY_RELU: *ret = (struct kernel_post){.kind = KERNEL_POST_LEAKY_RELU, .alpha = op_attr_float(n, "alpha", 0.01f)}; return true;
    case OP_SIGMOID: *ret = (struct kernel_post){.kind = KERNEL_POST_SIGMOID}; return true;
    case OP_SILU: *ret = (struct kernel_post){.kind = KERNEL_POST_SILU}; return true;
    case OP_HARD_SWISH: *ret = (struct kernel_post){.kind = KERNEL_POST_HARD_SWISH}; return true;
    case OP_HARD_SIGMOID:
        *ret = (struct kernel_post){.kind = KERNEL_POST_HARD_SIGMOID, .alpha = op_attr_float(n, "alpha", 0.2f), .beta = op_attr_float(n, "beta", 0.5f)};
        return true;
    default: return false;
    }
}

static bool accepts_function(const struct kernel_query *q)
{
    struct kernel_post p;
    return own_lanes() && !q->n_post && q->n_in == 1 && takes_mixture(q, 1) && function_of(q, &p) && q->out[0].shape.rank >= 1;
}

static err prepare_function(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    struct own_flat f = {.kind = OP_IDENTITY, .a_half = is_half(&q->in[0]), .y_half = is_half(&q->out[0]), .post = {.n_post = 1}};
    function_of(q, &f.post.post[0]);
    struct tensor twice[] = {q->in[0], q->in[0]};
    struct kernel_query pair = *q;
    pair.in = twice;
    err e = axes_of(&pair, &f);
    return e ? e : state_new(&f, 0.4 * (double)tensor_count(&q->out[0].shape), q, payer, ret);
}

/* ---- concat */

static bool accepts_concat(const struct kernel_query *q)
{
    return q->node->kind == OP_CONCAT && own_lanes() && !q->n_post && onednn_takes_all(q) && q->out[0].shape.rank >= 1;
}

static err prepare_concat(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    const struct tensor *y = &q->out[0];
    int rank = y->shape.rank, order[TENSOR_MAX_RANK];
    int64_t axis = op_attr_int(q->node, "axis", 1), start = 0;
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank || tensor_span(y) != tensor_count(&y->shape)) return err_set(ERR_UNSUPPORTED, "own concat wants a dense output");
    for (int i = 0; i < rank; i++) {
        int k = i;
        for (; k > 0 && y->strides[order[k - 1]] < y->strides[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    struct own_part *parts = xcalloc((size_t)q->n_in, sizeof *parts);
    for (int i = 0; i < q->n_in; i++) {
        const struct tensor *x = &q->in[i];
        struct own_part *p = &parts[i];
        p->start = start * y->strides[axis];
        start += x->shape.dims[axis];
        for (int k = 0; k < rank; k++) {
            int64_t d = x->shape.dims[order[k]], from = x->strides[order[k]], to = y->strides[order[k]];
            int l = p->n_axes - 1;
            if (d == 1) continue;
            if (l >= 0 && p->from[l] == from * d && p->to[l] == to * d) {
                p->dims[l] *= d;
            } else {
                p->dims[++l] = d;
                p->n_axes++;
            }
            p->from[l] = from;
            p->to[l] = to;
        }
        if (!p->n_axes || p->to[p->n_axes - 1] != 1) { /* a single number, or one of each row */
            p->dims[p->n_axes] = p->from[p->n_axes] = p->to[p->n_axes] = 1;
            p->n_axes++;
        }
    }
    struct own_flat f = {.kind = OP_CONCAT, .n = q->n_in, .parts = parts};
    err e = state_new(&f, 0.3 * (double)tensor_count(&y->shape), q, payer, ret);
    if (e) free(parts);
    return e;
}

static err run_concat(struct kernel_state *s, const struct kernel_buffers *b)
{
    struct own_flat_call k = {.f = &s->f, .in = b->in, .y = b->out[0], .run = s->lanes->concat};
    own_team(s->threads, member, &k);
    return ERR_OK;
}

/* ---- softmax */

/* The axis, or -1. Before opset 13 it means all axes from there on. */
static int softmax_axis(const struct kernel_query *q)
{
    int64_t axis = op_attr_int(q->node, "axis", q->node->opset < 13 ? 1 : -1);
    int rank = q->in[0].shape.rank;
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank || (q->node->opset < 13 && axis != rank - 1)) return -1;
    return (int)axis;
}

static bool by_channel(const struct kernel_query *q)
{
    return softmax_axis(q) == 1 && q->in[0].shape.rank > 2;
}

static bool accepts_softmax(const struct kernel_query *q)
{
    if (q->node->kind != OP_SOFTMAX || !own_lanes() || q->n_post || q->n_in != 1 || !onednn_takes_all(q)) return false;
    int axis = softmax_axis(q), rank = q->in[0].shape.rank;
    if (axis < 0 || (axis != rank - 1 && !by_channel(q))) return false;
    return q->in[0].shape.dims[axis] >= 2 && q->in[0].shape.dims[axis] <= OWN_SOFTMAX_ROW;
}

static void layouts_softmax(const struct kernel_query *q, struct kernel_layouts *ret)
{
    if (by_channel(q))
        onednn_layouts_last(q, ret);
    else
        onednn_layouts_rows(q, ret);
}

static err prepare_softmax(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    const struct tensor *x = &q->in[0], *y = &q->out[0];
    bool lies = by_channel(q) ? onednn_is_last(x) && onednn_is_last(y) : tensor_is_row_major(x) && tensor_is_row_major(y);
    if (!lies) return err_set(ERR_UNSUPPORTED, "own softmax wants its axis to lie densely");
    struct own_flat f = {.kind = OP_SOFTMAX, .c = x->shape.dims[softmax_axis(q)]};
    f.rows = tensor_count(&x->shape) / f.c;
    return state_new(&f, (double)tensor_count(&x->shape), q, payer, ret);
}

static err run_softmax(struct kernel_state *s, const struct kernel_buffers *b)
{
    struct own_flat_call k = {.f = &s->f, .a = b->in[0], .y = b->out[0], .run = s->lanes->softmax};
    own_team(s->threads, member, &k);
    return ERR_OK;
}

/* ---- instance normalisation */

static bool accepts_norm(const struct kernel_query *q)
{
    if (q->node->kind != OP_INSTANCE_NORM || !own_lanes() || q->n_post || q->n_in != 3 || !onednn_takes_all(q)) return false;
    const struct tensor_shape *x = &q->in[0].shape;
    if (x->rank < 3 || x->dims[1] > OWN_NORM_CHANNELS) return false;
    for (int i = 1; i < 3; i++)
        if (q->in[i].shape.rank != 1 || q->in[i].shape.dims[0] != x->dims[1]) return false;
    return true;
}

static err prepare_norm(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    const struct tensor_shape *x = &q->in[0].shape;
    if (!onednn_is_last(&q->in[0]) || !onednn_is_last(&q->out[0])) return err_set(ERR_UNSUPPORTED, "own instance norm wants channels-last");
    struct own_flat f = {.kind = OP_INSTANCE_NORM, .n = x->dims[0], .c = x->dims[1], .epsilon = op_attr_float(q->node, "epsilon", 1e-5f)};
    f.rows = tensor_count(x) / f.n / f.c;
    err e = state_new(&f, 0.3 * (double)tensor_count(x), q, payer, ret);
    if (!e) (*ret)->moments = (size_t)(f.n * ((f.rows + OWN_NORM_BLOCK - 1) / OWN_NORM_BLOCK) * 2 * f.c) * sizeof(double);
    return e;
}

static err run_norm(struct kernel_state *s, const struct kernel_buffers *b)
{
    struct own_flat_call k = {.f = &s->f, .a = b->in[0], .b = b->in[1], .shift = b->in[2], .y = b->out[0], .moments = b->scratch,
                              .run = s->lanes->norm_measure};
    own_team(s->threads, member, &k);
    k.run = s->lanes->norm_apply;
    own_team(s->threads, member, &k);
    return ERR_OK;
}

/* ---- the rest of the contract */

static size_t scratch_bytes(const struct kernel_state *s)
{
    return s->moments;
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
    free((*s)->f.parts);
    free(*s);
    *s = NULL;
}

extern const struct kernel_class own_binary, own_function, own_concat, own_softmax, own_norm, own_gradient; /* named by list.c */
#define CLASS(word, layouts_)                                                                                          \
    const struct kernel_class own_##word = {.name = "own:" #word,                                                      \
                                            .accepts = accepts_##word,                                                 \
                                            .layouts = layouts_,                                                       \
                                            .prepare = prepare_##word,                                                 \
                                            .scratch_bytes = scratch_bytes,                                            \
                                            .code_bytes = code_bytes,                                                  \
                                            .describe = describe,                                                      \
                                            .run = run_##word,                                                         \
                                            .free = state_free}
#define run_gradient run_binary
#define run_function run_binary
CLASS(binary, layouts_any);
CLASS(gradient, layouts_any);
CLASS(function, layouts_any);
CLASS(concat, layouts_any);
CLASS(softmax, layouts_softmax);
CLASS(norm, onednn_layouts_last);
