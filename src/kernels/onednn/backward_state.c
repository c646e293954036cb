/* See backward.h. The state: a main primitive, and one reorder for each argument that lies otherwise than it wants.
 *
 * Scratch: the primitive's own, then one piece for each moved argument, each on 64 bytes. All primitives are shared and charged as in prim.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/backward.h"

#include <stdlib.h>
#include <string.h>

struct chain_arg {
    int index;
    bool out, moved;
    struct onednn_hold reorder;   /* if moved: between `theirs` and `ours` */
    dnnl_memory_t ours, theirs;   /* ours: the buffer as it lies; theirs: as the primitive wants it (NULL unless moved) */
    size_t at;                    /* in scratch */
};
struct chain {
    struct onednn_hold hold;
    dnnl_stream_t stream;
    dnnl_memory_t pad;
    int threads, n;
    struct chain_arg args[ONEDNN_CHAIN_ARGS];
    int names[ONEDNN_CHAIN_ARGS];
    size_t scratch, own;
    int add_input;
    bool add_half, out_half;
    int64_t add_count, channels;
    float momentum, unbiased;
};
enum { MEMORY_BYTES = 1024, STREAM_BYTES = 160 };

/* ---- making */

dnnl_status_t onednn_make_conv_pair(const void *desc, const_dnnl_primitive_attr_t attr, dnnl_engine_t engine, dnnl_primitive_desc_t *ret)
{
    const struct onednn_conv_pair *p = desc;
    dnnl_primitive_desc_t hint = NULL;
    dnnl_status_t st = dnnl_primitive_desc_create(&hint, &p->forward, NULL, engine, NULL);
    if (!st) st = dnnl_primitive_desc_create(ret, &p->backward, attr, engine, hint);
    if (hint) dnnl_primitive_desc_destroy(hint);
    return st;
}

dnnl_status_t onednn_make_norm_pair(const void *desc, const_dnnl_primitive_attr_t attr, dnnl_engine_t engine, dnnl_primitive_desc_t *ret)
{
    const struct onednn_norm_pair *p = desc;
    dnnl_primitive_desc_t hint = NULL;
    dnnl_status_t st = dnnl_primitive_desc_create(&hint, &p->forward, NULL, engine, NULL);
    if (!st) st = dnnl_primitive_desc_create(ret, &p->backward, attr, engine, hint);
    if (hint) dnnl_primitive_desc_destroy(hint);
    return st;
}

struct move {
    dnnl_memory_desc_t from, to;
};

static dnnl_status_t make_move(const void *desc, const_dnnl_primitive_attr_t attr, dnnl_engine_t engine, dnnl_primitive_desc_t *ret)
{
    const struct move *m = desc;
    return dnnl_reorder_primitive_desc_create(ret, &m->from, engine, &m->to, engine, attr);
}

void onednn_chain_arg(struct onednn_chain_job *j, int arg, bool out, int index, const dnnl_memory_desc_t *plain)
{
    j->args[j->n_args].arg = arg;
    j->args[j->n_args].index = index;
    j->args[j->n_args].out = out;
    j->args[j->n_args].has_plain = plain != NULL;
    if (plain) j->args[j->n_args].plain = *plain;
    j->n_args++;
}

static err memory(dnnl_memory_t *ret, const dnnl_memory_desc_t *md)
{
    return onednn_check(dnnl_memory_create(ret, md, onednn_engine(), DNNL_MEMORY_NONE), ERR_INTERNAL, "memory object");
}

static size_t reserve(struct chain *s, size_t bytes)
{
    size_t at = s->scratch;
    s->scratch += (bytes + 63) & ~(size_t)63;
    return at;
}

static err fill_arg(struct chain *s, const struct onednn_chain_job *j, int i, struct mem_payer *payer)
{
    struct chain_arg *a = &s->args[s->n];
    const dnnl_memory_desc_t *wants = dnnl_primitive_desc_query_md(s->hold.prim->desc, dnnl_query_exec_arg_md, j->args[i].arg);
    const dnnl_memory_desc_t *lies = j->args[i].has_plain ? &j->args[i].plain : wants;
    a->index = j->args[i].index;
    a->out = j->args[i].out;
    s->names[s->n++] = j->args[i].arg;
    err e = memory(&a->ours, lies);
    if (e || dnnl_memory_desc_equal(wants, lies)) return e;
    a->moved = true;
    struct move m;
    memset(&m, 0, sizeof m);
    m.from = a->out ? *wants : *lies;
    m.to = a->out ? *lies : *wants;
    struct onednn_spec spec = {.what = "weights in training", .desc = &m, .desc_bytes = sizeof m, .make = make_move, .threads = s->threads,
                               .flops = ONEDNN_REF_FLOPS};
    e = onednn_hold(&spec, payer, &a->reorder);
    if (!e) e = memory(&a->theirs, wants);
    if (!e) a->at = reserve(s, dnnl_memory_desc_get_size(wants));
    return e;
}

static err fill(struct chain *s, const struct onednn_chain_job *j, struct mem_payer *payer)
{
    const dnnl_memory_desc_t *pad = dnnl_primitive_desc_query_md(s->hold.prim->desc, dnnl_query_exec_arg_md, DNNL_ARG_SCRATCHPAD);
    size_t bytes = pad ? dnnl_memory_desc_get_size(pad) : 0;
    err e = ERR_OK;
    if (bytes) {
        reserve(s, bytes);
        e = memory(&s->pad, pad);
    }
    for (int i = 0; i < j->n_args && !e; i++) e = fill_arg(s, j, i, payer);
    if (!e) e = onednn_check(dnnl_stream_create(&s->stream, onednn_engine(), dnnl_stream_default_flags), ERR_INTERNAL, "stream");
    return e;
}

err onednn_chain_new(struct onednn_chain_job *j, const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    enum { FLOPS_PER_NS = 60 };
    err e = onednn_posts_lie_like_output(q);
    if (!e) e = onednn_posts_distinct(q);
    if (e) return e;
    j->spec.threads = onednn_threads_for(j->ns > 0 ? j->ns : (double)j->spec.flops / FLOPS_PER_NS, q->threads);
    j->spec.n_post = j->add_after ? 0 : q->n_post;
    j->spec.post = q->post;
    struct chain *s = xnew(struct chain);
    size_t own = sizeof *s + STREAM_BYTES + MEMORY_BYTES * (size_t)(2 * j->n_args + 1);
    e = mem_charge(payer, MEM_CODE, own);
    if (!e && (e = onednn_hold(&j->spec, payer, &s->hold))) mem_release(payer, MEM_CODE, own);
    if (e) {
        free(s);
        return e;
    }
    s->own = own;
    s->threads = j->spec.threads;
    s->channels = j->channels;
    s->momentum = j->momentum;
    s->unbiased = j->unbiased;
    if (j->add_after) {
        s->add_input = q->post[0].input;
        s->add_half = q->in[s->add_input].dtype == TENSOR_BF16;
        s->out_half = q->out[0].dtype == TENSOR_BF16;
        s->add_count = tensor_count(&q->out[0].shape);
    }
    for (int i = 0; i < q->n_post && !j->add_after; i++)
        if (q->post[i].kind == KERNEL_POST_ADD)
            onednn_chain_arg(j, DNNL_ARG_ATTR_MULTIPLE_POST_OP(onednn_post_index(q->post, i)) | DNNL_ARG_SRC_1, false, q->post[i].input, j->spec.dst);
    struct kernel_state *k = (struct kernel_state *)s;
    if ((e = fill(s, j, payer))) {
        onednn_chain_free(&k);
        return e;
    }
    *ret = k;
    return ERR_OK;
}

void onednn_chain_free(struct kernel_state **state)
{
    struct chain *s = (struct chain *)*state;
    if (!s) return;
    for (int i = 0; i < s->n; i++) {
        if (s->args[i].ours) dnnl_memory_destroy(s->args[i].ours);
        if (s->args[i].theirs) dnnl_memory_destroy(s->args[i].theirs);
        onednn_drop(&s->args[i].reorder);
    }
    if (s->pad) dnnl_memory_destroy(s->pad);
    if (s->stream) dnnl_stream_destroy(s->stream);
    mem_release(s->hold.payer, MEM_CODE, s->own);
    onednn_drop(&s->hold);
    free(s);
    *state = NULL;
}

/* ---- the rest of the contract */

size_t onednn_chain_weight_bytes(const struct kernel_state *s, int input)
{
    (void)s;
    (void)input;
    return 0;
}

err onednn_chain_pack(struct kernel_state *s, int input, const void *src, void *dst)
{
    (void)s;
    (void)src;
    (void)dst;
    return err_set(ERR_INTERNAL, "oneDNN: input %d is not packed in training", input);
}

const char *onednn_chain_weight_format(const struct kernel_state *s, int input)
{
    (void)s;
    (void)input;
    return "raw";
}

size_t onednn_chain_scratch(const struct kernel_state *s)
{
    return ((const struct chain *)s)->scratch;
}

size_t onednn_chain_code(const struct kernel_state *s)
{
    return ((const struct chain *)s)->hold.prim->bytes + ((const struct chain *)s)->own;
}

const char *onednn_chain_describe(const struct kernel_state *s)
{
    return ((const struct chain *)s)->hold.prim->impl;
}

static dnnl_status_t move_one(struct chain *s, struct chain_arg *a)
{
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, a->out ? a->theirs : a->ours}, {DNNL_ARG_TO, a->out ? a->ours : a->theirs}};
    return dnnl_primitive_execute(a->reorder.prim->handle, s->stream, 2, args);
}

/* mean' and var' of BatchNormTrain */
static void next_statistics(const struct chain *s, const struct kernel_buffers *b)
{
    for (int k = 0; k < 2; k++) {
        const float *old = b->in[3 + k], *batch = b->out[1 + k];
        float *next = b->out[3 + k], by = (1 - s->momentum) * (k ? s->unbiased : 1);
        for (int64_t i = 0; old && next && i < s->channels; i++) next[i] = s->momentum * old[i] + by * batch[i];
    }
}

static inline float get(const void *p, int64_t i, bool half)
{
    return half ? tensor_bf16_float(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

static inline void put(void *p, int64_t i, float v, bool half)
{
    if (half) ((uint16_t *)p)[i] = tensor_float_bf16(v);
    else ((float *)p)[i] = v;
}

static inline __attribute__((always_inline)) void add_as(void *out, const void *more, int64_t n, bool out_half, bool half)
{
    for (int64_t i = 0; i < n; i++) put(out, i, get(out, i, out_half) + get(more, i, half), out_half);
}

static void add_more(const struct chain *s, const struct kernel_buffers *b)
{
    const void *more = b->in[s->add_input];
    if (s->out_half && s->add_half) add_as(b->out[0], more, s->add_count, true, true);
    else if (s->out_half) add_as(b->out[0], more, s->add_count, true, false);
    else if (s->add_half) add_as(b->out[0], more, s->add_count, false, true);
    else add_as(b->out[0], more, s->add_count, false, false);
}

err onednn_chain_run(struct kernel_state *state, const struct kernel_buffers *b)
{
    struct chain *s = (struct chain *)state;
    dnnl_exec_arg_t exec[ONEDNN_CHAIN_ARGS + 1];
    dnnl_status_t st = dnnl_success;
    int n = s->n;
    onednn_threads(s->threads);
    for (int i = 0; i < s->n && !st; i++) {
        struct chain_arg *a = &s->args[i];
        void *at = a->out ? b->out[a->index] : (void *)(uintptr_t)b->in[a->index];
        st = dnnl_memory_set_data_handle(a->ours, at);
        if (!st && a->moved) st = dnnl_memory_set_data_handle(a->theirs, (char *)b->scratch + a->at);
        if (!st && a->moved && !a->out) st = move_one(s, a);
        exec[i] = (dnnl_exec_arg_t){s->names[i], a->moved ? a->theirs : a->ours};
    }
    if (!st && s->pad) {
        st = dnnl_memory_set_data_handle(s->pad, b->scratch);
        exec[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, s->pad};
    }
    if (!st) st = dnnl_primitive_execute(s->hold.prim->handle, s->stream, n, exec);
    for (int i = 0; i < s->n && !st; i++)
        if (s->args[i].moved && s->args[i].out) st = move_one(s, &s->args[i]);
    if (!st) st = dnnl_stream_wait(s->stream);
    if (!st && s->add_count) add_more(s, b);
    if (!st && s->channels) next_statistics(s, b);
    return onednn_check(st, ERR_INTERNAL, s->hold.prim->impl);
}
