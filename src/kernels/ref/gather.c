/* Reading and writing at places that are data: Gather*, Scatter*, OneHot.
 *
 * Indices are foreign: negative ones count from the end, anything outside is ERR_SHAPE before an element is
 * touched. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <string.h>

static err place(int64_t index, int64_t size, int64_t *ret)
{
    if (index < -size || index >= size)
        return err_set(ERR_SHAPE, "index %lld is outside %lld", (long long)index, (long long)size);
    *ret = index < 0 ? index + size : index;
    return ERR_OK;
}

/* Index number `i`, in row-major order, of an int32 or int64 tensor. */
static int64_t index_at(const struct tensor *t, int64_t i)
{
    int64_t k = ref_offset(t, i);
    if (t->dtype == TENSOR_I64) return ((const int64_t *)t->data)[k];
    return t->dtype == TENSOR_I32 ? ((const int32_t *)t->data)[k] : ref_int_at(t, i);
}

err ref_gather(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *ids = &c->in[1], *out = &c->out[0];
    int axis = 0, rank = in->shape.rank, more = ids->shape.rank;
    err e = ref_axis(op_attr_int(c->node, "axis", 0), rank, &axis);
    if (e) return e;
    if (out->shape.rank != rank - 1 + more || tensor_count(&out->shape) == 0)
        return tensor_count(&out->shape) == 0 ? ERR_OK : err_set(ERR_SHAPE, "the output does not fit");
    /* the axes that stay, as they lie in input and output */
    int64_t dims[TENSOR_MAX_RANK], from[TENSOR_MAX_RANK], to[TENSOR_MAX_RANK], index[TENSOR_MAX_RANK] = {0},
                                                                               number = 0;
    int n = 0;
    for (int i = 0; i < rank; i++) {
        if (i == axis) continue;
        dims[n] = in->shape.dims[i];
        from[n] = in->strides[i];
        to[n++] = out->strides[i < axis ? i : i - 1 + more];
    }
    size_t size = (size_t)ref_size(in);
    do {
        int64_t at = 0, offset = 0;
        if ((e = place(index_at(ids, number++), in->shape.dims[axis], &at))) return e;
        for (int i = 0; i < more; i++)
            offset += index[i] * out->strides[axis + i];
        ref_copy(size, n, dims, (char *)out->data + offset * (int64_t)size, to,
                 (const char *)in->data + at * in->strides[axis] * (int64_t)size, from);
    } while (ref_next(more, ids->shape.dims, index));
    return ERR_OK;
}

err ref_gather_elements(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *ids = &c->in[1], *out = &c->out[0];
    int axis = 0, rank = in->shape.rank;
    err e = ref_axis(op_attr_int(c->node, "axis", 0), rank, &axis);
    if (e || tensor_count(&out->shape) == 0) return e;
    if (ids->shape.rank != rank || !tensor_shape_equal(&ids->shape, &out->shape))
        return err_set(ERR_SHAPE, "the indices do not fit");
    for (int i = 0; i < rank; i++)
        if (i != axis && ids->shape.dims[i] > in->shape.dims[i])
            return err_set(ERR_SHAPE, "the indices are larger than input 0");
    int64_t index[TENSOR_MAX_RANK] = {0}, number = 0, size = ref_size(in);
    do {
        int64_t at = 0, from = 0, to = 0;
        if ((e = place(index_at(ids, number++), in->shape.dims[axis], &at))) return e;
        for (int i = 0; i < rank; i++) {
            from += (i == axis ? at : index[i]) * in->strides[i];
            to += index[i] * out->strides[i];
        }
        memcpy((char *)out->data + to * size, (const char *)in->data + from * size, (size_t)size);
    } while (ref_next(rank, out->shape.dims, index));
    return ERR_OK;
}
