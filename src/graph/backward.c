/* graph_backward: see backward.h. The walk from the loss to the parameters, and the table of rules.
 *
 * First a pass forward marks what *wants* a gradient (floats that lead from wrt). Then nodes are visited last to first; when a node's turn comes, all
 * its readers have given, so the gradients of its outputs are complete. Nodes that wrt does not lead to, or that do not lead to the loss, are
 * passed over without a word, whatever operator they are.
 *
 * Every operator has a row: a rule, or the reason why there is none. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/backward_inside.h"
#include "op/rule.h"

static const char WHOLE[] = "it gives whole numbers or truth values", DATA[] = "its result does not depend on a float input",
                  OWN[] = "it is part of a backward graph, and second derivatives are not offered",
                  QUANTIZED[] = "it computes with quantised numbers", NOT_YET[] = "no rule is written for it";

static const struct {
    graph_gradient_fn *rule;
    const char *why_not;
} TABLE[OP_KIND_COUNT] = {
    /* backward_elementwise.c */
    [OP_ABS] = {bw_unary}, [OP_ACOS] = {bw_unary}, [OP_ACOSH] = {bw_unary}, [OP_ASIN] = {bw_unary},
    [OP_ASINH] = {bw_unary}, [OP_ATAN] = {bw_unary}, [OP_ATANH] = {bw_unary}, [OP_CELU] = {bw_unary},
    [OP_COS] = {bw_unary}, [OP_COSH] = {bw_unary}, [OP_ELU] = {bw_unary}, [OP_ERF] = {bw_unary},
    [OP_EXP] = {bw_unary}, [OP_GELU] = {bw_unary}, [OP_HARD_SIGMOID] = {bw_unary}, [OP_HARD_SWISH] = {bw_unary},
    [OP_LEAKY_RELU] = {bw_unary}, [OP_LOG] = {bw_unary}, [OP_MISH] = {bw_unary}, [OP_RECIPROCAL] = {bw_unary},
    [OP_RELU] = {bw_unary}, [OP_SELU] = {bw_unary}, [OP_SIGMOID] = {bw_unary}, [OP_SILU] = {bw_unary},
    [OP_SIN] = {bw_unary}, [OP_SINH] = {bw_unary}, [OP_SOFTPLUS] = {bw_unary}, [OP_SOFTSIGN] = {bw_unary},
    [OP_SQRT] = {bw_unary}, [OP_TAN] = {bw_unary}, [OP_TANH] = {bw_unary}, [OP_THRESHOLDED_RELU] = {bw_unary},
    [OP_CLIP] = {bw_clip}, [OP_NEG] = {bw_neg}, [OP_CEIL] = {bw_flat}, [OP_FLOOR] = {bw_flat},
    [OP_ROUND] = {bw_flat}, [OP_SIGN] = {bw_flat}, [OP_ADD] = {bw_add}, [OP_SUB] = {bw_sub},
    [OP_MUL] = {bw_mul}, [OP_DIV] = {bw_div}, [OP_POW] = {bw_pow}, [OP_MAX] = {bw_extreme},
    [OP_MIN] = {bw_extreme}, [OP_SUM] = {bw_sum}, [OP_MEAN] = {bw_mean}, [OP_WHERE] = {bw_where},
    [OP_PRELU] = {bw_prelu}, [OP_CAST] = {bw_cast}, [OP_DROPOUT] = {bw_dropout}, [OP_DROPOUT_BY] = {bw_dropout_by},
    /* backward_reduce.c */
    [OP_REDUCE_SUM] = {bw_reduce_sum}, [OP_REDUCE_MEAN] = {bw_reduce_mean}, [OP_REDUCE_SUM_SQUARE] = {bw_reduce_square},
    [OP_REDUCE_L1] = {bw_reduce_l1}, [OP_REDUCE_L2] = {bw_reduce_l2}, [OP_REDUCE_LOG_SUM] = {bw_reduce_log_sum},
    [OP_REDUCE_LOG_SUM_EXP] = {bw_reduce_log_sum_exp}, [OP_REDUCE_MAX] = {bw_reduce_extreme},
    [OP_REDUCE_MIN] = {bw_reduce_extreme}, [OP_GLOBAL_AVERAGE_POOL] = {bw_global_average},
    [OP_GLOBAL_MAX_POOL] = {bw_global_max}, [OP_SOFTMAX] = {bw_softmax}, [OP_LOG_SOFTMAX] = {bw_softmax},
    [OP_LP_NORM] = {bw_lp_norm}, [OP_CUMSUM] = {bw_cumsum},
    /* backward_matmul.c */
    [OP_MATMUL] = {bw_matmul}, [OP_GEMM] = {bw_gemm}, [OP_EINSUM] = {bw_einsum},
    /* backward_move.c */
    [OP_IDENTITY] = {bw_identity}, [OP_COPY] = {bw_identity}, [OP_RESHAPE] = {bw_reshape}, [OP_FLATTEN] = {bw_reshape},
    [OP_SQUEEZE] = {bw_reshape}, [OP_UNSQUEEZE] = {bw_reshape}, [OP_TRANSPOSE] = {bw_transpose}, [OP_EXPAND] = {bw_expand},
    [OP_TILE] = {bw_tile}, [OP_CONCAT] = {bw_concat}, [OP_SPLIT] = {bw_split}, [OP_SLICE] = {bw_slice},
    [OP_PAD] = {bw_pad}, [OP_GATHER] = {bw_gather}, [OP_GATHER_ELEMENTS] = {bw_gather_elements},
    [OP_GATHER_ND] = {bw_gather_nd}, [OP_SCATTER_ELEMENTS] = {bw_scatter_elements}, [OP_SCATTER_ND] = {bw_scatter_nd},
    [OP_DEPTH_TO_SPACE] = {bw_depth_to_space}, [OP_SPACE_TO_DEPTH] = {bw_space_to_depth}, [OP_TRILU] = {bw_trilu},
    [OP_RESIZE] = {bw_resize}, [OP_UPSAMPLE] = {bw_resize}, [OP_TOPK] = {bw_topk},
    /* backward_window.c, backward_norm.c */
    [OP_CONV] = {bw_conv}, [OP_CONV_TRANSPOSE] = {bw_conv_transpose}, [OP_MAX_POOL] = {bw_max_pool},
    [OP_AVERAGE_POOL] = {bw_average_pool}, [OP_BATCH_NORM] = {bw_batch_norm}, [OP_BATCH_NORM_TRAIN] = {bw_batch_norm_train},
    [OP_INSTANCE_NORM] = {bw_instance_norm}, [OP_LAYER_NORM] = {bw_layer_norm}, [OP_LRN] = {bw_lrn},

    [OP_AND] = {0, WHOLE}, [OP_ARGMAX] = {0, WHOLE}, [OP_ARGMIN] = {0, WHOLE}, [OP_BITSHIFT] = {0, WHOLE},
    [OP_EQUAL] = {0, WHOLE}, [OP_GREATER] = {0, WHOLE}, [OP_GREATER_OR_EQUAL] = {0, WHOLE}, [OP_IS_INF] = {0, WHOLE},
    [OP_IS_NAN] = {0, WHOLE}, [OP_LESS] = {0, WHOLE}, [OP_LESS_OR_EQUAL] = {0, WHOLE}, [OP_NON_MAX_SUPPRESSION] = {0, WHOLE},
    [OP_NON_ZERO] = {0, WHOLE}, [OP_NOT] = {0, WHOLE}, [OP_OR] = {0, WHOLE}, [OP_SHAPE] = {0, WHOLE}, [OP_SIZE] = {0, WHOLE},
    [OP_XOR] = {0, WHOLE}, [OP_CONSTANT] = {0, DATA}, [OP_CONSTANT_OF_SHAPE] = {0, DATA}, [OP_EYE_LIKE] = {0, DATA},
    [OP_ONE_HOT] = {0, DATA}, [OP_RANGE] = {0, DATA}, [OP_CAST_LIKE] = {0, "it becomes a Cast when the graph is specialised"},
    [OP_QUANTIZE_LINEAR] = {0, QUANTIZED}, [OP_DEQUANTIZE_LINEAR] = {0, QUANTIZED}, [OP_CONV_INTEGER] = {0, QUANTIZED},
    [OP_MATMUL_INTEGER] = {0, QUANTIZED}, [OP_QLINEAR_CONV] = {0, QUANTIZED}, [OP_QLINEAR_MATMUL] = {0, QUANTIZED},
    [OP_DYNAMIC_QUANTIZE] = {0, QUANTIZED}, [OP_GRU] = {0, NOT_YET}, [OP_LSTM] = {0, NOT_YET}, [OP_RNN] = {0, NOT_YET},
    [OP_GRID_SAMPLE] = {0, NOT_YET}, [OP_MOD] = {0, NOT_YET}, [OP_REDUCE_PROD] = {0, NOT_YET},
    [OP_IF] = {0, NOT_YET}, [OP_LOOP] = {0, NOT_YET}, [OP_SCAN] = {0, NOT_YET},
    [OP_UNARY_GRAD] = {0, OWN}, [OP_SOFTMAX_GRAD] = {0, OWN}, [OP_CONV_GRAD_WEIGHT] = {0, OWN}, [OP_MAX_POOL_GRAD] = {0, OWN},
    [OP_AVERAGE_POOL_GRAD] = {0, OWN}, [OP_BATCH_NORM_GRAD] = {0, OWN}, [OP_INSTANCE_NORM_GRAD] = {0, OWN},
    [OP_LAYER_NORM_GRAD] = {0, OWN}, [OP_GATHER_GRAD] = {0, OWN}, [OP_SLICE_GRAD] = {0, OWN},
};

const char *graph_backward_why_not(enum op_kind kind)
{
    if ((unsigned)kind >= OP_KIND_COUNT) return "it is no operator";
    return TABLE[kind].rule ? NULL : TABLE[kind].why_not ? TABLE[kind].why_not : NOT_YET;
}

/* ---- what rules may ask and do */

int bw_grad(const struct graph_backward *w, const struct graph_node *n, int o)
{
    return o < n->op.n_out && n->op.out[o] >= 0 ? w->grad[n->op.out[o]] : -1;
}

bool bw_wants(const struct graph_backward *w, const struct graph_node *n, int i)
{
    return !w->b.e && bw_in(n, i) >= 0 && w->wants[bw_in(n, i)];
}

const struct tensor_shape *bw_shape(const struct graph_backward *w, int value)
{
    return graph_b_shape(&w->b, value);
}

enum tensor_dtype bw_dtype(const struct graph_backward *w, int value)
{
    return value < 0 ? TENSOR_F32 : w->b.g->values[value].dtype;
}

static void give(struct graph_backward *w, int value, int grad)
{
    struct graph *g = w->b.g;
    if (w->b.e || grad < 0 || value < 0 || !w->wants[value]) return;
    if (g->values[grad].dtype != g->values[value].dtype || !tensor_shape_equal(&g->values[grad].shape, &g->values[value].shape)) {
        w->b.e = err_set(ERR_INTERNAL, "%s: the gradient of value '%s' in '%s' has another type or shape than it", g->name, g->values[value].name,
                         w->b.name);
        return;
    }
    w->grad[value] = w->grad[value] < 0 ? grad : graph_b2(&w->b, OP_ADD, w->grad[value], grad);
}

void bw_give(struct graph_backward *w, const struct graph_node *n, int i, int grad)
{
    give(w, bw_in(n, i), grad);
}

void bw_give_reduced(struct graph_backward *w, const struct graph_node *n, int i, int grad)
{
    if (!bw_wants(w, n, i) || grad < 0) return;
    struct tensor_shape s = *bw_shape(w, bw_in(n, i));
    give(w, bw_in(n, i), graph_b_reduce_to(&w->b, grad, &s));
}

void bw_cannot(struct graph_backward *w, const char *why)
{
    if (!w->b.e) w->b.e = err_set(ERR_UNSUPPORTED, "this form of it has no gradient: %s", why);
}

void bw_copy_attr(struct graph_node *to, const struct graph_node *from, const char *name)
{
    const struct op_attr *a = op_attr(&from->op, name);
    if (!a) return;
    if (a->type == OP_ATTR_INT) graph_set_int(to, name, a->i);
    if (a->type == OP_ATTR_FLOAT) graph_set_float(to, name, a->f);
    if (a->type == OP_ATTR_STRING && a->s) graph_set_string(to, name, a->s);
    if (a->type == OP_ATTR_INTS) graph_set_ints(to, name, a->ints, a->n);
}

int bw_ints(struct graph_backward *w, const struct graph_node *n, int i, const char *name, int64_t *ret)
{
    struct op_info in[KERNEL_MAX_IN];
    int count = -1;
    graph_node_infos(w->b.g, n, in);
    err e = op_ints(&n->op, in, i, name, ret, TENSOR_MAX_RANK * 2, &count);
    if (!w->b.e && e) w->b.e = e;
    return e ? -1 : count;
}

int bw_axis(struct graph_backward *w, const struct graph_node *n, int64_t otherwise, int rank)
{
    int axis = 0;
    err e = op_axis(op_attr_int(&n->op, "axis", otherwise), rank, &axis);
    if (!w->b.e && e) w->b.e = e;
    return axis;
}

/* ---- the walk */

static bool is_float(const struct graph *g, int v)
{
    return tensor_dtype_is_float(g->values[v].dtype);
}

static void mark_wants(struct graph_backward *w, const int *wrt, int n_wrt)
{
    const struct graph *g = w->b.g;
    for (int i = 0; i < n_wrt; i++) w->wants[wrt[i]] = is_float(g, wrt[i]);
    for (size_t k = 0; k < w->n_nodes; k++) {
        const struct graph_node *n = &g->nodes[k];
        bool leads = false;
        for (int i = 0; i < n->op.n_in && !n->dead; i++) leads |= n->op.in[i] >= 0 && w->wants[n->op.in[i]];
        for (int o = 0; o < n->op.n_out && leads; o++)
            if (n->op.out[o] >= 0 && is_float(g, n->op.out[o])) w->wants[n->op.out[o]] = 1;
    }
}

/* Only operators whose outputs are alike know what to do when the first one has no gradient. */
static bool outputs_are_alike(enum op_kind kind)
{
    return kind == OP_SPLIT;
}

static err visit(struct graph_backward *w, const struct graph_node *n)
{
    bool given = false, later = false;
    for (int o = 0; o < n->op.n_out; o++) given |= bw_grad(w, n, o) >= 0;
    for (int o = 1; o < n->op.n_out; o++) later |= bw_grad(w, n, o) >= 0;
    if (n->dead || !given) return ERR_OK;
    char name[160];
    snprintf(name, sizeof name, "d %s", n->op.name);
    w->b.name = name;
    const char *why = graph_backward_why_not(n->op.kind);
    if (why) {
        w->b.e = err_set(ERR_UNSUPPORTED, "the operator has no gradient: %s. Freeze the layers before it, or end the loss before it", why);
    } else if (n->loose || n->n_post) {
        w->b.e = n->loose ? err_set(ERR_UNSUPPORTED, "its sizes depend on data")
                          : err_set(ERR_USAGE, "operators are fused into it; take the gradient before GRAPH_REWRITE_FUSE");
    } else if (later && !outputs_are_alike(n->op.kind)) {
        bw_cannot(w, "the loss depends on another output than the first");
    } else {
        TABLE[n->op.kind].rule(w, n);
    }
    w->b.name = NULL;
    if (!w->b.e) return ERR_OK;
    return err_wrap(w->b.e, "%s: the gradient of node '%s' (%s)", w->b.g->name, n->op.name, op_name(n->op.kind));
}

static err walk(struct graph_backward *w)
{
    for (size_t i = w->n_nodes; i-- > 0;) {
        struct graph_node n = w->b.g->nodes[i]; /* the array may move, the node's lists do not */
        bool wanted = false;
        for (int o = 0; o < n.op.n_out; o++) wanted |= n.op.out[o] >= 0 && w->wants[n.op.out[o]];
        err e = wanted ? visit(w, &n) : ERR_OK;
        if (e) return e;
    }
    return ERR_OK;
}

static err check(const struct graph *g, const int *values, int n, const char *what)
{
    for (int i = 0; i < n; i++)
        if (values[i] < 0 || (size_t)values[i] >= g->n_values || !g->values[values[i]].has_shape || !is_float(g, values[i]))
            return err_set(ERR_USAGE, "%s: %s %d is no float value of known shape", g->name, what, i);
    return ERR_OK;
}

err graph_backward_from(struct graph *g, const int *values, const int *seeds, int n, const int *wrt, int n_wrt, int *ret_grads)
{
    err e = check(g, values, n, "end");
    if (!e) e = check(g, wrt, n_wrt, "value to derive by");
    if (e) return e;
    struct graph_backward w = {.b = {.g = g}, .n_values = g->n_values, .n_nodes = g->n_nodes};
    w.wants = xnewn(char, g->n_values + 1);
    w.grad = xnewn(int, g->n_values + 1);
    for (size_t v = 0; v < g->n_values; v++) w.grad[v] = -1;
    mark_wants(&w, wrt, n_wrt);
    for (int i = 0; i < n; i++) give(&w, values[i], seeds[i]);
    e = w.b.e ? w.b.e : walk(&w);
    for (int i = 0; i < n_wrt && !e; i++) ret_grads[i] = w.grad[wrt[i]];
    free(w.wants);
    free(w.grad);
    return e;
}

err graph_backward(struct graph *g, int loss, const int *wrt, int n_wrt, int *ret_grads)
{
    err e = check(g, &loss, 1, "the loss, value");
    if (e) return e;
    if (tensor_count(&g->values[loss].shape) != 1) {
        char text[160];
        return err_set(ERR_USAGE, "%s: the loss is %s, not one number; take its mean", g->name, tensor_shape_text(&g->values[loss].shape, NULL, text, sizeof text));
    }
    struct graph_builder b = {.g = g, .name = "d loss"};
    struct tensor_shape s = g->values[loss].shape;
    int seed = graph_b_reshape(&b, graph_b_number(&b, g->values[loss].dtype, 1), &s);
    return b.e ? b.e : graph_backward_from(g, &loss, &seed, 1, wrt, n_wrt, ret_grads);
}
