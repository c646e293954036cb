/* Folding constants into the weights of Conv, ConvTranspose, Gemm and MatMul.
 *
 * Batch normalisation, Mul, Add, Sub and Div with a constant per channel are all the same thing: y[c] = scale[c]
 * x[c] + shift[c] (an *affine*). After a linear operator it moves into its weight and bias, before a convolution
 * too where no border is padded. Scales are computed in double and rounded once, so a folded network differs from
 * the original by float32 rounding only.
 *
 * A weight that others read as well keeps its numbers: a large one in the same graph, because folding would make a second copy of it, and one that
 * is marked as shared with other models, because it would be another weight then. The scale becomes a post-op, and the shift goes into the bias:
 * scale * (W x + b) + shift = scale * (W x + (b + shift / scale)). Numbers that the other models have as well (a shared normalisation) may be folded.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/rewrite.h"

enum { SMALL_WEIGHT = 64 << 10 };

struct affine {
    int64_t n;
    double *scale, *shift;
    int x; /* the value it is applied to */
    bool shared; /* its scale is another models', too */
};

static void affine_done(struct affine *a)
{
    free(a->scale);
    free(a->shift);
}

static bool all_finite(const struct affine *a)
{
    for (int64_t c = 0; c < a->n; c++)
        if (!isfinite((float)a->scale[c]) || !isfinite((float)a->shift[c])) return false;
    return true;
}

static bool no_shift(const struct affine *a)
{
    for (int64_t c = 0; c < a->n; c++)
        if (a->shift[c] != 0) return false;
    return true;
}

static bool no_scale(const struct affine *a)
{
    for (int64_t c = 0; c < a->n; c++)
        if (a->scale[c] != 1) return false;
    return true;
}

static void affine_new(struct affine *a, int64_t n)
{
    a->n = n;
    a->scale = xnewn(double, (size_t)n + 1);
    a->shift = xnewn(double, (size_t)n + 1);
    for (int64_t c = 0; c < n; c++) a->scale[c] = 1;
}

/* BatchNormalization at inference: (x - mean) / sqrt(var + epsilon) * gamma + beta. */
static bool norm_affine(const struct graph_rewriter *r, const struct graph_node *n, struct affine *ret)
{
    const float *p[4];
    size_t count[4];
    if (!op_attr_int(&n->op, "spatial", 1)) return false;
    if (n->op.n_in < 5 || !graph_rw_is_f32(r->g, n->op.in[0])) return false;
    for (int i = 0; i < 4; i++) {
        p[i] = graph_rw_floats(r->g, n->op.in[i + 1], &count[i]);
        if (!p[i] || count[i] != count[0]) return false;
    }
    double epsilon = (double)op_attr_float(&n->op, "epsilon", 1e-5f);
    affine_new(ret, (int64_t)count[0]);
    ret->x = n->op.in[0];
    ret->shared = r->g->values[n->op.in[1]].shared && r->g->values[n->op.in[4]].shared;
    for (size_t c = 0; c < count[0]; c++) {
        ret->scale[c] = p[0][c] / sqrt(p[3][c] + epsilon);
        ret->shift[c] = p[1][c] - p[2][c] * ret->scale[c];
    }
    return true;
}

/* Is `c` one number, or one per element of `axis` of `x`, so that it does not make x larger? */
static bool per_channel(const struct tensor_shape *x, const struct tensor_shape *c, int axis)
{
    if (c->rank > x->rank) return false;
    for (int i = 0; i < c->rank; i++) {
        int at = x->rank - c->rank + i;
        if (c->dims[i] != 1 && (at != axis || c->dims[i] != x->dims[at])) return false;
    }
    return true;
}

/* Mul, Add, Sub, Div of x and a constant. `axis`: of the channels, counted from the end if negative. */
static bool arithmetic_affine(const struct graph_rewriter *r, const struct graph_node *n, int axis,
                              struct affine *ret)
{
    enum op_kind kind = n->op.kind;
    if ((kind != OP_MUL && kind != OP_ADD && kind != OP_SUB && kind != OP_DIV) || n->op.n_in != 2) return false;
    for (int i = 0; i < 2; i++) {
        size_t count;
        const float *p = graph_rw_floats(r->g, n->op.in[i], &count);
        int x = n->op.in[1 - i];
        if (!p || !graph_rw_is_f32(r->g, x) || r->g->values[x].constant) continue;
        const struct tensor_shape *xs = &r->g->values[x].shape;
        int at = axis < 0 ? xs->rank + axis : axis;
        if (at < 0 || at >= xs->rank || xs->bounded || (kind == OP_DIV && i == 0) || count == 0) return false;
        if (!per_channel(xs, &r->g->values[n->op.in[i]].shape, at)) return false;
        affine_new(ret, xs->dims[at]);
        ret->x = x;
        ret->shared = r->g->values[n->op.in[i]].shared;
        for (int64_t c = 0; c < ret->n; c++) {
            double v = p[count == 1 ? 0 : c];
            if (kind == OP_MUL) ret->scale[c] = v;
            if (kind == OP_DIV) ret->scale[c] = 1 / v;
            if (kind == OP_ADD) ret->shift[c] = v;
            if (kind == OP_SUB) ret->shift[c] = i == 0 ? v : -v;
            if (kind == OP_SUB && i == 0) ret->scale[c] = -1;
        }
        return true;
    }
    return false;
}

/* ---- weights */

static bool may_change(const struct graph_rewriter *r, int value, const struct affine *a)
{
    if ((size_t)value < r->n_values && r->g->values[value].shared && !a->shared) return false;
    return (size_t)value < r->n_values && (r->uses[value] == 1 || r->g->values[value].constant_bytes <= SMALL_WEIGHT);
}

/* Which output channel element i of the weight belongs to. */
static int64_t channel_of(const struct graph_node *n, const struct tensor_shape *w, int64_t i)
{
    switch (n->op.kind) {
    case OP_CONV: return i / (tensor_count(w) / w->dims[0]);
    case OP_CONV_TRANSPOSE: {
        int64_t group = op_attr_int(&n->op, "group", 1), window = tensor_count(w) / (w->dims[0] * w->dims[1]);
        int64_t in = i / (w->dims[1] * window), out = i / window % w->dims[1];
        return in / (w->dims[0] / group) * w->dims[1] + out;
    }
    case OP_GEMM: return op_attr_int(&n->op, "transB", 0) ? i / w->dims[1] : i % w->dims[1];
    default: return i % w->dims[1]; /* MatMul */
    }
}

static int64_t channels_of(const struct graph_node *n, const struct tensor_shape *w)
{
    if (n->op.kind == OP_CONV) return w->dims[0];
    if (n->op.kind == OP_CONV_TRANSPOSE) return w->dims[1] * op_attr_int(&n->op, "group", 1);
    return n->op.kind == OP_GEMM && op_attr_int(&n->op, "transB", 0) ? w->dims[0] : w->dims[1];
}

static bool linear(enum op_kind k)
{
    return k == OP_CONV || k == OP_CONV_TRANSPOSE || k == OP_GEMM || k == OP_MATMUL;
}

static bool scales_only(const struct graph_node *n)
{
    return n->n_post == 0 || (n->n_post == 1 && n->post[0].kind == KERNEL_POST_SCALE);
}

/* A linear operator whose result only its reader sees: its node, or -1. */
static int foldable(const struct graph_rewriter *r, int value)
{
    int p = graph_rw_producer(r, value);
    if (p < 0 || !graph_rw_single(r, value)) return -1;
    const struct graph_node *n = &r->g->nodes[p];
    size_t count;
    if (!linear(n->op.kind) || !scales_only(n) || n->n_own_in < 2 || !graph_rw_floats(r->g, n->op.in[1], &count) ||
        count == 0)
        return -1;
    if ((n->op.kind == OP_GEMM || n->op.kind == OP_MATMUL) && r->g->values[n->op.in[1]].shape.rank != 2) return -1;
    return p;
}

/* The bias as one double per channel (a Gemm's times beta); false if it is not of that form. */
static bool read_bias(const struct graph_rewriter *r, const struct graph_node *n, int64_t channels, double *ret)
{
    int v = n->n_own_in > 2 ? n->op.in[2] : -1;
    size_t count;
    double beta = n->op.kind == OP_GEMM ? (double)op_attr_float(&n->op, "beta", 1) : 1;
    for (int64_t c = 0; c < channels; c++) ret[c] = 0;
    if (v < 0) return true;
    const float *p = graph_rw_floats(r->g, v, &count);
    const struct tensor_shape *s = &r->g->values[v].shape;
    if (!p || (count != 1 && (int64_t)count != channels) || (count != 1 && s->dims[s->rank - 1] != channels))
        return false;
    for (int64_t c = 0; c < channels; c++) ret[c] = beta * p[count == 1 ? 0 : c];
    return true;
}

static int new_floats(struct graph *g, int like, int *ret_value, float **ret)
{
    struct tensor_shape shape = g->values[like].shape;
    char *name = xstrdup(g->values[like].name);
    err e = graph_rw_add_floats(g, name, &shape, ret_value, ret);
    free(name);
    return e;
}

/* n's scale and bias after `a`; the scale is never 0, which could not be undone in the bias: what it multiplies vanishes all the same. */
static bool scale_and_bias(const struct graph_rewriter *r, const struct graph_node *n, const struct affine *a, float *scale, float *bias)
{
    const double least = 1e-20;
    double *b = xnewn(double, (size_t)a->n + 1);
    size_t count = 0;
    const float *old = n->n_post ? graph_rw_floats(r->g, n->op.in[n->post[0].input], &count) : NULL;
    bool fits = read_bias(r, n, a->n, b) && (!n->n_post || (old && (int64_t)count == a->n));
    for (int64_t c = 0; c < a->n && fits; c++) {
        double s = (old ? (double)old[c] : 1) * a->scale[c];
        if (fabs(s) < least) s = copysign(least, s);
        scale[c] = (float)s;
        bias[c] = (float)(b[c] + a->shift[c] / s);
        fits = isfinite(scale[c]) && isfinite(bias[c]);
    }
    free(b);
    return fits;
}

/* The weight stays: scale as a post-op, shift in the bias. */
static int scale_after(struct graph_rewriter *r, int node, const struct affine *a)
{
    struct graph *g = r->g;
    struct graph_node *n = &g->nodes[node];
    bool conv = n->op.kind == OP_CONV || n->op.kind == OP_CONV_TRANSPOSE;
    const struct tensor_shape ys = g->values[n->op.out[0]].shape;
    struct tensor_shape ss = {.rank = conv ? ys.rank - 1 : 1}, bs = tensor_shape_of(1, &a->n);
    if (ys.bounded || ys.rank < 2 || (n->op.kind == OP_MATMUL && !no_shift(a)) || n->op.n_in + 3 > KERNEL_MAX_IN) return 0;
    for (int i = 0; i < ss.rank; i++) ss.dims[i] = i ? 1 : a->n;
    int scale = -1, bias = -1;
    float *s = NULL, *b = NULL;
    err e = graph_rw_add_floats(g, "scale", &ss, &scale, &s);
    if (!e) e = graph_rw_add_floats(g, "bias", &bs, &bias, &b);
    if (e) return e;
    n = &g->nodes[node];
    if (!scale_and_bias(r, n, a, s, b)) return 0; /* the two constants have no readers and go with the next compaction */
    if (n->n_post) n->op.in[n->post[0].input] = scale;
    else graph_rw_add_post(n, KERNEL_POST_SCALE, scale);
    if (n->op.kind == OP_MATMUL || (n->op.in[2] < 0 && no_shift(a))) return 1;
    n->op.in[2] = bias;
    if (n->op.kind == OP_GEMM) graph_rw_drop_attr(n, "beta");
    return 1;
}

/* New weight and bias for `n`, which makes scale * n(x) + shift from then on. */
static int fold_into(struct graph_rewriter *r, int node, const struct affine *a)
{
    struct graph *g = r->g;
    struct graph_node *n = &g->nodes[node];
    int old = n->op.in[1], weight = old, bias = -1;
    struct tensor_shape ws = g->values[old].shape, bs = tensor_shape_of(1, &a->n);
    if (channels_of(n, &ws) != a->n || !all_finite(a) || (n->op.kind == OP_MATMUL && !no_shift(a))) return 0;
    if (n->n_post || (!no_scale(a) && !may_change(r, old, a))) return scale_after(r, node, a);
    double *b = xnewn(double, (size_t)a->n + 1);
    float *w, *bp;
    int fired = read_bias(r, n, a->n, b);
    err e = ERR_OK;
    if (fired && !no_scale(a)) {
        e = new_floats(g, old, &weight, &w);
        g->values[weight].shared = !e && g->values[old].shared;
        const float *from = g->values[old].constant;
        int64_t count = tensor_count(&ws);
        for (int64_t i = 0; i < count && !e; i++) w[i] = (float)(from[i] * a->scale[channel_of(n, &ws, i)]);
    }
    if (fired && !e && n->op.kind != OP_MATMUL) {
        e = graph_rw_add_floats(g, "bias", &bs, &bias, &bp);
        for (int64_t c = 0; c < a->n && !e; c++) bp[c] = (float)(b[c] * a->scale[c] + a->shift[c]);
    }
    free(b);
    if (e) return e;
    if (!fired) return 0;
    n->op.in[1] = weight;
    if (bias >= 0) {
        graph_rw_set_input(n, 2, bias);
        if (n->op.kind == OP_GEMM) graph_rw_drop_attr(n, "beta");
    }
    return 1;
}

static int into_producer(struct graph_rewriter *r, int node, const struct affine *a)
{
    int p = foldable(r, a->x);
    if (p < 0) return 0;
    int fired = fold_into(r, p, a);
    if (fired > 0) graph_rw_take_over(r, p, node);
    return fired;
}

/* BatchNormalization(Conv | ConvTranspose | Gemm) -> the same with other weights. Condition: constants; one reader.
 */
int graph_rule_norm_into_producer(struct graph_rewriter *r, int node)
{
    struct affine a;
    const struct graph_node *n = &r->g->nodes[node];
    if (n->op.kind != OP_BATCH_NORM || foldable(r, n->op.in[0]) < 0 || !norm_affine(r, n, &a)) return 0;
    if (r->g->nodes[foldable(r, a.x)].op.kind == OP_MATMUL && r->g->values[a.x].shape.rank != 2) {
        affine_done(&a);
        return 0;
    }
    int fired = into_producer(r, node, &a);
    affine_done(&a);
    return fired;
}

/* Mul | Add | Sub | Div (linear, constant per output channel) -> linear. MatMul: scales only. */
int graph_rule_affine_into_producer(struct graph_rewriter *r, int node)
{
    const struct graph_node *n = &r->g->nodes[node];
    struct affine a;
    int p = -1;
    for (int i = 0; i < n->op.n_in && i < 2 && p < 0; i++) p = foldable(r, n->op.in[i]);
    if (p < 0) return 0;
    enum op_kind kind = r->g->nodes[p].op.kind;
    if (!arithmetic_affine(r, n, kind == OP_CONV || kind == OP_CONV_TRANSPOSE ? 1 : -1, &a)) return 0;
    int fired = into_producer(r, node, &a);
    affine_done(&a);
    return fired;
}

/* Add(MatMul(x of rank 2, constant of rank 2), constant per column) -> Gemm. */
int graph_rule_matmul_bias(struct graph_rewriter *r, int node)
{
    struct graph *g = r->g;
    const struct graph_node *n = &g->nodes[node];
    if (n->op.kind != OP_ADD) return 0;
    int p = -1, i = 0;
    for (; i < 2 && (p = graph_rw_only(r, n->op.in[i], OP_MATMUL)) < 0; i++) continue;
    if (p < 0) return 0;
    struct graph_node *m = &g->nodes[p];
    struct affine a;
    size_t count;
    if (m->n_post || g->values[m->op.in[0]].shape.rank != 2 || g->values[m->op.in[1]].shape.rank != 2) return 0;
    if (!graph_rw_floats(g, m->op.in[1], &count) || !arithmetic_affine(r, n, -1, &a)) return 0;
    struct tensor_shape shape = tensor_shape_of(1, &a.n);
    float *bias;
    int v, fired = 0;
    if (a.x == m->op.out[0] && a.n == g->values[m->op.in[1]].shape.dims[1]) {
        err e = graph_rw_add_floats(g, "bias", &shape, &v, &bias);
        for (int64_t c = 0; c < a.n && !e; c++) bias[c] = (float)a.shift[c];
        if (!e) {
            m->op.kind = OP_GEMM;
            graph_rw_set_input(m, 2, v);
            graph_rw_take_over(r, p, node);
        }
        fired = e ? e : 1;
    }
    affine_done(&a);
    return fired;
}

/* ---- before a convolution */

static bool unpadded(const struct graph *g, const struct graph_node *n)
{
    struct op_window w;
    if (op_window(&n->op, &g->values[n->op.in[0]].shape, &g->values[n->op.in[1]].shape, &w)) return false;
    for (int i = 0; i < w.n; i++)
        if (w.pad_begin[i] || w.pad_end[i]) return false;
    return true;
}

static int fold_before(struct graph_rewriter *r, int node, const struct affine *a)
{
    struct graph *g = r->g;
    struct graph_node *n = &g->nodes[node];
    int old = n->op.in[1], weight, bias;
    struct tensor_shape ws = g->values[old].shape, bs = tensor_shape_of(1, ws.dims);
    int64_t group = op_attr_int(&n->op, "group", 1), out = ws.dims[0], in = ws.dims[1],
            window = tensor_count(&ws) / (out * in);
    if (in * group != a->n || !all_finite(a)) return 0;
    double *b = xnewn(double, (size_t)out + 1);
    float *w, *bp;
    bool ok = read_bias(r, n, out, b);
    err e = ok ? new_floats(g, old, &weight, &w) : ERR_OK;
    if (ok && !e) g->values[weight].shared = g->values[old].shared;
    if (ok && !e) e = graph_rw_add_floats(g, "bias", &bs, &bias, &bp);
    const float *from = g->values[old].constant;
    for (int64_t i = 0; ok && !e && i < out * in * window; i++) {
        int64_t o = i / (in * window), c = o / (out / group) * in + i / window % in;
        w[i] = (float)(from[i] * a->scale[c]);
        b[o] += from[i] * a->shift[c];
    }
    for (int64_t o = 0; ok && !e && o < out; o++) bp[o] = (float)b[o];
    free(b);
    if (e || !ok) return e;
    n->op.in[1] = weight;
    graph_rw_set_input(n, 2, bias);
    return 1;
}

/* Conv(affine(x)) -> Conv(x). Condition: the affine has one reader; no padding, or nothing is added (zeros stay
 * zeros). */
int graph_rule_affine_into_consumer(struct graph_rewriter *r, int node)
{
    struct graph *g = r->g;
    const struct graph_node *n = &g->nodes[node];
    size_t count;
    if (n->op.kind != OP_CONV || n->n_post || n->op.n_in < 2 || !graph_rw_floats(g, n->op.in[1], &count) || !count)
        return 0;
    if (!graph_rw_single(r, n->op.in[0])) return 0;
    int p = graph_rw_producer(r, n->op.in[0]);
    struct affine a;
    if (p < 0 || g->nodes[p].n_post) return 0;
    bool found = g->nodes[p].op.kind == OP_BATCH_NORM ? norm_affine(r, &g->nodes[p], &a)
                                                      : arithmetic_affine(r, &g->nodes[p], 1, &a);
    if (!found) return 0;
    int x = a.x, fired = may_change(r, n->op.in[1], &a) && (no_shift(&a) || unpadded(g, n)) ? fold_before(r, node, &a) : 0;
    affine_done(&a);
    if (fired <= 0) return fired;
    g->nodes[node].op.in[0] = x;
    g->nodes[p].dead = true;
    graph_rw_touch(r, node);
    graph_rw_touch(r, p);
    return 1;
}

/* ---- alone */

/* BatchNormalization that found no operator to go into -> Mul, Add. */
int graph_rule_norm_alone(struct graph_rewriter *r, int node)
{
    struct graph *g = r->g;
    struct affine a;
    float *scale, *shift;
    int v[2];
    if (g->nodes[node].op.kind != OP_BATCH_NORM || !norm_affine(r, &g->nodes[node], &a)) return 0;
    int out = g->nodes[node].op.out[0];
    struct tensor_shape shape = g->values[out].shape, cs = {.rank = MAX(shape.rank - 1, 1)};
    for (int i = 0; i < cs.rank; i++) cs.dims[i] = i ? 1 : a.n;
    bool ok = all_finite(&a) && shape.rank >= 2;
    err e = ok ? graph_rw_add_floats(g, "scale", &cs, &v[0], &scale) : ERR_OK;
    if (ok && !e) e = graph_rw_add_floats(g, "shift", &cs, &v[1], &shift);
    for (int64_t c = 0; ok && !e && c < a.n; c++) {
        scale[c] = (float)a.scale[c];
        shift[c] = (float)a.shift[c];
    }
    affine_done(&a);
    if (e || !ok) return e;
    int between = graph_add_value(g, "scaled", TENSOR_F32, &shape), x = g->nodes[node].op.in[0];
    char *name = xstrdup(g->nodes[node].op.name);
    for (int i = 0; i < 2; i++) {
        struct graph_node *n = graph_add_node(g, i ? OP_ADD : OP_MUL, name, 2, 1);
        n->op.in[0] = i ? between : x;
        n->op.in[1] = v[i];
        n->op.out[0] = i ? out : between;
    }
    free(name);
    g->nodes[node].dead = true;
    graph_rw_touch(r, node);
    return 1;
}

/* Element of `s` that meets element `index` of `out`, by broadcasting. */
static int64_t meets(const struct tensor_shape *s, const struct tensor_shape *out, const int64_t *index)
{
    int64_t at = 0;
    for (int i = 0; i < s->rank; i++) at = at * s->dims[i] + (s->dims[i] == 1 ? 0 : index[out->rank - s->rank + i]);
    return at;
}

/* The constant's position (0 or 1) in x + c, x - c, x * c, x / c; -1 if it is none of these. */
static int constant_at(const struct graph *g, const struct graph_node *n, bool *ret_inverse)
{
    enum op_kind k = n->op.kind;
    size_t count;
    if ((k != OP_ADD && k != OP_SUB && k != OP_MUL && k != OP_DIV) || n->op.n_in != 2 || n->n_post) return -1;
    *ret_inverse = k == OP_SUB || k == OP_DIV;
    if (graph_rw_floats(g, n->op.in[1], &count)) return 1;
    return !*ret_inverse && graph_rw_floats(g, n->op.in[0], &count) ? 0 : -1;
}

/* (x + a) + b -> x + (a + b), (x * a) * b -> x * (a * b), with - and / likewise. Condition: one reader; the new
 * constant is no larger than the larger of the two. */
int graph_rule_constants_meet(struct graph_rewriter *r, int node)
{
    struct graph *g = r->g;
    struct graph_node *n = &g->nodes[node];
    bool inverse_n, inverse_p;
    int cn = constant_at(g, n, &inverse_n), p = cn < 0 ? -1 : graph_rw_producer(r, n->op.in[1 - cn]);
    if (p < 0 || !graph_rw_single(r, n->op.in[1 - cn])) return 0;
    struct graph_node *q = &g->nodes[p];
    int cp = constant_at(g, q, &inverse_p);
    bool sum = n->op.kind == OP_ADD || n->op.kind == OP_SUB;
    if (cp < 0 || sum != (q->op.kind == OP_ADD || q->op.kind == OP_SUB)) return 0;
    struct tensor_shape sp = g->values[q->op.in[cp]].shape, sn = g->values[n->op.in[cn]].shape, s;
    if (tensor_broadcast(&sp, &sn, &s) || tensor_count(&s) > MAX(tensor_count(&sp), tensor_count(&sn))) return 0;
    int v;
    float *to;
    err e = graph_rw_add_floats(g, "constant", &s, &v, &to);
    if (e) return e;
    const float *a = g->values[q->op.in[cp]].constant, *b = g->values[n->op.in[cn]].constant;
    int64_t index[TENSOR_MAX_RANK] = {0};
    for (int64_t i = 0, count = tensor_count(&s); i < count; i++) {
        double x = a[meets(&sp, &s, index)], y = b[meets(&sn, &s, index)];
        if (sum)
            to[i] = (float)((inverse_p ? -x : x) + (inverse_n ? -y : y));
        else
            to[i] = (float)((inverse_p ? 1 / x : x) * (inverse_n ? 1 / y : y));
        for (int d = s.rank - 1; d >= 0 && ++index[d] == s.dims[d]; d--) index[d] = 0;
    }
    int x = q->op.in[1 - cp];
    n->op.kind = sum ? OP_ADD : OP_MUL;
    n->op.in[0] = x;
    n->op.in[1] = v;
    q->dead = true;
    graph_rw_touch(r, node);
    graph_rw_touch(r, p);
    return 1;
}
