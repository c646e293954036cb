/* Inside of the ONNX reader: what its files share. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "graph/file.h"
#include "graph/graph.h"
#include "graph/names.h"
#include "graph/wire.h"

/* Numbers that no honest file reaches. Everything below them is also paid: see graph_book. */
enum {
    GRAPH_MAX_DEPTH = 8,        /* subgraphs in subgraphs */
    GRAPH_MAX_NODES = 1 << 18,
    GRAPH_MAX_VALUES = 1 << 20,
    GRAPH_MAX_NAME = 1 << 12,   /* bytes of a name */
    GRAPH_MAX_ATTRS = 64,       /* of a node */
    GRAPH_MAX_DOMAINS = 64,
};

struct graph_domain {
    char *name;
    int version;
};
struct graph_reader {
    const char *name;
    struct graph_file *file;
    struct graph *root;
    struct graph_names symbols; /* of root */
    int n_domains;
    struct graph_domain domains[GRAPH_MAX_DOMAINS];
    bool has_functions;
    int ir_version;
    size_t spent; /* bookkeeping so far; file->booked is what was charged */
    size_t n_nodes, n_values;
};

/* A TensorProto. */
struct graph_tensor_proto {
    struct graph_field name; /* n == 0: none */
    enum tensor_dtype dtype;
    struct tensor_shape shape;
    const void *data;
    size_t bytes;
    void *owned; /* only without a file: free() */
};

/* Charges bookkeeping to the payer, in steps: a file full of nodes of ten bytes each must not cost fifty times its
 * size unseen. */
err graph_book(struct graph_reader *r, size_t n);
/* A name: no control characters, no more than GRAPH_MAX_NAME bytes. */
err graph_read_name(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *f, char **ret);
/* `file`: where decoded bytes live and external data is found; NULL: free() ret->owned, and no external data. */
err graph_read_tensor(struct graph_file *file, const struct graph_wire *w, struct graph_tensor_proto *ret);
bool graph_read_dtype(uint64_t number, enum tensor_dtype *ret);
/* AttributeProto. `scope` is passed on to subgraphs. ret is to be freed by the caller even on failure (it is a
 * valid attribute). */
struct graph_scope;
err graph_read_attr(struct graph_reader *r, struct graph_scope *scope, const struct graph_wire *w, int depth,
                    struct op_attr *ret);
err graph_read_graph(struct graph_reader *r, struct graph_scope *outer, const struct graph_wire *w, int depth,
                     struct graph **ret);
/* TypeProto: type and shape of a value. */
err graph_read_type(struct graph_reader *r, const struct graph_wire *w, const char *value_name,
                    struct graph_value *ret);
