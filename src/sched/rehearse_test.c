/* Rehearsals: the scheduler in a time of its own, against cases computed by hand and against what must hold of any of them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/import.h"
#include "sched/rehearse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDE = 256, LAYER = SIDE * SIDE * 4, MOST = 6 };
static const int64_t MS = 1000000;
static const double SPEED = 262144e3; /* a layer in a millisecond */

struct world;
struct query {
    struct world *w;
    struct model *model;
    struct model_plan *plan;
    struct sched_model *sm;
    struct sched_stream *st;
    int64_t step_ns[8], at_ns[1000];
    int run, late, dropped;
    int64_t last_ns; /* latency */
};

struct world {
    char *dir;
    struct weights_store *store;
    struct mem_budget *budget;
    struct mem_payer *payer, *window;
    struct weights_reader *reader;
    struct sched_rehearsal *rehearsal;
    struct sched *sched;
    struct query q[MOST];
    int n;
};

static void open_world(struct world *w)
{
    memset(w, 0, sizeof *w);
    w->dir = xstrdup("/tmp/brim-rehearse-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    char *store = xasprintf("%s/store", w->dir);
    assert_int_equal(weights_store_open(store, NULL, &w->store), ERR_OK);
    free(store);
    w->budget = mem_budget_new("host", UINT64_MAX);
    w->payer = mem_payer_new(w->budget, "test");
    w->window = mem_payer_new(w->budget, "window");
    assert_int_equal(weights_reader_new(&w->reader), ERR_OK);
}

/* SIDE x SIDE products, one for each letter: equal letters, equal numbers. */
static void save_model(struct world *w, const char *layers, const char *path)
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
        for (int k = 0; k < SIDE * SIDE; k++) ((float *)p)[k] = (float)(hash64(&k, sizeof k, (uint64_t)layers[i]) >> 40) / 16777216.0f / SIDE;
        int out = graph_add_value(g, name[1], TENSOR_F32, &x);
        struct graph_node *n = graph_add_node(g, OP_GEMM, "", 2, 1);
        n->op.in[0] = value;
        n->op.in[1] = weight;
        n->op.out[0] = value = out;
    }
    graph_add_output(g, value);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
}

/* Each layer takes a millisecond. */
static struct query *add_model(struct world *w, const char *layers)
{
    struct query *q = &w->q[w->n++];
    struct model_import_report r;
    struct model_options o = {.budget = w->budget, .threads = 1, .reader = w->reader, .spill_dir = w->dir};
    char *path = xasprintf("%s/%s.onnx", w->dir, layers);
    *q = (struct query){.w = w};
    for (int i = 0; i < 8; i++) q->step_ns[i] = MS;
    save_model(w, layers, path);
    err e = model_import(w->store, path, layers, w->payer, &r);
    if (!e) e = model_open_stored(w->store, layers, layers, &o, &q->model);
    if (!e) e = model_plan_new(q->model, NULL, &q->plan);
    if (!e) e = model_plan_reserve(q->plan);
    if (e) fail_msg("%s", err_text());
    assert_int_equal(model_plan_sizes(q->plan).steps, strlen(layers));
    free(path);
    return q;
}

static void close_world(struct world *w)
{
    for (int i = 0; i < w->n; i++) {
        model_plan_free(&w->q[i].plan);
        model_free(&w->q[i].model);
    }
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

/* ---- one rehearsal of all models */

static err run(void *user, struct sched_item *item)
{
    struct query *q = user;
    err e = model_plan_rehearse(q->plan, q->step_ns, sched_rehearsal_clock(q->w->rehearsal));
    q->last_ns = sched_rehearsal_now(q->w->rehearsal) - item->arrived_ns;
    q->run++;
    return e;
}

static void drop(void *user, struct sched_item *item, enum sched_drop why)
{
    struct query *q = user;
    (void)item;
    q->dropped += why != SCHED_DROP_CLOSED;
}

struct plan {
    int layers;            /* room for so many; 0: no limit */
    bool blind, blocks;
    int period_ms, deadline_ms, frames;
};
struct outcome {
    int offered, run, late, dropped;
    uint64_t bytes;
};

static struct outcome rehearse(struct world *w, const struct plan *p)
{
    static const struct sched_stream_ops ops = {run, drop};
    struct outcome x = {0};
    w->rehearsal = sched_rehearsal_new(w->reader, SPEED);
    uint64_t before = weights_reader_stats(w->reader).bytes;
    mem_budget_set_limit(w->budget, p->layers ? mem_budget_used(w->budget) + (uint64_t)p->layers * LAYER + LAYER / 2 : UINT64_MAX);
    assert_int_equal(sched_new(w->budget, sched_rehearsal_now, w->rehearsal, &w->sched), ERR_OK);
    sched_set_sharing(w->sched, !p->blind);
    for (int i = 0; i < w->n; i++) {
        struct query *q = &w->q[i];
        q->run = q->late = q->dropped = 0;
        q->sm = sched_model_add(w->sched, q->model, false, 0);
        sched_model_set_run_ns(w->sched, q->sm, model_plan_sizes(q->plan).steps * MS);
        if (p->blocks) sched_model_set_plans(w->sched, q->sm, q->plan, NULL);
        model_plan_set_step_ns(q->plan, q->step_ns);
        q->st = sched_stream_add(w->sched, &(struct sched_stream_options){.name = "s", .model = q->sm, .period_ns = p->period_ms * MS, .deadline_ns = p->deadline_ms * MS,
                                                                          .capacity = 1, .ops = &ops, .user = q});
        for (int k = 0; k < p->frames; k++) q->at_ns[k] = (i + 1) * p->period_ms * MS / w->n + k * p->period_ms * MS;
        sched_rehearsal_feed(w->rehearsal, q->st, q->at_ns, (size_t)p->frames);
    }
    if (p->blocks) sched_set_blocks(w->sched, w->window, w->reader, 0);
    sched_rehearse(w->rehearsal, w->sched, (int64_t)p->period_ms * (p->frames + 2) * MS + p->deadline_ms * MS);
    for (int i = 0; i < w->n; i++) {
        struct sched_stream_stats st;
        sched_stream_get_stats(w->sched, w->q[i].st, &st);
        assert_int_equal(st.offered, p->frames);
        assert_int_equal(st.run, w->q[i].run);
        assert_int_equal(w->q[i].run + w->q[i].dropped, p->frames);
        x.offered += p->frames, x.run += w->q[i].run, x.late += (int)st.late, x.dropped += w->q[i].dropped;
        sched_stream_remove(w->sched, &w->q[i].st);
        sched_model_remove(w->sched, &w->q[i].sm);
    }
    sched_free(&w->sched);
    for (int i = 0; i < w->n; i++) {
        model_set_ring(w->q[i].model, NULL);
        assert_int_equal(model_evict(w->q[i].model), ERR_OK);
        assert_int_equal(weights_set_keep(model_weights(w->q[i].model), NULL), ERR_OK);
    }
    x.bytes = weights_reader_stats(w->reader).bytes - before;
    sched_rehearsal_free(&w->rehearsal);
    mem_budget_set_limit(w->budget, UINT64_MAX);
    return x;
}

/* ---- tests */

/* Four layers: four milliseconds to read, four to run. The first frame waits for the read, later ones do not. */
static void by_hand(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    struct query *q = add_model(&w, "abcd");
    size_t bytes = weights_bytes(model_weights(q->model));
    assert_int_equal(bytes, 4 * LAYER);
    struct outcome x = rehearse(&w, &(struct plan){.period_ms = 20, .deadline_ms = 15, .frames = 1});
    assert_int_equal(x.run, 1);
    assert_int_equal(q->last_ns, 4 * MS + 4 * MS);
    x = rehearse(&w, &(struct plan){.period_ms = 20, .deadline_ms = 15, .frames = 50});
    assert_int_equal(x.run, 50);
    assert_int_equal(q->last_ns, 4 * MS);
    assert_int_equal(x.bytes, bytes);
    close_world(&w);
}

/* Two families of two (T U V and X Y Z in common) and a stranger. */
static void open_families(struct world *w)
{
    static const char *const models[] = {"TUVa", "XYZb", "TUVc", "XYZd", "efgh"};
    open_world(w);
    for (size_t i = 0; i < ARRAY_LEN(models); i++) add_model(w, models[i]);
}

static void all_fits(void **state)
{
    (void)state;
    struct world w;
    open_families(&w);
    struct outcome x = rehearse(&w, &(struct plan){.period_ms = 40, .deadline_ms = 35, .frames = 100}); /* half of the time is asked for */
    assert_int_equal(x.offered, 500);
    assert_int_equal(x.run, 500);
    assert_int_equal(x.late, 0);
    assert_int_equal(x.bytes, (3 + 3 + 4 * 1 + 4) * LAYER); /* each layer once, however many models have it */
    close_world(&w);
}

static void same_again(void **state)
{
    (void)state;
    struct world w;
    open_families(&w);
    for (int i = 0; i < 4; i++) {
        struct plan p = {.layers = 6, .blind = i & 1, .blocks = i & 2, .period_ms = 45, .deadline_ms = 60, .frames = 60};
        struct outcome a = rehearse(&w, &p), b = rehearse(&w, &p);
        assert_memory_equal(&a, &b, sizeof a);
    }
    close_world(&w);
}

static int in_time(const struct outcome *x)
{
    return x->run - x->late;
}

/* From the largest model alone to all of them, each with and without knowing what they share. */
static void more_memory(void **state)
{
    (void)state;
    struct world w;
    int best[2] = {0};
    double bytes[2] = {0}; /* for each frame in time, summed over the sizes */
    open_families(&w);
    for (int layers = 4; layers <= 14; layers++) {
        struct outcome x[2];
        for (int blind = 0; blind < 2; blind++) {
            x[blind] = rehearse(&w, &(struct plan){.layers = layers, .blind = blind, .period_ms = 30, .deadline_ms = 45, .frames = 200});
            assert_true(in_time(&x[blind]) >= best[blind] - x[blind].offered / 25);
            best[blind] = MAX(best[blind], in_time(&x[blind]));
        }
        print_message("# room for %2d layers: %4d of %d in time, %6.1f layers read; blind %4d, %6.1f\n", layers, in_time(&x[0]), x[0].offered,
                      (double)x[0].bytes / LAYER, in_time(&x[1]), (double)x[1].bytes / LAYER);
        for (int blind = 0; blind < 2; blind++) bytes[blind] += (double)x[blind].bytes / in_time(&x[blind]);
        assert_true(in_time(&x[0]) >= in_time(&x[1]) - x[0].offered / 25);
    }
    assert_true(bytes[1] >= bytes[0]);
    assert_int_equal(best[0], 1000);
    close_world(&w);
}

/* Far too many frames, whole models and blocks: newer frames take the place of those that wait, but not the turn of their streams, also where
 * another model's weights happen to be there. */
static void nobody_starves(void **state)
{
    (void)state;
    struct world w;
    open_families(&w);
    for (int layers = 6; layers <= 12; layers++)
        for (int k = 0; k < 2; k++) {
            int least = 500, sum = 0;
            rehearse(&w, &(struct plan){.layers = layers, .blocks = k, .period_ms = 12, .deadline_ms = 80, .frames = 500});
            for (int i = 0; i < w.n; i++) least = MIN(least, w.q[i].run), sum += w.q[i].run;
            print_message("# room for %2d layers%s: least %d, mean %d\n", layers, k ? ", blocks" : "", least, sum / w.n);
            assert_true(least >= 500 * 12 / (80 + 5 * 8)); /* a turn comes within a deadline, and one run and load of everybody */
        }
    close_world(&w);
}

/* Six layers in room for five: with blocks, every run reads the two or three that do not stay, and no more. */
static void blocks(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    struct query *q = add_model(&w, "abcdef");
    struct outcome x = rehearse(&w, &(struct plan){.layers = 5, .blocks = true, .period_ms = 20, .deadline_ms = 18, .frames = 50});
    print_message("# %d runs, %.1f layers read, the last run took %.1f ms\n", x.run, (double)x.bytes / LAYER, (double)q->last_ns / 1e6);
    assert_int_equal(x.run, 50);
    assert_int_equal(x.late, 0);
    assert_int_equal(x.bytes % LAYER, 0);
    assert_in_range(x.bytes / LAYER, 3 + 2 * 50, 6 + 3 * 52);
    assert_int_equal(q->last_ns, 6 * MS); /* 14 ms between runs are enough to fill the window again */
    x = rehearse(&w, &(struct plan){.layers = 5, .period_ms = 20, .deadline_ms = 18, .frames = 50});
    assert_int_equal(x.run, 0); /* whole, it never fits */
    close_world(&w);
}

/* What was "read" in a rehearsal is no number of a model. */
static void real_runs_after(void **state)
{
    (void)state;
    struct world w;
    float first[SIDE];
    open_world(&w);
    struct query *q = add_model(&w, "abcd");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(model_request(q->model), ERR_OK);
        assert_int_equal(model_wait(q->model), ERR_OK);
        struct tensor in = model_plan_input(q->plan, 0), out;
        for (int k = 0; k < SIDE; k++) ((float *)in.data)[k] = (float)k;
        assert_int_equal(model_plan_run(q->plan, NULL), ERR_OK);
        out = model_plan_output(q->plan, 0);
        if (i) assert_memory_equal(out.data, first, sizeof first);
        else memcpy(first, out.data, sizeof first);
        assert_true(first[0] > 0);
        model_release(q->model);
        assert_int_equal(model_evict(q->model), ERR_OK);
        for (int k = 0; k < 2 && !i; k++) rehearse(&w, &(struct plan){.layers = 5, .blocks = k, .period_ms = 20, .deadline_ms = 18, .frames = 20});
    }
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_hand), cmocka_unit_test(all_fits), cmocka_unit_test(same_again), cmocka_unit_test(more_memory), cmocka_unit_test(nobody_starves),
                                       cmocka_unit_test(blocks), cmocka_unit_test(real_runs_after)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
