/* Optimisers and schedules against PyTorch (tests/tools/make_train_goldens.py); clipping, decay groups, running mean by hand.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/optimise.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { COUNT = 24, A = 12, B_AT = 16, B = 5, STEPS = 7 };

static float draw(uint32_t *x)
{
    *x = *x * 1664525u + 1013904223u;
    return (float)(*x >> 8) / 16777216.0f * 2 - 1;
}

static void fill(uint32_t *x, float *to)
{
    for (int i = 0; i < A; i++) to[i] = draw(x);
    for (int i = 0; i < B; i++) to[B_AT + i] = draw(x);
}

/* One line of the goldens: "opt NAME rule lr momentum nesterov decay clip" and A + B numbers. */
static void one(const char *line)
{
    char name[32];
    int rule, nesterov, used;
    float lr, momentum, decay, most;
    if (sscanf(line, "opt %31s %d %f %f %d %f %f%n", name, &rule, &lr, &momentum, &nesterov, &decay, &most, &used) != 7) fail_msg("%s", line);
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "x");
    struct train_optimiser_options o = {.rule = (enum train_rule)rule, .momentum = momentum, .nesterov = nesterov, .weight_decay = decay, .clip = most};
    struct train_slice slices[] = {{0, A, true, 0}, {B_AT, B, false, 0}};
    struct train_optimiser *op;
    assert_int_equal(train_optimiser_new(&o, slices, 2, COUNT, p, &op), ERR_OK);
    float params[COUNT] = {0}, grads[COUNT] = {0};
    uint32_t x = 7;
    fill(&x, params);
    for (int s = 0; s < STEPS; s++) {
        fill(&x, grads);
        train_optimiser_step(op, params, grads, (double)lr);
    }
    const char *at = line + used;
    for (int i = 0; i < A + B; i++) {
        char *end;
        double want = strtod(at, &end), found = (double)params[i < A ? i : B_AT + i - A];
        if (fabs(found - want) > 1e-6 * fabs(want) + 2e-7) fail_msg("%s: number %d is %.9g, PyTorch has %.9g", name, i, found, want);
        at = end;
    }
    assert_int_equal(mem_payer_used(p, MEM_TRAINING), train_optimiser_bytes(&o, COUNT));
    train_optimiser_free(&op);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

/* "lr KIND base warmup total every gamma last: STEPS numbers from step 0" */
static void one_schedule(const char *line)
{
    struct train_schedule s = {0};
    int kind, used;
    long long warmup, total, every;
    if (sscanf(line, "lr %d %lf %lld %lld %lld %lf %lf%n", &kind, &s.lr, &warmup, &total, &every, &s.gamma, &s.last, &used) != 7) fail_msg("%s", line);
    s.kind = (enum train_schedule_kind)kind;
    s.warmup = warmup;
    s.total = total;
    s.every = every;
    const char *at = line + used;
    for (int64_t i = 0; i < total; i++) {
        char *end;
        double want = strtod(at, &end);
        assert_ptr_not_equal(at, end);
        if (fabs(train_schedule_at(&s, i) - want) > 1e-9) fail_msg("%s: step %d: %g", line, (int)i, train_schedule_at(&s, i));
        at = end;
    }
}

static void as_pytorch(void **state)
{
    (void)state;
    char path[512], line[8192];
    const char *source = getenv("BRIM_SOURCE");
    snprintf(path, sizeof path, "%s/tests/data/train/optimisers.txt", source ? source : ".");
    FILE *f = fopen(path, "re");
    if (!f) fail_msg("%s is not there", path);
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        if (str_starts(line, "opt ")) one(line), n++;
        if (str_starts(line, "lr ")) one_schedule(line), n++;
    }
    fclose(f);
    assert_true(n >= 12);
}

/* Training w = s v with relative steps is training v, a vector of length 1, with plain ones: rows of other lengths, and a bias. */
static void relative_is_training_the_directions(void **state)
{
    (void)state;
    enum { ROWS = 2, WIDTH = 6, BIAS = 16, ALL = 19 };
    static const float lengths[ROWS] = {0.4f, 20};
    const struct train_optimiser_options all[] = {{.rule = TRAIN_SGD, .momentum = 0.9f, .nesterov = true, .weight_decay = 0.01f},
                                                  {.rule = TRAIN_SGD, .weight_decay = 0.01f, .clip = 0.5f},
                                                  {.rule = TRAIN_ADAMW, .weight_decay = 0.01f, .clip = 0.5f}};
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "x");
    for (size_t k = 0; k < ARRAY_LEN(all); k++) {
        struct train_optimiser_options o = all[k];
        struct train_slice plain[] = {{0, ROWS * WIDTH, true, 0}, {BIAS, 3, false, 0}}, rows[] = {{0, ROWS * WIDTH, true, ROWS}, {BIAS, 3, false, 0}};
        struct train_optimiser *of_v, *of_w;
        assert_int_equal(train_optimiser_new(&o, plain, 2, ALL, p, &of_v), ERR_OK);
        o.relative = true;
        assert_int_equal(train_optimiser_new(&o, rows, 2, ALL, p, &of_w), ERR_OK);
        float v[ALL] = {0}, w[ALL] = {0}, gv[ALL] = {0}, gw[ALL] = {0};
        uint32_t x = 3;
        for (int i = 0; i < ROWS * WIDTH; i++) v[i] = draw(&x);
        for (int r = 0; r < ROWS; r++) {
            float norm = (float)train_norm(v + r * WIDTH, WIDTH);
            for (int i = r * WIDTH; i < (r + 1) * WIDTH; i++) v[i] /= norm, w[i] = lengths[r] * v[i];
        }
        train_optimiser_begin(of_w, w);
        for (int s = 0; s < STEPS; s++) {
            for (int i = 0; i < ROWS * WIDTH; i++) gv[i] = draw(&x), gw[i] = gv[i] / lengths[i / WIDTH];
            for (int i = BIAS; i < ALL; i++) gv[i] = gw[i] = draw(&x);
            train_optimiser_step(of_v, v, gv, 0.01);
            train_optimiser_step(of_w, w, gw, 0.01);
        }
        for (int i = 0; i < ROWS * WIDTH; i++) assert_float_equal(w[i] / lengths[i / WIDTH], v[i], 2e-6f);
        for (int i = BIAS; i < ALL; i++) assert_float_equal(w[i], v[i], 2e-6f);
        train_optimiser_free(&of_v);
        train_optimiser_free(&of_w);
    }
    assert_int_equal(train_optimiser_new(&(struct train_optimiser_options){.rule = TRAIN_LAMB, .relative = true}, NULL, 0, 1, p, &(struct train_optimiser *){NULL}), ERR_USAGE);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void running_mean_and_refusals(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "x");
    struct train_slice slice = {0, 1, true, 0};
    struct train_optimiser_options o = {.rule = TRAIN_SGD, .ema = 0.5f};
    struct train_optimiser *op;
    assert_int_equal(train_optimiser_new(&o, &slice, 1, 1, p, &op), ERR_OK);
    float x = 1, g = 1;
    train_optimiser_begin(op, &x);
    train_optimiser_step(op, &x, &g, 0.5); /* x = 0.5; d = min(0.5, 2/11) */
    assert_float_equal(x, 0.5f, 0);
    assert_float_equal(op->ema[0], 1 + (1 - 2.0f / 11) * (0.5f - 1), 1e-6f);
    train_optimiser_free(&op);
    o.rule = TRAIN_ADAMW;
    for (uint64_t n = 1; n <= 3; n++) {
        mem_fault_at(b, n);
        assert_int_equal(train_optimiser_new(&o, &slice, 1, 1, p, &op), ERR_NOMEM);
    }
    mem_fault_at(b, 0);
    o.momentum = 1;
    assert_int_equal(train_optimiser_new(&o, &slice, 1, 1, p, &op), ERR_USAGE);
    float inf[9] = {1, 2, INFINITY};
    assert_false(isfinite(train_norm(inf, 9)));
    struct train_schedule s = {.kind = TRAIN_STEP, .lr = 1, .gamma = 0.1, .n_at = 2, .at = {3, 5}};
    assert_float_equal(train_schedule_at(&s, 2), 1, 0);
    assert_float_equal(train_schedule_at(&s, 3), 0.1, 1e-12);
    assert_float_equal(train_schedule_at(&s, 100), 0.01, 1e-12);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_pytorch),
        cmocka_unit_test(relative_is_training_the_directions),
        cmocka_unit_test(running_mean_and_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
