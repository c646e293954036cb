/* Named threads, events and bounded queues.
 *
 * A slot and a queue are the same ring under one mutex and differ only in what happens when it is full. The event
 * is an eventfd with its state mirrored in an atomic: waits go through poll(), so a stop interrupts a wait on a
 * socket too, and asking costs no system call. Conditions use the monotonic clock, since boxes without a battery
 * jump in time when NTP answers.
 *
 * Invariants: 0 <= count <= capacity; every item put is taken, dropped, or still inside; an event's descriptor is
 * readable exactly when it is set. SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

err thread_start(const char *name, void *(*run)(void *arg), void *arg, pthread_t *ret)
{
    sigset_t all, before;
    pthread_t t;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* a new thread inherits the mask */
    int rc = pthread_create(&t, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) return err_set(ERR_IO, "cannot start the thread '%s': %s", name, strerror(rc));
    char cut[16] = {0};
    strncpy(cut, name, sizeof cut - 1);
    pthread_setname_np(t, cut);
    *ret = t;
    return ERR_OK;
}

err thread_event_init(struct thread_event *ev)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return err_set(ERR_IO, "cannot make an event: %s", strerror(errno));
    pthread_mutex_init(&ev->lock, NULL);
    atomic_init(&ev->set, false);
    ev->fd = fd;
    return ERR_OK;
}

void thread_event_done(struct thread_event *ev)
{
    pthread_mutex_destroy(&ev->lock);
    close(ev->fd);
    ev->fd = -1;
}

void thread_event_set(struct thread_event *ev)
{
    pthread_mutex_lock(&ev->lock);
    if (!atomic_load(&ev->set)) {
        atomic_store(&ev->set, true);
        eventfd_write(ev->fd, 1);
    }
    pthread_mutex_unlock(&ev->lock);
}

void thread_event_reset(struct thread_event *ev)
{
    pthread_mutex_lock(&ev->lock);
    if (atomic_load(&ev->set)) {
        eventfd_t v;
        eventfd_read(ev->fd, &v);
        atomic_store(&ev->set, false);
    }
    pthread_mutex_unlock(&ev->lock);
}

bool thread_event_is_set(const struct thread_event *ev)
{
    return atomic_load(&ev->set);
}

bool thread_event_wait(struct thread_event *ev, int timeout_ms)
{
    int64_t end = clock_ns() + (int64_t)timeout_ms * 1000000;
    while (!thread_event_is_set(ev)) {
        int64_t left = timeout_ms < 0 ? -1 : (end - clock_ns() + 999999) / 1000000;
        if (timeout_ms >= 0 && left <= 0) break;
        struct pollfd p = {.fd = ev->fd, .events = POLLIN};
        (void)poll(&p, 1, (int)left); /* an interrupted poll is just an earlier look */
    }
    return thread_event_is_set(ev);
}

int thread_event_fd(const struct thread_event *ev)
{
    return ev->fd;
}

void thread_queue_init(struct thread_queue *q, size_t capacity, enum thread_policy policy, void (*drop)(void *item))
{
    assert(capacity > 0);
    *q = (struct thread_queue){.capacity = capacity, .policy = policy, .drop = drop};
    q->items = xnewn(void *, capacity);
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->filled, &attr);
    pthread_cond_init(&q->drained, &attr);
    pthread_condattr_destroy(&attr);
}

/* With the lock held. */
static void *pop(struct thread_queue *q)
{
    void *item = q->items[q->head];
    q->head = (q->head + 1) % q->capacity;
    q->count--;
    return item;
}

void thread_queue_done(struct thread_queue *q)
{
    while (q->count) {
        void *item = pop(q);
        if (q->drop) q->drop(item);
    }
    pthread_cond_destroy(&q->filled);
    pthread_cond_destroy(&q->drained);
    pthread_mutex_destroy(&q->lock);
    free(q->items);
    q->items = NULL;
}

void thread_queue_notify(struct thread_queue *q, struct thread_event *ev)
{
    pthread_mutex_lock(&q->lock);
    q->notify = ev;
    pthread_mutex_unlock(&q->lock);
}

/* Waits on `cond` until `end` (negative: for ever). False when the time is over. */
static bool wait_until(struct thread_queue *q, pthread_cond_t *cond, int64_t end)
{
    if (end < 0) return pthread_cond_wait(cond, &q->lock) == 0;
    struct timespec t = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};
    return pthread_cond_timedwait(cond, &q->lock, &t) != ETIMEDOUT;
}

static int64_t end_of(int timeout_ms)
{
    return timeout_ms < 0 ? -1 : clock_ns() + (int64_t)timeout_ms * 1000000;
}

err thread_queue_put(struct thread_queue *q, void *item, int timeout_ms)
{
    int64_t end = end_of(timeout_ms);
    void *old = NULL;
    err e = ERR_OK;
    assert(item);
    pthread_mutex_lock(&q->lock);
    if (q->policy == THREAD_REFUSE)
        while (q->count == q->capacity && !q->closed && timeout_ms && wait_until(q, &q->drained, end)) {}
    bool full = q->count == q->capacity;
    if (q->closed) {
        e = ERR_CLOSED;
    } else if (full && q->policy == THREAD_REFUSE) {
        q->dropped++;
        e = ERR_AGAIN;
    } else {
        if (full) old = pop(q), q->dropped++;
        q->items[(q->head + q->count++) % q->capacity] = item;
        pthread_cond_signal(&q->filled);
        if (q->notify) thread_event_set(q->notify);
    }
    pthread_mutex_unlock(&q->lock);
    if (old && q->drop) q->drop(old);
    if (e == ERR_CLOSED) return err_set(e, "the queue is closed");
    if (e) return err_set(e, "the queue of %zu is full", q->capacity);
    return ERR_OK;
}

err thread_queue_take(struct thread_queue *q, int timeout_ms, void **ret)
{
    int64_t end = end_of(timeout_ms);
    void *item = NULL;
    pthread_mutex_lock(&q->lock);
    while (!q->count && !q->closed && timeout_ms && wait_until(q, &q->filled, end)) {}
    bool closed = q->closed;
    if (q->count) {
        item = pop(q);
        q->passed++;
        pthread_cond_signal(&q->drained);
    }
    pthread_mutex_unlock(&q->lock);
    if (!item && closed) return err_set(ERR_CLOSED, "the queue is closed");
    if (!item) return err_set(ERR_TIMEOUT, "nothing came within %d ms", timeout_ms);
    *ret = item;
    return ERR_OK;
}

void thread_queue_close(struct thread_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->filled);
    pthread_cond_broadcast(&q->drained);
    if (q->notify) thread_event_set(q->notify);
    pthread_mutex_unlock(&q->lock);
}

struct thread_queue_stats thread_queue_stats(struct thread_queue *q)
{
    pthread_mutex_lock(&q->lock);
    struct thread_queue_stats s = {.count = q->count, .passed = q->passed, .dropped = q->dropped};
    pthread_mutex_unlock(&q->lock);
    return s;
}
