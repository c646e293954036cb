/* The smaller tasks as a user meets them, each on a problem that a network of a few numbers can solve: pictures into pictures, with and without a rival, yes-or-no
 * attributes of which some are not known, a text. And data that is for another task. SPDX-License-Identifier: Apache-2.0 */
#include "train/data_testing.h"
#include "train/job.h"
#include "train/net_testing.h"

#include <math.h>

enum { SIDE = 16, COUNT = 40 };

static char *save(const struct bench *b, struct graph *g, const char *file)
{
    char *path = bench_path(b, file);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    return path;
}

static void write_rgb(const struct bench *b, const char *name, const uint8_t *rgb, int side)
{
    const uint8_t *bytes;
    size_t n;
    struct video_jpeg *j = video_jpeg_new(b->payer, 100);
    assert_int_equal(video_jpeg_encode(j, rgb, 3 * side, side, side, &bytes, &n), ERR_OK);
    bench_write(b, name, bytes, n);
    video_jpeg_free(&j);
}

static struct train_job_options options(enum train_task task, const char *model, const char *data, const char *out)
{
    return (struct train_job_options){.task = task, .model = model, .data = data, .out = out, .held_out = 0.2, .epochs = 30, .batch = 8, .threads = 1, .seed = 3, .lr = 0.02,
                                      .schedule = TRAIN_COSINE, .optimiser = {.rule = TRAIN_ADAMW}, .feed = {.scale = {1 / 255.f, 1 / 255.f, 1 / 255.f}}};
}

struct heard {
    double first, last;
    int epochs;
};

static void hear(void *user, const struct train_progress *p)
{
    struct heard *h = user;
    if (!p->epoch_done) return;
    double v = p->scores.psnr > 0 ? p->scores.psnr : p->scores.accuracy > 0 ? p->scores.accuracy : p->scores.perplexity;
    if (!h->epochs++) h->first = v;
    h->last = v;
}

/* Smooth pictures; the target is `gain` times as bright, or, `paired` false, always of one colour. The target may have another size. */
static void write_pairs(const struct bench *b, bool paired, int target_side)
{
    uint8_t rgb[4 * SIDE * SIDE * 3];
    bench_folder(b, "pairs");
    bench_folder(b, "pairs/input");
    bench_folder(b, "pairs/target");
    for (int i = 0; i < COUNT; i++)
        for (int t = 0; t < 2; t++) {
            char name[48];
            int side = t ? target_side : SIDE;
            for (int k = 0; k < side * side * 3; k++) {
                int x = k / 3 % side * SIDE / side, y = k / 3 / side * SIDE / side, c = k % 3, v = 30 + (x * (i % 5) + y * (i % 3) + 20 * (c == i % 3)) % 80;
                rgb[k] = (uint8_t)(!t ? v : paired ? 2 * v + 10 : c == 0 ? 220 - i % 3 : 40 + i % 5);
            }
            snprintf(name, sizeof name, t ? "pairs/target/%d.jpeg" : "pairs/input/%d.jpg", i);
            write_rgb(b, name, rgb, side);
        }
    bench_text(b, "pairs/input/alone.jpg", "x");
}

/* One convolution of 1 x 1 that begins as "leave it"; `twice`: enlarged first. */
static struct graph *filter(bool twice, struct mem_payer *payer)
{
    struct graph *g = graph_new("filter", 13, payer);
    struct graph_node *n;
    int scale = twice ? 2 : 1, v;
    struct tensor_shape four = {.rank = 1, .dims = {4}};
    float *f;
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 3, SIDE, SIDE}});
    if (twice) {
        assert_int_equal(graph_add_constant(g, "scales", TENSOR_F32, &four, &v, (void **)&f), ERR_OK);
        memcpy(f, (float[]){1, 1, 2, 2}, sizeof(float[4]));
        x = test_node(g, OP_RESIZE, "larger", (int[]){x, -1, v}, 3, &n);
        graph_set_string(n, "mode", "nearest");
    }
    int w = test_constant(g, "w.weight", (struct tensor_shape){.rank = 4, .dims = {3, 3, 1, 1}}, 0.1f), b = test_constant(g, "w.bias", (struct tensor_shape){.rank = 1, .dims = {3}}, 0);
    for (int i = 0; i < 3; i++) ((float *)g->values[w].owned)[4 * i] += 1;
    int y = test_node(g, OP_CONV, "filter", (int[]){x, w, b}, 3, NULL);
    g->values[y].dtype = TENSOR_F32;
    g->values[y].has_shape = true;
    g->values[y].shape = (struct tensor_shape){.rank = 4, .dims = {1, 3, scale * SIDE, scale * SIDE}};
    graph_add_output(g, y);
    return g;
}

static void images(void **state)
{
    (void)state;
    for (int larger = 0; larger < 2; larger++) {
        struct bench b = bench_begin();
        write_pairs(&b, true, larger ? 2 * SIDE : SIDE);
        char *model = save(&b, filter(larger, b.payer), "f.onnx"), *data = bench_path(&b, "pairs"), *out = bench_path(&b, "out"), *other = bench_path(&b, "other");
        struct train_job_options o = options(TRAIN_IMAGE, model, data, out);
        struct train_result r;
        struct heard h = {0};
        o.image = (struct train_image){.l1 = 1, .mse = 1, .ssim = 0.1};
        o.augment.flip = 0.5f; /* both are flipped, or PSNR could not be high */
        if (train_job(&o, hear, &h, &r)) fail_msg("%s", err_text());
        print_message("%s: PSNR %.1f to %.1f dB\n", larger ? "twice as large" : "the same size", h.first, h.last);
        assert_true(h.last > 26 && h.last > h.first + 8);
        assert_float_equal(r.last_top1, h.last, 0);
        o = options(TRAIN_IMAGE, model, data, other);
        o.augment.mixup = 0.5f;
        assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
        assert_non_null(strstr(err_text(), "pairs of pictures are flipped, cropped, shifted and zoomed together"));
        free(model);
        free(data);
        free(out);
        free(other);
        bench_end(&b);
    }
}

/* Nothing but the rival's opinion: what belongs to which picture is never said, only what true pictures look like. */
static void rival(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    write_pairs(&b, false, SIDE);
    char *model = save(&b, filter(false, b.payer), "f.onnx"), *data = bench_path(&b, "pairs"), *out = bench_path(&b, "out"), *last = bench_path(&b, "out/last.onnx"), *part = bench_path(&b, "part");
    struct train_job_options o = options(TRAIN_IMAGE, model, data, out);
    struct train_result r;
    struct heard h = {0};
    struct graph *g;
    o.image.adversary = 1;
    o.epochs = 40;
    o.optimiser.beta1 = 0.5f;
    if (train_job(&o, hear, &h, &r)) fail_msg("%s", err_text());
    print_message("with a rival alone: PSNR %.1f to %.1f dB\n", h.first, h.last);
    assert_true(h.last > h.first + 4 && h.last > 18);
    assert_int_equal(graph_load(last, b.payer, &g), ERR_OK); /* the rival stays at home */
    assert_int_equal(g->n_outputs, 1);
    assert_int_equal(g->n_nodes, 1);
    graph_free(&g);
    o.out = part;
    o.max_steps = 33;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_CANCELLED);
    o.max_steps = 0;
    o.resume = true;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_OK);
    char *command = xasprintf("cmp '%s' '%s/last.onnx'", last, part);
    assert_int_equal(system(command), 0);
    free(command);
    free(model);
    free(data);
    free(out);
    free(part);
    free(last);
    bench_end(&b);
}

/* Three lights, each on or off; every fourth picture does not say of one of them. */
static char *write_attributes(const struct bench *b)
{
    struct strbuf t = {0};
    uint8_t rgb[SIDE * SIDE * 3];
    bench_folder(b, "lights");
    bench_folder(b, "lights/images");
    strbuf_addf(&t, "file,red,green,blue\n");
    for (int i = 0; i < 2 * COUNT; i++) {
        int bits = (int)(hash64(&i, sizeof i, 1) % 8);
        char name[48];
        for (int k = 0; k < SIDE * SIDE * 3; k++) rgb[k] = (uint8_t)(30 + (hash64(&(int[]){i, k}[0], 8, 2) % 40) + (bits >> k % 3 & 1) * 150);
        snprintf(name, sizeof name, "lights/images/%d.jpg", i);
        write_rgb(b, name, rgb, SIDE);
        strbuf_addf(&t, "%d.jpg", i);
        for (int c = 0; c < 3; c++) strbuf_addf(&t, i % 4 == c ? "," : ",%d", bits >> c & 1);
        strbuf_addf(&t, "\n");
    }
    strbuf_addf(&t, "none.jpg,1,1,1\n");
    bench_text(b, "lights/attributes.csv", t.s);
    strbuf_done(&t);
    return bench_path(b, "lights");
}

static void attributes(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *data = write_attributes(&b), *model = save(&b, test_classifier("net", SIDE, 6, 5, false, b.payer), "net.onnx"), *out = bench_path(&b, "out");
    struct train_job_options o = options(TRAIN_ATTRIBUTES, model, data, out);
    struct train_result r;
    struct heard h = {0};
    struct train_set *s;
    assert_int_equal(train_set_open(data, &(struct train_set_options){0}, b.payer, &s), ERR_OK);
    assert_int_equal(train_set_kind(s), TRAIN_SET_ATTRIBUTES);
    assert_int_equal(train_set_count(s), 2 * COUNT);
    assert_int_equal(train_set_report(s)->bad_images, 1);
    assert_true(str_ends(train_set_report(s)->problem, "attributes.csv:82: none.jpg: an empty file or none"));
    assert_string_equal(train_set_class(s, 2), "blue");
    train_set_free(&s);
    o.lr = 0.05;
    o.epochs = 40;
    if (train_job(&o, hear, &h, &r)) fail_msg("%s", err_text());
    print_message("attributes: %.3f to %.3f right\n", h.first, h.last);
    assert_true(h.last > 0.95);
    static const struct { const char *text, *why; } bad[] = {{"file,a\n0.jpg,2\n", "attributes.csv:2: '2' for a: 1, 0, or nothing"},
                                                            {"file,a,b\n0.jpg,1\n", "attributes.csv:2: 1 values; the first line names 2"},
                                                            {"file,a\n0.jpg,1,1\n", "attributes.csv:2: more than 1 values"},
                                                            {"file\n", "attributes.csv:1: expected `file,ATTRIBUTE,...`"},
                                                            {"", "no classes in it"}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        bench_text(&b, "lights/attributes.csv", bad[i].text);
        assert_int_equal(train_set_open(data, &(struct train_set_options){0}, b.payer, &s), ERR_FORMAT);
        if (!strstr(err_text(), bad[i].why)) fail_msg("%s", err_text());
    }
    free(data);
    free(model);
    free(out);
    bench_end(&b);
}

static int sizes(struct graph *g, const char *name, const int64_t *v, int n)
{
    int64_t *p;
    int value;
    assert_int_equal(graph_add_constant(g, name, TENSOR_I64, &(struct tensor_shape){.rank = 1, .dims = {n}}, &value, (void **)&p), ERR_OK);
    memcpy(p, v, (size_t)n * sizeof *p);
    return value;
}

/* A table and a matrix: the next token from this one. */
static struct graph *bigrams(int words, int length, struct mem_payer *payer)
{
    struct graph *g = graph_new("bigrams", 13, payer);
    int x = graph_add_input(g, "tokens", TENSOR_I64, &(struct tensor_shape){.rank = 2, .dims = {1, length}});
    int y = test_node(g, OP_GATHER, "table", (int[]){test_constant(g, "table.weight", (struct tensor_shape){.rank = 2, .dims = {words, 8}}, 1), x}, 2, NULL);
    int rows = sizes(g, "rows", (int64_t[]){-1, 8}, 2), all = sizes(g, "all", (int64_t[]){-1, length, words}, 3);
    y = test_node(g, OP_RESHAPE, "tokens as rows", (int[]){y, rows}, 2, NULL);
    y = test_node(g, OP_GEMM, "words", (int[]){y, test_constant(g, "words.weight", (struct tensor_shape){.rank = 2, .dims = {8, words}}, 1)}, 2, NULL);
    graph_add_output(g, test_node(g, OP_RESHAPE, "logits", (int[]){y, all}, 2, NULL));
    return g;
}

static void text(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    enum { LENGTH = 16 };
    char tune[4001], *path = bench_path(&b, "tune.txt"), *model = save(&b, bigrams(256, LENGTH, b.payer), "b.onnx"), *out = bench_path(&b, "out"), *last = bench_path(&b, "out/last.onnx");
    for (int i = 0; i < 4000; i++) tune[i] = "abcdefgh"[i % 8]; /* after each letter comes one other, or, after h, one of two */
    for (int i = 7; i < 4000; i += 16) tune[i] = 'H';
    tune[4000] = 0;
    bench_text(&b, "tune.txt", tune);
    struct train_job_options o = options(TRAIN_TEXT, model, path, out);
    struct train_result r;
    struct heard h = {0};
    o.lr = 0.05;
    if (train_job(&o, hear, &h, &r)) fail_msg("%s", err_text());
    print_message("perplexity %.3f to %.3f\n", h.first, h.last);
    /* 7 of 8 are certain; g is followed by h or H: 2^(1/8) */
    assert_true(h.first > h.last && h.last < 1.13 && h.last > 1.08);
    assert_float_equal(r.best_top1, h.last, 0.02);
    /* the score is what the numbers say */
    struct graph *g;
    struct train_set *s;
    struct train_scores scores;
    struct train_evaluate_options e = {.budget = b.budget, .threads = 1, .batch = 7};
    assert_int_equal(train_set_open(path, &(struct train_set_options){.length = LENGTH}, b.payer, &s), ERR_OK);
    assert_int_equal(train_set_count(s), 249); /* the last of 250 has no token after it */
    assert_int_equal(graph_load(last, b.payer, &g), ERR_OK);
    assert_int_equal(train_evaluate_text(g, s, &e, &scores), ERR_OK);
    const float *table = NULL, *words = NULL;
    for (size_t v = 0; v < g->n_values; v++) {
        if (!strcmp(g->values[v].name, "table.weight")) table = g->values[v].constant;
        if (!strcmp(g->values[v].name, "words.weight")) words = g->values[v].constant;
    }
    double sum = 0;
    for (int i = 0; i < 249 * LENGTH; i++) {
        double total = 0, at = 0;
        for (int w = 0; w < 256; w++) {
            double dot = 0;
            for (int k = 0; k < 8; k++) dot += (double)table[tune[i] * 8 + k] * (double)words[k * 256 + w];
            total += exp(dot);
            if (w == tune[i + 1]) at = dot;
        }
        sum += log(total) - at;
    }
    assert_float_equal(scores.loss, sum / (249 * LENGTH), 1e-5);
    assert_float_equal(scores.perplexity, exp(sum / (249 * LENGTH)), 1e-4);
    graph_free(&g);
    train_set_free(&s);
    /* tokens that the network does not know */
    uint16_t wide[64];
    for (int i = 0; i < 64; i++) wide[i] = (uint16_t)(i == 40 ? 300 : i);
    bench_write(&b, "wide.u16", wide, sizeof wide);
    free(path);
    path = bench_path(&b, "wide.u16");
    char *other = bench_path(&b, "other");
    o = options(TRAIN_TEXT, model, path, other);
    o.held_out = 0;
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    assert_non_null(strstr(err_text(), "the text has tokens up to 300, the network knows 256"));
    free(other);
    free(path);
    free(model);
    free(out);
    free(last);
    bench_end(&b);
}

/* What is held out may lie elsewhere: with the same columns. */
static void attributes_held_out_elsewhere(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *data = write_attributes(&b), *model = save(&b, test_classifier("net", SIDE, 6, 3, false, b.payer), "net.onnx"), *out = bench_path(&b, "out"), *other = bench_path(&b, "other.csv");
    struct train_job_options o = options(TRAIN_ATTRIBUTES, model, data, out);
    struct train_result r;
    struct heard h = {0};
    o.val = other;
    o.epochs = 2;
    bench_text(&b, "other.csv", "file,red,green,blue\nlights/images/1.jpg,1,0,1\nlights/images/2.jpg,1,,0\n");
    if (train_job(&o, hear, &h, &r)) fail_msg("%s", err_text());
    assert_int_equal(h.epochs, 2);
    free(out);
    o.out = out = bench_path(&b, "out2");
    bench_text(&b, "other.csv", "file,red,blue,green\nlights/images/1.jpg,1,0,1\n");
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    if (!strstr(err_text(), "attribute 2 is 'blue', in ") || !strstr(err_text(), "lights 'green'")) fail_msg("%s", err_text());
    bench_text(&b, "other.csv", "file,red,green\nlights/images/1.jpg,1,0\n");
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    if (!strstr(err_text(), "other.csv: it has 2 attributes, ")) fail_msg("%s", err_text());
    /* nothing to score by: said before the first epoch, not after it */
    bench_text(&b, "other.csv", "file,red,green,blue\nlights/images/1.jpg,,,\n");
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
    if (!strstr(err_text(), "no attribute of these pictures is known")) fail_msg("%s", err_text());
    char *best = bench_path(&b, "out2/best.onnx");
    assert_int_not_equal(access(best, F_OK), 0);
    free(best);
    free(data);
    free(model);
    free(out);
    free(other);
    bench_end(&b);
}

/* Data of one task for another. */
static void other_tasks(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    write_pairs(&b, true, SIDE);
    char *lights = write_attributes(&b), *pairs = bench_path(&b, "pairs"), *model = save(&b, test_classifier("net", SIDE, 6, 5, false, b.payer), "net.onnx"), *out = bench_path(&b, "out");
    struct train_result r;
    const struct { enum train_task task; const char *data, *why; } cases[] = {
        {TRAIN_CLASSIFY, pairs, "it has pairs of pictures; that is for --task image, not classify"}, {TRAIN_EMBED, pairs, "it has pairs of pictures; that is for --task image, not embed"},
        {TRAIN_DETECT, lights, "it has attributes of pictures; that is for --task attributes, not detect"}, {TRAIN_IMAGE, lights, "that is for --task attributes, not image"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct train_job_options o = options(cases[i].task, model, cases[i].data, out);
        assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
        if (!strstr(err_text(), cases[i].why)) fail_msg("%s", err_text());
    }
    struct train_job_options o = options(TRAIN_TEXT, model, pairs, out);
    assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_SHAPE);
    assert_non_null(strstr(err_text(), "a language model has one input of int64 [N, tokens]"));
    const enum train_task untaught[] = {TRAIN_EMBED, TRAIN_IMAGE, TRAIN_ATTRIBUTES, TRAIN_TEXT}; /* a teacher that nobody listens to */
    for (size_t i = 0; i < ARRAY_LEN(untaught); i++) {
        o = options(untaught[i], model, untaught[i] == TRAIN_ATTRIBUTES ? lights : pairs, out);
        o.teacher = model;
        assert_int_equal(train_job(&o, NULL, NULL, &r), ERR_USAGE);
        if (!strstr(err_text(), "--teacher is for classify and detect")) fail_msg("%s", err_text());
    }
    free(lights);
    free(pairs);
    free(model);
    free(out);
    bench_end(&b);
}

/* Probabilities are told from other numbers also where their shape is changed after the Softmax: the same loss, the same steps. */
static void softmax_before_a_reshape(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *data = bench_path(&b, "two");
    double loss[3], score[3];
    bench_folder(&b, "two");
    for (int c = 0; c < 2; c++) {
        bench_folder(&b, c ? "two/b" : "two/a");
        for (int i = 0; i < 12; i++) {
            char name[32];
            snprintf(name, sizeof name, "two/%s/%d.jpg", c ? "b" : "a", i);
            bench_picture(&b, name, SIDE, SIDE, i % 5, i % 3, 6, 6, c);
        }
    }
    for (int kind = 0; kind < 3; kind++) { /* none, at the end, before a Reshape and a Flatten */
        struct graph *g = test_classifier("net", SIDE, 4, 2, kind > 0, b.payer);
        if (kind == 2) {
            int y = test_node(g, OP_RESHAPE, "as a map", (int[]){g->outputs[0], sizes(g, "map", (int64_t[]){0, 2, 1, 1}, 4)}, 2, NULL);
            y = test_node(g, OP_FLATTEN, "as a list", &y, 1, NULL);
            g->values[g->outputs[0]].is_output = false;
            g->values[y].is_output = true;
            g->outputs[0] = y;
        }
        char *model = save(&b, g, "net.onnx"), out[8];
        snprintf(out, sizeof out, "out%d", kind);
        char *folder = bench_path(&b, out), *last = xasprintf("%s/last.onnx", folder);
        struct train_job_options o = options(TRAIN_CLASSIFY, model, data, folder);
        struct train_result r;
        struct train_set *s;
        struct graph *trained;
        struct train_scores scores;
        struct train_evaluate_options e = {.budget = b.budget, .threads = 1, .batch = 5, .feed = o.feed};
        o.epochs = 3;
        o.held_out = 0;
        if (train_job(&o, NULL, NULL, &r)) fail_msg("%s", err_text());
        loss[kind] = r.loss;
        assert_true(isnan(r.best_top1)); /* there is no score without anything held out */
        assert_int_equal(train_set_open(data, &(struct train_set_options){0}, b.payer, &s), ERR_OK);
        assert_int_equal(graph_load(last, b.payer, &trained), ERR_OK);
        assert_int_equal(train_evaluate_classify(trained, s, &e, &scores), ERR_OK);
        score[kind] = scores.loss;
        graph_free(&trained);
        train_set_free(&s);
        free(model);
        free(folder);
        free(last);
    }
    for (int kind = 1; kind < 3; kind++) {
        assert_float_equal(loss[kind], loss[0], 1e-6);
        assert_float_equal(score[kind], score[0], 1e-4);
    }
    free(data);
    bench_end(&b);
}

/* A network that makes two rows of each picture is no classifier, though each row is as long as the list of classes. */
static void rows_that_are_no_batch(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *data = bench_path(&b, "four");
    struct graph *g = test_classifier("net", SIDE, 4, 8, false, b.payer);
    struct train_set *s;
    struct train_scores scores;
    struct train_evaluate_options o = {.budget = b.budget, .threads = 1, .batch = 4};
    bench_folder(&b, "four");
    for (int c = 0; c < 4; c++) {
        char name[32];
        snprintf(name, sizeof name, "four/%d", c);
        bench_folder(&b, name);
        snprintf(name, sizeof name, "four/%d/a.jpg", c);
        bench_picture(&b, name, SIDE, SIDE, 2, 2, 6, 6, c % 3);
    }
    g->symbols = xnewn(char *, 1); /* an open batch: of a fixed one it is known that it would be mixed */
    g->symbols[g->n_symbols++] = xstrdup("N");
    g->values[g->inputs[0]].shape.dims[0] = -1;
    int y = test_node(g, OP_RESHAPE, "rows", (int[]){g->outputs[0], sizes(g, "two rows", (int64_t[]){-1, 4}, 2)}, 2, NULL);
    g->values[g->outputs[0]].is_output = false;
    g->values[y].is_output = true;
    g->outputs[0] = y;
    assert_int_equal(train_set_open(data, &(struct train_set_options){0}, b.payer, &s), ERR_OK);
    assert_int_equal(train_evaluate_classify(g, s, &o, &scores), ERR_SHAPE);
    if (!strstr(err_text(), "for 4 pictures; a classifier gives [N, classes]")) fail_msg("%s", err_text());
    graph_free(&g);
    train_set_free(&s);
    free(data);
    bench_end(&b);
}

/* Mixed pictures need labels that can be mixed. */
static void augmentations_that_would_lie(void **state)
{
    (void)state;
    struct bench b = bench_begin();
    char *data = bench_path(&b, "two");
    struct train_set *s;
    struct train_data *d;
    bench_folder(&b, "two");
    bench_folder(&b, "two/a");
    bench_folder(&b, "two/b");
    bench_picture(&b, "two/a/1.jpg", SIDE, SIDE, 0, 0, 6, 6, 0);
    bench_picture(&b, "two/b/1.jpg", SIDE, SIDE, 0, 0, 6, 6, 1);
    assert_int_equal(train_set_open(data, &(struct train_set_options){0}, b.payer, &s), ERR_OK);
    struct train_data_options mosaic = {.width = SIDE, .height = SIDE, .batch = 2, .augment.mosaic = 0.5f}, mixed = {.width = SIDE, .height = SIDE, .batch = 2, .per_class = 1, .augment.mixup = 0.5f};
    assert_int_equal(train_data_open(s, &mosaic, b.payer, &d), ERR_USAGE);
    if (!strstr(err_text(), "a mosaic shows four pictures and has one label")) fail_msg("%s", err_text());
    assert_int_equal(train_data_open(s, &mixed, b.payer, &d), ERR_USAGE);
    if (!strstr(err_text(), "no mixup of identities")) fail_msg("%s", err_text());
    train_set_free(&s);
    /* the names of one set for another */
    assert_int_equal(train_set_open(data, &(struct train_set_options){.classes = (const char *const[]){"#0", "zebra"}, .n_classes = 2}, b.payer, &s), ERR_FORMAT);
    if (!strstr(err_text(), "two: none of its 2 classes ('a' ...) is one of the 1 that are wanted ('zebra' ...)")) fail_msg("%s", err_text());
    char *file = bench_path(&b, "two/a/1.jpg");
    assert_int_equal(train_set_open(file, &(struct train_set_options){.kind = TRAIN_SET_FOLDER}, b.payer, &s), ERR_IO); /* and a folder that is none */
    free(file);
    free(data);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(images), cmocka_unit_test(rival), cmocka_unit_test(attributes), cmocka_unit_test(text), cmocka_unit_test(other_tasks),
                                       cmocka_unit_test(attributes_held_out_elsewhere), cmocka_unit_test(softmax_before_a_reshape), cmocka_unit_test(rows_that_are_no_batch),
                                       cmocka_unit_test(augmentations_that_would_lie)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
