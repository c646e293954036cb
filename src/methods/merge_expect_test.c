/* Tests of what sharing will probably save: the formula by hand, likeness of answers against numbers from numpy, layers that are the same but for the order of
 * their filters, and pictures that are not there. SPDX-License-Identifier: Apache-2.0 */
#include "graph/testing.h"
#include "methods/merge_expect.h"
#include "methods/merge_testing.h"

#include <math.h>

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");
    (void)state;
    dir = xasprintf("%s/brim-expect-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) return -1;
    write_data(0);
    write_data(1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char *command = xasprintf("rm -rf '%s'", dir);
    int r = system(command);
    free(command);
    free(dir);
    return r;
}

/* A chain of 4x4x1x1 convolutions (64 bytes each); row r of a weight times 1 + r * stretch. */
static struct graph *chain(struct testing *t, const uint64_t *seeds, const float *stretch, int n)
{
    struct graph *g = graph_new("chain", 17, t->payer);
    int x = testing_input(g, "x", DIMS(1, 4, 8, 8));
    for (int i = 0; i < n; i++) {
        int w = testing_floats(g, seeds[i], DIMS(4, 4, 1, 1));
        float f[16];
        for (int k = 0; k < 16; k++) f[k] = ((const float *)g->values[w].constant)[k] * (1 + (float)(k / 4) * stretch[i]);
        assert_int_equal(graph_set_constant(g, w, f, 16), ERR_OK);
        x = testing_node(g, OP_CONV, x, w, -1);
    }
    graph_add_output(g, x);
    return g;
}

static double mean_cosine(const float *a, const float *b)
{
    double sum = 0;
    for (int r = 0; r < 4; r++) {
        double ab = 0, aa = 0, bb = 0;
        for (int k = 4 * r; k < 4 * r + 4; k++) ab += (double)a[k] * (double)b[k], aa += (double)a[k] * (double)a[k], bb += (double)b[k] * (double)b[k];
        sum += ab / sqrt(aa * bb) / 4;
    }
    return fmax(sum, 0);
}

/* Equal, equal but for the length of its filters, strange; and one that only the first has. */
static void without_pictures(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct graph *g[] = {chain(&t, (uint64_t[]){1, 2, 3, 4}, (float[]){0, 0, 0, 0}, 4), chain(&t, (uint64_t[]){1, 2, 7}, (float[]){0, 3, 0}, 3)};
    struct merge_problem *p;
    struct merge_expected x;
    assert_int_equal(merge_problem_new((const struct graph *const *)g, (const char *const[]){"a", "b"}, 2, &p), ERR_OK);
    assert_int_equal(p->n_slots, 3);
    assert_int_equal(merge_expect(p, (const struct graph *const *)g, &(struct merge_expect_options){0}, &x), ERR_OK);
    double all = 0;
    for (int s = 0; s < 3; s++) {
        const struct merge_slot *slot = &p->slots[s];
        double c = mean_cosine(g[0]->values[slot->value[0]].constant, g[1]->values[slot->value[1]].constant), t2 = 2.0 * 3 / (4 + 3), want = slot->nth == 0 ? 1 : c + (1 - c) * t2 / 2;
        if (slot->nth == 1) assert_float_equal(c, 1, 1e-6);
        if (slot->nth == 2) assert_true(want < 0.9);
        assert_float_equal(x.likelihood[s], want, 1e-6);
        all += 64 * want;
    }
    assert_int_equal(x.bytes, (uint64_t)(all + 0.5));
    assert_false(x.pictures);
    merge_expected_done(&x);
    merge_problem_free(&p);
    graph_free(&g[0]);
    graph_free(&g[1]);
    testing_done(&t);
}

/* Debiased linear CKA by numpy: tools are the formulas of Song et al. 2012, section 3. */
static void likeness_of_answers(void **state)
{
    (void)state;
    enum { N = 6 };
    float x[N * 3], y[N * 2], turned[N * 3];
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < 3; k++) x[3 * i + k] = (float)((i * 7 + k * 3) % 11 - 4);
        for (int k = 0; k < 2; k++) y[2 * i + k] = (float)((i * 7 + k * 3) % 11 - 4 + i * 5 % 3);
        for (int k = 0; k < 3; k++) turned[3 * i + (k + 1) % 3] = -3 * x[3 * i + k] + 1; /* order, sign, scale and shift do not matter */
    }
    assert_float_equal(merge_cka(x, 3, y, 2, N), 0.8780886330549214, 1e-6);
    assert_float_equal(merge_cka(x, 3, turned, 3, N), 1, 1e-6);
    assert_float_equal(merge_cka(x, 3, x, 3, 3), 0, 0); /* too few to say */
    float flat[N] = {2, 2, 2, 2, 2, 2};
    assert_float_equal(merge_cka(x, 3, flat, 1, N), 0, 0);
}

static struct graph *load(struct testing *t, const char *path)
{
    struct graph *g;
    if (graph_load(path, t->payer, &g)) fail_msg("%s", err_text());
    return g;
}

/* The first layer of `to` is that of `from` with its filters in another order. */
static void write_turned(struct testing *t, const char *from, const char *to)
{
    struct graph *g = load(t, from);
    enum { EACH = 3 * 4 * 4 };
    float f[8 * EACH];
    for (size_t i = 0; i < g->n_values; i++) {
        if (!g->values[i].name || strcmp(g->values[i].name, "a.weight")) continue;
        for (int r = 0; r < 8; r++) memcpy(f + EACH * ((r + 3) % 8), (const float *)g->values[i].constant + EACH * r, sizeof(float) * EACH);
        assert_int_equal(graph_set_constant(g, (int)i, f, 8 * EACH), ERR_OK);
    }
    assert_int_equal(graph_save(g, to), ERR_OK);
    graph_free(&g);
}

static void with_pictures(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    char *first = in_dir("first.onnx"), *turned = in_dir("turned.onnx"), *d0 = in_dir("d0.bin"), *d1 = in_dir("d1.bin");
    write_net(first, 5, 4, 10);
    write_turned(&t, first, turned);
    struct graph *g[] = {load(&t, first), load(&t, turned)};
    struct merge_source sources[] = {{.name = "first", .onnx = first, .data = d0}, {.name = "turned", .onnx = turned, .data = d1}};
    struct merge_problem *p;
    struct merge_expected by_weights, by_pictures;
    struct merge_expect_options o = {.sources = sources, .budget = t.budget, .pictures = 40, .threads = 1};
    assert_int_equal(merge_problem_new((const struct graph *const *)g, (const char *const[]){"first", "turned"}, 2, &p), ERR_OK);
    assert_int_equal(merge_expect(p, (const struct graph *const *)g, &(struct merge_expect_options){0}, &by_weights), ERR_OK);
    if (merge_expect(p, (const struct graph *const *)g, &o, &by_pictures)) fail_msg("%s", err_text());
    assert_true(by_pictures.pictures);
    for (int s = 0; s < p->n_slots; s++) {
        bool is_first = p->slots[s].bytes == 8 * 3 * 4 * 4 * 4;
        if (is_first) assert_true(by_weights.likelihood[s] < 0.8); /* other filters at the same places */
        if (is_first) assert_float_equal(by_pictures.likelihood[s], 1, 1e-4);
        if (!is_first) assert_true(by_weights.likelihood[s] == 1 && by_pictures.likelihood[s] == 1); /* equal numbers */
    }
    merge_expected_done(&by_weights);
    merge_expected_done(&by_pictures);
    sources[1].data = NULL;
    assert_int_equal(merge_expect(p, (const struct graph *const *)g, &o, &by_pictures), ERR_USAGE);
    assert_string_equal(err_text(), "model 'turned': no pictures to look at: --data turned=PATH");
    sources[1].data = "/nowhere";
    assert_int_equal(merge_expect(p, (const struct graph *const *)g, &o, &by_pictures), ERR_NOT_FOUND);
    sources[1].data = d1;
    for (uint64_t n = 1;; n++) { /* the n-th allocation fails */
        mem_fault_at(t.budget, n);
        err e = merge_expect(p, (const struct graph *const *)g, &o, &by_pictures);
        uint64_t calls = mem_fault_calls(t.budget);
        mem_fault_at(t.budget, 0);
        if (!e) merge_expected_done(&by_pictures);
        else assert_int_equal(e, ERR_NOMEM);
        if (calls < n) break;
    }
    merge_problem_free(&p);
    graph_free(&g[0]);
    graph_free(&g[1]);
    char *paths[] = {first, turned, d0, d1};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) free(paths[i]);
    testing_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_pictures),
        cmocka_unit_test(likeness_of_answers),
        cmocka_unit_test(with_pictures),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
