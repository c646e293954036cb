/* Looks of drawn frames, in every format: known colours, rectangles that reach out of the frame, and what tells two people apart.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "video/look.h"

enum { W = 64, H = 48 };

static void fill(struct video_frame *f, int plane, int x0, int y0, int x1, int y1, int step, int offset, int value)
{
    uint8_t *p = (uint8_t *)(uintptr_t)f->plane[plane];
    for (int y = y0; y < y1; y++)
        for (int x = x0; x < x1; x++) p[y * f->stride[plane] + x * step + offset] = (uint8_t)value;
}

/* The upper half Y 200, U 90, V 160, the lower half Y 40, U 150, V 100. */
static struct video_frame *two_halves(struct mem_budget *b, enum video_format format)
{
    struct video_frame *f;
    assert_int_equal(video_frame_new(b, "halves", format, W, H, &f), ERR_OK);
    static const int yuv[2][3] = {{200, 90, 160}, {40, 150, 100}};
    for (int half = 0; half < 2; half++) {
        fill(f, 0, 0, half * H / 2, W, (half + 1) * H / 2, 1, 0, yuv[half][0]);
        if (format == VIDEO_GREY) continue;
        int rows = format == VIDEO_I420 || format == VIDEO_NV12 ? H / 2 : H, width = format == VIDEO_I444 ? W : W / 2;
        bool nv12 = format == VIDEO_NV12;
        for (int c = 1; c < 3; c++) fill(f, nv12 ? 1 : c, 0, half * rows / 2, width, (half + 1) * rows / 2, nv12 ? 2 : 1, nv12 ? c - 1 : 0, yuv[half][c]);
    }
    return f;
}

static void every_format(void **state)
{
    (void)state;
    static const enum video_format formats[] = {VIDEO_I420, VIDEO_I422, VIDEO_I444, VIDEO_NV12, VIDEO_GREY};
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        struct video_frame *f = two_halves(b, formats[i]);
        bool grey = formats[i] == VIDEO_GREY;
        uint8_t look[VIDEO_LOOK];
        video_look(f, &(struct video_rect){10, 0, 20, H}, look);
        for (int s = 0; s < VIDEO_LOOK_STRIPES; s++) {
            bool upper = s < VIDEO_LOOK_STRIPES / 2;
            assert_int_equal(look[3 * s], upper ? 200 : 40);
            assert_int_equal(look[3 * s + 1], grey ? 128 : upper ? 90 : 150);
            assert_int_equal(look[3 * s + 2], grey ? 128 : upper ? 160 : 100);
        }
        video_frame_unref(&f);
    }
    mem_budget_free(&b);
}

static void rgb(void **state)
{
    (void)state;
    static const struct { int r, g, b, y, u, v; } colours[] = {
        {255, 255, 255, 255, 128, 128}, {0, 0, 0, 0, 128, 128}, {255, 0, 0, 76, 85, 255}, {0, 255, 0, 149, 43, 21}, {0, 0, 255, 28, 255, 107}};
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct video_frame *f;
    assert_int_equal(video_frame_new(b, "rgb", VIDEO_RGB24, W, H, &f), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(colours); i++) {
        const int c[] = {colours[i].r, colours[i].g, colours[i].b}, want[] = {colours[i].y, colours[i].u, colours[i].v};
        uint8_t look[VIDEO_LOOK];
        for (int k = 0; k < 3; k++) fill(f, 0, 0, 0, W, H, 3, k, c[k]);
        video_look(f, &(struct video_rect){0, 0, W, H}, look);
        for (int k = 0; k < VIDEO_LOOK; k++) assert_true(abs(look[k] - want[k % 3]) <= 1);
    }
    video_frame_unref(&f);
    mem_budget_free(&b);
}

/* Only the middle counts, and means are means. */
static void the_middle(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct video_frame *f;
    uint8_t look[VIDEO_LOOK];
    assert_int_equal(video_frame_new(b, "grey", VIDEO_GREY, 40, 40, &f), ERR_OK);
    fill(f, 0, 0, 0, 40, 40, 1, 0, 250);
    fill(f, 0, 8, 0, 32, 40, 1, 0, 10); /* the middle 60 % */
    video_look(f, &(struct video_rect){0, 0, 40, 40}, look);
    for (int s = 0; s < VIDEO_LOOK_STRIPES; s++) assert_int_equal(look[3 * s], 10);
    fill(f, 0, 20, 0, 40, 40, 1, 0, 110);
    video_look(f, &(struct video_rect){0, 0, 40, 40}, look);
    for (int s = 0; s < VIDEO_LOOK_STRIPES; s++) assert_int_equal(look[3 * s], 60);
    video_frame_unref(&f);
    mem_budget_free(&b);
}

/* Whatever the rectangle, nothing outside the frame is read (the sanitizers look), and its edge counts. */
static void any_rectangle(void **state)
{
    (void)state;
    static const enum video_format formats[] = {VIDEO_I420, VIDEO_I422, VIDEO_I444, VIDEO_NV12, VIDEO_GREY, VIDEO_RGB24};
    static const double odd[] = {-1e300, -1e9, -5, -0.1, 0, 0.5, 46.9, 47, 63, 64, 1e9, 1e300, INFINITY, -INFINITY, NAN};
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        struct video_frame *f;
        uint8_t look[VIDEO_LOOK];
        assert_int_equal(video_frame_new(b, "odd", formats[i], 63, 47, &f), ERR_OK);
        for (size_t k = 0; k < ARRAY_LEN(odd); k++)
            for (size_t l = 0; l < ARRAY_LEN(odd); l++) {
                video_look(f, &(struct video_rect){odd[k], odd[l], odd[l], odd[k]}, look);
                assert_int_equal(look[0], 0); /* a zeroed frame */
            }
        video_frame_unref(&f);
    }
    struct video_frame *f = two_halves(b, VIDEO_I420);
    uint8_t look[VIDEO_LOOK];
    video_look(f, &(struct video_rect){-100, -100, 50, 50}, look);
    assert_int_equal(look[0], 200);
    video_look(f, &(struct video_rect){1000, 1000, 50, 50}, look);
    assert_int_equal(look[VIDEO_LOOK - 3], 40);
    video_frame_unref(&f);
    mem_budget_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_format), cmocka_unit_test(rgb), cmocka_unit_test(the_middle), cmocka_unit_test(any_rectangle)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
