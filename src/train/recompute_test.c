/* Memory and precision of a step. Activations that are computed again: the numbers do not change by a bit, the bytes fall, and a budget is met by the lowest level
 * that does. Products in bf16: the losses stay near those of f32, the masters are f32.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "graph/zoo.h"
#include "train/checkpoint.h"
#include "train/losses.h"

struct job {
    struct mem_budget *files, *budget;
    struct mem_payer *payer;
    struct graph *g;
    struct tensor_shape shape;
};

static err next_word(struct graph_builder *b, const struct graph_training *t, void *context, int *ret_loss)
{
    (void)context;
    int logits = t->g->outputs[0];
    const struct tensor_shape *s = graph_b_shape(b, logits);
    struct tensor_shape rows = {.rank = 2, .dims = {s->dims[0] * s->dims[1], s->dims[2]}}, list = {.rank = 1, .dims = {rows.dims[0]}};
    int next = graph_add_input(b->g, "next", TENSOR_I64, &list);
    *ret_loss = graph_b_cross_entropy_labels(b, graph_b_reshape(b, logits, &rows), next, 0, -1);
    return b->e;
}

static bool words(const struct job *j)
{
    return j->g->values[j->g->inputs[0]].dtype == TENSOR_I64;
}

static struct job open_job(const char *arch, int classes, int size, int batch)
{
    struct job j = {.files = mem_budget_new("files", UINT64_MAX), .budget = mem_budget_new("job", UINT64_MAX)};
    j.payer = mem_payer_new(j.files, "network");
    assert_int_equal(graph_zoo(arch, &(struct graph_zoo_options){.classes = classes, .size = size, .seed = 1}, j.payer, &j.g), ERR_OK);
    j.shape = j.g->values[j.g->inputs[0]].shape;
    j.shape.dims[0] = batch;
    return j;
}

static void close_job(struct job *j)
{
    graph_free(&j->g);
    mem_payer_free(&j->payer);
    assert_true(mem_budget_used(j->budget) == 0);
    mem_budget_free(&j->budget);
    mem_budget_free(&j->files);
}

static err make_in(struct job *j, int recompute, enum kernel_precision precision, struct train_net **ret)
{
    static struct train_classify classify = {0};
    struct train_net_options o = {.budget = j->budget, .input_shapes = &j->shape, .threads = 2, .loss = words(j) ? next_word : train_loss_classify,
                                  .loss_context = &classify, .optimiser = {.rule = TRAIN_SGD, .momentum = 0.9f}, .recompute = recompute, .precision = precision};
    return train_net_new(j->g, &o, ret);
}

static err make(struct job *j, int recompute, struct train_net **ret)
{
    return make_in(j, recompute, KERNEL_F32, ret);
}

/* Two steps; the losses, and a copy of the parameters with the running statistics. */
static float *steps(struct job *j, struct train_net *n, float *losses, size_t *ret_bytes)
{
    struct train_section s[6];
    struct tensor in = train_net_input(n, 0), target = train_net_target(n, 0);
    int64_t classes = words(j) ? 40 : target.shape.dims[1];
    for (int64_t i = 0; i < tensor_count(&in.shape); i++) {
        if (words(j))
            ((int64_t *)in.data)[i] = i * 7 % 40;
        else
            ((float *)in.data)[i] = (float)(i * 37 % 101) / 50 - 1;
    }
    memset(target.data, 0, (size_t)tensor_count(&target.shape) * tensor_dtype_size(target.dtype));
    for (int64_t i = 0; i < target.shape.dims[0] && !words(j); i++) ((float *)target.data)[i * classes + i % classes] = 1;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(train_net_run(n, &losses[i]), ERR_OK);
        train_net_update(n, 0.01, NULL);
    }
    assert_true(train_net_sections(n, s) >= 1);
    *ret_bytes = s[0].bytes;
    float *copy = malloc(s[0].bytes);
    memcpy(copy, s[0].p, s[0].bytes);
    return copy;
}

static size_t run_level(struct job *j, int level, const float *want, const float *losses)
{
    struct train_net *n;
    float l[2];
    size_t bytes;
    assert_int_equal(make(j, level, &n), ERR_OK);
    struct train_net_sizes sizes = train_net_sizes(n);
    assert_int_equal(sizes.level, level);
    assert_true(sizes.again.nodes > 0 && sizes.again.saved > 0);
    float *got = steps(j, n, l, &bytes);
    assert_memory_equal(l, losses, sizeof l);
    assert_memory_equal(got, want, bytes);
    free(got);
    train_net_free(&n);
    return sizes.plan.activations;
}

static void same_bits(const char *arch, int classes, int size, int batch, double at_most)
{
    struct job j = open_job(arch, classes, size, batch);
    struct train_net *n;
    float losses[2];
    size_t bytes;
    assert_int_equal(make(&j, -1, &n), ERR_OK);
    struct train_net_sizes none = train_net_sizes(n);
    float *want = steps(&j, n, losses, &bytes);
    train_net_free(&n);
    assert_int_equal(none.level, 0);
    assert_int_equal(none.again.nodes, 0);
    int levels = none.again.levels;
    assert_true(levels > 3);
    size_t half = run_level(&j, levels / 2, want, losses), all = run_level(&j, levels - 2, want, losses), longer = run_level(&j, levels, want, losses);
    assert_true(half <= none.plan.activations && all <= half);
    print_message("%s: %zu bytes of activations, %zu at level %d, %zu at %d of %d, %zu at the last\n", arch, none.plan.activations, half, levels / 2, all, levels - 2,
                  levels, longer);
    assert_true((double)MIN(all, longer) <= at_most * (double)none.plan.activations);
    assert_int_equal(make(&j, levels + 1, &n), ERR_USAGE);
    free(want);
    close_job(&j);
}

static void residual_network(void **state)
{
    (void)state;
    same_bits("resnet18", 10, 64, 4, 0.65);
}

static void inverted_residuals(void **state)
{
    (void)state;
    same_bits("mobilenetv2", 10, 64, 4, 0.5);
}

/* What many read is made again, too: it goes over cuts, and is a normalised and activated convolution. */
static void excited_network(void **state)
{
    (void)state;
    same_bits("mobilenetv3-small", 10, 64, 4, 0.5);
}

static void transformer(void **state)
{
    (void)state;
    same_bits("llama-mini", 40, 64, 1, 0.75);
}

static void budget_is_met(void **state)
{
    (void)state;
    struct job j = open_job("llama-mini", 40, 64, 1);
    struct train_net *n;
    assert_int_equal(make(&j, 0, &n), ERR_OK);
    assert_int_equal(train_net_sizes(n).level, 0);
    uint64_t most = mem_budget_peak(j.budget);
    size_t activations = train_net_sizes(n).plan.activations;
    train_net_free(&n);
    uint64_t limit = most - activations / 4;
    mem_budget_set_limit(j.budget, limit);
    mem_budget_reset_peak(j.budget);
    assert_int_equal(make(&j, -1, &n), ERR_NOMEM);
    mem_budget_reset_peak(j.budget);
    assert_int_equal(make(&j, 0, &n), ERR_OK);
    struct train_net_sizes met = train_net_sizes(n);
    assert_true(met.level > 0 && met.level <= met.again.levels);
    assert_true(mem_budget_used(j.budget) <= limit);
    train_net_free(&n);
    if (met.level > 1) { /* and no lower one would have done */
        assert_int_equal(make(&j, met.level - 1, &n), ERR_NOMEM);
    }
    mem_budget_set_limit(j.budget, most - activations);
    assert_int_equal(make(&j, 0, &n), ERR_NOMEM);
    const char *at = strstr(err_text(), "--budget ");
    assert_non_null(at);
    mem_budget_set_limit(j.budget, strtoull(at + strlen("--budget "), NULL, 10) << 20);
    assert_int_equal(make(&j, 0, &n), ERR_OK);
    train_net_free(&n);
    close_job(&j);
}

/* The losses of a few steps on the same pictures; parameters afterwards. */
static float *descend(struct job *j, enum kernel_precision precision, int recompute, float *losses, int n_steps, size_t *ret_bytes)
{
    struct train_net *n;
    float *first;
    assert_int_equal(make_in(j, recompute, precision, &n), ERR_OK);
    first = steps(j, n, losses, ret_bytes);
    free(first);
    for (int i = 2; i < n_steps; i++) {
        assert_int_equal(train_net_run(n, &losses[i]), ERR_OK);
        train_net_update(n, 0.01, NULL);
    }
    struct train_section s[6];
    train_net_sections(n, s);
    float *copy = malloc(s[0].bytes);
    memcpy(copy, s[0].p, s[0].bytes);
    train_net_free(&n);
    return copy;
}

static void half(const char *arch, int classes, int size, int batch)
{
    enum { STEPS = 4 };
    struct job j = open_job(arch, classes, size, batch);
    float a[STEPS], b[STEPS], c[STEPS];
    size_t bytes;
    float *f32 = descend(&j, KERNEL_F32, -1, a, STEPS, &bytes), *bf16 = descend(&j, KERNEL_BF16, -1, b, STEPS, &bytes), *again = descend(&j, KERNEL_AUTO, 3, c, STEPS, &bytes);
    double worst = 0;
    for (int i = 0; i < STEPS; i++) worst = MAX(worst, fabs((double)a[i] - (double)b[i]) / (double)a[0]);
    print_message("%s: loss %.5f to %.5f in f32, to %.5f in bf16; at most %.2g of the first apart\n", arch, a[0], a[STEPS - 1], b[STEPS - 1], worst);
    assert_true(a[STEPS - 1] < a[0]);
    assert_true(worst < 0.1); /* twice what was measured */
    assert_memory_equal(b, c, sizeof b); /* the same bits with recomputation, too */
    assert_memory_equal(bf16, again, bytes);
    assert_int_equal(memcmp(f32, bf16, bytes) == 0, !kernels_have_bf16());
    free(f32);
    free(bf16);
    free(again);
    close_job(&j);
}

static void half_residual_network(void **state)
{
    (void)state;
    half("resnet18", 10, 64, 4);
}

static void half_transformer(void **state)
{
    (void)state;
    half("gpt2-mini", 40, 160, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(residual_network), cmocka_unit_test(inverted_residuals), cmocka_unit_test(excited_network), cmocka_unit_test(transformer),
                                       cmocka_unit_test(budget_is_met),
                                       cmocka_unit_test(half_residual_network), cmocka_unit_test(half_transformer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
