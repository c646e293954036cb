/* Depthwise convolution, 3x3, channels in whole vectors: a vector of channels needs one load and one multiplication for each tap. Four neighbouring
 * outputs are made at a time, with the nine weights in registers, and each input that two of them share is loaded once; where the window leaves the
 * picture, outputs are made one by one and taps outside are left out. Other kernels, dilations and numbers of channels were tried: oneDNN's code is
 * 1.1 to 1.6 times faster there. SPDX-License-Identifier: Apache-2.0 */
#pragma once

static size_t depthwise_weight_floats(const struct own_conv *c)
{
    return (size_t)(9 * c->oc);
}

static void depthwise_plan(struct own_conv *c, int threads)
{
    (void)threads;
    c->block = 0;
    c->thread_floats = 0;
}

/* [ky][kx][channel] */
static void depthwise_pack(const struct own_conv *c, const float *src, float *dst)
{
    for (int64_t o = 0; o < c->oc; o++)
        for (int64_t t = 0; t < 9; t++) dst[t * c->oc + o] = src[o * 9 + t];
}

struct strip { /* LANES channels of one output line */
    const float *x, *w, *add;
    float *y;
    int64_t from_y, first, end; /* input row of the first tap; rows of taps that are inside the picture */
    vf bias;
};

INLINE void depthwise_edge(const struct own_conv *c, const struct strip *s, int64_t x)
{
    vf acc = s->bias;
    int64_t ix = x * c->stride - c->left;
    for (int64_t ky = s->first; ky < s->end; ky++)
        for (int64_t kx = 0; kx < 3; kx++)
            if (ix + kx >= 0 && ix + kx < c->w) acc += load(s->x + ((s->from_y + ky) * c->w + ix + kx) * c->oc) * load(s->w + (ky * 3 + kx) * c->oc);
    store(s->y + x * c->oc, simple_of(c, acc, s->add ? s->add + x * c->oc : NULL, LANES));
}

/* Four outputs from x on, all windows inside the picture's width; first, end and step are constants. */
INLINE void depthwise_four(const struct own_conv *c, const struct strip *s, const vf *w, int64_t x, int64_t first, int64_t end, int64_t step)
{
    vf acc[4] = {s->bias, s->bias, s->bias, s->bias};
#pragma GCC unroll 3
    for (int64_t ky = first; ky < end; ky++) {
        const float *in = s->x + ((s->from_y + ky) * c->w + x * step - c->left) * c->oc;
#pragma GCC unroll 3
        for (int64_t kx = 0; kx < 3; kx++)
#pragma GCC unroll 4
            for (int64_t i = 0; i < 4; i++) acc[i] += load(in + (i * step + kx) * c->oc) * w[ky * 3 + kx];
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) store(s->y + (x + i) * c->oc, simple_of(c, acc[i], s->add ? s->add + (x + i) * c->oc : NULL, LANES));
}

INLINE void depthwise_inside(const struct own_conv *c, const struct strip *s, int64_t x, int64_t last, int64_t first, int64_t end, int64_t step)
{
    vf w[9];
#pragma GCC unroll 9
    for (int64_t t = first * 3; t < end * 3; t++) w[t] = load(s->w + t * c->oc);
    for (;; x += 4) {
        if (x + 3 > last) x = last - 3; /* some once more */
        depthwise_four(c, s, w, x, first, end, step);
        if (x + 3 == last) return;
    }
}

static void depthwise_strip(const struct own_conv *c, const struct strip *s)
{
    int64_t x = 0, inside = MIN((c->left + c->stride - 1) / c->stride, c->ow);
    int64_t room = c->w - 3 + c->left, last = room < 0 ? -1 : MIN(room / c->stride, c->ow - 1);
    for (; x < inside; x++) depthwise_edge(c, s, x);
    if (x + 3 <= last) {
        int way = (int)(s->first * 3 + s->end + (c->stride == 2 ? 100 : 0)), from = (int)x;
        x = last + 1;
        switch (way) {
        case 3: depthwise_inside(c, s, from, last, 0, 3, 1); break;
        case 6: depthwise_inside(c, s, from, last, 1, 3, 1); break;
        case 2: depthwise_inside(c, s, from, last, 0, 2, 1); break;
        case 103: depthwise_inside(c, s, from, last, 0, 3, 2); break;
        case 106: depthwise_inside(c, s, from, last, 1, 3, 2); break;
        case 102: depthwise_inside(c, s, from, last, 0, 2, 2); break;
        default: x = from; /* one row of taps, or none */
        }
    }
    for (; x < c->ow; x++) depthwise_edge(c, s, x);
}

static void depthwise_run(const struct own_call *k, int thread, int threads)
{
    const struct own_conv *c = k->c;
    int64_t from, to;
    own_share(c->n * c->oh, thread, threads, &from, &to);
    for (int64_t line = from; line < to; line++) {
        int64_t n = line / c->oh, at = line * c->ow * c->oc;
        for (int64_t ch = 0; ch < c->oc; ch += LANES) {
            struct strip s = {.x = k->x + n * c->h * c->w * c->oc + ch, .w = k->weight + ch, .add = k->add ? k->add + at + ch : NULL,
                              .y = k->y + at + ch, .from_y = (line - n * c->oh) * c->stride - c->top, .end = 3};
            while (s.first < 3 && s.from_y + s.first < 0) s.first++;
            while (s.end > s.first && s.from_y + s.end - 1 >= c->h) s.end--;
            s.bias = k->bias ? load(k->bias + ch) : (vf){0};
            depthwise_strip(c, &s);
        }
        if (c->n_simple < c->n_post) posts(c, k->y + at, k->late ? k->late + at : NULL, 1, 0, c->ow * c->oc);
    }
}
