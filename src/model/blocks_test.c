/* Tests of the block planner: against every possible division of small problems, against its own bounds on large ones, and by hand.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/blocks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 160 };

struct random_problem {
    struct blocks_problem p;
    int64_t ns[MOST];
    struct blocks_use uses[MOST];
    size_t all;
};

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void draw(struct random_problem *r, int n, uint32_t *seed)
{
    *r = (struct random_problem){0};
    r->p = (struct blocks_problem){.n_steps = n, .step_ns = r->ns, .uses = r->uses, .fixed = 4096, .bandwidth = 1e8 * (double)(1 + next(seed) % 30)};
    for (int i = 0; i < n; i++) {
        r->ns[i] = 10000 + next(seed) % 2000000;
        if (next(seed) % 4 == 0) continue;
        size_t bytes = (size_t)(16 + next(seed) % 256) * 4096;
        if (n > 20 && i > n * 3 / 4) bytes *= 4; /* heavy at the end, as networks are */
        r->uses[r->p.n_uses] = (struct blocks_use){i, r->p.n_uses, bytes, NULL};
        r->p.n_uses++;
        r->all += bytes;
    }
}

static size_t kept_of(const struct random_problem *r, const bool *keep)
{
    size_t n = 0;
    for (int u = 0; u < r->p.n_uses; u++)
        if (keep[u]) n += r->uses[u].bytes;
    return n;
}

/* The best of all divisions, each with the largest window that is left. */
static int64_t best_of_all(const struct random_problem *r)
{
    int64_t best = INT64_MAX;
    for (unsigned set = 0; set < 1u << r->p.n_uses; set++) {
        bool keep[MOST] = {false};
        size_t largest = 0;
        for (int u = 0; u < r->p.n_uses; u++) {
            keep[u] = set >> u & 1;
            if (!keep[u]) largest = MAX(largest, r->uses[u].bytes);
        }
        size_t kept = r->p.fixed + kept_of(r, keep);
        if (kept + largest > r->p.bytes) continue;
        best = MIN(best, blocks_predict(&r->p, keep, (r->p.bytes - kept) / 4096 * 4096, false));
    }
    return best;
}

static void near_the_best_of_all(void **state)
{
    (void)state;
    uint32_t seed = 7;
    double worst = 0, sum = 0;
    int n = 0;
    for (int i = 0; i < 300; i++) {
        struct random_problem r;
        draw(&r, 4 + (int)(next(&seed) % 10), &seed);
        if (!r.p.n_uses) continue;
        r.p.bytes = blocks_least(&r.p) + (size_t)(next(&seed) % 100) * r.all / 100;
        struct blocks_plan plan;
        assert_int_equal(blocks_make(&r.p, &plan), ERR_OK);
        assert_true(r.p.fixed + kept_of(&r, plan.keep) + plan.window <= r.p.bytes);
        int64_t best = best_of_all(&r);
        assert_true(plan.predicted_ns >= plan.bound_ns && best >= plan.bound_ns);
        double ratio = (double)plan.predicted_ns / (double)best;
        worst = fmax(worst, ratio);
        sum += ratio;
        n++;
        blocks_done(&plan);
    }
    print_message("against the best of all divisions: mean %.4f, worst %.4f of %d\n", sum / n, worst, n);
    assert_true(sum / n < 1.03 && worst < 1.5);
}

/* Tensors that are small beside the window: the plan is close to the bound that nothing can beat. */
static void near_the_bound(void **state)
{
    (void)state;
    uint32_t seed = 99;
    for (int i = 0; i < 60; i++) {
        struct random_problem r;
        draw(&r, 150, &seed);
        double demand[] = {1.5, 2.32, 4, 5.81, 10};
        r.p.bytes = r.p.fixed + (size_t)((double)r.all / demand[i % 5]);
        struct blocks_plan plan;
        assert_int_equal(blocks_make(&r.p, &plan), ERR_OK);
        assert_true(plan.predicted_ns >= plan.bound_ns && plan.steady_ns >= plan.compute_ns);
        if ((double)plan.predicted_ns > 1.10 * (double)plan.bound_ns + 2e6)
            fail_msg("%d: predicted %lld, bound %lld, window %zu of %zu", i, (long long)plan.predicted_ns, (long long)plan.bound_ns, plan.window, r.p.bytes);
        blocks_done(&plan);
    }
}

/* Several models: the invariant holds, all fits if there is room for all, more bytes never wait longer by much, and a frequent model is kept
 * before a rare one of the same size. */
static void several_models(void **state)
{
    (void)state;
    uint32_t seed = 4711;
    for (int round = 0; round < 20; round++) {
        struct random_problem r[5];
        struct blocks_tenant t[5];
        size_t all = 0;
        for (int i = 0; i < 5; i++) {
            draw(&r[i], 40, &seed);
            r[i].p.bandwidth = 5e8;
            t[i] = (struct blocks_tenant){.problem = &r[i].p, .rate = 0.2 + (double)(next(&seed) % 30) / 10, .weight = 1,
                                          .deadline_ns = 50000000 + (int64_t)(next(&seed) % 500) * 1000000};
            all += r[i].all + r[i].p.fixed;
        }
        double before = INFINITY;
        size_t least = blocks_divide_least(t, 5);
        for (int share = 0; share <= 100; share += 20) {
            size_t bytes = least + (all - least) * (size_t)share / 100, kept = 0;
            struct blocks_division d;
            assert_int_equal(blocks_divide(t, 5, bytes, &d), ERR_OK);
            for (int i = 0; i < 5; i++) {
                assert_int_equal(d.plans[i].kept, r[i].p.fixed + kept_of(&r[i], d.plans[i].keep));
                kept += d.plans[i].kept;
            }
            assert_int_equal(kept, d.kept);
            assert_true(kept + d.window <= bytes);
            assert_true(d.stall <= before * 1.2 + 0.02);
            before = d.stall;
            if (share == 100) assert_true(d.window == 0 && d.disk_share == 0 && d.stall == 0);
            blocks_division_done(&d, 5);
        }
        struct blocks_division none;
        assert_int_equal(blocks_divide(t, 5, least - 1, &none), ERR_NOMEM);
    }
    struct random_problem same;
    draw(&same, 40, &seed);
    same.p.bandwidth = 1e8;
    struct blocks_tenant two[2] = {{.problem = &same.p, .rate = 0.5, .weight = 1}, {.problem = &same.p, .rate = 5, .weight = 1}};
    struct blocks_division d;
    assert_int_equal(blocks_divide(two, 2, same.all + same.all / 2, &d), ERR_OK);
    assert_true(d.plans[1].kept > d.plans[0].kept);
    blocks_division_done(&d, 2);
}

static void by_hand(void **state)
{
    (void)state;
    /* Three steps of 10 ms, a weight of 1 MB each, 100 MB/s: all streamed through a window of one takes 10 + (10 + 10) + (10 + 10) ms. */
    enum { MB = 244 * 4096 };
    int64_t ns[] = {10000000, 10000000, 10000000}, read = (int64_t)(MB / 1e8 * 1e9);
    struct blocks_use uses[] = {{0, 0, MB, NULL}, {1, 1, MB, NULL}, {2, 2, MB, NULL}};
    struct blocks_problem p = {.n_steps = 3, .n_uses = 3, .step_ns = ns, .uses = uses, .bytes = MB, .bandwidth = 1e8};
    bool none[3] = {false}, first[3] = {true, false, false};
    assert_in_range(blocks_predict(&p, none, MB, false), 30000000 + 2 * read - 10, 30000000 + 2 * read + 10);
    assert_in_range(blocks_predict(&p, none, MB, true), 30000000 + 3 * read - 10, 30000000 + 3 * read + 10);
    assert_int_equal(blocks_predict(&p, none, 3 * MB, false), 30000000);
    assert_in_range(blocks_predict(&p, first, MB, false), 30000000 + read - 10, 30000000 + read + 10);
    assert_in_range(blocks_predict(&p, first, 2 * MB, false), 30000000, 30000010);
    struct blocks_plan plan;
    assert_int_equal(blocks_make(&p, &plan), ERR_OK);
    assert_int_equal(plan.window, MB);
    assert_int_equal(plan.streamed, 3 * MB);
    blocks_done(&plan);
    p.bytes = 3 * MB;
    assert_int_equal(blocks_make(&p, &plan), ERR_OK);
    assert_int_equal(plan.window, 0);
    assert_int_equal(plan.predicted_ns, 30000000);
    blocks_done(&plan);
    p.bytes = MB - 4096;
    assert_int_equal(blocks_make(&p, &plan), ERR_NOMEM);
    assert_non_null(strstr(err_text(), "at least"));
}

/* Two models of four layers of a megabyte; three of the four are equal. */
static void what_is_shared_counts_once(void **state)
{
    enum { MB = 1 << 20 };
    static const uint8_t ids[5][32] = {{1}, {2}, {3}, {4}, {5}};
    const int64_t ns[4] = {100000, 100000, 100000, 100000};
    struct blocks_use uses[2][4];
    struct blocks_problem p[2];
    struct blocks_tenant t[2];
    struct blocks_division d, apart;
    (void)state;
    for (int i = 0; i < 2; i++) {
        for (int u = 0; u < 4; u++) uses[i][u] = (struct blocks_use){u, u, MB, ids[u == 3 ? 3 + i : u]};
        p[i] = (struct blocks_problem){.n_steps = 4, .n_uses = 4, .step_ns = ns, .uses = uses[i], .fixed = 4096, .bandwidth = 1e9};
        t[i] = (struct blocks_tenant){.problem = &p[i], .rate = i ? 30 : 5, .weight = 1};
    }
    /* room for all five: apart it would not be, and some of eight would stream */
    size_t bytes = 5 * MB + 2 * 4096;
    assert_int_equal(blocks_divide(t, 2, bytes, &apart), ERR_OK);
    assert_true(apart.window > 0);
    assert_int_equal(apart.shared, 0);
    blocks_division_done(&apart, 2);
    assert_int_equal(blocks_divide_shared(t, 2, bytes, 0, &d), ERR_OK);
    assert_int_equal(d.kept, 8 * MB + 2 * 4096);
    assert_int_equal(d.shared, 3 * MB);
    assert_int_equal(d.window, 0);
    assert_true(d.stall == 0);
    blocks_division_done(&d, 2);
    /* one of the fixed pages is the other's, too: a page less does */
    assert_int_equal(blocks_divide_shared(t, 2, bytes - 4096, 4096, &d), ERR_OK);
    assert_int_equal(d.window, 0);
    assert_int_equal(d.shared, 3 * MB + 4096);
    blocks_division_done(&d, 2);
    /* less than all: never more than there is, and what one keeps the other keeps as well */
    for (size_t mb = 1; mb < 5; mb++) {
        if (blocks_divide_shared(t, 2, mb * MB + MB / 2, 0, &d)) continue;
        assert_true(d.kept - d.shared + d.window <= mb * MB + MB / 2);
        for (int u = 0; u < 3; u++) assert_int_equal(d.plans[0].keep[u], d.plans[1].keep[u]);
        for (int i = 0; i < 2; i++) {
            size_t kept = 4096;
            for (int u = 0; u < 4; u++) kept += d.plans[i].keep[u] ? MB : 0;
            assert_int_equal(d.plans[i].kept, kept);
            assert_int_equal(d.plans[i].streamed, 4 * MB + 4096 - kept);
            assert_int_equal(d.plans[i].predicted_ns, blocks_predict(&p[i], d.plans[i].keep, d.window, false));
        }
        blocks_division_done(&d, 2);
    }
    assert_int_equal(blocks_divide_shared(t, 2, SIZE_MAX, 4096, &d), ERR_OK); /* no limit */
    assert_int_equal(d.window, 0);
    blocks_division_done(&d, 2);
    assert_int_equal(blocks_divide_shared(t, 2, MB, 0, &d), ERR_NOMEM);
    /* strangers: as if each were alone */
    for (int i = 0; i < 2; i++)
        for (int u = 0; u < 4; u++) uses[i][u].id = i ? NULL : ids[u];
    assert_int_equal(blocks_divide(t, 2, bytes, &apart), ERR_OK);
    assert_int_equal(blocks_divide_shared(t, 2, bytes, 0, &d), ERR_OK);
    assert_int_equal(d.kept, apart.kept);
    assert_int_equal(d.window, apart.window);
    assert_int_equal(d.shared, 0);
    blocks_division_done(&apart, 2);
    blocks_division_done(&d, 2);
}

/* Three models that differ by their heads: what all have stays, a window for a head is enough, though their largest layer is eight times as large. */
static void a_window_for_what_differs(void **state)
{
    enum { MB = 1 << 20 };
    static const uint8_t ids[5][32] = {{1}, {2}, {3}, {4}, {5}};
    const int64_t ns[6] = {100000, 100000, 100000, 100000, 100000, 100000};
    struct blocks_use uses[3][6];
    struct blocks_problem p[3];
    struct blocks_tenant t[3];
    struct blocks_division d, apart;
    (void)state;
    for (int i = 0; i < 3; i++) {
        for (int u = 0; u < 6; u++) uses[i][u] = (struct blocks_use){u, u, u == 2 ? 8 * MB : MB, u < 5 ? ids[u] : NULL};
        p[i] = (struct blocks_problem){.n_steps = 6, .n_uses = 6, .step_ns = ns, .uses = uses[i], .fixed = 4096, .bandwidth = 1e9};
        t[i] = (struct blocks_tenant){.problem = &p[i], .rate = 20, .weight = 1};
    }
    size_t bytes = 13 * MB + 3 * 4096 + MB / 2; /* all of it would be 15 */
    assert_int_equal(blocks_divide(t, 3, bytes, &apart), ERR_OK);
    assert_true(apart.window >= 8 * MB);
    assert_int_equal(blocks_divide_shared(t, 3, bytes, 0, &d), ERR_OK);
    assert_true(d.window >= MB && d.window <= MB + MB / 2);
    for (int i = 0; i < 3; i++) {
        for (int u = 0; u < 6; u++) assert_int_equal(d.plans[i].keep[u], u < 5);
        assert_int_equal(d.plans[i].streamed, MB);
        assert_int_equal(d.plans[i].kept, 12 * MB + 4096);
        assert_int_equal(d.plans[i].predicted_ns, blocks_predict(&p[i], d.plans[i].keep, d.window, false));
    }
    assert_int_equal(d.shared, 2 * 12 * MB);
    assert_true(d.kept - d.shared + d.window <= bytes);
    assert_true(blocks_division_cost(t, 3, d.plans) < blocks_division_cost(t, 3, apart.plans));
    blocks_division_done(&apart, 3);
    blocks_division_done(&d, 3);
    for (size_t least = 8 * MB; least < 13 * MB; least += MB / 4) { /* with less: never more than there is */
        if (blocks_divide_shared(t, 3, least + 3 * 4096, 0, &d)) continue;
        assert_true(d.kept - d.shared + d.window <= least + 3 * 4096);
        blocks_division_done(&d, 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_shared_counts_once), cmocka_unit_test(a_window_for_what_differs), cmocka_unit_test(by_hand), cmocka_unit_test(near_the_best_of_all), cmocka_unit_test(near_the_bound), cmocka_unit_test(several_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
