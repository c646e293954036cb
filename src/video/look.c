/* See look.h. Pixels are taken on a grid, not averaged: the cost is that of 192 pixels for a face and for a lorry, and every number is within a byte.
 *
 * Invariant: no address outside the frame's planes is read, whatever the rectangle says. SPDX-License-Identifier: Apache-2.0 */
#include "video/look.h"

#include <math.h>

enum { ACROSS = 8, DOWN = 4 /* of a stripe */, GREY = 128 };
static const double MIDDLE = 0.6;

static int within(double at, int size)
{
    return at > 0 ? (int)fmin(at, size - 1) : 0; /* NaN: 0 */
}

/* The same scale as BT.601's, full range; 8 bits of fraction. */
static void from_rgb(const uint8_t *p, int yuv[3])
{
    int r = p[0], g = p[1], b = p[2];
    yuv[0] = (77 * r + 150 * g + 29 * b) >> 8;
    yuv[1] = (-43 * r - 85 * g + 128 * b + (GREY << 8)) >> 8;
    yuv[2] = (128 * r - 107 * g - 21 * b + (GREY << 8)) >> 8;
}

static void pixel(const struct video_frame *f, int x, int y, int yuv[3])
{
    const uint8_t *row = f->plane[0] + (ptrdiff_t)y * f->stride[0];
    if (f->format == VIDEO_RGB24) {
        from_rgb(row + 3 * x, yuv);
        return;
    }
    yuv[0] = row[x];
    yuv[1] = yuv[2] = GREY;
    if (f->format == VIDEO_GREY) return;
    int cx = f->format == VIDEO_I444 ? x : x / 2, cy = f->format == VIDEO_I420 || f->format == VIDEO_NV12 ? y / 2 : y;
    bool interleaved = f->format == VIDEO_NV12;
    const uint8_t *u = f->plane[1] + (ptrdiff_t)cy * f->stride[1];
    yuv[1] = interleaved ? u[2 * cx] : u[cx];
    yuv[2] = interleaved ? u[2 * cx + 1] : f->plane[2][(ptrdiff_t)cy * f->stride[2] + cx];
}

void video_look(const struct video_frame *f, const struct video_rect *r, uint8_t ret[VIDEO_LOOK])
{
    for (int s = 0; s < VIDEO_LOOK_STRIPES; s++) {
        int sum[3] = {0}, yuv[3];
        for (int i = 0; i < DOWN; i++) {
            int y = within(r->y + r->h * (s + (i + 0.5) / DOWN) / VIDEO_LOOK_STRIPES, f->height);
            for (int k = 0; k < ACROSS; k++) {
                int x = within(r->x + r->w * ((1 - MIDDLE) / 2 + MIDDLE * (k + 0.5) / ACROSS), f->width);
                pixel(f, x, y, yuv);
                for (int c = 0; c < 3; c++) sum[c] += yuv[c];
            }
        }
        for (int c = 0; c < 3; c++) ret[3 * s + c] = (uint8_t)MIN(MAX(sum[c] / (DOWN * ACROSS), 0), 255);
    }
}
