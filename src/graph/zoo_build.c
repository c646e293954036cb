/* The bricks of the zoo: each adds nodes and knows the shape of what it makes.
 * Invariant: once e is set nothing is added any more and every function returns 0. SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo_build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- numbers from the seed: the same on every machine */

static uint64_t draw(uint64_t *s)
{
    uint64_t x = *s += 0x9e3779b97f4a7c15u; /* SplitMix64 (Steele, Lea, Flood, 2014) */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static float uniform(uint64_t *s)
{
    return (float)(draw(s) >> 40) / (float)(1 << 24);
}

/* Near enough to normal for a start: the sum of four uniform numbers, scaled to variance 1. */
static float bell(uint64_t *s)
{
    return (uniform(s) + uniform(s) + uniform(s) + uniform(s) - 2.0f) * 1.7320508f;
}

enum filling { BELL, UNIFORM, ZERO, ONE };

static int constant(struct zoo *z, const char *what, struct tensor_shape shape, enum filling how, float scale)
{
    char name[64];
    float *f;
    int v;
    if (z->e) return 0;
    snprintf(name, sizeof name, "n%d.%s", z->count, what);
    if ((z->e = graph_add_constant(z->g, name, TENSOR_F32, &shape, &v, (void **)&f))) return 0;
    int64_t n = tensor_count(&shape);
    uint64_t s = z->seed ^ hash64(name, strlen(name), 7);
    for (int64_t i = 0; i < n; i++)
        f[i] = how == ZERO ? 0 : how == ONE ? 1 : scale * (how == BELL ? bell(&s) : 2 * uniform(&s) - 1);
    return v;
}

/* ---- nodes */

static int node(struct zoo *z, enum op_kind kind, const int *in, int n_in, struct tensor_shape shape)
{
    char name[64];
    if (z->e) return 0;
    snprintf(name, sizeof name, "n%d.%s", z->count++, op_name(kind));
    int out = graph_add_value(z->g, name, TENSOR_F32, &shape);
    struct graph_node *n = graph_add_node(z->g, kind, name, n_in, 1);
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    n->op.out[0] = out;
    return out;
}

static struct graph_node *last(struct zoo *z)
{
    return &z->g->nodes[z->g->n_nodes - 1];
}

static struct tensor_shape shape_of(const struct zoo *z, int value)
{
    return z->e ? (struct tensor_shape){.rank = 4, .dims = {1, 1, 1, 1}} : z->g->values[value].shape;
}

static void set4(struct zoo *z, const char *name, int64_t v)
{
    if (!z->e) graph_set_ints(last(z), name, (int64_t[]){v, v, v, v}, 4);
}

static void set2(struct zoo *z, const char *name, int64_t v)
{
    if (!z->e) graph_set_ints(last(z), name, (int64_t[]){v, v}, 2);
}

int zoo_input(struct zoo *z, int channels, int height, int width)
{
    struct tensor_shape s = {.rank = 4, .dims = {1, channels, height, width}};
    return z->e ? 0 : graph_add_input(z->g, "input", TENSOR_F32, &s);
}

int zoo_channels(const struct zoo *z, int value)
{
    return (int)shape_of(z, value).dims[1];
}

void zoo_sides(const struct zoo *z, int value, int64_t *ret_h, int64_t *ret_w)
{
    struct tensor_shape s = shape_of(z, value);
    *ret_h = s.dims[2];
    *ret_w = s.dims[3];
}

static int norm(struct zoo *z, int x)
{
    struct tensor_shape s = shape_of(z, x), c = {.rank = 1, .dims = {s.dims[1]}};
    int in[5] = {x, constant(z, "scale", c, ONE, 1), constant(z, "shift", c, ZERO, 0), constant(z, "running_mean", c, ZERO, 0),
                 constant(z, "running_var", c, ONE, 1)};
    return node(z, OP_BATCH_NORM, in, 5, s);
}

int zoo_act(struct zoo *z, int x, enum op_kind kind)
{
    if (kind == OP_NONE) return x;
    int in[3] = {x};
    if (kind == OP_CLIP) {
        struct tensor_shape scalar = {0};
        in[1] = constant(z, "low", scalar, ZERO, 0);
        in[2] = constant(z, "high", scalar, ONE, 1);
        if (!z->e) *(float *)z->g->values[in[2]].owned = 6;
        return node(z, kind, in, 3, shape_of(z, x));
    }
    int y = node(z, kind, in, 1, shape_of(z, x));
    if (kind == OP_LEAKY_RELU && !z->e) graph_set_float(last(z), "alpha", 0.1f);
    return y;
}

int zoo_conv(struct zoo *z, int x, struct zoo_conv c)
{
    int k = c.kernel ? c.kernel : 1, stride = c.stride ? c.stride : 1, group = c.group ? c.group : 1;
    struct tensor_shape s = shape_of(z, x), w = {.rank = 4, .dims = {c.out, s.dims[1] / group, k, k}}, b = {.rank = 1, .dims = {c.out}};
    float fan = (float)(s.dims[1] / group * k * k);
    int in[3] = {x, constant(z, "weight", w, BELL, sqrtf(2 / fan))};
    if (c.bias) in[2] = constant(z, "bias", b, UNIFORM, 1 / sqrtf(fan));
    struct tensor_shape y = {.rank = 4, .dims = {1, c.out, (s.dims[2] + 2 * c.pad - k) / stride + 1, (s.dims[3] + 2 * c.pad - k) / stride + 1}};
    int v = node(z, OP_CONV, in, c.bias ? 3 : 2, y);
    set2(z, "kernel_shape", k);
    set2(z, "strides", stride);
    set4(z, "pads", c.pad);
    if (!z->e && group > 1) graph_set_int(last(z), "group", group);
    if (c.norm) v = norm(z, v);
    return zoo_act(z, v, c.act);
}

int zoo_add(struct zoo *z, int a, int b)
{
    return node(z, OP_ADD, (int[]){a, b}, 2, shape_of(z, a));
}

int zoo_concat(struct zoo *z, const int *xs, int n)
{
    struct tensor_shape s = shape_of(z, xs[0]);
    for (int i = 1; i < n; i++) s.dims[1] += shape_of(z, xs[i]).dims[1];
    int v = node(z, OP_CONCAT, xs, n, s);
    if (!z->e) graph_set_int(last(z), "axis", 1);
    return v;
}

int zoo_max_pool(struct zoo *z, int x, int kernel, int stride, int pad, bool ceil)
{
    struct tensor_shape s = shape_of(z, x);
    for (int i = 2; i < 4; i++) s.dims[i] = (s.dims[i] + 2 * pad - kernel + (ceil ? stride - 1 : 0)) / stride + 1;
    int v = node(z, OP_MAX_POOL, &x, 1, s);
    set2(z, "kernel_shape", kernel);
    set2(z, "strides", stride);
    set4(z, "pads", pad);
    if (!z->e && ceil) graph_set_int(last(z), "ceil_mode", 1);
    return v;
}

int zoo_avg_pool_to(struct zoo *z, int x, int side)
{
    struct tensor_shape s = shape_of(z, x);
    int kernel = (int)(s.dims[2] / side);
    s.dims[2] = s.dims[3] = side;
    if (side == 1) return node(z, OP_GLOBAL_AVERAGE_POOL, &x, 1, s);
    if (kernel == 1) return x;
    int v = node(z, OP_AVERAGE_POOL, &x, 1, s);
    set2(z, "kernel_shape", kernel);
    set2(z, "strides", kernel);
    return v;
}

int zoo_flatten(struct zoo *z, int x)
{
    struct tensor_shape s = shape_of(z, x), y = {.rank = 2, .dims = {1, s.dims[1] * s.dims[2] * s.dims[3]}};
    return node(z, OP_FLATTEN, &x, 1, y);
}

int zoo_linear(struct zoo *z, int x, int out)
{
    struct tensor_shape s = shape_of(z, x), w = {.rank = 2, .dims = {out, s.dims[1]}}, b = {.rank = 1, .dims = {out}};
    float scale = 1 / sqrtf((float)s.dims[1]);
    int in[3] = {x, constant(z, "weight", w, UNIFORM, scale), constant(z, "bias", b, UNIFORM, scale)};
    int v = node(z, OP_GEMM, in, 3, (struct tensor_shape){.rank = 2, .dims = {1, out}});
    if (!z->e) graph_set_int(last(z), "transB", 1);
    return v;
}

int zoo_upsample2(struct zoo *z, int x)
{
    struct tensor_shape s = shape_of(z, x), four = {.rank = 1, .dims = {4}};
    int scales = constant(z, "scales", four, ONE, 1);
    if (!z->e) ((float *)z->g->values[scales].owned)[2] = ((float *)z->g->values[scales].owned)[3] = 2;
    s.dims[2] *= 2;
    s.dims[3] *= 2;
    int v = node(z, OP_RESIZE, (int[]){x, -1, scales}, 3, s);
    if (z->e) return 0;
    graph_set_string(last(z), "mode", "nearest");
    graph_set_string(last(z), "coordinate_transformation_mode", "asymmetric");
    graph_set_string(last(z), "nearest_mode", "floor");
    return v;
}

void zoo_output(struct zoo *z, int x, const char *name)
{
    if (z->e) return;
    int v = graph_add_value(z->g, name, TENSOR_F32, &z->g->values[x].shape);
    struct graph_node *n = graph_add_node(z->g, OP_IDENTITY, name, 1, 1);
    n->op.in[0] = x;
    n->op.out[0] = v;
    graph_add_output(z->g, v);
}
