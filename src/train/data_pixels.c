/* Pixels of a training picture, all on one canvas of bytes: where they come from (data_place), what happens to them, and how they are stored.
 *
 * Every change of place is one scale and one offset per axis, so a picture is resampled once, by the resampler that inference uses too, and its
 * boxes follow by the same two numbers. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_sample.h"

#include <math.h>
#include <string.h>

void data_fill(const struct data_canvas *c, uint8_t value)
{
    memset(c->rgb, value, (size_t)c->w * (size_t)c->h * 3);
}

/* Pixels of [lo, hi) whose centres lie in the picture of `size` stored pixels. False: none. */
static bool covered(double s, double o, int size, int lo, int hi, int *ret_lo, int *ret_hi)
{
    double first = ceil(o - 0.5), end = ceil(o + size * s - 0.5);
    *ret_lo = first > lo ? (int)MIN(first, hi) : lo;
    *ret_hi = end < hi ? (int)MAX(end, lo) : hi;
    return *ret_lo < *ret_hi;
}

err data_place(struct video_conv *conv, const struct video_frame *f, const struct data_view *v, const struct data_rect *clip, const struct data_canvas *c)
{
    int x0, x1, y0, y1;
    if (!covered(v->sx, v->ox, f->width, clip->x0, clip->x1, &x0, &x1) || !covered(v->sy, v->oy, f->height, clip->y0, clip->y1, &y0, &y1)) return ERR_OK;
    struct video_rect roi = {(x0 - v->ox) / v->sx, (y0 - v->oy) / v->sy, (x1 - x0) / v->sx, (y1 - y0) / v->sy};
    return video_to_rgb24(conv, f, &roi, x1 - x0, y1 - y0, c->rgb + ((size_t)y0 * (size_t)c->w + (size_t)x0) * 3, 3 * c->w);
}

void data_flip(const struct data_canvas *c)
{
    for (int y = 0; y < c->h; y++) {
        uint8_t *a = c->rgb + (size_t)y * (size_t)c->w * 3, *b = a + 3 * (c->w - 1);
        for (; a < b; a += 3, b -= 3)
            for (int k = 0; k < 3; k++) {
                uint8_t t = a[k];
                a[k] = b[k];
                b[k] = t;
            }
    }
}

static uint8_t byte(double v)
{
    return v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)(v + 0.5);
}

/* Brightness, contrast, saturation and hue are each linear in R G B, so all of them together are one 3 x 4 matrix: hue is a turn of the I Q plane
 * of YIQ, saturation a stretch of it, the other two a gain and an offset. */
void data_colour(const struct data_canvas *c, double brightness, double contrast, double saturation, double hue)
{
    static const double to[3][3] = {{0.299, 0.587, 0.114}, {0.595716, -0.274453, -0.321263}, {0.211456, -0.522591, 0.311135}};
    static const double from[3][3] = {{1, 0.9563, 0.6210}, {1, -0.2721, -0.6474}, {1, -1.1070, 1.7046}};
    size_t n = (size_t)c->w * (size_t)c->h;
    double sum = 0, a = cos(2 * 3.14159265358979323846 * hue), b = sin(2 * 3.14159265358979323846 * hue), m[3][3];
    for (size_t i = 0; i < n; i++) sum += to[0][0] * c->rgb[3 * i] + to[0][1] * c->rgb[3 * i + 1] + to[0][2] * c->rgb[3 * i + 2];
    double mean = n ? sum / (double)n * brightness : 0, gain = brightness * contrast, offset = mean * (1 - contrast);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            double in_phase = a * to[1][j] - b * to[2][j], quadrature = b * to[1][j] + a * to[2][j];
            m[i][j] = gain * (to[0][j] + saturation * (from[i][1] * in_phase + from[i][2] * quadrature));
        }
    for (size_t i = 0; i < n; i++) {
        uint8_t *p = c->rgb + 3 * i;
        double r = p[0], g = p[1], l = p[2];
        for (int k = 0; k < 3; k++) p[k] = byte(m[k][0] * r + m[k][1] * g + m[k][2] * l + offset);
    }
}

void data_blend(const struct data_canvas *c, const struct data_canvas *other, double weight)
{
    size_t n = (size_t)c->w * (size_t)c->h * 3;
    int w = (int)(weight * 256 + 0.5);
    for (size_t i = 0; i < n; i++) c->rgb[i] = (uint8_t)((c->rgb[i] * w + other->rgb[i] * (256 - w) + 128) >> 8);
}

size_t data_image_bytes(const struct train_data_options *o)
{
    return (size_t)o->width * (size_t)o->height * (size_t)o->channels * (o->bytes ? 1 : sizeof(float));
}

void data_store(const struct data_canvas *c, const struct train_data_options *o, void *dst)
{
    size_t n = (size_t)c->w * (size_t)c->h, channels = (size_t)o->channels;
    float table[3][256];
    for (int k = 0; k < 3; k++)
        for (int v = 0; v < 256; v++) table[k][v] = ((float)v - o->mean[k]) * o->scale[k];
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = c->rgb + 3 * i;
        for (size_t k = 0; k < channels; k++) {
            uint8_t v = channels == 1 ? (uint8_t)((p[0] * 77 + p[1] * 150 + p[2] * 29 + 128) >> 8) : p[o->bgr ? 2 - k : k];
            size_t at = o->nchw ? k * n + i : i * channels + k;
            if (o->bytes) ((uint8_t *)dst)[at] = v;
            else ((float *)dst)[at] = table[k][v];
        }
    }
}
