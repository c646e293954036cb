/* Tests of slots, configurations and policies: what is tried, in what order, counted by hand. Nothing is trained.
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/testing.h"
#include "methods/merge_policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Chains of 1x1 convolutions on 4 channels (64 bytes) and 8 (256 bytes). Numbers differ between members unless `seed` is the same. */
static struct graph *chain(struct testing *t, uint64_t seed, int fours, int eights)
{
    struct graph *g = graph_new("chain", 17, t->payer);
    int x = testing_input(g, "x", DIMS(1, 4, 8, 8));
    for (int i = 0; i < fours; i++) x = testing_node(g, OP_CONV, x, testing_floats(g, seed++, DIMS(4, 4, 1, 1)), -1);
    if (eights) x = testing_node(g, OP_CONV, x, testing_floats(g, 1000 + seed++, DIMS(8, 4, 1, 1)), -1);
    for (int i = 0; i < eights; i++) x = testing_node(g, OP_CONV, x, testing_floats(g, seed++, DIMS(8, 8, 1, 1)), -1);
    graph_add_output(g, x);
    return g;
}

struct made {
    struct testing t;
    struct graph *graphs[4];
    struct merge_problem *p;
};

/* a: 2 fours, 3 eights; b: 3 fours, 2 eights; c: 1 four. One conv 8x4 (128 bytes) in a and b. */
static struct made make(void)
{
    static const char *const names[] = {"a", "b", "c"};
    struct made m;
    testing_init(&m.t, UINT64_MAX);
    m.graphs[0] = chain(&m.t, 1, 2, 3);
    m.graphs[1] = chain(&m.t, 100, 3, 2);
    m.graphs[2] = chain(&m.t, 200, 1, 0);
    assert_int_equal(merge_problem_new((const struct graph *const *)m.graphs, names, 3, &m.p), ERR_OK);
    return m;
}

static void unmake(struct made *m)
{
    merge_problem_free(&m->p);
    for (int i = 0; i < 3; i++) graph_free(&m->graphs[i]);
    testing_done(&m->t);
}

static void slots_are_the_kth_layers_of_a_kind(void **state)
{
    (void)state;
    struct made m = make();
    const struct merge_problem *p = m.p;
    assert_int_equal(p->n_slots, 5); /* two 8x8 (256), an 8x4 (128), a 4x4 of three (64, saves 128), a 4x4 of two */
    assert_int_equal(p->slots[0].bytes, 256);
    assert_int_equal(p->slots[0].nth, 1); /* the deeper one first */
    assert_int_equal(p->slots[1].nth, 0);
    assert_int_equal(p->slots[0].value[2], -1);
    int wide = 0;
    for (int s = 0; s < 5; s++) {
        assert_true(p->slots[s].n >= 2);
        if (p->slots[s].n != 3) continue;
        wide++;
        assert_int_equal(p->slots[s].bytes, 64);
        assert_int_equal(p->slots[s].nth, 0);
    }
    assert_int_equal(wide, 1);
    assert_int_equal(p->most_bytes, 2 * 256 + 128 + 2 * 64 + 64);
    assert_int_equal(p->equal_bytes, 0);
    unmake(&m);
}

static void what_was_equal_is_counted_apart(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    const struct graph *g[] = {chain(&t, 1, 2, 0), chain(&t, 2, 2, 0)}; /* 1 2 and 2 3: one content twice */
    struct merge_problem *p;
    assert_int_equal(merge_problem_new(g, (const char *const[]){"a", "b"}, 2, &p), ERR_OK);
    assert_int_equal(p->equal_bytes, 64);
    merge_problem_free(&p);
    const struct graph *other[] = {g[0], chain(&t, 9, 0, 0)};
    assert_int_equal(merge_problem_new(other, (const char *const[]){"a", "b"}, 2, &p), ERR_NOT_FOUND);
    assert_int_equal(merge_problem_new(g, (const char *const[]){"a"}, 1, &p), ERR_USAGE);
    graph_free((struct graph **)&g[0]);
    graph_free((struct graph **)&g[1]);
    graph_free((struct graph **)&other[1]);
    testing_done(&t);
}

static void configurations_count_and_close(void **state)
{
    (void)state;
    struct made m = make();
    struct merge_config c;
    bool with[3] = {false, false, true};
    merge_config_init(&c, m.p);
    assert_int_equal(merge_config_saved(&c, m.p), 0);
    merge_config_set(&c, 0, 0, true);
    assert_int_equal(merge_config_saved(&c, m.p), 0); /* alone */
    merge_config_set(&c, 0, 1, true);
    assert_int_equal(merge_config_saved(&c, m.p), 256);
    merge_config_close(&c, with);
    assert_false(with[0] || with[1]);
    for (int s = 0; s < m.p->n_slots; s++)
        if (m.p->slots[s].n == 3) merge_config_set(&c, s, 1, true), merge_config_set(&c, s, 2, true);
    merge_config_close(&c, with);
    assert_true(with[0] && with[1] && with[2]); /* c with b by the four, b with a by the eight */
    merge_config_done(&c);
    unmake(&m);
}

/* ---- policies */

struct play {
    struct made m;
    const struct merge_policy *policy;
    void *state;
    struct merge_trial trial;
    struct merge_config best;
    bool met[3];
    double score[3], target[3], rise[3], *gain;
};

static struct play begin(const char *name)
{
    struct play p = {.m = make(), .policy = merge_policy_find(name), .score = {1, 1, 1}, .target = {0.9, 0.9, 0.9}};
    assert_non_null(p.policy);
    merge_config_init(&p.trial.config, p.m.p);
    merge_config_init(&p.best, p.m.p);
    p.gain = xnewn(double, p.m.p->n_slots * 3);
    p.state = p.policy->start(p.m.p, 100);
    return p;
}

static void end(struct play *p)
{
    p->policy->end(p->state);
    merge_config_done(&p->trial.config);
    merge_config_done(&p->best);
    free(p->gain);
    unmake(&p->m);
}

static bool first(struct play *p)
{
    return p->policy->next(p->state, NULL, 100, &p->trial);
}

/* The trial ended with these members at their target. */
static bool then(struct play *p, bool a, bool b, bool c, bool accepted, double left)
{
    struct merge_config tried;
    bool met[] = {a, b, c};
    merge_config_init(&tried, p->m.p);
    merge_config_copy(&tried, &p->trial.config);
    for (int i = 0; i < 3; i++) p->score[i] = met[i] ? 1 : 0.5;
    if (accepted) {
        for (int s = 0; s < p->m.p->n_slots; s++)
            for (int i = 0; i < 3; i++) merge_config_set(&p->best, s, i, merge_config_on(&tried, s, i) && met[i]);
    }
    struct merge_outcome o = {.tried = &tried, .best = &p->best, .met = met, .score = p->score, .target = p->target, .rise = p->rise, .gain = p->gain, .accepted = accepted};
    memset(p->trial.config.on, 0, (size_t)p->m.p->n_slots * 3);
    p->trial.go_on = false;
    bool more = p->policy->next(p->state, &o, left, &p->trial);
    merge_config_done(&tried);
    return more;
}

static int users(const struct play *p, int slot)
{
    return merge_config_users(&p->trial.config, slot);
}

/* Groups: both 8x8 (saves 512); then 8x4 and the 4x4 of three (128 each); then the 4x4 of two. */
static void groups_go_from_the_heaviest_and_keep_what_worked(void **state)
{
    (void)state;
    struct play p = begin("groups");
    assert_true(first(&p));
    assert_int_equal(users(&p, 0), 2);
    assert_int_equal(users(&p, 1), 2);
    assert_int_equal(users(&p, 2) + users(&p, 3) + users(&p, 4), 0);
    assert_true(then(&p, true, true, true, true, 90));
    assert_int_equal(users(&p, 0) + users(&p, 1), 4); /* kept */
    assert_int_equal(merge_config_saved(&p.trial.config, p.m.p), 512 + 128);
    assert_true(then(&p, true, true, true, true, 80));
    assert_int_equal(merge_config_saved(&p.trial.config, p.m.p), 512 + 256);
    assert_true(then(&p, true, true, true, true, 70));
    assert_int_equal(merge_config_saved(&p.trial.config, p.m.p), 512 + 256 + 64);
    assert_false(then(&p, true, true, true, true, 60)); /* it ends */
    end(&p);
}

static void groups_halve_what_failed(void **state)
{
    (void)state;
    struct play p = begin("groups");
    assert_true(first(&p));
    assert_true(then(&p, true, false, true, false, 90)); /* two 8x8 failed: one of them outweighs the next group (128) */
    assert_int_equal(users(&p, 0), 2);
    assert_int_equal(users(&p, 1), 0);
    assert_true(then(&p, true, false, true, false, 80)); /* half of one is none: the next group */
    assert_int_equal(users(&p, 0), 0);
    assert_int_equal(merge_config_saved(&p.trial.config, p.m.p), 128);
    for (int i = 0; i < 2; i++) assert_true(then(&p, false, false, false, false, 70 - i));
    assert_false(then(&p, false, false, false, false, 60));
    end(&p);
}

static void split_shares_all_and_gives_back_what_hurts_most(void **state)
{
    (void)state;
    struct play p = begin("split");
    assert_true(first(&p));
    assert_int_equal(merge_config_saved(&p.trial.config, p.m.p), p.m.p->most_bytes);
    assert_false(p.trial.go_on);
    for (int s = 0; s < p.m.p->n_slots; s++) p.gain[s * 3 + 1] = (double)p.m.p->slots[s].bytes; /* the same per byte ... */
    p.gain[1 * 3 + 1] *= 3;                                                                    /* ... but for one */
    assert_true(then(&p, true, false, true, true, 60));
    assert_int_equal(users(&p, 1), 0); /* b gave it back, a alone shares nothing */
    assert_int_equal(users(&p, 0), 2); /* one was enough: more than a tenth of b's bytes */
    assert_true(p.trial.go_on);
    p.rise[1] = 0.1; /* it rises: 0.5 + 0.1 * 25 reaches the target by itself */
    struct merge_config before;
    merge_config_init(&before, p.m.p);
    merge_config_copy(&before, &p.trial.config);
    assert_true(then(&p, true, false, true, false, 50));
    assert_true(merge_config_equal(&before, &p.trial.config));
    merge_config_done(&before);
    assert_false(then(&p, true, true, true, true, 40)); /* all there: the most that can be saved */
    end(&p);
}

static void split_ends(void **state)
{
    (void)state;
    struct play p = begin("split");
    int rounds = 0;
    assert_true(first(&p));
    while (then(&p, false, false, false, false, 50) && rounds < 100) rounds++;
    assert_in_range(rounds, 2, 20);
    end(&p);
    p = begin("split");
    assert_true(first(&p));
    assert_false(then(&p, false, true, true, false, 3)); /* too little time is left to begin anything */
    end(&p);
    assert_null(merge_policy_find("best"));
}

static void grow_takes_what_is_alike_at_once(void **state)
{
    (void)state;
    struct play p = begin("grow");
    assert_true(first(&p)); /* nothing is foreign */
    assert_int_equal(merge_config_saved(&p.trial.config, p.m.p), p.m.p->most_bytes);
    assert_false(p.trial.go_on);
    assert_false(then(&p, true, true, true, true, 90));
    end(&p);
}

/* All is foreign: 512 of 832 are 60 %, with 128 more 640 are not 80 % yet, but 768 are; 832 is all. */
static void grow_goes_on_from_what_works(void **state)
{
    (void)state;
    struct play p = begin("grow");
    for (int s = 0; s < p.m.p->n_slots; s++) p.m.p->slots[s].foreign = true;
    assert_true(first(&p));
    assert_int_equal(users(&p, 0) + users(&p, 1), 4);
    assert_int_equal(merge_config_saved(&p.trial.config, p.m.p), 512);
    assert_true(then(&p, true, true, true, true, 60));
    assert_int_equal(merge_config_saved(&p.trial.config, p.m.p), 768);
    assert_true(p.trial.go_on && !p.trial.gentle);
    assert_true(then(&p, true, true, true, true, 40));
    assert_int_equal(merge_config_saved(&p.trial.config, p.m.p), 832);
    assert_false(then(&p, true, true, true, true, 30));
    end(&p);
}

static void grow_waits_and_then_gives_back_the_first_layers(void **state)
{
    (void)state;
    struct play p = begin("grow");
    for (int s = 0; s < p.m.p->n_slots; s++) p.m.p->slots[s].foreign = true;
    assert_true(first(&p));
    assert_true(then(&p, true, true, true, true, 60));
    assert_true(then(&p, true, false, true, false, 50)); /* b misses: more time for the same */
    assert_int_equal(merge_config_saved(&p.trial.config, p.m.p), 768);
    assert_true(p.trial.go_on && p.trial.gentle);
    assert_true(then(&p, true, false, true, false, 40)); /* again: of the two new ones b gets the one nearest to the picture back, a four */
    assert_int_equal(merge_config_saved(&p.trial.config, p.m.p), 512 + 128 + 64);
    assert_int_equal(users(&p, 0) + users(&p, 1), 4);    /* what worked stays */
    for (int rounds = 0; then(&p, true, false, true, false, 35 - rounds); rounds++) assert_in_range(rounds, 0, 8);
    end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_the_kth_layers_of_a_kind),
        cmocka_unit_test(what_was_equal_is_counted_apart),
        cmocka_unit_test(configurations_count_and_close),
        cmocka_unit_test(groups_go_from_the_heaviest_and_keep_what_worked),
        cmocka_unit_test(groups_halve_what_failed),
        cmocka_unit_test(grow_takes_what_is_alike_at_once),
        cmocka_unit_test(grow_goes_on_from_what_works),
        cmocka_unit_test(grow_waits_and_then_gives_back_the_first_layers),
        cmocka_unit_test(split_shares_all_and_gives_back_what_hurts_most),
        cmocka_unit_test(split_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
