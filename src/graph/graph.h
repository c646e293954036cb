/* What to compute, in what order: values, nodes, constants; read from ONNX, specialised to shapes, rewritten.
 *
 * A graph read from a file borrows the file's bytes: constants point into the mapping, never copied.
 * `graph_specialise` gives every value a known shape, evaluates whatever is constant then (shape arithmetic folds
 * away), and takes the branch of an If whose condition is known. `graph_rewrite` then works on known shapes only.
 * Plans are made from the result and keyed by the shapes.
 *
 * Values are numbers (indices into `values`); a value has one producer at most. Nodes are in execution order.
 * SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/kernel.h"

struct graph_value {
    char *name;
    enum tensor_dtype dtype;   /* TENSOR_NONE if the file does not say */
    struct tensor_shape shape; /* may hold symbols until specialised */
    bool has_shape;
    bool is_input, is_output;
    bool loose;                /* specialised: type and shape are known only when it was computed */
    bool outer;                /* in a subgraph: the value of this name of the graph around it, ... */
    int outer_value;           /* ... which has this number there */
    bool shared;               /* a constant that other models have as well: no private number is folded into it */
    const void *constant;      /* row-major bytes, or NULL */
    size_t constant_bytes;
    void *owned;               /* same as constant if it was computed here (budget: the graph's payer, MEM_OTHER) */
};

/* A node with what rewrites fused into it. */
struct graph_node {
    struct op_node op;         /* op.in holds the node's own inputs, then those of post-ops */
    int n_own_in;              /* how many of op.in are the operator's own */
    int n_post;
    struct kernel_post post[KERNEL_MAX_POST];
    bool dead;
    bool apart;                /* nothing is fused behind it (recompute.h: its result was kept for others, and its copy has to give the same bits) */
    bool loose;                /* specialised: runs with the sizes that it meets. op.in: its own, then what subgraphs read from outside, attribute by
                                  attribute in the order of their values; subgraphs are the source's own */
};

struct graph {
    char *name;                /* for messages: the file's */
    struct mem_payer *payer;   /* pays for constants computed here; borrowed */
    size_t n_values, cap_values;
    struct graph_value *values;
    size_t n_nodes, cap_nodes;
    struct graph_node *nodes;
    int n_inputs, n_outputs;
    int *inputs, *outputs;     /* value numbers; initialisers are not inputs */
    int n_symbols;
    char **symbols;
    int ir_version, opset;     /* of ai.onnx */
    struct graph *parent;      /* of a subgraph */
    struct graph_file *file;   /* the mapping, reference counted; NULL if built in memory */
    struct graph *source;      /* what this one was specialised from: lives on while we borrow its constants */
    int refs;
};

/* ---- reading (onnx.c) */

/* Opens and reads an ONNX file; the mapping stays open until the last graph that borrows from it is freed.
 * ERR_FORMAT with the byte offset for malformed files, ERR_UNSUPPORTED with operator, node, opset and what to do,
 * ERR_LIMIT for sizes that cannot be. */
err graph_load(const char *path, struct mem_payer *payer, struct graph **ret);
/* The same from memory, which must stay until the graph is freed. `dir`: for external data, or NULL to refuse it.
 * Constants point into the bytes; only those that lie there in another form (packed integers, or not aligned for
 * their type, which protobuf does not promise) are decoded into memory that the payer pays, who must outlive the
 * graph. */
err graph_parse(const char *name, const void *bytes, size_t n, const char *dir, struct mem_payer *payer,
                struct graph **ret);
void graph_free(struct graph **g);
/* Bytes that reading had to decode or realign, over the whole file. */
size_t graph_decoded_bytes(const struct graph *g);

/* A TensorProto (the .pb files of ONNX's backend tests): the view borrows from bytes where it can, else *ret_owned
 * (free()) is set. */
err graph_parse_tensor(const void *bytes, size_t n, struct tensor *ret, char **ret_name, void **ret_owned);

/* ---- writing (write.c): ONNX again. Not for graphs with fused post-ops or subgraphs (ERR_UNSUPPORTED). */

/* Through a temporary file beside it, renamed at the end; into a device or a pipe as it is. */
err graph_save(const struct graph *g, const char *path);
err graph_write(const struct graph *g, void **ret, size_t *ret_n); /* free() */
/* A TensorProto; free(). */
err graph_write_tensor(const char *name, const struct tensor *t, void **ret, size_t *ret_n);

/* ---- changing */

int graph_add_value(struct graph *g, const char *name, enum tensor_dtype dtype, const struct tensor_shape *shape);
/* Appends a node with room for the given numbers of inputs and outputs (filled with -1). The pointer is valid until
 * the next append. */
struct graph_node *graph_add_node(struct graph *g, enum op_kind kind, const char *name, int n_in, int n_out);
/* A constant whose bytes the graph owns; *ret_bytes is to be filled by the caller. */
err graph_add_constant(struct graph *g, const char *name, enum tensor_dtype dtype, const struct tensor_shape *shape,
                       int *ret_value, void **ret_bytes);
/* Consumers per value (graph outputs count as one); free() it. */
int *graph_use_counts(const struct graph *g);
/* Drops dead nodes, restores execution order after rewrites. ERR_FORMAT on a cycle. */
err graph_compact(struct graph *g);
/* Per node: is it needed for an output? free() it. */
char *graph_needed(const struct graph *g);
/* A deep copy of the operator (attributes too, no subgraphs), appended; inputs and outputs are -1. */
struct graph_node *graph_copy_node(struct graph *g, const struct graph_node *from);
/* Takes nodes marked dead off the list. */
void graph_drop_dead(struct graph *g);
/* Execution order alone; nothing is dropped. ERR_FORMAT on a cycle. */
err graph_sort(struct graph *g);
/* A graph to build in memory. opset: of ai.onnx. */
struct graph *graph_new(const char *name, int opset, struct mem_payer *payer);
int graph_add_input(struct graph *g, const char *name, enum tensor_dtype dtype, const struct tensor_shape *shape);
void graph_add_output(struct graph *g, int value);
/* Attributes: replaced if there. */
void graph_set_int(struct graph_node *n, const char *name, int64_t v);
void graph_set_float(struct graph_node *n, const char *name, float v);
void graph_set_string(struct graph_node *n, const char *name, const char *v);
void graph_set_ints(struct graph_node *n, const char *name, const int64_t *v, size_t count);
/* What op_infer and kernels want to know of the node's own inputs; ret has room for KERNEL_MAX_IN. */
void graph_node_infos(const struct graph *g, const struct graph_node *n, struct op_info *ret);

/* ---- specialising and rewriting */

/* A new graph for these input shapes (NULL: those of the file; a symbol that is left becomes 1 if it is the first
 * size of an input, else ERR_SHAPE names it). Every value has a known shape; constants are folded (unless larger
 * than they are worth), dead code is gone. Borrows the same file and keeps `g` alive until freed. An output may be
 * a constant or an input (then `constant` or `is_input` is set and no node makes it). What has sizes that depend on data, and
 * Loop, Scan and an If that is not decided by now, become *loose* nodes (loose.c). A file made for a batch of 1
 * follows another batch where that is provably the same sum per sample, else ERR_SHAPE (batch.c says how). */
err graph_specialise(const struct graph *g, const struct tensor_shape *input_shapes, struct mem_payer *payer,
                     struct graph **ret);

/* What rewrites may do; each has a test that it fires and that numbers hold. */
enum graph_rewrites {
    GRAPH_REWRITE_NONE = 0,
    GRAPH_REWRITE_FOLD = 1, /* batch norm, constant Mul and Add into Conv / Gemm weights and bias */
    GRAPH_REWRITE_FUSE = 2, /* activations and residual Add as post-ops; x * sigmoid(x) into Silu; Pad into Conv */
    GRAPH_REWRITE_ALL = 3,
    GRAPH_REWRITE_PATTERNS = 4, /* of both, what makes one operator of several and fuses nothing: before gradients are taken */
};
err graph_rewrite(struct graph *g, unsigned which);

/* Cuts weights of more than `bytes` along the output channel, so that no single one needs a larger window (slice.c). Numbers stay. */
err graph_slice(struct graph *g, size_t bytes);
