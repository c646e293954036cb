/* Shape rules of operators that make tensors out of little: Constant, ConstantOfShape, EyeLike, Range, Shape,
 * Size. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <math.h>

/* The bytes stay in the attribute, which lives as long as the node. */
err op_rule_constant(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    (void)in;
    const struct op_attr *a;
    if ((a = op_attr(n, "value")) && a->type == OP_ATTR_TENSOR) {
        out[0].dtype = a->tensor.dtype;
        out[0].shape = a->tensor.shape;
        out[0].constant = a->tensor.data;
    } else if ((a = op_attr(n, "value_int")) && a->type == OP_ATTR_INT) {
        out[0].dtype = TENSOR_I64;
        out[0].constant = &a->i;
    } else if ((a = op_attr(n, "value_float")) && a->type == OP_ATTR_FLOAT) {
        out[0].dtype = TENSOR_F32;
        out[0].constant = &a->f;
    } else if ((a = op_attr(n, "value_ints")) && a->type == OP_ATTR_INTS) {
        out[0].dtype = TENSOR_I64;
        out[0].shape = tensor_shape_of(1, (int64_t[]){(int64_t)a->n});
        out[0].constant = a->ints;
    } else if ((a = op_attr(n, "value_floats")) && a->type == OP_ATTR_FLOATS) {
        out[0].dtype = TENSOR_F32;
        out[0].shape = tensor_shape_of(1, (int64_t[]){(int64_t)a->n});
        out[0].constant = a->floats;
    } else {
        return err_set(ERR_UNSUPPORTED, "a constant of strings or of a sparse tensor, or without a value");
    }
    if (!tensor_dtype_size(out[0].dtype))
        return err_set(ERR_UNSUPPORTED, "a constant of the type %s", tensor_dtype_name(out[0].dtype));
    return ERR_OK;
}

err op_rule_constant_of_shape(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct op_attr *a = op_attr(n, "value");
    int64_t dims[TENSOR_MAX_RANK];
    int count;
    err e = op_constant_ints(&in[0], 0, "shape", dims, TENSOR_MAX_RANK, &count);
    for (int i = 0; !e && i < count; i++) e = op_push(&out[0].shape, dims[i], false);
    if (e) return e;
    out[0].dtype = TENSOR_F32;
    if (!a || a->type != OP_ATTR_TENSOR) return ERR_OK;
    int64_t values;
    int rank = a->tensor.shape.rank;
    if (rank < 0 || rank > TENSOR_MAX_RANK || tensor_shape_count(&a->tensor.shape, &values) || values != 1)
        return err_set(ERR_SHAPE, "the attribute 'value' must hold one number");
    out[0].dtype = a->tensor.dtype;
    return tensor_dtype_size(out[0].dtype)
               ? ERR_OK
               : err_set(ERR_UNSUPPORTED, "value of the type %s", tensor_dtype_name(out[0].dtype));
}

err op_rule_eye_like(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int64_t type = op_attr_int(n, "dtype", in[0].dtype);
    if (type < 0 || type > 64 || !tensor_dtype_size((enum tensor_dtype)type))
        return err_set(ERR_UNSUPPORTED, "dtype = %lld is a type that brim does not compute with",
                       (long long)type);
    out[0].dtype = (enum tensor_dtype)type;
    out[0].shape = in[0].shape;
    return op_want_rank(in, 0, 2);
}

/* max(ceil((limit - start) / delta), 0); integers are counted exactly. */
err op_rule_range(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    static const char *const NAMES[] = {"start", "limit", "delta"};
    int64_t i[3], count = 0;
    double f[3];
    bool integers = tensor_dtype_is_integer(in[0].dtype);
    (void)n;
    for (int k = 0; k < 3; k++) {
        err e = op_want_same_type(in, 0, k);
        if (!e)
            e = integers ? op_constant_int(&in[k], k, NAMES[k], &i[k])
                         : op_constant_number(&in[k], k, NAMES[k], &f[k]);
        if (e) return e;
    }
    if (integers ? i[2] == 0 : f[2] == 0) return err_set(ERR_SHAPE, "input 2 (delta) is 0");
    if (integers) {
        __int128 way = (__int128)i[1] - i[0], step = i[2];
        if ((way > 0) == (step > 0) && way != 0) {
            way = way / step + (way % step != 0);
            if (way > (int64_t)1 << 47) return err_set(ERR_SHAPE, "a range of too many numbers");
            count = (int64_t)way;
        }
    } else {
        double c = ceil((f[1] - f[0]) /
                        f[2]); /* in double also for float32: as ONNX Runtime, measured on 20,000 ranges */
        if (!isfinite(c) || c > 0x1p47) return err_set(ERR_SHAPE, "a range of too many numbers");
        count = c > 0 ? (int64_t)c : 0;
    }
    out[0].dtype = in[0].dtype;
    return op_push(&out[0].shape, count, false);
}

/* start and end came in opset 15. */
err op_rule_shape(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    int rank = in[0].shape.rank;
    int64_t start = op_attr_int(n, "start", 0), end = op_attr_int(n, "end", rank);
    if (start < 0) start += rank;
    if (end < 0) end += rank;
    start = MIN(MAX(start, 0), rank);
    end = MIN(MAX(end, 0), rank);
    out[0].dtype = TENSOR_I64;
    return op_push(&out[0].shape, MAX(end - start, 0), false);
}

err op_rule_size(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    (void)n;
    (void)in;
    out[0].dtype = TENSOR_I64;
    return ERR_OK;
}
