/* Fuzz target: any floats as a model's outputs, for every head; the first byte chooses the head. The rest is
 * repeated to fill the outputs. SPDX-License-Identifier: Apache-2.0 */
#include "task/head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    const char *card;
    int count;
    struct task_output o[3];
} cases[] = {
#define C "card: 1\ninput: {size: [64, 64]}\n"
#define P "priors: [{grid: [8, 8], step: 8, sizes: [9]}]\n"
    {C "head: yolox\nlabels: [a, b]\n", 1, {{.rank = 3, .dims = {1, 84, 7}}}},
    {C "head: nanodet\nlabels: [a]\nstrides: [8]\n",
     2,
     {{.rank = 3, .dims = {1, 64, 1}}, {.rank = 3, .dims = {1, 64, 32}}}},
    {C "head: fastestdet\nlabels: [a, b]\n", 1, {{.rank = 4, .dims = {1, 7, 8, 8}}}},
    {C "head: ultraface\nlabels: [a]\n",
     2,
     {{.rank = 3, .dims = {1, 90, 2}}, {.rank = 3, .dims = {1, 90, 4}}}},
    {C "head: ssd\nlabels: [a]\n" P, 2, {{.rank = 2, .dims = {1, 256}}, {.rank = 2, .dims = {1, 128}}}},
    {C "head: yunet\nlabels: [a]\n" P,
     3,
     {{.rank = 2, .dims = {64, 14}}, {.rank = 2, .dims = {64, 2}}, {.rank = 2, .dims = {64, 1}}}},
    {C "head: yolo\nlabels: [a, b]\nlayout: v8\n", 1, {{.rank = 3, .dims = {1, 6, 90}}}},
    {C "head: yolo\nlabels: [a, b]\nlayout: v5\nscore: 0\n", 1, {{.rank = 3, .dims = {1, 90, 7}}}},
    {C "head: yolo\nlabels: [a, b]\nlayout: end2end\n", 1, {{.rank = 3, .dims = {1, 90, 6}}}},
    {C "head: classify\nclasses: 9\nactivation: softmax\n", 1, {{.rank = 2, .dims = {1, 9}}}},
    {C "head: attributes\nclasses: 9\n", 2, {{.rank = 2, .dims = {1, 9}}, {.rank = 2, .dims = {1, 2}}}},
    {C "head: embedding\n", 1, {{.rank = 2, .dims = {1, 5}}}},
    {C "head: segmentation\nclasses: 5\n", 1, {{.rank = 4, .dims = {1, 5, 8, 8}}}},
    {C "head: image\n", 1, {{.rank = 4, .dims = {1, 3, 8, 8}}}},
    {C "head: centernet\nlabels: [a, b]\n",
     3,
     {{.rank = 4, .dims = {1, 2, 8, 8}}, {.rank = 4, .dims = {1, 2, 8, 8}}, {.rank = 4, .dims = {1, 2, 8, 8}}}},
};

static void check(const struct task_result *r, const struct task_card *c)
{
    if (r->detection_count > c->top_k) abort();
    for (int i = 0; i < r->detection_count; i++) {
        const struct task_detection *d = &r->detections[i];
        if (!task_box_valid(&d->box) || d->box.x2 > 64 || d->box.x1 < 0 || d->class_id < 0 ||
            d->class_id >= c->class_count)
            abort();
        if (!(d->score >= c->score && d->score <= 1) || (i && d->score > d[-1].score)) abort();
    }
    for (int i = 0; i < r->embedding_count; i++)
        if (!isfinite(r->embedding[i])) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 5) return 0;
    size_t which = data[0] % ARRAY_LEN(cases);
    struct task_output o[3];
    for (int i = 0; i < cases[which].count; i++) {
        size_t bytes = sizeof(float);
        o[i] = cases[which].o[i];
        o[i].name = "o";
        for (int k = 0; k < o[i].rank; k++)
            bytes *= (size_t)o[i].dims[k];
        uint8_t *v = malloc(bytes);
        for (size_t k = 0; k < bytes; k++)
            v[k] = data[1 + (k + (size_t)i * 4) % ((size - 1) / 4 * 4)];
        o[i].data = (const float *)v;
    }
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "fuzz");
    struct task_card *c = NULL;
    struct task_head *h = NULL;
    struct task_result r;
    if (task_card_parse(cases[which].card, strlen(cases[which].card), NULL, &c)) abort();
    if (task_head_new(p, c, o, cases[which].count, &h) || task_head_run(h, o, cases[which].count, 0, &r))
        abort();
    check(&r, c);
    task_head_free(&h);
    task_card_free(&c);
    for (int i = 0; i < cases[which].count; i++)
        free((void *)o[i].data);
    mem_payer_free(&p);
    mem_budget_free(&b);
    return 0;
}
