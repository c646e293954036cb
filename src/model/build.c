/* From a specialised graph to steps: which kernel, in which layout, with which copies, and where every weight is.
 *
 * Nodes are taken in execution order. A node that can be a view becomes one. Else the kernel classes are asked in their order; the
 * first that accepts says how it wants its inputs (row-major, channels-last, any) and gives its outputs; where a value lies
 * otherwise, a Copy step is inserted once per value and layout. Constants are packed by the kernel, or kept raw, as
 * extents of the model's weight set, in the order in which they are needed.
 *
 * Invariant: every step's operands were written by an earlier step, are inputs, or are weights. A slot lives from the step that writes it to the
 * last step that reads any view of it. SPDX-License-Identifier: Apache-2.0 */
#include "model/dynamic.h"
#include "model/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int model_slot_new(struct model_plan *p, size_t bytes)
{
    vec_grow(&p->slots, &p->cap_slots, p->n_slots);
    p->slots[p->n_slots] = (struct model_slot){.bytes = bytes, .first = (int)p->n_steps, .last = (int)p->n_steps};
    return (int)p->n_slots++;
}

static int value_new(struct model_plan *p, const struct tensor *t)
{
    vec_grow(&p->values, &p->cap_values, p->n_values);
    p->values[p->n_values] = (struct model_value){.t = *t, .slot = -1};
    return (int)p->n_values++;
}

static err give_slot(struct model_plan *p, struct model_value *v)
{
    int64_t count;
    err e = tensor_shape_count(&v->t.shape, &count);
    if (e) return e;
    v->slot = model_slot_new(p, (size_t)count * tensor_dtype_size(v->t.dtype));
    v->start = 0;
    return ERR_OK;
}

static void touch(struct model_plan *p, int slot)
{
    if (slot >= 0) p->slots[slot].last = MAX(p->slots[slot].last, (int)p->n_steps);
}

/* ---- layouts */

static bool dense(const struct tensor *t)
{
    for (int i = 0; i < t->shape.rank; i++)
        if (t->shape.dims[i] > 1 && t->strides[i] == 0) return false;
    return tensor_span(t) == tensor_count(&t->shape);
}

/* Dense strides for `shape` in the axis order of `like`. */
static void strides_like(const struct tensor *like, const struct tensor_shape *shape, int64_t *strides)
{
    int order[TENSOR_MAX_RANK];
    for (int i = 0; i < shape->rank; i++) {
        int k = i; /* insertion sort: larger strides first, ties in axis order */
        for (; k > 0 && like->strides[order[k - 1]] < like->strides[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    int64_t step = 1;
    for (int i = shape->rank - 1; i >= 0; i--) {
        strides[order[i]] = step;
        step *= MAX(shape->dims[order[i]], 1);
    }
}

/* The input whose layout an 'any' output follows: one of the output's shape, else the largest of its rank. */
static const struct tensor *leader(const struct kernel_query *q, const struct tensor *out)
{
    const struct tensor *best = NULL;
    for (int i = 0; i < q->n_in; i++) {
        const struct tensor *t = &q->in[i];
        if (t->data || t->dtype == TENSOR_NONE || t->shape.rank != out->shape.rank || !dense(t)) continue;
        if (tensor_shape_equal(&t->shape, &out->shape)) return t;
        if (!best || tensor_count(&t->shape) > tensor_count(&best->shape)) best = t;
    }
    return best;
}

static void output_strides(const struct kernel_query *q, enum kernel_layout want, struct tensor *out)
{
    const struct tensor *like = want == KERNEL_LAYOUT_ANY ? leader(q, out) : NULL;
    if (like)
        strides_like(like, &out->shape, out->strides);
    else if (want == KERNEL_LAYOUT_CHANNELS_LAST)
        tensor_strides_channels_last(&out->shape, out->strides);
    else
        tensor_strides_row_major(&out->shape, out->strides);
}

static bool layout_fits(const struct tensor *t, enum kernel_layout want)
{
    switch (want) {
    case KERNEL_LAYOUT_ROW_MAJOR: return tensor_is_row_major(t);
    case KERNEL_LAYOUT_CHANNELS_LAST: return tensor_is_channels_last(t);
    case KERNEL_LAYOUT_ANY: case KERNEL_LAYOUT_PACKED: break;
    }
    return true;
}

static void strides_for(const struct tensor_shape *s, enum kernel_layout want, int64_t *strides)
{
    if (want == KERNEL_LAYOUT_CHANNELS_LAST)
        tensor_strides_channels_last(s, strides);
    else
        tensor_strides_row_major(s, strides);
}

/* ---- weights */

static err find_or_add(struct model *m, uint64_t hash, size_t bytes, const char *format, bool shared, int *ret_extent, void **ret_fill)
{
    *ret_fill = NULL;
    for (size_t i = 0; i < m->n_weights; i++)
        if (m->table[i].hash == hash && m->table[i].bytes == bytes && strcmp(m->table[i].format, format) == 0) {
            *ret_extent = m->table[i].extent;
            return ERR_OK;
        }
    err e;
    if (!m->filling && (e = weights_set_reopen(m->weights))) return e;
    m->filling = true;
    if ((e = (shared ? weights_set_add_shared : weights_set_add)(m->weights, bytes, ret_extent, ret_fill))) return e;
    vec_grow(&m->table, &m->cap_weights, m->n_weights);
    m->table[m->n_weights++] =
        (struct model_weight){.hash = hash, .bytes = bytes, .format = xstrdup(format), .extent = *ret_extent};
    return ERR_OK;
}

/* `value`: of the graph, or -1. */
static err place_constant(struct model_plan *p, struct model_step *s, int i, const struct tensor *t, int value)
{
    size_t raw = (size_t)tensor_count(&t->shape) * tensor_dtype_size(t->dtype);
    size_t packed = s->class->weight_bytes ? s->class->weight_bytes(s->state, i) : 0;
    char format[160];
    snprintf(format, sizeof format, "%s", packed ? s->class->weight_format(s->state, i) : "raw");
    void *fill = NULL;
    bool known = false;
    err e = p->model->stored ? model_stored_place(p->model, packed ? packed : raw, format, &known, &s->in[i].extent) : ERR_OK;
    if (!e && !known)
        /* the type is spread over the seed, which is added to the first byte: int64 12 was float64 0 */
        e = find_or_add(p->model, hash64(t->data, raw, (uint64_t)t->dtype * 0x9e3779b97f4a7c15u), packed ? packed : raw, format,
                        value >= 0 && (size_t)value < p->graph->n_values && p->graph->values[value].shared, &s->in[i].extent, &fill);
    if (e) return e;
    if (!known && p->model->stored) model_stored_placed(p->model, s->in[i].extent);
    s->in[i].slot = -1;
    s->weight_bytes += packed ? packed : raw;
    if (!fill) return ERR_OK;
    if (!packed) {
        memcpy(fill, t->data, raw);
        return ERR_OK;
    }
    return s->class->pack(s->state, i, t->data, fill);
}

err model_place_raw(struct model_plan *p, struct model_step *s, int i, const struct tensor *t)
{
    return place_constant(p, s, i, t, -1);
}

/* ---- steps */

static struct model_operand operand(const struct model_plan *p, int value)
{
    const struct model_value *v = &p->values[value];
    return (struct model_operand){.slot = v->slot, .offset = (size_t)v->start * tensor_dtype_size(v->t.dtype)};
}

void model_place_read(struct model_plan *p, struct model_step *s, int i, int value)
{
    s->in[i] = operand(p, value);
    touch(p, s->in[i].slot);
}

void model_step_done(struct model_step *s)
{
    model_loose_free(s);
    if (s->state) s->class->free(&s->state);
    free(s->own);
    free(s->in);
    free(s->out);
}

static err add_step(struct model_plan *p, struct op_node *node, const struct graph_node *fused, int n_in, const int *in,
                    int n_out, const int *out);

/* The value itself if it lies as wanted, else a copy that does (made once). */
static err copy_for(struct model_plan *p, int value, enum kernel_layout want, int *ret)
{
    struct model_value *v = &p->values[value];
    if (layout_fits(&v->t, want)) {
        *ret = value;
        return ERR_OK;
    }
    int which = want == KERNEL_LAYOUT_CHANNELS_LAST ? 1 : 2;
    if (v->copy[which]) {
        *ret = v->copy[which] - 1;
        return ERR_OK;
    }
    struct tensor t = v->t;
    strides_for(&t.shape, want, t.strides);
    int copy = value_new(p, &t);
    p->values[value].copy[which] = copy + 1;
    p->sizes.copies++;
    *ret = copy;
    return add_step(p, NULL, NULL, 1, &value, 1, &copy);
}

/* For the whole batch or, in training, for a part of it. */
static err prepare(struct model_plan *p, const struct kernel_class *c, const struct kernel_query *q, struct model_step *s)
{
    struct model_part_query *part = p->model->first_external == INT32_MAX ? NULL : xnew(struct model_part_query);
    int parts = part ? model_parts(q, part) : 1;
    err e = parts > 1 && c->accepts(&part->q) ? c->prepare(&part->q, p->model->payer, &s->state) : ERR_UNSUPPORTED;
    if (!e) model_parts_keep(part, parts, &s->split);
    free(part);
    return e == ERR_UNSUPPORTED ? c->prepare(q, p->model->payer, &s->state) : e;
}

/* Prepares with the first class that takes the query; strides of q's inputs and outputs are set as that class wants them. */
static err choose(struct model_plan *p, struct kernel_query *q, struct tensor *in, struct tensor *out, const bool *fixed_out,
                  struct kernel_layouts *l, struct model_step *s)
{
    struct tensor original[KERNEL_MAX_IN];
    memcpy(original, in, (size_t)q->n_in * sizeof *in);
    err e = err_set(ERR_UNSUPPORTED, "no kernel for this operator with these types");
    for (const struct kernel_class *const *c = kernels_list(p->model->options.only_ref); *c; c++) {
        memcpy(in, original, (size_t)q->n_in * sizeof *in);
        if (!(*c)->accepts(q)) continue;
        (*c)->layouts(q, l);
        for (int i = 0; i < q->n_in; i++)
            if (!in[i].data && in[i].dtype != TENSOR_NONE && !layout_fits(&in[i], l->in[i]))
                strides_for(&in[i].shape, l->in[i], in[i].strides);
        for (int i = 0; i < q->n_out; i++)
            if (!fixed_out[i]) output_strides(q, l->out[i], &out[i]);
        e = prepare(p, *c, q, s);
        if (e == ERR_UNSUPPORTED) continue;
        s->class = *c;
        return e;
    }
    return e;
}

static err connect(struct model_plan *p, struct model_step *s, const struct kernel_layouts *l, const struct tensor *in,
                   const int *in_values, const struct tensor *out, const int *out_values)
{
    err e;
    int use[KERNEL_MAX_IN];
    for (int i = 0; i < s->n_in; i++) {
        use[i] = in_values[i];
        if (use[i] < 0 || in[i].data) continue;
        if ((e = copy_for(p, in_values[i], l->in[i], &use[i]))) return e;
    }
    for (int i = 0; i < s->n_in; i++) {
        s->in[i] = (struct model_operand){.slot = -2};
        if (use[i] < 0) continue;
        if (in[i].data) {
            if ((e = place_constant(p, s, i, &in[i], in_values[i]))) return e;
            continue;
        }
        s->in[i] = operand(p, use[i]);
        touch(p, s->in[i].slot);
    }
    for (int i = 0; i < s->n_out; i++) {
        s->out[i] = (struct model_operand){.slot = -2};
        if (out_values[i] < 0) {
            /* an output that nobody reads still has to be written somewhere */
            struct tensor t = out[i];
            if (t.dtype == TENSOR_NONE) continue;
            int unused = value_new(p, &t);
            if ((e = give_slot(p, &p->values[unused]))) return e;
            s->out[i] = operand(p, unused);
            continue;
        }
        struct model_value *v = &p->values[out_values[i]];
        memcpy(v->t.strides, out[i].strides, sizeof v->t.strides);
        if (v->slot < 0 && (e = give_slot(p, v))) return e;
        s->out[i] = operand(p, out_values[i]);
        if (v->t.shape.bounded) s->out[i].bounded = 1 + out_values[i];
        touch(p, s->out[i].slot);
    }
    return ERR_OK;
}

/* The same values in f32 around an operator that no kernel takes in bf16: bf16 is brim's choice and must not make a plan fail. */
static bool has_bf16(const struct tensor *in, int n_in, const struct tensor *out, int n_out)
{
    bool some = false;
    for (int i = 0; i < n_in; i++) {
        if (in[i].dtype == TENSOR_BF16 && in[i].data) return false; /* the file's own numbers */
        some |= in[i].dtype == TENSOR_BF16;
    }
    for (int i = 0; i < n_out; i++) some |= out[i].dtype == TENSOR_BF16;
    return some;
}

static int as_f32(struct model_plan *p, int value)
{
    struct tensor t = p->values[value].t;
    t.dtype = TENSOR_F32;
    tensor_strides_row_major(&t.shape, t.strides);
    return value_new(p, &t);
}

static err add_in_f32(struct model_plan *p, struct op_node *node, const struct graph_node *fused, int n_in, const int *in_values, int n_out,
                      const int *out_values)
{
    int in[KERNEL_MAX_IN], out[KERNEL_MAX_OUT];
    err e = ERR_OK;
    for (int i = 0; i < n_in && !e; i++) {
        in[i] = in_values[i];
        if (in[i] < 0 || p->values[in[i]].t.dtype != TENSOR_BF16) continue;
        in[i] = as_f32(p, in_values[i]);
        e = add_step(p, NULL, NULL, 1, &in_values[i], 1, &in[i]);
    }
    for (int i = 0; i < n_out; i++) {
        bool half = out_values[i] >= 0 && p->values[out_values[i]].t.dtype == TENSOR_BF16;
        out[i] = half ? as_f32(p, out_values[i]) : out_values[i];
    }
    if (!e) e = add_step(p, node, fused, n_in, in, n_out, out);
    for (int i = 0; i < n_out && !e; i++)
        if (out[i] != out_values[i]) e = add_step(p, NULL, NULL, 1, &out[i], 1, &out_values[i]);
    return e;
}

/* node NULL: a Copy, or a Cast where types differ. */
static err add_step(struct model_plan *p, struct op_node *node, const struct graph_node *fused, int n_in, const int *in_values,
                    int n_out, const int *out_values)
{
    struct tensor in[KERNEL_MAX_IN] = {{0}}, out[KERNEL_MAX_OUT] = {{0}};
    bool fixed[KERNEL_MAX_OUT] = {false};
    struct model_step s = {.node = node, .n_in = n_in, .n_out = n_out, .out_value = out_values[0]};
    struct kernel_query q = {.n_in = n_in, .n_out = n_out, .in = in, .out = out, .threads = p->threads, .half = p->model->half};
    if (n_in > KERNEL_MAX_IN || n_out > KERNEL_MAX_OUT) return err_set(ERR_LIMIT, "%d inputs, %d outputs", n_in, n_out);
    struct op_info infos[KERNEL_MAX_IN + KERNEL_MAX_OUT] = {{0}};
    for (int i = 0; i < n_in; i++)
        if (in_values[i] >= 0) in[i] = p->values[in_values[i]].t;
    for (int i = 0; i < n_out; i++)
        if (out_values[i] >= 0) {
            out[i] = p->values[out_values[i]].t;
            out[i].data = NULL;
        }
    for (int i = 0; i < n_in; i++) infos[i] = (struct op_info){in[i].dtype, in[i].shape, in[i].data};
    for (int i = 0; i < n_out; i++) infos[KERNEL_MAX_IN + i] = (struct op_info){out[i].dtype, out[i].shape, NULL};
    if (!node) {
        s.own = s.node = node = xnew(struct op_node); /* must not move: kernels borrow it */
        fixed[0] = in[0].dtype == out[0].dtype;
        *node = (struct op_node){.kind = fixed[0] ? OP_COPY : OP_CAST, .name = (char *)(uintptr_t)"", .opset = 1, .n_in = 1, .n_out = 1};
    } else {
        s.flops = op_flops(node, infos, infos + KERNEL_MAX_IN);
    }
    q.node = node;
    if (fused) {
        q.n_post = s.n_post = fused->n_post;
        memcpy(q.post, fused->post, sizeof q.post);
    }
    s.in = xnewn(struct model_operand, n_in);
    s.out = xnewn(struct model_operand, n_out);
    struct kernel_layouts l = {{0}, {0}};
    err e = choose(p, &q, in, out, fixed, &l, &s);
    if (e == ERR_UNSUPPORTED && !s.own && has_bf16(in, n_in, out, n_out)) {
        model_step_done(&s);
        return add_in_f32(p, node, fused, n_in, in_values, n_out, out_values);
    }
    if (!e) e = connect(p, &s, &l, in, in_values, out, out_values);
    if (e) {
        model_step_done(&s);
        return e;
    }
    p->sizes.flops += s.flops;
    p->sizes.scratch = MAX(p->sizes.scratch, model_parts_scratch(&s));
    if (s.class->code_bytes) p->sizes.code += s.class->code_bytes(s.state);
    p->sizes.ref_steps += str_starts(s.class->name, "ref");
    vec_grow(&p->steps, &p->cap_steps, p->n_steps);
    p->steps[p->n_steps++] = s;
    return ERR_OK;
}

static err add_node(struct model_plan *p, struct graph_node *n)
{
    if (model_view(p, n)) {
        p->sizes.views++;
        return ERR_OK;
    }
    if (model_is_reshape(n->op.kind) && !n->n_post && n->op.in[0] >= 0 && p->values[n->op.in[0]].slot >= 0) {
        int row_major;
        err e = copy_for(p, n->op.in[0], KERNEL_LAYOUT_ROW_MAJOR, &row_major);
        if (e) return e;
        int keep = n->op.in[0];
        n->op.in[0] = row_major;
        bool viewed = model_view(p, n);
        n->op.in[0] = keep;
        if (viewed) {
            p->sizes.views++;
            return ERR_OK;
        }
    }
    return add_step(p, &n->op, n, n->op.n_in, n->op.in, n->op.n_out, n->op.out);
}

static err add_inputs(struct model_plan *p)
{
    for (int i = 0; i < p->graph->n_inputs; i++) {
        struct model_value *v = &p->values[p->graph->inputs[i]];
        err e = give_slot(p, v);
        if (e) return err_wrap(e, "input '%s'", p->graph->values[p->graph->inputs[i]].name);
        p->slots[v->slot].first = -1;
        if (p->model->first_external != INT32_MAX) p->slots[v->slot].last = INT32_MAX; /* training may run a step again: model_plan_find_nonfinite */
        p->slots[v->slot].external = i >= p->model->first_external;
    }
    return ERR_OK;
}

/* An image input is taken channels-last if that is how its first reader wants it: then the camera's converter writes it so and no copy is needed. */
static void input_layouts(struct model_plan *p)
{
    for (int i = 0; i < p->graph->n_inputs; i++) {
        int value = p->graph->inputs[i];
        struct model_value *v = &p->values[value];
        if (v->t.shape.rank != 4 || i >= p->model->first_external) continue;
        for (size_t k = 0; k < p->graph->n_nodes; k++) {
            const struct graph_node *n = &p->graph->nodes[k];
            if (n->op.n_in < 1 || n->op.in[0] != value) continue;
            if (n->op.kind == OP_CONV || n->op.kind == OP_MAX_POOL || n->op.kind == OP_PAD || n->op.kind == OP_RESIZE ||
                n->op.kind == OP_CAST)
                tensor_strides_channels_last(&v->t.shape, v->t.strides);
            break;
        }
    }
}

/* A network of a fifth of a millisecond is done before a second thread is awake: measured back to back (team awake), resnet8 (25 MFLOP) takes
 * 0.13 ms on two threads and 0.22 on one, vww (15) 0.17 and 0.19; with 10 ms of sleep before each run both are slower on two. */
static int threads_for(const struct model_plan *p)
{
    enum { ALONE_BELOW_FLOPS = 20000000 };
    int64_t flops = 0;
    for (size_t i = 0; i < p->graph->n_nodes; i++) {
        const struct graph_node *n = &p->graph->nodes[i];
        struct op_info in[KERNEL_MAX_IN], out[KERNEL_MAX_OUT] = {{0}};
        if (n->dead || n->op.n_out > KERNEL_MAX_OUT || n->n_own_in > KERNEL_MAX_IN) continue;
        graph_node_infos(p->graph, n, in);
        for (int k = 0; k < n->op.n_out; k++)
            if (n->op.out[k] >= 0) out[k] = (struct op_info){p->graph->values[n->op.out[k]].dtype, p->graph->values[n->op.out[k]].shape, NULL};
        flops += op_flops(&n->op, in, out);
    }
    return flops < ALONE_BELOW_FLOPS ? 1 : p->model->options.threads;
}

/* A value that shares its slot, or lies in it in another order, is copied out at the end. */
static err place_outside(struct model_plan *p, int value)
{
    int from = value, made;
    if (p->values[value].slot < 0) return err_set(ERR_UNSUPPORTED, "an output outside the arena whose size depends on data");
    if (!model_output_alone(p, value)) {
        struct tensor t = p->values[value].t;
        tensor_strides_row_major(&t.shape, t.strides);
        made = value_new(p, &t);
        err e = add_step(p, NULL, NULL, 1, &from, 1, &made);
        if (e) return e;
        p->values[value].slot = p->values[made].slot;
        p->values[value].start = 0;
        memcpy(p->values[value].t.strides, t.strides, sizeof t.strides);
    }
    p->slots[p->values[value].slot].external = true;
    return ERR_OK;
}

err model_plan_build(struct model_plan *p)
{
    const struct graph *g = p->graph;
    p->threads = threads_for(p);
    for (size_t i = 0; i < g->n_values; i++) {
        const struct graph_value *v = &g->values[i];
        struct tensor t = tensor_view(v->dtype, &v->shape, v->constant);
        value_new(p, &t);
    }
    input_layouts(p);
    err e = add_inputs(p);
    for (size_t i = 0; i < g->n_nodes && !e; i++) {
        struct graph_node *n = &g->nodes[i];
        if (n->dead) continue;
        e = n->loose ? model_loose_add(p, n) : add_node(p, n);
        if (e) return err_wrap(e, "%s: node %zu '%s' (%s, opset %d)", p->model->name, i, n->op.name, op_name(n->op.kind), n->op.opset);
    }
    for (int i = 0; i < g->n_outputs && !e; i++) {
        struct model_value *v = &p->values[g->outputs[i]];
        if (v->loose) v->last_step = INT32_MAX;
        if (v->slot < 0 && v->t.data) { /* an output that is a constant: a copy of it is made at every run */
            int made, from = g->outputs[i];
            struct tensor t = v->t;
            t.data = NULL;
            made = value_new(p, &t);
            e = add_step(p, NULL, NULL, 1, &from, 1, &made);
            p->values[from].slot = p->values[made].slot;
            p->values[from].t.data = NULL;
        }
        if (!e && i >= p->model->first_external_out && (e = place_outside(p, g->outputs[i]))) return err_wrap(e, "output %d", i);
        if (!e && p->values[g->outputs[i]].slot >= 0) p->slots[p->values[g->outputs[i]].slot].last = INT32_MAX;
    }
    if (e) return e;
    for (size_t i = 0; i < p->n_slots; i++) p->slots[i].last = MIN(p->slots[i].last, (int)p->n_steps);
    p->sizes.steps = (int)p->n_steps;
    return model_arena_layout(p);
}
