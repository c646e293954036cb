/* Tests of the heads: numbers worked out by hand, shapes that do not fit, and any float at all.
 * SPDX-License-Identifier: Apache-2.0 */
#include "task/head.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct world {
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct task_card *card;
    struct task_head *head;
    struct task_output o[6];
    float *data[6];
    int count;
    struct task_result r;
};

static int setup(void **state)
{
    struct world *w = xnew(struct world);
    w->budget = mem_budget_new("host", UINT64_MAX);
    w->payer = mem_payer_new(w->budget, "head");
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    task_head_free(&w->head);
    task_card_free(&w->card);
    for (int i = 0; i < w->count; i++)
        free(w->data[i]);
    mem_payer_free(&w->payer);
    mem_budget_free(&w->budget);
    free(w);
    return 0;
}

static void card(struct world *w, const char *text)
{
    char *whole = xasprintf("card: 1\n%s", text);
    if (task_card_parse(whole, strlen(whole), NULL, &w->card)) fail_msg("%s", err_text());
    free(whole);
}

/* One more output, filled with `fill`. */
static float *add(struct world *w, float fill, int rank, const int64_t *dims)
{
    int64_t n = 1;
    struct task_output *o = &w->o[w->count];
    o->name = "o";
    o->rank = rank;
    for (int i = 0; i < rank; i++)
        n *= o->dims[i] = dims[i];
    float *v = w->data[w->count++] = xnewn(float, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        v[i] = fill;
    o->data = v;
    return v;
}
#define ADD(w, fill, ...) add(w, fill, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__})

static void make(struct world *w)
{
    if (task_head_new(w->payer, w->card, w->o, w->count, &w->head)) fail_msg("%s", err_text());
    assert_int_equal(mem_budget_used(w->budget), task_head_bytes(w->card, w->o, w->count));
}

static void run(struct world *w, int item)
{
    if (task_head_run(w->head, w->o, w->count, item, &w->r)) fail_msg("%s", err_text());
}

static void expect_box(const struct world *w, int i, float x1, float y1, float x2, float y2, float score,
                       int class_id)
{
    const struct task_detection *d = &w->r.detections[i];
    assert_in_range(i, 0, w->r.detection_count - 1);
    assert_float_equal(d->box.x1, x1, 1e-3);
    assert_float_equal(d->box.y1, y1, 1e-3);
    assert_float_equal(d->box.x2, x2, 1e-3);
    assert_float_equal(d->box.y2, y2, 1e-3);
    assert_float_equal(d->score, score, 1e-5);
    assert_int_equal(d->class_id, class_id);
}

static void put(float *to, size_t n, const float *v)
{
    memcpy(to, v, n * sizeof *v);
}
#define PUT(to, ...) put(to, sizeof((float[]){__VA_ARGS__}) / sizeof(float), (float[]){__VA_ARGS__})

static void yolox(void **state)
{
    struct world *w = *state;
    card(w, "head: yolox\ninput: {size: [64, 32]}\nlabels: [a, b]\nstrides: [16, 32]\n");
    float *v = ADD(w, 0, 2, 4 * 2 + 2, 7);
    /* stride 16: 4 x 2 cells; cell (1, 1) is row 5: centre (1.5, 1.25) * 16 = (24, 20), sides 16 * (e^0,
     * e^0.5) */
    PUT(v + 5 * 7, 0.5f, 0.25f, 0, 0.5f, 0.9f, 0.1f, 0.8f);
    /* stride 32, second cell, second picture: centre (1, 0) * 32; cut at the edges */
    PUT(v + 10 * 7 + 9 * 7, 0, 0, 0, 0, 1, 0.6f, 0.2f);
    make(w);
    run(w, 0);
    assert_int_equal(w->r.detection_count, 1);
    float h = 8 * expf(0.5f);
    expect_box(w, 0, 16, 20 - h, 32, MIN(20 + h, 32), 0.72f, 1);
    run(w, 1);
    assert_int_equal(w->r.detection_count, 1);
    expect_box(w, 0, 16, 0, 48, 16, 0.6f, 0);
    assert_int_equal(task_head_run(w->head, w->o, 1, 2, &w->r), ERR_SHAPE);
    w->o[0].dims[1] = 9;
    assert_int_equal(task_head_run(w->head, w->o, 1, 0, &w->r), ERR_SHAPE);
}

static void nanodet(void **state)
{
    struct world *w = *state;
    card(w, "head: nanodet\ninput: {size: [16, 16]}\nlabels: [a]\nstrides: [8]\nreg_max: 3\n");
    float *s = ADD(w, 0, 1, 4, 1), *d = ADD(w, -100, 1, 4, 16);
    s[3] = 0.8f;           /* cell (1, 1): centre (12, 12) */
    float *v = d + 3 * 16; /* left 1 (all weight in bin 1), up 0.5 (bins 0 and 1), right 0, down 0.25 */
    v[1] = 50;
    v[4] = v[5] = 7;
    v[8] = 9;
    v[12] = logf(3);
    v[13] = 0;
    make(w);
    run(w, 0);
    assert_int_equal(w->r.detection_count, 1);
    expect_box(w, 0, 4, 8, 12, 14, 0.8f, 0);
}

static void fastestdet(void **state)
{
    struct world *w = *state;
    card(w, "head: fastestdet\ninput: {size: [40, 20]}\nlabels: [a, b]\n");
    float *v = ADD(w, 0, 1, 7, 2, 4);
    /* cell x 2, y 1 is 6: offsets 0 -> centre (2/4 * 40, 1/2 * 20) = (20, 10); sides sigmoid(0) = half of 40,
     * 20 */
    v[6] = 0.9f;
    v[6 * 8 + 6] = 0.7f;
    make(w);
    run(w, 0);
    assert_int_equal(w->r.detection_count, 1);
    expect_box(w, 0, 10, 5, 30, 15, powf(0.9f, 0.6f) * powf(0.7f, 0.4f), 1);
}

/* Input 40 x 16, maps of 5 x 4: cells of 8 x 4 pixels. */
static void centernet(void **state)
{
    struct world *w = *state;
    card(w, "head: centernet\ninput: {size: [40, 16]}\nlabels: [a, b]\nnms: 1\n");
    float *heat = ADD(w, 0.1f, 2, 2, 4, 5), *size = ADD(w, 1, 2, 2, 4, 5), *offset = ADD(w, 0.5f, 2, 2, 4, 5);
    /* class b: cell (2, 1) is a peak, (3, 1) beside it is not; offsets 0.25, 0.75: centre (18, 7); sides 3 x 8, 2 x 4 */
    heat[20 + 7] = 0.9f;
    heat[20 + 8] = 0.8f;
    size[7] = 3, size[20 + 7] = 2;
    offset[7] = 0.25f, offset[20 + 7] = 0.75f;
    /* class a: a peak in the same cell; two equal ones side by side in the corner, of which one has no area */
    heat[7] = 0.5f;
    heat[19] = heat[18] = 0.7f;
    size[18] = -1;
    /* a peak beside one that is no number */
    heat[0] = 0.4f;
    heat[1] = NAN;
    /* second picture: too far out, and cut */
    heat[40] = 0.6f;
    offset[40] = -0.25f;
    heat[40 + 4] = 0.6f;
    offset[40 + 4] = 9;
    make(w);
    run(w, 0);
    assert_int_equal(w->r.detection_count, 4);
    expect_box(w, 0, 18 - 12, 7 - 4, 18 + 12, 7 + 4, 0.9f, 1);
    expect_box(w, 1, 32, 12, 40, 16, 0.7f, 0);
    expect_box(w, 2, 18 - 12, 7 - 4, 18 + 12, 7 + 4, 0.5f, 0);
    expect_box(w, 3, 0, 0, 8, 4, 0.4f, 0);
    run(w, 1);
    assert_int_equal(w->r.detection_count, 1);
    expect_box(w, 0, 0, 0, 2, 4, 0.6f, 0);
    w->o[2].dims[3] = 4;
    assert_int_equal(task_head_run(w->head, w->o, 3, 0, &w->r), ERR_SHAPE);
    assert_int_equal(task_card_check(w->card, NULL, 0, w->o, 3), ERR_SHAPE);
    assert_non_null(strstr(err_text(), "expects a map of the centre's offsets as [N, 2, 4, 5], but output 'o' is [2, 2, 4, 4]"));
    assert_int_equal(task_card_check(w->card, NULL, 0, w->o, 2), ERR_SHAPE);
    assert_non_null(strstr(err_text(), "needs 3 outputs, but the model has 2"));
}

/* Logits: the same peaks, scores after the sigmoid; suppression takes what overlaps. */
static void centernet_logits(void **state)
{
    struct world *w = *state;
    card(w, "head: centernet\ninput: {size: [32, 8]}\nlabels: [a]\nactivation: sigmoid\n");
    float *heat = ADD(w, -5, 1, 1, 2, 8), *size = ADD(w, 3, 1, 2, 2, 8), *offset = ADD(w, 0, 1, 2, 2, 8);
    (void)size, (void)offset;
    heat[2] = 2;
    heat[4] = 1; /* overlaps by a fifth: 1 of 5 cells */
    heat[5] = 0.5f;
    heat[7] = 0.9f; /* the same of heat[4] by none */
    make(w);
    run(w, 0);
    assert_int_equal(w->r.detection_count, 3);
    expect_box(w, 0, 8 - 6, 0, 8 + 6, 6, 1 / (1 + expf(-2)), 0);
    expect_box(w, 1, 16 - 6, 0, 16 + 6, 6, 1 / (1 + expf(-1)), 0);
    expect_box(w, 2, 28 - 6, 0, 32, 6, 1 / (1 + expf(-0.9f)), 0);
    heat[2] = heat[3] = 40; /* both are peaks, of score 1; the second's box overlaps the first's by a half, and heat[4] is none any more */
    run(w, 0);
    assert_int_equal(w->r.detection_count, 2);
    expect_box(w, 0, 8 - 6, 0, 8 + 6, 6, 1, 0);
}

static void ultraface(void **state)
{
    struct world *w = *state;
    card(w, "head: ultraface\ninput: {size: [100, 50]}\nlabels: [face]\nnms: 0.3\n");
    float *s = ADD(w, 0, 1, 3, 2), *b = ADD(w, 0, 1, 3, 4);
    PUT(s, 0.1f, 0.9f, 0.2f, 0.8f, 0.9f, 0.1f);
    PUT(b, 0.1f, 0.2f, 0.5f, 0.6f, 0.11f, 0.2f, 0.5f, 0.6f, 0, 0, 1, 1);
    make(w);
    run(w, 0);
    assert_int_equal(w->r.detection_count, 1); /* one is hidden, one is background */
    expect_box(w, 0, 10, 10, 50, 30, 0.9f, 0);
}

static void ssd(void **state)
{
    struct world *w = *state;
    card(w, "head: ssd\ninput: {size: [32, 16]}\nlabels: [x]\npriors: [{grid: [2, 1], step: 16, sizes: [[4, "
            "8], 6]}]\n");
    float *loc = ADD(w, 0, 1, 16), *conf = ADD(w, 0, 1, 8);
    conf[1 * 2 + 1] = 0.6f; /* cell 0, prior 1: 6 x 6 around (8, 8) */
    conf[2 * 2 + 1] = 0.7f; /* cell 1, prior 0: 4 x 8 around (24, 8), moved and widened */
    PUT(loc + 8, 5, -2.5f, logf(2) / 0.2f, 0);
    make(w);
    run(w, 0);
    assert_int_equal(w->r.detection_count, 2);
    expect_box(w, 0, 24 + 2 - 4, 8 - 2 - 4, 24 + 2 + 4, 8 - 2 + 4, 0.7f, 0);
    expect_box(w, 1, 5, 5, 11, 11, 0.6f, 0);
}

static void yunet(void **state)
{
    struct world *w = *state;
    card(w, "head: yunet\ninput: {size: [32, 16]}\nlabels: [face]\nvariances: [0.1, 0.1, 0.1, 0.2]\n"
            "priors: [{grid: [2, 1], step: 16, sizes: [10]}]\n");
    float *loc = ADD(w, 0, 2, 14), *conf = ADD(w, 0, 2, 2), *iou = ADD(w, 0, 2, 1);
    conf[3] = 0.81f;
    iou[1] = 7; /* cut to 1 */
    loc[14 + 4] = 2;
    loc[14 + 5] = -2;
    make(w);
    run(w, 0);
    assert_int_equal(w->r.detection_count, 1);
    expect_box(w, 0, 19, 3, 29, 13, 0.9f, 0);
    assert_int_equal(w->r.detections[0].landmark_count, 5);
    assert_float_equal(w->r.detections[0].landmarks[0].x, 26, 1e-4);
    assert_float_equal(w->r.detections[0].landmarks[0].y, 6, 1e-4);
    assert_float_equal(w->r.detections[0].landmarks[1].x, 24, 1e-4);
}

static void yolo_v5_and_v8_and_end2end(void **state)
{
    struct world *w = *state;
    card(w, "head: yolo\ninput: {size: [100, 100]}\nlabels: [a, b, c]\n");
    float *v = ADD(w, 0, 1, 10, 8);
    PUT(v + 8, 50, 40, 20, 10, 0.9f, 0.1f, 0.2f, 0.7f);
    make(w);
    run(w, 0);
    expect_box(w, 0, 40, 35, 60, 45, 0.63f, 2);
    task_head_free(&w->head);
    w->count = 0;
    float *u = ADD(w, 0, 1, 7, 10);
    static const float row[] = {50, 40, 20, 10, 0.1f, 0.7f, 0.2f};
    for (int i = 0; i < 7; i++)
        u[i * 10 + 4] = row[i];
    make(w);
    run(w, 0);
    assert_int_equal(w->r.detection_count, 1);
    expect_box(w, 0, 40, 35, 60, 45, 0.7f, 1);
    task_head_free(&w->head);
    free(v);
    w->count = 0;
    float *e = ADD(w, 0, 1, 4, 6);
    PUT(e, 1, 2, 30, 40, 0.9f, 2, 1, 2, 30, 40, 0.8f, 3, 1, 2, 30, 40, 0.8f, -1, 1, 2, 30, 40, NAN, 0);
    make(w);
    run(w, 0);
    assert_int_equal(w->r.detection_count, 1);
    expect_box(w, 0, 1, 2, 30, 40, 0.9f, 2);
    free(u);
    task_card_free(&w->card);
    card(w, "head: yolo\ninput: {size: [100, 100]}\nlabels: [a]\n"); /* 5 + 1 = 6: two layouts fit */
    struct task_head *h = NULL;
    assert_int_equal(task_head_new(w->payer, w->card, w->o, 1, &h), ERR_SHAPE);
    assert_non_null(strstr(err_text(), "add 'layout:"));
    task_head_free(&w->head);
}

static void classify(void **state)
{
    struct world *w = *state;
    card(w, "head: classify\ninput: {size: [8, 8]}\nlabels: [a, b, c, d]\nactivation: softmax\ntop_k: 3\n");
    float *v = ADD(w, 0, 2, 4, 1, 1);
    PUT(v + 4, logf(1), logf(2), logf(5), logf(2));
    make(w);
    run(w, 1);
    assert_true(w->r.best_count == 3 && w->r.best[0] == 2 && w->r.best[1] == 1 && w->r.best[2] == 3);
    assert_float_equal(w->r.probabilities[2], 0.5, 1e-6);
    assert_float_equal(w->r.probabilities[0], 0.1, 1e-6);
    PUT(v, INFINITY, 1, NAN, -INFINITY);
    run(w, 0);
    assert_true(w->r.best[0] == 0 && w->r.probabilities[0] == 1 && w->r.probabilities[2] == 0);
}

static void attributes_and_embedding(void **state)
{
    struct world *w = *state;
    card(w, "head: attributes\ninput: {size: [8, 8]}\nlabels: [a, b]\n");
    float *v = ADD(w, 0.25f, 1, 2, 1, 1), *p = ADD(w, 0, 1, 2, 1, 1);
    v[1] = 2;
    PUT(p, 0.5f, NAN);
    make(w);
    run(w, 0);
    assert_true(w->r.probabilities[0] == 0.25f && w->r.probabilities[1] == 1 && w->r.point_count == 1);
    assert_true(w->r.points[0].x == 0.5f && w->r.points[0].y == 0);
    task_head_free(&w->head);
    task_card_free(&w->card);
    card(w, "head: embedding\ninput: {size: [8, 8]}\n");
    int had = w->count;
    float *e = ADD(w, 0, 1, 2);
    PUT(e, 3, 4);
    assert_int_equal(task_head_new(w->payer, w->card, &w->o[had], 1, &w->head), ERR_OK);
    assert_int_equal(task_head_run(w->head, &w->o[had], 1, 0, &w->r), ERR_OK);
    assert_float_equal(w->r.embedding[0], 0.6, 1e-6);
    assert_float_equal(task_cosine(w->r.embedding, e, 2), 1, 1e-6);
    e[0] = NAN;
    assert_int_equal(task_head_run(w->head, &w->o[had], 1, 0, &w->r), ERR_OK);
    assert_true(w->r.embedding[0] == 0 && w->r.embedding[1] == 0 && task_cosine(e, e, 2) == 0);
}

static void segmentation_and_image(void **state)
{
    struct world *w = *state;
    card(w, "head: segmentation\ninput: {size: [8, 8]}\nlabels: [bg, road]\n");
    float *v = ADD(w, 0, 1, 2, 1, 4);
    PUT(v + 4, 1, -1, 2, NAN);
    make(w);
    run(w, 0);
    assert_true(w->r.width == 4 && w->r.height == 1 && w->r.map[0] == 1 && w->r.map[1] == 0 &&
                w->r.map[2] == 1 && w->r.map[3] == 0);
    assert_true(w->r.shares[0] == 0.5f && w->r.shares[1] == 0.5f);
    task_head_free(&w->head);
    task_card_free(&w->card);
    card(w,
         "head: image\ninput: {size: [8, 8]}\noutput_layout: nhwc\noutput_colour: bgr\noutput_scale: 255\n");
    int had = w->count;
    float *p = ADD(w, 0, 1, 1, 2, 3);
    PUT(p, 0.5f, 1, 2, NAN, -1, INFINITY);
    assert_int_equal(task_head_new(w->payer, w->card, &w->o[had], 1, &w->head), ERR_OK);
    assert_int_equal(task_head_run(w->head, &w->o[had], 1, 0, &w->r), ERR_OK);
    static const uint8_t want[] = {255, 255, 128, 255, 0, 0};
    assert_memory_equal(w->r.pixels, want, 6);
}

static void misfits_get_one_clear_line(void **state)
{
    struct world *w = *state;
    card(w, "head: yolox\ninput: {name: x, size: [64, 32]}\noutputs: [out]\nlabels: [a]\n");
    struct task_output in = {.name = "y", .rank = 4, .dims = {1, 3, 32, 64}},
                       out = {.name = "out", .rank = 3, .dims = {1, 42, 6}};
    assert_int_equal(task_card_check(w->card, &in, 1, &out, 1), ERR_SHAPE);
    assert_non_null(strstr(err_text(), "no input 'x'"));
    in.name = "x";
    assert_int_equal(task_card_check(w->card, &in, 1, &out, 1), ERR_OK);
    in.dims[3] = 65;
    assert_int_equal(task_card_check(w->card, &in, 1, &out, 1), ERR_SHAPE);
    assert_non_null(strstr(err_text(), "[N, 3, 32, 64]"));
    in.dims[3] = in.dims[2] = -1; /* symbols fit anything */
    assert_int_equal(task_card_check(w->card, &in, 1, &out, 1), ERR_OK);
    out.dims[1] = 43;
    assert_int_equal(task_card_check(w->card, NULL, 0, &out, 1), ERR_SHAPE);
    assert_non_null(strstr(err_text(), "[N, 42, 6], but output 'out' is [1, 43, 6]"));
    out.name = "other";
    assert_int_equal(task_card_check(w->card, NULL, 0, &out, 1), ERR_SHAPE);
    assert_non_null(strstr(err_text(), "no output 'out'"));
    out = (struct task_output){.name = "out", .rank = 3, .dims = {1, INT64_MAX, INT64_MAX}};
    assert_int_equal(task_card_check(w->card, NULL, 0, &out, 1), ERR_SHAPE);
    out.rank = 99;
    assert_int_equal(task_card_check(w->card, NULL, 0, &out, 1), ERR_SHAPE);
    mem_fault_at(w->budget, 1);
    out = (struct task_output){.name = "out", .rank = 3, .dims = {1, 42, 6}};
    assert_int_equal(task_head_new(w->payer, w->card, &out, 1, &w->head), ERR_NOMEM);
    mem_fault_at(w->budget, 0);
    assert_null(w->head);
}

static float any_float(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    uint32_t bits = *s;
    float v;
    *s = *s * 1664525u + 1013904223u;
    if (*s >> 28 < 6) return (float)(bits >> 8) / 4194304.0f - 1; /* mostly sensible: -1 to 3 */
    if (*s >> 28 == 6) return NAN;
    if (*s >> 28 == 7) return bits & 1 ? INFINITY : -INFINITY;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static void check_result(const struct world *w)
{
    const struct task_result *r = &w->r;
    const struct task_input *in = &w->card->inputs[0];
    assert_in_range(r->detection_count, 0, w->card->top_k);
    for (int i = 0; i < r->detection_count; i++) {
        const struct task_detection *d = &r->detections[i];
        assert_true(d->box.x1 >= 0 && d->box.y1 >= 0 && d->box.x2 > d->box.x1 && d->box.y2 > d->box.y1);
        assert_true(d->box.x2 <= (float)in->width && d->box.y2 <= (float)in->height);
        assert_true(d->score >= w->card->score && d->score <= 1 && (!i || d->score <= d[-1].score));
        assert_in_range(d->class_id, 0, w->card->class_count - 1);
        for (int k = 0; k < d->landmark_count; k++)
            assert_true(isfinite(d->landmarks[k].x) && isfinite(d->landmarks[k].y));
    }
    for (int i = 0; i < r->class_count && r->probabilities; i++)
        assert_true(r->probabilities[i] >= 0 && r->probabilities[i] <= 1);
    for (int i = 0; i < r->embedding_count; i++)
        assert_true(isfinite(r->embedding[i]));
    for (int i = 0; r->map && i < r->width * r->height; i++)
        assert_true(r->map[i] < w->card->class_count);
}

static void any_float_at_all(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *card;
        int count;
        struct task_output o[3];
    } cases[] = {
        {"head: yolox\ninput: {size: [64, 64]}\nlabels: [a, b]\nscore: 0.01\ntop_k: 20\n",
         1,
         {{.rank = 3, .dims = {1, 84, 7}}}},
        {"head: nanodet\ninput: {size: [64, 64]}\nlabels: [a, b]\nstrides: [8]\nactivation: sigmoid\n",
         2,
         {{.rank = 3, .dims = {1, 64, 2}}, {.rank = 3, .dims = {1, 64, 32}}}},
        {"head: fastestdet\ninput: {size: [64, 64]}\nlabels: [a, b]\n",
         1,
         {{.rank = 4, .dims = {1, 7, 8, 8}}}},
        {"head: centernet\ninput: {size: [64, 64]}\nlabels: [a, b]\nscore: 0\ntop_k: 1000\nnms: 1\n",
         3,
         {{.rank = 4, .dims = {1, 2, 16, 16}}, {.rank = 4, .dims = {1, 2, 16, 16}}, {.rank = 4, .dims = {1, 2, 16, 16}}}},
        {"head: ultraface\ninput: {size: [64, 64]}\nlabels: [a]\n",
         2,
         {{.rank = 3, .dims = {1, 500, 2}}, {.rank = 3, .dims = {1, 500, 4}}}},
        {"head: ssd\ninput: {size: [64, 64]}\nlabels: [a]\nactivation: softmax\npriors: [{grid: [8, 8], "
         "step: 8, sizes: [9]}]\n",
         2,
         {{.rank = 2, .dims = {1, 256}}, {.rank = 2, .dims = {1, 128}}}},
        {"head: yunet\ninput: {size: [64, 64]}\nlabels: [a]\npriors: [{grid: [8, 8], step: 8, sizes: [9]}]\n",
         3,
         {{.rank = 2, .dims = {64, 14}}, {.rank = 2, .dims = {64, 2}}, {.rank = 2, .dims = {64, 1}}}},
        {"head: yolo\ninput: {size: [64, 64]}\nlabels: [a, b]\nlayout: v8\nnormalised: true\n",
         1,
         {{.rank = 3, .dims = {1, 6, 300}}}},
        {"head: yolo\ninput: {size: [64, 64]}\nlabels: [a, b]\nlayout: v5\nscore: 0\nnms: 1\ntop_k: 1000\n",
         1,
         {{.rank = 3, .dims = {1, 3000, 7}}}},
        {"head: yolo\ninput: {size: [64, 64]}\nlabels: [a, b]\nlayout: end2end\n",
         1,
         {{.rank = 3, .dims = {1, 300, 6}}}},
        {"head: classify\ninput: {size: [64, 64]}\nclasses: 50\nactivation: softmax\n",
         1,
         {{.rank = 2, .dims = {1, 50}}}},
        {"head: attributes\ninput: {size: [64, 64]}\nclasses: 9\nactivation: sigmoid\n",
         2,
         {{.rank = 2, .dims = {1, 9}}, {.rank = 2, .dims = {1, 2}}}},
        {"head: embedding\ninput: {size: [64, 64]}\n", 1, {{.rank = 2, .dims = {1, 3}}}},
        {"head: segmentation\ninput: {size: [64, 64]}\nclasses: 5\n",
         1,
         {{.rank = 4, .dims = {1, 5, 16, 16}}}},
        {"head: image\ninput: {size: [64, 64]}\noutput_offset: 3\n",
         1,
         {{.rank = 4, .dims = {1, 3, 16, 16}}}},
    };
    uint32_t s = 99;
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        card(w, cases[c].card);
        for (int i = 0; i < cases[c].count; i++)
            add(w, 0, cases[c].o[i].rank, cases[c].o[i].dims);
        make(w);
        for (int round = 0; round < 60; round++) {
            for (int i = 0; i < w->count; i++) {
                int64_t n = 1;
                for (int k = 0; k < w->o[i].rank; k++)
                    n *= w->o[i].dims[k];
                for (int64_t k = 0; k < n; k++)
                    w->data[i][k] = any_float(&s);
            }
            run(w, 0);
            check_result(w);
        }
        task_head_free(&w->head);
        task_card_free(&w->card);
        for (int i = 0; i < w->count; i++)
            free(w->data[i]);
        w->count = 0;
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(yolox),
                                       T(nanodet),
                                       T(fastestdet),
                                       T(centernet),
                                       T(centernet_logits),
                                       T(ultraface),
                                       T(ssd),
                                       T(yunet),
                                       T(yolo_v5_and_v8_and_end2end),
                                       T(classify),
                                       T(attributes_and_embedding),
                                       T(segmentation_and_image),
                                       T(misfits_get_one_clear_line),
                                       T(any_float_at_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
