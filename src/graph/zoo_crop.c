/* `brimcrop`: one of our own for small crops of things (64 x 64), as classifier of what they are like, or as embedding of who they are. Plain 3 x 3 convolutions,
 * which small processors do at full speed, four halvings, and one product over what is left: where a colour stands tells a jacket from trousers, so nothing is
 * averaged away. Some 0.02 GFLOP. SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo_build.h"

static void brimcrop(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const struct {
        int out, stride;
    } layers[] = {{16, 2}, {32, 2}, {32, 1}, {64, 2}, {64, 1}, {96, 2}};
    int side = zoo_side(o, 64);
    (void)variant;
    if (!z->e && side % 16) z->e = err_set(ERR_USAGE, "%s: its input's sides are multiples of 16", z->g->name);
    int x = zoo_input(z, 3, side, side);
    for (size_t i = 0; i < ARRAY_LEN(layers); i++)
        x = zoo_conv(z, x, (struct zoo_conv){.out = layers[i].out, .kernel = 3, .pad = 1, .stride = layers[i].stride, .norm = true, .act = OP_RELU});
    zoo_output(z, zoo_linear(z, zoo_flatten(z, x), zoo_classes(o, 10)), "output");
}

const struct zoo_entry zoo_crops[] = {{"brimcrop", brimcrop, 0}, {NULL, NULL, 0}};
