/* Detectors as a user meets them: a small network with heat maps learns boxes, is scored, changes its classes, teaches; what does not fit is refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/data_testing.h"
#include "train/job.h"
#include "train/net_testing.h"
#include "train/teacher.h"

enum { SIDE = 32, COUNT = 48 };

static int conv(struct graph *g, const char *name, int x, int64_t in, int64_t out, int64_t kernel, int64_t stride, bool relu)
{
    struct graph_node *n;
    char w[32], b[32], r[32];
    snprintf(w, sizeof w, "%s.weight", name), snprintf(b, sizeof b, "%s.bias", name), snprintf(r, sizeof r, "%s.relu", name);
    int nodes[] = {x, test_constant(g, w, (struct tensor_shape){.rank = 4, .dims = {out, in, kernel, kernel}}, 1.4f / (float)kernel),
                   test_constant(g, b, (struct tensor_shape){.rank = 1, .dims = {out}}, 0.1f)};
    int y = test_node(g, OP_CONV, name, nodes, 3, &n);
    graph_set_ints(n, "strides", (int64_t[]){stride, stride}, 2);
    graph_set_ints(n, "pads", (int64_t[]){kernel / 2, kernel / 2, kernel / 2, kernel / 2}, 4);
    return relu ? test_node(g, OP_RELU, r, &y, 1, NULL) : y;
}

/* Maps of a quarter of the sides. `outputs`: 3, or what is to be refused. */
static char *save_net(const struct bench *b, int classes, int outputs, bool sigmoid, const char *file)
{
    struct graph *g = graph_new("maps", 13, b->payer);
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 3, SIDE, SIDE}});
    x = conv(g, "one", x, 3, 12, 3, 2, true);
    x = conv(g, "two", x, 12, 16, 3, 2, true);
    x = conv(g, "three", x, 16, 16, 3, 1, true);
    int y = conv(g, "heat", x, 16, classes, 1, 1, false), out[3];
    for (int i = 0; i < classes; i++) ((float *)g->values[g->nodes[g->n_nodes - 1].op.in[2]].owned)[i] = -3;
    out[0] = sigmoid ? test_node(g, OP_SIGMOID, "heat.sigmoid", &y, 1, NULL) : y;
    out[1] = conv(g, "size", x, 16, 2, 1, 1, false);
    out[2] = conv(g, "offset", x, 16, 2, 1, 1, false);
    for (int i = 0; i < outputs; i++) {
        g->values[out[i]].dtype = TENSOR_F32;
        g->values[out[i]].has_shape = true;
        g->values[out[i]].shape = (struct tensor_shape){.rank = 4, .dims = {1, i ? 2 : classes, SIDE / 4, SIDE / 4}};
        graph_add_output(g, out[i]);
    }
    char *path = bench_path(b, file);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    return path;
}

/* Rectangles of two colours in YOLO's form. */
static char *write_data(const struct bench *b)
{
    bench_folder(b, "set");
    bench_folder(b, "set/images");
    bench_folder(b, "set/labels");
    bench_text(b, "set/classes.txt", "red\nblue\n");
    for (uint32_t i = 0; i < COUNT; i++) {
        char name[64], label[96];
        int w = 6 + (int)(i * 7 % 9), h = 6 + (int)(i * 5 % 11), x = (int)(i * 13 % (uint32_t)(SIDE - w)), y = (int)(i * 11 % (uint32_t)(SIDE - h)), blue = (int)(i % 2);
        snprintf(name, sizeof name, "set/images/%u.jpg", i);
        bench_picture(b, name, SIDE, SIDE, x, y, w, h, 2 * blue);
        snprintf(name, sizeof name, "set/labels/%u.txt", i);
        snprintf(label, sizeof label, "%d %g %g %g %g\n", blue, (x + w / 2.0) / SIDE, (y + h / 2.0) / SIDE, (double)w / SIDE, (double)h / SIDE);
        bench_text(b, name, label);
    }
    return bench_path(b, "set");
}

static struct train_job_options options(const char *model, const char *data, const char *out)
{
    return (struct train_job_options){.task = TRAIN_DETECT, .model = model, .data = data, .out = out, .held_out = 0.25, .epochs = 100, .batch = 6, .threads = 1, .seed = 2, .lr = 0.01,
                                      .schedule = TRAIN_COSINE, .optimiser = {.rule = TRAIN_ADAMW}, .score_first = true, .feed = {.scale = {1 / 255.f, 1 / 255.f, 1 / 255.f}}};
}

struct heard {
    double before, after;
    char said[400];
};

static void hear(void *user, const struct train_progress *p)
{
    struct heard *h = user;
    if (p->epoch_done) *(p->epoch ? &h->after : &h->before) = p->scores.ap50;
}

static void say(void *user, const char *sentence)
{
    snprintf(((struct heard *)user)->said, sizeof ((struct heard *)user)->said, "%s", sentence);
}

/* The network knows three classes, the data two: its head is exchanged. Then the result teaches: pictures without labels get theirs from it. */
static void learns(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *data = write_data(&b), *model = save_net(&b, 3, 3, true, "maps.onnx"), *out = bench_path(&b, "out"), *best = bench_path(&b, "out/best.onnx"), *plain = bench_path(&b, "set/images");
    struct train_job_options o = options(model, data, out);
    struct train_result r;
    struct heard h = {0};
    o.say = say;
    if (train_job(&o, hear, &h, &r)) fail_msg("%s", err_text());
    print_message("AP50 %.3f before, %.3f after\n", h.before, h.after);
    assert_non_null(strstr(h.said, "maps.onnx: 2 classes instead of 3: layer 'heat' begins untrained"));
    assert_true(h.before < 0.1 && h.after > 0.8);
    struct graph *g;
    struct train_set *set;
    struct train_scores s;
    struct train_evaluate_options how = {.budget = b.budget, .threads = 1, .batch = 5, .feed = o.feed};
    assert_int_equal(graph_load(best, b.payer, &g), ERR_OK);
    assert_int_equal(train_set_open(data, &(struct train_set_options){0}, b.payer, &set), ERR_OK);
    if (train_evaluate_detect(g, set, &how, &s)) fail_msg("%s", err_text());
    assert_int_equal(s.samples, COUNT);
    assert_true(s.ap50 > 0.8);
    train_set_free(&set);
    assert_int_equal(train_set_open(plain, &(struct train_set_options){.unlabelled = true}, b.payer, &set), ERR_OK);
    if (train_teacher_label(&(struct train_teacher_labels){.path = best, .boxes = true, .score = 0.3}, set, &how)) fail_msg("%s", err_text());
    int found = 0, n;
    for (int64_t i = 0; i < COUNT; i++) {
        const struct train_box *box = train_set_boxes(set, i, &n);
        char name[256];
        int number = atoi(strrchr(train_set_name(set, i, name, sizeof name), '/') + 1), w = 6 + number * 7 % 9, x = number * 13 % (SIDE - w);
        for (int k = 0; k < n; k++) found += box[k].class_id == number % 2 && box[k].x1 > (float)x - 4 && box[k].x1 < (float)x + 4;
    }
    assert_true(found > COUNT * 3 / 4);
    train_set_free(&set);
    graph_free(&g);
    /* taught by it, held against true labels that lie elsewhere */
    static const char *const names[] = {"red", "blue"};
    char *taught = bench_path(&b, "taught");
    o = options(model, plain, taught);
    o.teacher = best;
    o.teacher_classes = names;
    o.n_teacher_classes = 2;
    o.val = data;
    o.epochs = 1;
    if (train_job(&o, hear, &h, &r)) fail_msg("%s", err_text());
    assert_true(h.after >= 0);
    free(taught);
    taught = bench_path(&b, "taught2");
    o.out = taught;
    o.data = data;
    o.val = plain;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    if (!strstr(err_text(), "set: it has labels; for detect a teacher labels pictures that have none")) fail_msg("%s", err_text());
    free(taught);
    free(data), free(model), free(out), free(best), free(plain);
    bench_end(&b);
}

static void refused(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *data = write_data(&b), *two = save_net(&b, 2, 2, true, "two.onnx"), *raw = save_net(&b, 2, 3, false, "raw.onnx"), *out = bench_path(&b, "out"), *other = bench_path(&b, "other");
    struct train_result r;
    struct train_job_options o = options(two, data, out);
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_SHAPE);
    assert_non_null(strstr(err_text(), "2 outputs, number 0 is [6, 2, 8, 8]; a detector with heat maps gives [N, classes, h, w]"));
    o = options(raw, data, other);
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "the heat map, comes out of Conv; to be trained it comes out of a Sigmoid"));
    free(data), free(two), free(raw), free(out), free(other);
    bench_end(&b);
}

/* What is held out shows nothing at all: there is no score, and that is said before the first epoch. */
static void nothing_held_out_to_see(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *data = write_data(&b), *model = save_net(&b, 2, 3, true, "maps.onnx"), *out = bench_path(&b, "out"), *best = bench_path(&b, "out/best.onnx");
    struct train_job_options o = options(model, data, out);
    struct train_result r;
    struct train_set *s;
    int64_t *train, *held, n_train, n_held;
    assert_int_equal(train_set_open(data, &(struct train_set_options){0}, b.payer, &s), ERR_OK);
    train_data_split(s, o.held_out, o.seed, &train, &n_train, &held, &n_held);
    assert_true(n_held > 0);
    for (int64_t i = 0; i < n_held; i++) {
        char name[256], file[64];
        snprintf(file, sizeof file, "set/labels/%d.txt", atoi(strrchr(train_set_name(s, held[i], name, sizeof name), '/') + 1));
        bench_text(&b, file, "");
    }
    train_set_free(&s);
    free(train);
    free(held);
    o.epochs = 1;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    if (!strstr(err_text(), "pictures to score on has a box in it: give others (--val, --held-out)")) fail_msg("%s", err_text());
    assert_int_not_equal(access(best, F_OK), 0);
    free(data), free(model), free(out), free(best);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(learns), cmocka_unit_test(refused), cmocka_unit_test(nothing_held_out_to_see)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
