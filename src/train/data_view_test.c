/* Tests of augmentation: boxes against the pixels themselves, places and colours against their definitions.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "train/data_sample.h"
#include "train/data_testing.h"

enum { W = 96, H = 80 };

/* Is a pixel of the bright rectangle of a class, with what JPEG leaves of it? */
static bool is_colour(const uint8_t *p, int class_id)
{
    return p[class_id] > 130 && p[(class_id + 1) % 3] < 130 && p[(class_id + 2) % 3] < 130;
}

static struct train_set *coloured_set(const struct bench *b)
{
    static const int at[6][6] = {{90, 70, 20, 10, 40, 30}, {64, 96, 5, 30, 50, 40}, {120, 60, 60, 20, 45, 30}, {90, 90, 0, 0, 40, 40}, {100, 80, 60, 50, 40, 30}, {80, 60, 20, 15, 30, 30}};
    struct strbuf images = {0}, boxes = {0}, all = {0};
    for (int i = 0; i < 6; i++) {
        char name[32];
        const int *a = at[i];
        snprintf(name, sizeof name, "%d.jpg", i);
        bench_picture(b, name, a[0], a[1], a[2], a[3], a[4], a[5], i % 3);
        strbuf_addf(&images, "%s{\"id\": %d, \"file_name\": \"%s\"}", i ? "," : "", i, name);
        strbuf_addf(&boxes, "%s{\"image_id\": %d, \"category_id\": %d, \"bbox\": [%d, %d, %d, %d]}", i ? "," : "", i, i % 3, a[2], a[3], a[4], a[5]);
    }
    strbuf_addf(&all, "{\"images\": [%s], \"annotations\": [%s], \"categories\": [{\"id\": 0, \"name\": \"r\"}, {\"id\": 1, \"name\": \"g\"}, {\"id\": 2, \"name\": \"b\"}]}", images.s, boxes.s);
    bench_text(b, "set.json", all.s);
    char *path = bench_path(b, "set.json");
    struct train_set *s;
    if (train_set_open(path, &(struct train_set_options){0}, b->payer, &s)) fail_msg("%s", err_text());
    free(path);
    strbuf_done(&images);
    strbuf_done(&boxes);
    strbuf_done(&all);
    return s;
}

/* Is the coloured stretch around a pixel at most two wide or high, so that its box was dropped? */
static bool is_strip(const uint8_t *rgb, int x, int y, int c)
{
    int x0 = x, x1 = x, y0 = y, y1 = y;
    while (x0 > 0 && is_colour(rgb + (y * W + x0 - 1) * 3, c)) x0--;
    while (x1 < W - 1 && is_colour(rgb + (y * W + x1 + 1) * 3, c)) x1++;
    while (y0 > 0 && is_colour(rgb + ((y0 - 1) * W + x) * 3, c)) y0--;
    while (y1 < H - 1 && is_colour(rgb + ((y1 + 1) * W + x) * 3, c)) y1++;
    return x1 - x0 < 2 || y1 - y0 < 2;
}

/* Every bright pixel is in a box of its class, and every pixel well inside a box is bright. */
static void check_row(const uint8_t *rgb, const struct train_box *boxes, int n, const char *what, int64_t number)
{
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            const uint8_t *p = rgb + (y * W + x) * 3;
            for (int c = 0; c < 3; c++) {
                bool inside = false, near = false;
                for (int i = 0; i < n; i++) {
                    const struct train_box *b = &boxes[i];
                    if (b->class_id != c) continue;
                    near |= x + 0.5 > b->x1 - 2 && x + 0.5 < b->x2 + 2 && y + 0.5 > b->y1 - 2 && y + 0.5 < b->y2 + 2;
                    inside |= x + 0.5 > b->x1 + 3 && x + 0.5 < b->x2 - 3 && y + 0.5 > b->y1 + 3 && y + 0.5 < b->y2 - 3;
                }
                if (inside && !is_colour(p, c)) fail_msg("%s %lld: pixel %d %d is in a box of class %d, and %d %d %d", what, (long long)number, x, y, c, p[0], p[1], p[2]);
                if (!near && is_colour(p, c) && !is_strip(rgb, x, y, c)) fail_msg("%s %lld: pixel %d %d has class %d's colour and no box", what, (long long)number, x, y, c);
            }
        }
}

static void boxes_follow_the_pixels(void **state)
{
    static const struct {
        const char *name;
        struct train_data_options o;
    } cases[] = {
        {"stretch", {.fit = TRAIN_STRETCH}},
        {"letterbox", {.fit = TRAIN_LETTERBOX}},
        {"middle", {.fit = TRAIN_CROP}},
        {"flip", {.fit = TRAIN_LETTERBOX, .augment = {.flip = 1}}},
        {"crop", {.augment = {.crop = 1, .flip = 0.5f}}},
        {"zoom", {.fit = TRAIN_LETTERBOX, .augment = {.scale = {0.5f, 2}, .flip = 0.5f}}},
        {"shift", {.augment = {.shift = 12}}},
        {"mosaic", {.augment = {.mosaic = 1, .scale = {0.6f, 1.4f}, .flip = 0.5f}}},
    };
    (void)state;
    struct bench b = bench_begin();
    struct train_set *s = coloured_set(&b);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct train_data_options o = cases[i].o;
        struct train_data *d;
        const struct train_batch *t;
        o.width = W, o.height = H, o.batch = 6, o.bytes = true, o.seed = i, o.epochs = 4, o.augment.visible = 1e-6f;
        assert_int_equal(train_data_open(s, &o, b.payer, &d), ERR_OK);
        int64_t boxes = 0;
        while (train_data_next(d, &t) == ERR_OK)
            for (int r = 0; r < t->count; r++) {
                check_row((const uint8_t *)t->images + (size_t)r * W * H * 3, t->boxes + (size_t)r * 120, t->n_boxes[r], cases[i].name, t->number * 6 + r);
                boxes += t->n_boxes[r];
            }
        if (boxes < 12) fail_msg("%s: %lld boxes", cases[i].name, (long long)boxes);
        train_data_close(&d);
    }
    train_set_free(&s);
    bench_end(&b);
}

static void hidden_boxes_are_dropped(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    struct train_set *s = coloured_set(&b);
    struct train_data_options o = {.width = W, .height = H, .batch = 6, .epochs = 20, .augment = {.crop = 1, .crop_area = {0.1f, 0.2f}, .visible = 0.9f}};
    struct train_data *d;
    const struct train_batch *t;
    struct train_data_stats stats;
    int64_t boxes = 0;
    assert_int_equal(train_data_open(s, &o, b.payer, &d), ERR_OK);
    while (train_data_next(d, &t) == ERR_OK)
        for (int r = 0; r < t->count; r++) boxes += t->n_boxes[r];
    train_data_stats(d, &stats);
    assert_int_equal(boxes + stats.boxes_dropped, 120);
    assert_true(stats.boxes_dropped > 60);
    train_data_close(&d);
    train_set_free(&s);
    bench_end(&b);
}

static void mixup_keeps_both(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    uint8_t *p = calloc(20, 3073); /* picture i is flat, of grey 10 i */
    for (int i = 0; i < 20; i++) {
        p[i * 3073] = (uint8_t)(i % 10);
        memset(p + i * 3073 + 1, 10 * i, 3072);
    }
    bench_write(&b, "x.bin", p, 20 * 3073);
    free(p);
    char *path = bench_path(&b, "x.bin");
    struct train_set *s;
    struct train_data *d;
    const struct train_batch *t;
    int mixed = 0;
    assert_int_equal(train_set_open(path, &(struct train_set_options){0}, b.payer, &s), ERR_OK);
    struct train_data_options o = {.width = 32, .height = 32, .batch = 20, .bytes = true, .epochs = 10, .augment = {.mixup = 0.5f}};
    assert_int_equal(train_data_open(s, &o, b.payer, &d), ERR_OK);
    while (train_data_next(d, &t) == ERR_OK)
        for (int r = 0; r < 20; r++) {
            int a = (int)t->samples[r] * 10;
            double got = ((const uint8_t *)t->images)[r * 3072], other = t->mix[r] < 1 ? (got - t->mix[r] * a) / (1 - t->mix[r]) / 10 : 0;
            if (t->mix[r] == 1) assert_true(got == a);
            else if (t->mix[r] < 0.9f) assert_int_equal((int)(other + 0.5) % 10, t->labels2[r]);
            mixed += t->mix[r] < 1;
        }
    assert_in_range(mixed, 60, 140);
    train_data_close(&d);
    train_set_free(&s);
    free(path);
    bench_end(&b);
}

static void shift_moves_whole_pixels(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    uint8_t p[3073] = {4};
    for (int i = 0; i < 3072; i++) p[1 + i] = (uint8_t)(1 + (i * 37 + i / 1024) % 255);
    bench_write(&b, "x.bin", p, sizeof p);
    char *path = bench_path(&b, "x.bin");
    struct train_set *s;
    struct train_data *d;
    const struct train_batch *t;
    bool seen[9][9] = {0};
    int places = 0;
    assert_int_equal(train_set_open(path, &(struct train_set_options){0}, b.payer, &s), ERR_OK);
    struct train_data_options o = {.width = 32, .height = 32, .batch = 1, .bytes = true, .nchw = true, .epochs = 600, .augment = {.shift = 4}};
    assert_int_equal(train_data_open(s, &o, b.payer, &d), ERR_OK);
    while (train_data_next(d, &t) == ERR_OK) {
        int dx = (int)t->geometry[2], dy = (int)t->geometry[3];
        assert_true(abs(dx) <= 4 && abs(dy) <= 4);
        seen[dy + 4][dx + 4] = true;
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < 32; y++)
                for (int x = 0; x < 32; x++) {
                    bool in = x - dx >= 0 && x - dx < 32 && y - dy >= 0 && y - dy < 32;
                    assert_int_equal(((const uint8_t *)t->images)[(c * 32 + y) * 32 + x], in ? p[1 + (c * 32 + y - dy) * 32 + x - dx] : 0);
                }
    }
    for (int i = 0; i < 81; i++) places += seen[i / 9][i % 9];
    assert_true(places > 75);
    train_data_close(&d);
    train_set_free(&s);
    free(path);
    bench_end(&b);
}

static void colours(void **state)
{
    (void)state;
    uint8_t rgb[6] = {200, 100, 50, 110, 120, 140}, copy[6];
    struct data_canvas c = {rgb, 2, 1};
    memcpy(copy, rgb, 6);
    data_colour(&c, 1, 1, 1, 0); /* nothing asked, nothing changed */
    for (int i = 0; i < 6; i++) assert_in_range(rgb[i], copy[i] - 1, copy[i] + 1);
    memcpy(rgb, copy, 6);
    data_colour(&c, 0.5, 1, 1, 0);
    for (int i = 0; i < 6; i++) assert_in_range(rgb[i], copy[i] / 2 - 1, copy[i] / 2 + 1);
    memcpy(rgb, copy, 6);
    data_colour(&c, 1, 1, 0, 0.3); /* without saturation, whatever the hue: grey */
    for (int i = 0; i < 6; i += 3) assert_true(abs(rgb[i] - rgb[i + 1]) <= 1 && abs(rgb[i] - rgb[i + 2]) <= 1);
    assert_in_range(rgb[0], 123, 126); /* 0.299 200 + 0.587 100 + 0.114 50 = 124.2 */
    memcpy(rgb, copy, 6);
    data_colour(&c, 1, 0, 1, 0); /* without contrast: the mean grey of the picture */
    for (int i = 0; i < 6; i++) assert_in_range(rgb[i], 121, 123); /* (124.2 + 119.3) / 2 = 121.8 */
    memcpy(rgb, copy, 6);
    data_colour(&c, 1, 1, 1, 1.0 / 3);
    data_colour(&c, 1, 1, 1, -1.0 / 3);
    for (int i = 3; i < 6; i++) assert_in_range(rgb[i], copy[i] - 3, copy[i] + 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(boxes_follow_the_pixels), cmocka_unit_test(hidden_boxes_are_dropped), cmocka_unit_test(mixup_keeps_both),
                                       cmocka_unit_test(shift_moves_whole_pixels), cmocka_unit_test(colours)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
