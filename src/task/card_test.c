/* Tests of cards: what is right is read, what is wrong has a position, and every card of the project fits its
 * model. SPDX-License-Identifier: Apache-2.0 */
#include "task/head.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct task_card *parse(const char *text)
{
    struct task_card *c = NULL;
    if (task_card_parse(text, strlen(text), NULL, &c)) fail_msg("%s", err_text());
    return c;
}

static void everything_is_read(void **state)
{
    (void)state;
    struct task_card *c =
        parse("card: 1\nname: n\nhead: ssd\n"
              "input: {name: i, size: [300, 200], resize: letterbox-centre, filter: bicubic, pad: 7,\n"
              "        colour: bgr, layout: nhwc, mean: [1, 2, 3], std: 4}\n"
              "outputs: [a, b]\nlabels: [cat, dog]\nscore: 0.25\nnms: 0.5\ntop_k: 9\nagnostic: true\n"
              "activation: softmax\nvariances: [0.1, 0.2, 0.3, 0.4]\n"
              "priors:\n  - {grid: [3, 2], step: 16, offset: 0.25, sizes: [5, [6, 7]]}\n");
    const struct task_input *in = &c->inputs[0];
    assert_string_equal(c->name, "n");
    assert_true(c->head == TASK_SSD && c->input_count == 1 && in->width == 300 && in->height == 200);
    assert_true(in->resize == TASK_LETTERBOX_CENTRE && in->filter == TASK_BICUBIC && in->pad == 7 &&
                in->bgr && in->nhwc);
    assert_true(in->mean[2] == 3 && in->scale[0] == 0.25f && in->scale[2] == 0.25f);
    assert_true(c->output_count == 2 && !strcmp(c->outputs[1], "b") && c->class_count == 2);
    assert_string_equal(task_card_label(c, 1), "dog");
    assert_string_equal(task_card_label(c, 2), "?");
    assert_string_equal(task_card_label(c, -1), "?");
    assert_true(c->score == 0.25f && c->nms == 0.5f && c->top_k == 9 && c->agnostic &&
                c->activation == TASK_SOFTMAX);
    assert_true(c->variances[3] == 0.4f && c->prior_count == 1 && c->priors[0].count == 2);
    assert_true(c->priors[0].w[0] == 5 && c->priors[0].h[0] == 5 && c->priors[0].h[1] == 7 &&
                c->priors[0].grid_w == 3);
    task_card_free(&c);
    assert_null(c);
    c = parse("card: 1\nhead: classify\ninput: {size: [8, 8]}\nclasses: 3\n");
    assert_string_equal(task_card_label(c, 2), "2");
    assert_true(c->top_k == 5 && c->score == 0 && c->inputs[0].scale[1] == 1);
    task_card_free(&c);
}

static void wrong(const char *text, err code, const char *want)
{
    struct task_card *c = NULL;
    assert_int_equal(task_card_parse(text, strlen(text), NULL, &c), code);
    assert_null(c);
    if (!strstr(err_text(), want)) fail_msg("'%s' lacks '%s'", err_text(), want);
}

static void errors_have_positions(void **state)
{
    (void)state;
#define HEAD "card: 1\nhead: yolox\ninput: {size: [8, 8]}\n"
    wrong("", ERR_FORMAT, "not a card");
    wrong("head: yolox\n", ERR_FORMAT, "card");
    wrong("card: 9\nhead: x\n", ERR_UNSUPPORTED, "card:1:7:");
    wrong("card: 1\nhead: yolocks\n", ERR_FORMAT, "card:2:7:");
    wrong("card: 1\nhead: yolox\n", ERR_FORMAT, "input");
    wrong(HEAD, ERR_FORMAT, "needs 'labels'");
    wrong(HEAD "labels: [a]\nscor: 1\n", ERR_FORMAT, "card:5:1:");
    wrong(HEAD "labels: [a]\nreg_max: 7\n", ERR_FORMAT, "card:5:1:");
    wrong(HEAD "labels: [a]\nreg_max: 7\n", ERR_FORMAT, "belongs to head 'nanodet'");
    wrong(HEAD "labels: [a]\nscore: 2\n", ERR_FORMAT, "card:5:8:");
    wrong(HEAD "labels: [a]\nclasses: 2\n", ERR_FORMAT, "2 classes, but 1 labels");
    wrong(HEAD "labels: []\n", ERR_FORMAT, "no label");
    wrong(HEAD "labels: x.txt\n", ERR_FORMAT, "card:4:9:");
    wrong(HEAD "labels: [a]\nstrides: [0]\n", ERR_FORMAT, "card:5:11:");
    wrong(HEAD "labels: [a]\nactivation: softmax\n", ERR_FORMAT, "knows 'none' and 'sigmoid'");
    wrong("card: 1\nhead: yolox\ninput: {size: [8]}\nlabels: [a]\n", ERR_FORMAT, "[width, height]");
    wrong("card: 1\nhead: yolox\ninput: {size: [8, 99999]}\nlabels: [a]\n", ERR_FORMAT, "card:3:19:");
    wrong("card: 1\nhead: yolox\ninput: {size: [8, 8], std: 0}\nlabels: [a]\n", ERR_FORMAT, "card:3:28:");
    wrong("card: 1\nhead: image\ninput: [{size: [8, 8]}, {size: [8, 8]}]\n", ERR_FORMAT, "needs its 'name'");
    wrong("card: 1\nhead: ssd\ninput: {size: [8, 8]}\nlabels: [a]\n", ERR_FORMAT, "priors");
    wrong("card: 1\nhead: yunet\ninput: {size: [8, 8]}\nlabels: [a, b]\npriors: [{grid: [1, 1], step: 8, "
          "sizes: [8]}]\n",
          ERR_FORMAT, "one class");
}

static void label_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/brim-card-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *card = xasprintf("%s/m.yaml", dir), *labels = xasprintf("%s/l.txt", dir),
         *model = xasprintf("%s/m.onnx", dir);
    FILE *f = fopen(card, "w");
    fputs("card: 1\nhead: yolox\ninput: {size: [8, 8]}\nlabels: l.txt\n", f);
    fclose(f);
    struct task_card *c = NULL;
    assert_int_equal(task_card_load(card, &c), ERR_NOT_FOUND);
    assert_non_null(strstr(err_text(), "m.yaml:4:9:"));
    f = fopen(labels, "w");
    fputs("one\r\n\ntwo words\nthree", f);
    fclose(f);
    char *path = task_card_default_path(model);
    assert_string_equal(path, card);
    assert_int_equal(task_card_load(path, &c), ERR_OK);
    assert_int_equal(c->class_count, 3);
    assert_string_equal(c->labels[1], "two words");
    assert_string_equal(c->name, "m");
    task_card_free(&c);
    static const char *const outside[] = {"/etc/passwd", "../x", "a/../../x", ".."};
    for (size_t i = 0; i < ARRAY_LEN(outside); i++) {
        f = fopen(card, "w");
        fprintf(f, "card: 1\nhead: yolox\ninput: {size: [8, 8]}\nlabels: '%s'\n", outside[i]);
        fclose(f);
        assert_int_equal(task_card_load(card, &c), ERR_FORMAT);
        assert_non_null(strstr(err_text(), "beside the card"));
    }
    remove(card);
    remove(labels);
    remove(dir);
    free(card);
    free(labels);
    free(model);
    free(path);
}

static void fits_by_hand(void **state)
{
    (void)state;
    struct task_input in = {.width = 416, .height = 416, .resize = TASK_LETTERBOX};
    struct task_fit f = task_fit_of(&in, 832, 416);
    struct task_box b = task_fit_box(&f, (struct task_box){10, 20, 416, 300});
    assert_true(b.x1 == 20 && b.y1 == 40 && b.x2 == 832 && b.y2 == 416); /* cut at the frame */
    in.resize = TASK_LETTERBOX_CENTRE;
    f = task_fit_of(&in, 832, 416);
    assert_true(f.offset_y == 104 && f.offset_x == 0);
    b = task_fit_box(&f, (struct task_box){0, 104, 416, 312});
    assert_true(b.y1 == 0 && b.y2 == 416 && b.x2 == 832);
    in.resize = TASK_STRETCH;
    f = task_fit_of(&in, 832, 208);
    b = task_fit_box(&f, (struct task_box){0, 0, 208, 208});
    assert_true(b.x2 == 416 && b.y2 == 104);
    in.resize = TASK_CROP;
    f = task_fit_of(&in, 832, 416);
    assert_true(f.scale_x == 1 && f.offset_x == -208);
    b = task_fit_box(&f, (struct task_box){0, 0, 416, 416});
    assert_true(b.x1 == 208 && b.x2 == 624);
    f = task_fit_of(&in, 0, -5);
    assert_true(isfinite(f.scale_x) && isfinite(f.offset_y));
}

/* What the sample models' outputs are; -1 in a rank ends a list. */
static const struct model {
    const char *stem;
    struct task_output inputs[2], outputs[6];
} models[] = {
#define IN(n, ...)                                                                                           \
    {                                                                                                        \
        .name = n, .rank = 4, .dims = { __VA_ARGS__ }                                                        \
    }
#define OUT(n, r, ...)                                                                                       \
    {                                                                                                        \
        .name = n, .rank = r, .dims = { __VA_ARGS__ }                                                        \
    }
    {"FastestDet", {IN("input.1", 1, 3, 352, 352)}, {OUT("758", 4, 1, 85, 22, 22)}},
    {"light_person_detector", {IN("images", 1, 3, 192, 192)}, {OUT("output", 3, 1, 756, 6)}},
    {"sci_240x320", {IN("input", 1, 3, 240, 320)}, {OUT("output", 4, 1, 3, 240, 320)}},
    {"tbefn_240x320",
     {IN("Placeholder", 1, 3, 240, 320)},
     {OUT("fusion/fusion_3/BiasAdd", 4, 1, 240, 320, 3)}},
    {"tbefn_320x480",
     {IN("Placeholder", 1, 3, 320, 480)},
     {OUT("fusion/fusion_3/BiasAdd", 4, 1, 320, 480, 3)}},
    {"resnet8_cifar10", {IN("input", 0, 3, 32, 32)}, {OUT("prob", 2, 0, 10)}},
    {"vww_mobilenetv1_025_96", {IN("input", 0, 3, 96, 96)}, {OUT("prob", 2, 0, 2)}},
    {"nanodet_m_320",
     {IN("input.1", 1, 3, 320, 320)},
     {OUT("cls_pred_stride_8", 3, 1, 1600, 80), OUT("cls_pred_stride_16", 3, 1, 400, 80),
      OUT("cls_pred_stride_32", 3, 1, 100, 80), OUT("dis_pred_stride_8", 3, 1, 1600, 32),
      OUT("dis_pred_stride_16", 3, 1, 400, 32), OUT("dis_pred_stride_32", 3, 1, 100, 32)}},
    {"face-detection-retail-0004",
     {IN("data", 1, 3, 300, 300)},
     {OUT("fc7_mbox_loc_flat", 2, 1, 12996), OUT("mbox_conf_flatten", 2, 1, 6498)}},
    {"face-detection-retail-0044",
     {IN("data", 1, 3, 300, 300)},
     {OUT("fc7_mbox_loc_flat", 2, 1, 12996), OUT("mbox_conf_flatten", 2, 1, 6498)}},
    {"person-attributes-recognition-crossroad-0230",
     {IN("0", 1, 3, 160, 80)},
     {OUT("459", 4, 1, 2, 1, 1), OUT("456", 4, 1, 2, 1, 1), OUT("453", 4, 1, 8, 1, 1)}},
    {"single-image-super-resolution-1033",
     {IN("1", 1, 3, 1080, 1920), IN("0", 1, 3, 360, 640)},
     {OUT("90", 4, 1, 3, 1080, 1920)}},
    {"person-reidentification-retail-0248", {IN("inputs:0", 1, 256, 128, 3)}, {OUT("Identity:0", 2, 1, 256)}},
    {"person-reidentification-retail-0288", {IN("inputs:0", 1, 256, 128, 3)}, {OUT("Identity:0", 2, 1, 256)}},
    {"mobilenetv2_mx_features", {IN("input", 1, 3, 224, 224)}, {OUT("features", 2, 1, 1280)}},
    {"resnet50v2_tf_c4", {IN("input", 1, 3, 224, 224)}, {OUT("features", 2, 1, 1024)}},
    {"squeezenet1.1", {IN("input", 1, 3, 224, 224)}, {OUT("flatten_13", 2, 1, 1000)}},
    {"resnet20_cifar10", {IN("input", 0, 3, 32, 32)}, {OUT("logits", 2, 0, 10)}},
    {"resnet44_cifar10", {IN("input", 0, 3, 32, 32)}, {OUT("logits", 2, 0, 10)}},
    {"deeplab_v3_1_default_1", {IN("sub_7", 1, 257, 257, 3)}, {OUT("ResizeBilinear_3", 4, 1, 257, 257, 21)}},
    {"road_segmentation_adas_0001", {IN("data", 1, 512, 896, 3)}, {OUT("tf.identity", 4, 1, 512, 896, 4)}},
    {"vangogh_bedroom", {IN("input", 1, 3, 540, 540)}, {OUT("output", 4, 1, 3, 540, 540)}},
    {"vangogh_self_portrait", {IN("input", 1, 3, 540, 540)}, {OUT("output", 4, 1, 3, 540, 540)}},
    {"vangogh_starry_night", {IN("input", 1, 3, 540, 540)}, {OUT("output", 4, 1, 3, 540, 540)}},
    {"vangogh_sunflowers_bew", {IN("input", 1, 3, 540, 540)}, {OUT("output", 4, 1, 3, 540, 540)}},
    {"version-RFB-320",
     {IN("input", 1, 3, 240, 320)},
     {OUT("scores", 3, 1, 4420, 2), OUT("boxes", 3, 1, 4420, 4)}},
    {"version-RFB-640",
     {IN("input", 1, 3, 480, 640)},
     {OUT("scores", 3, 1, 17640, 2), OUT("boxes", 3, 1, 17640, 4)}},
    {"version-slim-320",
     {IN("input", 1, 3, 240, 320)},
     {OUT("scores", 3, 1, 4420, 2), OUT("boxes", 3, 1, 4420, 4)}},
    {"yolox_nano_416x416", {IN("images", 1, 3, 416, 416)}, {OUT("output", 3, 1, 3549, 85)}},
    {"yolox_nano_handsign_v1", {IN("images", 1, 3, 416, 416)}, {OUT("output", 3, 1, 3549, 21)}},
    {"face_detection_yunet_120x160",
     {IN("input", 1, 3, 120, 160)},
     {OUT("loc", 2, 1076, 14), OUT("conf", 2, 1076, 2), OUT("iou", 2, 1076, 1)}},
};

static int count(const struct task_output *o, int most)
{
    int n = 0;
    while (n < most && o[n].rank)
        n++;
    return n;
}

static void every_card_fits_its_model_and_no_other(void **state)
{
    (void)state;
    const char *source = getenv("BRIM_SOURCE");
    if (!source) skip();
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        char *path = xasprintf("%s/models/cards/%s.yaml", source, models[i].stem);
        struct task_card *c = NULL;
        if (task_card_load(path, &c)) fail_msg("%s", err_text());
        assert_string_equal(c->name, models[i].stem);
        for (size_t k = 0; k < ARRAY_LEN(models); k++) {
            const struct model *m = &models[k];
            err e = task_card_check(c, m->inputs, count(m->inputs, 2), m->outputs, count(m->outputs, 6));
            if (i == k && e) fail_msg("%s", err_text());
            if (e) assert_true(e == ERR_SHAPE && strstr(err_text(), models[i].stem));
            if (!e && i != k) { /* only models with the same names and sizes can be mistaken for each other */
                assert_int_equal(count(m->outputs, 6), count(models[i].outputs, 6));
                assert_string_equal(m->outputs[0].name, models[i].outputs[0].name);
            }
        }
        task_card_free(&c);
        free(path);
    }
    char *folder = xasprintf("%s/models/cards", source);
    DIR *d = opendir(folder);
    size_t cards = 0;
    for (struct dirent *f; d && (f = readdir(d));)
        cards += str_ends(f->d_name, ".yaml");
    if (d) closedir(d);
    free(folder);
    assert_int_equal(cards, ARRAY_LEN(models));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(everything_is_read),
                                       cmocka_unit_test(errors_have_positions), cmocka_unit_test(label_files),
                                       cmocka_unit_test(fits_by_hand),
                                       cmocka_unit_test(every_card_fits_its_model_and_no_other)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
