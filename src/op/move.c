/* Shape rules of operators that move, cut, join or pad elements: Transpose, Concat, Split, Slice, Pad,
 * DepthToSpace, Trilu.
 *
 * A cut through a bounded axis must stay a bound whatever the true size is. Most cuts grow with the size;
 * those from a negative start to a positive end, or backwards, do not, and take the whole axis as their
 * bound. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <string.h>

err op_rule_transpose(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    const int64_t *perm = NULL;
    size_t len = op_attr_ints(n, "perm", &perm);
    unsigned seen = 0;
    if (len && len != (size_t)x->rank)
        return err_set(ERR_SHAPE, "perm has %zu numbers for %d axes", len, x->rank);
    out[0].dtype = in[0].dtype;
    err e = ERR_OK;
    for (int i = 0; !e && i < x->rank; i++) {
        int axis = x->rank - 1 - i;
        if (len) e = op_axis(perm[i], x->rank, &axis);
        if (!e && seen >> axis & 1) e = err_set(ERR_SHAPE, "perm names axis %d twice", axis);
        if (!e) e = op_push(&out[0].shape, x->dims[axis], op_bounded(x, axis));
        seen |= 1u << axis;
    }
    return e;
}

err op_rule_concat(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct op_attr *a = op_attr(n, "axis");
    struct tensor_shape s = in[0].shape;
    int axis;
    if (!a || a->type != OP_ATTR_INT) return err_set(ERR_SHAPE, "the attribute 'axis' is missing");
    err e = op_axis(a->i, s.rank, &axis);
    for (int i = 1; !e && i < n->n_in; i++) {
        if (!op_present(n, in, i)) return err_set(ERR_SHAPE, "input %d is absent", i);
        const struct tensor_shape *x = &in[i].shape;
        e = op_want_same_type(in, 0, i);
        if (!e) e = op_want_rank(in, i, s.rank);
        for (int d = 0; !e && d < s.rank; d++) {
            bool bounded;
            if (d == axis) continue;
            e = op_agree(&s, d, x, d, &s.dims[d], &bounded);
            if (e) return err_wrap(e, "input %d", i);
            if (!bounded) s.bounded &= (uint8_t) ~(1u << d);
        }
        if (e) return e;
        if (__builtin_add_overflow(s.dims[axis], x->dims[axis], &s.dims[axis]))
            return err_set(ERR_SHAPE, "axis %d is too large", axis);
        s.bounded |= (uint8_t)(x->bounded & 1u << axis);
    }
    out[0].dtype = in[0].dtype;
    out[0].shape = s;
    return e;
}

/* Sizes of the parts: given, or equal ones (opset 18: the last may be smaller). */
static err split_sizes(const struct op_node *n, const struct op_info *in, int64_t dim, int64_t *ret)
{
    int count;
    int64_t sum = 0, parts = n->n_out;
    err e = op_ints(n, in, 1, "split", ret, OP_MAX_OUT, &count);
    if (e) return e;
    if (count >= 0) {
        if (count != n->n_out)
            return err_set(ERR_SHAPE, "split has %d numbers for %d outputs", count, n->n_out);
        for (int i = 0; i < count; i++) {
            if (ret[i] < 0 || ret[i] > dim)
                return err_set(ERR_SHAPE, "split holds %lld of %lld", (long long)ret[i], (long long)dim);
            sum += ret[i];
        }
        return sum == dim ? ERR_OK
                          : err_set(ERR_SHAPE, "split sums to %lld, the axis has %lld", (long long)sum,
                                    (long long)dim);
    }
    bool uneven = op_attr(n, "num_outputs") != NULL;
    if (uneven && op_attr_int(n, "num_outputs", 0) != parts)
        return err_set(ERR_SHAPE, "num_outputs differs from the node's %d outputs", n->n_out);
    int64_t part = dim / parts + (dim % parts != 0), last = dim - part * (parts - 1);
    if ((!uneven && last != part) || last < 0)
        return err_set(ERR_SHAPE, "an axis of %lld cannot be split into %d parts", (long long)dim, n->n_out);
    for (int i = 0; i < n->n_out; i++) ret[i] = i + 1 < n->n_out ? part : last;
    return ERR_OK;
}

err op_rule_split(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape;
    int64_t sizes[OP_MAX_OUT];
    int axis;
    err e = op_axis(op_attr_int(n, "axis", 0), x->rank, &axis);
    if (!e && op_bounded(x, axis))
        e = err_set(ERR_UNSUPPORTED, "the size of axis %d depends on data and cannot be split", axis);
    if (!e) e = split_sizes(n, in, x->dims[axis], sizes);
    for (int i = 0; !e && i < n->n_out; i++) {
        out[i].dtype = in[0].dtype;
        out[i].shape = *x;
        out[i].shape.dims[axis] = sizes[i];
    }
    return e;
}

/* How many elements [start : end : step] takes of `dim`. */
static int64_t slice_size(int64_t dim, bool bounded, int64_t start, int64_t end, int64_t step)
{
    if (bounded && (step < 0 || (start < 0 && end >= 0))) {
        start = 0;
        end = dim;
        if (step < 0) return dim; /* its ceil(dim / -step) is smaller, but -step may overflow */
    }
    if (start < 0) start += dim;
    if (end < 0) end += dim;
    if (step > 0) {
        start = MIN(MAX(start, 0), dim);
        end = MIN(MAX(end, 0), dim);
        return end > start ? (end - start) / step + ((end - start) % step != 0) : 0;
    }
    start =
        MIN(MAX(start, 0), dim - 1); /* ONNX, unlike NumPy: a start before the first element is the first */
    end = MIN(MAX(end, -1), dim - 1);
    return start > end ? (end - start) / step + ((end - start) % step != 0) : 0;
}

/* Opset 10 made inputs of starts, ends and axes, and added steps. */
err op_rule_slice(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    enum { R = TENSOR_MAX_RANK };
    struct tensor_shape s = in[0].shape;
    int64_t starts[R], ends[R], axes[R], steps[R];
    int ns, ne, na, nt;
    unsigned seen = 0;
    err e = op_ints(n, in, 1, "starts", starts, R, &ns);
    if (!e) e = op_ints(n, in, 2, "ends", ends, R, &ne);
    if (!e) e = op_ints(n, in, 3, "axes", axes, R, &na);
    if (!e) e = op_ints(n, in, 4, "steps", steps, R, &nt);
    if (e) return e;
    if (ns < 0 || ns != ne || (na >= 0 && na != ns) || (nt >= 0 && nt != ns) || ns > R)
        return err_set(ERR_SHAPE, "starts, ends, axes and steps differ in length");
    for (int i = 0; i < ns; i++) {
        int axis;
        e = op_axis(na >= 0 ? axes[i] : i, s.rank, &axis);
        if (e) return e;
        int64_t step = nt >= 0 ? steps[i] : 1;
        if (step == 0) return err_set(ERR_SHAPE, "a step of 0");
        if (seen >> axis & 1) return err_set(ERR_SHAPE, "axes names axis %d twice", axis);
        seen |= 1u << axis;
        s.dims[axis] = slice_size(s.dims[axis], op_bounded(&s, axis), starts[i], ends[i], step);
    }
    out[0].dtype = in[0].dtype;
    out[0].shape = s;
    return ERR_OK;
}

static err pad_mode(const struct op_node *n, bool *ret_constant)
{
    const char *mode = op_attr_string(n, "mode", "constant");
    *ret_constant = strcmp(mode, "constant") == 0;
    if (*ret_constant || strcmp(mode, "reflect") == 0 || strcmp(mode, "edge") == 0 ||
        strcmp(mode, "wrap") == 0)
        return ERR_OK;
    return err_set(ERR_UNSUPPORTED, "mode '%.32s'", mode);
}

/* pads became an input in opset 11, axes came in 18; negative pads cut. */
err op_rule_pad(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    struct tensor_shape s = in[0].shape;
    int64_t pads[2 * TENSOR_MAX_RANK], axes[TENSOR_MAX_RANK];
    int np, na = -1;
    bool constant;
    unsigned seen = 0;
    err e = pad_mode(n, &constant);
    if (!e) e = op_ints(n, in, 1, "pads", pads, 2 * TENSOR_MAX_RANK, &np);
    if (!e && op_present(n, in, 3)) e = op_constant_ints(&in[3], 3, "axes", axes, TENSOR_MAX_RANK, &na);
    if (e) return e;
    int count = na >= 0 ? na : s.rank;
    if (np != 2 * count) return err_set(ERR_SHAPE, "pads has %d numbers, not %d", MAX(np, 0), 2 * count);
    for (int i = 0; i < count; i++) {
        int axis;
        int64_t d;
        e = op_axis(na >= 0 ? axes[i] : i, s.rank, &axis);
        if (e) return e;
        if (seen >> axis & 1) return err_set(ERR_SHAPE, "axes names axis %d twice", axis);
        seen |= 1u << axis;
        if (__builtin_add_overflow(s.dims[axis], pads[i], &d) ||
            __builtin_add_overflow(d, pads[count + i], &d) || d < 0)
            return err_set(ERR_SHAPE, "axis %d of the size %lld with the pads %lld and %lld", axis,
                           (long long)s.dims[axis], (long long)pads[i], (long long)pads[count + i]);
        if (!constant && s.dims[axis] == 0 && d > 0)
            return err_set(ERR_SHAPE, "axis %d is empty and has no edge to repeat", axis);
        s.dims[axis] = d;
    }
    out[0].dtype = in[0].dtype;
    out[0].shape = s;
    return ERR_OK;
}

static err block_size(const struct op_node *n, const struct op_info *in, int64_t *ret)
{
    int64_t b = op_attr_int(n, "blocksize", 0);
    if (b < 1 || b > 1 << 20) return err_set(ERR_SHAPE, "blocksize is %lld", (long long)b);
    *ret = b;
    return op_want_rank(in, 0, 4);
}

err op_rule_depth_to_space(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const int64_t *d = in[0].shape.dims;
    int64_t b = 1, h, w;
    err e = block_size(n, in, &b);
    if (e) return e;
    if (d[1] % (b * b))
        return err_set(ERR_SHAPE, "%lld channels in blocks of %lld x %lld", (long long)d[1], (long long)b,
                       (long long)b);
    e = op_times(d[2], b, &h);
    if (!e) e = op_times(d[3], b, &w);
    if (e) return e;
    out[0].dtype = in[0].dtype;
    out[0].shape = tensor_shape_of(4, (int64_t[]){d[0], d[1] / (b * b), h, w});
    out[0].shape.bounded = in[0].shape.bounded & 1;
    return in[0].shape.bounded > 1 ? err_set(ERR_UNSUPPORTED, "the sizes of input 0 depend on data") : ERR_OK;
}

err op_rule_space_to_depth(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const int64_t *d = in[0].shape.dims;
    int64_t b = 1, c;
    err e = block_size(n, in, &b);
    if (e) return e;
    if (d[2] % b || d[3] % b)
        return err_set(ERR_SHAPE, "%lld x %lld in blocks of %lld", (long long)d[2], (long long)d[3],
                       (long long)b);
    e = op_times(d[1], b * b, &c);
    if (e) return e;
    out[0].dtype = in[0].dtype;
    out[0].shape = tensor_shape_of(4, (int64_t[]){d[0], c, d[2] / b, d[3] / b});
    out[0].shape.bounded = in[0].shape.bounded & 1;
    return in[0].shape.bounded > 1 ? err_set(ERR_UNSUPPORTED, "the sizes of input 0 depend on data") : ERR_OK;
}

err op_rule_trilu(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    out[0].dtype = in[0].dtype;
    out[0].shape = in[0].shape;
    if (op_present(n, in, 1) && tensor_count(&in[1].shape) != 1)
        return err_set(ERR_SHAPE, "input 1 (k) must hold one number");
    return op_want_rank_from(in, 0, 2);
}
