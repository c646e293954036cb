/* Tests of threads: order, both policies, close, no item lost or freed twice under contention (run with the thread
 * sanitizer too). Waits are never timed: a test waits for something that must happen. SPDX-License-Identifier:
 * Apache-2.0 */
#include "base/thread.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static atomic_int alive;

static void *item_new(int v)
{
    int *p = xnew(int);
    *p = v;
    atomic_fetch_add(&alive, 1);
    return p;
}

static void item_drop(void *p)
{
    atomic_fetch_sub(&alive, 1);
    free(p);
}

static int take_int(struct thread_queue *q)
{
    void *p = NULL;
    if (thread_queue_take(q, 0, &p)) return -1;
    int v = *(int *)p;
    item_drop(p);
    return v;
}

static void slot_keeps_the_newest(void **state)
{
    (void)state;
    struct thread_queue q;
    thread_queue_init(&q, 1, THREAD_NEWEST, item_drop);
    assert_int_equal(take_int(&q), -1);
    for (int i = 1; i <= 5; i++) assert_int_equal(thread_queue_put(&q, item_new(i), 0), ERR_OK);
    assert_int_equal(atomic_load(&alive), 1);
    assert_int_equal(take_int(&q), 5);
    struct thread_queue_stats s = thread_queue_stats(&q);
    assert_int_equal(s.dropped, 4);
    assert_int_equal(s.passed, 1);
    assert_int_equal(thread_queue_put(&q, item_new(6), 0), ERR_OK); /* left inside: freed by done */
    thread_queue_done(&q);
    assert_int_equal(atomic_load(&alive), 0);
}

static void queue_refuses_when_full(void **state)
{
    (void)state;
    struct thread_queue q;
    thread_queue_init(&q, 3, THREAD_REFUSE, item_drop);
    for (int round = 0; round < 5; round++) { /* the ring wraps */
        for (int i = 0; i < 3; i++) assert_int_equal(thread_queue_put(&q, item_new(10 * round + i), 0), ERR_OK);
        void *extra = item_new(99);
        assert_int_equal(thread_queue_put(&q, extra, round ? 0 : 1), ERR_AGAIN);
        item_drop(extra); /* still ours */
        for (int i = 0; i < 3; i++) assert_int_equal(take_int(&q), 10 * round + i);
    }
    assert_int_equal(thread_queue_stats(&q).dropped, 5);
    assert_int_equal(thread_queue_put(&q, item_new(1), 0), ERR_OK);
    thread_queue_close(&q);
    void *late = item_new(2), *p;
    assert_int_equal(thread_queue_put(&q, late, -1), ERR_CLOSED);
    item_drop(late);
    assert_int_equal(take_int(&q), 1); /* what is inside still comes out */
    assert_int_equal(thread_queue_take(&q, -1, &p), ERR_CLOSED);
    thread_queue_done(&q);
    assert_int_equal(atomic_load(&alive), 0);
}

enum { EACH = 3000, PRODUCERS = 3 };

static void *produce(void *arg)
{
    struct thread_queue *q = arg;
    for (int i = 0; i < EACH; i++) {
        void *p = item_new(i);
        if (thread_queue_put(q, p, -1)) item_drop(p);
    }
    return NULL;
}

static void *consume(void *arg)
{
    struct thread_queue *q = arg;
    void *p;
    int64_t sum = 0;
    while (!thread_queue_take(q, -1, &p)) {
        sum += *(int *)p;
        item_drop(p);
    }
    int64_t *ret = xnew(int64_t);
    *ret = sum;
    return ret;
}

static void nothing_is_lost_between_threads(void **state)
{
    (void)state;
    for (int policy = THREAD_REFUSE; policy <= THREAD_NEWEST; policy++) {
        struct thread_queue q;
        pthread_t p[PRODUCERS], c[2];
        thread_queue_init(&q, policy == THREAD_NEWEST ? 1 : 4, (enum thread_policy)policy, item_drop);
        for (int i = 0; i < PRODUCERS; i++) assert_int_equal(thread_start("producer", produce, &q, &p[i]), ERR_OK);
        for (int i = 0; i < 2; i++)
            assert_int_equal(thread_start("a consumer with a long name", consume, &q, &c[i]), 0);
        for (int i = 0; i < PRODUCERS; i++) pthread_join(p[i], NULL);
        thread_queue_close(&q);
        int64_t sum = 0;
        for (int i = 0; i < 2; i++) {
            void *ret;
            pthread_join(c[i], &ret);
            sum += *(int64_t *)ret;
            free(ret);
        }
        struct thread_queue_stats s = thread_queue_stats(&q);
        assert_int_equal(s.passed + s.dropped, PRODUCERS * EACH);
        if (policy == THREAD_REFUSE) assert_int_equal(sum, (int64_t)PRODUCERS * EACH * (EACH - 1) / 2);
        thread_queue_done(&q);
        assert_int_equal(atomic_load(&alive), 0);
    }
}

struct waiter {
    struct thread_event stop, ready;
    struct thread_queue q;
};

static void *wait_for_stop(void *arg)
{
    struct waiter *w = arg;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (!sigismember(&mask, SIGTERM)) return arg;
    thread_event_set(&w->ready);
    return thread_event_wait(&w->stop, -1) ? NULL : arg;
}

static void event_ends_a_wait(void **state)
{
    (void)state;
    struct waiter w;
    pthread_t t;
    void *ret;
    assert_int_equal(thread_event_init(&w.stop), ERR_OK);
    assert_int_equal(thread_event_init(&w.ready), ERR_OK);
    assert_false(thread_event_wait(&w.stop, 0));
    assert_false(thread_event_wait(&w.stop, 1));
    assert_int_equal(thread_start("waiter", wait_for_stop, &w, &t), ERR_OK);
    assert_true(thread_event_wait(&w.ready, -1));
    thread_event_set(&w.stop);
    thread_event_set(&w.stop);
    pthread_join(t, &ret);
    assert_null(ret);
    assert_true(thread_event_is_set(&w.stop));
    struct pollfd p = {.fd = thread_event_fd(&w.stop), .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 1);
    thread_event_reset(&w.stop);
    thread_event_reset(&w.stop);
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_false(thread_event_is_set(&w.stop));
    thread_event_done(&w.stop);
    thread_event_done(&w.ready);
}

static void one_thread_waits_for_many_queues(void **state)
{
    (void)state;
    struct thread_event ev;
    struct thread_queue q[3];
    assert_int_equal(thread_event_init(&ev), ERR_OK);
    for (int i = 0; i < 3; i++) {
        thread_queue_init(&q[i], 1, THREAD_NEWEST, item_drop);
        thread_queue_notify(&q[i], &ev);
    }
    pthread_t p;
    assert_int_equal(thread_start("producer", produce, &q[1], &p), ERR_OK);
    int last = -1;
    while (last != EACH - 1) {
        thread_event_wait(&ev, -1);
        thread_event_reset(&ev); /* before looking, so that nothing put later is overlooked */
        for (int i = 0; i < 3; i++) {
            int v = take_int(&q[i]);
            assert_true(v < 0 || (i == 1 && v > last));
            if (v >= 0) last = v;
        }
    }
    pthread_join(p, NULL);
    thread_event_reset(&ev);
    thread_queue_close(&q[0]);
    assert_true(thread_event_is_set(&ev));
    for (int i = 0; i < 3; i++) thread_queue_done(&q[i]);
    thread_event_done(&ev);
    assert_int_equal(atomic_load(&alive), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slot_keeps_the_newest), cmocka_unit_test(queue_refuses_when_full),
        cmocka_unit_test(nothing_is_lost_between_threads), cmocka_unit_test(event_ends_a_wait),
        cmocka_unit_test(one_thread_waits_for_many_queues)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
