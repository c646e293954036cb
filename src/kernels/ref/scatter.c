/* Places given by whole index vectors, and writing at places: GatherND, Scatter*, OneHot.
 *
 * As in gather.c an index outside is ERR_SHAPE; a scatter that fails leaves its output half written, which
 * nobody reads. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <string.h>

enum reduction { REPLACE, ADD, MUL, MAXIMUM, MINIMUM };

static err reduction_of(const struct op_node *n, enum reduction *ret)
{
    static const char *const NAMES[] = {"none", "add", "mul", "max", "min"};
    const char *s = op_attr_string(n, "reduction", "none");
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        if (strcmp(s, NAMES[i]) == 0) {
            *ret = (enum reduction)i;
            return ERR_OK;
        }
    return err_set(ERR_UNSUPPORTED, "reduction '%.32s'", s);
}

/* to[i] = to[i] op from[i] for a row of n; steps in bytes. */
static void combine(enum tensor_dtype t, enum reduction r, char *to, int64_t ts, const char *from, int64_t fs,
                    int64_t n)
{
    int64_t size = (int64_t)tensor_dtype_size(t);
    for (int64_t i = 0; i < n; i++, to += ts, from += fs) {
        if (r == REPLACE) {
            memcpy(to, from, (size_t)size);
            continue;
        }
        union {
            float f;
            double d;
            int64_t i;
            uint64_t u;
        } a, b;
        ref_get(t, to, 0, 1, &a);
        ref_get(t, from, 0, 1, &b);
#define APPLY(x, y)                                                                                          \
    (x = r == ADD       ? x + y                                                                              \
         : r == MUL     ? x * y                                                                              \
         : r == MAXIMUM ? (y > x || y != y ? y : x)                                                          \
                        : (y < x || y != y ? y : x))
        bool order = r == MAXIMUM || r == MINIMUM;
        switch (ref_domain(t)) {
        case REF_F32:
            APPLY(a.f, b.f);
            break;
        case REF_F64:
            APPLY(a.d, b.d);
            break;
        case REF_I64:
            if (order)
                APPLY(a.i, b.i);
            else
                APPLY(a.u, b.u);
            break;
        case REF_U64:
            APPLY(a.u, b.u);
            break;
        }
#undef APPLY
        ref_put(t, to, 0, 1, &a);
    }
}

static err place(int64_t index, int64_t size, int64_t *ret)
{
    if (index < -size || index >= size)
        return err_set(ERR_SHAPE, "index %lld is outside %lld", (long long)index, (long long)size);
    *ret = index < 0 ? index + size : index;
    return ERR_OK;
}

err ref_scatter_elements(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *ids = &c->in[1], *updates = &c->in[2], *out = &c->out[0];
    int axis = 0, rank = in->shape.rank;
    enum reduction r = REPLACE;
    err e = ref_axis(op_attr_int(c->node, "axis", 0), rank, &axis);
    if (!e) e = reduction_of(c->node, &r);
    if (e) return e;
    if (ids->shape.rank != rank || !tensor_shape_equal(&ids->shape, &updates->shape) ||
        !tensor_shape_equal(&in->shape, &out->shape) || updates->dtype != out->dtype)
        return err_set(ERR_SHAPE, "indices and updates do not fit to input 0");
    for (int i = 0; i < rank; i++)
        if (i != axis && ids->shape.dims[i] > in->shape.dims[i])
            return err_set(ERR_SHAPE, "the indices are larger than input 0");
    ref_copy_tensor(out, in);
    if (tensor_count(&ids->shape) == 0) return ERR_OK;
    int64_t index[TENSOR_MAX_RANK] = {0}, number = 0, size = ref_size(out);
    do {
        int64_t at = 0, to = 0, from = ref_offset(updates, number);
        if ((e = place(ref_int_at(ids, number++), in->shape.dims[axis], &at))) return e;
        for (int i = 0; i < rank; i++)
            to += (i == axis ? at : index[i]) * out->strides[i];
        combine(out->dtype, r, (char *)out->data + to * size, 0, (const char *)updates->data + from * size, 0,
                1);
    } while (ref_next(rank, ids->shape.dims, index));
    return ERR_OK;
}

/* Offset in `t` of the slice that index vector number `number` names, from axis `first` on. */
static err slice_of(const struct tensor *t, const struct tensor *ids, int64_t number, int64_t length,
                    int first, int64_t *ret)
{
    int64_t offset = 0;
    for (int64_t k = 0; k < length; k++) {
        int64_t at = 0;
        err e = place(ref_int_at(ids, number * length + k), t->shape.dims[first + k], &at);
        if (e) return e;
        offset += at * t->strides[first + k];
    }
    *ret = offset;
    return ERR_OK;
}

err ref_gather_nd(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *ids = &c->in[1], *out = &c->out[0];
    int rank = in->shape.rank, q = ids->shape.rank;
    int64_t batch = op_attr_int(c->node, "batch_dims", 0);
    if (q < 1 || batch < 0 || batch >= q || batch >= rank)
        return err_set(ERR_SHAPE, "batch_dims is %lld", (long long)batch);
    int64_t length = ids->shape.dims[q - 1];
    if (length > rank - batch || out->shape.rank != q - 1 + rank - (int)length - (int)batch)
        return err_set(ERR_SHAPE, "index vectors of %lld numbers", (long long)length);
    for (int i = 0; i < batch; i++)
        if (ids->shape.dims[i] != in->shape.dims[i]) return err_set(ERR_SHAPE, "the batches differ");
    if (tensor_count(&out->shape) == 0) return ERR_OK;
    int kept = rank - (int)batch - (int)length;
    int64_t index[TENSOR_MAX_RANK] = {0}, number = 0, size = ref_size(in);
    do {
        int64_t from, to = 0;
        err e = slice_of(in, ids, number++, length, (int)batch, &from);
        if (e) return e;
        for (int i = 0; i < batch; i++)
            from += index[i] * in->strides[i];
        for (int i = 0; i < q - 1; i++)
            to += index[i] * out->strides[i];
        ref_copy((size_t)size, kept, in->shape.dims + batch + length, (char *)out->data + to * size,
                 out->strides + q - 1, (const char *)in->data + from * size, in->strides + batch + length);
    } while (ref_next(q - 1, ids->shape.dims, index));
    return ERR_OK;
}

err ref_scatter_nd(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *ids = &c->in[1], *updates = &c->in[2], *out = &c->out[0];
    int rank = in->shape.rank, q = ids->shape.rank;
    enum reduction r = REPLACE;
    err e = reduction_of(c->node, &r);
    if (e) return e;
    int64_t length = q > 0 ? ids->shape.dims[q - 1] : -1;
    if (length < 0 || length > rank || updates->shape.rank != q - 1 + rank - (int)length ||
        updates->dtype != out->dtype || !tensor_shape_equal(&in->shape, &out->shape))
        return err_set(ERR_SHAPE, "indices and updates do not fit to input 0");
    for (int i = 0; i < updates->shape.rank; i++)
        if (updates->shape.dims[i] !=
            (i < q - 1 ? ids->shape.dims[i] : in->shape.dims[i - (q - 1) + (int)length]))
            return err_set(ERR_SHAPE, "axis %d of the updates does not fit", i);
    ref_copy_tensor(out, in);
    if (tensor_count(&updates->shape) == 0) return ERR_OK;
    int kept = rank - (int)length;
    int64_t index[TENSOR_MAX_RANK] = {0}, number = 0, size = ref_size(in);
    do {
        int64_t to, from = 0, inner[TENSOR_MAX_RANK] = {0};
        if ((e = slice_of(out, ids, number++, length, 0, &to))) return e;
        for (int i = 0; i < q - 1; i++)
            from += index[i] * updates->strides[i];
        do {
            int64_t a = to, b = from;
            for (int i = 0; i < kept; i++) {
                a += inner[i] * out->strides[length + i];
                b += inner[i] * updates->strides[q - 1 + i];
            }
            combine(out->dtype, r, (char *)out->data + a * size, 0, (const char *)updates->data + b * size, 0,
                    1);
        } while (ref_next(kept, in->shape.dims + length, inner));
    } while (ref_next(q - 1, ids->shape.dims, index));
    return ERR_OK;
}

/* An index outside [-depth, depth) gives a vector of off-values: the only place where ONNX forgives it. */
err ref_one_hot(struct ref_call *c)
{
    const struct tensor *ids = &c->in[0], *values = &c->in[2], *out = &c->out[0];
    int axis = 0, rank = out->shape.rank;
    err e = ref_axis(op_attr_int(c->node, "axis", -1), rank, &axis);
    if (e) return e;
    if (rank != ids->shape.rank + 1 || values->dtype != out->dtype || tensor_count(&values->shape) != 2)
        return err_set(ERR_SHAPE, "values must be two of the output's type");
    int64_t size = ref_size(out), depth = out->shape.dims[axis];
    const char *off = values->data, *on = off + ref_offset(values, 1) * size;
    ref_fill(out, off);
    if (tensor_count(&out->shape) == 0) return ERR_OK;
    int64_t index[TENSOR_MAX_RANK] = {0}, number = 0;
    do {
        int64_t at = ref_int_at(ids, number++), to = 0;
        if (at < -depth || at >= depth) continue;
        if (at < 0) at += depth;
        for (int i = 0; i < rank; i++)
            to += (i == axis ? at : index[i < axis ? i : i - 1]) * out->strides[i];
        memcpy((char *)out->data + to * size, on, (size_t)size);
    } while (ref_next(rank - 1, ids->shape.dims, index));
    return ERR_OK;
}
