/* Operators that only move elements: each becomes one or a few strided copies. SPDX-License-Identifier:
 * Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"
#include "tensor/small.h"

#include <string.h>

err ref_identity(struct ref_call *c)
{
    if (c->out[0].dtype != c->in[0].dtype || !tensor_shape_equal(&c->out[0].shape, &c->in[0].shape))
        return err_set(ERR_SHAPE, "the output differs from the input in type or shape");
    ref_copy_tensor(&c->out[0], &c->in[0]);
    return ERR_OK;
}

/* The bits stay, their meaning changes. */
err ref_bit_cast(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    if (ref_size(in) != ref_size(out) || !tensor_shape_equal(&in->shape, &out->shape))
        return err_set(ERR_SHAPE, "the output does not fit");
    ref_copy((size_t)ref_size(in), in->shape.rank, in->shape.dims, out->data, out->strides, in->data, in->strides);
    return ERR_OK;
}

/* Casts to float8 that do not saturate, and to powers of two, which have their own ways of rounding. */
static void cast_small(const struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    bool saturate = op_attr_int(c->node, "saturate", 1) != 0;
    const char *how = op_attr_string(c->node, "round_mode", "up");
    for (int64_t i = 0; i < tensor_count(&in->shape); i++) {
        float v = (float)ref_double_at(in, i);
        ((uint8_t *)out->data)[ref_offset(out, i)] =
            out->dtype == TENSOR_F8E8M0 ? tensor_e8m0_code(v, saturate, how) : tensor_small_code(out->dtype, v, saturate);
    }
}

err ref_cast(struct ref_call *c)
{
    enum tensor_dtype to = c->out[0].dtype;
    if (to != c->in[0].dtype && tensor_dtype_is_small(to) && ref_domain(to) == REF_F32) {
        cast_small(c);
        return ERR_OK;
    }
    ref_cast_tensor(&c->out[0], &c->in[0]);
    return ERR_OK;
}

/* Inference: nothing is dropped. */
err ref_dropout(struct ref_call *c)
{
    ref_copy_tensor(&c->out[0], &c->in[0]);
    if (ref_wants(c, 1)) {
        union {
            float f;
            double d;
            int64_t i;
        } one;
        char element[8];
        int64_t number = 1;
        ref_convert(REF_I64, &number, c->out[1].dtype, &one, 1);
        ref_put(c->out[1].dtype, element, 0, 1, &one);
        ref_fill(&c->out[1], element);
    }
    return ERR_OK;
}

/* Sizes that divide both shapes: a view of each exists in the finer of the two, if only strides were dense.
 * Here: copies element runs through the common row-major order, one axis split at a time. */
static err reshape_strided(const struct tensor *out, const struct tensor *in)
{
    int64_t dims[2 * TENSOR_MAX_RANK], ts[2 * TENSOR_MAX_RANK], fs[2 * TENSOR_MAX_RANK];
    int64_t left_in = 1, left_out = 1, n = 0;
    int i = in->shape.rank, o = out->shape.rank;
    int64_t step_in = 0, step_out = 0;
    for (;;) { /* from the last axis: takes the common factor of what is left of the current axes */
        while (left_in == 1 && i > 0) {
            left_in = in->shape.dims[--i];
            step_in = in->strides[i];
        }
        while (left_out == 1 && o > 0) {
            left_out = out->shape.dims[--o];
            step_out = out->strides[o];
        }
        if (left_in == 1 && left_out == 1) break;
        int64_t common = MIN(left_in, left_out);
        if (common < 2 || left_in % common || left_out % common || n == 2 * TENSOR_MAX_RANK) return ERR_AGAIN;
        dims[n] = common;
        fs[n] = step_in;
        ts[n++] = step_out;
        left_in /= common;
        left_out /= common;
        step_in *= common;
        step_out *= common;
    }
    /* up to 16 axes: the outer ones are walked here */
    int64_t index[2 * TENSOR_MAX_RANK] = {0}, size = ref_size(out);
    int inner = (int)MIN(n, TENSOR_MAX_RANK);
    do {
        int64_t a = 0, b = 0;
        for (int64_t k = inner; k < n; k++) {
            a += index[k] * ts[k];
            b += index[k] * fs[k];
        }
        ref_copy((size_t)size, inner, dims, (char *)out->data + a * size, ts,
                 (const char *)in->data + b * size, fs);
    } while (n > inner && ref_next((int)n - inner, dims + inner, index + inner));
    return ERR_OK;
}

/* Reshape, Flatten, Squeeze, Unsqueeze: the same elements in row-major order. */
err ref_reshape(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int64_t n = tensor_count(&in->shape);
    if (n != tensor_count(&out->shape))
        return err_set(ERR_SHAPE, "the shapes differ in the number of elements");
    struct tensor view;
    if (n == 0) return ERR_OK;
    if (tensor_reshape_view(in, &out->shape, &view)) {
        ref_copy_tensor(out, &view);
        return ERR_OK;
    }
    if (tensor_reshape_view(out, &in->shape, &view)) {
        ref_copy_tensor(&view, in);
        return ERR_OK;
    }
    if (reshape_strided(out, in) == ERR_OK) return ERR_OK;
    size_t size = (size_t)ref_size(in);
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)out->data + ref_offset(out, i) * (int64_t)size,
               (const char *)in->data + ref_offset(in, i) * (int64_t)size, size);
    return ERR_OK;
}

err ref_transpose(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    const int64_t *perm = NULL;
    int rank = in->shape.rank;
    size_t n = op_attr_ints(c->node, "perm", &perm);
    if (out->shape.rank != rank || (n && n != (size_t)rank))
        return err_set(ERR_SHAPE, "perm has %zu numbers for %d axes", n, rank);
    int64_t strides[TENSOR_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        int axis = 0;
        err e = ref_axis(n ? perm[i] : rank - 1 - i, rank, &axis);
        if (e) return e;
        if (out->shape.dims[i] != in->shape.dims[axis])
            return err_set(ERR_SHAPE, "perm does not lead to the output's shape");
        strides[i] = in->strides[axis];
    }
    ref_copy((size_t)ref_size(out), rank, out->shape.dims, out->data, out->strides, in->data, strides);
    return ERR_OK;
}

/* A part of `t` along one axis. */
static struct tensor part(const struct tensor *t, int axis, int64_t from, int64_t size)
{
    struct tensor p = *t;
    p.shape.dims[axis] = size;
    if (t->data) p.data = (char *)t->data + from * t->strides[axis] * ref_size(t);
    return p;
}

err ref_concat(struct ref_call *c)
{
    int axis = 0;
    int64_t at = 0;
    err e = ref_axis(op_attr_int(c->node, "axis", 1), c->out[0].shape.rank, &axis);
    for (int i = 0; !e && i < c->n_in; i++) {
        int64_t size = c->in[i].shape.dims[axis];
        if (at + size > c->out[0].shape.dims[axis])
            return err_set(ERR_SHAPE, "the inputs are larger than the output");
        struct tensor to = part(&c->out[0], axis, at, size);
        if (!tensor_shape_equal(&to.shape, &c->in[i].shape))
            return err_set(ERR_SHAPE, "input %d does not fit to the output", i);
        ref_copy_tensor(&to, &c->in[i]);
        at += size;
    }
    return e;
}

err ref_split(struct ref_call *c)
{
    int axis = 0;
    int64_t at = 0;
    err e = ref_axis(op_attr_int(c->node, "axis", 0), c->in[0].shape.rank, &axis);
    for (int i = 0; !e && i < c->n_out; i++) {
        if (!ref_wants(c, i)) return err_set(ERR_UNSUPPORTED, "output %d of a Split is absent", i);
        int64_t size = c->out[i].shape.dims[axis];
        if (at + size > c->in[0].shape.dims[axis])
            return err_set(ERR_SHAPE, "the outputs are larger than the input");
        struct tensor from = part(&c->in[0], axis, at, size);
        ref_copy_tensor(&c->out[i], &from);
        at += size;
    }
    return e;
}

/* Start of a slice that the shape rule has measured already. */
static int64_t clamp_start(int64_t start, int64_t step, int64_t size)
{
    if (start < 0)
        start = start < -size ? 0 : start + size; /* backwards, too: ONNX differs from NumPy here */
    return step < 0 ? MIN(start, size - 1) : MIN(start, size);
}

err ref_slice(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int64_t starts[TENSOR_MAX_RANK], axes[TENSOR_MAX_RANK], steps[TENSOR_MAX_RANK];
    int n, n_axes, n_steps = -1, rank = in->shape.rank;
    err e = ref_ints(c, 1, "starts", starts, TENSOR_MAX_RANK, &n);
    if (!e) e = ref_ints(c, 3, "axes", axes, TENSOR_MAX_RANK, &n_axes);
    if (!e) e = ref_ints(c, 4, "steps", steps, TENSOR_MAX_RANK, &n_steps);
    if (e) return e;
    if (n < 0 || n > rank || (n_axes >= 0 && n_axes != n) || (n_steps >= 0 && n_steps != n))
        return err_set(ERR_SHAPE, "starts, axes and steps differ in number");
    int64_t strides[TENSOR_MAX_RANK], offset = 0;
    memcpy(strides, in->strides, sizeof strides);
    for (int k = 0; k < n; k++) {
        int axis = 0;
        if ((e = ref_axis(n_axes >= 0 ? axes[k] : k, rank, &axis))) return e;
        int64_t step = n_steps >= 0 ? steps[k] : 1, size = in->shape.dims[axis],
                count = out->shape.dims[axis];
        if (step == 0) return err_set(ERR_SHAPE, "a step of 0");
        if (count == 0) return ERR_OK;
        int64_t start = clamp_start(starts[k], step, size),
                last = count > 1 ? start + (count - 1) * MAX(MIN(step, size), -size) : start;
        if (start < 0 || start >= size || last < 0 || last >= size)
            return err_set(ERR_SHAPE, "the slice leaves axis %d", axis);
        offset += start * strides[axis];
        strides[axis] *= count > 1 ? step : 1;
    }
    ref_copy((size_t)ref_size(out), rank, out->shape.dims, out->data, out->strides,
             (const char *)in->data + offset * ref_size(in), strides);
    return ERR_OK;
}

err ref_expand(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int64_t strides[TENSOR_MAX_RANK];
    for (int i = 0; i < out->shape.rank; i++) {
        int k = i - (out->shape.rank - in->shape.rank);
        int64_t size = k < 0 ? 1 : in->shape.dims[k];
        if (size != 1 && size != out->shape.dims[i])
            return err_set(ERR_SHAPE, "axis %d cannot be stretched", i);
        strides[i] = size == 1 ? 0 : in->strides[k];
    }
    ref_copy((size_t)ref_size(out), out->shape.rank, out->shape.dims, out->data, out->strides, in->data,
             strides);
    return ERR_OK;
}

/* One copy of the whole input per tile. */
err ref_tile(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int rank = in->shape.rank;
    int64_t index[TENSOR_MAX_RANK] = {0}, tiles[TENSOR_MAX_RANK];
    if (tensor_count(&out->shape) == 0) return ERR_OK;
    for (int i = 0; i < rank; i++) {
        if (in->shape.dims[i] == 0 || out->shape.dims[i] % in->shape.dims[i])
            return err_set(ERR_SHAPE, "axis %d is no multiple", i);
        tiles[i] = out->shape.dims[i] / in->shape.dims[i];
    }
    do {
        int64_t offset = 0;
        for (int i = 0; i < rank; i++)
            offset += index[i] * in->shape.dims[i] * out->strides[i];
        ref_copy((size_t)ref_size(in), rank, in->shape.dims, (char *)out->data + offset * ref_size(out),
                 out->strides, in->data, in->strides);
    } while (ref_next(rank, tiles, index));
    return ERR_OK;
}

/* ---- Pad */

static const int64_t MOST_PAD = (int64_t)1
                                << 40; /* so that sums and products of pads and sizes stay in range */

enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP };

static int64_t pad_source(int64_t i, int64_t size, enum pad_mode mode)
{
    if (i >= 0 && i < size) return i;
    if (size == 1) return 0;
    switch (mode) {
    case PAD_EDGE:
        return i < 0 ? 0 : size - 1;
    case PAD_WRAP:
        return (i % size + size) % size;
    case PAD_REFLECT: {
        int64_t period = 2 * (size - 1), k = (i % period + period) % period;
        return k < size ? k : period - k;
    }
    case PAD_CONSTANT:
        break;
    }
    return -1;
}

static err pad_mode(const struct op_node *n, enum pad_mode *ret)
{
    static const char *const NAMES[] = {"constant", "reflect", "edge", "wrap"};
    const char *s = op_attr_string(n, "mode", "constant");
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        if (strcmp(s, NAMES[i]) == 0) {
            *ret = (enum pad_mode)i;
            return ERR_OK;
        }
    return err_set(ERR_UNSUPPORTED, "Pad's mode '%.32s'", s);
}

static err pad_begins(const struct ref_call *c, int64_t *begin, int64_t *end)
{
    int64_t pads[2 * TENSOR_MAX_RANK], axes[TENSOR_MAX_RANK];
    int n, n_axes = -1, rank = c->in[0].shape.rank;
    err e = ref_ints(c, 1, "pads", pads, 2 * TENSOR_MAX_RANK, &n);
    if (!e && ref_has(c, 3)) e = ref_ints(c, 3, "axes", axes, TENSOR_MAX_RANK, &n_axes);
    if (e) return e;
    int count = n_axes >= 0 ? n_axes : rank;
    if (n != 2 * count) return err_set(ERR_SHAPE, "%d pads for %d axes", n, count);
    for (int i = 0; i < rank; i++)
        begin[i] = end[i] = 0;
    for (int i = 0; i < 2 * count; i++)
        if (pads[i] > MOST_PAD || pads[i] < -MOST_PAD)
            return err_set(ERR_LIMIT, "a pad of %lld", (long long)pads[i]);
    for (int i = 0; i < count; i++) {
        int axis = 0;
        if ((e = ref_axis(n_axes >= 0 ? axes[i] : i, rank, &axis))) return e;
        begin[axis] = pads[i];
        end[axis] = pads[count + i];
    }
    for (int i = 0; i < rank; i++)
        if (c->in[0].shape.dims[i] + begin[i] + end[i] != c->out[0].shape.dims[i])
            return err_set(ERR_SHAPE, "axis %d: pads do not fit", i);
    return ERR_OK;
}

static void pad_value(const struct ref_call *c, char *element)
{
    int64_t size = ref_size(&c->out[0]);
    memset(element, 0, 8);
    if (ref_has(c, 2) && tensor_count(&c->in[2].shape) > 0 && c->in[2].dtype == c->out[0].dtype) {
        memcpy(element, c->in[2].data, (size_t)size);
    } else if (c->node->opset < 11) {
        double v = (double)op_attr_float(c->node, "value", 0), d;
        ref_convert(REF_F64, &v, c->out[0].dtype, &d, 1);
        ref_put(c->out[0].dtype, element, 0, 1, &d);
    }
}

/* The part of the input that stays, copied to its place. Then each padded axis in turn, whole planes at a
 * time: planes of axis k are copied after axes 0 ... k-1 are complete only along their middle, so corners
 * come out right because every later axis copies all of the earlier ones. */
static void pad_axis(const struct tensor *out, int axis, int64_t first, int64_t size, int64_t begin,
                     enum pad_mode mode, const char *element, const struct tensor_shape *sofar,
                     const int64_t *start)
{
    for (int64_t i = 0; i < out->shape.dims[axis]; i++) {
        if (i >= first && i < first + size) continue;
        struct tensor plane = *out;
        int64_t offset = 0;
        for (int k = 0; k < out->shape.rank; k++) {
            plane.shape.dims[k] = k == axis ? 1 : sofar->dims[k];
            offset += (k == axis ? i : start[k]) * out->strides[k];
        }
        plane.data = (char *)out->data + offset * ref_size(out);
        (void)begin;
        if (mode == PAD_CONSTANT) {
            ref_fill(&plane, element);
            continue;
        }
        struct tensor from = plane;
        int64_t source = pad_source(i - begin, sofar->dims[axis], mode);
        from.data = (char *)plane.data + (source + begin - i) * out->strides[axis] * ref_size(out);
        ref_copy_tensor(&plane, &from);
    }
}

/* Modes that repeat the input where negative pads cut it: element by element, since what is cut may be
 * repeated. */
static void pad_slowly(const struct tensor *out, const struct tensor *in, const int64_t *begin,
                       enum pad_mode mode)
{
    int64_t index[TENSOR_MAX_RANK] = {0};
    size_t size = (size_t)ref_size(out);
    do {
        int64_t to = 0, from = 0;
        for (int i = 0; i < out->shape.rank; i++) {
            to += index[i] * out->strides[i];
            from += pad_source(index[i] - begin[i], in->shape.dims[i], mode) * in->strides[i];
        }
        memcpy((char *)out->data + to * (int64_t)size, (const char *)in->data + from * (int64_t)size, size);
    } while (ref_next(out->shape.rank, out->shape.dims, index));
}

err ref_pad(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int64_t begin[TENSOR_MAX_RANK], end[TENSOR_MAX_RANK], start[TENSOR_MAX_RANK];
    enum pad_mode mode = PAD_CONSTANT;
    char element[8];
    err e = pad_mode(c->node, &mode);
    if (!e) e = pad_begins(c, begin, end);
    if (e || tensor_count(&out->shape) == 0) return e;
    pad_value(c, element);
    int rank = in->shape.rank;
    struct tensor from = *in, to = *out;
    bool cut = false;
    int64_t offset_in = 0, offset_out = 0;
    for (int i = 0; i < rank; i++) {
        cut |= begin[i] < 0 || end[i] < 0;
        int64_t skip = MAX(-begin[i], 0);
        start[i] = MAX(begin[i], 0);
        to.shape.dims[i] = from.shape.dims[i] = MAX(in->shape.dims[i] - skip - MAX(-end[i], 0), 0);
        offset_in += skip * in->strides[i];
        offset_out += start[i] * out->strides[i];
    }
    bool empty = tensor_count(&to.shape) == 0;
    if (empty && mode != PAD_CONSTANT && tensor_count(&in->shape) == 0)
        return err_set(ERR_SHAPE, "there is nothing to repeat");
    if (mode != PAD_CONSTANT && cut) {
        pad_slowly(out, in, begin, mode);
        return ERR_OK;
    }
    if (empty) {
        ref_fill(out, element);
        return ERR_OK;
    }
    from.data = (char *)in->data + offset_in * ref_size(in);
    to.data = (char *)out->data + offset_out * ref_size(out);
    ref_copy_tensor(&to, &from);
    struct tensor_shape sofar = to.shape;
    for (int i = 0; i < rank; i++) {
        pad_axis(out, i, start[i], sofar.dims[i], start[i], mode, element, &sofar, start);
        sofar.dims[i] = out->shape.dims[i];
        start[i] = 0;
    }
    return ERR_OK;
}

/* ---- depth and space */

static err blocks(const struct ref_call *c, const struct tensor *small, const struct tensor *large,
                  int64_t *ret)
{
    int64_t b = op_attr_int(c->node, "blocksize", 0);
    if (small->shape.rank != 4 || b < 1 || small->shape.dims[1] != large->shape.dims[1] * b * b ||
        large->shape.dims[2] != small->shape.dims[2] * b || large->shape.dims[3] != small->shape.dims[3] * b)
        return err_set(ERR_SHAPE, "blocksize %lld does not fit", (long long)b);
    *ret = b;
    return ERR_OK;
}

/* Both as six axes: n, c, h, b, w, b of the large image, and their strides in the small one. */
static void six(const struct tensor *small, const struct tensor *large, int64_t b, bool column_row,
                int64_t *dims, int64_t *s, int64_t *l)
{
    const int64_t *ls = large->strides, *ss = small->strides;
    int64_t depth = large->shape.dims[1];
    const int64_t d[6] = {large->shape.dims[0], depth, small->shape.dims[2], b, small->shape.dims[3], b};
    const int64_t to_large[6] = {ls[0], ls[1], ls[2] * b, ls[2], ls[3] * b, ls[3]};
    const int64_t dcr[6] = {ss[0], ss[1], ss[2], ss[1] * depth * b, ss[3], ss[1] * depth};
    const int64_t crd[6] = {ss[0], ss[1] * b * b, ss[2], ss[1] * b, ss[3], ss[1]};
    memcpy(dims, d, sizeof d);
    memcpy(l, to_large, sizeof to_large);
    memcpy(s, column_row ? crd : dcr, sizeof crd);
}

err ref_depth_to_space(struct ref_call *c)
{
    int64_t b = 0, dims[6], s[6], l[6];
    err e = blocks(c, &c->in[0], &c->out[0], &b);
    if (e) return e;
    six(&c->in[0], &c->out[0], b, strcmp(op_attr_string(c->node, "mode", "DCR"), "CRD") == 0, dims, s, l);
    ref_copy((size_t)ref_size(&c->out[0]), 6, dims, c->out[0].data, l, c->in[0].data, s);
    return ERR_OK;
}

err ref_space_to_depth(struct ref_call *c)
{
    int64_t b = 0, dims[6], s[6], l[6];
    err e = blocks(c, &c->out[0], &c->in[0], &b);
    if (e) return e;
    six(&c->out[0], &c->in[0], b, strcmp(op_attr_string(c->node, "mode", "DCR"), "CRD") == 0, dims, s, l);
    ref_copy((size_t)ref_size(&c->out[0]), 6, dims, c->out[0].data, s, c->in[0].data, l);
    return ERR_OK;
}

/* Row by row of the last two axes: the part outside the triangle is zero. */
err ref_trilu(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int rank = in->shape.rank;
    if (rank < 2) return err_set(ERR_SHAPE, "input 0 has %d axes", rank);
    bool upper = op_attr_int(c->node, "upper", 1) != 0;
    int64_t k = ref_has(c, 1) && tensor_count(&c->in[1].shape) ? ref_int_at(&c->in[1], 0) : 0;
    int64_t rows = in->shape.dims[rank - 2], cols = in->shape.dims[rank - 1], size = ref_size(in);
    k = MAX(MIN(k, cols + 1), -rows - 1);
    static const uint64_t zero = 0;
    int64_t index[TENSOR_MAX_RANK] = {0};
    if (tensor_count(&in->shape) == 0) return ERR_OK;
    do {
        int64_t a = 0, b = 0,
                from = index[rank - 2] + k + (upper ? 0 : 1); /* the first column that the other side has */
        for (int i = 0; i < rank - 1; i++) {
            a += index[i] * out->strides[i];
            b += index[i] * in->strides[i];
        }
        for (int64_t j = 0; j < cols; j++) {
            bool keep = upper ? j >= from : j < from;
            memcpy((char *)out->data + (a + j * out->strides[rank - 1]) * size,
                   keep ? (const char *)in->data + (b + j * in->strides[rank - 1]) * size
                        : (const char *)&zero,
                   (size_t)size);
        }
    } while (ref_next(rank - 1, in->shape.dims, index));
    return ERR_OK;
}
