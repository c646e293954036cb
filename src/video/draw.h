/* Boxes, lines, polygons and small text on R G B bytes, for annotated pictures. All shapes are cut to the picture, so
 * any coordinates are allowed. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

struct video_picture {
    uint8_t *rgb;
    int w, h, stride; /* bytes from row to row */
};
typedef uint32_t video_colour; /* 0xRRGGBB */

void video_draw_fill(const struct video_picture *p, int x, int y, int w, int h, video_colour c);
/* The outline, `thick` pixels wide, inside the rectangle. */
void video_draw_rect(const struct video_picture *p, int x, int y, int w, int h, int thick, video_colour c);
void video_draw_line(const struct video_picture *p, double x0, double y0, double x1, double y1, int thick,
                     video_colour c);
/* n points x, y, x, y...; closed. */
void video_draw_polygon(const struct video_picture *p, const double *xy, int n, int thick, video_colour c);
/* ASCII 32-126 (others as a box) in a 5 x 7 font, each dot `scale` x `scale`; x, y is the top left. No line breaks.
 * Returns the width. */
int video_draw_text(const struct video_picture *p, int x, int y, int scale, video_colour c, const char *s);
int video_text_width(const char *s, int scale); /* 6 * scale per character; height is 7 * scale */
/* Text on a filled label, moved so that it lies in the picture: what a box's name needs. y is its bottom. */
void video_draw_label(const struct video_picture *p, int x, int y, int scale, video_colour text, video_colour fill,
                      const char *s);
/* A colour that tells number n (a class, a track) from its neighbours. */
video_colour video_palette(unsigned n);
