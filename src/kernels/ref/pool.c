/* MaxPool (with places), AveragePool: channels last, the inner loop over channels.
 *
 * An average divides by the taps inside the image, or with count_include_pad by those inside image and
 * padding: a last window that ceil_mode added and that reaches over the padding counts only what is there.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/spatial.h"

#include <math.h>
#include <string.h>

struct pool {
    struct ref_window w;
    int64_t batch, channels, pad_end[3];
    bool average, include_pad;
};

#define POOL(T, suffix, LOWEST)                                                                              \
    static void REF_HOT most_##suffix(T *restrict y, const T *restrict x, int64_t n)                         \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++)                                                                      \
            y[i] = y[i] < x[i] || x[i] != x[i] ? x[i] : y[i];                                                \
    }                                                                                                        \
    static void REF_HOT plus_##suffix(T *restrict y, const T *restrict x, int64_t n)                         \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++)                                                                      \
            y[i] += x[i];                                                                                    \
    }                                                                                                        \
    static void window_##suffix(const struct pool *p, const T *x, T *y, const int64_t *at, int64_t inside)   \
    {                                                                                                        \
        int64_t pixel, n = p->channels;                                                                      \
        for (int64_t i = 0; i < n; i++)                                                                      \
            y[i] = p->average ? 0 : LOWEST;                                                                  \
        for (int64_t t = 0; t < p->w.taps; t++)                                                              \
            if (ref_tap(&p->w, at, t, &pixel))                                                               \
                (p->average ? plus_##suffix : most_##suffix)(y, x + pixel * n, n);                           \
        if (p->average)                                                                                      \
            for (int64_t i = 0; i < n; i++)                                                                  \
                y[i] = y[i] / (T)MAX(inside, 1);                                                             \
    }
POOL(float, f32, -INFINITY)
POOL(double, f64, -(double)INFINITY)
POOL(int64_t, i64, INT64_MIN)

/* The divisor of an average: taps inside the image (or the image with its padding). */
static int64_t count_taps(const struct pool *p, const int64_t *at)
{
    int64_t count = 1;
    for (int i = 0; i < 3; i++) {
        int64_t low = p->include_pad ? -p->w.pad[i] : 0,
                high = p->w.in[i] + (p->include_pad ? p->pad_end[i] : 0), n = 0;
        for (int64_t k = 0; k < p->w.kernel[i]; k++) {
            int64_t at_tap = at[i] + k * p->w.dilation[i];
            n += at_tap >= low && at_tap < high;
        }
        count *= n;
    }
    return count;
}

/* The place of each maximum in the input's row-major (or column-major) order. */
static void find_places(const struct pool *p, const struct tensor *x, const struct tensor *places, int64_t n,
                        const int64_t *at, const int64_t *out_at, bool column_major)
{
    const int64_t *in = p->w.in;
    int64_t plane = in[0] * in[1] * in[2], size = ref_size(x);
    for (int64_t c = 0; c < p->channels; c++) {
        int64_t pixel, found = -1, place = -1;
        double most = 0;
        for (int64_t t = 0; t < p->w.taps; t++) {
            if (!ref_tap(&p->w, at, t, &pixel)) continue;
            union {
                float f;
                double d;
                int64_t i;
            } v;
            double d;
            ref_get(x->dtype, (const char *)x->data + ((n * plane + pixel) * p->channels + c) * size, 0, 1,
                    &v);
            ref_convert(ref_domain(x->dtype), &v, TENSOR_F64, &d, 1);
            if (found < 0 || d > most) {
                most = d;
                found = pixel;
            }
        }
        if (found >= 0) {
            const int64_t z = found / in[2] / in[1], r = found / in[2] % in[1], q = found % in[2];
            place = (n * p->channels + c) * plane + (column_major ? (q * in[1] + r) * in[0] + z : found);
        }
        int64_t offset = n * places->strides[0] + c * places->strides[1];
        for (int i = 2; i < places->shape.rank; i++)
            offset += out_at[3 - places->shape.rank + i] * places->strides[i];
        ((int64_t *)places->data)[offset] = place;
    }
}

static void run_window(const struct pool *p, const struct tensor *x, const struct tensor *y, int64_t n,
                       int64_t number, const int64_t *at)
{
    int64_t plane = p->w.in[0] * p->w.in[1] * p->w.in[2], from = n * plane * p->channels,
            to = number * p->channels;
    int64_t inside = p->average ? count_taps(p, at) : 0;
    switch (ref_domain(x->dtype)) {
    case REF_F32:
        window_f32(p, (const float *)x->data + from, (float *)y->data + to, at, inside);
        return;
    case REF_F64:
        window_f64(p, (const double *)x->data + from, (double *)y->data + to, at, inside);
        return;
    default:
        window_i64(p, (const int64_t *)x->data + from, (int64_t *)y->data + to, at, inside);
        return;
    }
}

static err pool(struct ref_call *c, bool average)
{
    struct pool p = {.batch = c->in[0].shape.dims[0], .channels = c->in[0].shape.dims[1], .average = average};
    struct op_window full;
    err e = ref_window_read(c, NULL, &p.w);
    if (!e) e = op_window(c->node, &c->in[0].shape, NULL, &full);
    if (e || tensor_count(&c->out[0].shape) == 0) return e;
    p.include_pad = average && op_attr_int(c->node, "count_include_pad", 0) != 0;
    for (int i = 0; i < full.n; i++)
        p.pad_end[3 - full.n + i] = full.pad_end[i];
    bool column_major = op_attr_int(c->node, "storage_order", 0) != 0;
    struct tensor x = ref_dense_in(c, 0, true), y = ref_dense_out(c, 0, true);
    const struct ref_window *w = &p.w;
    int64_t index[4] = {0}, number = 0;
    const int64_t dims[4] = {p.batch, w->out[0], w->out[1], w->out[2]};
    do {
        int64_t at[3];
        for (int i = 0; i < 3; i++)
            at[i] = index[1 + i] * w->stride[i] - w->pad[i];
        run_window(&p, &x, &y, index[0], number++, at);
        if (!average && ref_wants(c, 1))
            find_places(&p, &x, &c->out[1], index[0], at, index + 1, column_major);
    } while (ref_next(4, dims, index));
    ref_dense_done(c, 0, &y);
    return ERR_OK;
}

size_t ref_pool_scratch(const struct ref_call *c)
{
    return ref_dense_bytes(&c->in[0], true) + ref_dense_bytes(&c->out[0], true);
}

err ref_max_pool(struct ref_call *c)
{
    return pool(c, false);
}

err ref_average_pool(struct ref_call *c)
{
    return pool(c, true);
}
