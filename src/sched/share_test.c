/* The scheduler and weights that models share, against the same scheduler blind to it: what is read, in which order things run. The clock is the
 * test's; bytes are counted at the disk. SPDX-License-Identifier: Apache-2.0 */
#include "model/import.h"
#include "sched/sched.h"
#include "weights/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIDE = 256, LAYER = SIDE * SIDE * 4, MOST = 6 };
static const int64_t MS = 1000000;

struct world;
struct query {
    struct world *w;
    char name;
    struct model *model;
    struct model_plan *plan;
    struct sched_model *sm;
    struct sched_stream *st;
};

struct world {
    char *dir, log[1024];
    struct weights_store *store;
    struct mem_budget *budget;
    struct mem_payer *payer, *window;
    struct weights_reader *reader;
    struct sched *sched;
    int64_t now;
    struct query q[MOST];
    int n;
    bool real; /* runs are done, not only logged */
    int refused; /* items for which there was no room; below 0: there must be none */
    uint64_t seq;
};

static int64_t world_now(void *arg)
{
    return ((struct world *)arg)->now;
}

static err run(void *user, struct sched_item *item)
{
    struct query *q = user;
    char text[3] = {q->w->log[0] ? ' ' : q->name, q->w->log[0] ? q->name : 0, 0};
    (void)item;
    strncat(q->w->log, text, sizeof q->w->log - strlen(q->w->log) - 1);
    q->w->now += MS;
    return q->w->real ? model_plan_run(q->plan, NULL) : ERR_OK;
}

static void drop(void *user, struct sched_item *item, enum sched_drop why)
{
    struct query *q = user;
    (void)item;
    if (q->w->refused >= 0 && why == SCHED_DROP_MEMORY) q->w->refused++;
    else fail_msg("%c: %s", q->name, sched_drop_text(why));
}

static void begin(struct world *w, bool sharing)
{
    memset(w, 0, sizeof *w);
    w->dir = xstrdup("/tmp/brim-sched-share-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    char *store = xasprintf("%s/store", w->dir);
    assert_int_equal(weights_store_open(store, NULL, &w->store), ERR_OK);
    free(store);
    w->now = 100000 * MS;
    w->refused = -1;
    w->budget = mem_budget_new("host", UINT64_MAX);
    w->payer = mem_payer_new(w->budget, "test");
    assert_int_equal(weights_reader_new(&w->reader), ERR_OK);
    assert_int_equal(sched_new(w->budget, world_now, w, &w->sched), ERR_OK);
    sched_set_sharing(w->sched, sharing);
    sched_set_prefetch(w->sched, false);
}

/* SIDE x SIDE products, one for each letter: equal letters, equal numbers. */
static char *make_model(struct world *w, const char *layers)
{
    struct graph *g = graph_new("g", 13, w->payer);
    struct tensor_shape x = tensor_shape_of(2, (int64_t[]){1, SIDE}), ws = tensor_shape_of(2, (int64_t[]){SIDE, SIDE});
    int value = graph_add_input(g, "x", TENSOR_F32, &x);
    for (size_t i = 0; layers[i]; i++) {
        char name[2][32];
        void *p;
        int weight;
        snprintf(name[0], sizeof name[0], "w%zu", i);
        snprintf(name[1], sizeof name[1], "y%zu", i);
        assert_int_equal(graph_add_constant(g, name[0], TENSOR_F32, &ws, &weight, &p), ERR_OK);
        for (int k = 0; k < SIDE * SIDE; k++) ((float *)p)[k] = (float)(hash64(&k, sizeof k, (uint64_t)layers[i]) >> 40) / 16777216.0f;
        int out = graph_add_value(g, name[1], TENSOR_F32, &x);
        struct graph_node *n = graph_add_node(g, OP_GEMM, "", 2, 1);
        n->op.in[0] = value;
        n->op.in[1] = weight;
        n->op.out[0] = value = out;
    }
    graph_add_output(g, value);
    char *path = xasprintf("%s/%s.onnx", w->dir, layers);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    return path;
}

static struct query *add(struct world *w, char name, const char *layers, int period_ms, int deadline_ms)
{
    struct query *q = &w->q[w->n++];
    struct model_import_report r;
    struct model_options o = {.budget = w->budget, .threads = 1, .reader = w->reader, .spill_dir = w->dir};
    char *path = make_model(w, layers), text[2] = {name, 0};
    *q = (struct query){.w = w, .name = name};
    err e = model_import(w->store, path, layers, w->payer, &r);
    if (!e) e = model_open_stored(w->store, layers, layers, &o, &q->model);
    if (!e) e = model_plan_new(q->model, NULL, &q->plan);
    if (!e) e = model_plan_reserve(q->plan);
    if (e) fail_msg("%s", err_text());
    q->sm = sched_model_add(w->sched, q->model, false, 0);
    static const struct sched_stream_ops ops = {run, drop};
    q->st = sched_stream_add(w->sched, &(struct sched_stream_options){.name = text, .model = q->sm, .period_ns = period_ms * MS, .deadline_ns = deadline_ms * MS,
                                                                      .capacity = 1, .ops = &ops, .user = q});
    free(path);
    return q;
}

/* The budget has room for so many layers now. */
static void room_for(struct world *w, int layers)
{
    mem_budget_set_limit(w->budget, mem_budget_used(w->budget) + (uint64_t)layers * LAYER + LAYER / 2);
}

static void offer(struct query *q)
{
    sched_offer(q->w->sched, q->st, &(struct sched_item){.arrived_ns = q->w->now, .seq = ++q->w->seq});
}

/* Runs all that waits; layers read from the disk meanwhile. */
static int finish(struct world *w)
{
    uint64_t before = weights_reader_stats(w->reader).bytes;
    while (sched_step(w->sched)) {}
    return (int)((weights_reader_stats(w->reader).bytes - before + LAYER / 2) / LAYER);
}

static void end(struct world *w)
{
    for (int i = 0; i < w->n; i++) {
        sched_stream_remove(w->sched, &w->q[i].st);
        sched_model_remove(w->sched, &w->q[i].sm);
        model_plan_free(&w->q[i].plan);
        model_free(&w->q[i].model);
    }
    sched_free(&w->sched);
    weights_reader_free(&w->reader);
    weights_store_close(&w->store);
    mem_payer_free(&w->window);
    mem_payer_free(&w->payer);
    mem_budget_free(&w->budget);
    char *command = xasprintf("rm -rf '%s'", w->dir);
    assert_int_equal(system(command), 0);
    free(command);
    free(w->dir);
}

/* Two families of two, of which one fits: offered in turns a b c d (a, c of one; b, d of the other). */
static int families(bool sharing, int rounds, char *log, size_t cap)
{
    struct world w;
    int layers = 0;
    begin(&w, sharing);
    struct query *a = add(&w, 'a', "TUVa", 200, 150), *b = add(&w, 'b', "XYZb", 200, 150), *c = add(&w, 'c', "TUVc", 200, 150),
                 *d = add(&w, 'd', "XYZd", 200, 150);
    room_for(&w, 5);
    for (int i = 0; i < rounds; i++) {
        offer(a);
        offer(b);
        offer(c);
        offer(d);
        layers += finish(&w);
        w.now += 150 * MS;
    }
    snprintf(log, cap, "%s", w.log);
    end(&w);
    return layers;
}

/* Three models of four layers, of which three are common, in room for seven, with block residency: layers read in all rounds. */
static int streaming(bool sharing, int rounds)
{
    struct world w;
    int layers = 0;
    begin(&w, sharing);
    w.real = true;
    struct query *q[3] = {add(&w, 'a', "TUVa", 100, 90), add(&w, 'b', "TUVb", 100, 90), add(&w, 'c', "TUVc", 100, 90)};
    struct mem_payer *payer = mem_payer_new(w.budget, "window");
    room_for(&w, 7);
    for (int i = 0; i < 3; i++) sched_model_set_plans(w.sched, q[i]->sm, q[i]->plan, NULL);
    sched_set_blocks(w.sched, payer, w.reader, 0);
    for (int i = 0; i < rounds; i++) {
        for (int k = 0; k < 3; k++) offer(q[k]);
        layers += finish(&w);
        w.now += 90 * MS;
        assert_true(mem_budget_peak(w.budget) <= mem_budget_limit(w.budget));
    }
    struct sched_blocks_stats b = sched_blocks_get_stats(w.sched);
    assert_true((b.window == 0) == sharing);
    w.window = payer;
    end(&w);
    return layers;
}

/* A model of four layers and a guest of four others, in room for `room` layers: what both read in all rounds. */
static int with_guest(int room, int rounds, int *ret_refused)
{
    struct world w;
    int layers = 0;
    begin(&w, true);
    w.real = true;
    w.refused = 0;
    struct query *a = add(&w, 'a', "TUVa", 100, 90), *g = add(&w, 'g', "WXYZ", 1000, 0);
    struct mem_payer *payer = mem_payer_new(w.budget, "window");
    room_for(&w, room);
    sched_model_set_guest(w.sched, g->sm);
    sched_model_set_plans(w.sched, a->sm, a->plan, NULL);
    sched_model_set_plans(w.sched, g->sm, g->plan, NULL);
    sched_set_blocks(w.sched, payer, w.reader, 0);
    for (int i = 0; i < rounds; i++) {
        offer(a);
        layers += finish(&w);
        offer(g);
        layers += finish(&w);
        w.now += 90 * MS;
        assert_true(mem_budget_peak(w.budget) <= mem_budget_limit(w.budget));
    }
    *ret_refused = w.refused;
    w.window = payer;
    end(&w);
    return layers;
}

static void a_guest_streams_or_is_left_out(void **state)
{
    (void)state;
    int refused;
    assert_int_equal(with_guest(4, 5, &refused), 4); /* the model alone, once */
    assert_int_equal(refused, 5);
    assert_int_equal(with_guest(8, 5, &refused), 4 + 5 * 4); /* the guest leaves after each run */
    assert_int_equal(refused, 0);
}

/* v (needed last), p and a guest that has all of v. x comes, and v goes: nothing of it stays for the guest, or p had to go as well. What p reads then. */
static int read_by_p(bool ran_before)
{
    struct world w;
    begin(&w, true);
    w.refused = 0;
    struct query *v = add(&w, 'v', "TUV", 100000, 0), *p = add(&w, 'p', "abc", 2000, 0), *g = add(&w, 'g', "TUVg", 500, 0), *x = add(&w, 'x', "xyz", 1000, 0);
    sched_model_set_guest(w.sched, g->sm);
    room_for(&w, 6);
    if (ran_before) offer(g);
    assert_int_equal(finish(&w), ran_before ? 4 : 0);
    offer(v);
    assert_int_equal(finish(&w), 3);
    offer(p);
    assert_int_equal(finish(&w), 3);
    if (!ran_before) offer(g);
    assert_int_equal(finish(&w), 0);
    assert_int_equal(w.refused, !ran_before);
    offer(x);
    assert_int_equal(finish(&w), 3);
    offer(p);
    int layers = finish(&w);
    end(&w);
    return layers;
}

static void nothing_is_kept_for_a_guest(void **state)
{
    (void)state;
    assert_int_equal(read_by_p(true), 0);
    assert_int_equal(read_by_p(false), 0);
}

/* More guests than a division can have: the others are divided all the same. */
static void many_guests_take_no_place(void **state)
{
    enum { GUESTS = 64 };
    struct sched_model *guests[GUESTS];
    struct world w;
    (void)state;
    begin(&w, true);
    w.real = true;
    w.refused = 0;
    struct query *a = add(&w, 'a', "TUVa", 100, 90), *g = add(&w, 'g', "WXYZ", 1000, 0);
    w.window = mem_payer_new(w.budget, "window");
    room_for(&w, 3);
    sched_model_set_plans(w.sched, a->sm, a->plan, NULL);
    for (int i = 0; i < GUESTS; i++) { /* each as the original of another model */
        guests[i] = sched_model_add(w.sched, g->model, false, 0);
        sched_model_set_guest(w.sched, guests[i]);
        sched_model_set_plans(w.sched, guests[i], g->plan, NULL);
    }
    sched_set_blocks(w.sched, w.window, w.reader, 0);
    offer(a);
    assert_int_equal(finish(&w), 4);
    assert_int_equal(w.refused, 0);
    assert_true(sched_blocks_get_stats(w.sched).window > 0); /* it streams: all of it has no room */
    for (int i = 0; i < GUESTS; i++) sched_model_remove(w.sched, &guests[i]);
    end(&w);
}

static void blocks_that_are_shared_do_not_stream(void **state)
{
    (void)state;
    int with = streaming(true, 5), without = streaming(false, 5);
    print_message("# 5 rounds of 3 models in room for 7 of 12 layers: %d read, blind %d\n", with, without);
    assert_int_equal(with, 6);
    assert_true(without >= 20);
}

static void families_run_together(void **state)
{
    char aware[1024], blind[1024];
    (void)state;
    int with = families(true, 3, aware, sizeof aware), without = families(false, 3, blind, sizeof blind);
    print_message("# 3 rounds of 4 models: %d layers read (%s), blind %d (%s)\n", with, aware, without, blind);
    /* one change of family in a round: three common layers and two own; both families in the first round */
    assert_int_equal(with, 10 + 5 + 5);
    assert_string_equal(aware, "a c b d b d a c a c b d");
    assert_string_equal(blind, "a b c d d a b c c a b d");
    assert_int_equal(without, 16 + 12 + 12);
}

/* a (needed late) and b (soon) have three layers in common. When x comes, which needs three, a's own three go and the common ones wait for b. */
static int kept_for_b(bool sharing, int *ret_for_x)
{
    struct world w;
    begin(&w, sharing);
    struct query *a = add(&w, 'a', "TUVabc", 100000, 0), *b = add(&w, 'b', "TUVd", 500, 0), *x = add(&w, 'x', "xyz", 2000, 0);
    room_for(&w, 6);
    offer(b);
    assert_int_equal(finish(&w), 4);
    w.now += 10 * MS;
    offer(a);
    assert_int_equal(finish(&w), sharing ? 3 : 6);
    w.now += 10 * MS;
    offer(x);
    *ret_for_x = finish(&w);
    w.now += 10 * MS;
    offer(b);
    int layers = finish(&w);
    assert_true(mem_budget_used(w.budget) <= mem_budget_limit(w.budget));
    end(&w);
    return layers;
}

static void eviction_keeps_what_is_needed_sooner(void **state)
{
    (void)state;
    int x;
    assert_int_equal(kept_for_b(true, &x), 1); /* its own layer alone */
    assert_int_equal(x, 3);
    assert_int_equal(kept_for_b(false, &x), 4);
    assert_int_equal(x, 3);
}

/* What was kept in part for somebody goes in its turn, and the budget holds. */
static void parts_are_victims_too(void **state)
{
    (void)state;
    struct world w;
    begin(&w, true);
    struct query *a = add(&w, 'a', "TUVabc", 100000, 0), *b = add(&w, 'b', "TUVd", 500, 0), *x = add(&w, 'x', "uvwxyz", 2000, 0);
    room_for(&w, 6);
    offer(b);
    finish(&w);
    offer(a);
    finish(&w);
    offer(x); /* needs all there is */
    assert_int_equal(finish(&w), 6);
    struct sched_model_stats s;
    sched_model_get_stats(w.sched, x->sm, &s);
    assert_true(s.resident);
    sched_model_get_stats(w.sched, b->sm, &s);
    assert_int_equal(s.resident_bytes, 0);
    offer(b);
    assert_int_equal(finish(&w), 4);
    end(&w);
}

/* Without anything in common, nothing is different. */
static int strangers(bool sharing, char *log, size_t cap)
{
    struct world w;
    int layers = 0;
    begin(&w, sharing);
    struct query *q[3] = {add(&w, 'a', "abc", 200, 150), add(&w, 'b', "def", 200, 150), add(&w, 'c', "ghi", 400, 300)};
    room_for(&w, 6);
    for (int i = 0; i < 6; i++) {
        for (int k = 0; k < 3; k++)
            if (k < 2 || i % 2) offer(q[k]);
        layers += finish(&w);
        w.now += 150 * MS;
    }
    snprintf(log, cap, "%s", w.log);
    end(&w);
    return layers;
}

static void nothing_shared_nothing_changed(void **state)
{
    char aware[1024], blind[1024];
    (void)state;
    assert_int_equal(strangers(true, aware, sizeof aware), strangers(false, blind, sizeof blind));
    assert_string_equal(aware, blind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_run_together), cmocka_unit_test(eviction_keeps_what_is_needed_sooner), cmocka_unit_test(parts_are_victims_too),
        cmocka_unit_test(nothing_shared_nothing_changed), cmocka_unit_test(a_guest_streams_or_is_left_out), cmocka_unit_test(nothing_is_kept_for_a_guest), cmocka_unit_test(many_guests_take_no_place), cmocka_unit_test(blocks_that_are_shared_do_not_stream)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
