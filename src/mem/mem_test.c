/* Tests of budgets: the sums are exact, the limit is hard, the n-th allocation fails, memory really returns.
 * SPDX-License-Identifier: Apache-2.0 */
#include "mem/mem.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void limit_is_hard(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", 1 << 20);
    struct mem_payer *p = mem_payer_new(b, "model a");
    void *x = NULL, *y = NULL;
    assert_int_equal(mem_alloc(p, MEM_WEIGHTS, 1 << 20, &x), ERR_OK);
    assert_int_equal(mem_alloc(p, MEM_SCRATCH, 1, &y), ERR_NOMEM);
    assert_null(y);
    assert_non_null(strstr(err_text(), "model a"));
    assert_int_equal(mem_alloc(p, MEM_SCRATCH, SIZE_MAX, &y), ERR_NOMEM);
    assert_int_equal(mem_budget_used(b), 1 << 20);
    mem_free(p, MEM_WEIGHTS, x, 1 << 20);
    assert_int_equal(mem_budget_used(b), 0);
    assert_int_equal(mem_budget_peak(b), 1 << 20);
    mem_budget_set_limit(b, 10);
    assert_int_equal(mem_charge(p, MEM_CODE, 11), ERR_NOMEM);
    assert_int_equal(mem_charge(p, MEM_CODE, 10), ERR_OK);
    mem_budget_set_limit(b, 5); /* lowered under what is in use: nothing more, until freed */
    assert_int_equal(mem_charge(p, MEM_CODE, 1), ERR_NOMEM);
    mem_release(p, MEM_CODE, 10);
    mem_payer_free(&p);
    mem_budget_free(&b);
    assert_null(b);
}

static void blocks_are_zeroed_and_aligned(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "x");
    for (size_t size = 0; size < 300000; size = size * 3 + 1) {
        unsigned char *x = NULL;
        assert_int_equal(mem_alloc(p, MEM_OTHER, size, (void **)&x), ERR_OK);
        assert_int_equal((uintptr_t)x % 64, 0);
        for (size_t i = 0; i < size; i++) assert_int_equal(x[i], 0);
        memset(x, 255, size);
        mem_free(p, MEM_OTHER, x, size);
    }
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void nth_allocation_fails(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "x");
    for (uint64_t n = 1; n <= 4; n++) {
        mem_fault_at(b, n);
        for (uint64_t i = 1; i <= 4; i++) {
            err e = mem_charge(p, MEM_FRAMES, 1);
            assert_int_equal(e, i == n ? ERR_NOMEM : ERR_OK);
        }
        assert_int_equal(mem_fault_calls(b), 4);
        mem_fault_at(b, 0);
        for (int i = 0; i < 3; i++) mem_release(p, MEM_FRAMES, 1);
    }
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void memory_really_returns(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "x");
    enum { SIZE = 64 << 20 };
    uint64_t before = mem_process_rss().anon;
    void *x = NULL;
    assert_int_equal(mem_alloc(p, MEM_ACTIVATIONS, SIZE, &x), ERR_OK);
    memset(x, 1, SIZE);
    assert_true(mem_process_rss().anon >= before + SIZE);
    mem_free(p, MEM_ACTIVATIONS, x, SIZE);
    assert_true(mem_process_rss().anon < before + (1 << 20));
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void files_back_an_import(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("import", UINT64_MAX);
    assert_int_equal(mem_budget_back_with_files(b, "/no/such/place"), ERR_IO);
    assert_int_equal(mem_budget_back_with_files(b, "/tmp"), ERR_OK);
    struct mem_payer *p = mem_payer_new(b, "x");
    enum { SIZE = 32 << 20 };
    uint64_t before = mem_process_rss().anon;
    char *x = NULL;
    assert_int_equal(mem_alloc(p, MEM_OTHER, SIZE, (void **)&x), ERR_OK);
    assert_int_equal(x[SIZE - 1], 0);
    memset(x, 1, SIZE);
    assert_true(mem_process_rss().anon < before + (1 << 20));
    mem_free(p, MEM_OTHER, x, SIZE);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void *hammer(void *arg)
{
    struct mem_budget *b = arg;
    struct mem_payer *p = mem_payer_new(b, "thread");
    for (int i = 0; i < 2000; i++) {
        void *x = NULL;
        if (mem_alloc(p, MEM_QUEUE, (size_t)(i % 100) * 10, &x) == ERR_OK) mem_free(p, MEM_QUEUE, x, (size_t)(i % 100) * 10);
    }
    mem_payer_free(&p);
    return NULL;
}

static void threads_sum_to_zero(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", 1500);
    pthread_t t[4];
    for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, hammer, b);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_int_equal(mem_budget_used(b), 0);
    assert_true(mem_budget_peak(b) <= 1500);
    mem_budget_free(&b);
}

static void snapshot_names_payers(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "first"), *q = mem_payer_new(b, "second");
    assert_int_equal(mem_charge(q, MEM_CODE, 7), ERR_OK);
    struct mem_row *rows;
    assert_int_equal(mem_snapshot(b, &rows), 2);
    assert_string_equal(rows[1].payer, "second");
    assert_int_equal(rows[1].used[MEM_CODE], 7);
    assert_int_equal(rows[0].count, 0);
    free(rows);
    mem_release(q, MEM_CODE, 7);
    mem_payer_free(&p);
    mem_payer_free(&q);
    mem_budget_free(&b);
}

static uint64_t paid(const struct mem_payer *p)
{
    return mem_payer_used(p, MEM_TRAINING);
}

/* What is used inside is charged outside before; what the outer refuses is refused inside, and nothing is left of it. */
static void a_budget_inside_another(void **state)
{
    (void)state;
    enum { MB = 1 << 20 };
    struct mem_budget *b = mem_budget_new("host", 20 * MB), *in;
    struct mem_payer *camera = mem_payer_new(b, "camera"), *job = mem_payer_new(b, "job"), *p;
    void *x, *y;
    in = mem_budget_within(job, "job", NULL, NULL);
    p = mem_payer_new(in, "network");
    assert_int_equal(mem_alloc(p, MEM_WEIGHTS, 1000, &x), ERR_OK);
    assert_int_equal(paid(job), 4 * MB); /* a step */
    assert_int_equal(mem_alloc(p, MEM_WEIGHTS, 5 * MB, &y), ERR_OK);
    assert_int_equal(paid(job), 8 * MB);
    assert_int_equal(mem_budget_held(in), 8 * MB);
    assert_int_equal(mem_charge(camera, MEM_FRAMES, 11 * MB), ERR_OK);
    assert_int_equal(mem_charge(p, MEM_CODE, 3 * MB), ERR_OK); /* no whole step is left: exactly what is needed */
    assert_int_equal(paid(job), 8 * MB + 1000);
    assert_int_equal(mem_charge(p, MEM_CODE, MB), ERR_NOMEM);
    assert_non_null(strstr(err_text(), "network: job needs"));
    assert_int_equal(mem_budget_used(in), 8 * MB + 1000);
    mem_charge_forced(p, MEM_CODE, MB); /* spent already: it counts outside as well */
    assert_int_equal(paid(job), 9 * MB + 1000);
    mem_release(p, MEM_CODE, MB);
    mem_release(p, MEM_CODE, 3 * MB);
    assert_int_equal(paid(job), 9 * MB + 1000); /* less than a step is kept */
    mem_free(p, MEM_WEIGHTS, y, 5 * MB);
    assert_int_equal(paid(job), 4 * MB);
    assert_int_equal(mem_budget_hold(in, 10 * MB), ERR_NOMEM);
    assert_int_equal(paid(job), 4 * MB);
    assert_int_equal(mem_budget_hold(in, 9 * MB), ERR_OK);
    assert_int_equal(mem_budget_used(b), 20 * MB);
    mem_free(p, MEM_WEIGHTS, x, 1000);
    assert_int_equal(paid(job), 9 * MB); /* held */
    mem_payer_free(&p);
    mem_budget_free(&in);
    assert_int_equal(paid(job), 0);
    mem_release(camera, MEM_FRAMES, 11 * MB);
    mem_payer_free(&job);
    mem_payer_free(&camera);
    assert_int_equal(mem_budget_used(b), 0);
    mem_budget_free(&b);
}

static void automatic_budget_is_sane(void **state)
{
    (void)state;
    uint64_t v = mem_budget_auto();
    assert_true(v > (64u << 20) && v < UINT64_MAX / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limit_is_hard),         cmocka_unit_test(blocks_are_zeroed_and_aligned),
        cmocka_unit_test(nth_allocation_fails),  cmocka_unit_test(memory_really_returns),
        cmocka_unit_test(files_back_an_import),
        cmocka_unit_test(threads_sum_to_zero),   cmocka_unit_test(snapshot_names_payers),
        cmocka_unit_test(a_budget_inside_another),
        cmocka_unit_test(automatic_budget_is_sane)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
