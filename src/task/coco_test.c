/* Average precision against pycocotools (tests/tools/make_coco_ap.py): every case, every class. SPDX-License-Identifier: Apache-2.0 */
#include "task/metric.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 2000, CLASSES = 16 };

struct one_case {
    int number, images, classes;
    size_t n_truth, n_found;
    struct task_ap_box truth[MOST], found[MOST];
};

static void check(struct mem_payer *payer, const struct one_case *c, const char *answers)
{
    struct task_ap r;
    double of_class[CLASSES], want;
    const char *at = answers;
    char *end;
    assert_int_equal(task_ap_compute(payer, c->truth, c->n_truth, c->found, c->n_found, c->classes, 0.3f, of_class, &r), ERR_OK);
    for (int i = 0; i < c->classes + 2; i++, at = end) {
        want = strtod(at, &end);
        assert_ptr_not_equal(at, end);
        double got = i == 0 ? r.ap : i == 1 ? r.ap50 : of_class[i - 2];
        if (!(got > want - 1e-9 && got < want + 1e-9)) fail_msg("case %d, answer %d: %.12g, pycocotools has %.12g", c->number, i, got, want);
    }
}

static void as_pycocotools(void **state)
{
    (void)state;
    static struct one_case c;
    struct mem_budget *budget = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *payer = mem_payer_new(budget, "test");
    char path[512], line[512];
    const char *source = getenv("BRIM_SOURCE");
    int cases = 0;
    snprintf(path, sizeof path, "%s/tests/data/train/coco_ap.txt", source ? source : ".");
    FILE *f = fopen(path, "re");
    if (!f) fail_msg("%s is not there", path);
    while (fgets(line, sizeof line, f)) {
        struct task_ap_box b = {0};
        if (line[0] == 'c') {
            c.n_truth = c.n_found = 0;
            assert_int_equal(sscanf(line, "case %d %d %d", &c.number, &c.images, &c.classes), 3);
            assert_true(c.classes <= CLASSES);
        } else if (line[0] == 't') {
            assert_int_equal(sscanf(line, "t %d %d %f %f %f %f", &b.image, &b.class_id, &b.box.x1, &b.box.y1, &b.box.x2, &b.box.y2), 6);
            assert_true(c.n_truth < MOST);
            c.truth[c.n_truth++] = b;
        } else if (line[0] == 'd') {
            assert_int_equal(sscanf(line, "d %d %d %f %f %f %f %f", &b.image, &b.class_id, &b.score, &b.box.x1, &b.box.y1, &b.box.x2, &b.box.y2), 7);
            assert_true(c.n_found < MOST);
            c.found[c.n_found++] = b;
        } else if (line[0] == '=') {
            check(payer, &c, line + 1);
            cases++;
        }
    }
    fclose(f);
    assert_int_equal(cases, 7);
    mem_payer_free(&payer);
    mem_budget_free(&budget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_pycocotools)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
