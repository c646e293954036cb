/* The kernel contract for brim's own convolutions: which are taken, what is kept of them, and the call.
 *
 * Winograd is taken where both numbers of channels are at least 8 and the weight is small: the transformed weight is four times as large, and
 * memory counts here as much as time. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/engine.h"
#include "kernels/onednn/state.h"
#include "kernels/own/conv.h"

enum { MAX_KERNEL = 16, WINOGRAD_MIN_WEIGHT = 144, WINOGRAD_MAX_WEIGHT = 128 * 128, WINOGRAD_MIN_TILES = 4, DEPTHWISE_MIN_WIDTH = 12 };

struct kernel_state {
    struct own_conv c;
    const struct own_lanes *lanes;
    const struct own_method *method;
    struct mem_payer *payer;
    bool has_bias;
    int threads, add, scale; /* add, scale: numbers of the inputs that are added and multiplied by, or -1 */
    char format[64];
    const char *describe;
};

/* Square strides and dilations; one group, or as many as channels. */
static bool geometry_any(const struct kernel_query *q, struct own_conv *ret, int64_t *ret_group)
{
    const struct op_node *n = q->node;
    struct op_window w;
    if (n->kind != OP_CONV || !onednn_takes_all(q) || onednn_own_inputs(q) < 2 || q->in[0].shape.rank != 4 || !q->in[1].data) return false;
    if (onednn_present(q, 2) && (q->in[2].shape.rank != 1 || q->in[2].shape.dims[0] != q->in[1].shape.dims[0])) return false;
    if (op_window(n, &q->in[0].shape, &q->in[1].shape, &w) || w.n != 2) return false;
    for (int i = 0; i < 2; i++)
        if (w.stride[i] != w.stride[0] || w.dilation[i] != w.dilation[0] || w.pad_begin[i] < 0 || w.pad_end[i] < 0 || w.kernel[i] > MAX_KERNEL || w.pad_begin[i] >= 4 * MAX_KERNEL)
            return false;
    int adds = 0;
    for (int i = 0; i < q->n_post; i++) adds += q->post[i].kind == KERNEL_POST_ADD;
    if (adds > 1) return false;
    for (int i = 1; i < q->n_post; i++)
        if (q->post[i].kind == KERNEL_POST_SCALE) return false; /* only first */
    const int64_t *x = q->in[0].shape.dims, *y = q->out[0].shape.dims;
    *ret = (struct own_conv){.n = x[0], .h = x[2], .w = x[3], .ic = x[1], .oc = y[1], .oh = y[2], .ow = y[3], .kh = w.kernel[0], .kw = w.kernel[1],
                             .top = w.pad_begin[0], .left = w.pad_begin[1], .stride = w.stride[0], .dilation = w.dilation[0], .n_post = q->n_post};
    *ret_group = w.group;
    memcpy(ret->post, q->post, sizeof ret->post);
    return true;
}

static bool geometry(const struct kernel_query *q, struct own_conv *ret)
{
    int64_t group;
    return geometry_any(q, ret, &group) && group == 1 && ret->stride == 1 && ret->dilation == 1 && ret->left < MAX_KERNEL;
}

/* [SCALE] [ADD] [RELU or CLIP] at the beginning. */
static void simple_posts(struct own_conv *c)
{
    int k = 0;
    if (k < c->n_post && c->post[k].kind == KERNEL_POST_SCALE) {
        c->scaled = true;
        k++;
    }
    if (k < c->n_post && c->post[k].kind == KERNEL_POST_ADD) {
        c->adds = true;
        k++;
    }
    if (k < c->n_post && (c->post[k].kind == KERNEL_POST_RELU || c->post[k].kind == KERNEL_POST_CLIP)) {
        bool clip = c->post[k].kind == KERNEL_POST_CLIP;
        c->bounded = true;
        c->low = clip ? c->post[k].alpha : 0;
        c->high = clip ? c->post[k].beta : INFINITY;
        k++;
    }
    c->n_simple = k;
}

static bool accepts_winograd(const struct kernel_query *q)
{
    struct own_conv c;
    if (!own_lanes() || !geometry(q, &c) || c.kh != 3 || c.kw != 3) return false;
    return c.ic >= 8 && c.oc >= 8 && c.ic * c.oc >= WINOGRAD_MIN_WEIGHT && c.ic * c.oc <= WINOGRAD_MAX_WEIGHT && c.n * ((c.oh + 3) / 4) * ((c.ow + 3) / 4) >= WINOGRAD_MIN_TILES;
}

static bool accepts_narrow(const struct kernel_query *q)
{
    struct own_conv c;
    if (!own_lanes() || !geometry(q, &c)) return false;
    return c.oc <= 4 && c.kh * c.kw > 1 && c.ow >= 32 && c.kh * c.ic * c.w <= 1 << 16;
}

static bool accepts_product(const struct kernel_query *q)
{
    struct own_conv c;
    return own_lanes() && geometry(q, &c) && c.kh == 1 && c.kw == 1 && !c.top && !c.left && c.oh == c.h && c.ow == c.w;
}

static bool accepts_depthwise(const struct kernel_query *q)
{
    struct own_conv c;
    int64_t group;
    if (!own_lanes() || !geometry_any(q, &c, &group) || group != c.ic || group != c.oc || c.kh != 3 || c.kw != 3 || c.dilation != 1) return false;
    return c.stride <= 2 && c.oc % own_lanes()->lanes == 0 && c.ow >= DEPTHWISE_MIN_WIDTH;
}

static void layouts(const struct kernel_query *q, struct kernel_layouts *ret)
{
    onednn_layouts_last(q, ret);
    ret->in[1] = KERNEL_LAYOUT_PACKED;
}

static err prepare(const struct kernel_query *q, struct mem_payer *payer, const char *word, size_t method, struct kernel_state **ret)
{
    struct kernel_state *s;
    if (!onednn_is_last(&q->in[0]) || !onednn_is_last(&q->out[0])) return err_set(ERR_UNSUPPORTED, "own convolution wants channels-last");
    err e = onednn_posts_lie_like_output(q);
    if (!e) e = mem_charge(payer, MEM_CODE, sizeof *s);
    if (e) return e;
    s = xnew(struct kernel_state);
    int64_t group;
    geometry_any(q, &s->c, &group);
    simple_posts(&s->c);
    s->payer = payer;
    s->lanes = own_lanes();
    s->method = (const struct own_method *)(const void *)((const char *)s->lanes + method);
    s->has_bias = onednn_present(q, 2);
    s->add = -1;
    s->scale = s->c.scaled ? q->post[0].input : -1;
    for (int i = 0; i < q->n_post; i++)
        if (q->post[i].kind == KERNEL_POST_ADD) s->add = q->post[i].input;
    int64_t flops = 2 * s->c.n * s->c.oh * s->c.ow * s->c.oc * (s->c.ic / group) * s->c.kh * s->c.kw;
    s->threads = onednn_threads_for((double)flops / (group > 1 ? 40 : 100), q->threads);
    s->method->plan(&s->c, s->threads);
    s->describe = s->lanes->lanes == 16 ? "avx512" : "avx2";
    snprintf(s->format, sizeof s->format, "f32:%s%d/%lldx%lld", word, s->lanes->lanes, (long long)s->c.oc, (long long)s->c.ic);
    *ret = s;
    return ERR_OK;
}

#define PREPARE(word)                                                                                                  \
    static err prepare_##word(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)        \
    {                                                                                                                  \
        return prepare(q, payer, #word, offsetof(struct own_lanes, word), ret);                                        \
    }
PREPARE(winograd)
PREPARE(narrow)
PREPARE(product)
PREPARE(depthwise)

static size_t weight_bytes(const struct kernel_state *s, int input)
{
    return input == 1 ? s->method->weight_floats(&s->c) * sizeof(float) : 0;
}

static err pack(struct kernel_state *s, int input, const void *src, void *dst)
{
    if (input != 1) return err_set(ERR_INTERNAL, "own convolution: input %d is not packed", input);
    s->method->pack(&s->c, src, dst);
    return ERR_OK;
}

static const char *weight_format(const struct kernel_state *s, int input)
{
    return input == 1 ? s->format : "";
}

static size_t scratch_bytes(const struct kernel_state *s)
{
    return s->c.thread_floats * sizeof(float) * (size_t)s->threads;
}

static size_t code_bytes(const struct kernel_state *s)
{
    return sizeof *s;
}

static const char *describe(const struct kernel_state *s)
{
    return s->describe;
}

static void member(void *arg, int thread, int threads)
{
    const struct own_call *k = arg;
    k->method->run(k, thread, threads);
}

static err run(struct kernel_state *s, const struct kernel_buffers *b)
{
    struct own_call k = {.c = &s->c, .method = s->method, .x = b->in[0], .weight = b->in[1], .bias = b->in[2], .scale = s->scale >= 0 ? b->in[s->scale] : NULL, .y = b->out[0], .scratch = b->scratch,
                         .add = s->add >= 0 && s->c.adds ? b->in[s->add] : NULL, .late = s->add >= 0 && !s->c.adds ? b->in[s->add] : NULL};
    if (!s->has_bias) k.bias = NULL;
    own_team(s->threads, member, &k);
    return ERR_OK;
}

static void state_free(struct kernel_state **s)
{
    if (!*s) return;
    mem_release((*s)->payer, MEM_CODE, sizeof **s);
    free(*s);
    *s = NULL;
}

#define CLASS(word)                                                                                                    \
    const struct kernel_class own_##word = {.name = "own:" #word,                                               \
                                                   .accepts = accepts_##word,                                          \
                                                   .layouts = layouts,                                                 \
                                                   .prepare = prepare_##word,                                          \
                                                   .weight_bytes = weight_bytes,                                       \
                                                   .pack = pack,                                                       \
                                                   .weight_format = weight_format,                                     \
                                                   .scratch_bytes = scratch_bytes,                                     \
                                                   .code_bytes = code_bytes,                                           \
                                                   .describe = describe,                                               \
                                                   .run = run,                                                         \
                                                   .free = state_free}
extern const struct kernel_class own_winograd, own_narrow, own_product, own_depthwise, own_binary, own_function, own_concat, own_softmax, own_norm, own_gradient,
    own_batch_norm, own_softmax_grad, own_layer_norm_grad, own_split_conv, own_dropout; /* named by list.c */
CLASS(winograd);
CLASS(narrow);
CLASS(product);
CLASS(depthwise);

const struct kernel_class *const kernels_own_classes[] = {&own_winograd, &own_narrow, &own_product, &own_depthwise, &own_binary, &own_function, &own_concat, &own_softmax, &own_norm,
                                                            &own_gradient, &own_batch_norm, &own_softmax_grad, &own_layer_norm_grad, &own_split_conv, &own_dropout, NULL};
