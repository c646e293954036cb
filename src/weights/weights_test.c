/* Tests of weight sets: bytes survive eviction, pins hold, the budget is exact, read errors are said and survived, every n-th
 * allocation may fail. SPDX-License-Identifier: Apache-2.0 */
#include "weights/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const size_t sizes[] = {1, 64, 5000, 200000, 4096, 70000};

static err fill(struct weights_set *s)
{
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        int extent;
        void *p;
        err e = weights_set_add(s, sizes[i], &extent, &p);
        if (e) return e;
        assert_int_equal(extent, i);
        memset(p, (int)i + 1, sizes[i]);
    }
    return weights_set_seal(s);
}

static void check(const struct weights_set *s)
{
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        const unsigned char *p = weights_extent(s, (int)i);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(p[k], i + 1);
    }
}

static void bytes_survive_eviction(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "model a");
    struct weights_reader *r;
    struct weights_set *s;
    assert_int_equal(weights_reader_new(&r), ERR_OK);
    assert_int_equal(weights_set_new(p, r, "/tmp", &s), ERR_OK);
    assert_int_equal(fill(s), ERR_OK);
    assert_int_equal(mem_budget_used(b), 0);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(weights_request(s), ERR_OK);
        assert_int_equal(weights_wait(s), ERR_OK);
        check(s);
        assert_int_equal(mem_budget_used(b), weights_bytes(s));
        assert_int_equal(weights_evict(s), ERR_BUSY);
        weights_release(s);
        assert_int_equal(weights_evict(s), ERR_OK);
        assert_int_equal(mem_budget_used(b), 0);
    }
    uint64_t loads, bytes;
    int64_t ns;
    weights_counts(s, &loads, &bytes, &ns);
    assert_int_equal(loads, 3);
    assert_int_equal(bytes, 3 * weights_bytes(s));
    mem_budget_set_limit(b, 1000);
    assert_int_equal(weights_request(s), ERR_NOMEM);
    assert_int_equal(weights_state(s), WEIGHTS_ON_DISK);
    weights_set_free(&s);
    weights_reader_free(&r);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void more_can_be_added_later(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "model a");
    struct weights_reader *r;
    struct weights_set *s;
    int extent;
    void *fill_here;
    assert_int_equal(weights_reader_new(&r), ERR_OK);
    assert_int_equal(weights_set_new(p, r, "/tmp", &s), ERR_OK);
    assert_int_equal(fill(s), ERR_OK);
    assert_int_equal(weights_set_reopen(s), ERR_OK);
    assert_int_equal(weights_set_add(s, 10000, &extent, &fill_here), ERR_OK);
    memset(fill_here, 77, 10000);
    assert_int_equal(weights_set_seal(s), ERR_OK);
    assert_int_equal(weights_request(s), ERR_OK);
    if (weights_wait(s)) fail_msg("%s", err_text());
    check(s);
    assert_int_equal(((const char *)weights_extent(s, extent))[9999], 77);
    weights_release(s);
    weights_set_free(&s);
    weights_reader_free(&r);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void memory_only(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "model a");
    struct weights_set *s;
    assert_int_equal(weights_set_new(p, NULL, NULL, &s), ERR_OK);
    assert_int_equal(fill(s), ERR_OK);
    assert_int_equal(weights_request(s), ERR_OK);
    assert_int_equal(weights_wait(s), ERR_OK);
    check(s);
    weights_release(s);
    assert_int_equal(weights_evict(s), ERR_BUSY);
    weights_set_free(&s);
    assert_int_equal(mem_budget_used(b), 0);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct weights_reader *r;
    assert_int_equal(weights_reader_new(&r), ERR_OK);
    bool finished = false;
    for (uint64_t n = 1; !finished; n++) {
        struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
        struct mem_payer *p = mem_payer_new(b, "model a");
        struct weights_set *s;
        mem_fault_at(b, n);
        assert_int_equal(weights_set_new(p, r, "/tmp", &s), ERR_OK);
        err e = fill(s);
        if (!e && !(e = weights_request(s))) {
            assert_int_equal(weights_wait(s), ERR_OK);
            check(s);
            weights_release(s);
        }
        finished = e == ERR_OK;
        assert_true(e == ERR_OK || e == ERR_NOMEM);
        weights_set_free(&s);
        mem_payer_free(&p);
        mem_budget_free(&b);
    }
    weights_reader_free(&r);
}

static void a_directory_that_is_not_there(void **state)
{
    (void)state;
    struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
    struct mem_payer *p = mem_payer_new(b, "model a");
    struct weights_reader *r;
    struct weights_set *s = NULL;
    assert_int_equal(weights_reader_new(&r), ERR_OK);
    assert_int_equal(weights_set_new(p, r, "/no/such/place", &s), ERR_IO);
    assert_null(s);
    weights_reader_free(&r);
    mem_payer_free(&p);
    mem_budget_free(&b);
}

/* No upper bound is tested: the machine may be slower still. */
static void a_slower_disk_is_played(void **state)
{
    (void)state;
    for (enum weights_reader_kind kind = WEIGHTS_URING; kind <= WEIGHTS_PREAD; kind++) {
        struct mem_budget *b = mem_budget_new("host", UINT64_MAX);
        struct mem_payer *p = mem_payer_new(b, "model a");
        struct weights_reader *r;
        struct weights_set *s;
        int extent;
        void *to;
        assert_int_equal(weights_reader_new_with(kind, &r), ERR_OK);
        weights_reader_set_pace(r, 100e6);
        assert_int_equal(weights_set_new(p, r, "/tmp", &s), ERR_OK);
        assert_int_equal(weights_set_add(s, 10 << 20, &extent, &to), ERR_OK);
        memset(to, 7, 10 << 20);
        assert_int_equal(weights_set_seal(s), ERR_OK);
        int64_t begin = clock_ns();
        assert_int_equal(weights_request(s), ERR_OK);
        assert_int_equal(weights_wait(s), ERR_OK);
        assert_true(clock_ns() - begin >= 104000000); /* 10 MiB */
        assert_true(weights_reader_stats(r).bandwidth <= 101e6);
        weights_release(s);
        weights_set_free(&s);
        weights_reader_free(&r);
        mem_payer_free(&p);
        mem_budget_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bytes_survive_eviction), cmocka_unit_test(more_can_be_added_later),
                                       cmocka_unit_test(memory_only), cmocka_unit_test(every_allocation_may_fail),
                                       cmocka_unit_test(a_directory_that_is_not_there), cmocka_unit_test(a_slower_disk_is_played)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
