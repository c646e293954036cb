/* Reading ONNX: ModelProto, GraphProto, NodeProto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
 *
 * A graph is read in passes over its fields, because ONNX lets them come in any order: constants, inputs, the names
 * of what nodes make, outputs, the nodes themselves, and what the file says of shapes. A name that a subgraph does
 * not know is looked up in the graph around it and becomes an `outer` value. In the end every value that is read
 * has one producer, and nodes are sorted.
 *
 * Nothing is believed: counts, depth, names and lengths are bounded, and bookkeeping is paid (graph_book).
 * SPDX-License-Identifier: Apache-2.0 */
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "graph/onnx.h"
#include "graph/strip.h"

enum { BOOK_STEP = 64 << 10 };

enum { /* field numbers */
    M_IR = 1, M_GRAPH = 7, M_OPSET = 8, M_FUNCTIONS = 25,
    G_NODE = 1, G_NAME = 2, G_INITIALISER = 5, G_INPUT = 11, G_OUTPUT = 12, G_INFO = 13, G_SPARSE = 15,
    N_IN = 1, N_OUT = 2, N_NAME = 3, N_OP = 4, N_ATTR = 5, N_DOMAIN = 7, N_OVERLOAD = 8,
};

err graph_book(struct graph_reader *r, size_t n)
{
    r->spent += n;
    if (r->spent <= r->file->booked) return ERR_OK;
    size_t more = (r->spent - r->file->booked + BOOK_STEP - 1) / BOOK_STEP * BOOK_STEP;
    err e = mem_charge(r->file->payer, MEM_OTHER, more);
    if (!e) r->file->booked += more;
    return e;
}

err graph_read_name(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *f, char **ret)
{
    err e = graph_wire_want(w, f, GRAPH_WIRE_BYTES);
    if (!e) e = graph_book(r, f->n + 32);
    if (e) return e;
    if (f->n > GRAPH_MAX_NAME) return graph_wire_fail(w, ERR_LIMIT, f->start, "a name of %zu bytes", f->n);
    for (size_t i = 0; i < f->n; i++)
        if (f->p[i] < 32 || f->p[i] == 127)
            return graph_wire_fail(w, ERR_FORMAT, f->start, "a name with the control character %d", f->p[i]);
    *ret = xstrndup((const char *)f->p, f->n);
    return ERR_OK;
}

/* ---- values */

err graph_count_value(struct graph_reader *r, size_t name)
{
    if (++r->n_values > GRAPH_MAX_VALUES)
        return err_set(ERR_LIMIT, "%s: more than %d values", r->name, GRAPH_MAX_VALUES);
    return graph_book(r, sizeof(struct graph_value) * 2 + 64 + name);
}

static err add_value(struct graph_reader *r, struct graph_scope *s, const char *name, int *ret)
{
    err e = graph_count_value(r, strlen(name));
    if (e) return e;
    *ret = graph_add_value(s->g, name, TENSOR_NONE, NULL);
    graph_names_add(&s->names, s->g->values[*ret].name, *ret);
    return ERR_OK;
}

/* -1 if nobody knows the name; GRAPH_ABSENT. */
static err resolve(struct graph_reader *r, struct graph_scope *s, const char *name, int *ret)
{
    *ret = graph_names_find(&s->names, name);
    if (*ret != -1 || !s->outer) return ERR_OK;
    int outer;
    err e = resolve(r, s->outer, name, &outer);
    if (e || outer < 0) {
        *ret = outer;
        return e;
    }
    e = add_value(r, s, name, ret);
    if (e) return e;
    struct graph_value *v = &s->g->values[*ret];
    const struct graph_value *o = &s->outer->g->values[outer];
    v->outer = true;
    v->outer_value = outer;
    v->dtype = o->dtype;
    v->shape = o->shape;
    v->has_shape = o->has_shape;
    return ERR_OK;
}

static err symbol(struct graph_reader *r, const char *name, int64_t *ret)
{
    int i = graph_names_find(&r->symbols, name);
    if (i < 0) {
        struct graph *g = r->root;
        err e = graph_book(r, 64 + strlen(name));
        if (e) return e;
        if (g->n_symbols >= GRAPH_MAX_VALUES) return err_set(ERR_LIMIT, "%s: too many unknown sizes", r->name);
        size_t cap = (size_t)g->n_symbols;
        if ((cap & (cap - 1)) == 0) g->symbols = xrealloc(g->symbols, MAX(cap * 2, (size_t)4) * sizeof *g->symbols);
        i = g->n_symbols;
        g->symbols[g->n_symbols++] = xstrdup(name);
        graph_names_add(&r->symbols, g->symbols[i], i);
    }
    *ret = TENSOR_SYMBOL(i);
    return ERR_OK;
}

/* TensorShapeProto.Dimension: a number, a symbol, or nothing, which is a symbol of its own. */
static err read_dim(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *field,
                    const char *value, int axis, int64_t *ret)
{
    struct graph_wire sub;
    struct graph_field f;
    err e = graph_wire_sub(w, field, &sub);
    if (e) return e;
    char *name = NULL;
    int64_t size = -1;
    int more;
    while (!e && (more = graph_wire_next(&sub, &f)) > 0) {
        if (f.number == 1) {
            e = graph_wire_want(&sub, &f, GRAPH_WIRE_VARINT);
            size = (int64_t)f.u;
        } else if (f.number == 2) {
            free(name);
            name = NULL;
            e = graph_read_name(r, &sub, &f, &name);
            size = -1;
        }
    }
    if (!e && more < 0) e = more;
    if (!e && size >= 0) {
        *ret = size;
    } else if (!e) {
        if (!name || !*name) {
            free(name);
            name = xasprintf("%s.%d", value, axis);
        }
        e = symbol(r, name, ret);
    }
    free(name);
    return e;
}

static err read_shape(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *field,
                      const char *value, struct tensor_shape *ret)
{
    struct graph_wire sub;
    struct graph_field f;
    err e = graph_wire_sub(w, field, &sub);
    if (e) return e;
    *ret = (struct tensor_shape){0};
    int more;
    while ((more = graph_wire_next(&sub, &f)) > 0) {
        if (f.number != 1) continue;
        if (ret->rank >= TENSOR_MAX_RANK)
            return graph_wire_fail(&sub, ERR_LIMIT, f.start, "'%s' has more than %d dimensions", value,
                                   TENSOR_MAX_RANK);
        e = read_dim(r, &sub, &f, value, ret->rank, &ret->dims[ret->rank]);
        if (e) return e;
        ret->rank++;
    }
    return more;
}

err graph_read_type(struct graph_reader *r, const struct graph_wire *w, const char *value_name,
                    struct graph_value *ret)
{
    struct graph_wire type = *w, tensor;
    struct graph_field f;
    err e = ERR_OK;
    int more;
    while ((more = graph_wire_next(&type, &f)) > 0) {
        if (f.number != 1) continue; /* sequences, maps, optionals: no type that brim knows */
        if ((e = graph_wire_sub(&type, &f, &tensor))) return e;
        while ((more = graph_wire_next(&tensor, &f)) > 0) {
            if (f.number == 1 && f.type == GRAPH_WIRE_VARINT) {
                graph_read_dtype(f.u, &ret->dtype);
            } else if (f.number == 2) {
                e = read_shape(r, &tensor, &f, value_name, &ret->shape);
                if (e) return e;
                ret->has_shape = true;
            }
        }
        if (more < 0) return more;
    }
    return more;
}

/* ValueInfoProto: *ret_name is to be freed, also on failure. */
static err read_info(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *field,
                     char **ret_name, struct graph_value *ret)
{
    struct graph_wire sub, type;
    struct graph_field f, type_field = {0};
    err e = graph_wire_sub(w, field, &sub);
    int more = 0;
    *ret = (struct graph_value){0};
    while (!e && (more = graph_wire_next(&sub, &f)) > 0) {
        if (f.number == 1) {
            free(*ret_name);
            *ret_name = NULL;
            e = graph_read_name(r, &sub, &f, ret_name);
        } else if (f.number == 2) {
            type_field = f;
        }
    }
    if (!e) e = MIN(more, 0);
    if (e) return e;
    if (!*ret_name || !**ret_name) return graph_wire_fail(w, ERR_FORMAT, field->start, "a value without a name");
    if (!type_field.number) return ERR_OK;
    e = graph_wire_sub(&sub, &type_field, &type);
    return e ? e : graph_read_type(r, &type, *ret_name, ret);
}

static void learn(struct graph_value *v, const struct graph_value *info)
{
    if (v->constant) return; /* its own type and shape are certain */
    if (info->dtype) v->dtype = info->dtype;
    if (info->has_shape) {
        v->shape = info->shape;
        v->has_shape = true;
    }
}

/* ---- the parts of a graph */

static err read_initialiser(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                            const struct graph_field *f)
{
    struct graph_wire sub;
    struct graph_tensor_proto t;
    char *name = NULL;
    int v;
    err e = graph_wire_sub(w, f, &sub);
    if (!e) e = graph_read_tensor(r->file, &sub, &t);
    if (!e && !t.name.n) e = graph_wire_fail(w, ERR_FORMAT, f->start, "an initialiser without a name");
    if (!e) e = graph_read_name(r, &sub, &t.name, &name);
    if (!e && graph_names_find(&s->names, name) >= 0)
        e = graph_wire_fail(w, ERR_FORMAT, f->start, "two initialisers have the name '%s'", name);
    if (!e) e = add_value(r, s, name, &v);
    free(name);
    if (e) return e;
    struct graph_value *value = &s->g->values[v];
    value->dtype = t.dtype;
    value->shape = t.shape;
    value->has_shape = true;
    value->constant = t.data;
    value->constant_bytes = t.bytes;
    return ERR_OK;
}

static err read_input(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                      const struct graph_field *f)
{
    char *name = NULL;
    struct graph_value info;
    int v = -1;
    err e = read_info(r, w, f, &name, &info);
    if (!e) v = graph_names_find(&s->names, name);
    if (!e && v >= 0 && s->g->values[v].constant) { /* IR versions below 4 list initialisers as inputs */
        free(name);
        return ERR_OK;
    }
    if (!e && v >= 0) e = graph_wire_fail(w, ERR_FORMAT, f->start, "two inputs have the name '%s'", name);
    if (!e && !s->outer && !info.dtype)
        e = graph_wire_fail(w, ERR_UNSUPPORTED, f->start, "input '%s' is not a tensor of numbers", name);
    if (!e) e = add_value(r, s, name, &v);
    free(name);
    if (e) return e;
    learn(&s->g->values[v], &info);
    s->g->values[v].is_input = true;
    s->g->inputs = xrealloc(s->g->inputs, ((size_t)s->g->n_inputs + 1) * sizeof *s->g->inputs);
    s->g->inputs[s->g->n_inputs++] = v;
    return ERR_OK;
}

static err declare_outputs(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                           const struct graph_field *node)
{
    struct graph_wire sub;
    struct graph_field f;
    err e = graph_wire_sub(w, node, &sub);
    int more = 0;
    while (!e && (more = graph_wire_next(&sub, &f)) > 0) {
        if (f.number != N_OUT || !f.n) continue;
        char *name = NULL;
        int v;
        e = graph_read_name(r, &sub, &f, &name);
        if (!e && graph_names_find(&s->names, name) >= 0)
            e = graph_wire_fail(&sub, ERR_FORMAT, f.start, "'%s' is made twice", name);
        if (!e) e = add_value(r, s, name, &v);
        free(name);
    }
    return e ? e : MIN(more, 0);
}

static err read_output(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                       const struct graph_field *f)
{
    char *name = NULL;
    struct graph_value info;
    int v = -1;
    err e = read_info(r, w, f, &name, &info);
    if (!e) e = resolve(r, s, name, &v);
    if (!e && v < 0) e = graph_wire_fail(w, ERR_FORMAT, f->start, "nothing makes the output '%s'", name);
    for (int i = 0; !e && i < s->g->n_outputs; i++)
        if (s->g->outputs[i] == v && !s->outer)
            e = graph_wire_fail(w, ERR_FORMAT, f->start, "two outputs have the name '%s'", name);
    free(name);
    if (e) return e;
    if (s->g->n_outputs >= GRAPH_MAX_NAME)
        return graph_wire_fail(w, ERR_LIMIT, f->start, "more than %d outputs", GRAPH_MAX_NAME);
    learn(&s->g->values[v], &info);
    graph_add_output(s->g, v);
    return ERR_OK;
}

static err read_value_info(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                           const struct graph_field *f)
{
    char *name = NULL;
    struct graph_value info;
    err e = read_info(r, w, f, &name, &info);
    int v = e ? -1 : graph_names_find(&s->names, name);
    if (v >= 0 && !s->g->values[v].is_input) learn(&s->g->values[v], &info);
    free(name);
    return e;
}

/* ---- nodes */

struct node_parts {
    char *name, *op, *domain, *overload;
    int n_in, n_out, n_attrs; /* without absent ones at the end */
    const uint8_t *start;
};

static err read_node_parts(struct graph_reader *r, const struct graph_wire *whole, struct node_parts *p)
{
    struct graph_wire w = *whole;
    struct graph_field f;
    int more = 0, in = 0, out = 0;
    err e = ERR_OK;
    while (!e && (more = graph_wire_next(&w, &f)) > 0) {
        char **to = f.number == N_NAME     ? &p->name
                    : f.number == N_OP     ? &p->op
                    : f.number == N_DOMAIN ? &p->domain
                    : f.number == N_OVERLOAD ? &p->overload
                                           : NULL;
        if (to) {
            free(*to);
            *to = NULL;
            e = graph_read_name(r, &w, &f, to);
        } else if (f.number == N_IN || f.number == N_OUT) {
            int *n = f.number == N_IN ? &in : &out;
            e = graph_wire_want(&w, &f, GRAPH_WIRE_BYTES);
            if (++*n > GRAPH_MAX_NAME)
                e = graph_wire_fail(&w, ERR_LIMIT, f.start, "a node of too many inputs or outputs");
            if (f.n) *(f.number == N_IN ? &p->n_in : &p->n_out) = *n;
        } else if (f.number == N_ATTR && ++p->n_attrs > GRAPH_MAX_ATTRS) {
            e = graph_wire_fail(&w, ERR_LIMIT, f.start, "a node of more than %d attributes", GRAPH_MAX_ATTRS);
        }
    }
    if (!p->name) p->name = xstrdup("");
    if (!p->op) p->op = xstrdup("");
    if (!p->domain) p->domain = xstrdup("");
    return e ? e : MIN(more, 0);
}

static int opset_of(const struct graph_reader *r, const char *domain)
{
    if (strcmp(domain, "ai.onnx") == 0) domain = "";
    for (int i = 0; i < r->n_domains; i++)
        if (strcmp(r->domains[i].name, domain) == 0) return r->domains[i].version;
    return 0;
}

static err check_node(const struct graph_reader *r, const struct graph_wire *w, const struct node_parts *p)
{
    int opset = opset_of(r, p->domain);
    const char *domain = *p->domain ? p->domain : "ai.onnx";
    if (!*p->op) return graph_wire_fail(w, ERR_FORMAT, w->at, "node '%s' names no operator", p->name);
    if (!op_find(p->domain, p->op) && !graph_standard_has(p->domain, p->op))
        return graph_wire_fail(
            w, ERR_UNSUPPORTED, w->at, "node '%s': operator %s of %s (opset %d) is not supported; %s", p->name,
            p->op, domain, opset,
            "export the model without it (another opset, or a simplifier)");
    if (!opset && strcmp(p->domain, "brim") != 0)
        return graph_wire_fail(w, ERR_FORMAT, w->at, "node '%s': the file imports no opset of %s", p->name, domain);
    if (p->n_in > KERNEL_MAX_IN || p->n_out > KERNEL_MAX_OUT)
        return graph_wire_fail(w, ERR_UNSUPPORTED, w->at,
                               "node '%s' (%s) has %d inputs and %d outputs; the most are %d and %d", p->name,
                               p->op, p->n_in, p->n_out, KERNEL_MAX_IN, KERNEL_MAX_OUT);
    if (!p->n_out) return graph_wire_fail(w, ERR_FORMAT, w->at, "node '%s' (%s) makes nothing", p->name, p->op);
    return ERR_OK;
}

err graph_read_use(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                   const struct graph_field *f, const char *node, int *ret)
{
    char *name = NULL;
    int v = -1;
    err e = f->n ? graph_read_name(r, w, f, &name) : ERR_OK;
    if (!e && name) e = resolve(r, s, name, &v);
    if (!e && name && v == -1)
        e = graph_wire_fail(w, ERR_FORMAT, f->start, "node '%s' reads '%s', which nothing makes", node, name);
    free(name);
    if (!e) *ret = MAX(v, -1);
    return e;
}

static err read_node_attr(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                          const struct graph_field *f, struct op_node *n)
{
    struct graph_wire sub;
    err e = graph_wire_sub(w, f, &sub);
    if (e) return e;
    struct op_attr a = {0};
    e = graph_read_attr(r, s, &sub, s->depth, &a);
    if (!e && !a.type) { /* of a function whose caller left it out */
        free(a.name);
        return ERR_OK;
    }
    for (int i = 0; !e && i < n->n_attrs; i++)
        if (strcmp(n->attrs[i].name, a.name) == 0)
            e = graph_wire_fail(w, ERR_FORMAT, f->start, "attribute '%s' is there twice", a.name);
    n->attrs[n->n_attrs++] = a; /* also on failure: the node frees it */
    return e;
}

/* Inputs, outputs and attributes. Reading attributes may add nodes to other graphs only, so `n` stays valid. */
static err fill_node(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *whole,
                     struct graph_node *n, const struct node_parts *p)
{
    struct graph_wire w = *whole;
    struct graph_field f;
    int in = 0, out = 0, more = 0;
    err e = ERR_OK;
    n->op.attrs = xnewn(struct op_attr, (size_t)p->n_attrs + 1);
    while (!e && (more = graph_wire_next(&w, &f)) > 0) {
        if (f.number == N_IN && in < p->n_in) {
            e = graph_read_use(r, s, &w, &f, p->name, &n->op.in[in++]);
        } else if (f.number == N_OUT && out < p->n_out) {
            if (!f.n) {
                out++;
                continue;
            }
            char *name = NULL;
            e = graph_read_name(r, &w, &f, &name);
            if (!e) n->op.out[out++] = graph_names_find(&s->names, name);
            free(name);
        } else if (f.number == N_ATTR) {
            e = read_node_attr(r, s, &w, &f, &n->op);
        }
    }
    return e ? e : MIN(more, 0);
}

static err constant_from_numbers(struct graph_reader *r, const struct op_attr *a, struct tensor *ret)
{
    bool ints = a->type == OP_ATTR_INTS || a->type == OP_ATTR_INT,
         list = a->type == OP_ATTR_INTS || a->type == OP_ATTR_FLOATS;
    int64_t n = list ? (int64_t)a->n : 1;
    const void *src = list ? (ints ? (const void *)a->ints : a->floats) : ints ? (const void *)&a->i : &a->f;
    size_t bytes = (size_t)n * (ints ? sizeof a->i : sizeof a->f);
    struct tensor_shape shape = tensor_shape_of(list ? 1 : 0, &n);
    void *p = NULL;
    err e = graph_file_block(r->file, bytes, &p);
    if (e) return e;
    if (bytes) memcpy(p, src, bytes);
    *ret = tensor_view(ints ? TENSOR_I64 : TENSOR_F32, &shape, p);
    return ERR_OK;
}

/* A Constant node becomes a constant value. */
static err take_constant(struct graph_reader *r, struct graph *g, const struct graph_wire *w,
                         const struct graph_node *n)
{
    static const char *const numbers[] = {"value_float", "value_floats", "value_int", "value_ints"};
    const struct op_attr *a = op_attr(&n->op, "value");
    struct tensor t = {0};
    if (a && a->type == OP_ATTR_TENSOR) t = a->tensor;
    for (size_t i = 0; !t.data && i < ARRAY_LEN(numbers); i++) {
        a = op_attr(&n->op, numbers[i]);
        if (!a || (a->type != OP_ATTR_FLOAT && a->type != OP_ATTR_INT && a->type != OP_ATTR_FLOATS &&
                   a->type != OP_ATTR_INTS))
            continue;
        err e = constant_from_numbers(r, a, &t);
        if (e) return e;
    }
    if (!t.data)
        return graph_wire_fail(w, ERR_UNSUPPORTED, w->at,
                               "node '%s': a Constant that is neither a tensor nor numbers", n->op.name);
    struct graph_value *v = &g->values[n->op.out[0]];
    v->dtype = t.dtype;
    v->shape = t.shape;
    v->has_shape = true;
    v->constant = t.data;
    v->constant_bytes = (size_t)tensor_count(&t.shape) * tensor_dtype_size(t.dtype);
    return ERR_OK;
}

static err add_node(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *sub,
                    const struct node_parts *p)
{
    struct graph_node *n = graph_add_node(s->g, op_find(p->domain, p->op), p->name, p->n_in, p->n_out);
    n->op.opset = MAX(opset_of(r, p->domain), 1);
    err e = fill_node(r, s, sub, n, p);
    if (!e && graph_standard_has(p->domain, p->op))
        return graph_standard_expand(r, s->g, p->domain, p->op, (size_t)(n - s->g->nodes));
    if (!e && n->op.kind == OP_CONSTANT) {
        e = take_constant(r, s->g, sub, n);
        n->dead = true;
    }
    return e;
}

err graph_read_node(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                    const struct graph_field *f)
{
    struct graph_wire sub;
    struct node_parts p = {0};
    err e = graph_wire_sub(w, f, &sub);
    if (!e && ++r->n_nodes > GRAPH_MAX_NODES)
        e = err_set(ERR_LIMIT, "%s: more than %d nodes", r->name, GRAPH_MAX_NODES);
    if (!e) e = graph_book(r, sizeof(struct graph_node) * 2 + 128);
    if (!e) e = read_node_parts(r, &sub, &p);
    struct graph_function *fn = e ? NULL : graph_function_find(r, p.domain, p.op, p.overload);
    if (!e && !fn) e = check_node(r, &sub, &p);
    if (!e) {
        e = fn ? graph_function_expand(r, s, fn, &sub, *p.name ? p.name : p.op) : add_node(r, s, &sub, &p);
        if (e) e = err_wrap(e, "%s", *p.name ? p.name : p.op);
    }
    free(p.overload);
    free(p.name);
    free(p.op);
    free(p.domain);
    return e;
}

/* ---- the graph and the model */

typedef err part_reader(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                        const struct graph_field *f);

static err refuse_sparse(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                         const struct graph_field *f)
{
    (void)r;
    (void)s;
    return graph_wire_fail(w, ERR_UNSUPPORTED, f->start, "a sparse initialiser; export the model with dense ones");
}

static err each_part(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *whole, uint32_t number,
                     part_reader *read)
{
    struct graph_wire w = *whole;
    struct graph_field f;
    int more = 0;
    err e = ERR_OK;
    while (!e && (more = graph_wire_next(&w, &f)) > 0)
        if (f.number == number) e = read(r, s, &w, &f);
    return e ? e : MIN(more, 0);
}

err graph_read_graph(struct graph_reader *r, struct graph_scope *outer, const struct graph_wire *w, int depth,
                     struct graph **ret)
{
    static const struct { uint32_t number; part_reader *read;
    } parts[] = {
        {G_SPARSE, refuse_sparse}, {G_INITIALISER, read_initialiser},
        {G_INPUT, read_input},     {G_NODE, declare_outputs},
        {G_NODE, graph_read_node},       {G_OUTPUT, read_output},
        {G_INFO, read_value_info},
    };
    if (depth > GRAPH_MAX_DEPTH)
        return graph_wire_fail(w, ERR_LIMIT, w->at, "graphs in graphs, more than %d deep", GRAPH_MAX_DEPTH);
    struct graph_scope s = {.g = graph_new(r->name, opset_of(r, ""), r->file->payer), .outer = outer, .depth = depth};
    struct graph *g = s.g;
    g->ir_version = r->ir_version;
    g->parent = outer ? outer->g : NULL;
    if (!outer) r->root = g;
    err e = graph_book(r, sizeof *g + sizeof s);
    for (size_t i = 0; !e && i < ARRAY_LEN(parts); i++) e = each_part(r, &s, w, parts[i].number, parts[i].read);
    if (!e && !g->n_outputs) e = graph_wire_fail(w, ERR_FORMAT, w->at, "a graph without outputs");
    graph_drop_dead(g); /* Constant nodes have become values */
    if (!e) e = graph_sort(g);
    graph_names_done(&s.names);
    if (e)
        graph_free(&g);
    else
        *ret = g;
    return e;
}

err graph_read_opset(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *field)
{
    struct graph_wire sub;
    struct graph_field f;
    err e = graph_wire_sub(w, field, &sub);
    if (!e && r->n_domains >= GRAPH_MAX_DOMAINS)
        e = graph_wire_fail(w, ERR_LIMIT, field->start, "more than %d opset imports", GRAPH_MAX_DOMAINS);
    if (e) return e;
    char *domain = NULL;
    uint64_t version = 0;
    int more = 0;
    while (!e && (more = graph_wire_next(&sub, &f)) > 0) {
        if (f.number == 1) {
            free(domain);
            domain = NULL;
            e = graph_read_name(r, &sub, &f, &domain);
        } else if (f.number == 2) {
            e = graph_wire_want(&sub, &f, GRAPH_WIRE_VARINT);
            version = f.u;
        }
    }
    if (!e) e = MIN(more, 0);
    if (!domain || strcmp(domain, "ai.onnx") == 0) {
        free(domain);
        domain = xstrdup("");
    }
    if (!e && (version < 1 || version > 1000))
        e = graph_wire_fail(w, ERR_FORMAT, field->start, "opset %llu of '%s'", (unsigned long long)version, domain);
    if (e) {
        free(domain);
        return e;
    }
    r->domains[r->n_domains++] = (struct graph_domain){domain, (int)version};
    return ERR_OK;
}

static err read_model(struct graph_reader *r, const struct graph_wire *whole, struct graph **ret)
{
    struct graph_wire w = *whole, sub;
    struct graph_field f, graph_field = {0};
    int more = 0;
    err e = ERR_OK;
    while (!e && (more = graph_wire_next(&w, &f)) > 0) {
        if (f.number == M_IR) {
            e = graph_wire_want(&w, &f, GRAPH_WIRE_VARINT);
            r->ir_version = (int)MIN(f.u, (uint64_t)1000);
        } else if (f.number == M_OPSET) {
            e = graph_read_opset(r, &w, &f);
        } else if (f.number == M_FUNCTIONS) {
            e = graph_function_add(r, &w, &f);
        } else if (f.number == M_GRAPH) {
            if (graph_field.number) e = graph_wire_fail(&w, ERR_FORMAT, f.start, "a second graph");
            graph_field = f;
        }
    }
    if (!e) e = MIN(more, 0);
    if (e) return e;
    if (!r->ir_version || !graph_field.number)
        return graph_wire_fail(whole, ERR_FORMAT, whole->end, "this is not an ONNX model: it has no %s",
                               graph_field.number ? "IR version" : "graph");
    if (!r->n_domains)
        return graph_wire_fail(whole, ERR_FORMAT, whole->end, "the model does not say which opset it uses");
    e = graph_wire_sub(whole, &graph_field, &sub);
    return e ? e : graph_read_graph(r, NULL, &sub, 0, ret);
}

static err parse(const char *name, const void *bytes, size_t n, struct graph_file *file, struct graph **ret)
{
    struct graph_reader r = {.name = name, .file = file};
    struct graph_wire w = {name, bytes, bytes, (const uint8_t *)bytes + n};
    struct graph *g = NULL;
    err e = n ? read_model(&r, &w, &g) : err_set(ERR_FORMAT, "%s: byte 0: the file is empty", name);
    graph_names_done(&r.symbols);
    graph_functions_done(&r);
    for (int i = 0; i < r.n_domains; i++) free(r.domains[i].name);
    if (e) return e;
    g->file = graph_file_ref(file);
    *ret = g;
    return ERR_OK;
}

err graph_parse(const char *name, const void *bytes, size_t n, const char *dir, struct mem_payer *payer,
                struct graph **ret)
{
    struct graph_file *file = graph_file_new(dir, payer);
    err e = parse(name, bytes, n, file, ret);
    graph_file_unref(&file);
    return e;
}

err graph_load(const char *path, struct mem_payer *payer, struct graph **ret)
{
    char *copy = xstrdup(path);
    struct graph_file *file = graph_file_new(dirname(copy), payer);
    const struct graph_mapping *m = NULL;
    err e = graph_file_map(file, path, NULL, &m);
    if (!e) e = parse(path, m->base, m->size, file, ret);
    graph_file_unref(&file);
    free(copy);
    return e;
}

err graph_load_stripped(const char *name, const char *path, size_t offset, const char *dir, const char *solid, struct mem_payer *payer,
                        struct graph **ret)
{
    struct graph_file *file = graph_file_new(dir, payer);
    const struct graph_mapping *m = NULL;
    if (solid) file->solid = xstrdup(solid);
    err e = graph_file_map(file, path, NULL, &m);
    if (!e) e = parse(name, m->base + MIN(offset, m->size), m->size - MIN(offset, m->size), file, ret);
    graph_file_unref(&file);
    return e;
}
