/* Operators whose output does not come from the numbers of an input: constants, shapes, ranges.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <string.h>

static void put_number(const struct tensor *t, int64_t i, enum ref_domain d, const void *v)
{
    double own;
    ref_convert(d, v, t->dtype, &own, 1);
    ref_put(t->dtype, (char *)t->data + ref_offset(t, i) * ref_size(t), 0, 1, &own);
}

err ref_constant(struct ref_call *c)
{
    const struct tensor *out = &c->out[0];
    const struct op_attr *a;
    int64_t n = tensor_count(&out->shape);
    if ((a = op_attr(c->node, "value")) && a->type == OP_ATTR_TENSOR) {
        if (a->tensor.dtype != out->dtype || !tensor_shape_equal(&a->tensor.shape, &out->shape))
            return err_set(ERR_SHAPE, "the constant differs from the output");
        ref_copy_tensor(out, &a->tensor);
        return ERR_OK;
    }
    static const char *const NAMES[] = {"value_float", "value_int", "value_floats", "value_ints"};
    for (size_t k = 0; k < ARRAY_LEN(NAMES); k++) {
        if (!(a = op_attr(c->node, NAMES[k]))) continue;
        bool list = a->type == OP_ATTR_FLOATS || a->type == OP_ATTR_INTS,
             is_float = a->type == OP_ATTR_FLOAT || a->type == OP_ATTR_FLOATS;
        if (n != (list ? (int64_t)a->n : 1))
            return err_set(ERR_SHAPE, "the constant differs from the output");
        for (int64_t i = 0; i < n; i++) {
            const void *v = is_float ? list ? (const void *)&a->floats[i] : &a->f
                            : list   ? (const void *)&a->ints[i]
                                     : &a->i;
            put_number(out, i, is_float ? REF_F32 : REF_I64, v);
        }
        return ERR_OK;
    }
    return err_set(ERR_UNSUPPORTED, "a Constant without a dense value");
}

err ref_constant_of_shape(struct ref_call *c)
{
    const struct op_attr *a = op_attr(c->node, "value");
    static const uint64_t zero = 0;
    const void *v = &zero;
    if (a && a->type == OP_ATTR_TENSOR && tensor_count(&a->tensor.shape) == 1) {
        if (a->tensor.dtype != c->out[0].dtype)
            return err_set(ERR_SHAPE, "the value's type differs from the output's");
        v = a->tensor.data;
    }
    ref_fill(&c->out[0], v);
    return ERR_OK;
}

/* start and end: opset 15 */
err ref_shape(struct ref_call *c)
{
    int64_t rank = c->in[0].shape.rank, start = op_attr_int(c->node, "start", 0),
            end = op_attr_int(c->node, "end", rank);
    start = MAX(0, MIN(rank, start < 0 ? start + rank : start));
    end = MAX(start, MIN(rank, end < 0 ? end + rank : end));
    if (tensor_count(&c->out[0].shape) != end - start) return err_set(ERR_SHAPE, "the output does not fit");
    for (int64_t i = start; i < end; i++)
        put_number(&c->out[0], i - start, REF_I64, &c->in[0].shape.dims[i]);
    return ERR_OK;
}

err ref_size_of(struct ref_call *c)
{
    int64_t n = tensor_count(&c->in[0].shape);
    put_number(&c->out[0], 0, REF_I64, &n);
    return ERR_OK;
}

err ref_range(struct ref_call *c)
{
    const struct tensor *out = &c->out[0];
    for (int i = 0; i < 3; i++)
        if (!ref_has(c, i) || tensor_count(&c->in[i].shape) != 1)
            return err_set(ERR_SHAPE, "input %d must hold one number", i);
    int64_t n = tensor_count(&out->shape);
    if (tensor_dtype_is_float(out->dtype)) {
        double start = ref_double_at(&c->in[0], 0), step = ref_double_at(&c->in[2], 0);
        for (int64_t i = 0; i < n; i++) {
            double v = start + (double)i * step;
            put_number(out, i, REF_F64, &v);
        }
        return ERR_OK;
    }
    uint64_t start = (uint64_t)ref_int_at(&c->in[0], 0), step = (uint64_t)ref_int_at(&c->in[2], 0);
    for (int64_t i = 0; i < n; i++) {
        int64_t v = (int64_t)(start + (uint64_t)i * step);
        put_number(out, i, REF_I64, &v);
    }
    return ERR_OK;
}

err ref_eye_like(struct ref_call *c)
{
    const struct tensor *out = &c->out[0];
    static const uint64_t zero = 0;
    if (out->shape.rank != 2) return err_set(ERR_SHAPE, "EyeLike wants a matrix");
    ref_fill(out, &zero);
    int64_t k = op_attr_int(c->node, "k", 0), rows = out->shape.dims[0], columns = out->shape.dims[1],
            one = 1;
    k = MAX(MIN(k, columns), -rows);
    for (int64_t i = MAX(0, -k); i < rows && i + k < columns; i++)
        put_number(out, i * columns + i + k, REF_I64, &one);
    return ERR_OK;
}
