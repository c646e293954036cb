/* Writing ONNX: the graph as a ModelProto.
 *
 * A message needs its length before its content, so the model is a list of pieces (bytes of our own, or borrowed
 * constants) and a sum; nested messages are lists that are appended to the one around them. Constants are never
 * copied, and a file larger than memory can be written.
 *
 * Numbers of initialisers begin at multiples of 8 bytes, by documentation strings of spaces before them: a reader that maps the file (onnx_tensor.c) then needs no
 * copy of them.
 *
 * Invariant: out->n is the sum of its pieces. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph/graph.h"
#include "graph/names.h"
#include "tensor/small.h"

struct piece {
    const void *p;
    size_t n;
    char *own; /* freed with the list */
};
struct out {
    struct strbuf tail; /* not yet a piece */
    struct piece *pieces;
    size_t n_pieces, cap;
    size_t n;
};

/* ---- bytes */

static void varint(struct out *o, uint64_t v)
{
    do {
        char b = (char)((v & 127) | (v > 127 ? 128 : 0));
        strbuf_addn(&o->tail, &b, 1);
        o->n++;
        v >>= 7;
    } while (v);
}

static void flush(struct out *o)
{
    if (!o->tail.len) return;
    size_t n = o->tail.len;
    char *s = strbuf_take(&o->tail);
    vec_grow(&o->pieces, &o->cap, o->n_pieces);
    o->pieces[o->n_pieces++] = (struct piece){s, n, s};
}

static void put_number(struct out *o, uint32_t field, uint64_t v)
{
    varint(o, (uint64_t)field << 3);
    varint(o, v);
}

static void put_bytes(struct out *o, uint32_t field, const void *p, size_t n)
{
    varint(o, (uint64_t)field << 3 | 2);
    varint(o, n);
    if (n) strbuf_addn(&o->tail, p, n);
    o->n += n;
}

static void put_string(struct out *o, uint32_t field, const char *s)
{
    put_bytes(o, field, s, strlen(s));
}

static void put_float(struct out *o, uint32_t field, float f)
{
    varint(o, (uint64_t)field << 3 | 5);
    strbuf_addn(&o->tail, (const char *)&f, sizeof f);
    o->n += sizeof f;
}

/* Bytes that stay where they are until the list is written. */
static void put_borrowed(struct out *o, uint32_t field, const void *p, size_t n)
{
    varint(o, (uint64_t)field << 3 | 2);
    varint(o, n);
    flush(o);
    vec_grow(&o->pieces, &o->cap, o->n_pieces);
    o->pieces[o->n_pieces++] = (struct piece){p, n, NULL};
    o->n += n;
}

/* Moves the message `m` into `o` and empties it. */
static void put_message(struct out *o, uint32_t field, struct out *m)
{
    flush(m);
    varint(o, (uint64_t)field << 3 | 2);
    varint(o, m->n);
    flush(o);
    for (size_t i = 0; i < m->n_pieces; i++) {
        vec_grow(&o->pieces, &o->cap, o->n_pieces);
        o->pieces[o->n_pieces++] = m->pieces[i];
    }
    o->n += m->n;
    free(m->pieces);
    *m = (struct out){0};
}

static void out_done(struct out *o)
{
    for (size_t i = 0; i < o->n_pieces; i++) free(o->pieces[i].own);
    free(o->pieces);
    strbuf_done(&o->tail);
    *o = (struct out){0};
}

/* ---- messages (field numbers of onnx.proto) */

enum { ALIGN = 8, TENSOR_DOC = 12, MODEL_DOC = 6 };

static size_t varint_bytes(uint64_t v)
{
    size_t n = 1;
    while (v >>= 7) n++;
    return n;
}

/* A documentation string that takes `bytes` (2 to 129) in all. */
static void put_space(struct out *o, uint32_t field, size_t bytes)
{
    char spaces[129];
    memset(spaces, ' ', sizeof spaces);
    put_bytes(o, field, spaces, bytes - 2);
}

/* pad: 0, or bytes before the numbers. */
static void tensor_message(struct out *o, const char *name, enum tensor_dtype dtype, const struct tensor_shape *shape, const void *p, size_t n, size_t pad)
{
    for (int i = 0; i < shape->rank; i++) put_number(o, 1, (uint64_t)shape->dims[i]);
    put_number(o, 2, (uint64_t)dtype);
    if (*name) put_string(o, 8, name);
    int bits = tensor_small_bits(dtype);
    if (pad) put_space(o, TENSOR_DOC, pad);
    if (!bits || bits == 8) {
        put_borrowed(o, 9, p, n);
        return;
    }
    size_t per_byte = 8 / (size_t)bits, packed_bytes = (n + per_byte - 1) / per_byte;
    uint8_t *packed = xcalloc(packed_bytes + 1, 1);
    for (size_t i = 0; i < n; i++)
        packed[i / per_byte] |= (uint8_t)((((const uint8_t *)p)[i] & ((1 << bits) - 1)) << (i % per_byte * (size_t)bits));
    put_bytes(o, 9, packed, packed_bytes);
    free(packed);
}

static void info_message(struct out *o, const struct graph *g, const struct graph_value *v)
{
    struct out type = {0}, tensor = {0}, shape = {0};
    for (int i = 0; i < v->shape.rank; i++) {
        struct out dim = {0};
        int64_t d = v->shape.dims[i];
        if (d >= 0)
            put_number(&dim, 1, (uint64_t)d);
        else
            put_string(&dim, 2, g->symbols[TENSOR_SYMBOL_NUMBER(d)]);
        put_message(&shape, 1, &dim);
    }
    put_number(&tensor, 1, (uint64_t)v->dtype);
    if (v->has_shape) put_message(&tensor, 2, &shape);
    put_message(&type, 1, &tensor);
    put_string(o, 1, v->name);
    put_message(o, 2, &type);
    out_done(&shape);
}

static void attr_message(struct out *o, const struct op_attr *a)
{
    struct out tensor = {0};
    put_string(o, 1, a->name);
    put_number(o, 20, (uint64_t)a->type);
    switch (a->type) {
    case OP_ATTR_FLOAT: put_float(o, 2, a->f); break;
    case OP_ATTR_INT: put_number(o, 3, (uint64_t)a->i); break;
    case OP_ATTR_STRING: put_bytes(o, 4, a->s, a->n); break;
    case OP_ATTR_TENSOR:
        tensor_message(&tensor, "", a->tensor.dtype, &a->tensor.shape, a->tensor.data,
                       (size_t)tensor_count(&a->tensor.shape) * tensor_dtype_size(a->tensor.dtype), 0);
        put_message(o, 5, &tensor);
        break;
    case OP_ATTR_FLOATS:
        for (size_t i = 0; i < a->n; i++) put_float(o, 7, a->floats[i]);
        break;
    case OP_ATTR_INTS:
        for (size_t i = 0; i < a->n; i++) put_number(o, 8, (uint64_t)a->ints[i]);
        break;
    case OP_ATTR_STRINGS:
        for (size_t i = 0, at = 0; i < a->n && at < (size_t)a->i; i++, at += strlen(a->s + at) + 1)
            put_string(o, 9, a->s + at);
        break;
    case OP_ATTR_GRAPH: break;
    }
}

static bool of_brim(enum op_kind kind)
{
    return op_find("brim", op_name(kind)) == kind;
}

static err node_message(struct out *o, const struct graph *g, char *const *names, const struct graph_node *n)
{
    if (n->n_post || n->op.n_in != n->n_own_in)
        return err_set(
            ERR_UNSUPPORTED,
            "%s: node '%s' has fused operations, which ONNX cannot say; write the graph before rewriting it",
            g->name, n->op.name);
    for (int i = 0; i < n->op.n_in; i++) put_string(o, 1, n->op.in[i] < 0 ? "" : names[n->op.in[i]]);
    for (int i = 0; i < n->op.n_out; i++) put_string(o, 2, n->op.out[i] < 0 ? "" : names[n->op.out[i]]);
    if (*n->op.name) put_string(o, 3, n->op.name);
    put_string(o, 4, op_name(n->op.kind));
    if (of_brim(n->op.kind)) put_string(o, 7, "brim");
    for (int i = 0; i < n->op.n_attrs; i++) {
        struct out a = {0};
        if (n->op.attrs[i].type == OP_ATTR_GRAPH)
            return err_set(ERR_UNSUPPORTED, "%s: node '%s' holds a graph, which is not written yet", g->name,
                           n->op.name);
        attr_message(&a, &n->op.attrs[i]);
        put_message(o, 5, &a);
    }
    return ERR_OK;
}

/* So many bytes before the numbers of a tensor message `t` (with n bytes of numbers) put them at a multiple of ALIGN from the beginning of `o`, which takes it next. */
static size_t padding(const struct out *o, const struct out *t, size_t n)
{
    size_t pad = 0;
    while ((o->n + 1 + varint_bytes(t->n + pad) + t->n - n + pad) % ALIGN) pad = MAX(pad + 1, 2);
    return pad;
}

static void put_constant(struct out *o, const char *name, const struct graph_value *v)
{
    struct out t = {0};
    tensor_message(&t, name, v->dtype, &v->shape, v->constant, v->constant_bytes, 0);
    size_t pad = t.n > v->constant_bytes ? padding(o, &t, v->constant_bytes) : 0;
    if (pad) {
        out_done(&t);
        tensor_message(&t, name, v->dtype, &v->shape, v->constant, v->constant_bytes, pad);
    }
    put_message(o, 5, &t);
}

static err graph_message(struct out *o, const struct graph *g, char *const *names)
{
    err e = ERR_OK;
    put_string(o, 2, "brim");
    for (size_t i = 0; i < g->n_nodes && !e; i++) {
        struct out n = {0};
        if (g->nodes[i].dead) continue;
        e = node_message(&n, g, names, &g->nodes[i]);
        if (e)
            out_done(&n);
        else
            put_message(o, 1, &n);
    }
    int *uses = graph_use_counts(g);
    for (size_t v = 0; v < g->n_values && !e; v++) {
        const struct graph_value *value = &g->values[v];
        if (value->constant && uses[v]) put_constant(o, names[v], value);
    }
    free(uses);
    for (int i = 0; i < g->n_inputs + g->n_outputs && !e; i++) {
        struct out info = {0};
        bool in = i < g->n_inputs;
        info_message(&info, g, &g->values[in ? g->inputs[i] : g->outputs[i - g->n_inputs]]);
        put_message(o, in ? 11 : 12, &info);
    }
    return e;
}

/* Names must be unique in a file, and those that rewrites make need not be: inputs and outputs keep theirs, then
 * the first comer. */
static void name_values(const struct graph *g, char **names)
{
    struct graph_names taken = {0};
    for (int pass = 0; pass < 2; pass++)
        for (size_t v = 0; v < g->n_values; v++) {
            const struct graph_value *value = &g->values[v];
            if ((value->is_input || value->is_output) != (pass == 0)) continue;
            names[v] = *value->name ? xstrdup(value->name) : xasprintf("v%zu", v);
            while (!graph_names_add(&taken, names[v], (int)v)) {
                char *longer = xasprintf("%s.%zu", names[v], v);
                free(names[v]);
                names[v] = longer;
            }
        }
    graph_names_done(&taken);
}

static err model_message(struct out *o, const struct graph *g)
{
    struct out graph = {0};
    char **names = xnewn(char *, g->n_values + 1);
    bool brim = false;
    for (size_t i = 0; i < g->n_nodes; i++) brim |= of_brim(g->nodes[i].op.kind);
    name_values(g, names);
    err e = graph_message(&graph, g, names);
    put_number(o, 1, 8);
    put_string(o, 2, "brim");
    for (int i = 0; i < 1 + brim; i++) {
        struct out opset = {0};
        put_string(&opset, 1, i ? "brim" : "");
        put_number(&opset, 2, i ? 1 : (uint64_t)g->opset);
        put_message(o, 8, &opset);
    }
    size_t begins = o->n + 1 + varint_bytes(graph.n), space = (ALIGN - begins % ALIGN) % ALIGN;
    if (space) put_space(o, MODEL_DOC, space < 2 ? space + ALIGN : space);
    put_message(o, 7, &graph);
    flush(o);
    for (size_t v = 0; v < g->n_values; v++) free(names[v]);
    free(names);
    return e;
}

/* ---- to memory, to a file */

static void *joined(const struct out *o)
{
    char *p = xcalloc(o->n + 1, 1);
    size_t at = 0;
    for (size_t i = 0; i < o->n_pieces; i++) {
        if (o->pieces[i].n) memcpy(p + at, o->pieces[i].p, o->pieces[i].n);
        at += o->pieces[i].n;
    }
    return p;
}

err graph_write(const struct graph *g, void **ret, size_t *ret_n)
{
    struct out o = {0};
    err e = model_message(&o, g);
    if (!e) {
        *ret = joined(&o);
        *ret_n = o.n;
    }
    out_done(&o);
    return e;
}

err graph_write_tensor(const char *name, const struct tensor *t, void **ret, size_t *ret_n)
{
    struct out o = {0};
    if (!tensor_is_row_major(t)) return err_set(ERR_UNSUPPORTED, "'%s' is not in row-major order", name);
    tensor_message(&o, name, t->dtype, &t->shape, t->data,
                   (size_t)tensor_count(&t->shape) * tensor_dtype_size(t->dtype), 0);
    flush(&o);
    *ret = joined(&o);
    *ret_n = o.n;
    out_done(&o);
    return ERR_OK;
}

static err write_all(int fd, const struct out *o, const char *path)
{
    for (size_t i = 0; i < o->n_pieces; i++) {
        const char *p = o->pieces[i].p;
        for (size_t left = o->pieces[i].n; left;) {
            ssize_t n = write(fd, p, MIN(left, (size_t)1 << 30));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) return err_set(ERR_IO, "%s: cannot write: %s", path, strerror(errno));
            p += n;
            left -= (size_t)n;
        }
    }
    return fsync(fd) && errno != EINVAL ? err_set(ERR_IO, "%s: cannot write: %s", path, strerror(errno)) : ERR_OK;
}

err graph_save(const struct graph *g, const char *path)
{
    struct out o = {0};
    bool through = path_is_special(path);
    char *temporary = through ? xstrdup(path) : xasprintf("%s.%d.part", path, (int)getpid());
    err e = model_message(&o, g);
    int fd = e ? -1 : open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (!e && fd < 0) e = err_set(ERR_IO, "%s: cannot write: %s", temporary, strerror(errno));
    if (!e) e = write_all(fd, &o, path);
    if (fd >= 0 && close(fd) && !e) e = err_set(ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    if (!e && !through && rename(temporary, path)) e = err_set(ERR_IO, "%s: cannot rename: %s", path, strerror(errno));
    if (e && fd >= 0 && !through) unlink(temporary);
    free(temporary);
    out_done(&o);
    return e;
}
