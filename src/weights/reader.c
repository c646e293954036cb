/* The thread that reads packed weights: asynchronous, direct, in the order of need.
 *
 * Reads are cut into chunks of a megabyte, and up to eight are in flight through io_uring (a disk that works on one request at a time
 * idles between them). Where the kernel has no io_uring or forbids it, the same thread reads chunk by chunk with pread. Buffers are not
 * registered: that counts against the memory-lock limit of ordinary users and gains nothing at this size.
 *
 * A chunk that was begun is finished; the order of need counts between chunks. The lock is held over no read.
 *
 * In a rehearsal the thread rests: chunks are begun in the same order and in the same number, land one after the other by a clock that somebody turns,
 * on the thread that turns it, and bring nothing.
 *
 * Invariant: a read is in the queue exactly while it has bytes that were not begun; its `done` is called once, after its last chunk.
 * SPDX-License-Identifier: Apache-2.0 */
#include "weights/inside.h"
#include "base/crc32c.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RECENT = 64 << 20, CHUNK = 1 << 20, DEPTH = 8, CRC_BLOCK = 64 << 10 };

struct chunk {
    struct weights_read *read; /* NULL: free */
    size_t at, bytes, size;    /* in the read: what is still to come of the chunk; all of it */
    bool buffered;             /* tried again without O_DIRECT */
    int64_t begun_ns;
    uint64_t number;           /* in the order in which chunks were begun */
};

struct weights_reader {
    pthread_t thread;
    bool uring, copying;
    struct io_uring ring;       /* the thread's */
    struct chunk flight[DEPTH]; /* the thread's */
    int in_flight;
    int64_t paced_ns;           /* the thread's: when the slower disk that we play is free again */
    struct weights_pool *pool;
    pthread_mutex_t lock;       /* guards what follows */
    pthread_cond_t wake;
    struct weights_read *queue; /* sorted by `when`; equal ones in order of arrival */
    bool stop;
    uint64_t bytes, requests;
    int64_t busy_ns;
    double pace;                /* bytes a second; 0: as fast as the disk is */
    struct weights_clock *clock; /* of a rehearsal, or NULL; changes only while nothing is under way */
    double lately_bytes, lately_ns; /* of the last chunks, half forgotten at every RECENT bytes */
    int64_t event_ns;           /* the thread's: when the disk began to work on something, or last delivered */
};

int64_t weights_reader_now(const struct weights_reader *r)
{
    return r && r->clock ? r->clock->now : clock_ns();
}

/* ---- chunks */

static struct chunk *free_slot(struct weights_reader *r)
{
    for (int i = 0; i < DEPTH; i++)
        if (!r->flight[i].read) return &r->flight[i];
    return NULL;
}

/* Lock held: the next chunk of the read that is needed first. */
static struct chunk *begin_chunk(struct weights_reader *r)
{
    struct weights_read *q = r->queue;
    struct chunk *c = q ? free_slot(r) : NULL;
    if (!c) return NULL;
    *c = (struct chunk){.read = q, .at = q->begun, .bytes = MIN(q->bytes - q->begun, (size_t)CHUNK), .begun_ns = weights_reader_now(r), .number = r->requests};
    c->size = c->bytes;
    q->begun += c->bytes;
    q->pending++;
    if (q->begun == q->bytes) r->queue = q->next;
    r->in_flight++;
    r->requests++;
    return c;
}

/* Lock held: what was not begun of a failed read is not begun any more. */
static void give_up(struct weights_reader *r, struct weights_read *q)
{
    if (q->begun == q->bytes) return;
    struct weights_read **at = &r->queue;
    while (*at != q) at = &(*at)->next;
    *at = q->next;
    q->begun = q->bytes;
}

/* The file system took O_DIRECT when the file was opened, but refuses the read: go on through the page cache. */
static void turn_direct_off(struct weights_file *f)
{
    if (atomic_exchange(&f->direct, false)) fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) & ~O_DIRECT);
}

static void fail(struct weights_read *q, err e, size_t at, const char *why)
{
    if (q->failure) return;
    q->failure = e;
    snprintf(q->sentence, sizeof q->sentence, "%s: reading packed weights at byte %zu: %s", q->who, q->offset + at, why);
}

/* n: bytes read, or -errno. True: the chunk is over; false: its rest has to be read. */
static bool chunk_landed(struct chunk *c, ssize_t n)
{
    struct weights_read *q = c->read;
    if (n == -EINTR || n == -EAGAIN) return false;
    if (n == -EINVAL && !c->buffered) { /* other reads may have turned it off while this one was under way */
        c->buffered = true;
        turn_direct_off(q->file);
        return false;
    }
    if (n < 0) {
        fail(q, ERR_IO, c->at, strerror((int)-n));
        return true;
    }
    if (n == 0) {
        fail(q, ERR_CORRUPT, c->at, "the file ends there");
        return true;
    }
    c->at += (size_t)n;
    c->bytes -= (size_t)n;
    return c->bytes == 0;
}

/* Altered bytes on the disk are found here, before any kernel sees them. */
static void check(struct weights_read *q)
{
    for (size_t at = 0; q->crc && !q->failure && at < q->bytes; at += CRC_BLOCK)
        if (crc32c(0, q->to + at, MIN(q->bytes - at, (size_t)CRC_BLOCK)) != q->crc[at / CRC_BLOCK])
            fail(q, ERR_CORRUPT, at, "altered on disk; brim models verify names the file, and without it the weights are packed again");
}

/* A slower disk serves one chunk after the other and saves up nothing while it rests. */
static int64_t paced_end(const struct weights_reader *r, const struct chunk *c, double pace)
{
    return MAX(r->paced_ns, c->begun_ns) + (int64_t)((double)c->size / pace * 1e9);
}

static void play_slower_disk(struct weights_reader *r, const struct chunk *c)
{
    pthread_mutex_lock(&r->lock);
    double pace = r->pace;
    pthread_mutex_unlock(&r->lock);
    if (pace <= 0) return;
    r->paced_ns = paced_end(r, c, pace);
    if (r->clock) return;
    struct timespec t = {.tv_sec = r->paced_ns / 1000000000, .tv_nsec = r->paced_ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) continue;
}

static void end_chunk(struct weights_reader *r, struct chunk *c)
{
    struct weights_read *q = c->read;
    play_slower_disk(r, c);
    int64_t now = weights_reader_now(r);
    pthread_mutex_lock(&r->lock);
    if (!q->failure) {
        r->lately_bytes += (double)c->size;
        r->lately_ns += (double)(now - r->event_ns);
        if (r->lately_bytes > RECENT) r->lately_bytes /= 2, r->lately_ns /= 2;
    }
    r->event_ns = now;
    if (q->failure) give_up(r, q);
    q->pending--;
    bool over = q->pending == 0 && q->begun == q->bytes;
    r->bytes += over && !q->failure ? q->bytes : 0;
    pthread_mutex_unlock(&r->lock);
    c->read = NULL;
    r->in_flight--;
    if (!over) return;
    if (!r->clock) check(q);
    q->done(q);
}

/* ---- two ways to read */

static void pread_chunk(struct weights_reader *r, struct chunk *c)
{
    ssize_t n;
    void *buffer = r->copying ? malloc(CHUNK) : NULL;
    if (r->copying) turn_direct_off(c->read->file);
    do {
        void *to = buffer ? buffer : c->read->to + c->at;
        n = pread(c->read->file->fd, to, c->bytes, (off_t)(c->read->offset + c->at));
        if (n < 0) n = -errno;
        if (buffer && n > 0) memcpy(c->read->to + c->at, buffer, (size_t)n);
    } while (!chunk_landed(c, n));
    free(buffer);
    end_chunk(r, c);
}

static void uring_begin(struct weights_reader *r, struct chunk *c)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring); /* never NULL: the ring has DEPTH entries */
    io_uring_prep_read(sqe, c->read->file->fd, c->read->to + c->at, (unsigned)c->bytes, c->read->offset + c->at);
    io_uring_sqe_set_data(sqe, c);
}

static void uring_wait(struct weights_reader *r)
{
    struct io_uring_cqe *cqe;
    int rc = io_uring_submit_and_wait(&r->ring, 1);
    if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) abort(); /* the ring itself is broken: memory may still be written */
    while (io_uring_peek_cqe(&r->ring, &cqe) == 0) {
        struct chunk *c = io_uring_cqe_get_data(cqe);
        ssize_t n = cqe->res;
        io_uring_cqe_seen(&r->ring, cqe);
        if (chunk_landed(c, n))
            end_chunk(r, c);
        else
            uring_begin(r, c);
    }
}

static void begin(struct weights_reader *r)
{
    for (;;) {
        pthread_mutex_lock(&r->lock);
        struct chunk *c = !r->uring && r->in_flight ? NULL : begin_chunk(r);
        pthread_mutex_unlock(&r->lock);
        if (!c) return;
        if (r->uring) uring_begin(r, c);
        else pread_chunk(r, c);
    }
}

static void *reader_main(void *arg)
{
    struct weights_reader *r = arg;
    int64_t since = 0;
    pthread_setname_np(pthread_self(), "brim-weights");
    for (;;) {
        pthread_mutex_lock(&r->lock);
        if (since && !r->in_flight && !r->queue) {
            r->busy_ns += clock_ns() - since;
            since = 0;
        }
        while ((r->clock || (!r->queue && !r->in_flight)) && !r->stop) pthread_cond_wait(&r->wake, &r->lock);
        bool over = !r->queue && !r->in_flight;
        pthread_mutex_unlock(&r->lock);
        if (over) return NULL;
        if (!since) since = r->event_ns = clock_ns();
        begin(r);
        if (r->in_flight) uring_wait(r);
    }
}

/* ---- rehearsals; all on one thread */

void weights_reader_rehearse(struct weights_reader *r, struct weights_clock *clock, double bytes_per_s)
{
    pthread_mutex_lock(&r->lock);
    assert(!r->queue && !r->stop);
    r->clock = clock;
    r->pace = bytes_per_s;
    r->paced_ns = r->event_ns = 0;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

/* The chunk that lands next, after all that can be under way was begun. */
static struct chunk *next_to_land(struct weights_reader *r)
{
    struct chunk *first = NULL;
    pthread_mutex_lock(&r->lock);
    if (!r->in_flight) r->event_ns = r->clock->now;
    while (begin_chunk(r)) continue;
    pthread_mutex_unlock(&r->lock);
    for (int i = 0; i < DEPTH; i++)
        if (r->flight[i].read && (!first || r->flight[i].number < first->number)) first = &r->flight[i];
    return first;
}

int64_t weights_reader_next(struct weights_reader *r)
{
    const struct chunk *c = next_to_land(r);
    return c ? paced_end(r, c, r->pace) : INT64_MAX;
}

void weights_reader_land(struct weights_reader *r)
{
    for (struct chunk *c; (c = next_to_land(r)) && paced_end(r, c, r->pace) <= r->clock->now;) {
        c->at += c->bytes;
        c->bytes = 0;
        end_chunk(r, c);
    }
}

void weights_reader_spend(struct weights_reader *r, size_t evicted)
{
    if (r && r->clock && r->clock->evict_ns > 0) r->clock->go(r->clock, r->clock->now + (int64_t)((double)evicted * r->clock->evict_ns));
}

void weights_reader_sleep(struct weights_reader *r, pthread_cond_t *changed, pthread_mutex_t *lock)
{
    if (!r || !r->clock) {
        pthread_cond_wait(changed, lock);
        return;
    }
    pthread_mutex_unlock(lock);
    int64_t at = weights_reader_next(r);
    assert(at != INT64_MAX); /* else this would wait for ever */
    r->clock->go(r->clock, at);
    pthread_mutex_lock(lock);
}

/* ---- the queue */

void weights_reader_submit(struct weights_reader *r, struct weights_read *q)
{
    q->begun = q->pending = 0;
    q->failure = ERR_OK;
    pthread_mutex_lock(&r->lock);
    struct weights_read **at = &r->queue;
    while (*at && (*at)->when <= q->when) at = &(*at)->next;
    q->next = *at;
    *at = q;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

bool weights_reader_cancel(struct weights_reader *r, struct weights_read *q)
{
    bool found = false;
    pthread_mutex_lock(&r->lock);
    for (struct weights_read **at = &r->queue; *at && !found; at = &(*at)->next) {
        if (*at != q || q->begun) continue;
        *at = q->next;
        found = true;
        break;
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}

err weights_reader_new_with(enum weights_reader_kind kind, struct weights_reader **ret)
{
    struct weights_reader *r = xnew(struct weights_reader);
    r->pool = weights_pool_new();
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->wake, NULL);
    r->copying = kind == WEIGHTS_COPYING;
    r->uring = kind == WEIGHTS_URING && io_uring_queue_init(DEPTH, &r->ring, 0) == 0;
    int rc = pthread_create(&r->thread, NULL, reader_main, r);
    if (rc) {
        if (r->uring) io_uring_queue_exit(&r->ring);
        weights_pool_free(&r->pool);
        free(r);
        return err_set(ERR_IO, "cannot start the thread that reads weights: %s", strerror(rc));
    }
    *ret = r;
    return ERR_OK;
}

err weights_reader_new(struct weights_reader **ret)
{
    return weights_reader_new_with(WEIGHTS_URING, ret);
}

void weights_reader_free(struct weights_reader **rp)
{
    struct weights_reader *r = *rp;
    if (!r) return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    weights_pool_free(&r->pool);
    if (r->uring) io_uring_queue_exit(&r->ring);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->wake);
    free(r);
    *rp = NULL;
}

void weights_reader_set_pace(struct weights_reader *r, double bytes_per_s)
{
    pthread_mutex_lock(&r->lock);
    r->pace = bytes_per_s;
    pthread_mutex_unlock(&r->lock);
}

struct weights_pool *weights_reader_pool(struct weights_reader *r)
{
    return r->pool;
}

struct weights_reader_stats weights_reader_stats(struct weights_reader *r)
{
    pthread_mutex_lock(&r->lock);
    struct weights_reader_stats s = {.bytes = r->bytes, .requests = r->requests, .busy_ns = r->busy_ns, .uring = r->uring};
    if (r->lately_bytes > 4 << 20 && r->lately_ns > 0) s.bandwidth = r->lately_bytes / r->lately_ns * 1e9;
    pthread_mutex_unlock(&r->lock);
    return s;
}
