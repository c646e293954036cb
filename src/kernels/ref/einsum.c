/* Einsum: a sum over the letters that the result does not name, of products of the operands.
 *
 * Every letter is an axis with a stride in each operand (the sum of its strides where it stands twice, 0
 * where it is missing or stretched); the sums run innermost, in float64 or without a sign for integers. The
 * equation is read by the shape rule's parser. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"
#include "op/rule.h"

struct letters {
    int n_out, n_sum, n_in;
    int64_t out_dims[TENSOR_MAX_RANK], sum_dims[OP_EINSUM_MAX_LETTERS];
    int64_t out_strides[OP_EINSUM_MAX_IN][TENSOR_MAX_RANK],
        sum_strides[OP_EINSUM_MAX_IN][OP_EINSUM_MAX_LETTERS];
};

static int64_t stride_of(const struct op_einsum *s, const struct tensor *t, int operand, int letter)
{
    int64_t stride = 0;
    for (int i = 0; i < s->in_rank[operand]; i++)
        if (s->in[operand][i] == letter && t->shape.dims[i] != 1) stride += t->strides[i];
    return stride;
}

static err sort_letters(const struct ref_call *c, const struct op_einsum *s, struct letters *l)
{
    *l = (struct letters){.n_out = s->out_rank, .n_in = s->n_in};
    for (int i = 0; i < s->out_rank; i++) {
        l->out_dims[i] = s->size[s->out[i]];
        if (c->out[0].shape.dims[i] != l->out_dims[i])
            return err_set(ERR_SHAPE, "axis %d of the output does not fit", i);
        for (int k = 0; k < s->n_in; k++)
            l->out_strides[k][i] = stride_of(s, &c->in[k], k, s->out[i]);
    }
    for (int letter = 0; letter < OP_EINSUM_MAX_LETTERS; letter++) {
        bool named = false;
        for (int i = 0; i < s->out_rank; i++)
            named |= s->out[i] == letter;
        if (named || s->size[letter] < 0 || s->size[letter] == 1) continue;
        l->sum_dims[l->n_sum] = s->size[letter];
        for (int k = 0; k < s->n_in; k++)
            l->sum_strides[k][l->n_sum] = stride_of(s, &c->in[k], k, letter);
        l->n_sum++;
    }
    return ERR_OK;
}

/* The number at `offset`: a double in v->d, or bits of an integer in v->u. */
union number {
    double d;
    uint64_t u;
};

static union number number_at(const struct tensor *t, int64_t offset, bool is_float)
{
    union {
        float f;
        union number n;
    } raw;
    ref_get(t->dtype, (const char *)t->data + offset * ref_size(t), 0, 1, &raw);
    if (is_float && ref_domain(t->dtype) == REF_F32) raw.n.d = (double)raw.f;
    return raw.n;
}

static union number sum_products(const struct ref_call *c, const struct letters *l, const int64_t *start,
                                 bool is_float)
{
    int64_t index[OP_EINSUM_MAX_LETTERS] = {0};
    union number sum = {.u = 0};
    for (int i = 0; i < l->n_sum; i++)
        if (l->sum_dims[i] == 0) return sum;
    do {
        union number product = {.u = 1};
        if (is_float) product.d = 1;
        for (int k = 0; k < l->n_in; k++) {
            int64_t at = start[k];
            for (int i = 0; i < l->n_sum; i++)
                at += index[i] * l->sum_strides[k][i];
            union number v = number_at(&c->in[k], at, is_float);
            if (is_float)
                product.d *= v.d;
            else
                product.u *= v.u;
        }
        if (is_float)
            sum.d += product.d;
        else
            sum.u += product.u;
    } while (ref_next(l->n_sum, l->sum_dims, index));
    return sum;
}

err ref_einsum(struct ref_call *c)
{
    struct op_info infos[OP_EINSUM_MAX_IN];
    struct op_einsum s;
    struct letters l;
    const struct tensor *out = &c->out[0];
    if (c->n_in < 1 || c->n_in > OP_EINSUM_MAX_IN)
        return err_set(ERR_LIMIT, "Einsum of %d operands", c->n_in);
    for (int i = 0; i < c->n_in; i++)
        infos[i] = (struct op_info){c->in[i].dtype, c->in[i].shape, NULL};
    err e = op_einsum_parse(c->node, infos, &s);
    if (!e && out->shape.rank != s.out_rank)
        e = err_set(ERR_SHAPE, "the output has %d axes", out->shape.rank);
    if (!e) e = sort_letters(c, &s, &l);
    if (e || tensor_count(&out->shape) == 0) return e;
    bool is_float = tensor_dtype_is_float(out->dtype);
    int64_t index[TENSOR_MAX_RANK] = {0};
    do {
        int64_t start[OP_EINSUM_MAX_IN] = {0}, to = 0;
        for (int i = 0; i < l.n_out; i++) {
            to += index[i] * out->strides[i];
            for (int k = 0; k < l.n_in; k++)
                start[k] += index[i] * l.out_strides[k][i];
        }
        union number v = sum_products(c, &l, start, is_float);
        double own;
        ref_convert(is_float ? REF_F64 : REF_U64, &v, ref_domain_dtype(out->dtype), &own, 1);
        ref_put(out->dtype, (char *)out->data + to * ref_size(out), 0, 1, &own);
    } while (ref_next(l.n_out, l.out_dims, index));
    return ERR_OK;
}
