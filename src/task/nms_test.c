/* Tests of NMS, the bounded heap and exact assignment against brute force. SPDX-License-Identifier:
 * Apache-2.0 */
#include "task/assign.h"
#include "task/nms.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint32_t next(uint32_t *s)
{
    return *s = *s * 1664525u + 1013904223u;
}

static float real(uint32_t *s, float from, float to)
{
    return from + (to - from) * (float)(next(s) >> 8) / 16777216.0f;
}

static struct task_detection random_detection(uint32_t *s)
{
    float x = real(s, 0, 60), y = real(s, 0, 60);
    return (struct task_detection){.box = {x, y, x + real(s, 1, 30), y + real(s, 1, 30)},
                                   .score = (float)(next(s) % 20 + 1) / 20, /* many ties */
                                   .class_id = (int)(next(s) >> 30)};
}

/* Is a ahead of b? The documented order. */
static bool ahead(const struct task_detection *a, const struct task_detection *b)
{
    if (a->score != b->score) return a->score > b->score;
    if (a->class_id != b->class_id) return a->class_id < b->class_id;
    return memcmp(&a->box, &b->box, sizeof a->box) &&
           (a->box.x1 < b->box.x1 || (a->box.x1 == b->box.x1 && a->box.y1 < b->box.y1));
}

/* The definition: again and again the best that is left and not hidden by one that stays. */
static int reference(const struct task_detection *d, int n, float score, float iou, bool agnostic,
                     struct task_detection *out)
{
    bool *used = xnewn(bool, (size_t)n);
    int kept = 0;
    for (;;) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (!used[i] && d[i].score >= score && (best < 0 || ahead(&d[i], &d[best]))) best = i;
        if (best < 0) break;
        used[best] = true;
        bool hidden = false;
        for (int k = 0; k < kept; k++)
            hidden |= (agnostic || out[k].class_id == d[best].class_id) &&
                      task_box_iou(&out[k].box, &d[best].box) > iou;
        if (!hidden) out[kept++] = d[best];
    }
    free(used);
    return kept;
}

static void nms_is_the_definition(void **state)
{
    (void)state;
    uint32_t s = 1;
    for (int round = 0; round < 400; round++) {
        struct task_detection d[60], want[60];
        int n = (int)(next(&s) >> 8) % 60;
        for (int i = 0; i < n; i++)
            d[i] = random_detection(&s);
        bool agnostic = round % 2;
        float iou = real(&s, 0.1f, 0.9f);
        int m = reference(d, n, 0.3f, iou, agnostic, want);
        int k = task_nms(d, n, 0.3f, iou, agnostic, 100);
        assert_int_equal(k, m);
        for (int i = 0; i < k; i++)
            assert_memory_equal(&d[i].box, &want[i].box, sizeof d[i].box);
    }
}

static void nms_by_hand(void **state)
{
    (void)state;
    struct task_detection d[] = {
        {.box = {0, 0, 10, 10}, .score = 0.5f},
        {.box = {0, 0, 10, 8}, .score = 0.9f},                 /* IoU 0.8 with the first */
        {.box = {0, 0, 10, 10}, .score = 0.4f, .class_id = 1}, /* another class stays */
        {.box = {0, 0, NAN, 10}, .score = 1},
        {.box = {0, 0, 10, 10}, .score = NAN},
        {.box = {5, 5, 1, 1}, .score = 1}, /* inside out */
        {.box = {0, 0, INFINITY, 1}, .score = 1}};
    struct task_detection e[7];
    memcpy(e, d, sizeof d);
    assert_int_equal(task_nms(d, 7, 0.1f, 0.5f, false, 10), 2);
    assert_true(d[0].score == 0.9f && d[1].class_id == 1);
    memcpy(d, e, sizeof d);
    assert_int_equal(task_nms(d, 7, 0.1f, 0.5f, true, 10), 1);
    memcpy(d, e, sizeof d);
    assert_int_equal(task_nms(d, 7, 0.1f, 1, true, 10), 3); /* off */
    memcpy(d, e, sizeof d);
    assert_int_equal(task_nms(d, 7, 0.1f, 1, true, 2), 2);
    assert_int_equal(task_nms(d, 0, 0.1f, 1, true, 2), 0);
}

static int by_order(const void *a, const void *b)
{
    return ahead(a, b) ? -1 : ahead(b, a);
}

static void the_heap_keeps_the_best(void **state)
{
    (void)state;
    uint32_t s = 7;
    for (int round = 0; round < 200; round++) {
        struct task_detection all[300], kept[40];
        int n = (int)(next(&s) >> 8) % 300, cap = 1 + (int)(next(&s) >> 8) % 40;
        struct task_candidates c = {.items = kept, .cap = cap};
        for (int i = 0; i < n; i++) {
            all[i] = random_detection(&s);
            task_candidates_offer(&c, &all[i]);
        }
        struct task_detection bad = {.score = NAN, .box = {0, 0, 1, 1}};
        task_candidates_offer(&c, &bad);
        assert_int_equal(c.count, MIN(n, cap));
        qsort(all, (size_t)n, sizeof *all, by_order);
        qsort(kept, (size_t)c.count, sizeof *kept, by_order);
        for (int i = 0; i < c.count; i++)
            assert_memory_equal(&all[i].box, &kept[i].box, sizeof kept[i].box);
    }
}

static void iou_by_hand(void **state)
{
    (void)state;
    struct task_box a = {0, 0, 2, 2}, b = {1, 1, 3, 3}, c = {2, 0, 4, 2}, empty = {1, 1, 1, 1},
                    nan = {0, NAN, 1, 1};
    assert_float_equal(task_box_iou(&a, &b), 1.0 / 7, 1e-6);
    assert_float_equal(task_box_iou(&a, &a), 1, 0);
    assert_float_equal(task_box_iou(&a, &c), 0, 0);
    assert_float_equal(task_box_iou(&a, &empty), 0, 0);
    assert_float_equal(task_box_iou(&a, &nan), 0, 0);
    struct task_box huge = {-1e38f, -1e38f, 1e38f, 1e38f};
    assert_float_equal(task_box_iou(&huge, &huge), 1, 1e-6);
}

/* Most pairs first, then least cost: every way tried. */
static void try_all(const float *cost, int rows, int cols, int row, unsigned used, int pairs, double sum,
                    int *best_pairs, double *best)
{
    if (row == rows) {
        if (pairs > *best_pairs || (pairs == *best_pairs && sum < *best)) {
            *best_pairs = pairs;
            *best = sum;
        }
        return;
    }
    try_all(cost, rows, cols, row + 1, used, pairs, sum, best_pairs, best);
    for (int j = 0; j < cols; j++) {
        float c = cost[row * cols + j];
        if ((used >> j & 1) || !(c < TASK_NO_PAIR)) continue;
        try_all(cost, rows, cols, row + 1, used | 1u << j, pairs + 1, sum + c, best_pairs, best);
    }
}

static void assignment_is_optimal(void **state)
{
    (void)state;
    uint32_t s = 3;
    for (int round = 0; round < 3000; round++) {
        int rows = (int)(next(&s) >> 16) % 6, cols = (int)(next(&s) >> 16) % 7, match[6];
        float cost[42];
        for (int i = 0; i < rows * cols; i++) {
            unsigned kind = next(&s) >> 24;
            cost[i] = kind < 60    ? TASK_NO_PAIR
                      : kind < 70  ? NAN
                      : kind < 120 ? (float)(kind % 5)
                                   : real(&s, -50, 100);
        }
        void *scratch = malloc(task_assign_bytes(rows, cols));
        task_assign(cost, rows, cols, scratch, match);
        free(scratch);
        int pairs = 0, best_pairs = 0;
        double sum = 0, best = 0;
        unsigned used = 0;
        for (int i = 0; i < rows; i++) {
            if (match[i] < 0) continue;
            assert_true(match[i] < cols && !(used >> match[i] & 1) &&
                        cost[i * cols + match[i]] < TASK_NO_PAIR);
            used |= 1u << match[i];
            pairs++;
            sum += cost[i * cols + match[i]];
        }
        try_all(cost, rows, cols, 0, 0, 0, 0, &best_pairs, &best);
        assert_int_equal(pairs, best_pairs);
        assert_true(fabs(sum - best) < 1e-3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nms_is_the_definition), cmocka_unit_test(nms_by_hand),
                                       cmocka_unit_test(the_heap_keeps_the_best),
                                       cmocka_unit_test(iou_by_hand),
                                       cmocka_unit_test(assignment_is_optimal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
