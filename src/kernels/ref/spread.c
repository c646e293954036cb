/* Blocks and numbers put to their places: Col2Im, MaxUnpool, TensorScatter; and the grid of AffineGrid.
 *
 * Places are data or follow from it; one that lies outside of the output is ERR_SHAPE. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <string.h>

static double get(const struct tensor *t, int64_t i)
{
    return t->dtype == TENSOR_F64 ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i];
}

/* ---- Col2Im: columns [N, C * taps, blocks] are added up to images [N, C, image...] */

struct columns {
    int n; /* axes of the image */
    int64_t image[TENSOR_MAX_RANK], block[TENSOR_MAX_RANK], dilation[TENSOR_MAX_RANK], stride[TENSOR_MAX_RANK],
        pad[TENSOR_MAX_RANK], steps[TENSOR_MAX_RANK], taps, blocks;
};

static void attribute(const struct op_node *n, const char *name, int count, int64_t otherwise, int64_t *ret)
{
    const int64_t *v = NULL;
    size_t len = op_attr_ints(n, name, &v);
    for (int i = 0; i < count; i++)
        ret[i] = len >= (size_t)count ? v[i] : otherwise;
}

static bool sane(int64_t v)
{
    return v >= 1 && v <= (int64_t)1 << 31;
}

static err read_columns(const struct ref_call *c, struct columns *w)
{
    w->n = c->out[0].shape.rank - 2;
    if (w->n < 1 || tensor_count(&c->in[2].shape) != w->n) return err_set(ERR_SHAPE, "block_shape does not fit");
    attribute(c->node, "dilations", w->n, 1, w->dilation);
    attribute(c->node, "strides", w->n, 1, w->stride);
    attribute(c->node, "pads", w->n, 0, w->pad);
    const int64_t *pads = NULL;
    size_t len = op_attr_ints(c->node, "pads", &pads);
    w->taps = w->blocks = 1;
    for (int i = 0; i < w->n; i++) {
        int64_t both = len == 2 * (size_t)w->n ? pads[i] + pads[w->n + i] : 0;
        w->image[i] = c->out[0].shape.dims[2 + i];
        w->block[i] = ref_int_at(&c->in[2], i);
        if (!sane(w->stride[i]) || !sane(w->dilation[i]) || !sane(w->block[i]) || !sane(w->pad[i] + 1) || !sane(both + 1))
            return err_set(ERR_SHAPE, "strides, dilations, pads or blocks that cannot be");
        int64_t room = w->image[i] + both - w->dilation[i] * (w->block[i] - 1) - 1;
        w->steps[i] = room < 0 ? 0 : room / w->stride[i] + 1;
        w->taps *= w->block[i];
        w->blocks *= w->steps[i];
    }
    const struct tensor_shape *x = &c->in[0].shape, *y = &c->out[0].shape;
    if (x->rank != 3 || x->dims[0] != y->dims[0] || x->dims[1] != y->dims[1] * w->taps || x->dims[2] != w->blocks)
        return err_set(ERR_SHAPE, "the columns do not fit to the image");
    return ERR_OK;
}

/* Where tap `tap` of block `step` lies in a plane; -1: in the padding. */
static int64_t place_of(const struct columns *w, const int64_t *tap, const int64_t *step)
{
    int64_t at = 0;
    for (int i = 0; i < w->n; i++) {
        int64_t p = step[i] * w->stride[i] - w->pad[i] + tap[i] * w->dilation[i];
        if (p < 0 || p >= w->image[i]) return -1;
        at = at * w->image[i] + p;
    }
    return at;
}

err ref_col2im(struct ref_call *c)
{
    struct columns w;
    err e = read_columns(c, &w);
    if (e) return e;
    struct tensor x = ref_dense_in(c, 0, false), y = ref_dense_out(c, 0, false);
    int64_t size = ref_size(&y), planes = y.shape.dims[0] * y.shape.dims[1], area = 1, from = 0;
    for (int i = 0; i < w.n; i++)
        area *= w.image[i];
    memset(y.data, 0, (size_t)(planes * area * size));
    for (int64_t plane = 0; plane < planes && w.blocks && w.taps; plane++) {
        int64_t tap[TENSOR_MAX_RANK] = {0};
        do {
            int64_t step[TENSOR_MAX_RANK] = {0};
            do {
                int64_t to = place_of(&w, tap, step);
                if (to >= 0 && y.dtype == TENSOR_F32)
                    ((float *)y.data)[plane * area + to] += ((const float *)x.data)[from];
                else if (to >= 0 && y.dtype == TENSOR_F64)
                    ((double *)y.data)[plane * area + to] += ((const double *)x.data)[from];
                else if (to >= 0)
                    ((uint64_t *)y.data)[plane * area + to] += ((const uint64_t *)x.data)[from];
                from++;
            } while (ref_next(w.n, w.steps, step));
        } while (ref_next(w.n, w.block, tap));
    }
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}

/* ---- MaxUnpool: indices count in the output that the window leads to; an output_shape may be larger */

err ref_max_unpool(struct ref_call *c)
{
    const struct tensor *x = &c->in[0], *ids = &c->in[1], *y = &c->out[0];
    int rank = x->shape.rank, n = rank - 2;
    int64_t kernel[TENSOR_MAX_RANK], stride[TENSOR_MAX_RANK], pads[2 * TENSOR_MAX_RANK], full[TENSOR_MAX_RANK], total = 1;
    static const uint64_t zero = 0;
    if (n < 1 || y->shape.rank != rank || !tensor_shape_equal(&x->shape, &ids->shape))
        return err_set(ERR_SHAPE, "the indices do not fit");
    attribute(c->node, "kernel_shape", n, 1, kernel);
    attribute(c->node, "strides", n, 1, stride);
    attribute(c->node, "pads", 2 * n, 0, pads);
    for (int i = 0; i < rank; i++) {
        full[i] = i < 2 ? x->shape.dims[i] : (x->shape.dims[i] - 1) * stride[i - 2] - pads[i - 2] - pads[i - 2 + n] + kernel[i - 2];
        if (full[i] < 0 || full[i] > y->shape.dims[i]) return err_set(ERR_SHAPE, "the output is too small along axis %d", i);
        total *= full[i];
    }
    ref_fill(y, &zero);
    int64_t size = ref_size(x), count = tensor_count(&x->shape);
    for (int64_t k = 0; k < count; k++) {
        int64_t at = ref_int_at(ids, k), to = 0;
        if (at < 0 || at >= total) return err_set(ERR_SHAPE, "index %lld is outside %lld", (long long)at, (long long)total);
        for (int i = rank - 1; i >= 0; at /= full[i--])
            to += at % full[i] * y->strides[i];
        memcpy((char *)y->data + to * size, (const char *)x->data + ref_offset(x, k) * size, (size_t)size);
    }
    return ERR_OK;
}

/* ---- TensorScatter: new rows into a cache, each batch at its own place */

err ref_tensor_scatter(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *update = &c->in[1], *out = &c->out[0];
    int axis = 0, rank = in->shape.rank;
    bool circular = strcmp(op_attr_string(c->node, "mode", "linear"), "circular") == 0;
    err e = ref_axis(op_attr_int(c->node, "axis", -2), rank, &axis);
    if (e) return e;
    if (axis == 0 || update->shape.rank != rank || update->dtype != in->dtype)
        return err_set(ERR_SHAPE, "the update does not fit to the cache");
    for (int i = 0; i < rank; i++)
        if (i == axis ? update->shape.dims[i] > in->shape.dims[i] : update->shape.dims[i] != in->shape.dims[i])
            return err_set(ERR_SHAPE, "axis %d of the update does not fit to the cache", i);
    if (ref_has(c, 2) && tensor_count(&c->in[2].shape) != in->shape.dims[0])
        return err_set(ERR_SHAPE, "each batch needs its write index");
    ref_copy_tensor(out, in);
    if (tensor_count(&update->shape) == 0) return ERR_OK;
    int64_t index[TENSOR_MAX_RANK] = {0}, size = ref_size(in), length = in->shape.dims[axis];
    do {
        int64_t at = index[axis] + (ref_has(c, 2) ? ref_int_at(&c->in[2], index[0]) : 0), from = 0, to = 0;
        if (circular) at = (at % length + length) % length;
        if (at < 0 || at >= length)
            return err_set(ERR_SHAPE, "row %lld is outside a cache of %lld", (long long)at, (long long)length);
        for (int i = 0; i < rank; i++) {
            from += index[i] * update->strides[i];
            to += (i == axis ? at : index[i]) * out->strides[i];
        }
        memcpy((char *)out->data + to * size, (const char *)update->data + from * size, (size_t)size);
    } while (ref_next(rank, update->shape.dims, index));
    return ERR_OK;
}

/* ---- AffineGrid: theta [N, 2, 3] or [N, 3, 4] times the places of an image from -1 to 1 */

err ref_affine_grid(struct ref_call *c)
{
    bool corners = op_attr_int(c->node, "align_corners", 0) != 0;
    const struct tensor_shape *s = &c->out[0].shape;
    int n = s->rank - 2;
    if ((n != 2 && n != 3) || s->dims[s->rank - 1] != n || tensor_count(&c->in[0].shape) != s->dims[0] * n * (n + 1))
        return err_set(ERR_SHAPE, "theta does not fit to the size");
    struct tensor theta = ref_dense_in(c, 0, false), y = ref_dense_out(c, 0, false);
    int64_t index[TENSOR_MAX_RANK] = {0}, at = 0;
    if (tensor_count(s) == 0) return ERR_OK;
    do { /* the last axis of the image comes first in a point: x, y, z */
        double point[4];
        for (int i = 0; i < n; i++) {
            int64_t size = s->dims[n - i], k = index[n - i];
            point[i] = corners ? (size > 1 ? 2 * (double)k / (double)(size - 1) - 1 : -1)
                               : (2 * (double)k + 1) / (double)size - 1;
        }
        point[n] = 1;
        for (int i = 0; i < n; i++, at++) {
            double sum = 0;
            for (int k = 0; k <= n; k++)
                sum += get(&theta, (index[0] * n + i) * (n + 1) + k) * point[k];
            if (y.dtype == TENSOR_F64)
                ((double *)y.data)[at] = sum;
            else
                ((float *)y.data)[at] = (float)sum;
        }
    } while (ref_next(n + 1, s->dims, index));
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}
