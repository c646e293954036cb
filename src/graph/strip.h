/* An ONNX file without its weights: tensors become references to external data, everything else stays byte for byte.
 *
 * For the weight store, which keeps the numbers as blobs and the rest as a graph that reads them like any ONNX file with external data.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/graph.h"

struct graph_reference {
    bool out;                  /* false: the tensor stays in the graph */
    const char *location;      /* borrowed until the next call */
    uint64_t offset, bytes;
};
/* Called for each tensor with numbers (initialisers, constants in attributes; subgraphs too), in an order that is the same each time. `t` is a view of
 * the numbers, row-major; `name` may be "". */
typedef err graph_strip_fn(void *user, const char *name, const struct tensor *t, size_t bytes, bool initialiser, struct graph_reference *ret);
/* `ret` NULL: only calls. Else the bytes of the new file; free(). */
err graph_strip(const char *path, struct mem_payer *payer, graph_strip_fn *fn, void *user, void **ret, size_t *ret_n);

/* A stripped graph: the ONNX bytes begin at `offset` of the file `path`; external data lies in `dir`. `solid` NULL: all of it is mapped; else only
 * this location, and the rest reads as zeros without being read: for planning where packed weights are at hand. */
err graph_load_stripped(const char *name, const char *path, size_t offset, const char *dir, const char *solid, struct mem_payer *payer,
                        struct graph **ret);
