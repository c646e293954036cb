/* Block residency: every model keeps a part of its weights for good, the rest streams through one window.
 *
 * The division (model/divide.c) is made by the executor between two items, when no weights are in use: after models or streams changed, after
 * the budget or the reserve changed, and some seconds later again, when step times and the disk have been measured. What stays kept
 * is not read again. While a run is under way the window already fills for the run that will come next; if another comes first, what
 * was read ahead for nobody is given up.
 *
 * A model whose least part does not fit beside the others' is left out: its items are dropped with SCHED_DROP_MEMORY.
 *
 * Invariant: passes exist in the order of runs: at most one ahead, of `ahead`. Bytes kept + window <= what the budget has left beside
 * everything else and the reserve at the time of the division. SPDX-License-Identifier: Apache-2.0 */
#include "sched/inside.h"

#include <stdlib.h>
#include <string.h>

static const int64_t SECOND = 1000000000;
static const double FIRST_BANDWIDTH = 1e9, GUEST_RATE = 1e-3; /* runs a second, as far as the division cares */
enum { REMEASURE_FIRST_S = 3, REMEASURE_S = 20, BUCKET_S = 10, LARGEST_DIVISION = 64 };

bool sched_blocks_on(const struct sched *s)
{
    return s->blocks.payer != NULL;
}

/* ---- what is asked for */

static double rate_of(const struct sched *s, const struct sched_model *m, int64_t now)
{
    double asked = 0, ran = 0;
    if (m->guest) return GUEST_RATE;
    for (const struct sched_stream *st = s->streams; st; st = st->next)
        if (st->o.model == m && st->o.period_ns > 0) asked += 1e9 / (double)st->o.period_ns;
    if (s->blocks.divided_ns && now > s->blocks.divided_ns + SECOND)
        ran = (double)(m->runs - m->runs_then) * 1e9 / (double)(now - s->blocks.divided_ns);
    return MAX(MAX(asked, ran), 0.1);
}

static void wishes_of(const struct sched *s, const struct sched_model *m, struct blocks_tenant *t)
{
    int priority = m->priority;
    t->deadline_ns = 0;
    for (const struct sched_stream *st = s->streams; st; st = st->next) {
        if (st->o.model != m) continue;
        priority = MAX(priority, st->o.priority);
        if (st->o.deadline_ns && (!t->deadline_ns || st->o.deadline_ns < t->deadline_ns)) t->deadline_ns = st->o.deadline_ns;
    }
    t->weight = 1 + priority;
}

static double bandwidth(const struct sched *s)
{
    struct weights_reader_stats r = weights_reader_stats(s->blocks.reader);
    return r.bandwidth > 0 ? r.bandwidth : FIRST_BANDWIDTH;
}

/* ---- dividing; the lock is held, no model is in use */

struct table {
    int n;
    struct sched_model *models[LARGEST_DIVISION];
    struct blocks_tenant tenants[LARGEST_DIVISION];
    struct model_blocks_problem problems[LARGEST_DIVISION];
};

static void table_add(struct sched *s, struct table *t, struct sched_model *m, double speed, int64_t now)
{
    m->left_out = false;
    t->models[t->n] = m;
    model_blocks_problem(m->one, speed, &t->problems[t->n]);
    t->tenants[t->n].rate = rate_of(s, m, now);
    wishes_of(s, m, &t->tenants[t->n]);
    t->n++;
}

/* Guests last: they take nobody's place in the table either. */
static void table_fill(struct sched *s, struct table *t, int64_t now)
{
    double speed = bandwidth(s);
    s->blocks.bandwidth = speed;
    for (int guests = 0; guests <= 1; guests++)
        for (struct sched_model *m = s->models; m && t->n < LARGEST_DIVISION; m = m->next)
            if (m->one && !m->pinned && m->guest == guests) table_add(s, t, m, speed, now);
    for (int i = 0; i < t->n; i++) t->tenants[i].problem = &t->problems[i].problem;
}

static void leave_out(struct table *t, int i)
{
    t->models[i]->left_out = true;
    model_evict(t->models[i]->model);
    model_blocks_problem_done(&t->problems[i]);
    t->n--;
    t->models[i] = t->models[t->n];
    t->problems[i] = t->problems[t->n];
    t->tenants[i] = t->tenants[t->n];
    for (int k = 0; k < t->n; k++) t->tenants[k].problem = &t->problems[k].problem;
}

/* Takes the model that needs most out of the division. */
static void leave_out_largest(struct table *t)
{
    int worst = 0;
    for (int i = 1; i < t->n; i++)
        if (blocks_least(t->tenants[i].problem) > blocks_least(t->tenants[worst].problem)) worst = i;
    leave_out(t, worst);
}

static size_t largest_step(const struct table *t, int i)
{
    return blocks_least(t->tenants[i].problem) - t->problems[i].problem.fixed;
}

/* Guests cost nobody anything: there is room for one beside all weights of the others; or these stream anyway, through a window that is large enough for it. One that
 * is left out is tried again at the next division: when a job ends, the budget or the site changes. */
static void leave_out_guests(const struct sched *s, struct table *t, size_t bytes)
{
    struct weights_set *sets[LARGEST_DIVISION] = {0};
    size_t n = 0, window = 0, all = 0, least = 0;
    for (int i = 0; i < t->n; i++) {
        if (t->models[i]->guest) continue;
        sets[n] = model_weights(t->models[i]->model);
        all += weights_bytes(sets[n++]);
        least += t->problems[i].problem.fixed;
        window = MAX(window, largest_step(t, i));
    }
    if (!s->blind) all -= MIN(weights_twice_bytes(sets, n, false), all);
    least += window;
    for (int i = t->n; i-- > 0;) {
        if (!t->models[i]->guest) continue;
        size_t fixed = t->problems[i].problem.fixed;
        if (all <= bytes ? largest_step(t, i) + fixed <= bytes - all : largest_step(t, i) <= window && least + fixed <= bytes) {
            all += fixed;
            least += fixed;
        } else {
            leave_out(t, i);
        }
    }
}

uint64_t sched_weights_now(const struct sched *s)
{
    uint64_t bytes = s->blocks.ring ? weights_ring_bytes(s->blocks.ring) : 0;
    for (const struct sched_model *m = s->models; m; m = m->next) bytes += weights_paid_bytes(model_weights(m->model));
    return bytes;
}

/* What everything but weights took at its most, in the last ten to twenty seconds: frames come and go between two divisions. */
static void watch_others(struct sched *s, int64_t now)
{
    uint64_t used = mem_budget_used(s->budget), weights = sched_weights_now(s), others = used - MIN(used, weights);
    if (now >= s->blocks.bucket_ends_ns) {
        s->blocks.others[0] = s->blocks.others[1];
        s->blocks.others[1] = 0;
        s->blocks.bucket_ends_ns = now + BUCKET_S * SECOND;
    }
    s->blocks.others[1] = MAX(s->blocks.others[1], others);
}

/* Bytes for weights: the budget without all that is not weights, and without what is to stay free. */
static size_t room(struct sched *s, bool spare)
{
    uint64_t used = mem_budget_used(s->budget), limit = mem_budget_limit(s->budget), weights = sched_weights_now(s), pinned = 0;
    for (struct sched_model *m = s->models; m; m = m->next)
        if (m->pinned) pinned += weights_bytes(model_weights(m->model));
    if (limit == UINT64_MAX) return SIZE_MAX;
    uint64_t others = used - MIN(weights, used) + pinned;
    if (spare) others = MAX(others, MAX(s->blocks.others[0], s->blocks.others[1]) + pinned) + s->blocks.headroom;
    others += s->reserve;
    return limit > others ? limit - others : 0;
}

static err new_ring(struct sched *s, size_t window)
{
    if (s->blocks.ring && weights_ring_bytes(s->blocks.ring) == window) return ERR_OK;
    for (struct sched_model *m = s->models; m; m = m->next) model_set_ring(m->model, NULL);
    weights_ring_free(&s->blocks.ring);
    if (!window) return ERR_OK;
    return weights_ring_new(s->blocks.payer, s->blocks.reader, window, &s->blocks.ring);
}

static void apply(struct sched *s, struct table *t, const struct blocks_division *d)
{
    for (int i = 0; i < t->n; i++) model_blocks_apply(t->models[i]->one, &d->plans[i]);
    err e = new_ring(s, d->window);
    while (e == ERR_NOMEM && d->window && sched_evict_one(s, sched_clock(s))) e = new_ring(s, d->window);
    for (struct sched_model *m = s->models; m; m = m->next) {
        model_set_ring(m->model, m->pinned ? NULL : s->blocks.ring);
        if (d->window && !s->blocks.ring) m->left_out = true; /* until the next division: frames have taken the room */
        m->runs_then = m->runs;
    }
    s->blocks.kept = d->kept - d->shared;
    s->blocks.disk_share = d->disk_share;
    s->blocks.stall = d->stall;
}

static void forget_ahead(struct sched *s)
{
    struct sched_model *m = s->blocks.ahead;
    if (!m) return;
    if (m->one) model_plan_forget_ahead(m->one);
    if (m->many) model_plan_forget_ahead(m->many);
    s->blocks.ahead = NULL;
}

static uint64_t evictions(const struct sched *s)
{
    uint64_t n = 0;
    for (const struct sched_model *m = s->models; m; m = m->next) n += m->evictions;
    return n;
}

/* Of what tenants always keep, the bytes that another has as well. */
static size_t twice(const struct sched *s, const struct table *t)
{
    struct weights_set *sets[LARGEST_DIVISION];
    for (int i = 0; i < t->n; i++) sets[i] = model_weights(t->models[i]->model);
    return s->blind ? 0 : weights_twice_bytes(sets, (size_t)t->n, true);
}

static size_t least(const struct sched *s, const struct table *t)
{
    size_t bytes = blocks_divide_least(t->tenants, t->n), saved = twice(s, t);
    return bytes - MIN(saved, bytes);
}

void sched_blocks_divide(struct sched *s)
{
    int64_t now = sched_clock(s);
    struct table *t = xnew(struct table);
    struct blocks_division d;
    forget_ahead(s);
    if (s->blocks.ring) weights_ring_drain(s->blocks.ring);
    table_fill(s, t, now);
    size_t bytes = room(s, true);
    bool complete = true;
    leave_out_guests(s, t, bytes);
    if (t->n && bytes < least(s, t)) /* rather run with nothing to spare than not at all */
        bytes = MIN(room(s, false), least(s, t));
    for (; t->n && least(s, t) > bytes; complete = false) leave_out_largest(t);
    if (t->n && (s->blind ? blocks_divide(t->tenants, t->n, bytes, &d) : blocks_divide_shared(t->tenants, t->n, bytes, twice(s, t), &d)) == ERR_OK) {
        apply(s, t, &d);
        blocks_division_done(&d, t->n);
    }
    for (int i = 0; i < t->n; i++) model_blocks_problem_done(&t->problems[i]);
    free(t);
    s->blocks.divided_ns = now;
    s->blocks.evictions_then = evictions(s);
    s->blocks.wanted = false;
    s->blocks.divisions++;
    s->blocks.again_ns = s->blocks.divisions == 1 ? now + REMEASURE_FIRST_S * SECOND : s->blocks.divisions == 2 ? now + REMEASURE_S * SECOND : INT64_MAX;
    if (!complete) s->blocks.again_ns = now + SECOND; /* frames may have taken the room just now: who was left out is tried again soon */
}

/* Between two items. */
void sched_blocks_keep_up(struct sched *s)
{
    if (!sched_blocks_on(s)) return;
    int64_t now = sched_clock(s);
    watch_others(s, now);
    bool pressed = evictions(s) != s->blocks.evictions_then && now > s->blocks.divided_ns + SECOND / 2; /* frames took room: settle it */
    if (s->blocks.wanted || now >= s->blocks.again_ns || pressed) sched_blocks_divide(s);
}

/* ---- around a run; the lock is held */

static struct model_plan *plan_for(const struct sched_model *m, int batch)
{
    return batch > 1 ? m->many : m->one;
}

/* The pass of the run that begins now, then that of the one that will follow. */
void sched_blocks_begin(struct sched *s, struct sched_model *m, int batch, int64_t now)
{
    if (!s->blocks.ring || !plan_for(m, batch)) return;
    if (s->blocks.ahead != m || batch > 1) forget_ahead(s);
    s->blocks.ahead = NULL;
    if (model_plan_begin(plan_for(m, batch))) return; /* the run will say why */
    struct sched_choice next = sched_choose(s, now);
    struct sched_model *n = next.stream && next.outcome == SCHED_RUN ? next.stream->o.model : sched_needed_next(s, now);
    if (!n || !n->one || n->left_out || s->no_prefetch) return;
    if (weights_state(model_weights(n->model)) != WEIGHTS_RESIDENT) return;
    if (!model_plan_ahead(n->one)) s->blocks.ahead = n;
}

void sched_blocks_end(struct sched_model *m, int batch)
{
    struct model_plan *p = plan_for(m, batch);
    const struct weights_set *w = model_weights(m->model);
    if (!p) return;
    if (weights_kept_bytes(w) < weights_bytes(w)) m->waited_ns += model_plan_wait_ns(p);
    model_plan_end(p);
}

/* The model is about to be removed. */
void sched_blocks_forget(struct sched *s, const struct sched_model *m)
{
    if (s->blocks.ahead == m) forget_ahead(s);
    if (s->blocks.ring) weights_ring_drain_set(s->blocks.ring, model_weights(m->model));
}

/* ---- from outside */

void sched_set_blocks(struct sched *s, struct mem_payer *payer, struct weights_reader *reader, uint64_t headroom)
{
    pthread_mutex_lock(&s->lock);
    s->blocks.payer = payer;
    s->blocks.reader = reader;
    s->blocks.headroom = headroom;
    s->blocks.wanted = payer != NULL;
    s->blocks.divisions = 0;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

void sched_model_set_plans(struct sched *s, struct sched_model *m, struct model_plan *one, struct model_plan *many)
{
    pthread_mutex_lock(&s->lock);
    m->one = one;
    m->many = many;
    s->blocks.wanted = sched_blocks_on(s);
    pthread_mutex_unlock(&s->lock);
}

void sched_divide(struct sched *s)
{
    pthread_mutex_lock(&s->lock);
    s->blocks.wanted = sched_blocks_on(s);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

void sched_given_back(struct sched *s, uint64_t bytes)
{
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < 2; i++) s->blocks.others[i] -= MIN(bytes, s->blocks.others[i]);
    s->blocks.wanted = sched_blocks_on(s);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

void sched_blocks_free(struct sched *s)
{
    weights_ring_free(&s->blocks.ring);
}

struct sched_blocks_stats sched_blocks_get_stats(struct sched *s)
{
    pthread_mutex_lock(&s->lock);
    struct sched_blocks_stats r = {.on = sched_blocks_on(s), .window = s->blocks.ring ? weights_ring_bytes(s->blocks.ring) : 0,
                                   .kept = s->blocks.kept, .disk_share = s->blocks.disk_share, .stall = s->blocks.stall,
                                   .bandwidth = s->blocks.bandwidth, .divisions = s->blocks.divisions};
    pthread_mutex_unlock(&s->lock);
    return r;
}
