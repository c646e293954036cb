/* Shape rules of matrix products: MatMul as NumPy's, Gemm, and Einsum with letters, ellipses and diagonals.
 *
 * An Einsum equation is foreign text. It is read once into letter numbers (struct op_einsum): a-z and A-Z
 * have 0-51 in ASCII's order, the axes behind "..." have 52-59 counted from the right, so that they broadcast
 * like NumPy's. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <string.h>

static err same_inner(const struct op_info *in, int i, int j, int64_t *ret)
{
    bool bounded;
    return op_agree(&in[0].shape, i, &in[1].shape, j, ret, &bounded);
}

err op_rule_matmul(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *a = &in[0].shape, *b = &in[1].shape;
    struct tensor_shape ha = {0}, hb = {0}, *o = &out[0].shape;
    int64_t inner;
    (void)n;
    err e = op_want_same_type(in, 0, 1);
    if (!e) e = op_want_rank_from(in, 0, 1);
    if (!e) e = op_want_rank_from(in, 1, 1);
    if (!e) e = same_inner(in, a->rank - 1, MAX(b->rank - 2, 0), &inner);
    if (!e) e = op_push_range(&ha, a, 0, a->rank - 2);
    if (!e) e = op_push_range(&hb, b, 0, b->rank - 2);
    if (!e) e = tensor_broadcast(&ha, &hb, o);
    if (!e && a->rank > 1) e = op_push_range(o, a, a->rank - 2, a->rank - 1);
    if (!e && b->rank > 1) e = op_push_range(o, b, b->rank - 1, b->rank);
    out[0].dtype = in[0].dtype;
    return e;
}

/* [..., n, n] -> [...] */
err op_rule_det(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    (void)n;
    err e = op_want_rank_from(in, 0, 2);
    if (!e && (!tensor_dtype_is_float(in[0].dtype) || x->dims[x->rank - 1] != x->dims[x->rank - 2]))
        e = err_set(ERR_SHAPE, "input 0 must hold square matrices of floats");
    out[0].dtype = in[0].dtype;
    return e ? e : op_push_range(&out[0].shape, x, 0, x->rank - 2);
}

err op_rule_gemm(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int ta = op_attr_int(n, "transA", 0) != 0, tb = op_attr_int(n, "transB", 0) != 0;
    struct tensor_shape *o = &out[0].shape, whole;
    int64_t inner;
    err e = op_want_same_type(in, 0, 1);
    if (!e) e = op_want_rank(in, 0, 2);
    if (!e) e = op_want_rank(in, 1, 2);
    if (!e) e = same_inner(in, ta ? 0 : 1, tb ? 1 : 0, &inner);
    if (!e) e = op_push_range(o, &in[0].shape, ta, ta + 1);
    if (!e) e = op_push_range(o, &in[1].shape, !tb, !tb + 1);
    out[0].dtype = in[0].dtype;
    if (e || !op_present(n, in, 2)) return e;
    e = op_want_same_type(in, 0, 2);
    if (!e) e = tensor_broadcast(o, &in[2].shape, &whole);
    if (!e && !tensor_shape_equal(o, &whole)) {
        char s[2][160];
        e = err_set(ERR_SHAPE, "input 2 (C) is %s and does not fit into %s",
                    tensor_shape_text(&in[2].shape, NULL, s[0], sizeof s[0]),
                    tensor_shape_text(o, NULL, s[1], sizeof s[1]));
    }
    return e;
}

enum { LETTERS = 52 };

static int letter_number(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return 26 + c - 'a';
    return -1;
}

/* Reads one term up to ',' or '-' or the end: letter numbers, -1 once where an ellipsis stands. */
static err read_term(const char **text, int *ret, int *ret_count)
{
    int count = 0;
    bool ellipsis = false;
    const char *s = *text;
    for (; *s && *s != ',' && *s != '-'; s++) {
        if (*s == ' ') continue;
        if (count > TENSOR_MAX_RANK)
            return err_set(ERR_SHAPE, "an Einsum term of more than %d axes", TENSOR_MAX_RANK);
        int l = letter_number(*s);
        if (l < 0) {
            if (strncmp(s, "...", 3) != 0 || ellipsis)
                return err_set(ERR_SHAPE, "'%c' in the Einsum equation", *s);
            ellipsis = true;
            s += 2;
        }
        ret[count++] = l;
    }
    *text = s;
    *ret_count = count;
    return ERR_OK;
}

/* Puts the term's letters on the axes of an operand of `rank` axes; the ellipsis takes what is left. */
static err place_term(const int *term, int count, int rank, int *ret)
{
    bool ellipsis = false;
    for (int i = 0; i < count; i++) ellipsis |= term[i] < 0;
    int hidden = rank - (count - ellipsis), k = 0;
    if (hidden < 0 || (!ellipsis && hidden > 0))
        return err_set(ERR_SHAPE, "an Einsum term has %d letters for %d axes", count - ellipsis, rank);
    for (int i = 0; i < count; i++) {
        if (term[i] >= 0)
            ret[k++] = term[i];
        else
            for (int j = 0; j < hidden; j++) ret[k++] = LETTERS + TENSOR_MAX_RANK - hidden + j;
    }
    return ERR_OK;
}

/* Without "->": the ellipsis, then every letter that occurs once, in alphabetical order. */
static err default_result(struct op_einsum *q)
{
    int uses[OP_EINSUM_MAX_LETTERS] = {0};
    for (int i = 0; i < q->n_in; i++)
        for (int a = 0; a < q->in_rank[i]; a++) uses[q->in[i][a]]++;
    for (int pass = 0; pass < 2; pass++)
        for (int l = pass ? 0 : LETTERS; l < (pass ? LETTERS : OP_EINSUM_MAX_LETTERS); l++) {
            if (pass ? uses[l] != 1 : uses[l] == 0) continue;
            if (q->out_rank == TENSOR_MAX_RANK)
                return err_set(ERR_SHAPE, "the result has more than %d axes", TENSOR_MAX_RANK);
            q->out[q->out_rank++] = l;
        }
    return ERR_OK;
}

static err given_result(const char *text, struct op_einsum *q)
{
    int term[TENSOR_MAX_RANK + 1], count;
    bool used[OP_EINSUM_MAX_LETTERS] = {0};
    err e = read_term(&text, term, &count);
    if (e) return e;
    if (*text) return err_set(ERR_SHAPE, "the Einsum equation has more than one result");
    for (int i = 0; i < count; i++) {
        int from = term[i] < 0 ? LETTERS : term[i], to = term[i] < 0 ? OP_EINSUM_MAX_LETTERS : term[i] + 1;
        for (int l = from; l < to; l++) {
            if (q->size[l] < 0 && term[i] < 0) continue;
            if (q->size[l] < 0 || used[l])
                return err_set(ERR_SHAPE, "a letter of Einsum's result is unknown or twice there");
            if (q->out_rank == TENSOR_MAX_RANK)
                return err_set(ERR_SHAPE, "the result has more than %d axes", TENSOR_MAX_RANK);
            used[l] = true;
            q->out[q->out_rank++] = l;
        }
    }
    return ERR_OK;
}

/* Axes of one letter have one size; behind an ellipsis 1 stretches. */
static err take_sizes(const struct tensor_shape *s, const int *letters, struct op_einsum *q)
{
    for (int a = 0; a < s->rank; a++) {
        int64_t *size = &q->size[letters[a]], d = s->dims[a];
        if (*size < 0 || (letters[a] >= LETTERS && *size == 1))
            *size = d;
        else if (*size != d && !(letters[a] >= LETTERS && d == 1))
            return err_set(ERR_SHAPE, "one Einsum letter stands for the sizes %lld and %lld",
                           (long long)*size, (long long)d);
    }
    return ERR_OK;
}

err op_einsum_parse(const struct op_node *n, const struct op_info *in, struct op_einsum *ret)
{
    struct op_einsum q = {.n_in = n->n_in, .n_letters = OP_EINSUM_MAX_LETTERS};
    const char *s = op_attr_string(n, "equation", "");
    if (n->n_in < 1 || n->n_in > OP_EINSUM_MAX_IN) return err_set(ERR_SHAPE, "Einsum of %d inputs", n->n_in);
    for (int l = 0; l < OP_EINSUM_MAX_LETTERS; l++) q.size[l] = -1;
    err e = ERR_OK;
    for (int i = 0; i < n->n_in; i++) {
        int term[TENSOR_MAX_RANK + 1], count;
        e = read_term(&s, term, &count);
        if (!e && !op_present(n, in, i)) e = err_set(ERR_SHAPE, "input %d is absent", i);
        if (!e) e = op_want_same_type(in, 0, i);
        if (!e) e = place_term(term, count, in[i].shape.rank, q.in[i]);
        if (!e) e = take_sizes(&in[i].shape, q.in[i], &q);
        if (e) return e;
        q.in_rank[i] = in[i].shape.rank;
        if (*s == ',' && i + 1 < n->n_in)
            s++;
        else if (*s == ',' || i + 1 < n->n_in)
            return err_set(ERR_SHAPE,
                           "the Einsum equation has another number of terms than the node has inputs");
    }
    if (*s && strncmp(s, "->", 2) != 0) return err_set(ERR_SHAPE, "'%c' in the Einsum equation", *s);
    e = *s ? given_result(s + 2, &q) : default_result(&q);
    if (e) return e;
    for (int l = 0; l < OP_EINSUM_MAX_LETTERS; l++) q.size[l] = q.size[l] < 0 ? 1 : q.size[l];
    *ret = q;
    return ERR_OK;
}

err op_rule_einsum(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    struct op_einsum q;
    err e = op_einsum_parse(n, in, &q);
    if (e) return e;
    out[0].dtype = in[0].dtype;
    for (int i = 0; !e && i < q.out_rank; i++) e = op_push(&out[0].shape, q.size[q.out[i]], false);
    return e;
}
