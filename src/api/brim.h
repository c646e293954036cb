/* brim as a library: open an ONNX model, plan it for the shapes you have, run it, inside a number of bytes.
 *
 *     brim_model *m = NULL;
 *     brim_plan *p = NULL;
 *     if (brim_model_open("model.onnx", NULL, &m) || brim_plan_new(m, NULL, &p)) puts(brim_error_text());
 *     brim_tensor in = BRIM_TENSOR_INIT, out = BRIM_TENSOR_INIT;
 *     in.data = pixels, in.dtype = BRIM_F32, in.rank = 4, in.shape[0] = 1 ...;
 *     brim_run(p, &in, 1, &out, 1);          // out.data: a view into the plan's own memory
 *     brim_plan_free(&p), brim_model_free(&m);
 *
 * Versions. Structs begin with their size: start from the _INIT macros. A program built for an older library keeps
 * working with a newer one: structs only grow at their end, and zero there means 'as before' (brim_tensor, which
 * comes in arrays, stays as it is). Handles are opaque. brim_version() tells which library runs.
 *
 * Errors. Functions that can fail return BRIM_OK (0) or a negative brim_err. The sentence (what, where, what to do)
 * is brim_error_text(): of the last failure on the calling thread, valid until its next call that fails. Per thread,
 * as errno, and not per call: there is nothing to pass, to free or to forget. Outputs (`ret_...`) are untouched on
 * failure.
 *
 * Threads. Every function may be called from any thread at any time. Calls on one model and its plans wait for each
 * other; different models run at once. A budget may limit the threads that all runs together use; they queue then, in
 * the order of asking. Not guarded: the bytes behind a view, which the next brim_run of that plan overwrites. Freeing
 * a handle that another thread is using is a bug. After fork() without exec, only the process that made the models
 * may run them.
 *
 * Waiting. Runs on several threads use OpenMP, whose threads spin after a run and then sleep: an idle process uses no
 * processor time. How long is read once from the environment, when libgomp is loaded, which is before any code of
 * this library: by default up to six milliseconds. Start the program with GOMP_SPINCOUNT=1000 (40 microseconds), as
 * the program brim and the Python package do for themselves: as fast on a quiet machine, and far faster where other
 * programs want the same processors.
 *
 * Memory. What grows (weights, activations, scratch, kernel code) is counted before it is taken, and refused with
 * BRIM_ERR_NOMEM where the budget has no room; bytes throughout. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#define BRIM_API __attribute__((visibility("default")))

BRIM_API const char *brim_version(void); /* "0.1.0" */

typedef enum brim_err {
    BRIM_OK = 0,
    BRIM_ERR_NOMEM = -1,       /* the budget has no room */
    BRIM_ERR_IO = -2,          /* a file cannot be read */
    BRIM_ERR_USAGE = -3,       /* the call is wrong */
    BRIM_ERR_FORMAT = -4,      /* not an ONNX model, or a damaged one */
    BRIM_ERR_UNSUPPORTED = -5, /* an operator or type that brim does not run */
    BRIM_ERR_LIMIT = -6,       /* larger than anything brim accepts */
    BRIM_ERR_SHAPE = -7,       /* shapes or types do not fit */
    BRIM_ERR_OTHER = -8
} brim_err;
BRIM_API const char *brim_error_text(void);
BRIM_API const char *brim_error_name(brim_err code); /* "out of budget" */

/* clang-format off */
typedef enum brim_dtype { /* the numbers of ONNX */
    BRIM_NONE = 0, BRIM_F32 = 1, BRIM_U8 = 2, BRIM_I8 = 3, BRIM_U16 = 4, BRIM_I16 = 5, BRIM_I32 = 6, BRIM_I64 = 7,
    BRIM_BOOL = 9, BRIM_F16 = 10, BRIM_F64 = 11, BRIM_U32 = 12, BRIM_U64 = 13, BRIM_BF16 = 16
} brim_dtype;
/* clang-format on */
BRIM_API const char *brim_dtype_name(brim_dtype t); /* "float32" */
BRIM_API size_t brim_dtype_size(brim_dtype t);      /* 4; 0 for BRIM_NONE */

typedef struct brim_budget brim_budget;
typedef struct brim_model brim_model;
typedef struct brim_plan brim_plan;

/* ---- a budget: bytes and threads that several models share. Freeing drops the caller's hold only; models have their
 * own. */
typedef struct brim_budget_options {
    size_t size;
    uint64_t bytes; /* 0: no limit */
    int threads;    /* that all runs together may use at one moment; 0: no limit, and each run all processors */
} brim_budget_options;
#define BRIM_BUDGET_OPTIONS_INIT                                                                                     \
    {                                                                                                                \
        sizeof(brim_budget_options), 0, 0                                                                            \
    }
BRIM_API brim_err brim_budget_new(const brim_budget_options *o, brim_budget **ret); /* o NULL: the defaults */
BRIM_API void brim_budget_free(brim_budget **b);
BRIM_API uint64_t brim_budget_used(const brim_budget *b);
BRIM_API uint64_t brim_budget_peak(const brim_budget *b);
BRIM_API uint64_t brim_budget_limit(const brim_budget *b); /* UINT64_MAX: none */

/* ---- a model: an ONNX file */
typedef enum brim_precision {
    BRIM_PRECISION_F32 = 1,
    BRIM_PRECISION_BF16 = 2,
    BRIM_PRECISION_AUTO = 3
} brim_precision;
typedef struct brim_model_options {
    size_t size;
    brim_budget *budget;      /* NULL: one of its own, without a limit */
    int threads;              /* of one run; 0: as many as the budget has. More than those is cut to them */
    brim_precision precision; /* 0: f32. AUTO: bf16 for operators that are faster so; where that is not done, f32 */
    int max_idle_plans;       /* plans kept after brim_plan_free for the same shapes; 0: 4; negative: none */
    const char *cache;        /* folder that keeps what AUTO measured (a small file per model), so that only the first opening pays; NULL:
                                 $BRIM_CACHE, else $XDG_CACHE_HOME/brim, else ~/.cache/brim; "": none. Made if missing; one that
                                 cannot be written is no error. Not used for f32 and bf16 */
} brim_model_options;
#define BRIM_MODEL_OPTIONS_INIT                                                                                      \
    {                                                                                                                \
        sizeof(brim_model_options), NULL, 0, (brim_precision)0, 0, NULL                                                \
    }
/* o may be NULL. The file is read in place and must not be cut shorter while the model lives (replacing it by rename
 * is fine). */
BRIM_API brim_err brim_model_open(const char *path, const brim_model_options *o, brim_model **ret);
/* The same from memory, which is borrowed until the model and all its plans are freed. External data is refused. */
BRIM_API brim_err brim_model_open_bytes(const void *bytes, size_t n, const brim_model_options *o, brim_model **ret);
/* Plans that are still held keep the model alive underneath. Accepts a pointer to NULL, as all _free do, and leaves
 * NULL. */
BRIM_API void brim_model_free(brim_model **m);

typedef struct brim_io {
    size_t size;
    const char *name;      /* valid while the model is, as is symbol[] */
    brim_dtype dtype;      /* BRIM_NONE: the file does not say */
    int rank;              /* -1: the file does not say */
    int64_t shape[8];      /* -1: a symbol, chosen when a plan is made */
    const char *symbol[8]; /* its name ("batch"), else NULL */
} brim_io;
#define BRIM_IO_INIT                                                                                                 \
    {                                                                                                                \
        sizeof(brim_io), NULL, BRIM_NONE, 0, {0},                                                                    \
        {                                                                                                            \
            NULL                                                                                                     \
        }                                                                                                            \
    }
BRIM_API int brim_model_input_count(const brim_model *m);
BRIM_API int brim_model_output_count(const brim_model *m);
BRIM_API brim_err brim_model_input(const brim_model *m, int i, brim_io *ret); /* ret->size must be set */
BRIM_API brim_err brim_model_output(const brim_model *m, int i, brim_io *ret);

/* ---- a plan: a model for fixed input shapes */
typedef struct brim_shape {
    int rank; /* 0 to 8 */
    int64_t dims[8];
} brim_shape;
/* shapes: one per input in the model's order, as ONNX has them (NCHW); NULL: those of the file, a symbolic batch
 * being 1. Planning takes milliseconds to seconds; a plan for the same shapes that is held or idle is given again at
 * once. ERR_NOMEM: idle plans went first. */
BRIM_API brim_err brim_plan_new(brim_model *m, const brim_shape *shapes, brim_plan **ret);
BRIM_API void brim_plan_free(brim_plan **p); /* views into it end */

/* Numbers in memory: the caller's, or a view into the plan's. */
typedef struct brim_tensor {
    size_t size;
    brim_dtype dtype;
    int rank;
    int64_t shape[8];
    int64_t strides[8]; /* bytes, not negative; all 0: row-major */
    void *data;         /* inputs are only read */
    size_t bytes;       /* of data, as far as the caller knows: outputs need it; inputs: 0 or the room behind data */
} brim_tensor;
#define BRIM_TENSOR_INIT                                                                                             \
    {                                                                                                                \
        sizeof(brim_tensor), BRIM_NONE, 0, {0}, {0}, NULL, 0                                                         \
    }
/* Views without copying: fill the inputs before each run (their strides may be channels-last, and running overwrites
 * them); read the outputs before the next. Valid while the plan is held. Before a first run, an output's
 * data-dependent sizes are upper bounds. */
BRIM_API brim_err brim_plan_input(const brim_plan *p, int i, brim_tensor *ret);
BRIM_API brim_err brim_plan_output(const brim_plan *p, int i, brim_tensor *ret);
/* in: n_in is 0 (all inputs were written through their views) or the number of inputs; a tensor with data NULL was
 * written through its view; others are copied in, from any strides. Types and shapes must be the plan's. out: n_out
 * is 0 or the number of outputs; where data is NULL, the view is returned; else the numbers are copied there
 * row-major (`bytes` is the room; ERR_LIMIT if it is too small). dtype, rank, shape, strides and bytes of out are set
 * either way. */
BRIM_API brim_err brim_run(brim_plan *p, const brim_tensor *in, int n_in, brim_tensor *out, int n_out);

typedef struct brim_memory { /* bytes that the model counts; `weights` is for all its plans, the rest for this one */
    size_t size;
    uint64_t weights, activations, activations_lower_bound, scratch, code;
    int64_t flops;              /* of one run */
    int kernels, plain_kernels; /* calls per run; those of them in plain C */
} brim_memory;
#define BRIM_MEMORY_INIT                                                                                             \
    {                                                                                                                \
        sizeof(brim_memory), 0, 0, 0, 0, 0, 0, 0, 0                                                                  \
    }
BRIM_API brim_err brim_plan_memory(const brim_plan *p, brim_memory *ret);
/* Every operation in order with its kernel, layout and bytes. json: 0 is a table for people, else one JSON object.
 * brim_text_free(). */
BRIM_API brim_err brim_plan_explain(const brim_plan *p, int json, char **ret);
BRIM_API void brim_text_free(char **text);

#ifdef __cplusplus
}
#endif
