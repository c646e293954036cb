/* Shape rules of Resize, Upsample and GridSample.
 *
 * Sizes from scales are floor(size * scale) in float32, as ONNX's own inference and runtimes compute it: 3 *
 * (1.0f / 3) must give the same size here as where the model was made. SPDX-License-Identifier: Apache-2.0 */
#include "op/rule.h"

#include <math.h>
#include <string.h>

/* The axes that scales or sizes speak of: all of them, or those of the attribute (opset 18). */
static err resize_axes(const struct op_node *n, int rank, int *ret, int *ret_count)
{
    const int64_t *v = NULL;
    size_t len = op_attr_ints(n, "axes", &v);
    unsigned seen = 0;
    if (len > (size_t)rank) return err_set(ERR_SHAPE, "axes has %zu numbers for %d axes", len, rank);
    *ret_count = len ? (int)len : rank;
    for (int i = 0; i < *ret_count; i++) {
        err e = op_axis(len ? v[i] : i, rank, &ret[i]);
        if (e) return e;
        if (seen >> ret[i] & 1) return err_set(ERR_SHAPE, "axes names axis %d twice", ret[i]);
        seen |= 1u << ret[i];
    }
    return ERR_OK;
}

static err scaled(int64_t size, float scale, int64_t *ret)
{
    if (!(scale > 0) || !isfinite(scale)) return err_set(ERR_SHAPE, "a scale of %g", (double)scale);
    float r = floorf((float)size * scale);
    if (!(r < 0x1p47f)) return err_set(ERR_SHAPE, "the size %lld times %g", (long long)size, (double)scale);
    *ret = (int64_t)r;
    return ERR_OK;
}

static err by_scales(const float *scales, const int *axes, int count, struct tensor_shape *s)
{
    for (int i = 0; i < count; i++) {
        err e = scaled(s->dims[axes[i]], scales[i], &s->dims[axes[i]]);
        if (e) return e;
    }
    return ERR_OK;
}

/* keep_aspect_ratio_policy (opset 18): one scale for all axes, the smallest or the largest of those asked
 * for. */
static err by_sizes(const struct op_node *n, const int64_t *sizes, const int *axes, int count,
                    struct tensor_shape *s)
{
    const char *policy = op_attr_string(n, "keep_aspect_ratio_policy", "stretch");
    bool larger = strcmp(policy, "not_smaller") == 0, keep = larger || strcmp(policy, "not_larger") == 0;
    float scale = 0;
    if (!keep && strcmp(policy, "stretch") != 0)
        return err_set(ERR_SHAPE, "keep_aspect_ratio_policy is '%.32s'", policy);
    for (int i = 0; i < count; i++) {
        int64_t from = s->dims[axes[i]];
        if (sizes[i] < 0 || (from == 0 && sizes[i] > 0))
            return err_set(ERR_SHAPE, "axis %d from the size %lld to %lld", axes[i], (long long)from,
                           (long long)sizes[i]);
        if (keep && from == 0) return err_set(ERR_SHAPE, "axis %d is empty and has no ratio", axes[i]);
        float f = keep ? (float)sizes[i] / (float)from : 1;
        if (i == 0 || (larger ? f > scale : f < scale)) scale = f;
    }
    for (int i = 0; i < count; i++) {
        int64_t *d = &s->dims[axes[i]];
        float r = roundf((float)*d * scale);
        if (keep && !(r < 0x1p47f))
            return err_set(ERR_SHAPE, "the size %lld times %g", (long long)*d, (double)scale);
        *d = keep ? (int64_t)r : sizes[i];
    }
    return ERR_OK;
}

/* Opset 10: X, scales. 11 and up: X, roi, scales, sizes; one of the last two is absent or empty. */
err op_rule_resize(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    struct tensor_shape s = in[0].shape;
    float scales[TENSOR_MAX_RANK];
    int64_t sizes[TENSOR_MAX_RANK];
    int axes[TENSOR_MAX_RANK], count = 0, ns = 0, nz = 0, at = n->opset < 11 ? 1 : 2;
    err e = resize_axes(n, s.rank, axes, &count);
    if (!e && op_present(n, in, at) && tensor_count(&in[at].shape))
        e = op_constant_floats(&in[at], at, "scales", scales, TENSOR_MAX_RANK, &ns);
    if (!e && op_present(n, in, 3) && tensor_count(&in[3].shape))
        e = op_constant_ints(&in[3], 3, "sizes", sizes, TENSOR_MAX_RANK, &nz);
    if (e) return e;
    if (!ns == !nz) return err_set(ERR_SHAPE, "one of scales and sizes must be given");
    if ((ns ? ns : nz) != count)
        return err_set(ERR_SHAPE, "%d scales or sizes for %d axes", ns ? ns : nz, count);
    e = ns ? by_scales(scales, axes, count, &s) : by_sizes(n, sizes, axes, count, &s);
    out[0].dtype = in[0].dtype;
    out[0].shape = s;
    return e;
}

/* Opset 7: the scales are an attribute; 9: an input. */
err op_rule_upsample(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    struct tensor_shape s = in[0].shape;
    float scales[TENSOR_MAX_RANK];
    int axes[TENSOR_MAX_RANK], count = 0, rank = s.rank;
    err e = ERR_OK;
    if (op_present(n, in, 1)) {
        e = op_constant_floats(&in[1], 1, "scales", scales, TENSOR_MAX_RANK, &count);
    } else {
        const struct op_attr *a = op_attr(n, "scales");
        if (!a || a->type != OP_ATTR_FLOATS) return err_set(ERR_SHAPE, "scales are missing");
        count = (int)MIN(a->n, (size_t)TENSOR_MAX_RANK + 1);
        if (count <= TENSOR_MAX_RANK && count > 0) memcpy(scales, a->floats, (size_t)count * sizeof *scales);
    }
    if (!e && count != rank) e = err_set(ERR_SHAPE, "%d scales for %d axes", count, rank);
    for (int i = 0; i < rank; i++) axes[i] = i;
    if (!e) e = by_scales(scales, axes, count, &s);
    out[0].dtype = in[0].dtype;
    out[0].shape = s;
    return e;
}

/* x [N, C, in...], grid [N, out..., axes] */
err op_rule_grid_sample(const struct op_node *n, const struct op_info *in, struct op_info *out)
{
    const struct tensor_shape *x = &in[0].shape, *grid = &in[1].shape;
    bool bounded;
    int64_t batch;
    (void)n;
    err e = op_want_rank_from(in, 0, 3);
    if (!e) e = op_want_rank(in, 1, x->rank);
    if (!e) e = op_agree(x, 0, grid, 0, &batch, &bounded);
    if (!e && grid->dims[x->rank - 1] != x->rank - 2)
        e = err_set(ERR_SHAPE, "the last axis of input 1 (grid) has the size %lld, not %d",
                    (long long)grid->dims[x->rank - 1], x->rank - 2);
    if (!e) e = op_push(&out[0].shape, batch, bounded);
    if (!e) e = op_push_range(&out[0].shape, x, 1, 2);
    if (!e) e = op_push_range(&out[0].shape, grid, 1, x->rank - 1);
    out[0].dtype = in[0].dtype;
    return e;
}
