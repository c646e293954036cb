/* QuantizeLinear and DequantizeLinear: per tensor, per slice of an axis, or per block of an axis (opset 21).
 *
 * y = saturate(round_half_even(x / scale) + zero point); x = (y - zero point) * scale. Division and product
 * in float32. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"
#include "tensor/small.h"

#include <math.h>
#include <string.h>

struct row {
    enum tensor_dtype y, x, scale, zero;
    float low, high;
    bool saturate;
};

static const float *floats(enum tensor_dtype t, const char *p, int64_t step, int64_t n, double *raw,
                           float *buf)
{
    const void *v = ref_fetch(t, p, step, n, raw);
    if (ref_domain(t) == REF_F32) return v;
    ref_convert(ref_domain(t), v, TENSOR_F32, buf, n);
    return buf;
}

/* p: y, x, scale, zero point */
static void quantize_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const struct row *r = context;
    double raw[3][REF_CHUNK];
    float buf[3][REF_CHUNK];
    int64_t y[REF_CHUNK];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        const float *x = floats(r->x, p[1] + i * step[1], step[1], m, raw[0], buf[0]);
        const float *s = floats(r->scale, p[2] + i * step[2], step[2], m, raw[1], buf[1]);
        const float *z = floats(r->zero, p[3] + i * step[3], step[3], m, raw[2], buf[2]);
        for (int64_t k = 0; k < m; k++) {
            float v = rintf(x[k] / s[k]) + z[k];
            v = v != v ? z[k] : v < r->low ? r->low : v > r->high ? r->high : v;
            y[k] = (int64_t)v;
        }
        ref_put(r->y, p[0] + i * step[0], step[0], m, y);
    }
}

/* To float8 and float4: x / scale, to the nearest; float8 has no zero point but 0. */
static void quantize_small_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const struct row *r = context;
    double raw[3][REF_CHUNK];
    float buf[3][REF_CHUNK];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        const float *x = floats(r->x, p[1] + i * step[1], step[1], m, raw[0], buf[0]);
        const float *s = floats(r->scale, p[2] + i * step[2], step[2], m, raw[1], buf[1]);
        const float *z = floats(r->zero, p[3] + i * step[3], step[3], m, raw[2], buf[2]);
        for (int64_t k = 0; k < m; k++)
            *(uint8_t *)(p[0] + (i + k) * step[0]) = tensor_small_code(r->y, x[k] / s[k] + z[k], r->saturate);
    }
}

static void dequantize_small_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const struct row *r = context;
    double raw[3][REF_CHUNK];
    float buf[3][REF_CHUNK], y[REF_CHUNK];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        const float *x = floats(r->x, p[1] + i * step[1], step[1], m, raw[0], buf[0]);
        const float *s = floats(r->scale, p[2] + i * step[2], step[2], m, raw[1], buf[1]);
        const float *z = floats(r->zero, p[3] + i * step[3], step[3], m, raw[2], buf[2]);
        for (int64_t k = 0; k < m; k++)
            y[k] = (x[k] - z[k]) * s[k];
        ref_put(r->y, p[0] + i * step[0], step[0], m, y);
    }
}

static void dequantize_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const struct row *r = context;
    int64_t raw_x[REF_CHUNK], raw_z[REF_CHUNK];
    double raw[REF_CHUNK];
    float buf[REF_CHUNK], y[REF_CHUNK];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        const int64_t *x = ref_fetch(r->x, p[1] + i * step[1], step[1], m, raw_x);
        const float *s = floats(r->scale, p[2] + i * step[2], step[2], m, raw, buf);
        const int64_t *z = ref_fetch(r->zero, p[3] + i * step[3], step[3], m, raw_z);
        for (int64_t k = 0; k < m; k++)
            y[k] = (float)(x[k] - z[k]) * s[k];
        ref_put(r->y, p[0] + i * step[0], step[0], m, y);
    }
}

/* `t` with the axes of x: a scalar stays one, a vector lies along `axis`, blocks have all axes. */
static struct tensor spread(const struct tensor *t, const struct tensor *x, int axis)
{
    struct tensor v = *t;
    if (t->shape.rank == x->shape.rank && t->shape.rank != 1) return v;
    bool one = tensor_count(&t->shape) == 1;
    v.shape.rank = x->shape.rank;
    for (int i = 0; i < x->shape.rank; i++) {
        v.shape.dims[i] = i == axis && !one ? t->shape.dims[0] : 1;
        v.strides[i] = i == axis && !one ? t->strides[0] : 0;
    }
    return v;
}

static struct tensor part(const struct tensor *t, int axis, int64_t from, int64_t size)
{
    struct tensor p = *t;
    p.shape.dims[axis] = size;
    p.data = (char *)t->data + from * t->strides[axis] * ref_size(t);
    return p;
}

static err run(struct ref_call *c, ref_row_fn *fn, struct row *r)
{
    static const int64_t nothing = 0;
    const struct tensor *x = &c->in[0];
    int axis = 0, rank = x->shape.rank;
    int64_t block = op_attr_int(c->node, "block_size", 0), size;
    bool one = tensor_count(&c->in[1].shape) == 1;
    err e = one || rank == 0 ? ERR_OK : ref_axis(op_attr_int(c->node, "axis", 1), rank, &axis);
    if (e || tensor_count(&x->shape) == 0) return e;
    struct tensor_shape scalar = {.rank = 0};
    struct tensor none = tensor_view(r->zero, &scalar, &nothing), scale = spread(&c->in[1], x, axis);
    struct tensor zero = ref_has(c, 2) ? spread(&c->in[2], x, axis) : none, out = c->out[0];
    struct tensor_shape s;
    if (block <= 0 || one) {
        if (tensor_broadcast(&scale.shape, &x->shape, &s) || !tensor_shape_equal(&s, &x->shape))
            return err_set(ERR_SHAPE, "the scale does not fit");
        if (tensor_broadcast(&zero.shape, &x->shape, &s) || !tensor_shape_equal(&s, &x->shape))
            return err_set(ERR_SHAPE, "the zero point does not fit");
        struct ref_loop l;
        ref_loop_init(&l, &x->shape, 4, (const struct tensor *[]){&out, x, &scale, &zero});
        ref_loop_run(&l, fn, r);
        return ERR_OK;
    }
    size = x->shape.dims[axis];
    if (scale.shape.dims[axis] != size / block + (size % block != 0))
        return err_set(ERR_SHAPE, "the scale does not fit");
    for (int64_t i = 0; i < scale.shape.dims[axis]; i++) {
        int64_t n = MIN(block, size - i * block);
        struct tensor px = part(x, axis, i * block, n), py = part(&out, axis, i * block, n),
                      ps = part(&scale, axis, i, 1);
        struct tensor pz = ref_has(c, 2) ? part(&zero, axis, i, 1) : none;
        struct ref_loop l;
        ref_loop_init(&l, &px.shape, 4, (const struct tensor *[]){&py, &px, &ps, &pz});
        ref_loop_run(&l, fn, r);
    }
    return ERR_OK;
}

static err limits(enum tensor_dtype t, struct row *r)
{
    switch (t) {
    case TENSOR_U8:
        r->low = 0, r->high = 255;
        return ERR_OK;
    case TENSOR_I8:
        r->low = -128, r->high = 127;
        return ERR_OK;
    case TENSOR_U16:
        r->low = 0, r->high = 65535;
        return ERR_OK;
    case TENSOR_I16:
        r->low = -32768, r->high = 32767;
        return ERR_OK;
    case TENSOR_U4:
        r->low = 0, r->high = 15;
        return ERR_OK;
    case TENSOR_I4:
        r->low = -8, r->high = 7;
        return ERR_OK;
    case TENSOR_U2:
        r->low = 0, r->high = 3;
        return ERR_OK;
    case TENSOR_I2:
        r->low = -2, r->high = 1;
        return ERR_OK;
    default:
        return err_set(ERR_UNSUPPORTED, "QuantizeLinear to %s", tensor_dtype_name(t));
    }
}

err ref_quantize(struct ref_call *c)
{
    struct row r = {
        .y = c->out[0].dtype, .x = c->in[0].dtype, .scale = c->in[1].dtype, .zero = c->out[0].dtype};
    if (tensor_dtype_is_small(r.y) && ref_domain(r.y) == REF_F32 && r.y != TENSOR_F8E8M0) {
        r.saturate = op_attr_int(c->node, "saturate", 1) != 0;
        return run(c, quantize_small_row, &r);
    }
    err e = limits(r.y, &r);
    return e ? e : run(c, quantize_row, &r);
}

err ref_dequantize(struct ref_call *c)
{
    struct row r = {
        .y = c->out[0].dtype, .x = c->in[0].dtype, .scale = c->in[1].dtype, .zero = c->in[0].dtype};
    if (tensor_dtype_is_small(r.x) && ref_domain(r.x) == REF_F32 && ref_domain(r.y) == REF_F32)
        return run(c, dequantize_small_row, &r);
    if ((!tensor_dtype_is_integer(r.x) && !tensor_dtype_is_small(r.x)) || r.x == TENSOR_U64 || ref_domain(r.y) != REF_F32)
        return err_set(ERR_UNSUPPORTED, "DequantizeLinear of %s", tensor_dtype_name(r.x));
    return run(c, dequantize_row, &r);
}
