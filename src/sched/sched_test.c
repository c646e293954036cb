/* Tests of the scheduler, with a clock of their own: what runs, in which order, what is dropped and why, what is evicted.
 * SPDX-License-Identifier: Apache-2.0 */
#include "sched/sched.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const int64_t MS = 1000000;

struct world {
    int64_t now, cost; /* ns; what each run takes */
    char log[4096];    /* "a1 b1 -a2:1 ..." : runs, and drops with their reason */
    struct mem_budget *budget;
    struct sched *sched;
    struct weights_reader *reader;
    pthread_mutex_t lock;
    int given_back;
};

struct user {
    struct world *w;
    char name;
    int64_t cost;
};

static int64_t world_now(void *arg)
{
    struct world *w = arg;
    pthread_mutex_lock(&w->lock);
    int64_t now = w->now;
    pthread_mutex_unlock(&w->lock);
    return now;
}

static void note(struct world *w, const char *fmt, char name, uint64_t seq, int why)
{
    char text[32];
    snprintf(text, sizeof text, fmt, name, (int)seq, why);
    pthread_mutex_lock(&w->lock);
    if (strlen(w->log) + strlen(text) + 2 < sizeof w->log) {
        if (w->log[0]) strcat(w->log, " ");
        strcat(w->log, text);
    }
    w->given_back++;
    pthread_mutex_unlock(&w->lock);
}

static err run(void *arg, struct sched_item *item)
{
    struct user *u = arg;
    note(u->w, "%c%d", u->name, item->seq, 0);
    pthread_mutex_lock(&u->w->lock);
    u->w->now += u->cost;
    pthread_mutex_unlock(&u->w->lock);
    return ERR_OK;
}

static void drop(void *arg, struct sched_item *item, enum sched_drop why)
{
    struct user *u = arg;
    note(u->w, "-%c%d:%d", u->name, item->seq, (int)why);
}

static const struct sched_stream_ops ops = {run, drop};

static void begin(struct world *w, uint64_t limit)
{
    memset(w, 0, sizeof *w);
    w->now = 100000 * MS;
    pthread_mutex_init(&w->lock, NULL);
    w->budget = mem_budget_new("host", limit);
    assert_int_equal(sched_new(w->budget, world_now, w, &w->sched), ERR_OK);
}

static void end(struct world *w)
{
    sched_free(&w->sched);
    weights_reader_free(&w->reader);
    mem_budget_free(&w->budget);
    pthread_mutex_destroy(&w->lock);
}

static struct sched_stream *stream(struct user *u, struct sched_model *m, int period_ms, int deadline_ms, int priority)
{
    char name[] = {u->name, 0};
    return sched_stream_add(u->w->sched, &(struct sched_stream_options){.name = name, .model = m, .period_ns = period_ms * MS,
                                                                        .deadline_ns = deadline_ms * MS, .priority = priority,
                                                                        .capacity = 1, .ops = &ops, .user = u});
}

static void offer(struct user *u, struct sched_stream *st, int seq)
{
    sched_offer(u->w->sched, st, &(struct sched_item){.arrived_ns = world_now(u->w), .seq = (uint64_t)seq});
}

static void finish(struct world *w)
{
    while (sched_step(w->sched)) {}
}

static void earliest_deadline_goes_first(void **state)
{
    (void)state;
    struct world w;
    begin(&w, UINT64_MAX);
    struct user a = {&w, 'a', 10 * MS}, b = {&w, 'b', 10 * MS}, c = {&w, 'c', 10 * MS};
    struct sched_stream *sa = stream(&a, NULL, 100, 300, 5), *sb = stream(&b, NULL, 100, 100, 5), *sc = stream(&c, NULL, 100, 0, 5);
    offer(&a, sa, 1), offer(&b, sb, 1), offer(&c, sc, 1);
    finish(&w);
    assert_string_equal(w.log, "b1 c1 a1"); /* c has no deadline: as if due after its period */
    sched_stream_remove(w.sched, &sa), sched_stream_remove(w.sched, &sb), sched_stream_remove(w.sched, &sc);
    end(&w);
}

static void newest_frame_wins(void **state)
{
    (void)state;
    struct world w;
    begin(&w, UINT64_MAX);
    struct user a = {&w, 'a', 10 * MS};
    struct sched_stream *sa = stream(&a, NULL, 100, 100, 5);
    offer(&a, sa, 1), offer(&a, sa, 2), offer(&a, sa, 3);
    finish(&w);
    assert_string_equal(w.log, "-a1:1 -a2:1 a3");
    struct sched_stream_stats s;
    sched_stream_get_stats(w.sched, sa, &s);
    assert_int_equal(s.offered, 3);
    assert_int_equal(s.run, 1);
    assert_int_equal(s.dropped[SCHED_DROP_NEWER], 2);
    assert_int_equal(s.p50_ns, 10 * MS);
    sched_stream_remove(w.sched, &sa);
    end(&w);
}

static void what_would_be_late_is_dropped_and_probed(void **state)
{
    (void)state;
    struct world w;
    begin(&w, UINT64_MAX);
    struct user a = {&w, 'a', 50 * MS};
    struct sched_stream *sa = stream(&a, NULL, 100, 40, 5);
    offer(&a, sa, 1); /* not measured yet: it runs, and is late */
    finish(&w);
    offer(&a, sa, 2);
    finish(&w);
    assert_string_equal(w.log, "a1 -a2:2");
    w.now += 6000 * MS; /* after a while it gets another chance */
    offer(&a, sa, 3);
    finish(&w);
    assert_string_equal(w.log, "a1 -a2:2 a3");
    struct sched_stream_stats s;
    sched_stream_get_stats(w.sched, sa, &s);
    assert_int_equal(s.late, 2);
    struct sched_decision d[8];
    assert_int_equal(sched_decisions(w.sched, "a", d, 8), 3);
    assert_int_equal(d[1].outcome, SCHED_DROP_LATE);
    assert_int_equal(d[1].seq, 2);
    sched_stream_remove(w.sched, &sa);
    end(&w);
}

static void priority_saves_only_who_is_in_danger(void **state)
{
    (void)state;
    struct world w;
    begin(&w, UINT64_MAX);
    struct user a = {&w, 'a', 30 * MS}, b = {&w, 'b', 30 * MS};
    struct sched_stream *low = stream(&a, NULL, 100, 45, 1), *high = stream(&b, NULL, 100, 200, 9);
    offer(&a, low, 1), offer(&b, high, 1);
    finish(&w);
    assert_string_equal(w.log, "a1 b1"); /* both can be in time: the earlier deadline goes first */
    w.log[0] = 0;
    offer(&b, high, 2);
    w.now += 150 * MS; /* now 50 ms are left for high; low's 30 first would make it late */
    offer(&a, low, 2);
    finish(&w);
    assert_string_equal(w.log, "b2 -a2:2");
    sched_stream_remove(w.sched, &low), sched_stream_remove(w.sched, &high);
    end(&w);
}

static void removed_streams_give_back_what_waits(void **state)
{
    (void)state;
    struct world w;
    begin(&w, UINT64_MAX);
    struct user a = {&w, 'a', 1};
    struct sched_stream *sa = sched_stream_add(w.sched, &(struct sched_stream_options){.name = "a", .capacity = 3, .ops = &ops, .user = &a});
    offer(&a, sa, 1), offer(&a, sa, 2), offer(&a, sa, 3), offer(&a, sa, 4);
    sched_stream_remove(w.sched, &sa);
    assert_string_equal(w.log, "-a1:1 -a2:5 -a3:5 -a4:5");
    end(&w);
}

/* ---- residency */

enum { WEIGHT_FLOATS = 65536 };

/* y = x + w, with 256 KiB of w. */
static struct model *tiny(struct world *w, const char *name)
{
    struct mem_budget *b = w->budget;
    struct mem_payer *payer = mem_payer_new(b, "graph");
    struct graph *g = graph_new(name, 13, payer);
    struct tensor_shape s = tensor_shape_of(1, (int64_t[]){WEIGHT_FLOATS});
    int x = graph_add_value(g, "x", TENSOR_F32, &s), y = graph_add_value(g, "y", TENSOR_F32, &s), c;
    void *bytes;
    assert_int_equal(graph_add_constant(g, "w", TENSOR_F32, &s, &c, &bytes), ERR_OK);
    memset(bytes, name[0], WEIGHT_FLOATS * 4);
    g->values[x].is_input = g->values[y].is_output = true;
    g->inputs = xnewn(int, 1), g->outputs = xnewn(int, 1);
    g->inputs[0] = x, g->outputs[0] = y, g->n_inputs = g->n_outputs = 1;
    struct graph_node *n = graph_add_node(g, OP_ADD, "add", 2, 1);
    n->op.in[0] = x, n->op.in[1] = c, n->op.out[0] = y, n->op.opset = 13;
    if (!w->reader) assert_int_equal(weights_reader_new(&w->reader), ERR_OK);
    struct model *m;
    struct model_plan *p;
    assert_int_equal(model_from_graph(g, name, &(struct model_options){.budget = b, .reader = w->reader, .spill_dir = "/tmp"}, &m), ERR_OK);
    assert_int_equal(model_plan_new(m, NULL, &p), ERR_OK);
    model_plan_free(&p);
    return m;
}

struct box {
    struct world w;
    struct model *models[4];
    struct sched_model *scheduled[4];
    struct user users[4];
    struct sched_stream *streams[4];
};

static void box_begin(struct box *x, int n, int pinned)
{
    begin(&x->w, UINT64_MAX);
    for (int i = 0; i < n; i++) {
        char name[] = {(char)('a' + i), 0};
        x->models[i] = tiny(&x->w, name);
        x->scheduled[i] = sched_model_add(x->w.sched, x->models[i], i == pinned, 5);
        x->users[i] = (struct user){&x->w, name[0], 10 * MS};
        x->streams[i] = stream(&x->users[i], x->scheduled[i], 100, 0, 5);
    }
}

static struct sched_model_stats stats_of(struct box *x, int i)
{
    struct sched_model_stats s;
    sched_model_get_stats(x->w.sched, x->scheduled[i], &s);
    return s;
}

static void box_end(struct box *x, int n)
{
    for (int i = 0; i < n; i++) sched_stream_remove(x->w.sched, &x->streams[i]);
    for (int i = 0; i < n; i++) {
        sched_model_remove(x->w.sched, &x->scheduled[i]);
        struct mem_payer *payer = model_graph(x->models[i])->payer;
        model_free(&x->models[i]);
        mem_payer_free(&payer);
    }
    end(&x->w);
}

static void room_for(struct box *x, int models)
{
    mem_budget_set_limit(x->w.budget, mem_budget_used(x->w.budget) + (uint64_t)models * model_weight_bytes(x->models[0]) + 4096);
}

static void cyclic_use_does_not_thrash(void **state)
{
    (void)state;
    struct box x;
    box_begin(&x, 3, -1);
    sched_set_prefetch(x.w.sched, false); /* it trades reads for time; here the evictions alone are looked at */
    room_for(&x, 2); /* three models in turn, room for two: LRU would load at every run */
    for (int round = 1; round <= 20; round++)
        for (int i = 0; i < 3; i++) {
            offer(&x.users[i], x.streams[i], round);
            finish(&x.w);
            x.w.now += 20 * MS;
        }
    uint64_t loads = 0;
    for (int i = 0; i < 3; i++) {
        loads += stats_of(&x, i).loads;
        assert_int_equal(stats_of(&x, i).runs, 20);
    }
    assert_true(loads <= 35); /* 60 with LRU; Belady's bound for this cycle is about half */
    box_end(&x, 3);
}

static void pinned_models_stay(void **state)
{
    (void)state;
    struct box x;
    box_begin(&x, 3, 0);
    room_for(&x, 2);
    for (int round = 1; round <= 10; round++)
        for (int i = 0; i < 3; i++) {
            offer(&x.users[i], x.streams[i], round);
            finish(&x.w);
            x.w.now += 20 * MS;
        }
    assert_int_equal(stats_of(&x, 0).loads, 1);
    assert_int_equal(stats_of(&x, 0).evictions, 0);
    assert_int_equal(stats_of(&x, 2).runs, 10);
    box_end(&x, 3);
}

static void the_next_model_is_fetched_ahead(void **state)
{
    (void)state;
    struct box x;
    box_begin(&x, 2, -1);
    for (int i = 0; i < 2; i++) offer(&x.users[i], x.streams[i], 1);
    room_for(&x, 2);
    assert_true(sched_step(x.w.sched)); /* a runs, and b is read meanwhile */
    enum weights_state b = weights_state(model_weights(x.models[1]));
    assert_true(b == WEIGHTS_LOADING || b == WEIGHTS_RESIDENT);
    finish(&x.w);
    assert_string_equal(x.w.log, "a1 b1");
    box_end(&x, 2);
}

static void what_cannot_fit_says_so_and_evicts_nobody(void **state)
{
    (void)state;
    struct box x;
    box_begin(&x, 2, 0);
    room_for(&x, 1);
    for (int round = 1; round <= 3; round++)
        for (int i = 0; i < 2; i++) offer(&x.users[i], x.streams[i], round), finish(&x.w);
    struct sched_stream_stats s;
    sched_stream_get_stats(x.w.sched, x.streams[1], &s);
    assert_int_equal(s.dropped[SCHED_DROP_MEMORY], 3);
    assert_true(stats_of(&x, 1).impossible);
    assert_int_equal(stats_of(&x, 0).loads, 1);
    box_end(&x, 2);
}

/* The third is a guest: with room for two it does not run, and nobody reads again because of it; with room for three it does, and leaves nothing behind. */
static void a_guest_takes_nobodys_place(void **state)
{
    (void)state;
    struct box x;
    struct sched_stream_stats s;
    box_begin(&x, 3, -1);
    sched_model_set_guest(x.w.sched, x.scheduled[2]);
    for (int room = 2; room <= 3; room++) {
        room_for(&x, room);
        for (int round = 1; round <= 3; round++)
            for (int i = 0; i < 3; i++) {
                offer(&x.users[i], x.streams[i], round);
                finish(&x.w);
                x.w.now += 20 * MS;
            }
        sched_stream_get_stats(x.w.sched, x.streams[2], &s);
        assert_int_equal(s.dropped[SCHED_DROP_MEMORY], 3);
        assert_int_equal(s.run, room == 3 ? 3 : 0);
        assert_int_equal(stats_of(&x, 2).resident_bytes, 0);
        mem_budget_set_limit(x.w.budget, UINT64_MAX);
        for (int i = 0; i < 2; i++) assert_int_equal(model_evict(x.models[i]), ERR_OK);
    }
    for (int i = 0; i < 2; i++) assert_true(stats_of(&x, i).loads == 2 && stats_of(&x, i).evictions == 0); /* once for each room */
    assert_int_equal(stats_of(&x, 2).loads, 3);
    box_end(&x, 3);
}

static void resident_models_go_first_while_nobody_is_late(void **state)
{
    (void)state;
    struct box x;
    box_begin(&x, 2, -1);
    room_for(&x, 1);
    offer(&x.users[0], x.streams[0], 1);
    finish(&x.w);
    x.w.log[0] = 0;
    offer(&x.users[1], x.streams[1], 1); /* earlier, but its model is out, and there is time */
    x.w.now += MS;
    offer(&x.users[0], x.streams[0], 2);
    finish(&x.w);
    assert_string_equal(x.w.log, "a2 b1");
    box_end(&x, 2);
}

/* ---- frames go first */

struct grabber {
    struct box *x;
    struct mem_payer *camera;
    size_t bytes;
    err in_run;
};

/* A camera opens while the weights that fill the budget are held by this run. */
static err grab_in_run(void *user, struct sched_item *item)
{
    struct grabber *g = user;
    void *p;
    (void)item;
    g->in_run = mem_alloc(g->camera, MEM_FRAMES, g->bytes, &p);
    if (!g->in_run) mem_free(g->camera, MEM_FRAMES, p, g->bytes);
    return ERR_OK;
}

static void grabber_drop(void *user, struct sched_item *item, enum sched_drop why)
{
    (void)user, (void)item, (void)why;
}

static const struct sched_stream_ops grabber_ops = {grab_in_run, grabber_drop};

static void a_frame_evicts_weights_at_once(void **state)
{
    (void)state;
    struct box x;
    box_begin(&x, 2, -1);
    room_for(&x, 2);
    for (int i = 0; i < 2; i++) offer(&x.users[i], x.streams[i], 1), finish(&x.w);
    struct mem_payer *camera = mem_payer_new(x.w.budget, "camera"), *other = mem_payer_new(x.w.budget, "other");
    size_t bytes = 65536;
    void *p;
    assert_true(stats_of(&x, 0).resident && stats_of(&x, 1).resident);
    assert_int_equal(mem_alloc(other, MEM_OTHER, bytes, &p), ERR_NOMEM); /* only frames and decoders go before weights */
    assert_int_equal(mem_alloc(camera, MEM_FRAMES, bytes, &p), ERR_OK);
    assert_true(stats_of(&x, 0).evictions + stats_of(&x, 1).evictions >= 1);
    assert_true(mem_budget_used(x.w.budget) <= mem_budget_limit(x.w.budget));
    void *q;
    assert_int_equal(mem_alloc(camera, MEM_FRAMES, (size_t)mem_budget_limit(x.w.budget), &q), ERR_NOMEM);
    mem_free(camera, MEM_FRAMES, p, bytes);
    mem_payer_free(&camera), mem_payer_free(&other);
    box_end(&x, 2);
}

/* Somebody looks at the page: not where models could not run beside it any more. */
static void who_waits_gets_room_from_weights(void **state)
{
    (void)state;
    struct box x;
    box_begin(&x, 2, -1);
    room_for(&x, 2);
    for (int i = 0; i < 2; i++) offer(&x.users[i], x.streams[i], 1), finish(&x.w);
    struct mem_payer *other = mem_payer_new(x.w.budget, "other");
    size_t bytes = 65536, all = weights_paid_bytes(model_weights(x.models[0])) + weights_paid_bytes(model_weights(x.models[1]));
    void *p;
    assert_int_equal(mem_alloc(other, MEM_OTHER, bytes, &p), ERR_NOMEM);
    assert_false(sched_spare(x.w.sched, bytes, all));
    assert_int_equal(stats_of(&x, 0).evictions + stats_of(&x, 1).evictions, 0);
    assert_true(sched_spare(x.w.sched, bytes, all - bytes));
    assert_int_equal(stats_of(&x, 0).evictions + stats_of(&x, 1).evictions, 1);
    assert_int_equal(mem_alloc(other, MEM_OTHER, bytes, &p), ERR_OK);
    mem_free(other, MEM_OTHER, p, bytes);
    mem_payer_free(&other);
    box_end(&x, 2);
}

static void a_frame_during_a_run_comes_after_it(void **state)
{
    (void)state;
    struct box x;
    void *p;
    box_begin(&x, 1, -1);
    room_for(&x, 1);
    struct grabber g = {.x = &x, .camera = mem_payer_new(x.w.budget, "camera"), .bytes = 65536};
    struct sched_stream *st = sched_stream_add(x.w.sched, &(struct sched_stream_options){
        .name = "grab", .model = x.scheduled[0], .capacity = 1, .ops = &grabber_ops, .user = &g});
    sched_offer(x.w.sched, st, &(struct sched_item){.arrived_ns = world_now(&x.w), .seq = 1});
    finish(&x.w);
    assert_int_equal(g.in_run, ERR_NOMEM); /* refused, not waited for: the run may be waiting for the camera */
    assert_false(stats_of(&x, 0).resident); /* gone at the end of the run, because a frame is owed */
    assert_int_equal(mem_alloc(g.camera, MEM_FRAMES, g.bytes, &p), ERR_OK);
    mem_free(g.camera, MEM_FRAMES, p, g.bytes);
    sched_stream_remove(x.w.sched, &st);
    mem_payer_free(&g.camera);
    box_end(&x, 1);
}

static void *offerer(void *arg)
{
    struct box *x = arg;
    for (int i = 0; i < 3000; i++) offer(&x->users[i % 3], x->streams[i % 3], i);
    return NULL;
}

static void threads_give_everything_back_once(void **state)
{
    (void)state;
    struct box x;
    pthread_t t[2];
    box_begin(&x, 3, -1);
    room_for(&x, 2);
    assert_int_equal(sched_start(x.w.sched), ERR_OK);
    for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, offerer, &x);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    sched_stop(x.w.sched);
    box_end(&x, 3);
    assert_int_equal(x.w.given_back, 6000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(earliest_deadline_goes_first),
                                       cmocka_unit_test(newest_frame_wins),
                                       cmocka_unit_test(what_would_be_late_is_dropped_and_probed),
                                       cmocka_unit_test(priority_saves_only_who_is_in_danger),
                                       cmocka_unit_test(removed_streams_give_back_what_waits),
                                       cmocka_unit_test(cyclic_use_does_not_thrash),
                                       cmocka_unit_test(pinned_models_stay),
                                       cmocka_unit_test(the_next_model_is_fetched_ahead),
                                       cmocka_unit_test(what_cannot_fit_says_so_and_evicts_nobody),
                                       cmocka_unit_test(a_guest_takes_nobodys_place),
                                       cmocka_unit_test(resident_models_go_first_while_nobody_is_late),
                                       cmocka_unit_test(who_waits_gets_room_from_weights),
                                       cmocka_unit_test(a_frame_evicts_weights_at_once),
                                       cmocka_unit_test(a_frame_during_a_run_comes_after_it),
                                       cmocka_unit_test(threads_give_everything_back_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
