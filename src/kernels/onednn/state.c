/* A kernel state over one oneDNN primitive: which buffer goes to which argument.
 *
 * Memory objects of oneDNN are only a descriptor and a pointer; a state has one for each argument and points it at
 * the caller's buffers before each run (0.2 microseconds each). Packed weights are described to the execution as a
 * flat row of bytes: for a descriptor with padded channels oneDNN would write zeros into the padding each time the
 * pointer is set, that is into weights that other threads read at this moment. The primitive itself knows their
 * real layout.
 *
 * One stream for each state: it is a small object without threads, and sharing one between threads is not promised
 * to be safe. Invariant: a run allocates nothing through the budget and takes no lock of ours.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/engine.h"
#include "kernels/ref/ref.h"

struct state_arg {
    int from; /* input number, or ONEDNN_FROM_OUT */
    void *set;
};
struct state_packed {
    int input;
    dnnl_memory_desc_t plain, packed;
    char format[96];
};
struct state_after {
    struct tensor out, in[KERNEL_MAX_IN];
    int n_in, n_post;
    struct kernel_post post[KERNEL_MAX_POST];
};
struct kernel_state {
    struct onednn_hold hold;
    dnnl_stream_t stream;
    int threads, n_args;
    dnnl_exec_arg_t *exec; /* n_args, and the scratchpad after them if there is one */
    struct state_arg *args;
    int n_packed;
    struct state_packed *packed;
    int copy_from;       /* the input that is copied into the output before a run (spec.sum) */
    size_t copy_bytes;   /* 0: none is */
    int add_from;        /* the input that is added to the output after a run */
    int64_t add_count;   /* 0: none is */
    struct state_after *after; /* post-operations that follow a run in plain C, or NULL */
    size_t scratch, own; /* `own`: bytes of the state itself, charged as code */
};
/* A memory object takes 1024 bytes, a stream 160 (mallinfo2, oneDNN 2.6.3). */
enum { MEMORY_BYTES = 1024, STREAM_BYTES = 160 };

/* ---- descriptors */

dnnl_memory_desc_t onednn_strided(int rank, const int64_t *dims, const int64_t *strides)
{
    dnnl_memory_desc_t md = {0};
    dnnl_dims_t d = {0}, s = {0}; /* oneDNN declares whole arrays of 12, though it reads `rank` */
    memcpy(d, dims, (size_t)rank * sizeof *d);
    memcpy(s, strides, (size_t)rank * sizeof *s);
    dnnl_memory_desc_init_by_strides(&md, rank, d, dnnl_f32, s);
    return md;
}

dnnl_memory_desc_t onednn_rows(const struct tensor_shape *s)
{
    int64_t strides[TENSOR_MAX_RANK], one = 1;
    if (s->rank == 0) return onednn_strided(1, &one, &one);
    tensor_strides_row_major(s, strides);
    return onednn_strided(s->rank, s->dims, strides);
}

dnnl_memory_desc_t onednn_last(const struct tensor_shape *s)
{
    int64_t strides[TENSOR_MAX_RANK];
    if (s->rank < 3) return onednn_rows(s);
    tensor_strides_channels_last(s, strides);
    return onednn_strided(s->rank, s->dims, strides);
}

dnnl_memory_desc_t onednn_flat(int64_t count)
{
    int64_t one = 1;
    return onednn_strided(1, &count, &one);
}

dnnl_memory_desc_t onednn_any(int rank, const int64_t *dims)
{
    dnnl_memory_desc_t md = {0};
    dnnl_dims_t d = {0};
    memcpy(d, dims, (size_t)rank * sizeof *d);
    dnnl_memory_desc_init_by_tag(&md, rank, d, dnnl_f32, dnnl_format_tag_any);
    return md;
}

/* "f32:Acdb64a/1b2c3d4e": the type, axes from the widest stride to the smallest (capital: blocked), the blocks inside, and a
 * hash of everything else that decides where a number lies (sizes, padding, strides). */
static void format_text(const dnnl_memory_desc_t *md, char *buf, size_t size)
{
    const dnnl_blocking_desc_t *b = &md->format_desc.blocking;
    int order[DNNL_MAX_NDIMS];
    size_t n = (size_t)snprintf(buf, size, md->data_type == dnnl_bf16 ? "bf16:" : "f32:");
    for (int i = 0; i < md->ndims; i++) {
        int k = i;
        for (; k > 0 && b->strides[order[k - 1]] < b->strides[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    for (int i = 0; i < md->ndims && n + 1 < size; i++) {
        char first = 'a';
        for (int k = 0; k < b->inner_nblks; k++)
            if (b->inner_idxs[k] == order[i]) first = 'A';
        buf[n++] = (char)(first + order[i]);
    }
    for (int k = 0; k < b->inner_nblks && n + 1 < size; k++)
        n += (size_t)snprintf(buf + n, size - n, "%d%c", (int)b->inner_blks[k], (char)('a' + b->inner_idxs[k]));
    uint64_t h = hash64(md->dims, (size_t)md->ndims * sizeof *md->dims, 0);
    h = hash64(md->padded_dims, (size_t)md->ndims * sizeof *md->dims, h);
    h = hash64(b->strides, (size_t)md->ndims * sizeof *md->dims, h);
    h = hash64(&md->extra.flags, sizeof md->extra.flags, h);
    if (n < size) snprintf(buf + n, size - n, "/%08x", (unsigned)(h ^ h >> 32));
}

/* ---- what queries hold */

struct onednn_window onednn_window_of(const struct op_window *w)
{
    struct onednn_window r = {0};
    for (int i = 0; i < w->n; i++) {
        r.kernel[i] = w->kernel[i];
        r.stride[i] = w->stride[i];
        r.dilation[i] = w->dilation[i] - 1;
        r.begin[i] = w->pad_begin[i];
        r.end[i] = w->pad_end[i];
    }
    return r;
}

int onednn_own_inputs(const struct kernel_query *q)
{
    int n = q->n_in;
    for (int i = 0; i < q->n_post; i++)
        if (kernel_post_reads(&q->post[i])) n = MIN(n, q->post[i].input);
    return n;
}

dnnl_data_type_t onednn_type(const struct tensor *t)
{
    return t->dtype == TENSOR_BF16 ? dnnl_bf16 : dnnl_f32;
}

bool onednn_takes(const struct tensor *t)
{
    return t->dtype == TENSOR_F32 && onednn_takes_half(t);
}

bool onednn_takes_half(const struct tensor *t)
{
    if ((t->dtype != TENSOR_F32 && t->dtype != TENSOR_BF16) || t->shape.bounded) return false;
    for (int i = 0; i < t->shape.rank; i++)
        if (t->shape.dims[i] < 1) return false;
    return true;
}

bool onednn_present(const struct kernel_query *q, int i)
{
    return i < onednn_own_inputs(q) && q->in[i].dtype != TENSOR_NONE;
}

bool onednn_takes_pair(const struct kernel_query *q)
{
    return onednn_takes_half(&q->in[0]) && onednn_takes_half(&q->out[0]) && q->in[0].dtype == q->out[0].dtype;
}

static bool one_output(const struct kernel_query *q)
{
    for (int i = 1; i < q->n_out; i++)
        if (q->out[i].dtype != TENSOR_NONE) return false;
    return q->n_out >= 1;
}

/* One number per channel: axis 1 of a convolution's output, the last of a product's. */
static bool scales_channels(const struct kernel_query *q, const struct kernel_post *p)
{
    const struct tensor_shape *y = &q->out[0].shape;
    int axis = q->node->kind == OP_CONV || q->node->kind == OP_CONV_TRANSPOSE ? 1 : y->rank - 1;
    return p->input >= 1 && p->input < q->n_in && q->in[p->input].data && onednn_takes(&q->in[p->input]) && axis >= 0 && axis < y->rank &&
           tensor_count(&q->in[p->input].shape) == y->dims[axis];
}

static bool adds_what_fits(const struct kernel_query *q)
{
    for (int i = 0; i < q->n_post; i++) {
        const struct kernel_post *p = &q->post[i];
        if (p->kind == KERNEL_POST_SCALE && !scales_channels(q, p)) return false;
        if (p->kind == KERNEL_POST_ADD && (p->input < 1 || p->input >= q->n_in || q->in[p->input].dtype != q->out[0].dtype ||
                                           !tensor_shape_equal(&q->in[p->input].shape, &q->out[0].shape)))
            return false;
    }
    return true;
}

bool onednn_takes_all(const struct kernel_query *q)
{
    if (q->n_in < 1 || !one_output(q) || !onednn_takes(&q->out[0]) || !onednn_posts_known(q)) return false;
    for (int i = 0; i < q->n_in; i++)
        if (q->in[i].dtype != TENSOR_NONE && !onednn_takes(&q->in[i])) return false;
    return adds_what_fits(q);
}

bool onednn_takes_tensors(const struct kernel_query *q)
{
    for (int i = 0; i < q->n_in; i++)
        if (q->in[i].dtype != TENSOR_NONE && !onednn_takes(&q->in[i])) return false;
    for (int i = 0; i < q->n_out; i++)
        if (q->out[i].dtype != TENSOR_NONE && !onednn_takes(&q->out[i])) return false;
    return true;
}

bool onednn_takes_mixed(const struct kernel_query *q)
{
    if (q->n_in < 1 || !one_output(q) || !onednn_posts_known(q) || !onednn_takes_half(&q->in[0]) || !onednn_takes_half(&q->out[0])) return false;
    if (q->in[0].dtype == TENSOR_F32 && q->out[0].dtype != TENSOR_F32) return false;
    int own = onednn_own_inputs(q);
    for (int i = 1; i < own; i++)
        if (q->in[i].dtype != TENSOR_NONE && !onednn_takes(&q->in[i])) return false;
    return adds_what_fits(q);
}

void onednn_layouts_last(const struct kernel_query *q, struct kernel_layouts *ret)
{
    for (int i = 0; i < q->n_in; i++)
        ret->in[i] = q->in[i].shape.rank >= 3 ? KERNEL_LAYOUT_CHANNELS_LAST : KERNEL_LAYOUT_ROW_MAJOR;
    for (int i = 0; i < q->n_out; i++)
        ret->out[i] = q->out[i].shape.rank >= 3 ? KERNEL_LAYOUT_CHANNELS_LAST : KERNEL_LAYOUT_ROW_MAJOR;
}

void onednn_layouts_rows(const struct kernel_query *q, struct kernel_layouts *ret)
{
    for (int i = 0; i < q->n_in; i++) ret->in[i] = KERNEL_LAYOUT_ROW_MAJOR;
    for (int i = 0; i < q->n_out; i++) ret->out[i] = KERNEL_LAYOUT_ROW_MAJOR;
}

bool onednn_is_last(const struct tensor *t)
{
    return t->shape.rank >= 3 ? tensor_is_channels_last(t) : tensor_is_row_major(t);
}

err onednn_posts_lie_like_output(const struct kernel_query *q)
{
    for (int i = 0; i < q->n_post; i++)
        if (q->post[i].kind == KERNEL_POST_ADD && !tensor_same_dense_layout(&q->in[q->post[i].input], &q->out[0]))
            return err_set(ERR_UNSUPPORTED, "oneDNN: the added input does not lie in memory like the output");
    return ERR_OK;
}

/* ---- making */

void onednn_job_arg(struct onednn_job *j, int arg, int from)
{
    j->args[j->n_args].arg = arg;
    j->args[j->n_args++].from = from;
}

void onednn_job_pack(struct onednn_job *j, int arg, int from, const dnnl_memory_desc_t *plain)
{
    j->packed[j->n_packed].arg = arg;
    j->packed[j->n_packed].plain = *plain;
    j->packed[j->n_packed++].from = from;
}

static const dnnl_memory_desc_t *arg_desc(const struct kernel_state *s, int arg)
{
    return dnnl_primitive_desc_query_md(s->hold.prim->desc, dnnl_query_exec_arg_md, arg);
}

static err add_memory(struct kernel_state *s, int arg, int from, const dnnl_memory_desc_t *md)
{
    dnnl_memory_t m = NULL;
    err e =
        onednn_check(dnnl_memory_create(&m, md, onednn_engine(), DNNL_MEMORY_NONE), ERR_INTERNAL, "memory object");
    if (e) return e;
    s->exec[s->n_args] = (dnnl_exec_arg_t){arg, m};
    s->args[s->n_args++].from = from;
    return ERR_OK;
}

static err add_packed(struct kernel_state *s, int arg, int from, const dnnl_memory_desc_t *plain)
{
    struct state_packed *p = &s->packed[s->n_packed];
    dnnl_memory_desc_t flat = {0};
    p->input = from;
    p->plain = *plain;
    p->packed = *arg_desc(s, arg);
    if (p->packed.format_kind != dnnl_blocked)
        return err_set(ERR_UNSUPPORTED, "oneDNN: a weight format without a description");
    format_text(&p->packed, p->format, sizeof p->format);
    dnnl_dims_t bytes = {(int64_t)dnnl_memory_desc_get_size(&p->packed)};
    dnnl_memory_desc_init_by_tag(&flat, 1, bytes, dnnl_u8, dnnl_a);
    err e = add_memory(s, arg, from, &flat);
    if (!e) s->n_packed++;
    return e;
}

static err fill(struct kernel_state *s, const struct onednn_job *j, const struct kernel_query *q)
{
    err e = ERR_OK;
    for (int i = 0; i < j->n_args && !e; i++)
        e = add_memory(s, j->args[i].arg, j->args[i].from, arg_desc(s, j->args[i].arg));
    for (int i = 0; i < j->n_packed && !e; i++)
        e = add_packed(s, j->packed[i].arg, j->packed[i].from, &j->packed[i].plain);
    for (int i = 0; i < q->n_post && !e; i++)
        if (q->post[i].kind == KERNEL_POST_ADD && j->spec.sum) {
            s->copy_from = q->post[i].input;
            s->copy_bytes = dnnl_memory_desc_get_size(j->spec.dst);
        } else if (q->post[i].kind == KERNEL_POST_ADD)
            e = add_memory(s, DNNL_ARG_ATTR_MULTIPLE_POST_OP(onednn_post_index(q->post, i)) | DNNL_ARG_SRC_1,
                           q->post[i].input, j->spec.dst);
        else if (q->post[i].kind == KERNEL_POST_SCALE) {
            dnnl_memory_desc_t channels = onednn_channels_of(j->spec.dst);
            e = add_memory(s, DNNL_ARG_ATTR_MULTIPLE_POST_OP(onednn_post_index(q->post, i)) | DNNL_ARG_SRC_1, q->post[i].input, &channels);
        }
    if (e) return e;
    const dnnl_memory_desc_t *pad = arg_desc(s, DNNL_ARG_SCRATCHPAD);
    s->scratch = pad ? dnnl_memory_desc_get_size(pad) : 0;
    if (s->scratch) {
        e = add_memory(s, DNNL_ARG_SCRATCHPAD, 0, pad);
        if (!e) s->n_args--; /* n_args counts the others; exec has one more */
    }
    return e ? e
             : onednn_check(dnnl_stream_create(&s->stream, onednn_engine(), dnnl_stream_default_flags),
                            ERR_INTERNAL, "stream");
}

static int threads_for(const struct onednn_job *job, const struct kernel_query *q)
{
    enum { FLOPS_PER_NS = 60 };
    return onednn_threads_for(job->ns > 0 ? job->ns : (double)job->spec.flops / FLOPS_PER_NS, q->threads);
}

err onednn_state_new(struct onednn_job *job, const struct kernel_query *q, struct mem_payer *payer,
                     struct kernel_state **ret)
{
    err e = onednn_posts_lie_like_output(q);
    if (!e) e = onednn_posts_distinct(q);
    if (e) return e;
    job->spec.n_post = q->n_post;
    job->spec.post = q->post;
    job->spec.threads = threads_for(job, q);
    struct kernel_state *s = xnew(struct kernel_state);
    size_t n = (size_t)(job->n_args + job->n_packed + q->n_post + 1);
    size_t own = sizeof *s + n * (MEMORY_BYTES + sizeof *s->exec + sizeof *s->args) + STREAM_BYTES +
                 (size_t)job->n_packed * sizeof *s->packed;
    e = mem_charge(payer, MEM_CODE, own);
    if (!e && (e = onednn_hold(&job->spec, payer, &s->hold))) mem_release(payer, MEM_CODE, own);
    if (e) {
        free(s);
        return e;
    }
    s->own = own;
    s->exec = xnewn(dnnl_exec_arg_t, n);
    s->args = xnewn(struct state_arg, n);
    s->packed = xnewn(struct state_packed, (size_t)job->n_packed + 1);
    s->threads = job->spec.threads;
    if ((e = fill(s, job, q))) {
        onednn_state_free(&s);
        return e;
    }
    *ret = s;
    return ERR_OK;
}

err onednn_state_scaling(struct onednn_job *job, const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret)
{
    err e = onednn_state_new(job, q, payer, ret);
    if (e != ERR_UNSUPPORTED || !onednn_scales(q) || q->out[0].dtype != TENSOR_F32) return e;
    struct kernel_query without = *q;
    without.n_post = 0;
    e = onednn_state_new(job, &without, payer, ret);
    if (!e) onednn_state_posts_after(*ret, q);
    return e;
}

void onednn_state_add_after(struct kernel_state *s, int input, int64_t count)
{
    s->add_from = input;
    s->add_count = count;
}

void onednn_state_posts_after(struct kernel_state *s, const struct kernel_query *q)
{
    struct state_after *a = s->after = xnew(struct state_after);
    a->out = q->out[0];
    a->n_in = q->n_in;
    memcpy(a->in, q->in, (size_t)q->n_in * sizeof *q->in);
    for (int i = 0; i < q->n_in; i++)
        if (q->in[i].data) tensor_strides_row_major(&a->in[i].shape, a->in[i].strides); /* constants lie as they came */
    a->n_post = q->n_post;
    memcpy(a->post, q->post, sizeof a->post);
}

void onednn_state_free(struct kernel_state **state)
{
    struct kernel_state *s = *state;
    if (!s) return;
    for (int i = 0; i < s->n_args + (s->scratch > 0); i++)
        if (s->exec[i].memory) dnnl_memory_destroy(s->exec[i].memory);
    if (s->stream) dnnl_stream_destroy(s->stream);
    mem_release(s->hold.payer, MEM_CODE, s->own);
    onednn_drop(&s->hold);
    free(s->after);
    free(s->exec);
    free(s->args);
    free(s->packed);
    free(s);
    *state = NULL;
}

/* ---- the rest of the contract */

static struct state_packed *packed_of(const struct kernel_state *s, int input)
{
    for (int i = 0; i < s->n_packed; i++)
        if (s->packed[i].input == input) return &s->packed[i];
    return NULL;
}

size_t onednn_weight_bytes(const struct kernel_state *s, int input)
{
    const struct state_packed *p = packed_of(s, input);
    return p ? dnnl_memory_desc_get_size(&p->packed) : 0;
}

const char *onednn_weight_format(const struct kernel_state *s, int input)
{
    const struct state_packed *p = packed_of(s, input);
    return p ? p->format : "";
}

/* A reorder made for this once: its code lives for the length of the call and is not charged (a few pages). */
err onednn_pack(struct kernel_state *s, int input, const void *src, void *dst)
{
    const struct state_packed *p = packed_of(s, input);
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t prim = NULL;
    dnnl_memory_t from = NULL, to = NULL;
    if (!p) return err_set(ERR_INTERNAL, "oneDNN: input %d is not packed", input);
    onednn_threads(s->threads);
    dnnl_engine_t engine = onednn_engine();
    dnnl_status_t st = dnnl_reorder_primitive_desc_create(&pd, &p->plain, engine, &p->packed, engine, NULL);
    if (!st) st = dnnl_primitive_create(&prim, pd);
    if (!st) st = dnnl_memory_create(&from, &p->plain, engine, (void *)(uintptr_t)src);
    if (!st) st = dnnl_memory_create(&to, &p->packed, engine, dst);
    if (!st) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
        st = dnnl_primitive_execute(prim, s->stream, 2, args);
    }
    if (!st) st = dnnl_stream_wait(s->stream);
    if (to) dnnl_memory_destroy(to);
    if (from) dnnl_memory_destroy(from);
    if (prim) dnnl_primitive_destroy(prim);
    if (pd) dnnl_primitive_desc_destroy(pd);
    return onednn_check(st, ERR_INTERNAL, "packing weights");
}

size_t onednn_scratch_bytes(const struct kernel_state *s)
{
    return s->scratch;
}

size_t onednn_code_bytes(const struct kernel_state *s)
{
    return s->hold.prim->bytes + s->own;
}

const char *onednn_describe(const struct kernel_state *s)
{
    return s->hold.prim->impl;
}

static dnnl_status_t point(struct kernel_state *s, int i, const void *at)
{
    if (s->args[i].set == at) return dnnl_success;
    s->args[i].set = (void *)(uintptr_t)at;
    return dnnl_memory_set_data_handle(s->exec[i].memory, s->args[i].set);
}

err onednn_run(struct kernel_state *s, const struct kernel_buffers *b)
{
    dnnl_status_t st = dnnl_success;
    int n = s->n_args;
    onednn_threads(s->threads);
    if (s->copy_bytes) memcpy(b->out[0], b->in[s->copy_from], s->copy_bytes);
    for (int i = 0; i < n && !st; i++)
        st = point(s, i, s->args[i].from == ONEDNN_FROM_OUT ? b->out[0] : b->in[s->args[i].from]);
    if (!st && s->scratch) st = point(s, n++, b->scratch);
    if (!st) st = dnnl_primitive_execute(s->hold.prim->handle, s->stream, n, s->exec);
    if (!st) st = dnnl_stream_wait(s->stream);
    float *out = b->out[0];
    const float *more = s->add_count ? b->in[s->add_from] : NULL;
    for (int64_t i = 0; i < s->add_count && !st; i++) out[i] += more[i];
    if (s->after && !st) {
        for (int i = 0; i < s->after->n_in; i++) s->after->in[i].data = (void *)(uintptr_t)b->in[i];
        s->after->out.data = b->out[0];
        ref_post(&s->after->out, s->after->n_post, s->after->post, s->after->in);
    }
    return onednn_check(st, ERR_INTERNAL, s->hold.prim->impl);
}
