/* Picking by value: TopK, NonMaxSuppression, NonZero.
 *
 * Numbers become 64-bit keys that order as the numbers do (NaN above all, -0 equal to 0), so that one merge
 * sort serves all types; equal keys keep the order of their indices. It works in scratch, because qsort may
 * allocate. SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ops.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

struct ranked {
    uint64_t key;
    int64_t index;
};

static uint64_t key_of_double(double v)
{
    uint64_t bits;
    if (v != v) return UINT64_MAX;
    v = v == 0 ? 0 : v;
    memcpy(&bits, &v, sizeof bits);
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}

uint64_t ref_key_at(const struct tensor *t, int64_t offset)
{
    union {
        float f;
        double d;
        int64_t i;
        uint64_t u;
    } v;
    ref_get(t->dtype, (const char *)t->data + offset * ref_size(t), 0, 1, &v);
    switch (ref_domain(t->dtype)) {
    case REF_F32:
        return key_of_double((double)v.f);
    case REF_F64:
        return key_of_double(v.d);
    case REF_I64:
        return v.u ^ 1ull << 63;
    case REF_U64:
        break;
    }
    return v.u;
}

/* Largest key first; bottom-up merges between `a` and `b` (n each). */
static void sort(struct ranked *a, struct ranked *b, int64_t n)
{
    struct ranked *from = a, *to = b;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t i = 0; i < n; i += 2 * width) {
            int64_t left = i, middle = MIN(i + width, n), right = middle, end = MIN(i + 2 * width, n);
            for (int64_t k = i; k < end; k++)
                to[k] = left < middle && (right >= end || from[left].key >= from[right].key) ? from[left++]
                                                                                             : from[right++];
        }
        struct ranked *t = from;
        from = to;
        to = t;
    }
    if (from != a) memcpy(a, from, (size_t)n * sizeof *a);
}

/* ---- TopK */

size_t ref_topk_scratch(const struct ref_call *c)
{
    int axis = 0;
    if (ref_axis(op_attr_int(c->node, "axis", -1), c->in[0].shape.rank, &axis)) return 0;
    return 2 * REF_ALIGN((size_t)c->in[0].shape.dims[axis] * sizeof(struct ranked));
}

static void put_top(const struct ref_call *c, const struct ranked *best, int64_t k, const int64_t *index,
                    int axis, int64_t from)
{
    const struct tensor *in = &c->in[0];
    int64_t size = ref_size(in);
    for (int64_t i = 0; i < k; i++) {
        int64_t values = 0, places = 0;
        for (int d = 0; d < in->shape.rank; d++) {
            int64_t at = d == axis ? i : index[d];
            values += at * c->out[0].strides[d];
            places += at * c->out[1].strides[d];
        }
        memcpy((char *)c->out[0].data + values * size,
               (const char *)in->data + (from + best[i].index * in->strides[axis]) * size, (size_t)size);
        if (ref_wants(c, 1)) ((int64_t *)c->out[1].data)[places] = best[i].index;
    }
}

/* k was not known when the plan was made: the output has room for the whole axis, and its true size is told
 * now. */
static err read_k(struct ref_call *c, int axis, int64_t n, int64_t *ret)
{
    const struct tensor *in = &c->in[1];
    if (c->n_in < 2 || in->dtype != TENSOR_I64 || !in->data || tensor_count(&in->shape) != 1)
        return err_set(ERR_SHAPE, "TopK: k is no number");
    int64_t k = *(const int64_t *)in->data;
    if (k < 0 || k > n) return err_set(ERR_SHAPE, "TopK: %lld of %lld", (long long)k, (long long)n);
    for (int i = 0; i < c->n_out; i++) {
        c->out[i].shape.dims[axis] = k;
        c->out[i].shape.bounded = 0;
    }
    *ret = k;
    return ERR_OK;
}

err ref_topk(struct ref_call *c)
{
    const struct tensor *in = &c->in[0];
    int axis = 0, rank = in->shape.rank;
    err e = ref_axis(op_attr_int(c->node, "axis", -1), rank, &axis);
    if (e) return e;
    int64_t n = in->shape.dims[axis], k = c->out[0].shape.dims[axis];
    uint64_t flip = op_attr_int(c->node, "largest", 1) ? 0 : UINT64_MAX;
    if (k > n || c->n_out < 2 || (ref_wants(c, 1) && c->out[1].dtype != TENSOR_I64))
        return err_set(ERR_SHAPE, "TopK: %lld of %lld", (long long)k, (long long)n);
    if (c->out[0].shape.bounded >> axis & 1) {
        if ((e = read_k(c, axis, n, &k))) return e;
    }
    if (tensor_count(&c->out[0].shape) == 0) return ERR_OK;
    struct ranked *a = ref_scratch(c, (size_t)n * sizeof *a), *b = ref_scratch(c, (size_t)n * sizeof *b);
    struct tensor_shape lanes = in->shape;
    lanes.dims[axis] = 1;
    int64_t index[TENSOR_MAX_RANK] = {0};
    do {
        int64_t from = 0;
        for (int i = 0; i < rank; i++)
            from += index[i] * in->strides[i];
        for (int64_t i = 0; i < n; i++)
            a[i] = (struct ranked){ref_key_at(in, from + i * in->strides[axis]) ^ flip, i};
        sort(a, b, n);
        put_top(c, a, k, index, axis, from);
    } while (ref_next(rank, lanes.dims, index));
    return ERR_OK;
}

/* ---- NonMaxSuppression */

struct box {
    float x1, y1, x2, y2;
};

static struct box box_at(const struct tensor *boxes, int64_t batch, int64_t i, bool center)
{
    float v[4];
    for (int64_t k = 0; k < 4; k++)
        v[k] = (float)ref_double_at(boxes, (batch * boxes->shape.dims[1] + i) * 4 + k);
    if (center) return (struct box){v[0] - v[2] / 2, v[1] - v[3] / 2, v[0] + v[2] / 2, v[1] + v[3] / 2};
    return (struct box){fminf(v[1], v[3]), fminf(v[0], v[2]), fmaxf(v[1], v[3]), fmaxf(v[0], v[2])};
}

static bool overlaps(const struct box *a, const struct box *b, float threshold)
{
    float w = fminf(a->x2, b->x2) - fmaxf(a->x1, b->x1), h = fminf(a->y2, b->y2) - fmaxf(a->y1, b->y1);
    if (!(w > 0) || !(h > 0)) return false;
    float area_a = (a->x2 - a->x1) * (a->y2 - a->y1), area_b = (b->x2 - b->x1) * (b->y2 - b->y1);
    if (!(area_a > 0) || !(area_b > 0)) return false;
    return w * h / (area_a + area_b - w * h) > threshold;
}

struct nms {
    const struct tensor *boxes, *scores, *out;
    struct ranked *candidates, *other;
    struct box *chosen;
    int64_t most, written;
    float iou, score;
    bool has_score, center;
};

static void write_row(struct nms *s, int64_t batch, int64_t class, int64_t box)
{
    const int64_t row[3] = {batch, class, box};
    for (int64_t k = 0; k < 3; k++)
        ((int64_t *)s->out->data)[s->written * s->out->strides[0] + k * s->out->strides[1]] = row[k];
    s->written++;
}

static void one_class(struct nms *s, int64_t batch, int64_t class)
{
    int64_t n = s->boxes->shape.dims[1], count = 0, chosen = 0;
    for (int64_t i = 0; i < n; i++) {
        double v = ref_double_at(s->scores, (batch * s->scores->shape.dims[1] + class) * n + i);
        if (!s->has_score || v > (double)s->score)
            s->candidates[count++] = (struct ranked){key_of_double(v), i};
    }
    sort(s->candidates, s->other, count);
    for (int64_t i = 0; i < count && chosen < s->most && s->written < s->out->shape.dims[0]; i++) {
        struct box b = box_at(s->boxes, batch, s->candidates[i].index, s->center);
        bool free_space = true;
        for (int64_t k = 0; k < chosen && free_space; k++)
            free_space = !overlaps(&b, &s->chosen[k], s->iou);
        if (!free_space) continue;
        s->chosen[chosen++] = b;
        write_row(s, batch, class, s->candidates[i].index);
    }
}

size_t ref_nms_scratch(const struct ref_call *c)
{
    size_t n = c->in[0].shape.rank == 3 ? (size_t)c->in[0].shape.dims[1] : 0;
    return 2 * REF_ALIGN(n * sizeof(struct ranked)) + REF_ALIGN(n * sizeof(struct box));
}

err ref_nms(struct ref_call *c)
{
    struct nms s = {.boxes = &c->in[0], .scores = &c->in[1], .out = &c->out[0]};
    const struct tensor_shape *b = &s.boxes->shape, *p = &s.scores->shape;
    if (b->rank != 3 || p->rank != 3 || b->dims[2] != 4 || p->dims[0] != b->dims[0] ||
        p->dims[2] != b->dims[1])
        return err_set(ERR_SHAPE, "boxes [batch, n, 4] and scores [batch, classes, n] do not fit");
    if (s.out->dtype != TENSOR_I64 || s.out->shape.rank != 2 || s.out->shape.dims[1] != 3)
        return err_set(ERR_SHAPE, "the output does not fit");
    size_t n = (size_t)b->dims[1];
    s.candidates = ref_scratch(c, n * sizeof *s.candidates);
    s.other = ref_scratch(c, n * sizeof *s.other);
    s.chosen = ref_scratch(c, n * sizeof *s.chosen);
    if (ref_has(c, 2) && tensor_count(&c->in[2].shape) > 0) s.most = ref_int_at(&c->in[2], 0);
    if (ref_has(c, 3) && tensor_count(&c->in[3].shape) > 0) s.iou = (float)ref_double_at(&c->in[3], 0);
    s.has_score = ref_has(c, 4) && tensor_count(&c->in[4].shape) > 0;
    if (s.has_score) s.score = (float)ref_double_at(&c->in[4], 0);
    s.center = op_attr_int(c->node, "center_point_box", 0) != 0;
    for (int64_t i = 0; i < b->dims[0]; i++)
        for (int64_t k = 0; k < p->dims[1]; k++)
            one_class(&s, i, k);
    c->out[0].shape.dims[0] = s.written;
    c->out[0].shape.bounded = 0;
    return ERR_OK;
}

/* ---- NonZero: [rank, count], in row-major order */

err ref_non_zero(struct ref_call *c)
{
    const struct tensor *in = &c->in[0], *out = &c->out[0];
    int rank = in->shape.rank;
    int64_t index[TENSOR_MAX_RANK] = {0}, found = 0;
    if (out->dtype != TENSOR_I64 || out->shape.rank != 2)
        return err_set(ERR_SHAPE, "the output does not fit");
    if (tensor_count(&in->shape) > 0) do {
            int64_t at = 0;
            for (int i = 0; i < rank; i++)
                at += index[i] * in->strides[i];
            union {
                float f;
                double d;
                int64_t i;
            } v = {.i = 0};
            ref_get(in->dtype, (const char *)in->data + at * ref_size(in), 0, 1, &v);
            enum ref_domain d = ref_domain(in->dtype);
            if (d == REF_F32 ? v.f == 0 : d == REF_F64 ? v.d == 0 : v.i == 0) continue;
            if (found >= out->shape.dims[1])
                return err_set(ERR_SHAPE, "more elements than the output has room for");
            for (int i = 0; i < rank && i < out->shape.dims[0]; i++)
                ((int64_t *)out->data)[i * out->strides[0] + found * out->strides[1]] = index[i];
            found++;
        } while (ref_next(rank, in->shape.dims, index));
    c->out[0].shape.dims[1] = found;
    c->out[0].shape.bounded = 0;
    return ERR_OK;
}
