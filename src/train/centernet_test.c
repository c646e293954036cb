/* CenterNet's loss against PyTorch (tests/tools/make_centernet_golden.py, written from the papers): the bells of the heat map and how wide they are, the loss, its
 * gradient to every number of the network's outputs, by finite differences, too; what is refused. SPDX-License-Identifier: Apache-2.0 */
#include "train/centernet.h"
#include "train/head_testing.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { WIDTH = 64, HEIGHT = 48, ROWS = 12, COLUMNS = 16, PLANE = ROWS * COLUMNS, CLASSES = 2, PICTURES = 2, MOST = PICTURES * 2 * PLANE };

static const struct train_box boxes[PICTURES][4] = {{{3, 2, 39, 47, 1}, {30, 8, 54, 20, 0}, {41, 9, 45, 13, 0}, {60, 40, 64, 48, 1}},
                                                    {{0, 0, 64, 48, 0}, {17, 20, 31, 29, 1}, {25, 20, 39, 29, 1}, {18, 20, 31, 28.5f, 1}}};

/* What the script draws, in its order: logits, sizes, offsets of the first picture, then of the second. */
static void draw(float values[3][MOST])
{
    uint32_t x = 5;
    for (int n = 0; n < PICTURES; n++)
        for (int k = 0; k < 3; k++)
            for (int i = 0; i < 2 * PLANE; i++) {
                x = x * 1664525u + 1013904223u;
                float u = (float)(x >> 8) / 16777216.0f;
                values[k][n * 2 * PLANE + i] = k == 0 ? 6 * u - 4 : k == 1 ? 12 * u : u;
            }
}

struct work {
    struct head_work h;
    struct train_centernet c;
};

/* Logits through a Sigmoid, sizes and offsets as they are, are the network. */
static void open_work(struct work *w)
{
    struct tensor_shape s = {.rank = 4, .dims = {PICTURES, CLASSES, ROWS, COLUMNS}}, two = {.rank = 4, .dims = {PICTURES, 2, ROWS, COLUMNS}};
    head_work_begin(&w->h);
    w->c = (struct train_centernet){.width = WIDTH, .height = HEIGHT};
    struct graph *g = graph_new("centernet", 13, w->h.payer);
    int in[3] = {graph_add_input(g, "logits", TENSOR_F32, &s), graph_add_input(g, "size", TENSOR_F32, &two), graph_add_input(g, "offset", TENSOR_F32, &two)}, loss, grads[3];
    struct graph_builder b = {.g = g, .name = "loss"};
    graph_add_output(g, graph_b1(&b, OP_SIGMOID, in[0]));
    graph_add_output(g, in[1]);
    graph_add_output(g, in[2]);
    struct graph_training t = {.g = g, .n_inputs = 3, .n_outputs = 3};
    if (train_loss_centernet(&b, &t, &w->c, &loss) || graph_backward(g, loss, in, 3, grads)) fail_msg("%s", err_text());
    assert_true(w->c.classes == CLASSES && w->c.rows == ROWS && w->c.columns == COLUMNS);
    g->n_outputs = 0;
    graph_add_output(g, loss);
    for (int i = 0; i < 3; i++) graph_add_output(g, grads[i]);
    head_work_plan(&w->h, g);
}

static double run(struct work *w, float values[3][MOST], float targets[3][MOST], float grads[3][MOST])
{
    for (int i = 0; i < 3; i++) head_work_put(&w->h, i, values[i]), head_work_put(&w->h, 3 + i, targets[i]);
    assert_int_equal(model_plan_run(w->h.plan, NULL), ERR_OK);
    for (int i = 0; i < 3 && grads; i++) {
        struct tensor out = model_plan_output(w->h.plan, 1 + i), plain = tensor_view(TENSOR_F32, &out.shape, grads[i]);
        assert_int_equal(model_copy(&out, &plain), ERR_OK);
    }
    return (double)*(float *)model_plan_output(w->h.plan, 0).data;
}

static void aim(const struct train_centernet *c, float targets[3][MOST])
{
    for (int n = 0; n < PICTURES; n++) {
        size_t at = (size_t)n * 2 * PLANE;
        train_centernet_aim(c, boxes[n], 4, targets[0] + at, targets[1] + at, targets[2] + at);
    }
}

/* "NAME v v v ..." against what is here, in order. */
static int compare(const char *line, const char *name, const float *have, double relative, double absolute)
{
    int used = (int)strlen(name), step, n = 0;
    double v;
    if (!str_starts(line, name) || line[used] != ' ') return 0;
    for (; sscanf(line + used, "%lf%n", &v, &step) == 1; used += step, n++)
        if (fabs((double)have[n] - v) > relative * fabs(v) + absolute) fail_msg("%s %d: %.7g, PyTorch has %.7g", name, n, (double)have[n], v);
    assert_int_equal(n, 2 * PLANE);
    return 1;
}

static void as_pytorch(void **state)
{
    (void)state;
    struct work w = {0};
    static float values[3][MOST], targets[3][MOST], grads[3][MOST];
    static char line[64 << 10];
    static const char *const names[] = {"heat", "size", "offset", "by_logit", "by_size", "by_offset"};
    char path[512];
    const char *source = getenv("BRIM_SOURCE");
    int seen[6] = {0}, radii = 0, losses = 0;
    draw(values);
    open_work(&w);
    aim(&w.c, targets);
    double loss = run(&w, values, targets, grads);
    snprintf(path, sizeof path, "%s/tests/data/train/centernet.txt", source ? source : ".");
    FILE *f = fopen(path, "re");
    if (!f) fail_msg("%s is not there", path);
    while (fgets(line, sizeof line, f)) {
        double width, height, v;
        for (int i = 0; i < 3; i++) {
            size_t at = (size_t)2 * PLANE;
            seen[i] += compare(line, names[i], targets[i] + at * (size_t)MIN(seen[i], 1), 1e-5, 1e-7);
            seen[3 + i] += compare(line, names[3 + i], grads[i] + at * (size_t)MIN(seen[3 + i], 1), 1e-4, 1e-7);
        }
        if (sscanf(line, "radius %lf %lf %lf", &width, &height, &v) == 3) assert_float_equal(train_centernet_radius(width, height), v, 1e-6 * (1 + v)), radii++;
        if (sscanf(line, "loss %lf", &v) == 1) assert_float_equal(loss, v, 2e-6 * v), losses++;
    }
    fclose(f);
    for (int i = 0; i < 6; i++) assert_int_equal(seen[i], PICTURES);
    assert_true(radii >= 8 && losses == 1);
    head_work_end(&w.h);
}

/* The loss is a sum of f32, so steps are wide and what is compared is not small. */
static void finite_differences(void **state)
{
    (void)state;
    struct work w = {0};
    static float values[3][MOST], targets[3][MOST], grads[3][MOST];
    int compared = 0;
    draw(values);
    open_work(&w);
    aim(&w.c, targets);
    run(&w, values, targets, grads);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < MOST; i += k ? 1 : 7) {
            if (fabsf(grads[k][i]) < 0.003f) continue;
            float was = values[k][i], by = 0.02f;
            if (k && fabsf(was - targets[k][i]) < 2 * by) continue; /* the corner of |x| */
            values[k][i] = was + by;
            double up = run(&w, values, targets, NULL);
            values[k][i] = was - by;
            double slope = (up - run(&w, values, targets, NULL)) / ((double)(was + by) - (double)(was - by));
            values[k][i] = was;
            if (fabs(slope - (double)grads[k][i]) > 2e-3 * fabs(slope) + 2e-4) fail_msg("output %d, number %d: slope %g, gradient %g", k, i, slope, (double)grads[k][i]);
            compared++;
        }
    assert_true(compared > 60);
    head_work_end(&w.h);
}

/* A picture without a box; boxes at the very edge, of no area, of a class that is not there. */
static void edges(void **state)
{
    (void)state;
    struct work w = {0};
    static float values[3][MOST], targets[3][MOST], grads[3][MOST];
    const struct train_box odd[] = {{10, 10, 10, 20, 0}, {1, 1, 9, 9, 2}, {1, 1, 9, 9, -1}, {NAN, 0, 8, 8, 0}, {62, 46, 66, 50, 0}};
    open_work(&w);
    draw(values);
    train_centernet_aim(&w.c, odd, 4, targets[0], targets[1], targets[2]);
    for (int i = 0; i < 2 * PLANE; i++) assert_true(targets[0][i] == 0 && targets[1][i] == 0 && targets[2][i] == 0);
    double nothing = run(&w, values, targets, grads);
    assert_true(isfinite(nothing) && nothing > 0);
    for (int i = 0; i < MOST; i++) assert_true(isfinite(grads[0][i]) && grads[1][i] == 0 && grads[2][i] == 0);
    train_centernet_aim(&w.c, odd, 5, targets[0], targets[1], targets[2]);
    assert_true(targets[0][PLANE - 1] == 1 && targets[1][PLANE - 1] == 1 && targets[2][PLANE - 1] == 1); /* the last cell, its far corner */
    /* far out on both sides: no overflow, and a slope that leads back */
    for (int i = 0; i < MOST; i++) values[0][i] = i % 2 ? 90 : -90;
    assert_true(isfinite(run(&w, values, targets, grads)));
    assert_float_equal(grads[0][0], 0, 1e-6); /* -90 where nothing is: right */
    assert_true(grads[0][1] > 0.5f);          /* 90 where nothing is */
    values[0][PLANE - 1] = -90;
    run(&w, values, targets, grads);
    assert_float_equal(grads[0][PLANE - 1], -1, 1e-3);
    head_work_end(&w.h);
}

static void what_is_refused(void **state)
{
    (void)state;
    struct mem_budget *budget = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(budget, "test");
    struct graph *g = graph_new("net", 13, payer);
    struct tensor_shape s = {.rank = 4, .dims = {1, 3, 8, 8}}, two = {.rank = 4, .dims = {1, 2, 8, 8}}, other = {.rank = 4, .dims = {1, 2, 8, 4}};
    struct train_centernet c = {.width = 32, .height = 32};
    int loss;
    graph_add_output(g, graph_add_input(g, "heat", TENSOR_F32, &s));
    assert_int_equal(train_centernet_of(g, 32, 32, &c), ERR_SHAPE);
    assert_string_equal(err_text(), "net: 1 outputs, number 0 is [1, 3, 8, 8]; a detector with heat maps gives [N, classes, h, w], sizes [N, 2, h, w] and offsets [N, 2, h, w], "
                                    "and h and w divide the picture's 32 and 32 by the same number");
    graph_add_output(g, graph_add_input(g, "size", TENSOR_F32, &two));
    int offset = graph_add_input(g, "offset", TENSOR_F32, &other);
    graph_add_output(g, offset);
    assert_int_equal(train_centernet_of(g, 32, 32, &c), ERR_SHAPE);
    assert_non_null(strstr(err_text(), "number 2 is [1, 2, 8, 4]"));
    g->values[offset].shape = two;
    assert_int_equal(train_centernet_of(g, 32, 64, &c), ERR_SHAPE);
    assert_int_equal(train_centernet_of(g, 30, 32, &c), ERR_SHAPE);
    assert_int_equal(train_centernet_of(g, 32, 32, &c), ERR_OK);
    struct graph_builder b = {.g = g, .name = "loss"};
    struct graph_training t = {.g = g, .n_inputs = 3, .n_outputs = 3};
    assert_int_equal(train_loss_centernet(&b, &t, &c, &loss), ERR_UNSUPPORTED);
    assert_string_equal(err_text(), "net: output 'heat', the heat map, comes out of nothing; to be trained it comes out of a Sigmoid");
    graph_free(&g);
    mem_payer_free(&payer);
    mem_budget_free(&budget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_pytorch), cmocka_unit_test(finite_differences), cmocka_unit_test(edges), cmocka_unit_test(what_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
