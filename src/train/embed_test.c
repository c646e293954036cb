/* Embeddings as a user trains them: identities are patterns of two colours at two places; what was never seen is told apart afterwards. The scores are counted by
 * hand. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_testing.h"
#include "train/job.h"

#include <math.h>
#include "video/encode.h"

enum { SIDE = 24, IDS = 16, EACH = 8 };

/* Upper and lower half have a colour each, noise is over all. */
static void picture(const struct bench *b, const char *name, int id, int number)
{
    static const uint8_t colours[4][3] = {{200, 60, 60}, {60, 200, 60}, {60, 60, 200}, {180, 180, 60}};
    uint8_t rgb[SIDE * SIDE * 3];
    const uint8_t *bytes;
    size_t n;
    for (int i = 0; i < SIDE * SIDE * 3; i++) {
        int at[] = {i, id, number};
        int v = colours[i / 3 / SIDE < SIDE / 2 ? id % 4 : id / 4][i % 3] + (int)(hash64(at, sizeof at, 2) % 80) - 40 + (number % 3 - 1) * 25;
        rgb[i] = (uint8_t)MIN(MAX(v, 0), 255);
    }
    struct video_jpeg *j = video_jpeg_new(b->payer, 95);
    assert_int_equal(video_jpeg_encode(j, rgb, 3 * SIDE, SIDE, SIDE, &bytes, &n), ERR_OK);
    bench_write(b, name, bytes, n);
    video_jpeg_free(&j);
}

static int node(struct graph *g, enum op_kind kind, const char *name, const int *in, int n_in, struct graph_node **ret)
{
    int y = graph_add_value(g, name, TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, kind, name, n_in, 1);
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    n->op.out[0] = y;
    if (ret) *ret = n;
    return y;
}

static int constant(struct graph *g, const char *name, struct tensor_shape s, float size)
{
    float *f;
    int v;
    assert_int_equal(graph_add_constant(g, name, TENSOR_F32, &s, &v, (void **)&f), ERR_OK);
    for (int64_t i = 0; i < tensor_count(&s); i++) f[i] = ((float)(hash64(&i, sizeof i, 5) >> 40) / (float)(1 << 24) - 0.5f) * size;
    return v;
}

/* A layer of places, a layer of numbers: [1, 3, 24, 24] to [1, 8]. */
static char *write_net(const struct bench *b)
{
    char *path = bench_path(b, "net.onnx");
    struct graph *g = graph_new("net", 13, b->payer);
    struct graph_node *n;
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 3, SIDE, SIDE}});
    int y = node(g, OP_CONV, "conv", (int[]){x, constant(g, "conv.weight", (struct tensor_shape){.rank = 4, .dims = {8, 3, 8, 8}}, 0.2f)}, 2, &n);
    graph_set_ints(n, "strides", (int64_t[]){8, 8}, 2);
    y = node(g, OP_RELU, "relu", &y, 1, NULL);
    y = node(g, OP_FLATTEN, "flat", &y, 1, NULL);
    y = node(g, OP_GEMM, "fc", (int[]){y, constant(g, "fc.weight", (struct tensor_shape){.rank = 2, .dims = {72, 8}}, 0.4f)}, 2, NULL);
    g->values[y].dtype = TENSOR_F32;
    g->values[y].shape = (struct tensor_shape){.rank = 2, .dims = {1, 8}};
    g->values[y].has_shape = true;
    graph_add_output(g, y);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    return path;
}

static void set_of(const struct bench *b, const char *folder)
{
    bench_folder(b, folder);
    for (int id = 0; id < IDS; id++) {
        char name[64];
        snprintf(name, sizeof name, "%s/id%02d", folder, id);
        bench_folder(b, name);
        for (int i = 0; i < EACH; i++) {
            snprintf(name, sizeof name, "%s/id%02d/%d.jpg", folder, id, i);
            picture(b, name, id, i);
        }
    }
}

static struct train_job_options options(const char *model, const char *data, const char *out)
{
    return (struct train_job_options){.task = TRAIN_EMBED, .model = model, .data = data, .out = out, .held_out = 0.3, .epochs = 12, .batch = 16, .threads = 1, .seed = 1,
                                      .lr = 0.01, .schedule = TRAIN_COSINE, .optimiser = {.rule = TRAIN_ADAMW}, .embed = {.margin = 0.3, .triplet = 1},
                                      .feed = {.mean = {128, 128, 128}, .scale = {1 / 64.f, 1 / 64.f, 1 / 64.f}}};
}

static err scores_of(const struct bench *b, const char *path, const struct train_set *s, const int64_t *samples, int64_t n, struct train_scores *ret)
{
    struct graph *g;
    assert_int_equal(graph_load(path, b->payer, &g), ERR_OK);
    assert_int_equal(g->n_outputs, 1);
    struct train_evaluate_options o = {.budget = b->budget, .threads = 1, .samples = samples, .n_samples = n,
                                       .feed = {.mean = {128, 128, 128}, .scale = {1 / 64.f, 1 / 64.f, 1 / 64.f}}};
    err e = train_evaluate_embed(g, s, &o, ret);
    graph_free(&g);
    return e;
}

static void learns(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    set_of(&b, "data");
    char *model = write_net(&b), *data = bench_path(&b, "data"), *out = bench_path(&b, "out"), *part = bench_path(&b, "part"), *last = bench_path(&b, "out/last.onnx");
    struct train_job_options o = options(model, data, out);
    struct train_result r;
    struct train_scores before, after;
    struct train_set *s;
    int64_t *train, *held, n_train, n_held;
    assert_int_equal(train_set_open(data, &(struct train_set_options){.identities = true}, b.payer, &s), ERR_OK);
    train_data_split_classes(s, 0.3, 1, &train, &n_train, &held, &n_held);
    assert_int_equal(scores_of(&b, model, s, held, n_held, &before), ERR_OK);
    if (train_job(&o, NULL, NULL, &r)) fail_msg("%s", err_text());
    assert_int_equal(scores_of(&b, last, s, held, n_held, &after), ERR_OK);
    print_message("held-out identities: %d pictures, mAP %.3f -> %.3f, rank-1 %.3f -> %.3f\n", (int)n_held, before.map, after.map, before.rank1, after.rank1);
    assert_true(fabs(after.map - r.last_top1) < 1e-9); /* the job's own score */
    assert_true(after.map > 0.9 && after.map > before.map + 0.1);
    assert_int_equal(after.samples, n_held);
    /* stopped and resumed: the same file; a checkpoint exports without its head */
    o.out = part;
    o.max_steps = 30;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_CANCELLED);
    o.max_steps = 0;
    o.resume = true;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
    char *command = xasprintf("cmp '%s' '%s/last.onnx'", last, part), *brim = bench_path(&b, "part/last.brim"), *again = bench_path(&b, "again.onnx");
    assert_int_equal(system(command), 0);
    free(command);
    assert_int_equal(train_export(brim, again, true), ERR_OK);
    command = xasprintf("cmp '%s' '%s'", last, again);
    assert_int_equal(system(command), 0);
    free(command);
    train_set_free(&s);
    free(train);
    free(held);
    free(brim);
    free(again);
    free(model);
    free(data);
    free(out);
    free(part);
    free(last);
    bench_end(&b);
}

/* Six pictures of one number each, fed through an identity of a network: cosines are 1 or -1, so the order is known. */
static void counted_by_hand(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    /* a: bright bright dark; b: dark dark; c: bright. Embedding (v - 0.5, 0.25): bright ones point one way, dark ones another. */
    static const struct { const char *name; bool bright; } files[] = {{"q/a/0001_c1_1.jpg", true}, {"q/a/0001_c2_2.jpg", true}, {"q/a/0001_c3_3.jpg", false},
                                                                      {"q/b/0002_c1_1.jpg", false}, {"q/b/0002_c1_2.jpg", false}, {"q/c/0003_c1_1.jpg", true}};
    bench_folder(&b, "q");
    bench_folder(&b, "q/a");
    bench_folder(&b, "q/b");
    bench_folder(&b, "q/c");
    for (size_t i = 0; i < ARRAY_LEN(files); i++) bench_picture(&b, files[i].name, 8, 8, 0, 0, files[i].bright ? 8 : 0, 8, 0);
    char *q = bench_path(&b, "q");
    struct graph *g = graph_new("mean", 13, b.payer);
    struct graph_node *n;
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 3, 8, 8}});
    int y = node(g, OP_GLOBAL_AVERAGE_POOL, "mean", &x, 1, &n);
    graph_add_output(g, node(g, OP_FLATTEN, "flat", &y, 1, NULL));
    struct train_set *s;
    struct train_scores r;
    struct train_evaluate_options o = {.budget = b.budget, .threads = 1, .feed = {.mean = {130, 60, 60}, .scale = {1, 1, 1}}};
    assert_int_equal(train_set_open(q, &(struct train_set_options){.identities = true}, b.payer, &s), ERR_OK);
    if (train_evaluate_embed(g, s, &o, &r)) fail_msg("%s", err_text());
    /* b and c have no right answer from another camera. Ties go by number.
       a1 asks: a2 (bright), c (bright), then dark a3 b1 b2: right at 1 and 3: (1 + 2/3) / 2. a2 the same with a1. a3 asks: b1, b2 (dark), then a1 a2 c: right at 3 and 4. */
    assert_int_equal(r.samples, 3);
    assert_float_equal(r.rank1, 2.0 / 3, 1e-9);
    assert_float_equal(r.map, (2 * (1 + 2.0 / 3) / 2 + (1.0 / 3 + 2.0 / 4) / 2) / 3, 1e-9);
    train_set_free(&s);
    graph_free(&g);
    free(q);
    bench_end(&b);
}

static void refusals(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    bench_folder(&b, "one");
    bench_folder(&b, "one/a");
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "one/a/%d.jpg", i);
        picture(&b, name, 1, i);
    }
    char *model = write_net(&b), *data = bench_path(&b, "one"), *out = bench_path(&b, "out");
    struct train_job_options o = options(model, data, out);
    struct train_result r;
    o.held_out = 0;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    assert_non_null(strstr(err_text(), "1 identity to train on; two or more are needed"));
    o.embed.width = 9;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    assert_non_null(strstr(err_text(), "has 8 numbers, not 9"));
    char *written = bench_path(&b, "out/model.onnx");
    assert_int_not_equal(access(written, F_OK), 0);
    free(written);
    free(model);
    free(data);
    free(out);
    bench_end(&b);
}

/* Identities that are held out with a picture each, or all from one camera, cannot be found again: said before the first epoch. */
static void nobody_to_find(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    set_of(&b, "data");
    char *model = write_net(&b), *data = bench_path(&b, "data"), *out = bench_path(&b, "out"), *written = bench_path(&b, "out/best.onnx");
    struct train_job_options o = options(model, data, out);
    struct train_result r;
    struct train_set *s;
    int64_t *train, *held, n_train, n_held;
    assert_int_equal(train_set_open(data, &(struct train_set_options){.identities = true}, b.payer, &s), ERR_OK);
    train_data_split_classes(s, 0.3, 1, &train, &n_train, &held, &n_held);
    for (int64_t i = 0; i < n_held; i++) {
        char name[256];
        train_set_name(s, held[i], name, sizeof name);
        if (!str_ends(name, "/0.jpg")) assert_int_equal(unlink(name), 0);
    }
    train_set_free(&s);
    free(train);
    free(held);
    o.epochs = 1;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    if (!strstr(err_text(), "pictures has another of its identity to be found")) fail_msg("%s", err_text());
    assert_int_not_equal(access(written, F_OK), 0);
    o.held_out = 0; /* without scores it can be trained on */
    if (train_job(&o, NULL, NULL, &r)) fail_msg("%s", err_text());
    assert_int_equal(access(written, F_OK), 0);
    free(written);
    free(model);
    free(data);
    free(out);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(learns), cmocka_unit_test(counted_by_hand), cmocka_unit_test(refusals), cmocka_unit_test(nobody_to_find)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
