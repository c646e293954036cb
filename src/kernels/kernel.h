/* The kernel contract: the seam between planning and arithmetic, for plain C, oneDNN, and later CUDA.
 *
 * A *kernel class* (ref, onednn:conv ...) is a static const table. The planner asks the classes in the order of
 * kernels_list(): the first one that accepts a query gets it; plain C is last and accepts everything that has a shape rule.
 *
 *     query    which operator, types, shapes, which inputs are constants, fused post-ops, threads (precision: types decide)
 *     layout   how the class wants each input and gives each output (strides); the planner inserts copies where needed
 *     prepare  -> state: creates whatever runs (JIT code is charged to the payer as MEM_CODE)
 *     pack     constant inputs into the form that run() reads: once per weight, into memory that the caller owns
 *     run      no allocation through the budget, no lock; safe to call with different states at the same time
 *
 * Nothing above this room knows a packed layout or a processor. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "mem/mem.h"
#include "op/op.h"

enum { KERNEL_MAX_IN = 64, KERNEL_MAX_OUT = 32, KERNEL_MAX_POST = 4 };

enum kernel_precision { KERNEL_F32 = 1, KERNEL_BF16, KERNEL_AUTO };

/* Fused into the operator's output, applied in order, element by element, in f32. */
enum kernel_post_kind {
    KERNEL_POST_RELU = 1,     /* max(x, 0) */
    KERNEL_POST_LEAKY_RELU,   /* x < 0 ? alpha x : x */
    KERNEL_POST_CLIP,         /* min(max(x, alpha), beta) */
    KERNEL_POST_SIGMOID,      /* 1 / (1 + exp(-x)) */
    KERNEL_POST_SILU,         /* x sigmoid(x) */
    KERNEL_POST_HARD_SIGMOID, /* max(0, min(1, alpha x + beta)) */
    KERNEL_POST_HARD_SWISH,   /* x max(0, min(1, x / 6 + 0.5)) */
    KERNEL_POST_TANH,
    KERNEL_POST_ELU,          /* x < 0 ? alpha (exp(x) - 1) : x */
    KERNEL_POST_ADD,          /* x + the extra input number `input`, same shape as the output, in any strides */
    KERNEL_POST_SCALE,        /* x * the extra input number `input`, a constant with one number per output channel: its shape broadcasts to the output's. Always the first */
};
struct kernel_post {
    enum kernel_post_kind kind;
    float alpha, beta;
    int input; /* index into the query's inputs, for KERNEL_POST_ADD and KERNEL_POST_SCALE */
};
static inline bool kernel_post_reads(const struct kernel_post *p)
{
    return p->kind == KERNEL_POST_ADD || p->kind == KERNEL_POST_SCALE;
}

struct kernel_query {
    const struct op_node *node;
    int n_in, n_out; /* n_in counts the node's inputs, then those of post-ops */
    const struct tensor *in; /* dtype, shape, strides; data != NULL: a constant, row-major, its bytes readable until pack */
    const struct tensor *out; /* data is NULL */
    int n_post;
    struct kernel_post post[KERNEL_MAX_POST];
    int threads;
    bool half; /* training: products may round what they multiply to bf16; sums are f32 */
};

/* How a class wants its inputs and gives its outputs. */
enum kernel_layout {
    KERNEL_LAYOUT_ANY = 1,      /* input: any strides at all. output: follows the first non-constant input of the same rank if
                                   that is dense, else row-major */
    KERNEL_LAYOUT_ROW_MAJOR,
    KERNEL_LAYOUT_CHANNELS_LAST,
    KERNEL_LAYOUT_PACKED,       /* a constant that run() reads in this class's own form: see weight_bytes and pack */
};
struct kernel_layouts {
    enum kernel_layout in[KERNEL_MAX_IN], out[KERNEL_MAX_OUT];
};

struct kernel_state; /* each class casts it to its own */

/* in[i] points to the packed bytes for KERNEL_LAYOUT_PACKED inputs, else to the first element of the view; NULL: absent. */
struct kernel_buffers {
    const void *in[KERNEL_MAX_IN];
    void *out[KERNEL_MAX_OUT];
    void *scratch;
    /* Outputs with bounded sizes: run() writes the true sizes here; the planner reads them. Else NULL. */
    struct tensor_shape *out_shape[KERNEL_MAX_OUT];
};

struct kernel_class {
    const char *name; /* "ref", "onednn:conv" */
    bool (*accepts)(const struct kernel_query *q);
    /* Called after accepts; strides in q are not final yet. */
    void (*layouts)(const struct kernel_query *q, struct kernel_layouts *ret);
    /* Strides in q are final. q and what it points to are borrowed until the call returns, except q->node, which lives as
     * long as the state. ERR_UNSUPPORTED: the planner goes on with the next class. */
    err (*prepare)(const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret);
    /* Bytes of constant input i once packed, 0 if i is not packed by this class; its alignment is 64. */
    size_t (*weight_bytes)(const struct kernel_state *s, int input);
    /* src: the constant in row-major ONNX order. */
    err (*pack)(struct kernel_state *s, int input, const void *src, void *dst);
    /* A word that is equal for two packed forms exactly if they may share bytes ("f32:acdb64a"); valid as long as s. */
    const char *(*weight_format)(const struct kernel_state *s, int input);
    size_t (*scratch_bytes)(const struct kernel_state *s);
    size_t (*code_bytes)(const struct kernel_state *s);
    /* One line for `brim explain`: the implementation in words ("brgconv:avx512_core"); valid as long as s. */
    const char *(*describe)(const struct kernel_state *s);
    err (*run)(struct kernel_state *s, const struct kernel_buffers *b);
    void (*free)(struct kernel_state **s);
};

/* Does the machine multiply bf16 faster than f32 (AVX-512 BF16, AMX)? DNNL_MAX_CPU_ISA holds here, too. */
bool kernels_have_bf16(void);
/* Can an operator in bf16 have these after it? If not, it has to stay in f32, where plain C can do it. */
bool kernels_fuse_bf16(const struct kernel_post *post, int n_post);
/* Is BRIM_ONLY_REF set: plain C wherever kernels are chosen, as a second opinion on everything (`./run test --only-ref`)? */
bool kernels_only_ref(void);
/* NULL-terminated, strongest first. `only_ref`: the plain C classes alone. */
const struct kernel_class *const *kernels_list(bool only_ref);

/* Plain C at once, for constants (graph) and for tests: out[i] must have its shape and strides set and memory behind it.
 * Accepts any strides. ERR_UNSUPPORTED if plain C has no such operator or type. Bounded outputs: shape becomes exact. */
err kernels_ref_run(const struct op_node *n, const struct tensor *in, int n_in, struct tensor *out, int n_out);
