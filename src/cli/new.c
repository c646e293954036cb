/* `brim new ARCH -o F.onnx`: an untrained network. SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"
#include "cli/model_cmd.h"
#include "graph/zoo.h"

#include <stdio.h>
#include <stdlib.h>

static err write_network(const char *arch, const struct graph_zoo_options *o, const char *path, int64_t *ret_parameters)
{
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "network");
    struct graph *g = NULL;
    err e = graph_zoo(arch, o, p, &g);
    if (!e) {
        *ret_parameters = graph_parameters(g);
        e = graph_save(g, path);
        graph_free(&g);
    }
    mem_payer_free(&p);
    mem_budget_free(&b);
    return e;
}

int cli_new(int argc, char **argv)
{
    int64_t classes = 0, seed = 0, parameters = 0;
    const char *output = NULL, *sides = "0";
    int size = 0, height = 0, end = 0;
    bool json = false, help = false, list = false;
    struct args_list rest = {0};
    const struct args_option table[] = {{"output", ARGS_STRING, &output, "the file to write (also -o)"},
                                        {"classes", ARGS_INT, &classes, "default: the network's own, 1000, 80 or 91; of a language model: words"},
                                        {"size", ARGS_STRING, &sides, "N sides of the input in pixels (detectors also WxH), or tokens of a text (default: the network's own)"},
                                        {"seed", ARGS_INT, &seed, "of the weights (default 0)"},
                                        {"list", ARGS_FLAG, &list, "the names of the networks"},
                                        {"json", ARGS_FLAG, &json, "one JSON object on stdout"},
                                        {NULL, 0, NULL, NULL}};
    for (int i = 1; i < argc; i++)
        if (argv[i][0] == '-' && argv[i][1] == 'o' && !argv[i][2]) argv[i] = (char *)(uintptr_t)"--output";
    err e = args_parse(argc, argv, table, &rest, &help);
    if (help) args_help("new ARCH -o F.onnx [options]", table);
    for (const char *const *name = graph_zoo_names(); !e && list && *name; name++) puts(*name);
    bool make = !e && !help && !list;
    if (make && (rest.n != 1 || !output)) e = err_set(ERR_USAGE, "expected one network and -o F.onnx; --list says which there are");
    if (make && !e && ((sscanf(sides, "%5d%n", &size, &end) != 1 || sides[end]) && (sscanf(sides, "%5dx%5d%n", &size, &height, &end) != 2 || sides[end] || height < 32)))
        e = err_set(ERR_USAGE, "--size %s: expected something like 320 or 512x288", sides);
    if (make && !e && (classes < 0 || classes > 100000 || size < 0 || size > 4096))
        e = err_set(ERR_USAGE, "--classes goes from 1 to 100000, --size from 32 to 4096");
    if (make && !e) {
        struct graph_zoo_options o = {.classes = (int)classes, .size = size, .height = height, .seed = (uint64_t)seed};
        e = write_network(rest.items[0], &o, output, &parameters);
        if (!e && json) printf("{\"arch\": \"%s\", \"file\": \"%s\", \"parameters\": %lld}\n", rest.items[0], output, (long long)parameters);
        else if (!e) printf("%s: %s, %lld parameters\n", output, rest.items[0], (long long)parameters);
    }
    int status = e ? args_fail("new", e == ERR_NOT_FOUND ? ERR_USAGE : e) : 0;
    free(rest.items);
    return status;
}
