/* Shape rules of operators that see the same elements in other sizes, or repeat them: Reshape, Flatten,
 * Squeeze, Unsqueeze, Expand, Tile.
 *
 * Reshape of a bounded tensor: where every bounded axis is kept in its place by a 0, the rest is exact;
 * otherwise a -1 takes a bound. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <string.h>

struct reshape {
    int64_t want[TENSOR_MAX_RANK];
    int count, unknown; /* the axis with -1, or -1 */
    int64_t product;    /* of the other axes */
    uint8_t open;       /* bounded axes of the input that no 0 keeps in place */
};

static err read_wanted(const struct op_node *n, const struct op_info *in, struct reshape *r)
{
    const struct tensor_shape *x = &in[0].shape;
    bool zero_is_zero = op_attr_int(n, "allowzero", 0) != 0, zero = false;
    err e = op_ints(n, in, 1, "shape", r->want, TENSOR_MAX_RANK, &r->count);
    if (e) return e;
    if (r->count < 0) return err_set(ERR_SHAPE, "input 1 (shape) is absent");
    r->unknown = -1;
    r->product = 1;
    r->open = x->bounded;
    for (int i = 0; i < r->count; i++) {
        int64_t *d = &r->want[i];
        if (*d == -1) {
            if (r->unknown >= 0) return err_set(ERR_SHAPE, "input 1 (shape) has -1 twice");
            r->unknown = i;
            continue;
        }
        if (*d < 0) return err_set(ERR_SHAPE, "input 1 (shape) holds %lld", (long long)*d);
        if (*d == 0 && zero_is_zero) zero = true;
        if (*d == 0 && !zero_is_zero) {
            if (i >= x->rank)
                return err_set(ERR_SHAPE, "input 1 (shape) keeps axis %d of an input with %d axes", i,
                               x->rank);
            *d = x->dims[i];
            r->open &= (uint8_t) ~(1u << i);
        }
        e = op_times(r->product, *d, &r->product);
        if (e) return e;
    }
    if (zero && r->unknown >= 0)
        return err_set(ERR_SHAPE, "input 1 (shape) has both 0 and -1, with allowzero");
    return ERR_OK;
}

err op_rule_reshape(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    struct reshape r = {0};
    err e = read_wanted(n, in, &r);
    if (e) return e;
    int64_t count = tensor_count(x);
    char s[256];
    if (r.unknown >= 0) {
        if (r.product == 0 || (!r.open && count % r.product))
            return err_set(ERR_SHAPE, "%s cannot be seen in rows of %lld",
                           tensor_shape_text(x, NULL, s, sizeof s), (long long)r.product);
        r.want[r.unknown] = count / r.product;
    } else if (r.open ? r.product > count : r.product != count) {
        return err_set(ERR_SHAPE, "%s has %lld elements, the new shape %lld",
                       tensor_shape_text(x, NULL, s, sizeof s), (long long)count, (long long)r.product);
    }
    out[0].dtype = in[0].dtype;
    bool zero_is_zero = op_attr_int(n, "allowzero", 0) != 0;
    uint8_t kept = zero_is_zero ? 0 : (uint8_t)(x->bounded & ~r.open);
    for (int i = 0; !e && i < r.count; i++)
        e = op_push(&out[0].shape, r.want[i], (kept >> i & 1) || (i == r.unknown && r.open));
    return e;
}

/* To two axes; axis = rank is allowed. */
err op_rule_flatten(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    int64_t axis = op_attr_int(n, "axis", 1), size[2] = {1, 1};
    bool bounded[2] = {false, false};
    if (axis < -x->rank || axis > x->rank)
        return err_set(ERR_SHAPE, "axis %lld of a tensor with %d axes", (long long)axis, x->rank);
    if (axis < 0) axis += x->rank;
    err e = ERR_OK;
    for (int i = 0; !e && i < x->rank; i++) {
        bounded[i >= axis] |= op_bounded(x, i);
        e = op_times(size[i >= axis], x->dims[i], &size[i >= axis]);
    }
    out[0].dtype = in[0].dtype;
    for (int i = 0; !e && i < 2; i++) e = op_push(&out[0].shape, size[i], bounded[i]);
    return e;
}

/* Without axes: all of size 1. */
err op_rule_squeeze(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    int64_t axes[TENSOR_MAX_RANK];
    bool gone[TENSOR_MAX_RANK] = {0};
    bool given = op_present(n, in, 1) || op_attr(n, "axes");
    int count = op_axes(n, n->n_in > 1 ? &in[1] : NULL, x->rank, axes);
    if (count < 0) return count;
    if (!given && x->bounded)
        return err_set(ERR_UNSUPPORTED, "without axes, which axes of input 0 go depends on data");
    for (int i = 0; i < count; i++) {
        if (x->dims[axes[i]] != 1 && !op_bounded(x, (int)axes[i]))
            return err_set(ERR_SHAPE, "axis %lld of input 0 has the size %lld, not 1", (long long)axes[i],
                           (long long)x->dims[axes[i]]);
        if (op_bounded(x, (int)axes[i]))
            return err_set(ERR_UNSUPPORTED, "whether axis %lld of input 0 is 1 depends on data",
                           (long long)axes[i]);
        gone[axes[i]] = true;
    }
    out[0].dtype = in[0].dtype;
    err e = ERR_OK;
    for (int i = 0; !e && i < x->rank; i++)
        if (given ? !gone[i] : x->dims[i] != 1) e = op_push(&out[0].shape, x->dims[i], op_bounded(x, i));
    return e;
}

/* Axes count in the result. */
err op_rule_unsqueeze(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    int64_t axes[TENSOR_MAX_RANK];
    bool added[TENSOR_MAX_RANK] = {0};
    int count;
    err e = op_ints(n, in, 1, "axes", axes, TENSOR_MAX_RANK, &count);
    if (e) return e;
    if (count < 0) return err_set(ERR_SHAPE, "axes are missing");
    int rank = x->rank + count;
    if (rank > TENSOR_MAX_RANK)
        return err_set(ERR_SHAPE, "the result has more than %d axes", TENSOR_MAX_RANK);
    count = op_axes(n, n->n_in > 1 ? &in[1] : NULL, rank, axes);
    if (count < 0) return count;
    for (int i = 0; i < count; i++) added[axes[i]] = true;
    out[0].dtype = in[0].dtype;
    for (int i = 0, k = 0; !e && i < rank; i++, k += !added[i - 1])
        e = added[i] ? op_push(&out[0].shape, 1, false)
                     : op_push(&out[0].shape, x->dims[k], op_bounded(x, k));
    return e;
}

err op_rule_expand(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t want[TENSOR_MAX_RANK];
    int count;
    (void)n;
    err e = op_constant_ints(&in[1], 1, "shape", want, TENSOR_MAX_RANK, &count);
    if (e) return e;
    for (int i = 0; i < count; i++)
        if (want[i] < 0) return err_set(ERR_SHAPE, "input 1 (shape) holds %lld", (long long)want[i]);
    struct tensor_shape s = tensor_shape_of(count, want);
    out[0].dtype = in[0].dtype;
    return tensor_broadcast(&in[0].shape, &s, &out[0].shape);
}

err op_rule_tile(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    int64_t repeats[TENSOR_MAX_RANK], d;
    int count;
    (void)n;
    err e = op_constant_ints(&in[1], 1, "repeats", repeats, TENSOR_MAX_RANK, &count);
    if (!e && count != x->rank)
        e = err_set(ERR_SHAPE, "input 1 (repeats) has %d numbers for %d axes", count, x->rank);
    for (int i = 0; !e && i < count; i++) {
        e = repeats[i] < 0 ? err_set(ERR_SHAPE, "input 1 (repeats) holds %lld", (long long)repeats[i])
                           : op_times(x->dims[i], repeats[i], &d);
        if (!e) e = op_push(&out[0].shape, d, op_bounded(x, i));
    }
    out[0].dtype = in[0].dtype;
    return e;
}
