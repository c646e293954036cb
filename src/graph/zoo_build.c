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

int zoo_constant(struct zoo *z, const char *what, struct tensor_shape shape, enum zoo_filling how, float scale)
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
        f[i] = how == ZOO_ZERO ? 0 : how == ZOO_ONE ? 1 : scale * (how == ZOO_BELL ? bell(&s) : 2 * uniform(&s) - 1);
    return v;
}

/* ---- nodes */

int zoo_node(struct zoo *z, enum op_kind kind, const int *in, int n_in, struct tensor_shape shape)
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

struct graph_node *zoo_last(struct zoo *z)
{
    return &z->g->nodes[z->g->n_nodes - 1];
}

struct tensor_shape zoo_shape(const struct zoo *z, int value)
{
    return z->e ? (struct tensor_shape){.rank = 4, .dims = {1, 1, 1, 1}} : z->g->values[value].shape;
}

static void set4(struct zoo *z, const char *name, int64_t v)
{
    if (!z->e) graph_set_ints(zoo_last(z), name, (int64_t[]){v, v, v, v}, 4);
}

static void set2(struct zoo *z, const char *name, int64_t v)
{
    if (!z->e) graph_set_ints(zoo_last(z), name, (int64_t[]){v, v}, 2);
}

int zoo_input(struct zoo *z, int channels, int height, int width)
{
    struct tensor_shape s = {.rank = 4, .dims = {1, channels, height, width}};
    return z->e ? 0 : graph_add_input(z->g, "input", TENSOR_F32, &s);
}

int zoo_channels(const struct zoo *z, int value)
{
    return (int)zoo_shape(z, value).dims[1];
}

void zoo_sides(const struct zoo *z, int value, int64_t *ret_h, int64_t *ret_w)
{
    struct tensor_shape s = zoo_shape(z, value);
    *ret_h = s.dims[2];
    *ret_w = s.dims[3];
}

int zoo_norm(struct zoo *z, int x)
{
    struct tensor_shape s = zoo_shape(z, x), c = {.rank = 1, .dims = {s.dims[1]}};
    int in[5] = {x, zoo_constant(z, "scale", c, ZOO_ONE, 1), zoo_constant(z, "shift", c, ZOO_ZERO, 0), zoo_constant(z, "running_mean", c, ZOO_ZERO, 0),
                 zoo_constant(z, "running_var", c, ZOO_ONE, 1)};
    int y = zoo_node(z, OP_BATCH_NORM, in, 5, s);
    if (z->eps > 0 && !z->e) graph_set_float(zoo_last(z), "epsilon", z->eps);
    return y;
}

int zoo_act(struct zoo *z, int x, enum op_kind kind)
{
    if (kind == OP_NONE) return x;
    int in[3] = {x};
    if (kind == OP_CLIP) {
        struct tensor_shape scalar = {0};
        in[1] = zoo_constant(z, "low", scalar, ZOO_ZERO, 0);
        in[2] = zoo_constant(z, "high", scalar, ZOO_ONE, 1);
        if (!z->e) *(float *)z->g->values[in[2]].owned = 6;
        return zoo_node(z, kind, in, 3, zoo_shape(z, x));
    }
    if (kind == OP_SILU) { /* as two nodes that ONNX knows; the engine makes one of them again */
        in[1] = zoo_node(z, OP_SIGMOID, in, 1, zoo_shape(z, x));
        return zoo_node(z, OP_MUL, in, 2, zoo_shape(z, x));
    }
    int y = zoo_node(z, kind, in, 1, zoo_shape(z, x));
    if (kind == OP_HARD_SIGMOID && !z->e) graph_set_float(zoo_last(z), "alpha", 1 / 6.0f);
    if (kind == OP_LEAKY_RELU && !z->e) graph_set_float(zoo_last(z), "alpha", 0.1f);
    return y;
}

void zoo_too_small(struct zoo *z)
{
    if (!z->e) z->e = err_set(ERR_USAGE, "%s: the input is too small for this network", z->g->name);
}

int zoo_conv(struct zoo *z, int x, struct zoo_conv c)
{
    int k = c.kernel ? c.kernel : 1, kw = c.kernel_w ? c.kernel_w : k, stride = c.stride ? c.stride : 1, group = c.group ? c.group : 1;
    int pad_w = c.kernel_w ? c.pad_w : c.pad, dilation = c.dilation ? c.dilation : 1;
    struct tensor_shape s = zoo_shape(z, x), w = {.rank = 4, .dims = {c.out, s.dims[1] / group, k, kw}}, b = {.rank = 1, .dims = {c.out}};
    float fan = (float)(s.dims[1] / group * k * kw);
    int in[3] = {x, zoo_constant(z, "weight", w, ZOO_BELL, sqrtf(2 / fan))};
    if (c.bias) in[2] = zoo_constant(z, "bias", b, ZOO_UNIFORM, 1 / sqrtf(fan));
    int64_t h = s.dims[2] + 2 * c.pad - dilation * (k - 1) - 1, wide = s.dims[3] + 2 * pad_w - dilation * (kw - 1) - 1;
    struct tensor_shape y = {.rank = 4, .dims = {s.dims[0], c.out, h / stride + 1, wide / stride + 1}};
    if (h < 0 || wide < 0) zoo_too_small(z);
    int v = zoo_node(z, OP_CONV, in, c.bias ? 3 : 2, y);
    if (!z->e) graph_set_ints(zoo_last(z), "kernel_shape", (int64_t[]){k, kw}, 2);
    set2(z, "strides", stride);
    if (!z->e) graph_set_ints(zoo_last(z), "pads", (int64_t[]){c.pad, pad_w, c.pad, pad_w}, 4);
    if (dilation > 1) set2(z, "dilations", dilation);
    if (!z->e && group > 1) graph_set_int(zoo_last(z), "group", group);
    if (c.norm) v = zoo_norm(z, v);
    return zoo_act(z, v, c.act);
}

int zoo_start(struct zoo *z, int x, float gain, float bias)
{
    if (z->e) return x;
    const struct op_node *n = &zoo_last(z)->op;
    const struct graph_value *w = &z->g->values[n->in[1]], *b = &z->g->values[n->in[2]];
    for (int64_t i = 0, count = tensor_count(&w->shape); i < count; i++) ((float *)w->owned)[i] *= gain;
    for (int64_t i = 0; i < b->shape.dims[0]; i++) ((float *)b->owned)[i] = bias;
    return x;
}

int zoo_dropout(struct zoo *z, int x, float ratio)
{
    int given = zoo_constant(z, "ratio", (struct tensor_shape){.rank = 0}, ZOO_ZERO, 0);
    if (!z->e) *(float *)z->g->values[given].owned = ratio;
    int y = zoo_node(z, OP_DROPOUT, (int[]){x, given}, 2, zoo_shape(z, x));
    if (!z->e) z->count--;
    return y;
}

int zoo_add(struct zoo *z, int a, int b)
{
    return zoo_node(z, OP_ADD, (int[]){a, b}, 2, zoo_shape(z, a));
}

int zoo_concat(struct zoo *z, const int *xs, int n)
{
    struct tensor_shape s = zoo_shape(z, xs[0]);
    for (int i = 1; i < n; i++) s.dims[1] += zoo_shape(z, xs[i]).dims[1];
    int v = zoo_node(z, OP_CONCAT, xs, n, s);
    if (!z->e) graph_set_int(zoo_last(z), "axis", 1);
    return v;
}

int zoo_max_pool(struct zoo *z, int x, int kernel, int stride, int pad, bool ceil)
{
    struct tensor_shape s = zoo_shape(z, x);
    for (int i = 2; i < 4; i++) {
        int64_t from = s.dims[i];
        if (from + 2 * pad < kernel) zoo_too_small(z);
        s.dims[i] = (from + 2 * pad - kernel + (ceil ? stride - 1 : 0)) / stride + 1;
        if (ceil && (s.dims[i] - 1) * stride >= from + pad) s.dims[i]--; /* no window begins in the padding */
    }
    int v = zoo_node(z, OP_MAX_POOL, &x, 1, s);
    set2(z, "kernel_shape", kernel);
    set2(z, "strides", stride);
    set4(z, "pads", pad);
    if (!z->e && ceil) graph_set_int(zoo_last(z), "ceil_mode", 1);
    return v;
}

int zoo_avg_pool_to(struct zoo *z, int x, int side)
{
    struct tensor_shape s = zoo_shape(z, x);
    int kernel = (int)(s.dims[2] / side);
    if (!z->e && side > 1 && (s.dims[2] % side || s.dims[3] != s.dims[2]))
        z->e = err_set(ERR_USAGE, "%s: its last pooling takes inputs of %d pixels or a multiple", z->g->name, side * 32);
    s.dims[2] = s.dims[3] = side;
    if (side == 1) return zoo_node(z, OP_GLOBAL_AVERAGE_POOL, &x, 1, s);
    if (kernel == 1) return x;
    int v = zoo_node(z, OP_AVERAGE_POOL, &x, 1, s);
    set2(z, "kernel_shape", kernel);
    set2(z, "strides", kernel);
    return v;
}

int zoo_flatten(struct zoo *z, int x)
{
    struct tensor_shape s = zoo_shape(z, x), y = {.rank = 2, .dims = {1, s.dims[1] * s.dims[2] * s.dims[3]}};
    return zoo_node(z, OP_FLATTEN, &x, 1, y);
}

int zoo_linear(struct zoo *z, int x, int out)
{
    struct tensor_shape s = zoo_shape(z, x), w = {.rank = 2, .dims = {out, s.dims[1]}}, b = {.rank = 1, .dims = {out}};
    float scale = 1 / sqrtf((float)s.dims[1]);
    int in[3] = {x, zoo_constant(z, "weight", w, ZOO_UNIFORM, scale), zoo_constant(z, "bias", b, ZOO_UNIFORM, scale)};
    int v = zoo_node(z, OP_GEMM, in, 3, (struct tensor_shape){.rank = 2, .dims = {1, out}});
    if (!z->e) graph_set_int(zoo_last(z), "transB", 1);
    return v;
}

int zoo_upsample2(struct zoo *z, int x)
{
    struct tensor_shape s = zoo_shape(z, x), four = {.rank = 1, .dims = {4}};
    int scales = zoo_constant(z, "scales", four, ZOO_ONE, 1);
    if (!z->e) ((float *)z->g->values[scales].owned)[2] = ((float *)z->g->values[scales].owned)[3] = 2;
    s.dims[2] *= 2;
    s.dims[3] *= 2;
    int v = zoo_node(z, OP_RESIZE, (int[]){x, -1, scales}, 3, s);
    if (z->e) return 0;
    graph_set_string(zoo_last(z), "mode", "nearest");
    graph_set_string(zoo_last(z), "coordinate_transformation_mode", "asymmetric");
    graph_set_string(zoo_last(z), "nearest_mode", "floor");
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
