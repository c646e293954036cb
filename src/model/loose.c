/* Loose nodes become steps: what they read, which constants of their bodies are extents of the model, and how long a value lives.
 *
 * Constants of bodies from 4 KiB on are kept as any other weight, so that they are paid and can stream; smaller ones stay where the
 * file's reader has them. SPDX-License-Identifier: Apache-2.0 */
#include "model/dynamic.h"

#include <stdlib.h>
#include <string.h>

enum { SMALL = 4096 };

static const struct kernel_class dynamic_class = {.name = "dynamic"};

static err body_new(struct model_plan *p, struct model_step *s, const struct graph *g, const int *capture_from, struct model_body **ret);

static err body_subs(struct model_plan *p, struct model_step *s, struct model_body *b)
{
    size_t cap = 0;
    err e = ERR_OK;
    for (size_t i = 0; i < b->g->n_nodes && !e; i++) {
        const struct op_node *n = &b->g->nodes[i].op;
        b->first_sub[i] = b->n_subs;
        for (int a = 0; a < n->n_attrs && !e; a++) {
            if (!n->attrs[a].graph) continue;
            vec_grow(&b->subs, &cap, (size_t)b->n_subs);
            b->subs[b->n_subs] = NULL;
            e = body_new(p, s, n->attrs[a].graph, NULL, &b->subs[b->n_subs]);
            b->n_subs++;
        }
    }
    return e;
}

static err body_constants(struct model_plan *p, struct model_step *s, struct model_body *b)
{
    struct model_loose *l = s->loose;
    for (size_t v = 0; v < b->g->n_values; v++) {
        const struct graph_value *value = &b->g->values[v];
        if (!value->constant || value->constant_bytes < SMALL) continue;
        s->in = xrealloc(s->in, (size_t)(l->n_cells + l->n_constants + 1) * sizeof *s->in);
        s->in[l->n_cells + l->n_constants] = (struct model_operand){.slot = -2};
        struct tensor t = tensor_view(value->dtype, &value->shape, value->constant);
        s->n_in = l->n_cells + l->n_constants + 1;
        err e = model_place_raw(p, s, l->n_cells + l->n_constants, &t);
        if (e) return e;
        b->constant[v] = ++l->n_constants;
    }
    return ERR_OK;
}

/* When each value was read last: in nodes, in what their subgraphs read, as an output. */
static void body_lives(struct model_body *b)
{
    for (size_t v = 0; v < b->g->n_values; v++) b->last[v] = -1;
    for (size_t i = 0; i < b->g->n_nodes; i++) {
        const struct op_node *n = &b->g->nodes[i].op;
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] >= 0) b->last[n->in[k]] = (int)i;
        for (int a = 0; a < n->n_attrs; a++) {
            const struct graph *sub = n->attrs[a].graph;
            for (size_t v = 0; sub && v < sub->n_values; v++) /* stays to the end: simple, and rare */
                if (sub->values[v].outer) b->last[sub->values[v].outer_value] = (int)b->g->n_nodes;
        }
    }
    for (int o = 0; o < b->g->n_outputs; o++) b->last[b->g->outputs[o]] = (int)b->g->n_nodes;
    for (size_t i = 0; i < b->g->n_nodes; i++) /* a later plain read must not shorten what a subgraph or an output reads */
        for (int a = 0; a < b->g->nodes[i].op.n_attrs; a++) {
            const struct graph *sub = b->g->nodes[i].op.attrs[a].graph;
            for (size_t v = 0; sub && v < sub->n_values; v++)
                if (sub->values[v].outer) b->last[sub->values[v].outer_value] = (int)b->g->n_nodes;
        }
}

/* capture_from: per outer value in order its number around; NULL: the file's own numbers. */
static err body_new(struct model_plan *p, struct model_step *s, const struct graph *g, const int *capture_from, struct model_body **ret)
{
    struct model_body *b = *ret = xnew(struct model_body);
    int k = 0;
    b->g = g;
    b->capture = xnewn(int, g->n_values + 1);
    b->last = xnewn(int, g->n_values + 1);
    b->constant = xnewn(int, g->n_values + 1);
    b->first_sub = xnewn(int, g->n_nodes + 1);
    for (size_t v = 0; v < g->n_values; v++)
        b->capture[v] = !g->values[v].outer ? -1 : capture_from ? capture_from[k++] : g->values[v].outer_value;
    body_lives(b);
    err e = body_constants(p, s, b);
    return e ? e : body_subs(p, s, b);
}

static err add_bodies(struct model_plan *p, struct model_step *s, const struct graph_node *n)
{
    struct model_loose *l = s->loose;
    int at = n->n_own_in;
    err e = ERR_OK;
    l->subs = xnewn(struct model_body *, (size_t)n->op.n_attrs + 1);
    for (int a = 0; a < n->op.n_attrs && !e; a++) {
        const struct graph *sub = n->op.attrs[a].graph;
        if (!sub) continue;
        int *from = xnewn(int, sub->n_values + 1), k = 0;
        for (size_t v = 0; v < sub->n_values; v++)
            if (sub->values[v].outer) from[k++] = at++;
        e = body_new(p, s, sub, from, &l->subs[l->n_subs++]);
        free(from);
    }
    return e;
}

static err add_inputs(struct model_plan *p, struct model_step *s, const struct graph_node *n)
{
    struct model_loose *l = s->loose;
    for (int i = 0; i < l->n_cells; i++) {
        int value = l->values[i] = n->op.in[i];
        s->in[i] = (struct model_operand){.slot = -2};
        if (value < 0) continue;
        struct model_value *v = &p->values[value];
        err e = ERR_OK;
        if (v->loose)
            v->last_step = (int)p->n_steps;
        else if (v->t.data && v->slot < 0)
            e = model_place_raw(p, s, i, &v->t);
        else
            model_place_read(p, s, i, value);
        if (e) return e;
    }
    return ERR_OK;
}

err model_loose_add(struct model_plan *p, struct graph_node *n)
{
    struct model_step s = {.node = &n->op, .n_in = n->op.n_in, .n_own = n->n_own_in, .out_value = n->op.out[0], .class = &dynamic_class};
    s.loose = xnew(struct model_loose);
    s.loose->n_cells = n->op.n_in;
    s.loose->values = xnewn(int, (size_t)n->op.n_in + 1);
    s.in = xnewn(struct model_operand, (size_t)n->op.n_in + 1);
    err e = n->op.n_out > KERNEL_MAX_OUT ? err_set(ERR_LIMIT, "%d outputs", n->op.n_out) : ERR_OK;
    for (int o = 0; o < n->op.n_out && !e; o++) {
        if (n->op.out[o] < 0) continue;
        struct model_value *v = &p->values[n->op.out[o]];
        v->loose = true;
        v->last_step = (int)p->n_steps;
        if (!v->cell) v->cell = xnew(struct model_cell);
    }
    if (!e) e = add_inputs(p, &s, n);
    if (!e) e = add_bodies(p, &s, n);
    if (e) {
        model_step_done(&s);
        return e;
    }
    p->n_loose++;
    p->sizes.ref_steps++;
    vec_grow(&p->steps, &p->cap_steps, p->n_steps);
    p->steps[p->n_steps++] = s;
    return ERR_OK;
}

void model_loose_free(struct model_step *s)
{
    struct model_loose *l = s->loose;
    if (!l) return;
    for (int i = 0; i < l->n_subs; i++) model_body_free(&l->subs[i]);
    free(l->subs);
    free(l->values);
    free(l);
    s->loose = NULL;
}
