/* YOLOX's loss against PyTorch (tests/tools/make_yolox_golden.py, written from the paper): which cells SimOTA assigns to whom, the loss, and its gradient to every
 * number of the network's output. SPDX-License-Identifier: Apache-2.0 */
#include "train/yolox.h"
#include "train/head_testing.h"

#include "train/net.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SIDE = 64, CLASSES = 3, CELLS = 84, WIDE = 5 + CLASSES, PICTURES = 2, ALL = PICTURES * CELLS * WIDE };

static const struct train_box boxes[PICTURES][3] = {{{4, 6, 40, 44, 1}, {30, 28, 60, 62, 2}, {50, 4, 62, 14, 0}}, {{0, 0, 63, 60, 0}, {8, 8, 20, 30, 2}}};
static const int counts[PICTURES] = {3, 2};

static void draw(float *rows)
{
    uint32_t x = 5;
    for (int i = 0; i < ALL; i++) {
        x = x * 1664525u + 1013904223u;
        float u = (float)(x >> 8) / 16777216.0f;
        rows[i] = i % WIDE < 4 ? u * 2 - 0.5f : u * 0.9f + 0.05f;
    }
}

struct work {
    struct head_work h;
    struct train_yolox yolox;
};

/* A graph that hands its input on is the network. */
static void open_work(struct work *w)
{
    struct tensor_shape s = {.rank = 3, .dims = {PICTURES, CELLS, WIDE}};
    head_work_begin(&w->h);
    w->yolox = (struct train_yolox){.width = SIDE, .height = SIDE};
    struct graph *g = graph_new("yolox", 13, w->h.payer);
    int x = graph_add_input(g, "x", TENSOR_F32, &s), loss, grad;
    struct graph_builder b = {.g = g, .name = "loss"};
    graph_add_output(g, x);
    struct graph_training t = {.g = g, .n_inputs = 1, .n_outputs = 1};
    if (train_loss_yolox(&b, &t, &w->yolox, &loss) || graph_backward(g, loss, &x, 1, &grad)) fail_msg("%s", err_text());
    assert_true(w->yolox.cells == CELLS && w->yolox.classes == CLASSES);
    g->n_outputs = 0;
    graph_add_output(g, loss);
    graph_add_output(g, grad);
    head_work_plan(&w->h, g);
}

static void as_pytorch(void **state)
{
    (void)state;
    struct work w = {0};
    static float rows[ALL], assigned[PICTURES * CELLS], box[PICTURES * CELLS * 4], class[PICTURES * CELLS * CLASSES], grad[ALL];
    char path[512], line[512];
    const char *source = getenv("BRIM_SOURCE");
    int64_t found = 0;
    int listed = 0, at = 0;
    draw(rows);
    open_work(&w);
    void *scratch = malloc(train_yolox_scratch(&w.yolox, 3));
    for (int n = 0; n < PICTURES; n++)
        found += train_yolox_assign(&w.yolox, rows + n * CELLS * WIDE, boxes[n], counts[n], scratch, assigned + n * CELLS, box + n * CELLS * 4, class + n * CELLS * CLASSES);
    float share = 1.0f / (float)found;
    head_work_put(&w.h, 0, rows);
    head_work_put(&w.h, 1, assigned);
    head_work_put(&w.h, 2, box);
    head_work_put(&w.h, 3, class);
    head_work_put(&w.h, 4, &share);
    assert_int_equal(model_plan_run(w.h.plan, NULL), ERR_OK);
    struct tensor out = model_plan_output(w.h.plan, 1), plain = tensor_view(TENSOR_F32, &out.shape, grad);
    assert_int_equal(model_copy(&out, &plain), ERR_OK);
    snprintf(path, sizeof path, "%s/tests/data/train/yolox.txt", source ? source : ".");
    FILE *f = fopen(path, "re");
    if (!f) fail_msg("%s is not there", path);
    while (fgets(line, sizeof line, f)) {
        int n, cell, which, used = 4;
        double v;
        if (sscanf(line, "assigned %d %d %d %lf", &n, &cell, &which, &v) == 4) {
            int i = n * CELLS + cell;
            assert_true(assigned[i] == 1 && box[4 * i] == boxes[n][which].x1 && box[4 * i + 3] == boxes[n][which].y2);
            assert_float_equal(class[i * CLASSES + boxes[n][which].class_id], v, 1e-6f);
            listed++;
        } else if (sscanf(line, "loss %lf", &v) == 1) {
            assert_float_equal(*(float *)model_plan_output(w.h.plan, 0).data, v, 2e-6 * v);
        } else if (str_starts(line, "row ")) {
            for (int k = 0, step; k < WIDE; k++, used += step, at++) {
                assert_int_equal(sscanf(line + used, "%lf%n", &v, &step), 1);
                if (fabs((double)grad[at] - v) > 1e-4 * fabs(v) + 2e-6) fail_msg("cell %d, number %d: %.7g, PyTorch has %.7g", at / WIDE, k, (double)grad[at], v);
            }
        }
    }
    fclose(f);
    assert_int_equal(listed, found);
    assert_int_equal(at, ALL);
    free(scratch);
    head_work_end(&w.h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_pytorch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
