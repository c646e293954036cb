/* Shape rules of RNN, GRU and LSTM. D is 2 for both directions, G the gates (1, 3, 4), H hidden_size:
 *     X [steps, batch, in], W [D, G H, in], R [D, G H, H], B [D, 2 G H], sequence_lens [batch],
 *     initial_h and initial_c [D, batch, H], P [D, 3 H] -> Y [steps, D, batch, H], Y_h and Y_c [D, batch, H]
 * layout = 1 puts the batch first in X, Y and the states. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <string.h>

static err want(const struct op_node *n, const struct op_info *in, int i, int rank, const int64_t *dims)
{
    if (!op_present(n, in, i)) return ERR_OK;
    err e = op_want_rank(in, i, rank);
    if (!e && i != 4) e = op_want_same_type(in, 0, i);
    for (int a = 0; !e && a < rank; a++)
        if (in[i].shape.dims[a] != dims[a] || op_bounded(&in[i].shape, a))
            e = err_set(ERR_SHAPE, "axis %d of input %d has the size %lld, not %lld", a, i,
                        (long long)in[i].shape.dims[a], (long long)dims[a]);
    return e;
}

static err directions(const struct op_node *n, int64_t *ret)
{
    const char *s = op_attr_string(n, "direction", "forward");
    if (strcmp(s, "forward") != 0 && strcmp(s, "reverse") != 0 && strcmp(s, "bidirectional") != 0)
        return err_set(ERR_SHAPE, "direction is '%.32s'; it is forward, reverse or bidirectional", s);
    *ret = *s == 'b' ? 2 : 1;
    return ERR_OK;
}

err op_rule_recurrent(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t d = 1, gates = n->kind == OP_LSTM ? 4 : n->kind == OP_GRU ? 3 : 1, layout = op_attr_int(n, "layout", 0);
    const struct tensor_shape *x = &in[0].shape;
    err e = directions(n, &d);
    if (!e && layout != 0 && layout != 1) e = err_set(ERR_SHAPE, "layout is %lld, not 0 or 1", (long long)layout);
    if (!e) e = op_want_rank(in, 0, 3);
    if (!e) e = op_want_rank(in, 2, 3);
    if (!e && !tensor_dtype_is_float(in[0].dtype))
        e = err_set(ERR_SHAPE, "input 0 is of the type %s, not a float type", tensor_dtype_name(in[0].dtype));
    if (!e && op_present(n, in, 4) && in[4].dtype != TENSOR_I32)
        e = err_set(ERR_SHAPE, "input 4 (sequence_lens) must be int32");
    if (e) return e;
    int64_t h = in[2].shape.dims[2], steps = x->dims[layout], batch = x->dims[1 - layout], all;
    if (h < 1 || h > 1 << 20 || x->dims[2] < 1 || x->dims[2] > 1 << 24)
        return err_set(ERR_SHAPE, "a hidden size of %lld and an input size of %lld", (long long)h,
                       (long long)x->dims[2]);
    if (op_attr_int(n, "hidden_size", h) != h)
        return err_set(ERR_SHAPE, "hidden_size is %lld, input 2 (R) has %lld",
                       (long long)op_attr_int(n, "hidden_size", h), (long long)h);
    e = want(n, in, 1, 3, (int64_t[]){d, gates * h, x->dims[2]});
    if (!e) e = want(n, in, 2, 3, (int64_t[]){d, gates * h, h});
    if (!e) e = want(n, in, 3, 2, (int64_t[]){d, 2 * gates * h});
    if (!e) e = want(n, in, 4, 1, &batch);
    for (int i = 5; !e && i < 7; i++)
        e = want(n, in, i, 3, layout ? (int64_t[]){batch, d, h} : (int64_t[]){d, batch, h});
    if (!e) e = want(n, in, 7, 2, (int64_t[]){d, 3 * h});
    if (!e) e = op_times(steps, batch, &all);
    if (!e) e = op_times(all, 2 * h, &all);
    if (e) return e;
    for (int i = 0; i < n->n_out; i++) {
        out[i].dtype = in[0].dtype;
        out[i].shape = i == 0 ? tensor_shape_of(4, layout ? (int64_t[]){batch, steps, d, h}
                                                          : (int64_t[]){steps, d, batch, h})
                              : tensor_shape_of(3, layout ? (int64_t[]){batch, d, h} : (int64_t[]){d, batch, h});
    }
    return ERR_OK;
}
