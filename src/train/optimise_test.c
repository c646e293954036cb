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
    struct train_slice slices[] = {{0, A, true}, {B_AT, B, false}};
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

static void running_mean_and_refusals(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "x");
    struct train_slice slice = {0, 1, true};
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
        cmocka_unit_test(running_mean_and_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
