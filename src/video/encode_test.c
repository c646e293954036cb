/* Tests of pictures out: JPEG and MP4 come back as they went in, a killed writer's file plays, a full disk is an
 * error, bytes are within what was charged; and drawing stays in the picture. SPDX-License-Identifier: Apache-2.0 */
#include "video/draw.h"
#include "video/testing.h"

#include "video/source.h"

#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <cmocka.h>

static char *dir;

static int setup(void **state)
{
    (void)state;
    dir = temp_dir();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_dir(dir);
    return 0;
}

static int count_frames(const char *path, enum video_decode decode)
{
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct waker w = WAKER_INIT;
    struct video_options o = {.name = "back", .url = path, .pace = VIDEO_PACE_MAX, .decode = decode};
    struct video_camera *cam;
    struct video_frame *f;
    int n = 0;
    assert_int_equal(video_camera_open(&o, b, waker_wake, &w, &cam), ERR_OK);
    while (next_frame(cam, &w, &f) == ERR_OK) {
        double y = (f->plane[0][f->stride[0] * (f->height - 2)] - 16) * 255.0 / 219;
        assert_true(fabs(y - clip_grey(n)) < 4);
        video_frame_unref(&f);
        n++;
    }
    video_camera_close(&cam);
    mem_budget_free(&b);
    return n;
}

/* The bytes end where memory ends. */
static void encoders_read_no_further(void **state)
{
    (void)state;
    static const int sizes[][2] = {{320, 192}, {1, 1}, {1, 40}, {3, 7}, {5, 2}, {17, 1}, {33, 3}, {322, 181}, {640, 360}};
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "jpeg");
    struct video_jpeg *j = video_jpeg_new(p, 80);
    const uint8_t *bytes;
    size_t n;
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        size_t w = (size_t)sizes[s][0], h = (size_t)sizes[s][1], page = (size_t)sysconf(_SC_PAGESIZE);
        size_t map = (w * h * 3 + page - 1) / page * page;
        uint8_t *all = mmap(NULL, map + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(all != MAP_FAILED);
        assert_int_equal(mprotect(all + map, page, PROT_NONE), 0);
        assert_int_equal(video_jpeg_encode(j, all + map - w * h * 3, (int)w * 3, (int)w, (int)h, &bytes, &n), ERR_OK);
        munmap(all, map + page);
    }
    video_jpeg_free(&j);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void jpeg_comes_back(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "jpeg");
    struct video_jpeg *j = video_jpeg_new(p, 95), *poor = video_jpeg_new(p, 10);
    struct video_conv *conv = video_conv_new(p);
    static const int sizes[][2] = {{64, 48}, {163, 121}, {17, 1}, {640, 360}, {64, 48}};
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        int w = sizes[s][0], h = sizes[s][1];
        uint8_t *rgb = malloc((size_t)(w * h * 3)), *back = malloc((size_t)(w * h * 3));
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++)
                for (int c = 0; c < 3; c++)
                    rgb[(y * w + x) * 3 + c] = (uint8_t)(128 + 60 * sin(x * 0.03 * (c + 1)) * cos(y * 0.02 + c));
        const uint8_t *bytes;
        size_t n, n_poor;
        assert_int_equal(video_jpeg_encode(poor, rgb, 3 * w, w, h, &bytes, &n_poor), ERR_OK);
        assert_int_equal(video_jpeg_encode(j, rgb, 3 * w, w, h, &bytes, &n), ERR_OK);
        assert_true(n_poor <= n && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[n - 2] == 0xff &&
                    bytes[n - 1] == 0xd9);
        char *path = xasprintf("%s/one.jpg", dir);
        file_write(path, bytes, n);
        struct waker wk = WAKER_INIT;
        struct video_options o = {.name = "one", .url = path, .pace = VIDEO_PACE_MAX};
        struct video_camera *cam;
        struct video_frame *f;
        assert_int_equal(video_camera_open(&o, b, waker_wake, &wk, &cam), ERR_OK);
        assert_int_equal(next_frame(cam, &wk, &f), ERR_OK);
        assert_true(f->width == w && f->height == h && f->full_range && !f->chroma_left);
        assert_int_equal(video_to_rgb24(conv, f, NULL, w, h, back, 3 * w), ERR_OK);
        double sum = 0;
        for (int i = 0; i < w * h * 3; i++) sum += abs(back[i] - rgb[i]);
        assert_true(sum / (w * h * 3) < 2.5); /* colours, range and chroma's place all agree */
        video_frame_unref(&f);
        video_camera_close(&cam);
        free(path);
        free(rgb);
        free(back);
    }
    const uint8_t *bytes;
    size_t n;
    assert_int_equal(video_jpeg_encode(j, NULL, 0, 0, 5, &bytes, &n), ERR_SHAPE);
    mem_fault_at(b, 1);
    uint8_t rgb[16 * 16 * 3] = {0};
    assert_int_equal(video_jpeg_encode(j, rgb, 48, 16, 16, &bytes, &n), ERR_NOMEM);
    assert_int_equal(video_jpeg_encode(j, rgb, 48, 16, 16, &bytes, &n), ERR_OK);
    video_jpeg_free(&j);
    video_jpeg_free(&poor);
    video_conv_free(&conv);
    mem_payer_free(&p);
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
}

static void killed_writer_leaves_a_file_that_plays(void **state)
{
    (void)state;
    char *path = xasprintf("%s/killed.mp4", dir);
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct mem_budget *b = mem_budget_new("clip", UINT64_MAX);
        struct mem_payer *p = mem_payer_new(b, "clip");
        struct video_writer_options o = {.path = path, .w = 96, .h = 64, .fps = 25};
        struct video_writer *w;
        uint8_t rgb[96 * 64 * 3];
        if (video_writer_open(&o, p, &w)) _exit(1);
        for (int i = 0; i < 140; i++) {
            clip_paint(rgb, 96, 64, i);
            if (video_writer_add(w, rgb, 3 * 96)) _exit(2);
        }
        if (write(ready[1], "x", 1) != 1) _exit(3);
        for (;;) pause();
    }
    char c;
    close(ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    close(ready[0]);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    int n = count_frames(path, VIDEO_DECODE_THREAD);
    print_message("# %d of 140 frames play after a kill -9\n", n);
    assert_true(n >= 75); /* at most the last fragments, of at most two seconds, are lost */
    free(path);
}

static void full_disk_is_an_error(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "writer");
    char *path = xasprintf("%s/full.mp4", dir);
    assert_int_equal(symlink("/dev/full", path), 0);
    struct video_writer_options o = {.path = path, .w = 320, .h = 240, .fps = 5};
    struct video_writer *w = NULL;
    uint8_t *rgb = calloc(1, 320 * 240 * 3);
    err e = video_writer_open(&o, p, &w);
    for (int i = 0; i < 60 && !e; i++) {
        for (int k = 0; k < 320 * 240 * 3; k++) rgb[k] = (uint8_t)hash64(&k, sizeof k, (uint64_t)i);
        e = video_writer_add(w, rgb, 960);
    }
    err x = video_writer_close(&w);
    assert_true(e == ERR_IO || x == ERR_IO);
    assert_non_null(strstr(err_text(), "full.mp4"));
    free(rgb);
    o.w = 321;
    assert_int_equal(video_writer_open(&o, p, &w), ERR_SHAPE);
    o.w = 320;
    o.path = "/nowhere/at/all.mp4";
    assert_int_equal(video_writer_open(&o, p, &w), ERR_IO);
    o.path = "x.unknown";
    assert_int_equal(video_writer_open(&o, p, &w), ERR_USAGE);
    mem_fault_at(b, 1);
    o.path = path;
    assert_int_equal(video_writer_open(&o, p, &w), ERR_NOMEM);
    assert_null(w);
    mem_payer_free(&p);
    mem_budget_free(&b);
    free(path);
}

/* How much malloc gave to a camera that decodes, and what was charged for that. */
static double decoder_growth(const char *path, int frames, double *charged)
{
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mallinfo2 before = mallinfo2();
    struct waker wk = WAKER_INIT;
    struct video_options vo = {.name = "m", .url = path, .pace = VIDEO_PACE_MAX};
    struct video_camera *cam;
    struct video_frame *f;
    assert_int_equal(video_camera_open(&vo, b, waker_wake, &wk, &cam), ERR_OK);
    for (int i = 0; i < frames; i++) {
        assert_int_equal(next_frame(cam, &wk, &f), ERR_OK);
        video_frame_unref(&f);
    }
    usleep(20000); /* it decodes one more and waits */
    struct mallinfo2 after = mallinfo2();
    struct mem_row *row;
    assert_int_equal(mem_snapshot(b, &row), 1);
    *charged = (double)row->used[MEM_DECODER];
    free(row);
    video_camera_close(&cam);
    mem_budget_free(&b);
    return (double)(after.uordblks + after.hblkhd) - (double)(before.uordblks + before.hblkhd);
}

/* What FFmpeg allocates beside what is counted, against what is charged for it. */
static void charges_cover_what_is_allocated(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* malloc is another one */
#endif
    static const int sizes[][2] = {{96, 64}, {352, 288}, {768, 432}, {1280, 720}, {1920, 1080}};
    static const char *const names[] = {"m.mp4", "m4.mp4", "m.avi", "m0.mp4"};
    bool within = true;
    double bound;
    mallopt(M_MMAP_THRESHOLD, 64 << 10);
    mallopt(M_TRIM_THRESHOLD, 64 << 10);
    for (size_t k = 0; k < 4; k++)
        for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
            int w = sizes[s][0], h = sizes[s][1];
            char *path = xasprintf("%s/%s", dir, names[k]);
            struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
            struct mem_payer *p = mem_payer_new(b, "writer");
            struct video_writer_options o = {
                .path = path, .w = w, .h = h, .fps = 25, .b_frames = k == 0 ? 3 : 0, .mpeg4 = k == 1};
            struct video_writer *wr;
            uint8_t *rgb = malloc((size_t)w * (size_t)h * 3);
            struct mallinfo2 before = mallinfo2();
            assert_int_equal(video_writer_open(&o, p, &wr), ERR_OK);
            for (int i = 0; i < 20; i++) {
                for (size_t x = 0; x < (size_t)w * (size_t)h * 3; x++)
                    rgb[x] = (uint8_t)(x * 7 / 5 + x / (size_t)w * (size_t)i);
                assert_int_equal(video_writer_add(wr, rgb, 3 * w), ERR_OK);
            }
            struct mallinfo2 after = mallinfo2();
            double wrote = (double)(after.uordblks + after.hblkhd) - (double)(before.uordblks + before.hblkhd);
            double charged = (double)mem_payer_used(p, MEM_OTHER);
            assert_int_equal(video_writer_close(&wr), ERR_OK);
            free(rgb);
            mem_payer_free(&p);
            double read = decoder_growth(path, 15, &bound);
            print_message("# %s %dx%d: decoder %.2f MiB, charged %.2f; encoder %.2f MiB, charged %.2f\n", names[k], w,
                          h, read / 1048576, bound / 1048576, wrote / 1048576, charged / 1048576);
            within = within && read <= bound && wrote <= charged;
            mem_budget_free(&b);
            free(path);
        }
    char *path = data_path("videos/multicam/four_cam/cam0.mp4"); /* many reference pictures */
    if (path) {
        double read = decoder_growth(path, 60, &bound);
        print_message("# cam0: decoder %.2f MiB, charged %.2f\n", read / 1048576, bound / 1048576);
        within = within && read <= bound;
        free(path);
    }
    assert_true(within);
}

static void drawing_stays_in_the_picture(void **state)
{
    (void)state;
    enum { W = 40, H = 30, GUARD = 64 };
    uint8_t *block = malloc(GUARD * 2 + W * H * 3);
    memset(block, 0x5a, GUARD * 2 + W * H * 3);
    struct video_picture p = {block + GUARD, W, H, 3 * W};
    static const int far[] = {INT32_MIN, -1000, -7, 0, 3, 29, 39, 40, 1000, INT32_MAX};
    for (size_t i = 0; i < ARRAY_LEN(far); i++)
        for (size_t j = 0; j < ARRAY_LEN(far); j++) {
            video_draw_fill(&p, far[i], far[j], 10, 10, 0xffffff);
            video_draw_fill(&p, far[i], 0, far[j], 10, 0xffffff);
            video_draw_rect(&p, far[i], far[j], 20, 20, 2, 0xff0000);
            video_draw_rect(&p, 0, far[i], far[j], far[j], 3, 0xff0000);
            video_draw_line(&p, far[i], far[j], far[j], far[i], 3, 0x00ff00);
            video_draw_line(&p, far[i], 5, 5, far[j], 1, 0x00ff00);
            if (abs(far[i] / 2) < 10000 && abs(far[j] / 2) < 10000) {
                video_draw_text(&p, far[i], far[j], 2, 0x0000ff, "Ag \x01\xff~");
                video_draw_label(&p, far[i], far[j], 1, 0, 0xffff00, "a long name that does not fit");
            }
        }
    video_draw_line(&p, NAN, 0, 5, INFINITY, 1, 0);
    for (int i = 0; i < GUARD; i++) assert_true(block[i] == 0x5a && block[GUARD + W * H * 3 + i] == 0x5a);
    memset(block, 0, GUARD * 2 + W * H * 3);
    video_draw_rect(&p, 5, 6, 10, 8, 1, 0x102030);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            bool edge = x >= 5 && x < 15 && y >= 6 && y < 14 && (x == 5 || x == 14 || y == 6 || y == 13);
            assert_int_equal(p.rgb[(y * W + x) * 3 + 2], edge ? 0x30 : 0);
        }
    memset(block, 0, GUARD * 2 + W * H * 3);
    double square[] = {10, 10, 20, 10, 20, 20, 10, 20};
    video_draw_polygon(&p, square, 4, 1, 0x010101);
    int set = 0;
    for (int i = 0; i < W * H; i++) set += p.rgb[3 * i];
    assert_int_equal(set, 40);
    memset(block, 0, GUARD * 2 + W * H * 3);
    assert_int_equal(video_draw_text(&p, 0, 0, 1, 0x010101, "1"), 6); /* a known glyph, dot by dot */
    static const char *const one[] = {"..#..", ".##..", "..#..", "..#..", "..#..", "..#..", ".###."};
    for (int y = 0; y < 7; y++)
        for (int x = 0; x < 5; x++) assert_int_equal(p.rgb[(y * W + x) * 3], one[y][x] == '#');
    assert_true(video_palette(0) != video_palette(1));
    free(block);
}

/* BRIM_KEEP=FILE.jpg: the whole font and all shapes, to look at. */
static void show(void **state)
{
    (void)state;
    const char *keep = getenv("BRIM_KEEP");
    if (!keep) skip();
    enum { W = 640, H = 240 };
    uint8_t *rgb = calloc(1, W * H * 3);
    struct video_picture p = {rgb, W, H, 3 * W};
    for (int row = 0; row < 3; row++) {
        char line[33] = "";
        for (int i = 0; i < 32 && 32 + row * 32 + i < 127; i++) line[i] = (char)(32 + row * 32 + i);
        video_draw_text(&p, 10, 10 + 30 * row, 3, 0xffffff, line);
    }
    for (unsigned i = 0; i < 12; i++) {
        video_draw_rect(&p, 10 + 50 * (int)i, 130, 40, 60, 2, video_palette(i));
        video_draw_label(&p, 10 + 50 * (int)i, 130, 1, 0, video_palette(i), "car 12");
    }
    double star[] = {300, 200, 340, 235, 260, 215, 350, 205, 280, 235};
    video_draw_polygon(&p, star, 5, 2, 0xffffff);
    struct mem_budget *b = mem_budget_new("clip", UINT64_MAX);
    struct mem_payer *py = mem_payer_new(b, "clip");
    struct video_jpeg *j = video_jpeg_new(py, 95);
    const uint8_t *bytes;
    size_t n;
    assert_int_equal(video_jpeg_encode(j, rgb, 3 * W, W, H, &bytes, &n), ERR_OK);
    file_write(keep, bytes, n);
    video_jpeg_free(&j);
    mem_payer_free(&py);
    mem_budget_free(&b);
    free(rgb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encoders_read_no_further),
        cmocka_unit_test(jpeg_comes_back),        cmocka_unit_test(killed_writer_leaves_a_file_that_plays),
        cmocka_unit_test(full_disk_is_an_error),  cmocka_unit_test(charges_cover_what_is_allocated),
        cmocka_unit_test(drawing_stays_in_the_picture), cmocka_unit_test(show)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
