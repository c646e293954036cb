/* See try.h: plays the planner for one operator. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/onednn/try.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void try_init(struct try_node *n, enum op_kind kind, int opset)
{
    memset(n, 0, sizeof *n);
    n->op = (struct op_node){.kind = kind, .name = (char *)"", .opset = opset, .n_out = 1, .attrs = n->attrs};
}

static struct op_attr *attr(struct try_node *n, const char *name, enum op_attr_type type)
{
    int i = n->op.n_attrs++;
    snprintf(n->names[i], sizeof n->names[i], "%s", name);
    n->attrs[i] = (struct op_attr){.name = n->names[i], .type = type};
    return &n->attrs[i];
}

void try_int(struct try_node *n, const char *name, int64_t v)
{
    attr(n, name, OP_ATTR_INT)->i = v;
}

void try_float(struct try_node *n, const char *name, float v)
{
    attr(n, name, OP_ATTR_FLOAT)->f = v;
}

void try_word(struct try_node *n, const char *name, const char *v)
{
    char *word = n->words[n->op.n_attrs];
    snprintf(word, sizeof n->words[0], "%s", v);
    struct op_attr *a = attr(n, name, OP_ATTR_STRING);
    a->s = word;
    a->n = strlen(word);
}

void try_ints(struct try_node *n, const char *name, int count, const int64_t *v)
{
    int64_t *ints = n->ints[n->op.n_attrs];
    memcpy(ints, v, (size_t)count * sizeof *v);
    struct op_attr *a = attr(n, name, OP_ATTR_INTS);
    a->ints = ints;
    a->n = (size_t)count;
}

uint64_t try_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 1 ^ *seed >> 33;
}

int try_below(uint64_t *seed, int n)
{
    return (int)(try_random(seed) % (uint64_t)n);
}

struct tensor try_tensor(int rank, const int64_t *dims, uint64_t *seed)
{
    struct tensor_shape s = tensor_shape_of(rank, dims);
    int64_t n = tensor_count(&s);
    float *data = xcalloc((size_t)n + 1, sizeof *data);
    for (int64_t i = 0; i < n; i++) data[i] = (float)(try_random(seed) % 20001) / 10000 - 1;
    return tensor_view(TENSOR_F32, &s, data);
}

void try_query(struct try_case *c, const struct try_node *n, int n_in, int threads)
{
    c->q.node = &n->op;
    c->q.n_in = n_in;
    c->q.n_out = 1;
    c->q.threads = threads;
}

/* Copies f32 numbers between two views of one shape. */
static void relay(const struct tensor *from, const struct tensor *to)
{
    int64_t at[TENSOR_MAX_RANK] = {0};
    int rank = from->shape.rank;
    for (int64_t left = tensor_count(&from->shape); left > 0; left--) {
        int64_t a = 0, b = 0;
        for (int i = 0; i < rank; i++) {
            a += at[i] * from->strides[i];
            b += at[i] * to->strides[i];
        }
        ((float *)to->data)[b] = ((const float *)from->data)[a];
        for (int i = rank - 1; i >= 0 && ++at[i] == from->shape.dims[i]; i--) at[i] = 0;
    }
}

static struct tensor laid(const struct tensor *t, enum kernel_layout layout, enum try_lie lie)
{
    struct tensor r = *t;
    bool last = layout == KERNEL_LAYOUT_CHANNELS_LAST || (layout == KERNEL_LAYOUT_ANY && lie == TRY_LAST);
    if (last) tensor_strides_channels_last(&r.shape, r.strides);
    r.data = xcalloc((size_t)tensor_count(&t->shape) + 16, 8);
    return r;
}

struct attempt {
    struct tensor in[KERNEL_MAX_IN], out;
    struct kernel_layouts layouts;
    struct kernel_state *state;
};

static err prepare(struct try_case *c, struct attempt *a, struct mem_payer *payer)
{
    struct kernel_query q = c->q;
    for (int i = 0; i < q.n_in; i++) {
        a->in[i] = c->in[i];
        if (!c->constant[i]) a->in[i].data = NULL;
    }
    struct tensor out = c->out;
    out.data = NULL;
    q.in = a->in;
    q.out = &out;
    if (!c->class->accepts(&q)) return err_set(ERR_UNSUPPORTED, "%s does not accept it", c->class->name);
    c->class->layouts(&q, &a->layouts);
    int follow = -1;
    for (int i = q.n_in - 1; i >= 0; i--)
        if (!c->constant[i] && c->in[i].shape.rank == out.shape.rank) follow = i;
    for (int i = 0; i < q.n_in; i++) {
        if (c->in[i].dtype == TENSOR_NONE || a->layouts.in[i] == KERNEL_LAYOUT_PACKED) continue;
        a->in[i] = laid(&c->in[i], a->layouts.in[i], c->lie);
        if (c->in[i].dtype == TENSOR_F32)
            relay(&c->in[i], &a->in[i]);
        else
            memcpy(a->in[i].data, c->in[i].data,
                   (size_t)tensor_count(&c->in[i].shape) * tensor_dtype_size(c->in[i].dtype));
    }
    enum try_lie lie =
        follow >= 0 && tensor_is_row_major(&a->in[follow]) && !tensor_is_channels_last(&a->in[follow]) ? TRY_ROWS
                                                                                                       : c->lie;
    a->out = laid(&c->out, a->layouts.out[0], lie);
    struct tensor described[KERNEL_MAX_IN];
    memcpy(described, a->in, sizeof described);
    for (int i = 0; i < q.n_in; i++) described[i].data = c->constant[i] ? c->in[i].data : NULL;
    out = a->out;
    out.data = NULL;
    q.in = described;
    return c->class->prepare(&q, payer, &a->state);
}

static err execute(struct try_case *c, struct attempt *a)
{
    const struct kernel_class *k = c->class;
    struct kernel_buffers b = {0};
    void *packed[KERNEL_MAX_IN] = {0}, *scratch = NULL;
    err e = ERR_OK;
    c->scratch = k->scratch_bytes(a->state);
    c->code = k->code_bytes(a->state);
    snprintf(c->impl, sizeof c->impl, "%s", k->describe(a->state));
    for (int i = 0; i < c->q.n_in && !e; i++) {
        b.in[i] = c->in[i].dtype == TENSOR_NONE ? NULL : a->in[i].data;
        if (a->layouts.in[i] != KERNEL_LAYOUT_PACKED) continue;
        size_t n = k->weight_bytes(a->state, i);
        packed[i] = aligned_alloc(64, (n + 63) / 64 * 64);
        memset(packed[i], 0x7f, n); /* pack must write padding, too */
        c->weight_bytes = n;
        snprintf(c->format, sizeof c->format, "%s", k->weight_format(a->state, i));
        e = k->pack(a->state, i, c->in[i].data, packed[i]);
        b.in[i] = packed[i];
    }
    b.out[0] = a->out.data;
    if (c->scratch) b.scratch = scratch = aligned_alloc(64, (c->scratch + 63) / 64 * 64);
    if (scratch) memset(scratch, 0x7f, c->scratch);
    for (int i = 0; i < 2 && !e; i++) e = k->run(a->state, &b); /* twice: nothing may be left over */
    if (!e) relay(&a->out, &c->out);
    for (int i = 0; i < KERNEL_MAX_IN; i++) free(packed[i]);
    free(scratch);
    return e;
}

static err attempt(struct try_case *c, struct mem_payer *payer)
{
    struct attempt *a = xnew(struct attempt);
    err e = prepare(c, a, payer);
    if (!e) e = execute(c, a);
    if (a->state) c->class->free(&a->state);
    for (int i = 0; i < c->q.n_in; i++)
        if (a->in[i].data != c->in[i].data) free(a->in[i].data);
    free(a->out.data);
    free(a);
    return e;
}

err try_run(struct try_case *c, struct mem_payer *payer)
{
    if (c->class) return attempt(c, payer);
    for (int i = 0; kernels_onednn_classes[i]; i++) {
        c->class = kernels_onednn_classes[i];
        err e = attempt(c, payer);
        if (e != ERR_UNSUPPORTED) return e;
    }
    c->class = NULL;
    return ERR_UNSUPPORTED;
}
