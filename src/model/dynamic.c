/* Loose steps: cells, plain operators with the sizes they meet, and the step itself.
 *
 * A node is inferred with its inputs' true shapes, and with their numbers, as everything is known by then. A reshape of a cell that owns its
 * buffer shares it. What the shape rule can only bound gets the bound's memory and gives the rest back when the true size is known.
 * Arithmetic is plain C's. SPDX-License-Identifier: Apache-2.0 */
#include "model/dynamic.h"

#include <stdlib.h>
#include <string.h>

/* ---- cells */

err model_cell_new(struct mem_payer *payer, enum tensor_dtype dtype, const struct tensor_shape *shape, struct model_cell *ret)
{
    struct model_buffer *b = xnew(struct model_buffer);
    int64_t count;
    err e = tensor_shape_count(shape, &count);
    if (!e && !tensor_dtype_size(dtype)) e = err_set(ERR_UNSUPPORTED, "a value of the type %s", tensor_dtype_name(dtype));
    *b = (struct model_buffer){.refs = 1, .payer = payer};
    if (!e) b->bytes = (size_t)count * tensor_dtype_size(dtype);
    if (!e) e = mem_alloc(payer, MEM_ACTIVATIONS, b->bytes, &b->p);
    if (e) {
        free(b);
        return e;
    }
    struct tensor_shape exact = *shape;
    exact.bounded = 0;
    *ret = (struct model_cell){tensor_view(dtype, &exact, b->p), b};
    return ERR_OK;
}

void model_cell_done(struct model_cell *c)
{
    struct model_buffer *b = c->own;
    *c = (struct model_cell){0};
    if (!b || --b->refs) return;
    mem_free(b->payer, MEM_ACTIVATIONS, b->p, b->bytes);
    free(b);
}

struct model_cell model_cell_ref(const struct model_cell *c)
{
    if (c->own) c->own->refs++;
    return *c;
}

err model_cell_own(struct mem_payer *payer, struct model_cell *c)
{
    struct model_cell copy;
    if (c->own || !c->t.dtype) return ERR_OK;
    err e = model_cell_new(payer, c->t.dtype, &c->t.shape, &copy);
    if (!e && tensor_count(&c->t.shape)) e = model_copy(&c->t, &copy.t);
    if (!e) *c = copy;
    return e;
}

err model_cell_reshaped(struct mem_payer *payer, const struct model_cell *c, const struct tensor_shape *shape, struct model_cell *ret)
{
    struct model_cell r = model_cell_ref(c);
    err e = model_cell_own(payer, &r);
    if (e) return e;
    struct model_buffer *own = r.own;
    *ret = (struct model_cell){tensor_view(c->t.dtype, shape, r.t.data), own};
    return ERR_OK;
}

/* The true size of a bounded result: its rows move together, in a buffer of their own. */
static err trim(struct mem_payer *payer, struct model_cell *c, const struct tensor *got)
{
    struct model_cell small;
    struct tensor_shape shape = got->shape;
    shape.bounded = 0;
    if (tensor_shape_equal(&shape, &c->t.shape)) return ERR_OK;
    err e = model_cell_new(payer, c->t.dtype, &shape, &small);
    if (e) return e;
    struct tensor from = c->t;
    from.shape = shape; /* strides stay those of the bound */
    if (tensor_count(&shape)) e = model_copy(&from, &small.t);
    model_cell_done(c);
    *c = small;
    return e;
}

/* ---- plain operators */

static err run_plain(struct model_eval *v, const struct op_node *n, const struct tensor *in, const struct op_info *out,
                     struct model_cell *ret)
{
    struct tensor to[KERNEL_MAX_OUT];
    err e = ERR_OK;
    for (int o = 0; o < n->n_out && !e; o++) {
        to[o] = (struct tensor){0};
        if (n->out[o] < 0) continue;
        e = model_cell_new(v->payer, out[o].dtype, &out[o].shape, &ret[o]);
        to[o] = ret[o].t;
        to[o].shape.bounded = out[o].shape.bounded;
    }
    if (!e) e = kernels_ref_run(n, in, n->n_in, to, n->n_out);
    for (int o = 0; o < n->n_out && !e; o++)
        if (n->out[o] >= 0 && out[o].shape.bounded) e = trim(v->payer, &ret[o], &to[o]);
    return e;
}

err model_eval_node(struct model_eval *v, const struct op_node *node, struct model_body *const *subs, const struct model_cell *in, int n_own,
                    const struct model_cell *around, struct model_cell *ret)
{
    struct op_info infos[KERNEL_MAX_IN], out[KERNEL_MAX_OUT] = {{0}};
    struct tensor t[KERNEL_MAX_IN];
    struct op_attr to = {.name = (char *)(uintptr_t)"to", .type = OP_ATTR_INT};
    struct op_node n = *node;
    n.n_in = n_own;
    if (n.kind == OP_CAST_LIKE && n_own == 2) {
        n = (struct op_node){.kind = OP_CAST, .name = n.name, .opset = n.opset, .n_in = 1, .n_out = 1, .in = n.in, .out = n.out,
                             .n_attrs = 1, .attrs = &to};
        to.i = in[1].t.dtype;
        n_own = 1;
    }
    for (int o = 0; o < n.n_out; o++) ret[o] = (struct model_cell){0};
    if (n.kind == OP_IF || n.kind == OP_LOOP || n.kind == OP_SCAN) {
        err c = model_eval_control(v, &n, subs, in, n_own, around, ret);
        for (int o = 0; o < n.n_out && c; o++) model_cell_done(&ret[o]);
        return c;
    }
    if (n_own > KERNEL_MAX_IN || n.n_out > KERNEL_MAX_OUT) return err_set(ERR_LIMIT, "%d inputs, %d outputs", n_own, n.n_out);
    for (int i = 0; i < n_own; i++) {
        t[i] = in[i].t;
        infos[i] = (struct op_info){t[i].dtype, t[i].shape, t[i].data};
    }
    if (n.kind == OP_SHAPE || n.kind == OP_SIZE) infos[0].constant = NULL;
    err e = op_infer(&n, infos, out);
    if (e) return e;
    bool view = model_is_reshape(n.kind) || n.kind == OP_IDENTITY || (n.kind == OP_DROPOUT && n.n_out == 1);
    if (view && n.out[0] >= 0)
        e = model_cell_reshaped(v->payer, &in[0], &out[0].shape, &ret[0]);
    else
        e = run_plain(v, &n, t, out, ret);
    for (int o = 0; o < n.n_out && e; o++) model_cell_done(&ret[o]);
    return e;
}

/* ---- steps of a plan */

/* What the step reads: a loose value's cell, or a view into arena or weights, copied if it is not row-major. */
static err input_cell(struct model_plan *p, struct model_step *s, int i, struct model_cell *ret)
{
    int value = s->loose->values[i];
    *ret = (struct model_cell){0};
    if (value < 0) return ERR_OK;
    struct model_value *v = &p->values[value];
    if (v->loose) {
        *ret = model_cell_ref(v->cell);
        return ERR_OK;
    }
    struct tensor t = v->t;
    if (v->t.shape.bounded) t.shape = v->actual; /* strides stay those of the bound */
    t.shape.bounded = 0;
    t.data = model_operand_address(p, &s->in[i]);
    if (tensor_is_row_major(&t)) {
        *ret = (struct model_cell){tensor_view(t.dtype, &t.shape, t.data), NULL};
        return ERR_OK;
    }
    err e = model_cell_new(p->model->payer, t.dtype, &t.shape, ret);
    if (!e && tensor_count(&t.shape)) e = model_copy(&t, &ret->t);
    return e;
}

err model_loose_run(struct model_plan *p, struct model_step *s)
{
    struct model_loose *l = s->loose;
    struct model_eval v = {.payer = p->model->payer, .name = p->model->name, .n_constants = l->n_constants};
    struct model_cell *in = xnewn(struct model_cell, (size_t)l->n_cells + 1), out[KERNEL_MAX_OUT] = {{{0}, NULL}};
    v.constants = xnewn(const void *, (size_t)l->n_constants + 1);
    err e = ERR_OK;
    for (int i = 0; i < l->n_cells && !e; i++) e = input_cell(p, s, i, &in[i]);
    for (int i = 0; i < l->n_constants; i++) v.constants[i] = model_operand_address(p, &s->in[l->n_cells + i]);
    if (!e) e = model_eval_node(&v, s->node, l->subs, in, s->n_own, in, out);
    for (int o = 0; o < s->node->n_out; o++) {
        int value = s->node->out[o];
        if (!e && value >= 0) e = model_cell_own(v.payer, &out[o]);
        if (!e && value >= 0)
            *p->values[value].cell = out[o];
        else
            model_cell_done(&out[o]);
    }
    for (int i = 0; i < l->n_cells; i++) model_cell_done(&in[i]);
    free(in);
    free(v.constants);
    return e;
}

void model_loose_begin(struct model_plan *p)
{
    for (size_t i = 0; i < p->n_values && p->n_loose; i++)
        if (p->values[i].cell) model_cell_done(p->values[i].cell);
}

void model_loose_after(struct model_plan *p, int step)
{
    if (!p->steps[step].loose) return;
    for (int i = 0; i < p->steps[step].loose->n_cells; i++) {
        int value = p->steps[step].loose->values[i];
        if (value >= 0 && p->values[value].cell && p->values[value].last_step == step) model_cell_done(p->values[value].cell);
    }
    for (int o = 0; o < p->steps[step].node->n_out; o++) {
        int value = p->steps[step].node->out[o];
        if (value >= 0 && p->values[value].cell && p->values[value].last_step <= step) model_cell_done(p->values[value].cell);
    }
}
