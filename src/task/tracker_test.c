/* Tests of the tracker: identities survive what they should survive, and nothing grows.
 * SPDX-License-Identifier: Apache-2.0 */
#include "task/tracker.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct mem_budget *budget;
static struct mem_payer *payer;

static int setup(void **state)
{
    (void)state;
    budget = mem_budget_new("host", UINT64_MAX);
    payer = mem_payer_new(budget, "tracker");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mem_payer_free(&payer);
    mem_budget_free(&budget);
    return 0;
}

static struct task_detection at(float x, float y, float score, int class_id)
{
    return (struct task_detection){.box = {x, y, x + 40, y + 100}, .score = score, .class_id = class_id};
}

static struct task_tracker *make(const struct task_tracker_options *o)
{
    struct task_tracker *t = NULL;
    assert_int_equal(task_tracker_new(payer, o, &t), ERR_OK);
    return t;
}

/* The confirmed or lost track nearest to x; NULL if none. */
static const struct task_track *near(const struct task_tracker *t, float x)
{
    const struct task_track *k, *best = NULL;
    int n = task_tracker_tracks(t, &k);
    for (int i = 0; i < n; i++)
        if (k[i].id && (!best || fabsf(k[i].box.x1 - x) < fabsf(best->box.x1 - x))) best = &k[i];
    return best;
}

static void one_walker(void **state)
{
    (void)state;
    struct task_tracker *t = make(NULL);
    for (int i = 0; i < 30; i++) {
        struct task_detection d = at(100 + 3 * (float)i, 50, 0.9f, 0);
        task_tracker_update(t, i / 10.0, &d, NULL, 1);
        const struct task_track *k;
        assert_int_equal(task_tracker_tracks(t, &k), 1);
        assert_int_equal(k->state, i < 2 ? TASK_TENTATIVE : TASK_CONFIRMED);
        assert_int_equal(k->id, i < 2 ? 0 : 1);
        assert_int_equal(k->detection, 0);
        assert_int_equal(k->hits, i + 1);
    }
    const struct task_track *k = near(t, 187);
    assert_float_equal(k->vx, 30, 1.5);
    assert_float_equal(k->vy, 0, 0.5);
    assert_float_equal(k->box.x1, 187, 1);
    task_tracker_free(&t);
    assert_null(t);
}

static void hidden_for_a_second(void **state)
{
    (void)state;
    struct task_tracker *t = make(NULL);
    for (int i = 0; i < 60; i++) {
        bool hidden = i >= 20 && i < 32;
        struct task_detection d = at(100 + 5 * (float)i, 50, 0.9f, 0);
        task_tracker_update(t, i / 10.0, &d, NULL, hidden ? 0 : 1);
        if (hidden) assert_int_equal(near(t, 0)->state, TASK_LOST);
    }
    assert_int_equal(near(t, 400)->id, 1);
    assert_int_equal(near(t, 400)->state, TASK_CONFIRMED);
    for (int i = 60; i < 90; i++)
        task_tracker_update(t, i / 10.0, NULL, NULL, 0);
    const struct task_track *k;
    assert_int_equal(task_tracker_tracks(t, &k), 0); /* lost for longer than lost_seconds */
    task_tracker_free(&t);
}

static void low_scores_keep_but_do_not_start(void **state)
{
    (void)state;
    struct task_tracker *t = make(NULL);
    const struct task_track *k;
    for (int i = 0; i < 5; i++) {
        struct task_detection d = at(100, 50, 0.3f, 0);
        task_tracker_update(t, i / 10.0, &d, NULL, 1);
        assert_int_equal(task_tracker_tracks(t, &k), 0);
    }
    for (int i = 5; i < 40; i++) {
        struct task_detection d = at(100, 50, i < 10 ? 0.9f : 0.2f, 0);
        task_tracker_update(t, i / 10.0, &d, NULL, 1);
    }
    assert_int_equal(task_tracker_tracks(t, &k), 1);
    assert_int_equal(k->state, TASK_CONFIRMED);
    assert_int_equal(k->id, 1);
    task_tracker_free(&t);
}

/* Two people pass each other; motion tells them apart although they overlap at the crossing. */
static void two_cross(void **state)
{
    (void)state;
    for (int skip = 1; skip <= 3; skip += 2) {
        struct task_tracker *t = make(NULL);
        int64_t a = 0, b = 0;
        for (int i = 0; i < 60; i += skip) {
            struct task_detection d[] = {at(100 + 6 * (float)i, 50, 0.9f, 0),
                                         at(454 - 6 * (float)i, 62, 0.9f, 0)};
            task_tracker_update(t, i / 15.0, d, NULL, 2);
            if (i == 18) {
                a = near(t, d[0].box.x1)->id;
                b = near(t, d[1].box.x1)->id;
            }
            if (i == 57) {
                assert_int_equal(near(t, d[0].box.x1)->id, a);
                assert_int_equal(near(t, d[1].box.x1)->id, b);
            }
        }
        assert_true(a && b && a != b);
        task_tracker_free(&t);
    }
}

static void classes_never_match(void **state)
{
    (void)state;
    struct task_tracker_options o = task_tracker_defaults();
    o.confirm_hits = 1;
    o.first_id = 500;
    struct task_tracker *t = make(&o);
    struct task_detection d[] = {at(100, 50, 0.9f, 0), at(101, 50, 0.9f, 2)};
    task_tracker_update(t, 0, d, NULL, 2);
    const struct task_track *k;
    assert_int_equal(task_tracker_tracks(t, &k), 2);
    assert_true(k[0].id == 500 && k[1].id == 501);
    task_tracker_update(t, 0.1, d + 1, NULL, 1);
    assert_int_equal(task_tracker_tracks(t, &k), 2);
    assert_true(k[0].state == TASK_LOST && k[1].state == TASK_CONFIRMED && k[1].class_id == 2);
    task_tracker_update(t, 100, d, NULL, 2); /* a jump: all end, ids go on */
    assert_int_equal(task_tracker_tracks(t, &k), 2);
    assert_true(k[0].id == 502 && k[1].id == 503 && task_tracker_next_id(t) == 504);
    task_tracker_update(t, 50, d, NULL, 1); /* and back */
    assert_true(task_tracker_tracks(t, &k) == 1 && k[0].id == 504);
    task_tracker_free(&t);
}

static uint32_t next(uint32_t *s)
{
    return *s = *s * 1664525u + 1013904223u;
}

static float nasty(uint32_t *s)
{
    static const float odd[] = {0, -0.0f, 1, -1, 1e30f, -1e30f, 3e38f, 1e6f, 1e-30f, 0.5f};
    uint32_t r = next(s) >> 8;
    if (r % 50 == 0) return NAN;
    if (r % 50 == 1) return INFINITY;
    if (r % 50 == 2) return -INFINITY;
    return r % 3 ? (float)(r % 500) : odd[r / 7 % ARRAY_LEN(odd)];
}

static struct task_look of_colour(int u)
{
    struct task_look l;
    for (int i = 0; i < TASK_LOOK; i++) l.at[i] = (uint8_t)(i % 3 == 1 ? u : 128);
    return l;
}

/* Two walk towards each other and turn round where they meet: motion says that they passed, looks say that they did not. */
static void two_turn_round(void **state)
{
    (void)state;
    for (int looked = 0; looked < 2; looked++) {
        struct task_tracker *t = make(NULL);
        int64_t a = 0, b = 0, a_then = 0, b_then = 0;
        const struct task_look looks[] = {of_colour(60), of_colour(190)};
        for (int i = 0; i <= 60; i++) {
            float s = 6 * (float)(i < 30 ? i : 60 - i);
            struct task_detection d[] = {at(100 + s, 50, 0.9f, 0), at(464 - s, 50, 0.9f, 0)};
            task_tracker_update(t, i / 15.0, d, looked ? looks : NULL, 2);
            if (i == 15) a = near(t, d[0].box.x1)->id, b = near(t, d[1].box.x1)->id;
            if (i == 60) a_then = near(t, d[0].box.x1)->id, b_then = near(t, d[1].box.x1)->id;
        }
        assert_true(a && b && a != b);
        assert_true(looked ? a_then == a && b_then == b : a_then == b && b_then == a);
        task_tracker_free(&t);
    }
}

/* Away for a second, and then a little beside where it would be: the same number if it looks the same. */
static void found_again_by_its_looks(void **state)
{
    (void)state;
    static const struct { int before, after; int64_t id; } cases[] = {{60, 60, 1}, {60, 190, 2}, {-1, -1, 2}};
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        struct task_tracker *t = make(NULL);
        bool looked = cases[c].before >= 0;
        struct task_look before = of_colour(MAX(cases[c].before, 0)), after = of_colour(MAX(cases[c].after, 0));
        struct task_detection d = at(100, 50, 0.9f, 0);
        for (int i = 0; i < 10; i++) task_tracker_update(t, i / 10.0, &d, looked ? &before : NULL, 1);
        for (int i = 10; i < 20; i++) task_tracker_update(t, i / 10.0, NULL, NULL, 0);
        d = at(148, 50, 0.9f, 0); /* no overlap: 40 wide */
        for (int i = 20; i < 25; i++) task_tracker_update(t, i / 10.0, &d, looked ? &after : NULL, 1);
        assert_int_equal(near(t, 148)->id, cases[c].id);
        task_tracker_free(&t);
    }
}

static void garbage_is_bounded(void **state)
{
    (void)state;
    struct task_tracker_options o = task_tracker_defaults();
    o.max_tracks = 20;
    o.max_detections = 30;
    o.confirm_hits = 1;
    struct task_tracker *t = make(&o);
    uint32_t s = 11;
    int64_t top = 0;
    double pts = 0;
    for (int round = 0; round < 3000; round++) {
        struct task_detection d[100];
        for (int i = 0; i < 100; i++)
            d[i] = (struct task_detection){.box = {nasty(&s), nasty(&s), nasty(&s), nasty(&s)},
                                           .score = nasty(&s) / 100,
                                           .class_id = (int)(next(&s) >> 30)};
        for (int i = 0; i < 100 && round % 10 == 3; i++) /* and crowds */
            d[i] = at((float)(next(&s) >> 20), (float)(next(&s) >> 20), 0.9f, 0);
        struct task_look looks[100];
        for (int i = 0; i < 100; i++) memset(looks[i].at, (int)(next(&s) >> 24), TASK_LOOK);
        pts += round % 100 == 99 ? (double)nasty(&s) : 0.04;
        if (!isfinite(pts)) pts = round;
        task_tracker_update(t, round % 77 == 5 ? (double)NAN : pts, d, round % 3 ? looks : NULL, 100 - (int)(next(&s) >> 8) % 60);
        const struct task_track *k;
        int n = task_tracker_tracks(t, &k);
        assert_in_range(n, 0, 20);
        for (int i = 0; i < n; i++) {
            assert_true(task_box_valid(&k[i].box) && isfinite(k[i].vx) && isfinite(k[i].vy));
            for (int j = 0; j < i; j++)
                assert_true(k[i].id != k[j].id);
            top = MAX(top, k[i].id);
        }
    }
    assert_true(task_tracker_next_id(t) > top); /* one may be given and taken in the same update */
    assert_true(task_tracker_dropped(t) > 0);
    assert_int_equal(mem_budget_used(budget), task_tracker_bytes(&o));
    task_tracker_free(&t);
}

static void options_and_memory(void **state)
{
    (void)state;
    struct task_tracker *t = NULL;
    struct task_tracker_options o = task_tracker_defaults();
    o.low = 0.9f;
    assert_int_equal(task_tracker_new(payer, &o, &t), ERR_USAGE);
    o = task_tracker_defaults();
    o.match_iou = NAN;
    assert_int_equal(task_tracker_new(payer, &o, &t), ERR_USAGE);
    mem_fault_at(budget, 1);
    assert_int_equal(task_tracker_new(payer, NULL, &t), ERR_NOMEM);
    mem_fault_at(budget, 0);
    assert_null(t);
    task_tracker_free(&t);
    assert_int_equal(mem_budget_used(budget), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_walker, setup, teardown),
        cmocka_unit_test_setup_teardown(hidden_for_a_second, setup, teardown),
        cmocka_unit_test_setup_teardown(low_scores_keep_but_do_not_start, setup, teardown),
        cmocka_unit_test_setup_teardown(two_cross, setup, teardown),
        cmocka_unit_test_setup_teardown(two_turn_round, setup, teardown),
        cmocka_unit_test_setup_teardown(found_again_by_its_looks, setup, teardown),
        cmocka_unit_test_setup_teardown(classes_never_match, setup, teardown),
        cmocka_unit_test_setup_teardown(garbage_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(options_and_memory, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
