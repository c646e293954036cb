/* Fuzzes the ONNX reader, specialising, rewriting and TensorProto: no input may crash, hang, or keep memory.
 *
 * clang -g -O1 -fsanitize=fuzzer,address,undefined -Isrc tests/fuzz/onnx_fuzz.c src/{graph,op,kernels/ref,tensor,mem,base}/...
 * The budget of 64 MiB stands for a small box. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "graph/graph.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
        graph_free(&g);
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
