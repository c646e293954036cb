/* Shape rules of element-wise operators: the result is as large as the input, or as NumPy's broadcasting of
 * the inputs. (https://onnx.ai/onnx/repo-docs/Broadcasting.html) SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <string.h>

/* One input, one output: type, sizes and bounds stay. */
err op_rule_same(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    (void)n;
    out[0].dtype = in[0].dtype;
    out[0].shape = in[0].shape;
    return ERR_OK;
}

/* Add, Mul, Max, Sum ...: any number of inputs of one type. */
err op_rule_broadcast(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    out[0].dtype = in[0].dtype;
    out[0].shape = in[0].shape;
    for (int i = 1; i < n->n_in; i++) {
        if (!op_present(n, in, i)) return err_set(ERR_SHAPE, "input %d is absent", i);
        err e = op_want_same_type(in, 0, i);
        if (!e) e = tensor_broadcast(&out[0].shape, &in[i].shape, &out[0].shape);
        if (e) return e;
    }
    return ERR_OK;
}

err op_rule_compare(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    err e = op_rule_broadcast(n, in, out);
    out[0].dtype = TENSOR_BOOL;
    return e;
}

/* IsNaN, IsInf */
err op_rule_test(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    err e = op_rule_same(n, in, out);
    out[0].dtype = TENSOR_BOOL;
    return e;
}

/* And, Or, Xor, Not */
err op_rule_logic(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    if (in[0].dtype != TENSOR_BOOL)
        return err_set(ERR_SHAPE, "input 0 is %s, but must be bool", tensor_dtype_name(in[0].dtype));
    return op_rule_broadcast(n, in, out);
}

err op_rule_shift(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const char *direction = op_attr_string(n, "direction", "");
    if (direction[0] != 'L' && direction[0] != 'R')
        return err_set(ERR_SHAPE, "direction is neither LEFT nor RIGHT");
    if (!tensor_dtype_is_integer(in[0].dtype))
        return err_set(ERR_SHAPE, "input 0 is %s, but must be an integer", tensor_dtype_name(in[0].dtype));
    return op_rule_broadcast(n, in, out);
}

err op_rule_bitwise(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    if (!tensor_dtype_is_integer(in[0].dtype))
        return err_set(ERR_SHAPE, "input 0 is %s, but must be an integer", tensor_dtype_name(in[0].dtype));
    return op_rule_broadcast(n, in, out);
}

/* The exponent may have a type of its own (opset 12). */
err op_rule_pow(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    (void)n;
    out[0].dtype = in[0].dtype;
    return tensor_broadcast(&in[0].shape, &in[1].shape, &out[0].shape);
}

err op_rule_where(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    (void)n;
    if (in[0].dtype != TENSOR_BOOL)
        return err_set(ERR_SHAPE, "input 0 is %s, but must be bool", tensor_dtype_name(in[0].dtype));
    err e = op_want_same_type(in, 1, 2);
    struct tensor_shape s;
    if (!e) e = tensor_broadcast(&in[0].shape, &in[1].shape, &s);
    if (!e) e = tensor_broadcast(&s, &in[2].shape, &out[0].shape);
    out[0].dtype = in[1].dtype;
    return e;
}

/* The slope may be stretched to x, but not x to the slope. */
err op_rule_prelu(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    (void)n;
    err e = op_want_same_type(in, 0, 1);
    if (!e) e = tensor_broadcast(&in[0].shape, &in[1].shape, &out[0].shape);
    if (e) return e;
    if (!tensor_shape_equal(&out[0].shape, &in[0].shape)) {
        char s[2][160];
        return err_set(ERR_SHAPE, "input 1 (slope) is %s and does not fit into %s",
                       tensor_shape_text(&in[1].shape, NULL, s[0], sizeof s[0]),
                       tensor_shape_text(&in[0].shape, NULL, s[1], sizeof s[1]));
    }
    out[0].dtype = in[0].dtype;
    return ERR_OK;
}

/* Since opset 11 the limits are inputs of one element. */
err op_rule_clip(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    for (int i = 1; i < n->n_in; i++) {
        if (!op_present(n, in, i)) continue;
        if (tensor_count(&in[i].shape) != 1) return err_set(ERR_SHAPE, "input %d must hold one number", i);
        err e = op_want_same_type(in, 0, i);
        if (e) return e;
    }
    return op_rule_same(n, in, out);
}

/* ERR_UNSUPPORTED unless a number of ONNX names a type that brim computes with. */
static err type_of_number(const char *attribute, int64_t number, enum tensor_dtype *ret)
{
    if (number < 0 || number > 64 || !tensor_dtype_size((enum tensor_dtype)number))
        return err_set(ERR_UNSUPPORTED, "%s = %lld is a type that brim does not compute with", attribute,
                       (long long)number);
    *ret = (enum tensor_dtype)number;
    return ERR_OK;
}

err op_rule_cast(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct op_attr *to = op_attr(n, "to");
    if (!to || to->type != OP_ATTR_INT) return err_set(ERR_SHAPE, "the attribute 'to' is missing");
    out[0].shape = in[0].shape;
    return type_of_number("to", to->i, &out[0].dtype);
}

/* The same bits as another type of the same width. */
err op_rule_bit_cast(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    err e = op_rule_cast(n, in, out);
    if (!e && tensor_dtype_size(out[0].dtype) != tensor_dtype_size(in[0].dtype))
        e = err_set(ERR_SHAPE, "BitCast from %s to %s, which is of another width", tensor_dtype_name(in[0].dtype),
                    tensor_dtype_name(out[0].dtype));
    return e;
}

/* brim's Dropout hands its input on. While training (opset 12: an input) it would be random, unless the ratio is 0. */
static err want_no_training(const struct op_node *n, const struct op_info *in)
{
    uint8_t training;
    double ratio;
    if (!op_present(n, in, 2)) return ERR_OK;
    if (!in[2].constant || in[2].dtype != TENSOR_BOOL || tensor_count(&in[2].shape) != 1)
        return err_set(ERR_UNSUPPORTED, "input 2 (training_mode) must be a constant");
    memcpy(&training, in[2].constant, 1);
    if (!training) return ERR_OK;
    if (op_present(n, in, 1) && in[1].constant && op_constant_number(&in[1], 1, "ratio", &ratio) == ERR_OK &&
        ratio == 0)
        return ERR_OK;
    return err_set(
        ERR_UNSUPPORTED,
        "input 2 (training_mode) is on, which makes the result random; `brim export F.onnx -o G.onnx` writes the network for inference");
}

/* The mask became bool in opset 10; ratio and training_mode became inputs in 12. */
err op_rule_dropout(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    out[0].dtype = in[0].dtype;
    out[0].shape = in[0].shape;
    if (n->n_out > 1) {
        out[1].dtype = n->opset < 10 ? in[0].dtype : TENSOR_BOOL;
        out[1].shape = in[0].shape;
    }
    return want_no_training(n, in);
}

/* Scale and zero point: one number; one per slice along `axis` (opset 13); or one per block of an axis (21).
 */
static err check_scale(const struct op_node *n, const struct op_info *in)
{
    const struct tensor_shape *x = &in[0].shape, *s = &in[1].shape;
    if (op_present(n, in, 2) && !tensor_shape_equal(s, &in[2].shape) &&
        !(tensor_count(s) == 1 && tensor_count(&in[2].shape) == 1))
        return err_set(ERR_SHAPE, "input 2 (zero point) differs in shape from input 1 (scale)");
    if (s->rank == 0 || (s->rank == 1 && s->dims[0] == 1)) return ERR_OK;
    int axis;
    err e = op_axis(op_attr_int(n, "axis", 1), x->rank, &axis);
    if (e) return e;
    int64_t block = op_attr_int(n, "block_size", 0);
    if (block < 0) return err_set(ERR_SHAPE, "block_size is %lld", (long long)block);
    if (block == 0) return op_want_vector(n, in, 1, x->dims[axis]);
    e = op_want_rank(in, 1, x->rank);
    for (int i = 0; !e && i < x->rank; i++) {
        int64_t want = i == axis ? x->dims[i] / block + (x->dims[i] % block != 0) : x->dims[i];
        if (s->dims[i] != want)
            e = err_set(ERR_SHAPE, "axis %d of input 1 (scale) has the size %lld, not %lld", i,
                        (long long)s->dims[i], (long long)want);
    }
    return e;
}

err op_rule_quantize(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    err e = check_scale(n, in);
    if (e) return e;
    int64_t wanted = op_attr_int(n, "output_dtype", 0);
    out[0].shape = in[0].shape;
    out[0].dtype = op_present(n, in, 2) ? in[2].dtype : TENSOR_U8;
    if (wanted == 0 || op_present(n, in, 2)) return ERR_OK;
    return type_of_number("output_dtype", wanted, &out[0].dtype);
}

err op_rule_dequantize(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    err e = check_scale(n, in);
    if (!e && op_present(n, in, 2)) e = op_want_same_type(in, 0, 2);
    out[0].shape = in[0].shape;
    out[0].dtype = in[1].dtype;
    return e;
}
