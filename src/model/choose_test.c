/* What `auto` promises: every output stays near f32's, whatever was chosen; a verdict is made once, kept in a file, and believed; what bf16 would ruin
 * stays f32. Which of the two is faster is the machine's business, and is not tested. SPDX-License-Identifier: Apache-2.0 */
#include "base/crc32c.h"
#include "model/verdict.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { SIDE = 24, CHANNELS = 32, OUT = CHANNELS * SIDE * SIDE };

static int conv(struct graph *g, const char *name, int x, int from, uint64_t seed, float scale)
{
    char w[32];
    float *f;
    snprintf(w, sizeof w, "%s_w", name);
    int weight;
    assert_int_equal(graph_add_constant(g, w, TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {CHANNELS, from, 3, 3}}, &weight, (void **)&f), ERR_OK);
    for (int i = 0; i < CHANNELS * from * 9; i++) f[i] = scale * ((float)(hash64(&i, sizeof i, seed) >> 40) / (float)(1 << 24) - 0.5f) / 16;
    int y = graph_add_value(g, name, TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, OP_CONV, name, 2, 1);
    n->op.in[0] = x;
    n->op.in[1] = weight;
    n->op.out[0] = y;
    graph_set_ints(n, "pads", (int64_t[]){1, 1, 1, 1}, 4);
    return y;
}

static int two(struct graph *g, enum op_kind kind, int a, int b)
{
    int y = graph_add_value(g, "two", TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, kind, "two", 2, 1);
    n->op.in[0] = a;
    n->op.in[1] = b;
    n->op.out[0] = y;
    return y;
}

/* Three convolutions with a residual; or, `delicate`, the difference of two that are nearly equal, of which bf16 leaves nothing. */
static void write_net(const char *path, bool delicate)
{
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "graph");
    struct graph *g = graph_new("net", 13, p);
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 4, .dims = {1, 3, SIDE, SIDE}});
    int a = conv(g, "a", x, 3, 1, 1), y;
    if (delicate) {
        y = two(g, OP_SUB, conv(g, "b", a, CHANNELS, 2, 1), conv(g, "c", a, CHANNELS, 2, 1 + 1.0f / 4096));
    } else {
        int c = conv(g, "b", a, CHANNELS, 2, 1);
        y = conv(g, "d", two(g, OP_ADD, a, c), CHANNELS, 3, 1);
    }
    graph_add_output(g, y);
    assert_int_equal(graph_save(g, path), ERR_OK);
    graph_free(&g);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

struct world {
    char *dir, *net;
    const char *verdicts; /* not NULL: no spill directory, but this */
};

static int set_up(void **state)
{
    struct world *w = xnew(struct world);
    w->dir = xstrdup("/tmp/brim-choose-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->net = xasprintf("%s/net.onnx", w->dir);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    char *command = xasprintf("rm -rf %s", w->dir);
    assert_int_equal(system(command), 0);
    free(command);
    free(w->net);
    free(w->dir);
    free(w);
    return 0;
}

static err run(const struct world *w, enum kernel_precision precision, uint64_t limit, float *ret_out, enum kernel_precision *ret_is)
{
    struct mem_budget *b = mem_budget_new("host", limit);
    struct weights_reader *r;
    struct model *m = NULL;
    struct model_plan *p = NULL;
    assert_int_equal(weights_reader_new(&r), ERR_OK);
    struct model_options o = {.budget = b, .precision = precision, .threads = 1, .reader = r, .spill_dir = w->dir};
    if (w->verdicts) o.reader = NULL, o.spill_dir = NULL, o.verdict_dir = w->verdicts;
    err e = model_open(w->net, "net", &o, &m);
    if (!e) e = model_plan_new(m, NULL, &p);
    if (!e) e = model_plan_reserve(p);
    if (!e) e = model_request(m);
    if (!e) e = model_wait(m);
    if (!e) {
        struct tensor in = model_plan_input(p, 0);
        for (int64_t i = 0; i < tensor_span(&in); i++) ((float *)in.data)[i] = (float)(hash64(&i, sizeof i, 5) >> 40) / (float)(1 << 24);
        e = model_plan_run(p, NULL);
        struct tensor from = model_plan_output(p, 0), to = tensor_view(TENSOR_F32, &from.shape, ret_out);
        assert_int_equal(tensor_count(&from.shape), OUT);
        assert_int_equal(from.dtype, TENSOR_F32);
        if (!e) e = model_copy(&from, &to);
        *ret_is = model_precision(m);
        model_release(m);
    }
    assert_true(mem_budget_peak(b) <= limit);
    model_plan_free(&p);
    model_free(&m);
    weights_reader_free(&r);
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
    return e;
}

static double distance(const float *a, const float *b)
{
    double d = 0, n = 0;
    for (int i = 0; i < OUT; i++) d += pow((double)a[i] - (double)b[i], 2), n += pow((double)a[i], 2);
    return sqrt(d / n);
}

/* The one verdict in the folder; free() it. */
static char *verdict_in(const char *dir)
{
    DIR *d = opendir(dir);
    char *found = NULL;
    for (struct dirent *i; d && (i = readdir(d));)
        if (!strncmp(i->d_name, "precision-", 10)) {
            assert_null(found);
            found = xasprintf("%s/%s", dir, i->d_name);
        }
    if (d) closedir(d);
    return found;
}

static char *verdict(const struct world *w)
{
    return verdict_in(w->dir);
}

static void say(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* With its checksum. */
static void rule(const char *path, const char *text)
{
    char *whole = xasprintf("%s\ncrc %08x\n", text, crc32c(0, text, strlen(text)));
    say(path, whole);
    free(whole);
}

static float a[OUT], b[OUT];

static void a_verdict_is_made_once_and_believed(void **state)
{
    struct world *w = *state;
    enum kernel_precision is;
    if (!kernels_have_bf16()) skip();
    write_net(w->net, false);
    assert_int_equal(run(w, KERNEL_F32, UINT64_MAX, a, &is), ERR_OK);
    assert_int_equal(is, KERNEL_F32);
    assert_null(verdict(w));
    assert_int_equal(run(w, KERNEL_AUTO, UINT64_MAX, b, &is), ERR_OK);
    assert_true(distance(a, b) <= 0.03);
    char *path = verdict(w);
    assert_non_null(path);
    rule(path, "brim precision 3\nbf16 1\ngroups 3 keep 0\n");
    assert_int_equal(run(w, KERNEL_AUTO, UINT64_MAX, b, &is), ERR_OK);
    assert_int_equal(is, KERNEL_AUTO);
    double all = distance(a, b);
    assert_true(all > 1e-5 && all <= 0.03);
    rule(path, "brim precision 3\nbf16 1\ngroups 3 keep 3\n");
    assert_int_equal(run(w, KERNEL_AUTO, UINT64_MAX, b, &is), ERR_OK);
    assert_true(distance(a, b) > 1e-5 && distance(a, b) < all);
    rule(path, "brim precision 3\nbf16 0\ngroups 1 keep 0\n");
    assert_int_equal(run(w, KERNEL_AUTO, UINT64_MAX, b, &is), ERR_OK);
    assert_int_equal(is, KERNEL_F32);
    assert_memory_equal(a, b, sizeof a);
    free(path);
}

static void a_damaged_verdict_is_none(void **state)
{
    static const char *const damaged[] = {"",
                                          "brim precision 3\nbf16 1\ngroups 3 keep 0\n", /* no checksum */
                                          "brim precision 3\nbf16 1\ngroups 3 keep 0\ncrc 00000000\n",
                                          "brim precision 3\nbf16 1\ngroups 3 keep 0\ncrc ",
                                          "\xff\xfe"};
    static const char *const wrong[] = {"brim precision 2\nbf16 1\ngroups 3 keep 0\n", "brim precision 3\nbf16 1\ngroups 0 keep 0\n",
                                        "brim precision 3\nbf16 1\ngroups 99 keep 0\n", "brim precision 3\nbf16 1\ngroups 3 keep f\n", "\n"};
    struct world *w = *state;
    struct model_choice c = {0};
    char *path = xasprintf("%s/precision-1", w->dir);
    assert_false(model_verdict_load(path, &c));
    assert_false(model_verdict_load(NULL, &c));
    for (size_t i = 0; i < ARRAY_LEN(damaged); i++) {
        say(path, damaged[i]);
        assert_false(model_verdict_load(path, &c));
        rule(path, wrong[i]);
        assert_false(model_verdict_load(path, &c));
    }
    assert_false(c.known);
    struct model_choice is = {.known = true, .half = true, .groups = 16, .keep = 0x8001, .error = 0.02, .ms_f32 = 3, .ms = 2};
    model_verdict_save(path, &is);
    assert_true(model_verdict_load(path, &c));
    assert_true(c.known && c.half && c.groups == 16 && c.keep == 0x8001);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/dev/zero", path), 0); /* a link is not followed */
    assert_false(model_verdict_load(path, &c));
    free(path);
}

static int count(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n - 2;
}

/* A folder of its own is made when it is needed, however deep; it stays bounded; without one nothing fails. */
static void a_folder_of_verdicts(void **state)
{
    struct world *w = *state;
    enum kernel_precision is;
    struct model_choice c = {.known = true, .groups = 1};
    write_net(w->net, false);
    char *deep = xasprintf("%s/a/b/c", w->dir), *file = xasprintf("%s/net.onnx/no", w->dir), *one = xasprintf("%s/many/precision-new", w->dir);
    w->verdicts = deep;
    assert_int_equal(run(w, KERNEL_F32, UINT64_MAX, a, &is), ERR_OK);
    assert_int_equal(run(w, KERNEL_AUTO, UINT64_MAX, b, &is), ERR_OK);
    assert_true(distance(a, b) <= 0.03);
    assert_int_equal(count(deep), kernels_have_bf16() ? 1 : -2);
    char *path = verdict_in(deep);
    if (path) { /* believed the next time */
        rule(path, "brim precision 3\nbf16 1\ngroups 3 keep 0\n");
        assert_int_equal(run(w, KERNEL_AUTO, UINT64_MAX, b, &is), ERR_OK);
        assert_int_equal(is, KERNEL_AUTO);
    }
    w->verdicts = file; /* cannot be made */
    assert_int_equal(run(w, KERNEL_AUTO, UINT64_MAX, b, &is), ERR_OK);
    assert_true(distance(a, b) <= 0.03);
    for (int i = 0; i < MODEL_VERDICTS + 5; i++) {
        char *p = xasprintf("%s/many/precision-%d", w->dir, i);
        model_verdict_save(p, &c);
        free(p);
    }
    model_verdict_save(one, &c);
    char *many = xasprintf("%s/many", w->dir);
    assert_int_equal(count(many), MODEL_VERDICTS);
    assert_true(model_verdict_load(one, &c));
    free(many);
    free(path);
    free(deep);
    free(file);
    free(one);
}

static void where_a_user_keeps_them(void **state)
{
    (void)state;
    setenv("HOME", "/home/me", 1);
    unsetenv("BRIM_CACHE");
    unsetenv("XDG_CACHE_HOME");
    static const struct {
        const char *variable, *value, *is;
    } CASES[] = {{"X", "", "/home/me/.cache/brim"}, {"XDG_CACHE_HOME", "not/absolute", "/home/me/.cache/brim"}, {"XDG_CACHE_HOME", "/c", "/c/brim"},
                 {"BRIM_CACHE", "/b", "/b"}, {"BRIM_CACHE", "", NULL}};
    for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
        setenv(CASES[i].variable, CASES[i].value, 1);
        char *is = model_cache_dir();
        if (CASES[i].is)
            assert_string_equal(is, CASES[i].is);
        else
            assert_null(is);
        free(is);
    }
}

static void what_bf16_ruins_is_not_in_bf16(void **state)
{
    struct world *w = *state;
    enum kernel_precision is;
    write_net(w->net, true);
    assert_int_equal(run(w, KERNEL_F32, UINT64_MAX, a, &is), ERR_OK);
    assert_int_equal(run(w, KERNEL_AUTO, UINT64_MAX, b, &is), ERR_OK);
    assert_true(distance(a, b) <= 0.03);
    if (!kernels_have_bf16()) skip();
    char *path = verdict(w); /* the two must not be in bf16; the one before them may */
    assert_non_null(path);
    free(path);
    assert_int_equal(run(w, KERNEL_BF16, UINT64_MAX, b, &is), ERR_OK);
    assert_true(distance(a, b) > 0.1); /* the test would be none otherwise */
}

/* The measurement is no reason to need more memory than f32 does. */
static void a_tight_budget_is_kept(void **state)
{
    struct world *w = *state;
    enum kernel_precision is;
    write_net(w->net, false);
    uint64_t least = 64 << 10;
    while (run(w, KERNEL_F32, least, a, &is) == ERR_NOMEM) least += least / 16;
    char *path = verdict(w);
    if (path) unlink(path);
    free(path);
    err e = run(w, KERNEL_AUTO, least + least / 2, b, &is);
    assert_true(e == ERR_OK || e == ERR_NOMEM); /* bf16 code may be larger; the budget holds (see run) */
    if (!e) assert_true(distance(a, b) <= 0.03);
}

/* What a running box does: f32 now, a verdict later, out of the same budget, and it can be told to stop. */
static void it_may_be_left_for_later(void **state)
{
    struct world *w = *state;
    if (!kernels_have_bf16()) skip();
    write_net(w->net, false);
    struct mem_budget *budget = mem_budget_new("host", UINT64_MAX);
    atomic_bool stop = true;
    struct model_options o = {.budget = budget, .precision = KERNEL_AUTO, .threads = 1, .spill_dir = w->dir, .precision_later = true, .stop = &stop};
    assert_int_equal(weights_reader_new(&o.reader), ERR_OK);
    for (int round = 0; round < 3; round++) {
        struct model *m;
        struct model_plan *p = NULL;
        assert_int_equal(model_open(w->net, "net", &o, &m), ERR_OK);
        err e = model_plan_new(m, NULL, &p);
        char *path = verdict(w);
        if (round == 0) { /* later */
            assert_int_equal(e, ERR_OK);
            assert_true(model_precision_pending(m) && model_precision(m) == KERNEL_F32 && !path);
            o.precision_later = false;
        } else if (round == 1) { /* stopped */
            assert_int_equal(e, ERR_CANCELLED);
            assert_null(path);
            stop = false;
            o.precision_in_budget = true;
        } else {
            assert_int_equal(e, ERR_OK);
            assert_true(!model_precision_pending(m) && path);
        }
        free(path);
        model_plan_free(&p);
        model_free(&m);
        assert_int_equal(mem_budget_used(budget), 0);
    }
    weights_reader_free(&o.reader);
    mem_budget_free(&budget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_verdict_is_made_once_and_believed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_bf16_ruins_is_not_in_bf16, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_tight_budget_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_may_be_left_for_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_verdict_is_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_folder_of_verdicts, set_up, tear_down),
        cmocka_unit_test(where_a_user_keeps_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
