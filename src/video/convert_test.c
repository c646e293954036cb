/* Tests of converting: against a reference in double (RGB first, then an antialiased triangle), flat pictures, odd
 * rectangles, mappings, every format, the failing allocation. SPDX-License-Identifier: Apache-2.0 */
#include "video/convert.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct mem_budget *budget;
static struct mem_payer *payer;

static int setup(void **state)
{
    (void)state;
    budget = mem_budget_new("host", UINT64_MAX);
    payer = mem_payer_new(budget, "test");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(mem_budget_used(budget), 0);
    mem_payer_free(&payer);
    mem_budget_free(&budget);
    return 0;
}

static struct video_frame *frame_of(enum video_format format, int w, int h, bool full, bool left)
{
    struct video_frame *f = NULL;
    assert_int_equal(video_frame_new(budget, "frame", format, w, h, &f), ERR_OK);
    f->full_range = full;
    f->chroma_left = left;
    return f;
}

/* A smooth picture: each plane a low wave, so that chroma's place matters but its sampling does not alias. */
static void paint(struct video_frame *f)
{
    int half_w = (f->width + 1) / 2, half_h = (f->height + 1) / 2;
    for (int i = 0; i < 3 && f->plane[i]; i++) {
        bool small = i && f->format != VIDEO_I444;
        int w = small ? half_w : f->width, h = small && f->format != VIDEO_I422 ? half_h : f->height;
        int channels = f->format == VIDEO_RGB24 ? 3 : f->format == VIDEO_NV12 && i ? 2 : 1;
        double sx = small ? 2 : 1, sy = small && f->format != VIDEO_I422 ? 2 : 1,
               dx = small && f->chroma_left ? -0.5 : 0;
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++)
                for (int c = 0; c < channels; c++) {
                    double px = (x + 0.5) * sx + dx, py = (y + 0.5) * sy; /* in luma edge coordinates */
                    int k = i + c;
                    double v = 128 + (k ? 40 : 70) * sin(px * 0.05 * (k + 1) + k) * cos(py * 0.04 + k);
                    ((uint8_t *)f->plane[i])[y * f->stride[i] + x * channels + c] = (uint8_t)lround(v);
                }
    }
}

/* One sample of a plane at luma edge coordinates, bilinear, in double. */
static double sample(const struct video_frame *f, int plane, int channel, double px, double py)
{
    bool small = plane && f->format != VIDEO_I444;
    bool small_y = small && f->format != VIDEO_I422;
    int w = small ? (f->width + 1) / 2 : f->width, h = small_y ? (f->height + 1) / 2 : f->height;
    int channels = f->format == VIDEO_RGB24 ? 3 : f->format == VIDEO_NV12 && plane ? 2 : 1;
    double x = (small ? px / 2 + (f->chroma_left ? 0.25 : 0) : px) - 0.5, y = (small_y ? py / 2 : py) - 0.5;
    int x0 = (int)floor(x), y0 = (int)floor(y);
    double v = 0;
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 2; i++) {
            int cx = MAX(0, MIN(x0 + i, w - 1)), cy = MAX(0, MIN(y0 + j, h - 1));
            double wx = i ? x - x0 : 1 - (x - x0), wy = j ? y - y0 : 1 - (y - y0);
            v += wx * wy * f->plane[plane][cy * f->stride[plane] + cx * channels + channel];
        }
    return v;
}

static void reference_rgb(const struct video_frame *f, double px, double py, double rgb[3])
{
    double s[3];
    if (f->format == VIDEO_RGB24) {
        for (int c = 0; c < 3; c++) rgb[c] = sample(f, 0, c, px, py);
        return;
    }
    s[0] = sample(f, 0, 0, px, py);
    s[1] = f->format == VIDEO_GREY ? 128 : sample(f, 1, 0, px, py);
    s[2] = f->format == VIDEO_GREY   ? 128
           : f->format == VIDEO_NV12 ? sample(f, 1, 1, px, py)
                                     : sample(f, 2, 0, px, py);
    double kr = f->matrix == VIDEO_BT709 ? 0.2126 : f->matrix == VIDEO_BT2020 ? 0.2627 : 0.299;
    double kb = f->matrix == VIDEO_BT709 ? 0.0722 : f->matrix == VIDEO_BT2020 ? 0.0593 : 0.114;
    double y = f->full_range ? s[0] : (s[0] - 16) * 255 / 219, k = f->full_range ? 1 : 255.0 / 224;
    double u = (s[1] - 128) * k, v = (s[2] - 128) * k;
    rgb[0] = y + 2 * (1 - kr) * v;
    rgb[2] = y + 2 * (1 - kb) * u;
    rgb[1] = (y - kr * rgb[0] - kb * rgb[2]) / (1 - kr - kb);
    for (int c = 0; c < 3; c++) rgb[c] = fmin(fmax(rgb[c], 0), 255);
}

/* Largest and mean distance from the reference over the picture's inside (the edges differ by definition: ours are
 * cut to the rectangle). When it shrinks, the reference averages over the triangle by brute force. */
static double compare(const struct video_frame *f, struct video_rect r, int w, int h, double *mean)
{
    struct video_conv *c = video_conv_new(payer);
    float *dst = calloc((size_t)w * (size_t)h * 3, sizeof *dst);
    struct video_tensor_spec s = {.w = w, .h = h, .rgb = true, .scale = {1, 1, 1}, .nhwc = true};
    struct video_mapping m;
    assert_int_equal(video_to_tensor(c, f, &r, &s, dst, &m), ERR_OK);
    double worst = 0, sum = 0, radius_x = fmax(1, r.w / w), radius_y = fmax(1, r.h / h);
    int border = 2, n = 0, sub = radius_x > 1 || radius_y > 1 ? 12 : 1;
    for (int y = border; y < h - border; y++)
        for (int x = border; x < w - border; x++) {
            double cx = (x + 0.5) * m.sx + m.ox, cy = (y + 0.5) * m.sy + m.oy, want[3] = {0}, total = 0, rgb[3];
            for (int j = 0; j < sub; j++)
                for (int i = 0; i < sub; i++) {
                    double tx = sub == 1 ? 0 : (i + 0.5) / sub * 2 - 1, ty = sub == 1 ? 0 : (j + 0.5) / sub * 2 - 1;
                    double k = (1 - fabs(tx)) * (1 - fabs(ty));
                    reference_rgb(f, cx + tx * (radius_x > 1 ? radius_x : 0), cy + ty * (radius_y > 1 ? radius_y : 0),
                                  rgb);
                    for (int q = 0; q < 3; q++) want[q] += k * rgb[q];
                    total += k;
                }
            for (int q = 0; q < 3; q++) {
                double d = fabs(want[q] / total - dst[((size_t)y * (size_t)w + (size_t)x) * 3 + (size_t)q]);
                worst = fmax(worst, d);
                sum += d;
                n++;
            }
        }
    *mean = sum / n;
    free(dst);
    video_conv_free(&c);
    return worst;
}

static void agrees_with_the_reference(void **state)
{
    (void)state;
    static const struct video_rect rects[] = {
        {0, 0, 161, 121}, {1, 1, 100, 81}, {33, 17, 65, 63}, {10.5, 20.25, 71.3, 50.7}};
    static const int sizes[][2] = {{161, 121}, {200, 150}, {64, 64}, {31, 40}};
    double all = 0;
    for (int format = VIDEO_I420; format <= VIDEO_RGB24; format++)
        for (int variant = 0; variant < 4; variant++) {
            struct video_frame *f = frame_of((enum video_format)format, 161, 121, variant & 1, variant & 2);
            f->matrix = (enum video_matrix)(variant % 3);
            paint(f);
            for (size_t r = 0; r < ARRAY_LEN(rects); r++)
                for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
                    double mean, worst = compare(f, rects[r], sizes[s][0], sizes[s][1], &mean);
                    /* a sampled triangle of a fractional radius leans by up to a tenth of a sample, here as in Pillow
                     */
                    double limit = rects[r].w > sizes[s][0] || rects[r].h > sizes[s][1] ? 4 : 2;
                    if (worst > limit || mean > 0.4)
                        print_message("# format %d variant %d rect %zu size %zu: worst %.3f mean %.3f of 255\n",
                                      format, variant, r, s, worst, mean);
                    assert_true(worst <= limit && mean <= 0.4);
                    all = fmax(all, worst);
                }
            video_frame_unref(&f);
        }
    print_message("# largest distance from the reference: %.3f of 255\n", all);
}

static void flat_grey_is_exact(void **state)
{
    (void)state;
    struct video_conv *c = video_conv_new(payer);
    for (int format = VIDEO_I420; format <= VIDEO_RGB24; format++)
        for (int full = 0; full < 2; full++)
            for (int v = 16; v <= 235; v += 73) {
                struct video_frame *f = frame_of((enum video_format)format, 99, 55, full, true);
                for (int i = 0; i < 3 && f->plane[i]; i++)
                    memset((uint8_t *)f->plane[i], i ? 128 : v,
                           (size_t)f->stride[i] *
                               (size_t)(i && format != VIDEO_I444 && format != VIDEO_I422 ? 28 : 55));
                float dst[3 * 40 * 30];
                struct video_tensor_spec s = {.w = 40, .h = 30, .rgb = true, .scale = {1, 1, 1}};
                struct video_rect roi = {3, 5, 71, 41};
                assert_int_equal(video_to_tensor(c, f, &roi, &s, dst, NULL), ERR_OK);
                double want = full || format == VIDEO_RGB24 ? v : (v - 16) * 255.0 / 219;
                for (size_t i = 0; i < ARRAY_LEN(dst); i++) assert_true(fabs(dst[i] - want) < 1e-3);
                uint8_t rgb[3 * 17 * 9];
                assert_int_equal(video_to_rgb24(c, f, NULL, 17, 9, rgb, 3 * 17), ERR_OK);
                for (size_t i = 0; i < sizeof rgb; i++) assert_int_equal(rgb[i], (int)(want + 0.5));
                video_frame_unref(&f);
            }
    video_conv_free(&c);
}

static void layouts_orders_and_padding(void **state)
{
    (void)state;
    struct video_conv *c = video_conv_new(payer);
    struct video_frame *f = frame_of(VIDEO_RGB24, 20, 10, true, false);
    for (int i = 0; i < 20 * 10; i++)
        memcpy((uint8_t *)f->plane[0] + i / 20 * f->stride[0] + i % 20 * 3, "\x0a\x14\x1e", 3);
    for (int mode = 0; mode < 16; mode++) {
        bool rgb = mode & 1, nhwc = mode & 2;
        enum video_resize resize = (enum video_resize)(mode >> 2);
        struct video_tensor_spec s = {.w = 16, .h = 16, .resize = resize, .pad_value = 114, .mean = {1, 2, 3},
                                      .scale = {0.5f, 0.25f, 2}, .rgb = rgb, .nhwc = nhwc};
        float dst[3 * 16 * 16];
        struct video_mapping m;
        assert_int_equal(video_to_tensor(c, f, NULL, &s, dst, &m), ERR_OK);
        int top = resize == VIDEO_LETTERBOX_CENTRE ? 4 : 0,
            rows = resize == VIDEO_STRETCH || resize == VIDEO_CROP_CENTRE ? 16 : 8;
        for (int y = 0; y < 16; y++)
            for (int x = 0; x < 16; x++)
                for (int q = 0; q < 3; q++) {
                    bool in = y >= top && y < top + rows;
                    float pixel = in ? (float)(10 * ((rgb ? q : 2 - q) + 1)) : 114;
                    float want = (pixel - s.mean[q]) * s.scale[q];
                    float got = nhwc ? dst[(y * 16 + x) * 3 + q] : dst[(q * 16 + y) * 16 + x];
                    assert_true(fabsf(got - want) < 1e-3f);
                }
        /* the whole of what is seen maps onto the frame, and a box survives both ways */
        struct video_rect all = video_map_rect(&m, (struct video_rect){0, top, 16, rows});
        double seen = resize == VIDEO_CROP_CENTRE ? 10 : 20;
        assert_true(fabs(all.w - seen) < 1e-9 && fabs(all.h - 10) < 1e-9 && fabs(all.x - (20 - seen) / 2) < 1e-9);
        struct video_rect box = {7, 2, 5, 4}, back = video_map_rect(&m, video_unmap_rect(&m, box));
        assert_true(fabs(back.x - 7) < 1e-9 && fabs(back.y - 2) < 1e-9 && fabs(back.w - 5) < 1e-9 &&
                    fabs(back.h - 4) < 1e-9);
    }
    video_frame_unref(&f);
    video_conv_free(&c);
}

/* Every pixel of a crop at its own size must be the frame's pixel: no shift at odd offsets. */
static void crops_do_not_shift(void **state)
{
    (void)state;
    struct video_conv *c = video_conv_new(payer);
    struct video_frame *f = frame_of(VIDEO_GREY, 64, 48, true, false);
    for (int y = 0; y < 48; y++)
        for (int x = 0; x < 64; x++) ((uint8_t *)f->plane[0])[y * f->stride[0] + x] = (uint8_t)(x * 3 + y * 7);
    for (int x0 = 0; x0 < 5; x0++)
        for (int y0 = 0; y0 < 5; y0++) {
            uint8_t rgb[20 * 10 * 3];
            struct video_rect roi = {x0, y0, 20, 10};
            assert_int_equal(video_to_rgb24(c, f, &roi, 20, 10, rgb, 60), ERR_OK);
            for (int y = 0; y < 10; y++)
                for (int x = 0; x < 20; x++)
                    assert_int_equal(rgb[y * 60 + x * 3], f->plane[0][(y + y0) * f->stride[0] + x + x0]);
        }
    video_frame_unref(&f);
    video_conv_free(&c);
}

static void odd_input_is_refused(void **state)
{
    (void)state;
    struct video_conv *c = video_conv_new(payer);
    struct video_frame *f = frame_of(VIDEO_I420, 33, 17, false, true);
    struct video_tensor_spec s = {.w = 8, .h = 8, .scale = {1, 1, 1}};
    float dst[3 * 8 * 8];
    static const struct video_rect bad[] = {{40, 0, 5, 5},  {0, 0, 0, 5},   {0, 0, -3, 5},
                                            {NAN, 0, 5, 5}, {0, -10, 5, 5}, {0, 0, 5, NAN}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        err e = video_to_tensor(c, f, &bad[i], &s, dst, NULL);
        if (isnan(bad[i].x) || isnan(bad[i].h))
            continue; /* fmin takes the number: cut to the frame; only must not crash */
        assert_int_equal(e, ERR_SHAPE);
    }
    static const struct video_rect tiny[] = {
        {0, 0, 0.01, 0.01}, {32.9, 16.9, 5, 5}, {-1e9, -1e9, 3e9, 3e9}, {32.5, 0, 0.5, 17}, {0.4, 16, 0.2, 1}};
    for (size_t i = 0; i < ARRAY_LEN(tiny); i++)
        assert_int_equal(video_to_tensor(c, f, &tiny[i], &s, dst, NULL), ERR_OK);
    s.w = 0;
    assert_int_equal(video_to_tensor(c, f, NULL, &s, dst, NULL), ERR_SHAPE);
    s.w = 8;
    mem_fault_at(budget, 1);
    struct video_conv *d = video_conv_new(payer);
    assert_int_equal(video_to_tensor(d, f, NULL, &s, dst, NULL), ERR_NOMEM);
    assert_int_equal(video_to_tensor(d, f, NULL, &s, dst, NULL), ERR_OK);
    mem_fault_at(budget, 0);
    video_conv_free(&d);
    video_frame_unref(&f);
    video_conv_free(&c);
}

static void thumbnails_average(void **state)
{
    (void)state;
    struct video_frame *f = frame_of(VIDEO_I420, 101, 53, false, true);
    srand(1);
    for (int y = 0; y < 53; y++)
        for (int x = 0; x < 101; x++) ((uint8_t *)f->plane[0])[y * f->stride[0] + x] = (uint8_t)rand();
    uint8_t small[16 * 9];
    assert_int_equal(video_grey_small(f, 16, 9, small), ERR_OK);
    for (int y = 0; y < 9; y++)
        for (int x = 0; x < 16; x++) {
            double sum = 0;
            int n = 0;
            for (int j = y * 53 / 9; j < (y + 1) * 53 / 9; j++)
                for (int i = x * 101 / 16; i < (x + 1) * 101 / 16; i++, n++) sum += f->plane[0][j * f->stride[0] + i];
            assert_true(fabs(small[y * 16 + x] - sum / n) <= 0.5);
        }
    assert_int_equal(video_grey_small(f, 102, 9, small), ERR_SHAPE);
    video_frame_unref(&f);
}

/* Not a check: what it costs, for the record. */
static void time_it(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1288, 728}, {768, 432}};
    for (size_t k = 0; k < 2; k++) {
        struct video_frame *f = frame_of(VIDEO_I420, sizes[k][0], sizes[k][1], false, true);
        paint(f);
        struct video_conv *c = video_conv_new(payer);
        float *dst = calloc(3 * 416 * 416, sizeof *dst);
        struct video_tensor_spec s = {
            .w = 416, .h = 416, .resize = VIDEO_LETTERBOX_TOPLEFT, .pad_value = 114, .scale = {1, 1, 1}};
        double best = 1e9;
        for (int i = 0; i < 10; i++) {
            int64_t t = clock_ns();
            video_to_tensor(c, f, NULL, &s, dst, NULL);
            best = fmin(best, (double)(clock_ns() - t) / 1e6);
        }
        print_message("# %dx%d -> 416x416 letterbox: %.2f ms, %llu bytes of scratch\n", sizes[k][0], sizes[k][1],
                      best, (unsigned long long)mem_payer_used(payer, MEM_SCRATCH));
        free(dst);
        video_frame_unref(&f);
        video_conv_free(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_reference), cmocka_unit_test(flat_grey_is_exact),
        cmocka_unit_test(layouts_orders_and_padding), cmocka_unit_test(crops_do_not_shift),
        cmocka_unit_test(odd_input_is_refused),      cmocka_unit_test(thumbnails_average),
        cmocka_unit_test(time_it)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
