/* Tests of videos as data sets, and of single pictures: frames and their boxes agree, in MOT rows and in COCO JSON. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_sample.h"
#include "train/data_testing.h"
#include "video/testing.h"

enum { W = 160, H = 128, FRAMES = 12 };

/* The clip's white box: its place in frame i, counted from 0 (video/testing.h). */
static int box_x(int i)
{
    return i * 3 % (W / 2);
}

static char *clip(const struct bench *b)
{
    char *path = bench_path(b, "clip.mp4");
    assert_int_equal(clip_make(path, W, H, FRAMES, 10, 0, false), ERR_OK);
    return path;
}

/* In every picture of the set the box is where the pixels are white. */
static void check_pixels(const struct bench *b, const struct train_set *s, int want, int every)
{
    struct train_data *d;
    const struct train_batch *t;
    char name[256], end[16];
    assert_int_equal(train_set_count(s), want);
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = W / 2, .height = H / 2, .batch = 64, .evaluate = true, .bytes = true}, b->payer, &d), ERR_OK);
    assert_int_equal(train_data_next(d, &t), ERR_OK);
    for (int r = 0; r < want; r++) {
        const uint8_t *p = (const uint8_t *)t->images + (size_t)r * (W / 2) * (H / 2) * 3;
        assert_int_equal(t->n_boxes[r], 1);
        const struct train_box *box = &t->boxes[(size_t)r * 120];
        assert_float_equal(box->x1, box_x(r * every) / 2.0, 0.01);
        assert_float_equal(box->y2, H / 4.0, 0.01);
        for (int y = 0; y < H / 2; y++)
            for (int x = 0; x < W / 2; x++) {
                const uint8_t *q = p + (y * (W / 2) + x) * 3;
                bool in = x > box->x1 + 1 && x < box->x2 - 2 && y > box->y1 + 1 && y < box->y2 - 2;
                bool out = x < box->x1 - 2 || x > box->x2 + 1 || y < box->y1 - 2 || y > box->y2 + 1;
                if (in) assert_true(q[1] > 225);
                if (out) assert_true(q[1] < 225);
            }
        snprintf(end, sizeof end, "#%d", r * every + 1);
        assert_true(str_ends(train_set_name(s, r, name, sizeof name), end));
    }
    train_data_close(&d);
}

static void check_end_is_held_out(const struct train_set *s)
{
    int64_t *train, *held, n_train, n_held;
    train_data_split(s, 0.25, 7, &train, &n_train, &held, &n_held);
    assert_true(n_train + n_held == FRAMES && n_held == FRAMES / 4);
    for (int64_t i = 0; i < n_train; i++) assert_int_equal(train[i], i);
    for (int64_t i = 0; i < n_held; i++) assert_int_equal(held[i], n_train + i);
    free(train);
    free(held);
}

static void mot_rows(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *path = clip(&b), *labels = bench_path(&b, "gt.txt");
    struct strbuf t = {0};
    for (int i = 0; i < FRAMES; i++) strbuf_addf(&t, "%d,1,%d,%d,%d,%d,1,1,1\n", i + 1, box_x(i), H / 4, W / 4, H / 4);
    strbuf_addf(&t, "3,2,500,500,10,10,1,1,1\n4,2,5,5,10,10,0,1,1\n");
    bench_text(&b, "gt.txt", t.s);
    struct train_set *s;
    for (int every = 1; every <= 3; every += 2) {
        if (train_set_open(path, &(struct train_set_options){.labels = labels, .every = every, .side = 100}, b.payer, &s)) fail_msg("%s", err_text());
        if (every == 1) assert_true(train_set_report(s)->bad_boxes == 1 && train_set_report(s)->left_out == 1);
        check_pixels(&b, s, (FRAMES + every - 1) / every, every);
        if (every == 1) check_end_is_held_out(s);
        train_set_free(&s);
    }
    bench_text(&b, "classes.txt", "person\n");
    assert_int_equal(train_set_open(path, &(struct train_set_options){.labels = labels}, b.payer, &s), ERR_OK);
    assert_string_equal(train_set_class(s, 0), "person");
    train_set_free(&s);
    assert_int_equal(train_set_open(path, &(struct train_set_options){0}, b.payer, &s), ERR_USAGE);
    if (!strstr(err_text(), "clip.mp4: a video needs labels: MOT rows in NAME.txt, truth/NAME.txt or gt/NAME.txt beside it, or COCO JSON in NAME.json")) fail_msg("%s", err_text());
    bench_folder(&b, "truth");
    bench_text(&b, "truth/clip.txt", t.s);
    if (train_set_open(path, &(struct train_set_options){.every = 3}, b.payer, &s)) fail_msg("%s", err_text());
    assert_false(train_set_unlabelled(s));
    check_pixels(&b, s, (FRAMES + 2) / 3, 3);
    train_set_free(&s);
    assert_int_equal(train_set_open(path, &(struct train_set_options){.every = 3, .unlabelled = true}, b.payer, &s), ERR_OK); /* a teacher labels it */
    assert_true(train_set_unlabelled(s));
    train_set_free(&s);
    for (uint64_t n = 1;; n++) { /* the budget may refuse at any moment */
        mem_fault_at(b.budget, n);
        err e = train_set_open(path, &(struct train_set_options){.labels = labels, .every = 4}, b.payer, &s);
        bool hit = mem_fault_calls(b.budget) >= n;
        mem_fault_at(b.budget, 0);
        if (!e) train_set_free(&s);
        if (hit != (e == ERR_NOMEM)) fail_msg("allocation %llu: %d %s", (unsigned long long)n, e, e ? err_text() : "went well");
        assert_int_equal(mem_budget_used(b.budget), 0);
        if (!hit) break;
    }
    strbuf_done(&t);
    free(path);
    free(labels);
    bench_end(&b);
}

static void coco_frames(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *path = clip(&b), *labels = bench_path(&b, "gt.json");
    struct strbuf t = {0};
    strbuf_add(&t, "{\"images\": [], \"categories\": [{\"id\": 4, \"name\": \"box\"}], \"annotations\": [");
    for (int i = 0; i < FRAMES; i++) strbuf_addf(&t, "%s{\"image_id\": %d, \"category_id\": 4, \"bbox\": [%d, %d, %d, %d]}", i ? "," : "", i + 1, box_x(i), H / 4, W / 4, H / 4);
    strbuf_add(&t, "]}");
    bench_text(&b, "gt.json", t.s);
    struct train_set *s;
    if (train_set_open(path, &(struct train_set_options){.labels = labels}, b.payer, &s)) fail_msg("%s", err_text());
    check_pixels(&b, s, FRAMES, 1);
    train_set_free(&s);
    bench_text(&b, "clip.json", t.s);
    if (train_set_open(path, &(struct train_set_options){0}, b.payer, &s)) fail_msg("%s", err_text());
    check_pixels(&b, s, FRAMES, 1);
    train_set_free(&s);
    strbuf_done(&t);
    free(path);
    free(labels);
    bench_end(&b);
}

static void stills(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    size_t n;
    uint8_t *jpeg = clip_jpeg(W, H, 3, &n);
    struct video_still *s = video_still_new(b.budget, "stills");
    struct video_frame *f, *g;
    for (int i = 0; i < 3; i++) { /* again and again, and after damage */
        assert_int_equal(video_still_decode(s, jpeg, n, "a", &f), ERR_OK);
        assert_true(f->width == W && f->height == H && f->plane[0][0] > 48 && f->plane[0][0] < 60);
        assert_int_equal(video_still_decode(s, jpeg, n / 2, "half", &g), ERR_CORRUPT);
        assert_non_null(strstr(err_text(), "half: "));
        assert_int_equal(video_still_decode(s, jpeg, 0, "none", &g), ERR_CORRUPT);
        assert_int_equal(video_still_decode(s, (const uint8_t *)"GIF89a and so on", 16, "gif", &g), ERR_CORRUPT);
        video_frame_unref(&f);
    }
    uint8_t *sof = memmem(jpeg, n, "\xff\xc0", 2), *huge = xnewn(uint8_t, n); /* a picture of 100 megapixels is not said to be damaged */
    assert_non_null(sof);
    memcpy(huge, jpeg, n);
    memcpy(huge + (sof - jpeg) + 5, "\x27\x10\x27\x10", 4);
    assert_int_equal(video_still_decode(s, huge, n, "huge", &g), ERR_LIMIT);
    assert_string_equal(err_text(), "huge: 10000 x 10000 pixels; sides up to 8192 are read");
    static const uint8_t png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R', 0, 0, 0x20, 0x01, 0, 0, 0, 1, 8, 2, 0, 0, 0};
    assert_int_equal(video_still_decode(s, png, sizeof png, "wide", &g), ERR_LIMIT);
    assert_string_equal(err_text(), "wide: 8193 x 1 pixels; sides up to 8192 are read");
    free(huge);
    assert_int_equal(video_still_decode(s, jpeg, n, "a", &f), ERR_OK);
    video_still_free(&s); /* the frame outlives it */
    assert_true(f->plane[0][0] > 48);
    video_frame_unref(&f);
    char *none = bench_path(&b, "none.jpg");
    s = video_still_new(b.budget, "stills");
    assert_int_equal(video_still_read(s, none, &f), ERR_NOT_FOUND);
    assert_int_equal(video_still_read(s, b.dir, &f), ERR_IO);
    video_still_free(&s);
    free(none);
    free(jpeg);
    bench_end(&b);
}

/* 16 x 16 pixels of one colour each: (200, 100, 50) and (100, 150, 250). */
static const uint8_t warm_png[] = {
    137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 16, 0, 0, 0, 16, 8, 2, 0, 0, 0, 144,
    145, 104, 54, 0, 0, 0, 22, 73, 68, 65, 84, 120, 218, 99, 56, 145, 98, 68, 18, 98, 24, 213, 48, 170, 97, 248,
    106, 0, 0, 168, 120, 94, 16, 52, 18, 203, 47, 0, 0, 0, 0, 73, 69, 78, 68, 174, 66, 96, 130};
static const uint8_t cold_png[] = {
    137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 16, 0, 0, 0, 16, 8, 2, 0, 0, 0, 144,
    145, 104, 54, 0, 0, 0, 22, 73, 68, 65, 84, 120, 218, 99, 72, 153, 246, 139, 36, 196, 48, 170, 97, 84, 195,
    240, 213, 0, 0, 57, 227, 244, 16, 70, 119, 87, 34, 0, 0, 0, 0, 73, 69, 78, 68, 174, 66, 96, 130};

/* FFmpeg takes a PNG for the difference to the one before unless it is told that it stands alone. */
static void a_png_does_not_depend_on_the_one_before(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    bench_write(&b, "1.png", warm_png, sizeof warm_png);
    bench_write(&b, "2.png", cold_png, sizeof cold_png);
    bench_write(&b, "3.png", warm_png, sizeof warm_png);
    bench_text(&b, "a.json", "{\"images\": [{\"id\": 1, \"file_name\": \"1.png\", \"width\": 16, \"height\": 16}, {\"id\": 2, \"file_name\": \"2.png\", \"width\": 16, "
                             "\"height\": 16}, {\"id\": 3, \"file_name\": \"3.png\", \"width\": 16, \"height\": 16}], \"annotations\": [{\"image_id\": 1, "
                             "\"category_id\": 1, \"bbox\": [2, 2, 8, 8]}], \"categories\": [{\"id\": 1, \"name\": \"thing\"}]}");
    struct train_set *s;
    struct train_data *d;
    const struct train_batch *t;
    char *path = bench_path(&b, "a.json");
    assert_int_equal(train_set_open(path, &(struct train_set_options){.images = b.dir}, b.payer, &s), ERR_OK);
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = 16, .height = 16, .batch = 3, .evaluate = true, .bytes = true}, b.payer, &d), ERR_OK);
    assert_int_equal(train_data_next(d, &t), ERR_OK);
    const uint8_t *p = t->images, want[3][3] = {{200, 100, 50}, {100, 150, 250}, {200, 100, 50}};
    for (int i = 0; i < 3 * 16 * 16; i++)
        for (int c = 0; c < 3; c++) assert_in_range(p[3 * i + c] + 2 - want[i / 256][c], 0, 4);
    train_data_close(&d);
    train_set_free(&s);
    free(path);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(mot_rows), cmocka_unit_test(coco_frames), cmocka_unit_test(stills),
                                       cmocka_unit_test(a_png_does_not_depend_on_the_one_before)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
