/* SSD (Liu et al., 2016) on VGG-16 at 300 pixels, and SSDlite (Sandler et al., 2018) on MobileNetV3 at 320, as torchvision has them: outputs are
 * `boxes` [1, priors, 4] and `scores` [1, priors, classes] before any decoding, class 0 is the background (91 classes by default).
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo_mobile.h"

enum { MAPS = 6 };

static int conv3(struct zoo *z, int x, int out, int stride, int pad)
{
    return zoo_conv(z, x, (struct zoo_conv){.out = out, .kernel = 3, .stride = stride, .pad = pad, .bias = true, .act = OP_RELU});
}

/* [1, priors * columns, H, W] of each map into [1, all priors, columns]: point by point, prior by prior. */
static void rows(struct zoo *z, const int maps[MAPS], int columns, const char *name)
{
    int lists[MAPS];
    int64_t n = 0;
    for (int i = 0; i < MAPS; i++) {
        struct tensor_shape s = zoo_shape(z, maps[i]);
        int64_t here = s.dims[1] * s.dims[2] * s.dims[3] / columns;
        lists[i] = zoo_reshape(z, zoo_transpose(z, maps[i], (int[]){0, 2, 3, 1}), (struct tensor_shape){.rank = 3, .dims = {-1, here, columns}});
        n += here;
    }
    int y = zoo_node(z, OP_CONCAT, lists, MAPS, (struct tensor_shape){.rank = 3, .dims = {1, n, columns}});
    if (!z->e) graph_set_int(zoo_last(z), "axis", 1);
    zoo_output(z, y, name);
}

/* The first map is normalised over its channels and scaled (ParseNet), or it would drown the others. */
static int rescale(struct zoo *z, int x)
{
    struct tensor_shape s = zoo_shape(z, x), length = {.rank = 4, .dims = {1, 1, s.dims[2], s.dims[3]}};
    int y = zoo_node(z, OP_REDUCE_L2, &x, 1, length);
    if (!z->e) graph_set_ints(zoo_last(z), "axes", (int64_t[]){1}, 1);
    y = zoo_node(z, OP_MAX, (int[]){y, zoo_number(z, 1e-12f)}, 2, length);
    y = zoo_node(z, OP_DIV, (int[]){x, y}, 2, s);
    int scale = zoo_constant(z, "rescale", (struct tensor_shape){.rank = 4, .dims = {1, s.dims[1], 1, 1}}, ZOO_ONE, 0);
    for (int64_t i = 0; !z->e && i < s.dims[1]; i++) ((float *)z->g->values[scale].owned)[i] = 20;
    return zoo_mul(z, y, scale);
}

static void ssd300(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const int priors[MAPS] = {4, 6, 6, 6, 4, 4}, convs[4] = {2, 2, 3, 3};
    int maps[MAPS], out[MAPS], classes = zoo_classes(o, 91);
    (void)variant;
    if (!z->e && zoo_side(o, 300) != 300) z->e = err_set(ERR_USAGE, "%s: its input is 300 x 300", z->g->name);
    int x = zoo_input(z, 3, 300, 300);
    for (int stage = 0; stage < 4; stage++) {
        for (int i = 0; i < convs[stage]; i++) x = conv3(z, x, 64 << stage, 1, 1);
        if (stage < 3) x = zoo_max_pool(z, x, 2, 2, 0, stage == 2);
    }
    maps[0] = rescale(z, x);
    x = zoo_max_pool(z, x, 2, 2, 0, false);
    for (int i = 0; i < 3; i++) x = conv3(z, x, 512, 1, 1);
    x = zoo_conv(z, zoo_max_pool(z, x, 3, 1, 1, false), (struct zoo_conv){.out = 1024, .kernel = 3, .pad = 6, .dilation = 6, .bias = true, .act = OP_RELU});
    maps[1] = zoo_conv(z, x, (struct zoo_conv){.out = 1024, .bias = true, .act = OP_RELU});
    for (int i = 2; i < MAPS; i++) {
        x = zoo_conv(z, maps[i - 1], (struct zoo_conv){.out = i == 2 ? 256 : 128, .bias = true, .act = OP_RELU});
        maps[i] = conv3(z, x, i == 2 ? 512 : 256, i < 4 ? 2 : 1, i < 4 ? 1 : 0);
    }
    for (int i = 0; i < MAPS; i++) out[i] = zoo_conv(z, maps[i], (struct zoo_conv){.out = 4 * priors[i], .kernel = 3, .pad = 1, .bias = true});
    rows(z, out, 4, "boxes");
    for (int i = 0; i < MAPS; i++) out[i] = zoo_conv(z, maps[i], (struct zoo_conv){.out = classes * priors[i], .kernel = 3, .pad = 1, .bias = true});
    rows(z, out, classes, "scores");
}

/* ---- ssdlite */

static int extra(struct zoo *z, int x, int out)
{
    x = zoo_conv(z, x, (struct zoo_conv){.out = out / 2, .norm = true, .act = OP_CLIP});
    x = zoo_conv(z, x, (struct zoo_conv){.out = out / 2, .kernel = 3, .stride = 2, .pad = 1, .group = out / 2, .norm = true, .act = OP_CLIP});
    return zoo_conv(z, x, (struct zoo_conv){.out = out, .norm = true, .act = OP_CLIP});
}

static int predict(struct zoo *z, int x, int out)
{
    int c = zoo_channels(z, x);
    x = zoo_conv(z, x, (struct zoo_conv){.out = c, .kernel = 3, .pad = 1, .group = c, .norm = true, .act = OP_CLIP});
    return zoo_conv(z, x, (struct zoo_conv){.out = out, .bias = true});
}

/* The backbone's last stage has half its channels (the paper's table 6). */
static void ssdlite(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const int extras[4] = {512, 256, 256, 128};
    int maps[MAPS], out[MAPS], classes = zoo_classes(o, 91);
    (void)variant;
    z->eps = 1e-3f;
    int x = zoo_input(z, 3, zoo_side(o, 320), zoo_side(o, 320));
    x = zoo_conv(z, x, (struct zoo_conv){.out = 16, .kernel = 3, .stride = 2, .pad = 1, .norm = true, .act = OP_HARD_SWISH});
    for (int i = 0; i < 15; i++) {
        struct zoo_mobile_row r = zoo_mobile_large[i];
        if (i >= 12) r.out /= 2;
        if (i > 12) r.expand /= 2;
        x = zoo_mobile_block(z, x, &r, i == 12 ? &maps[0] : NULL);
    }
    maps[1] = zoo_conv(z, x, (struct zoo_conv){.out = 480, .norm = true, .act = OP_HARD_SWISH});
    for (int i = 2; i < MAPS; i++) maps[i] = extra(z, maps[i - 1], extras[i - 2]);
    for (int i = 0; i < MAPS; i++) out[i] = predict(z, maps[i], 4 * 6);
    rows(z, out, 4, "boxes");
    for (int i = 0; i < MAPS; i++) out[i] = predict(z, maps[i], classes * 6);
    rows(z, out, classes, "scores");
}

const struct zoo_entry zoo_ssds[] = {{"ssd300-vgg", ssd300, 0}, {"ssdlite-mobilenetv3", ssdlite, 0}, {NULL, NULL, 0}};
