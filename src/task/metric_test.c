/* Tests of track files and scores: cases computed by hand, and brute force. SPDX-License-Identifier:
 * Apache-2.0 */
#include "task/metric.h"
#include "task/mot.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct mem_budget *budget;
static struct mem_payer *payer;

static int setup(void **state)
{
    (void)state;
    budget = mem_budget_new("host", UINT64_MAX);
    payer = mem_payer_new(budget, "eval");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(mem_budget_used(budget), 0);
    mem_payer_free(&payer);
    mem_budget_free(&budget);
    return 0;
}

static struct task_mot parse(const char *text)
{
    struct task_mot m = {0};
    err e = task_mot_parse(payer, text, strlen(text), "t", &m);
    if (e) fail_msg("%s", err_text());
    return m;
}

static struct task_mota score(const char *truth, const char *found)
{
    struct task_mot a = parse(truth), b = parse(found);
    struct task_mota r;
    assert_int_equal(task_mota_compute(payer, &a, &b, 0.5f, &r), ERR_OK);
    task_mot_done(&a);
    task_mot_done(&b);
    return r;
}

static void perfect(void **state)
{
    (void)state;
    const char *t = "1,1,0,0,10,10\n1,2,50,0,10,10\n2,1,1,0,10,10\n2,2,51,0,10,10\n";
    struct task_mota r = score(t, t);
    assert_true(r.mota == 1 && r.idf1 == 1 && r.precision == 1 && r.recall == 1 && r.motp == 1);
    assert_true(r.frames == 2 && r.truths == 4 && r.matches == 4 && r.mostly_tracked == 2 && !r.switches);
}

/* One truth over 6 frames. Found as A in frames 1-2, missed in 3, as B in 4-6, and one false box in frame 6.
 * misses 1, false 1, switches 1, fragmentations 1: MOTA = 1 - 3/6. Best identity B: IDTP 3, IDFN 3, IDFP 3 (A
 * twice, false once): IDF1 = 6 / (6 + 6). */
static void by_hand(void **state)
{
    (void)state;
    struct task_mota r =
        score("1,7,0,0,10,10\n2,7,0,0,10,10\n3,7,0,0,10,10\n4,7,0,0,10,10\n5,7,0,0,10,10\n6,7,0,0,10,10\n",
              "1,1,0,0,10,10\n2,1,0,0,10,8\n4,2,0,0,10,10\n5,2,0,0,10,10\n6,2,0,0,10,10\n6,3,80,0,10,10\n");
    assert_int_equal(r.misses, 1);
    assert_int_equal(r.false_positives, 1);
    assert_int_equal(r.switches, 1);
    assert_int_equal(r.fragmentations, 1);
    assert_float_equal(r.mota, 0.5, 1e-9);
    assert_int_equal(r.idtp, 3);
    assert_float_equal(r.idf1, 0.5, 1e-9);
    assert_float_equal(r.precision, 5.0 / 6, 1e-9);
    assert_float_equal(r.recall, 5.0 / 6, 1e-9);
    assert_float_equal(r.motp, (4 + 0.8) / 5, 1e-6);
}

/* An old pair that still overlaps is kept although another box fits better: no switch. */
static void old_pairs_are_kept(void **state)
{
    (void)state;
    struct task_mota r =
        score("1,1,0,0,10,10\n2,1,0,0,10,10\n", "1,5,0,0,10,10\n2,5,0,0,10,7\n2,6,0,0,10,10\n");
    assert_int_equal(r.switches, 0);
    assert_int_equal(r.false_positives, 1);
    assert_float_equal(r.mota, 0.5, 1e-9);
    assert_float_equal(r.idf1, 2 * 2.0 / 5, 1e-9);
}

/* Two that swap identities half way: two switches; IDF1 is half whatever is assigned. */
static void a_swap(void **state)
{
    (void)state;
    struct task_mota r = score("1,1,0,0,10,10\n1,2,50,0,10,10\n2,1,0,0,10,10\n2,2,50,0,10,10\n",
                               "1,1,0,0,10,10\n1,2,50,0,10,10\n2,2,0,0,10,10\n2,1,50,0,10,10\n");
    assert_int_equal(r.switches, 2);
    assert_float_equal(r.mota, 0.5, 1e-9);
    assert_float_equal(r.idf1, 0.5, 1e-9);
}

static void twins_are_refused(void **state)
{
    (void)state;
    struct task_mot a = parse("1,1,0,0,9,9\n3,8,0,0,9,9\n3,8,5,0,9,9\n"), b = parse("1,1,0,0,9,9\n");
    struct task_mota r;
    assert_int_equal(task_mota_compute(payer, &b, &a, 0.5f, &r), ERR_FORMAT);
    assert_non_null(strstr(err_text(), "tracks: identity 8 is there twice in frame 3"));
    assert_int_equal(task_mota_compute(payer, &a, &b, 0.5f, &r), ERR_FORMAT);
    task_mot_done(&a);
    task_mot_done(&b);
}

static void empty_sides(void **state)
{
    (void)state;
    struct task_mota r = score("", "");
    assert_true(r.mota == 0 && r.idf1 == 0 && r.frames == 0);
    r = score("1,1,0,0,10,10\n", "");
    assert_true(r.mota == 0 && r.misses == 1 && r.mostly_lost == 1);
    r = score("", "1,1,0,0,10,10\n");
    assert_true(r.mota == 0 && r.false_positives == 1 && r.precision == 0);
}

enum { IDS = 4, FRAMES = 6 };

/* The most frames on which a one-to-one assignment of identities can agree: every assignment tried. */
static int best_idtp(int agree[IDS][IDS], int row, unsigned used)
{
    if (row == IDS) return 0;
    int best = best_idtp(agree, row + 1, used);
    for (int j = 0; j < IDS; j++)
        if (!(used >> j & 1)) best = MAX(best, agree[row][j] + best_idtp(agree, row + 1, used | 1u << j));
    return best;
}

static void idf1_is_optimal(void **state)
{
    (void)state;
    uint32_t s = 17;
    for (int round = 0; round < 300; round++) {
        struct strbuf t = {0}, f = {0};
        int agree[IDS][IDS] = {{0}}, truths = 0, founds = 0;
        for (int frame = 1; frame <= FRAMES; frame++) {
            unsigned place_of_found[IDS];
            for (int i = 0; i < IDS;
                 i++) { /* truth i stands at place i; found ids are anywhere, or nowhere (4, 5) */
                s = s * 1664525u + 1013904223u;
                place_of_found[i] = (s >> 20) % 6;
                for (int k = 0; k < i; k++)
                    if (place_of_found[k] == place_of_found[i]) place_of_found[i] = 5;
            }
            unsigned there = (s >> 8) & 15;
            for (unsigned i = 0; i < IDS; i++) {
                if (!(there >> i & 1)) continue;
                truths++;
                strbuf_addf(&t, "%d,%u,%u,0,10,10\n", frame, i, i * 100);
            }
            for (unsigned j = 0; j < IDS; j++) {
                unsigned p = place_of_found[j];
                if (p == 5) continue;
                founds++;
                strbuf_addf(&f, "%d,%u,%u,0,10,10\n", frame, j, p * 100);
                if (p < IDS && (there >> p & 1)) agree[p][j]++;
            }
        }
        struct task_mota r = score(t.s ? t.s : "", f.s ? f.s : "");
        assert_int_equal(r.idtp, best_idtp(agree, 0, 0));
        assert_int_equal(r.truths, truths);
        assert_int_equal(r.found, founds);
        assert_int_equal(r.idfn + r.idtp, truths);
        strbuf_done(&t);
        strbuf_done(&f);
    }
}

static void files(void **state)
{
    (void)state;
    struct task_mot m = parse("17 408 572 496 772 1 0 0 0 \"PERSON\"\n\n3 1 2 3 4 0 1 1 1 \"CAR\"");
    assert_int_equal(m.count, 2);
    assert_true(m.rows[0].frame == 0 && m.rows[0].id == 3 && m.rows[0].lost && m.rows[0].occluded &&
                m.rows[0].generated);
    assert_true(m.rows[1].box.x2 == 496 && m.rows[1].box.y1 == 572 && !m.rows[1].lost);
    assert_true(m.first_frame == 0 && m.last_frame == 1);
    task_mot_done(&m);
    m = parse("2,-1,281.931,187.466,79.93,209.537,0.997784,-1,-1,-1\r\n1, 5, 1, 2, 3, 4\n");
    assert_true(m.rows[0].frame == 1 && m.rows[0].id == 5 && m.rows[0].score == 1 && m.rows[0].box.x2 == 4);
    assert_true(m.rows[1].id == -1 && fabsf(m.rows[1].score - 0.997784f) < 1e-6f);
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    for (size_t i = 0; i < m.count; i++)
        task_mot_write_row(f, &m.rows[i]);
    fclose(f);
    struct task_mot again = parse(text);
    assert_int_equal(again.count, m.count);
    assert_float_equal(again.rows[1].box.y2, m.rows[1].box.y2, 0.01);
    free(text);
    task_mot_done(&again);
    task_mot_done(&m);
}

static void refused(const char *text, size_t size, const char *want)
{
    struct task_mot m = {.count = 77};
    assert_int_equal(task_mot_parse(payer, text, size, "f.txt", &m), ERR_FORMAT);
    assert_int_equal(m.count, 77);
    if (!strstr(err_text(), want)) fail_msg("'%s' lacks '%s'", err_text(), want);
}

static void bad_files(void **state)
{
    (void)state;
    refused("1,1,0,0,10,10\n1,2,x\n", 20, "f.txt:2: fewer than 6");
    refused("1,1,0,0,-10,10\n", 15, "f.txt:1: a box beyond");
    refused("1,1,nan,0,10,10\n", 16, "f.txt:1:");
    refused("1.5,1,0,0,10,10\n", 16, "frame");
    refused("1 2 3 4\n", 8, "fewer than 9");
    refused("1 20 3 4 5 0 0 0 0\n", 19, "edge comes first");
    refused("1,1,0,0,10,10\n\0", 15, "zero byte");
    char line[600];
    memset(line, '1', sizeof line);
    refused(line, sizeof line, "f.txt:1: a line of 600");
    struct task_mot m = {0};
    assert_int_equal(task_mot_load(payer, "/nonexistent/x.txt", &m), ERR_NOT_FOUND);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    const char *t = "1,1,0,0,10,10\n2,1,0,0,10,10\n";
    for (uint64_t n = 1;; n++) {
        struct task_mot m = {0};
        struct task_mota r;
        mem_fault_at(budget, n);
        err e = task_mot_parse(payer, t, strlen(t), "t", &m);
        if (!e) e = task_mota_compute(payer, &m, &m, 0.5f, &r);
        bool tried = mem_fault_calls(budget) < n;
        mem_fault_at(budget, 0);
        task_mot_done(&m);
        assert_int_equal(mem_budget_used(budget), 0);
        if (tried) {
            assert_int_equal(e, ERR_OK);
            return;
        }
        assert_int_equal(e, ERR_NOMEM);
    }
}

/* --- average precision -------------------------------------------------------------------------------------
 */

static struct task_ap_box box(int image, int class_id, float score_, float x)
{
    return (struct task_ap_box){
        .image = image, .class_id = class_id, .score = score_, .box = {x, 0, x + 10, 10}};
}

/* Two truths in class 0; detections by score: hit, false, hit. Precisions 1, 1/2, 2/3 -> monotone 1, 2/3,
 * 2/3. Recalls up to 0.5 read 1 (51 points), the other 50 read 2/3. All boxes are exact, so every threshold
 * gives the same. */
static void ap_by_hand(void **state)
{
    (void)state;
    struct task_ap_box t[] = {box(0, 0, 0, 0), box(1, 0, 0, 0)};
    struct task_ap_box d[] = {box(0, 0, 0.9f, 0), box(0, 0, 0.8f, 50), box(1, 0, 0.7f, 0)};
    struct task_ap r;
    double per_class[2];
    assert_int_equal(task_ap_compute(payer, t, 2, d, 3, 2, 0.75f, per_class, &r), ERR_OK);
    double want = (51 + 50 * 2.0 / 3) / 101;
    assert_float_equal(r.ap50, want, 1e-9);
    assert_float_equal(r.ap, want, 1e-9);
    assert_float_equal(per_class[0], want, 1e-9);
    assert_float_equal(per_class[1], -1, 0);
    assert_float_equal(r.precision, 0.5, 1e-9); /* two with 0.75 or more, one right */
    assert_float_equal(r.recall, 0.5, 1e-9);
    assert_true(r.truths == 2 && r.classes == 1);
    t[1].ignore = true; /* the match with it counts neither way: hit, false */
    assert_int_equal(task_ap_compute(payer, t, 2, d, 3, 2, 0, NULL, &r), ERR_OK);
    assert_float_equal(r.ap50, 1, 1e-9);
    assert_int_equal(r.truths, 1);
}

static void ap_thresholds(void **state)
{
    (void)state;
    struct task_ap_box t = box(0, 0, 0, 0), d = box(0, 0, 0.5f, 0);
    d.box.y2 = 7.2f; /* IoU 0.72: right at 0.5, 0.55, 0.6, 0.65, 0.7 */
    struct task_ap r;
    assert_int_equal(task_ap_compute(payer, &t, 1, &d, 1, 1, 0, NULL, &r), ERR_OK);
    assert_float_equal(r.ap50, 1, 1e-9);
    assert_float_equal(r.ap, 0.5, 1e-9);
    struct task_ap_box twice[] = {d, d}; /* the second is false */
    assert_int_equal(task_ap_compute(payer, &t, 1, twice, 2, 1, 0, NULL, &r), ERR_OK);
    assert_float_equal(r.precision, 0.5, 1e-9);
    assert_int_equal(task_ap_compute(payer, &t, 1, NULL, 0, 1, 0, NULL, &r), ERR_OK);
    assert_true(r.ap == 0 && r.recall == 0);
    assert_int_equal(task_ap_compute(payer, NULL, 0, &d, 1, 1, 0, NULL, &r), ERR_OK);
    assert_true(r.ap == -1 && r.precision == 0);
    d.class_id = 1;
    assert_int_equal(task_ap_compute(payer, &t, 1, &d, 1, 1, 0, NULL, &r), ERR_USAGE);
    mem_fault_at(budget, 1);
    assert_int_equal(task_ap_compute(payer, &t, 1, &t, 1, 1, 0, NULL, &r), ERR_NOMEM);
    mem_fault_at(budget, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(perfect, setup, teardown),
        cmocka_unit_test_setup_teardown(by_hand, setup, teardown),
        cmocka_unit_test_setup_teardown(old_pairs_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(a_swap, setup, teardown),
        cmocka_unit_test_setup_teardown(twins_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(empty_sides, setup, teardown),
        cmocka_unit_test_setup_teardown(idf1_is_optimal, setup, teardown),
        cmocka_unit_test_setup_teardown(files, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_files, setup, teardown),
        cmocka_unit_test_setup_teardown(every_allocation_may_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(ap_by_hand, setup, teardown),
        cmocka_unit_test_setup_teardown(ap_thresholds, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
