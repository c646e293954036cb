/* Moving elements between layouts: what Copy, Transpose, Slice, Concat, Pad and others come down to.
 *
 * Axes are sorted by the destination's strides and melted, as in loop.c but with negative source strides
 * allowed (Slice backwards). Three inner shapes: a row that is dense on both sides (memcpy), a plane whose
 * dense axis is one on each side (NCHW <-> NHWC: read and written in square tiles, so that both sides use
 * whole cache lines), and anything else, one by one. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <string.h>

enum { TILE = 8 };

struct plan {
    int rank;
    int64_t dims[TENSOR_MAX_RANK], to[TENSOR_MAX_RANK], from[TENSOR_MAX_RANK];
};

static void swap(int64_t *a, int64_t *b)
{
    int64_t t = *a;
    *a = *b;
    *b = t;
}

static void swap_axes(struct plan *p, int i, int j)
{
    swap(&p->dims[i], &p->dims[j]);
    swap(&p->to[i], &p->to[j]);
    swap(&p->from[i], &p->from[j]);
}

/* False if there is nothing to copy. */
static bool make_plan(struct plan *p, int rank, const int64_t *dims, const int64_t *to, const int64_t *from)
{
    int n = 0;
    for (int i = 0; i < rank; i++) {
        if (dims[i] == 0) return false;
        if (dims[i] == 1) continue;
        p->dims[n] = dims[i];
        p->to[n] = to[i];
        p->from[n] = from[i];
        for (int j = n++; j > 0 && p->to[j - 1] < p->to[j]; j--)
            swap_axes(p, j - 1, j);
    }
    int last = 0;
    for (int i = 1; i < n; i++) {
        if (p->to[last] == p->to[i] * p->dims[i] && p->from[last] == p->from[i] * p->dims[i]) {
            p->dims[last] *= p->dims[i];
        } else {
            last++;
            p->dims[last] = p->dims[i];
        }
        p->to[last] = p->to[i];
        p->from[last] = p->from[i];
    }
    p->rank = n ? last + 1 : 0;
    return true;
}

/* rows x cols; the destination's columns are `to_row` apart in rows and dense in columns where to_col is 1.
 */
#define MOVERS(T)                                                                                            \
    static void row_##T(T *to, int64_t a, const T *from, int64_t b, int64_t n)                               \
    {                                                                                                        \
        if (a == 1 && b == 0)                                                                                \
            for (int64_t i = 0; i < n; i++)                                                                  \
                to[i] = from[0];                                                                             \
        else if (a == 1)                                                                                     \
            for (int64_t i = 0; i < n; i++)                                                                  \
                to[i] = from[i * b];                                                                         \
        else                                                                                                 \
            for (int64_t i = 0; i < n; i++)                                                                  \
                to[i * a] = from[i * b];                                                                     \
    }                                                                                                        \
    static void plane_##T(T *to, const int64_t *ts, const T *from, const int64_t *fs, const int64_t *n)      \
    {                                                                                                        \
        for (int64_t i = 0; i < n[0]; i += TILE)                                                             \
            for (int64_t j = 0; j < n[1]; j += TILE) {                                                       \
                int64_t i_end = MIN(i + TILE, n[0]), j_end = MIN(j + TILE, n[1]);                            \
                for (int64_t ii = i; ii < i_end; ii++)                                                       \
                    for (int64_t jj = j; jj < j_end; jj++)                                                   \
                        to[ii * ts[0] + jj * ts[1]] = from[ii * fs[0] + jj * fs[1]];                         \
            }                                                                                                \
    }
MOVERS(uint8_t)
MOVERS(uint16_t)
MOVERS(uint32_t)
MOVERS(uint64_t)

static void copy_row(size_t size, void *to, int64_t a, const void *from, int64_t b, int64_t n)
{
    if (a == 1 && b == 1) {
        memcpy(to, from, (size_t)n * size);
        return;
    }
    switch (size) {
    case 1:
        row_uint8_t(to, a, from, b, n);
        return;
    case 2:
        row_uint16_t(to, a, from, b, n);
        return;
    case 4:
        row_uint32_t(to, a, from, b, n);
        return;
    case 8:
        row_uint64_t(to, a, from, b, n);
        return;
    }
}

static void copy_plane(size_t size, void *to, const int64_t *ts, const void *from, const int64_t *fs,
                       const int64_t *n)
{
    switch (size) {
    case 1:
        plane_uint8_t(to, ts, from, fs, n);
        return;
    case 2:
        plane_uint16_t(to, ts, from, fs, n);
        return;
    case 4:
        plane_uint32_t(to, ts, from, fs, n);
        return;
    case 8:
        plane_uint64_t(to, ts, from, fs, n);
        return;
    }
}

/* Where the source is dense along another axis than the destination, that axis becomes the second innermost.
 */
static bool find_plane(struct plan *p)
{
    int last = p->rank - 1;
    if (p->rank < 2 || p->from[last] == 1 || p->from[last] == 0) return false;
    for (int i = 0; i < last; i++)
        if (p->from[i] == 1) {
            for (int j = i; j + 1 < last; j++)
                swap_axes(p, j, j + 1);
            return true;
        }
    return false;
}

void ref_copy(size_t size, int rank, const int64_t *dims, void *to, const int64_t *to_strides,
              const void *from, const int64_t *from_strides)
{
    struct plan p;
    if (!make_plan(&p, rank, dims, to_strides, from_strides)) return;
    if (p.rank == 0) {
        memcpy(to, from, size);
        return;
    }
    int inner = find_plane(&p) ? 2 : 1, outer = p.rank - inner;
    int64_t index[TENSOR_MAX_RANK] = {0}, width = (int64_t)size;
    char *t = to;
    const char *f = from;
    for (;;) {
        if (inner == 2)
            copy_plane(size, t, &p.to[outer], f, &p.from[outer], &p.dims[outer]);
        else
            copy_row(size, t, p.to[outer], f, p.from[outer], p.dims[outer]);
        int i = outer - 1;
        for (; i >= 0; i--) {
            t += p.to[i] * width;
            f += p.from[i] * width;
            if (++index[i] < p.dims[i]) break;
            t -= p.to[i] * p.dims[i] * width;
            f -= p.from[i] * p.dims[i] * width;
            index[i] = 0;
        }
        if (i < 0) return;
    }
}

void ref_copy_tensor(const struct tensor *to, const struct tensor *from)
{
    ref_copy((size_t)ref_size(to), to->shape.rank, to->shape.dims, to->data, to->strides, from->data,
             from->strides);
}

static void cast_row(void *context, char *const *p, const int64_t *step, int64_t n)
{
    const enum tensor_dtype *types = context;
    double in[REF_CHUNK], out[REF_CHUNK];
    int64_t size = (int64_t)tensor_dtype_size(types[0]);
    bool direct = step[0] == size && ref_domain_dtype(types[0]) == types[0];
    for (int64_t i = 0; i < n; i += REF_CHUNK) {
        int64_t m = MIN(n - i, REF_CHUNK);
        const void *s = ref_fetch(types[1], p[1] + i * step[1], step[1], m, in);
        char *to = p[0] + i * step[0];
        ref_convert(ref_domain(types[1]), s, types[0], direct ? to : (char *)out, m);
        if (!direct) ref_put(types[0], to, step[0], m, out);
    }
}

void ref_cast_tensor(const struct tensor *to, const struct tensor *from)
{
    if (to->dtype == from->dtype) {
        ref_copy_tensor(to, from);
        return;
    }
    struct ref_loop l;
    enum tensor_dtype types[2] = {to->dtype, from->dtype};
    ref_loop_init(&l, &to->shape, 2, (const struct tensor *[]){to, from});
    ref_loop_run(&l, cast_row, types);
}

void ref_fill(const struct tensor *to, const void *element)
{
    static const int64_t zero[TENSOR_MAX_RANK] = {0};
    ref_copy((size_t)ref_size(to), to->shape.rank, to->shape.dims, to->data, to->strides, element, zero);
}
