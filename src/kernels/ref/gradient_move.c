/* GatherGrad and SliceGrad: what was read from a place is added to (or put at) that place, the rest is 0.
 *
 * Sums are in the order of the indices, so the same numbers give the same bits. Indices were checked by the Gather that ran before, and are
 * checked again: ERR_SHAPE. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"

#include <string.h>

static void add_row(enum tensor_dtype t, void *to, const void *from, int64_t n)
{
    if (t == TENSOR_F64)
        for (int64_t i = 0; i < n; i++) ((double *)to)[i] += ((const double *)from)[i];
    else
        for (int64_t i = 0; i < n; i++) ((float *)to)[i] += ((const float *)from)[i];
}

err ref_gather_grad(struct ref_call *c)
{
    const struct tensor *ids = &c->in[1];
    int axis = 0, rank = c->out[0].shape.rank;
    err e = ref_axis(op_attr_int(c->node, "axis", 0), rank, &axis);
    if (e) return e;
    struct tensor dy = ref_dense_in(c, 0, false), dx = ref_dense_out(c, 0, false);
    int64_t outer = 1, inner = 1, size = dx.shape.dims[axis], count = tensor_count(&ids->shape), bytes = ref_size(&dx);
    for (int i = 0; i < axis; i++) outer *= dx.shape.dims[i];
    for (int i = axis + 1; i < rank; i++) inner *= dx.shape.dims[i];
    memset(dx.data, 0, (size_t)(tensor_count(&dx.shape) * bytes));
    for (int64_t k = 0; k < count; k++) {
        int64_t at = ref_int_at(ids, k);
        if (at < -size || at >= size) return err_set(ERR_SHAPE, "index %lld is outside %lld", (long long)at, (long long)size);
        if (at < 0) at += size;
        for (int64_t o = 0; o < outer; o++)
            add_row(dx.dtype, (char *)dx.data + (o * size + at) * inner * bytes,
                    (const char *)dy.data + (o * count + k) * inner * bytes, inner);
    }
    ref_dense_done(c, 0, &dx);
    return ERR_OK;
}

err ref_slice_grad(struct ref_call *c)
{
    const struct tensor *dy = &c->in[0], *dx = &c->out[0];
    const int64_t *starts = NULL, *steps = NULL;
    static const char zero[8];
    size_t rank = (size_t)dx->shape.rank;
    if (op_attr_ints(c->node, "starts", &starts) != rank || op_attr_ints(c->node, "steps", &steps) != rank)
        return err_set(ERR_SHAPE, "starts and steps need one number per axis");
    ref_fill(dx, zero);
    if (tensor_count(&dy->shape) == 0) return ERR_OK;
    int64_t strides[TENSOR_MAX_RANK], offset = 0;
    for (size_t i = 0; i < rank; i++) {
        strides[i] = dx->strides[i] * steps[i];
        offset += starts[i] * dx->strides[i];
    }
    ref_copy((size_t)ref_size(dx), (int)rank, dy->shape.dims, (char *)dx->data + offset * ref_size(dx), strides, dy->data, dy->strides);
    return ERR_OK;
}
