/* Threads and what may stand between them: a bounded queue that counts what it dropped, and an event that ends
 * waits.
 *
 * Live video never queues: between a camera and its reader stands a *slot*, which is a queue of one where the
 * newest wins. Everything else that crosses threads goes through a queue that refuses when full. There is no
 * unbounded one.
 *
 *     struct thread_queue slot;
 *     thread_queue_init(&slot, 1, THREAD_NEWEST, frame_unref_item);
 *     thread_queue_put(&slot, frame, 0);                    // producer: never waits; an older frame is dropped
 *     err e = thread_queue_take(&slot, 100, &item);         // consumer: ERR_TIMEOUT after 100 ms, ERR_CLOSED at
 * the end
 *
 * Everything here is thread-safe except init and done. Times are milliseconds of the monotonic clock; -1 waits for
 * ever. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"
#include "base/err.h"

#include <pthread.h>
#include <stdatomic.h>

/* Starts a thread that shows as `name` (cut at 15 bytes) in top and gdb. All signals are blocked in it, so that only
 * the main thread ever handles one. End it with pthread_join. */
err thread_start(const char *name, void *(*run)(void *arg), void *arg, pthread_t *ret);

/* An event: set or not set; stays set until reset. Use it as a stop flag, or to wait for several queues at once. */
struct thread_event {
    pthread_mutex_t lock; /* guards changes of `set` together with fd's counter */
    atomic_bool set;
    int fd;
};
err thread_event_init(struct thread_event *ev); /* ERR_IO: no file descriptor left */
void thread_event_done(struct thread_event *ev);
void thread_event_set(struct thread_event *ev);
void thread_event_reset(struct thread_event *ev);
bool thread_event_is_set(const struct thread_event *ev); /* one atomic read: cheap enough for every packet */
bool thread_event_wait(struct thread_event *ev, int timeout_ms); /* is it set at the end? */
int thread_event_fd(const struct thread_event *ev);              /* readable while set: for poll() beside sockets */

enum thread_policy {
    THREAD_REFUSE, /* full: the new item is not taken and stays the caller's (events, jobs) */
    THREAD_NEWEST, /* full: the oldest item is dropped to make room (frames) */
};

struct thread_queue {
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t filled, drained;
    void **items; /* ring of `capacity`; the oldest at `head` */
    size_t capacity, head, count;
    uint64_t dropped, passed;
    enum thread_policy policy;
    bool closed;
    void (*drop)(void *item);
    struct thread_event *notify;
};

/* `drop` frees an item that nobody will take (oldest of THREAD_NEWEST, and what is left at done); it is called
 * without the lock. NULL: items need no freeing. */
void thread_queue_init(struct thread_queue *q, size_t capacity, enum thread_policy policy, void (*drop)(void *item));
/* Nobody may be in put or take any more: close the queue and join its threads first. */
void thread_queue_done(struct thread_queue *q);
/* `ev` (borrowed, may be NULL) is set after every put and close, so that one thread can wait for many queues. */
void thread_queue_notify(struct thread_queue *q, struct thread_event *ev);

/* Gives `item` (not NULL) to the queue. THREAD_REFUSE waits up to timeout_ms for room, then ERR_AGAIN (counted as
 * dropped). ERR_CLOSED after close. On any error the item is still the caller's. */
err thread_queue_put(struct thread_queue *q, void *item, int timeout_ms);
/* The oldest item, now the caller's. ERR_TIMEOUT: none came. ERR_CLOSED: closed and empty. */
err thread_queue_take(struct thread_queue *q, int timeout_ms, void **ret);
/* Nothing more may be put; takers get what is left and then ERR_CLOSED; all waits end. */
void thread_queue_close(struct thread_queue *q);

struct thread_queue_stats {
    size_t count;
    uint64_t passed, dropped; /* items taken out; items dropped or refused because it was full */
};
struct thread_queue_stats thread_queue_stats(struct thread_queue *q);
