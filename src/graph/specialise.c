/* From a file's graph to one whose every shape is known.
 *
 * One walk in execution order copies the needed nodes into a new graph: shapes by op_infer, constants computed as
 * soon as all inputs of a node are (fold.c), Identity and Dropout skipped (in a training form: dropout.c), the branch of a decided
 * If put in its place. Shape arithmetic thus disappears by itself. What depends on data carries an upper bound
 * (tensor_shape.bounded).
 *
 * Symbols: a caller's shape binds the names it meets, and one name has one size. What stays open is 1 on the first
 * axis of an input (the batch), else an error that names it.
 *
 * Invariant: a value of the new graph is known in type and shape from the moment it exists, and the source is never
 * changed. SPDX-License-Identifier: Apache-2.0 */
#include "graph/specialise.h"

#include <stdlib.h>
#include <string.h>

#include "graph/file.h"

static err emit_graph(struct graph_special *s, const struct graph *from, int *map);
static err emit_node(struct graph_special *s, const struct graph *from, const struct graph_node *old, int *map);

/* ---- inputs */

static err bind(struct graph_special *s, const struct graph_value *v, int axis, int64_t size)
{
    int64_t declared = v->shape.dims[axis];
    if (declared >= 0) return ERR_OK; /* another size than the file's: op_infer will say if it cannot be */
    int64_t *known = &s->symbols[TENSOR_SYMBOL_NUMBER(declared)];
    if (*known >= 0 && *known != size)
        return err_set(ERR_SHAPE, "%s: '%s' is %lld, but input '%s' makes it %lld", s->root->name,
                       s->root->symbols[TENSOR_SYMBOL_NUMBER(declared)], (long long)*known, v->name, (long long)size);
    *known = size;
    return ERR_OK;
}

static err bind_given(struct graph_special *s, const struct tensor_shape *given)
{
    for (int i = 0; i < s->root->n_inputs; i++) {
        const struct graph_value *v = &s->root->values[s->root->inputs[i]];
        if (v->has_shape && v->shape.rank != given[i].rank)
            return err_set(ERR_SHAPE, "%s: input '%s' has %d axes, not %d", s->root->name, v->name, v->shape.rank,
                           given[i].rank);
        for (int a = 0; a < given[i].rank && v->has_shape; a++) {
            err e = given[i].dims[a] >= 0 ? bind(s, v, a, given[i].dims[a]) : ERR_OK;
            if (e) return e;
        }
    }
    return ERR_OK;
}

/* The size of one axis: the caller's, the file's, the symbol's; an open first axis is one sample. */
static err size_of(struct graph_special *s, const struct graph_value *v, const struct tensor_shape *given, int axis,
                   int64_t *ret)
{
    int64_t size = given ? given->dims[axis] : -1;
    if (size < 0) size = v->has_shape ? v->shape.dims[axis] : -1;
    if (size < 0 && v->has_shape) {
        int64_t *known = &s->symbols[TENSOR_SYMBOL_NUMBER(v->shape.dims[axis])];
        if (*known < 0 && axis == 0) *known = 1;
        size = *known;
    }
    if (size < 0)
        return err_set(
            ERR_SHAPE, "%s: the size '%s' of input '%s' (axis %d) is open: say what it is", s->root->name,
            v->has_shape ? s->root->symbols[TENSOR_SYMBOL_NUMBER(v->shape.dims[axis])] : "?", v->name, axis);
    *ret = size;
    return ERR_OK;
}

static err add_inputs(struct graph_special *s, const struct tensor_shape *given, int *map)
{
    for (int i = 0; i < s->root->n_inputs; i++) {
        const struct graph_value *v = &s->root->values[s->root->inputs[i]];
        if (!v->has_shape && !given)
            return err_set(ERR_SHAPE, "%s: the file does not say the shape of input '%s'", s->root->name, v->name);
        struct tensor_shape shape = {.rank = given ? given[i].rank : v->shape.rank};
        int64_t count;
        err e = ERR_OK;
        for (int a = 0; a < shape.rank && !e; a++) e = size_of(s, v, given ? &given[i] : NULL, a, &shape.dims[a]);
        if (!e) e = tensor_shape_count(&shape, &count);
        if (e) return e;
        int to = map[s->root->inputs[i]] = graph_add_input(s->to, v->name, v->dtype, &shape);
        bool one = v->has_shape && v->shape.rank > 0 && v->shape.dims[0] == 1;
        if (i == 0 && one && shape.dims[0] != 1) s->batch = shape.dims[0];
        if (s->batch && one && shape.dims[0] == s->batch)
            *graph_batch_flag(s, to) = GRAPH_BATCH_DEPENDS | GRAPH_BATCH_FIRST;
    }
    return ERR_OK;
}

/* ---- nodes */

static err wrap_node(err e, const struct graph *g, const struct op_node *n)
{
    const char *made = n->n_out && n->out[0] >= 0 ? g->values[n->out[0]].name : "";
    if (*n->name) return err_wrap(e, "%s: node '%s' (%s, opset %d)", g->name, n->name, op_name(n->kind), n->opset);
    return err_wrap(e, "%s: the node that makes '%s' (%s, opset %d)", g->name, made, op_name(n->kind), n->opset);
}

/* The value of the new graph for one of the old: constants come over when they are first read. */
static int take(struct graph_special *s, const struct graph *from, int *map, int v)
{
    if (v < 0 || map[v] >= 0) return v < 0 ? -1 : map[v];
    const struct graph_value *old = &from->values[v];
    map[v] = graph_add_value(s->to, old->name, old->dtype, &old->shape);
    s->to->values[map[v]].constant = old->constant;
    s->to->values[map[v]].constant_bytes = old->constant_bytes;
    s->to->values[map[v]].shared = old->shared;
    return map[v];
}

static bool constant_true(const struct graph_value *v)
{
    return v->constant && v->constant_bytes == 1 && *(const uint8_t *)v->constant;
}

/* Does the node only hand its input on? */
static bool hands_on(struct graph_special *s, const struct graph *from, const struct graph_node *n, int *map,
                     const int *uses)
{
    if (n->op.n_in < 1 || n->op.in[0] < 0 || n->op.out[0] < 0) return false;
    if (n->op.kind == OP_IDENTITY) return true;
    if (n->op.kind != OP_DROPOUT || (n->op.n_out > 1 && n->op.out[1] >= 0 && uses[n->op.out[1]])) return false;
    if (n->op.n_in < 3 || n->op.in[2] < 0) return true;
    int training = take(s, from, map, n->op.in[2]);
    return s->to->values[training].constant && !constant_true(&s->to->values[training]);
}

static err emit_if(struct graph_special *s, const struct graph *from, const struct graph_node *n, int *map)
{
    int cond = n->op.n_in == 1 ? take(s, from, map, n->op.in[0]) : -1;
    if (cond < 0 || (s->to->values[cond].dtype != TENSOR_BOOL && !s->to->values[cond].loose))
        return wrap_node(err_set(ERR_FORMAT, "the condition is not a boolean"), from, &n->op);
    const struct graph_value *c = &s->to->values[cond];
    if (!c->constant || c->constant_bytes != 1) return emit_node(s, from, n, map);
    const struct op_attr *a = op_attr(&n->op, constant_true(c) ? "then_branch" : "else_branch");
    if (!a || !a->graph || a->graph->n_inputs || a->graph->n_outputs < n->op.n_out)
        return wrap_node(err_set(ERR_FORMAT, "the branch is missing, or its outputs do not fit"), from, &n->op);
    const struct graph *sub = a->graph;
    int *inner = xnewn(int, sub->n_values + 1);
    for (size_t v = 0; v < sub->n_values; v++) {
        inner[v] = -1;
        if (sub->values[v].outer) inner[v] = take(s, from, map, sub->values[v].outer_value);
    }
    err e = emit_graph(s, sub, inner);
    for (int o = 0; !e && o < n->op.n_out; o++)
        if (n->op.out[o] >= 0) map[n->op.out[o]] = take(s, sub, inner, sub->outputs[o]);
    free(inner);
    return e;
}

static void add_outputs(struct graph_special *s, const struct graph *from, const struct graph_node *old,
                        struct graph_node *n, const struct op_info *out, int *map)
{
    for (int o = 0; o < old->op.n_out; o++) {
        int v = old->op.out[o];
        if (v < 0) continue;
        map[v] = n->op.out[o] = graph_add_value(s->to, from->values[v].name, out[o].dtype, &out[o].shape);
    }
}

static err check_known(const struct op_node *n, const struct op_info *out)
{
    for (int o = 0; o < n->n_out; o++) {
        int64_t count;
        if (n->out[o] < 0) continue;
        err e = tensor_shape_count(&out[o].shape, &count);
        if (e) return e;
        size_t size = tensor_dtype_size(out[o].dtype);
        if (!size)
            return err_set(ERR_UNSUPPORTED, "output %d would be of type %s", o, tensor_dtype_name(out[o].dtype));
        if (count > ((int64_t)1 << 47) / (int64_t)size)
            return err_set(ERR_LIMIT, "output %d has more than 2^47 bytes", o);
    }
    return ERR_OK;
}

static err emit_node(struct graph_special *s, const struct graph *from, const struct graph_node *old, int *map)
{
    struct op_info in[KERNEL_MAX_IN], out[KERNEL_MAX_OUT] = {{0}};
    struct graph_node *n = graph_copy_node(s->to, old);
    for (int i = 0; i < old->op.n_in; i++) n->op.in[i] = take(s, from, map, old->op.in[i]);
    bool folded = false;
    size_t at = (size_t)(n - s->to->nodes);
    err e = graph_legacy(s, at);
    if (e) return wrap_node(e, from, &old->op);
    n = &s->to->nodes[at];
    int like = n->op.kind == OP_CAST_LIKE && n->op.n_in == 2 ? n->op.in[1] : -1;
    if (like >= 0 && s->to->values[like].dtype && !s->to->values[like].loose) {
        n->op.kind = OP_CAST;
        n->op.n_in = n->n_own_in = 1;
        graph_set_int(n, "to", s->to->values[like].dtype);
    }
    if (!graph_is_loose(s, n, NULL, ERR_OK)) {
        e = s->batch ? graph_batch_follow(s, n) : ERR_OK;
        graph_node_infos(s->to, n, in);
        if (!e) e = op_infer(&n->op, in, out);
    }
    if (graph_is_loose(s, n, in, e)) {
        e = graph_make_loose(s, from, old, n, map, take);
        return e ? wrap_node(e, from, &old->op) : ERR_OK;
    }
    if (!e) e = check_known(&old->op, out);
    if (e) return wrap_node(e, from, &old->op);
    add_outputs(s, from, old, n, out, map);
    e = graph_fold(s, n, in, out, &folded);
    if (e) return wrap_node(e, from, &old->op);
    if (s->batch) graph_batch_pass(s, n);
    n->dead = folded;
    return ERR_OK;
}

/* A Dropout of a training form: in what mode the file has it does not matter. */
static err emit_dropout(struct graph_special *s, const struct graph *from, const struct graph_node *old, int *map, const int *uses)
{
    bool mask = old->op.n_out > 1 && old->op.out[1] >= 0 && uses[old->op.out[1]];
    double ratio;
    if (old->op.n_in < 1 || old->op.in[0] < 0 || old->op.out[0] < 0) return emit_node(s, from, old, map);
    err e = graph_dropout_ratio(s, &old->op, old->op.n_in > 1 ? take(s, from, map, old->op.in[1]) : -1, &ratio);
    if (!e && ratio == 0 && mask) return emit_node(s, from, old, map);
    if (!e && mask) e = err_set(ERR_UNSUPPORTED, "its mask is read, which is not offered in training; with --dropout 0 nothing is dropped");
    if (e) return wrap_node(e, from, &old->op);
    int x = take(s, from, map, old->op.in[0]);
    map[old->op.out[0]] = x;
    if (ratio == 0) return ERR_OK;
    struct graph_node *n;
    struct op_info in[KERNEL_MAX_IN], out[KERNEL_MAX_OUT] = {{0}};
    e = graph_dropout_add(s, old->op.name, x, ratio, &n);
    if (!e) {
        graph_node_infos(s->to, n, in);
        e = op_infer(&n->op, in, out);
    }
    if (e) return wrap_node(e, from, &old->op);
    map[old->op.out[0]] = n->op.out[0] = graph_add_value(s->to, from->values[old->op.out[0]].name, out[0].dtype, &out[0].shape);
    if (s->batch) graph_batch_pass(s, n);
    return ERR_OK;
}

static err emit_graph(struct graph_special *s, const struct graph *from, int *map)
{
    char *needed = graph_needed(from);
    int *uses = graph_use_counts(from);
    err e = ERR_OK;
    for (size_t i = 0; i < from->n_nodes && !e; i++) {
        const struct graph_node *n = &from->nodes[i];
        if (!needed[i]) continue;
        if (s->dropout && n->op.kind == OP_DROPOUT)
            e = emit_dropout(s, from, n, map, uses);
        else if (hands_on(s, from, n, map, uses))
            map[n->op.out[0]] = take(s, from, map, n->op.in[0]);
        else if (n->op.kind == OP_IF)
            e = emit_if(s, from, n, map);
        else
            e = emit_node(s, from, n, map);
    }
    free(needed);
    free(uses);
    return e;
}

/* An output keeps its name, whatever value it became. */
static void add_output(struct graph_special *s, const char *name, int v)
{
    struct graph_value *value = &s->to->values[v];
    bool same = strcmp(value->name, name) == 0;
    if (!same && (value->is_input || value->is_output)) {
        struct graph_node *n = graph_add_node(s->to, OP_IDENTITY, name, 1, 1);
        struct graph_value copy = *value;
        n->op.in[0] = v;
        n->op.opset = s->to->opset;
        n->loose = copy.loose || copy.shape.bounded;
        v = n->op.out[0] = graph_add_value(s->to, name, copy.dtype, &copy.shape);
        s->to->values[v].loose = n->loose;
        uint8_t flag = *graph_batch_flag(s, n->op.in[0]);
        *graph_batch_flag(s, v) = flag;
    } else if (!same) {
        free(value->name);
        value->name = xstrdup(name);
    }
    graph_add_output(s->to, v);
}

static err specialise(struct graph_special *s, const struct tensor_shape *given)
{
    const struct graph *g = s->root;
    int *map = xnewn(int, g->n_values + 1);
    for (size_t v = 0; v < g->n_values; v++) map[v] = -1;
    err e = given ? bind_given(s, given) : ERR_OK;
    if (!e) e = add_inputs(s, given, map);
    for (size_t v = 0; !e && s->as_input && v < g->n_values; v++)
        if (s->as_input[v]) map[v] = graph_add_input(s->to, g->values[v].name, g->values[v].dtype, &g->values[v].shape);
    if (!e) e = emit_graph(s, g, map);
    for (int i = 0; !e && i < g->n_outputs; i++)
        add_output(s, g->values[g->outputs[i]].name, take(s, g, map, g->outputs[i]));
    free(map);
    if (!e && s->batch) e = graph_batch_check(s);
    if (!e) graph_drop_dead(s->to);
    return e ? e : graph_compact(s->to);
}

static int64_t constant_bytes(const struct graph *g)
{
    int64_t sum = 0;
    for (size_t v = 0; v < g->n_values; v++) sum += (int64_t)MIN(g->values[v].constant_bytes, (size_t)1 << 40);
    return sum;
}

err graph_specialise(const struct graph *g, const struct tensor_shape *input_shapes, struct mem_payer *payer,
                     struct graph **ret)
{
    return graph_specialise_with(g, input_shapes, NULL, NULL, payer, ret);
}

err graph_specialise_with(const struct graph *g, const struct tensor_shape *input_shapes, const char *as_input,
                          struct graph_dropout *dropout, struct mem_payer *payer, struct graph **ret)
{
    if (g->parent) return err_set(ERR_USAGE, "%s: a subgraph cannot be specialised alone", g->name);
    struct graph_special s = {.root = g, .to = graph_new(g->name, g->opset, payer), .as_input = as_input, .dropout = dropout};
    s.symbols = xnewn(int64_t, (size_t)g->n_symbols + 1);
    for (int i = 0; i < g->n_symbols; i++) s.symbols[i] = -1;
    s.work_left = constant_bytes(g) * 16 + (16 << 20); /* see fold.c */
    s.to->ir_version = g->ir_version;
    s.to->file = graph_file_ref(g->file);
    s.to->source = (struct graph *)(uintptr_t)g;
    __atomic_add_fetch(&s.to->source->refs, 1, __ATOMIC_RELAXED);
    err e = specialise(&s, input_shapes);
    free(s.symbols);
    free(s.flags);
    if (e)
        graph_free(&s.to);
    else
        *ret = s.to;
    return e;
}
