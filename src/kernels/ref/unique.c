/* Unique: what is there once, with the place of the first, the way back, and how often.
 *
 * Each slice along the axis (each element, without one) becomes a row of ordered keys; a stable merge sort of the slices brings
 * equal ones together, so that the first of a run is the first of the data. NaN equals NaN, as in NumPy.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <string.h>

struct unique {
    int axis; /* -1: none */
    int64_t n, width, found; /* slices, keys in each, different ones */
    uint64_t *keys;
    int64_t *order, *other; /* slices in order */
    int64_t *first, *count; /* per run, in order of the keys */
    int64_t *run, *place;   /* run of a slice; place of a run in the output */
};

static err read_axis(const struct ref_call *c, int *ret)
{
    *ret = -1;
    if (!op_attr(c->node, "axis")) return ERR_OK;
    return ref_axis(op_attr_int(c->node, "axis", 0), c->in[0].shape.rank, ret);
}

static int64_t slices_of(const struct tensor_shape *s, int axis)
{
    return axis < 0 ? tensor_count(s) : s->dims[axis];
}

size_t ref_unique_scratch(const struct ref_call *c)
{
    int axis;
    if (read_axis(c, &axis)) return 0;
    return REF_ALIGN(tensor_count(&c->in[0].shape) * 8) + 6 * REF_ALIGN(slices_of(&c->in[0].shape, axis) * 8);
}

static int compare(const struct unique *u, int64_t a, int64_t b)
{
    const uint64_t *x = u->keys + a * u->width, *y = u->keys + b * u->width;
    for (int64_t i = 0; i < u->width; i++)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}

static void fill_keys(struct unique *u, const struct tensor *x)
{
    struct tensor_shape slice = x->shape;
    int64_t index[TENSOR_MAX_RANK] = {0};
    if (u->axis >= 0) slice.dims[u->axis] = 1;
    if (tensor_count(&x->shape) == 0) return;
    for (int64_t k = 0, rest = u->axis < 0 ? 1 : u->n; k < rest; k++) {
        int64_t column = 0;
        do {
            int64_t at = 0;
            for (int i = 0; i < x->shape.rank; i++)
                at += (i == u->axis ? k : index[i]) * x->strides[i];
            u->keys[k * u->width + column++] = ref_key_at(x, at);
        } while (ref_next(x->shape.rank, slice.dims, index));
    }
}

static void sort(struct unique *u)
{
    for (int64_t i = 0; i < u->n; i++)
        u->order[i] = i;
    for (int64_t width = 1; width < u->n; width *= 2) {
        for (int64_t i = 0; i < u->n; i += 2 * width) {
            int64_t left = i, middle = MIN(i + width, u->n), right = middle, end = MIN(i + 2 * width, u->n);
            for (int64_t k = i; k < end; k++)
                u->other[k] = left < middle && (right >= end || compare(u, u->order[left], u->order[right]) <= 0) ? u->order[left++]
                                                                                                                : u->order[right++];
        }
        int64_t *t = u->order;
        u->order = u->other;
        u->other = t;
    }
}

static void find_runs(struct unique *u, bool sorted)
{
    u->found = 0;
    for (int64_t i = 0; i < u->n; i++) {
        if (i == 0 || compare(u, u->order[i - 1], u->order[i])) {
            u->first[u->found] = u->order[i];
            u->count[u->found] = 0;
            u->place[u->found] = u->found;
            u->found++;
        }
        u->count[u->found - 1]++;
        u->run[u->order[i]] = u->found - 1;
    }
    for (int64_t i = 0, met = 0; i < u->n && !sorted; i++)
        if (u->first[u->run[i]] == i) u->place[u->run[i]] = met++;
}

static void put_slices(const struct unique *u, const struct tensor *y, const struct tensor *x)
{
    int64_t size = ref_size(x), index[TENSOR_MAX_RANK] = {0};
    struct tensor_shape slice = x->shape;
    if (u->axis >= 0) slice.dims[u->axis] = 1;
    for (int64_t r = 0; r < u->found; r++) {
        if (u->axis < 0) {
            memcpy((char *)y->data + u->place[r] * y->strides[0] * size,
                   (const char *)x->data + ref_offset(x, u->first[r]) * size, (size_t)size);
            continue;
        }
        if (tensor_count(&slice) == 0) continue;
        do {
            int64_t from = 0, to = 0;
            for (int i = 0; i < x->shape.rank; i++) {
                from += (i == u->axis ? u->first[r] : index[i]) * x->strides[i];
                to += (i == u->axis ? u->place[r] : index[i]) * y->strides[i];
            }
            memcpy((char *)y->data + to * size, (const char *)x->data + from * size, (size_t)size);
        } while (ref_next(x->shape.rank, slice.dims, index));
    }
}

static void put_index(const struct ref_call *c, int i, int64_t at, int64_t v)
{
    ((int64_t *)c->out[i].data)[at * c->out[i].strides[0]] = v;
}

err ref_unique(struct ref_call *c)
{
    const struct tensor *x = &c->in[0];
    struct unique u = {0};
    err e = read_axis(c, &u.axis);
    if (e) return e;
    u.n = slices_of(&x->shape, u.axis);
    u.width = u.axis < 0 || u.n == 0 ? 1 : tensor_count(&x->shape) / u.n;
    u.keys = ref_scratch(c, (size_t)tensor_count(&x->shape) * 8);
    int64_t **lists[] = {&u.order, &u.other, &u.first, &u.count, &u.run, &u.place};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        *lists[i] = ref_scratch(c, (size_t)u.n * 8);
    fill_keys(&u, x);
    sort(&u);
    find_runs(&u, op_attr_int(c->node, "sorted", 1) != 0);
    put_slices(&u, &c->out[0], x);
    for (int64_t r = 0; r < u.found; r++) {
        if (ref_wants(c, 1)) put_index(c, 1, u.place[r], u.first[r]);
        if (ref_wants(c, 3)) put_index(c, 3, u.place[r], u.count[r]);
    }
    for (int64_t i = 0; i < u.n && ref_wants(c, 2); i++)
        put_index(c, 2, i, u.place[u.run[i]]);
    c->out[0].shape.dims[MAX(u.axis, 0)] = u.found;
    for (int i = 0; i < c->n_out; i++) {
        if (i == 1 || i == 3) c->out[i].shape.dims[0] = u.found;
        c->out[i].shape.bounded = 0;
    }
    return ERR_OK;
}
