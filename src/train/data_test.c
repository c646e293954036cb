/* Tests of training data: every reader against files made here, what is wrong in them counted or refused with its place, the order of samples,
 * the same bits from any number of threads, damaged pictures, every n-th allocation failing. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "train/data_sample.h"
#include "train/data_testing.h"

static struct train_set *must_open(const struct bench *b, const char *path, const struct train_set_options *o)
{
    struct train_set *s;
    if (train_set_open(path, o ? o : &(struct train_set_options){0}, b->payer, &s)) fail_msg("%s", err_text());
    return s;
}

static void must_refuse(const struct bench *b, const char *name, const struct train_set_options *o, err code, const char *words)
{
    char *path = bench_path(b, name);
    struct train_set *s;
    err e = train_set_open(path, o ? o : &(struct train_set_options){0}, b->payer, &s);
    if (e != code || !strstr(err_text(), words)) fail_msg("%s: %d, '%s' has not '%s'", name, e, e ? err_text() : "opened", words);
    free(path);
}

/* ---- CIFAR and IDX */

static void write_cifar(const struct bench *b, const char *name, int n, int bad)
{
    uint8_t *p = malloc((size_t)n * 3073);
    for (int i = 0; i < n; i++) {
        p[i * 3073] = (uint8_t)(i == bad ? 10 : i % 10);
        for (int k = 0; k < 3072; k++) p[i * 3073 + 1 + k] = (uint8_t)(i * 7 + k * 13 + k / 1024 * 5);
    }
    bench_write(b, name, p, (size_t)n * 3073);
    free(p);
}

static void cifar(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    write_cifar(&b, "train.part.bin", 25, 3);
    bench_text(&b, "batches.meta.txt", "plane\ncar\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n");
    char *path = bench_path(&b, "train.part.bin");
    struct train_set *s = must_open(&b, path, NULL);
    const struct train_set_report *r = train_set_report(s);
    assert_int_equal(train_set_count(s), 24);
    assert_int_equal(r->bad_images, 1);
    assert_non_null(strstr(r->problem, "record 3: label 10"));
    assert_string_equal(train_set_class(s, 2), "bird");
    struct train_data *d;
    struct train_data_options o = {.width = 32, .height = 32, .batch = 10, .evaluate = true, .bytes = true, .nchw = true};
    const struct train_batch *batch;
    assert_int_equal(train_data_open(s, &o, b.payer, &d), ERR_OK);
    assert_int_equal(train_data_steps(d), 3);
    for (int64_t i = 0; i < 24; i++) { /* planes come out as they lie in the file */
        if (i % 10 == 0) assert_int_equal(train_data_next(d, &batch), ERR_OK);
        int64_t record = i < 3 ? i : i + 1;
        const uint8_t *p = (const uint8_t *)batch->images + (i % 10) * 3072;
        assert_int_equal(batch->labels[i % 10], record % 10);
        for (int k = 0; k < 3072; k++) assert_int_equal(p[k], (uint8_t)(record * 7 + k * 13 + k / 1024 * 5));
    }
    assert_int_equal(batch->count, 4);
    assert_int_equal(train_data_next(d, &batch), ERR_CLOSED);
    train_data_close(&d);
    train_set_free(&s);
    write_cifar(&b, "cut.bin", 2, -1);
    char *cut = bench_path(&b, "cut.bin");
    assert_int_equal(truncate(cut, 5000), 0);
    must_refuse(&b, "cut.bin", NULL, ERR_FORMAT, "5000 bytes");
    bench_text(&b, "packed.bin.xz", "x");
    must_refuse(&b, "packed.bin.xz", NULL, ERR_UNSUPPORTED, "unpack");
    must_refuse(&b, "nothing.bin", NULL, ERR_NOT_FOUND, "nothing.bin");
    free(cut);
    free(path);
    bench_end(&b);
}

static void idx(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    uint8_t images[16 + 3 * 6] = {0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 3}, labels[8 + 3] = {0, 0, 8, 1, 0, 0, 0, 3, 7, 0, 11};
    for (int i = 0; i < 18; i++) images[16 + i] = (uint8_t)(i * 9);
    bench_write(&b, "t-images-idx3-ubyte", images, sizeof images);
    bench_write(&b, "t-labels-idx1-ubyte", labels, sizeof labels);
    char *path = bench_path(&b, "t-images-idx3-ubyte");
    struct train_set *s = must_open(&b, path, NULL);
    assert_int_equal(train_set_count(s), 3);
    assert_int_equal(train_set_classes(s), 12);
    assert_int_equal(train_set_report(s)->empty_classes, 9);
    struct train_data *d;
    const struct train_batch *batch;
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = 3, .height = 2, .channels = 1, .batch = 3, .evaluate = true, .scale = {0.5f}, .mean = {1}}, b.payer, &d), ERR_OK);
    assert_int_equal(train_data_next(d, &batch), ERR_OK);
    for (int i = 0; i < 18; i++) assert_true(((float *)batch->images)[i] == ((float)(i * 9) - 1) * 0.5f);
    assert_int_equal(batch->labels[2], 11);
    train_data_close(&d);
    train_set_free(&s);
    bench_write(&b, "u-images-idx3-ubyte", images, sizeof images - 1);
    bench_write(&b, "u-labels-idx1-ubyte", labels, sizeof labels);
    must_refuse(&b, "u-images-idx3-ubyte", NULL, ERR_FORMAT, "tells of 34 bytes, it has 33");
    labels[7] = 2;
    bench_write(&b, "t-labels-idx1-ubyte", labels, sizeof labels - 1);
    must_refuse(&b, "t-images-idx3-ubyte", NULL, ERR_FORMAT, "2 labels for 3 pictures");
    free(path);
    bench_end(&b);
}

/* ---- folders */

static void folder(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    bench_folder(&b, "cats");
    bench_folder(&b, "ants");
    bench_folder(&b, "empty");
    bench_picture(&b, "cats/1.jpg", 40, 30, 0, 0, 40, 30, 0);
    bench_picture(&b, "cats/2.jpg", 20, 30, 0, 0, 20, 30, 0);
    bench_picture(&b, "ants/1.jpeg", 40, 30, 0, 0, 40, 30, 2);
    bench_text(&b, "ants/0.jpg", "");
    bench_text(&b, "ants/notes.txt", "not a picture");
    struct train_set *s = must_open(&b, b.dir, NULL);
    assert_int_equal(train_set_count(s), 3);
    assert_int_equal(train_set_classes(s), 3);
    assert_string_equal(train_set_class(s, 0), "ants");
    assert_int_equal(train_set_label(s, 0), 0);
    assert_int_equal(train_set_label(s, 2), 1);
    assert_int_equal(train_set_report(s)->bad_images, 1);
    assert_int_equal(train_set_report(s)->empty_classes, 1);
    assert_non_null(strstr(train_set_report(s)->problem, "ants/0.jpg"));
    train_set_free(&s);
    const char *const chosen[] = {"cats", "dogs"};
    s = must_open(&b, b.dir, &(struct train_set_options){.classes = chosen, .n_classes = 2});
    assert_int_equal(train_set_count(s), 2);
    assert_int_equal(train_set_label(s, 0), 0);
    assert_int_equal(train_set_report(s)->left_out, 1);
    train_set_free(&s);
    bench_folder(&b, "flat");
    must_refuse(&b, "flat", NULL, ERR_FORMAT, "one folder per class");
    bench_end(&b);
}

static void yolo(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    bench_folder(&b, "images");
    bench_folder(&b, "labels");
    bench_text(&b, "classes.txt", "car\nbus\n");
    bench_picture(&b, "images/a.jpg", 40, 20, 0, 0, 1, 1, 0);
    bench_picture(&b, "images/b.jpg", 40, 20, 0, 0, 1, 1, 0);
    bench_text(&b, "labels/a.txt", "1 0.5 0.5 0.5 0.5\r\n\n0 nan 0.5 0.5 0.5\n2 0.5 0.5 0.1 0.1\n0 0.9 0.5 0.4 0.5\n0 0.5 0.5 0 0.5\n1.5 .5 .5 .5 .5\n");
    struct train_set *s = must_open(&b, b.dir, NULL);
    int n;
    const struct train_box *box = train_set_boxes(s, 0, &n);
    assert_int_equal(n, 2);
    assert_float_equal(box[0].x1, 0.25, 1e-6);
    assert_int_equal(box[0].class_id, 1);
    assert_float_equal(box[1].x2, 1, 1e-6); /* cut to the picture */
    const struct train_set_report *r = train_set_report(s);
    assert_int_equal(r->bad_boxes, 4);
    assert_int_equal(r->empty_images, 1);
    assert_non_null(strstr(r->problem, "labels/a.txt:3: a box with a number that is not finite"));
    train_set_free(&s);
    bench_text(&b, "labels/b.txt", "0 0.5 0.5\n");
    must_refuse(&b, ".", NULL, ERR_FORMAT, "b.txt:1: expected `class cx cy w h`");
    bench_text(&b, "labels/b.txt", "0 .1 .1 .2 .1 .2 .2\n");
    must_refuse(&b, ".", NULL, ERR_FORMAT, "more than the five columns");
    bench_text(&b, "labels/b.txt", "");
    bench_text(&b, "labels/a.txt", "7 .5 .5 .1 .1\n");
    must_refuse(&b, ".", NULL, ERR_FORMAT, "no box in it can be used");
    bench_end(&b);
}

/* ---- COCO */

static const char coco_text[] = "{\"info\": {\"x\": [1, {\"y\": \"\\\"]\"}]},\n"
                                " \"annotations\": [\n"
                                "  {\"id\": 1, \"image_id\": 7, \"category_id\": 3, \"bbox\": [4, 2, 10, 8.5], \"iscrowd\": 0, \"segmentation\": [[1,2]]},\n"
                                "  {\"id\": 2, \"image_id\": 5, \"category_id\": 1, \"bbox\": [0, 0, 100, 100]},\n"
                                "  {\"id\": 3, \"image_id\": 7, \"category_id\": 1, \"bbox\": [1, 1, 5, 5], \"iscrowd\": 1},\n"
                                "  {\"id\": 4, \"image_id\": 7, \"category_id\": 9, \"bbox\": [1, 1, 5, 5]},\n"
                                "  {\"id\": 5, \"image_id\": 7, \"category_id\": 1, \"bbox\": [NaN, 1, 5, 5]},\n"
                                "  {\"id\": 6, \"image_id\": 99, \"category_id\": 1, \"bbox\": [1, 1, 5, 5]},\n"
                                "  {\"id\": 7, \"image_id\": 7, \"category_id\": 1, \"bbox\": [2, 3, 4, 5]}],\n"
                                " \"images\": [{\"id\": 7, \"file_name\": \"\\u0061.jpg\", \"width\": 40, \"height\": 20},\n"
                                "  {\"id\": 5, \"file_name\": \"b.jpg\", \"width\": 40, \"height\": 20},\n"
                                "  {\"id\": 6, \"file_name\": \"gone.jpg\"}],\n"
                                " \"categories\": [{\"id\": 3, \"name\": \"car\"}, {\"name\": \"person\", \"id\": 1, \"supercategory\": null}]}\n";

static void coco(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    bench_folder(&b, "images");
    bench_picture(&b, "images/a.jpg", 40, 20, 0, 0, 1, 1, 0);
    bench_picture(&b, "images/b.jpg", 40, 20, 0, 0, 1, 1, 0);
    bench_text(&b, "f.json", coco_text);
    char *path = bench_path(&b, "f.json");
    struct train_set *s = must_open(&b, path, NULL);
    const struct train_set_report *r = train_set_report(s);
    int n;
    assert_int_equal(train_set_count(s), 2);
    assert_string_equal(train_set_class(s, 0), "person"); /* ids in rising order */
    const struct train_box *box = train_set_boxes(s, 0, &n);
    assert_int_equal(n, 2); /* in the order of the file */
    assert_true(box[0].x1 == 4 && box[0].y1 == 2 && box[0].x2 == 14 && box[0].y2 == 10.5f && box[0].class_id == 1);
    assert_true(box[1].x1 == 2 && box[1].x2 == 6 && box[1].class_id == 0);
    box = train_set_boxes(s, 1, &n);
    assert_true(n == 1 && box[0].x2 == 40 && box[0].y2 == 20);
    assert_int_equal(r->bad_boxes, 3); /* unknown class, NaN, unknown picture */
    assert_int_equal(r->left_out, 1);
    assert_int_equal(r->bad_images, 1);
    assert_non_null(strstr(r->problem, "f.json:6: a class"));
    train_set_free(&s);
    const char *const chosen[] = {"car"};
    s = must_open(&b, path, &(struct train_set_options){.classes = chosen, .n_classes = 1});
    assert_int_equal(train_set_report(s)->boxes, 1);
    assert_int_equal(train_set_report(s)->empty_images, 1);
    box = train_set_boxes(s, 0, &n);
    assert_true(n == 1 && box[0].class_id == 0 && box[0].x1 == 4);
    train_set_free(&s);
    free(path);
    bench_end(&b);
}

static void coco_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {{"", "expected an object"},
                 {"[]", "f.json:1: expected an object"},
                 {"{\"images\": [\n{\"id\": 1}]}", "f.json:2: an image without id or file_name"},
                 {"{\"images\": [{\"id\": 1.5, \"file_name\": \"a\"}]}", "whole number"},
                 {"{\"images\": [{\"id\": 1, \"file_name\": \"../a.jpg\"}]}", "leaves the folder"},
                 {"{\"images\": [], \"annotations\": []}", "list of images is empty"},
                 {"{\"annotations\": []}", "no list of images"},
                 {"{\"images\": [{\"id\": 1, \"file_name\": \"zz.jpg\"}]}", "neither beside it nor in images/"},
                 {"{\"images\": [{\"id\": 1, \"file_name\": \"zz.jpg\"}", "cut off"},
                 {"{\"images\": [{\"id\": 1, \"file_name\": \"zz", "cut off in a string"},
                 {"{\"annotations\": [{\"image_id\": 1, \"category_id\": 1, \"bbox\": [1, 2, 3]}]}", "other than 4 numbers"},
                 {"{\"categories\": [{\"id\": 1, \"name\": \"a\"},\n{\"id\": 1, \"name\": \"b\"}], \"images\": []}", "f.json:2: category id 1 is used twice"},
                 {"{\"images\": []} x", "something after the end"}};
    (void)state;
    struct bench b = bench_begin();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bench_text(&b, "f.json", cases[i].text);
        must_refuse(&b, "f.json", NULL, i == 7 ? ERR_NOT_FOUND : ERR_FORMAT, cases[i].words);
    }
    struct strbuf deep = {0};
    strbuf_add(&deep, "{\"x\": ");
    for (int i = 0; i < 100000; i++) strbuf_add(&deep, "[");
    bench_text(&b, "f.json", deep.s);
    must_refuse(&b, "f.json", NULL, ERR_FORMAT, "nested deeper");
    strbuf_done(&deep);
    bench_end(&b);
}

/* ---- order, threads, damage, memory */

static void the_order_is_a_permutation(void **state)
{
    (void)state;
    for (int64_t n = 1; n < 300; n = n * 3 / 2 + 1) {
        int64_t moved = 0;
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            uint8_t seen[512] = {0};
            for (int64_t i = 0; i < n; i++) {
                int64_t v = data_order(5, epoch, i, n);
                assert_true(v >= 0 && v < n && !seen[v]);
                seen[v] = 1;
                moved += v != i;
            }
        }
        if (n > 10) assert_true(moved > n);
    }
    int64_t first[10] = {0}; /* no position is preferred */
    for (int64_t epoch = 0; epoch < 10000; epoch++) first[data_order(1, epoch, 0, 10)]++;
    for (int i = 0; i < 10; i++) assert_in_range(first[i], 850, 1150);
}

/* The hash of so many batches' contents. */
static uint64_t contents(const struct bench *b, const struct train_set *s, struct train_data_options o, int threads, int64_t first, int batches)
{
    struct train_data *d;
    const struct train_batch *t;
    uint64_t h = 1;
    o.threads = threads;
    o.first_batch = first;
    o.idle = threads == 2;
    assert_int_equal(train_data_open(s, &o, b->payer, &d), ERR_OK);
    for (int i = 0; i < batches; i++) {
        if (train_data_next(d, &t)) fail_msg("%s", err_text());
        assert_int_equal(t->number, first + i);
        h = hash64(t->images, (size_t)o.batch * (size_t)o.width * (size_t)o.height * 3 * sizeof(float), h);
        h = hash64(t->samples, (size_t)o.batch * sizeof *t->samples, h);
        h = hash64(t->mix, (size_t)o.batch * sizeof *t->mix, h);
        for (int r = 0; r < o.batch; r++) h = hash64(t->boxes + (size_t)r * (size_t)o.max_boxes, (size_t)t->n_boxes[r] * sizeof *t->boxes, h);
    }
    train_data_close(&d);
    return h;
}

static struct train_set *coco_set(const struct bench *b, int n)
{
    struct strbuf images = {0}, boxes = {0}, all = {0};
    bench_folder(b, "images");
    for (int i = 0; i < n; i++) {
        char name[32];
        int x = 10 + i % 5 * 6, y = 5 + i % 3 * 7, w = 20 + i % 4 * 3, h = 16 + i % 7;
        snprintf(name, sizeof name, "images/%d.jpg", i);
        bench_picture(b, name, 80, 60, x, y, w, h, i % 3);
        strbuf_addf(&images, "%s{\"id\": %d, \"file_name\": \"%d.jpg\", \"width\": 80, \"height\": 60}", i ? "," : "", i, i);
        strbuf_addf(&boxes, "%s{\"image_id\": %d, \"category_id\": %d, \"bbox\": [%d, %d, %d, %d]}", i ? "," : "", i, i % 3, x, y, w, h);
    }
    strbuf_addf(&all, "{\"images\": [%s], \"annotations\": [%s], \"categories\": [{\"id\": 0, \"name\": \"red\"}, {\"id\": 1, \"name\": \"green\"}, {\"id\": 2, \"name\": \"blue\"}]}",
                images.s, boxes.s);
    bench_text(b, "set.json", all.s);
    char *path = bench_path(b, "set.json");
    struct train_set *s = must_open(b, path, NULL);
    free(path);
    strbuf_done(&images);
    strbuf_done(&boxes);
    strbuf_done(&all);
    return s;
}

static const struct train_data_options everything = {.width = 64, .height = 48, .batch = 3, .seed = 9, .max_boxes = 20, .fit = TRAIN_LETTERBOX,
                                                     .augment = {.flip = 0.5f, .crop = 0.3f, .scale = {0.5f, 1.5f}, .brightness = 0.2f, .contrast = 0.2f,
                                                                 .saturation = 0.3f, .hue = 0.05f, .mosaic = 0.5f, .mixup = 0.3f}};

static void the_same_bits_from_any_number_of_threads(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    struct train_set *s = coco_set(&b, 11);
    uint64_t want = contents(&b, s, everything, 0, 0, 9), tail = contents(&b, s, everything, 0, 5, 4);
    for (int threads = 1; threads <= 5; threads++) {
        assert_true(contents(&b, s, everything, threads, 0, 9) == want);
        assert_true(contents(&b, s, everything, threads, 5, 4) == tail); /* resumed in the second epoch */
    }
    struct train_data_options other = everything;
    other.seed = 10;
    assert_true(contents(&b, s, other, 1, 0, 9) != want);
    train_set_free(&s);
    bench_end(&b);
}

/* A PNG's first bytes that promise 12000 x 9000 pixels. */
static const uint8_t huge_png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R', 0, 0, 0x2e, 0xe0, 0, 0, 0x23, 0x28, 8, 2, 0, 0, 0,
                                   0x4b, 0xa9, 0x1c, 0x53, 0, 0, 0, 1, 'I', 'D', 'A', 'T', 0, 0, 0, 0, 0};

static void damaged_pictures_are_counted(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    bench_folder(&b, "a");
    bench_picture(&b, "a/1.jpg", 64, 64, 0, 0, 64, 64, 0);
    bench_picture(&b, "a/2.jpg", 64, 64, 0, 0, 64, 64, 0);
    bench_picture(&b, "a/cut.jpg", 64, 64, 3, 3, 50, 50, 0);
    bench_write(&b, "a/huge.png", huge_png, sizeof huge_png);
    bench_text(&b, "a/text.jpg", "this is no picture at all");
    char *cut = bench_path(&b, "a/cut.jpg");
    struct stat st;
    assert_int_equal(stat(cut, &st), 0);
    assert_int_equal(truncate(cut, st.st_size / 2), 0);
    struct train_set *s = must_open(&b, b.dir, NULL);
    struct train_data *d;
    struct train_data_stats stats;
    const struct train_batch *t;
    assert_int_equal(train_set_count(s), 5);
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = 8, .height = 8, .batch = 5, .evaluate = true}, b.payer, &d), ERR_OK);
    assert_int_equal(train_data_next(d, &t), ERR_OK);
    for (int i = 0; i < 5; i++) assert_int_equal(t->samples[i] >= 0, i < 2);
    train_data_stats(d, &stats);
    assert_int_equal(stats.corrupt, 3);
    assert_non_null(strstr(stats.problem, "cut.jpg"));
    train_data_close(&d);
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = 8, .height = 8, .batch = 5, .threads = 2}, b.payer, &d), ERR_OK);
    for (int k = 0; k < 4; k++) {
        assert_int_equal(train_data_next(d, &t), ERR_OK);
        for (int i = 0; i < 5; i++) assert_in_range(t->samples[i], 0, 1);
    }
    train_data_close(&d);
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = 8, .height = 8, .batch = 2, .samples = (int64_t[]){3, 4}, .n_samples = 2}, b.payer, &d), ERR_OK);
    assert_int_equal(train_data_next(d, &t), ERR_CORRUPT); /* nothing to put in their place */
    train_data_close(&d);
    train_set_free(&s);
    free(cut);
    bench_end(&b);
}

static err use_all(const struct bench *b, const char *path, int threads)
{
    struct train_set *s;
    struct train_data *d;
    const struct train_batch *t;
    struct train_data_options o = everything;
    o.threads = threads;
    o.epochs = 1;
    err e = train_set_open(path, &(struct train_set_options){0}, b->payer, &s);
    if (e) return e;
    e = train_data_open(s, &o, b->payer, &d);
    if (!e) {
        while (!(e = train_data_next(d, &t))) continue;
        if (e == ERR_CLOSED) e = ERR_OK;
        train_data_close(&d);
    }
    train_set_free(&s);
    return e;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    struct train_set *s = coco_set(&b, 4);
    char *path = bench_path(&b, "set.json");
    train_set_free(&s);
    for (int threads = 0; threads < 2; threads++)
        for (uint64_t n = 1;; n++) {
            mem_fault_at(b.budget, n);
            err e = use_all(&b, path, threads);
            bool hit = mem_fault_calls(b.budget) >= n;
            mem_fault_at(b.budget, 0);
            assert_int_equal(mem_budget_used(b.budget), 0);
            if (!hit) {
                assert_int_equal(e, ERR_OK);
                assert_true(n > 20);
                break;
            }
            if (e != ERR_NOMEM) fail_msg("allocation %llu: %d %s", (unsigned long long)n, e, e ? err_text() : "went well");
        }
    free(path);
    bench_end(&b);
}

static void options_are_checked(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    struct train_set *s = coco_set(&b, 3);
    struct train_data *d;
    struct train_data_options good = everything, o;
#define REFUSED(change)                                                        \
    do {                                                                       \
        o = good;                                                              \
        o.change;                                                              \
        assert_int_equal(train_data_open(s, &o, b.payer, &d), ERR_USAGE);      \
    } while (0)
    REFUSED(width = 0);
    REFUSED(height = 5000);
    REFUSED(batch = 0);
    REFUSED(threads = 1000);
    REFUSED(channels = 2);
    REFUSED(augment.flip = 1.5f);
    REFUSED(augment.hue = NAN);
    REFUSED(augment.scale[1] = 0.1f);
    REFUSED(samples = ((int64_t[]){3}); o.n_samples = 1);
    int64_t *train, *held, n_train, n_held;
    train_data_split(s, 0.5, 1, &train, &n_train, &held, &n_held);
    assert_int_equal(n_train + n_held, 3);
    free(train);
    free(held);
    train_set_free(&s);
    bench_end(&b);
}

static void real_photos(void **state)
{
    (void)state;
    const char *source = getenv("BRIM_SOURCE"), *data = getenv("BRIM_DATA");
    char *path = data ? xasprintf("%s/images/openimages_vehicles/a", data) : xasprintf("%s/../shared/data/images/openimages_vehicles/a", source ? source : ".");
    if (access(path, R_OK)) {
        print_message("no photos at %s\n", path);
        free(path);
        skip();
    }
    struct bench b = bench_begin();
    struct train_set *s = must_open(&b, path, NULL);
    assert_int_equal(train_set_count(s), 240);
    assert_int_equal(train_set_report(s)->boxes + train_set_report(s)->bad_boxes, 582);
    assert_string_equal(train_set_class(s, 1), "ambulance");
    struct train_data *d;
    const struct train_batch *t;
    struct train_data_stats stats;
    struct train_data_options o = {.width = 96, .height = 96, .batch = 16, .threads = 2, .evaluate = true, .fit = TRAIN_LETTERBOX, .n_samples = 32};
    int64_t first[32], boxes = 0, want = 0;
    for (int i = 0; i < 32; i++) first[i] = i;
    o.samples = first;
    assert_int_equal(train_data_open(s, &o, b.payer, &d), ERR_OK);
    while (train_data_next(d, &t) == ERR_OK)
        for (int i = 0; i < t->count; i++) boxes += t->n_boxes[i];
    train_data_stats(d, &stats);
    assert_int_equal(stats.corrupt, 0);
    for (int i = 0, n; i < 32; i++) train_set_boxes(s, i, &n), want += n;
    assert_int_equal(boxes, want);
    train_data_close(&d);
    train_set_free(&s);
    free(path);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cifar), cmocka_unit_test(idx), cmocka_unit_test(folder), cmocka_unit_test(yolo),
                                       cmocka_unit_test(coco), cmocka_unit_test(coco_refused), cmocka_unit_test(the_order_is_a_permutation),
                                       cmocka_unit_test(the_same_bits_from_any_number_of_threads), cmocka_unit_test(damaged_pictures_are_counted),
                                       cmocka_unit_test(every_allocation_may_fail), cmocka_unit_test(options_are_checked), cmocka_unit_test(real_photos)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
