/* Tests of the upper bound of merging: pairs of known networks, cases counted by hand, equal numbers apart from equal architecture, the picture.
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/testing.h"
#include "graph/zoo.h"
#include "methods/merge_estimate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* By bytes, GEMEL's rule of equality applied to torchvision's networks with two classes, computed without brim. */
static const struct {
    const char *a, *b;
    double percent;
} pairs[] = {{"resnet18", "resnet34", 34.4}, {"resnet18", "resnet50", 20.7}, {"resnet50", "resnet101", 35.6}};

static void known_pairs(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct merge_estimate *m = merge_estimate_new();
        for (int k = 0; k < 2; k++) {
            struct graph *g;
            const char *name = k ? pairs[i].b : pairs[i].a;
            assert_int_equal(graph_zoo(name, &(struct graph_zoo_options){.classes = 2, .seed = (uint64_t)k}, t.payer, &g), ERR_OK);
            merge_estimate_add(m, name, g);
            graph_free(&g);
        }
        merge_estimate_finish(m);
        double percent = 100 * merge_estimate_share(m);
        if (percent < pairs[i].percent - 0.05 || percent >= pairs[i].percent + 0.05)
            fail_msg("%s and %s: %.2f %%, expected %.1f %%", pairs[i].a, pairs[i].b, percent, pairs[i].percent);
        assert_true(m->equal_bytes < m->saved_bytes / 100); /* other seeds: nothing but biases of zeros is equal */
        merge_estimate_free(&m);
    }
    testing_done(&t);
}

/* A chain of 4x4x1x1 convolutions without bias (64 bytes each), one weight per seed. */
static struct graph *chain(struct testing *t, const uint64_t *seeds, int n, int stride)
{
    struct graph *g = graph_new("chain", 17, t->payer);
    int x = testing_input(g, "x", DIMS(1, 4, 8, 8));
    for (int i = 0; i < n; i++) {
        x = testing_node(g, OP_CONV, x, testing_floats(g, seeds[i], DIMS(4, 4, 1, 1)), -1);
        if (stride) graph_set_ints(testing_last(g), "strides", (int64_t[]){stride, stride}, 2);
    }
    graph_add_output(g, x);
    return g;
}

static void add(struct merge_estimate *m, const char *name, struct graph *g)
{
    merge_estimate_add(m, name, g);
    graph_free(&g);
}

static void a_group_is_stored_as_often_as_the_member_with_most_has_it(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct merge_estimate *m = merge_estimate_new();
    add(m, "one", chain(&t, (uint64_t[]){1}, 1, 0));
    add(m, "three", chain(&t, (uint64_t[]){2, 3, 4}, 3, 1)); /* a stride of 1 that is written down is the default */
    add(m, "two", chain(&t, (uint64_t[]){5, 6}, 2, 0));
    add(m, "other", chain(&t, (uint64_t[]){7, 8}, 2, 2));
    merge_estimate_finish(m);
    assert_int_equal(m->bytes, 8 * 64);
    assert_int_equal(m->saved_bytes, (1 + 3 + 2 - 3) * 64);
    assert_int_equal(m->equal_bytes, 0);
    assert_int_equal(m->n_groups, 2);
    assert_int_equal(m->groups[0].most, 3);
    assert_int_equal(m->groups[0].second, 2);
    assert_int_equal(m->groups[1].saved_bytes, 0);
    assert_string_equal(m->groups[1].what, "Conv 4x4x1x1, strides 2 2");
    json_t *j = merge_estimate_json(m), *layers = json_object_get(j, "layers");
    assert_int_equal(json_array_size(layers), 1); /* only what is in common */
    assert_int_equal(json_integer_value(json_array_get(json_object_get(json_array_get(layers, 0), "counts"), 1)), 3);
    assert_int_equal(json_integer_value(json_object_get(j, "saved_bytes")), 3 * 64);
    json_decref(j);
    merge_estimate_free(&m);
    testing_done(&t);
}

static void equal_numbers_are_counted_apart(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct merge_estimate *m = merge_estimate_new();
    add(m, "a", chain(&t, (uint64_t[]){1, 1, 2}, 3, 0)); /* twice the same numbers in one member: no saving between members */
    add(m, "b", chain(&t, (uint64_t[]){1, 2, 9}, 3, 0));
    merge_estimate_finish(m);
    assert_int_equal(m->saved_bytes, 3 * 64);
    assert_int_equal(m->equal_bytes, 2 * 64);
    merge_estimate_free(&m);
    testing_done(&t);
}

/* Two nodes with one weight are one layer; a computed weight is none; a bias and another form make another group. */
static void what_is_a_layer(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct merge_estimate *m = merge_estimate_new();
    struct graph *g = graph_new("g", 17, t.payer);
    int x = testing_input(g, "x", DIMS(4, 4)), w = testing_floats(g, 1, DIMS(4, 4));
    int y = testing_node(g, OP_MATMUL, testing_node(g, OP_MATMUL, x, w, -1), w, -1);
    y = testing_node(g, OP_MATMUL, y, x, -1);
    y = testing_node(g, OP_GEMM, y, testing_floats(g, 2, DIMS(4, 4)), testing_floats(g, 3, DIMS(4)));
    y = testing_node(g, OP_GEMM, y, testing_floats(g, 2, DIMS(4, 4)), testing_floats(g, 3, DIMS(1)));
    y = testing_node(g, OP_GEMM, y, testing_floats(g, 2, DIMS(4, 4)), -1);
    graph_set_int(testing_last(g), "transB", 1);
    graph_add_output(g, y);
    add(m, "g", g);
    merge_estimate_finish(m);
    assert_int_equal(m->members[0].n_layers, 4);
    assert_int_equal(m->n_groups, 4);
    assert_int_equal(m->bytes, 4 * 64 + 16 + 4);
    assert_int_equal(m->saved_bytes, 0);
    merge_estimate_free(&m);
    testing_done(&t);
}

static void nothing_in_common_is_an_answer(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct merge_estimate *m = merge_estimate_new();
    add(m, "a", chain(&t, (uint64_t[]){1}, 1, 0));
    add(m, "<none> & nothing", chain(&t, NULL, 0, 0));
    merge_estimate_finish(m);
    assert_int_equal(m->saved_bytes, 0);
    assert_true(merge_estimate_share(m) == 0);
    char *svg = merge_draw_svg(m, NULL);
    assert_non_null(strstr(svg, "nothing in common"));
    assert_non_null(strstr(svg, "&lt;none&gt; &amp; nothing"));
    free(svg);
    merge_estimate_free(&m);
    m = merge_estimate_new();
    merge_estimate_finish(m);
    assert_true(merge_estimate_share(m) == 0);
    merge_estimate_free(&m);
    testing_done(&t);
}

static void the_picture_colours_what_can_be_shared(void **state)
{
    (void)state;
    struct testing t;
    testing_init(&t, UINT64_MAX);
    struct merge_estimate *m = merge_estimate_new();
    add(m, "a", chain(&t, (uint64_t[]){1}, 1, 0));
    add(m, "b", chain(&t, (uint64_t[]){2, 3}, 2, 0));
    merge_estimate_finish(m);
    char *svg = merge_draw_svg(m, NULL);
    int coloured = 0, grey = 0;
    for (const char *s = svg; (s = strstr(s, "fill=\"hsl(")); s++) coloured++;
    for (const char *s = svg; (s = strstr(s, "fill=\"#ddd\"")); s++) grey++;
    assert_int_equal(coloured, 2 + 1); /* and one in the legend */
    assert_int_equal(grey, 1 + 1);
    free(svg);
    merge_estimate_free(&m);
    testing_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_pairs),
        cmocka_unit_test(a_group_is_stored_as_often_as_the_member_with_most_has_it),
        cmocka_unit_test(equal_numbers_are_counted_apart),
        cmocka_unit_test(what_is_a_layer),
        cmocka_unit_test(nothing_in_common_is_an_answer),
        cmocka_unit_test(the_picture_colours_what_can_be_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
