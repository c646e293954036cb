/* Rewriting: the driver, and the table that is the policy. See rewrite.h for how rules live together.
 *
 * Only what is invisible from outside goes: a value with one reader that is not an output. Invariant: between rules
 * every value that is read has one producer; order is restored by graph_compact after each phase.
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/rewrite.h"

#include <stdlib.h>
#include <string.h>

/* Phases run one after the other, each to its fixed point: constants are folded while patterns still stand as
 * exported, and post-ops come last, because nothing folds into an operator that has one. */
static const struct {
    int phase;
    unsigned which;
    const char *name;
    graph_rule_fn *rule;
} RULES[] = {
    {1, GRAPH_REWRITE_FOLD | GRAPH_REWRITE_PATTERNS, "transposes cancel", graph_rule_transposes},
    {1, GRAPH_REWRITE_FOLD | GRAPH_REWRITE_PATTERNS, "reshapes merge", graph_rule_reshapes},
    {1, GRAPH_REWRITE_FUSE | GRAPH_REWRITE_PATTERNS, "pad into window", graph_rule_pad_into_window},
    {1, GRAPH_REWRITE_FUSE | GRAPH_REWRITE_PATTERNS, "min and max", graph_rule_clip},
    {1, GRAPH_REWRITE_FUSE | GRAPH_REWRITE_PATTERNS, "x * sigmoid(x)", graph_rule_silu},
    {1, GRAPH_REWRITE_FUSE | GRAPH_REWRITE_PATTERNS, "gelu", graph_rule_gelu},
    {1, GRAPH_REWRITE_FUSE | GRAPH_REWRITE_PATTERNS, "hard sigmoid", graph_rule_hard_sigmoid},
    {1, GRAPH_REWRITE_FUSE | GRAPH_REWRITE_PATTERNS, "hard swish", graph_rule_hard_swish},
    {2, GRAPH_REWRITE_FOLD, "norm into producer", graph_rule_norm_into_producer},
    {2, GRAPH_REWRITE_FOLD, "affine into producer", graph_rule_affine_into_producer},
    {2, GRAPH_REWRITE_FOLD, "matmul with bias", graph_rule_matmul_bias},
    {2, GRAPH_REWRITE_FOLD, "affine into consumer", graph_rule_affine_into_consumer},
    {2, GRAPH_REWRITE_FOLD, "constants meet", graph_rule_constants_meet},
    {3, GRAPH_REWRITE_FOLD, "norm alone", graph_rule_norm_alone},
    {3, GRAPH_REWRITE_FOLD, "constants meet", graph_rule_constants_meet},
    {4, GRAPH_REWRITE_FUSE, "residual add", graph_rule_post_add},
    {4, GRAPH_REWRITE_FUSE, "activation", graph_rule_post_activation},
};
enum { PHASES = 4 };

/* ---- what rules may ask and do */

bool graph_rw_free(const struct graph_rewriter *r, int node)
{
    return node >= 0 && (size_t)node < r->n_nodes && !r->touched[node] && !r->g->nodes[node].dead && !r->g->nodes[node].loose;
}

int graph_rw_producer(const struct graph_rewriter *r, int value)
{
    if (value < 0 || (size_t)value >= r->n_values) return -1;
    return graph_rw_free(r, r->producer[value]) ? r->producer[value] : -1;
}

bool graph_rw_single(const struct graph_rewriter *r, int value)
{
    return value >= 0 && (size_t)value < r->n_values && r->uses[value] == 1 && !r->g->values[value].is_output;
}

int graph_rw_only(const struct graph_rewriter *r, int value, enum op_kind kind)
{
    int p = graph_rw_producer(r, value);
    return p >= 0 && r->g->nodes[p].op.kind == kind && graph_rw_single(r, value) ? p : -1;
}

void graph_rw_touch(struct graph_rewriter *r, int node)
{
    if ((size_t)node < r->n_nodes) r->touched[node] = 1;
}

bool graph_rw_bypass(struct graph_rewriter *r, int node, int value)
{
    struct graph *g = r->g;
    int old = g->nodes[node].op.out[0];
    if (g->values[old].is_output || (size_t)old >= r->n_values) return false;
    for (int i = r->first[old]; i < r->first[old + 1]; i++)
        if (!graph_rw_free(r, r->readers[i])) return false;
    for (int i = r->first[old]; i < r->first[old + 1]; i++) {
        struct op_node *n = &g->nodes[r->readers[i]].op;
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] == old) n->in[k] = value;
        graph_rw_touch(r, r->readers[i]);
    }
    g->nodes[node].dead = true;
    graph_rw_touch(r, node);
    return true;
}

void graph_rw_take_over(struct graph_rewriter *r, int by, int dead)
{
    struct graph_node *d = &r->g->nodes[dead];
    r->g->nodes[by].op.out[0] = d->op.out[0];
    d->dead = true;
    graph_rw_touch(r, by);
    graph_rw_touch(r, dead);
}

void graph_rw_set_input(struct graph_node *n, int i, int value)
{
    if (i >= n->op.n_in) {
        n->op.in = xrealloc(n->op.in, ((size_t)i + 1) * sizeof *n->op.in);
        while (n->op.n_in <= i) n->op.in[n->op.n_in++] = -1;
        n->n_own_in = n->op.n_in;
    }
    n->op.in[i] = value;
}

void graph_rw_drop_attr(struct graph_node *n, const char *name)
{
    for (int i = 0; i < n->op.n_attrs; i++) {
        struct op_attr *a = &n->op.attrs[i];
        if (strcmp(a->name, name) != 0) continue;
        free(a->name);
        free(a->ints);
        free(a->floats);
        free(a->s);
        graph_free(&a->graph);
        *a = n->op.attrs[--n->op.n_attrs];
        return;
    }
}

bool graph_rw_is_f32(const struct graph *g, int value)
{
    return value >= 0 && g->values[value].dtype == TENSOR_F32;
}

const float *graph_rw_floats(const struct graph *g, int value, size_t *ret_n)
{
    if (!graph_rw_is_f32(g, value) || !g->values[value].constant) return NULL;
    *ret_n = g->values[value].constant_bytes / sizeof(float);
    return g->values[value].constant;
}

bool graph_rw_scalar(const struct graph *g, int value, float *ret)
{
    size_t n = 0;
    const float *p = graph_rw_floats(g, value, &n);
    if (!p || n != 1) return false;
    *ret = *p;
    return true;
}

err graph_rw_add_floats(struct graph *g, const char *name, const struct tensor_shape *shape, int *ret_value,
                        float **ret)
{
    void *p;
    err e = graph_add_constant(g, name, TENSOR_F32, shape, ret_value, &p);
    if (!e) *ret = p;
    return e;
}

/* ---- rounds */

static void write_down(struct graph_rewriter *r, struct graph *g)
{
    *r = (struct graph_rewriter){.g = g, .n_nodes = g->n_nodes, .n_values = g->n_values};
    r->uses = graph_use_counts(g);
    r->producer = xnewn(int, g->n_values + 1);
    r->first = xnewn(int, g->n_values + 2);
    r->touched = xnewn(char, g->n_nodes + 1);
    int total = 0;
    for (size_t v = 0; v < g->n_values; v++) {
        r->producer[v] = -1;
        r->first[v] = total;
        total += r->uses[v];
    }
    r->first[g->n_values] = total;
    r->readers = xnewn(int, (size_t)total + 1);
    int *at = xnewn(int, g->n_values + 1);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct graph_node *n = &g->nodes[i];
        if (n->dead) continue;
        for (int k = 0; k < n->op.n_in; k++)
            if (n->op.in[k] >= 0) r->readers[r->first[n->op.in[k]] + at[n->op.in[k]]++] = (int)i;
        for (int k = 0; k < n->op.n_out; k++)
            if (n->op.out[k] >= 0) r->producer[n->op.out[k]] = (int)i;
    }
    free(at);
}

static void forget(struct graph_rewriter *r)
{
    free(r->uses);
    free(r->producer);
    free(r->first);
    free(r->readers);
    free(r->touched);
}

static int one_round(struct graph *g, int phase, unsigned which)
{
    struct graph_rewriter r;
    write_down(&r, g);
    int fired = 0, e = 0;
    for (size_t n = 0; n < r.n_nodes && e >= 0; n++)
        for (size_t k = 0; k < ARRAY_LEN(RULES) && e >= 0; k++) {
            if (RULES[k].phase != phase || !(which & RULES[k].which) || !graph_rw_free(&r, (int)n)) continue;
            e = RULES[k].rule(&r, (int)n);
            if (e > 0) fired++;
        }
    forget(&r);
    return e < 0 ? e : fired;
}

err graph_rewrite(struct graph *g, unsigned which)
{
    for (int phase = 1; phase <= PHASES; phase++) {
        int fired = 1;
        for (int round = 0; round < GRAPH_MAX_ROUNDS && fired > 0; round++) fired = one_round(g, phase, which);
        if (fired < 0) err_wrap(fired, "%s: rewriting", g->name);
        err e = graph_compact(g); /* also after an error: the graph stays valid */
        if (fired < 0 || e) return fired < 0 ? fired : e;
    }
    return ERR_OK;
}
