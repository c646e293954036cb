/* Loose nodes: those that cannot be planned because sizes depend on data.
 *
 * A node is loose if it reads a value whose size is only bounded or not known (NonZero's result, another loose node's), if a shape
 * that it needs is computed from data (Reshape, Range, TopK), or if it holds subgraphs that run as data says (If, Loop, Scan). It stays in the
 * specialised graph in its place; the model room runs it with the sizes that it meets. Rewrites leave loose nodes alone, and what they
 * read stays as it is.
 *
 * Invariant: what reads a loose value is loose. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "graph/specialise.h"

/* Can this input decide a shape: a scalar or a list of numbers that is not constant? */
static bool may_decide(const struct op_info *in)
{
    return in->dtype != TENSOR_NONE && in->dtype != TENSOR_BOOL && !in->constant && in->shape.rank <= 1;
}

bool graph_is_loose(const struct graph_special *s, const struct graph_node *n, const struct op_info *in, err e)
{
    if (n->op.kind == OP_LOOP || n->op.kind == OP_SCAN || n->op.kind == OP_IF) return true;
    for (int i = 0; i < n->op.n_in; i++) {
        const struct graph_value *v = n->op.in[i] < 0 ? NULL : &s->to->values[n->op.in[i]];
        if (v && !v->constant && (v->loose || v->shape.bounded)) return true;
    }
    bool decides = false;
    for (int i = 0; i < n->op.n_in && e == ERR_UNSUPPORTED; i++) decides |= may_decide(&in[i]);
    return decides;
}

/* The operator's attributes hold the source's own subgraphs. */
static void share_subgraphs(const struct graph_node *old, struct graph_node *n)
{
    for (int i = 0; i < old->op.n_attrs; i++) {
        const struct op_attr *a = &old->op.attrs[i];
        if (!a->graph) continue;
        struct op_attr *b = &n->op.attrs[n->op.n_attrs++]; /* graph_copy_node left room */
        *b = (struct op_attr){.name = xstrdup(a->name), .type = a->type, .graph = a->graph};
        __atomic_add_fetch(&a->graph->refs, 1, __ATOMIC_RELAXED);
    }
}

static void add_input(struct graph_node *n, int value)
{
    n->op.in = xrealloc(n->op.in, ((size_t)n->op.n_in + 1) * sizeof *n->op.in);
    n->op.in[n->op.n_in++] = value;
}

err graph_make_loose(struct graph_special *s, const struct graph *from, const struct graph_node *old, struct graph_node *n, int *map,
                     int (*take_outer)(struct graph_special *s, const struct graph *from, int *map, int v))
{
    share_subgraphs(old, n);
    n->loose = true;
    n->n_own_in = n->op.n_in;
    for (int a = 0; a < n->op.n_attrs; a++) {
        const struct graph *sub = n->op.attrs[a].graph;
        for (size_t v = 0; sub && v < sub->n_values; v++)
            if (sub->values[v].outer) add_input(n, take_outer(s, from, map, sub->values[v].outer_value));
    }
    bool depends = false;
    for (int i = 0; i < n->op.n_in && s->batch; i++) depends |= n->op.in[i] >= 0 && *graph_batch_flag(s, n->op.in[i]);
    for (int o = 0; o < old->op.n_out; o++) {
        int v = old->op.out[o];
        if (v < 0) continue;
        struct tensor_shape nothing = {.rank = 1};
        map[v] = n->op.out[o] = graph_add_value(s->to, from->values[v].name, from->values[v].dtype, &nothing);
        s->to->values[map[v]].loose = true;
        if (depends) *graph_batch_flag(s, map[v]) = GRAPH_BATCH_DEPENDS;
    }
    return ERR_OK;
}
