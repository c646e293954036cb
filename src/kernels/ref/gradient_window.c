/* ConvGradWeight, MaxPoolGrad, AveragePoolGrad: channels last, the inner loop over channels, as their forward kernels.
 *
 * ConvGradWeight adds the outer products of the filters of dy and the channels of x, tap by tap, into [tap][channel][filter] in scratch, in
 * the order of the places, so the same numbers give the same bits. Depthwise convolutions have no product: one row per tap.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/spatial.h"

#include <math.h>
#include <string.h>

struct weight_grad {
    struct ref_window w;
    int64_t batch, per_group, filters, channels, own; /* filters of a group, channels in all, channels of a filter */
    int64_t places[3];
    bool depthwise;
};

#define WEIGHT(suffix, T)                                                                                    \
    static void REF_HOT rows_##suffix(T *restrict acc, const T *restrict dy, T x, int64_t n)                 \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++) acc[i] += dy[i] * x;                                                 \
    }                                                                                                        \
    static void REF_HOT each_##suffix(T *restrict acc, const T *restrict dy, const T *restrict x, int64_t n) \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++) acc[i] += dy[i] * x[i];                                              \
    }                                                                                                        \
    static void place_##suffix(const struct weight_grad *g, T *acc, const T *dy, const T *x, const int64_t *at) \
    {                                                                                                        \
        int64_t pixel;                                                                                       \
        for (int64_t t = 0; t < g->w.taps; t++) {                                                            \
            if (!ref_tap(&g->w, at, t, &pixel)) continue;                                                    \
            const T *p = x + pixel * g->channels;                                                            \
            T *to = acc + t * g->own * g->filters;                                                           \
            if (g->depthwise) {                                                                              \
                each_##suffix(to, dy, p, g->filters);                                                        \
                continue;                                                                                    \
            }                                                                                                \
            for (int64_t group = 0; group < g->w.group; group++)                                             \
                for (int64_t c = 0; c < g->own; c++)                                                         \
                    rows_##suffix(to + c * g->filters + group * g->per_group, dy + group * g->per_group,     \
                                  p[group * g->own + c], g->per_group);                                      \
        }                                                                                                    \
    }                                                                                                        \
    static void all_##suffix(const struct weight_grad *g, T *acc, T *bias, const T *dy, const T *x)          \
    {                                                                                                        \
        const int64_t dims[] = {g->batch, g->places[0], g->places[1], g->places[2]};                         \
        int64_t index[4] = {0}, number = 0, plane = g->w.in[0] * g->w.in[1] * g->w.in[2];                    \
        do {                                                                                                 \
            int64_t at[3];                                                                                   \
            for (int i = 0; i < 3; i++) at[i] = index[1 + i] * g->w.stride[i] - g->w.pad[i];                 \
            const T *row = dy + number++ * g->filters;                                                       \
            place_##suffix(g, acc, row, x + index[0] * plane * g->channels, at);                             \
            if (bias) rows_##suffix(bias, row, 1, g->filters);                                               \
        } while (ref_next(4, dims, index));                                                                  \
    }                                                                                                        \
    static void out_##suffix(const struct weight_grad *g, T *dw, const T *acc)                               \
    {                                                                                                        \
        for (int64_t m = 0; m < g->filters; m++)                                                             \
            for (int64_t c = 0; c < g->own; c++)                                                             \
                for (int64_t t = 0; t < g->w.taps; t++) *dw++ = acc[(t * g->own + c) * g->filters + m];      \
    }
WEIGHT(f32, float)
WEIGHT(f64, double)

err ref_conv_grad_weight(struct ref_call *c)
{
    const struct tensor_shape *x_shape = &c->in[1].shape, *dy_shape = &c->in[0].shape, *w_shape = &c->out[0].shape;
    struct weight_grad g = {.batch = x_shape->dims[0], .filters = w_shape->dims[0], .channels = x_shape->dims[1], .own = w_shape->dims[1],
                            .places = {1, 1, 1}};
    struct op_window full;
    if (x_shape->rank > 5) return err_set(ERR_UNSUPPORTED, "more than 3 spatial axes");
    err e = op_window(c->node, x_shape, w_shape, &full);
    if (e) return e;
    for (int i = 0; i < 3; i++) g.w.kernel[i] = g.w.stride[i] = g.w.dilation[i] = g.w.in[i] = g.w.out[i] = 1;
    for (int i = 0, k = 3 - full.n; i < full.n; i++, k++) {
        g.w.kernel[k] = full.kernel[i];
        g.w.stride[k] = full.stride[i];
        g.w.dilation[k] = full.dilation[i];
        g.w.pad[k] = full.pad_begin[i];
        g.w.in[k] = full.in[i];
        g.places[k] = dy_shape->dims[2 + i];
    }
    g.w.taps = g.w.kernel[0] * g.w.kernel[1] * g.w.kernel[2];
    g.w.group = full.group;
    g.per_group = g.filters / g.w.group;
    g.depthwise = g.own == 1 && g.per_group == 1;
    struct tensor dy = ref_dense_in(c, 0, true), x = ref_dense_in(c, 1, true), dw = ref_dense_out(c, 0, false), db = {0};
    if (ref_wants(c, 1)) db = ref_dense_out(c, 1, false);
    size_t bytes = (size_t)tensor_count(w_shape) * (size_t)ref_size(&dw);
    void *acc = ref_scratch(c, bytes);
    memset(acc, 0, bytes);
    if (db.data) memset(db.data, 0, (size_t)(g.filters * ref_size(&db)));
    bool wide = dw.dtype == TENSOR_F64;
    if (tensor_count(dy_shape) > 0 && tensor_count(w_shape) > 0) {
        if (wide) all_f64(&g, acc, db.data, dy.data, x.data);
        else all_f32(&g, acc, db.data, dy.data, x.data);
    }
    if (wide) out_f64(&g, dw.data, acc);
    else out_f32(&g, dw.data, acc);
    ref_dense_done(c, 0, &dw);
    if (db.data) ref_dense_done(c, 1, &db);
    return ERR_OK;
}

size_t ref_conv_grad_weight_scratch(const struct ref_call *c)
{
    size_t all = ref_dense_bytes(&c->in[0], true) + ref_dense_bytes(&c->in[1], true) + ref_dense_bytes(&c->out[0], false);
    if (ref_wants(c, 1)) all += ref_dense_bytes(&c->out[1], false);
    return all + REF_ALIGN(tensor_count(&c->out[0].shape) * 8);
}

/* ---- poolings */

struct pool_grad {
    struct ref_window w;
    int64_t channels, pad_end[3];
    bool include_pad;
};

static int64_t count_taps(const struct pool_grad *p, const int64_t *at)
{
    int64_t count = 1;
    for (int i = 0; i < 3; i++) {
        int64_t low = p->include_pad ? -p->w.pad[i] : 0, high = p->w.in[i] + (p->include_pad ? p->pad_end[i] : 0), n = 0;
        for (int64_t k = 0; k < p->w.kernel[i]; k++) {
            int64_t place = at[i] + k * p->w.dilation[i];
            n += place >= low && place < high;
        }
        count *= n;
    }
    return MAX(count, 1);
}

#define POOL(suffix, T)                                                                                      \
    static void REF_HOT share_##suffix(T *restrict dx, const T *restrict dy, T by, int64_t n)                \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++) dx[i] += dy[i] * by;                                                 \
    }                                                                                                        \
    static void average_##suffix(const struct pool_grad *p, T *dx, const T *dy, const int64_t *at)           \
    {                                                                                                        \
        int64_t pixel;                                                                                       \
        T by = (T)1 / (T)count_taps(p, at);                                                                  \
        for (int64_t t = 0; t < p->w.taps; t++)                                                              \
            if (ref_tap(&p->w, at, t, &pixel)) share_##suffix(dx + pixel * p->channels, dy, by, p->channels); \
    }                                                                                                        \
    /* CHUNK channels at a time: the best so far and where it is */                                          \
    static void REF_HOT most_##suffix(const struct pool_grad *p, T *restrict dx, const T *restrict dy, const T *restrict x, const int64_t *at) \
    {                                                                                                        \
        for (int64_t from = 0; from < p->channels; from += REF_CHUNK) {                                      \
            T best[REF_CHUNK];                                                                               \
            int32_t where[REF_CHUNK];                                                                        \
            int64_t pixel, n = MIN(p->channels - from, REF_CHUNK);                                           \
            bool first = true;                                                                               \
            for (int64_t t = 0; t < p->w.taps; t++) {                                                        \
                if (!ref_tap(&p->w, at, t, &pixel)) continue;                                                \
                const T *v = x + pixel * p->channels + from;                                                 \
                for (int64_t i = 0; i < n; i++) {                                                            \
                    bool more = first || v[i] > best[i] || v[i] != v[i];                                     \
                    best[i] = more ? v[i] : best[i];                                                         \
                    where[i] = more ? (int32_t)pixel : where[i];                                             \
                }                                                                                            \
                first = false;                                                                               \
            }                                                                                                \
            for (int64_t i = 0; i < n && !first; i++) dx[where[i] * p->channels + from + i] += dy[from + i]; \
        }                                                                                                    \
    }                                                                                                        \
    static void pool_##suffix(const struct pool_grad *p, T *dx, const T *dy, const T *x, int64_t batch)      \
    {                                                                                                        \
        const int64_t dims[] = {batch, p->w.out[0], p->w.out[1], p->w.out[2]};                               \
        int64_t index[4] = {0}, number = 0, plane = p->w.in[0] * p->w.in[1] * p->w.in[2] * p->channels;      \
        do {                                                                                                 \
            int64_t at[3];                                                                                   \
            for (int i = 0; i < 3; i++) at[i] = index[1 + i] * p->w.stride[i] - p->w.pad[i];                 \
            const T *row = dy + number++ * p->channels;                                                      \
            if (x)                                                                                           \
                most_##suffix(p, dx + index[0] * plane, row, x + index[0] * plane, at);                      \
            else                                                                                             \
                average_##suffix(p, dx + index[0] * plane, row, at);                                         \
        } while (ref_next(4, dims, index));                                                                  \
    }
POOL(f32, float)
POOL(f64, double)

static err pool_grad(struct ref_call *c, bool most)
{
    const struct tensor_shape *shape = &c->out[0].shape;
    struct pool_grad p = {.channels = shape->dims[1]};
    struct op_window full;
    if (shape->rank > 5) return err_set(ERR_UNSUPPORTED, "more than 3 spatial axes");
    err e = op_window(c->node, shape, NULL, &full);
    if (e) return e;
    for (int i = 0; i < 3; i++) p.w.kernel[i] = p.w.stride[i] = p.w.dilation[i] = p.w.in[i] = p.w.out[i] = 1;
    for (int i = 0, k = 3 - full.n; i < full.n; i++, k++) {
        p.w.kernel[k] = full.kernel[i];
        p.w.stride[k] = full.stride[i];
        p.w.dilation[k] = full.dilation[i];
        p.w.pad[k] = full.pad_begin[i];
        p.pad_end[k] = full.pad_end[i];
        p.w.in[k] = full.in[i];
        p.w.out[k] = full.out[i];
    }
    p.w.taps = p.w.kernel[0] * p.w.kernel[1] * p.w.kernel[2];
    if (p.w.in[0] * p.w.in[1] > INT32_MAX / MAX(p.w.in[2], 1)) return err_set(ERR_LIMIT, "an image of more than 2^31 places");
    p.include_pad = op_attr_int(c->node, "count_include_pad", 0) != 0;
    struct tensor dy = ref_dense_in(c, 0, true), x = {0}, dx;
    if (most) x = ref_dense_in(c, 1, true);
    dx = ref_dense_out(c, 0, true);
    memset(dx.data, 0, (size_t)(tensor_count(shape) * ref_size(&dx)));
    if (tensor_count(&dy.shape) > 0) {
        if (dx.dtype == TENSOR_F64) pool_f64(&p, dx.data, dy.data, x.data, shape->dims[0]);
        else pool_f32(&p, dx.data, dy.data, x.data, shape->dims[0]);
    }
    ref_dense_done(c, 0, &dx);
    return ERR_OK;
}

err ref_max_pool_grad(struct ref_call *c)
{
    return pool_grad(c, true);
}

err ref_average_pool_grad(struct ref_call *c)
{
    return pool_grad(c, false);
}
