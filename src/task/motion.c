/* Motion on a thumbnail. One mean and one deviation per pixel, in the spirit of the sigma-delta and running
 * Gaussian methods (Piccardi, "Background subtraction techniques: a review", 2004), because at 80 x 45 pixels
 * anything better costs more than it gains and the network behind the gate decides anyway.
 *
 * The deviation follows what the pixel really does (leaves in the wind become noise), but a moving pixel may
 * raise it only slowly, and its mean adapts four times more slowly too, so that somebody who walks by leaves
 * no ghost. The median difference over the whole picture is the light; a histogram of 511 bins finds it.
 * Invariant: mean is within 0..255 and finite; dev >= 0 and finite. SPDX-License-Identifier: Apache-2.0 */
#include "task/motion.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float FIRST_DEV = 2.0f, MOVING_SLOWER = 0.25f;
static const double LONGEST_GAP = 60;

struct task_motion {
    struct mem_payer *payer;
    size_t bytes;
    int width, height;
    struct task_motion_options o;
    bool started;
    double pts, last_motion;
    uint64_t seen, closed;
    float *mean, *dev; /* per pixel */
    uint8_t *mask, *grown;
    int32_t *stack; /* pixels still to visit */
    struct task_detection boxes[TASK_MAX_MOTION_BOXES];
};

struct task_motion_options task_motion_defaults(void)
{
    return (struct task_motion_options){.floor = 10,
                                        .k = 4,
                                        .adapt_seconds = 10,
                                        .hold_seconds = 1,
                                        .min_pixels = 4,
                                        .global_share = 0.7f,
                                        .grow = 1};
}

uint64_t task_motion_bytes(int width, int height)
{
    size_t n = (size_t)width * (size_t)height;
    return sizeof(struct task_motion) + n * (2 * sizeof(float) + sizeof(int32_t) + 2);
}

err task_motion_new(struct mem_payer *payer, int width, int height, const struct task_motion_options *o,
                    struct task_motion **ret)
{
    struct task_motion_options d = task_motion_defaults();
    if (!o) o = &d;
    if (width < 8 || height < 8 || width > TASK_MAX_MOTION_SIDE || height > TASK_MAX_MOTION_SIDE)
        return err_set(ERR_USAGE, "motion: a picture of %d x %d; sides must be 8 to %d", width, height,
                       TASK_MAX_MOTION_SIDE);
    if (!(o->floor >= 0 && o->floor <= 255) || !(o->k >= 0 && o->k <= 100) || o->grow < 0 || o->grow > 8 ||
        !(o->adapt_seconds > 0 && o->adapt_seconds <= 1e6) ||
        !(o->hold_seconds >= 0 && o->hold_seconds <= 1e6) || o->min_pixels < 1 ||
        !(o->global_share > 0 && o->global_share <= 1))
        return err_set(ERR_USAGE,
                       "motion: options out of range (floor 0-255, k 0-100, grow 0-8, adapt_seconds above 0, "
                       "hold_seconds 0 or more, min_pixels 1 or more, global_share above 0 to 1)");
    size_t bytes = task_motion_bytes(width, height), n = (size_t)width * (size_t)height;
    struct task_motion *m;
    err e = mem_alloc(payer, MEM_OTHER, bytes, (void **)&m);
    if (e) return e;
    m->payer = payer;
    m->bytes = bytes;
    m->width = width;
    m->height = height;
    m->o = *o;
    m->mean = (float *)(m + 1);
    m->dev = m->mean + n;
    m->stack = (int32_t *)(m->dev + n);
    m->mask = (uint8_t *)(m->stack + n);
    m->grown = m->mask + n;
    *ret = m;
    return ERR_OK;
}

void task_motion_free(struct task_motion **m)
{
    if (!*m) return;
    mem_free((*m)->payer, MEM_OTHER, *m, (*m)->bytes);
    *m = NULL;
}

static void restart(struct task_motion *m, const uint8_t *grey, size_t stride)
{
    for (int y = 0; y < m->height; y++) {
        for (int x = 0; x < m->width; x++) {
            size_t i = (size_t)y * (size_t)m->width + (size_t)x;
            m->mean[i] = grey[(size_t)y * stride + (size_t)x];
            m->dev[i] = FIRST_DEV;
        }
    }
}

static int median_difference(const struct task_motion *m, const uint8_t *grey, size_t stride)
{
    int bins[511] = {0}, n = m->width * m->height;
    for (int y = 0; y < m->height; y++) {
        for (int x = 0; x < m->width; x++) {
            float mean = m->mean[(size_t)y * (size_t)m->width + (size_t)x];
            bins[grey[(size_t)y * stride + (size_t)x] - (int)(mean + 0.5f) + 255]++;
        }
    }
    int at = 0;
    for (int sum = bins[0]; 2 * sum < n; sum += bins[++at]) {
    }
    return at - 255;
}

/* Fills the mask, adapts the background, and returns how many pixels move. */
static int compare(struct task_motion *m, const uint8_t *grey, size_t stride, float light, float rate)
{
    int moving = 0;
    for (int y = 0; y < m->height; y++) {
        for (int x = 0; x < m->width; x++) {
            size_t i = (size_t)y * (size_t)m->width + (size_t)x;
            float v = grey[(size_t)y * stride + (size_t)x], off = fabsf(v - m->mean[i] - light);
            float bar = m->o.floor + m->o.k * m->dev[i];
            bool moves = off > bar;
            m->mask[i] = moves;
            moving += moves;
            m->mean[i] += (moves ? rate * MOVING_SLOWER : rate) * (v - m->mean[i]);
            m->dev[i] += moves ? rate * MOVING_SLOWER * (bar - m->dev[i]) : rate * (off - m->dev[i]);
        }
    }
    return moving;
}

/* grown = mask, with every moving pixel widened to a square of 2 * grow + 1. Two passes: along rows, along
 * columns. */
static void grow(struct task_motion *m)
{
    int r = m->o.grow, w = m->width, h = m->height;
    uint8_t *rows = (uint8_t *)m->stack; /* free at this moment */
    for (int y = 0; y < h; y++) {
        for (int x = 0, until = -1; x < w + r; x++) {
            if (x < w && m->mask[y * w + x]) until = x + 2 * r;
            if (x >= r) rows[y * w + x - r] = x <= until;
        }
    }
    for (int x = 0; x < w; x++) {
        for (int y = 0, until = -1; y < h + r; y++) {
            if (y < h && rows[y * w + x]) until = y + 2 * r;
            if (y >= r) m->grown[(y - r) * w + x] = y <= until;
        }
    }
}

/* Visits one component of `grown`, clears it, and returns the box of its moving pixels and their number. */
static int flood(struct task_motion *m, int start, struct task_box *ret_box)
{
    int w = m->width, h = m->height, top = 0, pixels = 0, x1 = w, y1 = h, x2 = 0, y2 = 0;
    m->stack[top++] = start;
    m->grown[start] = 0;
    while (top) {
        int at = m->stack[--top], x = at % w, y = at / w;
        if (m->mask[at]) {
            pixels++;
            x1 = MIN(x1, x);
            y1 = MIN(y1, y);
            x2 = MAX(x2, x + 1);
            y2 = MAX(y2, y + 1);
        }
        for (int ny = MAX(y - 1, 0); ny <= MIN(y + 1, h - 1); ny++) {
            for (int nx = MAX(x - 1, 0); nx <= MIN(x + 1, w - 1); nx++) {
                if (!m->grown[ny * w + nx]) continue;
                m->grown[ny * w + nx] = 0;
                m->stack[top++] = ny * w + nx;
            }
        }
    }
    *ret_box = (struct task_box){(float)x1, (float)y1, (float)x2, (float)y2};
    return pixels;
}

static int larger_first(const void *a, const void *b)
{
    const struct task_detection *p = a, *q = b;
    float x = task_box_area(&p->box), y = task_box_area(&q->box);
    if (x != y) return x < y ? 1 : -1;
    if (p->box.y1 != q->box.y1) return p->box.y1 > q->box.y1 ? 1 : -1;
    return (p->box.x1 > q->box.x1) - (p->box.x1 < q->box.x1);
}

static int find_boxes(struct task_motion *m)
{
    int count = 0;
    grow(m);
    for (int i = 0; i < m->width * m->height; i++) {
        if (!m->grown[i]) continue;
        struct task_detection d = {0};
        int pixels = flood(m, i, &d.box);
        if (pixels < m->o.min_pixels) continue;
        d.score = fmaxf(0.5f, fminf(1, (float)pixels / task_box_area(&d.box)));
        if (count < TASK_MAX_MOTION_BOXES) {
            m->boxes[count++] = d;
        } else { /* the smallest makes room */
            int least = 0;
            for (int k = 1; k < count; k++)
                if (larger_first(&m->boxes[k], &m->boxes[least]) > 0) least = k;
            if (larger_first(&d, &m->boxes[least]) < 0) m->boxes[least] = d;
        }
    }
    qsort(m->boxes, (size_t)count, sizeof *m->boxes, larger_first);
    return count;
}

void task_motion_update(struct task_motion *m, double pts, const uint8_t *grey, size_t stride,
                        struct task_motion_result *ret)
{
    struct task_motion_result r = {.boxes = m->boxes};
    if (!isfinite(pts)) pts = m->pts;
    double dt = pts - m->pts;
    m->seen++;
    if (!m->started || dt < 0 || dt > LONGEST_GAP) {
        restart(m, grey, stride);
        r.global = m->started;
        m->started = true;
        m->last_motion = pts;
    } else {
        float rate = (float)(1 - exp(-dt / m->o.adapt_seconds));
        int moving = compare(m, grey, stride, (float)median_difference(m, grey, stride), rate);
        r.share = (float)moving / (float)(m->width * m->height);
        r.global = r.share > m->o.global_share;
        if (r.global)
            restart(m, grey, stride);
        else if (moving >= m->o.min_pixels)
            r.count = find_boxes(m);
        if (r.count || r.global) m->last_motion = pts;
    }
    m->pts = pts;
    r.open = pts - m->last_motion <= m->o.hold_seconds;
    if (!r.open) m->closed++;
    *ret = r;
}

void task_motion_counts(const struct task_motion *m, uint64_t *ret_seen, uint64_t *ret_closed)
{
    *ret_seen = m->seen;
    *ret_closed = m->closed;
}
