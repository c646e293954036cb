/* Frames and the pool they come from.
 *
 * A frame is a small counted header over memory that somebody else owns: a decoder's buffer, a slot shared with a
 * child, or a buffer of one's own. The pool keeps a few free buffers of the size in use, because a decoder gives one
 * back and takes one for every picture, and a fresh mapping costs a page fault for every 4 KiB.
 *
 * Invariant: out <= most, and every byte of every buffer, out or free, is charged to the pool's payer.
 * SPDX-License-Identifier: Apache-2.0 */
#include "video/frame.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { KEEP_FREE = 3, ROW_ALIGN = 64 };

struct video_pool {
    struct mem_payer *payer;
    int most;
    pthread_mutex_t lock; /* guards everything below */
    int refs, out, free_count;
    bool closed;
    size_t size; /* of the buffers on the free list */
    struct video_buffer *free_list;
};

bool video_layout(enum video_format format, int w, int h, struct video_layout *ret)
{
    if (w < 1 || h < 1 || w > VIDEO_MAX_SIDE || h > VIDEO_MAX_SIDE) return false;
    int cw = (w + 1) / 2, ch = (h + 1) / 2;
    struct video_layout l = {.planes = 3, .stride = {w, w, w}, .rows = {h, h, h}};
    switch (format) {
    case VIDEO_I420: l.stride[1] = l.stride[2] = cw, l.rows[1] = l.rows[2] = ch; break;
    case VIDEO_I422: l.stride[1] = l.stride[2] = cw; break;
    case VIDEO_I444: break;
    case VIDEO_NV12: l.planes = 2, l.stride[1] = 2 * cw, l.rows[1] = ch; break;
    case VIDEO_GREY: l.planes = 1; break;
    case VIDEO_RGB24: l.planes = 1, l.stride[0] = 3 * w; break;
    default: return false;
    }
    for (int i = 0; i < 3; i++) {
        if (i >= l.planes) {
            l.stride[i] = l.rows[i] = 0;
            continue;
        }
        l.stride[i] = (l.stride[i] + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
        l.offset[i] = l.bytes;
        l.bytes += (size_t)l.stride[i] * (size_t)l.rows[i];
    }
    *ret = l;
    return true;
}

struct video_pool *video_pool_new(struct mem_budget *b, const char *payer, int most)
{
    struct video_pool *p = xnew(struct video_pool);
    p->payer = mem_payer_new(b, payer);
    p->most = most;
    p->refs = 1;
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

struct video_pool *video_pool_ref(struct video_pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->refs++;
    pthread_mutex_unlock(&p->lock);
    return p;
}

static void free_chain(struct video_pool *p, struct video_buffer *b)
{
    while (b) {
        struct video_buffer *next = b->next;
        mem_free(p->payer, MEM_FRAMES, b->data, b->size);
        free(b);
        b = next;
    }
}

/* Takes the free list off the pool; the caller holds the lock and frees the chain after it. */
static struct video_buffer *take_free(struct video_pool *p)
{
    struct video_buffer *chain = p->free_list;
    p->free_list = NULL;
    p->free_count = 0;
    return chain;
}

void video_pool_unref(struct video_pool **pp)
{
    struct video_pool *p = *pp;
    if (!p) return;
    *pp = NULL;
    pthread_mutex_lock(&p->lock);
    bool last = --p->refs == 0;
    pthread_mutex_unlock(&p->lock);
    if (!last) return;
    assert(p->out == 0);
    free_chain(p, take_free(p));
    mem_payer_free(&p->payer);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void video_pool_close(struct video_pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->closed = true;
    struct video_buffer *chain = take_free(p);
    pthread_mutex_unlock(&p->lock);
    free_chain(p, chain);
}

int video_pool_out(struct video_pool *p)
{
    pthread_mutex_lock(&p->lock);
    int n = p->out;
    pthread_mutex_unlock(&p->lock);
    return n;
}

struct mem_payer *video_pool_payer(const struct video_pool *p)
{
    return p->payer;
}

/* Charges are counted as well as summed, so what is one charge must stay one: a release or charge of nothing evens it
 * out. */
err video_recharge(struct mem_payer *payer, enum mem_purpose purpose, size_t *charged, size_t now)
{
    if (now > *charged) {
        err e = mem_charge(payer, purpose, now - *charged);
        if (e) return e;
        if (*charged) mem_release(payer, purpose, 0);
    } else if (now < *charged) {
        if (now) mem_charge_forced(payer, purpose, 0);
        mem_release(payer, purpose, *charged - now);
    }
    *charged = now;
    return ERR_OK;
}

err video_pool_get(struct video_pool *p, size_t size, struct video_buffer **ret)
{
    struct video_buffer *stale = NULL, *b = NULL;
    pthread_mutex_lock(&p->lock);
    if (size != p->size) {
        stale = take_free(p);
        p->size = size;
    }
    bool full = p->out >= p->most;
    if (!full) {
        p->out++;
        p->refs++;
        if ((b = p->free_list)) {
            p->free_list = b->next;
            p->free_count--;
        }
    }
    pthread_mutex_unlock(&p->lock);
    free_chain(p, stale);
    if (full)
        return err_set(ERR_LIMIT, "%s: all %d frames are in use; somebody holds them for too long",
                       mem_payer_name(p->payer), p->most);
    if (!b) {
        b = xnew(struct video_buffer);
        err e = mem_alloc(p->payer, MEM_FRAMES, size, (void **)&b->data);
        if (e) {
            free(b);
            pthread_mutex_lock(&p->lock);
            p->out--;
            pthread_mutex_unlock(&p->lock);
            video_pool_unref(&p);
            return e;
        }
        b->size = size;
        b->pool = p;
    }
    b->next = NULL;
    *ret = b;
    return ERR_OK;
}

void video_pool_put(struct video_buffer *b)
{
    struct video_pool *p = b->pool;
    pthread_mutex_lock(&p->lock);
    p->out--;
    bool keep = !p->closed && b->size == p->size && p->free_count < KEEP_FREE;
    if (keep) {
        b->next = p->free_list;
        p->free_list = b;
        p->free_count++;
    }
    pthread_mutex_unlock(&p->lock);
    if (!keep) {
        b->next = NULL;
        free_chain(p, b);
    }
    video_pool_unref(&p);
}

/* The public part first, so that a pointer to one is a pointer to the other. */
struct counted_frame {
    struct video_frame f;
    atomic_int refs;
    video_drop_fn *drop;
    void *owner;
    int index;
};

struct video_frame *video_frame_wrap(video_drop_fn *drop, void *owner, int index)
{
    struct counted_frame *c = xnew(struct counted_frame);
    atomic_init(&c->refs, 1);
    c->drop = drop;
    c->owner = owner;
    c->index = index;
    return &c->f;
}

struct video_frame *video_frame_ref(const struct video_frame *f)
{
    struct counted_frame *c = (struct counted_frame *)f;
    atomic_fetch_add(&c->refs, 1);
    return &c->f;
}

void video_frame_unref(struct video_frame **f)
{
    struct counted_frame *c = (struct counted_frame *)*f;
    *f = NULL;
    if (!c || atomic_fetch_sub(&c->refs, 1) != 1) return;
    c->drop(c->owner, c->index);
    free(c);
}

static void drop_buffer(void *owner, int index)
{
    (void)index;
    video_pool_put(owner);
}

err video_frame_from_pool(struct video_pool *pool, enum video_format format, int w, int h, struct video_frame **ret)
{
    struct video_layout l;
    if (!video_layout(format, w, h, &l))
        return err_set(ERR_USAGE, "%s: a frame of %d x %d pixels is not possible; sides are 1 to %d",
                       mem_payer_name(pool->payer), w, h, VIDEO_MAX_SIDE);
    struct video_buffer *buf;
    err e = video_pool_get(pool, l.bytes, &buf);
    if (e) return e;
    struct video_frame *f = video_frame_wrap(drop_buffer, buf, 0);
    f->format = format;
    f->width = w;
    f->height = h;
    for (int i = 0; i < l.planes; i++) {
        f->plane[i] = buf->data + l.offset[i];
        f->stride[i] = l.stride[i];
    }
    *ret = f;
    return ERR_OK;
}

err video_frame_new(struct mem_budget *b, const char *name, enum video_format format, int w, int h,
                    struct video_frame **ret)
{
    struct video_pool *pool = video_pool_new(b, name, 1);
    err e = video_frame_from_pool(pool, format, w, h, ret);
    video_pool_close(pool);
    video_pool_unref(&pool);
    return e;
}
