/* The zoo's bricks that only move numbers, and a few small ones. SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo_build.h"

#include <stdlib.h>
#include <string.h>

static int integers(struct zoo *z, const int64_t *v, int n)
{
    char name[64];
    int64_t *p;
    int value;
    struct tensor_shape s = {.rank = 1, .dims = {n}};
    if (z->e) return 0;
    snprintf(name, sizeof name, "n%d.ints%zu", z->count, z->g->n_values);
    if ((z->e = graph_add_constant(z->g, name, TENSOR_I64, &s, &value, (void **)&p))) return 0;
    memcpy(p, v, (size_t)n * sizeof *v);
    return value;
}

int zoo_count(struct zoo *z, int n)
{
    int64_t *v = xnewn(int64_t, (size_t)n);
    for (int i = 0; i < n; i++) v[i] = i;
    int value = integers(z, v, n);
    free(v);
    return value;
}

int zoo_number(struct zoo *z, float v)
{
    char name[64];
    float *p;
    int value;
    struct tensor_shape s = {0};
    if (z->e) return 0;
    snprintf(name, sizeof name, "n%d.number%zu", z->count, z->g->n_values);
    if ((z->e = graph_add_constant(z->g, name, TENSOR_F32, &s, &value, (void **)&p))) return 0;
    *p = v;
    return value;
}

int zoo_mul(struct zoo *z, int a, int b)
{
    return zoo_node(z, OP_MUL, (int[]){a, b}, 2, zoo_shape(z, a));
}

int zoo_avg_pool(struct zoo *z, int x, int kernel, int stride, int pad)
{
    struct tensor_shape s = zoo_shape(z, x);
    if (MIN(s.dims[2], s.dims[3]) + 2 * pad < kernel) zoo_too_small(z);
    for (int i = 2; i < 4; i++) s.dims[i] = (s.dims[i] + 2 * pad - kernel) / stride + 1;
    int v = zoo_node(z, OP_AVERAGE_POOL, &x, 1, s);
    if (z->e) return 0;
    graph_set_ints(zoo_last(z), "kernel_shape", (int64_t[]){kernel, kernel}, 2);
    graph_set_ints(zoo_last(z), "strides", (int64_t[]){stride, stride}, 2);
    graph_set_ints(zoo_last(z), "pads", (int64_t[]){pad, pad, pad, pad}, 4);
    if (pad) graph_set_int(zoo_last(z), "count_include_pad", 1);
    return v;
}

int zoo_reshape(struct zoo *z, int x, struct tensor_shape to)
{
    int in[2] = {x, integers(z, to.dims, to.rank)};
    struct tensor_shape s = zoo_shape(z, x);
    int64_t rest = tensor_count(&s);
    for (int i = 0; i < to.rank; i++)
        if (to.dims[i] > 0) rest /= to.dims[i];
    for (int i = 0; i < to.rank; i++)
        if (to.dims[i] < 0) to.dims[i] = rest;
    return zoo_node(z, OP_RESHAPE, in, 2, to);
}

int zoo_transpose(struct zoo *z, int x, const int *order)
{
    if (z->e) return x; /* whose shape is not what `order` was written for */
    struct tensor_shape s = zoo_shape(z, x), y = s;
    int64_t perm[TENSOR_MAX_RANK];
    for (int i = 0; i < s.rank; i++) {
        y.dims[i] = s.dims[order[i]];
        perm[i] = order[i];
    }
    int v = zoo_node(z, OP_TRANSPOSE, &x, 1, y);
    if (!z->e) graph_set_ints(zoo_last(z), "perm", perm, (size_t)s.rank);
    return v;
}

int zoo_pad_channels(struct zoo *z, int x, int each_side)
{
    struct tensor_shape s = zoo_shape(z, x);
    s.dims[1] += 2 * each_side;
    return zoo_node(z, OP_PAD, (int[]){x, integers(z, (int64_t[]){0, each_side, 0, 0, 0, each_side, 0, 0}, 8)}, 2, s);
}

int zoo_slice(struct zoo *z, int x, int axis, int64_t from, int64_t to, int64_t step)
{
    struct tensor_shape s = zoo_shape(z, x);
    int in[5] = {x, integers(z, &from, 1), integers(z, &to, 1), integers(z, (int64_t[]){axis}, 1), integers(z, &step, 1)};
    s.dims[axis] = (MIN(to, s.dims[axis]) - from + step - 1) / step;
    return zoo_node(z, OP_SLICE, in, step == 1 ? 4 : 5, s);
}
