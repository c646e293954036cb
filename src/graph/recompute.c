/* Which activations are dropped, and the copies that make them again. The header says what levels are.
 *
 * A value is *crossing* if the backward part reads it, itself or through a view: it lives from the forward part on. Dropping one saves its bytes only if what its
 * copy reads is alive anyway; `cheap` looks for exactly those, `whole` reads nothing but what enters the segment, which is crossing by the choice of cuts.
 *
 * Invariant: small values, graph outputs and what nodes without a definite answer give are never dropped; what goes across a cut only if a few steps of such work
 * make it of one convolution or product in the same segment, which is kept then (a normalised and activated picture that many read). So a chain of copies ends
 * inside its segment, or that few steps into an earlier one. SPDX-License-Identifier: Apache-2.0 */
#include "graph/recompute.h"

#include <stdlib.h>
#include <string.h>

enum { SMALL = 4096, MOST_ACROSS = 3, HEAVY_PER_SEGMENT = 2, SEVERAL = 2 /* levels behind the moves: segments of 2 and 4 */, STEPS = 6 };

struct move {
    int segment;
    bool whole;
    double saved, ns;
};
struct recompute {
    struct graph *g;
    int n_nodes, forward; /* nodes 0 .. forward - 1 are the forward part */
    int *producer;        /* per value; -1: none */
    int *last;            /* per value: the last node of the forward part that reads it; -1 */
    bool *crossing, *across, *dropped; /* per value; across: goes over a cut */
    int n_cuts, *cuts;    /* segment s: nodes cuts[s] .. cuts[s + 1] - 1; the last one ends with the forward part and is left alone */
    int n_moves;
    struct move *moves;
    int *copy;            /* per value: the copied one; -1 */
};

/* ---- what a node is */

static bool heavy(enum op_kind k)
{
    return k == OP_CONV || k == OP_CONV_TRANSPOSE || k == OP_MATMUL || k == OP_GEMM || k == OP_EINSUM;
}

static bool view(enum op_kind k)
{
    return k == OP_IDENTITY || k == OP_RESHAPE || k == OP_SQUEEZE || k == OP_UNSQUEEZE || k == OP_FLATTEN;
}

static bool definite(const struct graph_node *n)
{
    if (n->loose) return false;
    for (int i = 0; i < n->op.n_attrs; i++)
        if (n->op.attrs[i].graph) return false;
    return n->op.kind != OP_DROPOUT;
}

static double bytes_of(const struct graph *g, int value)
{
    const struct graph_value *v = &g->values[value];
    int64_t n;
    return v->constant || tensor_shape_count(&v->shape, &n) ? 0 : (double)n * (double)tensor_dtype_size(v->dtype);
}

static int64_t flops_of(const struct graph *g, const struct graph_node *n)
{
    struct op_info in[KERNEL_MAX_IN], out[KERNEL_MAX_OUT];
    if (n->op.n_in > KERNEL_MAX_IN || n->op.n_out > KERNEL_MAX_OUT) return 0;
    graph_node_infos(g, n, in);
    for (int o = 0; o < n->op.n_out; o++) {
        int v = n->op.out[o];
        out[o] = v < 0 ? (struct op_info){0} : (struct op_info){g->values[v].dtype, g->values[v].shape, NULL};
    }
    return op_flops(&n->op, in, out);
}

/* A guess: 80 operations or 10 bytes in a nanosecond. Only ratios count. */
static double ns_of(const struct graph *g, const struct graph_node *n)
{
    double bytes = 0;
    if (view(n->op.kind)) return 0;
    for (int i = 0; i < n->op.n_in; i++) bytes += n->op.in[i] >= 0 ? bytes_of(g, n->op.in[i]) : 0;
    for (int o = 0; o < n->op.n_out; o++) bytes += n->op.out[o] >= 0 ? bytes_of(g, n->op.out[o]) : 0;
    return (double)flops_of(g, n) / 80 + bytes / 10;
}

/* ---- lifetimes and segments */

static void look(struct recompute *r)
{
    const struct graph *g = r->g;
    for (size_t v = 0; v < g->n_values; v++) r->producer[v] = r->last[v] = r->copy[v] = -1;
    for (int i = 0; i < r->forward; i++)
        for (int o = 0; o < g->nodes[i].op.n_out; o++)
            if (g->nodes[i].op.out[o] >= 0) r->producer[g->nodes[i].op.out[o]] = i;
    for (int i = 0; i < r->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].op.n_in; k++) {
            int v = g->nodes[i].op.in[k];
            if (v < 0 || r->producer[v] < 0) continue;
            if (i < r->forward)
                r->last[v] = i;
            else
                r->crossing[v] = true;
        }
    for (int i = r->forward - 1; i >= 0; i--) {
        const struct op_node *n = &g->nodes[i].op;
        if (view(n->kind) && n->out[0] >= 0 && r->crossing[n->out[0]] && n->in[0] >= 0 && r->producer[n->in[0]] >= 0) r->crossing[n->in[0]] = true;
    }
}

/* Cuts behind nodes where few values go on, all of which are kept anyway. */
static void cut(struct recompute *r)
{
    const struct graph *g = r->g;
    int *live = xnewn(int, g->n_values + 1), n_live = 0, work = 0;
    r->cuts = xnewn(int, r->forward + 2);
    r->cuts[r->n_cuts++] = 0;
    for (int i = 0; i < r->forward; i++) {
        int n = 0;
        for (int k = 0; k < n_live; k++)
            if (r->last[live[k]] > i) live[n++] = live[k];
        for (int o = 0; o < g->nodes[i].op.n_out; o++)
            if (g->nodes[i].op.out[o] >= 0 && r->last[g->nodes[i].op.out[o]] > i) live[n++] = g->nodes[i].op.out[o];
        n_live = n;
        work += heavy(g->nodes[i].op.kind);
        bool good = n >= 1 && n <= MOST_ACROSS && work >= HEAVY_PER_SEGMENT;
        for (int k = 0; k < n && good; k++) good = r->crossing[live[k]];
        if (!good) continue;
        r->cuts[r->n_cuts++] = i + 1;
        work = 0;
    }
    r->cuts[r->n_cuts] = r->forward;
    free(live);
}

/* Does it go over the beginning of a segment? `every`: segments are joined by so many. */
static void mark_across(struct recompute *r, int every)
{
    for (size_t v = 0; v < r->g->n_values; v++) {
        r->across[v] = false;
        for (int s = every; s < r->n_cuts && r->producer[v] >= 0; s += every)
            if (r->producer[v] < r->cuts[s] && r->last[v] >= r->cuts[s]) r->across[v] = true;
    }
    for (size_t v = 0; v < r->g->n_values; v++) /* and the last one, which no step of `every` may have met */
        if (r->producer[v] >= 0 && r->producer[v] < r->cuts[r->n_cuts - 1] && r->last[v] >= r->cuts[r->n_cuts - 1]) r->across[v] = true;
}

/* The one heavy node's value, kept for the backward part, that v is made of in a few steps; -1: there is none. */
static int root_of(const struct recompute *r, int v, int steps)
{
    if (r->producer[v] < 0) return -1;
    const struct graph_node *n = &r->g->nodes[r->producer[v]];
    if (heavy(n->op.kind)) return r->crossing[v] ? v : -1;
    int root = -1;
    if (!steps || !definite(n)) return -1;
    for (int k = 0; k < n->op.n_in; k++) {
        int u = n->op.in[k];
        if (u < 0 || r->producer[u] < 0 || bytes_of(r->g, u) <= SMALL) continue;
        int other = root_of(r, u, steps - 1);
        if (other < 0 || (root >= 0 && other != root)) return -1;
        root = other;
    }
    return root;
}

static bool may_drop(const struct recompute *r, int v, bool whole)
{
    if (r->producer[v] < 0 || r->g->values[v].is_output || bytes_of(r->g, v) <= SMALL || !definite(&r->g->nodes[r->producer[v]])) return false;
    if (!r->across[v]) return true;
    int root = whole ? -1 : root_of(r, v, STEPS);
    return root >= 0 && bytes_of(r->g, root) <= bytes_of(r->g, v); /* not by way of something larger, as before a pooling: its copy would lie there for long */
}

/* ---- moves */

/* Is it there in the backward part without keeping more, or can be made of what is? */
static bool at_hand(const struct recompute *r, int v)
{
    if (v < 0 || r->producer[v] < 0 || bytes_of(r->g, v) <= SMALL) return true;
    return r->crossing[v] || r->dropped[v];
}

static void drop(struct recompute *r, int from, int to, bool whole)
{
    for (int i = from; i < to; i++) {
        const struct graph_node *n = &r->g->nodes[i];
        bool good = whole || !heavy(n->op.kind);
        for (int k = 0; k < n->op.n_in && good && !whole; k++) good = at_hand(r, n->op.in[k]);
        for (int o = 0; o < n->op.n_out && good; o++)
            if (n->op.out[o] >= 0 && may_drop(r, n->op.out[o], whole)) r->dropped[n->op.out[o]] = true;
    }
}

static void need(const struct recompute *r, int v, char *nodes)
{
    if (v < 0 || !r->dropped[v] || nodes[r->producer[v]]) return;
    const struct graph_node *n = &r->g->nodes[r->producer[v]];
    nodes[r->producer[v]] = 1;
    for (int k = 0; k < n->op.n_in; k++) need(r, n->op.in[k], nodes);
}

/* What is dropped among nodes from .. to - 1 saves and costs. */
static void weigh(const struct recompute *r, int from, int to, double *ret_saved, double *ret_ns, struct graph_recompute_cost *sum)
{
    const struct graph *g = r->g;
    char *nodes = xnewn(char, r->n_nodes + 1);
    *ret_saved = *ret_ns = 0;
    for (int i = from; i < to; i++)
        for (int o = 0; o < g->nodes[i].op.n_out; o++) {
            int v = g->nodes[i].op.out[o];
            if (v < 0 || !r->dropped[v] || !r->crossing[v]) continue;
            need(r, v, nodes);
            if (!view(g->nodes[i].op.kind)) *ret_saved += bytes_of(g, v);
        }
    for (int i = from; i < to; i++) {
        if (!nodes[i]) continue;
        *ret_ns += ns_of(g, &g->nodes[i]);
        if (!sum) continue;
        sum->nodes++;
        sum->flops += flops_of(g, &g->nodes[i]);
    }
    free(nodes);
}

static int best_first(const void *a, const void *b)
{
    const struct move *x = a, *y = b;
    double p = x->saved * y->ns, q = y->saved * x->ns; /* x->saved / x->ns against y's */
    if (p != q) return p > q ? -1 : 1;
    return x->segment != y->segment ? x->segment - y->segment : x->whole - y->whole;
}

static void clear(struct recompute *r)
{
    memset(r->dropped, 0, r->g->n_values * sizeof *r->dropped);
}

static void find_moves(struct recompute *r)
{
    r->moves = xnewn(struct move, 2 * r->n_cuts + 1);
    mark_across(r, 1);
    for (int s = 0; s + 1 < r->n_cuts; s++) {
        struct move cheap = {.segment = s}, whole = {.segment = s, .whole = true};
        clear(r);
        drop(r, r->cuts[s], r->cuts[s + 1], false);
        weigh(r, r->cuts[s], r->cuts[s + 1], &cheap.saved, &cheap.ns, NULL);
        clear(r);
        drop(r, r->cuts[s], r->cuts[s + 1], true);
        weigh(r, r->cuts[s], r->cuts[s + 1], &whole.saved, &whole.ns, NULL);
        if (cheap.saved > 0) r->moves[r->n_moves++] = cheap;
        whole.saved -= cheap.saved;
        whole.ns -= cheap.ns;
        if (whole.saved <= 0) continue;
        if (cheap.saved > 0 && whole.saved * cheap.ns > cheap.saved * whole.ns) whole.ns = whole.saved * cheap.ns / cheap.saved; /* behind its cheap one */
        r->moves[r->n_moves++] = whole;
    }
    qsort(r->moves, (size_t)r->n_moves, sizeof *r->moves, best_first);
    clear(r);
}

static void apply(struct recompute *r, int level)
{
    int every = level > r->n_moves ? 1 << (level - r->n_moves) : 1;
    mark_across(r, every);
    if (every > 1) {
        drop(r, 0, r->cuts[r->n_cuts - 1], true);
        return;
    }
    enum { NOT, CHEAP, WHOLE };
    char *how = xnewn(char, r->n_cuts + 1); /* per segment: where both are among the moves, whole counts, which keeps what the other may drop at its end */
    for (int i = 0; i < level; i++) how[r->moves[i].segment] = MAX(how[r->moves[i].segment], r->moves[i].whole ? WHOLE : CHEAP);
    for (int s = 0; s + 1 < r->n_cuts; s++)
        if (how[s]) drop(r, r->cuts[s], r->cuts[s + 1], how[s] == WHOLE);
    free(how);
}

/* ---- copies */

static int copied(struct recompute *r, int v)
{
    if (v < 0 || r->producer[v] < 0 || !r->dropped[v]) return v;
    if (r->copy[v] >= 0) return r->copy[v];
    struct graph *g = r->g;
    int from = r->producer[v], n_in = g->nodes[from].op.n_in, n_out = g->nodes[from].op.n_out;
    bool norm = g->nodes[from].op.kind == OP_BATCH_NORM_TRAIN;
    int *in = xnewn(int, n_in + 1);
    for (int k = 0; k < n_in; k++) in[k] = copied(r, g->nodes[from].op.in[k]);
    graph_copy_node(g, &(struct graph_node){.op = g->nodes[from].op, .n_own_in = g->nodes[from].n_own_in});
    int to = (int)g->n_nodes - 1;
    memcpy(g->nodes[to].op.in, in, (size_t)n_in * sizeof *in);
    free(in);
    for (int o = 0; o < n_out; o++) {
        int old = g->nodes[from].op.out[o];
        if (old < 0 || (norm && o > 2)) continue; /* running statistics move once */
        int fresh = graph_add_value(g, g->values[old].name, g->values[old].dtype, &g->values[old].shape);
        g->nodes[to].op.out[o] = fresh;
        if (r->dropped[old]) r->copy[old] = fresh;
    }
    return r->copy[v];
}

/* The backward part reads copies; each lies right before its first reader. */
static void rewrite(struct recompute *r)
{
    struct graph *g = r->g;
    size_t n_values = g->n_values; /* copies are read by nobody else here */
    int *end = xnewn(int, r->n_nodes + 1);
    for (size_t v = 0; v < n_values; v++) /* kept, it would have had a second reader */
        if (r->dropped[v] && r->crossing[v]) g->nodes[r->producer[v]].apart = true;
    for (int i = 0; i < r->n_nodes; i++) {
        for (int k = 0; i >= r->forward && k < g->nodes[i].op.n_in; k++) {
            int v = g->nodes[i].op.in[k];
            if (v < 0 || (size_t)v >= n_values) continue;
            int c = copied(r, v);
            g->nodes[i].op.in[k] = c;
        }
        end[i] = (int)g->n_nodes;
    }
    struct graph_node *nodes = xnewn(struct graph_node, g->n_nodes + 1);
    size_t n = 0;
    for (int i = 0, c = r->n_nodes; i < r->n_nodes; i++) {
        for (; c < end[i]; c++) nodes[n++] = g->nodes[c];
        nodes[n++] = g->nodes[i];
    }
    free(g->nodes);
    g->nodes = nodes;
    g->cap_nodes = g->n_nodes + 1;
    free(end);
}

static void weigh_all(const struct recompute *r, struct graph_recompute_cost *ret)
{
    double saved, ns, all = 0;
    weigh(r, 0, r->forward, &saved, &ns, ret);
    for (int i = 0; i < r->n_nodes; i++) all += ns_of(r->g, &r->g->nodes[i]);
    ret->saved = (uint64_t)saved;
    ret->share = all > 0 ? ns / all : 0;
}

err graph_recompute(struct graph *g, int last_forward, int level, struct graph_recompute_cost *ret)
{
    struct recompute r = {.g = g, .n_nodes = (int)g->n_nodes};
    for (int i = 0; i < r.n_nodes && !r.forward; i++)
        for (int o = 0; o < g->nodes[i].op.n_out; o++)
            if (g->nodes[i].op.out[o] == last_forward) r.forward = i + 1;
    if (!r.forward) return err_set(ERR_USAGE, "%s: no node makes the value that the backward part begins with", g->name);
    /* values that copies add are not looked up: `rewrite` stops before them */
    r.producer = xnewn(int, g->n_values + 1);
    r.last = xnewn(int, g->n_values + 1);
    r.copy = xnewn(int, g->n_values + 1);
    r.crossing = xnewn(bool, g->n_values + 1);
    r.across = xnewn(bool, g->n_values + 1);
    r.dropped = xnewn(bool, g->n_values + 1);
    look(&r);
    cut(&r);
    find_moves(&r);
    int levels = r.n_moves ? r.n_moves + SEVERAL : 0;
    err e = level < 0 || level > levels ? err_set(ERR_USAGE, "%s: recomputation has levels 0 to %d, not %d", g->name, levels, level) : ERR_OK;
    if (!e) {
        *ret = (struct graph_recompute_cost){.levels = levels};
        apply(&r, level);
        weigh_all(&r, ret);
        if (level) rewrite(&r);
    }
    free(r.producer);
    free(r.last);
    free(r.copy);
    free(r.crossing);
    free(r.across);
    free(r.dropped);
    free(r.cuts);
    free(r.moves);
    return e;
}
