/* Wide and dense ones: GoogLeNet (Szegedy et al., 2015), Inception v3 (Szegedy et al., 2016), DenseNet-121 (Huang et al., 2017), as torchvision has
 * them and without auxiliary heads; its GoogLeNet has 3 x 3 kernels where the paper has 5 x 5. SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo_build.h"

static int unit(struct zoo *z, int x, int out, int kernel, int stride, int pad)
{
    return zoo_conv(z, x, (struct zoo_conv){.out = out, .kernel = kernel, .stride = stride, .pad = pad, .norm = true, .act = OP_RELU});
}

/* A kernel of 1 x k or k x 1. */
static int line(struct zoo *z, int x, int out, int h, int w)
{
    return zoo_conv(z, x, (struct zoo_conv){.out = out, .kernel = h, .kernel_w = w, .pad = h / 2, .pad_w = w / 2, .norm = true, .act = OP_RELU});
}

static int inception(struct zoo *z, int x, const int w[6])
{
    int parts[4] = {unit(z, x, w[0], 1, 1, 0)};
    parts[1] = unit(z, unit(z, x, w[1], 1, 1, 0), w[2], 3, 1, 1);
    parts[2] = unit(z, unit(z, x, w[3], 1, 1, 0), w[4], 3, 1, 1);
    parts[3] = unit(z, zoo_max_pool(z, x, 3, 1, 1, true), w[5], 1, 1, 0);
    return zoo_concat(z, parts, 4);
}

static void googlenet(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const int w[9][6] = {{64, 96, 128, 16, 32, 32},   {128, 128, 192, 32, 96, 64},  {192, 96, 208, 16, 48, 64},
                                {160, 112, 224, 24, 64, 64}, {128, 128, 256, 24, 64, 64},  {112, 144, 288, 32, 64, 64},
                                {256, 160, 320, 32, 128, 128}, {256, 160, 320, 32, 128, 128}, {384, 192, 384, 48, 128, 128}};
    (void)variant;
    z->eps = 1e-3f;
    int x = unit(z, zoo_input(z, 3, zoo_side(o, 224), zoo_side(o, 224)), 64, 7, 2, 3);
    x = unit(z, zoo_max_pool(z, x, 3, 2, 0, true), 64, 1, 1, 0);
    x = zoo_max_pool(z, unit(z, x, 192, 3, 1, 1), 3, 2, 0, true);
    for (int i = 0; i < 9; i++) {
        x = inception(z, x, w[i]);
        if (i == 1) x = zoo_max_pool(z, x, 3, 2, 0, true);
        if (i == 6) x = zoo_max_pool(z, x, 2, 2, 0, true);
    }
    zoo_output(z, zoo_linear(z, zoo_dropout(z, zoo_flatten(z, zoo_avg_pool_to(z, x, 1)), 0.2f), zoo_classes(o, 1000)), "logits");
}

/* ---- inception v3 */

static int block_a(struct zoo *z, int x, int pool)
{
    int parts[4] = {unit(z, x, 64, 1, 1, 0)};
    parts[1] = unit(z, unit(z, x, 48, 1, 1, 0), 64, 5, 1, 2);
    parts[2] = unit(z, unit(z, unit(z, x, 64, 1, 1, 0), 96, 3, 1, 1), 96, 3, 1, 1);
    parts[3] = unit(z, zoo_avg_pool(z, x, 3, 1, 1), pool, 1, 1, 0);
    return zoo_concat(z, parts, 4);
}

static int block_b(struct zoo *z, int x)
{
    int parts[3] = {unit(z, x, 384, 3, 2, 0)};
    parts[1] = unit(z, unit(z, unit(z, x, 64, 1, 1, 0), 96, 3, 1, 1), 96, 3, 2, 0);
    parts[2] = zoo_max_pool(z, x, 3, 2, 0, false);
    return zoo_concat(z, parts, 3);
}

static int block_c(struct zoo *z, int x, int c)
{
    int parts[4] = {unit(z, x, 192, 1, 1, 0)};
    parts[1] = line(z, line(z, unit(z, x, c, 1, 1, 0), c, 1, 7), 192, 7, 1);
    parts[2] = line(z, line(z, line(z, line(z, unit(z, x, c, 1, 1, 0), c, 7, 1), c, 1, 7), c, 7, 1), 192, 1, 7);
    parts[3] = unit(z, zoo_avg_pool(z, x, 3, 1, 1), 192, 1, 1, 0);
    return zoo_concat(z, parts, 4);
}

static int block_d(struct zoo *z, int x)
{
    int parts[3] = {unit(z, unit(z, x, 192, 1, 1, 0), 320, 3, 2, 0)};
    parts[1] = unit(z, line(z, line(z, unit(z, x, 192, 1, 1, 0), 192, 1, 7), 192, 7, 1), 192, 3, 2, 0);
    parts[2] = zoo_max_pool(z, x, 3, 2, 0, false);
    return zoo_concat(z, parts, 3);
}

static int block_e(struct zoo *z, int x)
{
    int parts[6] = {unit(z, x, 320, 1, 1, 0)}, y = unit(z, x, 384, 1, 1, 0);
    parts[1] = line(z, y, 384, 1, 3);
    parts[2] = line(z, y, 384, 3, 1);
    y = unit(z, unit(z, x, 448, 1, 1, 0), 384, 3, 1, 1);
    parts[3] = line(z, y, 384, 1, 3);
    parts[4] = line(z, y, 384, 3, 1);
    parts[5] = unit(z, zoo_avg_pool(z, x, 3, 1, 1), 192, 1, 1, 0);
    return zoo_concat(z, parts, 6);
}

static void inceptionv3(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    (void)variant;
    z->eps = 1e-3f;
    int x = unit(z, zoo_input(z, 3, zoo_side(o, 299), zoo_side(o, 299)), 32, 3, 2, 0);
    x = unit(z, unit(z, x, 32, 3, 1, 0), 64, 3, 1, 1);
    x = unit(z, unit(z, zoo_max_pool(z, x, 3, 2, 0, false), 80, 1, 1, 0), 192, 3, 1, 0);
    x = zoo_max_pool(z, x, 3, 2, 0, false);
    x = block_a(z, block_a(z, block_a(z, x, 32), 64), 64);
    x = block_c(z, block_c(z, block_c(z, block_c(z, block_b(z, x), 128), 160), 160), 192);
    x = block_e(z, block_e(z, block_d(z, x)));
    zoo_output(z, zoo_linear(z, zoo_flatten(z, zoo_dropout(z, zoo_avg_pool_to(z, x, 1), 0.5f)), zoo_classes(o, 1000)), "logits");
}

/* ---- densenet: normalised and rectified before each convolution */

static int before(struct zoo *z, int x, struct zoo_conv c)
{
    return zoo_conv(z, zoo_act(z, zoo_norm(z, x), OP_RELU), c);
}

static void densenet(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const int layers[4] = {6, 12, 24, 16};
    (void)variant;
    int x = unit(z, zoo_input(z, 3, zoo_side(o, 224), zoo_side(o, 224)), 64, 7, 2, 3);
    x = zoo_max_pool(z, x, 3, 2, 1, false);
    for (int block = 0; block < 4; block++) {
        for (int i = 0; i < layers[block]; i++) {
            int y = before(z, x, (struct zoo_conv){.out = 128});
            y = before(z, y, (struct zoo_conv){.out = 32, .kernel = 3, .pad = 1});
            x = zoo_concat(z, (int[]){x, y}, 2);
        }
        if (block < 3) x = zoo_avg_pool(z, before(z, x, (struct zoo_conv){.out = zoo_channels(z, x) / 2}), 2, 2, 0);
    }
    x = zoo_act(z, zoo_norm(z, x), OP_RELU);
    zoo_output(z, zoo_linear(z, zoo_flatten(z, zoo_avg_pool_to(z, x, 1)), zoo_classes(o, 1000)), "logits");
}

const struct zoo_entry zoo_inceptions[] = {{"googlenet", googlenet, 0}, {"inceptionv3", inceptionv3, 0}, {"densenet121", densenet, 0}, {NULL, NULL, 0}};
