/* Making nodes in the place of another one while a file is read; for standard*.c alone. The first error stays in
 * maker.e, later calls then make harmless nodes. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "graph/onnx.h"

enum { OPSET = 13 }; /* of the nodes that are made */

struct maker {
    struct graph_reader *r;
    struct graph *g;
    const char *name;
    err e;
};

static inline int value(struct maker *m, const char *what)
{
    if (!m->e) m->e = graph_count_value(m->r, strlen(m->name) + 8);
    char *name = xasprintf("%s/%s", m->name, what);
    int v = graph_add_value(m->g, name, TENSOR_NONE, NULL);
    free(name);
    return v;
}

/* A node of up to three inputs (-1: absent at the end). to < 0: a new value. */
static inline int node(struct maker *m, enum op_kind kind, int a, int b, int c, int to)
{
    int n_in = c >= 0 ? 3 : b >= 0 ? 2 : 1;
    if (to < 0) to = value(m, op_name(kind));
    struct graph_node *n = graph_add_node(m->g, kind, m->name, n_in, 1);
    n->op.opset = OPSET;
    n->op.in[0] = a;
    if (n_in > 1) n->op.in[1] = b;
    if (n_in > 2) n->op.in[2] = c;
    n->op.out[0] = to;
    return to;
}

static inline struct graph_node *last(struct maker *m)
{
    return &m->g->nodes[m->g->n_nodes - 1];
}

static inline int number(struct maker *m, enum tensor_dtype dtype, int rank, const void *bytes, size_t n)
{
    void *p = NULL;
    int64_t one = 1;
    int v = value(m, "constant");
    if (!m->e) m->e = graph_file_block(m->r->file, n, &p);
    if (m->e) return v;
    memcpy(p, bytes, n);
    struct graph_value *value = &m->g->values[v];
    value->dtype = dtype;
    value->shape = tensor_shape_of(rank, &one);
    value->has_shape = true;
    value->constant = p;
    value->constant_bytes = n;
    return v;
}

static inline int integer(struct maker *m, int rank, int64_t v)
{
    return number(m, TENSOR_I64, rank, &v, sizeof v);
}

static inline int real(struct maker *m, float v)
{
    return number(m, TENSOR_F32, 0, &v, sizeof v);
}

/* standard_more.c: false if it does not know the operator. */
bool graph_standard_more_has(const char *domain, const char *name);
void graph_standard_more(struct maker *m, const char *domain, const char *name, size_t at, const struct op_node *n);

static inline int std_one(struct maker *m, enum op_kind k, int a) { return node(m, k, a, -1, -1, -1); }
static inline int std_two(struct maker *m, enum op_kind k, int a, int b) { return node(m, k, a, b, -1, -1); }
/* The number in the type of x. */
static inline int std_like(struct maker *m, float v, int x) { return std_two(m, OP_CAST_LIKE, real(m, v), x); }
static inline int std_input(const struct op_node *n, int i) { return i < n->n_in ? n->in[i] : -1; }

static inline int std_ints(struct maker *m, int n, const int64_t *v)
{
    int id = number(m, TENSOR_I64, 1, v, (size_t)n * sizeof *v);
    int64_t count = n;
    if (!m->e) m->g->values[id].shape = tensor_shape_of(1, &count);
    return id;
}
#define STD_INTS(m, ...) std_ints(m, (int)ARRAY_LEN(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__})

/* Size number `axis` of x as [1]. */
static inline int std_size(struct maker *m, int x, int64_t axis)
{
    return std_two(m, OP_GATHER, std_one(m, OP_SHAPE, x), integer(m, 1, axis));
}

static inline int std_concat(struct maker *m, int64_t axis, int a, int b, int c)
{
    int v = node(m, OP_CONCAT, a, b, c, -1);
    graph_set_int(last(m), "axis", axis);
    return v;
}

static inline int std_transpose(struct maker *m, int x, int rank, const int64_t *perm)
{
    int v = std_one(m, OP_TRANSPOSE, x);
    graph_set_ints(last(m), "perm", perm, (size_t)rank);
    return v;
}
#define STD_TRANSPOSE(m, x, ...) \
    std_transpose(m, x, (int)ARRAY_LEN(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__})

/* x as the node's output number i, if that is wanted. */
static inline void std_give(struct maker *m, const struct op_node *n, int i, int x)
{
    if (i < n->n_out && n->out[i] >= 0) node(m, OP_IDENTITY, x, -1, -1, n->out[i]);
}

/* A node of any number of inputs. to < 0: a new value. */
static inline int std_many(struct maker *m, enum op_kind kind, int opset, int n_in, const int *in, int to)
{
    if (to < 0) to = value(m, op_name(kind));
    struct graph_node *n = graph_add_node(m->g, kind, m->name, n_in, 1);
    n->op.opset = opset;
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    n->op.out[0] = to;
    return to;
}

/* The same with all attributes of n. */
static inline int std_copy(struct maker *m, const struct op_node *n, enum op_kind kind, int opset, int n_in, const int *in, int to)
{
    if (to < 0) to = value(m, op_name(kind));
    struct graph_node from = {.op = *n};
    from.op.kind = kind;
    from.op.n_in = n_in;
    from.op.n_out = 1;
    struct graph_node *made = graph_copy_node(m->g, &from);
    made->op.opset = opset;
    memcpy(made->op.in, in, (size_t)n_in * sizeof *in);
    made->op.out[0] = to;
    return to;
}

/* 0, 1 ... up to size `axis` of x */
static inline int std_count(struct maker *m, int x, int64_t axis)
{
    return node(m, OP_RANGE, integer(m, 0, 0), std_two(m, OP_SQUEEZE, std_size(m, x, axis), integer(m, 1, 0)), integer(m, 0, 1), -1);
}

static inline int std_f32(struct maker *m, int x)
{
    int y = std_one(m, OP_CAST, x);
    graph_set_int(last(m), "to", TENSOR_F32);
    return y;
}

typedef void std_fn(struct maker *m, const struct op_node *n);
std_fn graph_standard_attention, graph_standard_rotary; /* standard_attention.c */
int std_part(struct maker *m, int x, int64_t from, int64_t to, int64_t step); /* of the last axis */
int std_split_heads(struct maker *m, int x, int64_t heads); /* [N, S, heads * D] becomes [N, heads, S, D] */
int std_join_heads(struct maker *m, int x);                 /* and back */
/* x [N, heads, S, D] turned by caches [N or 1, 1, S, D / 2]. */
int std_rotate(struct maker *m, int x, int cosine, int sine, bool interleaved);

/* Operators of com.microsoft; ends with a name of NULL. standard_microsoft.c, standard_quantised.c, standard_heads.c */
struct std_entry {
    const char *name;
    unsigned need;     /* bit i: input i must be there */
    std_fn *make;      /* NULL: the same as an operator of the standard, ... */
    enum op_kind same; /* ... this one, */
    int opset;         /* at this opset */
};
extern const struct std_entry GRAPH_STANDARD_MICROSOFT[];
std_fn graph_standard_qgemm, graph_standard_dynamic_matmul, graph_standard_integer_matmul, graph_standard_qconv, graph_standard_qconcat,
    graph_standard_qglobal_pool, graph_standard_qpool, graph_standard_qsoftmax, graph_standard_qwhere, graph_standard_qmean;
std_fn graph_standard_heads, graph_standard_qheads, graph_standard_multi_head, graph_standard_grouped, graph_standard_rotary_ms;
int std_channels_first(struct maker *m, int x); /* of four axes */
void std_give_channels_last(struct maker *m, const struct op_node *n, int y);
int std_turned(struct maker *m, int x);         /* the last two axes change places */
/* (a - its zero point) as whole real numbers; zero < 0: a itself. */
int std_without_zero(struct maker *m, int a, int zero);
