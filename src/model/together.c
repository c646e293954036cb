/* Divisions for models that have weights in common: what several keep is in memory once.
 *
 * The division is made with more bytes than there are: first with all that could be shared, then with what was shared in the division before, until
 * one shares as much as it counted on; at last as if nothing were shared. At the end, what one model keeps all others that have it keep as well: it
 * costs nothing, and they need not stream it.
 *
 * Invariant: kept - shared + window <= bytes. SPDX-License-Identifier: Apache-2.0 */
#include "model/blocks.h"

#include <stdlib.h>
#include <string.h>

enum { TRIES = 4 };

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
    size_t saved = most_shared(t, n, ret), now;
    for (int i = 0; i < TRIES && saved; i++, saved = now)
        if (try_with(t, n, sum(bytes, twice), saved, ret, &now)) break;
    keep_together(t, n, ret);
    ret->shared = twice + shared_bytes(t, n, ret);
    return ERR_OK;
}
