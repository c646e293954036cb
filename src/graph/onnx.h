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
    GRAPH_MAX_CALLS = 16,       /* functions in functions */
    GRAPH_MAX_FUNCTIONS = 1 << 14,
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
    size_t n_functions, cap_functions, n_calls;
    struct graph_function *functions; /* function.c */
    struct graph_call *call;          /* the one being expanded, or NULL */
    int ir_version;
    size_t spent; /* bookkeeping so far; file->booked is what was charged */
    size_t n_nodes, n_values;
};

/* The names that a graph, or a function's body, can see. */
struct graph_scope {
    struct graph *g;
    struct graph_names names;
    struct graph_scope *outer;
    int depth;
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
 * valid attribute). ret->type 0: it refers to an attribute that the function's caller did not give. */
err graph_read_attr(struct graph_reader *r, struct graph_scope *scope, const struct graph_wire *w, int depth,
                    struct op_attr *ret);
err graph_read_graph(struct graph_reader *r, struct graph_scope *outer, const struct graph_wire *w, int depth,
                     struct graph **ret);
/* TypeProto: type and shape of a value. */
err graph_read_type(struct graph_reader *r, const struct graph_wire *w, const char *value_name,
                    struct graph_value *ret);
err graph_read_node(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                    const struct graph_field *f);
err graph_read_opset(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *field);
/* The value that an input of a node names: -1 if absent, ERR_FORMAT if nothing makes it. */
err graph_read_use(struct graph_reader *r, struct graph_scope *s, const struct graph_wire *w,
                   const struct graph_field *f, const char *node, int *ret);
err graph_count_value(struct graph_reader *r, size_t name);

/* function.c: functions that the file brings along are put in the place of the nodes that call them. */
enum { GRAPH_ABSENT = -2 }; /* in a scope's names: an input of the function that its caller left out */
struct graph_function *graph_function_find(const struct graph_reader *r, const char *domain, const char *name,
                                           const char *overload);
err graph_function_add(struct graph_reader *r, const struct graph_wire *w, const struct graph_field *f);
err graph_function_expand(struct graph_reader *r, struct graph_scope *s, struct graph_function *fn,
                          const struct graph_wire *node, const char *label);
/* An attribute in a function's body that stands for one of the call. */
err graph_function_attr(struct graph_reader *r, const struct graph_wire *whole, const struct graph_field *ref,
                        int depth, struct op_attr *ret);
void graph_functions_done(struct graph_reader *r);
/* standard.c: the same for operators that the standard defines by others. */
bool graph_standard_has(const char *domain, const char *name);
err graph_standard_expand(struct graph_reader *r, struct graph *g, const char *domain, const char *name, size_t at);
