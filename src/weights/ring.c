/* The window through which streamed weights pass.
 *
 * A ring is one block of memory, used first in, first out. A *pass* is the list of extents that one run of one model streams, in the order in
 * which it uses them; passes are used in the order in which they were made, so one ring serves all models of a box: while a run uses the
 * front of it, the rest of its own pass and then the next run's are read behind. An extent lies in one piece (what does not fit before
 * the end of the memory goes to its beginning) and stays until the run says that it is done with it; then its room is taken by what comes
 * next. Nothing is copied: the kernel reads the very bytes that the disk wrote.
 *
 * The room of a pass that was given up is free when it reaches the front, and what was being read into it has landed.
 *
 * Invariant: entries are placed, and freed, in one order: that of all passes, one after another. SPDX-License-Identifier: Apache-2.0 */
#include "weights/inside.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum entry_state { WAITING, READING, READY, FAILED };

struct entry {
    struct weights_read read;
    enum entry_state state;
    size_t place;  /* in the ring */
    bool done;
};

struct weights_pass {
    struct weights_pass *next;
    struct weights_ring *ring;
    struct weights_set *set;
    int n, placed, freed; /* entries before `placed` have room; those before `freed` gave it back */
    bool given_up;
    struct entry *entries;
};

struct weights_ring {
    struct mem_payer *payer;
    struct weights_reader *reader;
    unsigned char *memory;
    size_t bytes;
    pthread_mutex_t lock;      /* guards all below, and passes and entries */
    pthread_cond_t changed;
    struct weights_pass *first, **last; /* in the order of use */
    size_t head, tail;         /* oldest byte in use; where the next entry may go. head == tail: empty (used 0) */
    size_t used;               /* bytes from head to tail, with what was skipped at the end */
    int64_t order;             /* of the next read */
};

err weights_ring_new(struct mem_payer *payer, struct weights_reader *reader, size_t bytes, struct weights_ring **ret)
{
    void *memory;
    bytes = weights_round(bytes);
    err e = mem_alloc(payer, MEM_WEIGHTS, bytes, &memory);
    if (e) return e;
    struct weights_ring *r = xnew(struct weights_ring);
    *r = (struct weights_ring){.payer = payer, .reader = reader, .memory = memory, .bytes = bytes};
    r->last = &r->first;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    *ret = r;
    return ERR_OK;
}

void weights_ring_free(struct weights_ring **rp)
{
    struct weights_ring *r = *rp;
    if (!r) return;
    pthread_mutex_lock(&r->lock);
    while (r->first) {
        assert(r->first->given_up);
        weights_reader_sleep(r->reader, &r->changed, &r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    mem_free(r->payer, MEM_WEIGHTS, r->memory, r->bytes);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    free(r);
    *rp = NULL;
}

size_t weights_ring_bytes(const struct weights_ring *r)
{
    return r->bytes;
}

/* ---- placing and freeing; the lock is held */

/* Room for `bytes` in one piece? Then takes it. */
static bool take(struct weights_ring *r, size_t bytes, size_t *ret_place)
{
    if (r->used == 0) r->head = r->tail = 0;
    bool wrap = r->bytes - r->tail < bytes;
    size_t skip = wrap ? r->bytes - r->tail : 0;
    if (r->used + skip + bytes > r->bytes) return false;
    *ret_place = wrap ? 0 : r->tail;
    r->tail = *ret_place + bytes;
    r->used += skip + bytes;
    return true;
}

static void entry_landed(struct weights_read *read);

static void place(struct weights_ring *r)
{
    for (struct weights_pass *p = r->first; p; p = p->next) {
        for (; p->placed < p->n && !p->given_up; p->placed++) {
            struct entry *x = &p->entries[p->placed];
            if (!take(r, x->read.bytes, &x->place)) return;
            x->state = READING;
            x->read.to = r->memory + x->place;
            x->read.when = INT64_MIN + r->order++; /* before any whole set: a run is waiting, or will be next */
            x->read.done = entry_landed;
            x->read.owner = p;
            weights_reader_submit(r->reader, &x->read);
        }
    }
}

static void free_pass(struct weights_pass *p)
{
    free(p->entries);
    free(p);
}

/* Gives back the room at the front of the ring, and passes that are over. */
static void reclaim(struct weights_ring *r)
{
    while (r->first) {
        struct weights_pass *p = r->first;
        for (; p->freed < p->placed; p->freed++) {
            struct entry *x = &p->entries[p->freed];
            if (!(x->done || p->given_up) || x->state == READING) return;
            size_t end = x->place + x->read.bytes, from = r->head;
            r->used -= end > from ? end - from : r->bytes - from + end;
            r->head = end;
        }
        if (!p->given_up) return; /* the run still has it */
        r->first = p->next;
        if (!r->first) r->last = &r->first;
        free_pass(p);
    }
}

static void go_on(struct weights_ring *r)
{
    reclaim(r);
    place(r);
    pthread_cond_broadcast(&r->changed);
}

static void entry_landed(struct weights_read *read)
{
    struct weights_pass *p = read->owner;
    struct weights_ring *r = p->ring;
    pthread_mutex_lock(&r->lock);
    struct entry *x = (struct entry *)((char *)read - offsetof(struct entry, read));
    x->state = read->failure ? FAILED : READY;
    if (p->given_up)
        go_on(r); /* p may be gone after this */
    else
        pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

/* ---- passes */

err weights_pass_new(struct weights_ring *r, struct weights_set *s, const int *extents, int n, struct weights_pass **ret)
{
    struct weights_pass *p = xnew(struct weights_pass);
    *p = (struct weights_pass){.ring = r, .set = s, .n = n, .entries = xnewn(struct entry, MAX(n, 1))};
    for (int i = 0; i < n; i++) {
        weights_set_locate(s, extents[i], &p->entries[i].read);
        if (p->entries[i].read.bytes <= r->bytes) continue;
        err e = err_set(ERR_NOMEM, "a weight of %zu bytes streams, but the window has %zu", p->entries[i].read.bytes, r->bytes);
        free_pass(p);
        return e;
    }
    pthread_mutex_lock(&r->lock);
    *r->last = p;
    r->last = &p->next;
    place(r);
    pthread_mutex_unlock(&r->lock);
    *ret = p;
    return ERR_OK;
}

err weights_pass_wait(struct weights_pass *p, int k, const void **ret)
{
    struct weights_ring *r = p->ring;
    struct entry *x = &p->entries[k];
    err e = ERR_OK;
    pthread_mutex_lock(&r->lock);
    assert(k < p->n && !x->done);
    if (x->state != READY && x->state != FAILED) {
        for (const struct weights_pass *f = r->first; f != p; f = f->next) assert(f->given_up); /* else this would wait for ever */
        while (x->state != READY && x->state != FAILED) weights_reader_sleep(r->reader, &r->changed, &r->lock);
    }
    if (x->state == FAILED)
        e = err_set(x->read.failure, "%s", x->read.sentence);
    else
        *ret = r->memory + x->place;
    pthread_mutex_unlock(&r->lock);
    return e;
}

void weights_pass_done(struct weights_pass *p, int end)
{
    struct weights_ring *r = p->ring;
    size_t bytes = 0;
    pthread_mutex_lock(&r->lock);
    for (int k = p->freed; k < end; k++) {
        if (!p->entries[k].done) bytes += p->entries[k].read.bytes;
        p->entries[k].done = true;
    }
    go_on(r);
    pthread_mutex_unlock(&r->lock);
    if (bytes) weights_set_count(p->set, bytes);
}

void weights_pass_free(struct weights_pass **pp)
{
    struct weights_pass *p = *pp;
    if (!p) return;
    struct weights_ring *r = p->ring;
    pthread_mutex_lock(&r->lock);
    p->given_up = true;
    for (int k = p->freed; k < p->placed; k++)
        if (p->entries[k].state == READING && weights_reader_cancel(r->reader, &p->entries[k].read)) p->entries[k].state = FAILED;
    go_on(r);
    pthread_mutex_unlock(&r->lock);
    *pp = NULL;
}

void weights_ring_drain(struct weights_ring *r)
{
    pthread_mutex_lock(&r->lock);
    while (r->first) {
        assert(r->first->given_up);
        weights_reader_sleep(r->reader, &r->changed, &r->lock);
    }
    pthread_mutex_unlock(&r->lock);
}

static bool reads_set(const struct weights_ring *r, const struct weights_set *s)
{
    for (const struct weights_pass *p = r->first; p; p = p->next) {
        if (p->set != s) continue;
        assert(p->given_up);
        for (int k = p->freed; k < p->placed; k++)
            if (p->entries[k].state == READING) return true;
    }
    return false;
}

void weights_ring_drain_set(struct weights_ring *r, const struct weights_set *s)
{
    pthread_mutex_lock(&r->lock);
    while (reads_set(r, s)) weights_reader_sleep(r->reader, &r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
}
