/* Tests of zones, lines and events. SPDX-License-Identifier: Apache-2.0 */
#include "task/zone.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct task_zone square = {.point_count = 4,
                                        .points = {{100, 100}, {200, 100}, {200, 200}, {100, 200}}};
/* A U, open at the top. */
static const struct task_zone u = {
    .point_count = 8, .points = {{0, 0}, {10, 0}, {10, 20}, {20, 20}, {20, 0}, {30, 0}, {30, 30}, {0, 30}}};

static void point_in_polygon(void **state)
{
    (void)state;
    assert_true(task_zone_contains(&square, (struct task_point){150, 150}));
    assert_true(task_zone_contains(&square, (struct task_point){100, 100})); /* corner */
    assert_true(task_zone_contains(&square, (struct task_point){200, 150})); /* edge */
    assert_true(task_zone_contains(&square, (struct task_point){150, 200}));
    assert_false(task_zone_contains(&square, (struct task_point){200.01f, 150}));
    assert_false(task_zone_contains(&square, (struct task_point){50, 100})); /* in line with an edge */
    assert_false(task_zone_contains(&square, (struct task_point){NAN, 150}));
    assert_false(task_zone_contains(&square, (struct task_point){INFINITY, 150}));
    assert_true(task_zone_contains(&u, (struct task_point){5, 5}));
    assert_false(task_zone_contains(&u, (struct task_point){15, 5}));
    assert_true(task_zone_contains(&u, (struct task_point){15, 25}));
    assert_true(task_zone_contains(&u, (struct task_point){25, 20}));
    assert_false(task_zone_contains(&u, (struct task_point){-1, 20})); /* the ray passes corners */
    assert_float_equal(task_zone_distance(&square, (struct task_point){150, 190}), 10, 1e-4);
    assert_float_equal(task_zone_distance(&square, (struct task_point){203, 204}), 5, 1e-4);
}

/* Against the crossing number of a ray in another direction, for random polygons. */
static void random_polygons(void **state)
{
    (void)state;
    uint32_t s = 5;
    for (int round = 0; round < 2000; round++) {
        struct task_zone z = {.point_count = 3 + round % 8};
        for (int i = 0; i < z.point_count; i++) {
            s = s * 1664525u + 1013904223u;
            z.points[i] = (struct task_point){(float)(s >> 24), (float)(s >> 8 & 255)};
        }
        s = s * 1664525u + 1013904223u;
        struct task_point p = {(float)(s >> 24) + 0.37f, (float)(s >> 8 & 255) + 0.61f};
        struct task_point far = {p.x + 1000.123f, p.y + 2000.377f};
        int crossings = 0;
        for (int i = 0, j = z.point_count - 1; i < z.point_count; j = i++)
            crossings += task_segments_touch(p, far, z.points[i], z.points[j]);
        assert_int_equal(task_zone_contains(&z, p), crossings % 2 == 1);
    }
}

static void segments(void **state)
{
    (void)state;
    struct task_point o = {0, 0}, x = {10, 0}, a = {5, -5}, b = {5, 5}, c = {5, 1}, e = {20, 0}, f = {12, 0};
    assert_true(task_segments_touch(o, x, a, b));
    assert_false(task_segments_touch(o, x, c, b));
    assert_true(task_segments_touch(o, x, x, b));  /* end to end */
    assert_true(task_segments_touch(o, e, x, f));  /* on top of each other */
    assert_false(task_segments_touch(o, x, f, e)); /* in line, apart */
}

struct world {
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct task_watch *watch;
    char log[512];
};

static int setup(void **state)
{
    struct world *w = xnew(struct world);
    w->budget = mem_budget_new("host", UINT64_MAX);
    w->payer = mem_payer_new(w->budget, "zones");
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    task_watch_free(&w->watch);
    mem_payer_free(&w->payer);
    mem_budget_free(&w->budget);
    free(w);
    return 0;
}

static void start(struct world *w, struct task_rules r)
{
    assert_int_equal(task_watch_new(w->payer, &r, &w->watch), ERR_OK);
}

/* Puts a track's feet at (x, y), or none, and appends the events to the log: "entered0 crossed1+ ". */
static void step(struct world *w, double pts, int64_t id, float x, float y)
{
    struct task_track k = {
        .id = id, .state = TASK_CONFIRMED, .box = {x - 10, y - 40, x + 10, y}, .score = 0.9f};
    const struct task_event *e;
    int n = task_watch_update(w->watch, pts, &k, id ? 1 : 0, &e);
    for (int i = 0; i < n; i++) {
        size_t at = strlen(w->log);
        snprintf(w->log + at, sizeof w->log - at, "%s", task_event_name(e[i].kind));
        at = strlen(w->log);
        if (e[i].rule >= 0) snprintf(w->log + at, sizeof w->log - at, "%d", e[i].rule);
        at = strlen(w->log);
        snprintf(w->log + at, sizeof w->log - at, "%s ",
                 e[i].direction > 0   ? "+"
                 : e[i].direction < 0 ? "-"
                                      : "");
    }
}

static void a_visit(void **state)
{
    struct world *w = *state;
    struct task_zone z = square;
    z.stay_seconds = 2;
    struct task_rules r = task_rules_defaults();
    r.zones = &z;
    r.zone_count = 1;
    start(w, r);
    for (int i = 0; i <= 100; i++)
        step(w, i * 0.1, 7, 50 + 2 * (float)i, 150); /* inside from i = 26 to 74 */
    assert_string_equal(w->log, "appeared entered0 stayed0 exited0 ");
    assert_int_equal(task_watch_inside(w->watch, 0), 0);
    step(w, 11, 0, 0, 0);
    assert_string_equal(w->log, "appeared entered0 stayed0 exited0 left ");
}

static void jitter_does_not_flap(void **state)
{
    struct world *w = *state;
    struct task_rules r = task_rules_defaults();
    struct task_line line = {{100, 0}, {100, 300}};
    r.zones = &square;
    r.zone_count = 1;
    r.lines = &line;
    r.line_count = 1;
    start(w, r);
    for (int i = 0; i < 20; i++)
        step(w, i * 0.1, 1, 60, 150);
    for (int i = 20; i < 200; i++)
        step(w, i * 0.1, 1, 100 + (i % 2 ? 1.9f : -1.9f), 150); /* within the margin of 2 */
    assert_string_equal(w->log, "appeared ");
    for (int i = 200; i < 300; i++)
        step(w, i * 0.1, 1, 100 + (i % 2 ? 8.0f : -8.0f), 150); /* wide, but never settles */
    assert_string_equal(w->log, "appeared ");
    for (int i = 300; i < 310; i++)
        step(w, i * 0.1, 1, 130, 150);
    assert_string_equal(w->log, "appeared entered0 crossed0- "); /* the line looks down: left is east */
    assert_int_equal(task_watch_inside(w->watch, 0), 1);
    step(w, 40, 0, 0, 0); /* gone while inside */
    assert_string_equal(w->log, "appeared entered0 crossed0- exited0 left ");
}

static void lines_have_ends_and_sides(void **state)
{
    struct world *w = *state;
    struct task_rules r = task_rules_defaults();
    struct task_line line = {{100, 100}, {200, 100}}; /* looks east: right is south, down on the screen */
    r.lines = &line;
    r.line_count = 1;
    r.settle_seconds = 0;
    start(w, r);
    for (int i = 0; i <= 20; i++)
        step(w, i * 0.1, 1, 150, 50 + 5 * (float)i);
    assert_string_equal(w->log, "appeared crossed0+ ");
    for (int i = 20; i >= 0; i--)
        step(w, 10 - i * 0.1, 1, 150, 50 + 5 * (float)i);
    assert_string_equal(w->log, "appeared crossed0+ crossed0- ");
    for (int i = 0; i <= 20; i++)
        step(w, 20 + i * 0.1, 2, 250, 50 + 5 * (float)i); /* past its end */
    assert_string_equal(w->log, "appeared crossed0+ crossed0- left appeared ");
}

static void hidden_tracks_open_no_doors(void **state)
{
    struct world *w = *state;
    struct task_rules r = task_rules_defaults();
    r.zones = &square;
    r.zone_count = 1;
    r.settle_seconds = 0;
    start(w, r);
    step(w, 0, 3, 50, 150);
    struct task_track lost = {.id = 3, .state = TASK_LOST, .box = {140, 100, 160, 150}, .detection = -1};
    struct task_track tentative = {.id = 0, .state = TASK_TENTATIVE, .box = {140, 100, 160, 150}};
    const struct task_event *e;
    assert_int_equal(task_watch_update(w->watch, 0.1, &lost, 1, &e), 0);
    assert_int_equal(task_watch_update(w->watch, 0.2, (struct task_track[]){lost, tentative}, 2, &e), 0);
}

static void wrong_rules_and_memory(void **state)
{
    struct world *w = *state;
    struct task_rules r = task_rules_defaults();
    struct task_zone bad = square;
    bad.points[2].x = NAN;
    r.zones = &bad;
    r.zone_count = 1;
    assert_int_equal(task_watch_new(w->payer, &r, &w->watch), ERR_USAGE);
    assert_non_null(strstr(err_text(), "zone 1: point 3"));
    bad.point_count = 2;
    assert_int_equal(task_watch_new(w->payer, &r, &w->watch), ERR_USAGE);
    struct task_line l = {{1, 1}, {1, 1}};
    r = task_rules_defaults();
    r.lines = &l;
    r.line_count = 1;
    assert_int_equal(task_watch_new(w->payer, &r, &w->watch), ERR_USAGE);
    r.line_count = 0;
    mem_fault_at(w->budget, 1);
    assert_int_equal(task_watch_new(w->payer, &r, &w->watch), ERR_NOMEM);
    mem_fault_at(w->budget, 0);
    r.max_tracks = 2;
    start(w, r);
    struct task_track k[3] = {{.id = 1, .state = TASK_CONFIRMED},
                              {.id = 2, .state = TASK_CONFIRMED},
                              {.id = 3, .state = TASK_CONFIRMED}};
    const struct task_event *e;
    assert_int_equal(task_watch_update(w->watch, 0, k, 3, &e), 2);
    assert_int_equal(task_watch_dropped(w->watch), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(point_in_polygon),
        cmocka_unit_test(random_polygons),
        cmocka_unit_test(segments),
        cmocka_unit_test_setup_teardown(a_visit, setup, teardown),
        cmocka_unit_test_setup_teardown(jitter_does_not_flap, setup, teardown),
        cmocka_unit_test_setup_teardown(lines_have_ends_and_sides, setup, teardown),
        cmocka_unit_test_setup_teardown(hidden_tracks_open_no_doors, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_rules_and_memory, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
