/* Detectors without anchors. YOLOX (Ge et al., 2021) as its authors' code has it: nano (separable convolutions), tiny, s. And one of our own for small
 * processors, `brimdet`: inverted residuals, a thin pyramid, one head of separable convolutions per level; about 0.3 GFLOP at 320 x 320. `brimpoint` has its
 * body and CenterNet's head.
 *
 * Output of all but the last: [1, points, 5 + classes], level by level (strides 8, 16, 32), row by row: centre and size as YOLOX codes them, objectness and
 * classes after a sigmoid. SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo_build.h"

struct shape_of_net {
    double depth, width;
    bool separable;
};

/* ---- YOLOX */

static int base(struct zoo *z, int x, int out, int kernel, int stride, int group)
{
    return zoo_conv(z, x, (struct zoo_conv){.out = out, .kernel = kernel, .stride = stride, .pad = kernel / 2, .group = group, .norm = true, .act = OP_SILU});
}

static int conv(struct zoo *z, const struct shape_of_net *n, int x, int out, int kernel, int stride)
{
    if (!n->separable) return base(z, x, out, kernel, stride, 1);
    return base(z, base(z, x, zoo_channels(z, x), kernel, stride, zoo_channels(z, x)), out, 1, 1, 1);
}

/* Cross-stage partial: half of the channels pass `depth` bottlenecks. */
static int csp(struct zoo *z, const struct shape_of_net *n, int x, int out, int depth, bool shortcut)
{
    int half = out / 2, a = base(z, x, half, 1, 1, 1), b = base(z, x, half, 1, 1, 1);
    for (int i = 0; i < depth; i++) {
        int y = conv(z, n, base(z, a, half, 1, 1, 1), half, 3, 1);
        a = shortcut ? zoo_add(z, y, a) : y;
    }
    return base(z, zoo_concat(z, (int[]){a, b}, 2), out, 1, 1, 1);
}

/* Every second pixel of every second row: four pictures of half the size. */
static int focus(struct zoo *z, int x, int out)
{
    static const int at[4][2] = {{0, 0}, {1, 0}, {0, 1}, {1, 1}}; /* row, column */
    int parts[4];
    struct tensor_shape s = zoo_shape(z, x);
    for (int i = 0; i < 4; i++) parts[i] = zoo_slice(z, zoo_slice(z, x, 2, at[i][0], s.dims[2], 2), 3, at[i][1], s.dims[3], 2);
    return base(z, zoo_concat(z, parts, 4), out, 3, 1, 1);
}

static int pyramid_pool(struct zoo *z, int x, int out)
{
    int first = base(z, x, zoo_channels(z, x) / 2, 1, 1, 1);
    int parts[4] = {first, zoo_max_pool(z, first, 5, 1, 2, false), zoo_max_pool(z, first, 9, 1, 4, false), zoo_max_pool(z, first, 13, 1, 6, false)};
    return base(z, zoo_concat(z, parts, 4), out, 1, 1, 1);
}

/* [1, C, H, W] maps, one per level, into one list of points. */
static void points(struct zoo *z, const int maps[3])
{
    int lists[3];
    int64_t n = 0;
    for (int i = 0; i < 3; i++) {
        struct tensor_shape s = zoo_shape(z, maps[i]);
        lists[i] = zoo_reshape(z, maps[i], (struct tensor_shape){.rank = 3, .dims = {-1, s.dims[1], s.dims[2] * s.dims[3]}});
        n += s.dims[2] * s.dims[3];
    }
    struct tensor_shape all = zoo_shape(z, lists[0]);
    all.dims[2] = n;
    int y = zoo_node(z, OP_CONCAT, lists, 3, all);
    if (!z->e) graph_set_int(zoo_last(z), "axis", 2);
    zoo_output(z, zoo_transpose(z, y, (int[]){0, 2, 1}), "output");
}

/* The last layers of both nets. Untrained they say 'nothing here' with 99 %, or the first steps would be spent on learning just that (Lin et al., 2017). */
static const float nothing = -4.59512f; /* sigmoid: 0.01 */

static int predict_classes(struct zoo *z, int x, int classes)
{
    return zoo_start(z, zoo_conv(z, x, (struct zoo_conv){.out = classes, .bias = true}), 1, nothing);
}

static int predict(struct zoo *z, int x, int classified)
{
    int box = zoo_conv(z, x, (struct zoo_conv){.out = 4, .bias = true});
    int object = zoo_start(z, zoo_conv(z, x, (struct zoo_conv){.out = 1, .bias = true}), 1, nothing);
    return zoo_concat(z, (int[]){box, zoo_act(z, object, OP_SIGMOID), zoo_act(z, classified, OP_SIGMOID)}, 3);
}

static int yolox_head(struct zoo *z, const struct shape_of_net *n, int x, int width, int classes)
{
    x = base(z, x, width, 1, 1, 1);
    int c = predict_classes(z, conv(z, n, conv(z, n, x, width, 3, 1), width, 3, 1), classes);
    return predict(z, conv(z, n, conv(z, n, x, width, 3, 1), width, 3, 1), c);
}

static int input_of_32(struct zoo *z, const struct graph_zoo_options *o, int own)
{
    int side = zoo_side(o, own), height = o->height ? o->height : side;
    if (!z->e && (side % 32 || height % 32)) z->e = err_set(ERR_USAGE, "%s: its input's sides are multiples of 32", z->g->name);
    return zoo_input(z, 3, height, side);
}

static void yolox(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const struct shape_of_net nets[] = {{0.33, 0.25, true}, {0.33, 0.375, false}, {0.33, 0.5, false}};
    const struct shape_of_net *n = &nets[variant];
    int w = (int)(64 * n->width), d = MAX((int)(3 * n->depth + 0.5), 1), c3 = 4 * w, c4 = 8 * w, c5 = 16 * w, classes = zoo_classes(o, 80);
    z->eps = 1e-3f;
    int x = focus(z, input_of_32(z, o, variant == 2 ? 640 : 416), w);
    x = csp(z, n, conv(z, n, x, 2 * w, 3, 2), 2 * w, d, true);
    int x2 = csp(z, n, conv(z, n, x, c3, 3, 2), c3, 3 * d, true);
    int x1 = csp(z, n, conv(z, n, x2, c4, 3, 2), c4, 3 * d, true);
    int x0 = csp(z, n, pyramid_pool(z, conv(z, n, x1, c5, 3, 2), c5), c5, d, false);
    int top = base(z, x0, c4, 1, 1, 1);
    int middle = csp(z, n, zoo_concat(z, (int[]){zoo_upsample2(z, top), x1}, 2), c4, d, false);
    middle = base(z, middle, c3, 1, 1, 1);
    int maps[3];
    maps[0] = csp(z, n, zoo_concat(z, (int[]){zoo_upsample2(z, middle), x2}, 2), c3, d, false);
    maps[1] = csp(z, n, zoo_concat(z, (int[]){conv(z, n, maps[0], c3, 3, 2), middle}, 2), c4, d, false);
    maps[2] = csp(z, n, zoo_concat(z, (int[]){conv(z, n, maps[1], c4, 3, 2), top}, 2), c5, d, false);
    for (int i = 0; i < 3; i++) maps[i] = yolox_head(z, n, maps[i], 4 * w, classes);
    points(z, maps);
}

/* ---- our own */

static int plain(struct zoo *z, int x, int out, int kernel, int stride, int group, enum op_kind act)
{
    return zoo_conv(z, x, (struct zoo_conv){.out = out, .kernel = kernel, .stride = stride, .pad = kernel / 2, .group = group, .norm = true, .act = act});
}

static int separable(struct zoo *z, int x, int out, int stride)
{
    return plain(z, plain(z, x, zoo_channels(z, x), 3, stride, zoo_channels(z, x), OP_RELU), out, 1, 1, 1, OP_RELU);
}

static int inverted(struct zoo *z, int x, int out, int stride)
{
    int from = zoo_channels(z, x), y = plain(z, x, 4 * from, 1, 1, 1, OP_RELU);
    y = plain(z, plain(z, y, 4 * from, 3, stride, 4 * from, OP_RELU), out, 1, 1, 1, OP_NONE);
    return stride == 1 && from == out ? zoo_add(z, y, x) : y;
}

/* Levels of strides 4, 8, 16, 32. */
static void our_body(struct zoo *z, int x, int level[4])
{
    static const int widths[4] = {16, 24, 48, 96}, repeats[4] = {1, 2, 3, 2};
    x = plain(z, x, 16, 3, 2, 1, OP_RELU);
    for (int stage = 0; stage < 4; stage++) {
        for (int i = 0; i < repeats[stage]; i++) x = inverted(z, x, widths[stage], i ? 1 : 2);
        level[stage] = x;
    }
}

/* A level and what comes from the coarser one, of `out` channels. */
static int joined(struct zoo *z, int level, int coarser, int out)
{
    int y = plain(z, level, out, 1, 1, 1, OP_RELU);
    return separable(z, zoo_add(z, y, zoo_upsample2(z, coarser)), out, 1);
}

static void brimdet(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    enum { NECK = 56 };
    int maps[3], classes = zoo_classes(o, 80), level[4];
    (void)variant;
    our_body(z, input_of_32(z, o, 320), level);
    maps[2] = plain(z, level[3], NECK, 1, 1, 1, OP_RELU);
    for (int i = 1; i >= 0; i--) maps[i] = joined(z, level[i + 1], maps[i + 1], NECK);
    for (int i = 1; i < 3; i++) maps[i] = separable(z, zoo_add(z, maps[i], separable(z, maps[i - 1], NECK, 2)), NECK, 1);
    for (int i = 0; i < 3; i++) {
        int c = predict_classes(z, separable(z, maps[i], NECK, 1), classes);
        maps[i] = predict(z, separable(z, maps[i], NECK, 1), c);
    }
    points(z, maps);
}

/* The same body, and one head at stride 4 (Zhou et al., "Objects as Points", 2019): a heat map per class, sides in cells, and offsets of
 * centres. The finer the thinner, or the last join would cost more than all before it. */
static void brimpoint(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    enum { NECK = 56, HEAD = 32 };
    int level[4], classes = zoo_classes(o, 80);
    (void)variant;
    our_body(z, input_of_32(z, o, 320), level);
    int x = plain(z, level[3], NECK, 1, 1, 1, OP_RELU);
    x = joined(z, level[2], x, NECK);
    x = plain(z, joined(z, level[1], x, NECK), HEAD, 1, 1, 1, OP_RELU);
    x = joined(z, level[0], x, HEAD);
    int heat = zoo_act(z, predict_classes(z, separable(z, x, HEAD, 1), classes), OP_SIGMOID), y = separable(z, x, HEAD, 1);
    zoo_output(z, heat, "heat");
    zoo_output(z, zoo_conv(z, y, (struct zoo_conv){.out = 2, .bias = true}), "size");
    zoo_output(z, zoo_start(z, zoo_conv(z, y, (struct zoo_conv){.out = 2, .bias = true}), 1, 0.5f), "offset");
}

const struct zoo_entry zoo_yolos[] = {{"yolox-nano", yolox, 0}, {"yolox-tiny", yolox, 1}, {"yolox-s", yolox, 2}, {"brimdet", brimdet, 0}, {"brimpoint", brimpoint, 0}, {NULL, NULL, 0}};
