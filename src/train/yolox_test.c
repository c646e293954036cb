/* YOLOX's loss against PyTorch (tests/tools/make_yolox_golden.py, written from the paper): which cells SimOTA assigns to whom, the loss, and its gradient to every
 * number of the network's output. SPDX-License-Identifier: Apache-2.0 */
#include "train/yolox.h"

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
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct model *model;
    struct model_plan *plan;
    struct train_yolox yolox;
};

/* A graph that hands its input on is the network. */
static void open_work(struct work *w)
{
    struct tensor_shape s = {.rank = 3, .dims = {PICTURES, CELLS, WIDE}};
    w->budget = mem_budget_new("host", UINT64_MAX);
    w->payer = mem_payer_new(w->budget, "test");
    w->yolox = (struct train_yolox){.width = SIDE, .height = SIDE};
    struct graph *g = graph_new("yolox", 13, w->payer);
    int x = graph_add_input(g, "x", TENSOR_F32, &s), loss, grad;
    struct graph_builder b = {.g = g, .name = "loss"};
    graph_add_output(g, x);
    struct graph_training t = {.g = g, .n_inputs = 1, .n_outputs = 1};
    if (train_loss_yolox(&b, &t, &w->yolox, &loss) || graph_backward(g, loss, &x, 1, &grad)) fail_msg("%s", err_text());
    assert_true(w->yolox.cells == CELLS && w->yolox.classes == CLASSES);
    g->n_outputs = 0;
    graph_add_output(g, loss);
    graph_add_output(g, grad);
    assert_int_equal(model_from_graph(g, "yolox", &(struct model_options){.budget = w->budget, .threads = 1}, &w->model), ERR_OK);
    assert_int_equal(model_plan_new(w->model, NULL, &w->plan), ERR_OK);
    assert_int_equal(model_plan_reserve(w->plan), ERR_OK);
    assert_int_equal(model_request(w->model), ERR_OK);
    assert_int_equal(model_wait(w->model), ERR_OK);
}

static void close_work(struct work *w)
{
    model_release(w->model);
    model_plan_free(&w->plan);
    model_free(&w->model);
    mem_payer_free(&w->payer);
    mem_budget_free(&w->budget);
}

static void put(struct work *w, int i, void *from)
{
    struct tensor to = model_plan_input(w->plan, i), view = tensor_view(TENSOR_F32, &to.shape, from);
    assert_int_equal(model_copy(&view, &to), ERR_OK);
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
    put(&w, 0, rows);
    put(&w, 1, assigned);
    put(&w, 2, box);
    put(&w, 3, class);
    put(&w, 4, &share);
    assert_int_equal(model_plan_run(w.plan, NULL), ERR_OK);
    struct tensor out = model_plan_output(w.plan, 1), plain = tensor_view(TENSOR_F32, &out.shape, grad);
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
            assert_float_equal(*(float *)model_plan_output(w.plan, 0).data, v, 2e-6 * v);
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
    close_work(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_pytorch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
