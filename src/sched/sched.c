/* The executor: takes the choice of order.c, sees to the weights, runs, counts.
 *
 * One mutex guards the state; callbacks into the engine are made without it. A stream that is being run cannot be removed until the run
 * has ended. Drops and runs are recorded in a ring of decisions, which is all that `brim why` needs.
 *
 * Invariant: every item offered is given back exactly once, to run or to drop. SPDX-License-Identifier: Apache-2.0 */
#include "sched/inside.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *sched_drop_text(enum sched_drop why)
{
    static const char *const texts[] = {"ran",
#define X(id, text) text,
                                        SCHED_DROPS(X)
#undef X
    };
    return why < SCHED_DROP_COUNT ? texts[why] : "?";
}

int64_t sched_clock(const struct sched *s)
{
    return s->now ? s->now(s->now_user) : clock_ns();
}

void sched_estimate_add(struct sched_estimate *e, int64_t ns)
{
    double x = (double)MAX(ns, (int64_t)1);
    if (e->mean <= 0) {
        e->mean = x;
        return;
    }
    e->deviation += 0.2 * (fabs(x - e->mean) - e->deviation);
    e->mean += 0.2 * (x - e->mean);
}

int64_t sched_estimate_ns(const struct sched_estimate *e)
{
    return (int64_t)(e->mean + e->deviation);
}

err sched_new(struct mem_budget *budget, int64_t (*now)(void *), void *now_user, struct sched **ret)
{
    struct sched *s = xnew(struct sched);
    pthread_condattr_t monotonic;
    s->budget = budget;
    s->now = now;
    s->now_user = now_user;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &monotonic);
    pthread_cond_init(&s->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    mem_budget_set_relief(budget, sched_give_way, s);
    *ret = s;
    return ERR_OK;
}

void sched_free(struct sched **sp)
{
    struct sched *s = *sp;
    if (!s) return;
    sched_stop(s);
    assert(!s->streams && !s->models);
    mem_budget_set_relief(s->budget, NULL, NULL);
    sched_blocks_free(s);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    pthread_cond_destroy(&s->idle);
    free(s);
    *sp = NULL;
}

/* ---- one step */

static struct sched_item take(struct sched_stream *st)
{
    struct sched_item item = st->items[st->head];
    st->head = (st->head + 1) % st->o.capacity;
    st->waiting--;
    st->since_ns = st->waiting ? sched_first(st)->arrived_ns : INT64_MAX;
    return item;
}

static void record(struct sched *s, const struct sched_stream *st, const struct sched_item *item, enum sched_drop outcome,
                   int64_t now, int64_t run_ns, bool loaded)
{
    struct sched_decision *d = &s->decisions[s->n_decisions++ % SCHED_DECISIONS];
    *d = (struct sched_decision){.at_ns = now, .wait_ns = now - item->arrived_ns, .run_ns = run_ns, .seq = item->seq,
                                 .outcome = outcome, .loaded = loaded};
    snprintf(d->stream, sizeof d->stream, "%s", st->name);
}

static void drop(struct sched *s, struct sched_stream *st, struct sched_item *item, enum sched_drop why)
{
    st->dropped[why]++;
    record(s, st, item, why, sched_clock(s), 0, false);
    st->running = true; /* so that the stream stays while its callback is called */
    pthread_mutex_unlock(&s->lock);
    st->o.ops->drop(st->o.user, item, why);
    pthread_mutex_lock(&s->lock);
    st->running = false;
    pthread_cond_broadcast(&s->idle);
}

/* Other waiting items of the same model that may share the run: not if that made the earliest of them late. */
static int gather(struct sched *s, struct sched_stream **streams, struct sched_item *items, int64_t now)
{
    struct sched_model *m = streams[0]->o.model;
    int n = 1;
    if (!m || m->max_batch < 2) return 1;
    int64_t earliest = streams[0]->o.deadline_ns ? items[0].arrived_ns + streams[0]->o.deadline_ns : INT64_MAX;
    for (struct sched_stream *st = s->streams; st && n < m->max_batch; st = st->next) {
        if (st->o.model != m || !st->waiting || st->running) continue;
        int64_t limit = MIN(earliest, st->o.deadline_ns ? sched_deadline(st) : INT64_MAX);
        if (limit != INT64_MAX && now + sched_cost(s, st, false) * (n + 1) > limit) continue;
        earliest = limit;
        streams[n] = st;
        items[n++] = take(st);
        st->running = true;
    }
    return n;
}

static void count_run(struct sched *s, struct sched_stream *st, const struct sched_item *item, int64_t begin, int64_t end,
                      int64_t share, bool loaded)
{
    int64_t latency = end - item->arrived_ns;
    st->latency[st->ran++ % SCHED_LATENCIES] = latency;
    st->max_ns = MAX(st->max_ns, latency);
    st->last_run_ns = end;
    if (st->o.deadline_ns && latency > st->o.deadline_ns) st->late++;
    sched_estimate_add(&st->run, share);
    record(s, st, item, SCHED_RUN, begin, share, loaded);
}

static void run(struct sched *s, struct sched_stream *first, struct sched_item item)
{
    struct sched_stream *streams[SCHED_MAX_BATCH] = {first};
    struct sched_item items[SCHED_MAX_BATCH] = {item};
    struct sched_model *m = first->o.model;
    bool loaded = false;
    err e = ERR_OK;
    first->running = true;
    if (m) {
        pthread_mutex_unlock(&s->lock);
        e = sched_acquire(s, m, &loaded);
        pthread_mutex_lock(&s->lock);
    }
    if (e) {
        drop(s, first, &item, e == ERR_NOMEM ? SCHED_DROP_MEMORY : SCHED_DROP_ERROR);
        return;
    }
    int64_t begin = sched_clock(s);
    int n = gather(s, streams, items, begin);
    struct sched_item copy[SCHED_MAX_BATCH];
    void *users[SCHED_MAX_BATCH];
    for (int i = 0; i < n; i++) copy[i] = items[i], users[i] = streams[i]->o.user;
    if (m && sched_blocks_on(s)) sched_blocks_begin(s, m, n, begin);
    else if (m) sched_prefetch(s, m, begin);
    pthread_mutex_unlock(&s->lock);
    e = n > 1 ? m->run_batch(users, items, n) : first->o.ops->run(first->o.user, &items[0]);
    pthread_mutex_lock(&s->lock);
    int64_t end = sched_clock(s), share = (end - begin) / n;
    s->run_ns += end - begin;
    for (int i = 0; i < n; i++) {
        streams[i]->running = false;
        if (e) {
            streams[i]->dropped[SCHED_DROP_ERROR]++;
            record(s, streams[i], &copy[i], SCHED_DROP_ERROR, begin, share, loaded);
        } else {
            count_run(s, streams[i], &copy[i], begin, end, share, loaded);
        }
    }
    if (m) {
        sched_blocks_end(m, n);
        m->runs++;
        if (n > 1) m->batched += (uint64_t)n;
        if (!e) sched_estimate_add(&m->run, share);
        m->pins--;
        model_release(m->model);
        if (m->guest && !m->pins) model_evict(m->model);
        sched_make_room(s, end); /* for a frame that came while it was held */
    }
    pthread_cond_broadcast(&s->idle);
}

/* Lock held; false if nothing waits. */
static bool step(struct sched *s)
{
    sched_blocks_keep_up(s);
    struct sched_choice c = sched_choose(s, sched_clock(s));
    if (!c.stream) return false;
    struct sched_item item = take(c.stream);
    if (c.outcome == SCHED_RUN)
        run(s, c.stream, item);
    else
        drop(s, c.stream, &item, c.outcome);
    return true;
}

bool sched_step(struct sched *s)
{
    pthread_mutex_lock(&s->lock);
    assert(!s->started);
    bool did = step(s);
    pthread_mutex_unlock(&s->lock);
    return did;
}

static void *executor(void *arg)
{
    struct sched *s = arg;
    pthread_setname_np(pthread_self(), "brim-executor");
    pthread_mutex_lock(&s->lock);
    while (!s->stop)
        if (!step(s) && !s->blocks.wanted) pthread_cond_wait(&s->wake, &s->lock);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

err sched_start(struct sched *s)
{
    if (s->started) return ERR_OK;
    s->stop = false;
    s->started = true;
    int rc = pthread_create(&s->thread, NULL, executor, s);
    if (rc) s->started = false;
    return rc ? err_set(ERR_IO, "cannot start the executor thread: %s", strerror(rc)) : ERR_OK;
}

void sched_stop(struct sched *s)
{
    if (!s->started) return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    s->started = false;
}

/* ---- models */

struct sched_model *sched_model_add(struct sched *s, struct model *m, bool pin, int priority)
{
    struct sched_model *x = xnew(struct sched_model);
    x->model = m;
    x->pinned = pin;
    x->priority = priority;
    pthread_mutex_lock(&s->lock);
    x->next = s->models;
    s->models = x;
    pthread_mutex_unlock(&s->lock);
    return x;
}

void sched_model_remove(struct sched *s, struct sched_model **mp)
{
    struct sched_model *m = *mp;
    if (!m) return;
    pthread_mutex_lock(&s->lock);
    while (m->pins - (s->prefetched == m) > 0) pthread_cond_wait(&s->idle, &s->lock);
    sched_blocks_forget(s, m);
    s->blocks.wanted = sched_blocks_on(s);
    if (s->prefetched == m) {
        model_wait(m->model);
        sched_forget_prefetch(s);
    }
    struct sched_model **at = &s->models;
    while (*at != m) at = &(*at)->next;
    *at = m->next;
    pthread_mutex_unlock(&s->lock);
    free(m);
    *mp = NULL;
}

void sched_model_set_guest(struct sched *s, struct sched_model *m)
{
    pthread_mutex_lock(&s->lock);
    m->guest = true;
    s->blocks.wanted = sched_blocks_on(s);
    pthread_mutex_unlock(&s->lock);
}

void sched_model_set_run_ns(struct sched *s, struct sched_model *m, int64_t run_ns)
{
    pthread_mutex_lock(&s->lock);
    m->run = (struct sched_estimate){.mean = (double)run_ns};
    pthread_mutex_unlock(&s->lock);
}

void sched_model_set_batch(struct sched *s, struct sched_model *m, int max, sched_batch_fn *run_batch)
{
    pthread_mutex_lock(&s->lock);
    m->max_batch = MIN(max, SCHED_MAX_BATCH);
    m->run_batch = run_batch;
    pthread_mutex_unlock(&s->lock);
}

void sched_model_get_stats(struct sched *s, struct sched_model *m, struct sched_model_stats *ret)
{
    const struct weights_set *w = model_weights(m->model);
    pthread_mutex_lock(&s->lock);
    size_t bytes = weights_bytes(w), resident = weights_resident_bytes(w), paid = weights_paid_bytes(w);
    *ret = (struct sched_model_stats){
        .resident_bytes = resident, .shared_bytes = resident - MIN(paid, resident),
        .streamed_bytes = bytes - MIN(weights_kept_bytes(w), bytes), .waited_ns = m->waited_ns,
        .resident = weights_state(model_weights(m->model)) == WEIGHTS_RESIDENT,
        .pinned = m->pinned, .impossible = m->impossible, .run_ns = sched_estimate_ns(&m->run),
        .load_ns = sched_estimate_ns(&m->load), .evictions = m->evictions, .runs = m->runs,
        .batched = m->batched, .weight_bytes = model_weight_bytes(m->model)};
    pthread_mutex_unlock(&s->lock);
    int64_t ns;
    weights_counts(w, &ret->loads, &ret->read_bytes, &ns);
    if (!ret->load_ns && ret->loads) ret->load_ns = ns / (int64_t)ret->loads;
}

/* ---- streams */

struct sched_stream *sched_stream_add(struct sched *s, const struct sched_stream_options *o)
{
    struct sched_stream *st = xnew(struct sched_stream);
    st->o = *o;
    st->o.capacity = MAX(o->capacity, 1);
    snprintf(st->name, sizeof st->name, "%s", o->name);
    st->o.name = st->name;
    st->items = xnewn(struct sched_item, st->o.capacity);
    pthread_mutex_lock(&s->lock);
    struct sched_stream **at = &s->streams;
    while (*at) at = &(*at)->next;
    *at = st;
    pthread_mutex_unlock(&s->lock);
    return st;
}

void sched_stream_remove(struct sched *s, struct sched_stream **sp)
{
    struct sched_stream *st = *sp;
    if (!st) return;
    pthread_mutex_lock(&s->lock);
    st->removed = true;
    while (st->running) pthread_cond_wait(&s->idle, &s->lock);
    struct sched_stream **at = &s->streams;
    while (*at != st) at = &(*at)->next;
    *at = st->next;
    pthread_mutex_unlock(&s->lock);
    while (st->waiting) {
        struct sched_item item = take(st);
        st->o.ops->drop(st->o.user, &item, SCHED_DROP_CLOSED);
    }
    free(st->items);
    free(st);
    *sp = NULL;
}

void sched_offer(struct sched *s, struct sched_stream *st, const struct sched_item *item)
{
    struct sched_item old;
    bool full, closed;
    pthread_mutex_lock(&s->lock);
    closed = st->removed;
    full = !closed && st->waiting == st->o.capacity;
    int64_t since = st->waiting ? st->since_ns : item->arrived_ns;
    if (full) {
        old = take(st);
        st->dropped[SCHED_DROP_NEWER]++;
        record(s, st, &old, SCHED_DROP_NEWER, sched_clock(s), 0, false);
    }
    if (!closed) {
        st->items[(st->head + st->waiting++) % st->o.capacity] = *item;
        st->offered++;
        st->since_ns = since;
        st->last_arrival_ns = item->arrived_ns;
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    if (full) st->o.ops->drop(st->o.user, &old, SCHED_DROP_NEWER);
    if (closed) {
        struct sched_item refused = *item;
        st->o.ops->drop(st->o.user, &refused, SCHED_DROP_CLOSED);
    }
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

void sched_stream_get_stats(struct sched *s, struct sched_stream *st, struct sched_stream_stats *ret)
{
    int64_t sorted[SCHED_LATENCIES];
    pthread_mutex_lock(&s->lock);
    int n = (int)MIN(st->ran, (uint64_t)SCHED_LATENCIES);
    memcpy(sorted, st->latency, (size_t)n * sizeof *sorted);
    *ret = (struct sched_stream_stats){.offered = st->offered, .run = st->ran, .late = st->late, .max_ns = st->max_ns,
                                       .last_run_ns = st->last_run_ns, .waiting = st->waiting};
    memcpy(ret->dropped, st->dropped, sizeof ret->dropped);
    pthread_mutex_unlock(&s->lock);
    if (!n) return;
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    ret->p50_ns = sorted[(n - 1) / 2];
    ret->p95_ns = sorted[(n * 95 + 99) / 100 - 1];
}

/* ---- figures */

int sched_decisions(struct sched *s, const char *part, struct sched_decision *ret, int max)
{
    int n = 0;
    pthread_mutex_lock(&s->lock);
    uint64_t oldest = s->n_decisions > SCHED_DECISIONS ? s->n_decisions - SCHED_DECISIONS : 0;
    for (uint64_t i = s->n_decisions; i > oldest && n < max; i--) {
        const struct sched_decision *d = &s->decisions[(i - 1) % SCHED_DECISIONS];
        if (strstr(d->stream, part)) ret[n++] = *d;
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}

void sched_set_prefetch(struct sched *s, bool on)
{
    pthread_mutex_lock(&s->lock);
    s->no_prefetch = !on;
    if (!on && s->prefetched) {
        model_wait(s->prefetched->model);
        sched_forget_prefetch(s);
    }
    pthread_mutex_unlock(&s->lock);
}

void sched_set_sharing(struct sched *s, bool on)
{
    pthread_mutex_lock(&s->lock);
    s->blind = !on;
    s->blocks.wanted = sched_blocks_on(s);
    pthread_mutex_unlock(&s->lock);
}

void sched_set_reserve(struct sched *s, uint64_t bytes)
{
    pthread_mutex_lock(&s->lock);
    s->reserve = bytes;
    sched_make_room(s, sched_clock(s));
    s->blocks.wanted = sched_blocks_on(s);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

double sched_load(struct sched *s)
{
    double load = 0;
    pthread_mutex_lock(&s->lock);
    for (struct sched_stream *st = s->streams; st; st = st->next)
        if (st->o.period_ns) load += (double)sched_cost(s, st, false) / (double)st->o.period_ns;
    pthread_mutex_unlock(&s->lock);
    return load;
}

void sched_times(struct sched *s, int64_t *ret_run_ns, int64_t *ret_load_ns)
{
    pthread_mutex_lock(&s->lock);
    *ret_run_ns = s->run_ns;
    *ret_load_ns = s->load_ns;
    pthread_mutex_unlock(&s->lock);
}
