/* The ring of told events. One mutex guards ring, numbers, closed and telling; listeners are fixed before the first put.
 * Invariant: event number n is in slot n % SERVE_FEED while n > last - SERVE_FEED. SPDX-License-Identifier: Apache-2.0 */
#include "serve/feed.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct serve_feed {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct rows_event *ring;
    uint64_t last;
    bool closed, telling;
    int n_listeners;
    struct serve_counts counts; /* atomic */
    struct {
        serve_listener *fn;
        void *user;
    } listeners[SERVE_MAX_LISTENERS];
};

struct serve_feed *serve_feed_new(void)
{
    struct serve_feed *f = xnew(struct serve_feed);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&f->more, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&f->lock, NULL);
    f->ring = xnewn(struct rows_event, SERVE_FEED);
    memset(f->ring, 1, SERVE_FEED * sizeof *f->ring); /* resident from the start: memory that grows for hours looks like a leak */
    return f;
}

void serve_feed_free(struct serve_feed **fp)
{
    struct serve_feed *f = *fp;
    if (!f) return;
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->more);
    free(f->ring);
    free(f);
    *fp = NULL;
}

void serve_feed_listen(struct serve_feed *f, serve_listener *fn, void *user)
{
    if (f->n_listeners == SERVE_MAX_LISTENERS) return;
    f->listeners[f->n_listeners].fn = fn;
    f->listeners[f->n_listeners++].user = user;
}

void serve_feed_put(struct serve_feed *f, const struct rows_event *e)
{
    pthread_mutex_lock(&f->lock);
    f->telling = !f->closed; /* after close the listeners may be gone */
    f->ring[++f->last % SERVE_FEED] = *e;
    pthread_cond_broadcast(&f->more);
    bool tell = f->telling;
    pthread_mutex_unlock(&f->lock);
    if (!tell) return;
    for (int i = 0; i < f->n_listeners; i++) f->listeners[i].fn(f->listeners[i].user, e);
    pthread_mutex_lock(&f->lock);
    f->telling = false;
    pthread_cond_broadcast(&f->more);
    pthread_mutex_unlock(&f->lock);
}

uint64_t serve_feed_last(struct serve_feed *f)
{
    pthread_mutex_lock(&f->lock);
    uint64_t last = f->last;
    pthread_mutex_unlock(&f->lock);
    return last;
}

int serve_feed_read(struct serve_feed *f, uint64_t after, struct rows_event *ret, int max, int timeout_ms, uint64_t *ret_last)
{
    struct timespec until;
    int n = 0, rc = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&f->lock);
    while (f->last <= after && !f->closed && !rc) rc = pthread_cond_timedwait(&f->more, &f->lock, &until);
    if (f->closed) {
        n = ERR_CLOSED;
    } else {
        uint64_t oldest = f->last > SERVE_FEED ? f->last - SERVE_FEED + 1 : 1;
        for (uint64_t i = MAX(after + 1, oldest); i <= f->last && n < max; i++) {
            ret[n++] = f->ring[i % SERVE_FEED];
            *ret_last = i;
        }
    }
    pthread_mutex_unlock(&f->lock);
    return n;
}

void serve_feed_close(struct serve_feed *f)
{
    pthread_mutex_lock(&f->lock);
    f->closed = true;
    pthread_cond_broadcast(&f->more);
    while (f->telling) pthread_cond_wait(&f->more, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

struct serve_counts *serve_feed_counts(struct serve_feed *f)
{
    return &f->counts;
}

json_t *serve_event_json(const struct rows_event *e)
{
    char uid[2 * ROWS_UID + 1] = "";
    for (int i = 0; i < ROWS_UID; i++) {
        static const char hex[] = "0123456789abcdef";
        uid[2 * i] = hex[e->uid[i] >> 4];
        uid[2 * i + 1] = hex[e->uid[i] & 15];
    }
    return json_pack("{s:I, s:s, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:f, s:[f,f,f,f], s:[i,i], s:i, s:f}", "id", (json_int_t)e->id,
                     "uid", uid, "time", e->time, "camera", text_json(e->camera), "query", text_json(e->query), "event",
                     text_json(e->event), "zone", text_json(e->zone), "label", text_json(e->label), "attributes",
                     text_json(e->attributes), "track", (json_int_t)e->track, "frame", (json_int_t)e->frame, "score", e->score, "box",
                     (double)e->box[0], (double)e->box[1], (double)e->box[2], (double)e->box[3], "size", e->width, e->height, "direction",
                     e->direction, "seconds", e->seconds);
}
