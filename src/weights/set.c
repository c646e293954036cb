/* Sets of packed weights and the thread that reads them.
 *
 * One mutex per set guards its state, pins and region; one per reader guards its queue. A lock is never held over a read. The region
 * is one mapping, allocated when the read is asked for (so that ERR_NOMEM comes at once, to the one who can evict something
 * else) and filled by the reader thread.
 *
 * Invariant: region != NULL exactly in LOADING and RESIDENT (sets with a spill file); pins > 0 in LOADING.
 * SPDX-License-Identifier: Apache-2.0 */
#include "weights/weights.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAGE = 4096, READ_STEP = 4 << 20 };

struct extent {
    size_t offset, bytes; /* in the region; bytes without padding */
    void *memory;         /* memory-only sets */
};

struct weights_set {
    struct mem_payer *payer;
    struct weights_reader *reader;
    int fd;                 /* of the spill file, or -1 */
    bool direct;            /* O_DIRECT works on fd */
    size_t n, cap, total;   /* total: bytes of the region */
    struct extent *extents;
    void *bounce;
    size_t bounce_bytes;

    pthread_mutex_t lock;   /* guards what follows */
    pthread_cond_t changed;
    enum weights_state state;
    int pins;
    unsigned char *region;
    err failure;            /* of the last read, with its sentence */
    char sentence[256];
    uint64_t loads, bytes_read;
    int64_t read_ns;
    struct weights_set *next; /* in the reader's queue; guarded by the reader's lock */
};

struct weights_reader {
    pthread_t thread;
    pthread_mutex_t lock; /* guards the queue and stop */
    pthread_cond_t wake;
    struct weights_set *head, **tail;
    bool stop;
};

static size_t round_up(size_t n)
{
    return (n + PAGE - 1) / PAGE * PAGE;
}

/* ---- the reader */

static err read_all(struct weights_set *s)
{
    for (size_t at = 0; at < s->total;) {
        ssize_t n = pread(s->fd, s->region + at, MIN(s->total - at, (size_t)READ_STEP), (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EINVAL && s->direct) { /* the file system took the flag but not the read */
            s->direct = false;
            fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) & ~O_DIRECT);
            continue;
        }
        if (n < 0) return err_set(ERR_IO, "%s: reading packed weights at %zu: %s", mem_payer_name(s->payer), at, strerror(errno));
        if (n == 0) return err_set(ERR_CORRUPT, "%s: the packed weights end at byte %zu of %zu", mem_payer_name(s->payer), at, s->total);
        at += (size_t)n;
    }
    return ERR_OK;
}

static void load(struct weights_set *s)
{
    int64_t begin = clock_ns();
    err e = read_all(s);
    pthread_mutex_lock(&s->lock);
    s->read_ns += clock_ns() - begin;
    s->loads++;
    s->bytes_read += s->total;
    s->failure = e;
    if (e) {
        snprintf(s->sentence, sizeof s->sentence, "%s", err_text());
        mem_free(s->payer, MEM_WEIGHTS, s->region, s->total);
        s->region = NULL;
        s->state = WEIGHTS_ON_DISK;
    } else {
        s->state = WEIGHTS_RESIDENT;
    }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void *reader_main(void *arg)
{
    struct weights_reader *r = arg;
    pthread_setname_np(pthread_self(), "brim-weights");
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!r->head && !r->stop) pthread_cond_wait(&r->wake, &r->lock);
        struct weights_set *s = r->head;
        if (!s) break;
        r->head = s->next;
        if (!r->head) r->tail = &r->head;
        pthread_mutex_unlock(&r->lock);
        load(s);
        pthread_mutex_lock(&r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

err weights_reader_new(struct weights_reader **ret)
{
    struct weights_reader *r = xnew(struct weights_reader);
    r->tail = &r->head;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->wake, NULL);
    int rc = pthread_create(&r->thread, NULL, reader_main, r);
    if (rc) {
        free(r);
        return err_set(ERR_IO, "cannot start the thread that reads weights: %s", strerror(rc));
    }
    *ret = r;
    return ERR_OK;
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
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->wake);
    free(r);
    *rp = NULL;
}

static void enqueue(struct weights_reader *r, struct weights_set *s)
{
    pthread_mutex_lock(&r->lock);
    s->next = NULL;
    *r->tail = s;
    r->tail = &s->next;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

/* ---- filling */

static err open_spill(struct weights_set *s, const char *dir)
{
    s->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (s->fd < 0) { /* a file system without O_TMPFILE */
        char *name = xasprintf("%s/brim-spill-XXXXXX", dir);
        s->fd = mkostemp(name, O_CLOEXEC);
        if (s->fd >= 0) unlink(name);
        free(name);
    }
    if (s->fd < 0)
        return err_set(ERR_IO, "%s: cannot make a file for packed weights there: %s; give another directory with --store", dir,
                       strerror(errno));
    return ERR_OK;
}

err weights_set_new(struct mem_payer *payer, struct weights_reader *reader, const char *spill_dir, struct weights_set **ret)
{
    struct weights_set *s = xnew(struct weights_set);
    s->payer = payer;
    s->reader = reader;
    s->fd = -1;
    s->state = WEIGHTS_FILLING;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    if (spill_dir) {
        assert(reader);
        err e = open_spill(s, spill_dir);
        if (e) {
            weights_set_free(&s);
            return e;
        }
    }
    *ret = s;
    return ERR_OK;
}

/* Writes the extent that was added last from the bounce buffer to the file. */
static err flush_bounce(struct weights_set *s)
{
    if (!s->bounce) return ERR_OK;
    err e = ERR_OK;
    const struct extent *x = &s->extents[s->n - 1];
    size_t size = round_up(x->bytes);
    for (size_t at = 0; at < size && !e;) {
        ssize_t n = pwrite(s->fd, (char *)s->bounce + at, size - at, (off_t)(x->offset + at));
        if (n < 0 && errno != EINTR)
            e = err_set(ERR_IO, "%s: writing packed weights: %s; free space or give another directory with --store",
                        mem_payer_name(s->payer), strerror(errno));
        if (n > 0) at += (size_t)n;
    }
    mem_free(s->payer, MEM_WEIGHTS, s->bounce, s->bounce_bytes);
    s->bounce = NULL;
    return e;
}

err weights_set_add(struct weights_set *s, size_t bytes, int *ret_extent, void **ret_fill)
{
    assert(s->state == WEIGHTS_FILLING);
    err e = flush_bounce(s);
    if (e) return e;
    struct extent x = {.offset = s->total, .bytes = bytes};
    if (s->fd >= 0) {
        s->bounce_bytes = round_up(MAX(bytes, (size_t)1));
        if ((e = mem_alloc(s->payer, MEM_WEIGHTS, s->bounce_bytes, &s->bounce))) return e;
        *ret_fill = s->bounce;
    } else {
        if ((e = mem_alloc(s->payer, MEM_WEIGHTS, bytes, &x.memory))) return e;
        *ret_fill = x.memory;
    }
    vec_grow(&s->extents, &s->cap, s->n);
    s->extents[s->n] = x;
    *ret_extent = (int)s->n++;
    s->total += s->fd >= 0 ? round_up(MAX(bytes, (size_t)1)) : bytes;
    return ERR_OK;
}

err weights_set_seal(struct weights_set *s)
{
    err e = flush_bounce(s);
    if (e) return e;
    if (s->fd >= 0) {
        /* Written pages leave the cache, and reads go around it from now on. */
        if (fdatasync(s->fd)) /* a disk that lost what was written would give wrong weights later, and silently */
            return err_set(ERR_IO, "%s: writing packed weights: %s; free space or give another directory with --store",
                           mem_payer_name(s->payer), strerror(errno));
        posix_fadvise(s->fd, 0, 0, POSIX_FADV_DONTNEED);
        s->direct = fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) | O_DIRECT) == 0;
    }
    s->state = s->fd >= 0 ? WEIGHTS_ON_DISK : WEIGHTS_RESIDENT;
    return ERR_OK;
}

err weights_set_reopen(struct weights_set *s)
{
    err e = s->fd >= 0 ? weights_evict(s) : ERR_OK;
    if (e) return e;
    if (s->fd >= 0 && s->direct) fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) & ~O_DIRECT);
    s->state = WEIGHTS_FILLING;
    return ERR_OK;
}

void weights_set_free(struct weights_set **sp)
{
    struct weights_set *s = *sp;
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    while (s->state == WEIGHTS_LOADING) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (s->bounce) mem_free(s->payer, MEM_WEIGHTS, s->bounce, s->bounce_bytes);
    mem_free(s->payer, MEM_WEIGHTS, s->region, s->total);
    for (size_t i = 0; i < s->n; i++) mem_free(s->payer, MEM_WEIGHTS, s->extents[i].memory, s->extents[i].bytes);
    if (s->fd >= 0) close(s->fd);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->extents);
    free(s);
    *sp = NULL;
}

/* ---- using */

err weights_request(struct weights_set *s)
{
    err e = ERR_OK;
    bool start = false;
    pthread_mutex_lock(&s->lock);
    assert(s->state != WEIGHTS_FILLING);
    if (s->state == WEIGHTS_ON_DISK) {
        e = mem_alloc(s->payer, MEM_WEIGHTS, s->total, (void **)&s->region);
        if (!e) {
            s->state = WEIGHTS_LOADING;
            s->failure = ERR_OK;
            start = true;
        }
    }
    if (!e) s->pins++;
    pthread_mutex_unlock(&s->lock);
    if (start) enqueue(s->reader, s);
    return e;
}

err weights_wait(struct weights_set *s)
{
    err e = ERR_OK;
    pthread_mutex_lock(&s->lock);
    while (s->state == WEIGHTS_LOADING) pthread_cond_wait(&s->changed, &s->lock);
    if (s->state != WEIGHTS_RESIDENT) e = err_set(s->failure ? s->failure : ERR_INTERNAL, "%s", s->sentence);
    pthread_mutex_unlock(&s->lock);
    return e;
}

void weights_release(struct weights_set *s)
{
    pthread_mutex_lock(&s->lock);
    assert(s->pins > 0);
    s->pins--;
    pthread_mutex_unlock(&s->lock);
}

err weights_evict(struct weights_set *s)
{
    err e = ERR_OK;
    pthread_mutex_lock(&s->lock);
    if (s->fd < 0 || s->pins || s->state == WEIGHTS_LOADING) {
        e = err_set(ERR_BUSY, "%s: the weights are in use", mem_payer_name(s->payer));
    } else if (s->state == WEIGHTS_RESIDENT) {
        mem_free(s->payer, MEM_WEIGHTS, s->region, s->total);
        s->region = NULL;
        s->state = WEIGHTS_ON_DISK;
    }
    pthread_mutex_unlock(&s->lock);
    return e;
}

enum weights_state weights_state(const struct weights_set *s)
{
    struct weights_set *m = (struct weights_set *)(uintptr_t)s;
    pthread_mutex_lock(&m->lock);
    enum weights_state state = m->state;
    pthread_mutex_unlock(&m->lock);
    return state;
}

size_t weights_bytes(const struct weights_set *s)
{
    return s->total;
}

const void *weights_extent(const struct weights_set *s, int extent)
{
    const struct extent *x = &s->extents[extent];
    return s->fd >= 0 ? s->region + x->offset : x->memory;
}

void weights_counts(const struct weights_set *s, uint64_t *ret_loads, uint64_t *ret_bytes, int64_t *ret_ns)
{
    struct weights_set *m = (struct weights_set *)(uintptr_t)s;
    pthread_mutex_lock(&m->lock);
    *ret_loads = s->loads;
    *ret_bytes = s->bytes_read;
    *ret_ns = s->read_ns;
    pthread_mutex_unlock(&m->lock);
}
