/* The window and the bound, by hand-computed cases: classes, numbers, boxes; noise of few pictures does not speak; memory is given back when it is refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_drift.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct world {
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct merge_drift *d;
};

static void begin(struct world *w, enum merge_measure m, int window, double target)
{
    w->budget = mem_budget_new("test", UINT64_MAX);
    w->payer = mem_payer_new(w->budget, "drift");
    assert_int_equal(merge_drift_new(w->payer, &(struct merge_drift_options){.measure = m, .classes = 2, .window = window, .target = target}, &w->d), ERR_OK);
}

static void end(struct world *w)
{
    merge_drift_free(&w->d);
    assert_int_equal(mem_budget_used(w->budget), 0);
    mem_payer_free(&w->payer);
    mem_budget_free(&w->budget);
}

static struct merge_drift_verdict look(struct world *w)
{
    struct merge_drift_verdict v;
    assert_int_equal(merge_drift_look(w->d, &v), ERR_OK);
    return v;
}

static void add(struct world *w, double wrong)
{
    assert_true(merge_drift_add(w->d, &(struct merge_drift_picture){.wrong = wrong}));
}

static void classes(void **state)
{
    (void)state;
    struct world w;
    begin(&w, MERGE_SAME_CLASS, 20, 0.95);
    struct merge_drift_verdict v = look(&w);
    assert_int_equal(v.pictures, 0);
    assert_true(v.score == 1 && v.error == 0 && !v.below);
    for (int i = 0; i < 7; i++) add(&w, 1);
    v = look(&w);
    assert_true(v.score == 0 && !v.below); /* seven are too few, whatever they say */
    add(&w, 1);
    assert_true(look(&w).below);
    merge_drift_clear(w.d);
    for (int i = 0; i < 20; i++) add(&w, i % 5 == 0);
    v = look(&w); /* 16 of 20: the jackknife's error of a mean is sqrt(p q / (n - 1)) */
    assert_int_equal(v.pictures, 20);
    assert_float_equal(v.score, 0.8, 1e-9);
    assert_float_equal(v.error, sqrt(0.8 * 0.2 / 19), 1e-9);
    assert_false(v.below); /* 0.8 + 2 x 0.092 > 0.95 */
    for (int i = 0; i < 3; i++) add(&w, 1); /* the window goes on: right, wrong, wrong ... of the oldest */
    v = look(&w);
    assert_int_equal(v.pictures, 20);
    assert_float_equal(v.score, 0.7, 1e-9); /* one wrong and two right ones went */
    assert_true(v.below);                   /* 0.7 + 2 x 0.105 */
    end(&w);
}

static void numbers(void **state)
{
    (void)state;
    struct world w;
    begin(&w, MERGE_SAME_NUMBERS, 8, 0.9);
    for (int i = 0; i < 8; i++) add(&w, 0.05);
    struct merge_drift_verdict v = look(&w);
    assert_float_equal(v.score, 0.95, 1e-9);
    assert_float_equal(v.error, 0, 1e-9);
    assert_false(v.below);
    for (int i = 0; i < 8; i++) add(&w, 0.11);
    assert_true(look(&w).below);
    for (int i = 0; i < 8; i++) add(&w, 30); /* farther away than a guess: not below 0 */
    assert_true(look(&w).score == 0);
    end(&w);
}

/* `n` equal boxes side by side; found ones are `off` pixels to the right, of 20. */
static bool add_boxes(struct world *w, int n_truth, int n_found, float off, float score, int class_id)
{
    struct task_ap_box truth[8], found[8];
    for (int i = 0; i < 8; i++) {
        float x = 30.f * (float)i;
        truth[i] = (struct task_ap_box){.class_id = class_id, .score = 0.9f, .box = {x, 0, x + 20, 20}};
        found[i] = (struct task_ap_box){.class_id = class_id, .score = score, .box = {x + off, 0, x + off + 20, 20}};
    }
    return merge_drift_add(w->d, &(struct merge_drift_picture){.n_truth = n_truth, .n_found = n_found, .truth = truth, .found = found});
}

static void detections(void **state)
{
    (void)state;
    struct world w;
    begin(&w, MERGE_SAME_BOXES, 10, 0.95);
    assert_false(add_boxes(&w, 0, 0, 0, 0, 0));
    assert_false(add_boxes(&w, 0, 3, 0, 0.29f, 0)); /* nothing that anybody is sure of */
    assert_int_equal(look(&w).pictures, 0);
    for (int i = 0; i < 8; i++) assert_true(add_boxes(&w, 2, 2, 1, 0.8f, i % 2));
    struct merge_drift_verdict v = look(&w);
    assert_int_equal(v.pictures, 8);
    assert_float_equal(v.score, 1, 1e-9);
    assert_float_equal(v.error, 0, 1e-9);
    assert_true(add_boxes(&w, 2, 2, 15, 0.8f, 0)); /* beside */
    v = look(&w);
    assert_true(v.score < 0.95 && v.error > 0 && !v.below); /* one bad picture of nine may be chance */
    for (int i = 0; i < 10; i++) assert_true(add_boxes(&w, 2, 0, 0, 0, 0));
    v = look(&w);
    assert_int_equal(v.pictures, 10);
    assert_true(v.score == 0 && v.below);
    for (int i = 0; i < 10; i++) assert_true(add_boxes(&w, 0, 2, 0, 0.5f, 0));
    v = look(&w); /* it sees what is not there */
    assert_true(v.score == 0 && v.below);
    end(&w);
}

static void rare_classes_do_not_decide(void **state)
{
    (void)state;
    struct world w;
    begin(&w, MERGE_SAME_BOXES, 10, 0.95);
    for (int i = 0; i < 10; i++) assert_true(i % 3 == 1 ? add_boxes(&w, 1, 0, 0, 0, 1) : add_boxes(&w, 2, 2, 0, 0.8f, 0));
    struct merge_drift_verdict v = look(&w); /* three handbags, none found, among fourteen people */
    assert_float_equal(v.score, 1, 1e-9);
    assert_false(v.below);
    assert_true(add_boxes(&w, 2, 0, 0, 0, 1)); /* five, and only twelve people left in the window */
    v = look(&w);
    assert_float_equal(v.score, 0.5, 1e-9);
    merge_drift_clear(w.d);
    for (int i = 0; i < 8; i++) assert_true(add_boxes(&w, 1, 1, 25, 0.8f, i % 2)); /* no class was seen five times: all count */
    assert_true(look(&w).score == 0);
    end(&w);
}

static void memory_may_be_refused(void **state)
{
    (void)state;
    for (unsigned n = 0;; n++) {
        struct mem_budget *b = mem_budget_new("test", UINT64_MAX);
        struct mem_payer *p = mem_payer_new(b, "drift");
        struct merge_drift *d = NULL;
        struct merge_drift_verdict v;
        mem_fault_at(b, n + 1);
        err e = merge_drift_new(p, &(struct merge_drift_options){.measure = MERGE_SAME_BOXES, .classes = 1, .window = 8, .target = 0.9}, &d);
        struct task_ap_box one = {.score = 1, .box = {0, 0, 9, 9}};
        for (int i = 0; !e && i < 8; i++) assert_true(merge_drift_add(d, &(struct merge_drift_picture){.n_truth = 1, .n_found = 1, .truth = &one, .found = &one}));
        if (!e) e = merge_drift_look(d, &v);
        mem_fault_at(b, 0);
        if (e) assert_int_equal(e, ERR_NOMEM);
        else assert_true(v.score > 0.99);
        merge_drift_free(&d);
        assert_int_equal(mem_budget_used(b), 0);
        mem_payer_free(&p);
        mem_budget_free(&b);
        if (!e) {
            assert_true(n > 4);
            return;
        }
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(classes), cmocka_unit_test(numbers), cmocka_unit_test(detections), cmocka_unit_test(rare_classes_do_not_decide), cmocka_unit_test(memory_may_be_refused)};
    return cmocka_run_group_tests_name("merge drift", tests, NULL, NULL);
}
