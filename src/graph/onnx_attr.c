/* AttributeProto. Only the field that belongs to the attribute's type is kept. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "graph/onnx.h"

enum { /* field numbers */
    A_NAME = 1, A_F = 2, A_I = 3, A_S = 4, A_T = 5, A_G = 6, A_FLOATS = 7, A_INTS = 8, A_STRINGS = 9, A_TENSORS = 10,
    A_GRAPHS = 11, A_TYPE = 20, A_REF = 21, A_SPARSE = 22,
};

static float as_float(uint64_t bits)
{
    uint32_t b = (uint32_t)bits;
    float f;
    memcpy(&f, &b, sizeof f);
    return f;
}

/* One field of ints or floats; *cap grows by doubling, and every step is booked. */
static err add_numbers(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *f,
                       struct op_attr *a, size_t *cap)
{
    bool ints = f->number == A_INTS;
    const uint8_t *pos = NULL;
    uint64_t v;
    int more;
    while ((more = graph_wire_number(w, f, ints ? GRAPH_WIRE_VARINT : GRAPH_WIRE_FIXED32, &pos, &v)) > 0) {
        size_t len = a->n;
        if (len == *cap) {
            err e = graph_book(r, (len + 16) * (ints ? sizeof *a->ints : sizeof *a->floats));
            if (e) return e;
        }
        if (ints) {
            vec_grow(&a->ints, cap, len);
            a->ints[len] = (int64_t)v;
        } else {
            vec_grow(&a->floats, cap, len);
            a->floats[len] = as_float(v);
        }
        a->n++;
    }
    return more;
}

static err read_bytes(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *f,
                      struct op_attr *a)
{
    err e = graph_wire_want(w, f, GRAPH_WIRE_BYTES);
    if (!e) e = graph_book(r, f->n);
    if (e) return e;
    free(a->s);
    a->s = xcalloc(f->n + 1, 1);
    memcpy(a->s, f->p, f->n);
    a->n = f->n;
    return ERR_OK;
}

/* One more of a list of strings: behind the others, with its 0. */
static err add_string(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *f,
                      struct op_attr *a)
{
    err e = graph_wire_want(w, f, GRAPH_WIRE_BYTES);
    if (!e) e = graph_book(r, f->n + 1);
    if (e) return e;
    size_t had = (size_t)a->i;
    char *all = xcalloc(had + f->n + 1, 1);
    if (had) memcpy(all, a->s, had);
    memcpy(all + had, f->p, f->n);
    free(a->s);
    a->s = all;
    a->i = (int64_t)(had + f->n + 1);
    a->n++;
    return a->n > 64 ? err_set(ERR_UNSUPPORTED, "more than 64 strings") : ERR_OK;
}

static err read_tensor(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *f,
                       struct op_attr *a)
{
    struct graph_wire sub;
    struct graph_tensor_proto t;
    err e = graph_wire_sub(w, f, &sub);
    if (!e) e = graph_read_tensor(r->file, &sub, &t);
    if (e) return e;
    a->tensor = tensor_view(t.dtype, &t.shape, t.data);
    return ERR_OK;
}

static err read_subgraph(struct graph_reader *r, struct graph_scope *scope, const struct graph_wire *w,
                         const struct graph_field *f, int depth, struct op_attr *a)
{
    struct graph_wire sub;
    err e = graph_wire_sub(w, f, &sub);
    if (!e && a->graph) e = graph_wire_fail(w, ERR_FORMAT, f->start, "an attribute with two graphs");
    return e ? e : graph_read_graph(r, scope, &sub, depth + 1, &a->graph);
}

/* The type by the field that is there: for files older than the `type` field. */
static enum op_attr_type type_of_field(uint32_t number)
{
    static const struct { uint8_t field, type; } table[] = {
        {A_F, OP_ATTR_FLOAT}, {A_I, OP_ATTR_INT}, {A_S, OP_ATTR_STRING}, {A_T, OP_ATTR_TENSOR}, {A_G, OP_ATTR_GRAPH},
        {A_FLOATS, OP_ATTR_FLOATS}, {A_INTS, OP_ATTR_INTS}, {A_STRINGS, OP_ATTR_STRINGS},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (table[i].field == number) return (enum op_attr_type)table[i].type;
    return (enum op_attr_type)0;
}

/* The name and the type come first, wherever they stand in the file. */
static err read_head(struct graph_reader *r, const struct graph_wire *whole, struct op_attr *ret)
{
    struct graph_wire w = *whole;
    struct graph_field f;
    uint64_t type = 0;
    enum op_attr_type guess = (enum op_attr_type)0;
    int more;
    while ((more = graph_wire_next(&w, &f)) > 0) {
        err e = ERR_OK;
        if (f.number == A_NAME) {
            free(ret->name);
            ret->name = NULL;
            e = graph_read_name(r, &w, &f, &ret->name);
        } else if (f.number == A_TYPE) {
            e = graph_wire_want(&w, &f, GRAPH_WIRE_VARINT);
            type = f.u;
        } else if (type_of_field(f.number)) {
            guess = type_of_field(f.number);
        }
        if (e) return e;
    }
    if (more < 0) return more;
    if (!ret->name || !*ret->name)
        return graph_wire_fail(whole, ERR_FORMAT, whole->at, "an attribute without a name");
    if (!type) type = guess;
    if (type < OP_ATTR_FLOAT || type > OP_ATTR_STRINGS)
        return graph_wire_fail(whole, type ? ERR_UNSUPPORTED : ERR_FORMAT, whole->at,
                               "attribute '%s' has the type %llu", ret->name, (unsigned long long)type);
    ret->type = (enum op_attr_type)type;
    return ERR_OK;
}

err graph_read_attr(struct graph_reader *r, struct graph_scope *scope, const struct graph_wire *whole, int depth,
                    struct op_attr *ret)
{
    struct graph_wire w = *whole;
    struct graph_field f;
    size_t cap = 0;
    int more;
    err e = graph_book(r, sizeof *ret);
    while (!e && (more = graph_wire_next(&w, &f)) > 0)
        if (f.number == A_REF && f.n) return graph_function_attr(r, whole, &f, depth, ret);
    w = *whole;
    if (!e) e = read_head(r, whole, ret);
    if (e) return e;
    bool seen = false;
    while ((more = graph_wire_next(&w, &f)) > 0) {
        if (type_of_field(f.number) != ret->type) continue;
        seen = true;
        switch (ret->type) {
        case OP_ATTR_FLOAT:
            e = graph_wire_want(&w, &f, GRAPH_WIRE_FIXED32);
            ret->f = as_float(f.u);
            break;
        case OP_ATTR_INT:
            e = graph_wire_want(&w, &f, GRAPH_WIRE_VARINT);
            ret->i = (int64_t)f.u;
            break;
        case OP_ATTR_STRING: e = read_bytes(r, &w, &f, ret); break;
        case OP_ATTR_TENSOR: e = read_tensor(r, &w, &f, ret); break;
        case OP_ATTR_GRAPH: e = read_subgraph(r, scope, &w, &f, depth, ret); break;
        case OP_ATTR_FLOATS:
        case OP_ATTR_INTS: e = add_numbers(r, &w, &f, ret, &cap); break;
        case OP_ATTR_STRINGS: e = add_string(r, &w, &f, ret); break;
        }
        if (e) return err_wrap(e, "attribute '%s'", ret->name);
    }
    if (more < 0) return more;
    if (ret->type == OP_ATTR_STRING && !ret->s) ret->s = xstrdup("");
    if (!seen && (ret->type == OP_ATTR_TENSOR || ret->type == OP_ATTR_GRAPH))
        return graph_wire_fail(whole, ERR_FORMAT, whole->at, "attribute '%s' is empty", ret->name);
    return ERR_OK;
}
