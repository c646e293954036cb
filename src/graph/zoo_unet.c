/* Pictures into pictures: a U-Net (Ronneberger et al., 2015) that adds its answer to its input, so that untrained it changes little. For
 * brightening and denoising: values of 0 to 1 in and out. SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo_build.h"

static int twice(struct zoo *z, int x, int out)
{
    for (int i = 0; i < 2; i++) x = zoo_conv(z, x, (struct zoo_conv){.out = out, .kernel = 3, .pad = 1, .bias = true, .act = OP_RELU});
    return x;
}

static void unet(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const int widths[4] = {16, 32, 64, 96};
    int side = zoo_side(o, 256), skip[3];
    (void)variant;
    if (!z->e && side % 8) z->e = err_set(ERR_USAGE, "%s: its input's sides are multiples of 8", z->g->name);
    int input = zoo_input(z, 3, side, side), x = input;
    for (int i = 0; i < 3; i++) {
        skip[i] = twice(z, x, widths[i]);
        x = zoo_max_pool(z, skip[i], 2, 2, 0, false);
    }
    x = twice(z, x, widths[3]);
    for (int i = 2; i >= 0; i--) {
        x = zoo_conv(z, zoo_upsample2(z, x), (struct zoo_conv){.out = widths[i], .kernel = 3, .pad = 1, .bias = true, .act = OP_RELU});
        x = twice(z, zoo_concat(z, (int[]){skip[i], x}, 2), widths[i]);
    }
    x = zoo_start(z, zoo_conv(z, x, (struct zoo_conv){.out = 3, .kernel = 3, .pad = 1, .bias = true}), 0.02f, 0);
    zoo_output(z, zoo_add(z, input, x), "image");
}

const struct zoo_entry zoo_others[] = {{"unet", unet, 0}, {NULL, NULL, 0}};
