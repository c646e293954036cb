/* The networks by name, and their counts. They are made in zoo_*.c, a file per kind. SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPSET = 17 }; /* the first with LayerNormalization, the last but one with the axes of reductions as attributes */

static const struct zoo_entry *const families[] = {zoo_classifiers, zoo_inceptions, zoo_mobiles, zoo_yolos, zoo_crops, zoo_ssds, zoo_transformers, zoo_others};

/* One table for all, because a list of names must be constant. The test compares it with the families. */
const char *const *graph_zoo_names(void)
{
    static const char *const names[] = {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "cifar-resnet20", "cifar-resnet32", "cifar-resnet44", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn",
                                        "vgg13_bn", "vgg16_bn", "vgg19_bn", "alexnet", "mobilenetv2", "mobilenetv3-large", "mobilenetv3-small", "shufflenetv2",
                                        "squeezenet", "googlenet", "inceptionv3", "densenet121", "ssd300-vgg", "ssdlite-mobilenetv3", "yolov3", "yolov3-tiny",
                                        "yolox-nano", "yolox-tiny", "yolox-s", "brimdet", "brimpoint", "brimcrop", "osnet-x0.25", "gpt2", "gpt2-mini", "llama-mini", "unet", NULL};
    return names;
}

static err unknown(const char *arch)
{
    struct strbuf b = {0};
    for (const char *const *name = graph_zoo_names(); *name; name++) strbuf_addf(&b, "%s%s", b.len ? ", " : "", *name);
    err e = err_set(ERR_NOT_FOUND, "no network '%s'; there are %s", arch, b.s);
    strbuf_done(&b);
    return e;
}

static bool of(const struct zoo_entry *family, const struct zoo_entry *entry)
{
    while (family->name && family != entry) family++;
    return family->name != NULL;
}

err graph_zoo(const char *arch, const struct graph_zoo_options *o, struct mem_payer *payer, struct graph **ret)
{
    const struct zoo_entry *found = NULL;
    for (size_t f = 0; f < ARRAY_LEN(families); f++)
        for (const struct zoo_entry *entry = families[f]; entry->name; entry++)
            if (!strcmp(entry->name, arch)) found = entry;
    if (!found) return unknown(arch);
    if (o->classes < 0 || o->classes > 100000 || (o->size && (o->size < 32 || o->size > 4096)))
        return err_set(ERR_USAGE, "%s: classes go from 1 to 100000, sizes from 32 to 4096", arch);
    if (o->height && (o->height < 32 || o->height > 4096 || !o->size || !of(zoo_yolos, found)))
        return err_set(ERR_USAGE, "%s: only the yolox detectors, brimdet and brimpoint take a width and a height, of 32 to 4096 each", arch);
    struct zoo z = {.g = graph_new(arch, OPSET, payer), .seed = o->seed};
    found->make(&z, o, found->variant);
    if (z.e) graph_free(&z.g);
    else *ret = z.g;
    return z.e;
}

int64_t graph_parameters(const struct graph *g)
{
    int64_t sum = 0;
    for (size_t i = 0; i < g->n_values; i++) {
        const struct graph_value *v = &g->values[i];
        if (!v->constant || v->dtype != TENSOR_F32 || v->shape.rank == 0 || str_ends(v->name, ".running_mean") || str_ends(v->name, ".running_var") ||
            str_ends(v->name, ".scales") || str_ends(v->name, ".fixed"))
            continue;
        sum += tensor_count(&v->shape);
    }
    return sum;
}
