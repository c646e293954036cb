/* Gradients of matrix products. y = a b: da = dy b^T, db = a^T dy. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "graph/backward_inside.h"
#include "op/rule.h"

static int gemm(struct graph_backward *w, int a, bool ta, int b, bool tb, float alpha)
{
    int in[] = {a, b};
    struct graph_node *n = graph_b_open(&w->b, OP_GEMM, in, 2, 1);
    if (ta) graph_set_int(n, "transA", 1);
    if (tb) graph_set_int(n, "transB", 1);
    if (alpha != 1) graph_set_float(n, "alpha", alpha);
    return graph_b_close(&w->b, n);
}

static int swap_last(struct graph_backward *w, int v)
{
    int64_t perm[TENSOR_MAX_RANK];
    int rank = bw_shape(w, v)->rank;
    for (int i = 0; i < rank; i++) perm[i] = i < rank - 2 ? i : 2 * rank - 3 - i;
    return rank < 2 ? v : graph_b_transpose(&w->b, v, perm);
}

/* [all but the last axis, last] */
static int flat(struct graph_backward *w, int v)
{
    if (w->b.e) return -1;
    struct tensor_shape s = *bw_shape(w, v), two = {.rank = 2};
    two.dims[1] = s.dims[s.rank - 1];
    two.dims[0] = 1;
    for (int i = 0; i < s.rank - 1; i++) two.dims[0] *= s.dims[i];
    return graph_b_reshape(&w->b, v, &two);
}

/* A vector counts as a matrix of one row (left) or one column (right). */
static int matrix(struct graph_backward *w, int v, bool left)
{
    struct tensor_shape s = *bw_shape(w, v);
    if (s.rank != 1) return v;
    struct tensor_shape two = {.rank = 2, .dims = {left ? 1 : s.dims[0], left ? s.dims[0] : 1}};
    return graph_b_reshape(&w->b, v, &two);
}

void bw_matmul(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    int dy = bw_grad(w, n, 0);
    struct tensor_shape sa = *bw_shape(w, n->op.in[0]), sb = *bw_shape(w, n->op.in[1]), full = *bw_shape(w, n->op.out[0]);
    if (sa.rank == 1 || sb.rank == 1) { /* put the axes back that MatMul took from its result */
        struct tensor_shape s = {.rank = 0};
        int last = full.rank - (sa.rank > 1) - (sb.rank > 1);
        for (int i = 0; i < last; i++) s.dims[s.rank++] = full.dims[i];
        s.dims[s.rank++] = sa.rank > 1 ? sa.dims[sa.rank - 2] : 1;
        s.dims[s.rank++] = sb.rank > 1 ? sb.dims[sb.rank - 1] : 1;
        dy = graph_b_reshape(b, dy, &s);
    }
    int x = matrix(w, n->op.in[0], true), y = matrix(w, n->op.in[1], false);
    if (b->e) return;
    if (bw_shape(w, y)->rank == 2) { /* the usual linear layer: one plain product each */
        int rows = flat(w, dy);
        if (bw_wants(w, n, 0)) bw_give(w, n, 0, graph_b_reshape(b, gemm(w, rows, false, y, true, 1), &sa));
        if (bw_wants(w, n, 1)) bw_give(w, n, 1, graph_b_reshape(b, gemm(w, flat(w, x), true, rows, false, 1), &sb));
        return;
    }
    struct tensor_shape ma = *bw_shape(w, x), mb = *bw_shape(w, y);
    if (bw_wants(w, n, 0)) {
        int da = graph_b_reduce_to(b, graph_b2(b, OP_MATMUL, dy, swap_last(w, y)), &ma);
        bw_give(w, n, 0, graph_b_reshape(b, da, &sa));
    }
    if (bw_wants(w, n, 1)) {
        int db = graph_b_reduce_to(b, graph_b2(b, OP_MATMUL, swap_last(w, x), dy), &mb);
        bw_give(w, n, 1, graph_b_reshape(b, db, &sb));
    }
}

/* y = alpha a' b' + beta c, where ' is a transposition or nothing */
void bw_gemm(struct graph_backward *w, const struct graph_node *n)
{
    struct graph_builder *b = &w->b;
    bool ta = op_attr_int(&n->op, "transA", 0) != 0, tb = op_attr_int(&n->op, "transB", 0) != 0;
    float alpha = op_attr_float(&n->op, "alpha", 1), beta = op_attr_float(&n->op, "beta", 1);
    int x = n->op.in[0], y = n->op.in[1], dy = bw_grad(w, n, 0);
    if (bw_wants(w, n, 0)) bw_give(w, n, 0, ta ? gemm(w, y, tb, dy, true, alpha) : gemm(w, dy, false, y, !tb, alpha));
    if (bw_wants(w, n, 1)) bw_give(w, n, 1, tb ? gemm(w, dy, true, x, ta, alpha) : gemm(w, x, !ta, dy, false, alpha));
    if (bw_wants(w, n, 2)) bw_give(w, n, 2, graph_b_scale(b, graph_b_reduce_to(b, dy, bw_shape(w, n->op.in[2])), (double)beta));
}

/* ---- Einsum: the gradient of one operand is an Einsum of dy and the others */

static bool names(const struct op_einsum *q, int operand, int letter)
{
    const int *list = operand < 0 ? q->out : q->in[operand];
    int rank = operand < 0 ? q->out_rank : q->in_rank[operand];
    for (int i = 0; i < rank; i++)
        if (list[i] == letter) return true;
    return false;
}

/* Can operand i be written as an Einsum of the rest: each letter once, and all of them there? */
static bool writable(const struct op_einsum *q, int operand)
{
    for (int i = 0; i < q->in_rank[operand]; i++) {
        int letter = q->in[operand][i];
        bool found = names(q, -1, letter);
        for (int k = 0; k < q->n_in; k++) found |= k != operand && names(q, k, letter);
        for (int k = 0; k < i; k++) found &= q->in[operand][k] != letter;
        if (!found || letter >= 52) return false;
    }
    return true;
}

/* Letters behind an ellipsis have numbers that no letter has. */
static size_t put(char *text, size_t at, const int *letters, int n)
{
    for (int i = 0; i < n; i++) text[at++] = (char)(letters[i] < 26 ? 'a' + letters[i] : 'A' + letters[i] - 26);
    return at;
}

void bw_einsum(struct graph_backward *w, const struct graph_node *n)
{
    struct op_info infos[KERNEL_MAX_IN];
    struct op_einsum q;
    graph_node_infos(w->b.g, n, infos);
    w->b.e = op_einsum_parse(&n->op, infos, &q);
    for (int i = 0; i < n->op.n_in && !w->b.e; i++) {
        if (!bw_wants(w, n, i)) continue;
        bool sizes = true;
        for (int k = 0; k < q.in_rank[i]; k++) sizes &= bw_shape(w, n->op.in[i])->dims[k] == q.size[q.in[i][k]];
        if (!writable(&q, i) || !sizes) {
            bw_cannot(w, "an operand of the equation has a letter twice, a letter alone, or is broadcast");
            return;
        }
        char text[(OP_EINSUM_MAX_IN + 2) * (TENSOR_MAX_RANK + 2)];
        int in[OP_EINSUM_MAX_IN] = {bw_grad(w, n, 0)}, count = 1;
        size_t at = put(text, 0, q.out, q.out_rank);
        for (int k = 0; k < n->op.n_in; k++) {
            if (k == i) continue;
            in[count++] = n->op.in[k];
            text[at++] = ',';
            at = put(text, at, q.in[k], q.in_rank[k]);
        }
        text[at++] = '-';
        text[at++] = '>';
        text[put(text, at, q.in[i], q.in_rank[i])] = 0;
        struct graph_node *d = graph_b_open(&w->b, OP_EINSUM, in, count, 1);
        graph_set_string(d, "equation", text);
        bw_give(w, n, i, graph_b_close(&w->b, d));
    }
}
