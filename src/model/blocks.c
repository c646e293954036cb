/* Choosing the block plan.
 *
 * Let the window hold w bytes, full when a run starts, and let the run take L. The bytes streamed up to step i must have been read by the
 * time step i starts at the latest, L - C(i..n): so at most w + bandwidth (L - C(i..n)) of them may stream. For a given w and L the best
 * choice is therefore to stream as early as that allows until enough is streamed (what streams later has less time to be read behind), and
 * the least feasible L is found by bisection. That is done for several windows (a small one keeps more, a large one reads further ahead), and
 * each candidate is run through an exact simulation of the ring, whose result decides.
 *
 * Invariant: fixed + kept + window <= bytes, and the window holds any step's streamed weights at once. SPDX-License-Identifier: Apache-2.0 */
#include "model/blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096, WINDOWS = 24 };

static size_t total_bytes(const struct blocks_problem *p)
{
    size_t n = 0;
    for (int u = 0; u < p->n_uses; u++) n += p->uses[u].bytes;
    return n;
}

static int64_t total_ns(const struct blocks_problem *p)
{
    int64_t ns = 0;
    for (int i = 0; i < p->n_steps; i++) ns += p->step_ns[i];
    return ns;
}

/* The largest sum of streamed bytes at one step. */
static size_t largest_step(const struct blocks_problem *p, const bool *keep)
{
    size_t most = 0, sum = 0;
    for (int u = 0; u < p->n_uses; u++) {
        if (u == 0 || p->uses[u].step != p->uses[u - 1].step) sum = 0;
        if (!keep || !keep[u]) sum += p->uses[u].bytes;
        most = MAX(most, sum);
    }
    return most;
}

/* ---- the ring, simulated */

struct ring {
    const struct blocks_problem *p;
    const bool *keep;
    double per_byte; /* ns */
    size_t window, head, tail, used;
    long placed, freed; /* streamed uses, counted over runs */
    int n;
    const int *list;    /* streamed uses */
    size_t *place;
    double *finish, disk_free;
};

static bool ring_place(struct ring *r, double now)
{
    int k = (int)(r->placed % r->n);
    size_t bytes = r->p->uses[r->list[k]].bytes;
    if (r->placed - r->freed == r->n) return false; /* one run ahead is as far as anybody reads */
    if (!r->used) r->head = r->tail = 0;
    bool wrap = r->window - r->tail < bytes;
    size_t skip = wrap ? r->window - r->tail : 0;
    if (r->used + skip + bytes > r->window) return false;
    r->place[k] = wrap ? 0 : r->tail;
    r->tail = r->place[k] + bytes;
    r->used += skip + bytes;
    r->disk_free = MAX(r->disk_free, now) + (double)bytes * r->per_byte;
    r->finish[k] = r->disk_free;
    r->placed++;
    return true;
}

static void ring_free(struct ring *r)
{
    int k = (int)(r->freed % r->n);
    size_t end = r->place[k] + r->p->uses[r->list[k]].bytes;
    r->used -= end > r->head ? end - r->head : r->window - r->head + end;
    r->head = end;
    r->freed++;
}

/* One run that starts at `now`; returns when it ends. */
static double ring_run(struct ring *r, double now)
{
    int k = 0;
    for (int i = 0; i < r->p->n_steps; i++) {
        int first = k;
        for (; k < r->n && r->p->uses[r->list[k]].step == i; k++) now = MAX(now, r->finish[k]);
        now += (double)r->p->step_ns[i];
        if (k == first) continue;
        for (int j = first; j < k; j++) ring_free(r);
        while (ring_place(r, now)) continue;
    }
    return now;
}

int64_t blocks_predict(const struct blocks_problem *p, const bool *keep, size_t window, bool steady)
{
    int *list = xnewn(int, p->n_uses + 1);
    struct ring r = {.p = p, .keep = keep, .per_byte = 1e9 / p->bandwidth, .window = window, .list = list};
    for (int u = 0; u < p->n_uses; u++)
        if (!keep[u]) list[r.n++] = u;
    double begin = 0, end;
    if (!r.n) {
        end = (double)total_ns(p);
    } else {
        r.place = xnewn(size_t, r.n);
        r.finish = xnewn(double, r.n);
        while (ring_place(&r, 0)) continue;
        for (long k = 0; k < r.placed; k++) r.finish[k] = 0; /* the window is full when the first run starts */
        r.disk_free = 0;
        end = ring_run(&r, 0);
        for (int i = 0; i < 2 && steady; i++) {
            begin = end;
            end = ring_run(&r, begin);
        }
        free(r.place);
        free(r.finish);
    }
    free(list);
    return (int64_t)(end - begin);
}

/* ---- choosing */

/* C(i..n): compute time from each step on. */
static int64_t *time_from(const struct blocks_problem *p)
{
    int64_t *from = xnewn(int64_t, p->n_steps + 1);
    for (int i = p->n_steps; i-- > 0;) from[i] = from[i + 1] + p->step_ns[i];
    return from;
}

/* Streams as early as a run of L allows, until `need` bytes stream. False: L is too short. */
static bool stream_early(const struct blocks_problem *p, const int64_t *from, double window, size_t need, double L, bool *keep)
{
    size_t sum = 0;
    for (int u = 0; u < p->n_uses; u++) {
        double most = window + p->bandwidth / 1e9 * (L - (double)from[p->uses[u].step]);
        keep[u] = sum >= need || (double)(sum + p->uses[u].bytes) > most;
        if (!keep[u]) sum += p->uses[u].bytes;
    }
    return sum >= need;
}

static void choose_kept(const struct blocks_problem *p, const int64_t *from, size_t window, size_t need, bool *keep)
{
    double low = (double)from[0], high = low + (double)need / p->bandwidth * 2e9 + 1e6;
    while (!stream_early(p, from, (double)window, need, high, keep)) high *= 2;
    for (int i = 0; i < 50; i++) {
        double middle = (low + high) / 2;
        if (stream_early(p, from, (double)window, need, middle, keep)) high = middle;
        else low = middle;
    }
    stream_early(p, from, (double)window, need, high, keep);
    size_t spare = 0; /* streaming whole tensors overshoots: keep the last ones that fit after all */
    for (int u = 0; u < p->n_uses; u++) spare += keep[u] ? 0 : p->uses[u].bytes;
    spare -= MIN(spare, need);
    for (int u = p->n_uses; u-- > 0;)
        if (!keep[u] && p->uses[u].bytes <= spare) {
            keep[u] = true;
            spare -= p->uses[u].bytes;
        }
}

static int64_t lower_bound(const struct blocks_problem *p, size_t all)
{
    int64_t before = 0, bound = total_ns(p);
    size_t later = all;
    int u = 0;
    for (int i = 0; i < p->n_steps; i++) {
        size_t room = p->bytes - MIN(p->fixed, p->bytes) + (p->live ? p->arena_bytes - MIN(p->live[i], p->arena_bytes) : 0);
        if (later > room) bound = MAX(bound, before + (int64_t)((double)(later - room) / p->bandwidth * 1e9));
        before += p->step_ns[i];
        for (; u < p->n_uses && p->uses[u].step == i; u++) later -= p->uses[u].bytes;
    }
    return bound;
}

size_t blocks_least(const struct blocks_problem *p)
{
    return p->fixed + largest_step(p, NULL);
}

static void try_window(const struct blocks_problem *p, const int64_t *from, size_t all, size_t window, bool *keep, double *best_score,
                       struct blocks_plan *best)
{
    size_t room = p->bytes - p->fixed - window, need = all - MIN(room, all);
    choose_kept(p, from, window, need, keep);
    if (largest_step(p, keep) > window) return;
    int64_t once = blocks_predict(p, keep, window, false), steady = blocks_predict(p, keep, window, true);
    double reading = 0;
    for (int u = 0; u < p->n_uses; u++) reading += keep[u] ? 0 : (double)p->uses[u].bytes / p->bandwidth * 1e9;
    double score = (double)once + 0.05 * (double)steady + 0.02 * reading; /* single runs count; between equals the one that reads less */
    if (score >= *best_score) return;
    *best_score = score;
    best->window = window;
    best->predicted_ns = once;
    best->steady_ns = steady;
    memcpy(best->keep, keep, (size_t)p->n_uses * sizeof *keep);
}

static void account(const struct blocks_problem *p, struct blocks_plan *b)
{
    b->kept = p->fixed;
    for (int u = 0; u < p->n_uses; u++) *(b->keep[u] ? &b->kept : &b->streamed) += p->uses[u].bytes;
    b->naive_ns = MAX(b->compute_ns, (int64_t)((double)b->streamed / p->bandwidth * 1e9));
}

bool blocks_with_window(const struct blocks_problem *p, size_t room, size_t window, struct blocks_plan *ret)
{
    size_t all = total_bytes(p);
    struct blocks_plan b = {.keep = xnewn(bool, p->n_uses + 1), .compute_ns = total_ns(p), .window = window};
    if (all <= room) {
        for (int u = 0; u < p->n_uses; u++) b.keep[u] = true;
        b.predicted_ns = b.steady_ns = b.compute_ns;
    } else {
        int64_t *from = time_from(p);
        choose_kept(p, from, window, all - room, b.keep);
        free(from);
        if (largest_step(p, b.keep) > window) {
            free(b.keep);
            return false;
        }
        b.predicted_ns = b.steady_ns = blocks_predict(p, b.keep, window, false);
    }
    account(p, &b);
    *ret = b;
    return true;
}

err blocks_make(const struct blocks_problem *p, struct blocks_plan *ret)
{
    size_t all = total_bytes(p), least = blocks_least(p);
    if (p->fixed + all > p->bytes && p->bytes < least)
        return err_set(ERR_NOMEM, "the weights need at least %zu bytes even if all that can stream does, and there are %zu", least, p->bytes);
    struct blocks_plan b = {.keep = xnewn(bool, p->n_uses + 1), .compute_ns = total_ns(p)};
    b.bound_ns = lower_bound(p, all);
    if (p->fixed + all <= p->bytes) {
        for (int u = 0; u < p->n_uses; u++) b.keep[u] = true;
        b.predicted_ns = b.steady_ns = b.compute_ns;
    } else {
        int64_t *from = time_from(p);
        bool *keep = xnewn(bool, p->n_uses + 1);
        double score = INFINITY, smallest = (double)MIN(largest_step(p, NULL), p->bytes - p->fixed), most = (double)(p->bytes - p->fixed);
        for (int i = 0; i <= WINDOWS; i++) { /* from the least to all there is, in equal ratios */
            size_t window = (size_t)(smallest * pow(most / smallest, (double)i / WINDOWS)) / PAGE * PAGE;
            window = MAX(window, (size_t)smallest);
            try_window(p, from, all, window, keep, &score, &b);
        }
        free(keep);
        free(from);
    }
    account(p, &b);
    *ret = b;
    return ERR_OK;
}

void blocks_done(struct blocks_plan *plan)
{
    free(plan->keep);
    plan->keep = NULL;
}
