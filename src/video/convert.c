/* Planes as decoded into network inputs and pictures: one separable resampler of our own.
 *
 * libswscale would not do: it cannot start at an odd column of a 4:2:0 picture or at a fraction of one, needs a new
 * context, in memory that nobody counts, for every size of crop, and would leave the normalising into floats to us.
 * Here, for each output row:
 *
 *   vertical:   a weighted sum of the source rows it covers, 14-bit weights, 6 fractional bits in a 16-bit result
 *   horizontal: the same along the row, eight taps at a time, result in float (never rounded to 8 bits)
 *   colour:     YCbCr to RGB in float, clamped to 0-255
 *   store:      (pixel - mean) * scale in the tensor's order
 *
 * Luma and chroma are resampled each on its own grid to the output's grid, so chroma is interpolated once, at its
 * true place (left-sited for H.264, centred for JPEG). Filter: a triangle of radius max(1, shrink), cut at the
 * rectangle's edge and normalised: bilinear when enlarging, Pillow's BILINEAR when shrinking. Weights of a row sum to
 * exactly 2^14, so a flat picture stays flat to the bit. SPDX-License-Identifier: Apache-2.0 */
#include "video/convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3") /* at -O2 this compiler vectorises only loops of known length: twice as slow */
#endif

enum { ONE = 1 << 14, LANE = 8, LINE_PAD = 64 };

struct video_conv {
    struct mem_payer *payer;
    uint8_t *block; /* MEM_SCRATCH */
    size_t size;
};

/* How `n` outputs are made of samples lo..hi-1 of a row or column. */
struct axis {
    int n, taps, lo, hi; /* taps: a multiple of LANE, unused ones have weight 0 */
    int *first;          /* [n], at least lo */
    int16_t *weight;     /* [n][taps] */
};

/* One call's plan: where from, where to, and the rows in between, all in the scratch block. */
struct plan {
    const struct video_frame *f;
    struct video_rect roi;
    int dw, dh; /* size of the picture made */
    struct axis lx, ly, cx, cy;
    int32_t *acc;    /* [columns of a plane's row, all channels] */
    int16_t *line;   /* [columns + LINE_PAD] of one channel */
    float *row[3];   /* [dw]: first Y Cb Cr, then R G B */
    float kr, kb, y_off, y_mul, c_mul;
};

struct video_conv *video_conv_new(struct mem_payer *payer)
{
    struct video_conv *c = xnew(struct video_conv);
    c->payer = payer;
    return c;
}

void video_conv_free(struct video_conv **c)
{
    if (!*c) return;
    mem_free((*c)->payer, MEM_SCRATCH, (*c)->block, (*c)->size);
    free(*c);
    *c = NULL;
}

static int axis_taps(int n, double extent)
{
    double radius = MAX(1, extent / n);
    return ((int)ceil(2 * radius) + 1 + LANE - 1) / LANE * LANE;
}

/* Outputs 0..n-1 cover [from, from + extent) of samples lo..hi-1, whose centres are at j + 0.5. */
static void axis_fill(struct axis *a, double from, double extent)
{
    double step = extent / a->n, radius = MAX(1, step);
    double w[LANE * 4], *big = a->taps > LANE * 4 ? xnewn(double, (size_t)a->taps) : w;
    for (int i = 0; i < a->n; i++) {
        double c = from + (i + 0.5) * step, sum = 0;
        int first = (int)ceil(c - radius - 0.5), k = 0;
        first = MAX(a->lo, MIN(first, a->hi - 1));
        for (int j = first; j < a->hi && k < a->taps; j++, k++) {
            double v = 1 - fabs(j + 0.5 - c) / radius;
            big[k] = MAX(v, 0);
            sum += big[k];
        }
        if (sum <= 0) { /* chroma's place can lie just outside: the nearest sample */
            first = c < a->lo ? a->lo : a->hi - 1;
            big[0] = sum = 1;
            k = 1;
        }
        int16_t *out = a->weight + (size_t)i * (size_t)a->taps;
        int left = ONE, largest = 0;
        for (int t = 0; t < a->taps; t++) {
            out[t] = t < k ? (int16_t)lround(big[t] / sum * ONE) : 0;
            left -= out[t];
            if (out[t] > out[largest]) largest = t;
        }
        out[largest] = (int16_t)(out[largest] + left);
        a->first[i] = first;
    }
    if (big != w) free(big);
}

/* Cuts the next `bytes` off the block; with no block it only counts. */
static void *carve(uint8_t *block, size_t *at, size_t bytes)
{
    void *p = block ? block + *at : NULL;
    *at += (bytes + 63) / 64 * 64;
    return p;
}

static bool half_wide(enum video_format f)
{
    return f == VIDEO_I420 || f == VIDEO_I422 || f == VIDEO_NV12;
}

static bool half_high(enum video_format f)
{
    return f == VIDEO_I420 || f == VIDEO_NV12;
}

static bool has_chroma(enum video_format f)
{
    return f != VIDEO_GREY && f != VIDEO_RGB24;
}

static void axis_range(struct axis *a, int n, double from, double extent, int size)
{
    a->n = n;
    a->lo = MAX(0, MIN((int)floor(from), size - 1));
    a->hi = MAX(a->lo + 1, MIN((int)ceil(from + extent), size));
    a->taps = axis_taps(n, extent);
}

static void plan_carve(struct plan *p, uint8_t *block, size_t *at)
{
    struct axis *all[] = {&p->lx, &p->ly, &p->cx, &p->cy};
    for (int i = 0; i < 4; i++) {
        all[i]->first = carve(block, at, sizeof(int) * (size_t)all[i]->n);
        all[i]->weight = carve(block, at, sizeof(int16_t) * (size_t)all[i]->n * (size_t)all[i]->taps);
    }
    size_t columns = (size_t)(p->lx.hi - p->lx.lo), taps = (size_t)MAX(p->lx.taps, p->cx.taps);
    p->acc = carve(block, at, sizeof(int32_t) * (3 * columns + LINE_PAD));
    p->line = carve(block, at, sizeof(int16_t) * (columns + taps + LINE_PAD));
    for (int i = 0; i < 3; i++) p->row[i] = carve(block, at, sizeof(float) * (size_t)p->dw);
}

static err plan_make(struct video_conv *c, struct plan *p)
{
    const struct video_frame *f = p->f;
    struct video_rect r = p->roi, q = r;
    axis_range(&p->lx, p->dw, r.x, r.w, f->width);
    axis_range(&p->ly, p->dh, r.y, r.h, f->height);
    int cw = f->width, ch = f->height;
    if (half_wide(f->format)) { /* luma edge coordinate x is chroma x / 2, or a quarter right of it when sited left */
        cw = (cw + 1) / 2;
        q.x = r.x / 2 + (f->chroma_left ? 0.25 : 0);
        q.w = r.w / 2;
    }
    if (half_high(f->format)) {
        ch = (ch + 1) / 2;
        q.y = r.y / 2;
        q.h = r.h / 2;
    }
    axis_range(&p->cx, p->dw, q.x, q.w, cw);
    axis_range(&p->cy, p->dh, q.y, q.h, ch);
    if (half_wide(f->format))
        p->cx.lo = MIN(p->cx.lo, (int)(r.x / 2)); /* the shift loses no sample of the rectangle */
    size_t need = 0;
    plan_carve(p, NULL, &need);
    if (need > c->size) {
        void *block;
        mem_free(c->payer, MEM_SCRATCH, c->block, c->size);
        c->block = NULL;
        c->size = 0;
        err e = mem_alloc(c->payer, MEM_SCRATCH, need, &block);
        if (e) return e;
        c->block = block;
        c->size = need;
    }
    size_t at = 0;
    plan_carve(p, c->block, &at);
    axis_fill(&p->lx, r.x, r.w);
    axis_fill(&p->ly, r.y, r.h);
    if (has_chroma(f->format)) {
        axis_fill(&p->cx, q.x, q.w);
        axis_fill(&p->cy, q.y, q.h);
    }
    p->kr = f->matrix == VIDEO_BT709 ? 0.2126f : f->matrix == VIDEO_BT2020 ? 0.2627f : 0.299f;
    p->kb = f->matrix == VIDEO_BT709 ? 0.0722f : f->matrix == VIDEO_BT2020 ? 0.0593f : 0.114f;
    p->y_off = f->full_range ? 0 : 16;
    p->y_mul = f->full_range ? 1 : 255.0f / 219;
    p->c_mul = f->full_range ? 1 : 255.0f / 224;
    return ERR_OK;
}

/* acc[x] = sum over the axis's taps of output row y; `channels` interleaved samples a column. The widening 16-bit
 * product is what SSE2 has an instruction for. */
static void vertical(const struct plan *p, int plane, int channels, const struct axis *ax, const struct axis *ay,
                     int y)
{
    int n = (ax->hi - ax->lo) * channels, first = ay->first[y];
    int32_t *restrict acc = p->acc;
    const int16_t *w = ay->weight + (size_t)y * (size_t)ay->taps;
    const uint8_t *base = p->f->plane[plane] + (ptrdiff_t)ax->lo * channels;
    ptrdiff_t stride = p->f->stride[plane];
    bool begun = false;
    for (int t = 0; t < ay->taps && first + t < ay->hi; t += 2) {
        int16_t a = w[t], b = w[t + 1]; /* taps is even */
        if (!a && !b) continue;
        const uint8_t *restrict ra = base + (first + t) * stride;
        const uint8_t *restrict rb = first + t + 1 < ay->hi ? ra + stride : ra;
        if (begun)
            for (int x = 0; x < n; x++) acc[x] += (int16_t)ra[x] * a + (int16_t)rb[x] * b;
        else
            for (int x = 0; x < n; x++) acc[x] = (int16_t)ra[x] * a + (int16_t)rb[x] * b;
        begun = true;
    }
}

/* One channel of acc along the row into floats 0-255. */
static void horizontal(const struct plan *p, int channel, int channels, const struct axis *ax, float *restrict out)
{
    int n = ax->hi - ax->lo, taps = ax->taps;
    int16_t *restrict line = p->line;
    const int32_t *restrict acc = p->acc + channel;
    if (channels == 1)
        for (int x = 0; x < n; x++) line[x] = (int16_t)((acc[x] + 128) >> 8);
    else
        for (int x = 0; x < n; x++) line[x] = (int16_t)((acc[(ptrdiff_t)x * channels] + 128) >> 8);
    memset(line + n, 0, sizeof *line * (size_t)taps);
    for (int i = 0; i < ax->n; i++) {
        const int16_t *restrict w = ax->weight + (size_t)i * (size_t)taps;
        const int16_t *restrict s = line + (ax->first[i] - ax->lo);
        int32_t sum = 0;
        for (int t = 0; t < taps; t += LANE)
            for (int k = 0; k < LANE; k++) sum += s[t + k] * w[t + k];
        out[i] = (float)sum * (1.0f / (64.0f * ONE));
    }
}

static float clamp255(float v)
{
    return v < 0 ? 0 : v > 255 ? 255 : v;
}

/* Row y of the picture into p->row as R, G, B, 0-255. */
static void make_row(const struct plan *p, int y)
{
    const struct video_frame *f = p->f;
    float *restrict r = p->row[0], *restrict g = p->row[1], *restrict b = p->row[2];
    int n = p->dw;
    if (f->format == VIDEO_RGB24) {
        vertical(p, 0, 3, &p->lx, &p->ly, y);
        for (int i = 0; i < 3; i++) horizontal(p, i, 3, &p->lx, p->row[i]);
        return;
    }
    vertical(p, 0, 1, &p->lx, &p->ly, y);
    horizontal(p, 0, 1, &p->lx, r);
    float yo = p->y_off, ym = p->y_mul;
    if (f->format == VIDEO_GREY) {
        for (int i = 0; i < n; i++) r[i] = g[i] = b[i] = clamp255((r[i] - yo) * ym);
        return;
    }
    if (f->format == VIDEO_NV12) {
        vertical(p, 1, 2, &p->cx, &p->cy, y);
        horizontal(p, 0, 2, &p->cx, g);
        horizontal(p, 1, 2, &p->cx, b);
    } else {
        vertical(p, 1, 1, &p->cx, &p->cy, y);
        horizontal(p, 0, 1, &p->cx, g);
        vertical(p, 2, 1, &p->cx, &p->cy, y);
        horizontal(p, 0, 1, &p->cx, b);
    }
    float kg = 1 - p->kr - p->kb;
    float rv = 2 * (1 - p->kr) * p->c_mul, bu = 2 * (1 - p->kb) * p->c_mul;
    float gu = -bu * p->kb / kg, gv = -rv * p->kr / kg;
    for (int i = 0; i < n; i++) {
        float l = (r[i] - yo) * ym, u = g[i] - 128, v = b[i] - 128;
        r[i] = clamp255(l + rv * v);
        g[i] = clamp255(l + gu * u + gv * v);
        b[i] = clamp255(l + bu * u);
    }
}

/* The asked-for rectangle, cut to the frame. */
static err cut(const struct video_frame *f, const struct video_rect *roi, struct video_rect *ret)
{
    struct video_rect r = roi ? *roi : (struct video_rect){0, 0, f->width, f->height};
    double x1 = fmin(r.x + r.w, f->width), y1 = fmin(r.y + r.h, f->height);
    r.x = fmax(r.x, 0);
    r.y = fmax(r.y, 0);
    r.w = x1 - r.x;
    r.h = y1 - r.y;
    if (!(r.w > 1e-3 && r.h > 1e-3)) /* also when something is not a number */
        return err_set(ERR_SHAPE, "the rectangle has nothing of the %d x %d frame", f->width, f->height);
    *ret = r;
    return ERR_OK;
}

static bool bad_size(int w, int h)
{
    return w < 1 || h < 1 || w > VIDEO_MAX_SIDE || h > VIDEO_MAX_SIDE;
}

/* Where the rectangle goes in the input: size p->dw x p->dh at *dx, *dy; CROP_CENTRE narrows the rectangle instead.
 */
static void place(struct plan *p, const struct video_tensor_spec *s, int *dx, int *dy)
{
    struct video_rect *r = &p->roi;
    double fx = s->w / r->w, fy = s->h / r->h;
    *dx = *dy = 0;
    p->dw = s->w;
    p->dh = s->h;
    if (s->resize == VIDEO_CROP_CENTRE) {
        double k = fmax(fx, fy), w = s->w / k, h = s->h / k;
        r->x += (r->w - w) / 2;
        r->y += (r->h - h) / 2;
        r->w = w;
        r->h = h;
    } else if (s->resize != VIDEO_STRETCH) {
        double k = fmin(fx, fy);
        p->dw = MAX(1, MIN(s->w, (int)lround(r->w * k)));
        p->dh = MAX(1, MIN(s->h, (int)lround(r->h * k)));
        if (s->resize == VIDEO_LETTERBOX_CENTRE) {
            *dx = (s->w - p->dw) / 2;
            *dy = (s->h - p->dh) / 2;
        }
    }
}

/* Columns x0..x1-1 of row y of the tensor: from `src` (at x0), or the padding where it is NULL. */
static void store(const struct video_tensor_spec *s, float *dst, int y, int x0, int x1, float *const src[3])
{
    for (int c = 0; c < 3; c++) {
        float mean = s->mean[c], scale = s->scale[c], pad = (s->pad_value - mean) * scale;
        const float *restrict from = src ? src[s->rgb ? c : 2 - c] - x0 : NULL;
        if (s->nhwc) {
            float *restrict to = dst + (size_t)y * (size_t)s->w * 3 + c;
            for (int x = x0; x < x1; x++) to[3 * x] = from ? (from[x] - mean) * scale : pad;
        } else {
            float *restrict to = dst + ((size_t)c * (size_t)s->h + (size_t)y) * (size_t)s->w;
            if (from)
                for (int x = x0; x < x1; x++) to[x] = (from[x] - mean) * scale;
            else
                for (int x = x0; x < x1; x++) to[x] = pad;
        }
    }
}

err video_to_tensor(struct video_conv *c, const struct video_frame *f, const struct video_rect *roi,
                    const struct video_tensor_spec *s, float *dst, struct video_mapping *ret)
{
    struct plan p = {.f = f};
    int dx, dy;
    if (bad_size(s->w, s->h)) return err_set(ERR_SHAPE, "an input of %d x %d pixels", s->w, s->h);
    err e = cut(f, roi, &p.roi);
    if (e) return e;
    place(&p, s, &dx, &dy);
    e = plan_make(c, &p);
    if (e) return e;
    for (int y = 0; y < s->h; y++) {
        if (y < dy || y >= dy + p.dh) {
            store(s, dst, y, 0, s->w, NULL);
            continue;
        }
        make_row(&p, y - dy);
        store(s, dst, y, 0, dx, NULL);
        store(s, dst, y, dx, dx + p.dw, p.row);
        store(s, dst, y, dx + p.dw, s->w, NULL);
    }
    if (ret) {
        double sx = p.roi.w / p.dw, sy = p.roi.h / p.dh;
        *ret = (struct video_mapping){sx, sy, p.roi.x - dx * sx, p.roi.y - dy * sy, f->width, f->height};
    }
    return ERR_OK;
}

err video_to_rgb24(struct video_conv *c, const struct video_frame *f, const struct video_rect *roi, int w, int h,
                   uint8_t *dst, int stride)
{
    struct plan p = {.f = f, .dw = w, .dh = h};
    if (bad_size(w, h)) return err_set(ERR_SHAPE, "a picture of %d x %d pixels", w, h);
    err e = cut(f, roi, &p.roi);
    if (e) return e;
    e = plan_make(c, &p);
    if (e) return e;
    for (int y = 0; y < h; y++) {
        make_row(&p, y);
        uint8_t *restrict to = dst + (ptrdiff_t)y * stride;
        for (int i = 0; i < 3; i++)
            for (int x = 0; x < w; x++) to[3 * x + i] = (uint8_t)(p.row[i][x] + 0.5f);
    }
    return ERR_OK;
}

/* Luma of one row, columns x0..x1-1, summed. */
static uint64_t row_sum(const struct video_frame *f, int y, int x0, int x1)
{
    const uint8_t *row = f->plane[0] + (ptrdiff_t)y * f->stride[0];
    uint32_t sum = 0; /* 8192 columns * 3 * 255 fits */
    if (f->format != VIDEO_RGB24) {
        for (int x = x0; x < x1; x++) sum += row[x];
        return sum;
    }
    for (int x = x0; x < x1; x++) sum += (77u * row[3 * x] + 150u * row[3 * x + 1] + 29u * row[3 * x + 2] + 128) >> 8;
    return sum;
}

err video_grey_small(const struct video_frame *f, int w, int h, uint8_t *dst)
{
    if (w < 1 || h < 1 || w > f->width || h > f->height)
        return err_set(ERR_SHAPE, "a thumbnail of %d x %d pixels of a frame of %d x %d", w, h, f->width, f->height);
    for (int y = 0; y < h; y++) {
        int y0 = (int)((int64_t)y * f->height / h), y1 = (int)((int64_t)(y + 1) * f->height / h);
        for (int x = 0; x < w; x++) {
            int x0 = (int)((int64_t)x * f->width / w), x1 = (int)((int64_t)(x + 1) * f->width / w);
            uint64_t sum = 0, area = (uint64_t)(x1 - x0) * (uint64_t)(y1 - y0);
            for (int j = y0; j < y1; j++) sum += row_sum(f, j, x0, x1);
            dst[(size_t)y * (size_t)w + (size_t)x] = (uint8_t)((sum + area / 2) / area);
        }
    }
    return ERR_OK;
}

struct video_rect video_map_rect(const struct video_mapping *m, struct video_rect n)
{
    double x0 = fmin(fmax(n.x * m->sx + m->ox, 0), m->frame_w),
           x1 = fmin(fmax((n.x + n.w) * m->sx + m->ox, 0), m->frame_w);
    double y0 = fmin(fmax(n.y * m->sy + m->oy, 0), m->frame_h),
           y1 = fmin(fmax((n.y + n.h) * m->sy + m->oy, 0), m->frame_h);
    return (struct video_rect){x0, y0, x1 - x0, y1 - y0};
}

struct video_rect video_unmap_rect(const struct video_mapping *m, struct video_rect f)
{
    return (struct video_rect){(f.x - m->ox) / m->sx, (f.y - m->oy) / m->sy, f.w / m->sx, f.h / m->sy};
}
