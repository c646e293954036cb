/* Which models' weights are in memory.
 *
 * Requests are made by the executor's thread only; evictions also by whoever sets a reserve or a budget, and by a camera's thread whose
 * frame does not fit (sched_give_way: a frame cannot be read again, weights can). The victim is the unpinned model that will be needed last; with periodic use that is
 * the optimal choice (Belady, 1966), where least-recently-used would evict exactly the one that comes next. A prefetch never evicts
 * what is needed before the model that it brings in.
 *
 * Invariant: `prefetched` holds one pin of its own until it is acquired or forgotten. SPDX-License-Identifier: Apache-2.0 */
#include "sched/inside.h"

static const int64_t OWED_NS = 1000000000;

static bool in_memory(const struct sched_model *m)
{
    return weights_state(model_weights(m->model)) == WEIGHTS_RESIDENT;
}

/* Bytes that a request would allocate. */
static size_t missing(const struct sched_model *m)
{
    size_t kept = weights_kept_bytes(model_weights(m->model));
    return kept - MIN(kept, weights_resident_bytes(model_weights(m->model)));
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
        if (m == keep || m->pinned || m->pins || !in_memory(m)) continue;
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

/* Would it fit if every victim went? Else nothing is evicted: a model that cannot fit must not empty the box at each try. */
static bool could_fit(struct sched *s, const struct sched_model *m, int64_t now, int64_t until)
{
    uint64_t used = mem_budget_used(s->budget), limit = mem_budget_limit(s->budget), evictable = 0;
    for (const struct sched_model *v = s->models; v; v = v->next)
        if (v != m && !v->pinned && !v->pins && in_memory(v) && sched_next_need(s, v, now) >= until)
            evictable += weights_paid_bytes(model_weights(v->model));
    return used - MIN(evictable, used) + missing(m) + reserved(s, now) <= limit;
}

static err request(struct sched *s, struct sched_model *m, int64_t now, int64_t until)
{
    if (!has_bytes(m) && !could_fit(s, m, now, until))
        return err_set(ERR_NOMEM, "%s needs %zu bytes for its weights, more than the budget leaves", model_name(m->model),
                       missing(m));
    for (;;) {
        bool tight = !has_bytes(m) &&
                     mem_budget_used(s->budget) + missing(m) + reserved(s, now) > mem_budget_limit(s->budget);
        err e = tight ? err_set(ERR_NOMEM, "%s does not fit now", model_name(m->model)) : model_request(m->model);
        if (e != ERR_NOMEM) {
            if (!e) m->pins++;
            return e;
        }
        struct sched_model *v = victim(s, m, now, until);
        if (!v || model_evict(v->model)) return err_set(ERR_NOMEM, "%s", err_text());
        v->evictions++;
    }
}

bool sched_evict_one(struct sched *s, int64_t now)
{
    struct sched_model *v = victim(s, NULL, now, INT64_MIN);
    if (!v || model_evict(v->model)) return false;
    v->evictions++;
    return true;
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
        if (!v || model_evict(v->model)) return false;
        v->evictions++;
    }
    return true;
}

void sched_make_room(struct sched *s, int64_t now)
{
    make_room(s, now, reserved(s, now));
}

/* On a camera's thread. Weights that a run or a read holds now cannot go: then this frame is lost, but its bytes are owed, so that the
 * end of that run makes room for the next one and no model takes it meanwhile. */
bool sched_give_way(void *sched, uint64_t bytes)
{
    struct sched *s = sched;
    pthread_mutex_lock(&s->lock);
    int64_t now = sched_clock(s);
    bool there = make_room(s, now, bytes);
    if (!there) {
        s->owed = now < s->owed_until_ns ? MAX(s->owed, bytes) : bytes;
        s->owed_until_ns = now + OWED_NS;
    }
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

err sched_acquire(struct sched *s, struct sched_model *m, bool *ret_loaded)
{
    pthread_mutex_lock(&s->lock);
    bool there = in_memory(m);
    int64_t begin = sched_clock(s);
    err e = m->left_out ? err_set(ERR_NOMEM, "%s: the budget leaves no room for it even if its weights stream", model_name(m->model))
                        : request(s, m, begin, INT64_MIN);
    if (e == ERR_NOMEM && s->prefetched && s->prefetched != m) { /* what was fetched ahead stands in the way */
        model_wait(s->prefetched->model);
        sched_forget_prefetch(s);
        e = request(s, m, begin, INT64_MIN);
    }
    if (s->prefetched == m) sched_forget_prefetch(s);
    m->impossible = e == ERR_NOMEM;
    pthread_mutex_unlock(&s->lock);
    if (e) return e;
    e = model_wait(m->model);
    pthread_mutex_lock(&s->lock);
    if (!there) {
        int64_t took = sched_clock(s) - begin;
        s->load_ns += took;
        sched_estimate_add(&m->load, took);
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
        if (!m || m == running || m->impossible || weights_state(model_weights(m->model)) != WEIGHTS_ON_DISK) continue;
        int64_t at = st->waiting ? sched_deadline(st) - st->o.deadline_ns : sched_next_need(s, m, now);
        if (at < soonest) soonest = at, next = m;
    }
    if (!next || s->prefetched || s->no_prefetch) return;
    if (request(s, next, now, MAX(soonest, now) + 1) == ERR_OK) s->prefetched = next;
}
