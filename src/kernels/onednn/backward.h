/* For operators of training: one primitive whose weights are no constants, so that they are brought into the layout that it chose, and results out of it,
 * at each run; in scratch. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/onednn/state.h"

enum { ONEDNN_CHAIN_ARGS = 10 };

struct onednn_chain_job {
    struct onednn_spec spec; /* post-operations and threads are filled in */
    double ns;               /* as in onednn_job */
    int n_args;
    struct {
        int arg, index; /* DNNL_ARG_..., number of the input or output */
        bool out, has_plain;
        dnnl_memory_desc_t plain; /* how it lies; where the primitive wants it so, nothing is moved */
    } args[ONEDNN_CHAIN_ARGS];
    bool add_after; /* the only post-operation, an ADD, is done in a loop after the run (backward primitives have none) */
    /* BatchNormTrain: running numbers, inputs 3 and 4 to outputs 3 and 4. */
    int64_t channels;
    float momentum, unbiased;
};
void onednn_chain_arg(struct onednn_chain_job *j, int arg, bool out, int index, const dnnl_memory_desc_t *plain);
err onednn_chain_new(struct onednn_chain_job *j, const struct kernel_query *q, struct mem_payer *payer, struct kernel_state **ret);

/* A backward primitive with the forward one that oneDNN wants to see first: spec.desc points to such a pair, spec.make is onednn_make_pair. */
struct onednn_conv_pair {
    dnnl_convolution_desc_t forward, backward;
};
struct onednn_norm_pair {
    dnnl_batch_normalization_desc_t forward, backward;
};
onednn_make_fn onednn_make_conv_pair, onednn_make_norm_pair;

size_t onednn_chain_weight_bytes(const struct kernel_state *s, int input);
err onednn_chain_pack(struct kernel_state *s, int input, const void *src, void *dst);
const char *onednn_chain_weight_format(const struct kernel_state *s, int input);
size_t onednn_chain_scratch(const struct kernel_state *s);
size_t onednn_chain_code(const struct kernel_state *s);
const char *onednn_chain_describe(const struct kernel_state *s);
err onednn_chain_run(struct kernel_state *s, const struct kernel_buffers *b);
void onednn_chain_free(struct kernel_state **s);

#define ONEDNN_CHAIN_CLASS(id, word, accepts_, layouts_, prepare_)                                                 \
    const struct kernel_class id = {.name = "onednn:" word,                                                        \
                                    .accepts = accepts_,                                                           \
                                    .layouts = layouts_,                                                           \
                                    .prepare = prepare_,                                                           \
                                    .weight_bytes = onednn_chain_weight_bytes,                                     \
                                    .pack = onednn_chain_pack,                                                     \
                                    .weight_format = onednn_chain_weight_format,                                   \
                                    .scratch_bytes = onednn_chain_scratch,                                         \
                                    .code_bytes = onednn_chain_code,                                               \
                                    .describe = onednn_chain_describe,                                             \
                                    .run = onednn_chain_run,                                                       \
                                    .free = onednn_chain_free}

/* Would train_conv round what it multiplies to bf16 for this query? */
bool onednn_halves_pay(const struct kernel_query *q);
extern const struct kernel_class onednn_train_conv, onednn_train_product, onednn_train_matmul, onednn_train_norm;
