/* Shape rules of arithmetic on quantised numbers: the convolution or product of the same name, with scales and
 * zero points that must fit. QLinear*: x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias.
 * *Integer: x, w, x_zero, w_zero. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

static err want_byte(const struct op_info *in, int i)
{
    if (in[i].dtype == TENSOR_U8 || in[i].dtype == TENSOR_I8) return ERR_OK;
    return err_set(ERR_SHAPE, "input %d is of the type %s, not uint8 or int8", i, tensor_dtype_name(in[i].dtype));
}

/* One number, or one for each of `many`. */
static err want_parameter(const struct op_node *n, const struct op_info *in, int i, int64_t many, bool scale,
                          int like)
{
    if (!op_present(n, in, i)) return ERR_OK;
    const struct tensor_shape *s = &in[i].shape;
    if (scale && (!tensor_dtype_is_float(in[i].dtype) || in[i].dtype == TENSOR_F64))
        return err_set(ERR_UNSUPPORTED, "input %d (a scale) is of the type %s, not float32, float16 or bfloat16", i,
                       tensor_dtype_name(in[i].dtype));
    err e = scale || like < 0 ? ERR_OK : op_want_same_type(in, like, i);
    if (e || tensor_count(s) == 1) return e;
    if (s->rank == 1 && s->dims[0] == many && !op_bounded(s, 0)) return ERR_OK;
    return err_set(ERR_SHAPE, "input %d holds %lld numbers, not one or one each for %lld", i,
                   (long long)tensor_count(s), (long long)many);
}

/* The same with a float operator's rule on x and w. */
static err inner(const struct op_node *n, enum op_kind kind, op_infer_fn *rule, const struct op_info *in, int w,
                 struct op_info *out)
{
    struct op_node like = *n;
    struct op_info two[2] = {in[0], in[w]};
    like.kind = kind;
    like.n_in = 2;
    like.n_out = 1;
    err e = want_byte(in, 0);
    if (!e) e = want_byte(in, w);
    two[1].dtype = two[0].dtype; /* signs may differ here */
    return e ? e : rule(&like, two, out);
}

err op_rule_qlinear(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    bool conv = n->kind == OP_QLINEAR_CONV;
    struct op_info y = {0};
    err e = inner(n, conv ? OP_CONV : OP_MATMUL, conv ? op_rule_conv : op_rule_matmul, in, 3, &y);
    if (e) return e;
    const struct tensor_shape *w = &in[3].shape;
    int64_t many = conv ? w->dims[0] : w->rank > 1 ? w->dims[w->rank - 1] : 1;
    e = want_parameter(n, in, 1, 1, true, 0);
    if (!e) e = want_parameter(n, in, 2, 1, false, 0);
    if (!e) e = want_parameter(n, in, 4, many, true, 3);
    if (!e) e = want_parameter(n, in, 5, many, false, 3);
    if (!e) e = want_parameter(n, in, 6, 1, true, 0);
    if (!e) e = want_byte(in, 7);
    if (!e) e = want_parameter(n, in, 7, 1, false, 7);
    if (!e && op_present(n, in, 8)) {
        e = op_want_vector(n, in, 8, many);
        if (!e && in[8].dtype != TENSOR_I32) e = err_set(ERR_SHAPE, "input 8 (bias) must be int32");
    }
    y.dtype = in[7].dtype;
    if (!e) out[0] = y;
    return e;
}

err op_rule_integer(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    bool conv = n->kind == OP_CONV_INTEGER;
    struct op_info y = {0};
    err e = inner(n, conv ? OP_CONV : OP_MATMUL, conv ? op_rule_conv : op_rule_matmul, in, 1, &y);
    if (e) return e;
    const struct tensor_shape *x = &in[0].shape, *w = &in[1].shape;
    int64_t columns = conv ? w->dims[0] : w->rank > 1 ? w->dims[w->rank - 1] : 1;
    int64_t rows = !conv && x->rank == 2 ? x->dims[0] : 1;
    e = want_parameter(n, in, 2, rows, false, 0);
    if (!e) e = want_parameter(n, in, 3, columns, false, 1);
    y.dtype = TENSOR_I32;
    if (!e) out[0] = y;
    return e;
}

err op_rule_dynamic_quantize(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    static const enum tensor_dtype TYPES[] = {TENSOR_U8, TENSOR_F32, TENSOR_U8};
    if (in[0].dtype != TENSOR_F32)
        return err_set(ERR_SHAPE, "input 0 is of the type %s, not float32", tensor_dtype_name(in[0].dtype));
    for (int i = 0; i < n->n_out; i++) {
        out[i].dtype = TYPES[i];
        out[i].shape = i ? tensor_shape_of(0, NULL) : in[0].shape;
    }
    return ERR_OK;
}
