/* The first networks. Each function is one family, as its paper or torchvision's code has it.
 *
 * vgg: Simonyan and Zisserman, 2015. resnet: He et al., 2016 (the stride of a bottleneck in its 3x3: torchvision's 'v1.5'). alexnet:
 * Krizhevsky, 2014 ('One weird trick'). mobilenetv2: Sandler et al., 2018. squeezenet: Iandola et al., 2016 (1.0). yolov3, yolov3-tiny: Redmon and
 * Farhadi, 2018 (their .cfg files). SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>


/* ---- vgg; variant: layers, negative with batch normalisation */

static void vgg(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const char *const plans[] = {"a M b M cc M dd M dd", "aa M bb M cc M dd M dd", "aa M bb M ccc M ddd M ddd", "aa M bb M cccc M dddd M dddd"};
    static const int layers[] = {11, 13, 16, 19}, channels[] = {64, 128, 256, 512};
    const char *plan = "";
    for (size_t i = 0; i < ARRAY_LEN(layers); i++)
        if (layers[i] == abs(variant)) plan = plans[i];
    int x = zoo_input(z, 3, zoo_side(o, 224), zoo_side(o, 224));
    for (const char *p = plan; *p; p++) {
        if (*p == 'M') x = zoo_max_pool(z, x, 2, 2, 0, false);
        else if (*p != ' ')
            x = zoo_conv(z, x, (struct zoo_conv){.out = channels[*p - 'a'], .kernel = 3, .pad = 1, .bias = true, .norm = variant < 0, .act = OP_RELU});
    }
    x = zoo_flatten(z, zoo_avg_pool_to(z, zoo_max_pool(z, x, 2, 2, 0, false), 7));
    x = zoo_dropout(z, zoo_act(z, zoo_linear(z, x, 4096), OP_RELU), 0.5f);
    x = zoo_dropout(z, zoo_act(z, zoo_linear(z, x, 4096), OP_RELU), 0.5f);
    zoo_output(z, zoo_linear(z, x, zoo_classes(o, 1000)), "logits");
}

/* ---- resnet; variant: layers */

static int basic_block(struct zoo *z, int x, int width, int stride)
{
    int y = zoo_conv(z, x, (struct zoo_conv){.out = width, .kernel = 3, .pad = 1, .stride = stride, .norm = true, .act = OP_RELU});
    y = zoo_conv(z, y, (struct zoo_conv){.out = width, .kernel = 3, .pad = 1, .norm = true});
    if (stride > 1 || zoo_channels(z, x) != width) x = zoo_conv(z, x, (struct zoo_conv){.out = width, .stride = stride, .norm = true});
    return zoo_act(z, zoo_add(z, y, x), OP_RELU);
}

static int bottleneck(struct zoo *z, int x, int width, int stride)
{
    int y = zoo_conv(z, x, (struct zoo_conv){.out = width, .norm = true, .act = OP_RELU});
    y = zoo_conv(z, y, (struct zoo_conv){.out = width, .kernel = 3, .pad = 1, .stride = stride, .norm = true, .act = OP_RELU});
    y = zoo_conv(z, y, (struct zoo_conv){.out = 4 * width, .norm = true});
    if (stride > 1 || zoo_channels(z, x) != 4 * width) x = zoo_conv(z, x, (struct zoo_conv){.out = 4 * width, .stride = stride, .norm = true});
    return zoo_act(z, zoo_add(z, y, x), OP_RELU);
}

static void resnet(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const int layers[] = {18, 34, 50, 101, 152};
    static const int blocks[][4] = {{2, 2, 2, 2}, {3, 4, 6, 3}, {3, 4, 6, 3}, {3, 4, 23, 3}, {3, 8, 36, 3}};
    const int *n = blocks[0];
    for (size_t i = 0; i < ARRAY_LEN(layers); i++)
        if (layers[i] == variant) n = blocks[i];
    int x = zoo_input(z, 3, zoo_side(o, 224), zoo_side(o, 224));
    x = zoo_conv(z, x, (struct zoo_conv){.out = 64, .kernel = 7, .stride = 2, .pad = 3, .norm = true, .act = OP_RELU});
    x = zoo_max_pool(z, x, 3, 2, 1, false);
    for (int stage = 0; stage < 4; stage++)
        for (int i = 0; i < n[stage]; i++) {
            int stride = stage && i == 0 ? 2 : 1;
            x = variant < 50 ? basic_block(z, x, 64 << stage, stride) : bottleneck(z, x, 64 << stage, stride);
        }
    zoo_output(z, zoo_linear(z, zoo_flatten(z, zoo_avg_pool_to(z, x, 1)), zoo_classes(o, 1000)), "logits");
}

/* The networks of section 4.2 for pictures of 32 x 32: 6 n + 2 layers; what a shortcut lacks is zeros (their option A), so it has no parameters. */
static void cifar_resnet(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    int x = zoo_conv(z, zoo_input(z, 3, zoo_side(o, 32), zoo_side(o, 32)), (struct zoo_conv){.out = 16, .kernel = 3, .pad = 1, .norm = true, .act = OP_RELU});
    for (int block = 0; block < (variant - 2) / 2; block++) {
        int stage = block / ((variant - 2) / 6), width = 16 << stage, stride = zoo_channels(z, x) == width ? 1 : 2;
        int y = zoo_conv(z, x, (struct zoo_conv){.out = width, .kernel = 3, .pad = 1, .stride = stride, .norm = true, .act = OP_RELU});
        y = zoo_conv(z, y, (struct zoo_conv){.out = width, .kernel = 3, .pad = 1, .norm = true});
        if (stride == 2) x = zoo_pad_channels(z, zoo_slice(z, zoo_slice(z, x, 2, 0, INT32_MAX, 2), 3, 0, INT32_MAX, 2), width / 4);
        x = zoo_act(z, zoo_add(z, y, x), OP_RELU);
    }
    zoo_output(z, zoo_linear(z, zoo_flatten(z, zoo_avg_pool_to(z, x, 1)), zoo_classes(o, 10)), "logits");
}

static void alexnet(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    (void)variant;
    int x = zoo_input(z, 3, zoo_side(o, 224), zoo_side(o, 224));
    x = zoo_conv(z, x, (struct zoo_conv){.out = 64, .kernel = 11, .stride = 4, .pad = 2, .bias = true, .act = OP_RELU});
    x = zoo_conv(z, zoo_max_pool(z, x, 3, 2, 0, false), (struct zoo_conv){.out = 192, .kernel = 5, .pad = 2, .bias = true, .act = OP_RELU});
    x = zoo_conv(z, zoo_max_pool(z, x, 3, 2, 0, false), (struct zoo_conv){.out = 384, .kernel = 3, .pad = 1, .bias = true, .act = OP_RELU});
    x = zoo_conv(z, x, (struct zoo_conv){.out = 256, .kernel = 3, .pad = 1, .bias = true, .act = OP_RELU});
    x = zoo_conv(z, x, (struct zoo_conv){.out = 256, .kernel = 3, .pad = 1, .bias = true, .act = OP_RELU});
    x = zoo_flatten(z, zoo_avg_pool_to(z, zoo_max_pool(z, x, 3, 2, 0, false), 6));
    x = zoo_act(z, zoo_linear(z, zoo_dropout(z, x, 0.5f), 4096), OP_RELU);
    x = zoo_act(z, zoo_linear(z, zoo_dropout(z, x, 0.5f), 4096), OP_RELU);
    zoo_output(z, zoo_linear(z, x, zoo_classes(o, 1000)), "logits");
}

/* ---- mobilenetv2 */

static int inverted_residual(struct zoo *z, int x, int out, int stride, int expand)
{
    int from = zoo_channels(z, x), y = x;
    if (expand > 1) y = zoo_conv(z, y, (struct zoo_conv){.out = from * expand, .norm = true, .act = OP_CLIP});
    y = zoo_conv(z, y, (struct zoo_conv){.out = from * expand, .kernel = 3, .pad = 1, .stride = stride, .group = from * expand, .norm = true, .act = OP_CLIP});
    y = zoo_conv(z, y, (struct zoo_conv){.out = out, .norm = true});
    return stride == 1 && from == out ? zoo_add(z, x, y) : y;
}

static void mobilenetv2(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const int rows[][4] = {{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
    (void)variant;
    int x = zoo_input(z, 3, zoo_side(o, 224), zoo_side(o, 224));
    x = zoo_conv(z, x, (struct zoo_conv){.out = 32, .kernel = 3, .stride = 2, .pad = 1, .norm = true, .act = OP_CLIP});
    for (size_t r = 0; r < ARRAY_LEN(rows); r++)
        for (int i = 0; i < rows[r][2]; i++) x = inverted_residual(z, x, rows[r][1], i ? 1 : rows[r][3], rows[r][0]);
    x = zoo_conv(z, x, (struct zoo_conv){.out = 1280, .norm = true, .act = OP_CLIP});
    zoo_output(z, zoo_linear(z, zoo_dropout(z, zoo_flatten(z, zoo_avg_pool_to(z, x, 1)), 0.2f), zoo_classes(o, 1000)), "logits");
}

/* ---- squeezenet 1.0 */

static int fire(struct zoo *z, int x, int squeeze, int expand)
{
    x = zoo_conv(z, x, (struct zoo_conv){.out = squeeze, .bias = true, .act = OP_RELU});
    int parts[2] = {zoo_conv(z, x, (struct zoo_conv){.out = expand, .bias = true, .act = OP_RELU}),
                    zoo_conv(z, x, (struct zoo_conv){.out = expand, .kernel = 3, .pad = 1, .bias = true, .act = OP_RELU})};
    return zoo_concat(z, parts, 2);
}

static void squeezenet(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    (void)variant;
    int x = zoo_input(z, 3, zoo_side(o, 224), zoo_side(o, 224));
    x = zoo_conv(z, x, (struct zoo_conv){.out = 96, .kernel = 7, .stride = 2, .bias = true, .act = OP_RELU});
    x = fire(z, fire(z, fire(z, zoo_max_pool(z, x, 3, 2, 0, true), 16, 64), 16, 64), 32, 128);
    x = fire(z, fire(z, fire(z, fire(z, zoo_max_pool(z, x, 3, 2, 0, true), 32, 128), 48, 192), 48, 192), 64, 256);
    x = fire(z, zoo_max_pool(z, x, 3, 2, 0, true), 64, 256);
    x = zoo_conv(z, zoo_dropout(z, x, 0.5f), (struct zoo_conv){.out = zoo_classes(o, 1000), .bias = true, .act = OP_RELU});
    zoo_output(z, zoo_flatten(z, zoo_avg_pool_to(z, x, 1)), "logits");
}

/* ---- yolov3 */

static int dark(struct zoo *z, int x, int out, int kernel, int stride)
{
    return zoo_conv(z, x, (struct zoo_conv){.out = out, .kernel = kernel, .stride = stride, .pad = kernel / 2, .norm = true, .act = OP_LEAKY_RELU});
}

static int yolo_head(struct zoo *z, int x, int width, int outputs, const char *name)
{
    x = dark(z, x, width, 3, 1);
    zoo_output(z, zoo_conv(z, x, (struct zoo_conv){.out = outputs, .bias = true}), name);
    return x;
}

static int five(struct zoo *z, int x, int width)
{
    for (int i = 0; i < 5; i++) x = dark(z, x, i % 2 ? 2 * width : width, i % 2 ? 3 : 1, 1);
    return x;
}

static void yolov3(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    static const int repeats[] = {1, 2, 8, 8, 4};
    (void)variant;
    int outputs = 3 * (zoo_classes(o, 80) + 5), route[5];
    int x = dark(z, zoo_input(z, 3, zoo_side(o, 416), zoo_side(o, 416)), 32, 3, 1);
    for (int stage = 0; stage < 5; stage++) {
        int width = 64 << stage;
        x = dark(z, x, width, 3, 2);
        for (int i = 0; i < repeats[stage]; i++) x = zoo_add(z, dark(z, dark(z, x, width / 2, 1, 1), width, 3, 1), x);
        route[stage] = x;
    }
    x = five(z, x, 512);
    yolo_head(z, x, 1024, outputs, "large");
    x = zoo_concat(z, (int[]){zoo_upsample2(z, dark(z, x, 256, 1, 1)), route[3]}, 2);
    x = five(z, x, 256);
    yolo_head(z, x, 512, outputs, "medium");
    x = zoo_concat(z, (int[]){zoo_upsample2(z, dark(z, x, 128, 1, 1)), route[2]}, 2);
    yolo_head(z, five(z, x, 128), 256, outputs, "small");
}

static void yolov3_tiny(struct zoo *z, const struct graph_zoo_options *o, int variant)
{
    (void)variant;
    int outputs = 3 * (zoo_classes(o, 80) + 5), route = 0;
    int x = zoo_input(z, 3, zoo_side(o, 416), zoo_side(o, 416));
    for (int width = 16; width <= 512; width *= 2) {
        x = dark(z, x, width, 3, 1);
        if (width == 256) route = x;
        if (width < 512) x = zoo_max_pool(z, x, 2, 2, 0, false);
    }
    /* darknet's pool of stride 1 pads on the right and below; a window of 3 around is as large and needs no lopsided padding */
    x = dark(z, zoo_max_pool(z, x, 3, 1, 1, false), 1024, 3, 1);
    x = dark(z, x, 256, 1, 1);
    yolo_head(z, x, 512, outputs, "large");
    x = zoo_concat(z, (int[]){zoo_upsample2(z, dark(z, x, 128, 1, 1)), route}, 2);
    yolo_head(z, x, 256, outputs, "small");
}

const struct zoo_entry zoo_classifiers[] = {
    {"resnet18", resnet, 18}, {"resnet34", resnet, 34}, {"resnet50", resnet, 50}, {"resnet101", resnet, 101}, {"resnet152", resnet, 152},
    {"cifar-resnet20", cifar_resnet, 20}, {"cifar-resnet32", cifar_resnet, 32}, {"cifar-resnet44", cifar_resnet, 44},
    {"vgg11", vgg, 11}, {"vgg13", vgg, 13}, {"vgg16", vgg, 16}, {"vgg19", vgg, 19}, {"vgg11_bn", vgg, -11}, {"vgg13_bn", vgg, -13},
    {"vgg16_bn", vgg, -16}, {"vgg19_bn", vgg, -19}, {"alexnet", alexnet, 0}, {"mobilenetv2", mobilenetv2, 0}, {"squeezenet", squeezenet, 0},
    {"yolov3", yolov3, 0}, {"yolov3-tiny", yolov3_tiny, 0}, {NULL, NULL, 0},
};
