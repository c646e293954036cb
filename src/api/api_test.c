/* The C API through its header alone: what people do, what they do wrong, budgets that end anywhere, and threads.
 *
 * The model is made here: a 3x3 convolution with symbolic batch and sides, Relu, mean over the picture. The
 * expected numbers are computed here as well, in double precision. SPDX-License-Identifier: Apache-2.0 */
#include "api/inside.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { SIDE = 8, IN = 3, OUT = 16 };

static float weight(int o, int c, int y, int x)
{
    return (float)((o * 7 + c * 5 + y * 3 + x) % 11 - 5) / 16;
}

static float pixel(int n, int c, int y, int x)
{
    return (float)((n * 31 + c * 17 + y * 5 + x * 3) % 13 - 6) / 8;
}

/* [n, IN, side, side] -> [n, OUT, 1, 1] in doubles. */
static void expect(int n, int side, float *ret)
{
    for (int b = 0; b < n; b++)
        for (int o = 0; o < OUT; o++) {
            double mean = 0;
            for (int y = 0; y < side; y++)
                for (int x = 0; x < side; x++) {
                    double sum = 0;
                    for (int c = 0; c < IN; c++)
                        for (int j = -1; j <= 1; j++)
                            for (int i = -1; i <= 1; i++)
                                if (y + j >= 0 && y + j < side && x + i >= 0 && x + i < side)
                                    sum += weight(o, c, j + 1, i + 1) * pixel(b, c, y + j, x + i);
                    mean += fmax(sum, 0);
                }
            ret[b * OUT + o] = (float)(mean / (side * side));
        }
}

/* The model, written by the graph room: its bytes, and a file of them. */
static char *net_path(void **bytes, size_t *n)
{
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(b, "graph");
    struct graph *g = graph_new("net", 13, payer);
    static const char *const names[] = {"batch", "height", "width"};
    g->n_symbols = 3;
    g->symbols = xnewn(char *, 3);
    for (int i = 0; i < 3; i++)
        g->symbols[i] = xstrdup(names[i]);
    struct tensor_shape in = {.rank = 4, .dims = {TENSOR_SYMBOL(0), IN, TENSOR_SYMBOL(1), TENSOR_SYMBOL(2)}},
                        w = {.rank = 4, .dims = {OUT, IN, 3, 3}};
    float *f;
    int x = graph_add_input(g, "x", TENSOR_F32, &in), wv;
    assert_int_equal(graph_add_constant(g, "w", TENSOR_F32, &w, &wv, (void **)&f), ERR_OK);
    for (int o = 0; o < OUT; o++)
        for (int c = 0; c < IN; c++)
            for (int j = 0; j < 9; j++)
                *f++ = weight(o, c, j / 3, j % 3);
    int y = graph_add_value(g, "conv", TENSOR_NONE, NULL), z = graph_add_value(g, "relu", TENSOR_NONE, NULL),
        v = graph_add_value(g, "mean", TENSOR_NONE, NULL);
    struct graph_node *node = graph_add_node(g, OP_CONV, "conv", 2, 1);
    node->op.in[0] = x, node->op.in[1] = wv, node->op.out[0] = y;
    graph_set_ints(node, "pads", (int64_t[]){1, 1, 1, 1}, 4);
    node = graph_add_node(g, OP_RELU, "relu", 1, 1);
    node->op.in[0] = y, node->op.out[0] = z;
    node = graph_add_node(g, OP_GLOBAL_AVERAGE_POOL, "mean", 1, 1);
    node->op.in[0] = z, node->op.out[0] = v;
    graph_add_output(g, v);
    assert_int_equal(graph_write(g, bytes, n), ERR_OK);
    char *path = xstrdup("/tmp/brim-api-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, *bytes, *n), (ssize_t)*n);
    close(fd);
    graph_free(&g);
    mem_payer_free(&payer);
    mem_budget_free(&b);
    return path;
}

struct world {
    char *path;
    void *bytes;
    size_t n;
};

static int set_up(void **state)
{
    struct world *w = xnew(struct world);
    w->path = net_path(&w->bytes, &w->n);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    unlink(w->path);
    free(w->path);
    free(w->bytes);
    free(w);
    return 0;
}

static brim_shape shape4(int n, int side)
{
    return (brim_shape){4, {n, IN, side, side}};
}

static float *picture(int n, int side)
{
    float *p = xnewn(float, (size_t)n *IN *(size_t)side *(size_t)side), *q = p;
    for (int b = 0; b < n; b++)
        for (int c = 0; c < IN; c++)
            for (int y = 0; y < side; y++)
                for (int x = 0; x < side; x++)
                    *q++ = pixel(b, c, y, x);
    return p;
}

static brim_tensor row_major(void *data, int n, int side)
{
    brim_tensor t = BRIM_TENSOR_INIT;
    t.dtype = BRIM_F32;
    t.rank = 4;
    t.shape[0] = n, t.shape[1] = IN, t.shape[2] = t.shape[3] = side;
    t.data = data;
    return t;
}

static void close_enough(const float *got, int n, int side)
{
    float *want = xnewn(float, (size_t)n *OUT);
    expect(n, side, want);
    for (int i = 0; i < n * OUT; i++)
        if (!(fabsf(got[i] - want[i]) < 1e-5f)) fail_msg("number %d is %g, not %g", i, got[i], want[i]);
    free(want);
}

/* ---- what people do */

static void runs_row_major_and_through_views(void **state)
{
    struct world *w = *state;
    brim_model *m = NULL;
    brim_plan *p = NULL;
    brim_shape s = shape4(2, SIDE);
    float *x = picture(2, SIDE), y[2 * OUT];
    assert_int_equal(brim_model_open(w->path, NULL, &m), BRIM_OK);
    assert_int_equal(brim_plan_new(m, &s, &p), BRIM_OK);
    brim_tensor in = row_major(x, 2, SIDE), out = BRIM_TENSOR_INIT, view = BRIM_TENSOR_INIT;
    out.data = y, out.bytes = sizeof y;
    assert_int_equal(brim_run(p, &in, 1, &out, 1), BRIM_OK);
    close_enough(y, 2, SIDE);
    assert_true(out.rank == 4 && out.shape[0] == 2 && out.shape[1] == OUT && out.shape[2] == 1 &&
                out.bytes == sizeof y);
    assert_true(out.dtype == BRIM_F32 && out.strides[0] == OUT * 4);

    assert_int_equal(brim_plan_input(p, 0, &view), BRIM_OK); /* the same through views */
    for (int b = 0; b < 2; b++)
        for (int c = 0; c < IN; c++)
            for (int r = 0; r < SIDE; r++)
                for (int k = 0; k < SIDE; k++)
                    *(float *)((char *)view.data + b * view.strides[0] + c * view.strides[1] + r * view.strides[2] +
                               k * view.strides[3]) = pixel(b, c, r, k);
    assert_int_equal(brim_run(p, NULL, 0, NULL, 0), BRIM_OK);
    assert_int_equal(brim_plan_output(p, 0, &view), BRIM_OK);
    for (int b = 0; b < 2; b++)
        for (int o = 0; o < OUT; o++)
            y[b * OUT + o] = *(float *)((char *)view.data + b * view.strides[0] + o * view.strides[1]);
    close_enough(y, 2, SIDE);

    float *last = xnewn(float, 2 * IN * SIDE * SIDE); /* and from channels-last bytes */
    in.data = last;
    in.strides[1] = 4, in.strides[3] = IN * 4, in.strides[2] = SIDE * IN * 4, in.strides[0] = SIDE * SIDE * IN * 4;
    for (int i = 0; i < 2 * IN * SIDE * SIDE; i++) {
        int k = i % SIDE, r = i / SIDE % SIDE, c = i / SIDE / SIDE % IN, b = i / SIDE / SIDE / IN;
        last[((b * SIDE + r) * SIDE + k) * IN + c] = x[i];
    }
    out = (brim_tensor)BRIM_TENSOR_INIT;
    assert_int_equal(brim_run(p, &in, 1, &out, 1), BRIM_OK);
    assert_ptr_equal(out.data, view.data); /* data was NULL: a view came back */
    free(last);
    brim_model_free(&m); /* the plan keeps it alive */
    assert_int_equal(brim_run(p, NULL, 0, NULL, 0), BRIM_OK);
    brim_plan_free(&p);
    brim_plan_free(&p);
    free(x);
}

static void says_what_goes_in_and_out(void **state)
{
    struct world *w = *state;
    brim_model *m = NULL;
    brim_io io = BRIM_IO_INIT;
    assert_int_equal(brim_model_open_bytes(w->bytes, w->n, NULL, &m), BRIM_OK);
    assert_int_equal(brim_model_input_count(m), 1);
    assert_int_equal(brim_model_output_count(m), 1);
    assert_int_equal(brim_model_input(m, 0, &io), BRIM_OK);
    assert_string_equal(io.name, "x");
    assert_true(io.dtype == BRIM_F32 && io.rank == 4 && io.shape[0] == -1 && io.shape[1] == IN && !io.symbol[1]);
    assert_string_equal(io.symbol[0], "batch");
    assert_string_equal(io.symbol[3], "width");
    assert_int_equal(brim_model_output(m, 0, &io), BRIM_OK);
    assert_string_equal(io.name, "mean");
    assert_int_equal(brim_model_output(m, 1, &io), BRIM_ERR_USAGE);
    io.size = 8;
    assert_int_equal(brim_model_output(m, 0, &io), BRIM_ERR_USAGE);
    assert_string_equal(brim_version(), "0.1.0");
    assert_string_equal(brim_dtype_name(BRIM_I64), "int64");
    assert_true(brim_dtype_size(BRIM_BF16) == 2);
    brim_model_free(&m);
}

static void keeps_plans_by_shape(void **state)
{
    struct world *w = *state;
    brim_model *m = NULL;
    brim_plan *a = NULL, *b = NULL, *again = NULL;
    brim_model_options o = BRIM_MODEL_OPTIONS_INIT;
    brim_budget *budget = NULL;
    brim_shape one = shape4(1, SIDE), two = shape4(2, 12);
    assert_int_equal(brim_budget_new(NULL, &budget), BRIM_OK);
    o.budget = budget;
    o.max_idle_plans = 1;
    assert_int_equal(brim_model_open(w->path, &o, &m), BRIM_OK);
    assert_int_equal(brim_plan_new(m, &one, &a), BRIM_OK);
    assert_int_equal(brim_plan_new(m, &two, &b), BRIM_OK);
    assert_int_equal(brim_plan_new(m, &one, &again), BRIM_OK);
    assert_ptr_equal(a, again);
    brim_plan_free(&again);
    uint64_t both = brim_budget_used(budget);
    brim_plan_free(&a);
    assert_true(brim_budget_used(budget) == both); /* idle, and kept */
    brim_plan_free(&b);
    assert_true(brim_budget_used(budget) < both); /* one idle plan may stay: the older went */
    assert_int_equal(brim_plan_new(m, &two, &b), BRIM_OK);
    brim_plan_free(&b);
    brim_model_free(&m);
    assert_true(brim_budget_used(budget) == 0);
    brim_budget_free(&budget);
}

static void explains_itself(void **state)
{
    struct world *w = *state;
    brim_model *m = NULL;
    brim_plan *p = NULL;
    brim_memory mem = BRIM_MEMORY_INIT;
    brim_shape s = shape4(1, SIDE);
    char *text = NULL;
    assert_int_equal(brim_model_open(w->path, NULL, &m), BRIM_OK);
    assert_int_equal(brim_plan_new(m, &s, &p), BRIM_OK);
    assert_int_equal(brim_plan_explain(p, 0, &text), BRIM_OK);
    assert_non_null(strstr(text, "Conv"));
    brim_text_free(&text);
    assert_null(text);
    assert_int_equal(brim_plan_explain(p, 1, &text), BRIM_OK);
    json_error_t je;
    json_t *j = json_loads(text, 0, &je);
    assert_non_null(j);
    assert_true(json_array_size(json_object_get(j, "steps")) > 0);
    json_decref(j);
    brim_text_free(&text);
    assert_int_equal(brim_plan_memory(p, &mem), BRIM_OK);
    assert_true(mem.weights >= OUT * IN * 9 * 4 && mem.activations >= mem.activations_lower_bound && mem.flops > 0 &&
                mem.kernels > 0);
    brim_plan_free(&p);
    brim_model_free(&m);
}

/* ---- what people do wrong */

static void wrong_calls_are_answers(void **state)
{
    struct world *w = *state;
    brim_model *m = NULL;
    brim_plan *p = NULL;
    brim_shape s = shape4(1, SIDE), bad = {9, {0}}, other = {2, {3, 3}};
    float x[IN * SIDE * SIDE] = {0}, y[OUT];
    assert_int_equal(brim_model_open("/nonexistent.onnx", NULL, &m), BRIM_ERR_IO);
    assert_non_null(strstr(brim_error_text(), "nonexistent"));
    assert_null(m);
    assert_int_equal(brim_model_open_bytes("not a model", 11, NULL, &m), BRIM_ERR_FORMAT);
    assert_int_equal(brim_model_open_bytes(w->bytes, w->n / 2, NULL, &m), BRIM_ERR_FORMAT);
    assert_int_equal(brim_model_open_bytes(NULL, 0, NULL, &m), BRIM_ERR_FORMAT);
    assert_int_equal(brim_model_open(NULL, NULL, &m), BRIM_ERR_USAGE);
    brim_model_options o = BRIM_MODEL_OPTIONS_INIT;
    o.size = 4;
    assert_int_equal(brim_model_open(w->path, &o, &m), BRIM_ERR_USAGE);
    o.size = sizeof o, o.precision = (brim_precision)9;
    assert_int_equal(brim_model_open(w->path, &o, &m), BRIM_ERR_USAGE);
    assert_int_equal(brim_model_open(w->path, NULL, &m), BRIM_OK);
    assert_int_equal(brim_plan_new(m, &bad, &p), BRIM_ERR_SHAPE);
    assert_int_equal(brim_plan_new(m, &other, &p), BRIM_ERR_SHAPE);
    s.dims[2] = INT64_MAX / 2;
    assert_true(brim_plan_new(m, &s, &p) != BRIM_OK);
    s.dims[2] = SIDE;
    assert_int_equal(brim_plan_new(m, NULL, &p), BRIM_ERR_SHAPE); /* height and width were not chosen */
    assert_non_null(strstr(brim_error_text(), "height"));
    assert_null(p);
    assert_int_equal(brim_plan_new(m, &s, &p), BRIM_OK);
    brim_tensor in = row_major(x, 1, SIDE), out = BRIM_TENSOR_INIT;
    out.data = y, out.bytes = sizeof y - 1;
    assert_int_equal(brim_run(p, &in, 1, &out, 1), BRIM_ERR_LIMIT);
    out.bytes = sizeof y;
    in.dtype = BRIM_U8;
    assert_int_equal(brim_run(p, &in, 1, &out, 1), BRIM_ERR_SHAPE);
    in.dtype = BRIM_F32, in.shape[3]++;
    assert_int_equal(brim_run(p, &in, 1, &out, 1), BRIM_ERR_SHAPE);
    in.shape[3]--, in.strides[3] = 2;
    assert_int_equal(brim_run(p, &in, 1, &out, 1), BRIM_ERR_SHAPE);
    in.strides[3] = 0, in.bytes = sizeof x - 4;
    assert_int_equal(brim_run(p, &in, 1, &out, 1), BRIM_ERR_LIMIT);
    in.bytes = sizeof x;
    assert_int_equal(brim_run(p, &in, 2, &out, 1), BRIM_ERR_USAGE);
    assert_int_equal(brim_run(p, &in, 1, &out, 2), BRIM_ERR_USAGE);
    assert_int_equal(brim_run(p, &in, 1, &out, 1), BRIM_OK);
    brim_plan_free(&p);
    brim_model_free(&m);
}

/* A program that was built for another version of the library: its structs are shorter or longer. */
static void takes_structs_of_other_versions(void **state)
{
    struct world *w = *state;
    brim_model *m = NULL;
    struct {
        brim_model_options o;
        uint64_t newer;
    } longer = {.o = BRIM_MODEL_OPTIONS_INIT};
    longer.o.size = sizeof longer;
    assert_int_equal(brim_model_open(w->path, &longer.o, &m), BRIM_OK);
    brim_io io = BRIM_IO_INIT;
    io.size = offsetof(brim_io, symbol);
    io.symbol[0] = "untouched";
    assert_int_equal(brim_model_input(m, 0, &io), BRIM_OK);
    assert_true(io.size == offsetof(brim_io, symbol) && io.rank == 4);
    assert_string_equal(io.symbol[0], "untouched");
    brim_model_free(&m);
    longer.newer = 1;
    assert_int_equal(brim_model_open(w->path, &longer.o, &m), BRIM_ERR_USAGE);
    longer.o.size = offsetof(brim_model_options, precision);
    longer.o.precision = (brim_precision)99; /* beyond what it says it has */
    assert_int_equal(brim_model_open(w->path, &longer.o, &m), BRIM_OK);
    brim_model_free(&m);
}

/* Every budgeted allocation fails once; everything is given back, and the next try works. */
static void survives_every_failed_allocation(void **state)
{
    struct world *w = *state;
    brim_budget *budget = NULL;
    brim_model_options o = BRIM_MODEL_OPTIONS_INIT;
    brim_shape one = shape4(1, SIDE), two = shape4(2, 12);
    float *x = picture(2, 12), y[2 * OUT];
    brim_tensor in = row_major(x, 2, 12), out = BRIM_TENSOR_INIT;
    out.data = y, out.bytes = sizeof y;
    bool done = false;
    assert_int_equal(brim_budget_new(NULL, &budget), BRIM_OK);
    o.budget = budget;
    for (uint64_t n = 1; !done; n++) {
        brim_model *m = NULL;
        brim_plan *p = NULL, *q = NULL;
        mem_fault_at(budget->bytes, n);
        brim_err e = brim_model_open(w->path, &o, &m);
        if (!e) e = brim_plan_new(m, &one, &p);
        if (!e) e = brim_plan_new(m, &two, &q);
        done = mem_fault_calls(budget->bytes) < n;
        mem_fault_at(budget->bytes, 0);
        if (e && e != BRIM_ERR_NOMEM) fail_msg("allocation %d: %s", (int)n, brim_error_text());
        if (m && !q) assert_int_equal(brim_plan_new(m, &two, &q), BRIM_OK);
        if (q) {
            assert_int_equal(brim_run(q, &in, 1, &out, 1), BRIM_OK);
            close_enough(y, 2, 12);
        }
        brim_plan_free(&p);
        brim_plan_free(&q);
        brim_model_free(&m);
        assert_true(brim_budget_used(budget) == 0);
    }
    brim_budget_free(&budget);
    free(x);
}

/* Idle plans make room; what can never fit is refused, and the limit holds. */
static void idle_plans_make_room(void **state)
{
    struct world *w = *state;
    brim_budget *budget = NULL;
    brim_budget_options bo = BRIM_BUDGET_OPTIONS_INIT;
    brim_model_options o = BRIM_MODEL_OPTIONS_INIT;
    brim_model *m = NULL;
    brim_plan *p = NULL;
    int planned = 0;
    bo.bytes = 2 << 20;
    assert_int_equal(brim_budget_new(&bo, &budget), BRIM_OK);
    o.budget = budget;
    o.max_idle_plans = 100;
    assert_int_equal(brim_model_open(w->path, &o, &m), BRIM_OK);
    for (int side = 8; side < 72; side += 4) {
        brim_shape s = shape4(1, side);
        brim_err e = brim_plan_new(m, &s, &p);
        if (e) fail_msg("side %d: %s", side, brim_error_text());
        brim_plan_free(&p);
        planned++;
    }
    brim_shape huge = shape4(64, 512);
    assert_int_equal(brim_plan_new(m, &huge, &p), BRIM_ERR_NOMEM);
    assert_true(planned == 16 && brim_budget_peak(budget) <= bo.bytes && brim_budget_limit(budget) == bo.bytes);
    brim_model_free(&m);
    brim_budget_free(&budget);
}

/* ---- threads */

struct worker {
    pthread_t thread;
    brim_model *m;
    const float *x;
    int side;
    const char *wrong;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    brim_shape s = shape4(2, w->side);
    float y[2 * OUT], want[2 * OUT];
    expect(2, w->side, want);
    for (int i = 0; i < 30 && !w->wrong; i++) {
        brim_plan *p = NULL;
        brim_tensor in = row_major((void *)(uintptr_t)w->x, 2, w->side), out = BRIM_TENSOR_INIT;
        out.data = y, out.bytes = sizeof y;
        if (brim_plan_new(w->m, &s, &p) || brim_run(p, &in, 1, &out, 1)) w->wrong = brim_error_text();
        for (int k = 0; k < 2 * OUT && !w->wrong; k++)
            if (!(fabsf(y[k] - want[k]) < 1e-5f)) w->wrong = "other numbers";
        brim_plan_free(&p);
    }
    return NULL;
}

/* Two models under one budget of two threads, four callers: two share a model, and its plans come and go. */
static void many_threads_at_once(void **state)
{
    struct world *w = *state;
    brim_budget *budget = NULL;
    brim_budget_options bo = BRIM_BUDGET_OPTIONS_INIT;
    brim_model_options o = BRIM_MODEL_OPTIONS_INIT;
    brim_model *m[2] = {NULL};
    struct worker workers[4];
    bo.threads = 2;
    assert_int_equal(brim_budget_new(&bo, &budget), BRIM_OK);
    o.budget = budget;
    o.max_idle_plans = -1;
    for (int i = 0; i < 2; i++)
        assert_int_equal(brim_model_open_bytes(w->bytes, w->n, &o, &m[i]), BRIM_OK);
    for (int i = 0; i < 4; i++) {
        workers[i] = (struct worker){.m = m[i % 2], .side = i < 2 ? SIDE : 12};
        workers[i].x = picture(2, workers[i].side);
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(workers[i].thread, NULL);
        if (workers[i].wrong) fail_msg("thread %d: %s", i, workers[i].wrong);
        free((void *)(uintptr_t)workers[i].x);
    }
    assert_int_equal(budget->busy, 0);
    for (int i = 0; i < 2; i++)
        brim_model_free(&m[i]);
    brim_budget_free(&budget);
}

struct gate_caller {
    pthread_t thread;
    brim_budget *b;
    int n;
    atomic_int *now, *most;
};

static void *pass(void *arg)
{
    struct gate_caller *c = arg;
    for (int i = 0; i < 500; i++) {
        api_gate_enter(c->b, c->n);
        int now = atomic_fetch_add(c->now, c->n) + c->n, most = atomic_load(c->most);
        while (now > most && !atomic_compare_exchange_weak(c->most, &most, now)) {
        }
        atomic_fetch_sub(c->now, c->n);
        api_gate_leave(c->b, c->n);
    }
    return NULL;
}

static void the_gate_holds(void **state)
{
    (void)state;
    brim_budget *b = NULL;
    brim_budget_options bo = BRIM_BUDGET_OPTIONS_INIT;
    struct gate_caller c[6];
    atomic_int now = 0, most = 0;
    bo.threads = 3;
    assert_int_equal(brim_budget_new(&bo, &b), BRIM_OK);
    for (int i = 0; i < 6; i++) {
        c[i] = (struct gate_caller){.b = b, .n = 1 + i % 3, .now = &now, .most = &most};
        pthread_create(&c[i].thread, NULL, pass, &c[i]);
    }
    for (int i = 0; i < 6; i++)
        pthread_join(c[i].thread, NULL);
    assert_true(atomic_load(&most) <= 3 && b->busy == 0);
    brim_budget_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_row_major_and_through_views),
        cmocka_unit_test(says_what_goes_in_and_out),
        cmocka_unit_test(keeps_plans_by_shape),
        cmocka_unit_test(explains_itself),
        cmocka_unit_test(wrong_calls_are_answers),
        cmocka_unit_test(takes_structs_of_other_versions),
        cmocka_unit_test(survives_every_failed_allocation),
        cmocka_unit_test(idle_plans_make_room),
        cmocka_unit_test(many_threads_at_once),
        cmocka_unit_test(the_gate_holds),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
