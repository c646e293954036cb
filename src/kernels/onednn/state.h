/* What all oneDNN classes have in common: a shared primitive, which buffer goes to which of its arguments, packed
 * weights.
 *
 * A class fills a job and calls onednn_state_new; everything after that (pack, run, free ...) is the same for all
 * classes and is put into their tables by ONEDNN_CLASS. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/onednn/engine.h"
#include "kernels/onednn/prim.h"

enum { ONEDNN_MAX_ARGS = KERNEL_MAX_IN + 4, ONEDNN_FROM_OUT = -1, ONEDNN_MAX_PACKED = 3 };

struct onednn_job {
    struct onednn_spec spec; /* post-operations and threads are filled in from the query */
    double ns; /* a guess at the time on one thread, for choosing the number of threads; 0: by spec.flops */
    int n_args;
    struct {
        int arg, from; /* DNNL_ARG_..., and the number of the input, or ONEDNN_FROM_OUT */
    } args[ONEDNN_MAX_ARGS];
    int n_packed; /* constants to be packed into what the primitive chose, and how they lie in the file */
    struct {
        int arg, from;
        dnnl_memory_desc_t plain;
    } packed[ONEDNN_MAX_PACKED];
};
void onednn_job_arg(struct onednn_job *j, int arg, int from);
void onednn_job_pack(struct onednn_job *j, int arg, int from, const dnnl_memory_desc_t *plain);

/* Fills in the rest of job->spec from q, makes or finds the primitive, charges its code. */
err onednn_state_new(struct onednn_job *job, const struct kernel_query *q, struct mem_payer *payer,
                     struct kernel_state **ret);

/* From now on every run ends with output += input, `count` numbers. */
void onednn_state_add_after(struct kernel_state *s, int input, int64_t count);
/* From now on every run ends with all post-operations of q in plain C; q has one output. */
void onednn_state_posts_after(struct kernel_state *s, const struct kernel_query *q);
/* onednn_state_new; where that fails because nothing that is fast can scale channels, post-operations follow in plain C. */
err onednn_state_scaling(struct onednn_job *job, const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret);

/* Memory descriptors in f32 (rank 1 to TENSOR_MAX_RANK). */
dnnl_memory_desc_t onednn_rows(const struct tensor_shape *s);
dnnl_memory_desc_t onednn_last(const struct tensor_shape *s); /* channels-last; row-major for rank < 3 */
dnnl_memory_desc_t onednn_strided(int rank, const int64_t *dims, const int64_t *strides);
dnnl_memory_desc_t onednn_flat(int64_t count);
dnnl_memory_desc_t onednn_any(int rank, const int64_t *dims);

/* A window as oneDNN counts: dilation from 0. */
struct onednn_window {
    dnnl_dims_t kernel, stride, dilation, begin, end;
};
struct onednn_window onednn_window_of(const struct op_window *w);

/* Number of inputs of the operator itself: those of post-operations come after them. */
int onednn_own_inputs(const struct kernel_query *q);
/* f32, not empty, known exactly. */
bool onednn_takes(const struct tensor *t);
/* The same, or bf16. */
bool onednn_takes_half(const struct tensor *t);
/* Of the inputs and outputs that are there, each on its own: f32 throughout. */
bool onednn_takes_tensors(const struct kernel_query *q);
dnnl_data_type_t onednn_type(const struct tensor *t);
bool onednn_present(const struct kernel_query *q, int i);
/* takes() for output 0 and all present inputs, one output only, and post-operations of known kinds. */
bool onednn_takes_all(const struct kernel_query *q);
/* The same for an operator with constant weights, of which what flows may be bf16: input 0 in bf16 and the output in bf16 or f32, like what is
 * added to it; or all f32. Weights and bias come in f32; weights are packed as bf16 then. */
bool onednn_takes_mixed(const struct kernel_query *q);
/* Input 0 and output 0: both f32, or both bf16. */
bool onednn_takes_pair(const struct kernel_query *q);
/* The most common layouts: images channels-last, vectors row-major, extra inputs of post-operations like the
 * output. */
void onednn_layouts_last(const struct kernel_query *q, struct kernel_layouts *ret);
void onednn_layouts_rows(const struct kernel_query *q, struct kernel_layouts *ret);
/* Does every extra input of a post-operation lie exactly like the output? ERR_UNSUPPORTED if not. */
err onednn_posts_lie_like_output(const struct kernel_query *q);
/* Is the tensor where the class asked for it to be? */
bool onednn_is_last(const struct tensor *t);

size_t onednn_weight_bytes(const struct kernel_state *s, int input);
err onednn_pack(struct kernel_state *s, int input, const void *src, void *dst);
const char *onednn_weight_format(const struct kernel_state *s, int input);
size_t onednn_scratch_bytes(const struct kernel_state *s);
size_t onednn_code_bytes(const struct kernel_state *s);
const char *onednn_describe(const struct kernel_state *s);
err onednn_run(struct kernel_state *s, const struct kernel_buffers *b);
void onednn_state_free(struct kernel_state **s);

#define ONEDNN_CLASS(id, word, accepts_, layouts_, prepare_)                                                       \
    const struct kernel_class id = {.name = "onednn:" word,                                                        \
                                    .accepts = accepts_,                                                           \
                                    .layouts = layouts_,                                                           \
                                    .prepare = prepare_,                                                           \
                                    .weight_bytes = onednn_weight_bytes,                                           \
                                    .pack = onednn_pack,                                                           \
                                    .weight_format = onednn_weight_format,                                         \
                                    .scratch_bytes = onednn_scratch_bytes,                                         \
                                    .code_bytes = onednn_code_bytes,                                               \
                                    .describe = onednn_describe,                                                   \
                                    .run = onednn_run,                                                             \
                                    .free = onednn_state_free}

extern const struct kernel_class onednn_conv, onednn_deconv, onednn_linear, onednn_matmul, onednn_pool,
    onednn_softmax, onednn_norm, onednn_layer_norm, onednn_eltwise, onednn_binary, onednn_resize, onednn_copy;
