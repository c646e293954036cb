/* Divisions for models that have weights in common: what several keep is in memory once.
 *
 * The division is made with more bytes than there are: first with all that could be shared, then with what was shared in the division before, until
 * one shares as much as it counted on; at last as if nothing were shared. At the end, what one model keeps all others that have it keep as well: it
 * costs nothing, and they need not stream it.
 *
 * A second division goes by what a byte is worth: kept once, it saves a read to every run of every model that has it. What most runs need is kept, the
 * rest streams through a window as small as that allows (networks that differ by their heads need a window for a head, not for their largest layer).
 * Where a quarter of all bytes or more is shared, the cheaper of both is taken.
 *
 * Invariant: kept - shared + window <= bytes. SPDX-License-Identifier: Apache-2.0 */
#include "model/blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TRIES = 4, WINDOWS = 16, LEAST_WINDOW = 65536 };

struct use {
    const struct blocks_use *use;
    bool *keep;
    int tenant;
};

static int by_content(const void *a, const void *b)
{
    const struct blocks_use *x = ((const struct use *)a)->use, *y = ((const struct use *)b)->use;
    return x->bytes != y->bytes ? (x->bytes < y->bytes ? -1 : 1) : memcmp(x->id, y->id, 32);
}

/* All uses that have a name, equal ones side by side. */
static struct use *uses_of(const struct blocks_tenant *t, int n, const struct blocks_division *d, int *ret_n)
{
    int count = 0;
    for (int i = 0; i < n; i++) count += t[i].problem->n_uses;
    struct use *all = xnewn(struct use, count + 1);
    count = 0;
    for (int i = 0; i < n; i++)
        for (int u = 0; u < t[i].problem->n_uses; u++)
            if (t[i].problem->uses[u].id) all[count++] = (struct use){&t[i].problem->uses[u], &d->plans[i].keep[u], i};
    if (count) qsort(all, (size_t)count, sizeof *all, by_content);
    *ret_n = count;
    return all;
}

static int group_end(const struct use *all, int n, int from)
{
    int end = from + 1;
    while (end < n && !by_content(&all[end], &all[from])) end++;
    return end;
}

/* Bytes that are kept by more than one, once for each further one. */
static size_t shared_bytes(const struct blocks_tenant *t, int n, const struct blocks_division *d)
{
    int count;
    size_t bytes = 0;
    struct use *all = uses_of(t, n, d, &count);
    for (int i = 0, end; i < count; i = end) {
        int kept = 0;
        end = group_end(all, count, i);
        for (int k = i; k < end; k++) kept += *all[k].keep;
        if (kept > 1) bytes += (size_t)(kept - 1) * all[i].use->bytes;
    }
    free(all);
    return bytes;
}

/* What one keeps, all keep. */
static void keep_together(const struct blocks_tenant *t, int n, struct blocks_division *d)
{
    int count;
    bool *changed = xnewn(bool, n + 1);
    struct use *all = uses_of(t, n, d, &count);
    for (int i = 0, end; i < count; i = end) {
        int kept = 0;
        end = group_end(all, count, i);
        for (int k = i; k < end; k++) kept += *all[k].keep;
        for (int k = i; k < end && kept; k++) {
            struct blocks_plan *p = &d->plans[all[k].tenant];
            if (*all[k].keep) continue;
            *all[k].keep = changed[all[k].tenant] = true;
            p->kept += all[k].use->bytes;
            p->streamed -= all[k].use->bytes;
        }
    }
    for (int i = 0; i < n; i++) {
        struct blocks_plan *p = &d->plans[i];
        if (!changed[i]) continue;
        p->predicted_ns = blocks_predict(t[i].problem, p->keep, d->window, false);
        p->steady_ns = blocks_predict(t[i].problem, p->keep, d->window, true);
    }
    free(all);
    free(changed);
    blocks_division_account(t, n, d);
}

static size_t sum(size_t a, size_t b)
{
    return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}

/* Bytes of all uses that others have as well, once for each further one: the most that can be shared. */
static size_t most_shared(const struct blocks_tenant *t, int n, const struct blocks_division *d)
{
    int count;
    size_t bytes = 0;
    struct use *all = uses_of(t, n, d, &count);
    for (int i = 0, end; i < count; i = end) {
        end = group_end(all, count, i);
        bytes += (size_t)(end - i - 1) * all[i].use->bytes;
    }
    free(all);
    return bytes;
}

/* ---- by worth */

struct lot { /* equal uses: kept together or not at all */
    int first, end;  /* in `all` */
    size_t bytes;
    double worth;    /* runs a second that need it, by their weights */
    int later;       /* its last step */
    bool kept;
};

struct worth {
    const struct blocks_tenant *t;
    int n, n_uses, n_lots;
    struct use *all;  /* of all tenants; equal ones side by side */
    struct lot *lots;
    int **lot;        /* [tenant][use] */
    struct lot **order; /* most wanted first */
};

static int by_name(const void *a, const void *b)
{
    const struct use *x = a, *y = b;
    if (x->use->id && y->use->id) return by_content(a, b);
    if (x->use->id || y->use->id) return x->use->id ? -1 : 1;
    return x->use < y->use ? -1 : x->use > y->use; /* nobody else has it */
}

static int by_worth(const void *a, const void *b)
{
    const struct lot *x = *(struct lot *const *)a, *y = *(struct lot *const *)b;
    if (x->worth != y->worth) return x->worth > y->worth ? -1 : 1;
    if (x->later != y->later) return x->later > y->later ? -1 : 1; /* what is needed early is there when a run begins */
    return x < y ? -1 : x > y;
}

static void worth_of(struct worth *w, const struct blocks_tenant *t, int n)
{
    int most = 0;
    for (int i = 0; i < n; i++) most += t[i].problem->n_uses;
    *w = (struct worth){.t = t, .n = n, .all = xnewn(struct use, most + 1), .lots = xnewn(struct lot, most + 1), .lot = xnewn(int *, n + 1)};
    for (int i = 0; i < n; i++) {
        w->lot[i] = xnewn(int, t[i].problem->n_uses + 1);
        for (int u = 0; u < t[i].problem->n_uses; u++) w->all[w->n_uses++] = (struct use){&t[i].problem->uses[u], NULL, i};
    }
    qsort(w->all, (size_t)w->n_uses, sizeof *w->all, by_name);
    for (int k = 0; k < w->n_uses; k++) {
        const struct use *one = &w->all[k];
        bool same = k && one->use->id && w->all[k - 1].use->id && !by_content(one, &w->all[k - 1]);
        if (!same) w->lots[w->n_lots++] = (struct lot){.first = k, .bytes = one->use->bytes};
        struct lot *l = &w->lots[w->n_lots - 1];
        l->end = k + 1;
        l->worth += t[one->tenant].rate * t[one->tenant].weight;
        l->later = MAX(l->later, one->use->step);
        w->lot[one->tenant][one->use - t[one->tenant].problem->uses] = w->n_lots - 1;
    }
    w->order = xnewn(struct lot *, w->n_lots + 1);
    for (int k = 0; k < w->n_lots; k++) w->order[k] = &w->lots[k];
    qsort(w->order, (size_t)w->n_lots, sizeof *w->order, by_worth);
}

static void worth_done(struct worth *w)
{
    for (int i = 0; i < w->n; i++) free(w->lot[i]);
    free(w->lot);
    free(w->order);
    free(w->lots);
    free(w->all);
}

/* What needs more than the window at one step is kept, its largest first; bytes. */
static size_t keep_large(struct worth *w, size_t window)
{
    size_t bytes = 0;
    for (int i = 0; i < w->n; i++) {
        const struct blocks_problem *p = w->t[i].problem;
        for (int from = 0, end; from < p->n_uses; from = end) {
            size_t sum = 0;
            for (end = from; end < p->n_uses && p->uses[end].step == p->uses[from].step; end++) sum += w->lots[w->lot[i][end]].kept ? 0 : p->uses[end].bytes;
            while (sum > window) {
                struct lot *largest = NULL;
                for (int u = from; u < end; u++) {
                    struct lot *l = &w->lots[w->lot[i][u]];
                    if (!l->kept && (!largest || l->bytes > largest->bytes)) largest = l;
                }
                largest->kept = true;
                bytes += largest->bytes;
                sum = 0;
                for (int u = from; u < end; u++) sum += w->lots[w->lot[i][u]].kept ? 0 : p->uses[u].bytes;
            }
        }
    }
    return bytes;
}

static bool keep_by_worth(struct worth *w, size_t room, size_t window)
{
    for (int k = 0; k < w->n_lots; k++) w->lots[k].kept = false;
    size_t bytes = keep_large(w, window);
    if (bytes > room) return false;
    for (int k = 0; k < w->n_lots; k++) {
        struct lot *l = w->order[k];
        if (l->kept || l->bytes > room - bytes) continue;
        l->kept = true;
        bytes += l->bytes;
    }
    return true;
}

static void plans_of(const struct worth *w, size_t window, struct blocks_division *d)
{
    d->plans = xnewn(struct blocks_plan, w->n);
    d->window = window;
    for (int i = 0; i < w->n; i++) {
        const struct blocks_problem *p = w->t[i].problem;
        struct blocks_plan *b = &d->plans[i];
        *b = (struct blocks_plan){.keep = xnewn(bool, p->n_uses + 1), .window = window, .kept = p->fixed};
        for (int s = 0; s < p->n_steps; s++) b->compute_ns += p->step_ns[s];
        for (int u = 0; u < p->n_uses; u++) {
            b->keep[u] = w->lots[w->lot[i][u]].kept;
            *(b->keep[u] ? &b->kept : &b->streamed) += p->uses[u].bytes;
        }
        b->predicted_ns = blocks_predict(p, b->keep, window, false);
        b->steady_ns = blocks_predict(p, b->keep, window, true);
        b->naive_ns = MAX(b->compute_ns, (int64_t)((double)b->streamed / p->bandwidth * 1e9));
    }
    blocks_division_account(w->t, w->n, d);
}

/* The best one by worth, if it costs less than `ret`. */
static void try_by_worth(const struct blocks_tenant *t, int n, size_t bytes, struct blocks_division *ret)
{
    struct worth w;
    size_t fixed = 0;
    double best = blocks_division_cost(t, n, ret->plans);
    for (int i = 0; i < n; i++) fixed += t[i].problem->fixed;
    if (bytes <= fixed || !ret->window) return; /* nothing streams, so nothing can be better */
    worth_of(&w, t, n);
    double least = LEAST_WINDOW, most = (double)(bytes - fixed);
    for (int i = 0; i < WINDOWS && least < most; i++) {
        struct blocks_division d = {0};
        size_t window = (size_t)(least * pow(most / least, (double)i / WINDOWS)) / 4096 * 4096;
        if (!keep_by_worth(&w, bytes - fixed - window, window)) continue;
        plans_of(&w, window, &d);
        double c = blocks_division_cost(t, n, d.plans);
        if (c < best * (1 - 1e-6)) {
            best = c;
            blocks_division_done(ret, n);
            *ret = d;
        } else {
            blocks_division_done(&d, n);
        }
    }
    worth_done(&w);
}

/* With `saved` bytes more than there are; false if it does not share that much. */
static bool try_with(const struct blocks_tenant *t, int n, size_t bytes, size_t saved, struct blocks_division *ret, size_t *ret_shared)
{
    struct blocks_division d;
    *ret_shared = 0;
    if (blocks_divide(t, n, sum(bytes, saved), &d)) return false;
    *ret_shared = shared_bytes(t, n, &d);
    if (d.kept + d.window > sum(bytes, *ret_shared)) {
        blocks_division_done(&d, n);
        return false;
    }
    blocks_division_done(ret, n);
    *ret = d;
    return true;
}

err blocks_divide_shared(const struct blocks_tenant *t, int n, size_t bytes, size_t twice, struct blocks_division *ret)
{
    err e = blocks_divide(t, n, sum(bytes, twice), ret);
    if (e) return e;
    size_t saved = most_shared(t, n, ret), all = 0, now;
    for (int i = 0; i < n; i++)
        for (int u = 0; u < t[i].problem->n_uses; u++) all += t[i].problem->uses[u].bytes;
    for (int i = 0; i < TRIES && saved; i++, saved = now)
        if (try_with(t, n, sum(bytes, twice), saved, ret, &now)) break;
    keep_together(t, n, ret);
    if (4 * most_shared(t, n, ret) >= all) try_by_worth(t, n, sum(bytes, twice), ret); /* less in common: rehearsals say that reading ahead is worth more */
    ret->shared = twice + shared_bytes(t, n, ret);
    return ERR_OK;
}
