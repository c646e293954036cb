/* Teachers: what they answer against the formula, labels for pictures without any, and a student that learns from answers alone. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_testing.h"
#include "train/job.h"
#include "train/net_testing.h"
#include "train/teacher.h"
#include "video/testing.h"

#include <math.h>

enum { SIDE = 16, CLASSES = 3, PICTURES = 90 };

static char *save(const struct bench *b, struct graph *g, const char *file)
{
    char *path = bench_path(b, file);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    return path;
}

static struct train_evaluate_options plain(const struct bench *b)
{
    return (struct train_evaluate_options){.budget = b->budget, .threads = 1, .feed = {.mean = {60, 60, 60}, .scale = {1 / 60.f, 1 / 60.f, 1 / 60.f}}};
}

/* The same network with and without a Softmax at its end, and asked for a picture of twice its size: the same answers. */
static void answers(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *raw = save(&b, test_classifier("raw", SIDE, 4, CLASSES, false, b.payer), "raw.onnx"), *soft = save(&b, test_classifier("soft", SIDE, 4, CLASSES, true, b.payer), "soft.onnx");
    struct train_evaluate_options o = plain(&b);
    float image[2 * SIDE * SIDE * 3 * 4], got[3][2 * CLASSES], hard[2 * CLASSES];
    for (int i = 0; i < 2 * SIDE * SIDE * 3; i++) image[i] = (float)(hash64(&i, sizeof i, 3) % 1000) / 500 - 1;
    struct train_batch batch = {.count = 2, .images = image};
    struct train_picture p = {.width = SIDE, .height = SIDE, .channels = 3}, twice = {.width = 2 * SIDE, .height = 2 * SIDE, .channels = 3};
    struct train_teacher *t;
    for (int i = 0; i < 3; i++) {
        if (i == 2) { /* each pixel four times: shrinking by half with half-pixel centres gives it back */
            float *big = image + 0;
            static float copy[2 * SIDE * SIDE * 3];
            memcpy(copy, image, sizeof copy);
            for (int r = 0; r < 2; r++)
                for (int y = 0; y < 2 * SIDE; y++)
                    for (int x = 0; x < 2 * SIDE; x++)
                        memcpy(big + ((r * 2 * SIDE + y) * 2 * SIDE + x) * 3, copy + ((r * SIDE + y / 2) * SIDE + x / 2) * 3, 3 * sizeof(float));
        }
        if (train_teacher_open(i == 1 ? soft : raw, i == 2 ? &twice : &p, 2, &o, &t)) fail_msg("%s", err_text());
        assert_int_equal(train_teacher_classes(t), CLASSES);
        assert_int_equal(train_teacher_answer(t, &batch, 2, got[i]), ERR_OK);
        if (i == 0) assert_int_equal(train_teacher_answer(t, &batch, 1, hard), ERR_OK);
        train_teacher_close(&t);
        for (int k = 0; k < 2 * CLASSES; k++) assert_float_equal(got[i][k], got[0][k], 2e-6);
    }
    for (int r = 0; r < 2; r++) { /* at temperature 2: the square roots, brought to a sum of 1 */
        float sum = 0, one = 0;
        for (int c = 0; c < CLASSES; c++) sum += sqrtf(hard[r * CLASSES + c]), one += hard[r * CLASSES + c];
        assert_float_equal(one, 1, 1e-6);
        for (int c = 0; c < CLASSES; c++) assert_float_equal(got[0][r * CLASSES + c], sqrtf(hard[r * CLASSES + c]) / sum, 1e-6);
    }
    twice.channels = 1;
    assert_int_equal(train_teacher_open(raw, &twice, 2, &o, &t), ERR_USAGE);
    free(raw);
    free(soft);
    bench_end(&b);
}

/* A network that says the same of every picture: of 84 cells (64 x 64), four see something. */
static struct graph *seer(struct mem_payer *payer)
{
    enum { CELLS = 84, ROW = 7 };
    struct graph *g = graph_new("seer", 13, payer);
    struct tensor_shape s = {.rank = 3, .dims = {1, CELLS, ROW}}, zero = {.rank = 0};
    float *f;
    int v, z, x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 3, 64, 64}});
    assert_int_equal(graph_add_constant(g, "zero", TENSOR_F32, &zero, &z, (void **)&f), ERR_OK);
    *f = 0;
    assert_int_equal(graph_add_constant(g, "said", TENSOR_F32, &s, &v, (void **)&f), ERR_OK);
    memset(f, 0, CELLS * ROW * sizeof *f);
    /* stride 16, cell (1, 1): centre 24, 24, 16 wide, 32 high, class 1, 0.81; stride 32, cell (1, 0): centre 40, 8, class 0, 0.5; another one, not sure enough; stride 32, cell (1, 1): 30 to 46, 48 to 56, class 0, 0.81 */
    memcpy(f + (64 + 5) * ROW, (float[]){0.5f, 0.5f, 0, logf(2), 0.9f, 0.1f, 0.9f}, ROW * sizeof *f);
    memcpy(f + (80 + 1) * ROW, (float[]){0.25f, 0.25f, logf(0.5f), logf(0.25f), 0.625f, 0.8f, 0}, ROW * sizeof *f);
    memcpy(f + (80 + 3) * ROW, (float[]){0.1875f, 0.625f, logf(0.5f), logf(0.25f), 0.9f, 0.9f, 0}, ROW * sizeof *f);
    memcpy(f + 3 * ROW, (float[]){0.5f, 0.5f, 0, 0, 0.5f, 0.5f, 0}, ROW * sizeof *f);
    int y = test_node(g, OP_MUL, "nothing", (int[]){x, z}, 2, NULL);
    struct graph_node *n;
    y = test_node(g, OP_REDUCE_MAX, "channels", &y, 1, &n);
    graph_set_ints(n, "axes", (int64_t[]){1}, 1);
    graph_set_int(n, "keepdims", 0);
    y = test_node(g, OP_REDUCE_MAX, "places", &y, 1, &n);
    graph_set_ints(n, "axes", (int64_t[]){1, 2}, 2);
    graph_add_output(g, test_node(g, OP_ADD, "out", (int[]){v, y}, 2, NULL));
    return g;
}

static void boxes(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *path = save(&b, seer(b.payer), "seer.onnx"), *clip = bench_path(&b, "clip.mp4"), *dir = bench_path(&b, "plain");
    struct train_evaluate_options o = plain(&b);
    struct train_set *s;
    int n;
    o.feed.fit = TRAIN_LETTERBOX;
    bench_folder(&b, "plain");
    bench_picture(&b, "plain/a.jpg", 128, 64, 0, 0, 4, 4, 0);
    bench_text(&b, "plain/b.jpg", "no picture");
    bench_picture(&b, "plain/c.jpg", 64, 128, 0, 0, 4, 4, 0);
    assert_int_equal(train_set_open(dir, &(struct train_set_options){0}, b.payer, &s), ERR_FORMAT);
    assert_int_equal(train_set_open(dir, &(struct train_set_options){.unlabelled = true}, b.payer, &s), ERR_OK);
    assert_true(train_set_unlabelled(s));
    if (train_teacher_label(&(struct train_teacher_labels){.path = path, .boxes = true}, s, &o)) fail_msg("%s", err_text());
    assert_int_equal(train_set_classes(s), 2);
    assert_string_equal(train_set_class(s, 1), "1");
    assert_true(train_set_has_boxes(s) && !train_set_unlabelled(s));
    /* the first is shown at half its size above padding: boxes are twice as large, of the first a quarter lies in the padding and is cut off, the third lies in it */
    const struct train_box *box = train_set_boxes(s, 0, &n);
    assert_int_equal(n, 2);
    assert_true(box[0].class_id == 1 && box[1].class_id == 0);
    assert_float_equal(box[0].x1, 32, 1e-4);
    assert_float_equal(box[0].y1, 16, 1e-4);
    assert_float_equal(box[0].x2, 64, 1e-4);
    assert_float_equal(box[0].y2, 64, 1e-4);
    assert_float_equal(box[1].x1, 64, 1e-4);
    train_set_boxes(s, 1, &n);
    assert_int_equal(n, 0);
    box = train_set_boxes(s, 2, &n); /* padding to the right: one lies before its edge, one behind it, of the third an eighth before it */
    assert_int_equal(n, 1);
    assert_float_equal(box[0].x1, 32, 1e-4);
    assert_float_equal(box[0].x2, 64, 1e-4);
    assert_float_equal(box[0].y2, 80, 1e-4);
    train_set_free(&s);
    /* a video; only one class is wanted; surer than anything: refused */
    static const char *const names[] = {"#0", "car"};
    assert_int_equal(clip_make(clip, 64, 64, 5, 10, 0, false), ERR_OK);
    assert_int_equal(train_set_open(clip, &(struct train_set_options){.unlabelled = true}, b.payer, &s), ERR_OK);
    assert_int_equal(train_teacher_label(&(struct train_teacher_labels){.path = path, .boxes = true, .names = names, .n_names = 2}, s, &o), ERR_OK);
    assert_int_equal(train_set_count(s), 5);
    assert_int_equal(train_set_classes(s), 1);
    assert_string_equal(train_set_class(s, 0), "car");
    box = train_set_boxes(s, 4, &n);
    assert_int_equal(n, 1);
    assert_float_equal(box[0].x1, 16, 1e-4);
    train_set_free(&s);
    assert_int_equal(train_set_open(clip, &(struct train_set_options){.unlabelled = true}, b.payer, &s), ERR_OK);
    assert_int_equal(train_teacher_label(&(struct train_teacher_labels){.path = path, .boxes = true, .score = 0.9}, s, &o), ERR_USAGE);
    assert_non_null(strstr(err_text(), "in 5 pictures the teacher saw nothing that it is sure of (--teacher-score 0.9)"));
    train_set_free(&s);
    for (uint64_t k = 1;; k += 3) { /* the budget may refuse at any moment */
        assert_int_equal(train_set_open(dir, &(struct train_set_options){.unlabelled = true}, b.payer, &s), ERR_OK);
        mem_fault_at(b.budget, k);
        err e = train_teacher_label(&(struct train_teacher_labels){.path = path, .boxes = true}, s, &o);
        bool hit = mem_fault_calls(b.budget) >= k;
        mem_fault_at(b.budget, 0);
        train_set_free(&s);
        if (hit != (e == ERR_NOMEM)) fail_msg("allocation %llu: %d %s", (unsigned long long)k, e, e ? err_text() : "went well");
        assert_int_equal(mem_budget_used(b.budget), 0);
        if (!hit) break;
    }
    free(path);
    free(clip);
    free(dir);
    bench_end(&b);
}

static struct train_job_options options(const char *model, const char *data, const char *out)
{
    return (struct train_job_options){.task = TRAIN_CLASSIFY, .model = model, .data = data, .out = out, .held_out = 0.2, .epochs = 12, .batch = 8, .threads = 1, .seed = 3,
                                      .lr = 0.2, .schedule = TRAIN_COSINE, .optimiser = {.rule = TRAIN_SGD, .momentum = 0.9f}, .feed = {.mean = {60, 60, 60}, .scale = {1 / 60.f, 1 / 60.f, 1 / 60.f}}};
}

/* A teacher learns from labels; a smaller student then sees pictures without any, at weight 1 nothing but the teacher's answers. */
static void student(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    bench_folder(&b, "labelled");
    bench_folder(&b, "plain");
    for (int c = 0; c < CLASSES; c++) {
        char name[48];
        snprintf(name, sizeof name, "labelled/%d", c);
        bench_folder(&b, name);
        for (int i = 0; i < PICTURES / CLASSES; i++) {
            snprintf(name, sizeof name, "labelled/%d/%d.jpg", c, i);
            bench_picture(&b, name, SIDE, SIDE, i % 5, i / 5, 5 + i % 4, 5 + i % 3, c);
            snprintf(name, sizeof name, "plain/%d-%d.jpg", i, c);
            bench_picture(&b, name, SIDE, SIDE, i % 4, i / 4, 6 + i % 3, 5 + i % 4, c);
        }
    }
    char *big = save(&b, test_classifier("big", SIDE, 6, CLASSES, false, b.payer), "big.onnx"), *small = save(&b, test_classifier("small", SIDE, 3, 5, false, b.payer), "small.onnx");
    char *labelled = bench_path(&b, "labelled"), *nothing = bench_path(&b, "plain"), *first = bench_path(&b, "first"), *second = bench_path(&b, "second");
    char *teacher = bench_path(&b, "first/last.onnx"), *learnt = bench_path(&b, "second/last.onnx");
    struct train_job_options o = options(big, labelled, first);
    struct train_result r;
    struct train_scores scores;
    if (train_job(&o, NULL, NULL, &r)) fail_msg("%s", err_text());
    assert_true(r.last_top1 > 0.9);
    o = options(small, nothing, second);
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_FORMAT); /* no labels, no teacher */
    o.teacher = teacher;
    o.classify = (struct train_classify){.distill = 1, .temperature = 2};
    if (train_job(&o, NULL, NULL, &r)) fail_msg("%s", err_text());
    struct train_set *s;
    struct graph *g;
    struct train_evaluate_options e = plain(&b);
    assert_int_equal(train_set_open(labelled, &(struct train_set_options){0}, b.payer, &s), ERR_OK);
    assert_int_equal(graph_load(learnt, b.payer, &g), ERR_OK);
    assert_int_equal(train_evaluate_classify(g, s, &e, &scores), ERR_OK);
    print_message("student, of true labels that it never saw: %.3f\n", scores.top1);
    assert_true(scores.top1 > 0.9);
    graph_free(&g);
    train_set_free(&s);
    /* the teacher of other classes than the labels */
    o = options(small, labelled, second);
    o.teacher = small;
    o.classify.distill = 0.5;
    o.out = nothing;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    assert_non_null(strstr(err_text(), "the teacher knows 5 classes, the data has 3"));
    free(big);
    free(small);
    free(labelled);
    free(nothing);
    free(first);
    free(second);
    free(teacher);
    free(learnt);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers), cmocka_unit_test(boxes), cmocka_unit_test(student)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
