/* Tests of the teacher: which hints count. SPDX-License-Identifier: Apache-2.0 */
#include "methods/merge_teacher.h"
#include "graph/zoo.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct box {
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct graph *g;
    struct merge_teacher teacher;
    struct train_net *net;
};

/* Several levels of recomputation are tried, so the loss is built several times. */
static void look(void *user, int level, const struct graph_recompute_cost *cost, uint64_t need)
{
    (void)user;
    assert_true(level >= 0 && cost->levels > 0 && need > 0);
}

static int set_up(void **state)
{
    struct box *b = xnew(struct box);
    struct graph_zoo_options zoo = {.classes = 3, .seed = 1};
    struct tensor_shape shape = {.rank = 4, .dims = {2, 3, 32, 32}};
    b->budget = mem_budget_new("test", 256 << 20);
    b->payer = mem_payer_new(b->budget, "network");
    assert_int_equal(graph_zoo("cifar-resnet20", &zoo, b->payer, &b->g), ERR_OK);
    b->teacher = (struct merge_teacher){.source = b->g, .classes = true, .soft = 0.5, .hints = 1, .temperature = 2};
    struct train_net_options o = {.budget = b->budget, .input_shapes = &shape, .threads = 1, .loss = merge_teacher_loss, .loss_context = &b->teacher, .trade = look};
    assert_int_equal(train_net_new(b->g, &o, &b->net), ERR_OK);
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    struct box *b = *state;
    train_net_free(&b->net);
    merge_teacher_close(&b->teacher);
    graph_free(&b->g);
    mem_payer_free(&b->payer);
    mem_budget_free(&b->budget);
    free(b);
    return 0;
}

/* The weight of the n-th layer; n < 0: of the last. */
static int layer(const struct graph *g, int n)
{
    int found = -1, at = 0;
    for (size_t k = 0; k < g->n_nodes; k++) {
        bool is = g->nodes[k].op.kind == OP_CONV || g->nodes[k].op.kind == OP_GEMM;
        if (is && (n < 0 || at == n)) found = g->nodes[k].op.in[1];
        at += is;
    }
    assert_true(found >= 0);
    return found;
}

/* How many hints count; they add up to 1, and those of the last layers are among them. */
static int counted(struct box *b, int foreign_weight)
{
    bool *foreign = xcalloc(b->g->n_values + 1, sizeof *foreign);
    if (foreign_weight >= 0) foreign[foreign_weight] = true;
    merge_teacher_trust(&b->teacher, b->net, foreign_weight >= 0 ? foreign : NULL);
    free(foreign);
    const float *w = train_net_target(b->net, b->teacher.weight_target).data;
    float sum = 0;
    int n = 0;
    for (int i = 0; i < b->teacher.n_hints; i++) {
        sum += w[i];
        n += w[i] > 0;
        if (i < b->teacher.n_last) assert_true(w[i] > 0);
    }
    assert_float_equal(sum, 1, 1e-5);
    return n;
}

static void hints_behind_foreign_weights(void **state)
{
    struct box *b = *state;
    int n = b->teacher.n_hints, last = b->teacher.n_last, before = n;
    assert_int_equal(n, MERGE_INNER_HINTS + 1);
    assert_int_equal(last, 1);
    assert_int_equal(counted(b, -1), n);
    assert_int_equal(counted(b, layer(b->g, 0)), last); /* everything is behind the first layer */
    for (int k = 2; k < 18; k += 5) { /* the deeper, the more is left */
        int now = counted(b, layer(b->g, 18 - k));
        assert_true(now <= before && now >= last);
        before = now;
    }
    assert_int_equal(counted(b, layer(b->g, -1)), n); /* nothing but the last hint is behind the last layer */
}

/* The same numbers and targets: what does not count is not in the loss. */
static void what_does_not_count(void **state)
{
    struct box *b = *state;
    float pixels[2 * 3 * 32 * 32], loss, entropy;
    for (size_t i = 0; i < ARRAY_LEN(pixels); i++) pixels[i] = (float)(i * 37 % 255);
    for (int i = 0; i < b->teacher.n_hints; i++) {
        struct tensor t = train_net_target(b->net, b->teacher.hint_target[i]);
        for (int64_t k = 0; k < tensor_count(&t.shape); k++) ((float *)t.data)[k] = 1;
    }
    struct tensor soft = train_net_target(b->net, b->teacher.soft_target);
    for (int64_t k = 0; k < tensor_count(&soft.shape); k++) ((float *)soft.data)[k] = 1.0f / 3;
    struct tensor in = train_net_input(b->net, 0);
    memcpy(in.data, pixels, sizeof pixels);
    counted(b, -1);
    assert_int_equal(train_net_run(b->net, &loss), ERR_OK);
    counted(b, layer(b->g, 0));
    assert_int_equal(train_net_run(b->net, &entropy), ERR_OK);
    assert_true(isfinite((double)loss) && isfinite((double)entropy));
    assert_true(fabsf(loss - entropy) > 1e-3f); /* other hints, another loss */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hints_behind_foreign_weights, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_does_not_count, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("merge-teacher", tests, NULL, NULL);
}
