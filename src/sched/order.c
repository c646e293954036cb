/* Which item next: earliest deadline first, with priorities, with regard to which weights are in memory.
 *
 * Everything here only reads; it is called with the lock held and looks at all streams (tens), so it is a few microseconds. Items without
 * a deadline count as due one period (or one second) after their arrival, for the order only: they are never late.
 * SPDX-License-Identifier: Apache-2.0 */
#include "sched/inside.h"

static const int64_t PROBE_NS = 5000000000; /* a stream whose items are always too late runs one as often as this */

const struct sched_item *sched_first(const struct sched_stream *st)
{
    return &st->items[st->head];
}

static int64_t ahead(const struct sched_stream *st)
{
    return st->o.deadline_ns ? st->o.deadline_ns : st->o.period_ns ? st->o.period_ns : 1000000000;
}

int64_t sched_deadline(const struct sched_stream *st)
{
    return sched_first(st)->arrived_ns + ahead(st);
}

int64_t sched_turn(const struct sched_stream *st)
{
    return st->since_ns + ahead(st);
}

static bool resident(const struct sched_model *m)
{
    return !m || weights_state(model_weights(m->model)) == WEIGHTS_RESIDENT;
}

size_t sched_shared_now(const struct sched *s, const struct sched_model *m)
{
    if (s->blind || resident(m)) return 0;
    const struct weights_set *w = model_weights(m->model);
    size_t kept = weights_kept_bytes(w), missing = weights_missing_bytes(w);
    return kept - MIN(missing, kept);
}

/* The time to read what is missing. */
static int64_t load_cost(const struct sched *s, const struct sched_model *m)
{
    int64_t all = m->load.mean > 0 ? sched_estimate_ns(&m->load) : (int64_t)model_weight_bytes(m->model); /* 1 GB/s until measured */
    size_t kept = weights_kept_bytes(model_weights(m->model)), shared = sched_shared_now(s, m);
    return shared ? (int64_t)((double)all * (double)(kept - MIN(shared, kept)) / (double)kept) : all;
}

int64_t sched_cost(const struct sched *s, const struct sched_stream *st, bool with_load)
{
    const struct sched_model *m = st->o.model;
    int64_t run = sched_estimate_ns(st->run.mean > 0 || !m ? &st->run : &m->run);
    if (!with_load || resident(m)) return run;
    return run + load_cost(s, m);
}

int64_t sched_next_need(const struct sched *s, const struct sched_model *m, int64_t now)
{
    int64_t next = INT64_MAX;
    for (const struct sched_stream *st = s->streams; st; st = st->next) {
        if (st->o.model != m) continue;
        if (st->waiting) return now;
        if (st->o.period_ns && st->last_arrival_ns) next = MIN(next, MAX(st->last_arrival_ns + st->o.period_ns, now));
    }
    return next;
}

static bool hopeless(const struct sched *s, const struct sched_stream *st, int64_t now)
{
    if (!st->o.deadline_ns || now + sched_cost(s, st, true) <= sched_deadline(st)) return false;
    bool probe = now - MAX(st->last_run_ns, 0) > PROBE_NS && now <= sched_deadline(st);
    return !probe;
}

static struct sched_stream *earliest(const struct sched *s, bool only_resident)
{
    struct sched_stream *best = NULL;
    for (struct sched_stream *st = s->streams; st; st = st->next) {
        if (!st->waiting || (only_resident && !resident(st->o.model))) continue;
        if (!best || sched_turn(st) < sched_turn(best) || (sched_turn(st) == sched_turn(best) && st->o.priority > best->o.priority))
            best = st;
    }
    return best;
}

/* An item of higher priority that would be late if `first` ran before it, although it is not late yet. */
static struct sched_stream *endangered(const struct sched *s, const struct sched_stream *first, int64_t now)
{
    struct sched_stream *best = NULL;
    for (struct sched_stream *st = s->streams; st; st = st->next) {
        if (!st->waiting || st->o.priority <= first->o.priority || !st->o.deadline_ns) continue;
        if (now + sched_cost(s, first, true) + sched_cost(s, st, true) <= sched_deadline(st)) continue;
        if (!best || st->o.priority > best->o.priority) best = st;
    }
    return best;
}

/* Whose model shares most with what is in memory, of those that may go before `first` without making it late; `first` if none shares more. */
static struct sched_stream *nearest(const struct sched *s, struct sched_stream *first, int64_t now)
{
    struct sched_stream *best = first;
    size_t most = sched_shared_now(s, first->o.model);
    for (struct sched_stream *st = s->streams; st && !s->blind; st = st->next) {
        if (!st->waiting || st == first || st->o.priority < first->o.priority || !st->o.model || st->o.model->left_out) continue;
        size_t shared = sched_shared_now(s, st->o.model);
        if (shared <= most || now + sched_cost(s, st, true) + sched_cost(s, first, true) > sched_turn(first)) continue;
        best = st;
        most = shared;
    }
    return best;
}

struct sched_choice sched_choose(struct sched *s, int64_t now)
{
    for (struct sched_stream *st = s->streams; st; st = st->next)
        if (st->waiting && hopeless(s, st, now)) return (struct sched_choice){st, SCHED_DROP_LATE};
    struct sched_stream *first = earliest(s, false);
    if (!first) return (struct sched_choice){NULL, SCHED_RUN};
    struct sched_stream *urgent = endangered(s, first, now);
    if (urgent) return (struct sched_choice){urgent, SCHED_RUN};
    if (!resident(first->o.model)) {
        struct sched_stream *other = earliest(s, true);
        bool harmless = other && other->o.priority >= first->o.priority &&
                        now + sched_cost(s, other, false) + sched_cost(s, first, true) <= sched_turn(first);
        if (harmless) return (struct sched_choice){other, SCHED_RUN};
        return (struct sched_choice){nearest(s, first, now), SCHED_RUN};
    }
    return (struct sched_choice){first, SCHED_RUN};
}
