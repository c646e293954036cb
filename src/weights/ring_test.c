/* Tests of streaming: every pass sees the right bytes in the right order whatever the window, the budget is the window's, passes can be
 * given up at any moment, read errors are said, and what was read is what was not kept. SPDX-License-Identifier: Apache-2.0 */
#include "weights/inside.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { N = 40 };

struct world {
    struct mem_budget *budget;
    struct mem_payer *payer;
    struct weights_reader *reader;
    struct weights_set *set;
    size_t bytes[N];
};

static uint32_t word(int extent, size_t k)
{
    return (uint32_t)(extent * 2654435761u + k * 40503u);
}

static int set_up(void **state, enum weights_reader_kind kind)
{
    struct world *w = xnew(struct world);
    w->budget = mem_budget_new("host", UINT64_MAX);
    w->payer = mem_payer_new(w->budget, "model a");
    if (weights_reader_new_with(kind, &w->reader) || weights_set_new(w->payer, w->reader, "/tmp", &w->set)) return -1;
    for (int i = 0; i < N; i++) {
        int extent;
        void *p;
        w->bytes[i] = i % 5 == 3 ? 1000 : (size_t)(65536 + i * 37000) / 4 * 4;
        if (weights_set_add(w->set, w->bytes[i], &extent, &p)) return -1;
        for (size_t k = 0; k < w->bytes[i] / 4; k++) ((uint32_t *)p)[k] = word(i, k);
    }
    *state = w;
    return weights_set_seal(w->set);
}

static int with_uring(void **state)
{
    return set_up(state, WEIGHTS_URING);
}

static int without(void **state)
{
    return set_up(state, WEIGHTS_PREAD);
}

static int tear_down(void **state)
{
    struct world *w = *state;
    weights_set_free(&w->set);
    weights_reader_free(&w->reader);
    mem_payer_free(&w->payer);
    mem_budget_free(&w->budget);
    free(w);
    return 0;
}

static void check(const struct world *w, int extent, const void *p)
{
    for (size_t k = 0; k < w->bytes[extent] / 4; k++)
        if (((const uint32_t *)p)[k] != word(extent, k)) fail_msg("extent %d, word %zu", extent, k);
}

/* Keeps every third extent; the rest streams. */
static int split(struct world *w, int *streamed, size_t *ret_bytes)
{
    bool keep[N];
    int n = 0;
    for (int i = 0; i < N; i++) keep[i] = i % 3 == 0;
    assert_int_equal(weights_set_keep(w->set, keep), ERR_OK);
    *ret_bytes = 0;
    for (int i = 0; i < N; i++) {
        assert_int_equal(weights_extent_streams(w->set, i), !keep[i] && w->bytes[i] >= 65536);
        if (!weights_extent_streams(w->set, i)) continue;
        streamed[n++] = i;
        *ret_bytes += weights_extent_block_bytes(w->set, i);
    }
    return n;
}

static void every_pass_sees_its_bytes(void **state)
{
    struct world *w = *state;
    int streamed[N];
    size_t per_pass;
    int n = split(w, streamed, &per_pass);
    assert_int_equal(weights_request(w->set), ERR_OK);
    assert_int_equal(weights_wait(w->set), ERR_OK);
    size_t kept = weights_kept_bytes(w->set);
    assert_int_equal(mem_budget_used(w->budget), kept);
    static const size_t windows[] = {1500000, 1600001, 3000000, 9000000, 80000000};
    for (size_t i = 0; i < ARRAY_LEN(windows); i++) {
        struct weights_ring *r;
        struct weights_pass *now, *next;
        uint64_t loads, before, after;
        int64_t ns;
        weights_counts(w->set, &loads, &before, &ns);
        assert_int_equal(weights_ring_new(w->payer, w->reader, windows[i], &r), ERR_OK);
        assert_int_equal(mem_budget_used(w->budget), kept + weights_ring_bytes(r));
        assert_int_equal(weights_pass_new(r, w->set, streamed, n, &now), ERR_OK);
        for (int round = 0; round < 3; round++) {
            assert_int_equal(weights_pass_new(r, w->set, streamed, n, &next), ERR_OK); /* read ahead while this one runs */
            for (int k = 0; k < n; k++) {
                const void *p;
                assert_int_equal(weights_pass_wait(now, k, &p), ERR_OK);
                check(w, streamed[k], p);
                if (k % 2 || k == n - 1) weights_pass_done(now, k + 1);
                else if (k + 1 < n && windows[i] < 2500000) weights_pass_done(now, k + 1);
            }
            weights_pass_free(&now);
            now = next;
        }
        weights_pass_free(&now);
        weights_ring_drain(r);
        weights_ring_free(&r);
        weights_counts(w->set, &loads, &after, &ns);
        assert_int_equal(after - before, 3 * per_pass);
        assert_int_equal(mem_budget_used(w->budget), kept);
    }
    for (int i = 0; i < N; i++)
        if (!weights_extent_streams(w->set, i)) check(w, i, weights_extent(w->set, i));
    weights_release(w->set);
}

static void passes_can_be_given_up(void **state)
{
    struct world *w = *state;
    struct weights_ring *r;
    int streamed[N];
    size_t per_pass;
    int n = split(w, streamed, &per_pass);
    uint32_t seed = 1;
    assert_int_equal(weights_ring_new(w->payer, w->reader, 4000000, &r), ERR_OK);
    for (int round = 0; round < 200; round++) {
        struct weights_pass *a, *b;
        const void *p;
        seed = seed * 1664525 + 1013904223;
        int stop = (int)(seed >> 8) % (n + 1);
        assert_int_equal(weights_pass_new(r, w->set, streamed, n, &a), ERR_OK);
        assert_int_equal(weights_pass_new(r, w->set, streamed + n / 2, n - n / 2, &b), ERR_OK);
        if (seed & 64) weights_pass_free(&b); /* given up before the one in front */
        for (int k = 0; k < stop; k++) {
            assert_int_equal(weights_pass_wait(a, k, &p), ERR_OK);
            check(w, streamed[k], p);
            weights_pass_done(a, k + 1);
        }
        weights_pass_free(&a);
        if (b) {
            assert_int_equal(weights_pass_wait(b, 0, &p), ERR_OK);
            check(w, streamed[n / 2], p);
            weights_pass_free(&b);
        }
    }
    struct weights_pass *none;
    weights_ring_free(&r);
    assert_int_equal(weights_ring_new(w->payer, w->reader, 100000, &r), ERR_OK);
    assert_int_equal(weights_pass_new(r, w->set, streamed, n, &none), ERR_NOMEM);
    weights_ring_free(&r);
}

static void what_stays_is_not_read_again(void **state)
{
    struct world *w = *state;
    uint64_t loads, first, second;
    int64_t ns;
    bool keep[N] = {false};
    assert_int_equal(weights_request(w->set), ERR_OK);
    assert_int_equal(weights_wait(w->set), ERR_OK);
    assert_int_equal(weights_set_keep(w->set, keep), ERR_BUSY);
    weights_release(w->set);
    weights_counts(w->set, &loads, &first, &ns);
    assert_int_equal(first, weights_bytes(w->set));
    for (int i = 0; i < N / 2; i++) keep[i] = true;
    assert_int_equal(weights_set_keep(w->set, keep), ERR_OK);
    assert_int_equal(weights_resident_bytes(w->set), weights_kept_bytes(w->set));
    assert_int_equal(weights_state(w->set), WEIGHTS_RESIDENT); /* all that is kept is there already */
    size_t half = weights_kept_bytes(w->set);
    assert_int_equal(weights_set_keep(w->set, NULL), ERR_OK);
    assert_int_equal(weights_state(w->set), WEIGHTS_ON_DISK);
    assert_int_equal(weights_request(w->set), ERR_OK);
    assert_int_equal(weights_wait(w->set), ERR_OK);
    weights_counts(w->set, &loads, &second, &ns);
    assert_int_equal(second - first, weights_bytes(w->set) - half);
    for (int i = 0; i < N; i++) check(w, i, weights_extent(w->set, i));
    weights_release(w->set);
}

static void a_read_error_is_said(void **state)
{
    struct world *w = *state;
    struct weights_ring *r;
    struct weights_pass *p;
    int streamed[N];
    size_t per_pass;
    const void *at;
    struct weights_read read;
    int n = split(w, streamed, &per_pass), failed = 0;
    weights_set_locate(w->set, streamed[n / 2], &read);
    assert_int_equal(ftruncate(read.file->fd, (off_t)read.offset + 4096), 0); /* the file was cut under us */
    assert_int_equal(weights_ring_new(w->payer, w->reader, 6000000, &r), ERR_OK);
    assert_int_equal(weights_pass_new(r, w->set, streamed, n, &p), ERR_OK);
    for (int k = 0; k < n; k++) {
        err e = weights_pass_wait(p, k, &at);
        if (k < n / 2) {
            assert_int_equal(e, ERR_OK);
            check(w, streamed[k], at);
        } else {
            assert_int_equal(e, ERR_CORRUPT);
            assert_non_null(strstr(err_text(), "model a"));
            failed++;
        }
        weights_pass_done(p, k + 1);
    }
    assert_int_equal(failed, n - n / 2);
    weights_pass_free(&p);
    weights_ring_free(&r);
    assert_int_equal(weights_set_keep(w->set, NULL), ERR_OK);
    assert_int_equal(weights_request(w->set), ERR_OK);
    assert_int_equal(weights_wait(w->set), ERR_CORRUPT);
    weights_release(w->set);
}

int main(void)
{
#define BOTH(f) cmocka_unit_test_setup_teardown(f, with_uring, tear_down), \
        {#f " (pread)", f, without, tear_down, NULL}
    const struct CMUnitTest tests[] = {BOTH(every_pass_sees_its_bytes), BOTH(passes_can_be_given_up), BOTH(what_stays_is_not_read_again),
                                       BOTH(a_read_error_is_said)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
