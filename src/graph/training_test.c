/* The training form: what becomes a parameter, what a state, that numbers hold, and that gradient steps lower a loss.
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/training.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "graph/backward_try.h"
#include "graph/zoo.h"

static struct testing T;

static int set_up(void **state)
{
    (void)state;
    testing_init(&T, 256 << 20);
    return 0;
}

static int set_up_small(void **state)
{
    (void)state;
    testing_init(&T, 48 << 20); /* the larger networks do not fit and are passed over */
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    testing_done(&T);
    return 0;
}

static void rename_value(struct graph *g, int v, const char *name)
{
    free(g->values[v].name);
    g->values[v].name = xstrdup(name);
}

/* Conv, batch norm, Silu as exporters write it, a constant of a decoder, global average, a linear layer behind a Transpose. */
static struct graph *small(void)
{
    struct graph *g = graph_new("small", 13, T.payer);
    int64_t symbolic[] = {TENSOR_SYMBOL(0), 3, 6, 6};
    g->symbols = xnewn(char *, 1);
    g->symbols[g->n_symbols++] = xstrdup("N");
    int x = testing_input(g, "x", 4, symbolic), w = testing_floats(g, 1, DIMS(4, 3, 3, 3));
    rename_value(g, w, "conv.weight");
    int y = testing_node(g, OP_CONV, x, w, -1), norm[4];
    static const char *const NAMES[] = {"bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"};
    for (int i = 0; i < 4; i++) {
        norm[i] = testing_floats(g, 2 + (uint64_t)i, DIMS(4));
        rename_value(g, norm[i], NAMES[i]);
        for (int k = 0; k < 4; k++) ((float *)g->values[norm[i]].owned)[k] = i == 0 || i == 3;
    }
    struct graph_node *n = graph_add_node(g, OP_BATCH_NORM, "bn", 5, 1);
    n->op.in[0] = y;
    for (int i = 0; i < 4; i++) n->op.in[1 + i] = norm[i];
    y = graph_add_value(g, "normed", TENSOR_NONE, NULL);
    g->nodes[g->n_nodes - 1].op.out[0] = y;
    y = testing_node(g, OP_MUL, y, testing_node(g, OP_SIGMOID, y, -1, -1), -1);
    int grid = testing_floats(g, 9, DIMS(4, 1, 1));
    rename_value(g, grid, "onnx::Mul_77");
    y = testing_node(g, OP_MUL, y, grid, -1);
    y = testing_node(g, OP_FLATTEN, testing_node(g, OP_GLOBAL_AVERAGE_POOL, y, -1, -1), -1, -1);
    int linear = testing_floats(g, 11, DIMS(5, 4));
    rename_value(g, linear, "head.weight");
    y = testing_node(g, OP_MATMUL, y, testing_node(g, OP_TRANSPOSE, linear, -1, -1), -1);
    graph_add_output(g, y);
    return g;
}

static bool not_conv(void *context, const char *name, bool usual)
{
    ++*(int *)context;
    return usual && strcmp(name, "conv.weight") != 0;
}

static void test_form(void **state)
{
    (void)state;
    struct graph *g = small();
    struct graph_training *t = NULL;
    struct tensor_shape shape = tensor_shape_of(DIMS(4, 3, 6, 6));
    struct graph_training_options o = {.input_shapes = &shape};
    assert_int_equal(graph_training_form(g, &o, T.payer, &t), ERR_OK);
    assert_int_equal(t->n_trained, 4);
    assert_int_equal(t->n_params, 6);
    static const char *const WANT[] = {"conv.weight", "bn.weight", "bn.bias", "head.weight", "bn.running_mean", "bn.running_var"};
    for (int i = 0; i < 6; i++) {
        assert_string_equal(t->params[i].name, WANT[i]);
        assert_true(t->g->values[t->params[i].value].is_input);
        assert_ptr_equal(t->params[i].initial, g->values[t->params[i].source_value].constant);
        assert_int_equal(t->params[i].role, i == 0 || i == 3 ? GRAPH_PARAMETER_WEIGHT : i < 4 ? GRAPH_PARAMETER_VECTOR : GRAPH_PARAMETER_STATE);
        assert_true(i < 4 ? t->params[i].update == -1 : t->g->values[t->params[i].update].is_output);
    }
    bool silu = false;
    for (size_t i = 0; i < t->g->n_nodes; i++) silu |= t->g->nodes[i].op.kind == OP_SILU;
    assert_true(silu);
    graph_training_free(&t);
    int asked = 0;
    o = (struct graph_training_options){.input_shapes = &shape, .choose = not_conv, .context = &asked, .frozen_statistics = true};
    assert_int_equal(graph_training_form(g, &o, T.payer, &t), ERR_OK);
    assert_int_equal(t->n_trained, 3);
    assert_int_equal(t->n_params, 3);
    assert_true(asked >= 5);
    graph_training_free(&t);
    graph_free(&g);
}

static void run_steps(struct graph *g, struct graph_training *t, int steps, double *first, double *last)
{
    struct try_draw d = {5};
    struct graph_builder b = {.g = t->g, .name = "loss"};
    struct tensor_shape s = t->g->values[t->g->outputs[0]].shape;
    int target = graph_add_input(t->g, "target", TENSOR_F32, &s), loss = graph_b_cross_entropy(&b, t->g->outputs[0], target, 0);
    assert_int_equal(b.e, ERR_OK);
    int wrt[8], grads[8];
    for (int i = 0; i < t->n_trained; i++) wrt[i] = t->params[i].value;
    assert_int_equal(graph_backward(t->g, loss, wrt, t->n_trained, grads), ERR_OK);
    void *in[16] = {0};
    for (int i = 0; i < t->g->n_inputs; i++) {
        int64_t n = tensor_count(&t->g->values[t->g->inputs[i]].shape);
        float *p = in[i] = xcalloc((size_t)n, sizeof(float));
        for (int64_t k = 0; k < n; k++) p[k] = (float)try_between(&d, -1, 1);
        for (int k = 0; k < t->n_params; k++)
            if (t->params[k].value == t->g->inputs[i]) memcpy(p, t->params[k].initial, (size_t)n * 4);
        if (t->g->inputs[i] == target)
            for (int64_t k = 0; k < n; k++) p[k] = k % 5 == k / 5;
    }
    for (int step = 0; step < steps; step++) {
        struct tensor *values = try_run(t->g, in);
        assert_non_null(values);
        *last = try_at(&values[loss], 0);
        if (!step) *first = *last;
        for (int k = 0; k < t->n_params; k++)
            for (int i = 0; i < t->g->n_inputs; i++) {
                if (t->g->inputs[i] != t->params[k].value) continue;
                float *p = in[i];
                for (int64_t j = 0; j < t->params[k].count; j++)
                    p[j] = k < t->n_trained ? p[j] - 0.5f * (float)try_at(&values[grads[k]], j) : (float)try_at(&values[t->params[k].update], j);
            }
        try_free(t->g, &values);
    }
    for (int k = 0; k < t->n_params; k++)
        for (int i = 0; i < t->g->n_inputs; i++)
            if (t->g->inputs[i] == t->params[k].value)
                assert_int_equal(graph_set_constant(g, t->params[k].source_value, in[i], t->params[k].count), ERR_OK);
    for (int i = 0; i < t->g->n_inputs; i++) free(in[i]);
}

/* Trained with plain steps; the numbers go back into the user's graph, whose running statistics have moved. */
static void test_steps(void **state)
{
    (void)state;
    struct graph *g = small();
    struct graph_training *t = NULL;
    struct tensor_shape shape = tensor_shape_of(DIMS(5, 3, 6, 6));
    struct graph_training_options o = {.input_shapes = &shape};
    assert_int_equal(graph_training_form(g, &o, T.payer, &t), ERR_OK);
    double first = 0, last = 0;
    run_steps(g, t, 120, &first, &last);
    print_message("# loss %.4f, after 120 steps %.4f\n", first, last);
    assert_true(last < 0.5 * first);
    const float *mean = g->values[t->params[4].source_value].constant;
    assert_true(fabsf(mean[0]) > 1e-4f);
    assert_int_equal(graph_set_constant(g, t->params[0].source_value, mean, 3), ERR_SHAPE);
    graph_training_free(&t);
    graph_free(&g);
}

static bool none(void *context, const char *name, bool usual)
{
    (void)context;
    (void)name;
    (void)usual;
    return false;
}

static void test_refusals(void **state)
{
    (void)state;
    struct graph *g = small();
    struct graph_training *t = NULL;
    struct graph_training_options o = {.choose = none};
    assert_int_equal(graph_training_form(g, &o, T.payer, &t), ERR_USAGE);
    assert_null(t);
    graph_free(&g);
}

/* As PyTorch exports a network that is in training: opset 13, the norm says so by its outputs. Inference refuses it; its inference form is the network. */
static void test_inference_form(void **state)
{
    (void)state;
    struct graph *g = small(), *plain = testing_specialised(g, T.payer), *s = NULL;
    struct graph_node *n = NULL;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op.kind == OP_BATCH_NORM) n = &g->nodes[i];
    assert_non_null(n);
    int mean = graph_add_value(g, "bn.mean", TENSOR_NONE, NULL), variance = graph_add_value(g, "bn.var", TENSOR_NONE, NULL);
    n->op.out = xrealloc(n->op.out, 3 * sizeof *n->op.out);
    n->op.out[1] = mean;
    n->op.out[2] = variance;
    n->op.n_out = 3;
    assert_int_equal(graph_specialise(g, NULL, T.payer, &s), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "brim export"));
    graph_add_output(g, mean);
    assert_int_equal(graph_inference_form(g), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "'bn.mean'"));
    g->n_outputs--;
    assert_int_equal(graph_inference_form(g), ERR_OK);
    s = testing_specialised(g, T.payer);
    size_t n_a, n_b;
    float *was = testing_run(plain, 3, &n_a), *is = testing_run(s, 3, &n_b);
    assert_true(testing_distance(is, n_b, was, n_a) == 0);
    free(was);
    free(is);
    graph_free(&s);
    graph_free(&plain);
    graph_free(&g);
}

/* ---- dropout */

struct drop_case {
    int opset, n_in, n_out; /* n_in 2: with a ratio as input; 3: and a mode, which is on */
    float ratio;            /* < 0: not said */
    double all;
};

/* x [N, 6] -> Dropout -> MatMul; in subgraphs and elsewhere the way is the same. */
static struct graph *with_dropout(const struct drop_case *c)
{
    struct graph *g = graph_new("drops", c->opset, T.payer);
    int x = testing_input(g, "x", DIMS(1, 6)), w = testing_floats(g, 1, DIMS(6, 2));
    rename_value(g, w, "weight");
    int given = c->n_in > 1 ? testing_number(g, c->ratio) : -1, on = -1;
    if (c->n_in > 2) {
        void *bit;
        struct tensor_shape one = {.rank = 0};
        assert_int_equal(graph_add_constant(g, "on", TENSOR_BOOL, &one, &on, &bit), ERR_OK);
        *(uint8_t *)bit = 1;
    }
    struct graph_node *n = graph_add_node(g, OP_DROPOUT, "drop", c->n_in, c->n_out);
    n->op.opset = c->opset;
    n->op.in[0] = x;
    if (c->n_in > 1) n->op.in[1] = given;
    if (c->n_in > 2) n->op.in[2] = on;
    if (c->n_in == 1 && c->ratio >= 0) graph_set_float(n, "ratio", c->ratio);
    int y = graph_add_value(g, "dropped", TENSOR_NONE, NULL), mask = c->n_out > 1 ? graph_add_value(g, "mask", TENSOR_NONE, NULL) : -1;
    g->nodes[g->n_nodes - 1].op.out[0] = y;
    if (mask >= 0) g->nodes[g->n_nodes - 1].op.out[1] = mask;
    graph_add_output(g, testing_node(g, OP_MATMUL, y, w, -1));
    return g;
}

static void test_dropout(void **state)
{
    (void)state;
    static const struct {
        struct drop_case c;
        float want; /* 0: none */
    } cases[] = {{{7, 1, 1, 0.3f, 0}, 0.3f}, {{7, 1, 2, -1, 0}, 0.5f}, {{6, 1, 1, 0.1f, 0.7}, 0.7f}, {{10, 1, 2, 0, 0}, 0}, {{12, 2, 1, 0.2f, 0}, 0.2f}, {{13, 1, 1, -1, 0}, 0.5f}, {{13, 3, 2, 0.25f, 0}, 0.25f},
                 {{13, 3, 1, 0.25f, -1}, 0}, {{13, 2, 1, 0, 0.6}, 0.6f}, {{13, 2, 1, 1, 0}, 1}, {{13, 2, 1, 7, 0.6}, 0.6f}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct graph *g = with_dropout(&cases[i].c);
        struct graph_training *t = NULL;
        struct tensor_shape shape = tensor_shape_of(DIMS(4, 6));
        struct graph_training_options o = {.input_shapes = &shape, .dropout = cases[i].c.all};
        if (cases[i].c.all < 0) assert_int_equal(graph_inference_form(g), ERR_OK); /* as a job does */
        if (graph_training_form(g, &o, T.payer, &t)) fail_msg("case %zu: %s", i, err_text());
        assert_int_equal(t->n_dropouts, cases[i].want > 0);
        assert_int_equal(t->g->n_inputs, 2 + (cases[i].want > 0));
        assert_int_equal(t->draw, cases[i].want > 0 ? t->g->inputs[2] : -1);
        int found = 0;
        for (size_t k = 0; k < t->g->n_nodes; k++) {
            const struct op_node *n = &t->g->nodes[k].op;
            assert_int_not_equal(n->kind, OP_DROPOUT);
            if (n->kind != OP_DROPOUT_BY) continue;
            found++;
            assert_true(op_attr_float(n, "ratio", -1) == cases[i].want);
            assert_int_equal(op_attr_int(n, "node", -1), 0);
            assert_int_equal(t->g->values[n->out[0]].shape.dims[0], 4); /* the batch follows */
        }
        assert_int_equal(found, t->n_dropouts);
        graph_training_free(&t);
        graph_free(&g);
    }
}

static void test_dropout_refused(void **state)
{
    (void)state;
    static const float bad[] = {-0.5f, 1.5f, NAN};
    struct graph_training *t = NULL;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct graph *g = with_dropout(&(struct drop_case){13, 2, 1, bad[i], 0});
        assert_int_equal(graph_training_form(g, NULL, T.payer, &t), ERR_FORMAT);
        assert_non_null(strstr(err_text(), "its ratio is"));
        assert_non_null(strstr(err_text(), "'drop'"));
        graph_free(&g);
    }
    struct graph *g = with_dropout(&(struct drop_case){13, 2, 2, 0.5f, 0}); /* the mask is read */
    for (size_t v = 0; v < g->n_values; v++)
        if (!strcmp(g->values[v].name, "mask")) graph_add_output(g, (int)v);
    assert_int_equal(graph_training_form(g, NULL, T.payer, &t), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "its mask is read"));
    struct graph_training_options off = {.dropout = -1};
    assert_int_equal(graph_training_form(g, &off, T.payer, &t), ERR_OK);
    graph_training_free(&t);
    graph_free(&g);
    g = with_dropout(&(struct drop_case){13, 2, 1, 0.5f, 0}); /* the ratio comes from outside */
    struct tensor_shape one = {.rank = 0};
    int ratio = graph_add_input(g, "ratio", TENSOR_F32, &one);
    for (size_t k = 0; k < g->n_nodes; k++)
        if (g->nodes[k].op.kind == OP_DROPOUT) g->nodes[k].op.in[1] = ratio;
    assert_int_equal(graph_training_form(g, NULL, T.payer, &t), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "its ratio is no constant"));
    assert_null(t);
    graph_free(&g);
}

/* Elements are counted as they lie: of images with the channels last, of what attention multiplies in rows. */
static void test_dropout_order(void **state)
{
    (void)state;
    static const enum op_kind kinds[] = {OP_CONV, OP_SOFTMAX};
    for (int k = 0; k < 2; k++) {
        struct graph *g = graph_new("order", 13, T.payer);
        struct graph_training *t = NULL;
        int x = testing_input(g, "x", DIMS(1, 3, 5, 5)), w = testing_floats(g, 1, DIMS(3, 3, 1, 1));
        rename_value(g, w, "weight");
        x = testing_node(g, OP_CONV, x, w, -1);
        if (kinds[k] == OP_SOFTMAX) x = testing_node(g, OP_SOFTMAX, x, -1, -1);
        graph_add_output(g, testing_node(g, OP_DROPOUT, testing_node(g, OP_RELU, x, -1, -1), -1, -1));
        assert_int_equal(graph_training_form(g, NULL, T.payer, &t), ERR_OK);
        assert_int_equal(t->n_dropouts, 1);
        for (size_t i = 0; i < t->g->n_nodes; i++)
            if (t->g->nodes[i].op.kind == OP_DROPOUT_BY) assert_int_equal(op_attr_int(&t->g->nodes[i].op, "channels_last", -1), k == 0);
        graph_training_free(&t);
        graph_free(&g);
    }
}

/* Every network of the zoo takes the form and has a gradient for each parameter. */
static void test_zoo(void **state)
{
    (void)state;
    int count = 0;
    for (const char *const *name = graph_zoo_names(); *name; name++) {
        struct graph *g = NULL;
        struct graph_training *t = NULL;
        struct graph_zoo_options zoo = {.classes = 4};
        if (graph_zoo(*name, &zoo, T.payer, &g)) { /* larger than the test's budget */
            assert_non_null(strstr(err_text(), "budget"));
            continue;
        }
        if (graph_training_form(g, NULL, T.payer, &t)) fail_msg("%s: %s", *name, err_text());
        int64_t sum = 0;
        for (int i = 0; i < t->n_trained; i++) sum += t->params[i].count;
        assert_int_equal(sum, graph_parameters(g));
        struct graph_builder b = {.g = t->g, .name = "loss"};
        int loss = graph_b_reduce(&b, OP_REDUCE_MEAN, t->g->outputs[0], NULL, -1, false);
        int *wrt = xnewn(int, (size_t)t->n_trained), *grads = xnewn(int, (size_t)t->n_trained);
        for (int i = 0; i < t->n_trained; i++) wrt[i] = t->params[i].value;
        if (graph_backward(t->g, loss, wrt, t->n_trained, grads)) fail_msg("%s: %s", *name, err_text());
        int missing = 0;
        for (int i = 0; i < t->n_trained; i++) missing += grads[i] < 0;
        if (missing) print_message("# %s: %d of %d parameters do not reach the first output\n", *name, missing, t->n_trained);
        free(wrt);
        free(grads);
        graph_training_free(&t);
        graph_free(&g);
        count++;
    }
    print_message("# %d networks\n", count);
    assert_true(count >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_form, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_steps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_inference_form, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dropout, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dropout_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dropout_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_zoo, set_up_small, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
