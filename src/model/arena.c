/* Offsets in the arena from lifetimes.
 *
 * Slots are placed one after the other, each at the lowest offset where it overlaps no placed slot that lives at the same time. The order decides:
 * from the largest to the smallest (greedy by size: Pisarchyk and Lee, 'Efficient Memory Management for Deep Neural Net Inference', 2020,
 * section 5); by size times lifetime; by lifetime; the fullest step first (their greedy by breadth). The best of them is taken, and while it is
 * above the lower bound, the slot that ends highest is placed earlier and all is tried again, a bounded number of times.
 * The lower bound is the largest sum of slots alive at one step. Quadratic in the number of slots; a network has hundreds.
 *
 * Invariant: two slots whose lifetimes [first, last] meet do not share a byte. SPDX-License-Identifier: Apache-2.0 */
#include "model/plan.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

static int64_t length(const struct model_slot *s, int n_steps)
{
    return (int64_t)MIN(s->last, n_steps) - s->first + 1;
}

/* What a slot is sorted by, largest first. */
enum order { BY_SIZE, BY_AREA, BY_LENGTH, BY_BREADTH, N_ORDERS };

struct ranked {
    struct model_slot *slot;
    double key;
};

static int larger_first(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? 1 : -1;
    if (x->slot->bytes != y->slot->bytes) return x->slot->bytes < y->slot->bytes ? 1 : -1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static bool meet(const struct model_slot *a, const struct model_slot *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* `placed` is sorted by offset. */
static size_t lowest_gap(struct model_slot *const *placed, size_t n, const struct model_slot *s)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (!meet(placed[i], s)) continue;
        if (at + s->bytes <= placed[i]->offset) break;
        at = MAX(at, placed[i]->offset + placed[i]->bytes);
    }
    return at;
}

/* Gives every slot its offset; returns how much that takes. */
static size_t place(const struct ranked *order, size_t n, struct model_slot **placed)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        struct model_slot *s = order[i].slot;
        s->offset = lowest_gap(placed, i, s);
        total = MAX(total, s->offset + s->bytes);
        size_t k = i;
        for (; k > 0 && placed[k - 1]->offset > s->offset; k--) placed[k] = placed[k - 1];
        placed[k] = s;
    }
    return total;
}

/* live[1 + step]: bytes alive at each step from -1 to n_steps. Returns the largest. */
static size_t live_bytes(const struct model_plan *p, size_t *live)
{
    size_t most = 0;
    for (size_t i = 0; i < p->n_slots; i++)
        for (int step = p->slots[i].first; step <= MIN(p->slots[i].last, (int)p->n_steps); step++) {
            live[1 + step] += p->slots[i].bytes;
            most = MAX(most, live[1 + step]);
        }
    return most;
}

static void rank(const struct model_plan *p, enum order by, const size_t *live, struct ranked *ret)
{
    for (size_t i = 0; i < p->n_slots; i++) {
        struct model_slot *s = &p->slots[i];
        double size = (double)s->bytes, time = (double)length(s, (int)p->n_steps), key = size;
        if (by == BY_AREA) key = size * time;
        if (by == BY_LENGTH) key = time;
        if (by == BY_BREADTH)
            for (int step = s->first; step <= MIN(s->last, (int)p->n_steps); step++) key = MAX(key, (double)live[1 + step]);
        ret[i] = (struct ranked){s, key};
    }
    qsort(ret, p->n_slots, sizeof *ret, larger_first);
}

/* The slot that ends at `total` comes first from now on. */
static void hurry(struct ranked *order, size_t n, size_t total)
{
    for (size_t i = 0; i < n; i++)
        if (order[i].slot->offset + order[i].slot->bytes == total) {
            struct ranked r = order[i];
            memmove(order + 1, order, i * sizeof *order);
            order[0] = r;
            return;
        }
}

static void keep(const struct model_plan *p, size_t total, size_t *best, size_t *offsets)
{
    if (total >= *best) return;
    *best = total;
    for (size_t i = 0; i < p->n_slots; i++) offsets[i] = p->slots[i].offset;
}

err model_arena_layout(struct model_plan *p)
{
    enum { WORK = 4000000 };
    size_t n = p->n_slots, best = SIZE_MAX, total = 0;
    struct ranked *order = xnewn(struct ranked, n + 1);
    struct model_slot **placed = xnewn(struct model_slot *, n + 1);
    size_t *live = xcalloc(p->n_steps + 2, sizeof *live), *offsets = xnewn(size_t, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (p->slots[i].external) p->slots[i].bytes = 0;
        p->slots[i].bytes = (p->slots[i].bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
    size_t bound = live_bytes(p, live), tries = MIN(WORK / (n * n + 1), 100);
    for (int by = BY_SIZE; by < N_ORDERS && (by == BY_SIZE || best > bound); by++) {
        rank(p, (enum order)by, live, order);
        keep(p, total = place(order, n, placed), &best, offsets);
        for (size_t i = 0; i < tries / N_ORDERS && best > bound; i++) {
            hurry(order, n, total);
            keep(p, total = place(order, n, placed), &best, offsets);
        }
    }
    for (size_t i = 0; i < n; i++) p->slots[i].offset = offsets[i];
    free(order);
    free(placed);
    free(live);
    free(offsets);
    p->sizes.activations = n ? best : 0;
    p->sizes.activations_lower_bound = bound;
    return ERR_OK;
}
