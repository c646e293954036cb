/* Exchanging heads: networks of the zoo, and shapes of heads that exporters write; what is kept is kept bit by bit. SPDX-License-Identifier: Apache-2.0 */
#include "train/head.h"
#include "graph/zoo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void output_is(const struct graph *g, struct tensor_shape want)
{
    struct graph *t;
    char a[96], b[96];
    if (graph_specialise(g, NULL, g->payer, &t)) fail_msg("%s", err_text());
    tensor_shape_text(&t->values[t->outputs[0]].shape, NULL, a, sizeof a);
    tensor_shape_text(&want, NULL, b, sizeof b);
    assert_string_equal(a, b);
    graph_free(&t);
}

/* Of the constants that nodes read, how many bytes are new? */
static int64_t new_numbers(const struct graph *g, size_t n_values)
{
    int64_t n = 0;
    for (size_t v = n_values; v < g->n_values; v++) n += g->values[v].dtype == TENSOR_F32 ? tensor_count(&g->values[v].shape) : 0;
    return n;
}

static void zoo(void **state)
{
    (void)state;
    static const struct { const char *name; bool detector; int classes, old; int64_t last, numbers; } nets[] = {
        {"resnet18", false, 7, 1000, 7, 512 * 7 + 7}, {"squeezenet", false, 7, 1000, 7, 512 * 7 + 7}, {"mobilenetv2", false, 3, 1000, 3, 1280 * 3 + 3},
        {"alexnet", false, 2, 1000, 2, 4096 * 2 + 2}, {"yolox-nano", true, 3, 80, 8, 3 * (64 * 3 + 3)}, {"brimdet", true, 1, 80, 6, 0}, {"brimpoint", true, 2, 80, 2, 32 * 2 + 2}};
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "test");
    for (size_t i = 0; i < ARRAY_LEN(nets); i++) {
        struct graph *g;
        char said[300];
        int found;
        assert_int_equal(graph_zoo(nets[i].name, &(struct graph_zoo_options){.size = nets[i].detector ? 64 : 0}, p, &g), ERR_OK);
        size_t before = g->n_values;
        if (train_head_classes(g, nets[i].detector, &found)) fail_msg("%s: %s", nets[i].name, err_text());
        assert_int_equal(found, nets[i].old);
        if (train_head_replace(g, nets[i].detector, nets[i].classes, 1, said, sizeof said)) fail_msg("%s: %s", nets[i].name, err_text());
        bool peaks = !strcmp(nets[i].name, "brimpoint");
        assert_non_null(strstr(said, peaks ? "brimpoint: 2 classes instead of 80: layer '" : nets[i].detector ? " classes instead of 80: layers like" : " classes instead of 1000: layer '"));
        assert_int_equal(train_head_classes(g, nets[i].detector, &found), ERR_OK);
        assert_int_equal(found, nets[i].classes);
        if (peaks) output_is(g, (struct tensor_shape){.rank = 4, .dims = {1, nets[i].last, 16, 16}});
        else if (nets[i].detector) output_is(g, (struct tensor_shape){.rank = 3, .dims = {1, 84, nets[i].last}});
        else output_is(g, (struct tensor_shape){.rank = 2, .dims = {1, nets[i].last}});
        if (nets[i].numbers) assert_int_equal(new_numbers(g, before), nets[i].numbers);
        graph_free(&g);
    }
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static int node(struct graph *g, enum op_kind kind, const char *name, const int *in, int n_in)
{
    int y = graph_add_value(g, name, TENSOR_NONE, NULL);
    struct graph_node *n = graph_add_node(g, kind, name, n_in, 1);
    memcpy(n->op.in, in, (size_t)n_in * sizeof *in);
    n->op.out[0] = y;
    return y;
}

static int floats(struct graph *g, const char *name, struct tensor_shape s)
{
    float *f;
    int v;
    assert_int_equal(graph_add_constant(g, name, TENSOR_F32, &s, &v, (void **)&f), ERR_OK);
    for (int64_t i = 0; i < tensor_count(&s); i++) f[i] = 1;
    return v;
}

/* MatMul, Add of a bias that another node reads too, a Reshape with the number written down, Softmax. And what cannot be exchanged. */
static void shapes_of_heads(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "test");
    struct graph *g = graph_new("net", 13, p);
    struct tensor_shape list = {.rank = 1, .dims = {2}};
    int x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 2, .dims = {1, 4}}), v, found;
    int bias = floats(g, "bias", (struct tensor_shape){.rank = 1, .dims = {5}});
    int64_t *sizes;
    char said[300];
    assert_int_equal(graph_add_constant(g, "sizes", TENSOR_I64, &list, &v, (void **)&sizes), ERR_OK);
    sizes[0] = -1;
    sizes[1] = 5;
    int y = node(g, OP_MATMUL, "product", (int[]){x, floats(g, "w", (struct tensor_shape){.rank = 2, .dims = {4, 5}})}, 2);
    y = node(g, OP_ADD, "sum", (int[]){bias, y}, 2);
    y = node(g, OP_RESHAPE, "shape", (int[]){y, v}, 2);
    graph_add_output(g, node(g, OP_SOFTMAX, "soft", &y, 1));
    assert_int_equal(train_head_replace(g, false, 9, 1, said, sizeof said), ERR_OK);
    assert_string_equal(said, "net: 9 classes instead of 5: layer 'product' begins untrained");
    output_is(g, (struct tensor_shape){.rank = 2, .dims = {1, 9}});
    assert_int_equal(sizes[1], 5); /* the old list stays what it was: another node might read it */
    graph_free(&g);

    /* the sizes put together: what the batch is, and a single number that becomes a list on its way */
    g = graph_new("joined", 13, p);
    x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 2, .dims = {1, 4}});
    y = node(g, OP_MATMUL, "product", (int[]){x, floats(g, "w", (struct tensor_shape){.rank = 2, .dims = {4, 5}})}, 2);
    int64_t *number, *axes, *first;
    int five, zero, any;
    assert_int_equal(graph_add_constant(g, "five", TENSOR_I64, &(struct tensor_shape){.rank = 0}, &five, (void **)&number), ERR_OK);
    assert_int_equal(graph_add_constant(g, "zero", TENSOR_I64, &(struct tensor_shape){.rank = 1, .dims = {1}}, &zero, (void **)&axes), ERR_OK);
    assert_int_equal(graph_add_constant(g, "any", TENSOR_I64, &(struct tensor_shape){.rank = 1, .dims = {1}}, &any, (void **)&first), ERR_OK);
    *number = 5;
    *axes = 0;
    *first = -1;
    int joined = node(g, OP_CONCAT, "joined", (int[]){any, node(g, OP_UNSQUEEZE, "list", (int[]){five, zero}, 2)}, 2);
    graph_set_int(&g->nodes[g->n_nodes - 1], "axis", 0);
    graph_add_output(g, node(g, OP_RESHAPE, "shape", (int[]){y, joined}, 2));
    if (train_head_replace(g, false, 9, 1, said, sizeof said)) fail_msg("%s", err_text());
    output_is(g, (struct tensor_shape){.rank = 2, .dims = {1, 9}});
    graph_free(&g);

    g = graph_new("odd", 13, p);
    x = graph_add_input(g, "x", TENSOR_F32, &(struct tensor_shape){.rank = 2, .dims = {1, 4}});
    y = node(g, OP_MATMUL, "product", (int[]){x, x}, 2);
    graph_add_output(g, node(g, OP_TANH, "squash", &y, 1));
    assert_int_equal(train_head_classes(g, false, &found), ERR_UNSUPPORTED);
    assert_string_equal(err_text(), "odd: its classes cannot be exchanged: before output 'squash' comes node 'squash' (Tanh), where a Gemm, MatMul or Conv with weights of its own was "
                                    "expected; make a network with 'brim new ARCH --classes N'");
    assert_int_equal(train_head_replace(g, false, 9, 1, said, sizeof said), ERR_UNSUPPORTED);
    graph_free(&g);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(zoo), cmocka_unit_test(shapes_of_heads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
