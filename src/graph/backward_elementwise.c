/* Gradients of element-wise operators; those with two inputs sum over what was broadcast. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "graph/backward_inside.h"

/* Does the gradient need y rather than x? */
static bool by_output(const struct graph_node *n)
{
    switch (n->op.kind) {
    case OP_EXP:
    case OP_RECIPROCAL:
    case OP_RELU:
    case OP_SIGMOID:
    case OP_SQRT:
    case OP_TANH:
        return true;
    case OP_LEAKY_RELU: /* y has x's sign */
        return op_attr_float(&n->op, "alpha", 0.01f) > 0;
    default:
        return false;
    }
}

/* UnaryGrad says what each derivative is. */
void bw_unary(struct graph_backward *w, const struct graph_node *n)
{
    static const char *const PARAMETERS[] = {"alpha", "beta", "gamma", "approximate"};
    int in[] = {bw_grad(w, n, 0), by_output(n) ? n->op.out[0] : n->op.in[0]};
    struct graph_node *d = graph_b_open(&w->b, OP_UNARY_GRAD, in, 2, 1);
    graph_set_string(d, "of", op_name(n->op.kind));
    for (size_t i = 0; i < ARRAY_LEN(PARAMETERS); i++) bw_copy_attr(d, n, PARAMETERS[i]);
    bw_give(w, n, 0, graph_b_close(&w->b, d));
}

/* A limit: an attribute before opset 11, then an input. False: it is not constant. */
static bool limit(struct graph_backward *w, const struct graph_node *n, int i, const char *name, float otherwise, float *ret)
{
    int v = bw_in(n, i);
    *ret = op_attr_float(&n->op, name, otherwise);
    if (v < 0) return true;
    if (!w->b.g->values[v].constant) return false;
    if (bw_dtype(w, v) == TENSOR_F32) memcpy(ret, w->b.g->values[v].constant, sizeof *ret);
    if (bw_dtype(w, v) == TENSOR_F64) *ret = (float)*(const double *)w->b.g->values[v].constant;
    return bw_dtype(w, v) == TENSOR_F32 || bw_dtype(w, v) == TENSOR_F64;
}

/* 1 from the lower limit to the upper, both included; limits get nothing. */
void bw_clip(struct graph_backward *w, const struct graph_node *n)
{
    float low, high;
    if (!limit(w, n, 1, "min", -INFINITY, &low) || !limit(w, n, 2, "max", INFINITY, &high)) {
        bw_cannot(w, "a limit is not a constant");
        return;
    }
    int in[] = {bw_grad(w, n, 0), n->op.in[0]};
    struct graph_node *d = graph_b_open(&w->b, OP_UNARY_GRAD, in, 2, 1);
    graph_set_string(d, "of", "Clip");
    graph_set_float(d, "alpha", low);
    graph_set_float(d, "beta", high);
    bw_give(w, n, 0, graph_b_close(&w->b, d));
}

void bw_neg(struct graph_backward *w, const struct graph_node *n)
{
    bw_give(w, n, 0, graph_b1(&w->b, OP_NEG, bw_grad(w, n, 0)));
}

/* Floor, Round, Sign ...: 0 wherever it exists. */
void bw_flat(struct graph_backward *w, const struct graph_node *n)
{
    (void)w;
    (void)n;
}

void bw_add(struct graph_backward *w, const struct graph_node *n)
{
    for (int i = 0; i < 2; i++) bw_give_reduced(w, n, i, bw_grad(w, n, 0));
}

void bw_sub(struct graph_backward *w, const struct graph_node *n)
{
    int dy = bw_grad(w, n, 0);
    bw_give_reduced(w, n, 0, dy);
    if (!bw_wants(w, n, 1)) return;
    bw_give(w, n, 1, graph_b1(&w->b, OP_NEG, graph_b_reduce_to(&w->b, dy, bw_shape(w, n->op.in[1]))));
}

void bw_mul(struct graph_backward *w, const struct graph_node *n)
{
    int dy = bw_grad(w, n, 0);
    for (int i = 0; i < 2; i++)
        if (bw_wants(w, n, i)) bw_give_reduced(w, n, i, graph_b2(&w->b, OP_MUL, dy, n->op.in[1 - i]));
}

/* y = a / b: da = dy / b, db = -da y */
void bw_div(struct graph_backward *w, const struct graph_node *n)
{
    int da = graph_b2(&w->b, OP_DIV, bw_grad(w, n, 0), n->op.in[1]);
    bw_give_reduced(w, n, 0, da);
    if (!bw_wants(w, n, 1)) return;
    int db = graph_b2(&w->b, OP_MUL, da, n->op.out[0]); /* adds a value: shapes asked for before may have moved */
    db = graph_b_reduce_to(&w->b, db, bw_shape(w, n->op.in[1]));
    bw_give(w, n, 1, graph_b1(&w->b, OP_NEG, db));
}

/* A constant exponent of one number? */
static bool one_number(struct graph_backward *w, int v, double *ret)
{
    const struct graph_value *c = &w->b.g->values[v];
    if (!c->constant || tensor_count(&c->shape) != 1) return false;
    switch (c->dtype) {
    case TENSOR_F32: *ret = (double)*(const float *)c->constant; return true;
    case TENSOR_F64: *ret = *(const double *)c->constant; return true;
    case TENSOR_I64: *ret = (double)*(const int64_t *)c->constant; return true;
    case TENSOR_I32: *ret = (double)*(const int32_t *)c->constant; return true;
    default: return false;
    }
}

/* y = x^p: dx = dy p x^(p - 1); dp = dy y log(x), 0 where x is not above 0. */
void bw_pow(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int x = n->op.in[0], p = n->op.in[1], dy = bw_grad(w, n, 0);
    enum tensor_dtype dtype = bw_dtype(w, x);
    double known;
    if (bw_wants(w, n, 0)) {
        int slope;
        if (one_number(w, p, &known)) {
            slope = known == 2 ? x : graph_b2(b, OP_POW, x, graph_b_number(b, dtype, known - 1));
            slope = graph_b_scale(b, slope, known);
        } else if (bw_dtype(w, p) != dtype) {
            bw_cannot(w, "the exponent is of another type than x, and no constant");
            return;
        } else {
            slope = graph_b2(b, OP_MUL, p, graph_b2(b, OP_POW, x, graph_b2(b, OP_SUB, p, graph_b_number(b, dtype, 1))));
        }
        bw_give_reduced(w, n, 0, graph_b2(b, OP_MUL, dy, slope));
    }
    if (!bw_wants(w, n, 1)) return;
    int one = graph_b_number(b, dtype, 1), positive = graph_b2(b, OP_GREATER, x, graph_b_number(b, dtype, 0));
    int logs = graph_b1(b, OP_LOG, graph_b3(b, OP_WHERE, positive, x, one));
    bw_give_reduced(w, n, 1, graph_b2(b, OP_MUL, graph_b2(b, OP_MUL, dy, n->op.out[0]), logs));
}

/* Max, Min of any number: those that are equal to the result share its gradient. */
void bw_extreme(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int masks[KERNEL_MAX_IN], sum = -1, y = n->op.out[0], dy = bw_grad(w, n, 0);
    if (n->op.n_in > KERNEL_MAX_IN) return;
    for (int i = 0; i < n->op.n_in; i++) {
        struct graph_node *c = graph_b_open(b, OP_CAST, (int[]){graph_b2(b, OP_EQUAL, n->op.in[i], y)}, 1, 1);
        graph_set_int(c, "to", bw_dtype(w, y));
        masks[i] = graph_b_close(b, c);
        sum = sum < 0 ? masks[i] : graph_b2(b, OP_ADD, sum, masks[i]);
    }
    int each = n->op.n_in > 1 ? graph_b2(b, OP_DIV, dy, sum) : dy;
    for (int i = 0; i < n->op.n_in; i++)
        if (bw_wants(w, n, i)) bw_give_reduced(w, n, i, graph_b2(b, OP_MUL, each, masks[i]));
}

void bw_sum(struct graph_backward *w, const struct graph_node *n)
{
    for (int i = 0; i < n->op.n_in; i++) bw_give_reduced(w, n, i, bw_grad(w, n, 0));
}

void bw_mean(struct graph_backward *w, const struct graph_node *n)
{
    int each = graph_b_scale(&w->b, bw_grad(w, n, 0), 1.0 / n->op.n_in);
    for (int i = 0; i < n->op.n_in; i++) bw_give_reduced(w, n, i, each);
}

void bw_where(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int dy = bw_grad(w, n, 0), zero = graph_b_number(b, bw_dtype(w, n->op.out[0]), 0), c = n->op.in[0];
    if (bw_wants(w, n, 1)) bw_give_reduced(w, n, 1, graph_b3(b, OP_WHERE, c, dy, zero));
    if (bw_wants(w, n, 2)) bw_give_reduced(w, n, 2, graph_b3(b, OP_WHERE, c, zero, dy));
}

/* x > 0 ? x : slope x */
void bw_prelu(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int x = n->op.in[0], dy = bw_grad(w, n, 0), zero = graph_b_number(b, bw_dtype(w, x), 0), above = graph_b2(b, OP_GREATER, x, zero);
    if (bw_wants(w, n, 0)) bw_give(w, n, 0, graph_b3(b, OP_WHERE, above, dy, graph_b2(b, OP_MUL, dy, n->op.in[1])));
    if (bw_wants(w, n, 1)) bw_give_reduced(w, n, 1, graph_b3(b, OP_WHERE, above, zero, graph_b2(b, OP_MUL, dy, x)));
}

void bw_cast(struct graph_backward *w, const struct graph_node *n)
{
    int dy = bw_grad(w, n, 0);
    struct graph_node *c = graph_b_open(&w->b, OP_CAST, &dy, 1, 1);
    graph_set_int(c, "to", bw_dtype(w, n->op.in[0]));
    bw_give(w, n, 0, graph_b_close(&w->b, c));
}

/* Dropout as in inference: it hands its input on. */
void bw_dropout(struct graph_backward *w, const struct graph_node *n)
{
    bw_give(w, n, 0, bw_grad(w, n, 0));
}

/* The same elements, by the same draw: nothing is kept. */
void bw_dropout_by(struct graph_backward *w, const struct graph_node *n)
{
    static const char *const PARAMETERS[] = {"ratio", "node", "channels_last"};
    int in[] = {bw_grad(w, n, 0), n->op.in[1]};
    struct graph_node *d = graph_b_open(&w->b, OP_DROPOUT_BY, in, 2, 1);
    for (size_t i = 0; i < ARRAY_LEN(PARAMETERS); i++) bw_copy_attr(d, n, PARAMETERS[i]);
    bw_give(w, n, 0, graph_b_close(&w->b, d));
}
