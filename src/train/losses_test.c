/* Losses and their gradients against PyTorch (tests/tools/make_loss_goldens.py), each as a graph of one input; SimOTA against a count by hand.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/losses.h"
#include "train/yolox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static float draw(uint32_t *x)
{
    *x = *x * 1664525u + 1013904223u;
    return (float)(*x >> 8) / 16777216.0f;
}

static struct tensor_shape shape_of(const char *name)
{
    if (!strcmp(name, "ssim")) return (struct tensor_shape){.rank = 4, .dims = {2, 3, 14, 13}};
    if (!strcmp(name, "triplet")) return (struct tensor_shape){.rank = 2, .dims = {6, 4}};
    return (struct tensor_shape){.rank = 2, .dims = {4, 5}};
}

static void fill(const char *name, float *x, float *y, int64_t n)
{
    uint32_t state = 11;
    bool picture = !strcmp(name, "ssim");
    for (int64_t i = 0; i < n; i++) x[i] = picture ? draw(&state) : draw(&state) * 4 - 2;
    if (!strcmp(name, "triplet")) {
        for (int i = 0; i < 36; i++) y[i] = i / 6 / 2 == i % 6 / 2;
        return;
    }
    bool rows = !strcmp(name, "cross") || !strcmp(name, "focal") || !strcmp(name, "distill");
    for (int64_t i = 0; i < n; i++) y[i] = draw(&state) + (rows ? 0.1f : 0);
    for (int r = 0; rows && r < 4; r++) {
        float sum = 0;
        for (int c = 0; c < 5; c++) sum += y[5 * r + c];
        for (int c = 0; c < 5; c++) y[5 * r + c] /= sum;
    }
}

static int build(struct graph_builder *b, const char *name, int x, int y)
{
    if (!strcmp(name, "bce")) return train_b_bce(b, x, y);
    if (!strcmp(name, "cross")) return train_b_focal(b, x, y, 0);
    if (!strcmp(name, "focal")) return train_b_focal(b, x, y, 2);
    if (!strcmp(name, "distill")) return train_b_distill(b, x, y, 3);
    if (!strcmp(name, "l1")) return train_b_l1(b, x, y);
    if (!strcmp(name, "mse")) return train_b_mse(b, x, y);
    if (!strcmp(name, "ssim")) return train_b_ssim(b, x, y, 1);
    if (!strcmp(name, "triplet")) return train_b_triplet(b, x, y, 0.3);
    fail_msg("no loss '%s'", name);
    return -1;
}

static void one(const char *line)
{
    char name[16];
    double want;
    int used, grad;
    if (sscanf(line, "%15s %lf%n", name, &want, &used) != 2) fail_msg("%s", line);
    struct mem_budget *budget = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(budget, "test");
    struct graph *g = graph_new(name, 13, payer);
    struct tensor_shape s = shape_of(name), other = s;
    if (!strcmp(name, "triplet")) other.dims[1] = 6;
    int x = graph_add_input(g, "x", TENSOR_F32, &s), y = graph_add_input(g, "y", TENSOR_F32, &other);
    struct graph_builder b = {.g = g, .name = "loss"};
    int loss = build(&b, name, x, y);
    if (b.e) fail_msg("%s: %s", name, err_text());
    assert_int_equal(graph_backward(g, loss, &x, 1, &grad), ERR_OK);
    graph_add_output(g, loss);
    graph_add_output(g, grad);
    struct model_options o = {.budget = budget, .threads = 1};
    struct model *m;
    struct model_plan *p;
    assert_int_equal(model_from_graph(g, name, &o, &m), ERR_OK);
    assert_int_equal(model_plan_new(m, NULL, &p), ERR_OK);
    assert_int_equal(model_plan_reserve(p), ERR_OK);
    assert_int_equal(model_request(m), ERR_OK);
    assert_int_equal(model_wait(m), ERR_OK);
    int64_t n = tensor_count(&s);
    float *in = xnewn(float, n), *target = xnewn(float, n + 36), *found = xnewn(float, n);
    fill(name, in, target, n);
    struct tensor from = tensor_view(TENSOR_F32, &s, in), from2 = tensor_view(TENSOR_F32, &other, target), to = model_plan_input(p, 0), to2 = model_plan_input(p, 1);
    assert_int_equal(model_copy(&from, &to), ERR_OK);
    assert_int_equal(model_copy(&from2, &to2), ERR_OK);
    assert_int_equal(model_plan_run(p, NULL), ERR_OK);
    double v = (double)*(float *)model_plan_output(p, 0).data;
    if (fabs(v - want) > 2e-6 * fmax(1, fabs(want))) fail_msg("%s: %.9g, PyTorch has %.9g", name, v, want);
    struct tensor got = model_plan_output(p, 1), plain = tensor_view(TENSOR_F32, &s, found);
    assert_int_equal(model_copy(&got, &plain), ERR_OK);
    const char *at = line + used;
    for (int i = 0; i < MIN(n, 40); i++) {
        char *end;
        double d = strtod(at, &end);
        assert_ptr_not_equal(at, end);
        if (fabs((double)found[i] - d) > 1e-4 * fabs(d) + 2e-6) fail_msg("%s: gradient %d is %.9g, PyTorch has %.9g", name, i, (double)found[i], d);
        at = end;
    }
    free(in);
    free(target);
    free(found);
    model_release(m);
    model_plan_free(&p);
    model_free(&m);
    mem_payer_free(&payer);
    mem_budget_free(&budget);
}

static void as_pytorch(void **state)
{
    (void)state;
    char path[512], line[4096];
    const char *source = getenv("BRIM_SOURCE");
    int n = 0;
    snprintf(path, sizeof path, "%s/tests/data/train/losses.txt", source ? source : ".");
    FILE *f = fopen(path, "re");
    if (!f) fail_msg("%s is not there", path);
    while (fgets(line, sizeof line, f))
        if (line[0] != '#') one(line), n++;
    fclose(f);
    assert_int_equal(n, 8);
}

/* 64 x 64: 64 + 16 + 4 cells. */
static void sim_ota(void **state)
{
    (void)state;
    enum { CELLS = 84, CLASSES = 2, ROW = 5 + CLASSES };
    struct train_yolox y = {.width = 64, .height = 64, .classes = CLASSES, .cells = CELLS};
    static float rows[CELLS * ROW], assigned[CELLS], box[CELLS * 4], class[CELLS * CLASSES];
    int column, line, stride;
    train_yolox_cell(&y, 64 + 5, &column, &line, &stride);
    assert_true(column == 1 && line == 1 && stride == 16);
    train_yolox_cell(&y, 83, &column, &line, &stride);
    assert_true(column == 1 && line == 1 && stride == 32);
    for (int i = 0; i < CELLS; i++) rows[i * ROW + 4] = rows[i * ROW + 5] = rows[i * ROW + 6] = 0.1f;
    struct train_box boxes[] = {{8, 8, 24, 24, 1}, {40, 40, 48, 48, 0}};
    /* cell (1, 1) of stride 8 says exactly the first box, cell (5, 5) the second */
    float *a = rows + (1 * 8 + 1) * ROW, *b = rows + (5 * 8 + 5) * ROW;
    a[0] = a[1] = 1;
    a[2] = a[3] = logf(2);
    b[0] = b[1] = 0.5f;
    void *scratch = malloc(train_yolox_scratch(&y, 2));
    assert_non_null(scratch);
    int64_t found = train_yolox_assign(&y, rows, boxes, 2, scratch, assigned, box, class);
    assert_true(found >= 2);
    assert_float_equal(assigned[1 * 8 + 1], 1, 0);
    assert_float_equal(assigned[5 * 8 + 5], 1, 0);
    assert_float_equal(class[(1 * 8 + 1) * CLASSES + 1], 1, 1e-5f);
    assert_float_equal(class[(1 * 8 + 1) * CLASSES], 0, 0);
    assert_float_equal(class[(5 * 8 + 5) * CLASSES], 1, 1e-5f);
    assert_float_equal(box[(5 * 8 + 5) * 4 + 2], 48, 0);
    float sum = 0;
    for (int i = 0; i < CELLS; i++) sum += assigned[i];
    assert_int_equal((int64_t)sum, found);
    assert_float_equal(assigned[63], 0, 0); /* far from both */
    /* no boxes: nothing is assigned, and targets are clean */
    assert_int_equal(train_yolox_assign(&y, rows, boxes, 0, scratch, assigned, box, class), 0);
    for (int i = 0; i < CELLS; i++) assert_true(assigned[i] == 0 && box[4 * i + 3] == 1);
    free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_pytorch), cmocka_unit_test(sim_ota)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
