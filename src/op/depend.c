/* Shape rules of operators whose result's size depends on data: they answer with bounds. And those with
 * subgraphs, which are resolved above (a constant If) or not at all. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

/* [rank, number of elements that are not zero]; a scalar counts as one axis. */
err op_rule_non_zero(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    (void)n;
    out[0].dtype = TENSOR_I64;
    err e = op_push(&out[0].shape, MAX(in[0].shape.rank, 1), false);
    return e ? e : op_push(&out[0].shape, tensor_count(&in[0].shape), true);
}

/* The different slices along the axis (elements, without one), where each was first, which one each is, how often it is there. */
err op_rule_unique(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    struct tensor_shape flat = {.rank = 1, .dims = {tensor_count(&in[0].shape)}}, s = flat;
    int axis = 0;
    if (op_attr(n, "axis")) {
        err e = op_axis(op_attr_int(n, "axis", 0), in[0].shape.rank, &axis);
        if (e) return e;
        s = in[0].shape;
        flat.dims[0] = s.dims[axis];
    }
    s.bounded = (uint8_t)(1u << axis);
    for (int i = 0; i < n->n_out; i++) {
        out[i].dtype = i ? TENSOR_I64 : in[0].dtype;
        out[i].shape = i ? flat : s;
        if (i == 1 || i == 3) out[i].shape.bounded = 1;
    }
    return ERR_OK;
}

/* boxes [batch, N, 4], scores [batch, classes, N] -> [<= batch * classes * min(N,
 * max_output_boxes_per_class), 3] */
err op_rule_nms(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *boxes = &in[0].shape, *scores = &in[1].shape;
    int64_t d, most = 0, total;
    bool bounded;
    err e = op_want_rank(in, 0, 3);
    if (!e) e = op_want_rank(in, 1, 3);
    if (!e && boxes->dims[2] != 4)
        e = err_set(ERR_SHAPE, "input 0 (boxes) has rows of %lld, not 4", (long long)boxes->dims[2]);
    if (!e) e = op_agree(boxes, 0, scores, 0, &d, &bounded);
    if (!e) e = op_agree(boxes, 1, scores, 2, &d, &bounded);
    if (e) return e;
    if (op_present(n, in, 2)) {
        most = boxes->dims[1];
        if (in[2].constant) {
            int64_t given;
            e = op_constant_int(&in[2], 2, "max_output_boxes_per_class", &given);
            most = e ? 0 : MIN(MAX(given, 0), most);
        }
    }
    if (!e) e = op_times(boxes->dims[0], scores->dims[1], &total);
    if (!e) e = op_times(total, most, &total);
    if (!e) e = op_push(&out[0].shape, total, true);
    if (!e) e = op_push(&out[0].shape, 3, false);
    out[0].dtype = TENSOR_I64;
    return e;
}

/* k was an attribute before opset 10. An unknown k is at most the whole axis. */
err op_rule_topk(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    struct tensor_shape s = in[0].shape;
    int axis;
    int64_t k;
    err e = op_axis(op_attr_int(n, "axis", -1), s.rank, &axis);
    if (e) return e;
    if (op_present(n, in, 1) && !in[1].constant) {
        s.bounded |= (uint8_t)(1u << axis);
    } else {
        if (op_present(n, in, 1))
            e = op_constant_int(&in[1], 1, "k", &k);
        else
            k = op_attr_int(n, "k", -1);
        if (e) return e;
        if (k < 0 || k > s.dims[axis])
            return err_set(ERR_SHAPE, "k is %lld, axis %d has the size %lld", (long long)k, axis,
                           (long long)s.dims[axis]);
        s.dims[axis] = k; /* if the axis is bounded, so is what is taken of it */
    }
    for (int i = 0; i < n->n_out; i++) {
        out[i].dtype = i ? TENSOR_I64 : in[0].dtype;
        out[i].shape = s;
    }
    return ERR_OK;
}

err op_rule_subgraph(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    (void)in;
    (void)out;
    return err_set(ERR_UNSUPPORTED, "%s is not supported here%s", op_name(n->kind),
                   n->kind == OP_IF ? " unless its condition is constant"
                                    : "; export the model with its loops unrolled");
}
