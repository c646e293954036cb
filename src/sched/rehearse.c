/* A scheduler in virtual time: between two decisions, time goes from event to event (an item comes, a read lands).
 *
 * Items come whenever the live scheduler would take them: not while its lock is held, because a camera's thread would wait there too; they are then
 * handed over late, with the time at which they came. SPDX-License-Identifier: Apache-2.0 */
#include "sched/rehearse.h"
#include "sched/inside.h"

#include <stdlib.h>

static const int64_t BEGIN_NS = 1000000000000; /* the scheduler takes 0 for "never" */

struct feed {
    struct sched_stream *stream;
    int64_t begin_ns;
    const int64_t *at_ns;
    size_t done, n;
};

struct sched_rehearsal {
    struct weights_clock clock; /* first: `go` gets this */
    struct weights_reader *reader;
    struct sched *sched;        /* while it is rehearsed */
    struct feed *feeds;
    size_t n, cap;
};

static int64_t next_of(const struct feed *f)
{
    return f->begin_ns + f->at_ns[f->done];
}

static struct feed *earliest(struct sched_rehearsal *r)
{
    struct feed *best = NULL;
    for (size_t i = 0; r->sched && i < r->n; i++)
        if (r->feeds[i].done < r->feeds[i].n && (!best || next_of(&r->feeds[i]) < next_of(best))) best = &r->feeds[i];
    return best;
}

/* Ours is the only thread: a lock that cannot be had is held further up. */
static bool open_for_items(struct sched_rehearsal *r)
{
    if (!r->sched || pthread_mutex_trylock(&r->sched->lock)) return false;
    pthread_mutex_unlock(&r->sched->lock);
    return true;
}

static void offer(struct sched_rehearsal *r, struct feed *f)
{
    struct sched_item item = {.arrived_ns = next_of(f), .seq = f->done + 1};
    f->done++;
    sched_offer(r->sched, f->stream, &item);
}

static void go(struct weights_clock *clock, int64_t at)
{
    struct sched_rehearsal *r = (struct sched_rehearsal *)clock;
    bool open = open_for_items(r);
    do {
        struct feed *f = open ? earliest(r) : NULL;
        int64_t read = weights_reader_next(r->reader), next = MIN(at, read);
        if (f) next = MIN(next, next_of(f));
        clock->now = MAX(clock->now, next);
        if (read <= clock->now) weights_reader_land(r->reader);
        for (; f && next_of(f) <= clock->now; f = earliest(r)) offer(r, f);
    } while (clock->now < at);
}

struct sched_rehearsal *sched_rehearsal_new(struct weights_reader *reader, double bytes_per_s)
{
    struct sched_rehearsal *r = xnew(struct sched_rehearsal);
    *r = (struct sched_rehearsal){.clock = {.now = BEGIN_NS, .go = go}, .reader = reader};
    weights_reader_rehearse(reader, &r->clock, bytes_per_s);
    return r;
}

void sched_rehearsal_free(struct sched_rehearsal **rp)
{
    struct sched_rehearsal *r = *rp;
    if (!r) return;
    weights_reader_rehearse(r->reader, NULL, 0);
    free(r->feeds);
    free(r);
    *rp = NULL;
}

int64_t sched_rehearsal_now(void *rehearsal)
{
    return ((struct sched_rehearsal *)rehearsal)->clock.now;
}

struct weights_clock *sched_rehearsal_clock(struct sched_rehearsal *r)
{
    return &r->clock;
}

void sched_rehearsal_feed(struct sched_rehearsal *r, struct sched_stream *st, const int64_t *at_ns, size_t n)
{
    vec_grow(&r->feeds, &r->cap, r->n);
    r->feeds[r->n++] = (struct feed){.stream = st, .begin_ns = r->clock.now, .at_ns = at_ns, .n = n};
}

void sched_rehearse(struct sched_rehearsal *r, struct sched *s, int64_t ns)
{
    int64_t until = r->clock.now + ns;
    r->sched = s;
    while (r->clock.now < until) {
        go(&r->clock, r->clock.now); /* what has come while the lock was held */
        if (sched_step(s)) continue;
        const struct feed *f = earliest(r);
        go(&r->clock, f ? MIN(next_of(f), until) : until);
    }
    r->sched = NULL;
}
