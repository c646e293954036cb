/* Tests of motion: still scenes close the gate, light does not open it for ever, a moving block is found
 * where it is. SPDX-License-Identifier: Apache-2.0 */
#include "task/motion.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { W = 80, H = 45 };

struct world {
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct task_motion *m;
    struct task_motion_result r;
    uint8_t grey[W * H];
    uint32_t seed;
    double pts;
};

static int setup(void **state)
{
    struct world *w = xnew(struct world);
    w->budget = mem_budget_new("host", UINT64_MAX);
    w->payer = mem_payer_new(w->budget, "motion");
    w->seed = 9;
    *state = w;
    return task_motion_new(w->payer, W, H, NULL, &w->m);
}

static int teardown(void **state)
{
    struct world *w = *state;
    task_motion_free(&w->m);
    mem_payer_free(&w->payer);
    mem_budget_free(&w->budget);
    free(w);
    return 0;
}

/* A textured scene with noise of +-noise; then one update, 0.1 s later. `block` moves at (x, y) if x >= 0. */
static void show(struct world *w, int light, int noise, int x, int y)
{
    for (int i = 0; i < W * H; i++) {
        w->seed = w->seed * 1664525u + 1013904223u;
        int v =
            60 + (i % W) / 2 + (i / W) + light + (noise ? (int)(w->seed >> 20) % (2 * noise + 1) - noise : 0);
        int dx = i % W - x, dy = i / W - y;
        if (x >= 0 && dx >= 0 && dx < 10 && dy >= 0 && dy < 12) v = 220;
        w->grey[i] = (uint8_t)MIN(MAX(v, 0), 255);
    }
    w->pts += 0.1;
    task_motion_update(w->m, w->pts, w->grey, W, &w->r);
}

static void still_scene(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 300; i++) {
        show(w, 0, 4, -1, 0);
        assert_int_equal(w->r.count, 0);
        assert_int_equal(w->r.open, w->pts <= 1.11);
    }
    uint64_t seen, closed;
    task_motion_counts(w->m, &seen, &closed);
    assert_int_equal(seen, 300);
    assert_in_range(closed, 285, 292);
}

static void a_block_moves(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 50; i++)
        show(w, 0, 3, -1, 0);
    for (int x = 0; x + 10 <= W; x += 2) {
        show(w, 0, 3, x, 20);
        assert_true(w->r.open);
        assert_true(w->r.count >= 1);
        struct task_box want = {(float)x, 20, (float)x + 10, 32};
        assert_true(task_box_iou(&w->r.boxes[0].box, &want) > 0.6f);
        assert_true(w->r.boxes[0].score >= 0.5f);
    }
    for (int i = 0; i < 30; i++)
        show(w, 0, 3, -1, 0);
    assert_false(w->r.open);
}

static void light_is_not_motion(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 50; i++)
        show(w, 0, 2, -1, 0);
    for (int i = 0; i < 50; i++) {
        show(w, 60, 2, -1, 0); /* a lamp */
        assert_int_equal(w->r.count, 0);
        assert_false(w->r.open);
    }
    show(w, 60, 2, 30, 20); /* and motion is seen all the same */
    assert_int_equal(w->r.count, 1);
    for (int i = 0; i < 30; i++)
        show(w, 60, 2, -1, 0);
    assert_false(w->r.open);
    for (int i = 0; i < W * H; i++)
        w->grey[i] = (uint8_t)((i * 2654435761u) >> 24); /* another scene */
    w->pts += 0.1;
    task_motion_update(w->m, w->pts, w->grey, W, &w->r);
    assert_true(w->r.global && w->r.open && w->r.count == 0);
    for (int i = 0; i < 20; i++) {
        w->pts += 0.1;
        task_motion_update(w->m, w->pts, w->grey, W, &w->r);
    }
    assert_false(w->r.open);
}

static void what_stays_becomes_background(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 50; i++)
        show(w, 0, 2, -1, 0);
    for (int i = 0; i < 1500; i++)
        show(w, 0, 2, 40, 20);
    assert_int_equal(w->r.count, 0);
    assert_false(w->r.open);
}

static void odd_input(void **state)
{
    struct world *w = *state;
    show(w, 0, 2, -1, 0);
    task_motion_update(w->m, NAN, w->grey, W, &w->r);
    task_motion_update(w->m, INFINITY, w->grey, W, &w->r);
    task_motion_update(w->m, -5, w->grey, W, &w->r);
    assert_true(w->r.global);
    for (int i = 0; i < 500; i++) { /* noise everywhere: boxes stay within bounds */
        for (int k = 0; k < W * H; k++)
            w->grey[k] = (uint8_t)((w->seed = w->seed * 1664525u + 1013904223u) >> 30 ? 0 : 255);
        task_motion_update(w->m, i * 0.1, w->grey, W, &w->r);
        assert_in_range(w->r.count, 0, TASK_MAX_MOTION_BOXES);
        for (int k = 0; k < w->r.count; k++) {
            struct task_box b = w->r.boxes[k].box;
            assert_true(b.x1 >= 0 && b.y1 >= 0 && b.x2 <= W && b.y2 <= H && b.x1 < b.x2 && b.y1 < b.y2);
        }
    }
    struct task_motion *m = NULL;
    assert_int_equal(task_motion_new(w->payer, 4, 4, NULL, &m), ERR_USAGE);
    mem_fault_at(w->budget, 1);
    assert_int_equal(task_motion_new(w->payer, W, H, NULL, &m), ERR_NOMEM);
    mem_fault_at(w->budget, 0);
    assert_null(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(still_scene, setup, teardown),
        cmocka_unit_test_setup_teardown(a_block_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(light_is_not_motion, setup, teardown),
        cmocka_unit_test_setup_teardown(what_stays_becomes_background, setup, teardown),
        cmocka_unit_test_setup_teardown(odd_input, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
