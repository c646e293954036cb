/* The graph itself: values, nodes, attributes, who uses what, and execution order.
 *
 * Bookkeeping is small and aborts without memory; constants are paid. A specialised graph borrows constants of the
 * graph it came from, so graphs are counted: graph_free drops one reference.
 *
 * Invariant (after reading and after graph_compact): a value has one producer at most, and a node comes after the
 * producers of all it reads, those that its subgraphs read included. SPDX-License-Identifier: Apache-2.0 */
#include "graph/graph.h"

#include <stdlib.h>
#include <string.h>

#include "graph/file.h"

struct graph *graph_new(const char *name, int opset, struct mem_payer *payer)
{
    struct graph *g = xnew(struct graph);
    g->name = xstrdup(name);
    g->payer = payer;
    g->opset = opset;
    g->ir_version = 8;
    g->refs = 1;
    return g;
}

static void attr_done(struct op_attr *a)
{
    free(a->name);
    free(a->ints);
    free(a->floats);
    free(a->s);
    graph_free(&a->graph);
}

static void node_done(struct graph_node *n)
{
    free(n->op.name);
    free(n->op.in);
    free(n->op.out);
    for (int i = 0; i < n->op.n_attrs; i++) attr_done(&n->op.attrs[i]);
    free(n->op.attrs);
    *n = (struct graph_node){0};
}

static void value_drop_owned(struct graph *g, struct graph_value *v)
{
    if (!v->owned) return;
    mem_free(g->payer, MEM_OTHER, v->owned, v->constant_bytes);
    v->owned = NULL;
    v->constant = NULL;
    v->constant_bytes = 0;
}

void graph_free(struct graph **gp)
{
    struct graph *g = *gp;
    *gp = NULL;
    if (!g || __atomic_sub_fetch(&g->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    for (size_t i = 0; i < g->n_nodes; i++) node_done(&g->nodes[i]);
    for (size_t i = 0; i < g->n_values; i++) {
        value_drop_owned(g, &g->values[i]);
        free(g->values[i].name);
    }
    for (int i = 0; i < g->n_symbols; i++) free(g->symbols[i]);
    free(g->symbols);
    free(g->nodes);
    free(g->values);
    free(g->inputs);
    free(g->outputs);
    free(g->name);
    graph_file_unref(&g->file);
    graph_free(&g->source);
    free(g);
}

size_t graph_decoded_bytes(const struct graph *g)
{
    size_t sum = 0;
    for (size_t i = 0; g->file && i < g->file->n_blocks; i++) sum += g->file->blocks[i].n;
    return sum;
}

/* ---- building */

int graph_add_value(struct graph *g, const char *name, enum tensor_dtype dtype, const struct tensor_shape *shape)
{
    struct graph_value fresh = {.name = xstrdup(name ? name : ""), .dtype = dtype, .has_shape = shape != NULL};
    if (shape) fresh.shape = *shape; /* before the list moves: it may be the shape of another value */
    vec_grow(&g->values, &g->cap_values, g->n_values);
    g->values[g->n_values] = fresh;
    return (int)g->n_values++;
}

int graph_add_input(struct graph *g, const char *name, enum tensor_dtype dtype, const struct tensor_shape *shape)
{
    int v = graph_add_value(g, name, dtype, shape);
    g->values[v].is_input = true;
    g->inputs = xrealloc(g->inputs, ((size_t)g->n_inputs + 1) * sizeof *g->inputs);
    g->inputs[g->n_inputs++] = v;
    return v;
}

void graph_add_output(struct graph *g, int value)
{
    g->values[value].is_output = true;
    g->outputs = xrealloc(g->outputs, ((size_t)g->n_outputs + 1) * sizeof *g->outputs);
    g->outputs[g->n_outputs++] = value;
}

struct graph_node *graph_add_node(struct graph *g, enum op_kind kind, const char *name, int n_in, int n_out)
{
    vec_grow(&g->nodes, &g->cap_nodes, g->n_nodes);
    struct graph_node *n = &g->nodes[g->n_nodes++];
    *n = (struct graph_node){.n_own_in = n_in};
    n->op = (struct op_node){
        .kind = kind, .name = xstrdup(name ? name : ""), .opset = g->opset, .n_in = n_in, .n_out = n_out};
    n->op.in = xnewn(int, (size_t)n_in + 1);
    n->op.out = xnewn(int, (size_t)n_out + 1);
    for (int i = 0; i < n_in; i++) n->op.in[i] = -1;
    for (int i = 0; i < n_out; i++) n->op.out[i] = -1;
    return n;
}

struct graph_node *graph_copy_node(struct graph *g, const struct graph_node *from)
{
    struct graph_node *n = graph_add_node(g, from->op.kind, from->op.name, from->op.n_in, from->op.n_out);
    n->op.opset = from->op.opset;
    n->n_own_in = from->n_own_in;
    n->n_post = from->n_post;
    n->apart = from->apart;
    memcpy(n->post, from->post, sizeof n->post);
    n->op.attrs = xnewn(struct op_attr, (size_t)from->op.n_attrs + 1);
    for (int i = 0; i < from->op.n_attrs; i++) {
        const struct op_attr *a = &from->op.attrs[i];
        if (a->graph) continue;
        struct op_attr *b = &n->op.attrs[n->op.n_attrs++];
        *b = *a;
        b->name = xstrdup(a->name);
        if (a->ints) {
            b->ints = xnewn(int64_t, a->n);
            memcpy(b->ints, a->ints, a->n * sizeof *a->ints);
        }
        if (a->floats) {
            b->floats = xnewn(float, a->n);
            memcpy(b->floats, a->floats, a->n * sizeof *a->floats);
        }
        if (a->s) {
            size_t bytes = a->type == OP_ATTR_STRINGS ? (size_t)a->i : a->n;
            b->s = xcalloc(bytes + 1, 1);
            memcpy(b->s, a->s, bytes);
        }
    }
    return n;
}

err graph_add_constant(struct graph *g, const char *name, enum tensor_dtype dtype, const struct tensor_shape *shape,
                       int *ret_value, void **ret_bytes)
{
    int64_t count;
    err e = tensor_shape_count(shape, &count);
    if (e) return e;
    size_t bytes = (size_t)count * tensor_dtype_size(dtype);
    void *p = NULL;
    e = mem_alloc(g->payer, MEM_OTHER, bytes, &p);
    if (e) return e;
    int v = graph_add_value(g, name, dtype, shape);
    g->values[v].constant = g->values[v].owned = p;
    g->values[v].constant_bytes = bytes;
    *ret_value = v;
    *ret_bytes = p;
    return ERR_OK;
}

static struct op_attr *attr_for(struct graph_node *n, const char *name, enum op_attr_type type)
{
    struct op_attr *a = NULL;
    for (int i = 0; i < n->op.n_attrs && !a; i++)
        if (strcmp(n->op.attrs[i].name, name) == 0) a = &n->op.attrs[i];
    if (a) {
        attr_done(a);
    } else {
        n->op.attrs = xrealloc(n->op.attrs, ((size_t)n->op.n_attrs + 1) * sizeof *n->op.attrs);
        a = &n->op.attrs[n->op.n_attrs++];
    }
    *a = (struct op_attr){.name = xstrdup(name), .type = type};
    return a;
}

void graph_set_int(struct graph_node *n, const char *name, int64_t v)
{
    attr_for(n, name, OP_ATTR_INT)->i = v;
}

void graph_set_float(struct graph_node *n, const char *name, float v)
{
    attr_for(n, name, OP_ATTR_FLOAT)->f = v;
}

void graph_set_string(struct graph_node *n, const char *name, const char *v)
{
    struct op_attr *a = attr_for(n, name, OP_ATTR_STRING);
    a->s = xstrdup(v);
    a->n = strlen(v);
}

void graph_set_ints(struct graph_node *n, const char *name, const int64_t *v, size_t count)
{
    struct op_attr *a = attr_for(n, name, OP_ATTR_INTS);
    a->ints = xnewn(int64_t, count + 1);
    if (count) memcpy(a->ints, v, count * sizeof *v);
    a->n = count;
}

void graph_node_infos(const struct graph *g, const struct graph_node *n, struct op_info *ret)
{
    for (int i = 0; i < n->op.n_in; i++) {
        ret[i] = (struct op_info){0};
        if (n->op.in[i] < 0) continue;
        const struct graph_value *v = &g->values[n->op.in[i]];
        ret[i] = (struct op_info){v->dtype, v->shape, v->constant};
    }
}

/* ---- who reads what, and in what order */

/* Calls for each value that the node reads, its subgraphs' reading from this graph included. */
static void each_read(const struct graph_node *n, void (*f)(void *ctx, int value), void *ctx)
{
    for (int i = 0; i < n->op.n_in; i++)
        if (n->op.in[i] >= 0) f(ctx, n->op.in[i]);
    for (int a = 0; a < n->op.n_attrs && !n->loose; a++) {
        const struct graph *sub = n->op.attrs[a].graph;
        for (size_t v = 0; sub && v < sub->n_values; v++)
            if (sub->values[v].outer) f(ctx, sub->values[v].outer_value);
    }
}

static void count_one(void *ctx, int value)
{
    ((int *)ctx)[value]++;
}

int *graph_use_counts(const struct graph *g)
{
    int *uses = xnewn(int, g->n_values + 1);
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i].dead) each_read(&g->nodes[i], count_one, uses);
    for (int i = 0; i < g->n_outputs; i++) uses[g->outputs[i]]++;
    return uses;
}

struct walk {
    const struct graph *g;
    int *producer; /* per value: a node or -1 */
    char *state;   /* per node: 0 not needed, 1 needed, 2 on the stack and its reads pushed, 3 in order */
    size_t n, cap;
    int *stack;
    bool marking, cycle;
    int at; /* the node whose reads are being visited */
};

static void push(struct walk *w, int node)
{
    vec_grow(&w->stack, &w->cap, w->n);
    w->stack[w->n++] = node;
}

static void visit_read(void *ctx, int value)
{
    struct walk *w = ctx;
    int p = w->producer[value];
    if (p < 0) return;
    if (w->marking) {
        if (w->state[p]) return;
        w->state[p] = 1;
        push(w, p);
    } else if (w->state[p] == 1) {
        push(w, p);
    } else if (w->state[p] == 2) {
        w->cycle = true;
        w->at = p;
    }
}

static void mark_needed(struct walk *w)
{
    w->marking = true;
    for (int i = 0; i < w->g->n_outputs; i++) visit_read(w, w->g->outputs[i]);
    while (w->n) each_read(&w->g->nodes[w->stack[--w->n]], visit_read, w);
    w->marking = false;
}

/* Depth first in the old order, so that an order that was right stays. */
static err sort_needed(struct walk *w, int *order, size_t *ret_n)
{
    size_t done = 0;
    for (size_t i = 0; i < w->g->n_nodes; i++) {
        if (w->state[i] != 1) continue;
        push(w, (int)i);
        while (w->n) {
            int at = w->stack[w->n - 1];
            if (w->state[at] == 1) {
                w->state[at] = 2;
                each_read(&w->g->nodes[at], visit_read, w);
                if (w->cycle)
                    return err_set(ERR_FORMAT, "%s: node '%s' (%s) needs its own output: a cycle", w->g->name,
                                   w->g->nodes[w->at].op.name, op_name(w->g->nodes[w->at].op.kind));
            } else {
                w->n--;
                if (w->state[at] == 2) order[done++] = at;
                w->state[at] = 3;
            }
        }
    }
    *ret_n = done;
    return ERR_OK;
}

static void rearrange(struct graph *g, const int *order, size_t n)
{
    struct graph_node *nodes = xnewn(struct graph_node, n + 1);
    for (size_t i = 0; i < n; i++) {
        nodes[i] = g->nodes[order[i]];
        g->nodes[order[i]] = (struct graph_node){0};
    }
    for (size_t i = 0; i < g->n_nodes; i++) node_done(&g->nodes[i]);
    free(g->nodes);
    g->nodes = nodes;
    g->n_nodes = n;
    g->cap_nodes = n + 1;
}

static int *producers(const struct graph *g)
{
    int *producer = xnewn(int, g->n_values + 1);
    for (size_t v = 0; v < g->n_values; v++) producer[v] = -1;
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int o = 0; o < g->nodes[i].op.n_out && !g->nodes[i].dead; o++)
            if (g->nodes[i].op.out[o] >= 0) producer[g->nodes[i].op.out[o]] = (int)i;
    return producer;
}

char *graph_needed(const struct graph *g)
{
    struct walk w = {.g = g, .producer = producers(g), .state = xnewn(char, g->n_nodes + 1)};
    mark_needed(&w);
    free(w.producer);
    free(w.stack);
    return w.state;
}

void graph_drop_dead(struct graph *g)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].dead)
            node_done(&g->nodes[i]);
        else
            g->nodes[n++] = g->nodes[i];
    }
    g->n_nodes = n;
}

static err reorder(struct graph *g, bool drop)
{
    struct walk w = {.g = g, .producer = producers(g), .state = xnewn(char, g->n_nodes + 1)};
    int *order = xnewn(int, g->n_nodes + 1);
    size_t n = 0;
    if (drop) mark_needed(&w);
    for (size_t i = 0; i < g->n_nodes && !drop; i++) w.state[i] = !g->nodes[i].dead;
    err e = sort_needed(&w, order, &n);
    if (!e) {
        rearrange(g, order, n);
        if (drop && g->refs == 1) { /* nobody borrows: constants that nobody reads any more go back */
            int *uses = graph_use_counts(g);
            for (size_t v = 0; v < g->n_values; v++)
                if (!uses[v]) value_drop_owned(g, &g->values[v]);
            free(uses);
        }
    }
    free(order);
    free(w.producer);
    free(w.state);
    free(w.stack);
    return e;
}

err graph_compact(struct graph *g)
{
    return reorder(g, true);
}

err graph_sort(struct graph *g)
{
    return reorder(g, false);
}
