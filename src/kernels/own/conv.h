/* Inside kernels/own: what a convolution is, and the functions compiled for each width of lanes. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/own/own.h"

struct own_conv {
    int64_t n, h, w, ic, oc, oh, ow, kh, kw, top, left, stride, dilation;
    int64_t block;          /* winograd: tiles at a time */
    size_t thread_floats;   /* of scratch, per thread */
    int n_post, n_simple; /* the first n_simple of them are done in registers: SCALE, then an ADD, then bounds */
    bool scaled, adds, bounded; /* which of them */
    float low, high;
    struct kernel_post post[KERNEL_MAX_POST];
};

struct own_call;
struct own_method {
    size_t (*weight_floats)(const struct own_conv *c);
    void (*pack)(const struct own_conv *c, const float *src, float *dst); /* src: [oc, ic, kh, kw] */
    void (*plan)(struct own_conv *c, int threads);                         /* block, thread_floats */
    void (*run)(const struct own_call *k, int thread, int threads);
};

/* One run. x, y, add: [n, h, w, c], dense. */
struct own_call {
    const struct own_conv *c;
    const struct own_method *method;
    const float *x, *weight, *bias, *scale, *add, *late; /* bias, scale, add: or NULL; late: added by a later post-operation */
    float *y, *scratch;
};

/* What runs over memory: sums and products of two tensors, softmax of short rows, instance normalisation of few channels. */
struct own_flat {
    enum op_kind kind;
    int n_axes;                           /* binary: of the output as it lies, the last with stride 1; neighbours that chain are joined */
    int64_t dims[TENSOR_MAX_RANK], a[TENSOR_MAX_RANK], b[TENSOR_MAX_RANK]; /* sizes, strides of the inputs */
    int64_t n, rows, c;                   /* softmax: rows of c numbers; norm: n samples of `rows` places of c channels */
    float epsilon;
    enum op_kind of;                      /* UnaryGrad: of what, and its parameters */
    float alpha, beta;
    bool by_tanh;                         /* of Gelu's two */
    bool a_half, b_half, y_half;          /* sums, products, functions and their gradients: bf16, else f32 */
    struct own_part *parts;               /* concat: n of them; owned by the state */
    struct own_conv post;                 /* its post-operations alone */
};
/* One input of a Concat: its part of the output, axes as the output lies, neighbours that chain in both joined; the last with stride 1 there. */
struct own_part {
    int n_axes;
    int64_t start, dims[TENSOR_MAX_RANK], from[TENSOR_MAX_RANK], to[TENSOR_MAX_RANK];
};
struct own_flat_call {
    const struct own_flat *f;
    const void *a, *b;                    /* norm: b is the scale */
    const float *shift, *late;
    const void *const *in;                /* concat */
    void *y;
    double *moments;                      /* norm: per sample and block, 2 * c */
    void (*run)(const struct own_flat_call *k, int thread, int threads);
};
enum { OWN_NORM_BLOCK = 1024, OWN_NORM_CHANNELS = 64, OWN_SOFTMAX_ROW = 8 };

/* Dropout in training: n numbers in the order in which they are counted. */
struct kernel_dropout;
struct own_dropout_call {
    const struct kernel_dropout *d;
    int64_t n;
    const void *x;
    void *y;
    bool x_half, y_half; /* bf16, else f32 */
    void (*run)(const struct own_dropout_call *k, int thread, int threads);
};

struct own_train_call;
struct own_lanes {
    int lanes;
    struct own_method winograd, narrow, product, depthwise;
    void (*binary)(const struct own_flat_call *k, int thread, int threads);
    void (*concat)(const struct own_flat_call *k, int thread, int threads);
    void (*softmax)(const struct own_flat_call *k, int thread, int threads);
    void (*norm_measure)(const struct own_flat_call *k, int thread, int threads);
    void (*norm_apply)(const struct own_flat_call *k, int thread, int threads);
    void (*sums)(const struct own_train_call *k, int thread, int threads); /* these: own/train.h */
    void (*affine)(const struct own_train_call *k, int thread, int threads);
    void (*softmax_grad)(const struct own_train_call *k, int thread, int threads);
    void (*layer_norm_grad)(const struct own_train_call *k, int thread, int threads);
    void (*dropout)(const struct own_dropout_call *k, int thread, int threads);
};
extern const struct own_lanes own_lanes512, own_lanes256;

/* The widest that may be used here, or NULL. */
const struct own_lanes *own_lanes(void);
/* The part of [0, n) that is thread t's. */
static inline void own_share(int64_t n, int t, int threads, int64_t *ret_from, int64_t *ret_to)
{
    *ret_from = n * t / threads;
    *ret_to = n * (t + 1) / threads;
}
/* fn(arg, t, threads) for every t, on the team of the calling thread. */
void own_team(int threads, void (*fn)(void *arg, int thread, int threads), void *arg);
