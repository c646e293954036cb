/* Tests of data for embeddings: batches of P x K, splits by identity, crops of videos and who took them. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_sample.h"
#include "train/data_testing.h"
#include "video/testing.h"

enum { IDS = 5, MOST = 7 };

static struct train_set *folders(const struct bench *b)
{
    for (int id = 0; id < IDS; id++) {
        char name[32];
        snprintf(name, sizeof name, "id%d", id);
        bench_folder(b, name);
        for (int i = 0; i < 3 + id; i++) {
            snprintf(name, sizeof name, "id%d/%04d_c%ds1_%02d.jpg", id, id, 1 + i % 2, i);
            bench_picture(b, name, 16, 16, 0, 0, 8, 8, id % 3);
        }
    }
    struct train_set *s;
    if (train_set_open(b->dir, &(struct train_set_options){.identities = true}, b->payer, &s)) fail_msg("%s", err_text());
    return s;
}

/* K different samples each of P different classes, all classes before one comes again, and the same batches from any number of threads. */
static void batches(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    struct train_set *s = folders(&b);
    assert_int_equal(train_set_count(s), 25);
    assert_int_equal(train_set_camera(s, 0), 1);
    assert_int_equal(train_set_camera(s, 2), 2);
    int64_t seen[2][24 * 6];
    for (int threads = 0; threads < 2; threads++) {
        struct train_data *d;
        const struct train_batch *t;
        int classes[IDS] = {0};
        assert_int_equal(train_data_open(s, &(struct train_data_options){.width = 8, .height = 8, .batch = 6, .per_class = 3, .seed = 4, .threads = threads * 3}, b.payer, &d), ERR_OK);
        assert_int_equal(train_data_steps(d), 4);
        for (int i = 0; i < 24; i++) {
            assert_int_equal(train_data_next(d, &t), ERR_OK);
            assert_int_equal(t->count, 6);
            for (int r = 0; r < 6; r++) {
                seen[threads][6 * i + r] = t->samples[r];
                assert_int_equal(t->labels[r], t->labels[r / 3 * 3]);
                for (int k = r / 3 * 3; k < r; k++) assert_true(t->samples[k] != t->samples[r]);
            }
            assert_true(t->labels[0] != t->labels[3]);
            classes[t->labels[0]]++;
            classes[t->labels[3]]++;
        }
        int least = 48;
        for (int c = 0; c < IDS; c++) assert_true(classes[c] <= 12), least = MIN(least, classes[c]); /* 2 rounds of 4 of the 5 in each of 6 epochs */
        assert_true(least >= 4);
        train_data_close(&d);
    }
    assert_memory_equal(seen[0], seen[1], sizeof seen[0]);
    struct train_data *d;
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = 8, .height = 8, .batch = 6, .per_class = 4}, b.payer, &d), ERR_USAGE);
    assert_string_equal(err_text(), "a batch of 6 is no multiple of 4 pictures of a class");
    train_set_free(&s);
    bench_end(&b);
}

static void split(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    struct train_set *s = folders(&b);
    int64_t *train, *held, n_train, n_held;
    int side[IDS] = {0}, both = 0;
    train_data_split_classes(s, 0.5, 1, &train, &n_train, &held, &n_held);
    assert_int_equal(n_train + n_held, 25);
    for (int64_t i = 0; i < n_train; i++) side[train_set_label(s, train[i])] |= 1;
    for (int64_t i = 0; i < n_held; i++) side[train_set_label(s, held[i])] |= 2;
    for (int c = 0; c < IDS; c++) assert_true(side[c] == 1 || side[c] == 2), both |= side[c];
    assert_int_equal(both, 3);
    free(train);
    free(held);
    train_set_free(&s);
    bench_end(&b);
}

/* Two cameras that see the same object, and one that only one of them sees; rows of another class, and too small ones, are left out. */
static void crops(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *cam1 = bench_path(&b, "cam1.mp4"), *cam2 = bench_path(&b, "cam2.mp4"), buf[256];
    assert_int_equal(clip_make(cam1, 160, 128, 12, 10, 0, false), ERR_OK);
    assert_int_equal(clip_make(cam2, 160, 128, 12, 10, 0, false), ERR_OK);
    bench_folder(&b, "truth");
    struct strbuf t = {0};
    for (int i = 0; i < 12; i++) strbuf_addf(&t, "%d,7,%d,32,40,32,1,1,1\n%d,9,0,0,20,20,1,2,1\n", i + 1, i * 3 % 80, i + 1);
    bench_text(&b, "truth/cam1.txt", t.s);
    strbuf_addf(&t, "1,8,0,0,64,32,1,1,1\n1,5,0,0,4,4,1,1,1\n");
    bench_text(&b, "cam2.txt", t.s);
    struct train_set *s;
    struct train_set_options o = {.identities = true, .category = 1, .every = 4};
    if (train_set_open(b.dir, &o, b.payer, &s)) fail_msg("%s", err_text());
    assert_int_equal(train_set_kind(s), TRAIN_SET_CROPS);
    assert_int_equal(train_set_classes(s), 2);
    assert_string_equal(train_set_class(s, 0), "7");
    assert_string_equal(train_set_class(s, 1), "8");
    assert_int_equal(train_set_count(s), 7);
    assert_int_equal(train_set_report(s)->left_out, 6);
    assert_int_equal(train_set_report(s)->bad_boxes, 1);
    assert_true(str_ends(train_set_report(s)->problem, "cam2.txt:26: a box of less than 12 pixels a side; it is left out"));
    for (int i = 0; i < 7; i++) assert_int_equal(train_set_camera(s, i), i >= 3);
    assert_true(str_ends(train_set_name(s, 6, buf, sizeof buf), "#7@2"));
    /* what is cut out is the white box */
    struct train_data *d;
    const struct train_batch *batch;
    assert_int_equal(train_data_open(s, &(struct train_data_options){.width = 16, .height = 16, .batch = 7, .evaluate = true, .bytes = true}, b.payer, &d), ERR_OK);
    assert_int_equal(train_data_next(d, &batch), ERR_OK);
    for (int i = 0; i < 7; i++) {
        const uint8_t *middle = (const uint8_t *)batch->images + ((size_t)i * 256 + 8 * 16 + 8) * 3;
        if (batch->labels[i] == 0) assert_true(middle[0] > 200);
    }
    train_data_close(&d);
    train_set_free(&s);
    /* one video; its folder's labels are found */
    if (train_set_open(cam2, &o, b.payer, &s)) fail_msg("%s", err_text());
    assert_int_equal(train_set_count(s), 4);
    train_set_free(&s);
    for (uint64_t n = 1;; n++) { /* the budget may refuse at any moment */
        mem_fault_at(b.budget, n);
        err e = train_set_open(cam2, &o, b.payer, &s);
        bool hit = mem_fault_calls(b.budget) >= n;
        mem_fault_at(b.budget, 0);
        if (!e) train_set_free(&s);
        if (hit != (e == ERR_NOMEM)) fail_msg("allocation %llu: %d %s", (unsigned long long)n, e, e ? err_text() : "went well");
        assert_int_equal(mem_budget_used(b.budget), 0);
        if (!hit) break;
    }
    strbuf_done(&t);
    free(cam1);
    free(cam2);
    bench_end(&b);
}

/* Classes are words of objects.json, in the order of their names; objects without the key, and what is hardly visible, are left out. */
static void named(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *cam1 = bench_path(&b, "cam1.mp4");
    assert_int_equal(clip_make(cam1, 160, 128, 4, 10, 0, false), ERR_OK);
    bench_folder(&b, "truth");
    bench_text(&b, "truth/cam1.txt", "1,7,0,32,40,32,1,2,1\n1,9,40,0,20,20,1,2,0.75\n1,8,0,0,20,20,1,2,0.25\n1,6,0,0,20,20,1,1,1\n2,7,0,32,40,32,1,2,0.5\n");
    bench_text(&b, "truth/objects.json", "{\"objects\": [{\"id\": 9, \"colour\": \"dark green\"}, {\"id\": 6, \"top\": \"red\"}, {\"colour\": \"red\", \"id\": 7, \"x\": [1]},\n"
                                         "{\"id\": 8, \"colour\": \"blue\"}], \"more\": 1}");
    struct train_set *s;
    struct train_set_options o = {.named = "colour", .every = 1, .seen = 0.5};
    if (train_set_open(b.dir, &o, b.payer, &s)) fail_msg("%s", err_text());
    assert_int_equal(train_set_kind(s), TRAIN_SET_CROPS);
    assert_int_equal(train_set_classes(s), 2);
    assert_string_equal(train_set_class(s, 0), "dark green");
    assert_string_equal(train_set_class(s, 1), "red");
    assert_int_equal(train_set_count(s), 3);
    assert_int_equal(train_set_report(s)->left_out, 2);
    assert_int_equal(train_set_label(s, 0), 1);
    assert_int_equal(train_set_label(s, 1), 0);
    assert_int_equal(train_set_label(s, 2), 1);
    train_set_free(&s);
    o.named = "paint";
    assert_int_equal(train_set_open(b.dir, &o, b.payer, &s), ERR_FORMAT);
    assert_true(str_ends(err_text(), "truth/objects.json: no object has a 'paint'"));
    o.named = "x";
    assert_int_equal(train_set_open(b.dir, &o, b.payer, &s), ERR_FORMAT);
    assert_true(str_ends(err_text(), "truth/objects.json:1: a class has to be a text"));
    o.named = "colour";
    bench_text(&b, "truth/objects.json", "{\"objects\": [{\"colour\": \"red\"}]}");
    assert_int_equal(train_set_open(b.dir, &o, b.payer, &s), ERR_FORMAT);
    assert_true(str_ends(err_text(), "truth/objects.json:1: an object without id"));
    assert_int_equal(mem_budget_used(b.budget), 0);
    free(cam1);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(batches), cmocka_unit_test(split), cmocka_unit_test(crops), cmocka_unit_test(named)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
