/* `brim new ARCH -o F.onnx`: an untrained network. SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"
#include "cli/model_cmd.h"
#include "graph/zoo.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Digits alone, so that "-1", "1e3" and " 64" are none. */
static const char *side(const char *text, long *ret)
{
    size_t n = strspn(text, "0123456789");
    if (!n) return NULL;
    *ret = n > 6 ? LONG_MAX : strtol(text, NULL, 10);
    return text + n;
}

/* "320", "512x288"; "0": the network's own. */
static err sides(const char *text, struct graph_zoo_options *o)
{
    enum { LEAST = 32, MOST = 4096 };
    long width = 0, height = LEAST;
    const char *at = side(text, &width);
    bool two = at && *at == 'x';
    if (two) at = side(at + 1, &height);
    if (!at || *at) return err_set(ERR_USAGE, "--size '%s': expected a side such as 320, or width and height such as 512x288", text);
    if (!two && !width) return ERR_OK;
    if (width < LEAST || width > MOST || height < LEAST || height > MOST) return err_set(ERR_USAGE, "--size %s: sides go from %d to %d", text, LEAST, MOST);
    o->size = (int)width;
    o->height = two ? (int)height : 0;
    return ERR_OK;
}

int cli_new(int argc, char **argv)
{
    int64_t classes = 0, seed = 0, parameters = 0;
    const char *output = NULL, *size = "0";
    struct graph_zoo_options o = {0};
    bool json = false, help = false, list = false;
    struct args_list rest = {0};
    const struct args_option table[] = {{"output", ARGS_STRING, &output, "the file to write (also -o)"},
                                        {"classes", ARGS_INT, &classes, "default: the network's own, 1000, 80 or 91; of a language model: words"},
                                        {"size", ARGS_STRING, &size, "N sides of the input in pixels (detectors also WxH), or tokens of a text (default: the network's own)"},
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
    if (make && !e) e = sides(size, &o);
    if (make && !e && (classes < 0 || classes > 100000)) e = err_set(ERR_USAGE, "--classes goes from 1 to 100000");
    if (make && !e) {
        o.classes = (int)classes;
        o.seed = (uint64_t)seed;
        e = write_network(rest.items[0], &o, output, &parameters);
        if (!e && json) printf("{\"arch\": \"%s\", \"file\": \"%s\", \"parameters\": %lld}\n", rest.items[0], output, (long long)parameters);
        else if (!e) printf("%s: %s, %lld parameters\n", output, rest.items[0], (long long)parameters);
    }
    int status = e ? args_fail("new", e == ERR_NOT_FOUND ? ERR_USAGE : e) : 0;
    free(rest.items);
    return status;
}
