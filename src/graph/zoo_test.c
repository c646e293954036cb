/* Tests of the zoo: parameter counts as published, shapes that the shape rules confirm, names refused, every n-th allocation may fail.
 * SPDX-License-Identifier: Apache-2.0 */
#include "graph/zoo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* torchvision's documentation ('num_params'; GoogLeNet and Inception: its modules without auxiliary heads, counted); of darknet's weight files (62,001,757
 * and 8,858,734 numbers) what is not running statistics; YOLOX: its table says 0.91, 5.06 and 8.97 million; OSNet: its authors say 0.2 million
 * (shared gates counted once); GPT-2 and the Llama of 260 thousand: as published. of the small ResNets the paper says 0.27, 0.46 and 0.66
 * million. Of our own the count is kept. */
static const struct {
    const char *name;
    int64_t parameters;
} published[] = {
    {"resnet18", 11689512}, {"resnet34", 21797672}, {"resnet50", 25557032}, {"resnet101", 44549160}, {"resnet152", 60192808},
    {"cifar-resnet20", 269722}, {"cifar-resnet32", 464154}, {"cifar-resnet44", 658586},
    {"vgg11", 132863336}, {"vgg13", 133047848}, {"vgg16", 138357544}, {"vgg19", 143667240}, {"vgg11_bn", 132868840}, {"vgg13_bn", 133053736},
    {"vgg16_bn", 138365992}, {"vgg19_bn", 143678248}, {"alexnet", 61100840}, {"mobilenetv2", 3504872}, {"squeezenet", 1248424},
    {"yolov3", 61949149}, {"yolov3-tiny", 8852366}, {"mobilenetv3-large", 5483032}, {"mobilenetv3-small", 2542856}, {"shufflenetv2", 2278604},
    {"googlenet", 6624904}, {"inceptionv3", 23834568}, {"densenet121", 7978856}, {"ssd300-vgg", 35641826}, {"ssdlite-mobilenetv3", 3440060},
    {"gpt2", 124439808}, {"yolox-nano", 912159}, {"yolox-tiny", 5055855}, {"yolox-s", 8968255}, {"brimdet", 242919}, {"brimpoint", 199268}, {"brimcrop", 140826}, {"osnet-x0.25", 201864},
    {"gpt2-mini", 10942464}, {"llama-mini", 260032}, {"unet", 434771},
};

static void parameters_are_the_published_ones(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "zoo");
    int n = 0;
    for (const char *const *name = graph_zoo_names(); *name; name++, n++) {
        int64_t want = 0;
        struct graph *g;
        for (size_t i = 0; i < ARRAY_LEN(published); i++)
            if (!strcmp(published[i].name, *name)) want = published[i].parameters;
        assert_int_equal(graph_zoo(*name, &(struct graph_zoo_options){.seed = 1}, p, &g), ERR_OK);
        if (graph_parameters(g) != want) fail_msg("%s: %lld, published %lld", *name, (long long)graph_parameters(g), (long long)want);
        struct graph *s;
        err e = graph_specialise(g, NULL, p, &s); /* the shape rules come to the same shapes, or refuse */
        if (e) fail_msg("%s: %s", *name, err_text());
        for (int i = 0; i < g->n_outputs; i++)
            assert_true(tensor_shape_equal(&g->values[g->outputs[i]].shape, &s->values[s->outputs[i]].shape));
        graph_free(&s);
        graph_free(&g);
    }
    assert_int_equal(n, ARRAY_LEN(published));
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void wrong_input(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "zoo");
    struct graph *g;
    assert_int_equal(graph_zoo("resnet19", &(struct graph_zoo_options){0}, p, &g), ERR_NOT_FOUND);
    assert_non_null(strstr(err_text(), "resnet18"));
    assert_int_equal(graph_zoo("resnet18", &(struct graph_zoo_options){.size = 5}, p, &g), ERR_USAGE);
    assert_int_equal(graph_zoo("resnet18", &(struct graph_zoo_options){.size = 64, .height = 32}, p, &g), ERR_USAGE);
    assert_int_equal(graph_zoo("brimdet", &(struct graph_zoo_options){.size = 64, .height = 40}, p, &g), ERR_USAGE);
    assert_int_equal(graph_zoo("brimdet", &(struct graph_zoo_options){.size = 64, .height = 5000}, p, &g), ERR_USAGE);
    assert_int_equal(graph_zoo("ssd300-vgg", &(struct graph_zoo_options){.size = 320}, p, &g), ERR_USAGE);
    assert_int_equal(graph_zoo("yolox-nano", &(struct graph_zoo_options){.size = 100}, p, &g), ERR_USAGE);
    assert_int_equal(graph_zoo("inceptionv3", &(struct graph_zoo_options){.size = 64}, p, &g), ERR_USAGE);
    assert_int_equal(graph_zoo("gpt2", &(struct graph_zoo_options){.size = 2000}, p, &g), ERR_USAGE);
    assert_non_null(strstr(err_text(), "1024 tokens"));
    mem_payer_free(&p);
    mem_budget_free(&b);
}

/* Sides that are odd, small or of no multiple: either they are refused by a sentence, or the shapes are right. */
static void any_size(void **state)
{
    static const char *const names[] = {"mobilenetv2", "mobilenetv3-small", "shufflenetv2", "squeezenet", "googlenet", "densenet121", "ssdlite-mobilenetv3",
                                        "yolox-nano", "brimdet", "brimpoint", "brimcrop", "osnet-x0.25", "unet", "yolov3-tiny", "llama-mini"};
    static const int sizes[] = {32, 33, 75, 160};
    (void)state;
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "zoo");
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
            struct graph *g, *s;
            err e = graph_zoo(names[i], &(struct graph_zoo_options){.size = sizes[k], .classes = 3}, p, &g);
            if (e) {
                if (e != ERR_USAGE || !str_starts(err_text(), names[i])) fail_msg("%s at %d: %s", names[i], sizes[k], err_text());
                continue;
            }
            if (graph_specialise(g, NULL, p, &s)) fail_msg("%s at %d: %s", names[i], sizes[k], err_text());
            for (int n = 0; n < g->n_outputs; n++)
                if (!tensor_shape_equal(&g->values[g->outputs[n]].shape, &s->values[s->outputs[n]].shape)) fail_msg("%s at %d: output %d", names[i], sizes[k], n);
            graph_free(&s);
            graph_free(&g);
        }
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void wide_detectors(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "zoo");
    struct graph *g;
    assert_int_equal(graph_zoo("brimdet", &(struct graph_zoo_options){.size = 96, .height = 64, .classes = 4}, p, &g), ERR_OK);
    const struct tensor_shape *in = &g->values[g->inputs[0]].shape, *out = &g->values[g->outputs[0]].shape;
    assert_int_equal(in->dims[2], 64);
    assert_int_equal(in->dims[3], 96);
    assert_int_equal(out->dims[1], 12 * 8 + 6 * 4 + 3 * 2);
    assert_int_equal(out->dims[2], 9);
    graph_free(&g);
    assert_int_equal(graph_zoo("brimpoint", &(struct graph_zoo_options){.size = 96, .height = 64, .classes = 4}, p, &g), ERR_OK);
    struct tensor_shape heat = {.rank = 4, .dims = {1, 4, 16, 24}}, two = {.rank = 4, .dims = {1, 2, 16, 24}};
    assert_int_equal(g->n_outputs, 3);
    assert_true(tensor_shape_equal(&g->values[g->outputs[0]].shape, &heat));
    for (int i = 1; i < 3; i++) assert_true(tensor_shape_equal(&g->values[g->outputs[i]].shape, &two));
    graph_free(&g);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("graph", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "zoo");
    for (uint64_t n = 1;; n++) {
        struct graph *g;
        mem_fault_at(b, n);
        err e = graph_zoo("squeezenet", &(struct graph_zoo_options){.classes = 3, .size = 64}, p, &g);
        mem_fault_at(b, 0);
        if (!e) {
            graph_free(&g);
            assert_true(n > 20);
            break;
        }
        assert_int_equal(e, ERR_NOMEM);
        assert_int_equal(mem_budget_used(b), 0);
    }
    mem_payer_free(&p);
    mem_budget_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parameters_are_the_published_ones), cmocka_unit_test(wrong_input), cmocka_unit_test(any_size), cmocka_unit_test(wide_detectors),
                                       cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
