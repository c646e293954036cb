/* Drawing on R G B bytes. Every shape ends in `video_draw_fill`, which alone touches memory and cuts to the picture.
 * SPDX-License-Identifier: Apache-2.0 */
#include "video/draw.h"

#include "base/base.h"

#include <math.h>
#include <string.h>

enum { GLYPH_W = 5, GLYPH_H = 7, ADVANCE = 6, FIRST = 32, LAST = 126 };

/* Rows from the top, five bits each, the leftmost is 16. Drawn for this project. */
static const uint8_t font[LAST - FIRST + 1][GLYPH_H] = {
    {0, 0, 0, 0, 0, 0, 0},        {4, 4, 4, 4, 4, 0, 4},        {10, 10, 10, 0, 0, 0, 0},     /*   ! " */
    {10, 10, 31, 10, 31, 10, 10}, {4, 15, 20, 14, 5, 30, 4},    {24, 25, 2, 4, 8, 19, 3},     /* # $ % */
    {12, 18, 20, 8, 21, 18, 13},  {4, 4, 8, 0, 0, 0, 0},        {2, 4, 8, 8, 8, 4, 2},        /* & ' ( */
    {8, 4, 2, 2, 2, 4, 8},        {0, 4, 21, 14, 21, 4, 0},     {0, 4, 4, 31, 4, 4, 0},       /* ) * + */
    {0, 0, 0, 0, 4, 4, 8},        {0, 0, 0, 31, 0, 0, 0},       {0, 0, 0, 0, 0, 12, 12},      /* , - . */
    {0, 1, 2, 4, 8, 16, 0},       {14, 17, 19, 21, 25, 17, 14}, {4, 12, 4, 4, 4, 4, 14},      /* / 0 1 */
    {14, 17, 1, 2, 4, 8, 31},     {31, 2, 4, 2, 1, 17, 14},     {2, 6, 10, 18, 31, 2, 2},     /* 2 3 4 */
    {31, 16, 30, 1, 1, 17, 14},   {6, 8, 16, 30, 17, 17, 14},   {31, 1, 2, 4, 8, 8, 8},       /* 5 6 7 */
    {14, 17, 17, 14, 17, 17, 14}, {14, 17, 17, 15, 1, 2, 12},   {0, 12, 12, 0, 12, 12, 0},    /* 8 9 : */
    {0, 12, 12, 0, 12, 4, 8},     {2, 4, 8, 16, 8, 4, 2},       {0, 0, 31, 0, 31, 0, 0},      /* ; < = */
    {8, 4, 2, 1, 2, 4, 8},        {14, 17, 1, 2, 4, 0, 4},      {14, 17, 23, 21, 23, 16, 14}, /* > ? @ */
    {14, 17, 17, 31, 17, 17, 17}, {30, 17, 17, 30, 17, 17, 30}, {14, 17, 16, 16, 16, 17, 14}, /* A B C */
    {28, 18, 17, 17, 17, 18, 28}, {31, 16, 16, 30, 16, 16, 31}, {31, 16, 16, 30, 16, 16, 16}, /* D E F */
    {14, 17, 16, 23, 17, 17, 15}, {17, 17, 17, 31, 17, 17, 17}, {14, 4, 4, 4, 4, 4, 14},      /* G H I */
    {7, 2, 2, 2, 2, 18, 12},      {17, 18, 20, 24, 20, 18, 17}, {16, 16, 16, 16, 16, 16, 31}, /* J K L */
    {17, 27, 21, 21, 17, 17, 17}, {17, 25, 21, 19, 17, 17, 17}, {14, 17, 17, 17, 17, 17, 14}, /* M N O */
    {30, 17, 17, 30, 16, 16, 16}, {14, 17, 17, 17, 21, 18, 13}, {30, 17, 17, 30, 20, 18, 17}, /* P Q R */
    {15, 16, 16, 14, 1, 1, 30},   {31, 4, 4, 4, 4, 4, 4},       {17, 17, 17, 17, 17, 17, 14}, /* S T U */
    {17, 17, 17, 17, 17, 10, 4},  {17, 17, 17, 21, 21, 27, 17}, {17, 17, 10, 4, 10, 17, 17},  /* V W X */
    {17, 17, 10, 4, 4, 4, 4},     {31, 1, 2, 4, 8, 16, 31},     {14, 8, 8, 8, 8, 8, 14},      /* Y Z [ */
    {0, 16, 8, 4, 2, 1, 0},       {14, 2, 2, 2, 2, 2, 14},      {4, 10, 17, 0, 0, 0, 0},      /* \ ] ^ */
    {0, 0, 0, 0, 0, 0, 31},       {8, 4, 2, 0, 0, 0, 0},        {0, 0, 14, 1, 15, 17, 15},    /* _ ` a */
    {16, 16, 30, 17, 17, 17, 30}, {0, 0, 15, 16, 16, 16, 15},   {1, 1, 15, 17, 17, 17, 15},   /* b c d */
    {0, 0, 14, 17, 31, 16, 14},   {6, 9, 8, 28, 8, 8, 8},       {0, 15, 17, 17, 15, 1, 14},   /* e f g */
    {16, 16, 30, 17, 17, 17, 17}, {4, 0, 12, 4, 4, 4, 14},      {2, 0, 6, 2, 2, 18, 12},      /* h i j */
    {16, 16, 18, 20, 24, 20, 18}, {12, 4, 4, 4, 4, 4, 14},      {0, 0, 26, 21, 21, 21, 21},   /* k l m */
    {0, 0, 30, 17, 17, 17, 17},   {0, 0, 14, 17, 17, 17, 14},   {0, 30, 17, 17, 30, 16, 16},  /* n o p */
    {0, 15, 17, 17, 15, 1, 1},    {0, 0, 22, 25, 16, 16, 16},   {0, 0, 15, 16, 14, 1, 30},    /* q r s */
    {8, 8, 28, 8, 8, 9, 6},       {0, 0, 17, 17, 17, 17, 15},   {0, 0, 17, 17, 17, 10, 4},    /* t u v */
    {0, 0, 17, 21, 21, 21, 10},   {0, 0, 17, 10, 4, 10, 17},    {0, 17, 17, 15, 1, 17, 14},   /* w x y */
    {0, 0, 31, 2, 4, 8, 31},      {2, 4, 4, 8, 4, 4, 2},        {4, 4, 4, 4, 4, 4, 4},        /* z { | */
    {8, 4, 4, 2, 4, 4, 8},        {0, 0, 8, 21, 2, 0, 0},                                     /* } ~ */
};
static const uint8_t unknown[GLYPH_H] = {31, 17, 17, 17, 17, 17, 31};

static int64_t clip(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

void video_draw_fill(const struct video_picture *p, int x, int y, int w, int h, video_colour c)
{
    int x0 = (int)clip(x, 0, p->w), x1 = (int)clip((int64_t)x + w, 0, p->w);
    int y0 = (int)clip(y, 0, p->h), y1 = (int)clip((int64_t)y + h, 0, p->h);
    for (int j = y0; j < y1; j++) {
        uint8_t *at = p->rgb + (ptrdiff_t)j * p->stride + 3 * (ptrdiff_t)x0;
        for (int i = x0; i < x1; i++, at += 3) {
            at[0] = (uint8_t)(c >> 16);
            at[1] = (uint8_t)(c >> 8);
            at[2] = (uint8_t)c;
        }
    }
}

void video_draw_rect(const struct video_picture *p, int x, int y, int w, int h, int thick, video_colour c)
{
    if (w <= 0 || h <= 0) return;
    if (2 * (int64_t)thick >= w || 2 * (int64_t)thick >= h) {
        video_draw_fill(p, x, y, w, h, c);
        return;
    }
    int far_x = (int)clip((int64_t)x + w - thick, INT32_MIN, INT32_MAX);
    int far_y = (int)clip((int64_t)y + h - thick, INT32_MIN, INT32_MAX);
    video_draw_fill(p, x, y, w, thick, c);
    video_draw_fill(p, x, far_y, w, thick, c);
    video_draw_fill(p, x, y, thick, h, c);
    video_draw_fill(p, far_x, y, thick, h, c);
}

/* Cuts the segment to the half plane where side * (v - limit) >= 0, v being x or y; false: nothing left. */
static bool cut_line(double *v0, double *o0, double *v1, double *o1, double limit, int side)
{
    double a = side * (*v0 - limit), b = side * (*v1 - limit);
    if (a < 0 && b < 0) return false;
    if (a < 0) {
        *o0 += (*o1 - *o0) * a / (a - b);
        *v0 = limit;
    } else if (b < 0) {
        *o1 += (*o0 - *o1) * b / (b - a);
        *v1 = limit;
    }
    return true;
}

void video_draw_line(const struct video_picture *p, double x0, double y0, double x1, double y1, int thick,
                     video_colour c)
{
    double m = thick + 1; /* cut first, so that a line from far away costs no more than one across the picture */
    if (!isfinite(x0) || !isfinite(y0) || !isfinite(x1) || !isfinite(y1)) return;
    if (!cut_line(&x0, &y0, &x1, &y1, -m, 1) || !cut_line(&x0, &y0, &x1, &y1, p->w + m, -1) ||
        !cut_line(&y0, &x0, &y1, &x1, -m, 1) || !cut_line(&y0, &x0, &y1, &x1, p->h + m, -1))
        return;
    int steps = (int)ceil(fmax(fabs(x1 - x0), fabs(y1 - y0)));
    for (int i = 0; i <= steps; i++) {
        double t = steps ? (double)i / steps : 0;
        int x = (int)floor(x0 + (x1 - x0) * t + 0.5), y = (int)floor(y0 + (y1 - y0) * t + 0.5);
        video_draw_fill(p, x - thick / 2, y - thick / 2, thick, thick, c);
    }
}

void video_draw_polygon(const struct video_picture *p, const double *xy, int n, int thick, video_colour c)
{
    for (int i = 0; i < n; i++) {
        int j = (i + 1) % n;
        video_draw_line(p, xy[2 * i], xy[2 * i + 1], xy[2 * j], xy[2 * j + 1], thick, c);
    }
}

int video_text_width(const char *s, int scale)
{
    return (int)clip((int64_t)strlen(s) * ADVANCE * scale, 0, INT32_MAX);
}

int video_draw_text(const struct video_picture *p, int x, int y, int scale, video_colour c, const char *s)
{
    int64_t at = x;
    for (const char *q = s; *q && at < p->w; q++, at += ADVANCE * scale) {
        unsigned char ch = (unsigned char)*q;
        const uint8_t *g = ch >= FIRST && ch <= LAST ? font[ch - FIRST] : unknown;
        for (int j = 0; j < GLYPH_H && at > -(int64_t)ADVANCE * scale; j++)
            for (int i = 0; i < GLYPH_W; i++)
                if (g[j] & (16 >> i)) video_draw_fill(p, (int)at + i * scale, y + j * scale, scale, scale, c);
    }
    return video_text_width(s, scale);
}

void video_draw_label(const struct video_picture *p, int x, int y, int scale, video_colour text, video_colour fill,
                      const char *s)
{
    int w = video_text_width(s, scale) + scale, h = (GLYPH_H + 2) * scale;
    int left = (int)clip(x, 0, MAX(0, p->w - w)), top = (int)clip((int64_t)y - h, 0, MAX(0, p->h - h));
    video_draw_fill(p, left, top, w, h, fill);
    video_draw_text(p, left + scale, top + scale, scale, text, s);
}

video_colour video_palette(unsigned n)
{
    static const video_colour colours[] = {0xff3b30, 0x34c759, 0x0a84ff, 0xffcc00, 0xbf5af2, 0xff9f0a,
                                           0x64d2ff, 0xff2d9b, 0xa2e634, 0x00c7be, 0xd0895a, 0x9fb4ff};
    return colours[n % (sizeof colours / sizeof *colours)];
}
