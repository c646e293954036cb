/* Which models' weights are in memory.
 *
 * Requests are made by the executor's thread only; evictions also by whoever sets a reserve or a budget, and by a camera's thread whose
 * frame does not fit (sched_give_way: a frame cannot be read again, weights can). The victim is the unpinned model that will be needed last; with periodic use that is
 * the optimal choice (Belady, 1966), where least-recently-used would evict exactly the one that comes next. A prefetch never evicts
 * what is needed before the model that it brings in.
 *
 * Blocks that several models have are evicted by the rule for blocks: the one whose next use, by any model, is last. A model that comes in holds
 * what the others have of it before anything goes; and when a victim goes, models that are not in memory but needed sooner hold what they share with
 * it. So a model can be in memory in part; such parts are victims as well, in their turn.
 *
 * Invariant: `prefetched` holds one pin of its own until it is acquired or forgotten. SPDX-License-Identifier: Apache-2.0 */
#include "sched/inside.h"

#include <stdlib.h>

static const int64_t OWED_NS = 1000000000;

static bool in_memory(const struct sched_model *m)
{
    return weights_state(model_weights(m->model)) == WEIGHTS_RESIDENT;
}

/* Bytes that a request would allocate. */
static size_t missing(const struct sched *s, const struct sched_model *m)
{
    if (!s->blind) return weights_missing_bytes(model_weights(m->model));
    size_t kept = weights_kept_bytes(model_weights(m->model));
    return kept - MIN(kept, weights_resident_bytes(model_weights(m->model)));
}

/* In memory, or a part of it that somebody left. */
static bool evictable(const struct sched_model *m)
{
    enum weights_state state = weights_state(model_weights(m->model));
    return !m->pinned && !m->pins && (state == WEIGHTS_RESIDENT || (state == WEIGHTS_ON_DISK && weights_resident_bytes(model_weights(m->model)) > 0));
}

/* On its way or there: its bytes are in the budget already. */
static bool has_bytes(const struct sched_model *m)
{
    return weights_state(model_weights(m->model)) != WEIGHTS_ON_DISK;
}

/* The resident model that is needed last and not before `until`; lower priority loses ties. Lock held. */
static struct sched_model *victim(struct sched *s, const struct sched_model *keep, int64_t now, int64_t until)
{
    struct sched_model *best = NULL;
    int64_t best_need = 0;
    for (struct sched_model *m = s->models; m; m = m->next) {
        if (m == keep || !evictable(m)) continue;
        int64_t need = sched_next_need(s, m, now);
        if (need < until) continue;
        if (!best || need > best_need || (need == best_need && m->priority < best->priority)) {
            best = m;
            best_need = need;
        }
    }
    return best;
}

/* What weights leave free: the standing reserve, or for a moment what a frame could not get. Lock held. */
static uint64_t reserved(const struct sched *s, int64_t now)
{
    return MAX(s->reserve, now < s->owed_until_ns ? s->owed : 0);
}

/* The victim goes; what a model that is needed sooner has in common with it stays. */
static err evict(struct sched *s, struct sched_model *v, int64_t now)
{
    int64_t need = s->blind ? INT64_MIN : sched_next_need(s, v, now);
    for (struct sched_model *m = s->models; m && !s->blind; m = m->next)
        if (m != v && !m->guest && !has_bytes(m) && !m->left_out && sched_next_need(s, m, now) < need) weights_hold_shared(model_weights(m->model));
    err e = model_evict(v->model);
    if (!e) v->evictions++;
    return e;
}

/* What would be free if every victim went. */
static uint64_t gain(struct sched *s, const struct sched_model *m, int64_t now, int64_t until)
{
    uint64_t bytes = 0;
    size_t n = 0, count = 0;
    for (const struct sched_model *v = s->models; v; v = v->next) count++;
    struct weights_set **sets = xnewn(struct weights_set *, count + 1);
    for (int going = 1; going >= 0; going--) { /* those that stay last: then all */
        n = 0;
        for (struct sched_model *v = s->models; v; v = v->next) {
            bool goes = v != m && evictable(v) && sched_next_need(s, v, now) >= until;
            if (going || !goes) sets[n++] = model_weights(v->model);
        }
        bytes = going ? weights_union_bytes(sets, n) : bytes - MIN(bytes, weights_union_bytes(sets, n));
    }
    free(sets);
    return bytes;
}

/* Would it fit if every victim went? Else nothing is evicted: a model that cannot fit must not empty the box at each try. */
static bool could_fit(struct sched *s, const struct sched_model *m, int64_t now, int64_t until)
{
    uint64_t used = mem_budget_used(s->budget), limit = mem_budget_limit(s->budget), wanted = missing(s, m) + reserved(s, now);
    if (used + wanted <= limit) return true;
    return used - MIN(gain(s, m, now, until), used) + wanted <= limit;
}

static err request(struct sched *s, struct sched_model *m, int64_t now, int64_t until)
{
    if (!has_bytes(m) && !s->blind) weights_hold_shared(model_weights(m->model));
    if (!has_bytes(m) && !could_fit(s, m, now, until))
        return err_set(ERR_NOMEM, "%s needs %zu bytes for its weights, more than the budget leaves", model_name(m->model),
                       missing(s, m));
    for (;;) {
        bool tight = !has_bytes(m) &&
                     mem_budget_used(s->budget) + missing(s, m) + reserved(s, now) > mem_budget_limit(s->budget);
        err e = tight ? err_set(ERR_NOMEM, "%s does not fit now", model_name(m->model)) : model_request(m->model);
        if (e != ERR_NOMEM) {
            if (!e) m->pins++;
            return e;
        }
        struct sched_model *v = victim(s, m, now, until);
        if (!v || evict(s, v, now)) return err_set(ERR_NOMEM, "%s", err_text());
    }
}

bool sched_evict_one(struct sched *s, int64_t now)
{
    struct sched_model *v = victim(s, NULL, now, INT64_MIN);
    return v && !evict(s, v, now);
}

struct sched_model *sched_needed_next(struct sched *s, int64_t now)
{
    struct sched_model *best = NULL;
    int64_t first = INT64_MAX;
    for (struct sched_model *m = s->models; m; m = m->next) {
        int64_t need = sched_next_need(s, m, now);
        if (need >= first) continue;
        first = need;
        best = m;
    }
    return best;
}

static bool make_room(struct sched *s, int64_t now, uint64_t bytes)
{
    while (mem_budget_used(s->budget) + bytes > mem_budget_limit(s->budget)) {
        struct sched_model *v = victim(s, NULL, now, INT64_MIN);
        if (!v && s->prefetched && in_memory(s->prefetched)) {
            sched_forget_prefetch(s); /* it is the next to run, but a frame cannot be read again */
            continue;
        }
        if (!v || evict(s, v, now)) return false;
    }
    return true;
}

void sched_make_room(struct sched *s, int64_t now)
{
    make_room(s, now, reserved(s, now));
}

/* Weights that a run or a read holds now cannot go: then the bytes are owed, so that the end of that run makes room, and no model takes it meanwhile. Lock held. */
static bool give_way(struct sched *s, uint64_t bytes)
{
    int64_t now = sched_clock(s);
    bool there = make_room(s, now, bytes);
    if (!there) {
        s->owed = now < s->owed_until_ns ? MAX(s->owed, bytes) : bytes;
        s->owed_until_ns = now + OWED_NS;
    }
    return there;
}

/* On a camera's thread. What does not fit is lost; the next frame finds room. */
bool sched_give_way(void *sched, uint64_t bytes)
{
    struct sched *s = sched;
    pthread_mutex_lock(&s->lock);
    bool there = give_way(s, bytes);
    pthread_mutex_unlock(&s->lock);
    return there;
}

bool sched_spare(struct sched *s, uint64_t bytes, uint64_t least)
{
    pthread_mutex_lock(&s->lock);
    uint64_t used = mem_budget_used(s->budget), others = used - MIN(used, sched_weights_now(s));
    bool there = others + bytes + least <= mem_budget_limit(s->budget) && give_way(s, bytes);
    pthread_mutex_unlock(&s->lock);
    return there;
}

void sched_forget_prefetch(struct sched *s)
{
    if (!s->prefetched) return;
    s->prefetched->pins--;
    model_release(s->prefetched->model);
    s->prefetched = NULL;
}

/* The estimate is for all of a model; this is what the bytes would have taken that others had. In proportion to those that were read it would be far too
 * much where they are few: every load takes a moment. */
static int64_t unread_ns(const struct sched_model *m, uint64_t read)
{
    double bandwidth = weights_reader_stats(model_weights_reader(m->model)).bandwidth;
    size_t kept = weights_kept_bytes(model_weights(m->model));
    return (int64_t)((double)(kept - MIN(read, kept)) / (bandwidth > 0 ? bandwidth : 1e9) * 1e9);
}

err sched_acquire(struct sched *s, struct sched_model *m, bool *ret_loaded)
{
    pthread_mutex_lock(&s->lock);
    bool there = in_memory(m);
    int64_t begin = sched_clock(s);
    uint64_t loads, before, after;
    int64_t unused;
    weights_counts(model_weights(m->model), &loads, &before, &unused);
    err e = m->left_out ? err_set(ERR_NOMEM, "%s: the budget leaves no room for it even if its weights stream", model_name(m->model))
                        : request(s, m, begin, m->guest ? INT64_MAX : INT64_MIN);
    if (e == ERR_NOMEM && !m->guest && s->prefetched && s->prefetched != m) { /* what was fetched ahead stands in the way */
        model_wait(s->prefetched->model);
        sched_forget_prefetch(s);
        e = request(s, m, begin, INT64_MIN);
    }
    if (s->prefetched == m) sched_forget_prefetch(s);
    if (e && m->guest) model_evict(m->model); /* what it held of others must not stay because of it */
    m->impossible = e == ERR_NOMEM;
    pthread_mutex_unlock(&s->lock);
    if (e) return e;
    e = model_wait(m->model);
    pthread_mutex_lock(&s->lock);
    if (!there) {
        int64_t took = sched_clock(s) - begin;
        weights_counts(model_weights(m->model), &loads, &after, &unused);
        s->load_ns += took;
        if (s->blind || after > before) sched_estimate_add(&m->load, took + (s->blind ? 0 : unread_ns(m, after - before)));
    }
    if (e) {
        m->pins--;
        model_release(m->model);
    }
    pthread_mutex_unlock(&s->lock);
    *ret_loaded = !there;
    return e;
}

/* Lock held; the running model has its pin. */
void sched_prefetch(struct sched *s, const struct sched_model *running, int64_t now)
{
    struct sched_model *next = NULL;
    int64_t soonest = INT64_MAX;
    for (struct sched_stream *st = s->streams; st; st = st->next) {
        struct sched_model *m = st->o.model;
        if (!m || m == running || m->impossible || m->guest || weights_state(model_weights(m->model)) != WEIGHTS_ON_DISK) continue;
        int64_t at = st->waiting ? sched_deadline(st) - st->o.deadline_ns : sched_next_need(s, m, now);
        if (at < soonest) soonest = at, next = m;
    }
    struct sched_choice c = s->blind || !next ? (struct sched_choice){NULL, SCHED_RUN} : sched_choose(s, now);
    if (c.stream && c.outcome == SCHED_RUN && c.stream->o.model && c.stream->o.model != running && sched_shared_now(s, c.stream->o.model))
        next = c.stream->o.model, soonest = now; /* it goes before its turn */
    if (!next || s->prefetched || s->no_prefetch) return;
    if (request(s, next, now, MAX(soonest, now) + 1) == ERR_OK) s->prefetched = next;
}
