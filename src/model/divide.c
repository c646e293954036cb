/* One budget, several models: who keeps how much, and how large the common window is.
 *
 * A byte kept of a model that runs r times a second saves r bytes of reading a second, whatever model it belongs to: so the division
 * starts with the models that run most often. That is the least traffic, but not the least lateness: a rare model with a deadline shorter than
 * its reading takes may need its share more. So portions are then moved from one model to another as long as that lowers the cost: the
 * time that runs wait for weights, ten times the time by which deadlines are missed, and a steep price for a disk that is asked for more
 * than it can give. Every window from a short list is tried.
 *
 * Invariant: sum of kept (with `fixed`) + window <= bytes. SPDX-License-Identifier: Apache-2.0 */
#include "model/blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOWS = 8, PORTIONS = 24, ROUNDS = 60 };

static size_t streamable(const struct blocks_problem *p)
{
    size_t n = 0;
    for (int u = 0; u < p->n_uses; u++) n += p->uses[u].bytes;
    return n;
}

static size_t largest(const struct blocks_problem *p)
{
    return blocks_least(p) - p->fixed;
}

static size_t fixed_bytes(const struct blocks_tenant *t, int n)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++) sum += t[i].problem->fixed;
    return sum;
}

static size_t all_bytes(const struct blocks_tenant *t, int n)
{
    size_t sum = fixed_bytes(t, n);
    for (int i = 0; i < n; i++) sum += streamable(t[i].problem);
    return sum;
}

static size_t smallest_window(const struct blocks_tenant *t, int n)
{
    size_t most = 0;
    for (int i = 0; i < n; i++) most = MAX(most, largest(t[i].problem));
    return most;
}

size_t blocks_divide_least(const struct blocks_tenant *t, int n)
{
    return MIN(fixed_bytes(t, n) + smallest_window(t, n), all_bytes(t, n));
}

/* ---- the cost of a division */

struct search {
    const struct blocks_tenant *t;
    int n;
    size_t window, *room;      /* room: bytes that tenant i may keep beside its fixed ones */
    struct blocks_plan *plans; /* for room */
};

static double lateness(const struct blocks_tenant *t, const struct blocks_plan *b)
{
    double stall = (double)(b->predicted_ns - b->compute_ns) / 1e9, late = 0;
    if (t->deadline_ns && b->predicted_ns > t->deadline_ns) late = (double)(b->predicted_ns - t->deadline_ns) / 1e9;
    return t->rate * t->weight * (stall + 10 * late);
}

static double disk_share(const struct blocks_tenant *t, int n, const struct blocks_plan *plans)
{
    double share = 0;
    for (int i = 0; i < n; i++) share += t[i].rate * (double)plans[i].streamed / t[i].problem->bandwidth;
    return share;
}

double blocks_division_cost(const struct blocks_tenant *t, int n, const struct blocks_plan *plans)
{
    double share = disk_share(t, n, plans), c = 0.05 * share;
    for (int i = 0; i < n; i++) c += lateness(&t[i], &plans[i]);
    return c + (share > 0.8 ? 20 * (share - 0.8) : 0);
}

/* ---- the search */

static bool plan_for(const struct search *s, int i, size_t room, struct blocks_plan *ret)
{
    return blocks_with_window(s->t[i].problem, room, s->window, ret);
}

/* Most often run first. */
static void start(struct search *s, size_t bytes)
{
    bool *given = xnewn(bool, s->n);
    for (int k = 0; k < s->n; k++) {
        int best = -1;
        for (int i = 0; i < s->n; i++)
            if (!given[i] && (best < 0 || s->t[i].rate * s->t[i].weight > s->t[best].rate * s->t[best].weight)) best = i;
        s->room[best] = MIN(bytes, streamable(s->t[best].problem));
        bytes -= s->room[best];
        given[best] = true;
    }
    free(given);
}

/* Moves `portion` bytes of room from tenant a to b if that costs less. */
static bool try_move(struct search *s, int a, int b, size_t portion, double *now)
{
    size_t most = streamable(s->t[b].problem), bytes = MIN(MIN(portion, s->room[a]), most - MIN(most, s->room[b]));
    struct blocks_plan less, more, keep_a = s->plans[a], keep_b = s->plans[b];
    if (!bytes || !plan_for(s, a, s->room[a] - bytes, &less)) return false;
    if (!plan_for(s, b, s->room[b] + bytes, &more)) {
        blocks_done(&less);
        return false;
    }
    s->plans[a] = less;
    s->plans[b] = more;
    double c = blocks_division_cost(s->t, s->n, s->plans);
    if (c < *now * (1 - 1e-6)) {
        *now = c;
        s->room[a] -= bytes;
        s->room[b] += bytes;
        blocks_done(&keep_a);
        blocks_done(&keep_b);
        return true;
    }
    s->plans[a] = keep_a;
    s->plans[b] = keep_b;
    blocks_done(&less);
    blocks_done(&more);
    return false;
}

static void improve(struct search *s, size_t total, double *now)
{
    size_t portion = total / PORTIONS;
    for (int round = 0; round < ROUNDS && portion >= 65536; round++) {
        bool any = false;
        for (int a = 0; a < s->n; a++)
            for (int b = 0; b < s->n; b++) any |= a != b && try_move(s, a, b, portion, now);
        if (!any) portion /= 4;
    }
}

static void plans_done(struct blocks_plan *plans, int n)
{
    for (int i = 0; i < n; i++) blocks_done(&plans[i]);
    free(plans);
}

/* The best division with this window; false if it is too small. */
static bool with_window(const struct blocks_tenant *t, int n, size_t room, size_t window, struct blocks_plan **ret, double *ret_cost)
{
    struct search s = {.t = t, .n = n, .window = window, .room = xnewn(size_t, n), .plans = xnewn(struct blocks_plan, n)};
    start(&s, room);
    bool fits = true;
    for (int i = 0; i < n && fits; i++) fits = plan_for(&s, i, s.room[i], &s.plans[i]);
    if (fits) {
        *ret_cost = blocks_division_cost(s.t, s.n, s.plans);
        improve(&s, room, ret_cost);
        *ret = s.plans;
    } else {
        plans_done(s.plans, n);
    }
    free(s.room);
    return fits;
}

void blocks_division_account(const struct blocks_tenant *t, int n, struct blocks_division *d)
{
    d->kept = 0;
    d->stall = 0;
    for (int i = 0; i < n; i++) {
        d->kept += d->plans[i].kept;
        d->stall += t[i].rate * (double)(d->plans[i].predicted_ns - d->plans[i].compute_ns) / 1e9;
    }
    d->disk_share = disk_share(t, n, d->plans);
}

err blocks_divide(const struct blocks_tenant *t, int n, size_t bytes, struct blocks_division *ret)
{
    size_t all = all_bytes(t, n), fixed = fixed_bytes(t, n), smallest = smallest_window(t, n);
    struct blocks_division d = {0};
    double best = INFINITY;
    if (bytes < blocks_divide_least(t, n))
        return err_set(ERR_NOMEM, "the weights of %d models need at least %zu bytes even if all that can stream does, and there are %zu", n,
                       blocks_divide_least(t, n), bytes);
    if (all <= bytes) {
        with_window(t, n, all - fixed, 0, &d.plans, &best);
    } else {
        double most = (double)(bytes - fixed);
        for (int i = 0; i <= WINDOWS; i++) {
            struct blocks_plan *plans;
            double c;
            size_t window = (size_t)((double)smallest * pow(most / (double)smallest, (double)i / WINDOWS)) / 4096 * 4096;
            window = MAX(window, smallest);
            if (!with_window(t, n, bytes - fixed - window, window, &plans, &c)) continue;
            if (c < best) {
                if (d.plans) plans_done(d.plans, n);
                d.plans = plans;
                d.window = window;
                best = c;
            } else {
                plans_done(plans, n);
            }
        }
    }
    blocks_division_account(t, n, &d);
    *ret = d;
    return ERR_OK;
}

void blocks_division_done(struct blocks_division *d, int n)
{
    if (d->plans) plans_done(d->plans, n);
    *d = (struct blocks_division){0};
}
