/* Networks for small machines: MobileNetV3 (Howard et al., 2019), ShuffleNetV2 (Ma et al., 2018), and OSNet (Zhou et al., 2019), which tells
 * people from each other. As torchvision has them; OSNet as deep-person-reid. SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo_mobile.h"

#include <string.h>

/* ---- mobilenetv3 */

static int divisible(int v)
{
    int r = MAX(8, (v + 4) / 8 * 8);
    return r * 10 < v * 9 ? r + 8 : r;
}

/* Squeeze and excitation (Hu et al., 2018). */
static int squeeze(struct zoo *z, int x)
{
    int channels = zoo_channels(z, x), y = zoo_avg_pool_to(z, x, 1);
    y = zoo_conv(z, y, (struct zoo_conv){.out = divisible(channels / 4), .bias = true, .act = OP_RELU});
    return zoo_mul(z, x, zoo_conv(z, y, (struct zoo_conv){.out = channels, .bias = true, .act = OP_HARD_SIGMOID}));
}

int zoo_mobile_block(struct zoo *z, int x, const struct zoo_mobile_row *r, int *ret_expanded)
{
    int from = zoo_channels(z, x), y = x;
    enum op_kind act = r->swish ? OP_HARD_SWISH : OP_RELU;
    if (r->expand != from) y = zoo_conv(z, y, (struct zoo_conv){.out = r->expand, .norm = true, .act = act});
    if (ret_expanded) *ret_expanded = y;
    y = zoo_conv(z, y, (struct zoo_conv){.out = r->expand, .kernel = r->kernel, .pad = r->kernel / 2, .stride = r->stride, .group = r->expand, .norm = true, .act = act});
    if (r->squeeze) y = squeeze(z, y);
    y = zoo_conv(z, y, (struct zoo_conv){.out = r->out, .norm = true});
    return r->stride == 1 && from == r->out ? zoo_add(z, y, x) : y;
}

const struct zoo_mobile_row zoo_mobile_large[15] = {
    {3, 16, 16, 0, 0, 1},  {3, 64, 24, 0, 0, 2},  {3, 72, 24, 0, 0, 1},  {5, 72, 40, 1, 0, 2},   {5, 120, 40, 1, 0, 1},
    {5, 120, 40, 1, 0, 1}, {3, 240, 80, 0, 1, 2}, {3, 200, 80, 0, 1, 1}, {3, 184, 80, 0, 1, 1},  {3, 184, 80, 0, 1, 1},
    {3, 480, 112, 1, 1, 1}, {3, 672, 112, 1, 1, 1}, {5, 672, 160, 1, 1, 2}, {5, 960, 160, 1, 1, 1}, {5, 960, 160, 1, 1, 1}};
static const struct zoo_mobile_row small[11] = {{3, 16, 16, 1, 0, 2},  {3, 72, 24, 0, 0, 2},  {3, 88, 24, 0, 0, 1},  {5, 96, 40, 1, 1, 2},
                                                {5, 240, 40, 1, 1, 1}, {5, 240, 40, 1, 1, 1}, {5, 120, 48, 1, 1, 1}, {5, 144, 48, 1, 1, 1},
                                                {5, 288, 96, 1, 1, 2}, {5, 576, 96, 1, 1, 1}, {5, 576, 96, 1, 1, 1}};

static void mobilenetv3(struct zoo *z, const struct graph_zoo_options *o, int large)
{
    const struct zoo_mobile_row *rows = large ? zoo_mobile_large : small;
    z->eps = 1e-3f;
    int x = zoo_input(z, 3, zoo_side(o, 224), zoo_side(o, 224));
    x = zoo_conv(z, x, (struct zoo_conv){.out = 16, .kernel = 3, .stride = 2, .pad = 1, .norm = true, .act = OP_HARD_SWISH});
    for (int i = 0; i < (large ? 15 : 11); i++) x = zoo_mobile_block(z, x, &rows[i], NULL);
    x = zoo_conv(z, x, (struct zoo_conv){.out = 6 * zoo_channels(z, x), .norm = true, .act = OP_HARD_SWISH});
    x = zoo_flatten(z, zoo_avg_pool_to(z, x, 1));
    x = zoo_act(z, zoo_linear(z, x, large ? 1280 : 1024), OP_HARD_SWISH);
    zoo_output(z, zoo_linear(z, zoo_dropout(z, x, 0.2f), zoo_classes(o, 1000)), "logits");
}

/* ---- shufflenetv2, x1.0 */

/* Channel i of half h becomes channel 2 i + h. */
static int shuffle(struct zoo *z, int x)
{
    struct tensor_shape s = zoo_shape(z, x);
    x = zoo_reshape(z, x, (struct tensor_shape){.rank = 5, .dims = {-1, 2, s.dims[1] / 2, s.dims[2], s.dims[3]}});
    x = zoo_transpose(z, x, (int[]){0, 2, 1, 3, 4});
    return zoo_reshape(z, x, (struct tensor_shape){.rank = 4, .dims = {-1, s.dims[1], s.dims[2], s.dims[3]}});
}

static int shuffle_unit(struct zoo *z, int x, int out, int stride)
{
    int half = out / 2, from = zoo_channels(z, x), a, b = x;
    if (stride == 1) {
        a = zoo_slice(z, x, 1, 0, half, 1);
        b = zoo_slice(z, x, 1, half, out, 1);
    } else {
        a = zoo_conv(z, x, (struct zoo_conv){.out = from, .kernel = 3, .pad = 1, .stride = 2, .group = from, .norm = true});
        a = zoo_conv(z, a, (struct zoo_conv){.out = half, .norm = true, .act = OP_RELU});
    }
    b = zoo_conv(z, b, (struct zoo_conv){.out = half, .norm = true, .act = OP_RELU});
    b = zoo_conv(z, b, (struct zoo_conv){.out = half, .kernel = 3, .pad = 1, .stride = stride, .group = half, .norm = true});
    b = zoo_conv(z, b, (struct zoo_conv){.out = half, .norm = true, .act = OP_RELU});
    return shuffle(z, zoo_concat(z, (int[]){a, b}, 2));
}

static void shufflenetv2(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const int repeats[3] = {4, 8, 4}, widths[3] = {116, 232, 464};
    (void)variant;
    int x = zoo_input(z, 3, zoo_side(o, 224), zoo_side(o, 224));
    x = zoo_conv(z, x, (struct zoo_conv){.out = 24, .kernel = 3, .stride = 2, .pad = 1, .norm = true, .act = OP_RELU});
    x = zoo_max_pool(z, x, 3, 2, 1, false);
    for (int stage = 0; stage < 3; stage++)
        for (int i = 0; i < repeats[stage]; i++) x = shuffle_unit(z, x, widths[stage], i ? 1 : 2);
    x = zoo_conv(z, x, (struct zoo_conv){.out = 1024, .norm = true, .act = OP_RELU});
    zoo_output(z, zoo_linear(z, zoo_flatten(z, zoo_avg_pool_to(z, x, 1)), zoo_classes(o, 1000)), "logits");
}

/* ---- osnet */

static int light(struct zoo *z, int x)
{
    int c = zoo_channels(z, x);
    x = zoo_conv(z, x, (struct zoo_conv){.out = c});
    return zoo_conv(z, x, (struct zoo_conv){.out = c, .kernel = 3, .pad = 1, .group = c, .norm = true, .act = OP_RELU});
}

struct gate {
    int w1, b1, w2, b2;
};

/* One gate for four streams: its weights are shared. */
static int gated(struct zoo *z, int x, struct gate *g)
{
    int c = zoo_channels(z, x), y = zoo_avg_pool_to(z, x, 1);
    struct tensor_shape hidden = {.rank = 4, .dims = {1, MAX(c / 16, 1), 1, 1}}, w1 = {.rank = 4, .dims = {MAX(c / 16, 1), c, 1, 1}};
    struct tensor_shape full = {.rank = 4, .dims = {1, c, 1, 1}}, w2 = {.rank = 4, .dims = {c, MAX(c / 16, 1), 1, 1}};
    struct tensor_shape b1 = {.rank = 1, .dims = {w1.dims[0]}}, b2 = {.rank = 1, .dims = {c}};
    if (g->w1 < 0) {
        g->w1 = zoo_constant(z, "gate1.weight", w1, ZOO_BELL, 0.35f);
        g->b1 = zoo_constant(z, "gate1.bias", b1, ZOO_UNIFORM, 0.25f);
        g->w2 = zoo_constant(z, "gate2.weight", w2, ZOO_BELL, 1);
        g->b2 = zoo_constant(z, "gate2.bias", b2, ZOO_UNIFORM, 1);
    }
    y = zoo_act(z, zoo_node(z, OP_CONV, (int[]){y, g->w1, g->b1}, 3, hidden), OP_RELU);
    y = zoo_act(z, zoo_node(z, OP_CONV, (int[]){y, g->w2, g->b2}, 3, full), OP_SIGMOID);
    return zoo_mul(z, x, y);
}

static int omni_block(struct zoo *z, int x, int out)
{
    struct gate g = {-1, -1, -1, -1};
    int middle = out / 4, sum = 0, streams[4];
    int first = zoo_conv(z, x, (struct zoo_conv){.out = middle, .norm = true, .act = OP_RELU});
    for (int s = 0; s < 4; s++) {
        streams[s] = first;
        for (int i = 0; i <= s; i++) streams[s] = light(z, streams[s]);
    }
    for (int s = 0; s < 4; s++) {
        int y = gated(z, streams[s], &g);
        sum = s ? zoo_add(z, sum, y) : y;
    }
    int y = zoo_conv(z, sum, (struct zoo_conv){.out = out, .norm = true});
    if (zoo_channels(z, x) != out) x = zoo_conv(z, x, (struct zoo_conv){.out = out, .norm = true});
    return zoo_act(z, zoo_add(z, y, x), OP_RELU);
}

/* `size` is the height; people are twice as high as wide. With `classes` it has a second output for training by identity. */
static void osnet(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const int widths[4] = {16, 64, 96, 128};
    (void)variant;
    int x = zoo_input(z, 3, zoo_side(o, 256), zoo_side(o, 256) / 2);
    x = zoo_conv(z, x, (struct zoo_conv){.out = widths[0], .kernel = 7, .stride = 2, .pad = 3, .norm = true, .act = OP_RELU});
    x = zoo_max_pool(z, x, 3, 2, 1, false);
    for (int stage = 1; stage < 4; stage++) {
        x = omni_block(z, omni_block(z, x, widths[stage]), widths[stage]);
        if (stage < 3) x = zoo_avg_pool(z, zoo_conv(z, x, (struct zoo_conv){.out = widths[stage], .norm = true, .act = OP_RELU}), 2, 2, 0);
    }
    x = zoo_conv(z, x, (struct zoo_conv){.out = widths[3], .norm = true, .act = OP_RELU});
    x = zoo_act(z, zoo_norm(z, zoo_linear(z, zoo_flatten(z, zoo_avg_pool_to(z, x, 1)), 512)), OP_RELU);
    zoo_output(z, x, "embedding");
    if (o->classes > 0) zoo_output(z, zoo_linear(z, x, o->classes), "logits");
}

const struct zoo_entry zoo_mobiles[] = {{"mobilenetv3-large", mobilenetv3, 1}, {"mobilenetv3-small", mobilenetv3, 0}, {"shufflenetv2", shufflenetv2, 0},
                                        {"osnet-x0.25", osnet, 0}, {NULL, NULL, 0}};
