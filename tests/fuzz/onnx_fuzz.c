/* Fuzzes the ONNX reader, specialising, rewriting and TensorProto: no input may crash, hang, or keep memory.
 *
 * clang -g -O1 -fsanitize=fuzzer,address,undefined -Isrc tests/fuzz/onnx_fuzz.c src/{graph,op,kernels/ref,tensor,mem,base}/...,
 * or as tests/fuzz/meson.build says.
 * The budget of 64 MiB stands for a small box. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "graph/graph.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every first size is 2, where the file may say 1. */
static err with_a_batch(const struct graph *g, struct mem_payer *payer, struct graph **ret)
{
    struct tensor_shape *shapes = xnewn(struct tensor_shape, (size_t)g->n_inputs + 1);
    for (int i = 0; i < g->n_inputs; i++) {
        shapes[i] = g->values[g->inputs[i]].shape;
        if (shapes[i].rank) shapes[i].dims[0] = 2;
    }
    err e = graph_specialise(g, shapes, payer, ret);
    free(shapes);
    return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mem_budget *budget = mem_budget_new("host", 64 << 20);
    struct mem_payer *payer = mem_payer_new(budget, "fuzz");
    struct graph *g = NULL, *s = NULL;
    if (graph_parse("fuzz", data, size, NULL, payer, &g) == ERR_OK) {
        if (graph_specialise(g, NULL, payer, &s) == ERR_OK) {
            void *bytes = NULL;
            size_t n;
            if (graph_write(s, &bytes, &n) == ERR_OK) free(bytes);
            graph_rewrite(s, GRAPH_REWRITE_ALL);
        }
        graph_free(&s);
        if (with_a_batch(g, payer, &s) == ERR_OK) graph_rewrite(s, GRAPH_REWRITE_ALL);
        graph_free(&g); /* s lives on alone */
        graph_free(&s);
    }
    struct tensor t;
    char *name = NULL;
    void *owned = NULL;
    if (graph_parse_tensor(data, size, &t, &name, &owned) == ERR_OK) {
        free(name);
        free(owned);
    }
    mem_payer_free(&payer); /* asserts that nothing is owed */
    mem_budget_free(&budget);
    return 0;
}
